//! The CA, and the leaf certificate that it issues: made at first start, the leaf again when its names or its age demand it.
//!
//! Certificates begin in 1970, because agents and browsers on boards without a clock must accept them. What the operator
//! supplied is checked and used, never replaced.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use common::limits;
use common::sys::{Owner, file};
use common::time::Wall;
use common::x509::CertInfo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use super::KeyError;
use crate::config::TlsPaths;

/// Life of the CA.
const CA_LIFE_MS: i64 = 20 * 365 * DAY_MS;
/// Life of a leaf; renewed at half of it.
const LEAF_LIFE_MS: i64 = 2 * 365 * DAY_MS;
const DAY_MS: i64 = 86_400_000;
/// Bytes of a PEM file: a chain of a few certificates.
const PEM_BYTES_MAX: u64 = 256 << 10;
/// Names of a certificate.
pub(super) const SANS_MAX: usize = 200;

/// The CA as it is on the disk.
pub(super) struct Ca {
    pub pem: String,
    pub der: CertificateDer<'static>,
    /// The key where it is one that we can issue with.
    key: KeyPair,
}

/// The leaf certificate that the listeners show.
#[derive(Debug)]
pub struct Leaf {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// When it ends.
    pub not_after: Wall,
    /// Issued by our CA, so that we renew it.
    pub ours: bool,
}

/// Makes a CA.
pub(super) fn make_ca(paths: &TlsPaths, now: Wall, owner: Owner) -> Result<(), KeyError> {
    let key = KeyPair::generate().map_err(issue)?;
    let mut params = ca_params(&key);
    let (year, month, date) = day(believable(now).0 + CA_LIFE_MS);
    params.not_after = rcgen::date_time_ymd(year, month, date);
    let certificate = params.self_signed(&key).map_err(issue)?;
    file::write_new(&paths.ca_key, key.serialize_pem().as_bytes(), 0o600, Some(owner))?;
    Ok(file::write_new(&paths.ca, certificate.pem().as_bytes(), 0o644, Some(owner))?)
}

/// Loads the CA and checks that its halves fit.
pub(super) fn load_ca(paths: &TlsPaths) -> Result<Ca, KeyError> {
    let pem = read_text(&paths.ca)?;
    let chain = certificates(&paths.ca, pem.as_bytes())?;
    fit(paths.ca.as_path(), &chain, paths.ca_key.as_path())?;
    let wrong = || KeyError::Pem { path: paths.ca_key.clone(), expected: "a private key (PKCS#8 PEM, ECDSA P-256)" };
    let key = KeyPair::from_pem(&read_text(&paths.ca_key)?).map_err(|_| wrong())?;
    let der = chain.into_iter().next().ok_or_else(wrong)?;
    Ok(Ca { pem, der, key })
}

/// Loads the leaf, issued or renewed first where that is ours to do. Returns whether it was. A key without a certificate
/// gets one: the caller has ruled out that one is lost.
pub(super) fn ready_leaf(
    paths: &TlsPaths,
    ca: &Ca,
    names: &BTreeSet<String>,
    now: Wall,
    owner: Owner,
) -> Result<(Leaf, bool), KeyError> {
    let missing = !paths.cert.exists();
    if missing && !paths.key.exists() {
        let key = KeyPair::generate().map_err(issue)?;
        file::write_new(&paths.key, key.serialize_pem().as_bytes(), 0o600, Some(owner))?;
    }
    if missing {
        write_leaf(paths, ca, names, now, owner)?;
        return Ok((load_leaf(paths, ca)?, true));
    }
    let leaf = load_leaf(paths, ca)?;
    if leaf.ours && is_due(&leaf, names, now) {
        write_leaf(paths, ca, names, now, owner)?;
        return Ok((load_leaf(paths, ca)?, true));
    }
    Ok((leaf, false))
}

/// Whether the leaf is ours to renew, and the names that it lacks.
pub(super) fn lacks(paths: &TlsPaths, ca: &Ca, names: &BTreeSet<String>) -> Result<(bool, Vec<String>), KeyError> {
    let leaf = load_leaf(paths, ca)?;
    let has = names_of(&leaf);
    Ok((leaf.ours, names.difference(&has).cloned().collect()))
}

fn names_of(leaf: &Leaf) -> BTreeSet<String> {
    let info = leaf.chain.first().and_then(|der| CertInfo::parse(der));
    info.map(|info| info.names.into_iter().collect()).unwrap_or_default()
}

/// Whether half of its life is over, or a name is missing. Names too many are kept: addresses come and go.
fn is_due(leaf: &Leaf, names: &BTreeSet<String>, now: Wall) -> bool {
    let has = names_of(leaf);
    leaf.not_after.0.saturating_sub(believable(now).0) < LEAF_LIFE_MS / 2 || !names.is_subset(&has)
}

fn load_leaf(paths: &TlsPaths, ca: &Ca) -> Result<Leaf, KeyError> {
    let chain = certificates(&paths.cert, read_text(&paths.cert)?.as_bytes())?;
    let key = fit(&paths.cert, &chain, &paths.key)?;
    let expected = "a certificate (X.509 PEM)";
    let wrong = || KeyError::Pem { path: paths.cert.clone(), expected };
    let first = chain.first().ok_or_else(wrong)?;
    let not_after = CertInfo::parse(first).ok_or_else(wrong)?.not_after;
    let ours = is_issued_by(first, &ca.der, not_after);
    Ok(Leaf { chain, key, not_after, ours })
}

