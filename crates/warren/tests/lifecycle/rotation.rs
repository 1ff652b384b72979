//! A CA is rotated by `warren pki rotate`, which asks the daemon of the host on which it is typed.

use std::fs;
use std::path::Path;

use crate::world::daemon::Daemon;
use crate::world::net::Net;
use crate::world::{Ended, Folder, eventually, finish, root, warren};

const MANIFEST: &str = "ipsec_subnets: [10.77.0.0/24]\n\
    instance_certificate: file:warren-instance.pem\n\
    instance_private_key: file:warren-instance.key\n\
    ca_certificates: [file:ca.pem]\n";

fn bring(folder: &Path, host: &Daemon) {
    for name in ["ca.pem", "warren-instance.pem", "warren-instance.key"] {
        fs::copy(folder.join(name), host.folder.join(name)).unwrap();
    }
}

#[test]
fn no_step_of_a_rotation_before_every_peer_is_seen_to_follow() {
    if !root() {
        return;
    }
    let net = Net::new(&["10.77.0.1", "10.77.0.2", "10.77.0.3"], 24);
    let mut hosts: Vec<_> =
        net.hosts.iter().zip(&net.addresses).map(|(host, a)| Daemon::new(host, *a)).collect();
    let folder = Folder::new();
    let dir = folder.to_str().unwrap();
    for step in ["init", "issue"] {
        finish(warren().args(["pki", step, "--key", "p256", "--dir", dir])).ok();
    }
    for host in &mut hosts {
        bring(&folder, host);
        host.start(MANIFEST);
    }
    let others = [hosts[1].address, hosts[2].address];
    for other in others {
        hosts[0].warren(&["up", &other.to_string()]).ok();
        hosts[0].until_up(other);
    }
    let level = |date: &str| {
        let status = hosts[0].json(&["status", "--as-of", date]);
        let own = status["node"]["certificates"][0]["level"].clone();
        [own, status["peers"][0]["certificate"]["level"].clone()]
    };
    assert_eq!(level("+1d"), ["ok", "ok"]);
    assert_eq!(level("+400d"), ["expired", "expired"]);
    let rotate = |args: &[&str]| -> Ended {
        hosts[0].warren(&[&["pki", "rotate", "--dir", dir], args].concat())
    };
    let follow = |refused: &str| {
        for host in &hosts {
            rotate(&[refused]).fails(1, &["not yet", &host.address.to_string()]);
            bring(&folder, host);
            host.warren(&["reload", "--reauth"]).ok();
        }
        eventually("every host to follow", || (rotate(&[]).code == Some(0)).then_some(()));
    };
    rotate(&[]).ok();
    rotate(&["append-ca", "--key", "p256"]).ok();
    follow("new-leaf");
    rotate(&["new-leaf", "--hosts", "3"]).ok();
    follow("drop-ca");
    rotate(&["drop-ca", "--hosts", "3"]).ok();
    follow("append-ca");
    for other in others {
        let row = hosts[0].until_up(other);
        let shown = &row["certificate"];
        assert_eq!(shown["ca"]["subject"], "CN=warren next CA", "{row:#}");
        assert_eq!(shown["trusts"].as_array().map(Vec::len), Some(1), "{row:#}");
    }
}
