//! Waiting for SAs, rekeying, limits, moves, path MTU, policies.
#![allow(missing_docs)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use crypto::native::Native;
use ipsec::change::{Batch, Change, RefusalReason};
use ipsec::dataplane::{Dataplane, DataplaneEvent};
use ipsec::memory::{Memory, Violation};
use ipsec::packet::{self, HeaderFields, proto};
use ipsec::pipeline::{Emit, MAX_PEER_PACKETS, MAX_QUEUE_AGE, OuterInfo, Pipeline, Verdict};
use ipsec::sa::{Direction, Encap, Limits, Mode, Outer, SaKey};
use ipsec::spd::{Action, Flow, Policy, PolicySelector};
use ipsec::{Instant, Spi, checksum};

/// Host 1 with policies only.
fn without_sas(setup: &Setup) -> Pipeline {
    let pipeline = Pipeline::new(Arc::new(Native));
    apply(&pipeline, setup.policies(1, 2));
    pipeline
}

fn after(seconds: u64) -> Instant {
    NOW + Duration::from_secs(seconds)
}

#[test]
fn an_empty_policy_database_drops_everything() {
    let setup = Setup::new(Mode::Transport);
    let pipeline = Pipeline::new(Arc::new(Native));
    assert_eq!(send(&pipeline, NOW, &setup.udp(1, 2, b"x")), vec![]);
    assert_eq!(pipeline.clear_in(NOW, &setup.udp(2, 1, b"x")), Verdict::Drop);
    assert_eq!(counted(&pipeline), [("in_discarded", 1), ("out_discarded", 1)]);
}

#[test]
fn sas_that_rested_carry_packets_and_take_none_twice() {
    for suite in suites() {
        let (one, two) = Setup { suite, ..Setup::new(Mode::Transport) }.pair();
        let packet = Setup::new(Mode::Transport).udp(1, 2, b"x");
        let before = send_one(&one, &packet);
        assert_eq!(receive_one(&two, &before), packet);
        for second in 1..200 {
            assert_eq!((tick(&one, after(second)), tick(&two, after(second))), (vec![], vec![]));
        }
        assert_eq!(receive(&two, after(200), &before), vec![], "a replay");
        let next = send_one(&one, &packet);
        assert_eq!(receive_one(&two, &next), packet, "{suite}");
        assert_eq!(receive(&two, after(200), &next), vec![], "a replay");
        assert_eq!(counter(&two, "in_replay"), 2);
    }
}

#[test]
fn packets_wait_for_their_sa_in_order() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = (without_sas(&setup), setup.host(2));
    let packets: Vec<_> = (0..5u8).map(|number| setup.udp(1, 2, &[number])).collect();
    for packet in &packets {
        assert_eq!(send(&one, NOW, packet), vec![]);
    }
    let told = events(&one);
    let [DataplaneEvent::Acquire { reqid: REQID, packet }] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!((packet.dst, packet.dst_port), (setup.outer(2), Some(2222)));
    assert_eq!(tick(&one, NOW), vec![], "still no SA");
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x1002))]);
    let released = tick(&one, NOW);
    let got: Vec<_> = released.iter().map(|emit| receive_one(&two, emit)).collect();
    assert_eq!(got, packets);
    assert_eq!(tick(&one, NOW), vec![]);
}

#[test]
fn a_packet_does_not_overtake_those_that_wait() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = (without_sas(&setup), setup.host(2));
    send(&one, NOW, &setup.udp(1, 2, b"first"));
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x1002))]);
    let out = send(&one, NOW, &setup.udp(1, 2, b"second"));
    let got: Vec<_> = out.iter().map(|emit| receive_one(&two, emit)).collect();
    assert_eq!(got, [setup.udp(1, 2, b"first"), setup.udp(1, 2, b"second")]);
}

