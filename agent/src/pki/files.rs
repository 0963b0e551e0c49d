//! What a host keeps on disk of its identity, and the same in the layout that QEMU wants.
//!
//! ```text
//! identity.pem   certificate and private key in one file, so that both always change together
//! ca.pem         roots to trust
//! crl.pem        revocation lists
//! ```
//! QEMU's `tls-creds-x509,dir=D` wants fixed names with certificate and key apart; that directory is replaced as a
//! whole. QEMU reads it when the object is created, and `tls-authz` compares the distinguished name, not the URI:
//! [`qemu_name`].
//!
//! Not here: building TLS configurations (`driver::transport::tls`).

use super::authority::Certified;
use super::identity::Identity;
use super::{PkiError, store};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a host's identity lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFiles {
    /// The certificate, PEM (further certificates behind the first are sent along).
    pub certificate: PathBuf,
    /// The private key, PEM. May be the same file as the certificate.
    pub key: PathBuf,
    /// The roots to trust, PEM.
    pub authorities: PathBuf,
    /// The revocation lists, PEM: one for each root. Without it nothing counts as revoked.
    pub crl: Option<PathBuf>,
}

/// What the files hold.
#[derive(Debug)]
pub struct Material {
    /// The host's certificate, and what is sent with it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// The roots to trust.
    pub roots: Vec<CertificateDer<'static>>,
    /// The revocation lists; `None` if no file is configured.
    pub crls: Option<Vec<CertificateRevocationListDer<'static>>>,
}

impl IdentityFiles {
    /// The usual names in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        let identity = directory.join("identity.pem");
        Self {
            certificate: identity.clone(),
            key: identity,
            authorities: directory.join("ca.pem"),
            crl: Some(directory.join("crl.pem")),
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// [`PkiError::File`], or [`PkiError::Damaged`] if a file holds none of what it should.
    pub fn load(&self) -> Result<Material, PkiError> {
        let chain = all_in(&self.certificate, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&store::read(&self.key)?)
            .map_err(|e| store::damaged(&self.key, format!("no private key: {e:?}")))?;
        let roots = all_in(&self.authorities, "root certificate")?;
        let crls = self.crl.as_deref().map(|path| all_in(path, "revocation list")).transpose()?;
        Ok(Material { chain, key, roots, crls })
    }
}

fn all_in<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>, PkiError> {
    let content = store::read(path)?;
    let found: Vec<T> = T::pem_slice_iter(&content)
        .collect::<Result<_, _>>()
        .map_err(|e| store::damaged(path, format!("malformed {what}: {e:?}")))?;
    if found.is_empty() {
        return Err(store::damaged(path, format!("no {what}")));
    }
    Ok(found)
}

/// Writes a fresh identity into `directory` under the usual names. `key_pem` is the key that the host made itself, for
/// a certificate that was signed on request.
///
/// # Errors
/// [`PkiError::File`]; the roots and lists may be new already while certificate and key are still the old ones, which
/// fit them.
pub fn write_identity(
    directory: &Path,
    certified: &Certified,
    key_pem: Option<&str>,
    trust: &Trust,
) -> Result<IdentityFiles, PkiError> {
    let files = IdentityFiles::in_directory(directory);
    let key = key_of(certified, key_pem, directory)?;
    store::make_directory(directory)?;
    write_trust(directory, trust)?;
    store::write_over(&files.certificate, format!("{}{key}", certified.certificate_pem).as_bytes())?;
    Ok(files)
}

/// Writes what a joining host was sent into `directory` under the usual names, with the key that it made itself.
///
/// # Errors
/// As [`write_identity`].
pub fn write_joined(
    directory: &Path,
    certificate_pem: &str,
    (key_pem, trust): (&str, &Trust),
) -> Result<IdentityFiles, PkiError> {
    let files = IdentityFiles::in_directory(directory);
    store::make_directory(directory)?;
    write_trust(directory, trust)?;
    store::write_over(&files.certificate, format!("{certificate_pem}{key_pem}").as_bytes())?;
    Ok(files)
}

/// What to trust, as an authority publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The roots, PEM.
    pub authorities_pem: String,
    /// The revocation lists, PEM.
    pub crl_pem: String,
}

impl Trust {
    /// What `authority` publishes now.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn of(authority: &super::Authority) -> Result<Self, PkiError> {
        Ok(Self { authorities_pem: authority.bundle_pem()?, crl_pem: authority.crl_pem()? })
    }
}

/// Writes only roots and lists (after a revocation or a step of a rotation). Lists first: a root must not be there
/// without its list.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_trust(directory: &Path, trust: &Trust) -> Result<(), PkiError> {
    let files = IdentityFiles::in_directory(directory);
    store::write_over(&directory.join("crl.pem"), trust.crl_pem.as_bytes())?;
    store::write_over(&files.authorities, trust.authorities_pem.as_bytes())
}

fn key_of<'a>(certified: &'a Certified, key_pem: Option<&'a str>, directory: &Path) -> Result<&'a str, PkiError> {
    key_pem
        .or(certified.key_pem.as_deref())
        .ok_or_else(|| store::damaged(directory, "there is no private key to write"))
}

/// Writes the directory that QEMU's `tls-creds-x509` object reads, for both ends of a connection, from a host's files.
///
/// # Errors
/// [`PkiError::File`], [`PkiError::Damaged`]; an older directory is still whole.
pub fn write_qemu(directory: &Path, files: &IdentityFiles) -> Result<(), PkiError> {
    let certificates = pem_sections(&files.certificate, "CERTIFICATE")?;
    let key = pem_sections(&files.key, "PRIVATE KEY")?;
    let fresh = store::temporary_beside(directory);
    store::make_directory(&fresh)?;
    for end in ["server", "client"] {
        store::write_new(&fresh.join(format!("{end}-cert.pem")), certificates.as_bytes())?;
        store::write_new(&fresh.join(format!("{end}-key.pem")), key.as_bytes())?;
    }
    store::write_new(&fresh.join("ca-cert.pem"), &store::read(&files.authorities)?)?;
    if let Some(crl) = &files.crl {
        store::write_new(&fresh.join("ca-crl.pem"), &store::read(crl)?)?;
    }
    store::replace_directory(&fresh, directory)
}

/// The sections of a PEM file with this label, as text.
fn pem_sections(path: &Path, label: &str) -> Result<String, PkiError> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let text = store::read_text(path)?;
    let (mut sections, mut inside) = (String::new(), false);
    for line in text.lines() {
        inside |= line == begin;
        if inside {
            sections.push_str(line);
            sections.push('\n');
        }
        inside &= line != end;
    }
    if sections.is_empty() {
        return Err(store::damaged(path, format!("no {label}")));
    }
    Ok(sections)
}

/// The distinguished name of this holder's certificates as QEMU's `authz-simple` and `authz-list` compare it.
pub fn qemu_name(identity: &Identity) -> String {
    match identity {
        Identity::Host { host, .. } => format!("CN={host}"),
        Identity::Operator { name, .. } => format!("CN={name}"),
    }
}
