//! Whether `optional: true` can go.

mod world;

use std::time::Duration;

use ipsec::dataplane::{DataplaneEvent, PacketInfo};
use mesh::Input;
use mesh::readiness::{Readiness, Watched};
use world::{World, address, manifest};

const WITHIN: Duration = Duration::from_secs(60);

fn optional() -> World {
    World::new(3, &manifest("optional: true\n"))
}

fn watched(world: &World) -> Watched {
    Watched { since: Some(world.clock().at), missed: None }
}

fn ask(world: &World, watched: Watched) -> Readiness {
    world.hosts[0].mesh.readiness(world.clock(), WITHIN, watched).unwrap()
}

fn passes(world: &mut World, from: usize, to: usize) {
    let (src, dst) = (address(from), address(to));
    let packet = PacketInfo { src, dst, protocol: 17, src_port: Some(1), dst_port: Some(2) };
    world.input(0, Input::Kernel(DataplaneEvent::Passed { packet }));
}

/// Everybody talks with host 0 for so many seconds.
fn talk(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            world.send(from, to, b"hello");
        }
        world.seconds(1);
    }
}

#[test]
fn it_is_ready_when_all_pairs_spoke_esp_and_nothing_else_for_so_long() {
    let mut world = optional();
    let watch = watched(&world);
    talk(&mut world, 30);
    let early = ask(&world, watch);
    assert!(!early.ready && early.reason.contains("watched for 30 s only"), "{early:#?}");
    assert!(early.pairs.iter().all(|pair| pair.ready) && early.pairs.len() == 2, "{early:#?}");
    talk(&mut world, 31);
    let answer = ask(&world, watch);
    assert!(answer.ready && answer.reason.contains("all 2 pairs"), "{answer:#?}");
    let silent = ask(&world, Watched { since: None, missed: None });
    assert!(!silent.ready && silent.reason.contains("cannot be watched"), "{silent:#?}");
    let missed = ask(&world, Watched { missed: Some(world.clock().at), ..watch });
    assert!(!missed.ready && missed.reason.contains("too much"), "{missed:#?}");
}

#[test]
fn cleartext_either_way_and_silence_are_named() {
    let mut world = optional();
    let watch = watched(&world);
    talk(&mut world, 70);
    passes(&mut world, 2, 0);
    world.seconds(5);
    let answer = ask(&world, watch);
    assert!(!answer.ready && answer.reason == "1 of 2 pairs are not ready", "{answer:#?}");
    let [fine, bad] = &answer.pairs[..] else { panic!("{answer:#?}") };
    assert!(fine.ready && fine.missing.is_empty() && fine.address == address(1));
    assert_eq!((bad.missing.as_str(), bad.clear_in_s), ("cleartext from it 5 s ago", Some(5)));
    talk(&mut world, 61);
    assert!(ask(&world, watch).ready, "an hour ago is no matter");
    passes(&mut world, 0, 1);
    assert_eq!(ask(&world, watch).pairs[0].missing, "cleartext to it 0 s ago");
    world.seconds(100);
    let answer = ask(&world, watch);
    assert!(answer.pairs[1].missing.starts_with("no ESP from it for "), "{answer:#?}");
}

#[test]
fn a_host_that_speaks_in_the_clear_alone_is_a_pair_that_is_missing() {
    let mut world = optional();
    let watch = watched(&world);
    world.seconds(70);
    let answer = ask(&world, watch);
    assert!(!answer.ready && answer.reason.contains("no peer is known"), "{answer:#?}");
    passes(&mut world, 1, 0);
    let answer = ask(&world, watch);
    assert_eq!(answer.pairs.len(), 1);
    assert_eq!(answer.pairs[0].missing, "cleartext from it 0 s ago; no ESP from it; no ESP to it");
}

#[test]
fn where_it_is_enforced_nothing_is_missing() {
    let mut world = World::new(2, &manifest(""));
    world.seconds(1);
    let answer = ask(&world, Watched::default());
    assert!(answer.ready && answer.reason.contains("already"), "{answer:#?}");
}
