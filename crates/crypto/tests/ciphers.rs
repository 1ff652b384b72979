//! What every cipher of every provider must do: give back what went in, and nothing else.

mod common;

use common::spec;
use crypto::cipher::{Cipher, CipherSpec};
use crypto::native::Native;
use crypto::provider::Provider;
use crypto::toy::Toy;
use proptest::prelude::*;
use wire::registry::{Encr, Integ};

fn all_specs() -> Vec<CipherSpec> {
    let mut all = vec![spec(Encr::CHACHA20_POLY1305, 0, Integ::NONE)];
    for bits in [128, 192, 256] {
        all.extend(
            [
                Encr::AES_GCM_8,
                Encr::AES_GCM_12,
                Encr::AES_GCM_16,
                Encr::AES_CCM_8,
                Encr::AES_CCM_12,
                Encr::AES_CCM_16,
                Encr::NULL_AES_GMAC,
            ]
            .map(|encr| spec(encr, bits, Integ::NONE)),
        );
    }
    let macs = [
        Integ::HMAC_SHA1_96,
        Integ::HMAC_SHA2_256_128,
        Integ::HMAC_SHA2_384_192,
        Integ::HMAC_SHA2_512_256,
        Integ::AES_XCBC_96,
        Integ::AES_CMAC_96,
    ];
    for integ in macs {
        all.push(spec(Encr::NULL, 0, integ));
        for bits in [128, 192, 256] {
            all.extend([Encr::AES_CBC, Encr::AES_CTR].map(|encr| spec(encr, bits, integ)));
        }
    }
    all
}

fn keyed(provider: &dyn Provider, spec: CipherSpec, key: u8) -> Box<dyn Cipher> {
    assert!(provider.has_cipher(spec), "{spec}");
    let integ_len = provider.integ_key_len(spec.integ).unwrap();
    provider.cipher(spec, &vec![key; spec.encr_key_len()], &vec![key ^ 0x55; integ_len]).unwrap()
}

fn sealed(
    cipher: &dyn Cipher,
    counter: u64,
    aad: &[u8],
    esn: Option<u32>,
    plain: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; cipher.iv_len()];
    packet.extend_from_slice(plain);
    packet.resize(packet.len() + cipher.icv_len(), 0);
    cipher.seal(counter, aad, esn, &mut packet);
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_sealed_opens_and_nothing_else(
        blocks in 0usize..20, counter: u64, spi: u64, esn: Option<u32>, at: prop::sample::Index, bit in 0u8..8, toy: bool,
    ) {
        let provider: &dyn Provider = if toy { &Toy } else { &Native };
        let aad = spi.to_be_bytes();
        for spec in all_specs() {
            let cipher = keyed(provider, spec, 3);
            let plain: Vec<u8> = (0..blocks * 16).map(|n| n as u8).collect();
            let packet = sealed(&*cipher, counter, &aad, esn, &plain);

            let mut good = packet.clone();
            prop_assert!(cipher.open(&aad, esn, &mut good).is_ok(), "{spec}");
            prop_assert_eq!(&good[cipher.iv_len()..good.len() - cipher.icv_len()], &plain);

            let mut changed = packet.clone();
            changed[at.index(packet.len())] ^= 1 << bit;
            prop_assert!(cipher.open(&aad, esn, &mut changed).is_err(), "{spec}");

            let mut other_aad = aad;
            other_aad[at.index(8)] ^= 1 << bit;
            prop_assert!(cipher.open(&other_aad, esn, &mut packet.clone()).is_err(), "{spec}");
            let other_esn = Some(esn.unwrap_or(0) ^ 1);
            prop_assert!(cipher.open(&aad, other_esn, &mut packet.clone()).is_err(), "{spec}");
            prop_assert!(keyed(provider, spec, 4).open(&aad, esn, &mut packet.clone()).is_err(), "{spec}");
        }
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), toy: bool) {
        let provider: &dyn Provider = if toy { &Toy } else { &Native };
        for spec in all_specs() {
            prop_assert!(keyed(provider, spec, 9).open(&[0; 8], None, &mut bytes.clone()).is_err());
        }
    }
}

#[test]
fn shapes_are_those_of_the_ciphers_and_the_providers_agree() {
    for spec in all_specs() {
        let shape = spec.shape().unwrap();
        for provider in [&Native as &dyn Provider, &Toy] {
            let cipher = keyed(provider, spec, 1);
            let lengths = (cipher.iv_len(), cipher.icv_len(), cipher.block_len());
            assert_eq!(
                lengths,
                (shape.iv_len, shape.icv_len, shape.block_len),
                "{spec} {provider:?}"
            );
        }
    }
}

