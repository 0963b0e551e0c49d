//! A model of a logical unit with persistent reservations as SPC-4 describes them, for the commands that we use.

use fencing::device::reservation::scsi::{Data, Ending, Path};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// The unit's serial number, and so its identity.
pub const WWID: &str = "unit-0001";

#[derive(Debug, Default)]
pub struct Unit {
    /// Registered key by nexus.
    pub keys: BTreeMap<u32, u64>,
    /// Holder's nexus and type.
    pub held: Option<(u32, u8)>,
    /// Unit attentions that wait, by nexus.
    pub attentions: BTreeMap<u32, u32>,
    pub can_abort: bool,
    pub can_persist: bool,
    pub aborted: Vec<u64>,
    pub aptpl: bool,
    pub commands: Vec<(u8, u8)>,
    /// Says that it pre-empted, and does nothing.
    pub only_says_so: bool,
    /// Tells lists longer than they are.
    pub garbage: bool,
    /// Is another unit than it was.
    pub other: bool,
    /// Answers nothing until told to.
    pub hangs: bool,
}

/// The unit and a bell for commands that hang.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Unit>, Condvar);

impl Shared {
    pub fn new(unit: Unit) -> Arc<Self> {
        Arc::new(Self(Mutex::new(unit), Condvar::new()))
    }

    pub fn lock(&self) -> MutexGuard<'_, Unit> {
        self.0.lock().unwrap()
    }

    /// Lets hanging commands go on.
    pub fn release(&self) {
        self.lock().hangs = false;
        self.1.notify_all();
    }
}

#[derive(Clone, Debug)]
pub struct Nexus {
    pub number: u32,
    pub unit: Arc<Shared>,
}

const GOOD: Ending = Ending { status: 0, sense: None };
const CONFLICT: Ending = Ending { status: 0x18, sense: None };
const UNSUPPORTED: Ending = Ending { status: 2, sense: Some((5, 0x24, 0)) };

impl Path for Nexus {
    fn execute(&mut self, cdb: &[u8], data: Data<'_>) -> Result<Ending, String> {
        let mut unit = self.unit.1.wait_while(self.unit.lock(), |unit| unit.hangs).unwrap();
        if let Some(waiting) = unit.attentions.get_mut(&self.number).filter(|waiting| **waiting > 0) {
            *waiting -= 1;
            return Ok(Ending { status: 2, sense: Some((6, 0x2a, 0x03)) });
        }
        unit.commands.push((cdb[0], cdb[1]));
        match (cdb[0], cdb[1], data) {
            (0x12, 1, Data::In(answer)) => Ok(unit.inquire(cdb[2], answer)),
            (0x5e, action, Data::In(answer)) => Ok(unit.tell(action, answer)),
            (0x5f, action, Data::Out(list)) => Ok(unit.obey(self.number, (action, cdb[2]), list)),
            other => panic!("a command that we never send: {other:?}"),
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

impl Unit {
    fn inquire(&self, page: u8, answer: &mut [u8]) -> Ending {
        let serial = if self.other { "unit-9999" } else { WWID };
        answer[1] = page;
        if page == 0x80 {
            answer[3] = u8::try_from(serial.len()).unwrap();
            answer[4..4 + serial.len()].copy_from_slice(serial.as_bytes());
        }
        GOOD
    }

    fn tell(&self, action: u8, answer: &mut [u8]) -> Ending {
        if self.garbage {
            answer[4..8].fill(0xff);
            return GOOD;
        }
        let fill = |answer: &mut [u8], bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).unwrap();
            answer[4..8].copy_from_slice(&length.to_be_bytes());
            answer[8..8 + bytes.len()].copy_from_slice(bytes);
        };
        match action {
            0 => fill(answer, &self.keys.values().flat_map(|key| key.to_be_bytes()).collect::<Vec<_>>()),
            1 => {
                if let Some((nexus, sort)) = self.held {
                    let key = if sort == 7 { 0 } else { self.keys[&nexus] };
                    let mut bytes = [0; 16];
                    bytes[..8].copy_from_slice(&key.to_be_bytes());
                    bytes[13] = sort;
                    fill(answer, &bytes);
                }
            }
            2 => (answer[1], answer[2]) = (8, u8::from(self.can_persist)),
            other => panic!("PERSISTENT RESERVE IN {other}"),
        }
        GOOD
    }

    fn obey(&mut self, nexus: u32, (action, sort): (u8, u8), list: &[u8]) -> Ending {
        let (own, other) = (number(&list[..8]), number(&list[8..16]));
        if self.keys.get(&nexus).copied().unwrap_or(0) != own {
            return CONFLICT;
        }
        match action {
            0 => {
                self.aptpl = list[20] & 1 == 1;
                if other == 0 {
                    self.keys.remove(&nexus);
                    self.held = self.held.filter(|(holder, _)| *holder != nexus);
                } else {
                    self.keys.insert(nexus, other);
                }
                GOOD
            }
            1 if self.held.is_some_and(|held| held != (nexus, sort)) => CONFLICT,
            1 => {
                self.held = Some((nexus, sort));
                GOOD
            }
            5 if !self.can_abort => UNSUPPORTED,
            4 | 5 if self.only_says_so => GOOD,
            4 | 5 => self.preempt(nexus, (action == 5, sort), other),
            other => panic!("PERSISTENT RESERVE OUT {other}: CLEAR and REGISTER AND IGNORE are never sent"),
        }
    }

    fn preempt(&mut self, nexus: u32, (abort, sort): (bool, u8), victim: u64) -> Ending {
        assert_ne!(victim, 0, "zero pre-empts everybody");
        let gone: Vec<u32> = self.keys.iter().filter(|(_, key)| **key == victim).map(|(nexus, _)| *nexus).collect();
        if gone.is_empty() {
            return CONFLICT;
        }
        for lost in gone.iter().filter(|lost| **lost != nexus) {
            self.keys.remove(lost);
            *self.attentions.entry(*lost).or_default() += 1;
        }
        if self.held.is_some_and(|(holder, _)| gone.contains(&holder)) {
            self.held = Some((nexus, sort));
        }
        if abort {
            self.aborted.push(victim);
        }
        GOOD
    }
}
