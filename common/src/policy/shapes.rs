//! Shapes of text that the parameters of particular types must have: an address, a key, the field of a timetable. Each is a
//! word for the tables, a test and a sentence for people. They say how a value looks, not whether it exists on a host.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::glob::Glob;
use crate::policy::firewall::Rule;
use crate::policy::params::is_absolute;
use crate::units::size_bytes;

/// How a text must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// IPv4 or IPv6 address.
    Address,
    /// One field of a timetable of cron.
    Cron(CronField),
    /// Name of a file in `/etc/cron.d`: cron ignores names with a dot.
    CronJob,
    /// Name of a database, or the path of one that is a file; no address with a password in it.
    Database,
    /// Where a database server is: a host, an address, or the path of a socket.
    DatabaseHost,
    /// Text without blanks: a field of a table.
    Field,
    /// Branch, tag or commit of git.
    GitRevision,
    /// Where a repository of git is; without a password.
    GitUrl,
    /// Rule of a firewall.
    FirewallRule,
    /// Name of a host: labels of letters, digits, dashes and underscores, joined by dots.
    HostName,
    /// Image of a container, with its registry and tag.
    Image,
    /// Key of an ini file.
    IniKey,
    /// Section of an ini file.
    IniSection,
    /// A host as in `known_hosts`: a name, an address, `[name]:port`.
    KnownHost,
    /// A limit of a process: a number, or none.
    Limit,
    /// One line, which may be empty.
    Line,
    /// Name of a user or group.
    Login,
    /// The line around a block, with `{mark}` in it.
    Marker,
    /// Name of a kernel module.
    Module,
    /// Name of a package, without patterns: never taken for an option, an expression or a request to remove.
    Package,
    /// Field of `/etc/shadow`.
    PasswordHash,
    /// JSON pointer (RFC 6901), not the whole document.
    Pointer,
    /// Patterns of paths, with commas between them.
    Patterns,
    /// Public key of OpenSSH: its type, its base64, perhaps a comment.
    PublicKey,
    /// Name of a repository of packages.
    Repository,
    /// Length in bytes, with a unit.
    Size,
    /// Name of a kernel setting.
    Sysctl,
    /// Version of a package, or the start of one and `*`.
    Version,
    /// Name of a time zone.
    Zone,
}

/// A field of a timetable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CronField {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// Of the month: 1 to 31.
    Day,
    /// 1 to 12, or names.
    Month,
    /// 0 to 7 (both are Sunday), or names.
    Weekday,
}

/// Longest name of a user or group that all tools take.
const LOGIN_BYTES_MAX: usize = 32;
/// Longest name of a host (RFC 1035).
const HOST_NAME_BYTES_MAX: usize = 253;
/// Longest label of it.
const LABEL_BYTES_MAX: usize = 63;
/// Longest line; what reads such files seldom takes more.
const LINE_BYTES_MAX: usize = 16 << 10;

