//! INFORMATIONAL exchanges of MOBIKE (RFC 4555 3.5 to 3.10): addresses are told, SAs move, paths are checked.
//!
//! The host that began the first of the IKE SAs decides between which addresses the SAs go, and says so; the other end
//! follows once it has seen that its peer is there (return routability). Nobody but the peer itself can say it, and the
//! IKE SA and its child SAs always move together.

use std::net::{IpAddr, SocketAddr};

use wire::payload::Payload;
use wire::registry::{ExchangeType, NotifyType};

use crate::context::{Context, NATT_PORT};
use crate::endpoint::Now;
use crate::error::{Failure, Misbehaviour};
use crate::established::{self, Established, Flow, Life, Own, Task};
use crate::event::Event;
use crate::ike_sa::{IkeSa, State, error_notify, find_notify};
use crate::mobility::{self, MOST_TOLD, Mobility, Path, Trial};
use crate::nat::{self, NatState};

/// A path on which nobody answers is given up after so many sends: whoever changed the source of a genuine message on
/// its way does no more harm than that.
const TRIAL_SENDS: u32 = 5;
/// From this send of a request on, other paths than the one in use are tried as well.
const DETOUR_FROM: u32 = 4;
/// Paths that are tried at most, one a send.
const MOST_PATHS: usize = 16;

/// UPDATE_SA_ADDRESSES or a check of a path, under way.
#[derive(Clone)]
pub(crate) struct Sent {
    path: Path,
    cookie: [u8; 16],
}

/// What is said in IKE_AUTH: that this host can move, and where else it is.
pub(crate) fn announce(cx: &Context, sa: &IkeSa) -> Vec<Payload> {
    if !mobility::wanted(&sa.config) {
        return Vec::new();
    }
    let mut payloads = vec![error_notify(NotifyType::MOBIKE_SUPPORTED)];
    let others = others(cx, sa);
    if !others.is_empty() {
        payloads.extend(mobility::additional_payloads(&others));
    }
    payloads
}

/// The peer's IKE_AUTH is there: whether both can move.
pub(crate) fn agree(cx: &Context, sa: &mut IkeSa, payloads: &[Payload]) {
    let theirs = find_notify(payloads, NotifyType::MOBIKE_SUPPORTED).is_some();
    if theirs && mobility::wanted(&sa.config) {
        let told = others(cx, sa);
        let theirs = mobility::additional(payloads).unwrap_or_default();
        sa.mobility = Some(Box::new(Mobility { theirs, told, ..Mobility::default() }));
    }
}

/// This host's addresses by which others can reach it.
fn own(cx: &Context) -> impl Iterator<Item = IpAddr> {
    cx.addresses.iter().copied().filter(|address| mobility::is_reachable(*address))
}

/// The same but the one in use.
fn others(cx: &Context, sa: &IkeSa) -> Vec<IpAddr> {
    own(cx).filter(|address| *address != sa.local.ip()).take(MOST_TOLD).collect()
}

/// This host has other addresses than before. Where the one in use is gone, the SAs move at once: through it nothing
/// could be sent any more, not even by the end that does not decide (RFC 4555 3.5).
pub(crate) fn changed(cx: &mut Context, sa: &mut IkeSa, now: Now) {
    let live = sa.up().is_some_and(|up| up.life == Life::Live);
    let Some(told) = sa.mobility.as_ref().map(|m| m.told.clone()).filter(|_| live) else { return };
    let here = sa.local.ip();
    if cx.addresses.contains(&here) {
        if told != others(cx, sa) {
            sa.proceed(cx, now, |up| up.push(Task::Addresses));
        }
        return;
    }
    let next = own(cx).find(|address| address.is_ipv4() == here.is_ipv4());
    if let Some(next) = next {
        if let Some(mobility) = &mut sa.mobility {
            mobility.refused.clear();
        }
        depart(cx, sa, now, next);
        announce_move(cx, sa, now);
    }
}

/// The SAs go from another address of this host.
fn depart(cx: &mut Context, sa: &mut IkeSa, now: Now, from: IpAddr) {
    let path = Path { local: SocketAddr::new(from, sa.local.port()), remote: sa.remote };
    relocate(cx, sa, now, path, None);
}

/// Tells the peer of a move.
fn announce_move(cx: &mut Context, sa: &mut IkeSa, now: Now) {
    let decides = sa.up().is_some_and(|up| up.decides(sa));
    resend(cx, sa);
    sa.proceed(cx, now, |up| {
        up.forget_paths();
        up.push_first(if decides { Task::Update } else { Task::Addresses });
    });
}

