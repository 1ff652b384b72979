//! The table, cell by cell as they end, and the JSON of it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::cell::Outcome;
use crate::matrix::{Cell, Peer, lower};
use crate::warren::Warren;
use crate::{daemon, folder};

/// What is known so far.
pub struct Report {
    cells: BTreeMap<usize, Cell>,
    outcomes: BTreeMap<usize, Outcome>,
    json: bool,
    started: Instant,
}

impl Report {
    /// An empty table.
    pub fn new(cells: &[(usize, Cell)], json: bool) -> Self {
        if !json {
            println!(
                "{:<20} {:<16} {:<6} {:<9} {:<3} {:<5} {:<8} {:<9} {:<8} result",
                "peer", "version", "where", "mode", "ip", "auth", "suite", "initiator", "play"
            );
        }
        let cells = cells.iter().copied().collect();
        Self { cells, outcomes: BTreeMap::new(), json, started: Instant::now() }
    }

    /// Takes, and shows, what a cell did.
    pub fn add(&mut self, outcome: Outcome) {
        if let Some(cell) = self.cells.get(&outcome.number) {
            if !self.json {
                row(cell, &outcome);
            }
            keep_logs(cell, &outcome);
        }
        self.outcomes.insert(outcome.number, outcome);
    }

    /// The last words; whether all is green.
    pub fn finish(self, peers: &[Peer]) -> bool {
        let red = |number: &usize| {
            self.outcomes.get(number).is_none_or(|outcome| outcome.failed.is_some())
        };
        let failed = self.cells.keys().filter(|number| red(number)).count();
        let seconds = self.started.elapsed().as_secs_f64();
        if self.json {
            println!("{}", self.document(peers, failed, seconds));
        } else {
            let versions: Vec<String> = peers
                .iter()
                .map(|peer| format!("{} {}", peer.folder(), daemon::version(*peer)))
                .collect();
            let (all, green) = (self.cells.len(), self.cells.len() - failed);
            println!("\n{} with {}", Warren::version(), versions.join(", "));
            println!("{green} of {all} cells green, {failed} red, {seconds:.0} s");
            if failed > 0 {
                println!("the logs of what is red: {}", folder().join("red").display());
            }
        }
        failed == 0
    }

    fn document(&self, peers: &[Peer], failed: usize, seconds: f64) -> serde_json::Value {
        let versions: BTreeMap<&str, String> =
            peers.iter().map(|peer| (peer.folder(), daemon::version(*peer))).collect();
        let cells: Vec<serde_json::Value> = self.cells.iter().map(|(number, cell)| {
            let outcome = self.outcomes.get(number);
            serde_json::json!({
                "name": cell.to_string(), "peer": cell.peer.folder(), "version": daemon::version(cell.peer),
                "place": cell.place, "mode": cell.mode, "family": cell.family, "auth": cell.auth,
                "suite": cell.suite.name, "ike": cell.ike(), "esp": cell.suite.esp, "initiator": cell.initiator,
                "play": cell.play, "green": outcome.is_some_and(|o| o.failed.is_none()),
                "reason": outcome.and_then(|o| o.failed.clone()), "done": outcome.map(|o| &o.done),
                "seconds": outcome.map(|o| o.seconds),
            })
        }).collect();
        serde_json::json!({
            "warren": Warren::version(), "peers": versions, "cells": cells,
            "green": self.cells.len() - failed, "red": failed, "seconds": seconds,
        })
    }
}

fn row(cell: &Cell, outcome: &Outcome) {
    let name = cell.to_string();
    let play = name.rsplit(' ').next().unwrap_or_default();
    let verdict = if outcome.failed.is_none() { "green" } else { "RED" };
    println!(
        "{:<20} {:<16} {:<6} {:<9} {:<3} {:<5} {:<8} {:<9} {play:<8} {verdict} {:.1} s",
        cell.peer.folder(),
        daemon::version(cell.peer),
        lower(&cell.place),
        lower(&cell.mode),
        lower(&cell.family),
        lower(&cell.auth),
        cell.suite.name,
        lower(&cell.initiator),
        outcome.seconds
    );
    if let Some(failed) = &outcome.failed {
        println!("    worked: {}", outcome.done.join(", "));
        println!("    {}", failed.replace('\n', "\n    "));
    }
}

fn keep_logs(cell: &Cell, outcome: &Outcome) {
    let (Some(failed), dir) = (&outcome.failed, folder().join("red")) else { return };
    let text = format!("{cell}\n{failed}\n{}\n", outcome.logs.as_deref().unwrap_or(""));
    let written = std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(dir.join(cell.to_string().replace(' ', "_")), text));
    if let Err(error) = written {
        eprintln!("warren-interop: {}: {error}", dir.display());
    }
}
