//! AES-GCM (RFC 4106, RFC 5282), AES-GMAC, which leaves the content in the clear (RFC 4543), and
//! ChaCha20-Poly1305 (RFC 7634).

use wire::registry::Encr;

use super::ffi::{Aead, AeadKind};
use crate::cipher::{BadIcv, Cipher, CipherSpec};

const IV_LEN: usize = 8;
const SALT_LEN: usize = 4;

pub(crate) struct AeadCipher {
    aead: Aead,
    salt: [u8; SALT_LEN],
    icv_len: usize,
    /// Only authenticates: IV and content are AAD.
    clear: bool,
}

impl AeadCipher {
    /// `key` is the algorithm's key with the salt after it; `None` where the combination is not known.
    pub(crate) fn new(spec: CipherSpec, key: &[u8]) -> Option<Self> {
        let (kind, icv_len) = (algorithm(spec)?, spec.shape()?.icv_len);
        let (key, salt) = key.split_at_checked(key.len().checked_sub(SALT_LEN)?)?;
        let aead = Aead::new(kind, key, icv_len).ok()?;
        let clear = spec.encr == Encr::NULL_AES_GMAC;
        Some(Self { aead, salt: salt.try_into().ok()?, icv_len, clear })
    }

    fn nonce(&self, iv: [u8; IV_LEN]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..SALT_LEN].copy_from_slice(&self.salt);
        nonce[SALT_LEN..].copy_from_slice(&iv);
        nonce
    }
}

impl Cipher for AeadCipher {
    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn icv_len(&self) -> usize {
        self.icv_len
    }

    fn block_len(&self) -> usize {
        1
    }

    fn seal(&self, counter: u64, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) {
        let iv = counter.to_be_bytes();
        let (head, rest) = buf.split_at_mut(IV_LEN);
        let (data, tag) = rest.split_at_mut(rest.len() - self.icv_len);
        head.copy_from_slice(&iv);
        let nonce = self.nonce(iv);
        with_aad(aad, esn_hi, |aad| match self.clear {
            true => self.aead.seal(&nonce, &[aad, &iv, data].concat(), &mut [], tag),
            false => self.aead.seal(&nonce, aad, data, tag),
        })
        .expect("sealing fails for lengths beyond those of any datagram only");
    }

    fn open(&self, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) -> Result<(), BadIcv> {
        let (iv, rest) = buf.split_first_chunk_mut::<IV_LEN>().ok_or(BadIcv)?;
        let end = rest.len().checked_sub(self.icv_len).ok_or(BadIcv)?;
        let (data, tag) = rest.split_at_mut(end);
        let nonce = self.nonce(*iv);
        with_aad(aad, esn_hi, |aad| match self.clear {
            true => self.aead.open(&nonce, &[aad, iv, data].concat(), &mut [], tag),
            false => self.aead.open(&nonce, aad, data, tag),
        })
        .map_err(|_| BadIcv)
    }
}

/// Calls `then` with the AAD that an AEAD authenticates: with extended sequence numbers it is
/// `SPI | high | low` (RFC 4106 5), while the header that came in is `SPI | low`.
fn with_aad<T>(aad: &[u8], esn_hi: Option<u32>, then: impl FnOnce(&[u8]) -> T) -> T {
    let (Some(high), Some((spi, low))) = (esn_hi, aad.split_first_chunk::<4>()) else {
        return then(aad);
    };
    let mut whole = [0; 12];
    whole[..4].copy_from_slice(spi);
    whole[4..8].copy_from_slice(&high.to_be_bytes());
    let low = &low[..low.len().min(4)];
    whole[8..8 + low.len()].copy_from_slice(low);
    then(&whole[..8 + low.len()])
}

fn algorithm(spec: CipherSpec) -> Option<AeadKind> {
    Some(match (spec.encr, spec.key_bits) {
        (Encr::CHACHA20_POLY1305, _) => AeadKind::ChaCha20Poly1305,
        (_, 128) => AeadKind::Aes128Gcm,
        (_, 192) => AeadKind::Aes192Gcm,
        (_, 256) => AeadKind::Aes256Gcm,
        _ => return None,
    })
}
