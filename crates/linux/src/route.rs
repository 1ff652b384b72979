//! Links, addresses, routes and rules of one network namespace (rtnetlink).

mod address;
mod link;
mod monitor;
mod neighbour;
mod rule;
mod table;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;

pub use address::Address;
pub use link::{Link, NewLink};
pub use monitor::Monitor;
pub use rule::{Rule, RuleAction};
pub use table::{Found, Kind, LOCAL_TABLE, MAIN_TABLE, Route};

use crate::errno::Errno;
use crate::netlink::{self, Family, Socket};
use crate::raw::Ip;

/// Why a request to the routing tables failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel refused it, or did not answer.
    #[error("{what}: {source}")]
    Netlink {
        /// What was asked for.
        what: String,
        /// Its answer.
        source: netlink::Error,
    },
    /// There is no such interface.
    #[error("no interface {0} in this network namespace")]
    NoLink(String),
    /// There is no route.
    #[error("no route to {0}: add one, or a default route")]
    NoRoute(IpAddr),
    /// A name that cannot be one.
    #[error(
        "{0:?} cannot be the name of an interface: 1 to 15 bytes without slash, colon and blanks"
    )]
    Name(String),
}

impl Error {
    /// The kernel's error number, if it was the kernel that said no.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Netlink { source, .. } => source.errno(),
            _ => None,
        }
    }
}

/// A connection to the routing tables of one network namespace.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
}

impl Rtnl {
    /// Opens it in this thread's network namespace; it keeps to that one.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(Family::Route).map_err(failed("open"))?;
        Ok(Self { socket })
    }

    fn change(
        &mut self,
        what: impl Fn() -> String,
        kind: u16,
        flags: u16,
        body: &[u8],
    ) -> Result<(), Error> {
        self.socket
            .request(kind, flags, body)
            .map_err(|source| Error::Netlink { what: what(), source })
    }

    /// A change after which something is gone; success if it was not there.
    fn remove(&mut self, what: impl Fn() -> String, kind: u16, body: &[u8]) -> Result<(), Error> {
        match self.change(what, kind, 0, body) {
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENODEV)
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn dump(
        &mut self,
        what: &'static str,
        kind: u16,
        body: &[u8],
    ) -> Result<Vec<netlink::Message>, Error> {
        self.socket.dump(kind, body).map_err(failed(what))
    }
}

impl AsFd for Rtnl {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn failed(what: &'static str) -> impl Fn(netlink::Error) -> Error {
    move |source| Error::Netlink { what: what.to_owned(), source }
}

fn family(ip: Ip) -> u8 {
    match ip {
        Ip::V4 => libc::AF_INET as u8,
        Ip::V6 => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn check_name(name: &str) -> Result<(), Error> {
    let bad = |b: u8| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace();
    if name.is_empty() || name.len() > 15 || name.bytes().any(bad) {
        return Err(Error::Name(name.to_owned()));
    }
    Ok(())
}
