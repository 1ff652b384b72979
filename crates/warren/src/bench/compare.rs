//! Figures of one run beside each other, and the goals.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::load::Measured;
use super::table;
use crate::exit::Failure;
use crate::print::println;

/// The peer that goals are set by: the one that leaves segmentation to the kernel as well.
const RIVAL: &str = "wireguard-go";

/// One goal.
struct Goal {
    what: &'static str,
    ours: f64,
    theirs: f64,
    /// Of ours to theirs; at least, or at most.
    wanted: f64,
    at_least: bool,
}

impl Goal {
    fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    fn met(&self) -> bool {
        if self.at_least { self.ratio() >= self.wanted } else { self.ratio() <= self.wanted }
    }
}

/// What `bench esp` has written, and what `bench path` has of each peer: the files' names name them.
pub fn run(ours: &Path, peers: &[std::path::PathBuf], json: bool) -> Result<(), Failure> {
    let whole: Value = read(ours)?;
    let esp = measured(&whole["esp"], ours)?;
    let bare = measured(&whole["bare_wire"], ours)?;
    let mut others = Vec::new();
    for file in peers {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        others.push((name, measured(&read(file)?, file)?));
    }
    let goals = goals(&esp, &others);
    if json {
        let goals: Vec<_> = goals.iter().map(show).collect();
        let peers: serde_json::Map<_, _> =
            others.iter().map(|(name, m)| (name.clone(), json!(m))).collect();
        println!(
            "{}",
            json!({"esp": esp, "bare_wire": bare, "cipher": whole["cipher"], "peers": peers, "goals": goals})
        );
        return Ok(());
    }
    let mut rows = vec![("bare wire", &bare), ("warren", &esp)];
    rows.extend(others.iter().map(|(name, m)| (name.as_str(), m)));
    table(&rows);
    println!("\n{:<44}{:>12}{:>12}{:>8}{:>10}", "goal", "warren", "peer", "ratio", "");
    for goal in &goals {
        let sign = if goal.at_least { "≥" } else { "≤" };
        println!(
            "{:<44}{:>12.1}{:>12.1}{:>8.2}  {sign} {:<4} {}",
            goal.what,
            goal.ours,
            goal.theirs,
            goal.ratio(),
            goal.wanted,
            if goal.met() { "met" } else { "MISSED" }
        );
    }
    Ok(())
}

fn goals(esp: &Measured, others: &[(String, Measured)]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let cpu = |m: &Measured| m.cpu_s_per_gb.iter().sum::<f64>();
    let best = |of: fn(&Measured) -> f64, pick: fn(f64, f64) -> f64| {
        others.iter().map(|(_, m)| of(m)).reduce(pick).unwrap_or(f64::NAN)
    };
    let mut goal = |what, ours, theirs, wanted, at_least| {
        goals.push(Goal { what, ours, theirs, wanted, at_least });
    };
    if let Some((_, rival)) = others.iter().find(|(name, _)| name == RIVAL) {
        let (a, b) = (esp.tcp_1_mbit_per_s, rival.tcp_1_mbit_per_s);
        goal("1 stream, Mbit/s, to wireguard-go", a, b, 2.5, true);
        let (a, b) = (esp.tcp_4_mbit_per_s, rival.tcp_4_mbit_per_s);
        goal("4 streams, Mbit/s, to wireguard-go", a, b, 2.5, true);
        goal("CPU s/GB, both ends, to wireguard-go", cpu(esp), cpu(rival), 0.5, false);
    }
    if !others.is_empty() {
        goal(
            "64 byte, kpps, to the best",
            esp.small_kpps,
            best(|m| m.small_kpps, f64::max),
            1.5,
            true,
        );
        goal(
            "1400 byte, kpps, to the best",
            esp.large_kpps,
            best(|m| m.large_kpps, f64::max),
            1.5,
            true,
        );
        goal(
            "round trip p50, µs, to the best",
            esp.rtt_p50_us,
            best(|m| m.rtt_p50_us, f64::min),
            1.0,
            false,
        );
        goal(
            "round trip p99, µs, to the best",
            esp.rtt_p99_us,
            best(|m| m.rtt_p99_us, f64::min),
            1.0,
            false,
        );
    }
    goals
}

fn show(goal: &Goal) -> Value {
    json!({
        "goal": goal.what, "warren": goal.ours, "peer": goal.theirs, "ratio": goal.ratio(),
        (if goal.at_least { "at_least" } else { "at_most" }): goal.wanted, "met": goal.met(),
    })
}

fn read(file: &Path) -> Result<Value, Failure> {
    let named = |error: &dyn std::fmt::Display| Failure::No(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| named(&error))?;
    serde_json::from_str(&text).map_err(|error| named(&error))
}

fn measured(value: &Value, file: &Path) -> Result<Measured, Failure> {
    serde_json::from_value(value.clone())
        .map_err(|error| Failure::No(format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(mbit: f64, kpps: f64, rtt: f64, cpu: f64) -> Measured {
        Measured {
            tcp_1_mbit_per_s: mbit,
            tcp_4_mbit_per_s: mbit,
            small_kpps: kpps,
            large_kpps: kpps,
            rtt_p50_us: rtt,
            rtt_p99_us: rtt,
            cpu_s_per_gb: vec![cpu, cpu],
        }
    }

    #[test]
    fn goals_are_met_by_the_right_peer_or_said_to_be_missed() {
        let others = [
            (RIVAL.to_owned(), figures(1000.0, 100.0, 90.0, 2.0)),
            ("other".to_owned(), figures(9000.0, 200.0, 70.0, 0.1)),
        ];
        let met: Vec<_> =
            goals(&figures(2500.0, 300.0, 71.0, 1.0), &others).iter().map(Goal::met).collect();
        assert_eq!(met, [true, true, true, true, true, false, false]);
        assert!(goals(&figures(1.0, 1.0, 1.0, 1.0), &[]).is_empty());
    }
}
