//! A provider that PROTECTS NOTHING.
//!
//! It is for the simulator, where ten thousand hosts shake hands on one core, and for fuzzing the
//! protocol past its MACs. It has the shapes of real algorithms (names, lengths, who needs which
//! key, wrong keys and changed bytes are noticed) and none of their strength: whoever reads this
//! file can forge and decrypt everything. Nothing outside of simulation and tests may use it.

mod cert;
mod cipher;

use wire::registry::{HashAlg, Integ, Ke, Prf};

pub use self::cert::{Authority, ToyKey, credentials};
use crate::Secret;
use crate::chain::{Certificate, ChainError, TrustStore};
use crate::cipher::{Cipher, CipherSpec};
use crate::kx::{self, KxError, PrivateKx};
use crate::provider::{Provider, Unsupported};
use crate::sign::{Scheme, SignError, SigningKey, VerifyError};

/// The provider that protects nothing; see the module's text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Toy;

impl Provider for Toy {
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Result<Secret, Unsupported> {
        let mut mix = Mix::new(b"prf");
        mix.update(&(key.len() as u64).to_be_bytes());
        mix.update(key);
        parts.iter().for_each(|part| mix.update(part));
        Ok(Secret::new(mix.bytes(self.prf_len(prf)?)))
    }

    fn prf_len(&self, prf: Prf) -> Result<usize, Unsupported> {
        match prf {
            Prf::HMAC_SHA1 => Ok(20),
            Prf::HMAC_SHA2_256 => Ok(32),
            Prf::HMAC_SHA2_384 => Ok(48),
            Prf::HMAC_SHA2_512 => Ok(64),
            Prf::AES128_CMAC | Prf::AES128_XCBC => Ok(16),
            _ => Err(Unsupported(prf.to_string())),
        }
    }

    fn hash(&self, alg: HashAlg, parts: &[&[u8]]) -> Result<Vec<u8>, Unsupported> {
        let len = match alg {
            HashAlg::SHA1 => 20,
            HashAlg::SHA2_256 => 32,
            HashAlg::SHA2_384 => 48,
            HashAlg::SHA2_512 => 64,
            _ => return Err(Unsupported(alg.to_string())),
        };
        let mut mix = Mix::new(b"hash");
        parts.iter().for_each(|part| mix.update(part));
        Ok(mix.bytes(len))
    }

    fn cipher(
        &self,
        spec: CipherSpec,
        encr_key: &[u8],
        integ_key: &[u8],
    ) -> Result<Box<dyn Cipher>, Unsupported> {
        let integ_len = self.integ_key_len(spec.integ)?;
        match spec.shape() {
            Some(shape)
                if encr_key.len() == spec.encr_key_len() && integ_key.len() == integ_len =>
            {
                Ok(Box::new(cipher::ToyCipher::new(shape, encr_key, integ_key)))
            }
            _ => Err(Unsupported(format!(
                "{spec} with keys of {} and {} bytes",
                encr_key.len(),
                integ_key.len()
            ))),
        }
    }

    fn has_cipher(&self, spec: CipherSpec) -> bool {
        spec.shape().is_some()
    }

    fn integ_key_len(&self, integ: Integ) -> Result<usize, Unsupported> {
        match integ {
            Integ::NONE => Ok(0),
            Integ::HMAC_SHA1_96 => Ok(20),
            Integ::HMAC_SHA2_256_128 => Ok(32),
            Integ::HMAC_SHA2_384_192 => Ok(48),
            Integ::HMAC_SHA2_512_256 => Ok(64),
            Integ::AES_CMAC_96 | Integ::AES_XCBC_96 => Ok(16),
            _ => Err(Unsupported(integ.to_string())),
        }
    }

    fn kx(&self, method: Ke, seed: &[u8; 64]) -> Result<Box<dyn PrivateKx>, Unsupported> {
        match (kx::public_len(method), kx::answer_len(method)) {
            (Some(len), Some(peer_len)) => Ok(Box::new(ToyKx::new(seed, len, peer_len))),
            _ => Err(Unsupported(method.to_string())),
        }
    }

    fn kx_answer(
        &self,
        method: Ke,
        seed: &[u8; 64],
        peer: &[u8],
    ) -> Result<Box<dyn PrivateKx>, KxError> {
        self.check_public(method, peer)?;
        match (kx::answer_len(method), kx::public_len(method)) {
            (Some(len), Some(peer_len)) => Ok(Box::new(ToyKx::new(seed, len, peer_len))),
            _ => Err(KxError::Invalid),
        }
    }

    fn check_public(&self, method: Ke, public: &[u8]) -> Result<(), KxError> {
        let len = kx::public_len(method).ok_or(KxError::Invalid)?;
        public_value(len, public).map(|_| ())
    }

