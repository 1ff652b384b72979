//! CREATE_CHILD_SA that replaces the IKE SA (RFC 7296 1.3.2, 2.8.2, 2.18, 2.25.2).

use std::sync::Arc;

use crypto::Secret;
use crypto::kx::PrivateKx;
use wire::message::IkeSpi;
use wire::payload::{KePayload, Notify, Payload};
use wire::proposal::Proposal;
use wire::registry::{ExchangeType, Ke, NotifyType};

use crate::collide::{self, Nonces, Reply, Request};
use crate::context::{After, Context};
use crate::crash;
use crate::endpoint::Now;
use crate::error::{Failure, Misbehaviour};
use crate::established::{self, Established, Flow, Own, Task, Theirs};
use crate::event::{Event, IkeSaId};
use crate::exchange::child::find_sa;
use crate::exchange::create_child::{find_ke, find_nonce};
use crate::exchange::followup::{self, Asked, Subject};
use crate::exchange::init::key_share;
use crate::ike_sa::{Ends, IkeSa, State, error_notify, find_error, plain_notify};
use crate::job::{Done, JobId, KeyShare, Work};
use crate::keys;
use crate::negotiate::{self, Chosen, IkeSuite};
use crate::timer::Timer;

/// After a rekey that failed for good, the next is tried so much later.
const REKEY_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

/// So often the peer may ask for another key exchange method.
const MAX_OTHER_KE: u8 = 2;

/// What this host wants, kept through all steps.
#[derive(Clone)]
pub(crate) struct Plan {
    id: IkeSaId,
    spi: IkeSpi,
    offer: Vec<Proposal>,
    ni: Vec<u8>,
    method: Ke,
    other_ke: u8,
    rival: Option<Rival>,
}

/// The peer's rekey of the same IKE SA.
#[derive(Clone)]
struct Rival {
    ni: Vec<u8>,
    nr: Vec<u8>,
    /// What came of it.
    new: Option<IkeSaId>,
}

/// Waits for the private value.
#[derive(Clone)]
pub(crate) struct Keying {
    pub(crate) job: JobId,
    plan: Plan,
}

/// Waits for the response.
#[derive(Clone)]
pub(crate) struct Sent {
    plan: Plan,
    private: Arc<dyn PrivateKx>,
}

/// Waits for the shared secret.
#[derive(Clone)]
pub(crate) struct Agreeing {
    pub(crate) job: JobId,
    plan: Plan,
    chosen: Chosen<IkeSuite>,
    spi_r: IkeSpi,
    nr: Vec<u8>,
    link: Option<Vec<u8>>,
    token: Option<Secret>,
}

/// What came of CREATE_CHILD_SA.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    suite: IkeSuite,
    spi_r: IkeSpi,
    nr: Vec<u8>,
    /// The peer's for the new SA (RFC 6290 4.3); of additional key exchanges, the last may bring it.
    pub(crate) token: Option<Secret>,
}

/// The peer's request waits for the shared secret.
#[derive(Clone)]
pub(crate) struct Answering {
    pub(crate) job: JobId,
    id: IkeSaId,
    spi: IkeSpi,
    chosen: Chosen<IkeSuite>,
    peer_spi: IkeSpi,
    ni: Vec<u8>,
    nr: Vec<u8>,
}

/// Asks for a successor.
pub(crate) fn start(up: &mut Established, cx: &mut Context, sa: &mut IkeSa) {
    let id = cx.fresh_ike_id();
    let spi = cx.fresh_ike_spi();
    let offer = negotiate::offer_ike(&sa.config.ike_proposals, Some(spi), &*cx.provider);
    let Some(method) = negotiate::first_ke(&offer) else {
        return;
    };
    let plan = Plan { id, spi, offer, ni: cx.nonce(), method, other_ke: 0, rival: None };
    prepare(up, cx, sa, plan);
}

