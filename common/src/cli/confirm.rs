//! Destructive verbs ask on a terminal; without one they need `--yes` and otherwise fail at once.

use std::io::{BufRead, IsTerminal, Write};

use super::{Common, Failure};

/// Asks before something that cannot be undone. `action` completes "This will ...".
pub fn confirm(common: &Common, action: &str) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    let terminal = stdin.is_terminal() && std::io::stderr().is_terminal();
    decide(common.yes(), terminal, action, &mut stdin.lock(), &mut std::io::stderr())
}

fn decide(
    yes: bool,
    terminal: bool,
    action: &str,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !terminal {
        return Err(Failure::usage(format!("this will {action}"))
            .hint("there is no terminal to ask on: repeat it with `--yes`"));
    }
    let failed = |error: std::io::Error| Failure::failed(format!("cannot ask on the terminal: {error}"));
    write!(out, "This will {action}. Go on? [y/N] ").and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(failed)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;

    fn check(yes: bool, terminal: bool, answer: &str) -> Result<(), Exit> {
        decide(yes, terminal, "revoke web-1", &mut answer.as_bytes(), &mut Vec::new()).map_err(|failure| failure.exit)
    }

    #[test]
    fn only_a_clear_yes_goes_on() {
        assert_eq!(check(true, false, ""), Ok(()));
        assert_eq!(check(false, true, "y\n"), Ok(()));
        assert_eq!(check(false, true, "YES\n"), Ok(()));
        assert_eq!(check(false, true, "\n"), Err(Exit::Failed));
        assert_eq!(check(false, true, ""), Err(Exit::Failed));
    }

    #[test]
    fn without_a_terminal_it_fails_at_once() {
        assert_eq!(check(false, false, "y\n"), Err(Exit::Usage));
    }
}
