//! `sbd`: a poison pill in the host's slot on one to three shared block devices, in ClusterLabs' on-disk format.
//!
//! An accelerator: a host that runs `sbd watch` dies sooner. Nothing ever says that it died: the slot keeps our message
//! whether it was read or not, so this is never evidence, and a level made of it alone proves nothing.
//!
//! The format (sbd 1.5, header version 2): sector 0 begins `SBD_SBD_`, version, number of slots, then big-endian sector
//! size at byte 12 and timeouts for watchdog, allocate, loop, msgwait at 16, 20, 24, 28. Slot *i* is sector 1 + 2*i*
//! (in use, name of 64 bytes), its mailbox sector 2 + 2*i* (command, sender of 64 bytes).
//! Not here: making devices and slots (`sbd create`, `sbd allocate`), the watcher.

use super::blocking::Desk;
use super::{BoxFuture, Call, Device, Kind, Sight, rhythm};
use crate::facts::{DeviceFacts, Proves};
use crate::params::{Key, Params};
use crate::reading::Observed;
use crate::session::Act;
use crate::target::ReportedIdentity;
use crate::topology::Problem;
use crate::trouble::Trouble;
use rustix::fs::{FileType, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "sbd",
    about: "a poison pill on shared disks (ClusterLabs sbd); hastens the end, proves nothing",
    keys: &[
        Key { name: "devices", about: "one to three block devices (list)" },
        Key { name: "node", about: "the host's name in its slot" },
    ],
    build,
};

const MAGIC: &[u8; 8] = b"SBD_SBD_";
const VERSION: u8 = 2;
const NAME_BYTES: usize = 64;
const OFF: u8 = 3;
const MESSAGES: [&str; 6] = ["clear", "test", "reset", "off", "exit", "crashdump"];
/// Who the message is from, as `sbd list` shows it.
const SENDER: &str = "antipode";

struct Sbd {
    facts: DeviceFacts,
    devices: Vec<PathBuf>,
    node: String,
    desks: Vec<Arc<Desk>>,
}

fn build(mut params: Params) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let common = params.common();
    let rhythm = params.rhythm(rhythm(5_000, 5_000, 1_000, 1_000, 2_000), Duration::ZERO);
    let devices: Vec<PathBuf> = params.list("devices").into_iter().map(PathBuf::from).collect();
    let node = params.required::<String>("node");
    if !(1..=3).contains(&devices.len()) || devices.iter().any(|device| !device.is_absolute()) {
        params.problem(
            "devices",
            "aren't one to three absolute paths".into(),
            "write devices = [\"/dev/disk/by-id/...\"]".into(),
        );
    }
    if node.as_ref().is_some_and(|node| node.len() >= NAME_BYTES) {
        params.problem("node", "is too long".into(), format!("a slot's name has fewer than {NAME_BYTES} bytes"));
    }
    let device = common.zip(node).map(|(common, node)| {
        let why = "a poison pill asks the host to die; nothing says that it did";
        let facts = common.facts(KIND.name, Proves::Nothing(why), rhythm, "");
        let desks = devices.iter().map(|_| Arc::new(Desk::new())).collect();
        Arc::new(Sbd { facts, devices, node, desks }) as Arc<dyn Device>
    });
    params.finish(device)
}

impl Sbd {
    /// Does `work` on every device at the same time.
    async fn on_all<T, F>(&self, work: F) -> Vec<Result<T, Trouble>>
    where
        T: Send + 'static,
        F: Fn(&Slot) -> Result<T, Trouble> + Clone + Send + 'static,
    {
        let mut all = JoinSet::new();
        for (path, desk) in self.devices.iter().zip(&self.desks) {
            let (path, node, work, desk) = (path.clone(), self.node.clone(), work.clone(), desk.clone());
            let lab = self.facts.lab;
            all.spawn(async move { desk.run(move || work(&Slot::find(&path, &node, lab)?)).await });
        }
        all.join_all().await
    }
}

impl Device for Sbd {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read<'a>(&'a self, _call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>> {
        Box::pin(async {
            let results = self.on_all(|slot| slot.message()).await;
            let messages = majority(results)?;
            let text = format!("slot of {}: {}", self.node, messages.join(", "));
            Ok(Sight::new(Observed::Note(text), ReportedIdentity::none()))
        })
    }

    fn off<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async {
            let call = call.clone();
            let results = self.on_all(move |slot| slot.send_off(&|| call.check())).await;
            majority(results).map(|_| ())
        })
    }

    fn preview(&self, act: Act) -> Vec<String> {
        let what = if act == Act::Off { "message off to" } else { "message in" };
        self.devices.iter().map(|device| format!("{what} the slot of {} on {}", self.node, device.display())).collect()
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for desk in &self.desks {
                desk.quiet().await;
            }
        })
    }
}

/// The results of more than half of the devices, as sbd itself counts; or the first trouble.
fn majority<T>(results: Vec<Result<T, Trouble>>) -> Result<Vec<T>, Trouble> {
    let needed = results.len() / 2 + 1;
    let mut good = Vec::new();
    let mut trouble = None;
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    match trouble {
        Some(trouble) if good.len() < needed => Err(trouble),
        Some(_) | None => Ok(good),
    }
}

/// The slot of a node on an opened device.
struct Slot {
    disk: OwnedFd,
    sector: usize,
    number: usize,
}

