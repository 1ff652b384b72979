//! Signatures of IKE_AUTH.

use wire::registry::HashAlg;

/// A way of signing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(HashAlg),
    /// RSASSA-PSS, MGF1 with the same hash, salt as long as the hash (RFC 7427 A.4).
    RsaPss(HashAlg),
    /// ECDSA with DER-encoded signature (RFC 7427 A.3); the curve is the key's.
    Ecdsa(HashAlg),
    /// ECDSA with `r | s` of fixed length (RFC 4754), for auth methods 9 to 11.
    EcdsaRaw(HashAlg),
    /// Ed25519 (RFC 8420).
    Ed25519,
}

/// What kind of key it is; decides the schemes that it can sign.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyKind {
    /// RSA with the modulus' size in bits.
    Rsa(u32),
    /// ECDSA on P-256, P-384 or P-521: 256, 384, 521.
    Ec(u16),
    /// Ed25519.
    Ed25519,
    /// Of the toy provider.
    Toy,
}

/// A private key that signs.
pub trait SigningKey: Send + Sync {
    /// Its kind.
    fn kind(&self) -> KeyKind;
    /// Its public key as SubjectPublicKeyInfo (DER).
    fn spki(&self) -> Vec<u8>;
    /// Signs `message` (hashing it as the scheme says).
    fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Why a key could not be loaded or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is protected by a pass phrase.
    #[error("the private key is protected by a pass phrase; write it without one (`openssl pkey -in KEY -out KEY.plain`)")]
    Encrypted,
    /// Not a key in any known form.
    #[error("not a private key in PKCS#8, PKCS#1 or SEC1 form: {0}")]
    Malformed(String),
    /// A kind or size of key that is not supported.
    #[error("{0}")]
    Unsupported(String),
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is not a signature of this message by this key.
    #[error("the signature does not verify")]
    BadSignature,
    /// The key or scheme is not supported, or the two do not go together.
    #[error("{0}")]
    Unsupported(String),
}

impl Scheme {
    /// The DER AlgorithmIdentifier for the AUTH payload (RFC 7427 A). `None` for `EcdsaRaw`.
    pub fn algorithm_identifier(self) -> Option<&'static [u8]> {
        None
    }

    /// The scheme a DER AlgorithmIdentifier names.
    pub fn from_algorithm_identifier(der: &[u8]) -> Option<Self> {
        let _ = der;
        None
    }
}
