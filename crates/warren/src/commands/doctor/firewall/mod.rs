//! Firewall rules that stop ESP, or IKE on UDP 500 and 4500, where they can be read.
//!
//! Each kind of packet is led through the rules as the first of its kind. What depends on more than this host's side of
//! it (a peer's address, a set, a rate) cannot be judged, and is said to be so.

mod iptables;
mod nft;
mod rules;

use std::process::Command;

use linux::userspace::PORTS;
use rules::{Fate, Packet, Table, fate};

use super::Scene;
use super::finding::{Finding, Findings};
use super::network::link_of;

const ESP: u8 = 50;
const UDP: u8 = 17;

/// Reads the rules that there are, and asks for each kind of packet.
pub fn check(scene: &Scene<'_>, all: &mut Vec<Finding>) {
    let mut found = Findings::of("firewall", all);
    let Some(local) = scene.address else {
        return found.skipped("rules", "this host's address in the mesh is not known");
    };
    let (tables, unread) = tables();
    for reason in &unread {
        found.skipped("rules", reason.clone());
    }
    if tables.is_empty() {
        if unread.is_empty() {
            found.ok("rules", "there are none");
        }
        return;
    }
    let interface = link_of(local).ok().flatten().map(|link| link.name).unwrap_or_default();
    for inbound in [true, false] {
        let esp =
            Packet { inbound, local, interface: interface.clone(), protocol: ESP, port: None };
        judge(&tables, "ESP", &esp, &mut found);
        for port in PORTS {
            let udp = Packet { protocol: UDP, port: Some(port), ..esp.clone() };
            judge(&tables, &format!("UDP {port}"), &udp, &mut found);
        }
    }
}

fn judge(tables: &[Table], what: &str, packet: &Packet, found: &mut Findings<'_>) {
    let way = if packet.inbound { "in" } else { "out" };
    let fates: Vec<Fate> = tables.iter().map(|table| fate(table, packet)).collect();
    let dropped = fates.iter().find(|fate| matches!(fate, Fate::Dropped(_)));
    match dropped.or(fates.iter().find(|fate| **fate != Fate::Passes)) {
        Some(Fate::Dropped(rule)) => found.error(
            "rules",
            format!("{what} {way} is dropped: {rule}"),
            format!("accept {what} before that rule, for the addresses of the mesh"),
        ),
        Some(Fate::Perhaps(rule)) => found.skipped(
            "rules",
            format!("{what} {way} depends on what cannot be judged from here: {rule}"),
        ),
        _ => found.ok("rules", format!("{what} {way} passes")),
    }
}

/// What the tools show, and what could not be read.
fn tables() -> (Vec<Table>, Vec<String>) {
    let (mut tables, mut unread) = (Vec::new(), Vec::new());
    let mut tools = 0;
    match output("nft", &["-j", "list", "ruleset"]) {
        Ok(Some(text)) => {
            tools += 1;
            match nft::read(&text) {
                Ok(read) => tables.extend(read),
                Err(error) => unread.push(format!("nft shows what cannot be read: {error}")),
            }
        }
        Ok(None) => {}
        Err(error) => unread.push(error),
    }
    for (tool, version) in [("iptables-save", 4), ("ip6tables-save", 6)] {
        match output(tool, &[]) {
            Ok(Some(text)) => {
                tools += 1;
                tables.extend(iptables::read(&text, version));
            }
            Ok(None) => {}
            Err(error) => unread.push(error),
        }
    }
    if tools == 0 && unread.is_empty() {
        unread.push("neither nft nor iptables-save is installed: rules cannot be read".to_owned());
    }
    (tables, unread)
}

