//! Tunnels come, go, fail and heal.

mod world;

use std::time::Duration;

use ike::endpoint::EndpointConfig;
use ipsec::change::{Batch, Change, RefusalReason};
use ipsec::dataplane::Dataplane;
use mesh::status::{State, Verdict};
use mesh::{Command, CommandError, Kind, Target};
use world::{Fault, World, address, loaded, loaded_with, manifest, target};

const EAGER: &str = "start: eager\npeers:\n- {address: 10.0.0.1, name: one}\n- {address: 10.0.0.2, name: two}\n- {address: 10.0.0.3, name: three}\n";

#[test]
fn the_first_packet_builds_the_tunnel_and_arrives() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut world = World::new(2, &manifest(""));
        world.seconds(1);
        assert_eq!(world.state(from, to), State::Idle);
        world.send(from, to, b"hello");
        world.seconds(1);
        world.assert_one_tunnel(0, 1);
        assert_eq!((world.hosts[to].got.len(), world.clear), (1, 0));
        world.send(to, from, b"and back");
        world.seconds(3);
        assert_eq!(world.hosts[from].got.len(), 1);
        let status = world.peer(from, to);
        assert_eq!((status.verdict, status.child_sas[0].packets_out), (Verdict::Ok, 1));
        assert_eq!(status.child_sas[0].packets_in, 1);
    }
}

#[test]
fn known_peers_are_up_before_there_is_traffic() {
    let mut world = World::new(3, &manifest(EAGER));
    world.seconds(10);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.assert_one_tunnel(a, b);
    }
    assert_eq!(world.peer(0, 1).name.as_deref(), Some("two"));
    assert!((0..3).all(|h| world.count(h, Kind::UniqueReplace) == 0));
}

#[test]
fn both_ends_at_once_settle_to_one_tunnel_without_loss() {
    for boot in 0..12 {
        let mut world = World::bare(2, boot);
        for host in 0..2 {
            world.load(host, loaded(&manifest(""), host));
        }
        world.seconds(1);
        // By command neither end waits for the other.
        world.command(0, Command::Up(target(1)));
        world.command(1, Command::Up(target(0)));
        let sent = world.chat(800);
        world.seconds(5);
        world.assert_one_tunnel(0, 1);
        let got = world.hosts.iter().map(|h| h.got.len()).collect::<Vec<_>>();
        assert_eq!(got, [sent, sent], "boot {boot}");
    }
}

#[test]
fn down_removes_a_half_up_tunnel_and_stops_the_retries() {
    let mut world = World::new(2, &manifest(""));
    world.cut.insert((1, 0));
    world.command(0, Command::Up(target(1)));
    world.seconds(3);
    assert_eq!(world.state(0, 1), State::Connecting);
    world.command(0, Command::Down(target(1)));
    world.seconds(1);
    let before = world.datagrams.iter().filter(|(_, h)| *h == 0).count();
    world.seconds(600);
    let after = world.datagrams.iter().filter(|(_, h)| *h == 0).count();
    assert_eq!((world.state(0, 1), after), (State::Down, before));
    assert!(world.peer(0, 1).ike_sas.is_empty());
    // Down means down from both sides.
    world.cut.clear();
    world.send(1, 0, b"let me in");
    world.seconds(60);
    assert_eq!(world.state(0, 1), State::Down);
    world.command(0, Command::Up(target(1)));
    world.seconds(8);
    world.assert_one_tunnel(0, 1);
}

