//! Everything that is written on disk or on the wire, written on every architecture and read on every other.
//!
//! `arch-tests/golden/messages.txt` has each message of the protocol once with every field set, made from the `.proto` itself;
//! `UPDATE_GOLDEN=1 cargo test -p vigo-arch-tests --test golden` writes it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::ids::hex;
use vigo_arch_tests::{PROBE, targets};

mod sample;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/messages.txt")
}

/// Runs the program of an architecture with this on its standard input.
fn ask(program: &Path, verb: &str, input: &str) -> String {
    let mut command = Command::new(program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {verb}: {said}", program.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_samples_have_every_message_with_every_field() {
    let fresh: String = sample::messages().iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(committed(), &fresh).unwrap();
    }
    let found = std::fs::read_to_string(committed()).unwrap_or_default();
    assert_eq!(found, fresh, "the protocol changed: UPDATE_GOLDEN=1 cargo test -p vigo-arch-tests --test golden");
}

#[test]
fn what_one_architecture_writes_every_other_reads() {
    let messages = std::fs::read_to_string(committed()).unwrap();
    let programs: BTreeMap<String, PathBuf> =
        targets().into_iter().map(|target| (target.triple.clone(), target.binary(PROBE))).collect();
    let written: BTreeMap<&String, String> =
        programs.iter().map(|(triple, program)| (triple, ask(program, "write", &messages))).collect();
    let own = ask(&vigo_e2e::binary(PROBE), "write", &messages);
    for (writer, text) in &written {
        assert!(text.lines().count() > messages.lines().count());
        assert_eq!(text, &own, "{writer} writes other bytes than this host");
        for (reader, program) in &programs {
            let n = ask(program, "read", text);
            assert_eq!(n.trim(), text.lines().count().to_string(), "{reader} reads what {writer} wrote");
        }
    }
    // The exchange would notice: one bit of one number.
    let spoiled = own.replacen("message/RunCounts 08", "message/RunCounts 10", 1);
    assert_ne!(spoiled, own);
    let reading = Command::new(vigo_e2e::binary(PROBE)).arg("read").stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut reading = reading.unwrap();
    reading.stdin.take().unwrap().write_all(spoiled.as_bytes()).unwrap();
    assert!(!reading.wait().unwrap().success());
}

#[test]
fn architectures_are_what_the_list_says_and_keep_times_after_2038() {
    for target in targets() {
        let text = ask(&target.binary(PROBE), "facts", "");
        let facts: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        assert_eq!(facts["bits"], target.bits.to_string(), "{}", target.triple);
        assert_eq!(facts["little_endian"], target.little_endian.to_string(), "{}", target.triple);
        assert_eq!(facts["file_time_s"], "2208988800", "{}: the time of a file in 2040", target.triple);
        assert_eq!(facts["late"], "2040-01-01T00:00:00.000Z", "{}", target.triple);
        assert_eq!(facts["late_again"], "2208988800000", "{}", target.triple);
    }
}
