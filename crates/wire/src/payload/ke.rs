use crate::bytes::{Put, Reader};
use crate::message::ParseError;
use crate::registry::Ke;

/// KE payload (RFC 7296 3.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KePayload {
    /// The method whose public value follows.
    pub method: Ke,
    /// The public value.
    pub data: Vec<u8>,
}

impl KePayload {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(body, "KE");
        let method = Ke(r.u16()?);
        r.u16()?;
        Ok(Self { method, data: r.rest().to_vec() })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(self.method.0);
        out.put_u16(0);
        out.put(&self.data);
    }
}
