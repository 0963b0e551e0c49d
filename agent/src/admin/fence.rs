//! Fencing in the admin API: what the log says and what this host's devices say, in one document; tests, dry runs,
//! orders, and the journal of attempts.
//!
//! ```text
//! GET  /v1/fence                 FenceDocument
//! POST /v1/fence/test            FenceTestAsked  -> FenceTestDocument    reads, never switches
//! POST /v1/fence/order           FenceAsked      -> DoneDocument, or FenceDryDocument for a dry run
//! GET  /v1/fence/history?count=N FenceHistoryDocument
//! ```
//! Invariant: no document holds a secret. The fencing crate masks its own; nothing here reads a spec.

use super::ask::{Told, ask};
use super::route::{Served, defect, json, read, signed};
use super::{ErrorDocument, Exit};
use crate::engine::{API_VERSION, FenceAct, FenceDecision, FenceView, Request, Scope};
use bytes::Bytes;
use fencing::FenceOrder;
use fencing::executor::{DeviceStatus, DryRun, Status, Tested};
use fencing::findings::{Attention, Outlook};
use fencing::request::Stamp;
use hyper::body::Incoming;
use quorum::id::HostName;
use quorum::ledger::Person;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Records shown unless asked otherwise, and at most.
const HISTORY: usize = 100;
const HISTORY_MAX: usize = 10_000;
/// Time that a dry run pretends to have.
const DRY_SPAN: Duration = Duration::from_secs(60);

/// `fence status -o json`.
#[derive(Clone, Debug, Serialize)]
pub struct FenceDocument {
    /// Version of this document.
    pub api_version: u32,
    /// By the log.
    #[serde(flatten)]
    pub log: FenceView,
    /// Levels by host: what could be proven now, and how old the proof of that is.
    pub levels: Vec<LevelLine>,
    /// The devices that this host drives; empty on a host that doesn't vote.
    pub devices: Vec<DeviceLine>,
    /// What deserves attention, what matters most first.
    pub attention: Vec<Attention>,
    /// Hosts against which an order is under way from here.
    pub under_way: Vec<String>,
}

/// One level of a host.
#[derive(Clone, Debug, Serialize)]
pub struct LevelLine {
    /// The host.
    pub host: String,
    /// The level, counted from 1.
    pub level: usize,
    /// The evidence that it would bring.
    pub would_prove: Option<String>,
    /// Why it would bring none.
    pub why_not: Option<String>,
    /// Age of the oldest of its devices' last good readings.
    pub proof_age_ms: Option<u64>,
    /// All its devices were read well of late.
    pub ready: bool,
}

/// One device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceLine {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Age of the last good reading.
    pub proof_age_ms: Option<u64>,
    /// How long that took.
    pub latency_ms: Option<u64>,
    /// What it showed.
    pub shows: Option<String>,
    /// What went wrong the last time.
    pub trouble: Option<String>,
    /// Failures since the last good reading.
    pub failures_in_a_row: u32,
    /// A laboratory's stand-in.
    pub lab: bool,
}

/// Body of `POST /v1/fence/test`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FenceTestAsked {
    /// Whose devices; all if absent.
    #[serde(default)]
    pub host: Option<HostName>,
}

/// What came of reading devices.
#[derive(Clone, Debug, Serialize)]
pub struct FenceTestDocument {
    /// Version of this document.
    pub api_version: u32,
    /// Which host read them.
    pub seen_by: String,
    /// Every device that can be read was read well.
    pub is_good: bool,
    /// Device by device.
    pub tested: Vec<TestLine>,
}

/// One device that was read.
#[derive(Clone, Debug, Serialize)]
pub struct TestLine {
    /// Its name.
    pub device: String,
    /// Its kind.
    pub kind: String,
    /// What it showed.
    pub shows: Option<String>,
    /// Whose machine it says it is.
    pub identity: Option<String>,
    /// How long it took.
    pub latency_ms: u64,
    /// What went wrong.
    pub trouble: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// There is nothing to read: its proof comes from elsewhere.
    pub waits: bool,
}

/// Body of `POST /v1/fence/order`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FenceAsked {
    /// A host or a site.
    pub scope: Scope,
    /// What.
    pub act: FenceAct,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// The target's name once more, unless it is a dry run or a release.
    #[serde(default)]
    pub confirm: String,
    /// Only say what it would come to.
    #[serde(default)]
    pub dry_run: bool,
}

/// What an order would come to.
#[derive(Clone, Debug, Serialize)]
pub struct FenceDryDocument {
    /// Version of this document.
    pub api_version: u32,
    /// Which host says so.
    pub seen_by: String,
    /// Log index that it has applied.
    pub index: u64,
    /// Time since it last heard a leader.
    pub as_of_ms: u64,
    /// The decision.
    pub decision: FenceDecision,
    /// Host by host, what its devices would be told; secrets masked.
    pub hosts: Vec<DryRun>,
}

/// The last records of this host's fencing journal, oldest first.
#[derive(Clone, Debug, Serialize)]
pub struct FenceHistoryDocument {
    /// Version of this document.
    pub api_version: u32,
    /// Whose journal it is.
    pub seen_by: String,
    /// The records.
    pub records: Vec<serde_json::Value>,
}

pub(super) async fn status(state: &Served, by: Person) -> Result<Bytes, ErrorDocument> {
    let Told::Fencing(log) = ask(&state.requests, by, Request::FenceStatus).await? else { return Err(defect()) };
    let Status { devices, outlook, attention, under_way } = state.fence.status();
    Ok(json(&FenceDocument {
        api_version: API_VERSION,
        log: *log,
        levels: outlook.into_iter().map(level_line).collect(),
        devices: devices.into_iter().map(device_line).collect(),
        attention,
        under_way: under_way.iter().map(ToString::to_string).collect(),
    }))
}