fn prepare(up: &mut Established, cx: &mut Context, sa: &IkeSa, plan: Plan) {
    let job = key_share(cx, sa.id, plan.method, None);
    up.own = Some(Own::RekeyKeying(Box::new(Keying { job, plan })));
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
        let Done::KeyShare(Ok(share)) = done else { return Flow::Stay };
        let plan = self.plan;
        let payloads = [
            Payload::Sa(plan.offer.clone()),
            Payload::Nonce(plan.ni.clone()),
            Payload::Ke(KePayload { method: plan.method, data: share.public }),
        ];
        sa.send_request(cx, now, ExchangeType::CREATE_CHILD_SA, &payloads);
        up.own = Some(Own::Rekey(Box::new(Sent { plan, private: share.private })));
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
        match read_answer(&plan, &payloads) {
            Ok(read) => {
                let job = cx.job(sa.id, Work::Agree { private, peer: read.public });
                let link = followup::link(&payloads);
                let Read { chosen, spi_r, nr, .. } = read;
                let token = crash::find(&payloads);
                let agreeing = Agreeing { job, plan, chosen, spi_r, nr, link, token };
                up.own = Some(Own::RekeyAgreeing(Box::new(agreeing)));
                Flow::Stay
            }
            Err(what) => Flow::End(Failure::Misbehaved(what)),
        }
    }
}

struct Read {
    chosen: Chosen<IkeSuite>,
    spi_r: IkeSpi,
    nr: Vec<u8>,
    public: Vec<u8>,
}

fn read_answer(plan: &Plan, payloads: &[Payload]) -> Result<Read, Misbehaviour> {
    let theirs = find_sa(payloads).ok_or(Misbehaviour::MissingPayload)?;
    let chosen = negotiate::check_answer_ike(&plan.offer, theirs)?;
    let spi_r = chosen.peer_ike_spi().ok_or(Misbehaviour::Malformed)?;
    let nr = find_nonce(payloads).ok_or(Misbehaviour::MissingPayload)?.to_vec();
    let ke = find_ke(payloads).ok_or(Misbehaviour::MissingPayload)?;
    if chosen.suite.ke != plan.method || ke.method != plan.method {
        return Err(Misbehaviour::ChoseUnoffered);
    }
    Ok(Read { chosen, spi_r, nr, public: ke.data.clone() })
}

fn refused(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    mut plan: Plan,
    payloads: &[Payload],
) -> Flow {
    if let Some(rival) = &plan.rival {
        // The peer's rekey stands alone; while its answer is being made, that will find no rival.
        if let Some(new) = rival.new {
            established::replaced(up, cx, sa, now, new, false);
        }
        return Flow::Stay;
    }
    match find_error(payloads) {
        Some(error) if error.kind == NotifyType::TEMPORARY_FAILURE => {
            return up.refused_for_now(cx, sa, now, Task::RekeyIke);
        }
        Some(error)
            if error.kind == NotifyType::INVALID_KE_PAYLOAD
                && other_method(&mut plan, &error.data) =>
        {
            prepare(up, cx, sa, plan);
        }
        Some(error) => put_off(cx, sa, now, Failure::PeerError(error.kind)),
        None => put_off(cx, sa, now, Failure::Misbehaved(Misbehaviour::MissingPayload)),
    }
    Flow::Stay
}

/// The old SA serves on; it is tried again until its hard lifetime.
fn put_off(cx: &mut Context, sa: &IkeSa, now: Now, reason: Failure) {
    cx.timers.set(sa.id, Timer::RekeyIke, now.at + REKEY_AGAIN);
    cx.event(Event::IkeRekeyFailed { id: sa.id, remote: sa.remote.ip(), reason });
}

