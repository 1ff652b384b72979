//! A peer that says anything, with right keys and without, in every phase of an IKE SA.
//!
//! The input is a list of messages: two bytes of what it is, one of its length, then its body, which
//! goes raw into a datagram, or as payloads into an encrypted message, or a fragment of one, with the peer's own keys.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::Secret;
use crypto::toy::Toy;
use ike::config::{Common, Retransmit};
use ike::endpoint::{Datagram, EndpointConfig};
use ike::error::Failure;
use ike::keys::IkeKeys;
use ike::negotiate::IkeSuite;
use ike::sk::{self, SkCiphers};
use ike::{Auth, ChildConfig, Directory, Endpoint, Event, IkeSaId, Now, Output, PeerConfig};
use ipsec::Instant;
use ipsec::sa::{Limits, Mode, Reqid};
use libfuzzer_sys::fuzz_target;
use wire::message::{Flags, Header};
use wire::registry::{ExchangeType, Ke, PayloadType, Prf};
use wire::selector::TrafficSelector;
use wire::suite_text::{parse_esp, parse_ike};

const HOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))];
const LIMITS: EndpointConfig =
    EndpointConfig { cookie_threshold: 2, max_half_open: 4, max_ike_sas: 8, max_sas_of_peer: 64, max_children: 4 };

struct Open(Arc<PeerConfig>);

impl Directory for Open {
    fn responder(&self, _: IpAddr, _: SocketAddr) -> Option<Arc<PeerConfig>> {
        Some(self.0.clone())
    }

    fn is_known(&self, remote: IpAddr) -> bool {
        HOSTS.contains(&remote)
    }

    fn may_move(&self, _: IpAddr, to: IpAddr) -> bool {
        !HOSTS.contains(&to)
    }
}

struct Pair {
    hosts: [(Endpoint, Open); 2],
    wire: Vec<(usize, Datagram)>,
    now: Instant,
}

impl Pair {
    fn new(hybrid: bool, mobile: bool) -> Self {
        let host = |n: usize| {
            let mut config = config(HOSTS[n], HOSTS[1 - n]);
            if hybrid {
                several_key_exchanges(&mut config);
            }
            if mobile {
                let child = ChildConfig { mode: Mode::Tunnel, ..(*config.child).clone() };
                config.child = Arc::new(child);
            }
            (Endpoint::new(LIMITS, Arc::new(Toy), [n as u8; 32]), Open(Arc::new(config)))
        };
        Self { hosts: [host(0), host(1)], wire: Vec::new(), now: Instant::from_nanos(1 << 40) }
    }

    fn at(&self) -> Now {
        Now { at: self.now, unix: 1_800_000_000 }
    }

    fn drain(&mut self, n: usize) {
        let now = self.at();
        let (endpoint, directory) = &mut self.hosts[n];
        while let Some(output) = endpoint.poll() {
            match output {
                Output::Job(job) => endpoint.job_done(now, job.id, job.work.run(&Toy)),
                Output::Transmit(d) => {
                    self.wire.push((1 - n, Datagram { local: d.remote, remote: d.local, bytes: d.bytes }));
                }
                Output::Event(Event::Redirected { redirect, .. })
                | Output::Event(Event::IkeDown { reason: Failure::Redirected(redirect), .. }) => {
                    let _ = endpoint.follow(now, directory.0.clone(), redirect);
                }
                Output::Event(_) => {}
            }
        }
    }

    fn deliver(&mut self, n: usize, datagram: Datagram) {
        let now = self.at();
        let (endpoint, directory) = &mut self.hosts[n];
        endpoint.datagram(now, datagram, directory);
        self.drain(n);
    }

