//! Steady streams of numbered packets between the hosts, in a thread of their own, with a book of what arrived and when.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linux::netns::Netns;
use nix::sys::socket::{setsockopt, sockopt};

use super::net::Host;

/// Where the streams go to.
pub const PORT: u16 = 5150;
const MAGIC: &[u8; 8] = b"warren-2";
/// Packets a second of each stream, where the machine can carry it.
pub const RATE: f64 = 100.0;
/// Packets a second of all streams together, at most: what two busy cores carry with room to spare.
const MOST: f64 = 4000.0;
/// The book's bound: some half an hour at that rate.
const LONGEST: usize = 1 << 23;

/// An ordered pair of hosts: from, to.
pub type Pair = (usize, usize);

/// What became of the packets of one stream.
#[derive(Default, Clone, Debug)]
struct Record {
    /// When each was sent, and when it arrived; both since the beginning.
    packets: Vec<(Duration, Option<Duration>)>,
}

/// What became of all packets.
#[derive(Default, Clone, Debug)]
pub struct Book {
    pairs: Vec<Pair>,
    records: Vec<Record>,
    /// Streams that pause.
    muted: BTreeSet<Pair>,
}

/// Packets that were sent within some time, and those of them that did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Loss {
    /// Sent.
    pub sent: u64,
    /// Did not arrive.
    pub lost: u64,
}

impl Book {
    /// Of no stream yet.
    pub fn new(pairs: Vec<Pair>) -> Self {
        let records = vec![Record::default(); pairs.len()];
        Self { pairs, records, muted: BTreeSet::new() }
    }

    /// More streams.
    pub fn add(&mut self, pairs: Vec<Pair>) {
        self.records.resize_with(self.records.len() + pairs.len(), Record::default);
        self.pairs.extend(pairs);
    }

    /// Only these pause from now on.
    pub fn mute(&mut self, of: impl Fn(Pair) -> bool) {
        self.muted = self.pairs.iter().copied().filter(|pair| of(*pair)).collect();
    }

    /// Whether a stream pauses.
    pub fn is_muted(&self, pair: Pair) -> bool {
        self.muted.contains(&pair)
    }

    /// The streams.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    fn sent(&mut self, stream: usize, at: Duration) -> u64 {
        let packets = &mut self.records[stream].packets;
        packets.push((at, None));
        packets.len() as u64 - 1
    }

    fn arrived(&mut self, stream: usize, number: u64, at: Duration) {
        let record = self.records.get_mut(stream);
        let packet = record
            .zip(usize::try_from(number).ok())
            .and_then(|(record, number)| record.packets.get_mut(number));
        // A duplicate does not count, and does not move the time.
        if let Some((_, arrival @ None)) = packet {
            *arrival = Some(at);
        }
    }

    /// Loss among the packets sent from `from` on, and before `to`, of the pairs that are asked for.
    pub fn loss(&self, from: Duration, to: Duration, of: impl Fn(Pair) -> bool) -> Loss {
        let mut loss = Loss::default();
        for (_, packets) in self.of(from, to, &of) {
            loss.sent += packets.len() as u64;
            loss.lost += packets.iter().filter(|(_, arrival)| arrival.is_none()).count() as u64;
        }
        loss
    }

    /// Those that lost some, with how many and when the first and the last of those was sent.
    pub fn losers(
        &self,
        from: Duration,
        to: Duration,
        of: impl Fn(Pair) -> bool,
    ) -> Vec<(Pair, u64, Duration, Duration)> {
        self.of(from, to, &of)
            .filter_map(|(pair, packets)| {
                let mut lost =
                    packets.iter().filter(|(_, arrival)| arrival.is_none()).map(|(sent, _)| *sent);
                let first = lost.next()?;
                let (count, last) = lost.fold((1, first), |(count, _), sent| (count + 1, sent));
                Some((pair, count, first, last))
            })
            .collect()
    }

    /// When a packet arrived that was sent at `since` or later; `None` if none has.
    pub fn heard(&self, pair: Pair, since: Duration) -> Option<Duration> {
        self.of(since, Duration::MAX, &|p| p == pair)
            .flat_map(|(_, packets)| packets.iter().filter_map(|(_, arrival)| *arrival))
            .min()
    }

    /// How long after `since` it took until every pair that is asked for was heard from again; `None` if one was not.
    pub fn back(&self, since: Duration, of: impl Fn(Pair) -> bool) -> Option<Duration> {
        let mut latest = Some(Duration::ZERO);
        for pair in self.pairs.iter().copied().filter(|pair| of(*pair)) {
            let took = self.heard(pair, since).map(|at| at.saturating_sub(since));
            latest = latest.zip(took).map(|(a, b)| a.max(b));
        }
        latest
    }

    /// Packets a second of each stream, from its first to its last.
    pub fn rates(&self) -> Vec<f64> {
        let rate = |record: &Record| {
            let (first, last) = (record.packets.first()?, record.packets.last()?);
            let time = last.0.saturating_sub(first.0).as_secs_f64();
            (time > 0.0).then(|| (record.packets.len() - 1) as f64 / time)
        };
        self.records.iter().filter_map(rate).collect()
    }

    fn of<'a>(
        &'a self,
        from: Duration,
        to: Duration,
        of: &'a impl Fn(Pair) -> bool,
    ) -> impl Iterator<Item = (Pair, &'a [(Duration, Option<Duration>)])> {
        self.pairs.iter().zip(&self.records).filter(move |(pair, _)| of(**pair)).map(
            move |(pair, record)| {
                // In the order of sending.
                let start = record.packets.partition_point(|(sent, _)| *sent < from);
                let end = record.packets.partition_point(|(sent, _)| *sent < to);
                (*pair, record.packets.get(start..end).unwrap_or_default())
            },
        )
    }
}

