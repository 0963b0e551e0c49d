//! The leader's plans: births, first grants, grants in place, failovers, planned moves, reprotection, the way home.

use super::core::Engine;
use super::effect::Effect;
use super::leader::CopyAnswer;
use super::message::Message;
use super::operator::Move;
use super::status::PossibleLine;
use crate::failover::{Route, steps};
use crate::placement::{Candidate, Choice, choose};
use quorum::id::{Generation, GroupName, HostName};
use quorum::ledger::{
    Class, Command, CopyCheck, DataGate, Decision, Ended, EvidenceKind, Grant, GrantCause, GroupSpec, GroupState,
    Incarnation, Initiator, Intent, Person, PersonKey, Plan, PlanKind, PlanOutcome, PlanState, StepKind, StepOutcome,
    StepState, Ticket, TicketState, Tier,
};
use quorum::moment::Moment;
use std::time::Duration;

/// What a host said of its copy counts this long before a grant.
const COPY_FRESH: Duration = Duration::from_secs(5);
/// A host that didn't answer about its copy is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// A planned move's intent may stay open this long.
const INTENT_OPEN: Duration = Duration::from_secs(180);
/// Groups are reprotected one after the other's standby has been healthy this long.
const STANDBY_SETTLED: Duration = Duration::from_secs(1);

impl Engine {
    /// Looks at every group in the order of the spec.
    pub(super) fn lead_groups(&mut self) {
        let spec = self.ledger.spec();
        let mut groups: Vec<(i32, GroupName)> =
            spec.groups.iter().map(|(name, group)| (group.order, name.clone())).collect();
        groups.sort();
        for (_, group) in groups {
            self.lead_group(&group);
        }
    }

    fn lead_group(&mut self, group: &GroupName) {
        let Some(state) = self.ledger.group(group).cloned() else {
            self.create(group);
            return;
        };
        let Some(spec) = self.ledger.group_spec(group).cloned() else { return };
        if let Some(plan) = self.ledger.open_plan(group).cloned() {
            self.drive(&plan, &state, &spec);
            return;
        }
        match &state.ticket {
            None => self.grant_first(group, &state),
            Some(ticket) if !self.ledger.is_ended(&ticket.of) => self.keep(group, (&state, ticket), &spec),
            Some(ticket) => self.recover(group, (&state, ticket), &spec),
        }
    }

    /// A group of the spec that the ledger doesn't know is born where its home's first host is.
    fn create(&mut self, group: &GroupName) {
        let Some(spec) = self.ledger.group_spec(group) else { return };
        let home = spec.places.get(&spec.home).or_else(|| spec.places.values().next());
        let Some(source) = home.and_then(|place| place.hosts.first()).cloned() else { return };
        // Absence is said by admitted hosts only: nothing is gained by a birth before.
        if self.ledger.admitted(&source).is_none() {
            return;
        }
        let nobody = || Person { name: "the spec".into(), key: PersonKey::Local(0) };
        let by = Decision {
            by: self.ledger.spec_revision().by.clone().unwrap_or_else(nobody),
            reason: format!("revision {} of the spec names it", self.ledger.spec_revision().revision),
            shown: String::new(),
        };
        self.propose_paced(group.as_str(), Command::GroupCreated { group: group.clone(), source, by });
    }

    /// The first grant goes to the source, and after a new era to who owned it last, if its data agrees.
    fn grant_first(&mut self, group: &GroupName, state: &GroupState) {
        let owner = state.last_owner.clone().unwrap_or_else(|| state.source.clone());
        self.grant_in_place(group, state, &owner);
    }

    fn grant_in_place(&mut self, group: &GroupName, state: &GroupState, host: &HostName) {
        let Some(gate) = self.data_gate(group, state, host) else { return };
        self.try_grant(group, (host, gate), GrantCause::InPlace, None);
    }

