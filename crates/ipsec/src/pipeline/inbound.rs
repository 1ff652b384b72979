//! From the wire to this host's stack (RFC 4301 5.2).

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use wire::esp::{HEADER_LEN, parse_header};

use crate::dataplane::{DataplaneEvent, PacketInfo};
use crate::esp::{self, Family, OpenError, Opened};
use crate::packet::{self, HeaderFields, Headers, IPV4_HEADER, IPV6_HEADER, proto};
use crate::sa::{Mode, SaKey};
use crate::sad::{Charge, Entry};
use crate::spd::Action;
use crate::{Instant, checksum, ecn, ipcomp};

use super::counters::Counter;
use super::{Emit, OuterInfo, Pipeline, locked, reading};

/// The counter to be counted when a packet is dropped.
type Dropped<'a> = &'a Counter;

/// The packet that was in an ESP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Where it lies in the buffer: a whole IP packet.
    pub range: Range<usize>,
    /// Its headers.
    pub headers: Headers,
    /// Its TCP or UDP checksum was looked at, and is right.
    pub checked: bool,
}

/// What was admitted last: most packets are of the flow of the one before, and what was decided on that need not be
/// decided again. For packets that are there at one time: policies and SAs change.
#[derive(Default)]
pub struct Admitted(Option<(SaKey, PacketInfo)>);

/// What was in an ESP packet.
enum Found {
    /// Nothing (RFC 4303 2.6).
    Dummy,
    /// A packet, in the buffer that it came in.
    Here(Inside),
    /// A packet that was compressed.
    Aside(Vec<u8>),
}

/// Bytes that must be free before an ESP packet that is opened where it is, in transport mode between addresses of
/// this family: the IP header goes there.
pub const fn headroom(family: Family) -> usize {
    match family {
        Family::V4 => IPV4_HEADER - HEADER_LEN,
        Family::V6 => IPV6_HEADER - HEADER_LEN,
    }
}

impl Pipeline {
    /// An ESP packet from the wire: `esp` begins with the SPI. The buffer is taken over.
    pub fn inbound(&self, now: Instant, outer: OuterInfo, esp: &mut Vec<u8>, emit: &mut Vec<Emit>) {
        let room = headroom(Family::of(outer.dst));
        let mut buffer = std::mem::take(esp);
        buffer.splice(..0, std::iter::repeat_n(0, room));
        let before = &mut Admitted::default();
        if let Some(Inside { range, .. }) = self.open(now, outer, &mut buffer, room, before, emit) {
            buffer.truncate(range.end);
            buffer.drain(..range.start);
            emit.push(Emit::Deliver(buffer));
        }
    }

    /// An ESP packet from the wire, opened where it is: it begins at `at` and ends with the buffer. What stands within
    /// [`headroom`] before it may be overwritten; where there is less, a packet in transport mode is not taken. One that
    /// was compressed does not fit there: it is in `emit`.
    pub fn open(
        &self,
        now: Instant,
        outer: OuterInfo,
        buffer: &mut [u8],
        at: usize,
        before: &mut Admitted,
        emit: &mut Vec<Emit>,
    ) -> Option<Inside> {
        match self.accept(now, outer, buffer, at, before) {
            Ok(Found::Here(inside)) => {
                self.counters.in_delivered.count();
                return Some(inside);
            }
            Ok(Found::Aside(packet)) => {
                self.counters.in_delivered.count();
                emit.push(Emit::Deliver(packet));
            }
            Ok(Found::Dummy) => self.counters.in_dummy.count(),
            Err(counter) => counter.count(),
        }
        None
    }

