//! The algebra of traffic selectors, checked against single packets.

mod support;

use std::net::IpAddr;

use proptest::prelude::*;
use support::strategies::selector;
use wire::selector::TrafficSelector;

fn ts(net: &str) -> TrafficSelector {
    TrafficSelector::net(net.parse().unwrap())
}

/// Packets at the corners of both selectors, where a mistake would show.
fn probes(a: &TrafficSelector, b: &TrafficSelector) -> Vec<(IpAddr, u8, Option<u16>)> {
    let mut out = Vec::new();
    for s in [a, b] {
        for t in [a, b] {
            for addr in [s.start, s.end] {
                for protocol in [t.protocol, 6, 200] {
                    for port in [Some(s.start_port), Some(t.end_port), Some(3), None] {
                        out.push((addr, protocol, port));
                    }
                }
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn intersection_admits_what_both_admit(a in selector(), b in selector()) {
        let both = a.intersect(&b);
        prop_assert_eq!(both, b.intersect(&a));
        for (addr, protocol, port) in probes(&a, &b) {
            let each = a.admits(addr, protocol, port) && b.admits(addr, protocol, port);
            let got = both.is_some_and(|i| i.admits(addr, protocol, port));
            prop_assert_eq!(each, got, "{} {} {:?}", addr, protocol, port);
        }
        if let Some(i) = both {
            prop_assert!(a.contains(&i) && b.contains(&i));
        }
    }

    #[test]
    fn containing_is_intersecting_to_the_same(a in selector(), b in selector()) {
        prop_assert!(a.contains(&a));
        prop_assert_eq!(a.contains(&b), a.intersect(&b) == Some(b));
        if a.contains(&b) && b.contains(&a) {
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn nets_cover_the_range_exactly(a in selector()) {
        let nets = a.to_nets();
        let most = if a.start.is_ipv4() { 62 } else { 254 };
        prop_assert!(nets.len() <= most);
        prop_assert_eq!(nets.first().unwrap().network(), a.start);
        prop_assert_eq!(nets.last().unwrap().broadcast(), a.end);
        let number = |addr: IpAddr| match addr {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        for pair in nets.windows(2) {
            prop_assert_eq!(number(pair[0].broadcast()) + 1, number(pair[1].network()));
        }
        prop_assert_eq!(a.as_net().is_some(), nets.len() == 1);
    }
}

#[test]
fn widest_ranges_stay_bounded() {
    let v4 = TrafficSelector {
        start: "0.0.0.1".parse().unwrap(),
        end: "255.255.255.254".parse().unwrap(),
        ..ts("0.0.0.0/0")
    };
    assert_eq!(v4.to_nets().len(), 62);
    let v6 = TrafficSelector {
        start: "::1".parse().unwrap(),
        end: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe".parse().unwrap(),
        ..ts("::/0")
    };
    assert_eq!(v6.to_nets().len(), 254);
    assert_eq!(ts("0.0.0.0/0").to_nets().len(), 1);
    assert_eq!(ts("::/0").to_nets().len(), 1);
}

#[test]
fn shown() {
    let host = TrafficSelector::host("10.0.0.1".parse().unwrap());
    let range = TrafficSelector { end: "10.0.0.9".parse().unwrap(), ..host };
    for (selector, text) in [
        (ts("10.0.0.0/24"), "10.0.0.0/24"),
        (ts("0.0.0.0/0"), "0.0.0.0/0"),
        (ts("2001:db8::/32"), "2001:db8::/32"),
        (host, "10.0.0.1/32"),
        (range, "10.0.0.1..10.0.0.9"),
        (host.with(6, 80..=80), "10.0.0.1/32 tcp/80"),
        (range.with(17, 500..=4500), "10.0.0.1..10.0.0.9 udp/500-4500"),
        (host.with(17, 0..=65535), "10.0.0.1/32 udp"),
        (host.with(253, 0..=65535), "10.0.0.1/32 253"),
        (host.with(0, 80..=80), "10.0.0.1/32 any/80"),
        (host.opaque(6), "10.0.0.1/32 tcp/opaque"),
        (host.with(1, 0x0800..=0x08ff), "10.0.0.1/32 icmp/8"),
        (host.with(1, 0x0304..=0x0304), "10.0.0.1/32 icmp/3(4)"),
        (host.with(58, 0x8000..=0x81ff), "10.0.0.1/32 icmpv6/128(0)-129(255)"),
    ] {
        assert_eq!(selector.to_string(), text);
    }
}

#[test]
fn families_never_mix() {
    let (v4, v6) = (ts("0.0.0.0/0"), ts("::/0"));
    assert!(!v4.contains(&v6) && !v6.contains(&v4));
    assert_eq!(v4.intersect(&v6), None);
    assert!(!v6.admits("10.0.0.1".parse().unwrap(), 6, Some(1)));
    assert!(!v4.admits("::1".parse().unwrap(), 6, Some(1)));
}

#[test]
fn ports_and_opaque() {
    let host = TrafficSelector::host("10.0.0.1".parse().unwrap());
    let (any, web, opaque) = (host.with(6, 0..=65535), host.with(6, 80..=90), host.opaque(6));
    assert!(any.contains(&opaque) && any.contains(&web));
    assert!(!web.contains(&opaque) && !opaque.contains(&web) && !opaque.contains(&any));
    assert_eq!(any.intersect(&opaque), Some(opaque));
    assert_eq!(web.intersect(&opaque), None);
    assert!(web.admits(host.start, 6, Some(80)) && web.admits(host.start, 6, Some(90)));
    assert!(!web.admits(host.start, 6, Some(79)) && !web.admits(host.start, 6, Some(91)));
    assert!(!web.admits(host.start, 6, None) && !web.admits(host.start, 17, Some(80)));
    assert!(opaque.admits(host.start, 6, None) && !opaque.admits(host.start, 6, Some(80)));
    assert!(any.admits(host.start, 6, None));
}

#[test]
fn icmp_types_and_codes() {
    let host = TrafficSelector::host("10.0.0.1".parse().unwrap());
    let echo = host.with(1, TrafficSelector::icmp(8, 0)..=TrafficSelector::icmp(8, 255));
    assert!(echo.admits(host.start, 1, Some(TrafficSelector::icmp(8, 0))));
    assert!(!echo.admits(host.start, 1, Some(TrafficSelector::icmp(0, 0))));
    assert!(!echo.admits(host.start, 1, Some(TrafficSelector::icmp(9, 0))));
}
