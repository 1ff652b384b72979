//! What IKE tells, and what follows from it for peer, data plane and report.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ike::error::{EndReason, Failure};
use ike::event::{ChildInfo, Event, IkeInfo, PeerProof};
use ike::{ChildId, IkeSaId, Now};
use ipsec::sa::{Direction, Sa, SaKey};
use wire::selector::TrafficSelector;

use super::Mesh;
use super::tunnels::Demand;
use crate::event::{Kind, Level};
use crate::fleet::OnDeath;
use crate::loaded::CertificateRole;
use crate::peer::{Child, FIRST_CHILD_WITHIN, Ike, Peer, Trouble, Wanted};
use crate::status::Verdict;
use crate::time::rfc3339;

/// So long without a sign of life from anybody is a silence.
const SILENCE: Duration = Duration::from_secs(5);

impl Mesh {
    pub(super) fn on_ike(&mut self, now: Now, event: Event) {
        match event {
            Event::IkeUp(info) => self.ike_up(now, &info),
            Event::Proven { id, remote, proof } => self.peer_proven(now, id, remote, *proof),
            Event::IkeRekeyed { old, new } => self.ike_rekeyed(now, old, &new),
            Event::IkeRekeyFailed { id, remote, reason } => {
                let address = self.ikes.get(&id).copied().unwrap_or(remote);
                self.refused(now, address, &reason);
            }
            Event::IkeDown { id, remote, reason } => self.ike_down(now, id, remote, &reason),
            Event::InstallInbound { child, remote, sa }
            | Event::InstallOutbound { child, remote, sa } => {
                self.install(now, child, remote, sa);
            }
            Event::ChildUp(info) => self.child_up(now, &info),
            Event::RemoveOutbound { child, key } => self.retire(now, child, key),
            Event::ChildDown { child, remote, remove, reason, .. } => {
                self.child_down(now, child, remote, &remove, &reason);
            }
            Event::ChildFailed { ike, remote, replaces, reason } => {
                let address = self.ikes.get(&ike).copied().unwrap_or(remote);
                self.child_failed(now, ike, address, replaces, &reason);
            }
            Event::InitialContact { remote, .. } => {
                let text = "the peer started anew; what it had before is gone";
                self.report(now, Level::Debug, Some(remote), Kind::InitialContact, text);
            }
            Event::PeerMoved { id, remote, outer, sas } => {
                self.peer_moved(now, id, remote, outer, &sas);
            }
            Event::MoveRefused { id, to } => self.move_refused(now, id, to),
            Event::Redirected { id, redirect } => self.on_redirect(now, id, redirect),
            Event::NotRedirected { id, why } => self.not_redirected(now, id, &why),
            Event::Alive { id, .. } => self.alive(now, id),
            Event::Compared { id, received } => self.compared(now, id, &received),
            Event::UnknownIke { remote } => self.unknown_ike(now, remote.ip()),
            Event::Retransmitted { id, remote, attempt } => {
                self.retransmitted(now, id, remote, attempt)
            }
            Event::Dropped { remote, what } => {
                *self.counters.dropped.entry(what).or_default() += 1;
                self.report(
                    now,
                    Level::Debug,
                    Some(remote.ip()),
                    Kind::Dropped,
                    format!("dropped: {what}"),
                );
            }
        }
    }

    /// A sign of life that could not be forged.
    pub(super) fn heard(&mut self, now: Now, address: IpAddr) {
        let before = self.last_heard.replace((now.at, address));
        if before.is_some_and(|(at, _)| now.at.since(at) > SILENCE) {
            self.after_silence(now);
        }
        if let Some(peer) = self.peers.get_mut(address) {
            peer.last_heard = Some(now.at);
            peer.last_active = now.at;
        }
    }

