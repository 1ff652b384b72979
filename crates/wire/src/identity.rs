//! Who a peer says it is (RFC 7296 3.5).

use std::net::{Ipv4Addr, Ipv6Addr};

/// The value of an IDi or IDr payload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN, without terminators; compared without regard to ASCII case.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Email(String),
    /// ID_DER_ASN1_DN: the DER of an X.501 Name, outer SEQUENCE included.
    DerDn(Vec<u8>),
    /// ID_KEY_ID: opaque bytes.
    KeyId(Vec<u8>),
    /// Any other type, as it came.
    Other(u8, Vec<u8>),
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ipv4(a) => write!(f, "{a}"),
            Self::Ipv6(a) => write!(f, "{a}"),
            Self::Fqdn(s) | Self::Email(s) => f.write_str(s),
            Self::DerDn(d) | Self::KeyId(d) | Self::Other(_, d) => write!(f, "{d:02x?}"),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
