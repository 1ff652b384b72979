//! What one host does with a manifest.

mod manifest_support;

use std::net::IpAddr;

use ipsec::dataplane::PacketInfo;
use ipsec::sa::Mode;
use ipsec::spd::{Action, Flow, Spd};
use manifest_support::*;
use mesh::manifest::{Manifest, Place};
use mesh::plan::{FLEET, Origin, Plan, PlanError, REQIDS};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn manifest(lines: &str) -> Manifest {
    ok(&format!("psk: {PSK}\n{lines}\n")).0
}

fn plan(lines: &str, me: &str) -> Plan {
    Plan::for_host(&manifest(lines), ip(me)).unwrap()
}

fn packet(src: &str, dst: &str, protocol: u8, ports: (u16, u16)) -> PacketInfo {
    PacketInfo {
        src: ip(src),
        dst: ip(dst),
        protocol,
        src_port: Some(ports.0),
        dst_port: Some(ports.1),
    }
}

/// `pass`, `drop`, `protect`, or `none` where no policy decides; as the data plane decides too.
#[track_caller]
fn verdict(plan: &Plan, packet: &PacketInfo) -> &'static str {
    let word = |action: Option<Action>| match action {
        Some(Action::Bypass) => "pass",
        Some(Action::Discard) => "drop",
        Some(Action::Protect { reqid, .. }) => {
            assert_eq!(reqid, FLEET);
            "protect"
        }
        None => "none",
    };
    let decision = plan.decide(packet);
    let mut spd = Spd::default();
    for planned in plan.policies() {
        assert!(spd.put(planned.policy));
    }
    let flow = decision.flow.unwrap_or(Flow::Out);
    let there = spd.lookup(flow, packet).map(|policy| policy.action);
    let here = word(decision.policy.map(|planned| planned.policy.action));
    assert_eq!(here, word(there), "the plan and the data plane differ");
    here
}

const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn subnets_by_longest_prefix() {
    let p = plan(
        "ipsec_subnets: [10.0.0.0/8, 10.1.2.0/24]\nno_ipsec_subnets: [10.1.0.0/16, 10.0.0.9/32]",
        "10.0.0.1",
    );
    let to = |dst| verdict(&p, &packet("10.0.0.1", dst, TCP, (999, 80)));
    assert_eq!(to("10.0.0.2"), "protect");
    assert_eq!(to("10.0.0.9"), "pass");
    assert_eq!(to("10.1.9.9"), "pass");
    assert_eq!(to("10.1.2.9"), "protect");
    assert_eq!(to("192.0.2.1"), "none");
    assert_eq!(verdict(&p, &packet("10.0.0.2", "10.0.0.1", TCP, (80, 999))), "protect");
    assert_eq!(verdict(&p, &packet("10.1.9.9", "10.0.0.1", TCP, (80, 999))), "pass");
    assert!(REQIDS.contains(&FLEET.0));
}

#[test]
fn what_protection_is_made_with_passes() {
    let p = plan("ipsec_subnets: [10.0.0.0/8]", "10.0.0.1");
    for (own, other, protocol, ports) in [
        ("IKE", "10.0.0.2", UDP, (500, 500)),
        ("NAT", "10.0.0.2", UDP, (4500, 31000)),
        ("ESP", "10.0.0.2", 50, (0, 0)),
        ("DHCP", "10.0.0.3", UDP, (68, 67)),
        ("self", "10.0.0.1", TCP, (1, 2)),
    ] {
        assert_eq!(verdict(&p, &packet("10.0.0.1", other, protocol, ports)), "pass", "{own} out");
        assert_eq!(
            verdict(&p, &packet(other, "10.0.0.1", protocol, (ports.1, ports.0))),
            "pass",
            "{own} in"
        );
    }
    assert_eq!(verdict(&p, &packet("10.0.0.1", "10.0.0.2", UDP, (1024, 500))), "protect");
    let p = plan("ipsec_subnets: ['2001:db8::/32']", "2001:db8::1");
    let icmp = |kind: u16| packet("2001:db8::1", "2001:db8::2", 58, (kind << 8, kind << 8));
    assert_eq!(verdict(&p, &icmp(135)), "pass");
    assert_eq!(verdict(&p, &icmp(128)), "protect");
    assert_eq!(verdict(&p, &packet("2001:db8::1", "2001:db8::2", UDP, (546, 547))), "pass");
}

