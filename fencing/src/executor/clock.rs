//! The executor's clocks: the runtime's monotonic one for limits, CLOCK_BOOTTIME for what must also see a suspend.

use crate::moment::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Counts from the executor's start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        Moment::at(self.start.elapsed())
    }

    /// The runtime's instant of a moment.
    pub fn instant(&self, moment: Moment) -> Instant {
        // A moment far beyond any limit: the runtime's own representation must not overflow.
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.start + moment.since_start().min(FAR)
    }
}

/// Time since boot, counting suspend.
pub fn boottime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanos)
}

/// Wall time in milliseconds, for people only.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// This boot's id; empty if the kernel doesn't say.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
