//! One process of a host follows another: SAs go on, or are made again without a handshake.

mod world;

use std::time::Duration;

use ike::Secret;
use ike::keys::IkeKeys;
use ike::nat::NatState;
use ike::negotiate::{EspSuite, IkeSuite};
use ike::record::{Asks, ChildRecord, CipherSpec, Outstanding, SaRecord};
use ipsec::sa::{Mode, Reqid};
use ipsec::{Instant, Spi};
use mesh::journal::{DecodeError, Key, Record, VERSION};
use mesh::status::State;
use mesh::{Command, Kind};
use proptest::prelude::*;
use wire::identity::Identity;
use wire::message::IkeSpi;
use wire::registry::{Encr, ExchangeType, Integ, Ke, Prf};
use wire::selector::TrafficSelector;
use world::{World, address, loaded, manifest, target};

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
    assert!(told("its peer is none any more") && told("layout 2"));
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

fn secret(n: u8, len: usize) -> Secret {
    Secret::new(vec![n; len])
}

prop_compose! {
    fn child()(spi in 256u32.., mode in any::<bool>(), esn in any::<bool>(), ke in any::<Option<u16>>(), at in any::<u64>()) -> ChildRecord {
        let host = |n| TrafficSelector::host(address(n));
        ChildRecord {
            reqid: Reqid(spi ^ 1), spi_in: Spi(spi), spi_out: Spi(u32::MAX), mode: if mode { Mode::Tunnel } else { Mode::Transport },
            suite: EspSuite { cipher: CipherSpec { encr: Encr::AES_GCM_16, key_bits: 256, integ: Integ::NONE }, esn, ke: ke.map(Ke) },
            local_ts: vec![host(0), host(1)], remote_ts: vec![host(1).with(17, 5..=9)], encap: esn,
            since: Instant::from_nanos(at), rekey_at: Instant::from_nanos(at / 2),
        }
    }
}

prop_compose! {
    fn asks()(kind in 0..4, spi in any::<u32>(), old in any::<Option<u32>>()) -> Asks {
        match kind {
            0 => Asks::RekeyIke,
            1 => Asks::Nothing(ExchangeType::INFORMATIONAL),
            _ => Asks::Child { spi_in: Spi(spi), replaces: old.map(Spi) },
        }
    }
}

prop_compose! {
    fn record()(
        spis in any::<(u64, u64)>(), flags in any::<[bool; 7]>(), v6 in any::<bool>(),
        ids in any::<(Option<u32>, u32, u64)>(),
        answer in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..3),
        sent in prop::option::of((any::<u32>(), asks())),
        orphans in prop::collection::vec(any::<u32>(), 0..3),
        children in prop::collection::vec(child(), 0..3),
    ) -> Record {
        let peer = if v6 { "fd00::7".parse().unwrap() } else { address(1) };
        let keys = IkeKeys {
            sk_d: secret(1, 32), sk_ai: secret(2, 0), sk_ar: secret(3, 5), sk_ei: secret(4, 36), sk_er: secret(5, 20),
            sk_pi: Secret::default(), sk_pr: Secret::default(),
        };
        Record { peer, initiated: flags[6], sa: SaRecord {
            spi_i: IkeSpi(spis.0), spi_r: IkeSpi(spis.1), initiator: flags[0], local: (address(0), 500).into(), remote: (peer, 4500).into(),
            nat: NatState { local_behind: flags[1], remote_behind: flags[2] }, encap: flags[3], fragmentation: flags[4], replaced: flags[5],
            local_id: Identity::from_text("C=DE, CN=a").unwrap(), remote_id: Identity::KeyId(vec![]),
            suite: IkeSuite { cipher: CipherSpec { encr: Encr::AES_CBC, key_bits: 128, integ: Integ::HMAC_SHA2_256_128 }, prf: Prf(5), ke: Ke(14) },
            keys, sealed: ids.2, next_out: ids.0, expected_in: ids.1,
            outstanding: sent.map(|(id, asks)| Outstanding { id, messages: vec![vec![7; 9]], asks }),
            answer, orphans: orphans.into_iter().map(Spi).collect(),
            since: Instant::from_nanos(1), rekey_at: Instant::NEVER, children,
        } }
    }
}

proptest! {
    #[test]
    fn records_come_back_whole(record in record()) {
        let bytes = record.encode();
        prop_assert_eq!(Record::decode(bytes.expose()), Ok(record));
    }

    #[test]
    fn every_part_of_a_record_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.encode();
        let part = &bytes.expose()[..cut.index(bytes.len())];
        prop_assert!(Record::decode(part).is_err());
        let more = [bytes.expose(), &[0]].concat();
        prop_assert!(Record::decode(&more).is_err());
        let mut newer = bytes.expose().to_vec();
        newer[0] = 77;
        prop_assert_eq!(Record::decode(&newer), Err(DecodeError::Version(77)));
    }

    #[test]
    fn anything_else_does_no_harm(record in record(), place in any::<prop::sample::Index>(), byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = record.encode().expose().to_vec();
        let at = place.index(bytes.len());
        bytes[at] = byte;
        let _ = Record::decode(&bytes);
        let _ = Record::decode(&[&[VERSION], &noise[..]].concat());
    }
}