impl Slot {
    fn find(path: &Path, node: &str, lab: bool) -> Result<Self, Trouble> {
        let shown = path.display();
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::DSYNC | OFlags::CLOEXEC;
        let disk = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| Trouble::Unusable { because: format!("{shown} can't be opened: {error}") })?;
        let stat = rustix::fs::fstat(&disk);
        let is_block = stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice);
        if !is_block && !lab {
            return Err(Trouble::Unusable { because: format!("{shown} isn't a block device") });
        }
        // Sector 0 is read with the largest sector size in use; the header tells the real one.
        let header = read_at(&disk, 4096, 0)?;
        let Geometry { sector, slots } = geometry(&header).map_err(|trouble| trouble.at(path))?;
        for number in 0..slots {
            let slot = read_at(&disk, sector, (1 + 2 * number) * sector)?;
            if is_of(&slot, node) {
                return Ok(Self { disk, sector, number });
            }
        }
        Err(Trouble::Unusable { because: format!("{shown} has no slot for {node} (`sbd -d {shown} allocate {node}`)") })
    }

    fn mailbox(&self) -> usize {
        (2 + 2 * self.number) * self.sector
    }

    fn message(&self) -> Result<String, Trouble> {
        Ok(message(&read_at(&self.disk, self.sector, self.mailbox())?))
    }

    fn send_off(&self, check: &dyn Fn() -> Result<(), Trouble>) -> Result<(), Trouble> {
        let mut sector = Aligned::new(self.sector);
        let bytes = sector.bytes();
        bytes[0] = OFF;
        bytes[1..=SENDER.len()].copy_from_slice(SENDER.as_bytes());
        check()?;
        let written = rustix::io::pwrite(&self.disk, sector.bytes(), self.mailbox() as u64);
        let wrong = |because: String| Trouble::Refused { because };
        match written {
            Ok(count) if count == self.sector => {}
            Ok(count) => return Err(wrong(format!("only {count} bytes of the message were taken"))),
            Err(error) => return Err(wrong(format!("the message can't be written: {error}"))),
        }
        let read = read_at(&self.disk, self.sector, self.mailbox())?;
        if read[0] == OFF { Ok(()) } else { Err(wrong("the message isn't there after it was written".to_owned())) }
    }
}

/// How a device is divided.
pub(super) struct Geometry {
    /// Bytes of a sector.
    pub(super) sector: usize,
    /// How many slots there are.
    pub(super) slots: usize,
}

/// What the first sector says.
pub(super) fn geometry(header: &[u8]) -> Result<Geometry, BadHeader> {
    let Some((header, _)) = header.split_first_chunk::<16>() else { return Err(BadHeader::Foreign) };
    if &header[..8] != MAGIC || header[8] != VERSION {
        return Err(BadHeader::Foreign);
    }
    let sector = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    if !matches!(sector, 512 | 1024 | 2048 | 4096) {
        return Err(BadHeader::Sector(sector));
    }
    Ok(Geometry { sector: sector as usize, slots: usize::from(header[9]) })
}

/// Why a first sector is of no use.
#[derive(Debug)]
pub(super) enum BadHeader {
    /// It isn't sbd's.
    Foreign,
    /// No disk has such sectors.
    Sector(u32),
}

impl BadHeader {
    fn at(self, path: &Path) -> Trouble {
        let shown = path.display();
        match self {
            Self::Foreign => {
                let because = format!("{shown} isn't an sbd device of version {VERSION} (`sbd create`)");
                Trouble::Unusable { because }
            }
            Self::Sector(sector) => Trouble::Garbled { because: format!("{shown} tells a sector size of {sector}") },
        }
    }
}

/// Whether a slot is in use and `node`'s.
pub(super) fn is_of(slot: &[u8], node: &str) -> bool {
    slot.split_first().is_some_and(|(used, rest)| *used == 1 && name(rest).eq_ignore_ascii_case(node))
}

/// What a mailbox says.
pub(super) fn message(mailbox: &[u8]) -> String {
    let (code, from) = mailbox.split_first().map_or((u8::MAX, String::new()), |(code, rest)| (*code, name(rest)));
    let message = MESSAGES.get(usize::from(code)).copied().unwrap_or("unknown");
    if from.is_empty() { message.to_owned() } else { format!("{message} from {from}") }
}

fn name(bytes: &[u8]) -> String {
    let bytes = &bytes[..NAME_BYTES.min(bytes.len())];
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect()
}

fn read_at(disk: &OwnedFd, count: usize, at: usize) -> Result<Vec<u8>, Trouble> {
    let mut sector = Aligned::new(count);
    match rustix::io::pread(disk, sector.bytes(), at as u64) {
        Ok(read) if read == count => Ok(sector.bytes().to_vec()),
        Ok(read) => Err(Trouble::Garbled { because: format!("only {read} of {count} bytes can be read at {at}") }),
        Err(error) => Err(Trouble::Refused { because: format!("it can't be read at {at}: {error}") }),
    }
}

/// A buffer aligned as O_DIRECT wants it.
struct Aligned {
    store: Vec<u8>,
    start: usize,
    count: usize,
}

impl Aligned {
    const ALIGN: usize = 4096;

    fn new(count: usize) -> Self {
        let store = vec![0; count + Self::ALIGN];
        let start = store.as_ptr().align_offset(Self::ALIGN);
        Self { store, start, count }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.store[self.start..self.start + self.count]
    }
}
