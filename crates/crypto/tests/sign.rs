//! Keys from files, signatures, and how AUTH payloads name them.

mod common;

use common::hex;
use crypto::native::Native;
use crypto::provider::Provider;
use crypto::sign::{self, KeyKind, Scheme, SignError, SigningKey, VerifyError};
use crypto::toy::Toy;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use wire::registry::{AuthMethod, HashAlg};

const MESSAGE: &[u8] = b"a message";
const SHA2: [HashAlg; 3] = [HashAlg::SHA2_256, HashAlg::SHA2_384, HashAlg::SHA2_512];

fn load(pem: &str) -> Result<Box<dyn SigningKey>, SignError> {
    Native.signing_key(sign::load_pem(pem)?.expose())
}

fn files() -> [(&'static str, &'static str, KeyKind); 5] {
    [
        (
            include_str!("keys/rsa-pkcs1.pem"),
            include_str!("keys/rsa-pkcs1.pub.pem"),
            KeyKind::Rsa(2048),
        ),
        (
            include_str!("keys/p256-sec1.pem"),
            include_str!("keys/p256-sec1.pub.pem"),
            KeyKind::Ec(256),
        ),
        (
            include_str!("keys/p384-sec1.pem"),
            include_str!("keys/p384-sec1.pub.pem"),
            KeyKind::Ec(384),
        ),
        (
            include_str!("keys/p521-sec1.pem"),
            include_str!("keys/p521-sec1.pub.pem"),
            KeyKind::Ec(521),
        ),
        (
            include_str!("keys/ed25519-pkcs8.pem"),
            include_str!("keys/ed25519-pkcs8.pub.pem"),
            KeyKind::Ed25519,
        ),
    ]
}

fn schemes() -> Vec<Scheme> {
    let mut all = vec![Scheme::Ed25519, Scheme::RsaPkcs1(HashAlg::SHA1)];
    for hash in SHA2 {
        all.extend([
            Scheme::RsaPkcs1(hash),
            Scheme::RsaPss(hash),
            Scheme::Ecdsa(hash),
            Scheme::EcdsaRaw(hash),
        ]);
    }
    all
}

#[test]
fn keys_of_every_form_load_with_the_public_key_that_openssl_derives() {
    for (private, public, kind) in files() {
        let key = load(private).unwrap();
        assert_eq!(key.kind(), kind);
        assert_eq!(
            key.spki(),
            SubjectPublicKeyInfoDer::from_pem_slice(public.as_bytes()).unwrap().as_ref()
        );
    }
    let forms = [
        (include_str!("keys/rsa-pkcs8.pem"), include_str!("keys/rsa-pkcs1.pem")),
        (include_str!("keys/p256-pkcs8.pem"), include_str!("keys/p256-sec1.pem")),
    ];
    for (pkcs8, older) in forms {
        assert_eq!(load(pkcs8).unwrap().spki(), load(older).unwrap().spki());
    }
}

#[test]
fn each_key_signs_what_goes_with_it_and_nothing_else() {
    for (private, _, kind) in files() {
        let key = load(private).unwrap();
        let mut signed = 0;
        for scheme in schemes() {
            let Ok(signature) = key.sign(scheme, MESSAGE) else { continue };
            signed += 1;
            let verify = |message: &[u8], signature: &[u8]| {
                Native.verify(scheme, &key.spki(), message, signature)
            };
            verify(MESSAGE, &signature).unwrap();
            assert_eq!(verify(b"another", &signature), Err(VerifyError::BadSignature));
            let mut changed = signature.clone();
            changed[signature.len() / 2] ^= 1;
            assert_eq!(verify(MESSAGE, &changed), Err(VerifyError::BadSignature));
            assert_eq!(verify(MESSAGE, &[]), Err(VerifyError::BadSignature));
            if let (Scheme::EcdsaRaw(_), KeyKind::Ec(bits)) = (scheme, kind) {
                assert_eq!(signature.len(), 2 * usize::from(bits).div_ceil(8), "RFC 4754 7");
            }
        }
        let expected = match kind {
            KeyKind::Rsa(_) => 7,
            KeyKind::Ec(_) => 4,
            KeyKind::Ed25519 | KeyKind::Toy => 1,
        };
        assert_eq!(signed, expected, "{kind:?}");
    }
}

