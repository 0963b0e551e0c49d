//! The frames that tell neighbours where an address lives. Pure.
//!
//! ARP: RFC 826, announcements as in RFC 5227 section 3. Neighbour discovery: RFC 4861 sections 4.4 and 7.2.6.

use crate::workload::qemu::spec::MacAddress;
use std::net::{Ipv4Addr, Ipv6Addr};

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Whoever knows another hardware address shall replace it; nobody asked; we are no router.
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_LINK_ADDRESS: u8 = 2;
/// Shortest Ethernet frame without its checksum.
const FRAME_BYTES_MIN: usize = 60;

/// "Who has this address? I do": heard by everybody as an announcement.
pub fn arp_request(ip: Ipv4Addr, mac: MacAddress) -> Vec<u8> {
    arp(1, ip, mac, [0; 6])
}

/// The same as an answer that nobody asked for.
pub fn arp_reply(ip: Ipv4Addr, mac: MacAddress) -> Vec<u8> {
    arp(2, ip, mac, BROADCAST)
}

fn arp(operation: u8, ip: Ipv4Addr, mac: MacAddress, target: [u8; 6]) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet and IPv4, with addresses of 6 and 4 bytes.
    frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, operation]);
    frame.extend(mac.0);
    frame.extend(ip.octets());
    frame.extend(target);
    frame.extend(ip.octets());
    frame.resize(FRAME_BYTES_MIN, 0);
    frame
}

/// "This address is at this hardware address", to all nodes of the link.
pub fn neighbour_advertisement(ip: Ipv6Addr, mac: MacAddress) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, FLAG_OVERRIDE, 0, 0, 0];
    message.extend(ip.octets());
    message.extend([OPTION_TARGET_LINK_ADDRESS, 1]);
    message.extend(mac.0);
    let sum = checksum(ip, all_nodes, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);

    // The multicast hardware address of ff02::1.
    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, ETHERTYPE_IPV6);
    let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
    // Hop limit 255: receivers take it as proof that it comes from their own link.
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(ip.octets());
    frame.extend(all_nodes.octets());
    frame.extend(message);
    frame
}

fn ethernet(to: [u8; 6], from: MacAddress, kind: [u8; 2]) -> Vec<u8> {
    [&to[..], &from.0, &kind].concat()
}

/// The Internet checksum over the pseudo header and the message, whose own checksum field is zero.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let header = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    let words = header.chunks(2).chain(message.chunks(2));
    let sum: u32 = words.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 7]);

    #[test]
    fn an_arp_announcement_names_the_same_address_as_asker_and_asked() {
        let ip = Ipv4Addr::new(10, 20, 0, 15);
        for (frame, operation) in [(arp_request(ip, MAC), 1), (arp_reply(ip, MAC), 2)] {
            assert_eq!(frame.len(), FRAME_BYTES_MIN);
            assert_eq!((&frame[..6], &frame[6..12], frame[21]), (&BROADCAST[..], &MAC.0[..], operation));
            assert_eq!(
                (&frame[22..28], &frame[28..32], &frame[38..42]),
                (&MAC.0[..], &ip.octets()[..], &ip.octets()[..])
            );
        }
    }

    #[test]
    fn an_advertisements_checksum_makes_its_sum_all_ones() {
        let ip: Ipv6Addr = "fd00::15".parse().unwrap();
        let frame = neighbour_advertisement(ip, MAC);
        let message = &frame[54..];
        assert_eq!((frame[20], frame[21], message[0], message.len()), (ICMPV6, 255, NEIGHBOUR_ADVERTISEMENT, 32));
        // With the checksum in place the complement of the sum is zero.
        assert_eq!(checksum(ip, "ff02::1".parse().unwrap(), message), 0);
    }
}
