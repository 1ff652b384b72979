//! Netlink (RFC 3549): requests with acknowledgement, dumps, attributes. Synchronous.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::{self as nl, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use zeroize::{Zeroize, Zeroizing};

use crate::errno::{Errno, explain, of};
use crate::sys;

/// Which part of the kernel to talk to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Links, addresses, routes, rules (`NETLINK_ROUTE`).
    Route,
    /// IPsec policies and SAs (`NETLINK_XFRM`).
    Xfrm,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel refused it.
    #[error("the kernel refused: {}{}", explain(*.errno), if .text.is_empty() { String::new() } else { format!(": {}", .text) })]
    Refused {
        /// Its error number.
        errno: Errno,
        /// Its own words, often empty.
        text: String,
    },
    /// A system call on the netlink socket failed.
    #[error("netlink {call}: {}", explain(*.errno))]
    Socket {
        /// Which call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// The kernel does not have this netlink family.
    #[error("this kernel has no {0:?} netlink: it was built without it")]
    Unsupported(Family),
    /// No answer, or one that is cut off or inconsistent.
    #[error("no valid answer from the kernel: {0}")]
    Answer(&'static str),
}

impl Error {
    /// The kernel's error number, if it was the kernel that said no.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::Socket { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// A message from the kernel, its header taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `nlmsg_type`.
    pub kind: u16,
    /// The family's fixed header and its attributes.
    pub body: Vec<u8>,
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// `NLM_F_CREATE | NLM_F_EXCL`: a new object, which must not be there yet.
pub const CREATE: u16 = 0x600;
/// `NLM_F_CREATE | NLM_F_REPLACE`: a new object, or in place of the one that is there.
pub const REPLACE: u16 = 0x500;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP_INTR: u16 = 0x10;
const DUMP: u16 = 0x300;
const ACK_TLVS: u16 = 0x200;
const CAPPED: u16 = 0x100;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const SOL_NETLINK: i32 = 270;
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;
/// Most datagrams read for one answer: a bound for a dump that never ends.
const MAX_READS: usize = 100_000;
/// A dump that the kernel calls inconsistent is begun anew this often.
const DUMP_TRIES: usize = 5;

impl Socket {
    /// Opens a socket in the network namespace of this thread.
    pub fn open(family: Family) -> Result<Self, Error> {
        let protocol = match family {
            Family::Route => None,
            Family::Xfrm => Some(nl::XFRM),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map_err(|e| match of(e) {
            Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => Error::Unsupported(family),
            errno => Error::Socket { call: "socket", errno },
        })?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))
            .map_err(|e| socket_error("bind", e))?;
        // Answers come at once or not at all; the time limit is for a kernel that loses one.
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(5)))
            .map_err(|e| socket_error("setsockopt", e))?;
        let _ = sockopt::set_socket_recv_buffer_size(&fd, 1 << 20);
        // Both only make the kernel's answers better; kernels before 4.12 lack them.
        let _ = sys::set_option_int(fd.as_fd(), SOL_NETLINK, NETLINK_CAP_ACK, 1);
        let _ = sys::set_option_int(fd.as_fd(), SOL_NETLINK, NETLINK_EXT_ACK, 1);
        Ok(Self { fd, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// Asks for a change and waits for the acknowledgement.
    pub fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Error> {
        self.send(kind, REQUEST | ACK | flags, body)?;
        self.collect(false, |_, _| {})
    }

    /// Asks for one object. XFRM's messages may hold keys: wiping the body is the caller's.
    pub fn get(&mut self, kind: u16, body: &[u8]) -> Result<Message, Error> {
        self.send(kind, REQUEST | ACK, body)?;
        let mut found = None;
        self.collect(false, |kind, body| found = Some(Message { kind, body: body.to_vec() }))?;
        found.ok_or(Error::Answer("an acknowledgement without the object"))
    }

    /// Asks for all objects.
    pub fn dump(&mut self, kind: u16, body: &[u8]) -> Result<Vec<Message>, Error> {
        for _ in 0..DUMP_TRIES {
            let mut messages = Vec::new();
            let mut keep = |kind, body: &[u8]| messages.push(Message { kind, body: body.to_vec() });
            match self.each(kind, body, &mut keep) {
                Ok(()) => return Ok(messages),
                Err(Error::Answer(INTERRUPTED)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Answer(INTERRUPTED))
    }

    /// Asks for all objects and shows each, without a copy: for those with keys in them. One try.
    pub fn each(
        &mut self,
        kind: u16,
        body: &[u8],
        mut show: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        self.send(kind, REQUEST | DUMP, body)?;
        self.collect(true, &mut show)
    }

    /// Subscribes to a multicast group of the family.
    pub fn join(&self, group: u32) -> Result<(), Error> {
        let group = i32::try_from(group).unwrap_or(i32::MAX);
        sys::set_option_int(self.fd.as_fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
            .map_err(|errno| Error::Socket { call: "join", errno })
    }

    /// Shows the notifications of one datagram, without waiting. `false` when there is none. `ENOBUFS` means
    /// that some were lost.
    pub fn notifications(&mut self, mut show: impl FnMut(u16, &[u8])) -> Result<bool, Error> {
        let received = loop {
            let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
            match rustix::net::recv(&self.fd, &mut self.buffer[..], flags) {
                Ok((_, length)) => break length.min(self.buffer.len()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(socket_error("recv", error)),
            }
        };
        for (header, body) in Messages(&self.buffer[..received]).flatten() {
            show(header.kind, body);
        }
        self.buffer[..received].zeroize();
        Ok(true)
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = frame(kind, flags, self.sequence, body)?;
        rustix::net::send(&self.fd, &message, SendFlags::empty())
            .map_err(|e| socket_error("send", e))?;
        Ok(())
    }

    fn collect(&mut self, dump: bool, mut show: impl FnMut(u16, &[u8])) -> Result<(), Error> {
        let mut progress = Progress::default();
        for _ in 0..MAX_READS {
            let received = self.receive()?;
            let done = progress.read(&self.buffer[..received], self.sequence, &mut show);
            // SAs come with their keys.
            self.buffer[..received].zeroize();
            if done? {
                return Ok(());
            }
            if !dump && progress.messages > 1 {
                return Err(Error::Answer("more than was asked for"));
            }
        }
        Err(Error::Answer("it does not end"))
    }

    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, length)) if length > self.buffer.len() => {
                    return Err(Error::Answer("a message too long"));
                }
                Ok((_, 0)) => return Err(Error::Answer("an empty message")),
                Ok((_, length)) => return Ok(length),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    return Err(Error::Answer("none within 5 seconds"));
                }
                Err(error) => return Err(socket_error("recv", error)),
            }
        }
    }
}

