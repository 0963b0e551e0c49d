//! Events as one line of text: subject first, then what became of it, then `key=value` and the reason.
//!
//! For people, traces and goldens. Machines read the typed event. A line never has a moment in it: whoever prints it
//! knows better.

use super::command::{EndCause, FenceOutcome, FreezeScope, PlaceScope};
use super::event::{Event, ProofKind};
use super::evidence::{Incarnation, Scope};
use super::plan::{PlanOutcome, StepOutcome};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Groups(groups) => f.write_str(&list(groups)),
        }
    }
}

impl Display for ProofKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Evidence(kind) => Display::fmt(kind, f),
            Self::Itself => f.write_str("itself"),
            Self::Adopted => f.write_str("adopted"),
        }
    }
}

impl Display for FreezeScope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Site(site) => write!(f, "site:{site}"),
            Self::Group(group) => write!(f, "group:{group}"),
        }
    }
}

impl Display for PlaceScope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host:{host}"),
            Self::Site(site) => write!(f, "site:{site}"),
        }
    }
}

impl Display for EndCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elapsed { waited } => write!(f, "{waited:?} passed"),
            Self::Person(decision) => Display::fmt(&decision.by, f),
        }
    }
}

impl Display for FenceOutcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven => f.write_str("proven"),
            Self::Failed { because } => write!(f, "failed because={because:?}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl Display for StepOutcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { .. } => f.write_str("done"),
            Self::Failed { because } => write!(f, "failed because={because:?}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Undone => f.write_str("undone"),
            Self::Skipped { by } => write!(f, "skipped by={:?}", by.by.to_string()),
        }
    }
}

impl Display for PlanOutcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { measured_rto, measured_rpo } => {
                f.write_str("done")?;
                measured_rto.iter().try_for_each(|rto| write!(f, " measured_rto={rto:?}"))?;
                measured_rpo.iter().try_for_each(|rpo| write!(f, " measured_rpo={rpo:?}"))
            }
            Self::Cancelled { because } => write!(f, "cancelled because={because:?}"),
            Self::Failed { because, next } => write!(f, "failed because={because:?} next={next:?}"),
        }
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(done) = cluster_line(self, f).or_else(|| host_line(self, f)) {
            return done;
        }
        if let Some(done) = group_line(self, f).or_else(|| plan_line(self, f)) {
            return done;
        }
        people_line(self, f).unwrap_or_else(|| f.write_str("unknown event"))
    }
}

fn cluster_line(event: &Event, f: &mut Formatter<'_>) -> Option<fmt::Result> {
    Some(match event {
        Event::Bootstrapped { cluster, lab } => {
            write!(f, "cluster {cluster} created{}", if *lab { " lab" } else { "" })
        }
        Event::LeaderChanged { term, voided } => write!(f, "leader changed term={term} voided={voided}"),
        Event::ConfigChanged { config, voters, joint, discarded } => {
            let joint = if *joint { " joint" } else { "" };
            write!(f, "voters changed to {voters}{joint} config={config} discarded={discarded}")
        }
        Event::TimingSet { lease, voter_wait } => write!(f, "timing set lease={lease:?} voter_wait={voter_wait:?}"),
        Event::SpecSet { revision, by } => write!(f, "spec {revision} set by={by:?}"),
        Event::Supports { host, version } => write!(f, "{host} supports version={version}"),
        Event::ClusterVersionSet { version } => write!(f, "version {version} set"),
        Event::EraBegun { era, groups } => write!(f, "era {era} begun groups={groups}"),
        Event::Audited { record } => write!(f, "audited {} {} by={:?}", record.number, record.action, record.by_whom()),
        _ => return None,
    })
}

fn host_line(event: &Event, f: &mut Formatter<'_>) -> Option<fmt::Result> {
    Some(match event {
        Event::HostAdmitted { of, class } => write!(f, "{of} admitted class={class}"),
        Event::HostLost { of, because } => write!(f, "{of} lost because={because:?}"),
        Event::SiteLost { site, hosts } => write!(f, "site {site} lost hosts={hosts}"),
        Event::HostRetired { of, because } => write!(f, "{of} retired because={because:?}"),
        Event::ExpiredCounted { of, voter, counted } => write!(f, "{of} expired voter={voter} counted={counted}"),
        Event::EvidenceAccepted { of, kind, scope, lab } => {
            write!(f, "{of} proven {kind} scope={scope}{}", if *lab { " lab" } else { "" })
        }
        Event::FenceTaskOpened { task, of, deadline } => {
            write!(f, "{of} to be fenced task={task} deadline={deadline:?}")
        }
        Event::FenceTaskStarted { task, executor } => write!(f, "task {task} taken up by={executor}"),
        Event::FenceTaskFinished { task, executor, outcome } => {
            write!(f, "task {task} finished by={executor} {outcome}")
        }
        Event::FenceTaskCancelled { task, because } => {
            write!(f, "task {task} cancelled because={because:?}")
        }
        Event::FenceTaskOver { task, host } => write!(f, "task {task} over host={host}"),
        Event::HostRemoved { of } => write!(f, "{of} removed"),
        Event::MaintenanceBegun { scope, span } => write!(f, "{scope} in maintenance span={span:?}"),
        Event::MaintenanceEnded { scope, cause } => write!(f, "{scope} maintenance ended because=\"{cause}\""),
        Event::Held { scope, span, because } => write!(f, "{scope} held span={span:?} because={because:?}"),
        Event::HoldEnded { scope, cause } => write!(f, "{scope} hold ended because=\"{cause}\""),
        _ => return None,
    })
}

