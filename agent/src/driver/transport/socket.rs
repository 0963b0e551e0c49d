//! The UDP socket under QUIC: drops packets of strangers and junk, and stamps the others with the kernel's time.
//!
//! One for each path. Packets from addresses that are no peer's, or that can't be of this protocol, never reach QUIC: no
//! parsing, no reply, no memory.
//! Sending, segmentation offload, and the options that QUIC wants come from `quinn-udp`; receiving is done here because
//! that library doesn't hand out the kernel's stamps.
//!
//! Not here: whether a known address sends something sensible (QUIC, TLS), and how stamps become moments (`stamp`).

use super::arrivals::{Arrivals, IdKey, Nature, judge};
use super::pace::{Pace, Waiting, watch};
use super::stamp::{Reading, arrival};
use super::stats::{Counted, Counters};
use crate::driver::clock;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg, setsockopt, sockopt};
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use quorum::moment::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;

/// Packets dropped in one go before others get their turn again.
const DROPPED_IN_A_ROW_MAX: usize = 256;

/// The addresses from which packets are taken.
#[derive(Debug, Default)]
pub(super) struct KnownAddresses(RwLock<BTreeSet<IpAddr>>);

impl KnownAddresses {
    pub(super) fn replace(&self, addresses: BTreeSet<IpAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&address.to_canonical())
    }
}

/// A bound socket.
///
/// The runtime is told only of what comes in. Were it told of room for sending too, as tokio's own socket is, each packet
/// that leaves the kernel's queue would wake it, for nothing: there nearly always was room.
pub(super) struct StampedSocket {
    io: Arc<UdpSocket>,
    waiting: Mutex<Waiting>,
    pace: Arc<Pace>,
    udp: UdpSocketState,
    known: Arc<KnownAddresses>,
    arrivals: Arc<Arrivals>,
    counters: Arc<Counters>,
    ids: IdKey,
    receiving: Mutex<Receiving>,
    /// The kernel had no room for the last packet. QUIC asks before each packet; only then is anything watched for it.
    full: AtomicBool,
}

struct Receiving {
    control: Vec<u8>,
    /// The last moment before which everything had been read.
    empty_at: Moment,
}

impl fmt::Debug for StampedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StampedSocket").field("io", &self.io).finish_non_exhaustive()
    }
}

/// What a socket shares with the rest of the transport.
#[derive(Clone)]
pub(super) struct SocketShared {
    pub(super) known: Arc<KnownAddresses>,
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) counters: Arc<Counters>,
    pub(super) ids: IdKey,
    pub(super) pace: Arc<Pace>,
    pub(super) buffer_bytes: usize,
}

