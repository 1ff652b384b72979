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
    let _ = (provider, suite, ni, nr, shared, spi_i, spi_r);
    todo!()
}

/// Keys of an IKE SA that replaces another: `SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)`
/// with the old SA's prf, the rest with the new one's (RFC 7296 2.18).
#[expect(clippy::too_many_arguments, reason = "they are the inputs of the RFC's formula")]
pub fn derive_rekeyed(
    provider: &dyn Provider,
    suite: &IkeSuite,
    old_prf: Prf,
    old_sk_d: &Secret,
    shared: &Secret,
    ni: &[u8],
    nr: &[u8],
    spi_i: IkeSpi,
    spi_r: IkeSpi,
) -> Result<IkeKeys, Unsupported> {
    let _ = (provider, suite, old_prf, old_sk_d, shared, ni, nr, spi_i, spi_r);
    todo!()
}

/// Keys of a child SA: `KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr)` (RFC 7296 2.17).
///
/// `prf` and `sk_d` are those of the IKE SA under which the child is made; `shared` is there with PFS.
pub fn derive_child(
    provider: &dyn Provider,
    prf: Prf,
    sk_d: &Secret,
    shared: Option<&Secret>,
    ni: &[u8],
    nr: &[u8],
    suite: &EspSuite,
) -> Result<ChildKeys, Unsupported> {
    let _ = (provider, prf, sk_d, shared, ni, nr, suite);
    todo!()
}
