//! `warren bench mesh`: one host with many tunnels, and whether their number matters to the cost of an event.

use std::collections::BTreeSet;
use std::time::Duration;

use ipsec::change::Change;
use linux::clock::thread_cpu;
use serde::Serialize;
use serde_json::json;

use super::ms;
use super::settings::{self, Folder};
use super::star::{self, Star};
use crate::args::{BenchMesh, Suite};
use crate::exit::Failure;
use crate::print::println;

const UP: Duration = Duration::from_secs(120);
/// After that nothing of the start is left to be done.
const CALM: Duration = Duration::from_secs(120);
/// How long it idles.
const IDLE: Duration = Duration::from_secs(300);
/// Packets that come in, at least.
const PACKETS: usize = 20_000;
/// Of each, in bytes.
const PAYLOAD: usize = 64;

/// What was measured with one number of peers.
#[derive(Serialize)]
struct Row {
    peers: u16,
    /// Heap of one tunnel: IKE SA, pair of child SAs, peer and its entry in the manifest, journal, timers; `null` where the C library does not say.
    tunnel_bytes: Option<usize>,
    /// CPU of a host whose tunnels idle, with `dpddelay: 30`, in per cent of a core.
    idle_percent: f64,
    /// `status --json`: made and written.
    status_ms: f64,
    /// A packet that comes in: its SA and policy found, opened, delivered.
    packet_us: f64,
    /// A manifest with one peer more: read from its file and checked …
    read_ms: f64,
    /// … and put in force.
    reload_ms: f64,
    /// Changes in the data plane that are about anything but the new peer.
    touched: usize,
}

/// Measures and prints.
pub fn run(wanted: &BenchMesh, json: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    if !json {
        println!(
            "{:>7}{:>15}{:>10}{:>12}{:>12}{:>12}{:>12}{:>9}",
            "peers",
            "bytes/tunnel",
            "idle, %",
            "status, ms",
            "packet, µs",
            "read, ms",
            "reload, ms",
            "touched"
        );
    }
    for peers in &wanted.peers {
        let row = measure(*peers)?;
        if !json {
            print(&row);
        }
        rows.push(row);
    }
    if json {
        println!("{}", json!({ "mesh": rows }));
    }
    Ok(())
}

fn measure(peers: u16) -> Result<Row, Failure> {
    let count = usize::from(peers);
    let folder = Folder::new("mesh")?;
    let recipe = folder.recipe(Suite::X25519Psk)?;
    let bare = folder.accept(&recipe)?;
    let manifest = folder.accept(&recipe.with("peers", settings::peers(count)))?;
    let empty = linux::memory::heap_in_use();
    let mut star = Star::build([&manifest, &bare], count).map_err(Failure::no)?;
    star.ask(b"there?");
    if !star.settle(UP) {
        return Err(Failure::No(format!("not all of {peers} tunnels came up")));
    }
    star.pass(CALM);
    star.spent();
    star.pass(IDLE);
    let idle_percent = star.spent().hub.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let status_ms = status(&star)?;
    let packet_us = packet(&mut star)?;
    let (read_ms, reload_ms, touched) = reload(&mut star, &folder, count)?;
    // The packets have woken the SAs: they come to rest.
    star.pass(CALM);
    star.alone();
    let full = linux::memory::heap_in_use();
    let tunnel_bytes = full.zip(empty).map(|(full, empty)| full.saturating_sub(empty) / count);
    drop(star);
    Ok(Row { peers, tunnel_bytes, idle_percent, status_ms, packet_us, read_ms, reload_ms, touched })
}

fn status(star: &Star) -> Result<f64, Failure> {
    let before = thread_cpu();
    let text = serde_json::to_string(&star.status()).map_err(Failure::no)?;
    std::hint::black_box(text);
    Ok(ms(thread_cpu().saturating_sub(before)))
}

fn packet(star: &mut Star) -> Result<f64, Failure> {
    let before = star.delivered();
    star.pass(Duration::from_millis(1));
    star.spent();
    let mut sent = 0;
    while sent < PACKETS {
        star.ask(&[7; PAYLOAD]);
        // Less than any timer: what is measured is the packets.
        star.pass(Duration::from_micros(200));
        sent += star.sas().len() / 2;
    }
    let arrived = star.delivered() - before;
    if arrived < sent as u64 {
        return Err(Failure::No(format!("{arrived} of {sent} packets arrived")));
    }
    Ok(star.spent().hub.as_secs_f64() * 1e6 / arrived as f64)
}

/// One peer more, by reload.
fn reload(star: &mut Star, folder: &Folder, count: usize) -> Result<(f64, f64, usize), Failure> {
    let recipe = folder.recipe(Suite::X25519Psk)?;
    let path = folder.write(&recipe.with("peers", settings::peers(count + 1)))?;
    let began = thread_cpu();
    let manifest = settings::read(&path)?;
    let loaded = manifest.for_host(star::address(0), &[]).map_err(Failure::no)?;
    let read = thread_cpu().saturating_sub(began);
    let before: BTreeSet<_> = star.sas().into_iter().collect();
    star.spent();
    let changes = star.reload(loaded);
    let applied = star.spent().hub;
    let after: BTreeSet<_> = star.sas().into_iter().collect();
    let new = star::address(count + 1);
    let others = changes.iter().filter(|change| !is_about(change, new)).count();
    let gone = before.symmetric_difference(&after).count();
    Ok((ms(read), ms(applied), others.max(gone)))
}

fn is_about(change: &Change, peer: std::net::IpAddr) -> bool {
    match change {
        Change::PutPolicy(policy) => policy.selector.remote.contains(&peer),
        Change::AddSa(sa) => [sa.key().dst, sa.src].contains(&peer),
        _ => false,
    }
}

fn print(row: &Row) {
    println!(
        "{:>7}{:>15}{:>10.3}{:>12.2}{:>12.2}{:>12.2}{:>12.2}{:>9}",
        row.peers,
        row.tunnel_bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string()),
        row.idle_percent,
        row.status_ms,
        row.packet_us,
        row.read_ms,
        row.reload_ms,
        row.touched
    );
}
