//! The system itself: kernel settings and modules, limits, names, time, timetables, file systems.

use super::{CONFIRM, CONFIRM_UNDO, STATE};
use crate::policy::params::{Kind, Param, Rule, Type};
use crate::policy::shapes::{CronField, Shape};

const COMMAND: Param = Param::optional("command", Kind::Shape(Shape::Line), "", "what runs: one line");

const fn when(name: &'static str, field: CronField, meaning: &'static str) -> Param {
    Param::optional(name, Kind::Shape(Shape::Cron(field)), "*", meaning)
}

/// The types of this group.
pub const TYPES: &[Type] = &[
    Type {
        name: "cron",
        meaning: "a command runs by a timetable of cron, or does not",
        params: &[
            Param::required("job", Kind::Shape(Shape::CronJob), "name of the job, and of its file in /etc/cron.d"),
            COMMAND,
            Param::optional("user", Kind::Shape(Shape::Login), "root", "whom it runs as"),
            when("minute", CronField::Minute, "minutes"),
            when("hour", CronField::Hour, "hours"),
            when("day", CronField::Day, "days of the month"),
            when("month", CronField::Month, "months"),
            when("weekday", CronField::Weekday, "days of the week"),
            Param::optional(
                "special",
                Kind::Word(&["reboot", "hourly", "daily", "weekly", "monthly", "yearly"]),
                "",
                "in place of the five fields",
            ),
            Param::optional("environment", Kind::Environment, "", "variables for the command; only in /etc/cron.d"),
            Param::optional(
                "location",
                Kind::Word(&["cron.d", "crontab"]),
                "cron.d where that directory exists",
                "a file of its own, or lines in the crontab of the user",
            ),
            STATE,
        ],
        rules: &[
            Rule::OneOfUnless(&["command"], "state", "absent"),
            Rule::AtMostOne(&["special", "minute"]),
            Rule::AtMostOne(&["special", "hour"]),
            Rule::AtMostOne(&["special", "day"]),
            Rule::AtMostOne(&["special", "month"]),
            Rule::AtMostOne(&["special", "weekday"]),
        ],
        example: r#"- name: report
  type: cron
  job: nightly-report
  minute: 15
  hour: 3
  user: app
  command: /usr/bin/report --quiet
"#,
    },
    Type {
        name: "firewall",
        meaning: "only what is named may come in, by nftables in a table of its own or by ufw; nothing else is touched",
        params: &[
            Param::optional(
                "rules",
                Kind::Shapes(Shape::FirewallRule),
                "none",
                "what comes in; the first that fits decides",
            ),
            Param::optional("policy", Kind::Word(&["drop", "accept"]), "drop", "what becomes of everything else"),
            Param::optional(
                "table",
                Kind::Shape(Shape::Repository),
                "vigo",
                "name of the table, or mark of the rules of ufw",
            ),
            Param::optional("chains", Kind::Text, "", "more chains for the table, as nftables reads them"),
            Param::optional("backend", Kind::Word(&["nftables", "ufw"]), "nftables where it is there", "what is told"),
            STATE,
            CONFIRM,
            CONFIRM_UNDO,
        ],
        rules: &[],
        example: r#"- name: incoming
  type: firewall
  rules:
    - allow icmp
    - allow 22/tcp from 10.0.0.0/8
    - allow 80,443/tcp
"#,
    },
    Type {
        name: "hostname",
        meaning: "the host has this name, now and after its next start",
        params: &[Param::required("hostname", Kind::Shape(Shape::HostName), "the name")],
        rules: &[],
        example: r#"- name: name
  type: hostname
  hostname: web-1
"#,
    },
    Type {
        name: "kernel_module",
        meaning: "a kernel module is loaded, now and at every start, or is not, or is never loaded by itself",
        params: &[
            Param::required("module", Kind::Shape(Shape::Module), "name of the module"),
            Param::optional("options", Kind::Shape(Shape::Line), "left alone", "its parameters, as in modprobe.d"),
            Param::optional(
                "state",
                Kind::Word(&["present", "absent", "blacklisted"]),
                "present",
                "absent: no longer loaded at start; blacklisted: also kept from loading",
            ),
        ],
        rules: &[],
        example: r#"- name: bridge-filter
  type: kernel_module
  module: br_netfilter
"#,
    },
    Type {
        name: "limits",
        meaning: "a user or group has this limit when it logs in, or has none from this file",
        params: &[
            Param::required("domain", Kind::Shape(Shape::Field), "user, @group, * or %group"),
            Param::optional("limit_type", Kind::Word(&["soft", "hard", "-"]), "-", "`-` is both"),
            Param::required(
                "item",
                Kind::Word(&[
                    "core",
                    "data",
                    "fsize",
                    "memlock",
                    "nofile",
                    "rss",
                    "stack",
                    "cpu",
                    "nproc",
                    "as",
                    "maxlogins",
                    "maxsyslogins",
                    "nonewprivs",
                    "priority",
                    "locks",
                    "sigpending",
                    "msgqueue",
                    "nice",
                    "rtprio",
                ]),
                "what is limited",
            ),
            Param::optional("value", Kind::Shape(Shape::Limit), "", "the limit"),
            Param::optional("target_path", Kind::Path, "/etc/security/limits.d/99-vigo.conf", "the file"),
            STATE,
        ],
        rules: &[Rule::OneOfUnless(&["value"], "state", "absent")],
        example: r#"- name: many-files
  type: limits
  domain: "@app"
  item: nofile
  value: 65536
"#,
    },
    Type {
        name: "mount",
        meaning: "a file system is in /etc/fstab and mounted, or only in there, or is neither",
        params: &[
            Param::required("target_path", Kind::Path, "the directory that it is mounted on"),
            Param::optional("source", Kind::Shape(Shape::Line), "", "device, UUID=.., LABEL=.., HOST:/path"),
            Param::optional("fstype", Kind::Shape(Shape::Field), "", "type of the file system"),
            Param::optional("options", Kind::Shape(Shape::Field), "defaults", "options, joined by commas"),
            Param::optional("dump", Kind::Int(0, 9), "0", "fifth field of fstab"),
            Param::optional("pass", Kind::Int(0, 9), "0", "order of checks at start; 0 is none"),
            Param::optional(
                "state",
                Kind::Word(&["mounted", "present", "absent"]),
                "mounted",
                "present: in /etc/fstab, mounted or not",
            ),
        ],
        rules: &[Rule::OneOfUnless(&["source"], "state", "absent"), Rule::OneOfUnless(&["fstype"], "state", "absent")],
        example: r#"- name: scratch
  type: mount
  target_path: /scratch
  source: tmpfs
  fstype: tmpfs
  options: size=1g,nosuid
"#,
    },
    Type {
        name: "sysctl",
        meaning: "a setting of the kernel has this value, now and after its next start, or is not set by this file",
        params: &[
            Param::required("key", Kind::Shape(Shape::Sysctl), "its name, with dots or slashes"),
            Param::optional("value", Kind::Shape(Shape::Line), "", "its value"),
            Param::optional("target_path", Kind::Path, "/etc/sysctl.d/99-vigo.conf", "the file that keeps it"),
            STATE,
            CONFIRM,
            CONFIRM_UNDO,
        ],
        rules: &[Rule::OneOfUnless(&["value"], "state", "absent")],
        example: r#"- name: forward
  type: sysctl
  key: net.ipv4.ip_forward
  value: 1
"#,
    },
    Type {
        name: "systemd_timer",
        meaning: "a command runs by a timer of systemd, or does not",
        params: &[
            Param::required("unit", Kind::Name, "name of both units, without .timer"),
            COMMAND,
            Param::optional("on_calendar", Kind::Shape(Shape::Line), "", "when, as in systemd.time(7): *-*-* 03:15"),
            Param::optional("on_boot", Kind::Duration, "", "this long after the start of the host"),
            Param::optional("every", Kind::Duration, "", "this long after it was started last"),
            Param::optional("persistent", Kind::Bool, "false", "catches up after the host was off"),
            Param::optional("random_delay", Kind::Duration, "0s", "spread over this much time"),
            Param::optional("user", Kind::Shape(Shape::Login), "root", "whom it runs as"),
            Param::optional("description", Kind::Shape(Shape::Line), "the name", "for people"),
            STATE,
        ],
        rules: &[
            Rule::OneOfUnless(&["command"], "state", "absent"),
            Rule::OneOfUnless(&["on_calendar", "on_boot", "every"], "state", "absent"),
        ],
        example: r#"- name: cleanup
  type: systemd_timer
  unit: app-cleanup
  command: /usr/bin/app cleanup
  on_calendar: "*-*-* 04:00"
  persistent: true
"#,
    },
    Type {
        name: "timezone",
        meaning: "the host is in this time zone",
        params: &[Param::required("zone", Kind::Shape(Shape::Zone), "name of the zone")],
        rules: &[],
        example: r#"- name: zone
  type: timezone
  zone: Europe/Berlin
"#,
    },
];
