//! A peer sends its tunnel to another gateway (RFC 5685). It is followed where the manifest lets that peer do so, and
//! where nobody else of the fleet is; in every table here the peer stays who it is.

use std::net::IpAddr;

use ike::redirect::{NotFollowed, Redirect};
use ike::{Directory, IkeSaId, Load, Now};

use super::Mesh;
use crate::directory::View;
use crate::event::{Kind, Level};
use crate::peer::Wanted;
use crate::status::Verdict;

impl Mesh {
    /// The peer of a tunnel that stands sends it elsewhere.
    pub(super) fn on_redirect(&mut self, now: Now, id: IkeSaId, redirect: Redirect) {
        let Some(address) = self.ikes.get(&id).copied() else { return };
        if self.peers.get(address).is_some_and(|peer| peer.connecting()) {
            return;
        }
        if let Err(why) = self.follow(now, address, redirect) {
            self.not_redirected(now, id, &why);
        }
    }

    /// The peer of a tunnel that stands sends it where it does not go. The tunnel stays, as long as the peer lets it.
    pub(super) fn not_redirected(&mut self, now: Now, id: IkeSaId, why: &NotFollowed) {
        let Some(address) = self.ikes.get(&id).copied() else { return };
        self.counters.redirects_refused += 1;
        let text = format!("the peer redirects, and is not followed: {why}");
        self.note_trouble(now, address, Verdict::IpsecBroken, &text);
        self.complain(now, address, Kind::Redirect, text);
    }

    /// Begins a tunnel with the gateway that the peer sent this host to.
    pub(super) fn follow(
        &mut self,
        now: Now,
        address: IpAddr,
        redirect: Redirect,
    ) -> Result<(), NotFollowed> {
        let (salt, adopting) = (self.rng.u64(), self.adopts());
        let Some(fleet) = &self.fleet else { return Ok(()) };
        let (peers, reconciler) = (&self.peers, &self.reconciler);
        let view = View { fleet, peers, reconciler, salt, adopting, load: Load::Light };
        let wanted = peers.get(address).filter(|peer| peer.wanted != Wanted::Down);
        let (Some(peer), Some(config)) =
            (wanted, fleet.config(address, salt, wanted.is_none_or(|p| p.keeper().is_none())))
        else {
            return Ok(());
        };
        if !view.may_move(address, redirect.to) {
            return Err(NotFollowed::Taken(redirect.to));
        }
        let there = peer.keeper().is_some();
        let id = self.endpoint.follow(now, config, redirect)?;
        self.counters.redirects_followed += 1;
        let text = format!("{} sends this host to {}", redirect.from, redirect.to);
        self.report(now, Level::Info, Some(address), Kind::Redirect, text);
        self.begun(now, address, id, there);
        Ok(())
    }
}
