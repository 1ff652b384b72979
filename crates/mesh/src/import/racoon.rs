//! `racoon.conf`, and the `psk.txt` beside it.

use std::net::IpAddr;

use super::algorithms::Parts;
use super::draft::Draft;
use super::words::{Word, split};

/// Lines `ADDRESS KEY`.
pub(super) fn read_keys(text: &str, draft: &mut Draft) {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let Some((who, key)) = line.split_once(char::is_whitespace) else { continue };
        if line.starts_with('#') {
            continue;
        }
        let key = key.trim().to_owned();
        match who.parse::<IpAddr>() {
            Ok(address) => draft.peers.entry(address).or_default().psk = Some(key),
            Err(_) if who == "*" => draft.psk = Some(key),
            Err(_) => {
                draft.note(number + 1, "the key of a name, not of an address, is not taken over")
            }
        }
    }
    // One key for all is one of the fleet.
    let mut keys: Vec<_> = draft.peers.values().filter_map(|peer| peer.psk.clone()).collect();
    keys.dedup();
    if let ([one], true) = (keys.as_slice(), draft.peers.len() > 1 && draft.psk.is_none()) {
        draft.psk = Some(one.clone());
        draft.peers.values_mut().for_each(|peer| peer.psk = None);
    }
}

/// Reads a file.
pub(super) fn read(text: &str, draft: &mut Draft) {
    let words = split(text, &['{', '}', ';', ',']);
    let mut rest = words.as_slice();
    while let [first, ..] = rest {
        let (statement, after) = statement(rest);
        rest = after;
        match first.text.as_str() {
            "path" => path(statement.head, draft),
            "remote" => remote(&statement, draft),
            "sainfo" => sainfo(&statement, draft),
            "include" => draft
                .includes
                .extend(statement.head.get(1).map(|word| (word.line, word.text.clone()))),
            "log" | "listen" | "timer" | "padding" | "privsep" | "gss_id_enc" | ";" | "}" => {}
            other => draft.note(first.line, format!("`{other}` has no counterpart")),
        }
    }
    draft.remark("racoon speaks IKEv1 and Warren IKEv2: both ends move at once; `optional: true` is the way there without loss");
}

/// Words up to `;`, or up to `{` and then what stands in the braces.
struct Statement<'a> {
    head: &'a [Word],
    body: &'a [Word],
}

fn statement(words: &[Word]) -> (Statement<'_>, &[Word]) {
    let end = words.iter().position(|word| word.is(";") || word.is("{") || word.is("}"));
    let end = end.unwrap_or(words.len());
    let head = &words[..end];
    match words.get(end) {
        Some(mark) if mark.is("{") => {
            let mut depth = 0usize;
            let close = words[end..].iter().position(|word| {
                depth += usize::from(word.is("{"));
                depth -= usize::from(word.is("}"));
                depth == 0
            });
            let close = close.map_or(words.len(), |at| end + at);
            let body = &words[end + 1..close.max(end + 1)];
            (Statement { head, body }, words.get(close + 1..).unwrap_or_default())
        }
        _ => (Statement { head, body: &[] }, words.get(end + 1..).unwrap_or_default()),
    }
}

fn statements(mut body: &[Word]) -> Vec<Statement<'_>> {
    let mut all = Vec::new();
    while !body.is_empty() {
        let (one, rest) = statement(body);
        all.push(one);
        body = rest;
    }
    all.retain(|one| !one.head.is_empty());
    all
}

fn path(head: &[Word], draft: &mut Draft) {
    if let [_, what, path] = head {
        match what.text.as_str() {
            "pre_shared_key" => {
                let text = format!("give `{}` as one more file: it has the keys", path.text);
                draft.note(what.line, text);
            }
            "include" => {}
            _ => {}
        }
    }
}

