//! The userspace data plane between two namespaces with SAs that both ends know: real packets on a real wire.
#![allow(clippy::disallowed_methods)]

mod world;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Wall};

use crypto::Secret;
use crypto::cipher::CipherSpec;
use crypto::native::Native;
use ipsec::Spi;
use ipsec::change::{Batch, Change};
use ipsec::dataplane::{Dataplane, DataplaneEvent};
use ipsec::pipeline::Pipeline;
use ipsec::sa::{Direction, Encap, Limits, Mode, Reqid, Sa};
use ipsec::spd::{Action, Flow, Policy, PolicySelector};
use linux::capture::{Capture, Packet};
use linux::clock;
use linux::datagram::Outgoing;
use linux::netns::Guard;
use linux::parcel::{Line, Parcel};
use linux::raw::{Ip, RawEsp};
use linux::route::{Kind, Monitor, Rtnl};
use linux::udp::Ports;
use linux::userspace::handover::{Former, Refused};
use linux::userspace::{self, Config, IkeDatagram, Networks, Upcalls, Userspace};
use wire::registry::{Encr, Integ};
use wire::selector::TrafficSelector;
use world::{Pair, root};

const LONG: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct Setup {
    mode: Mode,
    encap: bool,
    v6: bool,
    optional: bool,
    /// Packets many at a time: on host 1, on host 2.
    offload: [bool; 2],
}

impl Setup {
    fn address(self, host: u8) -> IpAddr {
        let text = if self.v6 { format!("fd09::{host}") } else { format!("10.9.0.{host}") };
        text.parse().unwrap()
    }

    fn net(self) -> ipnet::IpNet {
        if self.v6 { "fd09::/64" } else { "10.9.0.0/24" }.parse().unwrap()
    }

    fn sa(self, direction: Direction, from: u8, to: u8) -> Sa {
        let (local, remote) = if direction == Direction::Out { (from, to) } else { (to, from) };
        Sa {
            spi: Spi(0x1000 + u32::from(to)),
            src: self.address(from),
            dst: self.address(to),
            direction,
            mode: self.mode,
            reqid: Reqid(7),
            cipher: CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE },
            encr_key: Secret::new((0..20).map(|i| i ^ from).collect()),
            integ_key: Secret::new(Vec::new()),
            esn: true,
            replay_window: 1024,
            encap: self.encap.then_some(Encap { local_port: 4500, remote_port: 4500 }),
            ipcomp: None,
            limits: Limits::default().into(),
            local_ts: [TrafficSelector::host(self.address(local))].into(),
            remote_ts: [TrafficSelector::host(self.address(remote))].into(),
        }
    }

    fn policies(self, host: u8) -> Vec<Change> {
        let selector = PolicySelector {
            local: self.address(host).into(),
            remote: self.net(),
            protocol: None,
            local_ports: None,
            remote_ports: None,
        };
        let pass =
            PolicySelector { protocol: Some(17), local_ports: Some((7000, 7009)), ..selector };
        let protect = Action::Protect { mode: self.mode, reqid: Reqid(7), optional: self.optional };
        let both = |priority, selector, action| {
            [Flow::In, Flow::Out]
                .map(|flow| Change::PutPolicy(Policy { priority, flow, selector, action }))
        };
        both(10, pass, Action::Bypass).into_iter().chain(both(100, selector, protect)).collect()
    }

    fn sas(self, host: u8) -> Vec<Change> {
        let peer = 3 - host;
        [self.sa(Direction::In, peer, host), self.sa(Direction::Out, host, peer)]
            .map(|sa| Change::AddSa(Arc::new(sa)))
            .to_vec()
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<IkeDatagram>>>, Arc<AtomicUsize>);

impl Upcalls for Heard {
    fn ike(&self, datagram: IkeDatagram) {
        self.0.lock().unwrap().push(datagram);
    }

