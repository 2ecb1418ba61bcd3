use super::super::{Compiled, MappingId, Memory, Tree, check, compile, compile_with, trace, trace_with};
use common::ids::Hash32;
use common::yaml::Error;

const BUILD: Hash32 = Hash32([7; 32]);

fn files() -> Vec<(&'static str, String)> {
    [
        (
            "configcrates/a.vgo",
            "name: a\nvars: {port: 1, deep: {x: [1, 2.5, null, true]}}\nvars_files: [shared]\nresources:\n- name: x\n  type: file\n  target_path: /x\n  source: templates/x.conf\n  when: \"traits.os.arch == 'riscv64'\"\n  notify: [y]\n- {name: y, type: exec, command: [echo, '{{ vars.port }}'], depends_on: [b.z], retries: 2, timeout: 7s}\n- {name: 'u-{{ item }}', type: exec, command: id, foreach: [1, 2], sensitive: true, noop: true}\n",
        ),
        ("configcrates/b.vgo", "name: b\nresources:\n- {name: z, type: exec, command: 'echo {{ vars.site }}'}\n"),
        ("roles/r.vgo", "name: r\nconfigcrates: [a]\nvars: {workers: 4}\n"),
        ("vars/shared.vgo", "vars: {metrics: 9100}\n"),
        ("envoys/common.vgo", "configcrates: [b]\nvars: {site: none, key: 'secret:prod/key'}\n"),
        (
            "envoys/w.vgo",
            "envoys:\n- match: ['w*', '[a-c]?']\n  environment: prod\n  roles: [r]\n- {match: d, vars: {site: s}}\n",
        ),
        ("environments.vgo", "environments:\n  prod: {vars: {port: 5}}\n"),
        ("templates/x.conf", "{{ vars.metrics }} {{ vars.port }}\n"),
    ]
    .into_iter()
    .map(|(path, text)| (path, text.to_string()))
    .collect()
}

/// The files with one of them replaced, removed (`None`) or added.
fn edited(path: &'static str, text: Option<&str>) -> Tree {
    let mut all = files();
    all.retain(|(known, _)| *known != path);
    all.extend(text.map(|text| (path, text.to_string())));
    all.into_iter().collect()
}

/// What was kept of the tree as it is in `files`.
fn kept() -> Vec<u8> {
    let mut memory = Memory::new(BUILD, Vec::new());
    compile_with(&files().into_iter().collect(), &mut memory).unwrap();
    memory.learned().unwrap().to_vec()
}

fn payloads(compiled: &Compiled) -> Vec<(Hash32, bytes::Bytes)> {
    (0..compiled.mappings().len()).map(|n| compiled.bundle(MappingId(n as u32))).collect()
}

/// With the memory of the old tree, every answer about a new one is that of a fresh start.
fn same_as_fresh(tree: &Tree) {
    let fresh = compile(tree);
    let remembered = compile_with(tree, &mut Memory::new(BUILD, kept()));
    match (&fresh, &remembered) {
        (Ok(fresh), Ok(remembered)) => assert_eq!(payloads(fresh), payloads(remembered)),
        (Err(fresh), Err(remembered)) => assert_eq!(fresh, remembered),
        other => panic!("{other:?}"),
    }
    let n = fresh.as_ref().map(|compiled| compiled.mappings().len()).map_err(Vec::clone);
    assert_eq!(check(tree, &mut Memory::new(BUILD, kept())), n);
    for host in ["w1", "d", "nobody"] {
        let traced = trace(tree, host);
        assert_eq!(trace_with(tree, host, &mut Memory::new(BUILD, kept())), traced);
    }
}

#[test]
fn a_tree_that_is_known_is_recalled_whole_and_comes_to_the_same() {
    let tree: Tree = files().into_iter().collect();
    let mut memory = Memory::new(BUILD, kept());
    assert_eq!(memory.paths().len(), 7, "every policy file, no template");
    assert!(memory.paths().iter().all(|path| memory.recall(&tree, path).is_some()));
    compile_with(&tree, &mut memory).unwrap();
    assert!(memory.learned().is_none(), "there is nothing new");
    same_as_fresh(&tree);
}

