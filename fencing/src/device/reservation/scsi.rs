//! SCSI commands for persistent reservations (SPC-4, 5.12 and 6.15–6.16): made, sent with patience, understood.
//!
//! Unit attentions (a reset, preempted or released reservations, changed mode) and a busy target are tried again; they say
//! nothing about the command. Everything else is told as it is.

use crate::key::ReservationKey;
use std::time::Duration;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The SCSI status byte.
    pub status: u8,
    /// Sense key, additional code and qualifier, if there was sense data.
    pub sense: Option<(u8, u8, u8)>,
}

/// Which way data go.
#[derive(Debug)]
pub enum Data<'a> {
    /// From the device; filled as far as it answers.
    In(&'a mut [u8]),
    /// To the device.
    Out(&'a [u8]),
}

/// One path to a logical unit: one initiator-target nexus.
pub trait Path: Send {
    /// Sends one command and waits for its end.
    ///
    /// # Errors
    /// The transport's words: the command may or may not have been carried out.
    fn execute(&mut self, cdb: &[u8], data: Data<'_>) -> Result<Ending, String>;
}

/// Why a command wasn't carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// RESERVATION CONFLICT: this nexus isn't registered with the key that the command names.
    #[error("reservation conflict")]
    Conflict,
    /// The target doesn't know the command or the field.
    #[error("not supported by the target (sense {0:#04x}/{1:#04x}/{2:#04x})")]
    Unsupported(u8, u8, u8),
    /// The target has no room for another registration.
    #[error("the target has no room for another registration")]
    NoRoom,
    /// Another end.
    #[error("status {status:#04x}, sense {sense:x?}")]
    Other {
        /// The status byte.
        status: u8,
        /// The sense triple.
        sense: Option<(u8, u8, u8)>,
    },
    /// It stayed busy, or reported one unit attention after the other.
    #[error("still busy after {0} attempts")]
    Busy(u32),
    /// The transport failed.
    #[error("{0}")]
    Transport(String),
    /// The answer can't be understood.
    #[error("its answer can't be understood: {0}")]
    Garbled(&'static str),
}

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const RESERVATION_CONFLICT: u8 = 0x18;
const TASK_SET_FULL: u8 = 0x28;

const UNIT_ATTENTION: u8 = 6;
const ILLEGAL_REQUEST: u8 = 5;
const ABORTED_COMMAND: u8 = 0xb;

/// There may be one unit attention for each thing that happened.
const ATTEMPTS: u32 = 12;
const PAUSE: Duration = Duration::from_millis(50);

const IN: u8 = 0x5e;
const OUT: u8 = 0x5f;
const INQUIRY: u8 = 0x12;

/// Which writes a reservation holds off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Write exclusive, registrants only (type 5): one holder, all registrants write.
    RegistrantsOnly,
    /// Write exclusive, all registrants (type 7): every registrant holds it.
    AllRegistrants,
}

impl Sort {
    /// The type's code.
    pub const fn code(self) -> u8 {
        match self {
            Self::RegistrantsOnly => 5,
            Self::AllRegistrants => 7,
        }
    }
}

/// What PERSISTENT RESERVE OUT is to do. CLEAR and REGISTER AND IGNORE EXISTING KEY are left out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Registers `new` for this nexus, which holds `old` (zero: none). Zero for `new` takes the registration back.
    Register {
        /// The key that this nexus has.
        old: u64,
        /// The key that it is to have.
        new: u64,
        /// Keep it through a loss of power.
        aptpl: bool,
    },
    /// Takes the reservation.
    Reserve(ReservationKey, Sort),
    /// Removes the victim's registrations and takes over its reservation.
    Preempt {
        /// Our key.
        own: ReservationKey,
        /// The victim's.
        victim: ReservationKey,
        /// The sort of reservation.
        sort: Sort,
        /// Abort what the victim has under way.
        abort: bool,
    },
}

/// Sends an order.
///
/// # Errors
/// [`Fault`].
pub fn order(path: &mut dyn Path, order: Order) -> Result<(), Fault> {
    let (action, sort, own, other, aptpl) = match order {
        Order::Register { old, new, aptpl } => (0, 0, old, new, aptpl),
        Order::Reserve(own, sort) => (1, sort.code(), own.raw(), 0, false),
        Order::Preempt { own, victim, sort, abort } => {
            (4 + u8::from(abort), sort.code(), own.raw(), victim.raw(), false)
        }
    };
    let mut list = [0; 24];
    list[..8].copy_from_slice(&own.to_be_bytes());
    list[8..16].copy_from_slice(&other.to_be_bytes());
    list[20] = u8::from(aptpl);
    let cdb = [OUT, action, sort, 0, 0, 0, 0, 0, 24, 0];
    patiently(|| path.execute(&cdb, Data::Out(&list)))
}

/// Every registered key, one entry per registration.
///
/// # Errors
/// [`Fault`].
pub fn read_keys(path: &mut dyn Path) -> Result<Vec<ReservationKey>, Fault> {
    let answer = read(path, 0)?;
    let length = length_of(&answer)?;
    let keys = answer[8..8 + length].chunks_exact(8);
    Ok(keys.map(|key| ReservationKey::from_raw(number(key))).collect())
}

