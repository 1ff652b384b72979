//! Every kind of pair: certificates and secrets, modes, IP versions, encapsulations.

use linux::capture::Packet;

use crate::Mesh;
use crate::world::net::{in_clear, protocol, udp_ports};
use crate::world::pki::{self, Wish};
use crate::world::{Folder, finish, root, warren};

const TEXT: &str = "for the two of us alone";

/// Traffic both ways over UDP and TCP, none of it in the clear; the packets of the wire.
fn talk(mesh: &Mesh) -> Vec<Packet> {
    let mut wire = mesh.net.watch(0);
    mesh.passes(0, 1, TEXT);
    mesh.passes(1, 0, TEXT);
    let much = TEXT.repeat(20_000);
    mesh.net.tcp_echo(0, 1, 7000, &much).unwrap();
    mesh.net.tcp_echo(1, 0, 7000, &much).unwrap();
    // Larger than any packet on the wire, around the edges too.
    for length in [1300, 1400, 1450, 1466, 1472, 1480, 1500, 2000, 9000, 60_000] {
        mesh.passes(0, 1, &much[..length]);
        mesh.passes(1, 0, &much[..length]);
    }
    mesh.connect(0, 1);
    let seen = wire.seen();
    assert!(in_clear(&seen, TEXT).is_empty(), "leaked");
    seen
}

fn count(packets: &[Packet], wanted: impl Fn(&Packet) -> bool) -> usize {
    packets.iter().filter(|p| wanted(p)).count()
}

fn pair(addresses: [&str; 2], prefix: u8, manifest: &str) -> Mesh {
    Mesh::of(&addresses, prefix, 2, manifest)
}

const V4: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
const V6: [&str; 2] = ["fd77::1", "fd77::2"];
const BASE: &str = crate::BASE;

#[test]
fn psk_in_transport_mode() {
    if !root() {
        return;
    }
    let mesh = pair(V4, 24, BASE);
    let seen = talk(&mesh);
    assert!(count(&seen, |p| protocol(p) == 50) > 20);
    assert_eq!(count(&seen, |p| protocol(p) == 6), 0);
    let row = mesh.daemons[0].peer(mesh.address(1));
    assert_eq!(row["child_sas"][0]["mode"], "transport");
    assert_eq!(row["child_sas"][0]["encap"], false);
}

#[test]
fn psk_over_ipv6() {
    if !root() {
        return;
    }
    let mesh = pair(V6, 64, BASE);
    let seen = talk(&mesh);
    assert!(count(&seen, |p| protocol(p) == 50) > 20);
    assert_eq!(count(&seen, |p| protocol(p) == 6), 0);
}

/// The second family's addresses come when the daemons run: nothing leaks before, nothing is lost of the first.
#[test]
fn ipv4_and_ipv6_at_once() {
    if !root() {
        return;
    }
    let mut mesh = pair(V4, 24, BASE);
    mesh.connect(0, 1);
    let before = mesh.daemons[0].spis(mesh.address(1));
    let mut wire = mesh.net.watch(0);
    for (host, address) in mesh.net.hosts.iter().zip(V6) {
        let net = ipnet::IpNet::new(address.parse().unwrap(), 64).unwrap();
        host.run(|| linux::route::Rtnl::open().unwrap().add_address("eth0", net, true).unwrap());
    }
    let v4 = mesh.net.addresses.clone();
    mesh.net.addresses = V6.iter().map(|address| address.parse().unwrap()).collect();
    mesh.passes(0, 1, TEXT);
    assert!(in_clear(&wire.seen(), TEXT).is_empty(), "leaked");
    talk(&mesh);
    let node = mesh.daemons[0].json(&["status"])["node"].clone();
    assert_eq!(node["addresses"], serde_json::json!([V4[0], V6[0]]));
    mesh.net.addresses = v4;
    assert_eq!(mesh.daemons[0].spis(mesh.address(1)), before);
    talk(&mesh);
    mesh.daemons[0].warren(&["explain", V6[0], V6[1], "tcp", "80"]).ok();
}

