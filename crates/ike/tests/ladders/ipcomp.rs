//! IPCOMP_SUPPORTED: agreed where both want it, in IKE_AUTH and in rekeys from either side; declined by default.

use ike::{Event, PeerConfig};
use ipsec::sa::{Direction, Sa};
use wire::payload::{Notify, Payload};
use wire::registry::NotifyType;

use crate::setup::*;
use crate::world::World;

fn compressing(peer: &mut PeerConfig) {
    edit_child(peer, |c| c.compression = true);
}

/// The SAs that a host installed, oldest first.
fn installed(world: &World, host: usize, direction: Direction) -> Vec<Sa> {
    let sas = world.hosts[host].events.iter().filter_map(|event| match event {
        Event::InstallInbound { sa, .. } | Event::InstallOutbound { sa, .. } => Some(sa),
        _ => None,
    });
    sas.filter(|sa| sa.direction == direction).map(|sa| (**sa).clone()).collect()
}

/// What either receives by one CPI the other sends by it.
fn assert_agreed(world: &World, count: usize) {
    for (host, peer) in [(0, 1), (1, 0)] {
        let inbound = installed(world, host, Direction::In);
        let outbound = installed(world, peer, Direction::Out);
        assert_eq!((inbound.len(), outbound.len()), (count, count));
        for sa in inbound {
            let other = outbound.iter().find(|other| other.spi == sa.spi).unwrap();
            assert_eq!(sa.ipcomp, other.ipcomp);
            assert!(sa.ipcomp.is_some_and(|cpi| cpi >= 256));
        }
        assert!(world.hosts[host].endpoint.children().iter().all(|c| c.compression));
    }
}

#[test]
fn both_want_it_in_the_first_exchange_and_in_rekeys() {
    for side in [0, 1] {
        let mut world = up(20, compressing);
        assert_agreed(&world, 1);
        let child = world.hosts[side].endpoint.children()[0].id;
        world.command(side, |e, now| e.rekey_child(now, child)).unwrap();
        world.run_secs(10);
        world.assert_settled();
        world.assert_no_loss();
        assert_agreed(&world, 2);
    }
}

#[test]
fn one_alone_goes_without() {
    for wants in [0, 1] {
        let (mut a, mut b) = peers(|_| {});
        compressing(if wants == 0 { &mut a } else { &mut b });
        let mut world = World::new(std::sync::Arc::new(crypto::toy::Toy), 21, a, b);
        world.traffic = true;
        world.initiate(0);
        world.run_secs(3);
        world.assert_settled();
        world.assert_no_loss();
        for host in [0, 1] {
            let all = [Direction::In, Direction::Out].map(|d| installed(&world, host, d));
            assert!(all.iter().flatten().all(|sa| sa.ipcomp.is_none()));
            assert!(!world.hosts[host].endpoint.children()[0].compression);
        }
    }
}

#[test]
fn it_outlives_the_process() {
    let mut world = up(22, compressing);
    world.restart(0, true);
    world.run_secs(8);
    world.assert_settled();
    world.assert_no_loss();
    assert!(world.hosts[0].endpoint.children()[0].compression);
}

/// An answer of another algorithm, or two: no child SA comes of it, and the IKE SA stays.
#[test]
fn a_responder_that_chooses_what_was_not_offered() {
    let lie = |data: &[u8]| Payload::Notify(Notify::new(NotifyType::IPCOMP_SUPPORTED, data));
    for wrong in [vec![lie(&[1, 2, 3])], vec![lie(&[1, 2, 2]), lie(&[1, 3, 2])], vec![lie(&[1])]] {
        let (mut a, b) = peers(|p| p.fragment_size = None);
        compressing(&mut a);
        let mut world = World::new(std::sync::Arc::new(crypto::toy::Toy), 23, a, b);
        let mut sealed = 0;
        world.meddling.lie = Some(Box::new(move |plain| {
            sealed += 1;
            if sealed == 2 {
                crate::extras::append(plain, &wrong);
            }
        }));
        world.initiate(0);
        world.run_secs(2);
        assert!(world.hosts[0].endpoint.children().is_empty());
        assert!(installed(&world, 0, Direction::Out).is_empty(), "{}", world.story());
    }
}
