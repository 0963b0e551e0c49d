//! Why a command changed nothing: one variant for each rule, each with what it means and what a person can do.
//!
//! Contract: a refusal is an ordinary outcome of `apply`, equal on every replica. Its [`Refusal::code`] is stable and
//! is what metrics, coverage tables and exit codes go by; the text is for people and may change.
//! Text reads "refused: {text}; {workload}; {next}".

use super::command::{CopyCheck, FreezeScope};
use super::evidence::{Class, Incarnation};
use super::spec::Tier;
use super::spec_check::SpecProblems;
use crate::id::{
    DeviceName, Epoch, Era, Generation, GroupName, HostName, IntentId, LogIndex, PlanId, SiteName, TaskId, VoterId,
};
use crate::roster::ConfigId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

macro_rules! refusals {
    ($($name:ident { $($field:ident: $type:ty),* } $code:literal: $text:literal; $workload:literal; $next:literal.)*) => {
        /// Why a command was refused. Nothing changed.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "the variant's text says what it is; its fields are the words in that text")]
        pub enum Refusal {
            $(
                #[doc = $text]
                $name { $($field: $type),* },
            )*
        }

        impl Refusal {
            /// Every code, in the order of declaration.
            pub const CODES: &'static [&'static str] = &[$($code),*];

            /// The stable name of the rule that refused.
            pub const fn code(&self) -> &'static str {
                match self { $(Self::$name { .. } => $code),* }
            }

            /// What is the matter.
            pub fn text(&self) -> String {
                match self { $(Self::$name { $($field),* } => { $(let _ = $field;)* format!($text) }),* }
            }

            /// What it means for the workload.
            pub const fn workload(&self) -> &'static str {
                match self { $(Self::$name { .. } => $workload),* }
            }

            /// What to do next.
            pub fn next(&self) -> String {
                match self { $(Self::$name { $($field),* } => { $(let _ = $field;)* format!($next) }),* }
            }
        }
    };
}

