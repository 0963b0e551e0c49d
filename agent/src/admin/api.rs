//! The JSON documents of the admin API. Fields are only ever added; `api_version` counts changes that break a reader.

use super::Exit;
use crate::config::Problem;
use crate::engine::{API_VERSION, MemberOrder, Order};
use quorum::id::{GroupName, HostName, LogIndex};
use quorum::ledger::PlanKind;
use quorum::timing::Timing;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Body of `POST /v1/apply`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyAsked {
    /// The cluster spec as written.
    pub source: String,
    /// Only check.
    #[serde(default)]
    pub dry_run: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Body of `POST /v1/move`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveAsked {
    /// failover, switchover, failback or reprotect.
    pub kind: String,
    /// Which group.
    pub group: GroupName,
    /// Where to, a host or a site; chosen if absent.
    #[serde(default)]
    pub to: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Of a failover: accept the loss of what the target's copy lacks.
    #[serde(default)]
    pub accept_loss: bool,
}

/// Body of `POST /v1/order`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderAsked {
    /// What.
    pub order: Order,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Body of `POST /v1/members`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MembersAsked {
    /// What.
    pub order: MemberOrder,
    /// Why.
    pub reason: String,
}

/// Answer of `GET /v1/backup`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackupDocument {
    /// Version of this document.
    pub api_version: u32,
    /// Up to which entry.
    pub index: u64,
    /// In which era.
    pub era: u64,
    /// The backup, in hexadecimal.
    pub hex: String,
}

impl BackupDocument {
    /// Of these bytes.
    pub fn new(index: LogIndex, era: u64, bytes: &[u8]) -> Self {
        let hex = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
            hex.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            hex.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
            hex
        });
        Self { api_version: API_VERSION, index: index.0, era, hex }
    }

    /// The bytes; `None` if the text is none.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let text = self.hex.as_bytes();
        let pair = |pair: &[u8]| u8::try_from(digit(pair[0])? << 4 | digit(*pair.get(1)?)?).ok();
        text.chunks(2).map(pair).collect()
    }
}

/// Answer of `GET /v1/live`: what `what-if` plays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveDocument {
    /// Version of this document.
    pub api_version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Which host says so.
    #[serde(default)]
    pub seen_by: String,
    /// Up to which entry.
    pub index: u64,
    /// Hosts that are heard now, by the agent that answers.
    pub heard: Vec<HostName>,
    /// Hosts that no fence device could prove off now.
    pub unfenceable: Vec<HostName>,
    /// The ledger.
    pub ledger: BackupDocument,
}

impl MoveAsked {
    /// The kind of plan that a person may ask for by this word.
    pub fn plan_kind(&self) -> Option<PlanKind> {
        [PlanKind::Failover, PlanKind::Switchover, PlanKind::Failback, PlanKind::Reprotect]
            .into_iter()
            .find(|kind| kind.as_str() == self.kind)
    }
}

/// Something took effect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DoneDocument {
    /// Version of this document.
    pub api_version: u32,
    /// Where in the log; 0 if nothing had to be logged.
    pub index: u64,
    /// What became so, for people.
    pub detail: String,
    /// Which host says so.
    #[serde(default)]
    pub seen_by: String,
}

impl DoneDocument {
    /// It took effect at `index`.
    pub fn new(index: LogIndex, detail: String) -> Self {
        Self { api_version: API_VERSION, index: index.0, detail, seen_by: String::new() }
    }
}

/// Why something did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLine {
    /// A stable word.
    pub code: String,
    /// What is the matter.
    pub text: String,
    /// What it means for the workload.
    pub workload: String,
    /// The next command, or what to do.
    pub next: String,
}

/// An error as told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// Version of this document.
    pub api_version: u32,
    /// The error.
    pub error: ErrorLine,
    /// The exit status of the command line.
    pub exit: u8,
    /// Everything that is wrong with a file, where that is the error.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub problems: Box<[Problem]>,
}

fn is_nothing(problems: &[Problem]) -> bool {
    problems.is_empty()
}

impl ErrorDocument {
    /// An error that changed nothing for any workload.
    pub fn new(exit: Exit, code: &str, text: impl Into<String>, next: impl Into<String>) -> Self {
        let error = ErrorLine {
            code: code.to_owned(),
            text: text.into(),
            workload: "nothing changes for any workload".to_owned(),
            next: next.into(),
        };
        Self { api_version: API_VERSION, error, exit: exit.code(), problems: Box::default() }
    }

    /// The same error with another meaning for the workload.
    #[must_use]
    pub fn meaning(mut self, workload: impl Into<String>) -> Self {
        self.error.workload = workload.into();
        self
    }

    /// How the command line ends with it.
    pub fn exit(&self) -> Exit {
        Exit::from_code(u64::from(self.exit))
    }
}

