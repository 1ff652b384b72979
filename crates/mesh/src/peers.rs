//! The table of peers with their timers. Bounded; whoever does nothing is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipsec::Instant;

use crate::pair;
use crate::peer::Peer;

/// Peers at most. A subnet may hold more addresses; those that come later are refused.
pub const MAX_PEERS: usize = 65_536;

/// The table.
#[derive(Debug, Default)]
pub struct Peers {
    table: BTreeMap<IpAddr, Box<Peer>>,
    timers: BTreeSet<(Instant, IpAddr)>,
    armed: BTreeMap<IpAddr, Instant>,
    touched: BTreeSet<IpAddr>,
}

impl Peers {
    /// A peer.
    pub fn get(&self, address: IpAddr) -> Option<&Peer> {
        self.table.get(&address).map(|peer| &**peer)
    }

    /// A peer, to be changed; its timers follow with the next [`Peers::arm`].
    pub fn get_mut(&mut self, address: IpAddr) -> Option<&mut Peer> {
        let peer = self.table.get_mut(&address)?;
        self.touched.insert(address);
        Some(peer)
    }

    /// A peer, made if it is not there.
    pub fn entry(&mut self, local: IpAddr, address: IpAddr, now: Instant) -> &mut Peer {
        self.touched.insert(address);
        let peer = || Box::new(Peer::new(pair::owns(local, address), now));
        self.table.entry(address).or_insert_with(peer)
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.table.len() < MAX_PEERS
    }

    /// Whether somebody who has proven nothing may have a place: half of the table is for others.
    pub fn has_room_for_stranger(&self, address: IpAddr) -> bool {
        self.table.contains_key(&address) || self.table.len() < MAX_PEERS / 2
    }

    /// Whether `address` has a place; where the table is full, one that would not be missed gives
    /// its own up.
    pub fn make_room(&mut self, address: IpAddr) -> bool {
        if self.table.contains_key(&address) || self.has_room() {
            return true;
        }
        let spare = self.table.iter().find(|(_, p)| p.forgettable() && p.last_heard.is_none());
        let spare = spare.map(|(a, _)| *a);
        spare.is_some_and(|address| self.remove(address).is_some())
    }

    /// Takes a peer out.
    pub fn remove(&mut self, address: IpAddr) -> Option<Box<Peer>> {
        self.touched.insert(address);
        self.table.remove(&address)
    }

    /// All peers, by address.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Peer)> {
        self.table.iter().map(|(a, p)| (*a, &**p))
    }

    /// Addresses of all peers.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.table.keys().copied().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Sets the timers of all peers that were touched.
    pub fn arm(&mut self) {
        for address in std::mem::take(&mut self.touched) {
            let wake = self.table.get(&address).map_or(Instant::NEVER, |peer| peer.wake());
            if self.armed.get(&address).copied().unwrap_or(Instant::NEVER) == wake {
                continue;
            }
            if let Some(old) = self.armed.remove(&address) {
                self.timers.remove(&(old, address));
            }
            if wake != Instant::NEVER {
                self.armed.insert(address, wake);
                self.timers.insert((wake, address));
            }
        }
    }

    /// The peer whose timer is the first, and when.
    pub fn first(&self) -> Option<(Instant, IpAddr)> {
        self.timers.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_follow_their_peers() {
        let (local, a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 3].into());
        let mut peers = Peers::default();
        peers.entry(local, a, Instant::ZERO).start_at = Some(Instant::from_nanos(9));
        peers.entry(local, b, Instant::ZERO).start_at = Some(Instant::from_nanos(5));
        peers.arm();
        assert_eq!(peers.first(), Some((Instant::from_nanos(5), b)));
        peers.get_mut(b).unwrap().start_at = Some(Instant::from_nanos(12));
        peers.arm();
        assert_eq!(peers.first(), Some((Instant::from_nanos(9), a)));
        peers.remove(a);
        peers.arm();
        assert_eq!(peers.first(), Some((Instant::from_nanos(12), b)));
        assert_eq!(peers.len(), 1);
    }
}
