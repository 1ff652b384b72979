//! The response to a request that an earlier process sent: what it asked for cannot be finished.

use wire::payload::Payload;
use wire::registry::ExchangeType;

use crate::child_sa::Stage;
use crate::context::Context;
use crate::error::{EndReason, Failure};
use crate::established::{Established, Flow, Task};
use crate::exchange::child::find_sa;
use crate::exchange::create_child::find_ke;
use crate::ike_sa::IkeSa;
use crate::record::Asks;

/// Where the peer has done what it was asked for, that is put right; a refusal needs nothing: timers
/// and demand ask again.
pub(crate) fn response(
    asks: Asks,
    up: &mut Established,
    cx: &mut Context,
    sa: &IkeSa,
    payloads: &[Payload],
) -> Flow {
    let done = match asks {
        Asks::Child { exchange: ExchangeType::IKE_FOLLOWUP_KE, .. } => find_ke(payloads).is_some(),
        _ => find_sa(payloads).is_some(),
    };
    if !done {
        return Flow::Stay;
    }
    match asks {
        Asks::Child { spi_in, replaces, .. } => {
            let old = replaces.and_then(|spi| cx.children.by_spi_in(spi));
            let old = old.and_then(|id| cx.children.get_mut(id)).filter(|c| c.ike == sa.id);
            // The peer took the old one for replaced: a third one serves for both. First it, then the
            // one whose keys are lost, then the old one: so the peer always sends through one that is here.
            let config = old.as_ref().map_or(&sa.config.child, |c| &c.config).clone();
            let old = old.map(|child| {
                child.stage = Stage::Closing;
                child.id
            });
            up.push(Task::NewChild(config));
            up.push(Task::DeleteSpi(spi_in));
            if let Some(child) = old {
                up.push(Task::DeleteChild(child, EndReason::Rekeyed));
            }
            Flow::Stay
        }
        Asks::RekeyIke => {
            let text = "this host was restarted while the IKE SA was being rekeyed";
            Flow::End(Failure::Local(text.into()))
        }
        Asks::Nothing(_) => Flow::Stay,
    }
}
