//! A recording of one host: all that went into its [`Mesh`](crate::Mesh), so that it can be played again.
//!
//! A mesh is a function of its seed and its inputs. What public-key work came to follows from the work itself, so that
//! only signatures are recorded, some of which are made with chance. Between the inputs stands what came out, as a hash.
//!
//! A recording holds the host's credentials and the seed of all its keys: it is to be kept as those are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ike::endpoint::Datagram;
use ike::{Done, JobId, Now, Secret};
use ipsec::Instant;
use ipsec::change::{Refusal, RefusalReason};
use ipsec::dataplane::{DataplaneEvent, PacketInfo, SaUsage, Snapshot};
use ipsec::handover::{net, put_net};
use ipsec::sa::{Reqid, SaKey};
use ipsec::spd::{Flow, PolicyKey, PolicySelector};
use wire::bytes::{Put, Reader};
use wire::esp::Spi;
use wire::kept::{
    Kept, KeptError, bytes, end, flag, ip, many, option, put_bytes, put_end, put_ip, put_many,
    put_option,
};

use crate::command::{Command, Order, Target};
use crate::journal;
use crate::mesh::{Identity, Input};
use crate::status::DataPlane;

/// The layout that is written, and the only one that is read.
pub const VERSION: u8 = 2;
/// Elements of a list, at most.
const MOST: usize = 1 << 20;

/// What a recording begins with.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Who the host is.
    pub identity: Identity,
    /// What all its randomness comes from.
    pub seed: Secret,
    /// When it began.
    pub now: Now,
}

/// A manifest as it was read, with everything that it refers to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bundle {
    /// The file.
    pub path: String,
    /// Its content.
    pub text: Secret,
    /// What it refers to, by the name of the reference.
    pub files: Vec<(String, Secret)>,
    /// What patterns of names came to.
    pub expanded: Vec<(String, Vec<String>)>,
    /// The host's addresses.
    pub own: Vec<IpAddr>,
    /// Whether the data plane is better off with ESP in UDP.
    pub prefer_encap: bool,
}

/// One thing that went in.
#[derive(Clone, PartialEq, Debug)]
pub enum Given {
    /// An IKE datagram.
    Datagram(Datagram),
    /// What an earlier process left.
    Journal(Vec<(journal::Key, Secret)>),
    /// What operators had said.
    Orders(BTreeMap<IpAddr, Order>),
    /// A manifest.
    Manifest(Box<Bundle>),
    /// Refused changes of the batch of this number, counted from 0.
    Applied(u64, Vec<Refusal>),
    /// What the data plane holds; its counters, which only the metrics show, are left out.
    Snapshot(Snapshot),
    /// The data plane reported something.
    Kernel(DataplaneEvent),
    /// A job is done; if it was a signature, this one.
    JobDone(JobId, Option<Vec<u8>>),
    /// This host's addresses.
    Addresses(Vec<IpAddr>),
    /// Time passed.
    Tick,
    /// A command.
    Command(Command),
}

/// Something that went in, and what had come out before.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// When.
    pub now: Now,
    /// Of all outputs since the input before this one.
    pub outputs: [u8; 16],
    /// What.
    pub given: Given,
}

/// Why bytes are no recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another build wrote it.
    #[error("the recording has the layout {0}, and this build reads {VERSION}")]
    Version(u8),
    /// It is cut short, or a field holds what it cannot hold.
    #[error("this is no recording, or a damaged one: {0}")]
    Field(#[from] KeptError),
}

