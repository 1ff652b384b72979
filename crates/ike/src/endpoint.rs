//! All IKE SAs of one host.
//!
//! Calls come in four kinds: what arrived (`datagram`, `job_done`), commands (`initiate`,
//! `rekey_child`, …), time (`tick`, not before `next_timeout`), and `poll`, which must be called
//! after each of the others until it gives `None`: its outputs are to be carried out in that order.

mod admit;
mod asked;
mod half_open;
mod restore;
mod twins;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::{Provider, Secret};
use ipsec::Instant;
use ipsec::sa::Outer;
use wire::message::{Header, IkeSpi};
use wire::registry::{ExchangeType, NotifyType};

use crate::child_sa::{self, Stage};
use crate::collide::{self, Side};
use crate::config::{ChildConfig, Directory, Load, PeerConfig};
use crate::context::{After, Context, IKE_PORT, NATT_PORT};
use crate::cookie::{Claim, CookieJar};
use crate::crash::{self, Names};
use crate::error::{EndReason, Failure, Misbehaviour};
use crate::established::{Established, Life, Task};
use crate::event::{ChildId, ChildInfo, Event, IkeInfo, IkeSaId};
use crate::exchange::addresses;
use crate::exchange::init::{self, Request, Verdict};
use crate::exchange::rekey;
use crate::ike_sa::{Arrived, Ends, IkeSa, State, error_notify};
use crate::job::{Done, Job, JobId};
use crate::mobility::is_reachable;
use crate::redirect::{NotFollowed, Redirect};
use crate::rng::Rng;
use crate::timer::Timer;

pub use restore::Restored;

/// Half-open SAs of one address, at most.
const MAX_HALF_OPEN_PER_PEER: usize = 16;
/// … and above so many it must show that it is there (RFC 7296 2.6): made-up first requests in a
/// peer's name do not shut it out.
const UNPROVEN_PER_PEER: usize = 4;

/// Time between two answers to unprotected messages that are no first requests.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The loser of two IKE SAs that were initiated at once is closed after this long by its initiator …
const CLOSE_OWN_TWIN: Duration = Duration::from_secs(2);
/// … and, if the peer does not, after this long by the other side: the peer may hold the newer one for a
/// replacement rather than a twin, where messages were lost.
const CLOSE_PEER_TWIN: Duration = Duration::from_secs(5);

/// The two clocks: one for timers, one for certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic.
    pub at: Instant,
    /// Seconds since the Unix epoch.
    pub unix: u64,
}

/// A UDP datagram; `bytes` is its whole payload, non-ESP marker included where port 4500 has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// This host's address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// UDP payload.
    pub bytes: Vec<u8>,
}

/// What is to be carried out, in order.
#[derive(Clone)]
pub enum Output {
    /// Send this.
    Transmit(Datagram),
    /// Do this off the loop and give the result to `job_done`.
    Job(Job),
    /// Take note of this.
    Event(Event),
}

/// Why an endpoint wants to be woken; the nearest timer decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Why {
    /// A request has no response yet.
    Retransmit,
    /// A half-open SA of a peer that went silent.
    HalfOpen,
    /// A request of a peer that came in part.
    Fragments,
    /// An IKE SA is due for rekeying.
    RekeyIke,
    /// A child SA is due for rekeying.
    RekeyChild,
    /// An SA reached its hard lifetime.
    Expire,
    /// No sign of the peer for its `dpd_delay`.
    Liveness,
    /// A NAT mapping must be kept alive.
    Keepalive,
    /// A closed or replaced SA lingers to answer late retransmissions.
    Linger,
    /// A refused exchange is tried again (TEMPORARY_FAILURE, RFC 7296 2.25).
    Retry,
}

/// A command that cannot be carried out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such SA.
    #[error("there is no such SA")]
    NotFound,
    /// It is not established, or on its way down.
    #[error("the SA is not established")]
    NotEstablished,
}

/// Keys of an IKE SA for Wireshark's `ikev2_decryption_table`.
pub struct ExportedKeys {
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Algorithms of the SK payload.
    pub cipher: crypto::cipher::CipherSpec,
    /// Encryption, initiator to responder.
    pub sk_ei: Secret,
    /// Encryption, responder to initiator.
    pub sk_er: Secret,
    /// Integrity, initiator to responder.
    pub sk_ai: Secret,
    /// Integrity, responder to initiator.
    pub sk_ar: Secret,
}

