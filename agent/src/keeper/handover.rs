//! The exec upgrade: the installed program goes on as the same process, instance, latch, record and descriptors.
//!
//! Contract (protocol §2): all that is needed travels in a sealed memfd; if anything of it is missing, of another
//! boot or process, or torn, the new program is a restarted keeper and begins with freeze, kill and verify. Making
//! and writing the memfd allocates nothing in this process; the next pet stands under the same inequality.
//!
//! Not here: when it is done (`run`: between two turns, and only where the core can be saved).

use super::armed::{ArmedSet, TABLE_BYTES_MAX};
use super::core::{Reason, Saved};
use super::helper::Helpers;
use super::layout::{Put, Short, Take};
use super::record::{put_head, put_moment, take_head, take_moment};
use quorum::id::{BootId, Era, HostEpoch, KeeperInstance};
use quorum::moment::Moment;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, FdFlags};
use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

/// "antikeep", handed over, and the version of the layout.
const MAGIC: &[u8; 8] = b"antikh\0\x01";
const BYTES_MAX: usize = 1024 + TABLE_BYTES_MAX;
const HELPERS_MAX: usize = 32;
/// The hidden argument, with room for any descriptor's number.
const RESUME: &str = "--resume=";
const RESUME_DIGITS: usize = 10;

/// What goes from one program to the next besides descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) boot: BootId,
    pub(super) instance: KeeperInstance,
    pub(super) saved: Saved,
    pub(super) adopted: ArmedSet,
    pub(super) last_pet: Moment,
}

/// What the next program finds.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) state: State,
    pub(super) device: Option<OwnedFd>,
    pub(super) lock: OwnedFd,
    pub(super) helpers: Helpers,
}

/// Why nothing could be resumed: the new program is a restarted keeper.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The memfd or a descriptor in it isn't there, or isn't sealed.
    #[error("take over from the program before")]
    Descriptor(#[source] Errno),
    /// The bytes are torn or of another version.
    #[error("take over from the program before: what it left is malformed")]
    Malformed,
    /// It is of another process or boot.
    #[error("take over from the program before: what it left belongs to another process or boot")]
    Foreign,
}

impl From<Short> for HandoverError {
    fn from(Short: Short) -> Self {
        Self::Malformed
    }
}

/// What is needed to become the next program, prepared while memory may still be allocated.
#[derive(Debug)]
pub(super) struct Successor {
    program: CString,
    arguments: Vec<Vec<u8>>,
    environment: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    buffer: Box<[u8]>,
}

/// What of a running keeper the next program needs.
pub(super) struct Leaving<'a> {
    pub(super) state: &'a State,
    pub(super) device: Option<BorrowedFd<'a>>,
    pub(super) lock: BorrowedFd<'a>,
    pub(super) helpers: &'a Helpers,
}

