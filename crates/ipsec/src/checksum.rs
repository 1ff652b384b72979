//! The Internet checksum (RFC 1071), and the transport checksums behind a NAT (RFC 3948 3.1.2).

use std::net::IpAddr;

use crate::packet::{Headers, proto};

/// Adds `bytes` to a running sum; only the last part of a sum may have an odd length.
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    // In the machine's own byte order, which the sum does not depend on but for its result's (RFC 1071 2 B).
    let (words, rest) = bytes.as_chunks::<8>();
    let native = words.iter().fold(0, |sum, word| {
        let word = u64::from_ne_bytes(*word);
        sum + (word & 0xffff_ffff) + (word >> 32)
    });
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    let tail = u64::from_ne_bytes(tail);
    let native = native + (tail & 0xffff_ffff) + (tail >> 32);
    sum + u64::from(u16::from_be(fold(native)))
}

/// A running sum in 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of a running sum: its ones' complement in 16 bits.
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1).
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, upper_len: usize) -> u64 {
    let sum = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => add(add(0, &src.octets()), &dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => add(add(0, &src.octets()), &dst.octets()),
        _ => 0,
    };
    sum + upper_len as u64 + u64::from(protocol)
}

/// Makes the TCP, UDP or ICMPv6 checksum fit the packet's addresses.
///
/// In transport mode through a NAT the sender computed it over other addresses (RFC 3948 3.1.2).
/// ESP's own integrity check has vouched for the data. A UDP checksum of zero over IPv4 means
/// "none" and stays. `packet` is a whole IP packet that `headers` were read from.
pub fn refresh(packet: &mut [u8], headers: &Headers) {
    let Some((at, optional)) = field(headers) else { return };
    let Some(upper) = packet.get_mut(headers.upper..headers.total_len) else { return };
    let Some(old) = upper.get(at..at + 2) else { return };
    if optional && old == [0, 0] {
        return;
    }
    upper[at..at + 2].fill(0);
    let sum = pseudo_header(headers.src, headers.dst, headers.protocol, upper.len());
    let mut value = finish(add(sum, upper));
    if headers.protocol == proto::UDP && value == 0 {
        value = 0xffff;
    }
    upper[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Whether the TCP, UDP or ICMPv6 checksum is right; other protocols and fragments count as right.
pub fn is_right(packet: &[u8], headers: &Headers) -> bool {
    let Some((at, optional)) = field(headers) else { return true };
    let Some(upper) = packet.get(headers.upper..headers.total_len) else { return false };
    let Some(old) = upper.get(at..at + 2) else { return false };
    if optional && old == [0, 0] {
        return true;
    }
    let sum = pseudo_header(headers.src, headers.dst, headers.protocol, upper.len());
    finish(add(sum, upper)) == 0
}

/// Where the checksum stands in the upper-layer header, and whether zero means that there is none.
fn field(headers: &Headers) -> Option<(usize, bool)> {
    if headers.fragment.is_some() {
        return None;
    }
    match headers.protocol {
        proto::TCP => Some((16, false)),
        proto::UDP => Some((6, headers.src.is_ipv4())),
        proto::ICMPV6 => Some((2, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(add(0, &data)), !0xddf2);
    }

    #[test]
    fn the_same_as_word_by_word() {
        let bytes: Vec<u8> = (0..1500u32).map(|i| ((i * i) >> 3) as u8 | 0x80).collect();
        for length in (0..64).chain(1400..1420) {
            let pair = |pair: &[u8]| {
                u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
            };
            let plain: u64 = bytes[..length].chunks(2).map(pair).sum();
            assert_eq!(finish(add(7, &bytes[..length])), finish(plain + 7), "{length}");
        }
    }

    #[test]
    fn odd_lengths_are_padded_with_zero() {
        assert_eq!(finish(add(0, &[1, 2, 3])), finish(add(0, &[1, 2, 3, 0])));
    }
}
