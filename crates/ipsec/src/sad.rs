//! The security association database (RFC 4301 4.4.2): which SA a packet belongs to, and what each has done.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

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

/// An SA that nothing went through for so long gives back what only packets need.
const IDLE: Duration = Duration::from_secs(60);
/// They are looked for this often …
const REST_EVERY: Duration = Duration::from_secs(10);
/// … and so many of them done with at once, at most: packets wait meanwhile.
const MOST_RESTS: usize = 4096;

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
    /// Idle SAs are not looked for before this.
    next_rest: Instant,
}

/// One SA in the database. What changes per packet is behind atomics, the window behind its own lock.
pub struct Entry {
    /// As installed; whoever asked for it may hold it as well.
    pub sa: Arc<Sa>,
    /// Grows with every installation: the newer SA has the higher number.
    serial: u64,
    /// Keyed by its first packet; an SA that idles has none.
    cipher: OnceLock<Box<dyn Cipher>>,
    live: Arc<Live>,
}

/// What outlives a change of address or limits, and a rest.
struct Live {
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
        let cipher = keyed(&sa, provider)?;
        let live = match old {
            Some(old) if same_keys(&old.sa, &sa) => old.live.clone(),
            _ => Arc::new(Live::new(now, &sa)),
        };
        self.insert(sa, cipher.into(), live);
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
        let cipher = keyed(&live.sa, provider)?;
        let fresh = Live::new(live.installed, &live.sa);
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
        self.insert(Arc::new(live.sa), cipher.into(), Arc::new(state));
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

    /// SAs for [`rest`](Self::rest); `None` if it is too early to look for them.
    pub fn idle(&self, now: Instant) -> Option<Vec<(Direction, SaKey)>> {
        let idle = || self.entries().filter(|entry| entry.is_idle(now)).take(MOST_RESTS);
        let names = || idle().map(|entry| (entry.sa.direction, entry.sa.key())).collect();
        (self.next_rest <= now).then(names)
    }

    /// Takes from SAs that nothing went through for a while what only packets need: their keyed ciphers, the room of
    /// their windows. The next packet makes that anew.
    pub fn rest(&mut self, now: Instant, idle: &[(Direction, SaKey)]) {
        self.next_rest = now + REST_EVERY;
        for (direction, key) in idle {
            if let Some(entry) = self.get_mut(*direction, *key).filter(|entry| entry.is_idle(now)) {
                *entry = Arc::new(entry.rested());
            }
        }
    }

