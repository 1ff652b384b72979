//! From one process of a host to the next: records out, and SAs taken over.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ike::record::{ChildRecord, SaRecord};
use ike::{Directory, IkeSaId, Load, Now, Secret};
use ipsec::change::Change;
use ipsec::dataplane::Snapshot;
use ipsec::sa::SaKey;

use super::tunnels::Demand;
use super::{Mesh, Output};
use crate::directory::View;
use crate::event::{Kind, Level};
use crate::journal::{Key, Record};
use crate::peer::{Child, Ike, Wanted};
use crate::reconcile::Owner;

/// A restored IKE SA whose peer was silent for so many sends of one request gets a rival …
const SILENT_SENDS: u32 = 2;
/// … or so many, the last 5.5 s after the first, where child SAs go on: the peer's daemon may be away to be replaced as well.
const SILENT_SENDS_FLOWING: u32 = 5;

impl Mesh {
    /// The records of an earlier process; from here on records are written. They are looked at once
    /// there is a manifest and it is known what the data plane holds.
    pub(super) fn on_journal(&mut self, found: Vec<(Key, Secret)>) {
        self.journal.on = true;
        self.journal.found = found;
    }

    /// All records as they would be written now.
    pub fn journal(&self) -> Vec<(Key, Secret)> {
        let live = self.journal.written.keys().filter_map(|id| self.record(*id));
        let live = live.map(|record| (record.key(), record.encode()));
        live.chain(self.journal.found.iter().cloned()).collect()
    }

    /// Whether tunnels wait until it is known what goes on.
    pub(super) fn adopts(&self) -> bool {
        !self.journal.found.is_empty()
    }

    /// Writes what changed, before anything that follows from the change is sent.
    pub(super) fn write_journal(&mut self) {
        let mut unsaved = self.endpoint.take_unsaved();
        unsaved.append(&mut self.journal.unsaved);
        if !self.journal.on {
            return;
        }
        for id in unsaved {
            if let Some(record) = self.record(id) {
                self.journal.written.insert(id, record.key());
                self.push(Output::Journal(record.key(), Some(record.encode())));
            } else if let Some(key) = self.journal.written.remove(&id) {
                self.push(Output::Journal(key, None));
            }
        }
    }

    fn record(&self, id: IkeSaId) -> Option<Record> {
        let sa = self.endpoint.export(id)?;
        let peer = self.ikes.get(&id).copied().unwrap_or(sa.remote.ip());
        let known = self.peers.get(peer).and_then(|p| p.ikes.iter().find(|i| i.id == id));
        Some(Record { peer, initiated: known.map_or(sa.initiator, |i| i.initiated), sa })
    }

    /// Goes on with what is recorded, as far as the data plane still has it.
    pub(super) fn adopt(&mut self, now: Now, snapshot: &Snapshot) {
        if self.fleet.is_none() || !self.adopts() {
            return;
        }
        let there: BTreeSet<_> = snapshot.sas.iter().map(|usage| usage.key).collect();
        let (mut ikes, mut children, mut made_again) = (0, 0, 0);
        for (key, bytes) in std::mem::take(&mut self.journal.found) {
            let taken = Record::decode(bytes.expose()).map_err(|e| (None, e.to_string()));
            let taken = taken.and_then(|record| {
                let peer = record.peer;
                self.take_over(now, record, &there).map_err(|e| (Some(peer), e))
            });
            match taken {
                Ok((kept, lost)) => {
                    (ikes, children, made_again) = (ikes + 1, children + kept, made_again + lost);
                }
                Err((peer, reason)) => {
                    self.push(Output::Journal(key, None));
                    let text =
                        format!("an IKE SA of the last process is not gone on with: {reason}");
                    self.report(now, Level::Warn, peer, Kind::Adopted, text);
                }
            }
        }
        let text = format!(
            "{ikes} IKE SAs and {children} child SAs of the last process go on; {made_again} child SAs are made again"
        );
        self.report(now, Level::Info, None, Kind::Adopted, text);
    }

