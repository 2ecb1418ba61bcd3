//! `hardware`: processors, memory, disks, firmware, virtualisation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::memory::meminfo;
use super::{Facts, Root};

/// Block devices that are no disks.
const NOT_DISKS: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"];

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    let info = root.read("/proc/cpuinfo").ok_or("cannot read /proc/cpuinfo")?;
    let memory = meminfo(root)?;
    let dmi = |name: &str| root.line(&format!("/sys/class/dmi/id/{name}"));
    let model = root.line("/proc/device-tree/model").or_else(|| root.line("/sys/firmware/devicetree/base/model"));
    Ok(json!({
        "cpu": cpu(root, &info),
        "memory_bytes": memory("MemTotal"),
        "swap_bytes": memory("SwapTotal"),
        "disks": disks(root),
        "virtualization": virtualization(root, &info),
        "dmi": {
            "vendor": dmi("sys_vendor"),
            "product": dmi("product_name").or(model),
            "version": dmi("product_version"),
            "serial": dmi("product_serial"),
            "uuid": dmi("product_uuid"),
            "bios_vendor": dmi("bios_vendor"),
            "bios_version": dmi("bios_version"),
        },
    }))
}

fn cpu(root: &Root, info: &str) -> Value {
    let values = |key: &str| -> Vec<&str> {
        let of = |line: &'_ str| -> Option<(usize, usize)> {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| (name.len() + 1, value.len()))
        };
        info.lines().filter_map(|line| of(line).map(|(from, _)| line[from..].trim())).collect()
    };
    let first = |keys: &[&str]| keys.iter().find_map(|key| values(key).first().map(|text| text.to_string()));
    let sockets: BTreeSet<&str> = values("physical id").into_iter().collect();
    // A core is named by its socket and its number in it.
    let cores: BTreeSet<(&str, &str)> = values("physical id").into_iter().zip(values("core id")).collect();
    let count = |n: usize| (n > 0).then_some(n);
    json!({
        "model": first(&["model name", "cpu model", "Processor", "uarch", "system type", "Hardware"]),
        "vendor": first(&["vendor_id", "CPU implementer", "mvendorid"]),
        "count": count(values("processor").len()).or_else(|| present(root)),
        "cores": count(cores.len()),
        "sockets": count(sockets.len()),
    })
}

/// Processors by sysfs: `0-3,8`.
fn present(root: &Root) -> Option<usize> {
    let text = root.line("/sys/devices/system/cpu/present")?;
    let length = |part: &str| match part.split_once('-') {
        Some((low, high)) => Some(high.parse::<usize>().ok()?.checked_sub(low.parse().ok()?)? + 1),
        None => part.parse::<usize>().ok().map(|_| 1),
    };
    text.split(',').map(length).sum()
}

fn disks(root: &Root) -> Value {
    let names =
        root.list("/sys/block").into_iter().filter(|name| !NOT_DISKS.iter().any(|other| name.starts_with(other)));
    let disk = |name: String| {
        let at = |file: &str| format!("/sys/block/{name}/{file}");
        let flag = |file: &str| root.number(&at(file)).map(|n| n == 1);
        json!({
            // sysfs counts in sectors of 512 bytes, whatever the device does.
            "bytes": root.number(&at("size")).map(|sectors| sectors.saturating_mul(512)),
            "model": root.line(&at("device/model")),
            "rotational": flag("queue/rotational"),
            "removable": flag("removable"),
            "name": name,
        })
    };
    Value::Array(names.map(disk).collect())
}

/// The hypervisor below this host, or none.
fn virtualization(root: &Root, cpuinfo: &str) -> Option<&'static str> {
    let vendor = root.line("/sys/class/dmi/id/sys_vendor").unwrap_or_default().to_lowercase();
    let product = root.line("/sys/class/dmi/id/product_name").unwrap_or_default().to_lowercase();
    let marks = [
        ("qemu", "kvm"),
        ("kvm", "kvm"),
        ("amazon ec2", "kvm"),
        ("google", "kvm"),
        ("digitalocean", "kvm"),
        ("vmware", "vmware"),
        ("innotek", "virtualbox"),
        ("virtualbox", "virtualbox"),
        ("xen", "xen"),
        ("bochs", "kvm"),
        ("parallels", "parallels"),
    ];
    let known = marks.iter().find(|(mark, _)| vendor.contains(mark) || product.contains(mark)).map(|(_, name)| *name);
    let flagged =
        || cpuinfo.lines().any(|line| line.starts_with("flags") && line.split(' ').any(|flag| flag == "hypervisor"));
    if known.is_some() {
        known
    } else if vendor.starts_with("microsoft") && product.contains("virtual machine") {
        Some("hyperv")
    } else if root.line("/sys/hypervisor/type").as_deref() == Some("xen") {
        Some("xen")
    } else if flagged() {
        Some("other")
    } else {
        None
    }
}
