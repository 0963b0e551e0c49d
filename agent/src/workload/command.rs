//! Kind `command`: a workload run by an adapter program.
//!
//! The program is called once per verb, with the verb as its only argument and one JSON object on standard input, and
//! answers with one JSON object on standard output (`examples/adapters/README.md` has the whole contract and a program
//! to start from). The adapter is not trusted with the word "absent": after `stop` and `kill` the group's cgroup must
//! be empty as well, and `kill` ends with the kernel killing whatever is left in it.

use super::{
    Begin, Doing, Ended, Place, Preflight, Presence, StartOrder, StopOrder, VolumeAt, Workload, WorkloadError,
};
use crate::command::{Invocation, Program};
use quorum::id::{Epoch, HostEpoch};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Version of the contract, said in every request.
pub const API_VERSION: u32 = 1;

/// What the cluster spec says about a workload run by an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// The adapter's absolute path, or its name in the search path.
    pub program: String,
    /// Handed to the adapter as they are.
    #[serde(default)]
    pub params: serde_json::Map<String, Value>,
    /// How long a look (`preflight`, `observe`, `probe`) may take.
    #[serde(default = "ten_seconds")]
    pub look_seconds: u64,
}

fn ten_seconds() -> u64 {
    10
}

/// Runs one group through an adapter program.
#[derive(Debug)]
pub struct CommandWorkload {
    place: Place,
    spec: CommandSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    result: String,
    because: String,
    notes: Vec<String>,
    epoch: Option<u64>,
    host_epoch: Option<u64>,
    begin: Option<String>,
}

impl CommandWorkload {
    /// A driver for the group at this place.
    pub fn new(place: Place, spec: CommandSpec) -> Self {
        Self { place, spec }
    }

    fn look_limit(&self) -> Duration {
        Duration::from_secs(self.spec.look_seconds.clamp(1, 600))
    }

    /// One call. `Err` holds what stood in the way and whether it is certain that nothing happened.
    async fn ask(&self, verb: &str, more: Value, limit: Duration) -> Result<Answer, (bool, String)> {
        let program = Program::find(&self.spec.program).map_err(|error| (true, error.to_string()))?;
        let mut request = json!({
            "api_version": API_VERSION,
            "verb": verb,
            "group": self.place.group,
            "host": self.place.host,
            "runtime": self.place.runtime,
            "cgroup": self.place.cgroup,
            "limit_ms": u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            "params": self.spec.params,
        });
        if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
            request.extend(more.clone());
        }
        let mut call = Invocation::new(&program, limit).arg(verb).stdin(request.to_string());
        // What can bring the group up runs inside its cgroup; what only looks or ends it must not keep that busy.
        if matches!(verb, "start" | "resume") {
            call = call.cgroup(&self.place.cgroup);
        }
        let outcome = call.run().await.map_err(|error| (error.is_without_effect(), error.to_string()))?;
        if !outcome.is_success() {
            return Err((false, outcome.summary()));
        }
        understand(&outcome.stdout).map_err(|because| (false, because))
    }

    async fn start_it(&self, order: &StartOrder) -> Result<(), WorkloadError> {
        match self.observe_it().await {
            Presence::Absent => {}
            Presence::Unknown { because } => return Err(WorkloadError::Unknown { because }),
            Presence::Running { epoch, host_epoch, begin } => {
                if (epoch, host_epoch) != (order.epoch, order.host_epoch) {
                    return Err(WorkloadError::Occupied { epoch });
                }
                return if begin == order.begin || order.begin == Begin::Paused {
                    Ok(())
                } else {
                    self.resume_it().await
                };
            }
        }
        let runtime = &self.place.runtime;
        fs::create_dir_all(runtime)
            .map_err(|error| WorkloadError::Refused { because: format!("make {}: {error}", runtime.display()) })?;
        let more = json!({ "epoch": order.epoch, "host_epoch": order.host_epoch, "begin": word(order.begin),
            "volumes": volumes(&order.volumes) });
        match self.ask("start", more, order.limit).await {
            Ok(answer) if answer.result == "started" => Ok(()),
            Ok(answer) if answer.result == "refused" => Err(WorkloadError::Refused { because: answer.because }),
            Ok(answer) => Err(self.give_up(format!("{}: {}", answer.result, answer.because)).await),
            Err((true, because)) => Err(WorkloadError::Refused { because }),
            Err((false, because)) => Err(self.give_up(because).await),
        }
    }

    async fn give_up(&self, because: String) -> WorkloadError {
        match self.kill_it(self.look_limit()).await {
            Ok(_) => WorkloadError::Failed { because },
            Err(error) => WorkloadError::Unknown { because: format!("{because}; then {error}") },
        }
    }

    async fn resume_it(&self) -> Result<(), WorkloadError> {
        match self.ask("resume", json!({}), self.look_limit()).await {
            Ok(answer) if answer.result == "ok" => Ok(()),
            Ok(answer) => Err(WorkloadError::Refused { because: answer.because }),
            Err((_, because)) => Err(WorkloadError::Unknown { because }),
        }
    }

    async fn stop_it(&self, order: &StopOrder) -> Result<Ended, WorkloadError> {
        if self.observe_it().await == Presence::Absent {
            return Ok(Ended::WasAbsent);
        }
        let answer = self.ask("stop", json!({}), order.ask + order.quit).await;
        let ended = match answer.as_ref().map(|answer| answer.result.as_str()) {
            Ok("by-itself") => Ended::ByItself,
            Ok("flushed") => Ended::Flushed,
            _ => return self.kill_it(order.kill).await,
        };
        match self.observe_it().await {
            Presence::Absent => Ok(ended),
            _ => self.kill_it(order.kill).await,
        }
    }

    async fn kill_it(&self, limit: Duration) -> Result<Ended, WorkloadError> {
        if self.observe_it().await == Presence::Absent {
            return Ok(Ended::WasAbsent);
        }
        let until = Instant::now() + limit;
        // Half of the time for the adapter, whatever it says; then the kernel takes what is left.
        let _ = self.ask("kill", json!({}), limit / 2).await;
        loop {
            let seen = self.observe_it().await;
            if seen == Presence::Absent {
                return Ok(Ended::Killed);
            }
            // Older kernels lack the file; then the adapter's word and an empty cgroup have to do.
            for cgroup in [&self.place.cgroup, &self.place.pinned] {
                let kill = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.kill"));
                let _ = kill.and_then(|mut kill| kill.write_all(b"1"));
            }
            if Instant::now() >= until {
                return Err(WorkloadError::Unknown { because: format!("killed, and yet seen {seen:?}") });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn observe_it(&self) -> Presence {
        let unknown = |because: String| Presence::Unknown { because };
        let answer = match self.ask("observe", json!({}), self.look_limit()).await {
            Ok(answer) => answer,
            Err((_, because)) => return unknown(because),
        };
        match (answer.result.as_str(), answer.epoch, answer.host_epoch) {
            ("absent", _, _) => match self.is_cgroup_empty() {
                Ok(true) => Presence::Absent,
                Ok(false) => unknown("the adapter says absent, but the group's cgroup has processes".into()),
                Err(because) => unknown(because),
            },
            ("running", Some(epoch), Some(host_epoch)) => {
                let begin = if answer.begin.as_deref() == Some("paused") { Begin::Paused } else { Begin::Running };
                Presence::Running { epoch: Epoch(epoch), host_epoch: HostEpoch(host_epoch), begin }
            }
            ("running", _, _) => unknown("the adapter says running, but not under which epochs".into()),
            (other, _, _) => unknown(format!("{other}: {}", answer.because)),
        }
    }

    fn is_cgroup_empty(&self) -> Result<bool, String> {
        Ok(has_nobody(&self.place.cgroup)? && has_nobody(&self.place.pinned)?)
    }
}

fn has_nobody(cgroup: &Path) -> Result<bool, String> {
    let file = cgroup.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim().is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(format!("read {}: {error}", file.display())),
    }
}

/// What the adapter printed.
fn understand(stdout: &[u8]) -> Result<Answer, String> {
    serde_json::from_slice(stdout).map_err(|error| format!("the adapter's answer: {error}"))
}

/// Whether the bytes are an adapter's answer: what a fuzzer calls.
pub(crate) fn is_answer(stdout: &[u8]) -> bool {
    understand(stdout).is_ok_and(|answer| !answer.result.is_empty())
}

fn word(begin: Begin) -> &'static str {
    match begin {
        Begin::Running => "running",
        Begin::Paused => "paused",
    }
}

