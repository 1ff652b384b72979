//! An IKE SA whose both ends are authenticated: what it does next, and where messages go.

mod dispatch;

pub(crate) use dispatch::*;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crypto::Secret;
use ipsec::Instant;
use ipsec::sa::{Outer, SaKey};
use wire::esp::Spi;
use wire::identity::Identity;
use wire::payload::Payload;
use wire::registry::{ExchangeType, NotifyType, ProtocolId};

use crate::child_sa::{self, Child, Stage};
use crate::collide::{ChildDoing, IkeDoing};
use crate::config::ChildConfig;
use crate::context::{After, Context};
use crate::endpoint::Now;
use crate::error::{EndReason, Failure};
use crate::event::{ChildId, IkeInfo, IkeSaId};
use crate::exchange::child::{self, Answer, Keying, Refusal, find_sa};
use crate::exchange::{addresses, create_child, delete, followup, liveness, recovered, rekey};
use crate::ike_sa::{IkeSa, State};
use crate::job::{Done, JobId};
use crate::record::{Asks, Origin};
use crate::suite;
use crate::timer::Timer;

/// Tasks that may wait on one IKE SA.
const MAX_QUEUE: usize = 128;

/// Deleted SPIs remembered while a response is waited for.
const MAX_DELETED: usize = 16;

/// A responder sends through a new child SA after this long. Where it has no sign yet that the peer has even the IKE SA, it asks for
/// one then …
const OUTBOUND_NEW: Duration = Duration::from_secs(1);
/// … and without one sends through it after this long: a peer that checks many signatures at once is slow to install its own.
const OUTBOUND_UNSURE: Duration = Duration::from_secs(5);
/// How long it waits for a sign where the old child SA still serves.
const OUTBOUND_REKEYED: Duration = Duration::from_secs(120);
/// A sign that was asked for is looked for this often; where another IKE SA's child SA still serves, for as long as that does.
const OUTBOUND_ASKED: Duration = Duration::from_millis(200);

/// An exchange is tried again after this long, and up to as long again. One that was refused for now (RFC 7296 2.25): after this and
/// up to half of it more at who began the IKE SA, after two or three times this at the other.
const RETRY: Duration = Duration::from_secs(2);
/// Sooner where little is left of what is to be replaced: so many times fit in …
const TRIES_LEFT: u32 = 8;
/// … but not sooner than this.
const RETRY_LEAST: Duration = Duration::from_millis(200);
/// If that goes on for so long, the SA is closed (RFC 7296 2.25: several minutes).
const OUT_OF_STEP: Duration = Duration::from_secs(180);

/// A replaced IKE SA that the peer should delete, and does not, is deleted here after this long; so is a
/// new one that never came into its inheritance.
pub(crate) const REPLACED: Duration = Duration::from_secs(60);

/// The established part of an IKE SA.
#[derive(Clone)]
pub(crate) struct Established {
    pub(crate) local_id: Identity,
    pub(crate) remote_id: Identity,
    pub(crate) since: Instant,
    pub(crate) rekey_at: Instant,
    pub(crate) last_alive: Instant,
    /// When an unprotected message last made this host ask for a sign of life.
    pub(crate) last_hint: Instant,
    /// The IKE_SA_INIT that began it: a twin may turn up that was initiated at the same time.
    pub(crate) origin: Option<Arc<Origin>>,
    /// The peer is known to have this SA up.
    pub(crate) confirmed: bool,
    /// The peer tells which ESP SAs it holds, as far as is known.
    pub(crate) peer_tells: bool,
    /// What the peer shows once it has lost this SA (RFC 6290).
    pub(crate) token: Option<Secret>,
    /// This host's token is to go along with the next question.
    pub(crate) token_due: bool,
    /// It lost to a twin, and goes soon.
    pub(crate) redundant: bool,
    /// Came out of a rekey that is not settled yet; this SA is to be replaced.
    pub(crate) heir_of: Option<IkeSaId>,
    pub(crate) life: Life,
    pub(crate) own: Option<Own>,
    pub(crate) theirs: Option<Theirs>,
    pub(crate) queue: VecDeque<Task>,
    later: Vec<Task>,
    /// Since when the peer answers TEMPORARY_FAILURE to whatever it is asked for.
    pub(crate) refused_since: Option<Instant>,
    /// What the peer deleted while a CREATE_CHILD_SA of this host waits for its response, and no
    /// child has: the response may still name one of them.
    pub(crate) deleted: Vec<Spi>,
}

