//! The threads beside the loop's: for everything that may keep a thread.
//!
//! The loop and the transport share one thread, so that a packet's way from the kernel to the engine and back crosses no
//! other: handing it on between threads is most of what an idle agent would cost. The price is that nothing may keep that
//! thread. What reads files, waits for programs, or serves people runs here, and is begun with [`Beside::enter`].
//!
//! Their number is fixed: an idle thread costs memory, and a large machine has many processors.

use tokio::runtime::{Builder, EnterGuard, Runtime};

/// Enough that a few that wait for a disk don't keep people from asking why.
const THREADS: usize = 4;

/// The runtime of those threads. Dropped, it ends what runs there without waiting for it.
pub(super) struct Beside(Option<Runtime>);

impl Beside {
    /// Starts the threads.
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name("beside").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// What is spawned while the answer lives runs beside the loop. `None` only while this is being dropped.
    pub(super) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[test]
    fn what_is_begun_beside_the_loop_goes_on_while_the_loop_s_thread_is_kept() {
        let loop_s = Builder::new_current_thread().enable_all().build().expect("a runtime");
        loop_s.block_on(async {
            let beside = Beside::start().expect("threads");
            let (say, mut said) = oneshot::channel();
            {
                let _beside = beside.enter();
                tokio::spawn(async move { say.send(std::thread::current().id()) });
            }
            // Never yields: a task of this thread would never run.
            let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
            let thread = loop {
                match said.try_recv() {
                    Ok(thread) => break thread,
                    Err(_) => assert!(std::time::Instant::now() < until, "it never ran"),
                }
                std::thread::yield_now();
            };
            assert_ne!(thread, std::thread::current().id());
        });
    }
}
