//! What a mesh reports: to the log, to `warren monitor`, to tests.

use std::net::IpAddr;

use serde::Serialize;

/// Something worth telling.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Event {
    /// Seconds since the Unix epoch.
    pub time: u64,
    /// How loud.
    pub level: Level,
    /// Whom it concerns; `None`: this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// That peer's name, if the manifest gives it one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What happened.
    #[serde(rename = "event")]
    pub kind: Kind,
    /// In words, with the remedy where there is one.
    pub text: String,
}

/// How loud; as the manifest's `log_level`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For whoever follows one peer.
    Debug,
    /// Normal life.
    Info,
    /// Needs a look.
    Warn,
    /// Something does not work.
    Error,
    /// Will stop working in days.
    Critical,
}

/// What happened. The words are those of strongSwan's alerts and events where it has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A manifest took effect.
    ManifestLoaded,
    /// An IKE SA is established.
    IkeUp,
    /// An IKE SA is gone.
    IkeDown,
    /// An IKE SA was replaced.
    IkeRekey,
    /// A child SA is established.
    ChildUp,
    /// A child SA is gone.
    ChildDown,
    /// A child SA was replaced.
    ChildRekey,
    /// A tunnel to a peer is being set up.
    Connecting,
    /// A peer's state changed in another way (wanted down, wanted up, given up).
    PeerState,
    /// A peer did not answer while a tunnel was set up.
    PeerInitUnreachable,
    /// A request was sent again.
    RetransmitSend,
    /// An established peer stopped answering.
    RetransmitTimeout,
    /// No common IKE proposal.
    ProposalMismatchIke,
    /// No common ESP proposal.
    ProposalMismatchChild,
    /// No common traffic selectors.
    TsMismatch,
    /// The peer refused this host's proof.
    LocalAuthFailed,
    /// The peer's proof was refused here.
    PeerAuthFailed,
    /// An exchange failed for another reason.
    ExchangeFailed,
    /// A second IKE SA or child SA with one peer was closed: one is kept.
    UniqueReplace,
    /// A peer proved that it started anew.
    InitialContact,
    /// A tunnel goes between other addresses or ports: a NAT's mapping, or MOBIKE.
    IkeUpdate,
    /// A peer sends its tunnel to another gateway; followed, or not.
    Redirect,
    /// The data plane refused an SA.
    InstallChildSaFailed,
    /// The data plane refused a policy.
    InstallPolicyFailed,
    /// The data plane was not as it should be, and was put right.
    Drift,
    /// ESP came for an SPI that does not exist.
    InvalidSpi,
    /// Cleartext came that must be protected.
    ClearIn,
    /// A datagram was dropped for what the peer did.
    Dropped,
    /// `optional` is on: traffic may pass in the clear.
    Optional,
    /// A certificate nears its end.
    CertExpires,
    /// A certificate is past its end.
    CertExpired,
    /// SAs of this host's last process were taken over, or not.
    Adopted,
    /// A table is full.
    Full,
}
