//! strongSwan's proposal syntax: `aes128-sha256-modp2048`, `aes128gcm16`, a trailing `!` accepted.
//!
//! Keywords are joined by `-`, in any order; several of one kind are alternatives. `ke1_` to `ke7_`
//! before a key exchange method ask for additional exchanges (RFC 9370). What the protocol cannot
//! work with is refused here, with the remedy, instead of at the first handshake.

mod keywords;

use crate::proposal::{Proposal, Transform};
use crate::registry::{Encr, Integ, Ke, Prf, ProtocolId, Sn, TransformType};
use keywords::{Algorithm, Keyword};

/// Why a proposal's text was refused; `Display` says it with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuiteError {
    /// A keyword that is not known; `known` lists those that are, `nearest` the likeliest meant.
    #[error("unknown algorithm `{keyword}`{}; known are: {known}", .nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default())]
    UnknownAlgorithm {
        /// What was written.
        keyword: String,
        /// The most similar known keyword, if any is near.
        nearest: Option<String>,
        /// All known keywords, comma-separated.
        known: String,
    },
    /// Known, but missing a kind without which the protocol cannot work, or combined wrongly.
    #[error("{0}")]
    Incomplete(String),
}

/// Reads an IKE proposal. The PRF follows from the integrity algorithm where none is named; beside an
/// AEAD the integrity algorithm names only the PRF, and is not offered itself (RFC 5282 8).
pub fn parse_ike(text: &str) -> Result<Proposal, SuiteError> {
    let words = read(text)?;
    let mut transforms = transforms(&words);
    check_ike(text, &transforms)?;
    if !has(&transforms, TransformType::PRF) {
        transforms.extend(implied_prfs(&transforms));
    }
    if is_aead(&transforms) {
        transforms.retain(|t| t.kind != TransformType::INTEG);
    }
    finish(text, ProtocolId::IKE, transforms)
}

/// Reads an ESP proposal. A key exchange method in it asks for PFS; `esn` and `noesn` choose sequence
/// numbers: both together offer both, neither means `noesn`, as in strongSwan.
pub fn parse_esp(text: &str) -> Result<Proposal, SuiteError> {
    let words = read(text)?;
    let mut transforms = transforms(&words);
    check_esp(text, &transforms)?;
    if !has(&transforms, TransformType::SN) {
        transforms.push(Transform::sn(Sn::SEQ_32));
    }
    // `none` alone says no more than no key exchange at all.
    if transforms.iter().all(|t| t.kind != TransformType::KE || t.id == Ke::NONE.0) {
        transforms.retain(|t| t.kind != TransformType::KE);
    }
    finish(text, ProtocolId::ESP, transforms)
}

/// Reads several proposals separated by commas, with one of the two parsers; they are numbered from 1.
pub fn parse_list(
    text: &str,
    parse: impl Fn(&str) -> Result<Proposal, SuiteError>,
) -> Result<Vec<Proposal>, SuiteError> {
    let parts: Vec<_> = text.split(',').collect();
    if parts.len() > crate::payload::MAX_PROPOSALS {
        return Err(SuiteError::Incomplete(format!(
            "{} proposals, but no more than {} fit into an offer; leave some out",
            parts.len(),
            crate::payload::MAX_PROPOSALS
        )));
    }
    let numbered = (1_u8..).zip(parts);
    numbered.map(|(number, part)| Ok(Proposal { number, ..parse(part)? })).collect()
}

/// The text that reads as this proposal. An algorithm without a keyword stands as its name in capitals,
/// which does not read back.
pub fn to_text(proposal: &Proposal) -> String {
    let keywords = keywords::all();
    let implied = implied_prfs(&proposal.transforms);
    let shown = proposal.transforms.iter().filter(|t| match t.kind {
        TransformType::PRF => !proposal.of_kind(TransformType::PRF).eq(implied.iter()),
        TransformType::SN => !proposal.of_kind(TransformType::SN).all(|t| t.id == Sn::SEQ_32.0),
        _ => true,
    });
    let mut sorted: Vec<_> = shown.collect();
    sorted.sort_by_key(|t| rank(t.kind));
    let words: Vec<_> = sorted.into_iter().map(|t| keyword_of(t, keywords)).collect();
    words.join("-")
}

/// A word of the text: the type of its transform, and the algorithm.
type Word = (TransformType, Algorithm);