#[test]
fn a_peer_that_refuses_is_retried_with_a_bound_and_the_reason_is_told() {
    let mut world = World::bare(3, 0);
    for (host, psk) in
        [(0, world::PSK), (1, "another key of twenty bytes and more"), (2, world::PSK)]
    {
        world.load(host, loaded_with(&manifest(""), host, psk));
    }
    for _ in 0..600 {
        world.send(0, 1, b"anybody there?");
        world.seconds(1);
    }
    let attempts = world.count(0, Kind::Connecting);
    assert!((8..=25).contains(&attempts), "{attempts} attempts in 600 s");
    let status = world.peer(0, 1);
    assert_eq!((status.state, status.verdict), (State::Down, Verdict::IpsecBroken), "{status:#?}");
    let reason = status.last_error.unwrap();
    assert!(reason.contains("authentication"), "{reason}");
    assert!(status.retry_in_s.is_some_and(|s| s <= 72));
    world.send(0, 2, b"others are not concerned");
    world.seconds(1);
    world.assert_one_tunnel(0, 2);
}

#[test]
fn a_silent_peer_is_told_from_a_dead_network() {
    let mut world = World::new(3, &manifest(""));
    world.cut.extend([(1, 0), (2, 0)]);
    world.send(0, 1, b"x");
    world.send(0, 2, b"x");
    world.seconds(70);
    assert_eq!(world.peer(0, 1).verdict, Verdict::NetworkDown);
    world.cut.remove(&(2, 0));
    world.seconds(120);
    world.send(0, 2, b"x");
    world.send(0, 1, b"x");
    world.seconds(100);
    assert_eq!(world.state(0, 2), State::Up);
    assert_eq!(world.peer(0, 1).verdict, Verdict::PeerDown);
}

#[test]
fn a_reload_touches_only_what_changed() {
    let mut world = World::new(3, &manifest(EAGER));
    world.seconds(10);
    let before = world.single(0, 1);
    let events = world.hosts[0].events.len();
    world.load_all(&manifest(EAGER));
    world.seconds(10);
    assert_eq!(world.single(0, 1), before);
    let new: Vec<_> = world.hosts[0].events[events..].iter().map(|(_, e)| e.kind).collect();
    assert_eq!(new, [Kind::ManifestLoaded], "the same manifest changes nothing");
    // Two hosts remain.
    let less = "ipsec_subnets: [10.0.0.0/30]\nno_ipsec_subnets: [10.0.0.3/32]\n";
    let less = format!("{less}psk: {}\n", world::PSK);
    for host in 0..2 {
        world.load(host, loaded(&less, host));
    }
    world.seconds(10);
    assert_eq!(world.single(0, 1), before);
    let gone = world.hosts[0].mesh.peer_status(world.clock(), &target(2));
    assert_eq!(gone, Err(CommandError::NotAPeer(address(2))));
    assert_eq!(world.hosts[0].plane.sas().len(), 2);
    let left = world.hosts[2].mesh.status(world.clock());
    assert!(
        left.peers.iter().all(|p| p.state == State::Connecting),
        "nobody answers it: {left:#?}"
    );
}

#[test]
fn a_changed_suite_replaces_tunnels_without_loss() {
    let mut world = World::new(2, &manifest(EAGER));
    world.seconds(10);
    let before = world.single(0, 1);
    world.load_all(&manifest(&format!("{EAGER}esp_proposals: aes256gcm16\n")));
    for _ in 0..1500 {
        world.send(0, 1, b"ping");
        world.send(1, 0, b"ping");
        world.run(Duration::from_millis(10));
    }
    world.assert_one_tunnel(0, 1);
    assert_ne!(world.single(0, 1), before);
    assert!(world.peer(0, 1).child_sas[0].suite.contains("aes256gcm16"));
    assert_eq!((world.hosts[0].got.len(), world.hosts[1].got.len()), (1500, 1500));
}

/// A second change comes while the first one's handshakes are under way: these are not the last word.
#[test]
fn a_suite_that_changes_twice_is_the_last_one() {
    for wait in (0..400).step_by(4) {
        for first in [0, 1] {
            let mut world = World::new(2, &manifest(EAGER));
            world.seconds(10);
            world.load_all(&manifest(&format!(
                "{EAGER}esp_proposals: [aes128gcm16, aes256gcm16]\n"
            )));
            world.run(Duration::from_millis(wait));
            let last = manifest(&format!("{EAGER}esp_proposals: aes256gcm16\n"));
            world.load(first, loaded(&last, first));
            world.seconds(40);
            world.assert_one_tunnel(0, 1);
            let suite = &world.peer(0, 1).child_sas[0].suite;
            assert!(suite.contains("aes256gcm16"), "{first} after {wait} ms: {suite}");
        }
    }
}

