//! `warren explain SRC DST [PROTO] [PORT]`: which policy decides on a packet.

use std::path::Path;

use serde_json::Value;

use super::layout::{hanging, wrapped};
use crate::args::Explain;
use crate::client;
use crate::exit::Failure;
use crate::print::println;

/// Asks the daemon.
pub fn run(control: &Path, args: &Explain, json: bool) -> Result<(), Failure> {
    let protocol = args.proto.as_deref().map_or(Ok(0), protocol)?;
    if args.port.is_some() && !matches!(protocol, 6 | 17 | 132 | 136 | 33) {
        return Err(Failure::Usage(
            "a port needs a protocol with ports, such as tcp or udp".into(),
        ));
    }
    let port = args.port.map(|port| format!("&port={port}")).unwrap_or_default();
    let path = format!("/v1/explain?src={}&dst={}&protocol={protocol}{port}", args.src, args.dst);
    let answer = client::get(control, &path)?;
    if json {
        println!("{answer}")
    } else {
        print(&answer)
    }
    Ok(())
}

fn print(answer: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    println!("{}", text(&answer["packet"]));
    for policy in answer["considered"].as_array().into_iter().flatten() {
        let mark = if policy["matches"] == true { "->" } else { "  " };
        hanging(&format!("  {mark} {:>10}  ", policy["priority"]), &text(&policy["policy"]));
    }
    wrapped(0, &format!("{}: {}", text(&answer["decision"]), text(&answer["because"])));
    if let Some(peer) = answer["peer"].as_object() {
        let before = format!("peer {} is {}: ", text(&peer["address"]), text(&peer["state"]));
        hanging(&before, &text(&peer["reason"]));
    }
}

/// Names of /etc/protocols that policies and people use, or a number.
fn protocol(name: &str) -> Result<u8, Failure> {
    const NAMES: &[(&str, u8)] = &[
        ("any", 0),
        ("icmp", 1),
        ("igmp", 2),
        ("tcp", 6),
        ("udp", 17),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("icmpv6", 58),
        ("ipv6-icmp", 58),
        ("ospf", 89),
        ("vrrp", 112),
        ("sctp", 132),
    ];
    let known =
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number);
    known.or_else(|| name.parse().ok()).ok_or_else(|| {
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        Failure::Usage(format!(
            "unknown protocol `{name}`; use a number or one of: {}",
            names.join(", ")
        ))
    })
}
