//! Timers of all IKE SAs in one ordered set; one of each kind an SA (and a child).

use std::collections::{BTreeMap, BTreeSet};

use ipsec::Instant;

use crate::endpoint::Why;
use crate::event::{ChildId, IkeSaId};

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// The outstanding request has had no response for a while.
    Retransmit,
    /// A peer that began an IKE SA did not finish it.
    HalfOpen,
    /// The peer sent a part of a request.
    Fragments,
    /// The IKE SA reached its soft lifetime.
    RekeyIke,
    /// The IKE SA reached its hard lifetime.
    ExpireIke,
    /// No sign of the peer.
    Liveness,
    /// The NAT mapping may fade.
    Keepalive,
    /// A closed SA was kept long enough to answer repeats, or a replaced one was not deleted by the peer.
    Linger,
    /// Refused exchanges are tried again.
    Retry,
    /// The peer does not go on with its additional key exchanges.
    Followup,
    /// One of two SAs that were initiated at once is to be closed.
    Redundant,
    /// A child SA reached its soft lifetime.
    RekeyChild(ChildId),
    /// A child SA reached its hard lifetime.
    ExpireChild(ChildId),
    /// The peer gave no sign that it uses a new child SA: send through it all the same.
    Outbound(ChildId),
    /// A replaced child SA has caught its last packets.
    RemoveChild(ChildId),
}

/// The timers.
#[derive(Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Instant, IkeSaId, Timer)>,
    armed: BTreeMap<(IkeSaId, Timer), Instant>,
}

impl Timers {
    /// Arms a timer, instead of an earlier setting of the same.
    pub(crate) fn set(&mut self, id: IkeSaId, timer: Timer, at: Instant) {
        self.cancel(id, timer);
        if at != Instant::NEVER {
            self.queue.insert((at, id, timer));
            self.armed.insert((id, timer), at);
        }
    }

    /// Disarms a timer.
    pub(crate) fn cancel(&mut self, id: IkeSaId, timer: Timer) {
        if let Some(at) = self.armed.remove(&(id, timer)) {
            self.queue.remove(&(at, id, timer));
        }
    }

    /// Disarms all timers of an IKE SA but those that take replaced child SAs away.
    pub(crate) fn cancel_all(&mut self, id: IkeSaId) {
        let first = (id, Timer::Retransmit);
        let last = (id, Timer::RemoveChild(ChildId(0)));
        let of_sa: Vec<_> = self.armed.range(first..last).map(|(key, _)| *key).collect();
        for (id, timer) in of_sa {
            self.cancel(id, timer);
        }
    }

    /// Disarms all timers of a child SA.
    pub(crate) fn cancel_child(&mut self, id: IkeSaId, child: ChildId) {
        for timer in [
            Timer::RekeyChild(child),
            Timer::ExpireChild(child),
            Timer::Outbound(child),
            Timer::RemoveChild(child),
        ] {
            self.cancel(id, timer);
        }
    }

    /// A child SA's timers go with it to another IKE SA.
    pub(crate) fn move_child(&mut self, old: IkeSaId, new: IkeSaId, child: ChildId) {
        for timer in [
            Timer::RekeyChild(child),
            Timer::ExpireChild(child),
            Timer::Outbound(child),
            Timer::RemoveChild(child),
        ] {
            if let Some(at) = self.armed.get(&(old, timer)).copied() {
                self.cancel(old, timer);
                self.set(new, timer, at);
            }
        }
    }

    /// The next timer that is due at `now`, disarmed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(IkeSaId, Timer)> {
        let &(at, id, timer) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.cancel(id, timer);
        Some((id, timer))
    }

    /// How many are armed.
    pub(crate) fn len(&self) -> usize {
        self.armed.len()
    }

    /// When the next timer is due, and why.
    pub(crate) fn next(&self) -> Option<(Instant, Why)> {
        self.queue.first().map(|&(at, _, timer)| (at, timer.why()))
    }
}

impl Timer {
    fn why(self) -> Why {
        match self {
            Self::Retransmit => Why::Retransmit,
            Self::HalfOpen | Self::Followup => Why::HalfOpen,
            Self::Fragments => Why::Fragments,
            Self::RekeyIke => Why::RekeyIke,
            Self::RekeyChild(_) => Why::RekeyChild,
            Self::ExpireIke | Self::ExpireChild(_) => Why::Expire,
            Self::Liveness => Why::Liveness,
            Self::Keepalive => Why::Keepalive,
            Self::Linger | Self::RemoveChild(_) | Self::Redundant => Why::Linger,
            Self::Retry | Self::Outbound(_) => Why::Retry,
        }
    }
}
