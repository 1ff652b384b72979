//! Raw sockets: ESP as IP protocol 50, and whole IP packets that go out as they are.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, ipproto, sockopt,
};

use crate::datagram::{HEADROOM, Outgoing, Received, RecvBatch, Socket};
use crate::errno::{Errno, explain, of};
use crate::{sys, xfrm};

/// IP version of a socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ip {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Ip {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::INET,
            Self::V6 => AddressFamily::INET6,
        }
    }
}

/// A raw socket could not be opened or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("raw {ip:?} socket, {call}: {}", explain(*.errno))]
pub struct Error {
    /// Which family.
    pub ip: Ip,
    /// Which call.
    pub call: &'static str,
    /// Its error number.
    pub errno: Errno,
}

/// A raw socket for ESP (protocol 50) of one IP version, on all addresses of the host.
#[derive(Debug)]
pub struct RawEsp {
    socket: Socket,
    ip: Ip,
}

impl RawEsp {
    /// Opens it in this thread's network namespace. What it sends carries the firewall mark `mark`; XFRM
    /// policies of this host do not apply to it.
    pub fn open(ip: Ip, mark: u32) -> Result<Self, Error> {
        let fd = raw_socket(ip, ipproto::ESP, mark)?;
        let on = |result: rustix::io::Result<()>| {
            result.map_err(|e| Error { ip, call: "setsockopt", errno: of(e) })
        };
        match ip {
            // The IP header that a raw IPv4 socket delivers says the rest.
            Ip::V4 => {}
            Ip::V6 => {
                for option in
                    [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS]
                {
                    sys::set_option_int(fd.as_fd(), libc::IPPROTO_IPV6, option, 1)
                        .map_err(|errno| Error { ip, call: "setsockopt", errno })?;
                }
                hear_errors(&fd).map_err(|errno| Error { ip, call: "IPV6_RECVERR", errno })?;
            }
        }
        large_buffers(&fd);
        on(sockopt::set_socket_broadcast(&fd, false))?;
        let socket = Socket::new(fd, ip == Ip::V6).map_err(|errno| Error {
            ip,
            call: "setsockopt",
            errno,
        })?;
        Ok(Self { socket, ip })
    }

    /// A socket that [`RawEsp::open`] has made in another process; `None` if it is none of those.
    pub(crate) fn adopt(fd: OwnedFd) -> Option<Self> {
        let ip = match sockopt::socket_domain(&fd).ok()? {
            AddressFamily::INET => Ip::V4,
            AddressFamily::INET6 => Ip::V6,
            _ => return None,
        };
        let raw = sockopt::socket_type(&fd).ok()? == SocketType::RAW;
        let esp = sockopt::socket_protocol(&fd).ok()? == Some(ipproto::ESP);
        if ip == Ip::V6 {
            hear_errors(&fd).ok()?;
        }
        let socket = Socket::new(fd, ip == Ip::V6).ok()?;
        (raw && esp).then_some(Self { socket, ip })
    }

    /// Which IP version.
    pub(crate) fn ip(&self) -> Ip {
        self.ip
    }

    /// Sends ESP packets (from the SPI on) in order; see [`Outgoing`]. What cannot be sent is reported with its
    /// index and skipped: `EMSGSIZE` if it must not be fragmented and is too long. Returns how many went out.
    pub fn send(&self, items: &[Outgoing<'_>], failed: impl FnMut(usize, Errno)) -> usize {
        self.socket.send(items, failed)
    }

    /// Receives what is there; 0 if nothing is. Read it with [`RawEsp::packets`].
    pub fn receive(&self, batch: &mut RecvBatch) -> Result<usize, Error> {
        let outcome = self.socket.receive(batch);
        // Woken for something else than a packet.
        if self.ip == Ip::V6 && !matches!(outcome, Ok(1..)) {
            self.socket.drain_errors();
        }
        outcome.map_err(|errno| Error { ip: self.ip, call: "recvmmsg", errno })
    }

    /// The ESP packets of a batch that this socket received, to be worked on where they are: each in a buffer, and where
    /// in it the packet begins, behind at least [`HEADROOM`] bytes. Cut-off ones are left out.
    pub fn each<'a>(
        &self,
        batch: &'a mut RecvBatch,
    ) -> impl Iterator<Item = (Received<'static>, &'a mut [u8], usize)> {
        let ip = self.ip;
        batch.each().filter(|(r, _)| !r.truncated).filter_map(move |(received, buffer)| {
            let remote = SocketAddr::new(received.remote.ip(), 0);
            let (received, at) = match ip {
                Ip::V6 => (Received { remote, ..received }, HEADROOM),
                Ip::V4 => {
                    let whole = &buffer[HEADROOM..];
                    let stripped = strip_ipv4(Received { bytes: whole, ..received })?;
                    let header = whole.len() - stripped.bytes.len();
                    (Received { bytes: &[], ..stripped }, HEADROOM + header)
                }
            };
            Some((received, buffer, at))
        })
    }

    /// The ESP packets of a batch that this socket received; the IP header is taken off. Cut-off ones are left out.
    pub fn packets<'a>(&self, batch: &'a RecvBatch) -> impl Iterator<Item = Received<'a>> {
        let ip = self.ip;
        batch.iter().filter(|r| !r.truncated).filter_map(move |r| match ip {
            Ip::V4 => strip_ipv4(r),
            Ip::V6 => Some(Received { remote: SocketAddr::new(r.remote.ip(), 0), ..r }),
        })
    }
}

