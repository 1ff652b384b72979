//! What a peer may offer beyond what is configured here: declined without a word, and nothing breaks.

use std::sync::Arc;

use ike::error::{AuthError, Failure};
use ike::{Auth, Event};
use wire::payload::{Notify, Payload};
use wire::registry::{NotifyType as N, PayloadType};

use crate::setup::*;

/// Puts payloads behind the last one.
pub fn append(plain: &mut Vec<u8>, payloads: &[Payload]) {
    let mut at = 0;
    while plain[at] != 0 {
        at += usize::from(u16::from_be_bytes([plain[at + 2], plain[at + 3]]));
    }
    let (first, bytes) = wire::message::encode_payloads(payloads);
    plain[at] = first.0;
    plain.extend(bytes);
}

fn notify(kind: N, data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(kind, data))
}

/// All that RFCs let an initiator say with IKE_AUTH.
fn offers() -> Vec<Payload> {
    vec![
        notify(N::HTTP_CERT_LOOKUP_SUPPORTED, &[]),
        notify(N::NON_FIRST_FRAGMENTS_ALSO, &[]),
        notify(N::IPCOMP_SUPPORTED, &[0x12, 0x34, 2]),
        notify(N::IPCOMP_SUPPORTED, &[0x12, 0x35, 3]),
        notify(N::MOBIKE_SUPPORTED, &[]),
        notify(N::ADDITIONAL_IP4_ADDRESS, &[192, 0, 2, 1]),
        notify(N::ADDITIONAL_IP6_ADDRESS, &[0x20; 16]),
        notify(N::MULTIPLE_AUTH_SUPPORTED, &[]),
        notify(N::TICKET_REQUEST, &[]),
        notify(N::USE_WESP_MODE, &[]),
        notify(N::ROHC_SUPPORTED, &[0; 8]),
        notify(N::EAP_ONLY_AUTHENTICATION, &[]),
        notify(N::QUICK_CRASH_DETECTION, &[7; 32]),
        notify(N::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, &[]),
        notify(N::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED, &[0; 4]),
        notify(N::ERX_SUPPORTED, &[]),
        notify(N::CLONE_IKE_SA_SUPPORTED, &[]),
        notify(N::NO_PPK_AUTH, &[1; 32]),
        notify(N::USE_AGGFRAG, &[0]),
        notify(N::SUPPORTED_AUTH_METHODS, &[2, 2, 2, 14]),
        notify(N::SA_RESOURCE_INFO, &[0; 4]),
        notify(N(40_000), &[1, 2, 3]),
        Payload::VendorId(b"somebody".to_vec()),
        Payload::Cp(vec![1, 0, 0, 0, 0, 1, 0, 0]),
    ]
}

#[test]
fn an_initiator_that_offers_everything() {
    let mut world = toy(1, |p| p.fragment_size = None);
    world.traffic = true;
    let mut first = true;
    world.meddling.lie = Some(Box::new(move |plain| {
        if std::mem::take(&mut first) {
            append(plain, &offers());
        }
    }));
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    world.assert_no_loss();
    let line = world.ladder.iter().find(|l| l.contains("IKE_AUTH response")).unwrap();
    assert!(
        line.contains("[ IDr AUTH N(QCD_TOKEN) SA TSi TSr N(USE_TRANSP) N(ESP_TFC_PAD_N) ]"),
        "nothing is accepted: {line}"
    );
}

/// The same from a responder; nothing of it was asked for.
#[test]
fn a_responder_that_says_everything() {
    let mut world = toy(1, |p| p.fragment_size = None);
    world.traffic = true;
    let mut sealed = 0;
    world.meddling.lie = Some(Box::new(move |plain| {
        sealed += 1;
        if sealed == 2 {
            append(plain, &offers());
            append(
                plain,
                &[notify(N::TICKET_LT_OPAQUE, &[9; 40]), notify(N::AUTH_LIFETIME, &[0, 0, 0, 9])],
            );
        }
    }));
    world.initiate(0);
    world.run_secs(3);
    world.assert_settled();
    world.assert_no_loss();
}