fn remote(statement: &Statement<'_>, draft: &mut Draft) {
    let line = statement.head.first().map_or(0, |word| word.line);
    let who = statement.head.get(1).map(|word| word.text.as_str()).unwrap_or_default();
    let address = who.parse::<IpAddr>().ok();
    if address.is_none() && who != "anonymous" {
        draft.note(line, format!("the peer `{who}` is not taken over: names are not looked up"));
        return;
    }
    let mut suites = Vec::new();
    for one in statements(statement.body) {
        let [first, rest @ ..] = one.head else { continue };
        let value = rest.first().map(|word| word.text.as_str()).unwrap_or_default();
        match first.text.as_str() {
            "proposal" => Draft::suite(&mut suites, proposal(&one, draft)),
            "exchange_mode" if rest.iter().any(|word| word.text == "aggressive") => {
                draft.note(
                    first.line,
                    "aggressive mode has no counterpart, and shows the hash of the key to anybody",
                );
            }
            "lifetime" => lifetime("ike_lifetime", rest, draft),
            "dpd_delay" if value == "0" => {
                draft.note(
                    first.line,
                    "no liveness checks: here they are made, and cost next to nothing",
                );
            }
            "dpd_delay" => draft.set(first.line, "dpddelay", value),
            "nat_traversal" if value == "force" => {
                draft.set(first.line, "force_udp_encapsulation", "true")
            }
            "certificate_type" | "ca_type" | "peers_certfile" => {
                let files: Vec<_> = rest.iter().skip(1).map(|word| word.text.as_str()).collect();
                let text = format!(
                    "certificates are given with --certificate, --key and --ca; here they are {}",
                    files.join(", ")
                );
                draft.note(first.line, text);
            }
            "peers_identifier" => {
                let id = rest.get(1).map(|word| word.text.clone());
                if let (Some(address), Some(id)) = (address, id) {
                    draft.peers.entry(address).or_default().id = Some(id);
                }
            }
            "passive" if value == "on" => {
                draft.note(first.line, "`passive` has no counterpart: either side may begin");
            }
            "generate_policy" if value != "off" => {
                draft.note(
                    first.line,
                    "`generate_policy` has no counterpart: policies follow from the manifest alone",
                );
            }
            "mode_cfg" | "xauth_login" => {
                draft.note(
                    first.line,
                    format!(
                        "`{}` has no counterpart: Warren is for fleets, not for remote access",
                        first.text
                    ),
                );
            }
            _ => {}
        }
    }
    match address {
        None => suites.into_iter().for_each(|suite| Draft::suite(&mut draft.ike, Some(suite))),
        Some(address) => draft.peers.entry(address).or_default().ike = suites,
    }
}

fn proposal(statement: &Statement<'_>, draft: &mut Draft) -> Option<String> {
    let mut parts = Parts::default();
    let line = statement.head.first().map_or(0, |word| word.line);
    for one in statements(statement.body) {
        let [first, value, rest @ ..] = one.head else { continue };
        let bits = rest.first().map(|word| word.text.as_str());
        match first.text.as_str() {
            "encryption_algorithm" => parts.encryption(&value.text, bits),
            "hash_algorithm" => parts.integrity(&value.text),
            "dh_group" => parts.group(&value.text),
            "lifetime" => lifetime("ike_lifetime", &one.head[1..], draft),
            "authentication_method"
                if value.text.contains("xauth") || value.text.contains("hybrid") =>
            {
                draft.note(first.line, format!("`{}` has no counterpart", value.text));
            }
            _ => {}
        }
    }
    unknown(line, &parts, draft);
    parts.ike()
}

fn sainfo(statement: &Statement<'_>, draft: &mut Draft) {
    let line = statement.head.first().map_or(0, |word| word.line);
    if statement.head.get(1).is_none_or(|word| word.text != "anonymous") {
        let text = "a `sainfo` for some addresses only: a manifest has one list of suites for all, to which this is added";
        draft.note(line, text);
    }
    let (mut ciphers, mut macs, mut group) = (Vec::new(), Vec::new(), None);
    for one in statements(statement.body) {
        let [first, rest @ ..] = one.head else { continue };
        match first.text.as_str() {
            "encryption_algorithm" => ciphers = listed(rest),
            "authentication_algorithm" => macs = listed(rest),
            "pfs_group" => group = rest.first().map(|word| word.text.clone()),
            "lifetime" => lifetime("child_lifetime", rest, draft),
            // It must be written there, used or not.
            "compression_algorithm" => {}
            _ => {}
        }
    }
    for cipher in &ciphers {
        for mac in macs.iter().map(Some).chain(macs.is_empty().then_some(None)) {
            let mut parts = Parts::default();
            let (name, bits) =
                cipher.split_once(' ').map_or((cipher.as_str(), None), |(n, b)| (n, Some(b)));
            parts.encryption(name, bits);
            mac.into_iter().for_each(|mac| parts.integrity(&mac[..]));
            group.iter().for_each(|group| parts.group(group));
            unknown(line, &parts, draft);
            Draft::suite(&mut draft.esp, parts.esp());
        }
    }
}

/// `aes 256, 3des`: between commas.
fn listed(words: &[Word]) -> Vec<String> {
    let items = words.split(|word| word.is(","));
    items
        .map(|item| item.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "))
        .collect()
}

fn unknown(line: usize, parts: &Parts, draft: &mut Draft) {
    for name in &parts.unknown {
        draft.note(
            line,
            format!("`{name}` is not done here, for good reasons; its suite is left out"),
        );
    }
}

/// `time 24 hours`.
fn lifetime(name: &'static str, words: &[Word], draft: &mut Draft) {
    let [what, number, unit, ..] = words else { return };
    if what.text != "time" {
        return draft.note(what.line, format!("`lifetime {}` is not taken over", what.text));
    }
    let unit = match unit.text.trim_end_matches('s') {
        "sec" | "second" => "s",
        "min" | "minute" => "m",
        "hour" => "h",
        other => return draft.note(what.line, format!("the unit `{other}` is not understood")),
    };
    draft.set(what.line, name, format!("{}{unit}", number.text));
}
