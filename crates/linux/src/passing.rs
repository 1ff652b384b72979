//! Packets that pass between this host and others without IPsec, by their headers alone: under `optional` no data plane
//! sees what comes in that way.
//!
//! One packet socket for all interfaces with a filter in the kernel (`SO_ATTACH_FILTER`, `<linux/filter.h>`): of what is
//! left it takes the first bytes. It reads at most so much at once and rests in between, so that its cost has a bound; what
//! does not fit the socket meanwhile is counted.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ipsec::dataplane::PacketInfo;
use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;

use crate::capture::{Error, call, link_address, lost, packet_socket};
use crate::datagram::RecvBatch;
use crate::errno::Errno;
use crate::filter::{Label, NEXT, Program, Step};
use crate::sys;

/// Of one packet: IPv6 with its longest chain of headers that is worth reading.
const SNAP: u32 = 128;
const RECEIVE_BUFFER: usize = 1 << 20;
/// Between two readings, and batches of one.
const REST: Duration = Duration::from_millis(10);
const MOST_BATCHES: usize = 16;
/// One packet of each kind in this time is told.
const AGAIN: Duration = Duration::from_secs(1);
/// Kinds that are told within that time; those beyond count as missed.
const MOST_KINDS: usize = 4096;
/// How soon it notices that it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// A running watch; it ends soon after this value is gone.
pub struct Passing {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    missed: AtomicU64,
}

impl Passing {
    /// Watches all interfaces of this thread's network namespace but loopback and `except`, for packets whose source or
    /// destination is one of `own` (at most 4 of each version of IP). Of those for which `counts` holds, one a second for
    /// each pair of addresses is told to `tell`.
    pub fn watch(
        own: &[IpAddr],
        except: Option<&str>,
        counts: impl Fn(&PacketInfo) -> bool + Send + 'static,
        tell: impl Fn(PacketInfo) + Send + 'static,
    ) -> Result<Self, Error> {
        let fd = open(own)?;
        let index = |name: &str| rustix::net::netdevice::name_to_index(&fd, name).ok();
        let except = ["lo"].into_iter().chain(except).filter_map(index).collect();
        let shared = Arc::new(Shared::default());
        let mut watcher = Watcher {
            fd,
            except,
            shared: shared.clone(),
            told: BTreeSet::new(),
            since: Instant::now(),
        };
        let run = move || watcher.run(&counts, &tell);
        let thread = std::thread::Builder::new().name("passing".to_owned()).spawn(run);
        thread.map_err(|error| Error::Call {
            call: "clone",
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        })?;
        Ok(Self { shared })
    }

    /// Packets that may have passed without being looked at.
    pub fn missed(&self) -> u64 {
        self.shared.missed.load(Relaxed)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

struct Watcher {
    fd: OwnedFd,
    except: BTreeSet<u32>,
    shared: Arc<Shared>,
    told: BTreeSet<(IpAddr, IpAddr)>,
    since: Instant,
}

impl Watcher {
    fn run(&mut self, counts: &dyn Fn(&PacketInfo) -> bool, tell: &dyn Fn(PacketInfo)) {
        let mut batch = RecvBatch::new(SNAP as usize);
        while !self.shared.stop.load(Relaxed) {
            wait(&self.fd, LOOK);
            for _ in 0..MOST_BATCHES {
                // What the socket reports, a device that went away for one, is no reason to look no more.
                if !matches!(batch.receive(self.fd.as_fd()), Ok(1..)) {
                    break;
                }
                for (name, bytes, _) in batch.raw() {
                    self.look(name, bytes, counts, tell);
                }
            }
            if let Ok(lost) = lost(self.fd.as_fd()) {
                self.shared.missed.fetch_add(lost, Relaxed);
            }
            std::thread::sleep(REST);
        }
    }

    fn look(
        &mut self,
        name: &[u8],
        bytes: &[u8],
        counts: &dyn Fn(&PacketInfo) -> bool,
        tell: &dyn Fn(PacketInfo),
    ) {
        let interface = name.get(4..8).and_then(|b| Some(u32::from_ne_bytes(b.try_into().ok()?)));
        if interface.is_none_or(|index| self.except.contains(&index)) {
            return;
        }
        let Some(packet) = glance(bytes).filter(|packet| counts(packet)) else { return };
        if self.since.elapsed() >= AGAIN {
            self.told.clear();
            self.since = Instant::now();
        }
        if self.told.len() >= MOST_KINDS {
            self.shared.missed.fetch_add(1, Relaxed);
        } else if self.told.insert((packet.src, packet.dst)) {
            tell(packet);
        }
    }
}

/// What policies look at, of a packet whose end is cut off.
fn glance(bytes: &[u8]) -> Option<PacketInfo> {
    let mut whole = bytes.to_vec();
    let (at, length) = match whole.first()? >> 4 {
        4 => (2, whole.len()),
        _ => (4, whole.len().checked_sub(40)?),
    };
    whole.get_mut(at..at + 2)?.copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    let headers = ipsec::packet::parse(&whole).ok()?;
    Some(headers.info(&whole))
}

fn wait(fd: &OwnedFd, limit: Duration) {
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    let _ = rustix::event::poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit));
}

