//! What must not be.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

/// Something that must not be, with time and hosts.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Violation {
    /// Seconds since the world began.
    pub at: f64,
    /// What it is.
    pub what: What,
    /// The hosts concerned: one, or the two of a pair.
    pub hosts: Vec<IpAddr>,
    /// In words.
    pub text: String,
}

/// Every way in which a run can fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Traffic of a protected pair was readable on a link.
    Cleartext,
    /// A packet reached an application that was not meant for it, or twice, or that nobody sent.
    WrongDelivery,
    /// A packet that had to arrive did not.
    PacketLost,
    /// After the faults stopped, a planned pair was not up in time.
    NotUp,
    /// A host sends through an SA that the other end has not got.
    BlackHole,
    /// The ends of a pair do not hold the same SAs.
    SpiMismatch,
    /// More IKE SAs with one peer than allowed, or less.
    IkeSas,
    /// More child SAs with one peer than allowed, or less.
    ChildSas,
    /// An SA is still there after its hard lifetime, or has none.
    OutlivedLifetime,
    /// More messages between two hosts than any exchange needs.
    Storm,
    /// A host asks to be woken again and again without time passing, or never stops its outputs.
    Spin,
    /// The data plane was told something that no correct daemon tells it.
    DataPlane,
    /// A tunnel that nobody had touched was negotiated again.
    Touched,
    /// Two hosts that must not talk hold SAs of each other.
    NotIsolated,
    /// The daemon says something else than what is.
    WrongWord,
    /// What an operator asked for was not done.
    Disobeyed,
    /// A table of a daemon grew though nothing did that it is of.
    Growth,
    /// A host works through more events than it should: the world is too full.
    Overflow,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(IpAddr::to_string).collect();
        write!(f, "{:.6} {}: {}", self.at, hosts.join(" and "), self.text)
    }
}
