//! Quick crash detection (RFC 6290): a host that lost everything shows that it is the one that had it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crypto::toy::Toy;
use ike::endpoint::Datagram;
use ike::error::{EndReason, Failure};
use ike::{Auth, Event, PeerConfig};
use wire::message::{Flags, Header, IkeSpi, encode_plain};
use wire::payload::{Notify, Payload};
use wire::registry::{ExchangeType, NotifyType, PayloadType, ProtocolId};

use crate::collide::rekey_ike;
use crate::setup::*;
use crate::world::World;

/// There and back, and what the hosts need.
const ROUND_TRIP: Duration = Duration::from_millis(25);

fn certificates(p: &mut PeerConfig) {
    p.auth = Auth::Certificate(Arc::new(crypto::toy::credentials("host")));
    p.dpd_delay = None;
}

/// An established pair, begun by `first`.
fn pair(first: usize, f: impl Fn(&mut PeerConfig)) -> World {
    let mut world = toy(1, |p| {
        certificates(p);
        f(p);
    });
    world.initiate(first);
    world.run_secs(3);
    world.assert_settled();
    world
}

/// A host boots, and nothing of what it had is left.
fn lose_everything(world: &mut World, host: usize) {
    world.hosts[host].journal.clear();
    world.restart(host, false);
}

/// A host asks its peer something, whatever it may be.
fn ask(world: &mut World, host: usize) {
    let ike = world.hosts[host].endpoint.ike_sas()[0].id;
    world.command(host, |e, now| e.probe(now, ike)).unwrap();
}

fn told(world: &World, host: usize) -> usize {
    let lost = Failure::Ended(EndReason::PeerLost);
    world.hosts[host].count(|e| matches!(e, Event::IkeDown { reason, .. } if *reason == lost))
}

/// What `lost` had is gone, and the other host knows after one round trip.
fn assert_seen(world: &mut World, lost: usize) {
    lose_everything(world, lost);
    ask(world, 1 - lost);
    world.run(ROUND_TRIP);
    assert_eq!(told(world, 1 - lost), 1, "{}", world.story());
    assert!(world.hosts[1 - lost].endpoint.ike_sas().is_empty());
    assert!(world.hosts[1 - lost].inbound().is_empty(), "its child SAs went as well");
    world.initiate(1 - lost);
    world.run_secs(3);
    world.assert_settled();
}

#[test]
fn a_boot_is_seen_in_one_round_trip() {
    for first in [0, 1] {
        for lost in [0, 1] {
            assert_seen(&mut pair(first, |_| {}), lost);
        }
    }
}

#[test]
fn tokens_follow_a_rekey() {
    for suite in ["aes128-sha256-modp2048", "aes128-sha256-x25519-ke1_mlkem512"] {
        for by in [0, 1] {
            for lost in [0, 1] {
                let mut world = pair(0, |p| p.ike_proposals = ike_suites(&[suite]));
                let old = world.hosts[0].endpoint.ike_sas()[0].spi_i;
                rekey_ike(&mut world, by);
                world.run_secs(10);
                assert_ne!(world.hosts[0].endpoint.ike_sas()[0].spi_i, old);
                assert_seen(&mut world, lost);
            }
        }
    }
}

#[test]
fn the_next_process_knows_the_token() {
    let mut world = pair(0, |_| {});
    world.restart(0, true);
    world.run_secs(10);
    world.assert_settled();
    assert_seen(&mut world, 1);
}

/// Nothing of a pre-shared key goes over the network in the clear: its tokens are those of one process.
#[test]
fn a_pre_shared_key_makes_none_that_outlive_the_process() {
    let mut world = up(2, |p| p.dpd_delay = None);
    world.traffic = false;
    lose_everything(&mut world, 1);
    ask(&mut world, 0);
    world.run_secs(5);
    assert_eq!((told(&world, 0), world.hosts[0].endpoint.ike_sas().len()), (0, 1));
    let mut world = up(2, |p| p.dpd_delay = None);
    world.traffic = false;
    let on_b = world.hosts[1].endpoint.ike_sas()[0].id;
    world.command(1, |e, now| e.abandon(now, on_b)).unwrap();
    ask(&mut world, 0);
    world.run(ROUND_TRIP);
    assert_eq!(told(&world, 0), 1, "{}", world.story());
}

