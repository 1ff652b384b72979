//! Texts of suites, and of disagreements.

use crypto::native::Native;
use ike::negotiate::{
    ChildExchange, check_answer_esp, check_answer_ike, choose_esp, choose_ike, offer_esp, offer_ike,
};
use ike::suite::{explain, suite_text, suite_text_esp};
use wire::esp::Spi;
use wire::proposal::Proposal;
use wire::suite_text::{parse_esp, parse_ike};

/// What is configured is what is shown, and both ends agree on it.
#[test]
fn texts_of_suites() {
    for text in [
        "aes128-sha256-modp2048",
        "aes256-sha512-ecp384",
        "aes128gcm16-prfsha256-ecp256",
        "chacha20poly1305-prfsha256-x25519",
    ] {
        let ours = [parse_ike(text).unwrap()];
        let offered = offer_ike(&ours, None, &Native);
        let chosen = choose_ike(&ours, &offered, None, &Native).unwrap();
        assert_eq!(suite_text(&chosen.suite), text.replace("x25519", "curve25519"));
        assert!(check_answer_ike(&offered, &[chosen.proposal]).is_ok());
    }
    for text in ["aes128gcm16", "aes256-sha256-modp2048-esn", "aes256gcm16-ecp256"] {
        let ours = [parse_esp(text).unwrap()];
        let offered = offer_esp(&ours, Spi(0x1000), ChildExchange::Create, &Native);
        let chosen =
            choose_esp(&ours, &offered, Spi(0x2000), ChildExchange::Create, &Native).unwrap();
        assert_eq!(suite_text_esp(&chosen.suite), text);
        assert!(check_answer_esp(&offered, &[chosen.proposal]).is_ok());
    }
}

#[test]
fn disagreements() {
    let ours = [parse_ike("aes128-sha256-modp2048").unwrap()];
    let theirs = |text| vec![parse_ike(text).unwrap()];
    assert_eq!(
        explain(&ours, &theirs("aes256-sha256-modp2048")),
        "ours: aes128-sha256-modp2048; theirs: aes256-sha256-modp2048; nearest: ENCR differs"
    );
    assert!(
        explain(&ours, &theirs("aes128gcm16-prfsha256-modp3072"))
            .ends_with("nearest: ENCR and INTEG and KE differ")
    );
    assert!(explain(&ours, &[]).ends_with("theirs: none"));
    let many: Vec<Proposal> = vec![theirs("aes256-sha1-modp1024").remove(0); 50];
    let text = explain(&ours, &many);
    assert!(text.contains("and 42 more") && text.len() < 500, "{text}");
}

#[test]
fn what_cannot_be_done_and_what_should_not() {
    use ike::suite::review;
    let good = [
        "aes128-sha256-modp2048",
        "aes256ccm16-prfsha384-ecp384-ke1_mlkem1024",
        "chacha20poly1305-prfaesxcbc-x25519",
    ];
    for text in good {
        let review = review(&parse_ike(text).unwrap());
        assert!(
            review.usable && review.missing.is_empty() && review.weak.is_empty(),
            "{text}: {review:?}"
        );
    }
    for text in [
        "3des-sha256-modp2048",
        "aes128-md5-prfsha256-modp2048",
        "aes128-sha256-x448",
        "aes128-sha256-x25519-ke1_x448",
    ] {
        let review = review(&parse_ike(text).unwrap());
        assert!(!review.usable, "{text}");
        assert_eq!(review.missing.len(), 1, "{text}: {review:?}");
    }
    let part = review(&parse_ike("3des-aes128-md5-sha256-x448-x25519").unwrap());
    assert!(part.usable);
    assert_eq!(part.missing, ["3des", "md5", "curve448", "prfmd5"]);
    let old = review(&parse_ike("aes128-sha1-modp1536").unwrap());
    assert!(old.usable && old.missing.is_empty());
    assert_eq!(old.weak.len(), 3, "{old:?}");
    assert!(old.weak[0].starts_with("sha1 is SHA-1"), "{old:?}");
    for text in ["null-sha256", "aes128gmac"] {
        let clear = review(&parse_esp(text).unwrap());
        assert!(clear.usable && clear.weak[0].contains("does not encrypt"), "{clear:?}");
    }
    assert!(!review(&parse_esp("camellia128-sha256").unwrap()).usable);
    assert!(!review(&parse_esp("blowfish-sha1").unwrap()).usable);
}
