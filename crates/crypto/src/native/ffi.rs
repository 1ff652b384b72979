//! The one place where AWS-LC is called without a safe layer over it: what `aws-lc-rs` lacks.
//!
//! Truncated GCM tags, raw AES, modular exponentiation with a cached modulus, ML-KEM from given
//! randomness, and keys of every kind through one interface. Every pointer that AWS-LC returns is owned by one type here and
//! freed by its `Drop`; slices go in with their own lengths; results are checked.
#![allow(unsafe_code)]

pub(crate) mod kem;

use std::ptr::{self, NonNull};

use aws_lc_sys as lc;
use wire::registry::HashAlg;
use zeroize::Zeroize;

/// AWS-LC refused an operation; which one is clear from the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// An owned pointer and the function that frees it.
struct Owned<T> {
    pointer: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Self, Refused> {
        NonNull::new(pointer).map(|pointer| Self { pointer, free }).ok_or(Refused)
    }

    fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }

    /// Gives the pointer up to someone who frees it from now on.
    fn release(self) -> *mut T {
        let pointer = self.get();
        std::mem::forget(self);
        pointer
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the allocator that goes with `free`, and is freed once, here.
        unsafe { (self.free)(self.get()) }
    }
}

fn ok(result: std::os::raw::c_int) -> Result<(), Refused> {
    if result == 1 {
        return Ok(());
    }
    // SAFETY: clears this thread's error queue, so that failures do not pile up in it.
    unsafe { lc::ERR_clear_error() };
    Err(Refused)
}

/// Which AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AeadKind {
    Aes128Gcm,
    Aes192Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

/// A keyed AEAD with a tag of 1 to 16 bytes.
pub(crate) struct Aead {
    ctx: Owned<lc::EVP_AEAD_CTX>,
    tag_len: usize,
}

// SAFETY: a built EVP_AEAD_CTX is used through `const` only, which aead.h allows from several threads at once, and has no thread affinity.
unsafe impl Send for Aead {}
// SAFETY: as above.
unsafe impl Sync for Aead {}

impl Aead {
    pub(crate) fn new(kind: AeadKind, key: &[u8], tag_len: usize) -> Result<Self, Refused> {
        // SAFETY: these return pointers to static tables.
        let aead = unsafe {
            match kind {
                AeadKind::Aes128Gcm => lc::EVP_aead_aes_128_gcm(),
                AeadKind::Aes192Gcm => lc::EVP_aead_aes_192_gcm(),
                AeadKind::Aes256Gcm => lc::EVP_aead_aes_256_gcm(),
                AeadKind::ChaCha20Poly1305 => lc::EVP_aead_chacha20_poly1305(),
            }
        };
        // SAFETY: key and its length belong together; AWS-LC checks length and tag length itself.
        let ctx = unsafe { lc::EVP_AEAD_CTX_new(aead, key.as_ptr(), key.len(), tag_len) };
        Ok(Self { ctx: Owned::new(ctx, lc::EVP_AEAD_CTX_free)?, tag_len })
    }

    /// Encrypts in place and writes the tag, which must be of the length given to `new`.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Refused> {
        if tag.len() != self.tag_len {
            return Err(Refused);
        }
        let mut written = 0;
        // SAFETY: in and out are the same buffer, which AWS-LC permits; every pointer goes with its length.
        let result = unsafe {
            lc::EVP_AEAD_CTX_seal_scatter(
                self.ctx.get(),
                data.as_mut_ptr(),
                tag.as_mut_ptr(),
                &mut written,
                tag.len(),
                nonce.as_ptr(),
                nonce.len(),
                data.as_ptr(),
                data.len(),
                ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        ok(result)?;
        if written == tag.len() { Ok(()) } else { Err(Refused) }
    }

    /// Verifies and decrypts in place; on failure `data` is zeroed.
    pub(crate) fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Refused> {
        if tag.len() != self.tag_len {
            return Err(Refused);
        }
        // SAFETY: as in `seal`; the tag's length was checked above.
        let result = unsafe {
            lc::EVP_AEAD_CTX_open_gather(
                self.ctx.get(),
                data.as_mut_ptr(),
                nonce.as_ptr(),
                nonce.len(),
                data.as_ptr(),
                data.len(),
                tag.as_ptr(),
                tag.len(),
                aad.as_ptr(),
                aad.len(),
            )
        };
        ok(result)
    }
}

/// An expanded AES key for one direction.
pub(crate) struct AesKey(lc::AES_KEY);

impl AesKey {
    /// For encryption, CTR and CBC encryption. Keys of 16, 24 or 32 bytes.
    pub(crate) fn encrypting(key: &[u8]) -> Result<Self, Refused> {
        Self::expand(key, lc::AES_set_encrypt_key)
    }

