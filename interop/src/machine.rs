//! The cells with the kernel's ESP: one test machine runs them all, and says a line of JSON for each.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cell::Outcome;
use crate::matrix::{self, Cell};
use crate::{Sink, daemon, folder, work};

/// The argument that makes this program the one inside.
pub const VERB: &str = "inside";

/// What the kernel would otherwise load in the middle of an exchange.
const MODULES: [&str; 9] = [
    "chacha20poly1305",
    "chacha20_x86_64",
    "poly1305_x86_64",
    "sha512_generic",
    "nft_chain_nat",
    "nft_masq",
    "nft_ct",
    "nf_conntrack",
    "nf_nat",
];

/// Seconds for the boot, and for each cell, on a busy machine.
const BOOT: usize = 240;
const EACH: usize = 120;

/// Runs the cells in a machine of their own. Cells that say nothing have failed.
pub fn play(cells: &[(usize, Cell)], sink: Sink<'_>) -> Result<(), String> {
    if cells.is_empty() {
        return Ok(());
    }
    let myself = std::env::current_exe().map_err(|error| error.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm/run.sh");
    let numbers: Vec<String> = cells.iter().map(|(number, _)| number.to_string()).collect();
    let seconds = BOOT + EACH * cells.len().div_ceil(work::INSIDE);
    let mut command = Command::new(&script);
    command.args(["-t", &seconds.to_string(), "-m", "2048"]);
    for needed in [daemon::roots(), folder(), myself.clone()] {
        command.arg("-f").arg(needed);
    }
    for name in ["KEEP", "WARREN", "WARREN_PEERS"] {
        if let Ok(value) = std::env::var(name) {
            command.args(["-e", &format!("{name}={value}")]);
        }
    }
    command.arg(&myself).arg(VERB).args(&numbers).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = command.spawn().map_err(|error| format!("{}: {error}", script.display()))?;
    let mut missing: BTreeSet<usize> = cells.iter().map(|(number, _)| *number).collect();
    for line in
        BufReader::new(machine.stdout.take().ok_or("no output")?).lines().map_while(Result::ok)
    {
        match serde_json::from_str::<Outcome>(&line) {
            Ok(outcome) if missing.remove(&outcome.number) => sink(outcome),
            _ => eprintln!("{line}"),
        }
    }
    let status = machine.wait().map_err(|error| error.to_string())?;
    for number in missing {
        let failed = Some(format!("the machine ended without a word about it ({status})"));
        sink(Outcome { number, done: Vec::new(), failed, logs: None, seconds: 0.0 });
    }
    Ok(())
}

/// `inside NUMBER...`: plays these cells.
pub fn inside(numbers: &[String]) -> ExitCode {
    let _ = Command::new("modprobe").arg("-aq").args(MODULES).status();
    let all = matrix::cells();
    let chosen = |number: &String| {
        let number = number.parse().ok()?;
        all.get(number).map(|cell| (number, *cell))
    };
    let cells: Vec<(usize, Cell)> = numbers.iter().filter_map(chosen).collect();
    let pki: PathBuf = folder().join("pki");
    work::play(&cells, work::INSIDE, &pki, &mut |outcome| {
        let line = serde_json::to_string(&outcome).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    });
    ExitCode::SUCCESS
}