    /// How many child SAs go on, and how many are lost.
    fn take_over(
        &mut self,
        now: Now,
        record: Record,
        there: &BTreeSet<SaKey>,
    ) -> Result<(usize, usize), String> {
        let key = record.key();
        let Record { peer: address, initiated, mut sa } = record;
        let salt = self.rng.u64();
        let config = self.fleet.as_ref().and_then(|f| f.config(address, salt, false));
        let config = config.ok_or("its peer is none any more")?;
        if !self.peers.make_room(address) {
            return Err("there is no room for its peer".into());
        }
        if let Some(fleet) = &self.fleet {
            let (peers, reconciler) = (&self.peers, &self.reconciler);
            let view = View { fleet, peers, reconciler, salt, adopting: true, load: Load::Light };
            if !view.may_move(address, sa.remote.ip()) {
                return Err("it goes to an address that is another host's by now".into());
            }
        }
        let (fits, replaced, since) = (sa.fits(&config), sa.replaced, sa.since);
        let ends = keys_of(&sa);
        let here = |c: &ChildRecord| {
            let [inbound, outbound] = ends(c);
            c.reqid == config.child.reqid && there.contains(&inbound) && there.contains(&outbound)
        };
        let (kept, lost): (Vec<_>, Vec<_>) =
            std::mem::take(&mut sa.children).into_iter().partition(here);
        sa.children.clone_from(&kept);
        let pairs: Vec<_> = kept.iter().map(|child| sa.pair(child, &config.child)).collect();
        let restored = self.endpoint.restore(now, sa, config).map_err(|error| error.to_string())?;
        // So that it is forgotten even if it ends before it is written again.
        self.journal.written.insert(restored.id, key);
        if replaced {
            return Ok((0, 0));
        }
        self.ikes.insert(restored.id, address);
        self.journal.unproven.insert(address, (restored.id, false));
        let local = self.own(address);
        let peer = self.peers.entry(local, address, now.at);
        let (id, since, child_due, closing) = (restored.id, Some(since), None, false);
        peer.add_ike(Ike { id, initiated, since, child_due, stale: !fits, closing });
        let mut goes_on = 0;
        for ((pair, child), id) in pairs.into_iter().zip(&kept).zip(restored.children) {
            let Some(id) = id else { continue };
            let (ike, up) = (Some(restored.id), true);
            let (inbound, outbound) = (Some(pair.inbound.key()), Some(pair.outbound.key()));
            peer.add_child(Child { ike, inbound, outbound, up, ..Child::new(id, child.since) });
            for sa in [pair.inbound, pair.outbound] {
                let owner = Owner { peer: address, child: id, direction: sa.direction };
                self.reconciler.adopt(sa.key(), owner);
                self.changes.push(Change::AdoptSa(Arc::new(sa)));
            }
            goes_on += 1;
        }
        if goes_on > 0 {
            peer.succeed(now.at);
        }
        peer.last_active = now.at;
        if peer.wanted == Wanted::Down {
            // The last process ended before its tunnel did.
            self.close_all(now, address);
            return Ok((0, 0));
        }
        let spis: Vec<_> = lost.iter().map(|c| c.spi_in).collect();
        self.after_adoption(now, address, spis, goes_on > 0, fits);
        Ok((goes_on, lost.len()))
    }

    fn after_adoption(
        &mut self,
        now: Now,
        address: IpAddr,
        lost: Vec<ipsec::Spi>,
        flows: bool,
        fits: bool,
    ) {
        let missing = !flows && !lost.is_empty();
        if !lost.is_empty() {
            self.journal.bereft.insert(address, lost);
        }
        if missing || !fits {
            self.demand(now, address, if missing { Demand::Repair } else { Demand::Lost });
        }
    }

    /// Others serve now for the child SAs that were lost: the peer may forget those.
    pub(super) fn console(&mut self, now: Now, address: IpAddr, ike: IkeSaId) {
        for spi in self.journal.bereft.remove(&address).unwrap_or_default() {
            let _ = self.endpoint.unknown_spi(now, ike, spi);
        }
    }

    /// The peer has the IKE SA that was gone on with.
    pub(super) fn proven(&mut self, address: IpAddr, id: IkeSaId) {
        if self.journal.unproven.get(&address).is_some_and(|(unproven, _)| *unproven == id) {
            self.journal.unproven.remove(&address);
        }
    }

    /// No answer over an IKE SA that was gone on with: its peer may have lost it. Rather than wait for all
    /// retransmissions, another one is begun.
    pub(super) fn doubt(&mut self, now: Now, address: IpAddr, id: IkeSaId, attempt: u32) {
        let Some((unproven, missed)) = self.journal.unproven.get_mut(&address) else { return };
        let Some(peer) = self.peers.get_mut(address) else { return };
        let sends = if peer.flowing() { SILENT_SENDS_FLOWING } else { SILENT_SENDS };
        if *unproven != id || *missed || attempt < sends {
            return;
        }
        *missed = true;
        for ike in peer.ikes.iter_mut().filter(|i| i.id == id) {
            (ike.stale, ike.child_due) = (true, None);
        }
        self.demand(now, address, Demand::Repair);
    }

    /// Another IKE SA is up: one that was gone on with, and whose peer never answered, is of no use.
    pub(super) fn supplant(&mut self, now: Now, address: IpAddr, new: IkeSaId) {
        let Some((old, missed)) = self.journal.unproven.get(&address).copied() else { return };
        if old != new && missed {
            self.journal.unproven.remove(&address);
            let _ = self.endpoint.abandon(now, old);
        }
    }
}

/// What names the two SAs of its child SAs.
fn keys_of(sa: &SaRecord) -> impl Fn(&ChildRecord) -> [SaKey; 2] + use<> {
    let (local, remote) = (sa.local.ip(), sa.remote.ip());
    move |c| [SaKey { dst: local, spi: c.spi_in }, SaKey { dst: remote, spi: c.spi_out }]
}
