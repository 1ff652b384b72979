//! What is asked of a data plane: an ordered list of changes, each idempotent.

use std::sync::Arc;

use crate::sa::{Outer, Sa, SaKey};
use crate::spd::{Policy, PolicyKey};

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Install or replace an SA.
    AddSa(Arc<Sa>),
    /// An SA that an earlier process installed goes on as this one, whose keys are empty: the data plane alone has them.
    /// Refused where it is not there, or is another.
    AdoptSa(Arc<Sa>),
    /// Take an SA away; absent is success.
    RemoveSa(SaKey),
    /// An SA goes on between other addresses or ports, with its keys, counters and window. Its key may be another then.
    MoveSa {
        /// Which SA.
        key: SaKey,
        /// Where it goes.
        outer: Outer,
    },
    /// Install or replace a policy.
    PutPolicy(Policy),
    /// Take a policy away; absent is success.
    RemovePolicy(PolicyKey),
    /// Drop the packets that wait for an SA to this peer: it was refused.
    DropQueued(std::net::IpAddr),
}

/// Changes in the order in which they must be made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch(pub Vec<Change>);

/// A change that the data plane refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Index in the batch.
    pub index: usize,
    /// Why.
    pub reason: RefusalReason,
}

/// Why a change was refused; `Display` says what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RefusalReason {
    /// The algorithms are not available there.
    #[error("the data plane has no {0}")]
    NoAlgorithm(String),
    /// Its tables are full.
    #[error("the data plane is full: {0}")]
    Full(String),
    /// There is no memory for it at the moment.
    #[error("the data plane is short of memory: {0}")]
    NoMemory(String),
    /// What is to be changed is not there (any more).
    #[error("it is not there: {0}")]
    Gone(String),
    /// It lacks a privilege.
    #[error("not permitted: {0}")]
    Denied(String),
    /// Somebody else's entry is in the way.
    #[error("a foreign entry is in the way: {0}")]
    Conflict(String),
    /// Anything else that the kernel says.
    #[error("{0}")]
    Other(String),
}

impl RefusalReason {
    /// All names, for counters.
    pub const NAMES: [&str; 7] =
        ["no_algorithm", "full", "no_memory", "gone", "denied", "conflict", "other"];

    /// One of [`Self::NAMES`].
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoAlgorithm(_) => "no_algorithm",
            Self::Full(_) => "full",
            Self::NoMemory(_) => "no_memory",
            Self::Gone(_) => "gone",
            Self::Denied(_) => "denied",
            Self::Conflict(_) => "conflict",
            Self::Other(_) => "other",
        }
    }
}
