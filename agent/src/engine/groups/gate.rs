//! The data gate: what the ledger and a host's own copy say about a grant to that host (protocol §7).

use super::is_following;
use crate::engine::core::Engine;
use crate::engine::effect::Effect;
use crate::engine::leader::CopyAnswer;
use crate::engine::message::Message;
use quorum::id::{Generation, GroupName, HostName};
use quorum::ledger::{Command, CopyCheck, DataGate, GroupState, LossMeasure};
use quorum::mutants;
use std::time::Duration;

/// What a host said of its copy counts this long before a grant.
const COPY_FRESH: Duration = Duration::from_secs(5);
/// A host that didn't answer about its copy is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// So many groups that aren't known here yet are asked about at once.
const UNKNOWN_ASKED_MAX: usize = 256;

impl Engine {
    /// What the data says about a grant to `host`; `None` while the host hasn't said, or if it says no.
    pub(super) fn data_gate(&mut self, group: &GroupName, state: &GroupState, host: &HostName) -> Option<DataGate> {
        if self.ledger.group_spec(group)?.volumes.is_empty() {
            return Some(DataGate::NoVolumes);
        }
        let answer = self.copy_of((group, state), host)?;
        let own = compare(&answer, state)?;
        let generation = state.generation;
        let is_foreign =
            matches!(own, CopyCheck::Ahead | CopyCheck::Diverged) && !mutants::on("gate.foreign_copy_offered");
        // The ledger may count on a copy that knows better: one that refused a write says that it is a mixture.
        let agrees = own == CopyCheck::Agrees || mutants::on("gate.disagreeing_copy_offered");
        if state.in_sync.contains(host) && agrees && !is_foreign {
            self.tell_gate(group, None);
            return Some(DataGate::InSync { generation, own });
        }
        let accepted = self.ledger.losses().iter().find(|(_, loss)| {
            loss.asked.group == *group && loss.asked.copy == *host && loss.asked.epoch == state.epoch
        });
        if let Some((index, _)) = accepted {
            let acceptance = *index;
            self.tell_gate(group, None);
            return Some(DataGate::Accepted { acceptance, own });
        }
        if is_foreign {
            self.alarm(group, (state, host), own);
            return None;
        }
        self.lagging_gate(group, (state, host), own)
    }

    /// A copy that says more than the log knows, or something else: two sides may have written. It is held, and on record
    /// as such once its owner is over; as long as the owner acts, what it says of its copies counts.
    fn alarm(&mut self, group: &GroupName, (state, host): (&GroupState, &HostName), own: CopyCheck) {
        let what = if own == CopyCheck::Ahead { "is ahead of" } else { "differs from" };
        let because = format!("{host}'s copy {what} what the log knows: two sides may have written");
        self.tell_gate(group, Some(because.clone()));
        let owner = state.ticket.as_ref().map(|ticket| &ticket.of);
        let is_over = owner.is_some_and(|of| of.host != *host && self.ledger.is_ended(of));
        if is_over && state.diverged.get(host) != Some(&own) {
            let (group, copy) = (group.clone(), host.clone());
            let subject = format!("{group}/{copy}");
            self.propose_paced(&subject, Command::DataDiverged { group, copy, found: own, detail: because });
        }
    }

    /// An asynchronous copy may be activated while it lacks no more than the group allows. No time is taken off for the
    /// lease of the source: its own voter went with it, and a voter that isn't heard counts as having granted until now.
    fn lagging_gate(
        &mut self,
        group: &GroupName,
        (state, host): (&GroupState, &HostName),
        own: CopyCheck,
    ) -> Option<DataGate> {
        let target = self.ledger.group_spec(group)?.target_rpo;
        let heard = self.lag_heard(group, state);
        let measured = heard.filter(|_| is_following(state, host) && own == CopyCheck::Agrees);
        let without = |(lag, since)| (lag, if mutants::on("gate.lag_without_time") { Duration::ZERO } else { since });
        match measured.map(without) {
            Some((lag, since_attested)) if lag + since_attested <= target => {
                self.tell_gate(group, None);
                let loss = LossMeasure { lag, since_attested, granted_after: None };
                Some(DataGate::Lagging { generation: state.generation, own, loss })
            }
            _ => {
                let figure = match self.expected_loss((group, state), host, own) {
                    Some(loss) => format!("what was written in the last {:.1} s", loss.as_secs_f64()),
                    None => "nobody here can say how much".to_owned(),
                };
                let because = format!("{host}'s copy ({own:?}) lacks {figure}; the target is {target:?}");
                self.tell_gate(group, Some(because));
                None
            }
        }
    }

