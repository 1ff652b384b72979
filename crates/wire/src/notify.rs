//! Typed meaning of notify data where it has a form of its own.

use std::net::{IpAddr, SocketAddr};

use crate::bytes::{Put, Reader};
use crate::esp::Spi;
use crate::message::{IkeSpi, ParseError};
use crate::payload::Notify;
use crate::registry::{HashAlg, Ke, NotifyType, ProtocolId};

/// Lengths a cookie may have, in bytes (RFC 7296 2.6).
pub const COOKIE_LEN: std::ops::RangeInclusive<usize> = 1..=64;

/// Hash algorithms in one SIGNATURE_HASH_ALGORITHMS that are read; what stands beyond is ignored.
pub const MAX_HASHES: usize = 32;

/// What NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP hold the SHA-1 of: both SPIs, address,
/// port (RFC 7296 2.23). In the first message `spi_r` is zero.
pub fn nat_detection_input(spi_i: IkeSpi, spi_r: IkeSpi, addr: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(34);
    out.put_u64(spi_i.0);
    out.put_u64(spi_r.0);
    match addr.ip().to_canonical() {
        IpAddr::V4(a) => out.put(&a.octets()),
        IpAddr::V6(a) => out.put(&a.octets()),
    }
    out.put_u16(addr.port());
    out
}

/// SIGNATURE_HASH_ALGORITHMS: a list of numbers, in any order (RFC 7427 4).
pub fn signature_hash_algorithms(hashes: &[HashAlg]) -> Notify {
    let mut data = Vec::new();
    hashes.iter().for_each(|h| data.put_u16(h.0));
    Notify::new(NotifyType::SIGNATURE_HASH_ALGORITHMS, data)
}

/// Reads the data of SIGNATURE_HASH_ALGORITHMS: at most [`MAX_HASHES`] of them.
pub fn parse_signature_hash_algorithms(data: &[u8]) -> Result<Vec<HashAlg>, ParseError> {
    if !data.len().is_multiple_of(2) {
        return Err(ParseError::BadLength("SIGNATURE_HASH_ALGORITHMS"));
    }
    let pairs = data.chunks_exact(2).take(MAX_HASHES);
    Ok(pairs.map(|c| HashAlg(u16::from_be_bytes([c[0], c[1]]))).collect())
}

/// INVALID_KE_PAYLOAD: the method that is wanted instead (RFC 7296 1.3).
pub fn invalid_ke_payload(wanted: Ke) -> Notify {
    Notify::new(NotifyType::INVALID_KE_PAYLOAD, wanted.0.to_be_bytes())
}

/// Reads the data of INVALID_KE_PAYLOAD.
pub fn parse_invalid_ke_payload(data: &[u8]) -> Result<Ke, ParseError> {
    let mut r = Reader::new(data, "INVALID_KE_PAYLOAD");
    let wanted = Ke(r.u16()?);
    r.finish().map(|()| wanted)
}

/// Reads the data of COOKIE, whose length is bounded (RFC 7296 2.6).
pub fn parse_cookie(data: &[u8]) -> Result<&[u8], ParseError> {
    if COOKIE_LEN.contains(&data.len()) { Ok(data) } else { Err(ParseError::BadLength("COOKIE")) }
}

/// IPCOMP_SUPPORTED: the CPI by which the sender knows what is compressed for it, and with what (RFC 7296 3.10.1).
pub fn ipcomp_supported(cpi: u16, transform: u8) -> Notify {
    let mut data = Vec::with_capacity(3);
    data.put_u16(cpi);
    data.put_u8(transform);
    Notify::new(NotifyType::IPCOMP_SUPPORTED, data)
}

/// CPI and transform of IPCOMP_SUPPORTED. Attributes may follow; there are none as yet.
pub fn parse_ipcomp_supported(data: &[u8]) -> Result<(u16, u8), ParseError> {
    let mut r = Reader::new(data, "IPCOMP_SUPPORTED");
    Ok((r.u16()?, r.u8()?))
}

/// The gateway that a REDIRECT names (RFC 5685).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gateway {
    /// By its address.
    Address(IpAddr),
    /// By its domain name; what is no printable ASCII is escaped.
    Name(String),
}