#[test]
fn changes_release_what_waits_for_them_and_nothing_else() {
    for mode in [Mode::Transport, Mode::Tunnel] {
        let setup = Setup::new(mode);
        let one = without_sas(&setup);
        apply(&one, setup.policies(1, 3));
        send(&one, NOW, &setup.udp(1, 2, b"for two"));
        send(&one, NOW, &setup.udp(1, 3, b"for three"));
        let released = |changes: Vec<Change>| {
            let (batch, mut emit) = (Batch(changes), Vec::new());
            assert_eq!(one.apply(NOW, &batch), vec![]);
            one.release_for(NOW, &batch, &mut emit);
            emit
        };
        assert_eq!(released(vec![add(setup.sa(Direction::In, 1, 2, 0x2001))]), vec![]);
        assert_eq!(released(vec![Change::DropQueued(setup.outer(4))]), vec![]);
        let to_two = released(vec![add(setup.sa(Direction::Out, 1, 2, 0x1002))]);
        assert!(matches!(to_two[..], [Emit::Esp(ref p)] if p.dst == setup.outer(2)), "{to_two:?}");
        let bypass = setup.policies(1, 3).into_iter().map(|change| match change {
            Change::PutPolicy(policy) => {
                Change::PutPolicy(Policy { action: Action::Bypass, ..policy })
            }
            other => other,
        });
        let to_three = released(bypass.collect());
        assert_eq!(to_three, [Emit::Clear(setup.udp(1, 3, b"for three"))]);
    }
}

#[test]
fn a_packet_that_waits_for_one_peer_does_not_slow_another() {
    let setup = Setup::new(Mode::Transport);
    let one = without_sas(&setup);
    apply(&one, setup.policies(1, 3));
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 3, 0x1003))]);
    send(&one, NOW, &setup.udp(1, 2, b"waits"));
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x1002))]);
    let has_lane = |to: u8| {
        let packet = setup.udp(1, to, b"x");
        let headers = packet::parse(&packet).unwrap();
        one.lane(NOW, &packet, &headers, packet.len()).is_some()
    };
    assert_eq!((has_lane(2), has_lane(3)), (false, true));
    assert_eq!(tick(&one, NOW).len(), 1);
    assert!(has_lane(2), "nothing waits any more");
}

#[test]
fn what_waits_is_bounded_in_number_and_time() {
    let setup = Setup::new(Mode::Transport);
    let one = without_sas(&setup);
    for _ in 0..MAX_PEER_PACKETS + 10 {
        send(&one, NOW, &setup.udp(1, 2, b"x"));
    }
    assert_eq!(counter(&one, "out_no_sa_queued"), MAX_PEER_PACKETS as u64);
    assert_eq!(counter(&one, "out_queue_full"), 10);
    tick(&one, NOW + MAX_QUEUE_AGE);
    assert_eq!(counter(&one, "out_queue_expired"), MAX_PEER_PACKETS as u64);
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x1002))]);
    assert_eq!(tick(&one, NOW + MAX_QUEUE_AGE), vec![]);
}

#[test]
fn a_refused_peer_empties_the_queue_and_may_be_tried_again() {
    let setup = Setup::new(Mode::Transport);
    let one = without_sas(&setup);
    send(&one, NOW, &setup.udp(1, 2, b"x"));
    apply(&one, vec![Change::DropQueued(setup.outer(2))]);
    assert_eq!(counter(&one, "out_queue_dropped"), 1);
    send(&one, NOW, &setup.udp(1, 2, b"x"));
    assert_eq!(events(&one).len(), 2);
}

#[test]
fn optional_is_clear_until_there_is_an_sa() {
    let setup = Setup { optional: true, ..Setup::new(Mode::Transport) };
    let one = without_sas(&setup);
    let packet = setup.udp(1, 2, b"x");
    assert_eq!(send_one(&one, &packet), Emit::Clear(packet.clone()));
    assert!(matches!(events(&one)[..], [DataplaneEvent::Acquire { .. }]));
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x1002))]);
    assert!(matches!(send_one(&one, &packet), Emit::Esp(_)));
}

#[test]
fn multicast_and_broadcast_are_never_protected() {
    let setup = Setup::new(Mode::Transport);
    let one = without_sas(&setup);
    let selector = PolicySelector {
        local: "0.0.0.0/0".parse().unwrap(),
        remote: "0.0.0.0/0".parse().unwrap(),
        protocol: None,
        local_ports: None,
        remote_ports: None,
    };
    let action = Action::Protect { mode: Mode::Transport, reqid: REQID, optional: false };
    apply(
        &one,
        vec![Change::PutPolicy(Policy { priority: 200, flow: Flow::Out, selector, action })],
    );
    for dst in ["224.0.0.251", "255.255.255.255", "127.0.0.1", "0.0.0.0"] {
        let src = SocketAddr::new(setup.outer(1), 1);
        let packet = packet::udp(src, SocketAddr::new(dst.parse().unwrap(), 2), b"").unwrap();
        assert_eq!(send(&one, NOW, &packet), vec![]);
    }
    assert_eq!(events(&one), vec![]);
    assert_eq!(counter(&one, "out_not_unicast"), 4);
}