/// How far an answer has come.
#[derive(Default)]
struct Progress {
    messages: usize,
    interrupted: bool,
}

impl Progress {
    /// `true` when the answer is complete.
    fn read(
        &mut self,
        datagram: &[u8],
        sequence: u32,
        show: &mut impl FnMut(u16, &[u8]),
    ) -> Result<bool, Error> {
        for item in Messages(datagram) {
            let (header, body) = item?;
            if header.sequence != sequence {
                continue;
            }
            self.interrupted |= header.flags & DUMP_INTR != 0;
            match header.kind {
                NLMSG_DONE if self.interrupted => return Err(Error::Answer(INTERRUPTED)),
                NLMSG_ERROR | NLMSG_DONE => return refusal(header.flags, body).map(|()| true),
                kind => {
                    self.messages += 1;
                    show(kind, body);
                }
            }
        }
        Ok(false)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const INTERRUPTED: &str = "the tables changed during the dump, again and again";

fn socket_error(call: &'static str, error: rustix::io::Errno) -> Error {
    Error::Socket { call, errno: of(error) }
}

fn frame(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let length = HEADER + body.len();
    let mut message = Zeroizing::new(Vec::with_capacity(length));
    message.extend(
        u32::try_from(length).map_err(|_| Error::Answer("the request is too long"))?.to_ne_bytes(),
    );
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    Ok(message)
}

/// The error in a `NLMSG_ERROR` or `NLMSG_DONE`; zero is success.
fn refusal(flags: u16, body: &[u8]) -> Result<(), Error> {
    let Some(code) = u32_at(body, 0) else { return Ok(()) };
    if code == 0 {
        return Ok(());
    }
    let errno = Errno::from_raw((code as i32).wrapping_neg());
    Err(Error::Refused { errno, text: extended_text(flags, body).unwrap_or_default() })
}

/// NLMSGERR_ATTR_MSG of an extended acknowledgement.
fn extended_text(flags: u16, body: &[u8]) -> Option<String> {
    if flags & ACK_TLVS == 0 {
        return None;
    }
    // After the code stands the request's header, and unless it was capped the request itself.
    let request =
        if flags & CAPPED != 0 { HEADER } else { usize::try_from(u32_at(body, 4)?).ok()? };
    let at = 4 + request.checked_add(3)? / 4 * 4;
    let (_, text) = Attributes::new(body.get(at..)?).find(|(kind, _)| *kind == 1)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

pub(crate) struct Header {
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
}

/// The messages of one datagram.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<(Header, &'a [u8]), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.len() < HEADER {
            return None;
        }
        let length = u32_at(self.0, 0).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        if length < HEADER || length > self.0.len() {
            self.0 = &[];
            return Some(Err(Error::Answer("a length that does not fit")));
        }
        let header = Header {
            kind: u16_at(self.0, 4).unwrap_or(0),
            flags: u16_at(self.0, 6).unwrap_or(0),
            sequence: u32_at(self.0, 8).unwrap_or(0),
        };
        let body = &self.0[HEADER..length];
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok((header, body)))
    }
}

