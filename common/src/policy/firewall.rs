//! Rules of a firewall in words that mean the same to every tool: `allow 22/tcp from 10.0.0.0/8 on eth0`. How a tool is told
//! is the executor's.

use std::net::IpAddr;

/// Longest name of a network interface (Linux: 15).
const INTERFACE_BYTES_MAX: usize = 15;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It comes in.
    Allow,
    /// It is dropped.
    Deny,
    /// It is answered with a refusal.
    Reject,
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Everything.
    Any,
    /// Ping and its like, of both versions of IP.
    Icmp,
    /// Ports, each the first and last of a range, and `tcp` or `udp`.
    Ports(Vec<(u16, u16)>, &'static str),
}

/// One rule for what comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of it.
    pub action: Action,
    /// What it is.
    pub what: What,
    /// From where: an address and the bits of its network.
    pub from: Option<(IpAddr, u8)>,
    /// Through which interface.
    pub on: Option<String>,
}

impl Rule {
    /// From its text: `allow|deny|reject`, then `any`, `icmp` or ports such as `22/tcp`, `80,443/tcp`, `6000-6010/udp`, then
    /// `from ADDRESS[/BITS]` and `on INTERFACE` where they matter.
    pub fn parse(text: &str) -> Option<Rule> {
        let mut words = text.split_ascii_whitespace();
        let action = match words.next()? {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            "reject" => Action::Reject,
            _ => return None,
        };
        let what = match words.next()? {
            "any" => What::Any,
            "icmp" => What::Icmp,
            ports => parse_ports(ports)?,
        };
        let mut rule = Rule { action, what, from: None, on: None };
        while let Some(word) = words.next() {
            match (word, words.next()?) {
                ("from", network) if rule.from.is_none() => rule.from = Some(parse_network(network)?),
                ("on", name) if rule.on.is_none() && is_interface(name) => rule.on = Some(name.to_string()),
                _ => return None,
            }
        }
        Some(rule)
    }
}

fn parse_ports(text: &str) -> Option<What> {
    let (list, protocol) = text.split_once('/')?;
    let protocol = ["tcp", "udp"].into_iter().find(|known| *known == protocol)?;
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (port(first)?, port(last)?);
        (first <= last).then_some((first, last))
    };
    let ports: Option<Vec<(u16, u16)>> = list.split(',').map(range).collect();
    Some(What::Ports(ports?, protocol))
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((address, bits))
}

fn is_interface(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= INTERFACE_BYTES_MAX && name.bytes().all(plain) && !name.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_taken_apart() {
        let rule = Rule::parse("allow 22,6000-6010/tcp from 10.0.0.0/8 on eth0").unwrap();
        assert_eq!(rule.what, What::Ports(vec![(22, 22), (6000, 6010)], "tcp"));
        assert_eq!(rule.from, Some(("10.0.0.0".parse().unwrap(), 8)));
        assert_eq!(rule.on.as_deref(), Some("eth0"));
        assert_eq!(Rule::parse("deny any from ::1").unwrap().from, Some(("::1".parse().unwrap(), 128)));
        assert_eq!(Rule::parse("reject icmp").unwrap().what, What::Icmp);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "allow",
            "permit 22/tcp",
            "allow 22",
            "allow 22/sctp",
            "allow 0/tcp",
            "allow 65536/tcp",
            "allow +22/tcp",
            "allow 30-20/tcp",
            "allow any from 10.0.0.0/33",
            "allow any from host",
            "allow any from",
            "allow any on eth0; flush ruleset",
            "allow any on a/b",
            "allow any on averyverylongname",
            "allow any from ::1 from ::1",
            "allow any to ::1",
        ] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }
}