#[test]
fn a_rekey_loses_nothing() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = setup.pair();
    let old = send_one(&one, &setup.udp(1, 2, b"old"));
    apply(&two, vec![add(setup.sa(Direction::In, 1, 2, 0x2002))]);
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x2002))]);
    let new = send_one(&one, &setup.udp(1, 2, b"new"));
    assert_eq!(esp_of(&new)[..4], [0, 0, 0x20, 2], "the newest SA carries");
    assert_eq!(receive_one(&two, &new), setup.udp(1, 2, b"new"));
    assert_eq!(
        receive_one(&two, &old),
        setup.udp(1, 2, b"old"),
        "what is on its way still arrives"
    );
    let removed = SaKey { dst: setup.outer(2), spi: Spi(0x1002) };
    apply(&one, vec![Change::RemoveSa(removed), Change::RemoveSa(removed)]);
    assert!(matches!(send_one(&one, &setup.udp(1, 2, b"x")), Emit::Esp(_)));
    let keys: Vec<_> = one.snapshot(NOW).sas.iter().map(|usage| usage.key.spi).collect();
    assert_eq!(keys, [Spi(0x1001), Spi(0x2002)]);
}

#[test]
fn installing_the_same_sa_again_does_not_repeat_sequence_numbers() {
    let setup = Setup::new(Mode::Transport);
    let (one, two) = setup.pair();
    receive_one(&two, &send_one(&one, &setup.udp(1, 2, b"x")));
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x1002))]);
    apply(&two, vec![add(setup.sa(Direction::In, 1, 2, 0x1002))]);
    let second = send_one(&one, &setup.udp(1, 2, b"x"));
    assert_eq!(esp_of(&second)[4..8], [0, 0, 0, 2]);
    receive_one(&two, &second);
    assert_eq!(receive(&two, NOW, &second), vec![]);
}

#[test]
fn limits_are_told_once_and_kept() {
    let limits = Limits { soft_packets: Some(3), hard_packets: Some(5), ..Limits::default() };
    let setup = Setup { limits, ..Setup::new(Mode::Transport) };
    let (one, two) = setup.pair();
    let key = SaKey { dst: setup.outer(2), spi: Spi(0x1002) };
    for number in 1..=10 {
        let out = send(&one, NOW, &setup.udp(1, 2, b"x"));
        assert_eq!(out.len(), usize::from(number <= 5), "{number}");
        for emit in &out {
            receive_one(&two, emit);
        }
    }
    let told: Vec<_> =
        events(&one).into_iter().filter(|e| !matches!(e, DataplaneEvent::Acquire { .. })).collect();
    assert_eq!(told, [DataplaneEvent::SoftLimit(key), DataplaneEvent::HardLimit(key)]);
    let inbound = SaKey { dst: setup.outer(2), spi: Spi(0x1002) };
    assert_eq!(
        events(&two),
        [DataplaneEvent::FirstUse(inbound), DataplaneEvent::SoftLimit(inbound)]
    );
    tick(&one, NOW);
    assert_eq!(one.snapshot(NOW).sas.len(), 1, "the dead SA is gone");
}

#[test]
fn bytes_and_time_are_limits_too() {
    let limits = Limits { hard_bytes: Some(100), ..Limits::default() };
    let setup = Setup { limits, ..Setup::new(Mode::Transport) };
    let one = setup.host(1);
    // 48 bytes each with the UDP header: what ESP protects is counted, as at the receiver.
    assert_eq!(send(&one, NOW, &setup.udp(1, 2, &[0; 40])).len(), 1);
    assert_eq!(send(&one, NOW, &setup.udp(1, 2, &[0; 40])).len(), 1);
    assert_eq!(one.snapshot(NOW).sas.iter().map(|sa| sa.bytes).max(), Some(96));
    assert_eq!(send(&one, NOW, &setup.udp(1, 2, &[0; 40])).len(), 0);
    let limits = Limits { hard_time: Some(Duration::from_secs(60)), ..Limits::default() };
    let setup = Setup { limits, ..Setup::new(Mode::Transport) };
    let (one, two) = setup.pair();
    let sealed = send_one(&one, &setup.udp(1, 2, b"x"));
    assert_eq!(receive(&two, after(60), &sealed), vec![]);
    assert_eq!(counter(&two, "in_expired"), 1);
    assert_eq!(send(&one, after(60), &setup.udp(1, 2, b"x")), vec![]);
    tick(&one, after(60));
    let hard = |event: &DataplaneEvent| matches!(event, DataplaneEvent::HardLimit(_));
    assert_eq!(events(&one).iter().filter(|event| hard(event)).count(), 2);
    assert_eq!(one.snapshot(after(60)).sas, vec![]);
}

