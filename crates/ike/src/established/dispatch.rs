//! Where messages, finished jobs and timers of an established SA go, and how it ends.

use super::*;
use crate::ike_sa::error_notify;

/// A request of the peer, verified and fresh.
pub(crate) fn request(
    mut up: Box<Established>,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    exchange: ExchangeType,
    payloads: Vec<Payload>,
) -> State {
    up.last_alive = now.at;
    up.confirmed = true;
    cx.event(crate::event::Event::Alive { id: sa.id, rtt: None });
    if let Some(old) = up.heir_of
        && !delete::deletes_ike(&payloads)
    {
        // The peer uses it: of two rekeys at once, this is the one that stays.
        for child in cx.children.of(old) {
            child_sa::hand_over(cx, child, sa.id);
        }
        cx.after.push_back(After::Adopt { old, new: sa.id });
    }
    complete_new_children(cx, up.heir(sa));
    let flow = if exchange == ExchangeType::INFORMATIONAL {
        delete::informational(&mut up, cx, sa, now, &payloads)
    } else if exchange == ExchangeType::IKE_FOLLOWUP_KE {
        followup::request(&mut up, cx, sa, &payloads)
    } else if up.following_up() {
        sa.respond(cx, vec![error_notify(NotifyType::TEMPORARY_FAILURE)]);
        Flow::Stay
    } else {
        up.yield_unsent();
        // With a new request the peer gives up what it has not finished.
        followup::forget(&mut up, cx, sa);
        match find_sa(&payloads).and_then(|p| p.first()).map(|p| p.protocol) {
            Some(ProtocolId::IKE) => rekey::request(&mut up, cx, sa, payloads),
            _ => create_child::request(&mut up, cx, sa, now, payloads),
        }
    };
    go_on(up, cx, sa, now, flow)
}

/// The response to this host's request, verified.
pub(crate) fn response(
    mut up: Box<Established>,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    payloads: Vec<Payload>,
) -> State {
    up.confirmed = true;
    let flow = match up.own.take() {
        Some(Own::Create(sent)) => sent.response(&mut up, cx, sa, now, payloads),
        Some(Own::Rekey(sent)) => sent.response(&mut up, cx, sa, now, payloads),
        Some(Own::Followup(chain)) => chain.response(&mut up, cx, sa, now, &payloads),
        Some(Own::Delete(sent)) => sent.response(cx, now),
        Some(Own::DeleteIke) => Flow::End(Failure::Ended(EndReason::Deleted)),
        Some(Own::Update(sent)) => sent.updated(&mut up, cx, sa, now, &payloads),
        Some(Own::Check(sent)) => sent.checked(cx, sa, now, &payloads),
        Some(Own::Probe(asked)) => {
            addresses::probed(&mut up, sa, &payloads);
            liveness::answered(&mut up, cx, sa, asked, &payloads);
            Flow::Stay
        }
        Some(Own::Recovered(asks)) => recovered::response(asks, &mut up, cx, sa, &payloads),
        _ => Flow::Stay,
    };
    go_on(up, cx, sa, now, flow)
}

/// A job of this SA is done.
pub(crate) fn job_done(
    mut up: Box<Established>,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    job: JobId,
    done: Done,
) -> State {
    let theirs = match &up.theirs {
        Some(Theirs::Create(t)) => t.job == job,
        Some(Theirs::Rekey(t)) => t.job == job,
        Some(Theirs::Followup(t)) => t.job == Some(job),
        None => false,
    };
    let flow = if theirs {
        match up.theirs.take() {
            Some(Theirs::Create(t)) => t.done(&mut up, cx, sa, now, done),
            Some(Theirs::Followup(t)) => t.done(&mut up, cx, sa, now, done),
            Some(Theirs::Rekey(t)) => t.done(&mut up, cx, sa, now, done),
            None => Flow::Stay,
        }
    } else {
        own_job_done(&mut up, cx, sa, now, job, done)
    };
    go_on(up, cx, sa, now, flow)
}

