//! Lines about groups, their tickets and data, and about plans.

use super::args::{Args, epoch, generation, group, host, index, list, plan};
use super::people::{decision, initiator};
use super::world::World;
use quorum::id::{Generation, GroupName, HostName, IntentId, PlanId};
use quorum::ledger::{
    Command, CopyCheck, DataGate, Grant, GrantCause, Intent, LossMeasure, Plan, PlanKind, PlanOutcome, Step, StepKind,
    StepOutcome, Stopped, UnpinGround,
};
use std::time::Duration;

impl World {
    pub fn group_command(&self, args: &Args<'_>) -> Option<Command> {
        Some(match args.verb() {
            "created" => Command::GroupCreated {
                group: group(args.word(0)),
                source: host(args.get("source").unwrap_or("tk1")),
                by: decision(args),
            },
            "absent" => Command::Absent { group: group(args.word(0)), of: self.incarnation(args.word(1)) },
            "grant" => Command::Grant(self.grant(args)),
            "running" => {
                let group = group(args.word(0));
                Command::Running { epoch: self.epoch(&group, args), of: self.holder(&group, args), group }
            }
            "stopped" => Command::Stopped(self.stop(args)),
            "switch" => Command::SwitchIntent(self.intent(args)),
            "migrate" => Command::MigrateIntent(self.intent(args)),
            "switch-abort" => Command::SwitchAbort {
                group: group(args.word(0)),
                intent: IntentId(index(args.word(1)).0),
                because: "deadline".to_owned(),
            },
            "migrate-abort" => Command::MigrateAbort {
                group: group(args.word(0)),
                intent: IntentId(index(args.word(1)).0),
                because: "deadline".to_owned(),
            },
            "detached" | "in-sync" | "attested" | "diverged" => self.data(args),
            "pin" => {
                let group = group(args.word(0));
                Command::Pin { of: self.holder(&group, args), group, by: decision(args) }
            }
            "pin-ack" => {
                let group = group(args.word(0));
                Command::PinAcknowledged { of: self.holder(&group, args), group, sequence: args.number("sequence", 7) }
            }
            "unpin" => Command::Unpin {
                group: group(args.word(0)),
                ground: args.get("rearmed").map_or(UnpinGround::Proof, |of| UnpinGround::Rearmed {
                    of: self.incarnation(of),
                    sequence: args.number("sequence", 9),
                }),
                by: decision(args),
            },
            "remove-group" => Command::GroupRemoved { group: group(args.word(0)), by: decision(args) },
            _ => return None,
        })
    }

    /// `plan=newest`, or `plan=18`.
    fn plan_named(&self, args: &Args<'_>) -> Option<PlanId> {
        match args.get("plan")? {
            "newest" => self.ledger.plans().keys().next_back().copied(),
            named => Some(plan(named)),
        }
    }

    fn generation(&self, group: &GroupName, args: &Args<'_>) -> Generation {
        let current = self.ledger.group(group).map(|state| state.generation).unwrap_or_default();
        args.get("generation").map_or(current, generation)
    }

    fn grant(&self, args: &Args<'_>) -> Grant {
        let group = group(args.word(0));
        let next = self.ledger.next_epoch(&group).unwrap_or_default();
        let cause = match args.get("cause").unwrap_or("automatic") {
            "in-place" => GrantCause::InPlace,
            "automatic" => GrantCause::Automatic { waited: args.span("waited", Duration::from_secs(4)) },
            "operator" => GrantCause::Operator(decision(args)),
            "intent" => {
                let open = self.ledger.group(&group).and_then(|state| state.intent.as_ref());
                GrantCause::Intent(open.map(|intent| intent.id).unwrap_or_default())
            }
            intent => GrantCause::Intent(IntentId(index(intent.trim_start_matches("intent:")).0)),
        };
        Grant {
            to: self.incarnation(args.get("to").unwrap_or("os1")),
            epoch: args.get("epoch").map_or(next, epoch),
            gate: self.gate(&group, args),
            adopt: args.has("adopt"),
            cause,
            plan: self.plan_named(args),
            group,
        }
    }

    fn gate(&self, group: &GroupName, args: &Args<'_>) -> DataGate {
        let no_data = self.ledger.group_spec(group).is_some_and(|spec| spec.volumes.is_empty());
        let own = args.get("own").map_or(CopyCheck::Agrees, check);
        let generation = self.generation(group, args);
        match args.get("gate").unwrap_or(if no_data { "no-volumes" } else { "in-sync" }) {
            "no-volumes" => DataGate::NoVolumes,
            "in-sync" => DataGate::InSync { generation, own },
            "lagging" => DataGate::Lagging {
                generation,
                own,
                loss: LossMeasure {
                    lag: args.span("lag", Duration::from_secs(2)),
                    since_attested: args.span("since", Duration::from_secs(4)),
                    granted_after: args.get("granted-after").map(super::args::span),
                },
            },
            "accepted" => {
                let newest = self.ledger.losses().keys().next_back().copied().unwrap_or_default();
                DataGate::Accepted { acceptance: args.get("acceptance").map_or(newest, index), own }
            }
            other => panic!("gate {other:?}"),
        }
    }

    fn stop(&self, args: &Args<'_>) -> Stopped {
        let group = group(args.word(0));
        let open = self.ledger.group(&group).and_then(|state| state.intent.as_ref()).map(|intent| intent.id);
        let intent = match args.get("intent") {
            Some("none") => None,
            Some(named) => Some(IntentId(index(named).0)),
            None => open,
        };
        Stopped {
            epoch: self.epoch(&group, args),
            of: self.holder(&group, args),
            intent,
            generation: self.generation(&group, args),
            copies: hosts(args.get("copies").unwrap_or("os1")),
            group,
        }
    }

