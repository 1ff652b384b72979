//! What of an established IKE SA must outlive its process, so that the next one goes on with it.
//!
//! The rule that makes this sound: a record is written before the datagrams are sent that the change
//! led to. Then, wherever the process ends, the record is one of two things: the state of the last
//! datagram sent, or a state ahead of it whose datagram is in the record, to be sent again as it is.
//! A request that was outstanding keeps its id and its bytes: a peer that has seen it answers as it
//! did before, one that has not takes it as new (RFC 7296 2.1, 2.3). A request of the peer that was
//! still being worked on counts as never received: the peer repeats it.
//!
//! Ciphers count their messages; a restored SA goes on far ahead of the recorded count, so that no
//! nonce is used twice whatever was sealed and not recorded.

mod codec;

use std::net::{IpAddr, SocketAddr};

pub use codec::{DecodeError, VERSION};
use crypto::Secret;
pub use crypto::cipher::CipherSpec;
use ipsec::Instant;
use ipsec::sa::{Direction, Mode, Reqid, Sa, SaPair};
use wire::esp::Spi;
use wire::identity::Identity;
pub use wire::message::IkeSpi;
use wire::proposal::{Proposal, Transform};
use wire::registry::{ExchangeType, Integ};
use wire::selector::TrafficSelector;

use crate::child_sa::{Child, Stage};
use crate::config::{Auth, ChildConfig, PeerConfig};
use crate::context::Context;
use crate::established::{Established, Own};
use crate::event::ChildId;
use crate::exchange::child::encapsulation;
use crate::exchange::followup::Subject;
use crate::ike_sa::IkeSa;
use crate::ipcomp::Cpis;
use crate::keys::IkeKeys;
use crate::mobility::{Mobility, Path};
use crate::narrow::Names;
use crate::nat::NatState;
use crate::negotiate::{EspSuite, IkeSuite};
use crate::redirect;

/// A restored SA counts on from so far ahead. More messages than are ever sealed between two records.
pub const COUNTER_LEAP: u64 = 1 << 20;

/// An established IKE SA. Holds its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaRecord {
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Whether this host is its original initiator.
    pub initiator: bool,
    /// This host's address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Who is behind a NAT.
    pub nat: NatState,
    /// Child SAs go in UDP.
    pub encap: bool,
    /// They would without a NAT as well.
    pub udp: bool,
    /// Of an IKE SA that can move (RFC 4555).
    pub mobility: Option<KeptMobility>,
    /// Whether both ends gather fragments (RFC 7383).
    pub fragmentation: bool,
    /// What this host calls itself.
    pub local_id: Identity,
    /// The peer's proven identity.
    pub remote_id: Identity,
    /// Algorithms.
    pub suite: IkeSuite,
    /// Keys; those that prove identities are empty, they have done their work.
    pub keys: IkeKeys,
    /// Messages sealed so far.
    pub sealed: u64,
    /// The id of this host's next request; `None`: all are used up.
    pub next_out: Option<u32>,
    /// The id of the peer's next request.
    pub expected_in: u32,
    /// This host's request that has no response yet.
    pub outstanding: Option<Outstanding>,
    /// The response to the request before `expected_in`, fragment by fragment; empty if there is none.
    pub answer: Vec<Vec<u8>>,
    /// SPIs that the peer sends to, and this host never installed: to be deleted.
    pub orphans: Vec<Spi>,
    /// A successor has its child SAs: it only answers repeats until the peer deletes it.
    pub replaced: bool,
    /// What the peer shows once it has lost this SA (RFC 6290).
    pub token: Option<Secret>,
    /// When it was established.
    pub since: Instant,
    /// When it is due for rekeying.
    pub rekey_at: Instant,
    /// What it goes back to: a twin may turn up that was begun at the same time.
    pub origin: Option<Origin>,
    /// Its complete child SAs, without their keys: those are in the data plane.
    pub children: Vec<ChildRecord>,
}

