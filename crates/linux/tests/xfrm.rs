//! The kernel's policies in network namespaces of the tests' own: with what `ip xfrm` says as judge.
//!
//! SAs need a kernel with ESP: `examples/xfrm_selftest.rs`.
#![allow(clippy::disallowed_methods)]

mod world;

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use ipsec::Instant;
use ipsec::change::{Batch, Change, RefusalReason};
use ipsec::dataplane::{Dataplane, DataplaneEvent};
use ipsec::sa::{Mode, Reqid};
use ipsec::spd::{Action, Flow, Policy, PolicyKey, PolicySelector};
use linux::netns::Netns;
use linux::xfrm::{self, DefaultAction, Defaults, Kernel, Xfrm, probe};
use world::{Pair, namespace, root};

const NOW: Instant = Instant::ZERO;
const FLEET: Reqid = Reqid(0x5741_0000);

fn can_run() -> bool {
    if !root() {
        return false;
    }
    let present = Xfrm::open().is_ok();
    if !present {
        eprintln!("SKIPPED: 1 test: this kernel has no XFRM");
    }
    present
}

fn between(local: &str, remote: &str) -> PolicySelector {
    PolicySelector {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: None,
        local_ports: None,
        remote_ports: None,
    }
}

fn protect(priority: u32, flow: Flow, selector: PolicySelector) -> Policy {
    let action = Action::Protect { mode: Mode::Transport, reqid: FLEET, optional: false };
    Policy { priority, flow, selector, action }
}

