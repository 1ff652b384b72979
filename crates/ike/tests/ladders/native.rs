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

fn rsa_ca(name: &str, parent: Option<&Ca>) -> Ca {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let certificate = match parent {
        None => params.self_signed(&key),
        Some(ca) => params.signed_by(&key, &Issuer::from_params(&ca.params, &ca.key)),
    };
    let pem = certificate.unwrap().pem();
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
fn psk_with_every_cipher() {
    let suites = [
        ("aes128ccm8-prfsha256-x25519", "aes128ccm8"),
        ("aes256ccm16-prfaesxcbc-x25519", "aes192ccm12-x25519"),
        ("aes192ctr-aesxcbc-x25519", "aes256gmac"),
        ("aes256gcm8-prfaescmac-x25519", "aes128ctr-sha512"),
        ("aes128-sha1-modp1536", "null-sha256"),
    ];
    for (n, (ike, esp)) in suites.into_iter().enumerate() {
        let (a, b) = peers(|p| {
            p.ike_proposals = ike_suites(&[ike]);
            edit_child(p, |c| c.esp_proposals = esp_suites(&[esp]));
        });
        let mut world = World::new(Arc::new(Native), n as u8, a, b);
        world.traffic = true;
        world.initiate(0);
        world.run_secs(2);
        rekey_ike(&mut world, 1);
        world.run_secs(2);
        rekey_child(&mut world, 0);
        world.run_secs(10);
        world.assert_settled();
        world.assert_no_loss();
        assert_eq!(world.hosts[0].endpoint.ike_sas()[0].suite, ike.replace("x25519", "curve25519"));
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

/// RSA all the way up, and an intermediate that goes with the leaf: some 2,000 bytes either way, over a link
/// that carries 1280.
#[test]
fn a_chain_over_a_narrow_link() {
    let root = rsa_ca("root", None);
    let middle = rsa_ca("middle", Some(&root));
    let trust = format!("{}{}", root.pem, middle.pem);
    for suite in ["aes128-sha256-curve25519", "aes256gcm16-prfsha384-ecp384"] {
        let (mut a, mut b) = peers(|p| p.ike_proposals = ike_suites(&[suite]));
        for (peer, name) in [(&mut a, "a.example"), (&mut b, "b.example")] {
            let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
            let issuer = Issuer::from_params(&middle.params, &middle.key);
            let leaf = params(name).signed_by(&key, &issuer).unwrap();
            let loaded =
                Credentials::load(&Native, &leaf.pem(), &key.serialize_pem(), &[&trust]).unwrap();
            peer.auth = Auth::Certificate(Arc::new(loaded));
        }
        let mut world = World::new(Arc::new(Native), 1, a, b);
        world.mtu = 1280;
        world.traffic = true;
        world.initiate(0);
        world.run_secs(1);
        world.assert_settled();
        world.assert_no_loss();
        assert_eq!(world.too_long, 0, "{}", world.story());
        for direction in ["request", "response"] {
            let piece = format!("IKE_AUTH {direction} 1 [ EF(2/2) ]");
            assert!(world.story().contains(&piece), "{}", world.story());
        }
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

#[test]
fn each_end_hears_what_the_other_shows_and_accepts() {
    let (old, new, other) = (ca("old CA"), ca("new CA"), ca("a CA that nobody uses"));
    let of = |issuer: &Ca, name: &str, trusted: &[&Ca]| {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&issuer.params, &issuer.key);
        let leaf = params(name).signed_by(&key, &issuer).unwrap();
        let trusted: Vec<_> = trusted.iter().map(|ca| ca.pem.as_str()).collect();
        Credentials::load(&Native, &leaf.pem(), &key.serialize_pem(), &trusted).unwrap()
    };
    let ends = [of(&old, "a", &[&old, &new]), of(&new, "b", &[&other, &new, &old])];
    let id = |ca: &Ca| -> ike::event::KeyId {
        let ca = crypto::chain::Certificate::from_pem_all(&ca.pem).unwrap().remove(0);
        ca.key_id_sha1(&Native).unwrap().try_into().unwrap()
    };
    let (mut a, mut b) = peers(|_| {});
    [a.auth, b.auth] = ends.clone().map(|end| Auth::Certificate(Arc::new(end)));
    let mut world = World::new(Arc::new(Native), 1, a, b);
    world.initiate(0);
    world.run_secs(2);
    world.assert_settled();
    let told = [
        (0, &ends[1].leaf, id(&new), vec![id(&other), id(&new), id(&old)]),
        (1, &ends[0].leaf, id(&old), vec![id(&old), id(&new)]),
    ];
    for (host, leaf, ca, trusts) in told {
        let proofs = world.hosts[host].events.iter().filter_map(|e| match e {
            ike::Event::Proven { proof, .. } => Some(proof),
            _ => None,
        });
        let proofs: Vec<_> = proofs.collect();
        let [proof] = proofs[..] else { panic!("{proofs:?}\n{}", world.story()) };
        assert_eq!((&proof.subject, &proof.serial), (&leaf.subject_text, &leaf.serial_text()));
        assert_eq!((proof.ca, proof.trusts.as_ref()), (Some(ca), Some(&trusts)));
        assert_eq!(proof.not_after, leaf.not_after);
    }
}
