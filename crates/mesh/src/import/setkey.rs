//! `ipsec-tools.conf`: what setkey(8) reads.

use ipnet::IpNet;

use super::draft::{Draft, Exception};
use super::words::{Word, split};

/// Reads a file.
pub(super) fn read(text: &str, draft: &mut Draft) {
    let words = split(text, &[';']);
    for statement in words.split(|word| word.is(";")) {
        let [first, rest @ ..] = statement else { continue };
        match first.text.as_str() {
            "flush" | "spdflush" | "dump" | "spddump" => {}
            "spdadd" | "spdupdate" => add(first.line, rest, draft),
            "add" => {
                let text = "an SA with keys that are written down has no counterpart: tunnels are negotiated, with fresh keys";
                draft.note(first.line, text);
            }
            other => draft.note(first.line, format!("`{other}` has no counterpart")),
        }
    }
}

struct Side {
    net: Option<IpNet>,
    port: Option<String>,
}

fn add(line: usize, words: &[Word], draft: &mut Draft) {
    let mut words = words
        .iter()
        .map(|word| word.text.as_str())
        .filter(|word| !["-4", "-6", "-n"].contains(word))
        .peekable();
    let sides = (words.next().map(side), words.next().map(side));
    let (Some(Ok(src)), Some(Ok(dst))) = sides else {
        let text = "its addresses are not understood: names of hosts are not looked up";
        return draft.note(line, text);
    };
    let proto = words.next().unwrap_or_default().to_ascii_lowercase();
    let proto = Some(proto).filter(|proto| proto != "any");
    let mut icmp = false;
    while words.peek().is_some_and(|word| *word != "-P") {
        icmp = true;
        words.next();
    }
    if icmp {
        draft.note(line, "the type and code of ICMP are not taken over: all of it is meant");
    }
    words.next();
    let direction = match words.next() {
        Some("in") => "in",
        Some("out") => "out",
        // Forwarded packets are those of other hosts.
        _ => return draft.note(line, "only policies for `in` and `out` have a counterpart"),
    };
    let priority = priority(&mut words);
    let (local, remote) = if direction == "out" { (src, dst) } else { (dst, src) };
    let rule: Vec<&str> = words.collect();
    let action = match rule.first() {
        Some(&"none") => "pass",
        Some(&"discard") => "drop",
        Some(&"ipsec") => "protect",
        _ => return draft.note(line, "what it does with packets is not understood"),
    };
    if action == "protect" && !transforms(line, &rule[1..], remote.net, draft) {
        return;
    }
    let narrow = proto.is_some() || local.port.is_some() || remote.port.is_some();
    if action == "protect" {
        local.net.into_iter().for_each(|net| draft.protect(net));
        if !narrow {
            return remote.net.into_iter().for_each(|net| draft.protect(net));
        }
    }
    if proto.is_none() && (local.port.is_some() || remote.port.is_some()) {
        let text = "a port with protocol `any` is for tcp and for udp here";
        draft.note(line, text);
        for proto in ["tcp", "udp"] {
            except(line, action, Some(proto.into()), [&local, &remote], direction, priority, draft);
        }
        return;
    }
    let proto = proto.map(|proto| if proto == "icmp6" { "icmpv6".to_owned() } else { proto });
    except(line, action, proto, [&local, &remote], direction, priority, draft);
}

fn except(
    line: usize,
    action: &'static str,
    proto: Option<String>,
    [local, remote]: [&Side; 2],
    direction: &'static str,
    priority: i64,
    draft: &mut Draft,
) {
    let exception = Exception {
        action,
        proto,
        local_port: local.port.clone(),
        remote_port: remote.port.clone(),
        remote: remote.net,
        direction,
        name: None,
        priority,
    };
    draft.except(line, local.net, exception);
}

/// `10.0.0.0/8[22]`; no network stands for everything.
fn side(text: &str) -> Result<Side, ()> {
    let (address, port) = match text.split_once('[') {
        Some((address, port)) => (address, Some(port.trim_end_matches(']'))),
        None => (text, None),
    };
    let net: IpNet = match address.parse() {
        Ok(net) => net,
        Err(_) => IpNet::from(address.parse::<std::net::IpAddr>().map_err(drop)?),
    };
    let port = port.filter(|port| *port != "any").map(str::to_owned);
    Ok(Side { net: Some(net).filter(|net| net.prefix_len() > 0), port })
}

/// `prio def +100`, `prio -5`: more is looked at first.
fn priority<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> i64 {
    if words.next_if(|word| *word == "prio" || *word == "priority").is_none() {
        return 0;
    }
    let base = match words.peek() {
        Some(&"low") => -(1 << 30),
        Some(&"high") => 1 << 30,
        _ => 0,
    };
    words.next_if(|word| ["low", "def", "high"].contains(word));
    let sign = match words.next_if(|word| *word == "+" || *word == "-") {
        Some("-") => -1,
        _ => 1,
    };
    let offset =
        words.next_if(|word| word.parse::<i32>().is_ok()).and_then(|w| w.parse::<i32>().ok());
    base + sign * i64::from(offset.unwrap_or(0))
}

/// `esp/transport//require`; whether there is anything to protect with.
fn transforms(line: usize, rules: &[&str], remote: Option<IpNet>, draft: &mut Draft) -> bool {
    let mut esp = false;
    for rule in rules {
        let parts: Vec<&str> = rule.split('/').collect();
        let [protocol, mode, ends, level @ ..] = parts.as_slice() else {
            draft.note(line, format!("`{rule}` is not understood"));
            continue;
        };
        match *protocol {
            "esp" => esp = true,
            "ah" => {
                draft.note(line, "AH has no counterpart; ESP protects instead, and encrypts too");
                esp = true;
            }
            "ipcomp" => {
                draft.note(line, "`compression: deflate` does the same for all peers, if it pays")
            }
            _ => {}
        }
        match *mode {
            "transport" => draft.mode(line, "transport"),
            "tunnel" => {
                draft.mode(line, "tunnel");
                let far = ends.split('-').find_map(|end| {
                    let end = end.parse::<std::net::IpAddr>().ok()?;
                    remote.filter(|net| {
                        !net.contains(&end) || net.prefix_len() < net.max_prefix_len()
                    })
                });
                if far.is_some() {
                    let text = "a network behind a gateway has no counterpart: run Warren on its hosts; the network is listed as if they did";
                    draft.note(line, text);
                }
            }
            _ => {}
        }
        if level.first().is_some_and(|level| level.starts_with("use")) {
            draft.note(line, "level `use` lets packets pass in the clear where there is no SA: here `optional: true` does that for all hosts, and is not set");
        }
    }
    esp
}
