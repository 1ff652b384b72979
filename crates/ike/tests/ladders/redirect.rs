//! Redirect (RFC 5685): a tunnel goes to another gateway of the same identity, by its peer's word alone, and not in circles.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::toy::Toy;
use ike::endpoint::Datagram;
use ike::error::{AuthError, Failure, Misbehaviour};
use ike::redirect::{LOOP_DETECT_PERIOD, MAX_REDIRECTS, NotFollowed, Redirect};
use ike::{Event, PeerConfig};
use ipsec::sa::Mode;
use wire::identity::Identity;
use wire::message::{Flags, Header, encode_payloads, encode_plain, parse, parse_payloads};
use wire::payload::{Notify, Payload};
use wire::registry::{ExchangeType, NotifyType as N, PayloadType};

use crate::setup::*;
use crate::world::World;

/// The other gateway. Host B is both.
const G: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const TO_G: Redirect = Redirect { from: B, to: G };

fn redirectable(peer: &mut PeerConfig) {
    peer.redirect = true;
    peer.fragment_size = None;
    edit_child(peer, |child| child.mode = Mode::Tunnel);
}

fn named(name: &str) -> Identity {
    Identity::from_text(name).unwrap()
}

fn id(name: &str) -> Option<Arc<Identity>> {
    Some(named(name).into())
}

/// Both hosts; B proves to be `gateway` and answers at both addresses.
fn world(seed: u8, f: impl Fn(&mut PeerConfig)) -> World {
    let (mut a, mut b) = peers(|p| {
        redirectable(p);
        f(p);
    });
    (a.remote_id, b.local_id) = (id("gateway"), id("gateway"));
    let mut world = World::new(Arc::new(Toy), seed, a, b);
    world.hosts[1].directory.elsewhere = vec![G];
    world
}

/// REDIRECT's data.
fn data(kind: u8, identity: &[u8], nonce: &[u8]) -> Vec<u8> {
    [&[kind, identity.len() as u8], identity, nonce].concat()
}

fn to(gateway: IpAddr, nonce: &[u8]) -> Vec<u8> {
    match gateway {
        IpAddr::V4(v4) => data(1, &v4.octets(), nonce),
        IpAddr::V6(v6) => data(2, &v6.octets(), nonce),
    }
}

fn redirect(data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(N::REDIRECT, data))
}

/// REDIRECT's data, of the nonce of the request.
type Data = fn(&[u8]) -> Vec<u8>;

/// A gateway's answer to the IKE_SA_INIT request of A that was sent last; the data follows from its nonce.
fn answer(world: &World, data: impl Fn(&[u8]) -> Vec<u8>) -> Datagram {
    let (_, request) = world.recorded.iter().rfind(|(to, _)| *to == 1).expect("a request");
    let message = parse(&request.bytes).unwrap();
    let nonce = message.payloads.iter().find_map(|payload| match payload {
        Payload::Nonce(nonce) => Some(nonce.clone()),
        _ => None,
    });
    let flags = Flags { initiator: false, version: false, response: true };
    let header = Header { flags, ..message.header };
    let bytes = encode_plain(&header, &[redirect(&data(&nonce.unwrap()))]);
    Datagram { local: request.remote, remote: request.local, bytes }
}

/// A begins, and all that B sends is lost; `data` answers in its place.
fn answered(world: &mut World, data: impl Fn(&[u8]) -> Vec<u8>) {
    for n in 1..40 {
        world.fates.insert(n, crate::world::Fate::Lose);
    }
    world.initiate(0);
    world.run(Duration::from_millis(50));
    let answer = answer(world, data);
    world.inject(0, answer);
    world.run_secs(3);
    world.fates.clear();
}

fn follow(world: &mut World, redirect: Redirect) {
    let config = world.hosts[0].directory.config.clone();
    world.command(0, |e, now| e.follow(now, config, redirect)).unwrap();
}

