//! A NAT in front of one host: ports are translated, mappings expire.
//!
//! The address is the host's own, so that manifest and policies know it; what makes trouble behind a
//! NAT are the ports. Mappings live by outbound packets alone (RFC 4787 4.3 asks for no more).

use std::collections::BTreeMap;
use std::time::Duration;

use ipsec::Instant;

use crate::packet::{Body, Packet};

/// A NAT.
pub struct Nat {
    patience: Duration,
    /// By the port inside.
    mappings: BTreeMap<u16, Mapping>,
    next: u16,
}

struct Mapping {
    outside: u16,
    used: Instant,
}

impl Nat {
    /// One whose mappings live so long without a packet from inside.
    pub fn new(patience: Duration) -> Self {
        Self { patience, mappings: BTreeMap::new(), next: 20_000 }
    }

    /// It starts anew: all mappings are others from now on.
    pub fn restart(&mut self) {
        self.mappings.clear();
    }

    /// A packet from inside; false: it has no port, and is dropped.
    pub fn out(&mut self, now: Instant, packet: &mut Packet) -> bool {
        let Some(port) = source(packet) else { return false };
        *port = self.outside(now, *port);
        true
    }

    /// A packet from outside; false: there is no mapping for it.
    pub fn back(&self, now: Instant, packet: &mut Packet) -> bool {
        let Some(port) = destination(packet) else { return false };
        let Some(inside) = self.inside(now, *port) else { return false };
        *port = inside;
        true
    }

    /// What a port inside becomes in a packet that leaves now.
    pub fn outside(&mut self, now: Instant, port: u16) -> u16 {
        let live = self.mappings.get_mut(&port).filter(|m| now.since(m.used) < self.patience);
        if let Some(mapping) = live {
            mapping.used = now;
            return mapping.outside;
        }
        self.next = self.next.checked_add(1).unwrap_or(20_000);
        self.mappings.insert(port, Mapping { outside: self.next, used: now });
        self.next
    }

    /// Whose port inside a port outside is now; `None`: nobody's.
    pub fn inside(&self, now: Instant, port: u16) -> Option<u16> {
        let live = |m: &Mapping| now.since(m.used) < self.patience;
        let found = self.mappings.iter().find(|(_, m)| m.outside == port && live(m));
        found.map(|(inside, _)| *inside)
    }
}

fn source(packet: &mut Packet) -> Option<&mut u16> {
    match &mut packet.body {
        Body::Ike { src_port, .. } => Some(src_port),
        Body::Esp { source_port, outer, .. } if outer.udp => Some(source_port),
        Body::Esp { .. } | Body::Clear(_) => None,
    }
}

fn destination(packet: &mut Packet) -> Option<&mut u16> {
    match &mut packet.body {
        Body::Ike { dst_port, .. } => Some(dst_port),
        Body::Esp { dst_port, outer, .. } if outer.udp => Some(dst_port),
        Body::Esp { .. } | Body::Clear(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(src_port: u16, dst_port: u16) -> Packet {
        let body = Body::Ike { src_port, dst_port, bytes: vec![0; 28] };
        Packet { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into(), body }
    }

    #[test]
    fn a_mapping_lives_by_what_comes_from_inside() {
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let mut nat = Nat::new(Duration::from_secs(30));
        assert!(!nat.back(at(0), &mut packet(4500, 4500)));
        let mut out = packet(4500, 4500);
        assert!(nat.out(at(0), &mut out));
        let outside = *source(&mut out).unwrap();
        assert_ne!(outside, 4500);
        let mut back = packet(4500, outside);
        assert!(nat.back(at(29), &mut back));
        assert_eq!(*destination(&mut back).unwrap(), 4500);
        assert!(!nat.back(at(30), &mut packet(4500, outside)));
        let mut later = packet(4500, 4500);
        assert!(nat.out(at(31), &mut later));
        assert_ne!(*source(&mut later).unwrap(), outside);
    }
}