#[test]
fn compressed_in_both_modes() {
    if !root() {
        return;
    }
    for (addresses, prefix, mode) in [(V4, 24, "transport"), (V6, 64, "tunnel")] {
        let text = format!("{BASE}mode: {mode}\ncompression: deflate\n");
        let mesh = pair(addresses, prefix, &text);
        let seen = talk(&mesh);
        let row = mesh.daemons[0].peer(mesh.address(1));
        assert_eq!(row["child_sas"][0]["compression"], "deflate");
        // 800,000 bytes of a text repeated went each way, and 300,000 in datagrams.
        let carried: usize = seen.iter().map(|packet| packet.bytes.len()).sum();
        assert!(carried < 800_000, "{carried} bytes on the wire");
        mesh.daemons[0].warren(&["rekey", &mesh.address(1).to_string()]).ok();
        mesh.passes(0, 1, &TEXT.repeat(50));
        let row = mesh.daemons[0].until(mesh.address(1), "one tunnel", crate::settled);
        assert_eq!(row["child_sas"][0]["compression"], "deflate");
    }
}

#[test]
fn tunnel_mode() {
    if !root() {
        return;
    }
    for (addresses, prefix) in [(V4, 24), (V6, 64)] {
        let mesh = pair(addresses, prefix, &format!("{BASE}mode: tunnel\n"));
        let seen = talk(&mesh);
        assert!(count(&seen, |p| protocol(p) == 50) > 20);
        assert_eq!(mesh.daemons[0].peer(mesh.address(1))["child_sas"][0]["mode"], "tunnel");
    }
}

#[test]
fn esp_in_udp() {
    if !root() {
        return;
    }
    let mesh = pair(V4, 24, &format!("{BASE}force_udp_encapsulation: true\n"));
    let seen = talk(&mesh);
    assert_eq!(count(&seen, |p| protocol(p) == 50), 0);
    assert!(count(&seen, |p| udp_ports(p) == Some((4500, 4500))) > 20);
    assert_eq!(mesh.daemons[0].peer(mesh.address(1))["child_sas"][0]["encap"], true);
    let mesh = pair(V6, 64, &format!("{BASE}force_udp_encapsulation: true\nmode: tunnel\n"));
    assert_eq!(count(&talk(&mesh), |p| protocol(p) == 50), 0);
}

#[test]
fn other_suites() {
    if !root() {
        return;
    }
    let suites = "ike_proposals: [aes256gcm16-prfsha384-ecp384]\nesp_proposals: [aes256-sha512-x25519-esn, chacha20poly1305]\n";
    let mesh = pair(V4, 24, &format!("{BASE}{suites}"));
    talk(&mesh);
    let row = mesh.daemons[0].peer(mesh.address(1));
    assert_eq!(row["ike_sas"][0]["suite"], "aes256gcm16-prfsha384-ecp384");
    mesh.daemons[0].warren(&["rekey", &mesh.address(1).to_string()]).ok();
    talk(&mesh);
}

#[test]
fn p256_certificates_of_each_host() {
    if !root() {
        return;
    }
    let ca = pki::ca(Wish::new("the CA", 1));
    let mut mesh = Mesh::of(&V4, 24, 0, "");
    for (daemon, (name, serial)) in mesh.daemons.iter_mut().zip([("host one", 2), ("host two", 3)])
    {
        let leaf = pki::leaf(&ca, Wish::new(name, serial));
        let properties = pki::properties(&leaf.pem, &leaf.key.serialize_pem(), &ca.pem);
        daemon.start(&format!("ipsec_subnets: [10.77.0.0/24]\n{properties}"));
    }
    talk(&mesh);
    let id = mesh.daemons[0].peer(mesh.address(1))["ike_sas"][0]["remote_id"].clone();
    assert!(id.as_str().unwrap().contains("host two"), "{id}");
}

#[test]
fn one_certificate_for_all() {
    if !root() {
        return;
    }
    for kind in ["rsa3072", "p384", "ed25519"] {
        talk(&pair(V4, 24, &common_certificate(kind)));
    }
}

fn common_certificate(kind: &str) -> String {
    let folder = Folder::new();
    for what in ["init", "issue"] {
        finish(warren().args(["pki", what, "--key", kind, "--dir"]).arg(&*folder)).ok();
    }
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let properties = pki::properties(
        &read("warren-instance.pem"),
        &read("warren-instance.key"),
        &read("ca.pem"),
    );
    format!("ipsec_subnets: [10.77.0.0/24]\n{properties}")
}
