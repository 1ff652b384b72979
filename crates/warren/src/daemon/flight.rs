//! What passed between this host and each peer lately, kept for when it is asked for: IKE datagrams as they were on the
//! wire, and events. Bounded for each peer and in all, and free of secrets: what is encrypted stays so.
//!
//! Whoever is no known peer shares a small room of its own: nobody drives out what is remembered of peers by sending in
//! many names.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use mesh::Event;

/// Of one peer.
const ENTRIES: usize = 96;
/// Of one peer, in bytes.
const BYTES: usize = 48 << 10;
/// Of all known peers together, in bytes.
const ROOM: usize = 16 << 20;
/// Of everybody else together, in bytes.
const STRANGERS: usize = 1 << 20;
/// What an entry takes besides its bytes, about.
const EACH: usize = 128;

/// Something that passed or happened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What passed or happened.
#[derive(Clone, Debug)]
pub enum What {
    /// An IKE datagram; on port 4500 with the four bytes in front that tell it from ESP.
    Message {
        /// From where.
        src: SocketAddr,
        /// To where.
        dst: SocketAddr,
        /// As it was on the wire.
        bytes: Vec<u8>,
    },
    /// An event.
    Event(Box<Event>),
}

/// The last of all peers.
#[derive(Default)]
pub struct Recorder {
    known: Ring,
    strangers: Ring,
}

impl Recorder {
    /// Keeps it; `acquainted`: nobody else can have sent in this peer's name without being found out in the end.
    pub fn keep(&mut self, peer: IpAddr, acquainted: bool, entry: Entry) {
        let (ring, room) = match acquainted {
            true => (&mut self.known, ROOM),
            false => (&mut self.strangers, STRANGERS),
        };
        ring.keep(peer, entry, room);
    }

    /// What is remembered of a peer, oldest first.
    pub fn of(&self, peer: IpAddr) -> Vec<&Entry> {
        let rings = [&self.strangers, &self.known];
        let all = rings.into_iter().flat_map(|ring| ring.peers.get(&peer).into_iter().flatten());
        let mut all: Vec<_> = all.map(|(_, entry)| entry).collect();
        all.sort_by_key(|entry| entry.at);
        all
    }
}

#[derive(Default)]
struct Ring {
    peers: BTreeMap<IpAddr, VecDeque<(u64, Entry)>>,
    /// Whose each entry is, by number: the first is the oldest.
    order: BTreeMap<u64, IpAddr>,
    next: u64,
    bytes: usize,
}

impl Ring {
    fn keep(&mut self, peer: IpAddr, entry: Entry, room: usize) {
        let size = size(&entry);
        if size > BYTES {
            return;
        }
        let number = self.next;
        self.next += 1;
        self.order.insert(number, peer);
        self.bytes += size;
        self.peers.entry(peer).or_default().push_back((number, entry));
        while self.is_full_of(peer) {
            self.forget_first(peer);
        }
        while self.bytes > room {
            let Some(oldest) = self.order.first_key_value().map(|(_, peer)| *peer) else { return };
            self.forget_first(oldest);
        }
    }

    fn is_full_of(&self, peer: IpAddr) -> bool {
        let Some(entries) = self.peers.get(&peer) else { return false };
        let bytes: usize = entries.iter().map(|(_, entry)| size(entry)).sum();
        entries.len() > ENTRIES || bytes > BYTES
    }

    fn forget_first(&mut self, peer: IpAddr) {
        let Some(entries) = self.peers.get_mut(&peer) else { return };
        if let Some((number, entry)) = entries.pop_front() {
            self.order.remove(&number);
            self.bytes -= size(&entry);
        }
        if entries.is_empty() {
            self.peers.remove(&peer);
        }
    }
}

fn size(entry: &Entry) -> usize {
    EACH + match &entry.what {
        What::Message { bytes, .. } => bytes.len(),
        What::Event(event) => event.text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(at: u64, len: usize) -> Entry {
        let (src, dst) = (([10, 0, 0, 1], 500).into(), ([10, 0, 0, 2], 500).into());
        Entry { at, what: What::Message { src, dst, bytes: vec![7; len] } }
    }

    fn peer(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn each_peer_has_its_own_last_messages() {
        let mut recorder = Recorder::default();
        for at in 0..1000 {
            recorder.keep(peer(1), true, message(at, 100));
        }
        recorder.keep(peer(2), true, message(5, 100));
        let kept: Vec<u64> = recorder.of(peer(1)).iter().map(|entry| entry.at).collect();
        assert_eq!(kept, (1000 - ENTRIES as u64..1000).collect::<Vec<_>>());
        assert_eq!(recorder.of(peer(2)).len(), 1);
        assert!(recorder.of(peer(3)).is_empty());
        // Large ones count by their bytes, and one that is too large for all is passed over.
        for at in 0..20 {
            recorder.keep(peer(1), true, message(at, 10_000));
        }
        assert_eq!(recorder.of(peer(1)).len(), BYTES / 10_128);
        recorder.keep(peer(4), true, message(0, BYTES));
        assert!(recorder.of(peer(4)).is_empty());
    }

    #[test]
    fn strangers_drive_out_strangers_alone_and_the_room_is_bounded() {
        let mut recorder = Recorder::default();
        recorder.keep(peer(1), true, message(1, 100));
        recorder.keep(peer(2), false, message(2, 100));
        for n in 0..30_000 {
            recorder.keep(peer(100 + n), false, message(3, 60));
        }
        assert_eq!(recorder.of(peer(1)).len(), 1);
        assert!(recorder.of(peer(2)).is_empty(), "the oldest stranger is forgotten");
        assert!(recorder.strangers.bytes <= STRANGERS);
        let counted: usize = recorder.strangers.peers.values().map(VecDeque::len).sum();
        assert_eq!(counted, recorder.strangers.order.len());
        // Who becomes known is shown as a whole.
        recorder.keep(peer(9), false, message(8, 1));
        recorder.keep(peer(9), true, message(9, 1));
        let kept: Vec<u64> = recorder.of(peer(9)).iter().map(|entry| entry.at).collect();
        assert_eq!(kept, [8, 9]);
    }
}
