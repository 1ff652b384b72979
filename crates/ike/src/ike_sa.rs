//! One IKE SA: its addresses, keys and window, and the state that the next message consumes.

mod receive;

use std::net::SocketAddr;
use std::sync::Arc;

use ipsec::Instant;
use ipsec::sa::Outer;
use wire::message::{Flags, Header, IkeSpi, ParseError, SkFrame, encode_payloads};
use wire::payload::{Notify, Payload};
use wire::registry::{ExchangeType, NotifyType, PayloadType, ProtocolId};

use crate::config::PeerConfig;
use crate::context::{Context, NATT_PORT};
use crate::endpoint::Now;
use crate::error::{EndReason, Failure, Misbehaviour};
use crate::established::{self, Established, Task};
use crate::event::{Event, IkeSaId};
use crate::exchange::child::encapsulation;
use crate::exchange::init::HALF_OPEN;
use crate::exchange::{auth, init, intermediate};
use crate::fragment::{self, Fragment, Gather};
use crate::job::{Done, JobId};
use crate::keys::IkeKeys;
use crate::mobility::{Mobility, Path};
use crate::nat::NatState;
use crate::negotiate::IkeSuite;
use crate::sk::{self, SkCiphers, SkError};
use crate::timer::Timer;
use crate::window::{Due, Inbound, Window};

/// A closed SA answers repeats of the peer's last request for so long.
const LINGER: std::time::Duration = std::time::Duration::from_secs(30);

/// One IKE SA.
#[derive(Clone)]
pub(crate) struct IkeSa {
    pub(crate) id: IkeSaId,
    pub(crate) config: Arc<PeerConfig>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The peer's address and port at the beginning; the tables know it by that.
    pub(crate) home: SocketAddr,
    /// When this host began it, or the peer's first message came.
    pub(crate) began: Instant,
    /// Whether this host is its original initiator.
    pub(crate) initiator: bool,
    pub(crate) spi_i: IkeSpi,
    pub(crate) spi_r: IkeSpi,
    pub(crate) nat: NatState,
    /// Child SAs go in UDP.
    pub(crate) encap: bool,
    /// They would without a NAT as well.
    pub(crate) udp: bool,
    /// Both ends can move (RFC 4555).
    pub(crate) mobility: Option<Box<Mobility>>,
    /// Its end is, or was, nobody's business any more: already reported, or never reported as up.
    pub(crate) silent: bool,
    pub(crate) window: Window,
    /// Both can gather fragments (RFC 7383 2.3).
    pub(crate) fragmentation: bool,
    pub(crate) secured: Option<Box<Secured>>,
    /// Of IKE_INTERMEDIATE exchanges, until both are authenticated.
    pub(crate) trail: Option<Box<intermediate::Trail>>,
    pub(crate) state: State,
    reply_to: Option<Box<ReplyTo>>,
    gather_request: Gather,
    gather_response: Gather,
}

/// Algorithms and keys, once there are any. Ciphers are keyed for each message: an idle SA has none, which
/// halves its size, and messages are few.
#[derive(Clone)]
pub(crate) struct Secured {
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    pub(crate) sealed: u64,
}

/// What an IKE SA waits for. Each variant's struct holds what this wait needs and no more.
#[derive(Clone)]
pub(crate) enum State {
    /// Initiator: the job that makes the private value.
    InitKey(Box<init::KeyWait>),
    /// Initiator: the IKE_SA_INIT response.
    InitSent(Box<init::Sent>),
    /// Initiator: the job that agrees.
    InitAgree(Box<init::Agreeing>),
    /// Responder: the job that makes the private value and agrees.
    InitAnswer(Box<init::Answering>),
    /// Initiator: the job that makes the private value of an additional key exchange.
    IntermediateKey(Box<intermediate::KeyWait>),
    /// Initiator: the IKE_INTERMEDIATE response.
    IntermediateSent(Box<intermediate::Sent>),
    /// Initiator: the job that agrees.
    IntermediateAgree(Box<intermediate::Agreeing>),
    /// Responder: the IKE_INTERMEDIATE request.
    IntermediateAwait(Box<intermediate::Steps>),
    /// Responder: the job that makes the private value and agrees.
    IntermediateAnswer(Box<intermediate::Answering>),
    /// Initiator: the job that signs.
    AuthSign(Box<auth::Signing>),
    /// Initiator: the IKE_AUTH response.
    AuthSent(Box<auth::Sent>),
    /// Initiator: the job that verifies.
    AuthVerify(Box<auth::Verifying>),
    /// Responder: the IKE_AUTH request.
    AuthAwait(Box<auth::Handshake>),
    /// Responder: the job that verifies.
    AuthCheck(Box<auth::Checking>),
    /// Responder: the job that signs.
    AuthAnswer(Box<auth::Answering>),
    /// Both authenticated.
    Up(Box<Established>),
    /// Closed; answers repeats.
    Lingering,
    /// Over: to be taken out of the tables.
    Gone,
}

