//! IKE_AUTH (RFC 7296 1.2, 2.4, 2.15, 2.16, 2.21.2; RFC 7427).

use std::sync::Arc;

use crypto::chain::Proven;
use wire::identity::Identity;
use wire::payload::{AuthPayload, Notify, Payload};
use wire::registry::{ExchangeType, HashAlg, NotifyType};

use crate::auth;
use crate::auth_methods::AuthMethods;
use crate::child_sa;
use crate::collide::Nonces;
use crate::config::{Auth, Childless};
use crate::context::{After, Context};
use crate::crash;
use crate::endpoint::Now;
use crate::error::{AuthError, EndReason, Failure, Misbehaviour};
use crate::established::{self, Established, Task};
use crate::event::{Event, KeyId};
use crate::exchange::addresses;
use crate::exchange::child::{self, Answer, Keying, Offer, find_sa};
use crate::exchange::proof::{Claim, Own, Whose, certificates, check, find_auth, find_id, prove};
use crate::ike_sa::{IkeSa, State, error_notify, find_error, find_notify};
use crate::job::{Done, JobId};
use crate::mobility;
use crate::negotiate::ChildExchange;
use crate::ppk::{self, PpkKeys};
use crate::record::Origin;
use crate::redirect::{self, NotFollowed, Redirect};

/// What both sides sign, and how the peer can be answered.
#[derive(Clone)]
pub(crate) struct Handshake {
    /// The IKE_SA_INIT request as it was sent last.
    pub(crate) request: Vec<u8>,
    /// Its response.
    pub(crate) response: Vec<u8>,
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    /// The peer's SIGNATURE_HASH_ALGORITHMS.
    pub(crate) hashes: Option<Vec<HashAlg>>,
    /// Both said USE_PPK.
    pub(crate) use_ppk: bool,
    /// The keys with the post-quantum pre-shared key in them, while it is in use.
    pub(crate) ppk: Option<Box<PpkKeys>>,
    /// CAs that the peer accepts, of its CERTREQ.
    pub(crate) authorities: Option<Vec<KeyId>>,
    /// What the peer proved itself with.
    pub(crate) proven: Option<Arc<Proven>>,
    /// What the peer takes as proof, as far as it says (RFC 9593).
    pub(crate) methods: Option<AuthMethods>,
    /// The responder can do without a child SA in IKE_AUTH (RFC 6023).
    pub(crate) childless: bool,
}

/// Initiator: waits for its own signature.
#[derive(Clone)]
pub(crate) struct Signing {
    pub(crate) job: JobId,
    handshake: Handshake,
    local_id: Identity,
    scheme: crypto::sign::Scheme,
    /// The proof with the post-quantum pre-shared key, where this is the one without.
    first: Option<AuthPayload>,
}

/// Initiator: waits for the response.
#[derive(Clone)]
pub(crate) struct Sent {
    handshake: Handshake,
    local_id: Identity,
    /// The child SA of IKE_AUTH; `None`: the first comes after it.
    offer: Option<Offer>,
}

/// Initiator: waits for the verdict on the peer's signature.
#[derive(Clone)]
pub(crate) struct Verifying {
    pub(crate) job: JobId,
    sent: Sent,
    remote_id: Identity,
    payloads: Vec<Payload>,
}

/// Responder: waits for the verdict on the peer's signature.
#[derive(Clone)]
pub(crate) struct Checking {
    pub(crate) job: JobId,
    handshake: Handshake,
    remote_id: Identity,
    payloads: Vec<Payload>,
}

/// Responder: waits for its own signature.
#[derive(Clone)]
pub(crate) struct Answering {
    pub(crate) job: JobId,
    handshake: Handshake,
    local_id: Identity,
    remote_id: Identity,
    scheme: crypto::sign::Scheme,
    payloads: Vec<Payload>,
}

