//! Kind `qemu`: a guest run directly by QEMU, spoken to over QMP.
//!
//! QEMU is started as a daemon, paused, inside the group's cgroup; its taps are plugged in; then the guest may run. It
//! outlives the agent: a new driver for the same place finds it by its command line ([`process`]) and its sockets
//! ([`runtime`]). The driver keeps no state of its own.
//!
//! Not here: the mirror that lives inside this QEMU (`crate::replication::nbd` has its own monitor), the guest's agent.

pub mod accelerator;
pub mod args;
pub mod process;
pub mod qmp;
pub mod runtime;
pub mod spec;
pub mod tap;

use super::{
    Begin, Doing, Ended, Place, Preflight, Presence, StartOrder, StopOrder, VolumeAt, Workload, WorkloadError,
};
use crate::command::daemon::{self, Daemon};
use crate::command::{CommandError, Invocation, Program};
use qapi::qmp as orders;
use qmp::{Qmp, QmpError};
use runtime::QemuRuntime;
use spec::QemuSpec;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::time::Duration;

/// The program that runs guests, from Debian's package `qemu-system-x86`.
pub const QEMU: &str = "qemu-system-x86_64";

/// How long a monitor may take to answer. It answers in a millisecond unless the host is starved.
const MONITOR_LIMIT: Duration = Duration::from_secs(5);

/// How long a killed QEMU may take to be gone before its fate counts as unknown.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Runs one group as a QEMU guest.
#[derive(Debug)]
pub struct Qemu {
    place: Place,
    spec: QemuSpec,
    runtime: QemuRuntime,
}

impl Qemu {
    /// A driver for the group at this place.
    pub fn new(place: Place, spec: QemuSpec) -> Self {
        let runtime = QemuRuntime::new(&place.runtime);
        Self { place, spec, runtime }
    }

    /// Where its sockets are.
    pub fn runtime(&self) -> &QemuRuntime {
        &self.runtime
    }

    async fn find(&self) -> Result<Vec<Daemon>, String> {
        let (runtime, place) = (self.runtime.clone(), self.place.clone());
        let looked = tokio::task::spawn_blocking(move || process::find(&runtime, &place)).await;
        looked.unwrap_or_else(|error| Err(format!("look for processes: {error}")))
    }

    /// Gives one command and hangs up: the monitor serves one client at a time.
    async fn tell<C: qapi::Command>(&self, command: C) -> Result<C::Ok, QmpError> {
        Qmp::connect(&self.runtime.control(), MONITOR_LIMIT).await?.execute(command).await
    }

    async fn check(&self, volumes: &[VolumeAt]) -> Result<(Program, Preflight, args::Found), WorkloadError> {
        let refused = |because: String| WorkloadError::Refused { because };
        let mut problems = args::problems(&self.spec, &self.runtime, volumes);
        let mut is_device = Vec::new();
        for volume in volumes {
            match fs::metadata(&volume.path) {
                Ok(meta) if meta.is_file() => is_device.push(false),
                Ok(meta) if meta.file_type().is_block_device() => is_device.push(true),
                Ok(_) => problems.push(format!("{} is neither a file nor a block device", volume.path.display())),
                Err(error) => problems.push(format!("volume {}: {error}", volume.path.display())),
            }
        }
        for bridge in self.spec.nics.iter().map(|nic| &nic.bridge).filter(|bridge| !tap::is_bridge(bridge)) {
            problems.push(format!("{bridge} is no bridge here"));
        }
        for path in [&self.spec.kernel, &self.spec.initrd].into_iter().flatten().filter(|path| !path.is_file()) {
            problems.push(format!("{} is no file here", path.display()));
        }
        if !self.place.cgroup.join("cgroup.procs").is_file() {
            problems.push(format!("{} is no cgroup", self.place.cgroup.display()));
        }
        if !problems.is_empty() {
            return Err(refused(problems.join("; ")));
        }
        let qemu = Program::find(QEMU).map_err(|error| refused(error.to_string()))?;
        self.make_runtime_folder()
            .map_err(|error| refused(format!("make {}: {error}", self.place.runtime.display())))?;
        let accelerator =
            accelerator::choose(&qemu, self.spec.accelerator, self.runtime.folder()).await.map_err(refused)?;
        let notes = vec![format!("accelerator {}: {}", accelerator.name, accelerator.because)];
        Ok((qemu, Preflight { notes }, args::Found { accelerator: accelerator.name, is_device }))
    }

