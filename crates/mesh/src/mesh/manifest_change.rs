//! From one manifest to the next: only what changed is touched.

use std::net::IpAddr;

use ike::Now;

use super::tunnels::Demand;
use super::{LOOK_EVERY, Mesh};
use crate::event::{Kind, Level};
use crate::fleet::Fleet;
use crate::loaded::Loaded;
use crate::pair;
use crate::peer::Wanted;

impl Mesh {
    /// Policies first, so that nothing leaves in the clear meanwhile; then tunnels that are not
    /// wanted any more; then new ones.
    pub(super) fn on_manifest(&mut self, now: Now, loaded: Loaded) {
        let fleet = Fleet::new(loaded, self.identity.data_plane);
        let lacks_compression = fleet.lacks_compression();
        for change in self.reconciler.set_policies(fleet.policies()) {
            self.change(change);
        }
        self.loaded_at = now.unix;
        let old = self.fleet.replace(fleet);
        for address in self.peers.addresses() {
            self.revise(now, address, old.as_ref());
        }
        self.obey_orders(now);
        self.start_known(now);
        self.look_at = if old.is_none() { now.at } else { self.look_at.min(now.at + LOOK_EVERY) };
        self.reminders.start(now);
        let (policies, _) = self.reconciler.desired();
        let text =
            format!("manifest in force: {policies} policies, {} peers known", self.peers.len());
        self.report(now, Level::Info, None, Kind::ManifestLoaded, text);
        if lacks_compression {
            let text = "`compression` is declined: the kernel's data plane does not compress";
            self.report(now, Level::Warn, None, Kind::ManifestLoaded, text);
        }
    }

    fn revise(&mut self, now: Now, address: IpAddr, old: Option<&Fleet>) {
        let Some(fleet) = &self.fleet else { return };
        let wanted = fleet.is_peer(address);
        let owner = fleet.plan().own(address).map(|own| pair::owns(own, address));
        let same = old.is_none_or(|old| fleet.same_tunnel(old, address));
        let same_proof = old.is_none_or(|old| fleet.same_proof(old));
        let Some(peer) = self.peers.get_mut(address) else { return };
        (peer.listed, peer.eager) = (false, false);
        peer.owner = owner.unwrap_or(peer.owner);
        if !wanted {
            peer.wanted = Wanted::OnDemand;
            peer.settle();
            self.budget.cancel(address);
            self.close_all(now, address);
            self.report(now, Level::Info, Some(address), Kind::PeerState, "no peer any more");
        } else if !same && peer.make_stale(now.at) {
            self.demand(now, address, Demand::Lost);
        } else if !same_proof && peer.failures > 0 {
            // What failed under other certificates says nothing of these.
            (peer.failures, peer.not_before) = (0, now.at);
            if peer.demanded(now.at) {
                self.demand(now, address, Demand::Lost);
            }
        }
    }

    fn start_known(&mut self, now: Now) {
        let Some(fleet) = &self.fleet else { return };
        let known: Vec<_> = fleet.known().collect();
        for (address, _) in &known {
            if self.peers.get(*address).is_some() || self.peers.has_room() {
                let local = self.own(*address);
                self.peers.entry(local, *address, now.at).listed = true;
            }
        }
        for (address, _) in known.into_iter().filter(|(_, eager)| *eager) {
            if let Some(peer) = self.peers.get_mut(address) {
                peer.eager = true;
                self.demand(now, address, Demand::Eager);
            }
        }
    }
}
