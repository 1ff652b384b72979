//! Encryption with a MAC of its own: AES-CBC (RFC 3602), AES-CTR (RFC 3686) and NULL (RFC 2410),
//! encrypt-then-MAC as ESP (RFC 4303 3.3.2) and the SK payload (RFC 7296 3.14) want it.

use aws_lc_rs::{constant_time, hmac};
use wire::registry::Encr;

use super::ffi::AesKey;
use super::mac::{MAX_MAC, Mac};
use crate::cipher::{BadIcv, Cipher, CipherSpec};

pub(crate) struct MacCipher {
    mode: Mode,
    mac: Mac,
    icv_len: usize,
}

enum Mode {
    Cbc(Box<Cbc>),
    Ctr { key: Box<AesKey>, nonce: [u8; 4] },
    Null,
}

struct Cbc {
    encrypt: AesKey,
    decrypt: AesKey,
    /// Turns the message's counter into its IV. CBC needs IVs that nobody can foretell, and a
    /// counter encrypted under a key of its own is such an IV (NIST SP 800-38A, appendix C).
    iv: AesKey,
}

impl MacCipher {
    /// `None` where the combination is not known or a key has the wrong length.
    pub(crate) fn new(spec: CipherSpec, encr_key: &[u8], integ_key: &[u8]) -> Option<Self> {
        let icv_len = spec.shape()?.icv_len;
        let mode = match spec.encr {
            Encr::AES_CBC => Mode::Cbc(Box::new(Cbc::new(encr_key)?)),
            Encr::AES_CTR => {
                let (key, nonce) = encr_key.split_last_chunk::<4>()?;
                Mode::Ctr { key: Box::new(AesKey::encrypting(key).ok()?), nonce: *nonce }
            }
            Encr::NULL if encr_key.is_empty() => Mode::Null,
            _ => return None,
        };
        Some(Self { mode, mac: Mac::integ(spec.integ, integ_key)?, icv_len })
    }

    /// ICV over `aad | IV | ciphertext | esn_hi`.
    fn icv(&self, aad: &[u8], body: &[u8], esn_hi: Option<u32>) -> [u8; MAX_MAC] {
        let (mut out, high) = ([0; MAX_MAC], esn_hi.map(u32::to_be_bytes));
        let tail = high.as_ref().map_or(&[][..], |high| &high[..]);
        self.mac.compute(&[aad, body, tail], &mut out);
        out
    }
}

impl Cipher for MacCipher {
    fn iv_len(&self) -> usize {
        match self.mode {
            Mode::Cbc(_) => 16,
            Mode::Ctr { .. } => 8,
            Mode::Null => 0,
        }
    }

    fn icv_len(&self) -> usize {
        self.icv_len
    }

    fn block_len(&self) -> usize {
        match self.mode {
            Mode::Cbc(_) => 16,
            Mode::Ctr { .. } | Mode::Null => 1,
        }
    }

    fn seal(&self, counter: u64, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) {
        let (body, icv) = buf.split_at_mut(buf.len() - self.icv_len);
        let (iv, data) = body.split_at_mut(self.iv_len());
        assert!(data.len().is_multiple_of(self.block_len()), "plaintext must be whole blocks");
        match &self.mode {
            Mode::Cbc(cbc) => {
                let block = cbc.iv(counter);
                iv.copy_from_slice(&block);
                cbc.encrypt.cbc_encrypt(&block, data);
            }
            Mode::Ctr { key, nonce } => {
                iv.copy_from_slice(&counter.to_be_bytes());
                key.ctr(&counter_block(nonce, counter.to_be_bytes()), data);
            }
            Mode::Null => {}
        }
        icv.copy_from_slice(&self.icv(aad, body, esn_hi)[..self.icv_len]);
    }

    fn open(&self, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) -> Result<(), BadIcv> {
        let end = buf.len().checked_sub(self.icv_len).ok_or(BadIcv)?;
        let (body, icv) = buf.split_at_mut(end);
        let data_len = body.len().checked_sub(self.iv_len()).ok_or(BadIcv)?;
        if !data_len.is_multiple_of(self.block_len()) {
            return Err(BadIcv);
        }
        let expected = self.icv(aad, body, esn_hi);
        constant_time::verify_slices_are_equal(&expected[..self.icv_len], icv)
            .map_err(|_| BadIcv)?;
        match &self.mode {
            Mode::Cbc(cbc) => {
                let (iv, data) = body.split_first_chunk_mut::<16>().ok_or(BadIcv)?;
                cbc.decrypt.cbc_decrypt(iv, data);
            }
            Mode::Ctr { key, nonce } => {
                let (iv, data) = body.split_first_chunk_mut::<8>().ok_or(BadIcv)?;
                key.ctr(&counter_block(nonce, *iv), data);
            }
            Mode::Null => {}
        }
        Ok(())
    }
}

impl Cbc {
    fn new(key: &[u8]) -> Option<Self> {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"warren cbc iv");
        Some(Self {
            encrypt: AesKey::encrypting(key).ok()?,
            decrypt: AesKey::decrypting(key).ok()?,
            iv: AesKey::encrypting(&derived.as_ref()[..16]).ok()?,
        })
    }

    fn iv(&self, counter: u64) -> [u8; 16] {
        self.iv.encrypt_block(&u128::from(counter).to_be_bytes())
    }
}

/// `nonce | IV | 1` (RFC 3686 4).
fn counter_block(nonce: &[u8; 4], iv: [u8; 8]) -> [u8; 16] {
    let mut block = [0; 16];
    block[..4].copy_from_slice(nonce);
    block[4..12].copy_from_slice(&iv);
    block[15] = 1;
    block
}
