//! IKE_INTERMEDIATE (RFC 9242) with an additional key exchange in each (RFC 9370 2.2.2).

use std::collections::VecDeque;
use std::sync::Arc;

use crypto::kx::PrivateKx;
use crypto::{Provider, Secret};
use wire::message::{Header, encode_sk_prefix};
use wire::payload::{KePayload, Payload};
use wire::registry::{ExchangeType, Ke, NotifyType, PayloadType};

use crate::context::Context;
use crate::endpoint::Now;
use crate::error::{Failure, Misbehaviour};
use crate::exchange::auth::{self, Handshake};
use crate::exchange::create_child::find_ke;
use crate::exchange::init::key_share;
use crate::ike_sa::{IkeSa, Secured, State, error_notify, find_error};
use crate::job::{Done, JobId, KeyShare, Work};
use crate::keys;
use crate::multi_ke::Additional;

/// The key exchanges that are to be done before IKE_AUTH; the first is the one in hand.
#[derive(Clone)]
pub(crate) struct Steps {
    pub(crate) handshake: Box<Handshake>,
    left: VecDeque<Ke>,
}

/// Initiator: waits for the private value.
#[derive(Clone)]
pub(crate) struct KeyWait {
    pub(crate) job: JobId,
    steps: Steps,
}

/// Initiator: waits for the response.
#[derive(Clone)]
pub(crate) struct Sent {
    steps: Steps,
    private: Arc<dyn PrivateKx>,
}

/// Initiator: waits for the shared secret.
#[derive(Clone)]
pub(crate) struct Agreeing {
    pub(crate) job: JobId,
    steps: Steps,
}

/// Responder: waits for the shared secret.
#[derive(Clone)]
pub(crate) struct Answering {
    pub(crate) job: JobId,
    steps: Steps,
}

/// After IKE_SA_INIT, as initiator: the first additional key exchange, or IKE_AUTH.
pub(crate) fn start(
    cx: &mut Context,
    sa: &mut IkeSa,
    now: Now,
    handshake: Handshake,
    additional: Additional,
) -> State {
    Steps::new(handshake, additional).begin(cx, sa, now)
}

/// The same as responder: what is waited for.
pub(crate) fn expect(handshake: Handshake, additional: Additional) -> State {
    Steps::new(handshake, additional).expect()
}

impl Steps {
    fn new(handshake: Handshake, additional: Additional) -> Self {
        Self { handshake: Box::new(handshake), left: additional.methods().collect() }
    }

    fn begin(self, cx: &mut Context, sa: &mut IkeSa, now: Now) -> State {
        match self.left.front() {
            None => auth::start(cx, sa, now, *self.handshake),
            Some(method) => {
                let job = key_share(cx, sa.id, *method, None);
                State::IntermediateKey(Box::new(KeyWait { job, steps: self }))
            }
        }
    }

    fn expect(self) -> State {
        match self.left.is_empty() {
            true => State::AuthAwait(self.handshake),
            false => State::IntermediateAwait(Box::new(self)),
        }
    }

    /// The public value of the method in hand.
    fn public(&self, payloads: &[Payload]) -> Result<(Ke, Vec<u8>), Misbehaviour> {
        let ke = find_ke(payloads).ok_or(Misbehaviour::MissingPayload)?;
        match self.left.front() {
            Some(method) if *method == ke.method => Ok((ke.method, ke.data.clone())),
            _ => Err(Misbehaviour::ChoseUnoffered),
        }
    }

    /// New keys for what comes after this exchange: `SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr)`
    /// (RFC 9370 2.2.2).
    fn advance(&mut self, cx: &Context, sa: &mut IkeSa, shared: &Secret) -> Result<(), Failure> {
        let Some(old) = &sa.secured else {
            return Err(Failure::Local("the IKE SA has no keys".into()));
        };
        let suite = old.suite;
        let keys = keys::derive_rekeyed(
            &*cx.provider,
            &suite,
            suite.prf,
            &old.keys.sk_d,
            &[shared],
            &self.handshake.ni,
            &self.handshake.nr,
            sa.spi_i,
            sa.spi_r,
        )
        .map_err(|e| Failure::Local(e.to_string()))?;
        self.left.pop_front();
        sa.secure(cx, suite, keys)
    }

    /// Responder: the request.
    pub(crate) fn request(
        mut self,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: &[Payload],
    ) -> State {
        self.handshake.announced(cx, sa, payloads);
        match self.public(payloads) {
            Err(what) => refuse(cx, sa, now, what),
            Ok((method, public)) => {
                let job = key_share(cx, sa.id, method, Some(public));
                State::IntermediateAnswer(Box::new(Answering { job, steps: self }))
            }
        }
    }
}

impl KeyWait {
    pub(crate) fn done(
        self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        let share = match done {
            Done::KeyShare(Ok(share)) => share,
            Done::KeyShare(Err(error)) => {
                return sa.end(cx, now, Failure::Local(error.to_string()));
            }
            _ => return State::IntermediateKey(self),
        };
        let method = self.steps.left.front().copied().unwrap_or(Ke::NONE);
        let payload = Payload::Ke(KePayload { method, data: share.public });
        sa.send_request(cx, now, ExchangeType::IKE_INTERMEDIATE, &[payload]);
        State::IntermediateSent(Box::new(Sent { steps: self.steps, private: share.private }))
    }
}

