//! TUN and TAP devices: packets or frames to and from this host's own stack.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::fs::{Mode, OFlags};

use crate::errno::{Errno, explain, of};
use crate::sys;

pub mod vnet;

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

impl Error {
    /// The device is not there any more; else it was about one packet.
    pub fn is_gone(&self) -> bool {
        // EFAULT: it went while it was read from; the buffer is always a good one.
        let gone = [Errno::EBADFD, Errno::EBADF, Errno::ENODEV, Errno::EFAULT];
        matches!(self, Self::Call { errno, .. } if gone.contains(errno))
    }

    /// The driver does not know such packets.
    pub fn is_not_understood(&self) -> bool {
        matches!(self, Self::Call { errno: Errno::EINVAL, .. })
    }
}

/// An open TUN device (or one queue of it). Without [`Tun::set_persistent`] it is gone when it is dropped.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    offload: Offload,
}

/// What the stack leaves to a device, and takes from it. Every packet has a [`vnet`] header then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Offload {
    /// Nothing: packets as they are on the wire.
    #[default]
    None,
    /// Checksums and the segmentation of TCP.
    Tcp,
    /// That of UDP too (Linux 6.2).
    TcpAndUdp,
}

/// How to open a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// More than one queue can be opened, each by an `open` of its own; all must say so.
    pub multi_queue: bool,
    /// Packets come with checksums and segmentation undone, as far as the kernel has it: see [`Tun::offload`].
    pub offload: bool,
    /// A TAP device: frames with their Ethernet headers, instead of IP packets.
    pub ethernet: bool,
}

/// Whether devices can be made here: asks the driver, and makes none.
pub fn probe() -> Result<(), Error> {
    rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map(drop)
        .map_err(|e| Error::NoDriver(of(e)))
}

const IFF_TUN: u16 = 1;
const IFF_TAP: u16 = 2;
const IFF_NO_PI: u16 = 0x1000;
const IFF_MULTI_QUEUE: u16 = 0x100;
const IFF_VNET_HDR: u16 = 0x4000;
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
        let mode = IFF_NO_PI
            | if options.ethernet { IFF_TAP } else { IFF_TUN }
            | if options.multi_queue { IFF_MULTI_QUEUE } else { 0 }
            | if options.offload { IFF_VNET_HDR } else { 0 };
        ifreq[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&mode.to_ne_bytes());
        sys::tun_set_iff(fd.as_fd(), &mut ifreq).map_err(|errno| match errno {
            Errno::EBUSY => Error::Busy(name.to_owned()),
            errno => Error::Call { name: name.to_owned(), call: "TUNSETIFF", errno },
        })?;
        let offload = if options.offload { switch_on(fd.as_fd()) } else { Offload::None };
        if options.offload && offload == Offload::None {
            // Headers before every packet, and nothing gained by them.
            drop(fd);
            return Self::open(name, Options { offload: false, ..options });
        }
        Ok(Self { fd, name: crate::netlink::text(&ifreq[..FLAGS_AT]), offload })
    }

    /// A device that another process has opened; `None` if it is none of ours.
    pub fn adopt(fd: OwnedFd) -> Option<Self> {
        let mut ifreq = [0; sys::IFREQ_LEN];
        sys::tun_get_iff(fd.as_fd(), &mut ifreq).ok()?;
        let flags = u16::from_ne_bytes([ifreq[FLAGS_AT], ifreq[FLAGS_AT + 1]]);
        let plain = flags & (IFF_TUN | IFF_NO_PI) == IFF_TUN | IFF_NO_PI;
        let blocks = !rustix::fs::fcntl_getfl(&fd).ok()?.contains(OFlags::NONBLOCK);
        let name = crate::netlink::text(&ifreq[..FLAGS_AT]);
        if !plain || blocks {
            return None;
        }
        // Of a device with headers the flags are not told, but can be set again.
        let offload = match flags & IFF_VNET_HDR {
            0 => Offload::None,
            _ => Some(switch_on(fd.as_fd())).filter(|offload| *offload != Offload::None)?,
        };
        Some(Self { fd, name, offload })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the stack leaves to this device.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Whether the device stays when nobody has it open.
    pub fn set_persistent(&self, on: bool) -> Result<(), Error> {
        sys::tun_set_persist(self.fd.as_fd(), on)
            .map_err(|errno| self.error("TUNSETPERSIST", errno))
    }

    /// Reads one packet that the stack sends into the device; `None` if there is none now. A packet longer than
    /// `buffer` is cut off: give it the device's MTU at least, or with offload 65,536 bytes and a header.
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
        let written = match self.offload {
            Offload::None => self.write_parts(&[IoSlice::new(packet)]),
            _ => self.write_parts(&[IoSlice::new(&vnet::PLAIN), IoSlice::new(packet)]),
        };
        match written {
            Err(error) if error.is_not_understood() => Ok(false),
            other => other,
        }
    }

    /// The same with one packet in pieces; with offload the first of them is a [`vnet`] header. What the driver makes
    /// no sense of is an error, which [`is_not_understood`](Error::is_not_understood).
    pub fn write_parts(&self, parts: &[IoSlice<'_>]) -> Result<bool, Error> {
        match rustix::io::writev(&self.fd, parts) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {
                Ok(false)
            }
            Err(rustix::io::Errno::IO | rustix::io::Errno::NOMEM) => Ok(false),
            Err(error) => Err(self.error("write", of(error))),
        }
    }

    fn error(&self, call: &'static str, errno: Errno) -> Error {
        Error::Call { name: self.name.clone(), call, errno }
    }
}

/// As much of it as this kernel has.
fn switch_on(fd: BorrowedFd<'_>) -> Offload {
    const TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    const UDP: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let width = vnet::LEN as i32;
    // The short header, whatever a former owner has chosen.
    if sys::tun_set_header_len(fd, width).is_err() {
        return Offload::None;
    }
    if sys::tun_set_offload(fd, TCP | UDP).is_ok() {
        return Offload::TcpAndUdp;
    }
    if sys::tun_set_offload(fd, TCP).is_ok() { Offload::Tcp } else { Offload::None }
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
    fn one_packet_is_told_from_the_device() {
        let error = |errno| Error::Call { name: "t".into(), call: "read", errno };
        assert!(error(Errno::EBADFD).is_gone() && error(Errno::ENODEV).is_gone());
        assert!(!error(Errno::EINVAL).is_gone() && error(Errno::EINVAL).is_not_understood());
        assert!(!error(Errno::ENOMEM).is_gone() && !error(Errno::EBADFD).is_not_understood());
    }

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