impl Given {
    /// Of an input that is about to be handed in. `batch` is the number of the batch that was refused, and `bundle` what
    /// a manifest was read from.
    pub fn of(input: &Input, batch: u64, bundle: Option<Bundle>) -> Option<Self> {
        Some(match input {
            Input::Datagram(datagram) => Self::Datagram(datagram.clone()),
            Input::Journal(found) => Self::Journal(found.clone()),
            Input::Orders(orders) => Self::Orders(orders.clone()),
            Input::Manifest(_) => Self::Manifest(Box::new(bundle?)),
            Input::Applied(_, refusals) => Self::Applied(batch, refusals.clone()),
            Input::Snapshot(snapshot) => {
                Self::Snapshot(Snapshot { counters: Vec::new(), ..snapshot.clone() })
            }
            Input::Kernel(event) => Self::Kernel(event.clone()),
            Input::JobDone(id, Done::Sign(Ok(signature))) => {
                Self::JobDone(*id, Some(signature.clone()))
            }
            Input::JobDone(id, _) => Self::JobDone(*id, None),
            Input::Addresses(own) => Self::Addresses(own.clone()),
            Input::Tick => Self::Tick,
        })
    }
}

impl Begin {
    /// As bytes.
    pub fn encode(&self) -> Secret {
        let mut out = vec![VERSION];
        put_ip(&mut out, self.identity.address);
        put_text(&mut out, &self.identity.name);
        put_text(&mut out, &self.identity.version);
        out.put_u8(u8::from(self.identity.data_plane == DataPlane::Kernel));
        put_bytes(&mut out, self.seed.expose());
        put_now(&mut out, self.now);
        Secret::new(out)
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are of another version, or not what [`encode`](Self::encode) makes.
    pub fn decode(from: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(from, "recording");
        match r.u8().map_err(KeptError::from)? {
            VERSION => Ok(begin(&mut r).and_then(|begin| Ok((r.finish()?, begin).1))?),
            other => Err(DecodeError::Version(other)),
        }
    }
}

impl Step {
    /// As bytes.
    pub fn encode(&self) -> Secret {
        let mut out = Vec::with_capacity(256);
        put_now(&mut out, self.now);
        out.put(&self.outputs);
        put_given(&mut out, &self.given);
        Secret::new(out)
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are not what [`encode`](Self::encode) makes.
    pub fn decode(from: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(from, "step");
        let step = now(&mut r).and_then(|now| {
            let outputs = r.array()?;
            let given = given(&mut r)?;
            r.finish()?;
            Ok(Self { now, outputs, given })
        });
        Ok(step?)
    }
}

fn begin(r: &mut Reader<'_>) -> Kept<Begin> {
    let (address, name, version) = (ip(r)?, text(r)?, text(r)?);
    let data_plane = if flag(r)? { DataPlane::Kernel } else { DataPlane::Userspace };
    let seed = Secret::from(bytes(r)?);
    if seed.expose().len() != 32 {
        return Err(KeptError::Value("seed"));
    }
    Ok(Begin { identity: Identity { address, name, version, data_plane }, seed, now: now(r)? })
}

fn put_given(out: &mut Vec<u8>, given: &Given) {
    match given {
        Given::Datagram(datagram) => {
            out.put_u8(0);
            put_end(out, datagram.local);
            put_end(out, datagram.remote);
            put_bytes(out, &datagram.bytes);
        }
        Given::Journal(found) => {
            out.put_u8(1);
            put_many(out, found.iter(), |out, (key, record)| {
                out.put_u64(key.0);
                put_bytes(out, record.expose());
            });
        }
        Given::Orders(orders) => {
            out.put_u8(2);
            put_many(out, orders.iter(), |out, (address, order)| {
                put_ip(out, *address);
                out.put_u8(u8::from(*order == Order::Up));
            });
        }
        Given::Manifest(bundle) => {
            out.put_u8(3);
            put_bundle(out, bundle);
        }
        Given::Applied(batch, refusals) => {
            out.put_u8(4);
            out.put_u64(*batch);
            put_many(out, refusals.iter(), put_refusal);
        }
        Given::Snapshot(snapshot) => {
            out.put_u8(5);
            put_snapshot(out, snapshot);
        }
        Given::Kernel(event) => {
            out.put_u8(6);
            put_event(out, event);
        }
        Given::JobDone(id, signature) => {
            out.put_u8(7);
            out.put_u64(id.0);
            put_option(out, signature.as_ref(), |out, bytes| put_bytes(out, bytes));
        }
        Given::Tick => out.put_u8(8),
        Given::Addresses(own) => {
            out.put_u8(10);
            put_many(out, own.iter(), |out, address| put_ip(out, *address));
        }
        Given::Command(command) => {
            out.put_u8(9);
            put_command(out, command);
        }
    }
}

fn given(r: &mut Reader<'_>) -> Kept<Given> {
    Ok(match r.u8()? {
        0 => {
            Given::Datagram(Datagram { local: end(r)?, remote: end(r)?, bytes: bytes(r)?.to_vec() })
        }
        1 => Given::Journal(many(r, MOST, |r| {
            Ok((journal::Key(r.u64()?), Secret::from(bytes(r)?)))
        })?),
        2 => {
            let orders =
                many(r, MOST, |r| Ok((ip(r)?, if flag(r)? { Order::Up } else { Order::Down })))?;
            Given::Orders(orders.into_iter().collect())
        }
        3 => Given::Manifest(Box::new(bundle(r)?)),
        4 => Given::Applied(r.u64()?, many(r, MOST, refusal)?),
        5 => Given::Snapshot(snapshot(r)?),
        6 => Given::Kernel(event(r)?),
        7 => Given::JobDone(JobId(r.u64()?), option(r, |r| Ok(bytes(r)?.to_vec()))?),
        8 => Given::Tick,
        10 => Given::Addresses(many(r, MOST, ip)?),
        9 => Given::Command(command(r)?),
        _ => return Err(KeptError::Value("kind of input")),
    })
}

fn put_bundle(out: &mut Vec<u8>, bundle: &Bundle) {
    put_text(out, &bundle.path);
    put_bytes(out, bundle.text.expose());
    put_many(out, bundle.files.iter(), |out, (name, content)| {
        put_text(out, name);
        put_bytes(out, content.expose());
    });
    put_many(out, bundle.expanded.iter(), |out, (pattern, names)| {
        put_text(out, pattern);
        put_many(out, names.iter(), |out, name| put_text(out, name));
    });
    put_many(out, bundle.own.iter(), |out, address| put_ip(out, *address));
    out.put_u8(u8::from(bundle.prefer_encap));
}

fn bundle(r: &mut Reader<'_>) -> Kept<Bundle> {
    Ok(Bundle {
        path: text(r)?,
        text: Secret::from(bytes(r)?),
        files: many(r, MOST, |r| Ok((text(r)?, Secret::from(bytes(r)?))))?,
        expanded: many(r, MOST, |r| Ok((text(r)?, many(r, MOST, text)?)))?,
        own: many(r, MOST, ip)?,
        prefer_encap: flag(r)?,
    })
}

fn put_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    out.put_u32(u32::try_from(refusal.index).unwrap_or(u32::MAX));
    let kind = RefusalReason::NAMES.iter().position(|name| *name == refusal.reason.name());
    out.put_u8(kind.unwrap_or(0) as u8);
    let (RefusalReason::NoAlgorithm(why)
    | RefusalReason::Full(why)
    | RefusalReason::NoMemory(why)
    | RefusalReason::Gone(why)
    | RefusalReason::Denied(why)
    | RefusalReason::Conflict(why)
    | RefusalReason::Other(why)) = &refusal.reason;
    put_text(out, why);
}

fn refusal(r: &mut Reader<'_>) -> Kept<Refusal> {
    let index = usize::try_from(r.u32()?).map_err(|_| KeptError::Value("index"))?;
    // In the order of `NAMES`.
    let reason = match r.u8()? {
        0 => RefusalReason::NoAlgorithm,
        1 => RefusalReason::Full,
        2 => RefusalReason::NoMemory,
        3 => RefusalReason::Gone,
        4 => RefusalReason::Denied,
        5 => RefusalReason::Conflict,
        6 => RefusalReason::Other,
        _ => return Err(KeptError::Value("reason")),
    };
    Ok(Refusal { index, reason: reason(text(r)?) })
}

fn put_snapshot(out: &mut Vec<u8>, snapshot: &Snapshot) {
    put_many(out, snapshot.sas.iter(), |out, usage| {
        put_key(out, usage.key);
        out.put_u64(usage.bytes);
        out.put_u64(usage.packets);
        put_option(out, usage.last_used.as_ref(), |out, at| out.put_u64(at.as_nanos()));
        out.put_u64(usage.replays);
        out.put_u64(usage.bad_icv);
    });
    put_many(out, snapshot.policies.iter(), put_policy);
    put_many(out, snapshot.altered_sas.iter(), |out, key| put_key(out, *key));
    put_many(out, snapshot.altered_policies.iter(), put_policy);
}

fn snapshot(r: &mut Reader<'_>) -> Kept<Snapshot> {
    let usage = |r: &mut Reader<'_>| {
        let (key, bytes, packets) = (key(r)?, r.u64()?, r.u64()?);
        let last_used = option(r, |r| Ok(Instant::from_nanos(r.u64()?)))?;
        Ok(SaUsage { key, bytes, packets, last_used, replays: r.u64()?, bad_icv: r.u64()? })
    };
    Ok(Snapshot {
        sas: many(r, MOST, usage)?,
        policies: many(r, MOST, policy)?,
        altered_sas: many(r, MOST, key)?,
        altered_policies: many(r, MOST, policy)?,
        counters: Vec::new(),
    })
}

