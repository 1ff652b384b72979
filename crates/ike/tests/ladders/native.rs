//! The same with real cryptography and real certificates.

use std::sync::Arc;

use crypto::Credentials;
use crypto::native::Native;
use ike::Auth;
use ike::error::{AuthError, Failure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    SignatureAlgorithm, date_time_ymd,
};

use crate::collide::{rekey_child, rekey_ike};
use crate::setup::*;
use crate::world::World;

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    params
}

fn ca(name: &str) -> Ca {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { params, key, pem }
}

fn credentials(ca: &Ca, trusted: &Ca, name: &str, algorithm: &'static SignatureAlgorithm) -> Auth {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let leaf = params(name).signed_by(&key, &Issuer::from_params(&ca.params, &ca.key)).unwrap();
    let loaded =
        Credentials::load(&Native, &leaf.pem(), &key.serialize_pem(), &[&trusted.pem]).unwrap();
    Auth::Certificate(Arc::new(loaded))
}

#[test]
fn psk_with_every_method() {
    for (n, ke) in
        ["modp2048", "modp3072", "ecp256", "ecp384", "ecp521", "curve25519"].iter().enumerate()
    {
        let (a, b) = peers(|p| {
            p.ike_proposals = ike_suites(&[
                &format!("aes128gcm16-prfsha256-{ke}"),
                &format!("aes256-sha512-{ke}"),
            ]);
            edit_child(p, |c| c.esp_proposals = esp_suites(&[&format!("aes128gcm16-{ke}")]));
        });
        let mut world = World::new(Arc::new(Native), n as u8, a, b);
        world.traffic = true;
        world.initiate(0);
        world.run_secs(2);
        world.assert_settled();
        rekey_ike(&mut world, 1);
        world.run_secs(2);
        rekey_child(&mut world, 0);
        world.run_secs(10);
        world.assert_settled();
        world.assert_no_loss();
    }
}

#[test]
fn certificates_of_every_kind() {
    let root = ca("root");
    let algorithms =
        [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256];
    for (n, algorithm) in algorithms.into_iter().enumerate() {
        let (mut a, mut b) = peers(|p| p.ike_proposals = ike_suites(&["aes128-sha256-curve25519"]));
        a.auth = credentials(&root, &root, "a.example", algorithm);
        b.auth = credentials(&root, &root, "b.example", &PKCS_ECDSA_P256_SHA256);
        let mut world = World::new(Arc::new(Native), n as u8, a, b);
        world.traffic = true;
        world.initiate(n % 2);
        world.run_secs(3);
        world.assert_settled();
        world.assert_no_loss();
    }
}

#[test]
fn a_certificate_of_another_ca() {
    let (root, other) = (ca("root"), ca("other"));
    let (mut a, mut b) = peers(|_| {});
    a.auth = credentials(&root, &root, "a.example", &PKCS_ECDSA_P256_SHA256);
    b.auth = credentials(&other, &other, "b.example", &PKCS_ECDSA_P256_SHA256);
    let mut world = World::new(Arc::new(Native), 1, a, b);
    world.initiate(0);
    world.run_secs(60);
    let reasons: Vec<_> = world
        .hosts
        .iter()
        .map(|h| {
            h.events.iter().find_map(|e| match e {
                ike::Event::IkeDown { reason, .. } => Some(reason.clone()),
                _ => None,
            })
        })
        .collect();
    assert_eq!(reasons[0], Some(Failure::RefusedByPeer), "{}", world.story());
    assert!(matches!(reasons[1], Some(Failure::PeerAuth(AuthError::Chain(_)))), "{reasons:?}");
}
