//! More handshakes at once than a host has the time for.

mod world;

use std::net::SocketAddr;
use std::time::Duration;

use ike::endpoint::Datagram;
use ipsec::Instant;
use mesh::mesh::Input;
use mesh::status::State;
use mesh::{Command, Kind};
use world::{World, address, manifest, target};

const PEERS: u32 = 60;
/// What each job of the host in the middle takes; they are done one after the other.
const EACH: Duration = Duration::from_millis(500);

fn up(world: &World) -> usize {
    (1..=PEERS as usize).filter(|peer| world.state(0, *peer) == State::Up).count()
}

/// Everybody wants the one host, and it wants everybody, as after an outage: all give up after half a minute, and there is
/// more work than that.
#[test]
fn all_are_served_in_about_the_time_that_the_work_takes() {
    let mut world = World::new(PEERS as usize + 1, &manifest(""));
    world.seconds(1);
    world.hosts[0].worker = Some((EACH, Instant::ZERO));
    for peer in 1..=PEERS as usize {
        world.command(peer, Command::Up(target(0)));
        world.command(0, Command::Up(target(peer)));
    }
    // A responder agrees, in one job; an initiator has its value to make before that.
    let most = EACH * 3 * PEERS;
    let began = world.now;
    while up(&world) < PEERS as usize && world.now.since(began) < most {
        world.seconds(1);
    }
    assert_eq!(up(&world), PEERS as usize, "after {most:?}");
}

/// The first request of a host that wants another, to be sent by anybody who has seen it.
fn first_request() -> Datagram {
    let mut world = World::new(1, &manifest(""));
    world.command(0, Command::Up(target(9)));
    world.seconds(1);
    world.nowhere.remove(0)
}

/// Made-up requests by the addresses of peers, more than the host in the middle can do: a peer that is there has its tunnel all the same.
#[test]
fn made_up_requests_leave_room_for_real_ones() {
    let listed: String = (1..250).map(|peer| format!("- address: {}\n", address(peer))).collect();
    let mut world = World::new(2, &manifest(&format!("peers:\n{listed}")));
    world.seconds(1);
    world.hosts[0].worker = Some((EACH, Instant::ZERO));
    let request = first_request();
    let forge = |world: &mut World, n: usize| {
        let mut bytes = request.bytes.clone();
        bytes[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
        let local = SocketAddr::new(address(0), request.local.port());
        let remote = SocketAddr::new(address(2 + n % 240), request.local.port());
        world.input(0, Input::Datagram(Datagram { local, remote, bytes }));
    };
    for n in 0..500 {
        forge(&mut world, n);
        world.run(Duration::from_millis(10));
    }
    world.command(1, Command::Up(target(0)));
    for n in 500..2_500 {
        forge(&mut world, n);
        world.run(Duration::from_millis(10));
    }
    assert_eq!(world.state(0, 1), State::Up);
}

/// All hosts send to all at the same moment, and each has more to do than a moment's work: what two ends begin is done twice, so
/// the one that is to go second waits.
#[test]
fn a_crowd_begins_each_pair_once() {
    const HOSTS: usize = 30;
    let mut world = World::new(HOSTS, &manifest(""));
    world.seconds(1);
    let pairs = (0..HOSTS).flat_map(|a| (0..HOSTS).map(move |b| (a, b))).filter(|(a, b)| a != b);
    for host in &mut world.hosts {
        host.worker = Some((Duration::from_millis(30), Instant::ZERO));
    }
    for (from, to) in pairs.clone() {
        world.send(from, to, b"hello");
    }
    world.seconds(10);
    for (from, to) in pairs.clone() {
        assert_eq!(world.state(from, to), State::Up, "{from} to {to}");
    }
    let begun: usize = (0..HOSTS).map(|host| world.count(host, Kind::Connecting)).sum();
    let pairs = pairs.count() / 2;
    assert!(begun <= pairs + pairs / 10, "{begun} handshakes for {pairs} pairs");
}
