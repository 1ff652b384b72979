//! What became of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::fleet::Recipe;
use crate::net::Weather;
use crate::violation::Violation;

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Which scenario.
    pub scenario: &'static str,
    /// How many hosts.
    pub hosts: usize,
    /// Which seed: with scenario and hosts it repeats the run.
    pub seed: u64,
    /// Whether nothing went wrong.
    pub ok: bool,
    /// Pairs of hosts whose traffic the manifest wants protected.
    pub pairs: usize,
    /// Of these up at the end.
    pub pairs_up: usize,
    /// IKE SAs that one host holds with one peer, at most, at the end.
    pub ike_sas_per_pair_max: usize,
    /// Child SAs that one host holds with one peer, at most, at the end.
    pub child_sas_per_pair_max: usize,
    /// Packets that applications sent.
    pub packets_sent: u64,
    /// Of these delivered.
    pub packets_delivered: u64,
    /// Of these not delivered though no fault excuses it.
    pub packets_lost: u64,
    /// Packets of protected pairs that were readable on a link.
    pub cleartext_packets: u64,
    /// ESP packets on the links.
    pub esp_packets: u64,
    /// IKE messages on the links.
    pub ike_messages: u64,
    /// Time from the start to all pairs being up for the first time, if they ever were.
    pub seconds_to_all_up: Option<f64>,
    /// Time from the end of the faults to all pairs being up.
    pub seconds_to_recover: Option<f64>,
    /// Time that passed in the world.
    pub seconds: f64,
    /// Events that happened.
    pub events: u64,
    /// Digest of all events: two runs of one seed have the same.
    pub trace: String,
    /// What the seed chose for the fleet.
    pub recipe: Recipe,
    /// What the seed chose for the links while there were faults.
    pub weather: Weather,
    /// What was held at several points of a long run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<Weight>,
    /// What went wrong; the first ends the run.
    pub violations: Vec<Violation>,
    /// The last messages of the pair that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ladder: Option<String>,
}

/// What is held at some point of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Weight {
    /// Seconds since the world began.
    pub seconds: f64,
    /// Entries of all daemons' tables, and SAs of all data planes.
    pub tables: BTreeMap<&'static str, usize>,
    /// Bytes of heap that the process holds, where somebody measures that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap: Option<usize>,
}

impl RunReport {
    /// The command line that repeats the run.
    pub fn replay(&self) -> String {
        let Self { scenario, hosts, seed, .. } = self;
        format!("warren sim --scenario {scenario} --hosts {hosts} --seed {seed}")
    }
}

/// Times are told in seconds.
pub(crate) fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}
