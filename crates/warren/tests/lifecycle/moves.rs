//! A host's address changes under a tunnel (MOBIKE, RFC 4555): traffic goes on, without a handshake.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use ipnet::IpNet;
use linux::route::Rtnl;
use serde_json::Value;

use crate::Mesh;
use crate::world::net::{in_clear, protocol};
use crate::world::{PATIENCE, root};

const TEXT: &str = "wherever it may be";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// SPIs of the one IKE SA and the one child SA with a peer.
fn spis(row: &Value) -> [Value; 4] {
    let (ike, child) = (&row["ike_sas"][0], &row["child_sas"][0]);
    [&ike["spi_i"], &ike["spi_r"], &child["spi_in"], &child["spi_out"]].map(Value::clone)
}

fn is_at(row: &Value, end: &str, address: &str) -> bool {
    row["ike_sas"][0][end].as_str().is_some_and(|at| at.starts_with(&format!("{address}:")))
}

/// Changes addresses on a host's interface: what goes, what comes.
fn readdress(mesh: &Mesh, host: usize, gone: &[&str], new: &[(&str, &str)]) {
    mesh.net.hosts[host].run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        for old in gone {
            rtnl.delete_address("eth0", IpNet::new(address(old), 24).unwrap()).unwrap();
        }
        for (interface, new) in new {
            let length = if *interface == "lo" { 32 } else { 24 };
            let net = IpNet::new(address(new), length).unwrap();
            rtnl.add_address(interface, net, true).unwrap();
        }
    });
}

/// Both ways through one stream.
fn exchange(a: &TcpStream, b: &TcpStream) {
    for (mut from, mut to) in [(a, b), (b, a)] {
        from.write_all(TEXT.as_bytes()).unwrap();
        let mut got = vec![0; TEXT.len()];
        to.read_exact(&mut got).unwrap();
        assert_eq!(got, TEXT.as_bytes());
    }
}

/// Each end in turn, whoever began the tunnel.
#[test]
fn a_tunnel_goes_on_where_its_host_goes() {
    if !root() {
        return;
    }
    for mover in [0, 1] {
        let other = 1 - mover;
        let (home, peer) = (["10.77.0.1", "10.77.0.2"][mover], mover_peer(other));
        let mesh = Mesh::pair(&format!("{}mode: tunnel\nmobike: true\n", crate::BASE));
        let before = [0, 1].map(|n| spis(&mesh.daemons[n].peer(mesh.address(1 - n))));
        let listener = mesh.net.hosts[other]
            .run(|| TcpListener::bind(SocketAddr::new(mesh.address(other), 7000)).unwrap());
        let target = SocketAddr::new(mesh.address(other), 7000);
        let near = mesh.net.hosts[mover].run(|| TcpStream::connect(target).unwrap());
        let far = listener.accept().unwrap().0;
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        exchange(&near, &far);

        // The address by which the fleet knows the host stays with the host, and leaves the wire.
        for (gone, place) in [(home, "10.77.0.91"), ("10.77.0.91", "10.77.0.92")] {
            let mut new = vec![("eth0", place)];
            let mut wire = mesh.net.watch(mover);
            readdress(&mesh, mover, &[gone], &new);
            mesh.daemons[mover].until(peer, "its own new place", |row| is_at(row, "local", place));
            mesh.daemons[other]
                .until(address(home), "the other's new place", |row| is_at(row, "remote", place));
            if gone == home {
                new = vec![("lo", home)];
                readdress(&mesh, mover, &[], &new);
            }
            exchange(&near, &far);
            mesh.passes(0, 1, TEXT);
            mesh.passes(1, 0, TEXT);
            let seen = wire.seen();
            assert!(in_clear(&seen, TEXT).is_empty(), "leaked");
            let place = match address(place) {
                IpAddr::V4(v4) => v4.octets(),
                IpAddr::V6(_) => unreachable!(),
            };
            let from_there = |p: &&linux::capture::Packet| {
                protocol(p) == 50 && p.bytes.get(12..16) == Some(&place[..])
            };
            assert!(seen.iter().any(|p| from_there(&p)), "ESP from the new place");
        }
        let after = [0, 1].map(|n| spis(&mesh.daemons[n].peer(mesh.address(1 - n))));
        assert_eq!(before, after, "nothing was negotiated");
    }
}

fn mover_peer(other: usize) -> IpAddr {
    address(["10.77.0.1", "10.77.0.2"][other])
}

/// Where the manifest does not want it, nothing moves.
#[test]
fn mobike_is_off_unless_it_is_switched_on() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(&format!("{}mode: tunnel\n", crate::BASE));
    readdress(&mesh, 0, &["10.77.0.1"], &[("eth0", "10.77.0.91"), ("lo", "10.77.0.1")]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let row = mesh.daemons[0].peer(mesh.address(1));
    assert!(is_at(&row, "local", "10.77.0.1"), "{row:#}");
}
