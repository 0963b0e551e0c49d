//! Memory that is used stays; memory that was needed for a while goes back to the machine.
//!
//! An agent whose pages a machine short of memory has written out is late just when others judge it, as any process of a
//! cluster's heart is: so they are locked, each as it is first touched (mlockall(2)).
//!
//! When a thousand hosts come at once, each has handshakes, messages and a connection for them under way, and a minute
//! later none. The allocator keeps what was freed in the middle of its heap until it is told to give it back; and what lasts
//! lies scattered among what didn't, so that many pages stay for the sake of a few bytes. Large blocks therefore get pages of
//! their own, which go back with them.

use rustix::mm::MlockAllFlags;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use std::time::{Duration, Instant};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Less than this isn't worth the pause: giving back takes about a millisecond for each ten megabytes (8 to 11 ms for 83 MB in
/// blocks of 0.7 to 16 KB, glibc 2.36), in which nothing else gets memory.
#[cfg(target_env = "gnu")]
const WORTH_BYTES: usize = 8 << 20;

/// Blocks of so many bytes have pages of their own. The one that QUIC has for each connection is a little larger (6,448 bytes,
/// quinn-proto 0.11); a page of the store, which comes and goes with each commit, is smaller.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: libc::c_int = 6_000;

/// What was settled, and when it was last looked at.
#[derive(Debug)]
pub(super) struct Memory {
    looked: Instant,
    is_locked: bool,
}

impl Memory {
    /// Settles how the process is given memory from now on.
    pub(super) fn new() -> Self {
        give_large_blocks_pages_of_their_own();
        let is_locked = lock();
        if !is_locked {
            tracing::warn!(
                "the agent's memory isn't locked: where the machine runs short of it, the agent is late, and its host may be \
                 held for lost; give it CAP_IPC_LOCK, or its unit LimitMEMLOCK=infinity"
            );
        }
        Self { looked: Instant::now(), is_locked }
    }

    /// Gives back what has been freed, if it is much.
    pub(super) fn look(&mut self) {
        if self.looked.elapsed() >= EVERY {
            self.looked = Instant::now();
            give_back(self.is_locked);
        }
    }
}

/// Answers whether what is in memory stays there from now on. It isn't asked for under a limit, beyond which there would be no
/// memory at all; unless it doesn't bind this process, or can be lifted.
fn lock() -> bool {
    let no_limit = Rlimit { current: None, maximum: None };
    let is_bound = !capabilities(None).is_ok_and(|has| has.effective.contains(CapabilitySet::IPC_LOCK));
    (!is_bound || setrlimit(Resource::Memlock, no_limit).is_ok()) && lock_on_touch()
}

/// What is reserved and never touched takes none.
fn lock_on_touch() -> bool {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    rustix::mm::mlockall(flags).is_ok()
}

#[cfg(target_env = "gnu")]
fn give_large_blocks_pages_of_their_own() {
    // SAFETY: sets a parameter of the allocator under its own lock.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES) };
}

/// Other C libraries have no such parameter.
#[cfg(not(target_env = "gnu"))]
fn give_large_blocks_pages_of_their_own() {}

#[cfg(target_env = "gnu")]
fn give_back(is_locked: bool) {
    // SAFETY: both only take the allocator's own locks; they may be called at any time, on any thread.
    let free = unsafe { libc::mallinfo2() }.fordblks;
    if free >= WORTH_BYTES {
        let began = Instant::now();
        // The kernel takes nothing back that is locked.
        let is_unlocked = is_locked && rustix::mm::munlockall().is_ok();
        // SAFETY: as above.
        unsafe { libc::malloc_trim(0) };
        if is_unlocked && !lock_on_touch() {
            tracing::warn!("the agent's memory isn't locked any more: the machine may write it out");
        }
        tracing::debug!(free_bytes = free, took = ?began.elapsed(), "memory given back");
    }
}

/// Other C libraries give it back by themselves.
#[cfg(not(target_env = "gnu"))]
fn give_back(_is_locked: bool) {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// The process has one memory: where tests share it, one at a time looks at it.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resident_pages() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number")
    }

    #[test]
    fn large_blocks_among_small_ones_that_last_go_back_as_soon_as_they_are_freed() {
        let _alone = alone();
        give_large_blocks_pages_of_their_own();
        let (large, lasting): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (0..8_192).map(|_| (vec![1; 6_800], vec![1; 64])).unzip();
        let before = resident_pages();
        drop(large);
        let given = before.saturating_sub(resident_pages());
        assert!(given * 4_096 > 50 << 20, "{given} pages of 55 MB that were freed");
        drop(lasting);
    }

    #[test]
    fn what_was_freed_below_what_is_still_used_is_given_back() {
        let _alone = alone();
        let mut blocks: Vec<Vec<u8>> = (0..4_096).map(|_| vec![1; 16 << 10]).collect();
        let last = blocks.pop();
        drop(blocks);
        let before = resident_pages();
        give_back(false);
        let given = before.saturating_sub(resident_pages());
        assert!(given * 4_096 > 32 << 20, "{given} pages of 64 MB that were freed");
        drop(last);
    }

    fn is_locked() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("a line");
        locked.trim() != "0 kB"
    }

    #[test]
    fn what_is_locked_is_what_was_touched_and_goes_back_all_the_same() {
        let _alone = alone();
        let is_root = rustix::process::geteuid().is_root();
        let may = lock();
        assert!(may || !is_root, "a root without CAP_IPC_LOCK shows nothing here");
        assert_eq!(is_locked(), may);
        let before = resident_pages();
        let reserved = Vec::<u8>::with_capacity(256 << 20);
        assert!(resident_pages() - before < 1_000, "{} pages of what was never touched", resident_pages() - before);
        let mut blocks: Vec<Vec<u8>> = (0..16_384).map(|_| vec![1; 4 << 10]).collect();
        let last = blocks.pop();
        drop(blocks);
        let before = resident_pages();
        give_back(may);
        let given = before.saturating_sub(resident_pages());
        assert!(given * 4_096 > 32 << 20, "{given} pages of 64 MB that were freed");
        assert_eq!(is_locked(), may, "afterwards");
        drop((last, reserved));
        rustix::mm::munlockall().expect("unlocked");
    }
}
