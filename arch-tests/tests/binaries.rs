//! The files themselves: right machine, static, stripped, small enough, and they run.

use std::path::{Path, PathBuf};
use std::process::Command;

use vigo_arch_tests::{Image, cache, targets};

/// Bytes that a binary may have (`docs/arch-results.md` has what they have).
const CEILINGS: [(&str, u64); 3] = [("vigo-envoy", 4 << 20), ("vigosrv", 12 << 20), ("vigocli", 12 << 20)];
/// Built for every target before these tests run; the others where `ci/cross` was asked for them.
const ALWAYS: &str = "vigo-envoy";

#[test]
fn binaries_are_static_stripped_and_of_their_architecture() {
    for target in targets() {
        for (name, ceiling) in CEILINGS {
            let path = target.path(name);
            if name != ALWAYS && !path.is_file() {
                println!("not tested: {}: run `ci/cross {}`", path.display(), target.short());
                continue;
            }
            let image = Image::read(&path).unwrap();
            let shape = (image.machine, image.bits, image.little_endian);
            assert_eq!(shape, (target.machine, target.bits, target.little_endian), "{}", path.display());
            assert!(!image.has_interpreter && image.n_libraries == 0, "{} is not static: {image:?}", path.display());
            assert!(!image.has_symbols, "{} is not stripped", path.display());
            assert!(image.bytes <= ceiling, "{} has {} bytes of {ceiling}", path.display(), image.bytes);
        }
    }
}

/// Two builds in two directories are the same to the byte only then.
#[test]
fn no_binary_knows_where_it_was_built() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home).unwrap();
    let folders: Vec<String> = [checkout, cargo, cache()].iter().map(|path| path.display().to_string()).collect();
    for target in targets() {
        for path in CEILINGS.map(|(name, _)| target.path(name)).into_iter().filter(|path| path.is_file()) {
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            // What it does know, so that the search is one that finds.
            assert!(text.contains(&target.triple), "{}", path.display());
            for folder in &folders {
                assert!(!text.contains(folder), "{folder} is in {}", path.display());
            }
        }
    }
}

#[test]
fn binaries_run_and_say_for_what_they_were_built() {
    for target in targets() {
        for (name, _) in CEILINGS {
            let Some(path) = target.binary_if_built(name) else { continue };
            let output = Command::new(&path).arg("--version").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains(&target.triple), "{}: {text}", path.display());
        }
    }
}
