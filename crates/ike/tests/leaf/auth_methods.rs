//! What a peer takes as proof (RFC 9593).

use std::sync::Arc;

use crypto::sign::{KeyKind, Scheme};
use ike::Auth;
use ike::auth::choose_scheme;
use ike::auth_methods::{Announcement, AuthMethods};
use proptest::prelude::*;
use wire::payload::{Notify, Payload};
use wire::registry::{AuthMethod, HashAlg, NotifyType};

use crate::hex;

fn one(method: AuthMethod, link: u8, algorithm: &[u8]) -> Announcement {
    Announcement { method, link, algorithm: algorithm.to_vec() }
}

/// The three formats of section 3.2, octet by octet.
#[test]
fn formats() {
    let ed25519 = Scheme::Ed25519.algorithm_identifier().unwrap();
    let all = AuthMethods(vec![
        one(AuthMethod::PSK, 0, &[]),
        one(AuthMethod::NULL, 0, &[]),
        one(AuthMethod::ECDSA_256, 2, &[]),
        one(AuthMethod::DIGITAL_SIGNATURE, 1, ed25519),
    ]);
    let notify = all.notify();
    assert_eq!((notify.kind, notify.spi.len()), (NotifyType::SUPPORTED_AUTH_METHODS, 0));
    assert_eq!(notify.data, hex("0202 020d 030902 0a0e01 300506032b6570"));
    assert_eq!(AuthMethods::parse(&notify.data), all);
}

#[test]
fn what_this_host_takes() {
    let key = Auth::Psk(crypto::Secret::from(&b"a pre-shared key of good length"[..]).into());
    assert_eq!(AuthMethods::accepted(&key).notify().data, [2, 2]);
    assert_eq!(AuthMethods::accepted(&Auth::Null).notify().data, [2, 13]);
    let certificate = Auth::Certificate(Arc::new(crypto::toy::credentials("host")));
    let all = AuthMethods::accepted(&certificate);
    assert_eq!(AuthMethods::parse(&all.notify().data), all);
    for hash in [HashAlg::SHA2_256, HashAlg::SHA2_384, HashAlg::SHA2_512] {
        for scheme in [Scheme::RsaPss(hash), Scheme::RsaPkcs1(hash), Scheme::Ecdsa(hash)] {
            assert!(all.takes(scheme), "{scheme:?}");
        }
    }
    assert!(all.takes(Scheme::Ed25519) && all.takes(Scheme::EcdsaRaw(HashAlg::SHA2_384)));
    assert!(!all.has(AuthMethod::PSK) && !all.has(AuthMethod::NULL));
}

#[test]
fn a_signature_that_the_peer_takes() {
    use HashAlg as H;
    let hashes = [H::SHA2_256, H::SHA2_384, H::SHA2_512];
    let methods = |schemes: &[Scheme]| {
        let identifier = |s: &Scheme| s.algorithm_identifier().unwrap();
        AuthMethods(
            schemes.iter().map(|s| one(AuthMethod::DIGITAL_SIGNATURE, 0, identifier(s))).collect(),
        )
    };
    let rsa = KeyKind::Rsa(3072);
    let choose = |kind, of: &AuthMethods| choose_scheme(kind, Some(&hashes), Some(of));
    // A peer that signs and takes PKCS #1 alone is not given PSS.
    let old = methods(&[Scheme::RsaPkcs1(H::SHA2_512)]);
    assert_eq!(choose(rsa, &old), Some(Scheme::RsaPkcs1(H::SHA2_512)));
    // This host's preference among what suits both.
    let both = methods(&[Scheme::RsaPkcs1(H::SHA2_256), Scheme::RsaPss(H::SHA2_384)]);
    assert_eq!(choose(rsa, &both), Some(Scheme::RsaPss(H::SHA2_384)));
    // A hash that was not announced is not used (RFC 7427 4).
    assert_eq!(choose_scheme(rsa, Some(&[H::SHA2_512]), Some(&both)), None);
    assert_eq!(choose(KeyKind::Ed25519, &both), None);
    // The older methods.
    let older = AuthMethods(vec![one(AuthMethod::RSA, 0, &[]), one(AuthMethod::ECDSA_384, 0, &[])]);
    assert_eq!(choose(rsa, &older), Some(Scheme::RsaPkcs1(H::SHA1)));
    assert_eq!(choose(KeyKind::Ec(384), &older), Some(Scheme::EcdsaRaw(H::SHA2_384)));
    assert_eq!(choose(KeyKind::Ec(256), &older), None);
    // A digital signature without a name for it is any.
    let any = AuthMethods(vec![one(AuthMethod::DIGITAL_SIGNATURE, 0, &[])]);
    assert_eq!(choose(rsa, &any), Some(Scheme::RsaPss(H::SHA2_256)));
    let psk = AuthMethods(vec![one(AuthMethod::PSK, 0, &[])]);
    assert_eq!(choose(rsa, &psk), None);
}

#[test]
fn a_link_to_a_ca() {
    let (mine, other) = ([1; 20], [2; 20]);
    let announced = |link| AuthMethods(vec![one(AuthMethod::ECDSA_256, link, &[])]);
    let left = |link| announced(link).of_cas(&[other, mine], &[mine]).0.len();
    assert_eq!([0, 1, 2, 3, 255].map(left), [1, 0, 1, 0, 0]);
}

#[test]
fn several_notifies_are_one_list() {
    let notify = |data: &[u8]| {
        Payload::Notify(Notify::new(NotifyType::SUPPORTED_AUTH_METHODS, data.to_vec()))
    };
    assert_eq!(AuthMethods::find(&[]), None);
    // Empty: the list comes later (RFC 9593 3.1).
    assert_eq!(AuthMethods::find(&[notify(&[])]), None);
    let all = AuthMethods::find(&[notify(&[2, 2]), notify(&[2, 13, 1])]).unwrap();
    assert!(all.has(AuthMethod::PSK) && all.has(AuthMethod::NULL) && all.0.len() == 2);
    let endless = notify(&[2, 2].repeat(5000));
    assert_eq!(AuthMethods::find(&[endless.clone(), endless]).unwrap().0.len(), 64);
}

proptest! {
    #[test]
    fn any_data_is_read_or_left(data in prop::collection::vec(any::<u8>(), 0..600)) {
        let all = AuthMethods::parse(&data);
        prop_assert!(all.0.len() <= 64);
        prop_assert!(all.0.iter().all(|one| one.algorithm.len() <= 252));
        let _ = (all.takes(Scheme::Ed25519), all.names());
    }
}
