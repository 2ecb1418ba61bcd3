//! `network`: names, addresses, interfaces, gateways, name servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::{Facts, Root};

/// Interfaces that come and go with containers and guests.
const PASSING: [&str; 5] = ["veth", "tap", "vnet", "cali", "cni-"];
/// `RTF_UP | RTF_GATEWAY` of `/proc/net/route`.
const UP_AND_GATEWAY: u32 = 3;
/// `IFA_F_TEMPORARY`: privacy addresses, replaced daily.
const TEMPORARY: u32 = 1;

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    let hostname = root.line("/proc/sys/kernel/hostname").or_else(|| root.line("/etc/hostname"));
    let fqdn = hostname.as_deref().and_then(|name| fqdn(root, name));
    let domain = fqdn.as_deref().and_then(|name| name.split_once('.')).map(|(_, domain)| domain.to_string());
    let temporary = temporary_addresses(root);
    let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for found in root.addresses() {
        if !is_passing(&found.interface) && !temporary.contains(&found.address) {
            addresses.entry(found.interface).or_default().push(found.address);
        }
    }
    let outside = |address: &&IpAddr| !address.is_loopback() && !is_link_local(address);
    let all: Vec<IpAddr> = addresses.values().flatten().filter(outside).copied().collect();
    let gateway = gateway4(root);
    let on_gateway = gateway.as_ref().and_then(|(interface, _)| addresses.get(interface));
    let address = on_gateway.and_then(|list| list.iter().find(outside)).or(all.first());
    let interfaces = interfaces(root, &addresses);
    let macs: Vec<&Value> = interfaces.values().filter_map(|one| one.get("mac")).filter(|mac| !mac.is_null()).collect();
    Ok(json!({
        "hostname": hostname,
        "fqdn": fqdn,
        "domain": domain,
        "address": address,
        "addresses": all,
        "ipv4": all.iter().filter(|ip| ip.is_ipv4()).collect::<Vec<_>>(),
        "ipv6": all.iter().filter(|ip| ip.is_ipv6()).collect::<Vec<_>>(),
        "macs": macs,
        "gateway": gateway.as_ref().map(|(_, ip)| ip),
        "gateway_interface": gateway.as_ref().map(|(interface, _)| interface),
        "gateway6": gateway6(root),
        "nameservers": nameservers(root),
        "interfaces": interfaces,
    }))
}

fn is_passing(interface: &str) -> bool {
    PASSING.iter().any(|prefix| interface.starts_with(prefix))
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The full name of this host by `/etc/hosts`, as a resolver without DNS finds it: no network is asked.
fn fqdn(root: &Root, hostname: &str) -> Option<String> {
    if hostname.contains('.') {
        return Some(hostname.to_string());
    }
    let hosts = root.read("/etc/hosts").unwrap_or_default();
    let full = hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let names: Vec<&str> = line.split_whitespace().skip(1).collect();
        let is_us = names.contains(&hostname);
        let full = names.into_iter().find(|name| name.strip_prefix(hostname).is_some_and(|rest| rest.starts_with('.')));
        full.filter(|_| is_us)
    });
    full.map(str::to_string)
}

fn interfaces(root: &Root, addresses: &BTreeMap<String, Vec<IpAddr>>) -> BTreeMap<String, Value> {
    let names = root.list("/sys/class/net").into_iter().filter(|name| !is_passing(name));
    names
        .map(|name| {
            let at = |file: &str| format!("/sys/class/net/{name}/{file}");
            let mac = root.line(&at("address")).filter(|mac| mac != "00:00:00:00:00:00");
            let value = json!({
                "mac": mac,
                "mtu": root.number(&at("mtu")),
                "addresses": addresses.get(&name).cloned().unwrap_or_default(),
            });
            (name, value)
        })
        .collect()
}

/// The default route: lines of interface, destination, gateway, flags; addresses are hexadecimal in host byte order.
fn gateway4(root: &Root) -> Option<(String, Ipv4Addr)> {
    let routes = root.read("/proc/net/route")?;
    routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let is_default = number(1)? == 0 && number(7)? == 0 && number(3)? & UP_AND_GATEWAY == UP_AND_GATEWAY;
        // As the kernel prints it, the first byte of the address is the lowest of the number on every architecture's own
        // terms: its memory order.
        is_default.then(|| (fields[0].to_string(), Ipv4Addr::from(number(2).unwrap_or(0).to_ne_bytes())))
    })
}

fn gateway6(root: &Root) -> Option<Ipv6Addr> {
    let routes = root.read("/proc/net/ipv6_route")?;
    routes.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = *fields.first()? == "0".repeat(32) && *fields.get(1)? == "00";
        let gateway = u128::from_str_radix(fields.get(4)?, 16).ok().filter(|gateway| is_default && *gateway != 0)?;
        Some(Ipv6Addr::from(gateway))
    })
}

fn temporary_addresses(root: &Root) -> Vec<IpAddr> {
    let text = root.read("/proc/net/if_inet6").unwrap_or_default();
    let temporary = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(4)?, 16).ok()?;
        let address = u128::from_str_radix(fields.first()?, 16).ok()?;
        (flags & TEMPORARY != 0).then(|| IpAddr::from(Ipv6Addr::from(address)))
    };
    text.lines().filter_map(temporary).collect()
}

fn nameservers(root: &Root) -> Vec<String> {
    let text = root.read("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .filter_map(|line| Some(line.strip_prefix("nameserver")?.split_whitespace().next()?.to_string()))
        .collect()
}
