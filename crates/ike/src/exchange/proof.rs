//! The two proofs of IKE_AUTH: making this host's, checking the peer's (RFC 7296 2.15, RFC 7427).

use std::sync::Arc;

use crypto::{Credentials, Secret};
use wire::identity::Identity;
use wire::payload::{AuthPayload, CertPayload, Payload};
use wire::registry::{AuthMethod, CertEncoding};

use super::auth::Handshake;
use crate::auth::{self, Proof};
use crate::auth_methods::AuthMethods;
use crate::config::Auth;
use crate::context::Context;
use crate::endpoint::Now;
use crate::error::{AuthError, Failure};
use crate::ike_sa::IkeSa;
use crate::job::{JobId, Work};
use crate::ppk::PpkKeys;

/// Certificates that are taken from one message, and their bytes in all.
const MAX_CERTIFICATES: usize = 10;
const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// Whose octets.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    Initiator,
    Responder,
}

/// This host's proof: there, or under way.
pub(super) enum Own {
    Ready(AuthPayload),
    Job(JobId, crypto::sign::Scheme),
}

/// With `ppk` as the second secret, if there is one.
pub(super) fn prove(
    cx: &mut Context,
    sa: &IkeSa,
    handshake: &Handshake,
    whose: Whose,
    ppk: Option<&PpkKeys>,
) -> Result<(Identity, Own), Failure> {
    let local_id = local_id(sa);
    let octets = octets(cx, sa, handshake, whose, &local_id, ppk)?;
    let methods = handshake.methods.as_ref();
    // An initiator with a proof of another kind goes on all the same: the other end refuses it by name, and both know why.
    let first = matches!(whose, Whose::Initiator);
    let own = match &sa.config.auth {
        Auth::Psk(_) if !first && refuses(methods, AuthMethod::PSK) => return Err(no_way(methods)),
        Auth::Null if refuses(methods, AuthMethod::NULL) => return Err(no_way(methods)),
        Auth::Null => {
            let payload =
                auth::null_payload(&*cx.provider, prf(sa)?, sk_p(sa, whose, ppk)?, &octets)
                    .map_err(local)?;
            Own::Ready(payload)
        }
        Auth::Psk(psk) => {
            let payload =
                auth::psk_payload(&*cx.provider, prf(sa)?, psk, &octets).map_err(local)?;
            Own::Ready(payload)
        }
        Auth::Certificate(credentials) => {
            let kind = credentials.key.kind();
            let hashes = handshake.hashes.as_deref();
            let scheme = auth::choose_scheme(kind, hashes, methods)
                .or_else(|| auth::choose_scheme(kind, hashes, None).filter(|_| first))
                .ok_or_else(|| no_way(methods))?;
            let key = credentials.key.clone();
            Own::Job(cx.job(sa.id, Work::Sign { key, scheme, octets }), scheme)
        }
    };
    Ok((local_id, own))
}

/// Whether the peer says what it takes as proof, and this is not among it.
fn refuses(methods: Option<&AuthMethods>, method: AuthMethod) -> bool {
    methods.is_some_and(|methods| !methods.has(method))
}

fn no_way(methods: Option<&AuthMethods>) -> Failure {
    let what = "the peer takes no proof that this host is configured to give";
    Failure::Local(match methods {
        None => what.to_owned(),
        Some(methods) => format!("{what}; it announces: {}", methods.names()),
    })
}

/// What the peer claims, and by what.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) id: &'a Identity,
    pub(super) proof: &'a AuthPayload,
    pub(super) payloads: &'a [Payload],
    pub(super) whose: Whose,
}

/// Checks a proof; `Some`: a job does.
pub(super) fn check(
    cx: &mut Context,
    sa: &IkeSa,
    now: Now,
    handshake: &Handshake,
    claim: Claim<'_>,
) -> Result<Option<JobId>, AuthError> {
    if let Some(wanted) = &sa.config.remote_id
        && **wanted != *claim.id
    {
        let (wanted, got) = ((**wanted).clone(), claim.id.clone());
        return Err(AuthError::WrongIdentity { wanted, got });
    }
    let bad = |e: Failure| AuthError::BadProof(e.to_string());
    let ppk = handshake.ppk.as_deref();
    let octets = octets(cx, sa, handshake, claim.whose, claim.id, ppk).map_err(bad)?;
    match (&sa.config.auth, auth::parse(claim.proof)?) {
        (Auth::Psk(psk), Proof::Psk(mac)) => {
            let prf = prf(sa).map_err(bad)?;
            let right = auth::check_psk(&*cx.provider, prf, psk, &octets, &mac)
                .map_err(|e| AuthError::BadProof(e.to_string()))?;
            if right {
                Ok(None)
            } else {
                Err(AuthError::BadProof("the pre-shared keys differ".into()))
            }
        }
        (Auth::Certificate(credentials), Proof::Signature(scheme, signature)) => {
            let certificates = peer_certificates(claim.payloads)?;
            let work = Work::Verify {
                credentials: credentials.clone(),
                certificates,
                identity: claim.id.clone(),
                scheme,
                octets,
                signature,
                unix_now: now.unix,
            };
            Ok(Some(cx.job(sa.id, work)))
        }
        (Auth::Null, Proof::Null(mac)) => {
            let key = sk_p(sa, claim.whose, ppk).map_err(bad)?;
            let prf = prf(sa).map_err(bad)?;
            let right = auth::check_null(&*cx.provider, prf, key, &octets, &mac)
                .map_err(|e| AuthError::BadProof(e.to_string()))?;
            // It proves that both ends have one key, no more.
            right.then_some(None).ok_or_else(|| AuthError::BadProof("the keys differ".into()))
        }
        (_, Proof::Psk(_)) => Err(AuthError::MethodNotAllowed("a pre-shared key".into())),
        (_, Proof::Signature(..)) => Err(AuthError::MethodNotAllowed("a certificate".into())),
        (_, Proof::Null(_)) => Err(AuthError::MethodNotAllowed("NULL".into())),
    }
}

