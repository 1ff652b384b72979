//! What a packet meets on its way out and in: SPD, SAD, ESP. The userspace data plane without its system calls.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crypto::Provider;

use crate::Instant;
use crate::change::{Batch, Refusal};
use crate::dataplane::{DataplaneEvent, Snapshot};

/// SPD, SAD and queues of one host. Shared by the threads that carry packets: every method takes `&self`.
pub struct Pipeline {
    provider: Arc<dyn Provider>,
}

/// What is to be done with the result of one packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Emit {
    /// An ESP packet as payload of IP protocol 50.
    Esp(OuterPacket),
    /// An ESP packet in UDP: send from local port to `remote`.
    EspInUdp {
        /// The packet.
        packet: OuterPacket,
        /// This host's port.
        local_port: u16,
        /// The peer's address and port.
        remote: SocketAddr,
    },
    /// A whole IP packet that goes out in the clear.
    Clear(Vec<u8>),
    /// A whole IP packet for this host's own stack (decrypted, or an ICMP error to a local sender).
    Deliver(Vec<u8>),
}

/// ESP with what its outer IP header must say.
#[derive(Debug, PartialEq, Eq)]
pub struct OuterPacket {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// TOS or traffic class (DSCP and ECN).
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Must not be fragmented on the way.
    pub dont_fragment: bool,
    /// SPI, sequence number, IV, ciphertext, ICV.
    pub esp: Vec<u8>,
}

/// What is known of the outer header of a received ESP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterInfo {
    /// Outer source; with the UDP port if it came in UDP, else port 0.
    pub src: SocketAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Came in UDP.
    pub udp: bool,
}

impl Pipeline {
    /// An empty SPD drops everything: nothing passes before there are policies.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self { provider }
    }

    /// Carries out changes.
    pub fn apply(&self, now: Instant, batch: &Batch) -> Vec<Refusal> {
        let _ = (now, batch, &self.provider);
        todo!()
    }

    /// A whole IP packet from this host's stack.
    pub fn outbound(&self, now: Instant, packet: &mut Vec<u8>, emit: &mut Vec<Emit>) {
        let _ = (now, packet, emit);
        todo!()
    }

    /// An ESP packet from the wire: `esp` begins with the SPI.
    pub fn inbound(&self, now: Instant, outer: OuterInfo, esp: &mut Vec<u8>, emit: &mut Vec<Emit>) {
        let _ = (now, outer, esp, emit);
        todo!()
    }

    /// Queues that have waited too long, time limits; call about once a second, and after `apply`:
    /// packets that waited for an SA that is there now come out here.
    pub fn tick(&self, now: Instant, emit: &mut Vec<Emit>) {
        let _ = (now, emit);
        todo!()
    }

    /// The path to `dst` carries packets of at most `mtu` bytes (from ICMP, or from the outgoing device).
    pub fn set_path_mtu(&self, now: Instant, dst: IpAddr, mtu: u32) {
        let _ = (now, dst, mtu);
        todo!()
    }

    /// Counters and contents.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let _ = now;
        todo!()
    }

    /// The next event.
    pub fn poll_event(&self) -> Option<DataplaneEvent> {
        todo!()
    }
}
