//! What a frame on the wire is: the judge of "nothing leaks".

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

/// Classifies a packet by its EtherType. `is_host` names the addresses of the mesh.
pub fn classify(ethertype: u16, packet: &[u8], is_host: &dyn Fn(IpAddr) -> bool) -> Seen {
    match ethertype {
        IPV4 => ipv4(packet, is_host),
        IPV6 => ipv6(packet, is_host),
        _ => Seen::Link,
    }
}

fn ipv4(packet: &[u8], is_host: &dyn Fn(IpAddr) -> bool) -> Seen {
    let Some(header) = packet.first_chunk::<20>() else { return Seen::Other };
    let address =
        |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if !is_host(address(12)) || !is_host(address(16)) {
        return Seen::Other;
    }
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    let body = packet.get(usize::from(header[0] & 15) * 4..).unwrap_or_default();
    upper(header[9], later_fragment, body)
}

fn ipv6(packet: &[u8], is_host: &dyn Fn(IpAddr) -> bool) -> Seen {
    let Some(header) = packet.first_chunk::<40>() else { return Seen::Other };
    let address = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&header[at..at + 16]);
        IpAddr::from(bytes)
    };
    if !is_host(address(8)) || !is_host(address(24)) {
        return Seen::Other;
    }
    let body = &packet[40..];
    match header[6] {
        FRAGMENT => match body.first_chunk::<8>() {
            Some(fragment) => upper(
                fragment[0],
                u16::from_be_bytes([fragment[2], fragment[3]]) >> 3 != 0,
                &body[8..],
            ),
            None => Seen::Clear,
        },
        // Router and neighbour solicitation and advertisement, redirect (RFC 4861).
        ICMPV6 if body.first().is_some_and(|kind| (133..=137).contains(kind)) => Seen::Link,
        protocol => upper(protocol, false, body),
    }
}

fn upper(protocol: u8, later_fragment: bool, body: &[u8]) -> Seen {
    match protocol {
        ESP => Seen::Esp,
        // A later fragment shows no ports. In the lab only IKE and ESP in UDP come in pieces: what the
        // hosts say to each other in the clear fits its packets, and its first fragment is judged.
        UDP if later_fragment => Seen::Esp,
        UDP => udp(body),
        _ => Seen::Clear,
    }
}

fn udp(datagram: &[u8]) -> Seen {
    let Some(header) = datagram.first_chunk::<8>() else { return Seen::Clear };
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let payload = &datagram[8..];
    if port(0) == 500 || port(2) == 500 {
        return Seen::Ike;
    }
    if port(0) != 4500 && port(2) != 4500 {
        return Seen::Clear;
    }
    match wire::datagram::classify(payload) {
        wire::datagram::Datagram::Esp(..) => Seen::Esp,
        wire::datagram::Datagram::Ike(_) | wire::datagram::Datagram::Keepalive => Seen::Ike,
        wire::datagram::Datagram::Malformed => Seen::Clear,
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, classify};
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
        let of = |packet: &[u8]| classify(0x0800, packet, &host);
        assert_eq!(of(&ipv4(50, 0, &[0; 20])), Seen::Esp);
        assert_eq!(of(&ipv4(6, 0, &[0; 20])), Seen::Clear);
        assert_eq!(of(&ipv4(1, 0, &[8, 0])), Seen::Clear);
        assert_eq!(of(&ipv4(17, 0, &udp(500, 500, &[1; 30]))), Seen::Ike);
        assert_eq!(of(&ipv4(17, 0, &udp(4500, 4500, &[0, 0, 0, 0, 9]))), Seen::Ike);
        assert_eq!(of(&ipv4(17, 0, &udp(4500, 4500, &[1, 2, 3, 4, 0, 0, 0, 1, 9]))), Seen::Esp);
        assert_eq!(of(&ipv4(17, 0, &udp(4500, 4500, &[1, 2]))), Seen::Clear);
        assert_eq!(of(&ipv4(17, 0, &udp(5000, 53, &[0; 8]))), Seen::Clear);
        assert_eq!(classify(0x0806, &[0; 28], &host), Seen::Link);
        assert_eq!(of(&[0; 5]), Seen::Other);
        let mut stranger = ipv4(6, 0, &[0; 20]);
        stranger[12] = 11;
        assert_eq!(of(&stranger), Seen::Other);
    }
}
