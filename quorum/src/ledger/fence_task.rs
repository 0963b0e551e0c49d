//! Orders to fence a host, and who still may act on them (protocol §6).
//!
//! A task is over when it is cancelled and every executor that took it up has finished, or when the deadline of those
//! that weren't heard of, and 10 s, have passed. Only then can its host come back without being shot.

use super::apply::rule;
use super::command::{Command, FenceOutcome};
use super::event::Event;
use super::evidence::Incarnation;
use super::refusal::Refusal;
use super::state::{Ended, FenceTask, Ledger};
use crate::id::{HostName, TaskId};
use std::time::Duration;

/// Waited beyond a task's deadline before executors that weren't heard of count as harmless: the device call's own
/// hard limit is inside the deadline, this is for what the device itself still does.
pub const TASK_GRACE: Duration = Duration::from_secs(10);

impl FenceTask {
    /// Whether nobody can act on it any more.
    pub fn is_over(&self) -> bool {
        self.expired || self.cancelled.is_some() && self.executors.values().all(Option::is_some)
    }
}

impl Ledger {
    pub(super) fn apply_fence_task(&mut self, command: &Command, events: &mut Vec<Event>) -> Result<(), Refusal> {
        match command {
            Command::FenceTaskOpened { of, deadline, .. } => self.reopen_task(of, *deadline, events),
            Command::FenceTaskStarted { task, executor } => self.start_task(*task, executor, events),
            Command::FenceTaskFinished { task, executor, outcome } => {
                self.finish_task(*task, executor, outcome, events)
            }
            Command::FenceTaskCancel { task, because } => self.cancel_task(*task, because, events),
            Command::FenceTaskExpired { task, waited } => self.expire_task(*task, *waited, events),
            _ => unreachable!("the dispatcher sends only fence tasks here"),
        }
    }

    fn reopen_task(&mut self, of: &Incarnation, deadline: Duration, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let lost = match self.current(of)?.ended {
            Some(Ended::Lost { .. } | Ended::EraOver { .. }) => true,
            Some(Ended::Retired { .. }) | None => false,
        };
        rule("ledger.fenced_without_lost", lost, || Refusal::NotLost { of: of.clone() })?;
        self.open_task(0, of, deadline, events);
        Ok(())
    }

    fn task(&self, task: TaskId) -> Result<&FenceTask, Refusal> {
        self.tasks.get(&task).ok_or(Refusal::TaskUnknown { task })
    }

    fn start_task(&mut self, task: TaskId, executor: &HostName, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let state = self.task(task)?;
        rule("ledger.cancelled_task_started", state.cancelled.is_none(), || Refusal::TaskOver { task })?;
        let fit = self.admitted(executor).is_some() && state.of.host != *executor;
        rule("ledger.unfit_executor", fit, || Refusal::ExecutorUnfit { executor: executor.clone() })?;
        self.task_mut(task).executors.insert(executor.clone(), None);
        events.push(Event::FenceTaskStarted { task, executor: executor.clone() });
        Ok(())
    }

    fn finish_task(
        &mut self,
        task: TaskId,
        executor: &HostName,
        outcome: &FenceOutcome,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let working = self.task(task)?.executors.get(executor).is_some_and(Option::is_none);
        rule("ledger.finished_without_start", working, || Refusal::ExecutorNotStarted {
            task,
            executor: executor.clone(),
        })?;
        self.task_mut(task).executors.insert(executor.clone(), Some(outcome.clone()));
        events.push(Event::FenceTaskFinished { task, executor: executor.clone(), outcome: outcome.clone() });
        self.report_if_over(task, events);
        Ok(())
    }

    fn cancel_task(&mut self, task: TaskId, because: &str, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let open = self.task(task)?.cancelled.is_none();
        rule("ledger.task_cancelled_twice", open, || Refusal::TaskOver { task })?;
        self.task_mut(task).cancelled = Some((self.position.index, because.to_owned()));
        events.push(Event::FenceTaskCancelled { task, because: because.to_owned() });
        self.report_if_over(task, events);
        Ok(())
    }

    fn expire_task(&mut self, task: TaskId, waited: Duration, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let state = self.task(task)?;
        let cancelled = state.cancelled.is_some();
        rule("ledger.open_task_expires", cancelled, || Refusal::TaskNotCancelled { task })?;
        rule("ledger.task_over_twice", !state.is_over(), || Refusal::TaskOver { task })?;
        let needed = state.deadline.saturating_add(TASK_GRACE);
        rule("ledger.task_expires_early", waited >= needed, || Refusal::TaskDeadlineRuns { task, waited, needed })?;
        self.task_mut(task).expired = true;
        self.report_if_over(task, events);
        Ok(())
    }

    fn task_mut(&mut self, task: TaskId) -> &mut FenceTask {
        self.tasks.get_mut(&task).expect("looked up before")
    }

    fn report_if_over(&self, task: TaskId, events: &mut Vec<Event>) {
        if let Some(state) = self.tasks.get(&task).filter(|state| state.is_over()) {
            events.push(Event::FenceTaskOver { task, host: state.of.host.clone() });
        }
    }
}
