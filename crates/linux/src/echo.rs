//! Echo requests (RFC 792, RFC 4443) of a chosen size that must not be fragmented: whether packets pass, and how large.
//!
//! They are packets like any other: policies of this host apply to them, so that they go through a tunnel where there is one.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ipsec::checksum;
use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use crate::errno::{Errno, explain, of};
use crate::raw::Ip;
use crate::sys;

/// Why no echo request can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("echo request, {call}: {}", explain(*.errno))]
pub struct Error {
    /// Which call.
    pub call: &'static str,
    /// Its error number.
    pub errno: Errno,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It was answered, after this time.
    Answered(Duration),
    /// Nothing came in time.
    Silence,
    /// This host, or the path as far as it is known here, does not carry packets of this size.
    TooBig,
    /// This host has no way there.
    Unreachable(Errno),
}

/// A socket for requests to one host.
#[derive(Debug)]
pub struct Echo {
    fd: OwnedFd,
    ip: Ip,
    name: u16,
    sequence: u16,
}

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
/// The longest packet of IPv4, with its header.
const LONGEST: usize = 65_535;

impl Echo {
    /// Opens it in this thread's network namespace. Both addresses are of one family; it needs `CAP_NET_RAW`.
    pub fn open(local: IpAddr, remote: IpAddr) -> Result<Self, Error> {
        let failed = |call| move |error| Error { call, errno: of(error) };
        let ip = Ip::of(remote);
        let (family, protocol, level, name) = match ip {
            Ip::V4 => (AddressFamily::INET, ipproto::ICMP, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            Ip::V6 => {
                (AddressFamily::INET6, ipproto::ICMPV6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
            }
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol))
            .map_err(failed("socket"))?;
        // The same number for both families.
        sys::set_option_int(fd.as_fd(), level, name, libc::IP_PMTUDISC_DO)
            .map_err(|errno| Error { call: "setsockopt", errno })?;
        rustix::net::bind(&fd, &SocketAddr::new(local, 0)).map_err(failed("bind"))?;
        rustix::net::connect(&fd, &SocketAddr::new(remote, 0)).map_err(failed("connect"))?;
        Ok(Self { fd, ip, name: std::process::id() as u16, sequence: 0 })
    }

    /// Sends one request whose IP packet has `len` bytes, from the smallest to the largest that there is, and waits for
    /// its answer.
    pub fn ask(&mut self, len: usize, within: Duration) -> Reply {
        self.sequence = self.sequence.wrapping_add(1);
        let request = self.request(len);
        // An ICMP error for an earlier request is reported by the next call.
        for _ in 0..2 {
            match rustix::net::send(&self.fd, &request, SendFlags::empty()).map_err(of) {
                Ok(_) => break,
                Err(Errno::EMSGSIZE) => return Reply::TooBig,
                Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => {}
                Err(errno) => return Reply::Unreachable(errno),
            }
        }
        let begun = Instant::now();
        let mut buffer = vec![0; LONGEST];
        while let Some(left) = within.checked_sub(begun.elapsed()) {
            let wait = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            let wait = Timespec { tv_sec: left.as_secs() as i64, ..wait };
            let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&wait));
            match rustix::net::recv(&self.fd, &mut buffer, RecvFlags::empty()).map_err(of) {
                Ok((got, _)) if self.answers(&buffer[..got]) => {
                    return Reply::Answered(begun.elapsed());
                }
                Err(Errno::EMSGSIZE) => return Reply::TooBig,
                Ok(_) | Err(_) => {}
            }
        }
        Reply::Silence
    }

    fn request(&self, len: usize) -> Vec<u8> {
        let around = match self.ip {
            Ip::V4 => 20,
            Ip::V6 => 40,
        };
        let kind = if self.ip == Ip::V4 { 8 } else { 128 };
        let mut out = noise(len.clamp(around + HEADER, LONGEST) - around);
        out[..HEADER].fill(0);
        out[0] = kind;
        out[4..6].copy_from_slice(&self.name.to_be_bytes());
        out[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        // The kernel computes that of ICMPv6, which covers the addresses too.
        if self.ip == Ip::V4 {
            let sum = checksum::finish(checksum::add(0, &out));
            out[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        out
    }

    fn answers(&self, packet: &[u8]) -> bool {
        let (skip, kind) = match self.ip {
            Ip::V4 => (usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4, 0),
            Ip::V6 => (0, 129),
        };
        let [name, sequence] = [self.name, self.sequence].map(u16::to_be_bytes);
        packet.get(skip..).is_some_and(|icmp| {
            icmp.first() == Some(&kind)
                && icmp.get(4..6) == Some(&name[..])
                && icmp.get(6..8) == Some(&sequence[..])
        })
    }
}

/// Bytes that do not get shorter where a tunnel compresses (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let next = |x: &u32| {
        let x = x ^ (x << 13);
        let x = x ^ (x >> 17);
        Some(x ^ (x << 5))
    };
    let words = std::iter::successors(Some(0x9e37_79b9_u32), next);
    words.flat_map(u32::to_le_bytes).take(len).collect()
}

#[cfg(test)]
mod tests {
    use ipsec::ipcomp::Compressor;

    use super::*;

    #[test]
    fn what_is_measured_does_not_shrink() {
        for len in [576, 1400, LONGEST] {
            let sent = noise(len);
            assert_eq!(sent.len(), len);
            assert_eq!(Compressor::default().compress(256, 1, &sent), None);
        }
    }
}