#[test]
fn what_is_taken_from_the_data_plane_is_put_back() {
    let mut world = World::new(2, &manifest(""));
    world.send(0, 1, b"x");
    world.seconds(5);
    let before = world.single(0, 1);
    for direction in [ipsec::sa::Direction::In, ipsec::sa::Direction::Out] {
        let key = world.hosts[0]
            .plane
            .sas()
            .iter()
            .find(|e| e.sa.direction == direction)
            .unwrap()
            .sa
            .key();
        let at = world.now;
        world.hosts[0].plane.apply(at, &Batch(vec![Change::RemoveSa(key)]));
        world.seconds(3);
        world.assert_one_tunnel(0, 1);
        assert_ne!(world.single(0, 1), before, "lost keys are replaced, never installed again");
        world.seconds(3);
    }
    let policies = world.hosts[0].plane.snapshot(world.now).policies;
    let at = world.now;
    let flush = policies.iter().map(|k| Change::RemovePolicy(*k)).collect();
    world.hosts[0].plane.apply(at, &Batch(flush));
    world.seconds(3);
    let after = world.hosts[0].plane.snapshot(world.now).policies;
    assert_eq!(after.len(), policies.len());
    assert!(world.count(0, Kind::Drift) >= 3);
}

/// Two tunnels begun at once stand side by side for some seconds, and the peer sends through one of them.
#[test]
fn a_torn_tunnel_is_mended_though_a_second_one_stands() {
    for (boot, which) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut world = World::bare(2, boot);
        world.load_all(&manifest(""));
        world.seconds(1);
        world.command(0, Command::Up(target(1)));
        world.command(1, Command::Up(target(0)));
        world.run(Duration::from_millis(400));
        let sas = world.hosts[0].plane.sas();
        let inbound = sas.iter().filter(|e| e.sa.direction == ipsec::sa::Direction::In);
        let keys: Vec<_> = inbound.map(|e| e.sa.key()).collect();
        assert_eq!(keys.len(), 2, "boot {boot}: two at once");
        let at = world.now;
        world.hosts[0].plane.apply(at, &Batch(vec![Change::RemoveSa(keys[which])]));
        // A look at the data plane, and a round trip.
        world.run(Duration::from_millis(1200));
        for _ in 0..50 {
            world.send(1, 0, b"ping");
            world.run(Duration::from_millis(10));
        }
        assert_eq!(world.hosts[0].got.len(), 50, "boot {boot}, {which}: {}", world.story(0, 1));
    }
}

#[test]
fn a_data_plane_that_refuses_is_not_asked_without_end() {
    let mut world = World::new(2, &manifest(""));
    world.hosts[0].fault = Fault::new(|_, change| match change {
        Change::AddSa(_) => Some(RefusalReason::NoAlgorithm("rfc4106(gcm(aes))".into())),
        _ => None,
    });
    for _ in 0..600 {
        world.send(0, 1, b"x");
        world.seconds(1);
    }
    let refused = world.count(0, Kind::InstallChildSaFailed);
    assert!((4..=60).contains(&refused), "{refused}");
    let error = world.peer(0, 1).last_error.unwrap();
    assert!(error.contains("rfc4106(gcm(aes))"), "{error}");
    world.hosts[0].fault = None;
    for _ in 0..90 {
        world.send(0, 1, b"x");
        world.seconds(1);
    }
    world.assert_one_tunnel(0, 1);
}

