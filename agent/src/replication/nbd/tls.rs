//! The TLS identities that QEMU's processes use for a volume, from this host's own certificate.
//!
//! Both ends verify each other: the server lets in exactly one host by its distinguished name, the client checks the
//! server's name in its certificate. TLS 1.3 only: both ends are ours.

use crate::pki::IdentityFiles;
use crate::pki::files::write_qemu;
use quorum::id::HostName;
use std::path::{Path, PathBuf};

/// GnuTLS's words for: usual ciphers, TLS 1.3 only.
pub const PRIORITY: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.3";

/// The distinguished name by which a host's certificate is told from others.
pub fn distinguished_name(host: &HostName) -> String {
    format!("CN={host}")
}

/// Lays out this host's identity in `folder` as QEMU reads it, anew each time, so that a renewed certificate and a newer
/// revocation list are used from the next connection on.
///
/// # Errors
/// What can't be read or written.
pub fn lay_out(folder: &Path, identity: &IdentityFiles) -> Result<PathBuf, String> {
    write_qemu(folder, identity)
        .map_err(|error| format!("lay out the TLS identity in {}: {error}", folder.display()))?;
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Identity;
    use crate::pki::files::qemu_name;

    #[test]
    fn a_host_is_known_by_the_name_that_its_certificate_has() {
        let host: HostName = "tk-k1".parse().unwrap();
        let identity =
            Identity::Host { cluster: "erp-geo".parse().unwrap(), host: host.clone(), site: "tokyo".parse().unwrap() };
        assert_eq!(distinguished_name(&host), qemu_name(&identity));
    }
}