fn put_policy(out: &mut Vec<u8>, key: &PolicyKey) {
    out.put_u8(match key.flow {
        Flow::In => 0,
        Flow::Out => 1,
        Flow::Fwd => 2,
    });
    out.put_u32(key.priority);
    let PolicySelector { local, remote, protocol, local_ports, remote_ports } = key.selector;
    put_net(out, local);
    put_net(out, remote);
    put_option(out, protocol.as_ref(), |out, protocol| out.put_u8(*protocol));
    for ports in [local_ports, remote_ports] {
        put_option(out, ports.as_ref(), |out, (first, last)| {
            out.put_u16(*first);
            out.put_u16(*last);
        });
    }
}

fn policy(r: &mut Reader<'_>) -> Kept<PolicyKey> {
    let flow = match r.u8()? {
        0 => Flow::In,
        1 => Flow::Out,
        2 => Flow::Fwd,
        _ => return Err(KeptError::Value("flow")),
    };
    let (priority, local, remote) = (r.u32()?, net(r)?, net(r)?);
    let protocol = option(r, |r| Ok(r.u8()?))?;
    let ports = |r: &mut Reader<'_>| option(r, |r| Ok((r.u16()?, r.u16()?)));
    let (local_ports, remote_ports) = (ports(r)?, ports(r)?);
    let selector = PolicySelector { local, remote, protocol, local_ports, remote_ports };
    Ok(PolicyKey { flow, priority, selector })
}

