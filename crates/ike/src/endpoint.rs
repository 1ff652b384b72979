//! All IKE SAs of one host.
//!
//! Calls come in four kinds: what arrived (`datagram`, `job_done`), commands (`initiate`,
//! `rekey_child`, …), time (`tick`, not before `next_timeout`), and `poll`, which must be called
//! after each of the others until it gives `None`: its outputs are to be carried out in that order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crypto::{Provider, Secret};
use ipsec::Instant;
use wire::message::IkeSpi;

use crate::config::{ChildConfig, Directory, PeerConfig};
use crate::event::{ChildId, ChildInfo, Event, IkeInfo, IkeSaId};
use crate::job::{Done, Job, JobId};

/// The two clocks: one for timers, one for certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic.
    pub at: Instant,
    /// Seconds since the Unix epoch.
    pub unix: u64,
}

/// A UDP datagram; `bytes` is its whole payload, non-ESP marker included where port 4500 has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// This host's address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// UDP payload.
    pub bytes: Vec<u8>,
}

/// What is to be carried out, in order.
pub enum Output {
    /// Send this.
    Transmit(Datagram),
    /// Do this off the loop and give the result to `job_done`.
    Job(Job),
    /// Take note of this.
    Event(Event),
}

/// Why an endpoint wants to be woken; the nearest timer decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Why {
    /// A request has no response yet.
    Retransmit,
    /// A half-open SA of a peer that went silent.
    HalfOpen,
    /// An IKE SA is due for rekeying.
    RekeyIke,
    /// A child SA is due for rekeying.
    RekeyChild,
    /// An SA reached its hard lifetime.
    Expire,
    /// No sign of the peer for its `dpd_delay`.
    Liveness,
    /// A NAT mapping must be kept alive.
    Keepalive,
    /// A closed or replaced SA lingers to answer late retransmissions.
    Linger,
    /// A refused exchange is tried again (TEMPORARY_FAILURE, RFC 7296 2.25).
    Retry,
}

/// A command that cannot be carried out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such SA.
    #[error("there is no such SA")]
    NotFound,
    /// It is not established, or on its way down.
    #[error("the SA is not established")]
    NotEstablished,
}

/// Keys of an IKE SA for Wireshark's `ikev2_decryption_table`.
pub struct ExportedKeys {
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Algorithms of the SK payload.
    pub cipher: crypto::cipher::CipherSpec,
    /// Encryption, initiator to responder.
    pub sk_ei: Secret,
    /// Encryption, responder to initiator.
    pub sk_er: Secret,
    /// Integrity, initiator to responder.
    pub sk_ai: Secret,
    /// Integrity, responder to initiator.
    pub sk_ar: Secret,
}

/// Limits of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointConfig {
    /// Half-open SAs, as responder, of peers that are not known, from which on cookies are asked for.
    pub cookie_threshold: usize,
    /// Half-open SAs, as responder, above which new ones are dropped.
    pub max_half_open: usize,
    /// IKE SAs in all.
    pub max_ike_sas: usize,
}

/// All IKE SAs of one host.
pub struct Endpoint {
    provider: Arc<dyn Provider>,
}

impl Endpoint {
    /// An endpoint without SAs.
    pub fn new(config: EndpointConfig, provider: Arc<dyn Provider>, seed: [u8; 32]) -> Self {
        let _ = (config, seed);
        Self { provider }
    }

    /// A datagram arrived on port 500 or 4500 (ESP in UDP is not for here; it is ignored).
    pub fn datagram(&mut self, now: Now, datagram: Datagram, directory: &dyn Directory) {
        let _ = (now, datagram, directory, &self.provider);
        todo!()
    }

    /// A job is done.
    pub fn job_done(&mut self, now: Now, id: JobId, done: Done, directory: &dyn Directory) {
        let _ = (now, id, done, directory);
        todo!()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) {
        let _ = now;
        todo!()
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        todo!()
    }

    /// When `tick` is due, and why.
    pub fn next_timeout(&self) -> Option<(Instant, Why)> {
        todo!()
    }

    /// Starts an IKE SA with its first child SA. Ends in `IkeUp` and `ChildUp`, or in `IkeDown`.
    pub fn initiate(&mut self, now: Now, config: Arc<PeerConfig>) -> IkeSaId {
        let _ = (now, config);
        todo!()
    }

    /// One more child SA.
    pub fn create_child(&mut self, now: Now, ike: IkeSaId, child: Arc<ChildConfig>) -> Result<(), CommandError> {
        let _ = (now, ike, child);
        todo!()
    }

    /// Replaces a child SA now.
    pub fn rekey_child(&mut self, now: Now, child: ChildId) -> Result<(), CommandError> {
        let _ = (now, child);
        todo!()
    }

    /// Replaces an IKE SA now, its children move over.
    pub fn rekey_ike(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        let _ = (now, ike);
        todo!()
    }

    /// Deletes a child SA in agreement with the peer.
    pub fn delete_child(&mut self, now: Now, child: ChildId) -> Result<(), CommandError> {
        let _ = (now, child);
        todo!()
    }

    /// Deletes an IKE SA with its children in agreement with the peer; in any state, half-open included. The children go at once.
    pub fn delete_ike(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        let _ = (now, ike);
        todo!()
    }

    /// Forgets an IKE SA and its children without a message.
    pub fn abandon(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        let _ = (now, ike);
        todo!()
    }

    /// Asks the peer for a sign of life now (an empty INFORMATIONAL).
    pub fn probe(&mut self, now: Now, ike: IkeSaId) -> Result<(), CommandError> {
        let _ = (now, ike);
        todo!()
    }

    /// Verified ESP traffic of the peer came: as good as a sign of life (RFC 7296 2.4).
    pub fn note_inbound_traffic(&mut self, now: Now, child: ChildId) {
        let _ = (now, child);
        todo!()
    }

    /// The data plane saw the first packet on a new inbound SA: the peer sends through it, so may we.
    pub fn note_first_use(&mut self, now: Now, spi_in: ipsec::Spi) {
        let _ = (now, spi_in);
        todo!()
    }

    /// Established IKE SAs, in the order of their ids.
    pub fn ike_sas(&self) -> Vec<IkeInfo> {
        todo!()
    }

    /// Complete child SAs, in the order of their ids.
    pub fn children(&self) -> Vec<ChildInfo> {
        todo!()
    }

    /// Half-open IKE SAs: id, peer, whether this host initiated.
    pub fn half_open(&self) -> Vec<(IkeSaId, IpAddr, bool)> {
        todo!()
    }

    /// Keys for Wireshark.
    pub fn export_keys(&self, ike: IkeSaId) -> Option<ExportedKeys> {
        let _ = ike;
        todo!()
    }
}
