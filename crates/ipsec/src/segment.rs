//! A large packet of a stack that leaves segmentation and checksums to its device, as the packets that go on the wire.
//!
//! What the kernel does for a device that cannot (`net/ipv4/tcp_offload.c`, `udp_offload.c`), in one go with ESP.

use crate::checksum;
use crate::packet::{Headers, fill_ipv4_checksum, proto};

/// The longest headers of a packet that is cut: IPv6 with some extensions, and TCP with all its options.
pub const MAX_HEADER: usize = 128;
/// One packet is never cut into more.
pub const MAX_SEGMENTS: usize = 4096;

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Of the TCP flags: on the last segment only.
const FIN_PSH: u8 = 0x01 | 0x08;
/// Of the TCP flags: on the first segment only (RFC 3168 6.1.2).
const CWR: u8 = 0x80;
const FLAGS_AT: usize = 13;

/// A packet that is to be cut.
pub struct Large<'a> {
    packet: &'a [u8],
    headers: Headers,
    header_len: usize,
    size: usize,
}

/// One packet of several.
pub struct Segment<'a> {
    header: [u8; MAX_HEADER],
    header_len: usize,
    /// What follows the headers.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// IP and TCP or UDP header.
    pub fn header(&self) -> &[u8] {
        &self.header[..self.header_len]
    }
}

/// Where the payload of a TCP or UDP packet begins; `None` if it ends before.
pub(crate) fn header_len(packet: &[u8], headers: &Headers) -> Option<usize> {
    let upper = packet.get(headers.upper..headers.total_len)?;
    let length = match headers.protocol {
        proto::TCP => {
            let words = usize::from(upper.get(12)? >> 4);
            Some(words * 4).filter(|length| *length >= TCP_HEADER)?
        }
        proto::UDP => UDP_HEADER,
        _ => return None,
    };
    (length <= upper.len() && headers.upper + length <= MAX_HEADER)
        .then_some(headers.upper + length)
}

impl<'a> Large<'a> {
    /// A TCP or UDP packet of which every part carries at most `size` bytes of payload; `headers` are its own.
    ///
    /// `None` if it is no such packet, or would come to pieces beyond measure.
    pub fn new(packet: &'a [u8], headers: &Headers, size: u16) -> Option<Self> {
        let size = usize::from(size);
        let whole = headers.total_len == packet.len() && headers.fragment.is_none();
        let header_len = header_len(packet, headers).filter(|_| whole && size > 0)?;
        let pieces = (packet.len() - header_len).div_ceil(size);
        (pieces <= MAX_SEGMENTS).then_some(Self { packet, headers: *headers, header_len, size })
    }

    /// Bytes of its longest part, headers included.
    pub fn longest(&self) -> usize {
        self.packet.len().min(self.header_len + self.size)
    }

    /// Its parts, in order.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        let payload = &self.packet[self.header_len..];
        let count = payload.len().div_ceil(self.size).max(1);
        (0..count).map(move |index| {
            let from = index * self.size;
            let payload = &payload[from..(from + self.size).min(payload.len())];
            self.segment(index, from, index + 1 == count, payload)
        })
    }

    fn segment(&self, index: usize, from: usize, last: bool, payload: &'a [u8]) -> Segment<'a> {
        let Headers { upper, src, dst, protocol, .. } = self.headers;
        let mut segment = Segment { header: [0; MAX_HEADER], header_len: self.header_len, payload };
        let header = &mut segment.header[..self.header_len];
        header.copy_from_slice(&self.packet[..self.header_len]);
        let total = self.header_len + payload.len();
        let (ip, transport) = header.split_at_mut(upper);
        if src.is_ipv4() {
            ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(index as u16);
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            fill_ipv4_checksum(ip);
        } else {
            let fixed = self.headers.fixed_len();
            ip[4..6].copy_from_slice(&((total - fixed) as u16).to_be_bytes());
        }
        let checksum_at = match protocol {
            proto::TCP => {
                let first = [transport[4], transport[5], transport[6], transport[7]];
                let seq = u32::from_be_bytes(first).wrapping_add(from as u32);
                transport[4..8].copy_from_slice(&seq.to_be_bytes());
                transport[FLAGS_AT] &= if last { 0xff } else { !FIN_PSH };
                transport[FLAGS_AT] &= if index == 0 { 0xff } else { !CWR };
                16
            }
            _ => {
                let length = (total - upper) as u16;
                transport[4..6].copy_from_slice(&length.to_be_bytes());
                6
            }
        };
        transport[checksum_at..checksum_at + 2].fill(0);
        let sum = checksum::pseudo_header(src, dst, protocol, total - upper);
        let sum = checksum::add(checksum::add(sum, transport), payload);
        let value = never_zero(protocol, checksum::finish(sum));
        transport[checksum_at..checksum_at + 2].copy_from_slice(&value.to_be_bytes());
        segment
    }
}

/// Completes a checksum that covers `packet[start..]` and stands `offset` bytes behind `start`, where the sum of the
/// pseudo header is already. `false` if that is beyond the packet.
///
/// Never zero, whatever protocol it is of, as the kernel's `skb_checksum_help` has it.
pub fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(covered) = packet.get_mut(start..) else { return false };
    let value = match checksum::finish(checksum::add(0, covered)) {
        0 => 0xffff,
        value => value,
    };
    let Some(field) = covered.get_mut(offset..offset + 2) else { return false };
    field.copy_from_slice(&value.to_be_bytes());
    true
}

