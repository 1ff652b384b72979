//! Routes, and what the kernel would do with a packet.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Error, Rtnl, address, family, octets};
use crate::errno::Errno;
use crate::netlink::{Attributes, Body, CREATE, REPLACE, u32_at};
use crate::raw::Ip;

/// The table that routes without a table of their own are in.
pub const MAIN_TABLE: u32 = 254;

/// The table of the host's own addresses, which the kernel keeps.
pub const LOCAL_TABLE: u32 = 255;

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Sends by an interface.
    Unicast,
    /// To this host itself; the kernel makes these.
    Local,
    /// Drops silently.
    Blackhole,
    /// Drops with an error to the sender.
    Unreachable,
    /// Drops as forbidden.
    Prohibit,
    /// Ends the search in this table; the next rule decides.
    Throw,
    /// Another one, by its number.
    Other(u8),
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub dst: IpNet,
    /// Its table.
    pub table: u32,
    /// What it does.
    pub kind: Kind,
    /// Name of the interface, for unicast routes. Empty in a listing if the interface is gone.
    pub interface: Option<String>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Source address for packets whose sender has not chosen one.
    pub src: Option<IpAddr>,
    /// Among routes for the same destinations the lowest is taken.
    pub metric: Option<u32>,
    /// Largest packet, in bytes.
    pub mtu: Option<u32>,
    /// Who made it (`RTPROT_*`): 4 is "static", an administrator.
    pub protocol: u8,
}

impl Route {
    /// A route by an interface.
    pub fn unicast(dst: IpNet, table: u32, interface: &str) -> Self {
        Self { interface: Some(interface.to_owned()), ..Self::special(dst, table, Kind::Unicast) }
    }

    /// A route without interface: blackhole, throw.
    pub fn special(dst: IpNet, table: u32, kind: Kind) -> Self {
        Self {
            dst: dst.trunc(),
            table,
            kind,
            interface: None,
            gateway: None,
            src: None,
            metric: None,
            mtu: None,
            protocol: RTPROT_STATIC,
        }
    }
}

/// Where a packet would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// By which interface.
    pub interface: u32,
    /// From which address, if its sender has not chosen one.
    pub src: Option<IpAddr>,
    /// To which next hop; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The path carries packets of this many bytes: what the kernel learnt of the path, or the route's, or the interface's.
    pub mtu: u32,
    /// What the route does.
    pub kind: Kind,
}

impl Rtnl {
    /// Adds a route; one for the same destinations with the same metric is an error.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let body = self.route_body(route)?;
        self.change(|| describe("add", route), NEWROUTE, CREATE, body.bytes())
    }

    /// Adds a route, in place of one for the same destinations with the same metric.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let body = self.route_body(route)?;
        self.change(|| describe("replace", route), NEWROUTE, REPLACE, body.bytes())
    }

    /// Takes a route away; absent is success.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let body = match self.route_body(route) {
            Err(Error::NoLink(_)) => return Ok(()),
            other => other?,
        };
        self.remove(|| describe("delete", route), DELROUTE, body.bytes())
    }

    /// The routes of one table, or of all.
    pub fn routes(&mut self, table: Option<u32>) -> Result<Vec<Route>, Error> {
        let links = self.links()?;
        let name = |index| {
            links.iter().find(|l| l.index == index).map(|l| l.name.clone()).unwrap_or_default()
        };
        let messages = self.dump("list routes", GETROUTE, &[0; HEADER])?;
        let routes = messages.iter().filter_map(|m| decode(&m.body, &name));
        Ok(routes.filter(|r| table.is_none_or(|t| t == r.table)).collect())
    }

    /// Where a packet of this host to `dst` would go, if it carried the firewall mark `mark` (0: none).
    pub fn get_route(&mut self, dst: IpAddr, mark: u32) -> Result<Found, Error> {
        let mut header = [0; HEADER];
        header[0] = family(Ip::of(dst));
        header[1] = if dst.is_ipv4() { 32 } else { 128 };
        let mut body = Body::new(&header).attr(RTA_DST, &octets(dst));
        if mark != 0 {
            body = body.u32(RTA_MARK, mark);
        }
        let message = match self.socket.get(GETROUTE, body.bytes()) {
            Ok(message) => message,
            // A blackhole answers EINVAL, a prohibition EACCES.
            Err(e)
                if matches!(
                    e.errno(),
                    Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL | Errno::EACCES)
                ) =>
            {
                return Err(Error::NoRoute(dst));
            }
            Err(source) => return Err(Error::Netlink { what: format!("route to {dst}"), source }),
        };
        let (found, mtu) = decode_found(&message.body).ok_or(Error::NoRoute(dst))?;
        let mtu = match mtu {
            Some(mtu) => mtu,
            None => self.links()?.iter().find(|l| l.index == found.interface).map_or(0, |l| l.mtu),
        };
        Ok(Found { mtu, ..found })
    }

    fn route_body(&mut self, route: &Route) -> Result<Body, Error> {
        let mut header = [0; HEADER];
        header[0] = family(Ip::of(route.dst.addr()));
        header[1] = route.dst.prefix_len();
        header[4] = u8::try_from(route.table).unwrap_or(RT_TABLE_COMPAT);
        header[5] = route.protocol;
        header[6] = scope(route);
        header[7] = number(route.kind);
        let mut body = Body::new(&header)
            .attr(RTA_DST, &octets(route.dst.network()))
            .u32(RTA_TABLE, route.table);
        if let Some(interface) = &route.interface {
            body = body.u32(RTA_OIF, self.link(interface)?.index);
        }
        if let Some(gateway) = route.gateway {
            body = body.attr(RTA_GATEWAY, &octets(gateway));
        }
        if let Some(src) = route.src {
            body = body.attr(RTA_PREFSRC, &octets(src));
        }
        if let Some(metric) = route.metric {
            body = body.u32(RTA_PRIORITY, metric);
        }
        if let Some(mtu) = route.mtu {
            body = body.nest(RTA_METRICS, Body::default().u32(RTAX_MTU, mtu));
        }
        Ok(body)
    }
}

