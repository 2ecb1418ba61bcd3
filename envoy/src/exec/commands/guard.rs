//! Guards that need no process: `test -f X` and its like, `[ ... ]`, `true`, `false`. They mean what the shell would have
//! meant: paths of the host, relative ones below the working directory, links followed.

use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;
use std::os::unix::fs::FileTypeExt;

/// The answer, if the line is so simple that no shell is needed to find it.
pub fn answer(line: &str, directory: &Path) -> Option<bool> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    // Anything that a shell would look at twice is left to it.
    if !words.iter().all(|word| matches!(*word, "[" | "]" | "!") || is_plain(word)) {
        return None;
    }
    let test = match words[..] {
        ["true" | ":"] => return Some(true),
        ["false"] => return Some(false),
        ["test", ref test @ ..] => test,
        ["[", ref test @ .., "]"] => test,
        _ => return None,
    };
    match *test {
        [operator, path] => ask(operator, &directory.join(path)),
        ["!", operator, path] => ask(operator, &directory.join(path)).map(|found| !found),
        _ => None,
    }
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./+:@%,-".contains(&byte))
}

fn ask(operator: &str, path: &PathBuf) -> Option<bool> {
    let found = || path.metadata().ok();
    let access = |flags| nix::unistd::access(path, flags).is_ok();
    Some(match operator {
        "-e" => found().is_some(),
        "-f" => found().is_some_and(|meta| meta.is_file()),
        "-d" => found().is_some_and(|meta| meta.is_dir()),
        "-s" => found().is_some_and(|meta| meta.len() > 0),
        "-p" => found().is_some_and(|meta| meta.file_type().is_fifo()),
        "-S" => found().is_some_and(|meta| meta.file_type().is_socket()),
        "-L" | "-h" => path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()),
        "-r" => access(AccessFlags::R_OK),
        "-w" => access(AccessFlags::W_OK),
        "-x" => access(AccessFlags::X_OK),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn simple_guards_agree_with_the_shell() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        for operator in ["-e", "-f", "-d", "-s", "-p", "-S", "-L", "-h", "-r", "-w", "-x"] {
            for name in ["file", "empty", "dir", "dangling", "link", "missing", "./dir/../file"] {
                for line in [format!("test {operator} {name}"), format!("[ ! {operator} {name} ]")] {
                    let mut shell = std::process::Command::new("/bin/sh");
                    let expected = shell.args(["-c", &line]).current_dir(dir.path()).status().unwrap().success();
                    assert_eq!(answer(&line, dir.path()), Some(expected), "{line}");
                }
            }
        }
        assert_eq!((answer("true", dir.path()), answer("false", dir.path())), (Some(true), Some(false)));
    }

    #[test]
    fn everything_else_is_left_to_the_shell() {
        for line in [
            "",
            "test",
            "test x",
            "test -f",
            "test -f $HOME",
            "test -f 'a b'",
            "test -f a -a -f b",
            "[ -f a",
            "test -f ~/x",
            "test -f a*",
            "test -f a; true",
            "test -f a && true",
            "test -Z a",
            "which sh",
            "test x = y",
            "test -f a > b",
            "! test -f a",
            "test -f `x`",
            "test -f a\\b",
            "test -f [a]",
        ] {
            assert_eq!(answer(line, Path::new("/")), None, "{line}");
        }
    }
}
