//! Packets of one flow that follow each other, as one large packet for a stack that takes such.
//!
//! What the kernel's receive offload does (`net/ipv4/tcp_offload.c`): only what [`crate::segment`] would cut into the same
//! packets again is put together, and only packets whose checksum is right.

use crate::checksum;
use crate::packet::{self, Headers, fill_ipv4_checksum, proto};
use crate::segment::{Large, MAX_HEADER, header_len};

/// Flows that are looked at for one that a packet continues.
const LOOKED_AT: usize = 8;
/// The longest IP packet.
const LONGEST: usize = 65_535;
/// Parts of one large packet at most.
const MAX_PARTS: usize = 64;
const FLAGS_AT: usize = 13;
const PSH: u8 = 0x08;
/// TCP flags that a packet may have and still be one of several: ACK, ECE, PSH.
const COMMON: u8 = 0x10 | 0x40 | PSH;

/// Packets in the order in which they go to the stack.
pub struct Coalescer<'a> {
    groups: Vec<Group<'a>>,
    tcp: bool,
    udp: bool,
}

/// One packet, or several as one.
pub struct Group<'a> {
    first: &'a [u8],
    headers: Headers,
    /// Of packets that may be continued.
    stretch: Option<Stretch<'a>>,
}

struct Stretch<'a> {
    header_len: usize,
    /// Bytes of payload of each part but the last.
    size: usize,
    /// Payloads after the first.
    more: Vec<&'a [u8]>,
    /// Bytes of payload of all.
    payload: usize,
    /// A part that must be the last was there.
    closed: bool,
    /// PSH of the last part.
    push: bool,
}

/// What a device must know of a large packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// TCP, else UDP.
    pub tcp: bool,
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Bytes of all headers.
    pub header_len: usize,
    /// Bytes of payload of each part but the last.
    pub size: usize,
    /// Where the TCP or UDP header begins.
    pub checksum_start: usize,
    /// Where its checksum stands in it; the sum of the pseudo header is there.
    pub checksum_offset: usize,
}

/// The headers of a large packet.
pub struct Joined {
    header: [u8; MAX_HEADER],
    /// What is to be said of it.
    pub offload: Offload,
}

impl Joined {
    /// IP and TCP or UDP header.
    pub fn header(&self) -> &[u8] {
        &self.header[..self.offload.header_len]
    }
}

impl<'a> Coalescer<'a> {
    /// Without packets. Which large packets the stack takes; others stay as they are.
    pub fn new(tcp: bool, udp: bool) -> Self {
        Self { groups: Vec::new(), tcp, udp }
    }

    /// One more packet, whose headers these are. `checked`: its checksum is known to be right.
    pub fn push(&mut self, packet: &'a [u8], headers: Headers, checked: bool) {
        let candidate = Candidate::of(packet, &headers, self.tcp, self.udp);
        let right = || checked || checksum::is_right(packet, &headers);
        let Some(candidate) = candidate.filter(|_| right()) else {
            return self.groups.push(Group { first: packet, headers, stretch: None });
        };
        let same = self.groups.iter_mut().rev().take(LOOKED_AT);
        let same = same.filter(|group| group.headers.protocol == headers.protocol);
        if let Some(group) = same.into_iter().find(|group| group.same_flow(packet, &headers)) {
            if group.append(&candidate) {
                return;
            }
            // What comes later must not overtake.
            if let Some(stretch) = &mut group.stretch {
                stretch.closed = true;
            }
        }
        let Candidate { header_len, payload, push, .. } = candidate;
        let (size, closed) = (payload.len(), push);
        let stretch = Stretch { header_len, size, more: Vec::new(), payload: size, closed, push };
        self.groups.push(Group { first: packet, headers, stretch: Some(stretch) });
    }

    /// What was put together.
    pub fn groups(&self) -> &[Group<'a>] {
        &self.groups
    }
}

/// A packet that may be one of several.
struct Candidate<'a> {
    packet: &'a [u8],
    headers: Headers,
    header_len: usize,
    payload: &'a [u8],
    push: bool,
}