/// Limits of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointConfig {
    /// Half-open SAs, as responder, of peers that are not known, from which on cookies are asked for.
    pub cookie_threshold: usize,
    /// Half-open SAs, as responder, above which new ones are dropped.
    pub max_half_open: usize,
    /// IKE SAs in all.
    pub max_ike_sas: usize,
    /// IKE SAs with one address, all states counted. A rekey asked for by the peer is refused with NO_ADDITIONAL_SAS
    /// where it would take the last place: a peer that has lost its SAs must find one.
    pub max_sas_of_peer: usize,
    /// Child SAs of one IKE SA; more are refused with NO_ADDITIONAL_SAS.
    pub max_children: usize,
}

/// All IKE SAs of one host.
///
/// A copy is for asking what would happen: it has the same keys, message IDs and random numbers to come, so only one of
/// the two may speak to a real peer.
#[derive(Clone)]
pub struct Endpoint {
    cx: Context,
    cookies: CookieJar,
    asked: asked::Asked,
    sas: BTreeMap<IkeSaId, Box<IkeSa>>,
    /// First requests that an SA came of: a repeat is not a new peer.
    inits: BTreeMap<(SocketAddr, IkeSpi), IkeSaId>,
    /// Half-open SAs as responder.
    half_open: half_open::HalfOpen,
    /// Losers among IKE SAs that were initiated at once, by the peer's address.
    redundant: BTreeSet<(IpAddr, IkeSaId)>,
    /// Whose IKE SAs were handled since redundant ones were looked at last.
    touched: Vec<IpAddr>,
    /// Before this, no unprotected message is answered that is no first request.
    tell_at: Instant,
    tell_version_at: Instant,
}

