//! What a certificate says about its holder.
//!
//! A certificate names exactly one identity, as a URI among its subject alternative names:
//!
//! ```text
//! antipode://<cluster>/host/<host>               with antipode://<cluster>/site/<site> beside it; may serve and call
//! antipode://<cluster>/operator/<name>?role=<r>  may only call
//! ```
//!
//! Contract: [`from_certificate`] is strict (one identity, one spelling, the key usages that belong to it) and does
//! *not* verify anything: call it only with a certificate whose chain, dates and revocation were checked. The common
//! name repeats the name for programs that know nothing of URIs (QEMU's `tls-authz`), and is never read here.
//!
//! Not here: signatures and dates (rustls), what a role permits (`admin`).

use quorum::id::{ClusterName, HostName, NameError, OperatorName, SiteName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const SCHEME: &str = "antipode://";

/// Whom a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Identity {
    /// A machine with an agent.
    Host {
        /// The cluster it belongs to.
        cluster: ClusterName,
        /// Its name.
        host: HostName,
        /// Where it stands.
        site: SiteName,
    },
    /// A person.
    Operator {
        /// The cluster in which the role counts.
        cluster: ClusterName,
        /// The person's name.
        name: OperatorName,
        /// What the person may do.
        role: Role,
        /// The key that the person holds: two approvals mean two keys.
        key_fingerprint: KeyFingerprint,
    },
}

/// What an operator may do. Ordered: each one may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Move groups, hold automation, rehearse.
    Operator,
    /// Say go where a person's word is required: plans of tier `approve`, overrides.
    Approver,
    /// Change the cluster spec, voters, certificates.
    Admin,
}

impl Role {
    /// All roles, weakest first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// The role as written in certificates and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| IdentityError::Role(shortened(text)))
    }
}

/// SHA-256 of a public key (its SubjectPublicKeyInfo): the same for all certificates of one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyFingerprint(pub [u8; 32]);

impl KeyFingerprint {
    /// The fingerprint of a public key in its DER form.
    pub fn of_public_key(subject_public_key_info: &[u8]) -> Self {
        Self(Sha256::digest(subject_public_key_info).into())
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl From<KeyFingerprint> for String {
    fn from(fingerprint: KeyFingerprint) -> String {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for KeyFingerprint {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = super::issued::bytes_from_hex(&text).ok_or("a key fingerprint has hexadecimal digits only")?;
        Ok(Self(bytes.try_into().map_err(|_| "a key fingerprint has 64 digits")?))
    }
}

/// Why a certificate speaks for nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not one X.509 certificate.
    #[error("parse a certificate")]
    NotACertificate,
    /// It holds no identity of this product, or more than one.
    #[error("find one identity in the certificate: it names {0}")]
    Count(usize),
    /// The URI has this product's scheme but isn't spelled as one of its identities.
    #[error("understand the identity {0:?}")]
    Spelling(String),
    /// A part of the URI isn't a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The role is none of [`Role::ALL`].
    #[error("find role {0:?} among viewer, operator, approver, admin")]
    Role(String),
    /// The certificate may be used for something else than its identity needs (a CA, an operator that may serve, ...).
    #[error("accept a certificate whose permitted uses don't fit its identity")]
    Usage,
}

impl Identity {
    /// The cluster in which this identity counts.
    pub fn cluster(&self) -> &ClusterName {
        match self {
            Self::Host { cluster, .. } | Self::Operator { cluster, .. } => cluster,
        }
    }

    /// The URIs by which a certificate says this.
    pub fn uris(&self) -> Vec<String> {
        match self {
            Self::Host { cluster, host, site } => {
                vec![format!("{SCHEME}{cluster}/host/{host}"), format!("{SCHEME}{cluster}/site/{site}")]
            }
            Self::Operator { cluster, name, role, .. } => {
                vec![format!("{SCHEME}{cluster}/operator/{name}?role={role}")]
            }
        }
    }

    /// Whether both are the same host, or the same person, whatever site, role or key.
    pub fn same_holder(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host { cluster: a, host: x, .. }, Self::Host { cluster: b, host: y, .. }) => (a, x) == (b, y),
            (Self::Operator { cluster: a, name: x, .. }, Self::Operator { cluster: b, name: y, .. }) => {
                (a, x) == (b, y)
            }
            (Self::Host { .. }, Self::Operator { .. }) | (Self::Operator { .. }, Self::Host { .. }) => false,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { cluster, host, site } => write!(f, "host {host} of site {site} in cluster {cluster}"),
            Self::Operator { cluster, name, role, .. } => write!(f, "{role} {name} in cluster {cluster}"),
        }
    }
}

/// Whom this certificate speaks for. It must have been verified before.
///
/// # Errors
/// [`IdentityError`] says what is wrong with it; such a certificate speaks for nobody.
pub fn from_certificate(der: &[u8]) -> Result<Identity, IdentityError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::NotACertificate)?;
    if !rest.is_empty() {
        return Err(IdentityError::NotACertificate);
    }
    let uris = our_uris(&certificate)?;
    let identity = from_uris(&uris, KeyFingerprint::of_public_key(certificate.public_key().raw))?;
    check_usage(&certificate, &identity)?;
    Ok(identity)
}

