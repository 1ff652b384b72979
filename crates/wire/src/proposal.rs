//! SA proposals (RFC 7296 3.3): what a peer offers and what it takes.

use crate::registry::{ProtocolId, TransformType};

/// One transform: an algorithm of one type, with its key length where it has one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Transform {
    /// Which kind of algorithm.
    pub kind: TransformType,
    /// The algorithm's number in the registry of its kind.
    pub id: u16,
    /// Key length attribute, in bits (RFC 7296 3.3.5).
    pub key_bits: Option<u16>,
    /// Whether an attribute was there that is not known here: such a transform is never chosen (RFC 7296 3.3.6).
    pub unknown_attribute: bool,
}

/// One proposal: a protocol, the sender's SPI for it, and the transforms to choose from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposal {
    /// Proposal number: 1, 2, … in an offer; the chosen one in an answer.
    pub number: u8,
    /// What is negotiated.
    pub protocol: ProtocolId,
    /// The sender's SPI: empty in IKE_SA_INIT, 8 bytes when an IKE SA is rekeyed, 4 for ESP.
    pub spi: Vec<u8>,
    /// The transforms, in order of preference within each type.
    pub transforms: Vec<Transform>,
}
