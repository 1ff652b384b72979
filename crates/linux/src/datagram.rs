//! Datagrams in batches, with what the IP header says beside them: `sendmmsg(2)` and `recvmmsg(2)`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

use crate::errno::{Errno, of};
use crate::sys;

/// Most datagrams that one system call carries.
pub const BATCH: usize = 32;

/// Most errors of a socket that are forgotten before packets have their turn again.
const MAX_ERRORS: usize = 256;

/// A datagram to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// To whom; the port is ignored by raw sockets.
    pub remote: SocketAddr,
    /// From which of this host's addresses; `None` lets the kernel choose by its routes.
    pub local: Option<IpAddr>,
    /// TOS or traffic class; `None` is the socket's.
    pub tos: Option<u8>,
    /// TTL or hop limit; `None`, or 0, is the system's.
    pub ttl: Option<u8>,
    /// Must not be fragmented, here or on the way: what is too long is refused with `EMSGSIZE`.
    pub dont_fragment: bool,
    /// The kernel cuts it into UDP datagrams of so many bytes, the last one of what is left; 0: it is one. Nothing is
    /// sent, and the error is reported, where it cannot.
    pub segment: u16,
    /// What follows the IP header (raw) or the UDP header.
    pub bytes: &'a [u8],
}

/// Most datagrams that the kernel cuts one into (`UDP_MAX_SEGMENTS`, 64 before Linux 6.9).
pub const MAX_SEGMENTS: usize = 64;
/// Most bytes that it cuts: less than what fits an IP packet.
pub const MAX_SEGMENTED: usize = 65_000;

impl<'a> Outgoing<'a> {
    /// With the system's defaults; may be fragmented.
    pub fn new(remote: SocketAddr, bytes: &'a [u8]) -> Self {
        Self { remote, local: None, tos: None, ttl: None, dont_fragment: false, segment: 0, bytes }
    }
}

/// A received datagram, borrowed from its [`RecvBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// From whom; port 0 on raw sockets.
    pub remote: SocketAddr,
    /// To which address it came.
    pub local: Option<IpAddr>,
    /// Index of the interface by which it came, 0 if unknown.
    pub interface: u32,
    /// TOS or traffic class, where the socket was asked to tell.
    pub tos: Option<u8>,
    /// TTL or hop limit, likewise.
    pub ttl: Option<u8>,
    /// It was longer than the buffer and is cut off.
    pub truncated: bool,
    /// It is several of so many bytes, the last one of what is left; 0: it is one.
    pub segment: u16,
    /// On a raw IPv4 socket the whole IP packet; else what follows the IP or UDP header.
    pub bytes: &'a [u8],
}

/// A datagram socket of one address family. Sending takes `&self`, so threads can share it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    v6: bool,
    /// Whether the socket now forbids fragmentation; there is no control message for it.
    dont_fragment: Mutex<bool>,
}

impl Socket {
    /// Wraps a non-blocking socket, which fragments until a datagram says otherwise.
    pub(crate) fn new(fd: OwnedFd, v6: bool) -> Result<Self, Errno> {
        let socket = Self { fd, v6, dont_fragment: Mutex::new(false) };
        socket.set_dont_fragment(false)?;
        Ok(socket)
    }

