//! A NAT in front of a host: ports are translated, mappings expire and change. The address is the host's own, so
//! that manifests and policies know it; what makes trouble behind a NAT are the ports.

use std::time::{Duration, Instant};

use ipsec::packet::proto;

use super::{Delivery, Passage, Way, frame};

/// The NAT.
pub struct Nat {
    began: Instant,
    table: sim::nat::Nat,
    /// ESP packets from inside that are not in UDP: without ports they get no further.
    pub bare_esp: u64,
    /// Datagrams from outside for which there was no mapping.
    pub unasked: u64,
    /// Datagrams that passed, both ways.
    pub passed: u64,
}

impl Nat {
    /// One whose mappings live so long without a packet from inside.
    pub fn new(patience: Duration) -> Self {
        let table = sim::nat::Nat::new(patience);
        Self { began: Instant::now(), table, bare_esp: 0, unasked: 0, passed: 0 }
    }

    /// It starts anew: all mappings are others from now on.
    pub fn restart(&mut self) {
        self.table.restart();
    }

    fn translate(&mut self, now: ipsec::Instant, way: Way, frame: &mut [u8]) -> bool {
        let Some(udp) = frame::udp(frame) else {
            let protocol = frame::protocol(frame);
            self.bare_esp += u64::from(way == Way::Out && protocol == Some(proto::ESP));
            // Neighbours are found by it.
            return protocol == Some(proto::ICMPV6);
        };
        let at = if way == Way::Out { udp } else { udp + 2 };
        let Some(port) = frame::u16_at(frame, at) else { return false };
        let other = match way {
            Way::Out => Some(self.table.outside(now, port)),
            Way::In => self.table.inside(now, port),
        };
        let Some(other) = other else {
            self.unasked += 1;
            return false;
        };
        frame::set_port(frame, at, other);
        self.passed += 1;
        true
    }
}

impl Passage for Nat {
    fn pass(&mut self, now: Instant, way: Way, mut frame: Vec<u8>, out: &mut Vec<Delivery>) {
        let time = ipsec::Instant::ZERO + now.saturating_duration_since(self.began);
        if !frame::is_ip(&frame) || self.translate(time, way, &mut frame) {
            out.push(Delivery { at: now, way, frame });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::datagram;
    use super::*;

    fn ports(frame: &[u8]) -> (u16, u16) {
        (frame::u16_at(frame, 34).unwrap(), frame::u16_at(frame, 36).unwrap())
    }

    #[test]
    fn answers_come_back_to_the_port_inside_until_the_nat_starts_anew() {
        let mut nat = Nat::new(Duration::from_secs(30));
        let pass = |nat: &mut Nat, way, frame: Vec<u8>| {
            let mut out = Vec::new();
            nat.pass(Instant::now(), way, frame, &mut out);
            out.pop().map(|delivery| ports(&delivery.frame))
        };
        let out = datagram("10.0.0.1", "10.0.0.2", (4500, 4500), 9, true);
        let (outside, to) = pass(&mut nat, Way::Out, out.clone()).unwrap();
        assert!(outside != 4500 && to == 4500);
        let back = datagram("10.0.0.2", "10.0.0.1", (4500, outside), 9, true);
        assert_eq!(pass(&mut nat, Way::In, back.clone()), Some((4500, 4500)));
        let stranger = datagram("10.0.0.2", "10.0.0.1", (4500, 4500), 9, true);
        assert_eq!(pass(&mut nat, Way::In, stranger), None);
        nat.restart();
        assert_eq!(pass(&mut nat, Way::In, back), None);
        assert_ne!(pass(&mut nat, Way::Out, out).unwrap().0, outside);
        let mut esp = datagram("10.0.0.1", "10.0.0.2", (1, 2), 9, true);
        esp[23] = 50;
        assert_eq!(pass(&mut nat, Way::Out, esp), None);
        assert_eq!((nat.passed, nat.unasked, nat.bare_esp), (3, 2, 1));
    }
}
