//! What templates may and may not do.

use super::*;

fn map(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
}

fn text(text: &str) -> Value {
    Value::Str(text.to_string())
}

fn scope() -> Scope {
    let vars = map(&[
        ("port", Value::Int(8080)),
        ("people", Value::List(vec![text("ada"), text("bob")])),
        ("deep", Value::Map(map(&[("on", Value::Bool(true)), ("ratio", Value::Float(0.5))]))),
    ]);
    let traits = serde_json::json!({"os": {"arch": "aarch64", "container": false, "codename": null}});
    Scope::new(&vars, &traits, &map(&[("hostname", text("web-1")), ("uuid", text("u")), ("environment", text(""))]))
}

fn render(source: &str) -> Result<Value, TemplateError> {
    let value = text(source);
    let engine = Engine::new();
    let compiled = engine.compile(&value)?;
    compiled.render(&scope()).map(Cow::into_owned)
}

fn holds(source: &str) -> Result<bool, TemplateError> {
    Engine::new().compile_condition(source)?.holds(&scope())
}

fn undefined(name: &str, near: Option<&str>) -> TemplateError {
    TemplateError::Undefined { name: Some(name.to_string()), near: near.map(str::to_string) }
}

#[test]
fn one_expression_keeps_its_type() {
    assert_eq!(render("{{ vars.port }}"), Ok(Value::Int(8080)));
    assert_eq!(render("{{- vars.port + 1 -}}"), Ok(Value::Int(8081)));
    assert_eq!(
        render("{{ vars.deep }}"),
        Ok(Value::Map(map(&[("on", Value::Bool(true)), ("ratio", Value::Float(0.5))])))
    );
    assert_eq!(render("{{ vars.people | reverse }}"), Ok(Value::List(vec![text("bob"), text("ada")])));
    assert_eq!(render("{{ traits.os.codename }}"), Ok(Value::Null));
    assert_eq!(render("{{ {'a': {'b': 1}}.a.b }}"), Ok(Value::Int(1)));
    assert_eq!(render("{{ '}}' }}"), Ok(text("}}")));
}

#[test]
fn anything_more_is_text() {
    assert_eq!(render("{{ vars.port }}\n"), Ok(text("8080\n")));
    assert_eq!(render("{{ vars.port }}{{ vars.port }}"), Ok(text("80808080")));
    assert_eq!(render("a <{{ envoy.hostname }}> & b"), Ok(text("a <web-1> & b")));
    assert_eq!(render("{% for p in vars.people %}{{ p }};{% endfor %}\n"), Ok(text("ada;bob;\n")));
    assert_eq!(render("{% raw %}{{ x }}{% endraw %}"), Ok(text("{{ x }}")));
    assert_eq!(render("{# note #}x"), Ok(text("x")));
}

#[test]
fn plain_values_stay_borrowed() {
    let value = Value::List(vec![text("a { b"), Value::Int(1)]);
    let engine = Engine::new();
    let compiled = engine.compile(&value).unwrap();
    assert!(compiled.is_plain());
    assert!(matches!(compiled.render(&scope()), Ok(Cow::Borrowed(_))));
}

#[test]
fn templates_inside_lists_and_maps_are_rendered() {
    let value = Value::Map(map(&[("list", Value::List(vec![text("{{ vars.port }}"), text("x")]))]));
    let engine = Engine::new();
    let rendered = engine.compile(&value).unwrap().render(&scope()).unwrap().into_owned();
    assert_eq!(rendered, Value::Map(map(&[("list", Value::List(vec![Value::Int(8080), text("x")]))])));
}

#[test]
fn undefined_values_are_errors_that_name_them() {
    assert_eq!(render("{{ vars.prot }}"), Err(undefined("vars.prot", Some("vars.port"))));
    assert_eq!(render("x{{ vars.prot }}"), Err(undefined("vars.prot", Some("vars.port"))));
    assert_eq!(render("{{ traits.os.arhc.x }}"), Err(undefined("traits.os.arhc.x", Some("traits.os.arch"))));
    assert_eq!(render("{{ trait.os }}"), Err(undefined("trait.os", Some("traits"))));
    assert_eq!(render("{{ item.name }}"), Err(undefined("item.name", None)));
    assert_eq!(render("{{ vars.nope | default(3) }}"), Ok(Value::Int(3)));
    assert_eq!(holds("vars.zzzzzzz"), Err(undefined("vars.zzzzzzz", None)));
    assert_eq!(holds("vars.people[7]"), Err(TemplateError::Undefined { name: None, near: None }));
}

