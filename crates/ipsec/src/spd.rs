//! The security policy database (RFC 4301 4.4.1): which packets are protected, pass, or are dropped.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dataplane::PacketInfo;
use crate::packet::proto;
use crate::sa::{Mode, Reqid};

/// Policies that one host can hold.
pub const MAX_POLICIES: usize = 1 << 17;

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

impl Policy {
    /// Whether it decides on this packet; `packet` is as it is on the wire, so `In` and `Fwd` turn it round.
    ///
    /// Where the ports cannot be known (later fragments) it fails closed: a policy for some ports
    /// then covers the packet unless it would let it pass in the clear.
    pub fn matches(&self, packet: &PacketInfo) -> bool {
        let selector = &self.selector;
        let ((local, local_port), (remote, remote_port)) = match self.flow {
            Flow::Out => ((packet.src, packet.src_port), (packet.dst, packet.dst_port)),
            Flow::In | Flow::Fwd => ((packet.dst, packet.dst_port), (packet.src, packet.src_port)),
        };
        let unknown = has_ports(packet.protocol) && self.action != Action::Bypass;
        let port = |range: Option<(u16, u16)>, port: Option<u16>| match (range, port) {
            (None, _) => true,
            (Some((first, last)), Some(port)) => (first..=last).contains(&port),
            (Some(_), None) => unknown,
        };
        // What is cheap to compare comes first.
        selector.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && port(selector.local_ports, local_port)
            && port(selector.remote_ports, remote_port)
            && selector.remote.contains(&remote)
            && selector.local.contains(&local)
    }

    fn is_for_all_of_an_address(&self) -> bool {
        let selector = &self.selector;
        selector.protocol.is_none()
            && selector.local_ports.is_none()
            && selector.remote_ports.is_none()
    }

    fn order(&self) -> (u32, PolicySelector) {
        (self.priority, self.selector)
    }
}

/// Whether packets of this protocol have ports, or type and code, when their beginning is there.
fn has_ports(protocol: u8) -> bool {
    use proto::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE | ICMP | ICMPV6)
}

/// All policies of one host.
///
/// Policies for one remote host are found by its address, so that a mesh of a thousand peers costs
/// a packet no more than a mesh of two; the others are walked in order.
#[derive(Default, Debug)]
pub struct Spd {
    flows: [FlowPolicies; 3],
    len: usize,
}

#[derive(Default, Debug)]
struct FlowPolicies {
    /// Whose remote side is one address; each list by priority.
    by_host: BTreeMap<IpAddr, Vec<Policy>>,
    /// The others, by priority.
    wide: Vec<Policy>,
}

impl Spd {
    /// Installs a policy, or replaces the one of the same key. `false` when the database is full.
    pub fn put(&mut self, policy: Policy) -> bool {
        let list = self.flows[policy.flow as usize].list(&policy.selector);
        match list.binary_search_by_key(&policy.order(), Policy::order) {
            Ok(at) => list[at] = policy,
            Err(_) if self.len >= MAX_POLICIES => return false,
            Err(at) => {
                list.insert(at, policy);
                self.len += 1;
            }
        }
        true
    }

    /// Takes a policy away; `false` if it was not there.
    pub fn remove(&mut self, key: &PolicyKey) -> bool {
        let flow = &mut self.flows[key.flow as usize];
        let list = flow.list(&key.selector);
        let order = (key.priority, key.selector);
        let Ok(at) = list.binary_search_by_key(&order, Policy::order) else {
            flow.tidy(&key.selector);
            return false;
        };
        list.remove(at);
        flow.tidy(&key.selector);
        self.len -= 1;
        true
    }

    /// The policy that decides on a packet.
    pub fn lookup(&self, flow: Flow, packet: &PacketInfo) -> Option<&Policy> {
        self.first(flow, remote_of(flow, packet), |policy| policy.matches(packet))
    }

    /// The policy that decides on every packet between the addresses of `packet`, if one does
    /// whatever the protocol and ports are.
    pub fn lookup_addresses(&self, flow: Flow, packet: &PacketInfo) -> Option<&Policy> {
        let between = |policy: &Policy| {
            let selector = PolicySelector {
                protocol: None,
                local_ports: None,
                remote_ports: None,
                ..policy.selector
            };
            Policy { selector, ..*policy }.matches(packet)
        };
        let first = self.first(flow, remote_of(flow, packet), between);
        first.filter(|policy| policy.is_for_all_of_an_address())
    }

    /// All policies, by flow, those for one remote host first.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.flows.iter().flat_map(|flow| flow.by_host.values().flatten().chain(&flow.wide))
    }

    fn first(
        &self,
        flow: Flow,
        remote: IpAddr,
        matches: impl Fn(&Policy) -> bool,
    ) -> Option<&Policy> {
        let flow = &self.flows[flow as usize];
        let own = flow.by_host.get(&remote).and_then(|list| list.iter().find(|p| matches(p)));
        let limit = own.map_or(u32::MAX, |policy| policy.priority);
        let mut before = flow.wide.iter().take_while(|policy| policy.priority <= limit);
        match (own, before.find(|policy| matches(policy))) {
            (Some(own), Some(wide)) => Some(if wide.order() < own.order() { wide } else { own }),
            (own, wide) => own.or(wide),
        }
    }
}

fn remote_of(flow: Flow, packet: &PacketInfo) -> IpAddr {
    if flow == Flow::Out { packet.dst } else { packet.src }
}

impl FlowPolicies {
    fn list(&mut self, selector: &PolicySelector) -> &mut Vec<Policy> {
        match host_of(selector) {
            Some(host) => self.by_host.entry(host).or_default(),
            None => &mut self.wide,
        }
    }

    fn tidy(&mut self, selector: &PolicySelector) {
        if let Some(host) = host_of(selector)
            && self.by_host.get(&host).is_some_and(Vec::is_empty)
        {
            self.by_host.remove(&host);
        }
    }
}

fn host_of(selector: &PolicySelector) -> Option<IpAddr> {
    let remote = selector.remote;
    (remote.prefix_len() == remote.max_prefix_len()).then(|| remote.addr())
}
