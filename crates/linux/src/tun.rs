//! TUN devices: IP packets to and from this host's own stack.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::errno::{Errno, explain, of};
use crate::sys;

/// Why there is no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `/dev/net/tun` is missing.
    #[error("/dev/net/tun: {}; load the module (`modprobe tun`) or, in a container, pass the device in", explain(*.0))]
    NoDriver(Errno),
    /// Names are 1 to 15 bytes without `/`, blanks and colons.
    #[error(
        "{0:?} cannot be the name of an interface: 1 to 15 bytes without slash, colon and blanks"
    )]
    Name(String),
    /// Somebody else has a device of this name.
    #[error(
        "interface {0} is in use by another process: another daemon is running here, or choose another name"
    )]
    Busy(String),
    /// Anything else.
    #[error("TUN device {name}, {call}: {}", explain(*.errno))]
    Call {
        /// Which device.
        name: String,
        /// Which call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
}

/// An open TUN device (or one queue of it). Without [`Tun::set_persistent`] it is gone when it is dropped.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
}

/// How to open a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// More than one queue can be opened, each by an `open` of its own; all must say so.
    pub multi_queue: bool,
}

/// Whether devices can be made here: asks the driver, and makes none.
pub fn probe() -> Result<(), Error> {
    rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map(drop)
        .map_err(|e| Error::NoDriver(of(e)))
}

const IFF_TUN: u16 = 1;
const IFF_NO_PI: u16 = 0x1000;
const IFF_MULTI_QUEUE: u16 = 0x100;
const FLAGS_AT: usize = 16;

impl Tun {
    /// Makes the device `name`, or attaches to a persistent one, in this thread's network namespace. Non-blocking.
    pub fn open(name: &str, options: Options) -> Result<Self, Error> {
        if name.is_empty()
            || name.len() > 15
            || name.bytes().any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace() || b == 0)
        {
            return Err(Error::Name(name.to_owned()));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
            .map_err(|e| Error::NoDriver(of(e)))?;
        let mut ifreq = [0; sys::IFREQ_LEN];
        ifreq[..name.len()].copy_from_slice(name.as_bytes());
        let mode = IFF_TUN | IFF_NO_PI | if options.multi_queue { IFF_MULTI_QUEUE } else { 0 };
        ifreq[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&mode.to_ne_bytes());
        sys::tun_set_iff(fd.as_fd(), &mut ifreq).map_err(|errno| match errno {
            Errno::EBUSY => Error::Busy(name.to_owned()),
            errno => Error::Call { name: name.to_owned(), call: "TUNSETIFF", errno },
        })?;
        Ok(Self { fd, name: crate::netlink::text(&ifreq[..FLAGS_AT]) })
    }

    /// A device that another process has opened; `None` if it is none of ours.
    pub fn adopt(fd: OwnedFd) -> Option<Self> {
        let mut ifreq = [0; sys::IFREQ_LEN];
        sys::tun_get_iff(fd.as_fd(), &mut ifreq).ok()?;
        let flags = u16::from_ne_bytes([ifreq[FLAGS_AT], ifreq[FLAGS_AT + 1]]);
        let plain = flags & (IFF_TUN | IFF_NO_PI) == IFF_TUN | IFF_NO_PI;
        let blocks = !rustix::fs::fcntl_getfl(&fd).ok()?.contains(OFlags::NONBLOCK);
        let name = crate::netlink::text(&ifreq[..FLAGS_AT]);
        (plain && !blocks).then_some(Self { fd, name })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device stays when nobody has it open.
    pub fn set_persistent(&self, on: bool) -> Result<(), Error> {
        sys::tun_set_persist(self.fd.as_fd(), on)
            .map_err(|errno| self.error("TUNSETPERSIST", errno))
    }

    /// Reads one packet that the stack sends into the device; `None` if there is none now. A packet longer than
    /// `buffer` is cut off: give it the device's MTU at least.
    pub fn read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        match rustix::io::read(&self.fd, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(self.error("read", of(error))),
        }
    }

    /// Hands one packet to the stack. `false` if the stack did not take it (queue full, device down, not an
    /// IP packet): it is lost, as on any device.
    pub fn write(&self, packet: &[u8]) -> Result<bool, Error> {
        match rustix::io::write(&self.fd, packet) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {
                Ok(false)
            }
            Err(rustix::io::Errno::IO | rustix::io::Errno::INVAL | rustix::io::Errno::NOMEM) => {
                Ok(false)
            }
            Err(error) => Err(self.error("write", of(error))),
        }
    }

    fn error(&self, call: &'static str, errno: Errno) -> Error {
        Error::Call { name: self.name.clone(), call, errno }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "sixteen-bytes-ab", "a/b", "a b", "a:b"] {
            assert_eq!(
                Tun::open(name, Options::default()).unwrap_err(),
                Error::Name(name.to_owned())
            );
        }
    }
}