fn group_line(event: &Event, f: &mut Formatter<'_>) -> Option<fmt::Result> {
    Some(match event {
        Event::GroupCreated { group, source, awaits } => write!(f, "{group} created source={source} awaits={awaits}"),
        Event::AbsentSeen { group, host, awaits } => write!(f, "{group} absent on={host} awaits={awaits}"),
        Event::Granted { group, to, epoch, opens, generation, proofs, expected_loss } => write!(
            f,
            "{group} granted to={to} epoch={epoch} opens={opens} generation={generation}{} because=\"{}\"",
            loss(*expected_loss),
            proof_list(proofs)
        ),
        Event::Running { group, of, epoch } => write!(f, "{group} running on={of} epoch={epoch}"),
        Event::Stopped { group, of, epoch, generation, intent } => {
            let intent = intent.map_or(String::new(), |intent| format!(" intent={intent}"));
            write!(f, "{group} stopped on={of} epoch={epoch} generation={generation}{intent}")
        }
        Event::IntentOpened { group, intent, from, to, migration } => {
            let kind = if *migration { "migrates" } else { "moves" };
            write!(f, "{group} {kind} from={from} to={to} intent={intent}")
        }
        Event::IntentClosed { group, intent, because } => {
            write!(f, "{group} intent {intent} closed because={because:?}")
        }
        Event::Detached { group, away, generation } => {
            write!(f, "{group} detached away={} generation={generation}", list(away))
        }
        Event::InSync { group, copy, generation } => write!(f, "{group} in sync copy={copy} generation={generation}"),
        Event::DataAttested { group, copy, lag } => write!(f, "{group} attested copy={copy} lag={lag:?}"),
        Event::DataDiverged { group, copy, found } => write!(f, "{group} checked copy={copy} found={found:?}"),
        Event::Pinned { group, of } => write!(f, "{group} pinned to={of}"),
        Event::PinAcknowledged { group, of } => write!(f, "{group} pin acknowledged by={of}"),
        Event::Unpinned { group, owner } => {
            write!(f, "{group} unpinned owner={}", owner.as_ref().map_or("none".to_owned(), ToString::to_string))
        }
        Event::GroupRemoved { group, epoch } => write!(f, "{group} removed epoch={epoch}"),
        Event::LossAccepted { index, group, copy, given } => {
            write!(f, "{group} loss accepted copy={copy} acceptance={index} given={given}")
        }
        _ => return None,
    })
}

fn plan_line(event: &Event, f: &mut Formatter<'_>) -> Option<fmt::Result> {
    Some(match event {
        Event::PlanOpened { plan, kind, group, because } => {
            write!(f, "plan {plan} opened {} {group} because={because:?}", kind.as_str())
        }
        Event::StepStarted { plan, step, attempt, executor } => {
            write!(f, "plan {plan} step {step} started attempt={attempt} by={executor}")
        }
        Event::StepEnded { plan, step, attempt, outcome } => {
            write!(f, "plan {plan} step {step} ended attempt={attempt} {outcome}")
        }
        Event::PlanPivoted { plan } => write!(f, "plan {plan} past its pivot"),
        Event::PlanClosed { plan, outcome } => write!(f, "plan {plan} closed {outcome}"),
        _ => return None,
    })
}

fn people_line(event: &Event, f: &mut Formatter<'_>) -> Option<fmt::Result> {
    Some(match event {
        Event::Approved { subject, agreed, given } => write!(f, "{subject} approved agreed={agreed} given={given}"),
        Event::Denied { subject, by } => write!(f, "{subject} denied by={by:?}"),
        Event::Frozen { freeze, scope, span } => write!(f, "{scope} frozen freeze={freeze} span={span:?}"),
        Event::Thawed { freeze, cause } => write!(f, "freeze {freeze} thawed because=\"{cause}\""),
        Event::BrakeSet { because } => write!(f, "brake set because={because:?}"),
        Event::BrakeReleased { by } => write!(f, "brake released by={by:?}"),
        Event::OverrideAsked { index, needs } => write!(f, "override {index} asked needs={needs}"),
        Event::OverrideUsed { index } => write!(f, "override {index} takes effect"),
        Event::OverrideVoid { index, because } => write!(f, "override {index} void because={because:?}"),
        _ => return None,
    })
}

fn loss(expected_loss: Option<Duration>) -> String {
    match expected_loss {
        Some(Duration::ZERO) => String::new(),
        Some(loss) => format!(" expected_loss={loss:?}"),
        None => " expected_loss=unknown".to_owned(),
    }
}

fn proof_list(proofs: &[(Incarnation, ProofKind)]) -> String {
    let proofs: Vec<String> = proofs.iter().map(|(of, proof)| format!("{of} {proof}")).collect();
    if proofs.is_empty() { "nobody else".to_owned() } else { proofs.join(", ") }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}
