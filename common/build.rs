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