#[test]
fn signatures_of_openssl_verify() {
    let spki = load(include_str!("keys/rsa-pkcs1.pem")).unwrap().spki();
    let pss = include_bytes!("keys/rsa-pss-sha256.sig");
    let sha1 = include_bytes!("keys/rsa-pkcs1-sha1.sig");
    Native.verify(Scheme::RsaPss(HashAlg::SHA2_256), &spki, MESSAGE, pss).unwrap();
    Native.verify(Scheme::RsaPkcs1(HashAlg::SHA1), &spki, MESSAGE, sha1).unwrap();
    assert!(Native.verify(Scheme::RsaPkcs1(HashAlg::SHA2_256), &spki, MESSAGE, pss).is_err());
    // PKCS#1 signatures are deterministic: ours with SHA-1 is OpenSSL's.
    let ours = load(include_str!("keys/rsa-pkcs1.pem")).unwrap();
    assert_eq!(ours.sign(Scheme::RsaPkcs1(HashAlg::SHA1), MESSAGE).unwrap(), sha1);
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    for encrypted in
        [include_str!("keys/rsa-pkcs8-encrypted.pem"), include_str!("keys/rsa-pkcs1-encrypted.pem")]
    {
        assert_eq!(load(encrypted).err(), Some(SignError::Encrypted));
    }
    let error = |pem: &str| load(pem).err().unwrap().to_string();
    assert!(error(include_str!("keys/rsa-1024.pem")).contains("1024"));
    assert!(error(include_str!("keys/secp256k1.pem")).contains("not"));
    assert!(error(include_str!("keys/rsa-pkcs1.pub.pem")).contains("PublicKey"));
    assert!(error("no PEM at all").contains("PRIVATE KEY"));
    assert!(error("").contains("PRIVATE KEY"));
    let cut = include_str!("keys/rsa-pkcs1.pem").lines().take(4).collect::<Vec<_>>().join("\n");
    assert!(matches!(load(&cut), Err(SignError::Malformed(_))));
}

#[test]
fn garbage_is_no_key() {
    let good = sign::load_pem(include_str!("keys/p256-pkcs8.pem")).unwrap();
    assert!(Native.signing_key(&[good.expose(), &[0]].concat()).is_err(), "bytes after the key");
    for len in 0..good.len() {
        assert!(Native.signing_key(&good.expose()[..len]).is_err());
    }
    let spki = Native.signing_key(good.expose()).unwrap().spki();
    for len in 0..spki.len() {
        assert!(
            Native
                .verify(Scheme::Ecdsa(HashAlg::SHA2_256), &spki[..len], MESSAGE, &[0; 70])
                .is_err()
        );
    }
}

#[test]
fn algorithm_identifiers_are_those_of_rfc_7427_and_rfc_8420() {
    let cases = [
        (Scheme::RsaPkcs1(HashAlg::SHA2_256), "300d06092a864886f70d01010b0500"),
        (Scheme::RsaPkcs1(HashAlg::SHA2_384), "300d06092a864886f70d01010c0500"),
        (Scheme::RsaPkcs1(HashAlg::SHA2_512), "300d06092a864886f70d01010d0500"),
        (Scheme::Ecdsa(HashAlg::SHA2_256), "300a06082a8648ce3d040302"),
        (Scheme::Ecdsa(HashAlg::SHA2_384), "300a06082a8648ce3d040303"),
        (Scheme::Ecdsa(HashAlg::SHA2_512), "300a06082a8648ce3d040304"),
        (Scheme::Ed25519, "300506032b6570"),
        (
            Scheme::RsaPss(HashAlg::SHA2_256),
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108\
             300d06096086480165030402010500a203020120",
        ),
        (
            Scheme::RsaPss(HashAlg::SHA2_512),
            "304106092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f70d010108\
             300d06096086480165030402030500a203020140",
        ),
    ];
    for (scheme, der) in cases {
        assert_eq!(scheme.algorithm_identifier(), Some(hex(der).as_slice()), "{scheme:?}");
    }
    for scheme in schemes() {
        if let Some(der) = scheme.algorithm_identifier() {
            assert_eq!(Scheme::from_algorithm_identifier(der), Some(scheme));
        }
    }
    assert_eq!(Scheme::RsaPkcs1(HashAlg::SHA1).algorithm_identifier(), None);
    assert_eq!(Scheme::EcdsaRaw(HashAlg::SHA2_256).algorithm_identifier(), None);
}

