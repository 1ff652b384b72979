//! What a packet meets on its way out and in: SPD, SAD, ESP. The userspace data plane without its system calls.

mod counters;
mod events;
mod inbound;
mod lane;
mod outbound;
mod path;
mod queue;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crypto::Provider;

use crate::Instant;
use crate::change::{Batch, Change, Refusal, RefusalReason};
use crate::dataplane::{DataplaneEvent, PacketInfo, Snapshot};
use crate::handover::{Held, Path, Running};
use crate::ipcomp::Compressor;
use crate::packet::{HeaderFields, UDP_HEADER, proto};
use crate::reassembly::Reassembler;
use crate::sa::{Direction, SaKey};
use crate::sad::{Entry, Sad};
use crate::spd::{Action, Flow, Spd};

use counters::Counters;
use events::Events;
use path::Paths;
use queue::Queue;

pub use inbound::{Admitted, Inside, headroom};
pub use lane::{Lane, Outer};
pub use queue::{MAX_PEER_BYTES, MAX_PEER_PACKETS, MAX_QUEUE_AGE, MAX_QUEUE_BYTES};

/// SPD, SAD and queues of one host. Shared by the threads that carry packets: every method takes `&self`.
pub struct Pipeline {
    provider: Arc<dyn Provider>,
    sad: RwLock<Sad>,
    spd: RwLock<Spd>,
    paths: RwLock<Paths>,
    queue: Mutex<Queue>,
    /// Packets in `queue`, so that the fast path need not lock it.
    queued: AtomicUsize,
    fragments: Mutex<Reassembler>,
    events: Mutex<Events>,
    /// Made when an SA first compresses.
    compressor: Mutex<Option<Compressor>>,
    /// SAs went out of use that are still in `sad`.
    retired: AtomicBool,
    counters: Counters,
}

/// What is to be done with the result of one packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Emit {
    /// An ESP packet as payload of IP protocol 50.
    Esp(OuterPacket),
    /// An ESP packet in UDP: send from local port to `remote`.
    EspInUdp {
        /// The packet.
        packet: OuterPacket,
        /// This host's port.
        local_port: u16,
        /// The peer's address and port.
        remote: SocketAddr,
    },
    /// A whole IP packet that goes out in the clear.
    Clear(Vec<u8>),
    /// A whole IP packet for this host's own stack (decrypted, or an ICMP error to a local sender).
    Deliver(Vec<u8>),
}

/// ESP with what its outer IP header must say.
#[derive(Debug, PartialEq, Eq)]
pub struct OuterPacket {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// TOS or traffic class (DSCP and ECN).
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Must not be fragmented on the way.
    pub dont_fragment: bool,
    /// Protocol field of the outer IP header: 50, or 17 in UDP, unless IPv6 extension headers come first.
    pub protocol: u8,
    /// In transport mode the packet's own IPv4 options, or the IPv6 extension headers that stand
    /// before ESP (RFC 4303 3.1.1). Almost always empty.
    pub options: Vec<u8>,
    /// SPI, sequence number, IV, ciphertext, ICV.
    pub esp: Vec<u8>,
}

/// What is known of the outer header of a received ESP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterInfo {
    /// Outer source; with the UDP port if it came in UDP, else port 0.
    pub src: SocketAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Came in UDP.
    pub udp: bool,
}

/// Whether a packet that came in the clear may go on to this host's stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Pass,
    /// It must be dropped: a policy wants it protected, or no policy lets it in.
    Drop,
}

impl Pipeline {
    /// An empty SPD drops everything: nothing passes before there are policies.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self {
            provider,
            sad: RwLock::default(),
            spd: RwLock::default(),
            paths: RwLock::default(),
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            fragments: Mutex::default(),
            events: Mutex::default(),
            compressor: Mutex::default(),
            retired: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// Goes on where another process has stopped for good; what waited there is in `emit`, or waits here. The other
    /// one's state must not be used any more, here or there.
    ///
    /// # Errors
    /// If it is not what a pipeline can hold: nothing was used then.
    pub fn resume(
        provider: Arc<dyn Provider>,
        now: Instant,
        running: Running,
        emit: &mut Vec<Emit>,
    ) -> Result<Self, RefusalReason> {
        let pipeline = Self::new(provider);
        for live in running.sas {
            writing(&pipeline.sad).restore(now, live, &*pipeline.provider)?;
        }
        for policy in running.policies {
            if !writing(&pipeline.spd).put(policy) {
                return Err(RefusalReason::Full("policies".into()));
            }
        }
        for Path { dst, mtu, since } in running.paths {
            pipeline.set_path_mtu(since.min(now), dst, mtu);
        }
        pipeline.take_over(now, running.waiting, emit);
        Ok(pipeline)
    }

