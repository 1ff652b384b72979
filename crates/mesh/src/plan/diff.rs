//! What a new manifest changes for one host, before anything happens.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipsec::spd::{Flow, Policy, PolicySelector};

use super::Plan;
use crate::manifest::Manifest;

/// The difference of two plans of one host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlanDiff {
    /// Policies for packets that had none of their own.
    pub policies_added: Vec<Policy>,
    /// Policies that are gone.
    pub policies_removed: Vec<Policy>,
    /// Policies for the same packets that now say something else, or stand elsewhere: old and new.
    pub policies_changed: Vec<(Policy, Policy)>,
    /// Known peers that are new.
    pub peers_added: Vec<IpAddr>,
    /// Known peers that are gone.
    pub peers_removed: Vec<IpAddr>,
    /// Known peers with which something of their own changed.
    pub peers_changed: Vec<IpAddr>,
    /// What changed for all.
    pub settings: SettingsDiff,
    /// Whether the networks that the userspace data plane is routed changed.
    pub routes: bool,
}

/// Which of the settings for all peers changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SettingsDiff {
    /// Certificates, key or PSK: used from the next authentication on.
    pub identity: bool,
    /// `cluster`.
    pub cluster: bool,
    /// `ike_proposals` or `ike_version`: used from the next IKE SA on.
    pub ike: bool,
    /// `esp_proposals`, `mode`, `compression` or `force_udp_encapsulation`: used from the next child SA on.
    pub esp: bool,
    /// Lifetimes, dpd, liveness: used from the next timer on.
    pub timers: bool,
    /// `optional`.
    pub optional: bool,
    /// Log level, timeouts, expiry periods, Windows: nothing between hosts.
    pub local: bool,
}

impl Plan {
    /// What this plan changes with respect to an older one.
    pub fn diff(&self, old: &Self) -> PlanDiff {
        let mut diff = PlanDiff {
            settings: settings(&self.manifest, &old.manifest),
            routes: (&self.protected, &self.clear) != (&old.protected, &old.clear),
            ..PlanDiff::default()
        };
        policies(self, old, &mut diff);
        for (address, peer) in &self.peers {
            match old.peers.get(address) {
                None => diff.peers_added.push(*address),
                Some(before) if before != peer => diff.peers_changed.push(*address),
                Some(_) => {}
            }
        }
        diff.peers_removed =
            old.peers.keys().filter(|a| !self.peers.contains_key(a)).copied().collect();
        diff
    }
}

fn policies(new: &Plan, old: &Plan, diff: &mut PlanDiff) {
    let by_packets = |plan: &Plan| -> BTreeMap<(Flow, PolicySelector), Policy> {
        plan.policies.iter().map(|p| ((p.policy.flow, p.policy.selector), p.policy)).collect()
    };
    let before = by_packets(old);
    let after = by_packets(new);
    for planned in &new.policies {
        let policy = planned.policy;
        match before.get(&(policy.flow, policy.selector)) {
            None => diff.policies_added.push(policy),
            Some(was) if *was != policy => diff.policies_changed.push((*was, policy)),
            Some(_) => {}
        }
    }
    let gone = old
        .policies
        .iter()
        .map(|p| p.policy)
        .filter(|p| !after.contains_key(&(p.flow, p.selector)));
    diff.policies_removed.extend(gone);
}

fn settings(new: &Manifest, old: &Manifest) -> SettingsDiff {
    SettingsDiff {
        identity: new.credentials != old.credentials || new.ppk != old.ppk,
        cluster: new.cluster != old.cluster,
        ike: new.ike_proposals != old.ike_proposals
            || new.ike_version != old.ike_version
            || new.mobike != old.mobike,
        esp: new.esp_proposals != old.esp_proposals
            || new.mode != old.mode
            || new.compression != old.compression
            || new.force_udp_encapsulation != old.force_udp_encapsulation,
        timers: new.lifetimes != old.lifetimes
            || (new.dpdaction, new.dpddelay) != (old.dpdaction, old.dpddelay)
            || new.liveness != old.liveness
            || new.start != old.start,
        optional: new.optional != old.optional,
        local: new.log_level != old.log_level
            || new.expiry != old.expiry
            || new.windows != old.windows
            || new.optional_warn_interval != old.optional_warn_interval
            || (new.prestart_timeout, new.stop_timeout) != (old.prestart_timeout, old.stop_timeout),
    }
}

impl PlanDiff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for PlanDiff {
    /// One line for each thing that changes; empty where nothing does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (sign, peers) in
            [("+", &self.peers_added), ("-", &self.peers_removed), ("~", &self.peers_changed)]
        {
            for peer in peers {
                writeln!(f, "{sign} peer {peer}")?;
            }
        }
        for policy in &self.policies_added {
            writeln!(f, "+ {}", super::describe::line(policy))?;
        }
        for policy in &self.policies_removed {
            writeln!(f, "- {}", super::describe::line(policy))?;
        }
        for (old, new) in &self.policies_changed {
            writeln!(
                f,
                "~ {} (was {})",
                super::describe::line(new),
                super::describe::action(&old.action)
            )?;
        }
        let s = &self.settings;
        let names = [
            (s.identity, "certificates or psk: used from the next authentication on"),
            (s.cluster, "cluster: other hosts are peers now"),
            (s.ike, "IKE proposals: used from the next IKE SA on"),
            (s.esp, "ESP proposals, mode or encapsulation: used from the next child SA on"),
            (s.timers, "lifetimes and timers"),
            (s.optional, "optional"),
            (s.local, "settings of this host alone"),
        ];
        for (_, name) in names.iter().filter(|(changed, _)| *changed) {
            writeln!(f, "~ {name}")?;
        }
        Ok(())
    }
}
