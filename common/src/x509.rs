//! The few fields of a certificate (RFC 5280) that decisions need and the TLS library does not give: validity, names, issuer.
//!
//! Reads, never judges: signatures and chains are checked by `rustls-webpki`. DER is walked with every length checked;
//! anything that does not fit is `None`, never a panic.

use std::net::IpAddr;

use crate::time::Wall;

/// Fields of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertInfo {
    /// Serial number, big-endian.
    pub serial: Vec<u8>,
    /// Issuer, DER.
    pub issuer: Vec<u8>,
    /// Subject, DER.
    pub subject: Vec<u8>,
    /// Valid from.
    pub not_before: Wall,
    /// Valid until.
    pub not_after: Wall,
    /// Subject alternative names: DNS names in lower case, and addresses as text.
    pub names: Vec<String>,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17, subject alternative name.
const SAN_OID: &[u8] = &[0x55, 0x1d, 0x11];

impl CertInfo {
    /// From the DER of a certificate.
    pub fn parse(der: &[u8]) -> Option<CertInfo> {
        let mut certificate = Der(Der(der).take(SEQUENCE)?);
        let mut fields = Der(certificate.take(SEQUENCE)?);
        if fields.peek() == Some(VERSION) {
            fields.take(VERSION)?;
        }
        let serial = fields.take(INTEGER)?.to_vec();
        fields.take(SEQUENCE)?;
        let issuer = fields.take(SEQUENCE)?.to_vec();
        let mut validity = Der(fields.take(SEQUENCE)?);
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        let subject = fields.take(SEQUENCE)?.to_vec();
        fields.take(SEQUENCE)?;
        let mut names = Vec::new();
        // Unique identifiers (context 1 and 2) are history, but legal before the extensions.
        while let Some((tag, content)) = fields.any() {
            if tag == EXTENSIONS {
                let mut extensions = Der(Der(content).take(SEQUENCE)?);
                while !extensions.0.is_empty() {
                    let mut extension = Der(extensions.take(SEQUENCE)?);
                    if extension.take(OID)? == SAN_OID {
                        names = alternative_names(extension)?;
                    }
                }
            }
        }
        Some(CertInfo { serial, issuer, subject, not_before, not_after, names })
    }
}

/// What is left of some DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.peek()? == tag { self.any().map(|(_, content)| content) } else { None }
    }

    /// The next element.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, first) = (*self.0.first()?, *self.0.get(1)?);
        // Long forms: a certificate is below 2^24 bytes.
        let (len, header) = match first {
            0..=0x7f => (usize::from(first), 2),
            0x81..=0x83 => {
                let n = usize::from(first - 0x80);
                let bytes = self.0.get(2..2 + n)?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), 2 + n)
            }
            _ => return None,
        };
        let content = self.0.get(header..header.checked_add(len)?)?;
        self.0 = &self.0[header + len..];
        Some((tag, content))
    }
}

/// UTCTime (two-digit year, 1950 to 2049) or GeneralizedTime, both in the form of RFC 5280 section 4.1.2.5.
fn time(der: &mut Der) -> Option<Wall> {
    let (tag, bytes) = der.any()?;
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())?;
    let full = match (tag, text.len()) {
        (UTC_TIME, 13) => format!("{}{text}", if text[..2] < *"50" { "20" } else { "19" }),
        (GENERALIZED_TIME, 15) => text.to_string(),
        _ => return None,
    };
    let part = |from, to| full.get(from..to);
    let (date, clock) = ((part(0, 4)?, part(4, 6)?, part(6, 8)?), (part(8, 10)?, part(10, 12)?, part(12, 15)?));
    Wall::parse(&format!("{}-{}-{}T{}:{}:{}", date.0, date.1, date.2, clock.0, clock.1, clock.2)).ok()
}

fn alternative_names(mut extension: Der) -> Option<Vec<String>> {
    if extension.peek() != Some(OCTETS) {
        // The critical flag.
        extension.any()?;
    }
    let mut names = Der(Der(extension.take(OCTETS)?).take(SEQUENCE)?);
    let mut out = Vec::new();
    while let Some((tag, content)) = names.any() {
        match (tag, content.len()) {
            (DNS_NAME, _) => out.push(std::str::from_utf8(content).ok()?.to_lowercase()),
            (IP_ADDRESS, 4) => out.push(IpAddr::from(<[u8; 4]>::try_from(content).ok()?).to_string()),
            (IP_ADDRESS, 16) => out.push(IpAddr::from(<[u8; 16]>::try_from(content).ok()?).to_string()),
            _ => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> Vec<u8> {
        let names = vec!["A.example".to_string(), "10.0.0.1".into(), "::1".into()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn fields_are_read() {
        let info = CertInfo::parse(&certificate()).unwrap();
        assert_eq!(info.names, ["a.example", "10.0.0.1", "::1"]);
        assert_eq!((info.not_before, info.not_after), (Wall(0), Wall::parse("2100-02-03").unwrap()));
        assert_eq!(info.issuer, info.subject);
        assert!(!info.serial.is_empty());
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let good = certificate();
        for end in 0..good.len() {
            assert_eq!(CertInfo::parse(&good[..end]), None);
        }
        for at in 0..good.len() {
            for value in [0, 0x80, 0x83, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = CertInfo::parse(&bad);
            }
        }
    }
}
