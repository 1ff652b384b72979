//! Offers, choices, answers.

use crypto::native::Native;
use ike::error::Misbehaviour;
use ike::negotiate::{
    ChildExchange, check_answer_esp, check_answer_ike, choose_esp, choose_ike, first_ke, offer_esp,
    offer_ike, offers_ke,
};
use wire::esp::Spi;
use wire::message::IkeSpi;
use wire::proposal::{Proposal, Transform};
use wire::registry::{Encr, Integ, Ke, Prf, ProtocolId, Sn, TransformType as T};

const OURS: Spi = Spi(0x1111_1111);
const THEIRS: Spi = Spi(0x2222_2222);

fn t(kind: T, id: u16) -> Transform {
    Transform { kind, id, key_bits: None, unknown_attribute: false }
}

fn encr(encr: Encr, bits: u16) -> Transform {
    Transform { key_bits: (bits != 0).then_some(bits), ..t(T::ENCR, encr.0) }
}

fn ike(transforms: &[Transform]) -> Proposal {
    Proposal { number: 1, protocol: ProtocolId::IKE, spi: vec![], transforms: transforms.to_vec() }
}

fn esp(transforms: &[Transform]) -> Proposal {
    Proposal { protocol: ProtocolId::ESP, ..ike(transforms) }
}

fn cbc() -> Proposal {
    ike(&[
        encr(Encr::AES_CBC, 128),
        t(T::PRF, Prf::HMAC_SHA2_256.0),
        t(T::INTEG, Integ::HMAC_SHA2_256_128.0),
        t(T::KE, Ke::MODP_2048.0),
    ])
}

fn gcm() -> Proposal {
    ike(&[encr(Encr::AES_GCM_16, 256), t(T::PRF, Prf::HMAC_SHA2_384.0), t(T::KE, Ke::ECP_384.0)])
}

fn esp_gcm() -> Proposal {
    esp(&[encr(Encr::AES_GCM_16, 128), t(T::SN, Sn::SEQ_32.0)])
}

fn esp_pfs() -> Proposal {
    esp(&[
        encr(Encr::AES_CBC, 256),
        t(T::INTEG, Integ::HMAC_SHA2_256_128.0),
        t(T::KE, Ke::CURVE25519.0),
        t(T::SN, Sn::ESN.0),
    ])
}

/// With one transform more.
fn plus(mut proposal: Proposal, transform: Transform) -> Proposal {
    proposal.transforms.push(transform);
    proposal
}

/// Without the transforms of a type.
fn minus(mut proposal: Proposal, kind: T) -> Proposal {
    proposal.transforms.retain(|t| t.kind != kind);
    proposal
}

fn number(number: u8, proposal: Proposal) -> Proposal {
    Proposal { number, ..proposal }
}

#[test]
fn both_ends_come_to_the_same_ike_suite() {
    let offered = offer_ike(&[cbc(), gcm()], None, &Native);
    assert_eq!(offered.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2]);
    // The responder prefers otherwise, and its preference counts.
    let chosen = choose_ike(&[gcm(), cbc()], &offered, None, &Native).unwrap();
    assert_eq!((chosen.proposal.number, chosen.suite.ke), (2, Ke::ECP_384));
    let checked = check_answer_ike(&offered, std::slice::from_ref(&chosen.proposal)).unwrap();
    assert_eq!(checked.suite, chosen.suite);
    assert_eq!(checked.suite.cipher.integ, Integ::NONE);
    assert_eq!((checked.suite.cipher.key_bits, checked.suite.prf), (256, Prf::HMAC_SHA2_384));
}

#[test]
fn one_transform_of_each_type_in_our_order() {
    let ours = plus(plus(cbc(), encr(Encr::AES_CBC, 256)), t(T::KE, Ke::CURVE25519.0));
    let theirs = ike(&[
        t(T::KE, Ke::CURVE25519.0),
        t(T::KE, Ke::MODP_2048.0),
        encr(Encr::AES_CBC, 256),
        encr(Encr::AES_CBC, 128),
        t(T::INTEG, Integ::HMAC_SHA1_96.0),
        t(T::INTEG, Integ::HMAC_SHA2_256_128.0),
        t(T::PRF, Prf::HMAC_SHA2_256.0),
    ]);
    let chosen = choose_ike(&[ours], &[theirs], None, &Native).unwrap();
    assert_eq!(chosen.proposal.transforms, cbc().transforms);
}