    /// Lets up to `steps` honest messages pass.
    fn pass(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.wire.is_empty() {
                return;
            }
            let (n, datagram) = self.wire.remove(0);
            self.deliver(n, datagram);
        }
    }

    fn tick(&mut self, by: Duration) {
        self.now = self.now + by;
        for n in 0..2 {
            let now = self.at();
            self.hosts[n].0.tick(now);
            self.drain(n);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((phase, mut rest)) = bytes.split_first() else { return };
    let mut pair = Pair::new(phase & 0x80 != 0, phase & 0x40 != 0);
    let (now, config) = (pair.at(), pair.hosts[0].1.0.clone());
    pair.hosts[0].0.initiate(now, config);
    pair.drain(0);
    pair.pass(usize::from(phase % 8));
    let mut turns = 0;
    while let [kind, detail, len, body @ ..] = rest {
        let len = usize::from(*len).min(body.len());
        let (body, next) = body.split_at(len);
        rest = next;
        turns += 1;
        if turns > 40 {
            break;
        }
        let n = usize::from(*kind & 1);
        match kind >> 1 & 7 {
            0 => pair.pass(1),
            1 => pair.tick(Duration::from_millis(u64::from(*detail) * 200)),
            2 => raw(&mut pair, n, *detail, body),
            3 => command(&mut pair, n, *detail),
            _ => {
                // `None`: that SA has no keys yet.
                let _ = sealed(&mut pair, n, *kind, *detail, body);
            }
        }
        pair.wire.truncate(32);
    }
    pair.pass(100);
    for (endpoint, _) in &pair.hosts {
        assert!(endpoint.ike_sas().len() <= 2 * LIMITS.max_ike_sas);
        assert!(endpoint.half_open().len() <= LIMITS.max_ike_sas);
    }
    // Whatever was begun ends by itself: an established pair only keeps asking for signs of life.
    for _ in 0..400 {
        pair.wire.clear();
        pair.tick(Duration::from_secs(5));
    }
    for (endpoint, _) in &pair.hosts {
        assert!(endpoint.ike_sas().is_empty() && endpoint.half_open().is_empty());
        assert!(endpoint.children().is_empty());
        assert_eq!(endpoint.next_timeout(), None);
    }
});

fn raw(pair: &mut Pair, n: usize, detail: u8, body: &[u8]) {
    let port = if detail & 1 == 0 { 500 } else { 4500 };
    let from = if detail & 2 == 0 { HOSTS[1 - n] } else { IpAddr::V4(Ipv4Addr::new(192, 0, 2, detail)) };
    let mut bytes = body.to_vec();
    if detail & 4 == 0 && bytes.len() >= 28 {
        let len = (bytes.len() as u32).to_be_bytes();
        bytes[24..28].copy_from_slice(&len);
        bytes[17] = 0x20;
    }
    let datagram = Datagram { local: (HOSTS[n], port).into(), remote: (from, port).into(), bytes };
    pair.deliver(n, datagram);
}

fn command(pair: &mut Pair, n: usize, detail: u8) {
    let now = pair.at();
    let (endpoint, directory) = &mut pair.hosts[n];
    let ike = endpoint.ike_sas().first().map(|i| i.id);
    let child = endpoint.children().first().map(|c| c.id);
    if detail & 0x80 != 0 {
        let own = [HOSTS[n], IpAddr::V4(Ipv4Addr::new(192, 0, 2, detail))];
        endpoint.set_addresses(now, &own[usize::from(detail & 1)..]);
        return pair.drain(n);
    }
    let _ = match (detail % 7, ike, child) {
        (0, Some(ike), _) => endpoint.rekey_ike(now, ike),
        (1, _, Some(child)) => endpoint.rekey_child(now, child),
        (2, _, Some(child)) => endpoint.delete_child(now, child),
        (3, Some(ike), _) => endpoint.delete_ike(now, ike),
        (4, Some(ike), _) => endpoint.create_child(now, ike, directory.0.child.clone()),
        (5, Some(ike), _) => endpoint.probe(now, ike),
        _ => {
            endpoint.initiate(now, directory.0.clone());
            Ok(())
        }
    };
    pair.drain(n);
}

