//! The AUTH payload and what goes with it (RFC 7296 2.15, RFC 7427, RFC 4754, RFC 8420).

use crypto::chain::{Certificate, TrustStore, names_equal};
use crypto::provider::Unsupported;
use crypto::sign::{self, KeyKind, Scheme};
use crypto::{Credentials, Provider, Secret};
use wire::identity::Identity;
use wire::payload::{AuthPayload, CertReqPayload, Notify, Payload};
use wire::registry::{AuthMethod, CertEncoding, HashAlg, NotifyType, Prf, ProtocolId};

use crate::auth_methods::AuthMethods;
use crate::error::AuthError;
use crate::event::{KeyId, PeerProof};
use crypto::chain::Proven;

/// What an AUTH payload claims, not yet verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A MAC with the pre-shared key.
    Psk(Vec<u8>),
    /// A signature.
    Signature(Scheme, Vec<u8>),
    /// Nothing: a MAC with a key that both ends have whoever they are (RFC 7619).
    Null(Vec<u8>),
}

/// The octets that a side signs or MACs: `RealMessage | Nonce | prf(SK_p, RestOfIDPayload)` (RFC 7296 2.15).
///
/// `real_message` is that side's IKE_SA_INIT message as it was sent last (of an initiator that was
/// asked for a cookie: the one with the cookie), without non-ESP marker; `nonce` is the other
/// side's; `sk_p` and `id` are its own.
pub fn signed_octets(
    provider: &dyn Provider,
    prf: Prf,
    real_message: &[u8],
    nonce: &[u8],
    sk_p: &Secret,
    id: &Identity,
) -> Result<Vec<u8>, Unsupported> {
    let mac = provider.prf(prf, sk_p.expose(), &[&id_body(id)])?;
    Ok([real_message, nonce, mac.expose()].concat())
}

/// RestOfIDPayload: the body of an ID payload after the generic header.
pub fn id_body(id: &Identity) -> Vec<u8> {
    id.to_body()
}

/// The AUTH payload of a pre-shared key: `prf(prf(PSK, "Key Pad for IKEv2"), octets)`.
pub fn psk_payload(
    provider: &dyn Provider,
    prf: Prf,
    psk: &Secret,
    octets: &[u8],
) -> Result<AuthPayload, Unsupported> {
    let mac = psk_mac(provider, prf, psk, octets)?;
    Ok(AuthPayload { method: AuthMethod::PSK, data: mac.expose().to_vec() })
}

/// Whether `mac` is the pre-shared key's over the peer's octets; constant time.
pub fn check_psk(
    provider: &dyn Provider,
    prf: Prf,
    psk: &Secret,
    octets: &[u8],
    mac: &[u8],
) -> Result<bool, Unsupported> {
    // `Secret` compares in constant time.
    Ok(psk_mac(provider, prf, psk, octets)? == Secret::from(mac))
}

/// The AUTH payload of who proves nothing: as with a pre-shared key, which is the side's own SK_pi or SK_pr
/// (RFC 7619 2.1).
pub fn null_payload(
    provider: &dyn Provider,
    prf: Prf,
    sk_p: &Secret,
    octets: &[u8],
) -> Result<AuthPayload, Unsupported> {
    let mac = psk_mac(provider, prf, sk_p, octets)?;
    Ok(AuthPayload { method: AuthMethod::NULL, data: mac.expose().to_vec() })
}

/// Whether `mac` is that of a peer that proves nothing; constant time.
pub fn check_null(
    provider: &dyn Provider,
    prf: Prf,
    sk_p: &Secret,
    octets: &[u8],
    mac: &[u8],
) -> Result<bool, Unsupported> {
    check_psk(provider, prf, sk_p, octets, mac)
}

