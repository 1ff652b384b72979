//! A running pipeline out of one process and into the next: exactly, or not at all.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use crypto::native::Native;
use ipsec::change::{Batch, Change, RefusalReason};
use ipsec::dataplane::DataplaneEvent;
use ipsec::handover::{DecodeError, Running, VERSION};
use ipsec::pipeline::{Emit, Pipeline};
use ipsec::sa::{Direction, Limits, Mode};
use ipsec::{Instant, packet};
use proptest::prelude::*;

/// The next process's pipeline, through bytes.
fn next(pipeline: &Pipeline) -> (Pipeline, Vec<Emit>) {
    let bytes = pipeline.export(NOW).encode();
    let running = Running::decode(bytes.expose()).unwrap();
    assert_eq!(running, pipeline.export(NOW));
    let mut emit = Vec::new();
    let next = Pipeline::resume(Arc::new(Native), NOW, running, &mut emit).unwrap();
    (next, emit)
}

/// The low half of an ESP packet's sequence number.
fn seq(emit: &Emit) -> u32 {
    u32::from_be_bytes(esp_of(emit)[4..8].try_into().unwrap())
}

#[test]
fn every_suite_goes_on_where_it_was() {
    for mode in [Mode::Transport, Mode::Tunnel] {
        for suite in suites() {
            for (esn, encap, v6) in [(false, false, false), (true, true, true)] {
                let setup = Setup {
                    suite,
                    esn,
                    encap,
                    outer_v6: v6,
                    inner_v6: v6,
                    window: 1024,
                    ..Setup::new(mode)
                };
                goes_on(&setup);
            }
        }
    }
}

fn goes_on(setup: &Setup) {
    let (one, two) = setup.pair();
    let before: Vec<Emit> = (0..100).map(|_| send_one(&one, &setup.udp(1, 2, b"before"))).collect();
    // The 50th comes late, after the change.
    for (at, emit) in before.iter().enumerate().filter(|(at, _)| *at != 49) {
        assert_eq!(receive_one(&two, emit), setup.udp(1, 2, b"before"), "{at}");
    }
    let (counts, policies) = (two.snapshot(NOW).sas, two.snapshot(NOW).policies);
    let ((one, none), (two, also_none)) = (next(&one), next(&two));
    assert_eq!((none, also_none), (vec![], vec![]));
    assert_eq!((two.snapshot(NOW).sas, two.snapshot(NOW).policies), (counts, policies));
    for (at, emit) in before.iter().enumerate() {
        let delivered = receive(&two, NOW, emit).len();
        assert_eq!(delivered, usize::from(at == 49), "{setup:?}: packet {at} after the change");
    }
    let after = send_one(&one, &setup.udp(1, 2, b"after"));
    assert_eq!(seq(&after), 101, "no number, and so no nonce, is used twice, and none is left out");
    assert_eq!(receive_one(&two, &after), setup.udp(1, 2, b"after"));
    let back = send_one(&two, &setup.udp(2, 1, b"back"));
    assert_eq!((seq(&back), receive_one(&one, &back)), (1, setup.udp(2, 1, b"back")));
}

#[test]
fn the_newer_of_two_sas_is_still_the_newer_one() {
    let setup = Setup::new(Mode::Transport);
    let one = setup.host(1);
    // A smaller SPI than the older one's.
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x999))]);
    let (one, _) = next(&one);
    let sent = send_one(&one, &setup.udp(1, 2, b"x"));
    assert_eq!(esp_of(&sent)[..4], 0x999u32.to_be_bytes());
}

#[test]
fn lifetimes_and_limits_go_on_counting() {
    let limits = Limits {
        soft_packets: Some(3),
        hard_packets: Some(5),
        hard_time: Some(Duration::from_secs(60)),
        ..Limits::default()
    };
    let setup = Setup { limits, ..Setup::new(Mode::Transport) };
    let one = setup.host(1);
    for _ in 0..4 {
        send_one(&one, &setup.udp(1, 2, b"x"));
    }
    let (one, _) = next(&one);
    send_one(&one, &setup.udp(1, 2, b"the last one"));
    // The soft limit is told again: whoever ought to have heard of it may be gone.
    let told = events(&one);
    assert!(told.iter().any(|e| matches!(e, DataplaneEvent::SoftLimit(_))), "{told:?}");
    assert_eq!(send(&one, NOW, &setup.udp(1, 2, b"x")), vec![]);
    assert_eq!(one.export(NOW).sas.len(), 1, "one that has ended is not handed on");
    assert_eq!(one.export(NOW + Duration::from_secs(60)).sas, vec![]);
}

