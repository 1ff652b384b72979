//! Packets that wait for an SA, bounded by peer, in all, and in time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;
use crate::change::{Batch, Change};
use crate::sa::{Direction, Sa};

/// Packets that wait for one peer.
pub const MAX_PEER_PACKETS: usize = 64;
/// Bytes that wait for one peer.
pub const MAX_PEER_BYTES: usize = 256 << 10;
/// Bytes that wait for all peers.
pub const MAX_QUEUE_BYTES: usize = 16 << 20;
/// How long a packet waits.
pub const MAX_QUEUE_AGE: Duration = Duration::from_secs(10);

/// What a packet costs beside its bytes.
const PER_PACKET: usize = 128;

#[derive(Default)]
pub struct Queue {
    peers: BTreeMap<IpAddr, PeerQueue>,
    bytes: usize,
}

#[derive(Default)]
struct PeerQueue {
    packets: VecDeque<Waiting>,
    bytes: usize,
}

/// A packet and since when it waits.
pub struct Waiting {
    pub since: Instant,
    pub packet: Vec<u8>,
    pub fragmented: bool,
}

impl Waiting {
    fn cost(&self) -> usize {
        self.packet.len() + PER_PACKET
    }
}

impl Queue {
    /// Takes a packet; `false` if there is no room.
    pub fn push(&mut self, peer: IpAddr, waiting: Waiting) -> bool {
        let cost = waiting.cost();
        if self.bytes + cost > MAX_QUEUE_BYTES {
            return false;
        }
        let queue = self.peers.entry(peer).or_default();
        if queue.packets.len() >= MAX_PEER_PACKETS || queue.bytes + cost > MAX_PEER_BYTES {
            return false;
        }
        queue.packets.push_back(waiting);
        queue.bytes += cost;
        self.bytes += cost;
        true
    }

    /// Everything that waits for a peer, oldest first.
    pub fn take(&mut self, peer: IpAddr) -> VecDeque<Waiting> {
        let queue = self.peers.remove(&peer).unwrap_or_default();
        self.bytes -= queue.bytes;
        queue.packets
    }

    /// Whether something waits for a peer.
    pub fn holds(&self, peer: IpAddr) -> bool {
        self.peers.get(&peer).is_some_and(|queue| !queue.packets.is_empty())
    }

    /// All that waits.
    pub fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.peers.values().flat_map(|queue| &queue.packets)
    }

    /// Drops what has waited too long; how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        for queue in self.peers.values_mut() {
            let old = |waiting: &&Waiting| now.since(waiting.since) >= MAX_QUEUE_AGE;
            while let Some(waiting) = queue.packets.front().filter(old) {
                let cost = waiting.cost();
                queue.bytes -= cost;
                self.bytes -= cost;
                queue.packets.pop_front();
                expired += 1;
            }
        }
        self.peers.retain(|_, queue| !queue.packets.is_empty());
        expired
    }

    /// Peers whose packets may go on after these changes.
    pub fn concerned(&self, batch: &Batch) -> BTreeSet<IpAddr> {
        let mut peers = BTreeSet::new();
        for change in &batch.0 {
            match change {
                Change::AddSa(sa) | Change::AdoptSa(sa) => peers.extend(self.carried_by(sa)),
                Change::RemoveSa(_) | Change::DropQueued(_) => {}
                Change::MoveSa { .. } | Change::PutPolicy(_) | Change::RemovePolicy(_) => {
                    return self.peers.keys().copied().collect();
                }
            }
        }
        peers
    }

    /// Peers whose packets an SA may carry.
    fn carried_by(&self, sa: &Sa) -> impl Iterator<Item = IpAddr> {
        let out = sa.direction == Direction::Out;
        let selectors = sa.remote_ts.iter().filter(move |ts| out && ts.start <= ts.end);
        selectors.flat_map(|ts| self.peers.range(ts.start..=ts.end)).map(|(peer, _)| *peer)
    }

    /// Peers that packets wait for.
    pub fn peers(&self) -> Vec<IpAddr> {
        self.peers.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn waiting(len: usize) -> Waiting {
        Waiting { since: Instant::ZERO, packet: vec![0; len], fragmented: false }
    }

    fn peer(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn packets_of_a_peer_are_bounded() {
        let mut queue = Queue::default();
        assert_eq!(
            (0..100).filter(|_| queue.push(peer(1), waiting(100))).count(),
            MAX_PEER_PACKETS
        );
        assert!(queue.push(peer(2), waiting(100)));
    }

    #[test]
    fn bytes_of_a_peer_and_of_all_are_bounded() {
        let mut queue = Queue::default();
        let big = 60_000;
        assert_eq!((0..10).filter(|_| queue.push(peer(1), waiting(big))).count(), 4);
        let taken = (2..1000).filter(|number| queue.push(peer(*number), waiting(big))).count();
        assert_eq!(taken, MAX_QUEUE_BYTES / (big + PER_PACKET) - 4);
        assert!(queue.bytes <= MAX_QUEUE_BYTES);
        assert_eq!(queue.take(peer(1)).len(), 4);
        assert_eq!(queue.expire(Instant::ZERO + MAX_QUEUE_AGE), taken);
        assert_eq!((queue.bytes, queue.peers.len()), (0, 0));
    }
}
