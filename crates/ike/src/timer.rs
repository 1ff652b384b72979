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
#[derive(Clone, Default)]
pub(crate) struct Timers {
    /// The next one of each IKE SA.
    queue: BTreeSet<(Instant, IkeSaId)>,
    /// All of each IKE SA: a handful, in no order.
    armed: BTreeMap<IkeSaId, Vec<Armed>>,
}

type Armed = (Instant, Timer);

impl Timers {
    /// Arms a timer, instead of an earlier setting of the same.
    pub(crate) fn set(&mut self, id: IkeSaId, timer: Timer, at: Instant) {
        self.change(id, |armed| {
            armed.retain(|(_, other)| *other != timer);
            if at != Instant::NEVER {
                armed.reserve_exact(1);
                armed.push((at, timer));
            }
        });
    }

    /// Disarms a timer.
    pub(crate) fn cancel(&mut self, id: IkeSaId, timer: Timer) {
        self.change(id, |armed| armed.retain(|(_, other)| *other != timer));
    }

    /// Disarms all timers of an IKE SA but those that take replaced child SAs away.
    pub(crate) fn cancel_all(&mut self, id: IkeSaId) {
        self.change(id, |armed| armed.retain(|(_, t)| matches!(t, Timer::RemoveChild(_))));
    }

    /// Disarms all timers of a child SA.
    pub(crate) fn cancel_child(&mut self, id: IkeSaId, child: ChildId) {
        self.change(id, |armed| armed.retain(|(_, timer)| timer.child() != Some(child)));
    }

    /// A child SA's timers go with it to another IKE SA.
    pub(crate) fn move_child(&mut self, old: IkeSaId, new: IkeSaId, child: ChildId) {
        let armed = self.armed.get(&old).into_iter().flatten();
        let of_child: Vec<_> = armed.copied().filter(|(_, t)| t.child() == Some(child)).collect();
        self.cancel_child(old, child);
        for (at, timer) in of_child {
            self.set(new, timer, at);
        }
    }

    /// The next timer that is due at `now`, disarmed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(IkeSaId, Timer)> {
        let (id, (_, timer)) = self.first().filter(|(_, (at, _))| *at <= now)?;
        self.cancel(id, timer);
        Some((id, timer))
    }

    /// How many are armed.
    pub(crate) fn len(&self) -> usize {
        self.armed.values().map(Vec::len).sum()
    }

    /// When the next timer is due, and why.
    pub(crate) fn next(&self) -> Option<(Instant, Why)> {
        self.first().map(|(_, (at, timer))| (at, timer.why()))
    }

    fn first(&self) -> Option<(IkeSaId, Armed)> {
        let (_, id) = self.queue.first()?;
        Some((*id, next_of(self.armed.get(id)?)?))
    }

    /// Changes the timers of one IKE SA.
    fn change(&mut self, id: IkeSaId, change: impl FnOnce(&mut Vec<Armed>)) {
        let armed = self.armed.entry(id).or_default();
        let before = next_of(armed);
        change(armed);
        let after = next_of(armed);
        if after.is_none() {
            self.armed.remove(&id);
        }
        let [before, after] = [before, after].map(|next| next.map(|(at, _)| (at, id)));
        if before != after {
            before.map(|next| self.queue.remove(&next));
            after.map(|next| self.queue.insert(next));
        }
    }
}

fn next_of(armed: &[Armed]) -> Option<Armed> {
    armed.iter().min().copied()
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

    /// The child SA that it is for.
    fn child(self) -> Option<ChildId> {
        match self {
            Self::RekeyChild(child)
            | Self::ExpireChild(child)
            | Self::Outbound(child)
            | Self::RemoveChild(child) => Some(child),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IkeSaId = IkeSaId(1);
    const B: IkeSaId = IkeSaId(2);

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn the_first_of_all_is_the_next() {
        let mut timers = Timers::default();
        timers.set(A, Timer::RekeyIke, at(9));
        timers.set(B, Timer::Liveness, at(5));
        timers.set(A, Timer::Liveness, at(7));
        timers.set(B, Timer::ExpireIke, Instant::NEVER);
        timers.set(A, Timer::Liveness, at(4));
        assert_eq!((timers.len(), timers.next()), (3, Some((at(4), Why::Liveness))));
        timers.set(A, Timer::Liveness, at(8));
        assert_eq!(timers.pop(at(4)), None);
        assert_eq!(timers.pop(at(8)), Some((B, Timer::Liveness)));
        assert_eq!(timers.pop(at(8)), Some((A, Timer::Liveness)));
        assert_eq!(timers.pop(at(8)), None);
        timers.cancel(A, Timer::RekeyIke);
        assert_eq!((timers.len(), timers.next()), (0, None));
        assert!(timers.armed.is_empty() && timers.queue.is_empty());
    }

    #[test]
    fn those_of_a_child_sa_go_with_it() {
        let (mut timers, child) = (Timers::default(), ChildId(3));
        timers.set(A, Timer::RekeyChild(child), at(3));
        timers.set(A, Timer::RemoveChild(ChildId(4)), at(6));
        timers.set(A, Timer::RekeyIke, at(2));
        timers.move_child(A, B, child);
        timers.cancel_all(A);
        assert_eq!(timers.pop(at(9)), Some((B, Timer::RekeyChild(child))));
        assert_eq!(timers.pop(at(9)), Some((A, Timer::RemoveChild(ChildId(4)))));
        assert_eq!(timers.len(), 0);
    }
}
