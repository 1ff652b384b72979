//! Handshakes that peers began and did not finish: counted whole, and for each address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::event::IkeSaId;

/// What unproven peers hold of this host.
#[derive(Clone, Default)]
pub(super) struct HalfOpen {
    /// Handshakes under way, and whether the peer was known.
    open: BTreeMap<IkeSaId, bool>,
    strangers: usize,
    /// Whose each is. Those that failed count until they are forgotten: who fails over and over waits.
    owners: BTreeMap<IkeSaId, IpAddr>,
    by_address: BTreeMap<IpAddr, usize>,
}

impl HalfOpen {
    /// A handshake begins.
    pub(super) fn begin(&mut self, id: IkeSaId, address: IpAddr, known: bool) {
        self.open.insert(id, known);
        self.strangers += usize::from(!known);
        self.owners.insert(id, address);
        *self.by_address.entry(address).or_default() += 1;
    }

    /// It failed.
    pub(super) fn fail(&mut self, id: IkeSaId) {
        if self.open.remove(&id) == Some(false) {
            self.strangers -= 1;
        }
    }

    /// It succeeded, or is forgotten.
    pub(super) fn clear(&mut self, id: IkeSaId) {
        self.fail(id);
        let Some(address) = self.owners.remove(&id) else { return };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Handshakes under way.
    pub(super) fn total(&self) -> usize {
        self.open.len()
    }

    /// Those of peers that were not known.
    pub(super) fn strangers(&self) -> usize {
        self.strangers
    }

    /// Those of one address, with those that failed lately.
    pub(super) fn of(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_for_its_address_until_it_is_forgotten() {
        let (mut half_open, a) = (HalfOpen::default(), IpAddr::from([10, 0, 0, 1]));
        half_open.begin(IkeSaId(1), a, false);
        half_open.begin(IkeSaId(2), a, true);
        assert_eq!((half_open.total(), half_open.strangers(), half_open.of(a)), (2, 1, 2));
        half_open.fail(IkeSaId(1));
        half_open.fail(IkeSaId(1));
        assert_eq!((half_open.total(), half_open.strangers(), half_open.of(a)), (1, 0, 2));
        half_open.clear(IkeSaId(1));
        half_open.clear(IkeSaId(2));
        half_open.clear(IkeSaId(2));
        assert_eq!((half_open.total(), half_open.strangers(), half_open.of(a)), (0, 0, 0));
        assert!(half_open.by_address.is_empty());
    }
}
