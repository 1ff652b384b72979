//! `warren capture [PEER]`: the traffic inside the tunnels.
//!
//! Warren's own data plane has it on its device, before it is sealed and after it is opened. A kernel keeps it to itself:
//! there ESP is captured where it passes, and `--keys` writes what Wireshark opens it with.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ipsec::packet::{self, Headers, proto};
use linux::capture::Capture;
use linux::route::Rtnl;
use linux::userspace::{INTERFACE, MARK};
use serde_json::{Value, json};

use super::keys;
use super::status::encode;
use crate::args;
use crate::client;
use crate::exit::Failure;
use crate::pcap;
use crate::print::complain;

/// IPv4 and IPv6.
const ETHERTYPES: [u16; 2] = [0x0800, 0x86dd];
/// Packets are looked for so often, where none comes.
const WAIT: Duration = Duration::from_millis(200);
/// Ports of IKE, and of ESP in UDP.
const PORTS: [u16; 2] = [500, 4500];

/// Where packets are looked for, and which.
struct Place {
    interface: String,
    peer: Option<IpAddr>,
    /// Only what is sealed, and the IKE beside it.
    sealed: bool,
}

/// Captures until Ctrl-C, or until as many packets or seconds as were asked for.
pub fn run(control: &Path, args: &args::Capture, json: bool) -> Result<(), Failure> {
    let place = place(control, args)?;
    if let Some(dir) = &args.keys {
        keys::save(control, dir)?;
        complain(format_args!(
            "{}: keys; they decrypt what is captured, guard them",
            dir.display()
        ));
    }
    let mut sink = Sink::open(args, json)?;
    let mut capture = Capture::open(&place.interface).map_err(Failure::no)?;
    let until = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut taken, mut lost) = (0, 0);
    loop {
        let wait =
            until.map_or(WAIT, |until| until.saturating_duration_since(Instant::now()).min(WAIT));
        let packets =
            capture.read_until(wait, |packets| !packets.is_empty()).map_err(Failure::no)?;
        let now = linux::clock::unix_nanos();
        for bytes in packets.iter().filter(|p| ETHERTYPES.contains(&p.protocol)).map(|p| &p.bytes) {
            let Some(headers) = wanted(&place, bytes) else { continue };
            if !sink.put(now, bytes, &headers)? {
                return Ok(());
            }
            taken += 1;
            if args.count.is_some_and(|count| taken >= count) {
                return Ok(());
            }
        }
        let lost_by_now = capture.lost().map_err(Failure::no)?;
        if lost_by_now > lost {
            complain(format_args!("{} packets passed too fast to be captured", lost_by_now - lost));
            lost = lost_by_now;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
    }
}

fn place(control: &Path, args: &args::Capture) -> Result<Place, Failure> {
    let peer: Option<IpAddr> = match &args.peer {
        None => None,
        Some(peer) => {
            let row = client::get(control, &format!("/v1/status?peer={}", encode(peer)))?;
            row["address"].as_str().and_then(|address| address.parse().ok())
        }
    };
    let node = &client::get(control, "/v1/status")?["node"];
    if node["data_plane"] == "userspace" {
        return Ok(Place { interface: INTERFACE.into(), peer, sealed: false });
    }
    complain(format_args!(
        "the kernel keeps what is inside to itself: ESP is captured, and `--keys DIR` writes what opens it"
    ));
    Ok(Place { interface: outside(node, peer)?, peer, sealed: true })
}

/// The interface to the peer, or the one with this host's address.
fn outside(node: &Value, peer: Option<IpAddr>) -> Result<String, Failure> {
    let mut rtnl = Rtnl::open().map_err(Failure::no)?;
    let index = match peer {
        Some(peer) => rtnl.get_route(peer, MARK).map_err(Failure::no)?.interface,
        None => {
            let own = node["address"].as_str().and_then(|address| address.parse::<IpAddr>().ok());
            let addresses = rtnl.addresses().map_err(Failure::no)?;
            let with = addresses.iter().find(|there| Some(there.net.addr()) == own);
            with.map(|there| there.interface)
                .ok_or_else(|| Failure::no("no interface has this host's address"))?
        }
    };
    let links = rtnl.links().map_err(Failure::no)?;
    let link = links.into_iter().find(|link| link.index == index);
    link.map(|link| link.name).ok_or_else(|| Failure::no("its interface is gone"))
}

fn wanted(place: &Place, bytes: &[u8]) -> Option<Headers> {
    let headers = packet::parse(bytes).ok()?;
    let with_peer = place.peer.is_none_or(|peer| headers.src == peer || headers.dst == peer);
    let sealed = || match headers.protocol {
        proto::ESP => true,
        proto::UDP => {
            ports(bytes, &headers).is_some_and(|(a, b)| PORTS.contains(&a) || PORTS.contains(&b))
        }
        _ => false,
    };
    (with_peer && (!place.sealed || sealed())).then_some(headers)
}