/// Running streams.
pub struct Streams {
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Packets a second of each stream: less than [`RATE`] where there are many.
    pub rate: f64,
}

impl Streams {
    /// Starts a stream for each pair. Times in the book count from `began`.
    pub fn start(hosts: &[Host], pairs: Vec<Pair>, began: Instant) -> Result<Self, String> {
        let rate = RATE.min(MOST / pairs.len().max(1) as f64);
        let addresses: Vec<_> =
            hosts.iter().map(|host| SocketAddr::new(host.address, PORT)).collect();
        let sockets = hosts
            .iter()
            .zip(&addresses)
            .map(|(host, address)| socket(host, *address))
            .collect::<Result<Vec<_>, _>>()?;
        let book = Arc::new(Mutex::new(Book::new(pairs)));
        let stop = Arc::new(AtomicBool::new(false));
        let sender = Sender { sockets, addresses, book: book.clone(), began };
        let flag = stop.clone();
        let thread = std::thread::spawn(move || sender.run(rate, &flag));
        Ok(Self { book, stop, thread: Some(thread), rate })
    }

    /// Streams for more pairs.
    pub fn add(&self, pairs: Vec<Pair>) {
        lock(&self.book).add(pairs);
    }

    /// The book as it is now. Packets may be under way.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// Sends no more, and waits for what is under way, a while.
    pub fn finish(mut self) -> Book {
        self.halt();
        lock(&self.book).clone()
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.halt();
    }
}

// A panic under the lock would be a bug; the book is never wrong half way.
fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own.
struct Sender {
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    book: Arc<Mutex<Book>>,
    began: Instant,
}

/// How long to wait from round to round: what is wanted, and more where the streams would take the machine for themselves.
struct Pace {
    wanted: Duration,
    /// How long a round takes, on average over the last ones.
    round: Duration,
}

/// Sending takes at most one part in so many of the time.
const SHARE: u32 = 4;

impl Pace {
    fn new(wanted: Duration) -> Self {
        Self { wanted, round: Duration::ZERO }
    }

    fn pause(&mut self, round: Duration) -> Duration {
        self.round = (self.round * 9 + round) / 10;
        self.wanted.max(self.round * SHARE)
    }
}

/// What is under way at the end has so long to arrive.
const LAST: Duration = Duration::from_secs(2);

impl Sender {
    fn run(&self, rate: f64, stop: &AtomicBool) {
        let mut pace = Pace::new(Duration::from_secs_f64(1.0 / rate));
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            self.round();
            // Rounds that the machine had no time for are left out: a burst would be no steady stream.
            next = (next + pace.pause(start.elapsed())).max(Instant::now());
            self.receive_until(next);
        }
        let end = Instant::now() + LAST;
        while Instant::now() < end && !self.all_arrived() {
            self.receive_until(Instant::now() + Duration::from_millis(10));
        }
    }

    fn all_arrived(&self) -> bool {
        let now = self.began.elapsed();
        lock(&self.book).loss(now.saturating_sub(LAST), Duration::MAX, |_| true).lost == 0
    }

    fn round(&self) {
        let pairs = lock(&self.book).pairs.clone();
        for (stream, (from, to)) in pairs.into_iter().enumerate() {
            let number = {
                let mut book = lock(&self.book);
                if book.is_muted((from, to)) {
                    continue;
                }
                if book.records[stream].packets.len() >= LONGEST / book.pairs.len().max(1) {
                    return;
                }
                book.sent(stream, self.began.elapsed())
            };
            let mut packet = MAGIC.to_vec();
            packet.extend((stream as u32).to_be_bytes());
            packet.extend(number.to_be_bytes());
            packet.resize(64, 0);
            // One that the host itself refuses was not carried either: it counts as sent, and so as lost.
            if let Err(error) = self.sockets[from].send_to(&packet, self.addresses[to]) {
                tracing::debug!("sending from host {from} to host {to}: {error}");
            }
            if stream % 16 == 15 {
                self.receive();
            }
        }
    }

    fn receive_until(&self, until: Instant) {
        loop {
            self.receive();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(1)));
        }
    }

    fn receive(&self) {
        let mut buffer = [0; 256];
        for (to, socket) in self.sockets.iter().enumerate() {
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((length, source)) => self.count(to, source, &buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // What an earlier packet was answered with.
                    Err(_) => {}
                }
            }
        }
    }

    fn count(&self, to: usize, source: SocketAddr, packet: &[u8]) {
        let Some(rest) = packet.strip_prefix(MAGIC) else { return };
        let Some((stream, rest)) = rest.split_first_chunk() else { return };
        let Some((number, _)) = rest.split_first_chunk() else { return };
        let stream = u32::from_be_bytes(*stream) as usize;
        let mut book = lock(&self.book);
        let Some((from, meant)) = book.pairs.get(stream).copied() else { return };
        if meant == to && self.addresses[from] == source {
            book.arrived(stream, u64::from_be_bytes(*number), self.began.elapsed());
        }
    }
}