#[test]
fn every_edit_is_seen() {
    for (path, text) in [
        ("configcrates/b.vgo", Some("name: b\nresources:\n- {name: z, type: exec, command: true}\n")),
        ("configcrates/b.vgo", Some("name: b\nresources:\n- {name: z, type: exec, comand: true}\n")),
        ("configcrates/b.vgo", Some("name: a\nresources: []\n")),
        ("configcrates/b.vgo", None),
        ("configcrates/c.vgo", Some("name: c\nresources: []\n")),
        ("roles/r.vgo", Some("name: r\nconfigcrates: [a, a]\n")),
        ("roles/s.vgo", Some("name: r\n")),
        ("vars/shared.vgo", Some("vars: {metrics: 1}\n")),
        ("vars/shared.vgo", Some("vars: {metric: 1}\n")),
        ("vars/shared.vgo", Some("vars: [\n")),
        ("vars/shared.vgo", None),
        ("templates/x.conf", Some("{{ vars.unknown }}\n")),
        ("templates/x.conf", Some("{{ nothing\n")),
        ("templates/x.conf", None),
        ("environments.vgo", None),
        ("environments.vgo", Some("environments: {test: {}}\n")),
        ("envoys/common.vgo", None),
        ("envoys/w.vgo", Some("envoys:\n- {match: d, configcrates: [nope]}\n")),
        ("envoys/0.vgo", Some("envoys:\n- {match: '*', configcrates: [b]}\n")),
    ] {
        same_as_fresh(&edited(path, text));
    }
}

#[test]
fn a_file_that_others_are_parsed_with_is_parsed_with_them_again() {
    let memory = Memory::new(BUILD, kept());
    for path in ["vars/shared.vgo", "templates/x.conf"] {
        let tree = edited(path, Some("vars: {metrics: 2}\n"));
        assert!(memory.recall(&tree, "configcrates/a.vgo").is_none(), "{path}");
        assert!(memory.recall(&tree, "configcrates/b.vgo").is_some(), "{path}");
    }
}

#[test]
fn a_tree_with_errors_is_not_learned_and_what_was_known_stays() {
    let mut memory = Memory::new(BUILD, kept());
    let wrong = edited("templates/x.conf", Some("{{ nothing\n"));
    compile_with(&wrong, &mut memory).unwrap_err();
    assert!(memory.learned().is_none());
    assert_eq!(memory.paths().len(), 7);
}

#[test]
fn what_is_learned_of_an_edit_is_what_a_fresh_start_learns() {
    let tree = edited("roles/r.vgo", None);
    let mut memory = Memory::new(BUILD, kept());
    // A mapping names the role that is gone: the files are well, the tree is not.
    check(&tree, &mut memory).unwrap_err();
    let learned = Memory::new(BUILD, memory.learned().unwrap().to_vec());
    let mut fresh = Memory::new(BUILD, Vec::new());
    let _ = check(&tree, &mut fresh);
    assert_eq!(learned.paths(), Memory::new(BUILD, fresh.learned().unwrap().to_vec()).paths());
    assert!(!learned.paths().contains("roles/r.vgo"));
}

#[test]
fn a_closed_memory_answers_and_learns_nothing() {
    let mut memory = Memory::new(BUILD, kept()).closed();
    compile_with(&edited("configcrates/c.vgo", Some("name: c\nresources: []\n")), &mut memory).unwrap();
    assert!(memory.learned().is_none());
}

#[test]
fn secrets_are_looked_for_also_in_files_that_are_recalled() {
    let tree: Tree = files().into_iter().collect();
    let tree = tree.with_secrets(["other/key".to_string()].into());
    let errors = check(&tree, &mut Memory::new(BUILD, kept())).unwrap_err();
    assert_eq!(errors, compile(&tree).unwrap_err());
    let errors: Vec<String> = errors.iter().map(Error::summary).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("envoys/common.vgo:2:"), "{errors:?}");
}

#[test]
fn a_memory_of_another_build_or_with_any_byte_altered_is_empty() {
    let whole = kept();
    assert!(Memory::new(Hash32([8; 32]), whole.clone()).paths().is_empty());
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        assert!(Memory::new(BUILD, damaged).paths().is_empty(), "{at}");
    }
    for length in [0, 1, 31, 32, 60, whole.len() - 1] {
        assert!(Memory::new(BUILD, whole[..length].to_vec()).paths().is_empty(), "{length}");
    }
}

#[test]
fn bytes_that_are_no_entry_are_refused_and_never_panic() {
    use super::super::load::Parsed;
    use super::codec::Keep;
    let whole = kept();
    for start in 0..whole.len() {
        // Any place, taken for the beginning of a parsed file.
        let _ = Parsed::take(&mut &whole[start..]);
    }
}
