//! What every data plane can do: the kernel's, the userspace one, the simulator's.

use std::net::{IpAddr, SocketAddr};

use crate::Instant;
use crate::change::{Batch, Refusal};
use crate::sa::{Reqid, SaKey};
use crate::spd::PolicyKey;

/// A data plane. Calls do not block for longer than a system call.
pub trait Dataplane {
    /// Carries out the changes in order; what is refused does not stop the rest.
    fn apply(&mut self, now: Instant, batch: &Batch) -> Vec<Refusal>;

    /// What is there: only entries of our own, foreign ones are not listed.
    fn snapshot(&mut self, now: Instant) -> Snapshot;

    /// The next thing that happened, if any; to be called until `None`.
    fn poll_event(&mut self) -> Option<DataplaneEvent>;
}

/// What a data plane reports by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DataplaneEvent {
    /// A packet met a Protect policy and no SA; it is queued within bounds. At most one a second per peer.
    Acquire {
        /// The policy's reqid.
        reqid: Reqid,
        /// The packet's headers.
        packet: PacketInfo,
    },
    /// Somebody else changed or removed entries of ours, or may have: a [`Snapshot`] should be taken now.
    Drift,
    /// A soft limit was reached: time to rekey.
    SoftLimit(SaKey),
    /// A hard limit was reached: the SA is gone.
    HardLimit(SaKey),
    /// The first packet that verified on an inbound SA: the peer uses it.
    FirstUse(SaKey),
    /// A verified packet came from a new address or port (RFC 7296 2.23).
    Moved {
        /// The inbound SA.
        key: SaKey,
        /// Where it came from.
        remote: SocketAddr,
    },
    /// ESP came for an SPI that does not exist. At most one a second per source.
    UnknownSpi {
        /// From whom.
        src: IpAddr,
        /// For whom and which.
        key: SaKey,
    },
    /// Cleartext came that a policy wants protected. At most one a second per source.
    ClearIn {
        /// The offending packet.
        packet: PacketInfo,
    },
    /// Cleartext passed that a policy wants protected if possible: it came in, or went out. At most one a second for each
    /// pair of addresses.
    Passed {
        /// One of the packets.
        packet: PacketInfo,
    },
}

/// A packet's headers, as far as policies look at them.
///
/// For ICMP and ICMPv6 both ports are the type (high byte) and code (low byte), as a traffic
/// selector has them (RFC 7296 3.13.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PacketInfo {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Upper-layer protocol, behind extension headers.
    pub protocol: u8,
    /// Source port; `None` where it cannot be known (a later fragment, a protocol without ports).
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
}

/// What a data plane holds, with its counters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// SAs of ours, by key.
    pub sas: Vec<SaUsage>,
    /// Policies of ours that are as they were put.
    pub policies: Vec<PolicyKey>,
    /// SAs among `sas` that are not as they were installed: limits, selector, encapsulation, or sequence numbers that
    /// began anew. What such an SA does with its keys nobody knows.
    pub altered_sas: Vec<SaKey>,
    /// Policies that are there, but not as they were put: action, priority or template.
    pub altered_policies: Vec<PolicyKey>,
    /// Drops and errors since start, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// An SA's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaUsage {
    /// Which SA.
    pub key: SaKey,
    /// Bytes of plaintext carried.
    pub bytes: u64,
    /// Packets carried.
    pub packets: u64,
    /// When it last carried a packet.
    pub last_used: Option<Instant>,
    /// Replayed or late packets dropped.
    pub replays: u64,
    /// Packets that did not verify.
    pub bad_icv: u64,
}
