//! Moments at which tasks are woken; those that lie together wake the process once.
//!
//! Tokio keeps its timers on wheels whose turns take 64 ms, four seconds and so on, and wakes at the end of a turn to sort
//! what comes in the next one. With twenty beats a second most timers lie beyond a turn's end: an idle host was woken
//! twice for each beat, and to be woken costs it a tenth of what the beat does. What the loop and the transport wait for
//! lies here instead, in order, and the kernel is asked for the first of it (timerfd_create(2)).
//!
//! Never early. How late is up to the kernel: it isn't rounded up to a millisecond as tokio does.
//!
//! Not here: what is seldom (time limits of handshakes and calls): tokio's own timers are as good for it.

use super::pace::watch;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// All alarms of one transport, and the timer of the kernel under them.
#[derive(Clone)]
pub(super) struct Alarms(Arc<Shared>);

struct Shared {
    timer: Arc<OwnedFd>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Counts the alarms: several may lie at one moment.
    number: u64,
    due: BTreeMap<(Instant, u64), Waker>,
    /// What the kernel was asked for; never later than the first of `due`, but while it rings.
    armed: Option<Instant>,
    /// Those who were woken just now are about to wait again: the kernel is asked once they do.
    is_ringing: bool,
}

/// Ready at its moment and ever after, until it is set anew. Whoever polled it last is woken.
pub struct Alarm {
    alarms: Alarms,
    at: Instant,
    number: u64,
}

impl Alarms {
    /// Must be called within a tokio runtime with I/O, on which a task waits for the kernel until all alarms are gone.
    ///
    /// # Errors
    /// What the kernel said to the wish for a timer.
    pub(super) fn start() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let timer = Arc::new(timer);
        let watched = watch(&timer, Interest::READABLE)?;
        let shared = Arc::new(Shared { timer, waiting: Mutex::default() });
        tokio::spawn(ring(watched, Arc::downgrade(&shared)));
        Ok(Self(shared))
    }

    /// An alarm for `at`.
    pub(super) fn at(&self, at: Instant) -> Alarm {
        let mut waiting = self.0.waiting();
        waiting.number += 1;
        Alarm { alarms: self.clone(), at, number: waiting.number }
    }
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarms").field("timer", &self.0.timer).finish_non_exhaustive()
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while holding it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the kernel for `at`, unless it was asked for a sooner moment, or will be.
    fn arm(&self, waiting: &mut Waiting, at: Instant) {
        if !waiting.is_ringing && waiting.armed.is_none_or(|armed| at < armed) {
            waiting.armed = Some(at);
            self.ask_for(at.saturating_duration_since(Instant::now()));
        }
    }

    fn ask_for(&self, left: Duration) {
        // Zero would disarm it.
        let left = left.max(Duration::from_nanos(1));
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let it_value = Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).expect("a timer takes any span");
    }

    /// Wakes whom the moment concerns. [`Shared::rung`] must follow.
    fn ring(&self, now: Instant) {
        let mut waiting = self.waiting();
        let later = waiting.due.split_off(&(now + Duration::from_nanos(1), 0));
        let due = std::mem::replace(&mut waiting.due, later);
        (waiting.armed, waiting.is_ringing) = (None, true);
        drop(waiting);
        due.into_values().for_each(Waker::wake);
    }

    /// Asks the kernel for the first of what is waited for by now.
    fn rung(&self) {
        let mut waiting = self.waiting();
        waiting.is_ringing = false;
        if let Some((first, _)) = waiting.due.keys().next().copied() {
            self.arm(&mut waiting, first);
        }
    }
}

impl Drop for Shared {
    /// The task that waits for the kernel sees that nobody waits for it.
    fn drop(&mut self) {
        self.ask_for(Duration::ZERO);
    }
}

