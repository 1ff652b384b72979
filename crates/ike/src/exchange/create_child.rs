//! CREATE_CHILD_SA for a child SA, new or rekeyed (RFC 7296 1.3.1, 1.3.3, 2.8, 2.25).

use std::sync::Arc;

use crypto::Secret;
use crypto::kx::PrivateKx;
use wire::esp::Spi;
use wire::payload::{KePayload, Notify, Payload};
use wire::registry::{ExchangeType, Ke, NotifyType, ProtocolId};

use crate::child_sa::{self, Agreed, Stage};
use crate::collide::{self, Nonces, Reply, Request};
use crate::config::ChildConfig;
use crate::context::Context;
use crate::endpoint::Now;
use crate::error::{EndReason, Failure, Misbehaviour};
use crate::established::{self, Answered, Established, Flow, Own, Task, Theirs};
use crate::event::{ChildId, Event};
use crate::exchange::child::{self, Answer, Keying as ChildKeying, Offer, Refusal, find_sa};
use crate::exchange::followup::{self, Asked, Subject};
use crate::exchange::init::key_share;
use crate::ike_sa::{IkeSa, error_notify, find_error, find_notify, plain_notify};
use crate::job::{Done, JobId, KeyShare, Work};
use crate::negotiate::{self, ChildExchange, EspSuite};
use crate::timer::Timer;

/// So often the peer may ask for another key exchange method.
const MAX_OTHER_KE: u8 = 2;

/// After a rekey that failed for good, the next is tried so much later.
const REKEY_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

/// What this host wants, kept through all steps.
#[derive(Clone)]
pub(crate) struct Plan {
    offer: Offer,
    ni: Vec<u8>,
    method: Option<Ke>,
    other_ke: u8,
    /// Nonces of the peer's rekey of the same child SA.
    rival: Option<(Vec<u8>, Vec<u8>)>,
}

/// Waits for the private value.
#[derive(Clone)]
pub(crate) struct Keying {
    pub(crate) job: JobId,
    pub(crate) plan: Plan,
}

/// Waits for the response.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) plan: Plan,
    private: Option<Arc<dyn PrivateKx>>,
}

/// Waits for the shared secret.
#[derive(Clone)]
pub(crate) struct Agreeing {
    pub(crate) job: JobId,
    pub(crate) plan: Plan,
    agreed: Agreed,
    nr: Vec<u8>,
    link: Option<Vec<u8>>,
}

/// What came of CREATE_CHILD_SA, where key exchanges are still to follow.
#[derive(Clone)]
pub(crate) struct Outcome {
    plan: Plan,
    agreed: Agreed,
    nr: Vec<u8>,
}

/// The peer's request waits for the shared secret.
#[derive(Clone)]
pub(crate) struct Answering {
    pub(crate) job: JobId,
    answer: Answer,
    ni: Vec<u8>,
    nr: Vec<u8>,
}

impl Plan {
    /// The child SA that is to be replaced.
    pub(crate) fn replaces(&self) -> Option<ChildId> {
        self.offer.replaces
    }

    /// The SPI offered.
    pub(crate) fn spi_in(&self) -> Spi {
        self.offer.spi_in()
    }

    /// The task that this is.
    pub(crate) fn task(&self) -> Task {
        match self.offer.replaces {
            Some(child) => Task::RekeyChild(child),
            None => Task::NewChild(self.offer.config.clone()),
        }
    }
}

/// Replaces a child SA, unless that became void meanwhile.
pub(crate) fn start_rekey(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    child: ChildId,
) {
    let Some(old) = cx.children.get(child) else { return };
    if old.ike != sa.id
        || old.successor.is_some()
        || !matches!(old.stage, Stage::Up | Stage::Inbound)
    {
        return;
    }
    let config = old.config.clone();
    start(up, cx, sa, now, config, Some(child));
}

