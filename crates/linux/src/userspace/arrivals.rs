//! From the wire to the stack, and IKE to the control loop.

use std::io::IoSlice;
use std::mem::take;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

use ipsec::Instant;
use ipsec::coalesce::{Coalescer, Group};
use ipsec::esp::Family;
use ipsec::pipeline::{Admitted, Emit, Inside, OuterInfo, headroom};
use wire::datagram::{Datagram, classify};

use super::threads::wait;
use super::{IkeDatagram, Shared};
use crate::clock::now;
use crate::datagram::{HEADROOM, Received, RecvBatch};
use crate::raw::RawEsp;
use crate::tun::{Offload, vnet};
use crate::udp::UdpSocket;

/// Every datagram fits.
const LONGEST: usize = 65_536;
/// Room for packets that cannot be opened where they are.
const ASIDE: usize = 512 << 10;

/// Until the end is wanted.
pub(super) fn run(shared: &Shared) {
    let (raw, udp) = (&shared.wires.esp, shared.wires.ports.sockets());
    let sockets: Vec<BorrowedFd<'_>> =
        raw.iter().map(AsFd::as_fd).chain(udp.iter().map(AsFd::as_fd)).collect();
    let (mut batch, mut aside) = (RecvBatch::new(LONGEST), vec![0; ASIDE]);
    let mut ready = Vec::new();
    while wait(shared, &sockets, &mut ready, None) {
        let (of_raw, of_udp) = ready.split_at(raw.len().min(ready.len()));
        for (socket, _) in raw.iter().zip(of_raw).filter(|(_, ready)| **ready) {
            match socket.receive(&mut batch) {
                Ok(_) => Arrivals::new(shared, &mut aside).raw(socket, &mut batch),
                Err(_) => count_failure(shared),
            }
        }
        for (socket, _) in udp.iter().zip(of_udp).filter(|(_, ready)| **ready) {
            match socket.receive(&mut batch) {
                Ok(_) => Arrivals::new(shared, &mut aside).udp(socket, &mut batch),
                Err(_) => count_failure(shared),
            }
        }
        shared.announce();
    }
}

/// An error of a socket, such as an ICMP message that concerns an earlier packet: nothing is lost by it.
fn count_failure(shared: &Shared) {
    shared.wires.counts.receive_failed.fetch_add(1, Relaxed);
}

/// What one system call brought.
struct Arrivals<'a> {
    shared: &'a Shared,
    time: Instant,
    /// In the buffers that they came in.
    packets: Coalescer<'a>,
    aside: &'a mut [u8],
    admitted: Admitted,
    /// Packets that found no room there, and all after them.
    late: Vec<Emit>,
}

/// What is left of a buffer: an ESP packet begins behind the `gap`, which may be overwritten.
struct Rest<'a> {
    bytes: &'a mut [u8],
    gap: usize,
}

impl<'a> Arrivals<'a> {
    fn new(shared: &'a Shared, aside: &'a mut [u8]) -> Self {
        let offload = shared.wires.tun.offload();
        let joins = |kind| offload >= kind && shared.wires.joins.load(Relaxed);
        let packets = Coalescer::new(joins(Offload::Tcp), joins(Offload::TcpAndUdp));
        let admitted = Admitted::default();
        Self { shared, time: now(), packets, aside, admitted, late: Vec::new() }
    }

    fn raw(mut self, socket: &RawEsp, batch: &'a mut RecvBatch) {
        for (received, bytes, gap) in socket.each(batch) {
            let length = bytes.len() - gap;
            if let Some(outer) = outer(&received, false) {
                self.esp(outer, &mut Rest { bytes, gap }, length);
            }
        }
        self.deliver();
    }

    fn udp(mut self, socket: &UdpSocket, batch: &'a mut RecvBatch) {
        for (received, bytes) in batch.each() {
            if received.truncated {
                self.shared.wires.counts.udp_malformed.fetch_add(1, Relaxed);
                continue;
            }
            let mut left = bytes.len() - HEADROOM;
            let size = match received.segment {
                0 => left,
                size => usize::from(size),
            };
            let mut rest = Rest { bytes, gap: HEADROOM };
            // An empty datagram is one too.
            loop {
                let length = size.min(left);
                self.datagram(socket.port(), &received, &mut rest, length);
                left -= length;
                if left == 0 {
                    break;
                }
            }
        }
        self.deliver();
    }

