//! Traffic selectors: which packets a child SA may carry (RFC 7296 3.13.1, RFC 4301 4.4.1.1).

use std::net::IpAddr;

/// One traffic selector: a range of addresses of one family, a protocol, a range of ports.
///
/// `start <= end`, both of one family; the parser refuses anything else. For ICMP and ICMPv6 the
/// ports hold type (high byte) and code (low byte), as the RFC lays them out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSelector {
    /// IP protocol number; 0 is any.
    pub protocol: u8,
    /// First port; with `end_port` 0..=65535 is any, 65535..=0 is OPAQUE.
    pub start_port: u16,
    /// Last port, inclusive.
    pub end_port: u16,
    /// First address.
    pub start: IpAddr,
    /// Last address, inclusive.
    pub end: IpAddr,
}

impl TrafficSelector {
    /// Everything between the addresses of `net`.
    pub fn net(net: ipnet::IpNet) -> Self {
        Self { protocol: 0, start_port: 0, end_port: 65535, start: net.network(), end: net.broadcast() }
    }

    /// Everything of one address.
    pub fn host(addr: IpAddr) -> Self {
        Self { protocol: 0, start_port: 0, end_port: 65535, start: addr, end: addr }
    }

    /// Whether every packet that `other` admits is admitted here too.
    pub fn contains(&self, other: &Self) -> bool {
        let _ = other;
        todo!()
    }

    /// What both admit; `None` if nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let _ = other;
        todo!()
    }

    /// Whether a packet's own side (address, protocol, port or ICMP type and code) is admitted.
    /// `port` is `None` where it cannot be known: then only a selector of all ports admits it.
    pub fn admits(&self, addr: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let _ = (addr, protocol, port);
        todo!()
    }
}

impl std::fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl std::fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
