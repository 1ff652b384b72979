//! Two hosts whose manifests do not agree: no tunnel, no leak, and both say why.

use std::time::Duration;

use crate::world::net::in_clear;
use crate::world::{pki, root};
use crate::{BASE, Mesh};

const TEXT: &str = "not for you";

/// Each host with its own manifest; what the two say of each other in the end.
fn quarrel(manifests: [&str; 2], words: [&str; 2]) {
    let mut mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 0, "");
    for (daemon, manifest) in mesh.daemons.iter_mut().zip(manifests) {
        daemon.start(manifest);
    }
    let mut wire = mesh.net.watch(0);
    assert!(!mesh.net.udp_arrives(0, 1, TEXT, Duration::from_millis(300)));
    for (here, there) in [(0, 1), (1, 0)] {
        let broken = |row: &serde_json::Value| row["verdict"] == "ipsec_broken";
        let row = mesh.daemons[here].until(mesh.address(there), "a verdict", broken);
        assert_ne!(row["state"], "up");
        let text = format!("{} {}", row["reason"], row["last_error"]);
        assert!(text.contains(words[here]), "no `{}` in {row:#}", words[here]);
        assert!(!text.contains("{ "), "not for people: {text}");
        let log = mesh.daemons[here].log();
        assert!(log.contains(words[here]), "{log}");
    }
    assert!(!mesh.net.udp_arrives(1, 0, TEXT, Duration::from_millis(300)));
    assert!(in_clear(&wire.seen(), TEXT).is_empty(), "leaked");
    // Attempts are spaced out.
    let attempts = mesh.daemons[0].peer(mesh.address(1))["failures"].as_u64().unwrap();
    assert!(attempts < 20, "{attempts} attempts");
}

#[test]
fn another_secret() {
    if !root() {
        return;
    }
    let other = BASE.replace("correct horse", "mistaken horse");
    quarrel([BASE, &other], ["authentication", "authentication"]);
}

#[test]
fn a_secret_here_and_certificates_there() {
    if !root() {
        return;
    }
    let other = format!("ipsec_subnets: [10.77.0.0/24]\n{}", pki::good());
    quarrel([BASE, &other], ["authentication", "authentication"]);
}

#[test]
fn a_leaf_of_a_ca_that_the_peer_does_not_trust() {
    if !root() {
        return;
    }
    // Two CAs of one name.
    let manifests = [pki::good(), pki::good()];
    let [one, two] = manifests.map(|text| format!("ipsec_subnets: [10.77.0.0/24]\n{text}"));
    quarrel([&one, &two], ["authentication", "authentication"]);
}

#[test]
fn another_cluster() {
    if !root() {
        return;
    }
    let [east, west] = ["east", "west"].map(|name| format!("{BASE}cluster: {name}\n"));
    quarrel([&east, &west], ["cluster", "cluster"]);
}

#[test]
fn another_group_is_agreed_upon() {
    if !root() {
        return;
    }
    // Both lists have one suite in common, which is not the first of either.
    let manifests = [
        "aes256-sha384-ecp384, aes128-sha256-ecp256",
        "aes256-sha512-modp4096, aes128-sha256-ecp256",
    ];
    let [one, two] = manifests.map(|list| format!("{BASE}ike_proposals: '{list}'\n"));
    let mut mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 0, "");
    mesh.daemons[0].start(&one);
    mesh.daemons[1].start(&two);
    mesh.connect(0, 1);
    let row = mesh.daemons[0].peer(mesh.address(1));
    assert_eq!(row["ike_sas"][0]["suite"], "aes128-sha256-ecp256");
}

#[test]
fn transport_mode_here_and_tunnel_mode_there() {
    if !root() {
        return;
    }
    let tunnel = format!("{BASE}mode: tunnel\n");
    for manifests in [[BASE, &tunnel], [&tunnel, BASE]] {
        let mut mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 0, "");
        for (daemon, manifest) in mesh.daemons.iter_mut().zip(manifests) {
            daemon.start(manifest);
        }
        assert!(!mesh.net.udp_arrives(0, 1, TEXT, Duration::from_millis(300)));
        // Who answers may answer in its own mode (RFC 7296 1.3.1): who asked says what is wrong with it.
        let row = mesh.daemons[0].until(mesh.address(1), "a verdict", |row| {
            row["verdict"] == "ipsec_broken" && row["state"] != "up"
        });
        let text = row["reason"].as_str().unwrap();
        assert!(["tunnel", "transport"].iter().all(|mode| text.contains(mode)), "{row:#}");
    }
}

#[test]
fn one_has_the_peer_in_the_clear() {
    if !root() {
        return;
    }
    let clear = format!("{BASE}no_ipsec_subnets: [10.77.0.1/32]\n");
    let mut mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 0, "");
    mesh.daemons[0].start(BASE);
    mesh.daemons[1].start(&clear);
    assert!(!mesh.net.udp_arrives(0, 1, TEXT, Duration::from_millis(700)));
    assert!(!mesh.net.udp_arrives(1, 0, TEXT, Duration::from_millis(300)));
    let row = mesh.daemons[0].peer(mesh.address(1));
    assert_ne!(row["state"], "up", "{row:#}");
}
