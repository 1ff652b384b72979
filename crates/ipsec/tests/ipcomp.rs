//! IPComp inside ESP: what shrinks is compressed, the rest goes as it is, and what does not expand is dropped.
#![allow(missing_docs)]

mod common;

use common::*;
use crypto::Provider;
use crypto::native::Native;
use ipsec::esp::{self, SealAs};
use ipsec::ipcomp::{Compressor, HEADER, MOST, Malformed, THRESHOLD, expand};
use ipsec::packet::{self, proto};
use ipsec::pipeline::Emit;
use ipsec::sa::{Direction, Mode, Sa};
use proptest::prelude::*;

const CPI: u16 = 0x1234;
const TEXT: &[u8] = b"Warren encrypts every packet between the hosts of a fleet. ";
/// Four times `TEXT` by zlib 1.2 (level 9, raw, window of 2^15 and of 2^11 alike).
const DYNAMIC: &str = "d5cbc109c0201045c1567e0569c7f3469e08092aeb9260f7b18d9c8749e64e132dfb1a31c5832f0dcb17a19378d91a15d53e37f72253b9210ea5bfd50f";
/// The bytes 0 to 99 by zlib with fixed codes.
const FIXED: &str = "6360646266616563e7e0e4e2e6e1e5e3171014121611151397909492969195935750545256515553d7d0d4d2d6d1d5d33730343236313533b7b0b4b2b6b1b5b37770747276717573f7f0f4f2f6f1f5f30f080c0a0e090d0b8f888c8a8e898d8b4f484c4a0600";
/// 65,535 and 65,536 zeros by zlib.
const MOST_ZEROS: [&str; 2] = [
    "edc101010000008090feafee080a0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001a",
    "edc101010000008090feafee080a0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000006a",
];

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// An IPComp packet around what a DEFLATE made.
fn around(cpi: u16, next_header: u8, deflated: &[u8]) -> Vec<u8> {
    let [high, low] = cpi.to_be_bytes();
    [&[next_header, 0, high, low], deflated].concat()
}

fn setups() -> Vec<Setup> {
    let modes = [Mode::Transport, Mode::Tunnel].into_iter();
    let all = modes.flat_map(|mode| [(mode, false), (mode, true)]);
    all.flat_map(|(mode, v6)| {
        [false, true].map(|encap| Setup {
            outer_v6: v6,
            inner_v6: v6,
            encap,
            ipcomp: true,
            ..Setup::new(mode)
        })
    })
    .collect()
}

#[test]
fn what_zlib_made_expands() {
    let four = TEXT.repeat(4);
    let stored = [&[1, 0x78, 0, 0x87, 0xff][..], &b"stored".repeat(20)].concat();
    let cases = [
        (bytes(DYNAMIC), four),
        (bytes(FIXED), (0..100).collect()),
        (bytes(MOST_ZEROS[0]), vec![0; MOST]),
        (stored, b"stored".repeat(20)),
    ];
    for (deflated, plain) in cases {
        let (out, next) = expand(CPI, &around(CPI, proto::UDP, &deflated), 7).unwrap();
        assert_eq!((&out[7..], next), (&plain[..], proto::UDP));
        let mut compressor = Compressor::default();
        let ours = compressor.compress(CPI, proto::UDP, &plain);
        if let Some(ours) = ours {
            assert!(ours.len() < plain.len());
            assert_eq!(expand(CPI, &ours, 0), Ok((plain, proto::UDP)));
        }
    }
}

#[test]
fn what_is_none_or_too_much_does_not() {
    let whole = around(CPI, proto::UDP, &bytes(DYNAMIC));
    assert!(expand(CPI, &whole, 0).is_ok());
    for length in 0..whole.len() {
        assert_eq!(expand(CPI, &whole[..length], 0), Err(Malformed), "cut at {length}");
    }
    for bad in [
        around(CPI + 1, proto::UDP, &bytes(DYNAMIC)),
        around(CPI, proto::IPCOMP, &bytes(DYNAMIC)),
        around(CPI, proto::UDP, &bytes(MOST_ZEROS[1])),
        around(CPI, proto::UDP, &[0xff; 50]),
    ] {
        assert_eq!(expand(CPI, &bad, 40), Err(Malformed));
    }
}

#[test]
fn what_does_not_shrink_stays() {
    let mut compressor = Compressor::default();
    assert_eq!(compressor.compress(CPI, proto::UDP, &[0; THRESHOLD - 1]), None);
    assert_eq!(compressor.compress(CPI, proto::UDP, &bytes(FIXED)), None, "compressed already");
    assert_eq!(compressor.compress(CPI, proto::IPCOMP, &[0; 1000]), None);
    let made = compressor.compress(CPI, proto::UDP, &[0; THRESHOLD]).unwrap();
    assert_eq!(&made[..HEADER], [proto::UDP, 0, 0x12, 0x34]);
    // The one before leaves nothing behind (RFC 2394 2.1).
    assert_eq!(compressor.compress(CPI, proto::UDP, &[0; THRESHOLD]), Some(made));
}