fn put_event(out: &mut Vec<u8>, event: &DataplaneEvent) {
    match event {
        DataplaneEvent::Acquire { reqid, packet } => {
            out.put_u8(0);
            out.put_u32(reqid.0);
            put_packet(out, packet);
        }
        DataplaneEvent::Drift => out.put_u8(1),
        DataplaneEvent::SoftLimit(key) => {
            out.put_u8(2);
            put_key(out, *key);
        }
        DataplaneEvent::HardLimit(key) => {
            out.put_u8(3);
            put_key(out, *key);
        }
        DataplaneEvent::FirstUse(key) => {
            out.put_u8(4);
            put_key(out, *key);
        }
        DataplaneEvent::Moved { key, remote } => {
            out.put_u8(5);
            put_key(out, *key);
            put_end(out, *remote);
        }
        DataplaneEvent::UnknownSpi { src, key } => {
            out.put_u8(6);
            put_ip(out, *src);
            put_key(out, *key);
        }
        DataplaneEvent::ClearIn { packet } => {
            out.put_u8(7);
            put_packet(out, packet);
        }
        DataplaneEvent::Passed { packet } => {
            out.put_u8(8);
            put_packet(out, packet);
        }
    }
}

fn event(r: &mut Reader<'_>) -> Kept<DataplaneEvent> {
    Ok(match r.u8()? {
        0 => DataplaneEvent::Acquire { reqid: Reqid(r.u32()?), packet: packet(r)? },
        1 => DataplaneEvent::Drift,
        2 => DataplaneEvent::SoftLimit(key(r)?),
        3 => DataplaneEvent::HardLimit(key(r)?),
        4 => DataplaneEvent::FirstUse(key(r)?),
        5 => DataplaneEvent::Moved { key: key(r)?, remote: end(r)? },
        6 => DataplaneEvent::UnknownSpi { src: ip(r)?, key: key(r)? },
        7 => DataplaneEvent::ClearIn { packet: packet(r)? },
        8 => DataplaneEvent::Passed { packet: packet(r)? },
        _ => return Err(KeptError::Value("kind of event")),
    })
}

