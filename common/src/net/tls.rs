//! TLS settings of both sides: rustls with ring, TLS 1.3 only, no 0-RTT, resumption by tickets.
//!
//! The client side does not judge the certificate during the handshake: an agent may finish it with an unknown CA to read
//! a recovery statement (docs/THREATS.md, "Continuity"). What is checked in the handshake is that the peer holds the
//! key of the certificate that it shows; [`super::Pins`] judges the chain right after, before anything is said.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};

use super::{NetError, Tickets};
use crate::time::Wall;

/// What time TLS believes it is: set by the loop once per turn, read for the age of tickets.
#[derive(Debug, Default)]
pub struct TlsClock(Mutex<u64>);

impl TlsClock {
    /// Sets it. Before 1970 is 1970.
    pub fn set(&self, now: Wall) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = now.ms();
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// Server side: certificate chain and key as PEM, application protocols in order of preference (`h2`, `http/1.1`).
pub fn server_config(
    chain_pem: &str,
    key_pem: &str,
    protocols: &[&[u8]],
    tickets: Arc<Tickets>,
    clock: Arc<TlsClock>,
) -> Result<Arc<ServerConfig>, NetError> {
    let bad = |what: &str, why: String| NetError::BadMaterial(format!("{what}: {why}"));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| bad("server certificate", error.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| bad("server key", error.to_string()))?;
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| bad("server certificate and key", error.to_string()))?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.ticketer = tickets;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One is what one connection can use; the default of two costs a seal and 200 bytes more.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Client side: remembers the tickets of `sessions` servers (by name).
pub fn client_config(
    protocols: &[&[u8]],
    sessions: usize,
    clock: Arc<TlsClock>,
) -> Result<Arc<ClientConfig>, NetError> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_details(provider.clone(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Possession(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(sessions);
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Suites with SHA-256 come first: processors have instructions for it and not for SHA-384, and the key schedule of a handshake
/// hashes more than it encrypts.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.version() == &rustls::version::TLS13);
    provider.cipher_suites.sort_by_key(|suite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384);
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// Checks that the peer holds the key of its certificate, and nothing else.
#[derive(Debug)]
struct Possession(Arc<CryptoProvider>);

impl ServerCertVerifier for Possession {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
