//! Fields of what a host keeps for its own next process: never on the wire, and read as carefully as if it came from there.
//!
//! Fixed order, big-endian; what has no fixed length stands behind its own.

use std::net::{IpAddr, SocketAddr};

use crate::bytes::{Put, Reader};
use crate::message::ParseError;
use crate::selector::TrafficSelector;

/// Elements of a short list, at most; longer ones are not written and not read.
pub const MAX_LIST: usize = 256;

/// Why bytes are not what was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// They are cut short, or there are too many.
    #[error("{0}")]
    Length(#[from] ParseError),
    /// A field holds what it cannot hold.
    #[error("its {0} cannot be")]
    Value(&'static str),
}

/// A field, or why there is none.
pub type Kept<T> = Result<T, KeptError>;

/// An address, behind the number of its IP version.
pub fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(a) => {
            out.put_u8(4);
            out.put(&a.octets());
        }
        IpAddr::V6(a) => {
            out.put_u8(6);
            out.put(&a.octets());
        }
    }
}

/// What [`put_ip`] wrote.
pub fn ip(r: &mut Reader<'_>) -> Kept<IpAddr> {
    match r.u8()? {
        4 => Ok(r.array::<4>()?.into()),
        6 => Ok(r.array::<16>()?.into()),
        _ => Err(KeptError::Value("address")),
    }
}

/// An address and a port.
pub fn put_end(out: &mut Vec<u8>, end: SocketAddr) {
    put_ip(out, end.ip());
    out.put_u16(end.port());
}

/// What [`put_end`] wrote.
pub fn end(r: &mut Reader<'_>) -> Kept<SocketAddr> {
    Ok(SocketAddr::new(ip(r)?, r.u16()?))
}

/// A traffic selector.
pub fn put_selector(out: &mut Vec<u8>, ts: &TrafficSelector) {
    out.put_u8(ts.protocol);
    out.put_u16(ts.start_port);
    out.put_u16(ts.end_port);
    put_ip(out, ts.start);
    put_ip(out, ts.end);
}

/// What [`put_selector`] wrote.
pub fn selector(r: &mut Reader<'_>) -> Kept<TrafficSelector> {
    let (protocol, start_port, end_port) = (r.u8()?, r.u16()?, r.u16()?);
    let (start, end) = (ip(r)?, ip(r)?);
    let lawful = start.is_ipv4() == end.is_ipv4() && start <= end;
    let selector = TrafficSelector { protocol, start_port, end_port, start, end };
    lawful.then_some(selector).ok_or(KeptError::Value("selector"))
}

/// One byte that is 0 or 1.
pub fn flag(r: &mut Reader<'_>) -> Kept<bool> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(KeptError::Value("flag")),
    }
}

/// Bytes behind their length; none of 4 GiB and more.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(u32::MAX as usize)];
    out.put_u32(bytes.len() as u32);
    out.put(bytes);
}

/// What [`put_bytes`] wrote.
pub fn bytes<'a>(r: &mut Reader<'a>) -> Kept<&'a [u8]> {
    let len = usize::try_from(r.u32()?).map_err(|_| KeptError::Value("length"))?;
    Ok(r.take(len)?)
}

/// What may be there, behind a flag that says so.
pub fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl Fn(&mut Vec<u8>, &T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// What [`put_option`] wrote.
pub fn option<T>(r: &mut Reader<'_>, read: impl Fn(&mut Reader<'_>) -> Kept<T>) -> Kept<Option<T>> {
    if flag(r)? { read(r).map(Some) } else { Ok(None) }
}

/// A short list: no more than [`MAX_LIST`] of it.
pub fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    let items = &items[..items.len().min(MAX_LIST)];
    out.put_u16(items.len() as u16);
    items.iter().for_each(|item| put(out, item));
}

/// What [`put_list`] wrote.
pub fn list<T>(r: &mut Reader<'_>, read: impl Fn(&mut Reader<'_>) -> Kept<T>) -> Kept<Vec<T>> {
    let len = usize::from(r.u16()?);
    if len > MAX_LIST {
        return Err(KeptError::Value("list"));
    }
    (0..len).map(|_| read(r)).collect()
}

/// A long list, as a table of SAs is.
pub fn put_many<T>(
    out: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = T>,
    put: impl Fn(&mut Vec<u8>, T),
) {
    out.put_u32(u32::try_from(items.len()).unwrap_or(u32::MAX));
    items.for_each(|item| put(out, item));
}

/// What [`put_many`] wrote, of `most` elements at most, each of one byte at least.
pub fn many<T>(
    r: &mut Reader<'_>,
    most: usize,
    read: impl Fn(&mut Reader<'_>) -> Kept<T>,
) -> Kept<Vec<T>> {
    let len = usize::try_from(r.u32()?).map_err(|_| KeptError::Value("list"))?;
    if len > most || len > r.len() {
        return Err(KeptError::Value("list"));
    }
    (0..len).map(|_| read(r)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back() {
        let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), "fd00::1".parse().unwrap());
        let ts = TrafficSelector::host(v6).with(17, 5..=9);
        let mut out = Vec::new();
        put_end(&mut out, (v4, 4500).into());
        put_selector(&mut out, &ts);
        put_bytes(&mut out, b"key");
        put_option(&mut out, Some(&7u8), |out, n| out.put_u8(*n));
        put_list(&mut out, &[1u16, 2], |out, n| out.put_u16(*n));
        put_many(&mut out, [3u8, 4].into_iter(), |out, n| out.put_u8(n));
        let mut r = Reader::new(&out, "test");
        assert_eq!(end(&mut r), Ok((v4, 4500).into()));
        assert_eq!(selector(&mut r), Ok(ts));
        assert_eq!(bytes(&mut r), Ok(&b"key"[..]));
        assert_eq!(option(&mut r, |r| Ok(r.u8()?)), Ok(Some(7)));
        assert_eq!(list(&mut r, |r| Ok(r.u16()?)), Ok(vec![1, 2]));
        assert_eq!(many(&mut r, 2, |r| Ok(r.u8()?)), Ok(vec![3, 4]));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_anything_is_read() {
        let byte = |r: &mut Reader<'_>| Ok(r.u8()?);
        let huge = u32::MAX.to_be_bytes();
        assert_eq!(
            many(&mut Reader::new(&huge, "t"), usize::MAX, byte),
            Err(KeptError::Value("list"))
        );
        assert_eq!(
            many(&mut Reader::new(&[0, 0, 0, 3, 1, 2, 3], "t"), 2, byte),
            Err(KeptError::Value("list"))
        );
        assert!(bytes(&mut Reader::new(&huge, "t")).is_err());
        assert_eq!(list(&mut Reader::new(&[1, 1], "t"), byte), Err(KeptError::Value("list")));
        assert_eq!(flag(&mut Reader::new(&[2], "t")), Err(KeptError::Value("flag")));
        assert_eq!(ip(&mut Reader::new(&[5; 20], "t")), Err(KeptError::Value("address")));
        let mut backwards = Vec::new();
        let ts = TrafficSelector::host([10, 0, 0, 2].into());
        put_selector(&mut backwards, &TrafficSelector { end: [10, 0, 0, 1].into(), ..ts });
        assert_eq!(selector(&mut Reader::new(&backwards, "t")), Err(KeptError::Value("selector")));
    }
}
