//! When a tunnel is begun, what follows a failure, and how two tunnels become one.

use std::net::IpAddr;
use std::time::Duration;

use ike::error::Failure;
use ike::{ChildId, IkeSaId, Now};
use ipsec::change::Change;

use super::Mesh;
use crate::budget::Urgency;
use crate::event::{Kind, Level};
use crate::pair;
use crate::peer::{CHILD_WITHIN, Ike, Peer, Trouble, Wanted};
use crate::status::Verdict;

/// Why a tunnel is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Demand {
    /// A packet waits for it.
    Traffic,
    /// The manifest says so.
    Eager,
    /// The operator says so.
    Operator,
    /// It was there, and is not any more.
    Lost,
    /// It is there, but a part of it is broken: only this host can know.
    Repair,
    /// The peer has lost it, and said so by what only it can know. It begins as well, and goes first.
    Crashed,
    /// Somebody at the peer's address sends as if it were there. Anybody can.
    Stray,
}

/// How long a packet keeps a failing peer being retried.
const TRAFFIC_WINDOW: Duration = Duration::from_secs(180);
/// How long a lost tunnel is tried for, where nobody sends.
const LOST_WINDOW: Duration = Duration::from_secs(3600);
/// How long a tunnel is tried for of which only a stray packet speaks: one attempt.
const STRAY_WINDOW: Duration = Duration::from_secs(10);
/// How long a part of a standing tunnel is tried for.
pub(super) const REPAIR_WINDOW: Duration = Duration::from_secs(600);
/// The owner goes first where both have traffic.
const GRACE_TRAFFIC: Duration = Duration::from_millis(50);
/// The owner goes first where nobody waits.
const GRACE_CALM: Duration = Duration::from_secs(3);
/// A handshake that the peer has begun is given so long before one of our own, this many times.
const YIELD: Duration = Duration::from_millis(500);
const YIELDS: u8 = 4;
/// A host that has begun more handshakes than this a moment ago, and waits for them, is in a crowd: its peers may have as many.
/// That the owner of a pair is silent then says nothing, and what both ends begin is done twice.
const CROWD: usize = 8;
const MOMENT: Duration = Duration::from_secs(8);
/// So often the other end waits there, 8 s in all: a packet that waits for the tunnel is kept for 10.
const YIELDS_IN_CROWD: u8 = 16;
/// Starts without a waiting packet are spread by this much for each peer, up to a bound.
const SPREAD_PER_PEER: Duration = Duration::from_millis(5);
const SPREAD_MAX: Duration = Duration::from_secs(10);
/// What this host made twice is closed after this; nothing is sent through it for the last half …
const TIDY_OWN: Duration = Duration::from_secs(2);
/// … what this host made and the peer replaced, and a second child SA, after this …
const TIDY_REPLACED: Duration = Duration::from_secs(5);
/// … and what both ends made, if IKE has not settled it by itself long ago.
const TIDY_OTHERS: Duration = Duration::from_secs(60);

impl Mesh {
    /// A tunnel is wanted. False if there is no room for the peer.
    pub(super) fn demand(&mut self, now: Now, address: IpAddr, why: Demand) -> bool {
        if !self.peers.make_room(address) {
            self.counters.table_full += 1;
            return false;
        }
        let spread = self.spread(address);
        let jitter = Duration::from_micros(self.rng.below(200_000));
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        peer.last_active = now.at;
        if peer.wanted == Wanted::Down {
            return true;
        }
        let window = match why {
            Demand::Traffic => TRAFFIC_WINDOW,
            Demand::Stray => STRAY_WINDOW,
            _ => LOST_WINDOW,
        };
        peer.demand_until = peer.demand_until.max(now.at + window);
        peer.urgent |= matches!(why, Demand::Traffic | Demand::Operator);
        let settled = (peer.flowing() && !peer.stale()) || peer.child_due(now.at).is_some();
        if settled || peer.connecting() || self.budget.is_queued(address) {
            return true;
        }
        let delay = match (why, peer.owner) {
            (Demand::Repair | Demand::Stray | Demand::Operator, _) | (Demand::Traffic, true) => {
                Duration::ZERO
            }
            (Demand::Traffic, false) | (Demand::Crashed, _) => GRACE_TRAFFIC,
            (Demand::Eager, true) => spread,
            (Demand::Eager, false) => spread + GRACE_CALM,
            (Demand::Lost, true) => jitter,
            (Demand::Lost, false) => jitter + GRACE_CALM,
        };
        let at = (now.at + delay).max(peer.not_before.min(now.at + peer.longest_wait()));
        peer.start_at = Some(peer.start_at.map_or(at, |old| old.min(at)));
        true
    }

