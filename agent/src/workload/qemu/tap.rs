//! Plugging a guest's tap into a bridge.
//!
//! QEMU makes the tap itself and it is not persistent: when QEMU dies, however it dies, the kernel takes the tap away
//! and with it the guest's address on this segment. All that is left to do is to plug it in and raise it, in the network
//! namespace of this process.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

/// Adds an interface to a bridge (`linux/sockios.h`; the same on every architecture).
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

/// True if `name` is a bridge in this network namespace.
pub fn is_bridge(name: &str) -> bool {
    // An interface name can't leave the folder: the kernel allows no slash in it.
    !name.contains('/') && std::path::Path::new("/sys/class/net").join(name).join("bridge").is_dir()
}

/// Plugs `tap` into `bridge` and raises it. Plugged in already is fine.
///
/// # Errors
/// What the kernel said: no such interface, no permission, or plugged into another bridge.
pub fn plug(tap: &str, bridge: &str) -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut request = named(bridge)?;
    let index = index_of(tap)?;
    request.ifr_ifru.ifru_ifindex = index;
    match control(&socket, SIOCBRADDIF, &mut request) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && bridge_of(tap).as_deref() == Some(bridge) => {}
        plugged => plugged?,
    }
    let mut request = named(tap)?;
    control(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has just filled in this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    control(&socket, libc::SIOCSIFFLAGS, &mut request)
}

fn bridge_of(tap: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/class/net/{tap}/master")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

fn index_of(name: &str) -> io::Result<libc::c_int> {
    let name = CString::new(name)?;
    // SAFETY: the pointer is to a closed C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => libc::c_int::try_from(index).map_err(io::Error::other),
    }
}

fn named(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is too long for an interface")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn control(socket: &OwnedFd, order: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the orders given here take a pointer to one `ifreq`, which lives through the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), order, std::ptr::from_mut(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
