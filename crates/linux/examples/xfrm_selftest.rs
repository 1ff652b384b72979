//! The kernel as a data plane, on a kernel that has ESP: two hosts in network namespaces, SAs and policies between
//! them, datagrams through. Run as root; ends 0 if all is well. The test machine runs it (`vm/tests/xfrm.sh`).
#![allow(clippy::disallowed_methods)]

#[path = "../tests/world/mod.rs"]
mod world;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use crypto::Secret;
use crypto::cipher::CipherSpec;
use ipnet::IpNet;
use ipsec::Instant;
use ipsec::change::{Batch, Change, RefusalReason};
use ipsec::dataplane::{Dataplane, DataplaneEvent, SaUsage};
use ipsec::sa::{Direction, Encap, Limits, Mode, Outer, Reqid, Sa, SaKey};
use ipsec::spd::{Action, Flow, Policy, PolicySelector};
use linux::netns::Netns;
use linux::raw::Ip;
use linux::route::Rtnl;
use linux::xfrm::{self, Kernel};
use wire::esp::Spi;
use wire::registry::{Encr, Integ};
use wire::selector::TrafficSelector;
use world::Pair;

const FLEET: Reqid = Reqid(0x5741_0000);
const A4: &str = "10.9.0.1";
const B4: &str = "10.9.0.2";
const A6: &str = "fd09::1";
const B6: &str = "fd09::2";

fn main() {
    assert!(world::root(), "this needs root");
    if let Err(missing) = xfrm::probe() {
        eprintln!("{missing}");
        std::process::exit(1);
    }
    let started = Clock::now();
    for (name, test) in TESTS {
        let begun = Clock::now();
        test();
        println!("ok {name} ({:.1} s)", begun.elapsed().as_secs_f32());
    }
    println!("{} tests in {:.0} s", TESTS.len(), started.elapsed().as_secs_f32());
}

const TESTS: &[(&str, fn())] = &[
    ("every suite, both modes, both versions of IP", suites),
    ("iproute2 says of our SAs what it says of its own", as_iproute2_has_it),
    ("ESN and windows", esn_and_windows),
    ("ESP in UDP", in_udp),
    ("cleartext is refused where ESP is wanted", cleartext_is_refused),
    ("`optional` takes both", optional),
    ("a trap, its SAs, and the trap again", traps),
    ("first use, soft and hard limits", limits),
    ("an SA that is asked for again goes on", the_same_again),
    ("a peer that moves", moves),
    ("a peer behind a NAT is mapped anew", mapping),
    ("somebody flushes, foreign SAs stay", foreign_and_flushed),
    ("the next process takes SAs over", taken_over),
    ("an SA that somebody changed is told", altered),
    ("more events than the socket holds", overrun),
    ("what the kernel lacks", refusals),
    ("rekeys under traffic lose nothing", rekeys),
];

/// Two hosts, each with the kernel as data plane.
struct Rig {
    pair: Pair,
    a: Kernel,
    b: Kernel,
}

impl Rig {
    fn new() -> Self {
        let pair = Pair::new();
        let (a, b) = (pair.a.run(Kernel::open).unwrap(), pair.b.run(Kernel::open).unwrap());
        Self { pair, a, b }
    }

    /// Both ends of an SA.
    fn add(&mut self, link: &Link) {
        let ((a_out, a_in), (b_out, b_in)) = link.ends();
        done(&mut self.a, vec![add(&a_in), add(&a_out)]);
        done(&mut self.b, vec![add(&b_in), add(&b_out)]);
    }

    fn remove(&mut self, link: &Link) {
        let ((a_out, a_in), _) = link.ends();
        let both = vec![Change::RemoveSa(a_in.key()), Change::RemoveSa(a_out.key())];
        done(&mut self.a, both.clone());
        done(&mut self.b, both);
    }

    /// Policies on both ends for what is between them.
    fn protect(&mut self, link: &Link, optional: bool) {
        let (a, b) = (net(link.a), net(link.b));
        done(&mut self.a, policies(a, b, link.mode, optional));
        done(&mut self.b, policies(b, a, link.mode, optional));
    }

    /// Datagrams there and back; how many came.
    fn echo(&self, link: &Link, count: usize) -> usize {
        let a = self.pair.a.run(|| socket(SocketAddr::new(link.a, 7001)));
        let b = self.pair.b.run(|| socket(SocketAddr::new(link.b, 7002)));
        let (to_a, to_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        (0..count).filter(|_| pass(&a, &b, to_b) && pass(&b, &a, to_a)).count()
    }
}

/// An SA each way between two hosts.
#[derive(Clone)]
struct Link {
    a: IpAddr,
    b: IpAddr,
    mode: Mode,
    cipher: CipherSpec,
    esn: bool,
    window: u32,
    encap: Option<(u16, u16)>,
    limits: Limits,
    /// SPIs and keys are made from it.
    serial: u32,
}

type Ends = (Sa, Sa);

impl Link {
    fn new(a: &str, b: &str) -> Self {
        Self {
            a: a.parse().unwrap(),
            b: b.parse().unwrap(),
            mode: Mode::Transport,
            cipher: aead(Encr::AES_GCM_16, 128),
            esn: false,
            window: 64,
            encap: None,
            limits: Limits::default(),
            serial: 1,
        }
    }

