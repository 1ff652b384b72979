//! The leak guard's rules: what a plan protects is dropped before there is a plan, what it lets pass passes.

mod manifest_support;

use std::net::IpAddr;

use ipsec::dataplane::PacketInfo;
use ipsec::spd::{Action, Flow, Policy, Spd};
use manifest_support::*;
use mesh::manifest::Manifest;
use mesh::plan::{GUARD_PRIORITY, Plan, guard};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn manifest(lines: &str) -> Manifest {
    ok(&format!("psk: {PSK}\n{lines}\n")).0
}

struct Guard(Spd);

impl Guard {
    fn of(lines: &str, own: &[&str]) -> Self {
        let own: Vec<IpAddr> = own.iter().map(|text| ip(text)).collect();
        Self::from(&guard(&manifest(lines), &own).unwrap())
    }

    fn from(rules: &[Policy]) -> Self {
        let mut spd = Spd::default();
        assert!(rules.iter().all(|rule| spd.put(*rule)));
        Self(spd)
    }

    fn passes(&self, flow: Flow, packet: &PacketInfo) -> bool {
        self.0.lookup(flow, packet).is_none_or(|rule| rule.action == Action::Bypass)
    }

    fn out(&self, src: &str, dst: &str, protocol: u8, ports: (u16, u16)) -> bool {
        self.passes(Flow::Out, &packet(src, dst, protocol, ports))
    }