/// Takes the method that the peer asks for, if that may be.
fn other_method(plan: &mut Plan, data: &[u8]) -> bool {
    let Ok(method) = <[u8; 2]>::try_from(data).map(|b| Ke(u16::from_be_bytes(b))) else {
        return false;
    };
    plan.other_ke += 1;
    let may = plan.other_ke <= MAX_OTHER_KE
        && method != plan.method
        && negotiate::offers_ke(&plan.offer, method);
    if may {
        plan.method = method;
    }
    may
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
        let Self { plan, chosen, spi_r, nr, link, token, .. } = *self;
        let Done::Agree(Ok(shared)) = done else {
            return Flow::End(Failure::Misbehaved(Misbehaviour::BadPublicValue));
        };
        let outcome = Outcome { plan, suite: chosen.suite, spi_r, nr, token };
        match chosen.suite.additional.is_empty() {
            true => outcome.finish(up, cx, sa, now, &[&shared]),
            false => outcome.follow(up, cx, sa, now, shared, link),
        }
    }
}

impl Outcome {
    /// The additional key exchanges, unless a rekey of the peer won against this one.
    fn follow(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &IkeSa,
        now: Now,
        shared: Secret,
        link: Option<Vec<u8>>,
    ) -> Flow {
        let own = Nonces { ni: &self.plan.ni, nr: &self.nr };
        if let Some(rival) = &self.plan.rival
            && collide::settle(own, Nonces { ni: &rival.ni, nr: &rival.nr }).close_own
        {
            match rival.new {
                Some(new) => established::replaced(up, cx, sa, now, new, false),
                // Should the peer not finish its own, this is tried again.
                None => cx.timers.set(sa.id, Timer::RekeyIke, now.at + REKEY_AGAIN),
            }
            return Flow::Stay;
        }
        let Some(link) = link else {
            return self.failed(cx, sa, now, Failure::Misbehaved(Misbehaviour::MissingPayload));
        };
        let additional = self.suite.additional;
        followup::start(up, cx, sa, Subject::Ike(self), additional, shared, link);
        Flow::Stay
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
        let Self { plan, suite, spi_r, nr, token } = self;
        let ends =
            Ends { local: sa.local, remote: sa.remote, initiator: true, spi_i: plan.spi, spi_r };
        let new = New { id: plan.id, ends, suite, token };
        if let Err(failure) = spawn(up, cx, sa, now, new, (&plan.ni, &nr), shared, None) {
            return Flow::End(failure);
        }
        settle(up, cx, sa, now, &plan, &nr);
        Flow::Stay
    }

    /// The peer may have handed the child SAs over already; else the old SA serves on.
    pub(crate) fn failed(self, cx: &mut Context, sa: &IkeSa, now: Now, reason: Failure) -> Flow {
        match reason {
            Failure::PeerError(_) => {
                put_off(cx, sa, now, reason);
                Flow::Stay
            }
            reason => Flow::End(reason),
        }
    }

    /// Once more, soon; unless what came of the peer's rekey serves.
    pub(crate) fn retry(self, up: &mut Established, cx: &mut Context, sa: &IkeSa, now: Now) {
        match self.plan.rival.and_then(|rival| rival.new) {
            Some(new) => established::replaced(up, cx, sa, now, new, false),
            None => up.retry(cx, sa, now, Task::RekeyIke),
        }
    }
}

/// This host's own rekey is through: who inherits, who deletes what (RFC 7296 2.8.2).
fn settle(up: &mut Established, cx: &mut Context, sa: &IkeSa, now: Now, plan: &Plan, nr: &[u8]) {
    let Some(rival) = &plan.rival else {
        return established::replaced(up, cx, sa, now, plan.id, true);
    };
    let own = Nonces { ni: &plan.ni, nr };
    let settled = collide::settle(own, Nonces { ni: &rival.ni, nr: &rival.nr });
    if !settled.close_own {
        return established::replaced(up, cx, sa, now, plan.id, true);
    }
    cx.after.push_back(After::CloseRedundant(plan.id));
    if let Some(new) = rival.new {
        established::replaced(up, cx, sa, now, new, false);
    }
}

