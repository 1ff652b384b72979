//! Warren against strongSwan: every cell of the matrix, run for real in network namespaces.
//!
//! `warren-interop [--json] [--quick]`; ends 1 if a cell fails. `KEEP=1` keeps the folders with the logs.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

use std::process::ExitCode;

use cell::{Auth, Initiator, Outcome, SUITES};

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
    let mut outcomes = Vec::new();
    for suite in suites {
        for auth in [Auth::Rsa, Auth::Psk] {
            for initiator in [Initiator::Warren, Initiator::Strongswan] {
                let outcome = cell::run(outcomes.len(), initiator, auth, suite);
                if !flag("--json") {
                    print(&outcome);
                }
                outcomes.push(outcome);
            }
        }
    }
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