    /// Sends in order. What cannot be sent is reported with its index and skipped. Returns how many went out.
    pub(crate) fn send(&self, items: &[Outgoing<'_>], failed: impl FnMut(usize, Errno)) -> usize {
        self.send_all(items, true, failed)
    }

    /// The same, but what finds no room is not sent: `EAGAIN`.
    pub(crate) fn send_now(
        &self,
        items: &[Outgoing<'_>],
        failed: impl FnMut(usize, Errno),
    ) -> usize {
        self.send_all(items, false, failed)
    }

    fn send_all(
        &self,
        items: &[Outgoing<'_>],
        mut patient: bool,
        mut failed: impl FnMut(usize, Errno),
    ) -> usize {
        let mut sent = 0;
        let mut at = 0;
        while at < items.len() {
            let run = items[at..]
                .iter()
                .take_while(|o| o.dont_fragment == items[at].dont_fragment)
                .count()
                .min(BATCH);
            match self.send_run(&items[at..at + run], &mut patient) {
                Ok(count) if count > 0 => {
                    sent += count;
                    at += count;
                }
                Ok(_) => {
                    failed(at, Errno::EIO);
                    at += 1;
                }
                Err(errno) => {
                    failed(at, errno);
                    at += 1;
                }
            }
        }
        sent
    }

    /// Receives what is there, at most [`BATCH`]; 0 if nothing is.
    pub(crate) fn receive(&self, batch: &mut RecvBatch) -> Result<usize, Errno> {
        batch.receive(self.fd.as_fd())
    }

    /// Forgets what ICMP has said of packets that were sent; the kernel has taken note of it.
    pub(crate) fn drain_errors(&self) {
        let mut quoted = [0u8; 1];
        let flags = RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT;
        for _ in 0..MAX_ERRORS {
            if rustix::net::recv(&self.fd, &mut quoted, flags).is_err() {
                return;
            }
        }
    }

    /// `patient`: may wait for room; not again where that was in vain, for others wait for this socket.
    fn send_run(&self, items: &[Outgoing<'_>], patient: &mut bool) -> Result<usize, Errno> {
        let mut state = self.dont_fragment.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != items[0].dont_fragment {
            self.set_dont_fragment(items[0].dont_fragment)?;
            *state = items[0].dont_fragment;
        }
        match send_some(self.fd.as_fd(), items) {
            // A full queue of the device: wait for room, once and shortly, then let the packet go.
            Err(Errno::EAGAIN) if *patient => {
                let mut ready = [PollFd::new(&self.fd, PollFlags::OUT)];
                let _ = rustix::event::poll(
                    &mut ready,
                    Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }),
                );
                let again = send_some(self.fd.as_fd(), items);
                *patient = again != Err(Errno::EAGAIN);
                again
            }
            Ok(sent) => Ok(sent),
            Err(errno @ (Errno::EAGAIN | Errno::ENOBUFS)) => Err(errno),
            // Perhaps an interrupted call, or what ICMP said of an earlier packet, which a socket reports once.
            Err(_) => send_some(self.fd.as_fd(), items),
        }
    }

    fn set_dont_fragment(&self, on: bool) -> Result<(), Errno> {
        if self.v6 {
            let mode = if on { Ipv6PathMtuDiscovery::DO } else { Ipv6PathMtuDiscovery::WANT };
            sockopt::set_ipv6_mtu_discover(&self.fd, mode).map_err(of)?;
            return sys::set_option_int(
                self.fd.as_fd(),
                libc::IPPROTO_IPV6,
                libc::IPV6_DONTFRAG,
                i32::from(on),
            );
        }
        let mode = if on { Ipv4PathMtuDiscovery::DO } else { Ipv4PathMtuDiscovery::DONT };
        sockopt::set_ip_mtu_discover(&self.fd, mode).map_err(of)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Bytes before what was received in the buffers of [`RecvBatch::each`].
pub const HEADROOM: usize = 64;

/// Buffers for receiving; made once, used again and again.
pub struct RecvBatch {
    buffers: Vec<Vec<u8>>,
    names: Vec<Name>,
    controls: Vec<Control>,
    lengths: Vec<usize>,
    truncated: Vec<bool>,
    count: usize,
}

impl RecvBatch {
    /// [`BATCH`] buffers of `size` bytes each; 65536 holds every datagram.
    pub fn new(size: usize) -> Self {
        Self {
            buffers: (0..BATCH).map(|_| vec![0; HEADROOM + size.max(1)]).collect(),
            names: vec![Name::default(); BATCH],
            controls: vec![Control::default(); BATCH],
            lengths: vec![0; BATCH],
            truncated: vec![false; BATCH],
            count: 0,
        }
    }

    /// What the last receive call brought. Datagrams without a sender's IP address are left out.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        (0..self.count).filter_map(|i| self.datagram(i))
    }

    /// The raw socket address and the bytes of each datagram: for sockets that are not IP.
    pub(crate) fn raw(&self) -> impl Iterator<Item = (&[u8], &[u8], bool)> {
        (0..self.count).map(|i| (self.names[i].bytes(), self.bytes(i), self.truncated[i]))
    }

    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.count = 0;
        self.count = match receive_some(fd, self) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        Ok(self.count)
    }

    /// The same to be worked on where it is: behind [`HEADROOM`] bytes of no meaning. `bytes` is empty.
    pub fn each(&mut self) -> impl Iterator<Item = (Received<'static>, &mut [u8])> {
        let (names, controls) = (&self.names, &self.controls);
        let (lengths, truncated) = (&self.lengths, &self.truncated);
        self.buffers.iter_mut().take(self.count).enumerate().filter_map(|(i, buffer)| {
            let received = describe(&names[i], &controls[i], truncated[i], &[])?;
            let end = (HEADROOM + lengths[i]).min(buffer.len());
            Some((received, &mut buffer[..end]))
        })
    }

    fn bytes(&self, i: usize) -> &[u8] {
        let buffer = &self.buffers[i];
        &buffer[HEADROOM..(HEADROOM + self.lengths[i]).min(buffer.len())]
    }

    fn datagram(&self, i: usize) -> Option<Received<'_>> {
        describe(&self.names[i], &self.controls[i], self.truncated[i], self.bytes(i))
    }
}

fn describe<'a>(
    name: &Name,
    control: &Control,
    truncated: bool,
    bytes: &'a [u8],
) -> Option<Received<'a>> {
    let mut received = Received {
        remote: name.address()?,
        local: None,
        interface: 0,
        tos: None,
        ttl: None,
        truncated,
        segment: 0,
        bytes,
    };
    for (level, kind, data) in control.iter() {
        read_control(&mut received, level, kind, data);
    }
    Some(received)
}