impl StampedSocket {
    /// Binds `address`, present or not, and asks the kernel for stamps. Must be called within a tokio runtime.
    pub(super) fn bind(address: SocketAddr, shared: SocketShared) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::DGRAM.nonblocking().cloexec(),
            Some(socket2::Protocol::UDP),
        )?;
        // The interface of one path may be down when the agent starts; that must not stop the other path.
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
            }
        }
        // The kernel takes what its limits allow; less is no error.
        socket.set_recv_buffer_size(shared.buffer_bytes)?;
        socket.set_send_buffer_size(shared.buffer_bytes)?;
        socket.bind(&address.into())?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        let socket: UdpSocket = socket.into();
        let udp = UdpSocketState::new((&socket).into())?;
        let receiving = Mutex::new(Receiving { control: control_room(), empty_at: clock::now() });
        let SocketShared { known, arrivals, counters, ids, pace, .. } = shared;
        let (io, waiting, full) = (Arc::new(socket), Mutex::default(), AtomicBool::new(false));
        Ok(Self { io, waiting, pace, udp, known, arrivals, counters, ids, receiving, full })
    }

    /// Waits until the kernel has room for a packet: watches the same socket once more, for as long as that takes.
    async fn room(&self) -> io::Result<()> {
        let again = watch(&Arc::new(self.io.try_clone()?), Interest::WRITABLE)?;
        again.writable().await.map(drop)?;
        self.full.store(false, Ordering::Release);
        Ok(())
    }

    /// Reads packets of known addresses into `buffers`, and says how many in `taken`. `WouldBlock` means that the socket
    /// is empty now, whatever was taken before: there is no need to ask the kernel once more.
    fn receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta], taken: &mut usize) -> io::Result<()> {
        let mut receiving = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        let started = clock::now();
        let mut dropped = 0;
        let mut reading = None;
        while *taken < buffers.len().min(metas.len()) && dropped < DROPPED_IN_A_ROW_MAX {
            let Receiving { control, empty_at } = &mut *receiving;
            let buffer = std::slice::from_mut(&mut buffers[*taken]);
            let packet = match recvmsg::<SockaddrStorage>(self.io.as_raw_fd(), buffer, Some(control), MsgFlags::empty())
            {
                Ok(message) => Packet::read(&message),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {
                    *empty_at = started;
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(_) => None,
            };
            match packet {
                Some(packet) if self.known.has(packet.meta.addr.ip()) => {
                    let reading = *reading.get_or_insert_with(take_reading);
                    if self.note(&buffers[*taken], &packet, arrival(packet.stamp_ns, reading, *empty_at)) {
                        metas[*taken] = packet.meta;
                        *taken += 1;
                    } else {
                        dropped += 1;
                    }
                }
                Some(_) => {
                    self.counters.add(Counted::PacketsFromStrangers);
                    dropped += 1;
                }
                None => {
                    self.counters.add(Counted::PacketsMalformed);
                    dropped += 1;
                }
            }
        }
        Ok(())
    }

    /// Notes when each of the packets that the kernel put together in one buffer arrived; answers whether any of them
    /// is worth passing on. (Junk between good ones can't be taken out; QUIC will drop it.)
    fn note(&self, buffer: &[u8], packet: &Packet, at: Moment) -> bool {
        let content = &buffer[..packet.meta.len.min(buffer.len())];
        let mut good = false;
        for one in content.chunks(packet.meta.stride.max(1)) {
            let nature = judge(one, self.ids);
            if nature != Nature::Ours {
                self.counters.add(Counted::PacketsMalformed);
            }
            good |= nature != Nature::Junk;
            if let Some(log) = self.arrivals.log_of(one) {
                log.lock().unwrap_or_else(PoisonError::into_inner).record(at, one.len());
            }
        }
        good
    }
}

fn control_room() -> Vec<u8> {
    use nix::sys::time::TimeSpec;
    // Stamp, destination, ECN (either family), size of coalesced packets.
    nix::cmsg_space!(TimeSpec, libc::in6_pktinfo, libc::in_pktinfo, libc::c_int, libc::c_int, libc::c_int)
}

fn take_reading() -> Reading {
    let wall = clock_gettime(ClockId::Realtime);
    let ns = |n: i64| u64::try_from(n).unwrap_or(0);
    Reading { now: clock::now(), wall_ns: ns(wall.tv_sec).saturating_mul(1_000_000_000) + ns(wall.tv_nsec) }
}

/// What the kernel says about one buffer.
struct Packet {
    meta: RecvMeta,
    stamp_ns: Option<u64>,
}

