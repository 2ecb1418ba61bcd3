//! Users, groups, and the keys that let somebody in.

use super::{STATE, TARGET};
use crate::policy::params::{Kind, Param, Rule, Type};
use crate::policy::shapes::Shape;

/// Largest number of a user or group; the one above means "none".
const ID_MAX: i64 = u32::MAX as i64 - 1;

const USERNAME: Param = Param::required("username", Kind::Shape(Shape::Login), "name of the user");

/// The types of this group.
pub const TYPES: &[Type] = &[
    Type {
        name: "authorized_key",
        meaning: "public keys may log in as a user, or may not",
        params: &[
            USERNAME,
            Param::required("key", Kind::Shapes(Shape::PublicKey), "a public key as in a .pub file, or a list of them"),
            Param::optional(
                "options",
                Kind::Shape(Shape::Line),
                "none",
                "what sshd allows these keys, such as from=\"10.0.0.*\"",
            ),
            Param::optional("exclusive", Kind::Bool, "false", "every other key of the file goes"),
            Param { required: false, default: ".ssh/authorized_keys of the user", ..TARGET },
            STATE,
        ],
        rules: &[],
        example: r#"- name: ada-laptop
  type: authorized_key
  username: ada
  key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ada@laptop
"#,
    },
    Type {
        name: "group",
        meaning: "a group exists with this number, or does not exist",
        params: &[
            Param::required("groupname", Kind::Shape(Shape::Login), "name of the group"),
            Param::optional("gid", Kind::Int(0, ID_MAX), "left alone, or the next free one", "its number"),
            Param::optional("system", Kind::Bool, "false", "a new one gets a number of the system's range"),
            STATE,
        ],
        rules: &[],
        example: r#"- name: deployers
  type: group
  groupname: deploy
  gid: 2000
"#,
    },
    Type {
        name: "user",
        meaning: "a user exists with these properties, or does not exist",
        params: &[
            USERNAME,
            Param::optional("uid", Kind::Int(0, ID_MAX), "left alone, or the next free one", "its number"),
            Param::optional(
                "group",
                Kind::Account,
                "left alone, or one of its own name",
                "primary group; `defaults` do not reach it",
            ),
            Param::optional("groups", Kind::Shapes(Shape::Login), "left alone", "other groups that it is in"),
            Param::optional("append", Kind::Bool, "true", "false: it is in no other groups than `groups`"),
            Param::optional("home", Kind::Path, "left alone, or /home/NAME", "home directory"),
            Param::optional("shell", Kind::Path, "left alone, or that of the system", "login shell"),
            Param::optional("comment", Kind::Shape(Shape::Line), "left alone", "full name and the like"),
            Param::optional(
                "password",
                Kind::Shape(Shape::PasswordHash),
                "left alone, or none",
                "hash of its password",
            ),
            Param::optional("locked", Kind::Bool, "left alone", "the password lets nobody in; keys still do"),
            Param::optional("system", Kind::Bool, "false", "a new one gets a number of the system's range"),
            Param::optional("create_home", Kind::Bool, "true unless system", "its home directory is made"),
            Param::optional("remove_home", Kind::Bool, "false", "with state absent: its home and mail go too"),
            STATE,
        ],
        rules: &[Rule::AtMostOne(&["create_home", "remove_home"])],
        example: r#"- name: ada
  type: user
  username: ada
  groups: [sudo]
  shell: /bin/bash
  password: "$6$salt$hash"
"#,
    },
];
