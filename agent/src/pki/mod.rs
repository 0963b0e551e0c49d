//! Who is who: the cluster's certificate authority and the identities that it vouches for.
//!
//! Contract: a host or a person is exactly what a verified certificate says ([`identity`]); a message's own claim about
//! its sender counts for nothing. Everything here works on a directory of files with mode 0600 that are replaced
//! atomically; a root's private key is written once and never overwritten.
//!
//! ```text
//! authority   create -> issue, renew, revoke, rotate -> retire          one directory, one writer at a time (lock)
//! issued      what was issued and what was revoked; nothing is handed out before it is recorded
//! token       a one-time secret by which a new host obtains its certificate
//! files       what a host needs on disk: identity.pem (certificate and key), ca.pem, crl.pem; and QEMU's layout
//! identity    certificate -> Identity
//! store       files: private, atomic, locked
//! ```
//!
//! Keys are ECDSA P-256: rustls, GnuTLS (QEMU's NBD) and OpenSSL all take them, and a handshake costs 0.3 ms.
//!
//! Not here: TLS itself (`driver::transport`), who may do what (`admin`), how a joining host reaches a running one.

pub mod authority;
pub mod files;
pub(crate) mod fuzz;
pub mod identity;
pub mod issued;
pub mod store;
pub mod token;

mod template;
#[cfg(test)]
mod tests;

pub use authority::{Authority, Certified, Generation, Standing, Validity};
pub use files::IdentityFiles;
pub use identity::{Identity, KeyFingerprint, Role};
pub use issued::{IssuedRecord, RevocationReason, Serial};
pub use token::JoinToken;

use std::path::PathBuf;

/// Why an authority could not do what was asked. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{doing} {path:?}")]
    File {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A file that must never be overwritten is already there.
    #[error("create {0:?}: it exists already and is never overwritten")]
    Exists(PathBuf),
    /// A file of the authority holds something that it did not write.
    #[error("understand {path:?}: {because}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        because: String,
    },
    /// A certificate, key or request could not be made or parsed.
    #[error("make or read a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A certificate names nobody that a cluster knows.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The asked span ends before it begins, or lies outside what the signing root can vouch for.
    #[error("issue a certificate: {0}")]
    Validity(String),
    /// No certificate with this serial number was issued here.
    #[error("find a certificate with serial number {0}")]
    UnknownSerial(Serial),
    /// Nothing that could be renewed was issued to this identity: never issued, or all of it revoked.
    #[error("renew the certificate of {0}: none is in force")]
    NothingToRenew(Identity),
    /// The generation is unknown, or is the one that signs.
    #[error("retire root {0}: {1}")]
    Retire(u32, &'static str),
    /// The join token is unknown, used, expired, for another cluster, or its secret is wrong.
    #[error("accept the join token: {0}")]
    Token(&'static str),
}
