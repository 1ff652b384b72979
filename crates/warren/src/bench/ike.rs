//! `warren bench ike`: what handshakes cost beyond their cryptography, and whether the number of peers matters.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use super::settings::Folder;
use super::star::{Spent, Star};
use super::{bare, ms};
use crate::args::{BenchIke, Suite};
use crate::exit::Failure;
use crate::load::Accepted;
use crate::print::println;

/// All tunnels are there within this, in virtual time.
const UP: Duration = Duration::from_secs(120);
/// A few handshakes last too short a time to be measured: they are repeated, each time with new hosts.
const AT_LEAST: u32 = 200;

/// What was measured with one suite and one number of peers. CPU time is that of one handshake.
#[derive(Serialize)]
struct Row {
    suite: String,
    peers: u16,
    bare_ms: f64,
    initiator_ms: f64,
    responder_ms: f64,
    /// Of the mean of both sides to the bare cryptography.
    ratio: f64,
    /// Handshakes that one core does in a second, both sides of them.
    per_second: f64,
}

/// Measures and prints.
pub fn run(wanted: &BenchIke, json: bool) -> Result<(), Failure> {
    let suites = if wanted.suite.is_empty() { Suite::value_variants() } else { &wanted.suite[..] };
    let mut rows = Vec::new();
    if !json {
        println!(
            "{:<18}{:>7}{:>12}{:>14}{:>14}{:>8}{:>16}",
            "CPU, ms", "peers", "bare", "initiator", "responder", "ratio", "1 core, per s"
        );
    }
    for suite in suites {
        for peers in &wanted.peers {
            let row = measure(*suite, *peers)?;
            if !json {
                print(&row);
            }
            rows.push(row);
        }
    }
    if json {
        println!("{}", json!({ "handshakes": rows }));
    }
    Ok(())
}

fn measure(suite: Suite, peers: u16) -> Result<Row, Failure> {
    let folder = Folder::new("ike")?;
    let manifest = folder.accept(&folder.recipe(suite)?)?;
    let bare = bare::one_side(suite, &manifest.auth).map_err(Failure::No)?;
    let (mut spent, mut handshakes) = (Spent::default(), 0);
    while handshakes < AT_LEAST {
        let more = all_at_once(&manifest, peers)?;
        spent.hub += more.hub;
        spent.peers += more.peers;
        handshakes += u32::from(peers);
    }
    let (initiator, responder) = (spent.peers / handshakes, spent.hub / handshakes);
    let both = initiator + responder;
    Ok(Row {
        suite: suite.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned()),
        peers,
        bare_ms: ms(bare),
        initiator_ms: ms(initiator),
        responder_ms: ms(responder),
        ratio: both.as_secs_f64() / 2.0 / bare.as_secs_f64(),
        per_second: 1.0 / both.as_secs_f64(),
    })
}

/// New hosts; each peer wants the one in the middle.
fn all_at_once(manifest: &Accepted, peers: u16) -> Result<Spent, Failure> {
    let mut star = Star::build([manifest; 2], usize::from(peers)).map_err(Failure::no)?;
    star.spent();
    star.ask(b"there?");
    if !star.settle(UP) {
        return Err(Failure::No(format!("not all of {peers} tunnels came up")));
    }
    Ok(star.spent())
}

fn print(row: &Row) {
    println!(
        "{:<18}{:>7}{:>12.3}{:>14.3}{:>14.3}{:>8.2}{:>16.0}",
        row.suite,
        row.peers,
        row.bare_ms,
        row.initiator_ms,
        row.responder_ms,
        row.ratio,
        row.per_second
    );
}
