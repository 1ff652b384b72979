//! The judge. Knows the manifest, and looks at links and data planes; believes no daemon.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ipsec::Instant;
use ipsec::change::{Batch, Change};
use ipsec::sa::{Direction, Sa, SaKey};
use ipsec::sad::Entry;

use wire::registry::ExchangeType;

use crate::fleet::Fleet;
use crate::host::SasMark;
use crate::net::HostId;
use crate::packet::{Body, Packet};
use crate::survey::{Held, Row, Survey};
use crate::violation::What;

/// IKE messages that two hosts may exchange within [`WINDOW`], both ways together: two handshakes
/// and a rekey of each kind, every message sent several times.
pub const MOST_MESSAGES: u32 = 100;
/// Over which messages are counted.
pub const WINDOW: Duration = Duration::from_secs(10);
/// SAs of one direction that one host may ever hold for one peer, faults or not.
pub const MOST_SAS: usize = 8;
/// Data planes notice the end of a lifetime this late.
const NOTICE: Duration = Duration::from_secs(2);

/// The SA that was replaced may stay for so long beside its successor: packets may be under way.
const HANDOVER: Duration = Duration::from_secs(7);

/// What the judge remembers.
#[derive(Default)]
pub struct Oracle {
    /// When an SA was installed, by host.
    born: BTreeMap<HostId, HashMap<(Direction, SaKey), Instant>>,
    talk: HashMap<(HostId, HostId), Talk>,
    /// By host.
    audited: Vec<Audited>,
    counts: Counts,
    tally: Tally,
    storms_allowed: bool,
}

/// What was seen on the links.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Cleartext packets between hosts whose traffic is protected.
    pub cleartext: u64,
    /// ESP packets.
    pub esp: u64,
    /// IKE messages.
    pub ike: u64,
}

/// What was done so far for each pair, from whom to whom: two of them show whom something touched.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// IKE_SA_INIT and IKE_AUTH messages sent, repeats included.
    pub handshakes: BTreeMap<(HostId, HostId), u64>,
    /// SAs installed.
    pub installed: BTreeMap<(HostId, HostId), u64>,
}

impl Tally {
    /// A pair, among these, that got SAs since.
    pub fn renegotiated(
        &self,
        since: &Self,
        among: impl Fn(HostId, HostId) -> bool,
    ) -> Option<(HostId, HostId)> {
        grown(&since.installed, &self.installed, among)
    }

    /// A pair between which messages of handshakes were sent since.
    pub fn shook_hands(&self, since: &Self) -> Option<(HostId, HostId)> {
        grown(&since.handshakes, &self.handshakes, |_, _| true)
    }
}

fn grown(
    old: &BTreeMap<(HostId, HostId), u64>,
    new: &BTreeMap<(HostId, HostId), u64>,
    among: impl Fn(HostId, HostId) -> bool,
) -> Option<(HostId, HostId)> {
    let more = |pair: &(HostId, HostId), n: &u64| old.get(pair).copied().unwrap_or(0) < *n;
    let mut touched = new.iter().filter(|((a, b), _)| among(*a, *b));
    touched.find(|(pair, n)| more(pair, n)).map(|(pair, _)| *pair)
}

/// What is wrong, and between whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What it is.
    pub what: What,
    /// A host.
    pub host: HostId,
    /// Its peer, if it concerns a pair.
    pub peer: Option<HostId>,
    /// In words.
    pub text: String,
}

/// All was well with a host.
#[derive(Clone, Copy, Default)]
struct Audited {
    /// With the SAs that it had then.
    mark: Option<SasMark>,
    holds_until: Instant,
}

#[derive(Default)]
struct Talk {
    since: Instant,
    messages: u32,
}

impl Finding {
    /// Of a pair.
    pub fn pair(what: What, host: HostId, peer: HostId, text: impl Into<String>) -> Self {
        Self { what, host, peer: Some(peer), text: text.into() }
    }
}

impl Oracle {
    /// What was seen so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was done so far for each pair.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether somebody else makes the storms.
    pub fn allow_storms(&mut self, allowed: bool) {
        self.storms_allowed = allowed;
        self.talk.clear();
    }

    /// A packet sets out on a link.
    pub fn on_link(
        &mut self,
        now: Instant,
        fleet: &Fleet,
        (from, to): (HostId, HostId),
        packet: &Packet,
    ) -> Option<Finding> {
        match &packet.body {
            Body::Ike { .. } => self.on_ike(now, from, to, packet),
            Body::Esp { bytes, .. } => {
                self.counts.esp += 1;
                let readable = crate::ledger::shows_plain_text(bytes);
                readable.then(|| self.clear(from, to, "an ESP packet shows its plain text"))
            }
            Body::Clear(_) => fleet
                .protects(packet.src, packet.dst)
                .then(|| self.clear(from, to, "a packet left in the clear")),
        }
    }

