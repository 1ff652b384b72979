//! NAT detection (RFC 7296 2.23).

use std::net::SocketAddr;

use crypto::Provider;
use crypto::provider::Unsupported;
use wire::message::IkeSpi;
use wire::payload::{Notify, Payload};

/// Who is behind a NAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NatState {
    /// This host: it sends keepalives.
    pub local_behind: bool,
    /// The peer: its address and port may change.
    pub remote_behind: bool,
}

impl NatState {
    /// Whether there is any NAT, so that ESP goes into UDP on port 4500.
    pub fn any(self) -> bool {
        self.local_behind || self.remote_behind
    }
}

/// `SHA-1(SPIi | SPIr | IP | port)`; `spi_r` is zero in the first request.
pub fn hash(provider: &dyn Provider, spi_i: IkeSpi, spi_r: IkeSpi, addr: SocketAddr) -> Result<Vec<u8>, Unsupported> {
    let _ = (provider, spi_i, spi_r, addr);
    todo!()
}

/// NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP of a message from `local` to `remote`.
/// `force` spoils the source hash, so that the peer sees a NAT and takes ESP in UDP.
pub fn notifies(
    provider: &dyn Provider,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    local: SocketAddr,
    remote: SocketAddr,
    force: bool,
) -> Result<[Notify; 2], Unsupported> {
    let _ = (provider, spi_i, spi_r, local, remote, force);
    todo!()
}

/// What a received message says, `local` and `remote` being its destination and source as seen here.
/// `None`: the peer does no NAT traversal (one kind of notify is missing). SPIs are those of its header.
pub fn detect(
    provider: &dyn Provider,
    payloads: &[Payload],
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<Option<NatState>, Unsupported> {
    let _ = (provider, payloads, spi_i, spi_r, local, remote);
    todo!()
}
