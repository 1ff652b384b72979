//! One host.
//!
//! The law: one [`Mesh::handle`] (or [`Mesh::command`]), then [`Mesh::poll`] until it gives
//! [`Output::Sleep`]. Outputs are carried out in the order in which they were polled; that order is
//! part of the meaning: an inbound SA is applied before the message that lets the peer use it is sent.

mod adoption;
mod certificates;
mod commands;
mod data_plane;
mod enforce;
mod hearing;
mod ike_events;
mod manifest_change;
mod moves;
mod radius;
mod redirects;
mod reminders;
mod shown;
mod tunnels;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ike::endpoint::{Datagram, EndpointConfig};
use ike::rng::Rng;
use ike::{Done, Endpoint, IkeSaId, Job, JobId, Load, Now, Provider, Secret};
use ipsec::Instant;
use ipsec::change::{Batch, Change, Refusal};
use ipsec::dataplane::{DataplaneEvent, Snapshot};
use ipsec::sa::SaKey;

use crate::backlog::Backlog;
use crate::bucket::Bucket;
use crate::budget::Budget;
use crate::command::Order;
use crate::directory::View;
use crate::event::{Event, Kind, Level};
use crate::fleet::Fleet;
use crate::journal::{self, Journal};
use crate::loaded::Loaded;
use crate::metrics::Counters;
use crate::peers::Peers;
use crate::reconcile::Reconciler;
use crate::status::DataPlane;

/// Handshakes that this host begins at once.
const HANDSHAKES: usize = 64;
/// Time between two looks at the data plane: a lost SA is found within this, a pair of which one half is
/// deaf within two of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same where there is reason to look at once: a bound for two programs that undo each other's work.
const LOOK_SOONEST: Duration = Duration::from_millis(100);

/// Who this host is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its address in the mesh: the source of its ESP packets and its side of every pair, but for those of the other
    /// family, see [`crate::plan::Plan::own`].
    pub address: IpAddr,
    /// Its name, for people.
    pub name: String,
    /// This program's version.
    pub version: String,
    /// Which data plane carries the outputs out.
    pub data_plane: DataPlane,
}

/// What happened outside.
pub enum Input {
    /// An IKE datagram arrived on port 500 or 4500.
    Datagram(Datagram),
    /// What `Output::Journal` left when this host's last process ended, in any order; given before the first
    /// manifest. Without it nothing is recorded.
    Journal(Vec<(journal::Key, Secret)>),
    /// What [`Mesh::orders`] was when this host's last process ended; given before the first manifest.
    Orders(BTreeMap<IpAddr, Order>),
    /// A manifest was accepted.
    Manifest(Box<Loaded>),
    /// The data plane refused some changes of this batch. Not needed where it refused none.
    Applied(Batch, Vec<Refusal>),
    /// What the data plane holds: the answer to `Output::Inspect`.
    Snapshot(Snapshot),
    /// The data plane reports something.
    Kernel(DataplaneEvent),
    /// A job is done.
    JobDone(JobId, Done),
    /// The addresses by which others can reach this host, the one to be preferred first: given where tunnels may move.
    Addresses(Vec<IpAddr>),
    /// Time passed: the last `Sleep` is over.
    Tick,
}

/// What is to be carried out.
pub enum Output {
    /// Make these changes, and give what is refused to `Input::Applied`.
    Apply(Batch),
    /// Keep this record, instead of an earlier one of the same key; or forget that one. It must be done
    /// before the next `Transmit` is.
    Journal(journal::Key, Option<Secret>),
    /// Send this.
    Transmit(Datagram),
    /// Do this off the loop, and give the result to `Input::JobDone`.
    Job(Job),
    /// Take a snapshot of the data plane and give it to `Input::Snapshot`.
    Inspect,
    /// Tell this to whoever listens.
    Report(Event),
    /// Nothing more until this time (give `Input::Tick` then), or until another input.
    Sleep(Instant, Why),
}