    /// For CBC decryption.
    pub(crate) fn decrypting(key: &[u8]) -> Result<Self, Refused> {
        Self::expand(key, lc::AES_set_decrypt_key)
    }

    fn expand(
        key: &[u8],
        set: unsafe extern "C" fn(
            *const u8,
            std::os::raw::c_uint,
            *mut lc::AES_KEY,
        ) -> std::os::raw::c_int,
    ) -> Result<Self, Refused> {
        if !matches!(key.len(), 16 | 24 | 32) {
            return Err(Refused);
        }
        let mut expanded = Self(lc::AES_KEY { rd_key: [0; 60], rounds: 0 });
        // SAFETY: the key has as many bits as stated, and the schedule is large enough for each size.
        let result =
            unsafe { set(key.as_ptr(), key.len() as std::os::raw::c_uint * 8, &mut expanded.0) };
        if result == 0 { Ok(expanded) } else { Err(Refused) }
    }

    /// One block, with a key from `encrypting`.
    pub(crate) fn encrypt_block(&self, block: &[u8; 16]) -> [u8; 16] {
        let mut out = [0; 16];
        // SAFETY: both are one block long.
        unsafe { lc::AES_encrypt(block.as_ptr(), out.as_mut_ptr(), &self.0) };
        out
    }

    /// CBC over whole blocks in place; a remainder is left alone. A key from `encrypting`.
    pub(crate) fn cbc_encrypt(&self, iv: &[u8; 16], data: &mut [u8]) {
        self.cbc(iv, data, lc::AES_ENCRYPT);
    }

    /// The reverse, with a key from `decrypting`.
    pub(crate) fn cbc_decrypt(&self, iv: &[u8; 16], data: &mut [u8]) {
        self.cbc(iv, data, lc::AES_DECRYPT);
    }

    fn cbc(&self, iv: &[u8; 16], data: &mut [u8], direction: std::os::raw::c_int) {
        let (mut iv, whole) = (*iv, data.len() / 16 * 16);
        if whole == 0 {
            return;
        }
        // SAFETY: in place over `whole` bytes, which `data` has; the IV is a copy that may be overwritten.
        unsafe {
            lc::AES_cbc_encrypt(
                data.as_ptr(),
                data.as_mut_ptr(),
                whole,
                &self.0,
                iv.as_mut_ptr(),
                direction,
            )
        };
    }

    /// CTR in place from `block` on, the last 32 bits counting. A key from `encrypting`.
    pub(crate) fn ctr(&self, block: &[u8; 16], data: &mut [u8]) {
        if data.is_empty() {
            return;
        }
        let (mut block, mut stream, mut used) = (*block, [0u8; 16], 0);
        // SAFETY: in place over the whole of `data`; the other three are state of this one call.
        unsafe {
            lc::AES_ctr128_encrypt(
                data.as_ptr(),
                data.as_mut_ptr(),
                data.len(),
                &self.0,
                block.as_mut_ptr(),
                stream.as_mut_ptr(),
                &mut used,
            )
        };
        stream.zeroize();
    }
}

impl Drop for AesKey {
    fn drop(&mut self) {
        self.0.rd_key.zeroize();
    }
}

/// A prime field: its prime and the Montgomery form, computed once.
pub(crate) struct ModpGroup {
    mont: Owned<lc::BN_MONT_CTX>,
    modulus: Owned<lc::BIGNUM>,
    /// The prime, big-endian, without leading zeros.
    pub(crate) prime: &'static [u8],
}

// SAFETY: modulus and Montgomery form are read only once they are built, and have no thread affinity.
unsafe impl Send for ModpGroup {}
// SAFETY: as above.
unsafe impl Sync for ModpGroup {}

impl ModpGroup {
    /// The group of an odd `prime`, big-endian.
    pub(crate) fn new(prime: &'static [u8]) -> Result<Self, Refused> {
        let modulus = from_bytes(prime)?;
        let ctx = scratch()?;
        // SAFETY: the modulus is positive (oddness is checked inside), and is copied by this call.
        let mont = unsafe { lc::BN_MONT_CTX_new_for_modulus(modulus.get(), ctx.get()) };
        Ok(Self { mont: Owned::new(mont, lc::BN_MONT_CTX_free)?, modulus, prime })
    }

