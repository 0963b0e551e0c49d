//! Calls that block in the kernel and can't be ended: disk and SCSI commands.
//!
//! They run on threads of their own. If the storage hangs, the caller goes on at its limit and the thread stays behind
//! in the kernel (a process would as well: what waits there can't be killed). [`Desk`] lets no second one begin while
//! one lingers, and tells the executor, which doesn't call a task finished before that.

use crate::trouble::Trouble;
use tokio::sync::watch;

/// Where one device's blocking calls are begun, one at a time.
#[derive(Debug)]
pub(super) struct Desk {
    lingering: watch::Sender<usize>,
}

/// Counts one call until its thread is done.
struct Visit(watch::Sender<usize>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { lingering: watch::channel(0).0 }
    }

    /// Runs `work` on a thread of its own.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let mut free = true;
        self.lingering.send_modify(|count| {
            free = *count == 0;
            *count += usize::from(free);
        });
        if !free {
            let because = "an earlier command still hangs in the kernel".to_owned();
            return Err(Trouble::Refused { because });
        }
        let visit = Visit(self.lingering.clone());
        let task = tokio::task::spawn_blocking(move || {
            let _visit = visit;
            work()
        });
        task.await.unwrap_or_else(|error| Err(Trouble::Unusable { because: format!("its driver failed: {error}") }))
    }

    /// Returns when nothing lingers.
    pub(super) async fn quiet(&self) {
        let mut lingering = self.lingering.subscribe();
        // The sender lives in `self`, so waiting can't fail.
        let _ = lingering.wait_for(|count| *count == 0).await;
    }
}
