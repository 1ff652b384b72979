//! One process of a host follows another: SAs go on, or are made again without a handshake.

mod world;

use std::time::Duration;

use ike::Secret;
use mesh::journal::{DecodeError, Key, Record, VERSION};
use mesh::status::State;
use mesh::{Command, Kind};
use world::{World, loaded, manifest, target};

/// Two hosts with a tunnel.
fn up() -> World {
    let mut world = World::bare(2, 7);
    for host in 0..2 {
        // Both keep a journal from the beginning.
        world.restart(host, &manifest(""), false);
    }
    world.send(0, 1, b"first");
    world.seconds(4);
    world.assert_one_tunnel(0, 1);
    world
}

/// Where both ends began at once, the peer may send through the tunnel that is to go, until it goes.
#[test]
fn while_two_tunnels_become_one_nothing_is_lost() {
    for case in 0..48 {
        let (host, wait) = (case % 2, 20 * (case / 2));
        let mut world = World::bare(2, case as u32);
        for host in 0..2 {
            world.restart(host, &manifest(""), false);
        }
        world.seconds(1);
        world.command(0, Command::Up(target(1)));
        world.command(1, Command::Up(target(0)));
        let mut sent = world.chat(5 + wait);
        world.restart(host, &manifest(""), true);
        sent += world.chat(900 - sent);
        world.seconds(70);
        world.assert_one_tunnel(0, 1);
        let got = world.hosts.iter().map(|h| h.got.len()).collect::<Vec<_>>();
        assert_eq!(got, [sent, sent], "host {host}, after {} ms", 50 + 10 * wait);
        assert_eq!(world.clear, 0);
    }
}

fn ike_spis(world: &World, host: usize) -> Vec<(String, String)> {
    let sas = world.peer(host, 1 - host).ike_sas;
    sas.into_iter().map(|sa| (sa.spi_i, sa.spi_r)).collect()
}

#[test]
fn with_its_data_plane_alive_nothing_changes_and_nothing_is_lost() {
    for host in [0, 1] {
        let mut world = up();
        let (ike, child) = (ike_spis(&world, host), world.single(host, 1 - host));
        let got = world.hosts[0].got.len() + world.hosts[1].got.len();
        for n in 0..100 {
            if n == 50 {
                world.restart(host, &manifest(""), true);
            }
            world.send(0, 1, b"there");
            world.send(1, 0, b"back");
            world.run(Duration::from_millis(10));
        }
        world.seconds(6);
        assert_eq!(world.hosts[0].got.len() + world.hosts[1].got.len(), got + 200);
        world.assert_one_tunnel(0, 1);
        assert_eq!((ike_spis(&world, host), world.single(host, 1 - host)), (ike, child));
        assert_eq!((world.clear, world.count(host, Kind::Drift)), (0, 0));
        assert_eq!(world.count(1 - host, Kind::IkeUp), 1);
        // It is whole: it can be rekeyed by either.
        for rekeyer in [0, 1] {
            world.command(rekeyer, Command::Rekey(target(1 - rekeyer)));
            world.seconds(10);
            world.assert_one_tunnel(0, 1);
        }
        assert_eq!(world.count(0, Kind::IkeUp) + world.count(1, Kind::IkeUp), 2);
    }
}

#[test]
fn with_its_data_plane_lost_the_child_is_made_again_within_a_second() {
    for host in [0, 1] {
        let mut world = up();
        let (ike, child) = (ike_spis(&world, host), world.single(host, 1 - host));
        world.restart(host, &manifest(""), false);
        world.run(Duration::from_millis(300));
        let got = [0, 1].map(|n| world.hosts[n].got.len());
        world.send(0, 1, b"there");
        world.send(1, 0, b"back");
        world.run(Duration::from_millis(50));
        assert_eq!([0, 1].map(|n| world.hosts[n].got.len()), got.map(|n| n + 1));
        world.seconds(8);
        world.assert_one_tunnel(0, 1);
        assert_eq!(ike_spis(&world, host), ike);
        assert_ne!(world.single(host, 1 - host), child);
        assert_eq!(world.count(0, Kind::IkeUp) + world.count(1, Kind::IkeUp), 2);
        assert_eq!(world.clear, 0);
    }
}