/// What is outstanding goes out again, by the path of now.
fn resend(cx: &mut Context, sa: &IkeSa) {
    let path = sa.path();
    for bytes in sa.window.pending() {
        cx.transmit(path.local, path.remote, bytes);
    }
}

/// Sends UPDATE_SA_ADDRESSES, with a check of the path.
pub(crate) fn start_update(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, now: Now) {
    let path = sa.path();
    let cookie = cx.rng.bytes();
    let mut payloads = vec![error_notify(NotifyType::UPDATE_SA_ADDRESSES)];
    payloads.extend(nat_payloads(cx, sa, path));
    payloads.push(mobility::cookie2_payload(&cookie));
    sa.send_request(cx, now, ExchangeType::INFORMATIONAL, &payloads);
    up.own = Some(Own::Update(Box::new(Sent { path, cookie })));
}

/// Asks for a sign of life on the path that is tried.
pub(crate) fn start_check(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, now: Now) {
    let Some(trial) = sa.mobility.as_ref().and_then(|m| m.trial) else { return };
    let cookie = cx.rng.bytes();
    let payloads = [mobility::cookie2_payload(&cookie)];
    sa.send_request(cx, now, ExchangeType::INFORMATIONAL, &payloads);
    up.own = Some(Own::Check(Box::new(Sent { path: trial.path, cookie })));
}

/// Tells where else this host is.
pub(crate) fn start_addresses(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, now: Now) {
    let others = others(cx, sa);
    let payloads = mobility::additional_payloads(&others);
    let Some(mobility) = &mut sa.mobility else { return };
    mobility.told = others;
    sa.send_request(cx, now, ExchangeType::INFORMATIONAL, &payloads);
    up.own = Some(Own::Addresses);
}

/// NAT detection for a message on `path`, where both ends do NAT traversal.
fn nat_payloads(cx: &Context, sa: &IkeSa, path: Path) -> Vec<Payload> {
    if sa.local.port() != NATT_PORT {
        return Vec::new();
    }
    let Path { local, remote } = path;
    let force = sa.config.common.force_encap;
    let both = nat::notifies(&*cx.provider, sa.spi_i, sa.spi_r, local, remote, force);
    both.map(|both| both.map(Payload::Notify).to_vec()).unwrap_or_default()
}

/// Who is behind a NAT, as a message says that came by `path`.
fn detect(cx: &Context, sa: &IkeSa, payloads: &[Payload], path: Path) -> Option<NatState> {
    let Path { local, remote } = path;
    nat::detect(&*cx.provider, payloads, sa.spi_i, sa.spi_r, local, remote).ok().flatten()
}

/// What a liveness check asks as well: whether the peer still sees this host where it saw it (RFC 4555 3.8).
pub(crate) fn with_probe(up: &Established, cx: &Context, sa: &IkeSa) -> Vec<Payload> {
    let asks = sa.mobility.is_some() && sa.nat.local_behind && up.decides(sa);
    if asks { nat_payloads(cx, sa, sa.path()) } else { Vec::new() }
}

/// The answer to that: with another mapping the SAs are at another address for the peer.
pub(crate) fn probed(up: &mut Established, sa: &mut IkeSa, payloads: &[Payload]) {
    let Some(seen) = find_notify(payloads, NotifyType::NAT_DETECTION_DESTINATION_IP) else {
        return;
    };
    let decides = up.decides(sa);
    let Some(mobility) = &mut sa.mobility else { return };
    let before = mobility.seen_as.replace(seen.data.clone());
    if decides && before.is_some_and(|before| before != seen.data) {
        up.push(Task::Update);
    }
}

/// An INFORMATIONAL request of the peer; gives what belongs into the answer.
pub(crate) fn request(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    payloads: &[Payload],
) -> Vec<Payload> {
    let Some((path, welcome)) = sa.asked_from() else { return Vec::new() };
    if sa.mobility.is_none() {
        return Vec::new();
    }
    let cookie = mobility::cookie2(payloads).map(mobility::cookie2_payload);
    let mut reply: Vec<_> = cookie.into_iter().collect();
    if mobility::is_translated(payloads, path) {
        reply.push(error_notify(NotifyType::UNEXPECTED_NAT_DETECTED));
        return reply;
    }
    let nat = detect(cx, sa, payloads, path);
    if nat.is_some() {
        reply.extend(nat_payloads(cx, sa, path));
    }
    if up.life != Life::Live {
        return reply;
    }
    let acceptable = welcome && all_tunnels(cx, sa);
    let decides = up.decides(sa);
    if let Some(theirs) = mobility::additional(payloads) {
        if let Some(mobility) = &mut sa.mobility {
            mobility.theirs = theirs;
        }
        cx.unsaved.insert(sa.id);
        let there = from_here(cx, sa, path);
        let current = (sa.local.ip(), sa.remote.ip());
        if decides && (there.local.ip(), there.remote.ip()) != current && acceptable {
            // The peer sends from where it was not: it cannot move the SAs, and asks for it so.
            attempt(up, cx, sa, Trial { path: there, nat: None, sends: 0 }, Task::Update);
        }
    }
    if find_notify(payloads, NotifyType::UPDATE_SA_ADDRESSES).is_some() && !decides {
        if acceptable {
            let path = from_here(cx, sa, path);
            follow(up, cx, sa, now, path, nat);
        } else {
            cx.event(Event::MoveRefused { id: sa.id, to: path.remote });
            reply.push(error_notify(NotifyType::UNACCEPTABLE_ADDRESSES));
        }
    }
    reply
}

