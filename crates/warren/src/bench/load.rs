//! The load: TCP streams, packets as many as go, one packet to and fro.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket as Datagrams};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use linux::datagram::{Outgoing, RecvBatch};
use linux::netns::Netns;
use linux::raw::Ip;
use linux::udp::UdpSocket;
use serde::{Deserialize, Serialize};

use super::cpu;
use crate::exit::Failure;
use crate::lab::stop::Stop;

/// What one path does.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// One TCP stream.
    pub tcp_1_mbit_per_s: f64,
    /// Four TCP streams.
    pub tcp_4_mbit_per_s: f64,
    /// IP packets of 64 bytes, thousands a second.
    pub small_kpps: f64,
    /// IP packets of 1,400 bytes, thousands a second.
    pub large_kpps: f64,
    /// Round trip of a packet of 64 bytes.
    pub rtt_p50_us: f64,
    /// The same.
    pub rtt_p99_us: f64,
    /// CPU time of each process per GB of the one TCP stream.
    pub cpu_s_per_gb: Vec<f64>,
}

/// From one namespace to an address of another.
pub struct Path {
    /// Name of the sender's namespace.
    pub from: String,
    /// Name of the receiver's.
    pub to: String,
    /// An address of the receiver.
    pub target: IpAddr,
}

/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(400);
const BLOCK: usize = 128 << 10;
/// IP and UDP header of an IPv4 packet.
const HEADERS: usize = 28;
/// Packets under way at most: fewer than any queue on the way holds, so that what is measured is not how fast it drops.
const WINDOW: u64 = 256;
/// Packets that do not arrive within this are lost.
const LOST: Duration = Duration::from_millis(20);
const BATCH: usize = 32;

/// Measures everything, one after the other, each for so many seconds.
pub fn measure(
    path: &Path,
    seconds: u16,
    processes: &[u32],
    stop: &Stop,
) -> Result<Measured, Failure> {
    let time = Duration::from_secs(seconds.into());
    let go_on = || match stop.wanted() {
        true => Err(std::io::Error::other("interrupted")),
        false => Ok(()),
    };
    let all = || -> std::io::Result<Measured> {
        let one = path.tcp(1, time, processes)?;
        go_on()?;
        let four = path.tcp(4, time, &[])?;
        go_on()?;
        let small = path.packets(64, time)?;
        go_on()?;
        let large = path.packets(1400, time)?;
        go_on()?;
        let mut trips = path.round_trips(time)?;
        go_on()?;
        trips.sort_unstable();
        let at = |percent: usize| match trips.len() {
            0 => f64::NAN,
            count => trips[(count * percent / 100).min(count - 1)] as f64 / 1000.0,
        };
        Ok(Measured {
            tcp_1_mbit_per_s: one.rate * 8.0 / 1e6,
            tcp_4_mbit_per_s: four.rate * 8.0 / 1e6,
            small_kpps: small.rate / 1000.0,
            large_kpps: large.rate / 1000.0,
            rtt_p50_us: at(50),
            rtt_p99_us: at(99),
            cpu_s_per_gb: one.cpu.iter().map(|cpu| cpu / (one.rate / 1e9)).collect(),
        })
    };
    all().map_err(Failure::no)
}

/// What was counted in a second, and the CPU that each process used in it.
struct Metered {
    rate: f64,
    cpu: Vec<f64>,
}

/// Watches a counter for a while.
fn meter(count: &AtomicU64, time: Duration, processes: &[u32]) -> Metered {
    sleep(WARM_UP);
    let used = || processes.iter().map(|pid| cpu::used(*pid)).collect::<Vec<_>>();
    let (began, first, before) = (Instant::now(), count.load(Relaxed), used());
    sleep(time);
    let (took, last, after) = (began.elapsed().as_secs_f64(), count.load(Relaxed), used());
    let cpu = before.iter().zip(after).map(|(before, after)| (after - before) / took).collect();
    Metered { rate: (last - first) as f64 / took, cpu }
}

impl Path {
    /// Between these two namespaces.
    pub fn open(from: &str, to: &str, target: IpAddr) -> Result<Self, String> {
        let path = Self { from: from.to_owned(), to: to.to_owned(), target };
        for name in [from, to] {
            Netns::open(name).map_err(|error| error.to_string())?;
        }
        Ok(path)
    }