async fn ring(watched: AsyncFd<Arc<OwnedFd>>, shared: Weak<Shared>) {
    while let Ok(mut ready) = watched.readable().await {
        let mut rings = [0; 8];
        let _nothing_yet = rustix::io::read(watched.get_ref(), &mut rings);
        // Read at once, it is empty: what rings from now on makes it ready again.
        ready.clear_ready();
        match shared.upgrade() {
            Some(shared) => shared.ring(Instant::now()),
            None => return,
        }
        // Nobody sleeps before this goes on.
        tokio::task::yield_now().await;
        if let Some(shared) = shared.upgrade() {
            shared.rung();
        }
    }
}

impl Alarm {
    /// Another moment. Whoever waits goes on to wait, for that one.
    pub(super) fn reset(&mut self, at: Instant) {
        if self.at == at {
            return;
        }
        let shared = &self.alarms.0;
        let mut waiting = shared.waiting();
        let waker = waiting.due.remove(&(self.at, self.number));
        self.at = at;
        if let Some(waker) = waker {
            waiting.due.insert((at, self.number), waker);
            shared.arm(&mut waiting, at);
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (shared, key) = (&self.alarms.0, (self.at, self.number));
        let mut waiting = shared.waiting();
        if Instant::now() >= self.at {
            let waker = waiting.due.remove(&key);
            drop(waiting);
            drop(waker);
            return Poll::Ready(());
        }
        waiting.due.entry(key).and_modify(|waker| waker.clone_from(cx.waker())).or_insert_with(|| cx.waker().clone());
        shared.arm(&mut waiting, self.at);
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // Not while the alarms are held: with a waker may go whatever owns another alarm.
        let waker = self.alarms.0.waiting().due.remove(&(self.at, self.number));
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    const MS: Duration = Duration::from_millis(1);

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn alarms_ring_in_order_and_never_early() {
        let alarms = Alarms::start().expect("a timer");
        let from = Instant::now();
        let (rung, mut rings) = tokio::sync::mpsc::unbounded_channel();
        for after in [80, 20, 140, 20, 0] {
            let (alarm, rung) = (alarms.at(from + MS * after), rung.clone());
            tokio::spawn(async move {
                alarm.await;
                let _ = rung.send((after, from.elapsed()));
            });
        }
        for awaited in [0, 20, 20, 80, 140] {
            let (after, elapsed) = rings.recv().await.expect("five alarms");
            assert_eq!(after, awaited);
            assert!(elapsed >= MS * after, "{elapsed:?} {after}");
        }
    }

    #[tokio::test]
    async fn an_alarm_that_is_set_anew_wakes_who_waited_for_it() {
        let alarms = Alarms::start().expect("a timer");
        let from = Instant::now();
        let (mut sooner, mut later) = (alarms.at(from + Duration::from_secs(3_600)), alarms.at(from + MS));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut sooner).poll(&mut cx).is_pending());
        sooner.reset(from + MS * 30);
        later.reset(from + MS * 60);
        later.await;
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "woken without having been polled again");
        assert!(Pin::new(&mut sooner).poll(&mut cx).is_ready());
        sooner.reset(Instant::now() + Duration::from_secs(3_600));
        assert!(Pin::new(&mut sooner).poll(&mut cx).is_pending(), "a new moment");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_gone_and_so_is_the_task_in_the_end() {
        let alarms = Alarms::start().expect("a timer");
        let tasks = tokio::runtime::Handle::current().metrics();
        let before = tasks.num_alive_tasks();
        let mut alarm = alarms.at(Instant::now() + Duration::from_secs(3_600));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut alarm).poll(&mut cx).is_pending());
        assert_eq!(alarms.0.waiting().due.len(), 1);
        drop(alarm);
        assert_eq!(alarms.0.waiting().due.len(), 0);
        drop(alarms);
        while tasks.num_alive_tasks() == before {
            tokio::task::yield_now().await;
        }
        assert_eq!(tasks.num_alive_tasks(), before - 1);
    }
}
