//! More handshakes at once than a host has the time for.

mod world;

use std::time::Duration;

use ipsec::Instant;
use mesh::Command;
use mesh::status::State;
use world::{World, manifest, target};

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
