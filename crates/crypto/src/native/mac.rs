//! Message authentication codes, keyed once: HMAC, AES-CMAC (RFC 4493) and AES-XCBC-MAC (RFC 3566).

use aws_lc_rs::hmac;
use wire::registry::{Integ, Prf};
use zeroize::Zeroize;

use super::ffi::AesKey;

/// Longest output, HMAC-SHA2-512.
pub(crate) const MAX_MAC: usize = 64;

/// A keyed MAC.
pub(crate) enum Mac {
    /// HMAC (RFC 2104).
    Hmac(Box<hmac::Key>),
    /// CMAC or XCBC.
    Cbc(Box<CbcMac>),
}

/// CBC-MAC whose last block is masked, as CMAC and XCBC do.
pub(crate) struct CbcMac {
    key: AesKey,
    /// Mask of a last block that is whole.
    whole: [u8; 16],
    /// Mask of a last block that was padded.
    padded: [u8; 16],
}

impl Mac {
    /// The MAC of an integrity algorithm; `None` if it is unknown or the key has the wrong length.
    pub(crate) fn integ(integ: Integ, key: &[u8]) -> Option<Self> {
        if key.len() != integ_key_len(integ)? {
            return None;
        }
        Some(match integ {
            Integ::HMAC_SHA1_96 => hmac_key(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key),
            Integ::HMAC_SHA2_256_128 => hmac_key(hmac::HMAC_SHA256, key),
            Integ::HMAC_SHA2_384_192 => hmac_key(hmac::HMAC_SHA384, key),
            Integ::HMAC_SHA2_512_256 => hmac_key(hmac::HMAC_SHA512, key),
            Integ::AES_CMAC_96 => Self::Cbc(Box::new(CbcMac::cmac(key)?)),
            Integ::AES_XCBC_96 => Self::Cbc(Box::new(CbcMac::xcbc(key)?)),
            _ => return None,
        })
    }

    /// The MAC of a PRF, for keys of any length.
    pub(crate) fn prf(prf: Prf, key: &[u8]) -> Option<Self> {
        Some(match prf {
            Prf::HMAC_SHA1 => hmac_key(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key),
            Prf::HMAC_SHA2_256 => hmac_key(hmac::HMAC_SHA256, key),
            Prf::HMAC_SHA2_384 => hmac_key(hmac::HMAC_SHA384, key),
            Prf::HMAC_SHA2_512 => hmac_key(hmac::HMAC_SHA512, key),
            Prf::AES128_CMAC => {
                Self::Cbc(Box::new(CbcMac::cmac(&short_key(key, CbcMac::cmac, false)?)?))
            }
            Prf::AES128_XCBC => {
                Self::Cbc(Box::new(CbcMac::xcbc(&short_key(key, CbcMac::xcbc, true)?)?))
            }
            _ => return None,
        })
    }

    /// The MAC over `parts`, one after the other; its length in bytes is returned. No allocation.
    pub(crate) fn compute(&self, parts: &[&[u8]], out: &mut [u8; MAX_MAC]) -> usize {
        match self {
            Self::Hmac(key) => {
                let mut ctx = hmac::Context::with_key(key);
                parts.iter().for_each(|part| ctx.update(part));
                let tag = ctx.sign();
                let tag = tag.as_ref();
                out[..tag.len()].copy_from_slice(tag);
                tag.len()
            }
            Self::Cbc(mac) => {
                out[..16].copy_from_slice(&mac.compute(parts));
                16
            }
        }
    }
}

/// Output length of `prf` in bytes.
pub(crate) fn prf_len(prf: Prf) -> Option<usize> {
    match prf {
        Prf::HMAC_SHA1 => Some(20),
        Prf::HMAC_SHA2_256 => Some(32),
        Prf::HMAC_SHA2_384 => Some(48),
        Prf::HMAC_SHA2_512 => Some(64),
        Prf::AES128_CMAC | Prf::AES128_XCBC => Some(16),
        _ => None,
    }
}

/// Key length of an integrity algorithm in bytes (RFC 2404, RFC 4868 2.1.1, RFC 4494, RFC 3566).
pub(crate) fn integ_key_len(integ: Integ) -> Option<usize> {
    match integ {
        Integ::NONE => Some(0),
        Integ::HMAC_SHA1_96 => Some(20),
        Integ::HMAC_SHA2_256_128 => Some(32),
        Integ::HMAC_SHA2_384_192 => Some(48),
        Integ::HMAC_SHA2_512_256 => Some(64),
        Integ::AES_CMAC_96 | Integ::AES_XCBC_96 => Some(16),
        _ => None,
    }
}

fn hmac_key(algorithm: hmac::Algorithm, key: &[u8]) -> Mac {
    Mac::Hmac(Box::new(hmac::Key::new(algorithm, key)))
}

/// 16 bytes from a key of any length: shorter ones are zero-padded for XCBC (RFC 4434 2) but hashed
/// for CMAC (RFC 4615 3), longer ones are hashed under a zero key for both.
fn short_key(key: &[u8], mac: fn(&[u8]) -> Option<CbcMac>, pad: bool) -> Option<[u8; 16]> {
    let mut short = [0; 16];
    if key.len() == 16 || (pad && key.len() < 16) {
        short[..key.len()].copy_from_slice(key);
    } else {
        short = mac(&[0; 16])?.compute(&[key]);
    }
    Some(short)
}

impl CbcMac {
    fn cmac(key: &[u8]) -> Option<Self> {
        let key = AesKey::encrypting(key).ok()?;
        let whole = double(key.encrypt_block(&[0; 16]));
        Some(Self { key, whole, padded: double(whole) })
    }

    fn xcbc(key: &[u8]) -> Option<Self> {
        let outer = AesKey::encrypting(key).ok()?;
        let [inner, whole, padded] = [1, 2, 3].map(|n| outer.encrypt_block(&[n; 16]));
        Some(Self { key: AesKey::encrypting(&inner).ok()?, whole, padded })
    }

    fn compute(&self, parts: &[&[u8]]) -> [u8; 16] {
        let (mut state, mut filled) = ([0u8; 16], 0);
        for &byte in parts.iter().copied().flatten() {
            if filled == 16 {
                state = self.key.encrypt_block(&state);
                filled = 0;
            }
            state[filled] ^= byte;
            filled += 1;
        }
        let mask = if filled == 16 {
            &self.whole
        } else {
            state[filled] ^= 0x80;
            &self.padded
        };
        state.iter_mut().zip(mask).for_each(|(s, m)| *s ^= m);
        self.key.encrypt_block(&state)
    }
}

impl Drop for CbcMac {
    fn drop(&mut self) {
        self.whole.zeroize();
        self.padded.zeroize();
    }
}

/// Doubling in GF(2^128) (RFC 4493 2.3), without a branch on the secret.
fn double(block: [u8; 16]) -> [u8; 16] {
    let value = u128::from_be_bytes(block);
    let carry = (value >> 127).wrapping_neg() & 0x87;
    ((value << 1) ^ carry).to_be_bytes()
}
