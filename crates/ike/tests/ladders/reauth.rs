//! A new IKE SA instead of one that is there (RFC 7296 2.8.3), and two ends that do not agree on what there is.

use std::sync::Arc;
use std::time::Duration;

use ike::error::{EndReason, Failure};
use ike::{Event, IkeSaId};
use ipsec::sa::Reqid;
use wire::message::Header;
use wire::registry::ExchangeType;

use crate::setup::*;
use crate::world::World;

fn ended(world: &World, host: usize, why: EndReason) -> usize {
    world.hosts[host].count(
        |e| matches!(e, Event::IkeDown { reason: Failure::Ended(reason), .. } if *reason == why),
    )
}

fn ike(world: &World, host: usize) -> IkeSaId {
    world.hosts[host].endpoint.ike_sas()[0].id
}

#[test]
fn either_side_makes_before_it_breaks() {
    for side in [0, 1] {
        let mut world = up(1, |_| {});
        let old = world.hosts[0].endpoint.ike_sas()[0].spi_i;
        world.initiate(side);
        world.run_secs(20);
        world.assert_settled();
        world.assert_no_loss();
        assert_ne!(world.hosts[0].endpoint.ike_sas()[0].spi_i, old);
        for host in [0, 1] {
            assert_eq!(ended(&world, host, EndReason::Reauthenticated), 1, "{}", world.story());
        }
        assert!(!world.story().contains("INITIAL_CONTACT"), "nothing was lost");
    }
}

/// A peer that gives no sign of life through the new SA before it takes the old one away.
#[test]
fn a_delete_is_answered_once_the_new_one_is_sent_through() {
    let mut world = up(8, |_| {});
    world.traffic = false;
    let (old, spi) = (ike(&world, 0), world.hosts[0].endpoint.ike_sas()[0].spi_i);
    world.meddling.tamper = Some(Box::new(move |_, datagram| {
        let sign = Header::parse(&datagram.bytes).is_ok_and(|header| {
            let informational = header.exchange == ExchangeType::INFORMATIONAL;
            informational && header.spi_i != spi && !header.flags.response
        });
        if sign {
            datagram.bytes = vec![0; 4];
        }
    }));
    world.initiate(0);
    while world.hosts[0].endpoint.ike_sas().len() < 2 {
        world.run(Duration::from_millis(1));
    }
    world.command(0, |e, now| e.delete_ike(now, old)).unwrap();
    world.run(Duration::from_millis(100));
    let outbound = |e: &Event| matches!(e, Event::InstallOutbound { .. });
    assert_eq!(world.hosts[1].count(outbound), 2, "{}", world.story());
    let last = |what: &str| world.ladder.iter().rposition(|line| line.contains(what));
    assert!(last("B: install outbound") < last("A <- B"), "{}", world.story());
}

/// What the initiator needs to receive on the new child SA comes late: until then the old one serves.
#[test]
fn nothing_is_sent_through_the_new_one_before_the_peer_has_it() {
    let mut world = up(9, |_| {});
    let mut lost = 0;
    world.meddling.tamper = Some(Box::new(move |_, datagram| {
        let header = Header::parse(&datagram.bytes);
        let answer = |h: Header| h.flags.response && h.exchange == ExchangeType::IKE_AUTH;
        if header.is_ok_and(answer) && lost < 2 {
            lost += 1;
            datagram.bytes = vec![0; 4];
        }
    }));
    world.initiate(0);
    world.run_secs(30);
    world.assert_settled();
    world.assert_no_loss();
    for host in [0, 1] {
        assert_eq!(ended(&world, host, EndReason::Reauthenticated), 1, "{}", world.story());
    }
}

#[test]
fn what_fails_leaves_the_old_one() {
    let mut world = up(2, |_| {});
    let (old, config) = (ike(&world, 0), world.hosts[1].directory.config.clone());
    let mut other = (*config).clone();
    other.auth = ike::Auth::Psk(
        crypto::Secret::new(b"another pre-shared key of good length".to_vec()).into(),
    );
    world.hosts[1].directory.config = Arc::new(other);
    world.initiate(0);
    world.run_secs(40);
    world.assert_settled();
    world.assert_no_loss();
    assert_eq!(ike(&world, 0), old);
    let refused = |e: &Event| matches!(e, Event::IkeDown { reason: Failure::RefusedByPeer, .. });
    assert_eq!(world.hosts[0].count(refused), 1);
    // And once it can be done.
    world.hosts[1].directory.config = config;
    world.initiate(0);
    world.run_secs(20);
    world.assert_settled();
    assert_ne!(ike(&world, 0), old);
}

