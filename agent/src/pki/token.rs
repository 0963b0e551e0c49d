//! Join tokens: how a new host obtains its first certificate.
//!
//! ```text
//! operator:  mint(host, site) --------------------- token text, carried by hand --------> new host
//! new host:  connects with TLS to a running host, accepts it only if the chain ends in the root whose
//!            fingerprint the token carries, then sends the token and a signing request for a key it made itself
//! running:   redeem(token, request): once, in time, for that host only -----------------> certificate, roots, lists
//! ```
//! The token is worth a certificate, so its secret is stored only as a hash, counts once and for a short time, and
//! travels only over a connection that was checked against the fingerprint. The private key never travels.
//!
//! Not here: the connection's port and message framing (`admin`).

use super::authority::{Authority, Certified, Holder, Validity, certificate_fingerprint, unix_now};
use super::files::Material;
use super::{PkiError, store, template};
use quorum::id::{ClusterName, HostName, SiteName};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How long a token counts if nobody says otherwise.
pub const TOKEN_VALID_FOR: Duration = Duration::from_secs(3600);

const PREFIX: &str = "antipode-join-1";

/// What the operator carries to the new host. Shown once; printing it with `{:?}` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: [u8; 8],
    secret: [u8; 32],
    /// SHA-256 of the root that signed the running host's certificate, in hexadecimal.
    pub root_fingerprint: String,
    /// The cluster to join.
    pub cluster: ClusterName,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, secret) = (hex(&self.id), hex(&self.secret));
        // The cluster's name may have dots, so it comes last.
        write!(f, "{PREFIX}.{id}.{secret}.{}.{}", self.root_fingerprint, self.cluster)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &hex(&self.id)).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = PkiError;
    fn from_str(text: &str) -> Result<Self, PkiError> {
        let malformed = || PkiError::Token("it is not a join token");
        let parts: Vec<&str> = text.trim().splitn(5, '.').collect();
        let [prefix, id, secret, root, cluster] = parts.as_slice() else { return Err(malformed()) };
        let bytes = |text: &str| super::issued::bytes_from_hex(text).ok_or_else(malformed);
        if *prefix != PREFIX || bytes(root)?.len() != 32 {
            return Err(malformed());
        }
        Ok(Self {
            id: bytes(id)?.try_into().map_err(|_| malformed())?,
            secret: bytes(secret)?.try_into().map_err(|_| malformed())?,
            root_fingerprint: root.to_ascii_lowercase(),
            cluster: ClusterName::new(cluster).map_err(|_| malformed())?,
        })
    }
}

/// What the authority keeps of a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRecord {
    secret_sha256: String,
    host: HostName,
    site: SiteName,
    expires: i64,
    #[serde(default)]
    used: Option<i64>,
}

/// What a joining host gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinReply {
    /// Its certificate.
    pub certificate_pem: String,
    /// The roots to trust.
    pub authorities_pem: String,
    /// The revocation lists to honour.
    pub crl_pem: String,
}

