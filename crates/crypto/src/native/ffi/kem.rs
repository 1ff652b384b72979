//! ML-KEM (FIPS 203), with the randomness as an argument.

use std::ptr;

use aws_lc_sys as lc;
use zeroize::Zeroizing;

use super::{Owned, Refused, ok};

/// Which parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KemKind {
    MlKem512,
    MlKem768,
    MlKem1024,
}

/// Bytes of a shared secret, of each parameter set.
const SHARED_LEN: usize = 32;

impl KemKind {
    fn nid(self) -> std::os::raw::c_int {
        match self {
            Self::MlKem512 => lc::NID_MLKEM512,
            Self::MlKem768 => lc::NID_MLKEM768,
            Self::MlKem1024 => lc::NID_MLKEM1024,
        }
    }

    /// Bytes of an encapsulation key (FIPS 203, table 3).
    pub(crate) fn key_len(self) -> usize {
        match self {
            Self::MlKem512 => 800,
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Bytes of a ciphertext (FIPS 203, table 3).
    pub(crate) fn ciphertext_len(self) -> usize {
        match self {
            Self::MlKem512 => 768,
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
        }
    }
}

/// A decapsulation key, with its encapsulation key.
pub(crate) struct KemKey {
    key: Owned<lc::EVP_PKEY>,
    kind: KemKind,
}

// SAFETY: a made EVP_PKEY is only read (evp.h allows that from several threads) and has no thread affinity; each operation has a context of its own.
unsafe impl Send for KemKey {}
// SAFETY: as above.
unsafe impl Sync for KemKey {}

impl KemKey {
    /// The key pair of the seed `d | z` (FIPS 203, algorithm 16).
    pub(crate) fn from_seed(kind: KemKind, seed: &[u8; 64]) -> Result<Self, Refused> {
        // SAFETY: allocates; null is handled.
        let ctx = unsafe { lc::EVP_PKEY_CTX_new_id(lc::EVP_PKEY_KEM, ptr::null_mut()) };
        let ctx = Owned::new(ctx, lc::EVP_PKEY_CTX_free)?;
        // SAFETY: the context is live.
        ok(unsafe { lc::EVP_PKEY_CTX_kem_set_params(ctx.get(), kind.nid()) })?;
        // SAFETY: as above.
        ok(unsafe { lc::EVP_PKEY_keygen_init(ctx.get()) })?;
        let (mut key, mut len) = (ptr::null_mut(), seed.len());
        // SAFETY: the seed goes with its length, which is checked inside; the key made is owned below.
        let made = unsafe {
            lc::EVP_PKEY_keygen_deterministic(ctx.get(), &mut key, seed.as_ptr(), &mut len)
        };
        let key = Owned::new(key, lc::EVP_PKEY_free);
        ok(made)?;
        Ok(Self { key: key?, kind })
    }

    /// The encapsulation key.
    pub(crate) fn public(&self) -> Result<Vec<u8>, Refused> {
        let mut out = vec![0; self.kind.key_len()];
        let mut len = out.len();
        // SAFETY: writes at most `len` bytes, or fails.
        ok(unsafe { lc::EVP_PKEY_get_raw_public_key(self.key.get(), out.as_mut_ptr(), &mut len) })?;
        if len == out.len() { Ok(out) } else { Err(Refused) }
    }

    /// The shared secret of a ciphertext, which has `ciphertext_len` bytes. One that was not made for this
    /// key gives a secret that nobody else has (implicit rejection).
    pub(crate) fn decapsulate(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        if ciphertext.len() != self.kind.ciphertext_len() {
            return Err(Refused);
        }
        let ctx = operation(&self.key)?;
        let mut shared = Zeroizing::new(vec![0; SHARED_LEN]);
        let mut len = shared.len();
        // SAFETY: both slices go with their lengths.
        ok(unsafe {
            lc::EVP_PKEY_decapsulate(
                ctx.get(),
                shared.as_mut_ptr(),
                &mut len,
                ciphertext.as_ptr(),
                ciphertext.len(),
            )
        })?;
        if len == shared.len() { Ok(shared) } else { Err(Refused) }
    }
}

/// Ciphertext and shared secret for a peer's encapsulation key, from the randomness `m` (FIPS 203,
/// algorithm 17); a key with coefficients that are not reduced is refused (7.2).
pub(crate) fn encapsulate(
    kind: KemKind,
    key: &[u8],
    m: &[u8; 32],
) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), Refused> {
    // SAFETY: the slice goes with its length, which is checked inside; null is handled.
    let key = unsafe { lc::EVP_PKEY_kem_new_raw_public_key(kind.nid(), key.as_ptr(), key.len()) };
    let key = Owned::new(key, lc::EVP_PKEY_free).inspect_err(|_| super::forget_errors())?;
    let ctx = operation(&key)?;
    let mut ciphertext = vec![0; kind.ciphertext_len()];
    let mut shared = Zeroizing::new(vec![0; SHARED_LEN]);
    let (mut ct_len, mut shared_len, mut m_len) = (ciphertext.len(), shared.len(), m.len());
    // SAFETY: all three slices go with their lengths, which are checked inside.
    ok(unsafe {
        lc::EVP_PKEY_encapsulate_deterministic(
            ctx.get(),
            ciphertext.as_mut_ptr(),
            &mut ct_len,
            shared.as_mut_ptr(),
            &mut shared_len,
            m.as_ptr(),
            &mut m_len,
        )
    })?;
    let whole = (ct_len, shared_len) == (ciphertext.len(), shared.len());
    if whole { Ok((ciphertext, shared)) } else { Err(Refused) }
}

fn operation(key: &Owned<lc::EVP_PKEY>) -> Result<Owned<lc::EVP_PKEY_CTX>, Refused> {
    // SAFETY: the context takes a reference of its own to the live key; null is handled.
    let ctx = unsafe { lc::EVP_PKEY_CTX_new(key.get(), ptr::null_mut()) };
    Owned::new(ctx, lc::EVP_PKEY_CTX_free)
}
