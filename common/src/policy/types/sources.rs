//! What is fetched from repositories of code.

use super::{STATE, TARGET};
use crate::policy::params::{Kind, Param, Rule, Type};
use crate::policy::shapes::Shape;

/// The types of this group.
pub const TYPES: &[Type] = &[Type {
    name: "git",
    meaning: "a directory is a working copy of a repository of git, at a revision",
    params: &[
        TARGET,
        Param::optional("repository", Kind::Shape(Shape::GitUrl), "", "what it is a copy of"),
        Param::optional(
            "revision",
            Kind::Shape(Shape::GitRevision),
            "HEAD",
            "what is checked out; HEAD is the default branch",
        ),
        Param::optional(
            "update",
            Kind::Bool,
            "true",
            "whether it follows its branch or tag; false: what was cloned stays, unless `revision` is a commit",
        ),
        Param::optional(
            "force",
            Kind::Bool,
            "false",
            "undoes changes by hand of files that the repository has; with state absent, they go too",
        ),
        Param::optional("submodules", Kind::Bool, "false", "what it contains of other repositories is there too"),
        Param::optional("depth", Kind::Int(1, 1_000_000), "all of it", "commits of history that are fetched"),
        Param::optional("user", Kind::Account, "that of the agent", "user that git runs as, and that owns the copy"),
        Param::optional("ssh_key", Kind::Path, "that of the user", "private key for repositories by ssh"),
        STATE,
    ],
    rules: &[Rule::OneOfUnless(&["repository"], "state", "absent")],
    example: r#"- name: site
  type: git
  target_path: /srv/site
  repository: https://git.example.com/site.git
  revision: v1.4
  user: www-data
"#,
}];