    fn tell_gate(&mut self, group: &GroupName, because: Option<String>) {
        if let Some(leading) = &mut self.leading {
            match because {
                Some(because) => leading.gate_told.insert(group.clone(), because),
                None => leading.gate_told.remove(group),
            };
        }
    }

    /// What `host` says of its copy, if it said so just now; asks it otherwise. An answer that stands in the way is
    /// soon asked for again: the host may just have recorded what its copy is.
    pub(super) fn copy_of(&mut self, (group, state): (&GroupName, &GroupState), host: &HostName) -> Option<CopyAnswer> {
        let now = self.now.moment;
        let fresh_for = |answer: &CopyAnswer| match compare(answer, state) {
            Some(CopyCheck::Agrees) => COPY_FRESH,
            Some(CopyCheck::Older(_) | CopyCheck::Ahead | CopyCheck::Diverged) | None => ASK_AGAIN,
        };
        let key = (group.clone(), host.clone());
        let leading = self.leading.as_mut()?;
        if let Some(answer) = leading.copies.get(&key).filter(|answer| now.held_since(answer.at) < fresh_for(answer)) {
            return Some(answer.clone());
        }
        if leading.asked.get(&key).is_none_or(|at| now.held_since(*at) >= ASK_AGAIN) {
            leading.asked.insert(key, now);
            if *host == self.me.host {
                self.on_ask_copy(host.clone(), group.clone());
            } else {
                let message = Box::new(Message::AskCopy { group: group.clone() });
                self.effects.push(Effect::Message { to: host.clone(), message });
            }
        }
        None
    }

    pub(in crate::engine) fn on_ask_copy(&mut self, from: HostName, group: GroupName) {
        // The leader is further than this host: what isn't known here yet will be looked at as soon as it is. Names that
        // somebody makes up never are.
        let is_known = self.ledger.group(&group).is_some();
        if !is_known && self.local.copy_asked.len() >= UNKNOWN_ASKED_MAX {
            return;
        }
        let askers = self.local.copy_asked.entry(group.clone()).or_default();
        if !askers.contains(&from) {
            askers.push(from);
        }
        if !is_known {
            return;
        }
        let runner = self.local.runner(&group);
        if runner.busy().is_none() {
            // The answer is to be about now, not about when this host last looked.
            runner.look_again();
        }
        self.answer_copy_questions(&group);
    }

    /// Answers whoever asked about a copy, once it was looked at.
    pub(in crate::engine) fn answer_copy_questions(&mut self, group: &GroupName) {
        let Some(found) = self.local.runners.get(group).and_then(|runner| runner.seen().cloned()) else { return };
        let Some(askers) = self.local.copy_asked.remove(group) else { return };
        let (generation, check) = (found.copy.map(|copy| copy.generation), found.copy.and_then(|copy| copy.check));
        for to in askers {
            if to == self.me.host {
                self.on_copy_is(to, group.clone(), (generation, check));
            } else {
                let message = Box::new(Message::CopyIs { group: group.clone(), generation, check });
                self.effects.push(Effect::Message { to, message });
            }
        }
    }

    pub(in crate::engine) fn on_copy_is(
        &mut self,
        from: HostName,
        group: GroupName,
        (generation, check): (Option<Generation>, Option<CopyCheck>),
    ) {
        let at = self.now.moment;
        let key = (group, from);
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.asked.contains_key(&key)) {
            leading.copies.insert(key, CopyAnswer { generation, check, at });
            self.stir_leader();
        }
    }
}

/// What a host's own copy says, compared with the ledger; `None` if it has no copy at all.
pub(super) fn compare(answer: &CopyAnswer, state: &GroupState) -> Option<CopyCheck> {
    if let Some(check) = answer.check {
        return Some(check);
    }
    let generation = answer.generation?;
    Some(match generation.cmp(&state.generation) {
        std::cmp::Ordering::Less => CopyCheck::Older(generation),
        std::cmp::Ordering::Equal => CopyCheck::Agrees,
        std::cmp::Ordering::Greater => CopyCheck::Ahead,
    })
}
