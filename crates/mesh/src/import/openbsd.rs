//! `ipsec.conf` of OpenBSD (ipsec.conf(5)).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::algorithms::Parts;
use super::draft::{Draft, Exception};
use super::words::{Word, split};

/// Rules that one rule with lists stands for, at most.
const MOST: usize = 1024;
/// Reads a file.
pub(super) fn read(text: &str, draft: &mut Draft) {
    let mut macros: BTreeMap<String, Vec<Word>> = BTreeMap::new();
    for line in lines(&split(text, &['\n', '{', '}', ',', '='])) {
        let [first, rest @ ..] = line.as_slice() else { continue };
        if let [equals, value @ ..] = rest
            && equals.is("=")
        {
            let value = value.iter().flat_map(|word| expand(word, &macros)).collect();
            macros.insert(first.text.clone(), value);
            continue;
        }
        let words: Vec<Word> = line.iter().flat_map(|word| expand(word, &macros)).collect();
        match first.text.as_str() {
            "include" => {
                draft.includes.extend(rest.first().map(|path| (first.line, path.text.clone())))
            }
            "ike" | "flow" => rule(&words, draft),
            "set" => draft.note(first.line, "`set` has no counterpart"),
            "tcpmd5" => draft.note(first.line, "TCP-MD5 has no counterpart: it is not IPsec"),
            "esp" | "ah" | "ipcomp" => {
                let text = "an SA with keys that are written down has no counterpart: tunnels are negotiated, with fresh keys";
                draft.note(first.line, text);
            }
            other => draft.note(first.line, format!("`{other}` is not understood")),
        }
    }
}

/// Lines of words; what stands in braces goes on over their ends.
fn lines(words: &[Word]) -> Vec<Vec<Word>> {
    let (mut lines, mut line, mut depth) = (Vec::new(), Vec::new(), 0usize);
    for word in words {
        match () {
            () if word.is("\n") && depth == 0 => lines.push(std::mem::take(&mut line)),
            () if word.is("\n") => {}
            () => {
                depth += usize::from(word.is("{"));
                depth = depth.saturating_sub(usize::from(word.is("}")));
                line.push(word.clone());
            }
        }
    }
    lines.push(line);
    lines.retain(|line| !line.is_empty());
    lines
}

/// A macro's value; one in quotes is read as words too, since that is how lists are kept in macros.
fn expand(word: &Word, macros: &BTreeMap<String, Vec<Word>>) -> Vec<Word> {
    let Some(value) = word.text.strip_prefix('$').and_then(|name| macros.get(name)) else {
        return vec![word.clone()];
    };
    let words = value.iter().flat_map(|value| match value.quoted {
        true => split(&value.text, &['{', '}', ',', '=']),
        false => vec![value.clone()],
    });
    words.map(|value| Word { line: word.line, ..value }).collect()
}

/// What a rule says.
#[derive(Default)]
struct Rule {
    line: usize,
    flow: bool,
    passive: bool,
    mode: Option<&'static str>,
    kind: Option<String>,
    proto: Option<String>,
    from: Vec<End>,
    to: Vec<End>,
    peers: Vec<String>,
    main: Parts,
    quick: Parts,
    main_lifetime: Option<String>,
    quick_lifetime: Option<String>,
    dstid: Option<String>,
    psk: Option<String>,
    direction: Option<&'static str>,
}

struct End {
    address: String,
    port: Option<String>,
}

fn rule(words: &[Word], draft: &mut Draft) {
    let mut rule = parse(words, draft);
    if rule.from.len().saturating_mul(rule.to.len()) > MOST {
        return draft.note(rule.line, "its lists stand for too many rules");
    }
    if rule.kind.as_deref() == Some("ah") {
        draft.note(rule.line, "AH has no counterpart; ESP protects instead, and encrypts too");
    }
    for from in &rule.from {
        for to in &rule.to {
            pair(&rule, from, to, draft);
        }
    }
    if rule.peers.is_empty() {
        // ipsec.conf(5): then it is the other end itself.
        rule.peers = rule.to.iter().map(|to| to.address.clone()).collect();
    }
    for peer in &rule.peers {
        remember(&rule, peer, draft);
    }
}

