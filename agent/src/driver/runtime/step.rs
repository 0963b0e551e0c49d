//! The loop: take what came in, step the engine, perform its effects in order.

use super::audit::AuditTrail;
use super::beside::Beside;
use super::encoded::Encoded;
use super::generation::{self, Generation};
use super::journal::{self, Journal};
use super::keeper::{KeeperEnd, LOOK_EVERY};
use super::measure;
use super::memory::Memory;
use super::peers::peers;
use super::resting;
use super::start::{RunError, identity_files, now, start_disk};
use super::store::{DiskThread, put_aside};
use crate::admin::Asked;
use crate::config::AgentConfig;
use crate::driver::fence::FenceDriver;
use crate::driver::transport::{Channel, Path, TransportEvent, TransportHandle, catch_up};
use crate::driver::work::{Order, Site, Workers};
use crate::engine::{self, Answer, Effect, Engine, Fenced, Input, Prospect, Report, Sight, Vote, WorkId};
use crate::event::Event;
use crate::heartbeat;
use crate::metrics::Metrics;
use bytes::Bytes;
use quorum::codec::EncodeError;
use quorum::id::{AgentInstance, Era, GroupName, HostName, TaskId, VoterId};
use quorum::storage::Persisted;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The one channel of messages between agents.
const MESSAGES: Channel = Channel(1);
/// Without any deadline the engine is woken this often, and the keeper's page looked at.
const WAKE_MAX: Duration = Duration::from_millis(50);
/// Later than this after its moment, a look at the clock first lets in what the kernel holds; a beat is ten times as long.
const LATE: Duration = Duration::from_millis(5);

/// So much that came together is taken before what follows from it is done.
const TOGETHER_MAX: usize = 32;

/// Peers are told of an orderly end: the packets leave within this, and nobody waits for an answer.
const GOODBYE: Duration = Duration::from_millis(20);

/// What other tasks hand to the loop.
pub enum Incoming {
    /// A write of the store with this number is durable.
    Persisted(u64, Persisted),
    /// The disk failed: the process ends.
    DiskFailed(String),
    /// A piece of work ended.
    Work(WorkId, Report),
    /// A driver saw something.
    Seen(GroupName, Sight),
    /// Something came of a fence task.
    Fenced(TaskId, Fenced),
    /// What the fence devices could prove.
    Prospects(Vec<Prospect>),
    /// A person asks.
    Asked(Asked),
    /// End in an orderly way.
    Stop,
}

/// Everything that the loop owns.
pub(super) struct Loop {
    pub(super) engine: Engine,
    pub(super) config: AgentConfig,
    pub(super) transport: TransportHandle,
    /// What comes from the transport, and from everybody else.
    pub(super) from: (mpsc::Receiver<TransportEvent>, mpsc::Receiver<Incoming>),
    pub(super) inbox: mpsc::Sender<Incoming>,
    pub(super) votes: Votes,
    pub(super) keeper: Option<KeeperEnd>,
    pub(super) journal: Journal,
    pub(super) fence: FenceDriver,
    pub(super) audit: AuditTrail,
    pub(super) metrics: Arc<Metrics>,
    pub(super) beside: Beside,
}

/// This host's vote: its disk, and what ends it.
pub(super) struct Votes {
    pub(super) agent: AgentInstance,
    pub(super) writes: Option<DiskThread>,
    /// Counts the stores of this process: what an earlier one has written concerns nobody any more.
    pub(super) number: u64,
    pub(super) generation: Option<Generation>,
}

/// State of the running loop besides what it was given.
struct Running {
    workers: Workers,
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
    tickets: u64,
    /// The version byte that each peer was last told to send and that isn't read here.
    undecodable: BTreeMap<HostName, Option<u8>>,
    resting: resting::Told,
    encoded: Encoded,
    /// When this machine was last seen to be the one it was.
    looked: Option<Instant>,
    memory: Memory,
}

