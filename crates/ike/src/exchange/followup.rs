//! IKE_FOLLOWUP_KE: the additional key exchanges after CREATE_CHILD_SA (RFC 9370 2.2.4).
//!
//! Nothing is installed before the last of them. Of two rekeys of the same SA at once the loser is known once
//! the responses to CREATE_CHILD_SA are there, and goes no further.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crypto::Secret;
use crypto::kx::PrivateKx;
use wire::payload::{KePayload, Notify, Payload};
use wire::registry::{ExchangeType, Ke, NotifyType};

use crate::context::Context;
use crate::crash;
use crate::endpoint::Now;
use crate::error::{Failure, Misbehaviour};
use crate::established::{Established, Flow, Own, Theirs};
use crate::exchange::create_child::{self, find_ke};
use crate::exchange::init::key_share;
use crate::exchange::rekey;
use crate::ike_sa::{IkeSa, error_notify, find_error, find_notify, plain_notify};
use crate::job::{Done, JobId, KeyShare, Work};
use crate::multi_ke::Additional;
use crate::timer::Timer;

/// A peer that does not go on with its key exchanges is waited for so long (RFC 9370 2.2.4: 5 to 20 s).
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of a link that is made here.
const LINK_LEN: usize = 8;

/// Data of a peer's link, at most.
const MAX_LINK: usize = 256;

/// What this host's key exchanges are for, with the outcome of CREATE_CHILD_SA.
#[derive(Clone)]
pub(crate) enum Subject {
    /// A child SA.
    Child(create_child::Outcome),
    /// This IKE SA's successor.
    Ike(rekey::Outcome),
}

/// This host's key exchanges.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) subject: Subject,
    shared: Vec<Secret>,
    /// The first is the one in hand.
    left: VecDeque<Ke>,
    link: Vec<u8>,
    step: Step,
}

#[derive(Clone)]
enum Step {
    /// The private value is being made.
    Keying(JobId),
    /// Sent.
    Sent(Arc<dyn PrivateKx>),
    /// The shared secret is being made.
    Agreeing(JobId),
}

/// What the peer's key exchanges are for.
#[derive(Clone)]
pub(crate) enum Asked {
    /// A child SA.
    Child(create_child::Answering),
    /// This IKE SA's successor.
    Ike(rekey::Answering),
}

/// The peer's key exchanges.
#[derive(Clone)]
pub(crate) struct Pending {
    asked: Asked,
    shared: Vec<Secret>,
    left: VecDeque<Ke>,
    link: Vec<u8>,
    /// Makes the shared secret; `None`: the next request is waited for.
    pub(crate) job: Option<JobId>,
}

/// The link of a response, where one may be.
pub(crate) fn link(payloads: &[Payload]) -> Option<Vec<u8>> {
    let notify = find_notify(payloads, NotifyType::ADDITIONAL_KEY_EXCHANGE)?;
    (notify.data.len() <= MAX_LINK).then(|| notify.data.clone())
}

/// Goes on after the first key exchange, whose shared secret is `shared`.
pub(crate) fn start(
    up: &mut Established,
    cx: &mut Context,
    sa: &IkeSa,
    subject: Subject,
    additional: Additional,
    shared: Secret,
    link: Vec<u8>,
) {
    // The peer found out by the same nonces that its rekey has lost, and does not go on with it.
    if let Some(Theirs::Followup(pending)) = &up.theirs
        && pending.asked.rivals(&subject)
    {
        forget(up, cx, sa);
    }
    let left = additional.methods().collect();
    let chain = Chain { subject, shared: vec![shared], left, link, step: Step::Keying(JobId(0)) };
    Box::new(chain).key(up, cx, sa);
}

impl Chain {
    fn method(&self) -> Ke {
        self.left.front().copied().unwrap_or(Ke::NONE)
    }

    fn key(mut self: Box<Self>, up: &mut Established, cx: &mut Context, sa: &IkeSa) {
        self.step = Step::Keying(key_share(cx, sa.id, self.method(), None));
        up.own = Some(Own::Followup(self));
    }