    fn check_answer(&self, method: Ke, public: &[u8]) -> Result<(), KxError> {
        let len = kx::answer_len(method).ok_or(KxError::Invalid)?;
        public_value(len, public).map(|_| ())
    }

    fn has_kx(&self, method: Ke) -> bool {
        kx::public_len(method).is_some()
    }

    fn has_prf(&self, prf: Prf) -> bool {
        self.prf_len(prf).is_ok()
    }

    fn signing_key(&self, der: &[u8]) -> Result<Box<dyn SigningKey>, SignError> {
        ToyKey::from_bytes(der).map(|key| Box::new(key) as _)
    }

    fn verify_chain(
        &self,
        trust: &TrustStore,
        leaf: &[u8],
        intermediates: &[&[u8]],
        unix_now: u64,
    ) -> Result<Certificate, ChainError> {
        cert::verify_chain(trust, leaf, intermediates, unix_now)
    }

    fn verify(
        &self,
        scheme: Scheme,
        spki: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        cert::verify(scheme, spki, message, signature)
    }
}

/// A Mersenne prime: the group of the toy's key exchange.
const P: u64 = (1 << 61) - 1;
const GENERATOR: u64 = 37;

struct ToyKx {
    private: u64,
    public_len: usize,
    peer_len: usize,
}

impl ToyKx {
    fn new(seed: &[u8; 64], public_len: usize, peer_len: usize) -> Self {
        let mut mix = Mix::new(b"kx");
        mix.update(seed);
        // 2 to P-2: neither 0 nor a value whose public one is refused.
        let private = 2 + mix.value() % (P - 3);
        Self { private, public_len, peer_len }
    }
}

impl PrivateKx for ToyKx {
    fn public(&self) -> Vec<u8> {
        let mut out = vec![0; self.public_len];
        out[self.public_len - 8..].copy_from_slice(&power(GENERATOR, self.private).to_be_bytes());
        out
    }

    fn agree(&self, peer_public: &[u8]) -> Result<Secret, KxError> {
        let peer = public_value(self.peer_len, peer_public)?;
        let mut mix = Mix::new(b"shared");
        mix.update(&power(peer, self.private).to_be_bytes());
        Ok(Secret::new(mix.bytes(32)))
    }
}

fn public_value(expected: usize, public: &[u8]) -> Result<u64, KxError> {
    if public.len() != expected {
        return Err(KxError::Length { expected, got: public.len() });
    }
    let (zeros, value) = public.split_last_chunk::<8>().ok_or(KxError::Invalid)?;
    let value = u64::from_be_bytes(*value);
    if zeros.iter().any(|byte| *byte != 0) || value <= 1 || value >= P - 1 {
        return Err(KxError::Invalid);
    }
    Ok(value)
}

fn power(base: u64, mut exponent: u64) -> u64 {
    let times = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(P)) as u64;
    let (mut result, mut base) = (1, base);
    while exponent != 0 {
        if exponent & 1 == 1 {
            result = times(result, base);
        }
        base = times(base, base);
        exponent >>= 1;
    }
    result
}

/// Mixes everything it is given, eight bytes at a time, then gives as many bytes as wanted. How the
/// input is split into calls does not matter.
#[derive(Clone, Copy)]
struct Mix {
    state: u64,
    /// Bytes that do not fill a word yet, from the lowest on.
    pending: u64,
    /// How many bits of `pending` are in use.
    bits: u32,
}

impl Mix {
    fn new(domain: &[u8]) -> Self {
        let mut mix = Self { state: 0xcbf2_9ce4_8422_2325, pending: 0, bits: 0 };
        mix.update(domain);
        mix.word(domain.len() as u64);
        mix
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while self.bits != 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return };
            self.push(byte);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.push(*byte));
    }

    fn push(&mut self, byte: u8) {
        self.pending |= u64::from(byte) << self.bits;
        self.bits += 8;
        if self.bits == 64 {
            let word = self.pending;
            (self.pending, self.bits) = (0, 0);
            self.word(word);
        }
    }

    fn word(&mut self, word: u64) {
        let mixed = (self.state ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
        self.state = mixed ^ (mixed >> 29);
    }

    fn value(self) -> u64 {
        let mut mix = self;
        mix.word(mix.pending);
        mix.word(u64::from(mix.bits));
        splitmix(mix.state)
    }

    fn bytes(self, len: usize) -> Vec<u8> {
        let start = self.value();
        let mut out = Vec::with_capacity(len + 8);
        for n in 0..len.div_ceil(8) as u64 {
            out.extend(splitmix(start.wrapping_add(n)).to_be_bytes());
        }
        out.truncate(len);
        out
    }
}

/// One step of the SplitMix64 generator, as a bijection of `x`.
fn splitmix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
