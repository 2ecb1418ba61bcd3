use super::*;

/// Settles by script: the verdicts of a resource by its name, in order; `ok` where there is none.
#[derive(Default)]
struct Script {
    verdicts: BTreeMap<String, Vec<Outcome>>,
    seen: Vec<String>,
    stop_after: Option<usize>,
    clock: u64,
    pauses: usize,
}

impl Hands for Script {
    fn now(&mut self) -> Mono {
        self.clock += 7;
        Mono(self.clock)
    }
    fn stopping(&self) -> bool {
        self.stop_after.is_some_and(|n| self.seen.len() >= n)
    }
    fn pause(&mut self, _: u64) {
        self.pauses += 1;
    }
    fn settle(&mut self, task: &Task<'_>) -> Verdict {
        let params: Vec<String> =
            task.params.iter().map(|(n, v)| format!("{n}={}", text_of(v).unwrap_or_default())).collect();
        let flags = format!("{}{}", if task.forced { "!" } else { "" }, if task.enforce { "" } else { "?" });
        self.seen.push(format!("{}{flags}({})", task.name, params.join(",")));
        let outcome = match self.verdicts.get_mut(task.name) {
            Some(list) if !list.is_empty() => list.remove(0),
            _ => Outcome::Ok,
        };
        Verdict { outcome, message: format!("{} says {outcome}", task.name), diff: "secret diff".to_string() }
    }
}

fn text(text: &str) -> Value {
    Value::Str(text.to_string())
}

fn resource(name: &str) -> Resource {
    Resource { name: name.into(), kind: "file".into(), timeout_ms: 1_000, ..Resource::default() }
}

fn with(name: &str, params: &[(&str, &str)]) -> Resource {
    let params = params.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Resource { params, ..resource(name) }
}

fn scope() -> Scope {
    let vars = BTreeMap::from([
        ("port".to_string(), Value::Int(80)),
        ("people".to_string(), Value::List(vec![text("ada"), text("bob")])),
    ]);
    Scope::new(&vars, &serde_json::json!({"os": {"arch": "riscv64"}}), &BTreeMap::new())
}

fn script(verdicts: &[(&str, &[Outcome])]) -> Script {
    let verdicts = verdicts.iter().map(|(name, list)| (name.to_string(), list.to_vec())).collect();
    Script { verdicts, ..Script::default() }
}

fn check(resources: Vec<Resource>, mut hands: Script, options: Options<'_>) -> (Vec<ResourceReport>, Script, bool) {
    let bundle = Bundle { resources, ..Bundle::default() };
    let done = walk(&bundle, &scope, options, &mut hands);
    (done.entries, hands, done.interrupted)
}

fn outcomes(entries: &[ResourceReport]) -> Vec<Outcome> {
    entries.iter().map(|entry| entry.outcome).collect()
}

use Outcome::{Blocked, Changed, Failed, Ok as Fine, Skipped};

#[test]
fn dependents_of_what_failed_are_skipped_all_the_way() {
    let resources = vec![
        resource("a"),
        resource("b"),
        Resource { depends_on: vec![0], ..resource("c") },
        Resource { depends_on: vec![2], ..resource("d") },
        Resource { after: vec![0], ..resource("e") },
        Resource { depends_on: vec![1], ..resource("f") },
    ];
    let (entries, hands, _) = check(resources, script(&[("a", &[Failed]), ("b", &[Blocked])]), Options::default());
    assert_eq!(outcomes(&entries), [Failed, Blocked, Skipped, Skipped, Fine, Skipped]);
    assert_eq!(hands.seen, ["a()", "b()", "e()"]);
    assert!(entries[3].message.contains("`c`"), "{}", entries[3].message);
}

#[test]
fn a_false_condition_skips_only_itself() {
    let resources = vec![
        Resource { when: "vars.port == 81".into(), ..resource("a") },
        Resource { depends_on: vec![0], when: "traits.os.arch == 'riscv64'".into(), ..resource("b") },
    ];
    let (entries, hands, _) = check(resources, Script::default(), Options::default());
    assert_eq!((outcomes(&entries), hands.seen.len()), (vec![Skipped, Fine], 1));
}

#[test]
fn broken_templates_fail_their_own_resource_and_say_which_parameter() {
    let resources = vec![
        with("a", &[("content", "{{ vars.prot }}")]),
        Resource { when: "vars.gone".into(), ..resource("b") },
        Resource { foreach: Some(text("{{ vars.port }}")), ..resource("c") },
        with("d", &[("content", "{{ vars.port }}")]),
    ];
    let (entries, hands, _) = check(resources, Script::default(), Options::default());
    assert_eq!(outcomes(&entries), [Failed, Failed, Failed, Fine]);
    assert_eq!(entries[0].message, "`content`: `vars.prot` is not defined; did you mean `vars.port`?");
    assert_eq!(entries[1].message, "`when`: `vars.gone` is not defined");
    assert_eq!(entries[2].message, "`foreach` must give a list");
    assert_eq!(hands.seen, ["d(content=80)"]);
}

