//! The command blocks of the operations guide, run as they are printed there: a page that a person follows in a bad hour must not
//! be wrong. A block is a fence whose first line is ```` ```sh NAME ````; what differs between hosts is in shell variables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::binary;

/// The lines of a block of a page of this repository; panics where there is none of that name, or two.
pub fn block(page: &str, name: &str) -> String {
    let path = repository().join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let fence = format!("```sh {name}\n");
    let mut parts = text.split(&fence).skip(1);
    let body = parts.next().and_then(|rest| rest.split_once("```")).map(|(body, _)| body.to_owned());
    assert!(parts.next().is_none(), "{page} has two blocks `{name}`");
    body.unwrap_or_else(|| panic!("{page} has no block `{name}`"))
}

/// Runs a block with these variables set and the binaries of this build in `PATH`; panics where a command fails. A line that
/// begins with `systemctl` is not run but given to `systemctl`, because the processes are the test's; variables that a block
/// sets itself do not outlive it. Gives back what was printed.
pub fn run(page: &str, name: &str, variables: &[(&str, &str)], mut systemctl: impl FnMut(&str)) -> String {
    let (mut printed, mut segment) = (String::new(), String::new());
    for line in block(page, name).lines() {
        match line.strip_prefix("systemctl ") {
            Some(words) => {
                printed += &shell(&std::mem::take(&mut segment), variables);
                systemctl(words.split('#').next().unwrap_or_default().trim());
            }
            None => segment += &format!("{line}\n"),
        }
    }
    printed + &shell(&segment, variables)
}

fn shell(script: &str, variables: &[(&str, &str)]) -> String {
    if script.trim().is_empty() {
        return String::new();
    }
    let binaries = binary("vigocli").parent().map(Path::to_path_buf).unwrap_or_default();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", script]).env("PATH", path).envs(variables.iter().copied());
    let output = command.output().expect("there is a shell");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{script}\n{printed}\n{said}", output.status);
    printed
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}
