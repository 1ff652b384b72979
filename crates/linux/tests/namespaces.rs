//! Every wrapper against the kernel, in network namespaces of the tests' own.
#![allow(clippy::disallowed_methods)]

mod world;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdp};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use ipsec::checksum;
use ipsec::packet::{HeaderFields, proto};
use linux::capture::{Capture, Direction};
use linux::datagram::{Outgoing, RecvBatch};
use linux::errno::Errno;
use linux::netns::{self, Netns};
use linux::raw::{Ip, RawEsp, RawIp};
use linux::route::{Kind, MAIN_TABLE, Monitor, NewLink, Route, Rtnl, Rule, RuleAction};
use linux::tun::{self, Tun};
use linux::udp::{self, UdpSocket};
use linux::xfrm::{self, Action, Policy, Selector, Xfrm};
use rustix::event::{PollFd, PollFlags, Timespec};
use world::{Pair, namespace, root};

const MARK: u32 = 0x77;

/// Waits until `fd` is readable, 3 seconds at most.
fn wait(fd: impl AsFd) {
    let limit = Timespec { tv_sec: 3, tv_nsec: 0 };
    let ready = rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "nothing came within 3 seconds");
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn links_addresses_routes_and_rules() {
    if !root() {
        return;
    }
    let netns = namespace();
    netns.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        rtnl.create_link("br0", NewLink::Bridge).unwrap();
        rtnl.create_link("v0", NewLink::Veth { peer: "v1" }).unwrap();
        rtnl.set_master("v1", Some("br0")).unwrap();
        rtnl.set_mtu("v0", 1400).unwrap();
        rtnl.rename("v0", "eth0").unwrap();
        for name in ["br0", "v1", "eth0"] {
            rtnl.set_up(name, true).unwrap();
        }
        let eth0 = rtnl.link("eth0").unwrap();
        assert!(eth0.is_up() && eth0.mtu == 1400 && eth0.kind.as_deref() == Some("veth"));
        assert_eq!(rtnl.link("v1").unwrap().master, Some(rtnl.link("br0").unwrap().index));
        assert!(rtnl.link("lo").unwrap().is_up());
        assert!(matches!(rtnl.link("none"), Err(linux::route::Error::NoLink(_))));
        assert_eq!(
            rtnl.create_link("eth0", NewLink::Bridge).unwrap_err().errno(),
            Some(Errno::EEXIST)
        );

        rtnl.add_address("eth0", "10.1.2.3/24".parse().unwrap(), false).unwrap();
        rtnl.add_address("eth0", "fd01::3/64".parse().unwrap(), true).unwrap();
        let link = rtnl.link("eth0").unwrap();
        for neighbour in ["10.1.2.4", "10.1.2.4", "fd01::4"] {
            rtnl.add_neighbour(&link, ip(neighbour), [2, 0, 0, 0, 0, 4]).unwrap();
        }
        let has = |rtnl: &mut Rtnl, net: &str| {
            let net = net.parse().unwrap();
            rtnl.addresses()
                .unwrap()
                .into_iter()
                .find(|a| a.net == net && a.interface == eth0.index)
        };
        assert!(has(&mut rtnl, "10.1.2.3/24").is_some());
        assert!(!has(&mut rtnl, "fd01::3/64").unwrap().is_tentative());

        routes(&mut rtnl, eth0.index);
        rules(&mut rtnl);

        rtnl.delete_address("eth0", "10.1.2.3/24".parse().unwrap()).unwrap();
        rtnl.delete_address("eth0", "10.1.2.3/24".parse().unwrap()).unwrap();
        assert!(has(&mut rtnl, "10.1.2.3/24").is_none());
        rtnl.delete_link("eth0").unwrap();
        rtnl.delete_link("eth0").unwrap();
        assert!(
            rtnl.links().unwrap().iter().all(|l| l.name != "v1"),
            "a veth takes its other end along"
        );
    });
}

