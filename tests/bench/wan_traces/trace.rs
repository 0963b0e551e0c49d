//! Beats of one site on their way to two observers over generated WAN links. All parameters are assumptions.
//!
//! One-way delay: half the round trip, exponential jitter, now and then a Pareto tail. Losses: Gilbert–Elliott chains,
//! one for each observer's own path and one for the site's access, which both share. Congestion episodes, route flaps
//! (private and common) after which the delay has moved, and stalls of the sending agent.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::judges::Judges;

/// Hosts of the observed site.
pub const HOSTS: usize = 3;
/// Observers: one at the other site, one at the witness.
pub const OBSERVERS: usize = 2;
/// Δ in nanoseconds.
pub const BEAT_NS: u64 = 50_000_000;
const MS: f64 = 1e6;
const SECOND: f64 = 1e9;
const HOUR: f64 = 3_600.0 * SECOND;
/// Half of a 40 ms round trip.
const DELAY_NS: f64 = 20.0 * MS;

/// One source of chance, SplitMix64.
pub struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.draw() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.unit() <= probability
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    fn pareto(&mut self, (least, shape, most): (f64, f64, f64)) -> f64 {
        (least / self.unit().powf(1.0 / shape)).min(most)
    }

    fn log_normal(&mut self, (median, sigma): (f64, f64)) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        median * (sigma * normal).exp()
    }
}

/// Something that is on for a while, then off for a while.
struct Episodes {
    off_mean: f64,
    on: fn(&mut Chance) -> f64,
    /// When the current or next episode begins and ends.
    from: f64,
    until: f64,
    count: u64,
}

impl Episodes {
    fn new(chance: &mut Chance, off_mean: f64, on: fn(&mut Chance) -> f64) -> Self {
        let from = chance.exponential(off_mean);
        let until = from + on(chance);
        Self { off_mean, on, from, until, count: 0 }
    }

    /// Whether it is on at `at`; asked in the order of time.
    fn is_on(&mut self, chance: &mut Chance, at: f64) -> bool {
        while at >= self.until {
            self.from = self.until + chance.exponential(self.off_mean);
            self.until = self.from + (self.on)(chance);
            self.count += 1;
        }
        at >= self.from
    }
}

/// A part of the way with its own losses.
struct Way {
    bad: Episodes,
    bad_loss: f64,
    good_loss: f64,
    flap: Episodes,
    flaps_seen: u64,
    shift: f64,
}

impl Way {
    fn private(chance: &mut Chance) -> Self {
        Self {
            bad: Episodes::new(chance, 0.25 * HOUR, |chance| chance.exponential(200.0 * MS)),
            bad_loss: 0.5,
            good_loss: 1e-4,
            flap: Episodes::new(chance, 12.0 * HOUR, |chance| chance.log_normal((300.0 * MS, 1.2))),
            flaps_seen: 0,
            shift: 0.0,
        }
    }

    fn common(chance: &mut Chance) -> Self {
        Self {
            bad: Episodes::new(chance, HOUR, |chance| chance.exponential(150.0 * MS)),
            bad_loss: 0.6,
            good_loss: 1e-5,
            flap: Episodes::new(chance, 7.0 * 24.0 * HOUR, |chance| chance.log_normal((300.0 * MS, 1.2))),
            flaps_seen: 0,
            shift: 0.0,
        }
    }

    /// Whether a beat sent at `at` is lost here; the delay moves after each flap.
    fn loses(&mut self, chance: &mut Chance, at: f64) -> bool {
        let flapping = self.flap.is_on(chance, at);
        if self.flap.count != self.flaps_seen {
            self.flaps_seen = self.flap.count;
            self.shift = chance.unit() * 20.0 * MS;
        }
        let loss = if self.bad.is_on(chance, at) { self.bad_loss } else { self.good_loss };
        flapping || chance.happens(loss)
    }
}

/// A beat that will arrive: when, at which observer, from which host, its number, when it was sent.
type Arrival = Reverse<(u64, usize, usize, u64, u64)>;

/// The world.
pub struct Trace {
    chance: Chance,
    end_ns: u64,
    access: Way,
    private: Vec<Way>,
    congestion: Vec<Episodes>,
    stalls: Vec<Episodes>,
    flying: BinaryHeap<Arrival>,
}

impl Trace {
    /// A world that lasts `days`.
    pub fn new(seed: u64, days: u64) -> Self {
        let mut chance = Chance(seed);
        let congested = |chance: &mut Chance| Episodes::new(chance, 0.25 * HOUR, |_| 3.0 * SECOND);
        let stall = |chance: &mut Chance| {
            Episodes::new(chance, 0.25 * HOUR, |chance| chance.pareto((15.0 * MS, 1.3, 1_500.0 * MS)))
        };
        Self {
            access: Way::common(&mut chance),
            private: (0..OBSERVERS).map(|_| Way::private(&mut chance)).collect(),
            congestion: (0..OBSERVERS).map(|_| congested(&mut chance)).collect(),
            stalls: (0..HOSTS).map(|_| stall(&mut chance)).collect(),
            end_ns: days * 24 * 3_600 * 1_000_000_000,
            flying: BinaryHeap::new(),
            chance,
        }
    }

    /// Sends every beat and hands in every arrival, in the order of time.
    pub fn run(mut self, judges: &mut Judges) {
        let mut number = 1;
        loop {
            let slot = number * BEAT_NS;
            if slot > self.end_ns {
                return;
            }
            for host in 0..HOSTS {
                // Hosts of a site beat one after the other, not at once.
                if let Some(left) = self.send(host, number, slot + BEAT_NS * host as u64 / HOSTS as u64) {
                    judges.left(host, left);
                }
            }
            while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= slot) {
                let Some(Reverse((at, observer, host, number, sent))) = self.flying.pop() else { break };
                judges.heard((observer, host), (number, sent), at);
            }
            number += 1;
        }
    }

    /// Answers when it leaves the host, if it does.
    fn send(&mut self, host: usize, number: u64, due_ns: u64) -> Option<u64> {
        let chance = &mut self.chance;
        let due = due_ns as f64;
        let stalled = self.stalls[host].is_on(chance, due);
        // A stalled agent skips the beats that it missed and sends one as soon as it runs again.
        if stalled && self.stalls[host].until > due + BEAT_NS as f64 {
            return None;
        }
        let sent = if stalled { self.stalls[host].until } else { due };
        let lost_at_access = self.access.loses(chance, sent);
        for observer in 0..OBSERVERS {
            let lost = self.private[observer].loses(chance, sent);
            let congested = self.congestion[observer].is_on(chance, sent);
            let dropped = congested && chance.happens(0.01);
            let mut delay = DELAY_NS + chance.exponential(0.2 * MS) + self.access.shift + self.private[observer].shift;
            if chance.happens(0.005) {
                delay += chance.pareto((MS, 1.6, 300.0 * MS));
            }
            if congested {
                delay += chance.pareto((3.0 * MS, 1.8, 400.0 * MS));
            }
            if !(lost_at_access || lost || dropped) {
                self.flying.push(Reverse(((sent + delay) as u64, observer, host, number, sent as u64)));
            }
        }
        Some(sent as u64)
    }
}
