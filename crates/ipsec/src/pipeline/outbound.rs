//! From this host's stack to the wire (RFC 4301 5.1).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crypto::cipher::Cipher;

use crate::dataplane::{DataplaneEvent, PacketInfo};
use crate::esp::{self, SealAs, Shape};
use crate::handover::Held;
use crate::packet::{self, Headers, UDP_HEADER, proto};
use crate::reassembly::Reassembly;
use crate::sa::{Mode, Reqid, Sa};
use crate::sad::{Charge, Entry};
use crate::spd::{Action, Flow};
use crate::{Instant, ecn, icmp};

use super::queue::Waiting;
use super::{Emit, OuterPacket, Pipeline, carrier, locked, reading, writing};

/// TTL of a tunnel's outer header.
pub(super) const TUNNEL_TTL: u8 = 64;

/// Which SA a packet needs.
#[derive(Clone, Copy)]
struct Need {
    reqid: Reqid,
    mode: Mode,
    optional: bool,
}

/// A whole datagram on its way out.
struct Outgoing {
    packet: Vec<u8>,
    headers: Headers,
    info: PacketInfo,
    /// What it came in, if it was put together here: that goes out if it is not protected.
    fragments: Vec<Vec<u8>>,
    /// Whether it came in fragments: then it may go out in fragments as well.
    fragmented: bool,
    /// Since when it waits, if it does.
    since: Option<Instant>,
}

impl Pipeline {
    /// A whole IP packet from this host's stack. The buffer is taken over; spare capacity of some
    /// 64 bytes saves an allocation.
    pub fn outbound(&self, now: Instant, packet: &mut Vec<u8>, emit: &mut Vec<Emit>) {
        let mut packet = std::mem::take(packet);
        let Ok(headers) = packet::parse(&packet) else {
            return self.counters.out_malformed.count();
        };
        packet.truncate(headers.total_len);
        if headers.fragment.is_some() {
            return self.outbound_fragment(now, packet, headers, emit);
        }
        self.decide(now, Outgoing::new(packet, headers), emit);
    }

    /// Packets that waited elsewhere.
    pub(super) fn take_over(&self, now: Instant, held: Vec<Held>, emit: &mut Vec<Emit>) {
        for Held { fragmented, mut packet } in held {
            match packet::parse(&packet) {
                Ok(headers) if headers.fragment.is_none() => {
                    packet.truncate(headers.total_len);
                    self.decide(
                        now,
                        Outgoing { fragmented, ..Outgoing::new(packet, headers) },
                        emit,
                    );
                }
                _ => self.outbound(now, &mut packet, emit),
            }
        }
    }

    fn outbound_fragment(
        &self,
        now: Instant,
        packet: Vec<u8>,
        headers: Headers,
        emit: &mut Vec<Emit>,
    ) {
        let info = headers.info(&packet);
        // Where ports do not matter and nothing is to be protected, a fragment may pass as it is.
        let action =
            reading(&self.spd).lookup_addresses(Flow::Out, &info).map(|policy| policy.action);
        match action {
            Some(Action::Bypass) => return self.bypass([packet], emit),
            Some(Action::Discard) => return self.counters.out_discarded.count(),
            Some(Action::Protect { .. }) | None => {}
        }
        let outcome = locked(&self.fragments).add(now, packet, headers);
        match outcome {
            Reassembly::Waiting => {}
            Reassembly::Refused => self.counters.out_bad_fragment.count(),
            Reassembly::Whole { packet, fragments } => match packet::parse(&packet) {
                Ok(headers) if headers.fragment.is_none() => {
                    let whole = Outgoing::new(packet, headers);
                    self.decide(now, Outgoing { fragments, fragmented: true, ..whole }, emit);
                }
                _ => self.counters.out_malformed.count(),
            },
        }
    }

    fn decide(&self, now: Instant, out: Outgoing, emit: &mut Vec<Emit>) {
        let action = reading(&self.spd).lookup(Flow::Out, &out.info).map(|policy| policy.action);
        match action {
            None | Some(Action::Discard) => self.counters.out_discarded.count(),
            Some(Action::Bypass) => self.bypass(out.into_packets(), emit),
            Some(Action::Protect { mode, reqid, optional }) => {
                self.protect(now, Need { reqid, mode, optional }, out, emit);
            }
        }
    }

    fn bypass(&self, packets: impl IntoIterator<Item = Vec<u8>>, emit: &mut Vec<Emit>) {
        let before = emit.len();
        emit.extend(packets.into_iter().map(Emit::Clear));
        self.counters.out_bypassed.add(emit.len() - before);
    }

    fn protect(&self, now: Instant, need: Need, out: Outgoing, emit: &mut Vec<Emit>) {
        if !packet::is_unicast(out.info.dst) {
            return self.counters.out_not_unicast.count();
        }
        let sad = reading(&self.sad);
        let entry = sad.outbound(now, need.reqid, need.mode, &out.info).cloned();
        drop(sad);
        let Some(entry) = entry else { return self.wait(now, need, out, emit) };
        if out.since.is_none() && !self.queue_is_empty() {
            // What waited for this peer goes first.
            self.drain(now, out.info.dst, emit);
        }
        self.encapsulate(now, &entry, out, emit);
    }