fn routes(rtnl: &mut Rtnl, eth0: u32) {
    let monitor = Monitor::open().unwrap();
    assert!(!monitor.changed());
    let mut route = Route::unicast("10.7.0.0/16".parse().unwrap(), 5150, "eth0");
    route.src = Some(ip("10.1.2.3"));
    route.mtu = Some(1300);
    route.metric = Some(10);
    rtnl.add_route(&route).unwrap();
    assert!(monitor.changed() && !monitor.changed());
    assert_eq!(rtnl.add_route(&route).unwrap_err().errno(), Some(Errno::EEXIST));
    route.mtu = Some(1200);
    rtnl.replace_route(&route).unwrap();
    let mut six = Route::unicast("fd07::/32".parse().unwrap(), 5150, "eth0");
    six.metric = Some(10);
    rtnl.add_route(&six).unwrap();
    let hole = Route {
        metric: Some(1000),
        ..Route::special("10.7.0.0/16".parse().unwrap(), 5150, Kind::Blackhole)
    };
    rtnl.add_route(&hole).unwrap();
    rtnl.add_route(&Route::special("10.7.1.0/24".parse().unwrap(), 5150, Kind::Throw)).unwrap();
    let all = rtnl.routes(Some(5150)).unwrap();
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.contains(&route) && all.contains(&six) && all.contains(&hole), "{all:?}");

    let found = rtnl.get_route(ip("10.1.2.9"), 0).unwrap();
    assert_eq!((found.interface, found.src, found.mtu), (eth0, Some(ip("10.1.2.3")), 1400));
    assert!(matches!(rtnl.get_route(ip("10.7.2.1"), 0), Err(linux::route::Error::NoRoute(_))));
    assert!(
        rtnl.routes(Some(MAIN_TABLE))
            .unwrap()
            .iter()
            .any(|r| r.dst == "10.1.2.0/24".parse().unwrap())
    );
}

fn rules(rtnl: &mut Rtnl) {
    for family in [Ip::V4, Ip::V6] {
        let rule = Rule::unmarked(family, 5000, MARK, 5150);
        rtnl.add_rule(&rule).unwrap();
        assert!(rtnl.rules().unwrap().contains(&rule));
    }
    let found = rtnl.get_route(ip("10.7.2.1"), 0).unwrap();
    assert_eq!((found.src, found.mtu), (Some(ip("10.1.2.3")), 1200));
    assert!(rtnl.get_route(ip("10.7.2.1"), MARK).is_err(), "marked packets do not see the table");
    assert!(
        rtnl.get_route(ip("10.7.1.1"), 0).is_err(),
        "thrown back to the main table, which has no route"
    );
    let mut narrow = Rule::unmarked(Ip::V4, 5001, MARK, 5150);
    (narrow.src, narrow.dst) =
        (Some("10.1.0.0/16".parse().unwrap()), Some("10.7.0.0/16".parse().unwrap()));
    (narrow.iif, narrow.mark, narrow.invert) = (Some("eth0".to_owned()), Some((0x10, 0xf0)), false);
    narrow.action = RuleAction::Blackhole;
    rtnl.add_rule(&narrow).unwrap();
    assert!(rtnl.rules().unwrap().contains(&narrow), "{:?}", rtnl.rules());
    rtnl.delete_rule(&narrow).unwrap();
    for family in [Ip::V4, Ip::V6] {
        let rule = Rule::unmarked(family, 5000, MARK, 5150);
        rtnl.delete_rule(&rule).unwrap();
        rtnl.delete_rule(&rule).unwrap();
        assert!(!rtnl.rules().unwrap().contains(&rule));
    }
}

#[test]
fn namespaces_are_those_of_ip_netns() {
    if !root() {
        return;
    }
    let netns = namespace();
    let name = netns.name().to_owned();
    assert!(Netns::list().contains(&name));
    assert!(matches!(Netns::create(&name), Err(netns::Error::Exists(_))));
    assert!(matches!(Netns::open("wt-linux-none"), Err(netns::Error::Missing(_))));
    assert!(matches!(Netns::create("a/b"), Err(netns::Error::Name(_))));
    netns.sysctl("net/ipv4/ip_forward", "1").unwrap();
    assert_eq!(netns.run(|| netns::get_sysctl("net/ipv4/ip_forward").unwrap()), "1");
    if let Ok(listed) = Command::new("ip").args(["netns", "list"]).output() {
        assert!(
            String::from_utf8_lossy(&listed.stdout)
                .lines()
                .any(|l| l.split(' ').next() == Some(&name))
        );
    }
    drop(netns);
    assert!(!Netns::list().contains(&name));
}

