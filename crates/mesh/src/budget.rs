//! How many handshakes at once, and who is next.
//!
//! A slot is held by a peer that answers: a peer that stays silent gives it back after its first
//! retransmission ([`Budget::set_silent`]), so that dead hosts cannot starve living ones.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipsec::Instant;

/// Who goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// A packet or an operator waits.
    Waiting,
    /// Nobody waits yet.
    Ahead,
}

/// Handshakes in flight, and a queue that is first come first served within each urgency.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    /// Since when each runs.
    running: BTreeMap<IpAddr, Instant>,
    /// Those that run without a slot, as their peers are silent.
    silent: BTreeMap<IpAddr, Instant>,
    queue: BTreeMap<(Urgency, u64), IpAddr>,
    queued: BTreeMap<IpAddr, (Urgency, u64)>,
    next: u64,
}

impl Budget {
    /// At most `limit` at once; at least 1.
    pub fn new(limit: usize) -> Self {
        let (running, silent) = Default::default();
        let (queue, queued) = Default::default();
        Self { limit: limit.max(1), running, silent, queue, queued, next: 0 }
    }

    /// Queues a peer. One that is queued already keeps its place unless it became more urgent;
    /// one that is running gives its slot back first.
    pub fn request(&mut self, peer: IpAddr, urgency: Urgency) {
        self.release(peer);
        match self.queued.get(&peer) {
            Some((old, _)) if *old <= urgency => return,
            Some(place) => self.queue.remove(place),
            None => None,
        };
        let place = (urgency, self.next);
        self.next += 1;
        self.queue.insert(place, peer);
        self.queued.insert(peer, place);
    }

    /// The next peer that may start; it starts now.
    pub fn take(&mut self, now: Instant) -> Option<IpAddr> {
        if self.running.len() >= self.limit {
            return None;
        }
        let (_, peer) = self.queue.pop_first()?;
        self.queued.remove(&peer);
        self.running.insert(peer, now);
        Some(peer)
    }

    /// A handshake is over.
    pub fn release(&mut self, peer: IpAddr) {
        self.running.remove(&peer);
        self.silent.remove(&peer);
    }

    /// A handshake goes on without a slot.
    pub fn set_silent(&mut self, peer: IpAddr) {
        if let Some(began) = self.running.remove(&peer) {
            self.silent.insert(peer, began);
        }
    }

    /// Neither queued nor running any more.
    pub fn cancel(&mut self, peer: IpAddr) {
        self.release(peer);
        if let Some(place) = self.queued.remove(&peer) {
            self.queue.remove(&place);
        }
    }

    /// Whether it waits for its turn.
    pub fn is_queued(&self, peer: IpAddr) -> bool {
        self.queued.contains_key(&peer)
    }

    /// How many run, with a slot or without, that began within so long; those that hang do not count for ever.
    pub fn young(&self, now: Instant, within: Duration) -> usize {
        let all = self.running.values().chain(self.silent.values());
        all.filter(|began| now.since(**began) < within).count()
    }

    /// How many run, and how many wait.
    pub fn load(&self) -> (usize, usize) {
        (self.running.len(), self.queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn host(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn waiting_goes_before_ahead_and_first_before_second() {
        let mut budget = Budget::new(2);
        for n in 1..=3 {
            budget.request(host(n), Urgency::Ahead);
        }
        budget.request(host(4), Urgency::Waiting);
        budget.request(host(3), Urgency::Waiting);
        assert_eq!(
            [budget.take(NOW), budget.take(NOW), budget.take(NOW)],
            [Some(host(4)), Some(host(3)), None]
        );
        budget.release(host(4));
        assert_eq!([budget.take(NOW), budget.take(NOW)], [Some(host(1)), None]);
        assert_eq!(budget.load(), (2, 1));
    }

    #[test]
    fn asking_twice_is_asking_once() {
        let mut budget = Budget::new(8);
        budget.request(host(1), Urgency::Waiting);
        budget.request(host(1), Urgency::Ahead);
        budget.request(host(1), Urgency::Waiting);
        assert_eq!([budget.take(NOW), budget.take(NOW)], [Some(host(1)), None]);
        budget.request(host(1), Urgency::Waiting);
        assert_eq!(budget.load(), (0, 1), "never in two places");
    }

    #[test]
    fn a_cancelled_peer_neither_waits_nor_runs() {
        let mut budget = Budget::new(1);
        budget.request(host(1), Urgency::Ahead);
        budget.request(host(2), Urgency::Ahead);
        assert_eq!(budget.take(NOW), Some(host(1)));
        budget.cancel(host(2));
        budget.cancel(host(1));
        assert_eq!((budget.load(), budget.take(NOW)), ((0, 0), None));
    }

    #[test]
    fn one_that_hangs_is_not_young() {
        let mut budget = Budget::new(1);
        let within = Duration::from_secs(5);
        for (n, at) in [(1, NOW), (2, NOW + within / 2)] {
            budget.request(host(n), Urgency::Waiting);
            assert_eq!(budget.take(at), Some(host(n)));
            budget.set_silent(host(n));
        }
        let young = [within / 2, within, within * 2].map(|after| budget.young(NOW + after, within));
        assert_eq!(young, [2, 1, 0]);
        budget.release(host(2));
        assert_eq!(budget.young(NOW + within / 2, within), 1);
    }
}
