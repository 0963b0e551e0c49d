//! Mutual TLS of the admin API: who is at the other end, and whether that still holds.
//!
//! Both ends are judged as agents judge each other (`driver::transport`): a chain to a trusted root, in force, not
//! revoked; no session is resumed. A host answers, a person or a host asks; a person's certificate carries the role.

use super::roles::Caller;
use crate::driver::transport::{SameForServers, client_verifier};
use crate::pki::files::IdentityFiles;
use crate::pki::identity::{self, Identity, Role};
use quorum::id::ClusterName;
use quorum::ledger::{Person, PersonKey};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Where an agent's admin API is reached unless told otherwise.
pub const PORT: u16 = 7601;

const ALPN: &[u8] = b"antipode-admin/1";

/// How long connecting to one address may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the serving end needs, made anew whenever a file changes.
pub(super) struct Trust {
    pub(super) server: Arc<rustls::ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    cluster: ClusterName,
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Trust {
    /// Reads the files.
    pub(super) fn load(files: &IdentityFiles, cluster: &ClusterName) -> io::Result<Self> {
        let material = files.load().map_err(wrong)?;
        let verifier = client_verifier(&material).map_err(wrong)?;
        let mut server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(material.chain, material.key)
            .map_err(wrong)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self { server: Arc::new(server), verifier, cluster: cluster.clone() })
    }

    /// Who is at the other end, if they would be let in now.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<Caller, String> {
        let (leaf, rest) = chain.split_first().ok_or("no certificate was shown")?;
        self.verifier.verify_client_cert(leaf, rest, UnixTime::now()).map_err(|error| error.to_string())?;
        match identity::from_certificate(leaf).map_err(|error| error.to_string())? {
            Identity::Operator { cluster, name, role, key_fingerprint } if cluster == self.cluster => {
                let key = PersonKey::Certificate(key_fingerprint.0);
                Ok(Caller { person: Person { name: name.to_string(), key }, role })
            }
            // Hosts may look at each other: their tools show the cluster from every side.
            Identity::Host { cluster, host, .. } if cluster == self.cluster => {
                let key = PersonKey::Certificate(fingerprint(leaf));
                Ok(Caller { person: Person { name: format!("host {host}"), key }, role: Role::Viewer })
            }
            other => Err(format!("the certificate is of {other}, not of this cluster")),
        }
    }
}

fn fingerprint(leaf: &CertificateDer<'_>) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(leaf).into()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Connects to the admin API of the agent `host[:port]` with the identity in `files`.
///
/// # Errors
/// What is wrong with the files, the name, the network, or with who answers: a host of the same cluster, and of that
/// name unless an address was given.
pub async fn connect(host: &str, files: &IdentityFiles) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let material = files.load().map_err(wrong)?;
    let own = identity::from_certificate(&material.chain[0]).map_err(wrong)?;
    let verifier = client_verifier(&material).map_err(wrong)?;
    let mut client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SameForServers(verifier)))
        .with_client_auth_cert(material.chain, material.key)
        .map_err(wrong)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;
    let (name, port) = split(host);
    let stream = dial(&name, port).await?;
    let server = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let tls = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(server, stream).await?;
    let leaf =
        tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).ok_or_else(|| wrong("no certificate"))?;
    match identity::from_certificate(leaf).map_err(wrong)? {
        Identity::Host { cluster, .. } if cluster != *own.cluster() => {
            Err(wrong(format!("the host belongs to cluster {cluster}, the certificate here to {}", own.cluster())))
        }
        Identity::Host { host, .. } if is_meant(&name, host.as_str()) => Ok(tls),
        other => Err(wrong(format!("{name} was asked for, and the certificate there is of {other}"))),
    }
}

/// An address means whoever is there; a name means that host, with or without a domain behind it.
fn is_meant(asked: &str, host: &str) -> bool {
    asked.parse::<IpAddr>().is_ok()
        || asked == host
        || asked.strip_prefix(host).is_some_and(|rest| rest.starts_with('.'))
}

/// A name or address, and a port if there is one; an IPv6 address with a port is in brackets.
fn split(host: &str) -> (String, u16) {
    if let Some((name, port)) = host.rsplit_once(':')
        && let Ok(port) = port.parse()
        && (!name.contains(':') || name.starts_with('['))
    {
        return (name.trim_matches(['[', ']']).to_owned(), port);
    }
    (host.trim_matches(['[', ']']).to_owned(), PORT)
}

async fn dial(name: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address"));
    for address in tokio::net::lookup_host((name, port)).await? {
        match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_with_or_without_port_and_domain() {
        assert_eq!(split("os-1"), ("os-1".into(), PORT));
        assert_eq!(split("os-1:9"), ("os-1".into(), 9));
        assert_eq!(split("[::1]:9"), ("::1".into(), 9));
        assert_eq!(split("::1"), ("::1".into(), PORT));
        assert!(is_meant("os-1.dc.example", "os-1") && is_meant("192.0.2.1", "os-1") && is_meant("os-1", "os-1"));
        assert!(!is_meant("os-10", "os-1") && !is_meant("tk-1", "os-1"));
    }
}
