//! What the data plane tells: acquires, limits, refusals, and what a look at it shows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ike::Now;
use ipsec::change::{Batch, Change, Refusal};
use ipsec::dataplane::{DataplaneEvent, PacketInfo, Snapshot};
use ipsec::sa::{Direction, SaKey};

use super::Mesh;
use super::tunnels::Demand;
use crate::event::{Kind, Level};
use crate::peer::{Peer, Usage};
use crate::status::Verdict;

/// An outbound SA whose packets a newer one carries stays for so long: a packet that was given to it may be on its way
/// through the data plane, which loses it if the SA goes under it (the kernel counts XfrmOutStateInvalid).
const LET_GO_AFTER: Duration = Duration::from_millis(500);

impl Mesh {
    /// Nothing new is to be sent through an outbound SA.
    pub(super) fn let_go(&mut self, now: Now, key: SaKey) {
        if self.reconciler.is_superseded(key) {
            self.parting.push_back((now.at + LET_GO_AFTER, key));
        } else {
            let change = self.reconciler.remove_sa(key);
            self.change(change);
        }
    }

    /// Takes away what was let go a while ago.
    pub(super) fn see_off(&mut self, now: Now) {
        while self.parting.front().is_some_and(|(at, _)| *at <= now.at) {
            let Some((_, key)) = self.parting.pop_front() else { return };
            // Its child SA may have ended before.
            if self.reconciler.owner(key).is_some() {
                let change = self.reconciler.remove_sa(key);
                self.change(change);
            }
        }
    }

    pub(super) fn on_kernel(&mut self, now: Now, event: DataplaneEvent) {
        match event {
            DataplaneEvent::Acquire { packet, .. } => self.acquire(now, &packet),
            DataplaneEvent::Drift => self.look_soon(now),
            DataplaneEvent::SoftLimit(key) => self.soft_limit(now, key),
            DataplaneEvent::HardLimit(key) => self.sa_gone(now, key),
            DataplaneEvent::FirstUse(key) => self.endpoint.note_first_use(now, key.spi),
            DataplaneEvent::Moved { key, remote } => self.sa_moved(now, key, remote),
            DataplaneEvent::UnknownSpi { src, key } => self.unknown_spi(now, src, key),
            DataplaneEvent::ClearIn { packet } => self.clear_in(now, &packet),
            DataplaneEvent::Passed { packet } => self.passed(now, &packet),
        }
    }

    /// Changes that were refused. A tunnel whose SA cannot be installed is of no use.
    pub(super) fn on_refusals(&mut self, now: Now, batch: &Batch, refusals: &[Refusal]) {
        for refusal in refusals {
            self.counters.refused(&refusal.reason);
            match batch.0.get(refusal.index) {
                Some(Change::AddSa(sa) | Change::AdoptSa(sa)) => {
                    self.sa_refused(now, sa.key(), &refusal.reason.to_string())
                }
                Some(Change::PutPolicy(p)) if !self.reconciler.policy_refused(p.key()) => {}
                Some(Change::PutPolicy(p)) => {
                    let text = format!("policy {}: {}", super::shown::policy(p), refusal.reason);
                    self.report(now, Level::Error, None, Kind::InstallPolicyFailed, text);
                }
                Some(Change::MoveSa { key, .. }) => {
                    // It may have been lost on the way: a look will tell.
                    let text = format!("moving SA {}: {}", key.spi, refusal.reason);
                    self.look_soon(now);
                    self.report(now, Level::Warn, Some(key.dst), Kind::IkeUpdate, text);
                }
                Some(other) => {
                    let text = format!("{other:?}: {}", refusal.reason);
                    self.report(now, Level::Warn, None, Kind::InstallPolicyFailed, text);
                }
                None => {}
            }
        }
    }

    /// Counters, and what is not as it should be.
    pub(super) fn on_snapshot(&mut self, now: Now, snapshot: &Snapshot) {
        self.adopt(now, snapshot);
        let (mut sent, mut heard) = (BTreeSet::new(), BTreeSet::new());
        for (owner, usage) in self.reconciler.carried(snapshot) {
            let Some(peer) = self.peers.get_mut(owner.peer) else { continue };
            let Some(child) = peer.children.iter_mut().find(|c| c.id == owner.child) else {
                continue;
            };
            self.reconciler.note_carried(usage);
            let Usage { bytes_in, bytes_out, packets_in, packets_out } = &mut child.usage;
            match owner.direction {
                Direction::Out => {
                    if usage.packets > *packets_out {
                        sent.insert(owner.peer);
                        peer.carried.out = Some(now.at);
                    }
                    (*bytes_out, *packets_out) = (usage.bytes, usage.packets);
                }
                Direction::In => {
                    let fresh = usage.packets > *packets_in;
                    if fresh {
                        peer.carried.into = Some(now.at);
                    }
                    (*bytes_in, *packets_in) = (usage.bytes, usage.packets);
                    if fresh {
                        heard.insert(owner.peer);
                        self.endpoint.note_inbound_traffic(now, owner.child, usage.packets);
                        self.heard(now, owner.peer);
                    }
                }
            }
        }
        self.counters.data_plane.clone_from(&snapshot.counters);
        self.repair(now, snapshot);
        sent.retain(|peer| !heard.contains(peer));
        self.ask(now, sent);
        self.look_for_duplicates(now);
    }

    fn repair(&mut self, now: Now, snapshot: &Snapshot) {
        let drift = self.reconciler.observe(snapshot);
        for change in drift.changes {
            self.change(change);
        }
        if drift.text.is_empty() {
            return;
        }
        let (level, text) = if drift.found.drift() > 0 {
            let text = format!(
                "the data plane was changed by somebody else ({}); putting it right",
                drift.text
            );
            (Level::Warn, text)
        } else {
            let n = drift.found.left_behind;
            (Level::Info, format!("{n} entries that an earlier process left are taken away"))
        };
        self.report(now, level, None, Kind::Drift, text);
        for (key, peer, _) in drift.lost {
            self.lose(now, peer, key);
        }
    }

