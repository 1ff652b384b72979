//! Key exchange.

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

/// A private value, used for one exchange.
pub trait PrivateKx: Send + Sync {
    /// The public value for the KE payload.
    fn public(&self) -> Vec<u8>;
    /// The shared secret, as it enters SKEYSEED: fixed length, leading zeros kept (RFC 7296 2.14; x only for ECP, RFC 5903).
    fn agree(&self, peer_public: &[u8]) -> Result<Secret, KxError>;
}
