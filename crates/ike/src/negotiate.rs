//! Choosing proposals (RFC 7296 2.7, 3.3).

use crypto::Provider;
use crypto::cipher::CipherSpec;
use wire::esp::Spi;
use wire::message::IkeSpi;
use wire::proposal::{Proposal, Transform};
use wire::registry::{Encr, Integ, Ke, Prf, ProtocolId, Sn, TransformType};

use crate::error::Misbehaviour;
use crate::multi_ke::{self, Additional, is_additional};

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IkeSuite {
    /// Of the SK payload.
    pub cipher: CipherSpec,
    /// Pseudorandom function.
    pub prf: Prf,
    /// Key exchange method.
    pub ke: Ke,
    /// Key exchanges after that one (RFC 9370).
    pub additional: Additional,
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
    /// Key exchanges after that one (RFC 9370).
    pub additional: Additional,
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
    /// In IKE_AUTH: no key exchange of its own, KE and ADDKE transforms are left out and ignored (RFC 7296 1.2).
    Auth,
    /// In CREATE_CHILD_SA.
    Create,
}

impl<S> Chosen<S> {
    /// The peer's SPI of a rekeyed IKE SA; `None` if it has not that form, or is zero.
    pub fn peer_ike_spi(&self) -> Option<IkeSpi> {
        let spi = u64::from_be_bytes(self.peer_spi.as_slice().try_into().ok()?);
        (spi != 0).then_some(IkeSpi(spi))
    }

    /// The peer's SPI of an ESP SA; `None` if it has not that form, or is reserved (below 256, RFC 4303 2.1).
    pub fn peer_esp_spi(&self) -> Option<Spi> {
        let spi = u32::from_be_bytes(self.peer_spi.as_slice().try_into().ok()?);
        (spi >= 256).then_some(Spi(spi))
    }
}

/// An IKE offer, numbered from 1; `spi` is this host's when an IKE SA is rekeyed. What the provider lacks is left out.
pub fn offer_ike(ours: &[Proposal], spi: Option<IkeSpi>, provider: &dyn Provider) -> Vec<Proposal> {
    offer(ours, &Rules::ike(spi), provider)
}

/// An ESP offer, numbered from 1.
pub fn offer_esp(
    ours: &[Proposal],
    spi: Spi,
    exchange: ChildExchange,
    provider: &dyn Provider,
) -> Vec<Proposal> {
    offer(ours, &Rules::esp(spi, exchange), provider)
}

/// The first key exchange method of an offer: whose public value goes along. `None`: there is none.
pub fn first_ke(offer: &[Proposal]) -> Option<Ke> {
    let mut methods = offer.iter().flat_map(|p| p.of_kind(TransformType::KE));
    methods.find(|t| t.id != Ke::NONE.0).map(|t| Ke(t.id))
}

/// Whether an offer has this method: what INVALID_KE_PAYLOAD may ask for (RFC 7296 1.2).
pub fn offers_ke(offer: &[Proposal], ke: Ke) -> bool {
    let mut methods = offer.iter().flat_map(|p| p.of_kind(TransformType::KE));
    ke != Ke::NONE && methods.any(|t| t.id == ke.0)
}

/// As responder: chooses from the peer's offer by this host's preference; `spi` is this host's when
/// an IKE SA is rekeyed. The caller compares `suite.ke` with the KE payload (INVALID_KE_PAYLOAD).
pub fn choose_ike(
    ours: &[Proposal],
    theirs: &[Proposal],
    spi: Option<IkeSpi>,
    provider: &dyn Provider,
) -> Option<Chosen<IkeSuite>> {
    let (proposal, peer_spi) = choose(ours, theirs, &Rules::ike(spi), provider)?;
    let suite = ike_suite(&proposal)?;
    Some(Chosen { proposal, peer_spi, suite })
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
    let (proposal, peer_spi) = choose(ours, theirs, &Rules::esp(spi, exchange), provider)?;
    let suite = esp_suite(&proposal)?;
    Some(Chosen { proposal, peer_spi, suite })
}

/// As initiator: checks what the responder chose from `offered` (what [`offer_ike`] made).
pub fn check_answer_ike(
    offered: &[Proposal],
    answer: &[Proposal],
) -> Result<Chosen<IkeSuite>, Misbehaviour> {
    let proposal = check_answer(offered, answer)?;
    let suite = ike_suite(&proposal).ok_or(Misbehaviour::ChoseUnoffered)?;
    Ok(Chosen { peer_spi: proposal.spi.clone(), proposal, suite })
}

