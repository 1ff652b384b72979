//! Mobility and multihoming (RFC 4555): what an IKE SA keeps of it, and how its notifies are read and written.
//!
//! A host has one address by which its peers know it, its *home*: identities, tables and traffic selectors are about
//! that one, and it never moves. What moves is where the packets of a tunnel go, the [`Path`]. In transport mode the
//! two are one, so there is no mobility there (RFC 4555 is about tunnel mode alone).

use std::net::{IpAddr, SocketAddr};

use wire::payload::{Notify, Payload};
use wire::registry::{NotifyType, ProtocolId};

use crate::config::{Auth, PeerConfig};
use crate::ike_sa::{error_notify, find_notify};
use crate::nat::NatState;

/// Additional addresses that are told, and of a peer's those that are remembered; further ones are passed over.
pub const MOST_TOLD: usize = 8;

/// Between which two ends the packets of an IKE SA and of its child SAs go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// This host's address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// A path that is tried: requests go there, and the SAs follow once the peer has answered from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trial {
    pub(crate) path: Path,
    /// Who is behind a NAT there, if the peer has said.
    pub(crate) nat: Option<NatState>,
    /// How often a request was repeated there.
    pub(crate) sends: u32,
}

/// Of an IKE SA whose both ends announced MOBIKE.
#[derive(Clone, Default)]
pub(crate) struct Mobility {
    /// Further addresses of the peer.
    pub(crate) theirs: Vec<IpAddr>,
    /// Those of this host that the peer was told last.
    pub(crate) told: Vec<IpAddr>,
    pub(crate) trial: Option<Trial>,
    /// What the peer saw of this host when it was last asked: its NAT_DETECTION_DESTINATION_IP.
    pub(crate) seen_as: Option<Vec<u8>>,
    /// Own addresses that the peer refused since it last accepted one.
    pub(crate) refused: Vec<IpAddr>,
}

/// Whether MOBIKE is announced to a peer: only tunnels can move, and only with a peer that has proven who it is.
pub(crate) fn wanted(config: &PeerConfig) -> bool {
    let proven = !matches!(config.auth, Auth::Null);
    config.common.mobike && proven && config.child.mode == ipsec::sa::Mode::Tunnel
}

/// Whether packets can go to this address from another host.
pub fn is_reachable(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    let nowhere = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !special && !nowhere
}

/// The additional addresses of a message; `None`: it says nothing of them, and what was said before holds.
pub fn additional(payloads: &[Payload]) -> Option<Vec<IpAddr>> {
    let mut said = find_notify(payloads, NotifyType::NO_ADDITIONAL_ADDRESSES).is_some();
    let mut all = Vec::new();
    for payload in payloads {
        let Payload::Notify(notify) = payload else { continue };
        let address = match notify.kind {
            NotifyType::ADDITIONAL_IP4_ADDRESS => {
                <[u8; 4]>::try_from(&*notify.data).map(IpAddr::from)
            }
            NotifyType::ADDITIONAL_IP6_ADDRESS => {
                <[u8; 16]>::try_from(&*notify.data).map(IpAddr::from)
            }
            _ => continue,
        };
        said = true;
        if let Ok(address) = address
            && is_reachable(address)
            && all.len() < MOST_TOLD
            && !all.contains(&address)
        {
            all.push(address);
        }
    }
    said.then_some(all)
}

/// The same, to be sent.
pub fn additional_payloads(addresses: &[IpAddr]) -> Vec<Payload> {
    if addresses.is_empty() {
        return vec![error_notify(NotifyType::NO_ADDITIONAL_ADDRESSES)];
    }
    let notify = |address: &IpAddr| match address {
        IpAddr::V4(v4) => with_data(NotifyType::ADDITIONAL_IP4_ADDRESS, v4.octets().to_vec()),
        IpAddr::V6(v6) => with_data(NotifyType::ADDITIONAL_IP6_ADDRESS, v6.octets().to_vec()),
    };
    addresses.iter().take(MOST_TOLD).map(notify).collect()
}

/// The COOKIE2 of a message: 8 to 64 octets (RFC 4555 4.2.5).
pub fn cookie2(payloads: &[Payload]) -> Option<&[u8]> {
    let data = find_notify(payloads, NotifyType::COOKIE2).map(|notify| notify.data.as_slice());
    data.filter(|data| (8..=64).contains(&data.len()))
}

/// The same, to be sent.
pub fn cookie2_payload(cookie: &[u8]) -> Payload {
    with_data(NotifyType::COOKIE2, cookie.to_vec())
}

/// Whether the sender allowed no NAT, and there is one: its NO_NATS_ALLOWED names other ends than `path`, between which
/// the message came (RFC 4555 3.9).
pub fn is_translated(payloads: &[Payload], path: Path) -> bool {
    let said = find_notify(payloads, NotifyType::NO_NATS_ALLOWED);
    said.is_some_and(|notify| notify.data != ends_as_sent(path))
}

/// Source and destination address, source and destination port, as the peer sent them.
fn ends_as_sent(path: Path) -> Vec<u8> {
    let mut data = Vec::new();
    for address in [path.remote.ip(), path.local.ip()] {
        match address {
            IpAddr::V4(v4) => data.extend(v4.octets()),
            IpAddr::V6(v6) => data.extend(v6.octets()),
        }
    }
    data.extend(path.remote.port().to_be_bytes());
    data.extend(path.local.port().to_be_bytes());
    data
}

fn with_data(kind: NotifyType, data: Vec<u8>) -> Payload {
    Payload::Notify(Notify { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data })
}
