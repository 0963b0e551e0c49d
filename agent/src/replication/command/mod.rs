//! Kind `command`: a volume whose data an adapter program moves: an array's own replication, DRBD, ZFS, a vendor's tool.
//!
//! The program is called once per verb, as [`crate::workload::command`] does, with one JSON object in and one out
//! (`examples/adapters/README.md` has the whole contract, and a replicator to start from). Whatever isn't a well-formed
//! answer is *unknown*, and unknown is never taken for good.
//!
//! What the adapter isn't trusted with:
//! - **The record** is ours ([`super::rules`]), written in the order that the contract of [`Replication`] demands. The
//!   adapter is told epochs; an order that the record contradicts never reaches it.
//! - **That it has ended.** Each end of a volume runs in a cgroup of its own ([`corner`]), beside the group's. After
//!   `close-export` and `release` the kernel kills what is left there, and only an empty cgroup counts as closed.
//! - **Which mirror it speaks of.** An answer carries the order that the mirror carries out; one of another epoch or
//!   mode is no answer about ours.
//! - **Time.** A lag that it measured is made longer by the whole time that the answer took.
//!
//! What only the adapter can guarantee, and what it costs if it lies:
//! - *An older source stays out.* Its receiving end lets in the host and the epoch of `open-export` and nothing else. If
//!   it doesn't, a source that was fenced late overwrites a copy on which the group may be promoted.
//! - *Closed is closed.* What its receiver does outside of that cgroup (in the kernel, in an array) has ended before it
//!   answers `closed`, without asking the other side. Otherwise an old write lands in a copy that runs.
//! - *Synced means on disk over there.* `synced` said too early makes a takeover lose what somebody was told is safe.
//!   Nothing here can see that; the contract suite does.
//! - *Writes wait* (mode `sync`): from `started` until `release`, also while the standby is away, no write is answered
//!   that the standby doesn't have. An adapter says by `describe` which modes it can serve, and one that can't hold
//!   writes is refused a volume of mode `sync`: at `apply`, and again before each mirror. It is never served more weakly.
//! - *What it knows to lack*, it says in the file `lacks` before anybody may count on it; the copy is no standby then.
//!
//! Not here: what the adapter's answers may say (`answer`).

mod answer;
mod corner;
#[cfg(test)]
mod tests;

use super::record::{Record, RecordError, RecordFile, Role};
use super::resync::kept::{KeptStore, Origin};
use super::resync::{CHUNK, Figures, Wire};
use super::rules::{Rules, refused};
use super::{
    ExportBegin, ExportOrder, KeyProblem, Manner, MirrorOrder, MirrorState, Mode, PromoteOrder, Replication,
    ReplicationError,
};
use crate::command::{Invocation, Program};
use crate::workload::{Doing, Place, VolumeAt};
use answer::Answer;
pub(crate) use answer::is_answer;
use corner::{Corner, End};
use quorum::id::{Epoch, Generation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Version of the contract, said in every request.
pub const API_VERSION: u32 = 1;

/// How long an adapter may take to close, promote or release. Each has to work without the other side.
const END_LIMIT: Duration = Duration::from_secs(20);

/// What the cluster spec says about a volume replicated by an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// When writes are answered.
    pub mode: Mode,
    /// The adapter's absolute path, or its name in the search path.
    pub program: String,
    /// What the workload is given as its volume: a file or a device; `{group}`, `{volume}` and `{host}` are filled in.
    pub path: String,
    /// Where this copy's record lies, filled in likewise; beside the volume if absent.
    #[serde(default)]
    pub record: Option<String>,
    /// The port of a standby's receiving end; 0 for an adapter that has its own ways.
    #[serde(default)]
    pub port: u16,
    /// Handed to the adapter as they are.
    #[serde(default)]
    pub params: serde_json::Map<String, Value>,
    /// How long an answer may take.
    #[serde(default = "ten_seconds")]
    pub look_seconds: u64,
    /// How long sending a stopped workload's last writes may take in a planned move.
    #[serde(default = "a_minute")]
    pub drain_seconds: u64,
    /// Most bytes of diverged data that are kept before they are overwritten.
    #[serde(default = "ten_gib")]
    pub kept_bytes_max: u64,
}

fn ten_seconds() -> u64 {
    10
}

fn a_minute() -> u64 {
    60
}

fn ten_gib() -> u64 {
    10 << 30
}

