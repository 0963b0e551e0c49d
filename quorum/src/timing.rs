//! Every time span the safety argument rests on, and every relation between them (protocol §3), in one place.
//!
//! Contract: a `Timing` for which [`Timing::check`] returns nothing keeps the host lease sound: whoever waits
//! [`Timing::voter_wait`] after its own last grant waits longer than the holder may go on. The same check runs when
//! a configuration is loaded, when it is committed, and for `antipode config timing`; a weaker setting is refused.
//!
//! Arithmetic is in integer nanoseconds and parts per million, and every rounding goes to the safe side.
//!
//! Not here: reading clocks, deciding what a moment means for a lease (`lease`), the margins of the detector that
//! depend on measured lateness (the agent's detector).

use serde::{Deserialize, Serialize};
use std::time::Duration;

mod check;
mod table;

pub use check::{Inequality, Violation};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Round trips up to this long leave the derived lease as it is, so that a weather change on the network does not
/// change what an operator reads: the figures of protocol §3 hold for every round trip up to it.
const LEASE_RTT_FLOOR: Duration = Duration::from_millis(80);

/// The lease is rounded up to a multiple of this, so that it can be read and remembered.
const LEASE_STEP: Duration = Duration::from_millis(100);

/// The detection time is rounded up to a multiple of this.
const DETECTION_STEP: Duration = Duration::from_millis(50);

/// One million: the denominator of `rho_ppm`.
const PPM: u128 = 1_000_000;

/// What the safety argument of the host lease is computed from. All spans are real time unless a field says whose
/// clock measures it.
///
/// Serialized into the replicated cluster spec: fields are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// W: the commissioned worst time from the last pet to the reset, times 1.1. Never the nominal figure.
    pub watchdog_worst: Duration,
    /// How many W stand between the check before a pet and the reset: 2, or 3 when closing the device can come
    /// after the keeper's death (protocol §2).
    pub watchdog_spans: u32,
    /// δ_hw: from the watchdog's firing until the host executes nothing any more.
    pub delta_hw: Duration,
    /// δ_io: from then until no I/O of the host can take effect any more.
    pub delta_io: Duration,
    /// P: how often the keeper looks at its record.
    pub keeper_period: Duration,
    /// R: how often the holder asks every voter.
    pub renewal: Duration,
    /// r: renewals in a row that may be lost without the lease running out.
    pub lost_renewals: u32,
    /// RTT_max: the longest round trip between a host and a voter that is still normal.
    pub rtt_max: Duration,
    /// J: how late a process may be scheduled without that being a fault.
    pub jitter: Duration,
    /// ρ: by how much two clocks' rates may differ, in parts per million.
    pub rho_ppm: u32,
    /// L: how long a grant lasts on the holder's clock, counted from its request's sending.
    pub lease: Duration,
    /// Δ: how often a beat is sent.
    pub beat: Duration,
    /// T_D: how long silence lasts before an observer suspects.
    pub detection: Duration,
    /// k: beats in a row that may be lost without a suspicion.
    pub lost_beats: u32,
    /// The longest one-way delay that is still normal.
    pub delay_max: Duration,
    /// E: Raft's election timeout. Its heartbeat is a tenth of it.
    pub election: Duration,
    /// The 99.9th percentile of a voter's fsync.
    pub fsync_p999: Duration,
}

/// The parts of [`Timing`] that decide how long a voter waits. The ledger keeps the widest seen since a host was
/// admitted, because the holder may still count with any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// L.
    pub lease: Duration,
    /// ρ in parts per million.
    pub rho_ppm: u32,
    /// δ_io.
    pub delta_io: Duration,
}

impl LeaseTerms {
    /// The terms that cover both: the larger of each part.
    #[must_use]
    pub fn widest(self, other: Self) -> Self {
        Self {
            lease: self.lease.max(other.lease),
            rho_ppm: self.rho_ppm.max(other.rho_ppm),
            delta_io: self.delta_io.max(other.delta_io),
        }
    }

