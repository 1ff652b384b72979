//! SA payload (RFC 7296 3.3): proposals, transforms, attributes.
//!
//! Proposal numbers are not judged here: an offer counts from 1, an answer repeats the number of the
//! proposal that was taken, and only the negotiation knows which of the two this is.

use crate::bytes::{Put, Reader, close_u16};
use crate::message::ParseError;
use crate::proposal::{Proposal, Transform};
use crate::registry::{ProtocolId, TransformType};

/// Proposals in one SA payload.
pub const MAX_PROPOSALS: usize = 64;

/// "Last Substruc" of a proposal that another one follows.
const MORE_PROPOSALS: u8 = 2;
/// "Last Substruc" of a transform that another one follows.
const MORE_TRANSFORMS: u8 = 3;
/// The bit that marks an attribute as type and value, without a length (RFC 7296 3.3.5).
const TV: u16 = 0x8000;
/// The only attribute there is.
const KEY_LENGTH: u16 = 14;

pub(super) fn parse(body: &[u8]) -> Result<Vec<Proposal>, ParseError> {
    let mut r = Reader::new(body, "SA");
    let mut proposals = Vec::new();
    loop {
        if proposals.len() == MAX_PROPOSALS {
            return Err(ParseError::TooMany("proposals"));
        }
        let (more, inner) = substructure(&mut r, MORE_PROPOSALS, "proposal")?;
        proposals.push(parse_proposal(inner)?);
        if !more {
            return r.finish().map(|()| proposals);
        }
    }
}

pub(super) fn write(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (i, proposal) in proposals.iter().enumerate() {
        let more = i + 1 < proposals.len();
        write_proposal(proposal, if more { MORE_PROPOSALS } else { 0 }, out);
    }
}

/// Reads the header that proposals and transforms share; whether more follow, and the inside.
fn substructure<'a>(
    r: &mut Reader<'a>,
    more: u8,
    what: &'static str,
) -> Result<(bool, Reader<'a>), ParseError> {
    let marker = r.u8()?;
    if marker != 0 && marker != more {
        return Err(ParseError::BadValue(what));
    }
    r.u8()?;
    let len = usize::from(r.u16()?).checked_sub(4).ok_or(ParseError::BadLength(what))?;
    Ok((marker == more, Reader::new(r.take(len)?, what)))
}

fn parse_proposal(mut r: Reader<'_>) -> Result<Proposal, ParseError> {
    let number = r.u8()?;
    let protocol = ProtocolId(r.u8()?);
    let spi_size = r.u8()?;
    let count = r.u8()?;
    if !spi_size_fits(protocol, spi_size) {
        return Err(ParseError::BadLength("SPI of proposal"));
    }
    let spi = r.take(spi_size.into())?.to_vec();
    let mut transforms = Vec::new();
    for i in 0..count {
        let (more, inner) = substructure(&mut r, MORE_TRANSFORMS, "transform")?;
        if more != (i + 1 < count) {
            return Err(ParseError::BadValue("number of transforms"));
        }
        transforms.push(parse_transform(inner)?);
    }
    r.finish()?;
    Ok(Proposal { number, protocol, spi, transforms })
}

/// RFC 7296 3.3.1: none or eight bytes for IKE, four for ESP and AH.
fn spi_size_fits(protocol: ProtocolId, size: u8) -> bool {
    match protocol {
        ProtocolId::IKE => size == 0 || size == 8,
        ProtocolId::ESP | ProtocolId::AH => size == 4,
        _ => true,
    }
}

fn parse_transform(mut r: Reader<'_>) -> Result<Transform, ParseError> {
    let kind = TransformType(r.u8()?);
    r.u8()?;
    let id = r.u16()?;
    let mut transform = Transform { kind, id, key_bits: None, unknown_attribute: false };
    while !r.is_empty() {
        let attribute = r.u16()?;
        let value = r.u16()?;
        if attribute == TV | KEY_LENGTH {
            if transform.key_bits.replace(value).is_some() {
                return Err(ParseError::BadValue("key length"));
            }
            continue;
        }
        if attribute & TV == 0 {
            r.take(value.into())?;
        }
        transform.unknown_attribute = true;
    }
    Ok(transform)
}

fn write_proposal(proposal: &Proposal, marker: u8, out: &mut Vec<u8>) {
    let start = out.len();
    let spi = &proposal.spi[..proposal.spi.len().min(u8::MAX.into())];
    let transforms = &proposal.transforms[..proposal.transforms.len().min(u8::MAX.into())];
    out.put(&[marker, 0, 0, 0, proposal.number, proposal.protocol.0]);
    out.put(&[spi.len() as u8, transforms.len() as u8]);
    out.put(spi);
    for (i, transform) in transforms.iter().enumerate() {
        let more = i + 1 < transforms.len();
        write_transform(transform, if more { MORE_TRANSFORMS } else { 0 }, out);
    }
    close_u16(out, start);
}

/// An unknown attribute was not kept, so it is not written: such a transform is never chosen, hence never sent.
fn write_transform(transform: &Transform, marker: u8, out: &mut Vec<u8>) {
    let start = out.len();
    out.put(&[marker, 0, 0, 0, transform.kind.0, 0]);
    out.put_u16(transform.id);
    if let Some(bits) = transform.key_bits {
        out.put_u16(TV | KEY_LENGTH);
        out.put_u16(bits);
    }
    close_u16(out, start);
}
