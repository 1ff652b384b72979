//! Carries out what the pipeline decided: ESP, ESP in UDP, whole packets, and packets for the stack.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use ipsec::Instant;
use ipsec::packet::{Headers, proto};
use ipsec::pipeline::{Emit, OuterPacket, Pipeline};

use super::runs::{Out, Runs};
use super::{Error, locked};
use crate::datagram::Outgoing;
use crate::errno::Errno;
use crate::raw::{self, Ip, RawEsp, RawIp};
use crate::route::Rtnl;
use crate::tun::{Offload, Tun};
use crate::udp::{Ports, UdpSocket};

/// Every way out of the data plane. Shared by all threads.
pub(super) struct Wires {
    pub(super) tun: Arc<Tun>,
    pub(super) ports: Arc<Ports>,
    pub(super) esp: Vec<RawEsp>,
    whole: Vec<(Ip, RawIp)>,
    /// Asked for path MTUs.
    rtnl: Mutex<Rtnl>,
    mark: u32,
    /// The kernel cuts large UDP datagrams for us.
    segments: AtomicBool,
    /// The stack takes large packets.
    pub(super) joins: AtomicBool,
    pub(super) counts: Counts,
    broken: Mutex<Option<String>>,
}

/// What happened to packets outside the pipeline.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) send_failed: AtomicU64,
    pub(super) send_too_long: AtomicU64,
    pub(super) stack_refused: AtomicU64,
    pub(super) stack_malformed: AtomicU64,
    pub(super) mark_lost: AtomicU64,
    pub(super) ike_in: AtomicU64,
    pub(super) keepalives_in: AtomicU64,
    pub(super) udp_malformed: AtomicU64,
    pub(super) receive_failed: AtomicU64,
}

/// Most path MTUs that one round asks for.
const MAX_PATH_QUESTIONS: usize = 16;

