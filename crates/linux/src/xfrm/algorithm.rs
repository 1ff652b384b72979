//! The kernel's names for the algorithms of ESP (its `net/xfrm/xfrm_algo.c`).

use ipsec::sa::Sa;
use wire::registry::{Encr, Integ};

/// What an SA's algorithms are called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Algorithms {
    /// `XFRMA_ALG_AEAD`.
    Aead {
        /// Name.
        name: &'static str,
        /// Tag, in bits.
        icv_bits: u32,
    },
    /// `XFRMA_ALG_CRYPT`, and `XFRMA_ALG_AUTH_TRUNC`.
    Split {
        /// Encryption.
        encr: &'static str,
        /// Integrity.
        integ: &'static str,
        /// ICV, in bits.
        icv_bits: u32,
        /// Length of the integrity key, in bytes.
        key_len: usize,
    },
}

/// The kernel's names for this SA's algorithms, or what they are called if it has none.
pub(crate) fn algorithms(sa: &Sa) -> Result<Algorithms, String> {
    let none = || sa.cipher.to_string();
    if sa.cipher.encr.is_aead() {
        let (name, icv_bits) = aead(sa.cipher.encr).ok_or_else(none)?;
        return Ok(Algorithms::Aead { name, icv_bits });
    }
    let encr = encryption(sa.cipher.encr).ok_or_else(none)?;
    let (integ, icv_bits, key_len) = integrity(sa.cipher.integ).ok_or_else(none)?;
    Ok(Algorithms::Split { encr, integ, icv_bits, key_len })
}

fn aead(encr: Encr) -> Option<(&'static str, u32)> {
    Some(match encr {
        Encr::AES_GCM_8 => ("rfc4106(gcm(aes))", 64),
        Encr::AES_GCM_12 => ("rfc4106(gcm(aes))", 96),
        Encr::AES_GCM_16 => ("rfc4106(gcm(aes))", 128),
        Encr::AES_CCM_8 => ("rfc4309(ccm(aes))", 64),
        Encr::AES_CCM_12 => ("rfc4309(ccm(aes))", 96),
        Encr::AES_CCM_16 => ("rfc4309(ccm(aes))", 128),
        Encr::NULL_AES_GMAC => ("rfc4543(gcm(aes))", 128),
        Encr::CHACHA20_POLY1305 => ("rfc7539esp(chacha20,poly1305)", 128),
        _ => return None,
    })
}

fn encryption(encr: Encr) -> Option<&'static str> {
    Some(match encr {
        Encr::AES_CBC => "cbc(aes)",
        Encr::AES_CTR => "rfc3686(ctr(aes))",
        Encr::NULL => "ecb(cipher_null)",
        _ => return None,
    })
}

/// Name, bits of the ICV, bytes of the key. The ICV is always said: the kernel's own length for SHA-256 is that of a draft.
fn integrity(integ: Integ) -> Option<(&'static str, u32, usize)> {
    Some(match integ {
        Integ::HMAC_SHA1_96 => ("hmac(sha1)", 96, 20),
        Integ::HMAC_SHA2_256_128 => ("hmac(sha256)", 128, 32),
        Integ::HMAC_SHA2_384_192 => ("hmac(sha384)", 192, 48),
        Integ::HMAC_SHA2_512_256 => ("hmac(sha512)", 256, 64),
        Integ::AES_XCBC_96 => ("xcbc(aes)", 96, 16),
        Integ::AES_CMAC_96 => ("cmac(aes)", 96, 16),
        _ => return None,
    })
}