/// Where it is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// In use.
    Live,
    /// Its children went over to another.
    Replaced(IkeSaId),
    /// Its Delete is sent or waits for the window.
    Closing,
}

/// What is to be done, one after the other.
#[derive(Clone)]
pub(crate) enum Task {
    /// One more child SA.
    NewChild(Arc<ChildConfig>),
    /// A child SA is replaced.
    RekeyChild(ChildId),
    /// This IKE SA is replaced.
    RekeyIke,
    /// A child SA is deleted.
    DeleteChild(ChildId, EndReason),
    /// An SPI that this host never installed is deleted.
    DeleteSpi(Spi),
    /// The same, and ESP came to it.
    UnknownSpi(Spi),
    /// This IKE SA is deleted, or (with a notify) the peer's proof refused.
    DeleteIke(Option<NotifyType>),
    /// A sign of life is asked for.
    Probe,
    /// The peer is told where the SAs go now.
    Update,
    /// The path that is tried is checked.
    Check,
    /// The peer is told where else this host is.
    Addresses,
    /// This IKE SA is up at both ends: what it replaces is deleted.
    Supersede,
}

/// The exchange that this host runs; at most one (window size 1).
#[derive(Clone)]
pub(crate) enum Own {
    /// CREATE_CHILD_SA for a child: the private value is being made.
    CreateKeying(Box<create_child::Keying>),
    /// The same: sent.
    Create(Box<create_child::Sent>),
    /// The same: the shared secret is being made.
    CreateAgreeing(Box<create_child::Agreeing>),
    /// CREATE_CHILD_SA for this IKE SA: the private value is being made.
    RekeyKeying(Box<rekey::Keying>),
    /// The same: sent.
    Rekey(Box<rekey::Sent>),
    /// The same: the shared secret is being made.
    RekeyAgreeing(Box<rekey::Agreeing>),
    /// The additional key exchanges of either.
    Followup(Box<followup::Chain>),
    /// INFORMATIONAL with a Delete of a child.
    Delete(delete::Sent),
    /// INFORMATIONAL that ends this SA.
    DeleteIke,
    /// INFORMATIONAL that asks for a sign of life, and when it did.
    Probe(Instant),
    /// INFORMATIONAL with UPDATE_SA_ADDRESSES.
    Update(Box<addresses::Sent>),
    /// INFORMATIONAL that checks a path.
    Check(Box<addresses::Sent>),
    /// INFORMATIONAL with this host's additional addresses.
    Addresses,
    /// Whatever it was, only its response is of interest: it frees the window.
    Forgotten(ExchangeType),
    /// The request of an earlier process.
    Recovered(Asks),
}

/// The request of the peer that a job works on.
#[derive(Clone)]
pub(crate) enum Theirs {
    /// CREATE_CHILD_SA for a child.
    Create(Box<create_child::Answering>),
    /// CREATE_CHILD_SA for this IKE SA.
    Rekey(Box<rekey::Answering>),
    /// The additional key exchanges of either; between two of them the next request is waited for.
    Followup(Box<followup::Pending>),
}

/// How an SA goes on after a message.
pub(crate) enum Flow {
    /// As before.
    Stay,
    /// It is over.
    End(Failure),
    /// It is to be deleted.
    Close(EndReason),
}

