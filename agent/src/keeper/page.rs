//! The keeper's page back to the agent: what the keeper is, what it saw, and what it attests (protocol §2).
//!
//! Contract: only the keeper writes it; the agent forwards an attestation and never makes one. A page that wasn't
//! written for three periods means that the keeper doesn't run: nothing may be started then.
//!
//! Not here: memory and torn reads (`slots`).

use super::armed::{ArmedSet, TABLE_BYTES_MAX, TableError};
use super::core::Reason;
use super::device::{DeviceFacts, DeviceKind};
use super::layout::{Put, Short, Take};
use super::record::{put_moment, take_moment};
use quorum::id::{BootId, HostEpoch, KeeperInstance};
use quorum::moment::Moment;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const VERSION: u16 = 1;

/// Bytes of the largest page.
pub(super) const PAGE_BYTES_MAX: usize = 512 + TABLE_BYTES_MAX;

/// What the keeper is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum PageState {
    /// It makes sure that nothing is left from before it started; nothing is petted.
    #[default]
    Starting = 0,
    /// Nothing was ever armed; the slice is frozen and empty.
    Idle = 1,
    /// A host epoch is armed: its groups may run.
    Armed = 2,
    /// A host epoch was retired and its groups are being ended, or δ_io is being waited out.
    Retired = 3,
    /// The retired host epoch's groups are gone and that is attested; the slice stays frozen.
    Clean = 4,
    /// It ended in an orderly way and disarmed the watchdog.
    Stopped = 5,
    /// It could not start, for [`Page::reason`].
    Refused = 6,
}

impl PageState {
    fn from_code(code: u8) -> Option<Self> {
        [Self::Starting, Self::Idle, Self::Armed, Self::Retired, Self::Clean, Self::Stopped, Self::Refused]
            .into_iter()
            .find(|&state| state as u8 == code)
    }
}

/// What protects the keeper itself. Each is best effort, and reported because a host without it is a lower promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Posture {
    /// All memory is locked.
    pub memory_locked: bool,
    /// Real-time priority (SCHED_FIFO) was granted.
    pub realtime: bool,
    /// The kernel's OOM killer passes it by.
    pub oom_exempt: bool,
    /// A holder has the device as well: the keeper's death doesn't close it.
    pub held: bool,
}

impl Posture {
    fn bits(self) -> u8 {
        u8::from(self.memory_locked)
            | u8::from(self.realtime) << 1
            | u8::from(self.oom_exempt) << 2
            | u8::from(self.held) << 3
    }

    fn from_bits(bits: u8) -> Self {
        let bit = |n: u8| bits >> n & 1 == 1;
        Self { memory_locked: bit(0), realtime: bit(1), oom_exempt: bit(2), held: bit(3) }
    }
}

/// What the agent forwards as `Released`: nothing of these groups is left under this host epoch, for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attestation {
    /// The boot in which the groups ran.
    pub boot: BootId,
    /// The host epoch under which they ran.
    pub he: HostEpoch,
    /// When it was attested.
    pub at: Moment,
    /// The groups proven gone. It says nothing about others.
    pub gone: ArmedSet,
}

/// The keeper's page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keeper.
    pub instance: KeeperInstance,
    /// The boot.
    pub boot: BootId,
    /// Its process, as it sees itself in its pid namespace.
    pub pid: u32,
    /// What it is doing.
    pub state: PageState,
    /// Why the last record was refused or the last pet withheld.
    pub reason: Reason,
    /// Why the last host epoch was retired.
    pub cause: Reason,
    /// Why the last order (stop, upgrade) was not followed.
    pub order: Reason,
    /// The armed host epoch, if one is.
    pub armed: Option<HostEpoch>,
    /// The latch: no host epoch up to this one runs or renews again.
    pub retired: HostEpoch,
    /// The last record sequence whose armed set is in force.
    pub echoed: u64,
    /// When this page was written.
    pub written: Moment,
    /// When the device was last petted; zero if never.
    pub last_pet: Moment,
    /// How late the keeper's own timer was at worst.
    pub late_max: Duration,
    /// How many W stand between a check and the reset: 2, or 3 without a holder.
    pub spans: u8,
    /// W in force.
    pub watchdog_worst: Duration,
    /// δ_hw in force.
    pub delta_hw: Duration,
    /// What protects the keeper.
    pub posture: Posture,
    /// The watchdog.
    pub device: DeviceFacts,
    /// How long the helpers took at the last release.
    pub helpers_took: Duration,
    /// The last attestation of this keeper.
    pub attestation: Option<Attestation>,
}

/// Why bytes are no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The bytes end too early.
    #[error("read the keeper's page: it is too short")]
    Short,
    /// The layout is of a version that this program doesn't know.
    #[error("read the keeper's page of version {0}: this program knows {VERSION}")]
    Version(u16),
    /// A code or flag is none that this program knows.
    #[error("read the keeper's page: it is malformed")]
    Malformed,
    /// The list of groups gone is malformed.
    #[error("read the keeper's page")]
    Table(#[source] TableError),
}

impl From<Short> for PageError {
    fn from(Short: Short) -> Self {
        Self::Short
    }
}

impl Page {
    /// Time since the last pet as one who fears the watchdog counts it; `None` if it was never petted.
    pub fn pet_age(&self, now: Moment) -> Option<Duration> {
        (self.last_pet != Moment::default()).then(|| now.held_since(self.last_pet))
    }