/// The reservation, if there is one: its holder's key (zero for all registrants) and its type.
///
/// # Errors
/// [`Fault`].
pub fn read_reservation(path: &mut dyn Path) -> Result<Option<(ReservationKey, u8)>, Fault> {
    let answer = read(path, 1)?;
    match length_of(&answer)? {
        0 => Ok(None),
        length if length >= 16 => Ok(Some((ReservationKey::from_raw(number(&answer[8..16])), answer[21] & 0x0f))),
        _ => Err(Fault::Garbled("a reservation of odd length")),
    }
}

/// Whether the target can keep registrations through a loss of power; `None` if it doesn't say.
///
/// # Errors
/// [`Fault`].
pub fn can_persist(path: &mut dyn Path) -> Result<Option<bool>, Fault> {
    let mut answer = [0; 8];
    let cdb = [IN, 2, 0, 0, 0, 0, 0, 0, 8, 0];
    match patiently(|| path.execute(&cdb, Data::In(&mut answer))) {
        Ok(()) => Ok((answer[1] == 8).then_some(answer[2] & 1 == 1)),
        Err(Fault::Unsupported(..)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The logical unit's identity: its NAA, EUI-64 or vendor's designators (VPD page 83h) and its serial number (80h).
///
/// # Errors
/// [`Fault`].
pub fn identity(path: &mut dyn Path) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    let page = vital(path, 0x83)?;
    let mut rest = page.as_slice();
    while rest.len() >= 4 {
        let length = usize::from(rest[3]);
        let Some(value) = rest.get(4..4 + length) else { break };
        let (codes, association, sort) = (rest[0] & 0x0f, rest[1] >> 4 & 0x03, rest[1] & 0x0f);
        // Only what names the logical unit, not the port or the device.
        if association == 0 && matches!(sort, 1..=3 | 8) {
            let hex = || value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let text = || String::from_utf8_lossy(value).trim_matches(['\0', ' ']).to_owned();
            names.push(if codes == 1 { hex() } else { text() });
        }
        rest = &rest[4 + length..];
    }
    let serial = vital(path, 0x80).unwrap_or_default();
    names.push(String::from_utf8_lossy(&serial).trim_matches(['\0', ' ']).to_owned());
    names.retain(|name| !name.is_empty());
    Ok(names)
}

fn vital(path: &mut dyn Path, page: u8) -> Result<Vec<u8>, Fault> {
    let mut answer = vec![0; 252];
    let cdb = [INQUIRY, 1, page, 0, 252, 0];
    patiently(|| path.execute(&cdb, Data::In(&mut answer)))?;
    if answer[1] != page {
        return Err(Fault::Garbled("another page than asked for"));
    }
    let length = usize::from(u16::from_be_bytes([answer[2], answer[3]]));
    Ok(answer[4..(4 + length).min(answer.len())].to_vec())
}

fn read(path: &mut dyn Path, action: u8) -> Result<Vec<u8>, Fault> {
    // Room for a thousand registrations, more than any cluster has.
    const ROOM: u16 = 8 + 8 * 1024;
    let mut answer = vec![0; usize::from(ROOM)];
    let [high, low] = ROOM.to_be_bytes();
    let cdb = [IN, action, 0, 0, 0, 0, 0, high, low, 0];
    patiently(|| path.execute(&cdb, Data::In(&mut answer)))?;
    Ok(answer)
}

fn length_of(answer: &[u8]) -> Result<usize, Fault> {
    let length = u32::from_be_bytes([answer[4], answer[5], answer[6], answer[7]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > answer.len() - 8 { Err(Fault::Garbled("a list longer than its answer")) } else { Ok(length) }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn patiently(mut send: impl FnMut() -> Result<Ending, String>) -> Result<(), Fault> {
    for _ in 0..ATTEMPTS {
        let Ending { status, sense } = send().map_err(Fault::Transport)?;
        match (status, sense) {
            (GOOD, _) => return Ok(()),
            (RESERVATION_CONFLICT, _) => return Err(Fault::Conflict),
            (BUSY | TASK_SET_FULL, _) | (CHECK_CONDITION, Some((ABORTED_COMMAND, _, _))) => std::thread::sleep(PAUSE),
            (CHECK_CONDITION, Some((UNIT_ATTENTION, _, _))) => {}
            // Insufficient registration resources, before the general rule for the same sense key.
            (CHECK_CONDITION, Some((ILLEGAL_REQUEST, 0x55, 0x04))) => return Err(Fault::NoRoom),
            (CHECK_CONDITION, Some((ILLEGAL_REQUEST, code, qualifier))) => {
                return Err(Fault::Unsupported(ILLEGAL_REQUEST, code, qualifier));
            }
            (status, sense) => return Err(Fault::Other { status, sense }),
        }
    }
    Err(Fault::Busy(ATTEMPTS))
}