impl Loop {
    pub(super) async fn run(mut self) -> Result<(), RunError> {
        let workers = {
            let _beside = self.beside.enter();
            Workers::new(self.site(), self.inbox.clone())
        };
        let (answers, undecodable) = (BTreeMap::new(), BTreeMap::new());
        let mut running = Running {
            workers,
            answers,
            tickets: 0,
            undecodable,
            resting: resting::Told::default(),
            encoded: Encoded::default(),
            looked: None,
            memory: Memory::new(),
        };
        stop_on_signals(self.inbox.clone())?;
        let effects = self.engine.step(now(), Input::Wake);
        self.perform(effects, &mut running)?;
        loop {
            self.look_at_keeper(&mut running)?;
            self.look_about(&mut running)?;
            let wake_at = Instant::now() + self.until_deadline();
            let wake = self.transport.alarm(wake_at);
            // Biased: what the kernel received is handed in before the clock is looked at, so that a late loop never
            // takes its own lateness for a peer's silence.
            let input = tokio::select! {
                biased;
                event = self.from.0.recv() => match event {
                    Some(event) => self.hear(event, &mut running)?,
                    None => return Err(RunError::Halted("the transport ended".into())),
                },
                incoming = self.from.1.recv() => match incoming {
                    Some(Incoming::Stop) | None => {
                        let _told = tokio::time::timeout(GOODBYE, self.transport.clone().shutdown()).await;
                        return Ok(());
                    }
                    Some(Incoming::DiskFailed(because)) => return Err(RunError::Halted(because)),
                    Some(Incoming::Fenced(task, Fenced::Finished)) => {
                        self.fence.finished(task);
                        Some(Input::Fenced { task, fenced: Fenced::Finished })
                    }
                    Some(Incoming::Persisted(number, persisted)) => {
                        (number == self.votes.number).then(|| Input::Persisted(Box::new(persisted)))
                    }
                    Some(incoming) => {
                        if self.metrics.take_wish() {
                            self.metrics.machine(&measure::machine(&self.transport, &self.engine));
                        }
                        running.take(incoming)
                    }
                },
                () = wake => {
                    let late = wake_at.elapsed();
                    self.metrics.late(late.as_secs_f64());
                    let came = if late < LATE { Vec::new() } else { catch_up(&mut self.from.0).await };
                    for event in came {
                        self.hear_one(event, &mut running)?;
                    }
                    Some(Input::Wake)
                }
            };
            if let Some(input) = input {
                self.step(input, &mut running)?;
            }
        }
    }

    /// Beats that came together are judged together. What came last, or a look at the clock, is the caller's to step.
    fn hear(&mut self, mut event: TransportEvent, running: &mut Running) -> Result<Option<Input>, RunError> {
        for _ in 0..TOGETHER_MAX {
            let Ok(next) = self.from.0.try_recv() else { break };
            self.hear_one(event, running)?;
            event = next;
        }
        Ok(self.translate(event, running).or(Some(Input::Wake)))
    }

    fn hear_one(&mut self, event: TransportEvent, running: &mut Running) -> Result<(), RunError> {
        match self.translate(event, running) {
            Some(input @ Input::Datagram { .. }) => self.engine.hear(now(), input),
            Some(input) => self.step(input, running)?,
            None => {}
        }
        Ok(())
    }

    fn step(&mut self, input: Input, running: &mut Running) -> Result<(), RunError> {
        let effects = self.engine.step(now(), input);
        self.fence.refresh(&self.engine);
        self.rest(running);
        self.perform(effects, running)
    }

    fn rest(&self, running: &mut Running) {
        let (rest, beat) = (self.engine.rest(), self.engine.next_beat().unwrap_or_default());
        if let Some(rest) = running.resting.news(rest, beat, || (now().moment, Instant::now())) {
            self.transport.rest(rest);
        }
    }

    /// Whenever the loop runs: that costs no look into a page that nobody wrote since.
    fn look_at_keeper(&mut self, running: &mut Running) -> Result<(), RunError> {
        match self.keeper.as_mut().and_then(KeeperEnd::look) {
            Some(page) => self.step(Input::Keeper(page), running),
            None => Ok(()),
        }
    }

    /// Once a second, by whatever wakes the loop next: something does many times as often.
    fn look_about(&mut self, running: &mut Running) -> Result<(), RunError> {
        if running.looked.is_some_and(|at| at.elapsed() < generation::LOOK_EVERY) {
            return Ok(());
        }
        running.looked = Some(Instant::now());
        running.encoded.forget();
        running.memory.look();
        match self.rolled_back() {
            Some(input) => self.step(input, running),
            None => Ok(()),
        }
    }

    fn rolled_back(&mut self) -> Option<Input> {
        self.votes.generation.as_ref().filter(|generation| generation.has_changed())?;
        let because = "this machine was rolled back to an earlier state, or copied".to_owned();
        Some(Input::RolledBack { because })
    }

    fn join(&mut self, voter: VoterId, era: Era) -> Result<Vote, RunError> {
        let (disk, vote) = super::start::join(&self.config, (voter, era), self.votes.agent)?;
        self.votes.number += 1;
        self.votes.writes = Some(start_disk(disk, &self.inbox, self.votes.number));
        Ok(vote)
    }