impl Shape {
    /// Whether the text has it.
    pub fn fits(self, text: &str) -> bool {
        let one_line = text.len() <= LINE_BYTES_MAX && !text.contains(['\n', '\r', '\0']);
        let trimmed = !text.is_empty() && text.trim() == text;
        one_line
            && match self {
                Shape::Address => text.parse::<IpAddr>().is_ok(),
                Shape::Cron(field) => text.split(',').all(|item| field.takes(item)),
                Shape::CronJob => is_made_of(text, b"_-") && !text.starts_with('-'),
                Shape::Database => is_absolute(text) || is_made_of(text, b"_-$.") && !text.starts_with(['-', '.']),
                Shape::DatabaseHost => is_absolute(text) || is_host_name(text) || text.parse::<IpAddr>().is_ok(),
                Shape::Field => trimmed && !text.contains(char::is_whitespace) && !text.starts_with('#'),
                Shape::FirewallRule => Rule::parse(text).is_some(),
                Shape::HostName => is_host_name(text),
                Shape::IniKey => trimmed && !text.contains('=') && !text.starts_with(['[', '#', ';']),
                Shape::IniSection => trimmed && !text.contains([']', '[']),
                Shape::KnownHost => {
                    trimmed && text.is_ascii() && !text.contains([' ', '\t', ',', '|', '#', '@']) && !text.contains('!')
                }
                Shape::Limit => {
                    matches!(text, "unlimited" | "infinity" | "-1") || text.parse::<u64>().is_ok() || is_nice(text)
                }
                Shape::GitRevision => is_revision(text),
                Shape::GitUrl => is_repository(text),
                Shape::Image => is_made_of(text, b"/:@._-") && text.as_bytes()[0].is_ascii_alphanumeric(),
                Shape::Line => true,
                Shape::Login => is_login(text),
                Shape::Marker => trimmed && text.contains("{mark}"),
                Shape::Module => is_made_of(text, b"_-") && !text.starts_with('-'),
                Shape::Package => {
                    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
                    first && is_made_of(text, b"_.+:-") && !text.ends_with('-')
                }
                Shape::PasswordHash => {
                    !text.contains([':', ' ', '\t']) && text.is_ascii() && text.starts_with(['$', '!', '*', '_'])
                }
                Shape::Pointer => pointer(text).is_some(),
                Shape::Patterns => text.split(',').all(|one| Glob::try_new_exact(one.trim()).is_ok()),
                Shape::PublicKey => PublicKey::parse(text).is_some(),
                Shape::Repository => {
                    is_made_of(text, b"_-") && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
                }
                Shape::Size => size_bytes(text).is_ok(),
                Shape::Sysctl => sysctl_path(text).is_some(),
                Shape::Version => {
                    let start = text.strip_suffix('*').unwrap_or(text);
                    is_made_of(start, b"_.+:~^-") && !start.starts_with('-')
                }
                Shape::Zone => {
                    let part = |part: &str| is_made_of(part, b"_-+") && !part.starts_with('-');
                    text.split('/').all(part)
                }
            }
    }

    /// What to write, for people.
    pub fn expected(self) -> &'static str {
        match self {
            Shape::Address => "an IPv4 or IPv6 address",
            Shape::Cron(CronField::Minute) => "minutes as cron takes them: `*`, `*/5`, `0-30`, `5,35`",
            Shape::Cron(CronField::Hour) => "hours as cron takes them: `*`, `*/2`, `8-18`, `3,15`",
            Shape::Cron(CronField::Day) => "days of the month as cron takes them: `*`, `1`, `1-7`, `1,15`",
            Shape::Cron(CronField::Month) => "months as cron takes them: `*`, `1-6`, `jan,jul`",
            Shape::Cron(CronField::Weekday) => "days of the week as cron takes them: `*`, `1-5`, `sun`",
            Shape::CronJob => "a name of letters, digits, dashes and underscores",
            Shape::Database => "the name of a database, or the path of a file of SQLite",
            Shape::DatabaseHost => "the name or the address of a host, or the path of a socket",
            Shape::Field => "text without blanks",
            Shape::FirewallRule => {
                "a rule such as `allow 22/tcp`, `allow 80,443/tcp from 10.0.0.0/8 on eth0`, `deny any from ::1`, `allow icmp`"
            }
            Shape::HostName => {
                "the name of a host: letters, digits, dashes and underscores, with dots between the parts"
            }
            Shape::GitRevision => "a branch, a tag or a commit of git",
            Shape::GitUrl => {
                "where a repository is: https, ssh, http, git or file:// and so on, or USER@HOST:PATH, without a password"
            }
            Shape::Image => "the name of an image, such as docker.io/library/nginx:1.27",
            Shape::IniKey => "a key: one line without `=` that does not start with `[`, `#` or `;`",
            Shape::IniSection => "the name of a section, without its brackets",
            Shape::KnownHost => "a name or an address of a host, or `[HOST]:PORT`",
            Shape::Limit => "a number, or `unlimited`",
            Shape::Line => "one line of text",
            Shape::Login => {
                "a name of at most 32 letters, digits, dots, dashes and underscores that starts with a letter"
            }
            Shape::Marker => "one line of text with `{mark}` in it, which becomes BEGIN and END",
            Shape::Module => "the name of a kernel module: letters, digits, dashes and underscores",
            Shape::Package => {
                "the name of a package: letters, digits and _.+:-, the first a letter or digit, the last no dash"
            }
            Shape::PasswordHash => {
                "a hash as crypt(3) makes it (starting with `$`), `!` or `*`; never the password itself"
            }
            Shape::Pointer => "a JSON pointer, such as /log/level (`~1` is a slash in a key, `~0` a tilde)",
            Shape::Patterns => "patterns such as `*.tmp`, with commas between them",
            Shape::PublicKey => "a public key of OpenSSH on one line, such as `ssh-ed25519 AAAA.. comment`",
            Shape::Repository => "a name of letters, digits, dashes and underscores",
            Shape::Size => "a size, such as 512M or 10G",
            Shape::Sysctl => "the name of a kernel setting, such as net.ipv4.ip_forward",
            Shape::Version => "a version, or its first part and `*`",
            Shape::Zone => "the name of a time zone, such as Europe/Berlin or Etc/UTC",
        }
    }
}