/// The initiator's part begins.
pub(crate) fn start(cx: &mut Context, sa: &mut IkeSa, now: Now, handshake: Handshake) -> State {
    let mut handshake = handshake;
    if handshake.use_ppk {
        match mixed(cx, sa) {
            Ok(keys) => handshake.ppk = Some(keys),
            Err(failure) => return sa.end(cx, now, failure),
        }
    }
    let ppk = handshake.ppk.as_deref();
    match prove(cx, sa, &handshake, Whose::Initiator, ppk) {
        Err(failure) => sa.end(cx, now, failure),
        Ok((local_id, Own::Ready(payload))) => proved(cx, sa, now, handshake, local_id, payload),
        Ok((local_id, Own::Job(job, scheme))) => {
            State::AuthSign(Box::new(Signing { job, handshake, local_id, scheme, first: None }))
        }
    }
}

/// Where the peer may do without the post-quantum pre-shared key, a second proof goes along without it
/// (RFC 8784 3).
fn proved(
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    handshake: Handshake,
    local_id: Identity,
    proof: AuthPayload,
) -> State {
    let required = sa.config.ppk.as_ref().is_some_and(|ppk| ppk.required);
    if handshake.ppk.is_none() || required {
        return send(cx, sa, now, handshake, local_id, proof, None);
    }
    match prove(cx, sa, &handshake, Whose::Initiator, None) {
        Err(failure) => sa.end(cx, now, failure),
        Ok((_, Own::Ready(other))) => send(cx, sa, now, handshake, local_id, proof, Some(other)),
        Ok((_, Own::Job(job, scheme))) => {
            let first = Some(proof);
            State::AuthSign(Box::new(Signing { job, handshake, local_id, scheme, first }))
        }
    }
}

/// The keys of this IKE SA with the configured post-quantum pre-shared key in them.
fn mixed(cx: &Context, sa: &IkeSa) -> Result<Box<PpkKeys>, Failure> {
    let (Some(secured), Some(ppk)) = (&sa.secured, &sa.config.ppk) else {
        return Err(Failure::Local("there is no post-quantum pre-shared key".into()));
    };
    PpkKeys::derive(&*cx.provider, secured.suite.prf, &secured.keys, &ppk.secret)
        .map(Box::new)
        .map_err(|e| Failure::Local(e.to_string()))
}

impl Signing {
    pub(crate) fn done(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        match done {
            Done::Sign(Ok(signature)) => {
                let payload = auth::signature_payload(self.scheme, &signature);
                let Self { handshake, local_id, first, .. } = *self;
                match first {
                    None => proved(cx, sa, now, handshake, local_id, payload),
                    Some(first) => send(cx, sa, now, handshake, local_id, first, Some(payload)),
                }
            }
            Done::Sign(Err(error)) => sa.end(cx, now, Failure::Local(error.to_string())),
            _ => State::AuthSign(self),
        }
    }
}

fn send(
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    handshake: Handshake,
    local_id: Identity,
    proof: AuthPayload,
    without_ppk: Option<AuthPayload>,
) -> State {
    let childless = match sa.config.childless {
        Childless::Allow => false,
        Childless::Prefer => handshake.childless,
        Childless::Force if handshake.childless => true,
        Childless::Force => {
            let reason =
                "the peer wants a child SA with IKE_AUTH, and `childless: force` forbids that here";
            return sa.end(cx, now, Failure::Local(reason.into()));
        }
    };
    let child = sa.config.child.clone();
    let offer = (!childless).then(|| Offer::new(cx, child, None, ChildExchange::Auth));
    // With an SA to the same address about, the peer did not lose anything (RFC 7296 2.4).
    let alone = cx.ikes_of(sa.home.ip()).count() <= 1;
    // It would be nobody's word (RFC 7619 2.3).
    let proves = !matches!(sa.config.auth, Auth::Null);
    let initial_contact = sa.config.initial_contact && alone && proves;
    let mut payloads = vec![Payload::IdI(local_id.clone())];
    if let Auth::Certificate(credentials) = &sa.config.auth {
        payloads.extend(certificates(credentials));
        match auth::certreq(&*cx.provider, credentials.trust()) {
            Ok(request) => payloads.push(Payload::CertReq(request)),
            Err(error) => return sa.end(cx, now, Failure::Local(error.to_string())),
        }
    }
    if let Some(remote_id) = &sa.config.remote_id {
        payloads.push(Payload::IdR((**remote_id).clone()));
    }
    payloads.push(Payload::Auth(proof));
    if let (Some(ppk), Some(_)) = (&sa.config.ppk, &handshake.ppk) {
        payloads.push(Payload::Notify(ppk::identity(&ppk.id)));
    }
    if let Some(other) = without_ppk {
        payloads.push(Payload::Notify(Notify::new(NotifyType::NO_PPK_AUTH, other.data)));
    }
    if initial_contact {
        payloads.push(error_notify(NotifyType::INITIAL_CONTACT));
    }
    payloads.extend(addresses::announce(cx, sa));
    payloads.push(Payload::Notify(AuthMethods::accepted(&sa.config.auth).notify()));
    payloads.extend(crash::payload(cx, sa));
    if let Some(offer) = &offer {
        payloads.push(offer.sa_payload());
        payloads.extend(offer.tail());
    }
    sa.send_request(cx, now, ExchangeType::IKE_AUTH, &payloads);
    State::AuthSent(Box::new(Sent { handshake, local_id, offer }))
}

