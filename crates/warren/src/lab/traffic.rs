//! Numbered UDP packets between all hosts: what was sent, and what of it arrived.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use linux::netns::Netns;
use nix::sys::socket::{setsockopt, sockopt};

use super::net::{Host, INTERFACE};

const PORT: u16 = 5151;
const MAGIC: &[u8; 8] = b"warren-1";
/// What two busy cores carry through 20 userspace data planes with room to spare.
const MAX_RATE: f64 = 4000.0;

/// An address of a host at which packets are sent and received.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// The host.
    pub host: &'a Host,
    /// One of its addresses.
    pub address: IpAddr,
}

impl<'a> End<'a> {
    /// Those of the hosts' first interfaces, one family after the other.
    pub fn all(hosts: &'a [Host]) -> Vec<Self> {
        let first = hosts.iter().map(|host| End { host, address: host.address });
        let more = hosts.iter().flat_map(|host| {
            let here = host.more.iter().filter(|nic| nic.interface == INTERFACE);
            here.map(move |nic| End { host, address: nic.address })
        });
        first.chain(more).collect()
    }

    /// What it is called: by its host, and by its family where that has two.
    pub fn name(&self) -> String {
        match self.address == self.host.address {
            true => self.host.name.clone(),
            false => format!("{}/{}", self.host.name, if self.address.is_ipv4() { 4 } else { 6 }),
        }
    }
}

/// Sockets on every host, and the counts.
pub struct Traffic {
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    /// `sent[from][to]`.
    pub sent: Vec<Vec<u64>>,
    /// `received[from][to]`: distinct packets; a duplicate is not counted twice.
    pub received: Vec<Vec<u64>>,
    seen: Vec<Vec<Vec<bool>>>,
    /// Stands in each packet: those sent before counting began anew are not counted.
    epoch: u32,
}

impl Traffic {
    /// Opens a socket at each end.
    pub fn open(ends: &[End<'_>]) -> Result<Self, String> {
        let addresses: Vec<_> = ends.iter().map(|end| SocketAddr::new(end.address, PORT)).collect();
        let sockets = ends
            .iter()
            .zip(&addresses)
            .map(|(end, address)| socket(end.host, *address))
            .collect::<Result<_, _>>()?;
        let (n, zero) = (ends.len(), vec![vec![0; ends.len()]; ends.len()]);
        Ok(Self {
            sockets,
            addresses,
            sent: zero.clone(),
            received: zero,
            seen: vec![vec![Vec::new(); n]; n],
            epoch: 0,
        })
    }

    /// Whether one sends to the other: of one family, and not the same.
    pub fn is_pair(&self, from: usize, to: usize) -> bool {
        from != to && self.addresses[from].is_ipv4() == self.addresses[to].is_ipv4()
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let all = 0..self.sockets.len();
        let every = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
        every.filter(|(from, to)| self.is_pair(*from, *to)).collect()
    }

    /// One packet from every end to every other.
    pub fn round(&mut self) {
        let mut before = 0;
        for (from, to) in self.pairs() {
            if from != before {
                self.receive();
            }
            self.send(from, to);
            before = from;
        }
        self.receive();
    }

    /// Rounds, a second apart, until every host has heard from every other; then counting begins anew.
    /// For data planes that do not hold the packet that asks for an SA. How long it took, if it came to that.
    pub fn knock(&mut self, limit: Duration, stop: &dyn Fn() -> bool) -> Option<Duration> {
        let start = Instant::now();
        let hosts = self.sockets.len();
        while start.elapsed() < limit && !stop() {
            self.round();
            let next = Instant::now() + Duration::from_secs(1);
            while Instant::now() < next && !self.all_heard() {
                self.receive();
                sleep(Duration::from_millis(2));
            }
            if self.all_heard() {
                let took = start.elapsed();
                // What is still under way belongs to the knocking.
                self.drain(Duration::from_millis(200), stop);
                let zero = vec![vec![0; hosts]; hosts];
                (self.sent, self.received, self.seen) =
                    (zero.clone(), zero, vec![vec![Vec::new(); hosts]; hosts]);
                self.epoch += 1;
                return Some(took);
            }
        }
        None
    }

    fn all_heard(&self) -> bool {
        self.pairs().iter().all(|(from, to)| self.received[*from][*to] > 0)
    }

    /// `count` rounds, spread over time so that the machine keeps up.
    pub fn rounds(&mut self, count: u32, stop: &dyn Fn() -> bool) {
        let directions = self.pairs().len();
        let pause = Duration::from_secs_f64((directions as f64 / MAX_RATE).max(0.02));
        for _ in 0..count {
            if stop() {
                return;
            }
            let next = Instant::now() + pause;
            self.round();
            while Instant::now() < next {
                self.receive();
                sleep(Duration::from_millis(1));
            }
        }
    }

    /// Receives until everything that was sent has arrived, or the time is over. How long that took, if it did.
    pub fn drain(&mut self, limit: Duration, stop: &dyn Fn() -> bool) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < limit && !stop() {
            self.receive();
            if self.received == self.sent {
                return Some(start.elapsed());
            }
            sleep(Duration::from_millis(2));
        }
        None
    }

    fn send(&mut self, from: usize, to: usize) {
        let number = self.sent[from][to];
        let mut packet = MAGIC.to_vec();
        packet.extend((from as u32).to_be_bytes());
        packet.extend((to as u32).to_be_bytes());
        packet.extend(number.to_be_bytes());
        packet.extend(self.epoch.to_be_bytes());
        packet.resize(64, 0);
        // One that the host itself refuses was not carried either: it counts as sent, and so as lost.
        if let Err(error) = self.sockets[from].send_to(&packet, self.addresses[to]) {
            tracing::debug!("sending from host {from} to host {to}: {error}");
        }
        self.sent[from][to] += 1;
        self.seen[from][to].push(false);
    }

    fn receive(&mut self) {
        let mut buffer = [0; 256];
        for to in 0..self.sockets.len() {
            loop {
                match self.sockets[to].recv_from(&mut buffer) {
                    Ok((length, source)) => self.count(to, source, &buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
            }
        }
    }

    fn count(&mut self, to: usize, source: SocketAddr, packet: &[u8]) {
        let number = |at: usize| {
            packet.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
        };
        let (Some(from), Some(meant), Some(seq)) = (number(8), number(12), packet.get(16..24))
        else {
            return;
        };
        if number(24) != Some(self.epoch) {
            return;
        }
        let seq = u64::from_be_bytes(seq.try_into().unwrap_or_default());
        let from = from as usize;
        if !packet.starts_with(MAGIC)
            || meant as usize != to
            || self.addresses.get(from) != Some(&source)
        {
            return;
        }
        if let Some(seen) =
            usize::try_from(seq).ok().and_then(|seq| self.seen[from][to].get_mut(seq))
        {
            self.received[from][to] += u64::from(!*seen);
            *seen = true;
        }
    }
}

fn socket(host: &Host, address: SocketAddr) -> Result<UdpSocket, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {address}: {error}", host.name);
    let netns = Netns::open(&host.namespace()).map_err(|error| failed(&error))?;
    let socket = netns.run(|| UdpSocket::bind(address)).map_err(|error| failed(&error))?;
    socket.set_nonblocking(true).map_err(|error| failed(&error))?;
    // Beyond the system's limit where that is allowed: a burst of all peers must not be lost in the judge's own buffer.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20));
    Ok(socket)
}
