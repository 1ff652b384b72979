//! One host.
//!
//! The law: one [`Mesh::handle`] (or [`Mesh::command`]), then [`Mesh::poll`] until it gives
//! [`Output::Sleep`]. Outputs are carried out in the order in which they were polled; that order is
//! part of the meaning: an inbound SA is applied before the message that lets the peer use it is sent.

use std::net::IpAddr;
use std::sync::Arc;

use ike::endpoint::Datagram;
use ike::{Done, Job, JobId, Now, Provider};
use ipsec::Instant;
use ipsec::change::{Batch, Refusal};
use ipsec::dataplane::{DataplaneEvent, PacketInfo, Snapshot};

use crate::command::{Command, CommandError, Reply, Target};
use crate::event::Event;
use crate::loaded::Loaded;
use crate::metrics::Sample;
use crate::status::{DataPlane, Explanation, PeerStatus, Status};

/// Who this host is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its address in the mesh: the source of its ESP packets and its side of every pair.
    pub address: IpAddr,
    /// Its name, for people.
    pub name: String,
    /// This program's version.
    pub version: String,
    /// Which data plane carries the outputs out.
    pub data_plane: DataPlane,
}

/// What happened outside.
pub enum Input {
    /// An IKE datagram arrived on port 500 or 4500.
    Datagram(Datagram),
    /// A manifest was accepted.
    Manifest(Box<Loaded>),
    /// The data plane refused some changes of this batch. Not needed where it refused none.
    Applied(Batch, Vec<Refusal>),
    /// What the data plane holds: the answer to `Output::Inspect`.
    Snapshot(Snapshot),
    /// The data plane reports something.
    Kernel(DataplaneEvent),
    /// A job is done.
    JobDone(JobId, Done),
    /// Time passed: the last `Sleep` is over.
    Tick,
}

/// What is to be carried out.
pub enum Output {
    /// Make these changes, and give what is refused to `Input::Applied`.
    Apply(Batch),
    /// Send this.
    Transmit(Datagram),
    /// Do this off the loop, and give the result to `Input::JobDone`.
    Job(Job),
    /// Take a snapshot of the data plane and give it to `Input::Snapshot`.
    Inspect,
    /// Tell this to whoever listens.
    Report(Event),
    /// Nothing more until this time (give `Input::Tick` then), or until another input.
    Sleep(Instant, Why),
}

/// Why a mesh wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// A timer of IKE.
    Ike(ike::endpoint::Why),
    /// A peer is tried again, or its grace is over.
    Peer(IpAddr),
    /// The data plane is looked at.
    Inspect,
    /// Something is said again: an expiring certificate, `optional`.
    Remind,
    /// Nothing to wait for.
    Nothing,
}

/// One host's view of its fleet.
pub struct Mesh {
    identity: Identity,
}

impl Mesh {
    /// A host without a manifest: it answers nobody and changes nothing. `seed` comes from the OS
    /// on a real host; with the same seed and inputs the outputs are the same.
    pub fn new(identity: Identity, provider: Arc<dyn Provider>, seed: [u8; 32], now: Now) -> Self {
        let _ = (provider, seed, now);
        Self { identity }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        let _ = (now, input);
    }

    /// An operator's command. Poll afterwards, as after `handle`.
    pub fn command(&mut self, now: Now, command: Command) -> Result<Reply, CommandError> {
        let _ = (now, command);
        Err(CommandError::NoManifest)
    }

    /// The next output; the last is always `Sleep`.
    pub fn poll(&mut self) -> Output {
        Output::Sleep(Instant::NEVER, Why::Nothing)
    }

    /// What `status --json` shows.
    pub fn status(&self, now: Now) -> Status {
        let _ = (now, &self.identity);
        unreachable!("filled in next")
    }

    /// The same for one peer.
    pub fn peer_status(&self, now: Now, target: &Target) -> Result<PeerStatus, CommandError> {
        let _ = (now, target);
        Err(CommandError::NoManifest)
    }

    /// What decides on a packet. Direction follows from which of its addresses is this host's.
    pub fn explain(&self, now: Now, packet: PacketInfo) -> Result<Explanation, CommandError> {
        let _ = (now, packet);
        Err(CommandError::NoManifest)
    }

    /// Gauges and counters.
    pub fn metrics(&self, now: Now) -> Vec<Sample> {
        let _ = now;
        Vec::new()
    }

    /// Keys of a peer's IKE SAs, for Wireshark.
    pub fn export_keys(
        &self,
        target: &Target,
    ) -> Result<Vec<ike::endpoint::ExportedKeys>, CommandError> {
        let _ = target;
        Err(CommandError::NoManifest)
    }
}
