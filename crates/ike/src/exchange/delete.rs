//! INFORMATIONAL with Deletes (RFC 7296 1.4, 1.4.1, 2.25), and what else may stand in it.

use wire::esp::Spi;
use wire::payload::{Delete, Notify, Payload};
use wire::registry::{ExchangeType, NotifyType, ProtocolId};

use crate::child_sa::{self, Child, Stage};
use crate::collide::{self, Reply, Request};
use crate::context::{After, Context};
use crate::crash;
use crate::endpoint::Now;
use crate::error::{EndReason, Failure};
use crate::established::{self, Established, Flow, Life, Own};
use crate::event::ChildId;
use crate::exchange::child::delete_esp;
use crate::exchange::{addresses, liveness, rekey};
use crate::ike_sa::{IkeSa, error_notify, find_notify, plain_notify};
use crate::redirect;

/// This host's Delete of a child SA.
#[derive(Clone)]
pub(crate) struct Sent {
    child: Option<ChildId>,
    reason: EndReason,
}

/// Deletes a child SA.
pub(crate) fn start(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    child: ChildId,
    reason: EndReason,
) {
    let child = if reason == EndReason::Deleted { newest(cx, child) } else { child };
    let Some(c) = cx.children.get_mut(child) else { return };
    if c.stage == Stage::Lingering || c.ike != sa.id {
        return;
    }
    c.stage = Stage::Closing;
    let spi = c.spi_in;
    sa.send_request(cx, now, ExchangeType::INFORMATIONAL, &[delete_esp(vec![spi.0])]);
    up.own = Some(Own::Delete(Sent { child: Some(child), reason }));
}

/// Whoever wants a child SA deleted means what became of it by rekeys as well.
fn newest(cx: &Context, mut child: ChildId) -> ChildId {
    while let Some(next) = cx.children.get(child).and_then(|c| c.successor) {
        child = next;
    }
    child
}

/// Deletes what the peer may have, and this host has not; if ESP came to it, that is said as well (RFC 7296
/// 1.5, 2.21.4).
pub(crate) fn start_spi(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    spi: Spi,
    came: bool,
) {
    let told =
        Notify { data: spi.0.to_be_bytes().to_vec(), ..plain_notify(NotifyType::INVALID_SPI) };
    let mut payloads: Vec<_> = came.then_some(Payload::Notify(told)).into_iter().collect();
    payloads.push(delete_esp(vec![spi.0]));
    sa.send_request(cx, now, ExchangeType::INFORMATIONAL, &payloads);
    up.own = Some(Own::Delete(Sent { child: None, reason: EndReason::Deleted }));
}

/// Deletes the IKE SA, or says that the peer's proof was refused.
pub(crate) fn start_ike(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    notify: Option<NotifyType>,
) {
    let payload = match notify {
        Some(kind) => error_notify(kind),
        None => Payload::Delete(Delete { protocol: ProtocolId::IKE, spis: Vec::new() }),
    };
    sa.send_request(cx, now, ExchangeType::INFORMATIONAL, &[payload]);
    up.own = Some(Own::DeleteIke);
}

impl Sent {
    pub(crate) fn response(self, cx: &mut Context, now: Now) -> Flow {
        let Some(child) = self.child else { return Flow::Stay };
        match self.reason {
            EndReason::Rekeyed => child_sa::retire(cx, now.at, child, EndReason::Rekeyed),
            reason if cx.children.get(child).is_some_and(|c| c.stage == Stage::Closing) => {
                child_sa::down(cx, child, Failure::Ended(reason));
            }
            _ => {}
        }
        Flow::Stay
    }
}