#[test]
fn children_start_inside_with_directories_of_their_own() {
    if !root() {
        return;
    }
    let netns = namespace();
    netns.run(|| Rtnl::open().unwrap().create_link("only-here", NewLink::Bridge).unwrap());
    let private = std::env::temp_dir().join(format!("wt-linux-private-{}", std::process::id()));
    std::fs::create_dir_all(&private).unwrap();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ls /sys/class/net; touch {0}/inside && ls {0}", private.display()));
    netns.confine(&mut command, &[&private]).unwrap();
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("only-here") && text.contains("inside"),
        "{output:?}"
    );
    assert_eq!(std::fs::read_dir(&private).unwrap().count(), 0, "what the child wrote is its own");
    std::fs::remove_dir(&private).unwrap();
}

#[test]
fn tun_carries_packets_both_ways() {
    if !root() {
        return;
    }
    let netns = namespace();
    netns.run(|| {
        let tun = Tun::open("tun-a", tun::Options::default()).unwrap();
        assert!(matches!(Tun::open("tun-a", tun::Options::default()), Err(tun::Error::Busy(_))));
        let mut rtnl = Rtnl::open().unwrap();
        rtnl.add_address("tun-a", "10.8.0.1/24".parse().unwrap(), false).unwrap();
        rtnl.set_mtu("tun-a", 1300).unwrap();
        rtnl.set_up("tun-a", true).unwrap();
        let inside = StdUdp::bind("10.8.0.1:7000").unwrap();
        inside.send_to(b"out", "10.8.0.2:7001").unwrap();
        let packet = read_ipv4(&tun);
        assert_eq!((&packet[16..20], &packet[28..]), (&[10, 8, 0, 2][..], &b"out"[..]));

        // Turned around, it is an answer; without a UDP checksum, whose addresses sum up the same anyway.
        let mut answer = packet.clone();
        answer[12..16].copy_from_slice(&packet[16..20]);
        answer[16..20].copy_from_slice(&packet[12..16]);
        answer[20..22].copy_from_slice(&packet[22..24]);
        answer[22..24].copy_from_slice(&packet[20..22]);
        assert!(tun.write(&answer).unwrap());
        inside.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(inside.recv_from(&mut buffer).unwrap(), (3, "10.8.0.2:7001".parse().unwrap()));
        assert!(!tun.write(&[0; 3]).unwrap(), "what is no IP packet is not taken");

        tun.set_persistent(true).unwrap();
        drop(tun);
        assert!(rtnl.link("tun-a").is_ok());
        let tun = Tun::open("tun-a", tun::Options::default()).unwrap();
        tun.set_persistent(false).unwrap();
        drop(tun);
        assert!(rtnl.link("tun-a").is_err());
    });
}

/// The next IPv4 packet: the kernel sends IPv6 router solicitations of its own.
fn read_ipv4(tun: &Tun) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    for _ in 0..100 {
        wait(tun);
        if let Some(length) = tun.read(&mut buffer).unwrap()
            && buffer[0] >> 4 == 4
        {
            return buffer[..length].to_vec();
        }
    }
    panic!("no IPv4 packet");
}