    fn events(&self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

struct Host {
    plane: Userspace,
    ports: Arc<Ports>,
    heard: Heard,
}

/// Starts the data plane in a namespace; without SAs.
fn start(netns: &Guard, setup: Setup, host: u8) -> Host {
    netns.run(|| {
        let heard = Heard::default();
        let ports = Arc::new(Ports::open(&userspace::PORTS, userspace::MARK).unwrap());
        let pipeline = Arc::new(Pipeline::new(Arc::new(Native)));
        let offload = setup.offload[usize::from(host) - 1];
        let config = Config { offload, ..Config::new(vec![setup.address(host)]) };
        let mut plane =
            Userspace::start(config, pipeline, Arc::clone(&ports), Box::new(heard.clone()))
                .unwrap();
        assert_eq!(plane.apply(clock::now(), &Batch(setup.policies(host))), []);
        plane.route(Networks {
            protected: vec![setup.net()],
            clear: Vec::new(),
            optional: setup.optional,
        });
        assert_eq!(plane.status().warnings, Vec::<String>::new());
        Host { plane, ports, heard }
    })
}

fn install(host: &mut Host, changes: Vec<Change>) {
    assert_eq!(host.plane.apply(clock::now(), &Batch(changes)), []);
}

/// Both hosts with SAs.
fn protected(setup: Setup) -> (Pair, Host, Host) {
    let pair = Pair::new();
    let (mut a, mut b) = (start(&pair.a, setup, 1), start(&pair.b, setup, 2));
    install(&mut a, setup.sas(1));
    install(&mut b, setup.sas(2));
    (pair, a, b)
}

/// Sends `data` over TCP from a to b and back.
fn tcp(pair: &Pair, setup: Setup, data: &[u8]) {
    let listener = pair.b.run(|| TcpListener::bind((setup.address(2), 8000)).unwrap());
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let to = SocketAddr::new(setup.address(2), 8000);
    let mut stream = pair.a.run(|| TcpStream::connect_timeout(&to, LONG).unwrap());
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(data).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == data, "{} of {} bytes came back", back.len(), data.len());
    echo.join().unwrap();
}

/// A datagram from a to b; whether it came.
fn datagram(pair: &Pair, setup: Setup, port: u16, length: usize) -> bool {
    datagram_within(pair, setup, port, length, Duration::from_secs(5))
}

fn datagram_within(pair: &Pair, setup: Setup, port: u16, length: usize, limit: Duration) -> bool {
    let bind =
        |netns: &Guard, host| netns.run(|| UdpSocket::bind((setup.address(host), port)).unwrap());
    let (from, to) = (bind(&pair.a, 1), bind(&pair.b, 2));
    to.set_read_timeout(Some(limit)).unwrap();
    let data: Vec<u8> = (0..length).map(|i| i as u8).collect();
    from.send_to(&data, (setup.address(2), port)).unwrap();
    let mut buffer = vec![0; 65_536];
    match to.recv_from(&mut buffer) {
        Ok((n, _)) => {
            assert!(buffer[..n] == data[..], "it came changed");
            true
        }
        Err(_) => false,
    }
}

/// What is on the wire besides neighbour discovery: (protocol, whether it is a UDP packet on port 4500).
fn kinds(packets: &[Packet]) -> Vec<(u8, bool)> {
    let mut all: Vec<_> = packets.iter().filter_map(kind).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn kind(packet: &Packet) -> Option<(u8, bool)> {
    let bytes = &packet.bytes;
    let (mut protocol, mut at, mut later) = match packet.protocol {
        0x0800 => (bytes[9], 20, u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1fff != 0),
        0x86dd => (bytes[6], 40, false),
        _ => return None,
    };
    if packet.protocol == 0x86dd && protocol == 44 {
        (protocol, later) = (bytes[40], u16::from_be_bytes([bytes[42], bytes[43]]) & 0xfff8 != 0);
        at = 48;
    }
    // A later fragment has no ports: it counts as what its protocol says.
    let natt = protocol == 17 && (later || bytes[at..at + 4] == [0x11, 0x94, 0x11, 0x94]);
    let discovery = protocol == 58 && (133..=137).contains(&bytes[at])
        || protocol == 0
        || protocol == 58 && bytes[at] == 143;
    (!discovery).then_some((protocol, natt))
}

fn carries_everything(setup: Setup) {
    if !root() {
        return;
    }
    let (pair, a, b) = protected(setup);
    let mut capture = pair.b.run(|| Capture::open("eth0").unwrap());
    assert!(datagram(&pair, setup, 9000, 10), "a small datagram");
    assert!(datagram(&pair, setup, 9000, 20_000), "a large datagram, in fragments");
    tcp(&pair, setup, &vec![0x5a; 3_000_000]);
    let packets = capture.read().unwrap();
    assert_eq!(capture.lost().unwrap(), 0);
    let expected = if setup.encap { (17, true) } else { (50, false) };
    assert_eq!(kinds(&packets), [expected], "{} packets", packets.len());
    let bytes: usize = packets.iter().map(|packet| packet.bytes.len()).sum();
    assert!(bytes > 6_000_000);
    // Both ways; with offload in UDP many at a time.
    let large = packets.iter().filter(|packet| packet.bytes.len() > 1500).count();
    assert_eq!(large > 20, setup.encap && setup.offload != [false; 2], "{large}");

    let used = pair.b.run(|| b.plane.pipeline().snapshot(clock::now()));
    assert!(
        used.sas.iter().all(|sa| sa.packets > 500 && sa.bad_icv == 0 && sa.replays == 0),
        "{:?}",
        used.sas
    );
    for host in [a, b] {
        let counters = host.plane.pipeline().snapshot(clock::now()).counters;
        assert!(
            counters.iter().all(|(name, n)| *n == 0 || !name.contains("malformed")),
            "{counters:?}"
        );
    }
}

const PLAIN: Setup =
    Setup { mode: Mode::Transport, encap: false, v6: false, optional: false, offload: [true; 2] };

#[test]
fn transport_v4() {
    carries_everything(PLAIN);
}

#[test]
fn transport_v6() {
    carries_everything(Setup { v6: true, ..PLAIN });
}

#[test]
fn transport_v4_in_udp() {
    carries_everything(Setup { encap: true, ..PLAIN });
}

#[test]
fn transport_v6_in_udp() {
    carries_everything(Setup { encap: true, v6: true, ..PLAIN });
}

#[test]
fn tunnel_v4() {
    carries_everything(Setup { mode: Mode::Tunnel, ..PLAIN });
}

#[test]
fn tunnel_v6_in_udp() {
    carries_everything(Setup { mode: Mode::Tunnel, encap: true, v6: true, ..PLAIN });
}

#[test]
fn without_offload() {
    let off = Setup { offload: [false; 2], ..PLAIN };
    carries_everything(off);
    carries_everything(Setup { encap: true, ..off });
    carries_everything(Setup { mode: Mode::Tunnel, encap: true, v6: true, ..off });
}

#[test]
fn with_offload_on_one_side() {
    carries_everything(Setup { offload: [true, false], ..PLAIN });
    carries_everything(Setup { offload: [false, true], encap: true, ..PLAIN });
    carries_everything(Setup { offload: [true, false], encap: true, v6: true, ..PLAIN });
}

#[test]
fn first_packet_waits_for_its_sa() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    let (mut a, mut b) = (start(&pair.a, PLAIN, 1), start(&pair.b, PLAIN, 2));
    let from = pair.a.run(|| UdpSocket::bind("10.9.0.1:9000").unwrap());
    let to = pair.b.run(|| UdpSocket::bind("10.9.0.2:9000").unwrap());
    from.send_to(b"first", "10.9.0.2:9000").unwrap();
    // The event is there before the control loop is woken for it.
    let limit = Wall::now() + LONG;
    while a.heard.1.load(Ordering::Relaxed) == 0 && Wall::now() < limit {
        std::thread::yield_now();
    }
    let acquire = a.plane.poll_event().expect("the control loop was woken, for nothing or never");
    let DataplaneEvent::Acquire { reqid, packet } = acquire else { panic!("{acquire:?}") };
    assert_eq!(
        (reqid, packet.dst, packet.dst_port),
        (Reqid(7), "10.9.0.2".parse().unwrap(), Some(9000))
    );
    install(&mut b, PLAIN.sas(2));
    install(&mut a, PLAIN.sas(1));
    to.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(to.recv_from(&mut buffer).unwrap().0, 5);
}

#[test]
fn ike_comes_up_and_goes_down() {
    if !root() {
        return;
    }
    for v6 in [false, true] {
        let setup = Setup { v6, ..PLAIN };
        let pair = Pair::new();
        let (a, b) = (start(&pair.a, setup, 1), start(&pair.b, setup, 2));
        let at = |host, port| SocketAddr::new(setup.address(host), port);
        for (port, bytes) in
            [(500, &b"\x01hello"[..]), (4500, b"\0\0\0\0hello"), (4500, b"\xff"), (4500, b"\0\0\0")]
        {
            a.ports.send(at(1, port), at(2, port), bytes).unwrap();
        }
        let limit = Wall::now() + LONG;
        while b.heard.0.lock().unwrap().len() < 2 && Wall::now() < limit {
            std::thread::yield_now();
        }
        let mut heard = b.heard.0.lock().unwrap().clone();
        heard.sort_by_key(|d| d.local.port());
        let expected = [(500, &b"\x01hello"[..]), (4500, b"\0\0\0\0hello")].map(|(port, bytes)| {
            IkeDatagram { local: at(2, port), remote: at(1, port), bytes: bytes.to_vec() }
        });
        assert_eq!(heard, expected);
    }
}

#[test]
fn exceptions_pass_in_the_clear() {
    if !root() {
        return;
    }
    for v6 in [false, true] {
        let setup = Setup { v6, ..PLAIN };
        let (pair, _a, _b) = protected(setup);
        let mut capture = pair.b.run(|| Capture::open("eth0").unwrap());
        assert!(datagram(&pair, setup, 7005, 100));
        assert!(datagram(&pair, setup, 7005, 5000), "fragments too");
        // Later fragments have no ports to look at.
        assert_eq!(kinds(&capture.read().unwrap()), [(17, false), (17, true)]);
    }
}

#[test]
fn cleartext_from_protected_peers_is_refused() {
    if !root() {
        return;
    }
    for v6 in [false, true] {
        for optional in [false, true] {
            let setup = Setup { v6, optional, ..PLAIN };
            let pair = Pair::new();
            assert!(datagram(&pair, setup, 9000, 100), "before");
            let mut b = start(&pair.b, setup, 2);
            install(&mut b, setup.sas(2));
            // Host a knows nothing of protection: it sends in the clear.
            let limit = Duration::from_millis(if optional { 5000 } else { 300 });
            assert_eq!(
                datagram_within(&pair, setup, 9000, 100, limit),
                optional,
                "v6 {v6}, optional {optional}"
            );
            assert!(datagram(&pair, setup, 7000, 100), "an exception");
            let status = b.plane.status();
            assert!(status.guard.is_ok_and(|n| n >= 9), "{:?}", b.plane.status());
            pair.b.run(|| b.plane.flush());
            assert!(datagram(&pair, setup, 9000, 100), "after");
        }
    }
}

#[test]
fn nothing_leaks_when_the_plane_is_gone() {
    if !root() {
        return;
    }
    for v6 in [false, true] {
        let setup = Setup { v6, ..PLAIN };
        let (pair, a, b) = protected(setup);
        assert!(datagram(&pair, setup, 9000, 10), "v6 {v6}");
        let mut capture = pair.b.run(|| Capture::open("eth0").unwrap());
        drop(a);
        let from = pair.a.run(|| UdpSocket::bind((setup.address(1), 9000)).unwrap());
        assert!(from.send_to(b"leak", (setup.address(2), 9000)).is_err());
        assert_eq!(kinds(&capture.read_until(Duration::from_millis(200), |_| false).unwrap()), []);
        drop((b, from));

        // The next start finds what the former left, and goes on.
        let (mut a, mut b) = (start(&pair.a, setup, 1), start(&pair.b, setup, 2));
        install(&mut a, setup.sas(1));
        install(&mut b, setup.sas(2));
        assert!(datagram(&pair, setup, 9000, 10), "v6 {v6}");
        for (netns, host) in [(&pair.a, a), (&pair.b, b)] {
            netns.run(|| {
                host.plane.flush();
                let mut rtnl = Rtnl::open().unwrap();
                assert_eq!(rtnl.routes(Some(userspace::TABLE)).unwrap(), []);
                assert!(
                    rtnl.rules().unwrap().iter().all(|r| r.priority != userspace::RULE_PRIORITY)
                );
                assert_eq!(linux::xfrm::Xfrm::open().unwrap().policies().unwrap(), []);
            });
        }
        assert!(datagram(&pair, setup, 9000, 10));
    }
}

#[test]
fn foreign_policies_and_strict_filters_are_left_or_named() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    pair.b.sysctl("net/ipv4/conf/eth0/rp_filter", "1").unwrap();
    let foreign = linux::xfrm::Policy::new(
        linux::xfrm::Direction::In,
        5,
        linux::xfrm::Selector::between(
            "10.9.0.0/24".parse().unwrap(),
            "10.9.0.2/32".parse().unwrap(),
        ),
        linux::xfrm::Action::Allow,
    );
    pair.b.run(|| linux::xfrm::Xfrm::open().unwrap().put_policy(&foreign).unwrap());
    let mut b = pair.b.run(|| {
        let ports = Arc::new(Ports::open(&userspace::PORTS, userspace::MARK).unwrap());
        let pipeline = Arc::new(Pipeline::new(Arc::new(Native)));
        Userspace::start(
            Config::new(vec![PLAIN.address(2)]),
            pipeline,
            ports,
            Box::new(Heard::default()),
        )
        .unwrap()
    });
    b.apply(clock::now(), &Batch(PLAIN.policies(2)));
    let warnings = b.status().warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("net.ipv4.conf.eth0.rp_filter=2"),
        "{warnings:?}"
    );
    pair.b.run(|| {
        assert_eq!(linux::netns::get_sysctl("net/ipv4/conf/eth0/rp_filter").unwrap(), "2");
        b.flush();
        assert_eq!(linux::netns::get_sysctl("net/ipv4/conf/eth0/rp_filter").unwrap(), "1");
        assert_eq!(linux::xfrm::Xfrm::open().unwrap().policies().unwrap(), [foreign]);
    });
}

