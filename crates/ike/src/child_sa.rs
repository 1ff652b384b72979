//! Child SAs: the table of all of them, and how one comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipsec::Instant;
use ipsec::sa::{Mode, Outer, Sa, SaKey, SaPair};
use wire::esp::Spi;
use wire::selector::TrafficSelector;

use crate::config::ChildConfig;
use crate::context::Context;
use crate::error::{EndReason, Failure};
use crate::event::{ChildId, ChildInfo, Event, IkeSaId};
use crate::ipcomp::Cpis;
use crate::narrow::Names;
use crate::negotiate::EspSuite;
use crate::record::ChildRecord;
use crate::rng::Rng;
use crate::suite;
use crate::timer::Timer;

/// A replaced inbound SA is kept this long for packets that were overtaken.
const LINGER: Duration = Duration::from_secs(5);

/// Where a child SA is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The inbound SA is there; the outbound one waits for a sign that the peer has its own.
    Inbound,
    /// Complete.
    Up,
    /// Its Delete is sent, or about to be.
    Closing,
    /// Gone but for the inbound SA, which catches late packets.
    Lingering,
}

/// One child SA.
#[derive(Clone)]
pub(crate) struct Child {
    pub(crate) id: ChildId,
    pub(crate) ike: IkeSaId,
    pub(crate) config: Arc<ChildConfig>,
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    /// The peer's address at the beginning of the IKE SA.
    pub(crate) home: IpAddr,
    pub(crate) spi_in: Spi,
    pub(crate) spi_out: Spi,
    pub(crate) mode: Mode,
    pub(crate) suite: EspSuite,
    pub(crate) local_ts: Arc<[TrafficSelector]>,
    pub(crate) remote_ts: Arc<[TrafficSelector]>,
    names: Option<Box<Names>>,
    pub(crate) encap: bool,
    pub(crate) ipcomp: Option<Cpis>,
    pub(crate) replaces: Option<ChildId>,
    /// The child that this host's own rekey, or the peer's, put in its place.
    pub(crate) successor: Option<ChildId>,
    /// The loser of a simultaneous rekey, which the peer is to close.
    pub(crate) redundant: bool,
    pub(crate) since: Instant,
    pub(crate) rekey_at: Instant,
    /// Packets that came through it, as the data plane counted them last.
    pub(crate) received: u64,
    pub(crate) stage: Stage,
    /// Not yet installed.
    outbound: Option<Arc<Sa>>,
}

/// What two ends agreed on, without the keys.
#[derive(Clone)]
pub(crate) struct Agreed {
    pub(crate) config: Arc<ChildConfig>,
    pub(crate) suite: EspSuite,
    pub(crate) spi_in: Spi,
    pub(crate) spi_out: Spi,
    pub(crate) mode: Mode,
    pub(crate) ipcomp: Option<Cpis>,
    pub(crate) local_ts: Arc<[TrafficSelector]>,
    pub(crate) remote_ts: Arc<[TrafficSelector]>,
    pub(crate) names: Option<Names>,
    pub(crate) replaces: Option<ChildId>,
}

/// All child SAs of an endpoint.
#[derive(Clone, Default)]
pub(crate) struct Children {
    all: BTreeMap<ChildId, Box<Child>>,
    by_ike: BTreeSet<(IkeSaId, ChildId)>,
    by_spi_in: BTreeMap<Spi, ChildId>,
    last: u64,
}

impl Children {
    /// A fresh inbound SPI.
    pub(crate) fn fresh_spi(&self, rng: &mut Rng) -> Spi {
        loop {
            let [a, b, c, d] = rng.bytes();
            let spi = Spi(u32::from_be_bytes([a, b, c, d]));
            if spi.0 > 255 && !self.by_spi_in.contains_key(&spi) {
                return spi;
            }
        }
    }

    pub(crate) fn get(&self, id: ChildId) -> Option<&Child> {
        self.all.get(&id).map(|child| &**child)
    }

