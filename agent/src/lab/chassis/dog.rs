//! The chassis' watchdog: counts down, and says when it fires. Pure.
//!
//! Contract: as the kernel's devices with `nowayout`: opening, setting the timeout, petting and the last close start
//! the countdown anew; only [`Dog::disarm`] and power-off stop it.

/// A watchdog. All moments are CLOCK_BOOTTIME in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dog {
    timeout_ns: u64,
    /// When it was last petted; `None` while it doesn't run.
    petted_ns: Option<u64>,
    pets: u64,
}

impl Dog {
    /// A watchdog that doesn't run, as after power-on, and what it counts until it is set.
    pub(super) fn new(timeout: std::time::Duration) -> Self {
        Self { timeout_ns: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX), petted_ns: None, pets: 0 }
    }

    /// Starts the countdown anew.
    pub(super) fn pet(&mut self, now_ns: u64) {
        self.petted_ns = Some(now_ns);
        self.pets += 1;
    }

    /// The last copy of the device was closed: a pet, and nothing else, if it runs.
    pub(super) fn close(&mut self, now_ns: u64) {
        if self.petted_ns.is_some() {
            self.pet(now_ns);
        }
    }

    /// Sets the timeout, which is a pet.
    pub(super) fn set_timeout(&mut self, millis: u32, now_ns: u64) {
        self.timeout_ns = u64::from(millis) * 1_000_000;
        self.pet(now_ns);
    }

    /// Stops it.
    pub(super) fn disarm(&mut self) {
        self.petted_ns = None;
    }

    /// The timeout in milliseconds.
    pub(super) fn timeout_ms(&self) -> u32 {
        u32::try_from(self.timeout_ns / 1_000_000).unwrap_or(u32::MAX)
    }

    /// When it fires; `None` while it doesn't run.
    pub(super) fn fires_at(&self) -> Option<u64> {
        self.petted_ns.map(|petted| petted.saturating_add(self.timeout_ns))
    }

    /// What is left, in milliseconds.
    pub(super) fn time_left_ms(&self, now_ns: u64) -> u32 {
        let left = self.fires_at().map_or(0, |at| at.saturating_sub(now_ns));
        u32::try_from(left / 1_000_000).unwrap_or(u32::MAX)
    }

    /// When it was last petted.
    pub(super) fn petted_at(&self) -> Option<u64> {
        self.petted_ns
    }

    /// How often it was petted.
    pub(super) fn pets(&self) -> u64 {
        self.pets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn setting_the_timeout_petting_and_closing_all_start_the_countdown_anew() {
        let mut dog = Dog::new(std::time::Duration::from_secs(60));
        dog.close(1);
        assert_eq!(dog.fires_at(), None, "a close starts nothing that doesn't run");
        dog.set_timeout(1000, 0);
        assert_eq!(dog.fires_at(), Some(1000 * MS));
        dog.pet(500 * MS);
        assert_eq!((dog.fires_at(), dog.time_left_ms(600 * MS)), (Some(1500 * MS), 900));
        dog.close(900 * MS);
        assert_eq!(dog.fires_at(), Some(1900 * MS));
    }

    #[test]
    fn only_a_disarm_stops_it() {
        let mut dog = Dog::new(std::time::Duration::from_secs(60));
        dog.set_timeout(1000, 0);
        dog.disarm();
        assert_eq!((dog.fires_at(), dog.time_left_ms(0)), (None, 0));
    }
}