#[test]
fn priorities_are_one_order() {
    let p = plan(
        "ipsec_subnets: [10.0.0.0/8, 10.1.0.0/16]\nno_ipsec_subnets: [10.2.0.0/16]\npolicies: [{action: pass, proto: tcp, port: 22}]",
        "10.0.0.1",
    );
    for flow in [Flow::In, Flow::Out] {
        let order: Vec<u32> = p
            .policies()
            .iter()
            .filter(|p| p.policy.flow == flow)
            .map(|p| p.policy.priority)
            .collect();
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
    }
    let rank = |origin: &Origin| match origin {
        Origin::Implicit(_) => 0,
        Origin::Exception(..) | Origin::Mirrored(..) => 1,
        _ => 2,
    };
    assert!(p.policies().is_sorted_by_key(|p| rank(&p.origin)));
}

#[test]
fn optional_and_mode_reach_the_policies() {
    let p = plan("ipsec_subnets: [10.0.0.0/8]\noptional: true\nmode: tunnel", "10.0.0.1");
    let protect = Action::Protect { mode: Mode::Tunnel, reqid: FLEET, optional: true };
    assert_eq!(p.policies().iter().filter(|p| p.policy.action == protect).count(), 2);
    assert!(p.optional());
}

/// An exception is one line for the whole fleet: both ends must judge a packet alike.
#[test]
fn both_ends_agree_on_exceptions() {
    let m = manifest(
        "ipsec_subnets: [10.0.0.0/16]\nno_ipsec_subnets: [10.0.0.9/32]\npolicies:\n\
         - {action: pass, proto: tcp, remote_port: 22}\n\
         - {action: protect, proto: tcp, remote: 10.0.0.7/32, remote_port: 5432}\n\
         - {action: pass, remote: 10.0.0.7/32}\n\
         - {action: pass, proto: udp, local_port: 161, direction: in}\n\
         - {action: protect, proto: tcp, remote: 10.0.0.9/32, remote_port: 25555}\n\
         - {action: pass, proto: icmp}",
    );
    let plan = |me: &str| Plan::for_host(&m, ip(me)).unwrap();
    let (a, b, db, director) =
        (plan("10.0.0.1"), plan("10.0.0.2"), plan("10.0.0.7"), plan("10.0.0.9"));
    let both = |x: &Plan, y: &Plan, protocol: u8, ports: (u16, u16)| {
        let there = packet(&x.me().to_string(), &y.me().to_string(), protocol, ports);
        let (sent, got) = (verdict(x, &there), verdict(y, &there));
        assert_eq!(sent, got, "{} -> {} {protocol} {ports:?}", x.me(), y.me());
        sent
    };
    let pairs = [
        (&a, &b, TCP, (5000, 22), "pass"),
        (&a, &b, TCP, (5000, 80), "protect"),
        (&a, &b, 1, (0x800, 0x800), "pass"),
        (&a, &db, TCP, (5000, 5432), "protect"),
        (&a, &db, TCP, (5000, 80), "pass"),
        (&a, &b, UDP, (5000, 161), "pass"),
        (&a, &director, TCP, (5000, 25555), "protect"),
        (&a, &director, TCP, (5000, 80), "pass"),
        (&db, &director, TCP, (5000, 80), "pass"),
    ];
    for (x, y, protocol, ports, expected) in pairs {
        assert_eq!(both(x, y, protocol, ports), expected, "{} {} {ports:?}", x.me(), y.me());
        if protocol != UDP {
            assert_eq!(both(y, x, protocol, (ports.1, ports.0)), expected);
        }
    }
    // A reply to a question that came in clear is another flow: it was passed in one direction only.
    assert_eq!(both(&b, &a, UDP, (161, 5000)), "protect");
    // An excluded host does not protect what the database protects with the others.
    assert_eq!(both(&director, &db, TCP, (5000, 5432)), "pass");
    assert!(
        a.protects(ip("10.0.0.9"))
            && director.protects(ip("10.0.0.1"))
            && a.protects(ip("10.0.0.7"))
    );
    assert!(!director.protects(ip("192.0.2.1")));
}