impl CommandSpec {
    /// What is wrong with it beyond its form, with a remedy.
    pub fn problem(&self) -> Option<KeyProblem> {
        if !self.path.starts_with('/') {
            let what = format!("{:?} isn't absolute", self.path);
            return Some(KeyProblem::new("path", what, "name the file or device as the workload sees it"));
        }
        if self.program.is_empty() || (self.program.contains('/') && !self.program.starts_with('/')) {
            let what = format!("{:?} isn't found alike from everywhere", self.program);
            return Some(KeyProblem::new("program", what, "write an absolute path, or a bare name"));
        }
        let record = self.record.as_deref().unwrap_or(&self.path);
        if RecordFile::is_lost_at_boot(record) || !record.starts_with('/') {
            let what = format!("what this copy is must outlive a reboot, and {record:?} doesn't");
            let remedy = "write record = \"/var/lib/antipode/records/{group}.{volume}\"";
            return Some(KeyProblem::new("record", what, remedy));
        }
        let limits = [("look_seconds", self.look_seconds), ("drain_seconds", self.drain_seconds)];
        let (key, seconds) = limits.into_iter().find(|(_, seconds)| !(1..=3600).contains(seconds))?;
        Some(KeyProblem::new(key, format!("{seconds} is out of range"), "write 1 to 3600"))
    }

    fn look_limit(&self) -> Duration {
        Duration::from_secs(self.look_seconds)
    }

    /// Where a copy's record lies, the volume being at `path`; names in it aren't filled in yet.
    pub fn record_at(&self, path: &Path) -> PathBuf {
        self.record.as_ref().map_or_else(|| RecordFile::beside(path), PathBuf::from)
    }

    /// Asks the adapter whether it can serve the spec's mode. `None` if it can, or isn't installed on this host.
    pub async fn mode_problem(&self) -> Option<String> {
        let program = Program::find(&self.program).ok()?;
        self.is_mode_served(&program).await.err()
    }

    async fn is_mode_served(&self, program: &Program) -> Result<(), String> {
        let request = json!({ "api_version": API_VERSION, "verb": "describe", "params": self.params,
            "limit_ms": millis(self.look_limit()) });
        let call = Invocation::new(program, self.look_limit()).arg("describe").stdin(request.to_string());
        let described =
            answer_of(&call).await.map_err(|(_, because)| format!("ask the adapter what it can: {because}"))?;
        match (self.mode, described.result.as_str()) {
            (mode, "ok") if described.modes.contains(&mode) => Ok(()),
            (Mode::Sync, "ok") => Err(format!(
                "{} can't hold writes back until the standby has them: write mode = \"async\" and a target_rpo",
                self.program
            )),
            (Mode::Async, "ok") => {
                Err(format!("{} serves synchronous volumes only: write mode = \"sync\"", self.program))
            }
            (_, other) => Err(format!("the adapter describes itself by {other:?}: {}", described.because)),
        }
    }
}

/// One copy of one volume on this host.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The group, this host, its cgroup and runtime folder.
    pub place: Place,
    /// The volume.
    pub volume: VolumeAt,
    /// Where its record lies; usually [`RecordFile::beside`] the volume.
    pub record: PathBuf,
    /// Where what only this copy has is kept before it is overwritten.
    pub kept: KeptStore,
}

/// The driver.
pub struct CommandReplication {
    copy: Copy,
    spec: CommandSpec,
    rules: Rules,
    lacks: PathBuf,
}

/// Why there is no answer: whether it is certain that nothing happened, and what stood in the way.
type NoAnswer = (bool, String);