impl Successor {
    /// The program that is installed where this one was started from, with the same arguments and environment.
    pub(super) fn prepare() -> std::io::Result<Self> {
        let nul = |_| std::io::Error::other("an argument with a NUL");
        let program = CString::new(std::env::current_exe()?.into_os_string().into_vec()).map_err(nul)?;
        let kept = |argument: &OsString| !argument.to_string_lossy().starts_with(RESUME);
        let mut arguments: Vec<Vec<u8>> =
            std::env::args_os().filter(kept).map(|argument| terminated(argument.into_vec())).collect();
        let resume = format!("{RESUME}{:0width$}", 0, width = RESUME_DIGITS);
        arguments.push(terminated(resume.into_bytes()));
        let variable = |(name, value): (OsString, OsString)| {
            CString::new([name.into_vec(), vec![b'='], value.into_vec()].concat()).map_err(nul)
        };
        let environment = std::env::vars_os().map(variable).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            program,
            argv: Vec::with_capacity(arguments.len() + 1),
            envp: Vec::with_capacity(environment.len() + 1),
            arguments,
            environment,
            buffer: vec![0; BYTES_MAX].into_boxed_slice(),
        })
    }

    /// Becomes the next program. Comes back only if that failed; then everything is as before.
    pub(super) fn become_next(&mut self, leaving: &Leaving<'_>) -> Errno {
        match self.leave(leaving) {
            Ok(memfd) => {
                let errno = self.exec(memfd.as_raw_fd());
                inherit(leaving, FdFlags::CLOEXEC).err().unwrap_or(errno)
            }
            Err(errno) => errno,
        }
    }

    fn leave(&mut self, leaving: &Leaving<'_>) -> Result<OwnedFd, Errno> {
        let len = encode(leaving, &mut self.buffer).map_err(|Short| Errno::NOBUFS)?;
        let memfd = rustix::fs::memfd_create(c"antipode-keeper", MemfdFlags::ALLOW_SEALING)?;
        let mut rest = &self.buffer[..len];
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&memfd, rest))?;
            rest = &rest[written..];
        }
        rustix::fs::fcntl_add_seals(&memfd, seals())?;
        inherit(leaving, FdFlags::empty())?;
        Ok(memfd)
    }

    fn exec(&mut self, memfd: RawFd) -> Errno {
        if let Some(resume) = self.arguments.last_mut() {
            let mut rest = memfd.unsigned_abs();
            for digit in resume.iter_mut().rev().skip(1).take(RESUME_DIGITS) {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        self.argv.clear();
        self.argv.extend(self.arguments.iter().map(|argument| argument.as_ptr().cast()));
        self.argv.push(std::ptr::null());
        self.envp.clear();
        self.envp.extend(self.environment.iter().map(|variable| variable.as_ptr()));
        self.envp.push(std::ptr::null());
        // SAFETY: both arrays end with a null pointer and point to NUL-terminated texts that live through the call.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
    }
}

fn terminated(mut text: Vec<u8>) -> Vec<u8> {
    text.push(0);
    text
}

fn seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

/// Lets the descriptors of `leaving` live through an exec, or not.
fn inherit(leaving: &Leaving<'_>, flags: FdFlags) -> Result<(), Errno> {
    let helpers = leaving.helpers.kept().flat_map(|kept| [kept.to, kept.from]);
    let others = [leaving.device, Some(leaving.lock)].into_iter().flatten();
    for fd in others {
        rustix::io::fcntl_setfd(fd, flags)?;
    }
    for raw in helpers {
        // SAFETY: the helpers own these descriptors and outlive this call.
        rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(raw) }, flags)?;
    }
    Ok(())
}

fn encode(leaving: &Leaving<'_>, buffer: &mut [u8]) -> Result<usize, Short> {
    let room = buffer.len().checked_sub(4).ok_or(Short)?;
    let state = leaving.state;
    let mut put = Put::new(&mut buffer[..room]);
    put.bytes(MAGIC)?;
    put.u32(std::process::id())?;
    put.bytes(&state.boot.0)?;
    put.bytes(&state.instance.0)?;
    put_saved(&state.saved, &mut put)?;
    state.adopted.put(&mut put)?;
    put_moment(state.last_pet, &mut put)?;
    put.u32(leaving.device.map_or(u32::MAX, |device| device.as_raw_fd().unsigned_abs()))?;
    put.u32(leaving.lock.as_raw_fd().unsigned_abs())?;
    put.u8(u8::from(leaving.helpers.is_triggered()))?;
    put.u8(u8::try_from(leaving.helpers.len()).ok().filter(|&n| usize::from(n) <= HELPERS_MAX).ok_or(Short)?)?;
    for kept in leaving.helpers.kept() {
        put.u32(kept.to.unsigned_abs())?;
        put.u32(kept.from.unsigned_abs())?;
        put.u8(kept.state)?;
    }
    let len = put.written();
    let sum = crc32fast::hash(&buffer[..len]);
    buffer[len..len + 4].copy_from_slice(&sum.to_le_bytes());
    Ok(len + 4)
}