#[test]
fn raw_esp_with_tos_and_ttl() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    for (family, from, to) in [(Ip::V4, "10.9.0.1", "10.9.0.2"), (Ip::V6, "fd09::1", "fd09::2")] {
        let sender = pair.a.run(|| RawEsp::open(family, MARK).unwrap());
        let receiver = pair.b.run(|| RawEsp::open(family, MARK).unwrap());
        let payloads: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; 100 + usize::from(i)]).collect();
        let items: Vec<_> = payloads
            .iter()
            .map(|bytes| Outgoing {
                local: Some(ip(from)),
                tos: Some(0xb8),
                ttl: Some(33),
                dont_fragment: bytes[0] % 2 == 0,
                ..Outgoing::new(SocketAddr::new(ip(to), 0), bytes)
            })
            .collect();
        assert_eq!(sender.send(&items, |i, errno| panic!("packet {i}: {errno}")), 40);
        let mut batch = RecvBatch::new(65_536);
        let mut seen = Vec::new();
        while seen.len() < 40 {
            wait(&receiver);
            receiver.receive(&mut batch).unwrap();
            for packet in receiver.packets(&batch) {
                assert_eq!((packet.remote.ip(), packet.local), (ip(from), Some(ip(to))));
                assert_eq!((packet.tos, packet.ttl), (Some(0xb8), Some(33)));
                seen.push(packet.bytes.to_vec());
            }
        }
        assert_eq!(seen, payloads);
    }
}

#[test]
fn too_long_is_fragmented_or_refused() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    for (family, to) in [(Ip::V4, "10.9.0.2"), (Ip::V6, "fd09::2")] {
        let sender = pair.a.run(|| RawEsp::open(family, MARK).unwrap());
        let receiver = pair.b.run(|| RawEsp::open(family, MARK).unwrap());
        let long = vec![7; 4000];
        let mut item = Outgoing::new(SocketAddr::new(ip(to), 0), &long);
        item.dont_fragment = true;
        let mut errors = Vec::new();
        assert_eq!(sender.send(&[item], |i, errno| errors.push((i, errno))), 0);
        assert_eq!(errors, [(0, Errno::EMSGSIZE)]);
        assert_eq!(pair.a.run(|| Rtnl::open().unwrap().get_route(ip(to), MARK).unwrap().mtu), 1500);
        item.dont_fragment = false;
        assert_eq!(sender.send(&[item], |_, errno| panic!("{errno}")), 1);
        let mut batch = RecvBatch::new(65_536);
        wait(&receiver);
        receiver.receive(&mut batch).unwrap();
        let lengths: Vec<_> = receiver.packets(&batch).map(|p| p.bytes.len()).collect();
        assert_eq!(lengths, [4000], "put together again by the receiver");
    }
}

/// "Packet too big" or "fragmentation needed" of a router, about an ESP packet from `src` to `dst`.
fn too_big(src: IpAddr, dst: IpAddr, mtu: u32, esp: &[u8]) -> Vec<u8> {
    let header = |src, dst, protocol, length| {
        let fields = HeaderFields { src, dst, protocol, tos: 0, ttl: 64, dont_fragment: true };
        fields.build(length).unwrap()
    };
    let (protocol, kind, code) =
        if src.is_ipv4() { (proto::ICMP, 3, 4) } else { (proto::ICMPV6, 2, 0) };
    let quoted = [&header(src, dst, proto::ESP, esp.len())[..], &esp[..64]].concat();
    let mut message = [&[kind, code, 0, 0], &mtu.to_be_bytes()[..], &quoted].concat();
    let pseudo = match src {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => checksum::pseudo_header(dst, src, protocol, message.len()),
    };
    let sum = checksum::finish(checksum::add(pseudo, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    [&header(dst, src, protocol, message.len())[..], &message].concat()
}

#[test]
fn routers_are_believed_about_the_path() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    for (family, from, to) in [(Ip::V4, "10.9.0.1", "10.9.0.2"), (Ip::V6, "fd09::1", "fd09::2")] {
        let sender = pair.a.run(|| RawEsp::open(family, MARK).unwrap());
        let receiver = pair.b.run(|| RawEsp::open(family, MARK).unwrap());
        let router = pair.b.run(|| RawIp::open(family, MARK).unwrap());
        let whole = vec![7; 1420];
        let mut item = Outgoing {
            local: Some(ip(from)),
            dont_fragment: true,
            ..Outgoing::new(SocketAddr::new(ip(to), 0), &whole)
        };
        assert_eq!(sender.send(&[item], |_, errno| panic!("{errno}")), 1);
        let told = too_big(ip(from), ip(to), 1300, &whole);
        assert_eq!(router.send(&[(ip(from), &told)], |_, errno| panic!("{errno}")), 1);
        let mtu = || pair.a.run(|| Rtnl::open().unwrap().get_route(ip(to), MARK).unwrap().mtu);
        let limit = Instant::now() + Duration::from_secs(3);
        while mtu() != 1300 {
            assert!(Instant::now() < limit, "{family:?}: {}", mtu());
            std::thread::sleep(Duration::from_millis(5));
        }
        // What the router said concerns no packet that fits.
        let short = Outgoing { bytes: &whole[..1000], ..item };
        assert_eq!(sender.send(&[short], |_, errno| panic!("{family:?}: {errno}")), 1);
        let mut errors = Vec::new();
        sender.send(&[item], |_, errno| errors.push(errno));
        assert_eq!(errors, [Errno::EMSGSIZE]);
        item.dont_fragment = false;
        assert_eq!(sender.send(&[item], |_, errno| panic!("{errno}")), 1);
        let (mut batch, mut lengths) = (RecvBatch::new(65_536), Vec::new());
        while lengths.len() < 3 {
            wait(&receiver);
            receiver.receive(&mut batch).unwrap();
            lengths.extend(receiver.packets(&batch).map(|p| p.bytes.len()));
        }
        assert_eq!(lengths, [1420, 1000, 1420], "the last one in pieces");
        // And the sender has nothing left to hear.
        for _ in 0..2 {
            let _ = sender.receive(&mut batch);
        }
        let mut idle = [PollFd::new(&sender, PollFlags::IN)];
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut idle, Some(&none)), Ok(0), "{family:?}");
    }
}