impl Sent {
    pub(crate) fn response(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: Vec<Payload>,
    ) -> State {
        let (id, proof) = match (find_id(&payloads, Whose::Responder), find_auth(&payloads)) {
            (Some(id), Some(proof)) => (id.clone(), proof.clone()),
            _ => return self.refused(cx, sa, now, &payloads),
        };
        if sa.silent {
            return self.unwanted(cx, sa, now, id);
        }
        let mut this = self;
        if find_notify(&payloads, NotifyType::PPK_IDENTITY).is_none() {
            let required = sa.config.ppk.as_ref().is_some_and(|ppk| ppk.required);
            if this.handshake.ppk.take().is_some() && required {
                let error =
                    AuthError::Ppk("the peer goes on without the post-quantum pre-shared key");
                return this.reject(cx, sa, now, id, error);
            }
        }
        let claim = Claim { id: &id, proof: &proof, payloads: &payloads, whose: Whose::Responder };
        match check(cx, sa, now, &this.handshake, claim) {
            Ok(None) => this.finish(cx, sa, now, id, &payloads),
            Ok(Some(job)) => {
                State::AuthVerify(Box::new(Verifying { job, sent: *this, remote_id: id, payloads }))
            }
            Err(error) => this.reject(cx, sa, now, id, error),
        }
    }

    /// Deleted here while the peer was asked: it has the SA up, and is told.
    fn unwanted(self, cx: &mut Context, sa: &mut IkeSa, now: Now, id: Identity) -> State {
        let up = Established::new(sa, now, self.local_id, id, None);
        established::close(Box::new(up), cx, sa, now, EndReason::Deleted)
    }

    fn refused(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: &[Payload],
    ) -> State {
        let failure = match find_error(payloads).map(|n| n.kind) {
            Some(NotifyType::AUTHENTICATION_FAILED) => Failure::RefusedByPeer,
            Some(kind) => Failure::PeerError(kind),
            None => Failure::Misbehaved(Misbehaviour::MissingPayload),
        };
        sa.end(cx, now, failure)
    }

    /// The peer believes that the SA is up: it is told why not (RFC 7296 2.21.2).
    fn reject(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        id: Identity,
        error: AuthError,
    ) -> State {
        sa.report_down(cx, Failure::PeerAuth(error));
        let up = Established::new(sa, now, self.local_id, id, None);
        established::close_with(
            Box::new(up),
            cx,
            sa,
            now,
            EndReason::Deleted,
            Some(NotifyType::AUTHENTICATION_FAILED),
        )
    }

    /// The peer has proven who it is, gives no child SA, and sends this host to another gateway (RFC 5685 6).
    fn redirected(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        id: Identity,
        target: Result<Redirect, NotFollowed>,
    ) -> State {
        let failure = match target {
            Ok(redirect) => Failure::Redirected(redirect),
            Err(why) => Failure::NotRedirected(why),
        };
        sa.report_down(cx, failure);
        self.unwanted(cx, sa, now, id)
    }

