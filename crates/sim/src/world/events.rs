//! What happens, and what follows from it.

use std::time::Duration;

use ipsec::Instant;
use mesh::{Event, Input, Kind};

use super::{BEGIN, Stopped, World};
use crate::host::{Effect, Wrong};
use crate::net::HostId;
use crate::oracle::Finding;
use crate::packet::Packet;
use crate::violation::What;

/// Between two housekeepings of a data plane.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Between two audits of all hosts.
const AUDIT: Duration = Duration::from_secs(1);
/// What is on the agenda, at most, for each pair of hosts …
const MOST_FOR_PAIR: usize = 100;
/// … and for the world.
const MOST: usize = 100_000;

/// Something that is to happen.
pub(super) enum Happening {
    /// A host boots.
    Boot(HostId),
    /// A daemon starts where the last one left off.
    Start(HostId),
    /// A packet arrives at a host.
    Arrive(HostId, Packet),
    /// What a host set going in this life comes back to it.
    Own(HostId, u32, Box<Input>),
    /// A host in this life wanted to be woken.
    Wake(HostId, u32),
    /// The data plane of a host since this boot looks after itself.
    Housekeep(HostId, u32),
    /// A host's applications send, if it is still this round.
    Talk(HostId, u32),
    /// The judge looks at all hosts.
    Audit,
}

