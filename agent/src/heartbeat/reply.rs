//! Which hosts a voter's beat leaves for on schedule, and which as a reply to their own.
//!
//! A host without a vote is told the same as everybody else, but needn't be told at the same moment: a beat that leaves
//! together with the answer to a lease request, in the packet that acknowledges the host's own beat, costs next to nothing.
//! And a thousand beats don't leave in one step. Whoever is silent gets its beats on schedule: its own may be lost on the
//! way here while it still hears.
//!
//! Of two beats to the same host the second leaves Δ after the first while the host speaks, and at most 2·Δ when one of
//! its own is lost: as if one of these were.

use quorum::id::HostName;
use quorum::moment::Moment;
use quorum::mutants;
use std::collections::BTreeMap;
use std::time::Duration;

/// The number of the beat that one host was sent last, and when it spoke.
#[derive(Clone, Debug, Default)]
struct Told {
    seq: u64,
    heard: Option<Moment>,
}

/// The beats to all hosts that are replied to.
#[derive(Clone, Debug)]
pub struct Replies {
    every: Duration,
    of: BTreeMap<HostName, Told>,
}

impl Replies {
    /// Nobody was told anything yet; `every` is Δ.
    pub fn new(every: Duration) -> Self {
        Self { every, of: BTreeMap::new() }
    }

    /// Changes Δ.
    pub fn set_every(&mut self, every: Duration) {
        self.every = every;
    }

    /// Forgets all other hosts.
    pub fn keep(&mut self, is_known: impl Fn(&HostName) -> bool) {
        self.of.retain(|host, _| is_known(host));
    }

    /// Beat `seq` is due on schedule: its number for `host` if it leaves now. A host that spoke of late gets it as a reply.
    pub fn on_schedule(&mut self, now: Moment, host: &HostName, seq: u64) -> Option<u64> {
        let told = self.of.entry(host.clone()).or_default();
        let lately = self.every + self.every / 2;
        let speaks = told.heard.is_some_and(|at| now.held_since(at) < lately) || mutants::on("heartbeat.only_replies");
        (!speaks).then(|| told.number(seq))
    }

    /// `host` spoke; `seq` was last due on schedule. The number of the beat that it is sent, unless it has had more than are
    /// due already. Numbers run ahead of the schedule by one at most: a host whose clock is fast would otherwise have those
    /// of the next days, and take none that leave on schedule once it votes.
    pub fn on_beat(&mut self, now: Moment, host: &HostName, seq: u64) -> Option<u64> {
        let told = self.of.entry(host.clone()).or_default();
        told.heard = Some(now);
        let is_ahead = told.seq > seq;
        (!is_ahead).then(|| told.number(seq))
    }
}

impl Told {
    /// As on schedule, so that a beat that was left out shows; but each beat has a number of its own.
    fn number(&mut self, seq: u64) -> u64 {
        self.seq = seq.max(self.seq + 1);
        self.seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT_MS: u64 = 50;

    fn at(ms: u64) -> Moment {
        Moment::from_ns(1_000_000_000 + ms * 1_000_000)
    }

    /// The beats that leave in two seconds, schedule from 0 ms on, for a host that speaks at these moments.
    fn left(spoke: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let host = HostName::new("tk-1").expect("a name");
        let mut replies = Replies::new(Duration::from_millis(BEAT_MS));
        let mut left = Vec::new();
        for ms in 0..2_000 {
            let seq = ms / BEAT_MS + 1;
            let scheduled = ms.is_multiple_of(BEAT_MS).then(|| replies.on_schedule(at(ms), &host, seq)).flatten();
            let reply = spoke(ms).then(|| replies.on_beat(at(ms), &host, seq)).flatten();
            left.extend(scheduled.into_iter().chain(reply).map(|seq| (ms, seq)));
        }
        left
    }

    fn gaps(left: &[(u64, u64)]) -> Vec<u64> {
        left.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    #[test]
    fn a_host_that_speaks_is_told_when_it_speaks_and_a_silent_one_on_schedule() {
        let left = left(|ms| ms % BEAT_MS == 20 && !(600..1_200).contains(&ms));
        let (speaking, silent): (Vec<_>, Vec<_>) = left[1..].iter().partition(|(ms, _)| ms % BEAT_MS == 20);
        assert!(speaking.iter().all(|(ms, _)| !(600..1_200).contains(ms)));
        assert!(silent.iter().all(|(ms, _)| ms % BEAT_MS == 0 && (600..=1_200).contains(ms)), "{silent:?}");
        assert!(gaps(&left).into_iter().all(|gap| (20..=80).contains(&gap)), "{:?}", gaps(&left));
        assert!(left.windows(2).all(|pair| pair[0].1 < pair[1].1), "each has a number of its own: {left:?}");
    }

    #[test]
    fn a_host_whose_beats_come_around_the_schedule_lacks_none() {
        let left = left(|ms| ms % 100 == 48 || ms % 100 == 2 && ms > 2);
        let gaps = gaps(&left[2..]);
        assert!(gaps.into_iter().all(|gap| gap == 46 || gap == 54), "{left:?}");
        assert!(left[2..].windows(2).all(|pair| pair[0].1 + 1 == pair[1].1), "no number is left out: {left:?}");
    }

    #[test]
    fn a_lost_beat_of_the_host_shows_as_one_that_it_lacks() {
        for phase in [0, 20, 30, 49] {
            let left = left(|ms| ms % BEAT_MS == phase && ms / BEAT_MS != 20);
            assert!(gaps(&left).into_iter().all(|gap| gap <= 2 * BEAT_MS), "{phase}: {left:?}");
            let skipped: u64 = left.windows(2).map(|pair| pair[1].1 - pair[0].1 - 1).sum();
            assert!(skipped <= 1, "{phase}: {left:?}");
        }
    }

    #[test]
    fn the_numbers_of_a_host_whose_clock_is_fast_stay_with_the_schedule() {
        let left = left(|ms| ms.is_multiple_of(BEAT_MS - 2));
        assert!(left.iter().all(|(ms, seq)| *seq <= ms / BEAT_MS + 2), "{left:?}");
        assert!(gaps(&left[1..]).into_iter().all(|gap| gap <= 2 * BEAT_MS), "{left:?}");
        let rare = gaps(&left[1..]).into_iter().filter(|gap| *gap > BEAT_MS).count();
        assert!((1..=2).contains(&rare), "{left:?}");
    }
}