impl AsFd for RawEsp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends whole IP packets unchanged, by the routes of its mark.
#[derive(Debug)]
pub struct RawIp {
    socket: Socket,
}

impl RawIp {
    /// Opens it in this thread's network namespace.
    pub fn open(ip: Ip, mark: u32) -> Result<Self, Error> {
        // IPPROTO_RAW means "the header is included", and such a socket receives nothing.
        let fd = raw_socket(ip, ipproto::RAW, mark)?;
        let _ = sockopt::set_socket_send_buffer_size_force(&fd, BUFFER);
        let socket = Socket::new(fd, ip == Ip::V6).map_err(|errno| Error {
            ip,
            call: "setsockopt",
            errno,
        })?;
        Ok(Self { socket })
    }

    /// Sends packets of this socket's IP version, each with its destination. What cannot be sent is reported
    /// with its index and skipped: `EMSGSIZE` if it is too long for the device; it is never fragmented here.
    pub fn send(&self, packets: &[(IpAddr, &[u8])], failed: impl FnMut(usize, Errno)) -> usize {
        self.socket.send(&whole(packets), failed)
    }

    /// The same, but what finds no room is not sent: `EAGAIN`.
    pub fn send_now(&self, packets: &[(IpAddr, &[u8])], failed: impl FnMut(usize, Errno)) -> usize {
        self.socket.send_now(&whole(packets), failed)
    }
}

fn whole<'a>(packets: &[(IpAddr, &'a [u8])]) -> Vec<Outgoing<'a>> {
    packets.iter().map(|(dst, bytes)| Outgoing::new(SocketAddr::new(*dst, 0), bytes)).collect()
}

const BUFFER: usize = 4 << 20;

fn raw_socket(ip: Ip, protocol: Protocol, mark: u32) -> Result<OwnedFd, Error> {
    let fail = |call| move |errno| Error { ip, call, errno };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(ip.family(), SocketType::RAW, flags, Some(protocol))
        .map_err(|e| fail("socket")(of(e)))?;
    set_mark(&fd, mark).map_err(fail("SO_MARK"))?;
    match xfrm::bypass(&fd, ip) {
        Ok(()) | Err(xfrm::Error::Unsupported) => Ok(fd),
        Err(error) => Err(fail("XFRM policy")(error.errno().unwrap_or(Errno::EIO))),
    }
}

/// Without it the kernel ignores "packet too big" for a raw IPv6 socket that is not connected, and learns no path MTU.
/// With it the errors also wait in a queue of the socket, which [`RawEsp::receive`] empties.
fn hear_errors(fd: &OwnedFd) -> Result<(), Errno> {
    sys::set_option_int(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
}

pub(crate) fn set_mark(fd: &OwnedFd, mark: u32) -> Result<(), Errno> {
    sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, &mark.to_ne_bytes())
}

/// As large as the kernel grants; less only costs packets in a burst.
pub(crate) fn large_buffers(fd: &OwnedFd) {
    if sockopt::set_socket_recv_buffer_size_force(fd, BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(fd, BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(fd, BUFFER).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(fd, BUFFER);
    }
}

/// The protocol number of ESP, for messages.
pub const ESP: RawProtocol = ipproto::ESP.as_raw();

fn strip_ipv4(received: Received<'_>) -> Option<Received<'_>> {
    let packet = received.bytes;
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 || header_len < 20 {
        return None;
    }
    let octets = |at: usize| packet.get(at..at + 4).and_then(|o| <[u8; 4]>::try_from(o).ok());
    Some(Received {
        remote: SocketAddr::new(IpAddr::from(octets(12)?), 0),
        local: Some(IpAddr::from(octets(16)?)),
        tos: packet.get(1).copied(),
        ttl: packet.get(8).copied(),
        bytes: packet.get(header_len..)?,
        ..received
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> Received<'_> {
        let remote = "192.0.2.1:0".parse().unwrap();
        Received {
            remote,
            local: None,
            interface: 0,
            tos: None,
            ttl: None,
            truncated: false,
            segment: 0,
            bytes,
        }
    }

    #[test]
    fn header_is_taken_off() {
        let mut packet =
            vec![0x45, 0xb8, 0, 24, 0, 0, 0, 0, 63, 50, 0, 0, 192, 0, 2, 9, 192, 0, 2, 8];
        packet.extend([1, 2, 3, 4]);
        let esp = strip_ipv4(received(&packet)).unwrap();
        assert_eq!((esp.bytes, esp.tos, esp.ttl), (&[1u8, 2, 3, 4][..], Some(0xb8), Some(63)));
        assert_eq!(esp.remote.ip(), "192.0.2.9".parse::<IpAddr>().unwrap());
        assert_eq!(esp.local, Some("192.0.2.8".parse().unwrap()));
    }

    #[test]
    fn senseless_headers_are_refused() {
        assert_eq!(strip_ipv4(received(&[])), None);
        assert_eq!(strip_ipv4(received(&[0x44; 40])), None);
        assert_eq!(strip_ipv4(received(&[0x4f; 40])), None);
        assert_eq!(strip_ipv4(received(&[0x65; 40])), None);
    }
}
