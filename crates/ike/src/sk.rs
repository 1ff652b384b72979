//! The encrypted payload, SK and SKF (RFC 7296 3.14, RFC 5282, RFC 7383 2.5).

use crypto::Provider;
use crypto::cipher::Cipher;
use crypto::provider::Unsupported;
use wire::message::{Header, ParseError, SkFrame};
use wire::payload::Payload;
use wire::registry::PayloadType;

use crate::keys::IkeKeys;
use crate::negotiate::IkeSuite;

/// Why an encrypted payload could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkError {
    /// It does not verify: forged, or of another SA. Nothing may follow from it.
    #[error("bad integrity check value")]
    BadIcv,
    /// It verifies, but its padding is longer than its content.
    #[error("bad padding")]
    BadPadding,
    /// It verifies, but what is inside is malformed.
    #[error("{0}")]
    Parse(#[from] ParseError),
}

/// The ciphers of one IKE SA's two directions, seen from this host.
pub struct SkCiphers {
    /// For what this host sends.
    pub out: Box<dyn Cipher>,
    /// For what the peer sends.
    pub r#in: Box<dyn Cipher>,
}

impl SkCiphers {
    /// Keys the ciphers; `initiator`: whether this host is the IKE SA's original initiator.
    pub fn new(provider: &dyn Provider, suite: &IkeSuite, keys: &IkeKeys, initiator: bool) -> Result<Self, Unsupported> {
        let _ = (provider, suite, keys, initiator);
        todo!()
    }
}

/// A whole encrypted message. `next_payload` and `length` of the header are set here; `counter`
/// must be unique under this key.
pub fn seal(header: &Header, payloads: &[Payload], cipher: &dyn Cipher, counter: u64) -> Vec<u8> {
    let _ = (header, payloads, cipher, counter);
    todo!()
}

/// As [`seal`], for bytes that are encoded already; `fragment` (number from 1, total) makes it an SKF.
pub fn seal_bytes(
    header: &Header,
    first: PayloadType,
    fragment: Option<(u16, u16)>,
    plain: &[u8],
    cipher: &dyn Cipher,
    counter: u64,
) -> Vec<u8> {
    let _ = (header, first, fragment, plain, cipher, counter);
    todo!()
}

/// Bytes that [`seal_bytes`] adds to `plain_len` bytes: header, generic headers, IV, padding, ICV.
pub fn overhead(plain_len: usize, fragmented: bool, cipher: &dyn Cipher) -> usize {
    let _ = (plain_len, fragmented, cipher);
    todo!()
}

/// Verifies and reads an SK payload.
pub fn open(frame: &SkFrame<'_>, cipher: &dyn Cipher) -> Result<Vec<Payload>, SkError> {
    let _ = (frame, cipher);
    todo!()
}

/// Verifies an SK or SKF payload; its plain bytes without padding.
pub fn open_bytes(frame: &SkFrame<'_>, cipher: &dyn Cipher) -> Result<Vec<u8>, SkError> {
    let _ = (frame, cipher);
    todo!()
}
