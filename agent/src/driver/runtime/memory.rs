//! Memory that was needed for a while goes back to the machine.
//!
//! When a thousand hosts come at once, each has handshakes, messages and a connection for them under way, and a minute
//! later none. The allocator keeps what was freed in the middle of its heap until it is told to give it back; and what lasts
//! lies scattered among what didn't, so that many pages stay for the sake of a few bytes. Large blocks therefore get pages of
//! their own, which go back with them.

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

/// When it was last looked at.
#[derive(Debug)]
pub(super) struct Memory(Instant);

impl Memory {
    /// Settles how the process is given memory from now on.
    pub(super) fn new() -> Self {
        give_large_blocks_pages_of_their_own();
        Self(Instant::now())
    }

    /// Gives back what has been freed, if it is much.
    pub(super) fn look(&mut self) {
        if self.0.elapsed() >= EVERY {
            self.0 = Instant::now();
            give_back();
        }
    }
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
fn give_back() {
    // SAFETY: both only take the allocator's own locks; they may be called at any time, on any thread.
    let free = unsafe { libc::mallinfo2() }.fordblks;
    if free >= WORTH_BYTES {
        let began = Instant::now();
        // SAFETY: as above.
        unsafe { libc::malloc_trim(0) };
        tracing::debug!(free_bytes = free, took = ?began.elapsed(), "memory given back");
    }
}

/// Other C libraries give it back by themselves.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_pages() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number")
    }

    #[test]
    fn large_blocks_among_small_ones_that_last_go_back_as_soon_as_they_are_freed() {
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
        let mut blocks: Vec<Vec<u8>> = (0..4_096).map(|_| vec![1; 16 << 10]).collect();
        let last = blocks.pop();
        drop(blocks);
        let before = resident_pages();
        give_back();
        let given = before.saturating_sub(resident_pages());
        assert!(given * 4_096 > 32 << 20, "{given} pages of 64 MB that were freed");
        drop(last);
    }
}