/// A message to host `n` that its peer could have sent.
fn sealed(pair: &mut Pair, n: usize, kind: u8, detail: u8, body: &[u8]) -> Option<()> {
    let which = u64::from(kind >> 4 & 3) + 1;
    let peer = &pair.hosts[1 - n].0;
    let id = IkeSaId(which);
    let keys = peer.export_keys(id)?;
    // The peer's role: its own half-open and established SAs know it.
    let info = peer.ike_sas().into_iter().find(|i| i.id == id);
    let initiator = info.map_or(n == 1, |i| i.initiator);
    let header = Header {
        spi_i: keys.spi_i,
        spi_r: keys.spi_r,
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange: match kind & 0x40 {
            0 => ExchangeType(34 + (detail & 3)),
            _ => ExchangeType(43 + (detail & 1)),
        },
        flags: Flags { initiator, version: false, response: detail & 4 != 0 },
        message_id: u32::from(detail >> 3),
        length: 0,
    };
    let suite = IkeSuite { cipher: keys.cipher, prf: Prf::HMAC_SHA2_256, ke: Ke::CURVE25519, additional: ike::multi_ke::Additional::NONE };
    let keys = IkeKeys {
        sk_d: Secret::default(),
        sk_ai: keys.sk_ai,
        sk_ar: keys.sk_ar,
        sk_ei: keys.sk_ei,
        sk_er: keys.sk_er,
        sk_pi: Secret::default(),
        sk_pr: Secret::default(),
    };
    let ciphers = SkCiphers::new(&Toy, &suite, &keys, initiator).ok()?;
    let (first, mut plain) = body.split_first()?;
    let mut fragment = None;
    if let ([number, total, rest @ ..], 6 | 7) = (plain, kind >> 1 & 7) {
        fragment = Some((u16::from(*number), u16::from(*total)));
        plain = rest;
    }
    let bytes = sk::seal_bytes(&header, PayloadType(*first), fragment, plain, &*ciphers.out, 1 << 40);
    // A word of the peer may come from elsewhere.
    let from = if kind >> 1 & 7 == 5 { IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99)) } else { HOSTS[1 - n] };
    let datagram = Datagram { local: (HOSTS[n], 500).into(), remote: (from, 500).into(), bytes };
    pair.deliver(n, datagram);
    Some(())
}

/// With IKE_INTERMEDIATE, IKE_FOLLOWUP_KE and a second secret.
fn several_key_exchanges(config: &mut PeerConfig) {
    let ike = "aes128-sha256-ecp256-ke1_mlkem512-ke3_x25519-ke3_none";
    config.ike_proposals = [parse_ike(ike).unwrap()].into();
    let mut child = (*config.child).clone();
    child.esp_proposals = [parse_esp("aes128gcm16-x25519-ke2_mlkem768").unwrap()].into();
    config.child = Arc::new(child);
    config.fragment_size = Some(900);
    let secret = Secret::new(b"a second secret of good length".to_vec());
    let ppk = ike::Ppk { id: b"fleet".to_vec(), secret, required: false };
    config.ppk = Some(Box::new(ppk));
}

fn config(local: IpAddr, remote: IpAddr) -> PeerConfig {
    let child = ChildConfig {
        reqid: Reqid(1),
        mode: Mode::Transport,
        compression: true,
        esp_proposals: ["aes128gcm16", "aes128gcm16-ecp256"].map(|esp| parse_esp(esp).unwrap()).into(),
        local_ts: [TrafficSelector::host(local)].into(),
        remote_ts: [TrafficSelector::host(remote)].into(),
        replay_window: 64,
        rekey_after: Duration::from_secs(100),
        limits: Limits::default().into(),
    };
    PeerConfig {
        local,
        remote,
        local_id: None,
        remote_id: None,
        auth: Auth::Psk(Secret::new(b"a pre-shared key of good length".to_vec()).into()),
        ike_proposals: [parse_ike("aes128-sha256-ecp256").unwrap()].into(),
        child: Arc::new(child),
        common: Arc::new(Common {
            force_encap: false,
            mobike: true,
            prefer_encap: true,
            ike_hard_lifetime: Duration::from_secs(600),
            keepalive: Duration::from_secs(20),
            retransmit: Retransmit::default(),
            cluster: None,
        }),
        redirect: true,
        dpd_delay: Some(Duration::from_secs(20)),
        ike_rekey_after: Duration::from_secs(300),
        initial_contact: true,
        // So small that honest messages come in fragments too.
        fragment_size: Some(200),
        ppk: None,
        childless: Default::default(),
    }
}
