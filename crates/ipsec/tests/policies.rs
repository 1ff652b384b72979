//! Which policy decides on a packet.
#![allow(missing_docs)]

use std::net::IpAddr;

use ipsec::dataplane::PacketInfo;
use ipsec::packet::proto;
use ipsec::sa::{Mode, Reqid};
use ipsec::spd::{Action, Flow, Policy, PolicySelector, Spd};
use proptest::prelude::*;

const PROTECT: Action = Action::Protect { mode: Mode::Transport, reqid: Reqid(1), optional: false };

fn policy(priority: u32, remote: &str, action: Action) -> Policy {
    let selector = PolicySelector {
        local: "0.0.0.0/0".parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: None,
        local_ports: None,
        remote_ports: None,
    };
    Policy { priority, flow: Flow::Out, selector, action }
}

fn tcp_to(dst: &str, port: Option<u16>) -> PacketInfo {
    PacketInfo {
        src: "10.0.0.1".parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: proto::TCP,
        src_port: port.map(|_| 40_000),
        dst_port: port,
    }
}

fn decide(spd: &Spd, packet: &PacketInfo) -> Option<Action> {
    spd.lookup(Flow::Out, packet).map(|policy| policy.action)
}

#[test]
fn the_lowest_priority_decides_whatever_its_width() {
    let mut spd = Spd::default();
    spd.put(policy(20, "10.0.0.2/32", PROTECT));
    spd.put(policy(30, "10.0.0.0/24", Action::Discard));
    assert_eq!(decide(&spd, &tcp_to("10.0.0.2", Some(80))), Some(PROTECT));
    assert_eq!(decide(&spd, &tcp_to("10.0.0.3", Some(80))), Some(Action::Discard));
    assert_eq!(decide(&spd, &tcp_to("10.0.1.3", Some(80))), None);
    let exception = policy(10, "10.0.0.0/8", Action::Bypass);
    spd.put(exception);
    assert_eq!(decide(&spd, &tcp_to("10.0.0.2", Some(80))), Some(Action::Bypass));
    assert!(spd.remove(&exception.key()) && !spd.remove(&exception.key()));
    assert_eq!(decide(&spd, &tcp_to("10.0.0.2", Some(80))), Some(PROTECT));
    assert_eq!(spd.policies().count(), 2);
}

#[test]
fn later_fragments_fail_closed() {
    let for_ports = |priority, action| {
        let mut policy = policy(priority, "10.0.0.0/24", action);
        policy.selector.remote_ports = Some((22, 22));
        policy.selector.protocol = Some(proto::TCP);
        policy
    };
    let later = tcp_to("10.0.0.2", None);
    let mut spd = Spd::default();
    spd.put(for_ports(1, Action::Bypass));
    spd.put(policy(2, "10.0.0.0/24", PROTECT));
    assert_eq!(decide(&spd, &later), Some(PROTECT), "an exception does not open for them");
    assert_eq!(decide(&spd, &tcp_to("10.0.0.2", Some(22))), Some(Action::Bypass));
    let mut spd = Spd::default();
    spd.put(for_ports(1, PROTECT));
    spd.put(policy(2, "10.0.0.0/24", Action::Bypass));
    assert_eq!(decide(&spd, &later), Some(PROTECT), "and a protected port keeps them");
    assert_eq!(decide(&spd, &tcp_to("10.0.0.2", Some(23))), Some(Action::Bypass));
    // A protocol without ports is no fragment.
    assert_eq!(decide(&spd, &PacketInfo { protocol: 47, ..later }), Some(Action::Bypass));
}

#[test]
fn inbound_looks_from_the_other_side() {
    let mut inbound = policy(1, "10.0.0.2/32", Action::Bypass);
    inbound.flow = Flow::In;
    inbound.selector.protocol = Some(proto::TCP);
    inbound.selector.local_ports = Some((22, 22));
    let mut spd = Spd::default();
    spd.put(inbound);
    let request = PacketInfo {
        src: "10.0.0.2".parse().unwrap(),
        dst: "10.0.0.1".parse().unwrap(),
        protocol: proto::TCP,
        src_port: Some(5555),
        dst_port: Some(22),
    };
    assert!(spd.lookup(Flow::In, &request).is_some());
    assert!(spd.lookup(Flow::Out, &request).is_none());
    let other = PacketInfo { src_port: Some(22), dst_port: Some(5555), ..request };
    assert!(spd.lookup(Flow::In, &other).is_none());
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let port = || prop::option::of((0u16..4, 0u16..4).prop_map(|(a, b)| (a.min(b), a.max(b))));
    let action = prop::sample::select(vec![Action::Bypass, Action::Discard, PROTECT]);
    (0u32..6, 0u8..4, 28u8..=32, prop::option::of(Just(proto::TCP)), port(), action).prop_map(
        |(priority, host, len, protocol, remote_ports, action)| {
            let remote = IpAddr::from([10, 0, 0, host]);
            let mut policy = policy(priority, "10.0.0.0/8", action);
            policy.selector.remote = ipnet::IpNet::new(remote, len).unwrap().trunc();
            policy.selector.protocol = protocol;
            policy.selector.remote_ports = remote_ports;
            policy
        },
    )
}

proptest! {
    #[test]
    fn same_as_looking_at_all_in_order(
        policies in prop::collection::vec(any_policy(), 0..30),
        removed in prop::collection::vec(0..30usize, 0..10),
        hosts in prop::collection::vec((0u8..6, prop::option::of(0u16..5)), 1..10),
    ) {
        let mut spd = Spd::default();
        let mut model = std::collections::BTreeMap::new();
        for policy in &policies {
            spd.put(*policy);
            model.insert((policy.priority, policy.selector), *policy);
        }
        for policy in removed.iter().filter_map(|index| policies.get(*index)) {
            spd.remove(&policy.key());
            model.remove(&(policy.priority, policy.selector));
        }
        prop_assert_eq!(spd.policies().count(), model.len());
        for (host, port) in hosts {
            let packet = tcp_to(&format!("10.0.0.{host}"), port);
            let expected = model.values().find(|policy| policy.matches(&packet));
            prop_assert_eq!(spd.lookup(Flow::Out, &packet), expected);
            if let Some(policy) = spd.lookup_addresses(Flow::Out, &packet) {
                for port in [None, Some(0), Some(3), Some(9)] {
                    let other = tcp_to(&format!("10.0.0.{host}"), port);
                    prop_assert_eq!(spd.lookup(Flow::Out, &other), Some(policy));
                }
            }
        }
    }
}
