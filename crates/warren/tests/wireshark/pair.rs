//! Two hosts on virtual time with real cryptography; what they send is captured, and the keys that
//! the first of them has are collected.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::native::Native;
use ike::endpoint::{Datagram, EndpointConfig, ExportedKeys};
use ike::{Directory, Done, Endpoint, Event, JobId, Now, Output, PeerConfig};
use ipsec::Instant;
use ipsec::change::{Batch, Change};
use ipsec::pipeline::{Emit, OuterInfo, Pipeline};
use ipsec::sa::Sa;
use ipsec::spd::{Action, Flow, Policy, PolicySelector};

use super::capture::Capture;
use super::lines::{self, Tables};

const DELAY: Duration = Duration::from_millis(5);
const UNIX: u64 = 1_800_000_000;

/// Both hosts and the wire.
pub struct Pair {
    pub hosts: [Host; 2],
    pub capture: Capture,
    now: Instant,
    due: BTreeMap<(Instant, u64), Item>,
    serial: u64,
    ike: BTreeMap<[u64; 2], ExportedKeys>,
    esp: Vec<Sa>,
}

/// One of them.
pub struct Host {
    pub endpoint: Endpoint,
    pub events: Vec<Event>,
    peer: Peer,
    plane: Pipeline,
}

/// The one host that a host knows.
struct Peer {
    config: Arc<PeerConfig>,
    known: bool,
}

enum Item {
    Datagram(usize, Datagram),
    Done(usize, JobId, Done),
}

impl Pair {
    /// With `cookies` the second host takes the first for a stranger under load.
    pub fn new(a: PeerConfig, b: PeerConfig, cookies: bool) -> Self {
        Self {
            hosts: [Host::new(1, a, false), Host::new(2, b, cookies)],
            capture: Capture::new(),
            now: Instant::from_nanos(1_000_000_000),
            due: BTreeMap::new(),
            serial: 0,
            ike: BTreeMap::new(),
            esp: Vec::new(),
        }
    }

    /// Something is asked of a host's endpoint, and everything that follows of it is done.
    pub fn command<R>(&mut self, n: usize, f: impl FnOnce(&mut Endpoint, Now) -> R) -> R {
        let now = self.clock();
        let result = f(&mut self.hosts[n].endpoint, now);
        self.drain(n);
        self.run(Duration::from_secs(8));
        result
    }

    /// The first host initiates.
    pub fn initiate(&mut self) {
        let config = self.hosts[0].peer.config.clone();
        self.command(0, |endpoint, now| endpoint.initiate(now, config));
    }

    /// Every one of these packets goes to the other host through an SA, and arrives.
    pub fn send(&mut self, from: usize, packets: &[Vec<u8>]) {
        for packet in packets {
            let mut sent = Vec::new();
            self.hosts[from].plane.outbound(self.now, &mut packet.clone(), &mut sent);
            let [emit @ (Emit::Esp(esp) | Emit::EspInUdp { packet: esp, .. })] = &sent[..] else {
                panic!("{sent:?}");
            };
            self.capture.packet(self.now, &emit.to_ip().unwrap());
            let mut got = Vec::new();
            let info = OuterInfo::of(emit).unwrap();
            self.hosts[1 - from].plane.inbound(self.now, info, &mut esp.esp.clone(), &mut got);
            assert_eq!(got, [Emit::Deliver(packet.clone())]);
        }
    }

    /// What the first host would have exported, had it been asked after each step.
    pub fn tables(&self) -> Tables {
        let ike: Vec<_> = self.ike.values().map(copy).collect();
        lines::tables(&ike, &self.esp)
    }

    fn clock(&self) -> Now {
        Now { at: self.now, unix: UNIX }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next_due().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn next_due(&self) -> Option<Instant> {
        let timers = self.hosts.iter().filter_map(|h| h.endpoint.next_timeout()).map(|(at, _)| at);
        timers.chain(self.due.keys().next().map(|(at, _)| *at)).min()
    }

    fn step(&mut self) {
        let now = self.clock();
        if let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now.at) {
            let n = match entry.remove() {
                Item::Datagram(n, datagram) => {
                    let host = &mut self.hosts[n];
                    host.endpoint.datagram(now, datagram, &host.peer);
                    n
                }
                Item::Done(n, id, done) => {
                    let host = &mut self.hosts[n];
                    host.endpoint.job_done(now, id, done);
                    n
                }
            };
            return self.drain(n);
        }
        for n in 0..2 {
            self.hosts[n].endpoint.tick(now);
            self.drain(n);
        }
    }

