//! From the plan's policies to the kernel's, whose selectors have ports with masks and no ranges, and back.

use ipnet::IpNet;
use ipsec::packet::proto;
use ipsec::sa::Mode;
use ipsec::spd::{self, Flow, PolicyKey, PolicySelector};

use super::policy::{Action, Direction, Policy, PortMask, Selector, Template};
use super::uapi;
use crate::raw::Ip;

/// The kernel's priorities are the plan's, doubled: in between is room for what follows from an SA.
pub(crate) const fn priority(plan: u32) -> Option<u32> {
    match plan.checked_mul(2) {
        Some(doubled) => Some(doubled + 1),
        None => None,
    }
}

/// What looks at packets just before the policy of this kernel priority.
pub(crate) const fn just_before(priority: u32) -> u32 {
    priority - 1
}

/// The plan's priority behind either of the two above.
pub(crate) const fn plan_priority(priority: u32) -> u32 {
    priority / 2
}

/// The kernel's policies for one of the plan's. Empty if no packet can match it; `None` if it cannot be expressed:
/// addresses of two families, or a priority of 2³¹ or more.
pub(crate) fn policies(policy: &spd::Policy) -> Option<Vec<Policy>> {
    let priority = priority(policy.priority)?;
    let (action, template) = match policy.action {
        spd::Action::Bypass => (Action::Allow, None),
        spd::Action::Discard => (Action::Block, None),
        spd::Action::Protect { mode, reqid, optional } => {
            let mode = match (policy.flow, mode) {
                // A tunnel's template would have to name the peer. As a trap any template will do that no SA fits:
                // the tunnel itself is a policy of its own, which comes and goes with the SA.
                (Flow::Out, _) | (_, Mode::Transport) => uapi::MODE_TRANSPORT,
                (_, Mode::Tunnel) => uapi::MODE_TUNNEL,
            };
            let ip = Ip::of(policy.selector.local.addr());
            let protocol = uapi::PROTO_ESP;
            let template =
                Template { ip, src: None, dst: None, protocol, mode, reqid: reqid.0, optional };
            (Action::Allow, Some(template))
        }
    };
    let direction = direction(policy.flow);
    let templates: Vec<_> = template.into_iter().collect();
    let parts = selectors(policy.flow, &policy.selector)?.into_iter().map(|selector| Policy {
        direction,
        selector,
        priority,
        action,
        mark: (0, 0),
        templates: templates.clone(),
    });
    Some(parts.collect())
}

/// The plan's key of a kernel policy. Exact for what [`policies`] makes of a policy that it does not have to split.
pub(crate) fn key(policy: &Policy) -> PolicyKey {
    let flow = match policy.direction {
        Direction::In => Flow::In,
        Direction::Out => Flow::Out,
        Direction::Fwd => Flow::Fwd,
    };
    let Selector { src, dst, protocol, src_port, dst_port, .. } = policy.selector;
    let (src_ports, dst_ports) = if is_icmp(protocol) {
        (icmp_range(src_port, dst_port), None)
    } else {
        (range(src_port), range(dst_port))
    };
    let ((local, local_ports), (remote, remote_ports)) = match (flow, is_icmp(protocol)) {
        (Flow::Out, _) => ((src, src_ports), (dst, dst_ports)),
        (Flow::In | Flow::Fwd, false) => ((dst, dst_ports), (src, src_ports)),
        (Flow::In | Flow::Fwd, true) => ((dst, src_ports), (src, None)),
    };
    let protocol = (protocol != 0).then_some(protocol);
    let selector = PolicySelector { local, remote, protocol, local_ports, remote_ports };
    PolicyKey { flow, priority: plan_priority(policy.priority), selector }
}

/// The kernel's name of a flow.
pub(crate) fn direction(flow: Flow) -> Direction {
    match flow {
        Flow::In => Direction::In,
        Flow::Out => Direction::Out,
        Flow::Fwd => Direction::Fwd,
    }
}