/// An INFORMATIONAL request of the peer.
pub(crate) fn informational(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    payloads: &[Payload],
) -> Flow {
    let deletes = || {
        payloads.iter().filter_map(|p| match p {
            Payload::Delete(delete) => Some(delete),
            _ => None,
        })
    };
    if let Some(token) = crash::find(payloads) {
        up.token = Some(token);
    }
    if deletes_ike(payloads) {
        let rival = rekey::rival_successor(up);
        // What serves instead is sent through before the peer hears that it may take the old one away.
        let reason = match end_reason(up) {
            EndReason::PeerDeleted if rival.is_none() && outlived(cx, sa) => {
                EndReason::Reauthenticated
            }
            reason => reason,
        };
        sa.respond(cx, Vec::new());
        if let Some(new) = rival {
            // The peer's own rekey is through and it knows nothing of this host's, or has won (RFC 7296 2.25.2).
            established::replaced(up, cx, sa, now, new, false);
            cx.after.push_back(After::Ended(sa.id));
            return Flow::Stay;
        }
        return Flow::End(Failure::Ended(reason));
    }
    if find_notify(payloads, NotifyType::AUTHENTICATION_FAILED).is_some() {
        sa.respond(cx, Vec::new());
        return Flow::End(Failure::RefusedByPeer);
    }
    redirect::informed(up, cx, sa, payloads);
    let mut gone = Vec::new();
    for delete in deletes().filter(|d| d.protocol == ProtocolId::ESP) {
        for spi in &delete.spis {
            gone.extend(child_deleted(up, cx, sa, now, Spi(*spi)));
        }
    }
    let mut reply = if gone.is_empty() { Vec::new() } else { vec![delete_esp(gone)] };
    reply.extend(liveness::reply(cx, sa, payloads));
    reply.extend(addresses::request(up, cx, sa, now, payloads));
    sa.respond(cx, reply);
    Flow::Stay
}

/// Whether a message deletes the IKE SA.
pub(crate) fn deletes_ike(payloads: &[Payload]) -> bool {
    payloads.iter().any(|p| matches!(p, Payload::Delete(d) if d.protocol == ProtocolId::IKE))
}

/// Whether another IKE SA with the peer has a child SA for each of this one: then the peer authenticated anew
/// and sends through those (RFC 7296 2.8.3). They serve here as well from now on.
fn outlived(cx: &mut Context, sa: &IkeSa) -> bool {
    let all = cx.ikes_of(sa.home.ip());
    let of = |ike| cx.children.of(ike).into_iter().filter_map(|id| cx.children.get(id));
    let others: Vec<_> = all.filter(|id| *id != sa.id).flat_map(of).filter(|c| c.live()).collect();
    let served = |old: &Child| others.iter().any(|new| new.config.reqid == old.config.reqid);
    let mut old = of(sa.id).filter(|c| c.live()).peekable();
    if old.peek().is_none() || !old.all(served) {
        return false;
    }
    for id in others.iter().map(|c| c.id).collect::<Vec<_>>() {
        child_sa::complete(cx, id);
    }
    true
}

fn end_reason(up: &Established) -> EndReason {
    match up.life {
        _ if up.redundant || up.heir_of.is_some() => EndReason::Redundant,
        Life::Replaced(_) => EndReason::Rekeyed,
        Life::Closing => EndReason::Deleted,
        Life::Live => EndReason::PeerDeleted,
    }
}

/// The peer deletes a child SA; gives this host's SPI for the answer.
fn child_deleted(
    up: &mut Established,
    cx: &mut Context,
    sa: &IkeSa,
    now: Now,
    spi: Spi,
) -> Option<u32> {
    let child = cx.children.by_spi_out(up.heir(sa), spi);
    let doing = up.child_doing(cx, child);
    let reply = collide::reply(Request::DeleteChild(doing), up.ike_doing(), up.child_busy());
    if child.is_none() {
        up.note_deleted(spi);
    }
    let child = child?;
    let (spi_in, successor, redundant) = {
        let c = cx.children.get(child)?;
        (c.spi_in.0, c.successor, c.redundant)
    };
    if let Some(successor) = successor {
        child_sa::complete(cx, successor);
        child_sa::retire(cx, now.at, child, EndReason::Rekeyed);
    } else if doing != collide::ChildDoing::Closing {
        let reason = if redundant { EndReason::Redundant } else { EndReason::PeerDeleted };
        child_sa::down(cx, child, Failure::Ended(reason));
    }
    (reply != Reply::WithoutDelete).then_some(spi_in)
}
