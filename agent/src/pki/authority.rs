//! The cluster's certificate authority: a directory with roots, what they signed, and what was revoked.
//!
//! ```text
//! authority.json     which generations of roots there are, and where each stands
//! root-N.pem .key    one pair a generation; written once
//! issued/SERIAL.json one for each certificate
//! tokens/ID.json     join tokens
//! ca.pem             roots to trust now (several during a rotation)
//! crl.pem            one revocation list for each of them
//! ```
//!
//! ```text
//! a root:  introduced -> signing -> outgoing -> retired
//!          trusted       trusted    trusted     not trusted
//! ```
//! Rotation has three steps so that no two hosts ever disagree about whom to trust: `rotate` (hand out the new
//! bundle to all), `promote` (from now on the new root signs; renew all), `retire` (the old root no longer counts).
//!
//! Invariants: a root's key is never overwritten; a certificate is recorded before anyone gets it; every trusted root
//! has a revocation list from the moment it is trusted, so that "no list" can be refused as an error.
//!
//! Not here: who may ask for a certificate (`token`, the admin API), copying the results to hosts.

use super::identity::{Identity, KeyFingerprint, Role};
use super::issued::{self, IssuedRecord, Revocation, RevocationReason, Serial};
use super::{PkiError, store, template};
use quorum::id::{ClusterName, HostName, OperatorName, SiteName};
use rcgen::{
    CertificateRevocationListParams, CertificateSigningRequestParams, Issuer, KeyIdMethod, KeyPair, PublicKeyData,
    RevokedCertParams, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a root counts: ten years.
pub const ROOT_VALID_FOR: Duration = Duration::from_secs(3650 * 86_400);
/// How long a host's certificate counts if nobody says otherwise: a year. Expiry stops new connections, so it is far
/// enough away that alerts on `not_after` can be acted upon; taking a right away is the revocation list's work.
pub const HOST_VALID_FOR: Duration = Duration::from_secs(365 * 86_400);
/// How long an operator's certificate counts if nobody says otherwise: 90 days.
pub const OPERATOR_VALID_FOR: Duration = Duration::from_secs(90 * 86_400);
/// New certificates count from this long ago, for machines whose clocks are behind.
pub const BACKDATED: Duration = Duration::from_secs(300);

const STATE_VERSION: u32 = 1;

/// From when until when a certificate counts, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    /// From now (a little earlier: [`BACKDATED`]) for `span`.
    pub fn from_now(span: Duration) -> Self {
        let now = unix_now();
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        Self { not_before: now - seconds(BACKDATED), not_after: now.saturating_add(seconds(span)) }
    }
}

/// Seconds since 1970 by this machine's wall clock.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// For whom a certificate is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Holder {
    /// A machine.
    Host {
        /// Its name.
        host: HostName,
        /// Where it stands.
        site: SiteName,
    },
    /// A person.
    Operator {
        /// The person's name.
        name: OperatorName,
        /// What the person may do.
        role: Role,
    },
}

/// Where a root stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Trusted, signs nothing yet: hosts are learning of it.
    Introduced,
    /// Trusted, signs everything new.
    Signing,
    /// Trusted, signs nothing new: its certificates are being replaced.
    Outgoing,
    /// Not trusted any more.
    Retired,
}

/// One root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Counts from 1; never reused.
    pub number: u32,
    /// Where it stands.
    pub standing: Standing,
    /// SHA-256 of its certificate, in hexadecimal: what people compare by eye and join tokens carry.
    pub fingerprint: String,
    /// Seconds since 1970 up to which it counts.
    pub not_after: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    cluster: ClusterName,
    crl_number: u64,
    generations: Vec<Generation>,
}

/// A fresh certificate.
#[derive(Clone)]
pub struct Certified {
    /// What was recorded of it.
    pub record: IssuedRecord,
    /// The certificate.
    pub certificate_pem: String,
    /// The private key (PKCS #8), if the authority made it; `None` if it came by request and stayed with its owner.
    pub key_pem: Option<String>,
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is left out.
        f.debug_struct("Certified").field("record", &self.record).finish_non_exhaustive()
    }
}

/// An opened authority. Cheap: every call reads the directory, so several processes may use it.
#[derive(Clone, Debug)]
pub struct Authority {
    pub(super) directory: PathBuf,
    cluster: ClusterName,
}

