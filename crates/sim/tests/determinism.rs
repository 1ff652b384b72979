//! One seed chooses everything.

use sim::{Options, RunReport, scenario};

fn run(name: &str, seed: u64) -> RunReport {
    let scenario = scenario::find(name).expect("a scenario of this name");
    sim::run(Options { scenario, hosts: 4, seed, duration: None })
}

fn shown(report: &RunReport) -> String {
    serde_json::to_string(report).expect("a report is plain data")
}

#[test]
fn the_same_seed_is_the_same_run_to_the_last_event() {
    for scenario in scenario::short() {
        let (first, second) = (run(scenario.name(), 11), run(scenario.name(), 11));
        assert!(first.events > 100, "{} hardly happened", scenario.name());
        assert_eq!(shown(&first), shown(&second));
    }
}

#[test]
fn another_seed_is_another_run() {
    let traces: std::collections::BTreeSet<_> =
        (1..=8).map(|seed| run("mesh", seed).trace).collect();
    assert_eq!(traces.len(), 8);
}

#[test]
fn a_report_says_how_to_repeat_it() {
    let report = run("mesh", 3);
    assert_eq!(report.replay(), "warren sim --scenario mesh --hosts 4 --seed 3");
}