#[test]
fn a_rebooted_host_is_reached_again_where_only_the_other_side_sends() {
    for (lost, sender) in [(0, 1), (1, 0)] {
        let text = manifest("");
        let mut world = World::new(2, &text);
        world.send(0, 1, b"x");
        world.seconds(100);
        world.reboot(lost, &text);
        let before = world.hosts[lost].got.len();
        for _ in 0..300 {
            world.send(sender, lost, b"still there?");
            world.run(Duration::from_millis(10));
        }
        assert!(
            world.hosts[lost].got.len() > before + 100,
            "{} packets",
            world.hosts[lost].got.len()
        );
        world.seconds(10);
        world.assert_one_tunnel(0, 1);
    }
}

/// A fleet with certificates: what the rebooted host says of the lost IKE SA is believed, for it shows its token.
#[test]
fn a_peer_that_shows_that_it_lost_everything_is_believed_at_once() {
    let text = manifest("dpddelay: 30\n");
    let with_certificate = |host| {
        let credentials = crypto::toy::credentials("fleet");
        let auth = ike::Auth::Certificate(std::sync::Arc::new(credentials));
        mesh::Loaded { auth, ..loaded(&text, host) }
    };
    let mut world = World::bare(2, 3);
    for host in [0, 1] {
        world.load(host, with_certificate(host));
    }
    world.send(0, 1, b"first");
    world.seconds(5);
    world.assert_one_tunnel(0, 1);
    world.reboot(1, &text);
    world.load(1, with_certificate(1));
    world.command(0, Command::Rekey(target(1)));
    world.seconds(2);
    let lost = |e: &mesh::Event| e.kind == Kind::IkeDown && e.text.contains("the peer lost it");
    let told = world.hosts[0].events.iter().filter(|(_, e)| lost(e)).count();
    assert_eq!(told, 1, "{}", world.story(0, 1));
    world.send(0, 1, b"there");
    world.send(1, 0, b"back");
    world.seconds(1);
    assert!(world.hosts[1].got.last().is_some_and(|packet| packet.ends_with(b"there")));
    world.seconds(10);
    world.assert_one_tunnel(0, 1);
}

#[test]
fn an_outage_leaves_one_tunnel_and_no_storm() {
    let mut world = World::new(2, &manifest(""));
    world.send(0, 1, b"x");
    world.seconds(5);
    world.cut.extend([(0, 1), (1, 0)]);
    for _ in 0..100 {
        world.send(0, 1, b"x");
        world.send(1, 0, b"x");
        world.seconds(1);
    }
    world.cut.clear();
    for _ in 0..100 {
        world.send(0, 1, b"x");
        world.seconds(1);
    }
    world.assert_one_tunnel(0, 1);
    assert!(world.datagrams.len() < 400, "{} datagrams", world.datagrams.len());
}

#[test]
fn rekeys_are_the_owners_and_lose_nothing() {
    let lifetimes = "ike_lifetime: 60\nchild_lifetime: 20\n";
    let mut world = World::new(2, &manifest(lifetimes));
    let mut sent = 0;
    for _ in 0..20_000 {
        world.send(0, 1, b"ping");
        world.send(1, 0, b"ping");
        sent += 1;
        world.run(Duration::from_millis(10));
    }
    world.seconds(2);
    world.assert_one_tunnel(0, 1);
    assert_eq!((world.hosts[0].got.len(), world.hosts[1].got.len()), (sent, sent));
    let rekeys = [world.count(0, Kind::ChildRekey), world.count(0, Kind::IkeRekey)];
    assert!((9..=13).contains(&rekeys[0]) && (2..=4).contains(&rekeys[1]), "{rekeys:?}");
    assert_eq!(world.count(0, Kind::UniqueReplace) + world.count(1, Kind::UniqueReplace), 0);
}