    /// `base ^ exponent mod prime`, in time that depends on the exponent's length alone; as long as the prime.
    pub(crate) fn power(&self, base: &[u8], exponent: &[u8]) -> Result<Vec<u8>, Refused> {
        let (ctx, result) = (scratch()?, number()?);
        let (base, exponent) = (from_bytes(base)?, from_bytes(exponent)?);
        // SAFETY: all are live numbers of this call; the modulus and its Montgomery form are read only.
        ok(unsafe {
            lc::BN_mod_exp_mont_consttime(
                result.get(),
                base.get(),
                exponent.get(),
                self.modulus.get(),
                ctx.get(),
                self.mont.get(),
            )
        })?;
        padded(&result, self.prime.len())
    }
}

fn number() -> Result<Owned<lc::BIGNUM>, Refused> {
    // SAFETY: allocates; null is handled. Freed with wiping, as it may hold an exponent.
    Owned::new(unsafe { lc::BN_new() }, lc::BN_clear_free)
}

fn scratch() -> Result<Owned<lc::BN_CTX>, Refused> {
    // SAFETY: allocates; null is handled.
    Owned::new(unsafe { lc::BN_CTX_new() }, lc::BN_CTX_free)
}

fn from_bytes(bytes: &[u8]) -> Result<Owned<lc::BIGNUM>, Refused> {
    let number = number()?;
    // SAFETY: reads `len` bytes from the slice into a live number.
    let filled = unsafe { lc::BN_bin2bn(bytes.as_ptr(), bytes.len(), number.get()) };
    if filled.is_null() { Err(Refused) } else { Ok(number) }
}

fn padded(number: &Owned<lc::BIGNUM>, len: usize) -> Result<Vec<u8>, Refused> {
    let mut out = vec![0; len];
    // SAFETY: writes exactly `len` bytes, or fails.
    ok(unsafe { lc::BN_bn2bin_padded(out.as_mut_ptr(), len, number.get()) })?;
    Ok(out)
}

/// What a key is; anything else is refused on loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PkeyKind {
    /// Modulus size in bits.
    Rsa(u32),
    /// Curve size in bits: 256, 384, 521.
    Ec(u16),
    Ed25519,
    Other,
}

/// How an RSA signature is padded; of no meaning for other keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    Pkcs1,
    /// MGF1 and salt length as the hash.
    Pss,
}

/// A public or private key.
pub(crate) struct Pkey(Owned<lc::EVP_PKEY>);

// SAFETY: evp.h allows non-mutating functions on one EVP_PKEY from several threads; signing and verifying count its
// references atomically and lock what RSA caches.
unsafe impl Send for Pkey {}
// SAFETY: as above.
unsafe impl Sync for Pkey {}

impl Pkey {
    /// A private key: PKCS#8 (unencrypted), else PKCS#1, else SEC1. No byte may follow it.
    pub(crate) fn private(der: &[u8]) -> Result<Self, Refused> {
        Self::pkcs8(der).or_else(|_| Self::pkcs1(der)).or_else(|_| Self::sec1(der))
    }

    fn pkcs8(der: &[u8]) -> Result<Self, Refused> {
        let mut cbs = reader(der);
        // SAFETY: reads within the slice; null is handled.
        let key = unsafe { lc::EVP_parse_private_key(&mut cbs) };
        consumed(
            &cbs,
            Owned::new(key, lc::EVP_PKEY_free).map(Self).inspect_err(|_| forget_errors()),
        )
    }

    fn pkcs1(der: &[u8]) -> Result<Self, Refused> {
        let mut cbs = reader(der);
        // SAFETY: as above.
        let rsa = unsafe { lc::RSA_parse_private_key(&mut cbs) };
        let rsa = consumed(&cbs, Owned::new(rsa, lc::RSA_free).inspect_err(|_| forget_errors()))?;
        let key = empty_key()?;
        // SAFETY: on success the key owns the RSA object, which is therefore released below.
        ok(unsafe { lc::EVP_PKEY_assign_RSA(key.get(), rsa.get()) })?;
        rsa.release();
        Ok(Self(key))
    }