/// A child SA that was installed to answer a request.
#[derive(Clone)]
pub(crate) struct Answered {
    pub(crate) child: ChildId,
    pub(crate) sa_payload: Payload,
    pub(crate) tail: Vec<Payload>,
}

impl Established {
    pub(crate) fn new(
        sa: &IkeSa,
        now: Now,
        local_id: Identity,
        remote_id: Identity,
        origin: Option<Arc<Origin>>,
    ) -> Self {
        Self {
            local_id,
            remote_id,
            since: now.at,
            rekey_at: now.at + sa.config.ike_rekey_after,
            last_alive: now.at,
            last_hint: Instant::ZERO,
            origin,
            confirmed: true,
            peer_tells: true,
            token: None,
            token_due: false,
            redundant: false,
            heir_of: None,
            life: Life::Live,
            own: None,
            theirs: None,
            queue: VecDeque::new(),
            later: Vec::new(),
            refused_since: None,
            deleted: Vec::new(),
        }
    }

    /// Sets the timers of a live SA.
    pub(crate) fn arm(&self, cx: &mut Context, sa: &IkeSa) {
        cx.timers.set(sa.id, Timer::RekeyIke, self.rekey_at);
        cx.timers.set(sa.id, Timer::ExpireIke, self.since + sa.config.common.ike_hard_lifetime);
        if let Some(delay) = sa.config.dpd_delay {
            cx.timers.set(sa.id, Timer::Liveness, self.since + delay);
        }
        if sa.nat.local_behind {
            cx.timers.set(sa.id, Timer::Keepalive, self.since + sa.config.common.keepalive);
        }
    }

    /// What is told about it.
    pub(crate) fn info(&self, sa: &IkeSa) -> IkeInfo {
        IkeInfo {
            id: sa.id,
            spi_i: sa.spi_i,
            spi_r: sa.spi_r,
            initiator: sa.initiator,
            local: sa.local,
            remote: sa.remote,
            remote_id: self.remote_id.clone(),
            suite: sa.secured.as_ref().map(|s| suite::suite_text(&s.suite)).unwrap_or_default(),
            began: self.origin.as_ref().map_or(self.since, |origin| origin.began),
            since: self.since,
            rekey_at: self.rekey_at,
        }
    }

    /// Whether it may be used and shown.
    pub(crate) fn live(&self) -> bool {
        self.life == Life::Live && !self.redundant && self.heir_of.is_none()
    }

    /// Whether a successor serves instead of it.
    pub(crate) fn replaced(&self) -> bool {
        matches!(self.life, Life::Replaced(_)) && !self.redundant && self.heir_of.is_none()
    }

    /// Whether a twin that was initiated at the same time serves instead of it; the peer may still send through it.
    pub(crate) fn superfluous(&self) -> bool {
        self.life == Life::Live && self.redundant && self.heir_of.is_none()
    }

    /// Puts a task at the end, once; beyond the bound it is forgotten, which its timer makes good.
    pub(crate) fn push(&mut self, task: Task) {
        let there = self.queue.iter().chain(&self.later).any(|t| t.same(&task));
        if !there && self.queue.len() < MAX_QUEUE {
            self.queue.push_back(task);
        }
    }

    /// Puts a task before all others, once.
    pub(crate) fn push_first(&mut self, task: Task) {
        self.queue.retain(|other| !other.same(&task));
        self.queue.push_front(task);
    }

    /// The peer deleted what this host does not know: it may be what a late response is about.
    pub(crate) fn note_deleted(&mut self, spi: Spi) {
        if self.creating() && self.deleted.len() < MAX_DELETED {
            self.deleted.push(spi);
        }
    }

