//! What must hold before there is a daemon: the rules of the leak guard.
//!
//! They are made before the host has an address, so they name none: the host's side of each rule is every address,
//! or a network of the manifest. What a plan would protect is dropped, what it lets pass in clear passes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ipsec::packet::proto;
use ipsec::spd::{Action, Flow, Policy, PolicySelector};

use super::{MOST_POLICIES, PlanError, is_usable};
use crate::manifest::{Exception, ExceptionAction, ExceptionDirection, Manifest};

/// Priority of the first rule; every policy of a plan comes before it.
pub const FIRST_PRIORITY: u32 = 0x6000_0000;

/// Neighbour and multicast listener discovery, and the errors that tell path MTUs (RFC 4443, 4861, 2710, 3810).
const ICMPV6: [u16; 10] = [2, 130, 131, 132, 133, 134, 135, 136, 137, 143];
/// "Fragmentation needed" (RFC 1191), as type and code in a traffic selector.
const TOO_BIG: u16 = 0x0304;

/// The rules for any host of this manifest, in the order of looking, all with [`Action::Bypass`] or
/// [`Action::Discard`]; none if the manifest is `optional`. `own` are addresses that the host has for
/// certain: it may speak with itself.
///
/// # Errors
/// If they are too many for a data plane.
pub fn guard(manifest: &Manifest, own: &[IpAddr]) -> Result<Vec<Policy>, PlanError> {
    if manifest.optional {
        return Ok(Vec::new());
    }
    let mut rules = Rules { manifest, list: Vec::new(), taken: BTreeSet::new() };
    for all in [V4, V6] {
        rules.implicit(all, own);
        for exception in &manifest.policies {
            rules.exception(all, exception);
        }
        rules.networks(all);
        if rules.list.len() > MOST_POLICIES {
            return Err(PlanError::TooManyPolicies);
        }
    }
    Ok(rules.list)
}

const V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));
const BOTH: &[Flow] = &[Flow::Out, Flow::In];

struct Rules<'a> {
    manifest: &'a Manifest,
    list: Vec<Policy>,
    /// A second rule for the same packets is never reached.
    taken: BTreeSet<(Flow, PolicySelector)>,
}

