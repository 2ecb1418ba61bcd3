//! Files, directories, links, and parts of files.

use super::{CONFIRM, CONFIRM_UNDO, GROUP, MODE, OWNER, STATE, TARGET};
use crate::policy::params::{Kind, Param, Rule, Type};
use crate::policy::shapes::Shape;

/// The types of this group.
pub const TYPES: &[Type] = &[
    Type {
        name: "blockinfile",
        meaning: "a block of lines between two markers is in a file, or is not; the rest of the file is left alone",
        params: &[
            TARGET,
            Param::optional("block", Kind::Text, "", "the lines between the markers"),
            Param::optional(
                "marker",
                Kind::Shape(Shape::Marker),
                "# {mark} VIGO MANAGED BLOCK",
                "the lines around the block; each block of a file needs its own",
            ),
            Param::optional(
                "position",
                Kind::Position,
                "end",
                "where a new block goes: end, begin, after:RE or before:RE",
            ),
            STATE,
            CONFIRM,
            CONFIRM_UNDO,
        ],
        rules: &[Rule::OneOfUnless(&["block"], "state", "absent")],
        example: r##"- name: ssh-group
  type: blockinfile
  target_path: /etc/ssh/sshd_config
  marker: "# {mark} sftp users"
  block: |
    Match Group sftp
      ForceCommand internal-sftp
"##,
    },
    Type {
        name: "directory",
        meaning: "a directory exists with this owner and mode, or does not exist",
        params: &[
            TARGET,
            STATE,
            MODE,
            OWNER,
            GROUP,
            Param::optional(
                "recurse",
                Kind::Bool,
                "false",
                "owner, group and mode reach everything below (files keep their execute bits); with state absent, the content goes too",
            ),
        ],
        rules: &[],
        example: r#"- name: spool
  type: directory
  target_path: /var/spool/app
  owner: app
  mode: "0750"
"#,
    },
    Type {
        name: "file",
        meaning: "a file has this content, owner and mode, or does not exist",
        params: &[
            TARGET,
            STATE,
            Param::optional("content", Kind::Text, "left alone", "the whole content"),
            Param::optional("source", Kind::Source, "", "file of the policy: files/.. as it is, templates/.. rendered"),
            MODE,
            OWNER,
            GROUP,
            Param::optional("backup", Kind::Bool, "false", "keep what was there before as NAME.vigo-backup"),
            Param::optional("validate", Kind::Text, "", "command that must accept the new content; %s is its path"),
            CONFIRM,
            CONFIRM_UNDO,
        ],
        rules: &[Rule::AtMostOne(&["content", "source"])],
        example: r#"- name: motd
  type: file
  target_path: /etc/motd
  content: "{{ traits.network.hostname }} is managed\n"
  mode: "0644"
"#,
    },
    Type {
        name: "file_line",
        meaning: "a line is in a file, or is not",
        params: &[
            TARGET,
            Param::optional("line", Kind::Text, "", "the line, without its newline"),
            Param::optional("match_pattern", Kind::Pattern, "", "the line that it replaces, or the lines that go"),
            Param::optional(
                "position",
                Kind::Position,
                "end",
                "where a new line goes: end, begin, after:RE or before:RE",
            ),
            STATE,
            CONFIRM,
            CONFIRM_UNDO,
        ],
        rules: &[
            Rule::OneOfUnless(&["line"], "state", "absent"),
            Rule::OneOfWhen(&["line", "match_pattern"], "state", "absent"),
        ],
        example: r#"- name: no-root-login
  type: file_line
  target_path: /etc/ssh/sshd_config
  match_pattern: "^#?PermitRootLogin "
  line: PermitRootLogin no
"#,
    },
    Type {
        name: "host",
        meaning: "names of hosts have this address in /etc/hosts and no other of its family, or are not there",
        params: &[
            Param::optional("ip", Kind::Shape(Shape::Address), "", "the address; with state absent, only its line"),
            Param::required("names", Kind::Shapes(Shape::HostName), "the name of the host, then its aliases"),
            Param::optional("target_path", Kind::Path, "/etc/hosts", "the file"),
            STATE,
        ],
        rules: &[Rule::OneOfUnless(&["ip"], "state", "absent")],
        example: r#"- name: database
  type: host
  ip: 10.0.0.7
  names: [db.example.com, db]
"#,
    },
    Type {
        name: "ini",
        meaning: "a key of an ini file has this value, or a key or a section is not there; comments, order and spacing stay",
        params: &[
            TARGET,
            Param::optional("section", Kind::Shape(Shape::IniSection), "before the first section", "without brackets"),
            Param::optional("key", Kind::Shape(Shape::IniKey), "", "the key"),
            Param::optional("value", Kind::Shape(Shape::Line), "the key stands alone", "its value"),
            Param::optional("spaces", Kind::Bool, "as in the file, else true", "blanks around the `=` of a new line"),
            STATE,
            CONFIRM,
            CONFIRM_UNDO,
        ],
        rules: &[
            Rule::OneOfUnless(&["key"], "state", "absent"),
            Rule::OneOfWhen(&["key", "section"], "state", "absent"),
        ],
        example: r#"- name: journal-size
  type: ini
  target_path: /etc/systemd/journald.conf
  section: Journal
  key: SystemMaxUse
  value: 200M
"#,
    },
    Type {
        name: "json_file",
        meaning: "a place in a JSON file has this value, or is not there; other keys, their order and the indentation stay",
        params: &[
            TARGET,
            Param::optional("pointer", Kind::Shape(Shape::Pointer), "the whole document", "the place, as /log/level"),
            Param::optional("value", Kind::Any, "", "its value"),
            Param::optional("merge", Kind::Mapping, "", "keys that an object there must have, at any depth"),
            STATE,
        ],
        rules: &[
            Rule::AtMostOne(&["value", "merge"]),
            Rule::OneOfUnless(&["value", "merge"], "state", "absent"),
            Rule::OneOfWhen(&["pointer"], "state", "absent"),
        ],
        example: r#"- name: docker-logs
  type: json_file
  target_path: /etc/docker/daemon.json
  merge:
    log-driver: json-file
    log-opts: {max-size: 10m}
"#,
    },
    Type {
        name: "replace",
        meaning: "every match of a pattern in a file reads as its replacement",
        params: &[
            TARGET,
            Param::required(
                "pattern",
                Kind::Pattern,
                "what is replaced, in the whole file; ^ and $ match at every line",
            ),
            Param::optional(
                "replacement",
                Kind::Text,
                "nothing",
                "the new text; $1 or ${name} is a group, $$ a dollar",
            ),
            CONFIRM,
            CONFIRM_UNDO,
        ],
        rules: &[],
        example: r#"- name: mirror
  type: replace
  target_path: /etc/apt/sources.list
  pattern: "http://[a-z.]*debian.org/"
  replacement: "http://mirror.example.com/"
"#,
    },
    Type {
        name: "sshkey",
        meaning: "the key of a host is known to ssh, and no other of its type, or is not",
        params: &[
            Param::required("host", Kind::Shapes(Shape::KnownHost), "name or address; [HOST]:PORT for another port"),
            Param::optional("key", Kind::Shape(Shape::PublicKey), "", "the public key, as in a .pub file"),
            Param::optional("target_path", Kind::Path, "/etc/ssh/ssh_known_hosts", "the file"),
            STATE,
        ],
        rules: &[Rule::OneOfUnless(&["key"], "state", "absent")],
        example: r#"- name: git-server
  type: sshkey
  host: git.example.com
  key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
"#,
    },
    Type {
        name: "symlink",
        meaning: "a link points to a path, or does not exist",
        params: &[
            Param::required("target_path", Kind::Path, "where the link is on the host"),
            Param::optional("to", Kind::LinkText, "", "what it points to"),
            STATE,
            Param::optional(
                "link_type",
                Kind::Word(&["soft", "hard"]),
                "soft",
                "symbolic link, or another name of one file",
            ),
            Param::optional("force", Kind::Bool, "false", "replace a file that is in the way (never a directory)"),
        ],
        rules: &[Rule::OneOfUnless(&["to"], "state", "absent")],
        example: r#"- name: current
  type: symlink
  target_path: /opt/app/current
  to: /opt/app/releases/7
"#,
    },
];