    /// There is no SA: ask for one, and keep the packet meanwhile.
    fn wait(&self, now: Instant, need: Need, out: Outgoing, emit: &mut Vec<Emit>) {
        if out.since.is_none() {
            locked(&self.events).acquire(now, need.reqid, out.info);
        }
        if need.optional {
            let before = emit.len();
            emit.extend(out.into_packets().map(Emit::Clear));
            return self.counters.out_optional_clear.add(emit.len() - before);
        }
        let (again, dst) = (out.since.is_some(), out.info.dst);
        let Outgoing { packet, fragmented, since, .. } = out;
        let waiting = Waiting { since: since.unwrap_or(now), packet, fragmented };
        let mut queue = locked(&self.queue);
        if !queue.push(dst, waiting) {
            return self.counters.out_queue_full.count();
        }
        self.queued.fetch_add(1, Relaxed);
        if !again {
            self.counters.out_no_sa_queued.count();
        }
    }

    pub(super) fn drop_queued(&self, peer: IpAddr) {
        let dropped = locked(&self.queue).take(peer).len();
        self.queued.fetch_sub(dropped, Relaxed);
        self.counters.out_queue_dropped.add(dropped);
        locked(&self.events).forget_acquire(peer);
    }

    pub(super) fn expire_queue(&self, now: Instant) {
        if self.queue_is_empty() {
            return;
        }
        let expired = locked(&self.queue).expire(now);
        self.queued.fetch_sub(expired, Relaxed);
        self.counters.out_queue_expired.add(expired);
    }

    pub(super) fn drain_all(&self, now: Instant, emit: &mut Vec<Emit>) {
        if self.queue_is_empty() {
            return;
        }
        let peers = locked(&self.queue).peers();
        for peer in peers {
            self.drain(now, peer, emit);
        }
    }

    /// Sends what waits for a peer, as far as there is an SA for it now; the policies decide again.
    pub(super) fn drain(&self, now: Instant, peer: IpAddr, emit: &mut Vec<Emit>) {
        let waiting = locked(&self.queue).take(peer);
        self.queued.fetch_sub(waiting.len(), Relaxed);
        for Waiting { since, packet, fragmented } in waiting {
            if let Ok(headers) = packet::parse(&packet) {
                let out =
                    Outgoing { since: Some(since), fragmented, ..Outgoing::new(packet, headers) };
                self.decide(now, out, emit);
            }
        }
    }

    fn encapsulate(&self, now: Instant, entry: &Arc<Entry>, out: Outgoing, emit: &mut Vec<Emit>) {
        let sa = &entry.sa;
        let Some(may_fragment) = self.fits(now, entry, &out, emit) else { return };
        let Outgoing { mut packet, headers, .. } = out;
        let (clear, mut next_header) = payload_of(sa.mode, &headers);
        if let Some(cpi) = sa.ipcomp
            && self.compress(cpi, next_header, clear, &mut packet)
        {
            next_header = proto::IPCOMP;
        }
        // As the receiver counts: what ESP protects.
        let protected = packet.len().saturating_sub(clear);
        let Some(seq) = self.number(now, entry, protected) else { return };
        let cipher = entry.cipher(&*self.provider);
        let inside = (clear, next_header);
        let packet = seal(entry, cipher, seq, packet, &headers, inside, may_fragment);
        self.counters.out_protected.count();
        emit.push(match sa.encap {
            None => Emit::Esp(packet),
            Some(encap) => Emit::EspInUdp {
                packet,
                local_port: encap.local_port,
                remote: SocketAddr::new(sa.dst, encap.remote_port),
            },
        });
    }

    /// Compresses what stands behind the first `at` bytes, if it gets shorter. Whether it fits its path was decided
    /// before: what a path takes does not depend on what is in a packet.
    fn compress(&self, cpi: u16, next_header: u8, at: usize, packet: &mut Vec<u8>) -> bool {
        let payload = packet.get(at..).unwrap_or(&[]);
        let shorter =
            locked(&self.compressor).get_or_insert_default().compress(cpi, next_header, payload);
        let Some(shorter) = shorter else { return false };
        packet.truncate(at);
        packet.extend_from_slice(&shorter);
        self.counters.out_compressed.count();
        true
    }

    /// Charges a packet with so many bytes to its SA, and gives it a sequence number; `None` where there are no more.
    pub(super) fn number(&self, now: Instant, entry: &Arc<Entry>, bytes: usize) -> Option<u64> {
        let charge = entry.charge(now, bytes);
        let seq = match charge {
            Charge::Over => None,
            Charge::Within | Charge::Soft => entry.next_seq(),
        };
        if seq.is_none() {
            self.counters.out_seq_exhausted.count();
            self.retire(entry);
        } else if charge == Charge::Soft {
            locked(&self.events).vital(DataplaneEvent::SoftLimit(entry.sa.key()));
        }
        seq
    }