fn parse(words: &[Word], draft: &mut Draft) -> Rule {
    let mut rule = Rule { line: words.first().map_or(0, |word| word.line), ..Rule::default() };
    let (mut at, mut phase) = (0, 0);
    let line = rule.line;
    while let Some(word) = words.get(at) {
        at += 1;
        let mut value = || {
            at += 1;
            words.get(at - 1).map(|word| word.text.clone()).unwrap_or_default()
        };
        match word.text.as_str() {
            "ike" | "active" | "dynamic" => {}
            "flow" => rule.flow = true,
            "passive" => rule.passive = true,
            "esp" | "ah" | "ipcomp" => rule.kind = Some(word.text.clone()),
            "transport" => rule.mode = Some("transport"),
            "tunnel" => rule.mode = Some("tunnel"),
            "in" => rule.direction = Some("in"),
            "out" => rule.direction = Some("out"),
            "proto" => rule.proto = Some(value()),
            "from" | "to" => {
                let (ends, next) = ends(words, at);
                at = next;
                if word.is("from") { rule.from = ends } else { rule.to = ends }
            }
            "peer" => rule.peers = vec![value()],
            "local" => drop(value()),
            "main" => phase = 1,
            "quick" => phase = 2,
            "auth" | "enc" | "group" | "lifetime" => {
                let value = value();
                let (parts, lifetime) = match phase {
                    2 => (&mut rule.quick, &mut rule.quick_lifetime),
                    _ => (&mut rule.main, &mut rule.main_lifetime),
                };
                match word.text.as_str() {
                    "auth" => parts.integrity(&value),
                    "enc" => parts.encryption(&value, None),
                    "group" if value == "none" => {}
                    "group" => parts.group(&value),
                    _ => *lifetime = Some(value),
                }
            }
            "srcid" => {
                let id = value();
                draft.note(line, format!("`srcid {id}` has no counterpart: a host is known by its certificate, or by its address"));
            }
            "dstid" => rule.dstid = Some(value()),
            "psk" => rule.psk = Some(value()),
            "rsa" | "ecdsa" => {}
            "tag" | "tap" => {
                let tag = value();
                draft.note(line, format!("`{} {tag}` has no counterpart", word.text));
            }
            "type" => rule.kind = Some(value()),
            other => draft.note(line, format!("`{other}` is not understood")),
        }
    }
    rule
}

/// One end, or a list of them.
fn ends(words: &[Word], mut at: usize) -> (Vec<End>, usize) {
    let mut ends = Vec::new();
    let listed = words.get(at).is_some_and(|word| word.is("{"));
    at += usize::from(listed);
    while let Some(word) = words.get(at) {
        if word.is("}") {
            return (ends, at + 1);
        }
        at += 1;
        if word.is(",") {
            continue;
        }
        let mut end = End { address: word.text.clone(), port: None };
        if words.get(at).is_some_and(|word| word.is("port")) {
            end.port = words.get(at + 1).map(|word| word.text.clone());
            at += 2;
        }
        // `network (translated)`: what a NAT makes of it.
        if words.get(at).is_some_and(|word| word.text.starts_with('(')) {
            at += 1;
        }
        ends.push(end);
        if !listed {
            break;
        }
    }
    (ends, at)
}

/// `None` for `any`; an error for what is no address.
fn net(address: &str) -> Result<Option<IpNet>, String> {
    match address {
        "any" | "0.0.0.0/0" | "::/0" => Ok(None),
        _ => address
            .parse()
            .or_else(|_| address.parse().map(|address: IpAddr| IpNet::from(address)))
            .map(Some)
            .map_err(|_| {
                format!(
                    "`{address}` is no address: names of hosts and interfaces are not looked up"
                )
            }),
    }
}