/// Without AUTH an initiator asks for EAP; another method than the configured one is refused as well.
#[test]
fn eap_is_declined() {
    let mut world = toy(1, |p| p.fragment_size = None);
    let mut first = true;
    world.meddling.lie = Some(Box::new(move |plain| {
        // IDi, then AUTH: the type of the second is that of a vendor's payload now.
        if std::mem::take(&mut first) {
            assert_eq!(plain[0], PayloadType::AUTH.0);
            plain[0] = PayloadType::VENDOR_ID.0;
        }
    }));
    world.initiate(0);
    world.run_secs(20);
    let reason = down(&world, 1);
    let eap = Failure::PeerAuth(AuthError::MethodNotAllowed("EAP".into()));
    assert_eq!(reason, Some(eap), "{}", world.story());
    assert_eq!(down(&world, 0), Some(Failure::RefusedByPeer), "{}", world.story());
}

/// NULL authentication (RFC 7619) proves nothing, and is not configured.
#[test]
fn null_authentication_is_declined() {
    let mut world = toy(1, |p| p.fragment_size = None);
    let mut first = true;
    world.meddling.lie = Some(Box::new(move |plain| {
        if std::mem::take(&mut first) {
            let auth = usize::from(u16::from_be_bytes([plain[2], plain[3]]));
            assert_eq!(plain[auth + 4], 2, "a pre-shared key");
            plain[auth + 4] = 13;
        }
    }));
    world.initiate(0);
    world.run_secs(20);
    let reason = down(&world, 1);
    assert!(
        matches!(&reason, Some(Failure::PeerAuth(AuthError::MethodNotAllowed(what))) if what == "NULL"),
        "{reason:?}"
    );
}

/// A certificate by hash and URL is not fetched: it is as if there were none.
#[test]
fn hash_and_url_is_not_fetched() {
    let mut world = toy(1, |p| {
        p.fragment_size = None;
        p.auth = Auth::Certificate(Arc::new(crypto::toy::credentials("host")));
    });
    let mut first = true;
    world.meddling.lie = Some(Box::new(move |plain| {
        if std::mem::take(&mut first) {
            assert_eq!(plain[0], PayloadType::CERT.0);
            let cert = usize::from(u16::from_be_bytes([plain[2], plain[3]]));
            assert_eq!(plain[cert + 4], 4, "X.509");
            plain[cert + 4] = 12;
        }
    }));
    world.initiate(0);
    world.run_secs(20);
    assert_eq!(
        down(&world, 1),
        Some(Failure::PeerAuth(AuthError::NoCertificate)),
        "{}",
        world.story()
    );
}

/// RFC 6023: an IKE SA alone; a child SA comes later.
#[test]
fn a_childless_initiator() {
    let mut world = toy(1, |p| p.fragment_size = None);
    let mut first = true;
    world.meddling.lie = Some(Box::new(move |plain| {
        if std::mem::take(&mut first) {
            // What belongs to the child becomes what nobody knows.
            let mut at = 0;
            while plain[at] != 0 {
                if [33, 44, 45].contains(&plain[at]) {
                    plain[at] = 200;
                }
                at += usize::from(u16::from_be_bytes([plain[at + 2], plain[at + 3]]));
            }
        }
    }));
    world.initiate(0);
    world.run_secs(3);
    for host in &world.hosts {
        assert_eq!(host.endpoint.ike_sas().len(), 1, "{}", world.story());
        assert!(host.endpoint.children().is_empty(), "{}", world.story());
    }
    assert_eq!(world.hosts[1].count(|e| matches!(e, Event::ChildFailed { .. })), 0);
    let response = world.ladder.iter().find(|l| l.contains("IKE_AUTH response")).unwrap();
    assert!(response.contains("[ IDr AUTH N(QCD_TOKEN) ]"), "{response}");
    assert!(world.story().contains("N(CHDLESS_SUP)"), "{}", world.story());
    let ike = world.hosts[0].endpoint.ike_sas()[0].id;
    let config = world.hosts[0].directory.config.child.clone();
    world.command(0, |e, now| e.create_child(now, ike, config)).unwrap();
    world.traffic = true;
    world.run_secs(3);
    world.assert_settled();
    world.assert_no_loss();
}

fn down(world: &crate::world::World, n: usize) -> Option<Failure> {
    world.hosts[n].events.iter().find_map(|e| match e {
        Event::IkeDown { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}
