//! Namespaces with a switch between them, and what passes there.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use linux::capture::{Capture, Packet};
use linux::netns::Guard;
use linux::route::{NewLink, Rtnl};
use linux::xfrm::Xfrm;

use super::{PATIENCE, eventually, unique};

/// One switch, hosts with `eth0` on it.
pub struct Net {
    _switch: Guard,
    pub hosts: Vec<Guard>,
    pub addresses: Vec<IpAddr>,
}

impl Net {
    /// One host for each of these addresses; `prefix` is the length of the link's.
    pub fn new(addresses: &[&str], prefix: u8) -> Self {
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let switch = namespace();
        switch.run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            rtnl.create_link("switch", NewLink::Bridge).unwrap();
            rtnl.set_up("switch", true).unwrap();
        });
        let hosts = addresses.iter().enumerate().map(|(n, address)| {
            let host = namespace();
            let port = format!("p{n}");
            switch.run(|| {
                let mut rtnl = Rtnl::open().unwrap();
                rtnl.create_link(&port, NewLink::Veth { peer: "uplink" }).unwrap();
                rtnl.move_link("uplink", &*host, "eth0").unwrap();
                rtnl.set_master(&port, Some("switch")).unwrap();
                rtnl.set_up(&port, true).unwrap();
            });
            host.run(|| {
                let mut rtnl = Rtnl::open().unwrap();
                rtnl.add_address("eth0", IpNet::new(*address, prefix).unwrap(), true).unwrap();
                rtnl.set_up("eth0", true).unwrap();
            });
            host
        });
        let net = Self { hosts: hosts.collect(), _switch: switch, addresses };
        for to in 1..net.hosts.len() {
            net.settle(to);
        }
        net
    }

    /// Waits until the wire between the first host and this one carries packets.
    fn settle(&self, to: usize) {
        let listener = self.udp(to, 9);
        listener.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let sender = self.udp(0, 0);
        eventually("the first packet on the wire", || {
            let _ = sender.send_to(b"?", (self.addresses[to], 9));
            listener.recv_from(&mut [0; 8]).ok()
        });
    }

    /// A socket on a host, with a short patience.
    pub fn udp(&self, host: usize, port: u16) -> UdpSocket {
        let address = SocketAddr::new(self.addresses[host], port);
        let socket = self.hosts[host].run(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket
    }

    /// Whether a datagram with this text arrives, sent again and again for `limit`.
    pub fn udp_arrives(&self, from: usize, to: usize, text: &str, limit: Duration) -> bool {
        let (sender, listener) = (self.udp(from, 0), self.udp(to, 0));
        listener.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let end = std::time::Instant::now() + limit;
        let mut buffer = vec![0; 65_536];
        while std::time::Instant::now() < end {
            // Refused by a blackhole: it does not arrive.
            let _ = sender.send_to(text.as_bytes(), listener.local_addr().unwrap());
            if listener.recv_from(&mut buffer).is_ok_and(|(n, _)| &buffer[..n] == text.as_bytes()) {
                return true;
            }
        }
        false
    }

    /// How many of so many numbered datagrams do not arrive; `between` is called before each.
    pub fn lost(&self, from: usize, to: usize, count: u32, between: impl Fn(u32)) -> usize {
        let (sender, listener) = (self.udp(from, 0), self.udp(to, 0));
        listener.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let received = scope.spawn(|| {
                let mut seen = std::collections::BTreeSet::new();
                let mut buffer = [0; 4];
                while seen.len() < count as usize && listener.recv_from(&mut buffer).is_ok() {
                    seen.insert(u32::from_be_bytes(buffer));
                }
                seen.len()
            });
            for number in 0..count {
                between(number);
                let _ = sender.send_to(&number.to_be_bytes(), address);
                std::thread::sleep(Duration::from_millis(3));
            }
            count as usize - received.join().unwrap()
        })
    }

    /// A text there and back over TCP, from one host to a port of another.
    pub fn tcp_echo(&self, from: usize, to: usize, port: u16, text: &str) -> std::io::Result<()> {
        use std::io::{Read, Write};
        let listener = self.hosts[to].run(|| TcpListener::bind((self.addresses[to], port)))?;
        listener.set_nonblocking(true)?;
        std::thread::scope(|scope| {
            let server = scope.spawn(|| -> std::io::Result<()> {
                let mut stream = eventually_io(|| listener.accept())?.0;
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut got = vec![0; text.len()];
                stream.read_exact(&mut got)?;
                stream.write_all(&got)
            });
            let client = || -> std::io::Result<()> {
                let to = SocketAddr::new(self.addresses[to], port);
                let mut stream =
                    self.hosts[from].run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(text.as_bytes())?;
                let mut back = vec![0; text.len()];
                stream.read_exact(&mut back)?;
                assert_eq!(back, text.as_bytes());
                Ok(())
            };
            let result = client();
            result.and(server.join().unwrap())
        })
    }

    /// A watch on a host's wire.
    pub fn watch(&self, host: usize) -> Watch {
        Watch(self.hosts[host].run(|| Capture::open("eth0").unwrap()))
    }

    /// What a daemon would leave in a host's namespace: rules, routes, devices, policies beyond what was there.
    pub fn traces(&self, host: usize) -> Vec<String> {
        self.hosts[host].run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            let mut found = Vec::new();
            let links = rtnl.links().unwrap();
            found.extend(links.iter().filter(|l| l.name == "warren0").map(|l| format!("{l:?}")));
            let ours = linux::userspace::TABLE;
            let rules = rtnl.rules().unwrap();
            found.extend(
                rules
                    .iter()
                    .filter(|r| r.priority == linux::userspace::RULE_PRIORITY)
                    .map(|r| format!("{r:?}")),
            );
            let routes = rtnl.routes(Some(ours)).unwrap();
            found.extend(routes.iter().map(|r| format!("{r:?}")));
            if let Ok(policies) = Xfrm::open().and_then(|mut xfrm| xfrm.policies()) {
                found.extend(policies.iter().map(|p| format!("{p:?}")));
            }
            found
        })
    }
}