    /// What is needed to go on elsewhere. Exact only while nobody uses this one.
    pub fn export(&self, now: Instant) -> Running {
        let waiting = {
            let (queue, fragments) = (locked(&self.queue), locked(&self.fragments));
            let whole = queue.waiting();
            let whole = whole.map(|w| Held { fragmented: w.fragmented, packet: w.packet.clone() });
            let pieces = fragments.waiting();
            let pieces = pieces.map(|piece| Held { fragmented: true, packet: piece.to_vec() });
            whole.chain(pieces).collect()
        };
        Running {
            sas: reading(&self.sad).export(now),
            policies: reading(&self.spd).policies().copied().collect(),
            paths: reading(&self.paths).export(),
            waiting,
        }
    }

    /// Carries out changes in order. Packets that waited for them come out of [`release_for`](Self::release_for).
    pub fn apply(&self, now: Instant, batch: &Batch) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (index, change) in batch.0.iter().enumerate() {
            if let Err(reason) = self.change(now, change) {
                refusals.push(Refusal { index, reason });
            }
        }
        refusals
    }

    fn change(&self, now: Instant, change: &Change) -> Result<(), RefusalReason> {
        match change {
            Change::AddSa(sa) => {
                writing(&self.sad).add(now, sa.clone(), &*self.provider)?;
            }
            Change::AdoptSa(sa) if reading(&self.sad).contains(sa.direction, sa.key()) => {}
            Change::AdoptSa(sa) => return Err(RefusalReason::Gone(format!("SA {}", sa.spi))),
            Change::RemoveSa(key) => {
                writing(&self.sad).remove_key(*key);
            }
            Change::MoveSa { key, outer } => {
                writing(&self.sad).relocate(*key, *outer);
            }
            Change::PutPolicy(policy) => {
                if !writing(&self.spd).put(*policy) {
                    return Err(RefusalReason::Full("policies".into()));
                }
            }
            Change::RemovePolicy(key) => {
                writing(&self.spd).remove(key);
            }
            Change::DropQueued(peer) => self.drop_queued(*peer),
        }
        Ok(())
    }

    /// Queues that have waited too long, time limits, SAs that idle; call about once a second. What waits and need not any more comes
    /// out here.
    pub fn tick(&self, now: Instant, emit: &mut Vec<Emit>) {
        self.retire_expired(now);
        let idle = reading(&self.sad).idle(now);
        if let Some(idle) = idle {
            writing(&self.sad).rest(now, &idle);
        }
        locked(&self.fragments).expire(now);
        self.expire_queue(now);
        self.drain_all(now, emit);
    }

    /// Packets that waited for changes that were just [applied](Self::apply), each peer's in their order. Takes no
    /// longer where more SAs and packets wait for other peers.
    pub fn release_for(&self, now: Instant, batch: &Batch, emit: &mut Vec<Emit>) {
        if self.queue_is_empty() {
            return;
        }
        let peers = locked(&self.queue).concerned(batch);
        for peer in peers {
            self.drain(now, peer, emit);
        }
    }

    /// The path to `dst` carries packets of at most `mtu` bytes (from ICMP, or from the outgoing device).
    ///
    /// Kept for ten minutes (RFC 1191 6.3), and never below what IP allows (552 for IPv4, 1280 for IPv6).
    pub fn set_path_mtu(&self, now: Instant, dst: IpAddr, mtu: u32) {
        writing(&self.paths).set(now, dst, mtu);
    }

    /// What paths carry of which nothing else is known: the MTU of the outgoing device. Kept for good.
    pub fn set_default_mtu(&self, mtu: u32) {
        writing(&self.paths).set_default(mtu);
    }

    /// What this host must do with a packet that arrived in the clear (RFC 4301 5.2, step 3b).
    pub fn clear_in(&self, now: Instant, packet: &[u8]) -> Verdict {
        let Ok(headers) = crate::packet::parse(packet) else {
            self.counters.in_malformed.count();
            return Verdict::Drop;
        };
        let info = headers.info(packet);
        match self.policy_in(&info) {
            Some(Action::Bypass | Action::Protect { optional: true, .. }) => Verdict::Pass,
            Some(Action::Protect { .. }) => {
                self.counters.in_clear.count();
                locked(&self.events).clear_in(now, info);
                Verdict::Drop
            }
            Some(Action::Discard) | None => {
                self.counters.in_discarded.count();
                Verdict::Drop
            }
        }
    }

    /// Counters and contents, SAs and policies in a fixed order.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut sas: Vec<_> = {
            let sad = reading(&self.sad);
            let live = sad.entries().filter(|entry| !entry.is_expired(now));
            live.map(|entry| entry.usage()).collect()
        };
        sas.sort_by_key(|usage| usage.key);
        self.counters.events_dropped.add(locked(&self.events).take_dropped());
        let policies = reading(&self.spd).policies().map(crate::spd::Policy::key).collect();
        Snapshot { sas, policies, counters: self.counters.list(), ..Snapshot::default() }
    }

    /// The SAs, inbound first.
    pub fn sas(&self) -> Vec<Arc<Entry>> {
        reading(&self.sad).entries().cloned().collect()
    }

    /// The SA of this direction and key.
    pub fn sa(&self, direction: Direction, key: SaKey) -> Option<Arc<Entry>> {
        reading(&self.sad).get(direction, key).cloned()
    }

    /// Grows whenever an SA comes, goes, or moves: while it stays, so does [`sas`](Self::sas).
    pub fn sa_changes(&self) -> u64 {
        reading(&self.sad).changes()
    }

    /// The next event.
    pub fn poll_event(&self) -> Option<DataplaneEvent> {
        locked(&self.events).pop()
    }

    /// The action for a packet on its way in: to this host, or through it.
    fn policy_in(&self, info: &PacketInfo) -> Option<Action> {
        let spd = reading(&self.spd);
        let policy = spd.lookup(Flow::In, info).or_else(|| spd.lookup(Flow::Fwd, info));
        policy.map(|policy| policy.action)
    }

    /// Takes an SA out of use that reached a hard limit.
    fn retire(&self, entry: &Entry) {
        if entry.retire() {
            self.retired.store(true, Relaxed);
            locked(&self.events).vital(DataplaneEvent::HardLimit(entry.sa.key()));
        }
    }

    fn retire_expired(&self, now: Instant) {
        let due = reading(&self.sad).next_end() <= now;
        if !self.retired.swap(false, Relaxed) && !due {
            return;
        }
        let expired = writing(&self.sad).take_expired(now);
        for entry in expired.iter().filter(|entry| entry.retire()) {
            locked(&self.events).vital(DataplaneEvent::HardLimit(entry.sa.key()));
        }
    }

    /// Packets to this address wait, and go first.
    fn waits_for(&self, dst: IpAddr) -> bool {
        !self.queue_is_empty() && locked(&self.queue).holds(dst)
    }

    fn queue_is_empty(&self) -> bool {
        self.queued.load(Relaxed) == 0
    }
}

