//! From the manifest to the policies of one host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ipsec::packet::proto;
use ipsec::spd::{Action, Flow, Policy, PolicySelector};

use super::order::{Kind, Priorities};
use super::{
    FLEET, MOST_POLICIES, Origin, PeerPlan, Plan, PlanError, Planned, Side, is_usable, rank,
};
use crate::manifest::{Exception, ExceptionAction, ExceptionDirection, Manifest, Place};

pub(super) fn plan(
    manifest: Arc<Manifest>,
    me: IpAddr,
    others: &[IpAddr],
) -> Result<Plan, PlanError> {
    let side = Side::new(&manifest, me).ok_or_else(|| PlanError::Nowhere(vec![me]))?;
    let mut builder = Builder {
        manifest: &manifest,
        sides: [Some(side), other_side(&manifest, me, others)].into_iter().flatten().collect(),
        priorities: Priorities::new(),
        policies: Vec::new(),
        taken: BTreeSet::new(),
        by_exception: Vec::new(),
    };
    for side in 0..builder.sides.len() {
        builder.implicit(builder.sides[side].address);
        builder.exceptions(side)?;
    }
    builder.networks();
    builder.others(others);
    let Builder { mut policies, by_exception, sides, .. } = builder;
    if policies.len() > MOST_POLICIES {
        return Err(PlanError::TooManyPolicies);
    }
    policies.sort_by_key(|planned| (planned.policy.priority, planned.policy.flow));
    let mut plan = Plan {
        sides,
        policies,
        peers: BTreeMap::new(),
        protected: Vec::new(),
        clear: Vec::new(),
        protected_by_exception: IpNet::aggregate(&by_exception),
        manifest,
    };
    (plan.protected, plan.clear) = routes(&plan);
    plan.peers = known_peers(&plan);
    Ok(plan)
}

impl Side {
    fn new(manifest: &Manifest, address: IpAddr) -> Option<Self> {
        let place = manifest.place_of(address);
        let side = Self { address, place, meets_fleet: matches!(place, Place::Protected(_)) };
        (place != Place::Nowhere).then_some(side)
    }

    /// Whether this host takes part, being in a protected network.
    fn is_here(&self) -> bool {
        matches!(self.place, Place::Protected(_))
    }
}

/// Of the family that `me` is not of.
fn other_side(manifest: &Manifest, me: IpAddr, others: &[IpAddr]) -> Option<Side> {
    let others = others.iter().filter(|a| a.is_ipv4() != me.is_ipv4() && is_usable(a));
    let ranked = others.filter_map(|address| Some((rank(manifest, *address)?, *address)));
    Side::new(manifest, ranked.min_by_key(|(rank, _)| *rank)?.1)
}

struct Builder<'a> {
    manifest: &'a Manifest,
    sides: Vec<Side>,
    priorities: Priorities,
    policies: Vec<Planned>,
    /// What names a policy in a kernel: a second one of the same selector is never reached, and
    /// would replace the first there.
    taken: BTreeSet<(Flow, PolicySelector)>,
    by_exception: Vec<IpNet>,
}

const BOTH: &[Flow] = &[Flow::In, Flow::Out];
/// "Fragmentation needed" (RFC 1191) and "packet too big" (RFC 8201), as types and codes in a traffic selector.
const TOO_BIG: (u16, u16) = (0x0304, 0x0304);
const TOO_BIG_V6: (u16, u16) = (0x0200, 0x02ff);