    /// Writes the page's bytes without allocating; gives their number.
    pub(super) fn encode(&self, buffer: &mut [u8]) -> Result<usize, Short> {
        let mut put = Put::new(buffer);
        put.u16(VERSION)?;
        put.bytes(&self.instance.0)?;
        put.bytes(&self.boot.0)?;
        put.u32(self.pid)?;
        put.u8(self.state as u8)?;
        put.u8(self.reason as u8)?;
        put.u8(self.cause as u8)?;
        put.u8(self.order as u8)?;
        put.u64(self.armed.unwrap_or_default().0)?;
        put.u64(self.retired.0)?;
        put.u64(self.echoed)?;
        put_moment(self.written, &mut put)?;
        put_moment(self.last_pet, &mut put)?;
        put_span(self.late_max, &mut put)?;
        put.u8(self.spans)?;
        put_span(self.watchdog_worst, &mut put)?;
        put_span(self.delta_hw, &mut put)?;
        put.u8(self.posture.bits())?;
        put_device(&self.device, &mut put)?;
        put_span(self.helpers_took, &mut put)?;
        put.u8(u8::from(self.attestation.is_some()))?;
        if let Some(attestation) = &self.attestation {
            put.bytes(&attestation.boot.0)?;
            put.u64(attestation.he.0)?;
            put_moment(attestation.at, &mut put)?;
            attestation.gone.put(&mut put)?;
        }
        Ok(put.written())
    }

    /// Reads a page.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PageError> {
        let mut take = Take::new(bytes);
        let version = take.u16()?;
        if version != VERSION {
            return Err(PageError::Version(version));
        }
        Ok(Self {
            instance: KeeperInstance(take.array()?),
            boot: BootId(take.array()?),
            pid: take.u32()?,
            state: PageState::from_code(take.u8()?).ok_or(PageError::Malformed)?,
            reason: Reason::from_code(take.u8()?).ok_or(PageError::Malformed)?,
            cause: Reason::from_code(take.u8()?).ok_or(PageError::Malformed)?,
            order: Reason::from_code(take.u8()?).ok_or(PageError::Malformed)?,
            armed: Some(HostEpoch(take.u64()?)).filter(|&he| he != HostEpoch::default()),
            retired: HostEpoch(take.u64()?),
            echoed: take.u64()?,
            written: take_moment(&mut take)?,
            last_pet: take_moment(&mut take)?,
            late_max: take_span(&mut take)?,
            spans: take.u8()?,
            watchdog_worst: take_span(&mut take)?,
            delta_hw: take_span(&mut take)?,
            posture: Posture::from_bits(take.u8()?),
            device: take_device(&mut take)?,
            helpers_took: take_span(&mut take)?,
            attestation: take_attestation(&mut take)?,
        })
    }
}

fn take_attestation(take: &mut Take<'_>) -> Result<Option<Attestation>, PageError> {
    if take.u8()? == 0 {
        return Ok(None);
    }
    let mut attestation = Attestation {
        boot: BootId(take.array()?),
        he: HostEpoch(take.u64()?),
        at: take_moment(take)?,
        gone: ArmedSet::reserved(),
    };
    attestation.gone.take(take).map_err(PageError::Table)?;
    Ok(Some(attestation))
}

fn put_device(device: &DeviceFacts, put: &mut Put<'_>) -> Result<(), Short> {
    put.u8(device.kind as u8)?;
    put.bytes(&device.driver)?;
    put_span(device.timeout, put)?;
    put.u8(device.bits())
}

fn take_device(take: &mut Take<'_>) -> Result<DeviceFacts, PageError> {
    let kind = DeviceKind::from_code(take.u8()?).ok_or(PageError::Malformed)?;
    let driver = take.array()?;
    let timeout = take_span(take)?;
    Ok(DeviceFacts { kind, driver, timeout, ..DeviceFacts::from_bits(take.u8()?) })
}

fn put_span(span: Duration, put: &mut Put<'_>) -> Result<(), Short> {
    put.u64(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

fn take_span(take: &mut Take<'_>) -> Result<Duration, Short> {
    take.u64().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::super::armed::{ArmedGroup, GROUPS_MAX};
    use super::*;
    use quorum::id::{Epoch, GroupName};

    fn page() -> Page {
        let mut gone = ArmedSet::default();
        for n in 0..GROUPS_MAX {
            let name = GroupName::new(&format!("group-with-a-name-of-full-length-{n:0>30}")).expect("name");
            gone.push(ArmedGroup::new(&name, Epoch(4), false)).expect("room");
        }
        Page {
            instance: KeeperInstance([3; 16]),
            pid: 77,
            state: PageState::Clean,
            reason: Reason::RetiredEpoch,
            armed: Some(HostEpoch(8)),
            last_pet: Moment { boot_ns: 1, raw_ns: 2 },
            spans: 3,
            posture: Posture { memory_locked: true, realtime: false, oom_exempt: true, held: true },
            device: DeviceFacts { kind: DeviceKind::Lab, nowayout: true, sleep_masked: true, ..DeviceFacts::default() },
            attestation: Some(Attestation { he: HostEpoch(8), gone, ..Attestation::default() }),
            ..Page::default()
        }
    }

    #[test]
    fn a_full_page_survives_its_bytes() {
        let mut bytes = vec![0; PAGE_BYTES_MAX];
        let len = page().encode(&mut bytes).expect("fits");
        assert_eq!(Page::decode(&bytes[..len]).expect("whole"), page());
    }

    #[test]
    fn a_page_cut_anywhere_is_refused_and_never_panics() {
        let mut bytes = vec![0; PAGE_BYTES_MAX];
        let len = page().encode(&mut bytes).expect("fits");
        for cut in (0..len).step_by(7) {
            assert!(Page::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
