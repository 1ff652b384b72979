//! IKEv2 header and messages (RFC 7296 3.1, 3.2, 3.14; RFC 7383).
//!
//! A message is read in two steps: `Header` first, which is all that an endpoint needs to find the
//! SA, then the payloads. An encrypted message yields the frame of its SK payload; its owner opens
//! it and gives the plain bytes to [`parse_payloads`].

use crate::registry::ExchangeType;

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
    pub next_payload: crate::registry::PayloadType,
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
