//! Liveness (RFC 7296 1.4, 2.4): an empty INFORMATIONAL exchange.

use wire::registry::ExchangeType;

use crate::context::Context;
use crate::endpoint::Now;
use crate::established::{Established, Own, Task};
use crate::ike_sa::IkeSa;
use crate::timer::Timer;

/// Asks for a sign of life.
pub(crate) fn start(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, now: Now) {
    sa.send_request(cx, now, ExchangeType::INFORMATIONAL, &[]);
    up.own = Some(Own::Probe);
}

/// The liveness timer fired: asks if the peer was silent for the whole delay and no request is out anyway.
pub(crate) fn due(up: &mut Established, cx: &mut Context, sa: &IkeSa, now: Now) {
    let Some(delay) = sa.config.dpd_delay else { return };
    let next = up.last_alive + delay;
    if next > now.at {
        return cx.timers.set(sa.id, Timer::Liveness, next);
    }
    if sa.window.outstanding().is_none() {
        up.push(Task::Probe);
    }
    cx.timers.set(sa.id, Timer::Liveness, now.at + delay);
}
