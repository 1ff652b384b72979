//! What befalls single hosts: crashes, restarts, new manifests, meddling, NATs, strangers.

use std::net::IpAddr;

use ipsec::change::{Batch, Change};
use ipsec::sa::{Direction, SaKey};
use mesh::status::PeerStatus;

use super::*;
use crate::oracle::Tally;

/// Packets that a listener remembers.
const TAP: usize = 256;
/// Steps of a pair that are remembered in a long run: some rekeys.
const STEPS_OF_LONG_RUNS: usize = 40;
/// IKE SAs of a pair whose keys are remembered in one.
const KEYS_OF_LONG_RUNS: usize = 2;
/// Settled packets of all pairs that are remembered in one.
const PACKETS_OF_LONG_RUNS: usize = 1 << 12;

impl World {
    /// A host loses everything now, and is back after this.
    pub fn reboot(&mut self, host: HostId, after: Duration) {
        self.unplug(host);
        self.agenda.enter(self.now + after, Happening::Boot(host));
    }

    /// A host goes, for good or until it is booted.
    pub fn unplug(&mut self, host: HostId) {
        self.hosts[host].crash();
        self.oracle.on_crash(host);
        self.ledger.excuse_all();
    }

    /// A host that is off boots.
    pub fn boot_one(&mut self, host: HostId) {
        self.agenda.enter(self.now, Happening::Boot(host));
    }

    /// A host has no IPsec, or not any more. What it had is gone at once.
    pub fn make_plain(&mut self, host: HostId) {
        self.hosts[host].be_plain();
        self.oracle.on_crash(host);
    }

    /// A host's daemon ends, in whichever way; the next one starts after this.
    pub fn restart_daemon(&mut self, host: HostId, after: Duration, plane_stays: bool) {
        self.hosts[host].stop_daemon(plane_stays);
        if !plane_stays {
            self.oracle.on_crash(host);
            self.ledger.excuse_all();
        }
        self.agenda.enter(self.now + after, Happening::Start(host));
    }

    /// A host's daemon forgets its child SAs with a peer, and neither the peer nor the IKE SA knows of it.
    pub fn forget_children(&mut self, host: HostId, peer: HostId) {
        self.hosts[host].forget_children(self.fleet.address(peer));
        self.agenda.enter(self.now, Happening::Start(host));
    }

    /// A host reads its manifest again.
    pub fn reload(&mut self, host: HostId) {
        let input = mesh::Input::Manifest(Box::new(self.fleet.loaded(host)));
        let mut effects = std::mem::take(&mut self.effects);
        self.hosts[host].input(self.now, input, &mut effects);
        self.absorb(host, effects);
    }

    /// Somebody changes a data plane behind the daemon's back.
    pub fn meddle(&mut self, host: HostId, changes: Vec<Change>) {
        let batch = Batch(changes);
        self.hosts[host].meddle(self.now, &batch);
        self.oracle.on_change(self.now, &self.fleet, host, &batch);
        self.recorder.changed(self.now, host, &batch, &self.fleet);
    }

    /// Names of the SAs that a host holds for a peer, in one direction.
    pub fn sas(&self, host: HostId, peer: HostId, direction: Direction) -> Vec<SaKey> {
        let address = self.fleet.address(peer);
        let far = |sa: &ipsec::sa::Sa| match sa.direction {
            Direction::In => sa.src == address,
            Direction::Out => sa.dst == address,
        };
        let sas = self.hosts[host].sas();
        let sas = sas.iter().filter(|e| e.sa.direction == direction && far(&e.sa));
        sas.map(|entry| entry.sa.key()).collect()
    }

    /// Policies of a host's data plane.
    pub fn policies(&mut self, host: HostId) -> Vec<ipsec::spd::PolicyKey> {
        self.hosts[host].policies(self.now)
    }

