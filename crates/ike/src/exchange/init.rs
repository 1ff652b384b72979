//! IKE_SA_INIT (RFC 7296 1.2, 2.6, 2.7, 2.14, 2.23).

mod responder;

pub(crate) use responder::*;

use std::net::IpAddr;
use std::sync::Arc;

use crypto::Secret;
use crypto::kx::{KxError, PrivateKx};
use wire::message::{IkeSpi, Message};
use wire::notify;
use wire::payload::{KePayload, Notify, Payload};
use wire::proposal::Proposal;
use wire::registry::{ExchangeType, HashAlg, Ke, NotifyType, ProtocolId};
use zeroize::Zeroizing;

use crate::cluster;
use crate::config::{Auth, PeerConfig};
use crate::context::{Context, NATT_PORT};
use crate::endpoint::Now;
use crate::error::{Failure, Misbehaviour};
use crate::exchange::auth::Handshake;
use crate::exchange::child::find_sa;
use crate::exchange::{encap, intermediate};
use crate::ike_sa::{
    Arrived, Ends, IkeSa, State, error_notify, find_error, find_notify, plain_notify,
};
use crate::job::{Done, JobId, KeyShare, Work};
use crate::keys;
use crate::mobility;
use crate::multi_ke;
use crate::nat;
use crate::negotiate::{self, Chosen, IkeSuite};
use crate::redirect;
use crate::timer::Timer;
use crate::told;

/// So often an initiator lets itself be asked for a cookie, and for another key exchange method.
const MAX_RETRIES: u8 = 3;

/// An unencrypted refusal may be anybody's: for so long an answer of the peer itself still counts (RFC 7296 2.21.1).
const HEARSAY: std::time::Duration = std::time::Duration::from_secs(1);

/// A responder waits so long for IKE_AUTH.
pub(crate) const HALF_OPEN: std::time::Duration = std::time::Duration::from_secs(30);

/// What an initiator keeps through all repetitions of its first request.
#[derive(Clone)]
pub(crate) struct Opening {
    offer: Vec<Proposal>,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    cookies: u8,
    other_ke: u8,
    /// The gateway that sent this host to this one (RFC 5685).
    redirected_from: Option<IpAddr>,
}

/// Initiator: waits for the private value.
#[derive(Clone)]
pub(crate) struct KeyWait {
    pub(crate) job: JobId,
    opening: Opening,
    method: Ke,
}

/// Initiator: waits for the response.
#[derive(Clone)]
pub(crate) struct Sent {
    opening: Opening,
    method: Ke,
    private: Arc<dyn PrivateKx>,
    public: Vec<u8>,
    request: Vec<u8>,
    /// The first refusal that came; it holds if nothing better comes soon.
    refused: Option<Failure>,
}

/// Initiator: waits for the shared secret.
#[derive(Clone)]
pub(crate) struct Agreeing {
    pub(crate) job: JobId,
    suite: IkeSuite,
    handshake: Handshake,
}

/// Starts as initiator.
pub(crate) fn start(
    cx: &mut Context,
    config: Arc<PeerConfig>,
    ends: Ends,
    id: crate::IkeSaId,
    redirected_from: Option<IpAddr>,
) -> IkeSa {
    let offer = negotiate::offer_ike(&config.ike_proposals, None, &*cx.provider);
    let method = negotiate::first_ke(&offer);
    let mut sa = IkeSa::new(id, config, ends, State::Gone);
    sa.home.set_ip(sa.config.remote);
    let Some(method) = method else {
        let reason = "none of the IKE proposals can be done by this host";
        sa.report_down(cx, Failure::Local(reason.into()));
        return sa;
    };
    let opening = Opening {
        offer,
        nonce: cx.nonce(),
        cookie: None,
        cookies: 0,
        other_ke: 0,
        redirected_from,
    };
    sa.state =
        State::InitKey(Box::new(KeyWait { job: key_share(cx, id, method, None), opening, method }));
    sa
}

