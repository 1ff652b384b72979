//! What IKE_AUTH and CREATE_CHILD_SA share: offering, choosing and keying a child SA (RFC 7296 1.2, 1.3.1, 2.9, 2.17).

use std::net::SocketAddr;
use std::sync::Arc;

use crypto::Secret;
use ipsec::sa::{Direction, Encap, Mode, Sa, SaPair};
use wire::esp::Spi;
use wire::payload::{Notify, Payload};
use wire::proposal::Proposal;
use wire::registry::{NotifyType, ProtocolId};
use wire::selector::TrafficSelector;

use crate::child_sa::{Agreed, once};
use crate::config::ChildConfig;
use crate::context::{Context, IKE_PORT, NATT_PORT};
use crate::error::{Failure, Misbehaviour};
use crate::event::ChildId;
use crate::ike_sa::{IkeSa, error_notify, find_notify, plain_notify};
use crate::ipcomp::{self, Cpis};
use crate::keys::{self, ChildKeys};
use crate::narrow::{self, Hosts, Names, Selectors};
use crate::negotiate::{self, ChildExchange, Chosen, EspSuite};
use crate::told;

/// What this host offers.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) config: Arc<ChildConfig>,
    pub(crate) replaces: Option<ChildId>,
    pub(crate) proposals: Vec<Proposal>,
    spi_in: Spi,
    cpi_in: Option<u16>,
    selectors: Selectors,
    /// By the names of both ends that the SA to be replaced was agreed on with.
    names: Option<Names>,
}

/// What this host answers.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) agreed: Agreed,
    proposal: Proposal,
    selectors: Selectors,
}

/// What this host refuses, and how the peer is told.
pub(crate) struct Refusal {
    pub(crate) notify: NotifyType,
    pub(crate) reason: Failure,
}

impl Refusal {
    /// The notify for the peer.
    pub(crate) fn told(&self) -> Notify {
        match &self.reason {
            Failure::NoProposalChosen { ours, .. } => told::no_proposal_chosen(ours, told::MAX),
            Failure::OtherMode { .. } => told::transport_wanted(),
            Failure::TsUnacceptable { ours_local, ours_remote, .. } => {
                told::ts_unacceptable(ours_local, ours_remote)
            }
            _ => plain_notify(self.notify),
        }
    }
}

impl Offer {
    pub(crate) fn new(
        cx: &mut Context,
        config: Arc<ChildConfig>,
        replaces: Option<ChildId>,
        exchange: ChildExchange,
    ) -> Self {
        let spi_in = cx.children.fresh_spi(&mut cx.rng);
        let proposals =
            negotiate::offer_esp(&config.esp_proposals, spi_in, exchange, &*cx.provider);
        let cpi_in = config.compression.then(|| ipcomp::fresh(&mut cx.rng));
        let selectors = Selectors { tsi: config.local_ts.to_vec(), tsr: config.remote_ts.to_vec() };
        let old = replaces.and_then(|id| cx.children.get(id));
        let names = old.filter(|_| config.mode == Mode::Transport).and_then(|old| old.names());
        Self { config, replaces, proposals, spi_in, cpi_in, selectors, names }
    }

    pub(crate) fn sa_payload(&self) -> Payload {
        Payload::Sa(self.proposals.clone())
    }

    /// Selectors and notifies.
    pub(crate) fn tail(&self) -> Vec<Payload> {
        let mode = self.config.mode;
        match &self.names {
            Some(names) => tail(&names.offer(&self.selectors), mode, self.cpi_in),
            None => tail(&self.selectors, mode, self.cpi_in),
        }
    }