/// The time spans in force. Spans are in milliseconds, `rho_ppm` in parts per million, the rest are counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimingDocument {
    /// Version of this document.
    pub api_version: u32,
    /// What was given, by the names of `quorum::timing::Timing`.
    pub timing: BTreeMap<String, TimingLine>,
    /// What follows from it.
    pub computed: TimingComputed,
    /// Relations that do not hold; empty in a sound cluster.
    pub violations: Vec<String>,
    /// The same as a table for people.
    pub text: String,
}

/// A number of the timing: a count, or a span in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TimingLine {
    /// Whole: every count, and spans of whole milliseconds.
    Whole(u64),
    /// With a fraction of a millisecond.
    Part(f64),
}

/// What follows from the given spans, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimingComputed {
    /// L_v: how long a voter waits after its own last grant.
    pub voter_wait_ms: TimingLine,
    /// T_tol: the age of the newest majority grant at which the keeper starts to kill.
    pub ride_through_ms: TimingLine,
    /// An outage of this length is ridden through for sure.
    pub ride_through_sure_ms: TimingLine,
    /// What a holder must have left when it checks before a pet.
    pub pet_reserve_ms: TimingLine,
    /// A positive fence path within this makes an eager declaration worth its while.
    pub eager_limit_ms: TimingLine,
    /// Raft's heartbeat interval.
    pub raft_heartbeat_ms: TimingLine,
}

impl TimingDocument {
    /// All of `timing`.
    pub fn of(timing: &Timing) -> Self {
        Self {
            api_version: API_VERSION,
            timing: given(timing),
            computed: TimingComputed {
                voter_wait_ms: line(timing.voter_wait()),
                ride_through_ms: line(timing.ride_through()),
                ride_through_sure_ms: line(timing.ride_through_sure()),
                pet_reserve_ms: line(timing.pet_reserve()),
                eager_limit_ms: line(timing.eager_limit()),
                raft_heartbeat_ms: line(timing.raft_heartbeat()),
            },
            violations: timing.check().iter().map(ToString::to_string).collect(),
            text: timing.describe(),
        }
    }
}

/// Names every field, so that a new one can't be forgotten.
fn given(timing: &Timing) -> BTreeMap<String, TimingLine> {
    let Timing {
        watchdog_worst,
        watchdog_spans,
        delta_hw,
        delta_io,
        keeper_period,
        renewal,
        lost_renewals,
        rtt_max,
        jitter,
        rho_ppm,
        lease,
        beat,
        detection,
        lost_beats,
        delay_max,
        election,
        fsync_p999,
    } = timing;
    let spans = [
        ("watchdog_worst", watchdog_worst),
        ("delta_hw", delta_hw),
        ("delta_io", delta_io),
        ("keeper_period", keeper_period),
        ("renewal", renewal),
        ("rtt_max", rtt_max),
        ("jitter", jitter),
        ("lease", lease),
        ("beat", beat),
        ("detection", detection),
        ("delay_max", delay_max),
        ("election", election),
        ("fsync_p999", fsync_p999),
    ];
    let counts = [
        ("watchdog_spans", watchdog_spans),
        ("lost_renewals", lost_renewals),
        ("rho_ppm", rho_ppm),
        ("lost_beats", lost_beats),
    ];
    let spans = spans.into_iter().map(|(name, span)| (name.to_owned(), line(*span)));
    let counts = counts.into_iter().map(|(name, count)| (name.to_owned(), TimingLine::Whole(u64::from(*count))));
    spans.chain(counts).collect()
}

/// In milliseconds; exact to the nanosecond for every span that a cluster may have (at most an hour).
fn line(span: Duration) -> TimingLine {
    match span.subsec_nanos() % 1_000_000 {
        0 => TimingLine::Whole(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        _ => TimingLine::Part(span.as_secs_f64() * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::timing::Measured;

    #[test]
    fn timing_is_told_in_milliseconds_under_the_names_of_its_fields() {
        let timing = Timing::derive(Measured::new(Duration::from_millis(1_100), Duration::from_millis(80)));
        let document = TimingDocument::of(&timing);
        assert_eq!(document.timing["lease"], TimingLine::Whole(3_700));
        assert_eq!(document.timing["rho_ppm"], TimingLine::Whole(1_000));
        assert_eq!(document.timing.len(), 17);
        assert!(document.violations.is_empty());
        // L_v = 3700·1001/999 + 50 is no whole millisecond.
        assert!(matches!(document.computed.voter_wait_ms, TimingLine::Part(ms) if (3757.4..3757.5).contains(&ms)));
    }

    #[test]
    fn every_exit_status_survives_the_way_over_the_wire() {
        use Exit::{Approval, Done, Error, Refused, TimedOut, Unreachable, Usage};
        for exit in [Done, Error, Usage, Refused, Approval, Unreachable, TimedOut] {
            assert_eq!(Exit::from_code(u64::from(exit.code())), exit);
        }
    }
}