/// As initiator, for ESP (what [`offer_esp`] made).
pub fn check_answer_esp(
    offered: &[Proposal],
    answer: &[Proposal],
) -> Result<Chosen<EspSuite>, Misbehaviour> {
    let proposal = check_answer(offered, answer)?;
    let suite = esp_suite(&proposal).ok_or(Misbehaviour::ChoseUnoffered)?;
    Ok(Chosen { peer_spi: proposal.spi.clone(), proposal, suite })
}

/// What a proposal of one protocol in one exchange must look like.
struct Rules {
    protocol: ProtocolId,
    /// This host's SPI; the peer's has the same length.
    spi: Vec<u8>,
    /// Transform types that may stand there, in the order of an answer (RFC 7296 3.3.3).
    kinds: &'static [TransformType],
    /// Those that must.
    mandatory: &'static [TransformType],
    /// KE and ADDKE transforms are passed over, on both sides.
    ignore_ke: bool,
}

impl Rules {
    fn ike(spi: Option<IkeSpi>) -> Self {
        use TransformType as T;
        Self {
            protocol: ProtocolId::IKE,
            spi: spi.map(|spi| spi.0.to_be_bytes().to_vec()).unwrap_or_default(),
            kinds: &[
                T::ENCR,
                T::PRF,
                T::INTEG,
                T::KE,
                T::ADDKE1,
                T::ADDKE2,
                T::ADDKE3,
                T::ADDKE4,
                T::ADDKE5,
                T::ADDKE6,
                T::ADDKE7,
            ],
            mandatory: &[T::ENCR, T::PRF, T::KE],
            ignore_ke: false,
        }
    }

    fn esp(spi: Spi, exchange: ChildExchange) -> Self {
        use TransformType as T;
        Self {
            protocol: ProtocolId::ESP,
            spi: spi.0.to_be_bytes().to_vec(),
            kinds: &[
                T::ENCR,
                T::INTEG,
                T::KE,
                T::SN,
                T::ADDKE1,
                T::ADDKE2,
                T::ADDKE3,
                T::ADDKE4,
                T::ADDKE5,
                T::ADDKE6,
                T::ADDKE7,
            ],
            mandatory: &[T::ENCR, T::SN],
            ignore_ke: exchange == ChildExchange::Auth,
        }
    }

    /// Ours as it counts under these rules: no KE where it does not belong, sequence numbers named.
    /// `None` if it asks for what is not done here: to leave that out would weaken it.
    fn own(&self, proposal: &Proposal) -> Option<Proposal> {
        let mut own = proposal.clone();
        if !own.transforms.iter().all(|t| self.kinds.contains(&t.kind)) {
            return None;
        }
        if self.protocol == ProtocolId::IKE {
            // ENCR_NULL is for ESP alone (RFC 7296 3.14: the payload is encrypted).
            let null = Transform::encr(Encr::NULL, None);
            own.transforms.retain(|t| *t != null);
        }
        if self.ignore_ke {
            own.transforms.retain(|t| t.kind != TransformType::KE && !is_additional(t.kind));
        }
        let sn = TransformType::SN;
        if self.mandatory.contains(&sn) && !own.has(sn) {
            own.transforms.push(Transform::sn(Sn::SEQ_32));
        }
        Some(own)
    }

    /// Whether a peer's proposal may be considered at all (RFC 7296 3.3.6): nothing in it that is
    /// not understood, nothing mandatory missing.
    fn admit(&self, theirs: &Proposal) -> bool {
        theirs.protocol == self.protocol
            && theirs.spi.len() == self.spi.len()
            && theirs.transforms.iter().all(|t| self.kinds.contains(&t.kind))
            && self.mandatory.iter().all(|kind| theirs.has(*kind))
    }
}

fn offer(ours: &[Proposal], rules: &Rules, provider: &dyn Provider) -> Vec<Proposal> {
    let ours = ours.iter().filter_map(|own| Some(available(&rules.own(own)?, provider)));
    let whole = ours.filter(|own| pick(own, None, rules, provider).is_some());
    (1..=u8::MAX)
        .zip(whole)
        .map(|(number, own)| Proposal {
            number,
            protocol: rules.protocol,
            spi: rules.spi.clone(),
            ..own
        })
        .collect()
}

