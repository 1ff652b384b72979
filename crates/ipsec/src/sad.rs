//! The security association database (RFC 4301 4.4.2): which SA a packet belongs to, and what each has done.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crypto::Provider;
use crypto::cipher::Cipher;
use wire::esp::Spi;

use crate::Instant;
use crate::change::RefusalReason;
use crate::dataplane::{PacketInfo, SaUsage};
use crate::esp::{MAX_IV, Shape};
use crate::handover::LiveSa;
use crate::pipeline::locked;
use crate::replay::ReplayWindow;
use crate::sa::{Direction, Limits, Mode, Outer, Reqid, Sa, SaKey};

/// SAs that one host can hold, both directions together.
pub const MAX_SAS: usize = 1 << 17;

/// All SAs of one host.
#[derive(Default)]
pub struct Sad {
    /// By SPI: almost always one each; more if several local addresses have the same.
    inbound: BTreeMap<Spi, Vec<Arc<Entry>>>,
    /// By reqid and peer, newest first.
    outbound: BTreeMap<(Reqid, IpAddr), Vec<Arc<Entry>>>,
    /// The reqid of each outbound SA: where in `outbound` it is.
    reqids: BTreeMap<SaKey, Reqid>,
    len: usize,
    installed: u64,
    removed: u64,
    /// Nothing outlives its lifetime before this.
    next_end: Instant,
}

/// One SA in the database. What changes per packet is behind atomics, the window behind its own lock.
pub struct Entry {
    /// As installed; whoever asked for it may hold it as well.
    pub sa: Arc<Sa>,
    /// Grows with every installation: the newer SA has the higher number.
    serial: u64,
    live: Arc<Live>,
}

/// What outlives a change of address or limits.
struct Live {
    cipher: Box<dyn Cipher>,
    installed: Instant,
    seq: AtomicU64,
    replay: Mutex<ReplayWindow>,
    bytes: AtomicU64,
    packets: AtomicU64,
    /// Nanoseconds plus one; 0 is never.
    last_used: AtomicU64,
    replays: AtomicU64,
    bad_icv: AtomicU64,
    used: AtomicBool,
    soft: AtomicBool,
    hard: AtomicBool,
}

/// What one more packet means for an SA's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charge {
    /// Nothing.
    Within,
    /// The packet may go, and the soft limit was reached just now.
    Soft,
    /// The packet must not go: a hard limit was reached.
    Over,
}

impl Sad {
    /// Installs an SA, or replaces the one of the same key.
    ///
    /// With the same keys as before, sequence numbers, window and counters go on: starting again
    /// at 1 would use nonces twice.
    pub fn add(
        &mut self,
        now: Instant,
        sa: Arc<Sa>,
        provider: &dyn Provider,
    ) -> Result<(), RefusalReason> {
        check(&sa)?;
        let old = self.remove(sa.direction, sa.key());
        if self.len >= MAX_SAS {
            return Err(RefusalReason::Full(format!("{MAX_SAS} SAs")));
        }
        let live = match old {
            Some(old) if same_keys(&old.sa, &sa) => old.live.clone(),
            _ => Arc::new(Live::new(now, &sa, provider)?),
        };
        self.insert(sa, live);
        Ok(())
    }

    /// All that is in use, with what they have done: the oldest first, to be given to [`restore`](Self::restore) in
    /// this order. Exact as long as nobody uses them meanwhile.
    pub fn export(&self, now: Instant) -> Vec<LiveSa> {
        let mut entries: Vec<_> = self.entries().filter(|e| !e.is_expired(now)).collect();
        entries.sort_by_key(|entry| entry.serial);
        entries.into_iter().map(|entry| entry.export()).collect()
    }

    /// Goes on with an SA where another process has stopped.
    pub fn restore(
        &mut self,
        now: Instant,
        live: LiveSa,
        provider: &dyn Provider,
    ) -> Result<(), RefusalReason> {
        check(&live.sa)?;
        if live.installed > now {
            return Err(RefusalReason::Other(format!("SA {}: of another clock", live.sa.spi)));
        }
        if self.contains(live.sa.direction, live.sa.key()) {
            return Err(RefusalReason::Conflict(format!("SA {}", live.sa.spi)));
        }
        if self.len >= MAX_SAS {
            return Err(RefusalReason::Full(format!("{MAX_SAS} SAs")));
        }
        let fresh = Live::new(live.installed, &live.sa, provider)?;
        // Events that nobody may have heard are told again: `used` and `soft` begin anew.
        let state = Live {
            seq: live.seq.into(),
            replay: Mutex::new(live.replay),
            bytes: live.bytes.into(),
            packets: live.packets.into(),
            last_used: live.last_used.map_or(0, |at| at.as_nanos().saturating_add(1)).into(),
            replays: live.replays.into(),
            bad_icv: live.bad_icv.into(),
            ..fresh
        };
        self.insert(Arc::new(live.sa), Arc::new(state));
        Ok(())
    }

