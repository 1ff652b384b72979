//! Randomness from the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::errno::{Errno, explain, of};

/// The kernel gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("getrandom: {}; without it no key can be made", explain(*.0))]
pub struct Error(pub Errno);

/// 32 bytes from `getrandom(2)`; waits until the kernel's pool is initialised.
pub fn os_seed() -> Result<[u8; 32], Error> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        match getrandom(&mut seed[filled..], GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error(of(error))),
        }
    }
    Ok(seed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ() {
        assert_ne!(super::os_seed().unwrap(), super::os_seed().unwrap());
    }
}
