//! Redirect (RFC 5685): a gateway sends its clients to another one. This host is a client, never such a gateway.
//!
//! What a redirect changes is where packets go. Whom the peer must prove to be stays as configured, and the peer keeps
//! its home, as with [`mobility`]; so it is for tunnels alone. In IKE_SA_INIT anybody on the way can send one: the
//! peer's own answer is preferred while it may still come.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ipsec::Instant;
use ipsec::sa::Mode;
use wire::notify::{self, Gateway};
use wire::payload::Payload;
use wire::registry::NotifyType;

use crate::config::{Auth, PeerConfig};
use crate::context::Context;
use crate::established::Established;
use crate::event::Event;
use crate::ike_sa::{IkeSa, error_notify, find_notify};
use crate::mobility::is_reachable;

/// So many redirects are followed within [`LOOP_DETECT_PERIOD`] (RFC 5685's MAX_REDIRECTS).
pub const MAX_REDIRECTS: usize = 5;
/// Redirects that are older are no part of a loop (RFC 5685's REDIRECT_LOOP_DETECT_PERIOD).
pub const LOOP_DETECT_PERIOD: Duration = Duration::from_secs(300);

/// Where a peer sent this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// Who did.
    pub from: IpAddr,
    /// The gateway to go to.
    pub to: IpAddr,
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFollowed {
    /// It was not asked for: the configuration or the mode, or it came from the end that began.
    #[error("it was not asked for (`redirect: true` of a peer, in tunnel mode)")]
    NotAsked,
    /// It is malformed.
    #[error("its target cannot be read")]
    Malformed,
    /// It names its target, and this host asks no name server whom to trust.
    #[error("names are not looked up, and it says `{0}`")]
    Name(String),
    /// No packets can go there, or they go there already.
    #[error("{0} is no other host's address, or of the other IP version")]
    Nowhere(IpAddr),
    /// That is where somebody else is.
    #[error("{0} is this host's address, or that of another peer")]
    Taken(IpAddr),
    /// Gateways send this host around.
    #[error("there were {MAX_REDIRECTS} within {} s: a loop", LOOP_DETECT_PERIOD.as_secs())]
    Loop,
}

/// Whether this host can be redirected by a peer.
pub(crate) fn wanted(config: &PeerConfig) -> bool {
    let proven = !matches!(config.auth, Auth::Null);
    config.redirect && proven && config.child.mode == Mode::Tunnel
}

/// What is said of it in the first request: that this host can be redirected, or by whom it was.
pub(crate) fn announce(config: &PeerConfig, from: Option<IpAddr>) -> Option<Payload> {
    let payload = match from {
        Some(from) => Payload::Notify(notify::redirected_from(from)),
        None => error_notify(NotifyType::REDIRECT_SUPPORTED),
    };
    wanted(config).then_some(payload)
}

/// Where REDIRECT sends this host, the client, if it may.
pub(crate) fn target(sa: &IkeSa, gateway: Gateway) -> Result<Redirect, NotFollowed> {
    let from = sa.remote.ip();
    match gateway {
        _ if !wanted(&sa.config) => Err(NotFollowed::NotAsked),
        Gateway::Name(name) => Err(NotFollowed::Name(name)),
        Gateway::Address(to) => {
            let other = is_reachable(to) && to.is_ipv4() == from.is_ipv4() && to != from;
            other.then_some(Redirect { from, to }).ok_or(NotFollowed::Nowhere(to))
        }
    }
}

/// The REDIRECT of a message that is the peer's own word.
pub(crate) fn proven(sa: &IkeSa, payloads: &[Payload]) -> Option<Result<Redirect, NotFollowed>> {
    let notify = find_notify(payloads, NotifyType::REDIRECT)?;
    let gateway = notify::parse_redirect(&notify.data).map(|redirect| redirect.gateway);
    Some(gateway.map_err(|_| NotFollowed::Malformed).and_then(|gateway| target(sa, gateway)))
}

/// The peer of an established IKE SA sends this host elsewhere (RFC 5685 5). The IKE SA stays until another one serves.
pub(crate) fn informed(up: &Established, cx: &mut Context, sa: &IkeSa, payloads: &[Payload]) {
    let Some(target) = proven(sa, payloads).filter(|_| up.live()) else { return };
    let client = if up.decides(sa) { target } else { Err(NotFollowed::NotAsked) };
    cx.event(match client {
        Ok(redirect) => Event::Redirected { id: sa.id, redirect },
        Err(why) => Event::NotRedirected { id: sa.id, why },
    });
}

/// Redirects that were followed of late, by the home of the peer; only of peers that may redirect.
#[derive(Clone, Default)]
pub(crate) struct Followed(BTreeMap<IpAddr, VecDeque<Instant>>);

impl Followed {
    /// Whether one more may be followed; it is counted.
    pub(crate) fn allows(&mut self, now: Instant, home: IpAddr) -> bool {
        self.0.retain(|_, times| {
            times.retain(|at| now.since(*at) < LOOP_DETECT_PERIOD);
            !times.is_empty()
        });
        let times = self.0.entry(home).or_default();
        let allowed = times.len() < MAX_REDIRECTS;
        if allowed {
            times.push_back(now);
        }
        allowed
    }
}
