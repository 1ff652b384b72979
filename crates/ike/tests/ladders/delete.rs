//! INFORMATIONAL: deletes, crossing deletes, liveness.

use ike::Event;
use ike::error::{EndReason, Failure};

use crate::setup::*;
use crate::world::Fate;

#[test]
fn a_child_is_deleted() {
    for side in [0, 1] {
        let mut world = up(1, |_| {});
        world.traffic = false;
        let child = world.hosts[side].endpoint.children()[0].id;
        world.command(side, |e, now| e.delete_child(now, child)).unwrap();
        world.run_secs(3);
        for host in &world.hosts {
            assert!(
                host.endpoint.children().is_empty()
                    && host.inbound().is_empty()
                    && host.outbound().is_empty()
            );
            assert_eq!(host.endpoint.ike_sas().len(), 1);
        }
    }
}

#[test]
fn crossing_deletes_of_a_child() {
    let mut world = up(2, |_| {});
    world.traffic = false;
    for side in [0, 1] {
        let child = world.hosts[side].endpoint.children()[0].id;
        world.command(side, |e, now| e.delete_child(now, child)).unwrap();
    }
    world.run_secs(3);
    let story = world.story();
    for host in &world.hosts {
        assert!(
            host.endpoint.children().is_empty()
                && host.inbound().is_empty()
                && host.outbound().is_empty(),
            "{story}"
        );
        assert_eq!(host.count(|e| matches!(e, Event::ChildDown { .. })), 1);
    }
    // RFC 7296 1.4.1: neither response has a Delete.
    assert!(story.contains("INFORMATIONAL response 3 [ ]"), "{story}");
}

#[test]
fn an_ike_sa_is_deleted_with_its_children() {
    for side in [0, 1] {
        let mut world = up(3, |_| {});
        world.traffic = false;
        let ike = world.hosts[side].endpoint.ike_sas()[0].id;
        world.command(side, |e, now| e.delete_ike(now, ike)).unwrap();
        assert!(
            world.hosts[side].inbound().is_empty() && world.hosts[side].outbound().is_empty(),
            "at once"
        );
        world.run_secs(60);
        for host in &world.hosts {
            assert!(host.endpoint.ike_sas().is_empty() && host.inbound().is_empty());
            assert_eq!(host.count(|e| matches!(e, Event::IkeDown { .. })), 1);
            assert_eq!(host.endpoint.next_timeout(), None);
        }
    }
}

#[test]
fn crossing_deletes_of_an_ike_sa() {
    let mut world = up(4, |_| {});
    world.traffic = false;
    for side in [0, 1] {
        let ike = world.hosts[side].endpoint.ike_sas()[0].id;
        world.command(side, |e, now| e.delete_ike(now, ike)).unwrap();
    }
    world.run_secs(100);
    for host in &world.hosts {
        assert!(host.endpoint.ike_sas().is_empty());
        assert_eq!(host.count(|e| matches!(e, Event::IkeDown { .. })), 1);
        assert_eq!(host.endpoint.next_timeout(), None, "{}", world.story());
    }
}

#[test]
fn deletion_in_every_state_of_the_handshake() {
    for steps in 0..70 {
        for side in [0, 1] {
            let mut world = toy(5, |p| {
                p.auth =
                    ike::Auth::Certificate(std::sync::Arc::new(crypto::toy::credentials("host")))
            });
            let id = world.initiate(0);
            world.run(std::time::Duration::from_millis(steps));
            // Before its first response a responder is asked again, and that begins anew.
            let target = if side == 0 {
                Some(id)
            } else if steps < 13 {
                None
            } else {
                world.hosts[1].endpoint.half_open().first().map(|h| h.0)
            };
            let Some(target) = target else { continue };
            world.command(side, |e, now| e.delete_ike(now, target)).unwrap();
            world.run_secs(300);
            let story = world.story();
            for host in &world.hosts {
                assert!(host.endpoint.ike_sas().is_empty(), "after {steps} ms\n{story}");
                assert!(
                    host.inbound().is_empty() && host.outbound().is_empty(),
                    "after {steps} ms\n{story}"
                );
                assert_eq!(host.endpoint.next_timeout(), None, "after {steps} ms\n{story}");
                let downs = host.count(|e| matches!(e, Event::IkeDown { .. }));
                assert!(downs <= 1, "{downs} after {steps} ms\n{story}");
            }
            assert_eq!(
                world.hosts[side].count(|e| matches!(e, Event::IkeDown { .. })),
                1,
                "after {steps} ms\n{story}"
            );
        }
    }
}

#[test]
fn a_silent_peer_is_noticed() {
    let mut world = up(6, |_| {});
    world.traffic = false;
    world.run_secs(100);
    let alive = world.hosts[0].count(|e| matches!(e, Event::Alive { .. }));
    assert!(alive >= 3, "probes are answered");
    let from = world.sent;
    world.fates.extend((from..from + 500).map(|n| (n, Fate::Lose)));
    world.run_secs(100);
    for host in &world.hosts {
        assert!(host.endpoint.ike_sas().is_empty() && host.inbound().is_empty());
        let down = host
            .events
            .iter()
            .position(|e| matches!(e, Event::IkeDown { reason: Failure::Timeout { .. }, .. }));
        let child = host.events.iter().position(|e| matches!(e, Event::ChildDown { .. }));
        assert!(child.unwrap() < down.unwrap(), "children first");
    }
}

#[test]
fn traffic_is_a_sign_of_life() {
    let mut world = up(7, |_| {});
    let sent = world.sent;
    for _ in 0..100 {
        world.run_secs(10);
        for n in [0, 1] {
            let child = world.hosts[n].endpoint.children()[0].id;
            world.command(n, |e, now| e.note_inbound_traffic(now, child, 1));
        }
    }
    assert_eq!(world.sent, sent, "no probe while traffic flows");
}

#[test]
fn abandon_sends_nothing() {
    let mut world = up(8, |_| {});
    world.traffic = false;
    let ike = world.hosts[0].endpoint.ike_sas()[0].id;
    let sent = world.sent;
    world.command(0, |e, now| e.abandon(now, ike)).unwrap();
    assert_eq!(world.sent, sent);
    assert!(world.hosts[0].inbound().is_empty());
    assert_eq!(world.hosts[0].endpoint.next_timeout(), None);
    let ended =
        |e: &Event| matches!(e, Event::IkeDown { reason: Failure::Ended(EndReason::Deleted), .. });
    assert_eq!(world.hosts[0].count(ended), 1);
}

#[test]
fn deleting_a_child_that_is_being_rekeyed_deletes_its_successor() {
    for wait in 0..30 {
        let mut world = up(9, |_| {});
        world.traffic = false;
        let child = world.hosts[0].endpoint.children()[0].id;
        world.command(0, |e, now| e.rekey_child(now, child)).unwrap();
        world.run(std::time::Duration::from_millis(wait));
        if world.command(0, |e, now| e.delete_child(now, child)).is_err() {
            continue;
        }
        world.run_secs(10);
        for host in &world.hosts {
            assert!(host.endpoint.children().is_empty(), "after {wait} ms\n{}", world.story());
            assert!(host.inbound().is_empty(), "after {wait} ms\n{}", world.story());
        }
    }
}

#[test]
fn after_a_silence_the_new_sa_says_initial_contact() {
    let mut world = up(10, |_| {});
    world.traffic = false;
    let ike = world.hosts[0].endpoint.ike_sas()[0].id;
    world.command(0, |e, now| e.abandon(now, ike)).unwrap();
    world.initiate(0);
    world.run_secs(10);
    world.assert_settled();
}