#[test]
fn both_at_once_and_again_and_again() {
    let mut world = up();
    let ike = ike_spis(&world, 0);
    for _ in 0..5 {
        for host in 0..2 {
            world.restart(host, &manifest(""), false);
        }
        world.seconds(80);
        world.assert_one_tunnel(0, 1);
    }
    assert_eq!(ike_spis(&world, 0), ike);
    let before = world.hosts[1].got.len();
    world.send(0, 1, b"there");
    world.seconds(1);
    assert_eq!(world.hosts[1].got.len(), before + 1);
}

#[test]
fn a_peer_that_lost_its_state_is_not_waited_for() {
    let mut world = up();
    world.reboot(1, &manifest(""));
    world.restart(0, &manifest(""), false);
    world.run(Duration::from_millis(1500));
    assert_eq!(world.state(0, 1), State::Up, "{}", world.story(0, 1));
    world.seconds(70);
    world.assert_one_tunnel(0, 1);
}

/// All daemons are replaced, one soon after the other: one that asks a peer whether it is there gives it time to start.
#[test]
fn a_peer_whose_daemon_is_away_for_seconds_is_waited_for() {
    let mut world = up();
    let (before, begun) = (world.single(0, 1), world.count(0, Kind::Connecting));
    world.restart(0, &manifest(""), true);
    world.cut.extend([(0, 1), (1, 0)]);
    let asked = world.datagrams.len();
    while world.datagrams.len() == asked {
        world.run(Duration::from_millis(10));
    }
    world.run(Duration::from_secs(3));
    world.cut.clear();
    world.seconds(20);
    assert_eq!(world.count(0, Kind::Connecting), begun, "{}", world.story(0, 1));
    assert_eq!(world.single(0, 1), before);
    world.assert_one_tunnel(0, 1);
}

#[test]
fn whoever_is_no_peer_any_more_and_whatever_cannot_be_read_is_dropped() {
    let mut world = up();
    let unreadable = Secret::new(vec![VERSION + 1, 1, 2, 3]);
    world.hosts[0].journal.insert(Key(5), unreadable);
    world.restart(0, "ipsec_subnets: [10.0.0.0/24]\nno_ipsec_subnets: [10.0.0.2/32]\npsk: correct horse battery staple\n", true);
    world.seconds(1);
    assert!(world.hosts[0].journal.is_empty());
    assert!(world.hosts[0].plane.sas().is_empty());
    let told = |text: &str| {
        world.hosts[0].events.iter().any(|(_, e)| e.kind == Kind::Adopted && e.text.contains(text))
    };
    assert!(told("its peer is none any more") && told("layout 3"));
}

#[test]
fn a_tunnel_of_other_suites_serves_until_it_is_replaced() {
    let mut world = up();
    let old = world.single(0, 1);
    let other = manifest("esp_proposals: aes256gcm16,aes128gcm16\n");
    world.load(1, loaded(&manifest("esp_proposals: aes256gcm16,aes128gcm16\n"), 1));
    let other_only = other.replace(",aes128gcm16", "");
    let before = world.hosts[1].got.len();
    world.restart(0, &other_only, true);
    for _ in 0..500 {
        world.send(0, 1, b"there");
        world.run(Duration::from_millis(10));
    }
    world.seconds(80);
    assert_eq!(world.hosts[1].got.len(), before + 500);
    world.assert_one_tunnel(0, 1);
    assert_ne!(world.single(0, 1), old);
}

#[test]
fn a_flush_leaves_no_record() {
    let mut world = up();
    assert_eq!(world.hosts[0].journal.len(), 1);
    world.command(0, Command::Flush);
    world.seconds(2);
    assert!(world.hosts[0].journal.is_empty());
    assert!(world.hosts[1].journal.is_empty());
}

