//! Gauges and counters by name; who serves them over HTTP is the program.

use std::collections::BTreeMap;

use ike::error::Misbehaviour;
use ipsec::change::RefusalReason;

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

/// What is counted since start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// IKE datagrams received.
    pub datagrams_in: u64,
    /// IKE datagrams sent.
    pub datagrams_out: u64,
    /// IKE datagrams received before there was a manifest.
    pub before_manifest: u64,
    /// Handshakes begun here.
    pub initiated: u64,
    /// IKE SAs established.
    pub ike_established: u64,
    /// IKE SAs replaced.
    pub ike_rekeyed: u64,
    /// Child SAs established.
    pub child_established: u64,
    /// Child SAs replaced.
    pub child_rekeyed: u64,
    /// Exchanges that failed.
    pub failures: u64,
    /// Requests sent again.
    pub retransmits: u64,
    /// Redirects of peers that were followed.
    pub redirects_followed: u64,
    /// And those that were not.
    pub redirects_refused: u64,
    /// Packets that asked for an SA.
    pub acquires: u64,
    /// Changes that the data plane refused, by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// ESP for SPIs that do not exist, as reported.
    pub unknown_spi: u64,
    /// Cleartext that must be protected, as reported.
    pub clear_in: u64,
    /// Peers that found no room in the table.
    pub table_full: u64,
    /// Datagrams dropped for what the peer did.
    pub dropped: BTreeMap<Misbehaviour, u64>,
    /// The data plane's own, as of the last look.
    pub data_plane: Vec<(&'static str, u64)>,
}

impl Counters {
    /// The data plane refused a change.
    pub fn refused(&mut self, reason: &RefusalReason) {
        *self.refusals.entry(reason.name()).or_default() += 1;
    }

    /// All of them as samples.
    pub fn samples(&self) -> Vec<Sample> {
        let plain = [
            ("warren_ike_datagrams_received_total", "IKE datagrams received", self.datagrams_in),
            ("warren_ike_datagrams_sent_total", "IKE datagrams sent", self.datagrams_out),
            (
                "warren_ike_datagrams_before_manifest_total",
                "IKE datagrams before a manifest",
                self.before_manifest,
            ),
            ("warren_handshakes_begun_total", "handshakes begun by this host", self.initiated),
            ("warren_ike_sas_established_total", "IKE SAs established", self.ike_established),
            ("warren_ike_rekeys_total", "IKE SAs rekeyed", self.ike_rekeyed),
            ("warren_child_sas_established_total", "child SAs established", self.child_established),
            ("warren_child_rekeys_total", "child SAs rekeyed", self.child_rekeyed),
            ("warren_exchange_failures_total", "exchanges that failed", self.failures),
            ("warren_ike_retransmits_total", "IKE requests sent again", self.retransmits),
            (
                "warren_redirects_followed_total",
                "redirects to another gateway that were followed",
                self.redirects_followed,
            ),
            (
                "warren_redirects_refused_total",
                "redirects to another gateway that were not followed",
                self.redirects_refused,
            ),
            ("warren_acquires_total", "packets that asked for an SA", self.acquires),
            ("warren_esp_unknown_spi_total", "ESP for unknown SPIs, as reported", self.unknown_spi),
            (
                "warren_cleartext_dropped_total",
                "cleartext that must be protected, as reported",
                self.clear_in,
            ),
            ("warren_peer_table_full_total", "peers that found no room", self.table_full),
        ];
        let plain = plain.map(|(name, help, value)| counter(name, help, Vec::new(), value));
        let dropped = self.dropped.iter().map(|(what, n)| {
            counter(
                "warren_ike_dropped_total",
                "IKE datagrams dropped, by reason",
                vec![("reason", what.to_string())],
                *n,
            )
        });
        let refusals = RefusalReason::NAMES.iter().map(|reason| {
            counter(
                "warren_data_plane_refusals_total",
                "changes that the data plane refused, by reason",
                vec![("reason", (*reason).to_owned())],
                self.refusals.get(reason).copied().unwrap_or(0),
            )
        });
        let data_plane = self.data_plane.iter().map(|(what, n)| {
            let labels = vec![("counter", (*what).to_owned())];
            counter("warren_data_plane_total", "the data plane's own counters", labels, *n)
        });
        plain.into_iter().chain(dropped).chain(refusals).chain(data_plane).collect()
    }
}

/// A value that goes up and down.
pub fn gauge(
    name: &'static str,
    help: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
) -> Sample {
    Sample { name, help, counter: false, labels, value }
}

fn counter(
    name: &'static str,
    help: &'static str,
    labels: Vec<(&'static str, String)>,
    n: u64,
) -> Sample {
    Sample { name, help, counter: true, labels, value: n as f64 }
}