#[test]
fn a_peer_that_moves_is_told_by_its_newest_packet_only() {
    let setup = Setup { encap: true, ..Setup::new(Mode::Transport) };
    let (one, two) = setup.pair();
    let sealed: Vec<_> = (0..3).map(|_| send_one(&one, &setup.udp(1, 2, b"x"))).collect();
    let key = SaKey { dst: setup.outer(2), spi: Spi(0x1002) };
    let remote = SocketAddr::new(setup.outer(9), 61_000);
    let outer = OuterInfo { src: remote, ..OuterInfo::of(&sealed[0]).unwrap() };
    receive(&two, NOW, &sealed[1]);
    assert_eq!(events(&two), [DataplaneEvent::FirstUse(key)]);
    assert_eq!(receive_as(&two, NOW, outer, esp_of(&sealed[0])).len(), 1);
    assert_eq!(events(&two), [], "an old packet, perhaps held back by someone");
    assert_eq!(receive_as(&two, NOW, outer, esp_of(&sealed[2])).len(), 1);
    assert_eq!(events(&two), [DataplaneEvent::Moved { key, remote }]);
    let out = SaKey { dst: setup.outer(1), spi: Spi(0x1001) };
    let back = SocketAddr::new(setup.outer(1), 61_000);
    let encap = Some(Encap { local_port: 4500, remote_port: 61_000 });
    let outer = Outer { local: setup.outer(2), remote: setup.outer(1), encap };
    apply(&two, vec![Change::MoveSa { key: out, outer }]);
    let sent = send_one(&two, &setup.udp(2, 1, b"x"));
    assert!(matches!(sent, Emit::EspInUdp { remote, .. } if remote == back));
    assert_eq!(esp_of(&sent)[4..8], [0, 0, 0, 1], "the sequence goes on");
}

#[test]
fn a_sender_of_packets_too_long_is_told_how_long_they_may_be() {
    for (mode, v6) in [
        (Mode::Transport, false),
        (Mode::Transport, true),
        (Mode::Tunnel, false),
        (Mode::Tunnel, true),
    ] {
        let setup = Setup { outer_v6: v6, inner_v6: v6, ..Setup::new(mode) };
        let one = setup.host(1);
        one.set_path_mtu(NOW, setup.outer(2), 1400);
        let mut packet = setup.udp(1, 2, &[0; 1400]);
        if !v6 {
            packet[6] = 0x40;
        }
        let Emit::Deliver(error) = send_one(&one, &packet) else { panic!() };
        let headers = packet::parse(&error).unwrap();
        assert_eq!((headers.src, headers.dst), (setup.inner(2), setup.inner(1)));
        let message = &error[headers.upper..];
        let mtu = if v6 {
            assert_eq!((headers.protocol, message[0]), (proto::ICMPV6, 2));
            assert!(checksum::is_right(&error, &headers));
            u32::from_be_bytes(message[4..8].try_into().unwrap())
        } else {
            assert_eq!((headers.protocol, &message[..2]), (proto::ICMP, &[3, 4][..]));
            assert_eq!(checksum::finish(checksum::add(0, message)), 0);
            u32::from(u16::from_be_bytes([message[6], message[7]]))
        };
        assert_eq!(message[8..28], packet[..20]);
        // A packet of just this length fits, and one more byte does not.
        let overhead = packet.len() - 1400;
        let fits = setup.udp(1, 2, &vec![0; mtu as usize - overhead]);
        let sealed = send_one(&one, &fits);
        assert!(sealed.to_ip().unwrap().len() <= 1400, "{setup:?}");
        let mut longer = setup.udp(1, 2, &vec![0; mtu as usize + 1 - overhead]);
        if !v6 {
            longer[6] = 0x40;
        }
        assert!(matches!(send_one(&one, &longer), Emit::Deliver(_)), "{setup:?}");
        assert_eq!(counter(&one, "out_too_big"), 2);
    }
}

