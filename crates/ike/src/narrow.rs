//! Traffic selectors: narrowing (RFC 7296 2.9) and NAT in transport mode (RFC 7296 2.23.1).

use std::net::IpAddr;

use wire::selector::TrafficSelector;

use crate::error::Misbehaviour;

/// The selectors of both sides of a child SA, by who initiated the exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selectors {
    /// Of the initiator's side.
    pub tsi: Vec<TrafficSelector>,
    /// Of the responder's side.
    pub tsr: Vec<TrafficSelector>,
}

/// No packet is admitted by both sides: TS_UNACCEPTABLE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no common traffic selectors")]
pub struct Unacceptable;

/// The two ends of an SA in transport mode, by who initiated the exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hosts {
    /// The initiator's address.
    pub initiator: IpAddr,
    /// The responder's address.
    pub responder: IpAddr,
}

/// At most so many selectors a side are answered.
pub const MAX_SELECTORS: usize = 64;

/// As responder: narrows the request to policy. `policy.tsr` is this host's side. With `hosts`
/// (transport mode) nothing but the two ends' own addresses stays.
///
/// The initiator's first selectors stay in the answer, and first, if policy admits them (RFC 7296 2.9).
pub fn narrow(policy: &Selectors, request: &Selectors, hosts: Option<Hosts>) -> Result<Selectors, Unacceptable> {
    let _ = (policy, request, hosts);
    todo!()
}

/// As initiator: an answer must be a non-empty subset of the offer, on both sides.
pub fn check_narrowed(offered: &Selectors, answered: &Selectors) -> Result<(), Misbehaviour> {
    let _ = (offered, answered);
    todo!()
}

/// Selectors with the addresses of hosts behind NATs replaced, and what undoes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Substituted {
    /// With addresses as this host sees them.
    pub selectors: Selectors,
    /// What stood there: the peers' own addresses (original addresses of RFC 7296 2.23.1).
    pub original: Hosts,
    seen: Hosts,
}

/// Replaces, in transport mode with NAT, the single address of each side by the address which this
/// host sees (`seen`: the addresses of the IKE SA), so that policy can be looked up (RFC 7296 2.23.1).
/// `None` if a side that is behind a NAT has not exactly one address: then nothing is replaced.
pub fn substitute(request: &Selectors, seen: Hosts, initiator_behind: bool, responder_behind: bool) -> Option<Substituted> {
    let _ = (request, seen, initiator_behind, responder_behind);
    todo!()
}

impl Substituted {
    /// The answer to send: `narrowed` with the peers' own addresses put back.
    pub fn restore(&self, narrowed: &Selectors) -> Selectors {
        let _ = (narrowed, self.seen);
        todo!()
    }
}
