//! IKEv2 header and messages (RFC 7296 3.1, 3.2, 3.14; RFC 7383).
//!
//! A message is read in two steps: `Header` first, which is all that an endpoint needs to find the
//! SA, then the payloads. An encrypted message yields the frame of its SK payload; its owner opens
//! it and gives the plain bytes to [`parse_payloads`].

use crate::bytes::{Put, Reader, close_u16};
use crate::payload::{MAX_PAYLOADS, Payload};
use crate::registry::{ExchangeType, PayloadType};

/// An IKE SA's SPI, one of a pair; 0 is "not yet known".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(pub u64);

/// The 28-byte IKE header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The original initiator's SPI.
    pub spi_i: IkeSpi,
    /// The original responder's SPI; zero in the first request.
    pub spi_r: IkeSpi,
    /// Type of the first payload.
    pub next_payload: PayloadType,
    /// Major version in the high four bits, minor in the low.
    pub version: u8,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// I, V and R bits.
    pub flags: Flags,
    /// Message ID.
    pub message_id: u32,
    /// Length of the whole message, header included, in bytes.
    pub length: u32,
}

/// Header flags (RFC 7296 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// Sent by the original initiator of the IKE SA.
    pub initiator: bool,
    /// The sender could speak a higher major version.
    pub version: bool,
    /// This is a response.
    pub response: bool,
}

impl std::fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Why bytes are not a message. Named for the counters, and mapped to a notify by `ike`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Ends before a field that must be there.
    #[error("truncated in {0}")]
    Truncated(&'static str),
    /// A length field contradicts what is there.
    #[error("bad length in {0}")]
    BadLength(&'static str),
    /// A field holds what the RFC forbids.
    #[error("bad value in {0}")]
    BadValue(&'static str),
    /// More payloads, proposals, transforms or selectors than any honest peer sends.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// Major version other than 2.
    #[error("IKE major version {0}")]
    MajorVersion(u8),
    /// A payload of unknown type with its critical bit set (RFC 7296 2.5).
    #[error("unknown critical payload {0}")]
    UnknownCritical(u8),
    /// SK or SKF stands where the exchange does not allow it, or not last (RFC 7296 3.14).
    #[error("misplaced encrypted payload")]
    MisplacedSk,
}

/// A message whose header and unencrypted payloads are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// The header.
    pub header: Header,
    /// Payloads outside SK.
    pub payloads: Vec<Payload>,
    /// The encrypted payload, if there is one.
    pub sk: Option<SkFrame<'a>>,
}

/// An SK or SKF payload that is still closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkFrame<'a> {
    /// Type of the first payload inside (of an SKF: of the first fragment, else 0).
    pub first: PayloadType,
    /// Fragment number and total, counted from 1, of an SKF (RFC 7383 2.5).
    pub fragment: Option<(u16, u16)>,
    /// Everything up to the IV, to be authenticated: header, payloads before, generic header, fragment numbers.
    pub aad: &'a [u8],
    /// IV, ciphertext, ICV.
    pub body: &'a [u8],
}

impl Header {
    /// Length on the wire.
    pub const LEN: usize = 28;
    /// Version 2.0.
    pub const VERSION: u8 = 0x20;

    /// Reads the header alone; checks only that 28 bytes are there.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(bytes, "header");
        Ok(Self {
            spi_i: IkeSpi(r.u64()?),
            spi_r: IkeSpi(r.u64()?),
            next_payload: PayloadType(r.u8()?),
            version: r.u8()?,
            exchange: ExchangeType(r.u8()?),
            flags: Flags::from_byte(r.u8()?),
            message_id: r.u32()?,
            length: r.u32()?,
        })
    }

    /// Appends the 28 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.spi_i.0);
        out.put_u64(self.spi_r.0);
        out.put(&[self.next_payload.0, self.version, self.exchange.0, self.flags.to_byte()]);
        out.put_u32(self.message_id);
        out.put_u32(self.length);
    }
}

impl Flags {
    const INITIATOR: u8 = 0x08;
    const VERSION: u8 = 0x10;
    const RESPONSE: u8 = 0x20;

    /// The reserved bits are ignored, as the RFC asks.
    fn from_byte(byte: u8) -> Self {
        Self {
            initiator: byte & Self::INITIATOR != 0,
            version: byte & Self::VERSION != 0,
            response: byte & Self::RESPONSE != 0,
        }
    }

    fn to_byte(self) -> u8 {
        u8::from(self.initiator) * Self::INITIATOR
            + u8::from(self.version) * Self::VERSION
            + u8::from(self.response) * Self::RESPONSE
    }
}

/// Reads a whole message. `bytes` is exactly one datagram, non-ESP marker taken off.
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, ParseError> {
    let header = Header::parse(bytes)?;
    if header.version >> 4 != Header::VERSION >> 4 {
        return Err(ParseError::MajorVersion(header.version >> 4));
    }
    if usize::try_from(header.length) != Ok(bytes.len()) {
        return Err(ParseError::BadLength("header"));
    }
    let mut r = Reader::new(&bytes[Header::LEN..], "payload");
    let (mut payloads, mut kind) = (Vec::new(), header.next_payload);
    while kind != PayloadType::NONE {
        if kind == PayloadType::SK || kind == PayloadType::SKF {
            let sk = Some(parse_sk(bytes, r, kind, header.exchange)?);
            return Ok(Message { header, payloads, sk });
        }
        kind = parse_next(&mut r, kind, &mut payloads)?;
    }
    r.finish()?;
    Ok(Message { header, payloads, sk: None })
}

