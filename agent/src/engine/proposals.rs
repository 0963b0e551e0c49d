//! Proposals of this agent that it hasn't seen applied yet.
//!
//! A proposal is handed to whoever leads, again and again, until its key shows up in the agent's own applied log:
//! accepted or refused, that is its end (protocol §2: proposed again, idempotently, until seen applied). Nothing is
//! concluded from an answer over the network.

use quorum::id::{AgentInstance, ProposalKey};
use quorum::ledger::{Command, Entry};
use quorum::moment::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most proposals under way at once; more wait for those to end.
const OUTSTANDING_MAX: usize = 256;

/// One proposal under way.
#[derive(Clone, Debug)]
struct Pending {
    entry: Entry,
    mark: Option<String>,
    sent: Option<Moment>,
    /// A proposal that only makes sense for a while is dropped after it, e.g. a Grant of a deposed leader.
    until: Option<Moment>,
}

/// All proposals under way.
#[derive(Clone, Debug)]
pub struct Proposals {
    instance: AgentInstance,
    counter: u64,
    again_after: Duration,
    /// By order of making: proposals leave, and are appended, in the order in which they were made.
    pending: BTreeMap<u64, Pending>,
}

impl Proposals {
    /// How many have no outcome yet.
    pub fn waiting(&self) -> u64 {
        self.pending.len() as u64
    }

    /// None yet. Keys are made from the agent's `instance` and a counter; one is sent again after `again_after`.
    pub fn new(instance: AgentInstance, again_after: Duration) -> Self {
        Self { instance, counter: 0, again_after, pending: BTreeMap::new() }
    }

    /// A key never used before.
    pub fn fresh_key(&mut self) -> ProposalKey {
        self.counter += 1;
        let mut bytes = self.instance.0;
        // The instance is random: its low half xor a counter stays unique within the instance and across others.
        let low = u64::from_le_bytes(bytes[8..].try_into().unwrap_or_default()) ^ self.counter;
        bytes[8..].copy_from_slice(&low.to_le_bytes());
        ProposalKey(bytes)
    }

    /// Adds a proposal; it leaves with the next [`Proposals::due`], and is dropped unsent or unseen at `until`. An
    /// equal command under way is not added twice. Returns the key under which it is under way, `None` if too many
    /// are.
    pub fn add_until(
        &mut self,
        command: Command,
        until: Option<Moment>,
        make: impl FnOnce(ProposalKey, Command) -> Entry,
    ) -> Option<ProposalKey> {
        if let Some(pending) = self.pending.values().find(|pending| pending.entry.command == command) {
            return Some(pending.entry.key);
        }
        if self.pending.len() >= OUTSTANDING_MAX {
            return None;
        }
        let key = self.fresh_key();
        let pending = Pending { entry: make(key, command), mark: None, sent: None, until };
        self.pending.insert(self.counter, pending);
        Some(key)
    }

    /// Whether this very command is under way.
    pub fn is_under_way(&self, command: &Command) -> bool {
        self.pending.values().any(|pending| pending.entry.command == *command)
    }

    /// Marks a proposal, so that another of its kind and subject is not made meanwhile.
    pub fn mark(&mut self, key: ProposalKey, mark: String) {
        if let Some(pending) = self.pending.values_mut().find(|pending| pending.entry.key == key) {
            pending.mark = Some(mark);
        }
    }

    /// Whether a proposal with this mark is under way.
    pub fn is_marked(&self, mark: &str) -> bool {
        self.pending.values().any(|pending| pending.mark.as_deref() == Some(mark))
    }

    /// Whether a command like this is under way.
    pub fn any_like(&self, like: impl Fn(&Command) -> bool) -> bool {
        self.pending.values().any(|pending| like(&pending.entry.command))
    }

    /// The entry with `key` was seen applied, by whatever outcome: it is under way no more. Returns its mark, if it
    /// was ours and had one.
    pub fn applied(&mut self, key: ProposalKey) -> Option<String> {
        let found = self.pending.iter().find(|(_, pending)| pending.entry.key == key).map(|(number, _)| *number)?;
        self.pending.remove(&found)?.mark
    }

    /// Proposals to be handed to the leader now.
    pub fn due(&mut self, now: Moment) -> Vec<Entry> {
        self.pending.retain(|_, pending| pending.until.is_none_or(|until| !now.either_reached(until)));
        let again_after = self.again_after;
        let is_due = |pending: &&mut Pending| pending.sent.is_none_or(|at| now.held_since(at) >= again_after);
        self.pending
            .values_mut()
            .filter(is_due)
            .map(|pending| {
                pending.sent = Some(now);
                pending.entry.clone()
            })
            .collect()
    }

    /// This agent leads no more: what it proposed as a leader is its successor's business.
    pub fn drop_marked(&mut self) {
        self.pending.retain(|_, pending| pending.mark.is_none());
    }

    /// Hands one proposal over again at once.
    pub fn send_again(&mut self, key: ProposalKey) {
        self.pending.values_mut().filter(|pending| pending.entry.key == key).for_each(|pending| pending.sent = None);
    }

    /// Another leader: everything is handed over again at once.
    pub fn leader_changed(&mut self) {
        self.pending.values_mut().for_each(|pending| pending.sent = None);
    }

    /// When [`Proposals::due`] wants to be called; `None` if nothing is under way.
    pub fn deadline(&self) -> Option<Moment> {
        self.pending
            .values()
            .map(|pending| pending.sent.map_or(Moment::default(), |at| at.plus(self.again_after)))
            .min()
    }
}
