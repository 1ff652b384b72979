//! Distinguished names: the DER of an X.501 Name as text, and back (RFC 4514, RFC 5280 4.1.2.4).
//!
//! The notation is RFC 4514's, the order that of the encoding, `C=CH, O=Example, CN=host`: it is how
//! strongSwan and OpenSSL write names, and so how they stand in configurations.

use std::fmt::Write;

use crate::message::ParseError;

mod der;

use der::{Attribute, Value};

/// Relative names in one name.
pub const MAX_RDNS: usize = 64;
/// Attributes in one relative name.
pub const MAX_ATTRIBUTES: usize = 16;

/// Why a text is no distinguished name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnError {
    /// A part without `=`.
    #[error(
        "`{0}` in a distinguished name is not of the form TYPE=VALUE; a comma within a value is written `\\,`"
    )]
    NoEquals(String),
    /// A type that is neither a known keyword nor a dotted OID.
    #[error("unknown attribute type `{0}` in a distinguished name; known are {known}, or a dotted OID", known = keywords())]
    UnknownType(String),
    /// A value that is empty, ends in `\`, or has bad hex.
    #[error("bad value `{0}` in a distinguished name")]
    BadValue(String),
    /// More parts than a certificate would hold.
    #[error("too many parts in a distinguished name")]
    TooMany,
}

/// The name as text; `None` if the bytes are not the DER of a Name.
pub fn to_text(name: &[u8]) -> Option<String> {
    let rdns = der::parse(name).ok()?;
    let mut out = String::new();
    for (i, rdn) in rdns.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        for (j, attribute) in rdn.iter().enumerate() {
            out.push_str(if j == 0 { "" } else { "+" });
            write_attribute(&mut out, attribute);
        }
    }
    Some(out)
}

/// The DER of a name written as `C=CH, O=Example, CN=host`, in the order of the text.
///
/// `,` ends a part, `+` joins attributes of one part, `\` quotes one of the characters `,+"\<>;=# ` or
/// starts a byte in hex, and a value `#…` is DER in hex.
pub fn from_text(text: &str) -> Result<Vec<u8>, DnError> {
    let mut rdns = Vec::new();
    for part in split(text, ',') {
        let attributes = split(part, '+').into_iter().map(parse_attribute);
        let attributes = attributes.collect::<Result<Vec<_>, _>>()?;
        if attributes.len() > MAX_ATTRIBUTES || rdns.len() == MAX_RDNS {
            return Err(DnError::TooMany);
        }
        rdns.push(attributes);
    }
    Ok(der::write(&rdns))
}

/// Whether two names differ only in string types, ASCII case and repeated spaces (after RFC 5280 7.1).
pub fn same(a: &[u8], b: &[u8]) -> bool {
    match (normal(a), normal(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Bytes of an even number of hex digits, at least two.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty()
        || !text.len().is_multiple_of(2)
        || !text.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

/// Control characters, and those that turn the direction of writing: they could make a log line read
/// as something else.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Keywords of attribute types and the contents of their OIDs (RFC 4514 3, RFC 4519, RFC 2985).
/// The first of several keywords for one OID is the one that is written.
const TYPES: &[(&str, &[u8])] = &[
    ("CN", &[0x55, 4, 3]),
    ("SN", &[0x55, 4, 4]),
    ("serialNumber", &[0x55, 4, 5]),
    ("C", &[0x55, 4, 6]),
    ("L", &[0x55, 4, 7]),
    ("ST", &[0x55, 4, 8]),
    ("S", &[0x55, 4, 8]),
    ("STREET", &[0x55, 4, 9]),
    ("O", &[0x55, 4, 10]),
    ("OU", &[0x55, 4, 11]),
    ("title", &[0x55, 4, 12]),
    ("T", &[0x55, 4, 12]),
    ("name", &[0x55, 4, 41]),
    ("GN", &[0x55, 4, 42]),
    ("G", &[0x55, 4, 42]),
    ("initials", &[0x55, 4, 43]),
    ("dnQualifier", &[0x55, 4, 46]),
    ("UID", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1]),
    ("DC", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25]),
    ("emailAddress", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]),
    ("E", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]),
    ("Email", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]),
    ("unstructuredName", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2]),
];

