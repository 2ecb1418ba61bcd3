//! Commands.

use crate::policy::params::{Kind, Param, Type};
use crate::policy::shapes::Shape;

const CWD: Param = Param::optional("cwd", Kind::Path, "/", "working directory");
const USER: Param = Param::optional("user", Kind::Account, "that of the agent", "user that it runs as");
const ENVIRONMENT: Param =
    Param::optional("environment", Kind::Environment, "", "variables on top of PATH, HOME and VIGO_RUN_ID");

/// The types of this group.
pub const TYPES: &[Type] = &[
    Type {
        name: "custom",
        meaning: "whatever a program of the operator says and does: it is asked and answers in JSON",
        params: &[
            Param::required("program", Kind::Path, "the program on the host"),
            Param::optional("args", Kind::Texts, "", "its arguments; they can be seen by every user of the host"),
            Param::optional("input", Kind::Mapping, "{}", "what it is told; the place for secrets"),
            CWD,
            USER,
            ENVIRONMENT,
        ],
        rules: &[],
        example: r#"- name: dns
  type: custom
  program: /usr/local/lib/vigo/dns-record
  input: {zone: example.com, name: www, address: 10.0.0.5}
"#,
    },
    Type {
        name: "exec",
        meaning: "a command runs, unless its guards say that it need not",
        params: &[
            Param::required("command", Kind::Command, "what runs: a line for /bin/sh, or a list that needs no shell"),
            Param::optional("onlyif", Kind::Command, "", "runs only if this exits with 0"),
            Param::optional("unless", Kind::Command, "", "runs unless this exits with 0"),
            Param::optional("creates", Kind::Path, "", "runs only while this path does not exist"),
            CWD,
            USER,
            ENVIRONMENT,
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
    },
    Type {
        name: "process",
        meaning: "a program runs, or does not; services are better managed by `service`",
        params: &[
            Param::required(
                "process",
                Kind::Shape(Shape::Field),
                "name of the program as the kernel shows it in /proc/PID/comm; what is beyond 15 bytes does not count",
            ),
            Param::optional("pattern", Kind::Pattern, "", "its command line matches this as well"),
            Param::optional("user", Kind::Account, "anybody", "it runs as this user, and is started as this user"),
            Param::optional(
                "state",
                Kind::Word(&["running", "stopped"]),
                "running",
                "whether one of them runs, or none",
            ),
            Param::optional(
                "command",
                Kind::Command,
                "",
                "starts it in the background; where it is given, a notification stops and starts it",
            ),
            CWD,
            ENVIRONMENT,
            Param::optional(
                "signal",
                Kind::Word(&["TERM", "INT", "HUP", "QUIT", "KILL"]),
                "TERM",
                "how it is told to stop",
            ),
            Param::optional("grace", Kind::Duration, "10s", "time from the signal to KILL"),
        ],
        rules: &[],
        example: r#"- name: no-miner
  type: process
  process: xmrig
  state: stopped
"#,
    },
];

/// How the program of a `custom` and the agent talk, for the reference.
pub const PROTOCOL: &str = r#"The program is started once for each question, and gets it as one JSON object on standard input:

```json
{"protocol": 1, "action": "check", "resource": "dns", "notified": false, "sysroot": null, "input": {"zone": "example.com"}}
```

`action` is `check` or `apply`; `notified` is true where a change of another resource notified this one; `sysroot` is the root
that paths are below, where that is not `/`. The environment has `VIGO_RUN_ID`, the same in all questions of a run.

It answers with one JSON object on standard output, of at most 64 KiB, and exits with 0:

```json
{"status": "differs", "message": "www points to 10.0.0.4", "diff": "-10.0.0.4\n+10.0.0.5\n"}
```

| status | after `check` | after `apply` |
|---|---|---|
| `ok` | nothing differs | it was applied |
| `differs` | `message` says what, `diff` may show it | it could not be applied |
| `failed` | the resource failed, `message` says why | the same |
| `blocked` | the host is in no state to tell: a lock, a full disk, no network | the same |

`check` only reads; it is all that a dry run asks. `apply` follows only a `check` that answered `differs`, and another `check`
follows it: if that does not answer `ok` the resource has failed. Any other exit status is a failure, and standard error is
quoted. Unknown keys of an answer are ignored; a program should ignore unknown keys of a question.
"#;