/// An unprotected request within an IKE SA, as anybody can send it.
fn request(local: IpAddr, remote: IpAddr, spis: (IkeSpi, IkeSpi), initiator: bool) -> Datagram {
    let header = Header {
        spi_i: spis.0,
        spi_r: spis.1,
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { initiator, version: false, response: false },
        message_id: 2,
        length: 0,
    };
    let bytes = encode_plain(&header, &[]);
    Datagram { local: (local, 500).into(), remote: (remote, 500).into(), bytes }
}

/// Answers that show a token, of all that was sent to a host.
fn shown(world: &World, to: usize) -> Vec<Vec<u8>> {
    let to_host = world.recorded.iter().filter(|(host, _)| *host == to);
    let parsed = to_host.filter_map(|(_, datagram)| {
        let message = wire::message::parse(&datagram.bytes).ok()?;
        let mut notifies = message.payloads.iter().filter_map(|payload| match payload {
            Payload::Notify(n) if n.kind == NotifyType::QUICK_CRASH_DETECTION => Some(n),
            _ => None,
        });
        notifies.next().map(|notify| notify.data.clone())
    });
    parsed.collect()
}

/// An answer that says that an IKE SA is lost, and shows these tokens.
fn answer(world: &World, tokens: &[&[u8]]) -> Datagram {
    let sa = &world.hosts[0].endpoint.ike_sas()[0];
    let mut header =
        Header::parse(&request(A, B, (sa.spi_i, sa.spi_r), !sa.initiator).bytes).expect("a header");
    header.flags.response = true;
    let token = |data: &&[u8]| {
        Payload::Notify(Notify {
            protocol: ProtocolId::IKE,
            ..Notify::new(NotifyType::QUICK_CRASH_DETECTION, data.to_vec())
        })
    };
    let lost = Payload::Notify(Notify::new(NotifyType::INVALID_IKE_SPI, Vec::new()));
    let payloads: Vec<_> = std::iter::once(lost).chain(tokens.iter().map(token)).collect();
    Datagram {
        local: (A, 500).into(),
        remote: (B, 500).into(),
        bytes: encode_plain(&header, &payloads),
    }
}

fn spis(world: &World) -> (IkeSpi, IkeSpi) {
    let sa = &world.hosts[0].endpoint.ike_sas()[0];
    (sa.spi_i, sa.spi_r)
}

/// Whoever asks for the token of an IKE SA that is there, under whichever of its names, does not get it.
#[test]
fn the_token_of_what_is_there_is_not_told() {
    for first in [0, 1] {
        let mut world = pair(first, |_| {});
        let (spi_i, spi_r) = spis(&world);
        for initiator in [false, true] {
            for names in [(spi_i, spi_r), (spi_r, spi_i)] {
                world.inject(1, request(B, A, names, initiator));
            }
        }
        world.run_secs(10);
        assert!(shown(&world, 0).is_empty(), "{}", world.story());
        // What an attacker may be told are tokens of IKE SAs that there are not: they are worth nothing.
        for names in [(spi_i, IkeSpi(1)), (IkeSpi(1), spi_r), (IkeSpi(7), IkeSpi(8))] {
            for initiator in [false, true] {
                world.inject(1, request(B, A, names, initiator));
            }
        }
        world.run(ROUND_TRIP);
        for token in shown(&world, 0) {
            let forged = answer(&world, &[&token]);
            world.inject(0, forged);
        }
        world.run_secs(10);
        world.assert_settled();
        assert_eq!(told(&world, 0), 0);
    }
}

