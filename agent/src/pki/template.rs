//! What goes into a certificate, for each kind of holder.
//!
//! The uses are chosen for everyone who reads these certificates: rustls between agents, and QEMU through GnuTLS for
//! the data. QEMU refuses a certificate whose (critical) key usage lacks key encipherment, which ECDSA doesn't need.

use super::authority::{Holder, Validity};
use super::identity::Identity;
use super::issued::Serial;
use super::{PkiError, identity::KeyFingerprint};
use quorum::id::ClusterName;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;

/// A serial number that nobody can guess and none shares.
pub(super) fn draw_serial() -> Result<Serial, PkiError> {
    let mut bytes: [u8; 16] = draw()?;
    // Positive, and never shortened by leading zeros: the text form keeps its 32 digits.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(Serial(bytes))
}

/// Random bytes from the kernel.
pub(super) fn draw<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::Certificate(rcgen::Error::RingUnspecified))?;
    Ok(bytes)
}

/// Seconds since 1970 as the date that certificates carry.
pub(super) fn date(unix_seconds: i64) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(unix_seconds)
        .map_err(|_| PkiError::Validity(format!("{unix_seconds} s since 1970 is no date")))
}

/// A root of this cluster: may sign certificates of holders and lists of revoked ones, nothing below it may sign.
pub(super) fn root(cluster: &ClusterName, number: u32, validity: Validity) -> Result<CertificateParams, PkiError> {
    let serial = draw_serial()?;
    let mut params = dated(validity, serial)?;
    // A name that no other root has, of this cluster or of another one that is called the same: revocation lists and
    // issuers are looked up by it.
    let tag = serial.to_string();
    params.distinguished_name = name(Some(cluster), &format!("antipode root {number} {}", &tag[tag.len() - 12..]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A certificate for this identity.
pub(super) fn leaf(identity: &Identity, validity: Validity, serial: Serial) -> Result<CertificateParams, PkiError> {
    let mut params = dated(validity, serial)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    for uri in identity.uris() {
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    match identity {
        Identity::Host { host, .. } => {
            params.distinguished_name = name(None, host.as_str());
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            // For clients that check a host name (QEMU's `tls-hostname`).
            params.subject_alt_names.push(SanType::DnsName(host.as_str().try_into()?));
        }
        Identity::Operator { name: person, .. } => params.distinguished_name = name(None, person.as_str()),
    }
    Ok(params)
}

/// The identity that a certificate with this key will speak for.
pub(super) fn identity(cluster: &ClusterName, holder: &Holder, key_fingerprint: KeyFingerprint) -> Identity {
    let cluster = cluster.clone();
    match holder.clone() {
        Holder::Host { host, site } => Identity::Host { cluster, host, site },
        Holder::Operator { name, role } => Identity::Operator { cluster, name, role, key_fingerprint },
    }
}

fn dated(validity: Validity, serial: Serial) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    Ok(params)
}

/// Holders have one part only: programs that compare names as text (QEMU's `authz`) disagree on the order of several.
fn name(cluster: Option<&ClusterName>, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(cluster) = cluster {
        name.push(DnType::OrganizationName, cluster.as_str());
    }
    name.push(DnType::CommonName, common);
    name
}
