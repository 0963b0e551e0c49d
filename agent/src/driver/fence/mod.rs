//! Drives this host's fence devices: the engine's orders to the fencing crate's executor, its verdicts back.
//!
//! Contract: `Fenced::Finished` is handed in once for each order, when nothing of it can reach a device any more. The
//! engine's permit is refreshed after each of its steps and asked last thing before each device call; a permit that
//! isn't refreshed ends with this host's lease.
//!
//! Not here: whether to fence (`engine`), what evidence is and how devices are called (`fencing`).

mod prospects;

use crate::config::{ClusterSpec, fencing_config};
use crate::driver::clock;
use crate::driver::runtime::Incoming;
use crate::engine::{Engine, Fenced};
use fencing::executor::StartError;
use fencing::name::HostName;
use fencing::request::Stamp;
use fencing::{Executor, FenceOrder, FencingConfig, Guard, Handle, Report, Verdict};
use prospects::Paths;
use quorum::id::TaskId;
use quorum::moment::Moment;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often the scheduled readings are looked at for the engine.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Until when each task under way may call devices, or why it may not.
type Permits = Arc<Mutex<BTreeMap<TaskId, Result<Moment, String>>>>;

/// The fence devices of this host.
pub struct FenceDriver {
    handle: Handle,
    inbox: mpsc::Sender<Incoming>,
    permits: Permits,
    paths: watch::Sender<Paths>,
    /// Where it was started: devices and the journal may keep a thread.
    runtime: tokio::runtime::Handle,
}

impl FenceDriver {
    /// A driver without devices, its journal in `home`. To be called within the tokio runtime that its tasks are to run in.
    ///
    /// # Errors
    /// [`StartError`]: nothing may be fenced from here without a journal.
    pub fn start(home: &Path, inbox: mpsc::Sender<Incoming>) -> Result<Self, StartError> {
        let handle = Executor::start(&FencingConfig::default(), home)?;
        let (paths, watched) = watch::channel(Paths::default());
        tokio::spawn(look(handle.clone(), watched, inbox.clone()));
        Ok(Self { handle, inbox, permits: Permits::default(), paths, runtime: tokio::runtime::Handle::current() })
    }

    /// What status, tests and dry runs are asked of.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The spec in force changed. Orders under way keep their plan.
    pub fn spec(&self, spec: &ClusterSpec) {
        match self.handle.reload(&fencing_config(spec)) {
            Ok(()) => drop(self.paths.send_replace(Paths::of(spec))),
            Err(problems) => {
                let because: Vec<String> = problems.iter().map(ToString::to_string).collect();
                tracing::error!(
                    because = because.join("; "),
                    "the spec's fence devices can't be driven; the old ones are"
                );
            }
        }
    }

    /// Carries out an order.
    pub fn begin(&self, order: FenceOrder, permit: Result<Moment, String>) {
        let task = TaskId(order.task);
        self.permits().insert(task, permit);
        let (handle, inbox, guard) = (self.handle.clone(), self.inbox.clone(), self.guard());
        tracing::info!(%task, host = %order.target, he = order.he, because = "the log says so", "fencing begins");
        self.runtime.spawn(async move {
            match handle.run(order, guard).await {
                Ok(mut reports) => {
                    while let Some(report) = reports.recv().await {
                        if let Some(fenced) = said(report) {
                            let _gone = inbox.send(Incoming::Fenced(task, fenced)).await;
                        }
                    }
                }
                Err(refused) => {
                    let because = refused.to_string();
                    for fenced in [Fenced::Unproven { because }, Fenced::Finished] {
                        let _gone = inbox.send(Incoming::Fenced(task, fenced)).await;
                    }
                }
            }
        });
    }

    /// Waits until nothing that an earlier process of this agent began about `target` can reach a device any more.
    pub fn outwait(&self, task: TaskId, (target, stamp): (HostName, Stamp)) {
        let (handle, inbox) = (self.handle.clone(), self.inbox.clone());
        self.runtime.spawn(async move {
            handle.quiet(&target, stamp).await;
            let _gone = inbox.send(Incoming::Fenced(task, Fenced::Finished)).await;
        });
    }

    /// Ends everything about `target` up to `stamp`.
    pub fn end(&self, task: TaskId, (target, stamp): (HostName, Stamp), because: String) {
        self.permits().insert(task, Err(because.clone()));
        let (handle, inbox) = (self.handle.clone(), self.inbox.clone());
        self.runtime.spawn(async move {
            if let Err(error) = handle.cancel(&target, stamp, &because).await {
                tracing::error!(%task, error, "the end of fencing can't be recorded; it holds while this agent lives");
            }
            let _gone = inbox.send(Incoming::Fenced(task, Fenced::Finished)).await;
        });
    }

    /// A host was admitted again.
    pub fn readmitted(&self, target: HostName, host_epoch: u64) {
        let handle = self.handle.clone();
        self.runtime.spawn(async move {
            if let Err(error) = handle.admitted(&target, host_epoch).await {
                tracing::error!(host = %target, error, "an admission can't be recorded in the fencing journal");
            }
        });
    }

    /// What the engine says now of each task under way.
    pub fn refresh(&self, engine: &Engine) {
        for (task, permit) in self.permits().iter_mut() {
            *permit = engine.fence_permit(*task);
        }
    }

    /// A task has finished: nothing asks for its permit any more.
    pub fn finished(&self, task: TaskId) {
        self.permits().remove(&task);
    }

    fn permits(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, Result<Moment, String>>> {
        // Nothing panics while holding it.
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(&self) -> Guard {
        let permits = Arc::clone(&self.permits);
        Arc::new(move |order| {
            let permits = permits.lock().unwrap_or_else(PoisonError::into_inner);
            let until = permits.get(&TaskId(order.task)).cloned().unwrap_or(Err("the task is over here".to_owned()))?;
            let is_over = clock::now().either_reached(until);
            if is_over { Err("this host's lease ran out before the call".to_owned()) } else { Ok(()) }
        })
    }
}

fn said(report: Report) -> Option<Fenced> {
    match report {
        Report::Noted { note, .. } => {
            tracing::debug!(?note, "fencing");
            None
        }
        Report::Concluded { verdict: Verdict::Proven { evidence }, .. } => Some(Fenced::Proven(Box::new(evidence))),
        Report::Concluded { verdict: Verdict::Unproven(why), silences, .. } => {
            let silent: String = silences.iter().map(|silence| format!("; {silence}")).collect();
            Some(Fenced::Unproven { because: format!("{why}{silent}") })
        }
        Report::Finished { .. } => Some(Fenced::Finished),
    }
}

/// Tells the engine what the devices could prove, as their scheduled readings say.
async fn look(handle: Handle, paths: watch::Receiver<Paths>, inbox: mpsc::Sender<Incoming>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_empty = true;
    loop {
        looks.tick().await;
        let prospects = paths.borrow().prospects(&handle.status());
        let is_empty = prospects.is_empty();
        if !(is_empty && was_empty) && inbox.send(Incoming::Prospects(prospects)).await.is_err() {
            return;
        }
        was_empty = is_empty;
    }
}
