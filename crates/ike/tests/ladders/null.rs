//! NULL authentication (RFC 7619): where both ends are configured so, and nowhere else.

use std::sync::Arc;

use crypto::toy::Toy;
use ike::error::{AuthError, Failure};
use ike::record::RestoreError;
use ike::{Auth, Event, PeerConfig, Ppk};

use crate::collide::{rekey_child, rekey_ike};
use crate::setup::*;
use crate::world::World;

fn down(world: &World, n: usize) -> Option<Failure> {
    world.hosts[n].events.iter().find_map(|e| match e {
        Event::IkeDown { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

#[test]
fn two_that_prove_nothing() {
    for ppk in [
        None,
        Some(Ppk { id: b"pair".to_vec(), secret: b"of this pair"[..].into(), required: true }),
    ] {
        let mut world = up(1, |p| {
            p.auth = Auth::Null;
            p.fragment_size = None;
            p.ppk = ppk.clone().map(Box::new);
        });
        for host in &world.hosts {
            assert!(host.endpoint.ike_sas()[0].remote_id.is_null(), "{}", world.story());
        }
        assert!(!world.story().contains("INIT_CONTACT"), "nobody's word\n{}", world.story());
        assert!(!world.story().contains("QCD_TOKEN"), "nobody's token\n{}", world.story());
        rekey_child(&mut world, 1);
        world.run_secs(10);
        rekey_ike(&mut world, 0);
        world.run_secs(10);
        world.assert_settled();
        world.assert_no_loss();
    }
}

/// One end says that it proves nothing: the other, which does, refuses it, whoever begins.
#[test]
fn one_alone_is_refused() {
    type Way = fn(&mut PeerConfig);
    let ways: [(&str, Way); 2] = [
        ("a pre-shared key", |_| {}),
        ("a certificate", |p| {
            p.auth = Auth::Certificate(Arc::new(crypto::toy::credentials("host")));
        }),
    ];
    for (proof, way) in ways {
        for first in [0, 1] {
            let (mut a, mut b) = peers(way);
            b.auth = Auth::Null;
            a.fragment_size = None;
            let mut world = World::new(Arc::new(Toy), 1, a, b);
            world.initiate(first);
            world.run_secs(20);
            for host in &world.hosts {
                assert_eq!(host.count(|e| matches!(e, Event::IkeUp(_))), 0, "{}", world.story());
            }
            if first == 0 {
                // It proves itself all the same, and is told that this is of no use.
                assert_eq!(down(&world, 0), Some(Failure::RefusedByPeer), "{}", world.story());
                let method = Failure::PeerAuth(AuthError::MethodNotAllowed(proof.into()));
                assert_eq!(down(&world, 1), Some(method), "{}", world.story());
                continue;
            }
            let reason = down(&world, 1).map(|r| r.to_string()).unwrap_or_default();
            assert!(reason.contains("takes no proof"), "{reason}\n{}", world.story());
        }
    }
}

/// The same where the initiator does not care for what is announced.
#[test]
fn a_peer_that_proves_nothing_is_not_let_in() {
    let (a, mut b) = peers(|p| p.fragment_size = None);
    let mut a = a;
    a.auth = Auth::Null;
    b.remote_id = None;
    let mut world = World::new(Arc::new(Toy), 1, a, b);
    world.meddling.tamper = Some(Box::new(|_, datagram| {
        // What the responder announces, a pre-shared key, becomes what suits the initiator.
        let notify = [0x40, 0x3b, 2, 2];
        if let Some(at) = datagram.bytes.windows(4).position(|w| w == notify) {
            datagram.bytes[at + 3] = 13;
        }
    }));
    world.initiate(0);
    world.run_secs(20);
    let method = Failure::PeerAuth(AuthError::MethodNotAllowed("NULL".into()));
    assert_eq!(down(&world, 1), Some(method), "{}", world.story());
    assert_eq!(down(&world, 0), Some(Failure::RefusedByPeer), "{}", world.story());
}

/// An IKE SA of nobody does not go on where somebody is asked for now.
#[test]
fn what_was_not_proven_is_not_restored_as_proven() {
    let world = up(1, |p| p.auth = Auth::Null);
    let (host, now) = (&world.hosts[0], world.at());
    let record = host.endpoint.export(host.endpoint.ike_sas()[0].id).expect("a record");
    let mut config = (*host.directory.config).clone();
    config.auth = Auth::Psk(crypto::Secret::from(&b"a pre-shared key of good length"[..]).into());
    let limits = crate::world::LIMITS;
    let mut next = ike::Endpoint::new(limits, Arc::new(Toy), [5; 32]);
    let refused = next.restore(now, record.clone(), Arc::new(config));
    assert!(matches!(refused, Err(RestoreError::Identity(_))), "{refused:?}");
    let same = next.restore(now, record, host.directory.config.clone());
    assert!(same.is_ok(), "{same:?}");
}