/// How the attempts of A ended.
fn ends(world: &World) -> Vec<&Failure> {
    let down = world.hosts[0].events.iter().filter_map(|event| match event {
        Event::IkeDown { reason, .. } => Some(reason),
        _ => None,
    });
    down.collect()
}

fn dropped(world: &World, what: Misbehaviour) -> usize {
    world.hosts[0].count(|e| matches!(e, Event::Dropped { what: found, .. } if *found == what))
}

/// The one tunnel goes between A and this gateway, and the fleet knows the gateway by its home.
fn assert_at(world: &World, gateway: IpAddr) {
    world.assert_settled();
    let a = &world.hosts[0];
    assert_eq!(a.endpoint.ike_sas()[0].remote.ip(), gateway, "{}", world.story());
    assert_eq!((a.outbound()[0].src, a.outbound()[0].dst), (A, gateway));
    assert_eq!((a.inbound()[0].src, a.inbound()[0].dst), (gateway, A));
    assert_eq!(a.endpoint.children()[0].remote, B, "its home");
}

#[test]
fn the_first_exchange_goes_to_another_gateway() {
    let mut world = world(1, |_| {});
    answered(&mut world, |nonce| to(G, nonce));
    assert_eq!(ends(&world), [&Failure::Redirected(TO_G)], "{}", world.story());
    assert!(world.story().contains("N(REDIR_SUP)"), "{}", world.story());
    follow(&mut world, TO_G);
    world.traffic = true;
    world.run_secs(40);
    assert_at(&world, G);
    world.assert_no_loss();
    let asked = |n: &Notify| n.kind == N::REDIRECTED_FROM && n.data == [1, 4, 10, 0, 0, 2];
    let (_, request) = world.recorded.iter().find(|(_, d)| d.local.ip() == G).unwrap();
    let payloads = parse(&request.bytes).unwrap().payloads;
    assert!(payloads.iter().any(|p| matches!(p, Payload::Notify(n) if asked(n))));

    for rekeyer in [0, 1] {
        let endpoint = &world.hosts[rekeyer].endpoint;
        let (child, ike) = (endpoint.children()[0].id, endpoint.ike_sas()[0].id);
        world.command(rekeyer, |e, now| e.rekey_child(now, child)).unwrap();
        world.run_secs(8);
        world.command(rekeyer, |e, now| e.rekey_ike(now, ike)).unwrap();
        world.run_secs(8);
        assert_at(&world, G);
    }
    world.restart(0, true);
    world.run_secs(8);
    assert_at(&world, G);
    world.assert_no_loss();
}

/// Anybody on the way could have sent it.
#[test]
fn the_peers_own_answer_is_preferred() {
    let mut world = world(2, |_| {});
    world.initiate(0);
    world.run(Duration::from_millis(5));
    let forged = answer(&world, |nonce| to(G, nonce));
    world.inject(0, forged);
    world.run_secs(3);
    assert_at(&world, B);
    assert_eq!(ends(&world), Vec::<&Failure>::new());
}

#[test]
fn what_is_not_followed_is_named() {
    let far = IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let nowhere = [
        B,
        far,
        [224, 0, 0, 1].into(),
        [255, 255, 255, 255].into(),
        [127, 0, 0, 1].into(),
        [0, 0, 0, 0].into(),
    ];
    let mut cases: Vec<_> =
        nowhere.map(|at| (to(at, &[]), NotFollowed::Nowhere(at))).into_iter().collect();
    let name = "other.example";
    cases.push((data(3, name.as_bytes(), &[]), NotFollowed::Name(name.into())));
    for (data, why) in cases {
        let mut world = world(3, |_| {});
        answered(&mut world, |nonce| [&data[..], nonce].concat());
        assert_eq!(ends(&world), [&Failure::NotRedirected(why)], "{}", world.story());
    }
    // Not asked for.
    let off = [(|p| p.redirect = false) as fn(&mut PeerConfig), |p| {
        edit_child(p, |child| child.mode = Mode::Transport)
    }];
    for off in off {
        let mut world = world(4, off);
        answered(&mut world, |nonce| to(G, nonce));
        assert_eq!(ends(&world), [&Failure::NotRedirected(NotFollowed::NotAsked)]);
        assert!(!world.story().contains("REDIR_SUP"), "{}", world.story());
    }
}