    /// Proposes a grant that the ledger would take as things stand. Returns whether it would.
    fn try_grant(
        &mut self,
        group: &GroupName,
        (host, gate): (&HostName, DataGate),
        cause: GrantCause,
        plan: Option<&PlanState>,
    ) -> bool {
        let (Some((he, _)), Some(epoch)) = (self.ledger.admitted(host), self.ledger.next_epoch(group)) else {
            return false;
        };
        let to = Incarnation { host: host.clone(), he };
        let plan = plan.map(|plan| plan.id);
        let grant = Grant { group: group.clone(), to, epoch, gate, adopt: false, cause, plan };
        if self.ledger.may_grant(&grant).is_err() || !self.is_alive(host) {
            return false;
        }
        self.propose_paced(group.as_str(), Command::Grant(grant));
        true
    }

    /// Admitted and heard here.
    pub(super) fn is_alive(&self, host: &HostName) -> bool {
        let suspects = self.detector.suspects();
        let site = self.ledger.site_of(host);
        let is_silent = suspects.1.contains(host) || site.is_some_and(|site| suspects.0.contains(site));
        self.ledger.admitted(host).is_some() && (*host == self.me.host || !is_silent)
    }

    /// What the data says about a grant to `host`; `None` while the host hasn't said, or if it says no.
    fn data_gate(&mut self, group: &GroupName, state: &GroupState, host: &HostName) -> Option<DataGate> {
        if self.ledger.group_spec(group)?.volumes.is_empty() {
            return Some(DataGate::NoVolumes);
        }
        let answer = self.copy_of(group, host)?;
        let own = compare(&answer, state)?;
        let generation = state.generation;
        if state.in_sync.contains(host) {
            return Some(DataGate::InSync { generation, own });
        }
        let accepted = self.ledger.losses().iter().find(|(_, loss)| {
            loss.asked.group == *group && loss.asked.copy == *host && loss.asked.epoch == state.epoch
        });
        accepted.map(|(index, _)| DataGate::Accepted { acceptance: *index, own })
    }