fn open(own: &[IpAddr]) -> Result<OwnedFd, Error> {
    let fd = packet_socket()?;
    let _ = sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER);
    let filter = filter(own).ok_or(Errno::EINVAL);
    filter
        .and_then(|filter| sys::attach_filter(fd.as_fd(), &filter))
        .map_err(|errno| call("SO_ATTACH_FILTER", errno))?;
    sys::bind(fd.as_fd(), &link_address(0)).map_err(|errno| call("bind", errno))?;
    Ok(fd)
}

/// Own addresses of one version of IP that are looked for; a jump of a filter reaches no further than 255 steps.
const MOST_OWN: usize = 4;
const IKE: u32 = 500;
const NATT: u32 = 4500;
const UDP: u32 = 17;
/// ESP, AH, the fragment header of IPv6.
const ESP: u32 = 50;
const AH: u32 = 51;
/// The fragment header of IPv6, and its length.
const FRAGMENT: u32 = 44;

/// Takes IP packets from or to one's own addresses that are neither ESP, AH, IKE, ESP in UDP nor later fragments.
fn filter(own: &[IpAddr]) -> Option<Vec<Step>> {
    let mut p = Program::default();
    let (v6, leave, take) = (p.label(), p.label(), p.label());
    // A packet socket of this kind sees packets from their IP header on.
    p.load(libc::BPF_B, 0);
    p.step(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 4);
    p.compare(libc::BPF_JEQ, 4, NEXT, v6);
    p.load(libc::BPF_H, 6);
    p.compare(libc::BPF_JSET, 0x1fff, leave, NEXT);
    p.load(libc::BPF_B, 9);
    p.any(&[ESP, AH], leave);
    p.step(libc::BPF_LDX | libc::BPF_MSH | libc::BPF_B, 0);
    leave_ports(&mut p, libc::BPF_IND, 0, leave);
    let of_v4 =
        |address: &IpAddr| if let IpAddr::V4(v4) = address { Some(v4.octets()) } else { None };
    own.iter().filter_map(of_v4).take(MOST_OWN).for_each(|own| either_end(&mut p, 12, &own, take));
    p.take(0);
    p.place(v6);
    let (whole, ends) = (p.label(), p.label());
    p.load(libc::BPF_B, 6);
    p.any(&[ESP, AH], leave);
    p.compare(libc::BPF_JEQ, FRAGMENT, NEXT, whole);
    p.load(libc::BPF_H, 42);
    p.compare(libc::BPF_JSET, 0xfff8, leave, NEXT);
    p.load(libc::BPF_B, 40);
    p.any(&[ESP, AH], leave);
    leave_ports(&mut p, libc::BPF_ABS, 48, leave);
    p.compare(libc::BPF_JEQ, 0, ends, ends);
    p.place(whole);
    leave_ports(&mut p, libc::BPF_ABS, 40, leave);
    p.place(ends);
    let of_v6 =
        |address: &IpAddr| if let IpAddr::V6(v6) = address { Some(v6.octets()) } else { None };
    own.iter().filter_map(of_v6).take(MOST_OWN).for_each(|own| either_end(&mut p, 8, &own, take));
    p.place(leave);
    p.take(0);
    p.place(take);
    p.take(SNAP);
    p.assemble()
}

/// What was loaded is the protocol: packets of UDP from or to a port of IKE or ESP are left.
fn leave_ports(p: &mut Program, how: u32, header: u32, leave: Label) {
    let other = p.label();
    p.compare(libc::BPF_JEQ, UDP, NEXT, other);
    for at in [0, 2] {
        p.step(libc::BPF_LD | libc::BPF_H | how, header + at);
        p.any(&[IKE, NATT], leave);
    }
    p.place(other);
}

