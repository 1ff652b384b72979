//! Messages for one IKE SA: window, integrity, and the state that takes them.

use wire::message::parse_payloads;

use super::*;
use crate::crash;
use crate::exchange::intermediate::Whole;

/// Time between two signs of life that are asked for because of what anybody may have sent.
const HINT_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

impl IkeSa {
    /// A message for this SA.
    pub(crate) fn receive(&mut self, cx: &mut Context, now: Now, arrived: Arrived<'_>) {
        let checked = match (&self.secured, arrived.header.flags.response) {
            (None, true) => self.receive_plain(cx, now, arrived),
            (None, false) => Err(Misbehaviour::OutOfOrder),
            (Some(_), true) => self.receive_response(cx, now, arrived),
            (Some(_), false) => self.receive_request(cx, now, arrived),
        };
        if let Err(what) = checked {
            cx.dropped(arrived.remote, what);
        }
    }

    fn receive_plain(
        &mut self,
        cx: &mut Context,
        now: Now,
        arrived: Arrived<'_>,
    ) -> Result<(), Misbehaviour> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::InitSent(sent) => {
                let (state, result) = sent.response(cx, self, now, arrived);
                self.state = state;
                result
            }
            other => {
                self.state = other;
                Err(Misbehaviour::OutOfOrder)
            }
        }
    }

    fn receive_request(
        &mut self,
        cx: &mut Context,
        now: Now,
        arrived: Arrived<'_>,
    ) -> Result<(), Misbehaviour> {
        let header = arrived.header;
        let message = wire::message::parse(arrived.bytes).map_err(|_| Misbehaviour::Malformed)?;
        let frame = self.frame(message.sk)?;
        let new = self.window.classify(header.message_id) == Inbound::New;
        if !new || !self.expects(header.exchange) {
            self.verify_repeat(cx, header, &frame)?;
            return self.repeated(cx, arrived, &frame);
        }
        let Some(opened) = self.open(cx, now, header, &frame)? else { return Ok(()) };
        self.gather_request.clear();
        cx.timers.cancel(self.id, Timer::Fragments);
        self.window.begin();
        self.reply_to = Some(Box::new(ReplyTo {
            message_id: header.message_id,
            exchange: header.exchange,
            local: arrived.local,
            remote: arrived.remote,
            welcome: arrived.welcome,
        }));
        self.follow(cx, arrived);
        match opened {
            Ok(payloads) => self.request(cx, now, header.exchange, payloads),
            Err(error) => return self.refuse_syntax(cx, now, &error),
        }
        Ok(())
    }

    /// Whether a request of this exchange may come now.
    fn expects(&self, exchange: ExchangeType) -> bool {
        match self.state {
            State::IntermediateAwait(_) => exchange == ExchangeType::IKE_INTERMEDIATE,
            State::AuthAwait(_) => exchange == ExchangeType::IKE_AUTH,
            State::Up(_) => matches!(
                exchange,
                ExchangeType::CREATE_CHILD_SA
                    | ExchangeType::INFORMATIONAL
                    | ExchangeType::IKE_FOLLOWUP_KE
            ),
            _ => false,
        }
    }

    /// A verified request that is not the next one: its stored response, if it is the last one again.
    fn repeated(
        &self,
        cx: &mut Context,
        arrived: Arrived<'_>,
        frame: &SkFrame<'_>,
    ) -> Result<(), Misbehaviour> {
        match self.window.classify(arrived.header.message_id) {
            Inbound::New => return Err(Misbehaviour::OutOfOrder),
            Inbound::OutOfWindow => return Err(Misbehaviour::MessageId),
            Inbound::InProgress => {}
            // Once for all its fragments (RFC 7383 2.6.1).
            Inbound::Repeat(_) if frame.fragment.is_some_and(|(number, _)| number != 1) => {}
            Inbound::Repeat(messages) => {
                for bytes in messages {
                    cx.transmit(arrived.local, arrived.remote, bytes);
                }
            }
        }
        Ok(())
    }

    fn request(
        &mut self,
        cx: &mut Context,
        now: Now,
        exchange: ExchangeType,
        payloads: Vec<Payload>,
    ) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::IntermediateAwait(steps) => self.state = steps.request(cx, self, now, &payloads),
            State::AuthAwait(handshake) => self.state = handshake.request(cx, self, now, payloads),
            State::Up(up) => {
                self.state = established::request(up, cx, self, now, exchange, payloads)
            }
            other => self.state = other,
        }
    }

    fn receive_response(
        &mut self,
        cx: &mut Context,
        now: Now,
        arrived: Arrived<'_>,
    ) -> Result<(), Misbehaviour> {
        let header = arrived.header;
        let message = wire::message::parse(arrived.bytes).map_err(|_| Misbehaviour::Malformed)?;
        if message.sk.is_none() {
            self.hint(cx, now, &message.payloads);
        }
        let frame = self.frame(message.sk)?;
        let awaited = self.window.outstanding() == Some(header.message_id);
        if !awaited || !self.awaits(header.exchange) {
            drop(self.verify(cx, &frame)?);
            return Err(if awaited { Misbehaviour::OutOfOrder } else { Misbehaviour::MessageId });
        }
        let Some(opened) = self.open(cx, now, header, &frame)? else { return Ok(()) };
        self.gather_response.clear();
        let Some(answered) = self.window.answered(now.at, header.message_id) else {
            return Err(Misbehaviour::MessageId);
        };
        cx.timers.cancel(self.id, Timer::Retransmit);
        self.follow(cx, arrived);
        let path = Path { local: arrived.local, remote: arrived.remote };
        self.reached_by(cx, now, path, arrived.welcome);
        if let State::Up(up) = &mut self.state {
            up.last_alive = now.at;
            cx.event(Event::Alive { id: self.id, rtt: answered.rtt });
        }
        let payloads = match opened {
            Ok(payloads) => payloads,
            Err(_) => {
                self.fail(cx, now, Failure::Misbehaved(Misbehaviour::Malformed));
                return Err(Misbehaviour::Malformed);
            }
        };
        match std::mem::replace(&mut self.state, State::Gone) {
            State::IntermediateSent(sent) => self.state = sent.response(cx, self, now, &payloads),
            State::AuthSent(sent) => self.state = sent.response(cx, self, now, payloads),
            State::Up(up) => self.state = established::response(up, cx, self, now, payloads),
            other => self.state = other,
        }
        Ok(())
    }

    /// Somebody says without protection that the peer does not know this SA: no more than a reason to ask for
    /// a sign of life, and only so often (RFC 7296 2.4, 2.21.4).
    fn hint(&mut self, cx: &mut Context, now: Now, payloads: &[Payload]) {
        if find_notify(payloads, NotifyType::INVALID_IKE_SPI).is_none() {
            return;
        }
        let token = self.up().and_then(|up| up.token.as_ref());
        if token.is_some_and(|token| crash::shows(payloads, token)) {
            // The peer it is: nobody else knows the token, which is worth nothing any more (RFC 6290 4.5).
            return self.fail(cx, now, Failure::Ended(EndReason::PeerLost));
        }
        self.proceed(cx, now, |up| {
            if up.live() && up.last_hint + HINT_EVERY <= now.at {
                up.last_hint = now.at;
                up.push(Task::Probe);
            }
        });
    }

    /// Whether a response of this exchange is waited for.
    fn awaits(&self, exchange: ExchangeType) -> bool {
        match &self.state {
            State::IntermediateSent(_) => exchange == ExchangeType::IKE_INTERMEDIATE,
            State::AuthSent(_) => exchange == ExchangeType::IKE_AUTH,
            State::Up(up) => up.own_exchange() == Some(exchange),
            _ => false,
        }
    }

    /// The SK payload, or the SKF payload if fragments may come.
    fn frame<'a>(&self, sk: Option<SkFrame<'a>>) -> Result<SkFrame<'a>, Misbehaviour> {
        match sk {
            None => Err(Misbehaviour::MissingPayload),
            Some(frame) if frame.fragment.is_some() && !self.fragmentation => {
                Err(Misbehaviour::UnexpectedPayload)
            }
            Some(frame) => Ok(frame),
        }
    }

    /// What is inside, if it is a word of the peer; the outer error means that it is not: drop it.
    fn verify(
        &self,
        cx: &Context,
        frame: &SkFrame<'_>,
    ) -> Result<Result<Vec<u8>, ParseError>, Misbehaviour> {
        let secured = self.secured.as_ref().ok_or(Misbehaviour::BadIcv)?;
        self.verify_by(cx, secured, frame)
    }

    fn verify_by(
        &self,
        cx: &Context,
        secured: &Secured,
        frame: &SkFrame<'_>,
    ) -> Result<Result<Vec<u8>, ParseError>, Misbehaviour> {
        let ciphers = secured.ciphers(cx, self.initiator).ok_or(Misbehaviour::BadIcv)?;
        match sk::open_bytes(frame, &*ciphers.r#in) {
            Ok(plain) => Ok(Ok(plain)),
            Err(SkError::BadIcv) => Err(Misbehaviour::BadIcv),
            Err(SkError::BadPadding) => Ok(Err(ParseError::BadLength("padding"))),
            Err(SkError::Parse(error)) => Ok(Err(error)),
        }
    }

    /// The same for a message that is not the next one: an IKE_INTERMEDIATE request was protected by the
    /// keys before those that came of it.
    fn verify_repeat(
        &self,
        cx: &Context,
        header: Header,
        frame: &SkFrame<'_>,
    ) -> Result<(), Misbehaviour> {
        let before = self.trail.as_ref().and_then(|trail| trail.before.as_deref());
        match before.filter(|_| header.exchange == ExchangeType::IKE_INTERMEDIATE) {
            Some(before) => self.verify_by(cx, before, frame),
            None => self.verify(cx, frame),
        }
        .map(drop)
    }

    /// Verifies and reads an awaited message; `None`: a fragment, others are missing.
    fn open(
        &mut self,
        cx: &mut Context,
        now: Now,
        header: Header,
        frame: &SkFrame<'_>,
    ) -> Result<Option<Result<Vec<Payload>, ParseError>>, Misbehaviour> {
        let Some((number, total)) = frame.fragment else {
            let plain = self.verify(cx, frame)?;
            return Ok(Some(plain.and_then(|plain| {
                let (aad, first) = (Some(frame.aad), frame.first);
                self.note(cx, Whole { header: &header, aad, first, plain: &plain });
                parse_payloads(first, &plain)
            })));
        };
        let Header { message_id, exchange, .. } = header;
        let of = Fragment { message_id, exchange, number, total };
        let whole = self.gather(cx, now, of, header.flags.response, frame)?;
        Ok(whole.map(|(first, plain)| {
            self.note(cx, Whole { header: &header, aad: None, first, plain: &plain });
            parse_payloads(first, &plain)
        }))
    }

    /// Keeps a fragment once it is verified; the whole message if it was the last one that was missing.
    fn gather(
        &mut self,
        cx: &mut Context,
        now: Now,
        of: Fragment,
        response: bool,
        frame: &SkFrame<'_>,
    ) -> Result<Option<(PayloadType, Vec<u8>)>, Misbehaviour> {
        let gather = if response { &self.gather_response } else { &self.gather_request };
        if !gather.wants(of)? {
            return Ok(None);
        }
        let plain = self.verify(cx, frame)?.map_err(|_| Misbehaviour::Malformed)?;
        if response {
            // It is waited for as long as its request is repeated.
            return self.gather_response.add(of, frame.first, plain);
        }
        if self.gather_request.is_empty() {
            cx.timers.set(self.id, Timer::Fragments, now.at + fragment::PATIENCE);
        }
        self.gather_request.add(of, frame.first, plain)
    }

    /// A verified request that cannot be read (RFC 7296 2.21.3, 2.5): the first ends the SA, the second does not.
    fn refuse_syntax(
        &mut self,
        cx: &mut Context,
        now: Now,
        error: &ParseError,
    ) -> Result<(), Misbehaviour> {
        if let ParseError::UnknownCritical(kind) = error {
            let notify = Notify {
                protocol: ProtocolId::NONE,
                spi: Vec::new(),
                kind: NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
                data: vec![*kind],
            };
            self.respond(cx, vec![Payload::Notify(notify)]);
            return Err(Misbehaviour::UnknownCritical);
        }
        self.respond(cx, vec![error_notify(NotifyType::INVALID_SYNTAX)]);
        self.fail(cx, now, Failure::Misbehaved(Misbehaviour::Malformed));
        Err(Misbehaviour::Malformed)
    }

    /// Whether the peer is followed to another port without a word of it.
    fn follows_mappings(&self) -> bool {
        self.nat.remote_behind && !self.nat.local_behind && self.mobility.is_none()
    }

    /// A verified, fresh message says where the peer is (RFC 7296 2.23): its port floats to 4500
    /// while the SA is half-open; later it is followed only if the peer is behind a NAT and this host is not.
    /// Never to another address: that may be another peer's, whose packets would then go through these SAs. Where
    /// MOBIKE is in use, the peer says so if it moved (RFC 4555 3.8).
    fn follow(&mut self, cx: &mut Context, arrived: Arrived<'_>) {
        if self.remote == arrived.remote && self.local == arrived.local {
            return;
        }
        let half_open = !matches!(self.state, State::Up(_));
        if self.remote.ip() != arrived.remote.ip() {
            return;
        }
        if half_open {
            self.local = arrived.local;
            self.remote = arrived.remote;
        } else if self.follows_mappings() && self.local == arrived.local {
            self.remote = arrived.remote;
            let (sas, outer) = established::move_children(cx, self);
            cx.event(Event::PeerMoved { id: self.id, remote: arrived.remote, outer, sas });
        }
    }
}
