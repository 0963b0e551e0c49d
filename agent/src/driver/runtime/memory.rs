//! Memory that was needed for a while goes back to the machine.
//!
//! When a thousand hosts come at once, each has handshakes, messages and a connection for them under way, and a minute
//! later none. The allocator keeps what was freed in the middle of its heap until it is told to give it back.

use std::time::{Duration, Instant};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Less than this isn't worth the pause: giving back takes about a millisecond for each ten megabytes (8 to 11 ms for 83 MB in
/// blocks of 0.7 to 16 KB, glibc 2.36), in which nothing else gets memory.
#[cfg(target_env = "gnu")]
const WORTH_BYTES: usize = 8 << 20;

/// When it was last looked at.
#[derive(Debug)]
pub(super) struct Memory(Instant);

impl Memory {
    pub(super) fn new() -> Self {
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
