//! What protects a small process that must never be late: locked memory, real-time priority, no OOM kill.
//!
//! Contract: each is best effort and reported; none is undone. Used by keeper, holder and lab chassis.

use super::page::Posture;
use rustix::mm::MlockAllFlags;

/// How much stack is touched once, so that it is resident before memory is locked against growing late.
const STACK_BYTES: usize = 256 * 1024;

/// Priority among real-time tasks. The chassis plays hardware: nothing of its host may hold it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Keeper, holder and helpers.
    Keeper,
    /// The lab's chassis. What it starts gets ordinary priority again.
    Hardware,
}

/// Takes all that this process may have.
pub fn assume(rank: Rank) -> Posture {
    touch_stack();
    Posture {
        memory_locked: rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).is_ok(),
        realtime: become_realtime(rank),
        oom_exempt: std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok(),
        held: false,
    }
}

#[inline(never)]
fn touch_stack() {
    let mut stack = [0_u8; STACK_BYTES];
    for page in stack.iter_mut().step_by(4096) {
        // SAFETY: a write to an element of a live array, made volatile so that it happens.
        unsafe { std::ptr::write_volatile(page, 1) };
    }
    std::hint::black_box(&stack);
}

fn become_realtime(rank: Rank) -> bool {
    let (priority, policy) = match rank {
        Rank::Keeper => (50, libc::SCHED_FIFO),
        Rank::Hardware => (90, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK),
    };
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one struct, which lives through the call.
    unsafe { libc::sched_setscheduler(0, policy, &parameters) == 0 }
}
