//! The leak guard: kernel policies that refuse cleartext which a policy of ours wants protected.
//!
//! Each inbound policy of the SPD has its counterpart in the kernel: what passes passes, all else that the SPD names is blocked. Packets
//! that come out of the device have been verified and are exempt: in IPv4 by `disable_policy` of the device, in IPv6 because
//! the device has the host's own addresses too, whose routes then carry that exemption. (The `dev` of a kernel policy is no help:
//! it is compared with the outgoing interface, which for packets to this host is the loopback.) Our sockets are exempt one by one.
//!
//! Ours are known by their mark, `0` under our own bit; foreign policies, also equal ones, are never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ipsec::change::{Batch, Change};
use ipsec::packet::proto;
use ipsec::spd::{Action as SpdAction, Flow, Policy as SpdPolicy, PolicyKey};

use crate::guard::{counterparts as standing, ours};
use crate::raw::Ip;
use crate::xfrm::{Action, Direction, Error, Policy, PortMask, Selector, Xfrm, everything};

/// The kernel's counterpart of the inbound SPD.
pub struct Guard {
    xfrm: Result<Xfrm, Error>,
    mark: u32,
    /// What each selector is wanted for; the lowest priority is installed.
    wanted: BTreeMap<Slot, BTreeSet<(u32, Action)>>,
    /// What each policy of the SPD asked for.
    origins: BTreeMap<PolicyKey, Vec<Policy>>,
    /// Rules of the leak guard that the device does not get in the way of.
    standing: BTreeSet<Policy>,
    /// Ours from a former process that nobody has asked for again.
    stale: Vec<Policy>,
    failure: Option<Error>,
}

type Slot = (Direction, Selector);

/// Neighbour discovery and router advertisements: an interface without them is dead (RFC 4861).
const NEIGHBOURS: std::ops::RangeInclusive<u16> = 133..=137;
/// Above all of the SPD's.
const FIRST_PRIORITY: u32 = 1;

impl Guard {
    /// Connects to the kernel in this thread's network namespace, and finds what a former process left.
    pub(super) fn open(mark: u32) -> Self {
        let mut guard = Self {
            xfrm: Xfrm::open(),
            mark,
            wanted: BTreeMap::new(),
            origins: BTreeMap::new(),
            standing: BTreeSet::new(),
            stale: Vec::new(),
            failure: None,
        };
        match guard.xfrm.as_mut().map(|xfrm| ours(xfrm, mark)) {
            Ok(Ok(all)) => guard.stale = all,
            Ok(Err(error)) => guard.failure = Some(error),
            Err(_) => {}
        }
        for selector in always_allowed() {
            guard.want(Policy {
                mark: (0, mark),
                ..Policy::new(Direction::In, FIRST_PRIORITY, selector, Action::Allow)
            });
        }
        guard
    }

    /// Follows the policies of a batch.
    pub(super) fn apply(&mut self, batch: &Batch) {
        for change in &batch.0 {
            match change {
                Change::PutPolicy(policy) if policy.flow != Flow::Out => {
                    let policies = counterparts(policy, self.mark);
                    policies.iter().for_each(|p| self.want(p.clone()));
                    let before =
                        self.origins.insert(policy.key(), policies.clone()).unwrap_or_default();
                    before
                        .iter()
                        .filter(|old| !policies.contains(old))
                        .for_each(|old| self.unwant(old));
                }
                Change::RemovePolicy(key) => {
                    let before = self.origins.remove(key).unwrap_or_default();
                    before.iter().for_each(|old| self.unwant(old));
                }
                _ => {}
            }
        }
    }

    /// Follows the leak guard's rules. Of those for packets that leave only the ones of IPv4: packets into the device are
    /// exempt from them there, and in IPv6 they are not.
    pub(super) fn stand(&mut self, rules: &[SpdPolicy]) {
        let leaves =
            |rule: &&SpdPolicy| rule.flow == Flow::Out && rule.selector.local.addr().is_ipv4();
        let mut all: Vec<Policy> =
            rules.iter().filter(leaves).filter_map(standing).flatten().collect();
        all.iter_mut().for_each(|policy| policy.mark = (0, self.mark));
        all.iter().for_each(|policy| self.want(policy.clone()));
        let all = all.into_iter().collect();
        let before = std::mem::replace(&mut self.standing, all);
        let gone: Vec<Policy> = before.difference(&self.standing).cloned().collect();
        gone.iter().for_each(|policy| self.unwant(policy));
    }