    fn ike_up(&mut self, now: Now, info: &IkeInfo) {
        // Of a tunnel that this host began with another gateway, the peer's home.
        let address = self.ikes.get(&info.id).copied().unwrap_or(info.remote.ip());
        let wanted = self.fleet.as_ref().is_some_and(|f| f.is_peer(address));
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        self.ikes.insert(info.id, address);
        let ike = Ike {
            id: info.id,
            initiated: info.initiator,
            since: Some(now.at),
            child_due: Some(now.at + FIRST_CHILD_WITHIN),
            stale: peer.changed_at.is_some_and(|changed| info.began < changed),
            closing: false,
        };
        match peer.ikes.iter_mut().find(|i| i.id == info.id) {
            Some(known) => {
                (known.since, known.child_due, known.stale) = (ike.since, ike.child_due, ike.stale);
            }
            None => peer.add_ike(ike),
        }
        self.supplant(now, address, info.id);
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        if !wanted || peer.wanted == Wanted::Down {
            self.close_all(now, address);
            return;
        }
        self.counters.ike_established += 1;
        self.heard(now, address);
        self.expect_tidy(now, address);
        let text = format!(
            "IKE SA {} {} with `{}`, {}",
            info.spi_i, info.spi_r, info.remote_id, info.suite
        );
        self.report(now, Level::Info, Some(address), Kind::IkeUp, text);
        if info.remote_id.is_null() {
            let text = "nobody has proven who he is (`unauthenticated: true`): whoever stands between reads along";
            self.report(now, Level::Warn, Some(address), Kind::IkeUp, text);
        }
    }

    fn peer_proven(&mut self, now: Now, id: IkeSaId, remote: IpAddr, proof: PeerProof) {
        let address = self.ikes.get(&id).copied().unwrap_or(remote);
        let Some(peer) = self.peers.get_mut(address) else { return };
        // Fleets have one certificate for all hosts, as a rule: it is kept once.
        let known = self.last_proof.take().filter(|known| **known == proof);
        let proof = known.unwrap_or_else(|| Arc::new(proof));
        peer.proof = Some((proof.clone(), now.at));
        self.last_proof = Some(proof);
    }

    fn ike_rekeyed(&mut self, now: Now, old: IkeSaId, new: &IkeInfo) {
        let address = self.ikes.get(&old).copied().unwrap_or(new.remote.ip());
        self.ikes.insert(new.id, address);
        self.journal.unsaved.insert(new.id);
        self.counters.ike_rekeyed += 1;
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        let (mut initiated, mut since, mut child_due) = (new.initiator, Some(now.at), None);
        let mut stale = false;
        if let Some(ike) = peer.ikes.iter_mut().find(|i| i.id == old) {
            (initiated, since, child_due) = (ike.initiated, ike.since, ike.child_due);
            stale = ike.stale;
            ike.closing = true;
        }
        peer.ikes.retain(|i| i.id != new.id);
        peer.add_ike(Ike { id: new.id, initiated, since, child_due, stale, closing: false });
        for child in peer.children.iter_mut().filter(|c| c.ike == Some(old)) {
            child.ike = Some(new.id);
        }
        self.heard(now, address);
        self.expect_tidy(now, address);
        let text =
            format!("IKE SA {} {} replaces the old one, {}", new.spi_i, new.spi_r, new.suite);
        self.report(now, Level::Info, Some(address), Kind::IkeRekey, text);
    }

    fn ike_down(&mut self, now: Now, id: IkeSaId, remote: IpAddr, reason: &Failure) {
        let address = self.ikes.remove(&id).unwrap_or(remote);
        self.proven(address, id);
        let ike = self.peers.get_mut(address).and_then(|peer| {
            let at = peer.ikes.iter().position(|i| i.id == id)?;
            if matches!(reason, Failure::Ended(EndReason::Redundant)) {
                peer.settled_at = now.at;
            }
            Some(peer.ikes.remove(at))
        });
        self.rehome_children(address, id);
        match ike {
            Some(ike) if ike.since.is_some() => self.established_down(now, address, &ike, reason),
            Some(_) => self.attempt_down(now, address, reason),
            None => self.peers_attempt_down(now, address, reason),
        }
    }

