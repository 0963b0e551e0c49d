//! The holder's side: which grants count, and until when.
//!
//! Invariant: E_h never lies later than (send time of a request that a majority answered under one configuration
//! id) + (the smallest L among them), on either clock. Forgetting a grant or a request is always safe; counting one
//! twice is not possible, because only the newest per voter is kept.
//!
//! Not here: what happens when the lease runs out (the keeper), sending (the engine performs what
//! [`Holder::requests_due`] returns, after the moment that is recorded here as the send time).

use super::{Answer, Claim, Grant, LeaseRequest, Nonce, Refusal, may_pet};
use crate::id::{AgentInstance, HostName, VoterId};
use crate::moment::Moment;
use crate::mutants;
use crate::roster::{ConfigId, majority};
use crate::timing::Timing;
use std::collections::BTreeMap;
use std::time::Duration;

/// Configurations whose grants are kept. A change passes through three (old, joint, new); one more for a second
/// change right behind it.
const CONFIGS_KEPT: usize = 4;

/// Requests remembered per voter. At the usual R it covers more than any lease; an answer to an older request could
/// prolong nothing.
const REQUESTS_KEPT: usize = 64;

/// What one voter last granted: when the request for it was sent, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Given {
    /// When the request was sent, on the holder's clocks. Never when the answer came.
    pub sent: Moment,
    /// L as that voter said.
    pub lease: Duration,
}

/// Why an answer changed nothing. Each is counted; none is an error, because the network may repeat and reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// It names another host.
    OtherHost,
    /// It names another admission of this host, or a configuration of another era.
    OtherHostEpoch,
    /// It answers a request of another agent process.
    OtherAgent,
    /// It answers a request that was never sent to that voter, was answered already, or is too old to matter.
    UnknownRequest,
    /// The voter is not in the list that it sent: a learner, or one that was removed.
    NotMember,
    /// The list differs from what another voter sent under the same configuration id.
    ListDiffers,
}

#[derive(Clone, Debug)]
struct Book {
    voters: Vec<VoterId>,
    outgoing: Vec<VoterId>,
    given: BTreeMap<VoterId, Given>,
}

#[derive(Clone, Debug, Default)]
struct Asked {
    last: Option<Moment>,
    sent: BTreeMap<u64, Moment>,
}

/// One admission's lease as its holder sees it. Dies with the admission: a new host epoch gets a new `Holder`.
#[derive(Clone, Debug)]
pub struct Holder {
    host: HostName,
    claim: Claim,
    agent: AgentInstance,
    renewal: Duration,
    count: u64,
    renewing: bool,
    asked: BTreeMap<VoterId, Asked>,
    books: BTreeMap<ConfigId, Book>,
    ignored: BTreeMap<Ignored, u64>,
    refused: BTreeMap<VoterId, Refusal>,
}