impl<'a> Candidate<'a> {
    fn of(packet: &'a [u8], headers: &Headers, tcp: bool, udp: bool) -> Option<Self> {
        let plain = headers.fragment.is_none() && headers.upper == headers.fixed_len();
        if !plain || headers.total_len != packet.len() {
            return None;
        }
        if headers.src.is_ipv4() && !is_plain_ipv4(&packet[..headers.upper]) {
            return None;
        }
        let header_len = header_len(packet, headers)?;
        let upper = &packet[headers.upper..];
        let push = match headers.protocol {
            proto::TCP if tcp && upper[FLAGS_AT] & !COMMON == 0 && upper[FLAGS_AT] & 0x10 != 0 => {
                upper[FLAGS_AT] & PSH != 0
            }
            // One without a checksum, or with bytes behind it, stays as it is.
            proto::UDP if udp && upper[6..8] != [0, 0] && udp_len(upper) == upper.len() => false,
            _ => return None,
        };
        let payload = &packet[header_len..];
        (!payload.is_empty()).then_some(Self {
            packet,
            headers: *headers,
            header_len,
            payload,
            push,
        })
    }
}

/// Of the flags DF alone, so that its identification means nothing (RFC 6864 4.1), and the right checksum.
fn is_plain_ipv4(header: &[u8]) -> bool {
    header[6..8] == [0x40, 0] && checksum::finish(checksum::add(0, header)) == 0
}

fn udp_len(udp: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([udp[4], udp[5]]))
}

impl<'a> Group<'a> {
    /// The packet, if it is alone.
    pub fn single(&self) -> Option<&'a [u8]> {
        let several = self.stretch.as_ref().is_some_and(|stretch| !stretch.more.is_empty());
        (!several).then_some(self.first)
    }

    /// Payloads of all parts.
    pub fn payloads(&self) -> impl Iterator<Item = &'a [u8]> {
        let first = self.stretch.as_ref().map(|stretch| &self.first[stretch.header_len..]);
        let more = self.stretch.iter().flat_map(|stretch| stretch.more.iter().copied());
        first.into_iter().chain(more)
    }

    /// How many packets it is.
    pub fn len(&self) -> usize {
        1 + self.stretch.as_ref().map_or(0, |stretch| stretch.more.len())
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The headers of all parts as one; `None` if there is one packet only.
    pub fn joined(&self) -> Option<Joined> {
        let stretch = self.stretch.as_ref().filter(|stretch| !stretch.more.is_empty())?;
        let Headers { upper, src, dst, protocol, .. } = self.headers;
        let tcp = protocol == proto::TCP;
        let mut header = [0; MAX_HEADER];
        let whole = &mut header[..stretch.header_len];
        whole.copy_from_slice(&self.first[..stretch.header_len]);
        let total = stretch.header_len + stretch.payload;
        let (ip, transport) = whole.split_at_mut(upper);
        if src.is_ipv4() {
            ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            fill_ipv4_checksum(ip);
        } else {
            ip[4..6].copy_from_slice(&((total - upper) as u16).to_be_bytes());
        }
        let checksum_offset = if tcp { 16 } else { 6 };
        if tcp {
            transport[FLAGS_AT] |= if stretch.push { PSH } else { 0 };
        } else {
            transport[4..6].copy_from_slice(&((total - upper) as u16).to_be_bytes());
        }
        let partial = !checksum::finish(checksum::pseudo_header(src, dst, protocol, total - upper));
        transport[checksum_offset..checksum_offset + 2].copy_from_slice(&partial.to_be_bytes());
        let offload = Offload {
            tcp,
            v6: src.is_ipv6(),
            header_len: stretch.header_len,
            size: stretch.size,
            checksum_start: upper,
            checksum_offset,
        };
        Some(Joined { header, offload })
    }

    /// All parts, each by itself, if there are several: for a stack that does not take them as one.
    pub fn apart(&self) -> Vec<Vec<u8>> {
        let Some(joined) = self.joined() else { return Vec::new() };
        let mut whole = joined.header().to_vec();
        self.payloads().for_each(|payload| whole.extend_from_slice(payload));
        let Ok(headers) = packet::parse(&whole) else { return Vec::new() };
        let size = joined.offload.size as u16;
        let large = Large::new(&whole, &headers, size);
        let segments = large.iter().flat_map(Large::segments);
        segments.map(|segment| [segment.header(), segment.payload].concat()).collect()
    }

    fn same_flow(&self, packet: &'a [u8], headers: &Headers) -> bool {
        let ports = |packet: &'a [u8], at: usize| packet.get(at..at + 4);
        (self.headers.src, self.headers.dst) == (headers.src, headers.dst)
            && ports(self.first, self.headers.upper) == ports(packet, headers.upper)
    }

    fn append(&mut self, next: &Candidate<'a>) -> bool {
        let Self { first, headers, stretch: Some(stretch) } = self else { return false };
        let fits = !stretch.closed
            && next.payload.len() <= stretch.size
            && stretch.header_len == next.header_len
            && stretch.more.len() + 1 < MAX_PARTS
            && stretch.header_len + stretch.payload + next.payload.len() <= LONGEST
            && same_ip(first, headers, next)
            && continues(first, headers, stretch, next);
        if fits {
            stretch.more.push(next.payload);
            stretch.payload += next.payload.len();
            stretch.closed = next.push || next.payload.len() < stretch.size;
            stretch.push = next.push;
        }
        fits
    }
}