fn own_job_done(
    up: &mut Established,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    job: JobId,
    done: Done,
) -> Flow {
    match up.own.take() {
        Some(Own::CreateKeying(k)) if k.job == job => k.done(up, cx, sa, now, done),
        Some(Own::CreateAgreeing(a)) if a.job == job => a.done(up, cx, sa, now, done),
        Some(Own::RekeyKeying(k)) if k.job == job => k.done(up, cx, sa, now, done),
        Some(Own::RekeyAgreeing(a)) if a.job == job => a.done(up, cx, sa, now, done),
        Some(Own::Followup(c)) if c.job() == Some(job) => c.done(up, cx, sa, now, done),
        other => {
            up.own = other;
            Flow::Stay
        }
    }
}

fn go_on(up: Box<Established>, cx: &mut Context, sa: &mut IkeSa, now: Now, flow: Flow) -> State {
    match flow {
        Flow::Stay => proceed(up, cx, sa, now),
        Flow::End(reason) => sa.end(cx, now, reason),
        Flow::Close(reason) => close(up, cx, sa, now, reason),
    }
}

/// Starts the next task if the window is free.
pub(crate) fn proceed(
    mut up: Box<Established>,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
) -> State {
    if sa.window.exhausted() {
        return sa.end(cx, now, Failure::Local("the message ids are used up".into()));
    }
    while up.own.is_none() && sa.window.next_id().is_some() {
        // A request of the peer in the making may make the task void; the tasks of a replaced SA are its heir's.
        if (up.theirs.is_some() && up.life == Life::Live) || matches!(up.life, Life::Replaced(_)) {
            break;
        }
        let Some(task) = up.queue.pop_front() else { break };
        begin(&mut up, cx, sa, now, task);
    }
    if up.queue.is_empty() {
        // Of a thousand idle SAs none keeps room for tasks.
        up.queue = VecDeque::new();
    }
    State::Up(up)
}

fn begin(up: &mut Established, cx: &mut Context, sa: &mut IkeSa, now: Now, task: Task) {
    match task {
        Task::NewChild(config) if up.life == Life::Live => {
            create_child::start(up, cx, sa, now, config, None)
        }
        Task::RekeyChild(child) if up.life == Life::Live => {
            create_child::start_rekey(up, cx, sa, now, child)
        }
        Task::RekeyIke if up.life == Life::Live => rekey::start(up, cx, sa),
        Task::DeleteChild(child, reason) => delete::start(up, cx, sa, now, child, reason),
        Task::DeleteSpi(spi) => delete::start_spi(up, cx, sa, now, spi, false),
        Task::UnknownSpi(spi) => delete::start_spi(up, cx, sa, now, spi, true),
        Task::DeleteIke(notify) => delete::start_ike(up, cx, sa, now, notify),
        Task::Probe => liveness::start(up, cx, sa, now),
        Task::Update => addresses::start_update(up, cx, sa, now),
        Task::Check => addresses::start_check(up, cx, sa, now),
        Task::Addresses => addresses::start_addresses(up, cx, sa, now),
        // Without one of its own it cannot stand in for what carries packets.
        Task::Supersede if cx.children.of(sa.id).is_empty() => {}
        Task::Supersede => cx.after.push_back(After::Supersede(sa.id)),
        Task::NewChild(_) | Task::RekeyChild(_) | Task::RekeyIke => {}
    }
}

/// Deletes the SA; its children go at once.
pub(crate) fn close(
    up: Box<Established>,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    reason: EndReason,
) -> State {
    close_with(up, cx, sa, now, reason, None)
}