    /// Checks the peer's answer.
    pub(crate) fn check(&self, sa: &IkeSa, payloads: &[Payload]) -> Result<Agreed, Failure> {
        let list = find_sa(payloads).ok_or(Failure::Misbehaved(Misbehaviour::MissingPayload))?;
        let chosen =
            negotiate::check_answer_esp(&self.proposals, list).map_err(Failure::Misbehaved)?;
        let answered =
            find_selectors(payloads).ok_or(Failure::Misbehaved(Misbehaviour::MissingPayload))?;
        let mode = mode_in(payloads);
        if mode != self.config.mode {
            return Err(other_mode(self.config.mode, mode));
        }
        let names = names(sa, mode, &answered.tsi, &answered.tsr);
        let hosts = Hosts { initiator: sa.local.ip(), responder: sa.remote.ip() };
        let behind = (sa.nat.local_behind, sa.nat.remote_behind);
        let answered = match mode {
            Mode::Transport => narrow::as_seen(answered, hosts, behind),
            Mode::Tunnel => answered,
        };
        narrow::check_narrowed(&self.selectors, &answered).map_err(Failure::Misbehaved)?;
        let ipcomp = ipcomp::answered(self.cpi_in, payloads).map_err(Failure::Misbehaved)?;
        Ok(Agreed {
            config: self.config.clone(),
            suite: chosen.suite,
            spi_in: self.spi_in,
            spi_out: peer_spi(&chosen)?,
            mode,
            ipcomp,
            local_ts: once(&self.config.local_ts, answered.tsi),
            remote_ts: once(&self.config.remote_ts, answered.tsr),
            names,
            replaces: self.replaces,
        })
    }

    /// Why the peer refused.
    pub(crate) fn refused(&self, error: &Notify) -> Failure {
        match error.kind {
            NotifyType::NO_PROPOSAL_CHOSEN if told::wants_transport(error) => {
                other_mode(self.config.mode, Mode::Transport)
            }
            NotifyType::NO_PROPOSAL_CHOSEN => Failure::NoProposalChosen {
                protocol: "ESP",
                by: "the peer",
                ours: self.config.esp_proposals.to_vec(),
                theirs: told::proposals(ProtocolId::ESP, error),
            },
            NotifyType::TS_UNACCEPTABLE => {
                let (theirs_local, theirs_remote) = told::selectors(error);
                Failure::TsUnacceptable {
                    ours_local: self.config.local_ts.to_vec(),
                    ours_remote: self.config.remote_ts.to_vec(),
                    theirs_local,
                    theirs_remote,
                }
            }
            kind => Failure::PeerError(kind),
        }
    }

    /// The SPI that the peer may have taken up although this host refuses the answer.
    pub(crate) fn spi_in(&self) -> Spi {
        self.spi_in
    }
}

impl Answer {
    /// Chooses from what the peer offers.
    pub(crate) fn choose(
        cx: &mut Context,
        sa: &IkeSa,
        config: &Arc<ChildConfig>,
        payloads: &[Payload],
        exchange: ChildExchange,
        replaces: Option<ChildId>,
    ) -> Result<Self, Refusal> {
        let missing = || Refusal {
            notify: NotifyType::INVALID_SYNTAX,
            reason: Failure::Misbehaved(Misbehaviour::MissingPayload),
        };
        let theirs = find_sa(payloads).ok_or_else(missing)?;
        let request = find_selectors(payloads).ok_or_else(missing)?;
        let spi_in = cx.children.fresh_spi(&mut cx.rng);
        let chosen =
            negotiate::choose_esp(&config.esp_proposals, theirs, spi_in, exchange, &*cx.provider)
                .ok_or_else(|| no_proposal(config, theirs))?;
        let mode = choose_mode(config.mode, mode_in(payloads))?;
        let narrowed = narrow_request(sa, config, &request, mode)
            .ok_or_else(|| ts_unacceptable(config, &request))?;
        let spi_out = peer_spi(&chosen)
            .map_err(|reason| Refusal { notify: NotifyType::INVALID_SYNTAX, reason })?;
        let outbound = ipcomp::offered(payloads).filter(|_| config.compression);
        let ipcomp =
            outbound.map(|outbound| Cpis { inbound: ipcomp::fresh(&mut cx.rng), outbound });
        let agreed = Agreed {
            config: config.clone(),
            suite: chosen.suite,
            spi_in,
            spi_out,
            mode,
            ipcomp,
            local_ts: once(&config.local_ts, narrowed.here.tsr),
            remote_ts: once(&config.remote_ts, narrowed.here.tsi),
            names: names(sa, mode, &narrowed.sent.tsr, &narrowed.sent.tsi),
            replaces,
        };
        Ok(Self { agreed, proposal: chosen.proposal, selectors: narrowed.sent })
    }

    pub(crate) fn sa_payload(&self) -> Payload {
        Payload::Sa(vec![self.proposal.clone()])
    }

    /// Selectors and notifies.
    pub(crate) fn tail(&self) -> Vec<Payload> {
        tail(&self.selectors, self.agreed.mode, self.agreed.ipcomp.map(|cpis| cpis.inbound))
    }
}