#[test]
fn a_rekeyed_ike_sa_has_spis() {
    let offered = offer_ike(&[cbc()], Some(IkeSpi(0xaabb)), &Native);
    assert_eq!(offered[0].spi, 0xaabb_u64.to_be_bytes());
    let chosen = choose_ike(&[cbc()], &offered, Some(IkeSpi(7)), &Native).unwrap();
    assert_eq!(chosen.peer_ike_spi(), Some(IkeSpi(0xaabb)));
    let checked = check_answer_ike(&offered, &[chosen.proposal]).unwrap();
    assert_eq!(checked.peer_ike_spi(), Some(IkeSpi(7)));
    // With the wrong length it is no proposal, and zero is no SPI (RFC 7296 3.1).
    assert_eq!(choose_ike(&[cbc()], &offered, None, &Native), None);
    assert_eq!(choose_ike(&[cbc()], &[cbc()], Some(IkeSpi(7)), &Native), None);
    let zero = offer_ike(&[cbc()], Some(IkeSpi(0)), &Native);
    assert_eq!(choose_ike(&[cbc()], &zero, Some(IkeSpi(7)), &Native).unwrap().peer_ike_spi(), None);
}

/// RFC 7296 3.3.6 and 3.3.3: what makes a peer's proposal unacceptable.
#[test]
fn unacceptable_proposals() {
    let unknown = Transform { unknown_attribute: true, ..encr(Encr::AES_CBC, 128) };
    let bad = [
        // Missing what is mandatory.
        minus(cbc(), T::ENCR),
        minus(cbc(), T::PRF),
        minus(cbc(), T::KE),
        minus(cbc(), T::INTEG),
        // A transform type that is not understood.
        plus(cbc(), t(T::ADDKE1, Ke::ML_KEM_768.0)),
        plus(cbc(), t(T::SN, Sn::SEQ_32.0)),
        plus(cbc(), t(T(200), 1)),
        // Another key length, none, or an attribute that is not understood.
        plus(minus(cbc(), T::ENCR), encr(Encr::AES_CBC, 256)),
        plus(minus(cbc(), T::ENCR), encr(Encr::AES_CBC, 0)),
        plus(minus(cbc(), T::ENCR), unknown),
        // Another protocol.
        Proposal { protocol: ProtocolId::ESP, ..cbc() },
        // INTEG NONE without an AEAD.
        plus(minus(cbc(), T::INTEG), t(T::INTEG, 0)),
    ];
    for theirs in bad {
        assert_eq!(
            choose_ike(&[cbc()], std::slice::from_ref(&theirs), None, &Native),
            None,
            "{theirs:?}"
        );
        // A good one beside it is taken all the same.
        let chosen = choose_ike(&[cbc()], &[theirs, number(2, cbc())], None, &Native).unwrap();
        assert_eq!(chosen.proposal.number, 2);
    }
}

#[test]
fn aead_takes_integ_none_or_nothing() {
    let with_none = plus(gcm(), t(T::INTEG, 0));
    let chosen = choose_ike(&[gcm()], std::slice::from_ref(&with_none), None, &Native).unwrap();
    // It was offered, so it is answered.
    assert!(chosen.proposal.transforms.contains(&t(T::INTEG, 0)));
    assert!(check_answer_ike(&[with_none], &[chosen.proposal]).is_ok());
    let with_hmac = plus(gcm(), t(T::INTEG, Integ::HMAC_SHA2_256_128.0));
    assert_eq!(choose_ike(&[gcm()], &[with_hmac], None, &Native), None);
}

#[test]
fn what_is_not_there_is_not_offered() {
    let with_3des = plus(cbc(), encr(Encr::TRIPLE_DES, 0));
    let lone_3des = plus(minus(cbc(), T::ENCR), encr(Encr::TRIPLE_DES, 0));
    let null = plus(minus(cbc(), T::ENCR), encr(Encr::NULL, 0));
    // Without its additional key exchange the proposal would be another one.
    let hybrid = plus(cbc(), t(T::ADDKE1, Ke::CURVE448.0));
    let offered = offer_ike(&[lone_3des, null, hybrid, with_3des], None, &Native);
    assert_eq!(offered, [cbc()]);
}

#[test]
fn more_proposals_than_numbers() {
    let offered = offer_ike(&vec![cbc(); 300], None, &Native);
    assert_eq!((offered.len(), offered[254].number), (255, 255));
}

#[test]
fn first_child_sa_has_no_key_exchange() {
    let offered = offer_esp(&[esp_pfs(), esp_gcm()], OURS, ChildExchange::Auth, &Native);
    assert_eq!(first_ke(&offered), None);
    // A peer that names one all the same is not refused for it.
    let mut theirs = esp_pfs();
    theirs.spi = THEIRS.0.to_be_bytes().to_vec();
    let theirs = [theirs];
    let chosen = choose_esp(&[esp_pfs()], &theirs, OURS, ChildExchange::Auth, &Native).unwrap();
    assert_eq!((chosen.suite.ke, chosen.suite.esn), (None, true));
    assert_eq!(chosen.peer_esp_spi(), Some(THEIRS));
    assert_eq!(chosen.proposal.spi, OURS.0.to_be_bytes());
    assert!(chosen.proposal.transforms.iter().all(|t| t.kind != T::KE));
}

