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

/// Four zero bytes before an IKE message on port 4500 (RFC 3948 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// Classifies a datagram that arrived on the NAT traversal port (4500).
pub fn classify(bytes: &[u8]) -> Datagram<'_> {
    match bytes {
        [0xff] => Datagram::Keepalive,
        [0, 0, 0, 0, ike @ ..] if !ike.is_empty() => Datagram::Ike(ike),
        _ => match crate::esp::parse_header(bytes) {
            Some((spi, _)) if spi.0 != 0 => Datagram::Esp(spi, bytes),
            _ => Datagram::Malformed,
        },
    }
}
