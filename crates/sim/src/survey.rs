//! What all data planes hold at one instant, pair by pair.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipsec::sa::Direction;
use ipsec::sad::Entry;

use crate::fleet::Fleet;
use crate::host::Host;
use crate::net::HostId;
use crate::violation::What;

/// The SAs of a world.
pub struct Survey(BTreeMap<(HostId, HostId), Held>);

/// What one host holds for one peer.
#[derive(Default)]
pub struct Held {
    /// Inbound SAs.
    pub inbound: Vec<Arc<Entry>>,
    /// Outbound SAs, the one that is in use first.
    pub outbound: Vec<Arc<Entry>>,
}

static NOTHING: Held = Held { inbound: Vec::new(), outbound: Vec::new() };

impl Survey {
    /// Looks at all hosts.
    pub fn take(hosts: &[Host], fleet: &Fleet) -> Self {
        let mut pairs: BTreeMap<_, Held> = BTreeMap::new();
        for (id, host) in hosts.iter().enumerate() {
            for entry in host.sas() {
                let peer = match entry.sa.direction {
                    Direction::In => entry.sa.src,
                    Direction::Out => entry.sa.dst,
                };
                let Some(peer) = fleet.id(peer) else { continue };
                let held = pairs.entry((id, peer)).or_default();
                match entry.sa.direction {
                    Direction::In => held.inbound.push(entry),
                    Direction::Out => held.outbound.push(entry),
                }
            }
        }
        Self(pairs)
    }

    /// What a host holds for a peer.
    pub fn held(&self, host: HostId, peer: HostId) -> &Held {
        self.0.get(&(host, peer)).unwrap_or(&NOTHING)
    }

    /// All that hold anything: host, peer, what.
    pub fn iter(&self) -> impl Iterator<Item = (HostId, HostId, &Held)> {
        self.0.iter().map(|((host, peer), held)| (*host, *peer, held))
    }

    /// Whether packets of a pair get through, both ways.
    pub fn is_up(&self, a: HostId, b: HostId) -> bool {
        self.hears(a, b) && self.hears(b, a)
    }

    /// Whether `to` holds the SA through which `from` sends.
    pub fn hears(&self, from: HostId, to: HostId) -> bool {
        let used = self.held(from, to).outbound.first();
        used.is_some_and(|used| self.held(to, from).inbound.iter().any(|there| same(used, there)))
    }

    /// What is not as it must be once a pair is quiet, `None` if all is well. `count` is how many
    /// of one host's SAs of one direction count: not those that are being handed over, for instance.
    pub fn unsettled(
        &self,
        (a, b): (HostId, HostId),
        count: &dyn Fn(HostId, &[Arc<Entry>]) -> usize,
    ) -> Option<(What, String)> {
        for (from, to) in [(a, b), (b, a)] {
            let (out, there) = (&self.held(from, to).outbound, &self.held(to, from).inbound);
            let known = |sa: &&Arc<Entry>| there.iter().any(|other| same(sa, other));
            if let Some(lost) = out.iter().find(|sa| !known(sa)) {
                let text =
                    format!("h{from} sends through {}, which h{to} has not got", lost.sa.spi);
                return Some((What::BlackHole, text));
            }
            if count(from, out) != 1 || count(to, there) != 1 {
                let text = format!(
                    "h{from} holds {} outbound SAs to h{to}, which holds {} inbound ones",
                    out.len(),
                    there.len()
                );
                return Some((What::ChildSas, text));
            }
        }
        None
    }
}

/// The two ends of one SA: same name, same keys.
fn same(a: &Arc<Entry>, b: &Arc<Entry>) -> bool {
    a.sa.key() == b.sa.key()
        && a.sa.encr_key == b.sa.encr_key
        && a.sa.integ_key == b.sa.integ_key
        && a.sa.mode == b.sa.mode
        && a.sa.esn == b.sa.esn
        && a.sa.cipher == b.sa.cipher
}
