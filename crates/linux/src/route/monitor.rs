//! Notices that links, addresses, routes or rules changed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::Error;
use crate::errno::of;
use crate::netlink;

/// A subscription to the changes of one network namespace. It tells that something changed, not what: look again.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
}

// RTMGRP_* of linux/rtnetlink.h.
const LINK: u32 = 0x1;
const IPV4_ADDRESS: u32 = 0x10;
const IPV4_ROUTE: u32 = 0x40;
const IPV4_RULE: u32 = 0x80;
const IPV6_ADDRESS: u32 = 0x100;
const IPV6_ROUTE: u32 = 0x400;

impl Monitor {
    /// Subscribes, in this thread's network namespace. Non-blocking: wait until it is readable.
    pub fn open() -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .map_err(|e| error("socket", e))?;
        let groups = LINK | IPV4_ADDRESS | IPV4_ROUTE | IPV4_RULE | IPV6_ADDRESS | IPV6_ROUTE;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(|e| error("bind", e))?;
        Ok(Self { fd })
    }

    /// Whether anything changed since the last call. A queue that overflowed counts as a change.
    pub fn changed(&self) -> bool {
        let mut buffer = [0; 8192];
        let mut changed = false;
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                Ok((_, 0)) => return changed,
                Ok(_) => changed = true,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn error(call: &'static str, errno: rustix::io::Errno) -> Error {
    let source = netlink::Error::Socket { call, errno: of(errno) };
    Error::Netlink { what: "watch for changes".to_owned(), source }
}
