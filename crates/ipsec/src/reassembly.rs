//! Fragments back into datagrams: ESP in transport mode is for whole datagrams only (RFC 4303 3.3.4),
//! and later fragments have no ports for a policy to look at (RFC 4301 7).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;
use crate::packet::{self, Fragment, Headers, IPV6_HEADER};

/// Datagrams in pieces at a time.
pub const MAX_DATAGRAMS: usize = 64;
/// Bytes of all pieces together.
pub const MAX_BYTES: usize = 4 << 20;
/// Pieces of one datagram: 64 KiB in packets of 576 bytes, and some.
pub const MAX_FRAGMENTS: usize = 160;
/// How long the pieces of a datagram wait for the rest. They come from this host: at once, or never.
pub const MAX_AGE: Duration = Duration::from_secs(5);

/// Datagrams in pieces, bounded in every direction.
#[derive(Debug, Default)]
pub struct Reassembler {
    partial: BTreeMap<Key, Partial>,
    bytes: usize,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Reassembly {
    /// More are needed.
    Waiting,
    /// It completed its datagram.
    Whole {
        /// The datagram.
        packet: Vec<u8>,
        /// The fragments as they came, by offset.
        fragments: Vec<Vec<u8>>,
    },
    /// It was refused, and what is there of its datagram with it.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 tells datagrams apart by protocol as well; 0 for IPv6 (RFC 8200 4.5).
    protocol: u8,
}

#[derive(Debug)]
struct Partial {
    since: Instant,
    bytes: usize,
    /// Length of the whole fragmented part, once the last fragment is there.
    end: Option<usize>,
    /// By offset; never overlapping.
    pieces: BTreeMap<usize, Piece>,
}

#[derive(Debug)]
struct Piece {
    packet: Vec<u8>,
    headers: Headers,
    fragment: Fragment,
}

impl Reassembler {
    /// Takes one fragment; `packet` is no longer than its header says.
    pub fn add(&mut self, now: Instant, packet: Vec<u8>, headers: Headers) -> Reassembly {
        let Some(fragment) = headers.fragment else { return Reassembly::Refused };
        let key = Key {
            src: headers.src,
            dst: headers.dst,
            id: fragment.id,
            protocol: if headers.src.is_ipv4() { fragment.next } else { 0 },
        };
        self.expire(now);
        if !self.partial.contains_key(&key) && self.partial.len() >= MAX_DATAGRAMS {
            self.drop_oldest();
        }
        let (len, piece) = (packet.len(), Piece { packet, headers, fragment });
        let partial = self.partial.entry(key).or_insert_with(|| Partial::new(now));
        if !partial.insert(piece) {
            self.forget(key);
            return Reassembly::Refused;
        }
        partial.bytes += len;
        self.bytes += len;
        if partial.is_complete() {
            return self.forget(key).and_then(Partial::join).unwrap_or(Reassembly::Refused);
        }
        while self.bytes > MAX_BYTES {
            self.drop_oldest();
        }
        Reassembly::Waiting
    }

    /// Drops what has waited too long.
    pub fn expire(&mut self, now: Instant) {
        while let Some((&key, partial)) = self.partial.iter().min_by_key(|(_, p)| p.since) {
            if now.since(partial.since) < MAX_AGE {
                return;
            }
            self.forget(key);
        }
    }

    /// Fragments that wait for others.
    pub fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        let pieces = self.partial.values().flat_map(|partial| partial.pieces.values());
        pieces.map(|piece| piece.packet.as_slice())
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn drop_oldest(&mut self) {
        if let Some(key) = self.partial.iter().min_by_key(|(_, p)| p.since).map(|(key, _)| *key) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) -> Option<Partial> {
        let partial = self.partial.remove(&key)?;
        self.bytes -= partial.bytes;
        Some(partial)
    }
}

impl Partial {
    fn new(since: Instant) -> Self {
        Self { since, bytes: 0, end: None, pieces: BTreeMap::new() }
    }

    /// `false` if the piece cannot belong to one honest datagram: then all of it must go (RFC 5722, RFC 8200 4.5).
    fn insert(&mut self, piece: Piece) -> bool {
        let start = piece.fragment.offset;
        let len = piece.packet.len().saturating_sub(piece.fragment.data_at);
        let end = start + len;
        if len == 0 || end > 65_535 || (piece.fragment.more && !len.is_multiple_of(8)) {
            return false;
        }
        let before = self.pieces.range(..end).next_back();
        if before.is_some_and(|(_, other)| other.end() > start) {
            return false;
        }
        let last = self.pieces.last_key_value().map_or(0, |(_, other)| other.end());
        if piece.fragment.more {
            if self.end.is_some_and(|known| end > known) {
                return false;
            }
        } else if self.end.is_some() || last > end {
            return false;
        } else {
            self.end = Some(end);
        }
        self.pieces.insert(start, piece);
        self.pieces.len() <= MAX_FRAGMENTS
    }

    fn is_complete(&self) -> bool {
        let mut at = 0;
        for (start, piece) in &self.pieces {
            if *start != at {
                return false;
            }
            at = piece.end();
        }
        self.end == Some(at)
    }

