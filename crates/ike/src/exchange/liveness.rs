//! Liveness (RFC 7296 1.4, 2.4): an INFORMATIONAL exchange without anything to do.
//!
//! Between two Warrens it also says which ESP SAs each end holds. A living IKE SA says nothing of its
//! child SAs: an end may have lost one, or ESP may not pass where IKE does. The list stands in a status
//! notify of the private range, which others ignore (RFC 7296 3.10.1); whoever answers without one is
//! not told again.

use ipsec::Instant;
use wire::bytes::{Put, Reader};
use wire::esp::Spi;
use wire::payload::{Notify, Payload};
use wire::registry::{ExchangeType, NotifyType, ProtocolId};

use crate::child_sa::{self, Stage};
use crate::context::Context;
use crate::crash;
use crate::endpoint::Now;
use crate::error::{EndReason, Failure};
use crate::established::{Established, Own, Task};
use crate::event::{ChildId, Event};
use crate::exchange::addresses;
use crate::ike_sa::{IkeSa, find_notify};
use crate::timer::Timer;

/// The sender's inbound ESP SAs: for each its SPI (4 bytes) and how many packets came through it (8).
/// Of the range for private use (RFC 7296 3.10.1: 40960 to 65535).
const HELD: NotifyType = NotifyType(47_387);
/// SAs that are told, at most.
const MOST_TOLD: usize = 64;
/// A child SA that is younger may not be complete at the peer yet, whose request may have got lost.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(5);
/// Liveness checks that one host begins by itself within a second, at most; the others wait their turn.
const MOST_IN_A_SECOND: u32 = 64;

/// How many checks were begun, or other answers to anybody given, in the current second.
#[derive(Clone, Default)]
pub(crate) struct Pace {
    since: Instant,
    begun: u32,
}

impl Pace {
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= std::time::Duration::from_secs(1) {
            *self = Self { since: now, begun: 0 };
        }
        self.begun += 1;
        self.begun <= MOST_IN_A_SECOND
    }
}

/// Asks for a sign of life.
pub(crate) fn start(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, now: Now) {
    let held = up.peer_tells.then(|| held(cx, sa));
    let token = if std::mem::take(&mut up.token_due) { crash::payload(cx, sa) } else { None };
    let mut payloads: Vec<_> = held.into_iter().chain(token).collect();
    payloads.extend(addresses::with_probe(up, cx, sa));
    sa.send_request(cx, now, ExchangeType::INFORMATIONAL, &payloads);
    up.own = Some(Own::Probe(now.at));
}

/// The liveness timer fired: asks if the peer was silent for the whole delay and no request is out anyway.
pub(crate) fn due(up: &mut Established, cx: &mut Context, sa: &IkeSa, now: Now) {
    let Some(delay) = sa.config.dpd_delay else { return };
    let next = up.last_alive + delay;
    if next > now.at {
        return cx.timers.set(sa.id, Timer::Liveness, next);
    }
    if sa.window.outstanding().is_none() {
        if !cx.pace.allows(now.at) {
            let wait = std::time::Duration::from_millis(500 + cx.rng.below(1000));
            return cx.timers.set(sa.id, Timer::Liveness, now.at + wait);
        }
        up.push(Task::Probe);
    }
    // ±10 %: hosts that lost sight of each other at one moment part with time.
    let percent = 90 + cx.rng.below(21) as u32;
    cx.timers.set(sa.id, Timer::Liveness, now.at + delay * percent / 100);
}

/// A keepalive holds a mapping, and cannot show the peer a new one: anybody could have sent it. If nothing came from the
/// peer of late, it may be sending to where this host is no more, and is asked in a message that it verifies.
pub(crate) fn behind_nat(up: &mut Established, cx: &mut Context, sa: &IkeSa, now: Now) {
    // The answer to the last question came shortly after the last keepalive: half the time is less than that is ago.
    let silent = up.last_alive + sa.config.common.keepalive / 2 <= now.at;
    let asks = sa.config.dpd_delay.is_some() && sa.window.outstanding().is_none();
    if silent && asks && cx.pace.allows(now.at) {
        up.push(Task::Probe);
    }
}

/// What belongs into the answer to such a request: the same of this host, if the peer told.
pub(crate) fn reply(cx: &Context, sa: &IkeSa, payloads: &[Payload]) -> Option<Payload> {
    find_notify(payloads, HELD).map(|_| held(cx, sa))
}

/// The answer to a request of `asked`: a child SA that the peer does not hold is gone.
pub(crate) fn answered(
    up: &mut Established,
    cx: &mut Context,
    sa: &IkeSa,
    asked: Instant,
    payloads: &[Payload],
) {
    let Some(told) = find_notify(payloads, HELD).and_then(read) else {
        up.peer_tells = false;
        return;
    };
    let mut received = Vec::new();
    for id in cx.children.of(sa.id) {
        let Some(child) = cx.children.get(id) else { continue };
        let settled = child.stage == Stage::Up
            && child.successor.is_none()
            && child.since + SETTLED <= asked
            && !child.redundant;
        if !settled {
            continue;
        }
        match told.iter().find(|(spi, _)| *spi == child.spi_out) {
            Some((_, packets)) => received.push((id, *packets)),
            None if told.len() >= MOST_TOLD => {}
            None => child_sa::down(cx, id, Failure::Ended(EndReason::PeerLost)),
        }
    }
    if !received.is_empty() {
        cx.event(Event::Compared { id: sa.id, received });
    }
}

/// The inbound SAs that this host holds for the peer, of whichever IKE SA.
fn held(cx: &Context, sa: &IkeSa) -> Payload {
    let children = cx.ikes_of(sa.home.ip()).flat_map(|ike| cx.children.of(ike));
    let mut data = Vec::new();
    for child in children.filter_map(|id: ChildId| cx.children.get(id)).take(MOST_TOLD) {
        data.put_u32(child.spi_in.0);
        data.put_u64(child.received);
    }
    Payload::Notify(Notify { protocol: ProtocolId::NONE, spi: Vec::new(), kind: HELD, data })
}

fn read(notify: &Notify) -> Option<Vec<(Spi, u64)>> {
    let mut reader = Reader::new(&notify.data, "list of SAs");
    let mut told = Vec::new();
    while !reader.is_empty() && told.len() < MOST_TOLD {
        told.push((Spi(reader.u32().ok()?), reader.u64().ok()?));
    }
    Some(told)
}