fn ip(netns: &Netns, args: &str) -> String {
    netns.run(|| {
        let output = Command::new("ip").args(args.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    })
}

fn apply(kernel: &mut Kernel, changes: Vec<Change>) -> Vec<RefusalReason> {
    kernel.apply(NOW, &Batch(changes)).into_iter().map(|refusal| refusal.reason).collect()
}

fn done(kernel: &mut Kernel, changes: Vec<Change>) {
    assert_eq!(apply(kernel, changes), []);
}

fn there(kernel: &mut Kernel) -> Vec<PolicyKey> {
    kernel.snapshot(NOW).policies
}

fn drain(kernel: &mut Kernel) -> Vec<DataplaneEvent> {
    std::iter::from_fn(|| kernel.poll_event()).collect()
}

/// Some of each kind, as a plan has them.
fn plan() -> Vec<Policy> {
    let me = "10.9.0.1/32";
    let ssh = PolicySelector {
        protocol: Some(6),
        local_ports: Some((22, 22)),
        ..between(me, "0.0.0.0/0")
    };
    let high = PolicySelector {
        protocol: Some(17),
        remote_ports: Some((1000, 2000)),
        ..between(me, "10.9.0.0/24")
    };
    let six = PolicySelector {
        protocol: Some(58),
        local_ports: Some((133 << 8, 137 << 8 | 0xff)),
        ..between("fd09::1/128", "::/0")
    };
    let mut all = Vec::new();
    for flow in [Flow::In, Flow::Out] {
        all.push(Policy { priority: 1, flow, selector: ssh, action: Action::Bypass });
        all.push(Policy { priority: 2, flow, selector: high, action: Action::Discard });
        all.push(Policy { priority: 3, flow, selector: six, action: Action::Bypass });
        all.push(protect(9, flow, between(me, "10.9.0.0/24")));
        all.push(protect(10, flow, between("fd09::1/128", "fd09::/64")));
    }
    all
}

#[test]
fn policies_are_installed_listed_and_removed() {
    if !can_run() {
        return;
    }
    let netns = namespace();
    let mut kernel = netns.run(Kernel::open).unwrap();
    assert_eq!(there(&mut kernel), []);
    let put = plan().into_iter().map(Change::PutPolicy).collect();
    done(&mut kernel, put);
    let mut keys: Vec<_> = plan().iter().map(Policy::key).collect();
    keys.sort();
    assert_eq!(there(&mut kernel), keys);
    // Again is nothing new.
    done(&mut kernel, plan().into_iter().map(Change::PutPolicy).collect());
    assert_eq!(there(&mut kernel), keys);
    assert_eq!(drain(&mut kernel), []);
    // 1000 to 2000 is eight blocks, ICMPv6 133 to 137 three.
    let listed = ip(&netns, "xfrm policy list");
    assert_eq!(listed.matches("action block").count(), 2 * 8, "{listed}");
    assert_eq!(listed.lines().filter(|line| line.starts_with("src")).count(), 2 * (1 + 8 + 3 + 2));
    done(&mut kernel, keys.iter().map(|key| Change::RemovePolicy(*key)).collect());
    done(&mut kernel, keys.iter().map(|key| Change::RemovePolicy(*key)).collect());
    assert_eq!(ip(&netns, "xfrm policy list"), "");
    assert_eq!(there(&mut kernel), []);
}

#[test]
fn iproute2_says_the_same_of_ours_and_of_its_own() {
    if !can_run() {
        return;
    }
    let (ours, theirs) = (namespace(), namespace());
    let mut kernel = ours.run(Kernel::open).unwrap();
    let port = PolicySelector {
        protocol: Some(6),
        local_ports: Some((443, 443)),
        ..between("10.9.0.1/32", "10.9.0.0/24")
    };
    let optional = Action::Protect { mode: Mode::Transport, reqid: FLEET, optional: true };
    let tunnel = Action::Protect { mode: Mode::Tunnel, reqid: FLEET, optional: false };
    let policies = [
        protect(4, Flow::Out, between("fd09::1/128", "fd09::/64")),
        Policy { priority: 5, flow: Flow::In, selector: port, action: Action::Discard },
        Policy { priority: 6, flow: Flow::Fwd, selector: port, action: Action::Bypass },
        Policy { priority: 7, flow: Flow::Out, selector: port, action: optional },
        Policy {
            priority: 8,
            flow: Flow::In,
            selector: between("10.9.0.1/32", "10.9.0.2/32"),
            action: tunnel,
        },
    ];
    done(&mut kernel, policies.into_iter().map(Change::PutPolicy).collect());
    let commands = [
        "src fd09::1/128 dst fd09::/64 dir out index 1459617801 priority 9 tmpl proto esp reqid 1463877632 mode transport",
        "src 10.9.0.0/24 dst 10.9.0.1/32 proto tcp dport 443 dir in index 1459617808 priority 11 action block",
        "src 10.9.0.0/24 dst 10.9.0.1/32 proto tcp dport 443 dir fwd index 1459617818 priority 13",
        "src 10.9.0.1/32 dst 10.9.0.0/24 proto tcp sport 443 dir out index 1459617825 priority 15 tmpl proto esp reqid 1463877632 mode transport level use",
        "src 10.9.0.2/32 dst 10.9.0.1/32 dir in index 1459617832 priority 17 tmpl proto esp reqid 1463877632 mode tunnel",
    ];
    for command in commands {
        ip(&theirs, &format!("xfrm policy add {command}"));
    }
    // All but the time of day at which they were installed.
    let listed = |netns| {
        let text = ip(netns, "-d -s xfrm policy list");
        let lines = text.lines().filter(|line| !line.contains("add 20"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(listed(&ours), listed(&theirs));
    // And what iproute2 wrote is read as ours.
    let mut second = theirs.run(Kernel::open).unwrap();
    assert_eq!(there(&mut second), there(&mut kernel));
}

#[test]
fn foreign_policies_are_not_touched() {
    if !can_run() {
        return;
    }
    let netns = namespace();
    ip(&netns, "xfrm policy add src 10.9.0.1/32 dst 10.9.0.0/24 dir out priority 3 action block");
    ip(
        &netns,
        "xfrm policy add src 192.0.2.0/24 dst 192.0.2.1/32 dir in tmpl proto esp reqid 7 mode transport",
    );
    let before = ip(&netns, "xfrm policy list");
    let mut kernel = netns.run(Kernel::open).unwrap();
    assert_eq!(there(&mut kernel), [], "not listed");
    let mine = protect(9, Flow::Out, between("10.9.0.1/32", "10.9.0.0/24"));
    let refusals = apply(&mut kernel, vec![Change::PutPolicy(mine)]);
    assert!(
        matches!(&refusals[..], [RefusalReason::Conflict(text)] if text.contains("ip xfrm policy delete dir out index")),
        "{refusals:?}"
    );
    // Part of this one is in the way, so that nothing of it stays.
    ip(
        &netns,
        "xfrm policy add src 10.9.0.1/32 dst 10.9.0.2/32 proto tcp sport 2000 dir out priority 3",
    );
    let ranged = PolicySelector {
        protocol: Some(6),
        local_ports: Some((1000, 2000)),
        ..between("10.9.0.1/32", "10.9.0.2/32")
    };
    let discard =
        Policy { priority: 4, flow: Flow::Out, selector: ranged, action: Action::Discard };
    let refusals = apply(&mut kernel, vec![Change::PutPolicy(discard)]);
    assert!(matches!(&refusals[..], [RefusalReason::Conflict(_)]), "{refusals:?}");
    done(&mut kernel, vec![Change::RemovePolicy(mine.key()), Change::RemovePolicy(discard.key())]);
    ip(&netns, "xfrm policy delete src 10.9.0.1/32 dst 10.9.0.2/32 proto tcp sport 2000 dir out");
    assert_eq!(ip(&netns, "xfrm policy list"), before);
    drop(kernel);
    assert_eq!(ip(&netns, "xfrm policy list"), before);
}

#[test]
fn drift_is_seen_and_repaired() {
    if !can_run() {
        return;
    }
    let netns = namespace();
    let mut kernel = netns.run(Kernel::open).unwrap();
    done(&mut kernel, plan().into_iter().map(Change::PutPolicy).collect());
    let all = there(&mut kernel);
    assert_eq!(drain(&mut kernel), []);

    // One part of one, and another made harmless under its own name and index.
    ip(&netns, "xfrm policy delete src 10.9.0.0/24 dst 10.9.0.1/32 proto udp sport 2000 dir in");
    ip(&netns, "xfrm policy update src 10.9.0.1/32 dst 10.9.0.0/24 dir out priority 19");
    assert_eq!(drain(&mut kernel), [DataplaneEvent::Drift], "told once");
    let left = there(&mut kernel);
    assert_eq!(all.len() - left.len(), 2);
    let altered = kernel.snapshot(NOW).altered_policies;
    assert!(altered.len() == 1 && altered[0].priority == 9, "{altered:?}");
    // Template, action and priority: each is noticed.
    for change in [
        "src 10.9.0.0/24 dst 10.9.0.1/32 dir in priority 19 tmpl proto esp reqid 1463877632 mode transport level use",
        "src 10.9.0.0/24 dst 10.9.0.1/32 dir in priority 19 action block",
        "src 10.9.0.0/24 dst 10.9.0.1/32 dir in priority 20 tmpl proto esp reqid 1463877632 mode transport",
        "src 10.9.0.0/24 dst 10.9.0.1/32 dir in priority 19 tmpl proto esp reqid 7 mode transport",
    ] {
        ip(&netns, &format!("xfrm policy update {change}"));
        assert_eq!(drain(&mut kernel), [DataplaneEvent::Drift], "{change}");
        assert_eq!(kernel.snapshot(NOW).altered_policies.len(), 2, "{change}");
    }
    ip(
        &netns,
        "xfrm policy update src 10.9.0.0/24 dst 10.9.0.1/32 dir in priority 19 tmpl proto esp reqid 1463877632 mode transport",
    );
    let missing = plan().into_iter().filter(|policy| !left.contains(&policy.key()));
    let repair: Vec<_> = missing.map(Change::PutPolicy).collect();
    assert_eq!(repair.len(), 2);
    done(&mut kernel, repair);
    assert_eq!(there(&mut kernel), all);

    ip(&netns, "xfrm policy flush");
    assert_eq!(drain(&mut kernel), [DataplaneEvent::Drift]);
    assert_eq!(there(&mut kernel), []);
    done(&mut kernel, plan().into_iter().map(Change::PutPolicy).collect());
    assert_eq!(there(&mut kernel), all);
}

#[test]
fn the_next_process_takes_over() {
    if !can_run() {
        return;
    }
    let netns = namespace();
    let mut first = netns.run(Kernel::open).unwrap();
    done(&mut first, plan().into_iter().map(Change::PutPolicy).collect());
    let all = there(&mut first);
    drop(first);
    let before = ip(&netns, "xfrm policy list");

    let mut second = netns.run(Kernel::open).unwrap();
    let kept: Vec<_> = plan().into_iter().filter(|policy| policy.priority != 10).collect();
    done(&mut second, kept.iter().copied().map(Change::PutPolicy).collect());
    assert_eq!(ip(&netns, "xfrm policy list"), before, "nothing was replaced");
    assert_eq!(there(&mut second), all, "what is not wanted any more is listed");
    let gone = all.iter().filter(|key| key.priority == 10).map(|key| Change::RemovePolicy(*key));
    done(&mut second, gone.collect());
    let mut keys: Vec<_> = kept.iter().map(Policy::key).collect();
    keys.sort();
    assert_eq!(there(&mut second), keys);

    // In parts they are listed as parts, and can be removed as such.
    let mut third = netns.run(Kernel::open).unwrap();
    let parts = there(&mut third);
    assert_eq!(parts.len(), 2 * (1 + 8 + 3 + 1));
    done(&mut third, parts.iter().map(|key| Change::RemovePolicy(*key)).collect());
    assert_eq!(ip(&netns, "xfrm policy list"), "");
}

#[test]
fn another_priority_is_not_another_policy() {
    if !can_run() {
        return;
    }
    let netns = namespace();
    let mut kernel = netns.run(Kernel::open).unwrap();
    let old = protect(9, Flow::Out, between("10.9.0.1/32", "10.9.0.0/24"));
    let new = Policy { priority: 5, ..old };
    // The new one comes first, as a plan that changes has it.
    done(&mut kernel, vec![Change::PutPolicy(old)]);
    done(&mut kernel, vec![Change::PutPolicy(new), Change::RemovePolicy(old.key())]);
    assert_eq!(there(&mut kernel), [new.key()]);
}

#[test]
fn a_first_packet_is_an_acquire() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let mut kernel = pair.a.run(Kernel::open).unwrap();
    let me: IpAddr = "10.9.0.1".parse().unwrap();
    let peer: IpAddr = "10.9.0.2".parse().unwrap();
    done(
        &mut kernel,
        vec![Change::PutPolicy(protect(9, Flow::Out, between("10.9.0.1/32", "10.9.0.0/24")))],
    );
    let socket = pair.a.run(|| UdpSocket::bind("10.9.0.1:7000").unwrap());
    let acquired = |kernel: &mut Kernel| {
        drain(kernel).into_iter().any(|event| match event {
            DataplaneEvent::Acquire { reqid, packet } => {
                assert_eq!((reqid, packet.src, packet.dst), (FLEET, me, peer));
                assert_eq!(
                    (packet.protocol, packet.src_port, packet.dst_port),
                    (17, Some(7000), Some(9))
                );
                true
            }
            _ => false,
        })
    };
    let _ = socket.send_to(b"x", "10.9.0.2:9");
    assert!(acquired(&mut kernel));
    let _ = socket.send_to(b"x", "10.9.0.2:9");
    assert!(!acquired(&mut kernel), "asked already");
    assert_eq!(kernel.snapshot(NOW).sas, [], "it is no SA");
    done(&mut kernel, vec![Change::DropQueued(peer)]);
    assert_eq!(ip(&pair.a, "xfrm state list"), "");
    let _ = socket.send_to(b"x", "10.9.0.2:9");
    assert!(acquired(&mut kernel), "asked again");
    done(&mut kernel, vec![Change::DropQueued("10.9.0.3".parse().unwrap())]);
    assert_ne!(ip(&pair.a, "xfrm state list"), "", "another peer's stays");
}

#[test]
fn lost_events_are_made_up_for() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let mut kernel = pair.a.run(Kernel::open).unwrap();
    let trap = protect(9, Flow::Out, between("10.9.0.1/32", "10.9.0.0/24"));
    done(&mut kernel, vec![Change::PutPolicy(trap)]);
    // More news than the socket holds, and among what is lost a packet that wants an SA.
    for _ in 0..4000 {
        let other = protect(5, Flow::Out, between("10.9.0.1/32", "192.0.2.0/24"));
        done(&mut kernel, vec![Change::PutPolicy(other), Change::RemovePolicy(other.key())]);
    }
    // If nobody at all hears of it the kernel asks again with the next packet.
    let _other = pair.a.run(Kernel::open).unwrap();
    let socket = pair.a.run(|| UdpSocket::bind("10.9.0.1:7000").unwrap());
    let _ = socket.send_to(b"x", "10.9.0.2:9");
    let peer: IpAddr = "10.9.0.2".parse().unwrap();
    let events = drain(&mut kernel);
    let acquired = |event: &DataplaneEvent| match event {
        DataplaneEvent::Acquire { packet, .. } => packet.dst == peer && packet.dst_port == Some(9),
        _ => false,
    };
    assert!(events.iter().any(acquired), "{events:?}");
    assert!(events.contains(&DataplaneEvent::Drift), "all is to be looked at");
}

#[test]
fn icmp_types_are_where_the_kernel_looks_for_them() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let mut kernel = pair.a.run(Kernel::open).unwrap();
    let ping = |to: &str| {
        pair.a.run(|| {
            let args = ["-c", "1", "-W", "1", to];
            Command::new("ping").args(args).output().unwrap().status.success()
        })
    };
    for (me, peer, protocol, echo) in
        [("10.9.0.1/32", "10.9.0.2", 1, 8u16), ("fd09::1/128", "fd09::2", 58, 128)]
    {
        assert!(ping(peer));
        let everyone = if protocol == 1 { "0.0.0.0/0" } else { "::/0" };
        let block = |flow, kind: u16, code: u16| Policy {
            priority: 1,
            flow,
            selector: PolicySelector {
                protocol: Some(protocol),
                remote_ports: Some((kind << 8 | code, kind << 8 | code)),
                ..between(me, everyone)
            },
            action: Action::Discard,
        };
        let reply = if protocol == 1 { 0 } else { 129 };
        // Another code than 0, and the request inbound, are other packets.
        for harmless in [block(Flow::Out, echo, 1), block(Flow::In, echo, 0)] {
            done(&mut kernel, vec![Change::PutPolicy(harmless)]);
            assert!(ping(peer), "{harmless:?}");
        }
        for harmful in [block(Flow::Out, echo, 0), block(Flow::In, reply, 0)] {
            done(&mut kernel, vec![Change::PutPolicy(harmful)]);
            assert!(!ping(peer), "{harmful:?}");
            done(&mut kernel, vec![Change::RemovePolicy(harmful.key())]);
            assert!(ping(peer));
        }
    }
}

#[test]
fn settings_come_and_go_with_the_kernel_plane() {
    if !can_run() {
        return;
    }
    let netns = namespace();
    let read = || netns.run(|| linux::netns::get_sysctl("net/core/xfrm_acq_expires").unwrap());
    let before = read();
    let kernel = netns.run(Kernel::open).unwrap();
    assert_eq!(read(), "6");
    drop(kernel);
    assert_eq!(read(), before);
}

#[test]
fn settings_are_put_back_by_the_process_after_one_that_was_killed() {
    if !can_run() {
        return;
    }
    let netns = namespace();
    let dir = std::env::temp_dir().join(format!("warren-settings-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let read = || netns.run(|| linux::netns::get_sysctl("net/core/xfrm_acq_expires").unwrap());
    netns.run(|| linux::netns::set_sysctl("net/core/xfrm_acq_expires", "77").unwrap());
    let open = || netns.run(|| Kernel::open_with(Some(&dir))).unwrap();
    // Killed twice.
    for _ in 0..2 {
        std::mem::forget(open());
        assert_eq!(read(), "6");
    }
    drop(open());
    assert_eq!(read(), "77");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "nothing stays");
    // What stands there and is no number of seconds is not written to the kernel.
    std::fs::write(dir.join("xfrm_acq_expires.before"), "rm -rf /").unwrap();
    drop(open());
    assert_eq!(read(), "77");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn counters_are_those_of_the_namespace() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let mut kernel = pair.a.run(Kernel::open).unwrap();
    let selector = between("10.9.0.1/32", "10.9.0.0/24");
    let block = Policy { priority: 1, flow: Flow::Out, selector, action: Action::Discard };
    done(&mut kernel, vec![Change::PutPolicy(block)]);
    let blocked = |kernel: &mut Kernel| {
        let counters = kernel.snapshot(NOW).counters;
        counters.iter().find(|(name, _)| *name == "XfrmOutPolBlock").map(|(_, value)| *value)
    };
    let Some(before) = blocked(&mut kernel) else {
        return eprintln!("SKIPPED: 1 test: this kernel has no XFRM statistics");
    };
    let socket = pair.a.run(|| UdpSocket::bind("10.9.0.1:7000").unwrap());
    assert!(socket.send_to(b"x", "10.9.0.2:9").is_err());
    assert_eq!(blocked(&mut kernel), Some(before + 1));
}

#[test]
fn default_policies() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let mut xfrm = pair.a.run(Xfrm::open).unwrap();
    let Ok(before) = xfrm.defaults() else {
        return eprintln!("SKIPPED: 1 test: this kernel has no default policies");
    };
    let open = Defaults {
        input: DefaultAction::Accept,
        forward: DefaultAction::Accept,
        output: DefaultAction::Accept,
    };
    assert_eq!(before, open);
    let shut = Defaults { output: DefaultAction::Block, ..open };
    xfrm.set_defaults(shut).unwrap();
    assert_eq!(xfrm.defaults().unwrap(), shut);
    assert!(ip(&pair.a, "xfrm policy getdefault").contains("out: block"));
    let socket = pair.a.run(|| UdpSocket::bind("10.9.0.1:7000").unwrap());
    assert!(socket.send_to(b"x", "10.9.0.2:9").is_err());
    xfrm.set_defaults(open).unwrap();
    socket.send_to(b"x", "10.9.0.2:9").unwrap();
}

#[test]
fn esp_in_udp_sockets() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let socket = pair.a.run(|| UdpSocket::bind("10.9.0.1:4500").unwrap());
    match xfrm::decapsulate(&socket) {
        Err(xfrm::Error::Unsupported) => {
            return eprintln!("SKIPPED: 1 test: this kernel has no ESP in UDP");
        }
        other => other.unwrap(),
    }
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let peer = pair.b.run(|| UdpSocket::bind("10.9.0.2:4500").unwrap());
    // What is for an SPI goes to the kernel; with the marker of RFC 3948 2.2 it is IKE's.
    peer.send_to(&[1; 40], "10.9.0.1:4500").unwrap();
    peer.send_to(&[0, 0, 0, 0, 9, 9, 9], "10.9.0.1:4500").unwrap();
    let mut buffer = [0; 64];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
}

#[test]
fn the_probe_says_what_is_missing() {
    if !can_run() {
        return;
    }
    let netns = namespace();
    match netns.run(probe) {
        Ok(()) => {}
        Err(missing) => {
            let text = missing.to_string();
            assert!(text.contains("CONFIG_") || text.contains("load module"), "{text}");
        }
    }
    assert_eq!(ip(&netns, "xfrm state list"), "", "the SA for trial is gone");
}
