//! One host: the daemon's value, a data plane in memory, and whoever carries the outputs out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ike::{JobId, Now, Provider};
use ipsec::Instant;
use ipsec::change::Batch;
use ipsec::dataplane::Dataplane;
use ipsec::memory::Memory;
use ipsec::pipeline::{Emit, Verdict};
use ipsec::sad::Entry;
use mesh::loaded::Loaded;
use mesh::status::{DataPlane, PeerStatus};
use mesh::{Event, Identity, Input, Mesh, Output, Target};

use crate::dice::Dice;
use crate::packet::{Body, Packet};

/// Outputs of one input, at most; a mesh of ten thousand peers needs not so many.
const MOST_OUTPUTS: usize = 200_000;
/// Wakes at one instant, at most.
const MOST_WAKES: u32 = 50;
/// Wall-clock time at the world's beginning.
const UNIX_BEGIN: u64 = 1_800_000_000;

/// How slowly a host carries its outputs out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Public-key work takes up to this; jobs overtake each other.
    pub job: Duration,
    /// The data plane's events and snapshots arrive up to this late.
    pub kernel: Duration,
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
    pace: Pace,
    provider: Arc<dyn Provider>,
    tamper: Option<Tamper>,
    live: Option<Live>,
    lives: u32,
}

/// What a host has between boot and crash.
struct Live {
    mesh: Mesh,
    memory: Memory,
    /// When the mesh wants to be woken.
    sleep_until: Instant,
    /// The nearest wake that is on the agenda.
    wake_at: Instant,
    /// Wakes since time last passed.
    spins: (Instant, u32),
    /// Events of the data plane keep their order.
    last_kernel: Instant,
    violations_told: usize,
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
        Self { address, name, dice, boot, pace, provider, tamper: None, live: None, lives: 0 }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.live.is_some()
    }

    /// How often it was booted: what was on its way to an earlier life gets lost.
    pub fn life(&self) -> u32 {
        self.lives
    }

    /// Plants a fault between the daemon and the data plane.
    pub fn set_tamper(&mut self, tamper: Tamper) {
        self.tamper = Some(tamper);
    }

    /// How slowly it works from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Starts with nothing but the manifest.
    pub fn boot(&mut self, at: Instant, loaded: Loaded, out: &mut Vec<Effect>) {
        let identity = Identity {
            address: self.address,
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            data_plane: DataPlane::Userspace,
        };
        let now = self.now(at);
        self.lives += 1;
        self.live = Some(Live {
            mesh: Mesh::new(identity, self.provider.clone(), self.dice.seed(), now),
            memory: Memory::new(self.provider.clone()),
            sleep_until: Instant::NEVER,
            wake_at: Instant::NEVER,
            spins: (Instant::ZERO, 0),
            last_kernel: Instant::ZERO,
            violations_told: 0,
        });
        self.input(at, Input::Manifest(Box::new(loaded)), out);
    }

    /// Loses everything at once.
    pub fn crash(&mut self) {
        self.live = None;
    }

    /// Something happened outside of its daemon.
    pub fn input(&mut self, at: Instant, input: Input, out: &mut Vec<Effect>) {
        let now = self.now(at);
        let Some(live) = &mut self.live else { return };
        live.mesh.handle(now, input);
        self.carry_out(at, out);
    }

    /// An operator's command; what is refused changes nothing.
    pub fn command(&mut self, at: Instant, command: mesh::Command, out: &mut Vec<Effect>) {
        let now = self.now(at);
        let Some(live) = &mut self.live else { return };
        let _ = live.mesh.command(now, command);
        self.carry_out(at, out);
    }

    /// A wake is due; it may have been put off meanwhile.
    pub fn wake(&mut self, at: Instant, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        if at < live.wake_at {
            return;
        }
        live.wake_at = Instant::NEVER;
        if live.sleep_until > at {
            return self.plan_wake(at, out);
        }
        if live.spins.0 != at {
            live.spins = (at, 0);
        }
        live.spins.1 += 1;
        self.input(at, Input::Tick, out);
    }

    /// A packet arrives.
    pub fn arrive(&mut self, at: Instant, packet: Packet, out: &mut Vec<Effect>) {
        if let Some(datagram) = packet.to_ike() {
            return self.input(at, Input::Datagram(datagram), out);
        }
        let local = self.local(at);
        let Some(live) = &mut self.live else { return };
        match packet.body {
            Body::Esp { outer, bytes, .. } => {
                let emits = live.memory.receive(local, outer, bytes);
                self.emit(emits, out);
            }
            Body::Clear(ref bytes) => {
                if live.memory.receive_clear(local, bytes) == Verdict::Pass {
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
        let local = self.local(at);
        let Some(live) = &mut self.live else { return };
        let emits = live.memory.send(local, packet);
        self.emit(emits, out);
        self.kernel_events(at, out);
    }

    /// The path to a host carries no more than this.
    pub fn too_big(&mut self, at: Instant, dst: IpAddr, mtu: usize) {
        let local = self.local(at);
        if let Some(live) = &self.live {
            live.memory.pipeline().set_path_mtu(local, dst, u32::try_from(mtu).unwrap_or(u32::MAX));
        }
    }

    /// What the data plane does once a second.
    pub fn housekeep(&mut self, at: Instant, out: &mut Vec<Effect>) {
        let local = self.local(at);
        let Some(live) = &mut self.live else { return };
        let emits = live.memory.tick(local);
        self.emit(emits, out);
        self.kernel_events(at, out);
    }

    /// The SAs in its data plane, inbound first, the newest of a peer before its others.
    pub fn sas(&self) -> Vec<Arc<Entry>> {
        self.live.as_ref().map_or_else(Vec::new, |live| live.memory.sas())
    }

    /// What its daemon says of its peers.
    pub fn peers(&self, at: Instant) -> Vec<PeerStatus> {
        self.live.as_ref().map_or_else(Vec::new, |live| live.mesh.status(self.now(at)).peers)
    }

    /// Keys of its IKE SAs with a peer, for the ladder.
    pub fn ike_keys(&self, peer: IpAddr) -> Vec<ike::endpoint::ExportedKeys> {
        let keys = self.live.as_ref().map(|live| live.mesh.export_keys(&Target::Address(peer)));
        keys.and_then(Result::ok).unwrap_or_default()
    }

    /// What its daemon waits for, to be told of a host that hangs.
    pub fn sleeps_until(&self) -> Option<Instant> {
        self.live.as_ref().map(|live| live.sleep_until)
    }

    fn carry_out(&mut self, at: Instant, out: &mut Vec<Effect>) {
        for _ in 0..MOST_OUTPUTS {
            let Some(live) = &mut self.live else { return };
            match live.mesh.poll() {
                Output::Apply(batch) => self.apply(at, batch, out),
                // These hosts lose everything in a crash.
                Output::Journal(..) => {}
                Output::Transmit(datagram) => out.push(Effect::Send(Packet::from_ike(datagram))),
                Output::Job(job) => {
                    let done = job.work.run(&*self.provider);
                    let delay = self.dice.between(Duration::from_micros(20), self.pace.job);
                    out.push(Effect::Later(at + delay, job_done(job.id, done)));
                }
                Output::Inspect => {
                    let snapshot = live.memory.snapshot(local(self.boot, at));
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
        let Some(live) = &mut self.live else { return };
        let refusals = live.memory.apply(now, &batch);
        let emits = live.memory.tick(now);
        let told = std::mem::replace(&mut live.violations_told, live.memory.violations().len());
        let wrong: Vec<_> =
            live.memory.violations()[told..].iter().map(ToString::to_string).collect();
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
        let Some(live) = &mut self.live else { return };
        live.sleep_until = until.max(at);
        if live.spins.0 == at && live.spins.1 > MOST_WAKES {
            live.spins.1 = 0;
            return out.push(Effect::Wrong(Wrong::Spins(format!("{why:?}"))));
        }
        self.plan_wake(at, out);
    }

    fn plan_wake(&mut self, at: Instant, out: &mut Vec<Effect>) {
        let Some(live) = &mut self.live else { return };
        if live.sleep_until < live.wake_at {
            live.wake_at = live.sleep_until.max(at);
            out.push(Effect::Wake(live.wake_at));
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

    fn kernel_events(&mut self, at: Instant, out: &mut Vec<Effect>) {
        while let Some(event) = self.live.as_mut().and_then(|live| live.memory.poll_event()) {
            let when = self.after_kernel(at);
            out.push(Effect::Later(when, Input::Kernel(event)));
        }
    }

    /// When what the data plane says now reaches the daemon.
    fn after_kernel(&mut self, at: Instant) -> Instant {
        let delay = self.dice.between(Duration::ZERO, self.pace.kernel);
        let Some(live) = &mut self.live else { return at };
        live.last_kernel = live.last_kernel.max(at + delay);
        live.last_kernel
    }

    fn now(&self, at: Instant) -> Now {
        let unix = UNIX_BEGIN + at.since(Instant::ZERO).as_secs();
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
