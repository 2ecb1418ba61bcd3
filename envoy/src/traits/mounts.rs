//! `mounts`: file systems with content of their own, by mount point. How full they are is not here: it changes all the time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Facts, Root};

/// Types whose size may be asked without a server that could be dead.
const LOCAL: [&str; 17] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "ntfs", "ntfs3", "jffs2", "ubifs", "squashfs",
    "erofs", "zfs", "bcachefs", "overlay",
];
/// Types that are kept besides.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "virtiofs"];
/// Below these, mounts belong to containers and packages, and come and go.
const PASSING: [&str; 5] = ["/var/lib/docker/", "/var/lib/containers/", "/run/", "/snap/", "/var/lib/kubelet/"];

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    let text =
        root.read("/proc/self/mounts").or_else(|| root.read("/proc/mounts")).ok_or("cannot read /proc/mounts")?;
    let mut out = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<String> = line.split(' ').map(unescape).collect();
        let [device, point, kind, options, ..] = fields.as_slice() else { continue };
        let (local, remote) = (LOCAL.contains(&kind.as_str()), REMOTE.contains(&kind.as_str()));
        if !(local || remote) || PASSING.iter().any(|prefix| point.starts_with(prefix)) {
            continue;
        }
        let options: Vec<&str> = options.split(',').collect();
        let value = json!({
            "device": device,
            "fstype": kind,
            "read_only": options.contains(&"ro"),
            "bytes": if local { root.file_system_bytes(point) } else { None },
            "options": options,
        });
        // A later mount on the same point hides the earlier one.
        out.insert(point.clone(), value);
    }
    Ok(json!(out))
}

/// Octal escapes of blanks and backslashes, as in fstab(5).
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}