/// The way back to the peer, from an address that this host still has.
fn from_here(cx: &Context, sa: &IkeSa, path: Path) -> Path {
    let here = cx.addresses.is_empty() || cx.addresses.contains(&path.local.ip());
    if here { path } else { Path { local: sa.local, ..path } }
}

/// Selectors of transport mode are the addresses that would change.
fn all_tunnels(cx: &Context, sa: &IkeSa) -> bool {
    let children = cx.children.of(sa.id).into_iter().filter_map(|id| cx.children.get(id));
    children.map(|child| child.mode).all(|mode| mode == ipsec::sa::Mode::Tunnel)
}

/// The peer, which decides, is at the other end of `path`. If that is another address, that is checked first.
fn follow(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    path: Path,
    nat: Option<NatState>,
) {
    if path.remote.ip() == sa.remote.ip() {
        up.forget_paths();
        return relocate(cx, sa, now, path, nat);
    }
    attempt(up, cx, sa, Trial { path, nat, sends: 0 }, Task::Check);
}

/// Requests go by another path from here on, what is outstanding at once.
fn attempt(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, trial: Trial, task: Task) {
    if let Some(mobility) = &mut sa.mobility {
        mobility.trial = Some(trial);
    }
    cx.unsaved.insert(sa.id);
    up.forget_paths();
    up.push_first(task);
    resend(cx, sa);
}

impl Sent {
    /// The answer to UPDATE_SA_ADDRESSES.
    pub(crate) fn updated(
        self,
        up: &mut Established,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: &[Payload],
    ) -> Flow {
        if self.path != sa.path() {
            // There was another move meanwhile, and another request follows.
            return Flow::Stay;
        }
        if mobility::cookie2(payloads) != Some(&self.cookie[..]) {
            return Flow::End(Failure::Misbehaved(Misbehaviour::Cookie2));
        }
        if find_notify(payloads, NotifyType::UNACCEPTABLE_ADDRESSES).is_some() {
            return refused(up, cx, sa, now);
        }
        let nat = detect(cx, sa, payloads, self.path);
        relocate(cx, sa, now, self.path, nat);
        let seen = find_notify(payloads, NotifyType::NAT_DETECTION_DESTINATION_IP);
        let others = others(cx, sa);
        if let Some(mobility) = &mut sa.mobility {
            mobility.seen_as = seen.map(|notify| notify.data.clone());
            mobility.refused.clear();
            if mobility.told != others {
                up.push(Task::Addresses);
            }
        }
        Flow::Stay
    }

    /// The answer to a check.
    pub(crate) fn checked(
        self,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: &[Payload],
    ) -> Flow {
        if mobility::cookie2(payloads) != Some(&self.cookie[..]) {
            return Flow::End(Failure::Misbehaved(Misbehaviour::Cookie2));
        }
        let trial = sa.mobility.as_ref().and_then(|m| m.trial);
        if let Some(trial) = trial.filter(|trial| trial.path == self.path) {
            relocate(cx, sa, now, trial.path, trial.nat);
        }
        Flow::Stay
    }
}

/// The peer does not want to see this host there: from another of its addresses then, or not at all.
fn refused(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, now: Now) -> Flow {
    let here = sa.local.ip();
    let Some(mobility) = &mut sa.mobility else { return Flow::Stay };
    if mobility.trial.take().is_some() {
        return Flow::Stay;
    }
    mobility.refused.push(here);
    let untried = |a: &IpAddr| a.is_ipv4() == here.is_ipv4() && !mobility.refused.contains(a);
    let Some(next) = own(cx).find(untried) else {
        return Flow::End(Failure::PeerError(NotifyType::UNACCEPTABLE_ADDRESSES));
    };
    depart(cx, sa, now, next);
    up.push_first(Task::Update);
    Flow::Stay
}

