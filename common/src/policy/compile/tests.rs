use super::*;

fn compile(text: &str) -> Result<Bundle, String> {
    let mut load = |path: &str| match path {
        "files/motd" => Ok(b"hello\n".to_vec()),
        "templates/site.j2" => Ok(b"port {{ vars.port }}\n".to_vec()),
        "templates/bad.j2" => Ok(b"a\n{{ vars.port".to_vec()),
        "vars/shared.vgo" => Ok(b"vars: {port: 1, shared: yes}\n".to_vec()),
        _ => Err(format!("{path} does not exist")),
    };
    compile_file("site.vgo", text.as_bytes(), &mut load).map_err(|errors| crate::yaml::render(&errors))
}

const GOOD: &str = r#"
vars: {port: 80, people: [ann, bob], unused: 1}
vars_files: [shared]
defaults: {mode: "0600", owner: root}
resources:
  - name: svc
    type: exec
    command: "true"
    subscribes: [conf]
  - name: conf
    type: file
    target_path: /etc/site
    source: templates/site.j2
    depends_on: [dir]
  - name: link
    type: symlink
    target_path: /etc/link
    to: /etc/site
    before: svc
  - name: dir
    type: directory
    target_path: /etc/d
    mode: 0755
    timeout: 30s
  - name: "home-{{ item }}"
    type: directory
    foreach: "{{ vars.people }}"
    target_path: "/home/{{ item }}"
    when: "traits.os.family == 'debian'"
"#;

#[test]
fn a_file_compiles_into_an_ordered_bundle() {
    let bundle = compile(GOOD).unwrap();
    let names: Vec<&str> = bundle.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["site.link", "site.dir", "site.conf", "site.svc", "site.home-{{ item }}"]);
    let by_name = |name: &str| bundle.resources.iter().find(|resource| resource.name == name).unwrap();
    let conf = by_name("site.conf");
    assert_eq!((conf.depends_on.as_slice(), conf.notify.as_slice()), (&[1][..], &[3][..]));
    assert_eq!(by_name("site.svc").after, [0]);
    assert_eq!(conf.params["mode"], Value::Str("0600".into()));
    assert_eq!(conf.vars.keys().collect::<Vec<_>>(), ["port"]);
    assert_eq!(conf.vars["port"], Value::Int(80));
    assert_eq!(conf.source, "site.vgo:10:11");
    let dir = by_name("site.dir");
    assert_eq!((dir.timeout_ms, &dir.params["mode"]), (30_000, &Value::Str("0755".into())));
    assert!(!by_name("site.link").params.contains_key("mode"));
    assert_eq!(bundle.blobs.iter().map(|blob| blob.path.as_str()).collect::<Vec<_>>(), ["templates/site.j2"]);
    assert_eq!(Bundle::decode(&bundle.encode()), Ok(bundle));
}

#[test]
fn all_errors_of_a_file_are_shown_at_once() {
    let text = "resources:\n  - {name: a, type: fiel}\n  - {name: b, type: file, target_path: /x, contnet: y, depends_on: [ccc, a]}\n  - {name: bb, type: exec, command: '{{ vars.nope'}\n";
    let message = compile(text).unwrap_err();
    for expected in [
        "site.vgo:2:21: no resource type `fiel`; did you mean `file`?",
        "site.vgo:3:44: `file` has no parameter `contnet`; did you mean `content`?",
        "site.vgo:3:69: `depends_on` names no resource `ccc`",
        "site.vgo:4:38: the template does not parse",
        "4 errors",
    ] {
        assert!(message.contains(expected), "{expected} in:\n{message}");
    }
}

#[test]
fn places_in_template_files_are_shown() {
    let file = |source: &str| {
        compile(&format!("resources:\n  - {{name: a, type: file, target_path: /x, source: {source}}}\n"))
    };
    let missing = file("templates/site.j2").unwrap_err();
    assert!(missing.starts_with("templates/site.j2:1:9: `vars.port` is not defined"), "{missing}");
    let broken = file("templates/bad.j2").unwrap_err();
    assert!(broken.starts_with("templates/bad.j2:2:1: the template does not parse"), "{broken}");
    assert!(file("files/none").unwrap_err().contains("files/none does not exist"));
    assert_eq!(file("files/motd").unwrap().blobs[0].size, 6);
}

#[test]
fn a_cycle_is_shown_as_a_path() {
    let text = "resources:\n  - {name: a, type: exec, command: x, depends_on: [c]}\n  - {name: b, type: exec, command: x, depends_on: [a]}\n  - {name: c, type: exec, command: x, subscribes: [b]}\n";
    let message = compile(text).unwrap_err();
    assert!(
        message.starts_with("site.vgo:2:12: resources wait for each other in a cycle: a -> b -> c -> a"),
        "{message}"
    );
}

#[test]
fn an_undefined_variable_is_said_beside_other_errors() {
    let text = "resources:\n  - {name: a, type: exec, command: '{{ vars.nope }}'}\n  - {name: b, typ: exec}\n";
    let said = compile(text).unwrap_err();
    assert!(said.contains("`vars.nope` is not defined") && said.contains("no `type`"), "{said}");
}
