//! The cryptography of a handshake alone: what one side of it cannot do without.

use std::time::Duration;

use crypto::Provider;
use crypto::native::Native;
use crypto::sign::choose;
use linux::clock::thread_cpu;
use wire::registry::{HashAlg, Ke};

use crate::args::Suite;

/// Each operation is repeated for this long, at least.
const FOR: Duration = Duration::from_millis(150);

/// CPU time of one side: a private value, the agreement; with certificates one signature made and one checked. A chain that
/// was seen before is not checked again, so that it is not counted.
pub fn one_side(suite: Suite, auth: &ike::Auth) -> Result<Duration, String> {
    let method = match suite {
        Suite::Modp2048Rsa3072 => Ke::MODP_2048,
        Suite::X25519P256 | Suite::X25519Psk => Ke::CURVE25519,
    };
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let other = Native.kx(method, &[1; 64]).map_err(|e| text(&e))?.public();
    let mut seed = 1u64;
    let mut cost = mean(|| {
        seed += 1;
        let mut bytes = [2; 64];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let own = Native.kx(method, &bytes).map_err(|e| text(&e))?;
        own.agree(&other).map(drop).map_err(|e| text(&e))
    })?;
    if let ike::Auth::Certificate(credentials) = auth {
        let (key, octets) = (&credentials.key, [3; 600]);
        let scheme = choose(key.kind(), &[HashAlg::SHA2_256]).ok_or("no way to sign")?;
        let signature = key.sign(scheme, &octets).map_err(|e| text(&e))?;
        cost += mean(|| key.sign(scheme, &octets).map(drop).map_err(|e| text(&e)))?;
        let spki = key.spki();
        cost += mean(|| Native.verify(scheme, &spki, &octets, &signature).map_err(|e| text(&e)))?;
    }
    Ok(cost)
}

fn mean(mut operation: impl FnMut() -> Result<(), String>) -> Result<Duration, String> {
    operation()?;
    let (began, mut count) = (thread_cpu(), 0u32);
    loop {
        operation()?;
        count += 1;
        let used = thread_cpu().saturating_sub(began);
        if used >= FOR {
            return Ok(used / count);
        }
    }
}