    /// A packet waits for an SA.
    fn acquire(&mut self, now: Now, packet: &PacketInfo) {
        self.counters.acquires += 1;
        let address = if packet.src == self.own(packet.src) { packet.dst } else { packet.src };
        if !self.fleet.as_ref().is_some_and(|f| f.is_peer(address)) {
            return;
        }
        if self.peers.get(address).is_some_and(crate::peer::Peer::flowing) {
            // It says that it has no SA, and we say that it has: one of us is wrong.
            self.look_soon(now);
        }
        if !self.demand(now, address, Demand::Traffic) {
            let text = format!("no room for {address}: {} peers are known", self.peers.len());
            self.report(now, Level::Warn, None, Kind::Full, text);
        }
    }

    fn soft_limit(&mut self, now: Now, key: SaKey) {
        let Some(owner) = self.reconciler.owner(key) else { return };
        let peer = self.peers.get(owner.peer);
        if peer.is_some_and(|p| p.children.iter().any(|c| c.id == owner.child && !c.superseded)) {
            // Refused while one is under way already.
            let _ = self.endpoint.rekey_child(now, owner.child);
        }
    }

    /// The data plane took an SA away by itself.
    fn sa_gone(&mut self, now: Now, key: SaKey) {
        if let Some(owner) = self.reconciler.owner(key) {
            let change = self.reconciler.remove_sa(key);
            self.change(change);
            self.lose(now, owner.peer, key);
        }
    }

    /// An SA is not there any more: its child SA is replaced.
    fn lose(&mut self, now: Now, address: IpAddr, key: SaKey) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        let mut torn = None;
        for child in &mut peer.children {
            let before = (child.inbound, child.outbound);
            child.inbound = child.inbound.filter(|k| *k != key);
            child.outbound = child.outbound.filter(|k| *k != key);
            if (child.inbound, child.outbound) != before && child.up && !child.superseded {
                torn = Some(child.id);
            }
        }
        if !peer.flowing() {
            if peer.children.iter().any(|c| c.up && !c.superseded) {
                self.demand(now, address, Demand::Repair);
            }
            return;
        }
        // Another one serves, but the peer may be sending through just this one.
        let Some(child) = torn else { return };
        if self.endpoint.rekey_child(now, child).is_err() {
            let _ = self.endpoint.delete_child(now, child);
        }
    }

    /// Somebody sends through an SA that is not here. That can be forged: what follows is bounded.
    fn unknown_spi(&mut self, now: Now, src: IpAddr, key: SaKey) {
        self.counters.unknown_spi += 1;
        if !self.fleet.as_ref().is_some_and(|f| f.is_peer(src)) {
            return;
        }
        self.report(
            now,
            Level::Debug,
            Some(src),
            Kind::InvalidSpi,
            format!("ESP for the unknown SPI {}", key.spi),
        );
        if self.reconciler.owner(key).is_some() {
            // It came before its SA was installed, or the data plane lost that: a look will tell.
            return self.look_soon(now);
        }
        let Some(ike) = self.peers.get(self.whose(src)).and_then(Peer::keeper) else {
            return self.stray(now, src);
        };
        // Heals in a round trip: what the peer sends through is replaced, or goes. A sign of life as well.
        let _ = self.endpoint.unknown_spi(now, ike, key.spi);
    }

    /// Somebody asks over an IKE SA that is not here. That can be forged as well.
    pub(super) fn unknown_ike(&mut self, now: Now, src: IpAddr) {
        let peer = self.fleet.as_ref().is_some_and(|f| f.is_peer(src));
        if peer && self.peers.get(self.whose(src)).and_then(Peer::keeper).is_none() {
            self.stray(now, src);
        }
    }

    /// The peer that has its tunnel at an address: by default the one of that name; one that has moved there, or was sent.
    pub(super) fn whose(&self, address: IpAddr) -> IpAddr {
        let own = self.peers.get(address).and_then(Peer::keeper);
        let moved = || self.reconciler.owners_at(address).next().map(|owner| owner.peer);
        own.is_none().then(moved).flatten().unwrap_or(address)
    }

    /// It has a tunnel with us, and we have none with it: this host has lost its state.
    fn stray(&mut self, now: Now, src: IpAddr) {
        if self.peers.has_room_for_stranger(src) && self.strays.take(now.at) {
            self.demand(now, src, Demand::Stray);
        }
    }

    fn clear_in(&mut self, now: Now, packet: &PacketInfo) {
        self.counters.clear_in += 1;
        let PacketInfo { src, protocol, dst_port, .. } = packet;
        let port = dst_port.map_or(String::new(), |p| format!(" port {p}"));
        let text = format!("dropped cleartext of protocol {protocol}{port} that must be protected");
        self.complain(now, *src, Kind::ClearIn, text);
    }

    fn sa_refused(&mut self, now: Now, key: SaKey, reason: &str) {
        let Some(owner) = self.reconciler.owner(key) else { return };
        let change = self.reconciler.remove_sa(key);
        self.change(change);
        if let Some(peer) = self.peers.get_mut(owner.peer) {
            for child in peer.children.iter_mut().filter(|c| c.id == owner.child) {
                child.up = false;
                child.superseded = true;
            }
        }
        let _ = self.endpoint.delete_child(now, owner.child);
        let text = format!("the SA could not be installed: {reason}");
        self.failed(now, owner.peer, Kind::InstallChildSaFailed, Verdict::IpsecBroken, &text);
    }
}
