//! strongSwan's `swanctl.conf` (swanctl.conf(5), strongswan.conf(5) for its form).

use std::net::IpAddr;

use ike::suite::review;
use ipnet::IpNet;
use wire::suite_text::{parse_esp, parse_ike};

use super::draft::{Draft, Exception, Peer};

/// Sections in sections, at most.
const DEEPEST: usize = 16;

/// A section: its values and its sections, in order.
#[derive(Default, Debug)]
struct Section {
    name: String,
    line: usize,
    values: Vec<(String, String, usize)>,
    sections: Vec<Section>,
}

impl Section {
    fn value(&self, key: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, ..)| name == key).map(|(_, value, _)| value.as_str())
    }

    fn list(&self, key: &str) -> Vec<String> {
        let items = self.value(key).unwrap_or_default().split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    fn line_of(&self, key: &str) -> usize {
        self.values.iter().find(|(name, ..)| name == key).map_or(self.line, |(.., line)| *line)
    }
}

/// Reads a file.
pub(super) fn read(text: &str, draft: &mut Draft) {
    let whole = parse(text, draft);
    let of = |name: &'static str| whole.sections.iter().filter(move |section| section.name == name);
    for connection in of("connections").flat_map(|section| &section.sections) {
        self::connection(connection, draft);
    }
    for secret in of("secrets").flat_map(|section| &section.sections) {
        self::secret(secret, draft);
    }
    for section in of("pools").flat_map(|section| &section.sections) {
        draft.note(section.line, "pools of virtual addresses have no counterpart: Warren is for fleets, not for remote access");
    }
    for section in of("authorities").flat_map(|section| &section.sections) {
        if let Some(file) = section.value("cacert") {
            draft.note(section.line, format!("give the CA with --ca; here it is `{file}`"));
        }
    }
}

/// Sections in braces, `key = value` a line, comments, includes.
fn parse(text: &str, draft: &mut Draft) -> Section {
    let mut stack = vec![Section::default()];
    let mut skipped = 0;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let mut rest = uncommented(line).trim();
        while !rest.is_empty() {
            rest = piece(rest, number, &mut stack, &mut skipped, draft).trim_start();
        }
    }
    while stack.len() > 1 {
        close(&mut stack);
    }
    stack.pop().unwrap_or_default()
}

/// One section's begin or end, or one value; what follows it on the line.
///
/// `skipped` counts sections that are open and too deep.
fn piece<'a>(
    text: &'a str,
    line: usize,
    stack: &mut Vec<Section>,
    skipped: &mut usize,
    draft: &mut Draft,
) -> &'a str {
    if let Some(rest) = text.strip_prefix('}') {
        if *skipped > 0 {
            *skipped -= 1;
        } else if stack.len() > 1 {
            close(stack);
        }
        return rest;
    }
    if let Some(path) = text.strip_prefix("include ") {
        draft.includes.push((line, path.trim().to_owned()));
        return "";
    }
    let brace = text.find('{');
    let equals = text.find('=');
    if let Some(at) = brace.filter(|at| equals.is_none_or(|equals| *at < equals)) {
        if *skipped == 0 && stack.len() < DEEPEST {
            let name = text[..at].trim().to_owned();
            stack.push(Section { name, line, ..Section::default() });
        } else {
            *skipped += 1;
            draft.note(line, format!("sections in more than {DEEPEST} others are not read"));
        }
        return &text[at + 1..];
    }
    let Some(equals) = equals else { return "" };
    let (key, value) = (text[..equals].trim(), text[equals + 1..].trim());
    // A value ends with its line, or where its section does; one in quotes ends with them.
    let (value, rest) = match value.strip_prefix('"') {
        Some(inner) => inner.split_once('"').unwrap_or((inner, "")),
        None => value.split_at(value.find('}').unwrap_or(value.len())),
    };
    if let Some(section) = stack.last_mut().filter(|_| *skipped == 0) {
        section.values.push((key.to_owned(), value.trim().to_owned(), line));
    }
    rest
}

fn close(stack: &mut Vec<Section>) {
    if let Some(section) = stack.pop()
        && let Some(outer) = stack.last_mut()
    {
        outer.sections.push(section);
    }
}

/// Up to a `#` that stands in no quotes.
fn uncommented(line: &str) -> &str {
    let mut quoted = false;
    let end = line.find(|c: char| {
        quoted ^= c == '"';
        c == '#' && !quoted
    });
    &line[..end.unwrap_or(line.len())]
}

