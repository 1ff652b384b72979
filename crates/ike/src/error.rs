//! Why an IKE SA or a child SA did not come about, and what a peer did wrong.

use crypto::chain::ChainError;
use wire::identity::Identity;
use wire::proposal::Proposal;
use wire::registry::NotifyType;
use wire::selector::TrafficSelector;

use crate::redirect::{NotFollowed, Redirect};
use crate::suite;

/// Why a peer's proof was not accepted. The peer is told AUTHENTICATION_FAILED and no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Its certificate or chain.
    #[error("{0}")]
    Chain(#[from] ChainError),
    /// No certificate came, and none is known for the identity.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// The signature or MAC is wrong.
    #[error("the peer's proof does not verify ({0})")]
    BadProof(String),
    /// It is somebody else.
    #[error("the peer is `{got}`, wanted is `{wanted}`")]
    WrongIdentity {
        /// From the manifest.
        wanted: Identity,
        /// From its ID payload.
        got: Identity,
    },
    /// The post-quantum pre-shared key (RFC 8784).
    #[error("{0}")]
    Ppk(&'static str),
    /// It proves itself in a way that is not configured here (a PSK where certificates are, …).
    #[error("the peer authenticates by {0}, which is not configured here")]
    MethodNotAllowed(String),
}

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer after all retransmissions.
    #[error("no answer from the peer after {tries} tries in {seconds} s ({during})")]
    Timeout {
        /// Which exchange.
        during: &'static str,
        /// Requests sent.
        tries: u32,
        /// From first send to giving up.
        seconds: u64,
    },
    /// The peer refused the proposals, or offered none that is acceptable here.
    #[error("no common {protocol} proposal: {by} refused; {}", both(.ours, .theirs))]
    NoProposalChosen {
        /// "IKE" or "ESP".
        protocol: &'static str,
        /// "the peer" or "this host".
        by: &'static str,
        /// What is acceptable here.
        ours: Vec<Proposal>,
        /// What the peer offered, or says that it would have taken.
        theirs: Vec<Proposal>,
    },
    /// One has transport mode, the other tunnel mode.
    #[error(
        "{ours} mode is configured here, {theirs} mode at the peer (`mode` of the two manifests differs)"
    )]
    OtherMode {
        /// "transport" or "tunnel".
        ours: &'static str,
        /// The other.
        theirs: &'static str,
    },
    /// Selectors do not overlap.
    #[error(
        "no common traffic selectors: ours {} === {}; theirs {} === {}",
        selectors(.ours_local),
        selectors(.ours_remote),
        selectors(.theirs_remote),
        selectors(.theirs_local)
    )]
    TsUnacceptable {
        /// This host's side, as configured here.
        ours_local: Vec<TrafficSelector>,
        /// The peer's side, as configured here.
        ours_remote: Vec<TrafficSelector>,
        /// The peer's side, as the peer asked for, or says that it would have taken; empty if it does not say.
        theirs_local: Vec<TrafficSelector>,
        /// This host's side, as the peer asked for.
        theirs_remote: Vec<TrafficSelector>,
    },
    /// The peer's proof was refused here.
    #[error("authentication of the peer failed: {0}")]
    PeerAuth(AuthError),
    /// The peer is of another fleet, by its own word.
    #[error("the peer belongs to another cluster (`cluster` of the two manifests differs)")]
    OtherCluster,
    /// The peer refused our proof.
    #[error("the peer refused our authentication (AUTHENTICATION_FAILED); its log says why")]
    RefusedByPeer,
    /// Any other error notify.
    #[error("the peer answered {0}")]
    PeerError(NotifyType),
    /// What the peer sent breaks the protocol.
    #[error("the peer broke the protocol: {0}")]
    Misbehaved(Misbehaviour),
    /// Something here: a key that cannot sign, an algorithm that is not there.
    #[error("{0}")]
    Local(String),
    /// The peer sent this host to another gateway, and it may be followed.
    #[error("the peer redirects to {}", .0.to)]
    Redirected(Redirect),
    /// The peer sent this host elsewhere, and it is not followed.
    #[error("the peer redirects, and is not followed: {0}")]
    NotRedirected(NotFollowed),
    /// The operator, the plan, or a newer SA ended it.
    #[error("ended: {0}")]
    Ended(EndReason),
}

