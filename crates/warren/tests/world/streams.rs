//! A stream of numbered packets between every two hosts, both ways, while something happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::net::Net;

/// 100 packets a second.
const EVERY: Duration = Duration::from_millis(10);

/// When each of a stream's packets arrived, and when all were sent.
pub struct Seen {
    pub sent: Vec<Instant>,
    pub came: BTreeMap<u32, Instant>,
}

impl Seen {
    pub fn lost(&self) -> usize {
        self.sent.len() - self.came.len()
    }

    /// Time from `start` to the first arrival of a packet that was sent after it.
    pub fn first_after(&self, start: Instant) -> Option<Duration> {
        let later = |(n, _): &(&u32, &Instant)| self.sent[**n as usize] >= start;
        self.came.iter().filter(later).map(|(_, at)| at.duration_since(start)).min()
    }
}

struct Running {
    pair: (usize, usize),
    sends: JoinHandle<Vec<Instant>>,
    receives: JoinHandle<BTreeMap<u32, Instant>>,
}

/// Running streams; each from one host to another.
pub struct Streams {
    stop: Arc<AtomicBool>,
    running: Vec<Running>,
}

impl Streams {
    /// Between these.
    pub fn start(net: &Net, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let (stop, over) = (Arc::new(AtomicBool::new(false)), Duration::from_secs(1));
        let running = pairs.into_iter().map(|(from, to)| {
            let (sender, listener) = (net.udp(from, 0), net.udp(to, 0));
            let (address, stopping) = (listener.local_addr().unwrap(), stop.clone());
            let sends = std::thread::spawn(move || {
                let mut sent = Vec::new();
                while !stopping.load(Ordering::Relaxed) {
                    // Refused by a blackhole: it does not arrive.
                    let number = u32::try_from(sent.len()).unwrap();
                    sent.push(Instant::now());
                    let _ = sender.send_to(&number.to_be_bytes(), address);
                    std::thread::sleep(EVERY);
                }
                sent
            });
            let stopped = stop.clone();
            listener.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let receives = std::thread::spawn(move || {
                let (mut came, mut buffer, mut quiet) = (BTreeMap::new(), [0; 4], Instant::now());
                while !stopped.load(Ordering::Relaxed) || quiet.elapsed() < over {
                    if listener.recv_from(&mut buffer).is_ok() {
                        quiet = Instant::now();
                        came.entry(u32::from_be_bytes(buffer)).or_insert(quiet);
                    }
                }
                came
            });
            Running { pair: (from, to), sends, receives }
        });
        Self { running: running.collect(), stop }
    }

    /// Between every two, both ways.
    pub fn all(net: &Net) -> Self {
        let hosts = net.hosts.len();
        let pairs = (0..hosts).flat_map(|a| (0..hosts).map(move |b| (a, b)));
        Self::start(net, pairs.filter(|(a, b)| a != b))
    }

    /// Stops them; what became of each.
    pub fn end(self) -> BTreeMap<(usize, usize), Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = |one: Running| {
            let (sent, came) = (one.sends.join().unwrap(), one.receives.join().unwrap());
            (one.pair, Seen { sent, came })
        };
        self.running.into_iter().map(ended).collect()
    }
}
