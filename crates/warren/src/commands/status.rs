//! `warren status`: the mesh from this host, one line a peer.

use std::path::Path;

use serde_json::Value;

use super::certificates;
use super::layout::{COLUMNS, short, wrapped};
use crate::args;
use crate::client;
use crate::exit::Failure;
use crate::print::println;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Shows all peers, or one with everything that is known of it; ends 1 where that one is not up.
pub fn run(control: &Path, args: &args::Status, json: bool) -> Result<(), Failure> {
    match &args.peer {
        None => all(control, args.as_of, json),
        Some(peer) => one(control, peer, args.as_of, json),
    }
}

fn all(control: &Path, as_of: Option<u64>, json: bool) -> Result<(), Failure> {
    let date = as_of.map_or_else(String::new, |unix| format!("?as_of={unix}"));
    let status = client::get(control, &format!("/v1/status{date}"))?;
    if json {
        println!("{status}");
        return Ok(());
    }
    print_node(&status["node"]);
    let peers = list(&status["peers"]);
    let longest = peers.iter().map(|peer| label(peer).chars().count()).max();
    let width = longest.unwrap_or(0).clamp(24, 40);
    let room = COLUMNS - 53 - width;
    println!(
        "\n{:<width$} {:<10} {:<12} {:>9} {:>9} {:>6}  {}",
        "PEER",
        "STATE",
        "VERDICT",
        "IN",
        "OUT",
        "AGE",
        short("SUITE OR REASON", room)
    );
    for peer in peers {
        print_line(peer, width);
    }
    let up = peers.iter().filter(|peer| peer["state"] == "up").count();
    println!("\n{up} of {} peers up", peers.len());
    certificates::print_groups(peers);
    Ok(())
}

/// All of them, or the one that a daemon before this told.
fn addresses(node: &Value) -> String {
    let all: Vec<&str> = list(&node["addresses"]).iter().map(text).collect();
    if all.is_empty() { text(&node["address"]).to_owned() } else { all.join(", ") }
}

fn print_node(node: &Value) {
    println!(
        "{} ({})  warren {}  data plane: {}",
        short(text(&node["name"]), 20),
        addresses(node),
        text(&node["version"]),
        text(&node["data_plane"])
    );
    if node["optional"] == true {
        println!("{RED}optional is on: traffic passes in the clear where there is no SA{PLAIN}");
    }
    for certificate in list(&node["certificates"]).iter().filter(|c| c["level"] != "ok") {
        let colour = match text(&certificate["level"]) {
            "info" | "warn" => YELLOW,
            _ => RED,
        };
        println!(
            "{colour}{:<9} certificate {}: {}{PLAIN}",
            text(&certificate["level"]),
            short(text(&certificate["subject"]), 50),
            certificates::ends(certificate)
        );
    }
}

fn print_line(peer: &Value, width: usize) {
    let children = list(&peer["child_sas"]);
    let sum = |key: &str| children.iter().filter_map(|child| child[key].as_u64()).sum::<u64>();
    let age = list(&peer["ike_sas"]).first().and_then(|ike| ike["age_s"].as_u64());
    let last = match (peer["state"].as_str(), children.first()) {
        (Some("up"), Some(child)) => text(&child["suite"]),
        _ => text(&peer["reason"]),
    };
    let state = text(&peer["state"]);
    println!(
        "{:<width$} {}{state:<10}{PLAIN} {:<12} {:>9} {:>9} {:>6}  {}",
        short(&label(peer), width),
        colour(state),
        text(&peer["verdict"]),
        bytes(sum("bytes_in")),
        bytes(sum("bytes_out")),
        age.map_or_else(|| "-".into(), seconds),
        short(last, COLUMNS - 53 - width),
    );
}

fn label(peer: &Value) -> String {
    let address = text(&peer["address"]);
    peer["name"].as_str().map_or_else(|| address.to_owned(), |name| format!("{name} {address}"))
}