fn volumes(volumes: &[VolumeAt]) -> Vec<Value> {
    volumes.iter().map(|volume| json!({ "name": volume.name, "path": volume.path })).collect()
}

impl Workload for CommandWorkload {
    fn preflight<'a>(&'a self, wanted: &'a [VolumeAt]) -> Doing<'a, Result<Preflight, WorkloadError>> {
        Box::pin(async {
            match self.ask("preflight", json!({ "volumes": volumes(wanted) }), self.look_limit()).await {
                Ok(answer) if answer.result == "ok" => Ok(Preflight { notes: answer.notes }),
                Ok(answer) => Err(WorkloadError::Refused { because: answer.because }),
                Err((_, because)) => Err(WorkloadError::Refused { because }),
            }
        })
    }

    fn start<'a>(&'a self, order: &'a StartOrder) -> Doing<'a, Result<(), WorkloadError>> {
        Box::pin(self.start_it(order))
    }

    fn resume(&self) -> Doing<'_, Result<(), WorkloadError>> {
        Box::pin(self.resume_it())
    }

    fn stop<'a>(&'a self, order: &'a StopOrder) -> Doing<'a, Result<Ended, WorkloadError>> {
        Box::pin(self.stop_it(order))
    }

    fn kill(&self, limit: Duration) -> Doing<'_, Result<Ended, WorkloadError>> {
        Box::pin(self.kill_it(limit))
    }

    fn observe(&self) -> Doing<'_, Presence> {
        Box::pin(self.observe_it())
    }

    fn probe(&self) -> Doing<'_, Result<(), WorkloadError>> {
        Box::pin(async {
            match self.ask("probe", json!({}), self.look_limit()).await {
                Ok(answer) if answer.result == "ok" => Ok(()),
                Ok(answer) => Err(WorkloadError::Refused { because: answer.because }),
                Err((_, because)) => Err(WorkloadError::Unknown { because }),
            }
        })
    }
}