#[test]
fn routes_come_back_and_follow_the_mtu() {
    if !root() {
        return;
    }
    let (pair, mut a, _b) = protected(PLAIN);
    let clear = "10.9.0.128/25".parse().unwrap();
    a.plane.route(Networks { protected: vec![PLAIN.net()], clear: vec![clear], optional: false });
    let eventually = |what: &str, check: &(dyn Fn(&mut Rtnl) -> bool + Sync)| {
        pair.a.run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            let limit = Wall::now() + LONG;
            while !check(&mut rtnl) {
                assert!(Wall::now() < limit, "{what}: {:?}", rtnl.routes(Some(userspace::TABLE)));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    };
    let table = |rtnl: &mut Rtnl| rtnl.routes(Some(userspace::TABLE)).unwrap();
    let has = |rtnl: &mut Rtnl, kind| table(rtnl).iter().filter(|r| r.kind == kind).count();
    eventually("all three", &|rtnl| {
        [Kind::Unicast, Kind::Blackhole, Kind::Throw].map(|k| has(rtnl, k)) == [1, 1, 1]
    });
    pair.a.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let unicast = table(&mut rtnl).into_iter().find(|r| r.kind == Kind::Unicast).unwrap();
        rtnl.delete_route(&unicast).unwrap();
        rtnl.set_mtu("eth0", 1400).unwrap();
    });
    eventually("the route is back", &|rtnl| has(rtnl, Kind::Unicast) == 1);
    let mtu = 1400 - userspace::overhead(Mode::Tunnel);
    eventually("the MTU followed", &|rtnl| rtnl.link(userspace::INTERFACE).unwrap().mtu == mtu);
    let eth0 = pair.a.run(|| Rtnl::open().unwrap().link("eth0").unwrap().index);
    let found =
        pair.a.run(|| Rtnl::open().unwrap().get_route("10.9.0.200".parse().unwrap(), 0).unwrap());
    assert_eq!(found.interface, eth0, "what is excluded keeps its route");
}

