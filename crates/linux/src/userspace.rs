//! The userspace data plane: a TUN device, raw ESP and ESP in UDP around [`ipsec::pipeline`].
//!
//! Hosts keep their own addresses. Packets for the protected networks are routed into the device by a table and two rules of
//! our own, which all but packets with our firewall mark see; what we send carries the mark and takes the normal routes.
//! In that table each protected network has a blackhole behind the route to the device: when the device is gone, with this
//! process or otherwise, nothing leaks. Cleartext that a policy wants protected is refused by the kernel ([`guard`]).

mod arrivals;
mod barrier;
mod departures;
pub mod guard;
pub mod handover;
mod runs;
mod steering;
mod threads;
mod wires;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ipnet::IpNet;
use ipsec::Instant;
use ipsec::change::{Batch, Refusal};
use ipsec::dataplane::{Dataplane, DataplaneEvent, Snapshot};
use ipsec::esp::{self, Family, Shape};
use ipsec::pipeline::Pipeline;
use ipsec::sa::Mode;
use ipsec::spd;
use rustix::event::EventfdFlags;

use crate::errno::{Errno, explain, of};
use crate::udp::Ports;
use crate::{netns, raw, route, tun};
pub(crate) use barrier::remove_leftovers;
use guard::Guard;
use steering::Steering;
use wires::Wires;

/// Firewall mark of the packets that we send; only this bit is looked at.
pub const MARK: u32 = 0x8000_0000;
/// Number of our routing table.
pub const TABLE: u32 = 5150;
/// Priority of our two rules: after the local table (0), before the main one (32766).
pub const RULE_PRIORITY: u32 = 5150;
/// Name of our device.
pub const INTERFACE: &str = "warren0";
/// IKE, and IKE and ESP behind NAT.
pub const PORTS: [u16; 2] = [500, 4500];

/// What the data plane needs to know of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the device.
    pub interface: String,
    /// Bit of the firewall mark; `ports` must carry it too.
    pub mark: u32,
    /// Number of the routing table; nobody else may use it.
    pub table: u32,
    /// Priority of the rules.
    pub rule_priority: u32,
    /// This host's own addresses in the mesh; the first of a family is the source of packets whose sender has not chosen one.
    pub addresses: Vec<IpAddr>,
    /// Bytes by which a packet can grow, see [`overhead`].
    pub overhead: u32,
    /// Packets go to and from the device, and the sockets for ESP in UDP, many at a time where the kernel can
    /// ([`tun::Offload`]). A device that is adopted stays as it is.
    pub offload: bool,
}

impl Config {
    /// The usual names and numbers.
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        Self {
            interface: INTERFACE.to_owned(),
            mark: MARK,
            table: TABLE,
            rule_priority: RULE_PRIORITY,
            addresses,
            overhead: overhead(Mode::Tunnel),
            offload: true,
        }
    }
}

/// The most bytes by which a packet can grow in this mode: AES-CBC with HMAC-SHA2-512, in UDP, over IPv6.
pub fn overhead(mode: Mode) -> u32 {
    let worst = Shape { iv: 16, icv: 32, align: 16 };
    u32::try_from(esp::overhead(mode, worst, true, Family::V6)).unwrap_or(u32::MAX)
}

/// Which networks the device gets the packets for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    /// These.
    pub protected: Vec<IpNet>,
    /// But not these: they keep the routes that they have. Where both lie in one another, the longer prefix decides.
    pub clear: Vec<IpNet>,
    /// Without this data plane their packets pass in the clear (the manifest's `optional`). Never a default.
    pub optional: bool,
}

/// A UDP payload that is not ESP: IKE, with its non-ESP marker on port 4500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeDatagram {
    /// This host's address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The whole payload.
    pub bytes: Vec<u8>,
}

/// Where the data plane's threads report to. Both must return at once: they hold up packets.
pub trait Upcalls: Send + Sync {
    /// An IKE datagram came. Where there is no room for it, drop it: IKE sends again.
    fn ike(&self, datagram: IkeDatagram);
    /// [`Dataplane::poll_event`] has something.
    fn events(&self);
}

