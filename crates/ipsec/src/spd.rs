//! The security policy database (RFC 4301 4.4.1): which packets are protected, pass, or are dropped.

use ipnet::IpNet;

use crate::sa::{Mode, Reqid};

/// Which flow of packets a policy is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Flow {
    /// Packets that arrive for this host.
    In,
    /// Packets that this host sends.
    Out,
    /// Packets that arrive to be forwarded.
    Fwd,
}

/// Which packets a policy is for. `local` and `remote` are seen from this host in every flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicySelector {
    /// This host's side.
    pub local: IpNet,
    /// The other side.
    pub remote: IpNet,
    /// IP protocol; `None` is any.
    pub protocol: Option<u8>,
    /// Ports of this side, inclusive; for ICMP the type and code as in a traffic selector. `None` is any.
    pub local_ports: Option<(u16, u16)>,
    /// Ports of the other side.
    pub remote_ports: Option<(u16, u16)>,
}

/// What happens to a packet that a policy is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Passes in the clear.
    Bypass,
    /// Is dropped.
    Discard,
    /// Is protected by an SA of this reqid.
    Protect {
        /// Mode of the SA.
        mode: Mode,
        /// Its reqid.
        reqid: Reqid,
        /// Encrypt if there is an SA, else pass in the clear (the manifest's `optional`). Never a default.
        optional: bool,
    },
}

/// A policy. The lowest `priority` that matches decides; equal priorities are a planning error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Policy {
    /// Order among the policies of one flow; lower is looked at first, as in the kernel.
    pub priority: u32,
    /// Which flow.
    pub flow: Flow,
    /// Which packets.
    pub selector: PolicySelector,
    /// What happens.
    pub action: Action,
}

/// What names a policy: one data plane holds at most one of each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyKey {
    /// Which flow.
    pub flow: Flow,
    /// Its priority.
    pub priority: u32,
    /// Which packets.
    pub selector: PolicySelector,
}

impl Policy {
    /// What names it.
    pub fn key(&self) -> PolicyKey {
        PolicyKey { flow: self.flow, priority: self.priority, selector: self.selector }
    }
}
