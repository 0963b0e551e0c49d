//! How soon the transport looks at what came in and at its timers: at once, or at a pace.
//!
//! To be woken costs a process more than what it is woken for, and an idle host is woken every few milliseconds: by each
//! packet, and by the timers of each connection. Where nothing waits for what comes in, packets gather for a moment, and
//! timers run out together with them. The kernel has stamped the packets, so nothing is judged by when they are read. A
//! stream that is open (a mirror, a resync) always is a reason for doing all at once.

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep_until};

/// Moments that follow each other at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// One of them.
    pub from: Instant,
    /// From one to the next; not zero.
    pub every: Duration,
}

impl Grid {
    /// The first of them that isn't before `at`.
    fn after(&self, at: Instant) -> Instant {
        let every = self.every.as_nanos().max(1);
        let (since, is_later) = match at.checked_duration_since(self.from) {
            Some(since) => (since, true),
            None => (self.from - at, false),
        };
        let past = since.as_nanos() % every;
        let left = if is_later { (every - past) % every } else { past };
        at + Duration::from_nanos(u64::try_from(left).unwrap_or_default())
    }
}

/// What all sockets and connections of one transport are told. Begins with doing all at once.
#[derive(Debug, Default)]
pub(super) struct Pace {
    grid: Mutex<Option<Grid>>,
    /// One more for each open stream.
    streams: Arc<()>,
}

impl Pace {
    /// From now on things are looked at at these moments; `None`: at once.
    pub(super) fn set(&self, grid: Option<Grid>) {
        *self.grid.lock().unwrap_or_else(PoisonError::into_inner) = grid;
    }

    /// Held by each stream.
    pub(super) fn stream(&self) -> Arc<()> {
        Arc::clone(&self.streams)
    }

    /// When to look at something that is due at `at`: then, or when all else is looked at.
    pub(super) fn moment(&self, at: Instant) -> Instant {
        self.grid().map_or(at, |grid| grid.after(at))
    }

    fn grid(&self) -> Option<Grid> {
        let grid = *self.grid.lock().unwrap_or_else(PoisonError::into_inner);
        grid.filter(|_| Arc::strong_count(&self.streams) == 1)
    }
}

/// How one socket's task comes to know that there may be something to read.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The runtime watches the socket. It doesn't while packets gather: it would be woken by each all the same.
    watched: Option<AsyncFd<Arc<UdpSocket>>>,
    /// Packets gather until then.
    gathering: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    /// Ready when it was time to read, with what `read` answered; it says `WouldBlock` when the socket is empty, which
    /// begins the wait anew.
    ///
    /// # Errors
    /// What the kernel said to the wish to be told.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (socket, pace): (&Arc<UdpSocket>, &Pace),
        mut read: impl FnMut() -> io::Result<()>,
    ) -> Poll<io::Result<io::Result<()>>> {
        let Some(grid) = pace.grid() else {
            self.gathering = None;
            if self.watched.is_none() {
                self.watched = Some(watch(socket, Interest::READABLE)?);
            }
            let watched = self.watched.as_ref().expect("just made");
            let mut ready = ready!(watched.poll_read_ready(cx))?;
            return Poll::Ready(Ok(ready.try_io(|_| read()).unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()))));
        };
        self.watched = None;
        if let Some(gathering) = &mut self.gathering {
            ready!(Future::poll(gathering.as_mut(), cx));
        }
        let result = read();
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let until = grid.after(Instant::now() + grid.every / 2).into();
            match &mut self.gathering {
                Some(gathering) => gathering.as_mut().reset(until),
                None => self.gathering = Some(Box::pin(sleep_until(until))),
            }
        }
        Poll::Ready(Ok(result))
    }
}

/// Has the runtime watch a socket, which stays open as long as it is watched.
///
/// # Errors
/// What the kernel said.
pub(super) fn watch(socket: &Arc<UdpSocket>, interest: Interest) -> io::Result<AsyncFd<Arc<UdpSocket>>> {
    // SAFETY: the descriptor is owned by the `AsyncFd` among others: it stays open and the same until that is dropped.
    unsafe { AsyncFd::register_with_interest(Arc::clone(socket), interest) }.map_err(Into::into)
}

/// Tokio for QUIC, with timers that run out at the transport's pace.
#[derive(Debug)]
pub(super) struct Paced(pub(super) Arc<Pace>);

impl Runtime for Paced {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let pace = Arc::clone(&self.0);
        let timer = PacedTimer { sleep: Box::pin(sleep_until(at.into())), pace };
        let mut timer = Box::pin(timer);
        timer.as_mut().reset(at);
        timer
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// A timer of QUIC. A little late is never wrong there: it measures what has passed by the clock.
#[derive(Debug)]
struct PacedTimer {
    sleep: Pin<Box<Sleep>>,
    pace: Arc<Pace>,
}

impl AsyncTimer for PacedTimer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        let at = self.pace.moment(at);
        self.sleep.as_mut().reset(at.into());
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.sleep.as_mut(), cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_moment_of_a_grid_is_never_before_and_less_than_one_step_after() {
        let ms = Duration::from_millis;
        let from = Instant::now() + ms(1_000);
        let grid = Grid { from, every: ms(20) };
        for (at, next) in [(0, 0), (1, 20), (19, 20), (20, 20), (21, 40), (1_001, 1_020)] {
            assert_eq!(grid.after(from + ms(at)) - from, ms(next), "{at} ms after");
            assert_eq!(from - grid.after(from - ms(at)), ms(at / 20 * 20), "{at} ms before");
        }
    }

    #[test]
    fn what_is_due_is_looked_at_with_all_else() {
        let pace = Pace::default();
        let from = Instant::now();
        let at = from + Duration::from_millis(30);
        assert_eq!(pace.moment(at), at);
        pace.set(Some(Grid { from, every: Duration::from_millis(50) }));
        assert_eq!(pace.moment(at), from + Duration::from_millis(50));
    }

    #[tokio::test]
    async fn a_timer_runs_out_on_the_grid_and_off_it_beside_a_stream() {
        let pace = Arc::new(Pace::default());
        let from = Instant::now();
        pace.set(Some(Grid { from, every: Duration::from_millis(400) }));
        let runtime = Paced(Arc::clone(&pace));
        let ran_out = async |mut timer: Pin<Box<dyn AsyncTimer>>| {
            std::future::poll_fn(|cx| timer.as_mut().poll(cx)).await;
            from.elapsed()
        };
        let stream = pace.stream();
        let exact = runtime.new_timer(from + Duration::from_millis(10));
        drop(stream);
        let gathered = runtime.new_timer(from + Duration::from_millis(10));
        let (exact, gathered) = tokio::join!(ran_out(exact), ran_out(gathered));
        assert!(exact < gathered && gathered >= Duration::from_millis(400), "{exact:?} {gathered:?}");
    }
}
