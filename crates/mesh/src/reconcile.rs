//! Desired minus observed: what the data plane must hold, what it holds, and the changes between.
//!
//! A lost SA is never installed again: with the same key its sequence numbers would begin anew,
//! and with them the nonces of an AEAD (RFC 4106 2, RFC 8750 5). Its child SA is replaced instead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ike::ChildId;
use ipsec::Spi;
use ipsec::change::Change;
use ipsec::dataplane::{SaUsage, Snapshot};
use ipsec::sa::{Direction, Outer, Sa, SaKey};
use ipsec::spd::{Policy, PolicyKey};
use serde::Serialize;

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
    /// The newest outbound SA to each peer: the one that a data plane sends through.
    newest: BTreeMap<IpAddr, SaKey>,
    /// Counts looks at the data plane: an entry changed since the last look was begun is not judged by it.
    look: u64,
    removed_since_look: BTreeSet<SaKey>,
    policies_changed_in: u64,
    manifest: bool,
    /// A look was judged since there is a manifest.
    looked: bool,
    repaired: Repaired,
}

/// Entries put right, by what was wrong with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Repaired {
    /// Policies that were gone.
    pub policies_missing: u64,
    /// Policies that did something else than they were put for.
    pub policies_altered: u64,
    /// Policies that carried our mark and nobody had asked for.
    pub policies_extra: u64,
    /// SAs that were gone.
    pub sas_missing: u64,
    /// SAs that were not any more what was installed.
    pub sas_altered: u64,
    /// SAs that carried our mark and nobody had asked for.
    pub sas_extra: u64,
    /// What an earlier process had left, and this one had no use for.
    pub left_behind: u64,
}

impl Repaired {
    /// Each kind with its name.
    pub fn kinds(&self) -> [(&'static str, u64); 7] {
        [
            ("policies_missing", self.policies_missing),
            ("policies_altered", self.policies_altered),
            ("policies_extra", self.policies_extra),
            ("sas_missing", self.sas_missing),
            ("sas_altered", self.sas_altered),
            ("sas_extra", self.sas_extra),
            ("left_behind", self.left_behind),
        ]
    }

    /// What somebody else had changed; not what was left behind.
    pub fn drift(&self) -> u64 {
        self.kinds().iter().map(|(_, n)| n).sum::<u64>() - self.left_behind
    }

    fn add(&mut self, other: &Self) {
        self.policies_missing += other.policies_missing;
        self.policies_altered += other.policies_altered;
        self.policies_extra += other.policies_extra;
        self.sas_missing += other.sas_missing;
        self.sas_altered += other.sas_altered;
        self.sas_extra += other.sas_extra;
        self.left_behind += other.left_behind;
    }

    fn words(&self) -> String {
        let found = self.kinds().into_iter().filter(|(_, n)| *n > 0);
        let words = found.map(|(kind, n)| format!("{n} {}", kind.replace('_', " ")));
        words.collect::<Vec<_>>().join(", ").replace("sas", "SAs")
    }
}

#[derive(Debug, Clone)]
struct Desired {
    owner: Owner,
    since_look: u64,
    /// Packets and bytes that were noted last.
    carried: (u64, u64),
    /// Not there for one that was taken over: only the data plane has its keys.
    sa: Option<Arc<Sa>>,
}

/// What a snapshot showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Changes that put it right, and tries at policies that were refused before.
    pub changes: Vec<Change>,
    /// SAs that are gone behind our back; their child SAs are to be replaced.
    pub lost: Vec<(SaKey, IpAddr, ChildId)>,
    /// What was found.
    pub found: Repaired,
    /// The same in words; empty if all was well.
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
    pub fn add_sa(&mut self, sa: Arc<Sa>, peer: IpAddr, child: ChildId) -> Change {
        let owner = Owner { peer, child, direction: sa.direction };
        let sa_there = Some(sa.clone());
        let desired = Desired { owner, since_look: self.look, carried: (0, 0), sa: sa_there };
        self.sas.insert(sa.key(), desired);
        self.note_newest(sa.key(), owner);
        self.removed_since_look.remove(&sa.key());
        Change::AddSa(sa)
    }

