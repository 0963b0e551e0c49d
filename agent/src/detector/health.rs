//! Whether this observer may trust its own ears.
//!
//! A starved observer hears late and would accuse everybody. Its own lateness, the age of its unfinished fsync, and
//! CPU pressure give a sickness from 0 to 8, which stretches T_D; from [`ABSTAIN_FROM`] on it abstains (protocol §4).

use quorum::moment::Moment;
use std::time::Duration;

/// From this sickness on an observer abstains.
pub const ABSTAIN_FROM: u8 = 4;
/// Sickness fades by one step each time this passes without a new symptom.
const FADE: Duration = Duration::from_millis(500);
const SICKNESS_MAX: u8 = 8;

/// One measurement of the machine under the observer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How long the oldest unfinished write to the log's disk has waited.
    pub fsync_age: Duration,
    /// Share of the last ten seconds in which some task waited for a CPU, in percent (PSI `some avg10`).
    pub cpu_pressure_percent: u8,
    /// Share of CPU time that the hypervisor gave to others, in percent.
    pub steal_percent: u8,
}

/// The observer's own health.
#[derive(Clone, Debug)]
pub struct Health {
    beat: Duration,
    sickness: u8,
    changed: Option<Moment>,
}

impl Health {
    /// Healthy; beats are `beat` apart.
    pub fn new(beat: Duration) -> Self {
        Self { beat, sickness: 0, changed: None }
    }

    /// Takes the lateness of one of the observer's own timers.
    pub fn woke_late(&mut self, now: Moment, late: Duration) {
        let symptom = match late.as_nanos() / self.beat.as_nanos().max(1) {
            0 if late * 2 <= self.beat => 0,
            0 => 1,
            1 => 2,
            2 | 3 => 3,
            4..=7 => ABSTAIN_FROM,
            _ => ABSTAIN_FROM + 2,
        };
        self.symptom(now, symptom);
    }

    /// Takes a measurement of the machine.
    pub fn measured(&mut self, now: Moment, reading: Reading) {
        let disk = match reading.fsync_age.as_millis() {
            0..=499 => 0,
            500..=1_999 => 2,
            _ => ABSTAIN_FROM,
        };
        let pressure = match reading.cpu_pressure_percent {
            0..=59 => 0,
            60..=89 => 1,
            _ => 2,
        };
        let steal = if reading.steal_percent >= 50 { 2 } else { 0 };
        self.symptom(now, disk.max(pressure).max(steal));
    }

    fn symptom(&mut self, now: Moment, sickness: u8) {
        let sickness = sickness.min(SICKNESS_MAX);
        if sickness >= self.sickness {
            self.sickness = sickness;
            self.changed = Some(now);
            return;
        }
        // One step a fade, so that a single late timer is forgotten within a second.
        if self.changed.is_none_or(|at| now.waited_since(at) >= FADE) {
            self.sickness -= 1;
            self.changed = Some(now);
        }
    }

    /// 0 healthy … 8 very sick.
    pub fn sickness(&self) -> u8 {
        self.sickness
    }

    /// Whether the observer must not accuse anybody now.
    pub fn abstains(&self) -> bool {
        self.sickness >= ABSTAIN_FROM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    #[test]
    fn a_long_pause_makes_the_observer_abstain_and_it_recovers_step_by_step() {
        let mut health = Health::new(Duration::from_millis(50));
        health.woke_late(ms(1_000), Duration::from_millis(900));
        assert!(health.abstains());
        let mut at = 1_000;
        while health.abstains() {
            at += 50;
            health.woke_late(ms(at), Duration::ZERO);
        }
        assert!((2_000..4_000).contains(&at), "abstained until {at} ms");
    }

    #[test]
    fn a_stuck_disk_makes_a_voter_abstain() {
        let mut health = Health::new(Duration::from_millis(50));
        health.measured(ms(1), Reading { fsync_age: Duration::from_secs(3), ..Reading::default() });
        assert!(health.abstains());
    }
}
