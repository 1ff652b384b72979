//! Signatures of IKE_AUTH.

use rustls_pki_types::pem::{PemObject, SectionKind};
use wire::registry::{AuthMethod, HashAlg};

use crate::Secret;

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
    ///
    /// The salts of PSS and the nonces of ECDSA are the cryptographic library's own random numbers: two
    /// signatures of one message differ with the native provider. The toy's are always the same.
    fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Why a key could not be loaded or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is protected by a pass phrase.
    #[error(
        "the private key is protected by a pass phrase; write it without one (`openssl pkey -in KEY -out KEY.plain`)"
    )]
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
    /// The DER AlgorithmIdentifier for the AUTH payload (RFC 7427 A, RFC 8420 A).
    ///
    /// `None` for what method 14 must not carry: `EcdsaRaw`, and SHA-1 (RFC 8247 3.2).
    pub fn algorithm_identifier(self) -> Option<&'static [u8]> {
        KNOWN.iter().find(|(scheme, _)| *scheme == self).map(|(_, der)| *der)
    }

    /// The scheme a DER AlgorithmIdentifier names.
    ///
    /// PSS parameters must be explicit, with one hash for both and a salt of its length; absent
    /// parameters of the hashes stand for NULL, and the default trailer may be written out.
    pub fn from_algorithm_identifier(der: &[u8]) -> Option<Self> {
        let exact = KNOWN.iter().find(|(_, known)| *known == der).map(|(scheme, _)| *scheme);
        exact.or_else(|| sha2().into_iter().find_map(|hash| variant(hash, der)))
    }

    /// The scheme of an older authentication method: RSA with SHA-1 (RFC 7296 3.8), ECDSA on one curve
    /// with one hash (RFC 4754 7). `None` for methods that are no signature, or name no scheme.
    pub fn of_auth_method(method: AuthMethod) -> Option<Self> {
        Some(match method {
            AuthMethod::RSA => Self::RsaPkcs1(HashAlg::SHA1),
            AuthMethod::ECDSA_256 => Self::EcdsaRaw(HashAlg::SHA2_256),
            AuthMethod::ECDSA_384 => Self::EcdsaRaw(HashAlg::SHA2_384),
            AuthMethod::ECDSA_521 => Self::EcdsaRaw(HashAlg::SHA2_512),
            _ => return None,
        })
    }

    /// The hash that the scheme uses; `IDENTITY` for Ed25519 (RFC 8420).
    pub fn hash(self) -> HashAlg {
        match self {
            Self::RsaPkcs1(hash)
            | Self::RsaPss(hash)
            | Self::Ecdsa(hash)
            | Self::EcdsaRaw(hash) => hash,
            Self::Ed25519 => HashAlg::IDENTITY,
        }
    }
}

/// Hashes that this side takes in signatures, as it announces them in SIGNATURE_HASH_ALGORITHMS.
pub const ACCEPTED_HASHES: [HashAlg; 4] =
    [HashAlg::SHA2_256, HashAlg::SHA2_384, HashAlg::SHA2_512, HashAlg::IDENTITY];

/// The scheme with which a key of `kind` signs for a peer that announced `peer_hashes` (RFC 7427 4).
///
/// RSA signs with PSS, which RFC 8247 3.2 prefers and some peers demand. ECDSA takes the hash of the
/// curve's strength where the peer has it. `None` where nothing is left but the older methods.
pub fn choose(kind: KeyKind, peer_hashes: &[HashAlg]) -> Option<Scheme> {
    use HashAlg as H;
    let first = |order: [H; 3]| order.into_iter().find(|hash| peer_hashes.contains(hash));
    match kind {
        KeyKind::Rsa(_) => first([H::SHA2_256, H::SHA2_384, H::SHA2_512]).map(Scheme::RsaPss),
        KeyKind::Ec(384) => first([H::SHA2_384, H::SHA2_512, H::SHA2_256]).map(Scheme::Ecdsa),
        KeyKind::Ec(521) => first([H::SHA2_512, H::SHA2_384, H::SHA2_256]).map(Scheme::Ecdsa),
        KeyKind::Ec(_) | KeyKind::Toy => {
            first([H::SHA2_256, H::SHA2_384, H::SHA2_512]).map(Scheme::Ecdsa)
        }
        KeyKind::Ed25519 => peer_hashes.contains(&H::IDENTITY).then_some(Scheme::Ed25519),
    }
}

