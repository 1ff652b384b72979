//! First everything goes wrong at once; then it is calm, and every pair must be as it should be.

mod world;

use std::time::Duration;

use ike::rng::Rng;
use ipsec::change::{Batch, Change};
use ipsec::dataplane::Dataplane;
use mesh::{Command, Kind};
use world::{World, manifest, target};

const HOSTS: usize = 4;

#[test]
fn after_chaos_every_pair_has_exactly_one_tunnel() {
    for seed in 0..32 {
        run(seed);
    }
}

fn run(seed: u32) {
    let text = manifest(if seed.is_multiple_of(2) {
        "child_lifetime: 15\nike_lifetime: 40\n"
    } else {
        "start: eager\npeers: [{address: 10.0.0.1}, {address: 10.0.0.2}, {address: 10.0.0.3}, {address: 10.0.0.4}]\n"
    });
    let mut world = World::bare(HOSTS, seed);
    world.load_all(&text);
    let mut rng = Rng::new([(seed % 251) as u8; 32]);
    world.loss = 20;
    for _ in 0..600 {
        chaos(&mut world, &mut rng, &text);
        world.run(Duration::from_millis(rng.below(400)));
    }
    world.loss = 0;
    world.cut.clear();
    for (a, b) in pairs() {
        world.command(a, Command::Up(target(b)));
    }
    // Longer than the longest wait between two attempts, with an attempt of its own in it.
    traffic(&mut world, 120);
    let before = world.hosts.iter().map(|h| h.got.len()).collect::<Vec<_>>();
    traffic(&mut world, 20);
    world.run(Duration::from_millis(500));
    for (host, before) in before.iter().enumerate() {
        let got = world.hosts[host].got.len() - before;
        assert_eq!(got, 20 * (HOSTS - 1), "seed {seed}: packets at host {host}");
    }
    // Between two rekeys.
    for (a, b) in pairs().filter(|(a, b)| a < b) {
        let one = |w: &World| {
            [(a, b), (b, a)]
                .map(|(x, y)| w.peer(x, y))
                .iter()
                .all(|p| (p.ike_sas.len(), p.child_sas.len()) == (1, 1))
        };
        for _ in 0..320 {
            if one(&world) {
                break;
            }
            world.run(Duration::from_millis(50));
        }
        world.assert_one_tunnel(a, b);
    }
    assert_eq!(world.clear, 0, "seed {seed}");
}

fn traffic(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        for (a, b) in pairs() {
            world.send(a, b, b"ping");
        }
        world.seconds(1);
    }
}

fn chaos(world: &mut World, rng: &mut Rng, text: &str) {
    let a = rng.below(HOSTS as u64) as usize;
    let b = (a + 1 + rng.below(HOSTS as u64 - 1) as usize) % HOSTS;
    match rng.below(40) {
        0 => world.reboot(a, text),
        1 => world.command(a, Command::Restart(target(b))),
        2 => world.command(a, Command::Down(target(b))),
        3 => world.command(a, Command::Up(target(b))),
        4 => {
            let (now, mesh) = (world.clock(), &mut world.hosts[a].mesh);
            // Refused where nothing is up.
            let _ = mesh.command(now, Command::Rekey(target(b)));
        }
        5 => {
            let sas = world.hosts[a].plane.sas();
            let now = world.now;
            if let Some(sa) = sas.get(rng.below(sas.len() as u64) as usize) {
                let gone = Change::RemoveSa(sa.sa.key());
                world.hosts[a].plane.apply(now, &Batch(vec![gone]));
            }
        }
        6 | 7 => {
            world.cut.insert((a, b));
        }
        8..=11 => world.cut.clear(),
        12 => world.load(a, world::loaded(text, a)),
        _ => world.send(a, b, b"noise"),
    }
    assert_eq!(world.hosts[a].plane.violations(), []);
    assert_eq!(world.count(a, Kind::Full), 0);
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..HOSTS).flat_map(|a| (0..HOSTS).map(move |b| (a, b))).filter(|(a, b)| a != b)
}
