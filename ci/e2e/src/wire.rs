//! A network namespace joined to this host by a pair of virtual interfaces: what runs in it reaches servers here, and its
//! settings of the kernel are its own. Needs root.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::process::run;

/// The two ends. The namespace goes with its value.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Where this host is reached from inside.
    pub(crate) host: Ipv4Addr,
    /// Where the inside is reached.
    pub(crate) address: Ipv4Addr,
    /// Name of the namespace.
    pub(crate) namespace: String,
}

impl Wire {
    /// One for this process; each kind of host in it has another slot.
    pub(crate) fn new(slot: u8) -> Wire {
        let id = std::process::id();
        let [host, address] = [1, 2].map(|last| Ipv4Addr::new(10, 213 + slot, (id % 250) as u8, last));
        let namespace = format!("vigo{slot}-{id}");
        let (outside, inside) = (format!("vo{slot}{id}"), format!("vi{slot}{id}"));
        let ip = |words: &str| run(Command::new("ip").args(words.split(' ')));
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add {outside} type veth peer name {inside} netns {namespace}"));
        ip(&format!("addr add {host}/30 dev {outside}"));
        ip(&format!("link set {outside} up"));
        ip(&format!("-n {namespace} addr add {address}/30 dev {inside}"));
        ip(&format!("-n {namespace} link set {inside} up"));
        ip(&format!("-n {namespace} link set lo up"));
        Wire { host, address, namespace }
    }

    /// Its file.
    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.namespace)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}
