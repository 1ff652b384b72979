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
            addresses = Some((sa.local, sa.remote, sa.nat, sa.encap, sa.mobility.clone()));
            if let State::Up(up) = &mut sa.state {
                tasks = up.take_tasks();
            }
        });
        for child in self.cx.children.of(old) {
            child_sa::hand_over(&mut self.cx, child, new);
        }
        self.with_one(new, |cx, sa| {
            if let Some((local, remote, nat, encap, mobility)) = addresses {
                (sa.local, sa.remote, sa.nat, sa.encap) = (local, remote, nat, encap);
                // What the peer has said to the successor already is newer.
                if sa.mobility.as_ref().is_none_or(|m| m.trial.is_none()) {
                    sa.mobility = mobility;
                }
            }
            sa.silent = false;
            sa.inherit(cx, now, old, tasks);
        });
        for twin in self.twins(new) {
            self.settle_twins(now, new, twin);
        }
    }

    /// An IKE SA is up: INITIAL_CONTACT voids what the peer had before (RFC 7296 2.4); of two that were
    /// initiated at once, one goes. That the peer had lost such a one it could not mean: it was not there yet.
    pub(super) fn established(&mut self, now: Now, id: IkeSaId, peer_contact: bool) {
        let Some(remote) = self.sas.get(&id).map(|sa| sa.home.ip()) else { return };
        for twin in self.twins(id) {
            let settled = self.settle_twins(now, id, twin);
            if peer_contact && !settled {
                let reason = Failure::Ended(EndReason::InitialContact);
                self.with_one(twin, |cx, sa| sa.fail(cx, now, reason));
            }
        }
        if peer_contact {
            self.cx.event(Event::InitialContact { id, remote });
        }
    }

    /// Other live IKE SAs of the same two hosts under the same identities.
    pub(super) fn twins(&self, id: IkeSaId) -> Vec<IkeSaId> {
        let Some((sa, up)) = self.sas.get(&id).and_then(|sa| Some((sa, sa.up()?))) else {
            return Vec::new();
        };
        let same = |other: &IkeSa, o: &Established| {
            other.id != id
                && (o.live() || o.redundant)
                && o.life == Life::Live
                && homes(other) == homes(sa)
                && (&o.local_id, &o.remote_id) == (&up.local_id, &up.remote_id)
        };
        let others = self.cx.ikes_of(sa.home.ip()).filter_map(|id| self.sas.get(&id));
        others
            .filter(|other| other.up().is_some_and(|o| same(other, o)))
            .map(|other| other.id)
            .collect()
    }

    /// Deletes what was up between the same two hosts, under whatever identities, before this host began `id`,
    /// which the peer is known to have: it was begun to replace that (RFC 7296 2.8.3).
    pub(super) fn supersede(&mut self, now: Now, id: IkeSaId) {
        let Some(new) = self.sas.get(&id) else { return };
        let Some(began) = new.up().and_then(|up| up.origin.as_ref()).map(|o| o.began) else {
            return;
        };
        let older = |sa: &&IkeSa| {
            let since = |up: &Established| up.origin.as_ref().map_or(up.since, |o| o.since);
            sa.id != id
                && homes(sa) == homes(new)
                && sa.up().is_some_and(|up| up.life == Life::Live && since(up) <= began)
        };
        let ids = self.cx.ikes_of(new.home.ip());
        let older = ids.filter_map(|id| self.sas.get(&id).map(|sa| &**sa)).filter(older);
        for old in older.map(|sa| sa.id).collect::<Vec<_>>() {
            self.with_one(old, |cx, sa| sa.delete(cx, now, EndReason::Reauthenticated));
        }
    }

    /// Of two IKE SAs that both hosts initiated at once one becomes redundant; false if they were not.
    pub(super) fn settle_twins(&mut self, now: Now, a: IkeSaId, b: IkeSaId) -> bool {
        let origin = |id| self.sas.get(&id)?.up()?.origin.as_deref();
        let (Some(of_a), Some(of_b)) = (origin(a), origin(b)) else { return false };
        let ((own_id, own), (peer_id, peer)) = match (of_a.own, of_b.own) {
            (true, false) => ((a, of_a), (b, of_b)),
            (false, true) => ((b, of_b), (a, of_a)),
            _ => return false,
        };
        if !collide::simultaneous((own.began, own.since), (peer.began, peer.since)) {
            return false;
        }
        let (loser, wait) = match collide::duplicate(&own.nonce, &peer.nonce) {
            Side::Own => (peer_id, CLOSE_PEER_TWIN),
            Side::Peer => (own_id, CLOSE_OWN_TWIN),
        };
        self.make_redundant(loser, now.at + wait);
        true
    }

    /// An IKE SA for which another serves is not sent through any more, and closed at the given time.
    fn make_redundant(&mut self, id: IkeSaId, at: Instant) {
        let Some(sa) = self.sas.get_mut(&id) else { return };
        let home = sa.home.ip();
        if let Some(up) = sa.up_mut() {
            up.redundant = true;
            self.cx.unsaved.insert(id);
            self.redundant.insert((home, id));
            self.cx.timers.set(id, Timer::Redundant, at);
        }
    }

    /// A redundant SA whose better twin is gone, or never came up at the peer's, serves after all.
    pub(super) fn rehabilitate(&mut self) {
        while let Some(home) = self.touched.pop() {
            let all = (home, IkeSaId(0))..=(home, IkeSaId(u64::MAX));
            let redundant: Vec<_> = self.redundant.range(all).map(|(_, id)| *id).collect();
            for id in redundant {
                self.rehabilitate_one(home, id);
            }
        }
    }

    fn rehabilitate_one(&mut self, home: IpAddr, id: IkeSaId) {
        let serves = |twin: &IkeSaId| {
            self.sas.get(twin).and_then(|sa| sa.up()).is_some_and(Established::live)
        };
        let Some(up) = self.sas.get(&id).and_then(|sa| sa.up()) else {
            self.redundant.remove(&(home, id));
            return;
        };
        if up.life == Life::Live && !self.twins(id).iter().any(serves) {
            self.redundant.remove(&(home, id));
            self.cx.timers.cancel(id, Timer::Redundant);
            if let Some(up) = self.sas.get_mut(&id).and_then(|sa| sa.up_mut()) {
                up.redundant = false;
                self.cx.unsaved.insert(id);
            }
        }
    }

    /// Asks the peer in the twins that it may not have: one that sends through the redundant SA, and asks nothing by
    /// itself, would never show.
    pub(super) fn ask_twins(&mut self, now: Now, id: IkeSaId) {
        for twin in self.twins(id) {
            let unsure = |up: &Established| !up.confirmed && !up.redundant;
            if self.sas.get(&twin).and_then(|sa| sa.up()).is_some_and(unsure) {
                let _ = self.probe(now, twin);
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

/// The addresses that two hosts know each other by; their packets may go between others.
fn homes(sa: &IkeSa) -> (IpAddr, IpAddr) {
    (sa.config.local, sa.home.ip())
}
