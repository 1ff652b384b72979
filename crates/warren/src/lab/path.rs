//! What a path carries: datagrams of any length, and a connection that moves much.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

use super::probe::End;

/// What became of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It arrived as it was sent.
    Arrived,
    /// Its sender was told that it is too long.
    TooLong,
    /// It was sent again and again, and neither came about.
    Lost,
}

/// A datagram arrives within this, or is sent again: the first one that is too long only makes the path known.
const PATIENCE: Duration = Duration::from_millis(300);
const TIMES: usize = 5;
/// Where they go to.
const PORT: u16 = 5160;
/// Longer than any datagram here.
const LONGEST: usize = 10_000;
/// A connection that moves nothing for so long will not go on.
const DEAD: Duration = Duration::from_secs(30);

/// Datagrams from one host to another.
pub struct Datagrams {
    from: UdpSocket,
    to: UdpSocket,
    at: SocketAddr,
}

impl Datagrams {
    /// With DF (IPv6: not fragmented by the sender either), or without.
    pub fn open(from: &End<'_>, to: &End<'_>, dont_fragment: bool) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("UDP {}: {error}", to.address);
        let at = SocketAddr::new(to.address, PORT);
        let receiver = to.netns.run(|| UdpSocket::bind(at)).map_err(text)?;
        receiver.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let sender = from.netns.run(|| UdpSocket::bind((from.address, 0))).map_err(text)?;
        let set = match to.address {
            IpAddr::V4(_) => {
                let (on, off) = (Ipv4PathMtuDiscovery::DO, Ipv4PathMtuDiscovery::DONT);
                sockopt::set_ip_mtu_discover(&sender, if dont_fragment { on } else { off })
            }
            IpAddr::V6(_) => {
                let (on, off) = (Ipv6PathMtuDiscovery::DO, Ipv6PathMtuDiscovery::DONT);
                sockopt::set_ipv6_mtu_discover(&sender, if dont_fragment { on } else { off })
            }
        };
        set.map_err(|error| text(error.into()))?;
        Ok(Self { from: sender, to: receiver, at })
    }

    /// Sends a datagram with so many bytes of payload, until it has arrived or its sender knows better.
    pub fn send(&self, payload: usize) -> Outcome {
        let bytes: Vec<u8> = (0..payload).map(|n| (n * 31 + payload) as u8).collect();
        for _ in 0..TIMES {
            match self.from.send_to(&bytes, self.at) {
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) =>
                {
                    return Outcome::TooLong;
                }
                // Refused for another reason: as good as lost.
                Ok(_) | Err(_) => {}
            }
            if self.arrives(&bytes) {
                return Outcome::Arrived;
            }
        }
        Outcome::Lost
    }

    fn arrives(&self, bytes: &[u8]) -> bool {
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; LONGEST];
        while Instant::now() < end {
            match self.to.recv_from(&mut buffer) {
                Ok((length, _)) if buffer[..length] == *bytes => return true,
                // One of those before it.
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// What a host believes to be the longest packet on the way to another, as its programs are told.
pub fn believed_mtu(from: &End<'_>, to: &End<'_>) -> Result<u32, String> {
    let asked = from.netns.run(|| {
        let socket = UdpSocket::bind((from.address, 0))?;
        socket.connect((to.address, PORT))?;
        match to.address {
            IpAddr::V4(_) => Ok(sockopt::ip_mtu(&socket)?),
            IpAddr::V6(_) => Ok(sockopt::ipv6_mtu(&socket)?),
        }
    });
    asked.map_err(|error: std::io::Error| format!("the path to {}: {error}", to.address))
}

/// How a connection went.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the first to the last.
    pub time: Duration,
    /// The longest time in which nothing arrived.
    pub pause: Duration,
}

/// Moves so many bytes over a connection.
pub fn bulk(from: &End<'_>, to: &End<'_>, bytes: usize) -> Result<Bulk, String> {
    let text = |error: std::io::Error| format!("TCP to {}: {error}", to.address);
    let at = SocketAddr::new(to.address, PORT);
    let listener = to.netns.run(|| TcpListener::bind(at)).map_err(text)?;
    let mut sender = from.netns.run(|| TcpStream::connect_timeout(&at, DEAD)).map_err(text)?;
    let (receiver, _) = listener.accept().map_err(text)?;
    let receiving = std::thread::spawn(move || receive(receiver));
    sender.set_write_timeout(Some(DEAD)).map_err(text)?;
    // What is not sent shows in what arrives.
    let _ = sender.write_all(&vec![0x5a; bytes]);
    drop(sender);
    receiving.join().map_err(|_| "the receiver broke down".to_owned())?.map_err(text)
}

fn receive(mut receiver: TcpStream) -> std::io::Result<Bulk> {
    receiver.set_read_timeout(Some(DEAD))?;
    let begin = Instant::now();
    let (mut last, mut buffer) = (begin, vec![0; 65_536]);
    let mut bulk = Bulk { bytes: 0, time: Duration::ZERO, pause: Duration::ZERO };
    loop {
        let read = receiver.read(&mut buffer);
        let now = Instant::now();
        bulk.pause = bulk.pause.max(now - last);
        (last, bulk.time) = (now, now - begin);
        match read {
            Ok(0) => return Ok(bulk),
            Ok(length) => bulk.bytes += length as u64,
            // It stalled for good: the pause says so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(bulk),
            Err(error) => return Err(error),
        }
    }
}