    /// Whether the packet fits its path; else its sender is told. `Some(true)`: only in fragments.
    fn fits(
        &self,
        now: Instant,
        entry: &Entry,
        out: &Outgoing,
        emit: &mut Vec<Emit>,
    ) -> Option<bool> {
        let Outgoing { packet, headers, .. } = out;
        let Some(mtu) = reading(&self.paths).get(now, entry.sa.dst) else { return Some(false) };
        let frame = Frame::of(&entry.sa, Shape::of(entry.cipher(&*self.provider)), headers);
        if frame.outer_len(packet.len()) <= mtu {
            return Some(false);
        }
        // An IPv6 sender need not go below 1280 (RFC 8200 5): then the outer packet is fragmented.
        let v6 = headers.src.is_ipv6();
        let smallest = v6 && packet.len() <= icmp::IPV6_MIN_MTU;
        if !headers.dont_fragment || out.fragmented || smallest {
            return Some(true);
        }
        let inner_mtu = frame.inner_mtu(mtu);
        let inner_mtu = if v6 { inner_mtu.max(icmp::IPV6_MIN_MTU) } else { inner_mtu };
        self.counters.out_too_big.count();
        if writing(&self.paths).may_send_error(now)
            && let Some(error) = icmp::too_big(packet, headers, inner_mtu)
        {
            emit.push(Emit::Deliver(error));
        }
        None
    }
}

impl Outgoing {
    fn new(packet: Vec<u8>, headers: Headers) -> Self {
        let info = headers.info(&packet);
        Self { packet, headers, info, fragments: Vec::new(), fragmented: false, since: None }
    }

    fn into_packets(self) -> impl Iterator<Item = Vec<u8>> {
        let whole = self.fragments.is_empty().then_some(self.packet);
        whole.into_iter().chain(self.fragments)
    }
}

/// Lengths of the packet around one ESP packet.
pub(super) struct Frame {
    shape: Shape,
    /// Bytes of the outer packet before ESP.
    before: usize,
    /// Bytes of the inner packet that are not payload of ESP.
    kept: usize,
}

impl Frame {
    pub(super) fn of(sa: &Sa, shape: Shape, headers: &Headers) -> Self {
        let udp = if sa.encap.is_some() { UDP_HEADER } else { 0 };
        let (outer, kept) = match sa.mode {
            Mode::Transport => (headers.esp_at, headers.esp_at),
            Mode::Tunnel => (esp::Family::of(sa.dst).header_len(), 0),
        };
        Self { shape, before: outer + udp, kept }
    }

    pub(super) fn outer_len(&self, packet: usize) -> usize {
        self.before + self.shape.sealed_len(packet - self.kept)
    }

    fn inner_mtu(&self, mtu: usize) -> usize {
        self.kept + self.shape.max_payload(mtu.saturating_sub(self.before))
    }
}

/// Where what ESP protects begins, and what it is.
fn payload_of(mode: Mode, headers: &Headers) -> (usize, u8) {
    match mode {
        Mode::Tunnel if headers.src.is_ipv4() => (0, proto::IPV4),
        Mode::Tunnel => (0, proto::IPV6),
        Mode::Transport => (headers.esp_at, headers.esp_next),
    }
}

fn seal(
    entry: &Entry,
    cipher: &dyn Cipher,
    seq: u64,
    mut packet: Vec<u8>,
    headers: &Headers,
    (payload_at, next_header): (usize, u8),
    may_fragment: bool,
) -> OuterPacket {
    let sa = &entry.sa;
    let udp = sa.encap.is_some();
    let mut outer = OuterPacket {
        src: sa.src,
        dst: sa.dst,
        tos: ecn::encapsulate(headers.tos),
        ttl: TUNNEL_TTL,
        // Copied from an IPv4 packet (RFC 4301 8.1); an IPv6 packet is not fragmented by routers.
        dont_fragment: headers.dont_fragment && !may_fragment,
        protocol: carrier(udp),
        options: Vec::new(),
        esp: Vec::new(),
    };
    if sa.mode == Mode::Transport {
        (outer.src, outer.dst) = (headers.src, headers.dst);
        outer.ttl = headers.ttl;
        outer.options = packet[headers.fixed_len()..headers.esp_at].to_vec();
        // In IPv6 the last of the headers before ESP names it.
        if let Some(at) = headers.esp_next_at.checked_sub(headers.fixed_len()) {
            outer.protocol = packet[6];
            outer.options[at] = carrier(udp);
        }
    }
    let as_ = SealAs { spi: sa.spi, seq, esn: sa.esn, next_header };
    esp::seal(cipher, as_, payload_at, &mut packet);
    outer.esp = packet;
    outer
}
