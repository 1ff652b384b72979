//! `peers`: hosts that need something of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ike::config::Childless;
use wire::identity::Identity;

use super::places::{Place, Places};
use super::read::{Property, Reader, short};
use super::yaml::Node;
use super::{Peer, credentials, properties, suites};

const KEYS: [&str; 14] = [
    "address",
    "name",
    "id",
    "psk",
    "ike_version",
    "ike_proposals",
    "esp_proposals",
    "start",
    "ppk",
    "ppk_id",
    "ppk_required",
    "childless",
    "redirect",
    "unauthenticated",
];

pub(crate) fn peers(
    reader: &mut Reader<'_>,
    p: Option<Property<'_>>,
    places: &Places,
) -> Vec<Peer> {
    let Some(p) = p else { return Vec::new() };
    let Some(items) = reader.list(p, "{address: 10.0.0.7, name: db}") else { return Vec::new() };
    let mut list: Vec<Peer> = Vec::new();
    let (mut addresses, mut names) = (BTreeMap::new(), BTreeMap::new());
    for item in items {
        let Some(peer) = peer(reader, item) else { continue };
        if let Some(line) = addresses.insert(peer.address, peer.span.line) {
            let message = format!("a second peer with the address {}", peer.address);
            reader.error(
                peer.span,
                message,
                format!("put all of it into one item; the first is in line {line}"),
            );
        }
        if let Some(name) = &peer.name
            && let Some(line) = names.insert(name.clone(), peer.span.line)
        {
            let message = format!("a second peer of the name `{}`", short(name));
            reader.error(
                peer.span,
                message,
                format!("take another name; the first is in line {line}"),
            );
        }
        if !matches!(places.of(peer.address), Place::Protected(_)) {
            let message = format!("the peer {} lies in none of `ipsec_subnets`", peer.address);
            let remedy =
                "add its address to `ipsec_subnets` if the traffic with it is to be protected";
            reader.found.note(peer.span, message, remedy);
        }
        list.push(peer);
    }
    list
}

fn peer(reader: &mut Reader<'_>, node: &Node) -> Option<Peer> {
    let Some(entries) = node.map() else {
        let p = Property { name: "peers", node };
        reader.expected(p, "a list of maps", "- {address: 10.0.0.7, name: db}");
        return None;
    };
    reader.check_keys(entries, &KEYS, "a peer");
    let get = |name| {
        let entry = node.get(name)?;
        (!entry.value.is_null()).then_some(Property { name, node: &entry.value })
    };
    let address = match get("address") {
        Some(p) => address(reader, p),
        None => {
            reader.error(node.span, "this peer has no `address`", "add `address: IP`");
            None
        }
    };
    let secret = get("psk").filter(|_| !reader.options.ignore_credentials);
    let peer = Peer {
        address: address.unwrap_or(IpAddr::from([0, 0, 0, 0])),
        name: get("name").and_then(|p| reader.text(p, "db")).map(Arc::from),
        id: get("id").and_then(|p| identity(reader, p)).map(Arc::new),
        psk: secret.and_then(|p| credentials::psk(reader, p)),
        ike_version: get("ike_version").and_then(|p| properties::ike_version(reader, p)),
        ike_proposals: get("ike_proposals").map(|p| suites::ike(reader, Some(p))),
        esp_proposals: get("esp_proposals").map(|p| suites::esp(reader, Some(p))),
        start: get("start").and_then(|p| properties::start(reader, p)),
        ppk: credentials::ppk(reader, get).map(Arc::new),
        childless: get("childless").and_then(|p| childless(reader, p)).unwrap_or_default(),
        redirect: get("redirect").is_some_and(|p| redirect(reader, p, get)),
        unauthenticated: get("unauthenticated").is_some_and(|p| unauthenticated(reader, p, get)),
        span: node.span,
    };
    address.is_some().then_some(peer)
}

fn childless(reader: &mut Reader<'_>, p: Property<'_>) -> Option<Childless> {
    let words =
        [("allow", Childless::Allow), ("prefer", Childless::Prefer), ("force", Childless::Force)];
    reader.choice(p, &words, &[("never", "allow"), ("always", "force")])
}