fn put_packet(out: &mut Vec<u8>, packet: &PacketInfo) {
    put_ip(out, packet.src);
    put_ip(out, packet.dst);
    out.put_u8(packet.protocol);
    for port in [packet.src_port, packet.dst_port] {
        put_option(out, port.as_ref(), |out, port| out.put_u16(*port));
    }
}

fn packet(r: &mut Reader<'_>) -> Kept<PacketInfo> {
    let (src, dst, protocol) = (ip(r)?, ip(r)?, r.u8()?);
    let port = |r: &mut Reader<'_>| option(r, |r| Ok(r.u16()?));
    Ok(PacketInfo { src, dst, protocol, src_port: port(r)?, dst_port: port(r)? })
}

fn put_command(out: &mut Vec<u8>, command: &Command) {
    let kind = match command {
        Command::Up(_) => 0,
        Command::Down(_) => 1,
        Command::Restart(_) => 2,
        Command::Rekey(_) => 3,
        Command::Reauth(_) => 4,
        Command::ReauthAll => 5,
        Command::Leave => 6,
        Command::Flush => 7,
    };
    out.put_u8(kind);
    match command.target() {
        Some(Target::Address(address)) => {
            out.put_u8(0);
            put_ip(out, *address);
        }
        Some(Target::Name(name)) => {
            out.put_u8(1);
            put_text(out, name);
        }
        Some(Target::Spi(spi)) => {
            out.put_u8(2);
            out.put_u64(*spi);
        }
        None => {}
    }
}

fn command(r: &mut Reader<'_>) -> Kept<Command> {
    let kind = r.u8()?;
    let mut target = || {
        Ok(match r.u8()? {
            0 => Target::Address(ip(r)?),
            1 => Target::Name(text(r)?),
            2 => Target::Spi(r.u64()?),
            _ => return Err(KeptError::Value("target")),
        })
    };
    Ok(match kind {
        0 => Command::Up(target()?),
        1 => Command::Down(target()?),
        2 => Command::Restart(target()?),
        3 => Command::Rekey(target()?),
        4 => Command::Reauth(target()?),
        5 => Command::ReauthAll,
        6 => Command::Leave,
        7 => Command::Flush,
        _ => return Err(KeptError::Value("command")),
    })
}

fn put_key(out: &mut Vec<u8>, key: SaKey) {
    put_ip(out, key.dst);
    out.put_u32(key.spi.0);
}

fn key(r: &mut Reader<'_>) -> Kept<SaKey> {
    Ok(SaKey { dst: ip(r)?, spi: Spi(r.u32()?) })
}

fn put_now(out: &mut Vec<u8>, now: Now) {
    out.put_u64(now.at.as_nanos());
    out.put_u64(now.unix);
}

fn now(r: &mut Reader<'_>) -> Kept<Now> {
    Ok(Now { at: Instant::from_nanos(r.u64()?), unix: r.u64()? })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn text(r: &mut Reader<'_>) -> Kept<String> {
    let text = std::str::from_utf8(bytes(r)?).map_err(|_| KeptError::Value("text"))?;
    Ok(text.to_owned())
}