/// All schemes in which a key of `kind` signs, in the order of preference of [`choose`]: each with its modern form
/// first, those of RSA with PKCS #1 v1.5 behind those with PSS, the older methods last.
pub fn schemes(kind: KeyKind) -> Vec<Scheme> {
    use HashAlg as H;
    let order = match kind {
        KeyKind::Ec(384) => [H::SHA2_384, H::SHA2_512, H::SHA2_256],
        KeyKind::Ec(521) => [H::SHA2_512, H::SHA2_384, H::SHA2_256],
        _ => sha2(),
    };
    let mut all: Vec<_> = match kind {
        KeyKind::Rsa(_) => {
            order.map(Scheme::RsaPss).into_iter().chain(order.map(Scheme::RsaPkcs1)).collect()
        }
        KeyKind::Ec(_) | KeyKind::Toy => order.map(Scheme::Ecdsa).to_vec(),
        KeyKind::Ed25519 => vec![Scheme::Ed25519],
    };
    all.extend(choose_legacy(kind).map(|(_, scheme)| scheme));
    all
}

/// The AlgorithmIdentifiers of all signatures that are taken, preferred ones first.
pub fn known_identifiers() -> impl Iterator<Item = &'static [u8]> {
    let rank = |scheme: &Scheme| matches!(scheme, Scheme::RsaPkcs1(_));
    let ranked = |late| KNOWN.iter().filter(move |(scheme, _)| rank(scheme) == late);
    ranked(false).chain(ranked(true)).map(|(_, der)| *der)
}

/// The older authentication method for a key, for peers without RFC 7427. `None` for Ed25519, which has none.
pub fn choose_legacy(kind: KeyKind) -> Option<(AuthMethod, Scheme)> {
    let method = match kind {
        KeyKind::Rsa(_) => AuthMethod::RSA,
        KeyKind::Ec(256) | KeyKind::Toy => AuthMethod::ECDSA_256,
        KeyKind::Ec(384) => AuthMethod::ECDSA_384,
        KeyKind::Ec(521) => AuthMethod::ECDSA_521,
        KeyKind::Ec(_) | KeyKind::Ed25519 => return None,
    };
    Scheme::of_auth_method(method).map(|scheme| (method, scheme))
}

/// The first private key of a PEM text as DER, for [`crate::Provider::signing_key`]: PKCS#8, PKCS#1 or SEC1.
pub fn load_pem(pem: &str) -> Result<Secret, SignError> {
    // `BEGIN ENCRYPTED PRIVATE KEY` of PKCS#8, `Proc-Type: 4,ENCRYPTED` of the older forms.
    if pem.lines().any(|line| {
        line.contains("ENCRYPTED") && (line.contains("BEGIN") || line.contains("Proc-Type"))
    }) {
        return Err(SignError::Encrypted);
    }
    let mut others = Vec::new();
    for item in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        let (kind, der) = item
            .map_err(|error| SignError::Malformed(format!("the PEM text is damaged: {error}")))?;
        let der = Secret::new(der);
        if matches!(
            kind,
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
        ) {
            return Ok(der);
        }
        others.push(format!("{kind:?}"));
    }
    Err(SignError::Malformed(match others.as_slice() {
        [] => "no `-----BEGIN … PRIVATE KEY-----` in it".into(),
        others => format!("it holds {} where a private key is wanted", others.join(", ")),
    }))
}

fn sha2() -> [HashAlg; 3] {
    [HashAlg::SHA2_256, HashAlg::SHA2_384, HashAlg::SHA2_512]
}

