//! Captures: classic pcap with raw IP packets, no link layer.

use std::net::SocketAddr;

use ike::endpoint::Datagram;
use ipsec::Instant;

/// Link type of packets that begin with their IP header (LINKTYPE_RAW).
const RAW_IP: u32 = 101;
/// Longest packet that a reader must expect.
const SNAP_LEN: u32 = 65535;

/// A capture in memory.
pub struct Capture {
    bytes: Vec<u8>,
    /// Packets so far.
    pub packets: usize,
}

impl Capture {
    pub fn new() -> Self {
        // Magic of nanosecond times, version 2.4, no zone, no accuracy.
        let head = [0xa1b2_3c4d, 0x0004_0002, 0, 0, SNAP_LEN, RAW_IP];
        Self { bytes: head.iter().flat_map(|word: &u32| word.to_le_bytes()).collect(), packets: 0 }
    }

    /// An IP packet.
    pub fn packet(&mut self, now: Instant, packet: &[u8]) {
        let nanos = now.as_nanos();
        let len = packet.len() as u64;
        for word in [nanos / 1_000_000_000, nanos % 1_000_000_000, len, len] {
            self.bytes.extend_from_slice(&u32::try_from(word).unwrap().to_le_bytes());
        }
        self.bytes.extend_from_slice(packet);
        self.packets += 1;
    }

    /// A UDP datagram.
    pub fn datagram(&mut self, now: Instant, datagram: &Datagram) {
        let Datagram { local, remote, bytes } = datagram;
        self.packet(now, &udp(*local, *remote, bytes));
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    ipsec::packet::udp(src, dst, payload).expect("addresses of one family, a short payload")
}