/// The peer asks for a successor.
pub(crate) fn request(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    payloads: Vec<Payload>,
) -> Flow {
    let reply = collide::reply(Request::RekeyIke, up.ike_doing(), up.child_busy());
    if reply == Reply::TemporaryFailure {
        sa.respond(cx, vec![error_notify(NotifyType::TEMPORARY_FAILURE)]);
        return Flow::Stay;
    }
    if let Err(notify) = consider(up, cx, sa, &payloads) {
        sa.respond(cx, vec![Payload::Notify(notify)]);
    }
    Flow::Stay
}

fn consider(
    up: &mut Established,
    cx: &mut Context,
    sa: &IkeSa,
    payloads: &[Payload],
) -> Result<(), Notify> {
    let syntax = || plain_notify(NotifyType::INVALID_SYNTAX);
    let theirs = find_sa(payloads).ok_or_else(syntax)?;
    let ni = find_nonce(payloads).ok_or_else(syntax)?.to_vec();
    let ke = find_ke(payloads).ok_or_else(syntax)?;
    if cx.ikes_of(sa.home.ip()).count() + 1 >= cx.limits.max_sas_of_peer {
        return Err(plain_notify(NotifyType::NO_ADDITIONAL_SAS));
    }
    let id = cx.fresh_ike_id();
    let spi = cx.fresh_ike_spi();
    let chosen = negotiate::choose_ike(&sa.config.ike_proposals, theirs, Some(spi), &*cx.provider);
    let refusal = match &chosen {
        None => Some(plain_notify(NotifyType::NO_PROPOSAL_CHOSEN)),
        Some(chosen) if chosen.suite.ke != ke.method => Some(Notify {
            data: chosen.suite.ke.0.to_be_bytes().to_vec(),
            ..plain_notify(NotifyType::INVALID_KE_PAYLOAD)
        }),
        Some(chosen) if chosen.peer_ike_spi().is_none() => Some(syntax()),
        Some(_) => None,
    };
    let (Some(chosen), None) = (chosen, &refusal) else {
        return Err(refusal.unwrap_or_else(syntax));
    };
    let peer_spi = chosen.peer_ike_spi().ok_or_else(syntax)?;
    let nr = cx.nonce();
    if let Some(plan) = own_plan(up) {
        plan.rival = Some(Rival { ni: ni.clone(), nr: nr.clone(), new: None });
    }
    let job = key_share(cx, sa.id, ke.method, Some(ke.data.clone()));
    let answering = Answering { job, id, spi, chosen, peer_spi, ni, nr };
    up.theirs = Some(Theirs::Rekey(Box::new(answering)));
    Ok(())
}

fn own_plan(up: &mut Established) -> Option<&mut Plan> {
    match &mut up.own {
        Some(Own::Rekey(sent)) => Some(&mut sent.plan),
        Some(Own::RekeyAgreeing(agreeing)) => Some(&mut agreeing.plan),
        Some(Own::Followup(chain)) => match &mut chain.subject {
            Subject::Ike(outcome) => Some(&mut outcome.plan),
            Subject::Child(_) => None,
        },
        _ => None,
    }
}

/// This host's name of a successor that is not there yet: its keys are still to be made.
pub(crate) fn coming(up: &Established) -> Option<IkeSpi> {
    match &up.own {
        Some(Own::RekeyKeying(keying)) => Some(keying.plan.spi),
        Some(Own::Rekey(sent)) => Some(sent.plan.spi),
        Some(Own::RekeyAgreeing(agreeing)) => Some(agreeing.plan.spi),
        Some(Own::Followup(chain)) => match &chain.subject {
            Subject::Ike(outcome) => Some(outcome.plan.spi),
            Subject::Child(_) => None,
        },
        _ => None,
    }
}

/// What came of the peer's rekey while this host's own is not settled.
pub(crate) fn rival_successor(up: &mut Established) -> Option<IkeSaId> {
    own_plan(up)?.rival.as_ref()?.new
}