/// The IKE_SA_INIT exchange that an IKE SA goes back to through all its rekeys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Whether this host initiated it.
    pub own: bool,
    /// The lower of its two nonces: by that the worse of two is known (RFC 7296 2.8.1).
    pub nonce: Box<[u8]>,
    /// When it began here.
    pub began: Instant,
    /// When both ends were authenticated here.
    pub since: Instant,
}

/// What an IKE SA that can move keeps of that. Its addresses are those of now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptMobility {
    /// Further addresses of the peer.
    pub theirs: Vec<IpAddr>,
    /// A path that was being tried.
    pub trial: Option<Path>,
}

impl KeptMobility {
    fn of(mobility: &Mobility) -> Self {
        Self { theirs: mobility.theirs.clone(), trial: mobility.trial.map(|trial| trial.path) }
    }
}

/// A request without response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outstanding {
    /// Its message id.
    pub id: u32,
    /// Its bytes, fragment by fragment.
    pub messages: Vec<Vec<u8>>,
    /// What it asks for.
    pub asks: Asks,
}

/// What a request asks for that only its sender's lost state could finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asks {
    /// A child SA.
    Child {
        /// The SPI offered.
        spi_in: Spi,
        /// Inbound SPI of the child SA that it replaces.
        replaces: Option<Spi>,
        /// CREATE_CHILD_SA, or the IKE_FOLLOWUP_KE of an additional key exchange.
        exchange: ExchangeType,
    },
    /// A successor of the IKE SA.
    RekeyIke,
    /// Nothing that its response could change.
    Nothing(ExchangeType),
}

/// A complete child SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildRecord {
    /// Policies that it serves.
    pub reqid: Reqid,
    /// SPI of the inbound SA.
    pub spi_in: Spi,
    /// SPI of the outbound SA.
    pub spi_out: Spi,
    /// Mode agreed.
    pub mode: Mode,
    /// Algorithms.
    pub suite: EspSuite,
    /// Selectors of this host's side.
    pub local_ts: Vec<TrafficSelector>,
    /// Selectors of the peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// What both were called on the wire, if a NAT makes that matter.
    pub names: Option<Names>,
    /// ESP in UDP.
    pub encap: bool,
    /// CPIs, if packets may be compressed.
    pub ipcomp: Option<Cpis>,
    /// When it was established.
    pub since: Instant,
    /// When it is due for rekeying.
    pub rekey_at: Instant,
}

/// Why a record cannot be gone on with. A new IKE SA is negotiated then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Its hard lifetime is over.
    #[error("its lifetime is over")]
    Expired,
    /// It is from the future: of another boot, or the clock is not the one it was.
    #[error("it was established in the future of this host's clock")]
    Clock,
    /// Addresses are others than those configured.
    #[error("it is between other addresses than those configured now")]
    Addresses,
    /// The peer must be somebody else now.
    #[error("the peer was `{0}`, which is not who it must be by the configuration of now")]
    Identity(Identity),
    /// Message ids and stored messages do not belong together.
    #[error("its message ids contradict each other")]
    MessageIds,
    /// An SA with this SPI is there.
    #[error("its SPI is taken")]
    SpiTaken,
    /// There are as many as there may be.
    #[error("this host has as many IKE SAs as it may")]
    Full,
    /// The provider does not have the algorithms, or the keys do not fit them.
    #[error("its algorithms or keys cannot be used: {0}")]
    Keys(String),
}

impl SaRecord {
    /// The SPI by which the peer's messages find it; names the record among those of this host.
    pub fn local_spi(&self) -> IkeSpi {
        if self.initiator { self.spi_i } else { self.spi_r }
    }

    /// Whether it would come out the same of a negotiation under `config`; if not, it may serve until
    /// it is replaced.
    pub fn fits(&self, config: &PeerConfig) -> bool {
        let ike = [Transform::prf(self.suite.prf), Transform::ke(self.suite.ke)];
        let esp = |c: &ChildRecord| {
            c.mode == config.child.mode
                // Whether a peer that did not agree to it would now is not known.
                && (c.ipcomp.is_none() || config.child.compression)
                && offered(&config.child.esp_proposals, &cipher(c.suite.cipher))
        };
        let whole = [&cipher(self.suite.cipher)[..], &ike[..]].concat();
        let mut fitting = config.ike_proposals.iter().filter(|p| self.suite.additional.fits(p));
        fitting.any(|p| has_all(p, &whole))
            && self.children.iter().all(esp)
            && (self.encap || !config.common.force_encap)
    }

