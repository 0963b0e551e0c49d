//! What people ask for: from a request to proposals, and the answer once the ledger decided.

use super::core::Engine;
use super::effect::Effect;
use super::fence_order::{FenceAct, FenceDecision};
use super::fence_view::FenceView;
use super::look::{ChainDocument, CheckDocument, PlansDocument, SpecDocument};
use super::membership::MemberOrder;
use super::orders::{Order, Scope};
use super::status::StatusDocument;
use crate::config::{check_spec, ledger_spec, timing_of};
use quorum::id::{Era, GroupName, HostName, LogIndex, VoterId};
use quorum::ledger::{Applied, Bootstrap, Command, Decision, Entry, Initiator, Person, Plan, PlanKind, SetSpec};
use quorum::moment::Moment;
use quorum::replica::TransferError;
use quorum::timing::Timing;
use std::time::Duration;

/// A request that isn't decided after this is answered as undecided; what was proposed may still take effect.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What a person asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// How does everything stand?
    Status,
    /// Which time spans are in force?
    Timing,
    /// Which plans are and were there?
    Plans,
    /// Which spec is in force?
    Spec,
    /// Where does the audit chain end?
    Chain,
    /// Put this cluster spec into force, or only say what it would change.
    Apply {
        /// The spec as written.
        source: String,
        /// Only check.
        dry_run: bool,
        /// Why.
        reason: String,
    },
    /// One command of the ledger, made by the admin layer.
    Command(Box<Command>),
    /// An order by name.
    Order {
        /// What.
        order: Order,
        /// Why.
        reason: String,
    },
    /// How does fencing stand, by the log?
    FenceStatus,
    /// Fence, vouch, or call off; or only say what that would come to.
    Fence {
        /// A host or a site.
        scope: Scope,
        /// What.
        act: FenceAct,
        /// Why.
        reason: String,
        /// Only say.
        dry_run: bool,
    },
    /// Move a group.
    Move(Move),
    /// Hand the leadership over.
    Transfer(VoterId),
    /// The ledger as it stands here, to be kept outside the cluster.
    Backup,
    /// The ledger as it stands here and who is heard, to be played elsewhere.
    Live,
    /// Change the voters.
    Members {
        /// How.
        order: MemberOrder,
        /// Why.
        reason: String,
    },
}

/// A planned move or a failover by hand.
#[derive(Clone, Debug)]
pub struct Move {
    /// Failover, switchover, failback or reprotect.
    pub kind: PlanKind,
    /// Which group.
    pub group: GroupName,
    /// Where to, as a host or a site; chosen if absent.
    pub toward: Option<String>,
    /// The host that this comes to.
    pub to: Option<HostName>,
    /// Why.
    pub reason: String,
    /// Only say what would be done.
    pub dry_run: bool,
    /// The person accepts what the target's copy lacks: recorded before anything is moved.
    pub accept_loss: bool,
}