#[test]
fn items_are_unrolled_and_joined() {
    let foreach = Some(text("{{ vars.people }}"));
    let resources = vec![
        Resource { foreach: foreach.clone(), notify: vec![2], ..with("u-{{ item }}", &[("who", "{{ item }}")]) },
        Resource { foreach: foreach.clone(), ..resource("plain") },
        resource("t"),
        Resource { foreach, when: "item != 'ada'".into(), ..resource("some") },
        Resource { foreach: Some(Value::List(vec![])), ..resource("none") },
        Resource { foreach: Some(text("{{ vars.gone }}")), when: "vars.gone is defined".into(), ..resource("guarded") },
        Resource {
            foreach: Some(Value::List(vec![text("{{ vars.port }}"), Value::Int(1)])),
            ..with("l", &[("n", "{{ item }}")])
        },
    ];
    let (entries, hands, _) = check(resources, script(&[("u-bob", &[Changed])]), Options::default());
    let names: Vec<_> = entries.iter().map(|entry| format!("{} {}", entry.name, entry.outcome)).collect();
    assert_eq!(
        names,
        [
            "u-ada ok",
            "u-bob changed",
            "plain[0] ok",
            "plain[1] ok",
            "t ok",
            "some[0] skipped",
            "some[1] ok",
            "none skipped",
            "guarded skipped",
            "l[0] ok",
            "l[1] ok",
        ]
    );
    assert_eq!(
        hands.seen,
        [
            "u-ada(who=ada)",
            "u-bob(who=bob)",
            "plain[0]()",
            "plain[1]()",
            "t!()",
            "some[1]()",
            "l[0](n=80)",
            "l[1](n=1)"
        ]
    );
}

#[test]
fn one_failed_item_fails_the_resource_for_its_dependents() {
    let items = Some(Value::List(vec![Value::Int(1), Value::Int(2)]));
    let resources =
        vec![Resource { foreach: items, ..resource("a") }, Resource { depends_on: vec![0], ..resource("b") }];
    let (entries, ..) = check(resources, script(&[("a[0]", &[Failed])]), Options::default());
    assert_eq!(outcomes(&entries), [Failed, Fine, Skipped]);
}

#[test]
fn a_target_is_forced_once_when_any_notifier_changed() {
    let resources = |n| (0..n).map(|i| Resource { notify: vec![3], ..resource(["a", "b", "c"][i]) });
    let resources: Vec<_> = resources(3).chain([resource("t")]).collect();
    let (_, hands, _) = check(resources.clone(), script(&[("a", &[Changed]), ("c", &[Changed])]), Options::default());
    assert_eq!(hands.seen, ["a()", "b()", "c()", "t!()"]);
    let (_, hands, _) = check(resources, Script::default(), Options::default());
    assert_eq!(hands.seen.last().unwrap(), "t()");
}

#[test]
fn failures_are_tried_again_as_often_as_asked() {
    let resources = vec![Resource { retries: 2, ..resource("a") }, Resource { retries: 1, ..resource("b") }];
    let verdicts = script(&[("a", &[Failed, Blocked, Changed]), ("b", &[Failed, Failed, Fine])]);
    let (entries, hands, _) = check(resources, verdicts, Options::default());
    assert_eq!((outcomes(&entries), hands.pauses), (vec![Changed, Failed], 3));
    assert_eq!(entries[0].message, "a says changed (attempt 3)");
}

#[test]
fn dry_runs_and_noop_do_not_enforce() {
    let resources = vec![Resource { noop: true, notify: vec![1], ..resource("a") }, resource("b")];
    let verdicts = || script(&[("a", &[Changed]), ("b", &[Changed])]);
    let (entries, hands, _) = check(resources.clone(), verdicts(), Options::default());
    assert_eq!((outcomes(&entries), hands.seen), (vec![Skipped, Changed], vec!["a?()".to_string(), "b()".to_string()]));
    assert!(entries[0].message.starts_with("noop: "));
    let (_, hands, _) = check(resources, verdicts(), Options { dry_run: true, diff: true, owed: &[] });
    assert_eq!(hands.seen, ["a?()", "b?()"]);
}

#[test]
fn a_stopped_run_accounts_for_every_resource() {
    let resources = vec![resource("a"), resource("b"), Resource { depends_on: vec![0], ..resource("c") }];
    let hands = Script { stop_after: Some(1), ..script(&[("a", &[Failed])]) };
    let (entries, hands, interrupted) = check(resources, hands, Options::default());
    assert!(interrupted);
    assert_eq!((outcomes(&entries), hands.seen.len()), (vec![Failed, Skipped, Skipped], 1));
    assert!(entries[0].message.starts_with("interrupted: "), "{}", entries[0].message);
    assert!(entries[2].message.contains("interrupted"));
}

