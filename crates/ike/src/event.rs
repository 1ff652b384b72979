//! What an endpoint tells its owner.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipsec::Instant;
use ipsec::sa::{Mode, Outer, Reqid, Sa, SaKey};
use wire::esp::Spi;
use wire::identity::Identity;
use wire::message::IkeSpi;
use wire::selector::TrafficSelector;

use crate::error::{Failure, Misbehaviour};
use crate::redirect::{NotFollowed, Redirect};

/// Names an IKE SA in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IkeSaId(pub u64);

/// Names a child SA (a pair of ESP SAs) in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChildId(pub u64);

/// Something that happened. The order among events and transmissions is part of the meaning: an
/// `InstallInbound` stands before the transmission that lets the peer use that SA.
#[derive(Debug, Clone)]
pub enum Event {
    /// An IKE SA is established, both sides authenticated.
    IkeUp(IkeInfo),
    /// A peer has shown these certificates, right after its `IkeUp`.
    Proven {
        /// Over which IKE SA.
        id: IkeSaId,
        /// The peer.
        remote: IpAddr,
        /// What it has shown.
        proof: Box<PeerProof>,
    },
    /// An IKE SA replaces another; the children moved over to it.
    IkeRekeyed {
        /// The old one; its end is reported by `IkeDown` of its own.
        old: IkeSaId,
        /// The new one.
        new: IkeInfo,
    },
    /// The peer refused to rekey an IKE SA, which stands; it is asked again a minute later.
    IkeRekeyFailed {
        /// Which.
        id: IkeSaId,
        /// The peer.
        remote: IpAddr,
        /// Why.
        reason: Failure,
    },
    /// An IKE SA is gone, half-open ones included. Its children are reported gone before.
    IkeDown {
        /// Which.
        id: IkeSaId,
        /// The peer.
        remote: IpAddr,
        /// Why.
        reason: Failure,
    },
    /// Install this SA now.
    InstallInbound {
        /// Whose.
        child: ChildId,
        /// The peer.
        remote: IpAddr,
        /// The SA.
        sa: Arc<Sa>,
    },
    /// Install this SA now and send through it: newest wins.
    InstallOutbound {
        /// Whose.
        child: ChildId,
        /// The peer.
        remote: IpAddr,
        /// The SA.
        sa: Arc<Sa>,
    },
    /// A child SA is complete.
    ChildUp(ChildInfo),
    /// Another child SA serves instead of this one: take its outbound SA away now. The inbound one stays
    /// for packets under way; `ChildDown` follows some seconds later.
    RemoveOutbound {
        /// Of which child SA.
        child: ChildId,
        /// The SA.
        key: SaKey,
    },
    /// A child SA is gone: take both SAs away.
    ChildDown {
        /// Which.
        child: ChildId,
        /// Of which IKE SA.
        ike: IkeSaId,
        /// The peer.
        remote: IpAddr,
        /// What to take away.
        remove: Vec<SaKey>,
        /// Why.
        reason: Failure,
    },
    /// A child SA could not be created or rekeyed; the IKE SA stands.
    ChildFailed {
        /// Of which IKE SA.
        ike: IkeSaId,
        /// The peer.
        remote: IpAddr,
        /// The one that was to be rekeyed.
        replaces: Option<ChildId>,
        /// Why.
        reason: Failure,
    },
    /// The peer proved INITIAL_CONTACT: whatever it had with this (identity, address) before is void (already torn down here).
    InitialContact {
        /// The new IKE SA.
        id: IkeSaId,
        /// The peer.
        remote: IpAddr,
    },
    /// The address or port of an end changed (a NAT mapping, or MOBIKE); the SAs must follow.
    PeerMoved {
        /// Which IKE SA.
        id: IkeSaId,
        /// Where the peer is now.
        remote: SocketAddr,
        /// Between which addresses the SAs go now.
        outer: Outer,
        /// Outbound and inbound SAs concerned, by the names that they have so far.
        sas: Vec<SaKey>,
    },
    /// The peer wanted its SAs to go where they may not.
    MoveRefused {
        /// Which IKE SA.
        id: IkeSaId,
        /// Where.
        to: SocketAddr,
    },
    /// The peer of an established IKE SA sends this host to another gateway, to be followed by [`Endpoint::follow`]
    /// if nobody else is there.
    ///
    /// [`Endpoint::follow`]: crate::Endpoint::follow
    Redirected {
        /// Which IKE SA.
        id: IkeSaId,
        /// Where.
        redirect: Redirect,
    },
    /// The peer of an established IKE SA sends this host where it does not go.
    NotRedirected {
        /// Which IKE SA.
        id: IkeSaId,
        /// Why it does not.
        why: NotFollowed,
    },
    /// A sign of life: a fresh, verified message of the peer.
    Alive {
        /// Which IKE SA.
        id: IkeSaId,
        /// Round trip of the request that it answers.
        rtt: Option<std::time::Duration>,
    },
    /// The peer told how many packets came to it through child SAs that both ends hold.
    Compared {
        /// Over which IKE SA.
        id: IkeSaId,
        /// Child SAs, and packets that the peer received through each.
        received: Vec<(ChildId, u64)>,
    },
    /// A request came for an IKE SA that is not here. Anybody can send that.
    UnknownIke {
        /// From whom.
        remote: SocketAddr,
    },
    /// A request was sent again.
    Retransmitted {
        /// Which IKE SA.
        id: IkeSaId,
        /// The peer.
        remote: IpAddr,
        /// Which send this was; 2 is the first repetition.
        attempt: u32,
    },
    /// A datagram was dropped for what the peer did.
    Dropped {
        /// From whom.
        remote: SocketAddr,
        /// What it did.
        what: Misbehaviour,
    },
}

