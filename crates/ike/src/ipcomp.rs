//! IPCOMP_SUPPORTED: whether the packets of a child SA may be compressed (RFC 7296 2.22).

use ipsec::ipcomp::DEFLATE;
use wire::notify;
use wire::payload::Payload;
use wire::registry::NotifyType;

use crate::error::Misbehaviour;
use crate::rng::Rng;

/// CPIs that are negotiated (RFC 3173 3.3).
const NEGOTIATED: std::ops::RangeInclusive<u16> = 256..=61_439;

/// By what either end knows a packet that was compressed for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpis {
    /// By which this host knows it.
    pub inbound: u16,
    /// By which the peer does.
    pub outbound: u16,
}

/// A CPI of this host. It stands inside an ESP SA, which names it: it need not be the only one of its value.
pub(crate) fn fresh(rng: &mut Rng) -> u16 {
    let count = u64::from(NEGOTIATED.end() - NEGOTIATED.start()) + 1;
    NEGOTIATED.start() + rng.below(count) as u16
}

/// What this host sends, as an offer or as its answer to one.
pub(crate) fn payload(inbound: u16) -> Payload {
    Payload::Notify(notify::ipcomp_supported(inbound, DEFLATE))
}

/// The peer's CPI for DEFLATE among what it offers.
pub(crate) fn offered(payloads: &[Payload]) -> Option<u16> {
    all(payloads)
        .filter_map(Result::ok)
        .find(|(cpi, how)| *how == DEFLATE && *cpi != 0)
        .map(|o| o.0)
}

/// What the peer answered to the offer of `inbound`. One that was not asked for is passed over.
///
/// # Errors
/// If it is more than one, or not DEFLATE.
pub(crate) fn answered(
    inbound: Option<u16>,
    payloads: &[Payload],
) -> Result<Option<Cpis>, Misbehaviour> {
    let Some(inbound) = inbound else { return Ok(None) };
    let mut answers = all(payloads);
    match (answers.next(), answers.next()) {
        (None, _) => Ok(None),
        (Some(Ok((outbound, DEFLATE))), None) if outbound != 0 => {
            Ok(Some(Cpis { inbound, outbound }))
        }
        (Some(Err(())), None) => Err(Misbehaviour::Malformed),
        _ => Err(Misbehaviour::ChoseUnoffered),
    }
}

fn all(payloads: &[Payload]) -> impl Iterator<Item = Result<(u16, u8), ()>> {
    payloads.iter().filter_map(|payload| match payload {
        Payload::Notify(n) if n.kind == NotifyType::IPCOMP_SUPPORTED => {
            Some(notify::parse_ipcomp_supported(&n.data).map_err(|_| ()))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(data: &[u8]) -> Payload {
        Payload::Notify(wire::payload::Notify::new(NotifyType::IPCOMP_SUPPORTED, data))
    }

    #[test]
    fn an_answer_is_one_and_what_was_offered() {
        let (good, lzs) = (notify(&[0x12, 0x34, 2]), notify(&[0x12, 0x34, 3]));
        let cpis = Cpis { inbound: 500, outbound: 0x1234 };
        assert_eq!(answered(Some(500), std::slice::from_ref(&good)), Ok(Some(cpis)));
        assert_eq!(answered(Some(500), &[]), Ok(None));
        assert_eq!(answered(None, std::slice::from_ref(&good)), Ok(None));
        let two = [good.clone(), good.clone()];
        assert_eq!(answered(Some(500), &two), Err(Misbehaviour::ChoseUnoffered));
        for bad in [lzs.clone(), notify(&[0, 0, 2])] {
            assert_eq!(answered(Some(500), &[bad]), Err(Misbehaviour::ChoseUnoffered));
        }
        assert_eq!(answered(Some(500), &[notify(&[1, 2])]), Err(Misbehaviour::Malformed));
        assert_eq!(offered(&[notify(&[1]), lzs.clone(), good]), Some(0x1234));
        assert_eq!(offered(&[lzs, notify(&[0, 0, 2])]), None);
    }

    #[test]
    fn a_cpi_is_of_those_that_are_negotiated() {
        let mut rng = Rng::new([3; 32]);
        assert!((0..1000).all(|_| NEGOTIATED.contains(&fresh(&mut rng))));
    }
}
