//! Additional key exchanges in proposals, and in keys (RFC 9370 2.2.1, 2.2.2, 2.2.4).

use crypto::Provider;
use crypto::native::Native;
use ike::error::Misbehaviour;
use ike::keys::{derive_child, derive_rekeyed};
use ike::multi_ke::Additional;
use ike::negotiate::{
    ChildExchange, check_answer_esp, check_answer_ike, choose_esp, choose_ike, offer_esp, offer_ike,
};
use ike::suite::{suite_text, suite_text_esp};
use wire::esp::Spi;
use wire::message::IkeSpi;
use wire::proposal::{Proposal, Transform};
use wire::registry::{Ke, Prf, TransformType as T};
use wire::suite_text::{parse_esp, parse_ike};

use crate::secret;

/// What a responder with `ours` chooses from `theirs`, as text, and the initiator takes.
fn chosen(ours: &str, theirs: &str) -> Option<String> {
    let theirs = offer_ike(&[parse_ike(theirs).unwrap()], None, &Native);
    let chosen = choose_ike(&[parse_ike(ours).unwrap()], &theirs, None, &Native)?;
    let suite = check_answer_ike(&theirs, &[chosen.proposal]).unwrap().suite;
    assert_eq!(suite, chosen.suite);
    Some(suite_text(&suite))
}

#[test]
fn what_both_have_in_our_order() {
    let cases = [
        ("ke1_mlkem768", "ke1_mlkem768", Some("-ke1_mlkem768")),
        ("ke1_mlkem1024-ke1_mlkem768", "ke1_mlkem768-ke1_mlkem1024", Some("-ke1_mlkem1024")),
        ("ke1_mlkem768-ke1_none", "ke1_mlkem512-ke1_none", Some("")),
        ("ke1_mlkem768-ke1_none", "ke2_mlkem512-ke2_none", Some("")),
        ("ke1_mlkem768", "ke1_mlkem512", None),
        ("ke1_mlkem768", "ke1_mlkem512-ke1_none", None),
        ("ke1_mlkem768", "ke2_mlkem768", None),
        ("ke1_mlkem768", "ke1_mlkem768-ke2_ecp256", None),
        ("ke1_mlkem768", "ke1_mlkem768-ke2_ecp256-ke2_none", Some("-ke1_mlkem768")),
        // No method twice; the first choice of one may have to give way to the next.
        ("ke1_ecp256-ke2_ecp256", "ke1_ecp256-ke2_ecp256", None),
        (
            "ke1_ecp256-ke1_ecp384-ke2_ecp256",
            "ke1_ecp256-ke1_ecp384-ke2_ecp256",
            Some("-ke1_ecp384-ke2_ecp256"),
        ),
        ("ke3_x25519-ke3_ecp256", "ke3_x25519-ke3_ecp256", Some("-ke3_ecp256")),
    ];
    for (ours, theirs, wanted) in cases {
        let [ours, theirs] = [ours, theirs].map(|s| format!("aes128-sha256-x25519-{s}"));
        let wanted = wanted.map(|tail| format!("aes128-sha256-curve25519{tail}"));
        assert_eq!(chosen(&ours, &theirs), wanted, "{ours} of {theirs}");
    }
}

#[test]
fn none_is_answered_where_it_was_named_and_may_be_left_out() {
    let offered =
        offer_ike(&[parse_ike("aes128-sha256-x25519-ke1_ecp256-ke1_none").unwrap()], None, &Native);
    let plain = parse_ike("aes128-sha256-x25519").unwrap();
    let chosen = choose_ike(&[plain], &offered, None, &Native).unwrap();
    let none = Transform::new(T::ADDKE1, 0);
    assert!(chosen.proposal.transforms.contains(&none));
    let mut silent = chosen.proposal.clone();
    silent.transforms.retain(|t| *t != none);
    for answer in [chosen.proposal, silent] {
        assert!(check_answer_ike(&offered, &[answer]).unwrap().suite.additional.is_empty());
    }
}