/// What REDIRECT says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect<'a> {
    /// Where to go.
    pub gateway: Gateway,
    /// The initiator's nonce, in IKE_SA_INIT; empty elsewhere.
    pub nonce: &'a [u8],
}

/// Types of a gateway's identity (RFC 5685): IPv4, IPv6, FQDN.
const GATEWAY: [u8; 3] = [1, 2, 3];

/// Reads the data of REDIRECT.
pub fn parse_redirect(data: &[u8]) -> Result<Redirect<'_>, ParseError> {
    const WHAT: &str = "REDIRECT";
    let mut r = Reader::new(data, WHAT);
    let (kind, len) = (r.u8()?, r.u8()?);
    let (identity, [v4, v6, name]) = (r.take(len.into())?, GATEWAY);
    let bad = |_| ParseError::BadLength(WHAT);
    let gateway = match kind {
        k if k == v4 => Gateway::Address(<[u8; 4]>::try_from(identity).map_err(bad)?.into()),
        k if k == v6 => Gateway::Address(<[u8; 16]>::try_from(identity).map_err(bad)?.into()),
        k if k == name && len > 0 => Gateway::Name(identity.escape_ascii().to_string()),
        _ => return Err(ParseError::BadLength(WHAT)),
    };
    Ok(Redirect { gateway, nonce: r.rest() })
}

/// REDIRECTED_FROM: the gateway that sent its sender elsewhere (RFC 5685).
pub fn redirected_from(gateway: IpAddr) -> Notify {
    let mut data = Vec::with_capacity(18);
    let mut put = |kind, octets: &[u8]| {
        data.put_u8(kind);
        data.put_u8(octets.len() as u8);
        data.put(octets);
    };
    match gateway {
        IpAddr::V4(address) => put(GATEWAY[0], &address.octets()),
        IpAddr::V6(address) => put(GATEWAY[1], &address.octets()),
    }
    Notify::new(NotifyType::REDIRECTED_FROM, data)
}

/// REKEY_SA: the SPI that the sender would see inbound on the child SA to be replaced (RFC 7296 1.3.3).
pub fn rekey_sa(protocol: ProtocolId, spi: Spi) -> Notify {
    child(NotifyType::REKEY_SA, protocol, spi)
}

/// CHILD_SA_NOT_FOUND: the SPI of the request (RFC 7296 2.25).
pub fn child_sa_not_found(protocol: ProtocolId, spi: Spi) -> Notify {
    child(NotifyType::CHILD_SA_NOT_FOUND, protocol, spi)
}

/// Protocol and SPI of a notify about a child SA: ESP or AH, four bytes, not zero.
pub fn parse_child(notify: &Notify) -> Result<(ProtocolId, Spi), ParseError> {
    if notify.protocol != ProtocolId::ESP && notify.protocol != ProtocolId::AH {
        return Err(ParseError::BadValue("protocol of notify"));
    }
    match <[u8; 4]>::try_from(notify.spi.as_slice()).map(u32::from_be_bytes) {
        Ok(0) => Err(ParseError::BadValue("SPI of notify")),
        Ok(spi) => Ok((notify.protocol, Spi(spi))),
        Err(_) => Err(ParseError::BadLength("SPI of notify")),
    }
}

/// Lengths in bytes that the data of a notify may have, for the types whose form is fixed; `None` for
/// all others.
pub fn data_len(kind: NotifyType) -> Option<std::ops::RangeInclusive<usize>> {
    Some(match kind {
        NotifyType::NAT_DETECTION_SOURCE_IP | NotifyType::NAT_DETECTION_DESTINATION_IP => 20..=20,
        NotifyType::COOKIE => COOKIE_LEN,
        NotifyType::COOKIE2 => 8..=64,
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD => 1..=1,
        NotifyType::INVALID_KE_PAYLOAD => 2..=2,
        NotifyType::SET_WINDOW_SIZE | NotifyType::AUTH_LIFETIME => 4..=4,
        _ => return None,
    })
}

fn child(kind: NotifyType, protocol: ProtocolId, spi: Spi) -> Notify {
    Notify { protocol, spi: spi.0.to_be_bytes().to_vec(), kind, data: Vec::new() }
}
