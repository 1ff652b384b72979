//! Who carries the mesh's outputs out: sockets, device, data plane.

use std::collections::BTreeSet;
use std::sync::Arc;

use crypto::Provider;
use ike::endpoint::Datagram;
use ipsec::esp::{self, Family, Shape};
use ipsec::pipeline::Pipeline;
use linux::udp::Ports;
use linux::userspace::{self, Config, IkeDatagram, MARK, Networks, PORTS, Upcalls, Userspace};
use mesh::plan::Plan;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use super::site::Site;
use crate::args::DataPlane;

/// IKE datagrams that may wait for the loop; what comes beyond that is dropped, and its sender sends again.
const DATAGRAMS: usize = 4096;

/// Of one IKE datagram, in bytes; ten large certificates fit.
const LONGEST_IKE: usize = 16 << 10;

/// Why it could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// A port is in use, most likely.
    #[error("{0}")]
    Ports(#[from] linux::udp::Error),
    /// Device, raw sockets, routes.
    #[error("the userspace data plane: {0}")]
    Userspace(#[from] userspace::Error),
    /// Asked for by name, and not there.
    #[error("the kernel's data plane is not available yet; use `--data-plane userspace`")]
    NoKernel,
}

/// Sockets, device, data plane.
pub struct Carrier {
    /// The data plane.
    pub dataplane: Userspace,
    /// Woken when it has events.
    pub wake: Arc<Notify>,
    /// IKE datagrams from the wire.
    pub datagrams: mpsc::Receiver<Datagram>,
    ports: Arc<Ports>,
    /// Warnings that hold and were given.
    said: BTreeSet<String>,
}

impl Carrier {
    /// Opens everything and leads the protected networks into the device: from here on nothing
    /// leaves in the clear, and nothing passes before there are policies.
    pub fn open(
        site: &Site,
        provider: Arc<dyn Provider>,
        kind: DataPlane,
    ) -> Result<Self, CarrierError> {
        if kind == DataPlane::Kernel {
            return Err(CarrierError::NoKernel);
        }
        let ports = Arc::new(Ports::open(&PORTS, MARK)?);
        let (sender, datagrams) = mpsc::channel(DATAGRAMS);
        let wake = Arc::new(Notify::new());
        let upcalls = Box::new(ToLoop { datagrams: sender, wake: wake.clone() });
        let mut config = Config::new(vec![site.address()]);
        config.overhead = overhead(site.current());
        let pipeline = Arc::new(Pipeline::new(provider));
        let dataplane = Userspace::start(config, pipeline, ports.clone(), upcalls)?;
        let mut carrier = Self { dataplane, wake, datagrams, ports, said: BTreeSet::new() };
        carrier.follow(site.current());
        Ok(carrier)
    }

    /// Sends an IKE datagram. One that the kernel refuses is sent again by IKE.
    pub fn transmit(&self, datagram: &Datagram) {
        if let Err(error) = self.ports.send(datagram.local, datagram.remote, &datagram.bytes) {
            tracing::debug!("sending IKE from {} to {}: {error}", datagram.local, datagram.remote);
        }
    }

    /// The networks of this plan are routed into the device.
    pub fn follow(&mut self, plan: &Plan) {
        self.dataplane.route(Networks {
            protected: plan.protected().to_vec(),
            clear: plan.clear().to_vec(),
            optional: plan.optional(),
        });
        self.look_after();
    }

    /// Says what is not as it should be: once, and again when it has come back.
    pub fn look_after(&mut self) {
        let holds = BTreeSet::from_iter(self.dataplane.status().warnings);
        for warning in holds.difference(&self.said) {
            tracing::warn!("{warning}");
        }
        self.said = holds;
    }

    /// Ends; with `flush` nothing of it stays, and packets pass in the clear from then on.
    pub fn close(self, flush: bool) {
        if flush {
            self.dataplane.flush();
        }
    }
}

/// The most bytes by which a packet can grow with the plan's suites, in UDP if need be.
fn overhead(plan: &Plan) -> u32 {
    let peers = plan.known_peers().values().map(|peer| &peer.esp_proposals);
    let suites = peers.chain([&plan.manifest().esp_proposals]);
    let ciphers = suites.flat_map(|suites| &suites.proposals).flat_map(ike::negotiate::esp_ciphers);
    let family = Family::of(plan.me());
    let most = ciphers
        .filter_map(Shape::of_spec)
        .map(|shape| esp::overhead(plan.mode(), shape, true, family))
        .max();
    most.and_then(|most| u32::try_from(most).ok())
        .unwrap_or_else(|| userspace::overhead(plan.mode()))
}

/// From the data plane's threads to the loop.
struct ToLoop {
    datagrams: mpsc::Sender<Datagram>,
    wake: Arc<Notify>,
}

impl Upcalls for ToLoop {
    fn ike(&self, datagram: IkeDatagram) {
        let IkeDatagram { local, remote, bytes } = datagram;
        if bytes.len() > LONGEST_IKE {
            tracing::debug!("an IKE datagram of {} bytes from {remote} is dropped", bytes.len());
            return;
        }
        if let Err(TrySendError::Full(_)) =
            self.datagrams.try_send(Datagram { local, remote, bytes })
        {
            tracing::debug!("no room for an IKE datagram from {remote}; it is dropped");
        }
    }

    fn events(&self) {
        self.wake.notify_one();
    }
}
