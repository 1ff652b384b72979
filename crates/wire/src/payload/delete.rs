use crate::bytes::{Put, Reader};
use crate::message::ParseError;
use crate::registry::ProtocolId;

/// Delete payload (RFC 7296 3.11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// IKE (then no SPIs), ESP or AH.
    pub protocol: ProtocolId,
    /// SPIs of the sender's inbound SAs; at most 16,381 are written.
    pub spis: Vec<u32>,
}

/// Bytes of an ESP or AH SPI.
const SPI_SIZE: u8 = 4;
/// What one payload of 65,535 bytes can hold after its two headers.
const MAX_SPIS: usize = (65_535 - 8) / SPI_SIZE as usize;

impl Delete {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(body, "Delete");
        let protocol = ProtocolId(r.u8()?);
        let spi_size = r.u8()?;
        let count = r.u16()?;
        match (protocol, spi_size) {
            // The count says nothing where SPIs have no bytes; peers differ in what they put there.
            (ProtocolId::IKE, 0) => {
                r.finish()?;
                Ok(Self { protocol, spis: Vec::new() })
            }
            (ProtocolId::ESP | ProtocolId::AH, SPI_SIZE) => {
                if r.len() != usize::from(count) * usize::from(SPI_SIZE) {
                    return Err(ParseError::BadLength("Delete"));
                }
                let spis = (0..count).map(|_| r.u32()).collect::<Result<_, _>>()?;
                Ok(Self { protocol, spis })
            }
            (ProtocolId::IKE | ProtocolId::ESP | ProtocolId::AH, _) => {
                Err(ParseError::BadLength("SPI of Delete"))
            }
            _ => Err(ParseError::BadValue("protocol of Delete")),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if self.protocol == ProtocolId::IKE {
            out.put(&[self.protocol.0, 0, 0, 0]);
            return;
        }
        let spis = &self.spis[..self.spis.len().min(MAX_SPIS)];
        out.put(&[self.protocol.0, SPI_SIZE]);
        out.put_u16(spis.len() as u16);
        for spi in spis {
            out.put_u32(*spi);
        }
    }
}