    /// An IKE SA that was established is gone.
    fn established_down(&mut self, now: Now, address: IpAddr, ike: &Ike, reason: &Failure) {
        let level = match reason {
            Failure::Ended(
                EndReason::Rekeyed | EndReason::Redundant | EndReason::Reauthenticated,
            ) => Level::Debug,
            Failure::Ended(_) => Level::Info,
            _ => Level::Warn,
        };
        self.report(now, level, Some(address), Kind::IkeDown, format!("IKE SA is gone: {reason}"));
        let restart_dead = self.fleet.as_ref().is_some_and(|f| f.on_death() == OnDeath::Restart);
        match reason {
            Failure::Ended(EndReason::Expired | EndReason::OutOfStep) => {
                self.after_loss(now, address, true);
            }
            Failure::Ended(EndReason::PeerLost) => {
                self.budget.release(address);
                let peer = self.peers.get(address);
                let again = restart_dead || peer.is_some_and(|p| p.eager || p.wanted == Wanted::Up);
                if again && peer.is_some_and(|p| !p.flowing()) {
                    self.demand(now, address, Demand::Crashed);
                }
            }
            Failure::Ended(_) => {
                self.budget.release(address);
                self.after_loss(now, address, false);
            }
            Failure::Timeout { .. } => {
                let verdict = self.judge(now, address, reason).1;
                self.note_trouble(now, address, verdict, &reason.to_string());
                self.report(
                    now,
                    Level::Warn,
                    Some(address),
                    Kind::RetransmitTimeout,
                    reason.to_string(),
                );
                self.after_loss(now, address, restart_dead);
            }
            _ if ike.closing => self.after_loss(now, address, false),
            _ => {
                let (kind, verdict) = self.judge(now, address, reason);
                self.failed(now, address, kind, verdict, &self.words(now, reason));
            }
        }
    }

    /// A failure in words. A peer that refuses this host's proof does not say why; an expired certificate is why.
    fn words(&self, now: Now, reason: &Failure) -> String {
        let facts = self.fleet.iter().flat_map(|fleet| &fleet.loaded().certificates);
        let mut leaves = facts.filter(|fact| fact.role == CertificateRole::Leaf);
        match leaves.find(|fact| now.unix > fact.not_after) {
            Some(leaf) if *reason == Failure::RefusedByPeer => {
                let (subject, end) = (&leaf.subject, rfc3339(leaf.not_after));
                format!(
                    "the peer refused our authentication (AUTHENTICATION_FAILED): \
                     this host's certificate `{subject}` expired at {end}; renew it"
                )
            }
            _ => reason.to_string(),
        }
    }

    /// A handshake that this host had begun came to nothing.
    fn attempt_down(&mut self, now: Now, address: IpAddr, reason: &Failure) {
        self.budget.release(address);
        let other_way = self.peers.get(address).is_some_and(|p| p.keeper().is_some() && !p.stale());
        match reason {
            Failure::Redirected(redirect) => {
                if let Err(why) = self.follow(now, address, *redirect) {
                    self.attempt_down(now, address, &Failure::NotRedirected(why));
                }
            }
            // The operator, or a handshake that the peer had begun at the same time.
            Failure::Ended(_) => {
                if self.peers.get(address).is_some_and(|p| p.demanded(now.at) && !p.connecting()) {
                    self.after_loss(now, address, true);
                }
            }
            _ if other_way => {
                let text = format!("a second handshake failed, the first one stands: {reason}");
                self.report(now, Level::Debug, Some(address), Kind::ExchangeFailed, text);
            }
            _ => {
                let refused = matches!(reason, Failure::NotRedirected(_));
                self.counters.redirects_refused += u64::from(refused);
                let (kind, verdict) = self.judge(now, address, reason);
                self.failed(now, address, kind, verdict, &self.words(now, reason));
            }
        }
    }

