use super::*;

struct Root(tempfile::TempDir);

impl Root {
    fn new(files: &[(&str, &str)]) -> Root {
        let root = Root(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| root.write(path, text));
        root
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(STACKS).join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn trees(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join(PUBLISHES)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != LOCK).collect()
    }
}

fn files(command: &str) -> Vec<(String, String)> {
    vec![
        (
            "configcrates/a.vgo".into(),
            format!(
                "name: a\nresources:\n  - {{name: x, type: exec, command: {command}}}\n  - {{name: y, type: file, target_path: /y, source: files/y}}\n"
            ),
        ),
        ("envoys/a.vgo".into(), "envoys:\n- {match: '*', configcrates: [a]}\n".into()),
        ("files/y".into(), "content".into()),
    ]
}

fn root(command: &str) -> Root {
    let root = Root::new(&[]);
    files(command).iter().for_each(|(path, text)| root.write(path, text));
    root
}

#[test]
fn a_publish_is_served_after_a_restart() {
    let root = root("one");
    assert!(load_live(root.path()).unwrap().is_none());
    let published = publish(root.path(), Source::Stacks, None).unwrap();
    assert!(!published.unchanged);
    assert_eq!(published.changes.to_string(), "configcrates: 1 added (a); mappings: 1 added (*)");
    // Edits do not touch what is live.
    root.write("files/y", "edited");
    let live = load_live(root.path()).unwrap().unwrap();
    assert_eq!(live.tree_hash(), published.tree);
    assert_eq!(live.bundle_for("h"), published.compiled.bundle_for("h"));
    let blob = common::crypto::sha256(&[b"content"]);
    let file = blob_file(root.path(), &live, &blob).unwrap();
    assert_eq!(std::fs::read(file).unwrap(), b"content");
}

#[test]
fn an_unchanged_tree_is_a_no_op() {
    let root = root("one");
    let first = publish(root.path(), Source::Stacks, None).unwrap();
    root.write("README.md", "not policy");
    root.write("configcrates/.a.vgo.swp", "not policy");
    let second = publish(root.path(), Source::Stacks, Some(&first.compiled)).unwrap();
    assert!(second.unchanged && second.tree == first.tree && second.changes.is_empty());
    assert_eq!(root.trees(), [first.tree.to_string()]);
}

#[test]
fn a_wrong_tree_changes_nothing() {
    let root = root("one");
    let first = publish(root.path(), Source::Stacks, None).unwrap();
    root.write("configcrates/b.vgo", "name: b\nresorces: []\n");
    let refused = publish(root.path(), Source::Stacks, None).unwrap_err().to_string();
    assert!(
        refused
            .starts_with("configcrates/b.vgo:2:1: unknown key `resorces` in a configcrate; did you mean `resources`?"),
        "{refused}"
    );
    assert_eq!(validate(root.path()).unwrap_err().to_string(), refused);
    assert_eq!(live_tree(root.path()), Ok(Some(first.tree)));
    assert_eq!(root.trees(), [first.tree.to_string()]);
}

#[test]
fn what_a_crash_left_behind_is_cleaned_up() {
    let root = root("one");
    let first = publish(root.path(), Source::Stacks, None).unwrap();
    // Killed while copying, and between making the new link and renaming it.
    let staging = root.path().join(PUBLISHES).join(STAGING);
    std::fs::create_dir_all(staging.join("configcrates")).unwrap();
    std::fs::write(staging.join("configcrates/a.vgo"), "half").unwrap();
    std::os::unix::fs::symlink("publishes/nowhere", root.path().join(LIVE_NEW)).unwrap();
    assert_eq!(load_live(root.path()).unwrap().unwrap().tree_hash(), first.tree);
    root.write("files/y", "two");
    let second = publish(root.path(), Source::Stacks, None).unwrap();
    assert_eq!(second.changes.to_string(), "mappings: 1 changed (*)");
    assert_eq!(live_tree(root.path()), Ok(Some(second.tree)));
    assert!(!staging.exists() && !root.path().join(LIVE_NEW).exists());
}

#[test]
fn a_damaged_tree_is_refused_and_healed_by_publishing() {
    let root = root("one");
    let published = publish(root.path(), Source::Stacks, None).unwrap();
    std::fs::write(directory(root.path(), &published.tree).join("files/y"), "tampered").unwrap();
    let refused = load_live(root.path()).unwrap_err().to_string();
    assert!(refused.contains("is damaged (its content does not have its hash): publish again"), "{refused}");
    assert!(!publish(root.path(), Source::Stacks, None).unwrap().unchanged);
    assert!(load_live(root.path()).unwrap().is_some());
}

#[test]
fn old_trees_are_pruned_and_an_earlier_one_can_return() {
    let root = root("zero");
    let first = publish(root.path(), Source::Stacks, None).unwrap();
    for n in 0..limits::PUBLISHES_KEPT_MAX + 2 {
        root.write("files/y", &n.to_string());
        publish(root.path(), Source::Stacks, None).unwrap();
    }
    assert_eq!(root.trees().len(), limits::PUBLISHES_KEPT_MAX);
    assert!(!root.trees().contains(&first.tree.to_string()));
    root.write("files/y", "5");
    let back = publish(root.path(), Source::Stacks, None).unwrap();
    assert!(!back.unchanged);
    assert_eq!(root.trees().len(), limits::PUBLISHES_KEPT_MAX);
    assert_eq!(load_published(root.path(), &back.tree).unwrap().tree_hash(), back.tree);
}

#[test]
fn what_cannot_be_policy_is_refused_with_a_reason() {
    let root = root("one");
    let stacks = root.path().join(STACKS);
    std::os::unix::fs::symlink("a.vgo", stacks.join("configcrates/b.vgo")).unwrap();
    std::os::unix::fs::symlink("/etc", stacks.join("files/etc")).unwrap();
    let deep = "d/".repeat(limits::TREE_DEPTH_MAX + 1);
    root.write(&format!("roles/{deep}x.vgo"), "");
    let bytes = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"files/\xff");
    std::fs::write(stacks.join(bytes), "").unwrap();
    let refused = validate(root.path()).unwrap_err().to_string();
    for expected in [
        "configcrates/b.vgo: this is a symbolic link, which a policy cannot contain; put the file itself here",
        "files/etc: this is a symbolic link",
        "files/\u{fffd}: the name of the file is not UTF-8; rename it",
        "directories are nested too deep; expected at most 16 levels",
    ] {
        assert!(refused.contains(expected), "{expected} in\n{refused}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(validate(empty.path()).unwrap_err().to_string().contains("stacks: write the policy there"));
    std::fs::create_dir(empty.path().join(STACKS)).unwrap();
    assert!(validate(empty.path()).unwrap_err().to_string().contains("there is no policy file"));
}

#[test]
fn a_second_publish_at_the_same_time_is_told_to_wait() {
    let root = root("one");
    std::fs::create_dir(root.path().join(PUBLISHES)).unwrap();
    let _lock = Lock::take(&root.path().join(PUBLISHES).join(LOCK), "publish").unwrap();
    assert!(matches!(publish(root.path(), Source::Stacks, None), Err(PublishError::Busy(_))));
}
