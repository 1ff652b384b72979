//! MOBIKE (RFC 4555): tunnels move, whoever moves, whatever is lost; and nobody moves another's.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ike::endpoint::Datagram;
use ike::error::{Failure, Misbehaviour};
use ike::{Event, IkeSaId, PeerConfig};
use ipsec::sa::Mode;
use wire::registry::NotifyType;

use crate::setup::*;
use crate::world::{Fate, World};

const A2: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const A3: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
const B2: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const EVIL: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));

fn mobile(peer: &mut PeerConfig) {
    common(peer).mobike = true;
    peer.fragment_size = None;
    edit_child(peer, |child| child.mode = Mode::Tunnel);
}

/// An established pair with traffic, each with one address.
fn pair(seed: u8) -> World {
    let mut world = toy(seed, mobile);
    own(&mut world, 0, &[A]);
    own(&mut world, 1, &[B]);
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    world
}

/// A host has these addresses.
fn own(world: &mut World, n: usize, addresses: &[IpAddr]) {
    world.command(n, |endpoint, now| endpoint.set_addresses(now, addresses));
}

/// Between which addresses host `n` has its IKE SA, and its SAs.
fn place(world: &World, n: usize) -> (IpAddr, IpAddr) {
    let host = &world.hosts[n];
    let ike = &host.endpoint.ike_sas()[0];
    let ends = (ike.local.ip(), ike.remote.ip());
    for sa in host.outbound() {
        assert_eq!((sa.src, sa.dst), ends, "outbound\n{}", world.story());
    }
    for sa in host.inbound() {
        assert_eq!((sa.dst, sa.src), ends, "inbound\n{}", world.story());
    }
    ends
}

fn handshakes(world: &World) -> usize {
    world.ladder.iter().filter(|line| line.contains("IKE_SA_INIT")).count()
}

/// The one tunnel goes between `a` and `b`, at both ends, and it is the one there was; it can be rekeyed there.
fn assert_moved(world: &mut World, a: IpAddr, b: IpAddr) {
    world.assert_settled();
    assert_eq!(handshakes(world), 2, "a handshake\n{}", world.story());
    for rekeyer in [0, 1] {
        assert_eq!((place(world, 0), place(world, 1)), ((a, b), (b, a)), "{}", world.story());
        let endpoint = &world.hosts[rekeyer].endpoint;
        let (child, ike) = (endpoint.children()[0].id, endpoint.ike_sas()[0].id);
        world.command(rekeyer, |e, now| e.rekey_child(now, child)).unwrap();
        world.run_secs(8);
        world.command(rekeyer, |e, now| e.rekey_ike(now, ike)).unwrap();
        world.run_secs(8);
        world.assert_settled();
        // The fleet knows both by the addresses that they had.
        for (n, home) in [(0, B), (1, A)] {
            assert_eq!(world.hosts[n].endpoint.children()[0].remote, home);
        }
    }
    assert_eq!(place(world, 0), (a, b));
    assert_eq!(handshakes(world), 2);
}

/// Messages from or to these addresses arrive spoiled: there is no way.
fn cut(world: &mut World, addresses: &'static [IpAddr]) {
    world.meddling.tamper = Some(Box::new(move |_, datagram: &mut Datagram| {
        let ends = [datagram.local.ip(), datagram.remote.ip()];
        if ends.iter().any(|end| addresses.contains(end))
            && let Some(last) = datagram.bytes.last_mut()
        {
            *last ^= 1;
        }
    }));
}

#[test]
fn it_is_announced_for_tunnels_alone() {
    let world = pair(1);
    assert_eq!(world.story().matches("MOBIKE_SUP").count(), 2, "{}", world.story());
    assert_eq!(world.hosts[0].endpoint.ike_sas()[0].remote.port(), 4500, "RFC 4555 3.3");
    assert!(world.hosts[0].outbound()[0].encap.is_none(), "there is no NAT");
    let mut world = up(2, |p| common(p).mobike = true);
    assert!(!world.story().contains("MOBIKE_SUP"), "{}", world.story());
    own(&mut world, 0, &[A2]);
    world.run_secs(3);
    assert_eq!(place(&world, 0), (A, B), "selectors of transport mode are the addresses");
    // One end alone does not suffice, whichever it is.
    for lone in [0, 1] {
        let (mut a, mut b) = peers(mobile);
        common([&mut a, &mut b][lone]).mobike = false;
        let mut world = World::new(std::sync::Arc::new(crypto::toy::Toy), 3, a, b);
        own(&mut world, 0, &[A]);
        world.initiate(0);
        world.run_secs(3);
        own(&mut world, 0, &[A2]);
        world.run_secs(3);
        assert_eq!(place(&world, 0), (A, B));
        assert!(!world.story().contains("UPD_SA_ADDR"), "{}", world.story());
    }
}