    /// A handshake that the peer had begun came to nothing: worth knowing, but nothing to retry here.
    fn peers_attempt_down(&mut self, now: Now, address: IpAddr, reason: &Failure) {
        if matches!(reason, Failure::Timeout { .. } | Failure::Ended(_)) {
            return;
        }
        let (kind, verdict) = self.judge(now, address, reason);
        let flowing = self.peers.get(address).is_some_and(Peer::flowing);
        let peer_here = self.fleet.as_ref().is_some_and(|f| f.is_peer(address));
        if !flowing && peer_here && self.peers.has_room_for_stranger(address) {
            let local = self.own(address);
            self.peers.entry(local, address, now.at);
            self.note_trouble(now, address, verdict, &reason.to_string());
        }
        let text = format!("a handshake that the peer began failed: {reason}");
        self.complain(now, address, kind, text);
    }

    fn install(&mut self, now: Now, child: ChildId, address: IpAddr, sa: Arc<Sa>) {
        let (key, direction) = (sa.key(), sa.direction);
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        let entry = match peer.children.iter().position(|c| c.id == child) {
            Some(at) => &mut peer.children[at],
            None => peer.add_child(Child::new(child, now.at)),
        };
        let slot =
            if direction == Direction::In { &mut entry.inbound } else { &mut entry.outbound };
        let old = slot.replace(key).filter(|old| *old != key);
        let change = self.reconciler.add_sa(sa, address, child);
        self.change(change);
        if let Some(old) = old {
            let change = self.reconciler.remove_sa(old);
            self.change(change);
        }
    }

    /// Nothing is sent through it any more; another one serves.
    fn retire(&mut self, now: Now, child: ChildId, key: SaKey) {
        let owner = self.reconciler.owner(key);
        self.let_go(now, key);
        let Some(peer) = owner.and_then(|o| self.peers.get_mut(o.peer)) else { return };
        if let Some(child) = peer.children.iter_mut().find(|c| c.id == child) {
            child.outbound = child.outbound.filter(|k| *k != key);
            child.superseded = true;
        }
    }

    fn child_up(&mut self, now: Now, info: &ChildInfo) {
        let address = info.remote;
        self.budget.release(address);
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        if !peer.children.iter().any(|c| c.id == info.id) {
            peer.add_child(Child::new(info.id, info.since));
        }
        for ike in peer.ikes.iter_mut().filter(|i| i.id == info.ike) {
            ike.child_due = None;
        }
        for child in &mut peer.children {
            if child.id == info.id {
                (child.ike, child.up) = (Some(info.ike), true);
            }
            child.superseded |= Some(child.id) == info.replaces;
        }
        peer.succeed(now.at);
        if peer.stale() {
            // Its handshake had begun before what it was to be made under changed.
            self.demand(now, address, Demand::Lost);
        }
        self.drop_attempts(now, address, info.ike);
        self.console(now, address, info.ike);
        self.heard(now, address);
        self.expect_tidy(now, address);
        let text = format!("child SA {} in, {} out, {}", info.spi_in, info.spi_out, info.suite);
        if info.replaces.is_some() {
            self.counters.child_rekeyed += 1;
            self.report(now, Level::Info, Some(address), Kind::ChildRekey, text);
        } else {
            self.counters.child_established += 1;
            self.report(now, Level::Info, Some(address), Kind::ChildUp, text);
        }
        self.warn_of_narrow(now, info);
    }

    /// A tunnel that the peer began is up: what this host had begun as well is of no use any more. Only as long as the
    /// peer cannot have completed it: else each end might drop the one that the other keeps.
    fn drop_attempts(&mut self, now: Now, address: IpAddr, ike: IkeSaId) {
        let Some(peer) = self.peers.get(address) else { return };
        // What replaces that tunnel is still wanted.
        if peer.stale() || !peer.ikes.iter().any(|i| i.id == ike && !i.initiated) {
            return;
        }
        let open = peer.ikes.iter().filter(|i| i.initiated && i.since.is_none() && !i.closing);
        for id in open.map(|i| i.id).collect::<Vec<_>>() {
            if self.endpoint.is_tentative(id) {
                let _ = self.endpoint.abandon(now, id);
            }
        }
    }