/// The kernel's selectors for one of the plan's. At most 4 × 30 × 30 for two whole ranges of ports.
pub(crate) fn selectors(flow: Flow, selector: &PolicySelector) -> Option<Vec<Selector>> {
    let PolicySelector { local, remote, protocol, local_ports, remote_ports } = *selector;
    let (src, dst, src_ports, dst_ports) = match flow {
        Flow::Out => (local, remote, local_ports, remote_ports),
        Flow::In | Flow::Fwd => (remote, local, remote_ports, local_ports),
    };
    if src.addr().is_ipv4() != dst.addr().is_ipv4() {
        return None;
    }
    let (src, dst) = (src.trunc(), dst.trunc());
    if let Some(protocol) = protocol.filter(|protocol| is_icmp(*protocol)) {
        return Some(icmp_selectors(src, dst, protocol, intersect(src_ports, dst_ports)));
    }
    let (sources, destinations) = (blocks(src_ports), blocks(dst_ports));
    let mut out = Vec::new();
    for protocol in protocols(protocol, src_ports.is_some() || dst_ports.is_some()) {
        for src_port in &sources {
            for dst_port in &destinations {
                let (src_port, dst_port) = (*src_port, *dst_port);
                out.push(Selector { src, dst, protocol, src_port, dst_port, interface: 0 });
            }
        }
    }
    Some(out)
}

/// PortMask without a protocol are those of each protocol that has ports; the kernel would look at ICMP's type too.
fn protocols(protocol: Option<u8>, ports: bool) -> Vec<u8> {
    match (protocol, ports) {
        (Some(protocol), _) => vec![protocol],
        (None, false) => vec![0],
        (None, true) => vec![proto::TCP, proto::UDP, proto::SCTP, proto::UDP_LITE],
    }
}

pub(crate) fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, proto::ICMP | proto::ICMPV6)
}

fn blocks(range: Option<(u16, u16)>) -> Vec<PortMask> {
    range.map_or(vec![PortMask::ANY], |(first, last)| PortMask::range(first, last))
}

/// ICMP types and codes: both sides of a selector speak of the same two bytes of the packet.
fn icmp_selectors(
    src: IpNet,
    dst: IpNet,
    protocol: u8,
    range: Option<(u16, u16)>,
) -> Vec<Selector> {
    let Some((first, last)) = range else { return Vec::new() };
    let mut out = Vec::new();
    for (types, codes) in icmp_rectangles(first, last) {
        for src_port in bytes(types) {
            for dst_port in bytes(codes) {
                out.push(Selector { src, dst, protocol, src_port, dst_port, interface: 0 });
            }
        }
    }
    out
}

type Bytes = (u8, u8);

/// The range from one type and code to another, as at most three rectangles of types and codes.
fn icmp_rectangles(first: u16, last: u16) -> Vec<(Bytes, Bytes)> {
    let ([t0, c0], [t1, c1]) = (first.to_be_bytes(), last.to_be_bytes());
    if t0 == t1 {
        return vec![((t0, t0), (c0, c1))];
    }
    let mut out = Vec::new();
    // Types whose codes are all in the range; in 16 bits, as one of the ends may fall off.
    let (mut low, mut high) = (u16::from(t0), u16::from(t1));
    if c0 > 0 {
        out.push(((t0, t0), (c0, u8::MAX)));
        low += 1;
    }
    if c1 < u8::MAX {
        out.push(((t1, t1), (0, c1)));
        high -= 1;
    }
    if low <= high {
        out.push(((low as u8, high as u8), (0, u8::MAX)));
    }
    out
}

fn bytes((first, last): Bytes) -> Vec<PortMask> {
    if (first, last) == (0, u8::MAX) {
        return vec![PortMask::ANY];
    }
    PortMask::range(first.into(), last.into())
}

/// Both ranges at once; `None` if no number is in both.
fn intersect(a: Option<(u16, u16)>, b: Option<(u16, u16)>) -> Option<(u16, u16)> {
    let ((a0, a1), (b0, b1)) = (a.unwrap_or((0, u16::MAX)), b.unwrap_or((0, u16::MAX)));
    let (first, last) = (a0.max(b0), a1.min(b1));
    (first <= last).then_some((first, last))
}

fn range(ports: PortMask) -> Option<(u16, u16)> {
    (ports.mask != 0).then_some((ports.value & ports.mask, ports.value | !ports.mask))
}