impl Emit {
    /// The whole IP packet, as it is on the wire or for the stack: for captures, simulated links and tests.
    ///
    /// `None` if it would be longer than IP can say.
    pub fn to_ip(&self) -> Option<Vec<u8>> {
        match self {
            Self::Esp(packet) => packet.to_ip(&[]),
            Self::EspInUdp { packet, local_port, remote } => {
                let len = u16::try_from(packet.esp.len() + UDP_HEADER).ok()?;
                let [s0, s1] = local_port.to_be_bytes();
                let [d0, d1] = remote.port().to_be_bytes();
                let [l0, l1] = len.to_be_bytes();
                let mut whole = packet.to_ip(&[s0, s1, d0, d1, l0, l1, 0, 0])?;
                // RFC 3948 2.1: the checksum should be zero; over IPv6 it must not be (RFC 8200 8.1).
                if packet.src.is_ipv6() {
                    let headers = crate::packet::parse(&whole).ok()?;
                    crate::checksum::refresh(&mut whole, &headers);
                }
                Some(whole)
            }
            Self::Clear(packet) | Self::Deliver(packet) => Some(packet.clone()),
        }
    }
}

impl OuterPacket {
    fn to_ip(&self, udp: &[u8]) -> Option<Vec<u8>> {
        let fields = HeaderFields {
            src: self.src,
            dst: self.dst,
            protocol: self.protocol,
            tos: self.tos,
            ttl: self.ttl,
            dont_fragment: self.dont_fragment,
        };
        let header = fields.build(self.options.len() + udp.len() + self.esp.len())?;
        let mut packet = header.to_vec();
        packet.extend_from_slice(&self.options);
        if self.src.is_ipv4() {
            packet[0] = 0x40 | u8::try_from(packet.len() / 4).ok()? & 0x0f;
            crate::packet::fill_ipv4_checksum(&mut packet);
        }
        packet.extend_from_slice(udp);
        packet.extend_from_slice(&self.esp);
        Some(packet)
    }
}

impl OuterInfo {
    /// What a receiver sees of an ESP packet that was sent like this; `None` for other packets.
    pub fn of(emit: &Emit) -> Option<Self> {
        let (packet, port) = match emit {
            Emit::Esp(packet) => (packet, None),
            Emit::EspInUdp { packet, local_port, .. } => (packet, Some(*local_port)),
            Emit::Clear(_) | Emit::Deliver(_) => return None,
        };
        Some(Self {
            src: SocketAddr::new(packet.src, port.unwrap_or(0)),
            dst: packet.dst,
            tos: packet.tos,
            ttl: packet.ttl,
            udp: port.is_some(),
        })
    }
}

/// The protocol that carries ESP.
const fn carrier(udp: bool) -> u8 {
    if udp { proto::UDP } else { proto::ESP }
}

// A panic under a lock would be a bug; the tables hold no state that is wrong half way.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reading<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn writing<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