    /// What `host` says of its copy, if it said so just now; asks it otherwise.
    fn copy_of(&mut self, group: &GroupName, host: &HostName) -> Option<CopyAnswer> {
        let now = self.now.moment;
        let key = (group.clone(), host.clone());
        let leading = self.leading.as_mut()?;
        if let Some(answer) = leading.copies.get(&key).filter(|answer| now.held_since(answer.at) < COPY_FRESH) {
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

    pub(super) fn on_ask_copy(&mut self, from: HostName, group: GroupName) {
        self.local.copy_asked.entry(group.clone()).or_default().push(from);
        let runner = self.local.runner(&group);
        if runner.busy().is_none() {
            // The answer is to be about now, not about when this host last looked.
            runner.look_again();
        }
        self.answer_copy_questions(&group);
    }

    /// Answers whoever asked about a copy, once it was looked at.
    pub(super) fn answer_copy_questions(&mut self, group: &GroupName) {
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

    pub(super) fn on_copy_is(
        &mut self,
        from: HostName,
        group: GroupName,
        (generation, check): (Option<Generation>, Option<CopyCheck>),
    ) {
        let at = self.now.moment;
        if let Some(leading) = &mut self.leading {
            leading.copies.insert((group, from), CopyAnswer { generation, check, at });
            self.stir_leader();
        }
    }

    /// The owner lives: protect the group, and bring it home when it is time.
    fn keep(&mut self, group: &GroupName, (state, ticket): (&GroupState, &Ticket), spec: &GroupSpec) {
        match ticket.state {
            // A planned move that ended after the stop: the owner needs a new grant.
            TicketState::Stopped { .. } if state.intent.is_none() => {
                let owner = ticket.of.host.clone();
                self.grant_in_place(group, state, &owner);
            }
            TicketState::Stopped { .. } | TicketState::Granted => {}
            TicketState::Running => {
                if state.intent.is_none() && !self.reprotect(group, (state, ticket), spec) {
                    self.fail_back(group, (state, ticket), spec);
                }
            }
        }
    }

    /// Opens a reprotection if no other copy is in sync and a host could hold one. Returns whether one is needed.
    fn reprotect(&mut self, group: &GroupName, (state, ticket): (&GroupState, &Ticket), spec: &GroupSpec) -> bool {
        let now = self.now.moment;
        let owner = &ticket.of.host;
        if spec.volumes.is_empty() || state.in_sync.iter().any(|host| host != owner) {
            return false;
        }
        let settled = |host: &HostName| {
            let since = self.leading.as_ref().and_then(|leading| leading.healthy.get(host));
            since.is_some_and(|at| now.waited_since(*at) >= STANDBY_SETTLED)
        };
        let elsewhere = |host: &&HostName| *host != owner && !spec.is_same_copy(owner, host) && settled(host);
        let Some(standby) = spec.hosts().find(elsewhere).cloned() else { return true };
        let route =
            Route { from: Some(owner.clone()), to: standby, needs_approval: false, probe_within: Duration::ZERO };
        let because = "no other copy is in sync".to_owned();
        self.open_plan(group, (PlanKind::Reprotect, route), (Initiator::Automatic, because));
        true
    }

    /// Opens the way home by policy: automatic, home stable and in sync for long enough, no site suspect, no other
    /// failback under way, nothing being fenced (I19).
    fn fail_back(&mut self, group: &GroupName, (state, ticket): (&GroupState, &Ticket), spec: &GroupSpec) {
        let now = self.now.moment;
        let owner = &ticket.of.host;
        if !spec.failback.automatic || self.ledger.site_of(owner) == Some(&spec.home) {
            if let Some(leading) = &mut self.leading {
                leading.protected.remove(group);
            }
            return;
        }
        let home = spec.places.get(&spec.home).into_iter().flat_map(|place| &place.hosts);
        let Some(target) = home.into_iter().find(|host| state.in_sync.contains(*host)).cloned() else { return };
        let Some(leading) = &mut self.leading else { return };
        let since = *leading.protected.entry(group.clone()).or_insert(now);
        let healthy = leading.healthy.get(&target).copied();
        let is_flapping = leading.damping.is_flapping(now, &target);
        let stable = |at: Moment| now.waited_since(at) >= spec.failback.stable_for;
        if is_flapping || !stable(since) || !healthy.is_some_and(stable) || !self.is_quiet() {
            return;
        }
        let route = self.route(group, Some(owner.clone()), target);
        let because = format!("{} has been stable and in sync for {:?}", spec.home, spec.failback.stable_for);
        self.open_plan(group, (PlanKind::Failback, route), (Initiator::Automatic, because));
    }

    /// No site or host suspect, nothing being fenced, no other group on its way home.
    fn is_quiet(&self) -> bool {
        let (sites, hosts) = self.detector.suspects();
        let fencing = self.ledger.tasks().values().any(|task| !task.is_over());
        let moving = self.ledger.plans().values().any(|plan| plan.is_open() && plan.plan.kind == PlanKind::Failback);
        sites.is_empty() && hosts.is_empty() && !fencing && !moving
    }

    /// The owner's host epoch is over: back in place if its host returned, else a failover if it was lost.
    fn recover(&mut self, group: &GroupName, (state, ticket): (&GroupState, &Ticket), spec: &GroupSpec) {
        let owner = ticket.of.host.clone();
        if self.ledger.admitted(&owner).is_some() {
            self.grant_in_place(group, state, &owner);
            return;
        }
        let is_lost = matches!(self.ledger.incarnation(&ticket.of).and_then(|of| of.ended), Some(Ended::Lost { .. }));
        let by_itself = matches!(spec.tier, Tier::Auto | Tier::Approve);
        if !is_lost || !by_itself {
            return;
        }
        let Some(target) = self.would_go_to(group) else { return };
        let route = self.route(group, Some(owner), target);
        let because = format!("{} was declared lost", ticket.of);
        self.open_plan(group, (PlanKind::Failover, route), (Initiator::Automatic, because));
    }

    fn route(&self, group: &GroupName, from: Option<HostName>, to: HostName) -> Route {
        let config = self.spec.as_ref().and_then(|spec| spec.groups.get(group));
        let place = config.and_then(|config| config.places.get(self.ledger.site_of(&to)?));
        let probe = place.and_then(|place| place.probe.as_ref());
        let tier = self.ledger.group_spec(group).map(|spec| spec.tier);
        Route {
            from,
            to,
            needs_approval: tier == Some(Tier::Approve),
            probe_within: probe.map(|probe| probe.within).unwrap_or_default(),
        }
    }

    fn make_plan(&self, group: &GroupName, (kind, route): (PlanKind, Route), why: (Initiator, String)) -> Option<Plan> {
        let state = self.ledger.group(group)?;
        let (initiator, because) = why;
        Some(Plan {
            kind,
            group: group.clone(),
            epoch: state.epoch,
            from: state.ticket.as_ref().map(|ticket| ticket.of.clone()),
            steps: steps(kind, &route),
            to: Some(route.to),
            initiator,
            because,
        })
    }

    fn open_plan(&mut self, group: &GroupName, what: (PlanKind, Route), why: (Initiator, String)) {
        if let Some(plan) = self.make_plan(group, what, why) {
            self.propose_paced(group.as_str(), Command::PlanOpened { plan });
        }
    }

    /// The plan that a person asks for, or why there can be none.
    pub(super) fn plan_for(&self, wanted: &Move, initiator: Initiator) -> Result<Plan, String> {
        let group = &wanted.group;
        let state = self.ledger.group(group).ok_or_else(|| format!("there is no group {group}"))?;
        let spec = self.ledger.group_spec(group).ok_or_else(|| format!("the spec has no group {group}"))?;
        if let Some(plan) = self.ledger.open_plan(group) {
            return Err(format!("plan {} ({}) of {group} is under way", plan.id, plan.plan.kind.as_str()));
        }
        let owner = state.ticket.as_ref().map(|ticket| ticket.of.host.clone());
        let home = spec.places.get(&spec.home).and_then(|place| place.hosts.first()).cloned();
        let chosen = match wanted.kind {
            PlanKind::Failback => wanted.to.clone().or(home),
            PlanKind::Reprotect => {
                wanted.to.clone().or_else(|| spec.hosts().find(|host| Some(*host) != owner.as_ref()).cloned())
            }
            _ => wanted.to.clone().or_else(|| self.would_go_to(group)),
        };
        let to = chosen.ok_or_else(|| format!("no host could take {group} now"))?;
        if !spec.names(&to) {
            return Err(format!("{to} is no place of {group}"));
        }
        if Some(&to) == owner.as_ref() {
            return Err(format!("{group} runs on {to} already"));
        }
        let route = Route { needs_approval: false, ..self.route(group, owner, to) };
        self.make_plan(group, (wanted.kind, route), (initiator, wanted.reason.clone()))
            .ok_or_else(|| format!("there is no group {group}"))
    }

    /// Where the group would go if its owner were lost now.
    pub(super) fn would_go_to(&self, group: &GroupName) -> Option<HostName> {
        let (state, spec) = (self.ledger.group(group)?, self.ledger.group_spec(group)?);
        self.choose_for(state, spec).host
    }

    pub(super) fn choose_for(&self, state: &GroupState, spec: &GroupSpec) -> Choice {
        let owner = state.ticket.as_ref().map(|ticket| &ticket.of.host);
        let now = self.now.moment;
        let flapping =
            |host: &HostName| self.leading.as_ref().is_some_and(|leading| leading.damping.is_flapping(now, host));
        let candidates: Vec<Candidate> = spec
            .hosts()
            .map(|host| Candidate {
                host: host.clone(),
                is_alive: self.is_alive(host),
                is_owner: Some(host) == owner,
                in_maintenance: self.ledger.maintenance_of(host).is_some(),
                is_held: self.ledger.hold_of(host).is_some() || flapping(host),
                is_barred: state.pin.is_some(),
                has_data: spec.volumes.is_empty() || state.in_sync.contains(host),
                load: self.ledger.groups_on(host).count(),
            })
            .collect();
        let with_data = choose(&candidates, true);
        if with_data.host.is_some() { with_data } else { choose(&candidates, false) }
    }

    /// Whether the cluster could fail a group over by itself, told before the disaster.
    pub(super) fn automatic_failover(&self, group: &GroupName) -> PossibleLine {
        let no = |because: String| PossibleLine { possible: false, because };
        let Some(spec) = self.ledger.group_spec(group) else { return no("the spec doesn't name it".into()) };
        if spec.tier != Tier::Auto {
            return no(format!("its tier waits for a person ({:?})", spec.tier).to_lowercase());
        }
        let Some(state) = self.ledger.group(group) else { return no("it isn't born yet".into()) };
        let Some(ticket) = &state.ticket else { return no("it has no owner yet".into()) };
        let class = self.ledger.incarnation(&ticket.of).map(|of| of.class);
        let by_lease =
            spec.accept.contains(&EvidenceKind::SelfFenced) && matches!(class, Some(Class::A) | Some(Class::B));
        let has_device = self.ledger.spec().hosts.get(&ticket.of.host).is_some_and(|host| !host.fencing.is_empty());
        if !by_lease && !has_device {
            return no(format!(
                "automatic failover is impossible here: {} can't prove itself by its lease and has no fence device",
                ticket.of.host
            ));
        }
        if self.voter_hosts().len() > 1 && self.status_can_lose() == 0 {
            return no("the quorum can lose no more voter".into());
        }
        match self.choose_for(state, spec).host {
            None => no("no other host could run it now".into()),
            Some(host) if !spec.volumes.is_empty() && !state.in_sync.contains(&host) => {
                no(format!("{host} has no copy in sync"))
            }
            Some(host) => {
                let by = if by_lease { "the owner's lease" } else { "a fence device" };
                PossibleLine { possible: true, because: format!("to {host}, proven by {by}") }
            }
        }
    }

    fn status_can_lose(&self) -> usize {
        let voters = self.voter_hosts();
        let heard = voters.values().filter(|host| **host == self.me.host || self.detector.last_heard(host).is_some());
        heard.count().saturating_sub(quorum::roster::majority(voters.len()))
    }

    // ---- driving plans ----

    fn drive(&mut self, plan: &PlanState, state: &GroupState, spec: &GroupSpec) {
        let Some(index) = plan.current_step() else {
            let outcome = PlanOutcome::Done { measured_rto: None, measured_rpo: None };
            self.close(plan, outcome);
            return;
        };
        if plan.denied.is_some() && plan.pivot.is_none() {
            self.close(plan, PlanOutcome::Cancelled { because: "a person denied it".into() });
            return;
        }
        if self.give_up(plan, state) {
            return;
        }
        match plan.plan.kind {
            PlanKind::Failover | PlanKind::Restart => self.drive_failover(plan, index, (state, spec)),
            PlanKind::Switchover | PlanKind::Failback => self.drive_switchover(plan, index, (state, spec)),
            PlanKind::Reprotect => self.drive_reprotect(plan, index, state),
            PlanKind::Migration | PlanKind::Stop | PlanKind::Drill => {
                let because = format!("{} plans are not executed by this version", plan.plan.kind.as_str());
                let next = "antipode switchover moves a group with a stop".to_owned();
                self.close(plan, PlanOutcome::Failed { because, next });
            }
        }
    }

    /// Ends plans whose ground is gone: the target was lost, the owner returned before the pivot, the owner of a
    /// reprotection changed.
    fn give_up(&mut self, plan: &PlanState, state: &GroupState) -> bool {
        let ticket = state.ticket.as_ref();
        let to = plan.plan.to.as_ref();
        if plan.pivot.is_some() {
            // Behind the pivot only the new owner's own end ends the plan.
            let owner_over = ticket.is_some_and(|ticket| self.ledger.is_ended(&ticket.of));
            if owner_over {
                let because = "the new owner was lost before the plan ended".to_owned();
                self.close(plan, PlanOutcome::Failed { because, next: "wait: another plan takes its place".into() });
            }
            return owner_over;
        }
        let from_over = plan.plan.from.as_ref().is_some_and(|from| self.ledger.is_ended(from));
        let target_gone = to.is_some_and(|to| !self.is_alive(to));
        let because = match plan.plan.kind {
            PlanKind::Failover | PlanKind::Restart => {
                let owner = plan.plan.from.as_ref().map(|from| &from.host);
                if owner.is_some_and(|owner| self.ledger.admitted(owner).is_some()) {
                    Some("the owner's host returned before the grant; it is granted back there")
                } else {
                    target_gone.then_some("the target is silent or no longer admitted")
                }
            }
            _ if from_over => Some("the owner's host epoch is over"),
            PlanKind::Switchover | PlanKind::Failback if self.is_left_behind(plan, state) => {
                Some("the owner stopped, and the other copy misses its last writes; it is granted back")
            }
            _ => target_gone.then_some("the other host is silent or no longer admitted"),
        };
        let Some(because) = because else { return false };
        if let Some(intent) = state.intent.as_ref().filter(|intent| intent.plan == Some(plan.id) && !from_over) {
            let command =
                Command::SwitchAbort { group: plan.plan.group.clone(), intent: intent.id, because: because.into() };
            self.propose_paced(plan.plan.group.as_str(), command);
        }
        self.close(plan, PlanOutcome::Cancelled { because: because.into() });
        true
    }

    /// The owner has stopped for the move, and the target's copy isn't in sync any more.
    fn is_left_behind(&self, plan: &PlanState, state: &GroupState) -> bool {
        let has_data = self.ledger.group_spec(&plan.plan.group).is_some_and(|spec| !spec.volumes.is_empty());
        let stopped = state.ticket.as_ref().is_some_and(|ticket| matches!(ticket.state, TicketState::Stopped { .. }));
        has_data && stopped && plan.plan.to.as_ref().is_some_and(|to| !state.in_sync.contains(to))
    }

    fn close(&mut self, plan: &PlanState, outcome: PlanOutcome) {
        self.propose_paced(&plan.id.to_string(), Command::PlanClosed { plan: plan.id, outcome });
    }

    /// Records a step that the leader itself executes: begun and done in one go.
    fn done_by_leader(&mut self, plan: &PlanState, index: usize, detail: &str) {
        let (id, step) = (plan.id, u32::try_from(index).unwrap_or(u32::MAX));
        let attempt = match &plan.steps[index] {
            StepState::Waiting => {
                let executor = self.me.host.clone();
                self.propose_paced(&format!("{id}/{step}"), Command::StepStarted { plan: id, step, executor });
                1
            }
            StepState::Started { attempt, .. } => *attempt,
            StepState::Ended { attempt, .. } => {
                let executor = self.me.host.clone();
                self.propose_paced(&format!("{id}/{step}"), Command::StepStarted { plan: id, step, executor });
                attempt + 1
            }
        };
        let outcome = StepOutcome::Done { detail: detail.to_owned() };
        self.propose_paced(&format!("{id}/{step}"), Command::StepEnded { plan: id, step, attempt, outcome });
    }

    fn step_index(plan: &PlanState, kind: StepKind) -> Option<usize> {
        plan.plan.steps.iter().position(|step| step.kind == kind)
    }

    fn drive_failover(&mut self, plan: &PlanState, index: usize, (state, spec): (&GroupState, &GroupSpec)) {
        let group = plan.plan.group.clone();
        let Some(to) = plan.plan.to.clone() else { return };
        if plan.pivot.is_some() {
            self.end_grant_step(plan, index);
            return;
        }
        // Asked for early, so that the answer is here when the evidence is.
        let gate = self.data_gate(&group, state, &to);
        let proven = self.ledger.covering_evidence(&group).iter().all(|(_, proof)| proof.is_ok());
        if !proven {
            return;
        }
        let kind = plan.plan.steps[index].kind;
        if kind == StepKind::AwaitEvidence {
            self.done_by_leader(plan, index, "every possible owner is proven harmless");
        }
        let approved = plan.approval.as_ref().is_some_and(quorum::ledger::Permit::is_given);
        let needs_approval = Self::step_index(plan, StepKind::AwaitApproval).is_some();
        if needs_approval && !approved {
            return;
        }
        if kind == StepKind::AwaitApproval {
            self.done_by_leader(plan, index, "a person said go");
        }
        let Some(gate) = gate else { return };
        let cause = match (&plan.plan.initiator, plan.approval.as_ref().and_then(|permit| permit.agreed.first())) {
            (Initiator::Person(decision), _) => GrantCause::Operator(decision.clone()),
            (Initiator::Automatic, Some(decision)) => GrantCause::Operator(decision.clone()),
            (Initiator::Automatic, None) => GrantCause::Automatic { waited: self.waited_since_loss(plan) },
        };
        let _ = spec;
        self.try_grant(&group, (&to, gate), cause, Some(plan));
    }

    fn waited_since_loss(&self, plan: &PlanState) -> Duration {
        let now = self.now.moment;
        let Some(leading) = &self.leading else { return Duration::ZERO };
        let at = plan.plan.from.as_ref().and_then(|from| leading.ended_at.get(from));
        // A leader that wasn't there when it was applied counts from when it took over.
        now.waited_since(at.copied().unwrap_or(leading.since))
    }

    /// Behind the pivot: the grant step is recorded, the rest is the new owner's.
    fn end_grant_step(&mut self, plan: &PlanState, index: usize) {
        if plan.plan.steps[index].kind == StepKind::Grant || plan.plan.steps[index].host.is_none() {
            self.done_by_leader(plan, index, "the ticket moved");
        }
    }

    fn drive_switchover(&mut self, plan: &PlanState, index: usize, (state, spec): (&GroupState, &GroupSpec)) {
        let _ = spec;
        let group = plan.plan.group.clone();
        let Some(to) = plan.plan.to.clone() else { return };
        if plan.pivot.is_some() {
            self.end_grant_step(plan, index);
            return;
        }
        let Some(gate) = self.data_gate(&group, state, &to) else { return };
        let kind = plan.plan.steps[index].kind;
        if kind == StepKind::Preflight {
            self.done_by_leader(plan, index, "the target is admitted and its copy agrees");
        }
        match (&state.intent, state.ticket.as_ref().map(|ticket| ticket.state)) {
            (None, Some(TicketState::Running | TicketState::Granted)) => self.open_intent(plan, &to),
            (Some(intent), Some(TicketState::Stopped { .. })) => {
                let cause = GrantCause::Intent(intent.id);
                self.try_grant(&group, (&to, gate), cause, Some(plan));
            }
            (Some(_), _) | (None, _) => {}
        }
    }

    fn open_intent(&mut self, plan: &PlanState, to: &HostName) {
        let (Some(from), Some((he, _))) = (plan.plan.from.clone(), self.ledger.admitted(to)) else { return };
        let intent = Intent {
            group: plan.plan.group.clone(),
            epoch: plan.plan.epoch,
            from,
            to: Incarnation { host: to.clone(), he },
            deadline: INTENT_OPEN,
            plan: Some(plan.id),
        };
        self.propose_paced(plan.plan.group.as_str(), Command::SwitchIntent(intent));
    }

    fn drive_reprotect(&mut self, plan: &PlanState, index: usize, state: &GroupState) {
        let in_sync = plan.plan.to.as_ref().is_some_and(|to| state.in_sync.contains(to));
        if in_sync && plan.plan.steps[index].kind == StepKind::AwaitInSync {
            self.done_by_leader(plan, index, "the other copy is in sync");
        }
    }
}

/// What a host's own copy says, compared with the ledger; `None` if it has no copy at all.
fn compare(answer: &CopyAnswer, state: &GroupState) -> Option<CopyCheck> {
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