#[test]
fn what_cannot_be_delivered_takes_no_room_from_other_sockets() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    let (ports, raw) = pair
        .a
        .run(|| (udp::Ports::open(&[500], MARK).unwrap(), RawIp::open(Ip::V4, MARK).unwrap()));
    let local: SocketAddr = "10.9.0.1:500".parse().unwrap();
    let payload = [7; 1400];
    let absent = |n: u32| SocketAddr::new(IpAddr::from([10, 9, 0, 10 + (n % 200) as u8]), 500);
    let full = (0..100_000).any(|n| {
        let packet = ipsec::packet::udp(local, absent(n), &payload).unwrap();
        let mut full = false;
        raw.send_now(&[(absent(n).ip(), &packet)], |_, errno| full = errno == Errno::EAGAIN);
        full
    });
    assert!(full, "the kernel keeps what nobody is there for");
    let peer = pair.b.run(|| StdUdp::bind("10.9.0.2:500").unwrap());
    peer.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    ports.send(local, "10.9.0.2:500".parse().unwrap(), b"heard").unwrap();
    assert_eq!(peer.recv_from(&mut [0; 16]).unwrap().0, 5);
    // And what finds no room itself is not waited for.
    let refused = (0..100_000).find_map(|n| ports.send(local, absent(n), &payload).err());
    assert_eq!(refused, Some(udp::SendError::Errno(Errno::EAGAIN)));
}