#[test]
fn small_path_is_learnt() {
    if !root() {
        return;
    }
    let (pair, a, _b) = protected(PLAIN);
    // The route knows a path MTU below that of the device.
    pair.a.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let mut route = linux::route::Route::unicast(
            "10.9.0.2/32".parse().unwrap(),
            linux::route::MAIN_TABLE,
            "eth0",
        );
        route.mtu = Some(900);
        rtnl.add_route(&route).unwrap();
    });
    tcp(&pair, PLAIN, &vec![1; 300_000]);
    let mut a = a;
    let counters = a.plane.snapshot(clock::now()).counters;
    let count = |name| counters.iter().find(|(n, _)| *n == name).map(|(_, count)| *count).unwrap();
    assert!(count("wire_send_too_long") > 0 && count("out_too_big") > 0, "{counters:?}");
    let found =
        pair.a.run(|| Rtnl::open().unwrap().get_route("10.9.0.2".parse().unwrap(), 0).unwrap());
    assert!(found.mtu < 900, "the stack knows what fits inside: {found:?}");
}

#[test]
fn it_comes_to_rest() {
    if !root() {
        return;
    }
    for v6 in [false, true] {
        let setup = Setup { v6, ..PLAIN };
        let (pair, _a, _b) = protected(setup);
        let monitor = pair.a.run(|| Monitor::open().unwrap());
        let quiet = |monitor: &Monitor| {
            std::thread::sleep(Duration::from_millis(700));
            !monitor.changed()
        };
        assert!((0..5).any(|_| quiet(&monitor)), "it changes its own routes again and again");
    }
}

