//! IKEv2 payloads (RFC 7296 3.2 to 3.16, RFC 7383 2.5).

use crate::identity::Identity;
use crate::proposal::Proposal;
use crate::registry::{AuthMethod, CertEncoding, Ke, NotifyType, PayloadType, ProtocolId};
use crate::selector::TrafficSelector;

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

/// KE payload (RFC 7296 3.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KePayload {
    /// The method whose public value follows.
    pub method: Ke,
    /// The public value.
    pub data: Vec<u8>,
}

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

/// Notify payload (RFC 7296 3.10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify {
    /// Protocol of `spi`, NONE if there is none.
    pub protocol: ProtocolId,
    /// SPI of the SA concerned, often empty.
    pub spi: Vec<u8>,
    /// The message type.
    pub kind: NotifyType,
    /// Its data.
    pub data: Vec<u8>,
}

/// Delete payload (RFC 7296 3.11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// IKE (then no SPIs), ESP or AH.
    pub protocol: ProtocolId,
    /// SPIs of the sender's inbound SAs.
    pub spis: Vec<u32>,
}

/// A payload of a type that is not decoded here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownPayload {
    /// Its type.
    pub kind: PayloadType,
    /// Its critical bit: set means that the message must be refused (RFC 7296 2.5).
    pub critical: bool,
    /// Its body.
    pub data: Vec<u8>,
}
