//! Policies: those of the plan, and those that follow from tunnels.

use std::collections::{BTreeMap, BTreeSet};

use ipsec::change::RefusalReason;
use ipsec::sa::{Mode, Sa};
use ipsec::spd::{self, Flow, PolicyKey};

use super::sas::is_outbound_tunnel;
use super::{Kernel, foreign_policy, refused};
use crate::errno::Errno;
use crate::raw::Ip;
use crate::xfrm::policy::{Action, Direction, Installed, Policy, Selector, Template};
use crate::xfrm::{Error, POLICY_INDEXES, split, state, uapi};

/// What names a policy in the kernel.
type Name = (Direction, Selector);

/// The policies that this process installed, and the indexes in use.
#[derive(Debug, Default)]
pub(super) struct Policies {
    planned: BTreeMap<PolicyKey, Planned>,
    held: BTreeMap<Name, Held>,
    indexes: BTreeSet<u32>,
    last: u32,
}

#[derive(Debug)]
struct Planned {
    policy: spd::Policy,
    names: Vec<Name>,
}

/// One in the kernel.
#[derive(Debug)]
struct Held {
    policy: Policy,
    index: u32,
    owner: Owner,
}

/// Why it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    /// It is this policy of the plan, or a part of it.
    Plan(PolicyKey),
    /// This policy of the plan asks for a tunnel, and there is one.
    Tunnel(PolicyKey),
}

