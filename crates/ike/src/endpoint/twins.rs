//! IKE SAs of the same two hosts: successors, restarts, and two that were initiated at once.

use super::*;

impl Endpoint {
    /// `new` takes over what `old` has (RFC 7296 2.8).
    pub(super) fn inherit(&mut self, now: Now, old: IkeSaId, new: IkeSaId) {
        if !self.sas.contains_key(&new) {
            return;
        }
        let mut tasks = Vec::new();
        let mut addresses = None;
        self.with_one(old, |_, sa| {
            addresses = Some((sa.local, sa.remote));
            if let State::Up(up) = &mut sa.state {
                tasks = up.take_tasks();
            }
        });
        for child in self.cx.children.of(old) {
            child_sa::hand_over(&mut self.cx, child, new);
        }
        self.with_one(new, |cx, sa| {
            if let Some((local, remote)) = addresses {
                (sa.local, sa.remote) = (local, remote);
            }
            sa.silent = false;
            sa.inherit(cx, now, old, tasks);
        });
        for twin in self.twins(new) {
            self.settle_twins(now, new, twin);
        }
    }

    /// An IKE SA is up: INITIAL_CONTACT voids what the peer had before (RFC 7296 2.4); of two that were
    /// initiated at once, one goes.
    pub(super) fn established(
        &mut self,
        now: Now,
        id: IkeSaId,
        peer_contact: bool,
        own_contact: bool,
    ) {
        let Some(remote) = self.sas.get(&id).map(|sa| sa.remote.ip()) else { return };
        let twins = self.twins(id);
        if peer_contact {
            for twin in twins {
                let reason = Failure::Ended(EndReason::InitialContact);
                self.with_one(twin, |cx, sa| sa.fail(cx, now, reason));
            }
            self.cx.event(Event::InitialContact { id, remote });
        } else if own_contact {
            // The peer dropped everything older when it read our INITIAL_CONTACT; what came up since is redundant.
            for twin in twins {
                self.with_one(twin, |cx, sa| sa.delete(cx, now, EndReason::Redundant));
            }
        } else {
            for twin in twins {
                self.settle_twins(now, id, twin);
            }
        }
    }

    /// Other live IKE SAs of the same two hosts under the same identities.
    fn twins(&self, id: IkeSaId) -> Vec<IkeSaId> {
        let Some((sa, up)) = self.sas.get(&id).and_then(|sa| Some((sa, sa.up()?))) else {
            return Vec::new();
        };
        let same = |other: &IkeSa, o: &Established| {
            other.id != id
                && (o.live() || o.redundant)
                && o.life == Life::Live
                && other.local.ip() == sa.local.ip()
                && other.remote.ip() == sa.remote.ip()
                && (&o.local_id, &o.remote_id) == (&up.local_id, &up.remote_id)
        };
        let ids = self.cx.peers.get(&sa.home.ip()).into_iter().flatten();
        let others = ids.filter_map(|id| self.sas.get(id));
        others
            .filter(|other| other.up().is_some_and(|o| same(other, o)))
            .map(|other| other.id)
            .collect()
    }

    fn settle_twins(&mut self, now: Now, a: IkeSaId, b: IkeSaId) {
        let origin = |id| self.sas.get(&id)?.up()?.origin.as_deref();
        let (Some(of_a), Some(of_b)) = (origin(a), origin(b)) else { return };
        let ((own_id, own), (peer_id, peer)) = match (of_a.own, of_b.own) {
            (true, false) => ((a, of_a), (b, of_b)),
            (false, true) => ((b, of_b), (a, of_a)),
            _ => return,
        };
        let stays = collide::duplicate(
            Nonces { ni: &own.ni, nr: &own.nr },
            Nonces { ni: &peer.ni, nr: &peer.nr },
        );
        let (loser, wait) = match stays {
            Side::Own => (peer_id, CLOSE_PEER_TWIN),
            Side::Peer => (own_id, CLOSE_OWN_TWIN),
        };
        if let Some(up) = self.sas.get_mut(&loser).and_then(|sa| sa.up_mut()) {
            up.redundant = true;
            self.cx.unsaved.insert(loser);
            self.redundant.insert(loser);
            self.cx.timers.set(loser, Timer::Redundant, now.at + wait);
        }
    }

    /// A redundant SA whose better twin is gone, or never came up at the peer's, serves after all.
    pub(super) fn rehabilitate(&mut self) {
        for id in self.redundant.clone() {
            let serves = |twin: &IkeSaId| {
                self.sas.get(twin).and_then(|sa| sa.up()).is_some_and(Established::live)
            };
            let Some(up) = self.sas.get(&id).and_then(|sa| sa.up()) else {
                self.redundant.remove(&id);
                continue;
            };
            if up.life == Life::Live && !self.twins(id).iter().any(serves) {
                self.redundant.remove(&id);
                self.cx.timers.cancel(id, Timer::Redundant);
                if let Some(up) = self.sas.get_mut(&id).and_then(|sa| sa.up_mut()) {
                    up.redundant = false;
                    self.cx.unsaved.insert(id);
                }
            }
        }
    }

    /// Whether another IKE SA serves for this one, which the peer is known to have.
    pub(super) fn has_confirmed_twin(&self, id: IkeSaId) -> bool {
        let confirmed = |twin: &IkeSaId| {
            self.sas
                .get(twin)
                .and_then(|sa| sa.up())
                .is_some_and(|up| up.confirmed && !up.redundant)
        };
        self.twins(id).iter().any(confirmed)
    }
}
