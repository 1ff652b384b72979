//! One host: the daemon's value, a data plane in memory, and whoever carries the outputs out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ike::{JobId, Now, Provider, Secret};
use ipsec::Instant;
use ipsec::change::Batch;
use ipsec::dataplane::{Dataplane, DataplaneEvent};
use ipsec::memory::Memory;
use ipsec::pipeline::{Emit, Verdict};
use ipsec::sad::Entry;
use mesh::journal::Record;
use mesh::loaded::Loaded;
use mesh::status::{DataPlane, PeerStatus, Status};
use mesh::{Event, Identity, Input, Mesh, Output, Target};

use crate::dice::Dice;
use crate::packet::{Body, Class, Packet};

/// Outputs of one input, at most; a mesh of ten thousand peers needs not so many.
const MOST_OUTPUTS: usize = 200_000;
/// Wakes at one instant, at most.
const MOST_WAKES: u32 = 50;
/// Wall-clock time at the world's beginning.
pub const UNIX_BEGIN: u64 = 1_800_000_000;

/// How slowly a host carries its outputs out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Public-key work takes up to this; jobs overtake each other.
    pub job: Duration,
    /// The data plane's events and snapshots arrive up to this late.
    pub kernel: Duration,
    /// There is one core for public-key work: one job after the other.
    pub one_core: bool,
}

/// Changes what a data plane is told: a fault that is planted.
pub type Tamper = Arc<dyn Fn(Batch) -> Batch>;

/// A host.
pub struct Host {
    address: IpAddr,
    name: String,
    dice: Dice,
    /// What this host's clock shows when the world's shows zero.
    boot: Duration,
    /// And its wall clock, in seconds since the Unix epoch.
    unix: u64,
    pace: Pace,
    provider: Arc<dyn Provider>,
    tamper: Option<Tamper>,
    /// Its data plane does not tell of unknown SPIs, as the kernel's does not.
    deaf: bool,
    /// What its data plane is told is not judged.
    unwatched: bool,
    /// It has no IPsec, and no daemon: everything passes in the clear.
    plain: bool,
    plane: Option<Plane>,
    process: Option<Process>,
    /// What its processes wrote for their successors.
    journal: BTreeMap<mesh::journal::Key, Secret>,
    /// When its one core has nothing more to do.
    idle_at: Instant,
    boots: u32,
    lives: u32,
}

/// Of one boot's data plane: how often its SAs were changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SasMark {
    boot: u32,
    changes: u64,
}

/// What a host has between boot and crash.
struct Plane {
    memory: Memory,
    /// Events of the data plane keep their order.
    last_kernel: Instant,
    violations_told: usize,
}

/// What a host has while its daemon runs.
struct Process {
    mesh: Mesh,
    /// When the mesh wants to be woken.
    sleep_until: Instant,
    /// The nearest wake that is on the agenda.
    wake_at: Instant,
    /// Wakes since time last passed.
    spins: (Instant, u32),
}

/// What follows from something that happened to a host. All times are the world's.
pub enum Effect {
    /// A packet leaves.
    Send(Packet),
    /// A packet goes up to the applications.
    Deliver(Vec<u8>),
    /// Something to be handed to this host later.
    Later(Instant, Input),
    /// Wake this host.
    Wake(Instant),
    /// The data plane was changed.
    Changed(Batch),
    /// The daemon reports.
    Report(Event),
    /// A cleartext packet was taken in.
    TookClear(Packet),
    /// The host went wrong.
    Wrong(Wrong),
}

/// How a host can go wrong by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// More outputs of one input than any.
    EndlessOutputs,
    /// It asks to be woken again and again at one instant; why.
    Spins(String),
    /// What the data plane noticed.
    DataPlane(String),
}