/// Has a private value made, and agreed with `peer`'s public one.
pub(crate) fn key_share(
    cx: &mut Context,
    id: crate::IkeSaId,
    method: Ke,
    peer: Option<Vec<u8>>,
) -> JobId {
    let seed = Zeroizing::new(cx.rng.bytes::<64>());
    cx.job(id, Work::KeyShare { method, seed, peer })
}

impl KeyWait {
    pub(crate) fn done(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        let share = match done {
            Done::KeyShare(Ok(share)) => share,
            Done::KeyShare(Err(error)) => {
                return sa.end(cx, now, Failure::Local(error.to_string()));
            }
            _ => return State::InitKey(self),
        };
        let sent = Sent {
            opening: self.opening,
            method: self.method,
            private: share.private,
            public: share.public,
            request: Vec::new(),
            refused: None,
        };
        sent.send(cx, sa, now)
    }
}

impl Sent {
    fn send(mut self, cx: &mut Context, sa: &mut IkeSa, now: Now) -> State {
        let header = sa.header(ExchangeType::IKE_SA_INIT, 0, false);
        let payloads = match self.payloads(cx, sa) {
            Ok(payloads) => payloads,
            Err(failure) => return sa.end(cx, now, failure),
        };
        self.request = wire::message::encode_plain(&header, &payloads);
        cx.transmit(sa.local, sa.remote, &self.request);
        let messages = vec![self.request.clone()];
        match sa.window.outstanding() {
            Some(_) => sa.window.replace(now.at, messages),
            None => sa.window.sent(now.at, messages, sa.config.common.retransmit),
        }
        sa.arm_retransmit(cx);
        State::InitSent(Box::new(self))
    }