fn eventually_io<T>(mut work: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match work() {
            Err(error)
                if error.kind() == std::io::ErrorKind::WouldBlock
                    && std::time::Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// A namespace with a name that nobody else has.
pub fn namespace() -> Guard {
    let netns = Guard::create(&unique()).unwrap();
    for family in ["all", "default"] {
        let _ = netns.sysctl(&format!("net/ipv6/conf/{family}/accept_dad"), "0");
        let _ = netns.sysctl(&format!("net/ipv4/conf/{family}/rp_filter"), "0");
    }
    netns
}

/// Packets of one wire.
pub struct Watch(Capture);

impl Watch {
    /// All that passed since the last look.
    pub fn seen(&mut self) -> Vec<Packet> {
        let seen = self.0.read().unwrap();
        assert_eq!(self.0.lost().unwrap(), 0, "the watch lost packets");
        seen
    }
}

/// Packets that carry this text as it is.
pub fn in_clear<'a>(packets: &'a [Packet], text: &str) -> Vec<&'a Packet> {
    let has = |p: &&Packet| p.bytes.windows(text.len()).any(|w| w == text.as_bytes());
    packets.iter().filter(has).collect()
}

/// The upper protocol of a packet without extension headers; 255 for what is not IP.
pub fn protocol(packet: &Packet) -> u8 {
    match packet.protocol {
        0x0800 => packet.bytes.get(9).copied().unwrap_or(255),
        0x86dd => packet.bytes.get(6).copied().unwrap_or(255),
        _ => 255,
    }
}

/// UDP ports of an IPv4 packet.
pub fn udp_ports(packet: &Packet) -> Option<(u16, u16)> {
    let header = usize::from(packet.bytes.first()? & 15) * 4;
    let port = |at: usize| {
        Some(u16::from_be_bytes(packet.bytes.get(header + at..header + at + 2)?.try_into().ok()?))
    };
    (packet.protocol == 0x0800 && protocol(packet) == 17).then(|| Some((port(0)?, port(2)?)))?
}