/// A CA, as a CERTREQ names it: SHA-1 of its SubjectPublicKeyInfo (RFC 7296 3.7).
pub type KeyId = [u8; 20];

/// What a peer authenticated itself with, and what it accepts of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProof {
    /// Subject of its certificate, RFC 4514.
    pub subject: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Last valid second since the Unix epoch.
    pub not_after: u64,
    /// The CA that it leads to here.
    pub ca: Option<KeyId>,
    /// CAs that the peer accepts; `None`: it has not said.
    pub trusts: Option<Vec<KeyId>>,
}

/// An established IKE SA.
#[derive(Debug, Clone)]
pub struct IkeInfo {
    /// Its name.
    pub id: IkeSaId,
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Whether this host was its initiator.
    pub initiator: bool,
    /// This host's address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The peer's proven identity.
    pub remote_id: Identity,
    /// Algorithms in strongSwan's syntax, `aes128-sha256-modp2048`.
    pub suite: String,
    /// When its handshake began here, or that of the IKE SA that it goes back to; later configuration had no part in it.
    pub began: Instant,
    /// When it was established.
    pub since: Instant,
    /// When it will be rekeyed.
    pub rekey_at: Instant,
}

/// A complete child SA.
#[derive(Debug, Clone)]
pub struct ChildInfo {
    /// Its name.
    pub id: ChildId,
    /// Its IKE SA.
    pub ike: IkeSaId,
    /// The peer, by the address that it was begun with; its packets may go elsewhere.
    pub remote: IpAddr,
    /// Policies that it serves.
    pub reqid: Reqid,
    /// SPI of the inbound SA.
    pub spi_in: Spi,
    /// SPI of the outbound SA.
    pub spi_out: Spi,
    /// Mode agreed.
    pub mode: Mode,
    /// Algorithms in strongSwan's syntax.
    pub suite: String,
    /// Selectors of this host's side.
    pub local_ts: Vec<TrafficSelector>,
    /// Selectors of the peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// ESP in UDP.
    pub encap: bool,
    /// Packets may be compressed with DEFLATE.
    pub compression: bool,
    /// The child that it replaces.
    pub replaces: Option<ChildId>,
    /// When it was established.
    pub since: Instant,
    /// When it will be rekeyed.
    pub rekey_at: Instant,
}