impl World {
    /// Time passes until then.
    pub fn run_until(&mut self, until: Instant) -> Result<(), Stopped> {
        if !self.violations.is_empty() {
            return Err(Stopped);
        }
        while let Some((at, what)) = self.agenda.next_until(until) {
            self.now = at;
            self.events += 1;
            self.digest(at, &what);
            self.happen(what);
            if !self.violations.is_empty() {
                return Err(Stopped);
            }
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, what: Happening) {
        let now = self.now;
        let mut out = std::mem::take(&mut self.effects);
        let host = match what {
            Happening::Boot(id) => {
                self.boot(id, &mut out);
                id
            }
            Happening::Start(id) => {
                self.start(id, &mut out);
                id
            }
            Happening::Arrive(id, mut packet) => {
                if self.nats.get(&id).is_none_or(|nat| nat.back(now, &mut packet)) {
                    self.hosts[id].arrive(now, packet, &mut out);
                }
                id
            }
            Happening::Own(id, life, input) => {
                if self.hosts[id].life() == life {
                    self.hosts[id].input(now, *input, &mut out);
                }
                id
            }
            Happening::Wake(id, life) => {
                if self.hosts[id].life() == life {
                    self.hosts[id].wake(now, &mut out);
                }
                id
            }
            Happening::Housekeep(id, boot) => {
                if self.hosts[id].boots() == boot {
                    self.hosts[id].housekeep(now, &mut out);
                    self.agenda.enter(now + HOUSEKEEPING, Happening::Housekeep(id, boot));
                }
                id
            }
            Happening::Talk(id, round) => {
                if self.talk_round == round {
                    self.say(id, &mut out);
                }
                id
            }
            Happening::Audit => {
                self.audit();
                self.agenda.enter(now + AUDIT, Happening::Audit);
                0
            }
        };
        self.absorb(host, out);
    }

    fn boot(&mut self, id: HostId, out: &mut Vec<Effect>) {
        let loaded = self.fleet.loaded(id);
        self.hosts[id].boot(self.now, loaded, out);
        self.expect_housekeeping(id);
    }

    fn start(&mut self, id: HostId, out: &mut Vec<Effect>) {
        let (loaded, boots) = (self.fleet.loaded(id), self.hosts[id].boots());
        self.hosts[id].start_daemon(self.now, loaded, out);
        if self.hosts[id].boots() != boots {
            self.expect_housekeeping(id);
        }
    }

    fn expect_housekeeping(&mut self, id: HostId) {
        let first = self.now + self.dice.between(Duration::ZERO, HOUSEKEEPING);
        self.agenda.enter(first, Happening::Housekeep(id, self.hosts[id].boots()));
    }

    /// A host's applications send to all other hosts, in an order of their own.
    fn say(&mut self, from: HostId, out: &mut Vec<Effect>) {
        let Some(every) = self.talk_every else { return };
        let partners = std::mem::take(&mut self.partners[from]);
        let (thinned, round) = (self.thinned(every), self.said[from]);
        self.said[from] = round.wrapping_add(1);
        let mut led = 0;
        for to in partners.iter().copied() {
            if thinned == 1 || self.focus.contains(&from) || self.focus.contains(&to) {
                self.send(from, to, out);
            } else if leads(from, to) {
                led += 1;
                if led % thinned == round % thinned {
                    self.exchange(from, to, out);
                }
            }
        }
        self.partners[from] = partners;
        let pause = self.dice.between(every * 9 / 10, every * 11 / 10);
        self.agenda.enter(self.now + pause, Happening::Talk(from, self.talk_round));
    }

    /// Both hosts of a pair send: who is sent packets and sends none makes his peer ask whether he is there.
    fn exchange(&mut self, from: HostId, to: HostId, out: &mut Vec<Effect>) {
        self.send(from, to, out);
        let mut others = std::mem::take(&mut self.effects);
        self.send(to, from, &mut others);
        self.absorb(to, others);
    }

    /// A host's application sends one packet, if it is there and not silent.
    fn send(&mut self, from: HostId, to: HostId, out: &mut Vec<Effect>) {
        let exempt = self.exempt.contains(&(from.min(to), from.max(to)));
        let silent = self.muted.contains(&from) || exempt && self.exempt_are_silent;
        if silent || !self.hosts[from].is_up() {
            return;
        }
        let now = self.now;
        let faultless = self.insists && self.net.is_faultless(now, from, to);
        let ends = [from, to].map(|id| (id, self.fleet.address(id)));
        if let Some(packet) = self.ledger.send(now, ends[0], ends[1], faultless && !exempt) {
            self.hosts[from].send(now, packet, out);
        }
    }

    /// Carries out what follows, in order.
    pub(super) fn absorb(&mut self, host: HostId, mut effects: Vec<Effect>) {
        let (now, life) = (self.now, self.hosts[host].life());
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(packet) => self.transmit(host, packet),
                Effect::Deliver(packet) => self.deliver(host, &packet),
                Effect::Later(at, input) => {
                    self.agenda.enter(at, Happening::Own(host, life, Box::new(input)));
                }
                Effect::Wake(at) => self.agenda.enter(at, Happening::Wake(host, life)),
                Effect::Changed(batch) => {
                    self.oracle.on_change(now, &self.fleet, host, &batch);
                    self.recorder.changed(now, host, &batch, &self.fleet);
                }
                Effect::Report(event) => self.note(host, event),
                Effect::TookClear(packet) => self.took_clear(host, &packet),
                Effect::Wrong(wrong) => self.went_wrong(host, wrong),
            }
        }
        self.effects = effects;
        if self.agenda.len() > MOST + MOST_FOR_PAIR * self.hosts.len().pow(2) {
            let text = format!("{} events are to come", self.agenda.len());
            self.find(Finding { what: What::Overflow, host, peer: None, text });
        }
    }

    fn transmit(&mut self, from: HostId, mut packet: Packet) {
        // What goes to nobody of the fleet goes nowhere.
        let Some(to) = self.fleet.id(packet.dst) else { return };
        let (now, ends) = (self.now, (from, to));
        if self.nats.get_mut(&from).is_some_and(|nat| !nat.out(now, &mut packet)) {
            return;
        }
        self.overhear(to, &packet);
        let finding = self.oracle.on_link(now, &self.fleet, ends, &packet);
        // Of ESP there is too much to be remembered.
        let copy = (packet.class() != crate::packet::Class::Esp).then(|| packet.clone());
        let passage = self.net.send(now, from, to, packet);
        if let Some(packet) = copy {
            let arrivals = passage.arrivals.iter().map(|(at, _)| *at).collect();
            self.recorder.packet(now, ends, packet, arrivals);
        }
        if let Some(mtu) = passage.too_big {
            let dst = self.fleet.address(to);
            self.hosts[from].too_big(now, dst, mtu);
        }
        for (at, packet) in passage.arrivals {
            self.agenda.enter(at, Happening::Arrive(to, packet));
        }
        if let Some(finding) = finding {
            self.find(finding);
        }
    }

    fn deliver(&mut self, host: HostId, packet: &[u8]) {
        use crate::ledger::Odd;
        let (from, text) = match self.ledger.deliver(host, packet) {
            Ok(()) => return,
            // Errors that a data plane makes for its own applications, too big for instance.
            Err(Odd::Unknown) if is_icmp(packet) => return,
            Err(Odd::Unknown) => (None, "what no application sent was delivered".to_owned()),
            Err(Odd::Old) => (None, "a packet of long ago was delivered".to_owned()),
            Err(Odd::Twice(from, to)) => {
                (Some(from), format!("a packet from h{from} was delivered to h{to} twice"))
            }
            Err(Odd::Astray(from, to)) => {
                (Some(from), format!("a packet from h{from} went astray to h{to}"))
            }
        };
        self.find(Finding { what: What::WrongDelivery, host, peer: from, text });
    }

    fn took_clear(&mut self, host: HostId, packet: &Packet) {
        if self.fleet.protects(packet.src, packet.dst) {
            let text = format!("h{host} took in a packet that came in the clear");
            let peer = self.fleet.id(packet.src);
            self.find(Finding { what: What::Cleartext, host, peer, text });
        }
    }

    fn went_wrong(&mut self, host: HostId, wrong: Wrong) {
        let (what, text) = match wrong {
            Wrong::EndlessOutputs => (What::Spin, "one input has endless outputs".to_owned()),
            Wrong::Spins(why) => (What::Spin, format!("asks for the same instant again: {why}")),
            Wrong::DataPlane(text) => (What::DataPlane, text),
        };
        self.find(Finding { what, host, peer: None, text });
    }

    /// A daemon's report goes into the ladder of the pair; new keys open its messages.
    fn note(&mut self, host: HostId, event: Event) {
        let Some(peer) = event.peer.and_then(|peer| self.fleet.id(peer)) else { return };
        self.recorder.note(self.now, host, peer, event.text);
        if matches!(event.kind, Kind::IkeUp | Kind::IkeRekey) {
            let keys = self.hosts[host].ike_keys(self.fleet.address(peer));
            self.recorder.keys(host, peer, keys);
        }
    }

    /// Every event changes the digest of the run.
    fn digest(&mut self, at: Instant, what: &Happening) {
        let mut mix = |word: u64| {
            self.trace = (self.trace ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        };
        mix(at.since(BEGIN).as_nanos() as u64);
        match what {
            Happening::Boot(id) => mix(1 << 32 | *id as u64),
            Happening::Own(id, life, input) => {
                mix(2 << 32 | *id as u64);
                mix(u64::from(*life) << 8 | kind_of(input));
            }
            Happening::Wake(id, _) => mix(3 << 32 | *id as u64),
            Happening::Housekeep(id, _) => mix(4 << 32 | *id as u64),
            Happening::Talk(id, _) => mix(5 << 32 | *id as u64),
            Happening::Audit => mix(6 << 32),
            Happening::Start(id) => mix(8 << 32 | *id as u64),
            Happening::Arrive(id, packet) => {
                mix(7 << 32 | *id as u64);
                let (words, rest) = packet.bytes().as_chunks::<8>();
                words.iter().for_each(|word| mix(u64::from_be_bytes(*word)));
                if !rest.is_empty() {
                    let mut word = [0; 8];
                    word[..rest.len()].copy_from_slice(rest);
                    mix(u64::from_be_bytes(word));
                }
            }
        }
    }
}