fn read_control(received: &mut Received<'_>, level: i32, kind: i32, data: &[u8]) {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // struct in_pktinfo: interface, local address of the route, destination in the header.
            if let (Some(interface), Some(dst)) = (number(data), data.get(8..12)) {
                received.interface = interface;
                received.local =
                    <[u8; 4]>::try_from(dst).ok().map(|a| IpAddr::V4(Ipv4Addr::from(a)));
            }
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            if let Some((dst, rest)) = data.split_first_chunk::<16>() {
                received.local = Some(IpAddr::V6(Ipv6Addr::from(*dst)));
                received.interface = number(rest).unwrap_or(0);
            }
        }
        (libc::IPPROTO_IP, libc::IP_TOS) => received.tos = data.first().copied(),
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
            received.ttl = number(data).and_then(|n| u8::try_from(n).ok());
        }
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            received.tos = number(data).and_then(|n| u8::try_from(n).ok())
        }
        (libc::SOL_UDP, libc::UDP_GRO) => {
            received.segment = number(data).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        }
        _ => {}
    }
}

fn number(data: &[u8]) -> Option<u32> {
    data.split_first_chunk().map(|(n, _)| u32::from_ne_bytes(*n))
}

/// A socket address as the kernel lays it out: up to `sockaddr_in6` or `sockaddr_ll`.
#[derive(Clone, Copy, Default)]
#[repr(C, align(8))]
struct Name {
    bytes: [u8; 32],
    len: usize,
}

impl Name {
    fn of(address: SocketAddr) -> Self {
        let mut name = Self::default();
        match address {
            SocketAddr::V4(v4) => {
                name.put(0, &(libc::AF_INET as u16).to_ne_bytes());
                name.put(2, &v4.port().to_be_bytes());
                name.put(4, &v4.ip().octets());
                name.len = 16;
            }
            SocketAddr::V6(v6) => {
                name.put(0, &(libc::AF_INET6 as u16).to_ne_bytes());
                name.put(2, &v6.port().to_be_bytes());
                name.put(8, &v6.ip().octets());
                name.put(24, &v6.scope_id().to_ne_bytes());
                name.len = 28;
            }
        }
        name
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(self.bytes.len())]
    }

    fn address(&self) -> Option<SocketAddr> {
        let bytes = self.bytes();
        let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
        match family {
            libc::AF_INET => {
                let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
                Some(SocketAddrV4::new(ip.into(), port).into())
            }
            libc::AF_INET6 => {
                let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
                // A raw IPv6 socket leaves the protocol where the port stands.
                Some(SocketAddrV6::new(ip.into(), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

/// Control messages as the kernel lays them out: `cmsghdr`, data, padding, aligned to a word.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control {
    bytes: [u8; 192],
    len: usize,
}

const WORD: usize = std::mem::size_of::<usize>();
const CONTROL_HEADER: usize = WORD + 8;

impl Default for Control {
    fn default() -> Self {
        Self { bytes: [0; 192], len: 0 }
    }
}

impl Control {
    fn of(item: &Outgoing<'_>) -> Self {
        let mut control = Self::default();
        let v6 = item.remote.is_ipv6();
        match item.local {
            Some(IpAddr::V4(local)) if !v6 => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(local)) if v6 => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        if let Some(tos) = item.tos {
            let (level, kind) = if v6 {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            } else {
                (libc::IPPROTO_IP, libc::IP_TOS)
            };
            control.push(level, kind, &i32::from(tos).to_ne_bytes());
        }
        if let Some(ttl) = item.ttl.filter(|ttl| *ttl > 0) {
            let (level, kind) = if v6 {
                (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
            } else {
                (libc::IPPROTO_IP, libc::IP_TTL)
            };
            control.push(level, kind, &i32::from(ttl).to_ne_bytes());
        }
        if item.segment > 0 {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &item.segment.to_ne_bytes());
        }
        control
    }

    /// At most four messages of at most 20 bytes are ever pushed: they fit.
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let length = CONTROL_HEADER + data.len();
        let at = self.len;
        self.bytes[at..at + WORD].copy_from_slice(&length.to_ne_bytes());
        self.bytes[at + WORD..at + WORD + 4].copy_from_slice(&level.to_ne_bytes());
        self.bytes[at + WORD + 4..at + WORD + 8].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[at + CONTROL_HEADER..at + length].copy_from_slice(data);
        self.len = at + length.next_multiple_of(WORD);
    }

    fn iter(&self) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let mut rest = &self.bytes[..self.len.min(self.bytes.len())];
        std::iter::from_fn(move || {
            let (length, _) = rest.split_first_chunk::<WORD>()?;
            let length = usize::from_ne_bytes(*length);
            let level = number(rest.get(WORD..)?)?.cast_signed();
            let kind = number(rest.get(WORD + 4..)?)?.cast_signed();
            let data = rest.get(CONTROL_HEADER..length)?;
            rest = rest.get(length.next_multiple_of(WORD)..).unwrap_or(&[]);
            Some((level, kind, data))
        })
    }
}

/// One `sendmmsg`; how many went out, or why not even the first did.
fn send_some(fd: BorrowedFd<'_>, items: &[Outgoing<'_>]) -> Result<usize, Errno> {
    let count = items.len().min(BATCH);
    let mut names = [Name::default(); BATCH];
    let mut controls = [Control::default(); BATCH];
    let mut vectors = [EMPTY_VECTOR; BATCH];
    // SAFETY: all fields of `mmsghdr` are integers and pointers, for which all-zero is valid.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (i, item) in items.iter().take(count).enumerate() {
        names[i] = Name::of(item.remote);
        controls[i] = Control::of(item);
        vectors[i] = libc::iovec {
            iov_base: item.bytes.as_ptr().cast_mut().cast(),
            iov_len: item.bytes.len(),
        };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = names[i].bytes.as_mut_ptr().cast();
        header.msg_namelen = names[i].len as libc::socklen_t;
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
        if controls[i].len > 0 {
            header.msg_control = controls[i].bytes.as_mut_ptr().cast();
            header.msg_controllen = controls[i].len as _;
        }
    }
    // SAFETY: `count` is at most the length of `headers`; every pointer in the first `count` of them points
    // into `names`, `controls`, `vectors` or `items`, which outlive the call, with the length beside it.
    // The kernel only reads what they point to.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_NOSIGNAL,
        )
    };
    Errno::result(sent).map(|n| usize::try_from(n).unwrap_or(0))
}