    fn make_runtime_folder(&self) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.runtime.folder())
    }

    /// True if the group runs already under this order.
    async fn is_started(&self, order: &StartOrder) -> Result<bool, WorkloadError> {
        match self.find().await {
            Ok(found) => match found.as_slice() {
                [] => Ok(false),
                [one, ..] => match process::grant_of(one) {
                    Ok(grant) if grant == (order.epoch, order.host_epoch) => Ok(true),
                    Ok((epoch, _)) => Err(WorkloadError::Occupied { epoch }),
                    Err(because) => Err(WorkloadError::Unknown { because }),
                },
            },
            Err(because) => Err(WorkloadError::Unknown { because }),
        }
    }

    async fn start_it(&self, order: &StartOrder) -> Result<(), WorkloadError> {
        if self.is_started(order).await? {
            return self.bring_up(order).await.map_err(|because| WorkloadError::Unknown { because });
        }
        let (qemu, _, found) = self.check(&order.volumes).await?;
        let line = args::command_line(&self.spec, &self.place, order, &found)?;
        self.tidy_up();
        let run = Invocation::new(&qemu, order.limit).args(line).cgroup(&self.place.cgroup).run().await;
        let begun = match run {
            Ok(outcome) if outcome.is_success() => self.bring_up(order).await,
            Ok(outcome) => Err(outcome.summary()),
            Err(error @ CommandError::NotFound { .. } | error @ CommandError::NotStarted { .. }) => {
                return Err(WorkloadError::Refused { because: error.to_string() });
            }
            Err(error) => Err(error.to_string()),
        };
        match begun {
            Ok(()) => Ok(()),
            Err(because) => Err(self.give_up(because).await),
        }
    }

    /// Plugs in the taps and lets the guest run, as far as that is still to be done.
    async fn bring_up(&self, order: &StartOrder) -> Result<(), String> {
        for (index, nic) in self.spec.nics.iter().enumerate() {
            let tap = args::tap_name(self.place.group.as_str(), index);
            tap::plug(&tap, &nic.bridge).map_err(|error| format!("plug {tap} into {}: {error}", nic.bridge))?;
        }
        match order.begin {
            Begin::Running => self.tell(orders::cont {}).await.map(drop).map_err(|error| chain(&error)),
            Begin::Paused => self.tell(orders::query_status {}).await.map(drop).map_err(|error| chain(&error)),
        }
    }

    /// After a failed start: nothing may be left of it.
    async fn give_up(&self, because: String) -> WorkloadError {
        match self.kill_it(KILL_LIMIT).await {
            Ok(_) => WorkloadError::Failed { because },
            Err(error) => WorkloadError::Unknown { because: format!("{because}; then {error}") },
        }
    }

    async fn stop_it(&self, order: &StopOrder) -> Result<Ended, WorkloadError> {
        let found = self.find().await.map_err(|because| WorkloadError::Unknown { because })?;
        let [guest] = found.as_slice() else { return self.kill_it(order.kill).await };
        if !order.ask.is_zero()
            && self.tell(orders::system_powerdown {}).await.is_ok()
            && guest.is_gone_within(order.ask).await
        {
            self.tidy_up();
            return Ok(Ended::ByItself);
        }
        // QEMU flushes its drives before it ends. A monitor that doesn't answer leaves the kill.
        if self.tell(orders::quit {}).await.is_ok() && guest.is_gone_within(order.quit).await {
            self.tidy_up();
            return Ok(Ended::Flushed);
        }
        self.kill_it(order.kill).await
    }

    async fn kill_it(&self, limit: Duration) -> Result<Ended, WorkloadError> {
        let was_there = daemon::end_all(limit, || process::find(&self.runtime, &self.place)).await;
        let was_there = was_there.map_err(|because| WorkloadError::Unknown { because })?;
        self.tidy_up();
        Ok(if was_there { Ended::Killed } else { Ended::WasAbsent })
    }

    /// Removes sockets and process id file of a guest that is gone. What can't be removed does no harm: a start has QEMU
    /// name it, and no observation rests on these files.
    fn tidy_up(&self) {
        for entry in fs::read_dir(self.runtime.folder()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "qmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = fs::remove_file(self.runtime.pid_file());
    }

    async fn observe_it(&self) -> Presence {
        let found = match self.find().await {
            Ok(found) => found,
            Err(because) => return Presence::Unknown { because },
        };
        let guest = match found.as_slice() {
            [] => return Presence::Absent,
            [guest] => guest,
            many => return Presence::Unknown { because: format!("{} QEMU processes of this group", many.len()) },
        };
        let (epoch, host_epoch) = match process::grant_of(guest) {
            Ok(grant) => grant,
            Err(because) => return Presence::Unknown { because },
        };
        let begin = match self.status().await {
            Ok(true) => Begin::Running,
            Ok(false) => Begin::Paused,
            // It exists; not knowing whether it executes, it counts as executing.
            Err(_) => Begin::Running,
        };
        Presence::Running { epoch, host_epoch, begin }
    }

    async fn status(&self) -> Result<bool, QmpError> {
        Ok(self.tell(orders::query_status {}).await?.running)
    }

    async fn probe_it(&self) -> Result<(), WorkloadError> {
        let unknown = |error: QmpError| WorkloadError::Unknown { because: chain(&error) };
        let status = self.tell(orders::query_status {}).await.map_err(unknown)?;
        if status.running {
            return Ok(());
        }
        Err(WorkloadError::Refused { because: format!("the guest doesn't execute: {:?}", status.status) })
    }
}

impl Workload for Qemu {
    fn preflight<'a>(&'a self, volumes: &'a [VolumeAt]) -> Doing<'a, Result<Preflight, WorkloadError>> {
        Box::pin(async { self.check(volumes).await.map(|(_, preflight, _)| preflight) })
    }

    fn start<'a>(&'a self, order: &'a StartOrder) -> Doing<'a, Result<(), WorkloadError>> {
        Box::pin(self.start_it(order))
    }

    fn resume(&self) -> Doing<'_, Result<(), WorkloadError>> {
        Box::pin(async {
            let found = self.find().await.map_err(|because| WorkloadError::Unknown { because })?;
            if found.is_empty() {
                return Err(WorkloadError::Refused { because: "the guest isn't here".into() });
            }
            let told = self.tell(orders::cont {}).await;
            told.map(drop).map_err(|error| WorkloadError::Unknown { because: chain(&error) })
        })
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
        Box::pin(self.probe_it())
    }
}

/// An error with its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