#[test]
fn what_waits_is_handed_on_and_asks_again() {
    let setup = Setup::new(Mode::Transport);
    let one = Pipeline::new(Arc::new(Native));
    apply(&one, setup.policies(1, 2));
    let whole = setup.udp(1, 2, &[7; 3000]);
    let pieces = fragments(&whole, 1400);
    assert_eq!(send(&one, NOW, &setup.udp(1, 2, b"first")), vec![]);
    assert_eq!(send(&one, NOW, &pieces[0]), vec![]);
    let (one, emit) = next(&one);
    assert_eq!(emit, vec![]);
    assert!(matches!(events(&one)[..], [DataplaneEvent::Acquire { .. }]));
    apply(&one, vec![add(setup.sa(Direction::Out, 1, 2, 0x1002))]);
    let two = setup.host(2);
    let mut out = tick(&one, NOW);
    for piece in &pieces[1..] {
        out.extend(send(&one, NOW, piece));
    }
    let got: Vec<_> = out.iter().map(|emit| receive_one(&two, emit)).collect();
    let headers = packet::parse(&got[1]).unwrap();
    assert_eq!((got.len(), &got[0]), (2, &setup.udp(1, 2, b"first")));
    assert_eq!(got[1][headers.esp_at..], whole[20..]);
}

#[test]
fn what_cannot_be_is_refused_and_nothing_of_it_is_used() {
    let setup = Setup::new(Mode::Transport);
    let good = setup.host(1).export(NOW);
    let refused = |running: Running| {
        Pipeline::resume(Arc::new(Native), NOW, running, &mut Vec::new()).map(drop).unwrap_err()
    };
    let mut future = good.clone();
    future.sas[1].installed = NOW + Duration::from_nanos(1);
    assert!(matches!(refused(future), RefusalReason::Other(_)));
    let mut twice = good.clone();
    twice.sas.push(good.sas[1].clone());
    assert!(matches!(refused(twice), RefusalReason::Conflict(_)));
    let mut unknown = good.clone();
    unknown.sas[0].sa.cipher.key_bits = 77;
    assert!(matches!(refused(unknown), RefusalReason::NoAlgorithm(_)));
    let mut keyless = good.clone();
    keyless.sas[0].sa.encr_key = crypto::Secret::default();
    assert!(matches!(refused(keyless), RefusalReason::Other(_)));
    let mut reserved = good;
    reserved.sas[0].sa.spi = ipsec::Spi(255);
    assert!(matches!(refused(reserved), RefusalReason::Other(_)));
}

#[test]
fn numbers_beyond_the_end_are_refused() {
    let setup = Setup::new(Mode::Transport);
    let mut running = setup.host(1).export(NOW);
    running.sas[0].seq = 1 << 32;
    assert!(Running::decode(running.encode().expose()).is_err());
    let esn = Setup { esn: true, ..setup };
    let mut running = esn.host(1).export(NOW);
    running.sas[0].seq = u64::MAX;
    assert_eq!(Running::decode(running.encode().expose()).as_ref(), Ok(&running));
}

/// Something of everything.
fn sample() -> Running {
    let setup = Setup { encap: true, window: 128, ..Setup::new(Mode::Transport) };
    let one = setup.host(1);
    for _ in 0..3 {
        send_one(&one, &setup.udp(1, 2, b"x"));
    }
    one.set_path_mtu(NOW, setup.outer(2), 1400);
    let gone = Change::RemoveSa(setup.sa(Direction::Out, 1, 2, 0x1002).key());
    let running = one.export(NOW);
    one.apply(NOW, &Batch(vec![gone]));
    send(&one, NOW, &setup.udp(1, 2, b"waits"));
    let waits = one.export(NOW);
    assert_eq!((waits.waiting.len(), waits.paths.len()), (1, 1));
    Running { sas: running.sas, ..waits }
}

#[test]
fn a_torn_state_is_refused_wherever_it_is_torn() {
    let bytes = sample().encode();
    for cut in 0..bytes.len() {
        assert!(Running::decode(&bytes.expose()[..cut]).is_err(), "{cut} of {}", bytes.len());
    }
    assert!(Running::decode(&[bytes.expose(), &[0]].concat()).is_err());
}

#[test]
fn other_versions_are_refused_by_name() {
    let bytes = sample().encode();
    for version in (0..=255).filter(|v| *v != VERSION) {
        let other = [&[version], &bytes.expose()[1..]].concat();
        assert_eq!(Running::decode(&other), Err(DecodeError::Version(version)));
    }
}

proptest! {
    #[test]
    fn anything_else_does_no_harm(place in any::<prop::sample::Index>(), byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = sample().encode().expose().to_vec();
        let at = place.index(bytes.len());
        bytes[at] = byte;
        for bytes in [bytes, [&[VERSION], &noise[..]].concat()] {
            if let Ok(running) = Running::decode(&bytes) {
                let _ = Pipeline::resume(Arc::new(Native), Instant::NEVER, running, &mut Vec::new());
            }
        }
    }
}
