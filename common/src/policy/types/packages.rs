//! Packages.

use crate::policy::params::{Kind, Param, Type};
use crate::policy::shapes::Shape;

/// Names of package managers, and nothing for the one that the host has.
const MANAGERS: Kind = Kind::Word(&["apt", "dnf", "yum", "zypper", "apk", "pacman", "opkg"]);

/// The types of this group.
pub const TYPES: &[Type] = &[Type {
    name: "package",
    meaning: "packages are installed, in any version, a certain one or the newest, or are not",
    params: &[
        Param::required("package", Kind::Shapes(Shape::Package), "one name, or several that are installed at once"),
        Param::optional(
            "state",
            Kind::Word(&["present", "absent", "latest"]),
            "present",
            "latest follows the repositories; what is held by the manager stays as it is",
        ),
        Param::optional(
            "version",
            Kind::Shape(Shape::Version),
            "any",
            "the version, also an older one; `1.2*` is any that starts so",
        ),
        Param::optional("manager", MANAGERS, "the one that the host has", "the package manager"),
        Param::optional("purge", Kind::Bool, "false", "absent removes configuration too (apt, apk, pacman)"),
        Param::optional(
            "recommends",
            Kind::Bool,
            "as the manager is configured",
            "packages that are only recommended come too (apt, dnf, zypper)",
        ),
        Param::optional(
            "replace",
            Kind::Bool,
            "false",
            "packages in conflict with it are removed (apt, dnf, zypper, pacman)",
        ),
        Param::optional(
            "refresh_after",
            Kind::Duration,
            "24h",
            "lists of repositories older than this are fetched before an installation, and for latest",
        ),
    ],
    rules: &[],
    example: r#"- name: web-server
  type: package
  package: [nginx, curl]
"#,
}];