impl Authority {
    /// Makes a token with which one host may fetch one certificate within `span`.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn mint_token(&self, host: &HostName, site: &SiteName, span: Duration) -> Result<JoinToken, PkiError> {
        let (root, _) = self.signing_root()?;
        let (id, secret) = (template::draw()?, template::draw()?);
        let record = TokenRecord {
            secret_sha256: hex(&Sha256::digest(secret)),
            host: host.clone(),
            site: site.clone(),
            expires: unix_now().saturating_add(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)),
            used: None,
        };
        store::make_directory(&self.tokens_directory())?;
        store::write_new(&self.token_file(id), &encode(&record)?)?;
        Ok(JoinToken { id, secret, root_fingerprint: root.fingerprint, cluster: self.cluster().clone() })
    }

    /// Turns a token and a signing request into a certificate. The token is used up before the certificate is made:
    /// if anything fails after that, a new token is needed.
    ///
    /// # Errors
    /// [`PkiError::Token`] says what is wrong with the token; [`PkiError::Certificate`] what is with the request,
    /// which leaves the token unused.
    pub fn redeem(&self, token: &JoinToken, request_pem: &str, validity: Validity) -> Result<Certified, PkiError> {
        let _lock = store::DirectoryLock::take(&self.directory)?;
        let path = self.token_file(token.id);
        if &token.cluster != self.cluster() || !path.exists() {
            return Err(PkiError::Token("it is unknown here"));
        }
        let mut record: TokenRecord =
            serde_json::from_slice(&store::read(&path)?).map_err(|e| store::damaged(&path, e))?;
        check(&record, token, unix_now())?;
        rcgen::CertificateSigningRequestParams::from_pem(request_pem)?;
        record.used = Some(unix_now());
        store::write_over(&path, &encode(&record)?)?;
        self.sign_locked(request_pem, &Holder::Host { host: record.host, site: record.site }, validity)
    }

    /// What to send back to the joining host with its certificate.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn join_reply(&self, certified: &Certified) -> Result<JoinReply, PkiError> {
        Ok(JoinReply {
            certificate_pem: certified.certificate_pem.clone(),
            authorities_pem: self.bundle_pem()?,
            crl_pem: self.crl_pem()?,
        })
    }

    fn token_file(&self, id: [u8; 8]) -> std::path::PathBuf {
        self.tokens_directory().join(format!("{}.json", hex(&id)))
    }
}

fn check(record: &TokenRecord, token: &JoinToken, now: i64) -> Result<(), PkiError> {
    // Hashes are compared: how long that takes tells nothing about the secret.
    if record.secret_sha256 != hex(&Sha256::digest(token.secret)) {
        return Err(PkiError::Token("its secret is wrong"));
    }
    if record.used.is_some() {
        return Err(PkiError::Token("it was used before"));
    }
    if now > record.expires {
        return Err(PkiError::Token("it has expired"));
    }
    Ok(())
}

/// Whether the bytes are the record of a token: what a fuzzer calls.
pub(super) fn is_record(bytes: &[u8]) -> bool {
    serde_json::from_slice::<TokenRecord>(bytes).is_ok()
}

fn encode(record: &TokenRecord) -> Result<Vec<u8>, PkiError> {
    serde_json::to_vec_pretty(record).map_err(|e| store::damaged(std::path::Path::new("token"), e))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A key and a signing request for it, made on the joining host: (key PEM, request PEM). The request names nobody; the
/// token does.
///
/// # Errors
/// [`PkiError::Certificate`].
pub fn make_request() -> Result<(String, String), PkiError> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok((key.serialize_pem(), params.serialize_request(&key)?.pem()?))
}

/// The joining host's TLS: accepts a server only if its chain ends in the root that the token names.
///
/// # Errors
/// [`PkiError::Token`] if no TLS configuration can be made.
pub fn bootstrap_client(token: &JoinToken) -> Result<rustls::ClientConfig, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = PinnedRoot { fingerprint: token.root_fingerprint.clone(), provider: Arc::clone(&provider) };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| PkiError::Token("TLS 1.3 is not available"))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned)).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// The running host's side of that connection: shows its certificate and the roots behind it, asks for none.
///
/// # Errors
/// [`PkiError::Token`] if certificate and key don't belong together.
pub fn bootstrap_server(own: Material) -> Result<rustls::ServerConfig, PkiError> {
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| PkiError::Token("TLS 1.3 is not available"))?;
    // The roots go along because the joining host has only a fingerprint.
    let chain = own.chain.into_iter().chain(own.roots).collect();
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, own.key)
        .map_err(|_| PkiError::Token("this host's own certificate and key don't belong together"))?;
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Trusts exactly one root, by its fingerprint; the server sends the root along with its own certificate.
#[derive(Debug)]
struct PinnedRoot {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedRoot {
    // So many parameters: the trait's signature.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|c| certificate_fingerprint(c) == self.fingerprint);
        let pinned = pinned.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_client_cert(end_entity, &[], now)?;
        // Only hosts hand out certificates; an operator's certificate of the same root may not.
        match super::identity::from_certificate(end_entity) {
            Ok(super::Identity::Host { .. }) => Ok(ServerCertVerified::assertion()),
            Ok(super::Identity::Operator { .. }) | Err(_) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::InvalidPurpose))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
