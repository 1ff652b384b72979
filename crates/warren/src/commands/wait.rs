//! `warren wait`: readiness, for units and scripts.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::layout::short;
use crate::args;
use crate::client;
use crate::exit::Failure;
use crate::print::println;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Where the tunnels stand that somebody wants.
#[derive(Serialize, Debug, PartialEq, Eq)]
struct Readiness {
    ready: bool,
    /// Peers with which a tunnel is wanted.
    peers: usize,
    /// Those with which there is one.
    up: usize,
    /// As many must be up.
    needed: usize,
    missing: Vec<Missing>,
}

/// A peer whose tunnel is not up.
#[derive(Serialize, Debug, PartialEq, Eq)]
struct Missing {
    address: String,
    name: Option<String>,
    state: String,
    reason: String,
}

/// Waits until as many peers are up as are asked for, the daemon's start included; ends 1 if they are not in time, 3 if
/// there is no daemon by then.
pub fn run(control: &Path, wait: &args::Wait, json: bool) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(wait.timeout);
    let percent = wait.quorum.unwrap_or(100);
    loop {
        let found = client::get(control, "/v1/status").map(|status| readiness(&status, percent));
        let ready = found.as_ref().is_ok_and(|readiness| readiness.ready);
        if !ready && Instant::now() < end {
            std::thread::sleep(LOOK);
            continue;
        }
        let readiness = found?;
        show(&readiness, json)?;
        return if ready { Ok(()) } else { Err(Failure::Printed) };
    }
}

/// Peers that nobody sends to, and those that the operator took down, are not waited for.
fn readiness(status: &Value, percent: u8) -> Readiness {
    let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted: Vec<&Value> = peers.iter().filter(|peer| wanted(peer)).collect();
    let missing: Vec<Missing> =
        wanted.iter().filter(|peer| peer["state"] != "up").map(|peer| missing(peer)).collect();
    let up = wanted.len() - missing.len();
    let needed = (wanted.len() * usize::from(percent)).div_ceil(100);
    Readiness { ready: up >= needed, peers: wanted.len(), up, needed, missing }
}

fn wanted(peer: &Value) -> bool {
    match peer["state"].as_str() {
        Some("idle") => false,
        // Backing off has an end; the operator's word has none.
        Some("down") => !peer["retry_in_s"].is_null(),
        _ => true,
    }
}

fn missing(peer: &Value) -> Missing {
    let text = |key: &str| peer[key].as_str().unwrap_or_default().to_owned();
    let name = peer["name"].as_str().map(str::to_owned);
    Missing { address: text("address"), name, state: text("state"), reason: text("reason") }
}

fn show(readiness: &Readiness, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string(readiness).map_err(Failure::no)?);
        return Ok(());
    }
    let Readiness { peers, up, needed, missing, .. } = readiness;
    println!("{up} of {peers} peers up, {needed} needed");
    for peer in missing {
        let label = match &peer.name {
            Some(name) => format!("{name} {}", peer.address),
            None => peer.address.clone(),
        };
        println!("{:<40} {:<10} {}", short(&label, 40), peer.state, short(&peer.reason, 48));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(states: &[(&str, Option<u64>)]) -> Value {
        let peer = |(state, retry): &(&str, Option<u64>)| {
            json!({"address": "10.0.0.2", "name": null, "state": state, "reason": "why",
                   "retry_in_s": retry})
        };
        json!({ "peers": states.iter().map(peer).collect::<Vec<_>>() })
    }

    #[test]
    fn a_quorum_is_rounded_up() {
        let two_of_three = status(&[("up", None), ("up", None), ("connecting", None)]);
        for (percent, ready) in [(0, true), (66, true), (67, false), (100, false)] {
            let found = readiness(&two_of_three, percent);
            assert_eq!((found.ready, found.up, found.peers), (ready, 2, 3), "{percent} %");
        }
        assert_eq!(readiness(&two_of_three, 100).missing[0].reason, "why");
    }

    #[test]
    fn only_tunnels_that_are_wanted_count() {
        let found = readiness(&status(&[("idle", None), ("down", None), ("up", None)]), 100);
        assert!(found.ready && found.peers == 1);
        for state in ["half_up", "connecting", "down"] {
            assert!(!readiness(&status(&[(state, Some(7))]), 100).ready, "{state}");
        }
        assert!(readiness(&json!({}), 100).ready);
    }
}
