//! Mutual TLS 1.3: who is let in, and as whom.
//!
//! Contract: a connection is set up only if both ends show a certificate that a trusted root signed, that is in force
//! and not revoked; then its identity is read and must be the expected one (`identify`). No session is ever resumed (a
//! resumed one would skip the certificate and the revocation lists), so there are no tickets and no early data.
//!
//! Host names are not checked by TLS: hosts are called by address, and the name that counts is a URI that rustls
//! doesn't know. Both directions use the same verifier, and the name is compared right after the handshake, before
//! anything is sent or read.
//!
//! A new configuration ([`Trust::load`]) replaces the old one as a whole; connections that are up are judged again by
//! it ([`Trust::judge_again`]) and stay up if they'd still be let in. Merely expired ones stay: dropping the lease of a
//! working host because somebody forgot to renew would cause the outage that this agent exists to prevent; expiry is
//! an alert, and it stops every new connection.

use super::drive::Connection;
use super::event::{CloseCode, Refusal};
use super::quic::{self, Kind};
use super::{TransportConfig, TransportError};
use crate::pki::PkiError;
use crate::pki::files::Material;
use crate::pki::identity::{self, Identity};
use quinn_proto::{ClientConfig, ServerConfig};
use quorum::id::{ClusterName, HostName};
use quorum::moment::Moment;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Everything that depends on certificate, key, roots and lists; replaced as a whole.
#[derive(Debug)]
pub(super) struct Trust {
    /// Counts the configurations of this process.
    pub(super) generation: u64,
    verifier: Arc<dyn ClientCertVerifier>,
    servers: [Arc<ServerConfig>; 2],
    clients: [ClientConfig; 2],
    own: OwnCertificate,
    /// What ties stateless resets to this host's key, so that a restarted agent is recognised.
    reset_seed: [u8; 32],
}

/// This host's own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// Seconds since 1970 up to which it counts.
    pub not_after: i64,
    /// Its serial number, in hexadecimal.
    pub serial: String,
}

impl Trust {
    /// Reads the files and builds all configurations from them.
    ///
    /// # Errors
    /// [`TransportError::Pki`], [`TransportError::Identity`] or [`TransportError::Tls`]; nothing is changed.
    pub(super) fn load(config: &TransportConfig, generation: u64) -> Result<Self, TransportError> {
        let material = config.identity.load()?;
        let own = own_certificate(&material.chain[0], config)?;
        let verifier = client_verifier(&material)?;
        let reset_seed =
            Sha256::new_with_prefix(b"antipode reset 1").chain_update(material.key.secret_der()).finalize();
        let build = |kind: Kind| -> Result<_, TransportError> {
            let server = server_tls(&material, &verifier, kind)?;
            let client = client_tls(&material, &verifier, kind)?;
            Ok((quic::server_config(server, kind, &config.limits)?, quic::client_config(client, kind, &config.limits)?))
        };
        let (beat, bulk) = (build(Kind::Beat)?, build(Kind::Bulk)?);
        Ok(Self {
            generation,
            verifier,
            servers: [Arc::new(beat.0), Arc::new(bulk.0)],
            clients: [beat.1, bulk.1],
            own,
            reset_seed: reset_seed.into(),
        })
    }

    pub(super) fn server(&self, kind: Kind) -> Arc<ServerConfig> {
        Arc::clone(&self.servers[kind as usize])
    }

    pub(super) fn client(&self, kind: Kind) -> ClientConfig {
        self.clients[kind as usize].clone()
    }

    pub(super) fn own(&self) -> &OwnCertificate {
        &self.own
    }

    pub(super) fn reset_seed(&self) -> &[u8; 32] {
        &self.reset_seed
    }

    /// Whether a connection that is up would still be let in, apart from having expired meanwhile.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn judge_again(&self, connection: &Connection) -> Result<(), Refusal> {
        let chain = certificates(connection).ok_or(Refusal::NoCertificate)?;
        let (leaf, rest) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let now = within_validity(leaf, UnixTime::now());
        self.verifier.verify_client_cert(leaf, rest, now).map(|_| ()).map_err(|e| refusal_of_tls(&e))
    }
}

fn own_certificate(der: &CertificateDer<'_>, config: &TransportConfig) -> Result<OwnCertificate, TransportError> {
    let identity = identity::from_certificate(der).map_err(PkiError::from)?;
    match &identity {
        Identity::Host { cluster, host, .. } if *cluster == config.cluster && *host == config.host => {}
        Identity::Host { .. } | Identity::Operator { .. } => return Err(TransportError::Identity(identity)),
    }
    let not_a_certificate = |_| PkiError::from(identity::IdentityError::NotACertificate);
    let (_, parsed) = X509Certificate::from_der(der).map_err(not_a_certificate)?;
    let serial = parsed.raw_serial().iter().map(|b| format!("{b:02x}")).collect();
    Ok(OwnCertificate { not_after: parsed.validity().not_after.timestamp(), serial })
}

/// The one who checks chains, dates, uses and revocation, for both directions.
///
/// # Errors
/// [`TransportError::Tls`] or [`TransportError::Lists`]: a root without its list would refuse everybody.
pub fn client_verifier(material: &Material) -> Result<Arc<dyn ClientCertVerifier>, TransportError> {
    let mut roots = RootCertStore::empty();
    for root in &material.roots {
        roots.add(root.clone())?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), quic::provider());
    if let Some(crls) = &material.crls {
        check_lists(&material.roots, crls)?;
        // Each root must have a list: a certificate whose state is unknown is refused (the default). Only the
        // holder's own certificate is looked up; roots aren't on lists.
        builder = builder.with_crls(crls.iter().cloned()).only_check_end_entity_revocation();
    }
    builder.build().map_err(|e| TransportError::Lists(e.to_string()))
}

