//! IKEv2 header and messages (RFC 7296 3.1, 3.2, 3.14; RFC 7383).
//!
//! A message is read in two steps: `Header` first, which is all that an endpoint needs to find the
//! SA, then the payloads. An encrypted message yields the frame of its SK payload; its owner opens
//! it and gives the plain bytes to [`parse_payloads`].

use crate::payload::Payload;
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
        let _ = bytes;
        todo!()
    }

    /// Appends the 28 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}

/// Reads a whole message. `bytes` is exactly one datagram, non-ESP marker taken off.
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, ParseError> {
    let _ = bytes;
    todo!()
}

/// Reads a chain of payloads, such as the plaintext of an SK payload without its padding.
pub fn parse_payloads(first: PayloadType, bytes: &[u8]) -> Result<Vec<Payload>, ParseError> {
    let _ = (first, bytes);
    todo!()
}

/// Writes a chain of payloads; the type of the first, and the bytes.
pub fn encode_payloads(payloads: &[Payload]) -> (PayloadType, Vec<u8>) {
    let _ = payloads;
    todo!()
}

/// Writes an unencrypted message; `next_payload` and `length` of the header are set from the payloads.
pub fn encode_plain(header: &Header, payloads: &[Payload]) -> Vec<u8> {
    let _ = (header, payloads);
    todo!()
}

/// Writes header and generic payload header of an encrypted message whose SK (or SKF) body (IV,
/// ciphertext, ICV) has `body_len` bytes: the result is the AAD, and the body is appended to it.
pub fn encode_sk_prefix(
    header: &Header,
    first_inside: PayloadType,
    fragment: Option<(u16, u16)>,
    body_len: usize,
) -> Vec<u8> {
    let _ = (header, first_inside, fragment, body_len);
    todo!()
}