    /// An SA goes between other addresses or ports; it may have a new key after that.
    pub fn relocate(&mut self, key: SaKey, outer: Outer) -> bool {
        let found = self.remove(Direction::In, key).or_else(|| self.remove(Direction::Out, key));
        let Some(old) = found else { return false };
        let mut sa = (*old.sa).clone();
        sa.relocate(outer);
        self.insert(Arc::new(sa), OnceLock::new(), old.live.clone());
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

    fn get_mut(&mut self, direction: Direction, key: SaKey) -> Option<&mut Arc<Entry>> {
        let entries = match direction {
            Direction::In => self.inbound.get_mut(&key.spi)?,
            Direction::Out => self.outbound.get_mut(&(*self.reqids.get(&key)?, key.dst))?,
        };
        entries.iter_mut().find(|entry| entry.sa.key() == key)
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

    fn insert(&mut self, sa: Arc<Sa>, cipher: OnceLock<Box<dyn Cipher>>, live: Arc<Live>) {
        self.installed += 1;
        self.len += 1;
        let entry = Arc::new(Entry { serial: self.installed, sa, cipher, live });
        self.next_end = self.next_end.min(entry.end());
        match entry.sa.direction {
            Direction::In => {
                put_first(self.inbound.entry(entry.sa.spi).or_default(), entry);
            }
            Direction::Out => {
                let peer = (entry.sa.reqid, entry.sa.dst);
                self.reqids.insert(entry.sa.key(), entry.sa.reqid);
                put_first(self.outbound.entry(peer).or_default(), entry);
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
    entries.shrink_to_fit();
    if entries.is_empty() {
        map.remove(at);
    }
    Some(entry)
}

/// Nearly every list holds one alone: no room is made for more.
fn put_first(list: &mut Vec<Arc<Entry>>, entry: Arc<Entry>) {
    list.reserve_exact(1);
    list.insert(0, entry);
}

/// An SA's cipher; what is none for ESP is refused.
fn keyed(sa: &Sa, provider: &dyn Provider) -> Result<Box<dyn Cipher>, RefusalReason> {
    let cipher = provider
        .cipher(sa.cipher, sa.encr_key.expose(), sa.integ_key.expose())
        .map_err(|unsupported| RefusalReason::NoAlgorithm(unsupported.0))?;
    if Shape::of(&*cipher).iv > MAX_IV {
        return Err(RefusalReason::NoAlgorithm(sa.cipher.encr.to_string()));
    }
    Ok(cipher)
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
    fn new(now: Instant, sa: &Sa) -> Self {
        let window = if sa.direction == Direction::In { sa.replay_window } else { 0 };
        Self {
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
        }
    }
}

impl Entry {
    /// Its cipher, keyed by the provider that it was installed with.
    ///
    /// # Panics
    /// If that has not its algorithms any more.
    pub fn cipher(&self, provider: &dyn Provider) -> &dyn Cipher {
        let again = || keyed(&self.sa, provider).expect("it was keyed when it was installed");
        &**self.cipher.get_or_init(again)
    }

    /// Whether it is keyed, and nothing went through it for a while.
    fn is_idle(&self, now: Instant) -> bool {
        let used = self.usage().last_used.unwrap_or(self.live.installed);
        self.cipher.get().is_some() && now.since(used) >= IDLE
    }

    /// The same SA without what only packets need.
    fn rested(&self) -> Self {
        locked(&self.live.replay).rest();
        let (sa, live) = (self.sa.clone(), self.live.clone());
        Self { sa, serial: self.serial, cipher: OnceLock::new(), live }
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
            ..*self.limits
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

#[cfg(test)]
mod tests {
    use crypto::cipher::CipherSpec;
    use crypto::native::Native;
    use wire::registry::{Encr, Integ};
    use wire::selector::TrafficSelector;

    use super::*;

    fn sa(direction: Direction) -> Sa {
        let [src, dst] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        Sa {
            spi: Spi(0x1001),
            src,
            dst,
            direction,
            mode: Mode::Transport,
            reqid: Reqid(1),
            cipher: CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE },
            encr_key: vec![7; 20].as_slice().into(),
            integ_key: Default::default(),
            esn: false,
            replay_window: 1024,
            encap: None,
            ipcomp: None,
            limits: Arc::default(),
            local_ts: [TrafficSelector::host(src)].into(),
            remote_ts: [TrafficSelector::host(dst)].into(),
        }
    }

    /// What [`Sad::idle`] and [`Sad::rest`] do together.
    fn rest(sad: &mut Sad, now: Instant) -> usize {
        let idle = sad.idle(now).unwrap_or_default();
        sad.rest(now, &idle);
        idle.len()
    }

    #[test]
    fn an_idle_sa_is_small() {
        assert!(size_of::<Sa>() <= 248, "{}", size_of::<Sa>());
        assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
        assert!(size_of::<Live>() <= 112, "{}", size_of::<Live>());
    }

    #[test]
    fn what_idles_has_no_keyed_cipher_and_goes_on_where_it_was() {
        for direction in [Direction::In, Direction::Out] {
            let (mut sad, begin) = (Sad::default(), Instant::ZERO);
            let sa = Arc::new(sa(direction));
            sad.add(begin, sa.clone(), &Native).unwrap();
            let changes = sad.changes();
            let entry = |sad: &Sad| sad.get(direction, sa.key()).unwrap().clone();
            assert_eq!(entry(&sad).next_seq(), Some(1));
            assert_eq!(entry(&sad).charge(begin + IDLE / 2, 100), Charge::Within);
            assert_eq!(rest(&mut sad, begin + IDLE), 0, "it was used since");
            assert_eq!(sad.idle(begin + IDLE), None, "it was looked for just now");
            assert!(entry(&sad).cipher.get().is_some());
            assert_eq!(rest(&mut sad, begin + IDLE * 2), 1);
            let rested = entry(&sad);
            assert!(rested.cipher.get().is_none());
            assert_eq!((rested.next_seq(), rested.usage().bytes), (Some(2), 100));
            assert_eq!(sad.changes(), changes, "it is the same SA");
            assert_eq!(rested.cipher(&Native).icv_len(), 16);
            assert_eq!(rest(&mut sad, begin + IDLE * 3), 1, "and again");
        }
    }
}