/// What a person is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It took effect at this index.
    Done {
        /// Where in the log; zero if nothing had to be logged.
        index: LogIndex,
        /// What became so, for people.
        detail: String,
    },
    /// A safety rule or a check refused it. Nothing changed.
    Refused {
        /// The rule's stable name.
        code: &'static str,
        /// Which and why.
        because: String,
        /// What it means for the workload.
        workload: &'static str,
        /// The next command.
        next: String,
    },
    /// No quorum decided in time. It may still take effect.
    Undecided {
        /// Why.
        because: String,
    },
    /// It is in the log and waits for people.
    Waits {
        /// Where in the log; its number.
        index: LogIndex,
        /// For whom.
        because: String,
        /// What they say.
        next: String,
    },
    /// What an order about fencing would come to.
    FenceDecision(Box<FenceDecision>),
    /// Fencing by the log.
    Fencing(Box<FenceView>),
    /// As asked.
    Status(Box<StatusDocument>),
    /// The time spans in force here.
    Timing(Box<Timing>),
    /// The plans.
    Plans(Box<PlansDocument>),
    /// The spec in force.
    Spec(Box<SpecDocument>),
    /// The end of the audit chain.
    Chain(Box<ChainDocument>),
    /// What a spec has wrong with it, and what it would change.
    Checked(Box<CheckDocument>),
    /// The ledger, and what this agent sees of the hosts in it.
    Live {
        /// The cluster's name.
        cluster: String,
        /// Up to which entry.
        index: LogIndex,
        /// The ledger, encoded.
        ledger: Vec<u8>,
        /// Hosts that are heard now.
        heard: Vec<HostName>,
        /// Hosts that no fence device could prove off now.
        unfenceable: Vec<HostName>,
    },
    /// The ledger, as `quorum restore` reads it.
    Backup {
        /// Up to which entry.
        index: LogIndex,
        /// In which era.
        era: Era,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// A person who waits for a proposal's outcome.
pub(super) struct Waiting {
    ticket: u64,
    until: Moment,
}

impl Engine {
    pub(super) fn on_request(&mut self, ticket: u64, by: Person, request: Request) {
        match request {
            Request::Status => {
                let status = Box::new(self.status());
                self.answer(ticket, Answer::Status(status));
            }
            Request::Timing => self.answer(ticket, Answer::Timing(Box::new(self.timing.clone()))),
            Request::Plans => self.answer(ticket, Answer::Plans(Box::new(self.plans_document()))),
            Request::Spec => self.answer(ticket, Answer::Spec(Box::new(self.spec_document()))),
            Request::Chain => self.answer(ticket, Answer::Chain(Box::new(self.chain_document()))),
            Request::Apply { source, dry_run, reason } => self.on_apply(ticket, by, (source, dry_run, reason)),
            Request::Command(command) => self.ask(ticket, *command),
            Request::Order { order, reason } => {
                self.on_order(ticket, order, Decision { by, reason, shown: String::new() })
            }
            Request::FenceStatus => {
                let view = Box::new(self.fence_view());
                self.answer(ticket, Answer::Fencing(view));
            }
            Request::Fence { scope, act, reason, dry_run } => {
                let by = Decision { by, reason, shown: String::new() };
                self.on_fence_order(ticket, by, (&scope, act, dry_run));
            }
            Request::Move(wanted) => self.on_move(ticket, by, wanted),
            Request::Transfer(to) => self.on_transfer(ticket, by, to),
            Request::Backup => self.on_backup(ticket),
            Request::Live => self.on_live(ticket),
            Request::Members { order, reason } => {
                self.on_member_order(ticket, order, Decision { by, reason, shown: String::new() });
            }
        }
    }

    pub(super) fn answer(&mut self, ticket: u64, answer: Answer) {
        self.effects.push(Effect::Answer { ticket, answer: Box::new(answer) });
    }

    pub(super) fn refuse(&mut self, ticket: u64, because: impl Into<String>, next: impl Into<String>) {
        let (because, next) = (because.into(), next.into());
        let workload = "nothing changes for any workload";
        self.answer(ticket, Answer::Refused { code: "request-refused", because, workload, next });
    }

    /// Proposes, and answers once the outcome is applied here.
    pub(super) fn ask(&mut self, ticket: u64, command: Command) {
        let until = self.now.moment.plus(PATIENCE);
        match self.propose_until(command, Some(until)) {
            Some(key) => {
                self.waiting.insert(key, Waiting { ticket, until });
            }
            None => self.answer(ticket, Answer::Undecided { because: "too many proposals are under way".into() }),
        }
    }

    pub(super) fn answer_waiting(&mut self, entry: &Entry, index: LogIndex, applied: &Applied) {
        let Some(waiting) = self.waiting.remove(&entry.key) else { return };
        let answer = match &applied.outcome {
            Ok(()) if self.ledger.overrides().contains_key(&index) => Answer::Waits {
                index,
                because: "one more person has to agree, with another key".to_owned(),
                next: format!("antipode approve override {index}"),
            },
            Ok(()) => {
                let what = match &entry.command {
                    Command::Audit { action, detail, .. } => format!("{action} {detail}"),
                    other => other.name().to_owned(),
                };
                Answer::Done { index, detail: format!("{what} took effect") }
            }
            Err(refusal) => Answer::Refused {
                code: refusal.code(),
                because: refusal.text(),
                workload: refusal.workload(),
                next: refusal.next(),
            },
        };
        self.answer(waiting.ticket, answer);
    }

    /// Tells those who waited too long.
    pub(super) fn answer_late(&mut self) {
        let now = self.now.moment;
        let late: Vec<_> =
            self.waiting.iter().filter(|(_, w)| now.either_reached(w.until)).map(|(key, w)| (*key, w.ticket)).collect();
        for (key, ticket) in late {
            self.waiting.remove(&key);
            let because = match self.leader() {
                Some(leader) => format!("the leader {leader} did not commit it in time"),
                None => "no leader is known: the majority of voters may be unreachable".to_owned(),
            };
            self.answer(ticket, Answer::Undecided { because });
        }
    }

    fn on_apply(&mut self, ticket: u64, by: Person, (source, dry_run, reason): (String, bool, String)) {
        let checked = check_spec("the spec", &source, Some(&self.ledger));
        let document = self.check_document(&checked, &source);
        let spec = match checked.spec {
            Some(spec) if document.problems.is_empty() && !dry_run => spec,
            Some(_) | None => return self.answer(ticket, Answer::Checked(Box::new(document))),
        };
        let timing = timing_of(&spec);
        let revision = document.revision;
        let by = Decision { by, reason, shown: String::new() };
        if self.ledger.cluster().is_none() {
            let Ok(cluster) = spec.cluster.name.parse() else {
                return self.refuse(ticket, "cluster.name is no name", "use a-z, 0-9, '-', '_' and '.'");
            };
            let bootstrap = Bootstrap { cluster, lab: spec.cluster.lab, timing, by: by.clone() };
            self.propose(Command::Bootstrap(bootstrap));
        } else if self.ledger.timing() != Some(&timing) {
            self.propose(Command::SetTiming { timing, by: by.clone() });
        }
        let spec = ledger_spec(&spec);
        self.ask(ticket, Command::SetSpec(SetSpec { revision, spec, source, by }));
    }

    fn on_order(&mut self, ticket: u64, order: Order, by: Decision) {
        if let Order::Unpin { group } = &order
            && self.unties_here(group)
        {
            return self.begin_untying(ticket, group.clone(), by);
        }
        if let Order::ReadmitHost { host } = &order {
            return self.on_readmit(ticket, host, by);
        }
        match self.commands_for(order, by) {
            Err(because) => self.refuse(ticket, because, "antipode status shows what there is"),
            Ok(mut commands) => {
                let last = commands.pop().expect("an order is at least one command");
                for command in commands {
                    self.propose(command);
                }
                self.ask(ticket, last);
            }
        }
    }

    /// The host that a person means: itself, or the first one of a site that is admitted.
    fn host_meant(&self, group: &GroupName, toward: &str) -> Result<HostName, String> {
        let place = self.ledger.group_spec(group).and_then(|spec| {
            spec.places.iter().find(|(site, _)| site.as_str() == toward).map(|(_, place)| &place.hosts)
        });
        match place {
            Some(hosts) => hosts
                .iter()
                .find(|host| self.ledger.admitted(host).is_some())
                .cloned()
                .ok_or_else(|| format!("no host of {toward} that could run {group} is admitted")),
            None => HostName::new(toward).map_err(|error| error.to_string()),
        }
    }

    fn on_move(&mut self, ticket: u64, by: Person, mut wanted: Move) {
        if let Some(toward) = &wanted.toward {
            match self.host_meant(&wanted.group, toward) {
                Ok(host) => wanted.to = Some(host),
                Err(because) => return self.refuse(ticket, because, "antipode status lists sites and hosts"),
            }
        }
        if wanted.accept_loss && wanted.kind == PlanKind::Failover && !wanted.dry_run {
            return self.accept_loss(ticket, by, wanted);
        }
        let initiator = Initiator::Person(Decision { by, reason: wanted.reason.clone(), shown: String::new() });
        let plan = self.plan_for(&wanted, initiator);
        match plan {
            Err(because) => self.refuse(ticket, because, "antipode explain group shows its gates"),
            Ok(plan) if wanted.dry_run => {
                self.answer(ticket, Answer::Done { index: LogIndex(0), detail: describe(&plan) });
            }
            Ok(plan) => self.ask(ticket, Command::PlanOpened { plan }),
        }
    }

    fn on_backup(&mut self, ticket: u64) {
        let name = self.ledger.cluster().map(|cluster| cluster.name.to_string());
        let Some(name) = name else {
            return self.refuse(ticket, "there is no cluster yet", "antipode apply");
        };
        match super::recover::backup(&name, &self.ledger) {
            Ok(bytes) => {
                let (index, era) = (self.ledger.applied(), self.ledger.era());
                self.answer(ticket, Answer::Backup { index, era, bytes });
            }
            Err(error) => self.refuse(ticket, error.to_string(), "antipode bundle"),
        }
    }

    /// Nothing is proposed: what is played elsewhere leaves no trace here.
    fn on_live(&mut self, ticket: u64) {
        let Some(cluster) = self.ledger.cluster().map(|cluster| cluster.name.to_string()) else {
            return self.refuse(ticket, "there is no cluster yet", "antipode apply");
        };
        let hosts = || self.ledger.spec().hosts.keys();
        let is_proven = |host: &HostName| {
            let fresh = |age: u32| Duration::from_millis(u64::from(age)) <= super::fence_proof::PROBED_WITHIN;
            self.prospects_of(host).iter().any(|(_, prospect)| prospect.proven_ms_ago.is_some_and(fresh))
        };
        let heard = hosts().filter(|host| self.is_alive(host)).cloned().collect();
        let unfenceable = hosts().filter(|host| !is_proven(host)).cloned().collect();
        match super::log::encode_ledger(&self.ledger) {
            Ok(ledger) => {
                let index = self.ledger.applied();
                self.answer(ticket, Answer::Live { cluster, index, ledger, heard, unfenceable });
            }
            Err(error) => self.refuse(ticket, error.to_string(), "antipode bundle"),
        }
    }

    fn on_transfer(&mut self, ticket: u64, by: Person, to: VoterId) {
        let result = self.voting.as_mut().map(|voting| voting.replica.transfer_leader(to));
        match result {
            Some(Ok(())) => {
                let (action, detail) = ("quorum transfer".to_owned(), format!("to voter {to}"));
                let by = Decision { by, reason: String::new(), shown: String::new() };
                self.propose(Command::Audit { action, detail, by });
                let detail = format!("voter {to} was asked to take over");
                self.answer(ticket, Answer::Done { index: LogIndex(0), detail });
            }
            Some(Err(TransferError::AlreadyLeads(_))) => {
                let detail = format!("{} already leads: nothing was done", self.me.host);
                self.answer(ticket, Answer::Done { index: LogIndex(0), detail });
            }
            Some(Err(error)) => self.refuse(ticket, error.to_string(), "ask the leader: antipode quorum status"),
            None => self.refuse(ticket, "this host does not vote", "ask a voter: antipode quorum status"),
        }
    }
}

fn describe(plan: &Plan) -> String {
    let steps: Vec<String> = plan
        .steps
        .iter()
        .map(|step| match &step.host {
            Some(host) => format!("{:?} at {host} (at most {} s)", step.kind, step.deadline.as_secs()),
            None => format!("{:?} (at most {} s)", step.kind, step.deadline.as_secs()),
        })
        .collect();
    let to = plan.to.as_ref().map(|host| format!(" to {host}")).unwrap_or_default();
    format!("{} of {}{to}: {}", plan.kind.as_str(), plan.group, steps.join(", "))
}
