//! TLS towards a BMC: by pinned certificate or by a CA of one's own. There is no way to turn checking off.
//!
//! BMCs mostly carry self-signed certificates, often expired or for another name. A pin (SHA-256 of the certificate)
//! is stronger than a CA there, and what it doesn't look at (name, dates) it needn't.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a certificate.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::from("sha256:");
        for byte in self.0 {
            let _ = write!(text, "{byte:02x}");
        }
        f.write_str(&text)
    }
}

impl std::str::FromStr for Pin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{text:?} isn't a pin: write sha256: and 64 hexadecimal digits (openssl x509 -fingerprint -sha256)")
        };
        let digits: String = text.trim_start_matches("sha256:").chars().filter(|c| *c != ':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(bad());
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Exactly these certificates; several while one is being replaced.
    Pins(BTreeSet<Pin>),
    /// Certificates that this CA signed, for the name or address in the URL.
    Ca(PathBuf),
}

/// The client's TLS configuration.
///
/// # Errors
/// What is wrong with the CA file.
pub fn client_config(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Pins(pins) => Arc::new(PinVerifier { pins: pins.clone(), provider: provider.clone() }),
        Trust::Ca(path) => {
            let unusable =
                |error: &dyn std::fmt::Display| format!("the CA file {} can't be used: {error}", path.display());
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
                let certificate = certificate.map_err(|error| unusable(&error))?;
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
                .build()
                .map_err(|error| unusable(&error))?
        }
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS can't be set up: {error}"))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // No resumption: each connection shows its certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Shown when a certificate isn't one of the pinned ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pinned {expected}, shown {shown}")]
pub struct OtherCertificate {
    expected: String,
    shown: Pin,
}

#[derive(Debug)]
struct PinVerifier {
    pins: BTreeSet<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    // Five: the trait's signature.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Pin::of(end_entity);
        if self.pins.contains(&shown) {
            return Ok(ServerCertVerified::assertion());
        }
        let expected = self.pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        Err(CertificateError::Other(OtherError(Arc::new(OtherCertificate { expected, shown }))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_openssl_writes_it() {
        let pin = Pin::of(b"certificate");
        let colons = pin.to_string().trim_start_matches("sha256:").to_uppercase();
        let colons: Vec<&str> = colons.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        assert_eq!(colons.join(":").parse(), Ok(pin));
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for text in ["", "sha256:00", "sha1:00", &"z".repeat(64)] {
            assert!(text.parse::<Pin>().is_err(), "{text:?}");
        }
    }
}
