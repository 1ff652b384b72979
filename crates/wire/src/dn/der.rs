//! The little DER that a Name is made of (X.690, RFC 5280 A.1).

use crate::bytes::{Put, Reader};
use crate::dn::{MAX_ATTRIBUTES, MAX_RDNS};
use crate::message::ParseError;

/// One attribute of a relative name. The order is that of the derived fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attribute {
    /// The contents of the OID.
    pub(super) oid: Vec<u8>,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    /// A character string of a type that is known here.
    Text { tag: u8, text: String },
    /// Any other value: tag, length and contents.
    Der(Vec<u8>),
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1e;

impl Value {
    /// The string type that RFC 5280 prescribes for the attribute: PrintableString for country, serial
    /// number and qualifier, IA5String for domain component and email address, else UTF8String.
    pub(super) fn text(oid: &[u8], text: String) -> Self {
        let tag = match oid {
            [0x55, 4, 5 | 6 | 46] if text.bytes().all(is_printable) => PRINTABLE_STRING,
            [0x09, .., 1, 25] | [0x2a, .., 1, 9, 1] if text.is_ascii() => IA5_STRING,
            _ => UTF8_STRING,
        };
        Self::Text { tag, text }
    }

    fn parse(tag: u8, contents: &[u8], whole: &[u8]) -> Self {
        let text = match tag {
            UTF8_STRING => std::str::from_utf8(contents).ok().map(str::to_owned),
            NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING => {
                std::str::from_utf8(contents).ok().filter(|s| s.is_ascii()).map(str::to_owned)
            }
            // In practice Latin-1.
            TELETEX_STRING => Some(contents.iter().map(|b| char::from(*b)).collect()),
            BMP_STRING if contents.len().is_multiple_of(2) => String::from_utf16(
                &contents
                    .chunks_exact(2)
                    .map(|c| u16::from_be_bytes([c[0], c[1]]))
                    .collect::<Vec<_>>(),
            )
            .ok(),
            _ => None,
        };
        match text.filter(|s| !s.is_empty()) {
            Some(text) => Self::Text { tag, text },
            None => Self::Der(whole.to_vec()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Der(der) => out.put(der),
            Self::Text { tag, text } => tlv(*tag, text.as_bytes(), out),
        }
    }
}

/// Reads a Name; relative names in the order of the encoding.
pub(super) fn parse(name: &[u8]) -> Result<Vec<Vec<Attribute>>, ParseError> {
    let mut r = Reader::new(name, "distinguished name");
    let mut names = Reader::new(expect(&mut r, SEQUENCE)?, "distinguished name");
    r.finish()?;
    let mut rdns = Vec::new();
    while !names.is_empty() {
        if rdns.len() == MAX_RDNS {
            return Err(ParseError::TooMany("relative distinguished names"));
        }
        rdns.push(parse_rdn(expect(&mut names, SET)?)?);
    }
    Ok(rdns)
}

/// Writes a Name.
pub(super) fn write(rdns: &[Vec<Attribute>]) -> Vec<u8> {
    let mut names = Vec::new();
    for rdn in rdns {
        let mut attributes: Vec<_> = rdn.iter().map(attribute).collect();
        // DER orders a SET OF by its encodings (X.690 11.6).
        attributes.sort();
        tlv(SET, &attributes.concat(), &mut names);
    }
    let mut out = Vec::new();
    tlv(SEQUENCE, &names, &mut out);
    out
}

/// An OID's contents as `2.5.4.3`; hex of them, marked by `oid.`, if they are not an OID.
pub(super) fn dotted(contents: &[u8]) -> String {
    match arcs(contents) {
        Some(arcs) => arcs.iter().map(u64::to_string).collect::<Vec<_>>().join("."),
        None => format!("oid.{}", contents.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

/// The contents of an OID in either form that [`dotted`] writes.
pub(super) fn oid(text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("oid.") {
        return super::from_hex(hex).filter(|c| arcs(c).is_none());
    }
    let numbers = text.split('.').map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let [first @ 0..=2, second, rest @ ..] = numbers.as_slice() else { return None };
    if *first < 2 && *second >= 40 {
        return None;
    }
    let mut out = Vec::new();
    base128(second.checked_add(first * 40)?, &mut out);
    rest.iter().for_each(|n| base128(*n, &mut out));
    Some(out)
}

/// Whether the bytes are one tag, length and contents, and nothing after.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    let mut r = Reader::new(bytes, "value");
    element(&mut r).is_ok() && r.is_empty()
}

fn parse_rdn(contents: &[u8]) -> Result<Vec<Attribute>, ParseError> {
    let mut r = Reader::new(contents, "relative distinguished name");
    let mut attributes = Vec::new();
    while !r.is_empty() {
        if attributes.len() == MAX_ATTRIBUTES {
            return Err(ParseError::TooMany("attributes of a distinguished name"));
        }
        let mut inner = Reader::new(expect(&mut r, SEQUENCE)?, "attribute");
        let oid = expect(&mut inner, OID)?.to_vec();
        if oid.is_empty() {
            return Err(ParseError::BadLength("attribute"));
        }
        let whole = inner.clone().rest();
        let (tag, contents) = element(&mut inner)?;
        inner.finish()?;
        attributes.push(Attribute { oid, value: Value::parse(tag, contents, whole) });
    }
    if attributes.is_empty() {
        return Err(ParseError::BadLength("relative distinguished name"));
    }
    Ok(attributes)
}

fn attribute(attribute: &Attribute) -> Vec<u8> {
    let mut inner = Vec::new();
    tlv(OID, &attribute.oid, &mut inner);
    attribute.value.write(&mut inner);
    let mut out = Vec::new();
    tlv(SEQUENCE, &inner, &mut out);
    out
}

fn expect<'a>(r: &mut Reader<'a>, tag: u8) -> Result<&'a [u8], ParseError> {
    match element(r)? {
        (t, contents) if t == tag => Ok(contents),
        _ => Err(ParseError::BadValue("distinguished name")),
    }
}

/// Reads tag, definite length in its shortest form, and contents; tags of one byte only.
fn element<'a>(r: &mut Reader<'a>) -> Result<(u8, &'a [u8]), ParseError> {
    let tag = r.u8()?;
    let len = match r.u8()? {
        short @ 0..=0x7f => usize::from(short),
        0x81 => usize::from(r.u8()?),
        0x82 => usize::from(r.u16()?),
        _ => return Err(ParseError::BadLength("DER")),
    };
    Ok((tag, r.take(len)?))
}

