//! Policies in words.

use std::fmt;

use ipsec::sa::Mode;
use ipsec::spd::{Action, Flow, Policy, PolicySelector};
use serde::Serialize;

use super::{Origin, Plan, Planned};
use crate::manifest::protocol_name;

/// One policy in words; `In` and `Out` are one row where they say the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PolicyRow {
    /// Its place in the order; lower is looked at first.
    pub priority: u32,
    /// `pass`, `drop`, `protect (transport)`, …
    pub action: String,
    /// `in`, `out`, `both`.
    pub direction: &'static str,
    /// This host's side.
    pub local: String,
    /// The other side.
    pub remote: String,
    /// Protocol and ports; `any` for all.
    pub service: String,
    /// Where it comes from.
    pub origin: String,
}

impl Plan {
    /// The policies in the order in which they are looked at.
    pub fn describe(&self) -> Vec<PolicyRow> {
        let mut rows: Vec<PolicyRow> = Vec::new();
        for planned in &self.policies {
            let new = row(planned);
            match rows.last_mut() {
                Some(last) if *last == PolicyRow { direction: last.direction, ..new.clone() } => {
                    last.direction = "both"
                }
                _ => rows.push(new),
            }
        }
        rows
    }
}

fn row(planned: &Planned) -> PolicyRow {
    let Policy { priority, flow, selector, action: what } = planned.policy;
    PolicyRow {
        priority,
        action: action(&what),
        direction: direction(flow),
        local: selector.local.to_string(),
        remote: selector.remote.to_string(),
        service: service(&selector),
        origin: planned.origin.to_string(),
    }
}

impl fmt::Display for PolicyRow {
    /// In at most 100 columns for IPv4.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, direction, remote, service, origin, .. } = self;
        let origin: String = origin.chars().take(20).collect();
        write!(f, "{action:<29} {direction:<4} {remote:<18} {service:<24} {origin}")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Implicit(what) => f.write_str(what),
            Self::Exception(_, name) => write!(f, "{name}"),
            Self::Mirrored(_, name) => write!(f, "{name}, other end"),
            Self::NoIpsecSubnet(_) => f.write_str("no_ipsec_subnets"),
            Self::IpsecSubnet(_) => f.write_str("ipsec_subnets"),
            Self::OtherAddress(_) => f.write_str("ipsec_subnets"),
            Self::Remainder(_) => f.write_str("not protected"),
        }
    }
}

/// One policy in one line.
pub fn line(policy: &Policy) -> String {
    let Policy { flow, selector, .. } = policy;
    let service = service(selector);
    format!("{} {} {} {service}", action(&policy.action), direction(*flow), selector.remote)
}

pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Bypass => "pass".to_owned(),
        Action::Discard => "drop".to_owned(),
        Action::Protect { mode, optional, .. } => {
            let mode = if *mode == Mode::Transport { "transport" } else { "tunnel" };
            let optional = if *optional { ", or clear" } else { "" };
            format!("protect ({mode}){optional}")
        }
    }
}

fn direction(flow: Flow) -> &'static str {
    match flow {
        Flow::In => "in",
        Flow::Out => "out",
        Flow::Fwd => "fwd",
    }
}

fn service(selector: &PolicySelector) -> String {
    let Some(protocol) = selector.protocol else { return "any".to_owned() };
    let mut text = protocol_name(protocol).map_or_else(|| protocol.to_string(), str::to_owned);
    let icmp = matches!(protocol, 1 | 58);
    for (side, ports) in [("local", selector.local_ports), ("remote", selector.remote_ports)] {
        match ports {
            Some((first, _)) if icmp => text.push_str(&format!(" type {}", first >> 8)),
            Some((first, last)) if first == last => text.push_str(&format!(" {side} {first}")),
            Some((first, last)) => text.push_str(&format!(" {side} {first}-{last}")),
            None => {}
        }
    }
    text
}
