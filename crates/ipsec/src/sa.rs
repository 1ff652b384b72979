//! One ESP SA as it is installed (RFC 4301 4.4.2.1).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crypto::Secret;
use crypto::cipher::CipherSpec;
use wire::esp::Spi;
use wire::selector::TrafficSelector;

/// Encapsulation mode (RFC 4301 4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// Between the hosts' own addresses.
    Transport,
    /// Whole IP packets inside.
    Tunnel,
}

/// Which way an SA carries packets, seen from this host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// Towards this host.
    In,
    /// Away from it.
    Out,
}

/// Ties policies to SAs: an SA serves the policies of its own reqid only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reqid(pub u32);

/// What names an SA uniquely: destination and SPI; ESP is the only protocol here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SaKey {
    /// Destination address of the outer packets.
    pub dst: IpAddr,
    /// Its SPI.
    pub spi: Spi,
}

/// UDP encapsulation (RFC 3948): ports of the outer UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Encap {
    /// This host's port, 4500.
    pub local_port: u16,
    /// The peer's port as seen from here; a NAT may have changed it.
    pub remote_port: u16,
}

/// Between which addresses the packets of an SA pair go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outer {
    /// This host's.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// In UDP, and between which ports.
    pub encap: Option<Encap>,
}

/// When an SA must be replaced (soft) and when it must not be used any more (hard).
///
/// `None` is no limit. Time limits count from installation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Bytes of plaintext after which a rekey is asked for.
    pub soft_bytes: Option<u64>,
    /// Bytes after which the SA stops.
    pub hard_bytes: Option<u64>,
    /// Packets after which a rekey is asked for; `None` is seven eighths of the sequence numbers.
    pub soft_packets: Option<u64>,
    /// Packets after which the SA stops; never above the sequence number space.
    pub hard_packets: Option<u64>,
    /// Lifetime after which the SA stops.
    pub hard_time: Option<Duration>,
}

/// One SA, one direction, with everything that a data plane needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sa {
    /// Its SPI, chosen by the receiver.
    pub spi: Spi,
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// Which way.
    pub direction: Direction,
    /// Transport or tunnel.
    pub mode: Mode,
    /// Which policies it serves.
    pub reqid: Reqid,
    /// Algorithms.
    pub cipher: CipherSpec,
    /// Encryption key, salt included.
    pub encr_key: Secret,
    /// Integrity key; empty with an AEAD.
    pub integ_key: Secret,
    /// Extended sequence numbers (RFC 4303 2.2.1).
    pub esn: bool,
    /// Anti-replay window in packets, 64 to 4096; 0 switches the check off. For inbound SAs.
    pub replay_window: u32,
    /// UDP encapsulation.
    pub encap: Option<Encap>,
    /// Payloads may be compressed with DEFLATE: the CPI of the receiver (RFC 3173 3.3).
    pub ipcomp: Option<u16>,
    /// Limits; those of both SAs of a pair are kept once.
    pub limits: Arc<Limits>,
    /// Negotiated selectors of this host's side; both SAs of a pair have one list.
    pub local_ts: Arc<[TrafficSelector]>,
    /// Negotiated selectors of the peer's side.
    pub remote_ts: Arc<[TrafficSelector]>,
}

impl Sa {
    /// What names it.
    pub fn key(&self) -> SaKey {
        SaKey { dst: self.dst, spi: self.spi }
    }

    /// Its packets go between other addresses from here on; so its key may be another. The selectors of transport mode
    /// follow where they are the hosts' own addresses as seen from here.
    pub fn relocate(&mut self, outer: Outer) {
        let (src, dst) = match self.direction {
            Direction::In => (outer.remote, outer.local),
            Direction::Out => (outer.local, outer.remote),
        };
        let before = [(self.src, src), (self.dst, dst)];
        (self.src, self.dst, self.encap) = (src, dst, outer.encap);
        if self.mode == Mode::Transport {
            for list in [&mut self.local_ts, &mut self.remote_ts] {
                for ts in Arc::make_mut(list) {
                    let own = before.iter().find(|(old, _)| ts.start == *old && ts.end == *old);
                    if let Some((_, new)) = own {
                        (ts.start, ts.end) = (*new, *new);
                    }
                }
            }
        }
    }
}

/// The two SAs of a child SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaPair {
    /// From the peer to here.
    pub inbound: Sa,
    /// From here to the peer.
    pub outbound: Sa,
}
