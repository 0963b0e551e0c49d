//! Starting and ending a keeper: everything that may allocate, wait and touch a disk is done here, before the loop.
//!
//! Contract: must be called in a single-threaded process (the agent's binary calls it before it starts a runtime).
//! A keeper that can't protect anything says why in its page and on its standard error, touches no watchdog, and ends
//! with an error.

use super::args::{ArgsError, KeeperArgs};
use super::armed::ArmedSet;
use super::core::{Core, Head, Params, Reason};
use super::driver::{Keeper, Parts};
use super::handover::{self, HandoverError, Leaving, Resumed, State, Successor};
use super::helper::{HelperError, Helpers};
use super::holder::HolderLink;
use super::link::{LinkError, PAGE_FILE, PageReader, RECORD_FILE};
use super::page::{PAGE_BYTES_MAX, Page, PageState, Posture};
use super::posture::{self, Rank};
use super::record::{RECORD_BYTES_MAX, decode_into};
use super::signals::Signals;
use super::slice::{Slice, SliceError, SliceRoot};
use super::slots::{Mapping, SlotReader, SlotWriter};
use crate::driver::clock::{self, ClockError};
use quorum::id::{BootId, HostEpoch, KeeperInstance};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_FILE: &str = "keeper.lock";
const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// Why a keeper did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The arguments contradict each other. Nothing was opened.
    #[error("start the keeper: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Args(Vec<ArgsError>),
    /// A file of its directory could not be made or opened.
    #[error("open {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Its directory is on a disk.
    #[error("work in {0:?}: it must be on a tmpfs, a keeper may not wait for a disk")]
    OnDisk(PathBuf),
    /// Another keeper works there.
    #[error("work in {0:?}: another keeper does")]
    Busy(PathBuf),
    /// The kernel doesn't tell the boot.
    #[error("tell this boot from others")]
    Boot(#[source] ClockError),
    /// Nothing can be protected here: the host is of class D at best, and only by people's word.
    #[error("make the protected slice; without it nothing can be killed for sure (class D)")]
    Slice(#[source] SliceError),
    /// A helper isn't ready.
    #[error("start the keeper")]
    Helper(#[source] HelperError),
    /// Signals could not be taken.
    #[error("take signals")]
    Signals(#[source] Errno),
    /// What was asked for is only there while a keeper runs.
    #[error("look at the keeper")]
    Show(#[source] LinkError),
    /// The fire test could not be done, or its record not be read.
    #[error("test the watchdog")]
    Fire(#[source] super::fire::FireError),
}

/// Runs `antipode keeper`: until it is stopped in an orderly way; or does what `--show`, `--fire-test` and
/// `--fire-report` ask for.
///
/// # Errors
/// [`KeeperError`].
pub fn run(args: &KeeperArgs) -> Result<(), KeeperError> {
    if args.show {
        return super::show::print(&args.dir).map_err(KeeperError::Show);
    }
    if let (true, Some(file)) = (args.fire_report, &args.fire_file) {
        return super::fire::print_report(file).map_err(KeeperError::Fire);
    }
    let problems = args.problems();
    if !problems.is_empty() {
        return Err(KeeperError::Args(problems));
    }
    if let (Some(how), Some(file)) = (args.fire_test, &args.fire_file) {
        let _lock = lock(&args.dir)?;
        return super::fire::test(args, how, file).map_err(KeeperError::Fire);
    }
    keep(args)
}

fn keep(args: &KeeperArgs) -> Result<(), KeeperError> {
    let mut signals = Signals::block().map_err(KeeperError::Signals)?;
    let boot = clock::boot_id().map_err(KeeperError::Boot)?;
    let resumed = args.resume.and_then(|memfd| handover::resume(memfd, boot).inspect_err(explain_restart).ok());
    let (mut keeper, lock) = match resumed {
        Some(resumed) => resume(args, boot, resumed)?,
        None => start(args, boot)?,
    };
    let mut successor =
        Successor::prepare().map_err(|source| KeeperError::File { path: PathBuf::from("/proc/self/exe"), source })?;
    loop {
        let wait = keeper.turn();
        if let Some(fault) = keeper.take_fault() {
            eprintln!("antipode keeper: failed to set up the watchdog: {}", chain(&fault));
        }
        let asked = signals.take();
        if asked.stop {
            match keeper.stop(args.allow_disarm) {
                Ok(()) => return Ok(()),
                Err(because) => keeper.refuse_order(because),
            }
        }
        if asked.upgrade {
            upgrade(&mut keeper, &mut successor, lock.as_fd());
        }
        pause(&signals, wait);
    }
}

fn explain_restart(error: &HandoverError) {
    eprintln!("antipode keeper: this is a restart, not an upgrade: {}", chain(error));
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn pause(signals: &Signals, wait: Duration) {
    let mut fds = [PollFd::new(signals, PollFlags::IN)];
    let wait = Timespec::try_from(wait).unwrap_or_default();
    // An interrupted wait only makes the next look come sooner.
    rustix::event::poll(&mut fds, Some(&wait)).ok();
}

fn upgrade(keeper: &mut Keeper, successor: &mut Successor, lock: std::os::fd::BorrowedFd<'_>) {
    let Some(saved) = keeper.core.save() else {
        return keeper.refuse_order(Reason::UpgradeFailed);
    };
    let params = keeper.core.params();
    let mut adopted = ArmedSet::default();
    std::mem::swap(&mut adopted, &mut keeper.adopted);
    let last_pet = keeper.page().last_pet;
    let mut state = State { boot: params.boot, instance: params.instance, saved, adopted, last_pet };
    let leaving = Leaving {
        state: &state,
        device: keeper.dog.as_ref().map(|dog| dog.descriptor()),
        lock,
        helpers: &keeper.helpers,
    };
    let _errno = successor.become_next(&leaving);
    std::mem::swap(&mut state.adopted, &mut keeper.adopted);
    keeper.refuse_order(Reason::UpgradeFailed);
}

/// A keeper of its own instance; whatever an earlier one left is treated as retired.
fn start(args: &KeeperArgs, boot: BootId) -> Result<(Keeper, OwnedFd), KeeperError> {
    let lock = lock(&args.dir)?;
    let posture = posture::assume(Rank::Keeper);
    let floor = latch_left(&args.dir, boot);
    let (mut record, page) = map(args)?;
    let params = params(args, boot, new_instance()?);
    let slice = match make_slice(args) {
        Ok(slice) => slice,
        Err(error) => return Err(refuse(page, &params, error)),
    };
    let helpers = Helpers::start(&args.helpers, args.helpers_ready_within).map_err(KeeperError::Helper)?;
    let mut armed = ArmedSet::reserved();
    let found = found(&mut record, &mut armed);
    let core = Core::restarted(params, found, floor);
    let parts = parts(args, (core, slice, helpers), (record, page), posture);
    Ok((Keeper::new(parts, armed), lock))
}

/// The keeper that the program before was.
fn resume(args: &KeeperArgs, boot: BootId, resumed: Resumed) -> Result<(Keeper, OwnedFd), KeeperError> {
    let posture = posture::assume(Rank::Keeper);
    let attestation = PageReader::open(&args.dir).and_then(|mut reader| reader.page()).ok();
    let attestation =
        attestation.filter(|page| page.instance == resumed.state.instance).and_then(|page| page.attestation);
    let (record, page) = map(args)?;
    let core = Core::resumed(params(args, boot, resumed.state.instance), &resumed.state.saved);
    let slice = make_slice(args).map_err(KeeperError::Slice)?;
    let parts = parts(args, (core, slice, resumed.helpers), (record, page), posture);
    let mut keeper = Keeper::new(parts, resumed.state.adopted);
    keeper.keep_attestation(attestation, resumed.state.last_pet);
    if let Some(kept) = resumed.device
        && let Some(opened) = args.watchdog.adopt(kept, args.timeout)
    {
        keeper.resume_device(opened);
    }
    Ok((keeper, resumed.lock))
}

fn parts(
    args: &KeeperArgs,
    (core, slice, helpers): (Core, Slice, Helpers),
    (record, page): (SlotReader, SlotWriter),
    posture: Posture,
) -> Parts {
    Parts {
        core,
        slice,
        helpers,
        holder: HolderLink::new(args.holder().as_deref()),
        spec: args.watchdog.clone(),
        timeout: args.timeout,
        period: args.period,
        look: args.look,
        record,
        page,
        posture,
    }
}

fn params(args: &KeeperArgs, boot: BootId, instance: KeeperInstance) -> Params {
    Params {
        boot,
        instance,
        watchdog_worst: args.worst(),
        delta_hw: args.delta_hw,
        delta_io: args.delta_io,
        lease_max: args.lease_max,
    }
}

/// Makes the directory if need be and locks it against other keepers. The lock belongs to the process, so that a
/// program that failed to take over can lock anew what the one before it had.
fn lock(dir: &Path) -> Result<OwnedFd, KeeperError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KeeperError::File { path, source }
    };
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    let kind = rustix::fs::statfs(dir).map_err(|errno| failed(dir)(errno.into()))?.f_type as u32;
    if kind != TMPFS_MAGIC && kind != RAMFS_MAGIC {
        return Err(KeeperError::OnDisk(dir.to_owned()));
    }
    let path = dir.join(LOCK_FILE);
    let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(failed(&path))?;
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| KeeperError::Busy(dir.to_owned()))?;
    Ok(file.into())
}

fn map(args: &KeeperArgs) -> Result<(SlotReader, SlotWriter), KeeperError> {
    let create = |name: &str, capacity| {
        let path = args.dir.join(name);
        Mapping::create(&path, capacity).map_err(|source| KeeperError::File { path, source })
    };
    let record = SlotReader::new(create(RECORD_FILE, RECORD_BYTES_MAX)?);
    let page = SlotWriter::new(create(PAGE_FILE, PAGE_BYTES_MAX)?);
    Ok((record, page))
}

fn make_slice(args: &KeeperArgs) -> Result<Slice, SliceError> {
    Slice::create(&SliceRoot::find(&args.slice)?)
}

/// The latch of a keeper before this one in this boot. A page that can't be read has none: then the slice is ended
/// all the same, and a new instance refuses every record of the old one.
fn latch_left(dir: &Path, boot: BootId) -> HostEpoch {
    let page = PageReader::open(dir).and_then(|mut reader| reader.page());
    page.ok().filter(|page| page.boot == boot).map_or(HostEpoch::default(), |page| page.retired)
}

fn found(record: &mut SlotReader, armed: &mut ArmedSet) -> Option<Head> {
    let bytes = record.read().ok()?;
    decode_into(bytes, armed).ok()
}

fn new_instance() -> Result<KeeperInstance, KeeperError> {
    let path = Path::new("/dev/urandom");
    let mut instance = [0; 16];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut instance))
        .map_err(|source| KeeperError::File { path: path.to_owned(), source })?;
    Ok(KeeperInstance(instance))
}

/// Says in the page why nothing is protected here.
fn refuse(mut writer: SlotWriter, params: &Params, error: SliceError) -> KeeperError {
    let page = Page {
        instance: params.instance,
        boot: params.boot,
        pid: std::process::id(),
        state: PageState::Refused,
        reason: Reason::NoSlice,
        written: clock::now(),
        ..Page::default()
    };
    let mut buffer = vec![0; PAGE_BYTES_MAX];
    if let Ok(len) = page.encode(&mut buffer) {
        writer.write(&buffer[..len]);
    }
    KeeperError::Slice(error)
}
