//! A process ends, and the next one goes on with its IKE SAs; the peer notices nothing.

use std::sync::Arc;
use std::time::Duration;

use ike::endpoint::Restored;
use ike::record::{Asks, COUNTER_LEAP, Outstanding, RestoreError, SaRecord};
use ike::{Endpoint, Event, PeerConfig};
use ipsec::Instant;
use wire::identity::Identity;

use crate::setup::*;
use crate::world::World;

fn pfs(peer: &mut PeerConfig) {
    edit_child(peer, |c| c.esp_proposals = esp_suites(&["aes128gcm16-ecp256"]));
}

fn record(world: &World, n: usize) -> SaRecord {
    let endpoint = &world.hosts[n].endpoint;
    endpoint.export(endpoint.ike_sas()[0].id).expect("it is established")
}

fn handshakes(world: &World) -> usize {
    world.ladder.iter().filter(|line| line.contains("IKE_SA_INIT")).count()
}

#[test]
fn everything_goes_on_after_a_restart_of_either_side() {
    for side in [0, 1] {
        let mut world = up(70 + side as u8, |_| {});
        let (begun, before) = (handshakes(&world), record(&world, side));
        world.restart(side, true);
        let after = record(&world, side);
        assert_eq!(
            (after.spi_i, after.spi_r, &after.keys),
            (before.spi_i, before.spi_r, &before.keys)
        );
        assert_eq!((after.next_out, after.expected_in), (before.next_out, before.expected_in));
        assert_eq!(after.children, before.children);
        assert_eq!((after.nat, after.encap), (before.nat, before.encap));
        assert!(before.fragmentation && after.fragmentation);
        assert!(after.sealed >= before.sealed + COUNTER_LEAP);
        world.run_secs(6);
        world.assert_settled();
        let alive = |e: &Event| matches!(e, Event::Alive { .. });
        assert!(world.hosts[side].count(alive) > 0, "it asked for a sign of life");
        for rekeyer in [side, 1 - side] {
            let (child, ike) = {
                let endpoint = &world.hosts[rekeyer].endpoint;
                (endpoint.children()[0].id, endpoint.ike_sas()[0].id)
            };
            world.command(rekeyer, |e, now| e.rekey_child(now, child)).unwrap();
            world.run_secs(8);
            world.assert_settled();
            world.command(rekeyer, |e, now| e.rekey_ike(now, ike)).unwrap();
            world.run_secs(8);
            world.assert_settled();
        }
        world.assert_no_loss();
        world.restart(1 - side, true);
        world.run_secs(8);
        world.assert_settled();
        world.assert_no_loss();
        assert_eq!(handshakes(&world), begun);
        let ike = world.hosts[side].endpoint.ike_sas()[0].id;
        world.command(side, |e, now| e.delete_ike(now, ike)).unwrap();
        world.run_secs(3);
        for host in &world.hosts {
            assert_eq!((host.endpoint.ike_sas().len(), host.inbound().len()), (0, 0));
        }
    }
}

#[test]
fn rekeys_that_are_due_are_made_up_for() {
    let mut world = up(73, |p| {
        edit_child(p, |c| c.rekey_after = Duration::from_secs(100));
        p.dpd_delay = None;
    });
    world.traffic = false;
    world.run_secs(90);
    let old = record(&world, 0).children[0].spi_in;
    world.hosts[1].directory.config = peer(B, A).into();
    world.restart(0, true);
    world.run_secs(30);
    assert_ne!(record(&world, 0).children[0].spi_in, old, "{}", world.story());
    world.assert_settled();
}

/// The process ends at each message of a rekey, once before and once after it left.
#[test]
fn a_restart_in_the_middle_of_a_rekey_of_a_child_heals_without_a_handshake() {
    for (with_pfs, rekeyer, victim) in
        [(false, 0, 0), (true, 0, 0), (false, 1, 0), (true, 1, 0), (true, 1, 1)]
    {
        for (message, left) in (0..5).flat_map(|m| [(m, false), (m, true)]) {
            let mut world = if with_pfs { up(80, pfs) } else { up(80, |_| {}) };
            let begun = handshakes(&world);
            world.crash = Some((victim, world.sent + message, left));
            let child = world.hosts[rekeyer].endpoint.children()[0].id;
            world.command(rekeyer, |e, now| e.rekey_child(now, child)).unwrap();
            world.run_secs(8);
            heal(&mut world);
            world.crash = None;
            world.run_secs(200);
            let lost = world.lost;
            world.run_secs(5);
            assert_eq!(world.lost, lost, "packets are lost for ever\n{}", world.story());
            assert_eq!(handshakes(&world), begun, "{}", world.story());
            world.assert_settled();
        }
    }
}

/// What the owner of an endpoint does: SPIs that are not there are told of, one child SA is kept, one is made
/// where there is none.
fn heal(world: &mut World) {
    for _ in 0..4 {
        for n in [0, 1] {
            let (children, ikes) =
                (world.hosts[n].endpoint.children(), world.hosts[n].endpoint.ike_sas());
            let Some(ike) = ikes.first().map(|i| i.id) else { continue };
            let known: Vec<_> = world.hosts[n].inbound().iter().map(|sa| sa.spi).collect();
            let strays: Vec<_> = world.hosts[1 - n]
                .outbound()
                .iter()
                .map(|sa| sa.spi)
                .filter(|s| !known.contains(s))
                .collect();
            for spi in strays {
                let _ = world.command(n, |e, now| e.unknown_spi(now, ike, spi));
            }
            if children.is_empty() && n == 0 {
                let config = world.hosts[n].directory.config.child.clone();
                let _ = world.command(n, |e, now| e.create_child(now, ike, config));
            }
            if let [old, .., _] = &children[..] {
                let _ = world.command(n, |e, now| e.delete_child(now, old.id));
            }
        }
        world.run_secs(3);
    }
}