/// The nonces of the exchange and who initiated it.
#[derive(Clone, Copy)]
pub(crate) struct Keying<'a> {
    pub(crate) ni: &'a [u8],
    pub(crate) nr: &'a [u8],
    /// Of all key exchanges, PFS first.
    pub(crate) shared: &'a [&'a Secret],
    /// Whether this host initiated the exchange.
    pub(crate) initiated: bool,
}

/// Both SAs, keyed.
pub(crate) fn pair(
    cx: &Context,
    sa: &IkeSa,
    agreed: &Agreed,
    keying: Keying<'_>,
) -> Result<SaPair, Failure> {
    let Some(secured) = &sa.secured else {
        return Err(Failure::Local("the IKE SA has no keys".into()));
    };
    let keys = keys::derive_child(
        &*cx.provider,
        secured.suite.prf,
        &secured.keys.sk_d,
        keying.shared,
        keying.ni,
        keying.nr,
        &agreed.suite,
    )
    .map_err(|e| Failure::Local(e.to_string()))?;
    Ok(build_pair(sa, agreed, keys, keying.initiated))
}

/// The UDP ports of ESP between two ends of IKE. A peer that stays on port 500 in spite of a NAT still takes ESP on 4500
/// (RFC 3948 2.1).
pub(crate) fn encapsulation(local: SocketAddr, remote: SocketAddr) -> Encap {
    let natt = |port| if port == IKE_PORT { NATT_PORT } else { port };
    Encap { local_port: natt(local.port()), remote_port: natt(remote.port()) }
}

