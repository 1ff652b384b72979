//! Many packets of one flow, and nothing but ESP to be done with them: one decision, one SA, one buffer.
//!
//! Whatever else a packet needs (waiting for an SA, fragments, an error to its sender, options in its header) is done
//! by [`Pipeline::outbound`], which every packet may go through.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::esp::{self, SealAs, Shape};
use crate::packet::{self, Headers, proto};
use crate::sa::Mode;
use crate::sad::Entry;
use crate::spd::{Action, Flow};
use crate::{Instant, ecn};

use super::outbound::{Frame, TUNNEL_TTL};
use super::{Pipeline, reading};

/// What the outer IP header of ESP packets says, and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// This host.
    pub src: IpAddr,
    /// To whom; with the UDP port, or port 0.
    pub dst: SocketAddr,
    /// This host's UDP port, if ESP goes in UDP.
    pub udp: Option<u16>,
    /// TOS or traffic class (DSCP and ECN).
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Must not be fragmented on the way.
    pub dont_fragment: bool,
}

/// The way of packets with the same headers. To be used at once: policies and SAs change.
pub struct Lane {
    entry: Arc<Entry>,
    outer: Outer,
    /// Bytes of a packet that ESP does not protect.
    clear: usize,
    next_header: u8,
}

impl Lane {
    /// What stands around the ESP packets.
    pub fn outer(&self) -> Outer {
        self.outer
    }
}

impl Pipeline {
    /// The way of packets that have the headers of `packet` and at most `longest` bytes; `None` if they need more than ESP.
    pub fn lane(
        &self,
        now: Instant,
        packet: &[u8],
        headers: &Headers,
        longest: usize,
    ) -> Option<Lane> {
        let plain = headers.fragment.is_none() && headers.esp_at == headers.fixed_len();
        if !plain || self.waits_for(headers.dst) || !packet::is_unicast(headers.dst) {
            return None;
        }
        let info = headers.info(packet);
        let action = reading(&self.spd).lookup(Flow::Out, &info)?.action;
        let Action::Protect { mode, reqid, .. } = action else { return None };
        let entry = reading(&self.sad).outbound(now, reqid, mode, &info)?.clone();
        if entry.sa.ipcomp.is_some() {
            return None;
        }
        let frame = Frame::of(&entry.sa, Shape::of(entry.cipher(&*self.provider)), headers);
        let mtu = reading(&self.paths).get(now, entry.sa.dst);
        if mtu.is_some_and(|mtu| frame.outer_len(longest) > mtu) {
            return None;
        }
        let sa = &entry.sa;
        let (src, dst, ttl, clear, next_header) = match sa.mode {
            Mode::Transport => {
                (headers.src, headers.dst, headers.ttl, headers.esp_at, headers.esp_next)
            }
            Mode::Tunnel if headers.src.is_ipv4() => (sa.src, sa.dst, TUNNEL_TTL, 0, proto::IPV4),
            Mode::Tunnel => (sa.src, sa.dst, TUNNEL_TTL, 0, proto::IPV6),
        };
        // In UDP the datagram goes to the SA's peer, as `outbound` has it.
        let dst = match sa.encap {
            Some(encap) => SocketAddr::new(sa.dst, encap.remote_port),
            None => SocketAddr::new(dst, 0),
        };
        let outer = Outer {
            src,
            dst,
            udp: sa.encap.map(|encap| encap.local_port),
            tos: ecn::encapsulate(headers.tos),
            ttl,
            dont_fragment: headers.dont_fragment,
        };
        Some(Lane { entry, outer, clear, next_header })
    }

    /// Appends the ESP packet around one packet, given as its headers and the rest, to `out`. `false` if its SA has
    /// come to an end: then the packet is lost.
    pub fn seal(
        &self,
        now: Instant,
        lane: &Lane,
        header: &[u8],
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let header = header.get(lane.clear..).unwrap_or(&[]);
        let entry = &lane.entry;
        let Some(seq) = self.number(now, entry, header.len() + rest.len()) else { return false };
        let as_ =
            SealAs { spi: entry.sa.spi, seq, esn: entry.sa.esn, next_header: lane.next_header };
        esp::seal_onto(entry.cipher(&*self.provider), as_, [header, rest], out);
        self.counters.out_protected.count();
        true
    }
}
