//! The thread that writes the journal, so that a slow disk never holds up a session that needn't wait for it.
//!
//! Records are written in the order in which they were handed over; durable ones that arrive together share one
//! fdatasync. Once writing has failed it isn't tried again: a gap in the record would be worse than a refusal.

use super::clock;
use crate::gate::Gate;
use crate::journal::{Event, Journal, TaskKey, When};
use serde_json::Value;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

enum Entry {
    Write { when: When, task: Option<TaskKey>, event: Value, done: Option<oneshot::Sender<Result<(), String>>> },
    Rotate { when: When, gate: Gate },
    Last { count: usize, answer: oneshot::Sender<Result<Vec<Value>, String>> },
}

/// Hands records to the journal's thread.
#[derive(Clone, Debug)]
pub(super) struct Scribe {
    entries: Sender<Entry>,
    boot: String,
}

impl Scribe {
    pub(super) fn start(journal: Journal, boot: String) -> std::io::Result<Self> {
        let (entries, queue) = channel();
        std::thread::Builder::new().name("fence-journal".into()).spawn(move || write_all(journal, &queue))?;
        Ok(Self { entries, boot })
    }

    /// Writes without waiting.
    pub(super) fn note(&self, task: Option<&TaskKey>, event: &Event<'_>) {
        self.send(task, event, None);
    }

    /// Writes, and returns when the record is on disk.
    pub(super) async fn record(&self, task: Option<&TaskKey>, event: &Event<'_>) -> Result<(), String> {
        let (done, result) = oneshot::channel();
        self.send(task, event, Some(done));
        result.await.unwrap_or_else(|_| Err("the journal's thread is gone".to_owned()))
    }

    pub(super) fn rotate(&self, gate: Gate) {
        let _ = self.entries.send(Entry::Rotate { when: self.when(), gate });
    }

    pub(super) async fn last(&self, count: usize) -> Result<Vec<Value>, String> {
        let (answer, result) = oneshot::channel();
        let _ = self.entries.send(Entry::Last { count, answer });
        result.await.unwrap_or_else(|_| Err("the journal's thread is gone".to_owned()))
    }

    fn send(&self, task: Option<&TaskKey>, event: &Event<'_>, done: Option<oneshot::Sender<Result<(), String>>>) {
        match serde_json::to_value(event) {
            // A thread that is gone drops `done`, which its waiter takes as a refusal.
            Ok(event) => drop(self.entries.send(Entry::Write { when: self.when(), task: task.cloned(), event, done })),
            Err(error) => {
                if let Some(done) = done {
                    let _ = done.send(Err(format!("the record can't be written as JSON: {error}")));
                }
            }
        }
    }

    fn when(&self) -> When {
        let boottime_ms = u64::try_from(clock::boottime().as_millis()).unwrap_or(u64::MAX);
        When { wall_ms: clock::wall_ms(), boot: self.boot.clone(), boottime_ms }
    }
}

fn write_all(mut journal: Journal, queue: &Receiver<Entry>) {
    let mut failed: Option<String> = None;
    while let Ok(first) = queue.recv() {
        let mut waiting = Vec::new();
        for entry in std::iter::once(first).chain(queue.try_iter()) {
            match entry {
                Entry::Write { when, task, event, done } => {
                    let result = failed.is_none().then(|| journal.write(&when, task.as_ref(), &event));
                    note_failure(&mut failed, result);
                    waiting.extend(done);
                }
                Entry::Rotate { when, gate } => {
                    if let Err(error) = journal.rotate(&when, &gate) {
                        tracing::warn!(because = %error, "the fencing journal can't be put aside; it grows on");
                    }
                }
                Entry::Last { count, answer } => {
                    let _ = answer.send(journal.last(count).map_err(|error| error.to_string()));
                }
            }
        }
        if !waiting.is_empty() && failed.is_none() {
            let result = Some(journal.sync());
            note_failure(&mut failed, result);
        }
        for done in waiting {
            let _ = done.send(failed.clone().map_or(Ok(()), Err));
        }
    }
}

fn note_failure(failed: &mut Option<String>, result: Option<Result<(), crate::journal::JournalError>>) {
    if let Some(Err(error)) = result {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        tracing::error!(because = %error, "the fencing journal can't be written; nothing more is switched off from here");
        *failed = Some(format!("{error}{source}"));
    }
}