    /// The first `length` bytes of what is left.
    fn datagram(&mut self, port: u16, received: &Received<'_>, rest: &mut Rest<'a>, length: usize) {
        let counts = &self.shared.wires.counts;
        let bytes = &rest.bytes[rest.gap..rest.gap + length];
        // ESP is told from IKE by the non-ESP marker, which port 500 does not have (RFC 3948 2).
        let what = if port == 500 { None } else { Some(classify(bytes)) };
        match what {
            None | Some(Datagram::Ike(_)) => self.ike(port, received, bytes),
            Some(Datagram::Esp(..)) => {
                if let Some(outer) = outer(received, true) {
                    return self.esp(outer, rest, length);
                }
            }
            Some(Datagram::Keepalive) => drop(counts.keepalives_in.fetch_add(1, Relaxed)),
            Some(Datagram::Malformed) => drop(counts.udp_malformed.fetch_add(1, Relaxed)),
        }
        rest.gap += length;
    }

    fn ike(&self, port: u16, received: &Received<'_>, bytes: &[u8]) {
        let Some(local) = received.local else { return };
        self.shared.wires.counts.ike_in.fetch_add(1, Relaxed);
        let local = SocketAddr::new(local, port);
        self.shared.upcalls.ike(IkeDatagram {
            local,
            remote: received.remote,
            bytes: bytes.to_vec(),
        });
    }

    /// Opens the first `length` bytes of what is left, and takes them off it.
    fn esp(&mut self, outer: OuterInfo, rest: &mut Rest<'a>, length: usize) {
        let (room, gap) = (headroom(Family::of(outer.dst)), rest.gap);
        if gap < room || !self.late.is_empty() {
            let (piece, behind) = take(&mut rest.bytes).split_at_mut(gap + length);
            *rest = Rest { bytes: behind, gap: 0 };
            return self.esp_aside(outer, &piece[gap..], room);
        }
        let bytes = &mut rest.bytes[..gap + length];
        let Self { shared, time, admitted, late, .. } = self;
        let inside = shared.pipeline.open(*time, outer, bytes, gap, admitted, late);
        let Some(Inside { range, headers, checked }) = inside else {
            rest.gap += length;
            return;
        };
        // What is behind the packet inside is the gap before the next.
        let (piece, behind) = take(&mut rest.bytes).split_at_mut(range.end);
        *rest = Rest { bytes: behind, gap: gap + length - range.end };
        let piece: &'a [u8] = piece;
        self.packets.push(&piece[range.start..], headers, checked);
    }

    /// For want of room before it.
    fn esp_aside(&mut self, outer: OuterInfo, esp: &[u8], room: usize) {
        let pipeline = &self.shared.pipeline;
        if !self.late.is_empty() || self.aside.len() < room + esp.len() {
            return pipeline.inbound(self.time, outer, &mut esp.to_vec(), &mut self.late);
        }
        let (mine, left) = take(&mut self.aside).split_at_mut(room + esp.len());
        self.aside = left;
        mine[room..].copy_from_slice(esp);
        let Self { time, admitted, late, .. } = self;
        let inside = pipeline.open(*time, outer, mine, room, admitted, late);
        if let Some(Inside { range, headers, checked }) = inside {
            let mine: &'a [u8] = mine;
            self.packets.push(&mine[range], headers, checked);
        }
    }

    fn deliver(mut self) {
        for group in self.packets.groups() {
            let refused = self.hand_over(group);
            self.shared.wires.counts.stack_refused.fetch_add(refused as u64, Relaxed);
        }
        self.shared.wires.carry_out(&self.shared.pipeline, self.time, &mut self.late);
    }

    /// How many packets the stack did not take.
    fn hand_over(&self, group: &Group<'a>) -> usize {
        let wires = &self.shared.wires;
        let Some(joined) = group.joined() else {
            return group.single().map_or(0, |packet| self.refused(packet));
        };
        let header = vnet::large(&joined.offload);
        let mut parts = Vec::with_capacity(2 + group.len());
        parts.extend([IoSlice::new(&header), IoSlice::new(joined.header())]);
        parts.extend(group.payloads().map(IoSlice::new));
        match wires.tun.write_parts(&parts) {
            Ok(true) => 0,
            Err(error) if error.is_not_understood() => {
                // It would make no sense of the next either.
                wires.joins.store(false, Relaxed);
                group.apart().iter().map(|packet| self.refused(packet)).sum()
            }
            Ok(false) | Err(_) => group.len(),
        }
    }

    /// How many of this one packet the stack did not take.
    fn refused(&self, packet: &[u8]) -> usize {
        usize::from(!matches!(self.shared.wires.tun.write(packet), Ok(true)))
    }
}

/// What is known of the IP header of a received packet.
fn outer(received: &Received<'_>, udp: bool) -> Option<OuterInfo> {
    Some(OuterInfo {
        src: received.remote,
        dst: received.local?,
        tos: received.tos.unwrap_or(0),
        ttl: received.ttl.unwrap_or(0),
        udp,
    })
}
