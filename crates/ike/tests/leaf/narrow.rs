//! Narrowing, and addresses that a NAT changed.

use std::net::IpAddr;

use ike::error::Misbehaviour;
use ike::narrow::{
    Hosts, MAX_SELECTORS, Names, Selectors, Unacceptable, as_seen, check_narrowed, narrow,
    substitute,
};
use wire::selector::TrafficSelector as Ts;

fn net(text: &str) -> Ts {
    Ts::net(text.parse().unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host(text: &str) -> Ts {
    Ts::host(ip(text))
}

fn pair(tsi: &[Ts], tsr: &[Ts]) -> Selectors {
    Selectors { tsi: tsi.to_vec(), tsr: tsr.to_vec() }
}

#[test]
fn what_policy_allows_wholly_is_answered_wholly() {
    let policy = pair(&[net("10.0.0.0/8")], &[net("10.0.0.0/8")]);
    let request = pair(&[net("10.1.0.0/16")], &[net("10.2.0.0/16")]);
    assert_eq!(narrow(&policy, &request, None), Ok(request));
}

/// The example of RFC 7296 2.9: the packet's own selectors first, then what is wanted in all.
#[test]
fn the_packet_s_selectors_stay_first() {
    let packet = host("198.51.100.43").with(17, 53..=53);
    let request = pair(
        &[packet, net("198.51.100.0/24").with(17, 0..=65535)],
        &[host("192.0.2.123"), net("192.0.2.0/24")],
    );
    // The responder allows only half of the initiator's net.
    let policy = pair(&[net("198.51.100.0/26")], &[net("192.0.2.0/24")]);
    let narrowed = narrow(&policy, &request, None).unwrap();
    assert_eq!(narrowed.tsi, [packet, net("198.51.100.0/26").with(17, 0..=65535)]);
    assert_eq!(narrowed.tsr, request.tsr);
    assert_eq!(check_narrowed(&request, &narrowed), Ok(()));
}

#[test]
fn no_overlap_on_either_side_is_unacceptable() {
    let policy = pair(&[net("10.0.0.0/24")], &[net("10.0.1.0/24")]);
    let both = pair(&[net("10.0.0.0/24")], &[net("10.0.1.0/24")]);
    assert!(narrow(&policy, &both, None).is_ok());
    let bad = [
        pair(&[net("10.0.2.0/24")], &[net("10.0.1.0/24")]),
        pair(&[net("10.0.0.0/24")], &[net("10.0.2.0/24")]),
        pair(&[], &[net("10.0.1.0/24")]),
        pair(&[net("2001:db8::/32")], &[net("10.0.1.0/24")]),
    ];
    for request in bad {
        assert_eq!(narrow(&policy, &request, None), Err(Unacceptable));
    }
}

#[test]
fn transport_mode_is_for_the_two_ends_alone() {
    let wide = pair(&[net("10.0.0.0/8")], &[net("10.0.0.0/8")]);
    let hosts = Hosts { initiator: ip("10.0.0.1"), responder: ip("10.0.0.2") };
    let narrowed = narrow(&wide, &wide, Some(hosts)).unwrap();
    assert_eq!(narrowed, pair(&[host("10.0.0.1")], &[host("10.0.0.2")]));
    let other = Hosts { initiator: ip("192.0.2.1"), ..hosts };
    assert_eq!(narrow(&wide, &wide, Some(other)), Err(Unacceptable));
}

#[test]
fn a_flood_of_selectors_is_bounded() {
    let many: Vec<Ts> = (0..200).map(|n| host(&format!("10.0.0.{n}"))).collect();
    let request = pair(&many, &many);
    let policy = pair(&[net("10.0.0.0/8")], &[net("10.0.0.0/8")]);
    let narrowed = narrow(&policy, &request, None).unwrap();
    assert_eq!((narrowed.tsi.len(), narrowed.tsr.len()), (MAX_SELECTORS, MAX_SELECTORS));
    assert_eq!(narrowed.tsi[0], many[0]);
    // The same again and again counts once.
    let request = pair(&[many[0]; 100], &[many[1]; 100]);
    assert_eq!(narrow(&policy, &request, None), Ok(pair(&many[..1], &many[1..2])));
}

#[test]
fn a_widened_answer_is_noticed() {
    let offered = pair(&[net("10.0.0.0/24")], &[host("10.0.1.1").with(6, 443..=443)]);
    assert_eq!(check_narrowed(&offered, &offered), Ok(()));
    let bad = [
        pair(&[net("10.0.0.0/23")], &offered.tsr),
        pair(&offered.tsi, &[host("10.0.1.1")]),
        pair(&offered.tsi, &[host("10.0.1.1").with(6, 443..=444)]),
        pair(&offered.tsi, &[]),
        pair(&[net("10.0.0.0/25"), net("10.0.1.0/25")], &offered.tsr),
    ];
    for answered in bad {
        assert_eq!(check_narrowed(&offered, &answered), Err(Misbehaviour::WidenedSelectors));
    }
}

/// RFC 7296 2.23.1 with a NAT before the client: client 10.0.1.1, NAT 192.0.2.1, server 198.51.100.2.
#[test]
fn a_client_behind_a_nat() {
    let request = pair(&[host("10.0.1.1").with(6, 0..=65535)], &[host("198.51.100.2")]);
    let seen = Hosts { initiator: ip("192.0.2.1"), responder: ip("198.51.100.2") };
    let there = substitute(&request, seen, true, false).unwrap();
    assert_eq!(there.selectors.tsi, [host("192.0.2.1").with(6, 0..=65535)]);
    assert_eq!(there.original.initiator, ip("10.0.1.1"));

    let policy = pair(&[net("0.0.0.0/0")], &[host("198.51.100.2")]);
    let narrowed = narrow(&policy, &there.selectors, Some(seen)).unwrap();
    let answer = there.restore(&narrowed);
    assert_eq!(answer, request);

    // The client sees its own address; for it nothing changes but the name.
    let own = Hosts { initiator: ip("10.0.1.1"), responder: ip("198.51.100.2") };
    let (offer, answer) =
        (substitute(&request, own, true, false), substitute(&answer, own, true, false));
    let (offer, answer) = (offer.unwrap().selectors, answer.unwrap().selectors);
    assert_eq!(check_narrowed(&offer, &answer), Ok(()));
}

/// A responder that answers with the addresses that it sees, as RFC 7296 2.23.1 has it, and not with those that were offered.
#[test]
fn an_answer_with_the_addresses_of_the_nat() {
    let offered = pair(&[host("10.0.1.1").with(6, 0..=65535)], &[host("198.51.100.2")]);
    let answered = pair(&[host("192.0.2.1").with(6, 0..=65535)], &[host("198.51.100.2")]);
    let own = Hosts { initiator: ip("10.0.1.1"), responder: ip("198.51.100.2") };
    let widened = Err(Misbehaviour::WidenedSelectors);
    assert_eq!(check_narrowed(&offered, &as_seen(answered.clone(), own, (false, false))), widened);
    assert_eq!(as_seen(answered, own, (true, false)), offered);
    assert_eq!(as_seen(offered.clone(), own, (true, false)), offered);
    // More than one address cannot be told apart: then nothing is replaced.
    let wide = pair(&[net("192.0.2.0/24")], &[host("198.51.100.2")]);
    assert_eq!(check_narrowed(&offered, &as_seen(wide, own, (true, false))), widened);

    // The responder behind a NAT, which names itself by its inner address.
    let offered = pair(&[host("198.51.100.1")], &[host("192.0.2.9")]);
    let answered = pair(&[host("198.51.100.1")], &[host("10.0.2.1")]);
    let own = Hosts { initiator: ip("198.51.100.1"), responder: ip("192.0.2.9") };
    assert_eq!(as_seen(answered, own, (false, true)), offered);
}

/// Both behind NATs: the server is 10.0.2.1, known to the client as 203.0.113.9.
#[test]
fn both_behind_nats() {
    let request = pair(&[host("10.0.1.1")], &[host("203.0.113.9")]);
    let seen = Hosts { initiator: ip("192.0.2.1"), responder: ip("10.0.2.1") };
    let there = substitute(&request, seen, true, true).unwrap();
    assert_eq!(there.selectors, pair(&[host("192.0.2.1")], &[host("10.0.2.1")]));
    assert_eq!(there.original, Hosts { initiator: ip("10.0.1.1"), responder: ip("203.0.113.9") });
    assert_eq!(there.restore(&there.selectors), request);
}

#[test]
fn only_a_single_address_can_be_replaced() {
    let seen = Hosts { initiator: ip("192.0.2.1"), responder: ip("10.0.2.1") };
    let several = pair(&[host("10.0.1.1"), host("10.0.1.2")], &[host("10.0.2.1")]);
    assert_eq!(substitute(&several, seen, true, false), None);
    let net = pair(&[net("10.0.1.0/24")], &[host("10.0.2.1")]);
    assert_eq!(substitute(&net, seen, true, false), None);
    assert_eq!(substitute(&pair(&[], &[]), seen, true, false), None);
    assert_eq!(substitute(&net, seen, false, false).unwrap().selectors, net);
}

#[test]
fn an_offer_in_the_names_of_the_old_sa() {
    let names = Names::of(&[host("198.51.100.2")], &[host("10.0.1.1").with(6, 0..=65535)]).unwrap();
    let seen = pair(&[host("198.51.100.2").with(6, 443..=443)], &[host("192.0.2.1")]);
    let offer = pair(&[host("198.51.100.2").with(6, 443..=443)], &[host("10.0.1.1")]);
    assert_eq!(names.offer(&seen), offer);
    // What is not a host stays what it is.
    let wide = pair(&[host("198.51.100.2")], &[net("192.0.2.0/24")]);
    assert_eq!(names.offer(&wide), wide);
    assert_eq!(Names::of(&[host("198.51.100.2")], &[host("10.0.1.1"), host("10.0.1.2")]), None);
    assert_eq!(Names::of(&[net("10.0.1.0/24")], &[host("10.0.1.1")]), None);
}