#[test]
fn what_is_dropped_here_is_not_dropped_towards_the_world() {
    let p = plan(
        "ipsec_subnets: [10.0.0.0/16]\npolicies: [{action: drop, proto: tcp, local_port: 80}]",
        "10.0.0.1",
    );
    assert_eq!(verdict(&p, &packet("10.0.0.1", "192.0.2.1", TCP, (5000, 80))), "none");
    assert_eq!(verdict(&p, &packet("192.0.2.1", "10.0.0.1", TCP, (5000, 80))), "drop");
}

#[test]
fn an_excluded_host_protects_nothing() {
    let p = plan("ipsec_subnets: [10.0.0.0/16]\nno_ipsec_subnets: [10.0.0.9/32]", "10.0.0.9");
    assert!(matches!(p.place(), Place::Excluded(_)));
    assert!(p.policies().iter().all(|p| !p.protects()));
    assert_eq!(verdict(&p, &packet("10.0.0.9", "10.0.0.1", TCP, (1, 2))), "pass");
    assert!(p.protected().is_empty() && p.peer(ip("10.0.0.1")).is_none());
}

#[test]
fn an_address_in_neither_list_has_no_plan() {
    let m = manifest("ipsec_subnets: [10.0.0.0/16]");
    let error = Plan::for_host(&m, ip("192.0.2.1")).err().unwrap();
    assert_eq!(error, PlanError::Nowhere(vec![ip("192.0.2.1")]));
    assert!(error.to_string().contains("add it to one of the lists"), "{error}");
    let finding = m.sources().render(&error.diagnostic(&m));
    assert!(
        finding.contains("--> ipsec.yml:2:1") && finding.contains("- 192.0.2.1/32"),
        "{finding}"
    );
}

#[test]
fn the_address_inside_a_protected_network_is_chosen() {
    let m = manifest(
        "ipsec_subnets: [10.0.0.0/8, 10.1.0.0/16]\nno_ipsec_subnets: [172.16.0.0/12]\npeers: [{address: 10.9.0.1}]",
    );
    let choose =
        |own: &[&str]| Plan::choose_address(&m, &own.iter().map(|a| ip(a)).collect::<Vec<_>>());
    assert_eq!(
        choose(&["127.0.0.1", "192.0.2.1", "172.16.0.1", "10.0.0.1", "fe80::1"]),
        Ok(ip("10.0.0.1"))
    );
    assert_eq!(choose(&["10.0.0.1", "10.1.0.1"]), Ok(ip("10.1.0.1")));
    assert_eq!(choose(&["10.1.0.1", "10.9.0.1"]), Ok(ip("10.9.0.1")));
    assert_eq!(choose(&["172.16.0.1", "192.0.2.1"]), Ok(ip("172.16.0.1")));
    assert_eq!(choose(&["192.0.2.1", "127.0.0.1"]), Err(PlanError::Nowhere(vec![ip("192.0.2.1")])));
    assert_eq!(choose(&["127.0.0.1"]), Err(PlanError::NoAddress));
}

#[test]
fn other_addresses_and_families_stay_silent() {
    let m =
        manifest("ipsec_subnets: [10.0.0.0/16, '2001:db8::/32']\nno_ipsec_subnets: [10.0.3.0/24]");
    let own = ["10.0.0.1", "192.0.2.1", "10.0.3.3", "10.0.0.200"].map(ip);
    let p = Plan::for_host_with(&m, own[0], &own).unwrap();
    let from = |src: &str, dst: &str| verdict(&p, &packet(src, dst, TCP, (1, 2)));
    assert_eq!(from("192.0.2.1", "10.0.0.2"), "drop");
    assert_eq!(from("192.0.2.1", "10.0.3.2"), "pass");
    assert_eq!(from("10.0.0.200", "10.0.0.2"), "drop");
    assert_eq!(from("10.0.0.2", "10.0.0.200"), "drop");
    assert_eq!(from("10.0.0.1", "10.0.0.2"), "protect");
    let v6 = p.policies().iter().find(|p| p.policy.selector.remote.addr().is_ipv6()).unwrap();
    assert_eq!(v6.policy.action, Action::Discard);
    assert!(p.peer(ip("2001:db8::5")).is_none());
}

