//! Programs of other architectures run like any other: the kernel is told which emulator starts them (`binfmt_misc`), so that also a
//! program that executes itself anew, or is executed in another root, works. Needs root once for each boot.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Target;

const MISC: &str = "/proc/sys/fs/binfmt_misc";
/// How often a process that just registered is believed over the error of another that did so at the same moment.
const ATTEMPTS_MAX: u32 = 3;

/// Sees to it that this machine runs the target's binaries.
pub fn make_runnable(target: &Target) -> Result<(), String> {
    let Some(emulator) = &target.emulator else { return Ok(()) };
    let mut why = String::new();
    for _ in 0..ATTEMPTS_MAX {
        if runs(target) {
            return Ok(());
        }
        why = register(target, emulator).err().unwrap_or_default();
    }
    if runs(target) { Ok(()) } else { Err(format!("its programs do not run here: {why}")) }
}

fn runs(target: &Target) -> bool {
    Command::new(target.path("vigo-envoy")).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn register(target: &Target, emulator: &str) -> Result<(), String> {
    let program = Path::new("/usr/bin").join(emulator);
    if !program.is_file() {
        return Err(format!("there is no {}: install Debian's qemu-user-static", program.display()));
    }
    let control = Path::new(MISC).join("register");
    if !control.exists() {
        let mounted = Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", MISC]).output();
        let mounted = mounted.map_err(|error| format!("mount: {error}"))?;
        if !mounted.status.success() {
            let said = String::from_utf8_lossy(&mounted.stderr).trim().to_string();
            return Err(format!("binfmt_misc cannot be mounted ({said}); run as root"));
        }
    }
    fs::write(&control, rule(target, &program)).map_err(|error| format!("{}: {error}", control.display()))
}

/// The rule as the kernel reads it: a magic number and a mask over the first bytes of an ELF header (binfmt-misc.rst of the kernel).
fn rule(target: &Target, program: &Path) -> String {
    let class = if target.bits == 64 { 2 } else { 1 };
    let data = if target.little_endian { 1 } else { 2 };
    // Also e_type: 2 is an executable, and 3, which differs in the last bit, one that may lie anywhere.
    let halves =
        [2, target.machine].map(|half| if target.little_endian { half.to_le_bytes() } else { half.to_be_bytes() });
    let mut magic = b"\x7fELF".to_vec();
    magic.extend([class, data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    magic.extend(halves.concat());
    let mut mask = vec![0xff; magic.len()];
    // The ABI, which Linux programs leave at 0 or set to 3.
    mask[7] = 0;
    mask[if target.little_endian { 16 } else { 17 }] = 0xfe;
    let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    // F: the emulator is opened now, so that it works in every root.
    format!(":vigo-{}:M::{}:{}:{}:F", target.short(), text(&magic), text(&mask), program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_what_the_kernel_wants() {
        let s390x = crate::targets().into_iter().find(|target| target.short() == "s390x").unwrap();
        let rule = rule(&s390x, Path::new("/usr/bin/qemu-s390x-static"));
        let magic = r"\x7f\x45\x4c\x46\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff";
        assert_eq!(rule, format!(":vigo-s390x:M::{magic}:{mask}:/usr/bin/qemu-s390x-static:F"));
    }
}