    /// A data plane was changed.
    pub fn on_change(&mut self, now: Instant, fleet: &Fleet, host: HostId, batch: &Batch) {
        for change in &batch.0 {
            match change {
                Change::AddSa(sa) => {
                    let far = if sa.direction == Direction::In { sa.src } else { sa.dst };
                    if let Some(peer) = fleet.id(far) {
                        *self.tally.installed.entry((host, peer)).or_default() += 1;
                    }
                    let born = self.born.entry(host).or_default();
                    born.entry((sa.direction, sa.key())).or_insert(now);
                }
                Change::RemoveSa(key) => {
                    let born = self.born.entry(host).or_default();
                    born.remove(&(Direction::In, *key));
                    born.remove(&(Direction::Out, *key));
                }
                _ => {}
            }
        }
    }

    /// How many of one host's SAs, of one direction and with one peer, are not just being handed
    /// over to a successor.
    pub fn standing(&self, now: Instant, host: HostId, sas: &[Arc<Entry>]) -> usize {
        let born = |sa: &Arc<Entry>| self.born_at(host, &sa.sa).unwrap_or(Instant::ZERO);
        let mut births: Vec<_> = sas.iter().map(born).collect();
        births.sort_unstable();
        let handed_over = |next: &&Instant| now.since(**next) < HANDOVER;
        births.len() - births.iter().skip(1).filter(handed_over).count()
    }

    /// A host lost everything.
    pub fn on_crash(&mut self, host: HostId) {
        self.born.remove(&host);
    }

    fn born_at(&self, host: HostId, sa: &Sa) -> Option<Instant> {
        self.born.get(&host)?.get(&(sa.direction, sa.key())).copied()
    }

    /// What must hold at any time, chaos or not. What did hold is looked at again when it has changed, or time may
    /// have undone it.
    pub fn audit(&mut self, now: Instant, fleet: &Fleet, survey: &Survey) -> Option<Finding> {
        self.audited.resize(survey.rows().len(), Audited::default());
        for (host, row) in survey.rows().iter().enumerate() {
            let known = self.audited[host];
            if known.mark == row.mark() && now <= known.holds_until {
                continue;
            }
            match self.audit_host(now, fleet, host, row) {
                Ok(holds_until) => self.audited[host] = Audited { mark: row.mark(), holds_until },
                Err(finding) => return Some(finding),
            }
        }
        None
    }

    /// Until when all is well with a host if nothing changes.
    fn audit_host(
        &self,
        now: Instant,
        fleet: &Fleet,
        host: HostId,
        row: &Row,
    ) -> Result<Instant, Finding> {
        let mut until = Instant::NEVER;
        for (peer, held) in row.iter() {
            until = until.min(self.audit_lifetimes(now, fleet, (host, peer), held)?);
            let most = held.inbound.len().max(held.outbound.len());
            if most > MOST_SAS {
                let text = format!("h{host} holds {most} SAs of one direction for h{peer}");
                return Err(Finding::pair(What::ChildSas, host, peer, text));
            }
        }
        Ok(until)
    }

    fn audit_lifetimes(
        &self,
        now: Instant,
        fleet: &Fleet,
        (host, peer): (HostId, HostId),
        held: &Held,
    ) -> Result<Instant, Finding> {
        let found = |text| Err(Finding::pair(What::OutlivedLifetime, host, peer, text));
        let lifetime = fleet.manifest().lifetimes.child;
        let longest = (lifetime * 3 / 2).max(lifetime + Duration::from_secs(10));
        let mut until = Instant::NEVER;
        for entry in held.inbound.iter().chain(&held.outbound) {
            let spi = entry.sa.spi;
            let Some(hard) = entry.sa.limits.hard_time else {
                return found(format!("SA {spi} of h{host} lives for ever"));
            };
            if hard > longest {
                return found(format!("SA {spi} of h{host} may live {hard:?}"));
            }
            let Some(born) = self.born_at(host, &entry.sa) else { continue };
            let age = now.since(born);
            if age > hard + NOTICE {
                return found(format!("SA {spi} of h{host} is {age:?} old, more than {hard:?}"));
            }
            until = until.min(born + hard + NOTICE);
        }
        Ok(until)
    }

    fn on_ike(
        &mut self,
        now: Instant,
        from: HostId,
        to: HostId,
        packet: &Packet,
    ) -> Option<Finding> {
        if crate::ledger::shows_plain_text(packet.bytes()) {
            return Some(self.clear(from, to, "a packet of the daemon shows plain text"));
        }
        self.counts.ike += 1;
        let header =
            packet.ike_message().and_then(|bytes| wire::message::Header::parse(bytes).ok());
        let exchange = header.map(|header| header.exchange);
        if matches!(exchange, Some(ExchangeType::IKE_SA_INIT | ExchangeType::IKE_AUTH)) {
            *self.tally.handshakes.entry((from, to)).or_default() += 1;
        }
        let talk = self.talk.entry((from.min(to), from.max(to))).or_default();
        if now.since(talk.since) >= WINDOW {
            *talk = Talk { since: now, messages: 0 };
        }
        talk.messages += 1;
        let text = format!("{} IKE messages within {WINDOW:?}", talk.messages);
        (talk.messages > MOST_MESSAGES && !self.storms_allowed)
            .then(|| Finding::pair(What::Storm, from, to, text))
    }

    fn clear(&mut self, from: HostId, to: HostId, text: &str) -> Finding {
        self.counts.cleartext += 1;
        Finding::pair(What::Cleartext, from, to, text)
    }
}