/// Without the transforms that the provider lacks.
fn available(own: &Proposal, provider: &dyn Provider) -> Proposal {
    let mut out = own.clone();
    out.transforms.retain(|t| match t.kind {
        TransformType::ENCR => integs(own, t).any(|i| provider.has_cipher(cipher_spec(t, i))),
        TransformType::INTEG => own
            .of_kind(TransformType::ENCR)
            .any(|e| provider.has_cipher(cipher_spec(e, Integ(t.id)))),
        TransformType::PRF => provider.has_prf(Prf(t.id)),
        kind if kind == TransformType::KE || is_additional(kind) => {
            t.id == Ke::NONE.0 || provider.has_kx(Ke(t.id))
        }
        _ => true,
    });
    // A type of which nothing is left asked for something that cannot be done.
    let gone = own.additional_kes().any(|(_, t)| !out.has(t.kind));
    if gone {
        out.transforms.clear();
    }
    out
}

/// What INTEG may stand with this ENCR: NONE, or nothing, with an AEAD (RFC 5282 8).
fn integs<'a>(own: &'a Proposal, encr: &Transform) -> impl Iterator<Item = Integ> + use<'a> {
    let aead = Encr(encr.id).is_aead();
    let named = own.of_kind(TransformType::INTEG).map(|t| Integ(t.id));
    let unnamed = (!own.has(TransformType::INTEG)).then_some(Integ::NONE);
    named.chain(unnamed).filter(move |integ| !aead || *integ == Integ::NONE)
}

/// The first acceptable pair, ours by preference, and the peer's SPI.
fn choose(
    ours: &[Proposal],
    theirs: &[Proposal],
    rules: &Rules,
    provider: &dyn Provider,
) -> Option<(Proposal, Vec<u8>)> {
    ours.iter().filter_map(|own| rules.own(own)).find_map(|own| {
        theirs.iter().filter(|theirs| rules.admit(theirs)).find_map(|theirs| {
            let transforms = pick(&own, Some(theirs), rules, provider)?;
            let (number, protocol, spi) = (theirs.number, rules.protocol, rules.spi.clone());
            Some((Proposal { number, protocol, spi, transforms }, theirs.spi.clone()))
        })
    })
}

/// One transform of each type that both have (`theirs` `None`: that ours has), in the order of an answer.
fn pick(
    own: &Proposal,
    theirs: Option<&Proposal>,
    rules: &Rules,
    provider: &dyn Provider,
) -> Option<Vec<Transform>> {
    let cipher = pick_cipher(own, theirs, provider)?;
    let mut out: Vec<Transform> = Vec::with_capacity(rules.kinds.len());
    for kind in rules.kinds.iter().filter(|kind| !is_additional(**kind)) {
        let chosen = match *kind {
            TransformType::ENCR | TransformType::INTEG => {
                cipher.iter().find(|t| t.kind == *kind).cloned()
            }
            TransformType::KE if rules.ignore_ke => None,
            kind if rules.mandatory.contains(&kind) => Some(pick_one(own, theirs, kind, provider)?),
            kind => pick_optional(own, theirs, kind, provider)?,
        };
        out.extend(chosen);
    }
    if !rules.ignore_ke {
        let first = out.iter().find(|t| t.kind == TransformType::KE).map(|t| Ke(t.id));
        out.extend(multi_ke::pick(own, theirs.unwrap_or(own), first, provider)?);
    }
    Some(out)
}

/// ENCR, and INTEG where the peer named one.
fn pick_cipher(
    own: &Proposal,
    theirs: Option<&Proposal>,
    provider: &dyn Provider,
) -> Option<Vec<Transform>> {
    let theirs = theirs.unwrap_or(own);
    for encr in own.of_kind(TransformType::ENCR).filter(|t| offers(theirs, t)) {
        for integ in integs(own, encr) {
            if !provider.has_cipher(cipher_spec(encr, integ)) {
                continue;
            }
            let named = Transform::integ(integ);
            if offers(theirs, &named) {
                return Some(vec![encr.clone(), named]);
            }
            if integ == Integ::NONE && !theirs.has(TransformType::INTEG) {
                return Some(vec![encr.clone()]);
            }
        }
    }
    None
}

fn pick_one(
    own: &Proposal,
    theirs: Option<&Proposal>,
    kind: TransformType,
    provider: &dyn Provider,
) -> Option<Transform> {
    let there = |t: &&Transform| match kind {
        TransformType::PRF => provider.has_prf(Prf(t.id)),
        TransformType::KE => t.id != Ke::NONE.0 && provider.has_kx(Ke(t.id)),
        _ => true,
    };
    own.of_kind(kind).filter(there).find(|t| theirs.is_none_or(|p| offers(p, t))).cloned()
}