async fn answer_of(call: &Invocation) -> Result<Answer, NoAnswer> {
    let outcome = call.run().await.map_err(|error| (error.is_without_effect(), error.to_string()))?;
    if !outcome.is_success() {
        return Err((false, outcome.summary()));
    }
    answer::understand(&outcome.stdout).map_err(|because| (false, because))
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

fn unknown(because: String) -> ReplicationError {
    ReplicationError::Unknown { because }
}

impl CommandReplication {
    /// A driver for this copy.
    pub fn new(copy: Copy, spec: CommandSpec) -> Self {
        let rules = Rules::new(copy.record.clone(), &copy.place.group, &copy.volume.name);
        let lacks = copy.place.runtime.join(format!("export-{}.lacks", copy.volume.name));
        Self { rules, lacks, copy, spec }
    }

    fn corner(&self, end: End) -> Corner {
        Corner::of(&self.copy.place.cgroup, end, &self.copy.volume.name)
    }

    /// One call. What can go on by itself is begun inside the corner given.
    async fn ask(
        &self,
        verb: &str,
        more: Value,
        (limit, corner): (Duration, Option<&Corner>),
    ) -> Result<Answer, NoAnswer> {
        let program = Program::find(&self.spec.program).map_err(|error| (true, error.to_string()))?;
        let place = &self.copy.place;
        let mut request = json!({
            "api_version": API_VERSION,
            "verb": verb,
            "group": place.group,
            "host": place.host,
            "volume": { "name": self.copy.volume.name, "path": self.copy.volume.path },
            "runtime": place.runtime,
            "cgroup": place.cgroup,
            "limit_ms": millis(limit),
            "params": self.spec.params,
        });
        if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
            request.extend(more.clone());
        }
        let mut call = Invocation::new(&program, limit).arg(verb).stdin(request.to_string());
        if let Some(corner) = corner {
            let made = fs::create_dir_all(&place.runtime).and_then(|()| corner.make());
            made.map_err(|error| (true, format!("make room for the adapter: {error}")))?;
            call = call.cgroup(corner.path());
        }
        answer_of(&call).await
    }

    /// A look, or an end: it leaves nothing behind.
    async fn tell(&self, verb: &str, more: Value, limit: Duration) -> Result<Answer, ReplicationError> {
        self.ask(verb, more, (limit, None)).await.map_err(|(_, because)| unknown(format!("{verb}: {because}")))
    }

    /// This copy's record. One that says it lacks something is a mixture from then on.
    fn own_record(&self) -> Result<Option<Record>, RecordError> {
        let there = self.rules.read()?;
        let Some(standby) = there.as_ref().filter(|there| there.role == Role::Standby) else { return Ok(there) };
        let Some(because) = self.lacking()? else { return Ok(there) };
        tracing::error!(group = %self.copy.place.group, volume = %self.copy.volume.name, %because,
            "this copy lacks something and is no standby until it was compared again");
        self.rules.demote(standby)
    }

    fn lacking(&self) -> Result<Option<String>, RecordError> {
        match fs::read(&self.lacks) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).chars().take(200).collect::<String>().trim().into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::File { doing: "read", path: self.lacks.clone(), source }),
        }
    }

    /// Ends the receiving end: by the adapter's word and by the kernel's.
    async fn close_it(&self, limit: Duration) -> Result<(), ReplicationError> {
        let until = Instant::now() + limit;
        let answered = self.tell("close-export", json!({}), limit).await;
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let cleared = self.corner(End::Export).clear(left).await;
        match answered?.as_told() {
            ("closed", _) => cleared.map_err(|because| unknown(format!("close the export: {because}"))),
            (other, because) => Err(unknown(format!("close the export: {other}: {because}"))),
        }
    }

    /// Ends what is left of a mirror of an earlier reign: the workload of that reign is gone, so nobody waits for it.
    async fn end_old_mirror(&self) -> Result<(), ReplicationError> {
        let cleared = self.corner(End::Mirror).clear(END_LIMIT).await;
        cleared.map_err(|because| unknown(format!("end an earlier mirror: {because}")))
    }

    async fn open_it(&self, order: &ExportOrder) -> Result<(), ReplicationError> {
        let there = self.own_record()?;
        // What is open is of the record's epoch: a source of an older one is cut off even if this one is refused.
        let is_older = there.as_ref().is_some_and(|there| there.epoch < order.epoch);
        if is_older {
            self.close_it(END_LIMIT).await?;
        }
        let record = self.rules.of_export(there, order)?;
        if let Some(record) = &record {
            if !is_older {
                // Nothing that an older connection still holds may reach a copy that begins afresh.
                self.close_it(END_LIMIT).await?;
            }
            self.end_old_mirror().await?;
            self.rules.write(record)?;
        }
        let keep = record.filter(|record| record.was_source).map(|record| self.begin_keeping(&record)).transpose()?;
        let begin = match order.begin {
            ExportBegin::Afresh => "afresh",
            ExportBegin::Continue => "continue",
        };
        let more = json!({ "epoch": order.epoch, "from": order.from, "begin": begin, "lacks": self.lacks,
            "listen": { "ip": order.listen.ip(), "port": order.listen.port() }, "keep": keep });
        let corner = self.corner(End::Export);
        let because = match self.ask("open-export", more, (END_LIMIT, Some(&corner))).await {
            Ok(answer) if answer.result == "open" => return Ok(()),
            Ok(answer) => format!("{}: {}", answer.result, answer.because),
            Err((_, because)) => because,
        };
        self.close_it(END_LIMIT).await?;
        Err(ReplicationError::Failed { because: format!("open the export: {because}") })
    }

    /// A folder for what only this copy has. The adapter puts each chunk there, on disk, before it overwrites it.
    fn begin_keeping(&self, record: &Record) -> Result<Value, ReplicationError> {
        let failed =
            |because: String| ReplicationError::Failed { because: format!("keep what only this copy has: {because}") };
        let path = &self.copy.volume.path;
        let sized = fs::File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0)));
        let volume_bytes = sized.map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let origin = Origin {
            group: self.copy.place.group.clone(),
            volume: self.copy.volume.name.clone(),
            host: self.copy.place.host.clone(),
            generation: record.generation,
            replaced_under: record.epoch,
            volume_bytes,
        };
        let begun = self.copy.kept.begin(origin).and_then(|writer| writer.finish());
        let (id, _) = begun.map_err(failed)?;
        let set = self.copy.kept.show(&id).map_err(failed)?.ok_or_else(|| failed(format!("{id} is gone")))?;
        Ok(json!({ "folder": set.path, "chunk_bytes": CHUNK, "bytes_max": self.spec.kept_bytes_max }))
    }

    /// Sets into which nothing was put say nothing.
    fn drop_empty_sets(&self) {
        let sets = self.copy.kept.list().unwrap_or_default();
        let is_ours =
            |origin: &Origin| (&origin.group, &origin.volume) == (&self.copy.place.group, &self.copy.volume.name);
        for set in sets.into_iter().filter(|set| set.bytes == 0 && is_ours(&set.origin)) {
            if let Err(because) = self.copy.kept.delete(&set.id) {
                tracing::warn!(id = set.id, %because, "an empty kept set stays");
            }
        }
    }

    async fn promote_at(&self, (epoch, generation): (Epoch, Generation), was: &str) -> Result<(), ReplicationError> {
        let more = json!({ "epoch": epoch, "generation": generation, "was": was });
        match self.tell("promote", more, END_LIMIT).await?.as_told() {
            ("promoted", _) => Ok(()),
            ("refused", because) => Err(refused(because.to_owned())),
            (other, because) => Err(unknown(format!("promote: {other}: {because}"))),
        }
    }

    async fn promote_it(&self, order: &PromoteOrder) -> Result<(), ReplicationError> {
        self.close_it(END_LIMIT).await?;
        let there = self.own_record()?;
        let record = self.rules.of_promotion(there.as_ref(), order)?;
        let was = match there.as_ref().map(|there| (there.role, there.epoch)) {
            // Said twice: its mirror may have begun.
            Some((Role::Source, epoch)) if epoch == order.epoch => return Ok(()),
            Some((Role::Source, _)) => "source",
            Some((Role::Standby, _)) => "standby",
            Some((Role::Syncing, _)) | None => "mixture",
        };
        self.end_old_mirror().await?;
        self.promote_at((order.epoch, order.generation), was).await?;
        Ok(self.rules.write(&record)?)
    }

    /// What is seen of the mirror, whatever it is.
    async fn look(&self, stall: Duration) -> Result<(Answer, Duration), ReplicationError> {
        let since = Instant::now();
        let seen = self.tell("mirror-state", json!({ "stall_ms": millis(stall) }), self.spec.look_limit()).await?;
        Ok((seen, since.elapsed()))
    }

    async fn start_it(&self, order: &MirrorOrder) -> Result<(), ReplicationError> {
        self.rules.of_reign(order.epoch)?;
        if order.mode != self.spec.mode {
            return Err(refused(format!("a mirror in mode {:?}, but the spec says {:?}", order.mode, self.spec.mode)));
        }
        let asked = answer::Order {
            epoch: order.epoch,
            mode: order.mode,
            to: order.to.clone(),
            target: answer::Target { ip: order.target.ip(), port: order.target.port() },
        };
        // A mirror that is there is asked before anything else is done: writes may wait for it, and giving it up is not
        // this verb's to decide.
        match self.look(self.spec.look_limit()).await?.0.order_in_force().map_err(unknown)? {
            Some(there) if there == asked => return Ok(()),
            Some(there) => return Err(refused(format!("another mirror is in force: {there:?}"))),
            None => {}
        }
        let program = Program::find(&self.spec.program).map_err(|error| refused(error.to_string()))?;
        self.spec.is_mode_served(&program).await.map_err(refused)?;
        let corner = self.corner(End::Mirror);
        let more = json!({ "order": asked });
        let answer = self.ask("start-mirror", more, (self.start_limit(), Some(&corner))).await;
        let failed = match answer {
            Ok(answer) if answer.result == "started" => return Ok(()),
            Ok(Answer { result, because, .. }) => match result.as_str() {
                "refused" => refused(because),
                "unreachable" => ReplicationError::Unreachable { because },
                other => ReplicationError::Failed { because: format!("{other}: {because}") },
            },
            Err((_, because)) => ReplicationError::Failed { because },
        };
        // None was in force before, so no write waits for anything but this attempt.
        self.release_it().await?;
        Err(failed)
    }

    /// The first contact may take its time, on both sides.
    fn start_limit(&self) -> Duration {
        self.spec.look_limit() * 3
    }

    async fn release_it(&self) -> Result<(), ReplicationError> {
        match self.tell("release", json!({}), END_LIMIT).await?.as_told() {
            ("released", _) => {}
            (other, because) => return Err(unknown(format!("release: {other}: {because}"))),
        }
        let cleared = self.corner(End::Mirror).clear(END_LIMIT).await;
        cleared.map_err(|because| unknown(format!("release: {because}")))?;
        match self.look(self.spec.look_limit()).await?.0.order_in_force().map_err(unknown)? {
            None => Ok(()),
            Some(there) => Err(unknown(format!("released, and yet in force: {there:?}"))),
        }
    }

    async fn state_of(&self, stall: Duration) -> Result<MirrorState, ReplicationError> {
        let (answer, took) = self.look(stall).await?;
        let epoch = self.rules.read()?.filter(|record| record.role == Role::Source).map(|record| record.epoch);
        answer.mirror_state((epoch, self.spec.mode), took).map_err(unknown)
    }

    async fn even_it(&self, limit: Duration) -> Result<bool, ReplicationError> {
        let deadline = limit.max(self.spec.look_limit());
        match self.tell("even-out", json!({ "pause_ms": millis(limit) }), deadline).await?.as_told() {
            ("even", _) => Ok(true),
            ("not-even", _) => Ok(false),
            (other, because) => Err(unknown(format!("even out: {other}: {because}"))),
        }
    }
}

