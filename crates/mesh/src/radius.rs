//! What a new manifest does to each pair, before it is in force.

use std::net::IpAddr;

use serde::Serialize;

use crate::status::State;

/// One pair for which something changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PairChange {
    /// The peer.
    pub address: IpAddr,
    /// Its name, by the new manifest or else by the old one.
    pub name: Option<String>,
    /// Where its tunnel stands now.
    pub state: State,
    /// What happens.
    pub effect: Effect,
    /// Why, or what that means, in one line.
    pub because: String,
}

/// What happens to a pair. Where several do, the one that comes first here is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Its traffic passes in the clear from then on, all of it or some.
    GoesClear,
    /// Its traffic is dropped from then on, all of it or some.
    CutOff,
    /// No peer any more: the tunnel goes.
    Removed,
    /// A peer from then on.
    Added,
    /// The tunnel is replaced, without a gap.
    Renegotiated,
    /// Exceptions change; the tunnel stays.
    PoliciesChange,
}

/// All pairs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Radius {
    /// Those for which something changes, by address.
    pub changed: Vec<PairChange>,
    /// How many are left alone.
    pub untouched: usize,
}