    /// A peer's timer is due.
    pub(super) fn peer_due(&mut self, now: Now, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        if peer.start_at.is_some_and(|at| at <= now.at) {
            peer.start_at = None;
            let urgency = if peer.urgent { Urgency::Waiting } else { Urgency::Ahead };
            self.budget.request(address, urgency);
        }
        if peer.tidy_at.is_some_and(|at| at <= now.at) {
            peer.tidy_at = None;
            self.tidy(now, address);
        }
        let Some(peer) = self.peers.get_mut(address) else { return };
        if peer.forgettable() && peer.wake() <= now.at {
            if self.budget.is_queued(address) {
                peer.last_active = now.at;
            } else {
                self.peers.remove(address);
            }
        }
    }

    /// A peer's turn has come.
    pub(super) fn begin(&mut self, now: Now, address: IpAddr) {
        let salt = self.rng.u64();
        // To say so where another peer's tunnel goes would end that one (RFC 7296 2.4: identities, not addresses).
        let alone = self.whose(address) == address;
        let fresh = alone && self.peers.get(address).is_some_and(|p| p.keeper().is_none());
        let config = self.fleet.as_ref().and_then(|f| f.config(address, salt, fresh));
        let (Some(config), Some(peer)) = (config, self.peers.get_mut(address)) else {
            return self.budget.cancel(address);
        };
        if peer.connecting()
            || !peer.demanded(now.at)
            || (peer.flowing() && !peer.stale() && !peer.rekey_again)
        {
            return self.budget.release(address);
        }
        if let Some(due) = peer.child_due(now.at).filter(|_| !peer.rekey_again) {
            peer.start_at = Some(due);
            return self.budget.release(address);
        }
        match peer.keeper() {
            Some(ike) if !peer.stale() => {
                peer.rekey_again = false;
                let broken = peer.children.iter().find(|c| c.up && !c.superseded).map(|c| c.id);
                let begun = match broken {
                    Some(child) => self.endpoint.rekey_child(now, child),
                    None => {
                        let mut ikes = peer.ikes.iter_mut();
                        if let Some(keeper) = ikes.find(|i| i.id == ike) {
                            keeper.child_due = Some(now.at + CHILD_WITHIN);
                        }
                        self.endpoint.create_child(now, ike, config.child.clone())
                    }
                };
                if begun.is_err() {
                    let text = "the tunnel could not be repaired; it is built anew";
                    let _ = self.endpoint.delete_ike(now, ike);
                    self.failed(now, address, Kind::ExchangeFailed, Verdict::IpsecBroken, text);
                }
            }
            _ if self.yields_to(address, now) => {}
            there => self.initiate(now, address, config, there.is_some()),
        }
    }

    /// An exchange with a peer failed.
    pub(super) fn failed(
        &mut self,
        now: Now,
        address: IpAddr,
        kind: Kind,
        verdict: Verdict,
        text: &str,
    ) {
        self.budget.release(address);
        let per_mille = self.rng.below(1000);
        self.counters.failures += 1;
        let Some(peer) = self.peers.get_mut(address) else {
            return self.report(now, Level::Warn, Some(address), kind, text);
        };
        peer.fail(now.at, Trouble { text: text.into(), verdict, at: now.at }, per_mille);
        peer.last_active = now.at;
        let again = peer.demanded(now.at) && (!peer.flowing() || peer.stale() || peer.rekey_again);
        peer.start_at = again.then_some(peer.not_before);
        let wait = peer.not_before.since(now.at).as_secs_f64();
        let next = if again { format!("; next try in {wait:.1} s") } else { String::new() };
        if !peer.flowing() {
            self.change(Change::DropQueued(address));
        }
        self.report(now, Level::Warn, Some(address), kind, format!("{text}{next}"));
    }