pub(super) async fn test(state: &Served, body: Incoming) -> Result<Bytes, ErrorDocument> {
    let FenceTestAsked { host } = read(body).await?;
    let tested = match host.map(|host| fencing::name::HostName::new(host.as_str())) {
        None => state.fence.probe_all().await,
        Some(Ok(host)) => state.fence.probe_host(&host).await,
        Some(Err(error)) => return Err(ErrorDocument::new(Exit::Usage, "bad-name", error.to_string(), "")),
    };
    if tested.is_empty() {
        let text = "no fence device of it is driven by this host";
        let next = "ask a voter's agent; antipode fence status shows the devices";
        return Err(ErrorDocument::new(Exit::Error, "no-device", text, next));
    }
    let tested: Vec<TestLine> = tested.into_iter().map(test_line).collect();
    let is_good = tested.iter().all(|line| line.trouble.is_none());
    Ok(json(&FenceTestDocument { api_version: API_VERSION, seen_by: state.host.to_string(), is_good, tested }))
}

pub(super) async fn order(state: &Served, by: Person, asked: FenceAsked) -> Result<Bytes, ErrorDocument> {
    let FenceAsked { scope, act, reason, confirm, dry_run } = asked;
    let is_grave = matches!(act, FenceAct::Override { .. } | FenceAct::Run);
    if !dry_run && is_grave && name_of(&scope) != Some(confirm.as_str()) {
        let text = "the target's name isn't given twice";
        return Err(ErrorDocument::new(Exit::Usage, "not-confirmed", text, "name the same target in `confirm`"));
    }
    if !dry_run && reason.trim().is_empty() {
        let text = "an order about fencing needs a reason for the audit log";
        return Err(ErrorDocument::new(Exit::Usage, "reason-missing", text, "add --reason \"it is off, I looked\""));
    }
    let request = Request::Fence { scope: scope.clone(), act, reason, dry_run };
    match ask(&state.requests, by.clone(), request).await? {
        Told::FenceDecision(decision) => {
            let Told::Fencing(view) = ask(&state.requests, by, Request::FenceStatus).await? else {
                return Err(defect());
            };
            let hosts = if act == FenceAct::Run { dry_runs(state, &view, &scope) } else { Vec::new() };
            Ok(json(&FenceDryDocument {
                api_version: API_VERSION,
                seen_by: view.seen_by.clone(),
                index: view.index,
                as_of_ms: view.as_of_ms,
                decision: *decision,
                hosts,
            }))
        }
        other => signed(&state.host, other),
    }
}

fn name_of(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::Site(site) => Some(site.as_str()),
        Scope::Host(host) => Some(host.as_str()),
        Scope::Cluster | Scope::Group(_) => None,
    }
}

/// What the devices of each host would be told. A host without devices has nothing to be told.
fn dry_runs(state: &Served, view: &FenceView, scope: &Scope) -> Vec<DryRun> {
    let is_meant = |name: &str, site: &str| match scope {
        Scope::Host(host) => host.as_str() == name,
        Scope::Site(wanted) => wanted.as_str() == site,
        Scope::Cluster | Scope::Group(_) => false,
    };
    let meant = view.hosts.iter().filter(|host| is_meant(&host.name, &host.site));
    let dry = |name: &str| {
        let target = fencing::name::HostName::new(name).ok()?;
        state.fence.dry_run(&FenceOrder::new(target, 0, Stamp::default(), DRY_SPAN)).ok()
    };
    meant.filter_map(|host| dry(&host.name)).collect()
}

pub(super) async fn history(state: &Served, query: Option<&str>) -> Result<Bytes, ErrorDocument> {
    let count = query.and_then(|query| query.strip_prefix("count=")).map_or(Ok(HISTORY), str::parse);
    let Ok(count) = count else {
        return Err(ErrorDocument::new(Exit::Usage, "malformed-request", "`count` is no number", "leave it out"));
    };
    let records = state.fence.history(count.min(HISTORY_MAX)).await.map_err(|error| {
        let next = "look at the folder `fencing` in the agent's data directory";
        ErrorDocument::new(Exit::Error, "journal-unreadable", format!("read the fencing journal: {error}"), next)
    })?;
    Ok(json(&FenceHistoryDocument { api_version: API_VERSION, seen_by: state.host.to_string(), records }))
}

fn level_line(outlook: Outlook) -> LevelLine {
    LevelLine {
        host: outlook.host.to_string(),
        level: outlook.level,
        would_prove: outlook.would_prove.map(|kind| kind.to_string()),
        why_not: outlook.why_not,
        proof_age_ms: outlook.oldest_proof.map(millis),
        ready: outlook.ready,
    }
}

fn device_line(device: DeviceStatus) -> DeviceLine {
    DeviceLine {
        name: device.facts.name.to_string(),
        kind: device.facts.kind.to_owned(),
        proof_age_ms: device.proof_age.map(millis),
        latency_ms: device.latency.map(millis),
        shows: device.shows.map(|shows| shows.to_string()),
        trouble: device.trouble,
        failures_in_a_row: device.failures_in_a_row,
        lab: device.facts.lab,
    }
}

fn test_line(tested: Tested) -> TestLine {
    TestLine {
        device: tested.device.to_string(),
        kind: tested.kind.to_owned(),
        shows: tested.observed,
        identity: tested.identity,
        latency_ms: millis(tested.latency),
        remedy: tested.trouble.as_ref().map(|trouble| trouble.remedy().to_owned()),
        trouble: tested.trouble.map(|trouble| trouble.to_string()),
        waits: tested.waits,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