/// A type that may be missing, which is the same as NONE (KE of ESP): `None` if there is no agreement.
fn pick_optional(
    own: &Proposal,
    theirs: Option<&Proposal>,
    kind: TransformType,
    provider: &dyn Provider,
) -> Option<Option<Transform>> {
    if let Some(chosen) = pick_one(own, theirs, kind, provider) {
        return Some(Some(chosen));
    }
    let none = Transform::new(kind, 0);
    let named = |p: &Proposal| offers(p, &none);
    let missing = |p: &Proposal| !p.has(kind);
    let theirs = theirs.unwrap_or(own);
    let agreed = (named(own) || missing(own)) && (named(theirs) || missing(theirs));
    agreed.then(|| named(theirs).then(|| none.clone()))
}

/// An answer is one proposal of the offer with one transform of each type that was offered (RFC 7296 3.3.6).
fn check_answer(offered: &[Proposal], answer: &[Proposal]) -> Result<Proposal, Misbehaviour> {
    let [answer] = answer else { return Err(Misbehaviour::ChoseUnoffered) };
    let same = |p: &&Proposal| {
        p.number == answer.number
            && p.protocol == answer.protocol
            && p.spi.len() == answer.spi.len()
    };
    let offered = offered.iter().find(same).ok_or(Misbehaviour::ChoseUnoffered)?;
    let mut answer = answer.clone();
    // Some answer an AEAD with the INTEG NONE that was left out; it means the same.
    let none = Transform::integ(Integ::NONE);
    if !offered.has(TransformType::INTEG) {
        answer.transforms.retain(|t| *t != none);
    }
    let from_offer = answer.transforms.iter().all(|t| offers(offered, t));
    // NONE may be left out of an answer for an additional key exchange.
    let least = |kind| usize::from(!is_additional(kind) || !multi_ke::goes_without(offered, kind));
    let kinds = || offered.transforms.iter().map(|t| t.kind);
    let one_each = kinds().all(|kind| (least(kind)..=1).contains(&answer.of_kind(kind).count()));
    let fits = from_offer && one_each && Additional::of(&answer).distinct();
    if fits { Ok(answer) } else { Err(Misbehaviour::ChoseUnoffered) }
}

fn ike_suite(chosen: &Proposal) -> Option<IkeSuite> {
    let one = |kind| chosen.of_kind(kind).next();
    Some(IkeSuite {
        cipher: cipher_of(chosen)?,
        prf: Prf(one(TransformType::PRF)?.id),
        ke: Ke(one(TransformType::KE)?.id),
        additional: Additional::of(chosen),
    })
}

fn esp_suite(chosen: &Proposal) -> Option<EspSuite> {
    let one = |kind| chosen.of_kind(kind).next();
    let suite = EspSuite {
        cipher: cipher_of(chosen)?,
        esn: one(TransformType::SN)?.id == Sn::ESN.0,
        ke: one(TransformType::KE).map(|t| Ke(t.id)).filter(|ke| *ke != Ke::NONE),
        additional: Additional::of(chosen),
    };
    // There is nothing to add to without a first key exchange.
    (suite.ke.is_some() || suite.additional.is_empty()).then_some(suite)
}

/// Every cipher that an ESP proposal leaves to choose from.
pub fn esp_ciphers(proposal: &Proposal) -> Vec<CipherSpec> {
    let integs: Vec<Integ> = proposal.of_kind(TransformType::INTEG).map(|t| Integ(t.id)).collect();
    let of = |encr: &Transform| match Encr(encr.id).is_aead() {
        true => vec![cipher_spec(encr, Integ::NONE)],
        false => integs.iter().map(|integ| cipher_spec(encr, *integ)).collect(),
    };
    proposal.of_kind(TransformType::ENCR).flat_map(of).collect()
}

fn cipher_of(chosen: &Proposal) -> Option<CipherSpec> {
    let encr = chosen.of_kind(TransformType::ENCR).next()?;
    let integ = chosen.of_kind(TransformType::INTEG).next().map_or(Integ::NONE, |t| Integ(t.id));
    let fits = Encr(encr.id).is_aead() == (integ == Integ::NONE);
    fits.then(|| cipher_spec(encr, integ))
}

fn cipher_spec(encr: &Transform, integ: Integ) -> CipherSpec {
    CipherSpec { encr: Encr(encr.id), key_bits: encr.key_bits.unwrap_or(0), integ }
}

/// Whether the very transform is there: same algorithm, same key length, no attribute that is not understood.
fn offers(proposal: &Proposal, wanted: &Transform) -> bool {
    !wanted.unknown_attribute && proposal.transforms.contains(wanted)
}
