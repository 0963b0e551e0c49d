//! The one task that reads a socket, tells its connections of the time, and sends what they have to say.

use super::connection::{Inner, State};
use super::endpoint::{Core, Shared};
use crate::driver::transport::alarms::Alarm;
use crate::driver::transport::socket::{Reader, Received, StampedSocket};
use bytes::BytesMut;
use quinn_proto::{ConnectionHandle, DatagramEvent, Transmit};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Packets taken in before anything is sent and other tasks have their turn.
const PACKETS_IN_A_ROW_MAX: usize = 256;

/// Connections that have their turn before other tasks have theirs.
const CONNECTIONS_IN_A_ROW_MAX: usize = 64;

/// Packets that one connection sends before the next one has its turn.
const SENT_IN_A_ROW_MAX: usize = 20;

/// Packets that are handed to the kernel as one, at most.
const SEGMENTS_MAX: usize = 10;

/// No timer runs for so long; the alarm needs some moment.
const LONG: Duration = Duration::from_secs(3_600);

/// See the module.
pub(super) struct Driver {
    shared: Arc<Shared>,
    reader: Reader,
    alarm: Alarm,
    sender: Sender,
    /// Connections that wait for room in the kernel's buffer.
    unsent: VecDeque<Arc<Inner>>,
    /// Others had their turn since something came in.
    has_yielded: bool,
}

/// What sending needs.
struct Sender {
    socket: Arc<StampedSocket>,
    content: Vec<u8>,
    /// The kernel had no room for `content`. Whatever else there is to send waits.
    blocked: Option<Transmit>,
    room: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
}

/// When the driver has its next turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// When there is something to do.
    Waits,
    /// After the tasks that are ready now.
    Again,
    /// After everybody who is ready now, and what the kernel has by then.
    Yields,
}

/// How far sending for one connection came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// Others have their turn first.
    Some,
    /// The kernel has no room.
    Blocked,
}