fn read(text: &str) -> Result<Vec<Word>, SuiteError> {
    let text = text.trim();
    let text = text.strip_suffix('!').unwrap_or(text).trim_end().to_ascii_lowercase();
    if text.is_empty() {
        return Err(SuiteError::Incomplete(
            "the proposal is empty; write algorithms joined by `-`, such as aes128-sha256-modp2048"
                .into(),
        ));
    }
    let keywords = keywords::all();
    text.split('-').map(|word| read_word(word, keywords)).collect()
}

fn read_word(word: &str, keywords: &[Keyword]) -> Result<Word, SuiteError> {
    let find = |name: &str| keywords.iter().find(|(k, _)| k == name).map(|(_, a)| *a);
    if let Some(algorithm) = find(word) {
        return Ok((kind(algorithm), algorithm));
    }
    if let Some((number, name)) = additional(word)
        && let Some(ke @ Algorithm::Ke(_)) = find(name)
    {
        return Ok((TransformType(TransformType::ADDKE1.0 + number - 1), ke));
    }
    Err(unknown(word, keywords))
}

/// `ke3_NAME`: the number and the name.
fn additional(word: &str) -> Option<(u8, &str)> {
    let (number, name) = word.strip_prefix("ke")?.split_once('_')?;
    match number.as_bytes() {
        [digit @ b'1'..=b'7'] => Some((digit - b'0', name)),
        _ => None,
    }
}

fn unknown(word: &str, keywords: &[Keyword]) -> SuiteError {
    let names = || keywords.iter().map(|(k, _)| k.as_str());
    let nearest = match additional(word) {
        Some((number, name)) => keywords::nearest(name, names()).map(|k| format!("ke{number}_{k}")),
        None => keywords::nearest(word, names()),
    };
    let mut known: Vec<_> = names().collect();
    known.push("ke1_ to ke7_ before a key exchange method");
    let keyword = word.chars().take(64).collect();
    SuiteError::UnknownAlgorithm { keyword, nearest, known: known.join(", ") }
}

fn kind(algorithm: Algorithm) -> TransformType {
    match algorithm {
        Algorithm::Encr(..) => TransformType::ENCR,
        Algorithm::Integ(..) => TransformType::INTEG,
        Algorithm::Prf(_) => TransformType::PRF,
        Algorithm::Ke(_) => TransformType::KE,
        Algorithm::Sn(_) => TransformType::SN,
    }
}

/// The transforms in the order of the text, each once.
fn transforms(words: &[Word]) -> Vec<Transform> {
    let mut out: Vec<Transform> = Vec::new();
    for (kind, algorithm) in words {
        let (id, key_bits) = match *algorithm {
            Algorithm::Encr(encr, bits) => (encr.0, bits),
            Algorithm::Integ(integ, _) => (integ.0, None),
            Algorithm::Prf(prf) => (prf.0, None),
            Algorithm::Ke(ke) => (ke.0, None),
            Algorithm::Sn(sn) => (sn.0, None),
        };
        let transform = Transform { key_bits, ..Transform::new(*kind, id) };
        if !out.contains(&transform) {
            out.push(transform);
        }
    }
    out
}

fn has(transforms: &[Transform], kind: TransformType) -> bool {
    transforms.iter().any(|t| t.kind == kind)
}

fn encrs(transforms: &[Transform]) -> impl Iterator<Item = Encr> {
    transforms.iter().filter(|t| t.kind == TransformType::ENCR).map(|t| Encr(t.id))
}

fn is_aead(transforms: &[Transform]) -> bool {
    encrs(transforms).any(Encr::is_aead)
}

fn implied_prfs(transforms: &[Transform]) -> Vec<Transform> {
    let mut out: Vec<Transform> = Vec::new();
    for transform in transforms.iter().filter(|t| t.kind == TransformType::INTEG) {
        if let Some(prf) = keywords::implied_prf(Integ(transform.id)).map(Transform::prf)
            && !out.contains(&prf)
        {
            out.push(prf);
        }
    }
    out
}

