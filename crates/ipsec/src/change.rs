//! What is asked of a data plane: an ordered list of changes, each idempotent.

use std::net::SocketAddr;

use crate::sa::{Sa, SaKey};
use crate::spd::{Policy, PolicyKey};

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Install or replace an SA.
    AddSa(Box<Sa>),
    /// Take an SA away; absent is success.
    RemoveSa(SaKey),
    /// The peer behind a NAT has a new address or port: outbound SAs to it, inbound from it.
    MoveSa {
        /// Which SA.
        key: SaKey,
        /// The peer's new address and UDP port.
        remote: SocketAddr,
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
