//! SCSI-3 reservation keys that say who holds the volume and under which epoch (protocol §7).
//!
//! Layout, most significant first: 16 bits cluster, 16 bits host, 8 bits era, 24 bits count of grants. The last 32
//! bits are the epoch and compare as the ledger's epochs do: every key of an older era is smaller. An epoch that
//! doesn't fit is refused, never wrapped: a wrapped one would let an old owner look like a newer one.
//! Not here: who may claim (the ledger), and the SCSI commands (`device::reservation`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The part of a key that compares: era and count of grants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyEpoch(u32);

/// A number that doesn't fit into a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The era needs more than 8 bits.
    #[error("era {0} doesn't fit into the 8 bits that a reservation key has for it")]
    Era(u64),
    /// The count needs more than 24 bits.
    #[error("epoch {0} doesn't fit into the 24 bits that a reservation key has for it")]
    Count(u64),
    /// Cluster number zero could make a key of zero, which SCSI reads as "no key".
    #[error("the cluster's number must be 1 to 65535")]
    Cluster,
}

impl KeyEpoch {
    /// The epoch with this count in this era.
    ///
    /// # Errors
    /// [`KeyError::Era`] above 255, [`KeyError::Count`] above 2²⁴ − 1.
    pub fn new(era: u64, count: u64) -> Result<Self, KeyError> {
        let era_bits = u8::try_from(era).map_err(|_| KeyError::Era(era))?;
        let count_bits = u32::try_from(count).ok().filter(|count| *count < 1 << 24).ok_or(KeyError::Count(count))?;
        Ok(Self(u32::from(era_bits) << 24 | count_bits))
    }

    /// The era.
    pub const fn era(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The count of grants within the era.
    pub const fn count(self) -> u32 {
        self.0 & 0x00ff_ffff
    }
}

impl fmt::Debug for KeyEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.era(), self.count())
    }
}

/// A reservation key: cluster, host, epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReservationKey(u64);

impl ReservationKey {
    /// The key of host number `host` of cluster number `cluster` under `epoch`.
    ///
    /// # Errors
    /// [`KeyError::Cluster`] if `cluster` is zero.
    pub fn new(cluster: u16, host: u16, epoch: KeyEpoch) -> Result<Self, KeyError> {
        if cluster == 0 {
            return Err(KeyError::Cluster);
        }
        Ok(Self(u64::from(cluster) << 48 | u64::from(host) << 32 | u64::from(epoch.0)))
    }

    /// The key as it was read from a device; it may be anybody's.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The 64 bits that go to the device (big-endian there).
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The cluster's number.
    pub const fn cluster(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The host's number.
    pub const fn host(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The epoch.
    pub const fn epoch(self) -> KeyEpoch {
        KeyEpoch((self.0 & 0xffff_ffff) as u32)
    }
}

impl fmt::Display for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x} (cluster {}, host {}, epoch {:?})", self.0, self.cluster(), self.host(), self.epoch())
    }
}

impl fmt::Debug for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl From<ReservationKey> for String {
    fn from(key: ReservationKey) -> String {
        format!("{:#018x}", key.0)
    }
}

impl TryFrom<String> for ReservationKey {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(text.trim_start_matches("0x"), 16).map(Self)
    }
}

/// Who claims a volume and whom that excludes: the ledger's word, carried by a fence order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeClaim {
    /// The claimant's own key.
    pub own: ReservationKey,
    /// The keys of the ledger's possible owners. Only these are ever pre-empted.
    pub victims: BTreeSet<ReservationKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_of_an_older_era_is_smaller() {
        assert!(KeyEpoch::new(1, (1 << 24) - 1).unwrap() < KeyEpoch::new(2, 0).unwrap());
        assert!(KeyEpoch::new(2, 7).unwrap() < KeyEpoch::new(2, 8).unwrap());
    }

    #[test]
    fn an_epoch_that_does_not_fit_is_refused_and_never_wrapped() {
        assert_eq!(KeyEpoch::new(1, 1 << 24), Err(KeyError::Count(1 << 24)));
        assert_eq!(KeyEpoch::new(256, 1), Err(KeyError::Era(256)));
    }

    #[test]
    fn a_key_says_cluster_host_and_epoch_and_is_never_zero() {
        let key = ReservationKey::new(0xC1, 0x0A, KeyEpoch::new(1, 7).unwrap()).unwrap();
        assert_eq!(key.raw(), 0x00C1_000A_0100_0007);
        assert_eq!((key.cluster(), key.host(), key.epoch().era(), key.epoch().count()), (0xC1, 0x0A, 1, 7));
        assert_eq!(key.to_string(), "0x00c1000a01000007 (cluster 193, host 10, epoch 1.7)");
        assert_eq!(ReservationKey::new(0, 0, KeyEpoch::new(0, 0).unwrap()), Err(KeyError::Cluster));
        assert_eq!(ReservationKey::try_from(String::from(key)), Ok(key));
    }
}
