//! The kernel's IPsec policies, as far as a guard needs them: allow and block; no SAs yet.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use ipnet::IpNet;
use nix::libc;

use crate::errno::{Errno, explain};
use crate::netlink::{self, Attributes, Body, Family, Socket};
use crate::raw::Ip;
use crate::sys;

/// Why the kernel has no such policy now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was built without XFRM.
    #[error("this kernel has no XFRM: it cannot refuse cleartext from protected peers by itself")]
    Unsupported,
    /// It refused, or did not answer.
    #[error(transparent)]
    Netlink(netlink::Error),
    /// A socket option was refused.
    #[error("per-socket XFRM policy: {}", explain(*.0))]
    Option(Errno),
}

impl Error {
    /// The kernel's error number.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Unsupported => None,
            Self::Netlink(error) => error.errno(),
            Self::Option(errno) => Some(*errno),
        }
    }
}

impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Self {
        match error {
            netlink::Error::Unsupported(_) => Self::Unsupported,
            other => Self::Netlink(other),
        }
    }
}

/// Which packets a policy is looked up for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// Delivered to this host.
    In = 0,
    /// Sent by this host.
    Out = 1,
    /// Forwarded.
    Fwd = 2,
}

/// What happens to a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Action {
    /// It passes in the clear.
    Allow = 0,
    /// It is dropped.
    Block = 1,
}

/// The ports that have the bits of `value` where `mask` has ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortMask {
    /// Bits that must be so; zero outside the mask.
    pub value: u16,
    /// Bits that are looked at; 0 is any port, `0xffff` one port.
    pub mask: u16,
}

impl PortMask {
    /// Every port, and packets without ports.
    pub const ANY: Self = Self { value: 0, mask: 0 };

    /// One port.
    pub fn one(port: u16) -> Self {
        Self { value: port, mask: u16::MAX }
    }

    /// The fewest masks that together are the ports from `first` to `last`; none if that is no range.
    pub fn range(first: u16, last: u16) -> Vec<Self> {
        let (mut at, last) = (u32::from(first), u32::from(last));
        let mut masks = Vec::new();
        while at <= last {
            // The largest aligned block that begins here and does not go beyond the end.
            let aligned = if at == 0 { 16 } else { at.trailing_zeros() };
            let fitting = (last - at + 1).ilog2();
            let size = 1u32 << aligned.min(fitting);
            masks.push(Self { value: at as u16, mask: !((size - 1) as u16) });
            at += size;
        }
        masks
    }
}

/// Which packets.
///
/// `interface` is compared with the *outgoing* interface of the packet's route. For packets delivered to this host that
/// is the loopback device, whichever device they came by: there it cannot tell devices apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Selector {
    /// Sources, of one family with `dst`.
    pub src: IpNet,
    /// Destinations.
    pub dst: IpNet,
    /// IP protocol, 0 is any.
    pub protocol: u8,
    /// Source ports; the type for ICMP.
    pub src_port: PortMask,
    /// Destination ports; the code for ICMP.
    pub dst_port: PortMask,
    /// Interface index, 0 is any.
    pub interface: u32,
}

impl Selector {
    /// Everything between two networks of one family.
    pub fn between(src: IpNet, dst: IpNet) -> Self {
        Self {
            src,
            dst,
            protocol: 0,
            src_port: PortMask::ANY,
            dst_port: PortMask::ANY,
            interface: 0,
        }
    }

    /// Everything from a network.
    pub fn from(src: IpNet) -> Self {
        Self::between(src, everything(Ip::of(src.addr())))
    }
}