// Numbers and layouts: linux/rtnetlink.h.
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const RTAX_MTU: u16 = 2;
const RT_TABLE_COMPAT: u8 = 252;
const RTPROT_STATIC: u8 = 4;
const SCOPE_LINK: u8 = 253;
const RTM_F_CLONED: u32 = 0x200;
const HEADER: usize = 12;

fn describe(verb: &str, route: &Route) -> String {
    let by = route.interface.as_deref().map(|i| format!(" by {i}")).unwrap_or_default();
    format!("{verb} {:?} route {}{by} in table {}", route.kind, route.dst, route.table)
}

/// An IPv4 route without next hop reaches its destinations on the link.
fn scope(route: &Route) -> u8 {
    let on_link =
        route.dst.addr().is_ipv4() && route.kind == Kind::Unicast && route.gateway.is_none();
    if on_link { SCOPE_LINK } else { 0 }
}

fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Unicast => 1,
        Kind::Local => 2,
        Kind::Blackhole => 6,
        Kind::Unreachable => 7,
        Kind::Prohibit => 8,
        Kind::Throw => 9,
        Kind::Other(number) => number,
    }
}

fn kind(number: u8) -> Kind {
    match number {
        1 => Kind::Unicast,
        2 => Kind::Local,
        6 => Kind::Blackhole,
        7 => Kind::Unreachable,
        8 => Kind::Prohibit,
        9 => Kind::Throw,
        other => Kind::Other(other),
    }
}

fn decode(body: &[u8], name: &impl Fn(u32) -> String) -> Option<Route> {
    let attributes = body.get(HEADER..)?;
    // Entries that the kernel remembers about paths are no routes of anybody's.
    if u32_at(body, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let any = if i32::from(body[0]) == nix::libc::AF_INET { "0.0.0.0" } else { "::" };
    let mut dst: IpAddr = any.parse().ok()?;
    let mut table = u32::from(body[4]);
    let (mut interface, mut gateway, mut src, mut metric, mut mtu) = (None, None, None, None, None);
    for (kind, value) in Attributes::new(attributes) {
        match kind {
            RTA_DST => dst = address(value)?,
            RTA_TABLE => table = u32_at(value, 0)?,
            RTA_OIF => interface = u32_at(value, 0),
            RTA_GATEWAY => gateway = address(value),
            RTA_PREFSRC => src = address(value),
            RTA_PRIORITY => metric = u32_at(value, 0),
            RTA_METRICS => mtu = path_mtu(value),
            _ => {}
        }
    }
    let dst = IpNet::new(dst, body[1]).ok()?;
    Some(Route {
        dst,
        table,
        kind: kind(body[7]),
        interface: interface.map(name),
        gateway,
        src,
        metric,
        mtu,
        protocol: body[5],
    })
}

fn decode_found(body: &[u8]) -> Option<(Found, Option<u32>)> {
    let attributes = body.get(HEADER..)?;
    let mut found = Found { interface: 0, src: None, gateway: None, mtu: 0, kind: kind(body[7]) };
    let mut mtu = None;
    for (kind, value) in Attributes::new(attributes) {
        match kind {
            RTA_OIF => found.interface = u32_at(value, 0)?,
            RTA_GATEWAY => found.gateway = address(value),
            RTA_PREFSRC => found.src = address(value),
            RTA_METRICS => mtu = path_mtu(value),
            _ => {}
        }
    }
    Some((found, mtu))
}

fn path_mtu(metrics: &[u8]) -> Option<u32> {
    Attributes::new(metrics)
        .find(|(kind, _)| *kind == RTAX_MTU)
        .and_then(|(_, value)| u32_at(value, 0))
        .filter(|mtu| *mtu > 0)
}
