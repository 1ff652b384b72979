//! Strangers send first requests under made-up and stolen names, and old and damaged packets of every kind.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::net::HostId;
use crate::packet::{Body, Packet};
use crate::violation::What;
use crate::world::{Stopped, World};

/// How long it goes on.
const LASTS: Duration = Duration::from_secs(30);
/// Packets of each millisecond.
const EACH_MS: usize = 2;
/// A handshake in the middle of it is done within this.
const DONE_WITHIN: Duration = Duration::from_secs(10);
/// Half-open IKE SAs of one host, at most.
const MOST_HALF_OPEN: usize = 4096;

/// `flood`
pub struct Flood;

impl Scenario for Flood {
    fn name(&self) -> &'static str {
        "flood"
    }

    fn about(&self) -> &'static str {
        "spoofed first requests, old and damaged packets; tunnels unharmed, an honest handshake succeeds"
    }

    fn least_hosts(&self) -> usize {
        3
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup::any(dice).in_good_weather()
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        let late = world.fleet().len() - 1;
        world.listen(true);
        world.expect_all_but(|a, _| a == late);
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_millis(250)));
        world.until_all_up(Duration::from_secs(15))?;
        let samples = world.heard();
        world.run_for(Duration::from_secs(1))?;
        world.unplug(late);
        let target = world.dice().below(late as u64) as usize;
        world.focus([target, late]);
        world.rest(Duration::from_secs(4));
        let end = world.now() + LASTS;
        let joins = world.now() + LASTS / 2;
        let mut joined = false;
        world.expect_storms(true);
        let mut fresh = Vec::new();
        while world.now() < end {
            if world.now().as_nanos().is_multiple_of(250_000_000) {
                fresh = world.heard();
            }
            for _ in 0..EACH_MS {
                let packet = forge(world, &samples, &fresh);
                world.inject(target, packet);
            }
            world.run_for(Duration::from_millis(1))?;
            let open = world.census_of_host(target)["half-open IKE SAs"];
            if open > MOST_HALF_OPEN {
                let text = format!("{open} half-open IKE SAs");
                return Err(world.fault(What::Growth, (target, target), text));
            }
            if world.now() >= joins && !joined {
                joined = true;
                world.boot_one(late);
            }
            if world.now() >= joins + DONE_WITHIN && !world.is_up(late, target) {
                let text = format!("no tunnel after {DONE_WITHIN:?} of flood");
                return Err(world.fault(What::NotUp, (late, target), text));
            }
        }
        world.run_for(Duration::from_secs(10))?;
        world.expect_storms(false);
        world.expect_all_but(|_, _| false);
        world.until_all_up(Duration::from_secs(15))?;
        world.until_settled(Duration::from_secs(75))?;
        world.finish()
    }
}

/// A packet that nobody honest sends.
fn forge(world: &mut World, samples: &[(HostId, Packet)], fresh: &[(HostId, Packet)]) -> Packet {
    let from = if world.dice().chance(300) && !fresh.is_empty() { fresh } else { samples };
    let at = world.dice().below(from.len() as u64) as usize;
    let mut packet = from[at].1.clone();
    let kind = world.dice().below(4);
    match kind {
        // A first request under another SPI: the beginning of a new handshake.
        0 | 1 => {
            let first = samples.iter().find(|(_, p)| is_first(p)).map(|(_, p)| p.clone());
            packet = first.unwrap_or(packet);
            let spi = world.dice().below(u64::MAX).to_be_bytes();
            let bytes = packet.bytes_mut();
            let len = bytes.len().min(8);
            bytes[..len].copy_from_slice(&spi[..len]);
            packet.src = if kind == 0 { world.stranger() } else { member(world) };
        }
        2 => {
            let len = packet.bytes().len() as u64;
            let (place, bit) = (world.dice().below(len) as usize, world.dice().below(8));
            packet.bytes_mut()[place] ^= 1 << bit;
        }
        // As it was: a replay.
        _ => {}
    }
    packet
}

fn member(world: &mut World) -> std::net::IpAddr {
    let hosts = world.fleet().len() as u64;
    let id = world.dice().below(hosts) as usize;
    world.fleet().address(id)
}

fn is_first(packet: &Packet) -> bool {
    let message = packet.ike_message();
    let request = |bytes: &[u8]| bytes.len() > 28 && bytes[18] == 34 && bytes[19] & 0x20 == 0;
    matches!(packet.body, Body::Ike { src_port: 500, .. }) && message.is_some_and(request)
}
