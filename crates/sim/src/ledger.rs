//! Every packet that the hosts' applications sent, and what became of it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipsec::Instant;

use crate::net::HostId;

/// Stands at the beginning of every payload: to be seen at the receiver, never on a link.
pub const MARK: &[u8; 16] = b"plain text here!";
/// UDP port of the applications.
const PORT: u16 = 7;

/// Settled packets that are remembered, to tell one that is delivered twice from one that nobody sent.
const REMEMBERED: usize = 1 << 16;

/// All packets of a world.
pub struct Ledger {
    remembered: usize,
    /// How many were forgotten: the number of the first one in `sent`.
    forgotten: usize,
    sent: VecDeque<Sent>,
    /// Packets before this one are settled: delivered, given up, or excused.
    settled: usize,
    totals: Totals,
    /// What the next packet carries is put together here.
    payload: Vec<u8>,
}

/// Counts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Sent by applications.
    pub sent: u64,
    /// Of these delivered, each counted once.
    pub delivered: u64,
    /// Not delivered though nothing excuses it.
    pub lost: u64,
}

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// From whom.
    pub from: HostId,
    /// To whom.
    pub to: HostId,
    /// When.
    pub at: Instant,
    /// It must arrive.
    pub must_arrive: bool,
    delivered: bool,
}

/// Something arrived that must not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Odd {
    /// A packet of the ledger for the second time.
    Twice(HostId, HostId),
    /// At another host than its destination.
    Astray(HostId, HostId),
    /// One that was settled long ago.
    Old,
    /// Nothing that an application sent.
    Unknown,
}

impl Default for Ledger {
    fn default() -> Self {
        let (sent, totals) = (VecDeque::new(), Totals::default());
        let payload = MARK.to_vec();
        Self { remembered: REMEMBERED, forgotten: 0, sent, settled: 0, totals, payload }
    }
}

impl Ledger {
    /// Remembers no more than so many settled packets from now on.
    pub fn limit(&mut self, packets: usize) {
        self.remembered = packets;
    }

    /// An application sends: the IP packet. `None` if it would be longer than IP can say.
    pub fn send(
        &mut self,
        now: Instant,
        (from, src): (HostId, IpAddr),
        (to, dst): (HostId, IpAddr),
        must_arrive: bool,
    ) -> Option<Vec<u8>> {
        let number = (self.forgotten + self.sent.len()) as u64;
        // Some are long, so that padding and lengths vary.
        let extra = usize::try_from(number * 37 % 600).unwrap_or(0);
        self.payload.truncate(MARK.len());
        self.payload.extend_from_slice(&number.to_be_bytes());
        self.payload.resize(self.payload.len() + extra, 0x2e);
        let ends = (SocketAddr::new(src, PORT), SocketAddr::new(dst, PORT));
        let packet = ipsec::packet::udp(ends.0, ends.1, &self.payload)?;
        self.sent.push_back(Sent { from, to, at: now, must_arrive, delivered: false });
        self.totals.sent += 1;
        Some(packet)
    }

    /// A packet came up to the application of a host.
    pub fn deliver(&mut self, at: HostId, packet: &[u8]) -> Result<(), Odd> {
        let number = number_of(packet).and_then(|n| usize::try_from(n).ok());
        let place = number.ok_or(Odd::Unknown)?.checked_sub(self.forgotten).ok_or(Odd::Old)?;
        let sent = self.sent.get_mut(place).ok_or(Odd::Unknown)?;
        if sent.to != at {
            return Err(Odd::Astray(sent.from, at));
        }
        if std::mem::replace(&mut sent.delivered, true) {
            return Err(Odd::Twice(sent.from, at));
        }
        self.totals.delivered += 1;
        Ok(())
    }

    /// Nothing that is under way must arrive any more.
    pub fn excuse_all(&mut self) {
        self.sent.range_mut(self.settled..).for_each(|sent| sent.must_arrive = false);
    }