/// Forms that differ from RFC 7427's but mean the same.
fn variant(hash: HashAlg, der: &[u8]) -> Option<Scheme> {
    let (rsa, ecdsa) = (Scheme::RsaPkcs1(hash), Scheme::Ecdsa(hash));
    // Without the NULL (RFC 4055 5 wants it, some leave it out); with one that RFC 5758 3.2 does not want.
    if with_null(rsa.algorithm_identifier()?, false).as_deref() == Some(der) {
        return Some(rsa);
    }
    if with_null(ecdsa.algorithm_identifier()?, true).as_deref() == Some(der) {
        return Some(ecdsa);
    }
    let bit = |form: u8, which: u8| form & (1 << which) != 0;
    (0..8)
        .any(|form| pss(hash, bit(form, 0), bit(form, 1), bit(form, 2)).as_deref() == Some(der))
        .then_some(Scheme::RsaPss(hash))
}

/// `30 len OID` with or without a NULL after it.
fn with_null(identifier: &[u8], null: bool) -> Option<Vec<u8>> {
    let oid_end = 4 + usize::from(*identifier.get(3)?);
    let mut content = identifier.get(2..oid_end)?.to_vec();
    if null {
        content.extend([5, 0]);
    }
    Some(tlv(0x30, &content))
}

/// An explicit RSASSA-PSS identifier (RFC 4055 3.1).
fn pss(hash: HashAlg, hash_null: bool, mgf_null: bool, trailer: bool) -> Option<Vec<u8>> {
    const PSS: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
    const MGF1: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
    let (last, salt) = match hash {
        HashAlg::SHA2_256 => (1, 32),
        HashAlg::SHA2_384 => (2, 48),
        HashAlg::SHA2_512 => (3, 64),
        _ => return None,
    };
    let oid = [0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, last];
    let mut params = tlv(0xa0, &with_null(&oid, hash_null)?);
    params.extend(tlv(0xa1, &tlv(0x30, &[&MGF1[..], &with_null(&oid, mgf_null)?].concat())));
    params.extend(tlv(0xa2, &[2, 1, salt]));
    if trailer {
        params.extend(tlv(0xa3, &[2, 1, 1]));
    }
    Some(tlv(0x30, &[&PSS[..], &tlv(0x30, &params)].concat()))
}

/// For contents below 128 bytes, as all here are.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag, content.len() as u8];
    out.extend_from_slice(content);
    out
}

macro_rules! rsa {
    ($last:literal) => {
        &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, $last, 5, 0]
    };
}

macro_rules! ecdsa {
    ($last:literal) => {
        &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, $last]
    };
}

macro_rules! rsa_pss {
    ($hash:literal, $salt:literal) => {
        &[
            0x30, 0x41, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10, 0x30,
            0x34, // id-RSASSA-PSS
            0xa0, 0x0f, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, $hash, 5,
            0, // hash
            0xa1, 0x1c, 0x30, 26, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8, // MGF1
            0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, $hash, 5,
            0, // with the same hash
            0xa2, 3, 2, 1, $salt,
        ]
    };
}

/// RFC 7427 appendix A.1.2 to A.1.4, A.3.2 to A.3.4, A.4; RFC 8420 appendix A.
const KNOWN: [(Scheme, &[u8]); 10] = [
    (Scheme::RsaPkcs1(HashAlg::SHA2_256), rsa!(11)),
    (Scheme::RsaPkcs1(HashAlg::SHA2_384), rsa!(12)),
    (Scheme::RsaPkcs1(HashAlg::SHA2_512), rsa!(13)),
    (Scheme::Ecdsa(HashAlg::SHA2_256), ecdsa!(2)),
    (Scheme::Ecdsa(HashAlg::SHA2_384), ecdsa!(3)),
    (Scheme::Ecdsa(HashAlg::SHA2_512), ecdsa!(4)),
    (Scheme::RsaPss(HashAlg::SHA2_256), rsa_pss!(1, 32)),
    (Scheme::RsaPss(HashAlg::SHA2_384), rsa_pss!(2, 48)),
    (Scheme::RsaPss(HashAlg::SHA2_512), rsa_pss!(3, 64)),
    (Scheme::Ed25519, &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70]),
];