/// TOS, TTL and DF as the first packet has them.
fn same_ip(first: &[u8], headers: &Headers, next: &Candidate<'_>) -> bool {
    let Candidate { packet, headers: other, .. } = next;
    let label = |packet: &[u8]| [packet[1], packet[2], packet[3]];
    headers.tos == other.tos
        && headers.ttl == other.ttl
        && headers.dont_fragment == other.dont_fragment
        // The flow label; in IPv4 lengths stand there.
        && (headers.src.is_ipv4() || label(first) == label(packet))
}

/// Whether a packet is the next of its flow and says nothing that the first one does not.
fn continues(first: &[u8], headers: &Headers, stretch: &Stretch<'_>, next: &Candidate<'_>) -> bool {
    if headers.protocol != proto::TCP {
        return true;
    }
    let (a, b) = (&first[headers.upper..], &next.packet[headers.upper..next.header_len]);
    let seq = |tcp: &[u8]| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    seq(b) == seq(a).wrapping_add(stretch.payload as u32)
        && a[8..FLAGS_AT] == b[8..FLAGS_AT]
        && a[FLAGS_AT] | PSH == b[FLAGS_AT] | PSH
        && a[14..16] == b[14..16]
        && a[18..b.len()] == b[18..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined_as_bytes(group: &Group<'_>) -> Vec<u8> {
        match group.joined() {
            None => group.single().unwrap().to_vec(),
            Some(joined) => {
                let payload: Vec<u8> = group.payloads().flatten().copied().collect();
                [joined.header(), &payload].concat()
            }
        }
    }

    fn tcp(v6: bool, flags: u8, payload: usize) -> Vec<u8> {
        let [src, dst] = if v6 { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
        let fields = packet::HeaderFields {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol: proto::TCP,
            tos: 1,
            ttl: 9,
            dont_fragment: true,
        };
        let mut whole = fields.build(20 + payload).unwrap().to_vec();
        whole.extend([0x13, 0x88, 0, 80, 0xff, 0xff, 0xff, 0, 0, 0, 0, 7]);
        whole.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
        whole.extend((0..payload).map(|i| (i ^ i >> 8) as u8));
        whole
    }

    fn cut(packet: &[u8], size: u16) -> Vec<Vec<u8>> {
        let headers = packet::parse(packet).unwrap();
        let large = Large::new(packet, &headers, size).unwrap();
        large.segments().map(|segment| [segment.header(), segment.payload].concat()).collect()
    }

    fn coalesced(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut coalescer = Coalescer::new(true, true);
        for packet in packets {
            coalescer.push(packet, packet::parse(packet).unwrap(), false);
        }
        let groups = coalescer.groups();
        assert_eq!(groups.iter().map(Group::len).sum::<usize>(), packets.len());
        groups.iter().map(joined_as_bytes).collect()
    }

    proptest! {
        /// Put together and cut again, they are what they were.
        #[test]
        fn cutting_undoes_it(v6: bool, psh: bool, payload in 1usize..20_000, size in 100u16..1500) {
            let packet = tcp(v6, 0x10 | if psh { PSH } else { 0 }, payload);
            let parts = cut(&packet, size);
            let groups = coalesced(&parts);
            let again: Vec<_> = groups.iter().flat_map(|whole| cut(whole, size)).collect();
            prop_assert_eq!(&again, &parts);
            let count = parts.len().div_ceil(MAX_PARTS);
            prop_assert_eq!(groups.len(), count);
        }
    }

    #[test]
    fn what_does_not_follow_stays_apart() {
        let parts = cut(&tcp(false, 0x18, 5000), 1000);
        let apart = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut changed = parts.clone();
            change(&mut changed);
            coalesced(&changed).len()
        };
        assert_eq!(apart(&|_| ()), 1);
        // One is missing, twice there, in another order.
        assert_eq!(apart(&|p| drop(p.remove(2))), 2);
        assert_eq!(apart(&|p| p.insert(2, p[2].clone())), 2);
        assert_eq!(apart(&|p| p.swap(1, 2)), 4);
        // Damaged: its checksum is wrong, and the stack shall see that.
        assert_eq!(apart(&|p| p[2][100] ^= 1), 3);
        // Another TTL, congestion experienced, a FIN, another window.
        let altered = |p: &mut Vec<u8>, at: usize, value: u8| {
            p[at] = value;
            packet::fill_ipv4_checksum(&mut p[..20]);
        };
        assert_eq!(apart(&|p| altered(&mut p[4], 8, 8)), 2);
        assert_eq!(apart(&|p| altered(&mut p[4], 1, 3)), 2);
        // Its identification has a meaning, or its header is damaged, which the stack shall see too.
        assert_eq!(apart(&|p| p.iter_mut().for_each(|p| altered(p, 6, 0))), 5);
        assert_eq!(apart(&|p| p[2][10] ^= 1), 3);
        let refreshed = |p: &mut Vec<u8>, at: usize, value: u8| {
            p[at] = value;
            let headers = packet::parse(p).unwrap();
            checksum::refresh(p, &headers);
        };
        assert_eq!(apart(&|p| refreshed(&mut p[4], 33, 0x11)), 2);
        assert_eq!(apart(&|p| refreshed(&mut p[4], 35, 9)), 2);
        assert_eq!(apart(&|p| refreshed(&mut p[4], 21, 9)), 2);
    }

    #[test]
    fn nothing_overtakes_within_a_flow() {
        let parts = cut(&tcp(false, 0x10, 4000), 1000);
        let mut hole = vec![parts[0].clone(), parts[2].clone(), parts[1].clone()];
        hole.push(parts[3].clone());
        let groups = coalesced(&hole);
        let seqs: Vec<u8> = groups.iter().map(|whole| whole[26]).collect();
        assert_eq!(groups.len(), 4, "{seqs:?}");
    }

    #[test]
    fn datagrams_of_one_length_are_one() {
        let udp = |length: usize| {
            packet::udp(
                "10.0.0.1:9".parse().unwrap(),
                "10.0.0.2:10".parse().unwrap(),
                &vec![7; length],
            )
            .unwrap()
        };
        let mut packets = vec![udp(100), udp(100), udp(60), udp(100), udp(101)];
        for (id, packet) in packets.iter_mut().enumerate() {
            packet[5] = id as u8;
            packet[6] = 0x40;
            packet::fill_ipv4_checksum(&mut packet[..20]);
        }
        let groups = coalesced(&packets);
        assert_eq!(groups.len(), 3);
        assert_eq!(cut(&groups[0], 100), packets[..3]);
        let mut coalescer = Coalescer::new(true, true);
        for packet in &packets {
            coalescer.push(packet, packet::parse(packet).unwrap(), false);
        }
        assert_eq!(coalescer.groups()[0].apart(), packets[..3]);
        assert!(coalescer.groups()[2].apart().is_empty());
        let mut unchecked = vec![udp(100), udp(100)];
        unchecked.iter_mut().for_each(|packet| {
            packet[6] = 0x40;
            packet::fill_ipv4_checksum(&mut packet[..20]);
            packet[26..28].fill(0);
        });
        assert_eq!(coalesced(&unchecked).len(), 2);
    }
}
