//! The lab's hosts: network namespaces with a switch between them, by netlink alone.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::netns::Netns;
use linux::route::{NewLink, Rtnl};
use serde::{Deserialize, Serialize};

/// The hosts' interface towards it.
pub const INTERFACE: &str = "eth0";
const BRIDGE: &str = "switch";

/// One host of the lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Name of the lab, and namespace of its switch.
    pub lab: String,
    /// `h1`, `h2`, …: also the name of its port on the switch.
    pub name: String,
    /// Its address in the mesh.
    pub address: IpAddr,
    /// Length of the prefix of its link.
    pub prefix: u8,
}

impl Host {
    /// Its namespace.
    pub fn namespace(&self) -> String {
        format!("{}-{}", self.lab, self.name)
    }
}

/// Makes the switch and the hosts. After a failure nothing stays.
pub fn build(hosts: &[Host]) -> Result<(), String> {
    let built = try_build(hosts);
    if built.is_err() {
        remove(hosts);
    }
    built
}

/// Takes everything away; what is absent does not matter.
pub fn remove(hosts: &[Host]) {
    let switch = hosts.first().map(|host| host.lab.clone());
    for name in hosts.iter().map(Host::namespace).chain(switch) {
        if let Err(error) = Netns::delete(&name) {
            tracing::warn!("{error}");
        }
    }
}

fn try_build(hosts: &[Host]) -> Result<(), String> {
    let lab = hosts.first().ok_or("a lab without hosts")?;
    let switch = Netns::create(&lab.lab).map_err(text)?;
    // Without IPv6 on the switch itself there is no chatter of its own on the wire that is watched.
    let _ = switch.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    switch
        .run(|| {
            let mut rtnl = Rtnl::open()?;
            rtnl.create_link(BRIDGE, NewLink::Bridge)?;
            rtnl.set_up(BRIDGE, true)
        })
        .map_err(text)?;
    hosts.iter().try_for_each(|host| plug_in(&switch, host))
}

fn plug_in(switch: &Netns, host: &Host) -> Result<(), String> {
    let netns = Netns::create(&host.namespace()).map_err(text)?;
    // Duplicate address detection would keep an IPv6 address unusable for a second.
    for key in ["net/ipv6/conf/all/accept_dad", "net/ipv6/conf/default/accept_dad"] {
        let _ = netns.sysctl(key, "0");
    }
    switch
        .run(|| {
            let mut rtnl = Rtnl::open()?;
            rtnl.create_link(&host.name, NewLink::Veth { peer: "uplink" })?;
            rtnl.move_link("uplink", &netns, INTERFACE)?;
            rtnl.set_master(&host.name, Some(BRIDGE))?;
            rtnl.set_up(&host.name, true)
        })
        .map_err(text)?;
    netns
        .run(|| {
            let mut rtnl = Rtnl::open()?;
            let net = IpNet::new(host.address, host.prefix).unwrap_or_else(|_| host.address.into());
            rtnl.add_address(INTERFACE, net, true)?;
            rtnl.set_up(INTERFACE, true)
        })
        .map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
