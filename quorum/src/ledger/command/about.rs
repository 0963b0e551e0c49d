//! What can be said about any command: its name, who stands behind it, whose leases it ends.

use super::*;
use crate::id::HostEpoch;

impl Command {
    /// The admissions that a voter must no longer grant to once it *persisted* this command, committed or not
    /// (protocol §3, invariant I5): each stands for itself and every older one of its host.
    pub fn revokes(&self) -> Vec<Incarnation> {
        match self {
            Self::Lost(lost) => lost.hosts.clone(),
            Self::Retired { of, .. } | Self::Evidence(Evidence { of, .. }) => vec![of.clone()],
            Self::Override(Override { claim: Claim::Inert(named), .. }) => named.clone(),
            Self::HostAdmitted(HostAdmitted { of, .. }) if of.he.count() > 0 => {
                vec![Incarnation { host: of.host.clone(), he: HostEpoch(of.he.0 - 1) }]
            }
            Self::Noop
            | Self::Bootstrap(_)
            | Self::SetTiming { .. }
            | Self::SetSpec(_)
            | Self::HostAdmitted(_)
            | Self::Expired { .. }
            | Self::FenceTaskOpened { .. }
            | Self::FenceTaskStarted { .. }
            | Self::FenceTaskFinished { .. }
            | Self::FenceTaskCancel { .. }
            | Self::FenceTaskExpired { .. }
            | Self::GroupCreated { .. }
            | Self::Absent { .. }
            | Self::Grant(_)
            | Self::Running { .. }
            | Self::Stopped(_)
            | Self::SwitchIntent(_)
            | Self::SwitchAbort { .. }
            | Self::MigrateIntent(_)
            | Self::MigrateAbort { .. }
            | Self::Detached { .. }
            | Self::InSync { .. }
            | Self::DataAttested { .. }
            | Self::DataDiverged { .. }
            | Self::PlanOpened { .. }
            | Self::StepStarted { .. }
            | Self::StepEnded { .. }
            | Self::PlanClosed { .. }
            | Self::Approve { .. }
            | Self::Deny { .. }
            | Self::Freeze { .. }
            | Self::Thaw { .. }
            | Self::Maintenance { .. }
            | Self::MaintenanceEnded { .. }
            | Self::Held { .. }
            | Self::HoldEnded { .. }
            | Self::Pin { .. }
            | Self::PinAcknowledged { .. }
            | Self::Unpin { .. }
            | Self::BrakeSet { .. }
            | Self::BrakeReleased { .. }
            | Self::Override(_)
            | Self::OverrideExpired { .. }
            | Self::AcceptLoss(_)
            | Self::GroupRemoved { .. }
            | Self::HostRemoved { .. }
            | Self::Supports { .. }
            | Self::ClusterVersion { .. }
            | Self::EraBegun(_)
            | Self::Audit { .. } => Vec::new(),
        }
    }