fn our_uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, IdentityError> {
    // Also an error if the certificate has two extensions of this kind.
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::NotACertificate)?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        })
        .collect())
}

/// The identity that these URIs spell, for the holder of this key.
fn from_uris(uris: &[&str], key_fingerprint: KeyFingerprint) -> Result<Identity, IdentityError> {
    let mut site = None;
    let mut holders = Vec::new();
    for uri in uris {
        let part = Part::from_uri(uri)?;
        match part {
            Part::Site(cluster, name) if site.is_none() => site = Some((cluster, name)),
            Part::Site(..) => return Err(IdentityError::Spelling(shortened(uri))),
            Part::Host(..) | Part::Operator(..) => holders.push(part),
        }
    }
    if holders.len() != 1 {
        return Err(IdentityError::Count(holders.len()));
    }
    match (holders.remove(0), site) {
        (Part::Host(cluster, host), Some((of, site))) if of == cluster => Ok(Identity::Host { cluster, host, site }),
        (Part::Operator(cluster, name, role), None) => Ok(Identity::Operator { cluster, name, role, key_fingerprint }),
        _ => Err(IdentityError::Spelling(shortened(&uris.join(" ")))),
    }
}

enum Part {
    Host(ClusterName, HostName),
    Site(ClusterName, SiteName),
    Operator(ClusterName, OperatorName, Role),
}

impl Part {
    fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        let spelling = || IdentityError::Spelling(shortened(uri));
        let rest = uri.strip_prefix(SCHEME).ok_or_else(spelling)?;
        let mut parts = rest.split('/');
        let (Some(cluster), Some(kind), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(spelling());
        };
        let cluster = ClusterName::new(cluster)?;
        match kind {
            "host" => Ok(Self::Host(cluster, HostName::new(name)?)),
            "site" => Ok(Self::Site(cluster, SiteName::new(name)?)),
            "operator" => {
                let (name, role) = name.split_once("?role=").ok_or_else(spelling)?;
                Ok(Self::Operator(cluster, OperatorName::new(name)?, role.parse()?))
            }
            _ => Err(spelling()),
        }
    }
}

/// A host serves and calls, an operator only calls, and neither is an authority.
fn check_usage(certificate: &X509Certificate<'_>, identity: &Identity) -> Result<(), IdentityError> {
    let usage = certificate.extended_key_usage().map_err(|_| IdentityError::Usage)?.ok_or(IdentityError::Usage)?.value;
    let serves = match identity {
        Identity::Host { .. } => true,
        Identity::Operator { .. } => false,
    };
    let fits = usage.client_auth && usage.server_auth == serves && !usage.any && !certificate.is_ca();
    fits.then_some(()).ok_or(IdentityError::Usage)
}

/// Text from a certificate for an error message: bounded, since who sends it may be hostile.
fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyFingerprint = KeyFingerprint([7; 32]);

    #[test]
    fn what_is_written_is_what_is_read() {
        let host = Identity::Host {
            cluster: "erp-geo".parse().expect("name"),
            host: "tk-k1.example".parse().expect("name"),
            site: "tokyo".parse().expect("name"),
        };
        for role in Role::ALL {
            let operator = Identity::Operator {
                cluster: "erp-geo".parse().expect("name"),
                name: "mika".parse().expect("name"),
                role,
                key_fingerprint: KEY,
            };
            for identity in [&host, &operator] {
                let uris = identity.uris();
                let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
                assert_eq!(from_uris(&uris, KEY).as_ref(), Ok(identity));
            }
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let site = "antipode://c/site/s";
        for bad in [
            vec![],
            vec![site],
            vec!["antipode://c/host/h"],
            vec!["antipode://c/host/h", "antipode://d/site/s"],
            vec!["antipode://c/host/h", "antipode://c/host/g", site],
            vec!["antipode://c/host/h", site, "antipode://c/site/t"],
            vec!["antipode://c/host/h", "antipode://c/operator/o?role=admin", site],
            vec!["antipode://c/operator/o?role=admin", site],
            vec!["antipode://c/operator/o"],
            vec!["antipode://c/operator/o?role=root"],
            vec!["antipode://c/operator/o?role=admin&role=viewer"],
            vec!["antipode://c/host/h/", site],
            vec!["antipode://c/host/", site],
            vec!["antipode://c/host/H", site],
            vec!["antipode://c/host/%68", site],
            vec!["antipode:///host/h", site],
            vec!["antipode://c/voter/h", site],
        ] {
            assert!(from_uris(&bad, KEY).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn junk_is_not_a_certificate() {
        for junk in [&b""[..], b"\x30", b"-----BEGIN CERTIFICATE-----", &[0x30, 0x82, 0xff, 0xff, 0]] {
            assert_eq!(from_certificate(junk), Err(IdentityError::NotACertificate));
        }
    }
}
