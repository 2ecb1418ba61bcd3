use super::*;
use common::bundle::Bundle;
use proptest::prelude::*;

fn tree() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "configcrates/base.vgo",
            "name: base\nvars: {motd: default, level: info}\nresources:\n  - {name: motd, type: file, target_path: /etc/motd, content: '{{ vars.motd }} {{ vars.dns[0] }} {{ vars.level }}'}\n",
        ),
        (
            "configcrates/web/nginx.vgo",
            "name: nginx\nvars: {port: 8080}\nvars_files: [shared/ports]\nresources:\n  - {name: conf, type: file, target_path: /etc/n, source: templates/n.j2, depends_on: [base.motd]}\n  - {name: logo, type: file, target_path: /var/logo, source: files/logo.png}\n",
        ),
        (
            "configcrates/harden.vgo",
            "name: harden\nresources:\n  - {name: x, type: exec, command: 'true', before: [nginx.conf]}\n",
        ),
        ("envoys/common.vgo", "configcrates: [base]\nvars: {dns: [10.0.0.1], motd: outer}\n"),
        ("envoys/production/common.vgo", "vars: {motd: inner}\n"),
        (
            "envoys/production/web.vgo",
            "envoys:\n  - match: ['web-*.example.com', special]\n    environment: prod\n    roles: [webserver]\n    vars: {port: 80}\n  - match: '*'\n    configcrates: [nginx]\n",
        ),
        ("envoys/z.vgo", "envoys:\n  - match: never\n    configcrates: [base]\n"),
        ("environments.vgo", "environments:\n  prod: {vars: {level: warn}, configcrates: [harden]}\n"),
        ("files/logo.png", "\u{1}binary"),
        ("roles/webserver.vgo", "name: webserver\nconfigcrates: [nginx]\nvars: {port: 1, workers: 4}\n"),
        ("templates/n.j2", "listen {{ vars.port }}; metrics {{ vars.metrics }} {{ vars.workers | default(1) }}\n"),
        ("vars/shared/ports.vgo", "vars: {metrics: 9100, port: 7}\n"),
    ]
}

fn compiled() -> Compiled {
    compile(&tree().into_iter().collect()).unwrap_or_else(|errors| panic!("{}", common::yaml::render(&errors)))
}

fn bundle(compiled: &Compiled, host: &str) -> Bundle {
    Bundle::decode(&compiled.bundle(compiled.mapping_for(host).unwrap()).1).unwrap()
}

#[test]
fn precedence_holds() {
    let compiled = compiled();
    let web = bundle(&compiled, "web-1.example.com");
    let text = |text: &str| Value::Str(text.into());
    assert_eq!(web.mapping, "envoys/production/web.vgo:2");
    assert_eq!(web.environment, "prod");
    assert_eq!(web.vars["level"], text("warn"), "environment over configcrate");
    assert_eq!(web.vars["port"], Value::Int(80), "mapping over role");
    assert_eq!(web.vars["motd"], text("inner"), "nearest directory first");
    assert_eq!(web.vars["workers"], Value::Int(4), "role");
    let names: Vec<&str> = web.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["base.motd", "nginx.logo", "harden.x", "nginx.conf"]);
    assert_eq!((&web.resources[3].depends_on, &web.resources[3].after), (&vec![0], &vec![2]));
    assert_eq!(web.resources[3].vars.keys().collect::<Vec<_>>(), ["metrics"], "only what the mapping does not set");
    let other = bundle(&compiled, "db.example.com");
    assert_eq!(other.resources[1].vars["port"], Value::Int(8080), "configcrate over its vars files");
    assert!(!other.vars.contains_key("port") && !other.vars.contains_key("workers"));
    assert_eq!(compiled.mapping_for("special"), Some(MappingId(0)));
}

#[test]
fn pieces_come_to_the_bytes_of_a_whole_bundle() {
    let compiled = compiled();
    for n in 0..compiled.mappings().len() {
        let (hash, payload) = compiled.bundle(MappingId(n as u32));
        assert_eq!(Bundle::decode(&payload).unwrap().encode(), payload);
        assert_eq!(bundle_hash(&payload), hash);
    }
}

#[test]
fn files_are_served_to_those_whose_bundle_names_them() {
    let compiled = compiled();
    let web = compiled.bundle_for("web-1.example.com").unwrap();
    let logo = common::crypto::sha256(&["\u{1}binary".as_bytes()]);
    assert_eq!(compiled.blob_size(&web, &logo), Some(7));
    assert_eq!(compiled.blob_path(&logo), Some("files/logo.png"));
    assert_eq!(compiled.blob_size(&web, &common::ids::Hash32::ZERO), None);
}

#[test]
fn an_unrelated_variable_changes_no_bundle() {
    let before = compiled().bundle_for("web-1.example.com");
    let edited = tree().into_iter().map(|(path, text)| match path {
        "roles/webserver.vgo" => {
            (path, "name: webserver\nconfigcrates: [nginx]\nvars: {port: 1, workers: 4, unused: 5}\n")
        }
        _ => (path, text),
    });
    let after = compile(&edited.collect()).unwrap();
    assert_eq!(after.bundle_for("web-1.example.com"), before);
    assert_ne!(after.tree_hash(), compiled().tree_hash());
}

#[test]
fn a_variable_that_one_mapping_lacks_names_that_mapping() {
    let edited =
        tree().into_iter().filter(|(path, _)| *path != "vars/shared/ports.vgo").map(|(path, text)| match path {
            "configcrates/web/nginx.vgo" => (path, text.replace("vars_files: [shared/ports]\n", "")),
            "envoys/production/web.vgo" => (path, text.replace("{port: 80}", "{port: 80, metrics: 1}")),
            _ => (path, text.to_string()),
        });
    let errors = compile(&edited.collect()).unwrap_err();
    assert_eq!(
        errors.iter().map(Error::summary).collect::<Vec<_>>(),
        [
            "templates/n.j2:1:36: `vars.metrics` is not defined (mapping envoys/production/web.vgo:6, hosts *); set it in `vars` of the configcrate, a role or the mapping, or write `| default(...)` behind it"
        ]
    );
}

proptest! {
    #[test]
    fn compiling_does_not_depend_on_the_order_of_files_law(seed in any::<u64>()) {
        let mut files = tree();
        let mut rng = common::rng::SplitMix64(seed);
        for at in (1..files.len()).rev() {
            let mut bytes = [0; 8];
            common::rng::Rng::fill(&mut rng, &mut bytes);
            files.swap(at, (u64::from_be_bytes(bytes) % (at as u64 + 1)) as usize);
        }
        let (first, second) = (compiled(), compile(&files.into_iter().collect()).unwrap());
        prop_assert_eq!(first.tree_hash(), second.tree_hash());
        let payloads = |compiled: &Compiled| (0..3).map(|n| compiled.bundle(MappingId(n))).collect::<Vec<_>>();
        prop_assert_eq!(payloads(&first), payloads(&second));
    }
}
