//! Randomness from one seed: SPIs, nonces, private values, jitter. A run is replayed from its seed.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// A cryptographically secure generator (ChaCha20), seeded once: by the OS on a real host, by the world in a simulation.
#[derive(Clone)]
pub struct Rng(ChaCha20Rng);

impl Rng {
    /// From 32 secret bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }

    /// The next 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound` (0 if `bound` is 0); the bias of the reduction is below 2^-32 for bounds below 2^32.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.next_u64() % bound }
    }

    /// A generator of its own for another purpose.
    pub fn fork(&mut self) -> Self {
        Self::new(self.bytes())
    }
}
