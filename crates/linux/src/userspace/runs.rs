//! Sealed packets that wait to be sent: one behind the other, those of one length to one peer as one datagram.

use std::net::SocketAddr;

use ipsec::pipeline::Outer;

use crate::datagram::{MAX_SEGMENTED, MAX_SEGMENTS, Outgoing};
use crate::raw::Ip;

/// Bytes after which what is there is sent: about what the stack leaves to a device at once.
const FULL: usize = 64 << 10;
/// Packets after which it is.
const MANY: usize = 256;

/// Which socket sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    /// ESP as an IP protocol.
    Raw(Ip),
    /// ESP in UDP, from this port.
    Udp(Ip, u16),
}

/// The packets. Used again and again: no allocation once it has grown.
#[derive(Default)]
pub(super) struct Runs {
    bytes: Vec<u8>,
    runs: Vec<Run>,
}

/// Packets of one length, but for the last, that go to one place.
struct Run {
    outer: Outer,
    at: usize,
    len: usize,
    /// Bytes of the first.
    size: usize,
}

impl Runs {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL || self.runs.len() >= MANY
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
    }

    /// One more packet, which `seal` appends; it says whether there is one.
    pub(super) fn push(&mut self, outer: Outer, seal: impl FnOnce(&mut Vec<u8>) -> bool) {
        let at = self.bytes.len();
        if !seal(&mut self.bytes) {
            return self.bytes.truncate(at);
        }
        let len = self.bytes.len() - at;
        match self.runs.last_mut().filter(|run| run.takes(&outer, len)) {
            Some(run) => run.len += len,
            None => self.runs.push(Run { outer, at, len, size: len }),
        }
    }

    /// What each socket sends; `large`: the kernel cuts the runs.
    pub(super) fn by_socket(&self, large: bool) -> impl Iterator<Item = (Out, Vec<Outgoing<'_>>)> {
        let chunks = self.runs.chunk_by(|a, b| a.out() == b.out());
        chunks.filter_map(move |runs| {
            let items = runs.iter().flat_map(|run| run.outgoing(&self.bytes, large));
            Some((runs.first()?.out(), items.collect()))
        })
    }
}

impl Run {
    fn takes(&self, outer: &Outer, len: usize) -> bool {
        self.outer == *outer
            && outer.udp.is_some()
            && len <= self.size
            && self.len.is_multiple_of(self.size)
            && self.len / self.size < MAX_SEGMENTS
            && self.len + len <= MAX_SEGMENTED
    }

    fn out(&self) -> Out {
        let ip = Ip::of(self.outer.dst.ip());
        match self.outer.udp {
            Some(port) => Out::Udp(ip, port),
            None => Out::Raw(ip),
        }
    }

    fn outgoing<'a>(
        &self,
        bytes: &'a [u8],
        large: bool,
    ) -> impl Iterator<Item = Outgoing<'a>> + use<'a> {
        let Outer { src, dst, tos, ttl, dont_fragment, .. } = self.outer;
        let bytes = &bytes[self.at..self.at + self.len];
        let several = self.len > self.size;
        let segment = if several && large { u16::try_from(self.size).unwrap_or(0) } else { 0 };
        let remote: SocketAddr = dst;
        let each = if segment > 0 { self.len } else { self.size };
        bytes.chunks(each).map(move |bytes| Outgoing {
            remote,
            local: Some(src),
            tos: Some(tos),
            ttl: Some(ttl),
            dont_fragment,
            segment,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer(udp: Option<u16>, tos: u8) -> Outer {
        Outer {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2:4500".parse().unwrap(),
            udp,
            tos,
            ttl: 64,
            dont_fragment: true,
        }
    }

    fn lengths(runs: &Runs, large: bool) -> Vec<(usize, u16)> {
        let all = runs.by_socket(large).flat_map(|(_, items)| items);
        all.map(|item| (item.bytes.len(), item.segment)).collect()
    }

    fn filled(udp: Option<u16>, packets: &[(usize, u8)]) -> Runs {
        let mut runs = Runs::default();
        for (len, tos) in packets {
            runs.push(outer(udp, *tos), |bytes| {
                bytes.extend(vec![7; *len]);
                true
            });
        }
        runs
    }

    #[test]
    fn a_shorter_packet_ends_a_run_and_a_longer_one_begins_another() {
        let packets = [(100, 0), (100, 0), (40, 0), (40, 0), (100, 0), (100, 1)];
        let runs = filled(Some(4500), &packets);
        assert_eq!(lengths(&runs, true), [(240, 100), (40, 0), (100, 0), (100, 0)]);
        let each = [(100, 0), (100, 0), (40, 0), (40, 0), (100, 0), (100, 0)];
        assert_eq!(lengths(&runs, false), each);
        assert_eq!(lengths(&filled(None, &packets), true), each);
    }

    #[test]
    fn runs_are_bounded() {
        let runs = filled(Some(4500), &[(10, 0); 150]);
        assert_eq!(lengths(&runs, true), [(640, 10), (640, 10), (220, 10)]);
        let runs = filled(Some(4500), &[(1450, 0); 50]);
        assert_eq!(lengths(&runs, true), [(44 * 1450, 1450), (6 * 1450, 1450)]);
        assert!(runs.is_full());
    }

    #[test]
    fn what_was_not_sealed_is_not_sent() {
        let mut runs = filled(Some(4500), &[(100, 0)]);
        runs.push(outer(Some(4500), 0), |bytes| {
            bytes.extend([1; 50]);
            false
        });
        assert_eq!(lengths(&runs, true), [(100, 0)]);
        assert_eq!(runs.bytes.len(), 100);
    }
}
