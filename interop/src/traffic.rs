//! Counted traffic between the two hosts: nothing is guessed from a program's words.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use linux::netns::Netns;

/// Where echoes are answered.
const PORT: u16 = 7007;
const TCP_PORT: u16 = 7008;
/// Answers may be that late.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers datagrams until dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts answering on `address`.
    pub fn start(host: &Netns, address: IpAddr) -> Result<Self, String> {
        let socket = host.run(|| UdpSocket::bind((address, PORT))).map_err(text)?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(text)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answer = move || {
            let mut bytes = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..length], from);
                }
            }
        };
        Ok(Self { stop, thread: Some(std::thread::spawn(answer)) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What became of a stream.
#[derive(Debug, Clone)]
pub struct Count {
    /// Datagrams sent.
    pub sent: usize,
    /// Of them answered.
    pub answered: usize,
    /// The numbers of those that were not, the first few.
    pub lost: Vec<usize>,
    /// Longest time without an answer.
    pub gap: Duration,
}

/// A stream of numbered datagrams that runs until it is asked for its count.
pub struct Stream {
    /// How many are enough.
    stop: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Count, String>>,
}

impl Stream {
    /// Starts sending from `host` to the echo at `to`, one datagram every 20 ms.
    pub fn start(host: &Netns, from: IpAddr, to: IpAddr) -> Result<Self, String> {
        let socket = host.run(|| UdpSocket::bind((from, 0))).map_err(text)?;
        socket.set_nonblocking(true).map_err(text)?;
        let stop = Arc::new(AtomicUsize::new(usize::MAX));
        let stopped = stop.clone();
        let to = SocketAddr::new(to, PORT);
        let thread = std::thread::spawn(move || {
            flow(&socket, to, Duration::from_millis(20), &mut |sent, _| {
                sent >= stopped.load(Ordering::Relaxed)
            })
        });
        Ok(Self { stop, thread })
    }

    /// Ends it, once it has sent `least`, and after the last answers.
    pub fn finish(self, least: usize) -> Result<Count, String> {
        self.stop.store(least, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the stream broke down".to_owned())?
    }
}

/// Sends `count` datagrams; all must be answered.
pub fn all(host: &Netns, from: IpAddr, to: IpAddr, count: usize) -> Result<(), String> {
    let socket = host.run(|| UdpSocket::bind((from, 0))).map_err(text)?;
    socket.set_nonblocking(true).map_err(text)?;
    let to = SocketAddr::new(to, PORT);
    let report = flow(&socket, to, Duration::from_millis(10), &mut |sent, _| sent == count)?;
    nothing_lost(&report)
}

/// An error if any was lost.
pub fn nothing_lost(report: &Count) -> Result<(), String> {
    if report.sent == 0 || report.answered != report.sent {
        return Err(format!(
            "{} of {} packets answered; lost were {:?}; the longest gap was {:?}",
            report.answered, report.sent, report.lost, report.gap
        ));
    }
    Ok(())
}

/// Sends until one is answered; gives how many it took. `every`: how long to wait for each.
pub fn knock(
    host: &Netns,
    from: IpAddr,
    to: IpAddr,
    every: Duration,
    limit: Duration,
) -> Result<usize, String> {
    let socket = host.run(|| UdpSocket::bind((from, 0))).map_err(text)?;
    socket.set_nonblocking(true).map_err(text)?;
    let end = Instant::now() + limit;
    let to = SocketAddr::new(to, PORT);
    let report = flow(&socket, to, every, &mut |_, answered| answered > 0 || Instant::now() > end)?;
    if report.answered == 0 {
        return Err(format!(
            "none of {} packets to {} answered in {limit:?}",
            report.sent,
            to.ip()
        ));
    }
    Ok(report.sent)
}

fn flow(
    socket: &UdpSocket,
    to: SocketAddr,
    every: Duration,
    enough: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Count, String> {
    let (mut answers, mut sent) = (Vec::<bool>::new(), 0_usize);
    let (mut next, mut heard, mut gap) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut answered = 0;
    let mut last_sent = Instant::now();
    loop {
        let mut bytes = [0; 2048];
        while let Ok((length, _)) = socket.recv_from(&mut bytes) {
            let Some(number) = bytes[..length].first_chunk().map(|b| u64::from_be_bytes(*b)) else {
                continue;
            };
            let Some(answer) = usize::try_from(number).ok().and_then(|n| answers.get_mut(n)) else {
                continue;
            };
            if !*answer {
                *answer = true;
                answered += 1;
                gap = gap.max(heard.elapsed());
                heard = Instant::now();
            }
        }
        let now = Instant::now();
        if enough(sent, answered) {
            if answered == sent || now > last_sent + PATIENCE {
                break;
            }
        } else if now >= next {
            let mut datagram = [0_u8; 64];
            datagram[..8].copy_from_slice(&(sent as u64).to_be_bytes());
            // A host that has no way yet says so: the datagram counts as sent, and lost.
            let _ = socket.send_to(&datagram, to);
            answers.push(false);
            sent += 1;
            last_sent = now;
            next += every;
            // After a pause of the machine, no burst.
            next = next.max(now);
        }
        sleep(Duration::from_millis(2));
    }
    if answered < sent {
        gap = gap.max(heard.elapsed());
    }
    let lost = answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| !**answer)
        .map(|(n, _)| n)
        .take(20)
        .collect();
    Ok(Count { sent, answered, lost, gap })
}

/// Sends `bytes` over TCP; they must all arrive.
pub fn tcp(
    from: &Netns,
    to: &Netns,
    (there, address): (IpAddr, IpAddr),
    bytes: usize,
    limit: Duration,
) -> Result<(), String> {
    let listener = to.run(|| TcpListener::bind((there, TCP_PORT))).map_err(text)?;
    listener.set_nonblocking(true).map_err(text)?;
    let server = std::thread::spawn(move || -> std::io::Result<usize> {
        let end = Instant::now() + limit;
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => sleep(Duration::from_millis(5)),
            }
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(limit))?;
        let (mut buffer, mut all) = (vec![0; 1 << 16], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(all),
                count => all += count,
            }
        }
    });
    let to = SocketAddr::new(address, TCP_PORT);
    let sent = from.run(|| -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_write_timeout(Some(limit))?;
        let (block, mut left) = (vec![0x5a; 1 << 16], bytes);
        while left > 0 {
            let count = left.min(block.len());
            stream.write_all(&block[..count])?;
            left -= count;
        }
        Ok(())
    });
    if let Err(error) = sent {
        return Err(format!("TCP: {error}"));
    }
    match server.join() {
        Ok(Ok(arrived)) if arrived == bytes => Ok(()),
        Ok(Ok(arrived)) => Err(format!("TCP: {arrived} of {bytes} bytes arrived")),
        Ok(Err(error)) => Err(format!("TCP: {error}")),
        Err(_) => Err("TCP: the server broke down".into()),
    }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}
