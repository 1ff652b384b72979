//! A day in the life of real daemons: what an operator types, what travels on the wire, what stays behind.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

#[path = "../world/mod.rs"]
mod world;

mod captures;
mod disagreements;
mod doctor;
mod exceptions;
mod families;
mod forwarded;
mod handovers;
mod imports;
mod moves;
mod mtu;
mod recordings;
mod reloads;
mod restarts;
mod rotation;
mod stops;
mod successors;
mod telling;
mod trace;
mod tunnels;
mod usage;

use std::net::IpAddr;

use world::daemon::Daemon;
use world::net::Net;

/// What all manifests here begin with.
const BASE: &str =
    "ipsec_subnets: [10.77.0.0/24, 'fd77::/64']\npsk: correct horse battery staple\n";
const NAMES: &str =
    "peers:\n- {address: 10.77.0.1, name: one}\n- {address: 10.77.0.2, name: two}\n";

/// Hosts, each with a daemon.
struct Mesh {
    net: Net,
    daemons: Vec<Daemon>,
}

impl Mesh {
    /// Hosts with these addresses; the first `running` have daemons with this manifest.
    fn of(addresses: &[&str], prefix: u8, running: usize, manifest: &str) -> Self {
        let net = Net::new(addresses, prefix);
        let mut daemons: Vec<Daemon> =
            net.hosts.iter().zip(&net.addresses).map(|(h, a)| Daemon::new(h, *a)).collect();
        std::thread::scope(|scope| {
            for daemon in daemons.iter_mut().take(running) {
                scope.spawn(move || daemon.start(manifest));
            }
        });
        Self { net, daemons }
    }

    /// `hosts` hosts of 10.77.0.0/24, all with the same manifest.
    fn start(hosts: usize, manifest: &str) -> Self {
        let all = ["10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4"];
        Self::of(&all[..hosts], 24, hosts, manifest)
    }

    /// A pair of them with a tunnel between the two.
    fn pair(manifest: &str) -> Self {
        let mesh = Self::start(2, manifest);
        mesh.connect(0, 1);
        mesh
    }

    fn address(&self, host: usize) -> IpAddr {
        self.net.addresses[host]
    }

    /// Waits until packets pass from one to the other and both call the tunnel up, with one pair of SAs.
    fn connect(&self, a: usize, b: usize) {
        self.passes(a, b, "a first packet");
        for (here, there) in [(a, b), (b, a)] {
            self.daemons[here].until(self.address(there), "one tunnel", settled);
        }
    }

    fn passes(&self, from: usize, to: usize, text: &str) {
        assert!(self.net.udp_arrives(from, to, text, world::PATIENCE), "{from} -> {to}: {text}");
    }
}

/// Up, with no more SAs than one of each.
fn settled(row: &serde_json::Value) -> bool {
    let count = |key: &str| row[key].as_array().map_or(0, Vec::len);
    row["state"] == "up" && count("ike_sas") == 1 && count("child_sas") == 1
}