    /// No data plane tells of unknown SPIs from now on: the kernel's does not.
    pub fn deafen(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.set_deaf(true));
    }

    /// From now on a host is behind a NAT, whose mappings live so long.
    pub fn put_behind_nat(&mut self, host: HostId, patience: Duration) {
        self.nats.insert(host, Nat::new(patience));
    }

    /// The NAT of a host starts anew.
    pub fn restart_nat(&mut self, host: HostId) {
        if let Some(nat) = self.nats.get_mut(&host) {
            nat.restart();
        }
    }

    /// What a host's daemon says of a peer.
    pub fn status(&self, host: HostId, peer: HostId) -> Option<PeerStatus> {
        self.hosts[host].peer(self.now, self.fleet.address(peer))
    }

    /// How much all daemons hold, by table.
    pub fn census_of_tables(&self) -> BTreeMap<&'static str, usize> {
        let mut all = BTreeMap::new();
        for (table, size) in self.hosts.iter().flat_map(Host::census) {
            *all.entry(table).or_default() += size;
        }
        all
    }

    /// How to learn what this process holds of memory: a world asks nobody by itself.
    pub fn measure_heap_with(&mut self, heap: fn() -> Option<usize>) {
        self.heap = heap;
    }

    /// The world's own memory of what happened is short from now on, so that what grows is the daemons'.
    pub fn remember_little(&mut self) {
        self.recorder.limit(STEPS_OF_LONG_RUNS, KEYS_OF_LONG_RUNS);
        self.ledger.limit(PACKETS_OF_LONG_RUNS);
    }

    /// Writes down what is held now.
    pub fn weigh(&mut self) {
        let mut tables = self.census_of_tables();
        tables.insert("installed SAs", self.hosts.iter().map(|host| host.sas().len()).sum());
        let (seconds, heap) = (self.elapsed().as_secs_f64(), (self.heap)());
        self.weights.push(Weight { seconds, tables, heap });
    }

    /// All that was written down.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// How much one daemon holds, by table.
    pub fn census_of_host(&self, host: HostId) -> BTreeMap<&'static str, usize> {
        self.hosts[host].census().into_iter().collect()
    }

    /// What was done so far for each pair.
    pub fn tally(&self) -> Tally {
        self.oracle.tally().clone()
    }

    /// IKE messages of handshakes, repeats included, that one host sent another so far.
    pub fn handshake_messages(&self, from: HostId, to: HostId) -> u64 {
        self.oracle.tally().handshakes.get(&(from, to)).copied().unwrap_or(0)
    }

    /// SAs that a host installed for a peer so far.
    pub fn installed(&self, host: HostId, peer: HostId) -> u64 {
        self.oracle.tally().installed.get(&(host, peer)).copied().unwrap_or(0)
    }

    /// Nothing that is under way between these two must arrive any more.
    pub fn excuse(&mut self, (a, b): (HostId, HostId)) {
        self.ledger.excuse(a, b);
    }

    /// Whether more messages than any exchange needs are no fault, for the time being.
    pub fn expect_storms(&mut self, expected: bool) {
        self.oracle.allow_storms(expected);
    }

    /// Packets that went missing so far though nothing excuses it.
    pub fn lost(&self) -> u64 {
        self.ledger.totals().lost
    }

    /// Somebody listens on the links from now on, or not any more.
    pub fn listen(&mut self, listens: bool) {
        self.tap = listens.then(VecDeque::new);
    }

    /// What the listener remembers: to whom, and what.
    pub fn heard(&self) -> Vec<(HostId, Packet)> {
        self.tap.iter().flatten().cloned().collect()
    }

    pub(super) fn overhear(&mut self, to: HostId, packet: &Packet) {
        let Some(tap) = &mut self.tap else { return };
        if tap.len() == TAP {
            tap.pop_front();
        }
        tap.push_back((to, packet.clone()));
    }

    /// Somebody who is no host of the fleet sends this to a host.
    pub fn inject(&mut self, to: HostId, packet: Packet) {
        self.agenda.enter(self.now, Happening::Arrive(to, packet));
    }

    /// An address of nobody.
    pub fn stranger(&mut self) -> IpAddr {
        let n = self.dice.below(1 << 16) as u16;
        match self.setup.recipe.ipv6 {
            true => std::net::Ipv6Addr::new(0xfd00, 0x77, 0, 0, 1, 0, 0, n).into(),
            false => std::net::Ipv4Addr::new(10, 0, 200 + (n >> 14) as u8, n as u8).into(),
        }
    }
}