    /// Takes an SA away, whichever way it goes.
    pub fn remove_key(&mut self, key: SaKey) -> bool {
        let inbound = self.remove(Direction::In, key).is_some();
        let outbound = self.remove(Direction::Out, key).is_some();
        inbound || outbound
    }

    /// When an SA may reach the end of its lifetime, at the soonest.
    pub fn next_end(&self) -> Instant {
        self.next_end
    }

    /// Takes away those that reached a hard limit.
    pub fn take_expired(&mut self, now: Instant) -> Vec<Arc<Entry>> {
        let expired: Vec<_> = self.entries().filter(|e| e.is_expired(now)).cloned().collect();
        for entry in &expired {
            self.remove(entry.sa.direction, entry.sa.key());
        }
        self.next_end = self.entries().map(|e| e.end()).min().unwrap_or(Instant::NEVER);
        expired
    }

    /// An SA goes between other addresses or ports; it may have a new key after that.
    pub fn relocate(&mut self, key: SaKey, outer: Outer) -> bool {
        let found = self.remove(Direction::In, key).or_else(|| self.remove(Direction::Out, key));
        let Some(old) = found else { return false };
        let mut sa = (*old.sa).clone();
        sa.relocate(outer);
        self.insert(Arc::new(sa), old.live.clone());
        true
    }

    /// The SA of a received packet. By SPI alone if this host has it for one address only: a packet
    /// may come to another of its addresses (RFC 4301 4.1).
    pub fn inbound(&self, dst: IpAddr, spi: Spi) -> Option<&Arc<Entry>> {
        let entries = self.inbound.get(&spi)?;
        match entries.as_slice() {
            [only] => Some(only),
            entries => entries.iter().find(|entry| entry.sa.dst == dst),
        }
    }

    /// The newest SA that may carry a packet of this host; one with the packet's destination itself comes
    /// before those with gateways to it.
    pub fn outbound(
        &self,
        now: Instant,
        reqid: Reqid,
        mode: Mode,
        packet: &PacketInfo,
    ) -> Option<&Arc<Entry>> {
        let usable = |entry: &&Arc<Entry>| {
            entry.sa.mode == mode && !entry.is_expired(now) && entry.sa.admits_out(packet)
        };
        // Between two hosts the peer is the packet's destination, in tunnel mode too.
        let direct = self.outbound.get(&(reqid, packet.dst));
        let direct = direct.and_then(|entries| entries.iter().find(usable));
        if mode == Mode::Transport || direct.is_some() {
            return direct;
        }
        let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let highest = IpAddr::V6(Ipv6Addr::from(u128::MAX));
        let peers = self.outbound.range((reqid, lowest)..=(reqid, highest));
        peers.flat_map(|(_, entries)| entries).filter(usable).max_by_key(|entry| entry.serial)
    }

    /// The SA of this direction and key.
    pub fn get(&self, direction: Direction, key: SaKey) -> Option<&Arc<Entry>> {
        let entries = match direction {
            Direction::In => self.inbound.get(&key.spi)?,
            Direction::Out => self.outbound.get(&(*self.reqids.get(&key)?, key.dst))?,
        };
        entries.iter().find(|entry| entry.sa.key() == key)
    }

    /// Whether an SA of this direction and key is there.
    pub fn contains(&self, direction: Direction, key: SaKey) -> bool {
        self.get(direction, key).is_some()
    }

    /// Grows whenever an SA comes, goes, or moves.
    pub fn changes(&self) -> u64 {
        self.installed + self.removed
    }