    /// An SA that the data plane has already.
    pub fn adopt(&mut self, key: SaKey, owner: Owner) {
        let desired = Desired { owner, since_look: self.look, carried: (0, 0), sa: None };
        self.sas.insert(key, desired);
        self.note_newest(key, owner);
    }

    fn note_newest(&mut self, key: SaKey, owner: Owner) {
        if owner.direction == Direction::Out {
            self.newest.insert(owner.peer, key);
        }
    }

    /// Whether packets to its peer go through another outbound SA, installed after this one. Of two that go to different
    /// places that depends on the data plane: one to the peer's home may come before a newer one to another gateway.
    pub fn is_superseded(&self, key: SaKey) -> bool {
        let newest = self.owner(key).and_then(|owner| self.newest.get(&owner.peer));
        newest.is_some_and(|newest| {
            *newest != key && newest.dst == key.dst && self.sas.contains_key(newest)
        })
    }

    /// An SA is not to be there any more.
    pub fn remove_sa(&mut self, key: SaKey) -> Change {
        if let Some(owner) = self.sas.remove(&key).map(|desired| desired.owner)
            && self.newest.get(&owner.peer) == Some(&key)
        {
            self.newest.remove(&owner.peer);
        }
        self.removed_since_look.insert(key);
        Change::RemoveSa(key)
    }

    /// An SA goes between other addresses; gives its name from here on. `None`, and nothing is changed, if there is none, or
    /// if that would be the name of another one.
    pub fn move_sa(&mut self, key: SaKey, outer: Outer) -> Option<SaKey> {
        let direction = self.sas.get(&key)?.owner.direction;
        let dst = if direction == Direction::In { outer.local } else { outer.remote };
        let new = SaKey { dst, ..key };
        if new != key && self.sas.contains_key(&new) {
            return None;
        }
        let mut desired = self.sas.remove(&key)?;
        let peer = desired.owner.peer;
        desired.since_look = self.look;
        if let Some(sa) = &mut desired.sa {
            Arc::make_mut(sa).relocate(outer);
        }
        self.sas.insert(new, desired);
        self.removed_since_look.insert(key);
        self.removed_since_look.remove(&new);
        if self.newest.get(&peer) == Some(&key) {
            self.newest.insert(peer, new);
        }
        Some(new)
    }

    /// Whose an SA is.
    pub fn owner(&self, key: SaKey) -> Option<Owner> {
        self.sas.get(&key).map(|d| d.owner)
    }

    /// Whose SAs go to an address.
    pub fn owners_at(&self, dst: IpAddr) -> impl Iterator<Item = Owner> {
        let [first, last] = [0, u32::MAX].map(|spi| SaKey { dst, spi: Spi(spi) });
        self.sas.range(first..=last).map(|(_, desired)| desired.owner)
    }

    /// The SAs that are to be there and were made by this process, keys included, by destination and SPI.
    pub fn sas(&self) -> impl Iterator<Item = &Sa> {
        self.sas.values().filter_map(|d| d.sa.as_deref())
    }

    /// The policies in force.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// The data plane refused this policy: it is tried again with every look, and is no drift while it is refused.
    /// False if it was refused before, and has not been there since.
    pub fn policy_refused(&mut self, key: PolicyKey) -> bool {
        self.refused.insert(key)
    }

    /// A look at the data plane begins: what changes from here on is not judged by it.
    pub fn begin_look(&mut self) {
        self.look += 1;
        self.removed_since_look.clear();
    }

