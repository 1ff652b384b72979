//! Chance, all of it from the seed.

use std::time::Duration;

use ike::rng::Rng;

/// A source of chance for one purpose. Different labels under one seed are independent, so that
/// one more throw in one place changes nothing elsewhere.
pub struct Dice(Rng);

impl Dice {
    /// The dice of a purpose.
    pub fn new(seed: u64, label: &str) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_be_bytes());
        for (at, byte) in label.bytes().enumerate() {
            let slot = &mut key[8 + at % 24];
            *slot = slot.rotate_left(3) ^ byte;
        }
        Self(Rng::new(key))
    }

    /// 32 bytes: the seed of a host.
    pub fn seed(&mut self) -> [u8; 32] {
        self.0.bytes()
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// A time from `least` to `most`.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let width = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX - 1);
        least + Duration::from_nanos(self.below(width + 1))
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_independent_and_seeds_repeat() {
        let throw = |seed, label| Dice::new(seed, label).below(u64::MAX);
        assert_eq!(throw(7, "net"), throw(7, "net"));
        assert_ne!(throw(7, "net"), throw(8, "net"));
        assert_ne!(throw(7, "net"), throw(7, "jobs"));
        let mut dice = Dice::new(1, "between");
        let (least, most) = (Duration::from_millis(2), Duration::from_millis(3));
        assert!((0..1000).all(|_| (least..=most).contains(&dice.between(least, most))));
        assert!((0..1000).all(|_| !dice.chance(0) && dice.chance(1000)));
    }
}
