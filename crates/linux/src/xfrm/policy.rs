//! Policies as the kernel has them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::raw::Ip;

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
    /// It passes: through the templates if there are any, else in the clear.
    Allow = 0,
    /// It is dropped.
    Block = 1,
}

/// The ports that have the bits of `value` where `mask` has ones.
///
/// For ICMP the kernel has the type in place of the source port and the code in place of the destination port,
/// in both directions (`xfrm_flowi_sport`, `xfrm_flowi_dport` of its `net/xfrm.h`).
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
    pub const fn one(port: u16) -> Self {
        Self { value: port, mask: u16::MAX }
    }

    /// The fewest masks that together are the ports from `first` to `last`, at most 30; none if that is no range.
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

    /// What both admit; `None` if nothing.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let common = self.mask & other.mask;
        ((self.value ^ other.value) & common == 0).then_some(Self {
            value: (self.value & self.mask) | (other.value & other.mask),
            mask: self.mask | other.mask,
        })
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
        let (src_port, dst_port) = (PortMask::ANY, PortMask::ANY);
        Self { src, dst, protocol: 0, src_port, dst_port, interface: 0 }
    }

    /// Everything from a network.
    pub fn from(src: IpNet) -> Self {
        Self::between(src, everything(Ip::of(src.addr())))
    }

    /// What both admit; `None` if nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        Some(Self {
            src: narrower(self.src, other.src)?,
            dst: narrower(self.dst, other.dst)?,
            protocol: same_or_any(self.protocol, other.protocol)?,
            src_port: self.src_port.intersect(other.src_port)?,
            dst_port: self.dst_port.intersect(other.dst_port)?,
            interface: same_or_any(self.interface, other.interface)?,
        })
    }
}

fn narrower(a: IpNet, b: IpNet) -> Option<IpNet> {
    if a.contains(&b) { Some(b) } else { b.contains(&a).then_some(a) }
}

fn same_or_any<T: PartialEq + From<u8>>(a: T, b: T) -> Option<T> {
    let any = T::from(0);
    if a == b || b == any { Some(a) } else { (a == any).then_some(b) }
}

/// `0.0.0.0/0` or `::/0`.
pub fn everything(ip: Ip) -> IpNet {
    match ip {
        Ip::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Ip::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// An SA that a policy asks for. Numbers as in `<linux/xfrm.h>`, since other programs' templates are read too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Template {
    /// Family of the outer addresses.
    pub ip: Ip,
    /// Outer source; `None` is the packet's own.
    pub src: Option<IpAddr>,
    /// Outer destination; `None` is the packet's own.
    pub dst: Option<IpAddr>,
    /// IP protocol of the transform, 50 for ESP.
    pub protocol: u8,
    /// `XFRM_MODE_*`.
    pub mode: u8,
    /// Reqid of the SA, 0 is any.
    pub reqid: u32,
    /// Level `use`: without an SA the packet passes in the clear.
    pub optional: bool,
}

/// A policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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
    /// The SAs asked for, inner first; the kernel takes 6 at most.
    pub templates: Vec<Template>,
}

impl Policy {
    /// One without templates.
    pub fn new(direction: Direction, priority: u32, selector: Selector, action: Action) -> Self {
        Self { direction, selector, priority, action, mark: (0, 0), templates: Vec::new() }
    }
}

/// A policy and the number that the kernel knows it by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Installed {
    pub(crate) policy: Policy,
    pub(crate) index: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn intersections() {
        let wide = Selector::between(net("10.0.0.1/32"), net("10.0.0.0/8"));
        let mut narrow = Selector::between(net("10.0.0.0/24"), net("10.9.0.2/32"));
        narrow.protocol = 6;
        narrow.dst_port = PortMask::one(22);
        let both = wide.intersect(&narrow).unwrap();
        assert_eq!((both.src, both.dst), (net("10.0.0.1/32"), net("10.9.0.2/32")));
        assert_eq!((both.protocol, both.dst_port), (6, PortMask::one(22)));
        assert_eq!(narrow.intersect(&wide), Some(both));
        assert_eq!(wide.intersect(&Selector::from(net("fd00::/8"))), None);
        let other = Selector { protocol: 17, ..narrow };
        assert_eq!(narrow.intersect(&other), None);
        assert_eq!(PortMask::one(22).intersect(PortMask::one(23)), None);
        let low = PortMask { value: 0, mask: 0xfc00 };
        assert_eq!(low.intersect(PortMask::one(80)), Some(PortMask::one(80)));
        assert_eq!(low.intersect(PortMask::one(2000)), None);
    }
}