    /// Waits until a packet comes through.
    pub fn wait(&self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            match self.round_trips(Duration::from_millis(50)) {
                Ok(trips) if !trips.is_empty() => return Ok(()),
                outcome if Instant::now() > end => {
                    let why = outcome.err().map_or(String::new(), |error| format!(": {error}"));
                    return Err(format!("no packet came through to {}{why}", self.target));
                }
                _ => sleep(Duration::from_millis(50)),
            }
        }
    }

    fn inside<T: Send>(
        &self,
        name: &str,
        work: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> std::io::Result<T> {
        Netns::open(name).map_err(std::io::Error::other)?.run(work)
    }

    fn tcp(&self, streams: usize, time: Duration, processes: &[u32]) -> std::io::Result<Metered> {
        let listener = self.inside(&self.to, || TcpListener::bind((self.target, 0)))?;
        let to = listener.local_addr()?;
        let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            for _ in 0..streams {
                let out = self.inside(&self.from, || TcpStream::connect(to))?;
                let (into, _) = listener.accept()?;
                pour(scope, out, into, &count, &stop);
            }
            Ok(meter(&count, time, processes))
        })
    }

    fn packets(&self, length: usize, time: Duration) -> std::io::Result<Metered> {
        let ip = Ip::of(self.target);
        let bind = |at: IpAddr| move || UdpSocket::plain(ip, at).map_err(std::io::Error::other);
        let receiver = self.inside(&self.to, bind(self.target))?;
        let anywhere = match ip {
            Ip::V4 => IpAddr::from([0; 4]),
            Ip::V6 => IpAddr::from([0; 16]),
        };
        let sender = self.inside(&self.from, bind(anywhere))?;
        let to = SocketAddr::new(self.target, receiver.port());
        let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            scope.spawn(|| receive(&receiver, &count, &stop));
            scope.spawn(|| send(&sender, to, length - HEADERS, &count, &stop));
            Ok(meter(&count, time, &[]))
        })
    }

    /// Nanoseconds of each.
    fn round_trips(&self, time: Duration) -> std::io::Result<Vec<u64>> {
        let echo = self.inside(&self.to, || Datagrams::bind((self.target, 0)))?;
        let from = if self.target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let caller = self.inside(&self.from, || Datagrams::bind(from))?;
        caller.connect(echo.local_addr()?)?;
        for socket in [&echo, &caller] {
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            scope.spawn(|| answer(&echo, &stop));
            let (mut trips, end) = (Vec::new(), Instant::now() + time);
            while Instant::now() < end {
                let number = (trips.len() as u64).to_be_bytes();
                let mut packet = [0; 64 - HEADERS];
                packet[..8].copy_from_slice(&number);
                let began = Instant::now();
                // What is refused or lost is no round trip; a late answer is not one to this packet.
                if caller.send(&packet).is_ok()
                    && caller.recv(&mut packet).is_ok()
                    && packet[..8] == number
                {
                    trips.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
            }
            Ok(trips)
        })
    }
}

/// Sets its flag when it goes, so that threads end however the measurement does.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn pour<'s>(
    scope: &'s Scope<'s, '_>,
    mut out: TcpStream,
    mut into: TcpStream,
    count: &'s AtomicU64,
    stop: &'s AtomicBool,
) {
    // A stream that stalls for good must not hold the benchmark.
    let limit = Some(Duration::from_secs(1));
    let _ = (out.set_write_timeout(limit), into.set_read_timeout(limit));
    scope.spawn(move || {
        let block = vec![0x5a; BLOCK];
        while !stop.load(Relaxed) {
            let _ = out.write(&block);
        }
    });
    scope.spawn(move || {
        let mut block = vec![0; BLOCK];
        while !stop.load(Relaxed) {
            count.fetch_add(into.read(&mut block).unwrap_or(0) as u64, Relaxed);
        }
    });
}

/// As many as go, a bounded number under way.
fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    payload: usize,
    received: &AtomicU64,
    stop: &AtomicBool,
) {
    let bytes = vec![0; payload];
    let items = [Outgoing::new(to, &bytes); BATCH];
    let mut sent = 0;
    let mut seen = (0, Instant::now());
    while !stop.load(Relaxed) {
        let arrived = received.load(Relaxed);
        if arrived != seen.0 {
            seen = (arrived, Instant::now());
        }
        if sent + BATCH as u64 <= arrived + WINDOW {
            sent += socket.send(&items, |_, _| {}) as u64;
        } else if seen.1.elapsed() > LOST {
            (sent, seen) = (arrived, (arrived, Instant::now()));
        } else {
            sleep(Duration::from_micros(20));
        }
    }
}

fn receive(socket: &UdpSocket, count: &AtomicU64, stop: &AtomicBool) {
    let mut batch = RecvBatch::new(2048);
    while !stop.load(Relaxed) {
        match socket.receive_within(&mut batch, Duration::from_millis(50)) {
            Ok(received) => drop(count.fetch_add(received as u64, Relaxed)),
            Err(_) => sleep(Duration::from_millis(1)),
        }
    }
}

fn answer(socket: &Datagrams, stop: &AtomicBool) {
    let mut packet = [0; 64];
    while !stop.load(Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut packet) {
            let _ = socket.send_to(&packet[..length], from);
        }
    }
}
