//! A running data plane out of one process and into the next: descriptors, and what they mean.
//!
//! The device, the sockets and the SAs stay as they are; packets that come while nobody reads wait in the kernel's
//! queues. Who gives has stopped its threads before ([`Userspace::pause`]), and starts them again only if the other one
//! has not begun: so no sequence number is used twice.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use ipnet::IpNet;
use ipsec::Instant;
use ipsec::handover::{DecodeError, Running, net, policies, put_net, put_policies};
use ipsec::pipeline::{Emit, Pipeline};
use ipsec::spd;
use wire::bytes::{Put, Reader};
use wire::kept::{
    Kept, KeptError, bytes, flag, ip, many, option, put_bytes, put_ip, put_many, put_option,
};
use zeroize::Zeroizing;

use super::steering::Steering;
use super::wires::Wires;
use super::{Config, Error, Networks, Upcalls, Userspace, locked};
use crate::parcel::Parcel;
use crate::raw::RawEsp;
use crate::tun::Tun;
use crate::udp::Ports;

/// The layout that is written, and the only one that is read.
pub const VERSION: u8 = 2;

/// Addresses, networks, interfaces: of each at most.
const MAX_ITEMS: usize = 1 << 16;
/// Sockets of a kind at most.
const MAX_SOCKETS: u8 = 8;

