//! Prints `docs/arch-results.md`: sizes and memory of the binaries of every target, measured now, and the results of the scenarios out of
//! the log of a test run (`ci/arch-results` makes both).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use vigo_arch_tests::{PROBE, Target, native_server, targets};
use vigo_e2e::{Envoy, KEPT, MAPPINGS, Server, mappings, pause};

/// Until nothing moves any more.
const SETTLED: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Some(log) = std::env::args().nth(1).and_then(|path| fs::read_to_string(path).ok()) else {
        eprintln!("vigo-arch-results: give the log of `cargo nextest run -p vigo-arch-tests` with every status in it");
        return ExitCode::from(64);
    };
    println!("# Architectures: results\n\nMade by `ci/arch-results`; not edited by hand.\n");
    println!("## Sizes and memory\n");
    println!(
        "MiB. Memory is that of an agent with one resource and a held connection: resident when idle, and at its peak. Under emulation"
    );
    println!(
        "it is the difference to a program that does nothing under the same emulator, which is mostly translated code: what an agent"
    );
    println!("takes there is told by the whole machines below. x86_64 is native.\n");
    println!("| target | vigo-envoy | vigosrv | vigocli | idle | peak |\n|---|---|---|---|---|---|");
    for target in targets() {
        let (idle, peak) = memory(&target);
        let sizes = ["vigo-envoy", "vigosrv", "vigocli"].map(|name| size(&target.path(name)));
        println!("| {} | {} | {idle:.1} | {peak:.1} |", target.triple, sizes.join(" | "));
    }
    println!(
        "\n## Scenarios\n\nSeconds that each took, on two busy cores; the machine runs a whole emulated kernel.\n"
    );
    let columns: Vec<String> = targets().iter().map(|target| target.short().to_string()).collect();
    println!("| scenario | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
    for (name, cells) in scenarios(&log) {
        let cells: Vec<&str> =
            columns.iter().map(|column| cells.get(column.as_str()).map_or("", String::as_str)).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    let machines: Vec<&str> = log.lines().map(str::trim).filter(|line| line.starts_with("on a machine")).collect();
    if !machines.is_empty() {
        println!("\n## Whole machines\n");
        machines.iter().for_each(|line| println!("- {line}"));
    }
    ExitCode::SUCCESS
}

fn size(path: &Path) -> String {
    path.metadata().map_or("not built".into(), |meta| format!("{:.2}", meta.len() as f64 / f64::from(1 << 20)))
}

/// Resident and most resident memory of a process, MiB.
fn resident(process: u32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Of an agent, idle and at its peak, without what the emulator takes.
fn memory(target: &Target) -> (f64, f64) {
    let base = match &target.emulator {
        None => 0.0,
        Some(_) => {
            let mut command = Command::new(target.binary(PROBE));
            let mut child = command.arg("idle").stdin(Stdio::piped()).spawn().expect("the probe");
            pause(SETTLED / 5);
            let (base, _) = resident(child.id());
            drop(child.stdin.take());
            let _ = child.wait();
            base
        }
    };
    let dir = tempfile::tempdir().expect("a folder");
    let policy = [KEPT, (MAPPINGS, &*mappings(&[("*", "one")]))];
    let mut server = Server::with_program(dir.path(), "checkin: {interval: 1s}", &policy, native_server());
    server.start();
    let mut envoy = Envoy::with_program(&dir.path().join("envoy"), target.binary("vigo-envoy"));
    envoy.enroll(&server, "memory.example");
    envoy.start();
    envoy.keeps("one");
    pause(SETTLED);
    let (idle, peak) = resident(envoy.id());
    envoy.stop();
    (idle - base, peak - base)
}

/// Names of scenarios, and for each target what became of it.
fn scenarios(log: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for line in log.lines().map(str::trim) {
        let Some((verdict, rest)) = line.split_once(" [") else { continue };
        let Some((seconds, rest)) = rest.split_once(']') else { continue };
        let Some((target, name)) = rest.rsplit_once(' ').and_then(|(_, test)| test.split_once("::")) else { continue };
        let target = if target == "riscv64" { "riscv64gc" } else { target };
        // Tests that are of no target.
        if !targets().iter().any(|known| known.short() == target) {
            continue;
        }
        let cell = match verdict {
            "PASS" => seconds.trim().trim_end_matches('s').to_string(),
            "FAIL" => "failed".into(),
            _ => continue,
        };
        found.entry(name.replace('_', " ")).or_default().insert(target.to_string(), cell);
    }
    found
}
