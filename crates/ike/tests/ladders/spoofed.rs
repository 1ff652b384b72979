//! What somebody can do who sees or guesses traffic but has no key, and a member with a key that reaches for more.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::Secret;
use ike::Event;
use ike::endpoint::Datagram;
use ike::error::Failure;
use ipsec::sa::Mode;
use wire::message::{Flags, Header, IkeSpi, encode_plain};
use wire::payload::{Notify, Payload};
use wire::registry::{ExchangeType, NotifyType, PayloadType, ProtocolId};

use crate::setup::*;
use crate::world::{Fate, World};

const MILLI: Duration = Duration::from_millis(1);

/// A's first request, as it went to B.
fn first_request(world: &mut World) -> Datagram {
    world.initiate(0);
    world.run(5 * MILLI);
    let sent = world.recorded.iter().rev().find(|(to, _)| *to == 1);
    sent.expect("a request").1.clone()
}

/// An unencrypted answer to a request.
fn refusal(request: &Datagram, kind: NotifyType, data: &[u8]) -> Datagram {
    let mut header = Header::parse(&request.bytes).unwrap();
    header.flags = Flags { initiator: false, version: false, response: true };
    let notify = Notify { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data: data.to_vec() };
    Datagram {
        local: request.remote,
        remote: request.local,
        bytes: encode_plain(&header, &[Payload::Notify(notify)]),
    }
}

#[test]
fn a_forged_refusal_does_not_end_a_handshake() {
    for kind in [
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::INVALID_SYNTAX,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_MAJOR_VERSION,
        NotifyType::TEMPORARY_FAILURE,
    ] {
        let mut world = toy(1, |_| {});
        let request = first_request(&mut world);
        world.inject(0, refusal(&request, kind, &[]));
        world.run_secs(3);
        world.assert_settled();
        assert_eq!(world.hosts[0].count(|e| matches!(e, Event::IkeDown { .. })), 0, "{kind}");
    }
    // Another method than any that was offered.
    let mut world = toy(1, |_| {});
    let request = first_request(&mut world);
    world.inject(0, refusal(&request, NotifyType::INVALID_KE_PAYLOAD, &[0, 31]));
    world.run_secs(3);
    world.assert_settled();
}

#[test]
fn a_refusal_that_nothing_contradicts_is_believed() {
    let mut world = toy(1, |_| {});
    let request = first_request(&mut world);
    for index in 0..40 {
        world.fates.insert(index, Fate::Lose);
    }
    world.inject(0, refusal(&request, NotifyType::NO_PROPOSAL_CHOSEN, &[]));
    world.run(1500 * MILLI);
    let refused = |e: &Event| {
        matches!(e, Event::IkeDown { reason: Failure::NoProposalChosen { by: "the peer", .. }, .. })
    };
    assert_eq!(world.hosts[0].count(refused), 1, "{}", world.story());
}

/// First requests like A's own, with SPIs of somebody else's making.
fn forge(world: &mut World, request: &Datagram, from: SocketAddr, count: u64) {
    for n in 0..count {
        let mut forged = Datagram { remote: from, ..request.clone() };
        forged.bytes[..8].copy_from_slice(&(0xbad0_0000 + n).to_be_bytes());
        world.inject(1, forged);
    }
}

#[test]
fn first_requests_in_a_peers_name_do_not_shut_it_out() {
    for known in [true, false] {
        let mut world = toy(1, |_| {});
        world.hosts[1].directory.known = known;
        world.fates.insert(0, Fate::Lose);
        let request = first_request(&mut world);
        forge(&mut world, &request, request.remote, 100);
        world.run_secs(5);
        let up = world.hosts.iter().all(|h| h.endpoint.ike_sas().len() == 1);
        assert!(up, "{}", world.story());
        let open = world.hosts[1].endpoint.half_open().len();
        assert!(open <= 4, "{open} half-open SAs of an address that never answered");
    }
}

/// In either mode: nobody gets an SA for another host's packets.
#[test]
fn selectors_of_another_host_are_refused() {
    let other: IpAddr = "10.0.0.9".parse().unwrap();
    for mode in [Mode::Transport, Mode::Tunnel] {
        for (local, remote) in [(other, B), (A, other)] {
            let (mut a, mut b) = peers(|_| {});
            edit_child(&mut a, |c| {
                let asked = child(local, remote);
                (c.local_ts, c.remote_ts, c.mode) = (asked.local_ts, asked.remote_ts, mode);
            });
            edit_child(&mut b, |c| c.mode = mode);
            let mut world = World::new(Arc::new(crypto::toy::Toy), 1, a, b);
            world.initiate(0);
            world.run_secs(3);
            assert_eq!(world.hosts[1].endpoint.ike_sas().len(), 1, "{}", world.story());
            assert_eq!(world.hosts[1].inbound().len(), 0, "{}", world.story());
            let refused = |e: &Event| {
                matches!(e, Event::ChildFailed { reason: Failure::TsUnacceptable { .. }, .. })
            };
            assert_eq!(world.hosts[0].count(refused), 1, "{}", world.story());
        }
    }
}

