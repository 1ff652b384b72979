//! Whether this kernel can be a data plane: it is asked, nothing is guessed from versions.

use ipsec::sa::SaKey;
use wire::esp::Spi;

use super::connection::Xfrm;
use super::encode;
use super::{Error, decode};
use crate::errno::{Errno, explain};
use crate::raw::Ip;

/// What the kernel lacks to be the data plane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// It was built without XFRM netlink.
    #[error("this kernel has no XFRM (CONFIG_XFRM_USER)")]
    Xfrm,
    /// ESP of one IP version is missing.
    #[error("this kernel has no ESP for {}: load module {}, or build it with {}",
        ["IPv4", "IPv6"][*.0 as usize], ["esp4", "esp6"][*.0 as usize], ["CONFIG_INET_ESP", "CONFIG_INET6_ESP"][*.0 as usize])]
    Esp(Ip),
    /// The cipher that every peer has is missing.
    #[error(
        "this kernel has no AES-GCM for ESP: load modules gcm, ghash and seqiv, or build it with CONFIG_CRYPTO_GCM"
    )]
    Algorithm,
    /// This process may not ask.
    #[error("not permitted to ask the kernel: {}", explain(*.0))]
    Denied(Errno),
    /// Anything else that it says.
    #[error("the kernel refused an SA for trial: {0}")]
    Other(Error),
}

/// The name of the SA for trial, and of what is only there to be removed: an SPI that is never on the wire (RFC 4303 2.1).
pub(crate) const RESERVED_SPI: Spi = Spi(255);

/// Whether the kernel has ESP for IPv4 and IPv6 with AES-GCM (RFC 8221: the one that must be there). It installs
/// an SA between two documentation addresses in this thread's network namespace, and takes it away.
///
/// A kernel without IPv6 is not asked for ESP in IPv6.
pub fn probe() -> Result<(), Missing> {
    let mut xfrm = Xfrm::open().map_err(|error| missing(error, Ip::V4))?;
    for ip in [Ip::V4, Ip::V6] {
        match one(&mut xfrm, ip) {
            Err(error) if ip == Ip::V6 && error.errno() == Some(Errno::EAFNOSUPPORT) => {}
            other => other.map_err(|error| missing(error, ip))?,
        }
    }
    Ok(())
}

fn one(xfrm: &mut Xfrm, ip: Ip) -> Result<(), Error> {
    // RFC 5737 and RFC 3849.
    let (src, dst) = match ip {
        Ip::V4 => ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()),
        Ip::V6 => {
            ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into())
        }
    };
    let key = SaKey { dst, spi: RESERVED_SPI };
    let added = xfrm.add_sa(&encode::trial_sa(src, key));
    match added {
        // Left behind by one that was killed, or there at this moment from another.
        Err(error) if error.errno() == Some(Errno::EEXIST) => {}
        other => other?,
    }
    match xfrm.sa(key)? {
        Some(there) if decode::state(&there).is_some_and(|state| state.is_ours()) => {
            xfrm.remove_sa(key)
        }
        _ => Ok(()),
    }
}

fn missing(error: Error, ip: Ip) -> Missing {
    match error.errno() {
        None if error == Error::Unsupported => Missing::Xfrm,
        Some(errno @ (Errno::EPERM | Errno::EACCES)) => Missing::Denied(errno),
        // xfrm_init_state: no such type of transform.
        Some(Errno::EPROTONOSUPPORT) => Missing::Esp(ip),
        // attach_aead: no such name; esp_init_aead: no such module.
        Some(Errno::ENOSYS | Errno::ENOENT) => Missing::Algorithm,
        _ => Missing::Other(error),
    }
}
