//! Cutting and gathering, all ciphers and sizes; fragments that contradict each other.

use crypto::Provider;
use crypto::cipher::{Cipher, CipherSpec};
use crypto::native::Native;
use ike::error::Misbehaviour;
use ike::fragment::{Fragment, Gather, MAX_BYTES, MAX_FRAGMENTS, seal};
use ike::sk::open_bytes;
use proptest::prelude::*;
use wire::message::{Flags, Header, IkeSpi, parse};
use wire::registry::{Encr, ExchangeType, Integ, PayloadType};

const SPECS: [CipherSpec; 4] = [
    CipherSpec { encr: Encr::AES_CBC, key_bits: 128, integ: Integ::HMAC_SHA2_256_128 },
    CipherSpec { encr: Encr::AES_CTR, key_bits: 128, integ: Integ::HMAC_SHA1_96 },
    CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE },
    CipherSpec { encr: Encr::CHACHA20_POLY1305, key_bits: 0, integ: Integ::NONE },
];

fn cipher(spec: CipherSpec) -> Box<dyn Cipher> {
    let integ =
        if spec.integ == Integ::NONE { 0 } else { Native.integ_key_len(spec.integ).unwrap() };
    Native.cipher(spec, &vec![0x42; spec.encr_key_len()], &vec![0x43; integ]).unwrap()
}

fn header() -> Header {
    Header {
        spi_i: IkeSpi(1),
        spi_r: IkeSpi(2),
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange: ExchangeType::IKE_AUTH,
        flags: Flags { initiator: true, version: false, response: false },
        message_id: 7,
        length: 0,
    }
}

fn of(number: u16, total: u16) -> Fragment {
    Fragment { message_id: 7, exchange: ExchangeType::IKE_AUTH, number, total }
}

fn cut(plain: &[u8], cipher: &dyn Cipher, limit: Option<usize>) -> Vec<Vec<u8>> {
    let mut counter = 0;
    seal(&header(), PayloadType::ID_I, plain, cipher, limit, || {
        counter += 1;
        counter
    })
}

fn add(gather: &mut Gather, number: u16, total: u16, plain: &[u8]) -> Option<Vec<u8>> {
    assert_eq!(gather.wants(of(number, total)), Ok(true), "{number}/{total}");
    let first = if number == 1 { PayloadType::ID_I } else { PayloadType::NONE };
    let whole = gather.add(of(number, total), first, plain.to_vec()).unwrap();
    whole.map(|(first, plain)| {
        assert_eq!(first, PayloadType::ID_I);
        plain
    })
}

#[test]
fn what_fits_is_not_cut() {
    for spec in SPECS {
        let cipher = cipher(spec);
        let whole = cut(&[9; 500], &*cipher, None);
        let limit = whole[0].len();
        assert_eq!(cut(&[9; 500], &*cipher, Some(limit)), whole);
        assert!(parse(&whole[0]).unwrap().sk.unwrap().fragment.is_none());
        assert_eq!(cut(&[9; 500], &*cipher, Some(limit - 1)).len(), 2);
        // A limit that nothing keeps still ends.
        assert_eq!(cut(&[9; 50], &*cipher, Some(0)).len(), 50);
    }
}

/// No fragment could be longer: what is left over would not make room for another block.
#[test]
fn fragments_are_full() {
    for spec in SPECS {
        let cipher = cipher(spec);
        for limit in 1200..1250 {
            let messages = cut(&[9; 5000], &*cipher, Some(limit));
            let first = messages[0].len();
            assert!(first <= limit && first + cipher.block_len() > limit, "{spec} {first} {limit}");
        }
    }
}

#[test]
fn contradictions_and_repeats() {
    let mut gather = Gather::default();
    assert_eq!(add(&mut gather, 2, 3, b"b"), None);
    assert_eq!(gather.wants(of(2, 3)), Ok(false));
    assert_eq!(gather.wants(of(1, 2)), Err(Misbehaviour::Fragment));
    assert_eq!(gather.wants(of(0, 3)), Err(Misbehaviour::Fragment));
    assert_eq!(gather.wants(of(4, 3)), Err(Misbehaviour::Fragment));
    let other = Fragment { exchange: ExchangeType::INFORMATIONAL, ..of(1, 3) };
    assert_eq!(gather.wants(other), Err(Misbehaviour::Fragment));
    let many = of(1, MAX_FRAGMENTS + 1);
    assert_eq!(gather.wants(many), Err(Misbehaviour::FragmentLimit));
    assert_eq!(add(&mut gather, 3, 3, b"c"), None);
    assert_eq!(add(&mut gather, 1, 3, b"a"), Some(b"abc".to_vec()));
    assert!(gather.is_empty());
}

#[test]
fn smaller_fragments_take_the_place_of_larger_ones() {
    let mut gather = Gather::default();
    assert_eq!(add(&mut gather, 1, 2, b"ab"), None);
    assert_eq!(add(&mut gather, 2, 3, b"b"), None);
    assert_eq!(gather.wants(of(2, 2)), Err(Misbehaviour::Fragment));
    assert_eq!(add(&mut gather, 3, 3, b"c"), None);
    assert_eq!(add(&mut gather, 1, 3, b"a"), Some(b"abc".to_vec()));
}

#[test]
fn another_message_takes_the_place_of_an_unfinished_one() {
    let mut gather = Gather::default();
    assert_eq!(add(&mut gather, 1, 2, b"old"), None);
    let next = Fragment { message_id: 8, ..of(2, 2) };
    assert_eq!(gather.wants(next), Ok(true));
    assert_eq!(gather.add(next, PayloadType::NONE, b"new".to_vec()), Ok(None));
    assert_eq!(gather.wants(of(2, 2)), Ok(true));
}

#[test]
fn a_message_of_one_fragment() {
    assert_eq!(add(&mut Gather::default(), 1, 1, b"all"), Some(b"all".to_vec()));
}

#[test]
fn bytes_are_bounded() {
    let mut gather = Gather::default();
    let piece = vec![0; MAX_BYTES / 2];
    assert_eq!(add(&mut gather, 1, 3, &piece), None);
    assert_eq!(add(&mut gather, 2, 3, &piece), None);
    let over = gather.add(of(3, 3), PayloadType::NONE, vec![0]);
    assert_eq!(over, Err(Misbehaviour::FragmentLimit));
    assert!(gather.is_empty());
}

proptest! {
    #[test]
    fn gathered_in_any_order(
        len in 600_usize..6000,
        limit in 300_usize..1300,
        which in 0..SPECS.len(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let cipher = cipher(SPECS[which]);
        let plain: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut messages = cut(&plain, &*cipher, Some(limit));
        let (mut gather, mut whole) = (Gather::default(), None);
        let total = messages.len();
        for index in order {
            if messages.is_empty() {
                break;
            }
            prop_assert!(whole.is_none());
            let bytes = messages.swap_remove(index.index(messages.len()));
            prop_assert!(bytes.len() <= limit);
            let frame = parse(&bytes).unwrap().sk.unwrap();
            let Some((number, of_all)) = frame.fragment else {
                prop_assert_eq!(total, 1);
                return Ok(());
            };
            prop_assert_eq!(usize::from(of_all), total);
            prop_assert_eq!(gather.wants(of(number, of_all)), Ok(true));
            let content = open_bytes(&frame, &*cipher).unwrap();
            whole = gather.add(of(number, of_all), frame.first, content).unwrap();
        }
        prop_assert_eq!(whole, Some((PayloadType::ID_I, plain)));
    }
}
