//! The toy's cipher: XOR with a stream, and a checksum of eight bytes repeated over the ICV.

use super::{Mix, splitmix};
use crate::cipher::{BadIcv, Cipher, Shape};

pub(super) struct ToyCipher {
    shape: Shape,
    stream: Mix,
    check: Mix,
}

impl ToyCipher {
    pub(super) fn new(shape: Shape, encr_key: &[u8], integ_key: &[u8]) -> Self {
        let mut stream = Mix::new(b"stream");
        stream.update(encr_key);
        let mut check = Mix::new(b"check");
        check.update(encr_key);
        check.update(integ_key);
        Self { shape, stream, check }
    }

    fn xor(&self, iv: &[u8], data: &mut [u8]) {
        if self.shape.iv_len == 0 {
            return;
        }
        let mut start = self.stream;
        start.update(iv);
        let start = start.value();
        let (words, rest) = data.as_chunks_mut::<8>();
        let mut n = start;
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ splitmix(n)).to_ne_bytes();
            n = n.wrapping_add(1);
        }
        rest.iter_mut().zip(splitmix(n).to_ne_bytes()).for_each(|(byte, key)| *byte ^= key);
    }

    fn checksum(&self, aad: &[u8], esn_hi: Option<u32>, body: &[u8]) -> u64 {
        let mut mix = self.check;
        mix.update(aad);
        mix.update(body);
        if let Some(high) = esn_hi {
            mix.update(&high.to_be_bytes());
        }
        mix.value()
    }
}

impl Cipher for ToyCipher {
    fn iv_len(&self) -> usize {
        self.shape.iv_len
    }

    fn icv_len(&self) -> usize {
        self.shape.icv_len
    }

    fn block_len(&self) -> usize {
        self.shape.block_len
    }

    fn seal(&self, counter: u64, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) {
        let (body, icv) = buf.split_at_mut(buf.len() - self.shape.icv_len);
        let (iv, data) = body.split_at_mut(self.shape.iv_len);
        assert!(data.len().is_multiple_of(self.shape.block_len), "plaintext must be whole blocks");
        for chunk in iv.chunks_mut(8) {
            chunk.copy_from_slice(&counter.to_be_bytes()[..chunk.len()]);
        }
        self.xor(iv, data);
        write(self.checksum(aad, esn_hi, body), icv);
    }

    fn open(&self, aad: &[u8], esn_hi: Option<u32>, buf: &mut [u8]) -> Result<(), BadIcv> {
        let end = buf.len().checked_sub(self.shape.icv_len).ok_or(BadIcv)?;
        let (body, icv) = buf.split_at_mut(end);
        let data_len = body.len().checked_sub(self.shape.iv_len).ok_or(BadIcv)?;
        if !data_len.is_multiple_of(self.shape.block_len) {
            return Err(BadIcv);
        }
        let mut expected = [0; 32];
        let expected = expected.get_mut(..icv.len()).ok_or(BadIcv)?;
        write(self.checksum(aad, esn_hi, body), expected);
        if expected != icv {
            return Err(BadIcv);
        }
        let (iv, data) = body.split_at_mut(self.shape.iv_len);
        self.xor(iv, data);
        Ok(())
    }
}

fn write(checksum: u64, icv: &mut [u8]) {
    for chunk in icv.chunks_mut(8) {
        chunk.copy_from_slice(&checksum.to_be_bytes()[..chunk.len()]);
    }
}
