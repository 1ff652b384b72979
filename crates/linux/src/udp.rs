//! UDP sockets for IKE and for ESP in UDP, on every address of the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::datagram::{Outgoing, RecvBatch, Socket};
use crate::errno::{Errno, explain, of};
use crate::raw::{Ip, large_buffers, set_mark};
use crate::{sys, xfrm};

/// Why a socket could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another process has the port.
    #[error(
        "UDP port {port} ({ip:?}) is in use: another IKE daemon runs on this host; stop it (`ss -ulpn 'sport = :{port}'` names it)"
    )]
    InUse {
        /// Which family.
        ip: Ip,
        /// Which port.
        port: u16,
    },
    /// The host has no such IP version: nothing to worry about where it is not used.
    #[error("this host has no {0:?}")]
    NoFamily(Ip),
    /// Anything else.
    #[error("UDP {ip:?} port {port}, {call}: {}", explain(*.errno))]
    Call {
        /// Which family.
        ip: Ip,
        /// Which port.
        port: u16,
        /// Which call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
}

/// A non-blocking UDP socket of one IP version, bound to the wildcard address.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    ip: Ip,
    port: u16,
}

impl UdpSocket {
    /// Binds `port` in this thread's network namespace. What it sends carries the firewall mark `mark`; XFRM
    /// policies of this host do not apply to it. A second socket on the same port is refused.
    pub fn bind(ip: Ip, port: u16, mark: u32) -> Result<Self, Error> {
        let fail = |call: &'static str| {
            move |errno| match errno {
                Errno::EADDRINUSE => Error::InUse { ip, port },
                Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL => Error::NoFamily(ip),
                errno => Error::Call { ip, port, call, errno },
            }
        };
        let (family, wildcard): (_, SocketAddr) = match ip {
            Ip::V4 => (AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into()),
            Ip::V6 => (AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into()),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))
            .map_err(|e| fail("socket")(of(e)))?;
        set_mark(&fd, mark).map_err(fail("SO_MARK"))?;
        let options: &[(i32, i32)] = match ip {
            Ip::V4 => &[
                (libc::IPPROTO_IP, libc::IP_PKTINFO),
                (libc::IPPROTO_IP, libc::IP_RECVTOS),
                (libc::IPPROTO_IP, libc::IP_RECVTTL),
            ],
            Ip::V6 => &[
                (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
            ],
        };
        for (level, option) in options {
            sys::set_option_int(fd.as_fd(), *level, *option, 1).map_err(fail("setsockopt"))?;
        }
        if ip == Ip::V6 {
            sockopt::set_ipv6_v6only(&fd, true).map_err(|e| fail("IPV6_V6ONLY")(of(e)))?;
        }
        match xfrm::bypass(&fd, ip) {
            Ok(()) | Err(xfrm::Error::Unsupported) => {}
            Err(error) => return Err(fail("XFRM policy")(error.errno().unwrap_or(Errno::EIO))),
        }
        large_buffers(&fd);
        rustix::net::bind(&fd, &wildcard).map_err(|e| fail("bind")(of(e)))?;
        let socket = Socket::new(fd, ip == Ip::V6).map_err(fail("setsockopt"))?;
        Ok(Self { socket, ip, port })
    }

    /// An ordinary socket on any free port of `address`: no mark, and policies apply.
    pub fn plain(ip: Ip, address: IpAddr) -> Result<Self, Error> {
        let fail = |call: &'static str| move |errno| Error::Call { ip, port: 0, call, errno };
        let family = match ip {
            Ip::V4 => AddressFamily::INET,
            Ip::V6 => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))
            .map_err(|e| fail("socket")(of(e)))?;
        large_buffers(&fd);
        rustix::net::bind(&fd, &SocketAddr::new(address, 0)).map_err(|e| fail("bind")(of(e)))?;
        let bound = rustix::net::getsockname(&fd).map_err(|e| fail("getsockname")(of(e)))?;
        let port = SocketAddr::try_from(bound).map_or(0, |bound| bound.port());
        let socket = Socket::new(fd, ip == Ip::V6).map_err(fail("setsockopt"))?;
        Ok(Self { socket, ip, port })
    }

    /// A socket that [`UdpSocket::bind`] has made in another process; `None` if it is none of those.
    fn adopt(fd: OwnedFd) -> Option<Self> {
        let datagrams = sockopt::socket_type(&fd).ok()? == SocketType::DGRAM;
        let address = SocketAddr::try_from(rustix::net::getsockname(&fd).ok()?).ok()?;
        let ip = Ip::of(address.ip());
        let socket = Socket::new(fd, ip == Ip::V6).ok()?;
        (datagrams && address.ip().is_unspecified()).then_some(Self {
            socket,
            ip,
            port: address.port(),
        })
    }

    /// Whether datagrams of one length from one sender come as one, see [`Received::segment`](crate::datagram::Received::segment).
    /// Best effort: a kernel before 5.0 has it not.
    pub(crate) fn set_coalesced(&self, on: bool) {
        let _ = sys::set_option_int(self.as_fd(), libc::SOL_UDP, libc::UDP_GRO, i32::from(on));
    }

    /// Which IP version.
    pub fn ip(&self) -> Ip {
        self.ip
    }

    /// Which port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends in order; see [`Outgoing`]. What cannot be sent is reported with its index and skipped. Returns how many went out.
    pub fn send(&self, items: &[Outgoing<'_>], failed: impl FnMut(usize, Errno)) -> usize {
        self.socket.send(items, failed)
    }

    /// Receives what is there; 0 if nothing is.
    pub fn receive(&self, batch: &mut RecvBatch) -> Result<usize, Error> {
        let (ip, port) = (self.ip, self.port);
        self.socket.receive(batch).map_err(|errno| Error::Call {
            ip,
            port,
            call: "recvmmsg",
            errno,
        })
    }

    /// The same, but waits for the first one; 0 if none comes within `limit`.
    pub fn receive_within(&self, batch: &mut RecvBatch, limit: Duration) -> Result<usize, Error> {
        let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
        let limit = Timespec::try_from(limit).ok();
        match rustix::event::poll(&mut ready, limit.as_ref()) {
            Ok(0) | Err(_) => Ok(0),
            Ok(_) => self.receive(batch),
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The UDP sockets of a host: each port in each IP version that the host has.
#[derive(Debug)]
pub struct Ports {
    sockets: Vec<UdpSocket>,
}

/// Why a datagram was not sent. IKE sends again; a line in a debug log is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No socket has this local port in this IP version.
    #[error("no UDP socket on local port {1} ({0:?})")]
    NoSocket(Ip, u16),
    /// The kernel refused.
    #[error("{}", explain(*.0))]
    Errno(Errno),
}

impl Ports {
    /// Binds `ports` in this thread's network namespace, in every IP version that there is; see [`UdpSocket::bind`].
    pub fn open(ports: &[u16], mark: u32) -> Result<Self, Error> {
        let mut sockets = Vec::new();
        for ip in [Ip::V4, Ip::V6] {
            for port in ports {
                match UdpSocket::bind(ip, *port, mark) {
                    Ok(socket) => sockets.push(socket),
                    Err(Error::NoFamily(Ip::V6)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Self { sockets })
    }

    /// Those of another process; `None` if one is no such socket.
    pub(crate) fn adopt(fds: impl Iterator<Item = OwnedFd>) -> Option<Self> {
        let sockets = fds.map(UdpSocket::adopt).collect::<Option<_>>()?;
        Some(Self { sockets })
    }

    /// All of them.
    pub fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// The one of a port.
    pub fn get(&self, ip: Ip, port: u16) -> Option<&UdpSocket> {
        self.sockets.iter().find(|s| s.ip == ip && s.port == port)
    }

    /// Sends a UDP payload as it is from `local` (address and port) to `remote`. It may be fragmented. Where there is no room
    /// for it, it is not sent: whoever speaks IKE says it again, and others shall not wait meanwhile.
    pub fn send(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let ip = Ip::of(remote.ip());
        let socket = self.get(ip, local.port()).ok_or(SendError::NoSocket(ip, local.port()))?;
        let from = Some(local.ip()).filter(|address| !address.is_unspecified());
        let mut outcome = Ok(());
        let item = Outgoing { local: from, ..Outgoing::new(remote, bytes) };
        socket.socket.send_now(&[item], |_, errno| outcome = Err(SendError::Errno(errno)));
        outcome
    }
}
