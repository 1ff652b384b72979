//! A NAT between the hosts (RFC 7296 2.23, RFC 3948).

use std::net::SocketAddr;
use std::time::Duration;

use ike::Event;
use wire::payload::Payload;
use wire::registry::ExchangeType;
use wire::selector::TrafficSelector;

use crate::setup::*;
use crate::world::World;

const PUBLIC: &str = "198.51.100.7";

/// A is behind a NAT that shows as `PUBLIC` with ports from `base` on; B is not.
fn behind_nat(base: u16) -> World {
    behind_nat_with(base, Duration::from_secs(40))
}

fn behind_nat_with(base: u16, dpd_delay: Duration) -> World {
    let (a, mut b) = peers(|p| p.dpd_delay = Some(dpd_delay));
    b.remote = PUBLIC.parse().unwrap();
    edit_child(&mut b, |c| c.remote_ts = child(B, PUBLIC.parse().unwrap()).remote_ts);
    let mut world = World::new(std::sync::Arc::new(crypto::toy::Toy), 1, a, b);
    world.nat_port = Some(base);
    world
}

fn public(port: u16) -> SocketAddr {
    SocketAddr::new(PUBLIC.parse().unwrap(), port)
}

#[test]
fn esp_goes_in_udp_and_keepalives_flow() {
    let mut world = behind_nat(20_000);
    world.traffic = true;
    world.initiate(0);
    world.run_secs(100);
    let story = world.story();
    let (a, b) = (&world.hosts[0], &world.hosts[1]);
    assert_eq!(a.endpoint.ike_sas()[0].remote.port(), 4500, "{story}");
    assert_eq!(b.endpoint.ike_sas()[0].remote, public(24_500), "{story}");
    let encap = b.outbound()[0].encap.unwrap();
    assert_eq!((encap.local_port, encap.remote_port), (4500, 24_500));
    // RFC 7296 2.23.1: A names its own address, B's data plane sees the public one.
    assert_eq!(a.endpoint.children()[0].local_ts, *child(A, B).local_ts);
    assert_eq!(b.endpoint.children()[0].remote_ts, *child(B, PUBLIC.parse().unwrap()).remote_ts);
    assert!(world.keepalives >= 4, "{} keepalives", world.keepalives);
    assert_eq!(world.lost, 0);
}

#[test]
fn a_new_mapping_is_followed_on_verified_messages_alone() {
    let mut world = behind_nat(20_000);
    world.initiate(0);
    world.run_secs(10);
    let recorded = world.recorded.clone();
    // A replay from elsewhere moves nothing.
    for (to, mut datagram) in recorded {
        if to == 1 {
            datagram.remote = "203.0.113.66:4500".parse().unwrap();
            world.inject(1, datagram);
        }
    }
    world.run_secs(1);
    assert_eq!(world.hosts[1].count(|e| matches!(e, Event::PeerMoved { .. })), 0);
    world.nat_port = Some(30_000);
    world.run_secs(100);
    let moved = |e: &Event| matches!(e, Event::PeerMoved { remote, sas, .. } if *remote == public(34_500) && sas.len() == 2);
    assert_eq!(world.hosts[1].count(moved), 1, "{}", world.story());
    assert_eq!(world.hosts[1].endpoint.ike_sas()[0].remote, public(34_500));
    assert_eq!(world.hosts[0].count(|e| matches!(e, Event::PeerMoved { .. })), 0);
    // Rekeys go on through the new mapping.
    crate::collide::rekey_child(&mut world, 1);
    world.run_secs(10);
    assert_eq!(world.hosts[1].outbound()[0].encap.unwrap().remote_port, 34_500);
}

#[test]
fn a_new_mapping_is_shown_within_a_keepalives_time_though_nobody_sends() {
    let mut world = behind_nat_with(20_000, Duration::from_secs(600));
    world.initiate(0);
    let moved = |to: SocketAddr| move |e: &Event| matches!(e, Event::PeerMoved { remote, .. } if *remote == to);
    // At any time between two keepalives.
    for (number, wait) in (0..).zip([25, 31, 38, 44]) {
        world.run_secs(wait);
        world.nat_port = Some(30_000 + number);
        world.run_secs(21);
        let new = public(30_000 + number + 4500);
        assert_eq!(world.hosts[1].count(moved(new)), 1, "{}", world.story());
    }
}

/// What `from` asked for in its CREATE_CHILD_SA requests: TSi and TSr.
fn asked(world: &World, from: usize) -> Vec<[Vec<TrafficSelector>; 2]> {
    let sent = world.recorded.iter().filter(|(to, _)| *to != from).map(|(_, datagram)| datagram);
    let selectors = |datagram| {
        let (header, payloads) =
            crate::decrypt::open(&world.hosts[from].endpoint, &crypto::toy::Toy, datagram)?;
        let side = |f: fn(Payload) -> Option<Vec<TrafficSelector>>| {
            payloads.clone().into_iter().find_map(f)
        };
        let tsi = side(|p| if let Payload::TsI(ts) = p { Some(ts) } else { None })?;
        let tsr = side(|p| if let Payload::TsR(ts) = p { Some(ts) } else { None })?;
        let asks = header.exchange == ExchangeType::CREATE_CHILD_SA && !header.flags.response;
        asks.then_some([tsi, tsr])
    };
    sent.filter_map(selectors).collect()
}

/// RFC 7296 2.9.2: the selectors of the old SA. To a peer behind a NAT that replaces no addresses (2.23.1), those that the
/// NAT makes of its own are another's.
#[test]
fn a_rekey_calls_both_hosts_what_they_were_called_before() {
    for restarted in [false, true] {
        let mut world = behind_nat(20_000);
        world.initiate(0);
        world.run_secs(10);
        if restarted {
            world.restart(1, true);
            world.run_secs(10);
        }
        world.recorded.clear();
        for host in [1, 1, 0, 1] {
            crate::collide::rekey_child(&mut world, host);
            world.run_secs(10);
        }
        let story = world.story();
        let host = |at| vec![TrafficSelector::host(at)];
        assert_eq!(asked(&world, 1), vec![[host(B), host(A)]; 3], "{story}");
        assert_eq!(asked(&world, 0), [[host(A), host(B)]], "{story}");
        // Its data plane goes on with the address that it sees.
        let children = world.hosts[1].endpoint.children();
        assert_eq!(children.len(), 1, "{story}");
        assert_eq!(children[0].remote_ts, host(PUBLIC.parse().unwrap()), "{story}");
    }
}