/// A peer that makes no other child SA within an IKE SA: what cannot be rekeyed is made anew, in time.
#[test]
fn a_minimal_peer_gets_another_ike_sa_instead_of_a_rekey() {
    let mut world = World::bare(2, 0);
    world.make_minimal(1);
    world.load_all(&manifest("ike_lifetime: 600\nchild_lifetime: 20\n"));
    let sent = world.chat(10_000);
    world.seconds(8);
    world.assert_one_tunnel(0, 1);
    assert_eq!((world.hosts[0].got.len(), world.hosts[1].got.len()), (sent, sent));
    // The peer itself may rekey what this host has no rule against.
    let built = world.count(0, Kind::IkeUp);
    assert!((3..=9).contains(&built), "{built} IKE SAs");
}

/// Peers that refuse to rekey the IKE SA: another one is there before the old one must end.
#[test]
fn who_refuses_to_rekey_the_ike_sa_gets_another() {
    let mut world = World::bare(2, 0);
    for host in 0..2 {
        world.limit(host, EndpointConfig { max_sas_of_peer: 2, ..mesh::mesh::LIMITS });
    }
    world.load_all(&manifest("ike_lifetime: 40\nchild_lifetime: 600\n"));
    let sent = world.chat(10_000);
    world.assert_one_tunnel(0, 1);
    assert_eq!((world.hosts[0].got.len(), world.hosts[1].got.len()), (sent, sent));
    let all = |kind| world.count(0, kind) + world.count(1, kind);
    let refused = all(Kind::ExchangeFailed);
    assert!(refused > 0, "the peer refused nothing");
    assert!(all(Kind::IkeUp) > 2 * refused, "not each refusal led to another IKE SA");
}

#[test]
fn commands_name_what_they_do_not_know() {
    let mut world = World::new(2, &manifest(EAGER));
    world.seconds(5);
    let now = world.clock();
    let mesh = &mut world.hosts[0].mesh;
    let up = |t: Target| Command::Up(t);
    assert_eq!(
        mesh.command(now, up(Target::Name("tow".into()))),
        Err(CommandError::UnknownName("tow".into()))
    );
    assert_eq!(mesh.command(now, up(Target::Spi(7))), Err(CommandError::UnknownSpi(7)));
    let outside = [192, 0, 2, 1].into();
    assert_eq!(
        mesh.command(now, up(Target::Address(outside))),
        Err(CommandError::NotAPeer(outside))
    );
    let silent = Command::Rekey(target(9));
    assert_eq!(mesh.command(now, silent), Err(CommandError::NotUp(address(9))));
    let spi = world.single(0, 1)[0].parse::<Target>().unwrap();
    let before = world.single(0, 1);
    world.command(0, Command::Rekey(spi));
    world.seconds(2);
    world.assert_one_tunnel(0, 1);
    assert_ne!(world.single(0, 1), before);
    world.command(1, Command::Restart(Target::Name("one".into())));
    world.seconds(10);
    world.assert_one_tunnel(0, 1);
    world.command(0, Command::Flush);
    world.seconds(1);
    assert!(world.hosts[0].plane.sas().is_empty());
    assert!(world.hosts[0].plane.snapshot(world.now).policies.is_empty());
}

#[test]
fn leaving_loses_nothing_that_may_pass_in_the_clear() {
    for boot in 0..8 {
        let mut world = World::bare(2, boot);
        world.load_all(&manifest("optional: true"));
        world.send(0, 1, b"first");
        world.seconds(2);
        world.assert_one_tunnel(0, 1);
        let arrived = |world: &World| {
            world.hosts.iter().map(|h| h.got.len() as u64).sum::<u64>() + world.clear
        };
        let before = arrived(&world);
        let inbound = |world: &World| world.hosts[0].plane.sas().len();
        for round in 0..1000 {
            if round == 100 {
                world.command(0, Command::Leave);
                // Only the inbound SA is left, and stays while the peer may still use its own.
                assert_eq!(inbound(&world), 1, "boot {boot}");
            }
            world.send(0, 1, b"ping");
            world.send(1, 0, b"pong");
            world.run(Duration::from_millis(1));
        }
        assert!(!world.hosts[0].mesh.has_tunnels());
        assert_eq!(inbound(&world), 1, "boot {boot}");
        world.seconds(1);
        assert_eq!(arrived(&world) - before, 2000, "boot {boot}");
        assert!(world.clear > 1000, "it went on in the clear");
        world.command(0, Command::Flush);
        assert!(world.hosts[0].plane.sas().is_empty());
    }
}

