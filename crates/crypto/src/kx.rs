//! Key exchange.

use wire::registry::Ke;

use crate::Secret;

/// Why a key exchange failed: always the peer's public value, the method itself having been agreed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KxError {
    /// Wrong length for the method.
    #[error("public value of {got} bytes where the method has {expected}")]
    Length {
        /// Bytes expected.
        expected: usize,
        /// Bytes received.
        got: usize,
    },
    /// Not an element of the group, or one of a small subgroup (RFC 6989, RFC 7748 6).
    #[error("public value is not a valid element of the group")]
    Invalid,
}

/// A private value, used for one exchange. Of a KEM: the initiator's decapsulation key, or what the responder made for
/// one encapsulation key.
pub trait PrivateKx: Send + Sync {
    /// The public value for the KE payload.
    fn public(&self) -> Vec<u8>;
    /// The shared secret, as it enters SKEYSEED: fixed length, leading zeros kept (RFC 7296 2.14; x only for ECP, RFC 5903).
    fn agree(&self, peer_public: &[u8]) -> Result<Secret, KxError>;
}

/// Length of an initiator's public value in bytes, for each method that the providers know: RFC 3526
/// for MODP, RFC 5903 7 for ECP (both coordinates), RFC 8031 for Curve25519, FIPS 203 for ML-KEM.
pub fn public_len(method: Ke) -> Option<usize> {
    Some(match method {
        Ke::MODP_1536 => 192,
        Ke::MODP_2048 => 256,
        Ke::MODP_3072 => 384,
        Ke::MODP_4096 => 512,
        Ke::MODP_6144 => 768,
        Ke::MODP_8192 => 1024,
        Ke::ECP_256 => 64,
        Ke::ECP_384 => 96,
        Ke::ECP_521 => 132,
        Ke::CURVE25519 => 32,
        Ke::ML_KEM_512 => 800,
        Ke::ML_KEM_768 => 1184,
        Ke::ML_KEM_1024 => 1568,
        _ => return None,
    })
}

/// Length of a responder's public value: of a KEM, of its ciphertext (FIPS 203, table 3); else that of
/// [`public_len`].
pub fn answer_len(method: Ke) -> Option<usize> {
    match method {
        Ke::ML_KEM_512 => Some(768),
        Ke::ML_KEM_768 => Some(1088),
        Ke::ML_KEM_1024 => Some(1568),
        _ => public_len(method),
    }
}
