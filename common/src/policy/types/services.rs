//! Services of the host.

use super::{CONFIRM, CONFIRM_UNDO};
use crate::policy::params::{Kind, Param, Type};

/// The types of this group.
pub const TYPES: &[Type] = &[Type {
    name: "service",
    meaning: "a service runs or does not, and is started with the host or is not (systemd, OpenRC, SysV, OpenWrt, BusyBox)",
    params: &[
        Param::required("service", Kind::Name, "its name; for systemd any unit, `.service` where it has no suffix"),
        Param::optional(
            "state",
            Kind::Word(&["running", "stopped", "started", "restarted", "reloaded"]),
            "left alone",
            "started and restarted are the same as running: a notification restarts it; reloaded: running, a notification \
             reloads it, or restarts it where it cannot; a run that changes nothing restarts nothing",
        ),
        Param::optional("enabled", Kind::Bool, "left alone", "whether it is started with the host"),
        Param::optional("runlevel", Kind::Name, "default", "where it is enabled; OpenRC only"),
        CONFIRM,
        CONFIRM_UNDO,
    ],
    rules: &[],
    example: r#"- name: web
  type: service
  service: nginx
  state: reloaded
  enabled: true
"#,
}];
