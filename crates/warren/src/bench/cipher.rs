//! The cipher alone: what no data plane can be faster than.

use std::time::{Duration, Instant};

use crypto::Provider;
use crypto::cipher::CipherSpec;
use crypto::native::Native;
use wire::registry::{Encr, Integ};

/// Plaintext of one packet, in bytes.
pub const PACKET: usize = 1400;

/// GB that AES-128-GCM seals in a second, on one core, in packets of [`PACKET`] bytes.
pub fn aes_128_gcm() -> Result<f64, String> {
    let spec = CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE };
    let cipher = Native.cipher(spec, &[7; 20], &[]).map_err(|unsupported| unsupported.0)?;
    let mut packet = vec![0; cipher.iv_len() + PACKET + cipher.icv_len()];
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < Duration::from_millis(300) {
        for _ in 0..256 {
            count += 1;
            cipher.seal(count, &[0; 8], None, &mut packet);
        }
    }
    Ok(count as f64 * PACKET as f64 / began.elapsed().as_secs_f64() / 1e9)
}
