//! Tunnels that go between other addresses than before: mappings of a NAT, and MOBIKE (RFC 4555).
//!
//! The fleet knows a peer by its home address, whatever its packets come from: that one is in the manifest, in the
//! selectors and in every table here. Only what carries packets has the others.

use std::net::{IpAddr, SocketAddr};

use ike::{IkeSaId, Now};
use ipsec::change::Change;
use ipsec::sa::{Outer, SaKey};

use super::Mesh;
use crate::event::{Kind, Level};

impl Mesh {
    /// IKE has moved a tunnel: the data plane follows.
    pub(super) fn peer_moved(
        &mut self,
        now: Now,
        id: IkeSaId,
        remote: SocketAddr,
        outer: Outer,
        sas: &[SaKey],
    ) {
        let peer = self.ikes.get(&id).copied().unwrap_or(remote.ip());
        self.move_sas(now, peer, sas, outer);
        let text = format!("the tunnel goes from {} to {remote} now", outer.local);
        self.report(now, Level::Info, Some(peer), Kind::IkeUpdate, text);
    }

    /// Verified ESP of a peer came from elsewhere. Only a NAT gives it another port (RFC 7296 2.23); else it is a captured
    /// packet, sent again by somebody. At another address it may be another peer: whoever holds keys with us
    /// could take over what is sent to a third. Where it may move, it says so in IKE.
    pub(super) fn sa_moved(&mut self, now: Now, key: SaKey, remote: SocketAddr) {
        let Some(owner) = self.reconciler.owner(key) else { return };
        let Some(peer) = self.peers.get(owner.peer) else { return };
        let child = peer.children.iter().find(|c| c.id == owner.child);
        let place = child.and_then(|c| c.outbound).map_or(owner.peer, |key| key.dst);
        let keys = child.into_iter().flat_map(|c| [c.inbound, c.outbound]).flatten();
        let keys: Vec<_> = keys.collect();
        if remote.ip() != place {
            let text = format!("it says that it is at {} now, which is another host", remote.ip());
            return self.complain(now, owner.peer, Kind::IkeUpdate, text);
        }
        let Some(outer) = self.endpoint.note_moved(owner.child, remote) else { return };
        self.move_sas(now, owner.peer, &keys, outer);
        let text = format!("the peer is at {remote} now");
        self.report(now, Level::Info, Some(owner.peer), Kind::IkeUpdate, text);
    }

    /// A peer has asked for what it must not get.
    pub(super) fn move_refused(&mut self, now: Now, id: IkeSaId, to: SocketAddr) {
        let Some(peer) = self.ikes.get(&id).copied() else { return };
        let text = format!(
            "the peer wants its tunnel to go to {}, which is another host of the manifest, or no host's address",
            to.ip()
        );
        self.complain(now, peer, Kind::IkeUpdate, text);
    }

    fn move_sas(&mut self, now: Now, peer: IpAddr, sas: &[SaKey], outer: Outer) {
        for key in sas {
            let owner = self.reconciler.owner(*key);
            let Some(new) = self.reconciler.move_sa(*key, outer) else {
                // Two peers at one address, and one SPI that both chose: who comes second begins anew.
                if let Some(owner) = owner {
                    let _ = self.endpoint.delete_child(now, owner.child);
                }
                continue;
            };
            self.change(Change::MoveSa { key: *key, outer });
            let children = self.peers.get_mut(peer).into_iter().flat_map(|p| &mut p.children);
            for half in children.flat_map(|c| [&mut c.inbound, &mut c.outbound]) {
                *half = half.map(|half| if half == *key { new } else { half });
            }
            for (_, parting) in self.parting.iter_mut().filter(|(_, parting)| parting == key) {
                *parting = new;
            }
        }
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.last_active = now.at;
        }
    }
}
