//! Who carries the mesh's outputs out.

use std::sync::Arc;

use crypto::Provider;
use ike::endpoint::Datagram;
use ipsec::dataplane::Dataplane;
use mesh::plan::Plan;
use tokio::sync::{Notify, mpsc};

use super::site::Site;
use crate::args::DataPlane;

/// Why it could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// .
    #[error("x")]
    X,
}

/// Sockets, device, data plane.
pub struct Carrier {
    /// The data plane.
    pub dataplane: Box<dyn Dataplane>,
    /// Woken when it has events.
    pub wake: Arc<Notify>,
    /// IKE datagrams from the wire.
    pub datagrams: mpsc::Receiver<Datagram>,
}

impl Carrier {
    /// Opens everything.
    pub fn open(
        site: &Site,
        provider: Arc<dyn Provider>,
        kind: DataPlane,
    ) -> Result<Self, CarrierError> {
        let _ = (site, provider, kind);
        Err(CarrierError::X)
    }

    /// Sends an IKE datagram.
    pub fn transmit(&mut self, datagram: &Datagram) {
        let _ = datagram;
    }

    /// Routes follow a new plan.
    pub fn follow(&mut self, plan: &Plan) -> Result<(), CarrierError> {
        let _ = plan;
        Ok(())
    }

    /// Closes.
    pub fn close(&mut self, flush: bool) {
        let _ = flush;
    }
}
