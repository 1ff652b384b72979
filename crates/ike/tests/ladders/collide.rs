//! Both hosts do the same at once (RFC 7296 2.8, 2.25).

use std::time::Duration;

use ike::Event;
use ike::error::{EndReason, Failure};

use crate::setup::*;
use crate::world::World;

/// Of the flags in an IKE header (RFC 7296 3.1).
const RESPONSE: u8 = 0x20;

/// Starts something on both hosts, the second `skew` after the first.
pub fn both(world: &mut World, skew: Duration, f: impl Fn(&mut World, usize)) {
    f(world, 0);
    world.run(skew);
    f(world, 1);
}

pub fn rekey_child(world: &mut World, n: usize) {
    if let Some(child) = world.hosts[n].endpoint.children().first().map(|c| c.id) {
        let _ = world.command(n, |e, now| e.rekey_child(now, child));
    }
}

pub fn rekey_ike(world: &mut World, n: usize) {
    if let Some(ike) = world.hosts[n].endpoint.ike_sas().first().map(|i| i.id) {
        let _ = world.command(n, |e, now| e.rekey_ike(now, ike));
    }
}

fn settle(world: &mut World) {
    world.settle();
    world.assert_settled();
    world.assert_no_loss();
    for host in &world.hosts {
        assert_eq!(host.count(|e| matches!(e, Event::ChildFailed { .. })), 0, "{}", world.story());
    }
}

#[test]
fn both_rekey_the_child() {
    for seed in 0..8 {
        for skew in 0..40 {
            let mut world = up(seed, |_| {});
            both(&mut world, Duration::from_millis(skew), rekey_child);
            settle(&mut world);
        }
    }
}

#[test]
fn both_rekey_the_child_with_pfs() {
    for seed in 0..8 {
        for skew in 0..40 {
            let mut world = up(seed, |p| {
                edit_child(p, |c| c.esp_proposals = esp_suites(&["aes128gcm16-ecp256"]))
            });
            both(&mut world, Duration::from_millis(skew), rekey_child);
            settle(&mut world);
        }
    }
}

#[test]
fn both_rekey_the_ike_sa() {
    for seed in 0..8 {
        for skew in 0..40 {
            let mut world = up(seed, |_| {});
            both(&mut world, Duration::from_millis(skew), rekey_ike);
            settle(&mut world);
            for host in &world.hosts {
                let redundant = |e: &Event| {
                    matches!(e, Event::IkeDown { reason: Failure::Ended(EndReason::Redundant), .. })
                };
                assert_eq!(host.count(redundant), 0, "what never was up is not reported");
            }
        }
    }
}

#[test]
fn one_rekeys_the_ike_sa_the_other_a_child() {
    for seed in 0..8 {
        for skew in 0..40 {
            for first in [0, 1] {
                let mut world = up(seed, |_| {});
                both(&mut world, Duration::from_millis(skew), |w, n| {
                    if n == first { rekey_ike(w, n) } else { rekey_child(w, n) }
                });
                settle(&mut world);
                let rekeyed = |e: &Event| matches!(e, Event::IkeRekeyed { .. });
                assert_eq!(world.hosts[0].count(rekeyed), 1, "{}", world.story());
                assert!(
                    world.hosts[0].endpoint.children()[0].replaces.is_some(),
                    "{}",
                    world.story()
                );
            }
        }
    }
}

#[test]
fn one_rekeys_what_the_other_deletes() {
    for skew in 0..40 {
        for first in [0, 1] {
            let mut world = up(1, |_| {});
            world.traffic = false;
            both(&mut world, Duration::from_millis(skew), |w, n| {
                let Some(child) = w.hosts[n].endpoint.children().first().map(|c| c.id) else {
                    return;
                };
                let _ = w.command(n, |e, now| {
                    if n == first { e.rekey_child(now, child) } else { e.delete_child(now, child) }
                });
            });
            world.run_secs(200);
            let [a, b] = &world.hosts;
            let (ca, cb) = (a.endpoint.children(), b.endpoint.children());
            assert_eq!(ca.len(), cb.len(), "{}", world.story());
            assert_eq!(
                (a.inbound().len(), b.inbound().len()),
                (ca.len(), cb.len()),
                "{}",
                world.story()
            );
        }
    }
}

#[test]
fn both_initiate() {
    for seed in 0..16 {
        for skew in 0..60 {
            let mut world = toy(seed, |_| {});
            world.traffic = true;
            both(&mut world, Duration::from_millis(skew), |w, n| {
                if w.hosts[n].endpoint.ike_sas().is_empty() {
                    w.initiate(n);
                }
            });
            world.settle();
            world.assert_settled();
            world.assert_no_loss();
        }
    }
}

/// The other side settles nothing, asks nothing, and sends nothing through the IKE SA that stays.
#[test]
fn both_initiate_and_one_never_asks() {
    for seed in 0..16 {
        let mut world = toy(seed, |_| {});
        world.meddling.tamper = Some(Box::new(|_, datagram| {
            let asks = datagram.bytes[18] == wire::registry::ExchangeType::INFORMATIONAL.0
                && datagram.bytes[19] & RESPONSE == 0;
            if asks && datagram.local.ip() == B {
                datagram.bytes.pop();
            }
        }));
        both(&mut world, Duration::from_millis(5), |w, n| {
            w.initiate(n);
        });
        world.run_secs(20);
        assert_eq!(world.hosts[0].inbound().len(), 1, "{}", world.story());
        world.meddling.tamper = None;
        world.settle();
        world.assert_settled();
    }
}
