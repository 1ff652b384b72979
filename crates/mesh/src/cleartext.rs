//! What passes in the clear under `optional`, host by host.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipsec::Instant;

/// Hosts that are remembered; of one more it is only known that there was one.
pub const MOST_HOSTS: usize = 4096;

/// When something last passed in each direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BothWays {
    /// To this host.
    pub into: Option<Instant>,
    /// From it.
    pub out: Option<Instant>,
}

/// The book of what passed in the clear.
#[derive(Debug, Default)]
pub struct Book {
    hosts: BTreeMap<IpAddr, BothWays>,
    /// When a host passed that there was no room for.
    unnamed: Option<Instant>,
}

impl Book {
    /// A packet passed, to this host or from it.
    pub fn note(&mut self, now: Instant, host: IpAddr, into: bool) {
        if !self.hosts.contains_key(&host) && self.hosts.len() >= MOST_HOSTS {
            self.unnamed = Some(now);
            return;
        }
        let seen = self.hosts.entry(host).or_default();
        *if into { &mut seen.into } else { &mut seen.out } = Some(now);
    }

    /// What passed with a host.
    pub fn of(&self, host: IpAddr) -> BothWays {
        self.hosts.get(&host).copied().unwrap_or_default()
    }

    /// Hosts with which something passed, by address.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> {
        self.hosts.keys().copied()
    }

    /// When a host passed that is not among them.
    pub fn unnamed(&self) -> Option<Instant> {
        self.unnamed
    }

    /// Forgets what is older.
    pub fn forget_before(&mut self, then: Instant) {
        let newer = |at: Option<Instant>| at.is_some_and(|at| at >= then);
        self.hosts.retain(|_, seen| newer(seen.into) || newer(seen.out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_end_take_no_memory_without_end() {
        let mut book = Book::default();
        let host = |n: usize| IpAddr::from(std::net::Ipv4Addr::from(n as u32));
        let at = Instant::from_nanos;
        (0..MOST_HOSTS).for_each(|n| book.note(at(5), host(n), true));
        assert_eq!(book.unnamed(), None);
        book.note(at(6), host(MOST_HOSTS), true);
        book.note(at(7), host(0), false);
        assert_eq!((book.hosts().count(), book.unnamed()), (MOST_HOSTS, Some(at(6))));
        assert_eq!(book.of(host(0)), BothWays { into: Some(at(5)), out: Some(at(7)) });
        book.forget_before(at(6));
        assert_eq!(book.hosts().collect::<Vec<_>>(), [host(0)]);
    }
}