/// A fixed header with attributes after it, as it is built.
#[derive(Debug, Clone, Default)]
pub struct Body(Vec<u8>);

impl Body {
    /// Begins with the family's fixed header, whose length must be a multiple of 4.
    pub fn new(fixed: &[u8]) -> Self {
        debug_assert!(fixed.len().is_multiple_of(4), "netlink headers are aligned");
        Self(fixed.to_vec())
    }

    /// Adds an attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let length =
            u16::try_from(value.len() + 4).expect("attributes are built here and are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a number in the machine's byte order.
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds a string with its terminating zero.
    pub fn str(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Adds attributes within an attribute.
    pub fn nest(self, kind: u16, inner: Self) -> Self {
        self.attr(kind, &inner.0)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes in a slice; ends at the first that does not fit.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Of the bytes after a fixed header.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        // The two top bits are flags (nested, network byte order).
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// A number at `at` in the machine's byte order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let (value, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u16::from_ne_bytes(*value))
}

/// A number at `at` in the machine's byte order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let (value, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u32::from_ne_bytes(*value))
}

/// A string attribute without its terminating zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let body =
            Body::new(&[0; 4]).u32(1, 7).str(2, "abc").nest(3, Body::default().attr(4, &[9]));
        let all: Vec<_> = Attributes::new(&body.bytes()[4..]).collect();
        assert_eq!(all[0], (1, &7u32.to_ne_bytes()[..]));
        assert_eq!(text(all[1].1), "abc");
        assert_eq!(Attributes::new(all[2].1).next(), Some((4, &[9u8][..])));
    }

    #[test]
    fn cut_and_senseless_lengths_end_the_walk() {
        assert_eq!(Attributes::new(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes::new(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes::new(&[8, 0, 1, 0, 1]).count(), 0);
        assert!(Messages(&[0; 16]).next().unwrap().is_err());
        assert!(Messages(&[1; 20]).next().unwrap().is_err());
        assert!(Messages(&[]).next().is_none());
    }

    #[test]
    fn extended_acknowledgement_is_read() {
        let mut body = (-17i32).to_ne_bytes().to_vec();
        body.extend(frame(1, 0, 1, &[]).unwrap().iter());
        body.extend(Body::default().str(1, "in the way").bytes());
        let error = refusal(ACK_TLVS | CAPPED, &body).unwrap_err();
        assert_eq!(error, Error::Refused { errno: Errno::EEXIST, text: "in the way".to_owned() });
    }

    #[test]
    fn lack_of_privilege_names_the_capability() {
        let error = Error::Refused { errno: Errno::EPERM, text: String::new() };
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }
}