fn pair(rule: &Rule, from: &End, to: &End, draft: &mut Draft) {
    let (local, remote) = match (net(&from.address), net(&to.address)) {
        (Ok(local), Ok(remote)) => (local, remote),
        (Err(error), _) | (_, Err(error)) => return draft.note(rule.line, error),
    };
    let action = match (rule.flow, rule.kind.as_deref()) {
        (true, Some("bypass")) => "pass",
        (true, Some("deny" | "dontacq")) => "drop",
        _ => "protect",
    };
    let narrow = rule.proto.is_some() || from.port.is_some() || to.port.is_some();
    if action == "protect" && !narrow {
        protect(rule, local, remote, draft);
        return;
    }
    if narrow && action == "protect" {
        local.into_iter().for_each(|net| draft.protect(net));
    }
    if (from.port.is_some() || to.port.is_some()) && rule.proto.is_none() {
        return draft.note(
            rule.line,
            "a port without `proto` is not taken over: say whether it is tcp or udp",
        );
    }
    let exception = Exception {
        action,
        proto: rule.proto.clone(),
        local_port: from.port.clone(),
        remote_port: to.port.clone(),
        remote,
        direction: rule.direction.unwrap_or("both"),
        name: None,
        priority: 0,
    };
    draft.except(rule.line, local, exception);
}

/// Between these two everything is protected, if they are the hosts themselves.
fn protect(rule: &Rule, local: Option<IpNet>, remote: Option<IpNet>, draft: &mut Draft) {
    let is_peer = |net: &IpNet| {
        rule.peers.is_empty() || rule.peers.iter().any(|peer| peer.parse() == Ok(net.addr()))
    };
    let hosts = remote.as_ref().is_none_or(is_peer);
    if let Some(mode) = rule.mode.or((!rule.flow).then_some("tunnel")) {
        draft.mode(rule.line, mode);
    }
    if hosts {
        local.into_iter().chain(remote).for_each(|net| draft.protect(net));
        return;
    }
    let shown = |net: Option<IpNet>| net.map_or("any".to_owned(), |net| net.to_string());
    let text = format!(
        "{} behind the gateway {} has no counterpart: Warren protects what hosts send each other, so run it on the \
         hosts of both networks and list the networks, or keep this tunnel beside it; only the traffic with the \
         gateway itself is taken over",
        shown(remote),
        rule.peers.join(", ")
    );
    draft.note(rule.line, text);
    let peers: Vec<IpNet> = rule.peers.iter().filter_map(|peer| net(peer).ok().flatten()).collect();
    peers.into_iter().for_each(|net| draft.protect(net));
}

fn remember(rule: &Rule, peer: &str, draft: &mut Draft) {
    if rule.flow {
        return;
    }
    let Ok(address) = peer.parse::<IpAddr>() else {
        if net(peer).is_err() {
            draft.note(
                rule.line,
                format!("the peer `{peer}` is no address: names are not looked up"),
            );
        }
        return settings(rule, draft);
    };
    for unknown in rule.main.unknown.iter().chain(&rule.quick.unknown) {
        let text = format!(
            "`{unknown}` is not done here, for good reasons; this peer gets the default proposals"
        );
        draft.note(rule.line, text);
    }
    let entry = draft.peers.entry(address).or_default();
    entry.eager |= !rule.passive;
    Draft::suite(&mut entry.ike, rule.main.ike());
    Draft::suite(&mut entry.esp, rule.quick.esp());
    entry.psk = entry.psk.take().or(rule.psk.clone());
    entry.id = entry.id.take().or(rule.dstid.clone().filter(|id| !id.contains('/')));
    if rule.passive {
        let text =
            "`passive` has no counterpart: either side may begin; `start: trap` waits for a packet";
        draft.note(rule.line, text);
    }
    lifetimes(rule, draft);
    draft.remark("isakmpd speaks IKEv1 and Warren IKEv2: both ends of a tunnel move at once, or the other one to iked(8)");
}

/// Of a rule for any peer: it is for all.
fn settings(rule: &Rule, draft: &mut Draft) {
    Draft::suite(&mut draft.ike, rule.main.ike());
    Draft::suite(&mut draft.esp, rule.quick.esp());
    if let Some(psk) = &rule.psk {
        draft.psk = draft.psk.take().or(Some(psk.clone()));
    }
    lifetimes(rule, draft);
}

fn lifetimes(rule: &Rule, draft: &mut Draft) {
    for (name, value) in
        [("ike_lifetime", &rule.main_lifetime), ("child_lifetime", &rule.quick_lifetime)]
    {
        let Some(value) = value else { continue };
        // A number of seconds, or one with `m`, `h` or `d` behind it.
        let seconds = value.parse::<u64>().map(|n| format!("{n}s"));
        draft.set(rule.line, name, seconds.unwrap_or_else(|_| value.clone()));
    }
}