/// A datagram with its header read.
#[derive(Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) header: Header,
    /// The peer may be where it comes from.
    pub(crate) welcome: bool,
    /// The IKE message, without non-ESP marker.
    pub(crate) bytes: &'a [u8],
}

/// Where and as what the response in the making goes.
#[derive(Clone, Copy)]
struct ReplyTo {
    message_id: u32,
    exchange: ExchangeType,
    local: SocketAddr,
    remote: SocketAddr,
    welcome: bool,
}

/// Who an IKE SA is between, and by which SPIs.
pub(crate) struct Ends {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) initiator: bool,
    pub(crate) spi_i: IkeSpi,
    pub(crate) spi_r: IkeSpi,
}

impl IkeSa {
    pub(crate) fn new(id: IkeSaId, config: Arc<PeerConfig>, ends: Ends, state: State) -> Self {
        Self {
            id,
            config,
            local: ends.local,
            remote: ends.remote,
            home: ends.remote,
            began: Instant::ZERO,
            initiator: ends.initiator,
            spi_i: ends.spi_i,
            spi_r: ends.spi_r,
            nat: NatState::default(),
            encap: false,
            udp: false,
            mobility: None,
            silent: false,
            window: Window::new(),
            fragmentation: false,
            secured: None,
            trail: None,
            state,
            reply_to: None,
            gather_request: Gather::default(),
            gather_response: Gather::default(),
        }
    }

    /// What changes whenever its record does, but for its child SAs.
    pub(crate) fn mark(&self) -> impl PartialEq + use<> {
        let life = self.up().map(|up| (up.live(), up.replaced()));
        (life, self.window.mark(), self.local, self.remote)
    }

    /// Between which addresses its child SAs go.
    pub(crate) fn outer(&self) -> Outer {
        let encap = self.encap.then(|| encapsulation(self.local, self.remote));
        Outer { local: self.local.ip(), remote: self.remote.ip(), encap }
    }

    /// How the request in hand came, and whether the peer may be there.
    pub(crate) fn asked_from(&self) -> Option<(Path, bool)> {
        self.reply_to.as_ref().map(|to| (Path { local: to.local, remote: to.remote }, to.welcome))
    }

    /// The SPI by which the peer's messages find this SA.
    pub(crate) fn local_spi(&self) -> IkeSpi {
        if self.initiator { self.spi_i } else { self.spi_r }
    }

    pub(crate) fn peer_spi(&self) -> IkeSpi {
        if self.initiator { self.spi_r } else { self.spi_i }
    }

    /// Gives the SA its keys.
    pub(crate) fn secure(
        &mut self,
        cx: &Context,
        suite: IkeSuite,
        keys: IkeKeys,
    ) -> Result<(), Failure> {
        SkCiphers::new(&*cx.provider, &suite, &keys, self.initiator)
            .map_err(|e| Failure::Local(e.to_string()))?;
        self.secured = Some(Box::new(Secured { suite, keys, sealed: 0 }));
        Ok(())
    }

    /// A first request again: the stored response, or patience.
    pub(crate) fn repeat_init(
        &self,
        cx: &mut Context,
        arrived: Arrived<'_>,
    ) -> Result<(), Misbehaviour> {
        let handshake = match &self.state {
            State::InitAnswer(_) | State::IntermediateAnswer(_) => return Ok(()),
            State::AuthAwait(handshake) => handshake,
            State::IntermediateAwait(steps) => &steps.handshake,
            _ => return Err(Misbehaviour::OutOfOrder),
        };
        if handshake.request != arrived.bytes {
            return Err(Misbehaviour::OutOfOrder);
        }
        cx.transmit(arrived.local, arrived.remote, &handshake.response);
        Ok(())
    }

