//! Sending raw frames on one interface of this network namespace.

use super::AnnounceError;
use crate::workload::qemu::spec::MacAddress;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// An open way out on one interface. Needs CAP_NET_RAW.
pub(super) struct Link {
    socket: OwnedFd,
    mac: MacAddress,
    interface: String,
}

impl Link {
    pub(super) fn open(interface: &str) -> Result<Self, AnnounceError> {
        let refused = |doing| {
            move |error: nix::Error| AnnounceError::Refused { doing, interface: interface.into(), source: error.into() }
        };
        let address = address_of(interface).map_err(refused("list interfaces"))?;
        let missing = || AnnounceError::NoInterface(interface.into());
        let address = address.ok_or_else(missing)?;
        let mac = MacAddress(address.addr().ok_or_else(missing)?);
        // Without a protocol the socket receives nothing: it is there to send.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).map_err(refused("open a raw socket"))?;
        bind(socket.as_raw_fd(), &address).map_err(refused("bind"))?;
        Ok(Self { socket, mac, interface: interface.into() })
    }

    /// The interface's own hardware address.
    pub(super) fn mac(&self) -> MacAddress {
        self.mac
    }

    pub(super) fn send(&self, frame: &[u8]) -> Result<(), AnnounceError> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(AnnounceError::Refused { doing: "send", interface: self.interface.clone(), source: error.into() })
            }
        }
    }
}

/// The link-level address of an interface: it holds its index as well.
fn address_of(interface: &str) -> nix::Result<Option<LinkAddr>> {
    let mut all = nix::ifaddrs::getifaddrs()?.filter(|entry| entry.interface_name == interface);
    Ok(all.find_map(|entry| entry.address?.as_link_addr().copied()))
}