#[test]
fn further_child_sas_come_over() {
    let mut world = up(3, |_| {});
    let old = ike(&world, 0);
    let mut second = child(A, B);
    second.reqid = Reqid(8);
    world.command(0, |e, now| e.create_child(now, old, Arc::new(second))).unwrap();
    world.run_secs(3);
    world.initiate(0);
    world.run_secs(20);
    world.assert_no_loss();
    let mut reqids: Vec<_> =
        world.hosts[0].endpoint.children().iter().map(|c| (c.ike, c.reqid.0)).collect();
    reqids.sort_unstable();
    let new = ike(&world, 0);
    assert_ne!(new, old);
    assert_eq!(reqids, [(new, 7), (new, 8)]);
    assert_eq!(world.hosts[1].endpoint.children().len(), 2);
}

/// A peer that breaks before it makes: its own Delete first, and a new beginning.
#[test]
fn a_peer_may_break_before_it_makes() {
    let mut world = up(4, |_| {});
    world.traffic = false;
    let old = ike(&world, 0);
    world.command(0, |e, now| e.delete_ike(now, old)).unwrap();
    world.initiate(0);
    world.run_secs(100);
    world.assert_settled();
    assert_eq!(ended(&world, 1, EndReason::PeerDeleted), 1);
}

/// B is busy for ever with a Delete whose request never arrives: whatever A asks for has to wait (2.25).
#[test]
fn a_peer_that_cannot_for_minutes_is_left() {
    let mut world = up(5, |p| {
        p.dpd_delay = None;
        common(p).retransmit.tries = 1000;
    });
    world.traffic = false;
    let second = Arc::new(child(B, A));
    let on_b = ike(&world, 1);
    world.command(1, |e, now| e.create_child(now, on_b, second)).unwrap();
    world.run_secs(3);
    world.meddling.tamper = Some(Box::new(|_, datagram| {
        let request = Header::parse(&datagram.bytes).is_ok_and(|h| !h.flags.response);
        if request && datagram.local.ip() == B {
            datagram.bytes = vec![0; 4];
        }
    }));
    let gone = world.hosts[1].endpoint.children()[1].id;
    world.command(1, |e, now| e.delete_child(now, gone)).unwrap();
    let on_a = ike(&world, 0);
    world.command(0, |e, now| e.rekey_ike(now, on_a)).unwrap();
    world.run_secs(150);
    assert_eq!(ike(&world, 0), on_a, "patience");
    let asked = world.story().matches("N(TEMP_FAIL)").count();
    assert!((30..=80).contains(&asked), "{asked} answers\n{}", world.story());
    world.run(Duration::from_secs(60));
    assert_eq!(ended(&world, 0, EndReason::OutOfStep), 1, "{}", world.story());
    assert!(world.hosts[0].endpoint.ike_sas().is_empty());
}

/// A lost its state; B hears so without protection, asks, and believes silence alone (2.4, 2.21.4): the token that goes
/// along is not the right one.
#[test]
fn a_forgotten_sa_is_told_and_only_silence_is_believed() {
    let mut world = up(6, |p| p.dpd_delay = None);
    world.traffic = false;
    let on_a = ike(&world, 0);
    world.command(0, |e, now| e.abandon(now, on_a)).unwrap();
    world.meddling.tamper = Some(Box::new(|_, datagram| {
        if datagram.local.ip() == A
            && let Some(last) = datagram.bytes.last_mut()
        {
            *last ^= 1;
        }
    }));
    let on_b = ike(&world, 1);
    world.command(1, |e, now| e.probe(now, on_b)).unwrap();
    world.run_secs(10);
    assert!(world.story().contains("N(INVAL_IKE_SPI)"), "{}", world.story());
    assert_eq!(world.hosts[1].endpoint.ike_sas().len(), 1, "a forger could say so as well");
    world.run_secs(60);
    let silent = |e: &Event| matches!(e, Event::IkeDown { reason: Failure::Timeout { .. }, .. });
    assert_eq!(world.hosts[1].count(silent), 1);
}

#[test]
fn esp_for_an_unknown_spi_is_told_under_protection() {
    let mut world = up(7, |_| {});
    let on_a = ike(&world, 0);
    world.command(0, |e, now| e.unknown_spi(now, on_a, ipsec::Spi(0x1234_5678))).unwrap();
    world.run_secs(3);
    assert!(world.story().contains("[ N(INVAL_SPI) D ]"), "{}", world.story());
    world.assert_settled();
    world.assert_no_loss();
}
