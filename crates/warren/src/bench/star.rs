//! One host and many peers of it, all of them in this thread: the daemon's own logic and packet pipeline on each, real
//! cryptography, virtual time. What the host costs is measured apart from what its peers cost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::native::Native;
use ipsec::Instant;
use ipsec::change::{Batch, Change};
use ipsec::sa::SaKey;
use linux::clock::{thread_cpu, unix_now};
use mesh::status::Status;
use mesh::{Input, Loaded};
use sim::agenda::Agenda;
use sim::dice::Dice;
use sim::host::{Effect, Host, Pace};
use sim::packet::Packet;

use crate::load::{Accepted, Rejected};

/// The host in the middle. Its peers' addresses follow.
pub const HUB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where all of them are.
pub const SUBNET: &str = "10.96.0.0/16";
/// Of a packet, one way.
const WAY: Duration = Duration::from_micros(100);
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Nothing may depend on a clock that begins at zero.
const BEGIN: Instant = Instant::from_nanos(1_000_000_000);
const PORT: u16 = 9;
const SEED: u64 = 1;
/// The host in the list of all.
const MIDDLE: usize = 0;

/// CPU time since it was last asked for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Spent {
    /// Of the host in the middle.
    pub hub: Duration,
    /// Of all its peers.
    pub peers: Duration,
}

/// What is due.
enum Due {
    Input(Box<Input>),
    Arrive(Packet),
    Wake,
    Housekeep,
}

/// The hosts.
pub struct Star {
    hosts: Vec<Host>,
    agenda: Agenda<(usize, Due)>,
    now: Instant,
    spent: Spent,
    delivered: u64,
    changes: Vec<Batch>,
}

/// The address of a peer, counted from 1; of the host, 0.
pub fn address(index: usize) -> IpAddr {
    let offset = u32::try_from(index).unwrap_or(u32::MAX);
    Ipv4Addr::from(u32::from(HUB).saturating_add(offset)).into()
}

impl Star {
    /// All are on, and nobody has said anything yet. The first manifest is the host's, the second that of its peers.
    pub fn build([own, peers_own]: [&Accepted; 2], peers: usize) -> Result<Self, Rejected> {
        let unix = unix_now();
        let mut star = Self {
            hosts: Vec::with_capacity(peers + 1),
            agenda: Agenda::default(),
            now: BEGIN,
            spent: Spent::default(),
            delivered: 0,
            changes: Vec::new(),
        };
        for index in 0..=peers {
            let (name, dice) = (format!("host {index}"), Dice::new(SEED + index as u64, "star"));
            let pace =
                Pace { job: Duration::from_micros(20), kernel: Duration::ZERO, one_core: false };
            let mut host = Host::new(address(index), name, dice, pace, Arc::new(Native));
            host.set_unix(unix);
            host.set_unwatched();
            star.hosts.push(host);
            let manifest = if index == MIDDLE { own } else { peers_own };
            let loaded = manifest.for_host(address(index), &[])?;
            star.act(index, |host, now, out| host.boot(now, loaded, out));
            star.agenda.enter(star.now + HOUSEKEEPING, (index, Due::Housekeep));
        }
        Ok(star)
    }

    /// Each peer sends the host a packet.
    pub fn ask(&mut self, payload: &[u8]) {
        for index in 1..self.hosts.len() {
            let ends = (SocketAddr::new(address(index), PORT), SocketAddr::new(HUB.into(), PORT));
            let packet = ipsec::packet::udp(ends.0, ends.1, payload);
            self.act(index, |host, now, out| {
                packet.into_iter().for_each(|p| host.send(now, p, out))
            });
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((at, (index, due))) = self.agenda.next_until(until) {
            self.now = at;
            match due {
                Due::Input(input) => self.act(index, |host, now, out| host.input(now, *input, out)),
                Due::Arrive(packet) => {
                    self.act(index, |host, now, out| host.arrive(now, packet, out));
                }
                Due::Wake => self.act(index, |host, now, out| host.wake(now, out)),
                Due::Housekeep => {
                    self.agenda.enter(at + HOUSEKEEPING, (index, Due::Housekeep));
                    self.act(index, |host, now, out| host.housekeep(now, out));
                }
            }
        }
        self.now = until;
    }

    /// Lets time pass until the host has one pair of SAs with each peer; whether that came within the limit.
    pub fn settle(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        while self.now < end {
            self.pass(Duration::from_millis(100));
            if self.sas().len() == 2 * (self.hosts.len() - 1) {
                return true;
            }
        }
        false
    }

    /// The host reads a new manifest; what it changed in the data plane.
    pub fn reload(&mut self, loaded: Loaded) -> Vec<Change> {
        self.changes.clear();
        let input = Input::Manifest(Box::new(loaded));
        self.act(MIDDLE, |host, now, out| host.input(now, input, out));
        std::mem::take(&mut self.changes).into_iter().flat_map(|batch| batch.0).collect()
    }

    /// The SAs in the host's data plane.
    pub fn sas(&self) -> Vec<SaKey> {
        self.hosts[MIDDLE].sas().iter().map(|entry| entry.sa.key()).collect()
    }

    /// What the host says of itself and its peers.
    pub fn status(&self) -> Option<Status> {
        self.hosts[MIDDLE].status(self.now)
    }

    /// Packets that came to the host.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// CPU time since this was last called.
    pub fn spent(&mut self) -> Spent {
        std::mem::take(&mut self.spent)
    }

    /// All but the host is gone, with what was on its way.
    pub fn alone(&mut self) {
        self.hosts.truncate(1);
        self.hosts.shrink_to_fit();
        self.agenda = Agenda::default();
    }

    fn act(&mut self, index: usize, what: impl FnOnce(&mut Host, Instant, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let before = thread_cpu();
        what(&mut self.hosts[index], self.now, &mut effects);
        let used = thread_cpu().saturating_sub(before);
        *if index == MIDDLE { &mut self.spent.hub } else { &mut self.spent.peers } += used;
        for effect in effects {
            self.follow(index, effect);
        }
    }

    fn follow(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Send(packet) => {
                if let Some(to) = self.index(packet.dst) {
                    self.agenda.enter(self.now + WAY, (to, Due::Arrive(packet)));
                }
            }
            Effect::Later(at, input) => {
                self.agenda.enter(at.max(self.now), (index, Due::Input(input.into())));
            }
            Effect::Wake(at) => self.agenda.enter(at.max(self.now), (index, Due::Wake)),
            Effect::Deliver(_) => self.delivered += u64::from(index == MIDDLE),
            Effect::Changed(batch) if index == MIDDLE => self.changes.push(batch),
            Effect::Changed(_) | Effect::Report(_) | Effect::TookClear(_) | Effect::Wrong(_) => {}
        }
    }

    fn index(&self, address: IpAddr) -> Option<usize> {
        let IpAddr::V4(address) = address else { return None };
        let index = u32::from(address).checked_sub(u32::from(HUB))? as usize;
        (index < self.hosts.len()).then_some(index)
    }
}