#[test]
fn who_did_not_see_the_request_redirects_nobody() {
    let wrong: [Data; 8] = [
        |_| to(G, &[]),
        |nonce| to(G, &nonce[1..]),
        |nonce| to(G, &[nonce, &[0]].concat()),
        |nonce| to(G, &vec![7; nonce.len()]),
        |nonce| data(1, &[192, 0, 2], nonce),
        |nonce| data(2, &[192, 0, 2, 1], nonce),
        |nonce| data(9, &[192, 0, 2, 1], nonce),
        |_| vec![1, 200, 1],
    ];
    for (n, wrong) in wrong.into_iter().enumerate() {
        let mut world = world(5, |_| {});
        answered(&mut world, wrong);
        let what = if n < 4 { Misbehaviour::Redirect } else { Misbehaviour::Malformed };
        assert_eq!(dropped(&world, what), 1, "{n}\n{}", world.story());
        assert_eq!(ends(&world), Vec::<&Failure>::new());
        // It is still asked, and answers.
        world.run_secs(10);
        assert_at(&world, B);
    }
}

/// B answers IKE_AUTH with its proof, a REDIRECT and no child SA; `spoil` may change the payloads.
fn redirected_in_auth(world: &mut World, spoil: fn(&mut Payload)) {
    let mut answered = 0;
    world.meddling.lie = Some(Box::new(move |plain| {
        answered += 1;
        if answered == 2 {
            let all = parse_payloads(PayloadType::ID_R, plain).unwrap();
            let keep = |p: &Payload| matches!(p, Payload::IdR(_) | Payload::Auth(_));
            let mut kept: Vec<_> = all.into_iter().filter(keep).collect();
            kept.push(redirect(&to(G, &[])));
            kept.iter_mut().for_each(spoil);
            *plain = encode_payloads(&kept).1;
        }
    }));
    world.initiate(0);
    world.run_secs(3);
}

#[test]
fn in_ike_auth_once_the_peer_has_proven_itself() {
    let mut world = world(6, |_| {});
    redirected_in_auth(&mut world, |_| {});
    assert_eq!(ends(&world), [&Failure::Redirected(TO_G)], "{}", world.story());
    assert!(world.hosts[1].endpoint.ike_sas().is_empty(), "it is told\n{}", world.story());
    assert!(world.hosts[1].inbound().is_empty());
    follow(&mut world, TO_G);
    world.run_secs(40);
    assert_at(&world, G);

    let mut world = self::world(7, |_| {});
    redirected_in_auth(&mut world, |payload| {
        if let Payload::Auth(auth) = payload {
            auth.data[0] ^= 1;
        }
    });
    let ends = ends(&world);
    assert!(matches!(ends[..], [Failure::PeerAuth(_)]), "{ends:?}");

    let mut world = self::world(8, |p| p.redirect = false);
    redirected_in_auth(&mut world, |_| {});
    assert_eq!(self::ends(&world), [&Failure::NotRedirected(NotFollowed::NotAsked)]);
}

/// A REDIRECT of host `from` within the one IKE SA.
fn inform(world: &mut World, from: usize, data: &[u8]) {
    let sa = world.hosts[from].endpoint.ike_sas()[0].clone();
    let header = Header {
        spi_i: sa.spi_i,
        spi_r: sa.spi_r,
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { initiator: sa.initiator, version: false, response: false },
        // The initiator has sent IKE_SA_INIT, IKE_AUTH and a sign of life.
        message_id: if sa.initiator { 3 } else { 0 },
        length: 0,
    };
    let (first, plain) = encode_payloads(&[redirect(data)]);
    let sender = &world.hosts[from].endpoint;
    let bytes = crate::decrypt::forge(sender, &Toy, &header, None, (first, &plain));
    world.inject(1 - from, Datagram { local: sa.remote, remote: sa.local, bytes });
    world.run(Duration::from_millis(50));
}

