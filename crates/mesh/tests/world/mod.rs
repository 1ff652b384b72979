//! A few hosts on virtual time: the real mesh, the real IKE, the real ESP, toy cryptography.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::toy::Toy;
use ike::endpoint::{Datagram, EndpointConfig};
use ike::rng::Rng;
use ike::{Auth, Done, JobId, Now, Provider, Secret};
use ipsec::Instant;
use ipsec::change::{Batch, Change, Refusal, RefusalReason};
use ipsec::dataplane::Dataplane;
use ipsec::memory::Memory;
use ipsec::pipeline::{Emit, OuterInfo, OuterPacket};
use mesh::journal::Key;
use mesh::manifest::{Manifest, NoFiles};
use mesh::plan::Plan;
use mesh::status::{DataPlane, PeerStatus, State};
use mesh::{Command, Event, Identity, Input, Kind, Loaded, Mesh, Output, Target};

pub const PSK: &str = "correct horse battery staple";
const UNIX: u64 = 1_800_000_000;
const LINK: Duration = Duration::from_millis(1);
const WORK: Duration = Duration::from_millis(2);

pub struct World {
    pub now: Instant,
    pub hosts: Vec<Host>,
    /// Directed links that carry nothing.
    pub cut: BTreeSet<(usize, usize)>,
    /// Per cent of datagrams and packets lost on every link.
    pub loss: u64,
    /// Whether cleartext was seen between hosts.
    pub clear: u64,
    pub datagrams: Vec<(Instant, usize)>,
    /// Those to addresses that no host has.
    pub nowhere: Vec<Datagram>,
    due: BTreeMap<(Instant, u64), Thing>,
    next: u64,
    chance: Rng,
}

pub struct Host {
    pub mesh: Mesh,
    pub plane: Memory,
    pub address: IpAddr,
    /// Others that lead to it.
    pub also: Vec<IpAddr>,
    /// Payloads that arrived, decrypted.
    pub got: Vec<Vec<u8>>,
    pub events: Vec<(Instant, Event)>,
    /// Which of the changes asked of its data plane are refused.
    pub fault: Option<Fault>,
    /// How long a job takes where they are done one after the other, and when the last of them is done.
    pub worker: Option<(Duration, Instant)>,
    /// What its process wrote for the next one.
    pub journal: BTreeMap<Key, Secret>,
    boot: u32,
    wake: Instant,
}

/// Asked of every change, numbered from 0 since it was set.
pub struct Fault {
    pub asked: usize,
    pub refuse: Judge,
}

type Judge = Box<dyn Fn(usize, &Change) -> Option<RefusalReason>>;

impl Fault {
    pub fn new(refuse: impl Fn(usize, &Change) -> Option<RefusalReason> + 'static) -> Option<Self> {
        Some(Self { asked: 0, refuse: Box::new(refuse) })
    }

    fn judge(&mut self, change: &Change) -> Option<RefusalReason> {
        self.asked += 1;
        (self.refuse)(self.asked - 1, change)
    }
}

enum Thing {
    Datagram(Datagram),
    Packet(OuterPacket, Option<SocketAddr>),
    Done(IpAddr, u32, JobId, Done),
    Wake(usize),
    Second,
}

pub fn address(host: usize) -> IpAddr {
    [10, 0, 0, host as u8 + 1].into()
}

pub fn target(host: usize) -> Target {
    Target::Address(address(host))
}

pub fn manifest(more: &str) -> String {
    format!("ipsec_subnets: [10.0.0.0/24]\npsk: {PSK}\n{more}")
}

pub fn loaded(text: &str, host: usize) -> Loaded {
    loaded_with(text, host, PSK)
}

pub fn loaded_with(text: &str, host: usize, psk: &str) -> Loaded {
    let (manifest, _) =
        Manifest::parse("ipsec.yml", text, &NoFiles).unwrap_or_else(|e| panic!("{e}"));
    Loaded {
        path: "/etc/warren/ipsec.yml".into(),
        sha256: "00".repeat(32),
        plan: Plan::for_host(&manifest, address(host)).unwrap(),
        auth: Auth::Psk(Secret::new(psk.as_bytes().to_vec()).into()),
        prefer_encap: false,
        certificates: Vec::new(),
    }
}

fn new_mesh(host: usize, boot: u32, now: Now) -> Mesh {
    mesh_with(host, boot, now, mesh::mesh::LIMITS)
}

