//! Neighbours: which hardware address an IP address has on a link.

use std::net::IpAddr;

use super::{Error, Link, Rtnl, family, octets};
use crate::netlink::{Body, REPLACE};
use crate::raw::Ip;

impl Rtnl {
    /// Says for good which hardware address `address` has on `link`: nobody is asked for it there.
    ///
    /// Such entries do not count against what the table may hold, 1,024 by default for all network namespaces of a
    /// machine together (`gc_thresh3`; net/core/neighbour.c, `neigh_alloc`).
    pub fn add_neighbour(
        &mut self,
        link: &Link,
        address: IpAddr,
        hardware: [u8; 6],
    ) -> Result<(), Error> {
        let mut header = [0; HEADER];
        header[0] = family(Ip::of(address));
        header[4..8].copy_from_slice(&link.index.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let body = Body::new(&header).attr(NDA_DST, &octets(address)).attr(NDA_LLADDR, &hardware);
        self.change(|| format!("add neighbour {address}"), NEWNEIGH, REPLACE, body.bytes())
    }
}

// Numbers and layouts: linux/neighbour.h, struct ndmsg.
const NEWNEIGH: u16 = 28;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const HEADER: usize = 12;
