//! A gateway sends its tunnel to another one (RFC 5685): followed where the manifest says so, named where not.

mod world;

use std::net::IpAddr;
use std::time::Duration;

use ike::endpoint::Datagram;
use ike::redirect::MAX_REDIRECTS;
use mesh::{Command, Input, Kind};
use wire::message::{Flags, Header, encode_plain, parse};
use wire::payload::{Notify, Payload};
use wire::registry::{ExchangeType, NotifyType};
use world::{World, address, manifest, target};

/// The other gateway; no host of the manifest.
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn world(gateway: &str) -> World {
    let peers = format!("peers: [{{address: 10.0.0.2, {gateway}}}, {{address: 10.0.0.3}}]\n");
    let mut world = World::new(1, &manifest(&format!("mode: tunnel\n{peers}")));
    world.command(0, Command::Up(target(1)));
    world.run(Duration::from_millis(500));
    world
}

/// The IKE_SA_INIT requests that went to an address.
fn requests(world: &World, to: IpAddr) -> Vec<&Datagram> {
    let first = |d: &&Datagram| {
        let header = Header::parse(&d.bytes);
        header.is_ok_and(|h| h.exchange == ExchangeType::IKE_SA_INIT)
    };
    world.nowhere.iter().filter(|d| d.remote.ip() == to).filter(first).collect()
}

/// The gateway that was asked last sends the host to another one.
fn redirect(world: &mut World, from: IpAddr, to: IpAddr) {
    let request = (*requests(world, from).last().expect("a request")).clone();
    let message = parse(&request.bytes).unwrap();
    let nonce = message.payloads.iter().find_map(|payload| match payload {
        Payload::Nonce(nonce) => Some(nonce.clone()),
        _ => None,
    });
    let IpAddr::V4(to) = to else { panic!("an IPv4 address") };
    let data = [&[1, 4], &to.octets()[..], &nonce.unwrap()].concat();
    let flags = Flags { initiator: false, version: false, response: true };
    let notify = Payload::Notify(Notify::new(NotifyType::REDIRECT, data));
    let bytes = encode_plain(&Header { flags, ..message.header }, &[notify]);
    let (local, remote) = (request.local, request.remote);
    world.input(0, Input::Datagram(Datagram { local, remote, bytes }));
    world.run(Duration::from_millis(1500));
}

fn counted(world: &World, name: &str) -> f64 {
    let samples = world.hosts[0].mesh.metrics(world.clock());
    samples.iter().find(|s| s.name == name).map(|s| s.value).unwrap()
}

fn assert_refused(world: &World, why: &str) {
    let status = world.peer(0, 1);
    let error = status.last_error.unwrap_or_default();
    assert!(error.contains(why), "{error}\n{}", world.story(0, 1));
    assert_eq!(counted(world, "warren_redirects_refused_total"), 1.0);
    assert!(world.count(0, Kind::Redirect) > 0);
}

#[test]
fn a_gateway_that_may_is_followed() {
    let mut world = world("id: gateway.example, redirect: true");
    redirect(&mut world, address(1), OTHER);
    assert_eq!(counted(&world, "warren_redirects_followed_total"), 1.0, "{}", world.story(0, 1));
    assert!(!requests(&world, OTHER).is_empty(), "{}", world.story(0, 1));
    let before = requests(&world, address(1)).len();
    world.seconds(5);
    assert_eq!(requests(&world, address(1)).len(), before, "one attempt at a time");
    // Nobody answers there: it begins at home again.
    world.seconds(100);
    assert!(requests(&world, address(1)).len() > before, "{}", world.story(0, 1));
}

#[test]
fn what_is_not_followed_is_named_and_counted() {
    let mut off = world("id: gateway.example");
    redirect(&mut off, address(1), OTHER);
    assert_refused(&off, "it was not asked for (`redirect: true` of a peer, in tunnel mode)");
    assert!(requests(&off, OTHER).is_empty());
    for taken in [address(2), address(0)] {
        let mut world = world("id: gateway.example, redirect: true");
        redirect(&mut world, address(1), taken);
        assert_refused(&world, "is this host's address, or that of another peer");
        assert!(requests(&world, taken).is_empty());
    }
}

#[test]
fn gateways_that_send_it_around_are_left_alone() {
    let mut world = world("id: gateway.example, redirect: true");
    let (mut from, mut to) = (address(1), OTHER);
    for n in 0..MAX_REDIRECTS {
        redirect(&mut world, from, to);
        (from, to) = (to, from);
        assert_eq!(counted(&world, "warren_redirects_followed_total"), (n + 1) as f64);
    }
    redirect(&mut world, from, to);
    assert_refused(&world, "a loop");
    assert_eq!(counted(&world, "warren_redirects_followed_total"), MAX_REDIRECTS as f64);
}