/// Asks for a child SA.
pub(crate) fn start(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    config: Arc<ChildConfig>,
    replaces: Option<ChildId>,
) {
    let offer = Offer::new(cx, config, replaces, ChildExchange::Create);
    if offer.proposals.is_empty() {
        let reason = Failure::Local("none of the ESP proposals can be done by this host".into());
        return failed(cx, sa, now, replaces, reason);
    }
    let method = negotiate::first_ke(&offer.proposals);
    let plan = Plan { offer, ni: cx.nonce(), method, other_ke: 0, rival: None };
    prepare(up, cx, sa, now, plan);
}

fn prepare(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, now: Now, plan: Plan) {
    match plan.method {
        Some(method) => {
            let job = key_share(cx, sa.id, method, None);
            up.own = Some(Own::CreateKeying(Box::new(Keying { job, plan })));
        }
        None => send(up, cx, sa, now, plan, None),
    }
}

fn send(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    plan: Plan,
    share: Option<(Arc<dyn PrivateKx>, Vec<u8>)>,
) {
    let mut payloads = Vec::new();
    if let Some(old) = plan.offer.replaces.and_then(|id| cx.children.get(id)) {
        payloads.push(child::rekey_sa(old.spi_in));
    }
    payloads.push(plan.offer.sa_payload());
    payloads.push(Payload::Nonce(plan.ni.clone()));
    let (private, public) = share.unzip();
    if let (Some(method), Some(data)) = (plan.method, public) {
        payloads.push(Payload::Ke(KePayload { method, data }));
    }
    payloads.extend(plan.offer.tail());
    sa.send_request(cx, now, ExchangeType::CREATE_CHILD_SA, &payloads);
    up.deleted.clear();
    up.own = Some(Own::Create(Box::new(Sent { plan, private })));
}

