//! Two pipelines, one behind the other, in every combination of mode, cipher, family, ESN and encapsulation.
#![allow(missing_docs)]

mod common;

use common::*;
use ipsec::coalesce::{Coalescer, Group};
use ipsec::dataplane::DataplaneEvent;
use ipsec::esp::{self, Family, Shape};
use ipsec::packet::{self, HeaderFields, proto};
use ipsec::pipeline::{Emit, OuterInfo};
use ipsec::sa::{Direction, Mode, SaKey};
use ipsec::{Spi, checksum};
use proptest::prelude::*;

fn setups() -> Vec<Setup> {
    let mut all = Vec::new();
    for suite in suites() {
        for flags in 0..32u8 {
            let bit = |at: u8| flags & 1 << at != 0;
            let mode = if bit(0) { Mode::Tunnel } else { Mode::Transport };
            if mode == Mode::Transport && bit(1) != bit(2) {
                continue;
            }
            all.push(Setup {
                suite,
                outer_v6: bit(1),
                inner_v6: bit(2),
                esn: bit(3),
                encap: bit(4),
                ..Setup::new(mode)
            });
        }
    }
    all
}

/// Two segments of one TCP stream.
fn segments(setup: &Setup) -> [Vec<u8>; 2] {
    let (src, dst) = (setup.inner(1), setup.inner(2));
    let fields =
        HeaderFields { src, dst, protocol: proto::TCP, tos: 0, ttl: 64, dont_fragment: true };
    [0u32, 1000].map(|seq| {
        let mut packet = fields.build(20 + 1000).unwrap().to_vec();
        packet.extend([0x13, 0x88, 0, 80]);
        packet.extend(seq.to_be_bytes());
        packet.extend([0, 0, 0, 7, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        packet.resize(packet.len() + 1000, seq as u8);
        let headers = packet::parse(&packet).unwrap();
        checksum::refresh(&mut packet, &headers);
        packet
    })
}

/// What a stack gets of a stream at once decides how fast it is.
#[test]
fn segments_can_be_put_together_again_in_every_combination() {
    for setup in setups() {
        let (one, two) = setup.pair();
        let arrived = segments(&setup).map(|s| receive_one(&two, &send_one(&one, &s)));
        let mut coalescer = Coalescer::new(true, true);
        for packet in &arrived {
            coalescer.push(packet, packet::parse(packet).unwrap(), false);
        }
        let lengths: Vec<_> = coalescer.groups().iter().map(Group::len).collect();
        assert_eq!(lengths, [2], "{setup:?}");
    }
}

#[test]
fn every_combination_carries_packets_both_ways() {
    let setups = setups();
    assert_eq!(setups.len(), 8 * 24);
    for setup in setups {
        let (one, two) = setup.pair();
        for len in [0, 1, 2, 3, 15, 16, 17, 64, 1333] {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            for (from, to, src, dst) in [(1, 2, &one, &two), (2, 1, &two, &one)] {
                let packet = setup.udp(from, to, &payload);
                let sealed = send_one(src, &packet);
                assert_eq!(matches!(sealed, Emit::EspInUdp { .. }), setup.encap);
                assert_eq!(esp_of(&sealed).len() % 4, 0);
                assert!(
                    payload.len() < 15
                        || !esp_of(&sealed).windows(15).any(|w| w == &payload[..15])
                        || setup.suite.encr == wire::registry::Encr::NULL
                );
                assert_eq!(receive_one(dst, &sealed), packet, "{setup:?} {len}");
            }
        }
        assert_eq!(counted(&one), counted(&two));
    }
}

#[test]
fn lengths_are_as_foretold() {
    for setup in setups() {
        let (one, _) = setup.pair();
        let shape = Shape::of_spec(setup.suite).unwrap();
        let family = Family::of(setup.outer(1));
        for len in 0..70 {
            let packet = setup.udp(1, 2, &vec![0; len]);
            let whole = send_one(&one, &packet).to_ip().unwrap().len();
            assert!(whole <= packet.len() + esp::overhead(setup.mode, shape, setup.encap, family));
            // The longest inner packet for this length is at least this one, and one more does not fit.
            let longest = esp::max_inner(whole, setup.mode, shape, setup.encap, family);
            assert!(longest >= packet.len(), "{setup:?} {len}");
            assert!(
                esp::max_inner(whole - 1, setup.mode, shape, setup.encap, family) < packet.len()
            );
        }
    }
}

#[test]
fn outer_headers_follow_the_inner_ones() {
    for inner_v6 in [false, true] {
        let setup = Setup { inner_v6, ..Setup::new(Mode::Tunnel) };
        let (one, two) = setup.pair();
        let mut packet = setup.udp(1, 2, b"payload");
        let mut headers = packet::parse(&packet).unwrap();
        packet::set_tos(&mut packet, &mut headers, 0xb8 | 0b10);
        let Emit::Esp(mut outer) = send_one(&one, &packet) else { panic!() };
        assert_eq!((outer.tos, outer.ttl, outer.protocol), (0xba, 64, proto::ESP));
        assert_eq!((outer.src, outer.dst), (setup.outer(1), setup.outer(2)));
        assert!(outer.dont_fragment);
        // Congestion is marked on the way.
        outer.tos |= 0b11;
        let inner = receive_one(&two, &Emit::Esp(outer));
        assert_eq!(packet::parse(&inner).unwrap().tos, 0xbb);
        if !inner_v6 {
            assert_eq!(checksum::finish(checksum::add(0, &inner[..20])), 0);
        }
    }
}

#[test]
fn congestion_that_nobody_would_see_drops_the_packet() {
    let setup = Setup::new(Mode::Tunnel);
    let (one, two) = setup.pair();
    let Emit::Esp(mut outer) = send_one(&one, &setup.udp(1, 2, b"x")) else { panic!() };
    outer.tos = 0b11;
    assert_eq!(receive(&two, NOW, &Emit::Esp(outer)), vec![]);
    assert_eq!(counter(&two, "in_ecn_dropped"), 1);
}

#[test]
fn transport_mode_keeps_tos_ttl_and_df() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = setup.pair();
    let fields = HeaderFields {
        src: setup.inner(1),
        dst: setup.inner(2),
        protocol: proto::ICMP,
        tos: 0x48,
        ttl: 17,
        dont_fragment: true,
    };
    let mut packet = fields.build(12).unwrap().to_vec();
    packet.extend_from_slice(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    let sealed = send_one(&one, &packet);
    let Emit::Esp(outer) = &sealed else { panic!() };
    assert_eq!((outer.tos, outer.ttl, outer.dont_fragment), (0x48, 17, true));
    let inner = packet::parse(&receive_one(&two, &sealed)).unwrap();
    assert_eq!((inner.tos, inner.ttl, inner.protocol), (0x48, 17, proto::ICMP));
}

#[test]
fn ipv4_options_stay_outside() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = setup.pair();
    let plain = setup.udp(1, 2, b"hello");
    let mut packet = plain[..20].to_vec();
    packet.extend_from_slice(&[1, 1, 1, 0]);
    packet.extend_from_slice(&plain[20..]);
    packet[0] = 0x46;
    packet[3] += 4;
    packet::fill_ipv4_checksum(&mut packet[..24]);
    let sealed = send_one(&one, &packet);
    let Emit::Esp(outer) = &sealed else { panic!() };
    assert_eq!(outer.options, [1, 1, 1, 0]);
    let whole = sealed.to_ip().unwrap();
    let headers = packet::parse(&whole).unwrap();
    assert_eq!((headers.upper, headers.protocol), (24, proto::ESP));
    assert_eq!(checksum::finish(checksum::add(0, &whole[..24])), 0);
    assert_eq!(receive_one(&two, &sealed), plain);
}

#[test]
fn ipv6_extension_headers_stand_where_rfc_4303_wants_them() {
    let setup = Setup { outer_v6: true, inner_v6: true, ..Setup::new(Mode::Transport) };
    let (one, two) = setup.pair();
    let plain = setup.udp(1, 2, b"hello");
    // IPv6 | hop-by-hop | destination options | UDP: ESP goes between the two.
    let mut packet = plain[..40].to_vec();
    packet[6] = proto::HOP_BY_HOP;
    packet[5] += 16;
    packet.extend_from_slice(&[proto::DEST_OPTIONS, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend_from_slice(&[proto::UDP, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend_from_slice(&plain[40..]);
    let sealed = send_one(&one, &packet);
    let Emit::Esp(outer) = &sealed else { panic!() };
    assert_eq!(outer.protocol, proto::HOP_BY_HOP);
    assert_eq!(outer.options, [proto::ESP, 0, 1, 4, 0, 0, 0, 0]);
    let whole = sealed.to_ip().unwrap();
    let headers = packet::parse(&whole).unwrap();
    assert_eq!((headers.upper, headers.protocol), (48, proto::ESP));
    let inner = receive_one(&two, &sealed);
    assert_eq!(inner[6], proto::DEST_OPTIONS);
    assert_eq!(inner[40..], packet[48..]);
}

#[test]
fn a_nat_on_the_way_breaks_no_checksum() {
    for v6 in [false, true] {
        let setup =
            Setup { encap: true, outer_v6: v6, inner_v6: v6, ..Setup::new(Mode::Transport) };
        let one = setup.host(1);
        // Host 2 knows host 1 by the NAT's address: all that it has of host 1 says 9.
        let two = Setup { ..setup }.host(2);
        let known_as_1 = SaKey { dst: setup.outer(2), spi: Spi(0x1002) };
        let mut sa = setup.sa(Direction::In, 9, 2, 0x1002);
        sa.encap.as_mut().unwrap().remote_port = 61_000;
        apply(&two, vec![ipsec::change::Change::RemoveSa(known_as_1), add(sa)]);
        apply(&two, setup.policies(2, 9));
        let sealed = send_one(&one, &setup.udp(1, 2, b"through a NAT"));
        let nat = std::net::SocketAddr::new(setup.outer(9), 61_000);
        let outer = OuterInfo { src: nat, ..OuterInfo::of(&sealed).unwrap() };
        let out = receive_as(&two, NOW, outer, esp_of(&sealed));
        let [Emit::Deliver(inner)] = out.as_slice() else { panic!("{:?}", counted(&two)) };
        assert_eq!(*inner, setup.udp(9, 2, b"through a NAT"));
        assert!(checksum::is_right(inner, &packet::parse(inner).unwrap()));
        let first = DataplaneEvent::FirstUse(known_as_1);
        assert_eq!(events(&two), [first]);
    }
}

#[test]
fn a_udp_checksum_of_zero_stays() {
    let setup = Setup { encap: true, ..Setup::new(Mode::Transport) };
    let (one, two) = setup.pair();
    let mut packet = setup.udp(1, 2, b"none");
    packet[26..28].fill(0);
    assert_eq!(receive_one(&two, &send_one(&one, &packet)), packet);
}

proptest! {
    #[test]
    fn any_payload_comes_through(
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        which in 0..8 * 24usize,
    ) {
        let setup = setups()[which];
        let (one, two) = setup.pair();
        let packet = setup.udp(1, 2, &payload);
        prop_assert_eq!(receive_one(&two, &send_one(&one, &packet)), packet);
    }
}