#[test]
fn conditions_hold_or_not() {
    assert_eq!(holds("traits.os.arch == 'aarch64' and not traits.os.container"), Ok(true));
    assert_eq!(holds("{{ vars.port > 9000 }}"), Ok(false));
    assert_eq!(holds("vars.gone is defined"), Ok(false));
    assert_eq!(holds("'ada' in vars.people"), Ok(true));
    assert!(matches!(holds("vars.port =="), Err(TemplateError::Syntax { .. })));
    assert!(matches!(holds(""), Err(TemplateError::Syntax { .. })));
}

#[test]
fn crate_defaults_hide_nothing_but_their_own_names() {
    let scope = scope().with_vars(&map(&[("port", Value::Int(1))])).with_item(&Value::Map(map(&[("name", text("n"))])));
    let engine = Engine::new();
    let at = |source: &str| engine.render_once(source, &scope).unwrap();
    assert_eq!(at("{{ vars.port }} {{ vars.people[0] }} {{ item.name }}"), "1 ada n");
    assert_eq!(at("{{ vars | list | join(',') }}"), "deep,people,port");
}

#[test]
fn references_are_listed_for_the_server() {
    let source = text(
        "{{ vars.port }} {% for p in traits.network.addresses %}{{ p.x }}{{ loop.index }}{{ range(2) }}{% endfor %}",
    );
    let engine = Engine::new();
    let names: Vec<_> = engine.compile(&source).unwrap().references().into_iter().collect();
    assert_eq!(names, ["traits.network.addresses", "vars.port"]);
    let condition: Vec<_> = engine.compile_condition("item.a and x").unwrap().references().into_iter().collect();
    assert_eq!(condition, ["item.a", "x"]);
}

#[test]
fn syntax_errors_name_the_line() {
    let Err(TemplateError::Syntax { line, .. }) = render("a\nb\n{{ vars. }}\n") else { panic!() };
    assert_eq!(line, 3);
    for bad in [
        "{{ x",
        "{% if %}",
        "{% include 'x' %}",
        "{% macro m() %}{% endmacro %}",
        "{{ }}",
        "{{}}",
        "{%",
        "{#",
        "{{ ' }}",
    ] {
        let result = render(bad);
        assert!(result.is_err(), "{bad}: {result:?}");
    }
}

