//! ESP's header and its SPI (RFC 4303).

/// Security parameters index of an ESP SA; 0 is never on the wire, 1 to 255 are reserved (RFC 4303 2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

impl std::fmt::Display for Spi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl std::fmt::Debug for Spi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Bytes before the IV: SPI and sequence number.
pub const HEADER_LEN: usize = 8;

/// Reads SPI and the low 32 bits of the sequence number; `None` if there are fewer than 8 bytes.
pub fn parse_header(packet: &[u8]) -> Option<(Spi, u32)> {
    let (spi, rest) = packet.split_first_chunk::<4>()?;
    let (seq, _) = rest.split_first_chunk::<4>()?;
    Some((Spi(u32::from_be_bytes(*spi)), u32::from_be_bytes(*seq)))
}
