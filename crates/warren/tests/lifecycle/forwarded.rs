//! Packets that a host forwards, as for its containers: to protected networks they do not get through, and are told of.

use std::net::UdpSocket;
use std::time::Duration;

use linux::netns::Guard;
use linux::route::{MAIN_TABLE, NewLink, Route, Rtnl};
use serde_json::Value;

use crate::world::net::{in_clear, namespace};
use crate::world::{eventually, root};
use crate::{BASE, Mesh};

const INSIDE: &str = "172.31.9.2";

/// A namespace behind the first host, which forwards for it.
fn container(mesh: &Mesh) -> Guard {
    let inside = namespace();
    mesh.net.hosts[0].run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        rtnl.create_link("cont", NewLink::Veth { peer: "inside" }).unwrap();
        rtnl.move_link("inside", &*inside, "eth0").unwrap();
        rtnl.add_address("cont", "172.31.9.1/24".parse().unwrap(), true).unwrap();
        rtnl.set_up("cont", true).unwrap();
    });
    inside.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        rtnl.add_address("eth0", format!("{INSIDE}/24").parse().unwrap(), true).unwrap();
        rtnl.set_up("eth0", true).unwrap();
        let out = Route::unicast("0.0.0.0/0".parse().unwrap(), MAIN_TABLE, "eth0");
        rtnl.add_route(&Route { gateway: Some("172.31.9.1".parse().unwrap()), ..out }).unwrap();
    });
    mesh.net.hosts[0].sysctl("net/ipv4/ip_forward", "1").unwrap();
    inside
}

#[test]
fn forwarded_packets_are_dropped_and_explain_says_so() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::pair(BASE);
    let to = (mesh.address(1), 7070);
    let inside = container(&mesh);
    let socket = inside.run(|| UdpSocket::bind((INSIDE, 0)).unwrap());
    let send = |text: &str| drop(socket.send_to(text.as_bytes(), to));
    let mut wire = mesh.net.watch(0);
    for _ in 0..20 {
        send("from a container");
        std::thread::sleep(Duration::from_millis(10));
    }
    mesh.passes(0, 1, "from the host itself");
    assert!(in_clear(&wire.seen(), "from a container").is_empty(), "leaked");
    let explained = |dst: &str| -> Value { mesh.daemons[0].json(&["explain", INSIDE, dst]) };
    let answer = explained("10.77.0.2");
    assert_eq!(answer["decision"], "drop", "{answer}");
    assert!(
        answer["because"].as_str().is_some_and(|text| text.contains("this host's own address"))
    );
    assert_eq!(explained("192.0.2.1")["decision"], "pass");
    // It is Warren that drops them: without it they leave.
    mesh.daemons[0].warren(&["stop", "--flush"]).ok();
    mesh.daemons[0].ended();
    eventually("a forwarded packet on the wire", || {
        send("from a container");
        (!in_clear(&wire.seen(), "from a container").is_empty()).then_some(())
    });
}