/// Takes what has this address as its source, which stands at that place, or as its destination, which follows.
fn either_end(p: &mut Program, at: u32, own: &[u8], take: Label) {
    for place in [at, at + own.len() as u32] {
        p.bytes_at(place, own, take);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does, for the steps that are used here.
    fn run(steps: &[Step], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        let load = |from: u32, len: usize| {
            let bytes = packet.get(from as usize..from as usize + len)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        loop {
            let Step { code, yes, no, k } = steps[at];
            at += 1;
            let code = u32::from(code);
            let size = match code & 0x18 {
                libc::BPF_W => 4,
                libc::BPF_H => 2,
                _ => 1,
            };
            let loaded = match (code & 7, code & 0xe0) {
                (libc::BPF_LD, libc::BPF_ABS) => load(k, size).map(|v| a = v),
                (libc::BPF_LD, libc::BPF_IND) => load(x + k, size).map(|v| a = v),
                (libc::BPF_LDX, _) => load(k, 1).map(|v| x = 4 * (v & 15)),
                (libc::BPF_ALU, _) => {
                    a >>= k;
                    Some(())
                }
                (libc::BPF_JMP, _) => {
                    let holds = if code & 0xf0 == libc::BPF_JEQ { a == k } else { a & k != 0 };
                    at += usize::from(if holds { yes } else { no });
                    Some(())
                }
                _ => return k,
            };
            if loaded.is_none() {
                return 0;
            }
        }
    }

    const OWN: [&str; 3] = ["10.0.0.1", "fd00::1", "10.0.0.9"];

    fn taken(packet: &[u8]) -> bool {
        let own = OWN.map(|text| text.parse().unwrap());
        run(&filter(&own).unwrap(), packet) > 0
    }

    fn udp(from: &str, to: &str) -> Vec<u8> {
        ipsec::packet::udp(from.parse().unwrap(), to.parse().unwrap(), b"hello").unwrap()
    }

    #[test]
    fn what_is_from_or_to_this_host_is_taken() {
        for (from, to) in [
            ("10.0.0.1:7", "10.0.0.2:8"),
            ("10.0.0.2:7", "10.0.0.9:8"),
            ("[fd00::1]:7", "[fd00::2]:8"),
            ("[fd00::2]:501", "[fd00::1]:8"),
        ] {
            assert!(taken(&udp(from, to)), "{from} -> {to}");
        }
        for (from, to) in [("10.0.0.3:7", "10.0.0.2:8"), ("[fd00::3]:7", "[fd00::2]:8")] {
            assert!(!taken(&udp(from, to)), "{from} -> {to}");
        }
    }

    #[test]
    fn ipsec_and_later_fragments_are_left() {
        for (from, to) in [
            ("10.0.0.1:500", "10.0.0.2:500"),
            ("10.0.0.1:1024", "10.0.0.2:4500"),
            ("10.0.0.2:4500", "10.0.0.1:9"),
            ("[fd00::2]:4500", "[fd00::1]:9"),
            ("[fd00::1]:9", "[fd00::2]:500"),
        ] {
            assert!(!taken(&udp(from, to)), "{from} -> {to}");
        }
        let (v4, v6) = (udp("10.0.0.1:7", "10.0.0.2:8"), udp("[fd00::1]:7", "[fd00::2]:8"));
        for protocol in [50, 51] {
            let (mut v4, mut v6) = (v4.clone(), v6.clone());
            (v4[9], v6[6]) = (protocol, protocol);
            assert!(!taken(&v4) && !taken(&v6), "{protocol}");
        }
        let mut later = v4.clone();
        later[7] = 9;
        assert!(!taken(&later) && !taken(&v4[..15]) && !taken(&[]));
    }

    #[test]
    fn of_ipv6_in_pieces_the_first_is_looked_at() {
        let piece = |to: &str, offset: u16| {
            let mut packet = udp("[fd00::1]:7", to);
            packet[6] = FRAGMENT as u8;
            let [high, low] = (offset << 3 | 1).to_be_bytes();
            packet.splice(40..40, [UDP as u8, 0, high, low, 0, 0, 0, 9]);
            packet
        };
        assert!(taken(&piece("[fd00::2]:8", 0)));
        assert!(!taken(&piece("[fd00::2]:8", 1)) && !taken(&piece("[fd00::2]:4500", 0)));
        assert_eq!(glance(&piece("[fd00::2]:8", 0)).unwrap().dst_port, Some(8));
    }

    #[test]
    fn a_packet_is_read_though_its_end_is_missing() {
        let packet = udp("10.0.0.1:7", "10.0.0.2:8");
        let info = glance(&packet[..28]).unwrap();
        assert_eq!((info.protocol, info.src_port, info.dst_port), (17, Some(7), Some(8)));
        let info = glance(&udp("[fd00::1]:7", "[fd00::2]:8")[..48]).unwrap();
        assert_eq!((info.src, info.dst_port), ("fd00::1".parse().unwrap(), Some(8)));
        assert!(glance(&packet[..3]).is_none() && glance(&[]).is_none());
        assert!(glance(&[0x60; 39]).is_none() && glance(&[0; 64]).is_none());
    }
}