fn put_saved(saved: &Saved, put: &mut Put<'_>) -> Result<(), Short> {
    put.u8(u8::from(saved.armed.is_some()))?;
    if let Some(head) = &saved.armed {
        put_head(head, put)?;
    }
    put.u16(saved.era.0)?;
    put.u64(saved.retired.0)?;
    put.u64(saved.sequence)?;
    put.u64(saved.echoed)?;
    put.u64(saved.attested.0)?;
    put.u8(saved.cause as u8)
}

fn take_saved(take: &mut Take<'_>) -> Result<Saved, HandoverError> {
    let armed = match take.u8()? {
        0 => None,
        1 => Some(take_head(take)?),
        _ => return Err(HandoverError::Malformed),
    };
    Ok(Saved {
        armed,
        era: Era(take.u16()?),
        retired: HostEpoch(take.u64()?),
        sequence: take.u64()?,
        echoed: take.u64()?,
        attested: HostEpoch(take.u64()?),
        cause: Reason::from_code(take.u8()?).ok_or(HandoverError::Malformed)?,
    })
}

/// Takes over what the program before left in `memfd`.
///
/// # Errors
/// [`HandoverError`]. Descriptors that were named are left open: closing the device's would be a pet.
pub(super) fn resume(memfd: RawFd, boot: BootId) -> Result<Resumed, HandoverError> {
    let memfd = own(inherited(memfd.unsigned_abs())?);
    let sealed = rustix::fs::fcntl_get_seals(&memfd).map_err(HandoverError::Descriptor)?;
    if !sealed.contains(seals()) {
        return Err(HandoverError::Malformed);
    }
    let mut bytes = vec![0; BYTES_MAX];
    let len = rustix::io::pread(&memfd, &mut bytes[..], 0).map_err(HandoverError::Descriptor)?;
    let body = checked(&bytes[..len]).ok_or(HandoverError::Malformed)?;
    let mut take = Take::new(body);
    let (pid, state) = take_state(&mut take)?;
    if pid != std::process::id() || state.boot != boot {
        return Err(HandoverError::Foreign);
    }
    take_descriptors(state, &mut take)
}

/// Whose it is, and all but the descriptors.
pub(super) fn take_state(take: &mut Take<'_>) -> Result<(u32, State), HandoverError> {
    if take.array()? != *MAGIC {
        return Err(HandoverError::Malformed);
    }
    let pid = take.u32()?;
    let boot = BootId(take.array()?);
    let instance = KeeperInstance(take.array()?);
    let saved = take_saved(take)?;
    let mut adopted = ArmedSet::reserved();
    adopted.take(take).map_err(|_| HandoverError::Malformed)?;
    Ok((pid, State { boot, instance, saved, adopted, last_pet: take_moment(take)? }))
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    (crc32fast::hash(body).to_le_bytes() == *sum).then_some(body)
}