    fn intent(&self, args: &Args<'_>) -> Intent {
        let group = group(args.word(0));
        Intent {
            epoch: self.epoch(&group, args),
            from: self.holder(&group, args),
            to: self.incarnation(args.get("to").unwrap_or("os1")),
            deadline: Duration::from_secs(60),
            plan: self.plan_named(args),
            group,
        }
    }

    fn data(&self, args: &Args<'_>) -> Command {
        let group = group(args.word(0));
        let epoch = self.epoch(&group, args);
        let of = self.holder(&group, args);
        let copy = || host(args.get("copy").unwrap_or("os1"));
        let now = self.generation(&group, args);
        match args.verb() {
            "detached" => {
                let next = self.ledger.group(&group).map_or(Generation(1), |g| Generation(g.generation.0 + 1));
                let generation = args.get("generation").map_or(next, generation);
                Command::Detached { group, epoch, of, away: hosts(args.get("away").unwrap_or("os1")), generation }
            }
            "in-sync" => Command::InSync { group, epoch, of, copy: copy(), generation: now },
            "attested" => {
                let lag = args.span("lag", Duration::from_secs(2));
                Command::DataAttested { group, epoch, of, copy: copy(), generation: now, lag }
            }
            _ => Command::DataDiverged {
                group,
                copy: copy(),
                found: check(args.get("found").unwrap_or("diverged")),
                detail: "seen at promotion".to_owned(),
            },
        }
    }

    pub fn plan_command(&self, args: &Args<'_>) -> Option<Command> {
        let step = || u32::try_from(index(args.word(1)).0).expect("small");
        Some(match args.verb() {
            "plan" => Command::PlanOpened { plan: self.plan(args) },
            "step-start" => Command::StepStarted { plan: plan(args.word(0)), step: step(), executor: host("os1") },
            "step-end" => Command::StepEnded {
                plan: plan(args.word(0)),
                step: step(),
                attempt: u32::try_from(args.number("attempt", 1)).expect("small"),
                outcome: match args.word(2) {
                    "done" => StepOutcome::Done { detail: String::new() },
                    "failed" => StepOutcome::Failed { because: "no answer".to_owned() },
                    "timeout" => StepOutcome::TimedOut,
                    "undone" => StepOutcome::Undone,
                    "skipped" => StepOutcome::Skipped { by: decision(args) },
                    other => panic!("outcome {other:?}"),
                },
            },
            "plan-close" => Command::PlanClosed {
                plan: plan(args.word(0)),
                outcome: match args.word(1) {
                    "done" => PlanOutcome::Done { measured_rto: Some(Duration::from_secs(6)), measured_rpo: None },
                    "cancelled" => PlanOutcome::Cancelled { because: "asked".to_owned() },
                    "failed" => PlanOutcome::Failed { because: "no answer".to_owned(), next: "look".to_owned() },
                    other => panic!("outcome {other:?}"),
                },
            },
            _ => return None,
        })
    }

    fn plan(&self, args: &Args<'_>) -> Plan {
        let kind = plan_kind(args.word(0));
        let group = group(args.word(1));
        let usual = match kind {
            PlanKind::Failover => "await-evidence,grant,start",
            PlanKind::Switchover | PlanKind::Failback => "preflight,stop,grant,start",
            PlanKind::Migration => "migrate,grant,measure",
            PlanKind::Restart => "grant,start",
            PlanKind::Reprotect => "reverse,await-in-sync",
            PlanKind::Stop => "stop",
            PlanKind::Drill => "snapshot,probe,clean-up",
        };
        let step = |name: &str| Step { kind: step_kind(name), host: None, deadline: Duration::from_secs(60) };
        Plan {
            kind,
            epoch: self.epoch(&group, args),
            from: None,
            to: args.get("to").map(host),
            steps: list(args.get("steps").unwrap_or(usual)).into_iter().map(step).collect(),
            initiator: initiator(args),
            because: "asked".to_owned(),
            group,
        }
    }
}

fn hosts(text: &str) -> Vec<HostName> {
    list(text).into_iter().filter(|name| *name != "none").map(host).collect()
}

pub fn check(text: &str) -> CopyCheck {
    match text.split_once(':') {
        Some(("older", at)) => CopyCheck::Older(generation(at)),
        Some(_) | None => match text {
            "agrees" => CopyCheck::Agrees,
            "ahead" => CopyCheck::Ahead,
            "diverged" => CopyCheck::Diverged,
            other => panic!("check {other:?}"),
        },
    }
}

fn plan_kind(text: &str) -> PlanKind {
    match text {
        "failover" => PlanKind::Failover,
        "switchover" => PlanKind::Switchover,
        "failback" => PlanKind::Failback,
        "reprotect" => PlanKind::Reprotect,
        "migration" => PlanKind::Migration,
        "restart" => PlanKind::Restart,
        "stop" => PlanKind::Stop,
        "drill" => PlanKind::Drill,
        other => panic!("plan {other:?}"),
    }
}

fn step_kind(text: &str) -> StepKind {
    match text {
        "preflight" => StepKind::Preflight,
        "await-evidence" => StepKind::AwaitEvidence,
        "await-approval" => StepKind::AwaitApproval,
        "stop" => StepKind::Stop,
        "grant" => StepKind::Grant,
        "promote" => StepKind::Promote,
        "start" => StepKind::Start,
        "probe" => StepKind::Probe,
        "reverse" => StepKind::Reverse,
        "await-in-sync" => StepKind::AwaitInSync,
        "migrate" => StepKind::Migrate,
        "snapshot" => StepKind::Snapshot,
        "clean-up" => StepKind::CleanUp,
        "measure" => StepKind::Measure,
        other => panic!("step {other:?}"),
    }
}