/// `0.0.0.0/0` or `::/0`.
pub fn everything(ip: Ip) -> IpNet {
    match ip {
        Ip::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Ip::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// A policy without transforms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Policy {
    /// For which packets it is looked up.
    pub direction: Direction,
    /// Which of them it is for.
    pub selector: Selector,
    /// The lowest number is looked at first.
    pub priority: u32,
    /// What happens.
    pub action: Action,
    /// For packets whose firewall mark has this value under this mask. It is part of what names a policy too, so that a
    /// mask of one's own keeps one's policies apart from foreign ones; `(0, 0)` is none.
    pub mark: (u32, u32),
    /// Number of the templates (SAs asked for); 0 for policies of this module.
    pub templates: usize,
}

impl Policy {
    /// One without templates.
    pub fn new(direction: Direction, priority: u32, selector: Selector, action: Action) -> Self {
        Self { direction, selector, priority, action, mark: (0, 0), templates: 0 }
    }
}

/// A connection to the kernel's policy database in one network namespace.
#[derive(Debug)]
pub struct Xfrm {
    socket: Socket,
}

impl Xfrm {
    /// Opens it in this thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Family::Xfrm)? })
    }

    /// Installs a policy, in place of one with the same direction, selector and mark.
    pub fn put_policy(&mut self, policy: &Policy) -> Result<(), Error> {
        let body = with_mark(Body::new(&policy_info(policy)), policy.mark);
        Ok(self.socket.request(UPDPOLICY, 0, body.bytes())?)
    }

    /// Takes the policy of this direction, selector and mark away; absent is success.
    pub fn remove_policy(&mut self, policy: &Policy) -> Result<(), Error> {
        let mut id = encode_selector(&policy.selector).to_vec();
        id.extend(0u32.to_ne_bytes());
        id.extend([policy.direction as u8, 0, 0, 0]);
        let body = with_mark(Body::new(&id), policy.mark);
        match self.socket.request(DELPOLICY, 0, body.bytes()) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// All policies, foreign ones included, but for those of sockets.
    pub fn policies(&mut self) -> Result<Vec<Policy>, Error> {
        let messages = self.socket.dump(GETPOLICY, &[0; POLICY_ID_LEN])?;
        Ok(messages.iter().filter_map(|m| decode_policy(&m.body)).collect())
    }
}

/// Lets a socket's packets pass in the clear both ways, whatever the policies of the host say.
pub fn bypass(socket: &OwnedFd, ip: Ip) -> Result<(), Error> {
    let (level, name) = match ip {
        Ip::V4 => (libc::IPPROTO_IP, libc::IP_XFRM_POLICY),
        Ip::V6 => (libc::IPPROTO_IPV6, libc::IPV6_XFRM_POLICY),
    };
    for direction in [Direction::In, Direction::Out] {
        let all = everything(ip);
        let policy = Policy::new(direction, 0, Selector::between(all, all), Action::Allow);
        sys::set_option(socket.as_fd(), level, name, &policy_info(&policy)).map_err(|errno| {
            match errno {
                Errno::ENOPROTOOPT | Errno::EOPNOTSUPP => Error::Unsupported,
                errno => Error::Option(errno),
            }
        })?;
    }
    Ok(())
}

// Numbers and layouts: linux/xfrm.h.
const DELPOLICY: u16 = 0x14;
const GETPOLICY: u16 = 0x15;
const UPDPOLICY: u16 = 0x19;
const XFRMA_TMPL: u16 = 5;
const XFRMA_MARK: u16 = 21;
const SELECTOR_LEN: usize = 56;
const POLICY_ID_LEN: usize = SELECTOR_LEN + 8;
const POLICY_LEN: usize = 168;
const TEMPLATE_LEN: usize = 64;

/// `struct xfrm_userpolicy_info`, without limits of any kind.
fn policy_info(policy: &Policy) -> [u8; POLICY_LEN] {
    let mut info = [0; POLICY_LEN];
    info[..SELECTOR_LEN].copy_from_slice(&encode_selector(&policy.selector));
    // Soft and hard byte and packet limits: none (XFRM_INF); times of 0 are none too.
    info[56..88].fill(0xff);
    info[152..156].copy_from_slice(&policy.priority.to_ne_bytes());
    info[160] = policy.direction as u8;
    info[161] = policy.action as u8;
    info
}

/// `struct xfrm_selector`.
fn encode_selector(selector: &Selector) -> [u8; SELECTOR_LEN] {
    let mut out = [0; SELECTOR_LEN];
    put_address(&mut out[..16], selector.dst.network());
    put_address(&mut out[16..32], selector.src.network());
    for (at, port) in [(32, selector.dst_port), (36, selector.src_port)] {
        out[at..at + 2].copy_from_slice(&port.value.to_be_bytes());
        out[at + 2..at + 4].copy_from_slice(&port.mask.to_be_bytes());
    }
    let family = if selector.src.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    out[40..42].copy_from_slice(&(family as u16).to_ne_bytes());
    out[42] = selector.dst.prefix_len();
    out[43] = selector.src.prefix_len();
    out[44] = selector.protocol;
    out[48..52].copy_from_slice(&selector.interface.to_ne_bytes());
    out
}

fn put_address(out: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(v4) => out[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.copy_from_slice(&v6.octets()),
    }
}

fn decode_policy(body: &[u8]) -> Option<Policy> {
    let info = body.get(..POLICY_LEN)?;
    let direction = match info[160] {
        0 => Direction::In,
        1 => Direction::Out,
        2 => Direction::Fwd,
        _ => return None,
    };
    let action = if info[161] == 0 { Action::Allow } else { Action::Block };
    let (mut templates, mut mark) = (0, (0, 0));
    for (kind, value) in Attributes::new(&body[POLICY_LEN..]) {
        match kind {
            XFRMA_TMPL => templates = value.len() / TEMPLATE_LEN,
            XFRMA_MARK => mark = (netlink::u32_at(value, 0)?, netlink::u32_at(value, 4)?),
            _ => {}
        }
    }
    let (selector, priority) = (decode_selector(info)?, netlink::u32_at(info, 152)?);
    Some(Policy { direction, selector, priority, action, mark, templates })
}

/// `struct xfrm_mark`.
fn with_mark(body: Body, (value, mask): (u32, u32)) -> Body {
    if mask == 0 {
        return body;
    }
    let mut mark = value.to_ne_bytes().to_vec();
    mark.extend(mask.to_ne_bytes());
    body.attr(XFRMA_MARK, &mark)
}

fn decode_selector(bytes: &[u8]) -> Option<Selector> {
    let family = i32::from(netlink::u16_at(bytes, 40)?);
    let address = |at: usize| -> Option<IpAddr> {
        let raw: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        // A policy without family (a default of the kernel's) is not one of a host's addresses.
        match family {
            libc::AF_INET => Some(IpAddr::from([raw[0], raw[1], raw[2], raw[3]])),
            libc::AF_INET6 => Some(IpAddr::from(raw)),
            _ => None,
        }
    };
    let be = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let port = |at: usize| PortMask { value: be(at), mask: be(at + 2) };
    Some(Selector {
        dst: IpNet::new(address(0)?, bytes[42]).ok()?,
        src: IpNet::new(address(16)?, bytes[43]).ok()?,
        protocol: bytes[44],
        dst_port: port(32),
        src_port: port(36),
        interface: netlink::u32_at(bytes, 48)?,
    })
}

/// Fixed header lengths are multiples of 4, as netlink wants them.
const _: () = assert!(POLICY_LEN.is_multiple_of(4) && POLICY_ID_LEN.is_multiple_of(4));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_round_trip() {
        let mut selector =
            Selector::between("10.0.0.0/20".parse().unwrap(), "10.1.0.0/16".parse().unwrap());
        selector.protocol = 17;
        selector.dst_port = PortMask::one(500);
        selector.interface = 9;
        let policy = Policy::new(Direction::Fwd, 7, selector, Action::Block);
        assert_eq!(decode_policy(&policy_info(&policy)), Some(policy));
        let six = Policy::new(
            Direction::In,
            1,
            Selector::from("2001:db8::/64".parse().unwrap()),
            Action::Allow,
        );
        assert_eq!(decode_policy(&policy_info(&six)), Some(six));
    }

    #[test]
    fn ranges_become_masks() {
        let all = |first, last| {
            PortMask::range(first, last).into_iter().map(|m| (m.value, m.mask)).collect::<Vec<_>>()
        };
        assert_eq!(all(0, 65535), [(0, 0)]);
        assert_eq!(all(500, 500), [(500, 0xffff)]);
        assert_eq!(all(80, 82), [(80, 0xfffe), (82, 0xffff)]);
        assert_eq!(all(9, 8), []);
        for (first, last) in [(1, 65534), (1024, 65535), (0, 1023), (333, 7777)] {
            let masks = PortMask::range(first, last);
            for port in 0..=u16::MAX {
                let hits = masks.iter().filter(|m| port & m.mask == m.value).count();
                assert_eq!(
                    hits,
                    usize::from((first..=last).contains(&port)),
                    "{port} in {first}..={last}"
                );
            }
        }
    }

    #[test]
    fn templates_are_counted() {
        let policy = Policy::new(
            Direction::Out,
            1,
            Selector::from("10.0.0.0/8".parse().unwrap()),
            Action::Allow,
        );
        let body = Body::new(&policy_info(&policy)).attr(XFRMA_TMPL, &[0; 128]);
        assert_eq!(decode_policy(body.bytes()).unwrap().templates, 2);
    }

    #[test]
    fn short_bodies_are_nothing() {
        for len in 0..POLICY_LEN {
            assert_eq!(decode_policy(&vec![0; len]), None);
        }
    }
}