    fn accept(
        &self,
        now: Instant,
        outer: OuterInfo,
        buffer: &mut [u8],
        at: usize,
        before: &mut Admitted,
    ) -> Result<Found, Dropped<'_>> {
        let counters = &self.counters;
        let esp = buffer.get_mut(at..).ok_or(&counters.in_malformed)?;
        let (spi, low) = parse_header(esp).ok_or(&counters.in_malformed)?;
        let found = reading(&self.sad).inbound(outer.dst, spi).cloned();
        let Some(entry) = found else {
            let key = SaKey { dst: outer.dst, spi };
            locked(&self.events).unknown_spi(now, outer.src.ip(), key);
            return Err(&counters.in_no_sa);
        };
        if entry.is_expired(now) {
            return Err(&counters.in_expired);
        }
        let opened = self.verify(now, &entry, outer, low, esp)?;
        if opened.next_header == proto::NO_NEXT_HEADER {
            return Ok(Found::Dummy);
        }
        let payload = at + opened.start..at + opened.start + opened.len;
        let Some(cpi) = entry.sa.ipcomp.filter(|_| opened.next_header == proto::IPCOMP) else {
            let next_header = opened.next_header;
            let inside = self.decap(&entry, outer, next_header, buffer, payload, before);
            return inside.map(Found::Here);
        };
        let room = headroom(Family::V6) + HEADER_LEN;
        let (mut expanded, next_header) = ipcomp::expand(cpi, &buffer[payload], room)
            .map_err(|_| &counters.in_ipcomp_malformed)?;
        let payload = room..expanded.len();
        let Inside { range, .. } =
            self.decap(&entry, outer, next_header, &mut expanded, payload, before)?;
        expanded.truncate(range.end);
        expanded.drain(..range.start);
        Ok(Found::Aside(expanded))
    }

    /// The packet around a payload, as its SA and policy want it.
    fn decap(
        &self,
        entry: &Entry,
        outer: OuterInfo,
        next_header: u8,
        buffer: &mut [u8],
        payload: Range<usize>,
        before: &mut Admitted,
    ) -> Result<Inside, Dropped<'_>> {
        let inside = match entry.sa.mode {
            Mode::Transport => self.decap_transport(entry, outer, next_header, buffer, payload)?,
            Mode::Tunnel => self.decap_tunnel(outer, next_header, buffer, payload)?,
        };
        let info = inside.headers.info(&buffer[inside.range.clone()]);
        let this = Some((entry.sa.key(), info));
        if before.0 != this {
            self.check_selectors(entry, &info)?;
            before.0 = this;
        }
        Ok(inside)
    }

    /// Replay check, ICV, replay update, limits: in this order (RFC 4303 3.4.3).
    fn verify(
        &self,
        now: Instant,
        entry: &Arc<Entry>,
        outer: OuterInfo,
        low: u32,
        esp: &mut [u8],
    ) -> Result<Opened, Dropped<'_>> {
        let counters = &self.counters;
        let seq = entry.check_replay(low).ok_or(&counters.in_replay)?;
        let esn_hi = entry.sa.esn.then_some((seq >> 32) as u32);
        let opened = esp::open(entry.cipher(&*self.provider), esn_hi, esp);
        if matches!(opened, Err(OpenError::TooShort)) {
            return Err(&counters.in_malformed);
        }
        if matches!(opened, Err(OpenError::BadIcv)) {
            entry.count_bad_icv();
            return Err(&counters.in_bad_icv);
        }
        let newest = entry.update_replay(seq).ok_or(&counters.in_replay)?;
        let opened = opened.map_err(|_| &counters.in_malformed)?;
        self.note_use(now, entry, opened.len)?;
        if newest {
            self.note_move(now, entry, outer);
        }
        Ok(opened)
    }

    fn note_use(&self, now: Instant, entry: &Arc<Entry>, len: usize) -> Result<(), Dropped<'_>> {
        let charge = entry.charge(now, len);
        if charge == Charge::Over {
            self.retire(entry);
            return Err(&self.counters.in_expired);
        }
        if entry.first_use() {
            locked(&self.events).vital(DataplaneEvent::FirstUse(entry.sa.key()));
        }
        if charge == Charge::Soft {
            locked(&self.events).vital(DataplaneEvent::SoftLimit(entry.sa.key()));
        }
        Ok(())
    }

    /// A peer behind a NAT may appear at a new place (RFC 7296 2.23); only its newest packet says where.
    fn note_move(&self, now: Instant, entry: &Entry, outer: OuterInfo) {
        let Some(encap) = entry.sa.encap.filter(|_| outer.udp) else { return };
        if outer.src != SocketAddr::new(entry.sa.src, encap.remote_port) {
            locked(&self.events).moved(now, entry.sa.key(), outer.src);
        }
    }

    /// The packet as its sender had it, between the addresses that the SA is for: those are
    /// authenticated, the outer header is not.
    fn decap_transport(
        &self,
        entry: &Entry,
        outer: OuterInfo,
        next_header: u8,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Result<Inside, Dropped<'_>> {
        let malformed = &self.counters.in_malformed;
        let fields = HeaderFields {
            src: entry.sa.src,
            dst: entry.sa.dst,
            protocol: next_header,
            tos: outer.tos,
            ttl: outer.ttl,
            // It is whole and has arrived: an atomic datagram, whose identification means nothing (RFC 6864 4.1).
            dont_fragment: true,
        };
        let header = fields.build(payload.len()).ok_or(malformed)?;
        let start = payload.start.checked_sub(header.len()).ok_or(malformed)?;
        buffer[start..payload.start].copy_from_slice(&header);
        let range = start..payload.end;
        let packet = &mut buffer[range.clone()];
        let headers = self.parse_inner(packet)?;
        // Behind a NAT it was computed over other addresses. Most peers in UDP are behind none: theirs is right, and
        // looking is all that it costs.
        let checked = entry.sa.encap.is_some();
        if checked && !checksum::is_right(packet, &headers) {
            checksum::refresh(packet, &headers);
        }
        Ok(Inside { range, headers, checked })
    }

    fn decap_tunnel(
        &self,
        outer: OuterInfo,
        next_header: u8,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Result<Inside, Dropped<'_>> {
        let packet = &mut buffer[payload.clone()];
        let mut headers = self.parse_inner(packet)?;
        let expected = if headers.src.is_ipv4() { proto::IPV4 } else { proto::IPV6 };
        if next_header != expected {
            return Err(&self.counters.in_malformed);
        }
        let tos = ecn::decapsulate(headers.tos, outer.tos).ok_or(&self.counters.in_ecn_dropped)?;
        if tos != headers.tos {
            packet::set_tos(packet, &mut headers, tos);
        }
        // What is behind the inner packet is traffic flow confidentiality padding (RFC 4303 2.7).
        let range = payload.start..payload.start + headers.total_len;
        Ok(Inside { range, headers, checked: false })
    }

    fn parse_inner(&self, packet: &[u8]) -> Result<Headers, Dropped<'_>> {
        packet::parse(packet).map_err(|_| &self.counters.in_malformed)
    }

    /// RFC 4301 5.2 step 4: what came out is what the SA was negotiated for, and what policy wants from it.
    ///
    /// A packet that policy would take in the clear may come protected: two hosts do not read a new
    /// manifest at one moment.
    fn check_selectors(&self, entry: &Entry, info: &PacketInfo) -> Result<(), Dropped<'_>> {
        if !entry.sa.admits_in(info) {
            return Err(&self.counters.in_selector_mismatch);
        }
        match self.policy_in(info) {
            Some(Action::Protect { reqid, .. }) if reqid == entry.sa.reqid => Ok(()),
            Some(Action::Bypass) => Ok(()),
            _ => Err(&self.counters.in_policy_mismatch),
        }
    }
}
