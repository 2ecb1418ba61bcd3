//! Puts the commit and the target into the binaries, for `--version`. Never fails: a tarball has no git.
//!
//! Only release builds look at git: a development build that followed every commit would rebuild the workspace each time,
//! and one that did not would name the wrong commit. Packagers set `VIGO_COMMIT`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=VIGO_COMMIT");
    let target = std::env::var("TARGET").unwrap_or_else(|_| "unknown".into());
    println!("cargo::rustc-env=VIGO_BUILD_TARGET={target}");
    println!("cargo::rustc-env=VIGO_BUILD_COMMIT={}", commit());
    println!("cargo::rustc-env=VIGO_BUILD_SECONDS={}", build_seconds());
}

/// A moment that no correct clock can show any more: of the commit, or of the source.
fn build_seconds() -> u64 {
    // 2026-11-01, when the source of this file was written.
    const FLOOR: u64 = 1_793_491_200;
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let release = std::env::var("PROFILE").as_deref() == Ok("release");
    let text = given.or_else(|| release.then(|| git(&["log", "-1", "--format=%ct"])).flatten());
    text.and_then(|text| text.parse().ok()).unwrap_or(FLOOR).max(FLOOR)
}

fn commit() -> String {
    if let Some(given) = std::env::var("VIGO_COMMIT").ok().filter(|text| !text.is_empty()) {
        return given;
    }
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return "development".into();
    }
    // HEAD changes with a checkout, its log with every commit on a branch.
    if let Some(dir) = git(&["rev-parse", "--absolute-git-dir"]) {
        for file in ["HEAD", "logs/HEAD"] {
            if std::path::Path::new(&dir).join(file).exists() {
                println!("cargo::rerun-if-changed={dir}/{file}");
            }
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (!text.is_empty()).then_some(text)
}
