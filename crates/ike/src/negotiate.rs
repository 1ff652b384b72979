//! Choosing proposals (RFC 7296 2.7, 3.3).

use crypto::Provider;
use crypto::cipher::CipherSpec;
use wire::esp::Spi;
use wire::message::IkeSpi;
use wire::proposal::Proposal;
use wire::registry::{Ke, Prf};

use crate::error::Misbehaviour;

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IkeSuite {
    /// Of the SK payload.
    pub cipher: CipherSpec,
    /// Pseudorandom function.
    pub prf: Prf,
    /// Key exchange method.
    pub ke: Ke,
}

/// The algorithms of a child SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EspSuite {
    /// Of the packets.
    pub cipher: CipherSpec,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Method of a key exchange of its own (PFS).
    pub ke: Option<Ke>,
}

/// A proposal that was chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen<S> {
    /// It, with one transform a type: as responder what is answered (with this host's SPI), as initiator what was answered.
    pub proposal: Proposal,
    /// The peer's SPI: empty in IKE_SA_INIT, 8 bytes for a rekeyed IKE SA, 4 for ESP.
    pub peer_spi: Vec<u8>,
    /// Its meaning.
    pub suite: S,
}

/// Where a child SA is negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildExchange {
    /// In IKE_AUTH: no key exchange of its own, KE transforms are left out and ignored (RFC 7296 1.2).
    Auth,
    /// In CREATE_CHILD_SA.
    Create,
}

impl<S> Chosen<S> {
    /// The peer's SPI of a rekeyed IKE SA; `None` if it has not that form, or is zero.
    pub fn peer_ike_spi(&self) -> Option<IkeSpi> {
        todo!()
    }

    /// The peer's SPI of an ESP SA; `None` if it has not that form, or is reserved (below 256, RFC 4303 2.1).
    pub fn peer_esp_spi(&self) -> Option<Spi> {
        todo!()
    }
}

/// An IKE offer, numbered from 1; `spi` is this host's when an IKE SA is rekeyed. What the provider lacks is left out.
pub fn offer_ike(ours: &[Proposal], spi: Option<IkeSpi>, provider: &dyn Provider) -> Vec<Proposal> {
    let _ = (ours, spi, provider);
    todo!()
}

/// An ESP offer, numbered from 1.
pub fn offer_esp(ours: &[Proposal], spi: Spi, exchange: ChildExchange, provider: &dyn Provider) -> Vec<Proposal> {
    let _ = (ours, spi, exchange, provider);
    todo!()
}

/// The first key exchange method of an offer: whose public value goes along. `None`: there is none.
pub fn first_ke(offer: &[Proposal]) -> Option<Ke> {
    let _ = offer;
    todo!()
}

/// Whether an offer has this method: what INVALID_KE_PAYLOAD may ask for (RFC 7296 1.2).
pub fn offers_ke(offer: &[Proposal], ke: Ke) -> bool {
    let _ = (offer, ke);
    todo!()
}

/// As responder: chooses from the peer's offer by this host's preference; `spi` is this host's when
/// an IKE SA is rekeyed. The caller compares `suite.ke` with the KE payload (INVALID_KE_PAYLOAD).
pub fn choose_ike(
    ours: &[Proposal],
    theirs: &[Proposal],
    spi: Option<IkeSpi>,
    provider: &dyn Provider,
) -> Option<Chosen<IkeSuite>> {
    let _ = (ours, theirs, spi, provider);
    todo!()
}

/// As responder, for ESP; `spi` is this host's inbound SPI. With `suite.ke` the caller needs a KE
/// payload of that method.
pub fn choose_esp(
    ours: &[Proposal],
    theirs: &[Proposal],
    spi: Spi,
    exchange: ChildExchange,
    provider: &dyn Provider,
) -> Option<Chosen<EspSuite>> {
    let _ = (ours, theirs, spi, exchange, provider);
    todo!()
}

/// As initiator: checks what the responder chose from `offered` (what [`offer_ike`] made).
pub fn check_answer_ike(offered: &[Proposal], answer: &[Proposal]) -> Result<Chosen<IkeSuite>, Misbehaviour> {
    let _ = (offered, answer);
    todo!()
}

/// As initiator, for ESP.
pub fn check_answer_esp(offered: &[Proposal], answer: &[Proposal]) -> Result<Chosen<EspSuite>, Misbehaviour> {
    let _ = (offered, answer);
    todo!()
}

/// `aes128-sha256-modp2048` or `aes128gcm16-prfsha256-ecp256`: strongSwan's syntax.
pub fn suite_text(suite: &IkeSuite) -> String {
    let _ = suite;
    todo!()
}

/// `aes128gcm16`, `aes128-sha256-modp2048-esn`.
pub fn suite_text_esp(suite: &EspSuite) -> String {
    let _ = suite;
    todo!()
}

/// Both lists side by side with what keeps the nearest pair apart, for the log of a NO_PROPOSAL_CHOSEN.
pub fn explain(ours: &[Proposal], theirs: &[Proposal]) -> String {
    let _ = (ours, theirs);
    todo!()
}