#[test]
fn a_mesh_without_a_manifest_answers_nobody() {
    let mut world = World::bare(2, 0);
    world.load(1, loaded(&manifest(""), 1));
    world.send(1, 0, b"x");
    world.seconds(20);
    assert!(world.datagrams.iter().all(|(_, host)| *host == 1));
    let now = world.clock();
    assert_eq!(
        world.hosts[0].mesh.command(now, Command::Up(target(1))),
        Err(CommandError::NoManifest)
    );
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut world = World::new(3, &manifest(EAGER));
        world.loss = 20;
        world.seconds(120);
        let events =
            world.hosts.iter().flat_map(|h| h.events.iter().map(|(at, e)| (*at, e.text.clone())));
        (world.datagrams.clone(), events.collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}

#[test]
fn twenty_hosts_that_start_at_once_build_each_tunnel_once() {
    const HOSTS: usize = 20;
    let mut world = World::new(HOSTS, &manifest(""));
    let pairs = || (0..HOSTS).flat_map(|a| (0..HOSTS).map(move |b| (a, b))).filter(|(a, b)| a != b);
    for (a, b) in pairs() {
        world.send(a, b, b"all at once");
    }
    world.seconds(4);
    for (a, b) in pairs().filter(|(a, b)| a < b) {
        world.assert_one_tunnel(a, b);
    }
    let handshakes: usize = (0..HOSTS).map(|h| world.count(h, Kind::Connecting)).sum();
    assert_eq!(handshakes, HOSTS * (HOSTS - 1) / 2, "the owner of each pair, and nobody else");
    assert!(world.hosts.iter().all(|h| h.got.len() == HOSTS - 1), "no first packet is lost");
    assert_eq!(world.clear, 0);
}

#[test]
fn clusters_of_different_names_keep_apart() {
    let mut world = World::bare(3, 0);
    for (host, cluster) in [(0, "cluster: west\n"), (1, "cluster: east\n"), (2, "cluster: west\n")]
    {
        world.load(host, loaded(&manifest(cluster), host));
    }
    for _ in 0..30 {
        world.send(0, 1, b"x");
        world.send(1, 0, b"x");
        world.send(0, 2, b"x");
        world.seconds(1);
    }
    world.assert_one_tunnel(0, 2);
    assert!(world.hosts[1].got.is_empty());
    for (a, b) in [(0, 1), (1, 0)] {
        let status = world.peer(a, b);
        assert!(
            status.child_sas.is_empty() && status.ike_sas.iter().all(|i| i.state == "half_open")
        );
        assert!(status.last_error.unwrap().contains("another cluster"));
    }
}

#[test]
fn an_attempt_that_nobody_answered_ends_with_the_peers_tunnel() {
    for first in [0, 1] {
        let mut world = World::bare(2, 7);
        world.load_all(&manifest(""));
        world.cut.insert((first, 1 - first));
        world.send(first, 1 - first, b"its request is lost");
        world.run(Duration::from_millis(100));
        assert!(!world.datagrams.is_empty());
        world.cut.clear();
        world.send(1 - first, first, b"and the peer begins");
        world.run(Duration::from_millis(400));
        world.assert_one_tunnel(0, 1);
        let so_far = world.datagrams.len();
        world.seconds(15);
        assert_eq!(world.datagrams.len(), so_far, "{}", world.story(0, 1));
        world.assert_one_tunnel(0, 1);
    }
}
