//! What all data planes hold at one instant, pair by pair.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipsec::sa::Direction;
use ipsec::sad::Entry;

use crate::fleet::Fleet;
use crate::host::{Host, SasMark};
use crate::net::HostId;
use crate::violation::What;

/// The SAs of a world, as they were when it was last brought up to date.
#[derive(Default)]
pub struct Survey(Vec<Row>);

/// What one host holds.
#[derive(Default)]
pub struct Row {
    /// When its data plane was looked at.
    mark: Option<SasMark>,
    peers: BTreeMap<HostId, Held>,
}

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
    /// Looks at all hosts whose SAs are not what they were.
    pub fn update(&mut self, hosts: &[Host], fleet: &Fleet) {
        self.0.resize_with(hosts.len(), Row::default);
        self.0.iter_mut().zip(hosts).for_each(|(row, host)| row.update(host, fleet));
    }

    /// Looks at these hosts, if their SAs are not what they were, and at no other one.
    pub fn update_some(&mut self, some: &[HostId], hosts: &[Host], fleet: &Fleet) {
        self.0.resize_with(hosts.len(), Row::default);
        some.iter().for_each(|id| self.0[*id].update(&hosts[*id], fleet));
    }

    /// What a host holds for a peer.
    pub fn held(&self, host: HostId, peer: HostId) -> &Held {
        self.0.get(host).and_then(|row| row.peers.get(&peer)).unwrap_or(&NOTHING)
    }

    /// The hosts, in their order.
    pub fn rows(&self) -> &[Row] {
        &self.0
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

impl Row {
    fn update(&mut self, host: &Host, fleet: &Fleet) {
        let mark = host.sas_mark();
        if self.mark != mark {
            *self = Self { mark, peers: by_peer(host, fleet) };
        }
    }

    /// Differs whenever the host's SAs may; `None` of a host that has no data plane.
    pub fn mark(&self) -> Option<SasMark> {
        self.mark
    }

    /// All peers for which anything is held.
    pub fn iter(&self) -> impl Iterator<Item = (HostId, &Held)> {
        self.peers.iter().map(|(peer, held)| (*peer, held))
    }
}

fn by_peer(host: &Host, fleet: &Fleet) -> BTreeMap<HostId, Held> {
    let mut peers: BTreeMap<_, Held> = BTreeMap::new();
    for entry in host.sas() {
        let peer = match entry.sa.direction {
            Direction::In => entry.sa.src,
            Direction::Out => entry.sa.dst,
        };
        let Some(peer) = fleet.id(peer) else { continue };
        let held = peers.entry(peer).or_default();
        match entry.sa.direction {
            Direction::In => held.inbound.push(entry),
            Direction::Out => held.outbound.push(entry),
        }
    }
    peers
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
