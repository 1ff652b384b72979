//! IPv6 rules behind the one that leads into our table: what the table did not take is dropped.
//!
//! A socket bound to an interface sees only routes by that interface, so neither the route into the device nor the
//! blackhole behind it. A rule that drops is asked all the same. (IPv4 takes a network without a route for one on the
//! link then; kernel policies stand in its way, see `guard`. IPv6 has no way past such policies for the device.)

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Config, Networks};
use crate::raw::Ip;
use crate::route::{Error, Route, Rtnl, Rule, RuleAction};

/// `RTPROT_*` number of our routes and rules; free for use in `/etc/iproute2/rt_protos`.
pub(super) const PROTOCOL: u8 = 141;
/// From the first of our rules to the last: one for our own packets, two for each prefix length, one to go on.
const WIDTH: u32 = 2 * 129 + 2;

/// Puts these rules where the barrier is. None for networks that may pass in the clear.
pub(super) fn sync(rtnl: &mut Rtnl, config: &Config, networks: &Networks) -> Result<(), Error> {
    let wanted = wanted(config, networks);
    let there: Vec<Rule> = ours(rtnl, config.rule_priority)?;
    // The way past for what is ours and what is excluded comes first, and goes last.
    for rule in wanted.iter().filter(|rule| !there.contains(rule)) {
        rtnl.add_rule(rule)?;
    }
    for rule in there.iter().rev().filter(|rule| !wanted.contains(rule)) {
        rtnl.delete_rule(rule)?;
    }
    Ok(())
}

/// Takes them away.
pub(super) fn remove(rtnl: &mut Rtnl, rule_priority: u32) -> Result<(), Error> {
    ours(rtnl, rule_priority)?.iter().try_for_each(|rule| rtnl.delete_rule(rule))
}

fn ours(rtnl: &mut Rtnl, first: u32) -> Result<Vec<Rule>, Error> {
    let mut rules = rtnl.rules()?;
    rules.retain(|rule| {
        rule.ip == Ip::V6
            && rule.protocol == PROTOCOL
            && (first + 1..=first + WIDTH).contains(&rule.priority)
    });
    Ok(rules)
}

fn wanted(config: &Config, networks: &Networks) -> Vec<Rule> {
    let v6 = |nets: &[IpNet]| -> BTreeSet<IpNet> {
        nets.iter().copied().filter(|net| net.addr().is_ipv6()).collect()
    };
    let first = config.rule_priority + 1;
    let end = config.rule_priority + WIDTH;
    let rule = |priority, action| Rule {
        ip: Ip::V6,
        priority,
        src: None,
        dst: None,
        iif: None,
        mark: None,
        invert: false,
        action,
        protocol: PROTOCOL,
    };
    // The longest prefix first; of one length those that pass.
    let place = |net: &IpNet, kind| {
        first + 1 + 2 * u32::from(net.max_prefix_len() - net.prefix_len()) + kind
    };
    let blocked = if networks.optional { BTreeSet::new() } else { v6(&networks.protected) };
    if blocked.is_empty() {
        return Vec::new();
    }
    let mut all = vec![
        rule(end, RuleAction::Nothing),
        Rule { mark: Some((config.mark, u32::MAX)), ..rule(first, RuleAction::Goto(end)) },
    ];
    for net in v6(&networks.clear) {
        all.push(Rule { dst: Some(net), ..rule(place(&net, 0), RuleAction::Goto(end)) });
    }
    for net in blocked {
        all.push(Rule { dst: Some(net), ..rule(place(&net, 1), RuleAction::Blackhole) });
    }
    all
}

/// What a data plane without a process leaves: rules, and the routes of its table.
pub(crate) fn remove_leftovers(rtnl: &mut Rtnl) -> Result<(), Error> {
    let config = Config::new(Vec::new());
    for ip in [Ip::V4, Ip::V6] {
        rtnl.delete_rule(&Rule::unmarked(ip, config.rule_priority, config.mark, config.table))?;
    }
    remove(rtnl, config.rule_priority)?;
    let routes: Vec<Route> = rtnl.routes(Some(config.table))?;
    routes
        .iter()
        .filter(|route| route.protocol == PROTOCOL)
        .try_for_each(|route| rtnl.delete_route(route))
}
