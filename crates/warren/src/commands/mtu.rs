//! `warren mtu [PEER]`: what ESP takes of every packet, and what is left; for a peer also as measured.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipsec::esp::{self, Family, Shape};
use ipsec::sa::Mode;
use linux::echo::{Echo, Reply};
use linux::route::Rtnl;
use linux::userspace::MARK;
use mesh::manifest::Manifest;
use serde_json::{Value, json};
use wire::suite_text::parse_esp;

use super::layout::wrapped;
use super::status::encode;
use crate::args;
use crate::client;
use crate::exit::Failure;
use crate::print::println;

/// Suites of everyday use, where none is named.
const SUITES: [&str; 8] = [
    "aes128gcm16",
    "aes256gcm16",
    "chacha20poly1305",
    "aes128ccm16",
    "aes128gcm8",
    "aes128-sha256",
    "aes256-sha512",
    "aes128-sha1",
];
const MODES: [(Mode, &str); 2] = [(Mode::Transport, "transport"), (Mode::Tunnel, "tunnel")];
/// TCP's header without options (RFC 9293).
const TCP: usize = 20;
/// Packets that are sent of one size, before it is held for too large.
const TRIES: usize = 2;
const PATIENCE: Duration = Duration::from_millis(500);
/// Every path carries as much (RFC 791: 576; less for the ESP around it).
const LEAST: usize = 256;
/// Nothing longer is tried.
const MOST: usize = 9216;

/// A table without a peer; with one, what its tunnel carries. Ends 1 where the peer's tunnel is not up.
pub fn run(control: &Path, args: &args::Mtu, json: bool) -> Result<(), Failure> {
    let shown = match &args.peer {
        Some(peer) => {
            let row = client::get(control, &format!("/v1/status?peer={}", encode(peer)))?;
            for_peer(control, &row)?
        }
        None => table(args)?,
    };
    match (json, &args.peer) {
        (true, _) => println!("{shown}"),
        (false, None) => print_table(&shown),
        (false, Some(_)) => print_peer(&shown),
    }
    Ok(())
}

/// What is left inside packets of `mtu` bytes, for the manifest's first ESP suite.
pub fn inside(mtu: usize, manifest: &Manifest, address: IpAddr) -> Option<usize> {
    let proposal = manifest.esp_proposals.proposals.first()?;
    let shape = Shape::of_spec(*ike::negotiate::esp_ciphers(proposal).first()?)?;
    let encap = manifest.force_udp_encapsulation;
    Some(esp::max_inner(mtu, manifest.mode, shape, encap, Family::of(address)))
}

fn shape(suite: &str) -> Result<Shape, String> {
    let proposal = parse_esp(suite).map_err(|error| format!("`{suite}`: {error}"))?;
    let cipher = ike::negotiate::esp_ciphers(&proposal).first().copied();
    cipher
        .and_then(Shape::of_spec)
        .ok_or_else(|| format!("`{suite}` names no cipher that is known here"))
}

fn table(args: &args::Mtu) -> Result<Value, Failure> {
    let mtu = usize::from(args.mtu);
    let family = match args.family {
        args::Family::V4 => Family::V4,
        args::Family::V6 => Family::V6,
    };
    let named: Vec<&str> = args.suites.iter().map(String::as_str).collect();
    let suites = if named.is_empty() { &SUITES[..] } else { &named };
    let rows: Result<Vec<Value>, String> =
        suites.iter().map(|suite| row(suite, mtu, family)).collect();
    let rows = rows.map_err(Failure::Usage)?;
    let family = if family == Family::V4 { 4 } else { 6 };
    Ok(json!({ "mtu": mtu, "family": family, "suites": rows }))
}

fn row(suite: &str, mtu: usize, family: Family) -> Result<Value, String> {
    let shape = shape(suite)?;
    let mut row = json!({ "suite": suite });
    for (mode, name) in MODES {
        row[name] = json!({
            "plain": cell(mtu, mode, shape, false, family),
            "in_udp": cell(mtu, mode, shape, true, family),
        });
    }
    Ok(row)
}

fn cell(mtu: usize, mode: Mode, shape: Shape, encap: bool, family: Family) -> Value {
    let inside = esp::max_inner(mtu, mode, shape, encap, family);
    json!({
        "overhead": esp::overhead(mode, shape, encap, family),
        "mtu": inside,
        "tcp_mss": inside.saturating_sub(family.header_len() + TCP),
    })
}

fn print_table(shown: &Value) {
    println!(
        "IPv{} packets of {} bytes: the most that ESP adds, the largest packet inside, and its TCP MSS\n",
        shown["family"], shown["mtu"]
    );
    println!(
        "{:<18} {:^18} {:^18} {:^18} {:^18}",
        "", "TRANSPORT", "… IN UDP", "TUNNEL", "… IN UDP"
    );
    let titles = format!(" {:>5} {:>5} {:>6}", "ADDS", "MTU", "MSS");
    println!("{:<18}{}", "SUITE", titles.repeat(4));
    for row in shown["suites"].as_array().into_iter().flatten() {
        let cells =
            MODES.iter().flat_map(|(_, mode)| ["plain", "in_udp"].map(|way| &row[mode][way]));
        let cells: String = cells
            .map(|cell| {
                let figure = |key: &str| cell[key].to_string();
                format!(" {:>5} {:>5} {:>6}", figure("overhead"), figure("mtu"), figure("tcp_mss"))
            })
            .collect();
        println!("{:<18}{cells}", row["suite"].as_str().unwrap_or_default());
    }
}