impl Keying {
    pub(crate) fn done(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> Flow {
        match done {
            Done::KeyShare(Ok(share)) => {
                let still_there = self.plan.replaces().is_none_or(|id| {
                    cx.children
                        .get(id)
                        .is_some_and(|c| c.stage != Stage::Lingering && c.successor.is_none())
                });
                if still_there {
                    send(up, cx, sa, now, self.plan, Some((share.private, share.public)));
                }
            }
            Done::KeyShare(Err(e)) => {
                failed(cx, sa, now, self.plan.replaces(), Failure::Local(e.to_string()))
            }
            _ => {}
        }
        Flow::Stay
    }
}

impl Sent {
    pub(crate) fn response(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: Vec<Payload>,
    ) -> Flow {
        let Self { plan, private } = self;
        if find_sa(&payloads).is_none() {
            return refused(up, cx, sa, now, plan, &payloads);
        }
        up.refused_since = None;
        match read_answer(sa, &plan, &payloads) {
            Err(reason) => {
                up.push(Task::DeleteSpi(plan.offer.spi_in()));
                failed(cx, sa, now, plan.replaces(), reason);
            }
            Ok((agreed, nr, None)) => finish(up, cx, sa, now, plan, agreed, &nr, &[]),
            Ok((agreed, nr, Some(peer))) => {
                let Some(private) = private else { return Flow::Stay };
                let link = followup::link(&payloads);
                let job = cx.job(sa.id, Work::Agree { private, peer });
                let agreeing = Agreeing { job, plan, agreed, nr, link };
                up.own = Some(Own::CreateAgreeing(Box::new(agreeing)));
            }
        }
        Flow::Stay
    }
}

/// What was agreed, the responder's nonce, its public value.
type Read = (Agreed, Vec<u8>, Option<Vec<u8>>);

fn read_answer(sa: &IkeSa, plan: &Plan, payloads: &[Payload]) -> Result<Read, Failure> {
    let agreed = plan.offer.check(sa, payloads)?;
    let nr =
        find_nonce(payloads).ok_or(Failure::Misbehaved(Misbehaviour::MissingPayload))?.to_vec();
    let Some(method) = agreed.suite.ke else { return Ok((agreed, nr, None)) };
    match find_ke(payloads) {
        Some(ke) if Some(method) == plan.method && ke.method == method => {
            let public = ke.data.clone();
            Ok((agreed, nr, Some(public)))
        }
        Some(_) => Err(Failure::Misbehaved(Misbehaviour::ChoseUnoffered)),
        None => Err(Failure::Misbehaved(Misbehaviour::MissingPayload)),
    }
}

fn refused(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    mut plan: Plan,
    payloads: &[Payload],
) -> Flow {
    let Some(error) = find_error(payloads) else {
        let reason = Failure::Misbehaved(Misbehaviour::MissingPayload);
        failed(cx, sa, now, plan.replaces(), reason);
        return Flow::Stay;
    };
    match error.kind {
        NotifyType::INVALID_KE_PAYLOAD => {
            let method =
                <[u8; 2]>::try_from(error.data.as_slice()).ok().map(|b| Ke(u16::from_be_bytes(b)));
            plan.other_ke += 1;
            let again = method.filter(|m| {
                plan.other_ke <= MAX_OTHER_KE
                    && plan.method != Some(*m)
                    && negotiate::offers_ke(&plan.offer.proposals, *m)
            });
            match again {
                Some(_) => {
                    plan.method = again;
                    prepare(up, cx, sa, now, plan);
                }
                None => {
                    failed(cx, sa, now, plan.replaces(), Failure::Misbehaved(Misbehaviour::KeLoop))
                }
            }
        }
        NotifyType::TEMPORARY_FAILURE => return up.refused_for_now(cx, sa, now, plan.task()),
        NotifyType::CHILD_SA_NOT_FOUND => forget_old(up, cx, &plan),
        _ => failed(cx, sa, now, plan.replaces(), plan.offer.refused(error)),
    }
    Flow::Stay
}

/// The peer does not have the old child SA (any more): it goes, and a new one is made unless there is one (RFC 7296 2.25.1).
fn forget_old(up: &mut Established, cx: &mut Context, plan: &Plan) {
    let Some(old) = plan.replaces() else { return };
    let Some(child) = cx.children.get(old) else { return };
    let replaced = child.successor.is_some() || child.stage == Stage::Lingering;
    if !replaced {
        child_sa::down(cx, old, Failure::Ended(EndReason::PeerDeleted));
        up.push(Task::NewChild(plan.offer.config.clone()));
    }
}

impl Agreeing {
    pub(crate) fn done(
        self: Box<Self>,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> Flow {
        let Self { plan, agreed, nr, link, .. } = *self;
        match done {
            Done::Agree(Ok(shared)) if !agreed.suite.additional.is_empty() => {
                Outcome { plan, agreed, nr }.follow(up, cx, sa, now, shared, link);
            }
            Done::Agree(Ok(shared)) => finish(up, cx, sa, now, plan, agreed, &nr, &[&shared]),
            _ => {
                up.push(Task::DeleteSpi(plan.offer.spi_in()));
                failed(
                    cx,
                    sa,
                    now,
                    plan.replaces(),
                    Failure::Misbehaved(Misbehaviour::BadPublicValue),
                );
            }
        }
        Flow::Stay
    }
}

impl Outcome {
    /// The child SA that is to be replaced.
    pub(crate) fn replaces(&self) -> Option<ChildId> {
        self.plan.replaces()
    }

    /// The SPI offered.
    pub(crate) fn spi_in(&self) -> Spi {
        self.plan.spi_in()
    }

    /// The additional key exchanges, unless a rekey of the peer won against this one.
    fn follow(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &IkeSa,
        now: Now,
        shared: Secret,
        link: Option<Vec<u8>>,
    ) {
        let own = Nonces { ni: &self.plan.ni, nr: &self.nr };
        let rival = self.plan.rival.as_ref().map(|(ni, nr)| Nonces { ni, nr });
        if rival.is_some_and(|rival| collide::settle(own, rival).close_own) {
            // Should the peer not finish its own, this is tried again.
            if let Some(old) = self.replaces() {
                cx.timers.set(sa.id, Timer::RekeyChild(old), now.at + REKEY_AGAIN);
            }
            return;
        }
        let Some(link) = link else {
            let reason = Failure::Misbehaved(Misbehaviour::MissingPayload);
            return failed(cx, sa, now, self.replaces(), reason);
        };
        let additional = self.agreed.suite.additional;
        followup::start(up, cx, sa, Subject::Child(self), additional, shared, link);
    }