    fn payloads(&self, cx: &Context, sa: &IkeSa) -> Result<Vec<Payload>, Failure> {
        let opening = &self.opening;
        let mut payloads = Vec::new();
        if let Some(cookie) = &opening.cookie {
            payloads.push(Payload::Notify(Notify {
                data: cookie.clone(),
                ..plain_notify(NotifyType::COOKIE)
            }));
        }
        payloads.push(Payload::Sa(opening.offer.clone()));
        payloads.push(Payload::Ke(KePayload { method: self.method, data: self.public.clone() }));
        payloads.push(Payload::Nonce(opening.nonce.clone()));
        payloads.extend(nat_payloads(cx, sa)?);
        payloads.extend(encap::payload(&sa.config));
        payloads.extend(redirect::announce(&sa.config, opening.redirected_from));
        payloads.push(Payload::Notify(crate::auth::hash_algorithms()));
        payloads.extend(fragmentation_payload(&sa.config));
        if sa.config.ppk.is_some() {
            payloads.push(error_notify(NotifyType::USE_PPK));
        }
        if opening.offer.iter().any(multi_ke::asks) {
            payloads.push(error_notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED));
        }
        payloads.extend(cluster::payload(&*cx.provider, sa.config.common.cluster.as_deref()));
        Ok(payloads)
    }

    /// What follows from a response: the next state, and what was wrong with a dropped one.
    pub(crate) fn response(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        arrived: Arrived<'_>,
    ) -> (State, Result<(), Misbehaviour>) {
        let header = arrived.header;
        if header.exchange != ExchangeType::IKE_SA_INIT || header.message_id != 0 {
            return (State::InitSent(self), Err(Misbehaviour::OutOfOrder));
        }
        let message = match wire::message::parse(arrived.bytes) {
            Ok(message) if message.sk.is_none() => message,
            _ => return (State::InitSent(self), Err(Misbehaviour::Malformed)),
        };
        if cluster::differs(&*cx.provider, sa.config.common.cluster.as_deref(), &message.payloads) {
            return (self.hearsay(cx, sa, now, Failure::OtherCluster), Ok(()));
        }
        let whole = find_sa(&message.payloads).is_some();
        if let Some(redirect) =
            find_notify(&message.payloads, NotifyType::REDIRECT).filter(|_| !whole)
        {
            return self.redirected(cx, sa, now, &redirect.data.clone());
        }
        if let Some(cookie) = find_notify(&message.payloads, NotifyType::COOKIE) {
            return self.with_cookie(cx, sa, now, &cookie.data.clone());
        }
        if let Some(refused) = find_notify(&message.payloads, NotifyType::INVALID_KE_PAYLOAD) {
            return self.with_other_ke(cx, sa, now, &refused.data.clone());
        }
        if let Some(error) = find_error(&message.payloads) {
            return (self.refused(cx, sa, now, error), Ok(()));
        }
        match self.read(cx, &message) {
            Err(what) => (State::InitSent(self), Err(what)),
            Ok(answer) => (self.accept(cx, sa, now, arrived, answer), Ok(())),
        }
    }

    /// RFC 7296 2.6: the same request again, the cookie first.
    fn with_cookie(
        mut self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        cookie: &[u8],
    ) -> (State, Result<(), Misbehaviour>) {
        if cookie.is_empty() || cookie.len() > 64 {
            return (State::InitSent(self), Err(Misbehaviour::Malformed));
        }
        self.opening.cookies += 1;
        if self.opening.cookies > MAX_RETRIES {
            let what = Misbehaviour::CookieLoop;
            return (self.hearsay(cx, sa, now, Failure::Misbehaved(what)), Err(what));
        }
        self.unheard(cx, sa);
        self.opening.cookie = Some(cookie.to_vec());
        (self.send(cx, sa, now), Ok(()))
    }

    /// RFC 7296 1.2: the whole offer again, the public value of another method of it.
    fn with_other_ke(
        mut self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        data: &[u8],
    ) -> (State, Result<(), Misbehaviour>) {
        let Ok(method) = <[u8; 2]>::try_from(data) else {
            return (State::InitSent(self), Err(Misbehaviour::Malformed));
        };
        let method = Ke(u16::from_be_bytes(method));
        if method == self.method {
            // An answer to an earlier request, or a confused peer; the retransmission decides.
            return (State::InitSent(self), Err(Misbehaviour::KeLoop));
        }
        self.opening.other_ke += 1;
        if self.opening.other_ke > MAX_RETRIES || !negotiate::offers_ke(&self.opening.offer, method)
        {
            let what = Misbehaviour::KeLoop;
            return (self.hearsay(cx, sa, now, Failure::Misbehaved(what)), Err(what));
        }
        self.unheard(cx, sa);
        cx.timers.cancel(sa.id, Timer::Retransmit);
        let job = key_share(cx, sa.id, method, None);
        (State::InitKey(Box::new(KeyWait { job, opening: self.opening, method })), Ok(()))
    }

    /// RFC 5685 3: only who saw the request knows its nonce.
    fn redirected(
        self: Box<Self>,
        cx: &mut Context,
        sa: &IkeSa,
        now: Now,
        data: &[u8],
    ) -> (State, Result<(), Misbehaviour>) {
        let Ok(redirect) = notify::parse_redirect(data) else {
            return (State::InitSent(self), Err(Misbehaviour::Malformed));
        };
        if redirect.nonce != self.opening.nonce {
            return (State::InitSent(self), Err(Misbehaviour::Redirect));
        }
        let failure = match redirect::target(sa, redirect.gateway) {
            Ok(redirect) => Failure::Redirected(redirect),
            Err(why) => Failure::NotRedirected(why),
        };
        (self.hearsay(cx, sa, now, failure), Ok(()))
    }

    fn refused(self: Box<Self>, cx: &mut Context, sa: &IkeSa, now: Now, error: &Notify) -> State {
        let failure = match error.kind {
            NotifyType::NO_PROPOSAL_CHOSEN => Failure::NoProposalChosen {
                protocol: "IKE",
                by: "the peer",
                ours: self.opening.offer.clone(),
                theirs: told::proposals(ProtocolId::IKE, error),
            },
            kind => Failure::PeerError(kind),
        };
        self.hearsay(cx, sa, now, failure)
    }

    /// Somebody refuses: the first reason is kept.
    fn hearsay(
        mut self: Box<Self>,
        cx: &mut Context,
        sa: &IkeSa,
        now: Now,
        failure: Failure,
    ) -> State {
        if self.refused.is_none() {
            self.refused = Some(failure);
            cx.timers.set(sa.id, Timer::HalfOpen, now.at + HEARSAY);
        }
        State::InitSent(self)
    }

    /// What the peer asks for can be done: no refusal then.
    fn unheard(&mut self, cx: &mut Context, sa: &IkeSa) {
        self.refused = None;
        cx.timers.cancel(sa.id, Timer::HalfOpen);
    }

    /// Why the attempt is to end, once nothing better came.
    pub(crate) fn refusal(&mut self) -> Option<Failure> {
        self.refused.take()
    }

    fn read(&self, cx: &Context, message: &Message<'_>) -> Result<Answer, Misbehaviour> {
        let parts = Parts::of(&message.payloads)?;
        let chosen = negotiate::check_answer_ike(&self.opening.offer, parts.sa)?;
        if chosen.suite.ke != self.method || parts.ke.method != self.method {
            return Err(Misbehaviour::ChoseUnoffered);
        }
        let intermediate = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
        if !chosen.suite.additional.is_empty()
            && find_notify(&message.payloads, intermediate).is_none()
        {
            return Err(Misbehaviour::MissingPayload);
        }
        if message.header.spi_r.0 == 0 {
            return Err(Misbehaviour::Malformed);
        }
        cx.provider
            .check_answer(self.method, &parts.ke.data)
            .map_err(|_| Misbehaviour::BadPublicValue)?;
        Ok(Answer {
            suite: chosen.suite,
            public: parts.ke.data.clone(),
            nonce: parts.nonce.to_vec(),
            hashes: peer_hashes(&message.payloads),
            spi_r: message.header.spi_r,
            payloads: message.payloads.clone(),
        })
    }

    fn accept(
        self,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        arrived: Arrived<'_>,
        answer: Answer,
    ) -> State {
        let detected = nat::detect(
            &*cx.provider,
            &answer.payloads,
            sa.spi_i,
            answer.spi_r,
            arrived.local,
            arrived.remote,
        );
        let natt = match detected {
            Ok(natt) => natt,
            Err(error) => return sa.end(cx, now, Failure::Local(error.to_string())),
        };
        sa.window.answered(now.at, 0);
        cx.timers.cancel(sa.id, Timer::Retransmit);
        cx.timers.cancel(sa.id, Timer::HalfOpen);
        sa.spi_r = answer.spi_r;
        sa.fragmentation = fragmentation(&sa.config, &answer.payloads);
        if let Some(nat) = natt {
            sa.nat = nat;
            sa.udp = encap::wanted(&sa.config, &answer.payloads);
            sa.encap = nat.any() || sa.udp;
        }
        // Whoever may move goes to that port at once, NAT or not (RFC 4555 3.3).
        if sa.encap || (natt.is_some() && mobility::wanted(&sa.config)) {
            sa.local.set_port(NATT_PORT);
            sa.remote.set_port(NATT_PORT);
        }
        let mut handshake = Handshake {
            request: self.request,
            response: arrived.bytes.to_vec(),
            ni: self.opening.nonce,
            nr: answer.nonce,
            hashes: answer.hashes,
            use_ppk: sa.config.ppk.is_some()
                && find_notify(&answer.payloads, NotifyType::USE_PPK).is_some(),
            ppk: None,
            authorities: crate::auth::authorities(&answer.payloads),
            proven: None,
            methods: None,
            childless: find_notify(&answer.payloads, NotifyType::CHILDLESS_IKEV2_SUPPORTED)
                .is_some(),
        };
        handshake.announced(cx, sa, &answer.payloads);
        if !handshake.use_ppk && sa.config.ppk.as_ref().is_some_and(|ppk| ppk.required) {
            let reason =
                "the peer uses no post-quantum pre-shared key, and `ppk_required` asks for one";
            return sa.end(cx, now, Failure::Local(reason.into()));
        }
        let job = cx.job(sa.id, Work::Agree { private: self.private, peer: answer.public });
        State::InitAgree(Box::new(Agreeing { job, suite: answer.suite, handshake }))
    }
}

