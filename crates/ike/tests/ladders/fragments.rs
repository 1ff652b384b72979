//! Fragments (RFC 7383): large messages over narrow links, and everything that may go wrong with a piece.

use std::sync::Arc;
use std::time::Duration;

use crypto::chain::TrustStore;
use crypto::toy::{Authority, Toy};
use ike::config::FRAGMENT_SIZE;
use ike::endpoint::Datagram;
use ike::error::Misbehaviour;
use ike::fragment::MAX_FRAGMENTS;
use ike::{Auth, Credentials, Event, PeerConfig};
use wire::identity::Identity;
use wire::message::{Flags, Header};
use wire::registry::{ExchangeType, PayloadType};

use crate::collide::{rekey_child, rekey_ike};
use crate::faults;
use crate::setup::*;
use crate::world::{Fate, World};

/// So small that no encrypted message of the toy is whole, and no first one is too long.
const TINY: u16 = 200;

/// A certificate of some 5,000 bytes.
fn long_certificate(name: &str) -> Auth {
    let authority = Authority::new("toy CA");
    let names: Vec<Identity> =
        (0..50).map(|n| Identity::Fqdn(format!("{n}.{}.example", "long".repeat(20)))).collect();
    let (leaf, key) = authority.issue(name, &names, (0, u64::MAX));
    let trust = TrustStore { roots: vec![authority.certificate], ..TrustStore::default() };
    Auth::Certificate(Arc::new(Credentials::new(leaf, Vec::new(), Arc::new(key), trust)))
}

fn narrow(a: PeerConfig, b: PeerConfig) -> World {
    let mut world = World::new(Arc::new(Toy), 1, a, b);
    world.mtu = usize::from(FRAGMENT_SIZE);
    world.traffic = true;
    world
}

/// Fragments that went to host `n`: number and total.
fn fragments_to(world: &World, n: usize) -> Vec<(u16, u16)> {
    let sent = world.recorded.iter().filter(|(to, _)| *to == n);
    sent.filter_map(|(_, d)| {
        let bytes = d.bytes.strip_prefix(&[0; 4]).unwrap_or(&d.bytes);
        wire::message::parse(bytes).ok()?.sk?.fragment
    })
    .collect()
}

fn dropped(world: &World, n: usize, wanted: Misbehaviour) -> usize {
    world.hosts[n].count(|e| matches!(e, Event::Dropped { what, .. } if *what == wanted))
}

/// A pair with fragments, and nothing that starts by itself.
fn quiet() -> World {
    up(5, |p| {
        p.fragment_size = Some(TINY);
        p.dpd_delay = None;
    })
}

/// The header of a request that A makes of B.
fn request(world: &World, message_id: u32) -> Header {
    let sa = &world.hosts[0].endpoint.ike_sas()[0];
    Header {
        spi_i: sa.spi_i,
        spi_r: sa.spi_r,
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { initiator: true, version: false, response: false },
        message_id,
        length: 0,
    }
}

/// B gets what A could have sent: a piece of an INFORMATIONAL request.
fn give(world: &mut World, header: &Header, fragment: Option<(u16, u16)>, plain: &[u8]) {
    let content = (PayloadType::VENDOR_ID, plain);
    let bytes = crate::decrypt::forge(&world.hosts[0].endpoint, &Toy, header, fragment, content);
    deliver(world, bytes);
}

fn deliver(world: &mut World, bytes: Vec<u8>) {
    world.inject(1, Datagram { local: (B, 500).into(), remote: (A, 500).into(), bytes });
    world.run(Duration::ZERO);
}

/// A's next message id in a `quiet` pair: it asked for a sign of life after IKE_AUTH.
const NEXT: u32 = 3;