#[test]
fn who_fails_over_and_over_waits() {
    let mut world = toy(1, |_| {});
    let good = world.hosts[0].directory.config.clone();
    let mut bad = (*good).clone();
    bad.auth = ike::Auth::Psk(Secret::new(b"somebody else's key entirely".to_vec()).into());
    world.hosts[0].directory.config = Arc::new(bad);
    for _ in 0..60 {
        world.initiate(0);
        world.run(100 * MILLI);
    }
    let denied = |e: &Event| matches!(e, Event::IkeDown { reason: Failure::PeerAuth(_), .. });
    let checked = world.hosts[1].count(denied);
    assert!((1..=16).contains(&checked), "{checked} proofs were checked");
    world.hosts[0].directory.config = good;
    world.run_secs(60);
    world.initiate(0);
    world.run_secs(3);
    assert_eq!(world.hosts[1].endpoint.ike_sas().len(), 1, "{}", world.story());
}

/// A member says that it is behind a NAT and then, under its own keys, that it is at another member's address.
#[test]
fn a_member_does_not_move_to_anothers_address() {
    let public: IpAddr = "198.51.100.7".parse().unwrap();
    let (a, mut b) = peers(|p| p.dpd_delay = None);
    b.remote = public;
    edit_child(&mut b, |c| c.remote_ts = child(B, public).remote_ts);
    let mut world = World::new(Arc::new(crypto::toy::Toy), 1, a, b);
    world.nat_port = Some(20_000);
    world.initiate(0);
    world.run_secs(5);
    let ike = world.hosts[0].endpoint.ike_sas()[0].id;
    world.fates.insert(world.sent, Fate::Lose);
    world.command(0, |endpoint, now| endpoint.probe(now, ike)).unwrap();
    let (_, mut stolen) = world.recorded.last().unwrap().clone();
    stolen.remote = "10.0.0.9:4500".parse().unwrap();
    world.inject(1, stolen);
    world.run(100 * MILLI);
    assert_eq!(world.hosts[1].count(|e| matches!(e, Event::PeerMoved { .. })), 0);
    assert_eq!(world.hosts[1].endpoint.ike_sas()[0].remote, SocketAddr::new(public, 24_500));
    assert_eq!(world.hosts[1].endpoint.children()[0].remote, public);
}

#[test]
fn a_critical_payload_of_the_future_is_named_in_the_refusal() {
    let mut world = toy(1, |_| {});
    let header = Header {
        spi_i: IkeSpi(77),
        spi_r: IkeSpi(0),
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags { initiator: true, version: false, response: false },
        message_id: 0,
        length: 0,
    };
    let mut bytes = encode_plain(&header, &[Payload::Nonce(vec![7; 32])]);
    // The nonce becomes payload 200, critical.
    bytes[16] = 200;
    bytes[29] = 0x80;
    world.inject(1, Datagram { local: (B, 500).into(), remote: (A, 500).into(), bytes });
    world.run(5 * MILLI);
    let (to, answer) = world.recorded.last().expect("an answer");
    let message = wire::message::parse(&answer.bytes).unwrap();
    let named = message.payloads.iter().any(|p| {
        matches!(p, Payload::Notify(n) if n.kind == NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD && n.data == [200])
    });
    assert!(*to == 0 && named, "{}", world.story());
}

/// What a made-up sender is told is no more than what came in its name.
#[test]
fn refusals_do_not_amplify() {
    let (a, mut b) = peers(|_| {});
    b.ike_proposals = ike_suites(&["aes256-sha512-modp4096"; 30]);
    let mut world = World::new(Arc::new(crypto::toy::Toy), 1, a, b);
    let request = first_request(&mut world);
    let header = Header::parse(&request.bytes).unwrap();
    let message = wire::message::parse(&request.bytes).unwrap();
    let mut payloads = message.payloads.clone();
    payloads.retain(|p| matches!(p, Payload::Sa(_) | Payload::Nonce(_)));
    payloads.push(Payload::Ke(wire::payload::KePayload {
        method: wire::registry::Ke::MODP_2048,
        data: vec![1],
    }));
    let bytes = encode_plain(&header, &payloads);
    let length = bytes.len();
    world.inject(1, Datagram { remote: (A, 4711).into(), bytes, ..request });
    world.run(5 * MILLI);
    let told: Vec<_> = world.recorded.iter().filter(|(to, _)| *to == 0).collect();
    let longest = told.iter().map(|(_, d)| d.bytes.len()).filter(|len| *len > length);
    assert!(!told.is_empty() && longest.count() == 0, "{}", world.story());
}