impl CronField {
    fn takes(self, item: &str) -> bool {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        // A step counts through a range: after a single number it means nothing to some crons.
        let is_range = match range.split_once('-') {
            Some((first, last)) => match (self.number(first), self.number(last)) {
                (Some(first), Some(last)) => first <= last,
                _ => return false,
            },
            None => range == "*",
        };
        let stepped = step.is_none_or(|step| is_range && step.parse::<u8>().is_ok_and(|step| step > 0));
        stepped && (is_range || self.number(range).is_some())
    }

    fn number(self, text: &str) -> Option<usize> {
        const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let (least, most, names) = match self {
            CronField::Minute => (0, 59, &[][..]),
            CronField::Hour => (0, 23, &[][..]),
            CronField::Day => (1, 31, &[][..]),
            CronField::Month => (1, 12, &MONTHS[..]),
            CronField::Weekday => (0, 7, &DAYS[..]),
        };
        if let Some(at) = names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
            return Some(at + least);
        }
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| plain && (least..=most).contains(number))
    }
}

/// A public key of OpenSSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey<'t> {
    /// `ssh-ed25519`.
    pub kind: &'t str,
    /// Base64.
    pub blob: &'t str,
    /// The rest of the line; may be empty.
    pub comment: &'t str,
}

impl<'t> PublicKey<'t> {
    /// From its line without options. The type inside of the base64 must be the one in front of it (RFC 4253, 6.6).
    pub fn parse(line: &'t str) -> Option<PublicKey<'t>> {
        let line = line.trim();
        let (kind, rest) = line.split_once([' ', '\t'])?;
        let rest = rest.trim_start();
        let (blob, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        let bytes = crate::base64::decode(blob)?;
        let (length, inside) = bytes.split_first_chunk::<4>()?;
        let named = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let same = inside.get(..named) == Some(kind.as_bytes()) && inside.len() > named;
        same.then_some(PublicKey { kind, blob, comment: comment.trim_start() })
    }
}

/// The keys of a JSON pointer, from the root; `None` for a text that is none, or that is the whole document.
pub fn pointer(text: &str) -> Option<Vec<Cow<'_, str>>> {
    let unescape = |token: &str| -> Option<String> {
        let mut rest = token.split('~');
        let mut out = rest.next()?.to_string();
        for part in rest {
            match part.as_bytes().first()? {
                b'0' => out.push('~'),
                b'1' => out.push('/'),
                _ => return None,
            }
            out.push_str(&part[1..]);
        }
        Some(out)
    };
    let tokens = text.strip_prefix('/')?.split('/');
    tokens.map(|token| if token.contains('~') { unescape(token).map(Cow::Owned) } else { Some(token.into()) }).collect()
}

/// Path of a kernel setting below `/proc/sys`. As in sysctl(8), the first separator of the two decides: `a.b/c.d` is
/// `a/b.c/d`.
pub fn sysctl_path(name: &str) -> Option<String> {
    let dots = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let turn = |c: char| match c {
        '.' if dots => '/',
        '/' if dots => '.',
        c => c,
    };
    let path: String = name.chars().map(turn).collect();
    let part = |part: &str| is_made_of(part, b"._-@:+") && !matches!(part, "." | "..");
    (path.contains('/') && path.split('/').all(part)).then_some(path)
}

fn is_made_of(text: &str, others: &[u8]) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

/// As `git check-ref-format` has it, of plain letters only.
fn is_revision(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    is_made_of(text, b"/._@+#-") && !text.starts_with('-') && !text.contains("..") && text.split('/').all(part)
}

fn is_repository(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['\'', '"', '\\', '`']);
    // `user:password@host`: a password in there would be seen by every user of the host.
    let open = |rest: &str| {
        let host = rest.split('/').next().unwrap_or_default();
        let user = host.rsplit_once('@').map_or("", |(user, _)| user);
        !user.contains(':') && !host.starts_with('-') && !host.is_empty()
    };
    plain
        && match text.split_once("://") {
            Some(("https" | "http" | "ssh" | "git", rest)) => open(rest),
            Some(("file", rest)) => rest.starts_with('/'),
            Some(_) => false,
            None => text.split_once(':').is_some_and(|(host, path)| {
                let (user, host) = host.split_once('@').unwrap_or_default();
                is_login(user) && is_host_name(host) && !path.is_empty() && !path.starts_with(['-', ':'])
            }),
        }
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        label.len() <= LABEL_BYTES_MAX && is_made_of(label, b"_-") && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= HOST_NAME_BYTES_MAX && text.split('.').all(label) && text.parse::<IpAddr>().is_err()
}