/// What a response is read into.
struct Answer {
    suite: IkeSuite,
    public: Vec<u8>,
    nonce: Vec<u8>,
    hashes: Option<Vec<HashAlg>>,
    spi_r: IkeSpi,
    payloads: Vec<Payload>,
}

impl Agreeing {
    pub(crate) fn done(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        let shared = match done {
            Done::Agree(Ok(shared)) => shared,
            Done::Agree(Err(_)) => {
                return sa.end(cx, now, Failure::Misbehaved(Misbehaviour::BadPublicValue));
            }
            _ => return State::InitAgree(self),
        };
        match secure(cx, sa, &self.suite, &self.handshake, &shared) {
            Ok(()) => intermediate::start(cx, sa, now, self.handshake, self.suite.additional),
            Err(failure) => sa.end(cx, now, failure),
        }
    }
}

fn secure(
    cx: &Context,
    sa: &mut IkeSa,
    suite: &IkeSuite,
    handshake: &Handshake,
    shared: &Secret,
) -> Result<(), Failure> {
    let keys = keys::derive_initial(
        &*cx.provider,
        suite,
        &handshake.ni,
        &handshake.nr,
        shared,
        sa.spi_i,
        sa.spi_r,
    )
    .map_err(|e| Failure::Local(e.to_string()))?;
    sa.secure(cx, *suite, keys)
}