#[test]
fn pfs_in_create_child_sa() {
    let create = ChildExchange::Create;
    let offered = offer_esp(&[esp_pfs()], THEIRS, create, &Native);
    assert_eq!(first_ke(&offered), Some(Ke::CURVE25519));
    assert!(offers_ke(&offered, Ke::CURVE25519));
    assert!(!offers_ke(&offered, Ke::MODP_2048) && !offers_ke(&offered, Ke::NONE));
    let chosen = choose_esp(&[esp_pfs()], &offered, OURS, create, &Native).unwrap();
    assert_eq!(chosen.suite.ke, Some(Ke::CURVE25519));
    assert_eq!(check_answer_esp(&offered, &[chosen.proposal]).unwrap().suite, chosen.suite);

    // PFS is wanted here, the peer offers none; and the other way round.
    let without = offer_esp(&[minus(esp_pfs(), T::KE)], THEIRS, create, &Native);
    assert_eq!(choose_esp(&[esp_pfs()], &without, OURS, create, &Native), None);
    assert_eq!(choose_esp(&[minus(esp_pfs(), T::KE)], &offered, OURS, create, &Native), None);
    // NONE among the peer's methods lets it go without.
    let mut optional = offered.clone();
    optional[0].transforms.push(t(T::KE, 0));
    let chosen = choose_esp(&[minus(esp_pfs(), T::KE)], &optional, OURS, create, &Native).unwrap();
    assert_eq!(chosen.suite.ke, None);
    assert!(check_answer_esp(&optional, &[chosen.proposal]).is_ok());
}

#[test]
fn sequence_numbers_are_always_named() {
    // Ours without SN means 32 bits.
    let offered = offer_esp(&[minus(esp_gcm(), T::SN)], THEIRS, ChildExchange::Auth, &Native);
    assert_eq!(offered[0].transforms, esp_gcm().transforms);
    // The peer's must have it.
    let mut bare = offered.clone();
    bare[0].transforms.retain(|t| t.kind != T::SN);
    assert_eq!(choose_esp(&[esp_gcm()], &bare, OURS, ChildExchange::Auth, &Native), None);
    // Both offered: ours decides.
    let both = plus(plus(minus(esp_gcm(), T::SN), t(T::SN, 1)), t(T::SN, 0));
    let offered = offer_esp(&[both], THEIRS, ChildExchange::Auth, &Native);
    let chosen = choose_esp(&[esp_gcm()], &offered, OURS, ChildExchange::Auth, &Native).unwrap();
    assert!(!chosen.suite.esn);
}

#[test]
fn reserved_esp_spis() {
    for spi in [0_u32, 1, 255] {
        let offered = offer_esp(&[esp_gcm()], Spi(spi), ChildExchange::Auth, &Native);
        let chosen =
            choose_esp(&[esp_gcm()], &offered, OURS, ChildExchange::Auth, &Native).unwrap();
        assert_eq!(chosen.peer_esp_spi(), None);
    }
}

#[test]
fn answers_that_were_not_offered() {
    let offered = offer_ike(&[plus(cbc(), t(T::KE, Ke::CURVE25519.0)), gcm()], None, &Native);
    let good = cbc();
    assert!(check_answer_ike(&offered, std::slice::from_ref(&good)).is_ok());
    let bad = [
        vec![],
        vec![good.clone(), number(2, gcm())],
        vec![number(2, good.clone())],
        vec![number(3, good.clone())],
        vec![Proposal { protocol: ProtocolId::ESP, ..good.clone() }],
        vec![Proposal { spi: vec![1; 8], ..good.clone() }],
        vec![minus(good.clone(), T::INTEG)],
        vec![minus(good.clone(), T::PRF)],
        vec![plus(good.clone(), t(T::KE, Ke::CURVE25519.0))],
        vec![plus(good.clone(), t(T::KE, Ke::MODP_2048.0))],
        vec![plus(minus(good.clone(), T::KE), t(T::KE, Ke::MODP_1024.0))],
        vec![plus(minus(good.clone(), T::ENCR), encr(Encr::AES_CBC, 256))],
        vec![plus(minus(good.clone(), T::INTEG), t(T::INTEG, 0))],
        vec![plus(good.clone(), t(T(99), 1))],
        vec![number(2, plus(gcm(), t(T::INTEG, Integ::HMAC_SHA1_96.0)))],
    ];
    for answer in bad {
        assert_eq!(
            check_answer_ike(&offered, &answer),
            Err(Misbehaviour::ChoseUnoffered),
            "{answer:?}"
        );
    }
    // INTEG NONE beside an AEAD says nothing new.
    let noisy = number(2, plus(gcm(), t(T::INTEG, 0)));
    assert_eq!(check_answer_ike(&offered, &[noisy]).unwrap().suite.ke, Ke::ECP_384);
}