/// Why a mesh wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// A timer of IKE.
    Ike(ike::endpoint::Why),
    /// A peer is tried again, or its grace is over.
    Peer(IpAddr),
    /// The data plane is looked at.
    Inspect,
    /// An SA that a newer one serves for is taken away.
    LetGo,
    /// Something is said again: an expiring certificate, `optional`.
    Remind,
    /// Nothing to wait for.
    Nothing,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ike(why) => write!(f, "IKE ({why:?})"),
            Self::Peer(peer) => write!(f, "the next attempt with {peer}"),
            Self::Inspect => f.write_str("the next look at the data plane"),
            Self::LetGo => f.write_str("the end of a replaced SA"),
            Self::Remind => f.write_str("the next reminder"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// One host's view of its fleet.
pub struct Mesh {
    identity: Identity,
    started: u64,
    loaded_at: u64,
    endpoint: Endpoint,
    fleet: Option<Fleet>,
    peers: Peers,
    /// Whose an IKE SA is.
    ikes: BTreeMap<IkeSaId, IpAddr>,
    budget: Budget,
    backlog: Backlog,
    reconciler: Reconciler,
    rng: Rng,
    outbox: VecDeque<Output>,
    changes: Vec<Change>,
    look_at: Instant,
    looked_at: Instant,
    /// Outbound SAs that newer ones serve for, and when they go; in that order.
    parting: VecDeque<(Instant, SaKey)>,
    reminders: reminders::Reminders,
    counters: Counters,
    journal: Journal,
    /// Those of an earlier process, until there is a manifest.
    orders: BTreeMap<IpAddr, Order>,
    /// Peers that lost a child SA in what is being drained, and whether it is to be restored.
    torn: BTreeMap<IpAddr, bool>,
    /// Tunnels that are begun because of packets that anybody can send.
    strays: Bucket,
    /// Warnings about what anybody can send.
    complaints: Bucket,
    /// Tunnels go, and inbound SAs outlive them, see [`crate::Command::Leave`].
    leaving: bool,
    /// Questions to peers that were sent packets and sent none.
    questions: Bucket,
    /// Which peer last gave a sign of life that could not be forged.
    last_heard: Option<(Instant, IpAddr)>,
    /// What passed in the clear although it would be protected if that were possible.
    cleartext: crate::cleartext::Book,
    /// What a peer showed last: the next one shows the same, as a rule.
    last_proof: Option<Arc<ike::event::PeerProof>>,
}

/// What a host has room for. Hosts of one fleet that start together are no flood: cookies only for what exceeds one.
pub const LIMITS: EndpointConfig = EndpointConfig {
    cookie_threshold: 256,
    max_half_open: 4096,
    max_ike_sas: 2 * crate::peers::MAX_PEERS,
    max_sas_of_peer: 64,
    max_children: 64,
};

impl Mesh {
    /// A host without a manifest: it answers nobody and changes nothing. `seed` comes from the OS
    /// on a real host; with the same seed and inputs the outputs are the same.
    pub fn new(identity: Identity, provider: Arc<dyn Provider>, seed: [u8; 32], now: Now) -> Self {
        Self::with_limits(identity, provider, seed, now, LIMITS)
    }

    /// The same with other limits of IKE than [`LIMITS`].
    pub fn with_limits(
        identity: Identity,
        provider: Arc<dyn Provider>,
        seed: [u8; 32],
        now: Now,
        limits: EndpointConfig,
    ) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            identity,
            started: now.unix,
            loaded_at: now.unix,
            endpoint: Endpoint::new(limits, provider, rng.bytes()),
            fleet: None,
            peers: Peers::default(),
            ikes: BTreeMap::new(),
            budget: Budget::new(HANDSHAKES),
            backlog: Backlog::default(),
            reconciler: Reconciler::default(),
            rng,
            outbox: VecDeque::new(),
            changes: Vec::new(),
            leaving: false,
            look_at: Instant::NEVER,
            looked_at: Instant::ZERO,
            parting: VecDeque::new(),
            reminders: reminders::Reminders::default(),
            counters: Counters::default(),
            journal: Journal::default(),
            orders: BTreeMap::new(),
            torn: BTreeMap::new(),
            strays: Bucket::new(128, 32),
            complaints: Bucket::new(32, 4),
            questions: Bucket::new(64, 64),
            last_heard: None,
            last_proof: None,
            cleartext: crate::cleartext::Book::default(),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Datagram(datagram) => self.on_datagram(now, datagram),
            Input::Journal(found) => self.on_journal(found),
            Input::Orders(orders) => self.orders = orders,
            Input::Manifest(loaded) => self.on_manifest(now, *loaded),
            Input::Applied(batch, refusals) => self.on_refusals(now, &batch, &refusals),
            Input::Snapshot(snapshot) => self.on_snapshot(now, &snapshot),
            Input::Kernel(event) => self.on_kernel(now, event),
            Input::JobDone(id, done) => self.on_job_done(now, id, done),
            Input::Addresses(own) => self.endpoint.set_addresses(now, &own),
            Input::Tick => {}
        }
        self.run(now);
    }

    /// The next output; the last is always `Sleep`.
    pub fn poll(&mut self) -> Output {
        if let Some(output) = self.outbox.pop_front() {
            return output;
        }
        if !self.changes.is_empty() {
            return Output::Apply(Batch(std::mem::take(&mut self.changes)));
        }
        let (at, why) = self.next_wake();
        Output::Sleep(at, why)
    }

    fn on_datagram(&mut self, now: Now, datagram: Datagram) {
        self.counters.datagrams_in += 1;
        let (salt, adopting) = (self.rng.u64(), self.adopts());
        match &self.fleet {
            Some(fleet) => {
                let (peers, reconciler) = (&self.peers, &self.reconciler);
                let load = self.backlog.load(now.at);
                let view = View { fleet, peers, reconciler, salt, adopting, load };
                self.endpoint.datagram(now, datagram, &view);
            }
            None => self.counters.before_manifest += 1,
        }
    }

    fn on_job_done(&mut self, now: Now, id: JobId, done: Done) {
        self.backlog.done(id, now.at);
        self.endpoint.job_done(now, id, done);
    }

    /// Does everything that is due, until nothing is.
    fn run(&mut self, now: Now) {
        self.drain(now);
        if self.endpoint.next_timeout().is_some_and(|(at, _)| at <= now.at) {
            self.endpoint.tick(now);
            self.drain(now);
        }
        self.peers.arm();
        if !self.adopts() {
            self.peers_due(now);
        }
        self.remind(now);
        self.see_off(now);
        if self.look_at <= now.at {
            (self.look_at, self.looked_at) = (now.at + LOOK_EVERY, now.at);
            self.reconciler.begin_look();
            self.push(Output::Inspect);
        }
    }

    /// This host's side of a pair.
    fn own(&self, remote: IpAddr) -> IpAddr {
        self.fleet.as_ref().and_then(|f| f.plan().own(remote)).unwrap_or(self.identity.address)
    }

    /// Something is not as it should be in the data plane, it seems.
    fn look_soon(&mut self, now: Now) {
        let soonest = now.at.max(self.looked_at + LOOK_SOONEST);
        self.look_at = self.look_at.min(soonest);
    }

    fn peers_due(&mut self, now: Now) {
        while let Some((_, address)) = self.peers.first().filter(|(at, _)| *at <= now.at) {
            self.peer_due(now, address);
            self.drain(now);
            self.peers.arm();
        }
        while self.backlog.load(now.at) < Load::Full
            && let Some(address) = self.budget.take(now.at)
        {
            self.begin(now, address);
            self.drain(now);
        }
        self.peers.arm();
    }

    /// What the endpoint says next; records come before it.
    fn next_output(&mut self) -> Option<ike::Output> {
        self.write_journal();
        self.endpoint.poll()
    }

    /// Takes what the endpoint has to say, in its order.
    fn drain(&mut self, now: Now) {
        while let Some(output) = self.next_output() {
            match output {
                ike::Output::Transmit(datagram) => {
                    self.counters.datagrams_out += 1;
                    self.push(Output::Transmit(datagram));
                }
                ike::Output::Job(job) => {
                    self.backlog.begun(job.id, now.at);
                    self.push(Output::Job(job));
                }
                ike::Output::Event(event) => self.on_ike(now, event),
            }
        }
        for (address, restart) in std::mem::take(&mut self.torn) {
            // Where the IKE SA went as well, that has decided already.
            if self.peers.get(address).is_some_and(|p| p.keeper().is_some()) {
                self.after_loss(now, address, restart);
            }
        }
    }

    /// Changes collect until something else is to be done after them.
    fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    fn push(&mut self, output: Output) {
        // A report waits for nothing and nothing waits for it: it does not cut a batch in two. A record is
        // waited for by what is sent, and not by the data plane.
        let orders = !matches!(output, Output::Report(_) | Output::Journal(..));
        if orders && !self.changes.is_empty() {
            let batch = Batch(std::mem::take(&mut self.changes));
            self.outbox.push_back(Output::Apply(batch));
        }
        self.outbox.push_back(output);
    }

    fn report(
        &mut self,
        now: Now,
        level: Level,
        peer: Option<IpAddr>,
        kind: Kind,
        text: impl Into<String>,
    ) {
        let name = peer.and_then(|p| self.fleet.as_ref()?.name(p)).map(str::to_owned);
        let event = Event { time: now.unix, level, peer, name, kind, text: text.into() };
        self.push(Output::Report(event));
    }

    /// Reports what nobody has proven; only so often as a warning.
    fn complain(&mut self, now: Now, peer: IpAddr, kind: Kind, text: impl Into<String>) {
        let level = if self.complaints.take(now.at) { Level::Warn } else { Level::Debug };
        self.report(now, level, Some(peer), kind, text);
    }

    fn next_wake(&self) -> (Instant, Why) {
        let ike = self.endpoint.next_timeout().map(|(at, why)| (at, Why::Ike(why)));
        // No peer has its turn before it is known what the last process left: the answer to a look wakes.
        let peer = self.peers.first().filter(|_| !self.adopts());
        let peer = peer.map(|(at, address)| (at, Why::Peer(address)));
        let look = Some((self.look_at, Why::Inspect));
        let remind = Some((self.reminders.at, Why::Remind));
        let leave = self.parting.front().map(|(at, _)| (*at, Why::LetGo));
        let due = [ike, peer, look, remind, leave].into_iter().flatten().min_by_key(|(at, _)| *at);
        due.filter(|(at, _)| *at != Instant::NEVER).unwrap_or((Instant::NEVER, Why::Nothing))
    }
}
