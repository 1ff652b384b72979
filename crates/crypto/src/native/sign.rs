//! Signing and verifying with RSA, ECDSA and Ed25519.

use der::asn1::UintRef;
use der::{Encode, Reader, SliceReader};
use wire::registry::HashAlg;

use super::ffi::{Padding, Pkey, PkeyKind};
use crate::sign::{KeyKind, Scheme, SignError, SigningKey, VerifyError};

/// Bits of an RSA modulus that are neither weak nor a way to keep us busy.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

struct Key {
    pkey: Pkey,
    kind: KeyKind,
    spki: Vec<u8>,
}

pub(crate) fn load(der: &[u8]) -> Result<Box<dyn SigningKey>, SignError> {
    let pkey = Pkey::private(der).map_err(|_| {
        SignError::Malformed("it cannot be parsed, or its parts do not fit together".into())
    })?;
    let kind = kind(&pkey).map_err(SignError::Unsupported)?;
    let spki = pkey
        .spki()
        .map_err(|_| SignError::Malformed("its public part cannot be derived".into()))?;
    Ok(Box::new(Key { pkey, kind, spki }))
}

pub(crate) fn verify(
    scheme: Scheme,
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    let pkey = Pkey::public(spki)
        .map_err(|_| VerifyError::Unsupported("the public key cannot be parsed".into()))?;
    let kind = kind(&pkey).map_err(VerifyError::Unsupported)?;
    let (hash, padding) = settings(kind, scheme).map_err(VerifyError::Unsupported)?;
    let signature = match (scheme, kind) {
        (Scheme::EcdsaRaw(_), KeyKind::Ec(bits)) => {
            raw_to_der(signature, coordinate_len(bits)).ok_or(VerifyError::BadSignature)?
        }
        _ => signature.to_vec(),
    };
    pkey.verify(hash, padding, message, &signature).map_err(|_| VerifyError::BadSignature)
}

impl SigningKey for Key {
    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn spki(&self) -> Vec<u8> {
        self.spki.clone()
    }

    fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let (hash, padding) = settings(self.kind, scheme).map_err(SignError::Unsupported)?;
        let failed = || SignError::Unsupported("the private key failed to sign".into());
        let signature = self.pkey.sign(hash, padding, message).map_err(|_| failed())?;
        match (scheme, self.kind) {
            (Scheme::EcdsaRaw(_), KeyKind::Ec(bits)) => {
                der_to_raw(&signature, coordinate_len(bits)).ok_or_else(failed)
            }
            _ => Ok(signature),
        }
    }
}

fn kind(pkey: &Pkey) -> Result<KeyKind, String> {
    match pkey.kind() {
        PkeyKind::Rsa(bits) if RSA_BITS.contains(&bits) => Ok(KeyKind::Rsa(bits)),
        PkeyKind::Rsa(bits) => Err(format!(
            "an RSA key of {bits} bits; {} to {} are accepted",
            RSA_BITS.start(),
            RSA_BITS.end()
        )),
        PkeyKind::Ec(bits) => Ok(KeyKind::Ec(bits)),
        PkeyKind::Ed25519 => Ok(KeyKind::Ed25519),
        PkeyKind::Other => {
            Err("a key of a kind that is not supported; RSA, P-256, P-384, P-521 and Ed25519 are"
                .into())
        }
    }
}

/// Hash and padding of a scheme, if it goes with the key.
fn settings(kind: KeyKind, scheme: Scheme) -> Result<(Option<HashAlg>, Padding), String> {
    let sha2 = matches!(scheme.hash(), HashAlg::SHA2_256 | HashAlg::SHA2_384 | HashAlg::SHA2_512);
    match (scheme, kind) {
        (Scheme::RsaPkcs1(hash), KeyKind::Rsa(_)) if sha2 || hash == HashAlg::SHA1 => {
            Ok((Some(hash), Padding::Pkcs1))
        }
        (Scheme::RsaPss(hash), KeyKind::Rsa(_)) if sha2 => Ok((Some(hash), Padding::Pss)),
        (Scheme::Ecdsa(hash), KeyKind::Ec(_)) if sha2 => Ok((Some(hash), Padding::Pkcs1)),
        // RFC 4754 7 ties each curve to one hash.
        (Scheme::EcdsaRaw(hash @ HashAlg::SHA2_256), KeyKind::Ec(256))
        | (Scheme::EcdsaRaw(hash @ HashAlg::SHA2_384), KeyKind::Ec(384))
        | (Scheme::EcdsaRaw(hash @ HashAlg::SHA2_512), KeyKind::Ec(521)) => {
            Ok((Some(hash), Padding::Pkcs1))
        }
        (Scheme::Ed25519, KeyKind::Ed25519) => Ok((None, Padding::Pkcs1)),
        _ => Err(format!("{scheme:?} does not go with a key of kind {kind:?}")),
    }
}

fn coordinate_len(bits: u16) -> usize {
    usize::from(bits).div_ceil(8)
}

/// `SEQUENCE { r INTEGER, s INTEGER }` to `r | s`, each of `len` bytes.
fn der_to_raw(der: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut reader = SliceReader::new(der).ok()?;
    let (r, s): (UintRef<'_>, UintRef<'_>) =
        reader.sequence(|inner| Ok::<_, der::Error>((inner.decode()?, inner.decode()?))).ok()?;
    let mut out = vec![0; 2 * len];
    for (half, number) in out.chunks_exact_mut(len).zip([r.as_bytes(), s.as_bytes()]) {
        let start = len.checked_sub(number.len())?;
        half[start..].copy_from_slice(number);
    }
    Some(out)
}

/// The reverse; `None` unless both halves have exactly `len` bytes.
fn raw_to_der(raw: &[u8], len: usize) -> Option<Vec<u8>> {
    if raw.len() != 2 * len {
        return None;
    }
    let (r, s) = raw.split_at(len);
    vec![UintRef::new(r).ok()?, UintRef::new(s).ok()?].to_der().ok()
}
