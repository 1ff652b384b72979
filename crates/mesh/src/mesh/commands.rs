//! What an operator asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ike::Now;
use ipsec::change::Change;

use super::Mesh;
use super::tunnels::Demand;
use crate::command::{Command, CommandError, Order, Reply, Target};
use crate::event::{Kind, Level};
use crate::peer::{Peer, Wanted};
use crate::peers::MAX_PEERS;

impl Mesh {
    /// An operator's command. Poll afterwards, as after [`Mesh::handle`].
    ///
    /// # Errors
    /// If there is no such peer, or nothing to do it with; nothing was changed then.
    pub fn command(&mut self, now: Now, command: Command) -> Result<Reply, CommandError> {
        let peer = command.target().map(|t| self.resolve(t)).transpose()?;
        let text = match (&command, peer) {
            (Command::Up(_), Some(peer)) => self.up(now, peer)?,
            (Command::Down(_), Some(peer)) => self.down(now, peer)?,
            (Command::Restart(_), Some(peer)) => {
                self.down(now, peer)?;
                self.drain(now);
                self.up(now, peer)?;
                "taken down, starting anew"
            }
            (Command::Rekey(_), Some(peer)) => self.rekey(now, peer)?,
            (Command::Leave, _) => self.leave(now),
            (Command::Reauth(_), Some(peer)) => self.reauth(now, peer)?,
            (Command::ReauthAll, _) => self.reauth_all(now),
            _ => self.flush(now),
        };
        self.report(now, Level::Info, peer, Kind::PeerState, format!("by command: {text}"));
        self.run(now);
        Ok(Reply { peer, text: text.to_owned() })
    }

    /// What operators have said of peers and what still holds.
    pub fn orders(&self) -> BTreeMap<IpAddr, Order> {
        let order = |wanted| match wanted {
            Wanted::Up => Some(Order::Up),
            Wanted::Down => Some(Order::Down),
            Wanted::OnDemand => None,
        };
        let peers = self.peers.iter();
        let orders = peers.filter_map(|(address, peer)| Some((address, order(peer.wanted)?)));
        orders.chain(self.orders.iter().map(|(address, order)| (*address, *order))).collect()
    }

    /// What was said to an earlier process; of those who are no peers any more it is forgotten.
    pub(super) fn obey_orders(&mut self, now: Now) {
        for (address, order) in std::mem::take(&mut self.orders) {
            let is_peer = self.fleet.as_ref().is_some_and(|f| f.is_peer(address));
            if !is_peer || self.room_for(address).is_err() {
                continue;
            }
            let local = self.own(address);
            let peer = self.peers.entry(local, address, now.at);
            let text = match order {
                Order::Up => {
                    peer.wanted = Wanted::Up;
                    self.demand(now, address, Demand::Eager);
                    "to be kept up, as was said before this start"
                }
                Order::Down => {
                    peer.wanted = Wanted::Down;
                    "down, as was said before this start; `up` ends that"
                }
            };
            self.report(now, Level::Info, Some(address), Kind::PeerState, text);
        }
    }

    /// Which peer is meant.
    ///
    /// # Errors
    /// If nobody is.
    pub fn resolve(&self, target: &Target) -> Result<IpAddr, CommandError> {
        let fleet = self.fleet.as_ref().ok_or(CommandError::NoManifest)?;
        match target {
            Target::Address(a) if fleet.is_peer(*a) => Ok(*a),
            Target::Address(a) => Err(CommandError::NotAPeer(*a)),
            Target::Name(n) => {
                let unknown = || CommandError::UnknownName(n.clone());
                let address = fleet.find(n).ok_or_else(unknown)?;
                if fleet.is_peer(address) {
                    Ok(address)
                } else {
                    Err(CommandError::NotAPeer(address))
                }
            }
            Target::Spi(s) => self.by_spi(*s).ok_or(CommandError::UnknownSpi(*s)),
        }
    }

    /// Deletes all IKE SAs with a peer, half-open ones included; their child SAs go with them.
    pub(super) fn close_all(&mut self, now: Now, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        let mut ids = Vec::new();
        for ike in peer.ikes.iter_mut().filter(|i| !i.closing) {
            ike.closing = true;
            ids.push(ike.id);
        }
        let theirs =
            self.endpoint.half_open().into_iter().filter(|(_, a, ours)| *a == address && !ours);
        ids.extend(theirs.map(|(id, ..)| id));
        for id in ids {
            let _ = self.endpoint.delete_ike(now, id);
        }
    }

