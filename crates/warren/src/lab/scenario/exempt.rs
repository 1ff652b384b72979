//! Exceptions: what passes in the clear, what is protected alone, and that it is exactly that.

use std::time::Duration;

use serde_json::{Value, json};

use super::Scenario;
use crate::lab::probe::{End, Probe};
use crate::lab::stage::{Stage, Stopped};
use crate::lab::wire::Counts;

/// `exempt`
pub struct Exempt;

/// The host of which one port alone is protected.
const HALF: usize = 2;
const PROTECTED_PORT: u16 = 8443;
/// What the end of a connection still sends passes within this.
const REST: Duration = Duration::from_millis(200);

/// Between ordinary hosts: by what, whether it passes in the clear, and what it is.
const BETWEEN: [(Probe, bool, &str); 8] = [
    (Probe::Tcp(22), true, "SSH"),
    (Probe::Icmp, true, "ICMP echo"),
    (Probe::Udp(7777), true, "UDP 7777"),
    (Probe::UdpBetween(51820), true, "a VPN in UDP 51820"),
    (Probe::Ip(47), true, "a VPN in GRE"),
    (Probe::Tcp(80), false, "TCP 80"),
    (Probe::Udp(7778), false, "UDP 7778"),
    (Probe::Tcp(PROTECTED_PORT), false, "TCP 8443"),
];

/// With the host of which one port alone is protected.
const WITH_HALF: [(Probe, bool, &str); 5] = [
    (Probe::Tcp(PROTECTED_PORT), false, "TCP 8443"),
    (Probe::Tcp(80), true, "TCP 80"),
    (Probe::Tcp(22), true, "SSH"),
    (Probe::Udp(7778), true, "UDP 7778"),
    (Probe::Icmp, true, "ICMP echo"),
];

impl Scenario for Exempt {
    fn name(&self) -> &'static str {
        "exempt"
    }

    fn about(&self) -> &'static str {
        "SSH, ICMP, a port and a VPN pass in the clear; of one host a single port is protected"
    }

    fn required(&self) -> &'static str {
        "exactly those, checked on the wire, both directions"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (3, 4, 20)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let exceptions = [
            json!({"action": "pass", "proto": "tcp", "port": 22, "name": "ssh"}),
            json!({"action": "pass", "proto": "icmp"}),
            json!({"action": "pass", "proto": "icmpv6"}),
            json!({"action": "pass", "proto": "udp", "port": 7777}),
            json!({"action": "pass", "proto": "udp", "port": 51820, "name": "a VPN"}),
            json!({"action": "pass", "proto": "gre", "name": "another VPN"}),
        ];
        let half = ipnet::IpNet::from(stage.address(HALF)).to_string();
        let all = stage.subnet().to_string();
        let with_half = [
            json!({"action": "protect", "proto": "tcp", "port": PROTECTED_PORT, "remote": half}),
            json!({"action": "pass", "remote": half}),
        ];
        let by_half = [
            json!({"action": "protect", "proto": "tcp", "port": PROTECTED_PORT, "remote": all}),
            json!({"action": "pass"}),
        ];
        let policies = |more: &[Value]| Value::Array([&exceptions[..], more].concat());
        let ordinary = stage.recipe.clone().with("policies", policies(&with_half));
        stage.put_manifests(&ordinary)?;
        let own = stage.recipe.clone().with("policies", policies(&by_half));
        stage.put_manifest(HALF, &own)?;
        stage.start_all(0..stage.len())?;
        let from = stage.talk(stage.all_pairs())?;
        stage.wait(Duration::from_secs(2))?;
        stage.no_loss("streams", from, |_| true)?;
        stage.quiet();
        for (from, to) in [(0, 1), (1, 0)] {
            for (probe, clear, what) in BETWEEN {
                one(stage, from, to, probe, clear, what)?;
            }
        }
        for (from, to) in [(0, HALF), (HALF, 0)] {
            for (probe, clear, what) in WITH_HALF {
                one(stage, from, to, probe, clear, what)?;
            }
        }
        Ok(())
    }
}

