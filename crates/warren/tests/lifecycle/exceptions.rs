//! What passes in the clear, checked on the wire.

use std::time::Duration;

use linux::capture::{Direction, Packet};

use crate::world::PATIENCE;
use crate::world::net::{in_clear, protocol};
use crate::world::root;
use crate::{BASE, Mesh};

const CLEAR: &str = "anybody may read this";
const SECRET: &str = "nobody may read that";

fn both_ways(packets: &[&Packet]) -> bool {
    [Direction::Incoming, Direction::Outgoing]
        .iter()
        .all(|way| packets.iter().any(|p| p.direction == *way))
}

#[test]
fn a_port_passes_in_the_clear_and_the_rest_does_not() {
    if !root() {
        return;
    }
    let policies = "policies:\n- {action: pass, proto: tcp, local_port: 8080}\n- {action: drop, proto: tcp, local_port: 8081}\n";
    let mesh = Mesh::start(2, &format!("{BASE}{policies}"));
    let mut wire = mesh.net.watch(0);
    mesh.net.tcp_echo(0, 1, 8080, CLEAR).unwrap();
    assert!(mesh.daemons[0].json(&["status"])["peers"].as_array().unwrap().is_empty());
    mesh.net.tcp_echo(1, 0, 8080, CLEAR).unwrap();
    mesh.net.tcp_echo(0, 1, 8082, SECRET).unwrap();
    mesh.net.tcp_echo(1, 0, 8082, SECRET).unwrap();
    let seen = wire.seen();
    assert!(both_ways(&in_clear(&seen, CLEAR)), "the port that passes was not seen in the clear");
    assert!(in_clear(&seen, SECRET).is_empty(), "leaked");
    let esp: Vec<_> = seen.iter().filter(|p| protocol(p) == 50).collect();
    assert!(both_ways(&esp));
    let tcp = seen.iter().filter(|p| protocol(p) == 6);
    assert!(tcp.clone().count() > 0);
    for packet in tcp {
        let ports = [&packet.bytes[20..22], &packet.bytes[22..24]];
        assert!(ports.contains(&&8080_u16.to_be_bytes()[..]), "another port in the clear");
    }
    // Dropped is neither.
    let attempt = mesh.net.hosts[0].run(|| {
        let to = (mesh.address(1), 8081).into();
        std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300)).map(drop)
    });
    assert!(attempt.is_err());
    assert!(wire.seen().iter().all(|p| protocol(p) != 6));
}

#[test]
fn a_host_outside_the_mesh_is_spoken_to_in_the_clear() {
    if !root() {
        return;
    }
    let manifest = format!("{BASE}no_ipsec_subnets: [10.77.0.3/32]\n");
    let mesh = Mesh::of(&["10.77.0.1", "10.77.0.2", "10.77.0.3"], 24, 2, &manifest);
    let mut wire = mesh.net.watch(0);
    mesh.passes(0, 2, CLEAR);
    mesh.passes(2, 0, CLEAR);
    mesh.passes(0, 1, SECRET);
    mesh.passes(1, 0, SECRET);
    let seen = wire.seen();
    assert!(both_ways(&in_clear(&seen, CLEAR)));
    assert!(in_clear(&seen, SECRET).is_empty());
    let peers = mesh.daemons[0].json(&["status"])["peers"].clone();
    assert_eq!(peers.as_array().unwrap().len(), 1, "{peers:#}");
}

#[test]
fn optional_falls_back_to_clear_with_a_peer_that_has_none() {
    if !root() {
        return;
    }
    let manifest = format!("{BASE}optional: true\n");
    let mesh = Mesh::of(&["10.77.0.1", "10.77.0.2", "10.77.0.3"], 24, 2, &manifest);
    let mut wire = mesh.net.watch(0);
    mesh.passes(0, 2, CLEAR);
    mesh.passes(2, 0, CLEAR);
    mesh.net.tcp_echo(0, 2, 8080, CLEAR).unwrap();
    mesh.net.tcp_echo(2, 0, 8080, CLEAR).unwrap();
    assert!(both_ways(&in_clear(&wire.seen(), CLEAR)));
    // Where both can, it is encrypted once the tunnel is up.
    mesh.connect(0, 1);
    wire.seen();
    mesh.passes(0, 1, SECRET);
    mesh.passes(1, 0, SECRET);
    assert!(in_clear(&wire.seen(), SECRET).is_empty());
    let status = mesh.daemons[0].json(&["status"]);
    assert_eq!(status["node"]["optional"], true);
    assert!(mesh.daemons[0].warren(&["status"]).ok().contains("optional is on"));
    assert!(mesh.daemons[0].log().contains("optional"), "{}", mesh.daemons[0].log());
}

