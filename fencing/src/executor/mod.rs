//! The executor: the async driver that carries out fence orders at this site and keeps proving that it could.
//!
//! [`Executor::start`] gives a [`Handle`]. Each order runs in a session of its own; device calls are bounded in number
//! and time, one at a time per endpoint, orders before scheduled readings; every attempt is in the journal before it is
//! made. Late calls are refused three times over: by the gate (newest decision per host), by the order's own time
//! (suspend counted), by the agent's guard, all asked last thing before each irreversible step.
//! Contract: after [`Report::Finished`], or once [`Handle::quiet`] returns, no call of the task can reach a device any
//! more, including those that a crashed predecessor of this process had begun.
//! Not here: who orders (the ledger), what evidence means for groups (the agent), trying other sites (`relay`).

mod call;
pub mod clock;
mod drive;
mod lane;
pub(crate) mod proofs;
mod scribe;
mod status;

pub use call::Guard;
pub use proofs::Tested;
pub use status::{DeviceStatus, DryCall, DryLevel, DryRun, Status};

use crate::config::{Built, FencingConfig, Params};
use crate::findings::ProofRecord;
use crate::gate::{Gate, Refusal};
use crate::journal::{Event, Interrupted, Journal, JournalError, TaskKey};
use crate::moment::Moment;
use crate::name::{DeviceName, HostName};
use crate::plan::{NoPlan, Plan};
use crate::request::{FenceOrder, Stamp};
use crate::session::{Input, Note, Session};
use crate::silence::Silence;
use crate::topology::Problem;
use crate::verdict::Verdict;
use clock::Clock;
use drive::Lines;
use lane::{Lanes, Slot};
use scribe::Scribe;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// Why the executor can't start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has problems; all of them.
    #[error("the fencing configuration has {} problems", .0.len())]
    Config(Vec<Problem>),
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A thread can't be started.
    #[error("start the journal's thread")]
    Thread(#[source] std::io::Error),
}

/// Why an order isn't carried out. Nothing was sent to any device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A newer decision stands, or the host was admitted again.
    #[error(transparent)]
    Gate(#[from] Refusal),
    /// There is nothing to carry out.
    #[error(transparent)]
    NoPlan(#[from] NoPlan),
    /// The same task is under way already.
    #[error("this task is under way already")]
    UnderWay,
    /// The order can't be recorded.
    #[error("the order can't be recorded: {0}")]
    Journal(String),
    /// The agent's guard doesn't let it begin.
    #[error("{0}")]
    Guard(String),
}

/// What is told about an order, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "report")]
pub enum Report {
    /// Something happened.
    Noted {
        /// When.
        at: Moment,
        /// What.
        note: Note,
    },
    /// The verdict. Calls may still be ending.
    Concluded {
        /// When.
        at: Moment,
        /// It.
        verdict: Verdict,
        /// Places all of whose devices are silent, as far as this order met one of them.
        silences: Vec<Silence>,
        /// Devices that were told to switch off: a person may have to switch them on again.
        told: BTreeSet<DeviceName>,
    },
    /// Every call has come back; the last report.
    Finished {
        /// When.
        at: Moment,
    },
}

/// Starts executors.
#[derive(Clone, Copy, Debug)]
pub struct Executor;

impl Executor {
    /// Starts an executor with its journal in `home`. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: &FencingConfig, home: &Path) -> Result<Handle, StartError> {
        let built = config.build().map_err(StartError::Config)?;
        let boot = clock::boot_id();
        let (journal, recovered) = Journal::open(home, &boot)?;
        if recovered.damaged > 0 {
            tracing::warn!(lines = recovered.damaged, "the fencing journal has lines that can't be read");
        }
        let scribe = Scribe::start(journal, boot).map_err(StartError::Thread)?;
        let records = proofs::load(home);
        let state = State {
            slots: BTreeMap::new(),
            built,
            params: config.params.clone(),
            gate: recovered.gate,
            tasks: BTreeMap::new(),
            interrupted: recovered.interrupted,
            records,
        };
        let inner = Arc::new(Inner {
            clock: Clock::start(),
            home: home.to_owned(),
            scribe,
            lanes: Lanes::default(),
            calls: Arc::new(Semaphore::new(config.params.calls_max.max(1))),
            readings: Arc::new(Semaphore::new(config.params.readings_max.max(1))),
            state: Mutex::new(state),
            changed: watch::channel(0).0,
        });
        inner.lay_lanes();
        proofs::schedule(&inner);
        Ok(Handle { inner })
    }
}

