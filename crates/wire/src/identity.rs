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
