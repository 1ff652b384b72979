//! A data plane for simulated hosts and tests: the real SPD, SAD and ESP, and it watches what it is told to do.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crypto::Provider;

use crate::Instant;
use crate::change::{Batch, Change, Refusal};
use crate::dataplane::{Dataplane, DataplaneEvent, Snapshot};
use crate::pipeline::{Emit, OuterInfo, Pipeline, Verdict};
use crate::sa::{Direction, Outer, Sa, SaKey};
use crate::sad::Entry;

/// Violations remembered; the first ones tell the most.
pub const MAX_VIOLATIONS: usize = 64;

/// A [`Pipeline`] that checks every change against what must always hold.
pub struct Memory {
    pipeline: Pipeline,
    violations: Vec<Violation>,
    watches: bool,
    /// Who has which key, by its digest, among SAs that send. Some may be gone.
    senders: BTreeMap<u64, SaKey>,
    /// Those that are gone are forgotten when it holds more than this.
    most_senders: usize,
    unknown_removals: u64,
}

/// Something that no correct sequence of changes contains.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// An SA was replaced by one with other keys: an SPI was given out twice.
    #[error("at {0} the SPI of {1:?} was used for a second SA")]
    DuplicateSpi(Instant, SaKey),
    /// An SA came without keys.
    #[error("at {0} {1:?} was installed without keys")]
    NoKeys(Instant, SaKey),
    /// Two SAs that send have the same key: nonces would be used twice.
    #[error("at {0} {1:?} was installed with the key of {2:?}")]
    SharedKey(Instant, SaKey, SaKey),
    /// A change was refused.
    #[error("at {0} a change was refused: {1}")]
    Refused(Instant, String),
}

impl Memory {
    /// Without SAs and policies.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        let pipeline = Pipeline::new(provider);
        let (violations, senders) = Default::default();
        let watches = true;
        Self { pipeline, violations, watches, senders, most_senders: 0, unknown_removals: 0 }
    }

    /// Changes are not looked at any more: for measurements.
    pub fn set_unwatched(&mut self) {
        self.watches = false;
    }

    /// A packet of this host's stack; what becomes of it.
    pub fn send(&mut self, now: Instant, mut packet: Vec<u8>) -> Vec<Emit> {
        let mut emit = Vec::new();
        self.pipeline.outbound(now, &mut packet, &mut emit);
        emit
    }

    /// An ESP packet from the wire; what becomes of it.
    pub fn receive(&mut self, now: Instant, outer: OuterInfo, mut esp: Vec<u8>) -> Vec<Emit> {
        let mut emit = Vec::new();
        self.pipeline.inbound(now, outer, &mut esp, &mut emit);
        emit
    }

    /// A packet that came in the clear.
    pub fn receive_clear(&mut self, now: Instant, packet: &[u8]) -> Verdict {
        self.pipeline.clear_in(now, packet)
    }

    /// To be called after `apply`; gives what waited for these changes.
    pub fn release_for(&mut self, now: Instant, batch: &Batch) -> Vec<Emit> {
        let mut emit = Vec::new();
        self.pipeline.release_for(now, batch, &mut emit);
        emit
    }

    /// To be called about once a second; gives what waits and need not any more.
    pub fn tick(&mut self, now: Instant) -> Vec<Emit> {
        let mut emit = Vec::new();
        self.pipeline.tick(now, &mut emit);
        emit
    }

    /// What should never have happened, oldest first.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Removals of SAs that were not there. Lawful, but many of them are a sign.
    pub fn unknown_removals(&self) -> u64 {
        self.unknown_removals
    }

    /// The SAs, inbound first.
    pub fn sas(&self) -> Vec<Arc<Entry>> {
        self.pipeline.sas()
    }

    /// Grows whenever an SA comes, goes, or moves.
    pub fn sa_changes(&self) -> u64 {
        self.pipeline.sa_changes()
    }

    /// The pipeline itself.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    fn watch(&mut self, now: Instant, change: &Change) {
        match change {
            Change::AddSa(sa) => self.watch_sa(now, sa),
            Change::RemoveSa(key) if !self.has(*key) => self.unknown_removals += 1,
            Change::MoveSa { key, outer } => self.watch_move(*key, *outer),
            _ => {}
        }
    }

    fn has(&self, key: SaKey) -> bool {
        let there = |direction| self.pipeline.sa(direction, key).is_some();
        there(Direction::In) || there(Direction::Out)
    }

    fn watch_sa(&mut self, now: Instant, sa: &Sa) {
        if sa.encr_key.is_empty() && sa.integ_key.is_empty() {
            self.report(Violation::NoKeys(now, sa.key()));
        }
        let namesake = self.pipeline.sa(sa.direction, sa.key());
        if namesake.is_some_and(|there| !have_one_key(&there.sa, sa)) {
            self.report(Violation::DuplicateSpi(now, sa.key()));
        }
        if sa.direction == Direction::Out {
            self.watch_key(now, sa);
        }
    }

    fn watch_key(&mut self, now: Instant, sa: &Sa) {
        if self.senders.len() > self.most_senders {
            let pipeline = &self.pipeline;
            self.senders.retain(|_, key| pipeline.sa(Direction::Out, *key).is_some());
            self.most_senders = 2 * self.senders.len() + 64;
        }
        let Some(other) = self.senders.insert(digest(sa), sa.key()) else { return };
        let there = self.pipeline.sa(Direction::Out, other);
        if other != sa.key() && there.is_some_and(|there| have_one_key(&there.sa, sa)) {
            self.report(Violation::SharedKey(now, sa.key(), other));
        }
    }

    fn watch_move(&mut self, key: SaKey, outer: Outer) {
        if let Some(there) = self.pipeline.sa(Direction::Out, key) {
            self.senders.insert(digest(&there.sa), SaKey { dst: outer.remote, ..key });
        }
    }

    fn report(&mut self, violation: Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        }
    }
}

fn have_one_key(a: &Sa, b: &Sa) -> bool {
    a.encr_key == b.encr_key && a.integ_key == b.integ_key
}

fn digest(sa: &Sa) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sa.encr_key.expose(), sa.integ_key.expose()).hash(&mut hasher);
    hasher.finish()
}

impl Dataplane for Memory {
    fn apply(&mut self, now: Instant, batch: &Batch) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (index, change) in batch.0.iter().enumerate() {
            if self.watches {
                self.watch(now, change);
            }
            for refusal in self.pipeline.apply(now, &Batch(vec![change.clone()])) {
                self.report(Violation::Refused(now, refusal.reason.to_string()));
                refusals.push(Refusal { index, ..refusal });
            }
        }
        refusals
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.pipeline.snapshot(now)
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        self.pipeline.poll_event()
    }
}
