//! Messages for one IKE SA: window, integrity, and the state that takes them.

use super::*;

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
        let opened = self.open(cx, arrived)?;
        match self.window.classify(header.message_id) {
            Inbound::New => {}
            Inbound::Repeat(messages) => {
                for bytes in messages {
                    cx.transmit(arrived.local, arrived.remote, bytes);
                }
                return Ok(());
            }
            Inbound::InProgress => return Ok(()),
            Inbound::OutOfWindow => return Err(Misbehaviour::MessageId),
        }
        let expected = match self.state {
            State::AuthAwait(_) => header.exchange == ExchangeType::IKE_AUTH,
            State::Up(_) => matches!(
                header.exchange,
                ExchangeType::CREATE_CHILD_SA | ExchangeType::INFORMATIONAL
            ),
            _ => false,
        };
        if !expected {
            return Err(Misbehaviour::OutOfOrder);
        }
        self.window.begin();
        self.reply_to = Some(ReplyTo {
            message_id: header.message_id,
            exchange: header.exchange,
            local: arrived.local,
            remote: arrived.remote,
        });
        self.follow(cx, arrived);
        match opened {
            Ok(payloads) => self.request(cx, now, header.exchange, payloads),
            Err(error) => return self.refuse_syntax(cx, now, &error),
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
        let opened = self.open(cx, arrived)?;
        if self.window.outstanding() != Some(header.message_id) {
            return Err(Misbehaviour::MessageId);
        }
        if !self.awaits(header.exchange) {
            return Err(Misbehaviour::OutOfOrder);
        }
        let Some(answered) = self.window.answered(now.at, header.message_id) else {
            return Err(Misbehaviour::MessageId);
        };
        cx.timers.cancel(self.id, Timer::Retransmit);
        self.follow(cx, arrived);
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
            State::AuthSent(sent) => self.state = sent.response(cx, self, now, payloads),
            State::Up(up) => self.state = established::response(up, cx, self, now, payloads),
            other => self.state = other,
        }
        Ok(())
    }

    /// Whether a response of this exchange is waited for.
    fn awaits(&self, exchange: ExchangeType) -> bool {
        match &self.state {
            State::AuthSent(_) => exchange == ExchangeType::IKE_AUTH,
            State::Up(up) => up.own_exchange() == Some(exchange),
            _ => false,
        }
    }

    /// Verifies and reads the SK payload. The outer error means: no word of the peer, drop it.
    fn open(
        &self,
        cx: &Context,
        arrived: Arrived<'_>,
    ) -> Result<Result<Vec<Payload>, ParseError>, Misbehaviour> {
        let message = wire::message::parse(arrived.bytes).map_err(|_| Misbehaviour::Malformed)?;
        let (Some(frame), Some(secured)) = (message.sk, &self.secured) else {
            return Err(Misbehaviour::MissingPayload);
        };
        if frame.fragment.is_some() {
            return Err(Misbehaviour::UnexpectedPayload);
        }
        let ciphers = secured.ciphers(cx, self.initiator).ok_or(Misbehaviour::BadIcv)?;
        match sk::open(&frame, &*ciphers.r#in) {
            Ok(payloads) => Ok(Ok(payloads)),
            Err(SkError::BadIcv) => Err(Misbehaviour::BadIcv),
            Err(SkError::BadPadding) => Ok(Err(ParseError::BadLength("padding"))),
            Err(SkError::Parse(error)) => Ok(Err(error)),
        }
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

    /// A verified, fresh message says where the peer is (RFC 7296 2.23): its port floats to 4500
    /// while the SA is half-open; later it is followed only if the peer is behind a NAT and this host is not.
    /// Never to another address: that may be another peer's, whose packets would then go through these SAs.
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
        } else if self.nat.remote_behind && !self.nat.local_behind && self.local == arrived.local {
            self.remote = arrived.remote;
            let sas = established::move_children(cx, self.id, arrived.remote.ip());
            cx.event(Event::PeerMoved { id: self.id, remote: arrived.remote, sas });
        }
    }
}