/// The AUTH payload of a signature: method 14 (RFC 7427 3), or the older one that the scheme stands
/// for (`EcdsaRaw`: 9 to 11 by its hash; RSA PKCS #1 with SHA-1: 1).
pub fn signature_payload(scheme: Scheme, signature: &[u8]) -> AuthPayload {
    let method = match scheme {
        Scheme::RsaPkcs1(HashAlg::SHA1) => AuthMethod::RSA,
        Scheme::EcdsaRaw(HashAlg::SHA2_256) => AuthMethod::ECDSA_256,
        Scheme::EcdsaRaw(HashAlg::SHA2_384) => AuthMethod::ECDSA_384,
        Scheme::EcdsaRaw(_) => AuthMethod::ECDSA_521,
        _ => AuthMethod::DIGITAL_SIGNATURE,
    };
    let mut data = Vec::with_capacity(signature.len() + 80);
    if method == AuthMethod::DIGITAL_SIGNATURE {
        let algorithm = scheme.algorithm_identifier().unwrap_or_default();
        data.push(u8::try_from(algorithm.len()).unwrap_or(0));
        data.extend_from_slice(algorithm);
    }
    data.extend_from_slice(signature);
    AuthPayload { method, data }
}

/// What an AUTH payload claims.
pub fn parse(payload: &AuthPayload) -> Result<Proof, AuthError> {
    let data = payload.data.as_slice();
    match payload.method {
        AuthMethod::PSK => Ok(Proof::Psk(data.to_vec())),
        AuthMethod::NULL => Ok(Proof::Null(data.to_vec())),
        AuthMethod::DIGITAL_SIGNATURE => parse_digital_signature(data),
        other => match Scheme::of_auth_method(other) {
            Some(scheme) => Ok(Proof::Signature(scheme, data.to_vec())),
            None => Err(AuthError::MethodNotAllowed(other.to_string())),
        },
    }
}

/// How this host's key signs for a peer that announced `peer_hashes` in SIGNATURE_HASH_ALGORITHMS;
/// if it announced none (`None`), or none that suits, by the older methods (RFC 7427 4). Where it announced
/// what it takes as proof (RFC 9593), only by what is among that. The result is `None` where nothing is, and for an
/// Ed25519 key and a peer that does not know it.
pub fn choose_scheme(
    kind: KeyKind,
    peer_hashes: Option<&[HashAlg]>,
    methods: Option<&AuthMethods>,
) -> Option<Scheme> {
    let Some(methods) = methods else {
        let modern = peer_hashes.and_then(|hashes| sign::choose(kind, hashes));
        return modern.or_else(|| sign::choose_legacy(kind).map(|(_, scheme)| scheme));
    };
    let digests = |scheme: &Scheme| {
        scheme.algorithm_identifier().is_none()
            || peer_hashes.is_some_and(|hashes| hashes.contains(&scheme.hash()))
    };
    sign::schemes(kind).into_iter().filter(digests).find(|scheme| methods.takes(*scheme))
}

/// The SIGNATURE_HASH_ALGORITHMS notify of this host.
pub fn hash_algorithms() -> Notify {
    let data = sign::ACCEPTED_HASHES.iter().flat_map(|hash| hash.0.to_be_bytes()).collect();
    Notify {
        protocol: ProtocolId::NONE,
        spi: Vec::new(),
        kind: NotifyType::SIGNATURE_HASH_ALGORITHMS,
        data,
    }
}

/// Data of a peer's SIGNATURE_HASH_ALGORITHMS; an odd last byte is ignored.
pub fn parse_hash_algorithms(data: &[u8]) -> Vec<HashAlg> {
    let (pairs, _) = data.as_chunks();
    pairs.iter().map(|pair| HashAlg(u16::from_be_bytes(*pair))).collect()
}

/// CERTREQ with the SHA-1 hashes of the trusted roots' public keys (RFC 7296 3.7).
pub fn certreq(provider: &dyn Provider, trust: &TrustStore) -> Result<CertReqPayload, Unsupported> {
    let mut data = Vec::with_capacity(trust.roots.len() * KEY_HASH_LEN);
    for root in &trust.roots {
        data.extend_from_slice(&root.key_id_sha1(provider)?);
    }
    Ok(CertReqPayload { encoding: CertEncoding::X509_SIGNATURE, data })
}