/// Reads a chain of payloads, such as the plaintext of an SK payload without its padding.
pub fn parse_payloads(first: PayloadType, bytes: &[u8]) -> Result<Vec<Payload>, ParseError> {
    let mut r = Reader::new(bytes, "payload");
    let (mut payloads, mut kind) = (Vec::new(), first);
    while kind != PayloadType::NONE {
        kind = parse_next(&mut r, kind, &mut payloads)?;
    }
    r.finish()?;
    Ok(payloads)
}

/// Writes a chain of payloads; the type of the first, and the bytes.
pub fn encode_payloads(payloads: &[Payload]) -> (PayloadType, Vec<u8>) {
    let mut out = Vec::new();
    write_payloads(payloads, &mut out);
    (first_kind(payloads), out)
}

/// Writes an unencrypted message; `next_payload` and `length` of the header are set from the payloads.
pub fn encode_plain(header: &Header, payloads: &[Payload]) -> Vec<u8> {
    let mut out = Vec::new();
    Header { next_payload: first_kind(payloads), ..*header }.write(&mut out);
    write_payloads(payloads, &mut out);
    close_message(&mut out, 0);
    out
}

/// Writes header and generic payload header of an encrypted message whose SK (or SKF) body (IV,
/// ciphertext, ICV) has `body_len` bytes: the result is the AAD, and the body is appended to it.
///
/// `body_len` is at most 65,527: what the length field of the payload can say.
pub fn encode_sk_prefix(
    header: &Header,
    first_inside: PayloadType,
    fragment: Option<(u16, u16)>,
    body_len: usize,
) -> Vec<u8> {
    let kind = if fragment.is_some() { PayloadType::SKF } else { PayloadType::SK };
    let mut out = Vec::new();
    Header { next_payload: kind, ..*header }.write(&mut out);
    let payload_len = GENERIC_LEN + if fragment.is_some() { 4 } else { 0 } + body_len;
    out.put(&[first_inside.0, 0]);
    out.put_u16(u16::try_from(payload_len).unwrap_or(u16::MAX));
    if let Some((number, total)) = fragment {
        out.put_u16(number);
        out.put_u16(total);
    }
    close_message(&mut out, body_len);
    out
}

/// Bytes of the generic payload header (RFC 7296 3.2).
const GENERIC_LEN: usize = 4;
/// The critical bit in its second byte.
const CRITICAL: u8 = 0x80;

/// Reads the generic header: type of the next payload, critical bit, body.
fn generic<'a>(r: &mut Reader<'a>) -> Result<(PayloadType, bool, &'a [u8]), ParseError> {
    let next = PayloadType(r.u8()?);
    let critical = r.u8()? & CRITICAL != 0;
    let len = usize::from(r.u16()?)
        .checked_sub(GENERIC_LEN)
        .ok_or(ParseError::BadLength("generic payload header"))?;
    Ok((next, critical, r.take(len)?))
}

/// Reads one payload of type `kind`; the type of the next.
fn parse_next(
    r: &mut Reader<'_>,
    kind: PayloadType,
    payloads: &mut Vec<Payload>,
) -> Result<PayloadType, ParseError> {
    if payloads.len() == MAX_PAYLOADS {
        return Err(ParseError::TooMany("payloads"));
    }
    let (next, critical, body) = generic(r)?;
    payloads.push(Payload::parse(kind, critical, body)?);
    Ok(next)
}

/// Reads the frame of an encrypted payload, which ends the message (RFC 7296 3.14).
fn parse_sk<'a>(
    bytes: &'a [u8],
    mut r: Reader<'a>,
    kind: PayloadType,
    exchange: ExchangeType,
) -> Result<SkFrame<'a>, ParseError> {
    // These two are over before there are keys (RFC 7296 1.2, RFC 5723 4.2).
    if exchange == ExchangeType::IKE_SA_INIT || exchange == ExchangeType::IKE_SESSION_RESUME {
        return Err(ParseError::MisplacedSk);
    }
    let (first, _, body) = generic(&mut r)?;
    if !r.is_empty() {
        return Err(ParseError::MisplacedSk);
    }
    let mut r = Reader::new(body, "encrypted payload");
    let fragment = if kind == PayloadType::SKF { Some(fragment_numbers(&mut r)?) } else { None };
    let body = r.rest();
    Ok(SkFrame { first, fragment, aad: &bytes[..bytes.len() - body.len()], body })
}

/// Counted from 1, and none beyond the total (RFC 7383 2.5).
fn fragment_numbers(r: &mut Reader<'_>) -> Result<(u16, u16), ParseError> {
    let (number, total) = (r.u16()?, r.u16()?);
    if number == 0 || number > total {
        return Err(ParseError::BadValue("fragment number"));
    }
    Ok((number, total))
}

fn first_kind(payloads: &[Payload]) -> PayloadType {
    payloads.first().map_or(PayloadType::NONE, Payload::kind)
}

fn write_payloads(payloads: &[Payload], out: &mut Vec<u8>) {
    for (i, payload) in payloads.iter().enumerate() {
        let start = out.len();
        let critical = if payload.critical() { CRITICAL } else { 0 };
        out.put(&[first_kind(&payloads[i + 1..]).0, critical, 0, 0]);
        payload.write_body(out);
        close_u16(out, start);
    }
}

/// Sets the header's length to what is there and `more` bytes.
fn close_message(out: &mut [u8], more: usize) {
    let len = u32::try_from(out.len() + more).unwrap_or(u32::MAX);
    out[Header::LEN - 4..Header::LEN].copy_from_slice(&len.to_be_bytes());
}
