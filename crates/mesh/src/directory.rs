//! Who may talk to this host: the plan and the peers as IKE sees them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ike::{Directory, Load, PeerConfig};

use crate::fleet::Fleet;
use crate::peer::Wanted;
use crate::peers::Peers;
use crate::reconcile::Reconciler;

/// What is looked up during one call.
pub struct View<'a> {
    /// The manifest in force.
    pub fleet: &'a Fleet,
    /// The peers.
    pub peers: &'a Peers,
    /// Their SAs.
    pub reconciler: &'a Reconciler,
    /// Fresh randomness for the spread of lifetimes.
    pub salt: u64,
    /// Whether SAs of an earlier process are still to be taken over.
    pub adopting: bool,
    /// How much public-key work waits.
    pub load: Load,
}

impl Directory for View<'_> {
    fn responder(&self, local: IpAddr, remote: SocketAddr) -> Option<Arc<PeerConfig>> {
        let address = remote.ip();
        let peer = self.peers.get(address);
        let refused = peer.is_some_and(|p| p.wanted == Wanted::Down);
        let room = peer.is_some() || self.peers.has_room();
        if !self.fleet.plan().is_me(local) || refused || !room {
            return None;
        }
        self.fleet.config(address, self.salt, false)
    }

    /// Whatever an address stands for in the fleet stays with whom it stands for: this host, a host that the manifest
    /// names, one that there is a tunnel with, one whose tunnel has moved there.
    fn may_move(&self, peer: IpAddr, to: IpAddr) -> bool {
        let named = self.fleet.plan().known_peers().contains_key(&to);
        let there = self.peers.get(to).is_some_and(|other| !other.ikes.is_empty());
        let moved = self.reconciler.owners_at(to).any(|owner| owner.peer != peer);
        to == peer || (!self.fleet.plan().is_me(to) && !named && !there && !moved)
    }

    /// Named in the manifest, or proven to be who it is: an address that merely lies in a protected
    /// subnet can be forged by anybody.
    fn is_known(&self, remote: IpAddr) -> bool {
        self.peers.get(remote).is_some_and(|p| p.listed || p.last_heard.is_some())
    }

    fn is_settled(&self) -> bool {
        !self.adopting
    }

    fn load(&self) -> Load {
        self.load
    }
}