impl Builder<'_> {
    fn add(
        &mut self,
        priority: u32,
        flows: &[Flow],
        selector: PolicySelector,
        action: Action,
        origin: &Origin,
    ) {
        for flow in flows {
            if self.taken.insert((*flow, selector)) {
                let policy = Policy { priority, flow: *flow, selector, action };
                self.policies.push(Planned { policy, origin: origin.clone() });
            }
        }
    }

    /// Without these there would be no IKE, no ESP, no neighbours and no lease: they are what
    /// protection is made with, or come before it.
    fn implicit(&mut self, address: IpAddr) {
        let all = everything(address);
        let me = IpNet::from(address);
        let any = PolicySelector {
            local: me,
            remote: all,
            protocol: None,
            local_ports: None,
            remote_ports: None,
        };
        let udp = PolicySelector { protocol: Some(proto::UDP), ..any };
        let port = |port: u16| Some((port, port));
        let mut list = vec![
            ("IKE", PolicySelector { local_ports: port(500), ..udp }),
            ("IKE behind NAT", PolicySelector { local_ports: port(4500), ..udp }),
            ("ESP", PolicySelector { protocol: Some(proto::ESP), ..any }),
            ("this host itself", PolicySelector { remote: me, ..any }),
        ];
        if address.is_ipv4() {
            list.push((
                "DHCP",
                PolicySelector { local_ports: port(68), remote_ports: port(67), ..udp },
            ));
        } else {
            list.push((
                "DHCPv6",
                PolicySelector { local_ports: port(546), remote_ports: port(547), ..udp },
            ));
            // RFC 4861: router solicitation and advertisement, neighbour the same, redirect.
            for kind in 133..=137u16 {
                let icmp = PolicySelector { protocol: Some(proto::ICMPV6), ..any };
                list.push((
                    "neighbour discovery",
                    PolicySelector { local_ports: Some((kind << 8, kind << 8 | 0xff)), ..icmp },
                ));
            }
        }
        for (name, selector) in list {
            let priority = self.priorities.implicit();
            self.add(priority, BOTH, selector, Action::Bypass, &Origin::Implicit(name));
        }
        // A router has no SA with us, also where its address lies in a protected network (RFC 4301 8.2.1): without its word
        // what is too long for the path is lost for good. It can make packets short, and no more.
        let (protocol, ports) =
            if address.is_ipv4() { (proto::ICMP, TOO_BIG) } else { (proto::ICMPV6, TOO_BIG_V6) };
        let told = PolicySelector { protocol: Some(protocol), local_ports: Some(ports), ..any };
        let priority = self.priorities.implicit();
        self.add(priority, &[Flow::In], told, Action::Bypass, &Origin::Implicit("path MTU"));
    }

    fn exceptions(&mut self, side: usize) -> Result<(), PlanError> {
        let manifest = self.manifest;
        let Side { address: me, .. } = self.sides[side];
        let here = self.sides[side].is_here();
        let everybody = [everything(me)];
        for (index, exception) in manifest.policies.iter().enumerate() {
            let action = exception.action;
            if here || action != ExceptionAction::Protect {
                let origin = Origin::Exception(index, exception.label());
                let remotes = exception.remote.map_or(everybody, |remote| [remote]);
                self.exception(me, exception, action, &remotes, false, &origin);
                if action == ExceptionAction::Protect {
                    self.by_exception.extend(exception.remote.filter(|net| same_family(net, me)));
                }
            }
            if is_remote_of(me, exception) {
                let origin = Origin::Mirrored(index, exception.label());
                if action == ExceptionAction::Protect {
                    self.protect_mirrored(me, exception, &origin);
                    self.sides[side].meets_fleet = true;
                } else {
                    self.exception(me, exception, action, &everybody, true, &origin);
                }
            }
            if self.policies.len() > MOST_POLICIES {
                return Err(PlanError::TooManyPolicies);
            }
        }
        Ok(())
    }

    /// What others protect towards this host is protected here, but for those who are excluded.
    fn protect_mirrored(&mut self, me: IpAddr, exception: &Exception, origin: &Origin) {
        let fleet = IpNet::aggregate(&of_family(me, &self.manifest.ipsec_subnets));
        let within = |net: &IpNet| fleet.iter().any(|wider| wider.contains(net));
        let mut excluded = of_family(me, &self.manifest.no_ipsec_subnets);
        excluded.retain(within);
        self.exception(me, exception, ExceptionAction::Pass, &excluded, true, origin);
        self.exception(me, exception, ExceptionAction::Protect, &fleet, true, origin);
    }

    fn exception(
        &mut self,
        me: IpAddr,
        exception: &Exception,
        what: ExceptionAction,
        remotes: &[IpNet],
        mirrored: bool,
        origin: &Origin,
    ) {
        let flows: &[Flow] = match (exception.direction, mirrored) {
            (ExceptionDirection::Both, _) => BOTH,
            (ExceptionDirection::In, false) | (ExceptionDirection::Out, true) => &[Flow::In],
            (ExceptionDirection::Out, false) | (ExceptionDirection::In, true) => &[Flow::Out],
        };
        let action = match what {
            ExceptionAction::Pass => Action::Bypass,
            ExceptionAction::Drop => Action::Discard,
            ExceptionAction::Protect => self.protect(),
        };
        let ports = match (exception.port, mirrored) {
            (Some(port), _) => vec![(Some(port), None), (None, Some(port))],
            (None, false) => vec![(exception.local_port, exception.remote_port)],
            (None, true) => vec![(exception.remote_port, exception.local_port)],
        };
        for remote in remotes.iter().filter(|remote| same_family(remote, me)) {
            for (local_ports, remote_ports) in &ports {
                let selector = PolicySelector {
                    local: IpNet::from(me),
                    remote: *remote,
                    protocol: exception.protocol,
                    local_ports: *local_ports,
                    remote_ports: *remote_ports,
                };
                let priority = self.priorities.exception();
                self.add(priority, flows, selector, action, origin);
            }
        }
    }

    fn networks(&mut self) {
        let manifest = self.manifest;
        for net in &manifest.no_ipsec_subnets {
            self.clear(*net, &Origin::NoIpsecSubnet(*net));
        }
        let clear: BTreeSet<IpNet> = manifest.no_ipsec_subnets.iter().copied().collect();
        for net in manifest.ipsec_subnets.iter().filter(|net| !clear.contains(net)) {
            let origin = Origin::IpsecSubnet(*net);
            let side = self.sides.iter().find(|side| same_family(net, side.address)).copied();
            match side {
                Some(side) if side.is_here() => {
                    let priority = self.priorities.network(Kind::Protected, *net);
                    let selector = between(IpNet::from(side.address), *net);
                    let action = self.protect();
                    self.add(priority, BOTH, selector, action, &origin);
                }
                // No SA of this host has addresses of that family: fail closed.
                None if self.is_anywhere() => self.silent(BOTH, everything(net.addr()), *net),
                _ => self.clear(*net, &origin),
            }
        }
        let remotes = IpNet::aggregate(&self.by_exception);
        for net in remotes.into_iter().filter(|net| manifest.place_of(net.addr()) == Place::Nowhere)
        {
            self.clear(net, &Origin::Remainder(net));
        }
    }

    fn clear(&mut self, net: IpNet, origin: &Origin) {
        let priority = self.priorities.network(Kind::Clear, net);
        self.add(priority, BOTH, between(everything(net.addr()), net), Action::Bypass, origin);
    }

    fn silent(&mut self, flows: &[Flow], local: IpNet, net: IpNet) {
        let priority = self.priorities.network(Kind::Silent, net);
        self.add(priority, flows, between(local, net), Action::Discard, &Origin::OtherAddress(net));
    }

    /// Other addresses of this host have no SAs. What leaves from one of them to a protected network
    /// would leave in clear; an excluded address may do that, by the manifest.
    fn others(&mut self, others: &[IpAddr]) {
        let manifest = self.manifest;
        let mut list: BTreeSet<IpAddr> = others.iter().copied().filter(is_usable).collect();
        list.retain(|other| self.sides.iter().all(|side| side.address != *other));
        for other in list {
            let flows = match manifest.place_of(other) {
                Place::Excluded(_) => continue,
                Place::Protected(_) => BOTH,
                Place::Nowhere => &[Flow::Out][..],
            };
            if !self.is_anywhere() {
                continue;
            }
            for net in manifest.ipsec_subnets.iter().filter(|net| same_family(net, other)) {
                self.silent(flows, IpNet::from(other), *net);
            }
        }
    }

    fn protect(&self) -> Action {
        Action::Protect { mode: self.manifest.mode, reqid: FLEET, optional: self.manifest.optional }
    }

    fn is_anywhere(&self) -> bool {
        self.sides.iter().any(Side::is_here)
    }
}