fn mesh_with(host: usize, boot: u32, now: Now, limits: EndpointConfig) -> Mesh {
    let identity = Identity {
        address: address(host),
        name: format!("host-{host}"),
        version: "0.1.0".into(),
        data_plane: DataPlane::Userspace,
    };
    let mut seed = [host as u8 + 1; 32];
    seed[..4].copy_from_slice(&boot.to_be_bytes());
    Mesh::with_limits(identity, Arc::new(Toy), seed, now, limits)
}

impl World {
    /// Hosts with one manifest.
    pub fn new(hosts: usize, manifest: &str) -> Self {
        let mut world = Self::bare(hosts, 0);
        for host in 0..hosts {
            world.load(host, loaded(manifest, host));
        }
        world
    }

    /// Hosts without a manifest; `boot` varies their randomness.
    pub fn bare(hosts: usize, boot: u32) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let host = |n| Host {
            mesh: new_mesh(n, boot, Now { at: now, unix: UNIX }),
            plane: Memory::new(Arc::new(Toy)),
            address: address(n),
            also: Vec::new(),
            got: Vec::new(),
            events: Vec::new(),
            fault: None,
            worker: None,
            journal: BTreeMap::new(),
            boot,
            wake: Instant::NEVER,
        };
        let mut world = Self {
            now,
            hosts: (0..hosts).map(host).collect(),
            cut: BTreeSet::new(),
            loss: 0,
            clear: 0,
            datagrams: Vec::new(),
            nowhere: Vec::new(),
            due: BTreeMap::new(),
            next: 0,
            chance: Rng::new([(boot % 251) as u8; 32]),
        };
        world.at(now, Thing::Second);
        world
    }

    /// A host without a manifest becomes one that makes a single child SA for each IKE SA (RFC 7815).
    pub fn make_minimal(&mut self, host: usize) {
        self.limit(host, EndpointConfig { max_children: 1, ..mesh::mesh::LIMITS });
    }

    /// The host starts anew with this room for SAs.
    pub fn limit(&mut self, host: usize, limits: EndpointConfig) {
        self.hosts[host].mesh = mesh_with(host, 0, self.clock(), limits);
    }

    pub fn load(&mut self, host: usize, loaded: Loaded) {
        self.input(host, Input::Manifest(Box::new(loaded)));
    }

    pub fn load_all(&mut self, manifest: &str) {
        for host in 0..self.hosts.len() {
            self.load(host, loaded(manifest, host));
        }
    }

    pub fn command(&mut self, host: usize, command: Command) {
        let now = self.clock();
        self.hosts[host].mesh.command(now, command).unwrap();
        self.carry_out(host);
    }

    /// The host loses everything and starts anew.
    pub fn reboot(&mut self, host: usize, manifest: &str) {
        let boot = self.hosts[host].boot + 1000;
        self.hosts[host].boot = boot;
        self.hosts[host].mesh = new_mesh(host, boot, self.clock());
        self.hosts[host].plane = Memory::new(Arc::new(Toy));
        self.load(host, loaded(manifest, host));
    }

    /// Another process takes over; the data plane loses its SAs, or lives on.
    pub fn restart(&mut self, host: usize, manifest: &str, data_plane_lives: bool) {
        let boot = self.hosts[host].boot + 1000;
        self.hosts[host].boot = boot;
        let orders = self.hosts[host].mesh.orders();
        self.hosts[host].mesh = new_mesh(host, boot, self.clock());
        if !data_plane_lives {
            self.hosts[host].plane = Memory::new(Arc::new(Toy));
        }
        let found = self.hosts[host].journal.clone().into_iter().collect();
        self.input(host, Input::Journal(found));
        self.input(host, Input::Orders(orders));
        self.load(host, loaded(manifest, host));
    }

    /// One UDP packet of an application.
    pub fn send(&mut self, from: usize, to: usize, payload: &[u8]) {
        let end = |host| SocketAddr::new(address(host), 7777);
        let packet = ipsec::packet::udp(end(from), end(to), payload).unwrap();
        let emits = self.hosts[from].plane.send(self.now, packet);
        self.emit(from, emits);
        self.plane_events(from);
    }

    /// The first two hosts send to each other so many times, every 10 ms; how many times that was.
    pub fn chat(&mut self, times: usize) -> usize {
        for _ in 0..times {
            self.send(0, 1, b"ping");
            self.send(1, 0, b"ping");
            self.run(Duration::from_millis(10));
        }
        times
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((&(at, n), _)) = self.due.first_key_value() {
            if at > end {
                break;
            }
            let thing = self.due.remove(&(at, n)).unwrap();
            self.now = self.now.max(at);
            self.happen(thing);
        }
        self.now = end;
    }

    pub fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    pub fn clock(&self) -> Now {
        Now { at: self.now, unix: UNIX + self.now.as_nanos() / 1_000_000_000 }
    }

    pub fn peer(&self, host: usize, peer: usize) -> PeerStatus {
        self.hosts[host].mesh.peer_status(self.clock(), &target(peer)).unwrap()
    }

    pub fn state(&self, host: usize, peer: usize) -> State {
        self.peer(host, peer).state
    }

    pub fn count(&self, host: usize, kind: Kind) -> usize {
        self.hosts[host].events.iter().filter(|(_, e)| e.kind == kind).count()
    }

    /// What host `a` told of `b`, the last of it.
    pub fn story(&self, a: usize, b: usize) -> String {
        let about =
            |e: &&(Instant, Event)| e.1.peer == Some(address(b)) && e.1.kind != Kind::Dropped;
        let events: Vec<_> = self.hosts[a].events.iter().filter(about).collect();
        let last = events.iter().rev().take(40).rev();
        last.map(|(at, e)| format!("{at} {:?} {}\n", e.kind, e.text)).collect()
    }

    /// SPIs of the child SA, sorted, if there is exactly one IKE SA and one child SA.
    pub fn single(&self, host: usize, peer: usize) -> [String; 2] {
        let status = self.peer(host, peer);
        assert_eq!(status.state, State::Up, "{host} -> {peer}: {status:#?}");
        assert_eq!(
            (status.ike_sas.len(), status.child_sas.len()),
            (1, 1),
            "{host} -> {peer}: {status:#?}\n{}---\n{}",
            self.story(host, peer),
            self.story(peer, host)
        );
        let mut spis = [status.child_sas[0].spi_in.clone(), status.child_sas[0].spi_out.clone()];
        spis.sort();
        spis
    }

    /// Exactly one tunnel, the same at both ends; nothing wrong was ever asked of a data plane.
    pub fn assert_one_tunnel(&self, a: usize, b: usize) {
        assert_eq!(self.single(a, b), self.single(b, a));
        for host in [a, b] {
            assert_eq!(self.hosts[host].plane.violations(), []);
        }
    }

    fn at(&mut self, at: Instant, thing: Thing) {
        self.next += 1;
        self.due.insert((at, self.next), thing);
    }

    pub fn input(&mut self, host: usize, input: Input) {
        let now = self.clock();
        self.hosts[host].mesh.handle(now, input);
        self.carry_out(host);
    }

    fn happen(&mut self, thing: Thing) {
        match thing {
            Thing::Datagram(d) => {
                if let Some(host) = self.host_of(d.local.ip()) {
                    self.input(host, Input::Datagram(d));
                }
            }
            Thing::Packet(packet, udp) => self.arrive(packet, udp),
            Thing::Done(address, boot, id, done) => {
                let host = self.host_of(address).unwrap();
                if self.hosts[host].boot == boot {
                    self.input(host, Input::JobDone(id, done));
                }
            }
            Thing::Wake(host) if self.hosts[host].wake <= self.now => self.input(host, Input::Tick),
            Thing::Wake(_) => {}
            Thing::Second => {
                for host in 0..self.hosts.len() {
                    let emits = self.hosts[host].plane.tick(self.now);
                    self.emit(host, emits);
                    self.plane_events(host);
                }
                self.at(self.now + Duration::from_secs(1), Thing::Second);
            }
        }
    }

    fn carry_out(&mut self, host: usize) {
        loop {
            match self.hosts[host].mesh.poll() {
                Output::Apply(batch) => {
                    let refusals = self.apply(host, &batch);
                    if !refusals.is_empty() {
                        let now = self.clock();
                        self.hosts[host].mesh.handle(now, Input::Applied(batch, refusals));
                    }
                }
                Output::Journal(key, Some(record)) => {
                    self.hosts[host].journal.insert(key, record);
                }
                Output::Journal(key, None) => {
                    self.hosts[host].journal.remove(&key).expect("what is forgotten was written");
                }
                Output::Transmit(d) => self.transmit(host, d),
                Output::Job(job) => {
                    let provider: &dyn Provider = &Toy;
                    let done = job.work.run(provider);
                    let (address, boot) = (self.hosts[host].address, self.hosts[host].boot);
                    let at = match &mut self.hosts[host].worker {
                        Some((each, last)) => {
                            *last = self.now.max(*last) + *each;
                            *last
                        }
                        None => self.now + WORK,
                    };
                    self.at(at, Thing::Done(address, boot, job.id, done));
                }
                Output::Inspect => {
                    let snapshot = self.hosts[host].plane.snapshot(self.now);
                    let now = self.clock();
                    self.hosts[host].mesh.handle(now, Input::Snapshot(snapshot));
                }
                Output::Report(event) => self.hosts[host].events.push((self.now, event)),
                Output::Sleep(until, _) => {
                    self.hosts[host].wake = until;
                    if until != Instant::NEVER {
                        assert!(until > self.now, "a mesh that never sleeps");
                        self.at(until, Thing::Wake(host));
                    }
                    return;
                }
            }
        }
    }

    fn apply(&mut self, host: usize, batch: &Batch) -> Vec<Refusal> {
        let refusals = if self.hosts[host].fault.is_some() {
            self.apply_with_faults(host, batch)
        } else {
            self.hosts[host].plane.apply(self.now, batch)
        };
        let emits = self.hosts[host].plane.release_for(self.now, batch);
        self.emit(host, emits);
        refusals
    }

    fn apply_with_faults(&mut self, host: usize, batch: &Batch) -> Vec<Refusal> {
        let now = self.now;
        let Host { plane, fault, .. } = &mut self.hosts[host];
        let mut refusals = Vec::new();
        for (index, change) in batch.0.iter().enumerate() {
            match fault.as_mut().and_then(|fault| fault.judge(change)) {
                Some(reason) => refusals.push(Refusal { index, reason }),
                None => {
                    let one = plane.apply(now, &Batch(vec![change.clone()]));
                    refusals.extend(one.into_iter().map(|r| Refusal { index, ..r }));
                }
            }
        }
        refusals
    }

    fn plane_events(&mut self, host: usize) {
        while let Some(event) = self.hosts[host].plane.poll_event() {
            self.input(host, Input::Kernel(event));
        }
    }

    fn emit(&mut self, host: usize, emits: Vec<Emit>) {
        for emit in emits {
            match emit {
                Emit::Esp(packet) => self.wire(host, packet.dst, Thing::Packet(packet, None)),
                Emit::EspInUdp { packet, local_port, remote: _ } => {
                    let from = SocketAddr::new(packet.src, local_port);
                    self.wire(host, packet.dst, Thing::Packet(packet, Some(from)));
                }
                Emit::Clear(_) => self.clear += 1,
                Emit::Deliver(packet) => self.hosts[host].got.push(packet),
            }
        }
    }

    fn transmit(&mut self, host: usize, d: Datagram) {
        self.datagrams.push((self.now, host));
        if self.host_of(d.remote.ip()).is_none() {
            self.nowhere.push(d.clone());
        }
        let arrived = Datagram { local: d.remote, remote: d.local, bytes: d.bytes };
        self.wire(host, d.remote.ip(), Thing::Datagram(arrived));
    }

    fn wire(&mut self, from: usize, to: IpAddr, thing: Thing) {
        let Some(to) = self.host_of(to) else { return };
        if !self.cut.contains(&(from, to)) && self.chance.below(100) >= self.loss {
            self.at(self.now + LINK, thing);
        }
    }

    fn arrive(&mut self, packet: OuterPacket, udp: Option<SocketAddr>) {
        let Some(host) = self.host_of(packet.dst) else { return };
        let src = udp.unwrap_or(SocketAddr::new(packet.src, 0));
        let outer = OuterInfo {
            src,
            dst: packet.dst,
            tos: packet.tos,
            ttl: packet.ttl,
            udp: udp.is_some(),
        };
        let emits = self.hosts[host].plane.receive(self.now, outer, packet.esp);
        self.emit(host, emits);
        self.plane_events(host);
    }

    fn host_of(&self, address: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|h| h.address == address || h.also.contains(&address))
    }
}
