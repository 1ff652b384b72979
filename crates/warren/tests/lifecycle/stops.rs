//! `stop` leaves a closed door, `stop --flush` an empty house.

use std::time::Duration;

use crate::world::net::in_clear;
use crate::world::root;
use crate::{BASE, Mesh};

const MARK: &str = "for nobody else to read";

/// Both ways, no packet passes and none is in the clear on the wire.
fn nothing_passes(mesh: &Mesh) {
    let mut wire = mesh.net.watch(0);
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(!mesh.net.udp_arrives(from, to, MARK, Duration::from_millis(400)), "{from}->{to}");
    }
    let leaks = wire.seen();
    let leaks = in_clear(&leaks, MARK);
    assert!(leaks.is_empty(), "leaked: {leaks:?}");
}

#[test]
fn stop_leaves_the_policies() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::pair(BASE);
    let said = mesh.daemons[0].warren(&["stop"]).ok();
    assert!(said.contains("stopped"), "{said}");
    assert!(mesh.daemons[0].ended().success());
    assert!(!mesh.daemons[0].control().exists());
    nothing_passes(&mesh);
    mesh.daemons[1].warren(&["stop"]).ok();
    assert!(mesh.daemons[1].ended().success());
    nothing_passes(&mesh);
    // A stranger without Warren is not let in either.
    let stranger = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 1, BASE);
    let mut wire = stranger.net.watch(1);
    assert!(!stranger.net.udp_arrives(1, 0, MARK, Duration::from_millis(400)));
    assert!(!in_clear(&wire.seen(), MARK).is_empty(), "the stranger has not sent anything");
    for daemon in &mut mesh.daemons {
        daemon.start(BASE);
    }
    mesh.connect(0, 1);
    mesh.passes(1, 0, MARK);
}

#[test]
fn flush_takes_everything_away() {
    if !root() {
        return;
    }
    let mut mesh =
        Mesh::pair(&format!("{BASE}policies: [{{action: pass, proto: tcp, local_port: 22}}]\n"));
    assert!(!mesh.net.traces(0).is_empty());
    let said = mesh.daemons[0].warren(&["stop", "--flush"]).ok();
    assert!(said.contains("gone"), "{said}");
    assert!(mesh.daemons[0].ended().success());
    assert_eq!(mesh.net.traces(0), Vec::<String>::new());
    // The peer was told.
    mesh.daemons[1].until(mesh.address(0), "the end", |row| row["state"] != "up");
    let reply = mesh.daemons[1].json(&["stop", "--flush"]);
    assert_eq!((&reply["stopped"], &reply["flushed"]), (&true.into(), &true.into()));
    assert!(mesh.daemons[1].ended().success());
    assert_eq!(mesh.net.traces(1), Vec::<String>::new());
    mesh.passes(0, 1, "in the clear from here on");
    mesh.passes(1, 0, "in the clear from here on");
}

#[test]
fn flush_after_a_stop_and_a_start() {
    if !root() {
        return;
    }
    let mut mesh =
        Mesh::pair(&format!("{BASE}policies: [{{action: pass, proto: tcp, local_port: 22}}]\n"));
    mesh.daemons[0].warren(&["stop"]).ok();
    mesh.daemons[0].ended();
    // What the former process left goes too, though the manifest is another one now.
    mesh.daemons[0].start("ipsec_subnets: [10.77.0.0/25]\npsk: correct horse battery staple\n");
    mesh.daemons[0].warren(&["stop", "--flush"]).ok();
    assert!(mesh.daemons[0].ended().success());
    assert_eq!(mesh.net.traces(0), Vec::<String>::new());
}
