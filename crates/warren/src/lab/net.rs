//! The lab's hosts: network namespaces with a switch between them, by netlink alone.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::netns::Netns;
use linux::route::{NewLink, Rtnl};
use linux::tun::{self, Tun};
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
    /// Its interfaces and addresses beyond that.
    #[serde(default)]
    pub more: Vec<Nic>,
}

/// One more interface of a host, or one more address of an interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Nic {
    /// Name of the interface: it is made if there is none.
    pub interface: String,
    /// Its address.
    pub address: IpAddr,
    /// Length of the prefix of its link.
    pub prefix: u8,
}

impl Host {
    /// Its namespace.
    pub fn namespace(&self) -> String {
        format!("{}-{}", self.lab, self.name)
    }

    /// All its addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        std::iter::once(self.address).chain(self.more.iter().map(|nic| nic.address)).collect()
    }

    /// Its ports on the switch: one for each interface.
    pub fn ports(&self) -> Vec<String> {
        let mut ports = vec![self.name.clone()];
        for nic in self.more.iter().filter(|nic| nic.interface != INTERFACE) {
            let port = self.port(&nic.interface);
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    fn port(&self, interface: &str) -> String {
        if interface == INTERFACE {
            return self.name.clone();
        }
        format!("{}-{interface}", self.name)
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
    hosts.iter().try_for_each(|host| plug_in(&switch, host))?;
    if hosts.len() > STRANGERS { introduce(hosts) } else { Ok(()) }
}

/// So many hosts find each other by themselves. Of more, all pairs are more than the kernel's neighbour table holds, which
/// is one for all namespaces: most would not hear of each other.
const STRANGERS: usize = 24;

/// Tells each host the hardware addresses of the others.
fn introduce(hosts: &[Host]) -> Result<(), String> {
    let mut known = Vec::new();
    for host in hosts {
        let hardware = hardware_address(host)?;
        let more = host.more.iter().filter(|nic| nic.interface == INTERFACE);
        let addresses = std::iter::once(host.address).chain(more.map(|nic| nic.address));
        known.extend(addresses.map(|address| (&host.name, address, hardware)));
    }
    for host in hosts {
        let others = known.iter().filter(|(name, ..)| **name != host.name);
        let told = Netns::open(&host.namespace()).map_err(text)?.run(|| {
            let mut rtnl = Rtnl::open()?;
            let link = rtnl.link(INTERFACE)?;
            others
                .into_iter()
                .try_for_each(|(_, address, hw)| rtnl.add_neighbour(&link, *address, *hw))
        });
        told.map_err(text)?;
    }
    Ok(())
}

fn plug_in(switch: &Netns, host: &Host) -> Result<(), String> {
    let netns = Netns::create(&host.namespace()).map_err(text)?;
    // Duplicate address detection would keep an IPv6 address unusable for a second.
    for key in ["net/ipv6/conf/all/accept_dad", "net/ipv6/conf/default/accept_dad"] {
        let _ = netns.sysctl(key, "0");
    }
    connect(switch, &netns, &host.name, INTERFACE)?;
    address(&netns, INTERFACE, host.address, host.prefix)?;
    for nic in &host.more {
        let port = host.port(&nic.interface);
        if nic.interface != INTERFACE && !has_link(switch, &port) {
            connect(switch, &netns, &port, &nic.interface)?;
        }
        address(&netns, &nic.interface, nic.address, nic.prefix)?;
    }
    Ok(())
}

/// A wire between a port of the switch and an interface of a host.
fn connect(switch: &Netns, netns: &Netns, port: &str, interface: &str) -> Result<(), String> {
    let wired = switch.run(|| {
        let mut rtnl = Rtnl::open()?;
        rtnl.create_link(port, NewLink::Veth { peer: "uplink" })?;
        rtnl.move_link("uplink", netns, interface)?;
        rtnl.set_master(port, Some(BRIDGE))?;
        rtnl.set_up(port, true)
    });
    wired.map_err(text)
}

fn address(netns: &Netns, interface: &str, address: IpAddr, prefix: u8) -> Result<(), String> {
    let added = netns.run(|| {
        let mut rtnl = Rtnl::open()?;
        let net = IpNet::new(address, prefix).unwrap_or_else(|_| address.into());
        rtnl.add_address(interface, net, true)?;
        rtnl.set_up(interface, true)
    });
    added.map_err(text)
}

fn has_link(switch: &Netns, name: &str) -> bool {
    switch.run(|| Rtnl::open().and_then(|mut rtnl| rtnl.link(name))).is_ok()
}

/// Takes a host's ports out of the switch, or puts them back: an outage that the host's own interface does not show.
pub fn connect_ports(host: &Host, connected: bool) -> Result<(), String> {
    let switch = Netns::open(&host.lab).map_err(text)?;
    let master = connected.then_some(BRIDGE);
    let set = switch.run(|| {
        let mut rtnl = Rtnl::open()?;
        host.ports().iter().try_for_each(|port| rtnl.set_master(port, master))
    });
    set.map_err(text)
}

/// Frames that wait for a line at most: a burst is not to be lost where no loss is meant.
const LINE_QUEUE: u32 = 10_000;

/// Takes a host's first port out of the switch, and opens two devices: on one is the host, on the other the switch.
/// They go when they are closed.
pub fn open_line(host: &Host) -> Result<(Tun, Tun), String> {
    let switch = Netns::open(&host.lab).map_err(text)?;
    let [between, near, far] = ["line", "near", "far"].map(|end| format!("{}-{end}", host.name));
    switch.run(|| {
        let mut rtnl = Rtnl::open().map_err(text)?;
        rtnl.create_link(&between, NewLink::Bridge).map_err(text)?;
        rtnl.set_up(&between, true).map_err(text)?;
        let devices = (device(&near, &between)?, device(&far, BRIDGE)?);
        rtnl.set_master(&host.name, Some(&between)).map_err(text)?;
        Ok(devices)
    })
}

/// One more port of the lab's switch, with this program behind it. It goes when it is closed.
pub fn open_port(lab: &str, name: &str) -> Result<Tun, String> {
    Netns::open(lab).map_err(text)?.run(|| device(name, BRIDGE))
}

fn device(name: &str, master: &str) -> Result<Tun, String> {
    let options = tun::Options { ethernet: true, ..Default::default() };
    let device = Tun::open(name, options).map_err(text)?;
    let mut rtnl = Rtnl::open().map_err(text)?;
    rtnl.set_queue_length(name, LINE_QUEUE).map_err(text)?;
    rtnl.set_master(name, Some(master)).map_err(text)?;
    rtnl.set_up(name, true).map_err(text)?;
    Ok(device)
}

/// The hardware address of a host's interface.
pub fn hardware_address(host: &Host) -> Result<[u8; 6], String> {
    let netns = Netns::open(&host.namespace()).map_err(text)?;
    let link = netns.run(|| Rtnl::open()?.link(INTERFACE)).map_err(text)?;
    link.address.ok_or_else(|| format!("{}: {INTERFACE} is no Ethernet", host.name))
}

/// Ends every process in the hosts' namespaces: daemons, and what they left running.
pub fn end_processes(hosts: &[Host]) {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &str| std::fs::metadata(path).ok().map(|meta| meta.ino());
    let own = inode("/proc/self/ns/net");
    let ours: Vec<u64> = hosts
        .iter()
        .filter_map(|host| inode(&format!("{}/{}", linux::netns::DIRECTORY, host.namespace())))
        .filter(|inode| Some(*inode) != own)
        .collect();
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()) {
        if inode(&format!("/proc/{pid}/ns/net")).is_some_and(|inode| ours.contains(&inode))
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