    pub(crate) fn get_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        self.all.get_mut(&id).map(|child| &mut **child)
    }

    pub(crate) fn by_spi_in(&self, spi: Spi) -> Option<ChildId> {
        self.by_spi_in.get(&spi).copied()
    }

    /// The child that sends with `spi`, unless it only lingers.
    pub(crate) fn by_spi_out(&self, ike: IkeSaId, spi: Spi) -> Option<ChildId> {
        self.of(ike).into_iter().find(|id| {
            self.get(*id).is_some_and(|c| c.spi_out == spi && c.stage != Stage::Lingering)
        })
    }

    /// Children of an IKE SA, in the order of their ids.
    pub(crate) fn of(&self, ike: IkeSaId) -> Vec<ChildId> {
        self.by_ike
            .range((ike, ChildId(0))..=(ike, ChildId(u64::MAX)))
            .map(|(_, child)| *child)
            .collect()
    }

    /// All children, in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.all.values().map(|child| &**child)
    }

    fn insert(&mut self, child: Child) {
        self.by_ike.insert((child.ike, child.id));
        self.by_spi_in.insert(child.spi_in, child.id);
        self.all.insert(child.id, Box::new(child));
    }

    fn remove(&mut self, id: ChildId) -> Option<Box<Child>> {
        let child = self.all.remove(&id)?;
        self.by_ike.remove(&(child.ike, id));
        self.by_spi_in.remove(&child.spi_in);
        Some(child)
    }
}

impl Child {
    /// Whether it serves, or is about to, and nothing is there in its place.
    pub(crate) fn live(&self) -> bool {
        matches!(self.stage, Stage::Inbound | Stage::Up)
            && self.successor.is_none()
            && !self.redundant
    }

    /// Its packets go elsewhere; those of an SA that is not installed yet as well.
    pub(crate) fn relocate(&mut self, outer: Outer) {
        (self.local, self.remote, self.encap) = (outer.local, outer.remote, outer.encap.is_some());
        if let Some(sa) = &mut self.outbound {
            Arc::make_mut(sa).relocate(outer);
        }
    }

    fn remove_keys(&self) -> Vec<SaKey> {
        vec![self.inbound_key(), self.outbound_key()]
    }

    pub(crate) fn inbound_key(&self) -> SaKey {
        SaKey { dst: self.local, spi: self.spi_in }
    }

    pub(crate) fn outbound_key(&self) -> SaKey {
        SaKey { dst: self.remote, spi: self.spi_out }
    }

    /// What the two ends were called in the exchange that made it, if a NAT makes that matter.
    pub(crate) fn names(&self) -> Option<Names> {
        self.names.as_deref().copied()
    }

    /// What is told about it.
    pub(crate) fn info(&self) -> ChildInfo {
        ChildInfo {
            id: self.id,
            ike: self.ike,
            remote: self.home,
            reqid: self.config.reqid,
            spi_in: self.spi_in,
            spi_out: self.spi_out,
            mode: self.mode,
            suite: suite::suite_text_esp(&self.suite),
            local_ts: self.local_ts.to_vec(),
            remote_ts: self.remote_ts.to_vec(),
            encap: self.encap,
            compression: self.ipcomp.is_some(),
            replaces: self.replaces,
            since: self.since,
            rekey_at: self.rekey_at,
        }
    }
}

/// Enters a child SA and has its inbound SA installed; `None` if the SPI was taken meanwhile.
pub(crate) fn install(
    cx: &mut Context,
    now: Instant,
    (ike, home): (IkeSaId, IpAddr),
    agreed: Agreed,
    pair: SaPair,
) -> Option<ChildId> {
    if cx.children.by_spi_in(agreed.spi_in).is_some() {
        return None;
    }
    cx.children.last += 1;
    let id = ChildId(cx.children.last);
    let rekey_at = now + agreed.config.rekey_after;
    cx.timers.set(ike, Timer::RekeyChild(id), rekey_at);
    if let Some(hard) = agreed.config.limits.hard_time {
        cx.timers.set(ike, Timer::ExpireChild(id), now + hard);
    }
    cx.children.insert(Child {
        id,
        ike,
        local: pair.inbound.dst,
        remote: pair.inbound.src,
        home,
        spi_in: agreed.spi_in,
        spi_out: agreed.spi_out,
        mode: agreed.mode,
        suite: agreed.suite,
        local_ts: agreed.local_ts,
        remote_ts: agreed.remote_ts,
        names: agreed.names.map(Box::new),
        encap: pair.inbound.encap.is_some(),
        ipcomp: agreed.ipcomp,
        replaces: agreed.replaces,
        successor: None,
        redundant: false,
        since: now,
        rekey_at,
        received: 0,
        stage: Stage::Inbound,
        config: agreed.config,
        outbound: Some(Arc::new(pair.outbound)),
    });
    cx.event(Event::InstallInbound { child: id, remote: home, sa: Arc::new(pair.inbound) });
    Some(id)
}

