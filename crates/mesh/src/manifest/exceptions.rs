//! `policies`: the exceptions before the subnets.

use super::read::{Property, Reader, short};
use super::source::Span;
use super::yaml::Node;
use super::{Exception, ExceptionAction, ExceptionDirection, subnets};

/// More than anyone can follow; each is looked at for every packet.
const MOST: usize = 1_000;
const KEYS: [&str; 8] =
    ["action", "proto", "local_port", "remote_port", "port", "remote", "direction", "name"];
const PROTOCOLS: [(&str, u8); 16] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
    ("udplite", 136),
];
/// Protocols whose headers begin with two ports.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

pub(crate) fn exceptions(reader: &mut Reader<'_>, p: Option<Property<'_>>) -> Vec<Exception> {
    let Some(p) = p else { return Vec::new() };
    let Some(items) = reader.list(p, "{action: pass, proto: tcp, port: 22}") else {
        return Vec::new();
    };
    if items.len() > MOST {
        reader.error(
            p.node.span,
            format!("`policies` has {} items", items.len()),
            format!("at most {MOST} are possible"),
        );
        return Vec::new();
    }
    let mut list: Vec<Exception> = Vec::new();
    for item in items {
        let Some(new) = exception(reader, item) else { continue };
        if let Some(first) = list.iter().find(|old| covers(old, &new)) {
            let message = "this policy is never reached: an earlier one takes all its packets";
            let remedy = format!(
                "the first match wins; move it above line {} or remove it",
                first.span.line
            );
            reader.found.note(new.span, message, remedy);
        }
        list.push(new);
    }
    list
}

/// The name of a protocol number, if it has one here.
pub(crate) fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

fn exception(reader: &mut Reader<'_>, node: &Node) -> Option<Exception> {
    let Some(entries) = node.map() else {
        let p = Property { name: "policies", node };
        reader.expected(p, "a list of maps", "- {action: pass, proto: tcp, port: 22}");
        return None;
    };
    let errors = reader.found.len();
    reader.check_keys(entries, &KEYS, "a policy");
    let get = |name| {
        let entry = node.get(name)?;
        (!entry.value.is_null()).then_some(Property { name, node: &entry.value })
    };
    let action = match get("action") {
        Some(p) => action(reader, p),
        None => {
            reader.error(
                node.span,
                "this policy has no `action`",
                "add `action: pass`, `protect` or `drop`",
            );
            None
        }
    };
    let protocol = get("proto").map(|p| protocol(reader, p));
    let mut port = |name| get(name).and_then(|p| ports(reader, p));
    let (local_port, remote_port, either) = (port("local_port"), port("remote_port"), port("port"));
    let remote = get("remote").and_then(|p| subnets::net(reader, p));
    let direction = get("direction").and_then(|p| direction(reader, p)).unwrap_or_default();
    let name = get("name").and_then(|p| reader.text(p, "ssh")).map(str::to_owned);
    let new = Exception {
        action: action?,
        protocol: protocol.flatten().flatten(),
        local_port,
        remote_port,
        port: either,
        remote,
        direction,
        name,
        span: node.span,
    };
    together(reader, &new, protocol == Some(None));
    if reader.found.len() == errors && passes_everything(&new) {
        let remedy = "add `proto`, a port or `remote`, unless nothing below it is to be protected";
        reader.found.note(new.span, "this policy lets everything pass in the clear", remedy);
    }
    (reader.found.len() == errors || !reader.found.has_errors()).then_some(new)
}

fn together(reader: &mut Reader<'_>, new: &Exception, protocol_is_wrong: bool) {
    let ports = new.local_port.is_some() || new.remote_port.is_some() || new.port.is_some();
    if ports
        && !protocol_is_wrong
        && !new.protocol.is_some_and(|number| WITH_PORTS.contains(&number))
    {
        let message = "ports are given for a protocol without ports";
        reader.error(new.span, message, "add `proto: tcp` or `proto: udp`, or remove the ports");
    }
    if new.port.is_some() && (new.local_port.is_some() || new.remote_port.is_some()) {
        let remedy = "`port` means either side; keep it, or `local_port` and `remote_port`";
        reader.error(new.span, "`port` stands beside `local_port` or `remote_port`", remedy);
    }
    if new.action == ExceptionAction::Protect && new.remote.is_none() {
        let remedy = "add `remote: NETWORK`: packets to everybody cannot be protected";
        reader.error(new.span, "a policy that protects must say towards whom", remedy);
    }
}