    /// What goes into the AUTH payloads of IKE_INTERMEDIATE exchanges.
    pub(crate) fn trail_mut(&mut self) -> &mut intermediate::Trail {
        self.trail.get_or_insert_default()
    }

    /// Notes an IKE_INTERMEDIATE message for IKE_AUTH, under the keys that protect it.
    fn note(&mut self, cx: &Context, message: intermediate::Whole<'_>) {
        if message.header.exchange == ExchangeType::IKE_INTERMEDIATE
            && let Some(secured) = &self.secured
        {
            self.trail.get_or_insert_default().note(&*cx.provider, secured, message);
        }
    }

    /// A timer of this SA fired.
    pub(crate) fn timer(&mut self, cx: &mut Context, now: Now, timer: Timer) {
        match timer {
            Timer::Retransmit => return self.retransmit(cx, now),
            Timer::Fragments => return self.gather_request.clear(),
            _ => {}
        }
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Up(up) => self.state = established::timer(up, cx, self, now, timer),
            State::Lingering if timer == Timer::Linger => {}
            other => {
                self.state = other;
                if timer == Timer::HalfOpen && self.is_answering() {
                    // Nothing is missing of the peer's: it is this host that is slow.
                    cx.timers.set(self.id, Timer::HalfOpen, now.at + HALF_OPEN);
                } else if timer == Timer::HalfOpen {
                    let during = self.during();
                    let timeout =
                        Failure::Timeout { during, tries: 0, seconds: HALF_OPEN.as_secs() };
                    let heard = match &mut self.state {
                        State::InitSent(sent) => sent.refusal(),
                        _ => None,
                    };
                    self.fail(cx, now, heard.unwrap_or(timeout));
                }
            }
        }
    }

    /// The responder's own work on a request of the handshake is under way.
    fn is_answering(&self) -> bool {
        matches!(
            self.state,
            State::InitAnswer(_)
                | State::IntermediateAnswer(_)
                | State::AuthCheck(_)
                | State::AuthAnswer(_)
        )
    }

    /// The established part, if it is established.
    pub(crate) fn up(&self) -> Option<&Established> {
        match &self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    pub(crate) fn up_mut(&mut self) -> Option<&mut Established> {
        match &mut self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    /// Changes the established part, then goes on with its tasks.
    pub(crate) fn proceed(
        &mut self,
        cx: &mut Context,
        now: Now,
        change: impl FnOnce(&mut Established),
    ) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Up(mut up) => {
                change(&mut up);
                self.state = established::proceed(up, cx, self, now);
            }
            other => self.state = other,
        }
    }

    /// The peer's rekey made `new`, which the peer uses.
    pub(crate) fn replaced_by(&mut self, cx: &mut Context, now: Now, new: IkeSaId) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Up(mut up) => {
                established::replaced(&mut up, cx, self, now, new, false);
                self.state = State::Up(up);
            }
            other => self.state = other,
        }
    }

    /// Takes over from `old`, whose children are here already.
    pub(crate) fn inherit(&mut self, cx: &mut Context, now: Now, old: IkeSaId, tasks: Vec<Task>) {
        let initiator = self.initiator;
        if let State::Up(up) = &mut self.state {
            up.heir_of = None;
            up.queue.extend(tasks);
            // The responder's token came with the rekey; the initiator's goes by itself, to who knows of tokens (RFC 6290 4.3).
            if initiator && up.token.is_some() {
                up.token_due = true;
                up.push(Task::Probe);
            }
        }
        cx.timers.cancel(self.id, Timer::Linger);
        if let State::Up(up) = &self.state {
            up.arm(cx, self);
            cx.event(Event::IkeRekeyed { old, new: up.info(self) });
        }
        self.proceed(cx, now, |_| {});
    }

    /// A job of this SA is done.
    pub(crate) fn job_done(&mut self, cx: &mut Context, now: Now, job: JobId, done: Done) {
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::InitKey(s) if s.job == job => s.done(cx, self, now, done),
            State::InitAgree(s) if s.job == job => s.done(cx, self, now, done),
            State::InitAnswer(s) if s.job == job => s.done(cx, self, now, done),
            State::IntermediateKey(s) if s.job == job => s.done(cx, self, now, done),
            State::IntermediateAgree(s) if s.job == job => s.done(cx, self, now, done),
            State::IntermediateAnswer(s) if s.job == job => s.done(cx, self, now, done),
            State::AuthSign(s) if s.job == job => s.done(cx, self, now, done),
            State::AuthVerify(s) if s.job == job => s.done(cx, self, now, done),
            State::AuthCheck(s) if s.job == job => s.done(cx, self, now, done),
            State::AuthAnswer(s) if s.job == job => s.done(cx, self, now, done),
            State::Up(up) => established::job_done(up, cx, self, now, job, done),
            other => other,
        };
    }

    /// Sends a request in an SK payload. The window must be free.
    pub(crate) fn send_request(
        &mut self,
        cx: &mut Context,
        now: Now,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) {
        let Some(message_id) = self.window.next_id() else { return };
        let messages = self.seal(cx, exchange, message_id, false, payloads);
        let path = self.path();
        for bytes in &messages {
            cx.transmit(path.local, path.remote, bytes);
        }
        self.window.sent(now.at, messages, self.config.common.retransmit);
        self.arm_retransmit(cx);
    }

    /// Answers the request in hand, and stores the answer for its repeats.
    pub(crate) fn respond(&mut self, cx: &mut Context, payloads: Vec<Payload>) {
        let Some(to) = self.reply_to.take() else { return };
        let messages = self.seal(cx, to.exchange, to.message_id, true, &payloads);
        for bytes in &messages {
            cx.transmit(to.local, to.remote, bytes);
        }
        self.window.responded(messages);
    }

    fn seal(
        &mut self,
        cx: &Context,
        exchange: ExchangeType,
        message_id: u32,
        response: bool,
        payloads: &[Payload],
    ) -> Vec<Vec<u8>> {
        let header = self.header(exchange, message_id, response);
        let limit = self.config.message_limit().filter(|_| self.fragmentation);
        let (first, plain) = encode_payloads(payloads);
        self.note(cx, intermediate::Whole { header: &header, aad: None, first, plain: &plain });
        let Some(secured) = &mut self.secured else { return Vec::new() };
        let Some(ciphers) = secured.ciphers(cx, self.initiator) else { return Vec::new() };
        fragment::seal(&header, first, &plain, &*ciphers.out, limit, || {
            secured.sealed += 1;
            secured.sealed
        })
    }

    /// A header of this SA.
    pub(crate) fn header(&self, exchange: ExchangeType, message_id: u32, response: bool) -> Header {
        Header {
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            next_payload: PayloadType::NONE,
            version: Header::VERSION,
            exchange,
            flags: Flags { initiator: self.initiator, version: false, response },
            message_id,
            length: 0,
        }
    }

    pub(crate) fn arm_retransmit(&self, cx: &mut Context) {
        match self.window.next_timeout() {
            Some(at) => cx.timers.set(self.id, Timer::Retransmit, at),
            None => cx.timers.cancel(self.id, Timer::Retransmit),
        }
    }

    /// ESP of the peer came from there. Never another address, see [`follow`](Self::follow).
    pub(crate) fn seen_at(&mut self, remote: SocketAddr) -> bool {
        let floats = self.nat.remote_behind && !self.nat.local_behind;
        let here = self.local.port() == NATT_PORT && self.remote.ip() == remote.ip();
        if floats && here {
            self.remote = remote;
        }
        floats && here
    }

    /// The retransmission timer fired.
    pub(crate) fn retransmit(&mut self, cx: &mut Context, now: Now) {
        match self.window.due(now.at) {
            Due::Nothing => {}
            Due::Resend { attempt, .. } => {
                let path = self.detour(cx, attempt);
                for bytes in self.window.pending() {
                    cx.transmit(path.local, path.remote, bytes);
                }
                cx.event(Event::Retransmitted { id: self.id, remote: self.home.ip(), attempt });
            }
            Due::GiveUp { tries, elapsed } => {
                let during = self.during();
                let failure = Failure::Timeout { during, tries, seconds: elapsed.as_secs() };
                return self.fail(cx, now, failure);
            }
        }
        self.arm_retransmit(cx);
    }

    /// The exchange that is going on, for people.
    fn during(&self) -> &'static str {
        match &self.state {
            State::InitKey(_) | State::InitSent(_) | State::InitAgree(_) | State::InitAnswer(_) => {
                "IKE_SA_INIT"
            }
            State::IntermediateKey(_)
            | State::IntermediateSent(_)
            | State::IntermediateAgree(_)
            | State::IntermediateAwait(_)
            | State::IntermediateAnswer(_) => "IKE_INTERMEDIATE",
            State::Up(up) => up.during(),
            State::Lingering | State::Gone => "INFORMATIONAL",
            _ => "IKE_AUTH",
        }
    }

    /// Ends the SA without a message: children first, then itself.
    pub(crate) fn fail(&mut self, cx: &mut Context, now: Now, reason: Failure) {
        self.state = self.end(cx, now, reason);
    }

    /// As [`fail`](Self::fail); gives the state to be in from now on.
    pub(crate) fn end(&mut self, cx: &mut Context, now: Now, reason: Failure) -> State {
        for child in cx.children.of(self.id) {
            established::child_goes(cx, now, child, &reason);
        }
        self.report_down(cx, reason);
        cx.timers.cancel_all(self.id);
        self.window.forget();
        self.gather_request.clear();
        self.gather_response.clear();
        if self.secured.is_none() {
            return State::Gone;
        }
        cx.timers.set(self.id, Timer::Linger, now.at + LINGER);
        State::Lingering
    }

    /// Reports the end, once.
    pub(crate) fn report_down(&mut self, cx: &mut Context, reason: Failure) {
        if !std::mem::replace(&mut self.silent, true) {
            cx.event(Event::IkeDown { id: self.id, remote: self.home.ip(), reason });
        }
    }

    /// Deletes the SA as far as its state allows a message; the children go at once.
    pub(crate) fn delete(&mut self, cx: &mut Context, now: Now, reason: EndReason) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Up(up) => self.state = established::close(up, cx, self, now, reason),
            // The peer may have the SA up already: it is told once its answer shows that it has. It is not asked again.
            state @ (State::AuthSent(_) | State::AuthVerify(_)) => {
                self.report_down(cx, Failure::Ended(reason));
                cx.timers.cancel(self.id, Timer::Retransmit);
                cx.timers.set(self.id, Timer::HalfOpen, now.at + LINGER);
                self.state = state;
            }
            State::Lingering => self.state = State::Lingering,
            _ => self.state = self.end(cx, now, Failure::Ended(reason)),
        }
    }
}

