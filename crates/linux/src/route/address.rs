//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Error, Rtnl, address, family, octets};
use crate::netlink::{Attributes, Body, CREATE, u32_at};
use crate::raw::Ip;

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address with its prefix length; host bits are kept.
    pub net: IpNet,
    /// Index of the interface.
    pub interface: u32,
    /// `IFA_F_*` flags.
    pub flags: u32,
}

impl Address {
    /// Duplicate address detection has not ended, or found a duplicate: the address cannot be used (yet).
    pub fn is_tentative(&self) -> bool {
        self.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) != 0
    }
}

impl Rtnl {
    /// All addresses of all interfaces, IPv4 and IPv6.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let messages = self.dump("list addresses", GETADDR, &[0; HEADER])?;
        Ok(messages.iter().filter_map(|m| decode(&m.body)).collect())
    }

    /// Adds an address. With `nodad` an IPv6 address can be used at once, without duplicate address detection.
    pub fn add_address(&mut self, interface: &str, net: IpNet, nodad: bool) -> Result<(), Error> {
        let body = self.body(interface, net, if nodad { IFA_F_NODAD } else { 0 })?;
        self.change(|| format!("add address {net} to {interface}"), NEWADDR, CREATE, body.bytes())
    }

    /// Adds an address that another interface has too: without route and without duplicate address detection.
    pub fn add_alias(&mut self, interface: &str, address: IpAddr) -> Result<(), Error> {
        let net = IpNet::from(address);
        let body = self.body(interface, net, IFA_F_NODAD | IFA_F_NOPREFIXROUTE)?;
        self.change(|| format!("add address {net} to {interface}"), NEWADDR, CREATE, body.bytes())
    }

    /// Takes an address away; absent is success.
    pub fn delete_address(&mut self, interface: &str, net: IpNet) -> Result<(), Error> {
        let body = self.body(interface, net, 0)?;
        self.remove(|| format!("delete address {net} from {interface}"), DELADDR, body.bytes())
    }

    fn body(&mut self, interface: &str, net: IpNet, flags: u32) -> Result<Body, Error> {
        let index = self.link(interface)?.index;
        let mut header = [0; HEADER];
        header[0] = family(Ip::of(net.addr()));
        header[1] = net.prefix_len();
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut body = Body::new(&header)
            .attr(IFA_LOCAL, &octets(net.addr()))
            .attr(IFA_ADDRESS, &octets(net.addr()));
        if let (IpNet::V4(v4), true) = (net, net.prefix_len() < 31) {
            body = body.attr(IFA_BROADCAST, &octets(IpAddr::V4(v4.broadcast())));
        }
        Ok(if flags == 0 { body } else { body.u32(IFA_FLAGS, flags) })
    }
}

// Numbers and layouts: linux/if_addr.h.
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const IFA_F_DADFAILED: u32 = 8;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const HEADER: usize = 8;

fn decode(body: &[u8]) -> Option<Address> {
    let attributes = body.get(HEADER..)?;
    let (mut local, mut remote, mut flags) = (None, None, u32::from(body[2]));
    for (kind, value) in Attributes::new(attributes) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => remote = address(value),
            IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 has IFA_ADDRESS alone.
    let net = IpNet::new(local.or(remote)?, body[1]).ok()?;
    Some(Address { net, interface: u32_at(body, 4)?, flags })
}