    /// A tunnel that was there is not whole any more.
    pub(super) fn after_loss(&mut self, now: Now, address: IpAddr, restart: bool) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        if peer.flowing() || peer.child_due(now.at).is_some() {
            return;
        }
        if restart || peer.eager || peer.wanted == Wanted::Up {
            let half = peer.keeper().is_some();
            self.demand(now, address, if half { Demand::Repair } else { Demand::Lost });
        }
    }

    /// Closes what is redundant: first nothing is sent through it any more, a while later it is
    /// deleted. So no packet is lost.
    fn tidy(&mut self, now: Now, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        let (keep_child, mut children) = peer.redundant_children();
        children.retain(|c| self.endpoint.serves(*c));
        let mut ikes = peer.redundant_ikes();
        if now.at.since(peer.newest()) < second_tunnel_lives(peer) {
            ikes.clear();
        }
        let kept = peer.children.iter().any(|c| Some(c.id) == keep_child && c.flowing());
        if (ikes.is_empty() && children.is_empty()) || !kept {
            peer.asked_before_tidy = false;
            return;
        }
        if !children.is_empty() && !std::mem::replace(&mut peer.asked_before_tidy, true) {
            // One of them may be gone at the peer's: that one is not to be the one that is kept.
            peer.tidy_at = Some(now.at + TIDY_OWN);
            if let Some(ike) = peer.keeper() {
                let _ = self.endpoint.probe(now, ike);
            }
            return;
        }
        let mut muted = Vec::new();
        for child in &mut peer.children {
            if children.contains(&child.id) || child.ike.is_some_and(|i| ikes.contains(&i)) {
                muted.extend(child.outbound.take());
            }
        }
        if muted.is_empty() {
            return self.close_redundant(now, address, &ikes, &children);
        }
        peer.tidy_at = Some(now.at + TIDY_OWN / 2);
        for key in muted {
            self.let_go(now, key);
        }
    }

    fn close_redundant(
        &mut self,
        now: Now,
        address: IpAddr,
        ikes: &[IkeSaId],
        children: &[ChildId],
    ) {
        if let Some(peer) = self.peers.get_mut(address) {
            for ike in &mut peer.ikes {
                ike.closing |= ikes.contains(&ike.id);
            }
        }
        let mut closed = 0;
        for ike in ikes {
            closed += usize::from(self.endpoint.delete_ike(now, *ike).is_ok());
        }
        for child in children {
            closed += usize::from(self.endpoint.delete_child(now, *child).is_ok());
        }
        if closed > 0 {
            let text = "closing a second tunnel; one is kept";
            self.report(now, Level::Info, Some(address), Kind::UniqueReplace, text);
        }
    }

    /// Duplicates that nothing else spoke of.
    pub(super) fn look_for_duplicates(&mut self, now: Now) {
        let several = |p: &Peer| p.tidy_at.is_none() && (p.ikes.len() > 1 || p.children.len() > 1);
        let peers: Vec<_> = self.peers.iter().filter(|(_, p)| several(p)).map(|(a, _)| a).collect();
        for address in peers {
            self.expect_tidy(now, address);
        }
    }

    /// Sees to it that duplicates are closed. Those that were made because both ends began at once
    /// are IKE's to settle; what is left is what one end made twice, to replace the first, and what
    /// IKE does not call a duplicate.
    pub(super) fn expect_tidy(&mut self, now: Now, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        let mut live = peer.ikes.iter().filter(|i| i.established());
        let wait = match live.nth(1) {
            Some(_) => second_tunnel_lives(peer),
            None if peer.redundant_children().1.is_empty() => return,
            None if peer.owner => TIDY_OWN,
            // Both ends close the same one; a peer that calls nothing a duplicate closes none.
            None => TIDY_REPLACED,
        };
        let at = now.at + wait;
        peer.tidy_at = Some(peer.tidy_at.map_or(at, |old| old.min(at)));
    }

    /// Whether a handshake of the peer's own is under way, or is to be expected: ours then waits, a bounded number of times.
    fn yields_to(&mut self, address: IpAddr, now: Now) -> bool {
        let theirs = self.endpoint.is_approached_by(address);
        let crowded = self.budget.young(now.at, MOMENT) > CROWD;
        let Some(peer) = self.peers.get_mut(address) else { return true };
        let most = match (theirs, crowded && !peer.owner) {
            (_, true) => YIELDS_IN_CROWD,
            (true, false) => YIELDS,
            (false, false) => 0,
        };
        if peer.yields >= most {
            return false;
        }
        peer.yields += 1;
        peer.start_at = Some(now.at + YIELD);
        self.budget.release(address);
        true
    }

    fn initiate(
        &mut self,
        now: Now,
        address: IpAddr,
        config: std::sync::Arc<ike::PeerConfig>,
        replaces: bool,
    ) {
        let id = self.endpoint.initiate(now, config);
        self.begun(now, address, id, replaces);
    }

    /// A handshake is under way.
    pub(super) fn begun(&mut self, now: Now, address: IpAddr, id: IkeSaId, replaces: bool) {
        self.counters.initiated += 1;
        self.ikes.insert(id, address);
        if let Some(peer) = self.peers.get_mut(address) {
            peer.yields = 0;
            peer.last_active = now.at;
            peer.add_ike(Ike {
                id,
                initiated: true,
                since: None,
                child_due: None,
                stale: false,
                closing: false,
            });
        }
        let text = match replaces {
            true => "building a tunnel that replaces the one there is",
            false => "building a tunnel",
        };
        self.report(now, Level::Info, Some(address), Kind::Connecting, text);
    }

    /// The first sign of life after a silence: who was given up in it is tried again soon.
    pub(super) fn after_silence(&mut self, now: Now) {
        for address in self.peers.addresses() {
            let jitter = Duration::from_micros(self.rng.below(1_000_000));
            let Some(peer) = self.peers.get(address) else { continue };
            let silent = peer.trouble.as_ref().is_some_and(|t| t.verdict == Verdict::NetworkDown);
            if !silent || peer.start_at.is_none() {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(address) {
                peer.not_before = now.at;
                peer.start_at = peer.start_at.map(|at| at.min(now.at + jitter));
            }
        }
    }

    /// Where in the spread of starts this pair has its place.
    fn spread(&self, address: IpAddr) -> Duration {
        let whole = SPREAD_PER_PEER.saturating_mul(self.peers.len() as u32).min(SPREAD_MAX);
        whole * pair::slot(self.own(address), address) as u32 / pair::MILLION as u32
    }

    /// What a failure says, of the protocol and of the network.
    pub(super) fn judge(&self, now: Now, address: IpAddr, failure: &Failure) -> (Kind, Verdict) {
        match failure {
            Failure::Timeout { during, seconds, .. } => {
                let others = self.last_heard.filter(|(_, who)| *who != address);
                let window = Duration::from_secs(seconds + 30);
                let verdict = match others {
                    _ if during.contains("AUTH") => Verdict::IpsecBroken,
                    Some((at, _)) if now.at.since(at) <= window => Verdict::PeerDown,
                    _ if self.others_are_silent(address) => Verdict::NetworkDown,
                    _ => Verdict::Unknown,
                };
                (Kind::PeerInitUnreachable, verdict)
            }
            Failure::NoProposalChosen { protocol: "IKE", .. } => {
                (Kind::ProposalMismatchIke, Verdict::IpsecBroken)
            }
            Failure::NoProposalChosen { .. } => (Kind::ProposalMismatchChild, Verdict::IpsecBroken),
            Failure::NotRedirected(_) => (Kind::Redirect, Verdict::IpsecBroken),
            Failure::TsUnacceptable { .. } => (Kind::TsMismatch, Verdict::IpsecBroken),
            Failure::PeerAuth(_) => (Kind::PeerAuthFailed, Verdict::IpsecBroken),
            Failure::RefusedByPeer => (Kind::LocalAuthFailed, Verdict::IpsecBroken),
            _ => (Kind::ExchangeFailed, Verdict::IpsecBroken),
        }
    }

    /// Whether there are other peers that ought to be there, and none of them is.
    fn others_are_silent(&self, address: IpAddr) -> bool {
        let mut others =
            self.peers.iter().filter(|(a, p)| *a != address && troubled_or_up(p)).peekable();
        others.peek().is_some() && others.all(|(_, p)| !p.flowing())
    }
}

fn troubled_or_up(peer: &Peer) -> bool {
    peer.trouble.is_some() || peer.flowing()
}

/// How long a second IKE SA of a peer is left alone.
fn second_tunnel_lives(peer: &Peer) -> Duration {
    if peer.made_all() {
        TIDY_OWN / 2
    } else if peer.replaced_by_peer() {
        TIDY_REPLACED
    } else {
        TIDY_OTHERS
    }
}