#[test]
fn a_tunnel_that_stands_is_kept_until_another_does() {
    let mut world = world(9, |_| {});
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    assert_at(&world, B);
    let old = world.hosts[0].endpoint.ike_sas()[0].id;
    inform(&mut world, 1, &to(G, &[]));
    let sent = |e: &Event| matches!(e, Event::Redirected { id, redirect } if (*id, *redirect) == (old, TO_G));
    assert_eq!(world.hosts[0].count(sent), 1, "{}", world.story());
    assert_at(&world, B);
    follow(&mut world, TO_G);
    world.run_secs(30);
    assert_at(&world, G);
    world.assert_no_loss();
    assert_eq!(ends(&world), [&Failure::Ended(ike::error::EndReason::Reauthenticated)]);

    // The last one is sent by the client to the gateway.
    for (from, data, why) in [
        (1, to(B, &[]), NotFollowed::Nowhere(B)),
        (1, vec![1, 9], NotFollowed::Malformed),
        (1, data(3, b"gw", &[]), NotFollowed::Name("gw".into())),
        (0, to(G, &[]), NotFollowed::NotAsked),
    ] {
        let mut world = self::world(10, |_| {});
        world.initiate(0);
        world.run_secs(3);
        inform(&mut world, from, &data);
        let refused =
            |e: &Event| matches!(e, Event::NotRedirected { why: found, .. } if *found == why);
        assert_eq!(world.hosts[1 - from].count(refused), 1, "{}", world.story());
        assert_at(&world, B);
    }
}

/// A redirect changes where packets go, and never who is trusted.
#[test]
fn the_other_gateway_must_be_who_the_first_one_had_to_be() {
    let mut world = world(11, |_| {});
    answered(&mut world, |nonce| to(G, nonce));
    let mut thief = (*world.hosts[1].directory.config).clone();
    thief.local_id = id("thief");
    world.hosts[1].directory.config = Arc::new(thief);
    follow(&mut world, TO_G);
    world.run_secs(3);
    let wrong = AuthError::WrongIdentity { wanted: named("gateway"), got: named("thief") };
    assert_eq!(ends(&world)[1..], [&Failure::PeerAuth(wrong)], "{}", world.story());
    assert!(world.hosts[0].endpoint.children().is_empty());
}

#[test]
fn a_loop_is_noticed() {
    let mut world = world(12, |_| {});
    let config = world.hosts[0].directory.config.clone();
    let follow = |world: &mut World| {
        let config = config.clone();
        world.command(0, |e, now| e.follow(now, config, TO_G))
    };
    for n in 0..MAX_REDIRECTS {
        assert!(follow(&mut world).is_ok(), "{n}");
        world.run_secs(1);
    }
    assert_eq!(follow(&mut world), Err(NotFollowed::Loop));
    let mut other = (*config).clone();
    other.remote = [10, 0, 0, 9].into();
    let of_another = world.command(0, |e, now| e.follow(now, Arc::new(other), TO_G));
    assert!(of_another.is_ok(), "each peer counts for itself");
    world.run(LOOP_DETECT_PERIOD);
    assert!(follow(&mut world).is_ok(), "that was long ago");
}

/// Where A is asked from does not matter: what counts is whom its request went to.
#[test]
fn the_target_is_told_by_the_gateway_that_was_asked() {
    let mut world = world(13, |_| {});
    answered(&mut world, |nonce| to(G, nonce));
    follow(&mut world, TO_G);
    world.run(Duration::from_millis(5));
    // The second gateway sends it back: allowed, and no redirect to itself.
    let back = answer(&world, |nonce| to(B, nonce));
    assert_eq!(back.remote, SocketAddr::new(G, 500));
    for n in world.sent..world.sent + 100 {
        world.fates.insert(n, crate::world::Fate::Lose);
    }
    world.inject(0, back);
    world.run_secs(3);
    assert_eq!(ends(&world)[1..], [&Failure::Redirected(Redirect { from: G, to: B })]);
}
