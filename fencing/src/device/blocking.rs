//! Calls that block in the kernel and can't be ended: disk and SCSI commands.
//!
//! They run on threads of their own. If the storage hangs, the caller goes on at its limit and the thread stays behind
//! in the kernel (a process would as well: what waits there can't be killed). [`Desk`] lets no second one begin while
//! one lingers, and tells the executor, which doesn't call a task finished before that.

use crate::trouble::Trouble;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long a call waits for the one before it. A scheduled reading that an order pushed aside ends within milliseconds,
/// and the order must not fail for it; what lasts longer than this hangs, and is told as that.
const PATIENCE: Duration = Duration::from_secs(2);

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
        let until = Instant::now() + PATIENCE;
        while !self.take() {
            let mut lingering = self.lingering.subscribe();
            let waited = timeout_at(until, lingering.wait_for(|count| *count == 0)).await.is_ok();
            if !waited {
                let because = "an earlier command still hangs in the kernel".to_owned();
                return Err(Trouble::Refused { because });
            }
        }
        let visit = Visit(self.lingering.clone());
        let task = tokio::task::spawn_blocking(move || {
            let _visit = visit;
            work()
        });
        task.await.unwrap_or_else(|error| Err(Trouble::Unusable { because: format!("its driver failed: {error}") }))
    }

    /// Takes the only place, if it is free.
    fn take(&self) -> bool {
        let mut free = false;
        self.lingering.send_modify(|count| {
            free = *count == 0;
            *count += usize::from(free);
        });
        free
    }

    /// Returns when nothing lingers.
    pub(super) async fn quiet(&self) {
        let mut lingering = self.lingering.subscribe();
        // The sender lives in `self`, so waiting can't fail.
        let _ = lingering.wait_for(|count| *count == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    /// A desk with a call that lasts until something is sent (or the sender goes).
    async fn busy() -> (Arc<Desk>, mpsc::Sender<()>) {
        let (end, ended) = mpsc::channel();
        let desk = Arc::new(Desk::new());
        let theirs = desk.clone();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let call = tokio::spawn(async move {
            let work = move || {
                let _ = begin.send(());
                let _ = ended.recv();
                Ok(())
            };
            theirs.run(work).await
        });
        begun.await.unwrap();
        call.abort(); // its caller is gone, as when an order takes the device from a reading
        (desk, end)
    }

    #[tokio::test]
    async fn a_call_waits_for_an_abandoned_one_that_is_about_to_end() {
        let (desk, end) = busy().await;
        let theirs = desk.clone();
        let second = tokio::spawn(async move { theirs.run(|| Ok(7)).await });
        tokio::task::yield_now().await;
        end.send(()).unwrap();
        assert_eq!(second.await.unwrap(), Ok(7));
        desk.quiet().await;
    }

    #[tokio::test]
    async fn a_call_behind_one_that_hangs_is_refused_and_never_begun() {
        let (desk, _end) = busy().await;
        let refused = desk.run(|| -> Result<(), Trouble> { panic!("it was begun") }).await;
        assert!(matches!(refused, Err(Trouble::Refused { .. })), "{refused:?}");
    }
}
