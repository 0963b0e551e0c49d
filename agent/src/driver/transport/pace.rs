//! How soon the transport looks at what came in and at its timers: at once, or at a pace.
//!
//! To be woken costs a process more than what it is woken for, and an idle host is woken every few milliseconds: by each
//! packet, and by the timers of each connection. Where nothing waits for what comes in, packets gather for a moment, and
//! timers run out together with them. The kernel has stamped the packets, so nothing is judged by when they are read. A
//! stream that is open (a mirror, a resync) always is a reason for doing all at once.
//!
//! On a connection for beats acknowledgements ride on beats, however far apart those are: QUIC would send them in packets of
//! their own after a round trip, and the other end would ask for what it misses in two more. So its timers run out later
//! there.

use super::alarms::{Alarm, Alarms};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How a transport rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// When what came in is looked at; `None`: at once.
    pub looks: Option<Grid>,
    /// How much later than they are due the timers of connections for beats run out. Δ is enough for an acknowledgement to
    /// leave with a beat, and for the other end not to ask for it before.
    pub beats_late: Duration,
}

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
        let every = nanos(self.every).max(1);
        let (since, is_later) = match at.checked_duration_since(self.from) {
            Some(since) => (since, true),
            None => (self.from - at, false),
        };
        let past = nanos(since) % every;
        at + Duration::from_nanos(if is_later { (every - past) % every } else { past })
    }
}

/// Five centuries at most.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What all sockets and connections of one transport are told. Begins with doing all at once.
#[derive(Debug)]
pub(super) struct Pace {
    alarms: Alarms,
    rest: Mutex<Option<Rest>>,
    /// One more for each open stream.
    streams: Arc<()>,
}

impl Pace {
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What the kernel said to the wish for a timer.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self { alarms: Alarms::start()?, rest: Mutex::default(), streams: Arc::default() })
    }

    /// An alarm for `at`, exactly.
    pub(super) fn alarm(&self, at: Instant) -> Alarm {
        self.alarms.at(at)
    }

    /// Waits for as long, and then until all else is looked at.
    pub(super) async fn sleep(&self, span: Duration) {
        self.alarm(self.moment(Instant::now() + span)).await;
    }

    /// From now on things are looked at like this; `None`: at once.
    pub(super) fn set(&self, rest: Option<Rest>) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }

    /// Held by each stream.
    pub(super) fn stream(&self) -> Arc<()> {
        Arc::clone(&self.streams)
    }

    /// When to look at something that is due at `at`: then, or when all else is looked at.
    pub(super) fn moment(&self, at: Instant) -> Instant {
        self.looks().map_or(at, |grid| grid.after(at))
    }

    /// The same for a timer of a connection for beats. A little late is never wrong there: QUIC measures what has passed.
    pub(super) fn moment_of_beats(&self, at: Instant) -> Instant {
        let late = self.rest().map_or(Duration::ZERO, |rest| rest.beats_late);
        self.moment(at + late)
    }

    /// Nothing that is under way waits for what comes in.
    pub(super) fn is_at_rest(&self) -> bool {
        self.rest().is_some()
    }

    fn looks(&self) -> Option<Grid> {
        self.rest()?.looks
    }

    fn rest(&self) -> Option<Rest> {
        let rest = *self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.filter(|_| Arc::strong_count(&self.streams) == 1)
    }
}

/// How one socket's task comes to know that there may be something to read.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The runtime watches the socket. It doesn't while packets gather: it would be woken by each all the same.
    watched: Option<AsyncFd<Arc<UdpSocket>>>,
    /// Packets gather until then.
    gathering: Option<Alarm>,
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
        let Some(grid) = pace.looks() else {
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
            ready!(Pin::new(gathering).poll(cx));
        }
        let result = read();
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let until = grid.after(Instant::now() + grid.every / 2);
            match &mut self.gathering {
                Some(gathering) => gathering.reset(until),
                None => self.gathering = Some(pace.alarm(until)),
            }
        }
        Poll::Ready(Ok(result))
    }
}

/// Has the runtime watch a descriptor, which stays open as long as it is watched.
///
/// # Errors
/// What the kernel said.
pub(super) fn watch<T: AsRawFd>(watched: &Arc<T>, interest: Interest) -> io::Result<AsyncFd<Arc<T>>> {
    // SAFETY: the descriptor is owned by the `AsyncFd` among others: it stays open and the same until that is dropped.
    unsafe { AsyncFd::register_with_interest(Arc::clone(watched), interest) }.map_err(Into::into)
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

    #[tokio::test]
    async fn what_is_due_is_looked_at_with_all_else() {
        let pace = Pace::start().expect("a timer");
        let from = Instant::now();
        let at = from + Duration::from_millis(30);
        assert_eq!(pace.moment(at), at);
        let (every, beats_late) = (Duration::from_millis(50), Duration::from_millis(200));
        pace.set(Some(Rest { looks: Some(Grid { from, every }), beats_late }));
        assert_eq!(pace.moment(at), from + every);
        assert_eq!(pace.moment_of_beats(at), from + every * 5, "not before the next beat has left");
        pace.set(Some(Rest { looks: None, beats_late }));
        assert_eq!((pace.moment(at), pace.moment_of_beats(at)), (at, at + beats_late), "looks at once");
    }
}
