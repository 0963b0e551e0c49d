//! Unix sockets that keep message bounds and can carry a descriptor: between keeper, holder and lab chassis.
//!
//! Contract: a message is at most [`PACKET_BYTES_MAX`] bytes and carries at most one descriptor; more is cut off or
//! closed. Nothing here allocates; a peer that is gone is an error, never a signal.
//! Not here: what the messages mean.

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Bytes of the largest message.
pub const PACKET_BYTES_MAX: usize = 64;

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Connects to the socket at `path`; later sends and receives wait at most `limit`.
///
/// # Errors
/// What the kernel said; nothing is left open.
pub fn connect(path: &Path, limit: Duration) -> Result<OwnedFd, Errno> {
    let fd = socket()?;
    set_socket_timeout(&fd, Timeout::Recv, Some(limit))?;
    set_socket_timeout(&fd, Timeout::Send, Some(limit))?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd)
}

/// Listens at `path`, in the place of a socket that nobody listens at any more.
///
/// # Errors
/// What the kernel said: [`Errno::ADDRINUSE`] if somebody does listen there.
pub fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    if connect(path, Duration::from_millis(100)).is_ok() {
        return Err(Errno::ADDRINUSE);
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let fd = socket()?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&fd, 16)?;
    Ok(fd)
}

/// Takes the next connection, which then never blocks; `None` if there is none.
///
/// # Errors
/// What the kernel said.
pub fn accept(listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sends `bytes`, with a duplicate of `carried` if one is given.
///
/// # Errors
/// What the kernel said: [`Errno::PIPE`] if the peer is gone.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], carried: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds;
    if let Some(fd) = carried {
        fds = [fd];
        let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
        debug_assert!(pushed, "the buffer is made for one descriptor");
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
    })
}

/// Sends `bytes` or fails at once with [`Errno::AGAIN`].
///
/// # Errors
/// What the kernel said.
pub fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop))
}

/// A received message.
#[derive(Debug)]
pub struct Packet {
    bytes: [u8; PACKET_BYTES_MAX],
    len: usize,
    /// The descriptor that came with it.
    pub carried: Option<OwnedFd>,
}

impl Packet {
    /// Its bytes; empty if the peer closed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The first byte, which says what the message is; `None` if the peer closed.
    pub fn code(&self) -> Option<u8> {
        self.bytes().first().copied()
    }

    /// The number after the first byte.
    pub fn number(&self) -> Option<u32> {
        self.bytes().get(1..5)?.try_into().ok().map(u32::from_le_bytes)
    }
}

/// A message of a code and a number.
pub fn numbered(code: u8, number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_le_bytes();
    [code, a, b, c, d]
}

/// Receives the next message.
///
/// # Errors
/// What the kernel said: [`Errno::AGAIN`] if there is none (in time).
pub fn receive(socket: BorrowedFd<'_>) -> Result<Packet, Errno> {
    let mut packet = Packet { bytes: [0; PACKET_BYTES_MAX], len: 0, carried: None };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut packet.bytes)];
        rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    packet.len = received.bytes;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            // Only one is ever sent; what else came is closed here.
            packet.carried = fds.into_iter().next();
        }
    }
    Ok(packet)
}

/// Whether the peer still has its end open.
pub fn is_connected(socket: BorrowedFd<'_>) -> bool {
    let mut byte = [0; 1];
    match rustix::net::recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => false,
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => true,
        Err(_) => false,
    }
}

/// Whether the peer runs under our own user. Its pid may be none that this pid namespace knows.
pub fn is_own_user(socket: &impl AsFd) -> bool {
    let cred = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials);
    cred.is_ok_and(|cred| cred.uid() == rustix::process::geteuid().as_raw())
}