    /// L_v = L·(1+ρ)/(1−ρ) + δ_io, rounded up: what a voter waits on its own clock after its own last grant.
    ///
    /// The holder's clock may be slow by ρ, so its L lasts L/(1−ρ); the voter's may be fast by ρ, so it must count
    /// (1+ρ) times as much. A ρ of one or more would make the wait endless: it saturates at `Duration::MAX`.
    pub fn voter_wait(self) -> Duration {
        if crate::mutants::on("lease.voter_wait_is_lease") {
            return self.lease;
        }
        let rho = u128::from(self.rho_ppm);
        if rho >= PPM {
            return Duration::MAX;
        }
        let stretched = (self.lease.as_nanos() * (PPM + rho)).div_ceil(PPM - rho);
        nanos(stretched).saturating_add(self.delta_io)
    }
}

/// What [`Timing::derive`] starts from: figures that were measured, not chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// W: the commissioned worst fire time, times 1.1.
    pub watchdog_worst: Duration,
    /// The longest normal round trip between a host and a voter.
    pub rtt_max: Duration,
    /// The 99.9th percentile of a voter's fsync.
    pub fsync_p999: Duration,
}

impl Measured {
    /// With the fsync of an ordinary SSD.
    pub fn new(watchdog_worst: Duration, rtt_max: Duration) -> Self {
        Self { watchdog_worst, rtt_max, fsync_p999: MS(20) }
    }
}

/// What goes with a kind of watchdog: (largest W, δ_hw, P, R, r). A coarser device ticks coarser and pulls its reset
/// line later, so it gets more of everything; renewals slow down where the lease is long anyway.
const PRESETS: [(Duration, [Duration; 3], u32); 3] = [
    // softdog and BMC dogs of 1 s: the kernel restarts itself or the BMC cuts power at once.
    (
        Duration::from_millis(1_650),
        [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(250)],
        4,
    ),
    // chipset and SBSA dogs of 2 s.
    (
        Duration::from_millis(2_750),
        [Duration::from_millis(200), Duration::from_millis(250), Duration::from_millis(500)],
        3,
    ),
    // iTCO and whatever is slower: its tick is 0.6 s.
    (Duration::MAX, [Duration::from_millis(600), Duration::from_millis(250), Duration::from_millis(500)], 3),
];

impl Timing {
    /// Computes all spans from what was measured: the shortest lease that satisfies every relation, rounded up to
    /// 0.1 s. W 1.1 gives L 3.7 s, 2.2 gives 7.0 s, 3.3 gives 9.6 s for round trips up to 80 ms.
    ///
    /// The result passes [`Timing::check`] unless `measured` itself is out of range (W or a round trip of an hour).
    pub fn derive(measured: Measured) -> Self {
        let (_, [delta_hw, keeper_period, renewal], lost_renewals) = PRESETS
            .into_iter()
            .find(|(limit, ..)| measured.watchdog_worst <= *limit)
            .expect("the last preset has no limit");
        let mut timing = Self {
            watchdog_worst: measured.watchdog_worst,
            watchdog_spans: 2,
            delta_hw,
            delta_io: MS(50),
            keeper_period,
            renewal,
            lost_renewals,
            rtt_max: measured.rtt_max,
            jitter: MS(20),
            rho_ppm: 1_000,
            lease: Duration::ZERO,
            beat: MS(50),
            detection: Duration::ZERO,
            lost_beats: 5,
            delay_max: nanos(measured.rtt_max.as_nanos().div_ceil(2)),
            election: Duration::ZERO,
            fsync_p999: measured.fsync_p999,
        };
        timing.fit();
        timing
    }

    /// Sets L, T_D and E to the least values that satisfy their relations with the other spans, rounded up.
    pub fn fit(&mut self) {
        let budget = Self { rtt_max: self.rtt_max.max(LEASE_RTT_FLOOR), ..self.clone() };
        self.lease = round_up(budget.lease_needed(), LEASE_STEP);
        self.detection = round_up(self.detection_needed(), DETECTION_STEP);
        self.election = self.election_needed();
    }

    /// What a holder must have left when it checks before a pet: 2·W + δ_hw (3·W where closing pets late).
    pub fn pet_reserve(&self) -> Duration {
        let spans = if crate::mutants::on("lease.pet_at_one_w") { 1 } else { self.watchdog_spans };
        self.watchdog_worst.saturating_mul(spans).saturating_add(self.delta_hw)
    }

