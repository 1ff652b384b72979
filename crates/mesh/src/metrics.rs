//! Gauges and counters by name; who serves them over HTTP is the program.

/// One sample in the Prometheus data model.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// `warren_…`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Counter or gauge.
    pub counter: bool,
    /// Labels with their values.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: f64,
}
