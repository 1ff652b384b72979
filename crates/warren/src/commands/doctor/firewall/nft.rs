//! nftables: what `nft -j list ruleset` prints (libnftables-json(5)).

use std::collections::BTreeMap;

use serde_json::Value;

use super::rules::{Hook, Rule, Table, Test, Verdict};

/// All tables that packets of a host meet.
pub fn read(text: &str) -> Result<Vec<Table>, String> {
    let whole: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for entry in whole["nftables"].as_array().into_iter().flatten() {
        if let Some(chain) = entry.get("chain") {
            let known = table(&mut tables, chain);
            let entry = known.chains.entry(word(&chain["name"])).or_default();
            entry.hook = hook(chain);
            entry.drops_by_default = chain["policy"] == "drop";
        } else if let Some(rule) = entry.get("rule") {
            let known = table(&mut tables, rule);
            known.chains.entry(word(&rule["chain"])).or_default().rules.extend(read_rule(rule));
        }
    }
    Ok(tables.into_values().collect())
}

fn table<'a>(tables: &'a mut BTreeMap<String, Table>, of: &Value) -> &'a mut Table {
    let name = format!("{} {}", word(&of["family"]), word(&of["table"]));
    tables.entry(name.clone()).or_insert_with(|| Table { name, ..Table::default() })
}

/// Address translation decides on no packet.
fn hook(chain: &Value) -> Option<Hook> {
    let of_hosts = ["ip", "ip6", "inet"].contains(&chain["family"].as_str()?);
    if !of_hosts || chain["type"] == "nat" {
        return None;
    }
    match chain["hook"].as_str()? {
        "prerouting" | "input" => Some(Hook::In),
        "output" | "postrouting" => Some(Hook::Out),
        _ => None,
    }
}

/// The rule; one with a verdict map gives a rule for each entry.
fn read_rule(rule: &Value) -> Vec<Rule> {
    let mut tests = match rule["family"].as_str() {
        Some("ip") => vec![(Test::Version(4), false)],
        Some("ip6") => vec![(Test::Version(6), false)],
        _ => Vec::new(),
    };
    let mut rules = Vec::new();
    let mut verdict = Verdict::Continue;
    for part in rule["expr"].as_array().into_iter().flatten() {
        if let Some(matching) = part.get("match") {
            tests.push(read_match(matching));
        } else if let Some(map) = part.get("vmap") {
            rules.extend(read_map(map, &tests, rule));
        } else if let Some(found) = read_verdict(part) {
            verdict = found;
        } else if part.get("xt").is_some() || part.get("limit").is_some() {
            tests.push((Test::Unknown, false));
        }
    }
    rules.push(Rule { tests, verdict, shown: shown(rule) });
    rules
}

fn read_map(map: &Value, before: &[(Test, bool)], rule: &Value) -> Vec<Rule> {
    let entries = map["data"]["set"].as_array().into_iter().flatten();
    let rules = entries.filter_map(|entry| {
        let mut tests = before.to_vec();
        tests.push((read_test(&map["key"], entry.get(0)?), false));
        Some(Rule { tests, verdict: read_verdict(entry.get(1)?)?, shown: shown(rule) })
    });
    rules.collect()
}

fn shown(rule: &Value) -> String {
    let comment = rule["comment"].as_str().map(|text| format!(" \"{text}\"")).unwrap_or_default();
    format!("rule {} of chain {}{comment}", rule["handle"], word(&rule["chain"]))
}

fn read_verdict(part: &Value) -> Option<Verdict> {
    let target = |key: &str| part.get(key).map(|to| word(&to["target"]));
    let is = |key: &str| part.get(key).is_some();
    match () {
        () if is("accept") => Some(Verdict::Accept),
        () if is("drop") || is("reject") => Some(Verdict::Drop),
        () if is("return") => Some(Verdict::Return),
        () => target("jump").map(Verdict::Jump).or(target("goto").map(Verdict::Goto)),
    }
}

fn read_match(matching: &Value) -> (Test, bool) {
    let inverted = matching["op"] == "!=";
    if !inverted && !["==", "in"].contains(&matching["op"].as_str().unwrap_or_default()) {
        return (Test::Unknown, false);
    }
    (read_test(&matching["left"], &matching["right"]), inverted)
}

fn read_test(left: &Value, right: &Value) -> Test {
    let field = (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str());
    let meta = left["meta"]["key"].as_str();
    let test = match (field, meta) {
        (_, Some("l4proto"))
        | ((Some("ip"), Some("protocol")), _)
        | ((Some("ip6"), Some("nexthdr")), _) => all(right, protocol).map(Test::Protocol),
        ((Some("udp" | "th"), Some("sport" | "dport")), _) => all(right, range).map(Test::Port),
        // Other protocols have these ports.
        ((Some("tcp" | "sctp" | "dccp"), Some("sport" | "dport")), _) => {
            Some(Test::Protocol(Vec::new()))
        }
        (_, Some("iifname" | "iif")) => {
            right.as_str().map(|name| Test::Interface(true, name.to_owned()))
        }
        (_, Some("oifname" | "oif")) => {
            right.as_str().map(|name| Test::Interface(false, name.to_owned()))
        }
        ((Some("ip" | "ip6"), Some("saddr")), _) => net(right).map(|net| Test::Address(true, net)),
        ((Some("ip" | "ip6"), Some("daddr")), _) => net(right).map(|net| Test::Address(false, net)),
        (_, Some("nfproto")) => match right.as_str() {
            Some("ipv4") => Some(Test::Version(4)),
            Some("ipv6") => Some(Test::Version(6)),
            _ => None,
        },
        _ if left["ct"]["key"] == "state" => all(right, |v| v.as_str().map(str::to_owned))
            .map(|states| Test::New(states.iter().any(|state| state == "new"))),
        _ => None,
    };
    test.unwrap_or(Test::Unknown)
}

/// One address or network.
fn net(value: &Value) -> Option<ipnet::IpNet> {
    let address = |value: &Value| value.as_str()?.parse::<std::net::IpAddr>().ok();
    match value.get("prefix") {
        Some(prefix) => {
            let length = prefix["len"].as_u64()?.try_into().ok()?;
            ipnet::IpNet::new(address(&prefix["addr"])?, length).ok()
        }
        None => address(value).map(ipnet::IpNet::from),
    }
}

/// One value, or all of a set.
fn all<T>(right: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match right.get("set").unwrap_or(right) {
        Value::Array(values) => values.iter().map(read).collect(),
        one => read(one).map(|value| vec![value]),
    }
}

fn protocol(value: &Value) -> Option<u8> {
    match value {
        Value::Number(number) => number.as_u64().and_then(|n| n.try_into().ok()),
        Value::String(name) => super::protocol(name),
        _ => None,
    }
}

fn range(value: &Value) -> Option<(u16, u16)> {
    let port = |value: &Value| match value {
        Value::Number(number) => number.as_u64().and_then(|n| n.try_into().ok()),
        Value::String(name) => super::port(name),
        _ => None,
    };
    match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, last]) => Some((port(first)?, port(last)?)),
        _ => port(value).map(|port| (port, port)),
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