fn socket(host: &Host, address: SocketAddr) -> Result<UdpSocket, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {address}: {error}", host.name);
    let netns = Netns::open(&host.namespace()).map_err(|error| failed(&error))?;
    let socket = netns.run(|| UdpSocket::bind(address)).map_err(|error| failed(&error))?;
    socket.set_nonblocking(true).map_err(|error| failed(&error))?;
    // Beyond the system's limit where that is allowed: nothing must be lost in the judge's own buffer.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20));
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Two streams with a packet each 10 ms; the second loses those of 30 to 50 ms.
    fn book() -> Book {
        let mut book = Book::new(vec![(0, 1), (1, 0)]);
        for at in (0..100).step_by(10) {
            for stream in 0..2 {
                let number = book.sent(stream, ms(at));
                if stream == 0 || !(30..=50).contains(&at) {
                    book.arrived(stream, number, ms(at + 1));
                }
            }
        }
        book
    }

    #[test]
    fn loss_is_counted_by_pair_and_time() {
        let book = book();
        let loss = |from, to| book.loss(ms(from), ms(to), |_| true);
        assert_eq!(loss(0, 100), Loss { sent: 20, lost: 3 });
        assert_eq!(loss(0, 30), Loss { sent: 6, lost: 0 });
        assert_eq!(loss(40, 1000), Loss { sent: 12, lost: 2 });
        assert_eq!(book.loss(ms(0), ms(100), |pair| pair == (0, 1)), Loss { sent: 10, lost: 0 });
        assert_eq!(book.losers(ms(0), ms(100), |_| true), vec![((1, 0), 3, ms(30), ms(50))]);
    }

    #[test]
    fn who_was_heard_from_again_and_when() {
        let book = book();
        assert_eq!(book.back(ms(30), |_| true), Some(ms(31)));
        assert_eq!(book.back(ms(30), |pair| pair == (0, 1)), Some(ms(1)));
        assert_eq!(book.back(ms(91), |_| true), None);
        assert_eq!(book.heard((1, 0), ms(25)), Some(ms(61)));
    }

    #[test]
    fn rates_are_those_that_were_sent() {
        assert_eq!(book().rates(), [100.0, 100.0]);
    }

    #[test]
    fn a_slow_machine_is_not_filled_with_streams() {
        let mut pace = Pace::new(ms(10));
        assert!((0..50).all(|_| pace.pause(ms(1)) == ms(10)));
        // One round that was held up changes little.
        assert!(pace.pause(ms(20)) < ms(13));
        let slow = (0..100).map(|_| pace.pause(ms(10))).last().unwrap();
        assert!(slow > ms(38) && slow <= ms(40), "{slow:?}");
    }

    #[test]
    fn muted_streams_pause() {
        let mut book = book();
        book.mute(|(from, _)| from == 1);
        assert!(book.is_muted((1, 0)) && !book.is_muted((0, 1)));
        book.mute(|_| false);
        assert!(!book.is_muted((1, 0)));
    }

    #[test]
    fn duplicates_and_nonsense_change_nothing() {
        let mut book = book();
        book.arrived(0, 0, ms(500));
        book.arrived(7, 0, ms(500));
        book.arrived(0, u64::MAX, ms(500));
        assert_eq!(book.loss(ms(0), ms(100), |_| true), Loss { sent: 20, lost: 3 });
        assert_eq!(book.heard((0, 1), ms(0)), Some(ms(1)));
    }
}