#[test]
fn rubbish_harms_nobody() {
    if !root() {
        return;
    }
    for v6 in [false, true] {
        let setup = Setup { v6, ..PLAIN };
        let (pair, a, mut b) = protected(setup);
        let ip = Ip::of(setup.address(1));
        // From the host's side of the wire, past its data plane.
        let esp = pair.a.run(|| RawEsp::open(ip, userspace::MARK).unwrap());
        let mut state = 1u32;
        for length in 0..600 {
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .take(length)
            .collect();
            if length % 2 == 0 && length >= 4 {
                // Half of it for the SPI of an SA that is there.
                bytes[..4].copy_from_slice(&0x1002u32.to_be_bytes());
            }
            esp.send(&[Outgoing::new(SocketAddr::new(setup.address(2), 0), &bytes)], |_, _| {});
            let natt = Outgoing::new(SocketAddr::new(setup.address(2), 4500), &bytes);
            pair_socket(&a, ip).send(&[natt], |_, _| {});
        }
        assert!(datagram(&pair, setup, 9000, 2000), "and it goes on");
        let snapshot = b.plane.snapshot(clock::now());
        assert!(snapshot.sas.iter().any(|sa| sa.bad_icv > 100), "{snapshot:?}");
        assert_eq!(b.plane.status().warnings, Vec::<String>::new());
    }
}

