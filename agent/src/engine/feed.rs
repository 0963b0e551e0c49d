//! A voter feeds the applied log to hosts that don't vote.
//!
//! Whoever stands within the log is sent entries; whoever stands before it, or far behind, the ledger as a whole. Where hosts
//! are many either is large, and many need it at once (all were restarted): it would lie a thousand times in the queues to
//! them. So a few of those who need much are served at a time; all are sent the very same pieces (`pieces`); and what is
//! applied in quick succession goes to many as one.
//!
//! Not here: what the fed host does with it (`log`).

use super::core::Engine;
use super::effect::Effect;
use super::log::{PART_BYTES, encode_ledger};
use super::message::{Fed, Message};
use super::pieces::{LOOSE_BYTES_MAX, Log, Pieces, bytes_of, committed};
use quorum::codec::Blob;
use quorum::id::{HostName, LogIndex};
use quorum::ledger::{Ledger, PlanState};
use quorum::moment::Moment;
use quorum::mutants;
use quorum::replica::{EntryKind, Replica};
use std::collections::BTreeMap;
use std::time::Duration;

/// More bytes of entries than this are much.
const LITTLE_BYTES_MAX: usize = 16 << 10;
/// Hosts that are sent much in one step.
const MUCH_AT_ONCE: usize = 8;
/// From one such step to the next.
const MUCH_APART: Duration = Duration::from_millis(20);
/// More hosts than these are told together what is applied in quick succession: when a thousand are admitted at once, each
/// would be sent a thousand messages.
const MANY: usize = 64;
/// From one message to so many to the next, for each of them, while a plan waits for what they do.
const MANY_APART: Duration = Duration::from_micros(100);
/// The same while none does.
const MANY_APART_AT_REST: Duration = Duration::from_micros(500);
/// Where they are so many, a host that asks again so soon after it was sent something has it on its way. While a thousand
/// are admitted, each beat speaks of more than any of them has.
const AGAIN: Duration = Duration::from_secs(2);
/// A host that asks again so soon after it was sent much has it on its way.
const MUCH_AGAIN: Duration = Duration::from_secs(5);

/// Whom a voter feeds.
#[derive(Debug, Default)]
pub(super) struct Feeding {
    /// The last index that each host was sent.
    fed: BTreeMap<HostName, LogIndex>,
    /// When each host was sent something last.
    told: BTreeMap<HostName, Moment>,
    /// When a host was sent much, if that is not long ago.
    much: BTreeMap<HostName, Moment>,
    /// More hosts are waiting for much until then.
    due: Option<Moment>,
    /// When many hosts were told last, and how many.
    many: Option<(Moment, u32)>,
    /// Many hosts wait until then.
    many_wait: Option<Moment>,
    /// What was sent of late to who missed more than a little.
    pieces: Pieces,
}

impl Feeding {
    /// When those who wait are served next.
    pub(super) fn deadline(&self) -> Option<Moment> {
        [self.due, self.many_wait].into_iter().flatten().min()
    }

    /// Feeds a host no more; what was on its way to it is lost.
    pub(super) fn forget(&mut self, host: &HostName) {
        self.fed.remove(host);
        self.told.remove(host);
        self.much.remove(host);
    }

    /// Feeds only these from now on.
    pub(super) fn keep(&mut self, is_fed: impl Fn(&HostName) -> bool) {
        self.fed.retain(|host, _| is_fed(host));
        self.told.retain(|host, _| is_fed(host));
    }

    fn is_on_its_way(&self, host: &HostName, now: Moment) -> bool {
        let is_much = self.much.get(host).is_some_and(|at| now.held_since(*at) < MUCH_AGAIN);
        let are_many = self.fed.len() > MANY && !mutants::on("feed.sends_again_at_once");
        is_much || are_many && self.told.get(host).is_some_and(|at| now.held_since(*at) < AGAIN)
    }

    /// These stand at `applied` now, as soon as what they are being sent arrives.
    fn send(&mut self, hosts: &[HostName], applied: LogIndex, now: Moment) {
        self.fed.extend(hosts.iter().map(|host| (host.clone(), applied)));
        self.told.extend(hosts.iter().map(|host| (host.clone(), now)));
    }

