//! The ICMP error that tells a local sender to send smaller packets (RFC 1191, RFC 4443 3.2).

use std::net::IpAddr;

use crate::checksum;
use crate::packet::{HeaderFields, Headers, is_unicast, proto};

/// Smallest MTU that an IPv6 path can have (RFC 8200 5).
pub const IPV6_MIN_MTU: usize = 1280;

/// An error packet holds at most this much of an IPv4 packet that caused it (RFC 1812 4.3.2.3).
const IPV4_QUOTE: usize = 548;

/// "Fragmentation needed", or "packet too big", for the sender of `packet`.
///
/// It comes from the packet's destination: an error from one of this host's own addresses would
/// arrive on the TUN device as a martian. `None` where no error may be sent (RFC 1122 3.2.2, RFC 4443 2.4 e).
pub fn too_big(packet: &[u8], headers: &Headers, mtu: usize) -> Option<Vec<u8>> {
    if is_error(packet, headers) || !is_unicast(headers.src) || !is_unicast(headers.dst) {
        return None;
    }
    if headers.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return None;
    }
    let v4 = headers.src.is_ipv4();
    let (protocol, quote) = if v4 {
        (proto::ICMP, IPV4_QUOTE)
    } else {
        (proto::ICMPV6, IPV6_MIN_MTU - headers.fixed_len() - 8)
    };
    let quoted = packet.get(..headers.total_len.min(quote))?;
    let mut message = Vec::with_capacity(8 + quoted.len());
    if v4 {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        message.extend_from_slice(&[3, 4, 0, 0, 0, 0]);
        message.extend_from_slice(&mtu.to_be_bytes());
    } else {
        message.extend_from_slice(&[2, 0, 0, 0]);
        message.extend_from_slice(&u32::try_from(mtu).unwrap_or(u32::MAX).to_be_bytes());
    }
    message.extend_from_slice(quoted);
    let pseudo = match headers.src {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => checksum::pseudo_header(headers.dst, headers.src, protocol, message.len()),
    };
    let sum = checksum::finish(checksum::add(pseudo, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let (src, dst) = (headers.dst, headers.src);
    let fields = HeaderFields { src, dst, protocol, tos: 0, ttl: 64, dont_fragment: false };
    let mut error = fields.build(message.len())?.to_vec();
    error.extend_from_slice(&message);
    Some(error)
}

/// Whether the packet is an ICMP error itself.
fn is_error(packet: &[u8], headers: &Headers) -> bool {
    let kind = packet.get(headers.upper).copied();
    match headers.protocol {
        proto::ICMP => matches!(kind, None | Some(3 | 4 | 5 | 11 | 12)),
        proto::ICMPV6 => kind.is_none_or(|kind| kind < 128),
        _ => false,
    }
}
