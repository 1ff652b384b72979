//! Garbage, mutated and replayed messages: nothing panics, and an established SA does not notice.

use ike::Event;
use ike::endpoint::Datagram;
use ike::rng::Rng;

use crate::setup::*;
use crate::world::World;

/// Changes some bytes, or the length.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    match rng.below(6) {
        0 => bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize),
        1 => bytes.extend((0..rng.below(64)).map(|n| n as u8)),
        _ => {
            for _ in 0..=rng.below(4) {
                if !bytes.is_empty() {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] = rng.u64() as u8;
                }
            }
        }
    }
    // Half of them keep an honest length, so that they get further than the header.
    if rng.below(2) == 0 && bytes.len() >= 28 {
        let len = (bytes.len() as u32).to_be_bytes();
        bytes[24..28].copy_from_slice(&len);
    }
}

/// All messages of a pair's life so far.
fn recorded(seed: u8) -> (World, Vec<(usize, Datagram)>) {
    let mut world = toy(seed, |_| {});
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    crate::collide::rekey_child(&mut world, 0);
    world.run_secs(8);
    crate::collide::rekey_ike(&mut world, 1);
    world.run_secs(40);
    let recorded = world.recorded.clone();
    (world, recorded)
}

pub fn untouched(world: &mut World, before: usize) {
    world.settle();
    world.assert_settled();
    world.assert_no_loss();
    for host in &world.hosts {
        let ends = host
            .events
            .iter()
            .skip(before)
            .filter(|e| matches!(e, Event::IkeDown { .. } | Event::PeerMoved { .. }));
        let established = ends.filter(|e| {
            !matches!(e, Event::IkeDown { reason: ike::error::Failure::Timeout { .. }, .. })
        });
        assert_eq!(established.count(), 0, "{}", world.story());
    }
}

#[test]
fn replays_of_a_whole_life() {
    let (mut world, recorded) = recorded(1);
    let sas = world.hosts[0].endpoint.ike_sas();
    for (to, datagram) in recorded {
        world.inject(to, datagram);
        world.run_secs(0);
    }
    world.run_secs(45);
    let now = world.hosts[0].endpoint.ike_sas();
    assert_eq!((sas.len(), sas[0].spi_i), (now.len(), now[0].spi_i));
    untouched(&mut world, usize::MAX);
}

#[test]
fn mutations_of_a_whole_life() {
    for seed in 0..6 {
        let (mut world, recorded) = recorded(seed);
        let sas = world.hosts[0].endpoint.ike_sas();
        let mut rng = Rng::new([seed; 32]);
        for _ in 0..4000 {
            let (to, mut datagram) = recorded[rng.below(recorded.len() as u64) as usize].clone();
            mutate(&mut rng, &mut datagram.bytes);
            world.inject(to, datagram);
        }
        world.run_secs(45);
        let now = world.hosts[0].endpoint.ike_sas();
        assert_eq!((sas.len(), sas[0].spi_i), (now.len(), now[0].spi_i));
        untouched(&mut world, usize::MAX);
    }
}

#[test]
fn random_bytes() {
    let (mut world, _) = recorded(9);
    let mut rng = Rng::new([9; 32]);
    for _ in 0..20_000 {
        let len = rng.below(200) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.u64() as u8).collect();
        if rng.below(2) == 0 && len >= 28 {
            bytes[17] = 0x20;
            bytes[18] = 34 + rng.below(4) as u8;
            bytes[24..28].copy_from_slice(&(len as u32).to_be_bytes());
        }
        let (local, remote) = if rng.below(2) == 0 { (A, B) } else { (B, A) };
        let port = if rng.below(2) == 0 { 500 } else { 4500 };
        let datagram =
            Datagram { local: (local, port).into(), remote: (remote, port).into(), bytes };
        world.inject(usize::from(local == B), datagram);
    }
    untouched(&mut world, usize::MAX);
}

/// What arrives is changed on its way, in all phases: both sides survive, whatever they make of it.
#[test]
fn tampering_on_the_way() {
    for seed in 0..60 {
        let mut world = toy(seed, |p| {
            p.fragment_size = (seed % 3 == 0).then_some(200);
            if seed % 2 == 0 {
                p.auth =
                    ike::Auth::Certificate(std::sync::Arc::new(crypto::toy::credentials("host")));
            }
        });
        let mut rng = Rng::new([seed; 32]);
        world.meddling.tamper = Some(Box::new(move |_, datagram| {
            if rng.below(3) == 0 {
                mutate(&mut rng, &mut datagram.bytes);
            }
        }));
        world.initiate(0);
        world.run_secs(30);
        for n in [0, 1] {
            crate::collide::rekey_child(&mut world, n);
            crate::collide::rekey_ike(&mut world, 1 - n);
        }
        world.run_secs(200);
        world.meddling.tamper = None;
        world.run_secs(200);
        let [a, b] = &world.hosts;
        assert_eq!(a.endpoint.ike_sas().len(), b.endpoint.ike_sas().len(), "{}", world.story());
    }
}

/// The toy's integrity checks are left out of the way: what is changed is inside the encrypted payload.
#[test]
fn lies_inside_verified_messages() {
    for seed in 0..120 {
        let mut world = toy(seed, |p| {
            p.auth = ike::Auth::Certificate(std::sync::Arc::new(crypto::toy::credentials("host")));
            edit_child(p, |c| c.esp_proposals = esp_suites(&["aes128gcm16-ecp256"]));
            p.fragment_size = (seed % 3 == 0).then_some(200);
        });
        let mut rng = Rng::new([seed; 32]);
        world.meddling.lie = Some(Box::new(move |plain| {
            if rng.below(4) == 0 && !plain.is_empty() {
                let at = rng.below(plain.len() as u64) as usize;
                plain[at] = rng.u64() as u8;
            }
        }));
        world.initiate(0);
        world.run_secs(20);
        for n in [0, 1] {
            crate::collide::rekey_child(&mut world, n);
            world.run_secs(20);
            crate::collide::rekey_ike(&mut world, n);
            world.run_secs(20);
        }
        world.meddling.lie = None;
        world.run_secs(300);
        let [a, b] = &world.hosts;
        assert_eq!(a.endpoint.ike_sas().len(), b.endpoint.ike_sas().len(), "{}", world.story());
        assert_eq!(
            a.endpoint.half_open().len() + b.endpoint.half_open().len(),
            0,
            "{}",
            world.story()
        );
    }
}
