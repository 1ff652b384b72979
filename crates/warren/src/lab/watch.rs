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
    use super::{Judge, Seen};
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
}
