//! `warren lab scenario`: incidents on real daemons, one file each.
//!
//! A scenario plays on a [`Stage`]: it breaks something, measures, and says beside each measurement what is required.
//! It ends well only where all of them hold. What is required is what the product promises; it is not a scenario's to
//! ask for less.

mod add_remove;
mod boot_gap;
mod clusters;
mod dpd_storm;
mod drift;
mod exempt;
mod expired;
mod flood;
mod halfling;
mod mesh;
mod mtu;
mod multi_homed;
mod nat;
mod reboot;
mod rekey;
mod restart;
mod rollout;
mod rotate_ca;
mod rotate_leaf;
mod stuck_peer;
mod thundering_herd;

use super::net::Host;
use super::stage::{Stage, Stopped};
use super::stop::Stop;
use crate::args::LabScenario;
use crate::exit::Failure;
use crate::print::println;

/// A scenario.
pub trait Scenario: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What happens, in one line.
    fn about(&self) -> &'static str;

    /// What must be measured, in one line.
    fn required(&self) -> &'static str;

    /// Least, usual and largest number of hosts.
    fn hosts(&self) -> (u16, u16, u16) {
        (2, 4, 60)
    }

    /// How many of so many hosts have a namespace and a daemon each; the others the scenario brings itself.
    fn real_hosts(&self, hosts: u16) -> u16 {
        hosts
    }

    /// What the hosts have beyond one interface with one address.
    fn furnish(&self, _hosts: &mut [Host]) {}

    /// Plays it. Every host has the stage's recipe for its manifest; no daemon runs.
    ///
    /// # Errors
    /// If it cannot go on; the findings so far are shown all the same.
    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped>;
}

/// All scenarios.
pub fn all() -> &'static [&'static dyn Scenario] {
    &[
        &mesh::Mesh,
        &restart::Restart,
        &drift::Drift,
        &halfling::Halfling,
        &boot_gap::BootGap,
        &exempt::Exempt,
        &rollout::Rollout,
        &add_remove::AddRemove,
        &reboot::Reboot,
        &stuck_peer::StuckPeer,
        &rekey::Rekey,
        &rotate_leaf::RotateLeaf,
        &rotate_ca::RotateCa,
        &expired::Expired,
        &clusters::Clusters,
        &multi_homed::MultiHomed,
        &mtu::Mtu,
        &dpd_storm::DpdStorm,
        &nat::Nat,
        &flood::Flood,
        &thundering_herd::ThunderingHerd,
    ]
}

fn find(name: &str) -> Result<&'static dyn Scenario, Failure> {
    all().iter().copied().find(|scenario| scenario.name() == name).ok_or_else(|| {
        let names: Vec<_> = all().iter().map(|scenario| scenario.name()).collect();
        Failure::Usage(format!("no scenario `{name}`; there are {}", names.join(", ")))
    })
}

/// Runs what is wanted.
pub fn run(wanted: &LabScenario, json: bool) -> Result<(), Failure> {
    if wanted.list {
        list(json);
        return Ok(());
    }
    let chosen = if wanted.all {
        all().to_vec()
    } else {
        wanted.names.iter().map(|name| find(name)).collect::<Result<_, _>>()?
    };
    let stop = Stop::on_signals().map_err(Failure::no)?;
    let mut failed = Vec::new();
    for scenario in &chosen {
        if !one(*scenario, wanted, json, &stop)? {
            failed.push(scenario.name());
        }
    }
    if chosen.len() > 1 && !json {
        let passed = chosen.len() - failed.len();
        println!("{passed} of {} scenarios passed", chosen.len());
        if !failed.is_empty() {
            println!("failed: {}", failed.join(", "));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Printed) }
}

fn one(
    scenario: &dyn Scenario,
    wanted: &LabScenario,
    json: bool,
    stop: &Stop,
) -> Result<bool, Failure> {
    if !json {
        println!("{}: {}", scenario.name(), scenario.about());
    }
    let mut stage = Stage::build(scenario, wanted, json, stop)?;
    let played = scenario.play(&mut stage);
    stage.quiet();
    let mut findings = stage.findings.clone();
    drop(stage);
    match played {
        Err(Stopped::Interrupted) => {
            return Err(Failure::No("interrupted; the hosts are taken away".into()));
        }
        Err(Stopped::Failed(text)) => findings.error = Some(text),
        Ok(()) => {}
    }
    let passed = findings.judge();
    if json {
        println!("{}", serde_json::to_string(&findings).map_err(Failure::no)?);
    } else {
        println!("\n{}\n", findings.text());
    }
    Ok(passed)
}

fn list(json: bool) {
    if json {
        let entry = |s: &&dyn Scenario| {
            let (least, usual, most) = s.hosts();
            serde_json::json!({
                "name": s.name(), "about": s.about(), "required": s.required(),
                "hosts": { "least": least, "usual": usual, "most": most },
            })
        };
        println!("{}", serde_json::Value::Array(all().iter().map(entry).collect()));
        return;
    }
    for scenario in all() {
        println!("{:<14} {}", scenario.name(), scenario.about());
        println!("{:<14} required: {}", "", scenario.required());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_numbers_fit() {
        let mut names: Vec<_> = all().iter().map(|s| s.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
        for scenario in all() {
            let (least, usual, most) = scenario.hosts();
            assert!(2 <= least && least <= usual && usual <= most && most <= 1001);
            assert!((2..=120).contains(&scenario.real_hosts(most)));
            assert!(!scenario.about().is_empty() && !scenario.required().is_empty());
        }
    }
}