#[test]
fn whole_packets_go_out_unchanged() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    let receiver = pair.b.run(|| StdUdp::bind("10.9.0.2:9000").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let sender = pair.a.run(|| RawIp::open(Ip::V4, MARK).unwrap());
    // IPv4, UDP 10.9.0.1:9001 -> 10.9.0.2:9000 "hi"; the kernel fills in the header checksum.
    let mut packet = vec![0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2];
    packet.extend([0x23, 0x29, 0x23, 0x28, 0, 10, 0, 0, b'h', b'i']);
    assert_eq!(sender.send(&[(ip("10.9.0.2"), &packet)], |_, errno| panic!("{errno}")), 1);
    let mut buffer = [0; 16];
    assert_eq!(receiver.recv_from(&mut buffer).unwrap(), (2, "10.9.0.1:9001".parse().unwrap()));
    let long = vec![0x45; 3000];
    let mut errors = Vec::new();
    sender.send(&[(ip("10.9.0.2"), &long)], |_, errno| errors.push(errno));
    assert_eq!(errors, [Errno::EMSGSIZE]);

    let six = pair.b.run(|| StdUdp::bind("[fd09::2]:9000").unwrap());
    let sender = pair.a.run(|| RawIp::open(Ip::V6, MARK).unwrap());
    let mut packet = vec![0x60, 0, 0, 0, 0, 10, 17, 64];
    packet.extend("fd09::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    packet.extend("fd09::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    packet.extend([0x23, 0x29, 0x23, 0x28, 0, 10, 0, 0, b'h', b'i']);
    let sum = udp6_checksum(&packet);
    packet[46..48].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(sender.send(&[(ip("fd09::2"), &packet)], |_, errno| panic!("{errno}")), 1);
    six.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    assert_eq!(six.recv_from(&mut buffer).unwrap(), (2, "[fd09::1]:9001".parse().unwrap()));
}

/// RFC 8200 8.1: addresses, length and next header count too.
fn udp6_checksum(packet: &[u8]) -> u16 {
    let words = packet[8..].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum: u32 = words.sum::<u32>() + u32::from(packet[5]) + u32::from(packet[6]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn udp_tells_the_local_address() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    pair.b.run(|| {
        Rtnl::open().unwrap().add_address("eth0", "10.9.0.22/24".parse().unwrap(), false).unwrap()
    });
    for (family, from, to) in [(Ip::V4, "10.9.0.1", "10.9.0.22"), (Ip::V6, "fd09::1", "fd09::2")] {
        let a = pair.a.run(|| UdpSocket::bind(family, 500, MARK).unwrap());
        let b = pair.b.run(|| UdpSocket::bind(family, 4500, MARK).unwrap());
        let used = pair.b.run(|| UdpSocket::bind(family, 4500, MARK).unwrap_err());
        assert_eq!(used, udp::Error::InUse { ip: family, port: 4500 });
        let item = Outgoing {
            tos: Some(0x20),
            ..Outgoing::new(SocketAddr::new(ip(to), 4500), b"question")
        };
        assert_eq!(a.send(&[item], |_, errno| panic!("{errno}")), 1);
        let mut batch = RecvBatch::new(65_536);
        wait(&b);
        assert_eq!(b.receive(&mut batch).unwrap(), 1);
        let question = batch.iter().next().unwrap();
        assert_eq!(
            (question.remote, question.local),
            (SocketAddr::new(ip(from), 500), Some(ip(to)))
        );
        assert_eq!(
            (question.bytes, question.tos, question.ttl),
            (&b"question"[..], Some(0x20), Some(64))
        );
        let answer =
            Outgoing { local: question.local, ..Outgoing::new(question.remote, b"answer") };
        assert_eq!(b.send(&[answer], |_, errno| panic!("{errno}")), 1);
        wait(&a);
        let mut batch = RecvBatch::new(65_536);
        assert_eq!(a.receive(&mut batch).unwrap(), 1);
        assert_eq!(batch.iter().next().unwrap().remote, SocketAddr::new(ip(to), 4500));
        assert_eq!(b.receive(&mut batch).unwrap(), 0, "nothing there, and no waiting");
    }
}

#[test]
fn block_policy_stops_all_but_bypassing_sockets() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    let mut xfrm = match pair.a.run(Xfrm::open) {
        Err(xfrm::Error::Unsupported) => {
            return eprintln!("SKIPPED: 1 test: {}", xfrm::Error::Unsupported);
        }
        other => other.unwrap(),
    };
    let inbound = Policy::new(
        xfrm::Direction::In,
        100,
        Selector::from("10.9.0.0/24".parse().unwrap()),
        Action::Block,
    );
    let eth0 = pair.a.run(|| Rtnl::open().unwrap().link("eth0").unwrap().index);
    let mut to_peer = Selector::between(xfrm::everything(Ip::V4), "10.9.0.2/32".parse().unwrap());
    to_peer.interface = eth0;
    let outbound = Policy::new(xfrm::Direction::Out, 50, to_peer, Action::Block);

    let plain = pair.a.run(|| StdUdp::bind("10.9.0.1:9000").unwrap());
    let ours = pair.a.run(|| UdpSocket::bind(Ip::V4, 500, MARK).unwrap());
    let esp = pair.a.run(|| RawEsp::open(Ip::V4, MARK).unwrap());
    let peer = pair.b.run(|| StdUdp::bind("10.9.0.2:500").unwrap());
    let peer_esp = pair.b.run(|| RawEsp::open(Ip::V4, MARK).unwrap());
    plain.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 16];

    xfrm.put_policy(&inbound).unwrap();
    xfrm.put_policy(&outbound).unwrap();
    let installed = xfrm.policies().unwrap();
    assert!(installed.contains(&inbound) && installed.contains(&outbound), "{installed:?}");

    peer.send_to(b"clear", "10.9.0.1:9000").unwrap();
    assert_eq!(plain.recv_from(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(
        plain.send_to(b"clear", "10.9.0.2:500").is_err(),
        "what goes out is blocked by interface"
    );

    peer.send_to(b"ike", "10.9.0.1:500").unwrap();
    let mut batch = RecvBatch::new(65_536);
    wait(&ours);
    assert_eq!(ours.receive(&mut batch).unwrap(), 1);
    peer_esp.send(&[Outgoing::new("10.9.0.1:0".parse().unwrap(), b"esp")], |_, errno| {
        panic!("{errno}")
    });
    wait(&esp);
    assert_eq!(esp.receive(&mut batch).unwrap(), 1);
    peer.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    ours.send(&[Outgoing::new("10.9.0.2:500".parse().unwrap(), b"ike")], |_, errno| {
        panic!("{errno}")
    });
    assert_eq!(peer.recv_from(&mut buffer).unwrap().0, 3);

    xfrm.remove_policy(&inbound).unwrap();
    xfrm.remove_policy(&inbound).unwrap();
    xfrm.remove_policy(&outbound).unwrap();
    assert_eq!(xfrm.policies().unwrap(), []);
    peer.send_to(b"clear", "10.9.0.1:9000").unwrap();
    assert_eq!(plain.recv_from(&mut buffer).unwrap().0, 5);
}

#[test]
fn capture_sees_all_or_says_what_it_lost() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    let mut capture = pair.b.run(|| Capture::open("eth0").unwrap());
    assert!(matches!(
        pair.b.run(|| Capture::open("none")),
        Err(linux::capture::Error::NoInterface(_))
    ));
    let a = pair.a.run(|| StdUdp::bind("10.9.0.1:9001").unwrap());
    let b = pair.b.run(|| StdUdp::bind("10.9.0.2:9000").unwrap());
    let udp = |p: &linux::capture::Packet| p.protocol == 0x0800 && p.bytes.get(9) == Some(&17);
    let mut packets = Vec::new();
    let mut read = |count: usize| {
        let enough = |all: &[_]| all.iter().filter(|p| udp(p)).count() >= count;
        packets.extend(capture.read_until(Duration::from_secs(5), enough).unwrap());
    };
    // In portions: a busy kernel drops what exceeds its backlog (net.core.netdev_max_backlog, 1000)
    // before anybody could see it.
    for portion in 0..10u32 {
        for i in 0..100 {
            a.send_to(&(portion * 100 + i).to_be_bytes(), "10.9.0.2:9000").unwrap();
        }
        read(100);
    }
    b.send_to(b"back", "10.9.0.1:9001").unwrap();
    read(1);
    let incoming = packets.iter().filter(|p| udp(p) && p.direction == Direction::Incoming).count();
    let outgoing = packets.iter().filter(|p| udp(p) && p.direction == Direction::Outgoing).count();
    assert_eq!((incoming, outgoing, capture.lost().unwrap()), (1000, 1, 0));
    let began = Instant::now();
    let later = capture.read_until(Duration::from_millis(50), |_| false).unwrap();
    assert!(!later.iter().any(udp));
    assert!(began.elapsed() >= Duration::from_millis(50));
}