/// Writes a length of at most 65,535; a longer value is cut, which no caller's bounds allow to happen.
fn tlv(tag: u8, contents: &[u8], out: &mut Vec<u8>) {
    let contents = &contents[..contents.len().min(u16::MAX.into())];
    out.put_u8(tag);
    match contents.len() {
        len @ 0..=0x7f => out.put_u8(len as u8),
        len @ 0x80..=0xff => out.put(&[0x81, len as u8]),
        len => {
            out.put_u8(0x82);
            out.put_u16(len as u16);
        }
    }
    out.put(contents);
}

/// X.690 8.19; `None` if the last arc has no end, or one does not fit 64 bits or has leading zeros.
fn arcs(contents: &[u8]) -> Option<Vec<u64>> {
    let (mut arcs, mut value, mut fresh) = (Vec::new(), 0_u64, true);
    for b in contents {
        if (fresh && *b == 0x80) || value >> 57 != 0 {
            return None;
        }
        value = value << 7 | u64::from(b & 0x7f);
        fresh = b & 0x80 == 0;
        if fresh {
            if arcs.is_empty() {
                arcs.push((value / 40).min(2));
                value -= arcs[0] * 40;
            }
            arcs.push(value);
            value = 0;
        }
    }
    (fresh && !arcs.is_empty()).then_some(arcs)
}

fn base128(value: u64, out: &mut Vec<u8>) {
    let groups = (64 - value.leading_zeros()).div_ceil(7).max(1);
    for i in (0..groups).rev() {
        let more = if i > 0 { 0x80 } else { 0 };
        out.push((value >> (7 * i)) as u8 & 0x7f | more);
    }
}

/// The characters of PrintableString (X.680 41.4).
fn is_printable(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b)
}
