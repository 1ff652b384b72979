//! IP packets as policies and ESP see them: bounds-checked, with a bounded walk of extension headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::checksum;
use crate::dataplane::PacketInfo;

/// IP protocol numbers that matter here (IANA "Protocol Numbers").
#[allow(missing_docs)]
pub mod proto {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const IPV4: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const IPV6: u8 = 41;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ESP: u8 = 50;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT_HEADER: u8 = 59;
    pub const DEST_OPTIONS: u8 = 60;
    pub const IPCOMP: u8 = 108;
    pub const SCTP: u8 = 132;
    pub const UDP_LITE: u8 = 136;
}

/// IPv6 extension headers walked before a packet is refused.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_HEADER: usize = 40;
/// Bytes of a UDP header.
pub const UDP_HEADER: usize = 8;

/// Why a packet is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Neither IPv4 nor IPv6.
    #[error("IP version is neither 4 nor 6")]
    Version,
    /// Ends before its headers do.
    #[error("the packet ends within its headers")]
    Truncated,
    /// The length in the header is shorter than the header, or longer than the packet.
    #[error("the length in the IP header does not fit the packet")]
    Length,
    /// Too many extension headers, or hop-by-hop options that do not come first (RFC 8200 4.1).
    #[error("the chain of IPv6 extension headers is too long or out of order")]
    Extensions,
    /// A type 0 routing header (RFC 5095).
    #[error("a type 0 routing header")]
    SourceRoute,
}

/// What the headers of one packet say, with offsets into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DF of IPv4; always true for IPv6, which routers do not fragment.
    pub dont_fragment: bool,
    /// Length of the packet as its header has it; bytes behind are not part of it.
    pub total_len: usize,
    /// Upper-layer protocol, behind extension headers.
    pub protocol: u8,
    /// Where the upper-layer header begins.
    pub upper: usize,
    /// Where ESP goes in transport mode: behind IPv4 options, behind hop-by-hop, routing and
    /// fragment headers (RFC 4303 3.1.1).
    pub esp_at: usize,
    /// The protocol at `esp_at`.
    pub esp_next: u8,
    /// Where the byte stands that names the protocol at `esp_at`.
    pub esp_next_at: usize,
    /// Of a fragment: which one.
    pub fragment: Option<Fragment>,
}

/// What a fragment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Identification; 16 bits in IPv4.
    pub id: u32,
    /// Where its data begins in the datagram's, in bytes.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// Where its data begins in this packet.
    pub data_at: usize,
    /// The protocol of the fragmented part.
    pub next: u8,
    /// Where the byte stands that names the fragment header (IPv6), or the protocol (IPv4).
    pub next_at: usize,
}

/// Reads the headers of a whole IP packet.
pub fn parse(packet: &[u8]) -> Result<Headers, Malformed> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        Some(_) => Err(Malformed::Version),
        None => Err(Malformed::Truncated),
    }
}

impl Headers {
    /// Bytes of the fixed IP header of this family.
    pub fn fixed_len(&self) -> usize {
        if self.src.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER }
    }

    /// What policies look at. `packet` is what these headers were read from.
    pub fn info(&self, packet: &[u8]) -> PacketInfo {
        let (src_port, dst_port) = match self.ports(packet) {
            Some((src, dst)) => (Some(src), Some(dst)),
            None => (None, None),
        };
        PacketInfo { src: self.src, dst: self.dst, protocol: self.protocol, src_port, dst_port }
    }

    fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        if self.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return None;
        }
        let upper = packet.get(self.upper..self.total_len)?;
        match self.protocol {
            proto::TCP | proto::UDP | proto::DCCP | proto::SCTP | proto::UDP_LITE => {
                let ports = upper.first_chunk::<4>()?;
                let src = u16::from_be_bytes([ports[0], ports[1]]);
                Some((src, u16::from_be_bytes([ports[2], ports[3]])))
            }
            proto::ICMP | proto::ICMPV6 => {
                let both = u16::from_be_bytes(*upper.first_chunk::<2>()?);
                Some((both, both))
            }
            _ => None,
        }
    }
}

