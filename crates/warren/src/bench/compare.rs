//! Figures of one run beside each other, and the goals: those of the data plane by its peers, those of the control plane
//! by the bare cryptography and by bounds.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::goal::{Beside, Goal};
use super::load::Measured;
use super::{control, goal, table};
use crate::exit::Failure;
use crate::print::println;

/// The peer that goals are set by: the one that leaves segmentation to the kernel as well.
const RIVAL: &str = "wireguard-go";

/// What `bench esp` has written, what `bench path` has of each peer (the files' names name them), and what `bench
/// ike|mesh|manifest` have.
pub fn run(ours: &Path, peers: &[PathBuf], control: &[PathBuf], json: bool) -> Result<(), Failure> {
    let whole: Value = read(ours)?;
    let esp = measured(&whole["esp"], ours)?;
    let bare = measured(&whole["bare_wire"], ours)?;
    let mut others = Vec::new();
    for file in peers {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        others.push((name, measured(&read(file)?, file)?));
    }
    let mut goals = goals(&esp, &others);
    let mut figures = serde_json::Map::new();
    for file in control {
        let Value::Object(measured) = read(file)? else {
            return Err(Failure::No(format!(
                "{}: no figures of the control plane",
                file.display()
            )));
        };
        figures.extend(measured);
    }
    let figures = Value::Object(figures);
    goals.extend(control::goals(&figures));
    if json {
        let goals: Vec<_> = goals.iter().map(Goal::shown).collect();
        let peers: serde_json::Map<_, _> =
            others.iter().map(|(name, m)| (name.clone(), json!(m))).collect();
        println!(
            "{}",
            json!({"esp": esp, "bare_wire": bare, "cipher": whole["cipher"], "peers": peers,
                "control": figures, "goals": goals})
        );
        return Ok(());
    }
    let mut rows = vec![("bare wire", &bare), ("warren", &esp)];
    rows.extend(others.iter().map(|(name, m)| (name.as_str(), m)));
    table(&rows);
    println!();
    goal::print(&goals);
    Ok(())
}

fn goals(esp: &Measured, others: &[(String, Measured)]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let cpu = |m: &Measured| m.cpu_s_per_gb.iter().sum::<f64>();
    let best = |of: fn(&Measured) -> f64, pick: fn(f64, f64) -> f64| {
        others.iter().map(|(_, m)| of(m)).reduce(pick).unwrap_or(f64::NAN)
    };
    let mut goal = |what: &str, ours, theirs, wanted, at_least| {
        goals.push(Goal {
            what: what.to_owned(),
            ours,
            beside: Beside::Peer(theirs),
            wanted,
            at_least,
        });
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