/// Why a data plane is not gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another build wrote it.
    #[error("it has the layout {0}, and this build reads {VERSION}")]
    Version(u8),
    /// Cut short, or a field holds what it cannot hold.
    #[error("{0}")]
    Field(#[from] KeptError),
    /// Its SAs and policies.
    #[error("{0}")]
    State(#[from] DecodeError),
    /// A descriptor is not what it must be.
    #[error("its {0} is none")]
    Descriptor(&'static str),
    /// Device and sockets would be in another place.
    #[error("it is in another network namespace")]
    Namespace,
}

/// A data plane that another process has built, and goes on with unless it is told that this one does.
#[derive(Debug)]
pub struct Former {
    /// Names and numbers.
    pub config: Config,
    /// SAs, policies, packets that wait.
    pub running: Running,
    /// UDP sockets.
    pub ports: Arc<Ports>,
    networks: Option<Networks>,
    standing: Vec<spd::Policy>,
    loosened: BTreeMap<String, String>,
    tun: Tun,
    esp: Vec<RawEsp>,
}

impl Former {
    /// From what [`Userspace::pack`] made, here or in another build.
    ///
    /// # Errors
    /// If it is anything else, or cannot be used in this thread's network namespace.
    pub fn read(parcel: Parcel) -> Result<Self, Refused> {
        let mut r = Reader::new(&parcel.state, "data plane");
        match r.u8().map_err(KeptError::from)? {
            VERSION => {}
            other => return Err(Refused::Version(other)),
        }
        let namespace = (r.u64().map_err(KeptError::from)?, r.u64().map_err(KeptError::from)?);
        if Some(namespace) != self::namespace() {
            return Err(Refused::Namespace);
        }
        let config = config(&mut r)?;
        let networks = option(&mut r, networks)?;
        let standing = policies(&mut r)?;
        let loosened = many(&mut r, MAX_ITEMS, |r| Ok((text(r)?, text(r)?)))?;
        let (ports, esp) = counts(&mut r)?;
        let running = Running::decode(r.rest())?;
        let mut fds = parcel.fds.into_iter();
        let tun = fds.next().and_then(Tun::adopt).filter(|tun| tun.name() == config.interface);
        let tun = tun.ok_or(Refused::Descriptor("device"))?;
        let ports = Some(fds.by_ref().take(ports)).filter(|some| some.len() == ports);
        let ports = ports.and_then(Ports::adopt).ok_or(Refused::Descriptor("UDP socket"))?;
        let sockets = Some(fds.by_ref().take(esp)).filter(|some| some.len() == esp);
        let esp: Option<Vec<RawEsp>> = sockets.and_then(|some| some.map(RawEsp::adopt).collect());
        let esp = esp.ok_or(Refused::Descriptor("ESP socket"))?;
        if fds.next().is_some() {
            return Err(Refused::Descriptor("last descriptor"));
        }
        let ports = Arc::new(ports);
        let loosened = loosened.into_iter().collect();
        Ok(Self { config, running, ports, networks, standing, loosened, tun, esp })
    }
}

impl Userspace {
    /// Everything is ready to go on where `former` stopped, and nothing was sent or received: that begins with
    /// [`Userspace::go`]. `config` may be another one but for the device's name; `pipeline` was made from
    /// `former.running`.
    ///
    /// # Errors
    /// If a socket or table cannot be had.
    pub fn resume(
        former: Former,
        config: Config,
        pipeline: Arc<Pipeline>,
        upcalls: Box<dyn Upcalls>,
    ) -> Result<Self, Error> {
        let Former { networks, standing, loosened, tun, esp, ports, .. } = former;
        let config = Config { interface: tun.name().to_owned(), ..config };
        let mark = config.mark;
        let steering = Steering::adopt(config, tun, networks, loosened)?;
        let wires = Wires::adopt(steering.tun(), ports, esp, mark)?;
        Self::assemble(pipeline, wires, steering, standing, upcalls)
    }

    /// Begins: threads run from here on. `emit` is what was left to be sent.
    ///
    /// # Errors
    /// If there are no threads to be had.
    pub fn go(&mut self, now: Instant, emit: &mut Vec<Emit>) -> Result<(), Error> {
        let shared = &self.shared;
        shared.wires.carry_out(&shared.pipeline, now, emit);
        locked(&shared.steering).sync(&shared.pipeline);
        self.run()
    }

    /// Stops the threads; what comes from now on waits in the kernel's queues. [`Userspace::go`] begins again.
    pub fn pause(&mut self) {
        self.stop();
    }

    /// What the next process needs, of a data plane that is paused: state, secrets among it, and the descriptors that
    /// belong to it.
    pub fn pack(&self, now: Instant) -> (Zeroizing<Vec<u8>>, Vec<BorrowedFd<'_>>) {
        let (shared, steering) = (&self.shared, locked(&self.shared.steering));
        let running = shared.pipeline.export(now).encode();
        let mut out = Zeroizing::new(Vec::with_capacity(running.len() + (1 << 16)));
        out.put_u8(VERSION);
        let (device, inode) = self.namespace.unwrap_or_default();
        out.put_u64(device);
        out.put_u64(inode);
        put_config(&mut out, steering.config());
        put_option(&mut out, steering.networks(), put_networks);
        put_policies(&mut out, &self.standing);
        put_many(&mut out, steering.loosened().iter(), |out, (interface, before)| {
            put_bytes(out, interface.as_bytes());
            put_bytes(out, before.as_bytes());
        });
        let (ports, esp) = (shared.wires.ports.sockets(), &shared.wires.esp);
        out.extend([ports.len(), esp.len()].map(|n| u8::try_from(n).unwrap_or(u8::MAX)));
        out.put(running.expose());
        let fds = [shared.wires.tun.as_fd()].into_iter();
        let fds = fds.chain(ports.iter().map(AsFd::as_fd)).chain(esp.iter().map(AsFd::as_fd));
        (out, fds.collect())
    }
}

/// What names this thread's network namespace.
pub(super) fn namespace() -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata("/proc/thread-self/ns/net").ok()?;
    Some((meta.dev(), meta.ino()))
}

fn put_config(out: &mut Vec<u8>, config: &Config) {
    put_bytes(out, config.interface.as_bytes());
    for number in [config.mark, config.table, config.rule_priority, config.overhead] {
        out.put_u32(number);
    }
    put_many(out, config.addresses.iter(), |out, address| put_ip(out, *address));
}

fn config(r: &mut Reader<'_>) -> Kept<Config> {
    let interface = text(r)?;
    let (mark, table, rule_priority, overhead) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    let addresses: Vec<IpAddr> = many(r, MAX_ITEMS, ip)?;
    // The device says for itself what it does.
    let offload = true;
    Ok(Config { interface, mark, table, rule_priority, addresses, overhead, offload })
}

fn put_networks(out: &mut Vec<u8>, networks: &Networks) {
    for nets in [&networks.protected, &networks.clear] {
        put_many(out, nets.iter(), |out, net| put_net(out, *net));
    }
    out.put_u8(u8::from(networks.optional));
}

fn networks(r: &mut Reader<'_>) -> Kept<Networks> {
    let protected: Vec<IpNet> = many(r, MAX_ITEMS, net)?;
    Ok(Networks { protected, clear: many(r, MAX_ITEMS, net)?, optional: flag(r)? })
}

fn text(r: &mut Reader<'_>) -> Kept<String> {
    let text = std::str::from_utf8(bytes(r)?).map_err(|_| KeptError::Value("text"))?;
    Ok(text.to_owned())
}

fn counts(r: &mut Reader<'_>) -> Kept<(usize, usize)> {
    match (r.u8()?, r.u8()?) {
        (ports @ 0..=MAX_SOCKETS, esp @ 0..=MAX_SOCKETS) => Ok((ports.into(), esp.into())),
        _ => Err(KeptError::Value("number of sockets")),
    }
}