    /// The two SAs of one of its child SAs as they were installed, but for their keys: those are in the data plane
    /// alone. Limits and window are those of `config`.
    pub fn pair(&self, child: &ChildRecord, config: &ChildConfig) -> SaPair {
        let (here, there) = (self.local.ip(), self.remote.ip());
        let encap = child.encap.then(|| encapsulation(self.local, self.remote));
        let cpi = |direction| {
            let inbound = direction == Direction::In;
            child.ipcomp.map(|cpis| if inbound { cpis.inbound } else { cpis.outbound })
        };
        let sa = |direction, spi, src, dst| Sa {
            spi,
            src,
            dst,
            direction,
            mode: child.mode,
            reqid: child.reqid,
            cipher: child.suite.cipher,
            encr_key: Secret::default(),
            integ_key: Secret::default(),
            esn: child.suite.esn,
            replay_window: config.replay_window,
            encap,
            ipcomp: cpi(direction),
            limits: config.limits.clone(),
            local_ts: child.local_ts.as_slice().into(),
            remote_ts: child.remote_ts.as_slice().into(),
        };
        SaPair {
            inbound: sa(Direction::In, child.spi_in, there, here),
            outbound: sa(Direction::Out, child.spi_out, here, there),
        }
    }

    /// Of an SA that is established and to stay, or was until it was replaced, or for which its twin serves; else, or in the middle of what cannot be gone on
    /// with, `None`.
    pub(crate) fn of(cx: &Context, sa: &IkeSa) -> Option<Self> {
        let up = sa.up().filter(|up| up.live() || up.replaced() || up.superfluous())?;
        let secured = sa.secured.as_ref()?;
        // The peer has handed the child SAs over to a successor whose keys are not made yet.
        match &up.own {
            Some(Own::RekeyAgreeing(_)) => return None,
            Some(Own::Followup(c)) if matches!(c.subject, Subject::Ike(_)) => return None,
            _ => {}
        }
        let (next_out, sent, expected_in, answer) = sa.window.export();
        let outstanding =
            sent.map(|(id, messages)| Outstanding { id, messages, asks: up.asks(cx) });
        Some(Self {
            spi_i: sa.spi_i,
            spi_r: sa.spi_r,
            initiator: sa.initiator,
            local: sa.local,
            remote: sa.remote,
            nat: sa.nat,
            encap: sa.encap,
            udp: sa.udp,
            mobility: sa.mobility.as_deref().map(KeptMobility::of),
            fragmentation: sa.fragmentation,
            local_id: up.local_id.clone(),
            remote_id: up.remote_id.clone(),
            suite: secured.suite,
            keys: secured.keys.clone(),
            sealed: secured.sealed,
            next_out,
            expected_in,
            outstanding,
            answer,
            orphans: up.orphan().into_iter().collect(),
            replaced: up.replaced(),
            token: up.token.clone(),
            since: up.since,
            rekey_at: up.rekey_at,
            origin: up.origin.as_deref().cloned(),
            children: children(cx, sa),
        })
    }

