//! Several key exchanges for one SA: IKE_INTERMEDIATE and IKE_FOLLOWUP_KE (RFC 9242, RFC 9370).

use std::sync::Arc;
use std::time::Duration;

use crypto::native::Native;
use ike::error::{AuthError, Failure};
use ike::rng::Rng;
use ike::{Event, PeerConfig};

use crate::collide::{both, rekey_child, rekey_ike};
use crate::faults::disturb;
use crate::setup::*;
use crate::world::World;

const IKE: &str = "aes128gcm16-prfsha256-x25519-ke1_mlkem768";
const ESP: &str = "aes128gcm16-x25519-ke1_mlkem768";

fn suites(p: &mut PeerConfig, ike: &str, esp: &str) {
    p.ike_proposals = ike_suites(&[ike]);
    edit_child(p, |c| c.esp_proposals = esp_suites(&[esp]));
}

fn hybrid(p: &mut PeerConfig) {
    suites(p, IKE, ESP);
}

/// In one piece, for tests that look at what is inside.
fn whole(p: &mut PeerConfig) {
    hybrid(p);
    p.fragment_size = None;
}

fn down(world: &World, n: usize) -> Option<Failure> {
    world.hosts[n].events.iter().find_map(|e| match e {
        Event::IkeDown { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

fn told(world: &World, what: &str) -> usize {
    world.ladder.iter().filter(|line| line.contains(what)).count()
}

#[test]
fn one_more_key_exchange_before_authentication_and_after_each_rekey() {
    for side in [0, 1] {
        let mut world = up(1, whole);
        let ike = world.hosts[side].endpoint.ike_sas()[0].clone();
        assert_eq!(ike.suite, IKE.replace("x25519", "curve25519"));
        assert_eq!(told(&world, "IKE_INTERMEDIATE request 1 [ KE ]"), 1, "{}", world.story());
        // It is shown after the keys have changed.
        assert_eq!(told(&world, "IKE_INTERMEDIATE response 1 [ SK"), 1, "{}", world.story());
        assert_eq!(told(&world, "IKE_AUTH request 2"), 1, "{}", world.story());
        rekey_child(&mut world, side);
        world.run_secs(10);
        world.assert_settled();
        assert_eq!(told(&world, "IKE_FOLLOWUP_KE request"), 1, "{}", world.story());
        let suite = &world.hosts[side].endpoint.children()[0].suite;
        assert_eq!(*suite, ESP.replace("x25519", "curve25519"));
        rekey_ike(&mut world, side);
        world.run_secs(10);
        world.assert_settled();
        assert_ne!(world.hosts[side].endpoint.ike_sas()[0].spi_i, ike.spi_i);
        assert_eq!(told(&world, "IKE_FOLLOWUP_KE response"), 2, "{}", world.story());
        rekey_child(&mut world, 1 - side);
        world.run_secs(10);
        world.assert_settled();
        world.assert_no_loss();
    }
}

/// Seven of them, of which the responder takes four; the links change from one to the next.
#[test]
fn as_many_as_there_may_be() {
    let (mut a, mut b) = peers(|_| {});
    let all = "modp2048-ke1_mlkem512-ke2_mlkem768-ke2_none-ke3_mlkem1024-ke4_none-ke4_ecp521\
               -ke5_ecp256-ke6_ecp384-ke6_none-ke7_x25519-ke7_none";
    let some = "modp2048-ke1_mlkem512-ke3_mlkem1024-ke5_ecp256-ke7_x25519-ke7_none";
    suites(&mut a, &format!("aes128-sha256-{all}"), &format!("aes128gcm16-{all}"));
    suites(&mut b, &format!("aes128-sha256-{some}"), &format!("aes128gcm16-{some}"));
    (a.fragment_size, b.fragment_size) = (None, None);
    let mut world = World::new(Arc::new(crypto::toy::Toy), 1, a, b);
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    assert_eq!(told(&world, "IKE_INTERMEDIATE request"), 4, "{}", world.story());
    assert_eq!(told(&world, "IKE_AUTH request 5"), 1, "{}", world.story());
    for side in [0, 1] {
        rekey_child(&mut world, side);
        world.run_secs(10);
        rekey_ike(&mut world, side);
        world.run_secs(10);
        world.assert_settled();
    }
    assert_eq!(told(&world, "IKE_FOLLOWUP_KE request"), 16, "{}", world.story());
    world.assert_no_loss();
}

/// Real cryptography over a link that carries 1280 bytes.
#[test]
fn ml_kem_of_every_size_over_a_narrow_link() {
    let suites_of_all = [
        ("aes128gcm16-prfsha256-x25519-ke1_mlkem512", "aes128gcm16-x25519-ke1_mlkem512"),
        (IKE, ESP),
        ("aes256-sha384-ecp384-ke1_mlkem1024", "aes256gcm16-ecp384-ke1_mlkem1024"),
        ("aes128-sha256-mlkem512", "aes128gcm16-mlkem768"),
        (
            "aes256gcm16-prfsha512-modp3072-ke1_mlkem768-ke2_x25519",
            "chacha20poly1305-mlkem1024-ke2_x25519",
        ),
    ];
    for (n, (ike, esp)) in suites_of_all.into_iter().enumerate() {
        let (a, b) = peers(|p| suites(p, ike, esp));
        let mut world = World::new(Arc::new(Native), n as u8, a, b);
        world.mtu = 1280;
        world.traffic = true;
        world.initiate(n % 2);
        world.run_secs(2);
        world.assert_settled();
        for side in [0, 1] {
            rekey_child(&mut world, side);
            world.run_secs(10);
            rekey_ike(&mut world, side);
            world.run_secs(10);
        }
        world.assert_settled();
        world.assert_no_loss();
        assert_eq!(world.too_long, 0, "{}", world.story());
    }
}

/// A value of 1568 bytes goes in pieces, and the pieces may be smaller than the peer's.
#[test]
fn fragments_do_not_change_what_is_signed() {
    for sizes in [[200, 1280], [1280, 200], [300, 300], [1280, 9000], [9000, 1280]] {
        let (mut a, mut b) = peers(|p| {
            suites(p, "aes128-sha256-x25519-ke1_mlkem1024-ke2_mlkem768", "aes128gcm16");
        });
        (a.fragment_size, b.fragment_size) = (Some(sizes[0]), Some(sizes[1]));
        let mut world = World::new(Arc::new(Native), 1, a, b);
        world.traffic = true;
        world.initiate(0);
        world.run_secs(2);
        world.assert_settled();
        world.assert_no_loss();
        let pieces = told(&world, "IKE_INTERMEDIATE request 1 [ EF(");
        assert_eq!(pieces > 1, sizes[0] < 1500, "{}", world.story());
    }
}

/// Also where nothing is told of fragments: one long datagram.
#[test]
fn without_fragmentation() {
    let (mut a, b) = peers(hybrid);
    a.fragment_size = None;
    let mut world = World::new(Arc::new(Native), 1, a, b);
    world.traffic = true;
    world.initiate(0);
    world.run_secs(2);
    rekey_ike(&mut world, 1);
    world.run_secs(10);
    world.assert_settled();
    world.assert_no_loss();
}

#[test]
fn a_peer_without_it_gets_the_other_proposal_or_none() {
    let (mut a, b) = peers(|_| {});
    a.ike_proposals =
        ike_suites(&["aes128-sha256-modp2048-ke1_mlkem768", "aes128-sha256-modp2048"]);
    edit_child(&mut a, |c| c.esp_proposals = esp_suites(&["aes128gcm16-x25519-ke1_mlkem768"]));
    let mut world = World::new(Arc::new(crypto::toy::Toy), 1, a.clone(), b.clone());
    world.traffic = true;
    world.initiate(0);
    world.run_secs(2);
    world.assert_settled();
    assert_eq!(world.hosts[0].endpoint.ike_sas()[0].suite, "aes128-sha256-modp2048");
    a.ike_proposals = a.ike_proposals[..1].into();
    let mut world = World::new(Arc::new(crypto::toy::Toy), 1, a, b);
    world.initiate(0);
    world.run_secs(3);
    let text = down(&world, 0).expect("refused").to_string();
    assert!(text.contains("ke1_mlkem768") && text.contains("ADDKE1 differs"), "{text}");
}

/// N(INTERMEDIATE_EXCHANGE_SUPPORTED) taken out on the way, of the request or of the response: no SA, and no
/// additional key exchange that only one side does.
#[test]
fn a_stripped_announcement() {
    for stripped in [0, 1] {
        let (a, b) = peers(|p| {
            p.ike_proposals = ike_suites(&[IKE, "aes128-sha256-x25519"]);
        });
        let mut world = World::new(Arc::new(Native), 1, a, b);
        world.meddling.tamper = Some(Box::new(move |_, datagram| {
            let response = u8::from(stripped == 1) * 0x20;
            if datagram.bytes[18] == 34 && datagram.bytes[19] & 0x20 == response {
                let at = datagram.bytes.windows(2).position(|w| w == 16438_u16.to_be_bytes());
                datagram.bytes[at.expect("announced") + 1] ^= 0x80;
            }
        }));
        world.initiate(0);
        world.run_secs(60);
        for host in &world.hosts {
            assert!(host.endpoint.ike_sas().is_empty(), "{}", world.story());
            assert!(host.endpoint.children().is_empty());
        }
        // A request without it leads to the plain suite, and the signatures show what was changed.
        if stripped == 0 {
            let reason = down(&world, 1);
            assert!(
                matches!(reason, Some(Failure::PeerAuth(AuthError::BadProof(_)))),
                "{reason:?}"
            );
        }
    }
}

/// A bit of an IKE_INTERMEDIATE message that changes no key (the reserved field of the KE payload): it is
/// authenticated all the same.
#[test]
fn what_was_said_in_between_is_authenticated() {
    let mut world = toy(1, whole);
    let mut first = true;
    world.meddling.lie = Some(Box::new(move |plain| {
        if std::mem::take(&mut first) {
            assert_eq!(plain[4..8], [0, 36, 0, 0], "method and reserved field of a KE payload");
            plain[7] = 1;
        }
    }));
    world.initiate(0);
    world.run_secs(60);
    let reason = down(&world, 1);
    assert!(matches!(&reason, Some(Failure::PeerAuth(AuthError::BadProof(_)))), "{reason:?}");
    assert_eq!(down(&world, 0), Some(Failure::RefusedByPeer), "{}", world.story());
}

fn quiet(p: &mut PeerConfig) {
    hybrid(p);
    p.dpd_delay = None;
}

#[test]
fn each_message_of_the_start_lost_doubled_or_late() {
    let fresh = || {
        let mut world = toy(3, quiet);
        world.traffic = true;
        world
    };
    let start = |w: &mut World| {
        w.initiate(0);
    };
    disturb(fresh, start, false);
}

#[test]
fn each_message_of_a_rekey_lost_doubled_or_late() {
    for side in [0, 1] {
        disturb(|| up(3, quiet), |w| rekey_child(w, side), true);
        disturb(|| up(3, quiet), |w| rekey_ike(w, side), true);
    }
}

#[test]
fn both_rekey_the_same_at_once() {
    for seed in 0..3 {
        for skew in 0..60 {
            for rekey in [rekey_child, rekey_ike] {
                let mut world = up(seed, hybrid);
                both(&mut world, Duration::from_millis(skew), rekey);
                world.settle();
                world.assert_settled();
                world.assert_no_loss();
            }
        }
    }
}

#[test]
fn one_rekeys_the_ike_sa_the_other_a_child() {
    for seed in 0..4 {
        for skew in 0..60 {
            for first in [0, 1] {
                let mut world = up(seed, hybrid);
                both(&mut world, Duration::from_millis(skew), |w, n| {
                    if n == first { rekey_ike(w, n) } else { rekey_child(w, n) }
                });
                world.settle();
                world.assert_settled();
                world.assert_no_loss();
            }
        }
    }
}

/// The same, each with each single message lost, doubled or late.
#[test]
fn both_rekey_the_same_at_once_on_a_bad_link() {
    for skew in [0, 5, 12, 25, 35] {
        for rekey in [rekey_child, rekey_ike] {
            let story = |w: &mut World| both(w, Duration::from_millis(skew), rekey);
            disturb(|| up(3, quiet), story, true);
        }
    }
}

/// One rekeys with additional key exchanges, the other without.
#[test]
fn only_one_of_two_rivals_has_more_to_do() {
    for seed in 0..3 {
        for skew in 0..40 {
            for rekey in [rekey_child, rekey_ike] {
                let (mut a, mut b) = peers(|_| {});
                for (p, first) in [(&mut a, 0), (&mut b, 1)] {
                    let both = ["aes128-sha256-x25519-ke1_mlkem768", "aes128-sha256-x25519"];
                    // A offers both and takes either; B offers the plain one alone.
                    p.ike_proposals = ike_suites(&both[first..]);
                    let both = ["aes128gcm16-x25519-ke1_mlkem768-ke1_none", "aes128gcm16-x25519"];
                    edit_child(p, |c| c.esp_proposals = esp_suites(&both[first..]));
                }
                let mut world = World::new(Arc::new(crypto::toy::Toy), seed, a, b);
                world.traffic = true;
                world.initiate(0);
                world.run_secs(3);
                world.assert_settled();
                both(&mut world, Duration::from_millis(skew), rekey);
                world.settle();
                world.assert_settled();
                world.assert_no_loss();
            }
        }
    }
}

/// The link does not come back as it went: the responder knows nothing of it, and the rekey is tried again.
#[test]
fn an_unknown_link() {
    for rekey in [rekey_child, rekey_ike] {
        let mut world = up(1, whole);
        let mut lied = false;
        world.meddling.lie = Some(Box::new(move |plain| {
            let at = plain.windows(2).position(|w| w == 16441_u16.to_be_bytes());
            if let Some(at) = at.filter(|_| !lied && plain.len() > 1000) {
                plain[at + 2] ^= 1;
                lied = true;
            }
        }));
        rekey(&mut world, 0);
        world.run_secs(20);
        world.assert_settled();
        world.assert_no_loss();
        assert_eq!(told(&world, "[ N(STATE_NOT_FOUND) ]"), 1, "{}", world.story());
        assert_eq!(told(&world, "IKE_FOLLOWUP_KE response"), 2, "{}", world.story());
    }
}

/// A peer that stops in the middle is forgotten after 20 s; until then this host's own tasks wait.
#[test]
fn a_peer_that_does_not_go_on() {
    for rekey in [rekey_child, rekey_ike] {
        let mut world = up(1, |p| {
            hybrid(p);
            p.dpd_delay = None;
        });
        world.crash = Some((0, world.sent + 2, false));
        rekey(&mut world, 0);
        world.run_secs(1);
        assert!(told(&world, "A restarts") == 1, "{}", world.story());
        rekey_child(&mut world, 1);
        world.run_secs(60);
        world.settle();
        if world.hosts[0].endpoint.ike_sas().is_empty() {
            world.initiate(0);
            world.run_secs(5);
        }
        world.assert_settled();
    }
}

/// The initiator's process ends before or after any message of a rekey; the next goes on.
#[test]
fn a_crash_anywhere() {
    for rekey in [rekey_child, rekey_ike] {
        for message in 0..10 {
            for sent in [false, true] {
                let mut world = up(2, |p| {
                    hybrid(p);
                    p.dpd_delay = Some(Duration::from_secs(5));
                });
                world.crash = Some((0, world.sent + message, sent));
                rekey(&mut world, 0);
                world.run_secs(200);
                world.traffic = false;
                if world.hosts[0].endpoint.ike_sas().is_empty() {
                    world.initiate(0);
                }
                world.settle();
                world.assert_settled();
            }
        }
    }
}

#[test]
fn lies_and_tampering() {
    for seed in 0..80 {
        let mut world = toy(seed, |p| {
            hybrid(p);
            p.fragment_size = (seed % 3 == 0).then_some(200);
        });
        let (mut rng, mut bits) = (Rng::new([seed; 32]), Rng::new([seed ^ 77; 32]));
        world.meddling.lie = Some(Box::new(move |plain| {
            if rng.below(6) == 0 && !plain.is_empty() {
                let at = rng.below(plain.len().min(64) as u64) as usize;
                plain[at] = rng.u64() as u8;
            }
        }));
        world.meddling.tamper = Some(Box::new(move |_, datagram| {
            if bits.below(8) == 0 {
                let at = bits.below(datagram.bytes.len() as u64) as usize;
                datagram.bytes[at] = bits.u64() as u8;
            }
        }));
        world.initiate(0);
        world.run_secs(20);
        for n in [0, 1, 0, 1] {
            rekey_child(&mut world, n);
            rekey_ike(&mut world, 1 - n);
            world.run_secs(20);
        }
        (world.meddling.lie, world.meddling.tamper) = (None, None);
        world.run_secs(300);
        let [a, b] = &world.hosts;
        assert_eq!(a.endpoint.ike_sas().len(), b.endpoint.ike_sas().len(), "{}", world.story());
        let open = a.endpoint.half_open().len() + b.endpoint.half_open().len();
        assert_eq!(open, 0, "{}", world.story());
    }
}
