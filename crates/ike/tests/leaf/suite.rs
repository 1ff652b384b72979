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