    fn finish(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        remote_id: Identity,
        payloads: &[Payload],
    ) -> State {
        if let Some(target) = redirect::proven(sa, payloads)
            && find_sa(payloads).is_none()
        {
            return self.redirected(cx, sa, now, remote_id, target);
        }
        let Self { handshake, local_id, offer } = *self;
        addresses::agree(cx, sa, payloads);
        let mut up = establish(cx, sa, now, local_id, remote_id, &handshake);
        up.token = crash::find(payloads);
        let Some(offer) = offer else {
            up.push(Task::NewChild(sa.config.child.clone()));
            succeed(&mut up, cx, sa);
            cx.after.push_back(After::Established { id: sa.id, peer_contact: false });
            return established::proceed(up, cx, sa, now);
        };
        let answer = match find_sa(payloads) {
            Some(_) => offer.check(sa, payloads),
            None => Err(match find_error(payloads) {
                Some(notify) => offer.refused(notify),
                None => Failure::Misbehaved(Misbehaviour::MissingPayload),
            }),
        };
        let keying = Keying { ni: &handshake.ni, nr: &handshake.nr, shared: &[], initiated: true };
        let installed = answer.and_then(|agreed| {
            let pair = child::pair(cx, sa, &agreed, keying)?;
            Ok(child_sa::install(cx, now.at, (sa.id, sa.home.ip()), agreed, pair))
        });
        match installed {
            Ok(Some(child)) => {
                child_sa::complete(cx, child);
                // The peer sends through the new SA once it hears that it is installed here.
                up.push(Task::Probe);
                succeed(&mut up, cx, sa);
            }
            Ok(None) => {}
            Err(reason) => {
                if find_sa(payloads).is_some() {
                    up.push(Task::DeleteSpi(offer.spi_in()));
                }
                cx.event(Event::ChildFailed {
                    ike: sa.id,
                    remote: sa.remote.ip(),
                    replaces: None,
                    reason,
                });
            }
        }
        cx.after.push_back(After::Established { id: sa.id, peer_contact: false });
        established::proceed(up, cx, sa, now)
    }
}

impl Verifying {
    pub(crate) fn done(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        match done {
            Done::Verify(Ok(_)) if sa.silent => self.sent.unwanted(cx, sa, now, self.remote_id),
            Done::Verify(Ok(proven)) => {
                let Self { mut sent, remote_id, payloads, .. } = *self;
                sent.handshake.proven = Some(proven);
                Box::new(sent).finish(cx, sa, now, remote_id, &payloads)
            }
            Done::Verify(Err(error)) => {
                Box::new(self.sent).reject(cx, sa, now, self.remote_id, error)
            }
            _ => State::AuthVerify(self),
        }
    }
}

impl Handshake {
    /// Responder: the request.
    pub(crate) fn request(
        mut self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: Vec<Payload>,
    ) -> State {
        let (id, proof) = match (find_id(&payloads, Whose::Initiator), find_auth(&payloads)) {
            (Some(id), Some(proof)) => (id.clone(), proof.clone()),
            (Some(_), None) => {
                // Without AUTH the peer asks for EAP (RFC 7296 2.16).
                let error = AuthError::MethodNotAllowed("EAP".into());
                return deny(cx, sa, now, Failure::PeerAuth(error));
            }
            _ => {
                sa.respond(cx, vec![error_notify(NotifyType::INVALID_SYNTAX)]);
                return sa.end(cx, now, Failure::Misbehaved(Misbehaviour::MissingPayload));
            }
        };
        let proof = match self.choose_ppk(cx, sa, &payloads, proof) {
            Ok(proof) => proof,
            Err(error) => return deny(cx, sa, now, Failure::PeerAuth(error)),
        };
        self.authorities = auth::authorities(&payloads);
        self.announced(cx, sa, &payloads);
        let claim = Claim { id: &id, proof: &proof, payloads: &payloads, whose: Whose::Initiator };
        match check(cx, sa, now, &self, claim) {
            Ok(None) => answer(cx, sa, now, *self, id, payloads),
            Ok(Some(job)) => State::AuthCheck(Box::new(Checking {
                job,
                handshake: *self,
                remote_id: id,
                payloads,
            })),
            Err(error) => deny(cx, sa, now, Failure::PeerAuth(error)),
        }
    }
}