/// Each root must have its list: otherwise every certificate of it would be refused, one handshake at a time.
fn check_lists(roots: &[CertificateDer<'_>], lists: &[CertificateRevocationListDer<'_>]) -> Result<(), TransportError> {
    let malformed = |what: &str| TransportError::Lists(format!("a {what} can't be read"));
    let mut issuers = Vec::new();
    for list in lists {
        let (_, list) = CertificateRevocationList::from_der(list).map_err(|_| malformed("revocation list"))?;
        issuers.push(list.issuer().as_raw().to_vec());
    }
    for root in roots {
        let (_, root) = X509Certificate::from_der(root).map_err(|_| malformed("root certificate"))?;
        if !issuers.iter().any(|issuer| issuer == root.subject().as_raw()) {
            return Err(TransportError::Lists(format!("there is none for the root {}", root.subject())));
        }
    }
    Ok(())
}

fn server_tls(
    material: &Material,
    verifier: &Arc<dyn ClientCertVerifier>,
    kind: Kind,
) -> Result<rustls::ServerConfig, TransportError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(quic::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::clone(verifier))
        .with_single_cert(material.chain.clone(), material.key.clone_key())?;
    tls.alpn_protocols = kind.protocols();
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    Ok(tls)
}

fn client_tls(
    material: &Material,
    verifier: &Arc<dyn ClientCertVerifier>,
    kind: Kind,
) -> Result<rustls::ClientConfig, TransportError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(quic::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SameForServers(Arc::clone(verifier))))
        .with_client_auth_cert(material.chain.clone(), material.key.clone_key())?;
    tls.alpn_protocols = kind.protocols();
    tls.resumption = rustls::client::Resumption::disabled();
    tls.enable_early_data = false;
    tls.enable_sni = false;
    Ok(tls)
}

/// Judges the called end as the calling end is judged. A host's certificate is good for both ends; one that is good
/// for calling only (an operator's) is refused when its identity is read.
#[derive(Debug)]
pub struct SameForServers(pub Arc<dyn ClientCertVerifier>);

impl ServerCertVerifier for SameForServers {
    // So many parameters: the trait's signature.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_client_cert(end_entity, intermediates, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn certificates(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok().map(|chain| *chain)
}

/// The name of the protocol that both ends agreed upon.
pub(super) fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<quinn_proto::crypto::rustls::HandshakeData>().ok()?.protocol
}

/// Whom the verified certificate at the other end names.
///
/// # Errors
/// With the code that tells the other end why it is refused.
pub(super) fn identify(connection: &Connection, cluster: &ClusterName) -> Result<HostName, CloseCode> {
    let chain = certificates(connection).ok_or(CloseCode::NotAHost)?;
    let leaf = chain.first().ok_or(CloseCode::NotAHost)?;
    match identity::from_certificate(leaf) {
        Ok(Identity::Host { cluster: theirs, .. }) if theirs != *cluster => Err(CloseCode::WrongCluster),
        Ok(Identity::Host { host, .. }) => Ok(host),
        Ok(Identity::Operator { .. }) | Err(_) => Err(CloseCode::NotAHost),
    }
}

/// `now`, or the nearest moment at which the certificate is in force.
fn within_validity(leaf: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return now };
    let seconds = |t: i64| u64::try_from(t).unwrap_or(0);
    let from = seconds(certificate.validity().not_before.timestamp());
    let until = seconds(certificate.validity().not_after.timestamp()).max(from);
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().clamp(from, until)))
}

/// The refusal behind an error of our own TLS.
fn refusal_of_tls(error: &rustls::Error) -> Refusal {
    match error {
        rustls::Error::InvalidCertificate(certificate) => {
            refusal_of_alert(u8::from(AlertDescription::from(certificate.clone())), certificate)
        }
        rustls::Error::NoCertificatesPresented => Refusal::NoCertificate,
        _ => Refusal::BadCertificate,
    }
}

fn refusal_of_alert(alert: u8, error: &CertificateError) -> Refusal {
    match error {
        CertificateError::Revoked => Refusal::Revoked,
        CertificateError::UnknownIssuer => Refusal::UnknownAuthority,
        _ => refusal_of_alert_number(alert).unwrap_or(Refusal::BadCertificate),
    }
}

/// TLS alerts that mean a refused certificate or handshake. They arrive as QUIC errors, from either end.
pub(super) fn refusal_of_alert_number(alert: u8) -> Option<Refusal> {
    match AlertDescription::from(alert) {
        AlertDescription::UnknownCA => Some(Refusal::UnknownAuthority),
        AlertDescription::CertificateExpired => Some(Refusal::Expired),
        AlertDescription::CertificateRevoked => Some(Refusal::Revoked),
        AlertDescription::CertificateRequired => Some(Refusal::NoCertificate),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => Some(Refusal::BadCertificate),
        AlertDescription::NoApplicationProtocol
        | AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::IllegalParameter
        | AlertDescription::DecodeError
        | AlertDescription::UnexpectedMessage
        | AlertDescription::MissingExtension => Some(Refusal::Protocol),
        _ => None,
    }
}

/// When a connection was judged, to be judged again if the configuration changed meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// By which configuration.
    pub(super) generation: u64,
    /// When.
    pub(super) at: Moment,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_about_certificates_are_told_apart() {
        let of = |d: AlertDescription| refusal_of_alert_number(u8::from(d));
        assert_eq!(of(AlertDescription::UnknownCA), Some(Refusal::UnknownAuthority));
        assert_eq!(of(AlertDescription::CertificateExpired), Some(Refusal::Expired));
        assert_eq!(of(AlertDescription::CertificateRevoked), Some(Refusal::Revoked));
        assert_eq!(of(AlertDescription::InternalError), None);
    }
}
