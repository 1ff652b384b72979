//! AUTH payloads of every method, and certificate requests.

use crypto::chain::{Certificate, TrustStore};
use crypto::native::Native;
use crypto::sign::{KeyKind, Scheme};
use ike::auth::{self, Proof, certreq, certreq_names, choose_scheme, signature_payload};
use ike::error::AuthError;
use wire::payload::{AuthPayload, CertReqPayload, Payload};
use wire::registry::{AuthMethod, CertEncoding, HashAlg as H};

#[test]
fn schemes_by_key_and_peer() {
    let all = [H::SHA1, H::SHA2_256, H::SHA2_384, H::SHA2_512, H::IDENTITY];
    type Row<'a> = (KeyKind, Option<&'a [H]>, Option<Scheme>);
    let rows: [Row<'_>; 9] = [
        (KeyKind::Rsa(3072), Some(&all), Some(Scheme::RsaPss(H::SHA2_256))),
        (KeyKind::Rsa(3072), Some(&[H::SHA2_512]), Some(Scheme::RsaPss(H::SHA2_512))),
        // SHA-1 is never taken with method 14 (RFC 8247 3.2).
        (KeyKind::Rsa(2048), Some(&[H::SHA1]), Some(Scheme::RsaPkcs1(H::SHA1))),
        (KeyKind::Rsa(2048), None, Some(Scheme::RsaPkcs1(H::SHA1))),
        (KeyKind::Ec(384), Some(&all), Some(Scheme::Ecdsa(H::SHA2_384))),
        (KeyKind::Ec(256), None, Some(Scheme::EcdsaRaw(H::SHA2_256))),
        (KeyKind::Ec(521), Some(&[]), Some(Scheme::EcdsaRaw(H::SHA2_512))),
        (KeyKind::Ed25519, Some(&all), Some(Scheme::Ed25519)),
        (KeyKind::Ed25519, None, None),
    ];
    for (kind, hashes, wanted) in rows {
        assert_eq!(choose_scheme(kind, hashes, None), wanted, "{kind:?} {hashes:?}");
    }
}

#[test]
fn every_scheme_comes_back_from_its_payload() {
    let hashes = [H::SHA2_256, H::SHA2_384, H::SHA2_512];
    let modern = hashes.into_iter().flat_map(|hash| {
        let schemes = [Scheme::RsaPkcs1(hash), Scheme::RsaPss(hash), Scheme::Ecdsa(hash)];
        schemes.map(|scheme| (scheme, AuthMethod::DIGITAL_SIGNATURE))
    });
    let older = [
        (Scheme::Ed25519, AuthMethod::DIGITAL_SIGNATURE),
        (Scheme::RsaPkcs1(H::SHA1), AuthMethod::RSA),
        (Scheme::EcdsaRaw(H::SHA2_256), AuthMethod::ECDSA_256),
        (Scheme::EcdsaRaw(H::SHA2_384), AuthMethod::ECDSA_384),
        (Scheme::EcdsaRaw(H::SHA2_512), AuthMethod::ECDSA_521),
    ];
    for (scheme, method) in modern.chain(older) {
        let payload = signature_payload(scheme, b"signature");
        assert_eq!(payload.method, method);
        assert_eq!(auth::parse(&payload), Ok(Proof::Signature(scheme, b"signature".to_vec())));
    }
}

#[test]
fn methods_that_are_not_known() {
    let parse = |method, data: &[u8]| auth::parse(&AuthPayload { method, data: data.to_vec() });
    for method in [AuthMethod::DSS, AuthMethod::GSPAM, AuthMethod(0), AuthMethod(255)] {
        assert!(matches!(parse(method, &[1; 64]), Err(AuthError::MethodNotAllowed(_))));
    }
    let digital = AuthMethod::DIGITAL_SIGNATURE;
    assert!(matches!(parse(digital, &[]), Err(AuthError::BadProof(_))));
    assert!(matches!(parse(digital, &[255; 200]), Err(AuthError::BadProof(_))));
    assert!(matches!(parse(digital, &[0, 1, 2]), Err(AuthError::MethodNotAllowed(_))));
    // sha1WithRSAEncryption.
    let sha1 = [15, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0, 1, 2, 3];
    assert!(matches!(parse(digital, &sha1), Err(AuthError::MethodNotAllowed(_))));
}

#[test]
fn certificate_requests_name_the_roots() {
    let ca = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap()
    };
    let (one, two, other) = (ca(), ca(), ca());
    let trust = TrustStore { roots: vec![one.clone(), two.clone()], ..TrustStore::default() };
    let mut request = certreq(&Native, &trust).unwrap();
    assert_eq!((request.encoding, request.data.len()), (CertEncoding::X509_SIGNATURE, 40));
    assert!(certreq_names(&Native, &request, &one) && certreq_names(&Native, &request, &two));
    assert!(!certreq_names(&Native, &request, &other));
    // A cut hash names nobody, nor does another encoding.
    request.data.truncate(39);
    assert!(!certreq_names(&Native, &request, &two));
    request.encoding = CertEncoding::CRL;
    assert!(!certreq_names(&Native, &request, &one));
}

#[test]
fn authorities_are_told_once_and_not_without_end() {
    let request = |encoding, data: Vec<u8>| Payload::CertReq(CertReqPayload { encoding, data });
    let x509 = CertEncoding::X509_SIGNATURE;
    assert_eq!(auth::authorities(&[]), None);
    assert_eq!(auth::authorities(&[request(CertEncoding::CRL, vec![1; 20])]), None);
    assert_eq!(auth::authorities(&[request(x509, Vec::new())]), Some(Vec::new()));
    let twice = [vec![1; 20], vec![2; 20], vec![1; 20], vec![3; 19]].concat();
    let found = auth::authorities(&[request(x509, twice), request(x509, vec![4; 20])]);
    assert_eq!(found, Some(vec![[1; 20], [2; 20], [4; 20]]));
    let many: Vec<u8> = (0..2000_u32).flat_map(|n| [n.to_be_bytes(); 5].concat()).collect();
    assert_eq!(auth::authorities(&[request(x509, many)]).map(|all| all.len()), Some(32));
}
