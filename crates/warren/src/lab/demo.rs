//! `warren lab demo`: a mesh, traffic between all pairs, a watched wire, a verdict; nothing stays.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::report::{Cell, Report};
use super::stop::Stop;
use super::traffic::{End, Traffic};
use super::wire::{Counts, Watch};
use super::{Lab, daemons};
use crate::args::LabShape;
use crate::exit::Failure;
use crate::print::println;

/// The first packet of every pair may wait so long for its SA.
const ALL_UP: Duration = Duration::from_secs(180);
const ROUNDS: u32 = 50;

/// Runs it; ends 1 unless everything holds.
pub fn run(shape: &LabShape, json: bool) -> Result<(), Failure> {
    let stop = Stop::on_signals().map_err(Failure::no)?;
    say(json, &format!("building {} hosts on one switch", shape.hosts));
    let lab = Lab::build(shape, &format!("warren-demo-{}", std::process::id()))?;
    let outcome = play(&lab, json, &stop);
    lab.remove(shape.keep.as_deref());
    let (report, counts) = outcome?;
    if json {
        println!("{}", serde_json::to_string(&report).map_err(Failure::no)?);
    } else {
        println!("\n{}", report.text());
        counts.leaks.iter().for_each(|leak| println!("in the clear: {leak}"));
    }
    if report.passed() { Ok(()) } else { Err(Failure::Printed) }
}

fn play(lab: &Lab, json: bool, stop: &Stop) -> Result<(Report, Counts), Failure> {
    say(json, &format!("starting {} daemons", lab.hosts.len()));
    let mut children = lab.start(&|| stop.wanted())?;
    let outcome = measure(lab, json, stop);
    daemons::end(&mut children);
    outcome
}

fn measure(lab: &Lab, json: bool, stop: &Stop) -> Result<(Report, Counts), Failure> {
    let stopped = || stop.wanted();
    let watch = Watch::start(&lab.hosts).map_err(Failure::No)?;
    let ends = End::all(&lab.hosts);
    let mut traffic = Traffic::open(&ends).map_err(Failure::No)?;
    let kernel = daemons::status(&lab.dir, &lab.hosts[0])["node"]["data_plane"] == "kernel";
    let open = if kernel { knock } else { first_packets };
    let all_up = open(json, &mut traffic, &stopped);
    if all_up.is_some() {
        say(json, "all pairs have heard from each other; now a stream between all of them");
        traffic.rounds(ROUNDS, &stopped);
        traffic.drain(Duration::from_secs(5), &stopped);
    }
    let statuses = settled(lab, &ends, &stopped);
    let counts = watch.finish().map_err(Failure::No)?;
    if stop.wanted() {
        return Err(Failure::No("interrupted; the hosts are taken away".into()));
    }
    Ok((report(lab, &ends, &traffic, &statuses, &counts, all_up), counts))
}

/// The first packet of each pair brings up its tunnel and must arrive all the same.
fn first_packets(json: bool, traffic: &mut Traffic, stopped: &dyn Fn() -> bool) -> Option<f64> {
    say(
        json,
        "every host sends to every other: the first packet brings up the tunnel, and waits for it",
    );
    let start = Instant::now();
    traffic.round();
    traffic.drain(ALL_UP, stopped).map(|_| start.elapsed().as_secs_f64())
}

/// A kernel drops the packet that asks for an SA, whichever IKE daemon it asks: the packets that
/// bring up the tunnels are repeated, and not counted.
fn knock(json: bool, traffic: &mut Traffic, stopped: &dyn Fn() -> bool) -> Option<f64> {
    say(
        json,
        "every host knocks at every other until the tunnels stand: the kernel does not hold first packets",
    );
    traffic.knock(ALL_UP, stopped).map(|took| took.as_secs_f64())
}

/// At every end, its host's status once nobody has more than one SA of a kind with anybody, or after a while.
fn settled(lab: &Lab, ends: &[End<'_>], stop: &dyn Fn() -> bool) -> Vec<Value> {
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        let statuses: Vec<Value> =
            lab.hosts.iter().map(|host| daemons::status(&lab.dir, host)).collect();
        let one = |peer: &Value| count(peer, "ike_sas") == 1 && count(peer, "child_sas") == 1;
        let calm = statuses
            .iter()
            .all(|status| status["peers"].as_array().is_some_and(|peers| peers.iter().all(one)));
        if calm || Instant::now() > end || stop() {
            let of = |end: &End<'_>| lab.hosts.iter().position(|host| host.name == end.host.name);
            return ends.iter().filter_map(|end| statuses.get(of(end)?).cloned()).collect();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn report(
    lab: &Lab,
    ends: &[End<'_>],
    traffic: &Traffic,
    statuses: &[Value],
    counts: &Counts,
    all_up: Option<f64>,
) -> Report {
    let cell = |from: usize, to: usize| {
        let peers = statuses[from]["peers"].as_array();
        let address = ends[to].address.to_string();
        let peer =
            peers.and_then(|peers| peers.iter().find(|peer| peer["address"] == address.as_str()));
        let peer = peer.cloned().unwrap_or(Value::Null);
        Cell {
            state: peer["state"].as_str().unwrap_or("unknown").to_owned(),
            sent: traffic.sent[from][to],
            received: traffic.received[from][to],
            ike_sas: count(&peer, "ike_sas"),
            child_sas: count(&peer, "child_sas"),
            reason: (peer["state"] != "up")
                .then(|| peer["reason"].as_str().unwrap_or_default().to_owned()),
        }
    };
    let all = 0..ends.len();
    let matrix = all
        .clone()
        .map(|from| {
            all.clone()
                .map(|to| if traffic.is_pair(from, to) { cell(from, to) } else { Cell::default() })
                .collect()
        })
        .collect();
    let names = ends.iter().map(End::name).collect();
    let addresses = ends.iter().map(|end| end.address.to_string()).collect();
    let mut report = Report::new(names, addresses, matrix);
    report.hosts = lab.hosts.len();
    report.cleartext_packets = counts.clear;
    report.esp_packets = counts.esp;
    report.ike_packets = counts.ike;
    report.capture_drops = counts.missed;
    report.seconds_to_all_up = all_up.map(|seconds| (seconds * 1000.0).round() / 1000.0);
    report.data_plane = statuses[0]["node"]["data_plane"].as_str().unwrap_or("unknown").to_owned();
    report.suites = suites(&statuses[0]);
    report.judge();
    report
}

fn suites(status: &Value) -> String {
    let peer = &status["peers"][0];
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let mode = text(&peer["child_sas"][0]["mode"]);
    format!(
        "IKE {}, ESP {} ({mode} mode)",
        text(&peer["ike_sas"][0]["suite"]),
        text(&peer["child_sas"][0]["suite"])
    )
}

fn count(peer: &Value, key: &str) -> usize {
    peer[key].as_array().map_or(0, Vec::len)
}

fn say(json: bool, line: &str) {
    if !json {
        println!("{line}");
    }
}
