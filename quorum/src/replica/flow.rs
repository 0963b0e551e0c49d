//! What comes out of a replica and in which order: ready, persisted, applied, compacted.
//!
//! raft's asynchronous form is used: what a `Ready` writes is readable by raft at once, from memory; raft is told when
//! it is durable; and only then are the messages released that promise it.

use super::convert;
use super::membership;
use super::node::Replica;
use super::read::{ReadContext, ReadState};
use super::ready::{After, Ready, SnapshotWrite, Standing, Write};
use super::view::Configuration;
use super::wire::{Entry, EntryKind, Message, Position, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotMeta};
use crate::codec::Blob;
use crate::id::{LogIndex, Term};
use crate::roster::ConfigId;
use crate::storage::Persisted;
use raft::eraftpb;

/// A write that is not persisted yet, and what waits for it.
#[derive(Debug)]
pub(super) struct Outstanding {
    number: u64,
    /// raft's own number; none for a write that raft doesn't know of.
    raft_number: Option<u64>,
    /// The term that the write makes durable.
    term: Option<Term>,
    after: After,
}

impl Replica {
    /// What is to be done next, if anything. Ask again until it is nothing.
    pub fn ready(&mut self) -> Option<Ready> {
        if !self.node.has_ready() && self.compaction.is_none() {
            return None;
        }
        self.number += 1;
        let mut write =
            Write { number: self.number, must_sync: false, snapshot: None, entries: Vec::new(), hard_state: None };
        let mut after = After::default();
        let mut send_now = Vec::new();
        let mut raft_number = None;
        if self.node.has_ready() {
            raft_number = Some(self.take_raft_ready(&mut write, &mut after, &mut send_now));
        }
        self.take_compaction(&mut write);
        after.standing = self.standing_if_changed();
        self.outstanding.push_back(Outstanding {
            number: write.number,
            raft_number,
            term: write.hard_state.map(|state| state.term),
            after,
        });
        Some(Ready { send_now, write })
    }

    fn take_raft_ready(&mut self, write: &mut Write, after: &mut After, send_now: &mut Vec<Message>) -> u64 {
        let mut ready = self.node.ready();
        if !ready.snapshot().is_empty() {
            let snapshot = self.take_incoming(ready.snapshot());
            self.installing = Some(snapshot.meta.last.index);
            self.node.mut_store().install(snapshot.clone());
            write.snapshot = Some(SnapshotWrite::Install(snapshot.clone()));
            after.snapshot = Some(snapshot);
        }
        self.node.mut_store().append(ready.entries());
        write.entries = ready.take_entries().iter().map(convert::entry_from_raft).collect();
        write.hard_state = ready.hs().map(convert::hard_state_from_raft);
        write.must_sync = ready.must_sync();

        *send_now = self.messages(ready.take_messages());
        after.send = self.messages(ready.take_persisted_messages());
        if self.durable_term != self.term() {
            // raft lets a leader speak before it has written. But a term that isn't durable could be opened again
            // after a crash, with other entries; the only voter becomes leader without ever having waited.
            after.send.append(send_now);
        }
        if crate::mutants::on("replica.sends_before_durable") {
            send_now.append(&mut after.send);
        }
        after.committed = ready.take_committed_entries().iter().map(convert::entry_from_raft).collect();
        after.reads = self.reads_of(ready.take_read_states());
        let number = ready.number();
        self.node.advance_append_async(ready);
        number
    }

    /// The snapshot whose metadata raft gives back.
    fn take_incoming(&mut self, raft: &eraftpb::Snapshot) -> Snapshot {
        let snapshot = self.incoming.take().expect("raft restores from a message that was just stepped");
        assert!(convert::is_same_snapshot(raft, &snapshot.meta), "the data belongs to the metadata");
        snapshot
    }

    fn messages(&self, raft: Vec<eraftpb::Message>) -> Vec<Message> {
        let snapshot = self.node.store().snapshot_here();
        raft.iter().filter_map(|message| convert::message_from_raft(self.era, message, snapshot)).collect()
    }

    fn reads_of(&mut self, states: Vec<raft::ReadState>) -> Vec<ReadState> {
        let awaited = |state: raft::ReadState| {
            let context = ReadContext::from_bytes(&state.request_ctx)?;
            self.reads.close(&context).then_some(ReadState { context, index: LogIndex(state.index) })
        };
        states.into_iter().filter_map(awaited).collect()
    }

    fn take_compaction(&mut self, write: &mut Write) {
        let Some(snapshot) = self.compaction.take() else { return };
        // One that a leader sent reaches further; this one is history.
        if write.snapshot.is_some() || snapshot.meta.last.index <= self.node.store().snapshot_index() {
            return;
        }
        let truncated = self.node.mut_store().compact(snapshot.clone(), self.params.keep_entries);
        write.snapshot = Some(SnapshotWrite::Compact { snapshot, truncated });
        write.must_sync = true;
    }

    fn standing_if_changed(&mut self) -> Option<Standing> {
        let now = self.standing_now();
        (self.standing.replace(now) != Some(now)).then_some(now)
    }

