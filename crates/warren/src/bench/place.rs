//! Two hosts with one wire between them, and a daemon on each.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use ipnet::IpNet;
use linux::netns::Netns;
use linux::route::{NewLink, Rtnl};

use super::load::Path;
use crate::args::DataPlane;
use crate::exit::Failure;
use crate::lab::daemons;
use crate::lab::net::{self, Host, INTERFACE};

/// A path carries packets within this.
pub const UP: Duration = Duration::from_secs(60);
const PREFIX: u8 = 24;

/// The two hosts; they go with this value.
pub struct Place {
    hosts: [Host; 2],
    dir: PathBuf,
}

/// The two daemons; they end with this value.
pub struct Daemons<'a> {
    children: Vec<Child>,
    place: &'a Place,
}

impl Place {
    /// Namespaces and wire.
    pub fn build() -> Result<Self, Failure> {
        let lab = format!("warren-bench-{}", std::process::id());
        let host = |name: &str, last| Host {
            lab: lab.clone(),
            name: name.to_owned(),
            address: IpAddr::from([10, 98, 0, last]),
            prefix: PREFIX,
            more: Vec::new(),
        };
        let dir = std::path::Path::new("/run").join(&lab);
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(Failure::no)?;
        let place = Self { hosts: [host("a", 1), host("b", 2)], dir };
        place.wire().map_err(Failure::No)?;
        Ok(place)
    }

    /// From the first host to the second.
    pub fn path(&self) -> Path {
        let [from, to] = self.hosts.each_ref().map(Host::namespace);
        Path { from, to, target: self.hosts[1].address }
    }

    /// Daemons, and a tunnel between them that is up.
    pub fn start(&self, data_plane: DataPlane, udp: bool) -> Result<Daemons<'_>, Failure> {
        let manifest = self.dir.join("manifest.yml");
        let text = format!(
            "ipsec_subnets: [10.98.0.0/{PREFIX}]\npsk: of no worth, for a benchmark alone\n\
             ike_proposals: [aes128gcm16-prfsha256-x25519]\nesp_proposals: [aes128gcm16]\n\
             force_udp_encapsulation: {udp}\n"
        );
        fs::write(&manifest, text).map_err(Failure::no)?;
        let program = std::env::current_exe().map_err(Failure::no)?;
        let mut started = Daemons { children: Vec::new(), place: self };
        for host in &self.hosts {
            let state = daemons::folder(&self.dir, host);
            let how = daemons::Start {
                program: &program,
                manifest: &manifest,
                credentials: None,
                data_plane,
                address: true,
                state: &state,
                more: &[],
            };
            let child = daemons::start(&self.dir, host, &how).map_err(Failure::No)?;
            started.children.push(child);
        }
        daemons::wait_ready(&self.dir, &self.hosts, UP, &|| false).map_err(Failure::No)?;
        self.path().wait(UP).map_err(Failure::No)?;
        Ok(started)
    }

    fn wire(&self) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let [a, b] = &self.hosts;
        let first = Netns::create(&a.namespace()).map_err(|e| text(&e))?;
        let second = Netns::create(&b.namespace()).map_err(|e| text(&e))?;
        let link = |rtnl: &mut Rtnl| {
            rtnl.create_link(INTERFACE, NewLink::Veth { peer: "other" })?;
            rtnl.move_link("other", &second, INTERFACE)
        };
        first.run(|| link(&mut Rtnl::open()?)).map_err(|e| text(&e))?;
        for (netns, host) in [(&first, a), (&second, b)] {
            let up = netns.run(|| {
                let mut rtnl = Rtnl::open()?;
                let net = IpNet::new(host.address, PREFIX).unwrap_or_else(|_| host.address.into());
                rtnl.add_address(INTERFACE, net, true)?;
                rtnl.set_up(INTERFACE, true)
            });
            up.map_err(|e| text(&e))?;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        net::end_processes(&self.hosts);
        for host in &self.hosts {
            let _ = Netns::delete(&host.namespace());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Daemons<'_> {
    /// Their processes, sender first.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for Daemons<'_> {
    fn drop(&mut self) {
        net::end_processes(&self.place.hosts);
        daemons::end(&mut self.children);
    }
}
