//! Small worlds in which all goes well: some seeds of every scenario.

use std::time::Duration;

use sim::{Options, RunReport, scenario};

fn play(name: &str, hosts: usize, seeds: std::ops::RangeInclusive<u64>) -> Vec<RunReport> {
    let scenario = scenario::find(name).expect("a scenario of this name");
    let run = |seed| {
        let report = sim::run(Options { scenario, hosts, seed, duration: None });
        let ladder = report.ladder.as_deref().unwrap_or_default();
        assert!(report.ok, "{}\n{:#?}\n{ladder}", report.replay(), report.violations);
        report
    };
    seeds.map(run).collect()
}

#[test]
fn every_pair_of_a_mesh_comes_up_and_settles_to_one_tunnel() {
    for report in play("mesh", 5, 1..=12) {
        assert_eq!((report.pairs, report.pairs_up), (10, 10));
        assert_eq!((report.ike_sas_per_pair_max, report.child_sas_per_pair_max), (1, 1));
        assert_eq!((report.packets_lost, report.cleartext_packets), (0, 0));
        assert!(report.esp_packets >= report.packets_delivered && report.packets_delivered > 400);
        assert!(report.seconds_to_all_up.is_some());
    }
}

#[test]
fn where_no_link_loses_anything_every_packet_arrives_the_first_ones_too() {
    let reports = play("mesh", 5, 1..=12);
    let lossless = reports.iter().filter(|report| report.weather.loses_nothing());
    let counts: Vec<_> = lossless.map(|r| (r.packets_sent, r.packets_delivered)).collect();
    assert!(!counts.is_empty());
    assert!(counts.iter().all(|(sent, delivered)| sent == delivered), "{counts:?}");
}

#[test]
fn rekeys_under_load_lose_nothing() {
    for report in play("rekey", 3, 1..=6) {
        assert_eq!(report.packets_lost, 0);
        // Child SAs of at most 9 s for a minute: each pair rekeys many times.
        assert!(report.ike_messages > 3 * 6 * 4, "{} messages", report.ike_messages);
    }
}

#[test]
fn a_host_that_lost_everything_is_back_in_three_seconds() {
    for report in play("reboot", 4, 1..=6) {
        assert_eq!((report.pairs_up, report.packets_lost), (6, 0));
        assert_eq!((report.ike_sas_per_pair_max, report.child_sas_per_pair_max), (1, 1));
    }
}

#[test]
fn outages_leave_no_pile_of_sas() {
    for report in play("dpd-storm", 4, 1..=6) {
        assert!(report.seconds_to_recover.is_some());
        assert_eq!((report.ike_sas_per_pair_max, report.child_sas_per_pair_max), (1, 1));
    }
}

#[test]
fn bad_links_end_well() {
    let reports = play("lossy", 3, 1..=4);
    assert!(reports.iter().all(|report| report.pairs_up == 3));
    assert!(reports.iter().all(|report| report.packets_delivered < report.packets_sent));
}

/// Those that have no test of their own above; each host count is one that the scenario needs.
#[test]
fn the_other_incidents_end_well() {
    let some = [
        ("halfling", 4),
        ("drift", 4),
        ("restart", 4),
        ("add-remove", 4),
        ("stuck-peer", 5),
        ("split", 4),
        ("rollout", 4),
        ("rotate-leaf", 3),
        ("rotate-ca", 3),
        ("expired", 3),
        ("clusters", 4),
        ("thundering-herd", 40),
        ("flood", 3),
        ("nat", 3),
    ];
    for (name, hosts) in some {
        for report in play(name, hosts, 1..=4) {
            assert_eq!(report.packets_lost, 0);
        }
    }
}

#[test]
fn hours_of_rekeys_leave_nothing_behind() {
    let scenario = scenario::find("soak").expect("a scenario of this name");
    let duration = Some(Duration::from_secs(4 * 3600));
    let report = sim::run(Options { scenario, hosts: 4, seed: 1, duration });
    assert!(report.ok, "{:#?}", report.violations);
    // Six pairs; child SAs live half an hour.
    assert!(report.ike_messages > 6 * 8 * 2, "{} messages", report.ike_messages);
}
