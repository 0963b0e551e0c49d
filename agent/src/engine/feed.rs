//! A voter feeds the applied log to hosts that don't vote.
//!
//! Whoever stands within the log is sent entries; whoever stands before it, or far behind, the ledger as a whole. Where hosts
//! are many either is large, and many need it at once (all were restarted): it would lie a thousand times in the queues to
//! them. So a few of those who need much are served at a time, and what is applied in quick succession goes to many as one.
//!
//! Not here: what the fed host does with it (`log`).

use super::core::Engine;
use super::effect::Effect;
use super::log::{PART_BYTES, encode_ledger};
use super::message::{Fed, Message};
use quorum::codec::Blob;
use quorum::id::{HostName, LogIndex};
use quorum::ledger::Ledger;
use quorum::moment::Moment;
use quorum::replica::{EntryKind, Replica};
use std::collections::BTreeMap;
use std::time::Duration;

/// Most bytes of entries in one message; who misses more gets the ledger.
const ENTRIES_BYTES_MAX: usize = 512 << 10;
/// More bytes of entries than this are much.
const LITTLE_BYTES_MAX: usize = 16 << 10;
/// Hosts that are sent much in one step.
const MUCH_AT_ONCE: usize = 8;
/// From one such step to the next.
const MUCH_APART: Duration = Duration::from_millis(20);
/// More hosts than these are told together what is applied in quick succession: when a thousand are admitted at once, each
/// would be sent a thousand messages.
const MANY: usize = 64;
/// From one message to so many to the next, for each of them.
const MANY_APART: Duration = Duration::from_micros(100);
/// A host that asks again so soon after it was sent much has it on its way.
const MUCH_AGAIN: Duration = Duration::from_secs(5);

/// Whom a voter feeds.
#[derive(Debug, Default)]
pub(super) struct Feeding {
    /// The last index that each host was sent.
    fed: BTreeMap<HostName, LogIndex>,
    /// When a host was sent much, if that is not long ago.
    much: BTreeMap<HostName, Moment>,
    /// More hosts are waiting for much until then.
    due: Option<Moment>,
    /// When many hosts may next be told what was applied.
    many: Option<Moment>,
    /// They wait for that.
    many_wait: bool,
}

impl Feeding {
    /// When those who wait are served next.
    pub(super) fn deadline(&self) -> Option<Moment> {
        [self.due, self.many.filter(|_| self.many_wait)].into_iter().flatten().min()
    }

    /// Feeds a host no more; what was on its way to it is lost.
    pub(super) fn forget(&mut self, host: &HostName) {
        self.fed.remove(host);
        self.much.remove(host);
    }

    /// Feeds only these from now on.
    pub(super) fn keep(&mut self, is_fed: impl Fn(&HostName) -> bool) {
        self.fed.retain(|host, _| is_fed(host));
    }

    fn is_on_its_way(&self, host: &HostName, now: Moment) -> bool {
        self.much.get(host).is_some_and(|at| now.held_since(*at) < MUCH_AGAIN)
    }

    fn is_due(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|due| now.either_reached(due))
    }

    /// Whether so many are to be told now; if not, they are at the [`Feeding::deadline`].
    fn may_tell(&mut self, now: Moment, count: usize) -> bool {
        self.many_wait = count > MANY && self.many.is_some_and(|next| !now.either_reached(next));
        if count > MANY && !self.many_wait {
            self.many = Some(now.plus(MANY_APART * u32::try_from(count).unwrap_or(u32::MAX)));
        }
        !self.many_wait
    }

    /// Of all hosts that need much, those who get it now.
    fn turn(&mut self, now: Moment, mut behind: Vec<HostName>) -> Vec<HostName> {
        if self.due.is_some_and(|due| !now.either_reached(due)) {
            return Vec::new();
        }
        self.much.retain(|_, at| now.held_since(*at) < MUCH_AGAIN);
        self.due = (behind.len() > MUCH_AT_ONCE).then(|| now.plus(MUCH_APART));
        behind.truncate(MUCH_AT_ONCE);
        self.much.extend(behind.iter().map(|host| (host.clone(), now)));
        behind
    }
}

impl Engine {
    pub(super) fn on_follow(&mut self, from: HostName, after: LogIndex) {
        let now = self.now.moment;
        let Some(voting) = &mut self.voting else { return };
        if voting.feeding.is_on_its_way(&from, now) && voting.feeding.fed.get(&from).is_some_and(|fed| *fed > after) {
            return;
        }
        voting.feeding.fed.insert(from.clone(), after);
        // While others wait it waits with them.
        if voting.feeding.due.is_none() {
            self.feed(vec![from]);
        }
    }

    /// Sends every follower what was applied since.
    pub(super) fn feed_followers(&mut self) {
        let (applied, now) = (self.ledger.applied(), self.now.moment);
        let Some(voting) = &mut self.voting else { return };
        let behind = voting.feeding.fed.iter().filter(|(_, after)| **after < applied);
        let behind: Vec<HostName> = behind.map(|(host, _)| host.clone()).collect();
        if voting.feeding.may_tell(now, behind.len()) {
            self.feed(behind);
        }
    }

