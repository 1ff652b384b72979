//! What passes between the two hosts: the judge of "only ESP".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use linux::capture::{Capture, Direction};
use linux::netns::Netns;
use serde::Serialize;

/// Packets by kind; each is counted where it enters.
#[derive(Default, Clone, Debug, Serialize)]
pub struct Seen {
    /// ESP in IP.
    pub esp: u64,
    /// ESP in UDP.
    pub esp_in_udp: u64,
    /// IKE.
    pub ike: u64,
    /// Of them with an Encrypted Fragment payload (RFC 7383), from Warren.
    pub our_fragments: u64,
    /// The same, from the peer.
    pub their_fragments: u64,
    /// Pieces of IP datagrams.
    pub pieces: u64,
    /// Anything else from Warren: a leak.
    pub our_clear: u64,
    /// Anything else from the peer.
    pub their_clear: u64,
    /// Frames that were not seen.
    pub missed: u64,
    /// The first leak.
    pub leak: Option<String>,
}

/// A running watch.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Watch {
    /// Watches the ports `a` and `b`.
    pub fn start(between: &Netns) -> Result<Self, String> {
        let open =
            |port: &str| between.run(|| Capture::open(port)).map_err(|error| error.to_string());
        let mut captures = [open("a")?, open("b")?];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            loop {
                let last = stopped.load(Ordering::Relaxed);
                for (port, capture) in captures.iter_mut().enumerate() {
                    let Ok(packets) = capture.read() else {
                        seen.missed += 1;
                        continue;
                    };
                    for packet in packets.iter().filter(|p| p.direction == Direction::Incoming) {
                        look(&mut seen, port == 0, packet.protocol, &packet.bytes);
                    }
                }
                if last {
                    seen.missed += captures.iter_mut().map(|c| c.lost().unwrap_or(1)).sum::<u64>();
                    return seen;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it, after all that has passed was looked at.
    pub fn finish(mut self) -> Result<Seen, String> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.take().map(JoinHandle::join);
        seen.and_then(Result::ok).ok_or_else(|| "the watcher of the wire broke down".to_owned())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ESP: u8 = 50;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
/// Encrypted Fragment (RFC 7383 2.5).
const SKF: u8 = 53;

fn look(seen: &mut Seen, ours: bool, ethertype: u16, packet: &[u8]) {
    let (protocol, body) = match (ethertype, packet) {
        (IPV4, [first, ..]) if packet.len() >= 20 => {
            let piece = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
            if piece && [UDP, ESP].contains(&packet[9]) {
                seen.pieces += 1;
                return;
            }
            (packet[9], packet.get(usize::from(first & 15) * 4..).unwrap_or_default())
        }
        (IPV6, _) if packet.len() >= 40 => (packet[6], &packet[40..]),
        // ARP, spanning tree.
        _ => return,
    };
    match (ethertype, protocol, body) {
        (_, ESP, _) => seen.esp += 1,
        (_, UDP, [a, b, c, d, _, _, _, _, rest @ ..]) => {
            let port = |high: u8, low: u8| u16::from_be_bytes([high, low]);
            udp(seen, ours, [port(*a, *b), port(*c, *d)], rest, packet);
        }
        (IPV6, FRAGMENT, [UDP | ESP, ..]) => seen.pieces += 1,
        // Multicast listener reports, router and neighbour discovery: what a link needs to work.
        (IPV6, ICMPV6, [130..=137 | 143, ..]) | (IPV6, HOP_BY_HOP, [ICMPV6, ..]) => {}
        _ => leak(seen, ours, packet),
    }
}

fn udp(seen: &mut Seen, ours: bool, ports: [u16; 2], payload: &[u8], packet: &[u8]) {
    let ike = |seen: &mut Seen, message: &[u8]| {
        seen.ike += 1;
        if message.get(16) == Some(&SKF) {
            if ours { seen.our_fragments += 1 } else { seen.their_fragments += 1 }
        }
    };
    if ports.contains(&4500) {
        match payload {
            [0, 0, 0, 0, message @ ..] => ike(seen, message),
            // A keepalive (RFC 3948 2.3).
            [0xff] => {}
            _ if payload.len() >= 8 => seen.esp_in_udp += 1,
            _ => leak(seen, ours, packet),
        }
    } else if ports.contains(&500) {
        ike(seen, payload);
    } else {
        leak(seen, ours, packet);
    }
}

fn leak(seen: &mut Seen, ours: bool, packet: &[u8]) {
    *(if ours { &mut seen.our_clear } else { &mut seen.their_clear }) += 1;
    seen.leak.get_or_insert_with(|| format!("{:02x?}", &packet[..packet.len().min(60)]));
}