fn parse_v4(packet: &[u8]) -> Result<Headers, Malformed> {
    let fixed = packet.first_chunk::<IPV4_HEADER>().ok_or(Malformed::Truncated)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header_len < IPV4_HEADER || total_len < header_len || total_len > packet.len() {
        return Err(Malformed::Length);
    }
    let flags = u16::from_be_bytes([fixed[6], fixed[7]]);
    let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
    let protocol = fixed[9];
    Ok(Headers {
        src: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
        dst: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
        tos: fixed[1],
        ttl: fixed[8],
        dont_fragment: flags & 0x4000 != 0,
        total_len,
        protocol,
        upper: header_len,
        esp_at: header_len,
        esp_next: protocol,
        esp_next_at: 9,
        fragment: (offset != 0 || more).then(|| Fragment {
            id: u32::from(u16::from_be_bytes([fixed[4], fixed[5]])),
            offset,
            more,
            data_at: header_len,
            next: protocol,
            next_at: 9,
        }),
    })
}

fn parse_v6(packet: &[u8]) -> Result<Headers, Malformed> {
    let fixed = packet.first_chunk::<IPV6_HEADER>().ok_or(Malformed::Truncated)?;
    let total_len = IPV6_HEADER + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if total_len > packet.len() {
        return Err(Malformed::Length);
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut headers = Headers {
        src: address(8),
        dst: address(24),
        tos: fixed[0] << 4 | fixed[1] >> 4,
        ttl: fixed[7],
        dont_fragment: true,
        total_len,
        protocol: fixed[6],
        upper: IPV6_HEADER,
        esp_at: IPV6_HEADER,
        esp_next: fixed[6],
        esp_next_at: 6,
        fragment: None,
    };
    walk_extensions(&packet[..total_len], &mut headers)?;
    Ok(headers)
}

/// Follows the chain to the upper-layer header, or to the end of what a later fragment knows.
fn walk_extensions(packet: &[u8], headers: &mut Headers) -> Result<(), Malformed> {
    let mut next_at = 6;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let (kind, at) = (headers.protocol, headers.upper);
        let len = match kind {
            proto::HOP_BY_HOP if at != IPV6_HEADER => return Err(Malformed::Extensions),
            proto::HOP_BY_HOP | proto::ROUTING | proto::DEST_OPTIONS => {
                let start = packet.get(at..at + 3).ok_or(Malformed::Truncated)?;
                if kind == proto::ROUTING && start[2] == 0 {
                    return Err(Malformed::SourceRoute);
                }
                (usize::from(start[1]) + 1) * 8
            }
            proto::FRAGMENT if headers.fragment.is_some() => return Err(Malformed::Extensions),
            proto::FRAGMENT => {
                headers.fragment = Some(fragment_header(packet, at, next_at)?);
                8
            }
            _ => return Ok(()),
        };
        if at + len > packet.len() {
            return Err(Malformed::Truncated);
        }
        headers.protocol = packet[at];
        headers.upper = at + len;
        next_at = at;
        if kind != proto::DEST_OPTIONS {
            headers.esp_at = headers.upper;
            headers.esp_next = headers.protocol;
            headers.esp_next_at = next_at;
        }
        if headers.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(());
        }
    }
    Err(Malformed::Extensions)
}

fn fragment_header(packet: &[u8], at: usize, next_at: usize) -> Result<Fragment, Malformed> {
    let header = packet.get(at..at + 8).ok_or(Malformed::Truncated)?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    Ok(Fragment {
        id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        offset: usize::from(field & 0xfff8),
        more: field & 1 != 0,
        data_at: at + 8,
        next: header[0],
        next_at,
    })
}

/// A fixed IP header of either family.
#[derive(Clone, Copy, Debug)]
pub struct FixedHeader {
    bytes: [u8; IPV6_HEADER],
    len: usize,
}

/// What an IP header is built from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderFields {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Protocol or next header.
    pub protocol: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DF; without meaning for IPv6.
    pub dont_fragment: bool,
}

