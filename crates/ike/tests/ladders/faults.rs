//! Each single message lost, doubled or late: in the end both hosts agree, and no data packet was lost.

use std::time::Duration;

use crate::collide::{both, rekey_child, rekey_ike};
use crate::setup::*;
use crate::world::{Fate, World};

const FATES: [Fate; 5] = [
    Fate::Lose,
    Fate::Twice,
    Fate::Late(Duration::from_millis(15)),
    Fate::Late(Duration::from_millis(1100)),
    Fate::Late(Duration::from_secs(4)),
];

/// Runs a story once undisturbed, then with each message in turn disturbed.
pub fn disturb(make: impl Fn() -> World, story: impl Fn(&mut World), lossless: bool) {
    let mut plain = make();
    let first = plain.sent;
    story(&mut plain);
    plain.settle();
    plain.assert_settled();
    let messages = plain.sent;
    assert!(messages > first);
    for index in first..messages {
        for fate in FATES {
            let mut world = make();
            world.fates.insert(index, fate);
            story(&mut world);
            world.settle();
            world.assert_settled();
            if lossless {
                world.assert_no_loss();
            }
        }
    }
}

pub fn fresh() -> World {
    let mut world = toy(3, |p| p.dpd_delay = None);
    world.traffic = true;
    world
}

fn ready() -> World {
    up(3, |p| p.dpd_delay = None)
}

#[test]
fn establishing() {
    // A responder may send before a late initiator is ready, when its patience is over: not lossless.
    disturb(
        fresh,
        |w| {
            w.initiate(0);
        },
        false,
    );
}

#[test]
fn rekeying_the_child() {
    for side in [0, 1] {
        disturb(ready, |w| rekey_child(w, side), true);
    }
}

#[test]
fn rekeying_the_ike_sa() {
    for side in [0, 1] {
        disturb(ready, |w| rekey_ike(w, side), true);
    }
}

#[test]
fn both_rekeying_the_child() {
    for skew in [0, 5, 12] {
        disturb(ready, |w| both(w, Duration::from_millis(skew), rekey_child), true);
    }
}

#[test]
fn both_rekeying_the_ike_sa() {
    for skew in [0, 5, 12] {
        disturb(ready, |w| both(w, Duration::from_millis(skew), rekey_ike), true);
    }
}

#[test]
fn both_initiating() {
    for skew in [0, 5, 12, 21, 25, 33] {
        disturb(
            fresh,
            |w| {
                both(w, Duration::from_millis(skew), |w, n| {
                    w.initiate(n);
                });
            },
            false,
        );
    }
}