    /// A peer may agree to less than all traffic between the hosts. What is left out finds no SA.
    fn warn_of_narrow(&mut self, now: Now, info: &ChildInfo) {
        let all = |ts: &TrafficSelector| ts.protocol == 0 && ts.with(0, 0..=u16::MAX) == *ts;
        if info.local_ts.iter().any(all) && info.remote_ts.iter().any(all) {
            return;
        }
        let shown = |side: &[TrafficSelector]| {
            side.iter().take(4).map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            "the peer takes only {} === {}; all other packets to it are dropped: widen its selectors",
            shown(&info.local_ts),
            shown(&info.remote_ts)
        );
        self.report(now, Level::Warn, Some(info.remote), Kind::TsMismatch, text);
    }

    fn child_down(
        &mut self,
        now: Now,
        id: ChildId,
        remote: IpAddr,
        remove: &[SaKey],
        reason: &Failure,
    ) {
        let mut address = remote;
        for key in remove {
            let owner = self.reconciler.owner(*key);
            address = owner.map_or(address, |o| o.peer);
            if self.leaving && owner.is_some_and(|o| o.direction == Direction::In) {
                continue;
            }
            let change = self.reconciler.remove_sa(*key);
            self.change(change);
        }
        let Some(peer) = self.peers.get_mut(address) else { return };
        let was_last = peer.children.iter().any(|c| c.id == id && c.up && !c.superseded);
        peer.children.retain(|c| c.id != id);
        if was_last && !peer.children.iter().any(|c| c.up) {
            let text = format!("child SA is gone: {reason}");
            self.report(now, Level::Info, Some(address), Kind::ChildDown, text);
        }
        let by_choice =
            matches!(reason, Failure::Ended(EndReason::PeerDeleted | EndReason::Deleted));
        *self.torn.entry(address).or_default() |= !by_choice;
    }

    fn child_failed(
        &mut self,
        now: Now,
        ike: IkeSaId,
        address: IpAddr,
        replaces: Option<ChildId>,
        reason: &Failure,
    ) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        for ike in peer.ikes.iter_mut().filter(|i| i.id == ike) {
            ike.child_due = None;
        }
        if matches!(reason, Failure::Ended(_)) {
            self.budget.release(address);
            self.torn.insert(address, true);
            return;
        }
        peer.rekey_again |= replaces.is_some();
        self.refused(now, address, reason);
    }

    /// The peer makes no other SA within this IKE SA: perhaps another IKE SA helps.
    fn refused(&mut self, now: Now, address: IpAddr, reason: &Failure) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        if reason.wants_another_ike_sa() {
            peer.make_stale(now.at);
        }
        peer.demand_until = peer.demand_until.max(now.at + super::tunnels::REPAIR_WINDOW);
        let (kind, verdict) = self.judge(now, address, reason);
        self.failed(now, address, kind, verdict, &reason.to_string());
    }

    fn alive(&mut self, now: Now, id: IkeSaId) {
        if let Some(address) = self.ikes.get(&id).copied() {
            self.proven(address, id);
            self.heard(now, address);
        }
    }

    fn retransmitted(&mut self, now: Now, id: IkeSaId, remote: IpAddr, attempt: u32) {
        self.counters.retransmits += 1;
        let address = self.ikes.get(&id).copied().unwrap_or(remote);
        // Who is silent does not keep others waiting.
        self.budget.set_silent(address);
        self.doubt(now, address, id, attempt);
        let text = format!("no answer yet, sent for the {attempt}. time");
        self.report(now, Level::Debug, Some(address), Kind::RetransmitSend, text);
    }

    pub(super) fn note_trouble(&mut self, now: Now, address: IpAddr, verdict: Verdict, text: &str) {
        if let Some(peer) = self.peers.get_mut(address) {
            peer.last_active = now.at;
            peer.trouble = Some(Trouble { text: text.into(), verdict, at: now.at });
        }
    }

    /// Children that outlive their IKE SA moved to its successor.
    fn rehome_children(&mut self, address: IpAddr, gone: IkeSaId) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        let keeper = peer.keeper();
        for child in peer.children.iter_mut().filter(|c| c.ike == Some(gone)) {
            child.ike = keeper;
        }
    }
}