    /// These hosts by the last index that each was sent: who stands at the same place is sent the same.
    fn by_place(&self, hosts: Vec<HostName>) -> BTreeMap<LogIndex, Vec<HostName>> {
        let mut places: BTreeMap<LogIndex, Vec<HostName>> = BTreeMap::new();
        for host in hosts {
            if let Some(after) = self.fed.get(&host) {
                places.entry(*after).or_default().push(host);
            }
        }
        places
    }

    fn is_due(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|due| now.either_reached(due))
    }

    /// Whether so many are to be told now; if not, they are at the [`Feeding::deadline`]. By `apart` each of those who were
    /// told last puts it off.
    fn may_tell(&mut self, now: Moment, count: usize, apart: Duration) -> bool {
        let next = self.many.map(|(at, count)| at.plus(apart * count));
        self.many_wait = next.filter(|next| count > MANY && !now.either_reached(*next));
        if count > MANY && self.many_wait.is_none() {
            self.many = Some((now, u32::try_from(count).unwrap_or(u32::MAX)));
        }
        self.many_wait.is_none()
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
        let is_urgent = self.ledger.plans().values().any(PlanState::is_open);
        let Some(voting) = &mut self.voting else { return };
        let behind = voting.feeding.fed.iter().filter(|(_, after)| **after < applied);
        let behind: Vec<HostName> = behind.map(|(host, _)| host.clone()).collect();
        if voting.feeding.may_tell(now, behind.len(), if is_urgent { MANY_APART } else { MANY_APART_AT_REST }) {
            self.feed(behind);
        }
    }

    /// Serves those who wait, when it is time.
    pub(super) fn feed_waiting(&mut self) {
        let now = self.now.moment;
        let Some(voting) = &mut self.voting else { return };
        voting.feeding.pieces.forget_unused(now);
        if voting.feeding.is_due(now) {
            self.feed_followers();
        }
    }

    fn feed(&mut self, hosts: Vec<HostName>) {
        let (applied, now) = (self.ledger.applied(), self.now.moment);
        let Some(voting) = &mut self.voting else { return };
        let mut behind = Vec::new();
        for (after, hosts) in voting.feeding.by_place(hosts) {
            if after >= applied {
                continue;
            }
            let log = Applied(&voting.replica, &self.ledger);
            let messages = match log.entries(after, applied, LITTLE_BYTES_MAX) {
                None => {
                    behind.extend(hosts);
                    continue;
                }
                Some(entries) if bytes_of(&entries) <= LOOSE_BYTES_MAX => vec![committed(after, entries)],
                Some(_) => voting.feeding.pieces.of(&log, after, now),
            };
            voting.feeding.send(&hosts, applied, now);
            let effects = messages.into_iter().map(|message| Effect::Messages { to: hosts.clone(), message });
            self.effects.extend(effects);
        }
        let turn = voting.feeding.turn(now, behind);
        if !turn.is_empty() {
            self.feed_much(turn);
        }
    }

    /// What they miss, if it fits into a message; else the ledger as it stands.
    fn feed_much(&mut self, hosts: Vec<HostName>) {
        let (applied, now) = (self.ledger.applied(), self.now.moment);
        let Some(voting) = &mut self.voting else { return };
        for (after, hosts) in voting.feeding.by_place(hosts) {
            voting.feeding.send(&hosts, applied, now);
            for message in voting.feeding.pieces.of(&Applied(&voting.replica, &self.ledger), after, now) {
                self.effects.push(Effect::Messages { to: hosts.clone(), message });
            }
        }
    }
}

struct Applied<'a>(&'a Replica, &'a Ledger);

impl Log for Applied<'_> {
    fn applied(&self) -> LogIndex {
        self.1.applied()
    }

    fn entries(&self, after: LogIndex, until: LogIndex, bytes_max: usize) -> Option<Vec<Fed>> {
        entries(self.0, after, until, bytes_max)
    }

    fn parts(&self) -> Vec<Message> {
        parts(self.1)
    }
}