#[test]
fn a_restart_in_the_middle_of_a_rekey_of_the_ike_sa_goes_on_or_ends_it() {
    for (rekeyer, victim) in [(0, 0), (1, 0)] {
        for (message, left) in (0..4).flat_map(|m| [(m, false), (m, true)]) {
            let mut world = up(81, |_| {});
            world.crash = Some((victim, world.sent + message, left));
            let ike = world.hosts[rekeyer].endpoint.ike_sas()[0].id;
            world.command(rekeyer, |e, now| e.rekey_ike(now, ike)).unwrap();
            world.run_secs(20);
            let here = world.hosts[victim].endpoint.ike_sas();
            if here.is_empty() {
                // Only where its own request was answered: the successor's keys died with the process.
                assert_eq!(rekeyer, victim, "{}", world.story());
            } else {
                world.run_secs(180);
                let peer = world.hosts[1 - victim].endpoint.ike_sas();
                assert!(peer.iter().any(|i| i.spi_i == here[0].spi_i), "{}", world.story());
            }
        }
    }
}

#[test]
fn with_the_child_sas_lost_they_are_made_again_over_the_restored_ike_sa() {
    for side in [0, 1] {
        let mut world = up(74 + side as u8, pfs);
        world.traffic = false;
        let begun = handshakes(&world);
        let old = record(&world, side).children;
        world.restart(side, false);
        assert!(world.hosts[side].inbound().is_empty());
        let ike = world.hosts[side].endpoint.ike_sas()[0].id;
        let config = world.hosts[side].directory.config.child.clone();
        world.command(side, |e, now| e.create_child(now, ike, config)).unwrap();
        for child in &old {
            world.command(side, |e, now| e.unknown_spi(now, ike, child.spi_in)).unwrap();
        }
        world.run(Duration::from_millis(100));
        world.assert_settled();
        assert_eq!(handshakes(&world), begun);
        let (lost, packets) = (world.lost, world.packets);
        world.traffic = true;
        world.run_secs(5);
        assert_eq!(world.lost, lost);
        assert!(world.packets > packets);
    }
}

fn restore(
    world: &mut World,
    record: SaRecord,
    f: impl FnOnce(&mut PeerConfig),
) -> Result<Restored, RestoreError> {
    let mut config = (*world.hosts[0].directory.config).clone();
    f(&mut config);
    let now = world.at();
    world.hosts[0].endpoint.restore(now, record, config.into())
}

#[test]
fn what_cannot_be_gone_on_with_is_refused_and_named() {
    let mut world = up(76, |_| {});
    let good = record(&world, 0);
    let with = |f: &dyn Fn(&mut SaRecord)| {
        let mut record = good.clone();
        f(&mut record);
        record
    };
    assert_eq!(restore(&mut world, good.clone(), |_| {}), Err(RestoreError::SpiTaken));
    world.hosts[0].endpoint =
        Endpoint::new(crate::world::LIMITS, std::sync::Arc::new(crypto::toy::Toy), [3; 32]);
    let mut refused = |record, error: RestoreError| {
        assert_eq!(restore(&mut world, record, |_| {}), Err(error));
    };
    refused(with(&|r| r.since = Instant::from_nanos(u64::MAX - 1)), RestoreError::Clock);
    refused(with(&|r| r.remote.set_ip(A)), RestoreError::Addresses);
    let old = Outstanding { id: 3, messages: vec![vec![1]], asks: Asks::RekeyIke };
    let not_the_newest = |r: &mut SaRecord| {
        (r.next_out, r.outstanding) = (Some(9), Some(old.clone()));
    };
    refused(with(&not_the_newest), RestoreError::MessageIds);
    refused(with(&|r| (r.answer, r.expected_in) = (vec![vec![1]], 0)), RestoreError::MessageIds);
    refused(with(&|r| r.sealed = u64::MAX - 5), RestoreError::MessageIds);
    let late = |c: &mut PeerConfig| common(c).ike_hard_lifetime = Duration::from_secs(1);
    assert_eq!(restore(&mut world, good.clone(), late), Err(RestoreError::Expired));
    let other =
        |c: &mut PeerConfig| c.remote_id = Identity::from_text("else.example").ok().map(Arc::new);
    assert!(matches!(restore(&mut world, good.clone(), other), Err(RestoreError::Identity(_))));
    assert!(good.fits(&world.hosts[0].directory.config));
    for change in [
        |c: &mut PeerConfig| c.ike_proposals = ike_suites(&["aes256-sha256-modp2048"]),
        |c: &mut PeerConfig| edit_child(c, |c| c.esp_proposals = esp_suites(&["aes256gcm16"])),
        |c: &mut PeerConfig| edit_child(c, |c| c.mode = ipsec::sa::Mode::Tunnel),
        |c: &mut PeerConfig| common(c).force_encap = true,
    ] {
        let mut config = (*world.hosts[0].directory.config).clone();
        change(&mut config);
        assert!(!good.fits(&config));
    }
    let mut compressed = good.clone();
    compressed.children[0].ipcomp = Some(ike::ipcomp::Cpis { inbound: 256, outbound: 257 });
    let mut config = (*world.hosts[0].directory.config).clone();
    assert!(!compressed.fits(&config), "it is not wanted any more");
    edit_child(&mut config, |c| c.compression = true);
    assert!(compressed.fits(&config) && good.fits(&config), "a peer may not want it");
    assert!(restore(&mut world, good, |_| {}).is_ok());
}
