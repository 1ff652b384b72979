//! What MOBIKE's notifies say, and what of it is believed.

use std::net::IpAddr;

use ike::mobility::*;
use wire::payload::{Notify, Payload};
use wire::registry::{NotifyType as N, ProtocolId};

fn notify(kind: N, data: &[u8]) -> Payload {
    let (protocol, spi) = (ProtocolId::NONE, Vec::new());
    Payload::Notify(Notify { protocol, spi, kind, data: data.to_vec() })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_come_back_as_they_were_told() {
    let both = [ip("192.0.2.7"), ip("2001:db8::7")];
    assert_eq!(additional(&additional_payloads(&both)), Some(both.to_vec()));
    assert_eq!(additional(&additional_payloads(&[])), Some(vec![]), "none is said as well");
    assert_eq!(additional(&[notify(N::MOBIKE_SUPPORTED, &[])]), None, "nothing is said");
}

#[test]
fn only_so_many_addresses_are_remembered_and_only_such_as_packets_can_go_to() {
    let many: Vec<_> =
        (1..=200).map(|n| notify(N::ADDITIONAL_IP4_ADDRESS, &[10, 0, 0, n])).collect();
    assert_eq!(additional(&many).unwrap().len(), MOST_TOLD);
    let told: Vec<IpAddr> = (1..=200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    assert_eq!(additional_payloads(&told).len(), MOST_TOLD);
    let v4 = |octets: [u8; 4]| notify(N::ADDITIONAL_IP4_ADDRESS, &octets);
    let nowhere = [
        v4([0, 0, 0, 0]),
        v4([0, 1, 2, 3]),
        v4([127, 0, 0, 1]),
        v4([224, 0, 0, 1]),
        v4([255, 255, 255, 255]),
        v4([169, 254, 3, 4]),
        notify(N::ADDITIONAL_IP4_ADDRESS, &[10, 0, 0]),
        notify(N::ADDITIONAL_IP4_ADDRESS, &[0; 16]),
        notify(N::ADDITIONAL_IP6_ADDRESS, &[10, 0, 0, 1]),
        notify(N::ADDITIONAL_IP6_ADDRESS, &"::1".parse::<std::net::Ipv6Addr>().unwrap().octets()),
        notify(N::ADDITIONAL_IP6_ADDRESS, &"::".parse::<std::net::Ipv6Addr>().unwrap().octets()),
        notify(
            N::ADDITIONAL_IP6_ADDRESS,
            &"ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        ),
        notify(
            N::ADDITIONAL_IP6_ADDRESS,
            &"fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        ),
        notify(
            N::ADDITIONAL_IP6_ADDRESS,
            &"::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        ),
    ];
    assert_eq!(additional(&nowhere), Some(vec![]));
    let twice = [v4([10, 0, 0, 1]), v4([10, 0, 0, 1])];
    assert_eq!(additional(&twice), Some(vec![ip("10.0.0.1")]));
}

#[test]
fn cookies_have_8_to_64_octets() {
    for (len, good) in [(0, false), (7, false), (8, true), (16, true), (64, true), (65, false)] {
        let sent = vec![7; len];
        let read = [cookie2_payload(&sent)];
        assert_eq!(cookie2(&read), good.then_some(&sent[..]), "{len}");
    }
}

#[test]
fn a_nat_that_is_not_allowed_is_noticed() {
    let v4 = Path {
        local: "192.0.2.1:4500".parse().unwrap(),
        remote: "198.51.100.2:61000".parse().unwrap(),
    };
    // As the peer sent it: its own address and port come first (RFC 4555 4.2.6).
    let sent = [198, 51, 100, 2, 192, 0, 2, 1, 0xee, 0x48, 0x11, 0x94];
    assert!(!is_translated(&[], v4));
    assert!(!is_translated(&[notify(N::NO_NATS_ALLOWED, &sent)], v4));
    for at in 0..sent.len() {
        let mut other = sent;
        other[at] ^= 1;
        assert!(is_translated(&[notify(N::NO_NATS_ALLOWED, &other)], v4), "octet {at}");
    }
    for wrong in [&[][..], &sent[..11], &[0; 36]] {
        assert!(is_translated(&[notify(N::NO_NATS_ALLOWED, wrong)], v4));
    }
    let v6 = Path {
        local: "[2001:db8::1]:500".parse().unwrap(),
        remote: "[2001:db8::2]:500".parse().unwrap(),
    };
    let mut sent = Vec::new();
    for address in ["2001:db8::2", "2001:db8::1"] {
        sent.extend(address.parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    sent.extend([1, 0xf4, 1, 0xf4]);
    assert_eq!(sent.len(), 36);
    assert!(!is_translated(&[notify(N::NO_NATS_ALLOWED, &sent)], v6));
}
