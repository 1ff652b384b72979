//! Packets through the userspace data plane, both ways, and what is inside ESP that verifies.
//!
//! Input: one byte of setup, then records of `what | length in two bytes | bytes`.
#![no_main]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::cipher::CipherSpec;
use crypto::toy::Toy;
use crypto::{Provider, Secret};
use ipsec::change::{Batch, Change};
use ipsec::esp::{self, SealAs};
use ipsec::pipeline::{Emit, OuterInfo, Pipeline};
use ipsec::sa::{Direction, Encap, Limits, Mode, Reqid, Sa};
use ipsec::spd::{Action, Flow, Policy, PolicySelector};
use ipsec::{Instant, Spi};
use libfuzzer_sys::fuzz_target;
use wire::registry::{Encr, Integ};
use wire::selector::TrafficSelector;

const SUITE: CipherSpec = CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE };

fuzz_target!(|input: &[u8]| {
    let Some((&flags, mut rest)) = input.split_first() else { return };
    let host = Host::new(flags);
    let (mut now, mut seq) = (Instant::from_nanos(1), 0);
    while let [what, high, low, tail @ ..] = rest {
        let len = u16::from_be_bytes([*high, *low]);
        let (bytes, after) = tail.split_at(usize::from(len).min(tail.len()));
        rest = after;
        let mut emit = Vec::new();
        match what % 5 {
            0 => host.pipeline.outbound(now, &mut bytes.to_vec(), &mut emit),
            1 => host.inbound(now, *what, bytes.to_vec(), &mut emit),
            2 => {
                seq += 1;
                host.inbound(now, *what, host.seal(seq, bytes), &mut emit);
            }
            3 => {
                host.pipeline.clear_in(now, bytes);
            }
            _ => {
                now = now + Duration::from_millis(u64::from(len));
                host.pipeline.tick(now, &mut emit);
            }
        }
        emit.iter().for_each(|emit| host.judge(emit));
    }
    while host.pipeline.poll_event().is_some() {}
});

/// One host, its peer, and an SA each way.
struct Host {
    pipeline: Pipeline,
    inbound: Sa,
}

impl Host {
    fn new(flags: u8) -> Self {
        let v6 = flags & 1 != 0;
        let address = |host: u8| -> IpAddr {
            if v6 {
                [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host].into()
            } else {
                [10, 0, 0, host].into()
            }
        };
        let (me, peer) = (address(1), address(2));
        let mode = if flags & 2 != 0 { Mode::Tunnel } else { Mode::Transport };
        let inbound = Sa {
            spi: Spi(0x1001),
            src: peer,
            dst: me,
            direction: Direction::In,
            mode,
            reqid: Reqid(1),
            cipher: SUITE,
            encr_key: Secret::new(vec![7; SUITE.encr_key_len()]),
            integ_key: Secret::default(),
            esn: flags & 4 != 0,
            replay_window: 64,
            encap: (flags & 8 != 0).then_some(Encap { local_port: 4500, remote_port: 4500 }),
            ipcomp: (flags & 64 != 0).then_some(0x1234),
            limits: Limits::default().into(),
            local_ts: [TrafficSelector::host(me)].into(),
            remote_ts: [TrafficSelector::host(peer)].into(),
        };
        let mut outbound = Sa {
            spi: Spi(0x1002),
            src: me,
            dst: peer,
            direction: Direction::Out,
            ..inbound.clone()
        };
        outbound.encr_key = Secret::new(vec![8; SUITE.encr_key_len()]);
        let selector = PolicySelector {
            local: me.into(),
            remote: peer.into(),
            protocol: None,
            local_ports: None,
            remote_ports: None,
        };
        let action = Action::Protect { mode, reqid: Reqid(1), optional: false };
        let policy = |flow| Change::PutPolicy(Policy { priority: 1, flow, selector, action });
        let mut changes = vec![policy(Flow::Out), policy(Flow::In)];
        changes.push(Change::AddSa(Arc::new(inbound.clone())));
        if flags & 16 != 0 {
            changes.push(Change::AddSa(Arc::new(outbound)));
        }
        let pipeline = Pipeline::new(Arc::new(Toy));
        assert!(pipeline.apply(Instant::ZERO, &Batch(changes)).is_empty());
        pipeline.set_default_mtu(if flags & 32 != 0 { 100 } else { 1500 });
        Self { pipeline, inbound }
    }

    fn inbound(&self, now: Instant, what: u8, mut esp: Vec<u8>, emit: &mut Vec<Emit>) {
        let src = SocketAddr::new(self.inbound.src, if what & 32 != 0 { 4500 } else { 4501 });
        let (dst, udp) = (self.inbound.dst, what & 64 != 0);
        let outer = OuterInfo { src, dst, tos: what >> 4, ttl: 64, udp };
        self.pipeline.inbound(now, outer, &mut esp, emit);
    }

    /// An ESP packet that verifies; the first byte says what is in it.
    fn seal(&self, seq: u64, bytes: &[u8]) -> Vec<u8> {
        let Some((&next_header, content)) = bytes.split_first() else { return Vec::new() };
        let sa = &self.inbound;
        let cipher = Toy.cipher(SUITE, sa.encr_key.expose(), &[]).expect("a known suite");
        let mut packet = content.to_vec();
        let as_ = SealAs { spi: sa.spi, seq, esn: sa.esn, next_header };
        esp::seal(&*cipher, as_, 0, &mut packet);
        packet
    }

    /// Nothing goes out in the clear, and nothing is delivered but the peer's own packets to this host.
    fn judge(&self, emit: &Emit) {
        assert!(!matches!(emit, Emit::Clear(_)));
        let whole = emit.to_ip().expect("a packet that IP can say");
        let headers = ipsec::packet::parse(&whole).expect("a packet");
        if matches!(emit, Emit::Deliver(_)) {
            assert_eq!((headers.src, headers.dst), (self.inbound.src, self.inbound.dst));
        }
    }
}