fn icmp_range(types: PortMask, codes: PortMask) -> Option<(u16, u16)> {
    let low = |ports: PortMask| (ports.value & ports.mask) as u8;
    let high = |ports: PortMask| (ports.value | !ports.mask).min(0xff) as u8;
    let first = u16::from_be_bytes([low(types), low(codes)]);
    let last = u16::from_be_bytes([high(types), high(codes)]);
    ((first, last) != (0, u16::MAX)).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec::sa::Reqid;

    fn selector() -> PolicySelector {
        PolicySelector {
            local: "10.0.0.1/32".parse().unwrap(),
            remote: "10.0.0.0/16".parse().unwrap(),
            protocol: None,
            local_ports: None,
            remote_ports: None,
        }
    }

    fn admits(ports: &[PortMask], port: u16) -> usize {
        ports.iter().filter(|p| (p.value ^ port) & p.mask == 0).count()
    }

    #[test]
    fn ranges_become_blocks_without_overlap() {
        for range in [(0, 65535), (0, 0), (65535, 65535), (1, 65534), (1024, 65535), (80, 443)] {
            let blocks = blocks(Some(range));
            assert!(blocks.len() <= 30);
            for port in 0..=u16::MAX {
                let inside = (range.0..=range.1).contains(&port);
                assert_eq!(admits(&blocks, port), usize::from(inside), "{range:?} {port}");
            }
        }
        assert_eq!(blocks(None), [PortMask::ANY]);
        assert_eq!(blocks(Some((500, 500))), [PortMask::one(500)]);
        assert_eq!(blocks(Some((9, 3))), []);
    }

    #[test]
    fn icmp_types_and_codes() {
        let ranges = [(0, 65535), (0x0803, 0x0803), (0x0800, 0x08ff), (0x85_00, 0x89_ff)];
        let odd = [(0x0305, 0x0a02), (0x00ff, 0x0100), (0, 0x0002), (0xff00, 0xffff)];
        for range in ranges.into_iter().chain(odd) {
            let with = PolicySelector {
                protocol: Some(proto::ICMPV6),
                local_ports: Some(range),
                ..selector()
            };
            let parts = selectors(Flow::In, &with).unwrap();
            for number in 0..=u16::MAX {
                let [kind, code] = number.to_be_bytes().map(u16::from);
                let hits = parts.iter().filter(|s| {
                    admits(&[s.src_port], kind) == 1 && admits(&[s.dst_port], code) == 1
                });
                let inside = (range.0..=range.1).contains(&number);
                assert_eq!(hits.count(), usize::from(inside), "{range:x?} {number:x}");
            }
        }
        let never = PolicySelector {
            protocol: Some(proto::ICMP),
            local_ports: Some((1, 2)),
            remote_ports: Some((3, 4)),
            ..selector()
        };
        assert_eq!(selectors(Flow::Out, &never), Some(vec![]));
    }

    #[test]
    fn simple_policies_come_back_as_they_were() {
        let icmp = PolicySelector {
            protocol: Some(proto::ICMPV6),
            local_ports: Some((135 << 8, 135 << 8 | 0xff)),
            ..selector()
        };
        let ssh = PolicySelector {
            protocol: Some(proto::TCP),
            local_ports: Some((22, 22)),
            remote_ports: Some((1024, 2047)),
            ..selector()
        };
        for selector in [selector(), icmp, ssh] {
            for flow in [Flow::In, Flow::Out, Flow::Fwd] {
                let policy =
                    spd::Policy { priority: 77, flow, selector, action: spd::Action::Discard };
                let parts = policies(&policy).unwrap();
                assert_eq!(parts.len(), 1, "{parts:?}");
                assert_eq!(parts[0].priority, 155);
                assert_eq!(key(&parts[0]), policy.key());
            }
        }
    }

    #[test]
    fn actions_and_what_cannot_be_said() {
        let protect = spd::Action::Protect { mode: Mode::Tunnel, reqid: Reqid(9), optional: false };
        let mut policy =
            spd::Policy { priority: 1, flow: Flow::Out, selector: selector(), action: protect };
        let mode = |policy: &spd::Policy| policies(policy).unwrap()[0].templates[0].mode;
        assert_eq!(mode(&policy), uapi::MODE_TRANSPORT);
        policy.flow = Flow::In;
        assert_eq!(mode(&policy), uapi::MODE_TUNNEL);
        policy.priority = 1 << 31;
        assert_eq!(policies(&policy), None);
        policy.priority = 1;
        policy.selector.remote = "fd00::/8".parse().unwrap();
        assert_eq!(policies(&policy), None);
        policy.selector = PolicySelector { local_ports: Some((53, 53)), ..selector() };
        let protocols: Vec<_> =
            policies(&policy).unwrap().iter().map(|p| p.selector.protocol).collect();
        assert_eq!(protocols, [6, 17, 132, 136]);
    }
}