/// Every descriptor is looked at before any is owned: an error after that would close the device's.
fn take_descriptors(state: State, take: &mut Take<'_>) -> Result<Resumed, HandoverError> {
    let device = Some(take.u32()?).filter(|&raw| raw != u32::MAX).map(inherited).transpose()?;
    let lock = inherited(take.u32()?)?;
    let triggered = take.u8()? == 1;
    let mut kept = Vec::new();
    for _ in 0..take.u8()? {
        kept.push((inherited(take.u32()?)?, inherited(take.u32()?)?, take.u8()?));
    }
    let helpers = Helpers::resume(kept.into_iter().map(|(to, from, state)| (own(to), own(from), state)), triggered)
        .map_err(|error| HandoverError::Descriptor(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    Ok(Resumed { state, device: device.map(own), lock: own(lock), helpers })
}

/// The number of an inherited descriptor that is open, and that no further exec inherits unasked.
fn inherited(raw: u32) -> Result<RawFd, HandoverError> {
    let raw = RawFd::try_from(raw).map_err(|_| HandoverError::Malformed)?;
    // SAFETY: only borrowed to ask the kernel whether it is open at all.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(HandoverError::Descriptor)?;
    Ok(raw)
}

fn own(inherited: RawFd) -> OwnedFd {
    // SAFETY: it is open, was handed over to this program, and nothing else in it knows the number.
    unsafe { OwnedFd::from_raw_fd(inherited) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn state() -> State {
        let saved = Saved {
            armed: None,
            era: Era(1),
            retired: HostEpoch(4),
            sequence: 9,
            echoed: 8,
            attested: HostEpoch(4),
            cause: Reason::Expired,
        };
        State {
            boot: BootId([1; 16]),
            instance: KeeperInstance([2; 16]),
            saved,
            adopted: ArmedSet::default(),
            last_pet: Moment::from_ns(5),
        }
    }

    fn successor() -> Successor {
        Successor {
            program: c"/nonexistent".into(),
            arguments: vec![b"--resume=0000000000\0".to_vec()],
            environment: Vec::new(),
            argv: Vec::with_capacity(2),
            envp: Vec::with_capacity(1),
            buffer: vec![0; BYTES_MAX].into_boxed_slice(),
        }
    }

    fn left(state: &State, lock: &OwnedFd) -> RawFd {
        let helpers = Helpers::default();
        let leaving = Leaving { state, device: None, lock: lock.as_fd(), helpers: &helpers };
        std::os::fd::IntoRawFd::into_raw_fd(successor().leave(&leaving).expect("left"))
    }

    /// A descriptor that may be taken over: nobody else in this process owns it.
    fn lock() -> OwnedFd {
        tempfile::tempfile().expect("a file").into()
    }

    #[test]
    fn what_one_program_leaves_the_next_finds() {
        let (state, lock) = (state(), lock());
        let memfd = left(&state, &lock);
        let resumed = resume(memfd, state.boot).expect("whole");
        assert_eq!(resumed.state, state);
        // Both sides of this test own the same number; only one may close it.
        assert_eq!(std::os::fd::IntoRawFd::into_raw_fd(resumed.lock), lock.as_raw_fd());
    }

    #[test]
    fn another_boot_or_an_unsealed_or_missing_memfd_is_a_restart() {
        let (state, lock) = (state(), lock());
        let memfd = left(&state, &lock);
        assert!(matches!(resume(memfd, BootId([9; 16])), Err(HandoverError::Foreign)));
        let unsealed = rustix::fs::memfd_create(c"test", MemfdFlags::ALLOW_SEALING).expect("made");
        let unsealed = std::os::fd::IntoRawFd::into_raw_fd(unsealed);
        assert!(matches!(resume(unsealed, state.boot), Err(HandoverError::Malformed)));
        assert!(matches!(resume(1_000_000, state.boot), Err(HandoverError::Descriptor(_))));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (state, lock, helpers) = (state(), lock(), Helpers::default());
        let leaving = Leaving { state: &state, device: None, lock: lock.as_fd(), helpers: &helpers };
        let mut buffer = vec![0; BYTES_MAX];
        let len = encode(&leaving, &mut buffer).expect("fits");
        assert!(checked(&buffer[..len]).is_some());
        for at in 0..len {
            buffer[at] ^= 0x40;
            assert!(checked(&buffer[..len]).is_none(), "byte {at}");
            buffer[at] ^= 0x40;
        }
    }

    #[test]
    fn a_program_that_can_not_be_started_leaves_everything_as_it_was() {
        let (state, lock, helpers) = (state(), lock(), Helpers::default());
        let leaving = Leaving { state: &state, device: None, lock: lock.as_fd(), helpers: &helpers };
        assert_eq!(successor().become_next(&leaving), Errno::NOENT);
        let flags = rustix::io::fcntl_getfd(&lock).expect("still open");
        assert!(flags.contains(FdFlags::CLOEXEC));
    }
}