/// The ledger as it stands; nothing, if it can't be encoded.
fn parts(ledger: &Ledger) -> Vec<Message> {
    let Ok(bytes) = encode_ledger(ledger) else { return Vec::new() };
    let parts = u32::try_from(bytes.len().div_ceil(PART_BYTES)).unwrap_or(u32::MAX);
    let message = |(part, bytes)| Message::Snapshot { index: ledger.applied(), part, parts, bytes: Blob::from(bytes) };
    (0u32..).zip(bytes.chunks(PART_BYTES)).map(message).collect()
}

/// All entries behind `after`, up to `until`; `None` if they are compacted away, or more than `bytes_max`.
fn entries(replica: &Replica, after: LogIndex, until: LogIndex, bytes_max: usize) -> Option<Vec<Fed>> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for entry in replica.entries_after(after) {
        let next = after.0 + 1 + entries.len() as u64;
        if entry.index > until {
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
    (after.0 + entries.len() as u64 == until.0).then_some(entries)
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
        let may_tell = |feeding: &mut Feeding, now, count| feeding.may_tell(now, count, MANY_APART);
        assert!(may_tell(&mut feeding, at(0), 1_000), "nothing was said before");
        assert_eq!(feeding.deadline(), None);
        assert!(!may_tell(&mut feeding, at(1), 1_000) && !may_tell(&mut feeding, at(99), 1_000));
        assert_eq!(feeding.deadline(), Some(at(100)), "those who wait have their turn");
        assert!(may_tell(&mut feeding, at(99), MANY), "a few don't wait for others");
        assert!(!may_tell(&mut feeding, at(99), 1_000));
        assert!(feeding.is_due(at(100)) && may_tell(&mut feeding, at(100), 1_000));
        assert_eq!(feeding.deadline(), None);
    }

    #[test]
    fn many_who_wait_are_told_sooner_as_soon_as_a_plan_waits_for_them() {
        let mut feeding = Feeding::default();
        assert!(feeding.may_tell(at(0), 1_000, MANY_APART_AT_REST));
        assert!(!feeding.may_tell(at(150), 1_000, MANY_APART_AT_REST));
        assert_eq!(feeding.deadline(), Some(at(500)));
        assert!(feeding.may_tell(at(150), 1_000, MANY_APART));
    }

    /// Whether a host that was just sent what it lacks, and asks once more, has it on its way, with so many followers.
    fn is_waited_for(followers: usize, asks_again: u64) -> bool {
        let mut feeding = Feeding::default();
        let hosts = hosts(followers);
        feeding.send(&hosts, LogIndex(7), at(0));
        feeding.is_on_its_way(&hosts[0], at(asks_again))
    }

    #[test]
    fn among_many_who_asks_again_at_once_is_not_sent_it_twice_and_among_few_is() {
        assert!(is_waited_for(MANY + 1, 1_999) && !is_waited_for(MANY + 1, 2_000));
        assert!(!is_waited_for(MANY, 1));
        let mut feeding = Feeding::default();
        let hosts = hosts(MANY + 1);
        feeding.send(&hosts, LogIndex(7), at(0));
        feeding.forget(&hosts[0]);
        assert!(!feeding.is_on_its_way(&hosts[0], at(1)), "it was lost with the connection");
        feeding.keep(|host| *host != hosts[1]);
        assert!(!feeding.told.contains_key(&hosts[1]));
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn a_voter_that_sends_many_again_what_is_on_its_way_is_noticed() {
        let _planted = mutants::plant("feed.sends_again_at_once");
        assert!(!is_waited_for(MANY + 1, 1));
    }

    #[test]
    fn those_at_the_same_place_are_sent_the_same_message() {
        let mut feeding = Feeding::default();
        let hosts = hosts(5);
        feeding.send(&hosts[..3], LogIndex(7), at(0));
        feeding.send(&hosts[3..4], LogIndex(9), at(0));
        let places = feeding.by_place(hosts.clone());
        assert_eq!(places, [(LogIndex(7), hosts[..3].to_vec()), (LogIndex(9), hosts[3..4].to_vec())].into());
    }
}