    fn up(&mut self, now: Now, address: IpAddr) -> Result<&'static str, CommandError> {
        self.room_for(address)?;
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        if peer.wanted != Wanted::Up {
            peer.settle();
        }
        peer.wanted = Wanted::Up;
        peer.failures = 0;
        peer.not_before = now.at;
        let flowing = peer.flowing();
        self.demand(now, address, Demand::Operator);
        Ok(if flowing { "up already, and to be kept up" } else { "starting" })
    }

    fn down(&mut self, now: Now, address: IpAddr) -> Result<&'static str, CommandError> {
        self.room_for(address)?;
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        peer.settle();
        peer.trouble = None;
        peer.wanted = Wanted::Down;
        peer.up_since = None;
        self.budget.cancel(address);
        self.close_all(now, address);
        self.change(Change::DropQueued(address));
        Ok("down, and refused until `up`")
    }

    fn rekey(&mut self, now: Now, address: IpAddr) -> Result<&'static str, CommandError> {
        let not_up = CommandError::NotUp(address);
        let peer =
            self.peers.get(address).filter(|p| p.wanted != Wanted::Down).ok_or(not_up.clone())?;
        let ike = peer.keeper().ok_or(not_up.clone())?;
        let live = peer.children.iter().filter(|c| c.up && !c.superseded && c.ike == Some(ike));
        for child in live.map(|c| c.id).collect::<Vec<_>>() {
            self.endpoint.rekey_child(now, child).map_err(|_| not_up.clone())?;
        }
        self.endpoint.rekey_ike(now, ike).map_err(|_| not_up)?;
        Ok("rekeying the child SA and the IKE SA")
    }

    /// Whether a tunnel is there, half-up ones included.
    pub fn has_tunnels(&self) -> bool {
        self.peers.iter().any(|(_, peer)| !peer.ikes.is_empty())
    }

    /// Outbound SAs go before the peers are told: what is sent through them after that would be lost. Inbound ones stay,
    /// also when the peers have agreed: what they sent before may still be under way.
    fn leave(&mut self, now: Now) -> &'static str {
        self.leaving = true;
        for address in self.peers.addresses() {
            self.budget.cancel(address);
            let Some(peer) = self.peers.get_mut(address) else { continue };
            peer.settle();
            peer.wanted = Wanted::Down;
            let outbound: Vec<_> =
                peer.children.iter_mut().filter_map(|child| child.outbound.take()).collect();
            for key in outbound {
                let change = self.reconciler.remove_sa(key);
                self.change(change);
            }
            self.close_all(now, address);
        }
        self.drain(now);
        "all tunnels are being taken down"
    }

    fn reauth(&mut self, now: Now, address: IpAddr) -> Result<&'static str, CommandError> {
        let not_up = CommandError::NotUp(address);
        let peer = self.peers.get_mut(address).filter(|p| p.wanted != Wanted::Down);
        let peer = peer.ok_or(not_up.clone())?;
        peer.make_stale(now.at).then_some(()).ok_or(not_up)?;
        peer.not_before = now.at;
        self.demand(now, address, Demand::Operator);
        Ok("replacing the tunnel by one that is authenticated anew")
    }

    fn reauth_all(&mut self, now: Now) -> &'static str {
        for address in self.peers.addresses() {
            if self.peers.get_mut(address).is_some_and(|p| p.make_stale(now.at)) {
                self.demand(now, address, Demand::Lost);
            }
        }
        "replacing all tunnels by ones that are authenticated anew"
    }

    /// Everything goes: tunnels in agreement with their peers, then SAs and policies.
    fn flush(&mut self, now: Now) -> &'static str {
        for address in self.peers.addresses() {
            self.budget.cancel(address);
            if let Some(peer) = self.peers.get_mut(address) {
                peer.settle();
                peer.wanted = Wanted::Down;
            }
            self.close_all(now, address);
        }
        self.drain(now);
        for change in self.reconciler.flush() {
            self.change(change);
        }
        "all tunnels and policies are gone; traffic is in the clear"
    }

    fn room_for(&self, address: IpAddr) -> Result<(), CommandError> {
        let room = self.peers.get(address).is_some() || self.peers.has_room();
        if room { Ok(()) } else { Err(CommandError::Full(MAX_PEERS)) }
    }

    fn by_spi(&self, spi: u64) -> Option<IpAddr> {
        let esp = u32::try_from(spi).ok();
        let has = |peer: &Peer| {
            let keys = peer.children.iter().flat_map(|c| [c.inbound, c.outbound]).flatten();
            keys.into_iter().any(|k| Some(k.spi.0) == esp)
        };
        let by_child = || self.peers.iter().find(|(_, p)| has(p)).map(|(a, _)| a);
        let by_ike = || {
            let infos = self.endpoint.ike_sas().into_iter();
            let found =
                infos.filter(|i| i.spi_i.0 == spi || i.spi_r.0 == spi).map(|i| i.id).next()?;
            self.ikes.get(&found).copied()
        };
        by_child().or_else(by_ike)
    }
}