    /// Takes away what a former process left and this one does not want, not before it wants anything; and puts back
    /// what is missing.
    pub(super) fn prune(&mut self) {
        if self.origins.is_empty() {
            return;
        }
        for policy in std::mem::take(&mut self.stale) {
            if !self.wanted.contains_key(&(policy.direction, policy.selector)) {
                self.change(|xfrm| xfrm.remove_policy(&policy));
            }
        }
        self.repair();
    }

    /// Puts back what somebody else took away.
    fn repair(&mut self) {
        let mark = self.mark;
        let Ok(Ok(there)) = self.xfrm.as_mut().map(|xfrm| ours(xfrm, mark)) else { return };
        let there: BTreeSet<Slot> = there.iter().map(|p| (p.direction, p.selector)).collect();
        let lost: Vec<Slot> =
            self.wanted.keys().filter(|slot| !there.contains(slot)).copied().collect();
        lost.into_iter().for_each(|slot| self.install(slot));
    }

    /// Takes all of ours away.
    pub(super) fn remove(&mut self) {
        let slots = std::mem::take(&mut self.wanted);
        let mark = (0, self.mark);
        let wanted = slots.into_keys().map(|(direction, selector)| Policy {
            mark,
            ..Policy::new(direction, 0, selector, Action::Block)
        });
        for policy in wanted.chain(std::mem::take(&mut self.stale)) {
            self.change(|xfrm| xfrm.remove_policy(&policy));
        }
        self.origins.clear();
        self.standing.clear();
    }

    /// How many policies there are, or why there are none.
    pub(super) fn state(&self) -> Result<usize, String> {
        match &self.xfrm {
            Ok(_) => Ok(self.wanted.len()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What an operator should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        let missing = self
            .xfrm
            .as_ref()
            .err()
            .map(|error| format!("no leak guard for incoming cleartext: {error}"));
        let failed =
            self.failure.as_ref().map(|error| format!("the leak guard is incomplete: {error}"));
        missing.into_iter().chain(failed).collect()
    }

    fn want(&mut self, policy: Policy) {
        let slot = (policy.direction, policy.selector);
        self.wanted.entry(slot).or_default().insert((policy.priority, policy.action));
        self.install(slot);
    }

    fn unwant(&mut self, policy: &Policy) {
        let slot = (policy.direction, policy.selector);
        if let Some(all) = self.wanted.get_mut(&slot) {
            all.remove(&(policy.priority, policy.action));
            if all.is_empty() {
                self.wanted.remove(&slot);
                self.change(|xfrm| xfrm.remove_policy(policy));
            } else {
                self.install(slot);
            }
        }
    }

    fn install(&mut self, slot: Slot) {
        let Some((priority, action)) = self.wanted.get(&slot).and_then(BTreeSet::first).copied()
        else {
            return;
        };
        let policy =
            Policy { mark: (0, self.mark), ..Policy::new(slot.0, priority, slot.1, action) };
        self.change(|xfrm| xfrm.put_policy(&policy));
    }

    fn change(&mut self, work: impl FnOnce(&mut Xfrm) -> Result<(), Error>) {
        if let Ok(xfrm) = &mut self.xfrm
            && let Err(error) = work(xfrm)
        {
            self.failure = Some(error);
        }
    }
}

/// How often this kernel refused packets by policy: `XfrmInPolBlock` of this thread's network namespace.
pub fn kernel_counters() -> Option<(&'static str, u64)> {
    let text = std::fs::read_to_string("/proc/thread-self/net/xfrm_stat").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("XfrmInPolBlock"))?;
    Some(("kernel_in_blocked", value.trim().parse().ok()?))
}

/// What must pass between neighbours whatever the policies say, and the ICMP errors that tell path MTUs.
fn always_allowed() -> Vec<Selector> {
    let icmp = |ip: Ip, protocol, kind, code| Selector {
        protocol,
        src_port: PortMask::one(kind),
        dst_port: code,
        ..Selector::between(everything(ip), everything(ip))
    };
    let mut all: Vec<_> =
        NEIGHBOURS.map(|kind| icmp(Ip::V6, proto::ICMPV6, kind, PortMask::ANY)).collect();
    all.push(icmp(Ip::V6, proto::ICMPV6, 2, PortMask::ANY));
    all.push(icmp(Ip::V4, proto::ICMP, 3, PortMask::one(4)));
    all
}

/// Kernel policies for one of the SPD.
fn counterparts(policy: &SpdPolicy, mark: u32) -> Vec<Policy> {
    let direction = match policy.flow {
        Flow::In => Direction::In,
        Flow::Fwd => Direction::Fwd,
        Flow::Out => return Vec::new(),
    };
    let action = match policy.action {
        SpdAction::Bypass | SpdAction::Protect { optional: true, .. } => Action::Allow,
        SpdAction::Discard | SpdAction::Protect { optional: false, .. } => Action::Block,
    };
    let selector = &policy.selector;
    let (src, dst) = (selector.remote.trunc(), selector.local.trunc());
    if !same_family(src, dst) {
        return Vec::new();
    }
    let protocol = selector.protocol.unwrap_or(0);
    let ports = if matches!(protocol, proto::ICMP | proto::ICMPV6) {
        icmp_ports(selector.remote_ports.or(selector.local_ports))
    } else {
        tcp_ports(selector.remote_ports, selector.local_ports)
    };
    let all = ports.into_iter().map(|(src_port, dst_port)| Selector {
        src,
        dst,
        protocol,
        src_port,
        dst_port,
        interface: 0,
    });
    all.map(|selector| Policy {
        mark: (0, mark),
        ..Policy::new(direction, policy.priority, selector, action)
    })
    .collect()
}

fn same_family(a: IpNet, b: IpNet) -> bool {
    matches!((a.addr(), b.addr()), (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)))
}

