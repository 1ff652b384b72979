//! What anybody on the network can cause, and what a member can that turns against the others: it stays small.

mod world;

use std::net::{IpAddr, SocketAddr};

use ike::endpoint::Datagram;
use ipsec::Spi;
use ipsec::dataplane::{Dataplane, DataplaneEvent};
use ipsec::sa::SaKey;
use mesh::event::Level;
use mesh::{Input, Kind};
use wire::message::{Flags, Header, IkeSpi, encode_plain};
use wire::payload::{KePayload, Payload};
use wire::registry::{ExchangeType, Ke, PayloadType};
use world::{PSK, World, address, manifest};

fn wide() -> String {
    format!("ipsec_subnets: [10.0.0.0/16]\npsk: {PSK}\n")
}

/// Addresses where nobody is.
fn made_up() -> impl Iterator<Item = IpAddr> {
    (0..4000u16).map(|n| IpAddr::from([10, 0, 1 + (n >> 8) as u8, n as u8]))
}

#[test]
fn esp_from_made_up_addresses_starts_few_handshakes_and_none_for_long() {
    let mut world = World::new(2, &wide());
    world.seconds(1);
    for src in made_up() {
        let key = SaKey { dst: address(0), spi: Spi(4711) };
        world.input(0, Input::Kernel(DataplaneEvent::UnknownSpi { src, key }));
    }
    world.send(0, 1, b"hello");
    world.seconds(2);
    world.assert_one_tunnel(0, 1);
    world.seconds(120);
    let begun = world.count(0, Kind::Connecting);
    assert!(begun <= 200, "{begun} handshakes with nobody");
    let before = world.datagrams.len();
    world.seconds(600);
    let after = world.datagrams.len() - before;
    assert!(after <= 100, "{after} datagrams where only liveness is to be seen");
}

/// A first request whose proposals are not acceptable.
fn first_request(from: IpAddr) -> Datagram {
    let header = Header {
        spi_i: IkeSpi(99),
        spi_r: IkeSpi(0),
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags { initiator: true, version: false, response: false },
        message_id: 0,
        length: 0,
    };
    let mut proposal = wire::suite_text::parse_ike("aes256-sha512-modp4096").unwrap();
    proposal.number = 1;
    let bytes = encode_plain(
        &header,
        &[
            Payload::Sa(vec![proposal]),
            Payload::Ke(KePayload { method: Ke::MODP_4096, data: vec![7; 512] }),
            Payload::Nonce(vec![9; 32]),
        ],
    );
    Datagram { local: SocketAddr::new(address(0), 500), remote: SocketAddr::new(from, 500), bytes }
}

#[test]
fn first_requests_from_made_up_addresses_do_not_flood_the_log() {
    let mut world = World::new(2, &wide());
    world.seconds(1);
    for from in made_up() {
        world.input(0, Input::Datagram(first_request(from)));
    }
    let mismatch = world.count(0, Kind::ProposalMismatchIke);
    assert_eq!(mismatch, 4000, "each is there for who looks closely");
    let warnings = world.hosts[0].events.iter().filter(|(_, e)| e.level >= Level::Warn).count();
    assert!((1..=40).contains(&warnings), "{warnings} warnings");
}

/// ESP in UDP that verifies and comes from a third host's address: its sender does not get that host's packets.
#[test]
fn a_member_does_not_take_over_anothers_address() {
    let mut world = World::new(3, &manifest("force_udp_encapsulation: true\n"));
    world.send(0, 1, b"x");
    world.seconds(5);
    world.assert_one_tunnel(0, 1);
    let now = world.now;
    let sas = world.hosts[0].plane.snapshot(now).sas;
    let inbound = sas.iter().map(|usage| usage.key).find(|key| key.dst == address(0)).unwrap();
    let moved = |remote| Input::Kernel(DataplaneEvent::Moved { key: inbound, remote });
    world.input(0, moved(SocketAddr::new(address(2), 4500)));
    let sas = world.hosts[0].plane.snapshot(now).sas;
    assert!(sas.iter().all(|usage| usage.key.dst != address(2)), "{sas:?}");
    world.send(0, 2, b"for the third host alone");
    world.seconds(5);
    assert_eq!((world.hosts[1].got.len(), world.hosts[2].got.len()), (1, 1));
    world.assert_one_tunnel(0, 1);
    world.assert_one_tunnel(0, 2);
    // Another port is another mapping of the same peer.
    world.input(0, moved(SocketAddr::new(address(1), 61_000)));
    world.send(0, 1, b"y");
    world.seconds(5);
    assert_eq!(world.hosts[1].got.len(), 2);
    world.assert_one_tunnel(0, 1);
}

/// Its ESP from another port is somebody's who captured it: no NAT is between us that could have done that.
#[test]
fn a_peer_behind_no_nat_does_not_move() {
    for (settings, moves) in [("", 0), ("force_udp_encapsulation: true\n", 1)] {
        let mut world = World::new(2, &manifest(settings));
        world.send(0, 1, b"x");
        world.seconds(5);
        world.assert_one_tunnel(0, 1);
        let sas = world.hosts[0].plane.snapshot(world.now).sas;
        let inbound = sas.iter().map(|usage| usage.key).find(|key| key.dst == address(0)).unwrap();
        let before = world.count(0, Kind::IkeUpdate);
        let remote = SocketAddr::new(address(1), 61_000);
        world.input(0, Input::Kernel(DataplaneEvent::Moved { key: inbound, remote }));
        assert_eq!(world.count(0, Kind::IkeUpdate) - before, moves, "{settings:?}");
    }
}