fn pair_socket(host: &Host, ip: Ip) -> &linux::udp::UdpSocket {
    host.ports.get(ip, 4500).unwrap()
}

/// Host a's plane, paused, as it reaches another process.
fn packed(a: &mut Host) -> Parcel {
    a.plane.pause();
    let (here, there) = Line::pair().unwrap();
    let (state, fds) = a.plane.pack(clock::now());
    here.give(&state, &fds).unwrap();
    Line::new(there.into()).unwrap().take(LONG).unwrap()
}

/// Goes on with it.
fn resumed(netns: &Guard, parcel: Parcel) -> (Userspace, Arc<Ports>) {
    netns.run(|| {
        let mut former = Former::read(parcel).unwrap();
        let (running, config) = (std::mem::take(&mut former.running), former.config.clone());
        let (ports, now, mut emit) = (Arc::clone(&former.ports), clock::now(), Vec::new());
        let pipeline = Pipeline::resume(Arc::new(Native), now, running, &mut emit).unwrap();
        let heard = Box::new(Heard::default());
        let mut plane = Userspace::resume(former, config, Arc::new(pipeline), heard).unwrap();
        plane.go(clock::now(), &mut emit).unwrap();
        (plane, ports)
    })
}

/// Numbers sent from one to the other every 2 ms until `work` is done: how many, and how many came.
fn stream(pair: &Pair, setup: Setup, reverse: bool, work: impl FnOnce()) -> (u32, u32) {
    let (from, to) =
        if reverse { ((&pair.b, 2), (&pair.a, 1)) } else { ((&pair.a, 1), (&pair.b, 2)) };
    let bind = |(netns, host): (&Guard, u8)| {
        netns.run(|| UdpSocket::bind((setup.address(host), 9100)).unwrap())
    };
    let (from, to, address) = (bind(from), bind(to), (setup.address(to.1), 9100));
    to.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0u32;
            while !done.load(Ordering::Relaxed) {
                from.send_to(&sent.to_be_bytes(), address).unwrap();
                sent += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            sent
        });
        let receiver = scope.spawn(|| {
            let mut buffer = [0; 4];
            std::iter::from_fn(|| to.recv_from(&mut buffer).ok()).count() as u32
        });
        work();
        done.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        (sent, receiver.join().unwrap())
    })
}

#[test]
fn another_process_goes_on_and_no_packet_is_lost() {
    if !root() {
        return;
    }
    for setup in [PLAIN, Setup { v6: true, encap: true, ..PLAIN }] {
        for reverse in [false, true] {
            let (pair, mut a, _b) = protected(setup);
            assert!(datagram(&pair, setup, 9000, 10));
            let mut next = None;
            let (sent, came) = stream(&pair, setup, reverse, || {
                std::thread::sleep(Duration::from_millis(100));
                let parcel = packed(&mut a);
                // So long nobody reads; what comes waits.
                std::thread::sleep(Duration::from_millis(300));
                drop(a);
                next = Some(resumed(&pair.a, parcel));
                std::thread::sleep(Duration::from_millis(100));
            });
            assert!(sent > 100 && came == sent, "{came} of {sent} came; reverse {reverse}");
            let (mut plane, _ports) = next.unwrap();
            let replays: u64 = plane.snapshot(clock::now()).sas.iter().map(|sa| sa.replays).sum();
            assert_eq!(replays, 0);
            pair.a.run(|| plane.flush());
        }
    }
}

