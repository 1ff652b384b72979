//! The data plane refuses something: each change of each batch in turn, and the same one again and again.

mod world;

use std::time::Duration;

use ipsec::change::{Change, RefusalReason};
use ipsec::dataplane::Dataplane;
use mesh::{Command, Kind};
use world::{Fault, World, loaded, manifest, target};

fn full() -> RefusalReason {
    RefusalReason::Full("no space left (ENOSPC)".into())
}

/// What a host does while its data plane is watched.
type Step = fn(&mut World, usize);

const STEPS: [(&str, Step); 4] = [
    ("a tunnel is built", |world, host| {
        // By command neither end waits for the other.
        world.command(host, Command::Up(target(1 - host)));
    }),
    ("its SAs are rekeyed here", |world, host| {
        world.command(host, Command::Rekey(target(1 - host)));
    }),
    ("its SAs are rekeyed by the peer", |world, host| {
        world.command(1 - host, Command::Rekey(target(host)));
    }),
    ("the manifest changes", |world, host| {
        let more = "no_ipsec_subnets: [10.0.0.128/25]\npolicies:\n- {action: pass, proto: tcp, port: 22}\n";
        world.load(host, loaded(&manifest(more), host));
    }),
];

/// Packets both ways for so long.
fn traffic(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 10 {
        world.send(0, 1, b"there");
        world.send(1, 0, b"back");
        world.run(Duration::from_millis(100));
        for host in 0..2 {
            let sas = sas(world, host);
            assert!(sas <= 10, "{sas} SAs at host {host}");
        }
    }
}

fn sas(world: &mut World, host: usize) -> usize {
    let now = world.now;
    world.hosts[host].plane.snapshot(now).sas.len()
}

/// A world just before a step, with all that comes before it done.
fn before(step: usize) -> World {
    let mut world = World::new(2, &manifest(""));
    world.seconds(1);
    for (_, earlier) in &STEPS[..step] {
        earlier(&mut world, 0);
        traffic(&mut world, 12);
    }
    world
}

/// How many changes a step asks of host 0.
fn changes(step: usize) -> usize {
    let mut world = before(step);
    world.hosts[0].fault = Fault::new(|_, _| None);
    STEPS[step].1(&mut world, 0);
    traffic(&mut world, 12);
    world.hosts[0].fault.as_ref().map_or(0, |fault| fault.asked)
}

#[test]
fn each_change_of_each_step_is_refused_in_turn() {
    let mut refused = 0;
    for (step, (name, act)) in STEPS.iter().enumerate() {
        let all = changes(step);
        assert!(all >= 2, "{name}: {all} changes");
        for which in 0..all {
            let mut world = before(step);
            world.hosts[0].fault = Fault::new(move |n, _| (n == which).then(full));
            act(&mut world, 0);
            traffic(&mut world, 30);
            let got = world.hosts.iter().map(|h| h.got.len()).collect::<Vec<_>>();
            traffic(&mut world, 3);
            for (host, got) in got.into_iter().enumerate() {
                let fresh = world.hosts[host].got.len() - got;
                assert!(fresh >= 29, "{name}, change {which}: {fresh} packets to host {host}");
            }
            world.seconds(12);
            world.assert_one_tunnel(0, 1);
            for host in 0..2 {
                assert_eq!(sas(&mut world, host), 2, "{name}, change {which}, host {host}");
            }
            // What is refused is told, and what had to be there is there after all.
            let status = world.hosts[0].mesh.status(world.clock());
            assert_eq!(status.node.refusals, 1, "{name}, change {which}");
            let now = world.now;
            let there = world.hosts[0].plane.snapshot(now).policies.len();
            assert_eq!(there, loaded_policies(&world), "{name}, change {which}");
            assert_eq!(world.clear, 0);
            refused += 1;
        }
    }
    assert!(refused >= 16, "{refused} refusals");
}

fn loaded_policies(world: &World) -> usize {
    let metrics = world.hosts[0].mesh.metrics(world.clock());
    let policies = metrics.iter().find(|sample| sample.name == "warren_policies");
    policies.map_or(0, |sample| sample.value as usize)
}

#[test]
fn the_second_of_four_is_refused_a_hundred_times() {
    for (victim, peer) in [(0, 1), (1, 0)] {
        let mut world = World::new(2, &manifest(""));
        world.seconds(1);
        // In and out, and no room for the second.
        world.hosts[victim].fault = Fault::new(|_, change| match change {
            Change::AddSa(sa) if sa.direction == ipsec::sa::Direction::Out => Some(full()),
            _ => None,
        });
        for _ in 0..100 {
            world.command(victim, Command::Up(target(peer)));
            world.send(peer, victim, b"again");
            world.seconds(3);
            assert!(sas(&mut world, victim) <= 2 && sas(&mut world, peer) <= 4);
            let status = world.peer(peer, victim);
            assert!(status.ike_sas.len() <= 2 && status.child_sas.len() <= 2, "{status:#?}");
            let status = world.peer(victim, peer);
            assert!(status.ike_sas.len() <= 2 && status.child_sas.len() <= 2, "{status:#?}");
        }
        let tries = world.count(victim, Kind::InstallChildSaFailed);
        assert!(tries >= 100, "{tries} tries");
        // The peer is told each time, so that nothing is left with it.
        world.seconds(10);
        assert_eq!(sas(&mut world, victim), 0, "rolled back");
        assert_eq!(sas(&mut world, peer), 0, "the peer was told");
        let reason = world.peer(victim, peer).last_error.unwrap_or_default();
        assert!(reason.contains("ENOSPC"), "{reason}");
        world.hosts[victim].fault = None;
        world.command(victim, Command::Up(target(peer)));
        world.seconds(8);
        world.assert_one_tunnel(0, 1);
        assert_eq!(sas(&mut world, victim), 2);
    }
}

#[test]
fn a_policy_that_was_refused_comes_when_the_way_is_free() {
    let mut world = World::bare(2, 0);
    let refuse = |_: usize, change: &Change| match change {
        Change::PutPolicy(policy) if policy.flow == ipsec::spd::Flow::Out => {
            Some(RefusalReason::Conflict("a foreign one".into()))
        }
        _ => None,
    };
    world.hosts[0].fault = Fault::new(refuse);
    for host in 0..2 {
        world.load(host, loaded(&manifest(""), host));
    }
    world.seconds(20);
    let told = world.count(0, Kind::InstallPolicyFailed);
    let wanted = loaded_policies(&world);
    let now = world.now;
    let there = world.hosts[0].plane.snapshot(now).policies.len();
    assert_eq!(there + told, wanted, "each is told once, however often it is tried");
    assert!(told > 0 && world.count(0, Kind::Drift) == 0);
    world.hosts[0].fault = None;
    world.seconds(3);
    let now = world.now;
    assert_eq!(world.hosts[0].plane.snapshot(now).policies.len(), wanted);
    assert_eq!(world.count(0, Kind::Drift), 0);
}