fn check_ike(text: &str, transforms: &[Transform]) -> Result<(), SuiteError> {
    let missing =
        |what: &str| Err(SuiteError::Incomplete(format!("IKE proposal `{text}`: {what}")));
    check_encr(text, "IKE", transforms)?;
    if encrs(transforms).any(|e| e == Encr::NULL || e == Encr::NULL_AES_GMAC) {
        return missing("an IKE SA is always encrypted; use an algorithm such as aes128");
    }
    if has(transforms, TransformType::SN) {
        return missing("esn and noesn belong in an ESP proposal; leave them out");
    }
    let (integ, prf) = (has(transforms, TransformType::INTEG), has(transforms, TransformType::PRF));
    if is_aead(transforms) && !integ && !prf {
        return missing("no pseudorandom function; add one, such as prfsha256");
    }
    if !is_aead(transforms) && !integ {
        return missing("no integrity algorithm; add one, such as sha256");
    }
    let mut kes = transforms.iter().filter(|t| t.kind == TransformType::KE);
    match kes.clone().next() {
        None => missing("no key exchange method; add one, such as modp2048 or curve25519"),
        Some(_) if kes.any(|t| t.id == Ke::NONE.0) => {
            missing("IKE cannot do without a key exchange; replace `none` by one, such as modp2048")
        }
        Some(_) => Ok(()),
    }
}

fn check_esp(text: &str, transforms: &[Transform]) -> Result<(), SuiteError> {
    let missing =
        |what: &str| Err(SuiteError::Incomplete(format!("ESP proposal `{text}`: {what}")));
    check_encr(text, "ESP", transforms)?;
    if has(transforms, TransformType::PRF) {
        return missing("a pseudorandom function belongs in an IKE proposal; leave it out");
    }
    let integ = has(transforms, TransformType::INTEG);
    if is_aead(transforms) && integ {
        return missing(
            "the encryption algorithm has its own integrity check; leave the integrity algorithm out",
        );
    }
    if !is_aead(transforms) && !integ {
        return missing(
            "no integrity algorithm; add one, such as sha256, or use an AEAD such as aes128gcm16",
        );
    }
    let additional = transforms.iter().any(|t| rank(t.kind) == rank(TransformType::ADDKE1));
    if additional && !transforms.iter().any(|t| t.kind == TransformType::KE && t.id != Ke::NONE.0) {
        return missing(
            "additional key exchanges (ke1_ to ke7_) need a first one; add it, such as curve25519",
        );
    }
    Ok(())
}

fn check_encr(text: &str, protocol: &str, transforms: &[Transform]) -> Result<(), SuiteError> {
    let missing =
        |what: &str| Err(SuiteError::Incomplete(format!("{protocol} proposal `{text}`: {what}")));
    if !has(transforms, TransformType::ENCR) {
        return missing("no encryption algorithm; add one, such as aes128 or aes128gcm16");
    }
    if is_aead(transforms) && !encrs(transforms).all(Encr::is_aead) {
        return missing(
            "algorithms with and without their own integrity check cannot share a proposal; write two, separated by a comma",
        );
    }
    Ok(())
}

fn finish(
    text: &str,
    protocol: ProtocolId,
    transforms: Vec<Transform>,
) -> Result<Proposal, SuiteError> {
    if transforms.len() > usize::from(u8::MAX) {
        return Err(SuiteError::Incomplete(format!(
            "{protocol} proposal `{text}`: {} algorithms, but no more than 255 fit; leave some out",
            transforms.len()
        )));
    }
    Ok(Proposal { number: 1, protocol, spi: Vec::new(), transforms })
}

/// The place of a kind in the text.
fn rank(kind: TransformType) -> u8 {
    match kind {
        TransformType::ENCR => 0,
        TransformType::INTEG => 1,
        TransformType::PRF => 2,
        TransformType::KE => 3,
        TransformType::SN => 5,
        _ => 4,
    }
}

fn keyword_of(transform: &Transform, keywords: &[Keyword]) -> String {
    let (prefix, algorithm) = match transform.kind {
        TransformType::ENCR => ("".into(), Algorithm::Encr(Encr(transform.id), transform.key_bits)),
        TransformType::PRF => ("".into(), Algorithm::Prf(Prf(transform.id))),
        TransformType::INTEG => match keywords::implied_prf(Integ(transform.id)) {
            Some(prf) => ("".into(), Algorithm::Integ(Integ(transform.id), prf)),
            None => return transform.to_string(),
        },
        TransformType::KE => ("".into(), Algorithm::Ke(Ke(transform.id))),
        TransformType::SN => ("".into(), Algorithm::Sn(Sn(transform.id))),
        TransformType(n @ 6..=12) => (format!("ke{}_", n - 5), Algorithm::Ke(Ke(transform.id))),
        _ => return transform.to_string(),
    };
    match keywords.iter().find(|(_, a)| *a == algorithm) {
        Some((keyword, _)) => format!("{prefix}{keyword}"),
        None => transform.to_string(),
    }
}