#[test]
fn both_families_have_sas_of_their_own() {
    let m = manifest(
        "ipsec_subnets: [10.0.0.0/16, '2001:db8::/32']\nno_ipsec_subnets: [10.0.3.0/24, '2001:db8:3::/48']\n\
         policies: [{action: pass, proto: tcp, port: 22}, {action: drop, remote: '2001:db8::d/128'}]",
    );
    let own = ["10.0.0.1", "fe80::1", "2001:db8::9", "2001:db8::1", "2001:db8:3::1"].map(ip);
    let p = Plan::for_host_with(&m, own[0], &own).unwrap();
    // Of two that are as good the first: the daemon names that which takes part already first.
    assert_eq!((p.me(), p.addresses()), (own[0], vec![own[0], own[2]]));
    let from = |src: &str, dst: &str| verdict(&p, &packet(src, dst, TCP, (5000, 80)));
    for (me, peer, clear) in
        [("10.0.0.1", "10.0.0.2", "10.0.3.2"), ("2001:db8::9", "2001:db8::2", "2001:db8:3::2")]
    {
        assert_eq!((from(me, peer), from(peer, me)), ("protect", "protect"));
        assert_eq!((from(me, clear), from(clear, me)), ("pass", "pass"));
        assert_eq!(verdict(&p, &packet(me, peer, TCP, (5000, 22))), "pass");
        assert_eq!(p.own(ip(peer)), Some(ip(me)));
        assert!(p.peer(ip(peer)).is_some() && p.peer(ip(clear)).is_none());
    }
    assert_eq!(from("2001:db8::9", "2001:db8::d"), "drop");
    assert_eq!(from("2001:db8::1", "2001:db8::2"), "drop");
    assert_eq!(from("2001:db8:3::1", "2001:db8::2"), "none");
    // What one family has changes nothing for the other.
    let alone = Plan::for_host(&m, own[0]).unwrap();
    let v4 = |p: &Plan| {
        let all = p.policies().iter().filter(|p| p.policy.selector.local.addr().is_ipv4());
        all.cloned().collect::<Vec<_>>()
    };
    assert_eq!(v4(&p), v4(&alone));
    let v6 = alone.policies().iter().find(|p| p.policy.selector.remote == m.ipsec_subnets[1]);
    assert_eq!(v6.map(|p| p.policy.action), Some(Action::Discard));
    let excluded = Plan::for_host_with(&m, own[0], &own[4..]).unwrap();
    let out = verdict(&excluded, &packet("2001:db8:3::1", "2001:db8::2", TCP, (5000, 80)));
    assert_eq!((out, excluded.peer(ip("2001:db8::2"))), ("pass", None));
    assert_eq!(excluded.protected(), ["10.0.0.0/16".parse().unwrap()]);
}

#[test]
fn routes_for_a_userspace_data_plane() {
    let p = plan(
        "ipsec_subnets: [10.0.0.0/16, 10.5.0.0/16]\nno_ipsec_subnets: [10.0.0.9/32, 10.5.0.0/16, 192.168.0.0/16]\n\
         policies: [{action: protect, remote: 198.51.100.0/24, proto: tcp, remote_port: 443}]",
        "10.0.0.1",
    );
    let show = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(show(p.protected()), ["10.0.0.0/16", "198.51.100.0/24"]);
    assert_eq!(show(p.clear()), ["10.0.0.9/32"]);
    // What is routed there has a policy: nothing is lost for want of one.
    assert_eq!(verdict(&p, &packet("10.0.0.1", "198.51.100.7", TCP, (1, 443))), "protect");
    assert_eq!(verdict(&p, &packet("10.0.0.1", "198.51.100.7", TCP, (1, 80))), "pass");
}

