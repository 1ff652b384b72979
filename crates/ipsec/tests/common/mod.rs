//! Two hosts with one pair of SAs each way.
#![allow(dead_code, missing_docs)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crypto::Secret;
use crypto::cipher::CipherSpec;
use crypto::native::Native;
use ipnet::IpNet;
use ipsec::change::{Batch, Change};
use ipsec::dataplane::DataplaneEvent;
use ipsec::packet;
use ipsec::pipeline::{Emit, OuterInfo, Pipeline};
use ipsec::sa::{Direction, Encap, Limits, Mode, Reqid, Sa};
use ipsec::spd::{Action, Flow, Policy, PolicySelector};
use ipsec::{Instant, Spi};
use wire::registry::{Encr, Integ};
use wire::selector::TrafficSelector;

pub const REQID: Reqid = Reqid(7);
pub const NOW: Instant = Instant::from_nanos(1_000_000_000);

pub fn spec(encr: Encr, key_bits: u16, integ: Integ) -> CipherSpec {
    CipherSpec { encr, key_bits, integ }
}

pub fn suites() -> Vec<CipherSpec> {
    vec![
        spec(Encr::AES_GCM_16, 128, Integ::NONE),
        spec(Encr::AES_GCM_12, 192, Integ::NONE),
        spec(Encr::AES_GCM_8, 256, Integ::NONE),
        spec(Encr::CHACHA20_POLY1305, 0, Integ::NONE),
        spec(Encr::AES_CBC, 128, Integ::HMAC_SHA2_256_128),
        spec(Encr::AES_CBC, 256, Integ::HMAC_SHA2_512_256),
        spec(Encr::AES_CTR, 128, Integ::HMAC_SHA1_96),
        spec(Encr::NULL, 0, Integ::HMAC_SHA2_384_192),
    ]
}

/// What two hosts agree on.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub mode: Mode,
    pub suite: CipherSpec,
    pub outer_v6: bool,
    /// In transport mode the same as `outer_v6`.
    pub inner_v6: bool,
    pub esn: bool,
    pub encap: bool,
    pub ipcomp: bool,
    pub window: u32,
    pub limits: Limits,
    pub optional: bool,
}

impl Setup {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            suite: suites()[0],
            outer_v6: false,
            inner_v6: false,
            esn: false,
            encap: false,
            ipcomp: false,
            window: 64,
            limits: Limits::default(),
            optional: false,
        }
    }

    /// Outer address of host 1 or 2.
    pub fn outer(&self, host: u8) -> IpAddr {
        let text =
            if self.outer_v6 { format!("2001:db8::{host}") } else { format!("192.0.2.{host}") };
        text.parse().unwrap()
    }

    /// Address that its packets have.
    pub fn inner(&self, host: u8) -> IpAddr {
        if self.mode == Mode::Transport {
            return self.outer(host);
        }
        let text = if self.inner_v6 { format!("fd00::{host}:1") } else { format!("10.{host}.0.1") };
        text.parse().unwrap()
    }

    pub fn sa(&self, direction: Direction, from: u8, to: u8, spi: u32) -> Sa {
        let integ_len = match self.suite.integ {
            Integ::NONE => 0,
            Integ::HMAC_SHA1_96 => 20,
            Integ::HMAC_SHA2_256_128 => 32,
            Integ::HMAC_SHA2_384_192 => 48,
            _ => 64,
        };
        let key = |len: usize, salt: u8| {
            Secret::new((0..len).map(|at| (at as u8) ^ salt ^ (spi as u8)).collect())
        };
        let (local, remote) = if direction == Direction::Out { (from, to) } else { (to, from) };
        Sa {
            spi: Spi(spi),
            src: self.outer(from),
            dst: self.outer(to),
            direction,
            mode: self.mode,
            reqid: REQID,
            cipher: self.suite,
            encr_key: key(self.suite.encr_key_len(), 0xa5),
            integ_key: key(integ_len, 0x5a),
            esn: self.esn,
            replay_window: self.window,
            encap: self.encap.then_some(Encap { local_port: 4500, remote_port: 4500 }),
            ipcomp: self.ipcomp.then_some(0x0123 + spi as u16),
            limits: self.limits.into(),
            local_ts: [TrafficSelector::host(self.inner(local))].into(),
            remote_ts: [TrafficSelector::host(self.inner(remote))].into(),
        }
    }

    pub fn policies(&self, host: u8, peer: u8) -> Vec<Change> {
        let selector = PolicySelector {
            local: IpNet::from(self.inner(host)),
            remote: IpNet::from(self.inner(peer)),
            protocol: None,
            local_ports: None,
            remote_ports: None,
        };
        let action = Action::Protect { mode: self.mode, reqid: REQID, optional: self.optional };
        let policy = |flow| Policy { priority: 100, flow, selector, action };
        vec![Change::PutPolicy(policy(Flow::Out)), Change::PutPolicy(policy(Flow::In))]
    }

    /// Policies and both SAs of one of the two hosts.
    pub fn host(&self, host: u8) -> Pipeline {
        let peer = 3 - host;
        let pipeline = Pipeline::new(Arc::new(Native));
        let mut changes = self.policies(host, peer);
        changes.push(add(self.sa(Direction::In, peer, host, 0x1000 + u32::from(host))));
        changes.push(add(self.sa(Direction::Out, host, peer, 0x1000 + u32::from(peer))));
        apply(&pipeline, changes);
        pipeline
    }

    pub fn pair(&self) -> (Pipeline, Pipeline) {
        (self.host(1), self.host(2))
    }

    /// A UDP packet from one host's inner address to the other's.
    pub fn udp(&self, from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
        let src = SocketAddr::new(self.inner(from), 1111);
        packet::udp(src, SocketAddr::new(self.inner(to), 2222), payload).unwrap()
    }
}