fn passes_everything(new: &Exception) -> bool {
    let ports = new.local_port.is_some() || new.remote_port.is_some() || new.port.is_some();
    new.action == ExceptionAction::Pass && new.protocol.is_none() && !ports && new.remote.is_none()
}

fn action(reader: &mut Reader<'_>, p: Property<'_>) -> Option<ExceptionAction> {
    let words = [
        ("pass", ExceptionAction::Pass),
        ("protect", ExceptionAction::Protect),
        ("drop", ExceptionAction::Drop),
    ];
    let synonyms = [
        ("bypass", "pass"),
        ("allow", "pass"),
        ("accept", "pass"),
        ("clear", "pass"),
        ("none", "pass"),
        ("ipsec", "protect"),
        ("encrypt", "protect"),
        ("require", "protect"),
        ("block", "drop"),
        ("deny", "drop"),
        ("reject", "drop"),
        ("discard", "drop"),
    ];
    reader.choice(p, &words, &synonyms)
}

fn direction(reader: &mut Reader<'_>, p: Property<'_>) -> Option<ExceptionDirection> {
    let words = [
        ("in", ExceptionDirection::In),
        ("out", ExceptionDirection::Out),
        ("both", ExceptionDirection::Both),
    ];
    reader.choice(p, &words, &[("inbound", "in"), ("outbound", "out"), ("any", "both")])
}

/// The outer `None` is an error, the inner one is any protocol.
fn protocol(reader: &mut Reader<'_>, p: Property<'_>) -> Option<Option<u8>> {
    if let Some(number) = p.node.text().and_then(|text| text.trim().parse::<u8>().ok()) {
        return Some(Some(number).filter(|number| *number != 0));
    }
    let mut words = vec![("any", None)];
    words.extend(PROTOCOLS.iter().map(|(name, number)| (*name, Some(*number))));
    reader.choice(
        p,
        &words,
        &[("all", "any"), ("ipv6-icmp", "icmpv6"), ("icmp6", "icmpv6"), ("ipencap", "ipip")],
    )
}

/// `22` or `8000-8100`.
fn ports(reader: &mut Reader<'_>, p: Property<'_>) -> Option<(u16, u16)> {
    let text = reader.text(p, "22")?.trim();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Some((first, last)),
        _ => {
            let message = format!("`{}` is not a port: `{}`", p.name, short(text));
            reader.error(
                p.node.span,
                message,
                "write a number from 0 to 65535, or a range as in `8000-8100`",
            );
            None
        }
    }
}

/// Whether `old` takes every packet of `new`.
fn covers(old: &Exception, new: &Exception) -> bool {
    let wide = |old: Option<(u16, u16)>, new: Option<(u16, u16)>| match (old, new) {
        (None, _) => true,
        (Some(old), Some(new)) => old.0 <= new.0 && new.1 <= old.1,
        (Some(_), None) => false,
    };
    (old.protocol.is_none() || old.protocol == new.protocol)
        && wide(old.local_port, new.local_port)
        && wide(old.remote_port, new.remote_port)
        && wide(old.port, new.port)
        && match (old.remote, new.remote) {
            (None, _) => true,
            (Some(old), Some(new)) => old.contains(&new),
            (Some(_), None) => false,
        }
        && (old.direction == ExceptionDirection::Both || old.direction == new.direction)
}

/// Where an exception is spoken of without its file at hand.
impl Exception {
    /// What people call it: its name, or the line it stands in.
    pub fn label(&self) -> String {
        let Span { line, .. } = self.span;
        self.name.clone().unwrap_or_else(|| format!("policy in line {line}"))
    }
}