    /// Nothing that is under way between these two must arrive any more.
    pub fn excuse(&mut self, a: HostId, b: HostId) {
        let between = |s: &&mut Sent| (s.from, s.to) == (a, b) || (s.from, s.to) == (b, a);
        self.sent
            .range_mut(self.settled..)
            .filter(between)
            .for_each(|sent| sent.must_arrive = false);
    }

    /// Packets that should have arrived: sent more than `patience` ago. Each is given once.
    pub fn overdue(&mut self, now: Instant, patience: Duration) -> Vec<Sent> {
        let rest = self.sent.range(self.settled..);
        let old = rest.take_while(|sent| now.since(sent.at) > patience).count();
        let settled = self.sent.range(self.settled..self.settled + old);
        let lost: Vec<_> = settled.filter(|s| s.must_arrive && !s.delivered).copied().collect();
        self.settled += old;
        self.totals.lost += lost.len() as u64;
        self.forget();
        lost
    }

    fn forget(&mut self) {
        let old = self.settled.saturating_sub(self.remembered);
        self.sent.drain(..old);
        self.settled -= old;
        self.forgotten += old;
    }

    /// Counts.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}

/// Whether these bytes show what only the receiver may see.
pub fn shows_plain_text(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, MARK).is_some()
}

fn number_of(packet: &[u8]) -> Option<u64> {
    let headers = ipsec::packet::parse(packet).ok()?;
    let payload = packet.get(headers.upper..)?.get(ipsec::packet::UDP_HEADER..)?;
    let number = payload.strip_prefix(MARK)?.first_chunk()?;
    Some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> ((HostId, IpAddr), (HostId, IpAddr)) {
        ((0, [10, 0, 0, 1].into()), (1, [10, 0, 0, 2].into()))
    }

    #[test]
    fn what_arrives_is_counted_once_and_what_does_not_is_missed_once() {
        let mut ledger = Ledger::default();
        let (from, to) = ends();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let arrives = ledger.send(at(0), from, to, true).unwrap();
        let lost = ledger.send(at(1), from, to, true).unwrap();
        assert!(shows_plain_text(&lost));
        assert_eq!(ledger.deliver(1, &arrives), Ok(()));
        assert_eq!(ledger.deliver(1, &arrives), Err(Odd::Twice(0, 1)));
        assert_eq!(ledger.deliver(2, &arrives), Err(Odd::Astray(0, 2)));
        assert_eq!(ledger.deliver(1, &arrives[1..]), Err(Odd::Unknown));
        let patience = Duration::from_secs(5);
        assert_eq!(ledger.overdue(at(5), patience).len(), 0);
        assert_eq!(ledger.overdue(at(7), patience).len(), 1);
        assert_eq!(ledger.overdue(at(9), patience).len(), 0);
        assert_eq!(ledger.totals(), Totals { sent: 2, delivered: 1, lost: 1 });
    }

    #[test]
    fn what_was_settled_long_ago_is_forgotten_and_does_not_come_back() {
        let mut ledger = Ledger::default();
        let (from, to) = ends();
        let first = ledger.send(Instant::ZERO, from, to, false).unwrap();
        (0..REMEMBERED).for_each(|_| drop(ledger.send(Instant::ZERO, from, to, false)));
        assert_eq!(ledger.overdue(Instant::NEVER, Duration::ZERO).len(), 0);
        assert_eq!((ledger.sent.len(), ledger.forgotten), (REMEMBERED, 1));
        let next = ledger.send(Instant::NEVER, from, to, true).unwrap();
        assert_eq!(ledger.deliver(1, &first), Err(Odd::Old));
        assert_eq!(ledger.deliver(1, &next), Ok(()));
    }

    #[test]
    fn what_is_excused_is_not_missed() {
        let mut ledger = Ledger::default();
        let (from, to) = ends();
        ledger.send(Instant::ZERO, from, to, true);
        ledger.excuse_all();
        assert!(ledger.overdue(Instant::NEVER, Duration::ZERO).is_empty());
    }
}