#[test]
fn nothing_of_a_sensitive_resource_is_shown() {
    let resources = vec![Resource { sensitive: true, ..resource("a") }];
    let (entries, ..) = check(resources, script(&[("a", &[Changed])]), Options { diff: true, ..Options::default() });
    assert_eq!((entries[0].diff.as_str(), entries[0].message.contains("says")), ("", false));
}

#[test]
fn fingerprints_follow_what_is_asked_for() {
    let print = |value: &str| {
        check(vec![with("a", &[("content", value)])], Script::default(), Options::default()).0[0].fingerprint
    };
    assert_eq!(print("80"), print("80"));
    assert_ne!(print("80"), print("81"));
    assert_eq!(print("p{{ vars.port }}"), print("p80"));
}

#[test]
fn crate_defaults_reach_their_own_resources_only() {
    let own = BTreeMap::from([("port".to_string(), Value::Int(9))]);
    let resources =
        vec![Resource { vars: own, ..with("a", &[("x", "{{ vars.port }}")]) }, with("b", &[("x", "{{ vars.port }}")])];
    assert_eq!(check(resources, Script::default(), Options::default()).1.seen, ["a(x=9)", "b(x=80)"]);
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let mut left = limits::RUN_TEXT_BYTES_MAX;
    let long = cut("ä".repeat(limits::OUTCOME_TEXT_BYTES_MAX), &mut left);
    assert!(long.len() <= limits::OUTCOME_TEXT_BYTES_MAX && long.ends_with("bytes in all]"));
    assert_eq!(cut("short".to_string(), &mut left), "short");
    assert_eq!(left, limits::RUN_TEXT_BYTES_MAX - long.len() - 5);
    assert_eq!(cut("longer than that".to_string(), &mut 3), "\n[16 bytes in all]");
    assert_eq!(cut(String::new(), &mut 0), "");
}

#[test]
fn texts_of_all_resources_together_are_bounded_and_failures_keep_theirs() {
    let long = "x".repeat(limits::OUTCOME_TEXT_BYTES_MAX);
    let resources: Vec<_> = (0..500).map(|n| with(&format!("{n}{long}"), &[])).collect();
    let verdicts: Vec<_> = resources
        .iter()
        .map(|r| (r.name.as_str(), [if r.name.starts_with("499") { Failed } else { Changed }]))
        .collect();
    let verdicts: Vec<(&str, &[Outcome])> = verdicts.iter().map(|(name, list)| (*name, &list[..])).collect();
    let (entries, ..) = check(resources.clone(), script(&verdicts), Options::default());
    let total: usize = entries.iter().map(|entry| entry.message.len() + entry.diff.len()).sum();
    assert!(total < 2 * limits::RUN_TEXT_BYTES_MAX, "{total}");
    assert!(entries[499].message.len() > 8_000);
}

#[test]
fn items_beyond_the_bounds_fail_their_resource() {
    let many = |n: i64| Some(Value::List((0..n).map(Value::Int).collect()));
    let resources = vec![Resource { foreach: many(10_001), ..resource("a") }, resource("b")];
    let (entries, ..) = check(resources, Script::default(), Options::default());
    assert_eq!(outcomes(&entries), [Failed, Fine]);
    let resources: Vec<_> = (0..11).map(|n| Resource { foreach: many(9_999), ..resource(&format!("r{n}")) }).collect();
    let (entries, ..) = check(resources, Script::default(), Options::default());
    assert_eq!(entries.len(), 10 * 9_999 + 1);
    assert!(entries.last().unwrap().message.contains("100000 resources"), "{}", entries.last().unwrap().message);
}

#[test]
fn a_notification_outlives_its_run_until_the_target_is_settled() {
    let bundle = Bundle {
        resources: vec![
            Resource { notify: vec![1, 2, 3], ..resource("conf") },
            resource("fails"),
            Resource { depends_on: vec![1], ..resource("skipped") },
            resource("fine"),
        ],
        ..Bundle::default()
    };
    let verdicts: &[(&str, &[Outcome])] = &[("conf", &[Changed]), ("fails", &[Failed])];
    let first = walk(&bundle, &scope, Options::default(), &mut script(verdicts));
    assert_eq!(first.owed, ["fails", "skipped"]);
    let owed: Vec<String> = first.owed.into_iter().chain(["gone".to_string()]).collect();
    let mut hands = Script::default();
    let second = walk(&bundle, &scope, Options { owed: &owed, ..Options::default() }, &mut hands);
    assert_eq!(hands.seen, ["conf()", "fails!()", "skipped!()", "fine()"]);
    assert!(second.owed.is_empty());
    let mut stopped = Script { stop_after: Some(1), ..script(&[("conf", &[Changed])]) };
    assert_eq!(walk(&bundle, &scope, Options::default(), &mut stopped).owed, ["fails", "skipped", "fine"]);
}
