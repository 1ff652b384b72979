//! NAT detection (RFC 7296 2.23).

use std::net::{IpAddr, SocketAddr};

use crypto::Provider;
use crypto::provider::Unsupported;
use wire::message::IkeSpi;
use wire::payload::{Notify, Payload};
use wire::registry::{HashAlg, NotifyType, ProtocolId};

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
pub fn hash(
    provider: &dyn Provider,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    addr: SocketAddr,
) -> Result<Vec<u8>, Unsupported> {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (spi_i, spi_r) = (spi_i.0.to_be_bytes(), spi_r.0.to_be_bytes());
    provider.hash(HashAlg::SHA1, &[&spi_i, &spi_r, &ip, &addr.port().to_be_bytes()])
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
    let mut source = hash(provider, spi_i, spi_r, local)?;
    if force {
        source.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let destination = hash(provider, spi_i, spi_r, remote)?;
    Ok([
        notify(NotifyType::NAT_DETECTION_SOURCE_IP, source),
        notify(NotifyType::NAT_DETECTION_DESTINATION_IP, destination),
    ])
}

/// What a received message says, `local` and `remote` being its destination and source as seen here.
/// `None`: the peer does no NAT traversal (one kind of notify is missing). SPIs are those of its header.
///
/// A peer with several addresses sends several SOURCE hashes: one that matches is enough.
pub fn detect(
    provider: &dyn Provider,
    payloads: &[Payload],
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<Option<NatState>, Unsupported> {
    let differs = |kind: NotifyType, addr: SocketAddr| -> Result<Option<bool>, Unsupported> {
        let mut told = data_of(payloads, kind).peekable();
        if told.peek().is_none() {
            return Ok(None);
        }
        let seen = hash(provider, spi_i, spi_r, addr)?;
        Ok(Some(!told.any(|data| data == seen)))
    };
    let remote_behind = differs(NotifyType::NAT_DETECTION_SOURCE_IP, remote)?;
    let local_behind = differs(NotifyType::NAT_DETECTION_DESTINATION_IP, local)?;
    Ok(local_behind
        .zip(remote_behind)
        .map(|(local_behind, remote_behind)| NatState { local_behind, remote_behind }))
}

fn notify(kind: NotifyType, data: Vec<u8>) -> Notify {
    Notify { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data }
}

fn data_of(payloads: &[Payload], kind: NotifyType) -> impl Iterator<Item = &[u8]> {
    payloads.iter().filter_map(move |payload| match payload {
        Payload::Notify(n) if n.kind == kind => Some(n.data.as_slice()),
        _ => None,
    })
}
