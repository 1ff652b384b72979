//! Symmetric protection of one packet: encryption and integrity as one operation.
//!
//! The same trait serves ESP (RFC 4303, 4106, 7634) and the SK payload (RFC 7296 3.14, RFC 5282).
//! The caller builds the plaintext with its padding; the cipher knows IVs, nonces, MACs and tags.

use std::fmt;

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
    ///
    /// # Panics
    /// If `buf` has no room for IV and ICV, or the plaintext is no multiple of `block_len`: the caller built it.
    fn seal(&self, counter: u64, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]);

    /// Verifies, then decrypts `IV | ciphertext | ICV` in place; the plaintext is `buf[iv_len..len-icv_len]`.
    ///
    /// A buffer too short or no multiple of the block is `BadIcv` as well. After `BadIcv` the buffer holds no
    /// plaintext, but is not what it was either: AEADs leave zeros.
    fn open(&self, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) -> Result<(), BadIcv>;
}

/// Lengths of a combination, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// IV on the wire.
    pub iv_len: usize,
    /// ICV on the wire.
    pub icv_len: usize,
    /// Plaintext is a multiple of this.
    pub block_len: usize,
}

impl fmt::Display for CipherSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encr)?;
        if self.key_bits != 0 {
            write!(f, "-{}", self.key_bits)?;
        }
        if self.integ != Integ::NONE { write!(f, "/{}", self.integ) } else { Ok(()) }
    }
}

impl CipherSpec {
    /// The lengths of this combination; `None` where it is unknown, misses what it needs, or has what it must not have.
    pub fn shape(&self) -> Option<Shape> {
        let (iv_len, block_len) = match self.encr {
            Encr::AES_CBC => (16, 16),
            Encr::NULL => (0, 1),
            _ => (8, 1),
        };
        let icv_len = if self.encr.is_aead() { self.tag_len()? } else { self.mac_len()? };
        Some(Shape { iv_len, icv_len, block_len })
    }

    fn tag_len(&self) -> Option<usize> {
        let bits_known = match self.encr {
            Encr::CHACHA20_POLY1305 => matches!(self.key_bits, 0 | 256),
            _ => matches!(self.key_bits, 128 | 192 | 256),
        };
        let tag_len = match self.encr {
            Encr::AES_GCM_8 | Encr::AES_CCM_8 => 8,
            Encr::AES_GCM_12 | Encr::AES_CCM_12 => 12,
            Encr::AES_GCM_16 | Encr::AES_CCM_16 | Encr::NULL_AES_GMAC | Encr::CHACHA20_POLY1305 => {
                16
            }
            _ => return None,
        };
        (bits_known && self.integ == Integ::NONE).then_some(tag_len)
    }

    fn mac_len(&self) -> Option<usize> {
        let bits_known = match self.encr {
            Encr::AES_CBC | Encr::AES_CTR => matches!(self.key_bits, 128 | 192 | 256),
            Encr::NULL => self.key_bits == 0,
            _ => false,
        };
        let icv_len = match self.integ {
            Integ::HMAC_SHA1_96 | Integ::AES_XCBC_96 | Integ::AES_CMAC_96 => 12,
            Integ::HMAC_SHA2_256_128 => 16,
            Integ::HMAC_SHA2_384_192 => 24,
            Integ::HMAC_SHA2_512_256 => 32,
            _ => return None,
        };
        bits_known.then_some(icv_len)
    }

    /// As a host keeps it for its own next process; not on the wire.
    pub fn to_bytes(&self) -> [u8; 6] {
        let [a, b] = self.encr.0.to_be_bytes();
        let [c, d] = self.key_bits.to_be_bytes();
        let [e, f] = self.integ.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// What [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self {
            encr: Encr(u16::from_be_bytes([a, b])),
            key_bits: u16::from_be_bytes([c, d]),
            integ: Integ(u16::from_be_bytes([e, f])),
        }
    }

    /// Encryption key length in bytes, salt or nonce included (RFC 4106 8.1: 4 bytes, RFC 4309 7.1: 3 bytes, RFC 4543 5.1: 4 bytes,
    /// RFC 7634 2: 4 bytes, RFC 3686: 4 bytes).
    pub fn encr_key_len(&self) -> usize {
        let key = usize::from(self.key_bits) / 8;
        match self.encr {
            Encr::CHACHA20_POLY1305 => 32 + 4,
            Encr::AES_GCM_8
            | Encr::AES_GCM_12
            | Encr::AES_GCM_16
            | Encr::NULL_AES_GMAC
            | Encr::AES_CTR => key + 4,
            Encr::AES_CCM_8 | Encr::AES_CCM_12 | Encr::AES_CCM_16 => key + 3,
            _ => key,
        }
    }
}
