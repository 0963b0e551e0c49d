//! The UDP socket under QUIC: drops packets of strangers and junk, and stamps the others with the kernel's time.
//!
//! One for each path. Packets from addresses that are no peer's, or that can't be of this protocol, never reach QUIC: no
//! parsing, no reply, no memory.
//! Sending, segmentation offload, and the options that QUIC wants come from `quinn-udp`; receiving is done here because
//! that library doesn't hand out the kernel's stamps.
//!
//! Not here: whether a known address sends something sensible (QUIC, TLS), and how stamps become moments (`stamp`).

use super::ids::{IdKey, Nature, judge};
use super::pace::{Pace, Waiting, watch};
use super::stamp::{Reading, arrival};
use super::stats::{Counted, Counters};
use crate::driver::clock;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg, setsockopt, sockopt};
use quinn_proto::EcnCodepoint;
use quinn_udp::UdpSocketState;
use quorum::moment::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use tokio::io::Interest;

/// Room for one reading: the kernel puts packets of one sender together, up to what a UDP packet can be.
const READ_BYTES_MAX: usize = 1 << 16;

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
    udp: UdpSocketState,
    known: Arc<KnownAddresses>,
    counters: Arc<Counters>,
    ids: IdKey,
    /// So many packets more the kernel has no room for: loopback always has.
    #[cfg(test)]
    pub(super) full: std::sync::atomic::AtomicUsize,
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
    pub(super) counters: Arc<Counters>,
    pub(super) ids: IdKey,
    pub(super) buffer_bytes: usize,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) from: SocketAddr,
    /// Which of this host's addresses it was sent to.
    pub(super) to: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    /// When the kernel had it.
    pub(super) at: Moment,
}