    /// The store is kept for people and never used again. If that fails the process ends: the next start would go on
    /// with a vote that is over.
    fn end_vote(&mut self, voter: VoterId, because: &str) -> Result<(), RunError> {
        tracing::error!(%voter, because, "this host's vote ended; its store is put aside");
        self.votes.writes = None;
        self.votes.number += 1;
        let dir = &self.config.data_dir;
        let aside = put_aside(dir, Some(voter)).and_then(|()| match &mut self.votes.generation {
            // Only after the store that it speaks about is gone.
            Some(generation) => generation.renew().and_then(|()| generation.keep(dir)),
            None => Ok(()),
        });
        aside.map_err(|source| RunError::File { doing: format!("put the store of voter {voter} aside"), source })
    }

    fn site(&self) -> Site {
        let peers = self.config.peers.iter();
        Site {
            host: self.config.host.clone(),
            run_dir: self.config.run_dir.clone(),
            slice: self.config.keeper.as_ref().map(|keeper| keeper.slice.clone()),
            identity: identity_files(&self.config),
            address: self.config.listen[0].ip(),
            peers: peers.filter_map(|peer| Some((peer.host.clone(), peer.addresses.first()?.ip()))).collect(),
            transport: self.transport.clone(),
            kept: crate::admin::kept::store(&self.config.data_dir),
            spec: None,
        }
    }

    fn until_deadline(&self) -> Duration {
        let now = now().moment;
        let left = self.engine.deadline().map(|at| {
            let (boot, raw) = (at.boot_ns.saturating_sub(now.boot_ns), at.raw_ns.saturating_sub(now.raw_ns));
            Duration::from_nanos(boot.max(raw))
        });
        let awaited = self.keeper.as_ref().is_some_and(KeeperEnd::is_awaited);
        left.unwrap_or(WAKE_MAX).min(if awaited { LOOK_EVERY } else { WAKE_MAX })
    }

    fn translate(&self, event: TransportEvent, running: &mut Running) -> Option<Input> {
        match event {
            TransportEvent::Datagram { from, path, bytes, received } => {
                let read = heartbeat::decode(&bytes).map_err(|error| (bytes.first().copied(), error.into()));
                let datagram = read.map_err(|why| running.undecodable(&self.transport, (&from, path), why)).ok()?;
                Some(Input::Datagram { from, path: path.0, datagram: Box::new(datagram), received })
            }
            TransportEvent::Message { from, channel, bytes } => {
                if channel != MESSAGES {
                    return None;
                }
                let read = engine::decode(&bytes).map_err(|error| (bytes.first().copied(), error.into()));
                let message = read.map_err(|why| running.undecodable(&self.transport, (&from, Path(0)), why)).ok()?;
                Some(Input::Message { from, message: Box::new(message) })
            }
            TransportEvent::Stream { from, kind, stream } => {
                running.workers.serve_stream(&from, kind, stream);
                None
            }
            TransportEvent::PathUp { peer, path, rtt } => {
                tracing::debug!(%peer, %path, ?rtt, "path up");
                Some(Input::Link { peer, up: true })
            }
            TransportEvent::PathDown { peer, path, because } => {
                tracing::info!(%peer, %path, ?because, "path down");
                Some(Input::Link { peer, up: false })
            }
            TransportEvent::Refused { peer, address, because, .. } => {
                tracing::warn!(?peer, %address, because = because.as_str(), "a connection was refused");
                None
            }
        }
    }

