//! Pure functions of a pair of addresses: both of its hosts compute the same.

use std::net::IpAddr;

/// One.
pub const MILLION: u64 = 1_000_000;

/// Whether `local` initiates and rekeys first. Of each pair exactly one does; over a fleet the
/// work is spread evenly, which "the lower address" would not do.
pub fn owns(local: IpAddr, remote: IpAddr) -> bool {
    (hash(local, remote) & 1 == 0) == (local < remote)
}

/// A well spread number of the pair, the same on both sides.
pub fn hash(a: IpAddr, b: IpAddr) -> u64 {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let mix_address = |h: u64, a: IpAddr| {
        let bits = match a {
            IpAddr::V4(a) => u128::from(u32::from(a)),
            IpAddr::V6(a) => u128::from(a),
        };
        mix(mix(h ^ (bits >> 64) as u64) ^ bits as u64)
    };
    mix_address(mix_address(0x5741_5252_454e, low), high)
}

/// `hash` as parts per million, for slots within a period.
pub fn slot(a: IpAddr, b: IpAddr) -> u64 {
    (hash(a, b) >> 1) % MILLION
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
pub fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_owns_a_pair_and_work_is_spread() {
        let host = |n: u8| IpAddr::from([10, 0, 0, n]);
        for a in 1..=40 {
            let owned = (1..=40).filter(|&b| a != b && owns(host(a), host(b))).count();
            assert!((8..=31).contains(&owned), "10.0.0.{a} owns {owned} of 39");
            for b in (1..=40).filter(|&b| a != b) {
                assert_ne!(owns(host(a), host(b)), owns(host(b), host(a)));
                assert_eq!(slot(host(a), host(b)), slot(host(b), host(a)));
            }
        }
    }
}
