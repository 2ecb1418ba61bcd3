//! Whether a server's certificate chains to the pinned CA, without believing the host's clock.
//!
//! `notBefore` is not checked: a board that boots in 1970 must get through. `notAfter` is, at a time that the caller
//! gives (docs/THREATS.md, "Channel"), so a clock set back revives nothing. The name in the certificate decides nothing: the
//! server proves its identity key in `Hello`.

use std::fmt;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

use super::NetError;
use crate::time::Wall;

/// Certificates in a chain beside the leaf that are looked at.
const INTERMEDIATES_MAX: usize = 4;

/// The pinned CA certificates.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why a chain is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// No pinned CA signed it, or it is not a server certificate.
    UnknownCa(String),
    /// Its time is over at the time given.
    Expired {
        /// `notAfter` of the certificate that ended first.
        not_after: Wall,
    },
}

impl Pins {
    /// From PEM with one or more certificates. Empty text pins nothing: then no server is trusted yet.
    pub fn from_pem(pem: &str) -> Result<Pins, NetError> {
        let bad = |what: String| NetError::BadMaterial(format!("pinned CA: {what}"));
        let mut anchors = Vec::new();
        for item in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let der = item.map_err(|error| bad(error.to_string()))?;
            anchors.push(webpki::anchor_from_trusted_cert(&der).map_err(|error| bad(error.to_string()))?.to_owned());
        }
        Ok(Pins { anchors })
    }

    /// Checks a chain, leaf first, at `time`: the later of the build date and the highest authenticated server time.
    pub fn check(&self, chain: &[CertificateDer<'_>], time: Wall) -> Result<(), Untrusted> {
        let unknown = |error: Error| Untrusted::UnknownCa(error.to_string());
        let (leaf, rest) = chain.split_first().ok_or_else(|| Untrusted::UnknownCa("no certificate".into()))?;
        let leaf = EndEntityCert::try_from(leaf).map_err(unknown)?;
        let rest = &rest[..rest.len().min(INTERMEDIATES_MAX)];
        let mut at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(time.ms()));
        // webpki checks both ends of the validity. Where a certificate is not yet valid we ask again for the moment at
        // which it becomes so: the time only moves forward, so `notAfter` of the others is checked no less strictly. Each
        // round passes one certificate, so there are at most as many rounds as certificates.
        for _ in 0..=rest.len() + 1 {
            let verdict = leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &self.anchors,
                rest,
                at,
                KeyUsage::server_auth(),
                None,
                None,
            );
            match verdict {
                Ok(_) => return Ok(()),
                Err(Error::CertNotValidYet { not_before, .. }) => at = not_before,
                Err(Error::CertExpired { not_after, .. }) => {
                    let ms = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000);
                    return Err(Untrusted::Expired { not_after: Wall(ms) });
                }
                Err(error) => return Err(unknown(error)),
            }
        }
        Err(Untrusted::UnknownCa("validity periods do not overlap".into()))
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Untrusted::UnknownCa(why) => write!(f, "the server's certificate is not of the pinned CA: {why}"),
            Untrusted::Expired { not_after } => write!(f, "the server's certificate expired at {not_after}"),
        }
    }
}

impl std::error::Error for Untrusted {}
