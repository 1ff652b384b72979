//! Warren against strongSwan: every cell of the matrix, run for real in network namespaces.
//!
//! `warren-interop [--json] [--quick]`; ends 1 if a cell fails. `KEEP=1` keeps the folders with the logs.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cell::{Auth, Initiator, Outcome, SUITES, Suite};

mod cell;
mod host;
mod strongswan;
mod warren;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    if let Some(unknown) = args.iter().find(|arg| !["--json", "--quick"].contains(&arg.as_str())) {
        eprintln!(
            "warren-interop: unknown argument {unknown}; usage: warren-interop [--json] [--quick]"
        );
        return ExitCode::from(2);
    }
    let versions = (warren::Warren::version(), strongswan::StrongSwan::version());
    let suites = if flag("--quick") { &SUITES[..1] } else { SUITES };
    let mut outcomes = play(&cells(suites), flag("--json"));
    outcomes.sort_by_key(|(number, _)| *number);
    let outcomes: Vec<Outcome> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let failed = outcomes.iter().filter(|outcome| outcome.failed.is_some()).count();
    if flag("--json") {
        println!(
            "{}",
            serde_json::json!({ "warren": versions.0, "strongswan": versions.1, "failed": failed, "cells": outcomes })
        );
    } else {
        println!(
            "\n{} with strongSwan {}: {} of {} cells green",
            versions.0,
            versions.1,
            outcomes.len() - failed,
            outcomes.len()
        );
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Cells at work at once: most of a cell's time is waiting.
const AT_ONCE: usize = 4;

type Cell = (&'static Suite, Auth, Initiator);

fn cells(suites: &'static [Suite]) -> Vec<Cell> {
    let both =
        |suite, auth| [Initiator::Warren, Initiator::Strongswan].map(|first| (suite, auth, first));
    suites
        .iter()
        .flat_map(|suite| {
            [Auth::Rsa, Auth::Psk].into_iter().flat_map(move |auth| both(suite, auth))
        })
        .collect()
}

/// Runs all cells, each on hosts of its own, and prints each as it ends.
fn play(cells: &[Cell], quiet: bool) -> Vec<(usize, Outcome)> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((suite, auth, initiator)) = cells.get(number) else { return };
            let outcome = cell::run(number, *initiator, *auth, suite);
            if !quiet {
                print(&outcome);
            }
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((number, outcome));
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn print(outcome: &Outcome) {
    let verdict = if outcome.failed.is_none() { "ok" } else { "FAILED" };
    println!(
        "{:<8} {:<5} {:<11} initiates  {verdict}  {:.1} s",
        outcome.suite,
        format!("{:?}", outcome.auth),
        format!("{:?}", outcome.initiator),
        outcome.seconds
    );
    if let Some(failed) = &outcome.failed {
        println!("  worked: {}", outcome.done.join(", "));
        println!("  {}", failed.replace('\n', "\n  "));
    }
}