    /// Serves those who wait, when it is time.
    pub(super) fn feed_waiting(&mut self) {
        let now = self.now.moment;
        if self.voting.as_ref().is_some_and(|voting| voting.feeding.is_due(now)) {
            self.feed_followers();
        }
    }

    fn feed(&mut self, hosts: Vec<HostName>) {
        let applied = self.ledger.applied();
        let Some(voting) = &mut self.voting else { return };
        let mut behind = Vec::new();
        for host in hosts {
            let Some(after) = voting.feeding.fed.get(&host).copied().filter(|after| *after < applied) else { continue };
            match entries(&voting.replica, after, applied, LITTLE_BYTES_MAX) {
                Some(entries) => {
                    voting.feeding.fed.insert(host.clone(), applied);
                    let message = Message::Committed { first: LogIndex(after.0 + 1), entries };
                    self.effects.push(Effect::Message { to: host, message: Box::new(message) });
                }
                None => behind.push(host),
            }
        }
        let turn = voting.feeding.turn(self.now.moment, behind);
        if !turn.is_empty() {
            self.feed_much(turn);
        }
    }

    /// What they miss, if it fits into a message; else the ledger as it stands.
    fn feed_much(&mut self, hosts: Vec<HostName>) {
        let applied = self.ledger.applied();
        let Some(voting) = &mut self.voting else { return };
        let mut whole = None;
        for host in hosts {
            let after = voting.feeding.fed.insert(host.clone(), applied).unwrap_or_default();
            let messages = match entries(&voting.replica, after, applied, ENTRIES_BYTES_MAX) {
                Some(entries) => vec![Message::Committed { first: LogIndex(after.0 + 1), entries }],
                None => whole.get_or_insert_with(|| parts(&self.ledger)).clone(),
            };
            let to = |message| Effect::Message { to: host.clone(), message: Box::new(message) };
            self.effects.extend(messages.into_iter().map(to));
        }
    }
}

/// The ledger as it stands; nothing, if it can't be encoded.
fn parts(ledger: &Ledger) -> Vec<Message> {
    let Ok(bytes) = encode_ledger(ledger) else { return Vec::new() };
    let parts = u32::try_from(bytes.len().div_ceil(PART_BYTES)).unwrap_or(u32::MAX);
    let message = |(part, bytes)| Message::Snapshot { index: ledger.applied(), part, parts, bytes: Blob::from(bytes) };
    (0u32..).zip(bytes.chunks(PART_BYTES)).map(message).collect()
}

/// All applied entries behind `after`; `None` if they are compacted away, or more than `bytes_max`.
fn entries(replica: &Replica, after: LogIndex, applied: LogIndex, bytes_max: usize) -> Option<Vec<Fed>> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for entry in replica.entries_after(after) {
        let next = after.0 + 1 + entries.len() as u64;
        if entry.index > applied {
            break;
        }
        bytes += entry.data().len();
        if entry.index.0 != next || bytes > bytes_max {
            return None;
        }
        entries.push(match entry.to_entry().kind {
            EntryKind::Empty => Fed::Empty(entry.term),
            EntryKind::Normal(data) => Fed::Entry(entry.term, data),
            EntryKind::Membership(change) => Fed::Membership(entry.term, change),
        });
    }
    (after.0 + entries.len() as u64 == applied.0).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_ns(1_000_000_000 + ms * 1_000_000)
    }

    fn hosts(count: usize) -> Vec<HostName> {
        (0..count).map(|n| HostName::new(&format!("h{n:03}")).expect("a name")).collect()
    }

    #[test]
    fn a_thousand_that_need_much_get_it_a_few_at_a_time_and_each_once() {
        let mut feeding = Feeding::default();
        let waiting = hosts(100);
        let mut served = Vec::new();
        for step in 0..100 {
            let turn = feeding.turn(at(step), waiting[served.len()..].to_vec());
            assert!(turn.len() <= MUCH_AT_ONCE);
            assert!(turn.is_empty() || step % 20 == 0, "step {step} serves {turn:?}");
            served.extend(turn);
        }
        assert_eq!(served, hosts(40), "five steps of eight");
        // What was sent is on its way for a while: who asks anew from where it stood isn't sent it twice.
        let (first, last) = (&waiting[0], &waiting[99]);
        assert!(feeding.is_on_its_way(first, at(4_999)) && !feeding.is_on_its_way(first, at(5_000)));
        assert!(!feeding.is_on_its_way(last, at(100)));
        feeding.forget(first);
        assert!(!feeding.is_on_its_way(first, at(100)), "it was lost with the connection");
    }

    #[test]
    fn many_hosts_are_told_together_what_is_applied_in_quick_succession_and_few_at_once() {
        let mut feeding = Feeding::default();
        assert!(feeding.may_tell(at(0), 1_000), "nothing was said before");
        assert_eq!(feeding.deadline(), None);
        assert!(!feeding.may_tell(at(1), 1_000) && !feeding.may_tell(at(99), 1_000));
        assert_eq!(feeding.deadline(), Some(at(100)), "those who wait have their turn");
        assert!(feeding.may_tell(at(99), MANY), "a few don't wait for others");
        assert!(!feeding.may_tell(at(99), 1_000));
        assert!(feeding.is_due(at(100)) && feeding.may_tell(at(100), 1_000));
        assert_eq!(feeding.deadline(), None);
    }
}