    /// The SAs that a look shows to have carried something since that was last [noted](Self::note_carried); most have not.
    pub fn carried<'a>(&self, snapshot: &'a Snapshot) -> Vec<(Owner, &'a SaUsage)> {
        let mut shown: Vec<_> = snapshot.sas.iter().collect();
        shown.sort_unstable_by_key(|usage| usage.key);
        // Both are in order, and are gone through side by side.
        let mut desired = self.sas.iter().peekable();
        let carried = shown.into_iter().filter_map(|usage| {
            while desired.next_if(|(key, _)| **key < usage.key).is_some() {}
            let (key, known) = desired.peek()?;
            let more = **key == usage.key && known.carried != (usage.packets, usage.bytes);
            more.then_some((known.owner, usage))
        });
        carried.collect()
    }

    /// It is known what an SA has carried.
    pub fn note_carried(&mut self, usage: &SaUsage) {
        if let Some(desired) = self.sas.get_mut(&usage.key) {
            desired.carried = (usage.packets, usage.bytes);
        }
    }

    /// What a look showed. Nothing is changed before there was a manifest.
    pub fn observe(&mut self, snapshot: &Snapshot) -> Drift {
        let mut drift = Drift::default();
        if !self.manifest {
            return drift;
        }
        let (policies_missing, policies_altered) = self.missing_policies(snapshot, &mut drift);
        let mut extra = Vec::new();
        let (sas_missing, sas_altered) = self.missing_sas(snapshot, &mut drift, &mut extra);
        let policies_extra = self.extra_policies(snapshot, &mut drift);
        let sas_extra = self.extra_sas(extra, &mut drift);
        let extra = if self.looked {
            Repaired { policies_extra, sas_extra, ..Repaired::default() }
        } else {
            Repaired { left_behind: policies_extra + sas_extra, ..Repaired::default() }
        };
        drift.found =
            Repaired { policies_missing, policies_altered, sas_missing, sas_altered, ..extra };
        drift.text = drift.found.words();
        self.repaired.add(&drift.found);
        self.looked = true;
        drift
    }

    /// Entries put right since start.
    pub fn repaired(&self) -> Repaired {
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

    /// Missing ones and altered ones; those that were refused are tried again with them.
    fn missing_policies(&mut self, snapshot: &Snapshot, drift: &mut Drift) -> (u64, u64) {
        if self.policies_changed_in == self.look {
            return (0, 0);
        }
        let there: BTreeSet<_> = snapshot.policies.iter().collect();
        let altered: BTreeSet<_> = snapshot.altered_policies.iter().collect();
        self.refused.retain(|key| !there.contains(key));
        let (mut missing, mut other) = (0, 0);
        for (key, policy) in self.policies.iter().filter(|(key, _)| !there.contains(key)) {
            match (self.refused.contains(key), altered.contains(key)) {
                (true, _) => {}
                (false, true) => other += 1,
                (false, false) => missing += 1,
            }
            drift.changes.push(Change::PutPolicy(*policy));
        }
        (missing, other)
    }

    /// Missing ones and altered ones. The keys of the latter may be in use with numbers that were used already: they go.
    /// Those that are there and not desired are put into `extra`.
    fn missing_sas(
        &mut self,
        snapshot: &Snapshot,
        drift: &mut Drift,
        extra: &mut Vec<SaKey>,
    ) -> (u64, u64) {
        let mut there: Vec<_> = snapshot.sas.iter().map(|u| u.key).collect();
        there.sort_unstable();
        there.dedup();
        let altered: BTreeSet<_> = snapshot.altered_sas.iter().copied().collect();
        // Both are in order, and are gone through side by side.
        let mut there = there.into_iter().peekable();
        for (key, desired) in &self.sas {
            while let Some(other) = there.next_if(|other| other < key) {
                extra.push(other);
            }
            let right = there.next_if_eq(key).is_some() && !altered.contains(key);
            if desired.since_look < self.look && !right {
                drift.lost.push((*key, desired.owner.peer, desired.owner.child));
            }
        }
        extra.extend(there);
        let (mut missing, mut other) = (0, 0);
        for (key, ..) in &drift.lost {
            self.sas.remove(key);
            if altered.contains(key) {
                drift.changes.push(Change::RemoveSa(*key));
                other += 1;
            } else {
                missing += 1;
            }
        }
        (missing, other)
    }

    fn extra_policies(&self, snapshot: &Snapshot, drift: &mut Drift) -> u64 {
        if self.policies_changed_in == self.look {
            return 0;
        }
        let extra = snapshot.policies.iter().filter(|k| !self.policies.contains_key(k));
        let before = drift.changes.len();
        drift.changes.extend(extra.map(|k| Change::RemovePolicy(*k)));
        (drift.changes.len() - before) as u64
    }

    fn extra_sas(&self, mut extra: Vec<SaKey>, drift: &mut Drift) -> u64 {
        extra.retain(|key| !self.removed_since_look.contains(key));
        let before = drift.changes.len();
        drift.changes.extend(extra.into_iter().map(Change::RemoveSa));
        (drift.changes.len() - before) as u64
    }
}