impl Failure {
    /// Whether the peer has no room for another child SA in this IKE SA, as a minimal implementation never has
    /// (NO_ADDITIONAL_SAS): it is to be made with another IKE SA (RFC 7296 4).
    pub fn wants_another_ike_sa(&self) -> bool {
        matches!(self, Self::PeerError(NotifyType::NO_ADDITIONAL_SAS))
    }
}

/// What ended an SA in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// The peer deleted it.
    #[error("the peer deleted it")]
    PeerDeleted,
    /// Asked for here.
    #[error("deleted here")]
    Deleted,
    /// Replaced by its successor.
    #[error("rekeyed")]
    Rekeyed,
    /// Replaced by another that was authenticated anew (RFC 7296 2.8.3).
    #[error("replaced by a newly authenticated one")]
    Reauthenticated,
    /// The two ends do not agree on what there is (RFC 7296 2.25).
    #[error("the peer could not go on for minutes (TEMPORARY_FAILURE)")]
    OutOfStep,
    /// The loser of a simultaneous negotiation.
    #[error("redundant")]
    Redundant,
    /// The peer started anew (INITIAL_CONTACT).
    #[error("the peer started anew")]
    InitialContact,
    /// The peer says that it does not have it any more.
    #[error("the peer lost it")]
    PeerLost,
    /// Its lifetime was over before a rekey succeeded.
    #[error("its lifetime was over")]
    Expired,
}

/// What a peer did wrong; the same name labels the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Misbehaviour {
    /// Bytes that are no message, or a payload that is malformed.
    #[error("malformed message")]
    Malformed,
    /// An encrypted payload that does not verify.
    #[error("bad integrity check value")]
    BadIcv,
    /// A payload that the exchange needs is missing.
    #[error("missing payload")]
    MissingPayload,
    /// A payload that stands where it must not.
    #[error("unexpected payload")]
    UnexpectedPayload,
    /// A critical payload that is not known.
    #[error("unknown critical payload")]
    UnknownCritical,
    /// A response that chooses what was not offered.
    #[error("chose what was not offered")]
    ChoseUnoffered,
    /// Selectors wider than what was offered.
    #[error("selectors wider than offered")]
    WidenedSelectors,
    /// A public value that is not of the group.
    #[error("invalid public value")]
    BadPublicValue,
    /// Asked for another group more than once, or for one that was not offered.
    #[error("INVALID_KE_PAYLOAD without end")]
    KeLoop,
    /// Asked for a cookie again and again.
    #[error("COOKIE without end")]
    CookieLoop,
    /// A fragment that contradicts those that came before it (RFC 7383 2.6).
    #[error("fragment that fits no message")]
    Fragment,
    /// More fragments, or more inside them, than is gathered for one message.
    #[error("fragment limit")]
    FragmentLimit,
    /// A message id outside the window.
    #[error("message id outside the window")]
    MessageId,
    /// An exchange that does not belong in this state.
    #[error("exchange out of order")]
    OutOfOrder,
    /// Another COOKIE2 than it was sent (RFC 4555 3.7).
    #[error("COOKIE2 that was not sent")]
    Cookie2,
    /// REDIRECT without the nonce of the request that it claims to answer (RFC 5685).
    #[error("REDIRECT without the nonce that was sent")]
    Redirect,
    /// For an SPI that is not known.
    #[error("unknown IKE SPI")]
    UnknownSpi,
    /// More half-open SAs than allowed, or no valid cookie.
    #[error("half-open limit")]
    HalfOpenLimit,
    /// A first request, while this host has more public-key work than it keeps up with.
    #[error("busy")]
    Busy,
    /// A version that is not 2.
    #[error("unsupported major version")]
    Version,
    /// Nobody here wants to talk to this address.
    #[error("not a peer")]
    NotAPeer,
}

fn both(ours: &[Proposal], theirs: &[Proposal]) -> String {
    if theirs.is_empty() {
        return format!("ours: {}; theirs: not told, its log says", suite::list(ours));
    }
    suite::explain(ours, theirs)
}

/// Selectors that are shown; a peer may send many.
const SHOWN: usize = 4;

fn selectors(all: &[TrafficSelector]) -> String {
    let mut out: Vec<_> = all.iter().take(SHOWN).map(ToString::to_string).collect();
    if all.is_empty() {
        out.push("not told".to_owned());
    } else if all.len() > SHOWN {
        out.push(format!("and {} more", all.len() - SHOWN));
    }
    out.join(", ")
}
