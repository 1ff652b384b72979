//! What comes from the kernel. Lengths are checked: other programs' entries are among it.

use std::net::IpAddr;

use ipnet::IpNet;
use ipsec::sa::SaKey;
use nix::libc;
use wire::esp::Spi;

use super::policy::{Action, Direction, Installed, Policy, PortMask, Selector, Template};
use super::state::State;
use super::uapi::*;
use crate::netlink::Attributes;
use crate::raw::Ip;

/// NEWPOLICY and its like. `None` for what is no policy of a host: those of sockets, and of no family.
pub(crate) fn policy(body: &[u8]) -> Option<Installed> {
    let info: PolicyInfo = read(body)?;
    let templates = attribute(body, size_of::<PolicyInfo>(), attr::TMPL);
    let mark: Option<MarkInfo> =
        attribute(body, size_of::<PolicyInfo>(), attr::MARK).and_then(read);
    Some(Installed {
        policy: Policy {
            direction: direction(info.dir)?,
            selector: selector(&info.sel)?,
            priority: info.priority,
            action: if info.action == Action::Allow as u8 { Action::Allow } else { Action::Block },
            mark: mark.map_or((0, 0), |mark| (mark.v, mark.m)),
            templates: templates
                .unwrap_or_default()
                .chunks_exact(size_of::<Tmpl>())
                .filter_map(template)
                .collect(),
        },
        index: info.index,
    })
}

fn template(bytes: &[u8]) -> Option<Template> {
    let tmpl: Tmpl = read(bytes)?;
    let ip = ip(tmpl.family)?;
    let outer = |raw| Some(address(ip, raw)).filter(|address| !address.is_unspecified());
    Some(Template {
        ip,
        src: outer(tmpl.saddr),
        dst: outer(tmpl.id.daddr),
        protocol: tmpl.id.proto,
        mode: tmpl.mode,
        reqid: tmpl.reqid,
        optional: tmpl.optional != 0,
    })
}

/// The first template of a message whose fixed part is `fixed` bytes long.
pub(crate) fn first_template(body: &[u8], fixed: usize) -> Option<Template> {
    template(attribute(body, fixed, attr::TMPL)?)
}

/// NEWSA and its like. The keys are left where they are.
pub(crate) fn state(body: &[u8]) -> Option<State> {
    let info: SaInfo = read(body)?;
    let mut state = sa_info(&info)?;
    for (kind, value) in Attributes::new(body.get(size_of::<SaInfo>()..)?) {
        match kind {
            attr::LASTUSED => state.last_used = read(value),
            attr::ENCAP => state.encap = read(value).map(ports),
            _ => {}
        }
    }
    Some(state)
}

/// `struct xfrm_usersa_info` alone.
pub(crate) fn sa_info(info: &SaInfo) -> Option<State> {
    let ip = ip(info.family)?;
    if info.id.proto != PROTO_ESP {
        return None;
    }
    Some(State {
        key: SaKey { dst: address(ip, info.id.daddr), spi: Spi(u32::from_be_bytes(info.id.spi)) },
        src: address(ip, info.saddr),
        reqid: info.reqid,
        mode: info.mode,
        selector: selector(&info.sel),
        encap: None,
        esn: info.flags & STATE_ESN != 0,
        limits: info.lft,
        added: info.curlft.add_time,
        bytes: info.curlft.bytes,
        packets: info.curlft.packets,
        replays: u64::from(info.replay_errors) + u64::from(info.replay),
        bad_icv: info.integrity_failed.into(),
        last_used: None,
    })
}

fn ports(encap: EncapTmpl) -> (u16, u16) {
    (u16::from_be_bytes(encap.sport), u16::from_be_bytes(encap.dport))
}

/// Whether two SAs, each as its fixed part and its attributes, have the same algorithms and keys. Takes as long for any
/// two keys of one length.
pub(crate) fn same_keys(a: &[u8], b: &[u8]) -> bool {
    let kinds = [attr::ALG_AEAD, attr::ALG_CRYPT, attr::ALG_AUTH_TRUNC];
    kinds.into_iter().all(|kind| {
        let of = |body| attribute(body, size_of::<SaInfo>(), kind).unwrap_or_default();
        let (a, b) = (of(a), of(b));
        a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    })
}

/// `struct xfrm_usersa_id`; `None` for other protocols than ESP.
pub(crate) fn sa_id(id: &SaId) -> Option<SaKey> {
    let ip = ip(id.family).filter(|_| id.proto == PROTO_ESP)?;
    Some(SaKey { dst: address(ip, id.daddr), spi: Spi(u32::from_be_bytes(id.spi)) })
}

/// `struct xfrm_selector`; `None` for one of no family.
pub(crate) fn selector(info: &SelectorInfo) -> Option<Selector> {
    let ip = ip(info.family)?;
    let ports = |value, mask| {
        let (value, mask) = (u16::from_be_bytes(value), u16::from_be_bytes(mask));
        PortMask { value: value & mask, mask }
    };
    Some(Selector {
        src: IpNet::new(address(ip, info.saddr), info.prefixlen_s).ok()?,
        dst: IpNet::new(address(ip, info.daddr), info.prefixlen_d).ok()?,
        protocol: info.proto,
        src_port: ports(info.sport, info.sport_mask),
        dst_port: ports(info.dport, info.dport_mask),
        interface: info.ifindex,
    })
}

/// An attribute behind `fixed` bytes.
pub(crate) fn attribute(body: &[u8], fixed: usize, kind: u16) -> Option<&[u8]> {
    Attributes::new(body.get(fixed..)?).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// `xfrm_address_t`.
pub(crate) fn address(ip: Ip, raw: [u8; 16]) -> IpAddr {
    match ip {
        Ip::V4 => IpAddr::from([raw[0], raw[1], raw[2], raw[3]]),
        Ip::V6 => IpAddr::from(raw),
    }
}

/// `AF_*`.
pub(crate) fn ip(family: u16) -> Option<Ip> {
    match i32::from(family) {
        libc::AF_INET => Some(Ip::V4),
        libc::AF_INET6 => Some(Ip::V6),
        _ => None,
    }
}

/// `AF_*`.
pub(crate) fn family_of(ip: Ip) -> u16 {
    match ip {
        Ip::V4 => libc::AF_INET as u16,
        Ip::V6 => libc::AF_INET6 as u16,
    }
}

fn direction(dir: u8) -> Option<Direction> {
    [Direction::In, Direction::Out, Direction::Fwd].into_iter().find(|d| *d as u8 == dir)
}
