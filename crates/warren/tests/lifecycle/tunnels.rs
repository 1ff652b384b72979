//! One tunnel at a time: `up`, `down`, `restart`, `rekey`.

use std::time::Duration;

use serde_json::Value;

use crate::world::net::in_clear;
use crate::world::root;
use crate::{BASE, Mesh, NAMES, settled};

fn text<'a>(row: &'a Value, list: &str, key: &str) -> &'a str {
    row[list][0][key].as_str().unwrap_or_default()
}

#[test]
fn by_address_name_and_spi() {
    if !root() {
        return;
    }
    let mesh = Mesh::start(2, &format!("{BASE}{NAMES}"));
    let (one, two) = (&mesh.daemons[0], mesh.address(1));
    let gone = |row: &Value| row["state"] == "down" && row["child_sas"] == Value::Array(vec![]);
    one.warren(&["up", "10.77.0.2"]).ok();
    let row = one.until(two, "one tunnel", settled);
    let targets = [
        "10.77.0.2".to_owned(),
        "two".to_owned(),
        text(&row, "child_sas", "spi_in").to_owned(),
        format!("0x{}", text(&row, "child_sas", "spi_out")),
        text(&row, "ike_sas", "spi_i").to_owned(),
        text(&row, "ike_sas", "spi_r").to_owned(),
    ];
    for target in &targets {
        assert_eq!(one.json(&["status", target])["address"], "10.77.0.2", "{target}");
    }
    one.warren(&["down", text(&row, "child_sas", "spi_in")]).ok();
    one.until(two, "down", gone);
    mesh.daemons[1].until(mesh.address(0), "the end", |row| row["state"] != "up");
    assert_eq!(one.warren(&["status", "two"]).code, Some(1));
    one.warren(&["up", "two"]).ok();
    let row = one.until(two, "one tunnel", settled);
    one.warren(&["down", text(&row, "ike_sas", "spi_r")]).ok();
    one.until(two, "down", gone);
    one.warren(&["restart", "two"]).ok();
    let first = one.until(two, "one tunnel", settled);
    one.warren(&["restart", text(&first, "child_sas", "spi_out")]).ok();
    let second = one.until(two, "another tunnel", |row| {
        settled(row) && text(row, "ike_sas", "spi_i") != text(&first, "ike_sas", "spi_i")
    });
    assert_ne!(text(&second, "child_sas", "spi_in"), text(&first, "child_sas", "spi_in"));
    // `up` of what is up changes nothing.
    one.warren(&["up", "two"]).ok();
    assert_eq!(text(&one.peer(two), "child_sas", "spi_in"), text(&second, "child_sas", "spi_in"));
}

#[test]
fn down_keeps_it_down() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(BASE);
    let (one, two) = (&mesh.daemons[0], &mesh.daemons[1]);
    let mut wire = mesh.net.watch(0);
    one.warren(&["down", "10.77.0.2"]).ok();
    two.until(mesh.address(0), "the end", |row| row["state"] != "up");
    for (from, to) in [(0, 1), (1, 0)] {
        let arrived = mesh.net.udp_arrives(from, to, "knock knock", Duration::from_millis(1500));
        assert!(!arrived, "a packet passed a tunnel that is down");
    }
    assert_eq!(one.peer(two.address)["state"], "down");
    assert_ne!(two.peer(one.address)["state"], "up");
    assert_eq!(in_clear(&wire.seen(), "knock knock").len(), 0, "a packet passed in the clear");
    // Not even the other side's operator brings it up.
    two.warren(&["up", "10.77.0.1"]).ok();
    assert!(!mesh.net.udp_arrives(1, 0, "knock knock", Duration::from_millis(700)));
    assert_eq!(one.peer(two.address)["state"], "down");
    one.warren(&["up", "10.77.0.2"]).ok();
    mesh.connect(0, 1);
    mesh.passes(1, 0, "back again");
}

#[test]
fn rekey_loses_nothing() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(BASE);
    let one = &mesh.daemons[0];
    let before = one.peer(mesh.address(1));
    let lost = mesh.net.lost(0, 1, 400, |number| {
        if number == 100 {
            one.warren(&["rekey", "10.77.0.2"]).ok();
        }
    });
    assert_eq!(lost, 0);
    let after = one.until(mesh.address(1), "new SAs alone", |row| {
        settled(row) && text(row, "ike_sas", "spi_i") != text(&before, "ike_sas", "spi_i")
    });
    for key in ["spi_in", "spi_out"] {
        assert_ne!(text(&after, "child_sas", key), text(&before, "child_sas", key));
    }
    let other = mesh.daemons[1].until(mesh.address(0), "new SAs alone", settled);
    assert_eq!(text(&after, "child_sas", "spi_in"), text(&other, "child_sas", "spi_out"));
}

#[test]
fn down_ends_an_attempt_that_hangs() {
    if !root() {
        return;
    }
    // The second host has no daemon.
    let mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 1, BASE);
    let one = &mesh.daemons[0];
    one.warren(&["up", "10.77.0.2"]).ok();
    one.until(mesh.address(1), "an attempt", |row| row["state"] == "connecting");
    one.warren(&["down", "10.77.0.2"]).ok();
    let row = one.peer(mesh.address(1));
    assert_eq!(
        (row["state"].as_str(), row["ike_sas"].as_array().unwrap().len()),
        (Some("down"), 0)
    );
    let mut wire = mesh.net.watch(0);
    assert!(!mesh.net.udp_arrives(0, 1, "knock", Duration::from_millis(1200)));
    let ike = |p: &linux::capture::Packet| {
        crate::world::net::udp_ports(p).is_some_and(|(_, to)| to == 500 || to == 4500)
    };
    assert_eq!(wire.seen().iter().filter(|p| ike(p)).count(), 0, "it goes on trying");
}

#[test]
fn down_survives_a_reload_and_a_restart_but_not_a_flush() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::pair(BASE);
    let two = mesh.address(1);
    mesh.daemons[0].warren(&["down", "10.77.0.2"]).ok();
    mesh.daemons[0].warren(&["reload"]).ok();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        mesh.daemons[0].signal(signal);
        mesh.daemons[0].ended();
        mesh.daemons[0].start(BASE);
        let limit = Duration::from_millis(400);
        for (from, to) in [(0, 1), (1, 0)] {
            assert!(!mesh.net.udp_arrives(from, to, "to nobody", limit), "{from} -> {to}");
        }
        assert_eq!(mesh.daemons[0].peer(two)["state"], "down");
    }
    mesh.daemons[0].warren(&["up", "10.77.0.2"]).ok();
    mesh.connect(0, 1);
    mesh.daemons[0].warren(&["down", "10.77.0.2"]).ok();
    mesh.daemons[0].warren(&["stop", "--flush"]).ok();
    mesh.daemons[0].ended();
    mesh.daemons[0].start(BASE);
    mesh.connect(0, 1);
}
