//! What an endpoint is told about a peer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::Credentials;
use crypto::Secret;
use ipsec::sa::{Limits, Mode, Reqid};
use wire::datagram::NON_ESP_MARKER;
use wire::identity::Identity;
use wire::proposal::Proposal;
use wire::selector::TrafficSelector;

use crate::ppk::Ppk;

/// The `fragment_size` for networks that are not known: what every IPv6 link carries (RFC 8200 5), and
/// few IPv4 paths do not. strongSwan's default too.
pub const FRAGMENT_SIZE: u16 = 1280;

/// How both sides prove who they are.
#[derive(Clone)]
pub enum Auth {
    /// By certificates and signatures; both ends (RFC 7427, and the older methods where the peer has no RFC 7427).
    Certificate(Arc<Credentials>),
    /// By a pre-shared key.
    Psk(Arc<Secret>),
    /// Not at all, neither end (RFC 7619): who listens learns nothing, who stands between the two learns all.
    Null,
}

/// Whether the first child SA comes with IKE_AUTH (RFC 6023). By itself, in an exchange of its own, its keys come of
/// a key exchange of their own, where the proposals ask for one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Childless {
    /// It does; a peer may begin without.
    #[default]
    Allow,
    /// By itself, if the peer can.
    Prefer,
    /// By itself; a peer that cannot is given up.
    Force,
}

/// One peer, or one class of peers: what is proposed, what is accepted.
#[derive(Clone)]
pub struct PeerConfig {
    /// This host's address towards the peer.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: IpAddr,
    /// What this host calls itself; `None`: the certificate's subject, or its address with a PSK.
    pub local_id: Option<Arc<Identity>>,
    /// Whom the peer must be; `None`: any identity that its certificate carries (with a PSK: any).
    pub remote_id: Option<Arc<Identity>>,
    /// Proof.
    pub auth: Auth,
    /// Acceptable IKE suites, best first.
    pub ike_proposals: Arc<[Proposal]>,
    /// The child SA that is negotiated with IKE_AUTH, and accepted from the peer.
    pub child: Arc<ChildConfig>,
    /// What holds with others too.
    pub common: Arc<Common>,
    /// The peer may send this host's tunnel to another gateway, which must prove to be [`remote_id`](Self::remote_id) as
    /// well (RFC 5685). Of no effect in transport mode.
    pub redirect: bool,
    /// Liveness check after this long without a sign of the peer; `None` never.
    pub dpd_delay: Option<Duration>,
    /// Rekey the IKE SA this long after it is up.
    pub ike_rekey_after: Duration,
    /// Whether INITIAL_CONTACT is sent in IKE_AUTH.
    pub initial_contact: bool,
    /// Largest IP packet in bytes that an encrypted message may make before it is sent in fragments, if
    /// the peer can gather them (RFC 7383); `None`: fragmentation is neither announced nor used.
    pub fragment_size: Option<u16>,
    /// A second secret against those who record now and compute later (RFC 8784).
    pub ppk: Option<Box<Ppk>>,
    /// How this host begins.
    pub childless: Childless,
}

/// What a host does with all its peers alike: kept once for all of them.
#[derive(Clone)]
pub struct Common {
    /// Lay the ESP in UDP even without a NAT, by reporting one (RFC 7296 2.23).
    pub force_encap: bool,
    /// Lay it in UDP if the peer prefers that too: this host's data plane is faster so. Nothing is said of a NAT.
    pub prefer_encap: bool,
    /// The tunnel may move between addresses, of either end (RFC 4555). Of no effect in transport mode.
    pub mobike: bool,
    /// Delete an IKE SA that could not be rekeyed this long after it is up.
    pub ike_hard_lifetime: Duration,
    /// Send a NAT keepalive after this long without outbound traffic, when behind a NAT (RFC 3948 4).
    pub keepalive: Duration,
    /// Retransmission of requests.
    pub retransmit: Retransmit,
    /// Name of this host's fleet: a peer that says it is of another one is refused.
    pub cluster: Option<String>,
}

/// Back-off of requests: `first`, then times `factor_percent`/100 each, at most `cap`, `tries` sends in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retransmit {
    /// Wait after the first send.
    pub first: Duration,
    /// Growth of the wait in percent; 100 is constant.
    pub factor_percent: u32,
    /// Longest wait.
    pub cap: Duration,
    /// Sends before the peer is given up.
    pub tries: u32,
}

/// One child SA.
#[derive(Clone)]
pub struct ChildConfig {
    /// Policies that it serves.
    pub reqid: Reqid,
    /// Mode asked for and accepted.
    pub mode: Mode,
    /// IPComp is offered and accepted; the data plane must be able to.
    pub compression: bool,
    /// Acceptable ESP suites, best first. A KE transform in one asks for PFS in CREATE_CHILD_SA.
    pub esp_proposals: Arc<[Proposal]>,
    /// This host's side, as wide as policy allows; an answer or a request is narrowed to it.
    pub local_ts: Arc<[TrafficSelector]>,
    /// The peer's side.
    pub remote_ts: Arc<[TrafficSelector]>,
    /// Anti-replay window in packets.
    pub replay_window: u32,
    /// Rekey this long after it is up.
    pub rekey_after: Duration,
    /// Byte, packet and hard time limits put into the SAs.
    pub limits: Arc<Limits>,
}

impl PeerConfig {
    /// Bytes of an IKE message that makes an IP packet of `fragment_size`. The non-ESP marker always
    /// counts: a request may be repeated on port 4500 as it is.
    pub(crate) fn message_limit(&self) -> Option<usize> {
        let ip = if self.remote.is_ipv6() { 40 } else { 20 };
        let headers = ip + UDP_HEADER + NON_ESP_MARKER.len();
        self.fragment_size.map(|size| usize::from(size).saturating_sub(headers))
    }
}

/// RFC 768.
const UDP_HEADER: usize = 8;

/// Where an endpoint looks up who may talk to it. Implemented by `mesh`.
pub trait Directory {
    /// The configuration for a peer that initiates from `remote` to `local`; `None`: not wanted here.
    fn responder(&self, local: IpAddr, remote: SocketAddr) -> Option<Arc<PeerConfig>>;

    /// Whether a tunnel with the peer of the address `peer`, which has proven to be it, may go to `to` instead: an address
    /// that is nobody else's. Asked only for addresses that packets can go to.
    fn may_move(&self, peer: IpAddr, to: IpAddr) -> bool {
        let _ = (peer, to);
        false
    }

    /// Whether `remote` is a member of the fleet: never asked for a cookie merely because many start at once.
    fn is_known(&self, remote: IpAddr) -> bool;

    /// Whether what an earlier process left is taken over, or will not be: from here on an IKE SA that is not there is lost.
    fn is_settled(&self) -> bool {
        true
    }

    /// How much public-key work waits on this host.
    fn load(&self) -> Load {
        Load::Light
    }
}

/// How much public-key work waits, and so who may bring more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Load {
    /// Little: a known peer begins a handshake with its first message.
    Light,
    /// Much: only who shows by a cookie that it receives what is sent to its address (RFC 7296 2.6), so that made-up
    /// requests leave room for real ones.
    Heavy,
    /// More than this host keeps up with: nobody. The peer asks again.
    Full,
}

impl Default for Retransmit {
    /// 1 s, doubling, at most 8 s, 7 sends: a peer is given up after about half a minute.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            factor_percent: 200,
            cap: Duration::from_secs(8),
            tries: 7,
        }
    }
}
