//! Events on their way to whoever polls: bounded, and each kind that a sender can cause at most once a second.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;
use crate::dataplane::{DataplaneEvent, PacketInfo};
use crate::sa::{Reqid, SaKey};

/// Events that packets cause, at a time.
const MAX_EVENTS: usize = 4096;
/// Events that an SA causes once: there may be some for each.
const MAX_VITAL: usize = 4 * crate::sad::MAX_SAS;
/// Addresses remembered for each kind.
const MAX_SOURCES: usize = 4096;
/// At most one event of a kind in this time, for each address.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Events {
    waiting: VecDeque<DataplaneEvent>,
    acquire: Limiter<IpAddr>,
    unknown_spi: Limiter<IpAddr>,
    clear_in: Limiter<IpAddr>,
    moved: Limiter<SaKey>,
    dropped: usize,
}

impl Events {
    pub fn pop(&mut self) -> Option<DataplaneEvent> {
        self.waiting.pop_front()
    }

    /// An event that happens once for an SA and must not be lost.
    pub fn vital(&mut self, event: DataplaneEvent) {
        if self.waiting.len() < MAX_VITAL {
            self.waiting.push_back(event);
        } else {
            self.dropped += 1;
        }
    }

    pub fn acquire(&mut self, now: Instant, reqid: Reqid, packet: PacketInfo) {
        let allowed = self.acquire.allow(now, packet.dst);
        self.offer(allowed, DataplaneEvent::Acquire { reqid, packet });
    }

    /// The next packet to this peer may acquire at once.
    pub fn forget_acquire(&mut self, peer: IpAddr) {
        self.acquire.last.remove(&peer);
    }

    pub fn unknown_spi(&mut self, now: Instant, src: IpAddr, key: SaKey) {
        let allowed = self.unknown_spi.allow(now, src);
        self.offer(allowed, DataplaneEvent::UnknownSpi { src, key });
    }

    pub fn clear_in(&mut self, now: Instant, packet: PacketInfo) {
        let allowed = self.clear_in.allow(now, packet.src);
        self.offer(allowed, DataplaneEvent::ClearIn { packet });
    }

    pub fn moved(&mut self, now: Instant, key: SaKey, remote: std::net::SocketAddr) {
        let allowed = self.moved.allow(now, key);
        self.offer(allowed, DataplaneEvent::Moved { key, remote });
    }

    /// Events lost since the last call.
    pub fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn offer(&mut self, allowed: bool, event: DataplaneEvent) {
        if !allowed {
            return;
        }
        if self.waiting.len() < MAX_EVENTS {
            self.waiting.push_back(event);
        } else {
            self.dropped += 1;
        }
    }
}

/// Once in [`INTERVAL`] for each key, and only so many keys.
struct Limiter<K> {
    last: BTreeMap<K, Instant>,
    purged: Instant,
}

impl<K: Ord> Default for Limiter<K> {
    fn default() -> Self {
        Self { last: BTreeMap::new(), purged: Instant::ZERO }
    }
}

impl<K: Ord> Limiter<K> {
    fn allow(&mut self, now: Instant, key: K) -> bool {
        if self.last.get(&key).is_some_and(|last| now.since(*last) < INTERVAL) {
            return false;
        }
        // A flood from made-up sources costs one walk of the table in an interval, not one a packet.
        if self.last.len() >= MAX_SOURCES && now.since(self.purged) >= INTERVAL {
            self.last.retain(|_, last| now.since(*last) < INTERVAL);
            self.purged = now;
        }
        if self.last.len() >= MAX_SOURCES && !self.last.contains_key(&key) {
            return false;
        }
        self.last.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_and_bounded() {
        let mut limiter = Limiter::default();
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        assert!(limiter.allow(at(5000), 1));
        assert!(!limiter.allow(at(5999), 1));
        assert!(limiter.allow(at(6000), 1));
        let taken = (2..10_000).filter(|key| limiter.allow(at(6500), *key)).count();
        assert_eq!(taken, MAX_SOURCES - 1);
        assert!(limiter.allow(at(8000), 20_000));
        assert_eq!(limiter.last.len(), 1);
    }
}
