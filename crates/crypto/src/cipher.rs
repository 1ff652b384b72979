//! Symmetric protection of one packet: encryption and integrity as one operation.
//!
//! The same trait serves ESP (RFC 4303, 4106, 7634) and the SK payload (RFC 7296 3.14, RFC 5282).
//! The caller builds the plaintext with its padding; the cipher knows IVs, nonces, MACs and tags.

use wire::registry::{Encr, Integ};

/// One combination of algorithms.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CipherSpec {
    /// Encryption, or AEAD.
    pub encr: Encr,
    /// Key length in bits, without salt; 0 for algorithms with one length only.
    pub key_bits: u16,
    /// Integrity; `NONE` with an AEAD.
    pub integ: Integ,
}

/// The ciphertext did not verify: wrong key, wrong SA, or tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("integrity check failed")]
pub struct BadIcv;

/// A keyed cipher, one direction of one SA.
///
/// On the wire: `IV | ciphertext | ICV`. `aad` is authenticated and stands before the IV: for ESP
/// the header (SPI, sequence number), for IKE the message up to the IV. `esn_hi` are the high bits
/// of an extended sequence number: part of the AAD for an AEAD (RFC 4106 5), appended to what is
/// MACed otherwise (RFC 4303 2.2.1).
pub trait Cipher: Send + Sync {
    /// IV bytes on the wire.
    fn iv_len(&self) -> usize;
    /// ICV bytes on the wire.
    fn icv_len(&self) -> usize;
    /// Plaintext length must be a multiple of this; 1 for stream modes and AEADs.
    fn block_len(&self) -> usize;

    /// Encrypts `buf[iv_len..len-icv_len]` in place, and fills in IV and ICV around it.
    ///
    /// `counter` is unique under this key (for ESP the 64-bit sequence number, for IKE a count of
    /// messages sent with it); counter modes use it as the explicit IV, CBC derives an
    /// unpredictable IV from it by a key of its own (see NIST SP 800-38A, appendix C).
    fn seal(&self, counter: u64, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]);

    /// Verifies, then decrypts `IV | ciphertext | ICV` in place; the plaintext is `buf[iv_len..len-icv_len]`.
    ///
    /// A buffer too short or no multiple of the block is `BadIcv` as well; nothing is written unless the check holds.
    fn open(&self, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) -> Result<(), BadIcv>;
}

impl CipherSpec {
    /// Encryption key length in bytes, salt or nonce included (RFC 4106 8.1: 4 bytes, RFC 7634 2: 4 bytes, RFC 3686: 4 bytes).
    pub fn encr_key_len(&self) -> usize {
        let key = usize::from(self.key_bits) / 8;
        match self.encr {
            Encr::CHACHA20_POLY1305 => 32 + 4,
            Encr::AES_GCM_8 | Encr::AES_GCM_12 | Encr::AES_GCM_16 | Encr::AES_CTR => key + 4,
            Encr::AES_CCM_8 | Encr::AES_CCM_12 | Encr::AES_CCM_16 => key + 3,
            _ => key,
        }
    }
}
