//! The responder of IKE_SA_INIT.

use super::*;
use crate::auth_methods::AuthMethods;

/// A Notify payload without SPI and data (RFC 7296 3.10).
const NOTIFY_LEN: usize = 8;

/// Responder: waits for the shared secret.
#[derive(Clone)]
pub(crate) struct Answering {
    pub(crate) job: JobId,
    chosen: Chosen<IkeSuite>,
    handshake: Handshake,
    natt: bool,
    /// Both ends prefer ESP in UDP.
    agreed: bool,
}

/// A first request, looked at without keeping anything.
#[derive(Clone)]
pub(crate) struct Request {
    theirs: Vec<Proposal>,
    ke: KePayload,
    pub(crate) nonce: Vec<u8>,
    pub(crate) cookie: Option<Vec<u8>>,
    payloads: Vec<Payload>,
}

/// What a responder does with a first request.
pub(crate) enum Verdict {
    /// An IKE SA begins.
    Accept(Chosen<IkeSuite>),
    /// Asks for another method (RFC 7296 1.2).
    OtherKe(Ke),
    /// NO_PROPOSAL_CHOSEN.
    NoProposal,
    /// NO_PROPOSAL_CHOSEN as well, for another fleet; this host's own name goes with it.
    OtherCluster,
}

impl Request {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Misbehaviour> {
        let message = wire::message::parse(bytes).map_err(|error| match error {
            wire::message::ParseError::UnknownCritical(_) => Misbehaviour::UnknownCritical,
            _ => Misbehaviour::Malformed,
        })?;
        if message.sk.is_some() {
            return Err(Misbehaviour::UnexpectedPayload);
        }
        let parts = Parts::of(&message.payloads)?;
        Ok(Self {
            theirs: parts.sa.to_vec(),
            ke: parts.ke.clone(),
            nonce: parts.nonce.to_vec(),
            cookie: find_notify(&message.payloads, NotifyType::COOKIE).map(|n| n.data.clone()),
            payloads: message.payloads,
        })
    }

    pub(crate) fn judge(&self, cx: &Context, config: &PeerConfig) -> Verdict {
        if cluster::differs(&*cx.provider, config.common.cluster.as_deref(), &self.payloads) {
            return Verdict::OtherCluster;
        }
        let kind = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
        let mut theirs = self.theirs.clone();
        if find_notify(&self.payloads, kind).is_none() {
            // An additional key exchange has its place in IKE_INTERMEDIATE alone (RFC 9370 2.2.1).
            theirs.retain(|proposal| !multi_ke::asks(proposal));
        }
        match negotiate::choose_ike(&config.ike_proposals, &theirs, None, &*cx.provider) {
            None => Verdict::NoProposal,
            Some(chosen) if chosen.suite.ke != self.ke.method => Verdict::OtherKe(chosen.suite.ke),
            Some(chosen) => Verdict::Accept(chosen),
        }
    }

    pub(crate) fn no_proposal(&self, config: &PeerConfig) -> Failure {
        Failure::NoProposalChosen {
            protocol: "IKE",
            by: "this host",
            ours: config.ike_proposals.to_vec(),
            theirs: self.theirs.clone(),
        }
    }

    /// Begins an IKE SA as responder.
    pub(crate) fn accept(
        self,
        cx: &mut Context,
        config: Arc<PeerConfig>,
        now: Now,
        arrived: Arrived<'_>,
        chosen: Chosen<IkeSuite>,
    ) -> Result<IkeSa, Misbehaviour> {
        cx.provider
            .check_public(chosen.suite.ke, &self.ke.data)
            .map_err(|_: KxError| Misbehaviour::BadPublicValue)?;
        let spi_i = arrived.header.spi_i;
        let natt = nat::detect(
            &*cx.provider,
            &self.payloads,
            spi_i,
            IkeSpi(0),
            arrived.local,
            arrived.remote,
        )
        .map_err(|_| Misbehaviour::Malformed)?;
        let id = cx.fresh_ike_id();
        let ends = Ends {
            local: arrived.local,
            remote: arrived.remote,
            initiator: false,
            spi_i,
            spi_r: cx.fresh_ike_spi(),
        };
        let wanted = encap::wanted(&config, &self.payloads);
        let agreed = encap::agreed(&config, &self.payloads);
        let mut sa = IkeSa::new(id, config, ends, State::Gone);
        if let Some(nat) = natt {
            sa.nat = nat;
            (sa.encap, sa.udp) = (nat.any() || wanted, wanted);
        }
        sa.fragmentation = fragmentation(&sa.config, &self.payloads);
        sa.window.begin();
        cx.timers.set(id, Timer::HalfOpen, now.at + HALF_OPEN);
        let handshake = Handshake {
            request: arrived.bytes.to_vec(),
            response: Vec::new(),
            ni: self.nonce,
            nr: cx.nonce(),
            hashes: peer_hashes(&self.payloads),
            use_ppk: sa.config.ppk.is_some()
                && find_notify(&self.payloads, NotifyType::USE_PPK).is_some(),
            ppk: None,
            authorities: None,
            proven: None,
            methods: None,
            childless: false,
        };
        let job = key_share(cx, id, chosen.suite.ke, Some(self.ke.data));
        sa.state = State::InitAnswer(Box::new(Answering {
            job,
            chosen,
            handshake,
            natt: natt.is_some(),
            agreed,
        }));
        Ok(sa)
    }
}