    fn sec1(der: &[u8]) -> Result<Self, Refused> {
        let mut cbs = reader(der);
        // SAFETY: as above; without a group, the curve must be named in the key.
        let ec = unsafe { lc::EC_KEY_parse_private_key(&mut cbs, ptr::null()) };
        let ec = consumed(&cbs, Owned::new(ec, lc::EC_KEY_free).inspect_err(|_| forget_errors()))?;
        let key = empty_key()?;
        // SAFETY: as for RSA.
        ok(unsafe { lc::EVP_PKEY_assign_EC_KEY(key.get(), ec.get()) })?;
        ec.release();
        Ok(Self(key))
    }

    /// A public key from a SubjectPublicKeyInfo. No byte may follow it.
    pub(crate) fn public(spki: &[u8]) -> Result<Self, Refused> {
        let mut cbs = reader(spki);
        // SAFETY: reads within the slice; null is handled.
        let key = unsafe { lc::EVP_parse_public_key(&mut cbs) };
        consumed(
            &cbs,
            Owned::new(key, lc::EVP_PKEY_free).map(Self).inspect_err(|_| forget_errors()),
        )
    }

    pub(crate) fn kind(&self) -> PkeyKind {
        // SAFETY: both read from a live key.
        let (id, bits) =
            unsafe { (lc::EVP_PKEY_id(self.0.get()), lc::EVP_PKEY_bits(self.0.get())) };
        match id {
            lc::EVP_PKEY_RSA => PkeyKind::Rsa(u32::try_from(bits).unwrap_or(0)),
            lc::EVP_PKEY_EC => self.curve(),
            lc::EVP_PKEY_ED25519 => PkeyKind::Ed25519,
            _ => PkeyKind::Other,
        }
    }

    fn curve(&self) -> PkeyKind {
        // SAFETY: called for EC keys; null is handled; the group belongs to the key.
        let name = unsafe {
            let ec = lc::EVP_PKEY_get0_EC_KEY(self.0.get());
            if ec.is_null() {
                return PkeyKind::Other;
            }
            lc::EC_GROUP_get_curve_name(lc::EC_KEY_get0_group(ec))
        };
        match name {
            lc::NID_X9_62_prime256v1 => PkeyKind::Ec(256),
            lc::NID_secp384r1 => PkeyKind::Ec(384),
            lc::NID_secp521r1 => PkeyKind::Ec(521),
            _ => PkeyKind::Other,
        }
    }

    /// SubjectPublicKeyInfo, DER.
    pub(crate) fn spki(&self) -> Result<Vec<u8>, Refused> {
        // SAFETY: with null it tells the length only.
        let len = unsafe { lc::i2d_PUBKEY(self.0.get(), ptr::null_mut()) };
        let mut out = vec![0; usize::try_from(len).map_err(|_| Refused)?];
        let mut cursor = out.as_mut_ptr();
        // SAFETY: writes as many bytes as it said before, and moves the cursor, a copy, past them.
        let written = unsafe { lc::i2d_PUBKEY(self.0.get(), &mut cursor) };
        if written == len { Ok(out) } else { Err(Refused) }
    }

    /// Signs; `hash` is `None` for Ed25519.
    pub(crate) fn sign(
        &self,
        hash: Option<HashAlg>,
        padding: Padding,
        message: &[u8],
    ) -> Result<Vec<u8>, Refused> {
        let (ctx, mut settings) = (digest_ctx()?, ptr::null_mut());
        // SAFETY: context and key are live; the settings belong to the context.
        ok(unsafe {
            lc::EVP_DigestSignInit(
                ctx.get(),
                &mut settings,
                digest(hash)?,
                ptr::null_mut(),
                self.0.get(),
            )
        })?;
        self.pad(settings, padding)?;
        let mut len = 0;
        // SAFETY: with null it tells the greatest length only.
        ok(unsafe {
            lc::EVP_DigestSign(
                ctx.get(),
                ptr::null_mut(),
                &mut len,
                message.as_ptr(),
                message.len(),
            )
        })?;
        let mut out = vec![0; len];
        // SAFETY: writes at most `len` bytes and sets it to what it wrote.
        ok(unsafe {
            lc::EVP_DigestSign(
                ctx.get(),
                out.as_mut_ptr(),
                &mut len,
                message.as_ptr(),
                message.len(),
            )
        })?;
        out.truncate(len);
        Ok(out)
    }

