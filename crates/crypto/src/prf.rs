//! prf+ (RFC 7296 2.13).

use wire::registry::Prf;

use crate::Secret;
use crate::provider::{Provider, Unsupported};

/// prf+: `len` bytes of key material, `T1 | T2 | …` with `Tn = prf(key, Tn-1 | seed | n)`.
///
/// At most 255 blocks, as the RFC bounds it; more is a caller's error and refused.
pub fn prf_plus(
    provider: &dyn Provider,
    prf: Prf,
    key: &[u8],
    seed: &[&[u8]],
    len: usize,
) -> Result<Secret, Unsupported> {
    let block_len = provider.prf_len(prf)?;
    if len > 255 * block_len {
        return Err(Unsupported(format!("{len} bytes of prf+, more than 255 blocks,")));
    }
    // Room for all blocks: growing would leave copies behind.
    let mut out = Vec::with_capacity(len + block_len);
    let mut block = Secret::default();

    for counter in 1..=u8::MAX {
        if out.len() >= len {
            break;
        }
        let number = [counter];
        let mut parts = vec![block.expose()];
        parts.extend_from_slice(seed);
        parts.push(&number);
        block = provider.prf(prf, key, &parts)?;
        out.extend_from_slice(block.expose());
    }
    out.truncate(len);
    Ok(Secret::new(out))
}
