//! The relations of protocol §3, each with its numbers and a remedy. All violations are reported at once.

use super::{PPM, Timing, nanos};
use std::fmt;
use std::time::Duration;

/// Longest span accepted anywhere: far above any use, far below what would make the arithmetic saturate.
const SPAN_MAX: Duration = Duration::from_secs(3_600);

/// Smallest ρ that is believed: two crystals of ±50 ppm, and time synchronisation slewing one of them by 500 ppm.
const RHO_PPM_MIN: u32 = 600;

/// Largest ρ that still counts as a clock: beyond a tenth the machine's clock is broken, not inexact.
const RHO_PPM_MAX: u32 = 100_000;

/// Shortest beat interval (protocol §4).
const BEAT_MIN: Duration = Duration::from_millis(20);

/// A relation between spans (protocol §3); the text is how the operator reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inequality {
    /// W > 0.
    WatchdogArmed,
    /// Between the check and the reset stand 2 or 3 W.
    WatchdogSpans,
    /// L ≥ 2·W + δ_hw + P + (r+1)·R + RTT_max + J.
    Lease,
    /// r ≥ 3.
    LostRenewals,
    /// R ≤ (L − 2·W − δ_hw − P) / 4.
    Renewal,
    /// R > 0 and P > 0: neither holder nor keeper may spin.
    Periods,
    /// 2·P ≤ W: one look of the keeper may come late without the watchdog firing.
    KeeperPeriod,
    /// ρ within what clocks do.
    Drift,
    /// L_v ≥ L·(1+ρ)/(1−ρ) + δ_io.
    VoterWait,
    /// T_D ≥ (k+1)·Δ + delay_max + J.
    Detection,
    /// k ≥ 5.
    LostBeats,
    /// Δ ≥ 20 ms.
    Beat,
    /// E ≥ max(300 ms, 10·RTT_max, 5·fsync_p99.9).
    Election,
    /// Every span ≤ 1 h.
    Range,
}

#[cfg(feature = "mutants")]
impl Inequality {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::WatchdogArmed,
        Self::WatchdogSpans,
        Self::Lease,
        Self::LostRenewals,
        Self::Renewal,
        Self::Periods,
        Self::KeeperPeriod,
        Self::Drift,
        Self::VoterWait,
        Self::Detection,
        Self::LostBeats,
        Self::Beat,
        Self::Election,
        Self::Range,
    ];

    /// The planted fault that leaves it unchecked.
    pub const fn fault(self) -> &'static str {
        match self {
            Self::WatchdogArmed => "timing.watchdog_armed",
            Self::WatchdogSpans => "timing.watchdog_spans",
            Self::Lease => "timing.lease",
            Self::LostRenewals => "timing.lost_renewals",
            Self::Renewal => "timing.renewal",
            Self::Periods => "timing.periods",
            Self::KeeperPeriod => "timing.keeper_period",
            Self::Drift => "timing.drift",
            Self::VoterWait => "timing.voter_wait",
            Self::Detection => "timing.detection",
            Self::LostBeats => "timing.lost_beats",
            Self::Beat => "timing.beat",
            Self::Election => "timing.election",
            Self::Range => "timing.range",
        }
    }
}

impl fmt::Display for Inequality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WatchdogArmed => "W > 0",
            Self::WatchdogSpans => "2 or 3 W between check and reset",
            Self::Lease => "L >= 2W + delta_hw + P + (r+1)R + RTT_max + J",
            Self::LostRenewals => "r >= 3",
            Self::Renewal => "R <= (L - 2W - delta_hw - P) / 4",
            Self::Periods => "R > 0 and P > 0",
            Self::KeeperPeriod => "2P <= W",
            Self::Drift => "600 ppm <= rho <= 100000 ppm",
            Self::VoterWait => "L_v >= L(1+rho)/(1-rho) + delta_io",
            Self::Detection => "T_D >= (k+1)beat + delay_max + J",
            Self::LostBeats => "k >= 5",
            Self::Beat => "beat >= 20 ms",
            Self::Election => "E >= max(300 ms, 10 RTT_max, 5 fsync_p99.9)",
            Self::Range => "every span <= 1 h",
        })
    }
}

