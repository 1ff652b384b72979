//! The proposal syntax, as users of strongSwan write it.

use proptest::prelude::*;
use wire::proposal::Proposal;
use wire::registry::TransformType;
use wire::suite_text::*;

fn ike(text: &str) -> String {
    parse_ike(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
}

fn esp(text: &str) -> String {
    parse_esp(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
}

#[test]
fn ike_proposals() {
    for (text, shown) in [
        ("aes128-sha256-modp2048", "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048"),
        (
            " AES128-SHA256-MODP2048! ",
            "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048",
        ),
        ("aes-sha-modp1024", "IKE:AES_CBC_128/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_1024"),
        ("modp2048-sha256-aes128", "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048"),
        (
            "aes256-aes128-sha384-sha256-ecp384-ecp256",
            "IKE:AES_CBC_256/AES_CBC_128/HMAC_SHA2_384_192/HMAC_SHA2_256_128/PRF_HMAC_SHA2_384/PRF_HMAC_SHA2_256/ECP_384/ECP_256",
        ),
        (
            "aes128-sha256-prfsha512-curve25519",
            "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_512/CURVE25519",
        ),
        ("aes128gcm16-prfsha256-x25519", "IKE:AES_GCM_16_128/PRF_HMAC_SHA2_256/CURVE25519"),
        ("aes128gcm16-sha256-modp2048", "IKE:AES_GCM_16_128/PRF_HMAC_SHA2_256/MODP_2048"),
        ("aes256gcm64-sha512-prfsha384-ecp521", "IKE:AES_GCM_8_256/PRF_HMAC_SHA2_384/ECP_521"),
        ("chacha20poly1305-prfsha256-x448", "IKE:CHACHA20_POLY1305/PRF_HMAC_SHA2_256/CURVE448"),
        ("3des-md5-modp1024s160", "IKE:3DES/HMAC_MD5_96/PRF_HMAC_MD5/MODP_1024_160"),
        ("aes192ctr-aesxcbc-ecp256bp", "IKE:AES_CTR_192/AES_XCBC_96/PRF_AES128_XCBC/BRAINPOOL_256"),
        (
            "camellia256-aescmac-modp8192",
            "IKE:CAMELLIA_CBC_256/AES_CMAC_96/PRF_AES128_CMAC/MODP_8192",
        ),
        ("aes128ccm12-prfsha1-modp768", "IKE:AES_CCM_12_128/PRF_HMAC_SHA1/MODP_768"),
        (
            "aes256gcm16-prfsha384-ecp384-ke1_mlkem768-ke2_mlkem1024-ke2_none",
            "IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384/KE1_ML_KEM_768/KE2_ML_KEM_1024/KE2_NONE",
        ),
    ] {
        assert_eq!(ike(text), shown, "{text}");
    }
}

#[test]
fn esp_proposals() {
    for (text, shown) in [
        ("aes128gcm16", "ESP:AES_GCM_16_128/NO_EXT_SEQ"),
        ("aes128gcm16!", "ESP:AES_GCM_16_128/NO_EXT_SEQ"),
        ("aes128gcm16-esn", "ESP:AES_GCM_16_128/EXT_SEQ"),
        ("aes128gcm16-esn-noesn", "ESP:AES_GCM_16_128/EXT_SEQ/NO_EXT_SEQ"),
        ("aes128-sha1", "ESP:AES_CBC_128/HMAC_SHA1_96/NO_EXT_SEQ"),
        ("aes256-sha2_512-modp3072", "ESP:AES_CBC_256/HMAC_SHA2_512_256/MODP_3072/NO_EXT_SEQ"),
        ("null-sha256", "ESP:NULL/HMAC_SHA2_256_128/NO_EXT_SEQ"),
        ("aes256gmac", "ESP:NULL_AES_GMAC_256/NO_EXT_SEQ"),
        ("aes128gcm-none", "ESP:AES_GCM_16_128/NO_EXT_SEQ"),
        ("aes128gcm-x25519-none", "ESP:AES_GCM_16_128/CURVE25519/NONE/NO_EXT_SEQ"),
        (
            "aes128gcm-x25519-ke1_mlkem512",
            "ESP:AES_GCM_16_128/CURVE25519/KE1_ML_KEM_512/NO_EXT_SEQ",
        ),
    ] {
        assert_eq!(esp(text), shown, "{text}");
    }
}

#[test]
fn refusals_name_the_remedy() {
    for (text, remedy) in [
        ("", "aes128-sha256-modp2048"),
        ("!", "aes128-sha256-modp2048"),
        ("sha256-modp2048", "no encryption algorithm; add one"),
        ("aes128-modp2048", "no integrity algorithm; add one"),
        ("aes128-prfsha256-modp2048", "no integrity algorithm; add one"),
        ("aes128gcm16-modp2048", "no pseudorandom function; add one"),
        ("aes128-sha256", "no key exchange method; add one"),
        ("aes128-sha256-none", "replace `none`"),
        ("aes128-sha256-ke1_mlkem768", "no key exchange method; add one"),
        ("aes128-sha256-modp2048-esn", "belong in an ESP proposal"),
        ("null-sha256-modp2048", "always encrypted"),
        ("aes128-aes128gcm16-sha256-modp2048", "write two, separated by a comma"),
    ] {
        let error = parse_ike(text).unwrap_err().to_string();
        assert!(error.contains(remedy), "{text}: {error}");
    }
    for (text, remedy) in [
        ("sha256", "no encryption algorithm; add one"),
        ("aes128", "no integrity algorithm; add one"),
        ("aes128gcm16-sha256", "leave the integrity algorithm out"),
        ("aes128-sha256-prfsha256", "belongs in an IKE proposal"),
        ("aes128gcm16-ke1_mlkem768", "need a first one"),
        ("aes128gcm16-none-ke1_mlkem768", "need a first one"),
    ] {
        let error = parse_esp(text).unwrap_err().to_string();
        assert!(error.contains(remedy), "{text}: {error}");
    }
}

#[test]
fn unknown_keywords() {
    for (text, keyword, near) in [
        ("aes128-sha265-modp2048", "sha265", Some("sha256")),
        ("aes128gcm17-prfsha256-modp2048", "aes128gcm17", Some("aes128gcm16")),
        ("aes128-sha256-modp2084", "modp2084", Some("modp2048")),
        ("aes128-sha256-x25519-ke1_mlkem766", "ke1_mlkem766", Some("ke1_mlkem768")),
        ("aes128-sha256-rot13", "rot13", None),
        ("aes128--modp2048", "", None),
        ("aes128-sha256-modp2048-ke8_mlkem768", "ke8_mlkem768", None),
        ("aes128-sha256-modp2048-ke1_sha256", "ke1_sha256", None),
    ] {
        match parse_ike(text) {
            Err(SuiteError::UnknownAlgorithm { keyword: k, nearest, known }) => {
                assert_eq!(k, keyword, "{text}");
                if near.is_some() {
                    assert_eq!(nearest.as_deref(), near, "{text}");
                }
                assert!(known.contains("aes128gcm16") && known.contains("modp2048"));
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let long = "x".repeat(100_000);
    let error = parse_esp(&long).unwrap_err();
    assert!(error.to_string().len() < 3000, "{}", error.to_string().len());
}

#[test]
fn lists_are_numbered() {
    let list = parse_list("aes128gcm16, aes128-sha256 ,aes256gcm16-esn!", parse_esp).unwrap();
    assert_eq!(list.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        list.iter().map(to_text).collect::<Vec<_>>(),
        ["aes128gcm16", "aes128-sha256", "aes256gcm16-esn"]
    );
    assert!(parse_list("aes128gcm16,", parse_esp).is_err());
    let many = vec!["aes128gcm16"; 65].join(",");
    assert!(parse_list(&many, parse_esp).unwrap_err().to_string().contains("64"));
}

fn by_kind(p: &Proposal) -> Vec<Vec<u16>> {
    (1..=12).map(|k| p.of_kind(TransformType(k)).map(|t| t.id).collect()).collect()
}

const WORDS: &[&str] = &[
    "aes128",
    "aes256",
    "aes192ctr",
    "aes128gcm16",
    "aes256gcm8",
    "chacha20poly1305",
    "aes256ccm12",
    "null",
    "camellia192",
    "sha1",
    "sha256",
    "sha512",
    "md5",
    "aesxcbc",
    "prfsha256",
    "prfsha384",
    "prfaescmac",
    "modp2048",
    "ecp256",
    "x25519",
    "mlkem768",
    "none",
    "ke1_mlkem768",
    "ke7_x25519",
    "ke2_none",
    "esn",
    "noesn",
    "3des",
];

proptest! {
    #[test]
    fn text_of_a_proposal_reads_back(words in proptest::collection::vec(0..WORDS.len(), 1..8)) {
        let text = words.iter().map(|i| WORDS[*i]).collect::<Vec<_>>().join("-");
        for parse in [parse_ike, parse_esp] {
            let Ok(first) = parse(&text) else { continue };
            let written = to_text(&first);
            let second = parse(&written).unwrap();
            prop_assert_eq!(by_kind(&first), by_kind(&second), "{} -> {}", text, written);
            prop_assert_eq!(to_text(&second), written);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = parse_ike(&text).map_err(|e| e.to_string());
        let _ = parse_esp(&text).map_err(|e| e.to_string());
    }
}
