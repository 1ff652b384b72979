//! ML-KEM-512, -768 and -1024 as key exchange methods (FIPS 203; draft-ietf-ipsecme-ikev2-mlkem).
//!
//! The initiator's public value is an encapsulation key, the responder's a ciphertext for it.

use wire::registry::Ke;
use zeroize::Zeroizing;

use super::expand;
use super::ffi::kem::{KemKey, KemKind, encapsulate};
use crate::Secret;
use crate::kx::{KxError, PrivateKx};
use crate::provider::Unsupported;

/// The prime of the field (FIPS 203 2.4).
const Q: u16 = 3329;

fn kind(method: Ke) -> Option<KemKind> {
    Some(match method {
        Ke::ML_KEM_512 => KemKind::MlKem512,
        Ke::ML_KEM_768 => KemKind::MlKem768,
        Ke::ML_KEM_1024 => KemKind::MlKem1024,
        _ => return None,
    })
}

pub(crate) fn knows(method: Ke) -> bool {
    kind(method).is_some()
}

/// Checks an encapsulation key: its length, and that every coefficient is reduced (FIPS 203 7.2).
pub(crate) fn check(method: Ke, key: &[u8]) -> Option<Result<(), KxError>> {
    let kind = kind(method)?;
    Some(check_len(kind.key_len(), key).and_then(|()| {
        // The last 32 bytes are the seed of the matrix.
        let (coefficients, _) = key[..key.len() - 32].as_chunks::<3>();
        let reduced = |[a, b, c]: &[u8; 3]| {
            let [a, b, c] = [*a, *b, *c].map(u16::from);
            (a | (b & 0x0f) << 8) < Q && (b >> 4 | c << 4) < Q
        };
        if coefficients.iter().all(reduced) { Ok(()) } else { Err(KxError::Invalid) }
    }))
}

/// Checks a ciphertext: its length.
pub(crate) fn check_answer(method: Ke, ciphertext: &[u8]) -> Option<Result<(), KxError>> {
    Some(check_len(kind(method)?.ciphertext_len(), ciphertext))
}

fn check_len(expected: usize, value: &[u8]) -> Result<(), KxError> {
    let got = value.len();
    if expected == got { Ok(()) } else { Err(KxError::Length { expected, got }) }
}

struct Initiator {
    kind: KemKind,
    key: KemKey,
    public: Vec<u8>,
}

pub(crate) fn private(
    method: Ke,
    seed: &[u8; 64],
) -> Option<Result<Box<dyn PrivateKx>, Unsupported>> {
    let expanded = Zeroizing::new(expand(seed, method, 0));
    let (seed, _) = expanded.split_first_chunk::<64>()?;
    with_private(method, seed).map(Ok)
}

/// The key pair of `d | z`.
pub(crate) fn with_private(method: Ke, seed: &[u8]) -> Option<Box<dyn PrivateKx>> {
    let kind = kind(method)?;
    let key = KemKey::from_seed(kind, seed.try_into().ok()?).ok()?;
    let public = key.public().ok()?;
    Some(Box::new(Initiator { kind, key, public }))
}

impl PrivateKx for Initiator {
    fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn agree(&self, peer_public: &[u8]) -> Result<Secret, KxError> {
        check_len(self.kind.ciphertext_len(), peer_public)?;
        let shared = self.key.decapsulate(peer_public).map_err(|_| KxError::Invalid)?;
        Ok(Secret::from(shared.as_slice()))
    }
}

/// The responder's part, made for one encapsulation key and of no use with another.
struct Responder {
    peer: Vec<u8>,
    ciphertext: Vec<u8>,
    shared: Secret,
}

pub(crate) fn answer(
    method: Ke,
    seed: &[u8; 64],
    peer: &[u8],
) -> Option<Result<Box<dyn PrivateKx>, KxError>> {
    let expanded = Zeroizing::new(expand(seed, method, 0));
    let (m, _) = expanded.split_first_chunk::<32>()?;
    answer_with(method, m, peer)
}

/// The answer to `peer` with the randomness `m`.
pub(crate) fn answer_with(
    method: Ke,
    m: &[u8; 32],
    peer: &[u8],
) -> Option<Result<Box<dyn PrivateKx>, KxError>> {
    let kind = kind(method)?;
    let made = check(method, peer)?.and_then(|()| {
        let (ciphertext, shared) = encapsulate(kind, peer, m).map_err(|_| KxError::Invalid)?;
        let shared = Secret::from(shared.as_slice());
        Ok(Box::new(Responder { peer: peer.to_vec(), ciphertext, shared }) as _)
    });
    Some(made)
}

impl PrivateKx for Responder {
    fn public(&self) -> Vec<u8> {
        self.ciphertext.clone()
    }

    fn agree(&self, peer_public: &[u8]) -> Result<Secret, KxError> {
        check_len(self.peer.len(), peer_public)?;
        if self.peer == peer_public { Ok(self.shared.clone()) } else { Err(KxError::Invalid) }
    }
}
