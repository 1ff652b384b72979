//! `warren bench`: what control plane and data plane cost on this machine, measured so that anybody can measure it again.
//!
//! Absolute figures are those of the machine and of what else runs on it. Every run has the bare wire and the bare
//! cipher beside the data plane: compare with those.

use std::time::Duration;

use serde_json::json;

use crate::args::{BenchCommand, BenchEsp, BenchPath};
use crate::exit::Failure;
use crate::lab::stop::Stop;
use crate::print::println;

pub mod bare;
mod cipher;
mod compare;
mod control;
mod cpu;
mod goal;
mod ike;
mod load;
mod manifest;
mod mesh;
mod place;
mod settings;
mod star;

use load::Measured;

/// Runs it.
pub fn run(command: &BenchCommand, json: bool) -> Result<(), Failure> {
    match command {
        BenchCommand::Ike(wanted) => ike::run(wanted, json),
        BenchCommand::Mesh(wanted) => mesh::run(wanted, json),
        BenchCommand::Manifest(wanted) => manifest::run(wanted, json),
        BenchCommand::Esp(wanted) => esp(wanted, &with_namespaces()?, json),
        BenchCommand::Path(wanted) => path(wanted, &with_namespaces()?, json),
        BenchCommand::Compare { ours, peers, figures } => compare::run(ours, peers, figures, json),
    }
}

fn with_namespaces() -> Result<Stop, Failure> {
    linux::sandbox::privileges().map_err(|missing| {
        Failure::No(format!("the benchmark makes network namespaces: {missing}"))
    })?;
    Stop::on_signals().map_err(Failure::no)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The bare wire, two daemons on it, the bare cipher.
fn esp(wanted: &BenchEsp, stop: &Stop, json: bool) -> Result<(), Failure> {
    let place = place::Place::build()?;
    let bare = load::measure(&place.path(), wanted.seconds, &[], stop)?;
    let daemons = place.start(wanted.data_plane, wanted.udp)?;
    let esp = load::measure(&place.path(), wanted.seconds, &daemons.pids(), stop)?;
    drop(daemons);
    drop(place);
    let cipher = cipher::aes_128_gcm().map_err(Failure::no)?;
    if json {
        println!(
            "{}",
            json!({
                "seconds": wanted.seconds,
                "bare_wire": bare,
                "esp": esp,
                "cipher": {"name": "aes128gcm16", "packet_bytes": cipher::PACKET, "gb_per_s": cipher},
            })
        );
        return Ok(());
    }
    table(&[("bare wire", &bare), ("ESP, userspace", &esp)]);
    println!(
        "\nbare cipher (AES-128-GCM, {} bytes): {cipher:.1} GB/s on one core, {:.2} s of CPU a GB each way",
        cipher::PACKET,
        1.0 / cipher
    );
    Ok(())
}

/// A path that somebody else has made, for comparisons.
fn path(wanted: &BenchPath, stop: &Stop, json: bool) -> Result<(), Failure> {
    let path = load::Path::open(&wanted.from, &wanted.to, wanted.target).map_err(Failure::No)?;
    path.wait(place::UP).map_err(Failure::No)?;
    let measured = load::measure(&path, wanted.seconds, &wanted.process, stop)?;
    if json {
        println!("{}", serde_json::to_string(&measured).map_err(Failure::no)?);
    } else {
        table(&[("path", &measured)]);
    }
    Ok(())
}

fn table(rows: &[(&str, &Measured)]) {
    println!(
        "{:<16}{:>9}{:>10}{:>9}{:>11}{:>16}{:>20}",
        "", "1 stream", "4 streams", "64 byte", "1400 byte", "RTT p50/p99", "CPU, each process"
    );
    println!(
        "{:<16}{:>9}{:>10}{:>9}{:>11}{:>16}{:>20}",
        "", "Mbit/s", "Mbit/s", "kpps", "kpps", "µs", "s/GB"
    );
    for (name, m) in rows {
        let cpu: Vec<_> = m.cpu_s_per_gb.iter().map(|s| format!("{s:.2}")).collect();
        println!(
            "{name:<16}{:>9.0}{:>10.0}{:>9.0}{:>11.0}{:>16}{:>20}",
            m.tcp_1_mbit_per_s,
            m.tcp_4_mbit_per_s,
            m.small_kpps,
            m.large_kpps,
            format!("{:.0}/{:.0}", m.rtt_p50_us, m.rtt_p99_us),
            if cpu.is_empty() { "-".to_owned() } else { cpu.join(" + ") }
        );
    }
}
