//! AES-CCM (RFC 4309, RFC 5282): CTR and CBC-MAC under one key (NIST SP 800-38C).

use aws_lc_rs::constant_time;
use wire::registry::Encr;

use super::ffi::AesKey;
use crate::cipher::{BadIcv, Cipher, CipherSpec};

const IV_LEN: usize = 8;
/// RFC 4309 7.1: 24 bits of salt, which with the IV make a nonce of 11 bytes and leave 4 for lengths.
const SALT_LEN: usize = 3;

pub(crate) struct CcmCipher {
    key: AesKey,
    salt: [u8; SALT_LEN],
    icv_len: usize,
}

/// Whether it is one of these.
pub(crate) fn is_ccm(encr: Encr) -> bool {
    matches!(encr, Encr::AES_CCM_8 | Encr::AES_CCM_12 | Encr::AES_CCM_16)
}

impl CcmCipher {
    /// `key` is the cipher's key with the salt after it.
    pub(crate) fn new(spec: CipherSpec, key: &[u8]) -> Option<Self> {
        let (key, salt) = key.split_at_checked(key.len().checked_sub(SALT_LEN)?)?;
        let key = AesKey::encrypting(key).ok()?;
        Some(Self { key, salt: salt.try_into().ok()?, icv_len: spec.shape()?.icv_len })
    }

    /// Flags, nonce, and the last four bytes: a length or a counter.
    fn block(&self, flags: u8, iv: [u8; IV_LEN], last: u32) -> [u8; 16] {
        let mut block = [flags; 16];
        block[1..4].copy_from_slice(&self.salt);
        block[4..12].copy_from_slice(&iv);
        block[12..].copy_from_slice(&last.to_be_bytes());
        block
    }

    /// The tag: the CBC-MAC of header, AAD and plaintext, masked by the first block of the key stream.
    fn tag(&self, iv: [u8; IV_LEN], aad: [&[u8]; 3], plain: &[u8]) -> [u8; 16] {
        let aad_len: usize = aad.iter().map(|part| part.len()).sum();
        // The AAD of ESP and IKE is never as long as the form with a longer length needs (0xff00).
        let aad_len = u16::try_from(aad_len).unwrap_or(u16::MAX);
        let tag_code = (self.icv_len as u8 - 2) / 2;
        let flags = u8::from(aad_len > 0) << 6 | tag_code << 3 | 3;
        let len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        let mut mac = CbcMac { key: &self.key, state: self.block(flags, iv, len), filled: 16 };
        if aad_len > 0 {
            mac.update(&aad_len.to_be_bytes());
            aad.iter().for_each(|part| mac.update(part));
            mac.pad();
        }
        mac.update(plain);
        mac.pad();
        let mut tag = mac.finish();
        let mask = self.key.encrypt_block(&self.block(3, iv, 0));
        tag.iter_mut().zip(mask).for_each(|(t, m)| *t ^= m);
        tag
    }

    fn crypt(&self, iv: [u8; IV_LEN], data: &mut [u8]) {
        self.key.ctr(&self.block(3, iv, 1), data);
    }
}

struct CbcMac<'a> {
    key: &'a AesKey,
    state: [u8; 16],
    filled: usize,
}

impl CbcMac<'_> {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.filled == 16 {
                self.state = self.key.encrypt_block(&self.state);
                self.filled = 0;
            }
            self.state[self.filled] ^= byte;
            self.filled += 1;
        }
    }

    /// Zeros up to the end of the block.
    fn pad(&mut self) {
        self.filled = 16;
    }

    fn finish(self) -> [u8; 16] {
        self.key.encrypt_block(&self.state)
    }
}

/// Calls `then` with the AAD in parts: with extended sequence numbers the high bits stand after the SPI (RFC 4309 5).
fn with_esn<T>(aad: &[u8], esn_hi: Option<u32>, then: impl FnOnce([&[u8]; 3]) -> T) -> T {
    match (esn_hi, aad.split_at_checked(4)) {
        (Some(high), Some((spi, low))) => then([spi, &high.to_be_bytes(), low]),
        _ => then([aad, &[], &[]]),
    }
}

impl Cipher for CcmCipher {
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
        let (data, icv) = rest.split_at_mut(rest.len() - self.icv_len);
        head.copy_from_slice(&iv);
        let tag = with_esn(aad, esn_hi, |aad| self.tag(iv, aad, data));
        self.crypt(iv, data);
        icv.copy_from_slice(&tag[..self.icv_len]);
    }

    fn open(&self, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) -> Result<(), BadIcv> {
        let (iv, rest) = buf.split_first_chunk_mut::<IV_LEN>().ok_or(BadIcv)?;
        let end = rest.len().checked_sub(self.icv_len).ok_or(BadIcv)?;
        let (data, icv) = rest.split_at_mut(end);
        self.crypt(*iv, data);
        let tag = with_esn(aad, esn_hi, |aad| self.tag(*iv, aad, data));
        constant_time::verify_slices_are_equal(&tag[..self.icv_len], icv).map_err(|_| {
            data.fill(0);
            BadIcv
        })
    }
}