#[test]
fn who_stopped_for_another_goes_on_if_that_one_does_not() {
    if !root() {
        return;
    }
    let (pair, mut a, _b) = protected(PLAIN);
    for _ in 0..3 {
        drop(packed(&mut a));
        pair.a.run(|| a.plane.go(clock::now(), &mut Vec::new()).unwrap());
        assert!(datagram(&pair, PLAIN, 9000, 10));
    }
    assert_eq!(a.plane.broken(), None);
}

#[test]
fn what_is_no_data_plane_of_this_place_is_refused() {
    if !root() {
        return;
    }
    let (pair, mut a, _b) = protected(PLAIN);
    let read = |parcel| pair.a.run(|| Former::read(parcel).map(drop));
    assert_eq!(pair.b.run(|| Former::read(packed(&mut a)).map(drop)), Err(Refused::Namespace));
    let mut newer = packed(&mut a);
    newer.state[0] += 1;
    assert_eq!(read(newer), Err(Refused::Version(userspace::handover::VERSION + 1)));
    let mut swapped = packed(&mut a);
    swapped.fds.swap(0, 1);
    assert_eq!(read(swapped), Err(Refused::Descriptor("device")));
    let mut fewer = packed(&mut a);
    fewer.fds.pop();
    assert_eq!(read(fewer), Err(Refused::Descriptor("ESP socket")));
    let mut udp = packed(&mut a);
    udp.fds.swap(1, 5);
    assert_eq!(read(udp), Err(Refused::Descriptor("UDP socket")));
    let whole = packed(&mut a);
    for cut in 0..whole.state.len() {
        let fds = whole.fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let state = whole.state[..cut].to_vec().into();
        assert!(read(Parcel { state, fds }).is_err(), "{cut} of {}", whole.state.len());
    }
    assert_eq!(read(whole), Ok(()));
}

#[test]
fn the_way_in_is_there_from_the_beginning() {
    if !root() {
        return;
    }
    // The kernel makes the routes of IPv6 addresses in a work queue, which other namespaces keep busy.
    let setup = Setup { v6: true, ..PLAIN };
    let pair = Pair::new();
    for _ in 0..20 {
        let host = start(&pair.a, setup, 1);
        let local = pair.a.run(|| Rtnl::open().unwrap().routes(Some(linux::route::LOCAL_TABLE)));
        let ours = (setup.address(1).into(), Some(userspace::INTERFACE.to_owned()));
        let found = local.unwrap().into_iter().any(|r| (r.dst, r.interface) == ours);
        assert!(found, "a packet out of the device would be dropped");
        pair.a.run(|| host.plane.flush());
    }
}

#[test]
fn a_thousand_peers_change_hands() {
    if !root() {
        return;
    }
    let (pair, mut a, _b) = protected(PLAIN);
    let more = (0..1000u32).flat_map(|n| {
        [(Direction::In, 2, 1), (Direction::Out, 1, 2)].map(|(direction, from, to)| {
            let mut sa = PLAIN.sa(direction, from, to);
            let peer = IpAddr::from([10, 9, 1 + (n / 250) as u8, (n % 250) as u8]);
            sa.spi = Spi(0x1_0000 + n);
            *(if direction == Direction::In { &mut sa.src } else { &mut sa.dst }) = peer;
            sa.replay_window = 4096;
            sa.remote_ts = [TrafficSelector::host(peer)].into();
            Change::AddSa(Arc::new(sa))
        })
    });
    install(&mut a, more.collect());
    let begin = Wall::now();
    let parcel = packed(&mut a);
    let bytes = parcel.state.len();
    let (mut plane, _ports) = resumed(&pair.a, parcel);
    // Bounds are for the program itself: `warren lab scenario restart`.
    println!("2002 SAs, {bytes} bytes, {:?}", begin.elapsed());
    assert_eq!(plane.snapshot(clock::now()).sas.len(), 2002);
    drop(a);
    assert!(datagram(&pair, PLAIN, 9000, 10));
}
