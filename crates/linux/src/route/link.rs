//! Interfaces.

use std::os::fd::{AsFd, AsRawFd};

use super::{Error, Rtnl, check_name};
use crate::errno::Errno;
use crate::netlink::{Attributes, Body, CREATE, text, u32_at};

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet, in bytes, that it carries.
    pub mtu: u32,
    /// `IFF_*` flags.
    pub flags: u32,
    /// Index of the bridge (or other master) that it belongs to.
    pub master: Option<u32>,
    /// Its hardware address, if that has six bytes, as Ethernet's have.
    pub address: Option<[u8; 6]>,
    /// What it is: `veth`, `bridge`, `tun`; `None` for hardware and loopback.
    pub kind: Option<String>,
}

impl Link {
    /// It is switched on.
    pub fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    /// It is the loopback interface.
    pub fn is_loopback(&self) -> bool {
        self.flags & 8 != 0
    }
}

/// An interface to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewLink<'a> {
    /// Two interfaces with a wire between them.
    Veth {
        /// Name of the other end.
        peer: &'a str,
    },
    /// A switch.
    Bridge,
    /// An interface without anything behind it.
    Dummy,
}

impl Rtnl {
    /// All interfaces, in the kernel's order.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let messages = self.dump("list interfaces", GETLINK, &[0; HEADER])?;
        Ok(messages.iter().filter_map(|m| decode(&m.body)).collect())
    }

    /// One interface by its name.
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        check_name(name)?;
        let body = Body::new(&[0; HEADER]).str(IFLA_IFNAME, name);
        match self.socket.get(GETLINK, body.bytes()) {
            Ok(message) => decode(&message.body).ok_or_else(|| Error::NoLink(name.to_owned())),
            Err(error) if error.errno() == Some(Errno::ENODEV) => {
                Err(Error::NoLink(name.to_owned()))
            }
            Err(source) => Err(Error::Netlink { what: format!("interface {name}"), source }),
        }
    }

    /// Makes an interface; it is down.
    pub fn create_link(&mut self, name: &str, new: NewLink<'_>) -> Result<(), Error> {
        check_name(name)?;
        let info = match new {
            NewLink::Veth { peer } => {
                check_name(peer)?;
                let peer = Body::new(&[0; HEADER]).str(IFLA_IFNAME, peer);
                Body::default()
                    .str(INFO_KIND, "veth")
                    .nest(INFO_DATA, Body::default().nest(VETH_INFO_PEER, peer))
            }
            NewLink::Bridge => Body::default().str(INFO_KIND, "bridge"),
            NewLink::Dummy => Body::default().str(INFO_KIND, "dummy"),
        };
        let body = Body::new(&[0; HEADER]).str(IFLA_IFNAME, name).nest(IFLA_LINKINFO, info);
        self.change(|| format!("create interface {name}"), NEWLINK, CREATE, body.bytes())
    }

    /// Takes an interface away; absent is success. A veth takes its other end along.
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let index = match self.link(name) {
            Ok(link) => link.index,
            Err(Error::NoLink(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.remove(|| format!("delete interface {name}"), DELLINK, &header(index, 0, 0))
    }

    /// Switches an interface on or off.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), Error> {
        let index = self.link(name)?.index;
        let flags = if up { IFF_UP } else { 0 };
        self.change(
            || format!("switch interface {name}"),
            NEWLINK,
            0,
            &header(index, flags, IFF_UP),
        )
    }

    /// Puts an interface into a bridge, or takes it out of one.
    pub fn set_master(&mut self, name: &str, master: Option<&str>) -> Result<(), Error> {
        let master = match master {
            Some(master) => self.link(master)?.index,
            None => 0,
        };
        self.set(name, |body| body.u32(IFLA_MASTER, master))
    }

    /// Sets the largest packet size, in bytes.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), Error> {
        self.set(name, |body| body.u32(IFLA_MTU, mtu))
    }

    /// Sets how many packets wait for the interface at most.
    pub fn set_queue_length(&mut self, name: &str, packets: u32) -> Result<(), Error> {
        self.set(name, |body| body.u32(IFLA_TXQLEN, packets))
    }

    /// Sets how many bytes the stack leaves to the interface to be cut into packets, at most.
    pub fn set_largest(&mut self, name: &str, bytes: u32) -> Result<(), Error> {
        self.set(name, |body| body.u32(IFLA_GSO_MAX_SIZE, bytes))
    }

    /// Renames an interface, which must be down.
    pub fn rename(&mut self, name: &str, to: &str) -> Result<(), Error> {
        check_name(to)?;
        self.set(name, |body| body.str(IFLA_IFNAME, to))
    }

    /// Moves an interface to another network namespace, where it gets the name `to`. It arrives down and without addresses.
    pub fn move_link(&mut self, name: &str, netns: impl AsFd, to: &str) -> Result<(), Error> {
        check_name(to)?;
        let fd = netns.as_fd().as_raw_fd().cast_unsigned();
        self.set(name, |body| body.u32(IFLA_NET_NS_FD, fd).str(IFLA_IFNAME, to))
    }

    fn set(&mut self, name: &str, with: impl Fn(Body) -> Body) -> Result<(), Error> {
        let index = self.link(name)?.index;
        let body = with(Body::new(&header(index, 0, 0)));
        self.change(|| format!("change interface {name}"), NEWLINK, 0, body.bytes())
    }
}

// Numbers and layouts: linux/if_link.h, linux/rtnetlink.h, linux/veth.h.
const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;
const HEADER: usize = 16;

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn decode(body: &[u8]) -> Option<Link> {
    let attributes = body.get(HEADER..)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        name: String::new(),
        mtu: 0,
        flags: u32_at(body, 8)?,
        master: None,
        address: None,
        kind: None,
    };
    for (kind, value) in Attributes::new(attributes) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.address = value.try_into().ok(),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => {
                link.kind =
                    Attributes::new(value).find(|(k, _)| *k == INFO_KIND).map(|(_, v)| text(v))
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}