impl Handshake {
    /// Whether the initiator's post-quantum pre-shared key is used, and the proof that belongs to that
    /// (RFC 8784 3).
    fn choose_ppk(
        &mut self,
        cx: &Context,
        sa: &IkeSa,
        payloads: &[Payload],
        proof: AuthPayload,
    ) -> Result<AuthPayload, AuthError> {
        let named = find_notify(payloads, NotifyType::PPK_IDENTITY);
        let id = named.and_then(|notify| ppk::parse_identity(&notify.data));
        if let Some(own) = &sa.config.ppk {
            if self.use_ppk && id == Some(own.id.as_slice()) {
                let bad = |e: Failure| AuthError::BadProof(e.to_string());
                self.ppk = Some(mixed(cx, sa).map_err(bad)?);
                return Ok(proof);
            }
            if own.required {
                let what = "the peer has not the post-quantum pre-shared key that `ppk_id` names";
                return Err(AuthError::Ppk(what));
            }
        }
        match (named, find_notify(payloads, NotifyType::NO_PPK_AUTH)) {
            (None, _) => Ok(proof),
            (Some(_), Some(other)) => {
                Ok(AuthPayload { method: proof.method, data: other.data.clone() })
            }
            (Some(_), None) => {
                let what =
                    "the peer insists on a post-quantum pre-shared key that is not known here";
                Err(AuthError::Ppk(what))
            }
        }
    }
}

impl Handshake {
    /// Notes what the peer takes as proof, if the message says so. What is linked to a CA counts only where this
    /// host's certificate leads to that one.
    pub(crate) fn announced(&mut self, cx: &Context, sa: &IkeSa, payloads: &[Payload]) {
        let Some(methods) = AuthMethods::find(payloads) else { return };
        let own = match &sa.config.auth {
            Auth::Certificate(credentials) => auth::issuers(&*cx.provider, credentials),
            Auth::Psk(_) | Auth::Null => Vec::new(),
        };
        self.methods = Some(methods.of_cas(&auth::requested(payloads), &own));
    }
}

impl Checking {
    pub(crate) fn done(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        match done {
            Done::Verify(Ok(proven)) => {
                let Self { mut handshake, remote_id, payloads, .. } = *self;
                handshake.proven = Some(proven);
                answer(cx, sa, now, handshake, remote_id, payloads)
            }
            Done::Verify(Err(error)) => deny(cx, sa, now, Failure::PeerAuth(error)),
            _ => State::AuthCheck(self),
        }
    }
}

/// The peer is told AUTHENTICATION_FAILED and no more.
fn deny(cx: &mut Context, sa: &mut IkeSa, now: Now, failure: Failure) -> State {
    sa.respond(cx, vec![error_notify(NotifyType::AUTHENTICATION_FAILED)]);
    sa.end(cx, now, failure)
}

/// The peer is who it says: this host proves itself in turn.
fn answer(
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    handshake: Handshake,
    remote_id: Identity,
    payloads: Vec<Payload>,
) -> State {
    let ppk = handshake.ppk.as_deref();
    match prove(cx, sa, &handshake, Whose::Responder, ppk) {
        Err(failure) => deny(cx, sa, now, failure),
        Ok((local_id, Own::Ready(proof))) => {
            let ids = Ids { local_id, remote_id };
            accept(cx, sa, now, handshake, ids, proof, &payloads)
        }
        Ok((local_id, Own::Job(job, scheme))) => State::AuthAnswer(Box::new(Answering {
            job,
            handshake,
            local_id,
            remote_id,
            scheme,
            payloads,
        })),
    }
}

impl Answering {
    pub(crate) fn done(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        match done {
            Done::Sign(Ok(signature)) => {
                let proof = auth::signature_payload(self.scheme, &signature);
                let ids = Ids { local_id: self.local_id, remote_id: self.remote_id };
                accept(cx, sa, now, self.handshake, ids, proof, &self.payloads)
            }
            Done::Sign(Err(error)) => deny(cx, sa, now, Failure::Local(error.to_string())),
            _ => State::AuthAnswer(self),
        }
    }
}

struct Ids {
    local_id: Identity,
    remote_id: Identity,
}

