//! A running userspace data plane as bytes: what the next process of this host needs to go on without a gap.
//!
//! Everything is exact, sequence numbers and replay windows above all: it may be used only once whoever gave it has
//! stopped for good, or a nonce would be used twice. One byte of version, then fields in a fixed order ([`wire::kept`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crypto::Secret;
use crypto::cipher::CipherSpec;
use ipnet::IpNet;
use wire::bytes::{Put, Reader};
use wire::esp::Spi;
use wire::kept::{
    Kept, KeptError, bytes, flag, ip, list, many, option, put_bytes, put_ip, put_list, put_many,
    put_option, put_selector, selector,
};

use crate::Instant;
use crate::replay::ReplayWindow;
use crate::sa::{Direction, Encap, Limits, Mode, Reqid, Sa};
use crate::sad::MAX_SAS;
use crate::spd::{Action, Flow, MAX_POLICIES, Policy, PolicySelector};

/// The layout that is written, and the only one that is read.
pub const VERSION: u8 = 2;

/// Packets that wait, at most: of 64 bytes each, more than all queues hold.
const MAX_WAITING: usize = 1 << 19;
/// Paths that are remembered, at most.
const MAX_PATHS: usize = 1 << 16;

/// What a pipeline holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Running {
    /// SAs, the oldest first.
    pub sas: Vec<LiveSa>,
    /// Policies.
    pub policies: Vec<Policy>,
    /// What is known of paths.
    pub paths: Vec<Path>,
    /// Packets of this host that wait for an SA, or for their other fragments.
    pub waiting: Vec<Held>,
}

/// An SA with what it has done so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveSa {
    /// As installed.
    pub sa: Sa,
    /// When it was installed; its lifetime counts from there.
    pub installed: Instant,
    /// The last sequence number that was sent.
    pub seq: u64,
    /// What was received.
    pub replay: ReplayWindow,
    /// Plaintext bytes carried.
    pub bytes: u64,
    /// Packets carried.
    pub packets: u64,
    /// When it last carried one.
    pub last_used: Option<Instant>,
    /// Replayed or late packets dropped.
    pub replays: u64,
    /// Packets that did not verify.
    pub bad_icv: u64,
}

/// What a path carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// To whom.
    pub dst: IpAddr,
    /// Packets of at most so many bytes.
    pub mtu: u32,
    /// Since when that is known.
    pub since: Instant,
}

/// A packet of this host that could not leave yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Whether it came in fragments, and may leave in such.
    pub fragmented: bool,
    /// The whole packet, or a fragment of one.
    pub packet: Vec<u8>,
}

/// Why bytes are not gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another build wrote them.
    #[error("the data plane's state has the layout {0}, and this build reads {VERSION}")]
    Version(u8),
    /// They are cut short, too many, or a field holds what it cannot hold.
    #[error("the data plane's state: {0}")]
    Field(#[from] KeptError),
}

impl Running {
    /// As bytes; keys are among them.
    pub fn encode(&self) -> Secret {
        let waiting: usize = self.waiting.iter().map(|held| held.packet.len() + 8).sum();
        // Enough that the vector does not grow in most cases, which would leave copies of keys behind.
        let room =
            1024 + 1280 * self.sas.len() + 96 * (self.policies.len() + self.paths.len()) + waiting;
        let mut out = Vec::with_capacity(room);
        out.put_u8(VERSION);
        put_many(&mut out, self.sas.iter(), put_live);
        put_policies(&mut out, &self.policies);
        put_many(&mut out, self.paths.iter(), |out, path| {
            put_ip(out, path.dst);
            out.put_u32(path.mtu);
            out.put_u64(path.since.as_nanos());
        });
        put_many(&mut out, self.waiting.iter(), |out, held| {
            out.put_u8(u8::from(held.fragmented));
            put_bytes(out, &held.packet);
        });
        Secret::new(out)
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are of another version, or not what [`encode`](Self::encode) makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, "state");
        match r.u8().map_err(KeptError::from)? {
            VERSION => Ok(running(r)?),
            other => Err(DecodeError::Version(other)),
        }
    }
}