impl Rules<'_> {
    fn add(&mut self, flows: &[Flow], selector: PolicySelector, action: Action) {
        for flow in flows {
            // Far fewer rules than numbers: `guard` ends when they are too many.
            let priority = FIRST_PRIORITY + u32::try_from(self.list.len()).unwrap_or(0);
            if self.taken.insert((*flow, selector)) {
                self.list.push(Policy { priority, flow: *flow, selector, action });
            }
        }
    }

    /// What protection is made with, or comes before it.
    fn implicit(&mut self, all: IpNet, own: &[IpAddr]) {
        let any = between(all, all);
        let udp = PolicySelector { protocol: Some(proto::UDP), ..any };
        let port = |port: u16| Some((port, port));
        let v4 = all == V4;
        let (client, server) = if v4 { (68, 67) } else { (546, 547) };
        let mut list = vec![
            PolicySelector { local_ports: port(500), ..udp },
            PolicySelector { local_ports: port(4500), ..udp },
            PolicySelector { protocol: Some(proto::ESP), ..any },
            PolicySelector { local_ports: port(client), remote_ports: port(server), ..udp },
        ];
        if v4 {
            let icmp = PolicySelector { protocol: Some(proto::ICMP), ..any };
            list.push(PolicySelector { local_ports: port(TOO_BIG), ..icmp });
        } else {
            let icmp = PolicySelector { protocol: Some(proto::ICMPV6), ..any };
            let kind = |kind: &u16| Some((kind << 8, kind << 8 | 0xff));
            list.extend(ICMPV6.iter().map(|k| PolicySelector { local_ports: kind(k), ..icmp }));
        }
        let loopback = if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let mine = own.iter().copied().filter(|address| is_usable(address) && same(all, *address));
        for host in mine.chain([loopback]).map(IpNet::from) {
            list.push(between(host, host));
        }
        for selector in list {
            self.add(BOTH, selector, Action::Bypass);
        }
    }

    /// Both ends read one list: it says something for the end that it calls local, and for the remote one.
    fn exception(&mut self, all: IpNet, exception: &Exception) {
        let remote = match exception.remote {
            Some(net) if !same(all, net.addr()) => return,
            net => net.unwrap_or(all),
        };
        if exception.action == ExceptionAction::Protect {
            // An excluded host protects nothing.
            for net in
                self.excluded(all).filter(|net| !self.holds_protected(net)).collect::<Vec<_>>()
            {
                self.sides(exception, net, remote, Action::Bypass);
            }
        }
        let action = match exception.action {
            ExceptionAction::Pass => Action::Bypass,
            ExceptionAction::Drop | ExceptionAction::Protect => Action::Discard,
        };
        self.sides(exception, all, remote, action);
    }

    fn sides(&mut self, exception: &Exception, local: IpNet, remote: IpNet, action: Action) {
        self.one_side(exception, between(local, remote), action, false);
        match exception.action {
            // To drop, one end is enough.
            ExceptionAction::Drop => {}
            ExceptionAction::Pass => self.one_side(exception, between(remote, local), action, true),
            ExceptionAction::Protect if action == Action::Bypass => {
                self.one_side(exception, between(remote, local), action, true);
            }
            ExceptionAction::Protect => {
                let fleet = &self.manifest.ipsec_subnets;
                let fleet: Vec<IpNet> =
                    fleet.iter().copied().filter(|net| same(local, net.addr())).collect();
                for net in IpNet::aggregate(&fleet) {
                    self.one_side(exception, between(remote, net), action, true);
                }
            }
        }
    }

    fn one_side(&mut self, e: &Exception, nets: PolicySelector, action: Action, mirrored: bool) {
        let flows: &[Flow] = match (e.direction, mirrored) {
            (ExceptionDirection::Both, _) => BOTH,
            (ExceptionDirection::In, false) | (ExceptionDirection::Out, true) => &[Flow::In],
            (ExceptionDirection::Out, false) | (ExceptionDirection::In, true) => &[Flow::Out],
        };
        let ports = match (e.port, mirrored) {
            (Some(port), _) => vec![(Some(port), None), (None, Some(port))],
            (None, false) => vec![(e.local_port, e.remote_port)],
            (None, true) => vec![(e.remote_port, e.local_port)],
        };
        for (local_ports, remote_ports) in ports {
            let selector =
                PolicySelector { protocol: e.protocol, local_ports, remote_ports, ..nets };
            self.add(flows, selector, action);
        }
    }

    /// By the longest prefix: first what the host's own side says, then the other's.
    fn networks(&mut self, all: IpNet) {
        let nets = self.ranked(all);
        for (local, protected) in &nets {
            if !protected {
                self.add(BOTH, between(*local, all), Action::Bypass);
            } else if self.excluded(all).any(|wider| wider.contains(local)) {
                self.towards(*local, &nets);
            }
        }
        self.towards(all, &nets);
    }

    fn towards(&mut self, local: IpNet, nets: &[(IpNet, bool)]) {
        for (remote, protected) in nets {
            if self.list.len() > MOST_POLICIES {
                return;
            }
            let action = if *protected { Action::Discard } else { Action::Bypass };
            self.add(BOTH, between(local, *remote), action);
        }
    }

    /// All networks of a family, longest prefix first, and whether they are protected.
    fn ranked(&self, all: IpNet) -> Vec<(IpNet, bool)> {
        let clear: BTreeSet<IpNet> = self.excluded(all).collect();
        let mut protected = self.manifest.ipsec_subnets.clone();
        protected.retain(|net| same(all, net.addr()) && !clear.contains(net));
        let mut nets: Vec<(IpNet, bool)> = clear.into_iter().map(|net| (net, false)).collect();
        nets.extend(protected.into_iter().map(|net| (net, true)));
        nets.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        nets
    }

    fn excluded(&self, all: IpNet) -> impl Iterator<Item = IpNet> {
        let nets = self.manifest.no_ipsec_subnets.iter();
        nets.copied().filter(move |net| same(all, net.addr()))
    }

    fn holds_protected(&self, net: &IpNet) -> bool {
        self.manifest.ipsec_subnets.iter().any(|inner| inner != net && net.contains(inner))
    }
}

fn between(local: IpNet, remote: IpNet) -> PolicySelector {
    PolicySelector { local, remote, protocol: None, local_ports: None, remote_ports: None }
}

fn same(net: IpNet, address: IpAddr) -> bool {
    net.addr().is_ipv4() == address.is_ipv4()
}