/// Whether the signature of the leaf is by the CA.
fn is_issued_by(leaf: &CertificateDer, ca: &CertificateDer, not_after: Wall) -> bool {
    let (Ok(leaf), Ok(anchor)) = (webpki::EndEntityCert::try_from(leaf), webpki::anchor_from_trusted_cert(ca)) else {
        return false;
    };
    // At a moment when both are valid: this asks who signed, not when.
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(not_after.ms().saturating_sub(1_000)));
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    leaf.verify_for_usage(algorithms, &[anchor], &[], at, webpki::KeyUsage::server_auth(), None, None).is_ok()
}

fn write_leaf(paths: &TlsPaths, ca: &Ca, names: &BTreeSet<String>, now: Wall, owner: Owner) -> Result<(), KeyError> {
    // The key stays: replacing two files at once is not possible, and a crash in between would leave halves that do not fit.
    file::check_private(&paths.key)?;
    let wrong = |_| KeyError::Pem { path: paths.key.clone(), expected: "a private key (PKCS#8 PEM)" };
    let key = KeyPair::from_pem(&read_text(&paths.key)?).map_err(wrong)?;
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    // Never beyond the CA, whose end is always later than the half-life check of a leaf.
    let ca_end = CertInfo::parse(&ca.der).map_or(i64::MAX, |info| info.not_after.0);
    let (year, month, date) = day((believable(now).0 + LEAF_LIFE_MS).min(ca_end));
    params.not_after = rcgen::date_time_ymd(year, month, date);
    params.serial_number = Some(SerialNumber::from_slice(&serial(&key, now)));
    params.distinguished_name.push(DnType::CommonName, "Vigo server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    for name in names.iter().take(SANS_MAX) {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.clone().try_into().map_err(issue)?),
        });
    }
    let issuer = Issuer::new(ca_params(&ca.key), &ca.key);
    let leaf = params.signed_by(&key, &issuer).map_err(issue)?;
    if !is_issued_by(leaf.der(), &ca.der, Wall(believable(now).0 + DAY_MS)) {
        // A CA that we did not make has another name than `ca_params` gives.
        return Err(KeyError::Pem {
            path: paths.ca.clone(),
            expected: "the CA that vigosrv made; with one of your own, supply the leaf certificate and its key, too",
        });
    }
    Ok(file::write_atomic(&paths.cert, leaf.pem().as_bytes(), 0o644, Some(owner))?)
}

fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    // The name follows from the key, so that the issuer of a leaf can be made again without parsing the certificate.
    let name = common::crypto::sha256(&[key.public_key_raw()]).to_string();
    params.distinguished_name.push(DnType::CommonName, format!("Vigo CA {}", &name[..16]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Reads a private key and checks that it fits the first certificate of the chain.
fn fit(cert: &Path, chain: &[CertificateDer<'static>], key_path: &Path) -> Result<PrivateKeyDer<'static>, KeyError> {
    file::check_private(key_path)?;
    let wrong = || KeyError::Pem { path: key_path.into(), expected: "a private key (PEM)" };
    let key = PrivateKeyDer::from_pem_slice(read_text(key_path)?.as_bytes()).map_err(|_| wrong())?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| wrong())?;
    let unfit = || KeyError::Unfit { cert: cert.into(), key: key_path.into() };
    CertifiedKey::new(chain.to_vec(), signing).keys_match().map_err(|_| unfit())?;
    Ok(key)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KeyError> {
    let wrong = || KeyError::Pem { path: path.into(), expected: "a certificate (X.509 PEM)" };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| wrong())?;
    let readable = chain.first().is_some_and(|first| CertInfo::parse(first).is_some());
    if readable { Ok(chain) } else { Err(wrong()) }
}

fn read_text(path: &Path) -> Result<String, KeyError> {
    let bytes = file::read_bounded(path, PEM_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| KeyError::Pem { path: path.into(), expected: "PEM text" })
}

/// 16 bytes, positive, different for each certificate of a key: RFC 5280 section 4.1.2.2.
fn serial(key: &KeyPair, now: Wall) -> Vec<u8> {
    let mut bytes = common::crypto::sha256(&[key.public_key_raw(), &now.0.to_be_bytes()]).0[..16].to_vec();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes
}

/// A clock that shows less than the build is wrong, and certificates made by it would be over at once.
fn believable(now: Wall) -> Wall {
    now.max(Wall(common::cli::build_ms() as i64))
}

/// Year, month and day of a moment, for rcgen.
fn day(at_ms: i64) -> (i32, u8, u8) {
    let text = Wall(at_ms).to_string();
    let number =
        |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<u16>().ok()).unwrap_or(1);
    (i32::from(number(0..4)), number(5..7) as u8, number(8..10) as u8)
}

fn issue(error: rcgen::Error) -> KeyError {
    KeyError::Issue(error.to_string())
}

/// Names that the leaf must have: host name, `localhost`, loopback, every interface address, and what the operator adds.
pub(super) fn wanted_names(hostname: &str, extra: &[String], addresses: &[IpAddr]) -> BTreeSet<String> {
    // Link-local addresses name no host without an interface, and a certificate cannot say one.
    let link_local = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let fixed = ["localhost", "127.0.0.1", "::1"].into_iter().map(str::to_string);
    let operator = extra.iter().map(|name| name.parse::<IpAddr>().map_or(name.to_lowercase(), |ip| ip.to_string()));
    let mut names: BTreeSet<String> = fixed.chain(operator).collect();
    if hostname.len() <= limits::HOSTNAME_BYTES_MAX && common::ids::is_hostname(hostname) {
        names.insert(hostname.to_lowercase());
    }
    for address in addresses.iter().filter(|address| !link_local(address)) {
        if names.len() < SANS_MAX {
            names.insert(address.to_string());
        }
    }
    names
}
