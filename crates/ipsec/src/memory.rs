//! A data plane for simulated hosts and tests: the real SPD, SAD and ESP, and it watches what it is told to do.

use std::sync::Arc;

use crypto::Provider;

use crate::Instant;
use crate::change::{Batch, Change, Refusal};
use crate::dataplane::{Dataplane, DataplaneEvent, Snapshot};
use crate::pipeline::{Emit, OuterInfo, Pipeline, Verdict};
use crate::sa::{Direction, Sa, SaKey};
use crate::sad::Entry;

/// Violations remembered; the first ones tell the most.
pub const MAX_VIOLATIONS: usize = 64;

/// A [`Pipeline`] that checks every change against what must always hold.
pub struct Memory {
    pipeline: Pipeline,
    violations: Vec<Violation>,
    watches: bool,
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
        Self { pipeline, violations: Vec::new(), watches: true, unknown_removals: 0 }
    }

    /// Changes are not looked at any more: that takes time for each SA that there is.
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

    /// To be called after `apply` and about once a second; gives what waited for an SA.
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

    /// The pipeline itself.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    fn watch(&mut self, now: Instant, change: &Change) {
        match change {
            Change::AddSa(sa) => self.watch_sa(now, sa),
            Change::RemoveSa(key) if !self.has(*key) => self.unknown_removals += 1,
            _ => {}
        }
    }

    fn has(&self, key: SaKey) -> bool {
        self.sas().iter().any(|entry| entry.sa.key() == key)
    }

    fn watch_sa(&mut self, now: Instant, sa: &Sa) {
        if sa.encr_key.is_empty() && sa.integ_key.is_empty() {
            self.report(Violation::NoKeys(now, sa.key()));
        }
        for entry in self.sas().iter().filter(|entry| entry.sa.direction == sa.direction) {
            let same_key = entry.sa.encr_key == sa.encr_key && entry.sa.integ_key == sa.integ_key;
            let same_name = entry.sa.key() == sa.key();
            if same_name && !same_key {
                self.report(Violation::DuplicateSpi(now, sa.key()));
            }
            if same_key && !same_name && sa.direction == Direction::Out {
                self.report(Violation::SharedKey(now, sa.key(), entry.sa.key()));
            }
        }
    }

    fn report(&mut self, violation: Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        }
    }
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