/// Of TCP, UDP and SCTP, of a packet or its first fragment.
fn ports(bytes: &[u8], headers: &Headers) -> Option<(u16, u16)> {
    const WITH_PORTS: [u8; 3] = [6, proto::UDP, 132];
    let begins = headers.fragment.as_ref().is_none_or(|fragment| fragment.offset == 0);
    let upper = bytes.get(headers.upper..headers.upper + 4)?;
    let port = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
    (begins && WITH_PORTS.contains(&headers.protocol)).then(|| (port(0), port(2)))
}

/// Where captured packets go.
enum Sink {
    Text,
    Json,
    Pcap(Box<dyn Write>),
}

impl Sink {
    fn open(args: &args::Capture, json: bool) -> Result<Self, Failure> {
        let Some(path) = &args.write else { return Ok(if json { Self::Json } else { Self::Text }) };
        let failed = |error| Failure::No(format!("{}: {error}", path.display()));
        let mut out: Box<dyn Write> = match path.to_str() {
            Some("-") => Box::new(std::io::stdout()),
            _ => Box::new(pcap::create(path).map_err(failed)?),
        };
        out.write_all(&pcap::header()).and_then(|()| out.flush()).map_err(failed)?;
        Ok(Self::Pcap(out))
    }

    /// `false`: nobody reads any more.
    fn put(&mut self, at: u64, bytes: &[u8], headers: &Headers) -> Result<bool, Failure> {
        let written = match self {
            Self::Text => writeln!(std::io::stdout(), "{}", line(at, bytes, headers)),
            Self::Json => writeln!(std::io::stdout(), "{}", object(at, bytes, headers)),
            Self::Pcap(out) => {
                let whole = &bytes[..headers.total_len.min(bytes.len())];
                out.write_all(&pcap::record(at, whole)).and_then(|()| out.flush())
            }
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::No(format!("the capture cannot be written: {error}"))),
        }
    }
}

fn line(at: u64, bytes: &[u8], headers: &Headers) -> String {
    let protocol = protocol(headers.protocol);
    let between = match ports(bytes, headers) {
        Some((src, dst)) => format!(" {src} > {dst}"),
        None => String::new(),
    };
    let time = super::trace::clock(at);
    format!(
        "{time} {} -> {} {protocol}{between}, {} bytes",
        headers.src, headers.dst, headers.total_len
    )
}

fn object(at: u64, bytes: &[u8], headers: &Headers) -> Value {
    let ports = ports(bytes, headers);
    json!({
        "at": at, "src": headers.src, "dst": headers.dst, "protocol": headers.protocol,
        "src_port": ports.map(|(src, _)| src), "dst_port": ports.map(|(_, dst)| dst),
        "bytes": headers.total_len,
    })
}

fn protocol(number: u8) -> String {
    let name = match number {
        1 => "icmp",
        6 => "tcp",
        proto::UDP => "udp",
        proto::ESP => "esp",
        proto::ICMPV6 => "icmpv6",
        132 => "sctp",
        other => return format!("protocol {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(src: u16, dst: u16) -> Vec<u8> {
        let at = |host, port| std::net::SocketAddr::from(([192, 0, 2, host], port));
        packet::udp(at(1, src), at(2, dst), b"hello").unwrap()
    }

    #[test]
    fn what_is_wanted_is_of_the_peer_and_sealed_where_nothing_else_is() {
        let place = |peer: u8, sealed| Place {
            interface: String::new(),
            peer: Some(IpAddr::from([192, 0, 2, peer])),
            sealed,
        };
        let plain = udp(40000, 53);
        assert!(wanted(&place(2, false), &plain).is_some());
        assert!(wanted(&place(1, false), &plain).is_some());
        assert!(wanted(&place(3, false), &plain).is_none());
        assert!(wanted(&place(2, true), &plain).is_none());
        assert!(wanted(&place(2, true), &udp(4500, 4500)).is_some());
        assert!(wanted(&place(2, true), &plain[..10]).is_none());
    }

    #[test]
    fn one_line_says_what_passed() {
        let bytes = udp(40000, 53);
        let headers = packet::parse(&bytes).unwrap();
        assert_eq!(
            line(0, &bytes, &headers),
            "00:00:00.000000 192.0.2.1 -> 192.0.2.2 udp 40000 > 53, 33 bytes"
        );
        let shown = object(7, &bytes, &headers);
        assert_eq!((shown["at"].as_u64(), shown["dst_port"].as_u64()), (Some(7), Some(53)));
    }
}
