//! How each kind of database is dumped: the tool, its arguments, what it is told in secret, how the end of its dump looks.
//!
//! Arguments can be seen by every user of the host, so a password never is one. All dumps are made in one transaction, and the
//! same content gives the same text: no dates, no positions of a log, and the random word that `pg_dump` puts around a dump is
//! that of the dump before.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;

use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::Tool;

/// Kinds of databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
    /// A server.
    Mysql,
    /// A server; its tools have other names.
    Mariadb,
}

/// Which database.
pub struct Database<'t> {
    /// Its kind.
    pub engine: Engine,
    /// Name, or path of the file.
    pub name: Cow<'t, str>,
    user: Option<Cow<'t, str>>,
    host: Option<Cow<'t, str>>,
    port: Option<Cow<'t, str>>,
    password: Option<Cow<'t, str>>,
}

/// What is started.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// On top of the usual.
    pub environment: Vec<(String, String)>,
    /// As whom, where not as the agent.
    pub user: Option<String>,
}

/// User of a PostgreSQL server where none is named: it has this one in any case.
const POSTGRES: &str = "postgres";
/// Letters of the word around a dump.
const WORD_BYTES_MAX: usize = 128;

impl<'t> Database<'t> {
    /// From the parameters of a task.
    pub fn read(reader: &Reader<'t>) -> Database<'t> {
        let engine = match reader.text("db_type").as_deref() {
            Some("postgres") => Engine::Postgres,
            Some("mysql") => Engine::Mysql,
            Some("mariadb") => Engine::Mariadb,
            _ => Engine::Sqlite,
        };
        Database {
            engine,
            name: reader.text("source_db").unwrap_or_default(),
            user: reader.text("db_user"),
            host: reader.text("db_host"),
            port: reader.text("db_port"),
            password: reader.text("db_password"),
        }
    }

    /// The tool that dumps it; without one nothing can be said of the database.
    pub fn tool(&self, host: &Host) -> Result<Tool, Fault> {
        let names: &[&str] = match self.engine {
            Engine::Sqlite => &["sqlite3"],
            Engine::Postgres => &["pg_dump"],
            Engine::Mysql => &["mysqldump", "mariadb-dump"],
            Engine::Mariadb => &["mariadb-dump", "mysqldump"],
        };
        let missing =
            || Fault::Blocked(format!("`{}` is not installed on this host: install it, and depend on it", names[0]));
        names.iter().find_map(|name| Tool::find(host, name)).ok_or_else(missing)
    }

    /// The call for a server. `word` is the one around the dump before.
    pub fn call(&self, host: &mut Host, word: Option<&str>) -> Result<Call, Fault> {
        let tool = self.tool(host)?;
        let option = |name: &str, value: &Option<Cow<'_, str>>| value.as_ref().map(|value| format!("--{name}={value}"));
        let at_socket = self.host.as_deref().is_none_or(|at| at.starts_with('/'));
        let mut environment = vec![("LC_ALL".to_string(), "C".to_string())];
        let secret = if self.engine == Engine::Postgres { "PGPASSWORD" } else { "MYSQL_PWD" };
        environment.extend(self.password.as_ref().map(|text| (secret.to_string(), text.to_string())));
        let (mut args, mut user) = (Vec::new(), None);
        match self.engine {
            Engine::Postgres => {
                let name = self.user.as_deref().unwrap_or(POSTGRES);
                args.extend(["--no-password", "--format=plain"].map(str::to_string));
                args.push(format!("--username={name}"));
                args.extend(option("host", &self.host));
                args.extend(word.map(|word| format!("--restrict-key={word}")));
                args.extend(option("port", &self.port));
                args.push(format!("--dbname={}", self.name));
                // The server knows its own users by their socket.
                if at_socket && self.password.is_none() && host.is_privileged() && host.has_user(name) {
                    user = Some(name.to_string());
                }
            }
            _ => {
                let usual = [
                    "--single-transaction",
                    "--quick",
                    "--routines",
                    "--events",
                    "--triggers",
                    "--hex-blob",
                    "--order-by-primary",
                    "--no-tablespaces",
                    "--comments",
                    "--skip-dump-date",
                    // Only one of the two knows it: a position in the log, which moves with every other database.
                    "--loose-set-gtid-purged=OFF",
                ];
                args.extend(usual.map(str::to_string));
                args.extend(option(if at_socket { "socket" } else { "host" }, &self.host));
                args.extend(option("port", &self.port));
                args.extend(option("user", &self.user));
                args.push(self.name.to_string());
            }
        }
        let argv = std::iter::once(tool.path().as_os_str().to_owned()).chain(args.into_iter().map(OsString::from));
        Ok(Call { argv: argv.collect(), environment, user })
    }

    /// The call for a file of SQLite. As its owner: what else is written beside it stays theirs.
    pub fn call_sqlite(&self, host: &mut Host, file: &Path, owner: u32) -> Result<Call, Fault> {
        let tool = self.tool(host)?;
        let mut argv = vec![tool.path().as_os_str().to_owned()];
        argv.extend(
            ["-batch", "-init", "/dev/null", "-cmd", ".timeout 10000", "-cmd", "PRAGMA query_only=ON"]
                .map(OsString::from),
        );
        argv.extend([file.as_os_str().to_owned(), ".dump".into()]);
        let owner = owner.to_string();
        let user = (host.is_privileged() && owner != "0" && host.has_user(&owner)).then_some(owner);
        Ok(Call { argv, environment: vec![("LC_ALL".to_string(), "C".to_string())], user })
    }
}

impl Engine {
    /// Whether a dump with this end came to it. `sqlite3` succeeds also where it gave up half-way, and says so at the end.
    pub fn is_whole(self, tail: &[u8]) -> bool {
        let text = String::from_utf8_lossy(tail);
        match self {
            Engine::Sqlite => text.ends_with("\nCOMMIT;\n"),
            Engine::Postgres => text.contains("\n-- PostgreSQL database dump complete\n"),
            Engine::Mysql | Engine::Mariadb => text.contains("\n-- Dump completed"),
        }
    }