/// One `recvmmsg` that does not wait.
fn receive_some(fd: BorrowedFd<'_>, batch: &mut RecvBatch) -> Result<usize, Errno> {
    let mut vectors = [EMPTY_VECTOR; BATCH];
    // SAFETY: all fields of `mmsghdr` are integers and pointers, for which all-zero is valid.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for i in 0..BATCH {
        let buffer = &mut batch.buffers[i];
        let room = &mut buffer[HEADROOM..];
        vectors[i] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = batch.names[i].bytes.as_mut_ptr().cast();
        header.msg_namelen = batch.names[i].bytes.len() as libc::socklen_t;
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
        header.msg_control = batch.controls[i].bytes.as_mut_ptr().cast();
        header.msg_controllen = batch.controls[i].bytes.len() as _;
    }
    // SAFETY: `headers` has BATCH entries; every pointer in them points into `batch` or `vectors`, which
    // outlive the call and are borrowed by nobody else, with the length beside it; any bytes are valid there.
    let count = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            BATCH as libc::c_uint,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let count = usize::try_from(Errno::result(count)?).unwrap_or(0).min(BATCH);
    for (i, header) in headers.iter().enumerate().take(count) {
        batch.names[i].len = usize::try_from(header.msg_hdr.msg_namelen).unwrap_or(0);
        batch.controls[i].len = header.msg_hdr.msg_controllen as _;
        batch.lengths[i] = usize::try_from(header.msg_len).unwrap_or(0);
        batch.truncated[i] = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
    }
    Ok(count)
}

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["192.0.2.1:500", "[2001:db8::1]:4500"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::of(address).address(), Some(address));
        }
        assert_eq!(Name::default().address(), None);
    }

    #[test]
    fn control_messages_round_trip() {
        let mut item = Outgoing::new("[2001:db8::1]:0".parse().unwrap(), &[]);
        item.local = Some("2001:db8::2".parse().unwrap());
        item.tos = Some(0xb8);
        item.ttl = Some(7);
        let control = Control::of(&item);
        let mut received = Received {
            remote: item.remote,
            local: None,
            interface: 0,
            tos: None,
            ttl: None,
            truncated: false,
            segment: 0,
            bytes: &[],
        };
        for (level, kind, data) in control.iter() {
            read_control(&mut received, level, kind, data);
        }
        assert_eq!((received.local, received.tos, received.ttl), (item.local, item.tos, item.ttl));
    }

    #[test]
    fn damaged_control_messages_end_the_walk() {
        let mut control = Control { len: 192, ..Control::default() };
        assert_eq!(control.iter().count(), 0);
        control.bytes.fill(0xff);
        assert_eq!(control.iter().count(), 0);
        control.len = 1000;
        assert_eq!(control.iter().count(), 0);
    }
}
