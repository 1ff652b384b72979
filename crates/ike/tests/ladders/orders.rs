//! Two hosts act at once: every order of their messages, and each order with any one message lost, doubled
//! or late. In the end there is one IKE SA and one child SA, the same at both ends; there was an inbound SA
//! whenever the peer may have sent to it; nothing is left over.
//!
//! `./x ladders` also has jobs done at any time: many more orders, and with a fault besides so many that the longest are sampled.

use std::time::Duration;

use ike::config::Retransmit;
use ike::{Event, PeerConfig};

use crate::collide::{rekey_child, rekey_ike};
use crate::explore::{Command, Plan, explore, sample};
use crate::setup::*;
use crate::world::World;

/// Set for the long run.
const WHOLE: &str = "WARREN_LADDERS_WHOLE";

fn tune(peer: &mut PeerConfig) {
    peer.dpd_delay = None;
    // As the fleet has it.
    common(peer).retransmit = Retransmit {
        first: Duration::from_millis(500),
        factor_percent: 200,
        cap: Duration::from_secs(4),
        tries: 10,
    };
}

fn fresh() -> World {
    toy(3, tune)
}

fn ready() -> World {
    let mut world = toy(3, tune);
    world.quiet = true;
    world.initiate(0);
    world.run(Duration::from_secs(3));
    world.assert_settled();
    world.ladder.clear();
    world
}

fn initiate(world: &mut World, n: usize) {
    world.initiate(n);
}

fn delete_child(world: &mut World, n: usize) {
    if let Some(child) = world.hosts[n].endpoint.children().first().map(|c| c.id) {
        let _ = world.command(n, |e, now| e.delete_child(now, child));
    }
}

fn delete_ike(world: &mut World, n: usize) {
    if let Some(ike) = world.hosts[n].endpoint.ike_sas().first().map(|i| i.id) {
        let _ = world.command(n, |e, now| e.delete_ike(now, ike));
    }
}

/// Everything that is not to stay is gone: after the last Delete there is nothing to wait for.
fn nothing_left(world: &mut World) {
    for host in 0..2 {
        for ike in world.hosts[host].endpoint.ike_sas() {
            let _ = world.command(host, |e, now| e.delete_ike(now, ike.id));
        }
    }
    world.run_secs(200);
    for host in &world.hosts {
        assert_eq!(host.endpoint.next_timeout(), None, "left over\n{}", world.story());
        assert!(host.inbound().is_empty() && host.outbound().is_empty(), "{}", world.story());
    }
}

/// One tunnel, and no gap on the way to it.
fn one(world: &mut World) {
    world.run_secs(150);
    world.assert_settled();
    assert!(world.gaps.is_empty(), "{:?}\n{}", world.gaps, world.story());
    for host in &world.hosts {
        let failed = host.count(|e| matches!(e, Event::ChildFailed { .. }));
        assert_eq!(failed, 0, "{}", world.story());
    }
    nothing_left(world);
}

/// Whatever is left is the same at both ends.
fn agreed(world: &mut World) {
    world.run_secs(200);
    let [a, b] = &world.hosts;
    let ikes = |n: usize| -> Vec<_> {
        world.hosts[n].endpoint.ike_sas().iter().map(|i| (i.spi_i.0, i.spi_r.0)).collect()
    };
    assert_eq!(ikes(0), ikes(1), "IKE SAs\n{}", world.story());
    assert!(ikes(0).len() <= 1);
    let (ca, cb) = (a.endpoint.children(), b.endpoint.children());
    let there: Vec<_> = ca.iter().map(|c| (c.spi_in, c.spi_out)).collect();
    let here: Vec<_> = cb.iter().map(|c| (c.spi_out, c.spi_in)).collect();
    assert_eq!(there, here, "child SAs\n{}", world.story());
    for host in &world.hosts {
        let data_plane = (host.inbound().len(), host.outbound().len());
        assert_eq!(data_plane, (ca.len(), ca.len()), "{}", world.story());
    }
    nothing_left(world);
}

/// More orders than this take hours …
const MOST: usize = 10_000_000;
/// … and so many of them are walked by chance instead.
const SOME: u32 = 300_000;

/// In the short run: all orders without a fault, jobs done at once, and a sample of those with a fault and jobs
/// done at any time. In the long run all with jobs done at any time, all with a fault, and all with both, or
/// a sample where these are too many. `floor`: so many orders there are in the short run at least.
fn walk(start: fn() -> World, commands: [Option<Command>; 2], end: fn(&mut World), floor: usize) {
    let plan = |faults, slow_jobs| Plan { start, commands, faults, slow_jobs, end };
    let orders = explore(&plan(0, false));
    assert!(orders >= floor, "only {orders} orders");
    if std::env::var_os(WHOLE).is_none() {
        return sample(&plan(1, true), 400);
    }
    let (slow, faulty) = (explore(&plan(0, true)), explore(&plan(1, false)));
    let about = slow * faulty / orders;
    let both = match about > MOST {
        true => {
            sample(&plan(1, true), SOME);
            format!("{SOME} of about {about}, by chance")
        }
        false => explore(&plan(1, true)).to_string(),
    };
    eprintln!("{orders} orders; {slow} with slow jobs, {faulty} with a fault, with both: {both}");
}

macro_rules! orders {
    ($($name:ident: $start:ident, $a:expr, $b:expr, $end:ident, $floor:expr;)*) => {
        $(#[test]
        fn $name() {
            walk($start, [$a, $b], $end, $floor);
        })*
    };
}

orders! {
    one_initiates: fresh, Some(initiate), None, one, 1;
    both_initiate: fresh, Some(initiate), Some(initiate), one, 600;
    one_rekeys_the_child: ready, Some(rekey_child), None, one, 1;
    the_other_rekeys_the_child: ready, None, Some(rekey_child), one, 1;
    both_rekey_the_child: ready, Some(rekey_child), Some(rekey_child), one, 30;
    one_rekeys_the_ike_sa: ready, Some(rekey_ike), None, one, 1;
    both_rekey_the_ike_sa: ready, Some(rekey_ike), Some(rekey_ike), one, 45;
    child_and_ike_sa: ready, Some(rekey_child), Some(rekey_ike), one, 40;
    ike_sa_and_child: ready, Some(rekey_ike), Some(rekey_child), one, 50;
    one_reauthenticates: ready, Some(initiate), None, one, 1;
    the_other_reauthenticates: ready, None, Some(initiate), one, 1;
    both_reauthenticate: ready, Some(initiate), Some(initiate), one, 5000;
    reauthentication_and_child: ready, Some(initiate), Some(rekey_child), one, 300;
    reauthentication_and_ike_sa: ready, Some(initiate), Some(rekey_ike), one, 330;
    both_delete_the_child: ready, Some(delete_child), Some(delete_child), agreed, 8;
    one_deletes_the_child_that_the_other_rekeys: ready, Some(delete_child), Some(rekey_child), agreed, 11;
    one_deletes_the_child_the_other_rekeys_the_ike_sa: ready, Some(delete_child), Some(rekey_ike), agreed, 18;
    both_delete_the_ike_sa: ready, Some(delete_ike), Some(delete_ike), agreed, 8;
    one_deletes_the_ike_sa_that_the_other_rekeys: ready, Some(delete_ike), Some(rekey_ike), agreed, 17;
    one_deletes_the_ike_sa_whose_child_the_other_rekeys: ready, Some(delete_ike), Some(rekey_child), agreed, 15;
    one_deletes_the_ike_sa_the_other_its_child: ready, Some(delete_ike), Some(delete_child), agreed, 9;
}