#[test]
fn answers_that_were_not_offered() {
    let offered = offer_ike(
        &[parse_ike("aes128-sha256-x25519-ke1_ecp256-ke2_ecp256-ke2_ecp384").unwrap()],
        None,
        &Native,
    );
    let answer = |tail: &[(T, Ke)]| {
        let mut plain = parse_ike("aes128-sha256-x25519").unwrap();
        plain.transforms.extend(tail.iter().map(|(kind, ke)| Transform::new(*kind, ke.0)));
        check_answer_ike(&offered, &[plain]).map(|chosen| suite_text(&chosen.suite))
    };
    let (one, two) = (T::ADDKE1, T::ADDKE2);
    assert!(answer(&[(one, Ke::ECP_256), (two, Ke::ECP_384)]).is_ok());
    let bad: [&[(T, Ke)]; 6] = [
        &[],
        &[(one, Ke::ECP_256)],
        &[(one, Ke::ECP_256), (two, Ke::NONE)],
        &[(one, Ke::ECP_256), (two, Ke::ECP_256)],
        &[(one, Ke::ECP_384), (two, Ke::ECP_256)],
        &[(one, Ke::ECP_256), (two, Ke::ECP_384), (T::ADDKE3, Ke::ECP_521)],
    ];
    for tail in bad {
        assert_eq!(answer(tail), Err(Misbehaviour::ChoseUnoffered), "{tail:?}");
    }
}

#[test]
fn a_child_has_them_only_with_a_key_exchange_of_its_own() {
    let ours = [parse_esp("aes128gcm16-x25519-none-ke1_mlkem768-ke1_none").unwrap()];
    let spi = Spi(0x1234);
    let of = |theirs: &str, exchange| {
        let theirs: Vec<Proposal> =
            offer_esp(&[parse_esp(theirs).unwrap()], spi, exchange, &Native);
        let chosen = choose_esp(&ours, &theirs, spi, exchange, &Native)?;
        check_answer_esp(&theirs, &[chosen.proposal]).unwrap();
        Some(suite_text_esp(&chosen.suite))
    };
    let create = ChildExchange::Create;
    let hybrid = "aes128gcm16-x25519-ke1_mlkem768";
    assert_eq!(of(hybrid, create).unwrap(), "aes128gcm16-curve25519-ke1_mlkem768");
    assert_eq!(of("aes128gcm16", create).unwrap(), "aes128gcm16");
    // In IKE_AUTH neither stands there, whatever is configured.
    assert_eq!(of(hybrid, ChildExchange::Auth).unwrap(), "aes128gcm16");
    let mut bare = offer_esp(&[parse_esp(hybrid).unwrap()], spi, create, &Native);
    bare[0].transforms.retain(|t| t.kind != T::KE);
    assert_eq!(choose_esp(&ours, &bare, spi, create, &Native), None);
}

/// `prf(SK_d, SK(0) | Ni | Nr | SK(1) | SK(2))`, put together by hand.
#[test]
fn secrets_after_the_first_come_last() {
    let (d, s) = (secret("0102030405"), ["aa", "bb", "cc"].map(secret));
    let (ni, nr) = ([7; 32], [8; 32]);
    let suite = choose_ike(
        &[parse_ike("aes128-sha256-x25519").unwrap()],
        &[parse_ike("aes128-sha256-x25519").unwrap()],
        None,
        &Native,
    )
    .unwrap()
    .suite;
    let [first, second, third] = &s;
    let prf = |key: &[u8], seed: &[&[u8]]| Native.prf(Prf::HMAC_SHA2_256, key, seed).unwrap();
    let seed: [&[u8]; 5] = [&[0xaa], &ni, &nr, &[0xbb], &[0xcc]];
    let skeyseed = prf(d.expose(), &seed);
    let (i, r) = (IkeSpi(1), IkeSpi(2));
    let keys = derive_rekeyed(
        &Native,
        &suite,
        Prf::HMAC_SHA2_256,
        &d,
        &[first, second, third],
        &ni,
        &nr,
        i,
        r,
    )
    .unwrap();
    let (i, r) = (1_u64.to_be_bytes(), 2_u64.to_be_bytes());
    assert_eq!(keys.sk_d, prf(skeyseed.expose(), &[&ni, &nr, &i, &r, &[1]]));
    let child = parse_esp("aes256gcm16").unwrap();
    let child = choose_esp(
        std::slice::from_ref(&child),
        &offer_esp(std::slice::from_ref(&child), Spi(300), ChildExchange::Create, &Native),
        Spi(400),
        ChildExchange::Create,
        &Native,
    )
    .unwrap()
    .suite;
    let keys =
        derive_child(&Native, Prf::HMAC_SHA2_256, &d, &[first, second, third], &ni, &nr, &child)
            .unwrap();
    let block = prf(d.expose(), &[&seed[..], &[&[1]]].concat());
    assert_eq!(keys.i_encr.expose()[..32], *block.expose());
    assert_eq!(child.additional, Additional::NONE);
}
