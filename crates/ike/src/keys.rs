//! Key derivation (RFC 7296 2.13, 2.14, 2.17, 2.18).

use crypto::provider::{Unsupported, prf_plus};
use crypto::{Provider, Secret};
use wire::message::IkeSpi;
use wire::registry::{Integ, Prf};

use crate::negotiate::{EspSuite, IkeSuite};

/// The seven keys of an IKE SA (RFC 7296 2.14). `sk_ai` and `sk_ar` are empty with an AEAD;
/// `sk_ei` and `sk_er` end in the cipher's salt where it has one (RFC 5282 7.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeKeys {
    /// Derives child keys and the keys of the successor.
    pub sk_d: Secret,
    /// Integrity, initiator to responder.
    pub sk_ai: Secret,
    /// Integrity, responder to initiator.
    pub sk_ar: Secret,
    /// Encryption, initiator to responder.
    pub sk_ei: Secret,
    /// Encryption, responder to initiator.
    pub sk_er: Secret,
    /// Into the initiator's AUTH payload.
    pub sk_pi: Secret,
    /// Into the responder's AUTH payload.
    pub sk_pr: Secret,
}

impl IkeKeys {
    /// Both ends are authenticated: what proves identities has done its work.
    pub(crate) fn forget_proof(&mut self) {
        (self.sk_pi, self.sk_pr) = Default::default();
    }
}

/// The keys of a child SA, by who sends with them; "initiator" is that of the exchange that made the child.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildKeys {
    /// Encryption, salt included, initiator to responder.
    pub i_encr: Secret,
    /// Integrity, initiator to responder; empty with an AEAD.
    pub i_integ: Secret,
    /// Encryption, salt included, responder to initiator.
    pub r_encr: Secret,
    /// Integrity, responder to initiator; empty with an AEAD.
    pub r_integ: Secret,
}

/// Keys of a first IKE SA: `SKEYSEED = prf(Ni | Nr, g^ir)` (RFC 7296 2.14).
///
/// `ni` and `nr` are the nonces without payload headers.
pub fn derive_initial(
    provider: &dyn Provider,
    suite: &IkeSuite,
    ni: &[u8],
    nr: &[u8],
    shared: &Secret,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
) -> Result<IkeKeys, Unsupported> {
    let (key_i, key_r) = match fixed_key_len(suite.prf) {
        // Half of the key from either nonce, the first bytes of each.
        Some(len) => (&ni[..ni.len().min(len / 2)], &nr[..nr.len().min(len / 2)]),
        None => (ni, nr),
    };
    let key = Secret::new([key_i, key_r].concat());
    let skeyseed = provider.prf(suite.prf, key.expose(), &[shared.expose()])?;
    expand(provider, suite, &skeyseed, ni, nr, spi_i, spi_r)
}

/// Keys of an IKE SA that replaces another: `SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)`
/// with the old SA's prf, the rest with the new one's (RFC 7296 2.18). Of several key exchanges the
/// shared secrets after the first come last: `… | Ni | Nr | SK(1) | …` (RFC 9370 2.2.4).
#[expect(clippy::too_many_arguments, reason = "they are the inputs of the RFC's formula")]
pub fn derive_rekeyed(
    provider: &dyn Provider,
    suite: &IkeSuite,
    old_prf: Prf,
    old_sk_d: &Secret,
    shared: &[&Secret],
    ni: &[u8],
    nr: &[u8],
    spi_i: IkeSpi,
    spi_r: IkeSpi,
) -> Result<IkeKeys, Unsupported> {
    let seed = with_secrets(shared, ni, nr);
    let skeyseed = provider.prf(old_prf, old_sk_d.expose(), &seed)?;
    expand(provider, suite, &skeyseed, ni, nr, spi_i, spi_r)
}

/// Keys of a child SA: `KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr [| SK(1) | …])` (RFC 7296 2.17, RFC 9370
/// 2.2.4).
///
/// `prf` and `sk_d` are those of the IKE SA under which the child is made; `shared` has the secrets of all
/// key exchanges, the first of them PFS.
pub fn derive_child(
    provider: &dyn Provider,
    prf: Prf,
    sk_d: &Secret,
    shared: &[&Secret],
    ni: &[u8],
    nr: &[u8],
    suite: &EspSuite,
) -> Result<ChildKeys, Unsupported> {
    let encr = suite.cipher.encr_key_len();
    let integ = integ_len(provider, suite.cipher.integ)?;
    let seed = with_secrets(shared, ni, nr);
    let keymat = prf_plus(provider, prf, sk_d.expose(), &seed, 2 * (encr + integ))?;
    let mut rest = keymat.expose();
    // The initiator's keys first; encryption before integrity.
    Ok(ChildKeys {
        i_encr: take(&mut rest, encr),
        i_integ: take(&mut rest, integ),
        r_encr: take(&mut rest, encr),
        r_integ: take(&mut rest, integ),
    })
}

/// The first shared secret, the nonces, the other secrets.
fn with_secrets<'a>(shared: &[&'a Secret], ni: &'a [u8], nr: &'a [u8]) -> Vec<&'a [u8]> {
    let mut secrets = shared.iter().map(|secret| secret.expose());
    let first = secrets.next();
    first.into_iter().chain([ni, nr]).chain(secrets).collect()
}

fn expand(
    provider: &dyn Provider,
    suite: &IkeSuite,
    skeyseed: &Secret,
    ni: &[u8],
    nr: &[u8],
    spi_i: IkeSpi,
    spi_r: IkeSpi,
) -> Result<IkeKeys, Unsupported> {
    let prf = provider.prf_len(suite.prf)?;
    let integ = integ_len(provider, suite.cipher.integ)?;
    let encr = suite.cipher.encr_key_len();
    let (spi_i, spi_r) = (spi_i.0.to_be_bytes(), spi_r.0.to_be_bytes());
    let seed: [&[u8]; 4] = [ni, nr, &spi_i, &spi_r];
    let len = 3 * prf + 2 * integ + 2 * encr;
    let keymat = prf_plus(provider, suite.prf, skeyseed.expose(), &seed, len)?;
    let mut rest = keymat.expose();
    Ok(IkeKeys {
        sk_d: take(&mut rest, prf),
        sk_ai: take(&mut rest, integ),
        sk_ar: take(&mut rest, integ),
        sk_ei: take(&mut rest, encr),
        sk_er: take(&mut rest, encr),
        sk_pi: take(&mut rest, prf),
        sk_pr: take(&mut rest, prf),
    })
}

/// Key length in bytes of a prf that takes no other (RFC 7296 2.14 names these two).
fn fixed_key_len(prf: Prf) -> Option<usize> {
    matches!(prf, Prf::AES128_XCBC | Prf::AES128_CMAC).then_some(16)
}

fn integ_len(provider: &dyn Provider, integ: Integ) -> Result<usize, Unsupported> {
    if integ == Integ::NONE { Ok(0) } else { provider.integ_key_len(integ) }
}

fn take(rest: &mut &[u8], len: usize) -> Secret {
    let (head, tail) = rest.split_at(len.min(rest.len()));
    *rest = tail;
    Secret::from(head)
}