#[test]
fn without_df_the_outer_packet_may_be_fragmented() {
    let setup = Setup::new(Mode::Transport);
    let one = setup.host(1);
    one.set_path_mtu(NOW, setup.outer(2), 1400);
    let mut packet = setup.udp(1, 2, &[0; 1400]);
    packet[6] = 0;
    let Emit::Esp(outer) = send_one(&one, &packet) else { panic!() };
    assert!(!outer.dont_fragment && outer.esp.len() > 1400);
    // IPv6 need not go below 1280.
    let setup = Setup { outer_v6: true, inner_v6: true, ..setup };
    let one = setup.host(1);
    one.set_path_mtu(NOW, setup.outer(2), 1280);
    let Emit::Esp(outer) = send_one(&one, &setup.udp(1, 2, &[0; 1232])) else { panic!() };
    assert!(!outer.dont_fragment);
    assert!(matches!(send_one(&one, &setup.udp(1, 2, &[0; 1233])), Emit::Deliver(_)));
}

#[test]
fn errors_are_not_answered_with_errors() {
    let setup = Setup::new(Mode::Transport);
    let one = setup.host(1);
    one.set_path_mtu(NOW, setup.outer(2), 600);
    let fields = HeaderFields {
        src: setup.inner(1),
        dst: setup.inner(2),
        protocol: proto::ICMP,
        tos: 0,
        ttl: 64,
        dont_fragment: true,
    };
    let mut packet = fields.build(700).unwrap().to_vec();
    packet.push(3);
    packet.resize(720, 0);
    assert_eq!(send(&one, NOW, &packet), vec![]);
    packet[20] = 8;
    assert!(matches!(send_one(&one, &packet), Emit::Deliver(_)));
}

#[test]
fn a_path_mtu_is_forgotten_and_never_absurd() {
    let setup = Setup::new(Mode::Transport);
    let one = setup.host(1);
    one.set_path_mtu(NOW, setup.outer(2), 1);
    let mut packet = setup.udp(1, 2, &[0; 400]);
    packet[6] = 0x40;
    assert!(matches!(send_one(&one, &packet), Emit::Esp(_)), "552 bytes always pass");
    let mut packet = setup.udp(1, 2, &[0; 1000]);
    packet[6] = 0x40;
    assert!(matches!(send_one(&one, &packet), Emit::Deliver(_)));
    assert!(matches!(send(&one, after(600), &packet)[..], [Emit::Esp(_)]));
    one.set_default_mtu(1000);
    assert!(matches!(send(&one, after(600), &packet)[..], [Emit::Deliver(_)]));
    one.set_path_mtu(after(600), setup.outer(2), 9000);
    assert!(matches!(send(&one, after(600), &packet)[..], [Emit::Esp(_)]));
}

#[test]
fn a_datagram_in_fragments_is_protected_whole() {
    for v6 in [false, true] {
        let setup = Setup { outer_v6: v6, inner_v6: v6, ..Setup::new(Mode::Transport) };
        let (one, two) = setup.pair();
        one.set_path_mtu(NOW, setup.outer(2), 1400);
        let whole = setup.udp(1, 2, &[0x55; 3000]);
        let mut out = Vec::new();
        for fragment in common::fragments(&whole, 1200) {
            out.extend(send(&one, NOW, &fragment));
        }
        let [sealed] = out.as_slice() else { panic!("{out:?}") };
        assert!(matches!(sealed, Emit::Esp(outer) if !outer.dont_fragment));
        assert_eq!(receive_one(&two, sealed), whole);
    }
}

#[test]
fn a_bypassed_datagram_keeps_its_fragments() {
    let setup = Setup::new(Mode::Transport);
    let one = setup.host(1);
    let exception = |priority, local_ports| {
        let selector = PolicySelector {
            local: setup.inner(1).into(),
            remote: setup.inner(2).into(),
            protocol: Some(proto::UDP),
            local_ports,
            remote_ports: None,
        };
        Change::PutPolicy(Policy { priority, flow: Flow::Out, selector, action: Action::Bypass })
    };
    apply(&one, vec![exception(10, Some((1111, 1111)))]);
    let fragments = common::fragments(&setup.udp(1, 2, &[0x55; 3000]), 1200);
    let mut out = Vec::new();
    for fragment in &fragments {
        out.extend(send(&one, NOW, fragment));
    }
    let expected: Vec<_> = fragments.into_iter().map(Emit::Clear).collect();
    assert_eq!(out, expected);
}