    /// Verifies; `Refused` is a bad signature.
    pub(crate) fn verify(
        &self,
        hash: Option<HashAlg>,
        padding: Padding,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Refused> {
        let (ctx, mut settings) = (digest_ctx()?, ptr::null_mut());
        // SAFETY: as in `sign`.
        ok(unsafe {
            lc::EVP_DigestVerifyInit(
                ctx.get(),
                &mut settings,
                digest(hash)?,
                ptr::null_mut(),
                self.0.get(),
            )
        })?;
        self.pad(settings, padding)?;
        // SAFETY: both slices with their lengths.
        ok(unsafe {
            lc::EVP_DigestVerify(
                ctx.get(),
                signature.as_ptr(),
                signature.len(),
                message.as_ptr(),
                message.len(),
            )
        })
    }

    fn pad(&self, settings: *mut lc::EVP_PKEY_CTX, padding: Padding) -> Result<(), Refused> {
        if !matches!(self.kind(), PkeyKind::Rsa(_)) {
            return Ok(());
        }
        let mode = match padding {
            Padding::Pkcs1 => lc::RSA_PKCS1_PADDING,
            Padding::Pss => lc::RSA_PKCS1_PSS_PADDING,
        };
        // SAFETY: the settings are those of a context that is live in the caller.
        ok(unsafe { lc::EVP_PKEY_CTX_set_rsa_padding(settings, mode) })?;
        if padding == Padding::Pkcs1 {
            return Ok(());
        }
        // SAFETY: as above.
        ok(unsafe { lc::EVP_PKEY_CTX_set_rsa_pss_saltlen(settings, lc::RSA_PSS_SALTLEN_DIGEST) })
    }
}

fn empty_key() -> Result<Owned<lc::EVP_PKEY>, Refused> {
    // SAFETY: allocates; null is handled.
    Owned::new(unsafe { lc::EVP_PKEY_new() }, lc::EVP_PKEY_free)
}

fn digest_ctx() -> Result<Owned<lc::EVP_MD_CTX>, Refused> {
    // SAFETY: allocates; null is handled.
    Owned::new(unsafe { lc::EVP_MD_CTX_new() }, lc::EVP_MD_CTX_free)
}

fn digest(hash: Option<HashAlg>) -> Result<*const lc::EVP_MD, Refused> {
    // SAFETY: these return pointers to static tables.
    unsafe {
        Ok(match hash {
            None => ptr::null(),
            Some(HashAlg::SHA1) => lc::EVP_sha1(),
            Some(HashAlg::SHA2_256) => lc::EVP_sha256(),
            Some(HashAlg::SHA2_384) => lc::EVP_sha384(),
            Some(HashAlg::SHA2_512) => lc::EVP_sha512(),
            Some(_) => return Err(Refused),
        })
    }
}

fn reader(bytes: &[u8]) -> lc::CBS {
    lc::CBS { data: bytes.as_ptr(), len: bytes.len() }
}

fn consumed<T>(cbs: &lc::CBS, value: Result<T, Refused>) -> Result<T, Refused> {
    if cbs.len == 0 { value } else { value.and(Err(Refused)) }
}

fn forget_errors() {
    // SAFETY: clears this thread's error queue.
    unsafe { lc::ERR_clear_error() }
}

/// The bindings of other targets lack these constants, so they are compared where they are known.
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::super::primes;
    use super::*;

    #[test]
    fn primes_are_those_of_aws_lc() {
        type Constant = unsafe extern "C" fn(*mut lc::BIGNUM) -> *mut lc::BIGNUM;
        let cases: [(&[u8], Constant); 6] = [
            (&primes::MODP_1536, lc::BN_get_rfc3526_prime_1536),
            (&primes::MODP_2048, lc::BN_get_rfc3526_prime_2048),
            (&primes::MODP_3072, lc::BN_get_rfc3526_prime_3072),
            (&primes::MODP_4096, lc::BN_get_rfc3526_prime_4096),
            (&primes::MODP_6144, lc::BN_get_rfc3526_prime_6144),
            (&primes::MODP_8192, lc::BN_get_rfc3526_prime_8192),
        ];
        for (ours, theirs) in cases {
            let value = number().unwrap();
            // SAFETY: writes its prime into a live number.
            assert!(!unsafe { theirs(value.get()) }.is_null());
            assert_eq!(padded(&value, ours.len()).unwrap(), ours);
        }
    }
}
