//! One ESP packet: sealed, opened, and how long it gets (RFC 4303).

use crypto::cipher::{BadIcv, Cipher, CipherSpec};
use wire::esp::{HEADER_LEN, Spi};

use crate::packet::{self, IPV4_HEADER, IPV6_HEADER, UDP_HEADER, proto};
use crate::sa::Mode;

/// IP family of the packets on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How many bytes a cipher adds, in every packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Bytes of IV.
    pub iv: usize,
    /// Bytes of ICV.
    pub icv: usize,
    /// Payload, padding and trailer together are a multiple of this (RFC 4303 2.4): 4 or the cipher's block.
    pub align: usize,
}

/// Why an ESP packet was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Shorter than header, IV, trailer and ICV.
    #[error("the ESP packet is too short")]
    TooShort,
    /// The integrity check failed.
    #[error("the ESP packet does not verify")]
    BadIcv,
    /// It verified, but its padding is longer than it, or not 1, 2, 3, … (RFC 4303 2.4).
    #[error("the ESP padding is wrong")]
    BadPadding,
}

/// What a verified packet holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Where the payload begins in the buffer.
    pub start: usize,
    /// Length of the payload, traffic flow confidentiality padding included.
    pub len: usize,
    /// What the payload is; 59 is a dummy packet (RFC 4303 2.6).
    pub next_header: u8,
}

/// The longest IV of any cipher here.
pub const MAX_IV: usize = 16;

/// Bytes of padding length and next header.
const TRAILER: usize = 2;

impl Shape {
    /// Of a keyed cipher.
    pub fn of(cipher: &dyn Cipher) -> Self {
        Self { iv: cipher.iv_len(), icv: cipher.icv_len(), align: cipher.block_len().max(4) }
    }

    /// Of a combination of algorithms; `None` for one that is not known here.
    pub fn of_spec(spec: CipherSpec) -> Option<Self> {
        let shape = spec.shape()?;
        Some(Self { iv: shape.iv_len, icv: shape.icv_len, align: shape.block_len.max(4) })
    }

    /// Length of the ESP packet around `payload` bytes, from SPI to ICV.
    pub fn sealed_len(self, payload: usize) -> usize {
        HEADER_LEN + self.iv + (payload + TRAILER).next_multiple_of(self.align) + self.icv
    }

    /// The longest payload whose ESP packet has at most `len` bytes; 0 if there is none.
    pub fn max_payload(self, len: usize) -> usize {
        let room = len.saturating_sub(HEADER_LEN + self.iv + self.icv);
        (room / self.align * self.align).saturating_sub(TRAILER)
    }
}

impl Family {
    /// The family of an address.
    pub fn of(addr: std::net::IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bytes of its fixed header.
    pub fn header_len(self) -> usize {
        match self {
            Self::V4 => IPV4_HEADER,
            Self::V6 => IPV6_HEADER,
        }
    }
}

/// The longest whole IP packet that fits `mtu` once it is protected, without IP options.
///
/// `family` is the outer packet's, in transport mode the inner one's too.
pub fn max_inner(mtu: usize, mode: Mode, shape: Shape, encap: bool, family: Family) -> usize {
    let udp = if encap { UDP_HEADER } else { 0 };
    let payload = shape.max_payload(mtu.saturating_sub(family.header_len() + udp));
    match mode {
        Mode::Transport => family.header_len() + payload,
        Mode::Tunnel => payload,
    }
}

/// The most bytes by which a packet can grow.
pub fn overhead(mode: Mode, shape: Shape, encap: bool, family: Family) -> usize {
    let udp = if encap { UDP_HEADER } else { 0 };
    let outer = match mode {
        Mode::Transport => 0,
        Mode::Tunnel => family.header_len(),
    };
    outer + udp + HEADER_LEN + shape.iv + TRAILER + shape.align - 1 + shape.icv
}

/// What stands in the header and the trailer of a packet to be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealAs {
    /// The SA's SPI.
    pub spi: Spi,
    /// The whole sequence number; never used twice with one key.
    pub seq: u64,
    /// Whether its high half is authenticated (RFC 4303 2.2.1).
    pub esn: bool,
    /// What the payload is.
    pub next_header: u8,
}