fn nat_payloads(cx: &Context, sa: &IkeSa) -> Result<[Payload; 2], Failure> {
    nat::notifies(
        &*cx.provider,
        sa.spi_i,
        sa.spi_r,
        sa.local,
        sa.remote,
        sa.config.common.force_encap,
    )
    .map(|pair| pair.map(Payload::Notify))
    .map_err(|e| Failure::Local(e.to_string()))
}

/// Announces that fragments are gathered here (RFC 7383 2.3).
fn fragmentation_payload(config: &PeerConfig) -> Option<Payload> {
    let kind = NotifyType::IKEV2_FRAGMENTATION_SUPPORTED;
    config.fragment_size.map(|_| Payload::Notify(plain_notify(kind)))
}

/// Whether both sides announce it.
fn fragmentation(config: &PeerConfig, theirs: &[Payload]) -> bool {
    let announced = find_notify(theirs, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some();
    announced && config.fragment_size.is_some()
}

fn peer_hashes(payloads: &[Payload]) -> Option<Vec<HashAlg>> {
    find_notify(payloads, NotifyType::SIGNATURE_HASH_ALGORITHMS)
        .map(|n| crate::auth::parse_hash_algorithms(&n.data))
}

/// The three payloads that either message must have, once each.
struct Parts<'a> {
    sa: &'a [Proposal],
    ke: &'a KePayload,
    nonce: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(payloads: &'a [Payload]) -> Result<Self, Misbehaviour> {
        let (mut sa, mut ke, mut nonce) = (None, None, None);
        for payload in payloads {
            let again = match payload {
                Payload::Sa(p) => sa.replace(p.as_slice()).is_some(),
                Payload::Ke(p) => ke.replace(p).is_some(),
                Payload::Nonce(p) => nonce.replace(p.as_slice()).is_some(),
                _ => false,
            };
            if again {
                return Err(Misbehaviour::UnexpectedPayload);
            }
        }
        match (sa, ke, nonce) {
            (Some(sa), Some(ke), Some(nonce)) => Ok(Self { sa, ke, nonce }),
            _ => Err(Misbehaviour::MissingPayload),
        }
    }
}