impl Packet {
    /// `None` for what can't be told or was cut off.
    fn read(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Self> {
        if message.flags.contains(MsgFlags::MSG_TRUNC) || message.bytes == 0 {
            return None;
        }
        let addr = socket_address(message.address.as_ref()?)?;
        let mut meta = RecvMeta { addr, len: message.bytes, stride: message.bytes, ..RecvMeta::default() };
        let mut stamp_ns = None;
        for control in message.cmsgs().ok()? {
            match control {
                ControlMessageOwned::ScmTimestampns(stamp) => {
                    let ns = |n: i64| u64::try_from(n).unwrap_or(0);
                    stamp_ns = Some(ns(stamp.tv_sec()).saturating_mul(1_000_000_000) + ns(stamp.tv_nsec()));
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    meta.dst_ip = Some(IpAddr::V4(info.ipi_addr.s_addr.to_ne_bytes().into()));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    meta.dst_ip = Some(IpAddr::V6(info.ipi6_addr.s6_addr.into()));
                }
                ControlMessageOwned::Ipv4Tos(bits) => meta.ecn = EcnCodepoint::from_bits(bits),
                ControlMessageOwned::Ipv6TClass(bits) => meta.ecn = EcnCodepoint::from_bits(bits as u8),
                ControlMessageOwned::UdpGroSegments(bytes) if bytes > 0 => meta.stride = bytes as usize,
                _ => {}
            }
        }
        Some(Self { meta, stamp_ns })
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

impl AsyncUdpSocket for StampedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.udp.send((&*self.io).into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Release);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut taken = 0;
            let read = waiting.poll(cx, (&self.io, &self.pace), || self.receive(bufs, meta, &mut taken));
            let read = ready!(read)?;
            match read {
                _ if taken > 0 => return Poll::Ready(Ok(taken)),
                // Strangers only, and more of them: let others run, then go on.
                Ok(()) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // Empty, and known to be: what comes from now on is waited for.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.udp.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.udp.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.udp.may_fragment()
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits until the socket takes packets again; one for each connection.
struct Poller {
    socket: Arc<StampedSocket>,
    waiting: Option<Writable>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let socket = &this.socket;
        if this.waiting.is_none() && !socket.full.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let waiting = this.waiting.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move { socket.room().await })
        });
        let result = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::{Grid, Rest};
    use super::*;
    use std::time::Duration;

    fn bound(known: &[IpAddr]) -> (Arc<StampedSocket>, SocketShared) {
        let shared = SocketShared {
            known: Arc::default(),
            arrivals: Arc::default(),
            counters: Arc::default(),
            ids: key(),
            pace: Arc::new(Pace::start().expect("a timer")),
            buffer_bytes: 1 << 16,
        };
        shared.known.replace(known.iter().copied().collect());
        let address = "127.0.0.1:0".parse().expect("address");
        (Arc::new(StampedSocket::bind(address, shared.clone()).expect("bind")), shared)
    }

    /// The one packet that is there, or comes. With room for another, so that the socket is known to be empty afterwards.
    async fn next(socket: &StampedSocket) -> (Vec<u8>, RecvMeta) {
        let mut storage = [[0_u8; 4096]; 2];
        let mut metas = [RecvMeta::default(); 2];
        let mut bufs = storage.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let taken = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut metas)).await.expect("receive");
        assert_eq!(taken, 1);
        (storage[0][..metas[0].len].to_vec(), metas[0])
    }

    fn key() -> IdKey {
        IdKey::new(&[5; 32])
    }

    fn beat(mark: u8) -> Vec<u8> {
        [&[0x40][..], &key().make([7; 4]), &[mark; 50]].concat()
    }

    #[tokio::test]
    async fn a_packet_counts_from_when_the_kernel_had_it_and_not_from_when_it_was_read() {
        let (socket, shared) = bound(&["127.0.0.1".parse().expect("address")]);
        let followed = shared.arrivals.follow(Some(key().make([7; 4])));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        // The kernel switches stamping on a little after the socket asked for it; until then reading is the stamp.
        let stall = Duration::from_millis(60);
        let limit = clock::now().plus(Duration::from_secs(60));
        loop {
            let sent = clock::now();
            sender.send_to(&beat(1), socket.local_addr().expect("address")).expect("send");
            let wake = sent.plus(stall);
            while !clock::now().both_reached(wake) {
                std::thread::yield_now();
            }
            next(&socket).await;
            let arrived = followed.take(&[20], clock::now())[0];
            assert!(arrived >= sent.minus(Duration::from_millis(1)), "{arrived:?} before {sent:?}");
            if arrived.held_since(sent) < stall / 2 {
                break;
            }
            assert!(!clock::now().either_reached(limit), "the kernel never stamped a packet");
        }
    }

    #[tokio::test]
    async fn packets_of_strangers_are_dropped_unread_and_counted() {
        let (socket, shared) = bound(&["127.0.0.2".parse().expect("address")]);
        let to = socket.local_addr().expect("address");
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let friend = std::net::UdpSocket::bind("127.0.0.2:0").expect("bind");
        for _ in 0..50 {
            stranger.send_to(&beat(1), to).expect("send");
        }
        friend.send_to(b"good evening", to).expect("send");
        friend.send_to(&beat(2), to).expect("send");
        let (content, meta) = next(&socket).await;
        assert_eq!((content, meta.addr), (beat(2), friend.local_addr().expect("address")));
        let mut report = Vec::new();
        shared.counters.report(None, crate::driver::transport::Path(0), &mut report);
        let seen: Vec<_> = report.iter().map(|c| (c.what, c.count)).collect();
        assert_eq!(seen, [(Counted::PacketsFromStrangers, 50), (Counted::PacketsMalformed, 1)]);
    }

    #[tokio::test]
    async fn room_for_sending_is_seen_though_nobody_watches_for_it() {
        let socket = bound(&["127.0.0.1".parse().expect("address")]).0;
        let mut poller = Arc::clone(&socket).create_io_poller();
        for full in [false, true, true] {
            socket.full.store(full, Ordering::Release);
            let room = std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx));
            let room = tokio::time::timeout(Duration::from_secs(60), room).await;
            room.expect("the kernel has room").expect("and says so");
            assert!(!socket.full.load(Ordering::Acquire));
        }
        // It was watched for under another number: what comes in is still seen.
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        sender.send_to(&beat(1), socket.local_addr().expect("address")).expect("send");
        assert_eq!(next(&socket).await.0, beat(1));
    }

    fn rest(every: Duration) -> Rest {
        Rest { looks: Some(Grid { from: std::time::Instant::now(), every }), beats_late: every }
    }

    /// How long a packet lies before it is read, with packets let gather for `gather`.
    async fn lay_for(gather: Option<Duration>, is_streaming: bool) -> Duration {
        let (socket, shared) = bound(&["127.0.0.1".parse().expect("address")]);
        let _stream = is_streaming.then(|| shared.pace.stream());
        shared.pace.set(gather.map(rest));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let (to, rounds) = (socket.local_addr().expect("address"), 5);
        sender.send_to(&beat(0), to).expect("send");
        next(&socket).await;
        let mut shortest = Duration::MAX;
        for mark in 1..=rounds {
            // Whether it came before or after the socket was looked at again, it is read.
            let sent = clock::now();
            sender.send_to(&beat(mark), to).expect("send");
            assert_eq!(next(&socket).await.0, beat(mark));
            shortest = shortest.min(clock::now().held_since(sent));
        }
        shortest
    }

    #[tokio::test]
    async fn packets_gather_as_long_as_nothing_waits_for_them() {
        let gather = Duration::from_millis(500);
        assert!(lay_for(Some(gather), false).await >= gather / 4, "read at once");
        // The shortest of five: a busy machine may keep one of them.
        assert!(lay_for(Some(gather), true).await < gather / 4, "not read at once beside a stream");
        assert!(lay_for(None, false).await < gather / 4, "not read at once");
    }

    #[tokio::test]
    async fn what_gathers_is_read_at_once_from_when_something_waits_for_it() {
        let (socket, shared) = bound(&["127.0.0.1".parse().expect("address")]);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        for (mark, gather) in [(1, None), (2, Some(20)), (3, None), (4, Some(20)), (5, None)] {
            shared.pace.set(gather.map(|ms| rest(Duration::from_millis(ms))));
            sender.send_to(&beat(mark), socket.local_addr().expect("address")).expect("send");
            assert_eq!(next(&socket).await.0, beat(mark));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_not_there_yet_is_bound_all_the_same() {
        let shared = bound(&[]).1;
        let absent = "192.0.2.77:0".parse().expect("address");
        StampedSocket::bind(absent, shared).expect("bind an address of no interface");
    }
}