    /// All SAs.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.inbound.values().chain(self.outbound.values()).flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn insert(&mut self, sa: Arc<Sa>, live: Arc<Live>) {
        self.installed += 1;
        self.len += 1;
        let entry = Arc::new(Entry { serial: self.installed, sa, live });
        self.next_end = self.next_end.min(entry.end());
        match entry.sa.direction {
            Direction::In => self.inbound.entry(entry.sa.spi).or_default().insert(0, entry),
            Direction::Out => {
                let peer = (entry.sa.reqid, entry.sa.dst);
                self.reqids.insert(entry.sa.key(), entry.sa.reqid);
                self.outbound.entry(peer).or_default().insert(0, entry);
            }
        }
    }

    fn remove(&mut self, direction: Direction, key: SaKey) -> Option<Arc<Entry>> {
        let entry = match direction {
            Direction::In => take(&mut self.inbound, &key.spi, key)?,
            Direction::Out => {
                let reqid = self.reqids.remove(&key)?;
                take(&mut self.outbound, &(reqid, key.dst), key)?
            }
        };
        self.len -= 1;
        self.removed += 1;
        Some(entry)
    }
}

fn take<K: Ord>(map: &mut BTreeMap<K, Vec<Arc<Entry>>>, at: &K, key: SaKey) -> Option<Arc<Entry>> {
    let entries = map.get_mut(at)?;
    let index = entries.iter().position(|entry| entry.sa.key() == key)?;
    let entry = entries.remove(index);
    if entries.is_empty() {
        map.remove(at);
    }
    Some(entry)
}

fn check(sa: &Sa) -> Result<(), RefusalReason> {
    let wrong = |what: &str| Err(RefusalReason::Other(format!("SA {}: {what}", sa.spi)));
    match sa {
        // RFC 4303 2.1: 0 is never sent, 1 to 255 are reserved.
        Sa { spi: Spi(0..256), .. } => wrong("the SPI is reserved"),
        Sa { src, dst, .. } if src.is_ipv4() != dst.is_ipv4() => wrong("addresses of two families"),
        Sa { encr_key, integ_key, .. } if encr_key.is_empty() && integ_key.is_empty() => {
            wrong("it has no keys")
        }
        Sa { local_ts, remote_ts, .. } if local_ts.is_empty() || remote_ts.is_empty() => {
            wrong("it has no traffic selectors")
        }
        _ => Ok(()),
    }
}

fn same_keys(old: &Sa, new: &Sa) -> bool {
    old.cipher == new.cipher
        && old.esn == new.esn
        && old.encr_key == new.encr_key
        && old.integ_key == new.integ_key
}

impl Live {
    fn new(now: Instant, sa: &Sa, provider: &dyn Provider) -> Result<Self, RefusalReason> {
        let cipher = provider
            .cipher(sa.cipher, sa.encr_key.expose(), sa.integ_key.expose())
            .map_err(|unsupported| RefusalReason::NoAlgorithm(unsupported.0))?;
        if Shape::of(&*cipher).iv > MAX_IV {
            return Err(RefusalReason::NoAlgorithm(sa.cipher.encr.to_string()));
        }
        let window = if sa.direction == Direction::In { sa.replay_window } else { 0 };
        Ok(Self {
            cipher,
            installed: now,
            seq: AtomicU64::new(0),
            replay: Mutex::new(ReplayWindow::new(window, sa.esn)),
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            last_used: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            bad_icv: AtomicU64::new(0),
            used: AtomicBool::new(false),
            soft: AtomicBool::new(false),
            hard: AtomicBool::new(false),
        })
    }
}

impl Entry {
    /// Its keyed cipher.
    pub fn cipher(&self) -> &dyn Cipher {
        &*self.live.cipher
    }

    /// Whether a hard limit was reached, in time or otherwise.
    pub fn is_expired(&self, now: Instant) -> bool {
        let old = |limit| now.since(self.live.installed) >= limit;
        self.live.hard.load(Relaxed) || self.sa.limits.hard_time.is_some_and(old)
    }

    /// When its lifetime is over.
    fn end(&self) -> Instant {
        self.sa.limits.hard_time.map_or(Instant::NEVER, |limit| self.live.installed + limit)
    }

    /// The next sequence number; `None` when there are no more (RFC 4303 3.3.3: it must not cycle).
    pub fn next_seq(&self) -> Option<u64> {
        let last = self.sa.seq_space();
        let step = |seq: u64| (seq < last).then(|| seq + 1);
        // Never wraps, however often it is asked after the end.
        self.live.seq.fetch_update(Relaxed, Relaxed, step).ok().map(|seq| seq + 1)
    }