    /// What can be known to be wrong without looking at other SAs.
    pub(crate) fn check(&self, now: Instant, config: &PeerConfig) -> Result<(), RestoreError> {
        if self.since > now {
            return Err(RestoreError::Clock);
        }
        if self.since + config.common.ike_hard_lifetime <= now {
            return Err(RestoreError::Expired);
        }
        let home = (self.local.ip(), self.remote.ip()) == (config.local, config.remote);
        let redirected = self.local.ip() == config.local && redirect::wanted(config);
        if !home && !redirected && self.mobility.is_none() {
            return Err(RestoreError::Addresses);
        }
        let proven = !self.remote_id.is_null() || matches!(config.auth, Auth::Null);
        if !proven || config.remote_id.as_ref().is_some_and(|id| !id.matches(&self.remote_id)) {
            return Err(RestoreError::Identity(self.remote_id.clone()));
        }
        let follows = |sent: &Outstanding| sent.id.checked_add(1) == self.next_out;
        let sent = self.outstanding.as_ref().is_none_or(|s| follows(s) && !s.messages.is_empty());
        let answered = self.answer.is_empty() || self.expected_in > 0;
        let counted = self.sealed.checked_add(COUNTER_LEAP).is_some();
        (sent && answered && counted).then_some(()).ok_or(RestoreError::MessageIds)
    }
}

impl Established {
    /// What its outstanding request asks for.
    fn asks(&self, cx: &Context) -> Asks {
        match &self.own {
            Some(Own::Create(sent)) => {
                let (spi_in, replaces) = (sent.plan.spi_in(), sent.plan.replaces());
                child_asked(cx, spi_in, replaces, ExchangeType::CREATE_CHILD_SA)
            }
            Some(Own::Followup(chain)) => match &chain.subject {
                Subject::Ike(_) => Asks::RekeyIke,
                Subject::Child(outcome) => {
                    let (spi_in, replaces) = (outcome.spi_in(), outcome.replaces());
                    child_asked(cx, spi_in, replaces, ExchangeType::IKE_FOLLOWUP_KE)
                }
            },
            Some(Own::Rekey(_)) => Asks::RekeyIke,
            Some(Own::Recovered(asks)) => *asks,
            _ => Asks::Nothing(self.own_exchange().unwrap_or(ExchangeType::INFORMATIONAL)),
        }
    }

    /// What the peer made and answered, and this host is still working on.
    fn orphan(&self) -> Option<Spi> {
        match &self.own {
            Some(Own::CreateAgreeing(agreeing)) => Some(agreeing.plan.spi_in()),
            Some(Own::Followup(chain)) if !chain.sent() => match &chain.subject {
                Subject::Child(outcome) => Some(outcome.spi_in()),
                Subject::Ike(_) => None,
            },
            _ => None,
        }
    }
}

fn child_asked(
    cx: &Context,
    spi_in: Spi,
    replaces: Option<ChildId>,
    exchange: ExchangeType,
) -> Asks {
    let replaces = replaces.and_then(|id| cx.children.get(id)).map(|c| c.spi_in);
    Asks::Child { spi_in, replaces, exchange }
}

fn children(cx: &Context, sa: &IkeSa) -> Vec<ChildRecord> {
    let of_sa = cx.children.of(sa.id).into_iter().filter_map(|id| cx.children.get(id));
    of_sa.filter(|c| c.stage == Stage::Up && !c.redundant).map(child).collect()
}

fn child(child: &Child) -> ChildRecord {
    ChildRecord {
        reqid: child.config.reqid,
        spi_in: child.spi_in,
        spi_out: child.spi_out,
        mode: child.mode,
        suite: child.suite,
        local_ts: child.local_ts.to_vec(),
        remote_ts: child.remote_ts.to_vec(),
        names: child.names(),
        encap: child.encap,
        ipcomp: child.ipcomp,
        since: child.since,
        rekey_at: child.rekey_at,
    }
}

/// Whether one of the proposals has all of these.
fn offered(proposals: &[Proposal], transforms: &[Transform]) -> bool {
    proposals.iter().any(|p| has_all(p, transforms))
}

fn has_all(proposal: &Proposal, transforms: &[Transform]) -> bool {
    transforms.iter().all(|t| proposal.transforms.contains(t))
}

fn cipher(spec: CipherSpec) -> Vec<Transform> {
    let encr = Transform::encr(spec.encr, (spec.key_bits != 0).then_some(spec.key_bits));
    let integ = (spec.integ != Integ::NONE).then(|| Transform::integ(spec.integ));
    [encr].into_iter().chain(integ).collect()
}