/// The IKE SA and its child SAs go between these ends from here on.
fn relocate(cx: &mut Context, sa: &mut IkeSa, now: Now, path: Path, nat: Option<NatState>) {
    let before = (sa.local, sa.remote, sa.encap);
    let kept_alive = sa.nat.local_behind;
    if let Some(nat) = nat {
        sa.nat = nat;
        sa.encap = nat.any() || sa.udp;
    }
    (sa.local, sa.remote) = (path.local, path.remote);
    if let Some(mobility) = &mut sa.mobility {
        mobility.trial = None;
    }
    cx.unsaved.insert(sa.id);
    if sa.nat.local_behind != kept_alive {
        established::keep_mapping(cx, sa, now);
    }
    if before != (sa.local, sa.remote, sa.encap) {
        let (sas, outer) = established::move_children(cx, sa);
        cx.event(Event::PeerMoved { id: sa.id, remote: sa.remote, outer, sas });
    }
}

impl IkeSa {
    /// Where requests go.
    pub(crate) fn path(&self) -> Path {
        let current = Path { local: self.local, remote: self.remote };
        self.mobility.as_ref().and_then(|m| m.trial).map_or(current, |trial| trial.path)
    }

    /// Where a request that had no answer goes this time (RFC 4555 3.10). Nothing moves by that alone.
    pub(crate) fn detour(&mut self, cx: &Context, attempt: u32) -> Path {
        let live = self.up().is_some_and(|up| up.life == Life::Live);
        if let Some(mobility) = &mut self.mobility
            && let Some(trial) = &mut mobility.trial
        {
            trial.sends += 1;
            if trial.sends > TRIAL_SENDS {
                mobility.trial = None;
            }
            return self.path();
        }
        if !live || attempt < DETOUR_FROM {
            return self.path();
        }
        let paths = self.paths(cx);
        let turn = (attempt - DETOUR_FROM) as usize;
        paths.get(turn % paths.len().max(1)).copied().unwrap_or_else(|| self.path())
    }

    /// Every way between the two hosts that is known, the one in use last.
    fn paths(&self, cx: &Context) -> Vec<Path> {
        let Some(mobility) = &self.mobility else { return Vec::new() };
        let end = |address: IpAddr, now: SocketAddr| match address == now.ip() {
            true => now,
            false => SocketAddr::new(address, if now.port() == 500 { 500 } else { NATT_PORT }),
        };
        let theirs: Vec<_> = [self.remote.ip(), self.home.ip()]
            .into_iter()
            .chain(mobility.theirs.iter().copied())
            .collect();
        let mut paths = Vec::new();
        for remote in theirs {
            let family = |local: &IpAddr| local.is_ipv4() == remote.is_ipv4();
            for local in own(cx).filter(family) {
                let path = Path { local: end(local, self.local), remote: end(remote, self.remote) };
                let current = path.local == self.local && path.remote == self.remote;
                if !current && !paths.contains(&path) && paths.len() < MOST_PATHS {
                    paths.push(path);
                }
            }
        }
        paths.push(Path { local: self.local, remote: self.remote });
        paths
    }

    /// The peer has answered on another path than the one in use, which then leads nowhere: the end that decides
    /// moves there.
    pub(crate) fn reached_by(&mut self, cx: &mut Context, now: Now, path: Path, welcome: bool) {
        let current = Path { local: self.local, remote: self.remote };
        let decides = self.up().is_some_and(|up| up.life == Life::Live && up.decides(self));
        let tried = self.mobility.as_ref().is_some_and(|m| m.trial.is_some());
        if !decides || !welcome || tried || path == current || !self.paths(cx).contains(&path) {
            return;
        }
        relocate(cx, self, now, path, None);
        if let State::Up(up) = &mut self.state {
            up.push_first(Task::Update);
        }
    }
}

impl Established {
    /// Whether this host decides between which addresses the SAs go: it began the first of the IKE SAs (RFC 4555 2.1).
    pub(crate) fn decides(&self, sa: &IkeSa) -> bool {
        self.origin.as_ref().map_or(sa.initiator, |origin| origin.own)
    }

    /// There was a move: what an answer to an earlier question about a path would say is of no interest.
    fn forget_paths(&mut self) {
        if matches!(self.own, Some(Own::Update(_) | Own::Check(_))) {
            self.own = Some(Own::Forgotten(ExchangeType::INFORMATIONAL));
        }
    }
}