#[test]
fn the_memory_data_plane_notices_what_is_wrong() {
    let setup = Setup::new(Mode::Transport);
    let mut memory = Memory::new(Arc::new(Native));
    let sa = setup.sa(Direction::Out, 1, 2, 0x1002);
    assert_eq!(memory.apply(NOW, &Batch(vec![add(sa.clone()), add(sa.clone())])), vec![]);
    assert_eq!(memory.violations(), []);
    let mut other = setup.sa(Direction::Out, 1, 2, 0x1003);
    other.spi = sa.spi;
    let mut twin = sa.clone();
    twin.spi = Spi(0x3333);
    let mut bare = setup.sa(Direction::In, 2, 1, 0x1001);
    bare.encr_key = crypto::Secret::default();
    let reserved = ipsec::sa::Sa { spi: Spi(255), ..setup.sa(Direction::In, 2, 1, 0x1001) };
    let changes = vec![
        add(other.clone()),
        add(ipsec::sa::Sa { encr_key: other.encr_key, ..twin }),
        add(bare),
        add(reserved),
    ];
    let refused = memory.apply(NOW, &Batch(changes));
    assert_eq!(refused.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [2, 3]);
    assert!(matches!(refused[0].reason, RefusalReason::Other(_)));
    let found = memory.violations();
    assert!(matches!(
        found,
        [
            Violation::DuplicateSpi(..),
            Violation::SharedKey(..),
            Violation::NoKeys(..),
            Violation::Refused(..),
            Violation::Refused(..)
        ]
    ));
    memory.apply(NOW, &Batch(vec![Change::RemoveSa(SaKey { dst: setup.outer(8), spi: Spi(1) })]));
    assert_eq!(memory.unknown_removals(), 1);
}

#[test]
fn an_algorithm_that_is_not_there_is_refused_by_name() {
    let one = Pipeline::new(Arc::new(Native));
    let mut sa = Setup::new(Mode::Transport).sa(Direction::Out, 1, 2, 0x1002);
    sa.cipher.encr = wire::registry::Encr::DES;
    let refused = one.apply(NOW, &Batch(vec![add(sa)]));
    assert!(
        matches!(&refused[..], [r] if matches!(&r.reason, RefusalReason::NoAlgorithm(name) if name.contains("DES")))
    );
}

#[test]
fn threads_share_a_pipeline() {
    let setup = Setup { window: 4096, ..Setup::new(Mode::Transport) };
    let (one, two) = setup.pair();
    let packet = setup.udp(1, 2, b"x");
    let work = || -> Vec<u32> {
        (0..500)
            .map(|_| {
                let sealed = send_one(&one, &packet);
                assert_eq!(receive_one(&two, &sealed), packet);
                assert_eq!(receive(&two, NOW, &sealed), vec![]);
                u32::from_be_bytes(esp_of(&sealed)[4..8].try_into().unwrap())
            })
            .collect()
    };
    let mut seen: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    seen.sort_unstable();
    assert_eq!(seen, (1..=2000).collect::<Vec<_>>());
    assert_eq!(counter(&two, "in_replay"), 2000);
    let first = |event: &DataplaneEvent| matches!(event, DataplaneEvent::FirstUse(_));
    assert_eq!(events(&two).iter().filter(|event| first(event)).count(), 1);
}

#[test]
fn the_toy_provider_serves_as_well() {
    let setup = Setup::new(Mode::Tunnel);
    let mut memory = Memory::new(Arc::new(crypto::toy::Toy));
    let mut changes = setup.policies(1, 2);
    changes.push(add(setup.sa(Direction::Out, 1, 2, 0x1002)));
    assert_eq!(memory.apply(NOW, &Batch(changes)), vec![]);
    let sent = memory.send(NOW, setup.udp(1, 2, b"x"));
    assert!(matches!(sent[..], [Emit::Esp(_)]));
    assert_eq!(memory.snapshot(NOW).sas[0].packets, 1);
}

#[test]
fn peers_that_share_a_reqid_are_told_apart() {
    for mode in [Mode::Transport, Mode::Tunnel] {
        let setup = Setup::new(mode);
        let one = Pipeline::new(Arc::new(Native));
        for peer in 2..6 {
            apply(&one, setup.policies(1, peer));
            apply(&one, vec![add(setup.sa(Direction::Out, 1, peer, 0x1000 + u32::from(peer)))]);
        }
        for peer in 2..6u8 {
            let Emit::Esp(outer) = send_one(&one, &setup.udp(1, peer, b"x")) else { panic!() };
            assert_eq!((outer.dst, outer.esp[3]), (setup.outer(peer), peer));
        }
    }
}
