//! What a hostile peer, a hostile network or a careless local program may send.
#![allow(missing_docs)]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::*;
use crypto::Provider;
use crypto::native::Native;
use ipsec::Spi;
use ipsec::dataplane::DataplaneEvent;
use ipsec::esp::{self, SealAs};
use ipsec::packet::{self, proto};
use ipsec::pipeline::{Admitted, Emit, OuterInfo, Verdict};
use ipsec::sa::{Direction, Mode, Sa, SaKey};
use proptest::prelude::*;

/// An ESP packet that verifies at host 2, with any content.
fn forge(setup: &Setup, seq: u64, next_header: u8, content: &[u8]) -> Emit {
    let Sa { cipher, encr_key, integ_key, spi, .. } = setup.sa(Direction::Out, 1, 2, 0x1002);
    let cipher = Native.cipher(cipher, encr_key.expose(), integ_key.expose()).unwrap();
    let mut packet = content.to_vec();
    let as_ = SealAs { spi, seq, esn: setup.esn, next_header };
    esp::seal(&*cipher, as_, 0, &mut packet);
    let Emit::Esp(mut outer) = send_one(&setup.host(1), &setup.udp(1, 2, b"")) else { panic!() };
    outer.esp = packet;
    Emit::Esp(outer)
}

#[test]
fn replays_and_late_packets_are_dropped() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = setup.pair();
    let sent: Vec<_> = (0..70).map(|_| send_one(&one, &setup.udp(1, 2, b"x"))).collect();
    assert_eq!(receive(&two, NOW, &sent[69]).len(), 1);
    assert_eq!(receive(&two, NOW, &sent[69]).len(), 0, "a copy");
    assert_eq!(receive(&two, NOW, &sent[5]).len(), 0, "behind the window of 64");
    assert_eq!(receive(&two, NOW, &sent[6]).len(), 1, "the last one in it");
    assert_eq!(counter(&two, "in_replay"), 2);
    assert_eq!(two.snapshot(NOW).sas.iter().map(|usage| usage.replays).sum::<u64>(), 2);
}