/// As [`close`]; with `notify` the peer's proof is refused instead (RFC 7296 2.21.2).
pub(crate) fn close_with(
    mut up: Box<Established>,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    reason: EndReason,
    notify: Option<NotifyType>,
) -> State {
    if up.life == Life::Closing {
        return State::Up(up);
    }
    let failure = Failure::Ended(reason);
    for child in cx.children.of(sa.id) {
        child_goes(cx, now, child, &failure);
    }
    sa.report_down(cx, failure);
    cx.timers.cancel_all(sa.id);
    sa.arm_retransmit(cx);
    up.life = Life::Closing;
    up.later.clear();
    up.queue.clear();
    up.queue.push_back(Task::DeleteIke(notify));
    up.theirs = None;
    up.own = up.own_exchange().map(Own::Forgotten);
    proceed(up, cx, sa, now)
}

/// The SA is replaced by `new`: it only waits for its Delete, from the peer if not `delete_here`.
pub(crate) fn replaced(
    up: &mut Established,
    cx: &mut Context,
    sa: &IkeSa,
    now: Now,
    new: IkeSaId,
    delete_here: bool,
) {
    if up.life != Life::Live {
        return;
    }
    up.life = Life::Replaced(new);
    for timer in
        [Timer::RekeyIke, Timer::ExpireIke, Timer::Liveness, Timer::Keepalive, Timer::Retry]
    {
        cx.timers.cancel(sa.id, timer);
    }
    cx.after.push_back(After::Inherit { old: sa.id, new });
    if delete_here {
        cx.after.push_back(After::CloseReplaced(sa.id));
    } else {
        cx.timers.set(sa.id, Timer::Linger, now.at + REPLACED);
    }
}

/// A child SA of an IKE SA that ends.
pub(crate) fn child_goes(cx: &mut Context, now: Now, child: ChildId, reason: &Failure) {
    let graceful = matches!(
        reason,
        Failure::Ended(EndReason::Redundant | EndReason::Rekeyed | EndReason::Reauthenticated)
    );
    let lingering = cx.children.get(child).is_some_and(|c| c.stage == Stage::Lingering);
    match reason {
        Failure::Ended(end) if graceful => child_sa::retire(cx, now.at, child, *end),
        // Its own timer ends it: packets may be under way until then.
        Failure::Ended(_) if lingering => {}
        _ if lingering => child_sa::remove_retired(cx, child),
        _ => child_sa::down(cx, child, reason.clone()),
    }
}

/// The child SAs go where their IKE SA does: the old names of their SAs, and where they are now.
pub(crate) fn move_children(cx: &mut Context, sa: &IkeSa) -> (Vec<SaKey>, Outer) {
    let outer = sa.outer();
    let mut keys = Vec::new();
    for id in cx.children.of(sa.id) {
        if let Some(child) = cx.children.get_mut(id) {
            keys.extend([child.inbound_key(), child.outbound_key()]);
            child.relocate(outer);
        }
    }
    (keys, outer)
}

/// This host is behind a NAT, or is not any more.
pub(crate) fn keep_mapping(cx: &mut Context, sa: &IkeSa, now: Now) {
    match sa.nat.local_behind {
        true => cx.timers.set(sa.id, Timer::Keepalive, now.at + sa.config.common.keepalive),
        false => cx.timers.cancel(sa.id, Timer::Keepalive),
    }
}

/// Installs what is answered: the inbound SA now, the outbound one once the peer is seen to be ready.
pub(crate) fn install_answer(
    cx: &mut Context,
    sa: &IkeSa,
    now: Now,
    answer: Answer,
    keying: Keying<'_>,
) -> Result<Answered, Refusal> {
    let refuse = |reason| Refusal { notify: NotifyType::NO_PROPOSAL_CHOSEN, reason };
    let pair = child::pair(cx, sa, &answer.agreed, keying).map_err(refuse)?;
    let (sa_payload, tail) = (answer.sa_payload(), answer.tail());
    let wait = if answer.agreed.replaces.is_some() { OUTBOUND_REKEYED } else { OUTBOUND_NEW };
    let child = child_sa::install(cx, now.at, (sa.id, sa.home.ip()), answer.agreed, pair)
        .ok_or_else(|| refuse(Failure::Local("an SPI was taken meanwhile".into())))?;
    cx.timers.set(sa.id, Timer::Outbound(child), now.at + wait);
    Ok(Answered { child, sa_payload, tail })
}

