//! The policy in `docs/POLICY.md` is a good one, and comes to what the text says.

use common::bundle::{Bundle, Value};
use vigosrv::policy::{Tree, compile, trace};

/// Blocks whose first line is a comment with a path.
fn files() -> Vec<(String, String)> {
    let guide = include_str!("../../docs/POLICY.md");
    let blocks = guide.split("\n```").skip(1).step_by(2);
    let labelled = blocks.filter_map(|block| {
        let (_, text) = block.split_once('\n')?;
        let (first, rest) = text.split_once('\n')?;
        Some((first.strip_prefix("# ")?.to_string(), format!("{rest}\n")))
    });
    labelled.collect()
}

#[test]
fn the_guide_s_policy_compiles_and_gives_what_it_says() {
    let files = files();
    assert_eq!(files.len(), 10, "{files:#?}");
    let tree: Tree = files.into_iter().collect();
    let compiled = compile(&tree).unwrap_or_else(|errors| panic!("{}", common::yaml::render(&errors)));
    let bundle = |host: &str| {
        let id = compiled.mapping_for(host).expect("a mapping matches");
        Bundle::decode(&compiled.bundle(id).1).expect("it was encoded")
    };
    let web = bundle("web-1.example.com");
    let names: Vec<&str> = web.resources.iter().map(|resource| resource.name.as_str()).collect();
    let base = ["base.motd", "base.user-{{ item.name }}", "base.exporter"];
    assert_eq!(names, [&base[..], &["nginx.package", "nginx.site", "nginx.service"]].concat());
    let text = |text: &str| Value::Str(text.into());
    for (name, value) in [("port", Value::Int(80)), ("title", text("Shop")), ("log_level", text("warn"))] {
        assert_eq!(web.vars.get(name), Some(&value), "{name}");
    }
    assert_eq!(bundle("db-2.example.com").resources.len(), base.len());
    let trace = trace(&tree, "web-1.example.com").ok().flatten().expect("it is traced");
    let port = trace.vars.iter().find(|var| var.name == "port").expect("it is set");
    assert!(port.source.starts_with("envoys/production/web.vgo:") && port.source.ends_with("(mapping)"), "{port:?}");
}