    /// All key exchanges are done.
    pub(crate) fn finish(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        shared: &[&Secret],
    ) -> Flow {
        finish(up, cx, sa, now, self.plan, self.agreed, &self.nr, shared);
        Flow::Stay
    }

    /// The peer may have the child SA up already.
    pub(crate) fn failed(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &IkeSa,
        now: Now,
        reason: Failure,
    ) -> Flow {
        up.push(Task::DeleteSpi(self.spi_in()));
        failed(cx, sa, now, self.replaces(), reason);
        Flow::Stay
    }

    /// Once more, soon.
    pub(crate) fn retry(self, up: &mut Established, cx: &mut Context, sa: &IkeSa, now: Now) {
        up.retry(cx, sa, now, self.plan.task());
    }
}

#[expect(clippy::too_many_arguments, reason = "the exchange's outcome, and where it goes")]
fn finish(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    plan: Plan,
    agreed: Agreed,
    nr: &[u8],
    shared: &[&Secret],
) {
    if up.deleted.contains(&agreed.spi_out) {
        // The peer made it and deleted it before its response came through.
        let reason = Failure::Ended(EndReason::PeerDeleted);
        return failed(cx, sa, now, plan.replaces(), reason);
    }
    let keying = ChildKeying { ni: &plan.ni, nr, shared, initiated: true };
    let pair = match child::pair(cx, sa, &agreed, keying) {
        Ok(pair) => pair,
        Err(reason) => return failed(cx, sa, now, plan.replaces(), reason),
    };
    let Some(new) = child_sa::install(cx, now.at, (up.heir(sa), sa.home.ip()), agreed, pair) else {
        return;
    };
    let Some(old) = plan.replaces() else {
        child_sa::complete(cx, new);
        return up.push(Task::Probe);
    };
    match &plan.rival {
        Some((ni, nr_peer)) => {
            let own = Nonces { ni: &plan.ni, nr };
            let settled = collide::settle(own, Nonces { ni, nr: nr_peer });
            if settled.close_own {
                close_child(up, cx, new, EndReason::Redundant);
            } else {
                mark_redundant(cx, old);
                take_over(up, cx, old, new);
            }
        }
        None => take_over(up, cx, old, new),
    }
}

/// The new child SA is used from now on, the old one deleted.
fn take_over(up: &mut Established, cx: &mut Context, old: ChildId, new: ChildId) {
    child_sa::complete(cx, new);
    if let Some(child) = cx.children.get_mut(old)
        && child.stage != Stage::Lingering
    {
        child.successor = Some(new);
        close_child(up, cx, old, EndReason::Rekeyed);
    }
}

fn close_child(up: &mut Established, cx: &mut Context, child: ChildId, reason: EndReason) {
    if let Some(c) = cx.children.get_mut(child) {
        c.stage = Stage::Closing;
        up.queue.push_front(Task::DeleteChild(child, reason));
    }
}

/// The child that the peer's rekey made lost: the peer closes it.
fn mark_redundant(cx: &mut Context, old: ChildId) {
    let theirs = cx.children.get(old).and_then(|c| c.successor);
    if let Some(child) = theirs.and_then(|id| cx.children.get_mut(id)) {
        child.redundant = true;
    }
}

/// Reports a failure; a rekey is tried again later.
fn failed(cx: &mut Context, sa: &IkeSa, now: Now, replaces: Option<ChildId>, reason: Failure) {
    if let Some(child) = replaces.filter(|id| cx.children.get(*id).is_some()) {
        cx.timers.set(sa.id, Timer::RekeyChild(child), now.at + REKEY_AGAIN);
    }
    cx.event(Event::ChildFailed { ike: sa.id, remote: sa.remote.ip(), replaces, reason });
}

/// The peer asks for a child SA.
pub(crate) fn request(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    payloads: Vec<Payload>,
) -> Flow {
    match consider(up, cx, sa, &payloads) {
        Ok(considered) => accept(up, cx, sa, now, considered),
        Err(notify) => sa.respond(cx, vec![Payload::Notify(notify)]),
    }
    Flow::Stay
}

/// A request that can be answered.
struct Considered {
    answer: Answer,
    ni: Vec<u8>,
    nr: Vec<u8>,
    public: Option<Vec<u8>>,
}

fn consider(
    up: &mut Established,
    cx: &mut Context,
    sa: &IkeSa,
    payloads: &[Payload],
) -> Result<Considered, Notify> {
    let rekey = find_notify(payloads, NotifyType::REKEY_SA).cloned();
    let old = rekey.as_ref().and_then(|n| named_child(cx, sa, n));
    let replaced = old.and_then(|id| cx.children.get(id)).is_some_and(|c| c.successor.is_some());
    let asked = match rekey {
        Some(_) if replaced => Request::RekeyChild(collide::ChildDoing::Closing),
        Some(_) => Request::RekeyChild(up.child_doing(cx, old)),
        None => Request::CreateChild,
    };
    let reply = collide::reply(asked, up.ike_doing(), up.child_busy());
    match (reply, rekey) {
        (Reply::TemporaryFailure, _) => return Err(plain_notify(NotifyType::TEMPORARY_FAILURE)),
        (Reply::ChildSaNotFound, Some(notify)) => {
            return Err(Notify { kind: NotifyType::CHILD_SA_NOT_FOUND, ..notify });
        }
        _ => {}
    }
    if cx.children.of(sa.id).len() >= cx.limits.max_children {
        return Err(plain_notify(NotifyType::NO_ADDITIONAL_SAS));
    }
    let config =
        old.and_then(|id| cx.children.get(id)).map_or(&sa.config.child, |c| &c.config).clone();
    let refuse = |cx: &mut Context, refusal: Refusal| {
        let (ike, remote) = (sa.id, sa.remote.ip());
        let told = refusal.told();
        cx.event(Event::ChildFailed { ike, remote, replaces: old, reason: refusal.reason });
        told
    };
    let answer = Answer::choose(cx, sa, &config, payloads, ChildExchange::Create, old)
        .map_err(|refusal| refuse(cx, refusal))?;
    let ni = find_nonce(payloads).ok_or_else(|| plain_notify(NotifyType::INVALID_SYNTAX))?.to_vec();
    let public = public_for(&answer, payloads)?;
    let nr = cx.nonce();
    if reply == Reply::UsualSimultaneous {
        set_rival(up, (ni.clone(), nr.clone()));
    }
    Ok(Considered { answer, ni, nr, public })
}

/// The child that a REKEY_SA notify names, by the SPI of the peer's inbound SA.
fn named_child(cx: &Context, sa: &IkeSa, notify: &Notify) -> Option<ChildId> {
    if notify.protocol != ProtocolId::ESP {
        return None;
    }
    let spi = <[u8; 4]>::try_from(notify.spi.as_slice()).ok()?;
    cx.children.by_spi_out(sa.id, Spi(u32::from_be_bytes(spi)))
}

/// The peer's public value of the chosen method, or what is told instead (RFC 7296 1.3).
fn public_for(answer: &Answer, payloads: &[Payload]) -> Result<Option<Vec<u8>>, Notify> {
    let Some(method) = answer.agreed.suite.ke else { return Ok(None) };
    match find_ke(payloads) {
        Some(ke) if ke.method == method => Ok(Some(ke.data.clone())),
        _ => Err(Notify {
            data: method.0.to_be_bytes().to_vec(),
            ..plain_notify(NotifyType::INVALID_KE_PAYLOAD)
        }),
    }
}

fn set_rival(up: &mut Established, nonces: (Vec<u8>, Vec<u8>)) {
    match &mut up.own {
        Some(Own::Create(sent)) => sent.plan.rival = Some(nonces),
        Some(Own::CreateAgreeing(agreeing)) => agreeing.plan.rival = Some(nonces),
        _ => {}
    }
}

fn accept(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    considered: Considered,
) {
    let Considered { answer, ni, nr, public } = considered;
    match (answer.agreed.suite.ke, public) {
        (Some(method), Some(public)) => {
            let job = key_share(cx, sa.id, method, Some(public));
            up.theirs = Some(Theirs::Create(Box::new(Answering { job, answer, ni, nr })));
        }
        _ => answer_now(cx, sa, now, answer, (&ni, &nr), None),
    }
}

/// The child SA that the answer stands for, and its place in the old one's stead.
fn install_for(
    cx: &mut Context,
    sa: &IkeSa,
    now: Now,
    answer: Answer,
    keying: ChildKeying<'_>,
) -> Result<Answered, Refusal> {
    let old = answer.agreed.replaces;
    let answered = established::install_answer(cx, sa, now, answer, keying)?;
    let new = answered.child;
    if let Some(old) = old.and_then(|id| cx.children.get_mut(id)) {
        match old.successor {
            None => old.successor = Some(new),
            // This host's own rekey won while the answer was made.
            Some(_) => {
                if let Some(child) = cx.children.get_mut(new) {
                    child.redundant = true;
                }
            }
        }
    }
    Ok(answered)
}

impl Answering {
    /// The child SA that is to be replaced.
    pub(crate) fn replaces(&self) -> Option<ChildId> {
        self.answer.agreed.replaces
    }

