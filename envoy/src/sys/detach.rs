//! A process that outlives its parent: in a session of its own, adopted by init.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts a script of the shell with arguments, and leaves it alone.
pub fn shell(script: &Path, args: &[&OsStr]) -> io::Result<()> {
    let mut command = Command::new("/bin/sh");
    // A shell between us and it: it ends at once, so that nobody has to wait for the script.
    command.args(["-c", "/bin/sh \"$0\" \"$@\" &"]).arg(script).args(args);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let leave = || nix::unistd::setsid().map(|_| ()).map_err(io::Error::from);
    // SAFETY: between fork and exec only setsid(2) is called.
    unsafe { command.pre_exec(leave) };
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("/bin/sh {status}"))) }
}