fn masks(range: Option<(u16, u16)>) -> Vec<PortMask> {
    range.map_or(vec![PortMask::ANY], |(first, last)| PortMask::range(first, last))
}

fn tcp_ports(src: Option<(u16, u16)>, dst: Option<(u16, u16)>) -> Vec<(PortMask, PortMask)> {
    let dst = masks(dst);
    masks(src).into_iter().flat_map(|src| dst.iter().map(move |dst| (src, *dst))).collect()
}

/// The kernel has the type where source ports are, and the code where destination ports are.
fn icmp_ports(range: Option<(u16, u16)>) -> Vec<(PortMask, PortMask)> {
    let Some((first, last)) = range else { return vec![(PortMask::ANY, PortMask::ANY)] };
    let mut all = Vec::new();
    for kind in first >> 8..=last >> 8 {
        let from = if kind == first >> 8 { first & 0xff } else { 0 };
        let to = if kind == last >> 8 { last & 0xff } else { 0xff };
        let codes =
            if (from, to) == (0, 0xff) { vec![PortMask::ANY] } else { PortMask::range(from, to) };
        all.extend(codes.into_iter().map(|code| (PortMask::one(kind), code)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec::sa::{Mode, Reqid};
    use ipsec::spd::PolicySelector;

    fn policy(flow: Flow, action: SpdAction) -> SpdPolicy {
        let selector = PolicySelector {
            local: "10.0.0.1/32".parse().unwrap(),
            remote: "10.0.0.0/20".parse().unwrap(),
            protocol: None,
            local_ports: None,
            remote_ports: None,
        };
        SpdPolicy { priority: 77, flow, selector, action }
    }

    #[test]
    fn what_is_protected_is_blocked_in_the_clear() {
        let protect =
            |optional| SpdAction::Protect { mode: Mode::Transport, reqid: Reqid(1), optional };
        for (action, expected) in [
            (protect(false), Action::Block),
            (protect(true), Action::Allow),
            (SpdAction::Bypass, Action::Allow),
            (SpdAction::Discard, Action::Block),
        ] {
            let all = counterparts(&policy(Flow::In, action), 8);
            let selector =
                Selector::between("10.0.0.0/20".parse().unwrap(), "10.0.0.1/32".parse().unwrap());
            assert_eq!(
                all,
                [Policy { mark: (0, 8), ..Policy::new(Direction::In, 77, selector, expected) }]
            );
        }
        assert_eq!(counterparts(&policy(Flow::Out, SpdAction::Discard), 8), []);
    }

    #[test]
    fn port_ranges_are_covered() {
        let mut of = policy(Flow::In, SpdAction::Bypass);
        of.selector.protocol = Some(6);
        of.selector.local_ports = Some((80, 82));
        let ports: Vec<_> = counterparts(&of, 8)
            .iter()
            .map(|p| (p.selector.src_port, p.selector.dst_port))
            .collect();
        assert_eq!(
            ports,
            [
                (PortMask::ANY, PortMask { value: 80, mask: 0xfffe }),
                (PortMask::ANY, PortMask::one(82))
            ]
        );
    }

    #[test]
    fn icmp_has_type_and_code() {
        assert_eq!(icmp_ports(Some((0x8700, 0x87ff))), [(PortMask::one(0x87), PortMask::ANY)]);
        assert_eq!(icmp_ports(Some((0x0304, 0x0304))), [(PortMask::one(3), PortMask::one(4))]);
        assert_eq!(
            icmp_ports(Some((0x03ff, 0x0400))),
            [(PortMask::one(3), PortMask::one(0xff)), (PortMask::one(4), PortMask::one(0))]
        );
    }
}
