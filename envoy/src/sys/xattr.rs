//! Extended attributes (ACLs, capabilities, labels) carried from a file to its replacement.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of all attribute names of one file that are carried.
const NAMES_BYTES_MAX: usize = 64 << 10;
/// Bytes of one attribute (`XATTR_SIZE_MAX` of Linux).
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Copies every attribute that may be copied. A file system that has none, and attributes that only the kernel or a more
/// privileged process may set, are passed over; any other failure is an error.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // Nearly always nothing: no buffer until there is something to put in it.
    let size = list(from, &mut [])?;
    if size == 0 {
        return Ok(());
    }
    let mut names = vec![0; size.min(NAMES_BYTES_MAX)];
    let used = list(from, &mut names)?;
    let mut value = Vec::new();
    for name in names[..used].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        value.resize(VALUE_BYTES_MAX, 0);
        // SAFETY: the name is NUL-terminated, and the kernel writes at most `value.len()` bytes into a live buffer.
        let n = unsafe { libc::fgetxattr(from.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        let Ok(n) = usize::try_from(n) else { continue };
        // SAFETY: the name is NUL-terminated, and the kernel reads `n` bytes that it wrote just now.
        let set = unsafe { libc::fsetxattr(to.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), n, 0) };
        if set != 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EPERM | libc::EACCES | libc::ENOTSUP) => {}
                _ => return Err(error),
            }
        }
    }
    Ok(())
}

/// Whether a file has no attributes at all.
pub fn has_none(file: BorrowedFd<'_>) -> io::Result<bool> {
    list(file, &mut []).map(|size| size == 0)
}

/// Bytes of the names, which are put into the buffer if it is not empty.
fn list(file: BorrowedFd<'_>, names: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `names.len()` bytes into a live buffer; with length 0 it writes nothing.
    let n = unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    match usize::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOTSUP) => Ok(0),
            error => Err(error),
        },
    }
}