/// Both are authenticated: the response, with the child SA or without (RFC 7296 1.2).
fn accept(
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    handshake: Handshake,
    ids: Ids,
    proof: AuthPayload,
    payloads: &[Payload],
) -> State {
    if sa.asked_from().is_some_and(|(path, _)| mobility::is_translated(payloads, path)) {
        sa.respond(cx, vec![error_notify(NotifyType::UNEXPECTED_NAT_DETECTED)]);
        return sa.end(cx, now, Failure::Local("the peer allows no NAT, and there is one".into()));
    }
    let mut reply = vec![Payload::IdR(ids.local_id.clone())];
    if let Auth::Certificate(credentials) = &sa.config.auth {
        reply.extend(certificates(credentials));
    }
    reply.push(Payload::Auth(proof));
    if handshake.ppk.is_some() {
        reply.push(error_notify(NotifyType::PPK_IDENTITY));
    }
    reply.extend(crash::payload(cx, sa));
    addresses::agree(cx, sa, payloads);
    if sa.mobility.is_some() {
        reply.extend(addresses::announce(cx, sa));
    }
    cx.timers.cancel(sa.id, crate::timer::Timer::HalfOpen);
    let mut up = establish(cx, sa, now, ids.local_id, ids.remote_id, &handshake);
    up.confirmed = false;
    up.token = crash::find(payloads);
    if !child::childless(payloads) {
        reply.extend(first_child(cx, sa, now, &handshake, payloads));
    }
    sa.respond(cx, reply);
    let peer_contact = find_notify(payloads, NotifyType::INITIAL_CONTACT).is_some()
        && !matches!(sa.config.auth, Auth::Null);
    cx.after.push_back(After::Established { id: sa.id, peer_contact });
    State::Up(up)
}

/// Answers for the child SA of IKE_AUTH.
fn first_child(
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    handshake: &Handshake,
    payloads: &[Payload],
) -> Vec<Payload> {
    let config = sa.config.child.clone();
    let keying = Keying { ni: &handshake.ni, nr: &handshake.nr, shared: &[], initiated: false };
    let installed = Answer::choose(cx, sa, &config, payloads, ChildExchange::Auth, None)
        .and_then(|answer| established::install_answer(cx, sa, now, answer, keying));
    match installed {
        Ok(answered) => [answered.sa_payload].into_iter().chain(answered.tail).collect(),
        Err(refusal) => {
            let told = Payload::Notify(refusal.told());
            let (ike, remote) = (sa.id, sa.remote.ip());
            cx.event(Event::ChildFailed { ike, remote, replaces: None, reason: refusal.reason });
            vec![told]
        }
    }
}

/// An IKE SA with the peer that was there before is replaced (RFC 7296 2.8.3): its further child SAs are made
/// here as well, then it is deleted. All of it after the probe, whose response shows that the peer has this SA.
fn succeed(up: &mut Established, cx: &Context, sa: &IkeSa) {
    let ikes = cx.ikes_of(sa.home.ip()).filter(|ike| *ike != sa.id);
    let there = ikes.flat_map(|ike| cx.children.of(ike));
    let there = there.filter_map(|id| cx.children.get(id));
    let others = there.filter(|c| c.live() && c.config.reqid != sa.config.child.reqid);
    for config in others.map(|c| c.config.clone()).collect::<Vec<_>>() {
        up.push(Task::NewChild(config));
    }
    up.push(Task::Supersede);
}

fn establish(
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    local_id: Identity,
    remote_id: Identity,
    handshake: &Handshake,
) -> Box<Established> {
    // Whatever it calls itself: it is nobody who is known (RFC 7619 2.2).
    let remote_id = match sa.config.auth {
        Auth::Null => Identity::null(),
        _ => remote_id,
    };
    sa.trail = None;
    if let (Some(ppk), Some(secured)) = (&handshake.ppk, &mut sa.secured) {
        ppk.replace(&mut secured.keys);
    }
    if let Some(secured) = &mut sa.secured {
        secured.keys.forget_proof();
    }
    let origin = Origin {
        own: sa.initiator,
        nonce: Nonces { ni: &handshake.ni, nr: &handshake.nr }.lower().into(),
        began: sa.began,
        since: now.at,
    };
    let up = Box::new(Established::new(sa, now, local_id, remote_id, Some(Arc::new(origin))));
    up.arm(cx, sa);
    cx.event(Event::IkeUp(up.info(sa)));
    if let Some(proven) = &handshake.proven {
        let proof = auth::shown(&*cx.provider, proven, handshake.authorities.clone());
        cx.event(Event::Proven { id: sa.id, remote: sa.remote.ip(), proof: Box::new(proof) });
    }
    up
}