#[test]
fn deep_sources_are_refused_before_parsing() {
    let repeat = |open: &str, n: usize, close: &str| format!("{}1{}", open.repeat(n), close.repeat(n));
    for deep in [
        format!("{{{{ {} }}}}", repeat("(", 5_000, ")")),
        format!("{{{{ {} }}}}", repeat("[", 5_000, "]")),
        format!("{{{{ {}true }}}}", "not ".repeat(5_000)),
        format!("{{{{ {}1 }}}}", "1+".repeat(5_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(5_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(5_000)),
        format!("{{{{ x{} }}}}", "[0]".repeat(5_000)),
        format!("{{{{ x{} }}}}", "(1,2)".repeat(5_000)),
        format!("{{{{ x{} }}}}", "|e".repeat(5_000)),
        "{% if x %}".repeat(3_000),
        "{% for x in y %}".repeat(3_000),
        format!("{{% if x %}}{}", "{% elif x %}".repeat(3_000)),
        "{% set x %}".repeat(3_000),
    ] {
        let result = render(&deep);
        assert!(matches!(result, Err(TemplateError::TooDeep { .. })), "{} {result:?}", &deep[..30]);
    }
    assert!(matches!(render(&format!("{{{{ 1 }}}}{}", " ".repeat(70_000))), Err(TemplateError::TooLong { .. })));
}

#[test]
fn sources_at_the_limit_fit_a_small_stack() {
    let at_limit = [
        format!("{{{{ {}1{} }}}}", "(".repeat(63), ")".repeat(63)),
        format!("{{{{ {}1 }}}}", "1+".repeat(limits::TEMPLATE_CHAIN_MAX)),
        format!("{{{{ {}true }}}}", "not ".repeat(120)),
        format!(
            "{}x{}",
            "{% if vars.port %}".repeat(limits::TEMPLATE_NESTING_MAX),
            "{% endif %}".repeat(limits::TEMPLATE_NESTING_MAX)
        ),
    ];
    let small = std::thread::Builder::new().stack_size(512 << 10);
    let run = move || at_limit.iter().for_each(|source| drop(render(source).map_err(|e| panic!("{source}: {e}"))));
    small.spawn(run).unwrap().join().unwrap();
}

#[test]
fn work_and_output_are_bounded() {
    let loops = "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}";
    assert_eq!(render(loops), Err(TemplateError::TooMuchWork));
    let wide = format!("{{% for a in range(1000) %}}{}{{% endfor %}}", "x".repeat(5_000));
    assert_eq!(render(&wide), Err(TemplateError::OutputTooLarge));
    assert_eq!(render("{{ 'x' * 2000000 }}"), Err(TemplateError::OutputTooLarge));
    assert_eq!(render("{{ [0] * 1000000 }}"), Err(TemplateError::OutputTooLarge));
}

#[test]
fn results_that_no_parameter_can_hold_are_refused() {
    assert!(matches!(render("{{ range }}"), Err(TemplateError::NotAValue { .. })));
    assert!(matches!(render("{{ 99999999999999999999 }}"), Err(TemplateError::NotAValue { .. })));
    assert!(render("{{ debug() }}").is_err());
    assert!(matches!(render("{{ 1 / 0 }}"), Err(TemplateError::Evaluation { .. })));
}

#[test]
fn values_cannot_be_nested_without_bound_by_building_them_step_by_step() {
    let steps = |n: usize, step: &str| format!("{{% set x = [] %}}{}{{{{ x }}}}", step.repeat(n));
    for hostile in [
        steps(3_000, "{% set x = [x] %}"),
        steps(60, &format!("{{% set x = {}x{} %}}", "[".repeat(60), "]".repeat(60))),
        steps(1_500, "{% set x = x | batch(1) | list %}"),
        format!("{}{{{{ a }}}}", "{% for a in [[[[[[[[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]]]]]]] %}".repeat(60)),
    ] {
        let result = render(&hostile);
        assert!(matches!(result, Err(TemplateError::TooDeep { .. })), "{} {result:?}", &hostile[..60]);
    }
    // Carries values from one turn of a loop to the next, and could build anything.
    assert!(
        render(
            "{% set ns = namespace(x=[]) %}{% for i in range(30000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}"
        )
        .is_err()
    );
    assert_eq!(
        render("{% set x = [] %}{% for i in range(2000) %}{% set x = [x] %}{% endfor %}{{ x }}"),
        Ok(text("[]"))
    );
    let recursion = render("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}");
    assert!(matches!(recursion, Err(TemplateError::Evaluation { .. })), "{recursion:?}");
    let at_limit = steps(limits::TEMPLATE_BUILD_MAX - 1, "{% set x = [x] %}");
    let small = std::thread::Builder::new().stack_size(1 << 20);
    small.spawn(move || assert!(render(&at_limit).is_ok())).unwrap().join().unwrap();
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_source_panics_or_overflows_law(parts in proptest::collection::vec(0usize..PIECES.len(), 0..60)) {
        let source: String = parts.into_iter().map(|at| PIECES[at]).collect();
        let _ = render(&source);
        let _ = holds(&source);
    }
}

const PIECES: [&str; 48] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{{-",
    "-}}",
    " ",
    "\n",
    "vars",
    ".port",
    "vars.people",
    "item",
    "traits.os",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "'",
    "\"",
    "\\",
    ",",
    ":",
    "|",
    "|list",
    "|join(',')",
    "|map('upper')",
    "+",
    "-",
    "*",
    "/",
    "~",
    " not ",
    " and ",
    " in ",
    " is defined",
    "for x in vars.people",
    "endfor",
    "if x",
    "elif 1",
    "else",
    "endif",
    "set y = x",
    "raw",
    "ä",
];
