//! What a frame on the wire is: the judge of "nothing leaks".

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Kinds of frames between the hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// ESP, raw or in UDP 4500.
    Esp,
    /// IKE on port 500 or 4500, and NAT keepalives.
    Ike,
    /// Address resolution, neighbour discovery, spanning tree: what a link needs to work.
    Link,
    /// Anything else between two hosts of the mesh: a leak.
    Clear,
    /// Not between two hosts of the mesh.
    Other,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ESP: u8 = 50;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;

/// Fragments of datagrams whose first one is judged, at most; older ones are forgotten.
const MAX_DATAGRAMS: usize = 4096;

/// Judges packets. Later fragments show no ports: they are what their datagram's first one was.
pub struct Judge<'a> {
    is_host: &'a dyn Fn(IpAddr) -> bool,
    datagrams: BTreeMap<Datagram, Seen>,
}

/// What the fragments of one datagram share (RFC 791 2.3, RFC 8200 4.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
}

impl<'a> Judge<'a> {
    /// `is_host` names the addresses of the mesh.
    pub fn new(is_host: &'a dyn Fn(IpAddr) -> bool) -> Self {
        Self { is_host, datagrams: BTreeMap::new() }
    }

    /// Classifies a packet by its EtherType.
    pub fn classify(&mut self, ethertype: u16, packet: &[u8]) -> Seen {
        match ethertype {
            IPV4 => self.ipv4(packet),
            IPV6 => self.ipv6(packet),
            _ => Seen::Link,
        }
    }

    fn ipv4(&mut self, packet: &[u8]) -> Seen {
        let Some(header) = packet.first_chunk::<20>() else { return Seen::Other };
        let address =
            |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (src, dst) = (address(12), address(16));
        if !(self.is_host)(src) || !(self.is_host)(dst) {
            return Seen::Other;
        }
        let body = packet.get(usize::from(header[0] & 15) * 4..).unwrap_or_default();
        let flags = u16::from_be_bytes([header[6], header[7]]);
        let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
        let datagram = Datagram { src, dst, protocol: header[9], id };
        self.piece(datagram, flags & 0x1fff != 0, flags & 0x2000 != 0, body)
    }

    fn ipv6(&mut self, packet: &[u8]) -> Seen {
        let Some(header) = packet.first_chunk::<40>() else { return Seen::Other };
        let address = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&header[at..at + 16]);
            IpAddr::from(bytes)
        };
        let (src, dst) = (address(8), address(24));
        if !(self.is_host)(src) || !(self.is_host)(dst) {
            return Seen::Other;
        }
        let body = &packet[40..];
        match (header[6], body.first_chunk::<8>()) {
            (FRAGMENT, None) => Seen::Clear,
            (FRAGMENT, Some(f)) => {
                let offset = u16::from_be_bytes([f[2], f[3]]);
                let id = u32::from_be_bytes([f[4], f[5], f[6], f[7]]);
                let datagram = Datagram { src, dst, protocol: f[0], id };
                self.piece(datagram, offset >> 3 != 0, offset & 1 != 0, &body[8..])
            }
            // Router and neighbour solicitation and advertisement, redirect (RFC 4861).
            (ICMPV6, _) if body.first().is_some_and(|kind| (133..=137).contains(kind)) => {
                Seen::Link
            }
            (protocol, _) => upper(protocol, body),
        }
    }

    fn piece(&mut self, datagram: Datagram, later: bool, more: bool, body: &[u8]) -> Seen {
        if later {
            // Without a judged first fragment it could be anything.
            return self.datagrams.get(&datagram).copied().unwrap_or(Seen::Clear);
        }
        let seen = upper(datagram.protocol, body);
        if more {
            if self.datagrams.len() >= MAX_DATAGRAMS {
                self.datagrams.clear();
            }
            self.datagrams.insert(datagram, seen);
        }
        seen
    }
}

/// Whose a packet is, as far as its headers say. Later fragments have no ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flow {
    /// From.
    pub src: IpAddr,
    /// To.
    pub dst: IpAddr,
    /// Its number.
    pub protocol: u8,
    /// Source and destination of TCP and UDP; type and code of ICMP.
    pub ports: (u16, u16),
}

/// Source and destination of a packet, and what is in it.
pub fn flow(ethertype: u16, packet: &[u8]) -> Option<Flow> {
    let (src, dst, protocol, body) = match ethertype {
        IPV4 => {
            let header = packet.first_chunk::<20>()?;
            let at = |at: usize| {
                IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
            let body = packet.get(usize::from(header[0] & 15) * 4..).unwrap_or_default();
            (at(12), at(16), header[9], if later { &[] } else { body })
        }
        IPV6 => {
            let header = packet.first_chunk::<40>()?;
            let at = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).ok().map(IpAddr::from);
            let body = &packet[40..];
            let (protocol, body) = match (header[6], body.first_chunk::<8>()) {
                (FRAGMENT, Some(f)) if u16::from_be_bytes([f[2], f[3]]) >> 3 == 0 => {
                    (f[0], &body[8..])
                }
                (FRAGMENT, Some(f)) => (f[0], &[][..]),
                (protocol, _) => (protocol, body),
            };
            (at(8)?, at(24)?, protocol, body)
        }
        _ => return None,
    };
    let ports = match (protocol, body.first_chunk::<4>()) {
        (6 | UDP, Some(p)) => (u16::from_be_bytes([p[0], p[1]]), u16::from_be_bytes([p[2], p[3]])),
        (1 | ICMPV6, Some(p)) => (p[0].into(), p[1].into()),
        _ => (0, 0),
    };
    Some(Flow { src, dst, protocol, ports })
}

