//! Two ends compare which child SAs they hold, within a liveness check.

use ike::Event;
use ike::error::{EndReason, Failure};

use crate::setup::*;
use crate::world::World;

fn lost(event: &Event) -> bool {
    matches!(event, Event::ChildDown { reason: Failure::Ended(EndReason::PeerLost), .. })
}

fn probe(world: &mut World, n: usize) {
    let ike = world.hosts[n].endpoint.ike_sas()[0].id;
    world.command(n, |e, now| e.probe(now, ike)).unwrap();
    world.run_secs(1);
}

#[test]
fn a_child_sa_that_the_peer_forgot_is_given_up_and_the_ike_sa_stays() {
    for side in [0, 1] {
        let mut world = up(140 + side as u8, |_| {});
        world.traffic = false;
        world.run_secs(10);
        world.restart(side, false);
        world.run_secs(10);
        let other = 1 - side;
        assert_eq!(world.hosts[other].endpoint.children().len(), 1, "nobody has asked");
        probe(&mut world, other);
        assert_eq!(world.hosts[other].count(lost), 1, "{}", world.story());
        let endpoint = &world.hosts[other].endpoint;
        assert_eq!((endpoint.children().len(), endpoint.ike_sas().len()), (0, 1));
        assert!(world.hosts[other].outbound().is_empty());
    }
}

#[test]
fn what_both_hold_stays_and_is_counted() {
    let mut world = up(142, |_| {});
    world.run_secs(10);
    let child = world.hosts[1].endpoint.children()[0].id;
    world.command(1, |e, now| e.note_inbound_traffic(now, child, 77));
    probe(&mut world, 0);
    probe(&mut world, 1);
    let told = |e: &Event| matches!(e, Event::Compared { received, .. } if received[0].1 == 77);
    assert_eq!(world.hosts[0].count(told), 1, "{}", world.story());
    assert_eq!(world.hosts[0].count(lost) + world.hosts[1].count(lost), 0);
    world.assert_settled();
    world.assert_no_loss();
}

#[test]
fn a_child_sa_that_the_peer_may_not_have_completed_is_not_judged() {
    let mut world = up(143, |_| {});
    world.traffic = false;
    world.restart(1, false);
    world.run_secs(1);
    probe(&mut world, 0);
    assert_eq!(world.hosts[0].count(lost), 0, "{}", world.story());
}
