//! What `warren plan --enforce` answers: whether `optional: true` can go.

use std::net::IpAddr;

use serde::Serialize;

/// The answer, as this host sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Readiness {
    /// Nothing would be cut off.
    pub ready: bool,
    /// Why, in one line.
    pub reason: String,
    /// The time that was asked for, in seconds.
    pub within_s: u64,
    /// For how long cleartext has been watched; `null` where it is not.
    pub watched_s: Option<u64>,
    /// The hosts that are peers: in the manifest, or seen.
    pub pairs: Vec<PairReadiness>,
}

/// One of them. Ages are in seconds; `null`: not seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PairReadiness {
    /// The peer.
    pub address: IpAddr,
    /// Its name, if the manifest gives it one.
    pub name: Option<String>,
    /// ESP went both ways within that time, and nothing in the clear.
    pub ready: bool,
    /// What is missing, in one line; empty where nothing is.
    pub missing: String,
    /// Since ESP came from it.
    pub esp_in_s: Option<u64>,
    /// Since ESP went to it.
    pub esp_out_s: Option<u64>,
    /// Since something came from it in the clear.
    pub clear_in_s: Option<u64>,
    /// Since something went to it in the clear.
    pub clear_out_s: Option<u64>,
}

/// How well cleartext was watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watched {
    /// Since when; `None`: it is not.
    pub since: Option<ipsec::Instant>,
    /// When something last passed that was not looked at.
    pub missed: Option<ipsec::Instant>,
}