/// What a tool prints; `None` if there is no such tool.
fn output(tool: &str, args: &[&str]) -> Result<Option<String>, String> {
    match Command::new(tool).args(args).output() {
        Ok(done) if done.status.success() => {
            Ok(Some(String::from_utf8_lossy(&done.stdout).into_owned()))
        }
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            Err(format!("{tool}: {}", said.lines().next().unwrap_or("it failed")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{tool}: {error}")),
    }
}

/// Names that firewalls' tools print.
fn protocol(name: &str) -> Option<u8> {
    match name {
        "esp" | "ipv6-crypt" => Some(ESP),
        "udp" => Some(UDP),
        "tcp" => Some(6),
        "icmp" => Some(1),
        "ipv6-icmp" | "icmpv6" => Some(58),
        "ah" => Some(51),
        "sctp" => Some(132),
        "udplite" => Some(136),
        "gre" => Some(47),
        number => number.parse().ok(),
    }
}

fn port(name: &str) -> Option<u16> {
    match name {
        "isakmp" => Some(500),
        "ipsec-nat-t" => Some(4500),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::rules::{Fate, Packet, fate};
    use super::{ESP, UDP, iptables, nft};

    fn packet(inbound: bool, protocol: u8, port: Option<u16>) -> Packet {
        Packet { inbound, local: [10, 0, 0, 1].into(), interface: "eth0".into(), protocol, port }
    }

    const NFT: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "filter", "handle": 1}},
        {"chain": {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "filter", "name": "vpn"}},
        {"chain": {"family": "inet", "table": "filter", "name": "output", "type": "filter", "hook": "output", "prio": 0, "policy": "accept"}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 3, "expr": [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 4, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 5, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth*"}}, {"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "vpn"}}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "vpn", "handle": 6, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": {"set": [53, {"range": [400, 500]}]}}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "vpn", "handle": 7, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 4500}}, {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@peers"}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "output", "handle": 8, "comment": "no esp", "expr": [{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "esp"}}, {"reject": {"type": "icmp", "expr": "host-prohibited"}}]}}
    ]}"#;

    #[test]
    fn nftables_decides_as_its_rules_say() {
        let tables = nft::read(NFT).unwrap();
        let [table] = tables.as_slice() else { panic!("{tables:#?}") };
        let of = |inbound, protocol, port| fate(table, &packet(inbound, protocol, port));
        assert_eq!(of(true, UDP, Some(500)), Fate::Passes);
        assert_eq!(
            of(true, ESP, None),
            Fate::Dropped("policy of chain input in inet filter".into())
        );
        let Fate::Perhaps(rule) = of(true, UDP, Some(4500)) else { panic!("a set is not known") };
        assert!(rule.starts_with("rule 7 of chain vpn"), "{rule}");
        let Fate::Dropped(rule) = of(false, ESP, None) else { panic!("rejected") };
        assert_eq!(rule, "rule 8 of chain output \"no esp\" (inet filter)");
        assert_eq!(of(false, UDP, Some(4500)), Fate::Passes);
    }

    #[test]
    fn verdict_maps_and_turned_tests() {
        let text = r#"{"nftables": [
            {"chain": {"family": "ip", "table": "t", "name": "in", "type": "filter", "hook": "prerouting", "policy": "accept"}},
            {"rule": {"family": "ip", "table": "t", "chain": "in", "handle": 1, "expr": [{"vmap": {"key": {"meta": {"key": "l4proto"}}, "data": {"set": [["udp", {"accept": null}], ["esp", {"drop": null}]]}}}]}},
            {"rule": {"family": "ip", "table": "t", "chain": "in", "handle": 2, "expr": [{"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "protocol"}}, "right": 17}}, {"drop": null}]}}]}"#;
        let tables = nft::read(text).unwrap();
        assert_eq!(fate(&tables[0], &packet(true, UDP, Some(500))), Fate::Passes);
        assert!(matches!(fate(&tables[0], &packet(true, ESP, None)), Fate::Dropped(_)));
        let six = Packet { local: "fd00::1".parse().unwrap(), ..packet(true, ESP, None) };
        assert_eq!(fate(&tables[0], &six), Fate::Passes);
        assert!(nft::read("{").is_err());
        assert!(nft::read("[1]").unwrap().is_empty());
    }

    #[test]
    fn iptables_decides_as_its_rules_say() {
        let text = "*nat\n:PREROUTING DROP [0:0]\nCOMMIT\n*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n\
            :OUTPUT ACCEPT [0:0]\n:vpn - [0:0]\n-A INPUT -i lo -j ACCEPT\n\
            -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
            -A INPUT ! -i eth1 -m comment --comment \"from the mesh\" -j vpn\n\
            -A vpn -p udp -m multiport --dports 500,4000:4400 -j ACCEPT\n\
            -A vpn -s 10.0.0.0/8 -p esp -j ACCEPT\n-A OUTPUT -p udp -m udp --dport 4500 -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n";
        let tables = iptables::read(text, 4);
        let filter = tables.iter().find(|table| table.name == "iptables filter").unwrap();
        let of = |inbound, protocol, port| fate(filter, &packet(inbound, protocol, port));
        assert_eq!(of(true, UDP, Some(500)), Fate::Passes);
        assert!(matches!(of(true, UDP, Some(4500)), Fate::Dropped(_)));
        let Fate::Perhaps(rule) = of(true, ESP, None) else { panic!("a source is not known") };
        assert!(rule.contains("10.0.0.0/8"), "{rule}");
        assert!(
            matches!(of(false, UDP, Some(4500)), Fate::Dropped(rule) if rule.contains("REJECT"))
        );
        assert_eq!(of(false, UDP, Some(500)), Fate::Passes);
        assert_eq!(fate(&tables[0], &packet(true, ESP, None)), Fate::Passes);
    }

    #[test]
    fn chains_that_call_each_other_end() {
        let text = "*filter\n:INPUT ACCEPT [0:0]\n:a - [0:0]\n-A INPUT -j a\n-A a -j a\nCOMMIT\n";
        assert_eq!(fate(&iptables::read(text, 4)[0], &packet(true, ESP, None)), Fate::Passes);
    }
}
