//! Pins on this host: which groups live in their pinned cgroup, exempt from the lease's end, and the way out of it
//! (protocol §2 and §5).
//!
//! ```text
//!   Pin committed ─► armed as pinned ─► echoed ─► acknowledged in the log ─► moved into the pinned cgroup
//!   thaw asked    ─► moved back ─► armed unpinned ─► echoed (the keeper looks) ─► Unpin proposed ─► committed
//! ```
//! Invariant: a process is moved into the pinned cgroup only after the log has an acknowledgement that is newer than
//! every word on which this host ever proposed to untie the group. An `Unpin` that comes late is refused by then, so
//! nobody counts on the lease's end of a group that doesn't end with the lease.
//!
//! Not here: moving (`driver::work`), what the keeper exempts (`keeper`), whether it may be untied (`ledger::pin`).

use super::core::Engine;
use super::effect::Armed;
use super::operator::PATIENCE;
use super::status::{AttentionLine, PinLine};
use crate::heartbeat::{Hello, KeeperState};
use crate::runner::{Duty, Tie, TiedDuty};
use quorum::id::{GroupName, HostName};
use quorum::ledger::{Command, Decision, EvidenceKind, GroupState, Incarnation, PinState, TicketState, UnpinGround};
use quorum::moment::Moment;
use quorum::mutants;
use std::collections::BTreeMap;

/// A person waits for a group here to be untied.
pub(super) struct Untying {
    ticket: u64,
    by: Decision,
    until: Moment,
    /// The ledger was asked.
    is_asked: bool,
}

