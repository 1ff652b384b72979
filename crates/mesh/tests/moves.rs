//! A tunnel whose peer is at another address than the one it is known by (RFC 4555, RFC 5685).

mod world;

use std::net::IpAddr;

use ipsec::Spi;
use ipsec::dataplane::DataplaneEvent;
use ipsec::sa::SaKey;
use mesh::{Input, Kind};
use world::{World, address, manifest};

/// Where host 1 goes; it lies in the protected network, and nobody else is there.
fn away() -> IpAddr {
    address(93)
}

/// Host 1 has a tunnel with host 0, and has moved.
fn moved() -> World {
    let mut world = World::new(2, &manifest("mode: tunnel\nmobike: true\n"));
    world.hosts[1].also.push(away());
    world.send(0, 1, b"hello");
    world.seconds(2);
    world.input(1, Input::Addresses(vec![away()]));
    world.seconds(2);
    assert_eq!(world.count(0, Kind::IkeUpdate), 1, "{}", world.story(0, 1));
    assert_talks(&mut world);
    world
}

fn assert_talks(world: &mut World) {
    let got = |world: &World| [0, 1].map(|host| world.hosts[host].got.len());
    let before = got(world);
    let times = world.chat(10);
    assert_eq!(got(world), before.map(|n| n + times), "{}", world.story(0, 1));
}

fn unknown(world: &mut World, src: IpAddr, spi: Spi) {
    let key = SaKey { dst: address(0), spi };
    world.input(0, Input::Kernel(DataplaneEvent::UnknownSpi { src, key }));
}

#[test]
fn esp_from_where_a_peer_has_moved_to_is_of_that_peer() {
    let mut world = moved();
    let (single, begun) = (world.single(0, 1), world.count(0, Kind::Connecting));
    for spi in 0..10 {
        unknown(&mut world, away(), Spi(4711 + spi));
        world.seconds(1);
    }
    assert_eq!(world.count(0, Kind::Connecting), begun, "{}", world.story(0, 1));
    assert_eq!(world.single(0, 1), single);
}

/// The peer may have sent before its response was looked at here.
#[test]
fn esp_that_came_before_its_sa_was_installed_is_no_sign_of_a_lost_one() {
    let mut world = moved();
    let single = world.single(0, 1);
    let spi = world.peer(0, 1).child_sas[0].spi_in.clone();
    for src in [away(), address(1)] {
        unknown(&mut world, src, Spi(u32::from_str_radix(&spi, 16).unwrap()));
        world.seconds(5);
        assert_eq!(world.single(0, 1), single, "{}", world.story(0, 1));
    }
}