#[test]
fn every_changed_bit_is_found() {
    for suite in suites() {
        let setup = Setup { suite, esn: true, ..Setup::new(Mode::Tunnel) };
        let (one, two) = setup.pair();
        let sealed = send_one(&one, &setup.udp(1, 2, b"bits"));
        let outer = OuterInfo::of(&sealed).unwrap();
        for bit in 0..esp_of(&sealed).len() * 8 {
            let mut esp = esp_of(&sealed).to_vec();
            esp[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(receive_as(&two, NOW, outer, &esp), vec![], "{suite} bit {bit}");
        }
        assert_eq!(receive(&two, NOW, &sealed).len(), 1, "the window is as it was");
    }
}

#[test]
fn dummies_vanish_and_padding_for_confidentiality_is_taken_off() {
    let setup = Setup::new(Mode::Tunnel);
    let two = setup.host(2);
    assert_eq!(receive(&two, NOW, &forge(&setup, 1, proto::NO_NEXT_HEADER, &[9; 40])), vec![]);
    assert_eq!(counter(&two, "in_dummy"), 1);
    let packet = setup.udp(1, 2, b"inside");
    let mut padded = packet.clone();
    padded.resize(500, 0);
    assert_eq!(receive_one(&two, &forge(&setup, 2, proto::IPV4, &padded)), packet);
}

#[test]
fn what_is_inside_must_be_what_the_header_says() {
    let setup = Setup::new(Mode::Tunnel);
    let two = setup.host(2);
    let packet = setup.udp(1, 2, b"inside");
    for (seq, next_header, content) in [
        (1, proto::IPV6, packet.as_slice()),
        (2, proto::UDP, &packet),
        (3, proto::IPV4, &packet[..packet.len() - 1]),
        (4, proto::IPV4, &[]),
    ] {
        assert_eq!(receive(&two, NOW, &forge(&setup, seq, next_header, content)), vec![]);
    }
    assert_eq!(counter(&two, "in_malformed"), 4);
}

#[test]
fn wrong_padding_is_refused_after_it_verified() {
    let setup = Setup::new(Mode::Transport);
    let two = setup.host(2);
    let sa = setup.sa(Direction::Out, 1, 2, 0x1002);
    let cipher = Native.cipher(sa.cipher, sa.encr_key.expose(), &[]).unwrap();
    for (seq, trailer) in [(1u8, [1, 9, 2, 17]), (2, [0, 0, 200, 17])] {
        let mut esp = vec![0, 0, 0x10, 2, 0, 0, 0, seq];
        esp.extend_from_slice(&[0; 8]);
        esp.extend_from_slice(&trailer);
        esp.extend_from_slice(&[0; 16]);
        let (aad, body) = esp.split_at_mut(8);
        cipher.seal(u64::from(seq), aad, None, body);
        let Emit::Esp(mut outer) = forge(&setup, 1, 0, &[]) else { panic!() };
        outer.esp = esp;
        assert_eq!(receive(&two, NOW, &Emit::Esp(outer)), vec![]);
    }
    assert_eq!(counted(&two), [("in_malformed", 2)]);
}

#[test]
fn a_peer_may_not_send_what_was_not_negotiated() {
    let setup = Setup::new(Mode::Tunnel);
    let two = setup.host(2);
    let foreign = packet::udp(
        SocketAddr::new("10.66.0.1".parse().unwrap(), 1),
        SocketAddr::new(setup.inner(2), 2),
        b"",
    );
    assert_eq!(receive(&two, NOW, &forge(&setup, 1, proto::IPV4, &foreign.unwrap())), vec![]);
    assert_eq!(counter(&two, "in_selector_mismatch"), 1);
}

/// Nor behind a packet of the same SA that was right.
#[test]
fn what_was_admitted_is_admitted_again_and_nothing_else() {
    let setup = Setup::new(Mode::Tunnel);
    let two = setup.host(2);
    let (mut before, mut late) = (Admitted::default(), Vec::new());
    let mut opens = |seq: u64, src: IpAddr| {
        let inner = packet::udp((src, 1).into(), (setup.inner(2), 2).into(), b"").unwrap();
        let sealed = forge(&setup, seq, proto::IPV4, &inner);
        let outer = OuterInfo::of(&sealed).unwrap();
        let mut esp = esp_of(&sealed).to_vec();
        two.open(NOW, outer, &mut esp, 0, &mut before, &mut late).is_some()
    };
    let foreign = "10.66.0.1".parse().unwrap();
    let sources = [foreign, setup.inner(1), setup.inner(1), foreign, foreign, setup.inner(1)];
    let opened: Vec<_> = (1..).zip(sources).map(|(seq, src)| opens(seq, src)).collect();
    assert_eq!(opened, [false, true, true, false, false, true]);
    assert_eq!(counter(&two, "in_selector_mismatch"), 3);
}

#[test]
fn in_transport_mode_the_outer_source_proves_nothing() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = setup.pair();
    let packet = setup.udp(1, 2, b"from one");
    let sealed = send_one(&one, &packet);
    let spoofed = SocketAddr::new(setup.outer(77), 0);
    let outer = OuterInfo { src: spoofed, ..OuterInfo::of(&sealed).unwrap() };
    // It is host 1 who can seal like this; whoever carried it, it is delivered as host 1's.
    assert_eq!(receive_as(&two, NOW, outer, esp_of(&sealed)), [Emit::Deliver(packet)]);
}

#[test]
fn unknown_spis_are_told_once_a_second_and_source() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = setup.pair();
    let mut sealed = esp_of(&send_one(&one, &setup.udp(1, 2, b"x"))).to_vec();
    sealed[0] = 0xff;
    let outer = |host: u8| OuterInfo {
        src: SocketAddr::new(setup.outer(host), 0),
        dst: setup.outer(2),
        tos: 0,
        ttl: 64,
        udp: false,
    };
    for _ in 0..100 {
        receive_as(&two, NOW, outer(1), &sealed);
        receive_as(&two, NOW, outer(3), &sealed);
    }
    assert_eq!(events(&two).len(), 2);
    receive_as(&two, NOW + Duration::from_secs(1), outer(1), &sealed);
    let key = SaKey { dst: setup.outer(2), spi: Spi(0xff00_1002) };
    assert_eq!(events(&two), [DataplaneEvent::UnknownSpi { src: setup.outer(1), key }]);
    assert_eq!(counter(&two, "in_no_sa"), 201);
}