fn build_pair(sa: &IkeSa, agreed: &Agreed, keys: ChildKeys, initiated: bool) -> SaPair {
    let encap = sa.encap.then(|| encapsulation(sa.local, sa.remote));
    let make = |direction, encr_key, integ_key| {
        let inbound = direction == Direction::In;
        let (here, there) = (sa.local.ip(), sa.remote.ip());
        Sa {
            spi: if inbound { agreed.spi_in } else { agreed.spi_out },
            src: if inbound { there } else { here },
            dst: if inbound { here } else { there },
            direction,
            mode: agreed.mode,
            reqid: agreed.config.reqid,
            cipher: agreed.suite.cipher,
            encr_key,
            integ_key,
            esn: agreed.suite.esn,
            replay_window: agreed.config.replay_window,
            encap,
            ipcomp: agreed.ipcomp.map(|c| if inbound { c.inbound } else { c.outbound }),
            limits: agreed.config.limits.clone(),
            local_ts: agreed.local_ts.clone(),
            remote_ts: agreed.remote_ts.clone(),
        }
    };
    let (out, r#in) = if initiated {
        ((keys.i_encr, keys.i_integ), (keys.r_encr, keys.r_integ))
    } else {
        ((keys.r_encr, keys.r_integ), (keys.i_encr, keys.i_integ))
    };
    SaPair {
        inbound: make(Direction::In, r#in.0, r#in.1),
        outbound: make(Direction::Out, out.0, out.1),
    }
}

fn tail(selectors: &Selectors, mode: Mode, cpi_in: Option<u16>) -> Vec<Payload> {
    let mut payloads =
        vec![Payload::TsI(selectors.tsi.clone()), Payload::TsR(selectors.tsr.clone())];
    if mode == Mode::Transport {
        payloads.push(error_notify(NotifyType::USE_TRANSPORT_MODE));
    }
    payloads.extend(cpi_in.map(ipcomp::payload));
    payloads.push(error_notify(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED));
    payloads
}

/// Selectors as this host sees the addresses, and as the peer does.
struct Narrowed {
    here: Selectors,
    sent: Selectors,
}

fn narrow_request(
    sa: &IkeSa,
    config: &ChildConfig,
    request: &Selectors,
    mode: Mode,
) -> Option<Narrowed> {
    let policy = Selectors { tsi: config.remote_ts.to_vec(), tsr: config.local_ts.to_vec() };
    let hosts = Hosts { initiator: sa.remote.ip(), responder: sa.local.ip() };
    if mode == Mode::Tunnel {
        let here = narrow::narrow(&policy, request, None).ok()?;
        return Some(Narrowed { sent: here.clone(), here });
    }
    let substituted = sa
        .nat
        .any()
        .then(|| narrow::substitute(request, hosts, sa.nat.remote_behind, sa.nat.local_behind))
        .flatten();
    let seen = substituted.as_ref().map_or(request, |s| &s.selectors);
    let here = narrow::narrow(&policy, seen, Some(hosts)).ok()?;
    let sent = substituted.map_or_else(|| here.clone(), |s| s.restore(&here));
    Some(Narrowed { here, sent })
}

/// What the two ends are called by selectors on the wire, where that may differ from their addresses.
fn names(
    sa: &IkeSa,
    mode: Mode,
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
) -> Option<Names> {
    if mode == Mode::Transport && sa.nat.any() { Names::of(local, remote) } else { None }
}

/// Transport mode is the initiator's wish and the responder's choice (RFC 7296 1.3.1).
fn choose_mode(configured: Mode, asked: Mode) -> Result<Mode, Refusal> {
    match (configured, asked) {
        (Mode::Transport, Mode::Tunnel) => Err(Refusal {
            notify: NotifyType::NO_PROPOSAL_CHOSEN,
            reason: other_mode(configured, asked),
        }),
        (configured, _) => Ok(configured),
    }
}

fn no_proposal(config: &ChildConfig, theirs: &[Proposal]) -> Refusal {
    Refusal {
        notify: NotifyType::NO_PROPOSAL_CHOSEN,
        reason: Failure::NoProposalChosen {
            protocol: "ESP",
            by: "this host",
            ours: config.esp_proposals.to_vec(),
            theirs: theirs.to_vec(),
        },
    }
}

fn ts_unacceptable(config: &ChildConfig, request: &Selectors) -> Refusal {
    Refusal {
        notify: NotifyType::TS_UNACCEPTABLE,
        reason: Failure::TsUnacceptable {
            ours_local: config.local_ts.to_vec(),
            ours_remote: config.remote_ts.to_vec(),
            theirs_local: request.tsi.clone(),
            theirs_remote: request.tsr.clone(),
        },
    }
}

fn peer_spi(chosen: &Chosen<EspSuite>) -> Result<Spi, Failure> {
    chosen.peer_esp_spi().ok_or(Failure::Misbehaved(Misbehaviour::Malformed))
}

/// The SA payload.
pub(crate) fn find_sa(payloads: &[Payload]) -> Option<&[Proposal]> {
    payloads.iter().find_map(|p| match p {
        Payload::Sa(proposals) => Some(proposals.as_slice()),
        _ => None,
    })
}

/// Whether the peer wants an IKE SA alone (RFC 6023).
pub(crate) fn childless(payloads: &[Payload]) -> bool {
    let of_child = |p: &Payload| matches!(p, Payload::Sa(_) | Payload::TsI(_) | Payload::TsR(_));
    !payloads.iter().any(of_child)
}

fn find_selectors(payloads: &[Payload]) -> Option<Selectors> {
    let mut tsi: Option<&Vec<TrafficSelector>> = None;
    let mut tsr = None;
    for payload in payloads {
        match payload {
            Payload::TsI(ts) => tsi = tsi.or(Some(ts)),
            Payload::TsR(ts) => tsr = tsr.or(Some(ts)),
            _ => {}
        }
    }
    Some(Selectors { tsi: tsi?.clone(), tsr: tsr?.clone() })
}

fn mode_in(payloads: &[Payload]) -> Mode {
    match find_notify(payloads, NotifyType::USE_TRANSPORT_MODE) {
        Some(_) => Mode::Transport,
        None => Mode::Tunnel,
    }
}

fn other_mode(ours: Mode, theirs: Mode) -> Failure {
    let name = |mode| match mode {
        Mode::Transport => "transport",
        Mode::Tunnel => "tunnel",
    };
    Failure::OtherMode { ours: name(ours), theirs: name(theirs) }
}

/// A Delete of inbound ESP SAs of this host.
pub(crate) fn delete_esp(spis: Vec<u32>) -> Payload {
    Payload::Delete(wire::payload::Delete { protocol: ProtocolId::ESP, spis })
}

/// REKEY_SA for the child whose inbound SPI is `spi` (RFC 7296 1.3.3).
pub(crate) fn rekey_sa(spi: Spi) -> Payload {
    Payload::Notify(Notify {
        protocol: ProtocolId::ESP,
        spi: spi.0.to_be_bytes().to_vec(),
        kind: NotifyType::REKEY_SA,
        data: Vec::new(),
    })
}