fn keywords() -> String {
    TYPES.iter().map(|(keyword, _)| *keyword).collect::<Vec<_>>().join(", ")
}

fn write_attribute(out: &mut String, attribute: &Attribute) {
    match TYPES.iter().find(|(_, oid)| *oid == attribute.oid) {
        Some((keyword, _)) => out.push_str(keyword),
        None => out.push_str(&der::dotted(&attribute.oid)),
    }
    out.push('=');
    match &attribute.value {
        Value::Text { text, .. } => write_escaped(out, text),
        Value::Der(der) => {
            out.push('#');
            write_hex(out, der);
        }
    }
}

fn write_hex(out: &mut String, bytes: &[u8]) {
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
}

/// RFC 4514 2.4. A last space stands in hex, so that nobody who trims the text takes it off.
fn write_escaped(out: &mut String, text: &str) {
    let last = text.chars().count().saturating_sub(1);
    for (i, c) in text.chars().enumerate() {
        if c == ' ' && i == last {
            out.push_str("\\20");
        } else if (i == 0 && matches!(c, ' ' | '#'))
            || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=')
        {
            out.push('\\');
            out.push(c);
        } else if is_deceptive(c) {
            for b in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "\\{b:02x}");
            }
        } else {
            out.push(c);
        }
    }
}

/// Splits at every `separator` that no `\` stands before.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        if c == separator && !quoted {
            parts.push(&text[start..i]);
            start = i + c.len_utf8();
        }
        quoted = c == '\\' && !quoted;
    }
    parts.push(&text[start..]);
    parts
}

fn parse_attribute(text: &str) -> Result<Attribute, DnError> {
    let (kind, value) = text.split_once('=').ok_or(DnError::NoEquals(text.trim().to_owned()))?;
    let kind = kind.trim();
    let oid = match TYPES.iter().find(|(keyword, _)| keyword.eq_ignore_ascii_case(kind)) {
        Some((_, oid)) => oid.to_vec(),
        None => der::oid(kind).ok_or(DnError::UnknownType(kind.to_owned()))?,
    };
    let bad = || DnError::BadValue(value.to_owned());
    let value = match trim(value).strip_prefix('#') {
        Some(hex) => Value::Der(from_hex(hex).filter(|v| der::is_one(v)).ok_or_else(bad)?),
        None => Value::text(&oid, unescape(trim(value)).ok_or_else(bad)?),
    };
    Ok(Attribute { oid, value })
}

/// Takes off spaces around a value, but not a last one that a `\` quotes.
fn trim(value: &str) -> &str {
    let value = value.trim_start_matches(' ');
    let end = value.trim_end_matches(' ');
    let slashes = end.len() - end.trim_end_matches('\\').len();
    if slashes % 2 == 1 && end.len() < value.len() { &value[..=end.len()] } else { end }
}

/// `None` for a `\` with nothing fit after it, or bytes that are not UTF-8, or nothing at all.
fn unescape(value: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        match tail {
            [c, tail @ ..] if b",+\"\\<>;=# ".contains(c) => {
                out.push(*c);
                rest = tail;
            }
            [high, low, tail @ ..] => {
                let digits = [*high, *low];
                let byte = from_hex(std::str::from_utf8(&digits).ok()?)?;
                out.extend(byte);
                rest = tail;
            }
            _ => return None,
        }
    }
    String::from_utf8(out).ok().filter(|s| !s.is_empty())
}

/// A name with each value in the one form in which it is compared.
fn normal(name: &[u8]) -> Result<Vec<Vec<Attribute>>, ParseError> {
    let mut rdns = der::parse(name)?;
    for rdn in &mut rdns {
        for attribute in rdn.iter_mut() {
            if let Value::Text { tag, text } = &mut attribute.value {
                *tag = der::UTF8_STRING;
                let words: Vec<_> = text.split(' ').filter(|w| !w.is_empty()).collect();
                *text = words.join(" ").to_ascii_lowercase();
            }
        }
        rdn.sort();
    }
    Ok(rdns)
}