/// Of two hosts that send to each other at once, each is the one that begins with half of all others.
fn leads(from: HostId, to: HostId) -> bool {
    (from < to) == (from + to).is_multiple_of(2)
}

fn kind_of(input: &Input) -> u64 {
    match input {
        Input::Journal(found) => 8 + ((found.len() as u64) << 4),
        Input::Datagram(_) => 1,
        Input::Manifest(_) => 2,
        Input::Applied(..) => 3,
        Input::Snapshot(snapshot) => 4 + ((snapshot.sas.len() as u64) << 4),
        Input::Kernel(_) => 5,
        Input::JobDone(id, _) => 6 + (id.0 << 4),
        Input::Tick => 7,
        Input::Orders(orders) => 9 + ((orders.len() as u64) << 4),
        Input::Addresses(own) => 10 + ((own.len() as u64) << 4),
    }
}

fn is_icmp(packet: &[u8]) -> bool {
    let protocol = ipsec::packet::parse(packet).map(|headers| headers.protocol);
    matches!(protocol, Ok(ipsec::packet::proto::ICMP | ipsec::packet::proto::ICMPV6))
}

#[cfg(test)]
mod tests {
    use super::leads;

    #[test]
    fn of_each_pair_one_host_leads_and_each_host_leads_with_half_of_the_others() {
        for hosts in [33, 200] {
            for a in 0..hosts {
                let others = || (0..hosts).filter(|b| *b != a);
                assert!(others().all(|b| leads(a, b) != leads(b, a)));
                let led = others().filter(|b| leads(a, *b)).count();
                assert!((hosts / 2 - 1..=hosts / 2 + 1).contains(&led), "h{a} leads with {led}");
            }
        }
    }
}
