//! CREATE_CHILD_SA: rekeys from either side, additional child SAs, lifetimes.

use std::sync::Arc;
use std::time::Duration;

use ike::Event;
use ike::error::{EndReason, Failure};

use crate::setup::*;
use crate::world::Fate;

fn pfs(peer: &mut ike::PeerConfig) {
    edit_child(peer, |c| c.esp_proposals = esp_suites(&["aes128gcm16-ecp256"]));
}

#[test]
fn a_child_from_either_side_with_and_without_pfs() {
    for (seed, side) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let mut world = if seed > 2 { up(seed, pfs) } else { up(seed, |_| {}) };
        let old = world.hosts[side].endpoint.children()[0].clone();
        world.command(side, |e, now| e.rekey_child(now, old.id)).unwrap();
        world.run_secs(10);
        world.assert_settled();
        world.assert_no_loss();
        let new = &world.hosts[side].endpoint.children()[0];
        assert_eq!(new.replaces, Some(old.id));
        assert_ne!(new.spi_in, old.spi_in);
        assert_eq!(new.suite, if seed > 2 { "aes128gcm16-ecp256" } else { "aes128gcm16" });
        for host in &world.hosts {
            let rekeyed = |e: &Event| {
                matches!(e, Event::ChildDown { reason: Failure::Ended(EndReason::Rekeyed), .. })
            };
            assert_eq!(host.count(rekeyed), 1);
        }
    }
}

#[test]
fn an_ike_sa_from_either_side() {
    for side in [0, 1] {
        let mut world = up(5, |_| {});
        let old = world.hosts[side].endpoint.ike_sas()[0].clone();
        world.command(side, |e, now| e.rekey_ike(now, old.id)).unwrap();
        world.run_secs(2);
        world.assert_settled();
        let new = world.hosts[side].endpoint.ike_sas()[0].clone();
        assert_ne!(new.spi_i, old.spi_i);
        assert!(new.initiator);
        // The new one works: a child's rekey and a probe go through it.
        let child = world.hosts[1 - side].endpoint.children()[0].id;
        world.command(1 - side, |e, now| e.rekey_child(now, child)).unwrap();
        world.run_secs(100);
        world.assert_settled();
        world.assert_no_loss();
        for host in &world.hosts {
            let rekeyed = |e: &Event| {
                matches!(e, Event::IkeDown { reason: Failure::Ended(EndReason::Rekeyed), .. })
            };
            assert_eq!(host.count(rekeyed), 1, "{}", world.story());
        }
    }
}

#[test]
fn timers_rekey_again_and_again() {
    let mut world = up(6, |p| {
        p.ike_rekey_after = Duration::from_secs(100);
        edit_child(p, |c| c.rekey_after = Duration::from_secs(30));
    });
    world.run_secs(1000);
    world.traffic = false;
    world.run_secs(12);
    world.assert_no_loss();
    for host in &world.hosts {
        assert!(host.count(|e| matches!(e, Event::IkeRekeyed { .. })) >= 9);
        assert!(host.count(|e| matches!(e, Event::ChildUp(_))) >= 30);
        assert_eq!(host.count(|e| matches!(e, Event::ChildFailed { .. })), 0);
        assert_eq!((host.endpoint.ike_sas().len(), host.endpoint.children().len()), (1, 1));
    }
}

#[test]
fn another_child() {
    let mut world = up(7, |_| {});
    let ike = world.hosts[0].endpoint.ike_sas()[0].id;
    let config = Arc::new(child(A, B));
    world.command(0, |e, now| e.create_child(now, ike, config)).unwrap();
    world.run_secs(3);
    world.assert_no_loss();
    for host in &world.hosts {
        assert_eq!(host.endpoint.children().len(), 2);
        assert_eq!((host.inbound().len(), host.outbound().len()), (2, 2));
    }
}

/// A replaces a child SA of which B does not know yet: the response that tells of it is late.
#[test]
fn a_child_that_its_initiator_does_not_know_yet() {
    for wait in (1100..4000).step_by(100) {
        let mut world = up(11, |_| {});
        world.fates.insert(world.sent + 1, Fate::Lose);
        world.fates.insert(world.sent + 2, Fate::Lose);
        let (ike, config) = (world.hosts[1].endpoint.ike_sas()[0].id, Arc::new(child(B, A)));
        world.command(1, |e, now| e.create_child(now, ike, config)).unwrap();
        world.run(Duration::from_millis(wait));
        let newest = world.hosts[0].endpoint.children().last().unwrap().id;
        world.command(0, |e, now| e.rekey_child(now, newest)).unwrap();
        world.traffic = false;
        world.run_secs(200);
        let spis = |n: usize| -> Vec<_> {
            let all = world.hosts[n].endpoint.children();
            let mut all: Vec<_> =
                all.iter().map(|c| [c.spi_in.min(c.spi_out), c.spi_in.max(c.spi_out)]).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(spis(0), spis(1), "after {wait} ms\n{}", world.story());
        assert_eq!(spis(0).len(), 2, "after {wait} ms\n{}", world.story());
    }
}

#[test]
fn another_key_exchange_for_a_child() {
    let mut world = up(8, |p| {
        let suites =
            if p.local == A { ["aes128gcm16-modp2048-ecp256"] } else { ["aes128gcm16-ecp256"] };
        edit_child(p, |c| c.esp_proposals = esp_suites(&suites));
    });
    let old = world.hosts[0].endpoint.children()[0].id;
    world.command(0, |e, now| e.rekey_child(now, old)).unwrap();
    world.run_secs(10);
    world.assert_settled();
    world.assert_no_loss();
    assert!(
        world.story().contains("CREATE_CHILD_SA response 3 [ N(INVAL_KE) ]"),
        "{}",
        world.story()
    );
}

#[test]
fn a_child_beyond_its_hard_lifetime_goes() {
    let mut world = up(9, |p| {
        edit_child(p, |c| {
            c.rekey_after = Duration::from_secs(5000);
            Arc::make_mut(&mut c.limits).hard_time = Some(Duration::from_secs(60));
        });
    });
    world.traffic = false;
    world.run_secs(80);
    for host in &world.hosts {
        assert!(
            host.endpoint.children().is_empty()
                && host.inbound().is_empty()
                && host.outbound().is_empty()
        );
        assert_eq!(host.endpoint.ike_sas().len(), 1);
    }
}

#[test]
fn an_ike_sa_beyond_its_hard_lifetime_goes() {
    let mut world = up(10, |p| {
        p.ike_rekey_after = Duration::from_secs(5000);
        common(p).ike_hard_lifetime = Duration::from_secs(50);
    });
    world.traffic = false;
    world.run_secs(100);
    for host in &world.hosts {
        assert!(
            host.endpoint.ike_sas().is_empty()
                && host.inbound().is_empty()
                && host.outbound().is_empty()
        );
        assert_eq!(host.endpoint.next_timeout(), None);
    }
}
