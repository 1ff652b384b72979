//! The AUTH payload and what goes with it (RFC 7296 2.15, RFC 7427, RFC 4754, RFC 8420).

use crypto::chain::{Certificate, TrustStore};
use crypto::provider::Unsupported;
use crypto::sign::{KeyKind, Scheme};
use crypto::{Provider, Secret};
use wire::identity::Identity;
use wire::payload::{AuthPayload, CertReqPayload, Notify};
use wire::registry::{HashAlg, Prf};

use crate::error::AuthError;

/// What an AUTH payload claims, not yet verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A MAC with the pre-shared key.
    Psk(Vec<u8>),
    /// A signature.
    Signature(Scheme, Vec<u8>),
}

/// The octets that a side signs or MACs: `RealMessage | Nonce | prf(SK_p, RestOfIDPayload)` (RFC 7296 2.15).
///
/// `real_message` is that side's IKE_SA_INIT message as it was sent last (of an initiator that was
/// asked for a cookie: the one with the cookie), without non-ESP marker; `nonce` is the other
/// side's; `sk_p` and `id` are its own.
pub fn signed_octets(
    provider: &dyn Provider,
    prf: Prf,
    real_message: &[u8],
    nonce: &[u8],
    sk_p: &Secret,
    id: &Identity,
) -> Result<Vec<u8>, Unsupported> {
    let _ = (provider, prf, real_message, nonce, sk_p, id);
    todo!()
}

/// RestOfIDPayload: the body of an ID payload after the generic header.
pub fn id_body(id: &Identity) -> Vec<u8> {
    let _ = id;
    todo!()
}

/// The AUTH payload of a pre-shared key: `prf(prf(PSK, "Key Pad for IKEv2"), octets)`.
pub fn psk_payload(provider: &dyn Provider, prf: Prf, psk: &Secret, octets: &[u8]) -> Result<AuthPayload, Unsupported> {
    let _ = (provider, prf, psk, octets);
    todo!()
}

/// Whether `mac` is the pre-shared key's over the peer's octets; constant time.
pub fn check_psk(provider: &dyn Provider, prf: Prf, psk: &Secret, octets: &[u8], mac: &[u8]) -> Result<bool, Unsupported> {
    let _ = (provider, prf, psk, octets, mac);
    todo!()
}

/// The AUTH payload of a signature: method 14 (RFC 7427 3), or the older one that the scheme stands
/// for (`EcdsaRaw`: 9 to 11 by its hash; RSA PKCS #1 with SHA-1: 1).
pub fn signature_payload(scheme: Scheme, signature: &[u8]) -> AuthPayload {
    let _ = (scheme, signature);
    todo!()
}

/// What an AUTH payload claims.
pub fn parse(payload: &AuthPayload) -> Result<Proof, AuthError> {
    let _ = payload;
    todo!()
}

/// How this host's key signs for a peer that announced `peer_hashes` in
/// SIGNATURE_HASH_ALGORITHMS; `None` if it announced nothing: then the older methods (RFC 7427 4).
pub fn choose_scheme(kind: KeyKind, peer_hashes: Option<&[HashAlg]>) -> Option<Scheme> {
    let _ = (kind, peer_hashes);
    todo!()
}

/// The SIGNATURE_HASH_ALGORITHMS notify of this host.
pub fn hash_algorithms() -> Notify {
    todo!()
}

/// Data of a peer's SIGNATURE_HASH_ALGORITHMS; an odd last byte is ignored.
pub fn parse_hash_algorithms(data: &[u8]) -> Vec<HashAlg> {
    let _ = data;
    todo!()
}

/// CERTREQ with the SHA-1 hashes of the trusted roots' public keys (RFC 7296 3.7).
pub fn certreq(provider: &dyn Provider, trust: &TrustStore) -> Result<CertReqPayload, Unsupported> {
    let _ = (provider, trust);
    todo!()
}

/// Whether a certificate's key is among a CERTREQ's authorities.
pub fn certreq_names(provider: &dyn Provider, request: &CertReqPayload, authority: &Certificate) -> bool {
    let _ = (provider, request, authority);
    todo!()
}