impl Holder {
    /// A lease that nobody has granted yet. `agent` must be drawn anew by each agent process.
    pub fn new(host: HostName, claim: Claim, agent: AgentInstance, renewal: Duration) -> Self {
        Self {
            host,
            claim,
            agent,
            renewal,
            count: 0,
            renewing: true,
            asked: BTreeMap::new(),
            books: BTreeMap::new(),
            ignored: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// As whom this lease is held.
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// Whom to ask from now on: every voter that is known, of either half of a joint configuration.
    ///
    /// It is no safety matter: what counts is the list in the grants.
    pub fn set_voters(&mut self, voters: impl Iterator<Item = VoterId> + Clone) {
        self.asked.retain(|asked, _| voters.clone().any(|voter| voter == *asked));
        for voter in voters {
            self.asked.entry(voter).or_default();
        }
    }

    /// R as a change of the cluster spec set it.
    pub fn set_renewal(&mut self, renewal: Duration) {
        self.renewal = renewal;
    }

    /// Asks nobody any more: the lease runs out by itself. Grants under way still count.
    pub fn stop_renewing(&mut self) {
        self.renewing = false;
    }

    /// The requests that are due, each to one voter, and records `now` as their send time.
    ///
    /// The caller sends them *after* `now` was read: a send time that is too early shortens the lease, one that is
    /// too late would be unsound.
    pub fn requests_due(&mut self, now: Moment) -> Vec<(VoterId, LeaseRequest)> {
        if !self.renewing {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (voter, asked) in &mut self.asked {
            if asked.last.is_some_and(|last| now.held_since(last) < self.renewal) {
                continue;
            }
            self.count += 1;
            asked.last = Some(now);
            asked.sent.insert(self.count, now);
            while asked.sent.len() > REQUESTS_KEPT {
                asked.sent.pop_first();
            }
            let nonce = Nonce { agent: self.agent, count: self.count };
            due.push((*voter, LeaseRequest { host: self.host.clone(), claim: self.claim, nonce }));
        }
        due
    }

    /// When the next request is due; `None` if nobody is to be asked.
    pub fn deadline(&self) -> Option<Moment> {
        let next = |asked: &Asked| asked.last.map_or(Moment::default(), |last| last.plus(self.renewal));
        if self.renewing { self.asked.values().map(next).min() } else { None }
    }

    /// Takes in what a voter answered. `from` is who the transport's certificate says it is.
    ///
    /// # Errors
    /// [`Ignored`] if it changes nothing; it has been counted.
    pub fn answer(&mut self, now: Moment, from: VoterId, answer: &Answer) -> Result<(), Ignored> {
        let taken = match answer {
            Answer::Grant(grant) => self.grant(now, from, grant),
            Answer::Refuse { voter, nonce, reason } => self.refusal(from, *voter, *nonce, *reason),
        };
        if let Err(why) = taken {
            *self.ignored.entry(why).or_default() += 1;
        }
        taken
    }

    fn refusal(&mut self, from: VoterId, voter: VoterId, nonce: Nonce, reason: Refusal) -> Result<(), Ignored> {
        if from != voter {
            return Err(Ignored::NotMember);
        }
        self.sent_to(voter, nonce)?;
        self.refused.insert(voter, reason);
        Ok(())
    }

    fn grant(&mut self, now: Moment, from: VoterId, grant: &Grant) -> Result<(), Ignored> {
        if grant.host != self.host {
            return Err(Ignored::OtherHost);
        }
        let same_admission = grant.host_epoch == self.claim.host_epoch && grant.config.era == self.claim.era;
        if !same_admission && !mutants::on("lease.count_other_host_epoch") {
            return Err(Ignored::OtherHostEpoch);
        }
        let listed = grant.voters.contains(&grant.voter) || grant.outgoing.contains(&grant.voter);
        if (!listed || from != grant.voter) && !mutants::on("lease.count_non_member") {
            return Err(Ignored::NotMember);
        }
        let known = self.books.get(&self.book_of(grant));
        if known.is_some_and(|book| book.voters != grant.voters || book.outgoing != grant.outgoing) {
            return Err(Ignored::ListDiffers);
        }
        let mut sent = self.sent_to(grant.voter, grant.nonce)?;
        if mutants::on("lease.expiry_from_receipt") {
            sent = now;
        }
        self.write_down(grant, sent);
        Ok(())
    }

    /// When the request with this nonce was sent to `voter`.
    fn sent_to(&self, voter: VoterId, nonce: Nonce) -> Result<Moment, Ignored> {
        if nonce.agent != self.agent && !mutants::on("lease.count_other_agent") {
            return Err(Ignored::OtherAgent);
        }
        let asked = self.asked.get(&voter).ok_or(Ignored::UnknownRequest)?;
        asked.sent.get(&nonce.count).copied().ok_or(Ignored::UnknownRequest)
    }

    /// Grants are counted together only under one configuration id.
    fn book_of(&self, grant: &Grant) -> ConfigId {
        if mutants::on("lease.ignore_config_id") { ConfigId::default() } else { grant.config }
    }

    fn write_down(&mut self, grant: &Grant, sent: Moment) {
        if let Some(asked) = self.asked.get_mut(&grant.voter) {
            // An answer to an older request can prolong nothing any more, nor can this one again.
            asked.sent = asked.sent.split_off(&(grant.nonce.count + 1));
        }
        self.refused.remove(&grant.voter);
        let book = self.books.entry(self.book_of(grant)).or_insert_with(|| Book {
            voters: grant.voters.clone(),
            outgoing: grant.outgoing.clone(),
            given: BTreeMap::new(),
        });
        book.given.insert(grant.voter, Given { sent, lease: grant.lease });
        while self.books.len() > CONFIGS_KEPT {
            self.books.pop_first();
        }
    }

    /// E_h as a pair of clock readings: the largest over the configuration ids. `None` if no majority has granted.
    ///
    /// The pair is always one that a single configuration gave; its halves are not mixed.
    pub fn expires_at(&self) -> Option<Moment> {
        let each = self.books.values().filter_map(|book| expiry([&book.voters, &book.outgoing], &book.given));
        each.max_by_key(|expires| (expires.boot_ns, expires.raw_ns))
    }

    /// Whether the watchdog may be petted at `now`.
    pub fn may_pet(&self, now: Moment, timing: &Timing) -> bool {
        self.expires_at().is_some_and(|expires| may_pet(now, expires, timing.pet_reserve()))
    }

    /// What is left of the lease at `now`, by the clock on which less is left. Zero without a lease.
    pub fn left(&self, now: Moment) -> Duration {
        let Some(expires) = self.expires_at() else { return Duration::ZERO };
        let boot = expires.boot_ns.saturating_sub(now.boot_ns);
        let raw = expires.raw_ns.saturating_sub(now.raw_ns);
        Duration::from_nanos(boot.min(raw))
    }

    /// How many answers were ignored, by reason.
    pub fn ignored(&self) -> &BTreeMap<Ignored, u64> {
        &self.ignored
    }

    /// Who refused last time, and why.
    pub fn refused(&self) -> &BTreeMap<VoterId, Refusal> {
        &self.refused
    }
}

/// E_h under one configuration: the m-th newest send time among the granting members of each half, plus the
/// smallest lease among those at least as new. The second half is empty unless the configuration is joint.
///
/// Each clock is counted by itself: on each, a majority has granted no earlier than that reading.
pub fn expiry(halves: [&[VoterId]; 2], given: &BTreeMap<VoterId, Given>) -> Option<Moment> {
    let [voters, outgoing] = halves;
    let mut start = newest_of_majority(voters, given)?;
    if !outgoing.is_empty() && !mutants::on("lease.joint_counts_one_half") {
        let other = newest_of_majority(outgoing, given)?;
        start = Moment { boot_ns: start.boot_ns.min(other.boot_ns), raw_ns: start.raw_ns.min(other.raw_ns) };
    }
    let new_enough = |given: &&Given| given.sent.boot_ns >= start.boot_ns || given.sent.raw_ns >= start.raw_ns;
    let leases = given.values().filter(new_enough).map(|given| given.lease);
    let lease = if mutants::on("lease.longest_lease_counts") { leases.max() } else { leases.min() };
    Some(start.plus(lease?))
}

/// The m-th newest send time among the members of one half, on each clock; `None` if fewer than m have granted.
fn newest_of_majority(half: &[VoterId], given: &BTreeMap<VoterId, Given>) -> Option<Moment> {
    let sent = |voter: &VoterId| given.get(voter).map(|given| given.sent);
    let mut boot: Vec<u64> = half.iter().filter_map(sent).map(|moment| moment.boot_ns).collect();
    let mut raw: Vec<u64> = half.iter().filter_map(sent).map(|moment| moment.raw_ns).collect();
    boot.sort_unstable_by(|a, b| b.cmp(a));
    raw.sort_unstable_by(|a, b| b.cmp(a));
    let last = majority(half.len()) - 1;
    Some(Moment { boot_ns: *boot.get(last)?, raw_ns: *raw.get(last)? })
}
