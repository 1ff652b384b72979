//! `warren sim`: the daemon logic in the deterministic simulator, one line a seed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use sim::report::Weight;
use sim::{RunReport, Scenario};

use crate::args::Sim;
use crate::exit::Failure;
use crate::print::{complain, println};

/// Worlds of so many hosts take so long, and so much memory, that it is said which ones are being played.
const LARGE: u16 = 50;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// All runs of one call.
#[derive(Serialize)]
struct Summary {
    ok: bool,
    scenario: &'static str,
    hosts: usize,
    seeds: u64,
    failed: Vec<u64>,
    packets_sent: u64,
    packets_lost: u64,
    cleartext_packets: u64,
    esp_packets: u64,
    runs: Vec<RunReport>,
}

/// Plays the scenario, or all of them, once for each seed; ends 1 if one run fails.
pub fn run(args: &Sim, json: bool) -> Result<(), Failure> {
    let scenarios = match args.scenario.as_str() {
        "all" => sim::scenario::short().collect::<Vec<_>>(),
        name => vec![sim::scenario::find(name).ok_or_else(|| unknown(name))?],
    };
    let mut failed = Vec::new();
    let all = scenarios.len();
    for scenario in scenarios {
        let seeds = play(scenario, args, json);
        failed.extend(seeds.into_iter().map(|seed| (scenario.name(), seed)));
    }
    if all > 1 && !json {
        print_failed(all, &failed, args.hosts);
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Printed) }
}

/// Plays one scenario; the seeds whose runs are not good.
fn play(scenario: &'static dyn Scenario, args: &Sim, json: bool) -> Vec<u64> {
    if !json {
        println!("scenario {}: {}", scenario.name(), scenario.about());
    }
    let begin = Instant::now();
    let mut runs = Vec::new();
    each_seed(scenario, args, |report, took| {
        if !json {
            print_run(&report, took);
        }
        runs.push(report);
    });
    let summary = summary(scenario, args, runs);
    match serde_json::to_string(&summary) {
        Ok(text) if json => println!("{text}"),
        _ => print_summary(&summary, begin.elapsed()),
    }
    summary.failed
}

/// Plays as many seeds at once as there are cores, and gives the reports in the order of the seeds.
fn each_seed(
    scenario: &'static dyn Scenario,
    args: &Sim,
    mut give: impl FnMut(RunReport, Duration),
) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (next, (done, reports)) = (AtomicU64::new(0), mpsc::channel());
    let work = |done: mpsc::Sender<_>| loop {
        let number = next.fetch_add(1, Relaxed);
        if number >= args.seeds {
            return;
        }
        let seed = args.seed.wrapping_add(number);
        let (hosts, duration) = (usize::from(args.hosts), args.duration);
        let started = Instant::now();
        let options = sim::Options { scenario, hosts, seed, duration };
        if args.hosts >= LARGE {
            // Should this process be killed, or the run never end, its last words say where.
            let name = scenario.name();
            complain(format_args!("playing {name} with {hosts} hosts, seed {seed}"));
        }
        let report = sim::run_with(options, |world| {
            // What several worlds hold at once is nobody's.
            if args.seeds == 1 {
                world.measure_heap_with(linux::memory::heap_in_use);
            }
        });
        // Whoever listens does so to the end.
        let _ = done.send((number, (report, started.elapsed())));
    };
    thread::scope(|scope| {
        for _ in 0..cores {
            let done = done.clone();
            scope.spawn(|| work(done));
        }
        drop(done);
        let (mut early, mut turn) = (BTreeMap::new(), 0);
        for (number, result) in reports {
            early.insert(number, result);
            while let Some((report, took)) = early.remove(&turn) {
                give(report, took);
                turn += 1;
            }
        }
    });
}

fn unknown(name: &str) -> Failure {
    let names: Vec<_> = sim::scenario::all().iter().map(|scenario| scenario.name()).collect();
    Failure::Usage(format!("there is no scenario `{name}`; there are {}", names.join(", ")))
}

fn summary(scenario: &dyn Scenario, args: &Sim, runs: Vec<RunReport>) -> Summary {
    let failed: Vec<_> = runs.iter().filter(|run| !run.ok).map(|run| run.seed).collect();
    let sum = |of: fn(&RunReport) -> u64| runs.iter().map(of).sum();
    Summary {
        ok: failed.is_empty(),
        scenario: scenario.name(),
        hosts: usize::from(args.hosts),
        seeds: args.seeds,
        failed,
        packets_sent: sum(|run| run.packets_sent),
        packets_lost: sum(|run| run.packets_lost),
        cleartext_packets: sum(|run| run.cleartext_packets),
        esp_packets: sum(|run| run.esp_packets),
        runs,
    }
}

fn print_run(run: &RunReport, took: Duration) {
    let verdict = if run.ok { format!("{GREEN}ok  {PLAIN}") } else { format!("{RED}FAIL{PLAIN}") };
    let seconds = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1} s"));
    println!(
        "seed {:<5} {verdict} {:>4}/{} pairs up, first after {:>6}, again {:>6}; {:>7} sent, {} lost, {} clear ({:.1} s)",
        run.seed,
        run.pairs_up,
        run.pairs,
        seconds(run.seconds_to_all_up),
        seconds(run.seconds_to_recover),
        run.packets_sent,
        run.packets_lost,
        run.cleartext_packets,
        took.as_secs_f64(),
    );
    print_weights(&run.weights);
    if run.ok {
        return;
    }
    for violation in &run.violations {
        println!("  {RED}{violation}{PLAIN}");
    }
    if let Some(ladder) = &run.ladder {
        println!("\n{ladder}");
    }
    println!("  again: {}\n", run.replay());
}

/// What was held, at some of the points where that was looked at; the last one is that after the end.
fn print_weights(weights: &[Weight]) {
    let few = weights.len().div_ceil(8).max(1);
    for weight in weights.iter().rev().step_by(few).collect::<Vec<_>>().into_iter().rev() {
        let of = |table| weight.tables.get(table).copied().unwrap_or(0);
        let heap = weight.heap.map(|bytes| format!(", heap {:.2} MB", bytes as f64 / 1e6));
        println!(
            "  {:>7.2} h: {} IKE SAs, {} child SAs, {} SAs installed, {} timers{}",
            weight.seconds / 3600.0,
            of("IKE SAs"),
            of("child SAs"),
            of("installed SAs"),
            of("timers"),
            heap.unwrap_or_default(),
        );
    }
}

/// What is to be looked at, at the end of all scenarios.
fn print_failed(all: usize, failed: &[(&str, u64)], hosts: u16) {
    match failed {
        [] => println!("{GREEN}all {all} scenarios good{PLAIN}, {hosts} hosts"),
        _ => {
            println!("{RED}{} runs failed{PLAIN} of {all} scenarios, {hosts} hosts:", failed.len())
        }
    }
    for (scenario, seed) in failed {
        println!("  warren sim --scenario {scenario} --hosts {hosts} --seed {seed}");
    }
}

fn print_summary(summary: &Summary, took: Duration) {
    let good = summary.seeds - summary.failed.len() as u64;
    let colour = if summary.ok { GREEN } else { RED };
    println!(
        "{colour}{good} of {} seeds good{PLAIN}, {} hosts: {} packets sent, {} lost, {} clear, {} ESP, {:.1} s",
        summary.seeds,
        summary.hosts,
        summary.packets_sent,
        summary.packets_lost,
        summary.cleartext_packets,
        summary.esp_packets,
        took.as_secs_f64(),
    );
}