    /// Whether the words of a tool say that there is no such database.
    pub fn says_missing(self, said: &str) -> bool {
        match self {
            Engine::Sqlite => false,
            Engine::Postgres => said.contains("database \"") && said.contains("\" does not exist"),
            Engine::Mysql | Engine::Mariadb => said.contains("Unknown database"),
        }
    }

    /// Whether they say that the server is not there, or not yet.
    pub fn says_away(self, said: &str) -> bool {
        let words: &[&str] = match self {
            Engine::Sqlite => &[],
            // A server that refuses says FATAL; these are refusals that pass.
            Engine::Postgres if said.contains("FATAL:") => {
                &["is starting up", "is shutting down", "too many clients", "remaining connection slots"]
            }
            Engine::Postgres => {
                &["could not connect", "Connection refused", "No such file or directory", "could not translate"]
            }
            Engine::Mysql | Engine::Mariadb => &[
                "Can't connect",
                "Unknown MySQL server host",
                "Unknown server host",
                "Too many connections",
                "Lost connection",
            ],
        };
        words.iter().any(|word| said.contains(word))
    }
}

/// The word that `pg_dump` puts around a dump, from its beginning: nobody who wrote the content may know it before, and every new
/// one would make another file of the same content.
pub fn word_around(head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let word = text.lines().find_map(|line| line.strip_prefix("\\restrict "))?.trim();
    let fits = (1..=WORD_BYTES_MAX).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| word.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_dump_tells_whether_it_is_whole() {
        for (engine, tail, whole) in [
            (Engine::Sqlite, "INSERT;\nCOMMIT;\n", true),
            (Engine::Sqlite, "/**** ERROR: (26) file is not a database *****/\nROLLBACK; -- due to errors\n", false),
            (Engine::Sqlite, "INSERT;\nCOMMIT;", false),
            (Engine::Postgres, "\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict x\n\n", true),
            (Engine::Postgres, "COPY t", false),
            (Engine::Mariadb, "\n-- Dump completed\n", true),
            (Engine::Mysql, "INSERT", false),
        ] {
            assert_eq!(engine.is_whole(tail.as_bytes()), whole, "{tail}");
        }
    }

    #[test]
    fn the_word_of_the_dump_before_is_found_where_it_is_one() {
        assert_eq!(word_around(b"--\n-- dump\n--\n\n\\restrict aB3\n\n-- x"), Some("aB3".to_string()));
        for head in ["", "-- dump", "\\restrict ", "\\restrict a'b", "x \\restrict a"] {
            assert_eq!(word_around(head.as_bytes()), None, "{head}");
        }
    }

    #[test]
    fn a_server_that_is_away_is_told_from_one_that_refuses() {
        for (engine, said, away, missing) in [
            (Engine::Postgres, "connection to server on socket \"/x\" failed: No such file or directory", true, false),
            (Engine::Postgres, "failed: FATAL:  password authentication failed for user", false, false),
            (Engine::Postgres, "failed: FATAL:  the database system is starting up", true, false),
            (Engine::Postgres, "failed: FATAL:  database \"x\" does not exist", false, true),
            (Engine::Mysql, "Got error: 2002: \"Can't connect to local server through socket\"", true, false),
            (Engine::Mysql, "Got error: 1049: \"Unknown database 'x'\" when selecting", false, true),
            (Engine::Mysql, "Got error: 1045: \"Access denied for user\"", false, false),
        ] {
            assert_eq!((engine.says_away(said), engine.says_missing(said)), (away, missing), "{said}");
        }
    }
}