impl Replication for CommandReplication {
    fn record(&self) -> Result<Option<Record>, RecordError> {
        self.own_record()
    }

    fn manner(&self) -> Manner {
        Manner::ByItself
    }

    fn adopt(&self, epoch: Epoch, generation: Generation) -> Doing<'_, Result<(), ReplicationError>> {
        Box::pin(async move {
            let Some(record) = self.rules.of_birth(epoch, generation)? else { return Ok(()) };
            self.promote_at((epoch, generation), "new").await?;
            Ok(self.rules.write(&record)?)
        })
    }

    fn open_export<'a>(&'a self, order: &'a ExportOrder) -> Doing<'a, Result<(), ReplicationError>> {
        Box::pin(self.open_it(order))
    }

    fn mark_standby(&self, epoch: Epoch, generation: Generation) -> Result<(), ReplicationError> {
        if let Some(because) = self.lacking()? {
            return Err(refused(format!("this copy lacks something of the source's: {because}")));
        }
        self.rules.write(&self.rules.of_standby(epoch, generation)?)?;
        self.drop_empty_sets();
        Ok(())
    }

    fn close_export(&self, limit: Duration) -> Doing<'_, Result<(), ReplicationError>> {
        Box::pin(self.close_it(limit))
    }

    fn promote<'a>(&'a self, order: &'a PromoteOrder) -> Doing<'a, Result<(), ReplicationError>> {
        Box::pin(self.promote_it(order))
    }

    fn advance(&self, epoch: Epoch, generation: Generation) -> Result<(), ReplicationError> {
        Ok(self.rules.write(&self.rules.of_reign(epoch)?.at(generation, epoch))?)
    }

    fn start_mirror<'a>(&'a self, order: &'a MirrorOrder) -> Doing<'a, Result<(), ReplicationError>> {
        Box::pin(self.start_it(order))
    }

    fn resync<'a>(
        &'a self,
        order: &'a MirrorOrder,
        _wire: &'a mut dyn Wire,
    ) -> Doing<'a, Result<Option<Figures>, ReplicationError>> {
        Box::pin(async { self.start_it(order).await.map(|()| None) })
    }

    fn recover(&self) -> Doing<'_, Result<(), ReplicationError>> {
        Box::pin(async {
            match self.tell("recover", json!({}), self.spec.look_limit()).await?.as_told() {
                ("ok", _) => Ok(()),
                (other, because) => Err(unknown(format!("recover: {other}: {because}"))),
            }
        })
    }

    fn mirror_state(&self, stall: Duration) -> Doing<'_, Result<MirrorState, ReplicationError>> {
        Box::pin(self.state_of(stall))
    }

    fn even_out(&self, limit: Duration) -> Doing<'_, Result<bool, ReplicationError>> {
        Box::pin(self.even_it(limit))
    }

    fn release_writes(&self) -> Doing<'_, Result<(), ReplicationError>> {
        Box::pin(self.release_it())
    }
}
