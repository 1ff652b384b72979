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
pub fn narrow(
    policy: &Selectors,
    request: &Selectors,
    hosts: Option<Hosts>,
) -> Result<Selectors, Unacceptable> {
    let tsi = narrow_side(&policy.tsi, &request.tsi, hosts.map(|h| h.initiator))?;
    let tsr = narrow_side(&policy.tsr, &request.tsr, hosts.map(|h| h.responder))?;
    Ok(Selectors { tsi, tsr })
}

/// As initiator: an answer must be a non-empty subset of the offer, on both sides.
pub fn check_narrowed(offered: &Selectors, answered: &Selectors) -> Result<(), Misbehaviour> {
    let within = |offered: &[TrafficSelector], answered: &[TrafficSelector]| {
        let covered = |ts: &TrafficSelector| offered.iter().any(|offer| offer.contains(ts));
        !answered.is_empty() && answered.iter().all(covered)
    };
    let both = within(&offered.tsi, &answered.tsi) && within(&offered.tsr, &answered.tsr);
    if both { Ok(()) } else { Err(Misbehaviour::WidenedSelectors) }
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
/// host sees (`seen`: the addresses of the IKE SA), so that policy can be looked up, or an answer
/// checked (RFC 7296 2.23.1: the responder does it to the request, the initiator to offer and answer).
/// `None` if a side that is behind a NAT has not exactly one address: then nothing is replaced.
pub fn substitute(
    request: &Selectors,
    seen: Hosts,
    initiator_behind: bool,
    responder_behind: bool,
) -> Option<Substituted> {
    let mut out = Substituted { selectors: request.clone(), original: seen, seen };
    if initiator_behind {
        out.original.initiator = single_address(&request.tsi)?;
        out.selectors.tsi = relocate(&request.tsi, seen.initiator);
    }
    if responder_behind {
        out.original.responder = single_address(&request.tsr)?;
        out.selectors.tsr = relocate(&request.tsr, seen.responder);
    }
    Some(out)
}

/// An answer in transport mode as its initiator sees the hosts. A responder may name a host behind a NAT by the address
/// that it sees, or by the one that was offered; here it is that of the IKE SA (RFC 7296 2.23.1). `behind`: whether
/// initiator and responder are behind NATs. Where nothing can be replaced, the answer is as it was.
pub fn as_seen(answered: Selectors, seen: Hosts, behind: (bool, bool)) -> Selectors {
    match substitute(&answered, seen, behind.0, behind.1) {
        Some(substituted) => substituted.selectors,
        None => answered,
    }
}

/// The single address of either side as selectors have it on the wire, in transport mode through a NAT.
///
/// A rekey proposes what the old SA has (RFC 7296 2.9.2). There that is what both ends have once agreed on, and not what
/// this host makes of it: a peer that replaces addresses (RFC 7296 2.23.1) does so whatever they are, and one that
/// does not knows only these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Names {
    /// Of this host.
    pub local: IpAddr,
    /// Of the peer.
    pub remote: IpAddr,
}

impl Names {
    /// Read from selectors on the wire; `None` if a side has not exactly one address.
    pub fn of(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Option<Self> {
        Some(Self { local: single_address(local)?, remote: single_address(remote)? })
    }

    /// An offer of this host in these names; a side of more than one address stays.
    pub fn offer(&self, selectors: &Selectors) -> Selectors {
        let named = |side: &[TrafficSelector], name| match single_address(side) {
            Some(_) => relocate(side, name),
            None => side.to_vec(),
        };
        Selectors {
            tsi: named(&selectors.tsi, self.local),
            tsr: named(&selectors.tsr, self.remote),
        }
    }
}

impl Substituted {
    /// The answer to send: `narrowed` with the peers' own addresses put back.
    pub fn restore(&self, narrowed: &Selectors) -> Selectors {
        let back = |side: &[TrafficSelector], seen: IpAddr, original: IpAddr| {
            if single_address(side) == Some(seen) {
                relocate(side, original)
            } else {
                side.to_vec()
            }
        };
        Selectors {
            tsi: back(&narrowed.tsi, self.seen.initiator, self.original.initiator),
            tsr: back(&narrowed.tsr, self.seen.responder, self.original.responder),
        }
    }
}

fn narrow_side(
    policy: &[TrafficSelector],
    request: &[TrafficSelector],
    host: Option<IpAddr>,
) -> Result<Vec<TrafficSelector>, Unacceptable> {
    let clip = |ts: TrafficSelector| match host {
        Some(addr) => ts.intersect(&TrafficSelector::host(addr)),
        None => Some(ts),
    };
    let mut out: Vec<TrafficSelector> = Vec::new();
    let common = |wanted| policy.iter().filter_map(move |own| own.intersect(wanted));
    for ts in request.iter().flat_map(common).filter_map(clip) {
        if out.len() < MAX_SELECTORS && !out.iter().any(|there| there.contains(&ts)) {
            out.push(ts);
        }
    }
    if out.is_empty() { Err(Unacceptable) } else { Ok(out) }
}

/// The one address that all selectors of a side name.
fn single_address(side: &[TrafficSelector]) -> Option<IpAddr> {
    let first = side.first()?.start;
    side.iter().all(|ts| ts.start == first && ts.end == first).then_some(first)
}

fn relocate(side: &[TrafficSelector], to: IpAddr) -> Vec<TrafficSelector> {
    side.iter().map(|ts| TrafficSelector { start: to, end: to, ..*ts }).collect()
}
