//! IP payload compression (RFC 3173) with DEFLATE (RFC 2394), inside ESP.
//!
//! How long a packet is then says something of what is in it, encryption or not.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::packet::proto;

/// Bytes of the IPComp header: next header, flags, CPI.
pub const HEADER: usize = 4;
/// DEFLATE among the transforms that IKE knows (RFC 7296 3.10.1).
pub const DEFLATE: u8 = 2;
/// Shorter payloads do not shrink by enough (RFC 3173 2.2; RFC 2394 4).
pub const THRESHOLD: usize = 90;
/// What a payload may grow to: all that IP can say of its length.
pub const MOST: usize = 65_535;

/// Fast rather than thorough: every packet is by itself, and short.
const EFFORT: i32 = 4;

/// Not an IPComp packet of this SA: another CPI, no DEFLATE, cut short, or too much inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no IPComp packet of this SA, or more than {MOST} bytes inside")]
pub struct Malformed;

/// Compresses payloads one by one; its tables are large, and used again.
pub struct Compressor(Box<CompressorOxide>);

impl Default for Compressor {
    fn default() -> Self {
        // No window bits: raw DEFLATE, without header and checksum of zlib.
        Self(Box::new(CompressorOxide::new(create_comp_flags_from_zip_params(EFFORT, 0, 0))))
    }
}

impl Compressor {
    /// The IPComp packet around a payload; `None` if it is not shorter than the payload by itself, which
    /// goes out as it is then (RFC 3173 2.2).
    pub fn compress(&mut self, cpi: u16, next_header: u8, payload: &[u8]) -> Option<Vec<u8>> {
        if payload.len() < THRESHOLD || next_header == proto::IPCOMP {
            return None;
        }
        self.0.reset();
        let mut packet = vec![0; payload.len() - 1];
        packet[0] = next_header;
        packet[2..HEADER].copy_from_slice(&cpi.to_be_bytes());
        let (status, taken, made) =
            compress(&mut self.0, payload, &mut packet[HEADER..], TDEFLFlush::Finish);
        packet.truncate(HEADER + made);
        (status == TDEFLStatus::Done && taken == payload.len()).then_some(packet)
    }
}

/// The payload of an IPComp packet, behind `room` bytes, and what it is.
///
/// # Errors
/// If it is none with this CPI, or more than [`MOST`] bytes are in it.
pub fn expand(cpi: u16, packet: &[u8], room: usize) -> Result<(Vec<u8>, u8), Malformed> {
    let (header, deflated) = packet.split_first_chunk::<HEADER>().ok_or(Malformed)?;
    let [next_header, _, cpi_high, cpi_low] = *header;
    if u16::from_be_bytes([cpi_high, cpi_low]) != cpi || next_header == proto::IPCOMP {
        return Err(Malformed);
    }
    let mut inflate = DecompressorOxide::new();
    let mut out = vec![0; room + (4 * deflated.len()).clamp(2048, MOST)];
    let (mut read, mut written) = (0, room);
    loop {
        let rest = deflated.get(read..).unwrap_or(&[]);
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, taken, made) = decompress(&mut inflate, rest, &mut out, written, flags);
        (read, written) = (read + taken, written + made);
        match status {
            TINFLStatus::Done => {
                out.truncate(written);
                return Ok((out, next_header));
            }
            TINFLStatus::HasMoreOutput if out.len() < room + MOST => {
                out.resize((room + 2 * (out.len() - room)).min(room + MOST), 0);
            }
            _ => return Err(Malformed),
        }
    }
}
