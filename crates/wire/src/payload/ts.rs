//! TS payloads (RFC 7296 3.13).
//!
//! A selector of a type other than the two address ranges is passed over by its length: an initiator
//! that needs it sees that it is not in the answer. If nothing else stands in the payload the list is
//! empty, and the negotiation ends in TS_UNACCEPTABLE (RFC 7296 2.9).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bytes::{Put, Reader, close_u16};
use crate::message::ParseError;
use crate::registry::TsType;
use crate::selector::TrafficSelector;

pub(super) fn parse(body: &[u8]) -> Result<Vec<TrafficSelector>, ParseError> {
    let mut r = Reader::new(body, "TS");
    let count = r.u8()?;
    r.take(3)?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        selectors.extend(parse_one(&mut r)?);
    }
    r.finish()?;
    Ok(selectors)
}

pub(super) fn write(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    let selectors = &selectors[..selectors.len().min(u8::MAX.into())];
    out.put(&[selectors.len() as u8, 0, 0, 0]);
    for selector in selectors {
        write_one(selector, out);
    }
}

fn parse_one(r: &mut Reader<'_>) -> Result<Option<TrafficSelector>, ParseError> {
    let kind = TsType(r.u8()?);
    let protocol = r.u8()?;
    let len = usize::from(r.u16()?).checked_sub(4).ok_or(ParseError::BadLength("TS"))?;
    let mut r = Reader::new(r.take(len)?, "selector");
    if kind != TsType::IPV4_ADDR_RANGE && kind != TsType::IPV6_ADDR_RANGE {
        return Ok(None);
    }
    let (start_port, end_port) = (r.u16()?, r.u16()?);
    let (start, end): (IpAddr, IpAddr) = if kind == TsType::IPV4_ADDR_RANGE {
        (Ipv4Addr::from(r.array::<4>()?).into(), Ipv4Addr::from(r.array::<4>()?).into())
    } else {
        (Ipv6Addr::from(r.array::<16>()?).into(), Ipv6Addr::from(r.array::<16>()?).into())
    };
    r.finish()?;
    let selector = TrafficSelector { protocol, start_port, end_port, start, end };
    if start > end {
        return Err(ParseError::BadValue("addresses of selector"));
    }
    if start_port > end_port && !selector.is_opaque() {
        return Err(ParseError::BadValue("ports of selector"));
    }
    Ok(Some(selector))
}

fn write_one(selector: &TrafficSelector, out: &mut Vec<u8>) {
    let start = out.len();
    let kind = match selector.start {
        IpAddr::V4(_) => TsType::IPV4_ADDR_RANGE,
        IpAddr::V6(_) => TsType::IPV6_ADDR_RANGE,
    };
    out.put(&[kind.0, selector.protocol, 0, 0]);
    out.put_u16(selector.start_port);
    out.put_u16(selector.end_port);
    for addr in [selector.start, selector.end] {
        match addr {
            IpAddr::V4(a) => out.put(&a.octets()),
            IpAddr::V6(a) => out.put(&a.octets()),
        }
    }
    close_u16(out, start);
}
