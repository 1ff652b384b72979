//! IKE_SA_INIT and IKE_AUTH.

use std::sync::Arc;

use crypto::Secret;
use crypto::toy::{Toy, credentials};
use ike::endpoint::EndpointConfig;
use ike::error::{AuthError, Failure, Misbehaviour};
use ike::{Auth, Event, Load};
use ipsec::sa::Mode;
use wire::identity::Identity;
use wire::selector::TrafficSelector;

use crate::setup::*;
use crate::world::{LIMITS, World};

fn certificates(peer: &mut ike::PeerConfig) {
    peer.auth = Auth::Certificate(Arc::new(credentials("host")));
}

fn down(world: &World, n: usize) -> Option<&Failure> {
    world.hosts[n].events.iter().find_map(|e| match e {
        Event::IkeDown { reason, .. } => Some(reason),
        _ => None,
    })
}

fn child_failed(world: &World, n: usize) -> Option<&Failure> {
    world.hosts[n].events.iter().find_map(|e| match e {
        Event::ChildFailed { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn psk() {
    let mut world = toy(1, |_| {});
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    world.assert_no_loss();
    assert_eq!(world.sent, 6, "{}", world.story());
    let info = &world.hosts[0].endpoint.ike_sas()[0];
    assert_eq!(info.suite, "aes128-sha256-modp2048");
    assert_eq!(info.remote_id, Identity::Ipv4("10.0.0.2".parse().unwrap()));
}

#[test]
fn the_same_certificate_on_both_hosts() {
    let mut world = toy(2, certificates);
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    world.assert_no_loss();
    let story = world.story();
    assert!(story.contains("IDi CERT CERTREQ AUTH"), "{story}");
    assert!(story.contains("CERTREQ N(HASH_ALG)"), "{story}");
}

#[test]
fn every_pair_of_suites() {
    let suites = [
        "aes128-sha256-modp2048",
        "aes256-sha384-ecp384",
        "aes128gcm16-prfsha256-curve25519",
        "aes256gcm16-prfsha512-ecp521",
        "chacha20poly1305-prfsha256-ecp256",
    ];
    let esp = [
        "aes128gcm16",
        "aes256-sha256",
        "chacha20poly1305",
        "aes128gcm16-esn",
        "aes256gcm16-curve25519",
    ];
    for (n, (ike, esp)) in suites.iter().flat_map(|i| esp.iter().map(move |e| (i, e))).enumerate() {
        let mut world = up(n as u8, |p| {
            p.ike_proposals = ike_suites(&[ike]);
            edit_child(p, |c| c.esp_proposals = esp_suites(&[esp]));
        });
        let id = world.hosts[0].endpoint.ike_sas()[0].id;
        let child = world.hosts[1].endpoint.children()[0].id;
        world.command(0, |e, now| e.rekey_ike(now, id)).unwrap();
        world.run_secs(2);
        world.command(1, |e, now| e.rekey_child(now, child)).unwrap();
        world.run_secs(10);
        world.assert_settled();
        world.assert_no_loss();
    }
}

#[test]
fn wrong_psk_is_refused_and_both_say_so() {
    let (a, mut b) = peers(|_| {});
    b.auth = Auth::Psk(Secret::new(b"quite another pre-shared key".to_vec()).into());
    let mut world = World::new(Arc::new(Toy), 3, a, b);
    world.initiate(0);
    world.run_secs(60);
    assert_eq!(down(&world, 0), Some(&Failure::RefusedByPeer), "{}", world.story());
    assert!(matches!(down(&world, 1), Some(Failure::PeerAuth(AuthError::BadProof(_)))));
    for host in &world.hosts {
        assert!(host.endpoint.ike_sas().is_empty() && host.endpoint.half_open().is_empty());
        assert_eq!(host.endpoint.next_timeout(), None, "nothing is left behind");
    }
}

#[test]
fn initiator_refuses_the_responder() {
    let (mut a, b) = peers(certificates);
    a.remote_id = Some(Identity::Fqdn("somebody.else".into()).into());
    let mut world = World::new(Arc::new(Toy), 4, a, b);
    world.initiate(0);
    world.run_secs(60);
    let story = world.story();
    assert!(
        matches!(down(&world, 0), Some(Failure::PeerAuth(AuthError::WrongIdentity { .. }))),
        "{story}"
    );
    assert!(story.contains("INFORMATIONAL request 2 [ N(AUTH_FAILED) ]"), "{story}");
    assert_eq!(down(&world, 1), Some(&Failure::RefusedByPeer), "{story}");
    assert!(world.hosts[1].endpoint.children().is_empty() && world.hosts[1].inbound().is_empty());
}

#[test]
fn another_key_exchange_is_asked_for_once() {
    let (mut a, mut b) = peers(|_| {});
    a.ike_proposals = ike_suites(&["aes128-sha256-modp2048", "aes128-sha256-ecp256"]);
    b.ike_proposals = ike_suites(&["aes128-sha256-ecp256"]);
    let mut world = World::new(Arc::new(Toy), 5, a, b);
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    let story = world.story();
    assert!(story.contains("response 0 [ N(INVAL_KE) ]"), "{story}");
    assert_eq!(world.hosts[0].endpoint.ike_sas()[0].suite, "aes128-sha256-ecp256");
}

#[test]
fn cookies_for_strangers_only() {
    for known in [false, true] {
        let (a, b) = peers(|_| {});
        let limits = EndpointConfig { cookie_threshold: 0, ..LIMITS };
        let mut world = World::with_limits(Arc::new(Toy), 6, a, b, limits);
        world.hosts[1].directory.known = known;
        world.initiate(0);
        world.run_secs(3);
        world.assert_settled();
        assert_eq!(world.story().contains("N(COOKIE)"), !known, "{}", world.story());
    }
}

#[test]
fn with_much_to_do_known_peers_show_a_cookie_too() {
    let (a, b) = peers(|_| {});
    let mut world = World::new(Arc::new(Toy), 6, a, b);
    world.hosts[1].directory.load = Load::Heavy;
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    assert!(world.story().contains("N(COOKIE)"), "{}", world.story());
}

/// The initiator signs the request with the cookie: a copy of the first one, which comes when there is less to do, is none to begin with.
#[test]
fn who_was_asked_for_a_cookie_is_not_let_in_without() {
    let mut world = toy(6, certificates);
    world.fates.insert(0, crate::world::Fate::Twice);
    world.hosts[1].directory.load = Load::Heavy;
    world.initiate(0);
    while world.hosts[1].endpoint.turned_away().is_empty() {
        world.run(std::time::Duration::from_millis(1));
    }
    world.hosts[1].directory.load = Load::Light;
    world.run_secs(5);
    world.assert_settled();
    assert_eq!(world.hosts[1].endpoint.turned_away()["COOKIE"], 2, "{}", world.story());
    for host in &world.hosts {
        assert_eq!(host.count(|e| matches!(e, Event::IkeUp { .. })), 1, "{}", world.story());
        assert_eq!(host.count(|e| matches!(e, Event::IkeDown { .. })), 0, "{}", world.story());
    }
}

#[test]
fn with_too_much_to_do_nothing_is_begun_until_that_is_done() {
    let (a, b) = peers(|_| {});
    let mut world = World::new(Arc::new(Toy), 6, a, b);
    world.hosts[1].directory.load = Load::Full;
    world.initiate(0);
    world.run_secs(3);
    let busy = |e: &Event| matches!(e, Event::Dropped { what: Misbehaviour::Busy, .. });
    assert!(world.hosts[1].count(busy) > 0, "{}", world.story());
    assert!(world.hosts[1].endpoint.ike_sas().is_empty());
    assert_eq!(world.hosts[1].endpoint.half_open_count(), 0);
    world.hosts[1].directory.load = Load::Light;
    world.run_secs(5);
    world.assert_settled();
    assert_eq!(world.hosts[1].endpoint.turned_away()["COOKIE"], 1, "{}", world.story());
}

#[test]
fn a_cookie_and_another_key_exchange() {
    let (mut a, mut b) = peers(|_| {});
    a.ike_proposals = ike_suites(&["aes128-sha256-modp2048-ecp256"]);
    b.ike_proposals = ike_suites(&["aes128-sha256-ecp256"]);
    let limits = EndpointConfig { cookie_threshold: 0, ..LIMITS };
    let mut world = World::with_limits(Arc::new(Toy), 7, a, b, limits);
    world.hosts[1].directory.known = false;
    world.initiate(0);
    world.run_secs(5);
    world.assert_settled();
    let told = world.hosts[1].endpoint.turned_away();
    assert!(["COOKIE", "INVALID_KE_PAYLOAD"].iter().all(|what| told[what] > 0), "{told:?}");
    assert_eq!(world.hosts[1].endpoint.half_open_count(), 0);
}

#[test]
fn no_common_ike_proposal() {
    let (mut a, mut b) = peers(|_| {});
    a.ike_proposals = ike_suites(&["aes128-sha256-modp2048"]);
    b.ike_proposals = ike_suites(&["aes256-sha384-ecp384"]);
    let mut world = World::new(Arc::new(Toy), 8, a, b);
    world.initiate(0);
    world.run_secs(3);
    assert!(matches!(down(&world, 0), Some(Failure::NoProposalChosen { by: "the peer", .. })));
    match down(&world, 1) {
        Some(Failure::NoProposalChosen { by: "this host", theirs, .. }) => {
            assert_eq!(theirs.len(), 1)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refused_child_leaves_the_ike_sa() {
    let (a, mut b) = peers(|_| {});
    edit_child(&mut b, |c| c.esp_proposals = esp_suites(&["aes256gcm16"]));
    let mut world = World::new(Arc::new(Toy), 9, a, b);
    world.initiate(0);
    world.run_secs(3);
    for host in &world.hosts {
        assert_eq!(host.endpoint.ike_sas().len(), 1);
        assert!(host.endpoint.children().is_empty());
    }
    assert!(matches!(
        child_failed(&world, 0),
        Some(Failure::NoProposalChosen { protocol: "ESP", by: "the peer", .. })
    ));
    assert!(matches!(
        child_failed(&world, 1),
        Some(Failure::NoProposalChosen { protocol: "ESP", by: "this host", .. })
    ));
}

#[test]
fn selectors_without_overlap() {
    let (a, mut b) = peers(|_| {});
    edit_child(&mut b, |c| {
        c.local_ts = [TrafficSelector::host("10.9.9.9".parse().unwrap())].into()
    });
    let mut world = World::new(Arc::new(Toy), 10, a, b);
    world.initiate(0);
    world.run_secs(3);
    // Each names both sides' selectors.
    for (host, text) in [
        (0, "ours 10.0.0.1/32 === 10.0.0.2/32; theirs 10.0.0.1/32 === 10.9.9.9/32"),
        (1, "ours 10.9.9.9/32 === 10.0.0.1/32; theirs 10.0.0.2/32 === 10.0.0.1/32"),
    ] {
        let failure = child_failed(&world, host).expect("a failure");
        assert!(matches!(failure, Failure::TsUnacceptable { .. }));
        assert!(failure.to_string().contains(text), "{failure}");
    }
    assert_eq!(world.hosts[0].endpoint.ike_sas().len(), 1);
}

#[test]
fn tunnel_mode_is_narrowed() {
    let (mut a, mut b) = peers(|p| edit_child(p, |c| c.mode = Mode::Tunnel));
    let net = |text: &str| -> Arc<[TrafficSelector]> {
        Arc::from([TrafficSelector::net(text.parse().unwrap())])
    };
    edit_child(&mut a, |c| (c.local_ts, c.remote_ts) = (net("192.168.1.0/24"), net("0.0.0.0/0")));
    edit_child(&mut b, |c| {
        (c.local_ts, c.remote_ts) = (net("192.168.2.0/24"), net("192.168.0.0/16"))
    });
    let mut world = World::new(Arc::new(Toy), 11, a, b);
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    let child = &world.hosts[0].endpoint.children()[0];
    assert_eq!(child.mode, Mode::Tunnel);
    assert_eq!(
        (&*child.local_ts, &*child.remote_ts),
        (&*net("192.168.1.0/24"), &*net("192.168.2.0/24"))
    );
}

#[test]
fn a_peer_that_declines_transport_mode() {
    let (a, mut b) = peers(|_| {});
    edit_child(&mut b, |c| c.mode = Mode::Tunnel);
    let mut world = World::new(Arc::new(Toy), 12, a, b);
    world.initiate(0);
    world.run_secs(10);
    let story = world.story();
    assert!(matches!(child_failed(&world, 0), Some(Failure::OtherMode { .. })), "{story}");
    for host in &world.hosts {
        assert!(host.endpoint.children().is_empty() && host.inbound().is_empty(), "{story}");
        assert_eq!(host.endpoint.ike_sas().len(), 1, "{story}");
    }
}

#[test]
fn a_peer_that_wants_tunnel_mode_where_transport_is_configured() {
    let (mut a, b) = peers(|_| {});
    edit_child(&mut a, |c| c.mode = Mode::Tunnel);
    let mut world = World::new(Arc::new(Toy), 13, a, b);
    world.initiate(0);
    world.run_secs(3);
    assert!(child_failed(&world, 1).is_some());
    assert!(world.hosts[1].inbound().is_empty() && world.hosts[0].inbound().is_empty());
}

#[test]
fn forced_encapsulation_floats_to_4500() {
    for (force_a, force_b) in [(true, false), (false, true), (true, true)] {
        let (mut a, mut b) = peers(|_| {});
        (common(&mut a).force_encap, common(&mut b).force_encap) = (force_a, force_b);
        let mut world = World::new(Arc::new(Toy), 14, a, b);
        world.traffic = true;
        world.initiate(0);
        world.run_secs(3);
        world.assert_settled();
        world.assert_no_loss();
        for host in &world.hosts {
            let info = &host.endpoint.ike_sas()[0];
            assert_eq!((info.local.port(), info.remote.port()), (4500, 4500));
            for sa in host.inbound().into_iter().chain(host.outbound()) {
                let encap = sa.encap.expect("ESP in UDP");
                assert_eq!((encap.local_port, encap.remote_port), (4500, 4500));
            }
            assert!(host.endpoint.children()[0].encap);
        }
    }
}

#[test]
fn esp_goes_in_udp_where_both_prefer_it_and_only_there() {
    for (a_prefers, b_prefers) in [(true, true), (true, false), (false, true)] {
        let (mut a, mut b) = peers(|_| {});
        (common(&mut a).prefer_encap, common(&mut b).prefer_encap) = (a_prefers, b_prefers);
        let mut world = World::new(Arc::new(Toy), 14, a, b);
        world.traffic = true;
        world.initiate(0);
        world.run_secs(3);
        world.assert_settled();
        world.assert_no_loss();
        let both = a_prefers && b_prefers;
        let port = if both { 4500 } else { 500 };
        for host in &world.hosts {
            let info = &host.endpoint.ike_sas()[0];
            assert_eq!((info.local.port(), info.remote.port()), (port, port));
            for sa in host.inbound().into_iter().chain(host.outbound()) {
                assert_eq!(sa.encap.is_some(), both);
            }
            assert_eq!(host.endpoint.children()[0].encap, both);
        }
    }
}

#[test]
fn nobody_answers() {
    let mut world = toy(15, |_| {});
    world.hosts[1].directory.config = Arc::new(peer(B, "10.0.0.99".parse().unwrap()));
    world.initiate(0);
    world.run_secs(120);
    match down(&world, 0) {
        Some(Failure::Timeout { during: "IKE_SA_INIT", tries: 7, seconds }) => {
            assert!((25..60).contains(seconds))
        }
        other => panic!("{other:?}"),
    }
    let refused = |e: &Event| matches!(e, Event::Dropped { what: Misbehaviour::NotAPeer, .. });
    assert_eq!(world.hosts[1].count(refused), 7);
    assert!(world.hosts[1].endpoint.half_open().is_empty());
}

/// A busy host's own work outlasts the time that the peer has for IKE_AUTH.
#[test]
fn a_slow_responder_finishes_what_it_has_begun() {
    let mut world = toy(17, certificates);
    world.job_time[1] = std::time::Duration::from_secs(12);
    world.initiate(0);
    world.run_secs(34);
    assert_eq!(world.hosts[1].endpoint.half_open().len(), 1);
    world.run_secs(60);
    for host in &world.hosts {
        assert!(host.endpoint.half_open().is_empty());
        assert_eq!(host.count(|e| matches!(e, Event::IkeUp { .. })), 1);
        assert_eq!(host.count(|e| matches!(e, Event::IkeDown { .. })), 0);
    }
}

/// What it sent through SAs that the initiator does not have yet would be lost: it asks, and waits for a sign.
#[test]
fn a_responder_sends_nothing_before_a_slow_initiator_can_take_it() {
    let mut world = toy(18, certificates);
    world.job_time[0] = std::time::Duration::from_secs(3);
    world.initiate(0);
    for _ in 0..300 {
        world.run(std::time::Duration::from_millis(100));
        let [initiator, responder] = &world.hosts;
        assert!(responder.outbound().is_empty() || !initiator.inbound().is_empty());
    }
    assert_eq!(world.hosts[1].outbound().len(), 1);
    world.assert_settled();
}

#[test]
fn a_half_open_sa_does_not_stay() {
    let mut world = toy(16, |_| {});
    let fates: Vec<usize> = (2..200).collect();
    world.fates.extend(fates.iter().map(|n| (*n, crate::world::Fate::Lose)));
    world.initiate(0);
    world.run_secs(10);
    assert_eq!(world.hosts[1].endpoint.half_open().len(), 1);
    world.run_secs(200);
    for host in &world.hosts {
        assert!(host.endpoint.half_open().is_empty());
        assert_eq!(host.endpoint.next_timeout(), None);
        assert_eq!(
            host.count(|e| matches!(e, Event::IkeDown { reason: Failure::Timeout { .. }, .. })),
            1
        );
    }
}

#[test]
fn a_restarted_peer_replaces_what_was() {
    let mut world = up(17, |_| {});
    let fresh = toy(99, |_| {});
    let [host, _] = fresh.hosts;
    world.hosts[0] = host;
    world.initiate(0);
    world.run_secs(10);
    world.assert_settled();
    assert_eq!(world.hosts[1].count(|e| matches!(e, Event::InitialContact { .. })), 2);
    let ended = |e: &Event| {
        matches!(
            e,
            Event::IkeDown { reason: Failure::Ended(ike::error::EndReason::InitialContact), .. }
        )
    };
    assert_eq!(world.hosts[1].count(ended), 1);
}

#[test]
fn the_version_is_checked() {
    let mut world = toy(18, |_| {});
    world.meddling.tamper = Some(Box::new(|n, datagram| {
        if n == 0 {
            datagram.bytes[17] = 0x30;
        }
    }));
    world.initiate(0);
    world.run_secs(5);
    assert!(world.story().contains("INVAL_MAJOR"), "{}", world.story());
    assert_eq!(
        world.hosts[1].count(|e| matches!(e, Event::Dropped { what: Misbehaviour::Version, .. })),
        1
    );
}
