//! The kernel as a data plane.

mod events;
mod policies;
mod sas;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ipsec::Instant;
use ipsec::change::{Batch, Change, Refusal, RefusalReason};
use ipsec::dataplane::{Dataplane, DataplaneEvent, SaUsage, Snapshot};
use ipsec::sa::SaKey;

use super::connection::Xfrm;
use super::event::Events;
use super::settings::{Counters, Setting};
use super::state::State;
use super::{Error, POLICY_INDEXES, REQIDS};
use crate::errno::Errno;
use policies::Policies;
use sas::Sas;

/// How long the kernel waits for the SA that it asked for before the next packet makes it ask again, in seconds. The
/// kernel's own 30 make a peer that comes back wait; IKE knows by itself what it is doing already.
const ACQUIRE_SECONDS: &str = "6";

/// The kernel's SAs and policies as a data plane.
///
/// Entries are ours by number: SAs by a reqid of [`REQIDS`], policies by an index of [`POLICY_INDEXES`]. No other entry
/// is listed, changed or removed; where one has the name of one of ours, the change is refused. What an earlier process
/// left is taken over when it is asked for again, and listed until then.
///
/// The packet that asks for an SA is lost and has to be sent again. The kernel could hold it
/// (`net.core.xfrm_larval_drop` 0), but in one queue for each policy, whose first packet all others wait for: behind a
/// packet to a host that is down, connections to all other hosts of its network time out.
///
/// The kernel does not report ESP for unknown SPIs, nor cleartext that it refused: both only count
/// ([`Snapshot::counters`]).
///
/// The file descriptor is readable when [`Dataplane::poll_event`] has something to tell.
#[derive(Debug)]
pub struct Kernel {
    xfrm: Xfrm,
    events: Events,
    counters: Counters,
    policies: Policies,
    sas: Sas,
    /// Packets of each SA at the last look, and when it was used.
    seen: BTreeMap<SaKey, (u64, Option<Instant>)>,
    waiting: VecDeque<DataplaneEvent>,
    drifted: bool,
    _settings: Vec<Setting>,
}

impl Kernel {
    /// Opens the kernel's databases in this thread's network namespace. Some of its settings are changed there
    /// (`net.core.xfrm_*`) until the value goes.
    ///
    /// [`super::probe`] tells whether that kernel has ESP.
    pub fn open() -> Result<Self, Error> {
        Self::open_with(None)
    }

    /// The same. What the settings were before is kept in `state_dir`, so that a process after one that was killed can
    /// put them back.
    pub fn open_with(state_dir: Option<&Path>) -> Result<Self, Error> {
        let mut xfrm = Xfrm::open()?;
        let events = Events::open()?;
        let policies = Policies::new(&xfrm.installed()?);
        let acquire = Setting::set("xfrm_acq_expires", ACQUIRE_SECONDS, state_dir);
        Ok(Self {
            xfrm,
            events,
            counters: Counters::open(),
            policies,
            sas: Sas::default(),
            seen: BTreeMap::new(),
            waiting: VecDeque::new(),
            drifted: false,
            _settings: acquire.into_iter().collect(),
        })
    }

    fn change(&mut self, change: &Change) -> Result<(), RefusalReason> {
        match change {
            Change::AddSa(sa) => self.add_sa(sa),
            Change::AdoptSa(sa) => self.adopt_sa(sa),
            Change::RemoveSa(key) => self.remove_sa(*key),
            Change::MoveSa { key, outer } => self.move_sa(*key, *outer),
            Change::PutPolicy(policy) => self.put_policy(policy),
            Change::RemovePolicy(key) => self.remove_policy(key),
            Change::DropQueued(peer) => self.drop_queued(*peer),
        }
    }

    /// The kernel did not answer: what should be there is taken for what is, since a daemon that believed all to be lost
    /// would replace every SA.
    fn believed(&self) -> Snapshot {
        let sas = self.sas.keys().map(|key| SaUsage {
            key,
            bytes: 0,
            packets: 0,
            last_used: None,
            replays: 0,
            bad_icv: 0,
        });
        let policies = self.policies.keys().collect();
        Snapshot { sas: sas.collect(), policies, ..Snapshot::default() }
    }

