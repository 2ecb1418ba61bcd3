//! Files, directories, links, and parts of files.

use super::{GROUP, MODE, OWNER, STATE, TARGET};
use crate::policy::params::{Kind, Param, Rule, Type};

/// The types of this group.
pub const TYPES: &[Type] = &[
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
