//! Commands.

use crate::policy::params::{Kind, Param, Type};

/// The types of this group.
pub const TYPES: &[Type] = &[Type {
    name: "exec",
    meaning: "a command runs, unless its guards say that it need not",
    params: &[
        Param::required("command", Kind::Command, "what runs: a line for /bin/sh, or a list that needs no shell"),
        Param::optional("onlyif", Kind::Command, "", "runs only if this exits with 0"),
        Param::optional("unless", Kind::Command, "", "runs unless this exits with 0"),
        Param::optional("creates", Kind::Path, "", "runs only while this path does not exist"),
        Param::optional("cwd", Kind::Path, "/", "working directory"),
        Param::optional("user", Kind::Account, "that of the agent", "user that it runs as"),
        Param::optional("environment", Kind::Environment, "", "variables on top of PATH, HOME and VIGO_RUN_ID"),
        Param::optional("stdin", Kind::Text, "", "what it reads from standard input"),
        Param::optional("returns", Kind::Codes, "0", "exit statuses that mean success"),
        Param::optional("umask", Kind::Mode, "0022", "bits that new files do not get"),
    ],
    rules: &[],
    example: r#"- name: index
  type: exec
  command: /usr/bin/mandb --quiet
  creates: /var/cache/man/index.db
"#,
}];
