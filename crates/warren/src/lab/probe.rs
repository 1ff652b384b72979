//! Single exchanges between two hosts: a question by some protocol, and its answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linux::netns::Netns;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType};

/// By which protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// A connection to this port.
    Tcp(u16),
    /// A datagram to this port, from another.
    Udp(u16),
    /// A datagram from this port to the same, as VPNs send them.
    UdpBetween(u16),
    /// An echo request.
    Icmp,
    /// A packet of this protocol, and one back.
    Ip(u8),
}

/// A host: its namespace and its address.
pub struct End<'a> {
    /// Its namespace.
    pub netns: &'a Netns,
    /// Its address.
    pub address: IpAddr,
}

/// What is asked.
const QUESTION: &[u8; 16] = b"warren asks this";
/// An answer comes within this, or the question is asked again: a kernel loses the packet that asks for an SA.
const PATIENCE: Duration = Duration::from_millis(700);
const TIMES: usize = 12;
/// A connection stands within this.
const CONNECTED: Duration = Duration::from_secs(9);

impl Probe {
    /// The number of the protocol on the wire.
    pub fn protocol(self, family: IpAddr) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp(_) | Self::UdpBetween(_) => 17,
            Self::Icmp if family.is_ipv4() => 1,
            Self::Icmp => 58,
            Self::Ip(number) => number,
        }
    }

    /// Asks `to` from `from`; whether the answer came.
    pub fn ask(self, from: &End<'_>, to: &End<'_>) -> Result<bool, String> {
        let text = |error: std::io::Error| format!("{self:?} to {}: {error}", to.address);
        match self {
            Self::Tcp(port) => tcp(from, to, port).map_err(text),
            Self::Udp(port) => {
                let source = udp(from, 0).map_err(text)?;
                let target = udp(to, port).map_err(text)?;
                there_and_back(&source, &target, SocketAddr::new(to.address, port)).map_err(text)
            }
            Self::UdpBetween(port) => {
                let source = udp(from, port).map_err(text)?;
                let target = udp(to, port).map_err(text)?;
                there_and_back(&source, &target, SocketAddr::new(to.address, port)).map_err(text)
            }
            Self::Icmp => ping(from, to).map_err(text),
            Self::Ip(number) => {
                let source = raw(from, number).map_err(text)?;
                let target = raw(to, number).map_err(text)?;
                there_and_back(&source, &target, SocketAddr::new(to.address, 0)).map_err(text)
            }
        }
    }
}

fn udp(end: &End<'_>, port: u16) -> std::io::Result<UdpSocket> {
    let socket = end.netns.run(|| UdpSocket::bind((end.address, port)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// A raw socket; sending and receiving are a datagram socket's.
fn raw(end: &End<'_>, number: u8) -> std::io::Result<UdpSocket> {
    let family = if end.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol: Option<RawProtocol> = std::num::NonZeroU32::new(number.into());
    let protocol = protocol.map(Protocol::from_raw);
    let socket: OwnedFd = end.netns.run(|| {
        rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
    })?;
    rustix::net::bind(&socket, &SocketAddr::new(end.address, 0))?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn there_and_back(from: &UdpSocket, to: &UdpSocket, at: SocketAddr) -> std::io::Result<bool> {
    for _ in 0..TIMES {
        // Refused by the host itself: as good as lost.
        let _ = from.send_to(QUESTION, at);
        if let Some(source) = heard(to)?
            && to.send_to(QUESTION, source).is_ok()
            && heard(from)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who sent the question; `None` if nobody did in time. A raw IPv4 socket shows the IP header as well.
fn heard(socket: &UdpSocket) -> std::io::Result<Option<SocketAddr>> {
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) if buffer[..length].ends_with(QUESTION) => {
                return Ok(Some(source));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // What an earlier packet was answered with.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn tcp(from: &End<'_>, to: &End<'_>, port: u16) -> std::io::Result<bool> {
    let at = SocketAddr::new(to.address, port);
    let listener = to.netns.run(|| TcpListener::bind(at))?;
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = [0; 16];
        stream.set_read_timeout(Some(CONNECTED))?;
        stream.read_exact(&mut buffer)?;
        stream.write_all(&buffer)
    });
    let asked = from.netns.run(|| -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&at, CONNECTED)?;
        stream.set_read_timeout(Some(CONNECTED))?;
        stream.write_all(QUESTION)?;
        let mut buffer = [0; 16];
        stream.read_exact(&mut buffer)?;
        Ok(buffer == *QUESTION)
    });
    if asked.is_err() {
        // The server still waits: this host reaches itself.
        let _ = to.netns.run(|| TcpStream::connect_timeout(&at, CONNECTED));
    }
    let _ = server.join();
    Ok(asked.unwrap_or(false))
}

/// ICMP echo (RFC 792, RFC 4443 4.1), with a checksum of our own over IPv4; the kernel makes that of ICMPv6.
fn ping(from: &End<'_>, to: &End<'_>) -> std::io::Result<bool> {
    let v4 = from.address.is_ipv4();
    let (request, reply) = if v4 { (8, 0) } else { (128, 129) };
    let socket = raw(from, if v4 { 1 } else { 58 })?;
    let mut message = [request, 0, 0, 0, 0x57, 0x41, 0, 1].to_vec();
    message.extend(QUESTION);
    if v4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    for _ in 0..TIMES {
        let _ = socket.send_to(&message, SocketAddr::new(to.address, 0));
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        while Instant::now() < end {
            let Ok((length, source)) = socket.recv_from(&mut buffer) else { break };
            let header = if v4 { usize::from(buffer[0] & 15) * 4 } else { 0 };
            let answer = buffer.get(header..length).unwrap_or_default();
            if source.ip() == to.address
                && answer.first() == Some(&reply)
                && answer.ends_with(QUESTION)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// Datagrams that a host sends all the time, whoever listens: what must not leak.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Flood {
    /// From `from` to each of `to`, port 9 (discard): every 10 ms one from an ordinary socket, one from a socket that is
    /// bound to the interface, past all routes.
    pub fn start(from: &End<'_>, to: Vec<IpAddr>, interface: &str) -> Result<Self, String> {
        let any = if from.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = || from.netns.run(|| UdpSocket::bind(any)).map_err(|error| error.to_string());
        let (free, bound) = (socket()?, socket()?);
        setsockopt(&bound, sockopt::BindToDevice, &interface.into())
            .map_err(|error| format!("SO_BINDTODEVICE: {error}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut tried = 0;
            while !flag.load(Ordering::Relaxed) {
                for address in &to {
                    for socket in [&free, &bound] {
                        let _ = socket.send_to(b"leak", SocketAddr::new(*address, 9));
                        tried += 1;
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            tried
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it; how many it tried to send.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_add_up() {
        let mut message = [8, 0, 0, 0, 0x57, 0x41, 0, 1, 9].to_vec();
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&message), 0);
        assert_ne!(sum, 0);
    }

    #[test]
    fn protocols_have_their_numbers() {
        let [v4, v6] = ["10.0.0.1", "fd00::1"].map(|a| a.parse().unwrap());
        assert_eq!((Probe::Icmp.protocol(v4), Probe::Icmp.protocol(v6)), (1, 58));
        assert_eq!((Probe::Tcp(22).protocol(v4), Probe::Udp(7).protocol(v4)), (6, 17));
        assert_eq!(Probe::Ip(47).protocol(v6), 47);
    }
}