    /// The decision that stands behind a command, if a person's does: these are chained into the audit.
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Bootstrap(Bootstrap { by, .. })
            | Self::SetTiming { by, .. }
            | Self::SetSpec(SetSpec { by, .. })
            | Self::GroupCreated { by, .. }
            | Self::Approve { by, .. }
            | Self::Deny { by, .. }
            | Self::Freeze { by, .. }
            | Self::Maintenance { by, .. }
            | Self::Pin { by, .. }
            | Self::Unpin { by, .. }
            | Self::BrakeReleased { by }
            | Self::Override(Override { by, .. })
            | Self::AcceptLoss(AcceptLoss { by, .. })
            | Self::GroupRemoved { by, .. }
            | Self::HostRemoved { by, .. }
            | Self::ClusterVersion { by, .. }
            | Self::EraBegun(EraBegun { by, .. })
            | Self::Audit { by, .. }
            | Self::Lost(Lost { cause: LostCause::Operator(by), .. })
            | Self::Grant(Grant { cause: GrantCause::Operator(by), .. }) => Some(by),
            Self::FenceTaskOpened { initiator, .. } | Self::BrakeSet { initiator, .. } => initiator.decision(),
            Self::PlanOpened { plan } => plan.initiator.decision(),
            Self::StepEnded { outcome, .. } => outcome.decision(),
            Self::Thaw { cause, .. } | Self::MaintenanceEnded { cause, .. } | Self::HoldEnded { cause, .. } => {
                cause.decision()
            }
            Self::Noop
            | Self::HostAdmitted(_)
            | Self::Lost(Lost { cause: LostCause::Automatic { .. }, .. })
            | Self::Retired { .. }
            | Self::Expired { .. }
            | Self::Evidence(_)
            | Self::FenceTaskStarted { .. }
            | Self::FenceTaskFinished { .. }
            | Self::FenceTaskCancel { .. }
            | Self::FenceTaskExpired { .. }
            | Self::Absent { .. }
            | Self::Grant(Grant {
                cause: GrantCause::InPlace | GrantCause::Automatic { .. } | GrantCause::Intent(_),
                ..
            })
            | Self::Running { .. }
            | Self::Stopped(_)
            | Self::SwitchIntent(_)
            | Self::SwitchAbort { .. }
            | Self::MigrateIntent(_)
            | Self::MigrateAbort { .. }
            | Self::Detached { .. }
            | Self::InSync { .. }
            | Self::DataAttested { .. }
            | Self::DataDiverged { .. }
            | Self::StepStarted { .. }
            | Self::PlanClosed { .. }
            | Self::Held { .. }
            | Self::PinAcknowledged { .. }
            | Self::OverrideExpired { .. }
            | Self::Supports { .. } => None,
        }
    }

    /// What the audit chain calls it: an act that changes nothing in the ledger says itself what it was.
    pub fn action(&self) -> &str {
        match self {
            Self::Audit { action, .. } => action,
            other => other.name(),
        }
    }

    /// The command's name as shown in traces and the audit.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Bootstrap(_) => "bootstrap",
            Self::SetTiming { .. } => "set-timing",
            Self::SetSpec(_) => "set-spec",
            Self::HostAdmitted(_) => "host-admitted",
            Self::Lost(_) => "lost",
            Self::Retired { .. } => "retired",
            Self::Expired { .. } => "expired",
            Self::Evidence(_) => "evidence",
            Self::FenceTaskOpened { .. } => "fence-task-opened",
            Self::FenceTaskStarted { .. } => "fence-task-started",
            Self::FenceTaskFinished { .. } => "fence-task-finished",
            Self::FenceTaskCancel { .. } => "fence-task-cancel",
            Self::FenceTaskExpired { .. } => "fence-task-expired",
            Self::GroupCreated { .. } => "group-created",
            Self::Absent { .. } => "absent",
            Self::Grant(_) => "grant",
            Self::Running { .. } => "running",
            Self::Stopped(_) => "stopped",
            Self::SwitchIntent(_) => "switch-intent",
            Self::SwitchAbort { .. } => "switch-abort",
            Self::MigrateIntent(_) => "migrate-intent",
            Self::MigrateAbort { .. } => "migrate-abort",
            Self::Detached { .. } => "detached",
            Self::InSync { .. } => "in-sync",
            Self::DataAttested { .. } => "data-attested",
            Self::DataDiverged { .. } => "data-diverged",
            Self::PlanOpened { .. } => "plan-opened",
            Self::StepStarted { .. } => "step-started",
            Self::StepEnded { .. } => "step-ended",
            Self::PlanClosed { .. } => "plan-closed",
            Self::Approve { .. } => "approve",
            Self::Deny { .. } => "deny",
            Self::Freeze { .. } => "freeze",
            Self::Thaw { .. } => "thaw",
            Self::Maintenance { .. } => "maintenance",
            Self::MaintenanceEnded { .. } => "maintenance-ended",
            Self::Held { .. } => "held",
            Self::HoldEnded { .. } => "hold-ended",
            Self::Pin { .. } => "pin",
            Self::PinAcknowledged { .. } => "pin-acknowledged",
            Self::Unpin { .. } => "unpin",
            Self::BrakeSet { .. } => "brake-set",
            Self::BrakeReleased { .. } => "brake-released",
            Self::Override(_) => "override",
            Self::OverrideExpired { .. } => "override-expired",
            Self::AcceptLoss(_) => "accept-loss",
            Self::GroupRemoved { .. } => "group-removed",
            Self::HostRemoved { .. } => "host-removed",
            Self::Supports { .. } => "supports",
            Self::ClusterVersion { .. } => "cluster-version",
            Self::EraBegun(_) => "era-begun",
            Self::Audit { .. } => "audit",
        }
    }
}