impl StampedSocket {
    /// Binds `address`, present or not, and asks the kernel for stamps.
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
        make_room(&socket, shared.buffer_bytes)?;
        socket.bind(&address.into())?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        let socket: UdpSocket = socket.into();
        let udp = UdpSocketState::new((&socket).into())?;
        let SocketShared { known, counters, ids, .. } = shared;
        Ok(Self {
            io: Arc::new(socket),
            udp,
            known,
            counters,
            ids,
            #[cfg(test)]
            full: Default::default(),
        })
    }

    /// Hands packets to the kernel; answers whether it had room. What it refuses for another reason is lost, as anything may
    /// be on the way.
    pub(super) fn send(&self, packets: &quinn_proto::Transmit, content: &[u8]) -> bool {
        #[cfg(test)]
        if self.is_full() {
            return false;
        }
        let ecn = packets.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8));
        let transmit = quinn_udp::Transmit {
            destination: packets.destination,
            ecn,
            contents: &content[..packets.size],
            segment_size: packets.segment_size,
            src_ip: packets.src_ip,
        };
        let sent = self.udp.send((&*self.io).into(), &transmit);
        !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[cfg(test)]
    fn is_full(&self) -> bool {
        use std::sync::atomic::Ordering;
        self.full.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    /// Waits until the kernel has room for a packet: watches the same socket once more, for as long as that takes.
    pub(super) async fn room(self: Arc<Self>) -> io::Result<()> {
        let again = watch(&Arc::new(self.io.try_clone()?), Interest::WRITABLE)?;
        again.writable().await.map(drop)
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Packets to one address that the kernel takes as one.
    pub(super) fn segments_max(&self) -> usize {
        self.udp.max_gso_segments()
    }

    /// Whether packets that are too large for the path may arrive in pieces.
    pub(super) fn may_fragment(&self) -> bool {
        self.udp.may_fragment()
    }
}

/// The one who reads a socket.
pub(super) struct Reader {
    socket: Arc<StampedSocket>,
    waiting: Waiting,
    buffer: Box<[u8]>,
    control: Vec<u8>,
    /// The last moment before which everything had been read.
    empty_at: Moment,
    /// How many packets the kernel has dropped so far, as it last said.
    unread: u32,
}

impl Reader {
    pub(super) fn new(socket: Arc<StampedSocket>) -> Self {
        let buffer = vec![0; READ_BYTES_MAX].into_boxed_slice();
        Self { socket, waiting: Waiting::default(), buffer, control: control_room(), empty_at: clock::now(), unread: 0 }
    }

    /// Passes on packets of known addresses, until nothing is there, of which the task will be told, or there were `max`
    /// packets, whoever sent them: then it answers that there may be more.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        pace: &Pace,
        max: usize,
        mut came: impl FnMut(Received<'_>),
    ) -> bool {
        let Self { socket, waiting, buffer, control, empty_at, unread } = self;
        let mut packets = 0;
        let mut read = || {
            let started = clock::now();
            while packets < max {
                let Some(more) = socket.read((&mut *buffer, &mut *control), (*empty_at, unread), &mut came) else {
                    *empty_at = started;
                    return Err(io::ErrorKind::WouldBlock.into());
                };
                packets += more;
            }
            Ok(())
        };
        loop {
            match waiting.poll(cx, (&socket.io, pace), &mut read) {
                Poll::Pending => return false,
                Poll::Ready(Ok(Ok(()))) => return true,
                // Empty, and known to be: what comes from now on is waited for.
                Poll::Ready(Ok(Err(_))) => {}
                Poll::Ready(Err(error)) => {
                    tracing::error!(%error, "the kernel doesn't tell of what comes in");
                    return false;
                }
            }
        }
    }
}

impl StampedSocket {
    /// One reading; answers how many packets it brought, and `None` if nothing is there.
    fn read(
        &self,
        (buffer, control): (&mut [u8], &mut Vec<u8>),
        (empty_at, unread): (Moment, &mut u32),
        came: &mut impl FnMut(Received<'_>),
    ) -> Option<usize> {
        let mut room = [IoSliceMut::new(buffer)];
        let read = recvmsg::<SockaddrStorage>(self.io.as_raw_fd(), &mut room, Some(control), MsgFlags::empty());
        let packets = match read {
            Ok(message) => Packets::read(&message),
            Err(Errno::EAGAIN) => return None,
            Err(Errno::EINTR) => return Some(1),
            Err(_) => None,
        };
        if let Some(packets) = &packets {
            // The kernel's count begins again after 2^32.
            let more = packets.unread.wrapping_sub(std::mem::replace(unread, packets.unread));
            self.counters.add_many(Counted::PacketsUnread, u64::from(more));
        }
        match packets {
            Some(packets) if self.known.has(packets.from.ip()) => {
                let at = arrival(packets.stamp_ns, take_reading(), empty_at);
                let Packets { from, to, ecn, .. } = packets;
                let each = buffer[..packets.bytes].chunks(packets.each.max(1));
                let number = each.len();
                for bytes in each {
                    let nature = judge(bytes, self.ids);
                    if nature != Nature::Ours {
                        self.counters.add(Counted::PacketsMalformed);
                    }
                    if nature != Nature::Junk {
                        came(Received { bytes, from, to, ecn, at });
                    }
                }
                return Some(number);
            }
            Some(_) => self.counters.add(Counted::PacketsFromStrangers),
            None => self.counters.add(Counted::PacketsMalformed),
        }
        Some(1)
    }
}

fn control_room() -> Vec<u8> {
    use nix::sys::time::TimeSpec;
    // Stamp, destination, ECN (either family), size of coalesced packets, packets dropped.
    nix::cmsg_space!(TimeSpec, libc::in6_pktinfo, libc::in_pktinfo, libc::c_int, libc::c_int, libc::c_int, u32)
}

/// Has the kernel keep up to `bytes` in each direction. Whoever may not go beyond the machine's limits gets what these
/// allow: on most machines 208 KiB, a hundred and eighty long packets, while a thousand hosts call at once.
fn make_room(socket: &socket2::Socket, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        socket.set_recv_buffer_size(bytes)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

fn take_reading() -> Reading {
    let wall = clock_gettime(ClockId::Realtime);
    let ns = |n: i64| u64::try_from(n).unwrap_or(0);
    Reading { now: clock::now(), wall_ns: ns(wall.tv_sec).saturating_mul(1_000_000_000) + ns(wall.tv_nsec) }
}

/// What the kernel says about one reading: a packet, or several of one sender put together.
struct Packets {
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    bytes: usize,
    /// Bytes of each, save for the last.
    each: usize,
    stamp_ns: Option<u64>,
    /// How many the kernel had dropped since the socket was made, for want of room.
    unread: u32,
}

impl Packets {
    /// `None` for what can't be told or was cut off.
    fn read(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Self> {
        if message.flags.contains(MsgFlags::MSG_TRUNC) || message.bytes == 0 {
            return None;
        }
        let from = socket_address(message.address.as_ref()?)?;
        let (bytes, each) = (message.bytes, message.bytes);
        let mut read = Self { from, to: None, ecn: None, bytes, each, stamp_ns: None, unread: 0 };
        for control in message.cmsgs().ok()? {
            match control {
                ControlMessageOwned::ScmTimestampns(stamp) => {
                    let ns = |n: i64| u64::try_from(n).unwrap_or(0);
                    read.stamp_ns = Some(ns(stamp.tv_sec()).saturating_mul(1_000_000_000) + ns(stamp.tv_nsec()));
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    read.to = Some(IpAddr::V4(info.ipi_addr.s_addr.to_ne_bytes().into()));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    read.to = Some(IpAddr::V6(info.ipi6_addr.s6_addr.into()));
                }
                ControlMessageOwned::Ipv4Tos(bits) => read.ecn = EcnCodepoint::from_bits(bits),
                ControlMessageOwned::Ipv6TClass(bits) => read.ecn = EcnCodepoint::from_bits(bits as u8),
                ControlMessageOwned::UdpGroSegments(bytes) if bytes > 0 => read.each = bytes as usize,
                ControlMessageOwned::RxqOvfl(packets) => read.unread = packets,
                _ => {}
            }
        }
        Some(read)
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

#[cfg(test)]
mod tests {
    use super::super::pace::{Grid, Rest};
    use super::*;
    use std::time::Duration;

    struct Bound {
        socket: Arc<StampedSocket>,
        reader: Reader,
        pace: Arc<Pace>,
        counters: Arc<Counters>,
    }

    fn shared(known: &[IpAddr]) -> SocketShared {
        let (counters, known_addresses) = (Arc::default(), Arc::<KnownAddresses>::default());
        known_addresses.replace(known.iter().copied().collect());
        SocketShared { known: known_addresses, counters, ids: key(), buffer_bytes: 1 << 16 }
    }

    fn bound(known: &[IpAddr]) -> Bound {
        let shared = shared(known);
        let (counters, pace) = (Arc::clone(&shared.counters), Arc::new(Pace::start().expect("a timer")));
        let socket = StampedSocket::bind("127.0.0.1:0".parse().expect("address"), shared).expect("bind");
        let socket = Arc::new(socket);
        Bound { reader: Reader::new(Arc::clone(&socket)), socket, pace, counters }
    }

    impl Bound {
        fn address(&self) -> SocketAddr {
            self.socket.local_address().expect("address")
        }

        /// The one packet that is there, or comes. The socket is known to be empty afterwards.
        async fn next(&mut self) -> (Vec<u8>, SocketAddr, Moment) {
            let mut came = Vec::new();
            std::future::poll_fn(|cx| {
                let each = |packet: Received<'_>| came.push((packet.bytes.to_vec(), packet.from, packet.at));
                let is_more = self.reader.poll(cx, &self.pace, 100, each);
                assert!(!is_more, "a hundred packets");
                if came.is_empty() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            assert_eq!(came.len(), 1);
            came.remove(0)
        }
    }

    fn key() -> IdKey {
        IdKey::new(&[5; 32])
    }

    fn beat(mark: u8) -> Vec<u8> {
        [&[0x40][..], &key().make([7; 4]), &[mark; 50]].concat()
    }

    #[tokio::test]
    async fn a_packet_counts_from_when_the_kernel_had_it_and_not_from_when_it_was_read() {
        let mut bound = bound(&["127.0.0.1".parse().expect("address")]);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        // The kernel switches stamping on a little after the socket asked for it; until then reading is the stamp.
        let stall = Duration::from_millis(60);
        let limit = clock::now().plus(Duration::from_secs(60));
        loop {
            let sent = clock::now();
            sender.send_to(&beat(1), bound.address()).expect("send");
            let wake = sent.plus(stall);
            while !clock::now().both_reached(wake) {
                std::thread::yield_now();
            }
            let arrived = bound.next().await.2;
            assert!(arrived >= sent.minus(Duration::from_millis(1)), "{arrived:?} before {sent:?}");
            if arrived.held_since(sent) < stall / 2 {
                break;
            }
            assert!(!clock::now().either_reached(limit), "the kernel never stamped a packet");
        }
    }

    #[tokio::test]
    async fn packets_of_strangers_are_dropped_unread_and_counted() {
        let mut bound = bound(&["127.0.0.2".parse().expect("address")]);
        let to = bound.address();
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let friend = std::net::UdpSocket::bind("127.0.0.2:0").expect("bind");
        for _ in 0..50 {
            stranger.send_to(&beat(1), to).expect("send");
        }
        friend.send_to(b"good evening", to).expect("send");
        friend.send_to(&beat(2), to).expect("send");
        let (content, from, _) = bound.next().await;
        assert_eq!((content, from), (beat(2), friend.local_addr().expect("address")));
        let mut report = Vec::new();
        bound.counters.report(None, crate::driver::transport::Path(0), &mut report);
        let seen: Vec<_> = report.iter().map(|c| (c.what, c.count)).collect();
        assert_eq!(seen, [(Counted::PacketsFromStrangers, 50), (Counted::PacketsMalformed, 1)]);
    }

    #[tokio::test]
    async fn packets_that_the_kernel_had_no_room_for_are_counted() {
        const SENT: u64 = 5_000;
        let mut bound = bound(&["127.0.0.1".parse().expect("address")]);
        let to = bound.address();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let send = |count: u64| {
            for _ in 0..count {
                sender.send_to(&beat(1), to).expect("send");
            }
        };
        let mut read = 0;
        let mut read_all = async |bound: &mut Bound| {
            let Bound { reader, pace, .. } = bound;
            let some = std::future::poll_fn(|cx| {
                let before = read;
                let is_more = reader.poll(cx, pace, 10_000, |_| read += 1);
                assert!(!is_more);
                if read == before { Poll::Pending } else { Poll::Ready(()) }
            });
            some.await;
        };
        send(SENT);
        read_all(&mut bound).await;
        // Every later packet tells the same count: it isn't added again.
        send(3);
        read_all(&mut bound).await;
        let mut report = Vec::new();
        bound.counters.report(None, crate::driver::transport::Path(0), &mut report);
        let seen: Vec<_> = report.iter().map(|c| (c.what, c.count)).collect();
        assert!(read < SENT, "the kernel had room for all");
        assert_eq!(seen, [(Counted::PacketsUnread, SENT + 3 - read)]);
    }

    #[test]
    fn more_room_than_the_machine_gives_to_everybody_is_had_by_who_may() {
        let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").expect("a limit");
        let limit: usize = limit.trim().parse().expect("bytes");
        let asked = 2 * limit;
        let plain = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let may = setsockopt(&plain, sockopt::RcvBufForce, &asked).is_ok();
        let shared = SocketShared { buffer_bytes: asked, ..shared(&[]) };
        let socket = StampedSocket::bind("127.0.0.1:0".parse().expect("address"), shared).expect("bind");
        let had = nix::sys::socket::getsockopt(&socket.io, sockopt::RcvBuf).expect("told");
        // The kernel doubles what is asked, for its own records.
        assert_eq!(had, 2 * if may { asked } else { limit });
    }

    #[tokio::test]
    async fn room_for_sending_is_seen_though_nobody_watches_for_it() {
        let mut bound = bound(&["127.0.0.1".parse().expect("address")]);
        for _ in 0..2 {
            let room = tokio::time::timeout(Duration::from_secs(60), Arc::clone(&bound.socket).room()).await;
            room.expect("the kernel has room").expect("and says so");
        }
        // It was watched for under another number: what comes in is still seen.
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        sender.send_to(&beat(1), bound.address()).expect("send");
        assert_eq!(bound.next().await.0, beat(1));
    }

    fn rest(every: Duration) -> Rest {
        Rest { looks: Some(Grid { from: std::time::Instant::now(), every }), beats_late: every }
    }

    /// How long a packet lies before it is read, with packets let gather for `gather`.
    async fn lay_for(gather: Option<Duration>, is_streaming: bool) -> Duration {
        let mut bound = bound(&["127.0.0.1".parse().expect("address")]);
        let _stream = is_streaming.then(|| bound.pace.stream());
        bound.pace.set(gather.map(rest));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let (to, rounds) = (bound.address(), 5);
        sender.send_to(&beat(0), to).expect("send");
        bound.next().await;
        let mut shortest = Duration::MAX;
        for mark in 1..=rounds {
            // Whether it came before or after the socket was looked at again, it is read.
            let sent = clock::now();
            sender.send_to(&beat(mark), to).expect("send");
            assert_eq!(bound.next().await.0, beat(mark));
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
        let mut bound = bound(&["127.0.0.1".parse().expect("address")]);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        for (mark, gather) in [(1, None), (2, Some(20)), (3, None), (4, Some(20)), (5, None)] {
            bound.pace.set(gather.map(|ms| rest(Duration::from_millis(ms))));
            sender.send_to(&beat(mark), bound.address()).expect("send");
            assert_eq!(bound.next().await.0, beat(mark));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_not_there_yet_is_bound_all_the_same() {
        let absent = "192.0.2.77:0".parse().expect("address");
        StampedSocket::bind(absent, shared(&[])).expect("bind an address of no interface");
    }
}
