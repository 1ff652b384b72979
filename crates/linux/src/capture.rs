//! Watching an interface, with a count of what was not seen.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::datagram::RecvBatch;
use crate::errno::{Errno, explain, of};
use crate::sys;

/// Why nothing can be watched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such interface in this network namespace.
    #[error("no interface {0} in this network namespace")]
    NoInterface(String),
    /// A system call failed.
    #[error("packet socket, {call}: {}", explain(*.errno))]
    Call {
        /// Which call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
}

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// It came from outside, for this host or for others.
    Incoming,
    /// This host sent it.
    Outgoing,
}

/// A packet as it passed, from its network header on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Index of the interface.
    pub interface: u32,
    /// Which way.
    pub direction: Direction,
    /// EtherType: 0x0800 is IPv4, 0x86dd IPv6, 0x0806 ARP.
    pub protocol: u16,
    /// The packet, without link-layer header.
    pub bytes: Vec<u8>,
}

/// An open watch on one interface. Nothing is sent, and the interface's mode is not changed.
pub struct Capture {
    fd: OwnedFd,
    batch: RecvBatch,
    lost: u64,
}

/// Of one `read`: a network that is faster than its reader does not fill the memory.
const MOST_BATCHES: usize = 64;
const RECEIVE_BUFFER: usize = 64 << 20;
const SOL_PACKET: i32 = 263;
const PACKET_STATISTICS: i32 = 6;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const PACKET_OUTGOING: u8 = 4;
const ETH_P_ALL: u16 = 3;

impl Capture {
    /// Begins to watch `interface`, in this thread's network namespace.
    pub fn open(interface: &str) -> Result<Self, Error> {
        let fd = packet_socket()?;
        let index = rustix::net::netdevice::name_to_index(&fd, interface)
            .map_err(|_| Error::NoInterface(interface.to_owned()))?;
        if sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER);
        }
        sys::bind(fd.as_fd(), &link_address(index)).map_err(|errno| call("bind", errno))?;
        Ok(Self { fd, batch: RecvBatch::new(65_536), lost: 0 })
    }

    /// Begins to watch what comes into `interface` from outside; what goes out by it costs nothing.
    pub fn open_incoming(interface: &str) -> Result<Self, Error> {
        let capture = Self::open(interface)?;
        // A kernel before 4.20 shows both.
        let on = 1u32.to_ne_bytes();
        let _ = sys::set_option(capture.fd.as_fd(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on);
        Ok(capture)
    }

    /// All packets that have come by since the last call; does not wait. On a wire that never rests this takes memory
    /// without bound: see [`read_some`](Self::read_some).
    pub fn read(&mut self) -> Result<Vec<Packet>, Error> {
        self.read_batches(usize::MAX)
    }

    /// As [`read`](Self::read), a bounded number at once.
    pub fn read_some(&mut self) -> Result<Vec<Packet>, Error> {
        self.read_batches(MOST_BATCHES)
    }

    fn read_batches(&mut self, most: usize) -> Result<Vec<Packet>, Error> {
        let mut packets = Vec::new();
        for _ in 0..most {
            let received = self.batch.receive(self.fd.as_fd());
            if received.map_err(|errno| call("recvmmsg", errno))? == 0 {
                break;
            }
            for (name, bytes, truncated) in self.batch.raw() {
                self.lost += u64::from(truncated);
                packets.extend(packet(name, bytes));
            }
        }
        Ok(packets)
    }

    /// Collects packets until `until` says that it has enough, or the time is over.
    pub fn read_until(
        &mut self,
        limit: Duration,
        mut until: impl FnMut(&[Packet]) -> bool,
    ) -> Result<Vec<Packet>, Error> {
        let end = Instant::now() + limit;
        let mut all = Vec::new();
        loop {
            all.extend(self.read_some()?);
            let left = end.saturating_duration_since(Instant::now());
            if until(&all) || left.is_zero() {
                return Ok(all);
            }
            let wait = Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let _ = rustix::event::poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&wait));
        }
    }

    /// Packets that passed and were not read, since the beginning: too many at once, or too long.
    pub fn lost(&mut self) -> Result<u64, Error> {
        self.lost += lost(self.fd.as_fd())?;
        Ok(self.lost)
    }
}

/// A packet socket without a protocol: nothing comes in before it is bound.
pub(crate) fn packet_socket() -> Result<OwnedFd, Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)
        .map_err(|e| call("socket", of(e)))
}

/// Packets that did not fit a packet socket since this was last asked.
pub(crate) fn lost(fd: BorrowedFd<'_>) -> Result<u64, Error> {
    // struct tpacket_stats: packets, drops; reading it sets both to zero.
    let mut stats = [0; 8];
    sys::get_option(fd, SOL_PACKET, PACKET_STATISTICS, &mut stats)
        .map_err(|errno| call("PACKET_STATISTICS", errno))?;
    Ok(u32::from_ne_bytes([stats[4], stats[5], stats[6], stats[7]]).into())
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(crate) fn call(call: &'static str, errno: Errno) -> Error {
    Error::Call { call, errno }
}

/// `struct sockaddr_ll` for every protocol of one interface.
/// `struct sockaddr_ll` of all protocols on that interface; 0: on all.
pub(crate) fn link_address(index: u32) -> [u8; 20] {
    let mut address = [0; 20];
    address[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&ETH_P_ALL.to_be_bytes());
    address[4..8].copy_from_slice(&index.to_ne_bytes());
    address
}

fn packet(name: &[u8], bytes: &[u8]) -> Option<Packet> {
    let direction =
        if *name.get(10)? == PACKET_OUTGOING { Direction::Outgoing } else { Direction::Incoming };
    Some(Packet {
        interface: u32::from_ne_bytes(name.get(4..8)?.try_into().ok()?),
        direction,
        protocol: u16::from_be_bytes(name.get(2..4)?.try_into().ok()?),
        bytes: bytes.to_vec(),
    })
}