#[test]
fn a_tunnel_follows_its_initiator() {
    let mut world = pair(10);
    own(&mut world, 0, &[A2]);
    world.run_secs(3);
    assert_eq!((place(&world, 0), place(&world, 1)), ((A2, B), (B, A2)), "{}", world.story());
    world.assert_no_loss();
    own(&mut world, 0, &[A3, A2]);
    world.run_secs(3);
    assert_eq!(place(&world, 0), (A2, B), "an address that is there is kept");
    own(&mut world, 0, &[A3]);
    world.run_secs(3);
    assert_moved(&mut world, A3, B);
    own(&mut world, 0, &[A]);
    world.run_secs(3);
    assert_eq!(place(&world, 1), (B, A), "home again\n{}", world.story());
}

/// CPIs belong to the child SA, wherever it goes, and to that of its rekey there.
#[test]
fn compression_moves_with_it() {
    let mut world = toy(12, |p| {
        mobile(p);
        edit_child(p, |child| child.compression = true);
    });
    own(&mut world, 0, &[A]);
    own(&mut world, 1, &[B]);
    world.initiate(0);
    world.run_secs(3);
    let cpis = |world: &World, n: usize| {
        let (inbound, outbound) = (world.hosts[n].inbound(), world.hosts[n].outbound());
        (inbound[0].ipcomp.unwrap(), outbound[0].ipcomp.unwrap())
    };
    let before = cpis(&world, 0);
    own(&mut world, 0, &[A2]);
    world.run_secs(3);
    assert_eq!(place(&world, 0), (A2, B));
    assert_eq!(cpis(&world, 0), before);
    assert_moved(&mut world, A2, B);
    let (inbound, outbound) = cpis(&world, 0);
    assert_eq!(cpis(&world, 1), (outbound, inbound));
}

#[test]
fn a_tunnel_follows_its_responder() {
    let mut world = pair(11);
    own(&mut world, 1, &[B2]);
    world.run_secs(3);
    assert_moved(&mut world, A, B2);
}

/// What was rekeyed by the other end changes nothing of who decides.
#[test]
fn who_decides_is_not_who_rekeyed() {
    for mover in [0, 1] {
        let mut world = pair(12 + mover as u8);
        let ike = world.hosts[1].endpoint.ike_sas()[0].id;
        world.command(1, |e, now| e.rekey_ike(now, ike)).unwrap();
        world.run_secs(8);
        assert!(world.hosts[1].endpoint.ike_sas()[0].initiator);
        let (addresses, a, b) = [(&[A2], A2, B), (&[B2], A, B2)][mover];
        own(&mut world, mover, addresses);
        world.run_secs(3);
        assert_moved(&mut world, a, b);
    }
}

#[test]
fn each_message_of_a_move_lost_doubled_or_late() {
    let fates = [Fate::Lose, Fate::Twice, Fate::Late(Duration::from_millis(2500))];
    for (mover, addresses, a, b) in [(0, [A2], A2, B), (1, [B2], A, B2)] {
        for fate in fates {
            for message in 0..7 {
                let mut world = pair(20);
                world.fates.insert(world.sent + message, fate);
                own(&mut world, mover, &addresses);
                world.run_secs(15);
                assert_moved(&mut world, a, b);
            }
        }
    }
}

#[test]
fn a_second_move_before_the_first_is_through() {
    for wait in 0..60 {
        let mut world = pair(21);
        own(&mut world, 0, &[A2]);
        world.run(Duration::from_millis(wait));
        own(&mut world, 0, &[A3]);
        world.run_secs(15);
        assert_moved(&mut world, A3, B);
    }
}

#[test]
fn both_move_at_once() {
    for wait in 0..50 {
        let mut world = pair(22);
        own(&mut world, 0, &[A2]);
        world.run(Duration::from_millis(wait));
        own(&mut world, 1, &[B2]);
        world.run_secs(20);
        assert_moved(&mut world, A2, B2);
    }
}