    /// Whether a response is waited for.
    pub(crate) fn sent(&self) -> bool {
        matches!(self.step, Step::Sent(_))
    }

    /// The job that is waited for.
    pub(crate) fn job(&self) -> Option<JobId> {
        match self.step {
            Step::Keying(job) | Step::Agreeing(job) => Some(job),
            Step::Sent(_) => None,
        }
    }

    pub(crate) fn done(
        mut self: Box<Self>,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> Flow {
        match done {
            Done::KeyShare(Ok(share)) => {
                let payloads = [
                    Payload::Ke(KePayload { method: self.method(), data: share.public }),
                    link_payload(self.link.clone()),
                ];
                sa.send_request(cx, now, ExchangeType::IKE_FOLLOWUP_KE, &payloads);
                self.step = Step::Sent(share.private);
                up.own = Some(Own::Followup(self));
                Flow::Stay
            }
            Done::Agree(Ok(shared)) => {
                self.shared.push(shared);
                self.left.pop_front();
                match self.left.is_empty() {
                    false => {
                        self.key(up, cx, sa);
                        Flow::Stay
                    }
                    true => self.finish(up, cx, sa, now),
                }
            }
            Done::KeyShare(Err(error)) => {
                self.failed(up, cx, sa, now, Failure::Local(error.to_string()))
            }
            _ => {
                let reason = Failure::Misbehaved(Misbehaviour::BadPublicValue);
                self.failed(up, cx, sa, now, reason)
            }
        }
    }

    pub(crate) fn response(
        mut self: Box<Self>,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: &[Payload],
    ) -> Flow {
        if let Some(error) = find_error(payloads) {
            return self.refused(up, cx, sa, now, error.kind);
        }
        let misbehaved = |what| Failure::Misbehaved(what);
        let peer = match find_ke(payloads) {
            Some(ke) if ke.method == self.method() => ke.data.clone(),
            Some(_) => {
                return self.failed(up, cx, sa, now, misbehaved(Misbehaviour::ChoseUnoffered));
            }
            None => {
                return self.failed(up, cx, sa, now, misbehaved(Misbehaviour::MissingPayload));
            }
        };
        if self.left.len() > 1 {
            match link(payloads) {
                Some(link) => self.link = link,
                None => {
                    let what = Misbehaviour::MissingPayload;
                    return self.failed(up, cx, sa, now, misbehaved(what));
                }
            }
        }
        if let (Subject::Ike(outcome), Some(token)) = (&mut self.subject, crash::find(payloads)) {
            outcome.token = Some(token);
        }
        let Step::Sent(private) = self.step else { return Flow::Stay };
        self.step = Step::Agreeing(cx.job(sa.id, Work::Agree { private, peer }));
        up.own = Some(Own::Followup(self));
        Flow::Stay
    }

    /// What the peer has forgotten or cannot do now is asked for again.
    fn refused(
        self: Box<Self>,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        kind: NotifyType,
    ) -> Flow {
        match kind {
            NotifyType::STATE_NOT_FOUND | NotifyType::TEMPORARY_FAILURE => {
                match self.subject {
                    Subject::Child(outcome) => outcome.retry(up, cx, sa, now),
                    Subject::Ike(outcome) => outcome.retry(up, cx, sa, now),
                }
                Flow::Stay
            }
            kind => self.failed(up, cx, sa, now, Failure::PeerError(kind)),
        }
    }

    fn failed(
        self: Box<Self>,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        reason: Failure,
    ) -> Flow {
        match self.subject {
            Subject::Child(outcome) => outcome.failed(up, cx, sa, now, reason),
            Subject::Ike(outcome) => outcome.failed(cx, sa, now, reason),
        }
    }

    fn finish(
        self: Box<Self>,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
    ) -> Flow {
        let shared: Vec<_> = self.shared.iter().collect();
        match self.subject {
            Subject::Child(outcome) => outcome.finish(up, cx, sa, now, &shared),
            Subject::Ike(outcome) => outcome.finish(up, cx, sa, now, &shared),
        }
    }
}

/// Answers CREATE_CHILD_SA with `payloads` and waits for what follows.
pub(crate) fn answer(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    asked: Asked,
    (additional, shared): (Additional, Secret),
    mut payloads: Vec<Payload>,
) {
    let link = cx.rng.bytes::<LINK_LEN>().to_vec();
    payloads.push(link_payload(link.clone()));
    sa.respond(cx, payloads);
    // This host's own rekey has won already: the peer will see it, and not go on.
    if matches!(&up.own, Some(Own::Followup(chain)) if asked.rivals(&chain.subject)) {
        return;
    }
    let left = additional.methods().collect();
    let pending = Pending { asked, shared: vec![shared], left, link, job: None };
    up.theirs = Some(Theirs::Followup(Box::new(pending)));
    cx.timers.set(sa.id, Timer::Followup, now.at + PATIENCE);
}

/// An IKE_FOLLOWUP_KE request.
pub(crate) fn request(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    payloads: &[Payload],
) -> Flow {
    match next(up, cx, sa, payloads) {
        Ok(()) => cx.timers.cancel(sa.id, Timer::Followup),
        Err(kind) => sa.respond(cx, vec![error_notify(kind)]),
    }
    Flow::Stay
}

fn next(
    up: &mut Established,
    cx: &mut Context,
    sa: &IkeSa,
    payloads: &[Payload],
) -> Result<(), NotifyType> {
    let pending = match &mut up.theirs {
        Some(Theirs::Followup(pending)) if pending.job.is_none() => pending,
        _ => return Err(NotifyType::STATE_NOT_FOUND),
    };
    if link(payloads).as_ref() != Some(&pending.link) {
        return Err(NotifyType::STATE_NOT_FOUND);
    }
    match find_ke(payloads) {
        Some(ke) if Some(&ke.method) == pending.left.front() => {
            pending.job = Some(key_share(cx, sa.id, ke.method, Some(ke.data.clone())));
            Ok(())
        }
        _ => {
            forget(up, cx, sa);
            Err(NotifyType::INVALID_SYNTAX)
        }
    }
}

/// The peer's key exchanges are not gone on with.
pub(crate) fn forget(up: &mut Established, cx: &mut Context, sa: &IkeSa) {
    if matches!(&up.theirs, Some(Theirs::Followup(_))) {
        up.theirs = None;
    }
    cx.timers.cancel(sa.id, Timer::Followup);
}

impl Pending {
    pub(crate) fn done(
        mut self: Box<Self>,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> Flow {
        let (public, shared) = match done {
            Done::KeyShare(Ok(KeyShare { public, shared: Some(shared), .. })) => (public, shared),
            _ => {
                sa.respond(cx, vec![error_notify(NotifyType::INVALID_SYNTAX)]);
                return Flow::Stay;
            }
        };
        let method = self.left.pop_front().unwrap_or(Ke::NONE);
        let ke = Payload::Ke(KePayload { method, data: public });
        self.shared.push(shared);
        if self.left.is_empty() {
            let shared: Vec<_> = self.shared.iter().collect();
            return match self.asked {
                Asked::Child(answering) => {
                    answering.conclude(cx, sa, now, &shared, vec![ke]);
                    Flow::Stay
                }
                Asked::Ike(answering) => answering.conclude(up, cx, sa, now, &shared, vec![ke]),
            };
        }
        self.link = cx.rng.bytes::<LINK_LEN>().to_vec();
        self.job = None;
        sa.respond(cx, vec![ke, link_payload(self.link.clone())]);
        up.theirs = Some(Theirs::Followup(self));
        cx.timers.set(sa.id, Timer::Followup, now.at + PATIENCE);
        Flow::Stay
    }
}

impl Asked {
    /// Whether both replace the same SA.
    fn rivals(&self, own: &Subject) -> bool {
        match (self, own) {
            (Self::Child(theirs), Subject::Child(own)) => {
                own.replaces().is_some() && theirs.replaces() == own.replaces()
            }
            (Self::Ike(_), Subject::Ike(_)) => true,
            _ => false,
        }
    }
}

fn link_payload(data: Vec<u8>) -> Payload {
    Payload::Notify(Notify { data, ..plain_notify(NotifyType::ADDITIONAL_KEY_EXCHANGE) })
}
