use crate::bytes::{Put, Reader};
use crate::message::ParseError;
use crate::registry::{NotifyType, ProtocolId};

/// Notify payload (RFC 7296 3.10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify {
    /// Protocol of `spi`, NONE if there is none.
    pub protocol: ProtocolId,
    /// SPI of the SA concerned, often empty; at most 255 bytes are written.
    pub spi: Vec<u8>,
    /// The message type.
    pub kind: NotifyType,
    /// Its data.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notify that concerns no particular child SA.
    pub fn new(kind: NotifyType, data: impl Into<Vec<u8>>) -> Self {
        Self { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data: data.into() }
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(body, "Notify");
        let protocol = ProtocolId(r.u8()?);
        let spi_size = r.u8()?;
        let kind = NotifyType(r.u16()?);
        let spi = r.take(spi_size.into())?.to_vec();
        Ok(Self { protocol, spi, kind, data: r.rest().to_vec() })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let spi_size = u8::try_from(self.spi.len()).unwrap_or(u8::MAX);
        out.put(&[self.protocol.0, spi_size]);
        out.put_u16(self.kind.0);
        out.put(&self.spi[..spi_size.into()]);
        out.put(&self.data);
    }
}
