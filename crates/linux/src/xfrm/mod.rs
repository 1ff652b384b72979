//! The kernel's IPsec, driven over netlink: SAs, policies, events, and all of it together as a data plane.
//!
//! [`Kernel`] is the [`ipsec::dataplane::Dataplane`] of a host whose kernel has ESP; [`probe`] asks whether it has.
//! [`Xfrm`] is the connection below it, enough by itself for a guard that only blocks and allows.

mod algorithm;
mod backend;
mod connection;
mod decode;
mod encode;
mod event;
mod policy;
mod probe;
mod settings;
pub(crate) mod split;
mod state;
mod uapi;

use std::os::fd::{AsFd, OwnedFd};

use nix::libc;

use crate::errno::{Errno, explain};
use crate::netlink;
use crate::raw::Ip;
use crate::sys;

pub use backend::Kernel;
pub use connection::{DefaultAction, Defaults, Xfrm};
pub use policy::{Action, Direction, Policy, PortMask, Selector, Template, everything};
pub use probe::{Missing, probe};

/// Reqids of this program's SAs. Entries with any other belong to somebody else and are left alone.
pub const REQIDS: std::ops::RangeInclusive<u32> = 0x5741_0000..=0x5741_ffff;

/// Indexes of this program's policies. Not every policy has a reqid, but every one has an index, which whoever
/// installs it may choose (Linux 3.17); the kernel's own count from zero in steps of 8 and never come here.
pub const POLICY_INDEXES: std::ops::RangeInclusive<u32> = 0x5700_0000..=0x57ff_ffff;

/// Why the kernel did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was built without XFRM.
    #[error("this kernel has no XFRM: it cannot refuse cleartext from protected peers by itself")]
    Unsupported,
    /// It refused, or did not answer.
    #[error(transparent)]
    Netlink(netlink::Error),
    /// A socket option was refused.
    #[error("per-socket XFRM option: {}", explain(*.0))]
    Option(Errno),
}

impl Error {
    /// The kernel's error number.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Unsupported => None,
            Self::Netlink(error) => error.errno(),
            Self::Option(errno) => Some(*errno),
        }
    }
}

impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Self {
        match error {
            netlink::Error::Unsupported(_) => Self::Unsupported,
            other => Self::Netlink(other),
        }
    }
}

/// Lets a socket's packets pass in the clear both ways, whatever the policies of the host say.
pub fn bypass(socket: &OwnedFd, ip: Ip) -> Result<(), Error> {
    let (level, name) = match ip {
        Ip::V4 => (libc::IPPROTO_IP, libc::IP_XFRM_POLICY),
        Ip::V6 => (libc::IPPROTO_IPV6, libc::IPV6_XFRM_POLICY),
    };
    for direction in [Direction::In, Direction::Out] {
        let all = everything(ip);
        let policy = Policy::new(direction, 0, Selector::between(all, all), Action::Allow);
        let info = encode::policy(&policy, 0);
        sys::set_option(socket.as_fd(), level, name, info.bytes()).map_err(option)?;
    }
    Ok(())
}

/// Lets the kernel take ESP out of the UDP datagrams of a socket (RFC 3948); all others are still received.
///
/// For the socket on port 4500, where the kernel is the data plane. IPv6 needs Linux 5.8.
pub fn decapsulate(socket: impl AsFd) -> Result<(), Error> {
    // UDP_ENCAP of <linux/udp.h>.
    const UDP_ENCAP: i32 = 100;
    let how = i32::from(uapi::ENCAP_ESPINUDP);
    sys::set_option_int(socket.as_fd(), libc::IPPROTO_UDP, UDP_ENCAP, how).map_err(option)
}

/// Packets that the kernel's IPsec dropped since boot, by its own names for the reasons, in this thread's network
/// namespace; other programs' SAs count too. Empty where the kernel does not count (CONFIG_XFRM_STATISTICS).
pub fn statistics() -> Vec<(&'static str, u64)> {
    settings::Counters::open().read()
}

fn option(errno: Errno) -> Error {
    match errno {
        Errno::ENOPROTOOPT | Errno::EOPNOTSUPP => Error::Unsupported,
        errno => Error::Option(errno),
    }
}