fn connection(connection: &Section, draft: &mut Draft) {
    if connection.value("version") == Some("1") {
        draft.note(
            connection.line_of("version"),
            "IKEv1 has no counterpart here: both ends move to IKEv2",
        );
    }
    let remotes: Vec<IpAddr> =
        connection.list("remote_addrs").iter().filter_map(|a| a.parse().ok()).collect();
    let ike = suites(
        connection,
        "proposals",
        |text| parse_ike(text).is_ok_and(|one| review(&one).usable),
        draft,
    );
    for (key, property) in [("dpd_delay", "dpddelay"), ("rekey_time", "ike_lifetime")] {
        if let Some(value) = connection.value(key).filter(|value| *value != "0" && *value != "0s") {
            draft.set(connection.line_of(key), property, time(value));
        }
    }
    if connection.value("encap") == Some("yes") {
        draft.set(connection.line_of("encap"), "force_udp_encapsulation", "true");
    }
    for key in ["mobike", "vips", "pools", "unique", "if_id_in", "if_id_out", "mediation", "ppk_id"]
    {
        if connection.value(key).is_some() {
            draft.note(connection.line_of(key), format!("`{key}` has no counterpart"));
        }
    }
    let mut id = None;
    for section in &connection.sections {
        match section.name.as_str() {
            name if name.starts_with("local") => local(section, draft),
            name if name.starts_with("remote") => {
                id = section.value("id").filter(|id| *id != "%any").map(str::to_owned);
                if let Some(auth) = section.value("auth").filter(|auth| auth.starts_with("eap")) {
                    draft.note(
                        section.line,
                        format!("`auth = {auth}` has no counterpart: certificates, or a PSK"),
                    );
                }
            }
            _ => {}
        }
    }
    let (mut esp, mut eager) = (Vec::new(), false);
    for children in connection.sections.iter().filter(|section| section.name == "children") {
        for one in &children.sections {
            for suite in child(one, &remotes, draft) {
                Draft::suite(&mut esp, Some(suite));
            }
            eager |= one.value("start_action").is_some_and(|action| action.contains("start"));
        }
    }
    if remotes.is_empty() {
        ike.iter().cloned().for_each(|suite| Draft::suite(&mut draft.ike, Some(suite)));
        esp.iter().cloned().for_each(|suite| Draft::suite(&mut draft.esp, Some(suite)));
    }
    let one = remotes.len() == 1;
    for address in remotes {
        let name = one.then(|| connection.name.clone());
        let peer =
            Peer { name, id: id.clone(), psk: None, ike: ike.clone(), esp: esp.clone(), eager };
        let entry = draft.peers.entry(address).or_default();
        *entry = Peer { psk: entry.psk.take(), ..peer };
    }
}

fn local(section: &Section, draft: &mut Draft) {
    if let Some(files) = section.value("certs") {
        let text = format!(
            "give the certificate and its key with --certificate and --key; here it is `{files}`"
        );
        draft.note(section.line_of("certs"), text);
    }
    if let Some(id) = section.value("id") {
        let text = format!(
            "`id = {id}` of this host has no counterpart: it is known by its certificate, or by its address"
        );
        draft.note(section.line_of("id"), text);
    }
}

fn child(child: &Section, remotes: &[IpAddr], draft: &mut Draft) -> Vec<String> {
    let mode = child.value("mode").unwrap_or("tunnel");
    let line = child.line;
    for (key, text) in [
        ("ipcomp", "`compression: deflate` does the same for all peers, if it pays"),
        (
            "updown",
            "scripts have no counterpart; `warren monitor --json` tells programs what happens",
        ),
        ("if_id_in", "XFRM interfaces have no counterpart"),
        ("mark_in", "marks have no counterpart"),
    ] {
        if child.value(key).is_some_and(|value| value != "no" && value != "0") {
            draft.note(child.line_of(key), text);
        }
    }
    for (key, property) in [
        ("rekey_time", "child_lifetime"),
        ("rekey_bytes", "child_bytes"),
        ("rekey_packets", "child_packets"),
    ] {
        if let Some(value) = child.value(key).filter(|value| !["0", "0s"].contains(value)) {
            let value = if key == "rekey_time" { time(value) } else { value.to_owned() };
            draft.set(child.line_of(key), property, value);
        }
    }
    if let Some(action @ ("clear" | "trap" | "restart")) = child.value("dpd_action") {
        draft.set(child.line_of("dpd_action"), "dpdaction", action);
    }
    match mode {
        "transport" | "tunnel" => {
            draft.mode(line, if mode == "tunnel" { "tunnel" } else { "transport" });
            protect(child, remotes, draft);
        }
        "pass" | "drop" => {
            let action = if mode == "pass" { "pass" } else { "drop" };
            for remote in child.list("remote_ts") {
                for local in Some(child.list("local_ts"))
                    .filter(|l| !l.is_empty())
                    .unwrap_or(vec![String::new()])
                {
                    except(action, line, &local, &remote, &child.name, draft);
                }
            }
        }
        other => draft.note(child.line_of("mode"), format!("`mode = {other}` has no counterpart")),
    }
    suites(
        child,
        "esp_proposals",
        |text| parse_esp(text).is_ok_and(|one| review(&one).usable),
        draft,
    )
}

