//! Warren against other IKE daemons: every cell of the matrix, run for real.
//!
//! `warren-interop [--json] [--only TEXT] [--part ci]`; ends 1 if a cell is red. `KEEP=1` keeps the folders with the logs.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use args::Args;
use cell::Outcome;
use matrix::{Cell, Place};
use report::Report;

mod args;
mod cell;
mod daemon;
mod enter;
mod extension;
mod libreswan;
mod machine;
mod matrix;
mod net;
mod pki;
mod report;
mod strongswan;
mod traffic;
mod vici;
mod warren;
mod wire;
mod work;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some(enter::VERB) => return enter::main(&words[1..]),
        Some(machine::VERB) => return machine::inside(&words[1..]),
        _ => {}
    }
    let args = match Args::parse(&words) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("warren-interop: {error}");
            return ExitCode::from(2);
        }
    };
    match table(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("warren-interop: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the chosen cells; whether all are green.
fn table(args: &Args) -> Result<bool, String> {
    let cells: Vec<(usize, Cell)> =
        matrix::cells().into_iter().enumerate().filter(|(_, cell)| args.wants(cell)).collect();
    if cells.is_empty() {
        return Err("no cell is called so; `--list` lists them".into());
    }
    if args.list {
        cells.iter().for_each(|(number, cell)| println!("{number:>3}  {cell}"));
        return Ok(true);
    }
    let mut peers = matrix::Peer::ALL.to_vec();
    peers.retain(|peer| cells.iter().any(|(_, cell)| cell.peer == *peer));
    fetch(&peers)?;
    let _alone = alone()?;
    let pki = folder().join("pki");
    pki::make(&pki, &peers, &daemon::roots())?;
    let mut report = Report::new(&cells, args.json);
    let of = |place| {
        cells.iter().filter(move |(_, cell)| cell.place == place).copied().collect::<Vec<_>>()
    };
    work::play(&of(Place::Native), work::NATIVE, &pki, &mut |outcome| report.add(outcome));
    machine::play(&of(Place::Vm), &mut |outcome| report.add(outcome))?;
    Ok(report.finish(&peers))
}

/// Two runs at once would take each other's certificates away.
fn alone() -> Result<File, String> {
    let named = |error: std::io::Error| format!("{}: {error}", folder().display());
    fs::create_dir_all(folder()).map_err(named)?;
    let lock = File::create(folder().join("lock")).map_err(named)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(format!("another run uses {}; it has to end first", folder().display()))
        }
        Err(TryLockError::Error(error)) => Err(named(error)),
    }
}

/// What a run leaves: certificates, and the logs of cells that failed.
fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    target.canonicalize().unwrap_or(target).join("interop")
}

fn fetch(peers: &[matrix::Peer]) -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fetch.sh");
    let mut command = std::process::Command::new(&script);
    command.args(peers.iter().map(|peer| peer.folder()));
    let status = command.status().map_err(|error| format!("{}: {error}", script.display()))?;
    if status.success() { Ok(()) } else { Err("the peers could not be fetched".into()) }
}

/// Takes an outcome as it comes.
type Sink<'a> = &'a mut (dyn FnMut(Outcome) + Send);
