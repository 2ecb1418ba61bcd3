//! Names and addresses of this host.

use std::net::IpAddr;
use std::time::Duration;

/// For an answer that takes microseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// An address of a network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceAddress {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
}

/// The name of this host, in lower case; `localhost` where it has none.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| crate::ids::is_hostname(name)).unwrap_or_else(|| "localhost".into()).to_lowercase()
}

/// Addresses of all interfaces that are up, sorted; empty where the system does not tell in time: under an emulator of another byte
/// order the C library reads the answer of the kernel for ever.
pub fn interface_addresses() -> Vec<InterfaceAddress> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let asked = std::thread::Builder::new().spawn(move || {
        // Nobody may be waiting any more.
        let _ = tell.send(ask_addresses());
    });
    match asked {
        Ok(_) => told.recv_timeout(PATIENCE).unwrap_or_default(),
        Err(_) => ask_addresses(),
    }
}

fn ask_addresses() -> Vec<InterfaceAddress> {
    let found = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let up = found.filter(|entry| entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP));
    let mut out: Vec<_> = up
        .filter_map(|entry| {
            let address = ip(entry.address.as_ref()?)?;
            let prefix = entry.netmask.as_ref().and_then(ip).map_or(0, mask_length);
            Some(InterfaceAddress { interface: entry.interface_name, address, prefix })
        })
        .collect();
    out.sort();
    out
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn mask_length(mask: IpAddr) -> u8 {
    match mask {
        IpAddr::V4(v4) => v4.to_bits().count_ones() as u8,
        IpAddr::V6(v6) => v6.to_bits().count_ones() as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_name_and_a_loopback() {
        assert!(crate::ids::is_hostname(&hostname()));
        let loopback = interface_addresses().into_iter().find(|found| found.address.is_loopback());
        // Without a loopback interface this test could not run: others bind to it.
        assert_eq!(loopback.map(|found| found.prefix), Some(8));
    }
}