#[test]
fn cleartext_from_a_protected_peer_is_dropped_and_told() {
    let setup = Setup::new(Mode::Transport);
    let two = setup.host(2);
    let packet = setup.udp(1, 2, b"in the clear");
    for _ in 0..10 {
        assert_eq!(two.clear_in(NOW, &packet), Verdict::Drop);
    }
    assert!(matches!(events(&two)[..], [DataplaneEvent::ClearIn { .. }]));
    let optional = Setup { optional: true, ..setup }.host(2);
    assert_eq!(optional.clear_in(NOW, &packet), Verdict::Pass);
    assert_eq!(two.clear_in(NOW, &setup.udp(8, 2, b"")), Verdict::Drop, "no policy");
}

/// Bytes that look like packets often enough to get somewhere.
fn almost_packet() -> impl Strategy<Value = Vec<u8>> {
    let v4 = Setup::new(Mode::Transport);
    let v6 = Setup { outer_v6: true, inner_v6: true, ..v4 };
    let base = prop::sample::select(vec![v4.udp(1, 2, &[7; 60]), v6.udp(1, 2, &[7; 60])]);
    let edits = prop::collection::vec((0..60usize, any::<u8>()), 0..6);
    let edited = (base, edits, 0..108usize).prop_map(|(mut packet, edits, cut)| {
        for (at, byte) in edits {
            packet[at] = byte;
        }
        packet.truncate(packet.len().saturating_sub(cut.saturating_sub(40)));
        packet
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..120), edited]
}

fn any_setup() -> impl Strategy<Value = Setup> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), 0..8usize).prop_map(
        |(tunnel, v6, esn, encap, suite)| Setup {
            suite: suites()[suite],
            outer_v6: v6,
            inner_v6: v6,
            esn,
            encap,
            ..Setup::new(if tunnel { Mode::Tunnel } else { Mode::Transport })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_outbound_bytes_panic(packet in almost_packet(), setup in any_setup()) {
        let one = setup.host(1);
        one.set_path_mtu(NOW, setup.outer(2), 60);
        for emit in send(&one, NOW, &packet) {
            prop_assert!(emit.to_ip().is_some());
        }
        one.clear_in(NOW, &packet);
    }

    #[test]
    fn no_inbound_bytes_panic(esp in prop::collection::vec(any::<u8>(), 0..120), setup in any_setup(), known in any::<bool>()) {
        let two = setup.host(2);
        let mut esp = esp;
        if known && esp.len() >= 4 {
            esp[..4].copy_from_slice(&0x1002u32.to_be_bytes());
        }
        let outer = OuterInfo { src: SocketAddr::new(setup.outer(1), 4500), dst: setup.outer(2), tos: 3, ttl: 1, udp: setup.encap };
        prop_assert_eq!(receive_as(&two, NOW, outer, &esp), vec![]);
    }

    #[test]
    fn nothing_that_verifies_panics(content in almost_packet(), next in any::<u8>(), setup in any_setup()) {
        let setup = Setup { encap: false, ..setup };
        let two = setup.host(2);
        let next = if content.len() % 3 == 0 { proto::IPV4 } else { next };
        for emit in receive(&two, NOW, &forge(&setup, 1, next, &content)) {
            let Emit::Deliver(packet) = emit else { panic!("{emit:?}") };
            let headers = packet::parse(&packet).unwrap();
            // Whatever the peer put inside, it comes from the peer and is for this host.
            prop_assert_eq!((headers.src, headers.dst), (setup.inner(1), setup.inner(2)));
        }
    }

    #[test]
    fn fragments_in_any_order_do_not_panic(
        pieces in prop::collection::vec((0..8u8, any::<bool>(), 0..40usize, any::<bool>()), 1..20),
    ) {
        let v4 = Setup::new(Mode::Transport);
        let one = v4.host(1);
        for (offset, more, len, v6) in pieces {
            let mut packet = v4.udp(1, 2, &vec![1; len]);
            packet[6] = u8::from(more) << 5;
            packet[7] = offset;
            if v6 {
                packet[0] = 0x65;
            }
            for emit in send(&one, NOW, &packet) {
                prop_assert!(emit.to_ip().is_some());
            }
        }
    }
}