/// Enters a child SA that an earlier process made, and the data plane has; `None` if its SPI is taken.
pub(crate) fn restore(
    cx: &mut Context,
    ike: IkeSaId,
    (local, remote, home): (IpAddr, IpAddr, IpAddr),
    config: Arc<ChildConfig>,
    record: ChildRecord,
) -> Option<ChildId> {
    if cx.children.by_spi_in(record.spi_in).is_some() {
        return None;
    }
    cx.children.last += 1;
    let id = ChildId(cx.children.last);
    cx.timers.set(ike, Timer::RekeyChild(id), record.rekey_at);
    if let Some(hard) = config.limits.hard_time {
        cx.timers.set(ike, Timer::ExpireChild(id), record.since + hard);
    }
    cx.children.insert(Child {
        id,
        ike,
        local,
        remote,
        home,
        spi_in: record.spi_in,
        spi_out: record.spi_out,
        mode: record.mode,
        suite: record.suite,
        local_ts: once(&config.local_ts, record.local_ts),
        remote_ts: once(&config.remote_ts, record.remote_ts),
        names: record.names.map(Box::new),
        encap: record.encap,
        ipcomp: record.ipcomp,
        replaces: None,
        successor: None,
        redundant: false,
        since: record.since,
        rekey_at: record.rekey_at,
        received: 0,
        stage: Stage::Up,
        outbound: None,
        config,
    });
    Some(id)
}

/// What was agreed on is nearly always what was asked for, and kept once then.
pub(crate) fn once(
    asked: &Arc<[TrafficSelector]>,
    agreed: Vec<TrafficSelector>,
) -> Arc<[TrafficSelector]> {
    if **asked == *agreed { asked.clone() } else { agreed.into() }
}

/// The peer can receive: installs the outbound SA and reports the child as up.
pub(crate) fn complete(cx: &mut Context, id: ChildId) {
    let Some(child) = cx.children.get_mut(id) else { return };
    if child.stage != Stage::Inbound || child.redundant {
        return;
    }
    let Some(sa) = child.outbound.take() else { return };
    child.stage = Stage::Up;
    let (ike, remote, info) = (child.ike, child.home, child.info());
    cx.unsaved.insert(ike);
    cx.timers.cancel(ike, Timer::Outbound(id));
    cx.event(Event::InstallOutbound { child: id, remote, sa });
    cx.event(Event::ChildUp(info));
}

/// Takes a child SA away, both SAs at once.
pub(crate) fn down(cx: &mut Context, id: ChildId, reason: Failure) {
    let Some(child) = cx.children.remove(id) else { return };
    cx.timers.cancel_child(child.ike, id);
    cx.unsaved.insert(child.ike);
    // One that it was to replace, and that is still complete, serves on.
    for old in cx.children.of(child.ike) {
        if let Some(old) = cx.children.get_mut(old).filter(|c| c.successor == Some(id)) {
            old.successor = None;
        }
    }
    let remove = child.remove_keys();
    cx.event(Event::ChildDown { child: id, ike: child.ike, remote: child.home, remove, reason });
}

/// Takes a child SA away that another serves for: its inbound SA stays a little for packets under way.
pub(crate) fn retire(cx: &mut Context, now: Instant, id: ChildId, reason: EndReason) {
    let Some(child) = cx.children.get_mut(id) else { return };
    if child.stage == Stage::Lingering {
        return;
    }
    child.stage = Stage::Lingering;
    child.outbound = None;
    child.redundant |= reason == EndReason::Redundant;
    let (ike, key) = (child.ike, child.outbound_key());
    cx.unsaved.insert(ike);
    cx.timers.cancel_child(ike, id);
    cx.timers.set(ike, Timer::RemoveChild(id), now + LINGER);
    cx.event(Event::RemoveOutbound { child: id, key });
}

/// The end of [`retire`].
pub(crate) fn remove_retired(cx: &mut Context, id: ChildId) {
    let redundant = cx.children.get(id).is_some_and(|c| c.redundant);
    let reason = if redundant { EndReason::Redundant } else { EndReason::Rekeyed };
    down(cx, id, Failure::Ended(reason));
}

/// A child SA and its timers pass to another IKE SA.
pub(crate) fn hand_over(cx: &mut Context, id: ChildId, new: IkeSaId) {
    let Some(child) = cx.children.all.get_mut(&id) else { return };
    let old = std::mem::replace(&mut child.ike, new);
    cx.children.by_ike.remove(&(old, id));
    cx.children.by_ike.insert((new, id));
    cx.unsaved.extend([old, new]);
    cx.timers.move_child(old, new, id);
}