#[test]
fn both_ways_in_both_modes() {
    for setup in setups() {
        let (one, two) = setup.pair();
        let long = setup.udp(1, 2, &TEXT.repeat(20));
        let sealed = send_one(&one, &long);
        assert!(esp_of(&sealed).len() < 300, "{setup:?}: {}", esp_of(&sealed).len());
        assert_eq!(receive_one(&two, &sealed), long, "{setup:?}");
        let short = setup.udp(2, 1, b"short");
        assert_eq!(receive_one(&one, &send_one(&two, &short)), short);
        assert_eq!((counter(&one, "out_compressed"), counter(&two, "out_compressed")), (1, 0));
        assert_eq!(counter(&one, "in_delivered") + counter(&two, "in_delivered"), 2);
        // Both ends count what was under ESP.
        let carried = |p: &ipsec::pipeline::Pipeline| {
            let mut all: Vec<u64> = p.snapshot(NOW).sas.iter().map(|sa| sa.bytes).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(carried(&one), carried(&two));
    }
}

#[test]
fn no_lane_goes_around_it() {
    let setup = setups()[0];
    let (one, _) = setup.pair();
    let packet = setup.udp(1, 2, &TEXT.repeat(20));
    let headers = packet::parse(&packet).unwrap();
    assert!(one.lane(NOW, &packet, &headers, packet.len()).is_none());
    let plain = Setup { ipcomp: false, ..setup };
    assert!(plain.host(1).lane(NOW, &packet, &headers, packet.len()).is_some());
}

/// An ESP packet that verifies at host 2, with any content.
fn forge(setup: &Setup, seq: u64, content: &[u8]) -> Emit {
    let Sa { cipher, encr_key, integ_key, spi, .. } = setup.sa(Direction::Out, 1, 2, 0x1002);
    let cipher = Native.cipher(cipher, encr_key.expose(), integ_key.expose()).unwrap();
    let mut packet = content.to_vec();
    let as_ = SealAs { spi, seq, esn: setup.esn, next_header: proto::IPCOMP };
    esp::seal(&*cipher, as_, 0, &mut packet);
    let mut sealed = send_one(&setup.host(1), &setup.udp(1, 2, b""));
    match &mut sealed {
        Emit::Esp(outer) | Emit::EspInUdp { packet: outer, .. } => outer.esp = packet,
        other => panic!("not ESP: {other:?}"),
    }
    sealed
}

#[test]
fn a_hostile_peer_is_counted() {
    for setup in setups() {
        let two = setup.host(2);
        let cpi = setup.sa(Direction::In, 1, 2, 0x1002).ipcomp.unwrap();
        let bad = [
            around(cpi, proto::UDP, &bytes(MOST_ZEROS[1])),
            around(cpi ^ 1, proto::UDP, &bytes(DYNAMIC)),
            around(cpi, proto::IPCOMP, &bytes(DYNAMIC)),
            around(cpi, proto::UDP, &[]),
            vec![proto::UDP],
            Vec::new(),
        ];
        for (seq, content) in (1..).zip(&bad) {
            assert_eq!(receive(&two, NOW, &forge(&setup, seq, content)), vec![], "{content:?}");
        }
        assert_eq!(counter(&two, "in_ipcomp_malformed"), bad.len() as u64);
        // What expands is looked at as any packet: this is longer than IPv4 can say, or in a tunnel no packet at all.
        let zeros = around(cpi, proto::IPV4, &bytes(MOST_ZEROS[0]));
        let fits = setup.mode == Mode::Transport && setup.outer_v6;
        let delivered = receive(&two, NOW, &forge(&setup, 7, &zeros)).len();
        assert_eq!(delivered, usize::from(fits), "{setup:?}");
        assert_eq!(counter(&two, "in_malformed"), u64::from(!fits), "{setup:?}");
    }
}

#[test]
fn without_an_agreement_it_is_a_protocol_like_others() {
    let setup = Setup::new(Mode::Transport);
    let two = setup.host(2);
    let content = around(CPI, proto::UDP, &bytes(DYNAMIC));
    let delivered = receive_one(&two, &forge(&setup, 1, &content));
    assert_eq!(packet::parse(&delivered).unwrap().protocol, proto::IPCOMP);
    assert!(delivered.ends_with(&content));
}

proptest! {
    #[test]
    fn any_payload_comes_back(payload in prop::collection::vec(0u8..4, 0..3000), noise: Vec<u8>) {
        let payload = [payload, noise].concat();
        let mut compressor = Compressor::default();
        if let Some(packet) = compressor.compress(CPI, proto::TCP, &payload) {
            prop_assert!(packet.len() < payload.len());
            prop_assert_eq!(expand(CPI, &packet, 0), Ok((payload, proto::TCP)));
        }
    }

    #[test]
    fn noise_is_bounded(noise: Vec<u8>) {
        if let Ok((out, _)) = expand(CPI, &around(CPI, proto::TCP, &noise), 0) {
            prop_assert!(out.len() <= MOST);
        }
    }
}
