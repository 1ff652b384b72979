//! ESP's header and its SPI (RFC 4303).

/// Security parameters index of an ESP SA; 0 is never on the wire, 1 to 255 are reserved (RFC 4303 2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);
