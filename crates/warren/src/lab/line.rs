//! Links with faults: whatever a host sends and gets passes through this program, which loses, delays, changes or
//! refuses it. No module of the kernel is needed, and chance comes from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linux::tun::Tun;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::net::{self, Host};

pub mod frame;
pub mod narrow;
pub mod nat;
pub mod weather;

/// Which way a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// From the host.
    Out,
    /// To the host.
    In,
}

/// A frame that comes out of a line, on either side of it.
pub struct Delivery {
    /// When.
    pub at: Instant,
    /// To whom.
    pub way: Way,
    /// With its Ethernet header.
    pub frame: Vec<u8>,
}

/// What a line does to frames.
pub trait Passage: Send {
    /// A frame comes in; what comes of it.
    fn pass(&mut self, now: Instant, way: Way, frame: Vec<u8>, out: &mut Vec<Delivery>);
}

/// Running lines, one for each of some hosts. Where they end, the hosts are cut off.
pub struct Lines<P> {
    passages: Arc<Vec<Mutex<P>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The two devices of a line.
struct Ends {
    host: Tun,
    switch: Tun,
}

/// Frames of one device that are read before another one's turn.
const TURN: usize = 64;
/// The longest time without a look at whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Longer than any frame of the lab.
const LONGEST_FRAME: usize = 16_384;

impl<P: Passage + 'static> Lines<P> {
    /// Puts a line between each of these hosts and the switch.
    pub fn put(lines: Vec<(&Host, P)>) -> Result<Self, String> {
        let (mut ends, mut passages) = (Vec::new(), Vec::new());
        for (host, passage) in lines {
            let (host, switch) = net::open_line(host)?;
            ends.push(Ends { host, switch });
            passages.push(Mutex::new(passage));
        }
        let passages = Arc::new(passages);
        let stop = Arc::new(AtomicBool::new(false));
        let carrier = Carrier {
            ends,
            passages: passages.clone(),
            under_way: BinaryHeap::new(),
            number: 0,
            buffer: vec![0; LONGEST_FRAME],
        };
        let flag = stop.clone();
        let thread = std::thread::spawn(move || carrier.run(&flag));
        Ok(Self { passages, stop, thread: Some(thread) })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.passages.len()
    }

    /// Looks at a line, or changes it.
    pub fn with<T>(&self, line: usize, change: impl FnOnce(&mut P) -> T) -> T {
        change(&mut lock(&self.passages[line]))
    }
}

impl<P> Drop for Lines<P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<P>(passage: &Mutex<P>) -> std::sync::MutexGuard<'_, P> {
    passage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is under way: when it arrives, in which order it came, on which line, which way.
type UnderWay = Reverse<(Instant, u64, usize, Way, Vec<u8>)>;

struct Carrier<P> {
    ends: Vec<Ends>,
    passages: Arc<Vec<Mutex<P>>>,
    under_way: BinaryHeap<UnderWay>,
    number: u64,
    buffer: Vec<u8>,
}

impl<P: Passage> Carrier<P> {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            for line in 0..self.ends.len() {
                self.take(line, Way::Out);
                self.take(line, Way::In);
            }
            self.deliver();
        }
    }

    fn wait(&self) {
        let next = self.under_way.peek().map(|Reverse((at, ..))| *at);
        let left = next.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let devices = self.ends.iter().flat_map(|ends| [&ends.host, &ends.switch]);
        let mut polled: Vec<_> = devices.map(|tun| PollFd::new(tun, PollFlags::IN)).collect();
        // Interrupted: the next round waits.
        let _ = rustix::event::poll(&mut polled, Some(&limit));
    }

    fn take(&mut self, line: usize, way: Way) {
        let mut out = Vec::new();
        for _ in 0..TURN {
            let ends = &self.ends[line];
            let from = if way == Way::Out { &ends.host } else { &ends.switch };
            // A device that broke shows in what does not arrive.
            let Ok(Some(length)) = from.read(&mut self.buffer) else { break };
            let frame = self.buffer[..length].to_vec();
            lock(&self.passages[line]).pass(Instant::now(), way, frame, &mut out);
        }
        for Delivery { at, way, frame } in out {
            self.number += 1;
            self.under_way.push(Reverse((at, self.number, line, way, frame)));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.under_way.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, line, way, frame))) = self.under_way.pop() else { return };
            let ends = &self.ends[line];
            let to = if way == Way::Out { &ends.switch } else { &ends.host };
            let _ = to.write(&frame);
        }
    }
}
