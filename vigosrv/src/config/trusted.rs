//! Entries of `enrollment.trusted`: the part of their check that the table cannot express.

use std::net::IpAddr;

use common::glob::Glob;
use common::settings::Settings;
use common::time::Wall;
use common::yaml::{Doc, Error};

use crate::app::TrustedEntry;

/// The checked entries; what is wrong goes to `errors`.
pub(super) fn entries(settings: &Settings, docs: &[Doc], errors: &mut Vec<Error>) -> Vec<TrustedEntry> {
    let checked = settings.entries("enrollment.trusted").iter().filter_map(|entry| match check(entry, docs) {
        Ok(entry) => Some(entry),
        Err(error) => {
            errors.push(*error);
            None
        }
    });
    checked.collect()
}

fn check(entry: &Settings, docs: &[Doc]) -> Result<TrustedEntry, Box<Error>> {
    let error = |key: &str, what: String| entry.error(docs, key, format!("`{key}`{what}"));
    if !entry.is_given("match") {
        let missing = entry.error(docs, "match", "an entry without `match`");
        return Err(Box::new(missing.expected("a host name pattern").cure("write `match: \"*\"` to trust every name")));
    }
    let pattern = Glob::try_new(entry.text("match")).map_err(|bad| Box::new(error("match", format!(": {bad}"))))?;
    let cidr = match entry.text("cidr") {
        "" => None,
        text => Some(network(text).ok_or_else(|| {
            let wrong = error("cidr", format!(" is `{text}`"));
            Box::new(wrong.expected("a network such as 10.0.0.0/8 or fd00::/8, with nothing behind its prefix"))
        })?),
    };
    let until = match entry.text("until") {
        "" => None,
        text => {
            let moment = Wall::parse(text).map_err(|why| Box::new(error("until", format!(": {why}"))))?;
            // A day is meant with its whole length.
            Some(if text.len() == 10 { Wall(moment.0 + 86_399_999) } else { moment })
        }
    };
    let max = u32::try_from(entry.number("max")).ok().filter(|max| *max > 0);
    Ok(TrustedEntry { pattern, cidr, until, max, secrets: entry.is("secrets") })
}

/// A network in CIDR form. Host bits that are set are refused: they are nearly always a slip.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
    let (number, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32u8),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let host_bits = width.checked_sub(bits)?;
    let clean = host_bits == 128 && number == 0 || host_bits < 128 && number & ((1 << host_bits) - 1) == 0;
    clean.then_some((address, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_no_host_bits() {
        assert_eq!(network("10.0.0.0/8"), Some(("10.0.0.0".parse().unwrap(), 8)));
        assert!(network("0.0.0.0/0").is_some() && network("::/0").is_some() && network("::1/128").is_some());
        for bad in ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "x/8", "fd00::1/64", "10.0.0.0/-1"] {
            assert_eq!(network(bad), None, "{bad}");
        }
    }
}