    /// T_tol = L − 2·W − δ_hw − P: the age of the newest majority grant at which the keeper starts to kill.
    /// Zero where the relations do not hold.
    pub fn ride_through(&self) -> Duration {
        self.lease.saturating_sub(self.pet_reserve()).saturating_sub(self.keeper_period)
    }

    /// The length of an outage that is ridden through for sure: one that starts just before a renewal would have
    /// been answered. Zero where the relations do not hold.
    pub fn ride_through_sure(&self) -> Duration {
        self.ride_through().saturating_sub(self.renewal).saturating_sub(self.rtt_max)
    }

    /// How long after a lease request the next one may leave at the earliest, where requests ride on beats: R less half of Δ.
    /// A beat that is due at R and leaves a moment early would otherwise let the request wait for the next one, and where R is
    /// Δ every other beat would ask.
    pub fn asks_every(&self) -> Duration {
        self.renewal.saturating_sub(self.beat / 2)
    }

    /// By how much L exceeds the least that the other spans allow: what the lease bears beyond them. Zero where the
    /// relations do not hold.
    pub fn lease_spare(&self) -> Duration {
        self.lease.saturating_sub(self.lease_needed())
    }

    /// What of this decides how long a voter waits.
    pub fn lease_terms(&self) -> LeaseTerms {
        LeaseTerms { lease: self.lease, rho_ppm: self.rho_ppm, delta_io: self.delta_io }
    }

    /// L_v: what a voter waits, on its own clock, after its own last grant. See [`LeaseTerms::voter_wait`].
    pub fn voter_wait(&self) -> Duration {
        self.lease_terms().voter_wait()
    }

    /// Raft's heartbeat interval, E/10.
    pub fn raft_heartbeat(&self) -> Duration {
        self.election / 10
    }

    /// A positive fence path must end before this, counted from suspicion, to make an eager declaration worth its
    /// while: 0.7·L_v, rounded down (protocol §5).
    pub fn eager_limit(&self) -> Duration {
        nanos(self.voter_wait().as_nanos() * 7 / 10)
    }

    /// How long after the last grant a lazy declaration is made: max(T_D, L_v − commit − 250 ms). Later than
    /// detection costs nothing, because the lease wait runs anyway (protocol §5).
    pub fn lazy_declaration(&self, commit_p99: Duration) -> Duration {
        self.voter_wait().saturating_sub(commit_p99).saturating_sub(MS(250)).max(self.detection)
    }

    /// The least L that the other spans allow: 2·W + δ_hw + P + (r+1)·R + RTT_max + J, and enough for four renewals
    /// within what is left after the reserve.
    fn lease_needed(&self) -> Duration {
        let fixed = self.pet_reserve().saturating_add(self.keeper_period);
        let renewals = self.renewal.saturating_mul(self.lost_renewals.saturating_add(1));
        let lossy = renewals.saturating_add(self.rtt_max).saturating_add(self.jitter);
        fixed.saturating_add(lossy.max(self.renewal.saturating_mul(4)))
    }

    /// The least T_D: (k+1)·Δ + delay_max + J.
    fn detection_needed(&self) -> Duration {
        let beats = self.beat.saturating_mul(self.lost_beats.saturating_add(1));
        beats.saturating_add(self.delay_max).saturating_add(self.jitter)
    }

    /// The least E: max(300 ms, 10·RTT_max, 5·fsync_p99.9).
    fn election_needed(&self) -> Duration {
        MS(300).max(self.rtt_max.saturating_mul(10)).max(self.fsync_p999.saturating_mul(5))
    }
}

/// Nanoseconds as a span; what does not fit becomes the longest span.
fn nanos(ns: u128) -> Duration {
    match (u64::try_from(ns / 1_000_000_000), u32::try_from(ns % 1_000_000_000)) {
        (Ok(seconds), Ok(rest)) => Duration::new(seconds, rest),
        _ => Duration::MAX,
    }
}

/// The least multiple of `step` that is not below `span`.
fn round_up(span: Duration, step: Duration) -> Duration {
    nanos(span.as_nanos().div_ceil(step.as_nanos()).saturating_mul(step.as_nanos()))
}

#[cfg(test)]
mod tests;