/// The peer has a successor sooner than this host, and uses it.
#[test]
fn nor_is_that_of_what_is_coming() {
    for suite in ["aes128-sha256-modp2048", "aes128-sha256-x25519-ke1_mlkem512"] {
        let mut world = pair(0, |p| p.ike_proposals = ike_suites(&[suite]));
        rekey_ike(&mut world, 0);
        let mut asked = 0;
        for _ in 0..200 {
            world.run(Duration::from_micros(500));
            let spi = |host: usize| world.hosts[host].endpoint.ike_sas()[0].spi_i;
            let (here, there) = (spi(0), world.hosts[1].endpoint.ike_sas()[0].clone());
            if here != there.spi_i {
                asked += 1;
                world.inject(0, request(A, B, (there.spi_i, there.spi_r), false));
            }
        }
        world.run_secs(10);
        assert!(asked > 0, "the two ends are never through at once");
        assert!(shown(&world, 1).is_empty(), "{}", world.story());
        world.assert_settled();
    }
}

#[test]
fn a_forged_token_is_not_believed() {
    let mut world = pair(0, |_| {});
    let many = vec![7; 1000];
    for token in [&[0; 32][..], &[], &[7; 15], &[7; 16], &[7; 128], &[7; 129], &many] {
        let forged = answer(&world, &[token]);
        world.inject(0, forged);
    }
    // More than are looked at, the right one last.
    let names = spis(&world);
    let mut twin = pair(0, |_| {});
    lose_everything(&mut twin, 1);
    twin.inject(1, request(B, A, names, true));
    twin.run(ROUND_TRIP);
    let [right] = shown(&twin, 0).try_into().expect("one token");
    let crowd = answer(&world, &[&[0; 32], &[1; 32], &[2; 32], &[3; 32], &right]);
    world.inject(0, crowd);
    world.run_secs(10);
    world.assert_settled();
    assert_eq!(told(&world, 0), 0);
    // The right one; and again, when there is another IKE SA.
    let good = answer(&world, &[&right]);
    world.inject(0, good.clone());
    world.run(ROUND_TRIP);
    assert_eq!(told(&world, 0), 1, "{}", world.story());
    world.initiate(0);
    world.run_secs(10);
    let newer = answer(&world, &[&right]);
    world.inject(0, good);
    world.inject(0, newer);
    world.run_secs(10);
    world.assert_settled();
    assert_eq!(told(&world, 0), 1, "{}", world.story());
}

/// Hosts of a fleet may share one private key: none of them makes another's token.
#[test]
fn another_host_with_the_same_key_makes_other_tokens() {
    let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
    let mut world = pair(0, |_| {});
    let (mut a, mut c) = (peer(A, other), peer(other, A));
    certificates(&mut a);
    certificates(&mut c);
    let mut elsewhere = World::new(Arc::new(Toy), 9, a, c);
    let (spi_i, spi_r) = spis(&world);
    for initiator in [false, true] {
        elsewhere.inject(1, request(other, A, (spi_i, spi_r), initiator));
    }
    elsewhere.run(ROUND_TRIP);
    let tokens = shown(&elsewhere, 0);
    assert_eq!(tokens.len(), 2);
    for token in &tokens {
        let forged = answer(&world, &[token]);
        world.inject(0, forged);
    }
    world.run_secs(10);
    world.assert_settled();
    assert_eq!(told(&world, 0), 0);
}

/// A process that does not know yet what the last one left says nothing of it.
#[test]
fn nothing_is_told_before_it_is_known_what_there_is() {
    let mut world = pair(0, |_| {});
    lose_everything(&mut world, 1);
    world.hosts[1].directory.settled = false;
    ask(&mut world, 0);
    world.run_secs(1);
    assert!(shown(&world, 0).is_empty(), "{}", world.story());
    assert_eq!(told(&world, 0), 0);
    world.hosts[1].directory.settled = true;
    world.run_secs(2);
    assert_eq!(told(&world, 0), 1, "the repeated question is answered\n{}", world.story());
}

#[test]
fn answers_are_few() {
    let mut world = toy(1, certificates);
    for n in 0..2000 {
        world.inject(1, request(B, A, (IkeSpi(n + 1), IkeSpi(n + 9)), true));
    }
    world.run(Duration::from_millis(500));
    assert_eq!(shown(&world, 0).len(), 64);
    assert!(world.recorded.len() < 80, "{} answers", world.recorded.len());
}