impl Host {
    /// A host that is off.
    pub fn new(
        address: IpAddr,
        name: String,
        mut dice: Dice,
        pace: Pace,
        provider: Arc<dyn Provider>,
    ) -> Self {
        let boot = dice.between(Duration::from_secs(1), Duration::from_secs(1_000_000));
        let (tamper, plane, process, journal) = Default::default();
        let (deaf, unwatched, plain, idle_at, boots, lives) =
            (false, false, false, Instant::ZERO, 0, 0);
        Self {
            address,
            name,
            dice,
            boot,
            unix: UNIX_BEGIN,
            pace,
            provider,
            tamper,
            deaf,
            unwatched,
            plain,
            plane,
            process,
            journal,
            idle_at,
            boots,
            lives,
        }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it is on, with a daemon or without.
    pub fn is_up(&self) -> bool {
        self.plain || self.plane.is_some()
    }

    /// How often a daemon was started on it: what was on its way to an earlier one gets lost.
    pub fn life(&self) -> u32 {
        self.lives
    }

    /// How often it was booted.
    pub fn boots(&self) -> u32 {
        self.boots
    }

    /// Plants a fault between the daemon and the data plane.
    pub fn set_tamper(&mut self, tamper: Tamper) {
        self.tamper = Some(tamper);
    }

    /// Whether its data plane keeps unknown SPIs to itself.
    pub fn set_deaf(&mut self, deaf: bool) {
        self.deaf = deaf;
    }

    /// What its data plane is told is not judged: for measurements.
    pub fn set_unwatched(&mut self) {
        self.unwatched = true;
    }

    /// What its wall clock shows when the world's shows zero; [`UNIX_BEGIN`] at first.
    pub fn set_unix(&mut self, unix: u64) {
        self.unix = unix;
    }

    /// How slowly it works from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Starts with nothing but the manifest.
    pub fn boot(&mut self, at: Instant, loaded: Loaded, out: &mut Vec<Effect>) {
        self.crash();
        self.journal.clear();
        self.begin(at, loaded, out);
    }

    /// A host without IPsec: it was never installed, or was taken away.
    pub fn be_plain(&mut self) {
        self.crash();
        self.journal.clear();
        self.plain = true;
    }

    /// Loses everything at once.
    pub fn crash(&mut self) {
        self.plain = false;
        self.plane = None;
        self.process = None;
    }

    /// The daemon ends, in whichever way: what it had written stays. Its data plane stays too, or ends with it.
    pub fn stop_daemon(&mut self, plane_stays: bool) {
        self.process = None;
        if !plane_stays {
            self.plane = None;
        }
    }

    /// The daemon ends; what it wrote for the next one says nothing of child SAs with a peer.
    pub fn forget_children(&mut self, peer: IpAddr) {
        self.stop_daemon(true);
        for record in self.journal.values_mut() {
            let Ok(mut known) = Record::decode(record.expose()) else { continue };
            if known.peer == peer {
                known.sa.children.clear();
                *record = known.encode();
            }
        }
    }

    /// The next daemon starts, with what the last one left.
    pub fn start_daemon(&mut self, at: Instant, loaded: Loaded, out: &mut Vec<Effect>) {
        self.begin(at, loaded, out);
    }

    fn begin(&mut self, at: Instant, loaded: Loaded, out: &mut Vec<Effect>) {
        let identity = Identity {
            address: self.address,
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            data_plane: DataPlane::Userspace,
        };
        let now = self.now(at);
        if self.plane.is_none() {
            self.boots += 1;
            let mut memory = Memory::new(self.provider.clone());
            if self.unwatched {
                memory.set_unwatched();
            }
            self.plane = Some(Plane { memory, last_kernel: at, violations_told: 0 });
        }
        self.plain = false;
        self.lives += 1;
        self.process = Some(Process {
            mesh: Mesh::new(identity, self.provider.clone(), self.dice.seed(), now),
            sleep_until: Instant::NEVER,
            wake_at: Instant::NEVER,
            spins: (Instant::ZERO, 0),
        });
        let found = self.journal.clone().into_iter().collect();
        self.input(at, Input::Journal(found), out);
        self.input(at, Input::Manifest(Box::new(loaded)), out);
        self.kernel_events(at, out);
    }

    /// Something happened outside of its daemon.
    pub fn input(&mut self, at: Instant, input: Input, out: &mut Vec<Effect>) {
        let now = self.now(at);
        let Some(process) = &mut self.process else { return };
        process.mesh.handle(now, input);
        self.carry_out(at, out);
    }

    /// An operator's command; what is refused changes nothing, and is said.
    pub fn command(
        &mut self,
        at: Instant,
        command: mesh::Command,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let now = self.now(at);
        let Some(process) = &mut self.process else { return Err("no daemon".into()) };
        let done = process.mesh.command(now, command);
        self.carry_out(at, out);
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Somebody changes the data plane behind the daemon's back.
    pub fn meddle(&mut self, at: Instant, batch: &Batch) {
        let now = self.local(at);
        if let Some(plane) = &mut self.plane {
            plane.memory.apply(now, batch);
        }
    }

    /// The policies of its data plane.
    pub fn policies(&mut self, at: Instant) -> Vec<ipsec::spd::PolicyKey> {
        let now = self.local(at);
        self.plane.as_mut().map_or_else(Vec::new, |plane| plane.memory.snapshot(now).policies)
    }

    /// A wake is due; it may have been put off meanwhile.
    pub fn wake(&mut self, at: Instant, out: &mut Vec<Effect>) {
        let Some(process) = &mut self.process else { return };
        if at < process.wake_at {
            return;
        }
        process.wake_at = Instant::NEVER;
        if process.sleep_until > at {
            return self.plan_wake(at, out);
        }
        if process.spins.0 != at {
            process.spins = (at, 0);
        }
        process.spins.1 += 1;
        self.input(at, Input::Tick, out);
    }

    /// A packet arrives.
    pub fn arrive(&mut self, at: Instant, packet: Packet, out: &mut Vec<Effect>) {
        if packet.class() == Class::Ike {
            if let Some(datagram) = packet.into_ike() {
                self.input(at, Input::Datagram(datagram), out);
            }
            return;
        }
        if let (true, Body::Clear(bytes)) = (self.plain, &packet.body) {
            return out.push(Effect::Deliver(bytes.clone()));
        }
        let local = self.local(at);
        let Some(plane) = &mut self.plane else { return };
        match packet.body {
            Body::Esp { mut outer, source_port, bytes, .. } => {
                outer.src.set_port(source_port);
                let emits = plane.memory.receive(local, outer, bytes);
                self.emit(emits, out);
            }
            Body::Clear(ref bytes) => {
                if plane.memory.receive_clear(local, bytes) == Verdict::Pass {
                    out.push(Effect::Deliver(bytes.clone()));
                    out.push(Effect::TookClear(packet));
                }
            }
            Body::Ike { .. } => {}
        }
        self.kernel_events(at, out);
    }

    /// An application sends.
    pub fn send(&mut self, at: Instant, packet: Vec<u8>, out: &mut Vec<Effect>) {
        if self.plain {
            return out.extend(Packet::from_emit(Emit::Clear(packet)).map(Effect::Send));
        }
        let local = self.local(at);
        let Some(plane) = &mut self.plane else { return };
        let emits = plane.memory.send(local, packet);
        self.emit(emits, out);
        self.kernel_events(at, out);
    }

    /// The path to a host carries no more than this.
    pub fn too_big(&mut self, at: Instant, dst: IpAddr, mtu: usize) {
        let local = self.local(at);
        if let Some(plane) = &self.plane {
            let mtu = u32::try_from(mtu).unwrap_or(u32::MAX);
            plane.memory.pipeline().set_path_mtu(local, dst, mtu);
        }
    }

    /// What the data plane does once a second.
    pub fn housekeep(&mut self, at: Instant, out: &mut Vec<Effect>) {
        let local = self.local(at);
        let Some(plane) = &mut self.plane else { return };
        let emits = plane.memory.tick(local);
        self.emit(emits, out);
        self.kernel_events(at, out);
    }

    /// The SAs in its data plane, inbound first, the newest of a peer before its others.
    pub fn sas(&self) -> Vec<Arc<Entry>> {
        self.plane.as_ref().map_or_else(Vec::new, |plane| plane.memory.sas())
    }

    /// Differs whenever [`sas`](Self::sas) may.
    pub fn sas_mark(&self) -> Option<SasMark> {
        let plane = self.plane.as_ref()?;
        Some(SasMark { boot: self.boots, changes: plane.memory.sa_changes() })
    }

    /// All that its daemon says.
    pub fn status(&self, at: Instant) -> Option<Status> {
        self.process.as_ref().map(|process| process.mesh.status(self.now(at)))
    }

    /// What its daemon says of one peer.
    pub fn peer(&self, at: Instant, peer: IpAddr) -> Option<PeerStatus> {
        self.process.as_ref()?.mesh.peer_status(self.now(at), &Target::Address(peer)).ok()
    }

    /// The IKE SAs in use with a peer of which its daemon says so, by both SPIs, in their order.
    pub fn ike_sas(&self, peer: IpAddr) -> Vec<(u64, u64)> {
        let process = self.process.as_ref();
        let mut all: Vec<_> = process.into_iter().flat_map(|p| p.mesh.established(peer)).collect();
        all.sort_unstable();
        all
    }

    /// How much its daemon holds, by table, and how much it has written down for the next one.
    pub fn census(&self) -> Vec<(&'static str, usize)> {
        let own = self.process.as_ref().map_or_else(Vec::new, |process| process.mesh.census());
        own.into_iter().chain([("journal entries", self.journal.len())]).collect()
    }

    /// Keys of its IKE SAs with a peer, for the ladder.
    pub fn ike_keys(&self, peer: IpAddr) -> Vec<ike::endpoint::ExportedKeys> {
        let keys = self.process.as_ref().map(|p| p.mesh.export_keys(&Target::Address(peer)));
        keys.and_then(Result::ok).unwrap_or_default()
    }

    /// What its daemon waits for, to be told of a host that hangs.
    pub fn sleeps_until(&self) -> Option<Instant> {
        self.process.as_ref().map(|process| process.sleep_until)
    }

    fn carry_out(&mut self, at: Instant, out: &mut Vec<Effect>) {
        for _ in 0..MOST_OUTPUTS {
            let Some(process) = &mut self.process else { return };
            match process.mesh.poll() {
                Output::Apply(batch) => self.apply(at, batch, out),
                Output::Journal(key, Some(record)) => drop(self.journal.insert(key, record)),
                Output::Journal(key, None) => drop(self.journal.remove(&key)),
                Output::Transmit(datagram) => out.push(Effect::Send(Packet::from_ike(datagram))),
                Output::Job(job) => {
                    let done = job.work.run(&*self.provider);
                    let when = self.after_work(at);
                    out.push(Effect::Later(when, job_done(job.id, done)));
                }
                Output::Inspect => {
                    let now = self.local(at);
                    let Some(plane) = &mut self.plane else { continue };
                    let snapshot = plane.memory.snapshot(now);
                    let when = self.after_kernel(at);
                    out.push(Effect::Later(when, Input::Snapshot(snapshot)));
                }
                Output::Report(event) => out.push(Effect::Report(event)),
                Output::Sleep(until, why) => return self.sleep(at, until, why, out),
            }
        }
        out.push(Effect::Wrong(Wrong::EndlessOutputs));
    }

    fn apply(&mut self, at: Instant, batch: Batch, out: &mut Vec<Effect>) {
        let now = self.local(at);
        let asked = batch.clone();
        let batch = self.tamper.as_ref().map_or(batch.clone(), |tamper| tamper(batch));
        let Some(plane) = &mut self.plane else { return };
        let refusals = plane.memory.apply(now, &batch);
        let emits = plane.memory.release_for(now, &batch);
        let told = std::mem::replace(&mut plane.violations_told, plane.memory.violations().len());
        let wrong: Vec<_> =
            plane.memory.violations()[told..].iter().map(ToString::to_string).collect();
        out.extend(wrong.into_iter().map(|text| Effect::Wrong(Wrong::DataPlane(text))));
        out.push(Effect::Changed(batch));
        self.emit(emits, out);
        if !refusals.is_empty() {
            out.push(Effect::Later(at, Input::Applied(asked, refusals)));
        }
        self.kernel_events(at, out);
    }

    fn sleep(&mut self, at: Instant, until: Instant, why: mesh::Why, out: &mut Vec<Effect>) {
        let until = self.world(until);
        let Some(process) = &mut self.process else { return };
        process.sleep_until = until.max(at);
        if process.spins.0 == at && process.spins.1 > MOST_WAKES {
            process.spins.1 = 0;
            return out.push(Effect::Wrong(Wrong::Spins(format!("{why:?}"))));
        }
        self.plan_wake(at, out);
    }

    fn plan_wake(&mut self, at: Instant, out: &mut Vec<Effect>) {
        let Some(process) = &mut self.process else { return };
        if process.sleep_until < process.wake_at {
            process.wake_at = process.sleep_until.max(at);
            out.push(Effect::Wake(process.wake_at));
        }
    }

    fn emit(&self, emits: Vec<Emit>, out: &mut Vec<Effect>) {
        for emit in emits {
            match emit {
                Emit::Deliver(packet) => out.push(Effect::Deliver(packet)),
                other => out.extend(Packet::from_emit(other).map(Effect::Send)),
            }
        }
    }

    /// What the data plane tells; it keeps it while there is nobody to listen.
    fn kernel_events(&mut self, at: Instant, out: &mut Vec<Effect>) {
        if self.process.is_none() {
            return;
        }
        while let Some(event) = self.plane.as_mut().and_then(|plane| plane.memory.poll_event()) {
            let when = self.after_kernel(at);
            if !self.deaf || !matches!(event, DataplaneEvent::UnknownSpi { .. }) {
                out.push(Effect::Later(when, Input::Kernel(event)));
            }
        }
    }

    /// When what the data plane says now reaches the daemon.
    fn after_kernel(&mut self, at: Instant) -> Instant {
        let delay = self.dice.between(Duration::ZERO, self.pace.kernel);
        let Some(plane) = &mut self.plane else { return at };
        plane.last_kernel = plane.last_kernel.max(at + delay);
        plane.last_kernel
    }

    /// When a job that begins now, or after those before it, is done.
    fn after_work(&mut self, at: Instant) -> Instant {
        let cost = self.dice.between(Duration::from_micros(20), self.pace.job);
        if !self.pace.one_core {
            return at + cost;
        }
        self.idle_at = self.idle_at.max(at) + cost;
        self.idle_at
    }

    fn now(&self, at: Instant) -> Now {
        let unix = self.unix + at.since(Instant::ZERO).as_secs();
        Now { at: self.local(at), unix }
    }

    fn local(&self, at: Instant) -> Instant {
        local(self.boot, at)
    }

    fn world(&self, local: Instant) -> Instant {
        match local {
            Instant::NEVER => Instant::NEVER,
            local => Instant::ZERO + local.since(Instant::ZERO + self.boot),
        }
    }
}

fn local(boot: Duration, at: Instant) -> Instant {
    at + boot
}

fn job_done(id: JobId, done: ike::Done) -> Input {
    Input::JobDone(id, done)
}