impl Policies {
    /// `there`: what is in the kernel already.
    pub(super) fn new(there: &[Installed]) -> Self {
        let indexes = there.iter().map(|installed| installed.index);
        let indexes = indexes.filter(|index| POLICY_INDEXES.contains(index)).collect();
        Self { indexes, ..Self::default() }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = PolicyKey> {
        self.planned.keys().copied()
    }

    /// Whether the kernel has this as it should be, or need not have it.
    pub(super) fn agrees(&self, there: &Installed) -> bool {
        let held = self.held.get(&name(&there.policy));
        held.is_none_or(|held| held.policy == there.policy)
    }

    pub(super) fn holds(&self, there: &Installed) -> bool {
        self.held.contains_key(&name(&there.policy))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// An index that nobody has; its lowest three bits are the direction (`xfrm_policy_id2dir`).
    fn free_index(&mut self, direction: Direction) -> u32 {
        let steps = (POLICY_INDEXES.end() - POLICY_INDEXES.start()) / 8 + 1;
        loop {
            self.last = (self.last + 1) % steps;
            let index = POLICY_INDEXES.start() + self.last * 8 + direction as u32;
            // There are sixteen times as many as a host has policies.
            if !self.indexes.contains(&index) {
                return index;
            }
        }
    }

    fn enter(&mut self, policy: Policy, index: u32, owner: Owner) {
        let name = name(&policy);
        if let Some(old) = self.held.insert(name, Held { policy, index, owner }) {
            self.indexes.remove(&old.index);
        }
        self.indexes.insert(index);
    }

    fn take(&mut self, name: &Name) -> Option<Held> {
        let held = self.held.remove(name)?;
        self.indexes.remove(&held.index);
        Some(held)
    }

    fn owned_by(&self, owner: Owner) -> Vec<Name> {
        self.held.iter().filter(|(_, held)| held.owner == owner).map(|(name, _)| *name).collect()
    }
}

fn name(policy: &Policy) -> Name {
    (policy.direction, policy.selector)
}

impl Kernel {
    /// Installs a policy, in all its parts or not at all.
    pub(super) fn put_policy(&mut self, policy: &spd::Policy) -> Result<(), RefusalReason> {
        let key = policy.key();
        let Some(parts) = split::policies(policy) else {
            return Err(RefusalReason::Other(format!("the kernel has no such policy: {policy:?}")));
        };
        let mut names = Vec::with_capacity(parts.len());
        let mut fresh = Vec::new();
        for part in parts {
            let name = name(&part);
            match self.install(part, Owner::Plan(key)) {
                Ok(new) => fresh.extend(new.then_some(name)),
                Err(reason) => {
                    fresh.iter().for_each(|name| self.uninstall_quietly(name));
                    return Err(reason);
                }
            }
            names.push(name);
        }
        self.policies.planned.insert(key, Planned { policy: *policy, names });
        let tunnels: Vec<_> = self.sas.tunnels().cloned().collect();
        let wanted: Vec<_> = tunnels.iter().flat_map(|sa| tunnel_policies(policy, sa)).collect();
        self.keep_only(Owner::Tunnel(key), &wanted);
        wanted.into_iter().try_for_each(|part| self.install_tunnel(part, key))
    }

    /// Takes a policy away, and the tunnels' that followed from it.
    pub(super) fn remove_policy(&mut self, key: &PolicyKey) -> Result<(), RefusalReason> {
        self.keep_only(Owner::Tunnel(*key), &[]);
        let Some(planned) = self.policies.planned.remove(key) else {
            return self.remove_leftover(key);
        };
        for name in planned.names {
            // With another priority it has another owner by now.
            let owner = self.policies.held.get(&name).map(|held| held.owner);
            if owner == Some(Owner::Plan(*key)) {
                self.uninstall(&name)?;
            }
        }
        // What followed from it may follow from a wider one as well.
        let tunnels: Vec<_> = self.sas.tunnels().cloned().collect();
        tunnels.iter().try_for_each(|sa| self.add_tunnel(sa))
    }

    /// An outbound SA in tunnel mode is there: packets find it by policies that name its ends.
    pub(super) fn add_tunnel(&mut self, sa: &Sa) -> Result<(), RefusalReason> {
        if !is_outbound_tunnel(sa) {
            return Ok(());
        }
        for (part, key) in self.follows_from(sa) {
            self.install_tunnel(part, key)?;
        }
        Ok(())
    }

    /// It is gone: what no other SA between the same ends needs goes too.
    pub(super) fn remove_tunnel(&mut self, sa: &Sa) {
        let others: Vec<_> = self
            .sas
            .tunnels()
            .filter(|other| (other.src, other.dst, other.reqid) == (sa.src, sa.dst, sa.reqid))
            .cloned()
            .collect();
        let still: BTreeSet<_> = others
            .iter()
            .flat_map(|other| self.follows_from(other))
            .map(|(part, _)| name(&part))
            .collect();
        for (part, key) in self.follows_from(sa) {
            let name = name(&part);
            let owner = self.policies.held.get(&name).map(|held| held.owner);
            if still.contains(&name) {
                continue;
            }
            match owner {
                Some(Owner::Tunnel(_)) => self.uninstall_quietly(&name),
                Some(Owner::Plan(owner)) if owner == key => self.become_trap(&name, key),
                _ => {}
            }
        }
    }

    /// What the kernel has of ours, by the plan's names: as it should be, and altered. What follows from tunnels is put
    /// back here if it is missing.
    pub(super) fn observe_policies(&mut self) -> Result<(Vec<PolicyKey>, Vec<PolicyKey>), Error> {
        let there: BTreeMap<Name, Installed> = self
            .xfrm
            .installed()?
            .into_iter()
            .filter(|installed| POLICY_INDEXES.contains(&installed.index))
            .map(|installed| (name(&installed.policy), installed))
            .collect();
        let Policies { planned, held, .. } = &self.policies;
        let as_should_be = |name: &Name| {
            let (there, held) = (there.get(name), held.get(name));
            there.zip(held).is_some_and(|(there, held)| there.policy == held.policy)
        };
        let (mut keys, mut altered) = (BTreeSet::new(), Vec::new());
        for (key, planned) in planned {
            if planned.names.iter().all(as_should_be) {
                keys.insert(*key);
            } else if planned.names.iter().all(|name| there.contains_key(name)) {
                altered.push(*key);
            }
        }
        let left = there.values().filter(|there| !held.contains_key(&name(&there.policy)));
        keys.extend(left.map(|there| split::key(&there.policy)));
        let lost: Vec<_> = held
            .iter()
            .filter(|(name, held)| matches!(held.owner, Owner::Tunnel(_)) && !as_should_be(name))
            .map(|(_, held)| (held.policy.clone(), held.owner))
            .collect();
        for (policy, owner) in lost {
            if let Err(reason) = self.install(policy, owner) {
                tracing::warn!(%reason, "the policy of a tunnel cannot be put back");
            }
        }
        Ok((keys.into_iter().collect(), altered))
    }

    /// Installs what follows from a tunnel. The kernel has one policy for each selector: where the plan's own
    /// has the very same one, it becomes the tunnel's; where another of the plan's has it, that one decides.
    fn install_tunnel(&mut self, part: Policy, key: PolicyKey) -> Result<(), RefusalReason> {
        match self.policies.held.get(&name(&part)).map(|held| held.owner) {
            Some(Owner::Plan(owner)) if owner == key => {
                let priority = split::priority(key.priority).unwrap_or(part.priority);
                self.install(Policy { priority, ..part }, Owner::Plan(key)).map(drop)
            }
            Some(Owner::Plan(_)) => Ok(()),
            // Of two policies that ask for the same tunnel the one that is looked at first counts.
            Some(Owner::Tunnel(owner)) if owner.priority < key.priority => Ok(()),
            _ => self.install(part, Owner::Tunnel(key)).map(drop),
        }
    }

    /// A policy of the plan that had become a tunnel's is a trap again.
    fn become_trap(&mut self, name: &Name, key: PolicyKey) {
        let planned = self.policies.planned.get(&key).map(|planned| planned.policy);
        let parts = planned.and_then(|policy| split::policies(&policy)).unwrap_or_default();
        for part in parts.into_iter().filter(|part| self::name(part) == *name) {
            if let Err(reason) = self.install(part, Owner::Plan(key)) {
                tracing::warn!(%reason, "the trap behind a tunnel cannot be put back");
            }
        }
    }

    /// Installs one policy of the kernel's; `true` if there was none of the name.
    fn install(&mut self, policy: Policy, owner: Owner) -> Result<bool, RefusalReason> {
        let failed = |error: Error| refused(&error, "installing a policy");
        let index = self.policies.free_index(policy.direction);
        match self.xfrm.add_policy(&policy, index) {
            Ok(()) => {
                self.policies.enter(policy, index, owner);
                return Ok(true);
            }
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        let there = self.xfrm.policy(policy.direction, &policy.selector).map_err(failed)?;
        let Some(there) = there else {
            return Err(RefusalReason::Other(
                "a policy of the same name, which is not to be seen, is in the way".into(),
            ));
        };
        if !POLICY_INDEXES.contains(&there.index) {
            return Err(foreign_policy(&there));
        }
        if there.policy != policy {
            self.xfrm.replace_policy(&policy, there.index).map_err(failed)?;
        }
        self.policies.enter(policy, there.index, owner);
        Ok(false)
    }

    fn uninstall(&mut self, name: &Name) -> Result<(), RefusalReason> {
        let Some(held) = self.policies.take(name) else { return Ok(()) };
        self.xfrm.remove_index(held.index).map_err(|error| refused(&error, "removing a policy"))
    }

    fn uninstall_quietly(&mut self, name: &Name) {
        if let Err(reason) = self.uninstall(name) {
            tracing::warn!(%reason, "a policy stays behind");
        }
    }

    fn keep_only(&mut self, owner: Owner, wanted: &[Policy]) {
        let wanted: BTreeSet<_> = wanted.iter().map(name).collect();
        for name in self.policies.owned_by(owner) {
            if !wanted.contains(&name) {
                self.uninstall_quietly(&name);
            }
        }
    }

    /// A policy that an earlier process left.
    fn remove_leftover(&mut self, key: &PolicyKey) -> Result<(), RefusalReason> {
        let failed = |error: Error| refused(&error, "removing a policy");
        let direction = split::direction(key.flow);
        for selector in split::selectors(key.flow, &key.selector).unwrap_or_default() {
            if self.policies.held.contains_key(&(direction, selector)) {
                continue;
            }
            let there = self.xfrm.policy(direction, &selector).map_err(failed)?;
            let ours = there.filter(|there| {
                POLICY_INDEXES.contains(&there.index)
                    && split::plan_priority(there.policy.priority) == key.priority
            });
            if let Some(there) = ours {
                self.xfrm.remove_index(there.index).map_err(failed)?;
                self.policies.indexes.remove(&there.index);
            }
        }
        Ok(())
    }

    fn follows_from(&self, sa: &Sa) -> Vec<(Policy, PolicyKey)> {
        let planned = self.policies.planned.values().map(|planned| planned.policy);
        planned
            .flat_map(|policy| {
                tunnel_policies(&policy, sa).into_iter().map(move |part| (part, policy.key()))
            })
            .collect()
    }
}

/// What an outbound tunnel makes of a policy that asks for tunnels: the packets that both admit go by this SA. Looked at
/// just before the policy itself, which stays as the trap for the rest.
fn tunnel_policies(policy: &spd::Policy, sa: &Sa) -> Vec<Policy> {
    let asked = match policy.action {
        spd::Action::Protect { mode: Mode::Tunnel, reqid, .. } => reqid == sa.reqid,
        _ => false,
    };
    if !asked || policy.flow != Flow::Out {
        return Vec::new();
    }
    let template = Template {
        ip: Ip::of(sa.dst),
        src: Some(sa.src),
        dst: Some(sa.dst),
        protocol: uapi::PROTO_ESP,
        mode: uapi::MODE_TUNNEL,
        reqid: sa.reqid.0,
        // The kernel allows no other for tunnels, and the policy goes with the SA.
        optional: false,
    };
    let (Some(admitted), Some(parts)) = (state::selector(sa), split::policies(policy)) else {
        return Vec::new();
    };
    parts
        .into_iter()
        .filter_map(|part| {
            let mut selector = part.selector.intersect(&admitted)?;
            selector.interface = part.selector.interface;
            Some(Policy {
                direction: Direction::Out,
                selector,
                priority: split::just_before(part.priority),
                action: Action::Allow,
                mark: (0, 0),
                templates: vec![template],
            })
        })
        .collect()
}
