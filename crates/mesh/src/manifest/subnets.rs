//! `ipsec_subnets` and `no_ipsec_subnets`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::read::{Property, Reader, short};
use super::source::Span;

/// Networks in the order of the list, each once, and where each one stands.
#[derive(Default)]
pub(crate) struct Nets {
    pub(crate) list: Vec<IpNet>,
    spans: BTreeMap<IpNet, Span>,
}

/// Both lists. What they say together is checked too.
pub(crate) fn both(
    reader: &mut Reader<'_>,
    protected: Option<Property<'_>>,
    excluded: Option<Property<'_>>,
    section: Span,
) -> (Nets, Nets) {
    let clear = excluded.and_then(|p| nets(reader, p)).unwrap_or_default();
    let Some(p) = protected else {
        let remedy =
            "add the networks whose traffic is to be protected:\nipsec_subnets:\n- 10.0.0.0/16";
        reader.error(section, "`ipsec_subnets` is missing", remedy);
        return (Nets::default(), clear);
    };
    let Some(nets) = nets(reader, p) else { return (Nets::default(), clear) };
    if nets.list.is_empty() && !has_items(p) {
        let remedy =
            "list the networks whose traffic is to be protected:\nipsec_subnets:\n- 10.0.0.0/16";
        reader.error(p.node.span, "`ipsec_subnets` is empty: nothing would be protected", remedy);
    }
    together(reader, &nets, &clear);
    (nets, clear)
}

fn has_items(p: Property<'_>) -> bool {
    matches!(&p.node.value, super::yaml::Value::List(items) if !items.is_empty())
}

/// One network as text: `10.0.0.0/16`, an address, or with host bits, which are cleared with a note.
pub(crate) fn net(reader: &mut Reader<'_>, p: Property<'_>) -> Option<IpNet> {
    let span = p.node.span;
    let Some(text) = p.node.text().filter(|_| !p.node.is_null()).map(str::trim) else {
        let message = format!("`{}` takes networks, found {}", p.name, p.node.kind());
        reader.error(span, message, "write it as ADDRESS/PREFIX, as in `10.0.0.0/16`");
        return None;
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        let net = IpNet::from(address);
        reader.found.note(span, format!("`{text}` is read as the single address {net}"), "");
        return Some(net);
    }
    match text.parse::<IpNet>() {
        Ok(net) => {
            if net.addr() != net.network() {
                let message = format!(
                    "`{text}` has host bits set; it is read as its network {}",
                    net.trunc()
                );
                reader.found.note(
                    span,
                    message,
                    format!("write `{}` to say the same", net.trunc()),
                );
            }
            Some(net.trunc())
        }
        Err(_) => {
            let (why, remedy) = bad_net(text);
            reader.error(span, format!("`{}` is not a network: {why}", short(text)), remedy);
            None
        }
    }
}

fn nets(reader: &mut Reader<'_>, p: Property<'_>) -> Option<Nets> {
    let items = reader.list(p, "10.0.0.0/16")?;
    let mut nets = Nets::default();
    for item in items {
        let Some(net) = net(reader, Property { name: p.name, node: item }) else { continue };
        match nets.spans.insert(net, item.span) {
            None => nets.list.push(net),
            Some(first) => {
                let message = format!("{net} is listed twice in `{}`", p.name);
                reader.found.note(
                    item.span,
                    message,
                    format!("the first is in line {}", first.line),
                );
            }
        }
    }
    Some(nets)
}

fn bad_net(text: &str) -> (String, String) {
    let example = "write it as ADDRESS/PREFIX, as in `10.0.0.0/16` or `2001:db8::/48`".to_owned();
    let Some((address, prefix)) = text.split_once('/') else {
        let why = if text.contains('-') { "a range of addresses" } else { "no address and no `/`" };
        return (why.to_owned(), example);
    };
    let Ok(ip) = address.trim().parse::<IpAddr>() else {
        return (format!("`{}` is not an IP address", short(address)), example);
    };
    let longest = if ip.is_ipv6() { 128 } else { 32 };
    if let Ok(IpAddr::V4(mask)) = prefix.parse()
        && let Ok(net) = IpNet::with_netmask(ip, IpAddr::V4(mask))
    {
        return ("the prefix is written as a mask".to_owned(), format!("write `{}`", net.trunc()));
    }
    (
        format!("the prefix must be 0 to {longest}"),
        format!("write for instance `{address}/{}`", longest / 4 * 3),
    )
}

fn together(reader: &mut Reader<'_>, nets: &Nets, clear: &Nets) {
    for (net, span) in &clear.spans {
        if let Some(other) = nets.spans.get(net) {
            let message =
                format!("{net} is in both lists: it passes in clear, for `no_ipsec_subnets` wins");
            let remedy = format!(
                "remove it from one of the lists; `ipsec_subnets` has it in line {}",
                other.line
            );
            reader.found.note(*span, message, remedy);
        } else if !has_parent(*net, &nets.spans) && !nets.list.is_empty() {
            let message =
                format!("{net} lies in none of `ipsec_subnets`: it passes in clear anyway");
            let remedy = "keep it if hosts of this network are to have a place in the manifest; else remove it";
            reader.found.note(*span, message, remedy);
        }
    }
    let (Some((_, at)), false) = (nets.spans.iter().next(), nets.list.is_empty()) else { return };
    if nets.list.iter().all(|net| clear.spans.contains_key(net)) {
        let remedy = "remove from `no_ipsec_subnets` what is to be protected";
        reader.error(
            *at,
            "every one of `ipsec_subnets` is in `no_ipsec_subnets` too: nothing would be protected",
            remedy,
        );
    }
}

/// Whether the network or a wider one is listed.
fn has_parent(net: IpNet, listed: &BTreeMap<IpNet, Span>) -> bool {
    std::iter::successors(Some(net), IpNet::supernet).any(|net| listed.contains_key(&net))
}
