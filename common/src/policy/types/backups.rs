//! Snapshots of directories and dumps of databases.

use crate::policy::params::{Kind, Param, Type};
use crate::policy::shapes::Shape;

/// Days that a snapshot can be kept: a century.
const DAYS_MAX: i64 = 36_500;

const TARGET: Param = Param::required(
    "target_path",
    Kind::Path,
    "directory of the snapshots, one for each resource; made with mode 0700 where it is missing",
);
const RETAIN: Param =
    Param::optional("retain", Kind::Int(1, DAYS_MAX), "30", "days that a snapshot is kept; the last one stays");
const SCHEDULE: Param = Param::optional(
    "schedule",
    Kind::Word(&["hourly", "daily", "weekly"]),
    "daily",
    "one snapshot in each hour, day or week (from Monday) of UTC; a notification takes one at once",
);
const MIN_FREE_SPACE: Param = Param::optional(
    "min_free_space",
    Kind::Shape(Shape::Size),
    "1G",
    "what has to be free at the target before anything is written; else it is blocked",
);

/// The types of this group.
pub const TYPES: &[Type] = &[BACKUP, DB_BACKUP];

const BACKUP: Type = Type {
    name: "backup",
    meaning: "a directory has a snapshot of this hour, day or week; what did not change is a hard link to the one before",
    params: &[
        Param::required("source_dir", Kind::Path, "what is copied, without other file systems mounted below it"),
        TARGET,
        RETAIN,
        SCHEDULE,
        Param::optional(
            "exclude",
            Kind::Shape(Shape::Patterns),
            "",
            "what is left out: a pattern with a slash in it is compared with the path below `source_dir`, another one with the \
             name; one that ends with a slash means directories",
        ),
        Param::optional(
            "cross_fs",
            Kind::Word(&["fail", "copy", "warn"]),
            "fail",
            "where the target is on another file system: refused, whole copies without links, or as usual with a word in the report",
        ),
        MIN_FREE_SPACE,
        Param::optional("pre_command", Kind::Command, "", "runs before; where it fails no snapshot is made"),
        Param::optional("post_command", Kind::Command, "", "runs after it in any case"),
    ],
    rules: &[],
    example: r#"- name: home
  type: backup
  source_dir: /home
  target_path: /var/backups/home
  retain: 14
  exclude: "*.tmp, .cache/"
"#,
};

const DB_BACKUP: Type = Type {
    name: "db_backup",
    meaning: "a database has a dump of this hour, day or week, packed; one that did not change is a hard link to the one before",
    params: &[
        Param::required(
            "db_type",
            Kind::Word(&["sqlite", "postgres", "mysql", "mariadb"]),
            "what it is; its tools are on the host",
        ),
        Param::required("source_db", Kind::Shape(Shape::Database), "which database; of sqlite the file"),
        Param::optional("db_user", Kind::Name, "postgres, or that of the client", "user of the server"),
        Param::optional(
            "db_password",
            Kind::Text,
            "that of ~/.pgpass or ~/.my.cnf",
            "its password, as `secret:PATH`; it is no argument of the tool",
        ),
        Param::optional(
            "db_host",
            Kind::Shape(Shape::DatabaseHost),
            "the socket of this host",
            "where the server is; by a socket and without a password, pg_dump runs as the user of that name",
        ),
        Param::optional("db_port", Kind::Int(1, 65_535), "that of the client", "its port"),
        Param::optional(
            "db_dump_command",
            Kind::Command,
            "sqlite3, pg_dump, mysqldump or mariadb-dump",
            "runs instead of these; what it writes to standard output is the dump, and a status other than 0 means that there is none",
        ),
        TARGET,
        RETAIN,
        SCHEDULE,
        MIN_FREE_SPACE,
        Param::optional("optional", Kind::Bool, "false", "where there is no such database it is skipped, not failed"),
    ],
    rules: &[],
    example: r#"- name: shop
  type: db_backup
  db_type: postgres
  source_db: shop
  target_path: /var/backups/shop
  schedule: hourly
  retain: 7
"#,
};
