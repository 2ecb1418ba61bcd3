//! Packages.

use super::STATE;
use crate::policy::params::{Kind, Param, Rule, Type};
use crate::policy::shapes::Shape;

/// Names of package managers, and nothing for the one that the host has.
const MANAGERS: Kind = Kind::Word(&["apt", "dnf", "yum", "zypper", "apk", "pacman", "opkg"]);

const SOURCE: Param = Param::optional("source", Kind::Source, "", "file of the policy");
const URL: Param = Param::optional("url", Kind::Url, "", "where it is fetched from, by curl or wget");
const SHA256: Param = Param::optional("sha256", Kind::Digest, "", "SHA-256 of what `url` gives; needed with it");

/// The types of this group.
pub const TYPES: &[Type] = &[
    Type {
        name: "nonrepo_package",
        meaning: "a package of a file is installed with what it depends on, or is not",
        params: &[
            Param::required("package", Kind::Shape(Shape::Package), "its name, as the manager knows it"),
            Param::optional("version", Kind::Shape(Shape::Version), "any", "the version that the file has"),
            SOURCE,
            URL,
            SHA256,
            Param::optional("manager", MANAGERS, "the one that the host has", "the package manager"),
            STATE,
        ],
        rules: &[
            Rule::AtMostOne(&["source", "url"]),
            Rule::OneOfUnless(&["source", "url"], "state", "absent"),
            Rule::Needs("url", "sha256"),
        ],
        example: r#"- name: tool
  type: nonrepo_package
  package: tool
  version: "1.4"
  url: https://example.com/tool_1.4_amd64.deb
  sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"#,
    },
    Type {
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
    },
    Type {
        name: "repository",
        meaning: "packages come from a repository too, with the key that signs it, or do not",
        params: &[
            Param::required("repository", Kind::Shape(Shape::Repository), "its name on the host"),
            Param::optional("url", Kind::Url, "", "where it is"),
            Param::optional(
                "suites",
                Kind::Shapes(Shape::Field),
                "the codename of the host",
                "apt: suites; a directory ends with /",
            ),
            Param::optional("components", Kind::Shapes(Shape::Field), "main", "apt: components"),
            Param::optional("architectures", Kind::Shapes(Shape::Field), "all of the host", "apt: architectures"),
            Param::optional("format", Kind::Word(&["deb822", "list"]), "deb822", "apt: how the file is written"),
            Param::optional("key", Kind::Text, "", "the public key in text form (armored)"),
            Param::optional("source", Kind::Source, "", "file of the policy that has the key"),
            Param::optional("verify", Kind::Bool, "true", "signatures are checked"),
            Param::optional("enabled", Kind::Bool, "true", "it is used"),
            Param::optional("manager", MANAGERS, "the one that the host has", "the package manager"),
            STATE,
        ],
        rules: &[Rule::AtMostOne(&["key", "source"]), Rule::OneOfUnless(&["url"], "state", "absent")],
        example: r#"- name: nginx-packages
  type: repository
  repository: nginx
  url: https://nginx.org/packages/debian
  suites: bookworm
  components: nginx
  source: files/keys/nginx.asc
"#,
    },
    Type {
        name: "source_package",
        meaning: "what an archive builds is there; nothing is fetched or run while it is",
        params: &[
            SOURCE,
            URL,
            SHA256,
            Param::required(
                "build",
                Kind::Texts,
                "lines of shell that build and install it, run in the archive's directory",
            ),
            Param::required(
                "creates",
                Kind::Path,
                "path that the build creates, by which it is known; name the version in it",
            ),
            Param::optional("environment", Kind::Environment, "", "variables for the build"),
        ],
        rules: &[Rule::AtMostOne(&["source", "url"])],
        example: r#"- name: tool
  type: source_package
  url: https://example.com/tool-1.4.tar.gz
  sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  build: ["./configure --prefix=/opt/tool-1.4", make, make install]
  creates: /opt/tool-1.4/bin/tool
"#,
    },
];
