//! What every IKE SA of an endpoint shares while one of them is being handled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crypto::{Provider, Secret};
use wire::datagram::NON_ESP_MARKER;
use wire::message::IkeSpi;

use crate::child_sa::Children;
use crate::endpoint::{Datagram, EndpointConfig, Output};
use crate::error::Misbehaviour;
use crate::event::{Event, IkeSaId};
use crate::exchange::liveness::Pace;
use crate::ike_sa::IkeSa;
use crate::job::{Job, JobId, Work};
use crate::redirect::Followed;
use crate::rng::Rng;
use crate::timer::Timers;

/// The port of IKE; every IKE SA starts there (RFC 7296 2.23).
pub(crate) const IKE_PORT: u16 = 500;

/// The port of NAT traversal (RFC 3948): IKE messages carry a non-ESP marker there.
pub(crate) const NATT_PORT: u16 = 4500;

/// Bytes of a nonce that is made here: at least half the key of any prf (RFC 7296 2.10).
const NONCE_LEN: usize = 32;

/// What an SA needs besides itself: the way out, time's hooks, randomness, algorithms.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) rng: Rng,
    pub(crate) timers: Timers,
    pub(crate) children: Children,
    pub(crate) limits: EndpointConfig,
    /// Local SPIs of all IKE SAs.
    pub(crate) by_spi: BTreeMap<IkeSpi, IkeSaId>,
    /// IKE SAs per peer address, of any state.
    pub(crate) peers: BTreeSet<(IpAddr, IkeSaId)>,
    /// What is to be done to other IKE SAs once the one in hand is put back.
    pub(crate) after: VecDeque<After>,
    /// All addresses of this host, best first: one that is not among them is gone.
    pub(crate) addresses: Vec<IpAddr>,
    /// Liveness checks of late.
    pub(crate) pace: Pace,
    /// Tokens shown of late (RFC 6290).
    pub(crate) tokens: Pace,
    /// First requests and others that were answered without protection, by what they were told.
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// Redirects of late (RFC 5685).
    pub(crate) followed: Followed,
    /// Of this process alone, for tokens where there is no better one.
    pub(crate) crash_secret: Secret,
    /// IKE SAs whose records changed.
    pub(crate) unsaved: BTreeSet<IkeSaId>,
    out: VecDeque<Output>,
    jobs: BTreeMap<JobId, IkeSaId>,
    last_job: u64,
    last_ike: u64,
}

/// What the handling of one IKE SA means for others.
#[derive(Clone)]
pub(crate) enum After {
    /// A new IKE SA came out of a rekey.
    Spawn(Box<IkeSa>),
    /// `new` takes the children and the tasks of `old` over.
    Inherit {
        /// The replaced SA.
        old: IkeSaId,
        /// Its successor.
        new: IkeSaId,
    },
    /// The peer uses `new` although its rekey is not settled here.
    Adopt {
        /// The SA that is replaced thereby.
        old: IkeSaId,
        /// Its successor.
        new: IkeSaId,
    },
    /// An IKE SA is authenticated; its older twins are to be found.
    Established {
        /// Which.
        id: IkeSaId,
        /// The peer said INITIAL_CONTACT.
        peer_contact: bool,
    },
    /// Close an IKE SA that lost a simultaneous rekey.
    CloseRedundant(IkeSaId),
    /// The peer deleted a replaced IKE SA.
    Ended(IkeSaId),
    /// Close an IKE SA whose successor is up.
    CloseReplaced(IkeSaId),
    /// An IKE SA that this host initiated is up at both ends: close what it replaces.
    Supersede(IkeSaId),
}

impl Context {
    pub(crate) fn new(provider: Arc<dyn Provider>, mut rng: Rng, limits: EndpointConfig) -> Self {
        let crash_secret = Secret::from(&rng.bytes::<32>()[..]);
        Self {
            provider,
            rng,
            timers: Timers::default(),
            children: Children::default(),
            limits,
            by_spi: BTreeMap::new(),
            peers: BTreeSet::new(),
            after: VecDeque::new(),
            addresses: Vec::new(),
            pace: Pace::default(),
            tokens: Pace::default(),
            refused: BTreeMap::new(),
            followed: Followed::default(),
            crash_secret,
            unsaved: BTreeSet::new(),
            out: VecDeque::new(),
            jobs: BTreeMap::new(),
            last_job: 0,
            last_ike: 0,
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    pub(crate) fn dropped(&mut self, remote: SocketAddr, what: Misbehaviour) {
        self.event(Event::Dropped { remote, what });
    }

    /// Sends an IKE message; `bytes` without non-ESP marker.
    pub(crate) fn transmit(&mut self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        let marker = if local.port() == NATT_PORT { &NON_ESP_MARKER[..] } else { &[] };
        let bytes = [marker, bytes].concat();
        self.out.push_back(Output::Transmit(Datagram { local, remote, bytes }));
    }

    /// Sends a NAT keepalive (RFC 3948 2.3).
    pub(crate) fn keepalive(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.out.push_back(Output::Transmit(Datagram { local, remote, bytes: vec![0xff] }));
    }

    /// Gives work away; the result comes back to the IKE SA.
    pub(crate) fn job(&mut self, ike: IkeSaId, work: Work) -> JobId {
        self.last_job += 1;
        let id = JobId(self.last_job);
        self.jobs.insert(id, ike);
        self.out.push_back(Output::Job(Job { id, work }));
        id
    }

    /// How much is held, by table.
    pub(crate) fn census(&self) -> [(&'static str, usize); 5] {
        [
            ("timers", self.timers.len()),
            ("child SAs", self.children.iter().count()),
            ("IKE SPIs", self.by_spi.len()),
            ("IKE SAs of addresses", self.peers.len()),
            ("jobs", self.jobs.len()),
        ]
    }

    /// Whose job it was.
    pub(crate) fn finished(&mut self, id: JobId) -> Option<IkeSaId> {
        self.jobs.remove(&id)
    }

    pub(crate) fn fresh_ike_id(&mut self) -> IkeSaId {
        self.last_ike += 1;
        IkeSaId(self.last_ike)
    }

    /// IKE SAs of a peer's address, of any state, in the order of their ids.
    pub(crate) fn ikes_of(&self, peer: IpAddr) -> impl Iterator<Item = IkeSaId> {
        let all = (peer, IkeSaId(0))..=(peer, IkeSaId(u64::MAX));
        self.peers.range(all).map(|(_, id)| *id)
    }

    /// A local SPI that no IKE SA has.
    pub(crate) fn fresh_ike_spi(&mut self) -> IkeSpi {
        loop {
            let spi = IkeSpi(self.rng.u64());
            if spi.0 != 0 && !self.by_spi.contains_key(&spi) {
                return spi;
            }
        }
    }

    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        self.rng.bytes::<NONCE_LEN>().to_vec()
    }
}
