use crate::bytes::{Put, Reader};
use crate::message::ParseError;
use crate::registry::{AuthMethod, CertEncoding};

/// CERT payload (RFC 7296 3.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertPayload {
    /// How `data` is encoded.
    pub encoding: CertEncoding,
    /// The certificate.
    pub data: Vec<u8>,
}

/// CERTREQ payload (RFC 7296 3.7): for X.509, concatenated SHA-1 hashes of the trusted CAs' public key infos.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertReqPayload {
    /// Which encoding is asked for.
    pub encoding: CertEncoding,
    /// The authorities.
    pub data: Vec<u8>,
}

/// AUTH payload (RFC 7296 3.8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthPayload {
    /// How `data` was made.
    pub method: AuthMethod,
    /// The signature or MAC; for DIGITAL_SIGNATURE prefixed by its AlgorithmIdentifier (RFC 7427 3).
    pub data: Vec<u8>,
}

impl CertPayload {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(body, "CERT");
        Ok(Self { encoding: CertEncoding(r.u8()?), data: r.rest().to_vec() })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(self.encoding.0);
        out.put(&self.data);
    }
}

impl CertReqPayload {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(body, "CERTREQ");
        Ok(Self { encoding: CertEncoding(r.u8()?), data: r.rest().to_vec() })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(self.encoding.0);
        out.put(&self.data);
    }
}

impl AuthPayload {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(body, "AUTH");
        let method = AuthMethod(r.u8()?);
        r.take(3)?;
        Ok(Self { method, data: r.rest().to_vec() })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put(&[self.method.0, 0, 0, 0]);
        out.put(&self.data);
    }
}
