//! IKEv2 payloads (RFC 7296 3.2 to 3.16, RFC 7383 2.5).
//!
//! Bounds, all far above what an honest peer sends: [`MAX_PAYLOADS`] in a chain, [`MAX_PROPOSALS`]
//! in an SA payload; 255 transforms in a proposal and 255 selectors in a TS payload by the width of
//! their count fields; SPIs of a Delete by the length of the payload.
//!
//! A body is written with at most 65,531 bytes, which is all that the length field can say.

mod auth;
mod delete;
mod ke;
mod notify;
mod sa;
mod ts;

pub use auth::{AuthPayload, CertPayload, CertReqPayload};
pub use delete::Delete;
pub use ke::KePayload;
pub use notify::Notify;
pub use sa::MAX_PROPOSALS;

use crate::identity::Identity;
use crate::message::ParseError;
use crate::proposal::Proposal;
use crate::registry::PayloadType;
use crate::selector::TrafficSelector;

/// Payloads in one chain.
pub const MAX_PAYLOADS: usize = 100;

/// Lengths a nonce may have, in bytes (RFC 7296 3.9).
pub const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=256;

/// One payload, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Security association: the proposals.
    Sa(Vec<Proposal>),
    /// Key exchange.
    Ke(KePayload),
    /// Identification of the initiator.
    IdI(Identity),
    /// Identification of the responder.
    IdR(Identity),
    /// Certificate.
    Cert(CertPayload),
    /// Certificate request.
    CertReq(CertReqPayload),
    /// Authentication.
    Auth(AuthPayload),
    /// Nonce, 16 to 256 bytes (RFC 7296 3.9).
    Nonce(Vec<u8>),
    /// Notify.
    Notify(Notify),
    /// Delete.
    Delete(Delete),
    /// Vendor ID.
    VendorId(Vec<u8>),
    /// Traffic selectors of the initiator.
    TsI(Vec<TrafficSelector>),
    /// Traffic selectors of the responder.
    TsR(Vec<TrafficSelector>),
    /// Configuration, opaque.
    Cp(Vec<u8>),
    /// EAP, opaque.
    Eap(Vec<u8>),
    /// Any other type, as it came.
    Unknown(UnknownPayload),
}

/// A payload of a type that is not decoded here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownPayload {
    /// Its type.
    pub kind: PayloadType,
    /// Its critical bit: set means that the message must be refused (RFC 7296 2.5), as the parser does.
    pub critical: bool,
    /// Its body.
    pub data: Vec<u8>,
}

impl Payload {
    /// Its type on the wire.
    pub fn kind(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::Ke(_) => PayloadType::KE,
            Self::IdI(_) => PayloadType::ID_I,
            Self::IdR(_) => PayloadType::ID_R,
            Self::Cert(_) => PayloadType::CERT,
            Self::CertReq(_) => PayloadType::CERTREQ,
            Self::Auth(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::VendorId(_) => PayloadType::VENDOR_ID,
            Self::TsI(_) => PayloadType::TS_I,
            Self::TsR(_) => PayloadType::TS_R,
            Self::Cp(_) => PayloadType::CP,
            Self::Eap(_) => PayloadType::EAP,
            Self::Unknown(u) => u.kind,
        }
    }

    /// Reads one body, its generic header already taken off.
    ///
    /// The critical bit counts only for a type that is not decoded here (RFC 7296 2.5); SK and SKF are not
    /// bodies but frames, and are refused.
    pub fn parse(kind: PayloadType, critical: bool, body: &[u8]) -> Result<Self, ParseError> {
        Ok(match kind {
            PayloadType::SA => Self::Sa(sa::parse(body)?),
            PayloadType::KE => Self::Ke(KePayload::parse(body)?),
            PayloadType::ID_I => Self::IdI(Identity::from_body(body)?),
            PayloadType::ID_R => Self::IdR(Identity::from_body(body)?),
            PayloadType::CERT => Self::Cert(CertPayload::parse(body)?),
            PayloadType::CERTREQ => Self::CertReq(CertReqPayload::parse(body)?),
            PayloadType::AUTH => Self::Auth(AuthPayload::parse(body)?),
            PayloadType::NONCE if NONCE_LEN.contains(&body.len()) => Self::Nonce(body.to_vec()),
            PayloadType::NONCE => return Err(ParseError::BadLength("nonce")),
            PayloadType::NOTIFY => Self::Notify(Notify::parse(body)?),
            PayloadType::DELETE => Self::Delete(Delete::parse(body)?),
            PayloadType::VENDOR_ID => Self::VendorId(body.to_vec()),
            PayloadType::TS_I => Self::TsI(ts::parse(body)?),
            PayloadType::TS_R => Self::TsR(ts::parse(body)?),
            PayloadType::CP => Self::Cp(body.to_vec()),
            PayloadType::EAP => Self::Eap(body.to_vec()),
            PayloadType::SK | PayloadType::SKF => return Err(ParseError::MisplacedSk),
            _ if critical => return Err(ParseError::UnknownCritical(kind.0)),
            _ => Self::Unknown(UnknownPayload { kind, critical, data: body.to_vec() }),
        })
    }

    /// Appends the body, without the generic header.
    pub fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sa(proposals) => sa::write(proposals, out),
            Self::Ke(ke) => ke.write(out),
            Self::IdI(id) | Self::IdR(id) => out.extend(id.to_body()),
            Self::Cert(cert) => cert.write(out),
            Self::CertReq(req) => req.write(out),
            Self::Auth(auth) => auth.write(out),
            Self::Notify(notify) => notify.write(out),
            Self::Delete(delete) => delete.write(out),
            Self::TsI(selectors) | Self::TsR(selectors) => ts::write(selectors, out),
            Self::Nonce(data) | Self::VendorId(data) | Self::Cp(data) | Self::Eap(data) => {
                out.extend_from_slice(data);
            }
            Self::Unknown(unknown) => out.extend_from_slice(&unknown.data),
        }
    }

    /// Whether its generic header carries the critical bit: never for a type of RFC 7296 (2.5).
    pub(crate) fn critical(&self) -> bool {
        matches!(self, Self::Unknown(u) if u.critical)
    }
}