    fn send_message(&self, to: &[HostName], bytes: Result<Bytes, EncodeError>) {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(?to, %error, "a message outgrew its limit"),
        };
        for to in to {
            if let Err(error) = self.transport.send_message(to, MESSAGES, bytes.clone()) {
                tracing::debug!(%to, %error, "a message was not sent");
            }
        }
    }

    /// dispatcher: one arm an effect.
    fn perform(&mut self, effects: Vec<Effect>, running: &mut Running) -> Result<(), RunError> {
        for effect in effects {
            match effect {
                Effect::Datagram { to, datagram } => self.send_datagram(&[to], &datagram),
                Effect::Datagrams { to, datagram } => self.send_datagram(&to, &datagram),
                Effect::Message { to, message } => {
                    self.send_message(&[to], engine::encode(&message).map(Bytes::from));
                }
                Effect::Messages { to, message } => self.send_message(&to, running.encoded.of(&message)),
                Effect::Persist(write) => {
                    if self.votes.writes.as_ref().is_some_and(|disk| !disk.write(*write)) {
                        return Err(RunError::Halted("the voter's disk thread ended".into()));
                    }
                }
                Effect::Remember { voter, seen } => {
                    if self.votes.writes.as_ref().is_some_and(|disk| !disk.remember(voter, seen)) {
                        return Err(RunError::Halted("the voter's disk thread ended".into()));
                    }
                }
                Effect::Join { voter, era } => {
                    let vote = self.join(voter, era)?;
                    let effects = self.engine.step(now(), Input::Joined(Box::new(vote)));
                    self.perform(effects, running)?;
                }
                Effect::VoteEnded { voter, because } => self.end_vote(voter, &because)?,
                Effect::Keeper(order) => {
                    if let Some(keeper) = &mut self.keeper {
                        keeper.write(&order);
                    }
                }
                Effect::Work { id, group, host_epoch, work } => {
                    running.workers.start(Order { id, group, host_epoch, work });
                }
                Effect::Overtaken { group } => running.workers.overtaken(&group),
                Effect::Fence(order) => {
                    let permit = self.engine.fence_permit(TaskId(order.task));
                    self.fence.begin(*order, permit);
                }
                Effect::OutwaitFence { task, target, stamp } => self.fence.outwait(task, (target, stamp)),
                Effect::CancelFence { task, target, stamp, because } => self.fence.end(task, (target, stamp), because),
                Effect::FenceReadmitted { target, host_epoch } => self.fence.readmitted(target, host_epoch),
                Effect::Answer { ticket, answer } => {
                    if let Some(waiting) = running.answers.remove(&ticket) {
                        let _gone = waiting.send(*answer);
                    }
                }
                Effect::Spec(spec) => {
                    if let Err(error) = self.transport.update_peers(peers(&self.config, Some(&spec))) {
                        tracing::error!(%error, "the spec's addresses could not be used");
                    }
                    if self.config.voter.is_some() {
                        self.fence.spec(&spec);
                    }
                    running.workers.spec(spec);
                }
                Effect::Event(event) => {
                    let now = now();
                    self.journal.append(now.moment.boot_ns, now.wall_ms, &event);
                    journal::log(&event);
                    self.keep(&event, now.wall_ms);
                    self.metrics.event(&event, self.engine.ledger());
                }
                Effect::Halt { because } => return Err(RunError::Halted(because)),
            }
        }
        Ok(())
    }

    /// What is kept beside the journal: people's acts, and each revision of the spec.
    fn keep(&mut self, event: &Event, wall_ms: u64) {
        let Event::Applied { fact, .. } = event else { return };
        match fact.as_ref() {
            quorum::ledger::Event::Audited { record } => self.audit.append(record),
            quorum::ledger::Event::SpecSet { .. } => {
                crate::admin::keep_revision(&self.config.data_dir, &self.engine.spec_document(), wall_ms);
            }
            _ => {}
        }
    }

    /// On all paths.
    fn send_datagram(&self, to: &[HostName], datagram: &heartbeat::Datagram) {
        let bytes = match heartbeat::encode(datagram) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => return tracing::error!(?to, %error, "a beat outgrew its datagram"),
        };
        for to in to {
            for path in 0..self.config.listen.len() {
                let path = Path(u8::try_from(path).unwrap_or(u8::MAX));
                // Counted there; the peer judges by what it hears.
                let _unsent = self.transport.send_datagram(to, path, bytes.clone());
            }
        }
    }
}

impl Running {
    /// Counts what a peer sent and this release can't read. Said once for each version that a peer sends: beats come
    /// twenty times a second.
    fn undecodable(
        &mut self,
        transport: &TransportHandle,
        (from, path): (&HostName, Path),
        (version, error): (Option<u8>, Box<dyn std::error::Error>),
    ) {
        transport.count_undecodable(from, path);
        if self.undecodable.insert(from.clone(), version) != Some(version) {
            let because = error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            tracing::warn!(%from, because, "what a peer sends can't be read and is dropped: is its release another one?");
        }
    }

    fn take(&mut self, incoming: Incoming) -> Option<Input> {
        match incoming {
            Incoming::Work(id, report) => Some(Input::Work { id, report }),
            Incoming::Seen(group, sight) => Some(Input::Seen { group, sight }),
            Incoming::Fenced(task, fenced) => Some(Input::Fenced { task, fenced }),
            Incoming::Prospects(prospects) => Some(Input::Prospects(prospects)),
            Incoming::Asked(asked) => {
                self.tickets += 1;
                self.answers.insert(self.tickets, asked.answer);
                Some(Input::Operator { ticket: self.tickets, by: asked.by, request: Box::new(asked.request) })
            }
            Incoming::Stop | Incoming::DiskFailed(_) | Incoming::Persisted(..) => None,
        }
    }
}

/// SIGTERM and SIGINT end the agent. Its groups go on: the next agent adopts them within the slack.
fn stop_on_signals(inbox: mpsc::Sender<Incoming>) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|source| RunError::File { doing: "listen for signals".into(), source });
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _gone = inbox.send(Incoming::Stop).await;
    });
    Ok(())
}