struct State {
    built: Built,
    slots: BTreeMap<DeviceName, Slot>,
    params: Params,
    gate: Gate,
    tasks: BTreeMap<TaskKey, mpsc::UnboundedSender<Input>>,
    interrupted: Vec<Interrupted>,
    records: BTreeMap<DeviceName, ProofRecord>,
}

struct Inner {
    clock: Clock,
    home: PathBuf,
    scribe: Scribe,
    lanes: Lanes,
    calls: Arc<Semaphore>,
    readings: Arc<Semaphore>,
    state: Mutex<State>,
    /// Counts ended tasks and changed configurations.
    changed: watch::Sender<u64>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it; if something did, the data are still whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lay_lanes(&self) {
        let mut state = self.state();
        let slot = |device: &Arc<dyn crate::device::Device>| Slot {
            device: device.clone(),
            lane: self.lanes.of(device.facts()),
        };
        state.slots = state.built.devices.iter().map(|(name, device)| (name.clone(), slot(device))).collect();
    }

    fn slot(&self, device: &DeviceName) -> Option<Slot> {
        self.state().slots.get(device).cloned()
    }

    fn check_gate(&self, key: &TaskKey) -> Result<(), String> {
        self.state().gate.check(&key.target, key.he, key.stamp).map_err(|refusal| refusal.to_string())
    }

    fn task_finished(&self, key: &TaskKey) {
        let idle = {
            let mut state = self.state();
            state.tasks.remove(key);
            state.tasks.is_empty().then(|| state.gate.clone())
        };
        if let Some(gate) = idle {
            self.scribe.rotate(gate);
        }
        self.changed.send_modify(|count| *count += 1);
    }
}

/// The key of an order's task.
fn key_of(order: &FenceOrder) -> TaskKey {
    TaskKey { target: order.target.clone(), he: order.he, stamp: order.stamp }
}

/// Speaks to a running executor. Dropping the last handle stops the scheduled readings; orders under way go on to their end.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

impl Handle {
    /// Carries out `order`. The reports end with [`Report::Finished`]; dropping the receiver doesn't stop the order.
    ///
    /// # Errors
    /// [`Refused`]: nothing was sent to any device.
    pub async fn run(&self, order: FenceOrder, guard: Guard) -> Result<mpsc::UnboundedReceiver<Report>, Refused> {
        let plan = Plan::of(&self.inner.state().built.topology, &order)?;
        guard(&order).map_err(Refused::Guard)?;
        let key = key_of(&order);
        let (steer, control) = mpsc::unbounded_channel();
        {
            let mut state = self.inner.state();
            if state.tasks.contains_key(&key) {
                return Err(Refused::UnderWay);
            }
            state.gate.admit(&key.target, key.he, key.stamp)?;
            // A newer decision about the same host ends the older ones.
            let older = state.tasks.iter().filter(|(other, _)| other.target == key.target && other.stamp < key.stamp);
            for (_, control) in older {
                let _ = control.send(Input::Cancelled { because: format!("overtaken by the task at {}", key.stamp) });
            }
            state.tasks.insert(key.clone(), steer);
        }
        if let Err(because) = self.inner.scribe.record(Some(&key), &Event::Ordered { order: &order }).await {
            self.inner.task_finished(&key);
            return Err(Refused::Journal(because));
        }
        let (reports, listener) = mpsc::unbounded_channel();
        let session = Session::new(plan, self.inner.clock.now());
        tokio::spawn(drive::drive(self.inner.clone(), session, Lines { control, reports, guard }));
        Ok(listener)
    }