/// A request after the one that made a child shows that the peer has it; a rekeyed one waits for the old one's Delete.
fn complete_new_children(cx: &mut Context, ike: IkeSaId) {
    for id in cx.children.of(ike) {
        if cx.children.get(id).is_some_and(|c| c.stage == Stage::Inbound && c.replaces.is_none()) {
            child_sa::complete(cx, id);
        }
    }
}

/// A timer of an established SA fired.
pub(crate) fn timer(
    mut up: Box<Established>,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    timer: Timer,
) -> State {
    match timer {
        Timer::RekeyIke => up.push(Task::RekeyIke),
        Timer::RekeyChild(child) => up.push(Task::RekeyChild(child)),
        Timer::ExpireIke => return close(up, cx, sa, now, EndReason::Expired),
        Timer::ExpireChild(child) => return expire_child(up, cx, sa, now, child),
        Timer::Liveness => liveness::due(&mut up, cx, sa, now),
        Timer::Keepalive => {
            cx.keepalive(sa.local, sa.remote);
            liveness::behind_nat(&mut up, cx, sa, now);
            cx.timers.set(sa.id, Timer::Keepalive, now.at + sa.config.common.keepalive);
        }
        Timer::Retry => {
            for task in std::mem::take(&mut up.later) {
                up.push(task);
            }
        }
        Timer::Followup => followup::forget(&mut up, cx, sa),
        Timer::Linger => return close(up, cx, sa, now, EndReason::Rekeyed),
        Timer::Redundant => return close(up, cx, sa, now, EndReason::Redundant),
        Timer::Outbound(child) => outbound_due(&mut up, cx, sa, now, child),
        Timer::RemoveChild(child) => child_sa::remove_retired(cx, child),
        Timer::Retransmit | Timer::HalfOpen | Timer::Fragments => {}
    }
    proceed(up, cx, sa, now)
}

fn outbound_due(up: &mut Established, cx: &mut Context, sa: &IkeSa, now: Now, child: ChildId) {
    if up.redundant {
        // The peer may not have it any more: it serves only if the one that is better ends.
        return cx.timers.set(sa.id, Timer::Outbound(child), now.at + OUTBOUND_NEW);
    }
    let Some(c) = cx.children.get(child) else { return };
    if c.redundant {
        up.push(Task::DeleteChild(child, EndReason::Redundant));
    } else if !up.confirmed && (now.at.since(c.since) < OUTBOUND_UNSURE || older_serves(cx, sa, c))
    {
        // The peer may not have read the answer yet: what it says to this shows that it has.
        up.push(Task::Probe);
        cx.timers.set(sa.id, Timer::Outbound(child), now.at + OUTBOUND_ASKED);
    } else {
        child_sa::complete(cx, child);
    }
}

/// Whether the peer authenticates anew, and the child SA from before still carries what `new` is for (RFC 7296 2.8.3).
fn older_serves(cx: &Context, sa: &IkeSa, new: &Child) -> bool {
    let ikes = cx.ikes_of(sa.home.ip()).filter(|ike| *ike != sa.id);
    let children = ikes.flat_map(|ike| cx.children.of(ike));
    children.filter_map(|id| cx.children.get(id)).any(|old| {
        old.live()
            && old.stage == Stage::Up
            && old.config.reqid == new.config.reqid
            && old.since < sa.began
    })
}

fn expire_child(
    mut up: Box<Established>,
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    child: ChildId,
) -> State {
    if let Some(successor) = cx.children.get(child).and_then(|c| c.successor) {
        child_sa::complete(cx, successor);
    }
    if let Some(spi) = cx.children.get(child).map(|c| c.spi_in) {
        child_sa::down(cx, child, Failure::Ended(EndReason::Expired));
        up.push(Task::DeleteSpi(spi));
    }
    proceed(up, cx, sa, now)
}