/// Whether this host may be the one that the exception calls remote. All hosts read one list:
/// what one end passes, the other must pass too. To drop, one end is enough.
fn is_remote_of(me: IpAddr, exception: &Exception) -> bool {
    exception.action != ExceptionAction::Drop
        && exception.remote.is_none_or(|remote| remote.contains(&me))
}

fn of_family(me: IpAddr, nets: &[IpNet]) -> Vec<IpNet> {
    nets.iter().copied().filter(|net| same_family(net, me)).collect()
}

fn routes(plan: &Plan) -> (Vec<IpNet>, Vec<IpNet>) {
    let manifest = &plan.manifest;
    let clear: BTreeSet<IpNet> = manifest.no_ipsec_subnets.iter().copied().collect();
    let mut protected: BTreeSet<IpNet> = plan.protected_by_exception.iter().copied().collect();
    let anywhere = plan.sides.iter().any(|side| side.meets_fleet);
    let led = |net: &IpNet| plan.side(net.addr()).map_or(anywhere, |side| side.meets_fleet);
    let fleet = manifest.ipsec_subnets.iter().filter(|net| !clear.contains(net));
    protected.extend(fleet.filter(|net| led(net)));
    let has_wider = |net: &IpNet| {
        std::iter::successors(net.supernet(), IpNet::supernet)
            .any(|wider| protected.contains(&wider))
    };
    // Of a network that an exception protects in part every packet must be looked at.
    let looked_at =
        |net: &IpNet| plan.protected_by_exception.iter().any(|wider| wider.contains(net));
    let kept = clear.iter().copied().filter(|net| has_wider(net) && !looked_at(net)).collect();
    (protected.into_iter().collect(), kept)
}

fn known_peers(plan: &Plan) -> BTreeMap<IpAddr, PeerPlan> {
    let manifest = &plan.manifest;
    let named: BTreeMap<IpAddr, _> =
        manifest.peers.iter().map(|peer| (peer.address, peer)).collect();
    let single =
        manifest.ipsec_subnets.iter().filter(|net| net.prefix_len() == net.max_prefix_len());
    single
        .map(IpNet::addr)
        .chain(named.keys().copied())
        .filter(|address| plan.protects(*address))
        .map(|address| (address, PeerPlan::of(manifest, address, named.get(&address).copied())))
        .collect()
}

fn between(local: IpNet, remote: IpNet) -> PolicySelector {
    PolicySelector { local, remote, protocol: None, local_ports: None, remote_ports: None }
}

/// All addresses of a family.
fn everything(family: IpAddr) -> IpNet {
    match family {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    }
}

fn same_family(net: &IpNet, address: IpAddr) -> bool {
    net.addr().is_ipv4() == address.is_ipv4()
}