/// A relation that does not hold, with the numbers on both sides and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which relation.
    pub inequality: Inequality,
    /// What the setting is.
    pub is: String,
    /// What it would have to be.
    pub must_be: String,
    /// What the operator can do.
    pub remedy: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: is {}, must be {}; {}", self.inequality, self.is, self.must_be, self.remedy)
    }
}

impl Timing {
    /// Checks every relation. Empty means that the lease argument holds with these numbers.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.check_range(&mut found);
        self.check_watchdog(&mut found);
        self.check_lease(&mut found);
        self.check_voter_side(&mut found);
        self.check_detection(&mut found);
        #[cfg(feature = "mutants")]
        found.retain(|violation| !crate::mutants::on(violation.inequality.fault()));
        found
    }

    /// Whether it can be reckoned with: nothing overflows, and time passes between two ticks. What [`Timing::check`] passes
    /// can.
    pub fn is_within_range(&self) -> bool {
        let spans_are = self.spans().iter().all(|(_, span)| *span <= SPAN_MAX);
        spans_are && u128::from(self.rho_ppm) < PPM && self.election >= Duration::from_millis(1)
    }

    fn check_range(&self, found: &mut Vec<Violation>) {
        for (name, span) in self.spans() {
            if span > SPAN_MAX {
                found.push(Violation {
                    inequality: Inequality::Range,
                    is: format!("{name} = {span:?}"),
                    must_be: format!("<= {SPAN_MAX:?}"),
                    remedy: "give the span in the unit that the key says",
                });
            }
        }
    }

    fn check_watchdog(&self, found: &mut Vec<Violation>) {
        if self.watchdog_worst.is_zero() {
            found.push(Violation {
                inequality: Inequality::WatchdogArmed,
                is: "0s".to_owned(),
                must_be: "the worst measured fire time times 1.1".to_owned(),
                remedy: "run the fire test on the host; a host without a watchdog is class D and needs no W",
            });
        }
        if !(2..=3).contains(&self.watchdog_spans) {
            found.push(Violation {
                inequality: Inequality::WatchdogSpans,
                is: self.watchdog_spans.to_string(),
                must_be: "2, or 3 if the device can be closed after the keeper's death".to_owned(),
                remedy: "leave watchdog_spans at 2",
            });
        }
        if self.keeper_period.saturating_mul(2) > self.watchdog_worst && !self.watchdog_worst.is_zero() {
            found.push(Violation {
                inequality: Inequality::KeeperPeriod,
                is: format!("P = {:?}", self.keeper_period),
                must_be: format!("<= {:?}", self.watchdog_worst / 2),
                remedy: "shorten the keeper's period, or the watchdog fires between two of its looks",
            });
        }
    }

    fn check_lease(&self, found: &mut Vec<Violation>) {
        let needed = self.lease_needed_for_loss();
        if self.lease < needed {
            found.push(Violation {
                inequality: Inequality::Lease,
                is: format!("L = {:?}", self.lease),
                must_be: format!(">= {needed:?}"),
                remedy: "lengthen the lease, or shorten W, R or r; `antipode config timing` prints the least lease",
            });
        }
        if self.lost_renewals < 3 {
            found.push(Violation {
                inequality: Inequality::LostRenewals,
                is: self.lost_renewals.to_string(),
                must_be: ">= 3".to_owned(),
                remedy: "with fewer, ordinary packet loss ends leases; set lost_renewals to 3 or more",
            });
        }
        if self.renewal.is_zero() || self.keeper_period.is_zero() {
            found.push(Violation {
                inequality: Inequality::Periods,
                is: format!("R = {:?}, P = {:?}", self.renewal, self.keeper_period),
                must_be: "> 0".to_owned(),
                remedy: "set a period; zero would spin",
            });
        }
        if self.renewal.saturating_mul(4) > self.ride_through() {
            found.push(Violation {
                inequality: Inequality::Renewal,
                is: format!("R = {:?}", self.renewal),
                must_be: format!("<= {:?}", self.ride_through() / 4),
                remedy: "renew more often or lengthen the lease",
            });
        }
    }

    fn check_voter_side(&self, found: &mut Vec<Violation>) {
        if !(RHO_PPM_MIN..=RHO_PPM_MAX).contains(&self.rho_ppm) {
            found.push(Violation {
                inequality: Inequality::Drift,
                is: format!("{} ppm", self.rho_ppm),
                must_be: format!("{RHO_PPM_MIN} to {RHO_PPM_MAX} ppm"),
                remedy: "leave rho_ppm at 1000",
            });
        }
        let rho = u128::from(self.rho_ppm).min(PPM - 1);
        // Written the other way round than `voter_wait`, so that a slip in either is seen here.
        let held = nanos(self.lease.as_nanos() * (PPM + rho) / (PPM - rho)).saturating_add(self.delta_io);
        if self.voter_wait() < held {
            found.push(Violation {
                inequality: Inequality::VoterWait,
                is: format!("L_v = {:?}", self.voter_wait()),
                must_be: format!(">= {held:?}"),
                remedy: "this is computed, not configured: report it as a defect",
            });
        }
    }

    fn check_detection(&self, found: &mut Vec<Violation>) {
        let needed = self.detection_needed();
        if self.detection < needed {
            found.push(Violation {
                inequality: Inequality::Detection,
                is: format!("T_D = {:?}", self.detection),
                must_be: format!(">= {needed:?}"),
                remedy: "lengthen the detection time or send beats more often",
            });
        }
        if self.lost_beats < 5 {
            found.push(Violation {
                inequality: Inequality::LostBeats,
                is: self.lost_beats.to_string(),
                must_be: ">= 5".to_owned(),
                remedy: "with fewer, a short burst of loss is taken for a dead host; set lost_beats to 5 or more",
            });
        }
        if self.beat < BEAT_MIN {
            found.push(Violation {
                inequality: Inequality::Beat,
                is: format!("{:?}", self.beat),
                must_be: format!(">= {BEAT_MIN:?}"),
                remedy: "lengthen the beat interval",
            });
        }
        let needed = self.election_needed();
        if self.election < needed {
            found.push(Violation {
                inequality: Inequality::Election,
                is: format!("E = {:?}", self.election),
                must_be: format!(">= {needed:?}"),
                remedy: "lengthen the election timeout, or leaders fall while the network is only slow",
            });
        }
    }

    /// The right side of [`Inequality::Lease`] alone, without the room for four renewals.
    fn lease_needed_for_loss(&self) -> Duration {
        let renewals = self.renewal.saturating_mul(self.lost_renewals.saturating_add(1));
        let parts = [self.keeper_period, renewals, self.rtt_max, self.jitter];
        parts.into_iter().fold(self.pet_reserve(), Duration::saturating_add)
    }

    /// Every span with the key by which the operator knows it.
    pub(super) fn spans(&self) -> [(&'static str, Duration); 13] {
        [
            ("watchdog_worst", self.watchdog_worst),
            ("delta_hw", self.delta_hw),
            ("delta_io", self.delta_io),
            ("keeper_period", self.keeper_period),
            ("renewal", self.renewal),
            ("rtt_max", self.rtt_max),
            ("jitter", self.jitter),
            ("lease", self.lease),
            ("beat", self.beat),
            ("detection", self.detection),
            ("delay_max", self.delay_max),
            ("election", self.election),
            ("fsync_p999", self.fsync_p999),
        ]
    }
}
