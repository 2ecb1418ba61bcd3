//! How long the server takes to compile a large policy, and to find the mapping of every host: `cargo run --release -p vigo-bench
//! --bin policy`. Budget: 1,000 configcrates and 10,000 mappings in 1 s.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::fmt::Write as _;
use std::time::Instant;

use vigosrv::policy::{MappingId, Tree, compile};

const CRATES: usize = 1_000;
const RESOURCES: usize = 10;
const MAPPINGS: usize = 10_000;
const CRATES_PER_MAPPING: usize = 5;
const HOSTS: usize = 100_000;
const ROUNDS: usize = 5;

fn main() {
    let tree = tree();
    let n_bytes: u64 = tree.files().map(|(_, file)| file.size).sum();
    println!(
        "{CRATES} configcrates of {RESOURCES} resources, {MAPPINGS} mappings of {CRATES_PER_MAPPING} configcrates, {n_bytes} bytes"
    );
    let mut compiled = None;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = cpu_seconds();
        compiled = Some(compile(&tree).unwrap_or_else(|errors| panic!("{}", common::yaml::render(&errors))));
        times.push(cpu_seconds() - start);
    }
    let compiled = compiled.unwrap_or_else(|| panic!("no round was run"));
    times.sort_by(f64::total_cmp);
    println!(
        "compile, median of {ROUNDS}, CPU: {:.3} s (from {:.3} to {:.3})",
        times[ROUNDS / 2],
        times[0],
        times[ROUNDS - 1]
    );

    let hosts: Vec<String> =
        (0..HOSTS).map(|n| format!("node{}.group-{:05}.example.com", n / MAPPINGS, n % MAPPINGS)).collect();
    let start = Instant::now();
    let n_found = hosts.iter().filter(|host| compiled.bundle_for(host).is_some()).count();
    println!("mapping of {HOSTS} hosts ({n_found} found): {:.3} s", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let n_bytes: usize = (0..MAPPINGS).map(|n| compiled.bundle(MappingId(n as u32)).1.len()).sum();
    println!("payloads of all mappings, {} KiB: {:.3} s", n_bytes >> 10, start.elapsed().as_secs_f64());
}

/// CPU time of this process: the machine may be busy with other things.
fn cpu_seconds() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    time.map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

fn tree() -> Tree {
    let mut tree = Tree::default();
    for n in 0..CRATES {
        let mut text = format!(
            "name: crate-{n}\nvars: {{port: {n}, owner: root, names: [a, b, c]}}\ndefaults: {{mode: \"0644\", owner: root}}\nresources:\n"
        );
        for r in 0..RESOURCES {
            let needs = if r > 0 { format!("    depends_on: [file-{}]\n", r - 1) } else { String::new() };
            write!(
                text,
                "  - name: file-{r}\n    type: file\n    target_path: /etc/crate-{n}/file-{r}.conf\n    content: |\n      # kept by Vigo\n      listen {{{{ vars.port }}}}\n      site {{{{ vars.site }}}} on {{{{ traits.network.hostname }}}}\n    when: \"traits.os.arch == 'x86_64' or vars.names | length > 2\"\n{needs}"
            )
            .unwrap_or_default();
        }
        tree.insert(format!("configcrates/group-{}/crate-{n}.vgo", n % 10), text);
    }
    tree.insert("envoys/common.vgo", "configcrates: [crate-0]\nvars: {site: default}\n");
    for file in 0..100 {
        let mut text = String::from("envoys:\n");
        for n in (file * MAPPINGS / 100)..((file + 1) * MAPPINGS / 100) {
            let crates: Vec<String> =
                (1..CRATES_PER_MAPPING).map(|k| format!("crate-{}", 1 + (n * 7 + k * 131) % (CRATES - 1))).collect();
            let crates = crates.join(", ");
            writeln!(text, "  - match: \"*.group-{n:05}.example.com\"\n    configcrates: [{crates}]\n    vars: {{site: site-{n}, port: {}}}", n % 60_000)
                .unwrap_or_default();
        }
        tree.insert(format!("envoys/region-{file:02}.vgo"), text);
    }
    tree
}
