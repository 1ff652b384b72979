//! Who carries the mesh's outputs out: sockets, device, data plane.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use crypto::Provider;
use ike::endpoint::Datagram;
use ipsec::dataplane::{Dataplane, PacketInfo};
use ipsec::esp::{self, Family, Shape};
use ipsec::pipeline::Pipeline;
use ipsec::sa::Sa;
use linux::listener::Listener;
use linux::udp::Ports;
use linux::userspace::{self, Config, MARK, Networks, PORTS, Userspace};
use linux::xfrm::{self, Kernel, Missing};
use mesh::plan::Plan;
use mesh::readiness::Watched;
use tokio::sync::Notify;

use super::aside::Aside;
use super::cleartext::Cleartext;
use super::handover;
use super::intake::{self, Intake, ToLoop};
use super::site::{Site, own_addresses};
use crate::args::DataPlane;

/// The port of ESP in UDP (RFC 3948).
const NAT_TRAVERSAL: u16 = 4500;

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
    #[error("the kernel's data plane: {0}; use `--data-plane userspace`")]
    NoKernel(#[from] Missing),
    /// The kernel's databases.
    #[error("the kernel's data plane: {0}")]
    Kernel(#[from] xfrm::Error),
    /// The thread that receives IKE.
    #[error("{0}")]
    Listener(#[from] linux::listener::Error),
}

/// Sockets, device, data plane.
pub struct Carrier {
    plane: Plane,
    wake: Arc<Notify>,
    /// IKE datagrams from the wire.
    pub intake: Intake,
    ports: Arc<Ports>,
    aside: Aside,
    cleartext: Cleartext,
    /// Warnings that hold and were given.
    said: BTreeSet<String>,
    refused_before: u64,
}

enum Plane {
    Userspace(Userspace),
    Kernel { kernel: Box<Kernel>, _listener: Listener },
}

impl Carrier {
    /// Opens everything. With the userspace data plane the protected networks are led into the device:
    /// from here on nothing leaves in the clear, and nothing passes before there are policies.
    pub fn open(
        site: &Site,
        provider: Arc<dyn Provider>,
        wanted: DataPlane,
        state_dir: &Path,
    ) -> Result<Self, CarrierError> {
        let in_kernel = match wanted {
            DataPlane::Userspace => false,
            DataPlane::Kernel => xfrm::probe().map(|()| true)?,
            DataPlane::Auto => is_there(xfrm::probe()),
        };
        let wake = Arc::new(Notify::new());
        let (upcalls, intake) = intake::open(wake.clone());
        let (plane, ports) = if in_kernel {
            handover::dismiss(state_dir);
            kernel(upcalls, state_dir)?
        } else {
            userspace(site, provider, upcalls, state_dir)?
        };
        let said = BTreeSet::new();
        let (aside, cleartext) = (Aside::open(), Cleartext::default());
        let mut carrier =
            Self { plane, wake, intake, ports, aside, cleartext, said, refused_before: 0 };
        // What may pass in the clear does so until there are policies.
        if !site.current().optional() {
            carrier.follow(site.current());
        }
        Ok(carrier)
    }

    /// Which data plane carries the packets.
    pub fn kind(&self) -> mesh::status::DataPlane {
        match self.plane {
            Plane::Userspace(_) => mesh::status::DataPlane::Userspace,
            Plane::Kernel { .. } => mesh::status::DataPlane::Kernel,
        }
    }

    /// Whether it carries ESP faster in UDP.
    pub fn prefers_encap(&self) -> bool {
        match &self.plane {
            Plane::Userspace(userspace) => userspace.prefers_encap(),
            Plane::Kernel { .. } => false,
        }
    }

    /// The data plane.
    pub fn dataplane(&mut self) -> &mut dyn Dataplane {
        match &mut self.plane {
            Plane::Userspace(userspace) => userspace,
            Plane::Kernel { kernel, .. } => &mut **kernel,
        }
    }

    /// The SAs that the data plane holds with their keys; a kernel keeps those to itself.
    pub fn sas(&self) -> Vec<Sa> {
        match &self.plane {
            Plane::Userspace(userspace) => {
                userspace.pipeline().sas().iter().map(|entry| (*entry.sa).clone()).collect()
            }
            Plane::Kernel { .. } => Vec::new(),
        }
    }

    /// Why packets are not carried any more, if so: nothing but a new start helps then.
    pub fn broken(&self) -> Option<String> {
        match &self.plane {
            Plane::Userspace(userspace) => userspace.broken(),
            Plane::Kernel { .. } => None,
        }
    }

    /// Sends an IKE datagram. One that the kernel refuses is sent again by IKE.
    pub fn transmit(&self, datagram: &Datagram) {
        if self.aside.takes(datagram) {
            return;
        }
        if let Err(error) = self.ports.send(datagram.local, datagram.remote, &datagram.bytes) {
            tracing::debug!("sending IKE from {} to {}: {error}", datagram.local, datagram.remote);
        }
    }

    /// What the loop waits for: an IKE datagram, or that the data plane has events.
    pub async fn next(&mut self) -> Arrival {
        tokio::select! {
            Some(datagram) = self.intake.next() => Arrival::Datagram(datagram),
            () = self.wake.notified() => Arrival::Events,
            packet = self.cleartext.next() => Arrival::Passed(packet),
        }
    }

    /// The networks of this plan are routed into the device; a kernel needs only the policies. What the plan lets pass in
    /// the clear is watched.
    pub fn follow(&mut self, plan: &Plan) {
        self.cleartext.follow(plan, self.device());
        let Plane::Userspace(userspace) = &mut self.plane else { return };
        userspace.set_addresses(plan.addresses());
        userspace.route(Networks {
            protected: plan.protected().to_vec(),
            clear: plan.clear().to_vec(),
            optional: plan.optional(),
        });
        match mesh::plan::guard(plan.manifest(), &own_addresses()) {
            Ok(rules) => userspace.stand(rules),
            Err(error) => tracing::warn!("the leak guard stays as it was: {error}"),
        }
        self.look_after();
    }

    /// The end is near, and packets pass in the clear from now on: nothing is led into a device any more.
    pub fn unroute(&mut self) {
        if let Plane::Userspace(userspace) = &mut self.plane {
            userspace.unroute();
        }
    }

    /// How well what passes in the clear was watched.
    pub fn watched(&mut self) -> Watched {
        self.cleartext.watched()
    }

    /// The device that packets are led into, if there is one.
    pub fn device(&self) -> Option<&'static str> {
        match &self.plane {
            Plane::Userspace(_) => Some(linux::userspace::INTERFACE),
            Plane::Kernel { .. } => None,
        }
    }

    /// Says what is not as it should be: once, and again when it has come back.
    pub fn look_after(&mut self) {
        let holds = match &self.plane {
            Plane::Userspace(userspace) => BTreeSet::from_iter(userspace.status().warnings),
            Plane::Kernel { .. } => BTreeSet::new(),
        };
        self.cleartext.look();
        for warning in holds.difference(&self.said) {
            tracing::warn!("{warning}");
        }
        self.said = holds;
        let refused = self.refused();
        if refused > self.refused_before {
            let fresh = refused - self.refused_before;
            tracing::warn!("{fresh} IKE datagrams were dropped: too many at once, or too long");
        }
        self.refused_before = refused;
    }

    /// IKE datagrams that were dropped before anybody looked at them.
    pub fn refused(&self) -> u64 {
        self.intake.refused()
    }

    /// The first policies are in place: what held until then, a guard or a former process, goes.
    pub fn take_over(&mut self) {
        let taken = match &mut self.plane {
            Plane::Userspace(userspace) => userspace.take_over(),
            Plane::Kernel { .. } => linux::guard::lift(),
        };
        if let Err(error) = taken {
            tracing::warn!("the leak guard stays beside the policies: {error}");
        }
    }

    /// Ends.
    pub fn close(self, close: Close<'_>) {
        let Plane::Userspace(mut userspace) = self.plane else { return };
        if close == Close::Flush {
            return userspace.flush();
        }
        // What a container's first process leaves ends with it.
        let alone = std::process::id() == 1;
        if let Close::HandOver(dir) = close
            && !alone
            && !userspace.pipeline().sas().is_empty()
        {
            match handover::leave_with_holder(&mut userspace, dir) {
                Ok(holder) => {
                    tracing::info!("process {holder} carries packets until the next start");
                    return;
                }
                Err(reason) => tracing::warn!("SAs end with this process: {reason}"),
            }
        }
        if let Err(error) = userspace.leave() {
            tracing::warn!("nothing passes to the IPsec subnets, exceptions included: {error}");
        }
    }
}

/// How a carrier ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close<'a> {
    /// Nothing stays, and packets pass in the clear from then on.
    Flush,
    /// Policies stay.
    Leave,
    /// SAs stay as well, for the next daemon with this state directory.
    HandOver(&'a Path),
}

/// What came from outside.
pub enum Arrival {
    /// From the wire.
    Datagram(Datagram),
    /// The data plane has some.
    Events,
    /// Something passed in the clear.
    Passed(PacketInfo),
}

fn is_there(probed: Result<(), Missing>) -> bool {
    if let Err(missing) = &probed {
        tracing::info!("userspace data plane: {missing}");
    }
    probed.is_ok()
}

fn kernel(upcalls: ToLoop, state_dir: &Path) -> Result<(Plane, Arc<Ports>), CarrierError> {
    let ports = Arc::new(Ports::open(&PORTS, MARK)?);
    for socket in ports.sockets().iter().filter(|socket| socket.port() == NAT_TRAVERSAL) {
        xfrm::decapsulate(socket)?;
    }
    let kernel = Box::new(Kernel::open_with(Some(state_dir))?);
    let _listener = Listener::start(ports.clone(), kernel.as_fd(), Box::new(upcalls))?;
    Ok((Plane::Kernel { kernel, _listener }, ports))
}

/// Set to `off`, packets go to and from device and sockets one at a time, as where the kernel has no offload.
const OFFLOAD: &str = "WARREN_OFFLOAD";

fn userspace(
    site: &Site,
    provider: Arc<dyn Provider>,
    upcalls: ToLoop,
    state_dir: &Path,
) -> Result<(Plane, Arc<Ports>), CarrierError> {
    let mut config = Config::new(site.current().addresses());
    config.overhead = overhead(site.current());
    config.offload = std::env::var_os(OFFLOAD).is_none_or(|value| value != "off");
    let former = Box::new(upcalls.clone());
    if let Some((plane, ports)) =
        handover::take(state_dir, provider.clone(), config.clone(), former)
    {
        return Ok((Plane::Userspace(plane), ports));
    }
    let ports = Arc::new(Ports::open(&PORTS, MARK)?);
    let pipeline = Arc::new(Pipeline::new(provider));
    let plane = Userspace::start(config, pipeline, ports.clone(), Box::new(upcalls))?;
    Ok((Plane::Userspace(plane), ports))
}

/// The most bytes by which a packet can grow with the plan's suites, in UDP if need be.
fn overhead(plan: &Plan) -> u32 {
    let peers = plan.known_peers().values().map(|peer| &peer.esp_proposals);
    let suites = peers.chain([&plan.manifest().esp_proposals]);
    let ciphers =
        suites.flat_map(|suites| suites.proposals.iter()).flat_map(ike::negotiate::esp_ciphers);
    let families: Vec<Family> = plan.addresses().into_iter().map(Family::of).collect();
    let most = ciphers
        .filter_map(Shape::of_spec)
        .flat_map(|shape| families.iter().map(move |f| esp::overhead(plan.mode(), shape, true, *f)))
        .max();
    most.and_then(|most| u32::try_from(most).ok())
        .unwrap_or_else(|| userspace::overhead(plan.mode()))
}
