//! Traffic selectors: which packets a child SA may carry (RFC 7296 3.13.1, RFC 4301 4.4.1.1).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

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
    pub fn net(net: IpNet) -> Self {
        Self {
            protocol: 0,
            start_port: 0,
            end_port: 65535,
            start: net.network(),
            end: net.broadcast(),
        }
    }

    /// Everything of one address.
    pub fn host(addr: IpAddr) -> Self {
        Self { protocol: 0, start_port: 0, end_port: 65535, start: addr, end: addr }
    }

    /// The same addresses, but only this protocol (0 is any) and these ports.
    pub fn with(self, protocol: u8, ports: RangeInclusive<u16>) -> Self {
        Self { protocol, start_port: *ports.start(), end_port: *ports.end(), ..self }
    }

    /// The same addresses, but only this protocol's packets whose ports are not known: later fragments (RFC 4301 4.4.1.1).
    pub fn opaque(self, protocol: u8) -> Self {
        Self { protocol, start_port: 65535, end_port: 0, ..self }
    }

    /// What stands in place of a port for ICMP and ICMPv6.
    pub fn icmp(kind: u8, code: u8) -> u16 {
        u16::from_be_bytes([kind, code])
    }

    /// Whether every packet that `other` admits is admitted here too.
    pub fn contains(&self, other: &Self) -> bool {
        same_family(self.start, other.start)
            && self.start <= other.start
            && other.end <= self.end
            && (self.protocol == 0 || self.protocol == other.protocol)
            && self.contains_ports(other)
    }

    /// What both admit; `None` if nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        if !same_family(self.start, other.start) || start > end {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, p) | (p, 0) => p,
            (p, q) if p == q => p,
            _ => return None,
        };
        let (start_port, end_port) = self.intersect_ports(other)?;
        Some(Self { protocol, start_port, end_port, start, end })
    }

    /// Whether a packet's own side (address, protocol, port or ICMP type and code) is admitted.
    /// `port` is `None` where it cannot be known: then only a selector of all ports, or an OPAQUE one, admits it.
    pub fn admits(&self, addr: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let port_fits = match port {
            _ if self.is_any_port() => true,
            Some(port) => self.start_port <= port && port <= self.end_port,
            None => self.is_opaque(),
        };
        port_fits
            && same_family(self.start, addr)
            && self.start <= addr
            && addr <= self.end
            && (self.protocol == 0 || self.protocol == protocol)
    }

    /// Whether the ports are not restricted; this includes OPAQUE (RFC 4301 4.4.1.1).
    pub fn is_any_port(&self) -> bool {
        self.start_port == 0 && self.end_port == 65535
    }

    /// Whether only packets without a known port are meant.
    pub fn is_opaque(&self) -> bool {
        self.start_port == 65535 && self.end_port == 0
    }

    /// Whether exactly one address is meant.
    pub fn is_host(&self) -> bool {
        self.start == self.end
    }

    /// The addresses as one network, if they are one.
    pub fn as_net(&self) -> Option<IpNet> {
        let bits = match (self.start, self.end) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return None,
        };
        let net = IpNet::new(self.start, bits as u8).ok()?;
        (net.network() == self.start && net.broadcast() == self.end).then_some(net)
    }

    /// The addresses as networks, in ascending order: at most 62 of IPv4, 254 of IPv6.
    pub fn to_nets(&self) -> Vec<IpNet> {
        match (self.start, self.end) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Ipv4Subnets::new(a, b, 0).map(IpNet::V4).collect(),
            (IpAddr::V6(a), IpAddr::V6(b)) => Ipv6Subnets::new(a, b, 0).map(IpNet::V6).collect(),
            _ => Vec::new(),
        }
    }

    fn contains_ports(&self, other: &Self) -> bool {
        if self.is_any_port() {
            return true;
        }
        if self.is_opaque() || other.is_opaque() {
            return self.is_opaque() && other.is_opaque();
        }
        self.start_port <= other.start_port && other.end_port <= self.end_port
    }

    fn intersect_ports(&self, other: &Self) -> Option<(u16, u16)> {
        if self.is_any_port() {
            return Some((other.start_port, other.end_port));
        }
        if other.is_any_port() || (self.is_opaque() && other.is_opaque()) {
            return Some((self.start_port, self.end_port));
        }
        if self.is_opaque() || other.is_opaque() {
            return None;
        }
        let (start, end) =
            (self.start_port.max(other.start_port), self.end_port.min(other.end_port));
        (start <= end).then_some((start, end))
    }
}

/// `10.0.0.0/24`, `10.0.0.1/32 tcp/80`, `10.0.0.1..10.0.0.9 udp/500-4500`, `10.0.0.0/8 icmp/8(0)`.
impl std::fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.as_net() {
            Some(net) => write!(f, "{net}")?,
            None => write!(f, "{}..{}", self.start, self.end)?,
        }
        if self.protocol == 0 && self.is_any_port() {
            return Ok(());
        }
        match protocol_name(self.protocol) {
            Some(name) => write!(f, " {name}")?,
            None => write!(f, " {}", self.protocol)?,
        }
        if self.is_any_port() {
            return Ok(());
        }
        if self.is_opaque() {
            return f.write_str("/opaque");
        }
        self.fmt_ports(f)
    }
}

impl std::fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl TrafficSelector {
    fn fmt_ports(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let icmp = matches!(self.protocol, 1 | 58);
        let one = |f: &mut std::fmt::Formatter<'_>, port: u16| match port.to_be_bytes() {
            [kind, code] if icmp => write!(f, "{kind}({code})"),
            _ => write!(f, "{port}"),
        };
        f.write_str("/")?;
        // A type with all its codes is shown as the type alone.
        if icmp && self.start_port & 0xff == 0 && self.end_port == self.start_port | 0xff {
            return write!(f, "{}", self.start_port >> 8);
        }
        one(f, self.start_port)?;
        if self.start_port != self.end_port {
            f.write_str("-")?;
            one(f, self.end_port)?;
        }
        Ok(())
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// Names for the protocols that selectors are likely to name (IANA "Protocol Numbers").
fn protocol_name(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        0 => "any",
        1 => "icmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        89 => "ospf",
        112 => "vrrp",
        132 => "sctp",
        _ => return None,
    })
}