impl Driver {
    /// Must be called within a tokio runtime.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (reader, alarm) = (Reader::new(Arc::clone(&shared.socket)), shared.pace.alarm(Instant::now() + LONG));
        let socket = Arc::clone(&shared.socket);
        let sender = Sender { socket, content: Vec::new(), blocked: None, room: None };
        Self { shared, reader, alarm, sender, unsent: VecDeque::new(), has_yielded: false }
    }

    /// Takes in what the kernel has; answers whether there is more, and whether anything came.
    fn receive(&mut self, core: &mut Core, cx: &mut Context<'_>, now: Instant) -> (bool, bool) {
        let Self { shared, reader, .. } = self;
        let (mut answer, mut is_any) = (Vec::new(), false);
        let came = |packet: Received<'_>| {
            is_any = true;
            answer.clear();
            let content = BytesMut::from(packet.bytes);
            match core.quic.handle(now, packet.from, packet.to, packet.ecn, content, &mut answer) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(Some(kept)) = core.connections.get(handle.0) {
                        kept.inner.change(|state| {
                            state.quic.handle_event(event);
                            state.take_datagrams(packet.at);
                        });
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) if core.is_closed => core.quic.ignore(incoming),
                Some(DatagramEvent::NewConnection(incoming)) => {
                    core.attempts.push_back(incoming);
                    shared.attempted.notify_one();
                }
                Some(DatagramEvent::Response(transmit)) => shared.answer(&transmit, &answer),
                None => {}
            }
        };
        let is_more = reader.poll(cx, &shared.pace, PACKETS_IN_A_ROW_MAX, came);
        (is_more, is_any)
    }

    /// Lists the connections whose timers ran out.
    fn look_at_timers(&self, core: &mut Core, now: Instant) {
        while let Some(&(at, handle)) = core.timers.first() {
            if at > now {
                break;
            }
            core.timers.pop_first();
            if let Some(Some(kept)) = core.connections.get_mut(handle) {
                (kept.timer, kept.is_due) = (None, true);
                self.shared.to_do.put(&kept.inner);
            }
        }
    }

    /// Does what there is to do with one connection.
    fn drive(&mut self, core: &mut Core, inner: &Arc<Inner>, now: Instant) {
        let handle = inner.handle;
        let Core { quic, connections, timers, open, .. } = core;
        let Some(place) = connections.get_mut(handle.0) else { return };
        // Listed once more while it was wound up, it isn't there any more; another one may have its place.
        let Some(kept) = place.as_mut().filter(|kept| Arc::ptr_eq(&kept.inner, inner)) else { return };
        let is_due = std::mem::take(&mut kept.is_due);
        let sender = &mut self.sender;
        let (sent, forwarded, due) = inner.with(|state| {
            if is_due {
                state.quic.handle_timeout(now);
            }
            let sent = sender.send_all(state, now);
            let forwarded = forward(quic, handle, state);
            state.tell();
            (sent, forwarded, state.quic.poll_timeout())
        });
        let due = due.filter(|_| !forwarded.is_drained);
        if kept.timer.map(|(due, _)| due) != due {
            if let Some((_, at)) = kept.timer {
                timers.remove(&(at, handle.0));
            }
            let pace = &self.shared.pace;
            kept.timer =
                due.map(|due| (due, if inner.is_for_beats { pace.moment_of_beats(due) } else { pace.moment(due) }));
            timers.extend(kept.timer.map(|(_, at)| (at, handle.0)));
        }
        if forwarded.is_drained {
            *place = None;
            *open -= 1;
            if *open == 0 {
                self.shared.drained.notify_waiters();
            }
            return;
        }
        if sent == Sent::Blocked && !std::mem::replace(&mut kept.is_unsent, true) {
            self.unsent.push_back(Arc::clone(inner));
        }
        if sent == Sent::Some || forwarded.has_answer {
            self.shared.to_do.put(inner);
        }
    }

    /// Once the kernel has room again, those who waited for it have their turn.
    fn look_for_room(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        if self.sender.is_free(cx) {
            for inner in self.unsent.drain(..) {
                if let Some(Some(kept)) = core.connections.get_mut(inner.handle.0) {
                    kept.is_unsent = false;
                }
                self.shared.to_do.put(&inner);
            }
        }
    }

    /// Everything once.
    ///
    /// At rest most of what comes in is answered: a beat with a beat, a request for a lease with one. Who answers has its
    /// turn first then, and the answer leaves in one packet with what QUIC has to say, and is computed with it.
    fn turn(&mut self, cx: &mut Context<'_>) -> Next {
        let shared = Arc::clone(&self.shared);
        let mut core = shared.core();
        let now = Instant::now();
        shared.to_do.begin();
        let (is_more, is_any) = self.receive(&mut core, cx, now);
        self.has_yielded = is_any && !self.has_yielded && shared.pace.is_at_rest();
        if self.has_yielded {
            return Next::Yields;
        }
        self.look_at_timers(&mut core, now);
        self.look_for_room(&mut core, cx);
        for _ in 0..shared.to_do.begin().min(CONNECTIONS_IN_A_ROW_MAX) {
            let Some(inner) = shared.to_do.next() else { break };
            self.drive(&mut core, &inner, now);
        }
        // Whoever was refused just now waits for room from now on.
        self.look_for_room(&mut core, cx);
        debug_assert!(self.sender.will_be_told(), "only a timer or a packet would have it try again");
        self.alarm.reset(core.timers.first().map_or_else(|| now + LONG, |&(at, _)| at));
        let rings = Pin::new(&mut self.alarm).poll(cx).is_ready();
        if is_more || rings { Next::Again } else { Next::Waits }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let next = self.turn(cx);
        if next == Next::Yields {
            let _woken_by_then = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        let is_over = {
            let core = self.shared.core();
            core.is_closed && core.open == 0
        };
        if is_over {
            return Poll::Ready(());
        }
        if !self.shared.to_do.wait(cx.waker()) || next == Next::Again {
            // Others have their turn first.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.to_do.end();
    }
}

/// What became of what a connection had to tell its endpoint.
struct Forwarded {
    /// It is wound up: nothing is left of it.
    is_drained: bool,
    /// The endpoint had something to tell it, which is to be sent.
    has_answer: bool,
}

fn forward(quic: &mut quinn_proto::Endpoint, handle: ConnectionHandle, state: &mut State) -> Forwarded {
    let mut forwarded = Forwarded { is_drained: false, has_answer: false };
    while let Some(event) = state.quic.poll_endpoint_events() {
        forwarded.is_drained |= event.is_drained();
        if let Some(answer) = quic.handle_event(handle, event) {
            state.quic.handle_event(answer);
            forwarded.has_answer = true;
        }
    }
    forwarded
}

impl Sender {
    fn send_all(&mut self, state: &mut State, now: Instant) -> Sent {
        if self.blocked.is_some() {
            return Sent::Blocked;
        }
        // Fewer from when an interface has turned out not to take several as one.
        let segments = self.socket.segments_max().clamp(1, SEGMENTS_MAX);
        let mut packets = 0;
        while packets < SENT_IN_A_ROW_MAX {
            self.content.clear();
            let Some(transmit) = state.quic.poll_transmit(now, segments, &mut self.content) else {
                return Sent::All;
            };
            packets += transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size.max(1)));
            if !self.socket.send(&transmit, &self.content) {
                self.blocked = Some(transmit);
                return Sent::Blocked;
            }
        }
        Sent::Some
    }

    /// Whether there is nothing to wait for, or the kernel was asked to tell of it.
    fn will_be_told(&self) -> bool {
        self.blocked.is_none() || self.room.is_some()
    }

    /// Whether the kernel takes packets. Asks it again as soon as it has room for the one that it didn't take.
    fn is_free(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some(transmit) = &self.blocked {
            let socket = &self.socket;
            let room = self.room.get_or_insert_with(|| Box::pin(Arc::clone(socket).room()));
            let Poll::Ready(room) = room.as_mut().poll(cx) else { return false };
            self.room = None;
            if let Err(error) = room {
                tracing::warn!(%error, "the kernel doesn't tell of room for sending; it is asked again");
                cx.waker().wake_by_ref();
                return false;
            }
            if self.socket.send(transmit, &self.content) {
                self.blocked = None;
            }
        }
        true
    }
}