/// A UDP checksum of zero means that there is none (RFC 768).
fn never_zero(protocol: u8, value: u16) -> u16 {
    if protocol == proto::UDP && value == 0 { 0xffff } else { value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet;

    /// A TCP packet with all flags and 12 bytes of options.
    pub(crate) fn tcp(v6: bool, payload: &[u8]) -> Vec<u8> {
        let [src, dst] = if v6 { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
        let fields = packet::HeaderFields {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol: proto::TCP,
            tos: 2,
            ttl: 64,
            dont_fragment: true,
        };
        let mut whole = fields.build(32 + payload.len()).unwrap().to_vec();
        if !v6 {
            whole[4..6].copy_from_slice(&0xfffeu16.to_be_bytes());
            packet::fill_ipv4_checksum(&mut whole);
        }
        whole.extend([0x13, 0x88, 0, 80]);
        whole.extend(0xffff_f000u32.to_be_bytes());
        whole.extend(77u32.to_be_bytes());
        whole.extend([0x80, 0xd9, 1, 0, 0, 0, 0, 0]);
        whole.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        whole.extend_from_slice(payload);
        whole
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    #[test]
    fn tcp_is_cut_as_the_kernel_would() {
        for (v6, length, size) in
            [(false, 3000, 1400), (true, 3000, 1000), (false, 1400, 1400), (true, 0, 10)]
        {
            let payload = bytes(length);
            let packet = tcp(v6, &payload);
            let headers = packet::parse(&packet).unwrap();
            let large = Large::new(&packet, &headers, size).unwrap();
            let count = length.div_ceil(usize::from(size)).max(1);
            let mut seen = Vec::new();
            for (index, segment) in large.segments().enumerate() {
                let whole = [segment.header(), segment.payload].concat();
                let headers = packet::parse(&whole).unwrap();
                assert_eq!(headers.total_len, whole.len());
                assert!(checksum::is_right(&whole, &headers));
                assert!(whole.len() <= large.longest());
                let tcp = &whole[headers.upper..];
                let seq = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
                assert_eq!(seq, 0xffff_f000u32.wrapping_add(seen.len() as u32));
                let (first, last) = (index == 0, index + 1 == count);
                let expected = 0x50 | if first { CWR } else { 0 } | if last { FIN_PSH } else { 0 };
                assert_eq!(tcp[FLAGS_AT], expected, "{index}");
                if !v6 {
                    let id = u16::from_be_bytes([whole[4], whole[5]]);
                    assert_eq!(id, 0xfffeu16.wrapping_add(index as u16));
                    assert_eq!(checksum::finish(checksum::add(0, &whole[..20])), 0);
                }
                seen.extend_from_slice(segment.payload);
            }
            assert_eq!(seen, payload);
        }
    }

    #[test]
    fn udp_is_cut_into_datagrams() {
        let payload = bytes(1001);
        let from = "10.0.0.1:9".parse().unwrap();
        let packet = packet::udp(from, "10.0.0.2:10".parse().unwrap(), &payload).unwrap();
        let headers = packet::parse(&packet).unwrap();
        let large = Large::new(&packet, &headers, 300).unwrap();
        let mut seen = Vec::new();
        for segment in large.segments() {
            let whole = [segment.header(), segment.payload].concat();
            let headers = packet::parse(&whole).unwrap();
            assert!(checksum::is_right(&whole, &headers));
            let length = u16::from_be_bytes([whole[24], whole[25]]);
            assert_eq!(usize::from(length), 8 + segment.payload.len());
            seen.extend_from_slice(segment.payload);
        }
        assert_eq!(seen, payload);
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let mut packet = tcp(false, &bytes(101));
        let headers = packet::parse(&packet).unwrap();
        let upper = packet.len() - headers.upper;
        let partial = checksum::pseudo_header(headers.src, headers.dst, proto::TCP, upper);
        let partial = !checksum::finish(partial);
        packet[36..38].copy_from_slice(&partial.to_be_bytes());
        assert!(complete_checksum(&mut packet, headers.upper, 16));
        assert!(checksum::is_right(&packet, &headers));
        assert!(!complete_checksum(&mut packet, 1000, 16));
        assert!(!complete_checksum(&mut packet, 20, 132));
        let mut ones = [0xff; 4];
        assert!(complete_checksum(&mut ones, 0, 0));
        assert_eq!(ones, [0xff; 4]);
    }

    proptest! {
        /// Wherever a header of the device says that a checksum stands: within the packet, or refused.
        #[test]
        fn a_checksum_is_completed_within_the_packet_or_not(
            length in 0usize..200, start in 0usize..300, offset: u16
        ) {
            let (before, offset) = (bytes(length), usize::from(offset) % 300);
            let mut after = before.clone();
            let done = complete_checksum(&mut after, start, offset);
            prop_assert_eq!(done, start + offset + 2 <= length);
            prop_assert_eq!(&after[..start.min(length)], &before[..start.min(length)]);
            prop_assert!(done || after == before);
        }

        /// Whatever the headers say: every part parses, and together they are the payload.
        #[test]
        fn anything_is_cut_whole_or_refused(
            v6: bool, length in 0usize..5000, size: u16, damage in prop::collection::vec((0usize..80, any::<u8>()), 0..4)
        ) {
            let mut packet = tcp(v6, &bytes(length));
            for (at, value) in damage {
                let at = at.min(packet.len() - 1);
                packet[at] = value;
            }
            let Ok(headers) = packet::parse(&packet) else { return Ok(()) };
            let Some(large) = Large::new(&packet, &headers, size) else { return Ok(()) };
            let mut seen = Vec::new();
            for segment in large.segments() {
                let whole = [segment.header(), segment.payload].concat();
                let headers = packet::parse(&whole).unwrap();
                prop_assert_eq!(headers.total_len, whole.len());
                prop_assert!(checksum::is_right(&whole, &headers));
                prop_assert!(whole.len() <= large.longest());
                seen.extend_from_slice(segment.payload);
            }
            prop_assert_eq!(&seen[..], &packet[large.header_len..]);
        }
    }
}