refusals! {
    // Cluster and log.
    NotBootstrapped {} "not-bootstrapped":
        "the cluster doesn't exist yet"; "nothing is protected"; "create it with `antipode apply` and its spec".
    AlreadyBootstrapped {} "already-bootstrapped":
        "the cluster exists already"; "nothing changes for it"; "join it instead, or wipe the data directory of a machine that belongs to no cluster".
    WrongEra { entry: Era, now: Era } "wrong-era":
        "the entry is of era {entry}, the cluster is in era {now}"; "what an older era decided binds nobody"; "wipe the machine that still proposes in era {entry}".
    Duplicate { first: LogIndex } "duplicate":
        "the same proposal took effect at index {first}"; "nothing is lost: it took effect once"; "nothing to do".
    TimingTooWeak { violations: String } "timing-too-weak":
        "the time spans break: {violations}"; "the spans in force stay"; "see `antipode config timing` for spans that fit".
    SpecRevisionNotNext { asked: u64, next: u64 } "spec-revision-not-next":
        "revision {asked} isn't the next one ({next})"; "the spec in force stays"; "somebody else changed it: look with `antipode config show` and apply again".
    SpecInvalid { problems: SpecProblems } "spec-invalid":
        "the spec can't be kept: {problems}"; "the spec in force stays"; "`antipode config check` lists every problem with its remedy".

    // Admission.
    UnknownHost { host: HostName } "unknown-host":
        "the spec has no host {host}"; "it can run nothing"; "add it to the spec and `antipode apply`".
    HostEpochNotNext { of: Incarnation, next: crate::id::HostEpoch } "host-epoch-not-next":
        "{of} isn't the next admission of its host, that is {next}"; "the host stays as it was"; "nothing to do: the leader proposes again".
    StillAdmitted { of: Incarnation } "still-admitted":
        "{of} is neither lost nor retired"; "it keeps its workloads"; "if it can't do any harm any more, `antipode fence run` it or let it return".
    AdmissionUncovered { of: Incarnation, group: GroupName } "admission-uncovered":
        "nothing proves yet that {group} is gone from {of}"; "the host stays held, {group} stays where it is"; "`antipode explain host {of}` says which evidence is missing".
    FenceTaskUnfinished { task: TaskId, host: HostName } "fence-task-unfinished":
        "fence task {task} could still strike {host}"; "the host stays held so that it isn't shot after its return"; "wait for the executor, or for the task's deadline and 10 s".
    WrongHardware { host: HostName } "wrong-hardware":
        "another machine answers under the name {host}"; "it can run nothing"; "if the machine was replaced, change `hardware` in the spec".
    WatchdogMissing { of: Incarnation, class: Class } "watchdog-missing":
        "{of} claims class {class} without an attested watchdog"; "the host isn't admitted"; "run `antipode doctor` there: a condition of the class fails".
    WatchdogSlower { of: Incarnation, worst: Duration, allowed: Duration } "watchdog-slower":
        "the watchdog of {of} takes up to {worst:?}, the cluster counts on {allowed:?}"; "the host isn't admitted"; "raise the watchdog time in the spec, or admit it as class D".
    LabOnly { what: String } "lab-only":
        "{what} is a process of a lab, and this cluster isn't one"; "it proves nothing here"; "use real devices, or create the cluster with `--lab`".
    HostStillAdmitted { host: HostName } "host-still-admitted":
        "{host} is admitted"; "it keeps its workloads"; "stop its agent or `antipode fence run` it, then remove it".
    HostInUse { host: HostName, group: GroupName } "host-in-use":
        "{host} may still own {group}"; "nothing changes for {group}"; "move {group} away first (`antipode switchover`), or prove the host harmless".
    HostIsVoter { host: HostName } "host-is-voter":
        "{host} votes"; "the quorum stays as it is"; "`antipode quorum remove` it first".

    // Loss and retirement.
    NoHosts {} "no-hosts":
        "nobody is named"; "nothing changes"; "name the hosts".
    TooManyHosts { limit: u32 } "too-many-hosts":
        "more than {limit} hosts are named at once"; "nothing changes"; "name them in parts".
    NotCurrent { of: Incarnation } "not-current":
        "{of} isn't the current admission of its host"; "what was said about an older one binds nobody"; "nothing to do".
    AlreadyLost { of: Incarnation } "already-lost":
        "{of} is lost or retired already"; "nothing changes"; "nothing to do".
    ReportFromStranger { voter: VoterId } "report-from-stranger":
        "voter {voter} isn't a voter here"; "nothing is declared"; "nothing to do: the leader asks again".
    ReportTwice { voter: VoterId } "report-twice":
        "voter {voter} is counted twice"; "nothing is declared"; "nothing to do: the leader asks again".
    ReportStale { voter: VoterId, age: Duration, limit: Duration } "report-stale":
        "the report of voter {voter} is {age:?} old, at most {limit:?} counts"; "nothing is declared"; "nothing to do: the leader asks again".
    StillHeard { voter: VoterId } "still-heard":
        "healthy voter {voter} still hears them"; "a cut link is no loss: everything stays where it is"; "look at the link: `antipode status` shows the paths".
    InsiderUnsure { voter: VoterId } "insider-unsure":
        "voter {voter} of the suspected site lives and can't say that its hosts don't"; "nothing is declared"; "look at that voter: `antipode explain`".
    TooFewReports { have: u32 } "too-few-reports":
        "the {have} voters that suspect are no majority"; "nothing is declared"; "see `antipode status` for voters that can't be reached or abstain".
    TooFewDomains { have: u32 } "too-few-domains":
        "the voters that suspect are in {have} other failure domains, it takes 2"; "nothing is declared automatically"; "`antipode failover` if you know that the site is lost".
    SiteIncomplete { site: SiteName, host: HostName } "site-incomplete":
        "{host} of {site} isn't among them"; "nothing is declared"; "nothing to do: the leader declares single hosts instead".
    NotOfSite { site: SiteName, host: HostName } "not-of-site":
        "{host} isn't of {site}"; "nothing is declared"; "nothing to do".
    Frozen { freeze: LogIndex, scope: FreezeScope } "frozen":
        "frozen at index {freeze} ({scope})"; "nothing new is declared or begun; what runs goes on"; "`antipode thaw` when the work is over".
    InMaintenance { host: HostName } "in-maintenance":
        "{host} is in maintenance"; "it is neither declared lost automatically nor given anything new"; "`antipode maintenance end`, or declare it yourself with `antipode failover`".
    BrakeOn { because: String } "brake-on":
        "the brake is set: {because}"; "fencing goes on, nothing is activated automatically"; "look at what was lost, then `antipode brake release`".
    RetireUnfounded { of: Incarnation } "retire-unfounded":
        "nothing shows that {of} is over: same boot, same keeper"; "it keeps its workloads"; "nothing to do".
    NonceTooOld { of: Incarnation } "nonce-too-old":
        "the answer was asked for before {of} was admitted"; "a late hello of an older boot proves nothing"; "nothing to do: the leader asks again".

    // Lease evidence.
    LeaseNotEnded { of: Incarnation } "lease-not-ended":
        "{of} is neither lost nor retired, its lease goes on"; "nothing changes"; "nothing to do".
    ExpiredOldConfig { config: ConfigId, now: ConfigId } "expired-old-config":
        "the voter counted under configuration {config}, in force is {now}"; "the lease wait starts again for this voter"; "nothing to do: it is proposed again".
    ExpiredFromStranger { voter: VoterId } "expired-from-stranger":
        "voter {voter} isn't a voter here"; "nothing changes"; "nothing to do".
    ExpiredTwice { voter: VoterId } "expired-twice":
        "voter {voter} was counted already"; "nothing changes"; "nothing to do".
    LeaseOfOlderEra { of: Incarnation } "lease-of-older-era":
        "voters of this era never granted to {of}"; "a lease of an older era proves nothing"; "power it off, let it return, or `antipode fence override`".

    // Other evidence.
    EvidenceTooEarly { of: Incarnation } "evidence-too-early":
        "{of} is neither lost nor retired in the log"; "it may still be granted to, so nothing is proven"; "nothing to do: it is proposed again after the declaration".
    EvidenceNotNeeded { of: Incarnation } "evidence-not-needed":
        "no group may still be on {of}"; "nothing changes"; "nothing to do".
    EvidenceKnown { of: Incarnation } "evidence-known":
        "the same is known of {of} already"; "nothing changes"; "nothing to do".
    UnknownDevice { device: DeviceName } "unknown-device":
        "the spec doesn't name {device} for this host"; "its word proves nothing"; "add it to the host's `fencing`".
    WrongTarget { device: DeviceName } "wrong-target":
        "{device} answered for another machine than the target"; "its word proves nothing"; "check the address and serial of {device} at once: it would fence the wrong machine".
    ReadOnce { device: DeviceName } "read-once":
        "{device} was read \"off\" only once"; "nothing is proven yet"; "nothing to do: it is read again".
    ReadsTooClose { device: DeviceName, apart: Duration, settle: Duration } "reads-too-close":
        "{device} was read twice within {apart:?}, it must settle for {settle:?}"; "nothing is proven yet"; "nothing to do: it is read again".
    LevelIncomplete { host: HostName } "level-incomplete":
        "no fencing level of {host} is off as a whole"; "one feed of two proves nothing"; "look at the devices of the level: `antipode fence status`".
    ReleasedOtherBoot { of: Incarnation } "released-other-boot":
        "the keeper attests for another boot than {of}'s"; "nothing is proven by that"; "nothing to do: a reboot proves it by returning".
    ReleasedOtherKeeper { of: Incarnation } "released-other-keeper":
        "another keeper than the one admitted attests for {of}, which isn't ended"; "nothing is proven by that"; "nothing to do: it is retired first".
    ReleasedOtherEpoch { of: Incarnation } "released-other-epoch":
        "the keeper's record was for another admission than {of}"; "nothing is proven by that"; "nothing to do".
    ReturnedSameBoot { of: Incarnation } "returned-same-boot":
        "the answer comes from the very boot of {of}"; "it never went away"; "nothing to do".
    RemnantFound { of: Incarnation, group: GroupName } "remnant-found":
        "something of {group} is still on {of}"; "{group} starts nowhere else"; "stop it there; `antipode explain host` names what was found".
    KeeperArmed { of: Incarnation } "keeper-armed":
        "the answering boot was armed in an era that this ledger doesn't know"; "it may have run what is asked about"; "reboot the machine, or `antipode fence override`".
    HypervisorUnsure { of: Incarnation, what: String } "hypervisor-unsure":
        "the hypervisor's word on {of} isn't final: {what}"; "the VM could start again"; "nothing to do: it is tried again; `antipode fence status` shows why".
    NotAVm { group: GroupName, host: HostName } "not-a-vm":
        "{group} isn't a VM on {host}"; "a hypervisor's word proves nothing about it"; "use another fencing level".
    ExclusionUnsure { of: Incarnation, what: String } "exclusion-unsure":
        "the exclusion of {of} isn't proven: {what}"; "it may still write"; "nothing to do: it is tried again; `antipode fence status` shows why".
    NothingExcluded { of: Incarnation } "nothing-excluded":
        "no group has all its volumes among those from which {of} was excluded"; "nothing is proven by that"; "exclude it from every volume of the group".

    // Fence tasks.
    TaskUnknown { task: TaskId } "task-unknown":
        "there is no fence task {task}"; "nothing changes"; "nothing to do".
    TaskOver { task: TaskId } "task-over":
        "fence task {task} is cancelled or over"; "nobody may act on it any more"; "nothing to do".
    TaskNotCancelled { task: TaskId } "task-not-cancelled":
        "fence task {task} isn't cancelled"; "an executor may still act on it"; "cancel it first".
    TaskDeadlineRuns { task: TaskId, waited: Duration, needed: Duration } "task-deadline-runs":
        "an executor of task {task} may still act: {waited:?} of {needed:?} passed"; "the host stays held a little longer"; "wait".
    ExecutorUnfit { executor: HostName } "executor-unfit":
        "{executor} isn't admitted, or is what is to be fenced"; "it may not fence"; "nothing to do: another one takes it".
    ExecutorNotStarted { task: TaskId, executor: HostName } "executor-not-started":
        "{executor} didn't take up task {task}"; "nothing changes"; "nothing to do".
    NotLost { of: Incarnation } "not-lost":
        "{of} isn't declared lost"; "only what is lost is fenced"; "`antipode fence run` declares it first".

    // Groups.
    UnknownGroup { group: GroupName } "unknown-group":
        "there is no group {group}"; "nothing changes"; "add it to the spec and `antipode apply`".
    GroupExists { group: GroupName } "group-exists":
        "{group} exists already"; "nothing changes for it"; "nothing to do".
    GroupInUse { group: GroupName, owner: Incarnation } "group-in-use":
        "{owner} may still run {group}"; "{group} goes on"; "stop it (`antipode plan`), or prove that host harmless".
    NotAPlace { group: GroupName, host: HostName } "not-a-place":
        "{host} isn't a place of {group}"; "{group} stays where it is"; "add it under [group.at] and `antipode apply`".
    AbsentNotAsked { group: GroupName, host: HostName } "absent-not-asked":
        "{host} was not asked about {group}"; "nothing changes"; "nothing to do".
    EpochNotNext { group: GroupName, asked: Epoch, next: Epoch } "epoch-not-next":
        "epoch {asked} isn't the next one of {group} ({next})"; "somebody else decided meanwhile: that stands"; "nothing to do: the leader looks again".
    EpochStale { group: GroupName, said: Epoch, now: Epoch } "epoch-stale":
        "{group} is at epoch {now}, not {said}"; "what was said about an older one does nothing"; "nothing to do".
    NotOwner { group: GroupName, of: Incarnation } "not-owner":
        "{of} doesn't own {group}"; "nothing changes"; "nothing to do".
    OwnerEnded { group: GroupName, of: Incarnation } "owner-ended":
        "{of} is lost or retired"; "what it says about {group} no longer counts"; "nothing to do".
    AlreadyStopped { group: GroupName } "already-stopped":
        "{group} was stopped under this epoch"; "it needs a new grant to run"; "`antipode switchover` or wait for the leader".
    TargetNotAdmitted { of: Incarnation } "target-not-admitted":
        "{of} isn't admitted, or is lost or retired"; "it can be given nothing"; "`antipode explain host` says what it waits for".
    TargetNotAbsent { group: GroupName, host: HostName } "target-not-absent":
        "{host} didn't say yet that nothing of {group} runs there"; "{group} stays where it is"; "wait for its agent, or `antipode fence override` its absence".
    OwnerUnproven { group: GroupName, owner: Incarnation, why: String } "owner-unproven":
        "nothing proves that {owner} no longer runs {group}: {why}"; "{group} starts nowhere else"; "`antipode explain group {group}`, `antipode fence status`".
    Pinned { group: GroupName, of: Incarnation } "pinned":
        "{group} is pinned to {of}"; "it stays there whatever happens"; "`antipode thaw` the pin when the work is over".
    TargetHeld { host: HostName, because: String } "target-held":
        "{host} is held: {because}"; "it gets nothing new automatically"; "`antipode switchover --to` it yourself, or wait".
    TierAsks { group: GroupName, tier: Tier } "tier-asks":
        "{group} is of tier {tier:?}"; "it waits for a person"; "`antipode approve` its plan, or `antipode failover {group}`".
    HoldOffRuns { group: GroupName, waited: Duration, needed: Duration } "hold-off-runs":
        "{group} waits {needed:?} after a loss, {waited:?} passed"; "it may still come back where it was"; "wait, or `antipode failover {group}`".
    ActivationHeld { freeze: LogIndex, scope: FreezeScope } "activation-held":
        "activation is held by the freeze at index {freeze} ({scope})"; "the group stays down"; "`antipode thaw`".
    NotInPlace { group: GroupName, host: HostName } "not-in-place":
        "{host} didn't own {group} last"; "a move needs the permission of a move"; "nothing to do: the leader looks again".
    GrantNeedsPlan { group: GroupName } "grant-needs-plan":
        "no plan that was begun before the freeze moves {group}"; "nothing new begins while frozen"; "`antipode thaw`".
    PlanMismatch { plan: PlanId, group: GroupName } "plan-mismatch":
        "plan {plan} isn't an open plan that moves {group} there"; "nothing changes"; "`antipode plan show {plan}`".
    Parked { group: GroupName } "parked":
        "a person stopped {group} for good"; "it stays down"; "`antipode failover {group}` or `antipode switchover {group}` brings it up".
    AdoptOnlySource { group: GroupName } "adopt-only-source":
        "only the source of a newborn {group} can be adopted"; "nothing changes"; "grant it without adoption".

    // Intents.
    IntentNotOpen { group: GroupName, intent: IntentId } "intent-not-open":
        "intent {intent} of {group} isn't open here"; "what was done under it doesn't count; the owner keeps {group}"; "nothing to do".
    IntentIsOpen { group: GroupName, intent: IntentId } "intent-is-open":
        "{group} is on its way already (intent {intent})"; "one move at a time"; "wait for it or `antipode plan cancel` it".
    MoveToItself { group: GroupName, host: HostName } "move-to-itself":
        "{group} is on {host} already"; "nothing changes"; "nothing to do".
    MigrationTargetUnproven { group: GroupName, of: Incarnation } "migration-target-unproven":
        "nothing proves that the copy of {group} coming in at {of} is gone"; "{group} goes on where it is, and moves nowhere else"; "wait for that host's agent, or prove it harmless".

    // Data.
    HasVolumes { group: GroupName } "has-volumes":
        "{group} has data"; "it needs a copy that is good enough"; "nothing to do: the leader looks again".
    OtherGeneration { group: GroupName, said: Generation, expected: Generation } "other-generation":
        "generation {said} of {group} was said, {expected} is expected"; "{group} isn't activated on a copy that was left behind"; "`antipode explain group {group}` names the good copies".
    NotInSync { group: GroupName, host: HostName } "not-in-sync":
        "the copy of {group} on {host} isn't known to have everything"; "{group} is held rather than losing data"; "bring a good copy back, or `antipode failover {group} --accept-loss`".
    CopyDisagrees { group: GroupName, own: CopyCheck } "copy-disagrees":
        "the target's own check of {group} says {own:?}"; "{group} is held; if ahead or diverged, two sides may have written"; "look at both copies before `antipode failover {group} --accept-loss`".
    NotAttested { group: GroupName, host: HostName } "not-attested":
        "nothing is known of the lag of {group} on {host} at this generation"; "{group} is held rather than losing data"; "bring a good copy back, or `antipode failover {group} --accept-loss`".
    LossTooLarge { group: GroupName, expected_loss: Duration, target_rpo: Duration } "loss-too-large":
        "activating {group} would lose up to {expected_loss:?}, its target is {target_rpo:?}"; "{group} is held"; "bring the better copy back, or `antipode failover {group} --accept-loss`".
    LossNotAccepted { group: GroupName } "loss-not-accepted":
        "no valid acceptance of this loss of {group} is in the log"; "{group} is held"; "`antipode failover {group} --accept-loss`".
    AlreadyInSync { group: GroupName, host: HostName } "already-in-sync":
        "the copy on {host} is in sync already"; "nothing changes"; "nothing to do".
    NothingDetached { group: GroupName } "nothing-detached":
        "none of these copies of {group} is in sync, or the owner's own is among them"; "nothing changes"; "nothing to do".

    // Plans.
    PlanBusy { group: GroupName, plan: PlanId } "plan-busy":
        "plan {plan} moves {group} already"; "one plan at a time"; "`antipode plan show {plan}`".
    PlanUnknown { plan: PlanId } "plan-unknown":
        "there is no plan {plan}"; "nothing changes"; "`antipode plan list`".
    PlanOver { plan: PlanId } "plan-over":
        "plan {plan} has ended"; "nothing changes"; "`antipode plan show {plan}`".
    PlanShape { why: String } "plan-shape":
        "the plan isn't well formed: {why}"; "nothing begins"; "nothing to do: this is a bug of the planner, report it".
    PlanDenied { plan: PlanId } "plan-denied":
        "a person denied plan {plan}"; "its group stays where it is"; "`antipode plan cancel {plan}` and begin another".
    StepOutOfOrder { plan: PlanId, step: u32 } "step-out-of-order":
        "step {step} isn't the current step of plan {plan}"; "nothing changes"; "nothing to do".
    AttemptStale { plan: PlanId, step: u32 } "attempt-stale":
        "that attempt at step {step} of plan {plan} isn't under way"; "a late answer of an older attempt does nothing"; "nothing to do".
    PastPivot { plan: PlanId } "past-pivot":
        "plan {plan} is past its point of no return"; "it is only retried from here, never undone"; "`antipode plan retry {plan}`, or move the group again".
    BeforePivot { plan: PlanId } "before-pivot":
        "plan {plan} isn't past its grant"; "the group may not be brought up"; "nothing to do: the leader grants first".
    StepNotSkippable { plan: PlanId, step: u32 } "step-not-skippable":
        "step {step} of plan {plan} carries the safety of the move"; "the plan waits"; "cancel the plan instead, or bring the proof".
    FailbackUnsafe { why: String } "failback-unsafe":
        "not while {why}"; "the group stays where it runs well"; "nothing to do: it goes home later".

    // People.
    SubjectUnknown { subject: LogIndex } "subject-unknown":
        "nothing at index {subject} waits for a person"; "nothing changes"; "`antipode status` lists what waits".
    PermitVoid { subject: LogIndex } "permit-void":
        "the leader changed since index {subject}; what permits ends with it"; "nothing changes"; "ask again".
    SamePerson { key: String } "same-person":
        "{key} agreed already: two names on one key are one person"; "it goes on waiting"; "another person's certificate must agree".
    LocalCannotPair { key: String } "local-cannot-pair":
        "{key} came over the local socket and can't be one of two"; "it goes on waiting"; "use a personal certificate".
    ContraryFresh { host: HostName, what: String, age: Duration } "contrary-fresh":
        "{host} isn't dead: {what}, {age:?} ago"; "an override now could put two owners on one workload"; "make that sign go away first (power it off), then ask again".
    StillRuns { waited: Duration, span: Duration } "still-runs":
        "{waited:?} of {span:?} passed"; "nothing changes yet"; "wait, or end it yourself".
    NothingToEnd {} "nothing-to-end":
        "there is no such freeze, maintenance or hold"; "nothing changes"; "`antipode status` lists them".
    NoEnd {} "no-end":
        "it has no end"; "nothing changes"; "say for how long".
    UnknownSite { site: SiteName } "unknown-site":
        "there is no site {site}"; "nothing changes"; "`antipode status` lists the sites".
    BrakeAlready {} "brake-already":
        "the brake is as asked already"; "nothing changes"; "nothing to do".

    // Pins.
    NotPinned { group: GroupName } "not-pinned":
        "{group} isn't pinned there"; "nothing changes"; "nothing to do".
    UnpinUnproven { group: GroupName, why: String } "unpin-unproven":
        "nothing shows that {group} may be untied: {why}"; "it stays pinned and goes on"; "bring its host back in touch, or prove it harmless: powered-off, returned, or an override".

    // Versions, eras, voters.
    VersionNotHigher { asked: u32, now: u32 } "version-not-higher":
        "version {asked} isn't above {now}"; "nothing changes"; "nothing to do".
    VersionUnsupported { host: HostName, supports: u32 } "version-unsupported":
        "{host} understands only {supports}"; "new features stay off"; "upgrade {host} first".
    EraNotNewer { asked: Era, now: Era } "era-not-newer":
        "era {asked} isn't newer than {now}"; "nothing changes"; "recover with a larger era".
    MajorityAlive { voter: VoterId } "majority-alive":
        "voter {voter} answers or was not looked for"; "the old majority may still decide"; "bring it back, or make sure that it is gone and say so".
    ConfigAwaitsLease { of: Incarnation } "config-awaits-lease":
        "the lease of {of} is being waited out; a change of voters would start that again"; "takeover would take longer"; "wait for the evidence, or change only what the quorum needs".
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}; {}", self.text(), self.workload(), self.next())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_code_of_its_own() {
        let mut codes = Refusal::CODES.to_vec();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Refusal::CODES.len());
    }

    #[test]
    fn a_refusal_says_what_and_what_it_means_and_what_next() {
        let refusal = Refusal::WrongEra { entry: Era(1), now: Era(2) };
        assert_eq!(
            refusal.to_string(),
            "the entry is of era 1, the cluster is in era 2; what an older era decided binds nobody; wipe the machine \
             that still proposes in era 1"
        );
    }
}