#[test]
fn without_optional_a_peer_that_has_none_is_not_spoken_to() {
    if !root() {
        return;
    }
    let mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 1, BASE);
    let mut wire = mesh.net.watch(0);
    assert!(!mesh.net.udp_arrives(0, 1, SECRET, Duration::from_millis(700)));
    assert!(in_clear(&wire.seen(), SECRET).is_empty());
    assert!(!mesh.net.udp_arrives(1, 0, SECRET, Duration::from_millis(300)));
    // What was sent before the peer had one is not lost if it comes in time.
    let mut mesh = mesh;
    mesh.daemons[1].start(BASE);
    assert!(mesh.net.udp_arrives(0, 1, SECRET, PATIENCE));
    assert!(mesh.net.udp_arrives(1, 0, SECRET, PATIENCE));
}

#[test]
fn enforcing_ends_what_was_optional_and_the_way_back() {
    if !root() {
        return;
    }
    let optional = format!("{BASE}optional: true\n");
    let mesh = Mesh::of(&["10.77.0.1", "10.77.0.2", "10.77.0.3"], 24, 2, &optional);
    mesh.connect(0, 1);
    mesh.passes(0, 2, CLEAR);
    let spis = mesh.daemons[0].spis(mesh.address(1));
    let adopt = |manifest: &str| {
        for daemon in &mesh.daemons[..2] {
            daemon.folder.put("warren.yml", manifest);
            daemon.warren(&["reload"]).ok();
        }
    };
    adopt(BASE);
    let mut wire = mesh.net.watch(0);
    for (from, to) in [(0, 2), (2, 0)] {
        assert!(!mesh.net.udp_arrives(from, to, SECRET, Duration::from_millis(400)));
    }
    mesh.passes(0, 1, SECRET);
    let seen = wire.seen();
    let leaks = in_clear(&seen, SECRET);
    assert!(leaks.iter().all(|p| p.direction == Direction::Incoming), "leaked after enforcing");
    assert_eq!(mesh.daemons[0].spis(mesh.address(1)), spis, "a tunnel was rebuilt for it");
    adopt(&optional);
    mesh.passes(0, 2, CLEAR);
    mesh.passes(2, 0, CLEAR);
    mesh.passes(0, 1, CLEAR);
    assert_eq!(mesh.daemons[0].spis(mesh.address(1)), spis);
}

#[test]
fn a_protocol_passes_in_the_clear() {
    if !root() {
        return;
    }
    let ping = |mesh: &Mesh, from: usize, to: usize| {
        let mut ping = std::process::Command::new("ping");
        ping.args(["-c", "3", "-i", "0.2", "-W", "5", &mesh.address(to).to_string()]);
        mesh.net.hosts[from].confine(&mut ping, &[]).unwrap();
        ping.output().map(|output| assert!(output.status.success(), "{output:?}"))
    };
    for (policies, in_clear) in [("policies: [{action: pass, proto: icmp}]\n", true), ("", false)] {
        let mesh = Mesh::start(2, &format!("{BASE}{policies}"));
        let mut wire = mesh.net.watch(0);
        if ping(&mesh, 0, 1).is_err() {
            assert!(std::env::var_os("CI").is_none(), "ping is not installed");
            eprintln!("SKIPPED: no ping");
            return;
        }
        ping(&mesh, 1, 0).unwrap();
        let seen = wire.seen();
        let of = |number| Vec::from_iter(seen.iter().filter(|p| protocol(p) == number));
        assert_eq!((both_ways(&of(1)), both_ways(&of(50))), (in_clear, !in_clear));
    }
}
