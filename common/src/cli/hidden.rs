//! A question whose answer is not shown.

use std::io::{self, BufRead, Write};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Puts the terminal back, whatever happens.
struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that is gone needs no care.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Asks on the terminal and reads a line without showing it. The line break is not part of the answer.
pub fn ask_hidden(prompt: &str) -> io::Result<Zeroizing<String>> {
    let old = tcgetattr(io::stdin())?;
    let mut quiet = old.clone();
    quiet.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet)?;
    let _restore = Restore(old);
    let mut err = io::stderr();
    write!(err, "{prompt}")?;
    err.flush()?;
    let mut line = Zeroizing::new(String::new());
    let read = io::stdin().lock().read_line(&mut line)?;
    writeln!(err)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.ends_with('\n') {
        line.pop();
    }
    Ok(line)
}