fn octets(
    cx: &Context,
    sa: &IkeSa,
    handshake: &Handshake,
    whose: Whose,
    id: &Identity,
    ppk: Option<&PpkKeys>,
) -> Result<Vec<u8>, Failure> {
    let sk_p = sk_p(sa, whose, ppk)?;
    let (message, nonce) = match whose {
        Whose::Initiator => (&handshake.request, &handshake.nr),
        Whose::Responder => (&handshake.response, &handshake.ni),
    };
    let mut octets =
        auth::signed_octets(&*cx.provider, prf(sa)?, message, nonce, sk_p, id).map_err(local)?;
    if let Some(trail) = &sa.trail {
        octets.extend(trail.octets());
    }
    Ok(octets)
}

/// SK_pi or SK_pr, with the post-quantum pre-shared key in it where one is used.
fn sk_p<'a>(sa: &'a IkeSa, whose: Whose, ppk: Option<&'a PpkKeys>) -> Result<&'a Secret, Failure> {
    let keys = &sa.secured.as_ref().ok_or_else(no_keys)?.keys;
    Ok(match whose {
        Whose::Initiator => ppk.map_or(&keys.sk_pi, |ppk| &ppk.sk_pi),
        Whose::Responder => ppk.map_or(&keys.sk_pr, |ppk| &ppk.sk_pr),
    })
}

fn prf(sa: &IkeSa) -> Result<wire::registry::Prf, Failure> {
    sa.secured.as_ref().map(|s| s.suite.prf).ok_or_else(no_keys)
}

fn no_keys() -> Failure {
    Failure::Local("the IKE SA has no keys".into())
}

fn local(error: crypto::provider::Unsupported) -> Failure {
    Failure::Local(error.to_string())
}

fn local_id(sa: &IkeSa) -> Identity {
    match (&sa.config.local_id, &sa.config.auth) {
        (_, Auth::Null) => Identity::null(),
        (Some(id), _) => (**id).clone(),
        (None, Auth::Certificate(credentials)) => Identity::DerDn(credentials.leaf.subject.clone()),
        (None, Auth::Psk(_)) => match sa.local.ip() {
            std::net::IpAddr::V4(a) => Identity::Ipv4(a),
            std::net::IpAddr::V6(a) => Identity::Ipv6(a),
        },
    }
}

pub(super) fn certificates(credentials: &Arc<Credentials>) -> impl Iterator<Item = Payload> + '_ {
    credentials.chain_to_send().into_iter().map(|certificate| {
        Payload::Cert(CertPayload {
            encoding: CertEncoding::X509_SIGNATURE,
            data: certificate.der.clone(),
        })
    })
}

fn peer_certificates(payloads: &[Payload]) -> Result<Vec<Vec<u8>>, AuthError> {
    let mut certificates = Vec::new();
    let mut bytes = 0;
    for payload in payloads {
        if let Payload::Cert(cert) = payload
            && cert.encoding == CertEncoding::X509_SIGNATURE
        {
            bytes += cert.data.len();
            if certificates.len() == MAX_CERTIFICATES || bytes > MAX_CERTIFICATE_BYTES {
                return Err(AuthError::BadProof("too many certificates".into()));
            }
            certificates.push(cert.data.clone());
        }
    }
    if certificates.is_empty() { Err(AuthError::NoCertificate) } else { Ok(certificates) }
}

/// The sender's identity: IDi in a request, IDr in a response; the IDr of a request is only a hint.
pub(super) fn find_id(payloads: &[Payload], whose: Whose) -> Option<&Identity> {
    payloads.iter().find_map(|p| match (p, whose) {
        (Payload::IdI(id), Whose::Initiator) | (Payload::IdR(id), Whose::Responder) => Some(id),
        _ => None,
    })
}

pub(super) fn find_auth(payloads: &[Payload]) -> Option<&AuthPayload> {
    payloads.iter().find_map(|p| match p {
        Payload::Auth(auth) => Some(auth),
        _ => None,
    })
}
