//! The provider that protects: AWS-LC.

mod cipher_aead;
mod cipher_ccm;
mod cipher_mac;
mod ffi;
mod kx_ec;
mod kx_kem;
mod kx_modp;
mod mac;
mod primes;
mod sign;

use aws_lc_rs::{digest, hmac};
use wire::registry::{HashAlg, Integ, Ke, Prf};

use self::mac::{MAX_MAC, Mac};
use crate::Secret;
use crate::chain::{Certificate, ChainError, TrustStore};
use crate::cipher::{Cipher, CipherSpec};
use crate::kx::{KxError, PrivateKx};
use crate::provider::{Provider, Unsupported};
use crate::sign::{Scheme, SignError, SigningKey, VerifyError};

/// Cryptography by AWS-LC.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

impl Native {
    /// A private key given as it is instead of made from a seed: for known-answer tests.
    ///
    /// An exponent (MODP, at most as long as the prime), a scalar of full length (ECP), 32 bytes (X25519), or
    /// `d | z` (ML-KEM).
    pub fn kx_with_private(
        &self,
        method: Ke,
        private: &[u8],
    ) -> Result<Box<dyn PrivateKx>, Unsupported> {
        kx_ec::with_private(method, private)
            .or_else(|| kx_modp::with_private(method, private))
            .or_else(|| kx_kem::with_private(method, private))
            .ok_or_else(|| Unsupported(format!("{method} with this private key")))
    }

    /// A responder's answer to `peer` with the randomness `m` instead of a seed: for known-answer tests of
    /// ML-KEM. `None` for other methods.
    pub fn kx_answer_with(
        &self,
        method: Ke,
        m: &[u8; 32],
        peer: &[u8],
    ) -> Option<Result<Box<dyn PrivateKx>, KxError>> {
        kx_kem::answer_with(method, m, peer)
    }
}

impl Provider for Native {
    /// AWS-LC seeds a generator of random numbers in each thread that asks for one: some 25 ms, by a profile.
    fn prepare_thread(&self) {
        // Whoever needs some is told if there are none.
        let _ = aws_lc_rs::rand::fill(&mut [0]);
    }

    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Result<Secret, Unsupported> {
        let mac = Mac::prf(prf, key).ok_or_else(|| Unsupported(prf.to_string()))?;
        let mut out = zeroize::Zeroizing::new([0; MAX_MAC]);
        let len = mac.compute(parts, &mut out);
        Ok(Secret::from(&out[..len]))
    }

    fn prf_len(&self, prf: Prf) -> Result<usize, Unsupported> {
        mac::prf_len(prf).ok_or_else(|| Unsupported(prf.to_string()))
    }

    fn hash(&self, alg: HashAlg, parts: &[&[u8]]) -> Result<Vec<u8>, Unsupported> {
        let algorithm = match alg {
            HashAlg::SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            HashAlg::SHA2_256 => &digest::SHA256,
            HashAlg::SHA2_384 => &digest::SHA384,
            HashAlg::SHA2_512 => &digest::SHA512,
            _ => return Err(Unsupported(alg.to_string())),
        };
        let mut ctx = digest::Context::new(algorithm);
        parts.iter().for_each(|part| ctx.update(part));
        Ok(ctx.finish().as_ref().to_vec())
    }

    fn cipher(
        &self,
        spec: CipherSpec,
        encr_key: &[u8],
        integ_key: &[u8],
    ) -> Result<Box<dyn Cipher>, Unsupported> {
        if !self.has_cipher(spec) {
            return Err(Unsupported(spec.to_string()));
        }
        if encr_key.len() != spec.encr_key_len()
            || Some(integ_key.len()) != mac::integ_key_len(spec.integ)
        {
            return Err(Unsupported(format!(
                "{spec} with keys of {} and {} bytes",
                encr_key.len(),
                integ_key.len()
            )));
        }
        let cipher: Option<Box<dyn Cipher>> = if cipher_ccm::is_ccm(spec.encr) {
            cipher_ccm::CcmCipher::new(spec, encr_key).map(|c| Box::new(c) as _)
        } else if spec.encr.is_aead() {
            cipher_aead::AeadCipher::new(spec, encr_key).map(|c| Box::new(c) as _)
        } else {
            cipher_mac::MacCipher::new(spec, encr_key, integ_key).map(|c| Box::new(c) as _)
        };
        cipher.ok_or_else(|| Unsupported(spec.to_string()))
    }

    fn has_cipher(&self, spec: CipherSpec) -> bool {
        spec.shape().is_some()
    }

    fn integ_key_len(&self, integ: Integ) -> Result<usize, Unsupported> {
        mac::integ_key_len(integ).ok_or_else(|| Unsupported(integ.to_string()))
    }

    fn kx(&self, method: Ke, seed: &[u8; 64]) -> Result<Box<dyn PrivateKx>, Unsupported> {
        kx_ec::private(method, seed)
            .or_else(|| kx_modp::private(method, seed))
            .or_else(|| kx_kem::private(method, seed))
            .unwrap_or_else(|| Err(Unsupported(method.to_string())))
    }

    fn kx_answer(
        &self,
        method: Ke,
        seed: &[u8; 64],
        peer: &[u8],
    ) -> Result<Box<dyn PrivateKx>, KxError> {
        kx_kem::answer(method, seed, peer)
            .unwrap_or_else(|| self.kx(method, seed).map_err(|_| KxError::Invalid))
    }

    fn check_public(&self, method: Ke, public: &[u8]) -> Result<(), KxError> {
        kx_ec::check(method, public)
            .or_else(|| kx_modp::check(method, public))
            .or_else(|| kx_kem::check(method, public))
            .unwrap_or(Err(KxError::Invalid))
    }

    fn check_answer(&self, method: Ke, public: &[u8]) -> Result<(), KxError> {
        kx_kem::check_answer(method, public).unwrap_or_else(|| self.check_public(method, public))
    }

    fn has_kx(&self, method: Ke) -> bool {
        kx_ec::knows(method) || kx_modp::knows(method) || kx_kem::knows(method)
    }

    fn has_prf(&self, prf: Prf) -> bool {
        mac::prf_len(prf).is_some()
    }

    fn signing_key(&self, der: &[u8]) -> Result<Box<dyn SigningKey>, SignError> {
        sign::load(der)
    }

    fn verify(
        &self,
        scheme: Scheme,
        spki: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        sign::verify(scheme, spki, message, signature)
    }

    fn verify_chain(
        &self,
        trust: &TrustStore,
        leaf: &[u8],
        intermediates: &[&[u8]],
        unix_now: u64,
    ) -> Result<Certificate, ChainError> {
        let leaf = Certificate::from_der(leaf)?;
        // Some peers send certificates of kinds that we cannot read along with those we need.
        let intermediates: Vec<_> =
            intermediates.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
        trust.verify(&leaf, &intermediates, unix_now)?;
        Ok(leaf)
    }
}

/// 128 bytes from a seed, different for each method and attempt: two blocks of HMAC-SHA2-512 keyed with the seed.
fn expand(seed: &[u8; 64], method: Ke, attempt: u8) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA512, seed);
    let [high, low] = method.0.to_be_bytes();
    let mut out = Vec::with_capacity(128);
    for block in [1, 2] {
        out.extend_from_slice(hmac::sign(&key, &[b'k', b'x', high, low, attempt, block]).as_ref());
    }
    out
}
