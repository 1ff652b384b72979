//! The device, and the routes and rules that lead into it; put right whenever they are not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ipsec::pipeline::Pipeline;

use super::barrier::{self, PROTOCOL};
use super::{Config, Error, Networks, Status};
use crate::netns::{get_sysctl, set_sysctl};
use crate::raw::Ip;
use crate::route::{self, Kind, Link, Route, Rtnl, Rule};
use crate::tun::{self, Tun};

/// What leads packets into the device.
pub(super) struct Steering {
    config: Config,
    rtnl: Rtnl,
    tun: Arc<Tun>,
    networks: Option<Networks>,
    mtu: u32,
    device_mtu: u32,
    warnings: Vec<String>,
    /// Interfaces whose `rp_filter` was 1.
    loosened: BTreeMap<String, String>,
}

const DEVICE_METRIC: u32 = 10;
const BLACKHOLE_METRIC: u32 = 1000;
/// Packets that wait for the outbound thread.
const QUEUE: u32 = 4096;
/// Bytes that the stack leaves to the device to be cut, at most.
const LARGEST: u32 = 60_000;
/// Least MTU of a device that carries IPv6 (RFC 8200 5), and of one that does not (RFC 791).
const LEAST_MTU: (u32, u32) = (1280, 576);
const USUAL_MTU: u32 = 1500;
/// An address of the device can be received on within this, on a machine that is very busy.
const ALIAS_WITHIN: Duration = Duration::from_secs(2);

impl Steering {
    /// Makes the device. What leads into it comes with [`Steering::sync`].
    pub(super) fn start(config: Config) -> Result<Self, Error> {
        let options = tun::Options { offload: config.offload, ..tun::Options::default() };
        let tun = Tun::open(&config.interface, options)?;
        let mut steering = Self::adopt(config, tun, None, BTreeMap::new())?;
        steering.furnish()?;
        Ok(steering)
    }

    /// With a device that another process has made, and what it has done with it.
    pub(super) fn adopt(
        config: Config,
        tun: Tun,
        networks: Option<Networks>,
        loosened: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let (rtnl, tun, warnings) = (Rtnl::open()?, Arc::new(tun), Vec::new());
        Ok(Self { config, rtnl, tun, networks, mtu: 0, device_mtu: 0, warnings, loosened })
    }

    fn furnish(&mut self) -> Result<(), Error> {
        let name = self.tun.name().to_owned();
        // Packets out of the device are verified: no kernel policy applies. A kernel without XFRM lacks these files.
        for key in [
            "ipv4/conf/IF/disable_policy",
            "ipv4/conf/IF/disable_xfrm",
            "ipv6/conf/IF/disable_policy",
        ] {
            let _ = set_sysctl(&format!("net/{}", key.replace("IF", &name)), "1");
        }
        // No link-local address, no advertisements: there is no link.
        for (key, value) in
            [("addr_gen_mode", "1"), ("accept_ra", "0"), ("router_solicitations", "0")]
        {
            let _ = set_sysctl(&format!("net/ipv6/conf/{name}/{key}"), value);
        }
        // What it is larger than would not fit one datagram once it is sealed. Kernels before 4.16 cannot be told.
        let _ = self.rtnl.set_largest(&name, LARGEST);
        Ok(self.rtnl.set_queue_length(&name, QUEUE)?)
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn networks(&self) -> Option<&Networks> {
        self.networks.as_ref()
    }

    pub(super) fn loosened(&self) -> &BTreeMap<String, String> {
        &self.loosened
    }

    pub(super) fn tun(&self) -> Arc<Tun> {
        Arc::clone(&self.tun)
    }

    /// What the device has of the former ones goes.
    pub(super) fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        for gone in self.config.addresses.iter().filter(|a| a.is_ipv6() && !addresses.contains(a)) {
            let _ = self.rtnl.delete_address(self.tun.name(), IpNet::from(*gone));
        }
        self.config.addresses = addresses;
    }

    /// Which networks are wanted from now on.
    pub(super) fn route(&mut self, networks: Networks) {
        self.networks = Some(networks);
    }

    pub(super) fn status(&self) -> Status {
        Status {
            interface: self.tun.name().to_owned(),
            mtu: self.mtu,
            device_mtu: self.device_mtu,
            guard: Ok(0),
            warnings: self.warnings.clone(),
        }
    }

