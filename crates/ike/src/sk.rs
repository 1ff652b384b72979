//! The encrypted payload, SK and SKF (RFC 7296 3.14, RFC 5282, RFC 7383 2.5).

use crypto::cipher::{BadIcv, Cipher};
use crypto::provider::Unsupported;
use crypto::{Provider, Secret};
use wire::message::{
    Header, ParseError, SkFrame, encode_payloads, encode_sk_prefix, parse_payloads,
};
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
    pub fn new(
        provider: &dyn Provider,
        suite: &IkeSuite,
        keys: &IkeKeys,
        initiator: bool,
    ) -> Result<Self, Unsupported> {
        let key = |encr: &Secret, integ: &Secret| {
            provider.cipher(suite.cipher, encr.expose(), integ.expose())
        };
        let from_i = key(&keys.sk_ei, &keys.sk_ai)?;
        let from_r = key(&keys.sk_er, &keys.sk_ar)?;
        let (out, r#in) = if initiator { (from_i, from_r) } else { (from_r, from_i) };
        Ok(Self { out, r#in })
    }
}

/// A whole encrypted message. `next_payload` and `length` of the header are set here; `counter`
/// must be unique under this key.
pub fn seal(header: &Header, payloads: &[Payload], cipher: &dyn Cipher, counter: u64) -> Vec<u8> {
    let (first, plain) = encode_payloads(payloads);
    seal_bytes(header, first, None, &plain, cipher, counter)
}

/// As [`seal`], for bytes that are encoded already; `fragment` (number from 1, total) makes it an SKF.
/// `plain` is what a datagram can hold; an SK payload has a length field of 16 bits.
pub fn seal_bytes(
    header: &Header,
    first: PayloadType,
    fragment: Option<(u16, u16)>,
    plain: &[u8],
    cipher: &dyn Cipher,
    counter: u64,
) -> Vec<u8> {
    let (iv, icv) = (cipher.iv_len(), cipher.icv_len());
    let pad = pad_len(plain.len(), cipher);
    let mut body = vec![0; iv + plain.len() + usize::from(pad) + 1 + icv];
    body[iv..iv + plain.len()].copy_from_slice(plain);
    let end = body.len() - icv;
    body[end - 1] = pad;
    let mut message = encode_sk_prefix(header, first, fragment, body.len());
    cipher.seal(counter, &message, None, &mut body);
    message.extend_from_slice(&body);
    message
}

/// Bytes that [`seal_bytes`] adds to `plain_len` bytes: header, generic headers, IV, padding, ICV.
pub fn overhead(plain_len: usize, fragmented: bool, cipher: &dyn Cipher) -> usize {
    let headers = Header::LEN + GENERIC_HEADER + if fragmented { FRAGMENT_NUMBERS } else { 0 };
    headers + cipher.iv_len() + usize::from(pad_len(plain_len, cipher)) + 1 + cipher.icv_len()
}

/// Bytes that fit into a fragment whose whole message has at most `limit` bytes; at least 1.
pub fn fragment_room(limit: usize, cipher: &dyn Cipher) -> usize {
    let block = block_len(cipher);
    // Of nothing, padding and its length byte are one block.
    let blocks = limit.saturating_sub(overhead(0, true, cipher) - block) / block;
    (blocks * block).saturating_sub(1).max(1)
}

/// Verifies and reads an SK payload.
pub fn open(frame: &SkFrame<'_>, cipher: &dyn Cipher) -> Result<Vec<Payload>, SkError> {
    let plain = open_bytes(frame, cipher)?;
    Ok(parse_payloads(frame.first, &plain)?)
}

/// Verifies an SK or SKF payload; its plain bytes without padding.
pub fn open_bytes(frame: &SkFrame<'_>, cipher: &dyn Cipher) -> Result<Vec<u8>, SkError> {
    let mut body = frame.body.to_vec();
    cipher.open(frame.aad, None, &mut body).map_err(|BadIcv| SkError::BadIcv)?;
    let end = body.len().checked_sub(cipher.icv_len()).ok_or(SkError::BadIcv)?;
    body.truncate(end);
    let padded = body.get(cipher.iv_len()..).ok_or(SkError::BadIcv)?;
    let (&pad, content) = padded.split_last().ok_or(SkError::BadPadding)?;
    let len = content.len().checked_sub(usize::from(pad)).ok_or(SkError::BadPadding)?;
    Ok(content[..len].to_vec())
}

/// Generic payload header (RFC 7296 3.2).
const GENERIC_HEADER: usize = 4;
/// Fragment number and total (RFC 7383 2.5).
const FRAGMENT_NUMBERS: usize = 4;

/// The least padding that, with the pad length byte, fills up the last block.
fn pad_len(plain_len: usize, cipher: &dyn Cipher) -> u8 {
    let block = block_len(cipher);
    let over = (plain_len + 1) % block;
    u8::try_from(if over == 0 { 0 } else { block - over }).unwrap_or(0)
}

fn block_len(cipher: &dyn Cipher) -> usize {
    cipher.block_len().clamp(1, 256)
}