#[test]
fn known_peers_and_their_own_settings() {
    let p = plan(
        "ipsec_subnets: [10.0.0.0/16, 10.7.0.1/32]\nstart: eager\npeers:\n\
         - {address: 10.0.0.2, name: db, psk: another key of twenty bytes, ike_version: ikev2, ike_proposals: aes256-sha384-ecp384, start: trap}\n\
         - {address: 10.0.0.1, name: me}\n- {address: 192.0.2.1, name: outside}",
        "10.0.0.1",
    );
    assert_eq!(
        p.known_peers().keys().copied().collect::<Vec<_>>(),
        [ip("10.0.0.2"), ip("10.7.0.1")]
    );
    assert_eq!(p.name(), Some("me"));
    let db = p.peer(ip("10.0.0.2")).unwrap();
    assert_eq!((db.name.as_deref(), db.ike_proposals.text.len()), (Some("db"), 1));
    assert!(db.psk.is_some() && db.ike_proposals.text[0] == "aes256-sha384-ecp384");
    let other = p.peer(ip("10.0.9.9")).unwrap();
    assert!(other.psk.is_none() && other.ike_proposals.text[0] == "aes128-sha256-modp2048");
    assert_ne!(other.start, db.start);
    assert!(p.peer(ip("10.0.0.1")).is_none() && p.peer(ip("192.0.2.1")).is_none());
}

#[test]
fn routers_may_say_that_a_packet_is_too_long() {
    for (me, other, router, protocol, kind, related) in [
        ("10.0.0.1", "10.0.0.2", "10.0.0.254", 1, 0x0304, [0x0301, 0x0800]),
        ("fd00::1", "fd00::2", "fd00::fe", 58, 0x0200, [0x0100, 0x8000]),
    ] {
        let p = plan("ipsec_subnets: [10.0.0.0/16, \"fd00::/64\"]", me);
        let icmp = |src, dst, kind| packet(src, dst, protocol, (kind, kind));
        assert_eq!(verdict(&p, &icmp(router, me, kind)), "pass");
        assert_eq!(verdict(&p, &icmp(me, other, kind)), "protect", "only to be heard");
        for kind in related {
            assert_eq!(verdict(&p, &icmp(router, me, kind)), "protect");
        }
    }
}

#[test]
fn explain_names_what_was_looked_at() {
    let p = plan(
        "ipsec_subnets: [10.0.0.0/16]\npolicies: [{action: pass, proto: tcp, port: 22, name: ssh}]",
        "10.0.0.1",
    );
    let packet = packet("10.0.0.1", "10.0.0.2", TCP, (5000, 22));
    let decision = p.decide(&packet);
    assert_eq!(decision.policy.map(|p| p.origin.to_string()).as_deref(), Some("ssh"));
    let (last, before) = decision.trace.split_last().unwrap();
    assert!(last.matches && before.iter().all(|step| !step.matches) && !before.is_empty());
    let foreign = PacketInfo { src: ip("10.9.9.9"), ..packet };
    assert!(p.decide(&foreign).flow.is_none());
}

#[test]
fn rows_for_people() {
    let p = plan(
        "ipsec_subnets: [10.0.0.0/16]\nno_ipsec_subnets: [10.0.0.9/32]\noptional: true\npolicies: [{action: pass, proto: tcp, port: 22, name: ssh}]",
        "10.0.0.1",
    );
    let rows: Vec<String> = p.describe().iter().map(ToString::to_string).collect();
    let tail: Vec<String> =
        rows[6..].iter().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        tail,
        [
            "pass both 0.0.0.0/0 tcp local 22 ssh",
            "pass both 0.0.0.0/0 tcp remote 22 ssh",
            "pass both 10.0.0.9/32 any no_ipsec_subnets",
            "protect (transport), or clear both 10.0.0.0/16 any ipsec_subnets",
        ]
    );
    assert!(rows.iter().all(|row| row.chars().count() <= 100), "{rows:#?}");
}

#[test]
fn too_many_policies_are_refused() {
    let mut lines = String::from("ipsec_subnets:\n");
    for n in 0..3_000u32 {
        lines.push_str(&format!("- 10.{}.{}.0/25\n", n >> 8, n & 255));
    }
    lines.push_str("policies:\n");
    for port in 1..=40 {
        lines.push_str(&format!(
            "- {{action: protect, proto: tcp, remote: 10.0.0.0/25, port: {port}}}\n"
        ));
    }
    let error = Plan::for_host(&manifest(&lines), ip("10.0.0.1")).err();
    assert_eq!(error, Some(PlanError::TooManyPolicies));
}