#[test]
fn keys_of_wrong_length_and_wrong_pairs_are_refused() {
    for provider in [&Native as &dyn Provider, &Toy] {
        for spec in all_specs() {
            let integ = vec![0; provider.integ_key_len(spec.integ).unwrap()];
            let encr = vec![0; spec.encr_key_len()];
            assert!(
                provider.cipher(spec, &[encr.as_slice(), &[0]].concat(), &integ).is_err(),
                "{spec}"
            );
            assert!(
                provider.cipher(spec, &encr, &[integ.as_slice(), &[0]].concat()).is_err(),
                "{spec}"
            );
        }
        for wrong in [
            spec(Encr::AES_GCM_16, 128, Integ::HMAC_SHA1_96),
            spec(Encr::AES_GCM_16, 100, Integ::NONE),
            spec(Encr::AES_CBC, 128, Integ::NONE),
            spec(Encr::NULL, 0, Integ::NONE),
            spec(Encr::AES_CCM_16, 128, Integ::AES_CMAC_96),
            spec(Encr::NULL_AES_GMAC, 0, Integ::NONE),
            spec(Encr::TRIPLE_DES, 0, Integ::HMAC_SHA1_96),
        ] {
            assert!(!provider.has_cipher(wrong), "{wrong}");
            assert!(
                provider.cipher(wrong, &vec![0; wrong.encr_key_len()], &[]).is_err(),
                "{wrong}"
            );
        }
    }
}

/// NIST SP 800-38D 7.1: a short tag is the beginning of the long one, nothing else differs.
#[test]
fn short_gcm_tags_are_the_beginning_of_long_ones() {
    let long = keyed(&Native, spec(Encr::AES_GCM_16, 256, Integ::NONE), 5);
    let whole = sealed(&*long, 7, &[1; 8], None, b"some text");
    for (encr, tag_len) in [(Encr::AES_GCM_8, 8), (Encr::AES_GCM_12, 12)] {
        let short = keyed(&Native, spec(encr, 256, Integ::NONE), 5);
        assert_eq!(
            sealed(&*short, 7, &[1; 8], None, b"some text"),
            whole[..whole.len() - 16 + tag_len]
        );
    }
}

/// RFC 4106 5: `SPI | high | low`; RFC 4303 2.2.1: the high bits after the ciphertext.
#[test]
fn extended_sequence_numbers_are_authenticated_where_the_rfcs_say() {
    let gcm = keyed(&Native, spec(Encr::AES_GCM_16, 128, Integ::NONE), 5);
    let with_esn = sealed(&*gcm, 1, &[1, 1, 1, 1, 3, 3, 3, 3], Some(0x0202_0202), b"text");
    assert_eq!(with_esn, sealed(&*gcm, 1, &[1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3], None, b"text"));

    let null = keyed(&Native, spec(Encr::NULL, 0, Integ::HMAC_SHA2_256_128), 5);
    let aad = [1, 1, 1, 1, 3, 3, 3, 3];
    let with_esn = sealed(&*null, 1, &aad, Some(0x0202_0202), b"text");
    let by_hand = sealed(&*null, 1, &aad, None, b"text\x02\x02\x02\x02");
    assert_eq!(with_esn[4..], by_hand[8..]);
}

/// IVs of CBC do not show the counter, and differ for each; explicit IVs of counter modes are the counter.
#[test]
fn ivs() {
    let cbc = keyed(&Native, spec(Encr::AES_CBC, 128, Integ::HMAC_SHA2_256_128), 5);
    let ivs: Vec<_> =
        (0..50).map(|n| sealed(&*cbc, n, b"", None, &[0; 16])[..16].to_vec()).collect();
    for (n, iv) in ivs.iter().enumerate() {
        assert!(!ivs[..n].contains(iv));
        assert!(iv.iter().filter(|byte| **byte == 0).count() < 8);
    }
    for encr in [Encr::AES_GCM_16, Encr::AES_CTR] {
        let integ = if encr.is_aead() { Integ::NONE } else { Integ::HMAC_SHA1_96 };
        let cipher = keyed(&Native, spec(encr, 128, integ), 5);
        assert_eq!(
            sealed(&*cipher, 0x0102_0304_0506_0708, b"", None, b"x")[..8],
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
    }
}
