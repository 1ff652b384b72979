//! What a UDP datagram on port 500 or 4500 carries (RFC 3948).

use crate::esp::Spi;

/// A classified datagram, borrowed from the receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// An IKE message, the non-ESP marker already taken off.
    Ike(&'a [u8]),
    /// An ESP packet in UDP, with its SPI.
    Esp(Spi, &'a [u8]),
    /// A NAT keepalive: one byte 0xff (RFC 3948 2.3).
    Keepalive,
    /// None of these; to be dropped and counted.
    Malformed,
}