    /// Whether another task fits.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < MAX_QUEUE
    }

    /// Puts a task off.
    pub(crate) fn retry(&mut self, cx: &mut Context, sa: &IkeSa, now: Now, task: Task) {
        let wait = RETRY + part_of(cx, RETRY);
        self.put_off(cx, sa, now.at + wait, task);
    }

    fn put_off(&mut self, cx: &mut Context, sa: &IkeSa, until: Instant, task: Task) {
        cx.timers.set(sa.id, Timer::Retry, until);
        if self.later.len() < MAX_QUEUE {
            self.later.push(task);
        }
    }

    /// When it is too late for a task.
    fn end_of(&self, cx: &Context, sa: &IkeSa, task: &Task) -> Instant {
        let own = self.since + sa.config.common.ike_hard_lifetime;
        let Task::RekeyChild(child) = task else { return own };
        let end = |c: &Child| c.config.limits.hard_time.map(|limit| c.since + limit);
        cx.children.get(*child).and_then(end).map_or(own, |end| end.min(own))
    }

    /// The peer answered TEMPORARY_FAILURE: it wants something of this IKE SA as well, and may have been refused just so (RFC
    /// 7296 2.25). That both do not refuse each other again and again, who began the IKE SA is sooner.
    pub(crate) fn refused_for_now(
        &mut self,
        cx: &mut Context,
        sa: &IkeSa,
        now: Now,
        task: Task,
    ) -> Flow {
        let since = *self.refused_since.get_or_insert(now.at);
        if now.at.since(since) >= OUT_OF_STEP {
            return Flow::Close(EndReason::OutOfStep);
        }
        let left = self.end_of(cx, sa, &task).since(now.at);
        let unit = RETRY.min((left / TRIES_LEFT).max(RETRY_LEAST));
        let wait =
            if sa.initiator { unit + part_of(cx, unit / 2) } else { unit * 2 + part_of(cx, unit) };
        self.put_off(cx, sa, now.at + wait, task);
        Flow::Stay
    }

    /// All tasks, for a successor.
    pub(crate) fn take_tasks(&mut self) -> Vec<Task> {
        self.queue.drain(..).chain(self.later.drain(..)).collect()
    }

    /// The exchange whose response is waited for.
    pub(crate) fn own_exchange(&self) -> Option<ExchangeType> {
        match self.own.as_ref()? {
            Own::Create(_) | Own::Rekey(_) => Some(ExchangeType::CREATE_CHILD_SA),
            Own::Followup(chain) => chain.sent().then_some(ExchangeType::IKE_FOLLOWUP_KE),
            Own::Delete(_)
            | Own::DeleteIke
            | Own::Probe(_)
            | Own::Update(_)
            | Own::Check(_)
            | Own::Addresses => Some(ExchangeType::INFORMATIONAL),
            Own::Forgotten(exchange) | Own::Recovered(Asks::Nothing(exchange)) => Some(*exchange),
            Own::Recovered(Asks::Child { exchange, .. }) => Some(*exchange),
            Own::Recovered(Asks::RekeyIke) => Some(ExchangeType::CREATE_CHILD_SA),
            Own::CreateKeying(_)
            | Own::CreateAgreeing(_)
            | Own::RekeyKeying(_)
            | Own::RekeyAgreeing(_) => None,
        }
    }

    /// The exchange that goes on, for people.
    pub(crate) fn during(&self) -> &'static str {
        match &self.own {
            Some(Own::Create(_) | Own::Rekey(_) | Own::Recovered(Asks::Child { .. })) => {
                "CREATE_CHILD_SA"
            }
            Some(Own::Followup(_)) => "IKE_FOLLOWUP_KE",
            Some(Own::Delete(_) | Own::DeleteIke) => "INFORMATIONAL, delete",
            Some(Own::Probe(_)) => "INFORMATIONAL, liveness",
            Some(Own::Update(_) | Own::Check(_)) => "INFORMATIONAL, move",
            _ => "INFORMATIONAL",
        }
    }

    /// What this host does with the IKE SA (RFC 7296 2.25.2).
    pub(crate) fn ike_doing(&self) -> IkeDoing {
        match (&self.life, &self.own) {
            (Life::Live, Some(Own::Rekey(_) | Own::RekeyAgreeing(_))) => IkeDoing::Rekeying,
            (Life::Live, Some(Own::Followup(chain)))
                if matches!(chain.subject, followup::Subject::Ike(_)) =>
            {
                IkeDoing::Rekeying
            }
            (Life::Live, _) => IkeDoing::Idle,
            (Life::Replaced(_) | Life::Closing, _) => IkeDoing::Closing,
        }
    }

    /// Whether this host creates, rekeys or closes a child SA (RFC 7296 2.25.1).
    pub(crate) fn child_busy(&self) -> bool {
        self.creating()
            || matches!(self.own, Some(Own::Delete(_) | Own::Recovered(Asks::Child { .. })))
    }

    /// Whether this host has asked for a child SA.
    fn creating(&self) -> bool {
        match &self.own {
            Some(Own::Create(_) | Own::CreateAgreeing(_)) => true,
            Some(Own::Followup(chain)) => matches!(chain.subject, followup::Subject::Child(_)),
            _ => false,
        }
    }

    /// Whether this host is in the middle of additional key exchanges: too late for another rekey (RFC 9370 2.2.4).
    pub(crate) fn following_up(&self) -> bool {
        matches!(self.own, Some(Own::Followup(_)))
    }

    /// What this host does with a child SA.
    pub(crate) fn child_doing(&self, cx: &Context, child: Option<ChildId>) -> ChildDoing {
        let Some(child) = child.and_then(|id| cx.children.get(id)) else {
            let coming = matches!(self.own, Some(Own::Create(_) | Own::CreateAgreeing(_)));
            return if coming { ChildDoing::Coming } else { ChildDoing::Absent };
        };
        let rekeying = match &self.own {
            Some(Own::Create(sent)) => sent.plan.replaces() == Some(child.id),
            Some(Own::CreateAgreeing(agreeing)) => agreeing.plan.replaces() == Some(child.id),
            Some(Own::Followup(chain)) => match &chain.subject {
                followup::Subject::Child(outcome) => outcome.replaces() == Some(child.id),
                followup::Subject::Ike(_) => false,
            },
            _ => false,
        };
        match child.stage {
            Stage::Lingering => ChildDoing::Absent,
            Stage::Closing => ChildDoing::Closing,
            _ if rekeying => ChildDoing::Rekeying,
            _ => ChildDoing::Idle,
        }
    }

    /// An exchange that is not sent yet gives way to one of the peer's.
    pub(crate) fn yield_unsent(&mut self) {
        let task = match &self.own {
            Some(Own::CreateKeying(keying)) => keying.plan.task(),
            Some(Own::RekeyKeying(_)) => Task::RekeyIke,
            _ => return,
        };
        self.own = None;
        self.queue.push_front(task);
    }

    /// The IKE SA to which the children belong by now.
    pub(crate) fn heir(&self, sa: &IkeSa) -> IkeSaId {
        match self.life {
            Life::Replaced(new) => new,
            _ => sa.id,
        }
    }
}

impl Task {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::RekeyChild(a), Self::RekeyChild(b)) => a == b,
            (Self::DeleteChild(a, _), Self::DeleteChild(b, _)) => a == b,
            (Self::DeleteSpi(a), Self::DeleteSpi(b)) => a == b,
            (Self::UnknownSpi(a), Self::UnknownSpi(b)) => a == b,
            (Self::NewChild(a), Self::NewChild(b)) => a.reqid == b.reqid,
            (Self::RekeyIke, Self::RekeyIke)
            | (Self::Probe, Self::Probe)
            | (Self::Update, Self::Update)
            | (Self::Check, Self::Check)
            | (Self::Addresses, Self::Addresses)
            | (Self::Supersede, Self::Supersede) => true,
            _ => false,
        }
    }
}

/// Some part of a time, by chance.
fn part_of(cx: &mut Context, whole: Duration) -> Duration {
    Duration::from_millis(cx.rng.below(whole.as_millis().max(1) as u64))
}
