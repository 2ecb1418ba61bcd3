//! Containers of podman and docker.

use crate::policy::params::{Kind, Param, Rule, Type};
use crate::policy::shapes::Shape;

/// The types of this group.
pub const TYPES: &[Type] = &[Type {
    name: "container",
    meaning: "a container of podman or docker exists as described and runs or does not, or does not exist",
    params: &[
        Param::required("container", Kind::Name, "its name"),
        Param::optional("image", Kind::Shape(Shape::Image), "", "what it is made from"),
        Param::optional(
            "state",
            Kind::Word(&["running", "stopped", "absent"]),
            "running",
            "a notification restarts one that runs",
        ),
        Param::optional("command", Kind::Texts, "that of the image", "what runs in it: a program and its arguments"),
        Param::optional("ports", Kind::Texts, "", "what is published, as `[ADDRESS:]PORT:PORT_INSIDE`"),
        Param::optional("volumes", Kind::Texts, "", "what is mounted, as `SOURCE:PATH[:ro]`"),
        Param::optional("environment", Kind::Environment, "", "variables; their values are no arguments of the engine"),
        Param::optional("labels", Kind::Environment, "", "labels on top of the one that the agent sets"),
        Param::optional("network", Kind::Shape(Shape::Field), "that of the engine", "network that it is in"),
        Param::optional("hostname", Kind::Shape(Shape::HostName), "that of the engine", "name of the host inside"),
        Param::optional("user", Kind::Shape(Shape::Field), "that of the image", "user inside, as `USER[:GROUP]`"),
        Param::optional(
            "restart",
            Kind::Word(&["no", "always", "unless-stopped", "on-failure"]),
            "that of the engine",
            "what the engine does when it ends",
        ),
        Param::optional("options", Kind::Texts, "", "further options of `create`, for what has no parameter here"),
        Param::optional(
            "pull",
            Kind::Word(&["missing", "always", "never"]),
            "missing",
            "when the image is pulled; always: whenever the container is made, and a notification makes it anew",
        ),
        Param::optional(
            "engine",
            Kind::Word(&["podman", "docker"]),
            "podman if it is there, else docker",
            "which engine",
        ),
    ],
    rules: &[Rule::OneOfUnless(&["image"], "state", "absent")],
    example: r#"- name: cache
  type: container
  container: cache
  image: docker.io/library/redis:7
  ports: ["127.0.0.1:6379:6379"]
  restart: unless-stopped
"#,
}];