/// Turns `packet[payload_at..]` into an ESP packet; what stands before it is taken off.
///
/// In place: no allocation if the buffer has room for the overhead. The cipher's IV has at most
/// [`MAX_IV`] bytes, which the SAD sees to.
pub fn seal(cipher: &dyn Cipher, as_: SealAs, payload_at: usize, packet: &mut Vec<u8>) {
    let shape = Shape::of(cipher);
    let payload = packet.len() - payload_at;
    let mut prefix = [0; HEADER_LEN + MAX_IV];
    prefix[..4].copy_from_slice(&as_.spi.0.to_be_bytes());
    prefix[4..8].copy_from_slice(&(as_.seq as u32).to_be_bytes());
    packet.reserve(shape.sealed_len(payload).saturating_sub(payload_at + payload));
    packet::replace_prefix(packet, payload_at, &prefix[..HEADER_LEN + shape.iv]);
    let padding = (payload + TRAILER).next_multiple_of(shape.align) - payload - TRAILER;
    packet.extend((1..=padding).map(|byte| byte as u8));
    packet.extend_from_slice(&[padding as u8, as_.next_header]);
    packet.resize(packet.len() + shape.icv, 0);
    let (header, body) = packet.split_at_mut(HEADER_LEN);
    cipher.seal(as_.seq, header, as_.esn.then_some((as_.seq >> 32) as u32), body);
}

/// Appends to `out` the ESP packet around a payload that is given in two parts.
///
/// The payload is copied once, and sealed where it then is.
pub fn seal_onto(cipher: &dyn Cipher, as_: SealAs, payload: [&[u8]; 2], out: &mut Vec<u8>) {
    let shape = Shape::of(cipher);
    let length = payload[0].len() + payload[1].len();
    let at = out.len();
    out.reserve(shape.sealed_len(length));
    out.extend_from_slice(&as_.spi.0.to_be_bytes());
    out.extend_from_slice(&(as_.seq as u32).to_be_bytes());
    out.extend_from_slice(&[0; MAX_IV][..shape.iv]);
    out.extend_from_slice(payload[0]);
    out.extend_from_slice(payload[1]);
    let padding = (length + TRAILER).next_multiple_of(shape.align) - length - TRAILER;
    out.extend((1..=padding).map(|byte| byte as u8));
    out.extend_from_slice(&[padding as u8, as_.next_header]);
    out.resize(out.len() + shape.icv, 0);
    let (header, body) = out[at..].split_at_mut(HEADER_LEN);
    cipher.seal(as_.seq, header, as_.esn.then_some((as_.seq >> 32) as u32), body);
}

/// Verifies and decrypts in place, and takes padding and trailer off.
///
/// `esn_hi` is the high half of the sequence number, for an SA that has one.
pub fn open(cipher: &dyn Cipher, esn_hi: Option<u32>, esp: &mut [u8]) -> Result<Opened, OpenError> {
    let shape = Shape::of(cipher);
    if esp.len() < HEADER_LEN + shape.iv + TRAILER + shape.icv {
        return Err(OpenError::TooShort);
    }
    let (header, body) = esp.split_at_mut(HEADER_LEN);
    cipher.open(header, esn_hi, body).map_err(|BadIcv| OpenError::BadIcv)?;
    let plain = &body[shape.iv..body.len() - shape.icv];
    let [content @ .., padding, next_header] = plain else { return Err(OpenError::TooShort) };
    let (padding, next_header) = (usize::from(*padding), *next_header);
    let Some(len) = content.len().checked_sub(padding) else { return Err(OpenError::BadPadding) };
    // The content of a dummy packet, padding included, may be anything.
    let monotonic = content[len..].iter().zip(1u8..).all(|(byte, expected)| *byte == expected);
    if !monotonic && next_header != proto::NO_NEXT_HEADER {
        return Err(OpenError::BadPadding);
    }
    Ok(Opened { start: HEADER_LEN + shape.iv, len, next_header })
}
