//! What the protocol needs of cryptography, and no more.

use std::fmt::Debug;

use wire::registry::{HashAlg, Integ, Ke, Prf};

use crate::Secret;
use crate::cipher::{Cipher, CipherSpec};
use crate::kx::{KxError, PrivateKx};
pub use crate::prf::prf_plus;
use crate::sign::{SignError, SigningKey, VerifyError};

/// An algorithm that this provider does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not supported")]
pub struct Unsupported(pub String);

/// A set of algorithms. `native::Native` is the real one.
pub trait Provider: Send + Sync + Debug {
    /// Prepares a thread that is going to sign: what it needs once is done now, and not with its first signature.
    fn prepare_thread(&self) {}

    /// `prf(key, parts[0] | parts[1] | …)` (RFC 7296 2.13).
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Result<Secret, Unsupported>;

    /// Output length of `prf` in bytes, which is also its preferred key length (RFC 7296 2.14).
    fn prf_len(&self, prf: Prf) -> Result<usize, Unsupported>;

    /// Digest of `parts`; SHA-1 is here for NAT detection and CERTREQ only.
    fn hash(&self, alg: HashAlg, parts: &[&[u8]]) -> Result<Vec<u8>, Unsupported>;

    /// A cipher keyed for one direction, for ESP and for SK payloads. Key lengths: [`CipherSpec`].
    fn cipher(
        &self,
        spec: CipherSpec,
        encr_key: &[u8],
        integ_key: &[u8],
    ) -> Result<Box<dyn Cipher>, Unsupported>;

    /// Whether `cipher` would take this combination.
    fn has_cipher(&self, spec: CipherSpec) -> bool;

    /// Key length of an integrity algorithm in bytes.
    fn integ_key_len(&self, integ: Integ) -> Result<usize, Unsupported>;

    /// A fresh private key for `method`, made from `seed` alone: the same seed gives the same key.
    /// The seed is 64 bytes from a CSPRNG, used once.
    fn kx(&self, method: Ke, seed: &[u8; 64]) -> Result<Box<dyn PrivateKx>, Unsupported>;

    /// The same for a responder that knows the initiator's public value already: a KEM's public value is
    /// made for it, and the result agrees with no other.
    fn kx_answer(
        &self,
        method: Ke,
        seed: &[u8; 64],
        peer: &[u8],
    ) -> Result<Box<dyn PrivateKx>, KxError>;

    /// Checks that an initiator's public value is one of `method`'s group (RFC 6989), or a proper
    /// encapsulation key (FIPS 203 7.2), without computing with it.
    fn check_public(&self, method: Ke, public: &[u8]) -> Result<(), KxError>;

    /// The same for a responder's public value, of a KEM its ciphertext.
    fn check_answer(&self, method: Ke, public: &[u8]) -> Result<(), KxError>;

    /// Whether `kx` knows the method.
    fn has_kx(&self, method: Ke) -> bool;

    /// Whether `prf` knows the function.
    fn has_prf(&self, prf: Prf) -> bool;

    /// Loads a private key from DER (PKCS#8, PKCS#1 or SEC1).
    fn signing_key(&self, der: &[u8]) -> Result<Box<dyn SigningKey>, SignError>;

    /// Checks a peer's chain: `leaf` (DER) with the `intermediates` (DER, any order) that came along leads to a
    /// root of `trust` at `unix_now`, and may sign. Gives the parsed leaf, whose `spki` then goes to [`Self::verify`].
    fn verify_chain(
        &self,
        trust: &crate::chain::TrustStore,
        leaf: &[u8],
        intermediates: &[&[u8]],
        unix_now: u64,
    ) -> Result<crate::chain::Certificate, crate::chain::ChainError>;

    /// Verifies `signature` over `message` with the key in a certificate's SubjectPublicKeyInfo (DER).
    fn verify(
        &self,
        scheme: crate::sign::Scheme,
        spki: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError>;
}