impl Endpoint {
    /// An endpoint without SAs.
    pub fn new(config: EndpointConfig, provider: Arc<dyn Provider>, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed);
        let cookies = CookieJar::new(rng.bytes());
        Self {
            cx: Context::new(provider, rng, config),
            cookies,
            asked: Default::default(),
            sas: BTreeMap::new(),
            inits: BTreeMap::new(),
            half_open: Default::default(),
            redundant: BTreeSet::new(),
            touched: Vec::new(),
            tell_at: Instant::ZERO,
            tell_version_at: Instant::ZERO,
        }
    }

    /// A datagram arrived on port 500 or 4500 (ESP in UDP is not for here; it is ignored).
    pub fn datagram(&mut self, now: Now, datagram: Datagram, directory: &dyn Directory) {
        let Datagram { local, remote, bytes } = &datagram;
        let bytes = match local.port() {
            NATT_PORT => match wire::datagram::classify(bytes) {
                wire::datagram::Datagram::Ike(ike) => ike,
                wire::datagram::Datagram::Esp(..) | wire::datagram::Datagram::Keepalive => return,
                wire::datagram::Datagram::Malformed => {
                    return self.cx.dropped(*remote, Misbehaviour::Malformed);
                }
            },
            _ => bytes.as_slice(),
        };
        if let Err(what) = self.message(now, *local, *remote, bytes, directory) {
            self.cx.dropped(*remote, what);
        }
    }

    fn message(
        &mut self,
        now: Now,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
        directory: &dyn Directory,
    ) -> Result<(), Misbehaviour> {
        let header = Header::parse(bytes).map_err(|_| Misbehaviour::Malformed)?;
        let mut arrived = Arrived { local, remote, header, welcome: false, bytes };
        if header.version >> 4 != Header::VERSION >> 4 {
            if header.version >> 4 > Header::VERSION >> 4 {
                self.tell_version(now, arrived, directory);
            }
            return Err(Misbehaviour::Version);
        }
        if usize::try_from(header.length) != Ok(bytes.len()) {
            return Err(Misbehaviour::Malformed);
        }
        if header.exchange == ExchangeType::IKE_SA_INIT && !header.flags.response {
            return self.first_request(now, arrived, directory);
        }
        let (here, there) = match header.flags.initiator {
            true => (header.spi_r, header.spi_i),
            false => (header.spi_i, header.spi_r),
        };
        let Some(id) = self.cx.by_spi.get(&here).copied() else {
            self.tell_lost(now, arrived, directory);
            let later = [ExchangeType::INFORMATIONAL, ExchangeType::CREATE_CHILD_SA];
            if later.contains(&header.exchange) && !header.flags.response {
                self.cx.event(Event::UnknownIke { remote });
            }
            return Err(Misbehaviour::UnknownSpi);
        };
        let sa = self.sas.get(&id).ok_or(Misbehaviour::UnknownSpi)?;
        let peer_fits = sa.secured.is_none() || sa.peer_spi() == there;
        if sa.initiator == header.flags.initiator || !peer_fits {
            return Err(Misbehaviour::UnknownSpi);
        }
        arrived.welcome = is_welcome(sa, remote.ip(), directory);
        self.with(now, id, |cx, sa| sa.receive(cx, now, arrived));
        Ok(())
    }

    /// Tells a peer what is wrong with a request that belongs to no IKE SA, without protection and only so
    /// often (RFC 7296 1.5, 2.21.4).
    fn tell(
        &mut self,
        now: Now,
        arrived: Arrived<'_>,
        what: NotifyType,
        directory: &dyn Directory,
    ) {
        let asked = !arrived.header.flags.response && directory.is_known(arrived.remote.ip());
        if asked && now.at >= self.tell_at {
            self.tell_at = now.at + TELL_EVERY;
            init::refuse(&mut self.cx, arrived, what, Vec::new());
        }
    }

    /// The same of a request within an IKE SA that is not here; a peer that had it with this host learns that for sure (RFC 6290).
    fn tell_lost(&mut self, now: Now, arrived: Arrived<'_>, directory: &dyn Directory) {
        match self.lost_token(now, arrived, directory) {
            Some(token) => {
                let told = [error_notify(NotifyType::INVALID_IKE_SPI), crash::notify(&token)];
                init::refuse_with(&mut self.cx, arrived, &told);
            }
            None => self.tell(now, arrived, NotifyType::INVALID_IKE_SPI, directory),
        }
    }

    /// The token of an IKE SA that is lost. Never that of one that is there, by whichever of its names it is asked for,
    /// nor of a successor that the peer has already; and none before it is known what is there (RFC 6290 4.5).
    fn lost_token(
        &mut self,
        now: Now,
        arrived: Arrived<'_>,
        directory: &dyn Directory,
    ) -> Option<Secret> {
        let Header { spi_i, spi_r, flags, .. } = arrived.header;
        let (maker, taker) = (arrived.local.ip(), arrived.remote.ip());
        let whole =
            [spi_i, spi_r].iter().all(|spi| spi.0 != 0 && !self.cx.by_spi.contains_key(spi));
        if !whole || flags.response || !directory.is_settled() {
            return None;
        }
        let coming = |spi| self.sas.values().any(|sa| sa.up().and_then(rekey::coming) == Some(spi));
        // After a boot, nobody of the fleet was heard yet: whoever may be a peer is answered.
        let config = directory.responder(maker, arrived.remote)?;
        if !self.cx.tokens.allows(now.at) || coming(spi_i) || coming(spi_r) {
            return None;
        }
        let names = Names { spi_i, spi_r, initiator: !flags.initiator, maker, taker };
        crash::token(&*self.cx.provider, &config.auth, &self.cx.crash_secret, names)
    }

    /// Tells whoever may be a peer that its version is none of ours, only so often (RFC 7296 2.5). That IKE is spoken
    /// here can be asked for in this way by a host that has no tunnel: whatever is wrong with it, it learns that the
    /// network is not.
    fn tell_version(&mut self, now: Now, arrived: Arrived<'_>, directory: &dyn Directory) {
        let (here, there) = (arrived.local.ip(), arrived.remote);
        let asked = !arrived.header.flags.response && directory.responder(here, there).is_some();
        if asked && now.at >= self.tell_version_at {
            self.tell_version_at = now.at + TELL_EVERY;
            init::refuse(&mut self.cx, arrived, NotifyType::INVALID_MAJOR_VERSION, Vec::new());
        }
    }

    /// A job is done.
    pub fn job_done(&mut self, now: Now, id: JobId, done: Done) {
        if let Some(sa) = self.cx.finished(id) {
            self.with(now, sa, |cx, sa| sa.job_done(cx, now, id, done));
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) {
        while let Some((id, timer)) = self.cx.timers.pop(now.at) {
            match timer {
                Timer::RemoveChild(child) => child_sa::remove_retired(&mut self.cx, child),
                Timer::Redundant if !self.has_confirmed_twin(id) => {
                    self.cx.timers.set(id, timer, now.at + CLOSE_OWN_TWIN);
                    self.ask_twins(now, id);
                }
                _ => self.with(now, id, |cx, sa| sa.timer(cx, now, timer)),
            }
        }
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.cx.poll()
    }

    /// When `tick` is due, and why.
    pub fn next_timeout(&self) -> Option<(Instant, Why)> {
        self.cx.timers.next()
    }

    /// Starts an IKE SA with its first child SA. Ends in `IkeUp` and `ChildUp`, or in `IkeDown`. If one with
    /// the peer is up already, it is replaced, make before break (reauthentication, RFC 7296 2.8.3): it is
    /// deleted once the new one with its child SA is up at both ends, and stays if that fails.
    pub fn initiate(&mut self, now: Now, config: Arc<PeerConfig>) -> IkeSaId {
        self.begin(now, config, None)
    }

    /// The same with the gateway that the peer sent this host to, which must prove to be whom `config` says. A loop of
    /// redirects is not followed.
    pub fn follow(
        &mut self,
        now: Now,
        config: Arc<PeerConfig>,
        redirect: Redirect,
    ) -> Result<IkeSaId, NotFollowed> {
        if !self.cx.followed.allows(now.at, config.remote) {
            return Err(NotFollowed::Loop);
        }
        Ok(self.begin(now, config, Some(redirect)))
    }

    fn begin(&mut self, now: Now, config: Arc<PeerConfig>, redirect: Option<Redirect>) -> IkeSaId {
        let id = self.cx.fresh_ike_id();
        let home = config.remote;
        if self.sas.len() >= self.cx.limits.max_ike_sas {
            let reason = Failure::Local("this host has as many IKE SAs as it may".into());
            self.cx.event(Event::IkeDown { id, remote: home, reason });
            return id;
        }
        let ends = Ends {
            local: SocketAddr::new(config.local, IKE_PORT),
            remote: SocketAddr::new(redirect.map_or(home, |redirect| redirect.to), IKE_PORT),
            initiator: true,
            spi_i: self.cx.fresh_ike_spi(),
            spi_r: IkeSpi(0),
        };
        let from = redirect.map(|redirect| redirect.from);
        let mut sa = init::start(&mut self.cx, config, ends, id, from);
        if !matches!(sa.state, State::Gone) {
            sa.began = now.at;
            self.insert(Box::new(sa));
        }
        id
    }

    /// One more child SA.
    pub fn create_child(
        &mut self,
        now: Now,
        ike: IkeSaId,
        child: Arc<ChildConfig>,
    ) -> Result<(), CommandError> {
        self.task(now, ike, Task::NewChild(child))
    }

    /// Replaces a child SA now.
    pub fn rekey_child(&mut self, now: Now, child: ChildId) -> Result<(), CommandError> {
        let ike = self.ike_of(child)?;
        self.task(now, ike, Task::RekeyChild(child))
    }

    /// ESP of the peer came for an SPI that this host has not got. Where a child SA has that SPI,
    /// only the data plane lost it, and the child is replaced; else the peer is told to delete what
    /// it sends through. What is told is worth nothing to a forger: the peer has no such SA then.
    pub fn unknown_spi(
        &mut self,
        now: Now,
        ike: IkeSaId,
        spi: ipsec::Spi,
    ) -> Result<(), CommandError> {
        let known = self.cx.children.of(ike).into_iter().filter_map(|id| self.cx.children.get(id));
        let known: Vec<_> = known.filter(|child| child.spi_in == spi).collect();
        match known.as_slice() {
            [] => self.task(now, ike, Task::UnknownSpi(spi)),
            [child] if child.stage == Stage::Up && child.successor.is_none() => {
                let id = child.id;
                self.rekey_child(now, id)
            }
            // It is on its way in or out already.
            _ => Ok(()),
        }
    }

    /// Replaces an IKE SA now, its children move over.
    pub fn rekey_ike(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        self.task(now, ike, Task::RekeyIke)
    }

    /// Deletes a child SA in agreement with the peer.
    pub fn delete_child(&mut self, now: Now, child: ChildId) -> Result<(), CommandError> {
        let ike = self.ike_of(child)?;
        self.task(now, ike, Task::DeleteChild(child, EndReason::Deleted))
    }

    /// Deletes an IKE SA with its children in agreement with the peer; in any state, half-open included. The children go at once.
    pub fn delete_ike(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        self.visible(ike)?;
        self.with(now, ike, |cx, sa| sa.delete(cx, now, EndReason::Deleted));
        Ok(())
    }

    /// Forgets an IKE SA and its children without a message.
    pub fn abandon(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        self.visible(ike)?;
        self.with(now, ike, |cx, sa| {
            sa.fail(cx, now, Failure::Ended(EndReason::Deleted));
            sa.state = State::Gone;
        });
        Ok(())
    }

    /// Asks the peer for a sign of life now (an empty INFORMATIONAL).
    pub fn probe(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        self.task(now, ike, Task::Probe)
    }

    /// Verified ESP traffic of the peer came, so many packets by now: as good as a sign of life (RFC 7296 2.4).
    pub fn note_inbound_traffic(&mut self, now: Now, child: ChildId, packets: u64) {
        let child = self.cx.children.get_mut(child);
        let ike = child.map(|c| {
            c.received = packets;
            c.ike
        });
        if let Some(up) = ike.and_then(|id| self.sas.get_mut(&id)).and_then(|sa| sa.up_mut()) {
            up.last_alive = up.last_alive.max(now.at);
        }
    }

    /// Verified ESP of a peer behind a NAT came from another port: its IKE messages go there too (RFC 7296 2.23).
    /// Where its SAs go now; `None` if it is behind none: then they stay where they are as well.
    pub fn note_moved(&mut self, child: ChildId, remote: SocketAddr) -> Option<Outer> {
        let ike = self.cx.children.get(child)?.ike;
        let sa = self.sas.get_mut(&ike).filter(|sa| sa.up().is_some())?;
        let outer = sa.seen_at(remote).then(|| sa.outer())?;
        self.cx.unsaved.insert(ike);
        Some(outer)
    }

    /// The addresses by which others can reach this host, the one to be preferred first. Tunnels that can move and go
    /// from an address that is not among them move (RFC 4555); the peers of the others are told.
    pub fn set_addresses(&mut self, now: Now, addresses: &[IpAddr]) {
        self.cx.addresses = addresses.to_vec();
        let mobile = self.sas.values().filter(|sa| sa.mobility.is_some()).map(|sa| sa.id);
        for id in mobile.collect::<Vec<_>>() {
            self.with(now, id, |cx, sa| addresses::changed(cx, sa, now));
        }
    }

    /// The data plane saw the first packet on a new inbound SA: the peer sends through it, so may we.
    pub fn note_first_use(&mut self, now: Now, spi_in: ipsec::Spi) {
        let Some(child) = self.cx.children.by_spi_in(spi_in) else { return };
        child_sa::complete(&mut self.cx, child);
        let ike = self.cx.children.get(child).map(|c| c.ike);
        if let Some(up) = ike.and_then(|id| self.sas.get_mut(&id)).and_then(|sa| sa.up_mut()) {
            up.confirmed = true;
            up.last_alive = up.last_alive.max(now.at);
        }
    }

    /// Established IKE SAs, in the order of their ids.
    pub fn ike_sas(&self) -> Vec<IkeInfo> {
        let live = self.sas.values().filter_map(|sa| sa.up().map(|up| (sa, up)));
        live.filter(|(_, up)| up.live()).map(|(sa, up)| up.info(sa)).collect()
    }

    /// Initiator's and responder's SPI of an IKE SA, if it is among [`ike_sas`](Self::ike_sas).
    pub fn spis(&self, ike: IkeSaId) -> Option<(IkeSpi, IkeSpi)> {
        let sa = self.sas.get(&ike)?;
        sa.up()?.live().then_some((sa.spi_i, sa.spi_r))
    }

    /// Complete child SAs, in the order of their ids; without those that are replaced, redundant or on their way down.
    pub fn children(&self) -> Vec<ChildInfo> {
        let shown = self.cx.children.iter().filter(|c| self.shown(c));
        shown.map(child_sa::Child::info).collect()
    }

    /// Whether a child SA is among [`children`](Self::children).
    pub fn serves(&self, child: ChildId) -> bool {
        self.cx.children.get(child).is_some_and(|c| self.shown(c))
    }

    fn shown(&self, child: &child_sa::Child) -> bool {
        let owner = self.sas.get(&child.ike).and_then(|sa| sa.up());
        child.stage == Stage::Up
            && child.successor.is_none()
            && owner.is_some_and(|up| !up.redundant)
    }

    /// Whether a handshake is under way that a peer has begun.
    pub fn is_approached_by(&self, remote: IpAddr) -> bool {
        let ids = self.cx.ikes_of(remote);
        ids.filter_map(|id| self.sas.get(&id)).any(|sa| !sa.initiator && is_half_open(sa))
    }

    /// Half-open IKE SAs: id, peer, whether this host initiated.
    pub fn half_open(&self) -> Vec<(IkeSaId, IpAddr, bool)> {
        let open = self.sas.values().filter(|sa| is_half_open(sa));
        open.map(|sa| (sa.id, sa.home.ip(), sa.initiator)).collect()
    }

    /// Whether this host has begun this IKE SA and has not sent its IKE_AUTH request: the peer cannot have it, and
    /// nothing is lost if it is abandoned.
    pub fn is_tentative(&self, ike: IkeSaId) -> bool {
        self.sas.get(&ike).is_some_and(|sa| {
            matches!(
                sa.state,
                State::InitKey(_) | State::InitSent(_) | State::InitAgree(_) | State::AuthSign(_)
            )
        })
    }

    /// Requests that were turned away with an unprotected answer since start, by the notify in it.
    pub fn turned_away(&self) -> &BTreeMap<&'static str, u64> {
        &self.cx.refused
    }

    /// Handshakes that peers began and have not finished; each is forgotten after 30 s.
    pub fn half_open_count(&self) -> usize {
        self.half_open.total()
    }

    /// How much is held, by table.
    pub fn census(&self) -> Vec<(&'static str, usize)> {
        let mut all = vec![
            ("IKE SAs", self.sas.len()),
            ("first requests", self.inits.len()),
            ("half-open IKE SAs", self.half_open.total()),
            ("redundant IKE SAs", self.redundant.len()),
        ];
        all.extend(self.cx.census());
        all
    }

    /// Keys for Wireshark.
    pub fn export_keys(&self, ike: IkeSaId) -> Option<ExportedKeys> {
        keys_of(self.sas.get(&ike)?)
    }

    /// Keys of all IKE SAs with one host, those of a handshake that is under way included: for whoever traces it.
    pub fn export_keys_with(&self, remote: IpAddr) -> Vec<ExportedKeys> {
        let with = self.sas.values().filter(|sa| sa.home.ip() == remote);
        with.filter_map(|sa| keys_of(sa)).collect()
    }

    /// Queues a task on an established SA.
    fn task(&mut self, now: Now, ike: IkeSaId, task: Task) -> Result<(), CommandError> {
        let up = self.visible(ike)?.up().ok_or(CommandError::NotEstablished)?;
        if up.life != Life::Live || up.heir_of.is_some() || !up.has_room() {
            return Err(CommandError::NotEstablished);
        }
        self.with(now, ike, |cx, sa| {
            sa.proceed(cx, now, |up| up.push(task));
        });
        Ok(())
    }

    fn visible(&self, ike: IkeSaId) -> Result<&IkeSa, CommandError> {
        match self.sas.get(&ike) {
            Some(sa) if !matches!(sa.state, State::Lingering | State::Gone) => Ok(sa),
            _ => Err(CommandError::NotFound),
        }
    }

    fn ike_of(&self, child: ChildId) -> Result<IkeSaId, CommandError> {
        match self.cx.children.get(child) {
            Some(c) if matches!(c.stage, Stage::Up | Stage::Inbound) => Ok(c.ike),
            Some(_) => Err(CommandError::NotEstablished),
            None => Err(CommandError::NotFound),
        }
    }

    fn insert(&mut self, sa: Box<IkeSa>) {
        self.cx.by_spi.insert(sa.local_spi(), sa.id);
        self.cx.peers.insert((sa.home.ip(), sa.id));
        self.sas.insert(sa.id, sa);
    }

    /// Handles one SA, then what that means for others.
    fn with(&mut self, now: Now, id: IkeSaId, f: impl FnOnce(&mut Context, &mut IkeSa)) {
        self.with_one(id, f);
        while let Some(after) = self.cx.after.pop_front() {
            self.after(now, after);
        }
        self.rehabilitate();
    }

    fn with_one(&mut self, id: IkeSaId, f: impl FnOnce(&mut Context, &mut IkeSa)) {
        let Some(sa) = self.sas.get_mut(&id) else { return };
        let before = sa.mark();
        f(&mut self.cx, sa);
        if sa.mark() != before {
            self.cx.unsaved.insert(id);
        }
        let home = sa.home.ip();
        self.touched.push(home);
        match sa.state {
            State::Gone => {
                if let Some(sa) = self.sas.remove(&id) {
                    self.forget(&sa);
                }
            }
            State::Up(_) => {
                self.half_open.clear(id);
            }
            // It is over as far as anybody is concerned who asks whether there is an SA with this peer.
            State::Lingering => {
                self.half_open.fail(id);
                self.cx.peers.remove(&(home, id));
            }
            _ => {}
        }
    }

    fn forget(&mut self, sa: &IkeSa) {
        self.cx.timers.cancel_all(sa.id);
        self.cx.by_spi.remove(&sa.local_spi());
        self.half_open.clear(sa.id);
        let first = (sa.home, sa.spi_i);
        if self.inits.get(&first) == Some(&sa.id) {
            self.inits.remove(&first);
        }
        self.cx.peers.remove(&(sa.home.ip(), sa.id));
    }

    fn after(&mut self, now: Now, after: After) {
        match after {
            After::Spawn(sa) => self.insert(sa),
            After::Inherit { old, new } => self.inherit(now, old, new),
            After::Adopt { old, new } => self.with_one(old, |cx, sa| sa.replaced_by(cx, now, new)),
            After::Established { id, peer_contact } => self.established(now, id, peer_contact),
            After::CloseRedundant(id) => {
                self.with_one(id, |cx, sa| sa.delete(cx, now, EndReason::Redundant));
            }
            After::Ended(id) => {
                self.with_one(id, |cx, sa| sa.fail(cx, now, Failure::Ended(EndReason::Rekeyed)));
            }
            After::CloseReplaced(id) => {
                self.with_one(id, |cx, sa| sa.delete(cx, now, EndReason::Rekeyed))
            }
            After::Supersede(id) => self.supersede(now, id),
        }
    }
}

/// Whether the peer of an IKE SA may be at an address.
fn is_welcome(sa: &IkeSa, address: IpAddr, directory: &dyn Directory) -> bool {
    let home = sa.home.ip();
    let place = is_reachable(address) && address.is_ipv4() == home.is_ipv4();
    address == home
        || address == sa.remote.ip()
        || (sa.mobility.is_some() && place && directory.may_move(home, address))
}

fn is_half_open(sa: &IkeSa) -> bool {
    !sa.silent && !matches!(sa.state, State::Up(_) | State::Lingering | State::Gone)
}

fn keys_of(sa: &IkeSa) -> Option<ExportedKeys> {
    let secured = sa.secured.as_ref()?;
    let keys = &secured.keys;
    Some(ExportedKeys {
        spi_i: sa.spi_i,
        spi_r: sa.spi_r,
        cipher: secured.suite.cipher,
        sk_ei: keys.sk_ei.clone(),
        sk_er: keys.sk_er.clone(),
        sk_ai: keys.sk_ai.clone(),
        sk_ar: keys.sk_ar.clone(),
    })
}
