//! Suites for people: what was agreed, and why nothing was.

use crypto::Provider;
use crypto::cipher::CipherSpec;
use crypto::native::Native;
use wire::esp::Spi;
use wire::proposal::{Proposal, Transform};
use wire::registry::{Encr, Integ, Ke, Prf, ProtocolId, Sn, TransformType};
use wire::suite_text::to_text;

use crate::multi_ke;
use crate::negotiate::{self, ChildExchange, EspSuite, IkeSuite};

/// `aes128-sha256-modp2048` or `aes128gcm16-prfsha256-x25519-ke1_mlkem768`: strongSwan's syntax.
pub fn suite_text(suite: &IkeSuite) -> String {
    let mut transforms = cipher(suite.cipher);
    transforms.push(Transform::prf(suite.prf));
    transforms.push(Transform::ke(suite.ke));
    transforms.extend(suite.additional.transforms());
    text(ProtocolId::IKE, transforms)
}

/// `aes128gcm16`, `aes128-sha256-modp2048-esn`.
pub fn suite_text_esp(suite: &EspSuite) -> String {
    let mut transforms = cipher(suite.cipher);
    transforms.extend(suite.ke.map(Transform::ke));
    transforms.extend(suite.additional.transforms());
    let sn = if suite.esn { Sn::ESN } else { Sn::SEQ_32 };
    transforms.push(Transform::sn(sn));
    text(ProtocolId::ESP, transforms)
}

/// What of a configured proposal cannot be done, or should not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Review {
    /// Whether anything is left that can be agreed on.
    pub usable: bool,
    /// Algorithms that Warren does not have; they are left out of offers.
    pub missing: Vec<String>,
    /// Algorithms that RFC 8221 and RFC 8247 discourage, each with the reason.
    pub weak: Vec<String>,
}

/// Looks a proposal over by what the real provider has and what the RFCs say.
pub fn review(proposal: &Proposal) -> Review {
    let usable = match proposal.protocol {
        ProtocolId::IKE => negotiate::offer_ike(std::slice::from_ref(proposal), None, &Native),
        _ => {
            let (spi, exchange) = (Spi(256), ChildExchange::Create);
            negotiate::offer_esp(std::slice::from_ref(proposal), spi, exchange, &Native)
        }
    };
    let word = |t: &Transform| text(proposal.protocol, vec![t.clone()]);
    let left = usable.first().map_or(&[][..], |offer| &offer.transforms);
    let absent = |t: &&Transform| match usable.is_empty() {
        true => !known(t),
        false => !left.contains(t),
    };
    let missing = proposal.transforms.iter().filter(absent).map(word).collect();
    let weak = proposal.transforms.iter().filter(|t| !absent(t));
    let weak = weak.filter_map(|t| Some(format!("{} {}", word(t), weakness(t)?))).collect();
    Review { usable: !usable.is_empty(), missing, weak }
}

/// Whether the real provider has an algorithm at all.
fn known(t: &Transform) -> bool {
    match t.kind {
        TransformType::ENCR => {
            let spec =
                |integ| CipherSpec { encr: Encr(t.id), key_bits: t.key_bits.unwrap_or(0), integ };
            [Integ::NONE, Integ::HMAC_SHA2_256_128].map(spec).iter().any(|s| Native.has_cipher(*s))
        }
        TransformType::INTEG => Native.integ_key_len(Integ(t.id)).is_ok(),
        TransformType::PRF => Native.has_prf(Prf(t.id)),
        TransformType::SN => true,
        _ => t.id == Ke::NONE.0 || Native.has_kx(Ke(t.id)),
    }
}

fn weakness(t: &Transform) -> Option<&'static str> {
    match (t.kind, t.id) {
        (TransformType::INTEG, id) if id == Integ::HMAC_SHA1_96.0 => {
            Some("is SHA-1, which is on its way out (RFC 8221, RFC 8247); use sha256")
        }
        (TransformType::PRF, id) if id == Prf::HMAC_SHA1.0 => {
            Some("is SHA-1, which is on its way out (RFC 8247); use prfsha256")
        }
        (TransformType::KE, id) if id == Ke::MODP_1536.0 => {
            Some("should not be used any more (RFC 8247); use modp2048 or curve25519")
        }
        (TransformType::ENCR, id) if id == Encr::NULL.0 || id == Encr::NULL_AES_GMAC.0 => {
            Some("does not encrypt: packets are readable on the wire")
        }
        _ => None,
    }
}

/// Both lists side by side with what keeps the nearest pair apart, for the log of a NO_PROPOSAL_CHOSEN:
/// `ours: aes128-sha256-modp2048; theirs: aes256-sha256-modp2048; nearest: ENCR differs`.
pub fn explain(ours: &[Proposal], theirs: &[Proposal]) -> String {
    let mut out = format!("ours: {}; theirs: {}", list(ours), list(theirs));
    let pairs = ours.iter().flat_map(|own| theirs.iter().map(move |peer| apart(own, peer)));
    if let Some(kinds) = pairs.min_by_key(Vec::len).filter(|kinds| !kinds.is_empty()) {
        let names: Vec<_> = kinds.iter().map(TransformType::to_string).collect();
        let verb = if names.len() == 1 { "differs" } else { "differ" };
        out.push_str(&format!("; nearest: {} {verb}", names.join(" and ")));
    }
    out
}

/// Proposals that are shown; a peer may send many.
const SHOWN: usize = 8;
/// Letters of a list that are shown; a proposal may have hundreds of transforms.
const LETTERS: usize = 400;

/// A list of proposals in one line of bounded length.
pub(crate) fn list(proposals: &[Proposal]) -> String {
    if proposals.is_empty() {
        return "none".into();
    }
    let mut out: Vec<_> = proposals.iter().take(SHOWN).map(to_text).collect();
    if proposals.len() > SHOWN {
        out.push(format!("and {} more", proposals.len() - SHOWN));
    }
    let text = out.join(", ");
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The transform types in which the two have nothing in common. NONE and nothing are the same.
fn apart(own: &Proposal, peer: &Proposal) -> Vec<TransformType> {
    let none = |t: &Transform| {
        let optional = matches!(t.kind, TransformType::INTEG | TransformType::KE);
        let optional = optional || multi_ke::is_additional(t.kind);
        optional && t.id == 0
    };
    let of = |p: &Proposal, kind| -> Vec<Transform> {
        let all = p.of_kind(kind).filter(|t| !t.unknown_attribute);
        all.filter(|t| !none(t)).cloned().collect()
    };
    let goes_without = |p: &Proposal, kind| !p.has(kind) || p.of_kind(kind).any(none);
    let common = |kind| {
        let theirs = of(peer, kind);
        of(own, kind).iter().any(|t| theirs.contains(t))
            || (goes_without(own, kind) && goes_without(peer, kind))
    };
    let mut kinds: Vec<_> = own.transforms.iter().chain(&peer.transforms).map(|t| t.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.retain(|kind| !common(*kind));
    kinds
}

fn cipher(spec: CipherSpec) -> Vec<Transform> {
    let encr = Transform::encr(spec.encr, (spec.key_bits != 0).then_some(spec.key_bits));
    let integ = (spec.integ != Integ::NONE).then(|| Transform::integ(spec.integ));
    [encr].into_iter().chain(integ).collect()
}

fn text(protocol: ProtocolId, transforms: Vec<Transform>) -> String {
    to_text(&Proposal { number: 1, protocol, spi: Vec::new(), transforms })
}
