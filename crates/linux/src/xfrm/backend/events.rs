//! From the kernel's events to those of a data plane.

use std::collections::BTreeMap;

use ipsec::dataplane::DataplaneEvent;
use ipsec::sa::{Reqid, SaKey};

use super::Kernel;
use super::sas::second_use;
use crate::errno::Errno;
use crate::xfrm::event::{Event, packet};
use crate::xfrm::state::State;
use crate::xfrm::{REQIDS, encode};

impl Kernel {
    pub(super) fn next_event(&mut self) -> Option<DataplaneEvent> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let mut batch = Vec::new();
            match self.events.read(|event| batch.push(event)) {
                Ok(true) => batch.into_iter().for_each(|event| self.handle(event)),
                Ok(false) => {
                    return std::mem::take(&mut self.drifted).then_some(DataplaneEvent::Drift);
                }
                Err(error) if error.errno() == Some(Errno::ENOBUFS) => {
                    tracing::debug!(
                        "more events than the socket could hold: looking for ourselves"
                    );
                    self.resync();
                }
                Err(error) => {
                    tracing::warn!(%error, "no events from the kernel");
                    return None;
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Acquire { reqid, packet } if REQIDS.contains(&reqid) => {
                self.tell(DataplaneEvent::Acquire { reqid: Reqid(reqid), packet });
            }
            Event::Expire { state, hard: true } => self.expired(state.key),
            Event::Expire { state, hard: false } => self.soft_limit(state.key),
            Event::Moved { key, reqid, remote } if REQIDS.contains(&reqid) => {
                self.tell(DataplaneEvent::Moved { key, remote });
            }
            Event::SaPut(state) => {
                let known = self.sas.get(state.key);
                self.drifted |= known.is_some_and(|known| !known.agrees(&state));
            }
            Event::SaRemoved(key) => self.perhaps_removed(key),
            Event::SasFlushed if !self.sas.is_empty() => self.resync(),
            Event::PolicyPut(there) => self.drifted |= !self.policies.agrees(&there),
            Event::PolicyRemoved(there) => self.drifted |= self.policies.holds(&there),
            Event::PoliciesFlushed => self.drifted |= !self.policies.is_empty(),
            Event::Acquire { .. } | Event::Moved { .. } | Event::SasFlushed => {}
        }
    }

    fn tell(&mut self, event: DataplaneEvent) {
        self.waiting.push_back(event);
    }

    fn expired(&mut self, key: SaKey) {
        if self.forget_sa(key).is_some() {
            self.tell(DataplaneEvent::HardLimit(key));
        }
    }

    /// The first soft limit of an inbound SA is its first packet's. The kernel tells before it has verified the
    /// packet, so that it is asked whether one did.
    fn soft_limit(&mut self, key: SaKey) {
        let Some(known) = self.sas.get(key) else { return };
        if !known.unseen {
            return self.tell(DataplaneEvent::SoftLimit(key));
        }
        let state = self.xfrm.sa(key).ok().flatten();
        let state = state.and_then(|raw| crate::xfrm::decode::state(&raw));
        if state.is_some_and(|state| state.packets > 0) {
            self.first_use(key);
        } else {
            self.arm(key, second_use);
        }
    }

    pub(super) fn first_use(&mut self, key: SaKey) {
        if let Some(known) = self.sas.get_mut(key) {
            known.unseen = false;
        }
        self.arm(key, encode::limits);
        self.tell(DataplaneEvent::FirstUse(key));
    }

    /// Most removals are this program's own, and known before the kernel tells of them.
    fn perhaps_removed(&mut self, key: SaKey) {
        if self.sas.get(key).is_none() {
            return;
        }
        if let Ok(None) = self.xfrm.sa(key) {
            tracing::info!(spi = %key.spi, dst = %key.dst, "somebody removed an SA");
            self.drifted = true;
            self.expired(key);
        }
    }

    /// Events were lost: what they would have told is seen in the SAs themselves.
    fn resync(&mut self) {
        self.drifted = true;
        let Ok(states) = self.xfrm.states(None) else { return };
        let mut there: BTreeMap<SaKey, &State> = BTreeMap::new();
        for state in states.iter().filter(|state| state.is_ours()) {
            match state.selector.filter(|_| state.is_larval()) {
                Some(selector) => {
                    let (reqid, packet) = (Reqid(state.reqid), packet(&selector));
                    self.tell(DataplaneEvent::Acquire { reqid, packet });
                }
                None => drop(there.insert(state.key, state)),
            }
        }
        let keys: Vec<_> = self.sas.keys().collect();
        for key in keys {
            match there.get(&key) {
                None => self.expired(key),
                Some(state) => self.catch_up(key, state),
            }
        }
    }

    fn catch_up(&mut self, key: SaKey, state: &State) {
        let Some(known) = self.sas.get(key) else { return };
        let limits = encode::limits(&known.sa);
        if known.unseen && state.packets > 0 {
            self.first_use(key);
        } else if state.bytes >= limits.soft_byte_limit || state.packets >= limits.soft_packet_limit
        {
            self.tell(DataplaneEvent::SoftLimit(key));
        }
    }
}