impl Answering {
    pub(crate) fn done(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        let share = match done {
            Done::KeyShare(Ok(share)) => share,
            Done::KeyShare(Err(_)) => {
                return sa.end(cx, now, Failure::Misbehaved(Misbehaviour::BadPublicValue));
            }
            _ => return State::InitAnswer(self),
        };
        let additional = self.chosen.suite.additional;
        match self.answer(cx, sa, share) {
            Ok(handshake) => intermediate::expect(handshake, additional),
            Err(failure) => sa.end(cx, now, failure),
        }
    }

    fn answer(
        mut self,
        cx: &mut Context,
        sa: &mut IkeSa,
        share: KeyShare,
    ) -> Result<Handshake, Failure> {
        let Some(shared) = share.shared else {
            return Err(Failure::Local("the key exchange job gave no shared secret".into()));
        };
        let mut payloads = vec![
            Payload::Sa(vec![self.chosen.proposal.clone()]),
            Payload::Ke(KePayload { method: self.chosen.suite.ke, data: share.public }),
            Payload::Nonce(self.handshake.nr.clone()),
        ];
        if self.natt {
            payloads.extend(nat_payloads(cx, sa)?);
        }
        if self.agreed {
            payloads.extend(encap::payload(&sa.config));
        }
        if let Auth::Certificate(credentials) = &sa.config.auth {
            let request = crate::auth::certreq(&*cx.provider, credentials.trust())
                .map_err(|e| Failure::Local(e.to_string()))?;
            payloads.push(Payload::CertReq(request));
        }
        if self.handshake.hashes.is_some() {
            payloads.push(Payload::Notify(crate::auth::hash_algorithms()));
        }
        if sa.fragmentation {
            payloads.extend(fragmentation_payload(&sa.config));
        }
        payloads.push(error_notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED));
        let methods = AuthMethods::accepted(&sa.config.auth);
        payloads.push(Payload::Notify(methods.notify()));
        if self.handshake.use_ppk {
            payloads.push(error_notify(NotifyType::USE_PPK));
        }
        if !self.chosen.suite.additional.is_empty() {
            payloads.push(error_notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED));
        }
        payloads.extend(cluster::payload(&*cx.provider, sa.config.common.cluster.as_deref()));
        let header = sa.header(ExchangeType::IKE_SA_INIT, 0, true);
        self.handshake.response = wire::message::encode_plain(&header, &payloads);
        secure(cx, sa, &self.chosen.suite, &self.handshake, &shared)?;
        cx.transmit(sa.local, sa.remote, &self.handshake.response);
        sa.window.responded(vec![self.handshake.response.clone()]);
        Ok(self.handshake)
    }
}

/// An unencrypted refusal of a first request's proposals; nothing is kept. It is no longer than the
/// request, whose sender may be made up.
pub(crate) fn refuse_proposals(cx: &mut Context, arrived: Arrived<'_>, config: &PeerConfig) {
    let empty = wire::message::Header::LEN + NOTIFY_LEN;
    let room = arrived.bytes.len().saturating_sub(empty);
    let notify = told::no_proposal_chosen(&config.ike_proposals, room);
    refuse_with(cx, arrived, &[Payload::Notify(notify)]);
}

/// An unencrypted refusal of a first request; nothing is kept.
pub(crate) fn refuse(cx: &mut Context, arrived: Arrived<'_>, kind: NotifyType, data: Vec<u8>) {
    let notify = Notify { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data };
    refuse_with(cx, arrived, &[Payload::Notify(notify)]);
}

/// A first request with a critical payload of a kind that is not known here (RFC 7296 2.5).
pub(crate) fn refuse_critical(cx: &mut Context, arrived: Arrived<'_>) {
    if let Err(wire::message::ParseError::UnknownCritical(kind)) =
        wire::message::parse(arrived.bytes)
    {
        refuse(cx, arrived, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind]);
    }
}

/// The same for a peer of another fleet, which is told so.
pub(crate) fn refuse_other_cluster(cx: &mut Context, arrived: Arrived<'_>, config: &PeerConfig) {
    let mut payloads = vec![Payload::Notify(plain_notify(NotifyType::NO_PROPOSAL_CHOSEN))];
    payloads.extend(cluster::payload(&*cx.provider, config.common.cluster.as_deref()));
    refuse_with(cx, arrived, &payloads);
}

pub(crate) fn refuse_with(cx: &mut Context, arrived: Arrived<'_>, payloads: &[Payload]) {
    let mut header = arrived.header;
    let initiator = !header.flags.initiator;
    header.flags = wire::message::Flags { initiator, version: false, response: true };
    header.version = wire::message::Header::VERSION;
    if let Some(Payload::Notify(Notify { kind, .. })) = payloads.first() {
        *cx.refused.entry(kind.name().unwrap_or("other")).or_default() += 1;
    }
    let bytes = wire::message::encode_plain(&header, payloads);
    cx.transmit(arrived.local, arrived.remote, &bytes);
}