/// One exchange: that it came about, and what was seen of it on the wire.
fn one(
    stage: &mut Stage<'_>,
    from: usize,
    to: usize,
    probe: Probe,
    clear: bool,
    what: &str,
) -> Result<(), Stopped> {
    let names = (stage.name(from).to_owned(), stage.name(to).to_owned());
    let before = stage.wire();
    let (a, b) = (stage.netns(from)?, stage.netns(to)?);
    let here = End { netns: &a, address: stage.address(from) };
    let there = End { netns: &b, address: stage.address(to) };
    let answered = probe.ask(&here, &there)?;
    stage.wait(REST)?;
    let seen = stage.wire().since(&before);
    let how = if clear { "in the clear" } else { "protected" };
    let right = answered && as_wanted(&seen, &here, &there, probe, clear);
    if !right {
        let text = format!(
            "{what}, {} to {}: answered: {answered}; ESP {:?}; clear {:?}",
            names.0, names.1, seen.esp_between, seen.clear_flows
        );
        stage.findings.detail(text);
    }
    stage.exactly(format!("{} to {}: {what} {how}, both ways", names.0, names.1), right.into(), 1);
    Ok(())
}

/// In the clear: in both directions, and no ESP. Protected: ESP in both directions, and nothing in the clear.
fn as_wanted(seen: &Counts, here: &End<'_>, there: &End<'_>, probe: Probe, clear: bool) -> bool {
    let protocol = probe.protocol(here.address);
    let ways = [(here.address, there.address), (there.address, here.address)];
    let in_clear = |(src, dst)| {
        let flows = seen.clear_flows.keys();
        flows.filter(|f| (f.src, f.dst, f.protocol) == (src, dst, protocol)).count() > 0
    };
    let esp = |way| seen.esp_between.contains_key(&way);
    let only_this = seen
        .clear_flows
        .keys()
        .all(|flow| ways.contains(&(flow.src, flow.dst)) && flow.protocol == protocol);
    if clear {
        only_this && ways.into_iter().all(in_clear) && seen.esp == 0
    } else {
        seen.clear == 0 && ways.into_iter().all(esp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::watch::Flow;
    use linux::netns::Netns;

    #[test]
    fn what_is_seen_is_judged() {
        let netns = Netns::current().unwrap();
        let end = |address: &str| End { netns: &netns, address: address.parse().unwrap() };
        let (a, b) = (end("10.0.0.1"), end("10.0.0.2"));
        let flow = |src: &End<'_>, dst: &End<'_>, protocol| {
            (Flow { src: src.address, dst: dst.address, protocol, ports: (1, 2) }, 1)
        };
        let judge = |seen: &Counts, clear| as_wanted(seen, &a, &b, Probe::Tcp(22), clear);
        let clear = Counts {
            clear: 2,
            clear_flows: [flow(&a, &b, 6), flow(&b, &a, 6)].into(),
            ..Counts::default()
        };
        assert!(judge(&clear, true) && !judge(&clear, false));
        let one_way = Counts { clear_flows: [flow(&a, &b, 6)].into(), ..clear.clone() };
        assert!(!judge(&one_way, true));
        let also = [flow(&a, &b, 6), flow(&b, &a, 6), flow(&a, &b, 17)].into();
        assert!(!judge(&Counts { clear_flows: also, ..clear.clone() }, true));
        assert!(!judge(&Counts { esp: 1, ..clear }, true));
        let ways = [((a.address, b.address), 1), ((b.address, a.address), 1)];
        let esp = Counts { esp: 2, esp_between: ways.into(), ..Counts::default() };
        assert!(judge(&esp, false) && !judge(&esp, true));
        let half = Counts { esp_between: [ways[0]].into(), ..esp };
        assert!(!judge(&half, false));
    }
}
