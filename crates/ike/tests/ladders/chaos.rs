//! Random commands on a bad link; then calm: both hosts agree.

use std::collections::BTreeSet;
use std::time::Duration;

use ike::rng::Rng;

use crate::collide::{rekey_child, rekey_ike};
use crate::setup::*;
use crate::world::{Fate, World};

fn bad_link(world: &mut World, rng: &mut Rng, percent: u64) {
    for index in world.sent..world.sent + 5000 {
        let fate = match rng.below(100) {
            n if n >= percent => Fate::Deliver,
            n if n % 3 == 0 => Fate::Lose,
            n if n % 3 == 1 => Fate::Twice,
            _ => Fate::Late(Duration::from_millis(rng.below(3000))),
        };
        world.fates.insert(index, fate);
    }
}

fn make(seed: u8) -> World {
    toy(seed, |p| {
        p.dpd_delay = Some(Duration::from_secs(20));
        common(p).retransmit.tries = 12;
        if seed.is_multiple_of(3) {
            edit_child(p, |c| c.esp_proposals = esp_suites(&["aes128gcm16-ecp256"]));
        }
        if seed.is_multiple_of(5) {
            p.fragment_size = Some(200);
        }
        if seed.is_multiple_of(4) {
            p.auth = ike::Auth::Certificate(std::sync::Arc::new(crypto::toy::credentials("host")));
        }
    })
}

fn start(world: &mut World, n: usize) {
    let idle = world.hosts[n].endpoint.ike_sas().is_empty()
        && world.hosts[n].endpoint.half_open().is_empty();
    if idle {
        world.initiate(n);
    }
}

fn calm(world: &mut World) {
    world.fates.clear();
    world.traffic = false;
    world.run_secs(400);
    start(world, 0);
    world.run_secs(60);
}

fn spis(world: &World, n: usize) -> (BTreeSet<u64>, BTreeSet<(u32, u32)>) {
    let host = &world.hosts[n].endpoint;
    let ike = host.ike_sas().iter().map(|i| i.spi_i.0).collect();
    let children = host
        .children()
        .into_iter()
        .map(|c| if n == 0 { (c.spi_in.0, c.spi_out.0) } else { (c.spi_out.0, c.spi_in.0) });
    (ike, children.collect())
}

#[test]
fn rekeys_on_a_bad_link() {
    for seed in 0..80u8 {
        let mut world = make(seed);
        let mut rng = Rng::new([seed ^ 0x5a; 32]);
        let percent = 5 + rng.below(35);
        bad_link(&mut world, &mut rng, percent);
        for _ in 0..60 {
            world.run(Duration::from_millis(rng.below(4000)));
            let n = rng.below(2) as usize;
            match rng.below(8) {
                0..3 => rekey_child(&mut world, n),
                3..5 => rekey_ike(&mut world, n),
                5 => {
                    start(&mut world, 0);
                    start(&mut world, 1);
                }
                _ => start(&mut world, n),
            }
        }
        calm(&mut world);
        world.assert_settled();
    }
}

#[test]
fn anything_on_a_bad_link() {
    for seed in 0..80u8 {
        let mut world = make(seed);
        let mut rng = Rng::new([seed ^ 0x5a; 32]);
        let percent = 5 + rng.below(35);
        bad_link(&mut world, &mut rng, percent);
        for _ in 0..80 {
            world.run(Duration::from_millis(rng.below(3000)));
            let n = rng.below(2) as usize;
            let ike = world.hosts[n].endpoint.ike_sas().first().map(|i| i.id);
            let child = world.hosts[n].endpoint.children().first().map(|c| c.id);
            match (rng.below(12), ike, child) {
                (0, Some(ike), _) => world.command(n, |e, now| e.delete_ike(now, ike)).unwrap(),
                (1, Some(ike), _) if rng.below(4) == 0 => {
                    world.command(n, |e, now| e.abandon(now, ike)).unwrap();
                }
                (2, _, Some(child)) => {
                    // It may be on its way to another IKE SA: then it stays.
                    let _ = world.command(n, |e, now| e.delete_child(now, child));
                }
                (3, Some(ike), _) => {
                    let config = world.hosts[n].directory.config.child.clone();
                    world.command(n, |e, now| e.create_child(now, ike, config)).unwrap();
                }
                (4 | 5, ..) => rekey_child(&mut world, n),
                (6 | 7, ..) => rekey_ike(&mut world, n),
                (8, Some(ike), _) => world.command(n, |e, now| e.probe(now, ike)).unwrap(),
                _ => start(&mut world, n),
            }
        }
        calm(&mut world);
        assert_eq!(spis(&world, 0), spis(&world, 1), "seed {seed}\n{}", world.story());
        for n in [0, 1] {
            let host = &world.hosts[n];
            let children = host.endpoint.children().len();
            assert_eq!(
                (host.inbound().len(), host.outbound().len()),
                (children, children),
                "seed {seed}\n{}",
                world.story()
            );
            assert_eq!(host.endpoint.ike_sas().len(), 1, "seed {seed}\n{}", world.story());
        }
    }
}
