//! What is on a link between two hosts.

use std::net::{IpAddr, SocketAddr};

use ike::endpoint::Datagram;
use ipsec::pipeline::{Emit, OuterInfo};

/// Outer IP and UDP headers, IPv6's being the longer.
const HEADERS: usize = 48;

/// A packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// What it carries.
    pub body: Body,
}

/// What a packet carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// UDP of the daemon: IKE or a keepalive.
    Ike {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
        /// UDP payload.
        bytes: Vec<u8>,
    },
    /// ESP, in UDP or not.
    Esp {
        /// What the receiver will see of the outer headers.
        outer: OuterInfo,
        /// UDP port that it comes from; 0 without UDP.
        source_port: u16,
        /// UDP port that it goes to; 0 without UDP.
        dst_port: u16,
        /// DF.
        dont_fragment: bool,
        /// SPI, sequence number, IV, ciphertext, ICV.
        bytes: Vec<u8>,
    },
    /// A whole IP packet in the clear.
    Clear(Vec<u8>),
}

/// The kinds of packet that a rule can tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// IKE and keepalives.
    Ike,
    /// ESP, in UDP or not.
    Esp,
    /// Cleartext.
    Clear,
}

impl Packet {
    /// What a daemon sends.
    pub fn from_ike(datagram: Datagram) -> Self {
        let Datagram { local, remote, bytes } = datagram;
        let body = Body::Ike { src_port: local.port(), dst_port: remote.port(), bytes };
        Self { src: local.ip(), dst: remote.ip(), body }
    }

    /// What a data plane sends; `None` for what it does not send, and for what is not IP.
    pub fn from_emit(emit: Emit) -> Option<Self> {
        let outer = OuterInfo::of(&emit);
        let dst_port = match &emit {
            Emit::EspInUdp { remote, .. } => remote.port(),
            _ => 0,
        };
        match (emit, outer) {
            (Emit::Esp(p) | Emit::EspInUdp { packet: p, .. }, Some(outer)) => {
                let (dont_fragment, bytes) = (p.dont_fragment, p.esp);
                let source_port = outer.src.port();
                let body = Body::Esp { outer, source_port, dst_port, dont_fragment, bytes };
                Some(Self { src: p.src, dst: p.dst, body })
            }
            (Emit::Clear(bytes), _) => {
                let headers = ipsec::packet::parse(&bytes).ok()?;
                Some(Self { src: headers.src, dst: headers.dst, body: Body::Clear(bytes) })
            }
            _ => None,
        }
    }

    /// What the daemon at its destination gets; `None` if it is not for the daemon.
    pub fn into_ike(self) -> Option<Datagram> {
        let Body::Ike { src_port, dst_port, bytes } = self.body else { return None };
        Some(Datagram {
            local: SocketAddr::new(self.dst, dst_port),
            remote: SocketAddr::new(self.src, src_port),
            bytes,
        })
    }

    /// Its kind.
    pub fn class(&self) -> Class {
        match self.body {
            Body::Ike { .. } => Class::Ike,
            Body::Esp { .. } => Class::Esp,
            Body::Clear(_) => Class::Clear,
        }
    }

    /// What is behind the outer headers.
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Ike { bytes, .. } | Body::Esp { bytes, .. } | Body::Clear(bytes) => bytes,
        }
    }

    /// The same, to be damaged.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.body {
            Body::Ike { bytes, .. } | Body::Esp { bytes, .. } | Body::Clear(bytes) => bytes,
        }
    }

    /// Whether a link of this MTU must refuse it: too long, and not to be fragmented.
    pub fn exceeds(&self, mtu: usize) -> bool {
        match &self.body {
            Body::Esp { dont_fragment: true, bytes, .. } => bytes.len() + HEADERS > mtu,
            _ => false,
        }
    }

    /// The IKE message in it, without the non-ESP marker (RFC 3948 2.2).
    pub fn ike_message(&self) -> Option<&[u8]> {
        let Body::Ike { src_port, dst_port, bytes } = &self.body else { return None };
        if *src_port == NATT_PORT || *dst_port == NATT_PORT {
            return bytes.strip_prefix(&wire::datagram::NON_ESP_MARKER);
        }
        Some(bytes)
    }
}

/// The port of IKE and of ESP in UDP behind a NAT (RFC 3948).
const NATT_PORT: u16 = 4500;