#[test]
fn the_whole_journal_is_what_was_written_bit_by_bit() {
    let world = up();
    let whole: Vec<_> = world.hosts[0].mesh.journal();
    let parts: Vec<_> = world.hosts[0].journal.clone().into_iter().collect();
    assert_eq!(whole, parts);
}

#[test]
fn what_was_said_of_a_peer_holds_over_reloads_and_restarts() {
    for data_plane_lives in [false, true] {
        let mut world = up();
        world.command(0, Command::Down(target(1)));
        world.load(0, loaded(&manifest("esp_proposals: aes256gcm16\n"), 0));
        assert_eq!(world.state(0, 1), State::Down);
        world.restart(0, &manifest(""), data_plane_lives);
        let got = world.hosts[1].got.len();
        for _ in 0..3 {
            // Neither packets of this host nor the peer's bring it up.
            world.send(0, 1, b"there");
            world.send(1, 0, b"back");
            world.seconds(20);
            assert_eq!(world.state(0, 1), State::Down);
        }
        assert_eq!((world.hosts[1].got.len(), world.clear), (got, 0));
        world.command(0, Command::Up(target(1)));
        world.seconds(70);
        world.assert_one_tunnel(0, 1);
        // It is to be kept up from now on: the next process begins it without a packet.
        world.hosts[0].journal.clear();
        world.reboot(1, &manifest(""));
        world.restart(0, &manifest(""), false);
        world.seconds(70);
        world.assert_one_tunnel(0, 1);
    }
}

#[test]
fn down_holds_though_the_process_ended_before_the_tunnel_did() {
    let mut world = up();
    let journal = world.hosts[0].journal.clone();
    world.cut.extend([(0, 1), (1, 0)]);
    world.command(0, Command::Down(target(1)));
    world.hosts[0].journal = journal;
    world.cut.clear();
    world.restart(0, &manifest(""), true);
    world.seconds(10);
    assert_eq!(world.state(0, 1), State::Down);
    assert!(world.hosts[0].plane.sas().is_empty(), "{}", world.story(0, 1));
    assert!(world.hosts[0].journal.is_empty(), "{}", world.story(0, 1));
}

#[test]
fn of_who_is_no_peer_any_more_nothing_is_kept() {
    let mut world = up();
    world.command(0, Command::Down(target(1)));
    assert_eq!(world.hosts[0].mesh.orders().len(), 1);
    let without = "ipsec_subnets: [10.0.0.0/24]\nno_ipsec_subnets: [10.0.0.2/32]\npsk: correct horse battery staple\n";
    world.restart(0, without, false);
    assert!(world.hosts[0].mesh.orders().is_empty());
}

/// What a host's journal holds after a handshake.
fn records() -> Vec<Secret> {
    up().hosts.iter().flat_map(|host| host.journal.values().cloned()).collect()
}

#[test]
fn records_come_back_whole_and_no_part_of_one_does() {
    for bytes in records() {
        let record = Record::decode(bytes.expose()).unwrap();
        assert_eq!(record.encode(), bytes);
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes.expose()[..cut]).is_err(), "{cut} of {}", bytes.len());
        }
        assert!(Record::decode(&[bytes.expose(), &[0]].concat()).is_err());
    }
}

#[test]
fn records_of_older_and_newer_builds_are_refused_by_name() {
    let bytes = records().remove(0);
    let with = |at: usize, version: u8| {
        let mut other = bytes.expose().to_vec();
        other[at] = version;
        Record::decode(&other)
    };
    // The fleet's layout comes first; that of the IKE SA behind an IPv4 address and a flag.
    let inner = 1 + 5 + 1;
    for version in (0..=255).filter(|v| *v != VERSION) {
        assert_eq!(with(0, version), Err(DecodeError::Version(version)));
    }
    for version in (0..=255).filter(|v| *v != ike::record::VERSION) {
        let refused = ike::record::DecodeError::Version(version);
        assert_eq!(with(inner, version), Err(DecodeError::Sa(refused)));
    }
}