impl Authority {
    /// Creates the authority of a new cluster in `directory`, with a first root that signs.
    ///
    /// # Errors
    /// [`PkiError::Exists`] if the directory holds an authority, or a root's key without one; nothing is overwritten.
    pub fn create(directory: &Path, cluster: &ClusterName, validity: Validity) -> Result<Self, PkiError> {
        store::make_directory(directory)?;
        let _lock = store::DirectoryLock::take(directory)?;
        let authority = Self { directory: directory.to_owned(), cluster: cluster.clone() };
        if authority.state_file().exists() {
            return Err(PkiError::Exists(authority.state_file()));
        }
        store::make_directory(&authority.issued_directory())?;
        store::make_directory(&authority.tokens_directory())?;
        let mut first = authority.make_root(1, validity)?;
        first.standing = Standing::Signing;
        let state = State { version: STATE_VERSION, cluster: cluster.clone(), crl_number: 0, generations: vec![first] };
        authority.publish(state)?;
        Ok(authority)
    }

    /// Opens the authority in `directory`.
    ///
    /// # Errors
    /// [`PkiError::File`] if there is none, [`PkiError::Damaged`] if it can't be understood.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        let state = load_state(&directory.join("authority.json"))?;
        Ok(Self { directory: directory.to_owned(), cluster: state.cluster })
    }

    /// The cluster it vouches for.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// All roots, oldest first.
    ///
    /// # Errors
    /// [`PkiError::File`], [`PkiError::Damaged`].
    pub fn generations(&self) -> Result<Vec<Generation>, PkiError> {
        Ok(self.state()?.generations)
    }

    /// The roots to trust now, as PEM.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn bundle_pem(&self) -> Result<String, PkiError> {
        store::read_text(&self.directory.join("ca.pem"))
    }

    /// The revocation lists to honour now, one for each root to trust, as PEM.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn crl_pem(&self) -> Result<String, PkiError> {
        store::read_text(&self.directory.join("crl.pem"))
    }

    /// Everything issued so far, oldest first, the revoked ones included.
    ///
    /// # Errors
    /// [`PkiError::Damaged`] if one record can't be understood.
    pub fn issued(&self) -> Result<Vec<IssuedRecord>, PkiError> {
        issued::all(&self.issued_directory())
    }

    /// Makes a key and a certificate for it.
    ///
    /// # Errors
    /// [`PkiError::Validity`] if the signing root ends before it would begin.
    pub fn issue(&self, holder: &Holder, validity: Validity) -> Result<Certified, PkiError> {
        let _lock = store::DirectoryLock::take(&self.directory)?;
        let key = KeyPair::generate()?;
        let mut certified = self.certify(holder, &key, validity)?;
        certified.key_pem = Some(key.serialize_pem());
        Ok(certified)
    }

    /// Makes a certificate for the key of a signing request. Only the key is taken from the request (its signature
    /// proves that the requester has the key); whom the certificate names is `holder`'s say alone.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if the request is malformed or not signed by its own key.
    pub fn sign(&self, request_pem: &str, holder: &Holder, validity: Validity) -> Result<Certified, PkiError> {
        let _lock = store::DirectoryLock::take(&self.directory)?;
        self.sign_locked(request_pem, holder, validity)
    }

    pub(super) fn sign_locked(
        &self,
        request_pem: &str,
        holder: &Holder,
        validity: Validity,
    ) -> Result<Certified, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)?;
        if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(PkiError::Certificate(rcgen::Error::UnsupportedSignatureAlgorithm));
        }
        self.certify(holder, &request.public_key, validity)
    }

    /// Makes a new key and certificate for the holder of `identity`, as last recorded (site, role). The old certificate
    /// goes on counting until it expires or is revoked, so that both can be in the field for a while.
    ///
    /// # Errors
    /// [`PkiError::NothingToRenew`] if nothing that is in force (or merely expired) was issued to this holder.
    pub fn renew(&self, identity: &Identity, validity: Validity) -> Result<Certified, PkiError> {
        let newest = self.issued()?.into_iter().rev().find(|r| r.revoked.is_none() && r.identity.same_holder(identity));
        let newest = newest.ok_or_else(|| PkiError::NothingToRenew(identity.clone()))?;
        let holder = match newest.identity {
            Identity::Host { host, site, .. } => Holder::Host { host, site },
            Identity::Operator { name, role, .. } => Holder::Operator { name, role },
        };
        self.issue(&holder, validity)
    }

    /// Revokes one certificate and publishes new lists.
    ///
    /// # Errors
    /// [`PkiError::UnknownSerial`]. If publishing fails the record says revoked already; calling again publishes.
    pub fn revoke(&self, serial: Serial, reason: RevocationReason) -> Result<(), PkiError> {
        let _lock = store::DirectoryLock::take(&self.directory)?;
        let directory = self.issued_directory();
        let mut record = issued::load(&directory, serial)?;
        if record.revoked.is_none() {
            record.revoked = Some(Revocation { at: unix_now(), reason });
            issued::update(&directory, &record)?;
        }
        self.publish(self.state()?)
    }

    /// Revokes every certificate of the holder of `identity`; answers the serial numbers revoked just now.
    ///
    /// # Errors
    /// As [`Authority::revoke`].
    pub fn revoke_holder(&self, identity: &Identity, reason: RevocationReason) -> Result<Vec<Serial>, PkiError> {
        let mut revoked = Vec::new();
        for record in self.issued()? {
            if record.revoked.is_none() && record.identity.same_holder(identity) {
                self.revoke(record.serial, reason)?;
                revoked.push(record.serial);
            }
        }
        Ok(revoked)
    }

    /// Introduces a new root: trusted from now on, signing nothing until [`Authority::promote`]. Answers its number.
    ///
    /// # Errors
    /// [`PkiError::File`]; a key that was written but not taken up stays, and its number is skipped.
    pub fn rotate(&self, validity: Validity) -> Result<u32, PkiError> {
        let _lock = store::DirectoryLock::take(&self.directory)?;
        let mut state = self.state()?;
        let mut number = state.generations.iter().map(|g| g.number).max().unwrap_or(0) + 1;
        while self.key_file(number).exists() {
            number += 1;
        }
        state.generations.push(self.make_root(number, validity)?);
        self.publish(state)?;
        Ok(number)
    }

    /// From now on root `number` signs; the one that did so far is outgoing. Every host must have the bundle with
    /// `number` before, or it will refuse those that renew first.
    ///
    /// # Errors
    /// [`PkiError::Retire`] if `number` isn't an introduced (or outgoing) root.
    pub fn promote(&self, number: u32) -> Result<(), PkiError> {
        let _lock = store::DirectoryLock::take(&self.directory)?;
        let mut state = self.state()?;
        let standing = state.generations.iter().find(|g| g.number == number).map(|g| g.standing);
        if !matches!(standing, Some(Standing::Introduced | Standing::Outgoing)) {
            return Err(PkiError::Retire(number, "only an introduced or outgoing root can be promoted"));
        }
        for generation in &mut state.generations {
            if generation.standing == Standing::Signing {
                generation.standing = Standing::Outgoing;
            }
            if generation.number == number {
                generation.standing = Standing::Signing;
            }
        }
        self.publish(state)
    }

    /// Root `number` no longer counts: its certificates are refused wherever the new bundle is.
    ///
    /// # Errors
    /// [`PkiError::Retire`] if it is unknown or is the one that signs.
    pub fn retire(&self, number: u32) -> Result<(), PkiError> {
        let _lock = store::DirectoryLock::take(&self.directory)?;
        let mut state = self.state()?;
        let found = state.generations.iter_mut().find(|g| g.number == number);
        let generation = found.ok_or(PkiError::Retire(number, "there is no such root"))?;
        if generation.standing == Standing::Signing {
            return Err(PkiError::Retire(number, "it signs: promote another one first"));
        }
        generation.standing = Standing::Retired;
        self.publish(state)
    }

    fn certify(&self, holder: &Holder, key: &impl PublicKeyData, validity: Validity) -> Result<Certified, PkiError> {
        let state = self.state()?;
        let root = state.generations.iter().find(|g| g.standing == Standing::Signing);
        let root = root.ok_or_else(|| store::damaged(&self.state_file(), "no root signs"))?;
        let validity = Validity { not_after: validity.not_after.min(root.not_after), ..validity };
        if validity.not_after <= validity.not_before {
            return Err(PkiError::Validity(format!("it would end before it begins (root {} ends first)", root.number)));
        }
        let key_fingerprint = KeyFingerprint::of_public_key(&key.subject_public_key_info());
        let identity = template::identity(&self.cluster, holder, key_fingerprint);
        let serial = template::draw_serial()?;
        let certificate = template::leaf(&identity, validity, serial)?.signed_by(key, &self.issuer(root.number)?)?;
        let Validity { not_before, not_after } = validity;
        let root = root.number;
        let record = IssuedRecord { serial, identity, key_fingerprint, root, not_before, not_after, revoked: None };
        issued::record(&self.issued_directory(), &record)?;
        Ok(Certified { record, certificate_pem: certificate.pem(), key_pem: None })
    }

    /// Makes a root's pair. The key is written first and never replaced: better a key without a root than a root
    /// whose key is lost.
    fn make_root(&self, number: u32, validity: Validity) -> Result<Generation, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = template::root(&self.cluster, number, validity)?.self_signed(&key)?;
        store::write_new(&self.key_file(number), key.serialize_pem().as_bytes())?;
        store::write_new(&self.root_file(number), certificate.pem().as_bytes())?;
        let fingerprint = certificate_fingerprint(certificate.der());
        Ok(Generation { number, standing: Standing::Introduced, fingerprint, not_after: validity.not_after })
    }

    fn issuer(&self, number: u32) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let key = KeyPair::from_pem(&store::read_text(&self.key_file(number))?)?;
        Ok(Issuer::from_ca_cert_pem(&store::read_text(&self.root_file(number))?, key)?)
    }

    /// Writes lists, bundle and state, in this order: a root is never trusted before its list is there.
    fn publish(&self, mut state: State) -> Result<(), PkiError> {
        state.crl_number += 1;
        let records = self.issued()?;
        let (mut lists, mut bundle) = (String::new(), String::new());
        for generation in state.generations.iter().rev().filter(|g| g.standing != Standing::Retired) {
            lists.push_str(&self.list_of(generation, state.crl_number, &records)?);
            bundle.push_str(&store::read_text(&self.root_file(generation.number))?);
        }
        let encoded = serde_json::to_vec_pretty(&state).map_err(|e| store::damaged(&self.state_file(), e))?;
        store::write_over(&self.directory.join("crl.pem"), lists.as_bytes())?;
        store::write_over(&self.directory.join("ca.pem"), bundle.as_bytes())?;
        store::write_over(&self.state_file(), &encoded)
    }

    fn list_of(&self, root: &Generation, number: u64, records: &[IssuedRecord]) -> Result<String, PkiError> {
        let mut revoked_certs = Vec::new();
        for record in records.iter().filter(|r| r.root == root.number) {
            if let Some(revocation) = record.revoked {
                revoked_certs.push(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&record.serial.0),
                    revocation_time: template::date(revocation.at)?,
                    reason_code: Some(revocation.reason.into()),
                    invalidity_date: None,
                });
            }
        }
        let list = CertificateRevocationListParams {
            // The list counts as long as its root does: an agent must not stop because nobody renewed a list. A newer
            // one replaces it by number.
            this_update: template::date(unix_now() - BACKDATED.as_secs() as i64)?,
            next_update: template::date(root.not_after.max(unix_now() + 1))?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer(root.number)?)?.pem()?)
    }

    fn state(&self) -> Result<State, PkiError> {
        load_state(&self.state_file())
    }

    fn state_file(&self) -> PathBuf {
        self.directory.join("authority.json")
    }

    fn key_file(&self, number: u32) -> PathBuf {
        self.directory.join(format!("root-{number}.key"))
    }

    fn root_file(&self, number: u32) -> PathBuf {
        self.directory.join(format!("root-{number}.pem"))
    }

    fn issued_directory(&self) -> PathBuf {
        self.directory.join("issued")
    }

    pub(super) fn tokens_directory(&self) -> PathBuf {
        self.directory.join("tokens")
    }

    /// The certificate of the root that signs now.
    ///
    /// # Errors
    /// [`PkiError::File`], [`PkiError::Damaged`].
    pub fn signing_root(&self) -> Result<(Generation, CertificateDer<'static>), PkiError> {
        let signing = self.state()?.generations.into_iter().find(|g| g.standing == Standing::Signing);
        let generation = signing.ok_or_else(|| store::damaged(&self.state_file(), "no root signs"))?;
        let path = self.root_file(generation.number);
        let der = CertificateDer::from_pem_slice(&store::read(&path)?)
            .map_err(|e| store::damaged(&path, format!("{e:?}")))?;
        Ok((generation, der))
    }
}

/// SHA-256 of a whole certificate, in hexadecimal.
pub fn certificate_fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect()
}

fn load_state(path: &Path) -> Result<State, PkiError> {
    understand(&store::read(path)?).map_err(|why| store::damaged(path, why))
}

fn understand(bytes: &[u8]) -> Result<State, String> {
    let state: State = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if state.version == STATE_VERSION {
        Ok(state)
    } else {
        Err(format!("version {} is not {STATE_VERSION}", state.version))
    }
}

/// Whether the bytes are an authority's state: what a fuzzer calls.
pub(super) fn is_state(bytes: &[u8]) -> bool {
    understand(bytes).is_ok()
}
