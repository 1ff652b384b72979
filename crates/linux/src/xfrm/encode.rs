//! What is sent to the kernel.

mod sa;

use std::net::IpAddr;

use ipsec::sa::SaKey;
use nix::libc;
use zerocopy::IntoBytes;

use super::decode;
use super::policy::{Direction, Policy, PortMask, Selector, Template};
use super::state;
use super::uapi::*;
use crate::netlink::Body;

pub(crate) use sa::{
    Move, SecretBody, encap_ports, limits, mode, moved_sa, new_sa, trial_sa, update_sa,
};

/// `struct xfrm_usersa_id`.
pub(crate) fn sa_id(key: SaKey) -> SaId {
    SaId {
        daddr: address(key.dst),
        spi: key.spi.0.to_be_bytes(),
        family: family(key.dst),
        proto: PROTO_ESP,
        pad: 0,
    }
}

/// ALLOCSPI for the place of an SA that was asked for: with an SPI it has a name, by which it can be removed.
pub(crate) fn alloc_spi(larval: &state::State, spi: u32) -> SpiInfo {
    let info = SaInfo {
        id: Id { daddr: address(larval.key.dst), proto: PROTO_ESP, ..Id::default() },
        saddr: address(larval.src),
        reqid: larval.reqid,
        mode: larval.mode,
        family: family(larval.key.dst),
        ..SaInfo::default()
    };
    SpiInfo { info, min: spi, max: spi }
}

/// GETSA for all ESP SAs, or those to one address.
pub(crate) fn sa_filter(dst: Option<IpAddr>) -> Body {
    let body = Body::default().attr(attr::PROTO, &[PROTO_ESP]);
    let Some(dst) = dst else { return body };
    let filter = AddressFilter {
        daddr: address(dst),
        family: family(dst),
        dplen: if dst.is_ipv4() { 32 } else { 128 },
        ..AddressFilter::default()
    };
    body.attr(attr::ADDRESS_FILTER, filter.as_bytes())
}

/// `struct xfrm_userpolicy_info` and its templates. Index 0 leaves the choice to the kernel.
pub(crate) fn policy(policy: &Policy, index: u32) -> Body {
    let lft = LifetimeCfg {
        soft_byte_limit: INF,
        hard_byte_limit: INF,
        soft_packet_limit: INF,
        hard_packet_limit: INF,
        ..LifetimeCfg::default()
    };
    let info = PolicyInfo {
        sel: selector_info(&policy.selector),
        lft,
        priority: policy.priority,
        index,
        dir: policy.direction as u8,
        action: policy.action as u8,
        ..PolicyInfo::default()
    };
    let body = with_mark(Body::new(info.as_bytes()), policy.mark);
    if policy.templates.is_empty() {
        return body;
    }
    let templates: Vec<_> = policy.templates.iter().map(template_info).collect();
    body.attr(attr::TMPL, templates.as_slice().as_bytes())
}

/// `struct xfrm_userpolicy_id` by selector.
pub(crate) fn policy_id(direction: Direction, selector: &Selector) -> PolicyId {
    let sel = selector_info(selector);
    PolicyId { sel, dir: direction as u8, ..PolicyId::default() }
}

/// The same with the mark, which is part of the name.
pub(crate) fn policy_name(policy: &Policy) -> Body {
    let id = policy_id(policy.direction, &policy.selector);
    with_mark(Body::new(id.as_bytes()), policy.mark)
}

fn with_mark(body: Body, (v, m): (u32, u32)) -> Body {
    if m == 0 { body } else { body.attr(attr::MARK, MarkInfo { v, m }.as_bytes()) }
}

/// `struct xfrm_userpolicy_id` by index, whose lowest three bits are the direction.
pub(crate) fn policy_index(index: u32) -> PolicyId {
    PolicyId { index, dir: (index & 7) as u8, ..PolicyId::default() }
}

fn template_info(template: &Template) -> Tmpl {
    let outer = |address: Option<IpAddr>| address.map_or([0; 16], self::address);
    Tmpl {
        id: Id { daddr: outer(template.dst), proto: template.protocol, ..Id::default() },
        family: decode::family_of(template.ip),
        saddr: outer(template.src),
        reqid: template.reqid,
        mode: template.mode,
        optional: u8::from(template.optional),
        // Any algorithm: which may be used was settled by IKE.
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
        ..Tmpl::default()
    }
}

/// `struct xfrm_selector`.
pub(crate) fn selector_info(selector: &Selector) -> SelectorInfo {
    let port =
        |ports: PortMask| ((ports.value & ports.mask).to_be_bytes(), ports.mask.to_be_bytes());
    let (dport, dport_mask) = port(selector.dst_port);
    let (sport, sport_mask) = port(selector.src_port);
    SelectorInfo {
        daddr: address(selector.dst.network()),
        saddr: address(selector.src.network()),
        dport,
        dport_mask,
        sport,
        sport_mask,
        family: family(selector.dst.addr()),
        prefixlen_d: selector.dst.prefix_len(),
        prefixlen_s: selector.src.prefix_len(),
        proto: selector.protocol,
        pad: [0; 3],
        ifindex: selector.interface,
        user: 0,
    }
}

/// `xfrm_address_t`.
pub(crate) fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&v4.octets());
            out
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn family(address: IpAddr) -> u16 {
    if address.is_ipv4() { libc::AF_INET as u16 } else { libc::AF_INET6 as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xfrm::policy::Action;

    #[test]
    fn policies_round_trip() {
        let mut selector =
            Selector::between("10.0.0.0/20".parse().unwrap(), "10.1.0.0/16".parse().unwrap());
        selector.protocol = 17;
        selector.dst_port = PortMask { value: 0x0100, mask: 0xff00 };
        selector.interface = 9;
        let block = Policy::new(Direction::Fwd, 7, selector, Action::Block);
        let six = Selector::from("2001:db8::/64".parse().unwrap());
        let mut allow = Policy::new(Direction::In, 1, six, Action::Allow);
        for (src, optional) in [(None, true), (Some("2001:db8::9".parse().unwrap()), false)] {
            allow.templates.push(Template {
                ip: crate::raw::Ip::V6,
                src,
                dst: src,
                protocol: 50,
                mode: MODE_TUNNEL,
                reqid: 77,
                optional,
            });
        }
        for policy in [block, allow] {
            let there = decode::policy(super::policy(&policy, 0x5700_0010).bytes()).unwrap();
            assert_eq!((there.policy, there.index), (policy, 0x5700_0010));
        }
    }

    #[test]
    fn cut_policies_are_nothing() {
        let policy = Policy::new(
            Direction::Out,
            1,
            Selector::from("10.0.0.0/8".parse().unwrap()),
            Action::Allow,
        );
        let body = super::policy(&policy, 9);
        for length in 0..size_of::<PolicyInfo>() {
            assert_eq!(decode::policy(&body.bytes()[..length]), None);
        }
    }
}
