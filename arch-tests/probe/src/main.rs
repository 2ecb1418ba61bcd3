//! A program that the tests run on each architecture: it writes what agents and servers write, reads what another architecture wrote,
//! and says what this one is like. Never shipped.

mod facts;
mod golden;
mod messages;

use std::io::Read;
use std::process::ExitCode;

fn main() -> ExitCode {
    let verb = std::env::args().nth(1).unwrap_or_default();
    let mut input = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut input) {
        eprintln!("vigo-probe: {error}");
        return ExitCode::FAILURE;
    }
    let result = match verb.as_str() {
        // What this architecture makes of the messages on standard input, and what it makes by itself.
        "write" => golden::write(&input),
        // Reads what another architecture wrote.
        "read" => golden::read(&input),
        // Word size, byte order, times after 2038.
        "facts" => facts::facts(),
        // Nothing: what a program costs under emulation. Standard input was open until now.
        "idle" => Ok(String::new()),
        _ => Err("there are: write, read, facts, idle".into()),
    };
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("vigo-probe: {why}");
            ExitCode::FAILURE
        }
    }
}