    fn join(self) -> Option<Reassembly> {
        let first = self.pieces.get(&0)?;
        let end = self.end?;
        let mut packet =
            if first.headers.src.is_ipv4() { first.head_v4(end) } else { first.head_v6(end) }?;
        let mut fragments = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces.into_values() {
            packet.extend_from_slice(&piece.packet[piece.fragment.data_at..]);
            fragments.push(piece.packet);
        }
        Some(Reassembly::Whole { packet, fragments })
    }
}

impl Piece {
    fn end(&self) -> usize {
        self.fragment.offset + self.packet.len() - self.fragment.data_at
    }

    /// The whole datagram's header, from the first fragment's.
    fn head_v4(&self, data: usize) -> Option<Vec<u8>> {
        let len = self.fragment.data_at;
        let total = u16::try_from(len + data).ok()?;
        let mut head = Vec::with_capacity(usize::from(total));
        head.extend_from_slice(&self.packet[..len]);
        head[2..4].copy_from_slice(&total.to_be_bytes());
        // Keeps DF, clears MF and the offset.
        head[6] &= 0x40;
        head[7] = 0;
        packet::fill_ipv4_checksum(&mut head);
        Some(head)
    }

    /// The same without the fragment header.
    fn head_v6(&self, data: usize) -> Option<Vec<u8>> {
        let len = self.fragment.data_at - 8;
        let payload = u16::try_from(len - IPV6_HEADER + data).ok()?;
        let mut head = Vec::with_capacity(IPV6_HEADER + usize::from(payload));
        head.extend_from_slice(&self.packet[..len]);
        head[4..6].copy_from_slice(&payload.to_be_bytes());
        head[self.fragment.next_at] = self.fragment.next;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fragment of an IPv4 datagram of one byte value.
    fn piece(id: u16, offset: usize, len: usize, more: bool) -> (Vec<u8>, Headers) {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        let field = u16::from(more) << 13 | (offset / 8) as u16;
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        packet.extend((offset..offset + len).map(|at| at as u8));
        let headers = packet::parse(&packet).unwrap();
        (packet, headers)
    }

    fn add(to: &mut Reassembler, piece: (Vec<u8>, Headers)) -> Reassembly {
        to.add(Instant::ZERO, piece.0, piece.1)
    }

    #[test]
    fn any_order_gives_the_datagram() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
            let mut reassembler = Reassembler::default();
            let pieces = [(0, 16, true), (16, 8, true), (24, 5, false)];
            let mut last = Reassembly::Waiting;
            for index in order {
                assert_eq!(last, Reassembly::Waiting);
                let (offset, len, more) = pieces[index];
                last = add(&mut reassembler, piece(1, offset, len, more));
            }
            let Reassembly::Whole { packet, fragments } = last else { panic!("{last:?}") };
            let data: Vec<u8> = (0..29).collect();
            assert_eq!(packet[20..], data);
            assert_eq!(fragments.len(), 3);
            let headers = packet::parse(&packet).unwrap();
            assert_eq!((headers.total_len, headers.fragment), (49, None));
            assert_eq!(reassembler.bytes(), 0);
        }
    }

    #[test]
    fn overlaps_and_impossible_lengths_discard_the_datagram() {
        let bad = [
            [(0, 16, true), (8, 16, true)],
            [(8, 16, true), (0, 16, true)],
            [(0, 24, true), (8, 8, true)],
            [(0, 16, true), (0, 16, true)],
            [(16, 8, false), (24, 8, true)],
            [(16, 8, false), (32, 8, false)],
            [(24, 8, true), (16, 8, false)],
            [(0, 16, true), (16, 7, true)],
            [(0, 16, true), (16, 0, false)],
            [(0, 16, true), (65_528, 16, false)],
        ];
        for [first, second] in bad {
            let mut reassembler = Reassembler::default();
            let one = piece(1, first.0, first.1, first.2);
            assert_eq!(add(&mut reassembler, one), Reassembly::Waiting);
            let two = piece(1, second.0, second.1, second.2);
            assert_eq!(add(&mut reassembler, two), Reassembly::Refused, "{first:?} {second:?}");
            assert_eq!((reassembler.bytes(), reassembler.partial.len()), (0, 0));
        }
    }

    #[test]
    fn count_bytes_and_age_are_bounded() {
        let mut reassembler = Reassembler::default();
        for id in 0..1000 {
            add(&mut reassembler, piece(id, 0, 60_000, true));
            assert!(reassembler.bytes() <= MAX_BYTES && reassembler.partial.len() <= MAX_DATAGRAMS);
        }
        reassembler.expire(Instant::ZERO + MAX_AGE);
        assert_eq!((reassembler.bytes(), reassembler.partial.len()), (0, 0));
        let outcomes: Vec<_> = (0..=MAX_FRAGMENTS)
            .map(|at| add(&mut reassembler, piece(1, at * 16, 8, true)))
            .collect();
        assert_eq!(outcomes.last(), Some(&Reassembly::Refused));
    }
}