#[test]
fn other_encodings_of_the_same_algorithm_are_understood() {
    let cases = [
        // Without the NULL; with one that ECDSA does not have.
        ("300b06092a864886f70d01010b", Some(Scheme::RsaPkcs1(HashAlg::SHA2_256))),
        ("300c06082a8648ce3d0403030500", Some(Scheme::Ecdsa(HashAlg::SHA2_384))),
        // PSS without NULLs, and with the default trailer written out.
        (
            "303d06092a864886f70d01010a3030a00d300b0609608648016503040201a11a301806092a864886f70d010108\
             300b0609608648016503040201a203020120",
            Some(Scheme::RsaPss(HashAlg::SHA2_256)),
        ),
        (
            "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108\
             300d06096086480165030402010500a203020120a303020101",
            Some(Scheme::RsaPss(HashAlg::SHA2_256)),
        ),
        // A salt of another length, two different hashes, SHA-1 by default: not what is supported.
        (
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108\
             300d06096086480165030402010500a203020114",
            None,
        ),
        (
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108\
             300d06096086480165030402020500a203020120",
            None,
        ),
        ("300d06092a864886f70d01010a3000", None),
        ("300d06092a864886f70d0101050500", None),
        ("", None),
        ("30", None),
    ];
    for (der, scheme) in cases {
        assert_eq!(Scheme::from_algorithm_identifier(&hex(der)), scheme, "{der}");
    }
}

#[test]
fn the_scheme_follows_the_key_and_what_the_peer_takes() {
    use HashAlg as H;
    let all = sign::ACCEPTED_HASHES;
    assert_eq!(sign::choose(KeyKind::Rsa(3072), &all), Some(Scheme::RsaPss(H::SHA2_256)));
    assert_eq!(
        sign::choose(KeyKind::Rsa(3072), &[H::SHA1, H::SHA2_512]),
        Some(Scheme::RsaPss(H::SHA2_512))
    );
    assert_eq!(sign::choose(KeyKind::Rsa(3072), &[H::SHA1]), None);
    assert_eq!(sign::choose(KeyKind::Ec(256), &all), Some(Scheme::Ecdsa(H::SHA2_256)));
    assert_eq!(sign::choose(KeyKind::Ec(384), &all), Some(Scheme::Ecdsa(H::SHA2_384)));
    assert_eq!(sign::choose(KeyKind::Ec(384), &[H::SHA2_256]), Some(Scheme::Ecdsa(H::SHA2_256)));
    assert_eq!(sign::choose(KeyKind::Ec(521), &all), Some(Scheme::Ecdsa(H::SHA2_512)));
    assert_eq!(sign::choose(KeyKind::Ed25519, &all), Some(Scheme::Ed25519));
    assert_eq!(sign::choose(KeyKind::Ed25519, &[H::SHA2_256]), None);

    assert_eq!(
        sign::choose_legacy(KeyKind::Rsa(2048)),
        Some((AuthMethod::RSA, Scheme::RsaPkcs1(H::SHA1)))
    );
    assert_eq!(
        sign::choose_legacy(KeyKind::Ec(384)),
        Some((AuthMethod::ECDSA_384, Scheme::EcdsaRaw(H::SHA2_384)))
    );
    assert_eq!(sign::choose_legacy(KeyKind::Ed25519), None);
    assert_eq!(Scheme::of_auth_method(AuthMethod::PSK), None);

    for (private, _, kind) in files() {
        let (key, scheme) = (load(private).unwrap(), sign::choose(kind, &all).unwrap());
        let signature = key.sign(scheme, MESSAGE).unwrap();
        Native.verify(scheme, &key.spki(), MESSAGE, &signature).unwrap();
    }
}

#[test]
fn toy_keys_sign_and_notice_another_key() {
    let [one, other] = ["one", "other"].map(crypto::toy::ToyKey::of);
    let loaded = Toy.signing_key(&one.to_bytes()).unwrap();
    assert_eq!(loaded.spki(), one.spki());
    let scheme = sign::choose(KeyKind::Toy, &sign::ACCEPTED_HASHES).unwrap();
    let signature = loaded.sign(scheme, MESSAGE).unwrap();
    Toy.verify(scheme, &one.spki(), MESSAGE, &signature).unwrap();
    assert!(Toy.verify(scheme, &other.spki(), MESSAGE, &signature).is_err());
    assert!(Toy.verify(scheme, &one.spki(), b"another", &signature).is_err());
    assert!(Toy.signing_key(b"TOYKEY01short").is_err());
}