    /// Calls off everything about `target` up to `stamp`, also what hasn't arrived yet, and returns when no call of it
    /// can reach a device any more.
    ///
    /// # Errors
    /// Says why it couldn't be recorded; it holds in this process all the same.
    pub async fn cancel(&self, target: &HostName, stamp: Stamp, because: &str) -> Result<(), String> {
        let he = {
            let mut state = self.inner.state();
            state.gate.cancel(target, stamp);
            let mine = state.tasks.iter().filter(|(key, _)| key.target == *target && key.stamp <= stamp);
            let mut he = 0;
            for (key, control) in mine {
                he = he.max(key.he);
                let _ = control.send(Input::Cancelled { because: because.to_owned() });
            }
            he
        };
        let key = TaskKey { target: target.clone(), he, stamp };
        let written = self.inner.scribe.record(Some(&key), &Event::Cancelled { because }).await;
        self.quiet(target, stamp).await;
        written
    }

    /// Says that the ledger has evidence from elsewhere for `target`: orders about it up to `stamp` end.
    pub fn proven_elsewhere(&self, target: &HostName, stamp: Stamp, by: &str) {
        let state = self.inner.state();
        for (_, control) in state.tasks.iter().filter(|(key, _)| key.target == *target && key.stamp <= stamp) {
            let _ = control.send(Input::ProvenElsewhere { by: by.to_owned() });
        }
    }

    /// Says that `target` was admitted under `he`: orders about older epochs are refused from now on.
    ///
    /// # Errors
    /// Says why it couldn't be recorded; it holds in this process all the same.
    pub async fn admitted(&self, target: &HostName, he: u64) -> Result<(), String> {
        {
            let mut state = self.inner.state();
            state.gate.admitted_again(target, he);
            for (_, control) in state.tasks.iter().filter(|(key, _)| key.target == *target && key.he < he) {
                let _ = control.send(Input::Cancelled { because: format!("the host was admitted again, epoch {he}") });
            }
        }
        let key = TaskKey { target: target.clone(), he, stamp: Stamp::default() };
        self.inner.scribe.record(Some(&key), &Event::Admitted).await
    }

    /// Returns when no call about `target` up to `stamp` can reach a device any more.
    pub async fn quiet(&self, target: &HostName, stamp: Stamp) {
        let mut changed = self.inner.changed.subscribe();
        while self.inner.state().tasks.keys().any(|key| key.target == *target && key.stamp <= stamp) {
            if changed.changed().await.is_err() {
                return;
            }
        }
        let left = self.left_of_predecessors(target, stamp);
        tokio::time::sleep(left).await;
        let mut state = self.inner.state();
        let ended = |one: &Interrupted| one.task.target == *target && one.task.stamp <= stamp;
        for one in state.interrupted.iter().filter(|one| ended(one)) {
            self.inner.scribe.note(Some(&one.task), &Event::Finished);
        }
        state.interrupted.retain(|one| !ended(one));
    }

    /// Tasks that a predecessor of this process left unfinished: they aren't taken up again, the ledger decides anew.
    pub fn interrupted(&self) -> Vec<Interrupted> {
        self.inner.state().interrupted.clone()
    }

    /// Takes another configuration. Orders under way keep their plan; a device that is gone is troubled from now on.
    ///
    /// # Errors
    /// Every problem; the old configuration stays in force.
    pub fn reload(&self, config: &FencingConfig) -> Result<(), Vec<Problem>> {
        let built = config.build()?;
        {
            let mut state = self.inner.state();
            state.records.retain(|device, _| built.devices.contains_key(device));
            state.built = built;
            state.params = config.params.clone();
        }
        self.inner.lay_lanes();
        self.inner.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The last `count` records of the journal, oldest first.
    ///
    /// # Errors
    /// Says why it can't be read.
    pub async fn history(&self, count: usize) -> Result<Vec<serde_json::Value>, String> {
        self.inner.scribe.last(count).await
    }

    fn left_of_predecessors(&self, target: &HostName, stamp: Stamp) -> Duration {
        let state = self.inner.state();
        let about = state.interrupted.iter().filter(|one| one.task.target == *target && one.task.stamp <= stamp);
        let until = about.filter_map(|one| one.until_boottime_ms).max().map(Duration::from_millis);
        until.map_or(Duration::ZERO, |until| until.saturating_sub(clock::boottime()))
    }
}