    /// Puts right what is not as it should be. What cannot be put right is a warning in the status, and tried again.
    pub(super) fn sync(&mut self, pipeline: &Pipeline) {
        self.warnings.clear();
        let outcome = self
            .sync_device(pipeline)
            .and_then(|()| self.sync_addresses())
            .and_then(|()| self.sync_routes());
        if let Err(error) = outcome {
            self.warnings.push(error.to_string());
        }
    }

    /// Takes rules, routes and the device's addresses away, and undoes what was done to other interfaces.
    pub(super) fn remove(&mut self) {
        for ip in [Ip::V4, Ip::V6] {
            let _ = self.rtnl.delete_rule(&self.rule(ip));
        }
        let _ = barrier::remove(&mut self.rtnl, self.config.rule_priority);
        for route in self.rtnl.routes(Some(self.config.table)).unwrap_or_default() {
            let _ = self.rtnl.delete_route(&route);
        }
        for (interface, before) in std::mem::take(&mut self.loosened) {
            let _ = set_sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), &before);
        }
        self.networks = None;
    }

    fn sync_device(&mut self, pipeline: &Pipeline) -> Result<(), route::Error> {
        let links = self.rtnl.links()?;
        let carriers = self.carriers(&links)?;
        if carriers.is_empty() {
            let addresses: Vec<_> = self.config.addresses.iter().map(ToString::to_string).collect();
            self.warnings.push(format!(
                "no interface has this host's address {}: add it, or correct the configuration",
                addresses.join(" or ")
            ));
        }
        self.device_mtu = carriers.iter().map(|l| l.mtu).min().unwrap_or(USUAL_MTU);
        let v6 = self.config.addresses.iter().any(IpAddr::is_ipv6);
        let least = if v6 { LEAST_MTU.0 } else { LEAST_MTU.1 };
        self.mtu = self.device_mtu.saturating_sub(self.config.overhead).max(least);
        pipeline.set_default_mtu(self.device_mtu);
        let name = self.tun.name();
        let own = links
            .iter()
            .find(|l| l.name == name)
            .ok_or_else(|| route::Error::NoLink(name.to_owned()))?;
        if own.mtu != self.mtu {
            self.rtnl.set_mtu(name, self.mtu)?;
        }
        if !own.is_up() {
            self.rtnl.set_up(name, true)?;
        }
        for carrier in &carriers {
            self.loosen(&carrier.name);
        }
        Ok(())
    }

    /// The interfaces that this host's addresses are on.
    fn carriers(&mut self, links: &[Link]) -> Result<Vec<Link>, route::Error> {
        let addresses = self.rtnl.addresses()?;
        let own = |link: &&Link| {
            addresses
                .iter()
                .any(|a| a.interface == link.index && self.config.addresses.contains(&a.net.addr()))
        };
        Ok(links
            .iter()
            .filter(|l| l.name != self.tun.name() && !l.is_loopback())
            .filter(own)
            .cloned()
            .collect())
    }

    /// A strict reverse path filter would drop ESP from a peer, as the route back to the peer leads into our device.
    fn loosen(&mut self, interface: &str) {
        let key = |which: &str| format!("net/ipv4/conf/{which}/rp_filter");
        let read = |which: &str| {
            get_sysctl(&key(which)).ok().and_then(|v| v.parse::<u8>().ok()).unwrap_or(0)
        };
        // The kernel takes the greater of the two; 1 is strict, 2 is loose.
        let own = read(interface);
        if own.max(read("all")) == 1 {
            match set_sysctl(&key(interface), "2") {
                Ok(()) => {
                    self.loosened.entry(interface.to_owned()).or_insert(own.to_string());
                }
                Err(error) => self.warnings.push(format!(
                    "the strict reverse path filter of {interface} drops ESP: `sysctl -w net.ipv4.conf.{interface}.rp_filter=2` ({error})"
                )),
            }
        }
        if let Some(before) = self.loosened.get(interface) {
            self.warnings.push(format!(
                "rp_filter of {interface} was strict ({before}) and is loose now (2): strict would drop ESP. \
                 To be rid of this note set net.ipv4.conf.{interface}.rp_filter=2 in /etc/sysctl.d"
            ));
        }
    }

    /// The host's own IPv6 addresses, on the device too: what comes by it is then exempt from kernel policies (see `guard`).
    fn sync_addresses(&mut self) -> Result<(), route::Error> {
        let name = self.tun.name().to_owned();
        let index = self.rtnl.link(&name)?.index;
        let there = self.rtnl.addresses()?;
        let own: Vec<IpAddr> =
            self.config.addresses.iter().copied().filter(IpAddr::is_ipv6).collect();
        for address in &own {
            let elsewhere = there.iter().any(|a| a.interface != index && a.net.addr() == *address);
            let here = there.iter().any(|a| a.interface == index && a.net.addr() == *address);
            // Alone on the device it would answer for an address that the host has lost.
            match (elsewhere, here) {
                (true, false) => {
                    self.rtnl.add_alias(&name, *address)?;
                    self.await_local(&name, *address)?;
                }
                (false, true) => self.rtnl.delete_address(&name, IpNet::from(*address))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The kernel makes the local route of an IPv6 address later, in a work queue. Until then a packet out of the device
    /// lacks the exemption, and a kernel policy drops it.
    fn await_local(&mut self, name: &str, address: IpAddr) -> Result<(), route::Error> {
        let net = IpNet::from(address);
        let end = Instant::now() + ALIAS_WITHIN;
        loop {
            let local = self.rtnl.routes(Some(route::LOCAL_TABLE))?;
            if local.iter().any(|r| r.dst == net && r.interface.as_deref() == Some(name)) {
                return Ok(());
            }
            if Instant::now() >= end {
                let text =
                    format!("{address} on {name} has no route yet: packets to it may be refused");
                self.warnings.push(text);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn sync_routes(&mut self) -> Result<(), route::Error> {
        let Some(networks) = self.networks.clone() else { return Ok(()) };
        let wanted = self.wanted(&networks)?;
        let there = self.rtnl.routes(Some(self.config.table))?;
        for route in wanted.iter().filter(|w| !there.iter().any(|t| same(w, t))) {
            if let Err(error) = self.rtnl.replace_route(route) {
                self.warnings.push(format!("{error}; until then its packets are dropped"));
            }
        }
        barrier::sync(&mut self.rtnl, &self.config, &networks)?;
        let rules = self.rtnl.rules()?;
        for ip in [Ip::V4, Ip::V6] {
            let rule = self.rule(ip);
            if wanted.iter().any(|r| Ip::of(r.dst.addr()) == ip) && !rules.contains(&rule) {
                self.rtnl.add_rule(&rule)?;
            }
        }
        for route in there.iter().filter(|t| !wanted.iter().any(|w| key(w) == key(t))) {
            self.rtnl.delete_route(route)?;
        }
        Ok(())
    }

    /// The whole table as it should be, blackholes first.
    fn wanted(&mut self, networks: &Networks) -> Result<Vec<Route>, route::Error> {
        let (table, addresses) = (self.config.table, self.rtnl.addresses()?);
        let own = |net: &IpNet| {
            let family = |a: &&IpAddr| a.is_ipv4() == net.addr().is_ipv4();
            let there = |a: &&IpAddr| {
                addresses.iter().any(|have| have.net.addr() == **a && !have.is_tentative())
            };
            self.config.addresses.iter().filter(family).find(there).copied()
        };
        let mut all = Vec::new();
        let special = |net: &IpNet, kind, metric| Route {
            metric: Some(metric),
            protocol: PROTOCOL,
            ..Route::special(*net, table, kind)
        };
        if !networks.optional {
            all.extend(
                networks
                    .protected
                    .iter()
                    .map(|net| special(net, Kind::Blackhole, BLACKHOLE_METRIC)),
            );
        }
        all.extend(networks.clear.iter().map(|net| special(net, Kind::Throw, DEVICE_METRIC)));
        for net in networks.protected.iter().filter(|net| !networks.clear.contains(net)) {
            let route = Route::unicast(*net, table, self.tun.name());
            all.push(Route {
                src: own(net),
                metric: Some(DEVICE_METRIC),
                protocol: PROTOCOL,
                ..route
            });
        }
        Ok(all)
    }

    fn rule(&self, ip: Ip) -> Rule {
        Rule::unmarked(ip, self.config.rule_priority, self.config.mark, self.config.table)
    }
}

/// What names a route within a table.
fn key(route: &Route) -> (IpNet, Option<u32>, Kind) {
    (route.dst, route.metric, route.kind)
}

/// Whether a route that is there is the one that is wanted. The kernel shows IPv6 blackholes on the loopback.
fn same(wanted: &Route, there: &Route) -> bool {
    let device = wanted.kind != Kind::Unicast || wanted.interface == there.interface;
    key(wanted) == key(there) && device && wanted.src == there.src
}