fn one(control: &Path, peer: &str, as_of: Option<u64>, json: bool) -> Result<(), Failure> {
    let date = as_of.map_or_else(String::new, |unix| format!("&as_of={unix}"));
    let status = client::get(control, &format!("/v1/status?peer={}{date}", encode(peer)))?;
    if json {
        println!("{status}");
    } else {
        print_peer(&status);
    }
    if status["state"] == "up" { Ok(()) } else { Err(Failure::Printed) }
}

fn print_peer(peer: &Value) {
    let state = text(&peer["state"]);
    println!(
        "{} {}  {}{state}{PLAIN}  {}",
        text(&peer["address"]),
        text(&peer["name"]),
        colour(state),
        text(&peer["verdict"])
    );
    wrapped(2, text(&peer["reason"]));
    if let Some(error) = peer["last_error"].as_str() {
        wrapped(2, &format!("last error: {error}"));
    }
    if let Some(retry) = peer["retry_in_s"].as_u64() {
        println!("  next attempt in {retry} s, after {} failures", peer["failures"]);
    }
    certificates::print_one(&peer["certificate"]);
    for ike in list(&peer["ike_sas"]) {
        println!(
            "  IKE SA {}_i {}_r  {} as {}",
            text(&ike["spi_i"]),
            text(&ike["spi_r"]),
            text(&ike["state"]),
            text(&ike["role"]),
        );
        wrapped(4, &suite_and_ages(ike));
        wrapped(4, &format!("peer is `{}` at {}", text(&ike["remote_id"]), text(&ike["remote"])));
    }
    for child in list(&peer["child_sas"]) {
        print_child(child);
    }
}

fn print_child(child: &Value) {
    println!(
        "  child SA {}_in {}_out  {}{}{}",
        text(&child["spi_in"]),
        text(&child["spi_out"]),
        text(&child["mode"]),
        if child["encap"] == true { " in UDP" } else { "" },
        if child["compression"].is_string() { ", compressed" } else { "" },
    );
    wrapped(4, &suite_and_ages(child));
    wrapped(4, &format!("{} === {}", joined(&child["local_ts"]), joined(&child["remote_ts"])));
    println!(
        "    in {} ({} packets), out {} ({} packets)",
        bytes(child["bytes_in"].as_u64().unwrap_or(0)),
        child["packets_in"],
        bytes(child["bytes_out"].as_u64().unwrap_or(0)),
        child["packets_out"],
    );
}

fn colour(state: &str) -> &'static str {
    match state {
        "up" => GREEN,
        "down" => RED,
        "idle" => PLAIN,
        _ => YELLOW,
    }
}

fn suite_and_ages(sa: &Value) -> String {
    let time = |key: &str| seconds(sa[key].as_u64().unwrap_or(0));
    format!("{}, {} old, rekey in {}", text(&sa["suite"]), time("age_s"), time("rekey_in_s"))
}

fn joined(value: &Value) -> String {
    list(value).iter().map(text).collect::<Vec<_>>().join(", ")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `4.2 MB`, in powers of 1000.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `42s`, `7m`, `3h`, `5d`.
pub fn seconds(count: u64) -> String {
    match count {
        0..120 => format!("{count}s"),
        120..7200 => format!("{}m", count / 60),
        7200..172_800 => format!("{}h", count / 3600),
        _ => format!("{}d", count / 86_400),
    }
}

/// Percent-encodes what must not stand in a query.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~:".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{bytes, encode, seconds};

    #[test]
    fn figures_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(4_200_000), "4.2 MB");
        assert_eq!(bytes(999_600), "1.0 MB");
        assert_eq!(seconds(119), "119s");
        assert_eq!(seconds(86_400), "24h");
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("fd00::1"), "fd00::1");
        assert_eq!(encode("a&b=c d"), "a%26b%3Dc%20d");
    }
}