fn running(mut r: Reader<'_>) -> Kept<Running> {
    let sas = many(&mut r, MAX_SAS, live)?;
    let policies = policies(&mut r)?;
    let paths = many(&mut r, MAX_PATHS, |r| {
        Ok(Path { dst: ip(r)?, mtu: r.u32()?, since: Instant::from_nanos(r.u64()?) })
    })?;
    let waiting = many(&mut r, MAX_WAITING, |r| {
        Ok(Held { fragmented: flag(r)?, packet: bytes(r)?.to_vec() })
    })?;
    r.finish()?;
    Ok(Running { sas, policies, paths, waiting })
}

fn put_live(out: &mut Vec<u8>, live: &LiveSa) {
    put_sa(out, &live.sa);
    for number in [live.installed.as_nanos(), live.seq, live.bytes, live.packets] {
        out.put_u64(number);
    }
    put_option(out, live.last_used.as_ref(), |out, at| out.put_u64(at.as_nanos()));
    out.put_u64(live.replays);
    out.put_u64(live.bad_icv);
    let (top, words) = live.replay.parts();
    out.put_u64(top);
    put_list(out, &words, |out, word| out.put_u64(*word));
}

fn live(r: &mut Reader<'_>) -> Kept<LiveSa> {
    let sa = sa(r)?;
    let installed = Instant::from_nanos(r.u64()?);
    let (seq, bytes, packets) = (r.u64()?, r.u64()?, r.u64()?);
    let last_used = option(r, |r| Ok(Instant::from_nanos(r.u64()?)))?;
    let (replays, bad_icv, top) = (r.u64()?, r.u64()?, r.u64()?);
    let words = list(r, |r| Ok(r.u64()?))?;
    let replay = ReplayWindow::restore(sa.esn, top, words).ok_or(KeptError::Value("window"))?;
    if seq > sa.seq_space() || top > sa.seq_space() {
        return Err(KeptError::Value("sequence number"));
    }
    Ok(LiveSa { sa, installed, seq, replay, bytes, packets, last_used, replays, bad_icv })
}

fn put_sa(out: &mut Vec<u8>, sa: &Sa) {
    out.put_u32(sa.spi.0);
    put_ip(out, sa.src);
    put_ip(out, sa.dst);
    let flags = [sa.direction == Direction::Out, sa.mode == Mode::Tunnel, sa.esn];
    out.extend(flags.map(u8::from));
    out.put_u32(sa.reqid.0);
    out.put(&sa.cipher.to_bytes());
    put_bytes(out, sa.encr_key.expose());
    put_bytes(out, sa.integ_key.expose());
    out.put_u32(sa.replay_window);
    put_option(out, sa.encap.as_ref(), |out, encap| {
        out.put_u16(encap.local_port);
        out.put_u16(encap.remote_port);
    });
    put_option(out, sa.ipcomp.as_ref(), |out, cpi| out.put_u16(*cpi));
    let Limits { soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time } = *sa.limits;
    let hard_time = hard_time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    for limit in [soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time] {
        put_option(out, limit.as_ref(), |out, limit| out.put_u64(*limit));
    }
    put_list(out, &sa.local_ts, put_selector);
    put_list(out, &sa.remote_ts, put_selector);
}

