//! Which connection attempts are worth a handshake. Pure.
//!
//! A handshake costs 0.3 ms of CPU and memory; anyone can ask for one. So: only known addresses (that is settled
//! before, in `socket`), address validation by a stateless retry as soon as a few handshakes run at once, a bounded
//! number of handshakes at a time, and a budget for each proven address.

use quorum::moment::Moment;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What to do with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Begin the handshake.
    Accept,
    /// Have the sender prove its address first. Costs no memory.
    Retry,
    /// Say nothing. A real peer sends again within a second.
    Ignore,
}

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Handshakes running at once beyond which addresses must be proven.
    pub unproven_handshakes_max: usize,
    /// Handshakes running at once beyond which nothing is accepted.
    pub handshakes_max: usize,
    /// Handshakes that one proven address may begin in a burst.
    pub burst_per_address: u32,
    /// The time in which it earns another one.
    pub refill_every: Duration,
    /// Handshakes that all unproven addresses together may begin in a burst.
    pub unproven_burst: u32,
    /// The time in which they earn another one.
    pub unproven_refill_every: Duration,
}

impl Default for Bounds {
    /// A peer needs at most four connections (two paths of beats, bulk, and one dialled from both ends) for each
    /// round of its backoff; 64 handshakes at once are 20 ms of CPU.
    fn default() -> Self {
        Self {
            unproven_handshakes_max: 8,
            handshakes_max: 64,
            burst_per_address: 32,
            refill_every: Duration::from_millis(100),
            unproven_burst: 64,
            unproven_refill_every: Duration::from_millis(20),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u32,
    counted_from: Moment,
}

/// Decides, and remembers what each address has used up.
#[derive(Debug)]
pub struct Admission {
    bounds: Bounds,
    budgets: BTreeMap<IpAddr, Budget>,
    unproven: Budget,
}

impl Admission {
    /// Addresses remembered; those that have their whole budget back are forgotten first.
    const ADDRESSES_MAX: usize = 4096;

    /// Nothing used up yet.
    pub fn new(bounds: Bounds, now: Moment) -> Self {
        let unproven = Budget { left: bounds.unproven_burst, counted_from: now };
        Self { bounds, budgets: BTreeMap::new(), unproven }
    }

    /// What to do with an attempt from `address` (`proven` by a retry or not) while `running` handshakes run.
    pub fn judge(&mut self, now: Moment, address: IpAddr, proven: bool, running: usize) -> Verdict {
        if running >= self.bounds.handshakes_max {
            return Verdict::Ignore;
        }
        if !proven {
            // An unproven address may be forged, so nothing is charged to it (its real owner would pay), but to all.
            let few = running < self.bounds.unproven_handshakes_max;
            let Bounds { unproven_burst, unproven_refill_every, .. } = self.bounds;
            let paid = few && self.unproven.charge(now, unproven_burst, unproven_refill_every);
            return if paid { Verdict::Accept } else { Verdict::Retry };
        }
        if self.charge(now, address) { Verdict::Accept } else { Verdict::Ignore }
    }

    fn charge(&mut self, now: Moment, address: IpAddr) -> bool {
        let Bounds { burst_per_address: burst, refill_every, .. } = self.bounds;
        if self.budgets.len() >= Self::ADDRESSES_MAX && !self.budgets.contains_key(&address) {
            self.budgets.retain(|_, budget| budget.refill(now, burst, refill_every) < burst);
            if self.budgets.len() >= Self::ADDRESSES_MAX {
                return false;
            }
        }
        let fresh = Budget { left: burst, counted_from: now };
        self.budgets.entry(address).or_insert(fresh).charge(now, burst, refill_every)
    }
}

impl Budget {
    /// Takes one, if one is left.
    fn charge(&mut self, now: Moment, burst: u32, every: Duration) -> bool {
        let left = self.refill(now, burst, every);
        self.left = left.saturating_sub(1);
        left > 0
    }

    /// Adds what was earned since it was last counted; answers what is left.
    fn refill(&mut self, now: Moment, burst: u32, every: Duration) -> u32 {
        let earned = now.waited_since(self.counted_from).as_nanos() / every.as_nanos().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(burst);
            self.counted_from = now;
        }
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const START: Moment = Moment::from_ns(1);

    fn bounds() -> Bounds {
        Bounds { burst_per_address: 3, ..Bounds::default() }
    }

    #[test]
    fn a_quiet_agent_accepts_at_once_and_a_busy_one_asks_for_proof() {
        let mut admission = Admission::new(bounds(), START);
        assert_eq!(admission.judge(START, HOME, false, 0), Verdict::Accept);
        assert_eq!(admission.judge(START, HOME, false, 8), Verdict::Retry);
        assert_eq!(admission.judge(START, HOME, true, 8), Verdict::Accept);
        assert_eq!(admission.judge(START, HOME, true, 64), Verdict::Ignore);
        assert_eq!(admission.judge(START, HOME, false, 64), Verdict::Ignore);
    }

    #[test]
    fn fast_unproven_attempts_are_asked_for_proof_even_when_few_run_at_once() {
        let mut admission = Admission::new(bounds(), START);
        let accepted = (0..1000).filter(|_| admission.judge(START, HOME, false, 0) == Verdict::Accept).count();
        assert_eq!(accepted, bounds().unproven_burst as usize);
        let later = START.plus(bounds().unproven_refill_every);
        assert_eq!(admission.judge(later, HOME, false, 0), Verdict::Accept);
        assert_eq!(admission.judge(later, HOME, false, 0), Verdict::Retry);
    }

    #[test]
    fn a_forged_address_uses_up_nobodys_budget() {
        let mut admission = Admission::new(bounds(), START);
        for _ in 0..1000 {
            admission.judge(START, HOME, false, 0);
        }
        assert_eq!(admission.judge(START, HOME, true, 0), Verdict::Accept);
    }

    #[test]
    fn a_proven_address_has_a_budget_that_comes_back() {
        let mut admission = Admission::new(bounds(), START);
        let verdicts: Vec<Verdict> = (0..4).map(|_| admission.judge(START, HOME, true, 0)).collect();
        assert_eq!(verdicts, [Verdict::Accept, Verdict::Accept, Verdict::Accept, Verdict::Ignore]);
        let later = START.plus(bounds().refill_every);
        assert_eq!(admission.judge(later, HOME, true, 0), Verdict::Accept);
        assert_eq!(admission.judge(later, HOME, true, 0), Verdict::Ignore);
    }

    #[test]
    fn remembered_addresses_are_bounded() {
        let mut admission = Admission::new(bounds(), START);
        for n in 0..20_000_u32 {
            let address = IpAddr::V4(n.into());
            admission.judge(START, address, true, 0);
        }
        assert_eq!(admission.budgets.len(), Admission::ADDRESSES_MAX);
        let later = START.plus(Duration::from_secs(60));
        assert_eq!(admission.judge(later, HOME, true, 0), Verdict::Accept, "those who got it all back are forgotten");
        assert_eq!(admission.budgets.len(), 1);
    }
}
