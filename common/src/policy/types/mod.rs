//! The parameter tables: one entry for each resource type, one file for each group. The server validates by them, the agent
//! reads by them, and the reference for people is made of them. Plain data: what a type does is an executor of the agent.

mod accounts;
mod backups;
mod commands;
mod containers;
mod files;
mod packages;
pub mod reference;
mod services;
mod sources;
mod system;

use super::params::{Kind, Param, Type};
use crate::units::nearest;

/// A group of types, for the reference.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Title.
    pub title: &'static str,
    /// In order of name.
    pub types: &'static [Type],
}

/// Every type that this version knows, by group.
pub const GROUPS: &[Group] = &[
    Group { title: "Files", types: files::TYPES },
    Group { title: "Commands", types: commands::TYPES },
    Group { title: "Services", types: services::TYPES },
    Group { title: "Accounts", types: accounts::TYPES },
    Group { title: "System", types: system::TYPES },
    Group { title: "Packages", types: packages::TYPES },
    Group { title: "Sources", types: sources::TYPES },
    Group { title: "Containers", types: containers::TYPES },
    Group { title: "Backups", types: backups::TYPES },
];

/// Every type.
pub fn all() -> impl Iterator<Item = &'static Type> + Clone {
    GROUPS.iter().flat_map(|group| group.types)
}

/// The type of that name.
pub fn find(name: &str) -> Option<&'static Type> {
    all().find(|known| known.name == name)
}

/// What to say of a type that does not exist.
pub fn unknown_type(name: &str) -> String {
    let names = all().map(|known| known.name);
    match nearest(name, names.clone()) {
        Some(near) => format!("no resource type `{name}`; did you mean `{near}`?"),
        None => format!("no resource type `{name}`; `vigo-envoy doc` lists the {} that there are", names.count()),
    }
}

const TARGET: Param = Param::required("target_path", Kind::Path, "where it is on the host");
const STATE: Param =
    Param::optional("state", Kind::Word(&["present", "absent"]), "present", "whether it should be there");
const OWNER: Param = Param::optional("owner", Kind::Account, "left alone", "user that owns it");
const GROUP: Param = Param::optional("group", Kind::Account, "left alone", "group that owns it");
const MODE: Param = Param::optional("mode", Kind::Mode, "left alone", "permission bits, as \"0644\"");

const CONFIRM: Param = Param::optional(
    "confirm",
    Kind::Duration,
    "kept whatever follows",
    "a change is put back unless a check-in is answered on a new connection within this time after the run",
);
const CONFIRM_UNDO: Param = Param::optional(
    "confirm_undo",
    Kind::Text,
    "",
    "a line of shell that makes the old state take effect after it was put back",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_described_once_and_its_example_is_valid() {
        for group in GROUPS {
            let names: Vec<&str> = group.types.iter().map(|kind| kind.name).collect();
            assert!(names.is_sorted(), "{}: in order of name: {names:?}", group.title);
        }
        for kind in all() {
            assert_eq!(all().filter(|other| other.name == kind.name).count(), 1, "{} is there twice", kind.name);
            assert!(!kind.meaning.is_empty() && kind.params.iter().all(|param| !param.meaning.is_empty()));
            let file = format!("name: example\nresources:\n{}", indent(kind.example));
            let mut load = |path: &str| Ok::<_, String>(format!("content of {path}\n").into_bytes());
            let compiled = crate::policy::compile_file("example.vgo", file.as_bytes(), &mut load);
            let bundle = compiled.unwrap_or_else(|errors| panic!("{}: {errors:?}", kind.name));
            assert_eq!(bundle.resources[0].kind, kind.name);
        }
    }

    fn indent(text: &str) -> String {
        text.lines().map(|line| format!("  {line}\n")).collect()
    }

    #[test]
    fn the_group_of_files_does_not_become_that_of_users() {
        let file = "name: a\ndefaults: {group: root}\nresources:\n  - {name: u, type: user, username: ada}\n  - {name: f, type: file, target_path: /f, content: x}\n";
        let bundle = crate::policy::compile_file("a.vgo", file.as_bytes(), &mut |_| Err(String::new())).expect("right");
        let has = |n: usize| bundle.resources[n].params.contains_key("group");
        assert_eq!([has(0), has(1)], [false, true]);
    }

    #[test]
    fn only_a_source_that_is_a_file_of_the_policy_cannot_be_a_template() {
        let resource = |rest: &str| format!("name: a\nresources:\n  - {{name: r, target_path: /r, {rest}}}\n");
        let compiled = |rest: &str| {
            crate::policy::compile_file("a.vgo", resource(rest).as_bytes(), &mut |_| Err(String::new())).is_ok()
        };
        assert!(compiled("type: mount, source: \"//{{ traits.network.hostname }}/x\", fstype: cifs"));
        assert!(!compiled("type: file, source: \"files/{{ traits.network.hostname }}\""));
    }

    #[test]
    fn unknown_types_are_suggested() {
        assert!(unknown_type("fiel").contains("did you mean `file`?"));
        assert!(unknown_type("qqqqqqqqqq").contains("`vigo-envoy doc` lists"));
    }
}
