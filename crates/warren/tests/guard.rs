//! The leak guard: no cleartext from the first packet on, whatever the daemon does; exceptions pass; all of it comes off again.
#![allow(clippy::disallowed_methods, reason = "tests of the program use clocks, files and threads")]

mod world;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use linux::capture::Direction;
use linux::netns::Netns;
use linux::raw::Ip;
use linux::route::{Route, Rtnl, Rule};
use linux::xfrm::{self, Action, Policy, Selector, Xfrm};
use rustix::process::Signal;
use world::daemon::Daemon;
use world::net::{Net, in_clear};
use world::{PATIENCE, eventually, root};

const RULES: &str = "\
ipsec_subnets: [10.9.0.0/24, 'fd09::/64']
no_ipsec_subnets: [10.9.0.128/25, 'fd09::8000:0/112']
policies:
- {action: pass, proto: tcp, port: 22}
";
const V4: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
const V6: [&str; 2] = ["fd09::1", "fd09::2"];
/// Long enough for every sender of the flood to have tried many times.
const PHASE: Duration = Duration::from_millis(250);

fn manifest() -> String {
    format!("psk: a key that only tests know of\n{RULES}")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two hosts with addresses of both families on one wire.
fn both_families() -> Net {
    let net = Net::new(&V4, 24);
    for host in 0..2 {
        net.hosts[host].run(|| add_v6(host));
    }
    eventually("IPv6 on the wire", || arrives(&net, V6, 40_000, 9).then_some(()));
    net
}

fn add_v6(host: usize) {
    let mut rtnl = Rtnl::open().unwrap();
    rtnl.add_address("eth0", format!("{}/64", V6[host]).parse().unwrap(), true).unwrap();
}

/// One datagram from the first host to the second; whether it comes.
fn arrives(net: &Net, [from, to]: [&str; 2], source: u16, target: u16) -> bool {
    let bind = |host: usize, address: &str, port| {
        net.hosts[host].run(|| UdpSocket::bind((ip(address), port)).unwrap())
    };
    let (sender, listener) = (bind(0, from, source), bind(1, to, target));
    listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    (0..3).any(|_| {
        let _ = sender.send_to(b"one", (ip(to), target));
        listener.recv_from(&mut [0; 8]).is_ok()
    })
}

/// Datagrams without end from the first host: of both families, from sockets of every kind.
fn leak(host: &Netns, over: &AtomicBool) {
    host.run(|| {
        while !over.load(Ordering::Relaxed) {
            // New sockets each time: what a kernel remembers of a route must not help them.
            for to in [V4[1], V6[1]] {
                let any: IpAddr = if ip(to).is_ipv4() { ip("0.0.0.0") } else { ip("::") };
                for (text, bound) in [("leak-unbound", false), ("leak-bound", true)] {
                    let socket = UdpSocket::bind((any, 0)).unwrap();
                    if bound {
                        bind_to_device(&socket);
                    }
                    let _ = socket.send_to(text.as_bytes(), (ip(to), 9999));
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}

fn bind_to_device(socket: &UdpSocket) {
    nix::sys::socket::setsockopt(
        &socket.as_fd(),
        nix::sys::socket::sockopt::BindToDevice,
        &"eth0".into(),
    )
    .unwrap();
}

/// Datagrams without end from the second host, which knows nothing of IPsec.
fn intrude(host: &Netns, over: &AtomicBool) {
    let sockets = [V4[1], V6[1]].map(|a| host.run(|| UdpSocket::bind((ip(a), 0)).unwrap()));
    while !over.load(Ordering::Relaxed) {
        for (socket, to) in sockets.iter().zip([V4[0], V6[0]]) {
            let _ = socket.send_to(b"intruder", (ip(to), 9998));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Counts what comes in to the first host, on any of its addresses.
fn listen(host: &Netns, over: &AtomicBool, came: &AtomicU64) {
    let socket = host.run(|| UdpSocket::bind("[::]:9998").unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while !over.load(Ordering::Relaxed) {
        if socket.recv_from(&mut [0; 64]).is_ok() {
            came.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ends the threads of a scope when it goes, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything that a guard or a daemon could have changed.
fn state(host: &Netns) -> Vec<String> {
    host.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let mut all: Vec<String> = rtnl.rules().unwrap().iter().map(|r| format!("{r:?}")).collect();
        all.extend(rtnl.routes(None).unwrap().iter().map(|r| format!("{r:?}")));
        all.extend(Xfrm::open().unwrap().policies().unwrap().iter().map(|p| format!("{p:?}")));
        all.extend(rtnl.links().unwrap().iter().map(|l| l.name.clone()));
        all.sort();
        all
    })
}

fn same(before: &[String], after: &[String]) {
    let not_in = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    let (gone, new) = (not_in(before, after), not_in(after, before));
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}, new: {new:#?}");
}

/// Entries of other people: the same selectors as ours, and a rule among ours.
fn add_foreign(host: &Netns) {
    host.run(|| {
        let mut xfrm = Xfrm::open().unwrap();
        for (net, direction) in [
            ("10.9.0.0/24", xfrm::Direction::In),
            ("fd09::/64", xfrm::Direction::In),
            ("203.0.113.0/24", xfrm::Direction::Out),
        ] {
            let selector = Selector::from(net.parse().unwrap());
            xfrm.put_policy(&Policy::new(direction, u32::MAX, selector, Action::Allow)).unwrap();
        }
        let mut rtnl = Rtnl::open().unwrap();
        for ip in [Ip::V4, Ip::V6] {
            rtnl.add_rule(&Rule::unmarked(ip, 5200, 7, 77)).unwrap();
        }
        let to = "198.51.100.0/24".parse().unwrap();
        rtnl.add_route(&Route::unicast(to, 77, "lo")).unwrap();
    });
}

struct Guarded<'a> {
    net: &'a Net,
    host: Daemon,
    /// The family of the daemon's address.
    v4: bool,
}

impl Guarded<'_> {
    fn on(&self) -> String {
        let state = self.host.folder.join("lib");
        let manifest = self.host.manifest();
        let args = ["guard", "on", "-m", manifest.to_str().unwrap(), "--state-dir"];
        self.host.warren(&[&args[..], &[state.to_str().unwrap()]].concat()).ok()
    }

    fn held_by(&self) -> String {
        let status = self.host.json(&["guard", "status"]);
        assert_eq!(status["on"], true, "{status}");
        status["held_by"].as_str().unwrap().to_owned()
    }

    /// SSH to the guarded host passes.
    fn ssh(&self, v4: bool) {
        let addresses = if v4 { V4 } else { V6 };
        let server =
            self.net.hosts[0].run(|| std::net::TcpListener::bind((ip(addresses[0]), 22)).unwrap());
        let to = SocketAddr::new(ip(addresses[0]), 22);
        let client = self.net.hosts[1].run(|| std::net::TcpStream::connect_timeout(&to, PATIENCE));
        client.unwrap_or_else(|error| panic!("SSH to {to}: {error}\n{}", self.host.log()));
        server.accept().unwrap();
    }

    fn start(&mut self) {
        let mut command = self.host.run_command();
        command.args(["--address", if self.v4 { V4[0] } else { V6[0] }]);
        command.args(["--data-plane", "userspace"]);
        self.host.start_as(command);
    }
}

fn boot_gap(v4: bool) {
    if !root() {
        return;
    }
    let net = both_families();
    // At the far end of the wire: the near one goes down.
    let mut watch = net.watch(1);
    let a = &net.hosts[0];
    add_foreign(a);
    let before = state(a);
    a.run(|| Rtnl::open().unwrap().set_up("eth0", false).unwrap());

    let me = ip(if v4 { V4[0] } else { V6[0] });
    let mut guarded = Guarded { net: &net, host: Daemon::new(a, me), v4 };
    guarded.host.folder.put("warren.yml", manifest());
    let off = guarded.host.warren(&["guard", "status"]);
    assert!(off.code == Some(1) && off.out.starts_with("off"), "{off:?}");
    assert!(guarded.on().contains("is on"));

    let (over, came) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let ends = Over(&over);
        scope.spawn(|| leak(a, &over));
        scope.spawn(|| intrude(&net.hosts[1], &over));
        scope.spawn(|| listen(a, &over, &came));
        let mut quiet = |phase: &str| {
            std::thread::sleep(PHASE);
            let seen = watch.seen();
            let sent = seen.iter().filter(|p| p.direction == Direction::Incoming).cloned();
            let sent: Vec<_> = sent.collect();
            let leaks = in_clear(&sent, "leak");
            assert!(leaks.is_empty(), "{phase}: {} leaks, {:?}", leaks.len(), leaks[0]);
            assert_eq!(came.load(Ordering::Relaxed), 0, "{phase}: intruders came in");
            seen.len()
        };

        // The boot: the flood is there before the interface is.
        a.run(|| Rtnl::open().unwrap().set_up("eth0", true).unwrap());
        a.run(|| add_v6(0));
        guarded.ssh(true);
        guarded.ssh(false);
        assert!(quiet("before the daemon") > 0, "nothing was on the wire at all");
        assert_eq!(guarded.held_by(), "guard");
        for (way, source, target) in
            [(V4, 500, 500), (V4, 4500, 4500), (V4, 68, 67), (V6, 500, 500), (V6, 546, 547)]
        {
            assert!(arrives(&net, way, source, target), "{way:?} {source} {target}");
        }
        assert!(!arrives(&net, V4, 501, 500) && !arrives(&net, V6, 9999, 9998));

        guarded.start();
        assert_eq!(guarded.held_by(), "data_plane");
        quiet("with the daemon");
        guarded.ssh(v4);
        let refused = guarded.host.warren(&["guard", "off"]);
        refused.fails(1, &["stop --flush"]);
        assert!(guarded.on().contains("data plane"));
        guarded.host.warren(&["reload"]).ok();
        guarded.ssh(v4);
        quiet("after a reload");

        guarded.host.signal(Signal::KILL);
        guarded.host.ended();
        quiet("after a crash");
        guarded.start();
        quiet("after a crash and a start");
        guarded.ssh(v4);

        guarded.host.signal(Signal::KILL);
        guarded.host.ended();
        assert!(guarded.on().contains("is on"));
        guarded.ssh(true);
        guarded.ssh(false);
        quiet("after a crash, with the guard");
        guarded.start();
        quiet("after a start with the guard");

        guarded.host.warren(&["stop"]).ok();
        guarded.host.ended();
        assert_eq!(guarded.held_by(), "guard");
        guarded.ssh(true);
        guarded.ssh(false);
        quiet("after a stop");
        guarded.start();
        guarded.ssh(v4);
        quiet("after a stop and a start");
        guarded.host.warren(&["stop"]).ok();
        guarded.host.ended();

        guarded.host.warren(&["guard", "off"]).ok();
        same(&before, &state(a));
        // The flood was real, and so was the watch.
        let mut missing = vec![(0x0800, "leak-unbound"), (0x0800, "leak-bound")];
        missing.extend([(0x86dd, "leak-unbound"), (0x86dd, "leak-bound")]);
        eventually("the flood in clear, of every kind", || {
            let seen = watch.seen();
            missing.retain(|(family, text)| {
                !in_clear(&seen, text).iter().any(|packet| packet.protocol == *family)
            });
            (missing.is_empty() && came.load(Ordering::Relaxed) > 0).then_some(())
        });
        drop(ends);
    });
}

#[test]
fn nothing_leaks_from_boot_to_stop_v4() {
    boot_gap(true);
}

#[test]
fn nothing_leaks_from_boot_to_stop_v6() {
    boot_gap(false);
}

#[test]
fn tunnels_come_up_under_the_guard_and_come_back() {
    if !root() {
        return;
    }
    for addresses in [V4, V6] {
        let net = both_families();
        let mut hosts: Vec<Guarded<'_>> = Vec::new();
        for (host, address) in addresses.iter().enumerate() {
            let daemon = Daemon::new(&net.hosts[host], ip(address));
            daemon.folder.put("warren.yml", manifest());
            let guarded = Guarded { net: &net, host: daemon, v4: ip(address).is_ipv4() };
            guarded.on();
            hosts.push(guarded);
        }
        let mut watch = net.watch(0);
        let bind = |host: usize| {
            net.hosts[host].run(|| UdpSocket::bind((ip(addresses[host]), 9000)).unwrap())
        };
        let (from, to) = (bind(0), bind(1));
        to.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let through = |what: &str| {
            while to.recv_from(&mut [0; 16]).is_ok() {}
            eventually(what, || {
                let _ = from.send_to(b"secret", (ip(addresses[1]), 9000));
                to.recv_from(&mut [0; 16]).ok()
            });
        };
        for (host, address) in hosts.iter_mut().zip(addresses) {
            let mut command = host.host.run_command();
            command.args(["--address", address, "--data-plane", "userspace"]);
            host.host.start_as(command);
        }
        through("the first packet");
        hosts[0].host.signal(Signal::KILL);
        hosts[0].host.ended();
        hosts[0].on();
        hosts[0].start();
        through("a packet after a crash");
        hosts[0].host.warren(&["stop"]).ok();
        hosts[0].host.ended();
        hosts[0].start();
        through("a packet after a stop");
        let seen = watch.seen();
        assert_eq!(in_clear(&seen, "secret").len(), 0);
        assert!(seen.iter().any(|packet| world::net::protocol(packet) == 50), "ESP");
        for host in &mut hosts {
            host.host.warren(&["stop", "--flush"]).ok();
            host.host.ended();
        }
        assert_eq!(net.traces(0), Vec::<String>::new(), "a flush takes the guard away too");
    }
}

#[test]
fn a_refused_manifest_leaves_the_rules_of_the_last_one() {
    if !root() {
        return;
    }
    let net = Net::new(&V4, 24);
    let host = Daemon::new(&net.hosts[0], ip(V4[0]));
    let lib = host.folder.join("lib");
    let on = |text: &str| {
        let file = host.folder.put("warren.yml", text);
        let args = ["guard", "on", "-m", file.to_str().unwrap(), "--state-dir"];
        host.warren(&[&args[..], &[lib.to_str().unwrap()]].concat())
    };
    let reaches = || arrives(&net, V4, 9000, 9001);

    // Nothing is known yet.
    on("ipsec_subnets: nonsense").fails(1, &["nonsense", "nothing is blocked"]);
    assert!(reaches());

    // Credentials need not be there yet.
    let early = format!(
        "instance_certificate: file:/nowhere/a\ninstance_private_key: credential:none\nca_certificates: [file:/nowhere/b]\n{RULES}"
    );
    on(&early).ok();
    assert!(!reaches());
    host.warren(&["guard", "off"]).ok();
    assert!(reaches());

    let saved = on("ipsec_subnets: nonsense");
    assert!(saved.err.contains("last accepted manifest"), "{saved:?}");
    saved.ok();
    assert!(!reaches());

    // Once more changes nothing.
    let before = state(&net.hosts[0]);
    on(&manifest()).ok();
    same(&before, &state(&net.hosts[0]));

    // Other subnets take the place of the old ones; `optional` lifts it all.
    let other = manifest().replace("10.9.0.0/24", "10.8.0.0/24").replace("10.9.0.128/25, ", "");
    on(&other).ok();
    assert!(reaches());
    on(&manifest()).ok();
    assert!(!reaches());
    let optional = on(&format!("{}optional: true\n", manifest()));
    assert!(optional.ok().contains("optional"));
    assert!(reaches());
    assert_eq!(host.warren(&["guard", "status"]).code, Some(1));
    assert_eq!(net.traces(0), Vec::<String>::new());
}

#[test]
fn what_is_forwarded_does_not_pass_either() {
    if !root() {
        return;
    }
    let net = Net::new(&V4, 24);
    let (router, far) = (&net.hosts[0], &net.hosts[1]);
    let inside = world::net::namespace();
    router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    let via = |at: &str, of: &Netns, gateway: &str, to: &str| {
        of.run(|| {
            let route = Route::unicast(to.parse().unwrap(), linux::route::MAIN_TABLE, at);
            let gateway = Some(ip(gateway));
            Rtnl::open().unwrap().add_route(&Route { gateway, ..route }).unwrap();
        });
    };
    let up = |of: &Netns, device: &str, address: &str| {
        of.run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            rtnl.add_address(device, address.parse().unwrap(), false).unwrap();
            rtnl.set_up(device, true).unwrap();
        });
    };
    router.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        rtnl.create_link("pod0", linux::route::NewLink::Veth { peer: "pod1" }).unwrap();
        rtnl.move_link("pod1", &*inside, "eth0").unwrap();
    });
    up(router, "pod0", "172.20.0.1/24");
    up(&inside, "eth0", "172.20.0.2/24");
    via("eth0", &inside, "172.20.0.1", "10.9.0.0/24");
    via("eth0", far, V4[0], "172.20.0.0/24");
    let sender = inside.run(|| UdpSocket::bind("172.20.0.2:0").unwrap());
    let listener = net.udp(1, 9000);
    let reaches = || {
        let _ = sender.send_to(b"pod", (ip(V4[1]), 9000));
        listener.recv_from(&mut [0; 8]).ok()
    };
    eventually("the pod's packet without a guard", reaches);
    let host = Daemon::new(router, ip(V4[0]));
    host.folder.put("warren.yml", manifest());
    let guarded = Guarded { net: &net, host, v4: true };
    guarded.on();
    while listener.recv_from(&mut [0; 8]).is_ok() {}
    assert!((0..10).all(|_| reaches().is_none()), "it was forwarded in clear");
    guarded.host.warren(&["guard", "off"]).ok();
    eventually("the pod's packet after the guard", reaches);
}

#[test]
fn what_others_flush_comes_back() {
    if !root() {
        return;
    }
    let net = both_families();
    let mut guarded = Guarded { net: &net, host: Daemon::new(&net.hosts[0], ip(V4[0])), v4: true };
    guarded.host.folder.put("warren.yml", manifest());
    guarded.start();
    let policies = || net.hosts[0].run(|| Xfrm::open().unwrap().policies().unwrap());
    let before = policies();
    let blocks = |p: &Policy| p.direction == xfrm::Direction::Out && p.action == Action::Block;
    assert!(before.iter().any(blocks));
    net.hosts[0].run(|| {
        let mut xfrm = Xfrm::open().unwrap();
        before.iter().for_each(|policy| xfrm.remove_policy(policy).unwrap());
    });
    eventually("all policies again", || (policies().len() == before.len()).then_some(()));
    let sorted = |mut all: Vec<Policy>| {
        all.sort();
        all
    };
    assert_eq!(sorted(policies()), sorted(before));
}
