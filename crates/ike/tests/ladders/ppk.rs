//! Post-quantum pre-shared keys (RFC 8784).

use std::sync::Arc;

use crypto::Secret;
use crypto::toy::Toy;
use ike::error::{AuthError, Failure};
use ike::{Auth, Event, PeerConfig, Ppk};

use crate::collide::{rekey_child, rekey_ike};
use crate::setup::*;
use crate::world::World;

fn ppk(id: &str, secret: &[u8], required: bool) -> Option<Box<Ppk>> {
    Some(Box::new(Ppk { id: id.into(), secret: Secret::from(secret), required }))
}

/// Both with the key of the fleet, each changed by `f`.
fn world(seed: u8, certificates: bool, f: impl Fn(&mut PeerConfig, usize)) -> World {
    let (mut a, mut b) = peers(|p| {
        p.fragment_size = None;
        p.ppk = ppk("fleet", b"one secret of the fleet's own", false);
        if certificates {
            p.auth = Auth::Certificate(Arc::new(crypto::toy::credentials("host")));
        }
    });
    f(&mut a, 0);
    f(&mut b, 1);
    let mut world = World::new(Arc::new(Toy), seed, a, b);
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    world
}

fn settled(world: &mut World) {
    world.assert_settled();
    world.assert_no_loss();
    rekey_child(world, 1);
    world.run_secs(10);
    rekey_ike(world, 0);
    world.run_secs(10);
    world.assert_settled();
    world.assert_no_loss();
}

fn line<'a>(world: &'a World, what: &str) -> &'a str {
    world.ladder.iter().find(|l| l.contains(what)).map_or("", |l| l.as_str())
}

fn down(world: &World, n: usize) -> Option<Failure> {
    world.hosts[n].events.iter().find_map(|e| match e {
        Event::IkeDown { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

#[test]
fn both_have_it() {
    for certificates in [false, true] {
        for required in [[false, false], [true, false], [false, true], [true, true]] {
            let mut world = world(1, certificates, |p, n| {
                p.ppk.as_mut().unwrap().required = required[n];
                p.ike_proposals = ike_suites(&["aes128-sha256-x25519-ke1_mlkem512"]);
            });
            let request = line(&world, "IKE_AUTH request");
            assert!(request.contains("N(PPK_ID)"), "{request}");
            assert_eq!(request.contains("N(NO_PPK)"), !required[0], "{request}");
            assert!(line(&world, "IKE_AUTH response").contains("N(PPK_ID)"), "{}", world.story());
            settled(&mut world);
        }
    }
}

#[test]
fn one_does_not_have_it() {
    for certificates in [false, true] {
        for without in [0, 1] {
            let mut world = world(1, certificates, |p, n| {
                if n == without {
                    p.ppk = None;
                }
            });
            assert!(!line(&world, "IKE_AUTH request").contains("PPK"), "{}", world.story());
            settled(&mut world);
        }
    }
}

/// The responder does not know the name: the proof without the key counts.
#[test]
fn another_name() {
    for certificates in [false, true] {
        let mut world = world(1, certificates, |p, n| {
            if n == 1 {
                p.ppk = ppk("another", b"another secret of the fleet", false);
            }
        });
        assert!(line(&world, "IKE_AUTH request").contains("N(PPK_ID)"), "{}", world.story());
        assert!(!line(&world, "IKE_AUTH response").contains("PPK"), "{}", world.story());
        settled(&mut world);
    }
}

#[test]
fn one_insists() {
    // The initiator: already when the responder does not speak of it, and when it does not know the name.
    let none = world(1, false, |p, n| {
        p.ppk = if n == 0 { ppk("fleet", b"one secret of the fleet's own", true) } else { None };
    });
    let reason = down(&none, 0).map(|r| r.to_string()).unwrap_or_default();
    assert!(reason.contains("ppk_required"), "{reason}\n{}", none.story());
    let other = world(1, false, |p, n| {
        let id = ["fleet", "another"][n];
        p.ppk = ppk(id, b"one secret of the fleet's own", n == 0);
    });
    assert!(
        matches!(down(&other, 1), Some(Failure::PeerAuth(AuthError::Ppk(_)))),
        "{}",
        other.story()
    );
    assert_eq!(down(&other, 0), Some(Failure::RefusedByPeer), "{}", other.story());
    // The responder.
    for id in [None, Some("another")] {
        let world = world(1, false, |p, n| match (n, id) {
            (0, None) => p.ppk = None,
            (0, Some(id)) => p.ppk = ppk(id, b"one secret of the fleet's own", false),
            _ => p.ppk.as_mut().unwrap().required = true,
        });
        let reason = down(&world, 1);
        assert!(matches!(reason, Some(Failure::PeerAuth(AuthError::Ppk(_)))), "{}", world.story());
        assert_eq!(down(&world, 0), Some(Failure::RefusedByPeer));
    }
}

/// The same name, another secret: nothing is agreed on, and no key leaves a trace of which it was.
#[test]
fn another_secret() {
    let world = world(1, false, |p, n| {
        if n == 1 {
            p.ppk = ppk("fleet", b"another secret of the fleet", false);
        }
    });
    assert!(
        matches!(down(&world, 1), Some(Failure::PeerAuth(AuthError::BadProof(_)))),
        "{}",
        world.story()
    );
    assert!(world.hosts.iter().all(|h| h.endpoint.children().is_empty()));
}

/// Bytes of the responder's answer that says that it took the key.
#[test]
fn what_is_said_of_it_cannot_be_changed() {
    let mut world = toy(1, |p| {
        p.fragment_size = None;
        p.ppk = ppk("fleet", b"one secret of the fleet's own", false);
    });
    world.meddling.lie = Some(Box::new(|plain| {
        // The response's PPK_IDENTITY has no data: eight bytes in all.
        let empty = [0, 8, 0, 0];
        let at =
            plain.windows(6).position(|w| w[..4] == empty && w[4..] == 16436_u16.to_be_bytes());
        if let Some(at) = at {
            plain[at + 5] ^= 0x40;
        }
    }));
    world.initiate(0);
    world.run_secs(20);
    assert!(
        matches!(down(&world, 0), Some(Failure::PeerAuth(AuthError::BadProof(_)))),
        "{}",
        world.story()
    );
}
