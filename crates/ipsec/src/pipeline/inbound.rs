//! From the wire to this host's stack (RFC 4301 5.2).

use std::net::SocketAddr;
use std::sync::Arc;

use wire::esp::parse_header;

use crate::dataplane::{DataplaneEvent, PacketInfo};
use crate::esp::{self, OpenError, Opened};
use crate::packet::{self, HeaderFields, Headers, proto};
use crate::sa::{Mode, SaKey};
use crate::sad::{Charge, Entry};
use crate::spd::Action;
use crate::{Instant, checksum, ecn};

use super::counters::Counter;
use super::{Emit, OuterInfo, Pipeline, locked, reading};

/// The counter to be counted when a packet is dropped.
type Dropped<'a> = &'a Counter;

impl Pipeline {
    /// An ESP packet from the wire: `esp` begins with the SPI. The buffer is taken over.
    pub fn inbound(&self, now: Instant, outer: OuterInfo, esp: &mut Vec<u8>, emit: &mut Vec<Emit>) {
        match self.accept(now, outer, std::mem::take(esp)) {
            Ok(Some(packet)) => {
                self.counters.in_delivered.count();
                emit.push(Emit::Deliver(packet));
            }
            Ok(None) => self.counters.in_dummy.count(),
            Err(counter) => counter.count(),
        }
    }

    /// The packet inside; `None` for a dummy.
    fn accept(
        &self,
        now: Instant,
        outer: OuterInfo,
        mut esp: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, Dropped<'_>> {
        let counters = &self.counters;
        let (spi, low) = parse_header(&esp).ok_or(&counters.in_malformed)?;
        let found = reading(&self.sad).inbound(outer.dst, spi).cloned();
        let Some(entry) = found else {
            let key = SaKey { dst: outer.dst, spi };
            locked(&self.events).unknown_spi(now, outer.src.ip(), key);
            return Err(&counters.in_no_sa);
        };
        if entry.is_expired(now) {
            return Err(&counters.in_expired);
        }
        let opened = self.verify(now, &entry, outer, low, &mut esp)?;
        if opened.next_header == proto::NO_NEXT_HEADER {
            return Ok(None);
        }
        esp.truncate(opened.start + opened.len);
        let (packet, info) = match entry.sa.mode {
            Mode::Transport => self.decap_transport(&entry, outer, opened, esp)?,
            Mode::Tunnel => self.decap_tunnel(outer, opened, esp)?,
        };
        self.check_selectors(&entry, &info)?;
        Ok(Some(packet))
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
        let opened = esp::open(entry.cipher(), esn_hi, esp);
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
        opened: Opened,
        mut packet: Vec<u8>,
    ) -> Result<(Vec<u8>, PacketInfo), Dropped<'_>> {
        let malformed = &self.counters.in_malformed;
        let fields = HeaderFields {
            src: entry.sa.src,
            dst: entry.sa.dst,
            protocol: opened.next_header,
            tos: outer.tos,
            ttl: outer.ttl,
            dont_fragment: false,
        };
        let header = fields.build(opened.len).ok_or(malformed)?;
        packet::replace_prefix(&mut packet, opened.start, &header);
        let headers = self.parse_inner(&packet)?;
        if entry.sa.encap.is_some() {
            checksum::refresh(&mut packet, &headers);
        }
        let info = headers.info(&packet);
        Ok((packet, info))
    }

    fn decap_tunnel(
        &self,
        outer: OuterInfo,
        opened: Opened,
        mut packet: Vec<u8>,
    ) -> Result<(Vec<u8>, PacketInfo), Dropped<'_>> {
        packet.drain(..opened.start);
        let mut headers = self.parse_inner(&packet)?;
        let expected = if headers.src.is_ipv4() { proto::IPV4 } else { proto::IPV6 };
        if opened.next_header != expected {
            return Err(&self.counters.in_malformed);
        }
        // What is behind the inner packet is traffic flow confidentiality padding (RFC 4303 2.7).
        packet.truncate(headers.total_len);
        let tos = ecn::decapsulate(headers.tos, outer.tos).ok_or(&self.counters.in_ecn_dropped)?;
        if tos != headers.tos {
            packet::set_tos(&mut packet, &mut headers, tos);
        }
        let info = headers.info(&packet);
        Ok((packet, info))
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