fn protect(child: &Section, remotes: &[IpAddr], draft: &mut Draft) {
    for local in child.list("local_ts") {
        match selector(&local) {
            Some(Selector { net: Some(net), .. }) => draft.protect(net),
            Some(_) => {}
            None => draft.note(child.line_of("local_ts"), format!("`{local}` is not understood")),
        }
    }
    let wanted = child.list("remote_ts");
    if wanted.is_empty() || wanted.iter().any(|ts| ts == "dynamic") {
        remotes.iter().for_each(|address| draft.protect(IpNet::from(*address)));
    }
    for remote in wanted.iter().filter(|ts| *ts != "dynamic") {
        match selector(remote) {
            Some(Selector { net: Some(net), proto: None, .. }) => {
                let host = remotes.iter().any(|address| net == IpNet::from(*address));
                if !host && !remotes.is_empty() {
                    let text = format!(
                        "{net} behind the gateway `{}` has no counterpart: run Warren on its hosts; the network is listed as if they did",
                        child.name
                    );
                    draft.note(child.line_of("remote_ts"), text);
                }
                draft.protect(net);
            }
            Some(Selector { net: None, proto: None, .. }) => {
                draft.note(
                    child.line_of("remote_ts"),
                    "`0.0.0.0/0` is no list of subnets: name those of the fleet in ipsec_subnets",
                );
            }
            Some(_) => except("protect", child.line, "", remote, &child.name, draft),
            None => draft.note(child.line_of("remote_ts"), format!("`{remote}` is not understood")),
        }
    }
}

fn except(
    action: &'static str,
    line: usize,
    local: &str,
    remote: &str,
    name: &str,
    draft: &mut Draft,
) {
    let any = || Selector { net: None, proto: None, port: None };
    let local = if local.is_empty() { Some(any()) } else { selector(local) };
    let (Some(local), Some(remote)) = (local, selector(remote)) else {
        return draft.note(line, "its selectors are not understood");
    };
    let exception = Exception {
        action,
        proto: remote.proto.or(local.proto),
        local_port: local.port,
        remote_port: remote.port,
        remote: remote.net,
        direction: "both",
        name: Some(name.to_owned()),
        priority: 0,
    };
    draft.except(line, local.net, exception);
}

struct Selector {
    net: Option<IpNet>,
    proto: Option<String>,
    port: Option<String>,
}

/// `10.0.0.0/8[tcp/22]`; `dynamic` and everything are no network.
fn selector(text: &str) -> Option<Selector> {
    let (address, inner) = match text.split_once('[') {
        Some((address, inner)) => (address.trim(), Some(inner.trim_end_matches(']'))),
        None => (text, None),
    };
    let net = match address {
        "" | "dynamic" => None,
        _ => {
            let host = || address.parse::<IpAddr>().ok().map(IpNet::from);
            address
                .parse::<IpNet>()
                .ok()
                .or_else(host)
                .filter(|net| net.prefix_len() > 0)
                .map(Some)
                .or_else(|| ["0.0.0.0/0", "::/0"].contains(&address).then_some(None))?
        }
    };
    let (proto, port) = match inner.map(|inner| inner.split_once('/').unwrap_or((inner, ""))) {
        Some((proto, port)) => (Some(proto.to_owned()), Some(port.to_owned())),
        None => (None, None),
    };
    let port = port.filter(|port| !["", "any", "opaque"].contains(&port.as_str()));
    Some(Selector { net, proto: proto.filter(|proto| proto != "any"), port })
}

fn suites(
    section: &Section,
    key: &str,
    good: impl Fn(&str) -> bool,
    draft: &mut Draft,
) -> Vec<String> {
    let (known, unknown): (Vec<_>, Vec<_>) = section
        .list(key)
        .into_iter()
        .filter(|suite| suite != "default")
        .partition(|suite| good(suite));
    for suite in unknown {
        draft.note(
            section.line_of(key),
            format!("the proposal `{suite}` is not done here and is left out"),
        );
    }
    known
}

/// `4h`, `3600s`, `3600`: without a unit these are seconds.
fn time(value: &str) -> String {
    if value.parse::<u64>().is_ok() { format!("{value}s") } else { value.to_owned() }
}

fn secret(section: &Section, draft: &mut Draft) {
    let Some(secret) = section.value("secret").filter(|_| section.name.starts_with("ike")) else {
        return draft
            .note(section.line, format!("the secret `{}` is not taken over", section.name));
    };
    if secret.starts_with("0s") || secret.starts_with("0x") {
        let text = "a secret in Base64 or hexadecimal is not taken over: decode it into a file, and name that with `--psk file:PATH`";
        return draft.note(section.line, text);
    }
    let ids: Vec<&str> = section
        .values
        .iter()
        .filter(|(key, ..)| key.starts_with("id"))
        .map(|(_, value, _)| value.as_str())
        .collect();
    let owners: Vec<IpAddr> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    let peers: Vec<IpAddr> =
        owners.into_iter().filter(|owner| draft.peers.contains_key(owner)).collect();
    match (peers.as_slice(), ids.is_empty()) {
        ([], true) => draft.psk = draft.psk.take().or(Some(secret.to_owned())),
        ([], false) => draft.note(
            section.line,
            "the secret of names that are no peers' addresses is not taken over",
        ),
        (peers, _) => {
            for peer in peers {
                draft.peers.entry(*peer).or_default().psk = Some(secret.to_owned());
            }
        }
    }
}