#[test]
fn a_move_in_the_middle_of_a_rekey() {
    for (ike, rekeyer) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        for wait in (0..60).step_by(3) {
            let mut world = pair(23);
            let endpoint = &world.hosts[rekeyer].endpoint;
            let (child, id) = (endpoint.children()[0].id, endpoint.ike_sas()[0].id);
            world
                .command(rekeyer, |e, now| match ike {
                    true => e.rekey_ike(now, id),
                    false => e.rekey_child(now, child),
                })
                .unwrap();
            world.run(Duration::from_millis(wait));
            own(&mut world, 0, &[A2]);
            world.run_secs(20);
            assert_moved(&mut world, A2, B);
        }
    }
}

#[test]
fn a_dead_path_is_left_for_another_of_either_end() {
    for (dead, a, b) in [(&[A], A2, B), (&[B], A, B2)] {
        let mut world = pair(30);
        own(&mut world, 0, &[A, A2]);
        own(&mut world, 1, &[B, B2]);
        world.run_secs(3);
        cut(&mut world, dead);
        world.run_secs(60);
        assert_moved(&mut world, a, b);
    }
}

/// Somebody on the way rewrites where a genuine message came from. The tunnel does not go there, and does not break.
#[test]
fn a_rewritten_source_captures_nothing() {
    let mut world = pair(40);
    let mut left = 1;
    let first = world.sent;
    world.meddling.tamper = Some(Box::new(move |n, datagram: &mut Datagram| {
        if n >= first && datagram.local.ip() == A2 && left > 0 {
            left -= 1;
            datagram.local.set_ip(EVIL);
        }
        if datagram.remote.ip() == EVIL {
            datagram.bytes.truncate(20);
        }
    }));
    own(&mut world, 0, &[A2]);
    world.run_secs(90);
    let captured = |e: &Event| matches!(e, Event::PeerMoved { remote, .. } if remote.ip() == EVIL);
    assert_eq!(world.hosts[1].count(captured), 0, "{}", world.story());
    assert_moved(&mut world, A2, B);
}

/// Verified messages from elsewhere that do not say so move nothing (RFC 4555 3.8).
#[test]
fn nothing_moves_without_a_word() {
    let mut world = pair(41);
    world.meddling.tamper = Some(Box::new(|_, datagram: &mut Datagram| {
        if datagram.local.ip() == A {
            datagram.local = (EVIL, 4500).into();
        } else {
            datagram.remote = (A, 4500).into();
        }
    }));
    let ike = world.hosts[0].endpoint.ike_sas()[0].id;
    for _ in 0..3 {
        world.command(0, |e, now| e.probe(now, ike)).unwrap();
        world.run_secs(2);
    }
    assert_eq!(place(&world, 1), (B, A), "{}", world.story());
}

#[test]
fn an_address_of_another_is_refused() {
    let mut world = pair(42);
    world.hosts[1].directory.taken = vec![A2];
    own(&mut world, 0, &[A2, A3]);
    world.run_secs(5);
    let refused = |e: &Event| matches!(e, Event::MoveRefused { to, .. } if to.ip() == A2);
    assert_eq!(world.hosts[1].count(refused), 1, "{}", world.story());
    assert_moved(&mut world, A3, B);

    let mut world = pair(43);
    world.hosts[1].directory.taken = vec![A2];
    own(&mut world, 0, &[A2]);
    world.run_secs(5);
    assert_eq!(place(&world, 1), (B, A), "the responder's tunnel stays where it was");
    let end = Failure::PeerError(NotifyType::UNACCEPTABLE_ADDRESSES);
    assert!(
        world.hosts[0]
            .events
            .iter()
            .any(|e| matches!(e, Event::IkeDown { reason, .. } if *reason == end)),
        "{}",
        world.story()
    );
}

#[test]
fn no_address_that_packets_cannot_go_to_is_followed() {
    let nowhere = [
        "127.0.0.1",
        "224.0.0.5",
        "255.255.255.255",
        "0.0.0.0",
        "169.254.1.1",
        "::1",
        "2001:db8::5",
    ];
    for address in nowhere.map(|text| text.parse::<IpAddr>().unwrap()) {
        let mut world = pair(44);
        world.meddling.tamper = Some(Box::new(move |_, datagram: &mut Datagram| {
            if datagram.local.ip() == A2 {
                datagram.local.set_ip(address);
            }
        }));
        own(&mut world, 0, &[A2]);
        world.run_secs(5);
        assert_eq!(place(&world, 1), (B, A), "{address}\n{}", world.story());
        let refused = |e: &Event| matches!(e, Event::MoveRefused { .. });
        assert_eq!(world.hosts[1].count(refused), 1, "{address}");
    }
}