fn for_peer(control: &Path, row: &Value) -> Result<Value, Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let peer: IpAddr = text(&row["address"]).parse().map_err(Failure::no)?;
    let child = &row["child_sas"][0];
    if row["state"] != "up" || child.is_null() {
        let reason = text(&row["reason"]);
        return Err(Failure::No(format!(
            "{peer} is {}: {reason}; `warren up {peer}`",
            text(&row["state"])
        )));
    }
    let node = &client::get(control, "/v1/status")?["node"];
    let own = node["addresses"].as_array().into_iter().flatten().chain([&node["address"]]);
    let mut own = own.filter_map(|address| address.as_str()?.parse::<IpAddr>().ok());
    let local = own.find(|address| address.is_ipv4() == peer.is_ipv4());
    let local = local.ok_or_else(|| Failure::no("this host has no address of that family"))?;
    let mode = if child["mode"] == "tunnel" { Mode::Tunnel } else { Mode::Transport };
    let (suite, encap) = (text(&child["suite"]), child["encap"] == true);
    let shape = shape(&suite).map_err(Failure::No)?;
    let mut rtnl = Rtnl::open().map_err(Failure::no)?;
    let path = rtnl.get_route(peer, MARK).map_err(Failure::no)?.mtu as usize;
    let family = Family::of(peer);
    let protocol = if peer.is_ipv4() { 1 } else { 58 };
    let explained =
        client::get(control, &format!("/v1/explain?src={local}&dst={peer}&protocol={protocol}"))?;
    let through = text(&explained["decision"]).starts_with("protect");
    let (measured, why) = if through {
        measure(local, peer)
    } else {
        let decision = text(&explained["decision"]);
        (None, Some(format!("the policies say of ICMP, which would be sent: {decision}")))
    };
    Ok(json!({
        "address": peer, "suite": suite, "mode": child["mode"], "in_udp": encap, "path_mtu": path,
        "computed": cell(path, mode, shape, encap, family), "measured": measured, "not_measured": why,
    }))
}

/// The largest echo request that comes back, unfragmented.
fn measure(local: IpAddr, peer: IpAddr) -> (Option<usize>, Option<String>) {
    let mut echo = match Echo::open(local, peer) {
        Ok(echo) => echo,
        Err(error) => return (None, Some(error.to_string())),
    };
    let mut fits = |len| (0..TRIES).any(|_| matches!(echo.ask(len, PATIENCE), Reply::Answered(_)));
    match largest(LEAST, MOST, &mut fits) {
        Some(len) => (Some(len), None),
        None => (None, Some("the peer does not answer echo requests".into())),
    }
}

/// The largest length that fits, of `low` to `high`; those that fit are all shorter than those that do not.
fn largest(mut low: usize, mut high: usize, fits: &mut impl FnMut(usize) -> bool) -> Option<usize> {
    if !fits(low) {
        return None;
    }
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    Some(low)
}

fn print_peer(shown: &Value) {
    let text = |key: &str| shown[key].as_str().unwrap_or_default();
    let udp = if shown["in_udp"] == true { " in UDP" } else { "" };
    println!("{}  {} {}{udp}", text("address"), text("suite"), text("mode"));
    println!("  the path carries   {} bytes, as far as this host knows", shown["path_mtu"]);
    let computed = &shown["computed"];
    println!(
        "  computed           {} bytes inside (TCP MSS {})",
        computed["mtu"], computed["tcp_mss"]
    );
    match shown["measured"].as_u64() {
        Some(measured) => println!("  measured           {measured} bytes inside, unfragmented"),
        None => wrapped(2, &format!("not measured: {}", text("not_measured"))),
    }
    match (shown["measured"].as_u64(), computed["mtu"].as_u64()) {
        (Some(measured), Some(computed)) if measured < computed => {
            let why = "less than computed: a link on the way is narrower, or this host's applications are told less (`ip route get`)";
            wrapped(2, why);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{SUITES, largest, shape};

    #[test]
    fn the_largest_is_found_with_few_questions() {
        for limit in [256, 257, 1280, 1466, 9215, 9216] {
            let mut asked = 0;
            let found = largest(256, 9216, &mut |len| {
                asked += 1;
                len <= limit
            });
            assert_eq!(found, Some(limit));
            assert!(asked <= 15, "{asked}");
        }
        assert_eq!(largest(256, 9216, &mut |_| false), None);
    }

    #[test]
    fn every_suite_of_the_table_is_one() {
        SUITES.iter().for_each(|suite| assert!(shape(suite).is_ok(), "{suite}"));
        assert!(shape("aes128gcm17").is_err());
    }
}