/// A vendor id payload of 12 bytes, which may be cut anywhere.
const VENDOR: [u8; 16] = [0, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

#[test]
fn long_certificates_over_a_narrow_link() {
    for initiator in [0, 1] {
        let (mut a, mut b) = peers(|_| {});
        (a.auth, b.auth) = (long_certificate("a"), long_certificate("b"));
        let mut world = narrow(a, b);
        world.initiate(initiator);
        world.run_secs(1);
        assert_eq!(world.too_long, 0, "{}", world.story());
        for n in [0, 1] {
            let totals = fragments_to(&world, n);
            let total = totals[0].1;
            assert!(total > 3 && totals == (1..=total).map(|k| (k, total)).collect::<Vec<_>>());
        }
        assert!(world.story().contains("IKE_AUTH request 1 [ EF(1/"), "{}", world.story());
        rekey_ike(&mut world, 0);
        world.run_secs(1);
        rekey_child(&mut world, 1);
        world.settle();
        world.assert_settled();
        world.assert_no_loss();
    }
}

#[test]
fn longer_headers_of_ipv6_count() {
    let [one, two] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
    let (mut a, mut b) = (peer(one, two), peer(two, one));
    (a.auth, b.auth) = (long_certificate("a"), long_certificate("b"));
    (common(&mut a).force_encap, common(&mut b).force_encap) = (true, true);
    let mut world = narrow(a, b);
    world.initiate(0);
    world.run_secs(1);
    world.assert_settled();
    assert_eq!(world.too_long, 0, "{}", world.story());
    let longest = world.recorded.iter().map(|(_, d)| d.bytes.len() + 48).max().unwrap();
    // The toy's cipher has blocks; nothing more is given away.
    assert!(longest > 1280 - 32, "{longest}");
}

/// Who does not announce it gets none, and sends none.
#[test]
fn only_if_both_announce_it() {
    for silent in [0, 1] {
        let (mut a, mut b) = peers(|_| {});
        (a.auth, b.auth) = (long_certificate("a"), long_certificate("b"));
        if silent == 0 {
            a.fragment_size = None
        } else {
            b.fragment_size = None
        }
        let mut world = World::new(Arc::new(Toy), 1, a, b);
        world.initiate(0);
        world.run_secs(1);
        world.assert_settled();
        assert!(fragments_to(&world, 0).is_empty() && fragments_to(&world, 1).is_empty());
        let announced = world.story().matches("FRAG_SUP").count();
        assert_eq!(announced, silent, "{}", world.story());
        // A fragment that comes all the same is none.
        let header = request(&world, NEXT);
        give(&mut world, &header, Some((1, 2)), &VENDOR);
        assert_eq!(dropped(&world, 1, Misbehaviour::UnexpectedPayload), 1);
    }
}

#[test]
fn every_fragment_lost_doubled_or_late() {
    let tiny = |p: &mut PeerConfig| {
        p.dpd_delay = None;
        p.fragment_size = Some(TINY);
    };
    let fresh = || {
        let mut world = toy(3, tiny);
        world.traffic = true;
        world
    };
    let establish = |w: &mut World| {
        w.initiate(0);
    };
    faults::disturb(fresh, establish, false);
    for side in [0, 1] {
        faults::disturb(|| up(3, tiny), |w| rekey_child(w, side), true);
        faults::disturb(|| up(3, tiny), |w| rekey_ike(w, side), true);
    }
}

/// All at once, in reverse.
#[test]
fn reordered() {
    let mut world = toy(2, |p| p.fragment_size = Some(TINY));
    for index in 2..40 {
        let late = Duration::from_millis(400 - 10 * index as u64);
        world.fates.insert(index, Fate::Late(late));
    }
    world.initiate(0);
    world.run_secs(10);
    world.fates.clear();
    world.settle();
    world.assert_settled();
}

/// RFC 7383 2.6.1: a repeated request is answered once, for its first fragment.
#[test]
fn a_response_is_repeated_for_the_first_fragment_alone() {
    let mut world = toy(5, |p| p.fragment_size = Some(TINY));
    world.initiate(0);
    // Until IKE_AUTH is answered, and nothing follows.
    world.run(Duration::from_millis(44));
    let requests: Vec<_> =
        world.recorded.iter().filter(|(to, _)| *to == 1).map(|(_, d)| d.clone()).collect();
    let responses = fragments_to(&world, 0);
    assert!(requests.len() > 2 && responses.len() > 1, "{}", world.story());
    let before = world.sent;
    for other in &requests[2..1 + usize::from(fragments_to(&world, 1)[0].1)] {
        world.inject(1, other.clone());
    }
    world.run_secs(0);
    assert_eq!(world.sent, before, "{}", world.story());
    world.inject(1, requests[1].clone());
    world.run_secs(0);
    assert_eq!(world.sent, before + responses.len(), "{}", world.story());
}

#[test]
fn the_next_process_knows_that_the_peer_gathers_fragments() {
    for side in [0, 1] {
        let mut world = quiet();
        world.restart(side, true);
        world.run_secs(6);
        let count = |world: &World| [0, 1].map(|n| fragments_to(world, n).len());
        let before = count(&world);
        rekey_ike(&mut world, side);
        world.run_secs(3);
        let after = count(&world);
        assert!(after[0] > before[0] && after[1] > before[1], "{}", world.story());
        world.settle();
        world.assert_settled();
        world.assert_no_loss();
    }
}

#[test]
fn half_a_request_is_forgotten() {
    let mut world = quiet();
    let (header, before) = (request(&world, NEXT), world.sent);
    give(&mut world, &header, Some((1, 2)), &VENDOR[..7]);
    world.run_secs(40);
    give(&mut world, &header, Some((2, 2)), &VENDOR[7..]);
    world.run_secs(1);
    assert_eq!(world.sent, before, "{}", world.story());
    give(&mut world, &header, Some((1, 2)), &VENDOR[..7]);
    assert_eq!(world.sent, before + 1, "{}", world.story());
}

#[test]
fn smaller_fragments_start_anew() {
    let mut world = quiet();
    let (header, before) = (request(&world, NEXT), world.sent);
    give(&mut world, &header, Some((1, 2)), b"to be forgotten");
    give(&mut world, &header, Some((1, 3)), &VENDOR[..7]);
    give(&mut world, &header, Some((2, 2)), &VENDOR[7..]);
    assert_eq!(dropped(&world, 1, Misbehaviour::Fragment), 1);
    give(&mut world, &header, Some((3, 3)), &VENDOR[9..]);
    assert_eq!(world.sent, before);
    give(&mut world, &header, Some((2, 3)), &VENDOR[7..9]);
    assert_eq!(world.sent, before + 1, "{}", world.story());
}

/// The whole message came as well: what is left of its pieces is a repeat.
#[test]
fn pieces_and_the_whole_of_one_message() {
    let mut world = quiet();
    let (header, before) = (request(&world, NEXT), world.sent);
    give(&mut world, &header, Some((1, 2)), &VENDOR[..7]);
    give(&mut world, &header, None, &VENDOR);
    assert_eq!(world.sent, before + 1, "{}", world.story());
    give(&mut world, &header, Some((2, 2)), &VENDOR[7..]);
    assert_eq!(world.sent, before + 1);
    give(&mut world, &header, Some((1, 2)), &VENDOR[..7]);
    assert_eq!(world.sent, before + 2);
    assert_eq!(world.hosts[1].count(|e| matches!(e, Event::IkeDown { .. })), 0);
}

/// Nonsense with the right keys and without: dropped by name, and the SA goes on.
#[test]
fn hostile_fragments() {
    let mut world = quiet();
    let header = request(&world, NEXT);
    give(&mut world, &header, Some((0, 2)), b"no such number");
    give(&mut world, &header, Some((3, 2)), b"beyond the total");
    give(&mut world, &header, Some((0, 0)), b"no total");
    assert_eq!(dropped(&world, 1, Misbehaviour::Malformed), 3);
    for total in [MAX_FRAGMENTS + 1, 1000, u16::MAX] {
        give(&mut world, &header, Some((1, total)), b"huge");
    }
    assert_eq!(dropped(&world, 1, Misbehaviour::FragmentLimit), 3);
    for id in [0, 1, 77, u32::MAX] {
        give(&mut world, &request_with(header, id), Some((1, 2)), b"of another message");
    }
    assert_eq!(dropped(&world, 1, Misbehaviour::MessageId), 4);
    let auth = Header { exchange: ExchangeType::IKE_AUTH, ..header };
    give(&mut world, &auth, Some((1, 2)), b"too late");
    assert_eq!(dropped(&world, 1, Misbehaviour::OutOfOrder), 1);
    give(&mut world, &header, Some((1, 3)), b"one of three");
    give(&mut world, &header, Some((2, 2)), b"two of two");
    let rekey = Header { exchange: ExchangeType::CREATE_CHILD_SA, ..header };
    give(&mut world, &rekey, Some((2, 3)), b"of another exchange");
    assert_eq!(dropped(&world, 1, Misbehaviour::Fragment), 2);
    for number in 1..=5000_u16 {
        let mut bytes = crate::decrypt::forge(
            &world.hosts[0].endpoint,
            &Toy,
            &header,
            Some((number % 3 + 2, 5)),
            (PayloadType::NONE, b"forged"),
        );
        *bytes.last_mut().unwrap() ^= 1;
        deliver(&mut world, bytes);
    }
    assert_eq!(dropped(&world, 1, Misbehaviour::BadIcv), 5000);
    // A's own request of this id comes through, once what contradicts it is forgotten.
    rekey_child(&mut world, 0);
    crate::hostile::untouched(&mut world, 0);
}

/// More inside its fragments than a message may have: none of it is kept.
#[test]
fn too_many_bytes() {
    let mut world = quiet();
    let header = request(&world, NEXT);
    for number in 1..=3 {
        give(&mut world, &header, Some((number, 3)), &[0; 30_000]);
    }
    assert_eq!(dropped(&world, 1, Misbehaviour::FragmentLimit), 1);
    rekey_child(&mut world, 0);
    crate::hostile::untouched(&mut world, 0);
}

fn request_with(header: Header, message_id: u32) -> Header {
    Header { message_id, ..header }
}