    fn comes_in(&self, src: &str, dst: &str, protocol: u8, ports: (u16, u16)) -> bool {
        self.passes(Flow::In, &packet(src, dst, protocol, ports))
    }
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

const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn nothing_goes_to_or_comes_from_the_subnets() {
    let guard = Guard::of(
        "ipsec_subnets: [10.0.0.0/16, 'fd09::/64']\nno_ipsec_subnets: [10.0.9.0/24]",
        &[],
    );
    for own in ["10.0.0.1", "192.0.2.1", "0.0.0.0"] {
        assert!(!guard.out(own, "10.0.0.2", TCP, (1024, 443)), "{own}");
        assert!(!guard.comes_in("10.0.0.2", own, TCP, (1024, 443)), "{own}");
        assert!(guard.out(own, "10.0.9.2", TCP, (1024, 443)));
        assert!(guard.out(own, "8.8.8.8", UDP, (1024, 53)));
    }
    assert!(!guard.out("fd09::1", "fd09::2", TCP, (1024, 443)));
    assert!(!guard.comes_in("fd09::2", "fd09::1", UDP, (9, 9)));
    // An excluded host speaks in clear with everybody.
    assert!(guard.out("10.0.9.1", "10.0.0.2", TCP, (1024, 443)));
}

#[test]
fn what_protection_is_made_with_passes() {
    let guard = Guard::of("ipsec_subnets: [10.0.0.0/16, '::/0']", &["fd09::1"]);
    for (src, dst, protocol, ports) in [
        ("10.0.0.1", "10.0.0.2", UDP, (500, 500)),
        ("10.0.0.1", "10.0.0.2", UDP, (4500, 61000)),
        ("10.0.0.1", "10.0.0.2", 50, (0, 0)),
        ("10.0.0.1", "10.0.0.3", UDP, (68, 67)),
        ("fe80::1", "ff02::1:2", UDP, (546, 547)),
        ("::", "ff02::1:ff00:1", 58, (135 << 8, 0)),
        ("fd09::1", "fd09::2", 58, (136 << 8, 0)),
        ("fd09::1", "fd09::1", TCP, (1, 2)),
        ("::1", "::1", TCP, (1, 2)),
    ] {
        // Of ICMP the type and code stand in the one port, whichever way it goes.
        let icmp = protocol == 58;
        let info = |flow: Flow| PacketInfo {
            src_port: Some(ports.0),
            dst_port: if icmp { Some(ports.0) } else { Some(ports.1) },
            ..if flow == Flow::Out {
                packet(src, dst, protocol, ports)
            } else {
                packet(dst, src, protocol, (ports.1, ports.0))
            }
        };
        assert!(guard.passes(Flow::Out, &info(Flow::Out)), "{src} {dst} {protocol} {ports:?}");
    }
    assert!(!guard.out("fd09::1", "fd09::2", 58, (128 << 8, 128 << 8)), "echo is no discovery");
    assert!(!guard.out("10.0.0.1", "10.0.0.2", UDP, (501, 500)));
    assert!(!guard.out("fd09::7", "fd09::7", TCP, (1, 2)), "this address is not known");
}

#[test]
fn optional_lifts_it() {
    let rules = guard(&manifest("ipsec_subnets: [10.0.0.0/16]\noptional: true"), &[]).unwrap();
    assert_eq!(rules, []);
}

#[test]
fn every_rule_comes_after_a_plans() {
    let manifest = manifest(
        "ipsec_subnets: ['::/0', 10.0.0.0/8]\npolicies:\n- {action: pass, proto: tcp, port: 22}",
    );
    let plan = Plan::for_host(&manifest, ip("10.0.0.1")).unwrap();
    let last = plan.policies().iter().map(|planned| planned.policy.priority).max().unwrap();
    let rules = guard(&manifest, &[]).unwrap();
    assert!(last < GUARD_PRIORITY && rules.iter().all(|rule| rule.priority >= GUARD_PRIORITY));
    let mut priorities: Vec<u32> = rules.iter().map(|rule| rule.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    assert_eq!(priorities.len(), rules.len());
}

/// For every host, peer and port: the guard drops what the host's plan protects or drops, and passes what it passes.
#[test]
fn it_agrees_with_every_plan() {
    let nested = "ipsec_subnets: [10.0.0.0/16, 10.0.9.64/26, 10.1.0.7/32]\nno_ipsec_subnets: [10.0.9.0/24, 172.16.0.0/12]";
    let flat =
        "ipsec_subnets: [10.0.0.0/16, 10.1.0.7/32]\nno_ipsec_subnets: [10.0.9.0/24, 172.16.0.0/12]";
    let policies = [
        "",
        "\npolicies:\n- {action: pass, proto: tcp, port: 22}\n- {action: drop, proto: udp, remote_port: 53}",
        "\npolicies:\n- {action: pass, proto: tcp, local_port: 80, direction: in}\n- {action: drop, proto: tcp, port: 22, remote: 10.0.1.0/24}\n- {action: pass, proto: tcp, remote_port: 22, remote: 10.0.0.0/16}",
        "\npolicies:\n- {action: protect, proto: tcp, remote_port: 443, remote: 192.0.2.0/24}\n- {action: protect, proto: tcp, remote_port: 80, remote: 10.0.9.1/32}",
    ];
    let hosts =
        ["10.0.0.1", "10.0.1.2", "10.0.9.1", "10.0.9.70", "10.1.0.7", "172.16.0.9", "192.0.2.5"];
    let mut decided = [0; 2];
    for (policies, nets) in policies.into_iter().zip([nested, nested, nested, flat]) {
        let manifest = manifest(&format!("{nets}{policies}"));
        let rules = Guard::from(&guard(&manifest, &[]).unwrap());
        for me in hosts {
            let Ok(plan) = Plan::for_host(&manifest, ip(me)) else { continue };
            for peer in hosts.iter().filter(|peer| **peer != me) {
                for protocol in [TCP, UDP] {
                    for port in [22, 53, 80, 443, 500, 9999] {
                        for ports in [(port, 40_000), (40_000, port)] {
                            for (flow, src, dst) in [(Flow::Out, me, *peer), (Flow::In, *peer, me)]
                            {
                                let packet = packet(src, dst, protocol, ports);
                                let decision = plan.decide(&packet);
                                let action = decision.policy.map(|planned| planned.policy.action);
                                let clear = matches!(action, None | Some(Action::Bypass));
                                let passes = rules.passes(flow, &packet);
                                assert_eq!(
                                    passes, clear,
                                    "{me}: {flow:?} {src} > {dst} {protocol} {ports:?} {action:?}{policies}"
                                );
                                decided[usize::from(passes)] += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(decided.iter().all(|count| *count > 500), "{decided:?}");
}