    fn drain(&mut self, n: usize) {
        while let Some(output) = self.hosts[n].endpoint.poll() {
            match output {
                Output::Job(job) => {
                    let done = job.work.run(&Native);
                    self.later(Item::Done(n, job.id, done));
                }
                Output::Transmit(datagram) => {
                    self.capture.datagram(self.now, &datagram);
                    let Datagram { local, remote, bytes } = datagram;
                    let arrived = Datagram { local: remote, remote: local, bytes };
                    self.later(Item::Datagram(1 - n, arrived));
                }
                Output::Event(event) => self.event(n, event),
            }
        }
        if n == 0 {
            self.collect_ike_keys();
        }
    }

    fn event(&mut self, n: usize, event: Event) {
        let change = match &event {
            Event::InstallInbound { sa, .. } | Event::InstallOutbound { sa, .. } => {
                if n == 0 {
                    self.esp.push((**sa).clone());
                }
                vec![Change::AddSa(sa.clone())]
            }
            Event::RemoveOutbound { key, .. } => vec![Change::RemoveSa(*key)],
            Event::ChildDown { remove, .. } => {
                remove.iter().map(|k| Change::RemoveSa(*k)).collect()
            }
            _ => Vec::new(),
        };
        assert_eq!(self.hosts[n].plane.apply(self.now, &Batch(change)), []);
        self.hosts[n].events.push(event);
    }

    fn collect_ike_keys(&mut self) {
        let endpoint = &self.hosts[0].endpoint;
        let half_open = endpoint.half_open().into_iter().map(|(id, ..)| id);
        let ids = endpoint.ike_sas().into_iter().map(|sa| sa.id).chain(half_open);
        for keys in ids.filter_map(|id| endpoint.export_keys(id)) {
            self.ike.insert([keys.spi_i.0, keys.spi_r.0], keys);
        }
    }

    fn later(&mut self, item: Item) {
        self.serial += 1;
        self.due.insert((self.now + DELAY, self.serial), item);
    }
}

impl Host {
    fn new(seed: u8, config: PeerConfig, cookies: bool) -> Self {
        let cookie_threshold = if cookies { 0 } else { 10 };
        let limits = EndpointConfig {
            cookie_threshold,
            max_half_open: 100,
            max_ike_sas: 100,
            max_sas_of_peer: 64,
            max_children: 10,
        };
        let plane = Pipeline::new(Arc::new(Native));
        let child = &config.child;
        let action = Action::Protect { mode: child.mode, reqid: child.reqid, optional: false };
        let selector = PolicySelector {
            local: child.local_ts[0].start.into(),
            remote: child.remote_ts[0].start.into(),
            protocol: None,
            local_ports: None,
            remote_ports: None,
        };
        let policies = [Flow::In, Flow::Out]
            .map(|flow| Change::PutPolicy(Policy { priority: 1, flow, selector, action }));
        assert_eq!(plane.apply(Instant::ZERO, &Batch(policies.to_vec())), []);
        Self {
            endpoint: Endpoint::new(limits, Arc::new(Native), [seed; 32]),
            events: Vec::new(),
            peer: Peer { config: Arc::new(config), known: !cookies },
            plane,
        }
    }
}

impl Directory for Peer {
    fn responder(&self, local: IpAddr, remote: SocketAddr) -> Option<Arc<PeerConfig>> {
        let fits = local == self.config.local && remote.ip() == self.config.remote;
        fits.then(|| self.config.clone())
    }

    fn is_known(&self, _: IpAddr) -> bool {
        self.known
    }
}

fn copy(keys: &ExportedKeys) -> ExportedKeys {
    ExportedKeys {
        sk_ei: keys.sk_ei.clone(),
        sk_er: keys.sk_er.clone(),
        sk_ai: keys.sk_ai.clone(),
        sk_ar: keys.sk_ar.clone(),
        ..*keys
    }
}