    /// For each host: outbound, inbound.
    fn ends(&self) -> (Ends, Ends) {
        let (there, back) = (0x1000 + self.serial * 2, 0x1001 + self.serial * 2);
        let a = (self.sa(there, true, Direction::Out), self.sa(back, false, Direction::In));
        let b = (self.sa(back, false, Direction::Out), self.sa(there, true, Direction::In));
        (a, b)
    }

    fn sa(&self, spi: u32, from_a: bool, direction: Direction) -> Sa {
        let (src, dst) = if from_a { (self.a, self.b) } else { (self.b, self.a) };
        let at_a = from_a == (direction == Direction::Out);
        let (local, remote) = if at_a { (self.a, self.b) } else { (self.b, self.a) };
        let encap = self.encap.map(|(a, b)| {
            let (local_port, remote_port) = if at_a { (a, b) } else { (b, a) };
            Encap { local_port, remote_port }
        });
        let key = |length: usize, salt: u8| {
            let bytes = (0..length).map(|i| (i as u8).wrapping_mul(7) ^ salt ^ spi as u8);
            Secret::new(bytes.collect())
        };
        let integ_len = match self.cipher.integ {
            Integ::HMAC_SHA1_96 => 20,
            Integ::HMAC_SHA2_256_128 => 32,
            Integ::HMAC_SHA2_384_192 => 48,
            Integ::HMAC_SHA2_512_256 => 64,
            _ => 0,
        };
        Sa {
            spi: Spi(spi),
            src,
            dst,
            direction,
            mode: self.mode,
            reqid: FLEET,
            cipher: self.cipher,
            encr_key: key(self.cipher.encr_key_len(), 0x55),
            integ_key: key(integ_len, 0xaa),
            esn: self.esn,
            replay_window: self.window,
            encap,
            ipcomp: None,
            limits: self.limits.into(),
            local_ts: [TrafficSelector::host(local)].into(),
            remote_ts: [TrafficSelector::host(remote)].into(),
        }
    }
}

fn aead(encr: Encr, key_bits: u16) -> CipherSpec {
    CipherSpec { encr, key_bits, integ: Integ::NONE }
}

fn add(sa: &Sa) -> Change {
    Change::AddSa(Arc::new(sa.clone()))
}

fn net(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn policies(local: IpNet, remote: IpNet, mode: Mode, optional: bool) -> Vec<Change> {
    let selector =
        PolicySelector { local, remote, protocol: None, local_ports: None, remote_ports: None };
    let action = Action::Protect { mode, reqid: FLEET, optional };
    let put = |flow| Change::PutPolicy(Policy { priority: 100, flow, selector, action });
    vec![put(Flow::In), put(Flow::Out)]
}

/// As the daemon has it.
fn now() -> Instant {
    linux::clock::now()
}

fn apply(kernel: &mut Kernel, changes: Vec<Change>) -> Vec<RefusalReason> {
    kernel.apply(now(), &Batch(changes)).into_iter().map(|refusal| refusal.reason).collect()
}

fn done(kernel: &mut Kernel, changes: Vec<Change>) {
    assert_eq!(apply(kernel, changes), []);
}

fn usage(kernel: &mut Kernel, key: SaKey) -> Option<SaUsage> {
    kernel.snapshot(now()).sas.into_iter().find(|usage| usage.key == key)
}

fn drain(kernel: &mut Kernel) -> Vec<DataplaneEvent> {
    std::iter::from_fn(|| kernel.poll_event()).collect()
}

/// Events until the one that is waited for, 5 seconds at most.
fn until(
    kernel: &mut Kernel,
    what: &str,
    mut wanted: impl FnMut(&DataplaneEvent) -> bool,
) -> DataplaneEvent {
    let end = Clock::now() + Duration::from_secs(5);
    while Clock::now() < end {
        match kernel.poll_event() {
            Some(event) if wanted(&event) => return event,
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    panic!("not within 5 seconds: {what}");
}

fn socket(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// As the daemon has it: policies do not apply to it, and the kernel takes ESP out of what comes.
fn ike_socket(netns: &Netns, address: IpAddr, port: u16) -> OwnedFd {
    let socket = OwnedFd::from(netns.run(|| UdpSocket::bind((address, port)).unwrap()));
    xfrm::bypass(&socket, Ip::of(address)).unwrap();
    xfrm::decapsulate(&socket).unwrap();
    socket
}

fn pass(from: &UdpSocket, to: &UdpSocket, address: SocketAddr) -> bool {
    let mut buffer = [0; 64];
    from.send_to(b"inside", address).is_ok() && to.recv(&mut buffer).is_ok_and(|n| n == 6)
}

fn ip(netns: &Netns, args: &str) -> String {
    netns.run(|| {
        let output = Command::new("ip").args(args.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    })
}

/// Drops that no packet of ours should have met.
fn errors(kernel: &mut Kernel) -> Vec<(&'static str, u64)> {
    let counters = kernel.snapshot(now()).counters;
    counters.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn suites() {
    let integrity = |encr, key_bits, integ| CipherSpec { encr, key_bits, integ };
    let ciphers = [
        aead(Encr::AES_GCM_8, 128),
        aead(Encr::AES_GCM_12, 192),
        aead(Encr::AES_GCM_16, 128),
        aead(Encr::AES_GCM_16, 256),
        aead(Encr::CHACHA20_POLY1305, 256),
        integrity(Encr::AES_CBC, 128, Integ::HMAC_SHA1_96),
        integrity(Encr::AES_CBC, 256, Integ::HMAC_SHA2_256_128),
        integrity(Encr::AES_CBC, 192, Integ::HMAC_SHA2_384_192),
        integrity(Encr::AES_CTR, 128, Integ::HMAC_SHA2_512_256),
        integrity(Encr::AES_CTR, 256, Integ::HMAC_SHA2_256_128),
        integrity(Encr::NULL, 0, Integ::HMAC_SHA2_256_128),
    ];
    let mut rig = Rig::new();
    let mut serial = 0;
    for mode in [Mode::Transport, Mode::Tunnel] {
        for (a, b) in [(A4, B4), (A6, B6)] {
            rig.protect(&Link { mode, ..Link::new(a, b) }, false);
            for cipher in ciphers {
                serial += 1;
                let link = Link { mode, cipher, serial, ..Link::new(a, b) };
                rig.add(&link);
                assert_eq!(rig.echo(&link, 3), 3, "{cipher} {mode:?} {a}");
                let ((out, inbound), _) = link.ends();
                for key in [out.key(), inbound.key()] {
                    let usage = usage(&mut rig.a, key).unwrap();
                    assert_eq!(usage.packets, 3, "{cipher} {mode:?} {a}: {usage:?}");
                    assert!(usage.bytes >= 3 * 14, "{usage:?}");
                    let since = now().since(usage.last_used.unwrap());
                    assert!(since < Duration::from_secs(10), "{since:?}");
                    assert_eq!((usage.replays, usage.bad_icv), (0, 0));
                }
                rig.remove(&link);
            }
        }
    }
    assert_eq!(rig.a.snapshot(now()).sas, []);
    assert_eq!((errors(&mut rig.a), errors(&mut rig.b)), (vec![], vec![]));
    assert_eq!(ip(&rig.pair.a, "xfrm state list"), "");
}

fn as_iproute2_has_it() {
    let rig = Rig::new();
    let (mut a, b) = (rig.a, &rig.pair.b);
    let limits = Limits {
        soft_bytes: Some(1000),
        hard_bytes: Some(2000),
        soft_packets: Some(30),
        hard_packets: Some(40),
        hard_time: Some(Duration::from_secs(50)),
    };
    let gcm = Link { limits, esn: true, window: 4096, ..Link::new(A4, B4) };
    let cbc = Link {
        serial: 2,
        mode: Mode::Tunnel,
        cipher: CipherSpec { encr: Encr::AES_CBC, key_bits: 128, integ: Integ::HMAC_SHA2_256_128 },
        encap: Some((4500, 61_000)),
        ..Link::new(A6, B6)
    };
    let (first, second) = (gcm.ends().0, cbc.ends().0);
    done(&mut a, vec![add(&first.0), add(&second.1)]);
    let hex = |secret: &Secret| {
        secret.expose().iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    };
    ip(
        b,
        &format!(
            "xfrm state add src {A4} dst {B4} proto esp spi 0x{} reqid {} mode transport replay-window 32 flag esn
             aead rfc4106(gcm(aes)) {} 128 sel src {A4}/32 dst {B4}/32
             limit byte-soft 1000 limit byte-hard 2000 limit packet-soft 30 limit packet-hard 40 limit time-hard 50",
            first.0.spi,
            FLEET.0,
            hex(&first.0.encr_key)
        ),
    );
    ip(
        b,
        &format!(
            "xfrm state add src {B6} dst {A6} proto esp spi 0x{} reqid {} mode tunnel replay-window 64
             enc cbc(aes) {} auth-trunc hmac(sha256) {} 128 encap espinudp 61000 4500 ::
             sel src {B6}/128 dst {A6}/128 limit packet-soft 0",
            second.1.spi,
            FLEET.0,
            hex(&second.1.encr_key),
            hex(&second.1.integ_key)
        ),
    );
    let listed = |netns: &Netns| {
        let text = ip(netns, "-s xfrm state list");
        let lines = text.lines().filter(|line| !line.contains("add 20"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(listed(&rig.pair.a), listed(b));
}

fn esn_and_windows() {
    let mut rig = Rig::new();
    rig.protect(&Link::new(A4, B4), false);
    for (serial, (esn, window)) in
        [(true, 64), (true, 4096), (true, 0), (false, 0), (false, 1000)].into_iter().enumerate()
    {
        let link = Link { esn, window, serial: serial as u32 + 1, ..Link::new(A4, B4) };
        rig.add(&link);
        assert_eq!(rig.echo(&link, 4), 4, "ESN {esn}, window {window}");
        rig.remove(&link);
    }
    // With ESN each end must have it: the high bits are verified.
    let with = Link { esn: true, serial: 9, ..Link::new(A4, B4) };
    let without = Link { esn: false, ..with.clone() };
    let (a_out, a_in) = with.ends().0;
    let (b_out, b_in) = without.ends().1;
    done(&mut rig.a, vec![add(&a_out), add(&a_in)]);
    done(&mut rig.b, vec![add(&b_out), add(&b_in)]);
    assert_eq!(rig.echo(&with, 1), 0);
    assert_eq!(usage(&mut rig.b, b_in.key()).unwrap().bad_icv, 1);
}

fn in_udp() {
    let mut rig = Rig::new();
    for (serial, (a, b)) in [(A4, B4), (A6, B6)].into_iter().enumerate() {
        let link = Link { encap: Some((4500, 4500)), serial: serial as u32 + 1, ..Link::new(a, b) };
        let _ike = (ike_socket(&rig.pair.a, link.a, 4500), ike_socket(&rig.pair.b, link.b, 4500));
        rig.add(&link);
        rig.protect(&link, false);
        assert_eq!(rig.echo(&link, 5), 5, "{a}");
        let ((out, _), _) = link.ends();
        assert_eq!(usage(&mut rig.a, out.key()).unwrap().packets, 5);
    }
    assert_eq!((errors(&mut rig.a), errors(&mut rig.b)), (vec![], vec![]));
}

fn cleartext_is_refused() {
    let mut rig = Rig::new();
    let link = Link::new(A4, B4);
    assert_eq!(rig.echo(&link, 1), 1, "nothing is protected yet");
    done(&mut rig.a, policies(net(link.a), net(link.b), Mode::Transport, false));
    let a = rig.pair.a.run(|| socket(SocketAddr::new(link.a, 7001)));
    let b = rig.pair.b.run(|| socket(SocketAddr::new(link.b, 7002)));
    assert!(!pass(&b, &a, a.local_addr().unwrap()), "in the clear, from a peer without SAs");
    assert!(!pass(&a, &b, b.local_addr().unwrap()), "no SA yet");
    drop((a, b));
    rig.add(&link);
    rig.protect(&link, false);
    assert_eq!(rig.echo(&link, 2), 2);
    // The SAs of one reqid do not serve the policies of another.
    let names: Vec<_> = errors(&mut rig.a).into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().any(|name| name.starts_with("XfrmIn")), "{names:?}");
}

fn optional() {
    let mut rig = Rig::new();
    let link = Link::new(A4, B4);
    rig.protect(&link, true);
    assert!(rig.echo(&link, 3) >= 2, "in the clear, and the kernel asks for an SA");
    until(&mut rig.a, "an acquire", |event| matches!(event, DataplaneEvent::Acquire { .. }));
    rig.add(&link);
    assert_eq!(rig.echo(&link, 3), 3);
    let ((out, _), _) = link.ends();
    assert_eq!(usage(&mut rig.a, out.key()).unwrap().packets, 3, "now encrypted");
    rig.remove(&link);
    assert!(rig.echo(&link, 3) >= 2, "in the clear again");
}

fn traps() {
    for (serial, mode) in [Mode::Transport, Mode::Tunnel].into_iter().enumerate() {
        let mut rig = Rig::new();
        let link = Link { mode, serial: serial as u32 + 1, ..Link::new(A4, B4) };
        let fleet: IpNet = "10.9.0.0/24".parse().unwrap();
        done(&mut rig.a, policies(net(link.a), fleet, mode, false));
        done(&mut rig.b, policies(net(link.b), fleet, mode, false));
        assert_eq!(rig.echo(&link, 1), 0);
        let DataplaneEvent::Acquire { reqid, packet } = until(&mut rig.a, "an acquire", |event| {
            matches!(event, DataplaneEvent::Acquire { .. })
        }) else {
            unreachable!()
        };
        assert_eq!((reqid, packet.src, packet.dst), (FLEET, link.a, link.b), "{mode:?}");
        assert_eq!((packet.protocol, packet.dst_port), (17, Some(7002)));
        assert_eq!(rig.a.snapshot(now()).sas, []);
        rig.add(&link);
        assert_eq!(rig.echo(&link, 3), 3, "{mode:?}");
        let policies = rig.a.snapshot(now()).policies;
        assert_eq!(policies.len(), 2, "what follows from a tunnel is not the plan's: {policies:?}");
        rig.remove(&link);
        drain(&mut rig.a);
        assert_eq!(rig.echo(&link, 1), 0, "{mode:?}");
        done(&mut rig.a, vec![Change::DropQueued(link.b)]);
        rig.echo(&link, 1);
        until(&mut rig.a, "another acquire", |event| {
            matches!(event, DataplaneEvent::Acquire { .. })
        });
        let listed = ip(&rig.pair.a, "xfrm policy list");
        assert_eq!(listed.matches("tmpl src 0.0.0.0 dst 0.0.0.0").count(), 2, "{listed}");
    }
}

fn limits() {
    let mut rig = Rig::new();
    let limits = Limits {
        soft_packets: Some(4),
        hard_packets: Some(8),
        hard_time: Some(Duration::from_secs(60)),
        ..Limits::default()
    };
    let link = Link { limits, ..Link::new(A4, B4) };
    rig.add(&link);
    rig.protect(&link, false);
    let ((out, inbound), _) = link.ends();
    assert_eq!(rig.echo(&link, 1), 1);
    until(&mut rig.a, "the first use", |event| *event == DataplaneEvent::FirstUse(inbound.key()));
    assert_eq!(rig.echo(&link, 5), 5);
    let events = drain(&mut rig.a);
    for key in [out.key(), inbound.key()] {
        let soft = events.iter().filter(|event| **event == DataplaneEvent::SoftLimit(key));
        assert_eq!(soft.count(), 1, "{events:?}");
    }
    assert!(!events.contains(&DataplaneEvent::FirstUse(inbound.key())), "told once");
    assert!(rig.echo(&link, 5) < 5);
    until(&mut rig.a, "the hard limit", |event| *event == DataplaneEvent::HardLimit(out.key()));
    assert_eq!(usage(&mut rig.a, out.key()), None);
    rig.remove(&link);

    let limits = Limits { hard_time: Some(Duration::from_secs(2)), ..Limits::default() };
    let short = Link { limits, serial: 2, ..Link::new(A4, B4) };
    rig.add(&short);
    let ((out, _), _) = short.ends();
    until(&mut rig.a, "the end of its time", |event| {
        *event == DataplaneEvent::HardLimit(out.key())
    });
}

fn the_same_again() {
    let mut rig = Rig::new();
    let link = Link::new(A4, B4);
    rig.add(&link);
    rig.protect(&link, false);
    assert_eq!(rig.echo(&link, 3), 3);
    rig.add(&link);
    assert_eq!(rig.echo(&link, 3), 3, "no number was used twice");
    let ((mut out, inbound), _) = link.ends();
    assert_eq!(usage(&mut rig.a, out.key()).unwrap().packets, 6);
    // A process after this one.
    let mut next = rig.pair.a.run(Kernel::open).unwrap();
    assert_eq!(next.snapshot(now()).sas.len(), 2);
    done(&mut next, vec![add(&inbound), add(&out)]);
    assert_eq!(rig.echo(&link, 3), 3);
    assert_eq!(usage(&mut next, out.key()).unwrap().packets, 9);
    // Limits are taken over.
    Arc::make_mut(&mut out.limits).hard_packets = Some(9);
    done(&mut next, vec![add(&out)]);
    assert_eq!(rig.echo(&link, 1), 0);
    // Other keys make it another SA.
    out.encr_key = Secret::new(vec![3; 20]);
    out.limits = Limits::default().into();
    done(&mut next, vec![add(&out)]);
    assert_eq!(usage(&mut next, out.key()).unwrap().packets, 0);
    assert_eq!(rig.echo(&link, 1), 0, "the peer has the old ones");
}

fn moves() {
    for mode in [Mode::Transport, Mode::Tunnel] {
        let mut rig = Rig::new();
        let link = Link { esn: true, mode, ..Link::new(A4, B4) };
        rig.add(&link);
        let elsewhere: IpAddr = "10.9.0.22".parse().unwrap();
        rig.pair.b.run(|| {
            let net = "10.9.0.22/24".parse().unwrap();
            Rtnl::open().unwrap().add_address("eth0", net, false).unwrap();
        });
        rig.protect(&link, false);
        assert_eq!(rig.echo(&link, 3), 3);

        // Seen from a the peer is elsewhere; b itself replaces its SAs.
        let ((a_out, a_in), (b_out, b_in)) = link.ends();
        let outer = Outer { local: link.a, remote: elsewhere, encap: None };
        let moved = Link { b: elsewhere, ..link.clone() };
        done(
            &mut rig.a,
            vec![
                Change::MoveSa { key: a_in.key(), outer },
                Change::MoveSa { key: a_out.key(), outer },
            ],
        );
        let (new_out, new_in) = moved.ends().1;
        done(
            &mut rig.b,
            vec![
                Change::RemoveSa(b_out.key()),
                Change::RemoveSa(b_in.key()),
                add(&new_in),
                add(&new_out),
            ],
        );
        let now_there = SaKey { dst: elsewhere, spi: a_out.spi };
        let usage = |rig: &mut Rig, key| self::usage(&mut rig.a, key);
        assert_eq!(usage(&mut rig, a_out.key()), None);
        assert_eq!(usage(&mut rig, now_there).unwrap().packets, 3, "it goes on counting");
        if mode == Mode::Transport {
            rig.protect(&moved, false);
            let a = rig.pair.a.run(|| socket(SocketAddr::new(moved.a, 7001)));
            let b = rig.pair.b.run(|| socket(SocketAddr::new(moved.b, 7002)));
            assert!(pass(&a, &b, b.local_addr().unwrap()));
            assert_eq!(usage(&mut rig, now_there).unwrap().packets, 4);
        }
        let numbers = ip(
            &rig.pair.a,
            &format!("xfrm state get dst {elsewhere} proto esp spi 0x{}", a_out.spi),
        );
        assert!(numbers.contains("oseq 0x10000"), "a margin was left out: {numbers}");
    }
}

fn mapping() {
    let mut rig = Rig::new();
    let link = Link { encap: Some((4500, 4500)), ..Link::new(A4, B4) };
    let _ike = (ike_socket(&rig.pair.a, link.a, 4500), ike_socket(&rig.pair.b, link.b, 61_000));
    rig.add(&link);
    rig.protect(&link, false);
    // What b sends comes from another port now, as if a NAT had rebooted.
    let behind = Link { encap: Some((4500, 61_000)), ..link.clone() };
    let ((a_out, a_in), (b_out, b_in)) = behind.ends();
    done(
        &mut rig.b,
        vec![Change::RemoveSa(b_out.key()), Change::RemoveSa(b_in.key()), add(&b_in), add(&b_out)],
    );
    let a = rig.pair.a.run(|| socket(SocketAddr::new(link.a, 7001)));
    let b = rig.pair.b.run(|| socket(SocketAddr::new(link.b, 7002)));
    assert!(pass(&b, &a, a.local_addr().unwrap()), "it is let in from there as well");
    let remote = SocketAddr::new(link.b, 61_000);
    until(&mut rig.a, "a mapping", |event| {
        *event == DataplaneEvent::Moved { key: a_in.key(), remote }
    });
    drop((a, b));
    let encap = Some(Encap { local_port: 4500, remote_port: 61_000 });
    let outer = Outer { local: link.a, remote: link.b, encap };
    done(
        &mut rig.a,
        vec![Change::MoveSa { key: a_in.key(), outer }, Change::MoveSa { key: a_out.key(), outer }],
    );
    assert_eq!(rig.echo(&link, 3), 3, "back to the new port");
    assert_eq!(usage(&mut rig.a, a_out.key()).unwrap().packets, 3);
}

fn foreign_and_flushed() {
    let mut rig = Rig::new();
    let link = Link::new(A4, B4);
    let key = "0x000102030405060708090a0b0c0d0e0f10111213";
    let ((out, inbound), _) = link.ends();
    let foreign = format!(
        "xfrm state add src {A4} dst {B4} proto esp spi 0x{} reqid 7 mode transport aead rfc4106(gcm(aes)) {key} 128",
        out.spi
    );
    ip(&rig.pair.a, &foreign);
    let refused = apply(&mut rig.a, vec![add(&out)]);
    assert!(
        matches!(&refused[..], [RefusalReason::Conflict(text)] if text.contains("ip xfrm state delete")),
        "{refused:?}"
    );
    done(&mut rig.a, vec![Change::RemoveSa(out.key())]);
    assert_eq!(rig.a.snapshot(now()).sas, []);
    assert!(ip(&rig.pair.a, "xfrm state list").contains("reqid 7"));
    let id = format!("dst {B4} proto esp spi 0x{}", out.spi);
    ip(&rig.pair.a, &format!("xfrm state delete {id}"));

    rig.add(&link);
    assert_eq!(drain(&mut rig.a), [], "what we did ourselves is no drift");
    ip(&rig.pair.a, &format!("xfrm state delete {id}"));
    until(&mut rig.a, "the removal", |event| *event == DataplaneEvent::HardLimit(out.key()));
    until(&mut rig.a, "drift", |event| *event == DataplaneEvent::Drift);
    ip(&rig.pair.a, "xfrm state flush");
    until(&mut rig.a, "the flush", |event| *event == DataplaneEvent::HardLimit(inbound.key()));
    until(&mut rig.a, "drift", |event| *event == DataplaneEvent::Drift);
    rig.add(&link);
    rig.protect(&link, false);
    assert_eq!(rig.echo(&link, 1), 1);
}

fn adopt(sa: &Sa) -> Change {
    let (encr_key, integ_key) = (Secret::default(), Secret::default());
    Change::AdoptSa(Arc::new(Sa { encr_key, integ_key, ..sa.clone() }))
}

/// Another process in place of host a's.
fn successor(rig: &mut Rig) {
    rig.a = rig.pair.a.run(Kernel::open).unwrap();
}

fn taken_over() {
    for mode in [Mode::Transport, Mode::Tunnel] {
        let mut rig = Rig::new();
        let limits =
            Limits { soft_packets: Some(9), hard_packets: Some(5000), ..Limits::default() };
        let link = Link { mode, limits, ..Link::new(A4, B4) };
        let fleet: IpNet = "10.9.0.0/24".parse().unwrap();
        let plan = policies(net(link.a), fleet, mode, false);
        done(&mut rig.a, plan.clone());
        done(&mut rig.b, policies(net(link.b), fleet, mode, false));
        rig.add(&link);
        assert_eq!(rig.echo(&link, 3), 3, "{mode:?}");
        let ((out, inbound), _) = link.ends();
        let before = ip(&rig.pair.a, "xfrm policy list");

        successor(&mut rig);
        done(&mut rig.a, plan);
        done(&mut rig.a, vec![adopt(&inbound), adopt(&out)]);
        let there = rig.a.snapshot(now());
        assert_eq!((there.sas.len(), there.policies.len()), (2, 2), "{mode:?}: {there:?}");
        assert_eq!((there.altered_sas, there.altered_policies), (vec![], vec![]));
        assert_eq!(ip(&rig.pair.a, "xfrm policy list"), before, "{mode:?}");
        // Its events are told as if this process had installed it.
        assert_eq!(rig.echo(&link, 10), 10, "{mode:?}");
        for key in [out.key(), inbound.key()] {
            until(&mut rig.a, "the soft limit", |event| *event == DataplaneEvent::SoftLimit(key));
        }
        let id = format!("dst {B4} proto esp spi 0x{}", out.spi);
        ip(&rig.pair.a, &format!("xfrm state delete {id}"));
        until(&mut rig.a, "the removal", |event| *event == DataplaneEvent::HardLimit(out.key()));
        let gone = apply(&mut rig.a, vec![adopt(&out)]);
        assert!(matches!(&gone[..], [RefusalReason::Gone(_)]), "{gone:?}");
        let other = Sa { esn: true, ..inbound.clone() };
        let refused = apply(&mut rig.a, vec![adopt(&other)]);
        assert!(matches!(&refused[..], [RefusalReason::Conflict(_)]), "{refused:?}");
        // With the tunnel went the policy that followed from it.
        assert_eq!(rig.echo(&link, 1), 0, "{mode:?}");
        assert_eq!(rig.a.snapshot(now()).policies.len(), 2);
        assert_eq!(ip(&rig.pair.a, "xfrm policy list").matches("dir out").count(), 1, "{mode:?}");
    }
    // No packet had come yet: the first one is told to the process that is there.
    let mut rig = Rig::new();
    let link = Link::new(A4, B4);
    rig.add(&link);
    rig.protect(&link, false);
    let ((out, inbound), _) = link.ends();
    successor(&mut rig);
    done(&mut rig.a, vec![adopt(&inbound), adopt(&out)]);
    assert_eq!(rig.echo(&link, 2), 2);
    until(&mut rig.a, "the first use", |event| *event == DataplaneEvent::FirstUse(inbound.key()));
}

fn altered() {
    let mut rig = Rig::new();
    let limits = Limits { hard_packets: Some(5000), ..Limits::default() };
    let link = Link { limits, ..Link::new(A4, B4) };
    rig.add(&link);
    rig.protect(&link, false);
    assert_eq!(rig.echo(&link, 3), 3);
    let ((out, inbound), _) = link.ends();
    drain(&mut rig.a);
    assert_eq!(rig.a.snapshot(now()).altered_sas, []);
    let hex: String = out.encr_key.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let whole = |limit: &str| {
        format!(
            "src {A4} dst {B4} proto esp spi 0x{} reqid {} mode transport aead rfc4106(gcm(aes)) 0x{hex} 128 sel src {A4}/32 dst {B4}/32 {limit}",
            out.spi, FLEET.0
        )
    };
    let altered = |rig: &mut Rig| {
        until(&mut rig.a, "drift", |event| *event == DataplaneEvent::Drift);
        rig.a.snapshot(now()).altered_sas
    };
    let same = "limit packet-soft 3758096377 limit packet-hard 5000";
    // Limits taken away.
    ip(&rig.pair.a, &format!("xfrm state update {}", whole("")));
    assert_eq!(altered(&mut rig), [out.key()]);
    ip(&rig.pair.a, &format!("xfrm state update {}", whole(same)));
    drain(&mut rig.a);
    assert_eq!(rig.a.snapshot(now()).altered_sas, [], "as it was");
    // Saved and restored: the same in every word, and its numbers begin anew.
    ip(&rig.pair.a, &format!("xfrm state delete dst {B4} proto esp spi 0x{}", out.spi));
    ip(&rig.pair.a, &format!("xfrm state add {}", whole(same)));
    assert_eq!(altered(&mut rig), [out.key()]);
    // The repair of the mesh is to let it go.
    done(&mut rig.a, vec![Change::RemoveSa(out.key()), Change::RemoveSa(inbound.key())]);
    let there = rig.a.snapshot(now());
    assert_eq!((there.sas, there.altered_sas), (vec![], vec![]));
}

/// A socket that holds a handful of events, and thousands come: all that they would have told is found out.
fn overrun() {
    let mut rig = Rig::new();
    let fleet: IpNet = "10.9.0.0/24".parse().unwrap();
    let limits = Limits { soft_packets: Some(4), ..Limits::default() };
    let (used, lost) =
        (Link { limits, ..Link::new(A4, B4) }, Link { serial: 2, ..Link::new(A4, B4) });
    done(&mut rig.a, policies(net(used.a), fleet, Mode::Transport, false));
    done(&mut rig.b, policies(net(used.b), fleet, Mode::Transport, false));
    rig.add(&lost);
    rig.add(&used);
    drain(&mut rig.a);
    rustix::net::sockopt::set_socket_recv_buffer_size(&rig.a, 1).unwrap();
    let mut other = rig.pair.a.run(Kernel::open).unwrap();
    let noise = Policy {
        priority: 5,
        flow: Flow::Out,
        selector: PolicySelector {
            local: net(used.a),
            remote: "192.0.2.0/24".parse().unwrap(),
            protocol: None,
            local_ports: None,
            remote_ports: None,
        },
        action: Action::Discard,
    };
    for _ in 0..2500 {
        done(&mut other, vec![Change::PutPolicy(noise), Change::RemovePolicy(noise.key())]);
    }
    // Of all this no event arrives.
    assert_eq!(rig.echo(&used, 6), 6);
    let ((lost_out, lost_in), _) = lost.ends();
    let ((used_out, used_in), _) = used.ends();
    ip(&rig.pair.a, &format!("xfrm state delete dst {A4} proto esp spi 0x{}", lost_in.spi));
    ip(&rig.pair.a, "xfrm policy update src 10.9.0.0/24 dst 10.9.0.1/32 dir in action block");
    // Of an acquire that nobody at all hears of the kernel keeps nothing: it asks again with the next packet.
    let _hears = rig.pair.a.run(Kernel::open).unwrap();
    let stranger = rig.pair.a.run(|| socket(SocketAddr::new(used.a, 7003)));
    let _ = stranger.send_to(b"x", "10.9.0.77:7");
    let events = drain(&mut rig.a);
    let told = |event: &DataplaneEvent| events.iter().filter(|e| *e == event).count();
    assert_eq!(told(&DataplaneEvent::HardLimit(lost_in.key())), 1, "{events:?}");
    assert_eq!(told(&DataplaneEvent::HardLimit(lost_out.key())), 0, "{events:?}");
    assert_eq!(told(&DataplaneEvent::FirstUse(used_in.key())), 1, "{events:?}");
    assert!(told(&DataplaneEvent::SoftLimit(used_out.key())) >= 1, "{events:?}");
    assert_eq!(told(&DataplaneEvent::Drift), 1, "{events:?}");
    let asked = events.iter().any(|event| match event {
        DataplaneEvent::Acquire { packet, .. } => packet.dst.to_string() == "10.9.0.77",
        _ => false,
    });
    assert!(asked, "{events:?}");
    let there = rig.a.snapshot(now());
    assert_eq!(there.altered_policies.len(), 1, "{there:?}");
    assert_eq!((there.policies.len(), there.sas.len()), (1, 3), "{there:?}");
    // And from here on events come as ever.
    ip(&rig.pair.a, &format!("xfrm state delete dst {A4} proto esp spi 0x{}", used_in.spi));
    until(&mut rig.a, "a removal", |event| *event == DataplaneEvent::HardLimit(used_in.key()));
}

fn refusals() {
    let mut rig = Rig::new();
    let link = Link::new(A4, B4);
    let ((out, _), _) = link.ends();
    let one = |rig: &mut Rig, sa: &Sa| apply(&mut rig.a, vec![add(sa)]).pop().expect("a refusal");
    let mut sa = out.clone();
    sa.cipher.encr = Encr::BLOWFISH;
    assert!(matches!(one(&mut rig, &sa), RefusalReason::NoAlgorithm(_)));
    let short = Sa { encr_key: Secret::new(vec![1; 9]), ..out.clone() };
    assert!(matches!(one(&mut rig, &short), RefusalReason::Other(_)));
    let reserved = Sa { spi: Spi(200), ..out.clone() };
    assert!(matches!(one(&mut rig, &reserved), RefusalReason::Other(_)));
    let foreign = Sa { reqid: Reqid(7), ..out };
    assert!(matches!(one(&mut rig, &foreign), RefusalReason::Other(_)));
    assert_eq!(ip(&rig.pair.a, "xfrm state list"), "");
}

/// Make before break, fifty times, with packets between any two steps.
fn rekeys() {
    for mode in [Mode::Transport, Mode::Tunnel] {
        let mut rig = Rig::new();
        let mut old = Link { mode, ..Link::new(A4, B4) };
        rig.add(&old);
        rig.protect(&old, false);
        let (mut sent, mut came) = (0, 0);
        for serial in 2..52 {
            let new = Link { serial, ..old.clone() };
            let ((a_out, a_in), (b_out, b_in)) = new.ends();
            let ((a_old, a_old_in), (b_old, b_old_in)) = old.ends();
            let steps: [(bool, Change); 8] = [
                (true, add(&a_in)),
                (false, add(&b_in)),
                (false, add(&b_out)),
                (true, add(&a_out)),
                (true, Change::RemoveSa(a_old.key())),
                (false, Change::RemoveSa(b_old.key())),
                (true, Change::RemoveSa(a_old_in.key())),
                (false, Change::RemoveSa(b_old_in.key())),
            ];
            for (at_a, step) in steps {
                done(if at_a { &mut rig.a } else { &mut rig.b }, vec![step]);
                sent += 1;
                came += rig.echo(&old, 1);
            }
            drain(&mut rig.a);
            old = new;
        }
        assert_eq!(came, sent, "{mode:?}");
        assert_eq!((errors(&mut rig.a), errors(&mut rig.b)), (vec![], vec![]), "{mode:?}");
        assert_eq!(rig.a.snapshot(now()).sas.len(), 2);
    }
}