/// RFC 4555 3.7: another COOKIE2 ends the IKE SA.
#[test]
fn another_cookie_ends_it() {
    for answered_by in [1, 0] {
        let mut world = pair(45);
        let mut seen = 0;
        world.meddling.lie = Some(Box::new(move |plain| {
            let at = plain.windows(4).position(|w| w == [0, 0, 0x40, 0x11]);
            // First A's request and B's answer to it; then B's check, and A's answer.
            if let Some(at) = at {
                seen += 1;
                if seen == [4, 2][answered_by] {
                    plain[at + 4] ^= 1;
                }
            }
        }));
        own(&mut world, 0, &[A2]);
        world.run_secs(2);
        let end = Failure::Misbehaved(Misbehaviour::Cookie2);
        let ends = |n: usize| {
            world.hosts[n].count(|e| matches!(e, Event::IkeDown { reason, .. } if *reason == end))
        };
        assert_eq!(ends(1 - answered_by), 1, "{}", world.story());
        assert_eq!(world.hosts[1].count(|e| matches!(e, Event::PeerMoved { .. })), 0);
    }
}

/// A process ends before or after any message of a move, at either end; the next one goes on.
#[test]
fn a_restart_in_the_middle_of_a_move() {
    for side in [0, 1] {
        for message in 0..5 {
            for sent in [false, true] {
                let mut world = pair(50);
                world.crash = Some((side, world.sent + message, sent));
                own(&mut world, 0, &[A2]);
                world.run_secs(2);
                world.crash = None;
                own(&mut world, 0, &[A2]);
                own(&mut world, 1, &[B]);
                world.run_secs(25);
                assert_moved(&mut world, A2, B);
            }
        }
    }
}

/// Behind a NAT the tunnel goes in UDP, and without one again as before.
#[test]
fn a_move_behind_a_nat_and_out_of_it() {
    let mut world = pair(60);
    // The NAT's public address; its ports are 20000 more.
    world.nat_port = Some(20_000);
    own(&mut world, 0, &[A2]);
    world.run_secs(3);
    let ike = world.hosts[1].endpoint.ike_sas()[0].remote;
    assert_eq!((ike.ip(), ike.port()), (A, 24_500), "{}", world.story());
    assert_eq!(world.hosts[0].endpoint.ike_sas()[0].local.ip(), A2);
    for host in &world.hosts {
        assert!(host.outbound()[0].encap.is_some(), "{}", world.story());
    }
    let before = world.keepalives;
    world.run_secs(50);
    assert!(world.keepalives >= before + 2, "the mapping is kept");
    // Another mapping: told by the answer to a liveness check (RFC 4555 3.8).
    world.nat_port = Some(30_000);
    world.run_secs(60);
    assert_eq!(world.hosts[1].endpoint.ike_sas()[0].remote.port(), 34_500, "{}", world.story());
    world.nat_port = None;
    own(&mut world, 0, &[A3]);
    world.run_secs(3);
    assert_moved(&mut world, A3, B);
    for host in &world.hosts {
        assert!(host.outbound()[0].encap.is_none(), "{}", world.story());
    }
}

/// A tunnel that has moved gives way to a new one between the homes of the two, as any does.
#[test]
fn a_new_tunnel_from_home_replaces_one_that_has_moved() {
    let mut world = pair(70);
    own(&mut world, 0, &[A2]);
    world.run_secs(3);
    own(&mut world, 0, &[A, A2]);
    let new: IkeSaId = world.initiate(0);
    world.run_secs(15);
    world.assert_settled();
    assert_eq!(world.hosts[0].endpoint.ike_sas()[0].id, new);
    assert_eq!(place(&world, 1), (B, A));
}

/// However many addresses a host has, and wherever among them the one in use stands: it is not gone.
#[test]
fn an_address_among_many_is_still_there() {
    let mut world = pair(9);
    let many = (1..=100).map(|n| IpAddr::from([172, 16, 0, n])).chain([A]).collect::<Vec<_>>();
    own(&mut world, 0, &many);
    world.run_secs(5);
    assert_eq!(place(&world, 0), (A, B), "{}", world.story());
    world.assert_no_loss();
}