fn sa(r: &mut Reader<'_>) -> Kept<Sa> {
    let (spi, src, dst) = (Spi(r.u32()?), ip(r)?, ip(r)?);
    let direction = if flag(r)? { Direction::Out } else { Direction::In };
    let mode = if flag(r)? { Mode::Tunnel } else { Mode::Transport };
    let (esn, reqid) = (flag(r)?, Reqid(r.u32()?));
    let cipher = CipherSpec::from_bytes(r.array()?);
    let (encr_key, integ_key) = (Secret::from(bytes(r)?), Secret::from(bytes(r)?));
    let replay_window = r.u32()?;
    let encap = option(r, |r| Ok(Encap { local_port: r.u16()?, remote_port: r.u16()? }))?;
    let ipcomp = option(r, |r| Ok(r.u16()?))?;
    let mut limits = [None; 5];
    for limit in &mut limits {
        *limit = option(r, |r| Ok(r.u64()?))?;
    }
    let [soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time] = limits;
    let hard_time = hard_time.map(Duration::from_nanos);
    let limits = Arc::new(Limits { soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time });
    let (local_ts, remote_ts) = (list(r, selector)?.into(), list(r, selector)?.into());
    Ok(Sa {
        spi,
        src,
        dst,
        direction,
        mode,
        reqid,
        cipher,
        encr_key,
        integ_key,
        esn,
        replay_window,
        encap,
        ipcomp,
        limits,
        local_ts,
        remote_ts,
    })
}

/// Policies, behind their number.
pub fn put_policies(out: &mut Vec<u8>, policies: &[Policy]) {
    put_many(out, policies.iter(), put_policy);
}

/// What [`put_policies`] wrote.
///
/// # Errors
/// If it is not that.
pub fn policies(r: &mut Reader<'_>) -> Kept<Vec<Policy>> {
    many(r, MAX_POLICIES, policy)
}

fn put_policy(out: &mut Vec<u8>, policy: &Policy) {
    out.put_u32(policy.priority);
    out.put_u8(match policy.flow {
        Flow::In => 0,
        Flow::Out => 1,
        Flow::Fwd => 2,
    });
    let PolicySelector { local, remote, protocol, local_ports, remote_ports } = &policy.selector;
    put_net(out, *local);
    put_net(out, *remote);
    put_option(out, protocol.as_ref(), |out, protocol| out.put_u8(*protocol));
    for ports in [local_ports, remote_ports] {
        put_option(out, ports.as_ref(), |out, (first, last)| {
            out.put_u16(*first);
            out.put_u16(*last);
        });
    }
    match policy.action {
        Action::Bypass => out.put_u8(0),
        Action::Discard => out.put_u8(1),
        Action::Protect { mode, reqid, optional } => {
            out.put_u8(2);
            out.extend([mode == Mode::Tunnel, optional].map(u8::from));
            out.put_u32(reqid.0);
        }
    }
}

fn policy(r: &mut Reader<'_>) -> Kept<Policy> {
    let priority = r.u32()?;
    let flow = match r.u8()? {
        0 => Flow::In,
        1 => Flow::Out,
        2 => Flow::Fwd,
        _ => return Err(KeptError::Value("flow")),
    };
    let (local, remote) = (net(r)?, net(r)?);
    let protocol = option(r, |r| Ok(r.u8()?))?;
    let ports = |r: &mut Reader<'_>| option(r, |r| Ok((r.u16()?, r.u16()?)));
    let (local_ports, remote_ports) = (ports(r)?, ports(r)?);
    let action = match r.u8()? {
        0 => Action::Bypass,
        1 => Action::Discard,
        2 => {
            let mode = if flag(r)? { Mode::Tunnel } else { Mode::Transport };
            let optional = flag(r)?;
            Action::Protect { mode, reqid: Reqid(r.u32()?), optional }
        }
        _ => return Err(KeptError::Value("action")),
    };
    let selector = PolicySelector { local, remote, protocol, local_ports, remote_ports };
    Ok(Policy { priority, flow, selector, action })
}

/// A network.
pub fn put_net(out: &mut Vec<u8>, net: IpNet) {
    put_ip(out, net.addr());
    out.put_u8(net.prefix_len());
}

/// What [`put_net`] wrote.
///
/// # Errors
/// If it is not that.
pub fn net(r: &mut Reader<'_>) -> Kept<IpNet> {
    let (addr, prefix) = (ip(r)?, r.u8()?);
    IpNet::new(addr, prefix).map_err(|_| KeptError::Value("network"))
}