    fn look(&mut self, now: Instant) -> Result<Snapshot, Error> {
        let mut states = self.xfrm.states(None)?;
        let (policies, altered_policies) = self.observe_policies()?;
        states.retain(|state| state.is_ours() && !state.is_larval());
        states.sort_by_key(|state| state.key);
        let mut sas = Vec::with_capacity(states.len());
        let (mut seen, mut altered_sas) = (BTreeMap::new(), Vec::new());
        for state in &states {
            let last_used = self.last_used(now, state);
            seen.insert(state.key, (state.packets, last_used));
            sas.push(usage(state, last_used));
            match self.sas.get_mut(state.key) {
                Some(known) if known.agrees(state) => known.note(state),
                Some(_) => altered_sas.push(state.key),
                None => {}
            }
        }
        self.seen = seen;
        let counters = self.counters.read();
        Ok(Snapshot { sas, policies, altered_sas, altered_policies, counters })
    }
}

impl Kernel {
    /// Linux tells since 6.2; before that, packets more than at the last look were carried by now at the latest.
    fn last_used(&self, now: Instant, state: &State) -> Option<Instant> {
        let told = state.last_used.map(|seconds| instant_of(now, seconds));
        told.or_else(|| match self.seen.get(&state.key) {
            Some((packets, last_used)) if *packets == state.packets => *last_used,
            _ => (state.packets > 0).then_some(now),
        })
    }
}

impl Dataplane for Kernel {
    fn apply(&mut self, _now: Instant, batch: &Batch) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (index, change) in batch.0.iter().enumerate() {
            if let Err(reason) = self.change(change) {
                tracing::debug!(index, %reason, "the kernel refused a change");
                refusals.push(Refusal { index, reason });
            }
        }
        refusals
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.look(now).unwrap_or_else(|error| {
            tracing::warn!(%error, "SAs and policies cannot be read");
            self.drifted = true;
            self.believed()
        })
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        self.next_event()
    }
}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn usage(state: &State, last_used: Option<Instant>) -> SaUsage {
    SaUsage {
        key: state.key,
        bytes: state.bytes,
        packets: state.packets,
        last_used,
        replays: state.replays,
        bad_icv: state.bad_icv,
    }
}

/// The kernel's clock is that of the wall, in whole seconds.
fn instant_of(now: Instant, seconds: u64) -> Instant {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(1 << 40));
    let ago = SystemTime::now().duration_since(then).unwrap_or_default();
    let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
    Instant::from_nanos(now.as_nanos().saturating_sub(ago))
}

/// A refusal of the kernel's, with what can be done about it.
fn refused(error: &Error, what: &str) -> RefusalReason {
    let text = format!("{what}: {error}");
    match error.errno() {
        Some(Errno::EPERM | Errno::EACCES) => RefusalReason::Denied(text),
        Some(Errno::ENOSPC | Errno::E2BIG) => RefusalReason::Full(text),
        Some(Errno::ENOMEM | Errno::ENOBUFS) => RefusalReason::NoMemory(text),
        Some(Errno::EEXIST) => RefusalReason::Conflict(text),
        Some(Errno::ENOSYS | Errno::EPROTONOSUPPORT | Errno::EOPNOTSUPP) => {
            RefusalReason::NoAlgorithm(text)
        }
        Some(Errno::ESRCH | Errno::ENOENT) => RefusalReason::Gone(format!(
            "{text}; somebody else removes entries: see `ip xfrm monitor`"
        )),
        _ => RefusalReason::Other(text),
    }
}

/// The remedy for a foreign SA under the name of ours.
fn foreign_sa(key: SaKey, state: &State) -> RefusalReason {
    let (spi, dst) = (key.spi, key.dst);
    RefusalReason::Conflict(format!(
        "the SA with SPI {spi} to {dst} has reqid {}, and ours have {:#x} to {:#x}: `ip xfrm state delete dst {dst} proto esp spi 0x{spi}` if it is not needed",
        state.reqid,
        REQIDS.start(),
        REQIDS.end(),
    ))
}

/// The remedy for a foreign policy under the name of ours.
fn foreign_policy(there: &super::policy::Installed) -> RefusalReason {
    let policy = &there.policy;
    let direction = ["in", "out", "fwd"][policy.direction as usize];
    RefusalReason::Conflict(format!(
        "the policy from {} to {} has index {}, and ours have {:#x} to {:#x}: `ip xfrm policy delete dir {direction} index {}` if it is not needed",
        policy.selector.src,
        policy.selector.dst,
        there.index,
        POLICY_INDEXES.start(),
        POLICY_INDEXES.end(),
        there.index,
    ))
}