impl Answering {
    pub(crate) fn done(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> Flow {
        let share = match done {
            Done::KeyShare(Ok(KeyShare { public, shared: Some(shared), .. })) => (public, shared),
            _ => {
                sa.respond(cx, vec![error_notify(NotifyType::INVALID_SYNTAX)]);
                return Flow::Stay;
            }
        };
        let (public, shared) = share;
        let IkeSuite { ke: method, additional, .. } = self.chosen.suite;
        let payloads = vec![
            Payload::Sa(vec![self.chosen.proposal.clone()]),
            Payload::Nonce(self.nr.clone()),
            Payload::Ke(KePayload { method, data: public }),
        ];
        if additional.is_empty() {
            return self.conclude(up, cx, sa, now, &[&shared], payloads);
        }
        followup::answer(up, cx, sa, now, Asked::Ike(self), (additional, shared), payloads);
        Flow::Stay
    }

    /// All key exchanges are done: the new SA, then the last response.
    pub(crate) fn conclude(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        shared: &[&Secret],
        mut response: Vec<Payload>,
    ) -> Flow {
        let ends = Ends {
            local: sa.local,
            remote: sa.remote,
            initiator: false,
            spi_i: self.peer_spi,
            spi_r: self.spi,
        };
        let token = crash::rekeyed(cx, sa, (self.peer_spi, self.spi));
        response.extend(token);
        let new = New { id: self.id, ends, suite: self.chosen.suite, token: None };
        let heir_of = own_plan(up).is_some().then_some(sa.id);
        if let Err(failure) = spawn(up, cx, sa, now, new, (&self.ni, &self.nr), shared, heir_of) {
            return Flow::End(failure);
        }
        sa.respond(cx, response);
        if let Some(Plan { rival: Some(rival), .. }) = own_plan(up) {
            rival.new = Some(self.id);
        } else if up.life == established::Life::Live {
            established::replaced(up, cx, sa, now, self.id, false);
        }
        // Else this host's own rekey won meanwhile: the peer closes what came of its own.
        Flow::Stay
    }
}

/// A new IKE SA's names and algorithms.
struct New {
    id: IkeSaId,
    ends: Ends,
    suite: IkeSuite,
    token: Option<Secret>,
}

#[expect(clippy::too_many_arguments, reason = "the exchange's outcome, and where it goes")]
fn spawn(
    up: &Established,
    cx: &mut Context,
    old: &IkeSa,
    now: Now,
    new: New,
    nonces: (&[u8], &[u8]),
    shared: &[&Secret],
    heir_of: Option<IkeSaId>,
) -> Result<(), Failure> {
    let secured =
        old.secured.as_ref().ok_or_else(|| Failure::Local("the IKE SA has no keys".into()))?;
    let mut keys = keys::derive_rekeyed(
        &*cx.provider,
        &new.suite,
        secured.suite.prf,
        &secured.keys.sk_d,
        shared,
        nonces.0,
        nonces.1,
        new.ends.spi_i,
        new.ends.spi_r,
    )
    .map_err(|e| Failure::Local(e.to_string()))?;
    let mut sa = IkeSa::new(new.id, old.config.clone(), new.ends, State::Gone);
    sa.nat = old.nat;
    (sa.encap, sa.udp) = (old.encap, old.udp);
    (sa.home, sa.mobility) = (old.home, old.mobility.clone());
    sa.fragmentation = old.fragmentation;
    // Not reported before it inherits; then its end is.
    sa.silent = true;
    keys.forget_proof();
    sa.secure(cx, new.suite, keys)?;
    let mut fresh =
        Established::new(&sa, now, up.local_id.clone(), up.remote_id.clone(), up.origin.clone());
    fresh.heir_of = heir_of.or(Some(old.id));
    fresh.token = new.token;
    sa.state = State::Up(Box::new(fresh));
    cx.timers.set(sa.id, Timer::Linger, now.at + established::REPLACED);
    cx.after.push_back(After::Spawn(Box::new(sa)));
    Ok(())
}
