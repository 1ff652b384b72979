//! Desired minus observed: what the data plane must hold, what it holds, and the changes between.
//!
//! A lost SA is never installed again: with the same key its sequence numbers would begin anew,
//! and with them the nonces of an AEAD (RFC 4106 2, RFC 8750 5). Its child SA is replaced instead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ike::ChildId;
use ipsec::change::Change;
use ipsec::dataplane::Snapshot;
use ipsec::sa::{Direction, Sa, SaKey};
use ipsec::spd::{Policy, PolicyKey};

/// Whose an SA is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The peer.
    pub peer: IpAddr,
    /// The child SA.
    pub child: ChildId,
    /// Which of its two.
    pub direction: Direction,
}

/// What must be there.
#[derive(Debug, Default)]
pub struct Reconciler {
    policies: BTreeMap<PolicyKey, Policy>,
    refused: BTreeSet<PolicyKey>,
    sas: BTreeMap<SaKey, Desired>,
    /// Counts looks at the data plane: an entry changed since the last look was begun is not judged by it.
    look: u64,
    removed_since_look: BTreeSet<SaKey>,
    policies_changed_in: u64,
    manifest: bool,
    repaired: u64,
}

#[derive(Debug, Clone)]
struct Desired {
    owner: Owner,
    since_look: u64,
    /// Not there for one that was taken over: only the data plane has its keys.
    sa: Option<Box<Sa>>,
}

/// What a snapshot showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Changes that put it right.
    pub changes: Vec<Change>,
    /// SAs that are gone behind our back; their child SAs are to be replaced.
    pub lost: Vec<(SaKey, IpAddr, ChildId)>,
    /// What was found, in words; empty if all was well.
    pub text: String,
}

impl Reconciler {
    /// New policies in force: first the new ones, then the old ones go. No gap opens in between.
    pub fn set_policies(&mut self, policies: impl Iterator<Item = Policy>) -> Vec<Change> {
        let wanted: BTreeMap<PolicyKey, Policy> = policies.map(|p| (p.key(), p)).collect();
        let put = wanted.iter().filter(|(k, p)| self.policies.get(k) != Some(p));
        let mut changes: Vec<_> = put.map(|(_, p)| Change::PutPolicy(*p)).collect();
        let gone = self.policies.keys().filter(|k| !wanted.contains_key(k));
        changes.extend(gone.map(|k| Change::RemovePolicy(*k)));
        self.refused.retain(|k| wanted.contains_key(k));
        self.policies = wanted;
        self.policies_changed_in = self.look;
        self.manifest = true;
        changes
    }

    /// An SA is to be there.
    pub fn add_sa(&mut self, sa: Box<Sa>, peer: IpAddr, child: ChildId) -> Change {
        let owner = Owner { peer, child, direction: sa.direction };
        let desired = Desired { owner, since_look: self.look, sa: Some(sa.clone()) };
        self.sas.insert(sa.key(), desired);
        self.removed_since_look.remove(&sa.key());
        Change::AddSa(sa)
    }

    /// An SA that the data plane has already.
    pub fn adopt(&mut self, key: SaKey, owner: Owner) {
        self.sas.insert(key, Desired { owner, since_look: self.look, sa: None });
    }

    /// An SA is not to be there any more.
    pub fn remove_sa(&mut self, key: SaKey) -> Change {
        self.sas.remove(&key);
        self.removed_since_look.insert(key);
        Change::RemoveSa(key)
    }

    /// Whose an SA is.
    pub fn owner(&self, key: SaKey) -> Option<Owner> {
        self.sas.get(&key).map(|d| d.owner)
    }

    /// The SAs that are to be there and were made by this process, keys included, by destination and SPI.
    pub fn sas(&self) -> impl Iterator<Item = &Sa> {
        self.sas.values().filter_map(|d| d.sa.as_deref())
    }

    /// The policies in force.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// The data plane refused this policy: not counted as drift until there is another.
    /// False if it was refused before.
    pub fn policy_refused(&mut self, key: PolicyKey) -> bool {
        self.refused.insert(key)
    }

    /// A look at the data plane begins: what changes from here on is not judged by it.
    pub fn begin_look(&mut self) {
        self.look += 1;
        self.removed_since_look.clear();
    }

    /// What a look showed. Nothing is changed before there was a manifest.
    pub fn observe(&mut self, snapshot: &Snapshot) -> Drift {
        let mut drift = Drift::default();
        if !self.manifest {
            return drift;
        }
        let counts = [
            self.missing_policies(snapshot, &mut drift),
            self.missing_sas(snapshot, &mut drift),
            self.extra_policies(snapshot, &mut drift),
            self.extra_sas(snapshot, &mut drift),
        ];
        let names = ["policies missing", "SAs missing", "policies too many", "SAs too many"];
        let found = counts.iter().zip(names).filter(|(n, _)| **n > 0);
        drift.text = found.map(|(n, name)| format!("{n} {name}")).collect::<Vec<_>>().join(", ");
        self.repaired += counts.iter().sum::<usize>() as u64;
        drift
    }

    /// Entries put right since start.
    pub fn repaired(&self) -> u64 {
        self.repaired
    }

    /// How many policies and SAs are desired.
    pub fn desired(&self) -> (usize, usize) {
        (self.policies.len(), self.sas.len())
    }

    /// Everything of ours goes: SAs first, so that nothing is sent that the peer cannot read.
    pub fn flush(&mut self) -> Vec<Change> {
        let sas: Vec<_> = self.sas.keys().copied().collect();
        let mut changes: Vec<_> = sas.into_iter().map(|k| self.remove_sa(k)).collect();
        changes.extend(self.policies.keys().map(|k| Change::RemovePolicy(*k)));
        self.policies.clear();
        self.policies_changed_in = self.look;
        changes
    }

    fn missing_policies(&self, snapshot: &Snapshot, drift: &mut Drift) -> usize {
        if self.policies_changed_in == self.look {
            return 0;
        }
        let there: BTreeSet<_> = snapshot.policies.iter().collect();
        let missing =
            self.policies.iter().filter(|(k, _)| !there.contains(k) && !self.refused.contains(k));
        let before = drift.changes.len();
        drift.changes.extend(missing.map(|(_, p)| Change::PutPolicy(*p)));
        drift.changes.len() - before
    }

    fn missing_sas(&mut self, snapshot: &Snapshot, drift: &mut Drift) -> usize {
        let there: BTreeSet<_> = snapshot.sas.iter().map(|u| u.key).collect();
        let look = self.look;
        let lost = self.sas.iter().filter(|(k, d)| d.since_look < look && !there.contains(k));
        drift.lost = lost.map(|(k, d)| (*k, d.owner.peer, d.owner.child)).collect();
        for (key, ..) in &drift.lost {
            self.sas.remove(key);
        }
        drift.lost.len()
    }

    fn extra_policies(&self, snapshot: &Snapshot, drift: &mut Drift) -> usize {
        if self.policies_changed_in == self.look {
            return 0;
        }
        let extra = snapshot.policies.iter().filter(|k| !self.policies.contains_key(k));
        let before = drift.changes.len();
        drift.changes.extend(extra.map(|k| Change::RemovePolicy(*k)));
        drift.changes.len() - before
    }

    fn extra_sas(&self, snapshot: &Snapshot, drift: &mut Drift) -> usize {
        let known = |k: &SaKey| self.sas.contains_key(k) || self.removed_since_look.contains(k);
        let extra = snapshot.sas.iter().map(|u| u.key).filter(|k| !known(k));
        let before = drift.changes.len();
        drift.changes.extend(extra.map(Change::RemoveSa));
        drift.changes.len() - before
    }
}