/// Whether it may send its tunnel to another gateway (RFC 5685). That one must be who the manifest says: hosts of a fleet
/// often have one certificate, and any of them could be it otherwise.
fn redirect<'a>(
    reader: &mut Reader<'_>,
    p: Property<'a>,
    get: impl Fn(&'static str) -> Option<Property<'a>>,
) -> bool {
    let wanted = reader.truth(p) == Some(true);
    if wanted && get("id").is_none() {
        let message = "this peer may redirect, and it is not said who it is";
        let remedy = "add `id`: whoever it redirects to must prove to be that, and nobody else is";
        reader.error(p.node.span, message, remedy);
    }
    wanted
}

/// Whether nobody proves anything (RFC 7619). Whoever asks for that hears what it means.
fn unauthenticated<'a>(
    reader: &mut Reader<'_>,
    p: Property<'a>,
    get: impl Fn(&'static str) -> Option<Property<'a>>,
) -> bool {
    if reader.truth(p) != Some(true) {
        return false;
    }
    if let Some(other) = get("psk").or_else(|| get("id")) {
        let message = format!("`{}` is given, and `unauthenticated: true` as well", other.name);
        let remedy = "keep one of them: whoever proves nothing has no key, and is nobody";
        reader.error(other.node.span, message, remedy);
    }
    let message = "with this peer nothing is proven: whoever stands between the two hosts, or at the peer's \
                   address, reads and changes everything";
    let remedy =
        "give the peer a certificate of the fleet's CA or a `psk`, and remove `unauthenticated`";
    reader.found.note(p.node.span, message, remedy);
    true
}

fn address(reader: &mut Reader<'_>, p: Property<'_>) -> Option<IpAddr> {
    let text = reader.text(p, "10.0.0.7")?.trim();
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let message =
                format!("`address` of a peer must be one IP address, found `{}`", short(text));
            reader.error(
                p.node.span,
                message,
                "write it without a prefix and without a port, as in `10.0.0.7`",
            );
            None
        }
    }
}

/// As in strongSwan: an address, a name, `user@host`, `@#hex` for a key ID, `asn1dn:#hex` for the DER of a name.
fn identity(reader: &mut Reader<'_>, p: Property<'_>) -> Option<Identity> {
    let text = reader.text(p, "db.example.com")?.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(match address {
            IpAddr::V4(address) => Identity::Ipv4(address),
            IpAddr::V6(address) => Identity::Ipv6(address),
        });
    }
    let bytes = |hex: &str| -> Option<Vec<u8>> {
        let digits: Vec<u8> = hex.chars().filter_map(|c| Some(c.to_digit(16)? as u8)).collect();
        let whole = digits.len() == hex.chars().count()
            && digits.len().is_multiple_of(2)
            && !digits.is_empty();
        whole.then(|| digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
    };
    let (found, form) = if let Some(hex) = text.strip_prefix("asn1dn:#") {
        (bytes(hex).map(Identity::DerDn), "hex after `asn1dn:#`")
    } else if let Some(hex) = text.strip_prefix("@#") {
        (bytes(hex).map(Identity::KeyId), "hex after `@#`")
    } else if text.contains('=') {
        (
            None,
            "a distinguished name as `asn1dn:#` and the hex of its DER (`warren pki inspect` shows it)",
        )
    } else if let Some(name) = text.strip_prefix("fqdn:").or_else(|| text.strip_prefix('@')) {
        (Some(Identity::Fqdn(name.to_owned())), "")
    } else if text.contains('@') {
        (Some(Identity::Email(text.to_owned())), "")
    } else {
        let plain = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b));
        (plain.then(|| Identity::Fqdn(text.to_owned())), "an IP address, a host name or user@host")
    };
    if found.is_none() {
        reader.error(
            p.node.span,
            format!("`id` cannot be read: `{}`", short(text)),
            format!("write {form}"),
        );
    }
    found
}