fn is_login(text: &str) -> bool {
    let base = text.strip_suffix('$').unwrap_or(text);
    let first = base.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && text.len() <= LOGIN_BYTES_MAX && is_made_of(base, b"_.-")
}

/// Niceness and priorities may be negative.
fn is_nice(text: &str) -> bool {
    text.parse::<i8>().is_ok_and(|number| (-20..=20).contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ada@example";

    #[test]
    fn shapes_take_what_they_say_and_nothing_else() {
        for (shape, good, bad) in [
            (Shape::Address, &["10.0.0.1", "::1", "fe80::1"][..], &["10.0.0", "host", "", "10.0.0.1/8"][..]),
            (
                Shape::Cron(CronField::Minute),
                &["*", "*/5", "0-30/2", "5,35", "59"],
                &["60", "5/2", "", "a", "1,,2", "+5"],
            ),
            (Shape::Cron(CronField::Weekday), &["sun", "1-5", "7", "Mon,Fri"], &["8", "monday", "5-1"]),
            (Shape::Cron(CronField::Month), &["1-12", "jan"], &["0", "13"]),
            (Shape::CronJob, &["a-b_1"], &["a.b", "", "-a", "a/b"]),
            (
                Shape::Database,
                &["shop", "/srv/a b.db", "a-b_1"],
                &["", "-x", "a=b", "postgres://u:p@h/d", "a b", "../x"],
            ),
            (Shape::DatabaseHost, &["db-1.example.com", "::1", "/run/postgresql"], &["", "-h", "a b", "run/x"]),
            (Shape::Field, &["noatime,ro"], &["a b", "", "#a", "a\nb"]),
            (
                Shape::GitRevision,
                &["main", "v1.0", "feature/x", "refs/tags/v1", "0123abc"],
                &["", "-x", "a..b", "a b", "a//b", "/a", "x.lock", "a^", "a:b", "@{u}"],
            ),
            (
                Shape::GitUrl,
                &["https://example.com/a.git", "ssh://git@h:22/a", "git@example.com:a/b.git", "file:///srv/a"],
                &[
                    "",
                    "-x",
                    "ext::sh -c x",
                    "https://a:b@h/c",
                    "https://",
                    "/srv/a",
                    "h:a",
                    "ftp://h/a",
                    "git@h:-x",
                    "https://h/a b",
                ],
            ),
            (Shape::Image, &["nginx", "docker.io/library/nginx:1.27", "a@sha256:00"], &["", "-x", "a b", "a;b", "/a"]),
            (Shape::HostName, &["a", "a-b.example.com", "x_1"], &["", "a..b", "-a", "a.", "a b", "1.2.3.4"]),
            (Shape::IniKey, &["a b", "net.x"], &["", "[a", "a=b", "#a", ";a", " a", "a\nb"]),
            (Shape::IniSection, &["Unit", "remote \"origin\""], &["", "a]", "a\n"]),
            (Shape::KnownHost, &["h", "[h]:22", "::1"], &["a,b", "", "a b", "|1|x", "!a"]),
            (Shape::Limit, &["1024", "unlimited", "-20"], &["", "many", "-21", "1k"]),
            (Shape::Line, &["", "a b"], &["a\nb", "a\0"]),
            (
                Shape::Login,
                &["ada", "_apt", "web-1.x", "host$"],
                &["", "1a", "-a", "a:b", "a b", "a\n", "root\u{e9}", "$"],
            ),
            (Shape::Marker, &["# {mark} x"], &["# x", "{mark}\n", ""]),
            (Shape::Module, &["br_netfilter", "snd-hda"], &["", "a b", "a/b", "-r", "../x"]),
            (
                Shape::Package,
                &["nginx", "g++", "libc6:i386", "python3.11", "7zip"],
                &["", "-y", "foo-", "~ninit", "?x", "a b", "a=1", "a*", "a/b", "./a.deb", "@core", "a;b", "ä"],
            ),
            (Shape::PasswordHash, &["$6$a$b", "!", "*", "!$6$a$b"], &["", "secret", "$6$a:b", "$6$a\n"]),
            (Shape::Pointer, &["/a", "/a/~1b", "/"], &["", "a", "/~2", "/a~"]),
            (
                Shape::PublicKey,
                &[KEY],
                &["", "ssh-ed25519", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==", "ssh-ed25519 !!!!"],
            ),
            (Shape::Patterns, &["*.tmp", "a/b, /run/", "[a-z]*"], &["", "a,,b", "[a", "a,"]),
            (Shape::Size, &["0", "512M", "1G", "10GB"], &["", "G", "1.5G", "-1"]),
            (Shape::Repository, &["nginx", "local-1"], &["", "-a", "a.b", "a/b", "a b", "a]"]),
            (
                Shape::Sysctl,
                &["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/x"],
                &["", "a", "a..b", "a.//", "a/../b", "/a/b"],
            ),
            (Shape::Version, &["1.2-3", "2:1.0~rc1+b1", "1.*"], &["", "*", "-1", "1 2", "1.*.2", "1;2"]),
            (Shape::Zone, &["UTC", "Etc/GMT+1", "America/Port-au-Prince"], &["", "/UTC", "../x", "a//b", "a b", "a."]),
        ] {
            good.iter().for_each(|text| assert!(shape.fits(text), "{shape:?} {text:?}"));
            bad.iter().for_each(|text| assert!(!shape.fits(text), "{shape:?} {text:?}"));
        }
    }

    #[test]
    fn names_of_settings_become_paths() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(sysctl_path(name).as_deref(), Some(path));
        }
    }

    #[test]
    fn pointers_and_keys_are_taken_apart() {
        assert_eq!(pointer("/a~1b/~0/").unwrap(), ["a/b", "~", ""]);
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!((key.kind, key.comment), ("ssh-ed25519", "ada@example"));
    }
}
