//! Every target over its corpus, then over mutations of it for a while. `VIGO_FUZZ_SECONDS` is the time for each target (default 3),
//! `VIGO_FUZZ_SEED` the first seed (default 1). An input that breaks something is written below the temporary folder; put it into the corpus,
//! under a name that says what it broke.
#![allow(
    clippy::disallowed_methods,
    reason = "a time budget is what this test is about; no decision of a body depends on it"
)]

use std::time::{Duration, Instant};

use vigo_fuzz_smoke::{Mutator, TARGETS, Target, run};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"))
}

/// Corpus first, whole; then mutations until the time is up.
fn check(name: &str) {
    let target = target(name);
    let corpus = target.corpus();
    assert!(corpus.len() >= 3, "ci/fuzz/corpus/{name} has {} inputs, expected at least 3", corpus.len());
    for (file, input) in &corpus {
        if let Err(text) = run(target, input) {
            panic!("ci/fuzz/corpus/{name}/{file}: {text}");
        }
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let (seed, budget) = (number("VIGO_FUZZ_SEED", 1), Duration::from_secs(number("VIGO_FUZZ_SECONDS", 3)));
    let mut mutator = Mutator::new(&inputs, seed);
    let (start, mut n) = (Instant::now(), 0u64);
    while start.elapsed() < budget {
        for _ in 0..64 {
            let input = mutator.next_input();
            n += 1;
            if let Err(text) = run(target, &input) {
                let path = std::env::temp_dir().join(format!("vigo-fuzz-{name}-{seed}-{n}"));
                std::fs::write(&path, &input).unwrap();
                panic!("{name}, seed {seed}, input {n}: {text}\nthe input is in {}", path.display());
            }
        }
    }
    println!("{name}: {} corpus inputs and {n} mutations, seed {seed}", inputs.len());
}

#[test]
fn assignments_from_anybody_are_refused_or_round_trip() {
    check("assignment");
}

#[test]
fn bundles_are_refused_or_round_trip() {
    check("bundle");
}

#[test]
fn messages_are_refused_or_round_trip() {
    check("message");
}

#[test]
fn stored_queue_records_are_refused_or_round_trip() {
    check("queue_record");
}

#[test]
fn reported_records_are_refused_or_round_trip() {
    check("record");
}

#[test]
fn server_yaml_is_accepted_or_complained_about() {
    check("server_yaml");
}

#[test]
fn frames_are_cut_the_same_way_however_they_arrive() {
    check("frames");
}

#[test]
fn configcrates_compile_or_are_complained_about() {
    check("vgo");
}

#[test]
fn whole_policies_compile_or_are_complained_about() {
    check("policy_tree");
}

#[test]
fn every_target_has_a_test_a_corpus_and_a_cargo_fuzz_file() {
    let tests = include_str!("smoke.rs");
    let targets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../targets");
    let manifest = std::fs::read_to_string(targets.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        assert!(tests.contains(&format!("check(\"{}\")", target.name)), "{} has no test", target.name);
        assert!(target.folder().is_dir(), "{} has no corpus", target.name);
        let file = format!("fuzz_targets/{}.rs", target.name);
        assert!(targets.join(&file).is_file() && manifest.contains(&file), "{} is no cargo-fuzz target", target.name);
    }
}

#[test]
fn a_body_that_panics_is_caught() {
    let target = Target { name: "planted", body: |input| assert!(!input.starts_with(b"x"), "planted") };
    assert_eq!(run(&target, b"y"), Ok(()));
    assert_eq!(run(&target, b"x"), Err("planted".to_string()));
}