/// Why the data plane could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No device.
    #[error(transparent)]
    Tun(#[from] tun::Error),
    /// No raw socket.
    #[error(transparent)]
    Raw(#[from] raw::Error),
    /// No routing tables.
    #[error(transparent)]
    Route(#[from] route::Error),
    /// A kernel setting.
    #[error(transparent)]
    Sysctl(#[from] netns::Error),
    /// Another system call.
    #[error("{call}: {}", explain(*.errno))]
    Call {
        /// Which call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
}

/// What an operator should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Name of the device.
    pub interface: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// MTU of the device that the host's addresses are on.
    pub device_mtu: u32,
    /// Kernel policies that refuse cleartext, or why there are none.
    pub guard: Result<usize, String>,
    /// Everything that is not as it should be, each with a remedy.
    pub warnings: Vec<String>,
}

/// The running data plane. Dropping it stops its threads and takes the device away; rules, blackholes and the guard
/// stay, so that nothing leaks until the next start. [`Userspace::leave`] lets exceptions pass as well;
/// [`Userspace::flush`] takes everything away. Another process goes on with it by way of [`handover`].
pub struct Userspace {
    shared: Arc<Shared>,
    /// What holds when it ends, see [`Userspace::stand`].
    standing: Vec<spd::Policy>,
    threads: Vec<JoinHandle<()>>,
    /// What names the network namespace that it was made in.
    namespace: Option<(u64, u64)>,
}

/// What the threads share.
struct Shared {
    pipeline: Arc<Pipeline>,
    wires: Wires,
    steering: Mutex<Steering>,
    guard: Mutex<Guard>,
    upcalls: Box<dyn Upcalls>,
    events: Mutex<std::collections::VecDeque<DataplaneEvent>>,
    /// Written once: all threads end.
    stop: std::os::fd::OwnedFd,
}

/// Events that wait for `poll_event`; what does not fit stays in the pipeline, which has a bound of its own.
const MAX_EVENTS: usize = 1024;

impl Userspace {
    /// Makes the device and starts the threads, in this thread's network namespace. Before [`Userspace::route`] no packet
    /// comes in from this host.
    pub fn start(
        config: Config,
        pipeline: Arc<Pipeline>,
        ports: Arc<Ports>,
        upcalls: Box<dyn Upcalls>,
    ) -> Result<Self, Error> {
        let mark = config.mark;
        let mut steering = Steering::start(config)?;
        let wires = Wires::open(steering.tun(), ports, mark)?;
        steering.sync(&pipeline);
        let mut plane = Self::assemble(pipeline, wires, steering, Vec::new(), upcalls)?;
        plane.run()?;
        Ok(plane)
    }

    /// Without threads.
    fn assemble(
        pipeline: Arc<Pipeline>,
        wires: Wires,
        steering: Steering,
        standing: Vec<spd::Policy>,
        upcalls: Box<dyn Upcalls>,
    ) -> Result<Self, Error> {
        let guard = Guard::open(steering.config().mark);
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::Call { call: "eventfd", errno: of(e) })?;
        let shared = Arc::new(Shared {
            pipeline,
            wires,
            steering: Mutex::new(steering),
            guard: Mutex::new(guard),
            upcalls,
            events: Mutex::default(),
            stop,
        });
        Ok(Self { shared, standing, threads: Vec::new(), namespace: handover::namespace() })
    }

    fn run(&mut self) -> Result<(), Error> {
        if self.threads.is_empty() {
            // A former end is over.
            let _ = rustix::io::read(&self.shared.stop, &mut [0; 8]);
            self.threads = threads::start(&self.shared)?;
        }
        Ok(())
    }

    /// These are the host's addresses in the mesh from now on; they take effect with [`Userspace::route`].
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        locked(&self.shared.steering).set_addresses(addresses);
    }

    /// Routes these networks into the device, instead of those of the last call.
    pub fn route(&mut self, networks: Networks) {
        let mut steering = locked(&self.shared.steering);
        steering.route(networks);
        steering.sync(&self.shared.pipeline);
    }

    /// Which rules of the leak guard hold when this ends. Those that agree with the device hold from now on, for
    /// packets that do not come to it: from sockets that are bound to an interface.
    pub fn stand(&mut self, rules: Vec<spd::Policy>) {
        locked(&self.shared.guard).stand(&rules);
        self.standing = rules;
    }

    /// The policies are in place: what a guard or a former process has left, and they do not want, goes.
    ///
    /// # Errors
    /// If policies of a kernel's data plane stay.
    pub fn take_over(&mut self) -> Result<(), crate::guard::Error> {
        locked(&self.shared.guard).prune();
        crate::guard::replace_kernel_plane()
    }

    /// For operators.
    pub fn status(&self) -> Status {
        let mut status = locked(&self.shared.steering).status();
        let guard = locked(&self.shared.guard);
        status.guard = guard.state();
        status.warnings.extend(guard.warnings());
        status.warnings.extend(self.broken());
        status
    }

    /// Why no packets flow any more. Only a new start helps then.
    pub fn broken(&self) -> Option<String> {
        let ended = self.threads.iter().any(JoinHandle::is_finished);
        let ended = ended.then(|| "a thread of the data plane has ended".to_owned());
        self.shared.wires.broken().or(ended)
    }

    /// Whether it carries ESP faster in UDP, where the kernel takes many datagrams at once.
    pub fn prefers_encap(&self) -> bool {
        self.shared.wires.tun.offload() != tun::Offload::None
    }

    /// The pipeline: for captures and explanations.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.shared.pipeline
    }

    /// Stops, and leaves the rules of the leak guard in the kernel in place of everything of its own.
    ///
    /// # Errors
    /// Then everything stays that drops packets, as after a crash.
    pub fn leave(mut self) -> Result<(), crate::guard::Error> {
        self.stop();
        crate::guard::install(&mut crate::xfrm::Xfrm::open()?, &self.standing)?;
        locked(&self.shared.steering).remove();
        Ok(())
    }

    /// Leads nothing into the device any more: packets take the ordinary routes. What is in it already is still carried.
    pub fn unroute(&mut self) {
        locked(&self.shared.steering).remove();
    }

    /// Stops, and takes away everything that would outlive this process. From then on packets pass in the clear.
    pub fn flush(mut self) {
        self.stop();
        locked(&self.shared.steering).remove();
        locked(&self.shared.guard).remove();
    }

    fn stop(&mut self) {
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Dataplane for Userspace {
    fn apply(&mut self, now: Instant, batch: &Batch) -> Vec<Refusal> {
        // The guard first: what is to be protected is refused in the clear before it is accepted protected.
        locked(&self.shared.guard).apply(batch);
        let refusals = self.shared.pipeline.apply(now, batch);
        self.shared.release_for(now, batch);
        refusals
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        locked(&self.shared.guard).prune();
        let mut snapshot = self.shared.pipeline.snapshot(now);
        snapshot.counters.extend(self.shared.wires.counters());
        snapshot.counters.extend(guard::kernel_counters());
        snapshot
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        let waiting = locked(&self.shared.events).pop_front();
        waiting.or_else(|| self.shared.pipeline.poll_event())
    }
}

impl Shared {
    /// Packets that wait, time limits, events.
    fn tick(&self, now: Instant) {
        let mut emit = Vec::new();
        self.pipeline.tick(now, &mut emit);
        self.wires.carry_out(&self.pipeline, now, &mut emit);
        self.announce();
    }

    /// Packets that waited for changes, and events.
    fn release_for(&self, now: Instant, batch: &Batch) {
        let mut emit = Vec::new();
        self.pipeline.release_for(now, batch, &mut emit);
        self.wires.carry_out(&self.pipeline, now, &mut emit);
        self.announce();
    }

    /// Tells the control loop, if there are events.
    fn announce(&self) {
        let mut events = locked(&self.events);
        let before = events.len();
        while events.len() < MAX_EVENTS {
            match self.pipeline.poll_event() {
                Some(event) => events.push_back(event),
                None => break,
            }
        }
        let more = events.len() > before;
        drop(events);
        if more {
            self.upcalls.events();
        }
    }
}

// A panic under a lock would be a bug; what the locks guard is never wrong half way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