impl HeaderFields {
    /// The header of a packet with `payload_len` bytes behind it; IPv4 with its checksum.
    ///
    /// `None` if the addresses are of two families or the packet would be longer than IP can say.
    pub fn build(&self, payload_len: usize) -> Option<FixedHeader> {
        let mut bytes = [0; IPV6_HEADER];
        let len = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let total = u16::try_from(payload_len + IPV4_HEADER).ok()?;
                bytes[0] = 0x45;
                bytes[1] = self.tos;
                bytes[2..4].copy_from_slice(&total.to_be_bytes());
                bytes[6] = if self.dont_fragment { 0x40 } else { 0 };
                bytes[8] = self.ttl;
                bytes[9] = self.protocol;
                bytes[12..16].copy_from_slice(&src.octets());
                bytes[16..20].copy_from_slice(&dst.octets());
                fill_ipv4_checksum(&mut bytes[..IPV4_HEADER]);
                IPV4_HEADER
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                bytes[0] = 0x60 | self.tos >> 4;
                bytes[1] = self.tos << 4;
                bytes[4..6].copy_from_slice(&u16::try_from(payload_len).ok()?.to_be_bytes());
                bytes[6] = self.protocol;
                bytes[7] = self.ttl;
                bytes[8..24].copy_from_slice(&src.octets());
                bytes[24..40].copy_from_slice(&dst.octets());
                IPV6_HEADER
            }
            _ => return None,
        };
        Some(FixedHeader { bytes, len })
    }
}

impl std::ops::Deref for FixedHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Writes the checksum of an IPv4 header, options included (bytes 10 and 11 of `header`).
pub fn fill_ipv4_checksum(header: &mut [u8]) {
    if header.len() < IPV4_HEADER {
        return;
    }
    header[10..12].fill(0);
    let value = checksum::finish(checksum::add(0, header));
    header[10..12].copy_from_slice(&value.to_be_bytes());
}

/// Rewrites TOS or traffic class of a packet that [`parse`] accepted.
pub fn set_tos(packet: &mut [u8], headers: &mut Headers, tos: u8) {
    headers.tos = tos;
    if headers.src.is_ipv4() {
        packet[1] = tos;
        fill_ipv4_checksum(&mut packet[..headers.upper]);
    } else {
        packet[0] = packet[0] & 0xf0 | tos >> 4;
        packet[1] = packet[1] & 0x0f | tos << 4;
    }
}

/// Puts `prefix` in the place of the first `old` bytes of `packet`, without a new allocation where
/// there is room.
pub fn replace_prefix(packet: &mut Vec<u8>, old: usize, prefix: &[u8]) {
    let new = prefix.len();
    if new <= old {
        packet.drain(..old - new);
    } else {
        let len = packet.len();
        packet.resize(len + new - old, 0);
        packet.copy_within(old..len, new);
    }
    packet[..new].copy_from_slice(prefix);
}

/// A whole UDP packet with its checksums, not to be fragmented: probes and tests.
///
/// `None` if the addresses are of two families or the payload is too long.
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let fields = HeaderFields {
        src: src.ip(),
        dst: dst.ip(),
        protocol: proto::UDP,
        tos: 0,
        ttl: 64,
        dont_fragment: true,
    };
    let len = UDP_HEADER + payload.len();
    let header = fields.build(len)?;
    let mut packet = Vec::with_capacity(header.len() + len + ROOM);
    packet.extend_from_slice(&header);
    packet.extend_from_slice(&src.port().to_be_bytes());
    packet.extend_from_slice(&dst.port().to_be_bytes());
    packet.extend_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
    // Any value but zero: "refresh" leaves a checksum alone that is not there.
    packet.extend_from_slice(&[0xff; 2]);
    packet.extend_from_slice(payload);
    let headers = parse(&packet).ok()?;
    checksum::refresh(&mut packet, &headers);
    Some(packet)
}

/// Spare capacity of packets that are made here: what ESP may add, and what it wants before a packet that is opened.
const ROOM: usize = 96;

/// Whether ESP between two hosts can go there: not multicast, broadcast, loopback or unspecified.
pub fn is_unicast(addr: IpAddr) -> bool {
    let limited_broadcast = addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(addr.is_multicast() || addr.is_loopback() || addr.is_unspecified() || limited_broadcast)
}