impl Secured {
    /// Both directions' ciphers; they were there when the SA got its keys, so `None` does not happen.
    fn ciphers(&self, cx: &Context, initiator: bool) -> Option<SkCiphers> {
        SkCiphers::new(&*cx.provider, &self.suite, &self.keys, initiator).ok()
    }
}

/// A notify without SPI or data.
pub(crate) fn plain_notify(kind: NotifyType) -> Notify {
    Notify { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data: Vec::new() }
}

/// The same, as a payload.
pub(crate) fn error_notify(kind: NotifyType) -> Payload {
    Payload::Notify(plain_notify(kind))
}

/// The data of the first notify of a kind.
pub(crate) fn find_notify(payloads: &[Payload], kind: NotifyType) -> Option<&Notify> {
    payloads.iter().find_map(|p| match p {
        Payload::Notify(n) if n.kind == kind => Some(n),
        _ => None,
    })
}

/// The first error notify.
pub(crate) fn find_error(payloads: &[Payload]) -> Option<&Notify> {
    payloads.iter().find_map(|p| match p {
        Payload::Notify(n) if n.kind.is_error() => Some(n),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At a thousand peers a host holds a thousand of each.
    #[test]
    fn an_idle_ike_sa_is_small() {
        let sizes = [
            size_of::<IkeSa>(),
            size_of::<Secured>(),
            size_of::<Established>(),
            size_of::<crate::child_sa::Child>(),
            size_of::<PeerConfig>(),
            size_of::<crate::config::ChildConfig>(),
        ];
        let most = [256, 144, 352, 224, 176, 96];
        assert!(sizes.iter().zip(most).all(|(size, most)| *size <= most), "{sizes:?}");
    }
}