impl Engine {
    /// The pin that ties a group to this host, under whatever admission of it.
    pub(super) fn pin_here<'a>(&self, state: &'a GroupState) -> Option<&'a PinState> {
        state.pin.as_ref().filter(|pin| pin.of.host == self.me.host)
    }

    /// The groups that may have processes here: those whose ticket is ours, and those that are tied to an earlier
    /// admission of this boot and go on under it.
    pub(super) fn armed_set(&self, me: &Incarnation) -> BTreeMap<GroupName, Armed> {
        let ours = self.ledger.groups().iter().filter_map(|(name, state)| {
            let ticket = state.ticket.as_ref()?;
            let pin = self.pin_here(state);
            let is_carried = pin.is_some_and(|pin| pin.of == ticket.of && self.is_of_this_boot(&pin.of));
            if matches!(ticket.state, TicketState::Stopped { .. }) || !(ticket.of == *me || is_carried) {
                return None;
            }
            let pinned = pin.is_some() && !self.is_out(name);
            Some((name.clone(), Armed { epoch: ticket.epoch, pinned }))
        });
        ours.collect()
    }

    fn is_of_this_boot(&self, of: &Incarnation) -> bool {
        self.ledger.incarnation(of).is_some_and(|state| state.boot == Some(self.me.boot))
    }

    /// It is to be untied, and was seen to have nothing in its pinned cgroup since.
    fn is_out(&self, group: &GroupName) -> bool {
        let seen = || self.local.runners.get(group).and_then(|runner| runner.seen());
        self.untying.contains_key(group)
            && (seen().is_some_and(|found| !found.is_tied) || mutants::on("engine.unties_unmoved"))
    }

    /// Where the processes of a group that runs here belong.
    pub(super) fn tie(&self, group: &GroupName, state: &GroupState) -> Tie {
        let Some(pin) = self.pin_here(state) else { return Tie::Out };
        if self.untying.contains_key(group) {
            return Tie::Out;
        }
        let since = self.keeper.tied_since(group);
        let is_known = since.is_some_and(|since| pin.acknowledged.is_some_and(|newest| newest >= since))
            || since.is_some() && mutants::on("engine.ties_unacknowledged");
        if is_known { Tie::In } else { Tie::Stay }
    }

    /// A group that is tied to an earlier admission of this host goes on here, whatever became of that admission.
    pub(super) fn tied_duty(&self, group: &GroupName, state: &GroupState) -> Option<Duty> {
        let ticket = state.ticket.as_ref()?;
        // In another boot nothing of it is left, and what runs nevertheless isn't what was pinned.
        let pin = self.pin_here(state).filter(|pin| pin.of == ticket.of && self.is_of_this_boot(&pin.of))?;
        if self.my_incarnation().as_ref() == Some(&pin.of) || mutants::on("engine.kills_the_tied") {
            return None;
        }
        Some(Duty::Tied(TiedDuty { epoch: ticket.epoch, tie: self.tie(group, state) }))
    }

    /// A pinned group's host that speaks from another boot is asked to prove that nothing of it is left: its admission
    /// doesn't wait for that, the pin does.
    pub(super) fn challenge_about_pins(&mut self, host: &HostName, hello: &Hello) {
        let is_stale = |of: &Incarnation| {
            let known = self.ledger.incarnation(of);
            known.is_some_and(|state| {
                let is_another_boot = state.boot.is_some_and(|boot| boot != hello.boot);
                let is_same_machine = state.hardware.is_none_or(|hardware| hardware == hello.hardware);
                let is_said = state.evidence.iter().any(|evidence| evidence.kind == EvidenceKind::Returned);
                state.ended.is_some() && is_another_boot && is_same_machine && !is_said
            })
        };
        let pins = self.ledger.groups_on(host).filter_map(|(_, state)| state.pin.as_ref().map(|pin| &pin.of));
        let stale = pins.filter(|of| of.host == *host).find(|of| is_stale(of)).cloned();
        if let Some(of) = stale.filter(|_| !mutants::on("engine.forgets_the_pin_of_another_boot")) {
            self.challenge(&of);
        }
    }

    /// Tells the cluster that this host's keeper exempts a pinned group from the lease's end.
    pub(super) fn acknowledge_pins(&mut self) {
        let waits = |(group, state): (&GroupName, &GroupState)| {
            let pin = self.pin_here(state)?;
            let since = self.keeper.tied_since(group)?;
            let (armed, sequence) = self.keeper.echoed(group)?;
            let is_new = pin.acknowledged.is_none_or(|newest| newest < since);
            (armed.pinned && is_new).then(|| Command::PinAcknowledged {
                group: group.clone(),
                of: pin.of.clone(),
                sequence,
            })
        };
        let commands: Vec<Command> = self.ledger.groups().iter().filter_map(waits).collect();
        for command in commands {
            self.propose(command);
        }
    }

    /// Untying begins: what is in the pinned cgroup is moved back under the lease before the ledger is asked.
    pub(super) fn begin_untying(&mut self, ticket: u64, group: GroupName, by: Decision) {
        if self.untying.contains_key(&group) {
            return self.refuse(ticket, format!("{group} is being untied already"), "antipode status");
        }
        let until = self.now.moment.plus(PATIENCE);
        self.untying.insert(group, Untying { ticket, by, until, is_asked: false });
    }

    /// Asks the ledger once the keeper was seen to have the group under the lease; gives up when that takes too long.
    pub(super) fn progress_untying(&mut self) {
        for group in self.untying.keys().cloned().collect::<Vec<_>>() {
            let is_pinned = self.ledger.group(&group).is_some_and(|state| self.pin_here(state).is_some());
            let word = self.keeper.echoed(&group).filter(|(armed, _)| !armed.pinned);
            let now = self.now.moment;
            let Some(untying) = self.untying.get_mut(&group) else { continue };
            let (ticket, by, is_late) = (untying.ticket, untying.by.clone(), now.either_reached(untying.until));
            if !is_pinned || (is_late && untying.is_asked) {
                self.untying.remove(&group);
            } else if is_late {
                self.untying.remove(&group);
                self.refuse_untying(ticket, &group);
            } else if let (false, Some((_, sequence))) = (untying.is_asked, word) {
                // Given up only after the person was answered.
                (untying.is_asked, untying.until) = (true, now.plus(PATIENCE * 2));
                if let Some((he, _)) = self.ledger.admitted(&self.me.host) {
                    let of = Incarnation { host: self.me.host.clone(), he };
                    let ground = UnpinGround::Rearmed { of, sequence };
                    self.ask(ticket, Command::Unpin { group, ground, by });
                }
            }
        }
    }

    fn refuse_untying(&mut self, ticket: u64, group: &GroupName) {
        let keeper = self.keeper.page.as_ref().map_or("absent".to_owned(), |page| page.because.clone());
        let why = self.local.runners.get(group).map(|runner| runner.because().to_owned()).unwrap_or_default();
        let because = format!(
            "the keeper of {} didn't take {group} back under the lease within {PATIENCE:?} (keeper: {keeper}; {why}); it stays pinned",
            self.me.host
        );
        self.refuse(ticket, because, format!("antipode explain group {group}"));
    }

    /// The pin as `status` shows it.
    pub(super) fn pin_line(&self, group: &GroupName, state: &GroupState) -> Option<PinLine> {
        let pin = state.pin.as_ref()?;
        let seen = self.local.runners.get(group).and_then(|runner| runner.seen());
        Some(PinLine {
            host: pin.of.host.to_string(),
            host_epoch: pin.of.he.to_string(),
            acknowledged: pin.acknowledged.is_some(),
            in_force: seen.filter(|_| pin.of.host == self.me.host).map(|found| found.is_tied),
            reason: pin.by.reason.clone(),
        })
    }

    /// A pin is never forgotten: whoever looks is told what it means and how it ends.
    pub(super) fn pin_attention(&self, group: &GroupName, state: &GroupState) -> Option<AttentionLine> {
        let pin = state.pin.as_ref()?;
        let host = &pin.of.host;
        let is_over = self.ledger.is_ended(&pin.of);
        let is_proven =
            self.ledger.covering_evidence(group).iter().any(|(owner, proof)| *owner == pin.of && proof.is_ok());
        let (how, next) = match (is_over, is_proven) {
            (_, true) => (
                "it is proven that nothing of it is left there, and it is down until it is untied".to_owned(),
                format!("antipode thaw --pin {group}"),
            ),
            (true, false) => (
                "that admission is over, so it may run there without a lease, and its lease proves nothing about it"
                    .to_owned(),
                format!("antipode thaw --pin {group} at {host}; if {host} is off: antipode fence status"),
            ),
            (false, false) if pin.acknowledged.is_none() => {
                ("its keeper hasn't taken note yet: begin no work on the network".to_owned(), "antipode status".into())
            }
            (false, false) => (
                "it goes on there when the lease ends, and no other host can be granted it".to_owned(),
                format!("antipode thaw --pin {group} at {host}, once the work is over"),
            ),
        };
        Some(AttentionLine { code: "pinned", text: format!("{group} is pinned to {}: {how}", pin.of), next })
    }

    pub(super) fn untying_deadline(&self) -> Option<Moment> {
        self.untying.values().map(|untying| untying.until).min()
    }
}

impl super::keeper::KeeperSide {
    /// The first record since which a group is armed as pinned without a break; `None` if it isn't.
    pub(super) fn tied_since(&self, group: &GroupName) -> Option<u64> {
        self.tied.get(group).copied()
    }

    /// How the keeper has a group armed, and under which sequence number it said so.
    pub(super) fn echoed(&self, group: &GroupName) -> Option<(Armed, u64)> {
        let armed = self.written.as_ref()?.armed.get(group).copied()?;
        let page = self.page.as_ref().filter(|page| page.state == KeeperState::Armed)?;
        (page.echoed >= self.armed_since).then_some((armed, self.armed_since))
    }

    /// A new armed set is written under `sequence`.
    pub(super) fn note_tied(&mut self, armed: &BTreeMap<GroupName, Armed>, sequence: u64) {
        self.tied.retain(|group, _| armed.get(group).is_some_and(|armed| armed.pinned));
        for (group, _) in armed.iter().filter(|(_, armed)| armed.pinned) {
            self.tied.entry(group.clone()).or_insert(sequence);
        }
    }
}