/// The exchange type of an IKE message (RFC 7296 3.1), if a packet begins with one.
pub fn exchange(ethertype: u16, packet: &[u8]) -> Option<u8> {
    let flow = flow(ethertype, packet)?;
    let headers = match ethertype {
        IPV4 => usize::from(packet.first()? & 15) * 4,
        _ if packet.get(6) == Some(&FRAGMENT) => 48,
        _ => 40,
    };
    let datagram = packet.get(headers + 8..)?;
    let message = match flow.ports {
        (500, _) | (_, 500) if flow.protocol == UDP => datagram,
        // Behind the non-ESP marker (RFC 3948 2.2).
        (4500, _) | (_, 4500) if flow.protocol == UDP => datagram.strip_prefix(&[0; 4])?,
        _ => return None,
    };
    message.get(18).copied()
}

fn upper(protocol: u8, body: &[u8]) -> Seen {
    match protocol {
        ESP => Seen::Esp,
        UDP => udp(body),
        _ => Seen::Clear,
    }
}

fn udp(datagram: &[u8]) -> Seen {
    let Some(header) = datagram.first_chunk::<8>() else { return Seen::Clear };
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if port(0) == 500 || port(2) == 500 {
        return Seen::Ike;
    }
    if port(0) != 4500 && port(2) != 4500 {
        return Seen::Clear;
    }
    match wire::datagram::classify(&datagram[8..]) {
        wire::datagram::Datagram::Esp(..) => Seen::Esp,
        wire::datagram::Datagram::Ike(_) | wire::datagram::Datagram::Keepalive => Seen::Ike,
        wire::datagram::Datagram::Malformed => Seen::Clear,
    }
}

#[cfg(test)]
mod tests {
    use super::{Flow, Judge, Seen, exchange, flow};
    use std::net::IpAddr;

    fn ipv4(protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend(body);
        packet
    }

    fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = from.to_be_bytes().to_vec();
        out.extend(to.to_be_bytes());
        out.extend([0; 4]);
        out.extend(payload);
        out
    }

    #[test]
    fn leaks_are_told_from_what_may_pass() {
        let host = |a: IpAddr| a.to_string().starts_with("10.0.0.");
        let mut judge = Judge::new(&host);
        let mut of = |packet: &[u8]| judge.classify(0x0800, packet);
        assert_eq!(of(&ipv4(50, 0, &[0; 20])), Seen::Esp);
        assert_eq!(of(&ipv4(6, 0, &[0; 20])), Seen::Clear);
        assert_eq!(of(&ipv4(1, 0, &[8, 0])), Seen::Clear);
        assert_eq!(of(&ipv4(17, 0, &udp(500, 500, &[1; 30]))), Seen::Ike);
        assert_eq!(of(&ipv4(17, 0, &udp(4500, 4500, &[0, 0, 0, 0, 9]))), Seen::Ike);
        assert_eq!(of(&ipv4(17, 0, &udp(4500, 4500, &[1, 2, 3, 4, 0, 0, 0, 1, 9]))), Seen::Esp);
        assert_eq!(of(&ipv4(17, 0, &udp(4500, 4500, &[1, 2]))), Seen::Clear);
        assert_eq!(of(&ipv4(17, 0, &udp(5000, 53, &[0; 8]))), Seen::Clear);
        assert_eq!(of(&[0; 5]), Seen::Other);
        let mut stranger = ipv4(6, 0, &[0; 20]);
        stranger[12] = 11;
        assert_eq!(of(&stranger), Seen::Other);
        assert_eq!(Judge::new(&host).classify(0x0806, &[0; 28]), Seen::Link);
    }

    #[test]
    fn later_fragments_are_what_the_first_one_was() {
        let host = |_: IpAddr| true;
        let mut judge = Judge::new(&host);
        assert_eq!(judge.classify(0x0800, &ipv4(17, 0x0010, &[0; 8])), Seen::Clear);
        assert_eq!(judge.classify(0x0800, &ipv4(17, 0x2000, &udp(500, 500, &[1; 30]))), Seen::Ike);
        assert_eq!(judge.classify(0x0800, &ipv4(17, 0x0010, &[0; 8])), Seen::Ike);
        assert_eq!(judge.classify(0x0800, &ipv4(17, 0x2000, &udp(7, 7, &[1; 30]))), Seen::Clear);
        assert_eq!(judge.classify(0x0800, &ipv4(17, 0x0010, &[0; 8])), Seen::Clear);
    }

    #[test]
    fn flows_and_exchanges_are_read_from_headers() {
        let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let of = |protocol, ports| Some(Flow { src, dst, protocol, ports });
        assert_eq!(flow(0x0800, &ipv4(17, 0, &udp(7, 53, &[]))), of(17, (7, 53)));
        assert_eq!(flow(0x0800, &ipv4(1, 0, &[8, 0, 0, 0])), of(1, (8, 0)));
        assert_eq!(flow(0x0800, &ipv4(17, 3, &udp(7, 53, &[]))), of(17, (0, 0)));
        assert_eq!(flow(0x0800, &[0x45]), None);
        let mut message = [0; 28];
        message[18] = 34;
        assert_eq!(exchange(0x0800, &ipv4(17, 0, &udp(500, 500, &message))), Some(34));
        let behind = [&[0; 4][..], &message].concat();
        assert_eq!(exchange(0x0800, &ipv4(17, 0, &udp(4500, 4500, &behind))), Some(34));
        assert_eq!(exchange(0x0800, &ipv4(17, 0, &udp(4500, 4500, &message[16..]))), None);
        assert_eq!(exchange(0x0800, &ipv4(17, 0, &udp(7, 53, &message))), None);
        assert_eq!(exchange(0x0800, &ipv4(17, 0, &udp(500, 500, &[0; 5]))), None);
    }
}
