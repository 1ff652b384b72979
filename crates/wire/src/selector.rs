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