    pub(crate) fn done(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> Flow {
        match done {
            Done::KeyShare(Ok(KeyShare { public, shared: Some(shared), .. })) => {
                let EspSuite { ke, additional, .. } = self.answer.agreed.suite;
                if additional.is_empty() {
                    let Self { answer, ni, nr, .. } = self;
                    answer_now(cx, sa, now, answer, (&ni, &nr), Some((public, shared)));
                } else {
                    let mut payloads =
                        vec![self.answer.sa_payload(), Payload::Nonce(self.nr.clone())];
                    payloads
                        .extend(ke.map(|method| Payload::Ke(KePayload { method, data: public })));
                    payloads.extend(self.answer.tail());
                    let asked = Asked::Child(self);
                    followup::answer(up, cx, sa, now, asked, (additional, shared), payloads);
                }
            }
            // The peer's public value is no element of the group.
            _ => sa.respond(cx, vec![error_notify(NotifyType::INVALID_SYNTAX)]),
        }
        Flow::Stay
    }

    /// All key exchanges are done: the child SA, then the last response.
    pub(crate) fn conclude(
        self,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        shared: &[&Secret],
        response: Vec<Payload>,
    ) {
        let keying = ChildKeying { ni: &self.ni, nr: &self.nr, shared, initiated: false };
        match install_for(cx, sa, now, self.answer, keying) {
            Ok(_) => sa.respond(cx, response),
            Err(refusal) => sa.respond(cx, vec![error_notify(refusal.notify)]),
        }
    }
}

fn answer_now(
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    answer: Answer,
    nonces: (&[u8], &[u8]),
    share: Option<(Vec<u8>, Secret)>,
) {
    let (ni, nr) = nonces;
    let method = answer.agreed.suite.ke;
    let (public, shared) = share.unzip();
    let shared: Vec<_> = shared.iter().collect();
    let keying = ChildKeying { ni, nr, shared: &shared, initiated: false };
    let answered = match install_for(cx, sa, now, answer, keying) {
        Ok(answered) => answered,
        Err(refusal) => return sa.respond(cx, vec![error_notify(refusal.notify)]),
    };
    let mut payloads = vec![answered.sa_payload, Payload::Nonce(nr.to_vec())];
    if let (Some(method), Some(data)) = (method, public) {
        payloads.push(Payload::Ke(KePayload { method, data }));
    }
    payloads.extend(answered.tail);
    sa.respond(cx, payloads);
}

/// The Nonce payload.
pub(crate) fn find_nonce(payloads: &[Payload]) -> Option<&[u8]> {
    payloads.iter().find_map(|p| match p {
        Payload::Nonce(nonce) => Some(nonce.as_slice()),
        _ => None,
    })
}

/// The KE payload.
pub(crate) fn find_ke(payloads: &[Payload]) -> Option<&KePayload> {
    payloads.iter().find_map(|p| match p {
        Payload::Ke(ke) => Some(ke),
        _ => None,
    })
}
