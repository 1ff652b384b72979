//! Compares the manifest in force with one that may come to be, pair by pair.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ike::Now;
use ipsec::spd::{Action, Flow};

use super::Mesh;
use crate::fleet::Fleet;
use crate::loaded::Loaded;
use crate::plan::Plan;
use crate::radius::{Effect, PairChange, Radius};
use crate::status::State;

/// One thing that becomes of a host's traffic: which way, which of it, what.
type Rule = (Flow, Option<u8>, Option<(u16, u16)>, Option<(u16, u16)>, Action);

impl Mesh {
    /// What `new` would do to each pair that is known: in either manifest, or seen. Nothing is changed.
    pub fn radius(&self, now: Now, new: &Loaded) -> Radius {
        let Some(old) = &self.fleet else { return Radius::default() };
        let new = Fleet::new(new.clone(), self.identity.data_plane);
        let known = [old, &new].into_iter().flat_map(|fleet| fleet.known().map(|(peer, _)| peer));
        let all: BTreeSet<IpAddr> =
            known.chain(self.peers.iter().map(|(address, _)| address)).collect();
        let mut radius = Radius::default();
        for address in all {
            let tunnel = self.peers.get(address);
            let state = tunnel.map_or(State::Idle, |peer| peer.state(now.at, false));
            match effect(old, &new, address, state) {
                None => radius.untouched += 1,
                Some((effect, because)) => {
                    let name = new.name(address).or_else(|| old.name(address)).map(str::to_owned);
                    radius.changed.push(PairChange { address, name, state, effect, because });
                }
            }
        }
        radius
    }
}

fn effect(old: &Fleet, new: &Fleet, peer: IpAddr, state: State) -> Option<(Effect, String)> {
    let (before, after) = (rules(old.plan(), peer), rules(new.plan(), peer));
    if before != after
        && let Some(worse) = worse(&before, &after, state)
    {
        return Some(worse);
    }
    let say = |effect, text: &str| Some((effect, text.to_owned()));
    match (old.is_peer(peer), new.is_peer(peer)) {
        (true, false) => say(Effect::Removed, "nothing of its traffic is protected any more"),
        (false, true) => say(Effect::Added, "its traffic is protected from then on"),
        (true, true) if !new.same_tunnel(old, peer) && has_tunnel(state) => say(
            Effect::Renegotiated,
            "proposals, mode, compression, encapsulation or its own settings change",
        ),
        (true, true) if before != after => say(Effect::PoliciesChange, "its tunnel stays"),
        _ => None,
    }
}

fn has_tunnel(state: State) -> bool {
    matches!(state, State::Up | State::HalfUp | State::Connecting)
}

/// What becomes of a host's traffic, in the order in which that is decided; what nobody decides on passes.
fn rules(plan: &Plan, peer: IpAddr) -> Vec<Rule> {
    let mine = plan.policies().iter().map(|planned| planned.policy);
    mine.filter(|policy| policy.selector.remote.contains(&peer))
        .filter(|policy| plan.own(peer).is_some_and(|own| policy.selector.local.contains(&own)))
        .map(|p| {
            let s = p.selector;
            (p.flow, s.protocol, s.local_ports, s.remote_ports, p.action)
        })
        .collect()
}

/// Traffic that is not protected any more, or does not pass any more.
fn worse(before: &[Rule], after: &[Rule], state: State) -> Option<(Effect, String)> {
    let is_all = |rule: &&Rule| rule.1.is_none() && rule.2.is_none() && rule.3.is_none();
    let all = |rules: &[Rule]| {
        let out = rules.iter().filter(|rule| rule.0 == Flow::Out);
        out.clone().find(is_all).map_or(Action::Bypass, |rule| rule.4)
    };
    let say = |effect, text: &str| Some((effect, text.to_owned()));
    match (all(before), all(after)) {
        (Action::Protect { .. }, Action::Bypass) => {
            return say(Effect::GoesClear, "all of its traffic passes in the clear");
        }
        (Action::Protect { optional: false, .. }, Action::Protect { optional: true, .. }) => {
            return say(Effect::GoesClear, "wherever there is no tunnel: `optional: true`");
        }
        (Action::Bypass | Action::Protect { .. }, Action::Discard) => {
            return say(Effect::CutOff, "all of its traffic is dropped");
        }
        (Action::Protect { optional: true, .. }, Action::Protect { optional: false, .. })
            if state != State::Up =>
        {
            return say(Effect::CutOff, "until it has a tunnel, which it has not now");
        }
        _ => {}
    }
    let fresh = after.iter().filter(|rule| !before.contains(rule));
    let has = |wanted: fn(&Action) -> bool| fresh.clone().any(|rule| wanted(&rule.4));
    let protected = matches!(all(before), Action::Protect { .. });
    if protected && has(|action| *action == Action::Bypass) {
        return say(Effect::GoesClear, "some of its traffic passes in the clear");
    }
    if has(|action| *action == Action::Discard) {
        return say(Effect::CutOff, "some of its traffic is dropped");
    }
    None
}
