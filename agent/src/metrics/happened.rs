//! What happened at this agent since it began: counters fed by its events.
//!
//! A host that starts its agent again applies the log anew from its last snapshot, and counts what it applies: alerts
//! look at increases, and a counter that begins at zero is one that began anew.

use super::table::Table;
use crate::event::Event;
use prometheus::{CounterVec, GaugeVec};
use quorum::ledger::{self, Ledger, PlanOutcome, StepOutcome};

/// The counters of events.
#[derive(Debug)]
pub(super) struct Happened {
    events: CounterVec,
    suspicions: CounterVec,
    site_suspicions: CounterVec,
    leaders: CounterVec,
    leases_held: CounterVec,
    leases_lost: CounterVec,
    hosts_lost: CounterVec,
    sites_lost: CounterVec,
    admissions: CounterVec,
    refusals: CounterVec,
    grants: CounterVec,
    plans_closed: CounterVec,
    steps_ended: CounterVec,
    fence_tasks: CounterVec,
    work_ended: CounterVec,
    people: CounterVec,
    measured_rto: GaugeVec,
    measured_rpo: GaugeVec,
}

impl Happened {
    pub(super) fn new(t: &mut Table) -> Self {
        Self {
            events: t.counters("antipode_events_total", &["event"], "Lines of the event journal"),
            suspicions: t.counters("antipode_suspicions_total", &["peer"], "Times that a peer fell silent here"),
            site_suspicions: t.counters(
                "antipode_site_suspicions_total",
                &["site"],
                "Times that all hosts of a site were silent here",
            ),
            leaders: t.counters("antipode_leader_changes_total", &["leader"], "Times that a leader was followed"),
            leases_held: t.counters("antipode_leases_held_total", &[], "Times that this host began to hold a lease"),
            leases_lost: t.counters("antipode_leases_lost_total", &[], "Times that this host's lease ran out"),
            hosts_lost: t.counters("antipode_hosts_lost_total", &["host"], "Declarations of a host as lost"),
            sites_lost: t.counters("antipode_sites_lost_total", &["site"], "Declarations of a site as lost"),
            admissions: t.counters("antipode_hosts_admitted_total", &["host"], "Admissions of a host"),
            refusals: t.counters("antipode_refused_total", &["command"], "Commands that the ledger refused"),
            grants: t.counters("antipode_grants_total", &["group", "host"], "Tickets granted"),
            plans_closed: t.counters("antipode_plans_closed_total", &["kind", "outcome"], "Plans that ended"),
            steps_ended: t.counters("antipode_steps_ended_total", &["kind", "outcome"], "Attempts at steps that ended"),
            fence_tasks: t.counters("antipode_fence_tasks_total", &["state"], "Fence tasks opened and finished"),
            work_ended: t.counters("antipode_work_ended_total", &["work"], "Pieces of work that ended on this host"),
            people: t.counters("antipode_people_total", &["action"], "What people did: records of the audit trail"),
            measured_rto: t.gauges("antipode_measured_rto_seconds", &["group"], "To service, in the last move"),
            measured_rpo: t.gauges("antipode_measured_rpo_seconds", &["group"], "Data lost in the last move"),
        }
    }

    /// dispatcher: one arm an event.
    pub(super) fn event(&self, event: &Event, ledger: &Ledger) {
        self.events.with_label_values(&[event.name()]).inc();
        match event {
            Event::Suspect { peer, .. } => self.suspicions.with_label_values(&[peer.as_str()]).inc(),
            Event::SiteSuspect { site } => self.site_suspicions.with_label_values(&[site.as_str()]).inc(),
            Event::Leader { leader: Some(leader), .. } => self.leaders.with_label_values(&[leader.as_str()]).inc(),
            Event::LeaseHeld { .. } => self.leases_held.with_label_values::<&str>(&[]).inc(),
            Event::LeaseLost { .. } => self.leases_lost.with_label_values::<&str>(&[]).inc(),
            Event::Refused { command, .. } => self.refusals.with_label_values(&[command]).inc(),
            Event::WorkEnded { work, .. } => self.work_ended.with_label_values(&[first_word(work)]).inc(),
            Event::Applied { fact, .. } => self.fact(fact, ledger),
            Event::AgentStarted { .. }
            | Event::Trusted { .. }
            | Event::Leader { leader: None, .. }
            | Event::LeaseWaitedOut { .. }
            | Event::ResyncDone { .. }
            | Event::DataKept { .. }
            | Event::WorkStarted { .. }
            | Event::NotDeclared { .. }
            | Event::NotAdmitted { .. }
            | Event::MembersProposed { .. }
            | Event::VoteEnded { .. }
            | Event::Dropped { .. } => {}
        }
    }

    fn fact(&self, fact: &ledger::Event, ledger: &Ledger) {
        match fact {
            ledger::Event::HostLost { of, .. } => self.hosts_lost.with_label_values(&[of.host.as_str()]).inc(),
            ledger::Event::SiteLost { site, .. } => self.sites_lost.with_label_values(&[site.as_str()]).inc(),
            ledger::Event::HostAdmitted { of, .. } => self.admissions.with_label_values(&[of.host.as_str()]).inc(),
            ledger::Event::Granted { group, to, .. } => {
                self.grants.with_label_values(&[group.as_str(), to.host.as_str()]).inc();
            }
            ledger::Event::StepEnded { plan, step, outcome, .. } => {
                let state = ledger.plans().get(plan);
                let kind = state.and_then(|state| state.plan.steps.get(*step as usize)).map(|step| step.kind);
                let kind = kind.map(|kind| format!("{kind:?}")).unwrap_or_default();
                self.steps_ended.with_label_values(&[kind.as_str(), step_word(outcome)]).inc();
            }
            ledger::Event::PlanClosed { plan, outcome } => {
                let Some(state) = ledger.plans().get(plan) else { return };
                self.plans_closed.with_label_values(&[state.plan.kind.as_str(), plan_word(outcome)]).inc();
                self.measured(state.plan.group.as_str(), outcome);
            }
            ledger::Event::FenceTaskOpened { .. } => self.fence_tasks.with_label_values(&["opened"]).inc(),
            ledger::Event::FenceTaskFinished { .. } => self.fence_tasks.with_label_values(&["finished"]).inc(),
            ledger::Event::Audited { record } => self.people.with_label_values(&[record.action.as_str()]).inc(),
            // Everything else is a line of the journal.
            _ => {}
        }
    }

    fn measured(&self, group: &str, outcome: &PlanOutcome) {
        let PlanOutcome::Done { measured_rto, measured_rpo } = outcome else { return };
        for (gauge, span) in [(&self.measured_rto, measured_rto), (&self.measured_rpo, measured_rpo)] {
            if let Some(span) = span {
                gauge.with_label_values(&[group]).set(span.as_secs_f64());
            }
        }
    }
}

/// The kind of a piece of work, without what it was for: labels must be few.
fn first_word(work: &str) -> &str {
    work.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default()
}

const fn step_word(outcome: &StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Done { .. } => "done",
        StepOutcome::Failed { .. } => "failed",
        StepOutcome::TimedOut => "timed-out",
        StepOutcome::Undone => "undone",
        StepOutcome::Skipped { .. } => "skipped",
    }
}

const fn plan_word(outcome: &PlanOutcome) -> &'static str {
    match outcome {
        PlanOutcome::Done { .. } => "done",
        PlanOutcome::Cancelled { .. } => "cancelled",
        PlanOutcome::Failed { .. } => "failed",
    }
}
