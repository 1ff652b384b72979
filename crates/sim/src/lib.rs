//! A world of hosts on one thread: the real daemon logic, the real packet pipeline, toy
//! cryptography, virtual time, bad links, and a judge that knows the manifest alone.
//!
//! One seed chooses everything: a run is replayed from it, event for event. A run has a phase of
//! chaos, in which nothing may ever go wrong that must never go wrong, and a phase of calm, in
//! which everything must come right within a bound.
#![forbid(unsafe_code)]

pub mod agenda;
pub mod dice;
pub mod fleet;
pub mod host;
pub mod ladder;
pub mod ledger;
pub mod nat;
pub mod net;
pub mod oracle;
pub mod packet;
pub mod report;
pub mod scenario;
pub mod survey;
pub mod violation;
pub mod world;

pub use report::RunReport;
pub use scenario::Scenario;
pub use violation::{Violation, What};
pub use world::World;

use std::time::Duration;

/// Hosts of one world.
pub const MOST_HOSTS: usize = 10_000;

/// Which run.
#[derive(Clone, Copy)]
pub struct Options {
    /// What happens.
    pub scenario: &'static dyn Scenario,
    /// How many hosts, 2 to [`MOST_HOSTS`]; what is outside is taken as the nearest.
    pub hosts: usize,
    /// What chooses everything else.
    pub seed: u64,
    /// How long the main part lasts, in scenarios that have one of any length.
    pub duration: Option<Duration>,
}

/// Plays a scenario once. The same options give the same report, to the last event.
pub fn run(options: Options) -> RunReport {
    run_with(options, |_| {})
}

/// The same in a world that was tampered with before it began: how the judge is judged.
pub fn run_with(options: Options, tamper: impl FnOnce(&mut World)) -> RunReport {
    let mut world = World::new(&options);
    tamper(&mut world);
    // A world that stopped keeps what made it stop: the report says it.
    let _ = options.scenario.play(&mut world);
    world.into_report(&options)
}