    /// The oldest outstanding write is durable: here is what may happen now.
    ///
    /// # Panics
    /// When it isn't the oldest one: the order of writes is the order of promises.
    pub fn persisted(&mut self, persisted: Persisted) -> After {
        let front = self.outstanding.pop_front().expect("a persisted write was outstanding");
        assert_eq!(front.number, persisted.number(), "writes are persisted in order");
        if let Some(term) = front.term {
            self.durable_term = term;
        }
        if let Some(number) = front.raft_number {
            self.node.on_persist_ready(number);
        }
        let after = front.after;
        if let Some(snapshot) = &after.snapshot {
            self.handed_out = snapshot.meta.last.index;
            self.unapplied.clear();
        }
        for entry in &after.committed {
            self.handed_out = entry.index;
            if matches!(entry.kind, EntryKind::Membership(_)) {
                self.unapplied.push_back(entry.clone());
            }
        }
        self.settle();
        after
    }

    /// The caller has installed and applied everything up to `index`. Membership changes up to it are in force now.
    ///
    /// # Panics
    /// When more is claimed than was handed out, or less than before.
    pub fn applied(&mut self, index: LogIndex) {
        assert!(index <= self.handed_out, "applied {index} of {}", self.handed_out);
        if let Some(installing) = self.installing {
            // Entries handed out before the snapshot may be reported until it is installed itself.
            if index < installing {
                return;
            }
            self.adopt_snapshot();
        }
        while let Some(entry) = self.unapplied.pop_front_if(|entry| entry.index <= index) {
            self.apply_membership(&entry);
        }
        self.node.advance_apply_to(index.0);
        self.leave_joint();
        self.settle();
    }

    fn adopt_snapshot(&mut self) {
        self.installing = None;
        let snapshot = self.node.store().snapshot_here().expect("the installed snapshot is in the log");
        self.configurations = vec![Configuration {
            id: ConfigId { era: self.era, index: snapshot.meta.config },
            since: snapshot.meta.last.index,
            membership: snapshot.meta.membership.clone(),
        }];
    }

    fn apply_membership(&mut self, entry: &Entry) {
        let EntryKind::Membership(change) = &entry.kind else { return };
        let Ok(next) = membership::changed(&self.config().membership, change) else { return };
        if entry.index > self.restored {
            let state = self.node.apply_conf_change(&membership::conf_change(change));
            let state = state.expect("raft takes a change that our own rule takes");
            assert!(membership::is_same(&state, &next), "raft and our rule agree");
        }
        self.configurations.push(Configuration {
            id: ConfigId { era: self.era, index: entry.index },
            since: entry.index,
            membership: next,
        });
        if self.is_leader() && !self.config().membership.is_voter(self.id) {
            // raft would go on leading a cluster that it isn't part of.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Takes the state machine's state at `up_to` as the snapshot from which late voters and restarts begin; the log
    /// behind it goes with the next write. Does nothing when there is a newer snapshot, or no members yet.
    ///
    /// # Panics
    /// When `up_to` is not applied, or the data exceeds [`SNAPSHOT_BYTES_MAX`].
    pub fn compact(&mut self, up_to: LogIndex, data: Blob) {
        assert!(up_to <= self.applied_index() && self.installing.is_none(), "only applied state makes a snapshot");
        assert!(data.len() <= SNAPSHOT_BYTES_MAX, "a snapshot must fit into a frame");
        // Without members it would be nobody's: a new voter has first to be told who they are.
        if up_to <= self.node.store().snapshot_index() || self.config().membership.voters.is_empty() {
            return;
        }
        let term = self.node.raft.raft_log.term(up_to.0).expect("an applied entry behind the snapshot is in the log");
        let at = self.configurations.iter().rposition(|config| config.since <= up_to);
        self.configurations.drain(..at.expect("the snapshot's configuration comes first"));
        let config = &self.configurations[0];
        self.compaction = Some(Snapshot {
            meta: SnapshotMeta {
                last: Position { index: up_to, term: Term(term) },
                config: config.id.index,
                membership: config.membership.clone(),
            },
            data,
        });
    }

    /// Brings what follows from raft's state up to date. Every input ends with it.
    pub(super) fn settle(&mut self) {
        if let Some(snapshot) = self.node.snap() {
            self.restored = self.restored.max(LogIndex(snapshot.get_metadata().index));
        } else {
            // raft did not take it.
            self.incoming = None;
        }
        let standing = self.standing_now();
        let timeout = self.jitter.timeout(&standing, self.params.priority);
        self.node.raft.set_randomized_election_timeout(timeout);
        self.waits_less_when_standing();
        if !self.is_leader() {
            self.answered.clear();
        }
        self.find_pending_membership();
    }

    fn find_pending_membership(&mut self) {
        let log = &self.node.raft.raft_log;
        let of = (log.last_index(), log.last_term(), self.applied_index().0);
        if self.pending_of != Some(of) {
            let mut unapplied = self.entries_after(self.applied_index());
            let found = unapplied.find(|entry| entry.is_membership()).map(|entry| entry.index);
            drop(unapplied);
            self.pending_membership = found;
            self.pending_of = Some(of);
        }
    }
}