/// Whether a certificate's key is among a CERTREQ's authorities.
pub fn certreq_names(
    provider: &dyn Provider,
    request: &CertReqPayload,
    authority: &Certificate,
) -> bool {
    let Ok(wanted) = authority.key_id_sha1(provider) else { return false };
    request.encoding == CertEncoding::X509_SIGNATURE
        && request.data.chunks_exact(KEY_HASH_LEN).any(|hash| hash == wanted)
}

/// The authorities of a message's CERTREQ payloads, in their order (RFC 9593 3.2.2).
pub fn requested(payloads: &[Payload]) -> Vec<KeyId> {
    let requests = payloads.iter().filter_map(|payload| match payload {
        Payload::CertReq(request) if request.encoding == CertEncoding::X509_SIGNATURE => {
            Some(request.data.as_chunks().0)
        }
        _ => None,
    });
    // A link is one octet.
    requests.flatten().take(u8::MAX.into()).copied().collect()
}

/// The CAs that this host's certificate leads to, by the hashes of their keys.
pub fn issuers(provider: &dyn Provider, credentials: &Credentials) -> Vec<KeyId> {
    let sent = credentials.chain_to_send();
    let signs = |ca: &&Certificate| sent.iter().any(|c| names_equal(&c.issuer, &ca.subject));
    let cas = credentials.trust().all().filter(signs);
    cas.filter_map(|ca| ca.key_id_sha1(provider).ok()?.try_into().ok()).collect()
}

/// The authorities of a message's CERTREQ payloads, each once; `None`: it has none for X.509 certificates.
pub fn authorities(payloads: &[Payload]) -> Option<Vec<KeyId>> {
    let mut found: Option<Vec<KeyId>> = None;
    for payload in payloads {
        let Payload::CertReq(request) = payload else { continue };
        if request.encoding != CertEncoding::X509_SIGNATURE {
            continue;
        }
        let found = found.get_or_insert_default();
        for id in request.data.as_chunks().0 {
            if found.len() < MAX_AUTHORITIES && !found.contains(id) {
                found.push(*id);
            }
        }
    }
    found
}

/// What a peer has shown, for the owner of the endpoint.
pub(crate) fn shown(
    provider: &dyn Provider,
    proven: &Proven,
    trusts: Option<Vec<KeyId>>,
) -> PeerProof {
    let Proven { leaf, root } = proven;
    let id = root.as_ref().and_then(|root| root.key_id_sha1(provider).ok());
    PeerProof {
        subject: leaf.subject_text.clone(),
        serial: leaf.serial_text(),
        not_after: leaf.not_after,
        ca: id.and_then(|id| id.try_into().ok()),
        trusts,
    }
}

/// SHA-1 of a SubjectPublicKeyInfo (RFC 7296 3.7).
const KEY_HASH_LEN: usize = size_of::<KeyId>();
/// Authorities of a peer that are remembered; in a rotation there are two.
const MAX_AUTHORITIES: usize = 32;
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

fn psk_mac(
    provider: &dyn Provider,
    prf: Prf,
    psk: &Secret,
    octets: &[u8],
) -> Result<Secret, Unsupported> {
    let padded = provider.prf(prf, psk.expose(), &[KEY_PAD])?;
    provider.prf(prf, padded.expose(), &[octets])
}

/// `length | AlgorithmIdentifier | signature` (RFC 7427 3).
fn parse_digital_signature(data: &[u8]) -> Result<Proof, AuthError> {
    let malformed = || AuthError::BadProof("truncated digital signature".into());
    let (&len, rest) = data.split_first().ok_or_else(malformed)?;
    let (algorithm, signature) = rest.split_at_checked(len.into()).ok_or_else(malformed)?;
    let scheme = Scheme::from_algorithm_identifier(algorithm).ok_or_else(|| {
        let shown = &algorithm[..algorithm.len().min(16)];
        AuthError::MethodNotAllowed(format!(
            "a signature algorithm with the identifier {shown:02x?}"
        ))
    })?;
    Ok(Proof::Signature(scheme, signature.to_vec()))
}
