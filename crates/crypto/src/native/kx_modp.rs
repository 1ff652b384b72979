//! Diffie-Hellman in the MODP groups of RFC 3526.

use std::sync::LazyLock;

use wire::registry::Ke;

use super::ffi::ModpGroup;
use super::{expand, primes};
use crate::Secret;
use crate::kx::{KxError, PrivateKx};
use crate::provider::Unsupported;

/// A group and the length of its private exponents.
///
/// Short exponents are as strong as the group in a group of a safe prime, and many times faster.
/// The lengths are at least the minimum that RFC 7919 appendix A gives for each size (225, 275,
/// 325, 375, 400 bits), which is twice the group's symmetric strength, rounded up.
struct Group {
    field: LazyLock<ModpGroup>,
    exponent_len: usize,
}

macro_rules! groups {
    ($($name:ident($prime:ident, $bits:literal);)*) => {
        $(static $name: Group = Group {
            field: LazyLock::new(|| ModpGroup::new(&primes::$prime).expect("the prime is odd")),
            exponent_len: $bits / 8,
        };)*
    };
}

groups! {
    G1536(MODP_1536, 256);
    G2048(MODP_2048, 256);
    G3072(MODP_3072, 288);
    G4096(MODP_4096, 352);
    G6144(MODP_6144, 384);
    G8192(MODP_8192, 416);
}

fn group(method: Ke) -> Option<&'static Group> {
    Some(match method {
        Ke::MODP_1536 => &G1536,
        Ke::MODP_2048 => &G2048,
        Ke::MODP_3072 => &G3072,
        Ke::MODP_4096 => &G4096,
        Ke::MODP_6144 => &G6144,
        Ke::MODP_8192 => &G8192,
        _ => return None,
    })
}

pub(crate) fn knows(method: Ke) -> bool {
    group(method).is_some()
}

/// `1 < y < p - 1` (RFC 6989 2.1): what is left of the small subgroups of a safe prime.
pub(crate) fn check(method: Ke, public: &[u8]) -> Option<Result<(), KxError>> {
    let prime = group(method)?.field.prime;
    if public.len() != prime.len() {
        return Some(Err(KxError::Length { expected: prime.len(), got: public.len() }));
    }
    let (last, head) = public.split_last()?;
    let small = head.iter().all(|b| *b == 0) && *last <= 1;
    // The prime is odd, so p - 1 differs from it in the last byte alone.
    let mut top = prime.to_vec();
    *top.last_mut()? -= 1;
    Some(if small || public >= top.as_slice() { Err(KxError::Invalid) } else { Ok(()) })
}

struct Modp {
    method: Ke,
    group: &'static Group,
    exponent: Secret,
    public: Vec<u8>,
}

pub(crate) fn private(
    method: Ke,
    seed: &[u8; 64],
) -> Option<Result<Box<dyn PrivateKx>, Unsupported>> {
    let group = group(method)?;
    let mut exponent = expand(seed, method, 0);
    exponent.truncate(group.exponent_len);
    // The highest bit is set, so that the length is the one above, and the value never 0 or 1.
    exponent[0] |= 0x80;
    Some(
        Modp::new(method, group, Secret::new(exponent))
            .ok_or_else(|| Unsupported(method.to_string()))
            .map(|kx| Box::new(kx) as _),
    )
}

pub(crate) fn with_private(method: Ke, private: &[u8]) -> Option<Box<dyn PrivateKx>> {
    let group = group(method)?;
    let fits = private.len() <= group.field.prime.len();
    let kx = fits.then(|| Modp::new(method, group, Secret::from(private)))??;
    Some(Box::new(kx))
}

impl Modp {
    fn new(method: Ke, group: &'static Group, exponent: Secret) -> Option<Self> {
        let public = group.field.power(&[2], exponent.expose()).ok()?;
        Some(Self { method, group, exponent, public })
    }
}

impl PrivateKx for Modp {
    fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn agree(&self, peer_public: &[u8]) -> Result<Secret, KxError> {
        check(self.method, peer_public).unwrap_or(Err(KxError::Invalid))?;
        let shared = self
            .group
            .field
            .power(peer_public, self.exponent.expose())
            .map_err(|_| KxError::Invalid)?;
        Ok(Secret::new(shared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator is 2 and the group is that of a safe prime: 2 has the order (p-1)/2 (RFC 3526: all primes are 7 mod 8).
    #[test]
    fn two_has_the_order_of_the_large_subgroup() {
        for group in [&G1536, &G2048, &G3072] {
            let mut half = group.field.prime.to_vec();
            let mut carry = 0;
            for byte in &mut half {
                (*byte, carry) = ((*byte >> 1) | carry, *byte << 7);
            }
            let one = group.field.power(&[2], &half).unwrap();
            assert_eq!(one.last(), Some(&1));
            assert!(one[..one.len() - 1].iter().all(|b| *b == 0));
        }
    }
}
