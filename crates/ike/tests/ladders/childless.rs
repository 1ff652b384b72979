//! An IKE SA without a child SA of its own exchange (RFC 6023): the first one comes by itself.

use std::sync::Arc;

use ike::config::Childless;
use ike::error::Failure;
use ike::{Event, PeerConfig};

use crate::setup::*;
use crate::world::World;

fn world(how: Childless, f: impl Fn(&mut PeerConfig)) -> World {
    let mut world = toy(1, |p| {
        p.fragment_size = None;
        p.childless = how;
        edit_child(p, |c| c.esp_proposals = esp_suites(&["aes128gcm16-x25519"]));
        f(p);
    });
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    world
}

#[test]
fn the_first_child_sa_has_keys_of_its_own() {
    for how in [Childless::Prefer, Childless::Force] {
        let mut world = world(how, |_| {});
        world.assert_settled();
        world.assert_no_loss();
        let line = |what: &str| {
            world.ladder.iter().find(|l| l.contains(what)).expect("such a message").clone()
        };
        assert!(!line("IKE_AUTH request").contains(" SA "), "{}", world.story());
        assert!(!line("IKE_AUTH response").contains(" SA "), "{}", world.story());
        assert!(line("CREATE_CHILD_SA request").contains(" KE "), "{}", world.story());
        // Replaced by another of its kind, make before break.
        let old = world.hosts[0].endpoint.ike_sas()[0].id;
        world.initiate(0);
        world.run_secs(20);
        world.assert_settled();
        world.assert_no_loss();
        assert_ne!(world.hosts[0].endpoint.ike_sas()[0].id, old);
    }
}

#[test]
fn by_default_it_comes_with_ike_auth() {
    let world = world(Childless::Allow, |_| {});
    world.assert_settled();
    assert!(!world.story().contains("CREATE_CHILD_SA"), "{}", world.story());
}

/// The old tunnel stays where the new one gets no child SA.
#[test]
fn what_gets_no_child_sa_replaces_nothing() {
    let mut world = world(Childless::Prefer, |_| {});
    let config = world.hosts[1].directory.config.clone();
    let mut other = (*config).clone();
    edit_child(&mut other, |c| c.esp_proposals = esp_suites(&["aes256gcm16-x25519"]));
    world.hosts[1].directory.config = Arc::new(other);
    world.initiate(0);
    world.run_secs(20);
    let failed = |e: &Event| matches!(e, Event::ChildFailed { .. });
    assert_eq!(world.hosts[0].count(failed), 1, "{}", world.story());
    world.assert_no_loss();
    assert_eq!(world.hosts[0].endpoint.children().len(), 1, "{}", world.story());
}

/// The responder does not announce it.
#[test]
fn who_insists_gives_up_on_who_cannot() {
    let mut world = toy(1, |p| p.childless = Childless::Force);
    world.meddling.tamper = Some(Box::new(|_, datagram| {
        let notify = 16418_u16.to_be_bytes();
        if let Some(at) = datagram.bytes.windows(4).position(|w| w == [0, 0, notify[0], notify[1]])
        {
            datagram.bytes[at + 2] = 0x9c;
        }
    }));
    world.initiate(0);
    world.run_secs(3);
    let local = |e: &Event| match e {
        Event::IkeDown { reason: Failure::Local(text), .. } => text.contains("childless: force"),
        _ => false,
    };
    assert_eq!(world.hosts[0].count(local), 1, "{}", world.story());
}