/// Packets of one round by the socket that sends them.
#[derive(Default)]
struct Sorted<'a> {
    esp: [Vec<Outgoing<'a>>; 2],
    udp: Vec<(u16, Outgoing<'a>)>,
    whole: [Vec<(IpAddr, &'a [u8])>; 2],
}

impl Wires {
    pub(super) fn open(tun: Arc<Tun>, ports: Arc<Ports>, mark: u32) -> Result<Self, Error> {
        let mut esp = Vec::new();
        for ip in [Ip::V4, Ip::V6] {
            match RawEsp::open(ip, mark) {
                Ok(socket) => esp.push(socket),
                // A host without IPv6.
                Err(raw::Error { errno: Errno::EAFNOSUPPORT, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Self::adopt(tun, ports, esp, mark)
    }

    /// With sockets for ESP that another process has opened: what came for them is in their queues.
    pub(super) fn adopt(
        tun: Arc<Tun>,
        ports: Arc<Ports>,
        mut esp: Vec<RawEsp>,
        mark: u32,
    ) -> Result<Self, Error> {
        esp.sort_by_key(RawEsp::ip);
        let mut whole = Vec::new();
        for socket in &esp {
            whole.push((socket.ip(), RawIp::open(socket.ip(), mark)?));
        }
        let (rtnl, counts, broken) =
            (Mutex::new(Rtnl::open()?), Counts::default(), Mutex::default());
        let offload = tun.offload() != Offload::None;
        for socket in ports.sockets().iter().filter(|socket| socket.port() != 500) {
            socket.set_coalesced(offload);
        }
        let (segments, joins) = (offload.into(), offload.into());
        Ok(Self { tun, ports, esp, whole, rtnl, mark, segments, joins, counts, broken })
    }

    /// Empties `emit`.
    pub(super) fn carry_out(&self, pipeline: &Pipeline, now: Instant, emit: &mut Vec<Emit>) {
        if emit.is_empty() {
            return;
        }
        let built = self.build_rare(emit);
        let mut sorted = Sorted::default();
        for one in emit.iter() {
            match one {
                Emit::Deliver(packet) => self.deliver(packet),
                Emit::Clear(packet) => sorted.whole(packet),
                Emit::Esp(packet) => sorted.esp[index(packet.dst)]
                    .push(outgoing(packet, SocketAddr::new(packet.dst, 0))),
                Emit::EspInUdp { packet, local_port, remote } => {
                    sorted.udp.push((*local_port, outgoing(packet, *remote)))
                }
            }
        }
        for packet in &built {
            sorted.whole(packet);
        }
        let too_long = self.send(sorted);
        emit.clear();
        self.learn(pipeline, now, too_long);
    }

    /// Counters by name.
    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counts {
            sent,
            send_failed,
            send_too_long,
            stack_refused,
            stack_malformed,
            mark_lost,
            ike_in,
            keepalives_in,
            udp_malformed,
            receive_failed,
        } = &self.counts;
        [
            ("wire_sent", sent),
            ("wire_send_failed", send_failed),
            ("wire_send_too_long", send_too_long),
            ("wire_receive_failed", receive_failed),
            ("wire_mark_lost", mark_lost),
            ("wire_udp_malformed", udp_malformed),
            ("wire_keepalives_in", keepalives_in),
            ("wire_ike_in", ike_in),
            ("stack_refused", stack_refused),
            ("stack_malformed", stack_malformed),
        ]
        .map(|(name, count)| (name, count.load(Relaxed)))
        .to_vec()
    }

    /// Remembers why no packets flow any more.
    pub(super) fn set_broken(&self, why: String) {
        *locked(&self.broken) = Some(why);
    }

    pub(super) fn broken(&self) -> Option<String> {
        locked(&self.broken).clone()
    }

    /// Packets with IP options or IPv6 extension headers before ESP, which no cheaper socket can send, as whole packets.
    fn build_rare(&self, emit: &mut Vec<Emit>) -> Vec<Vec<u8>> {
        let mut built = Vec::new();
        emit.retain(|one| {
            let rare = match one {
                Emit::Esp(packet) | Emit::EspInUdp { packet, .. } => !packet.options.is_empty(),
                Emit::Clear(_) | Emit::Deliver(_) => false,
            };
            if rare {
                built.extend(one.to_ip());
            }
            !rare
        });
        built
    }

    /// Sends what was sealed, and empties it.
    pub(super) fn send_runs(&self, pipeline: &Pipeline, now: Instant, runs: &mut Runs) {
        if runs.is_empty() {
            return;
        }
        let large = self.segments.load(Relaxed);
        let mut too_long = BTreeSet::new();
        let mut again = Vec::new();
        for (socket, items) in runs.by_socket(large) {
            let sent = self.send_to(socket, &items, |item, errno| match (item.segment, errno) {
                // For want of room, which its parts would not find either.
                (0, _) | (_, Errno::EAGAIN | Errno::ENOBUFS) => {
                    self.refused(item, errno, &mut too_long);
                }
                // Not as one; each for itself, and what is wrong with it will show.
                _ => {
                    // EIO: the device computes no checksums.
                    if errno == Errno::EIO {
                        self.segments.store(false, Relaxed);
                    }
                    again.push((socket, *item));
                }
            });
            self.counts.sent.fetch_add(sent as u64, Relaxed);
        }
        for (socket, item) in again {
            let pieces = item.bytes.chunks(item.segment.into());
            let pieces: Vec<_> =
                pieces.map(|bytes| Outgoing { segment: 0, bytes, ..item }).collect();
            let sent = self.send_to(socket, &pieces, |item, errno| {
                self.refused(item, errno, &mut too_long);
            });
            self.counts.sent.fetch_add(sent as u64, Relaxed);
        }
        runs.clear();
        self.learn(pipeline, now, too_long);
    }

    /// How many packets went out.
    fn send_to<'a>(
        &self,
        socket: Out,
        items: &[Outgoing<'a>],
        mut failed: impl FnMut(&Outgoing<'a>, Errno),
    ) -> usize {
        let (mut lost, mut each) = (0, |index: usize, errno| {
            let item: &Outgoing<'a> = &items[index];
            failed(item, errno);
            pieces(item)
        });
        let all: usize = items.iter().map(pieces).sum();
        match socket {
            Out::Raw(ip) => match self.esp.iter().find(|socket| socket.ip() == ip) {
                Some(socket) => drop(socket.send(items, |i, errno| lost += each(i, errno))),
                None => lost = (0..items.len()).map(|i| each(i, Errno::EAFNOSUPPORT)).sum(),
            },
            Out::Udp(ip, port) => match self.ports.get(ip, port) {
                Some(socket) => drop(socket.send(items, |i, errno| lost += each(i, errno))),
                None => lost = (0..items.len()).map(|i| each(i, Errno::EADDRNOTAVAIL)).sum(),
            },
        }
        all - lost
    }

    fn refused(&self, item: &Outgoing<'_>, errno: Errno, too_long: &mut BTreeSet<IpAddr>) {
        self.count_refused(item.remote.ip(), pieces(item), errno, too_long);
    }

    fn count_refused(
        &self,
        dst: IpAddr,
        packets: usize,
        errno: Errno,
        too_long: &mut BTreeSet<IpAddr>,
    ) {
        match errno {
            Errno::EMSGSIZE => {
                self.counts.send_too_long.fetch_add(packets as u64, Relaxed);
                too_long.insert(dst);
            }
            _ => drop(self.counts.send_failed.fetch_add(packets as u64, Relaxed)),
        }
    }

    fn deliver(&self, packet: &[u8]) {
        if !matches!(self.tun.write(packet), Ok(true)) {
            self.counts.stack_refused.fetch_add(1, Relaxed);
        }
    }

    /// Sends; returns to whom packets were too long.
    fn send(&self, sorted: Sorted<'_>) -> BTreeSet<IpAddr> {
        let mut too_long = BTreeSet::new();
        let mut failed =
            |dst: IpAddr, errno: Errno| self.count_refused(dst, 1, errno, &mut too_long);
        let mut sent = 0;
        for (family, items) in sorted.esp.iter().enumerate().filter(|(_, items)| !items.is_empty())
        {
            match self.esp.get(family) {
                Some(socket) => {
                    sent += socket.send(items, |i, errno| failed(items[i].remote.ip(), errno))
                }
                None => items.iter().for_each(|item| failed(item.remote.ip(), Errno::EAFNOSUPPORT)),
            }
        }
        for (family, items) in
            sorted.whole.iter().enumerate().filter(|(_, items)| !items.is_empty())
        {
            match self.whole.get(family) {
                Some((_, socket)) => {
                    sent += socket.send(items, |i, errno| failed(items[i].0, errno))
                }
                None => items.iter().for_each(|(dst, _)| failed(*dst, Errno::EAFNOSUPPORT)),
            }
        }
        sent += self.send_udp(sorted.udp, &mut failed);
        self.counts.sent.fetch_add(sent as u64, Relaxed);
        too_long
    }

    /// In runs of one socket, which almost always is one run.
    fn send_udp(
        &self,
        mut items: Vec<(u16, Outgoing<'_>)>,
        failed: &mut impl FnMut(IpAddr, Errno),
    ) -> usize {
        let mut sent = 0;
        items.sort_by_key(|(port, item)| (*port, item.remote.is_ipv6()));
        for run in
            items.chunk_by(|(p, a), (q, b)| p == q && a.remote.is_ipv6() == b.remote.is_ipv6())
        {
            let (port, first) = run[0];
            let socket: Option<&UdpSocket> = self.ports.get(Ip::of(first.remote.ip()), port);
            let run: Vec<_> = run.iter().map(|(_, item)| *item).collect();
            match socket {
                Some(socket) => {
                    sent += socket.send(&run, |i, errno| failed(run[i].remote.ip(), errno))
                }
                None => run.iter().for_each(|item| failed(item.remote.ip(), Errno::EADDRNOTAVAIL)),
            }
        }
        sent
    }

    /// The kernel knows the path MTU by now, from ICMP or from its device: so shall the pipeline.
    fn learn(&self, pipeline: &Pipeline, now: Instant, too_long: BTreeSet<IpAddr>) {
        for dst in too_long.into_iter().take(MAX_PATH_QUESTIONS) {
            if let Ok(found) = locked(&self.rtnl).get_route(dst, self.mark)
                && found.mtu > 0
            {
                pipeline.set_path_mtu(now, dst, found.mtu);
            }
        }
    }
}

impl<'a> Sorted<'a> {
    fn whole(&mut self, packet: &'a [u8]) {
        if let Some(dst) = destination(packet) {
            self.whole[index(dst)].push((dst, packet));
        }
    }
}

/// How many packets it is.
fn pieces(item: &Outgoing<'_>) -> usize {
    match item.segment {
        0 => 1,
        size => item.bytes.len().div_ceil(size.into()),
    }
}

/// Whether a packet from the stack is one of our own whose mark somebody took away: it must not go round again.
pub(super) fn is_our_own(packet: &[u8], headers: &Headers) -> bool {
    if headers.protocol == proto::ESP {
        return true;
    }
    let info = headers.info(packet);
    headers.protocol == proto::UDP && info.src_port.is_some_and(|port| super::PORTS.contains(&port))
}

fn outgoing(packet: &OuterPacket, remote: SocketAddr) -> Outgoing<'_> {
    Outgoing {
        remote,
        local: Some(packet.src),
        tos: Some(packet.tos),
        ttl: Some(packet.ttl),
        dont_fragment: packet.dont_fragment,
        segment: 0,
        bytes: &packet.esp,
    }
}

fn index(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(IpAddr::from),
        6 => <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ipsec::packet;

    use super::*;

    fn udp(from: &str, to: &str) -> Vec<u8> {
        packet::udp(from.parse().unwrap(), to.parse().unwrap(), b"x").unwrap()
    }

    #[test]
    fn destinations_are_found() {
        assert_eq!(
            destination(&udp("10.0.0.1:1", "10.0.0.2:2")),
            Some("10.0.0.2".parse().unwrap())
        );
        assert_eq!(
            destination(&udp("[fd00::1]:1", "[fd00::2]:2")),
            Some("fd00::2".parse().unwrap())
        );
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x45; 19]), None);
        assert_eq!(destination(&[0x60; 39]), None);
    }

    #[test]
    fn own_packets_are_known_again() {
        let is_our_own =
            |packet: &[u8]| packet::parse(packet).is_ok_and(|h| super::is_our_own(packet, &h));
        assert!(is_our_own(&udp("10.0.0.1:500", "10.0.0.2:500")));
        assert!(is_our_own(&udp("[fd00::1]:4500", "[fd00::2]:9")));
        assert!(!is_our_own(&udp("10.0.0.1:53", "10.0.0.2:4500")));
        assert!(!is_our_own(&[0x45; 10]));
        let mut esp = udp("10.0.0.1:1", "10.0.0.2:2");
        esp[9] = 50;
        packet::fill_ipv4_checksum(&mut esp[..20]);
        assert!(is_our_own(&esp));
    }
}