pub fn add(sa: Sa) -> Change {
    Change::AddSa(Arc::new(sa))
}

pub fn apply(pipeline: &Pipeline, changes: Vec<Change>) {
    assert_eq!(pipeline.apply(NOW, &Batch(changes)), vec![]);
}

pub fn send(pipeline: &Pipeline, now: Instant, packet: &[u8]) -> Vec<Emit> {
    let mut emit = Vec::new();
    pipeline.outbound(now, &mut packet.to_vec(), &mut emit);
    emit
}

/// The one thing that comes out.
pub fn send_one(pipeline: &Pipeline, packet: &[u8]) -> Emit {
    let mut emit = send(pipeline, NOW, packet);
    assert_eq!(emit.len(), 1, "{emit:?} {:?}", counted(pipeline));
    emit.remove(0)
}

pub fn receive(pipeline: &Pipeline, now: Instant, emit: &Emit) -> Vec<Emit> {
    let outer = OuterInfo::of(emit).unwrap();
    receive_as(pipeline, now, outer, esp_of(emit))
}

pub fn receive_as(pipeline: &Pipeline, now: Instant, outer: OuterInfo, esp: &[u8]) -> Vec<Emit> {
    let mut out = Vec::new();
    pipeline.inbound(now, outer, &mut esp.to_vec(), &mut out);
    out
}

/// The one packet that is delivered.
pub fn receive_one(pipeline: &Pipeline, emit: &Emit) -> Vec<u8> {
    match receive(pipeline, NOW, emit).as_slice() {
        [Emit::Deliver(packet)] => packet.clone(),
        other => panic!("{other:?} {:?}", counted(pipeline)),
    }
}

pub fn esp_of(emit: &Emit) -> &[u8] {
    match emit {
        Emit::Esp(packet) | Emit::EspInUdp { packet, .. } => &packet.esp,
        other => panic!("not ESP: {other:?}"),
    }
}

pub fn tick(pipeline: &Pipeline, now: Instant) -> Vec<Emit> {
    let mut emit = Vec::new();
    pipeline.tick(now, &mut emit);
    emit
}

pub fn events(pipeline: &Pipeline) -> Vec<DataplaneEvent> {
    std::iter::from_fn(|| pipeline.poll_event()).collect()
}

/// Counters that are not zero.
pub fn counted(pipeline: &Pipeline) -> Vec<(&'static str, u64)> {
    let mut counters = pipeline.snapshot(NOW).counters;
    counters.retain(|(_, count)| *count != 0);
    counters
}

pub fn counter(pipeline: &Pipeline, name: &str) -> u64 {
    let counters = pipeline.snapshot(NOW).counters;
    counters.iter().find(|(known, _)| *known == name).unwrap().1
}

/// A datagram in pieces of at most `size` bytes of data, as a local stack makes them.
pub fn fragments(whole: &[u8], size: usize) -> Vec<Vec<u8>> {
    let v4 = whole[0] >> 4 == 4;
    let head = if v4 { 20 } else { 40 };
    let size = size / 8 * 8;
    let count = (whole.len() - head).div_ceil(size);
    let mut out = Vec::new();
    for (index, data) in whole[head..].chunks(size).enumerate() {
        let offset = (index * size) as u16;
        let more = u16::from(index + 1 < count);
        let mut packet = whole[..head].to_vec();
        if v4 {
            packet[2..4].copy_from_slice(&((head + data.len()) as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&[0x12, 0x34]);
            packet[6..8].copy_from_slice(&((more << 13) | (offset / 8)).to_be_bytes());
            packet::fill_ipv4_checksum(&mut packet);
        } else {
            packet[4..6].copy_from_slice(&((8 + data.len()) as u16).to_be_bytes());
            let next = std::mem::replace(&mut packet[6], packet::proto::FRAGMENT);
            packet.extend_from_slice(&[next, 0]);
            packet.extend_from_slice(&(offset | more).to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0x12, 0x34]);
        }
        packet.extend_from_slice(data);
        out.push(packet);
    }
    out
}