impl Sent {
    pub(crate) fn response(
        self,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        payloads: &[Payload],
    ) -> State {
        if let Some(error) = find_error(payloads) {
            return sa.end(cx, now, Failure::PeerError(error.kind));
        }
        let Self { mut steps, private } = self;
        steps.handshake.announced(cx, sa, payloads);
        match steps.public(payloads) {
            Err(what) => sa.end(cx, now, Failure::Misbehaved(what)),
            Ok((_, peer)) => {
                let job = cx.job(sa.id, Work::Agree { private, peer });
                State::IntermediateAgree(Box::new(Agreeing { job, steps }))
            }
        }
    }
}

impl Agreeing {
    pub(crate) fn done(
        mut self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        let shared = match done {
            Done::Agree(Ok(shared)) => shared,
            Done::Agree(Err(_)) => {
                return sa.end(cx, now, Failure::Misbehaved(Misbehaviour::BadPublicValue));
            }
            _ => return State::IntermediateAgree(self),
        };
        match self.steps.advance(cx, sa, &shared) {
            Ok(()) => self.steps.begin(cx, sa, now),
            Err(failure) => sa.end(cx, now, failure),
        }
    }
}

impl Answering {
    pub(crate) fn done(
        mut self: Box<Self>,
        cx: &mut Context,
        sa: &mut IkeSa,
        now: Now,
        done: Done,
    ) -> State {
        let (public, shared) = match done {
            Done::KeyShare(Ok(KeyShare { public, shared: Some(shared), .. })) => (public, shared),
            Done::KeyShare(_) => return refuse(cx, sa, now, Misbehaviour::BadPublicValue),
            _ => return State::IntermediateAnswer(self),
        };
        let method = self.steps.left.front().copied().unwrap_or(Ke::NONE);
        sa.respond(cx, vec![Payload::Ke(KePayload { method, data: public })]);
        let before = sa.secured.clone();
        match self.steps.advance(cx, sa, &shared) {
            Ok(()) => {
                sa.trail_mut().before = before;
                self.steps.expect()
            }
            Err(failure) => sa.end(cx, now, failure),
        }
    }
}

fn refuse(cx: &mut Context, sa: &mut IkeSa, now: Now, what: Misbehaviour) -> State {
    sa.respond(cx, vec![error_notify(NotifyType::INVALID_SYNTAX)]);
    sa.end(cx, now, Failure::Misbehaved(what))
}

/// What of the IKE_INTERMEDIATE exchanges goes into the AUTH payloads (RFC 9242 3.3.2).
#[derive(Clone, Default)]
pub(crate) struct Trail {
    /// IntAuth_iN.
    initiator: Vec<u8>,
    /// IntAuth_rN.
    responder: Vec<u8>,
    /// Requests so far.
    requests: u32,
    /// Responder: the keys of the exchange that was answered last, for repeats of its request.
    pub(crate) before: Option<Box<Secured>>,
}

/// One message as it goes into IntAuth: as if it had not been fragmented.
#[derive(Clone, Copy)]
pub(crate) struct Whole<'a> {
    pub(crate) header: &'a Header,
    /// All up to the content of the SK payload, as it came; `None`: there was no such message.
    pub(crate) aad: Option<&'a [u8]>,
    pub(crate) first: PayloadType,
    pub(crate) plain: &'a [u8],
}

impl Trail {
    /// `IntAuth_n = prf(SK_p, IntAuth_n-1 | A | P)`, with the sender's SK_p by which the message is protected.
    pub(crate) fn note(&mut self, provider: &dyn Provider, secured: &Secured, message: Whole<'_>) {
        let (mac, key) = match message.header.flags.initiator {
            true => (&mut self.initiator, &secured.keys.sk_pi),
            false => (&mut self.responder, &secured.keys.sk_pr),
        };
        let head = message.head();
        let next = provider.prf(secured.suite.prf, key.expose(), &[mac, &head, message.plain]);
        // The prf was negotiated, so it is there; if not, the peer's AUTH payload will not verify.
        *mac = next.map(|next| next.expose().to_vec()).unwrap_or_default();
        self.requests += u32::from(!message.header.flags.response);
    }

    /// `IntAuth_iN | IntAuth_rN | IKE_AUTH_MID`.
    pub(crate) fn octets(&self) -> Vec<u8> {
        // IKE_SA_INIT is message 0, IKE_AUTH the one after these.
        let message_id = (self.requests + 1).to_be_bytes();
        [&self.initiator[..], &self.responder, &message_id].concat()
    }
}

impl Whole<'_> {
    /// Chunk A: header to generic header of the SK payload, the lengths as if its content were not encrypted.
    fn head(&self) -> Vec<u8> {
        let Some(aad) = self.aad else {
            return encode_sk_prefix(self.header, self.first, None, self.plain.len());
        };
        let mut head = aad.to_vec();
        let whole = u32::try_from(head.len() + self.plain.len()).unwrap_or(u32::MAX);
        let payload = u16::try_from(GENERIC_HEADER + self.plain.len()).unwrap_or(u16::MAX);
        if let Some(length) = head.get_mut(Header::LEN - 4..Header::LEN) {
            length.copy_from_slice(&whole.to_be_bytes());
        }
        if let Some(length) = head.last_chunk_mut::<2>() {
            *length = payload.to_be_bytes();
        }
        head
    }
}

/// Generic payload header (RFC 7296 3.2).
const GENERIC_HEADER: usize = 4;