    /// Counts a packet with `bytes` of plaintext against the limits.
    pub fn charge(&self, now: Instant, bytes: usize) -> Charge {
        let (live, limits) = (&self.live, self.sa.effective_limits());
        let bytes = bytes as u64;
        let all_packets = live.packets.fetch_add(1, Relaxed) + 1;
        let all_bytes = live.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let above = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value > limit);
        if above(limits.hard_packets, all_packets) || above(limits.hard_bytes, all_bytes) {
            live.packets.fetch_sub(1, Relaxed);
            live.bytes.fetch_sub(bytes, Relaxed);
            return Charge::Over;
        }
        live.last_used.store(now.as_nanos().saturating_add(1), Relaxed);
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        let soft =
            reached(limits.soft_packets, all_packets) || reached(limits.soft_bytes, all_bytes);
        if soft && !live.soft.swap(true, Relaxed) { Charge::Soft } else { Charge::Within }
    }

    /// Takes it out of use; `true` the first time.
    pub fn retire(&self) -> bool {
        !self.live.hard.swap(true, Relaxed)
    }

    /// The whole sequence number of a received packet that may be new; counts a replay.
    pub fn check_replay(&self, low: u32) -> Option<u64> {
        let seq = locked(&self.live.replay).check(low).ok();
        if seq.is_none() {
            self.live.replays.fetch_add(1, Relaxed);
        }
        seq
    }

    /// Records a sequence number that verified. `Some(true)`: the newest so far; `None`: a replay after all.
    pub fn update_replay(&self, seq: u64) -> Option<bool> {
        let newest = locked(&self.live.replay).update(seq).ok();
        if newest.is_none() {
            self.live.replays.fetch_add(1, Relaxed);
        }
        newest
    }

    /// Counts a packet that did not verify.
    pub fn count_bad_icv(&self) {
        self.live.bad_icv.fetch_add(1, Relaxed);
    }

    fn export(&self) -> LiveSa {
        let (live, usage) = (&self.live, self.usage());
        LiveSa {
            sa: (*self.sa).clone(),
            installed: live.installed,
            seq: live.seq.load(Relaxed),
            replay: locked(&live.replay).clone(),
            bytes: usage.bytes,
            packets: usage.packets,
            last_used: usage.last_used,
            replays: usage.replays,
            bad_icv: usage.bad_icv,
        }
    }

    /// Marks it as used; `true` the first time.
    pub fn first_use(&self) -> bool {
        !self.live.used.load(Relaxed) && !self.live.used.swap(true, Relaxed)
    }

    /// Its counters.
    pub fn usage(&self) -> SaUsage {
        let live = &self.live;
        let last_used = live.last_used.load(Relaxed);
        SaUsage {
            key: self.sa.key(),
            bytes: live.bytes.load(Relaxed),
            packets: live.packets.load(Relaxed),
            last_used: last_used.checked_sub(1).map(Instant::from_nanos),
            replays: live.replays.load(Relaxed),
            bad_icv: live.bad_icv.load(Relaxed),
        }
    }
}

impl Sa {
    /// The last sequence number that may be sent.
    pub fn seq_space(&self) -> u64 {
        if self.esn { u64::MAX } else { u64::from(u32::MAX) }
    }

    /// Its limits, with those that the sequence numbers set where none was given.
    fn effective_limits(&self) -> Limits {
        let space = self.seq_space();
        Limits {
            soft_packets: Some(self.limits.soft_packets.unwrap_or(space / 8 * 7)),
            ..self.limits
        }
    }

    /// Whether its selectors admit a packet of this host.
    pub fn admits_out(&self, packet: &PacketInfo) -> bool {
        let local = |ts: &wire::selector::TrafficSelector| {
            ts.admits(packet.src, packet.protocol, packet.src_port)
        };
        let remote = |ts: &wire::selector::TrafficSelector| {
            ts.admits(packet.dst, packet.protocol, packet.dst_port)
        };
        self.local_ts.iter().any(local) && self.remote_ts.iter().any(remote)
    }

    /// Whether its selectors admit a packet from the peer (RFC 4301 5.2, step 4).
    pub fn admits_in(&self, packet: &PacketInfo) -> bool {
        self.admits_out(&PacketInfo {
            src: packet.dst,
            dst: packet.src,
            src_port: packet.dst_port,
            dst_port: packet.src_port,
            ..*packet
        })
    }
}
