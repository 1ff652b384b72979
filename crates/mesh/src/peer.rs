//! One peer: what is wanted, what there is, what failed; and which of two tunnels is kept.

use std::sync::Arc;
use std::time::Duration;

use ike::event::PeerProof;
use ike::{ChildId, IkeSaId};
use ipsec::Instant;
use ipsec::sa::SaKey;

use crate::cleartext::BothWays;
use crate::status::{State, Verdict};

/// First wait after a failure.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait between two attempts, before jitter.
pub const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// Longest wait where a packet or an operator waits and the peer is merely silent: it may be back any moment.
pub const SILENT_CAP: Duration = Duration::from_secs(2);
/// A tunnel that was up for so long has proven itself: failures before it are forgotten.
pub const PROVEN_AFTER: Duration = Duration::from_secs(60);
/// The first child SA comes with its IKE SA, or soon after, or not at all.
pub const FIRST_CHILD_WITHIN: Duration = Duration::from_secs(5);
/// A further one that was asked for comes, or fails, before its request is given up.
pub const CHILD_WITHIN: Duration = Duration::from_secs(45);
/// SAs that came up within this time were begun at once, by chance.
pub const AT_ONCE: Duration = Duration::from_secs(5);
/// A peer that is not in the manifest by name and does nothing is forgotten after this.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What the operator wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Nothing special: a tunnel when there is traffic, or as the manifest says.
    OnDemand,
    /// Always a tunnel.
    Up,
    /// No tunnel until further notice.
    Down,
}

/// Everything that is known of one peer.
#[derive(Debug)]
pub struct Peer {
    /// Whether this host initiates and rekeys first.
    pub owner: bool,
    /// Named in the manifest: never forgotten.
    pub listed: bool,
    /// Its tunnel is to be there without traffic, says the manifest.
    pub eager: bool,
    /// What is wanted.
    pub wanted: Wanted,
    /// Until when a lost or failed tunnel is tried again.
    pub demand_until: Instant,
    /// A packet or the operator waits for it.
    pub urgent: bool,
    /// IKE SAs, and half-open ones that this host initiated.
    pub ikes: Vec<Ike>,
    /// Child SAs.
    pub children: Vec<Child>,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// The last failure; cleared when the tunnel is up.
    pub trouble: Option<Trouble>,
    /// No attempt before this.
    pub not_before: Instant,
    /// The next attempt.
    pub start_at: Option<Instant>,
    /// Handshakes that began before this make tunnels that are to be replaced.
    pub changed_at: Option<Instant>,
    /// How often an attempt waited for a handshake that the peer has begun.
    pub yields: u8,
    /// When the last of several IKE SAs was closed as redundant: what comes up after that was not begun at once.
    pub settled_at: Instant,
    /// When duplicates are closed.
    pub tidy_at: Option<Instant>,
    /// Child SAs whose rekey failed, to be tried again with the next attempt.
    pub rekey_again: bool,
    /// When packets began to flow.
    pub up_since: Option<Instant>,
    /// Last sign of life that could not be forged.
    pub last_heard: Option<Instant>,
    /// When child SAs last carried something, as far as looks at the data plane have shown.
    pub carried: BothWays,
    /// Last time that anything concerned it.
    pub last_active: Instant,
    /// When it was last asked what it holds.
    pub asked_at: Option<Instant>,
    /// When a child SA was last replaced because the peer hears nothing through it.
    pub replaced_at: Option<Instant>,
    /// It was asked what it holds, and duplicates are closed next.
    pub asked_before_tidy: bool,
    /// It still hears nothing: ESP does not pass.
    pub muffled: bool,
    /// What it showed when it was last authenticated by a certificate, and when that was.
    pub proof: Option<(Arc<PeerProof>, Instant)>,
}

/// One IKE SA.
#[derive(Debug)]
pub struct Ike {
    /// Its name.
    pub id: IkeSaId,
    /// Begun by this host. A rekeyed SA inherits it, whoever rekeyed.
    pub initiated: bool,
    /// When it, or the one that it was rekeyed from, was established; `None` while half-open.
    pub since: Option<Instant>,
    /// A child SA of it is still to come, or to fail: no other is asked for before this.
    pub child_due: Option<Instant>,
    /// To be replaced: negotiated under an older manifest, or its proof is to be made anew.
    pub stale: bool,
    /// On its way down.
    pub closing: bool,
}

/// One child SA.
#[derive(Debug)]
pub struct Child {
    /// Its name.
    pub id: ChildId,
    /// Its IKE SA, once it is known.
    pub ike: Option<IkeSaId>,
    /// When it was agreed on.
    pub since: Instant,
    /// Its inbound SA, while that is installed.
    pub inbound: Option<SaKey>,
    /// Its outbound SA, while that is installed.
    pub outbound: Option<SaKey>,
    /// Complete.
    pub up: bool,
    /// Replaced by a newer one or on its way down.
    pub superseded: bool,
    /// Counters of the last look.
    pub usage: Usage,
    /// When the peer first said its present count of packets received: what was sent by then, and that count.
    pub told: Option<(u64, u64)>,
    /// What was sent when the peer was last asked.
    pub asked_sent: u64,
}

/// An SA pair's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Plaintext bytes received.
    pub bytes_in: u64,
    /// Plaintext bytes sent.
    pub bytes_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
}

/// What failed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In words, with the remedy.
    pub text: Box<str>,
    /// What that says of network and peer.
    pub verdict: Verdict,
    /// When.
    pub at: Instant,
}

impl Peer {
    /// A peer of which nothing is known.
    pub fn new(owner: bool, now: Instant) -> Self {
        Self {
            owner,
            listed: false,
            eager: false,
            wanted: Wanted::OnDemand,
            demand_until: Instant::ZERO,
            urgent: false,
            ikes: Vec::new(),
            children: Vec::new(),
            failures: 0,
            trouble: None,
            not_before: Instant::ZERO,
            start_at: None,
            changed_at: None,
            yields: 0,
            settled_at: Instant::ZERO,
            tidy_at: None,
            rekey_again: false,
            up_since: None,
            last_heard: None,
            carried: BothWays::default(),
            last_active: now,
            asked_at: None,
            replaced_at: None,
            asked_before_tidy: false,
            muffled: false,
            proof: None,
        }
    }

    /// Enters an IKE SA. Nearly every peer has one alone: no room is made for more.
    pub fn add_ike(&mut self, ike: Ike) {
        self.ikes.reserve_exact(1);
        self.ikes.push(ike);
    }

    /// Enters a child SA. Nearly every peer has one alone: no room is made for more.
    pub fn add_child(&mut self, child: Child) -> &mut Child {
        self.children.reserve_exact(1);
        self.children.push_mut(child)
    }

    /// Whether packets flow in both directions.
    pub fn flowing(&self) -> bool {
        self.children.iter().any(Child::flowing)
    }

    /// The established IKE SA that is to be used: of several that serve the newest, which was meant to replace
    /// the others; of some that came at once, that which the owner of the pair began. Both ends come to
    /// the same answer once all of them are complete.
    pub fn keeper(&self) -> Option<IkeSaId> {
        let live = || self.ikes.iter().filter(|i| i.established());
        let best = live().map(|i| self.grade(i)).max()?;
        let best = || live().filter(move |i| self.grade(i) == best);
        let newest = best().filter_map(|i| i.since).max()?;
        let of_one_time = best().filter(|i| i.since.is_some_and(|at| self.at_once(at, newest)));
        of_one_time.max_by_key(|i| (i.initiated == self.owner, i.since, i.id)).map(|i| i.id)
    }

    /// Whether the tunnel is to be replaced by another, which is not there yet.
    pub fn stale(&self) -> bool {
        let keeper = self.keeper();
        self.ikes.iter().any(|i| Some(i.id) == keeper && i.stale)
    }

    /// The tunnel is to be replaced, and so is what comes of a handshake that is under way. False if there is no tunnel.
    pub fn make_stale(&mut self, now: Instant) -> bool {
        self.changed_at = Some(now);
        let live = self.ikes.iter_mut().filter(|i| i.established());
        live.map(|i| i.stale = true).count() > 0
    }

    /// Whether this host has an IKE SA under way.
    pub fn connecting(&self) -> bool {
        self.ikes.iter().any(|i| i.since.is_none() && !i.closing)
    }

    /// Until when a child SA that is on its way is waited for.
    pub fn child_due(&self, now: Instant) -> Option<Instant> {
        let live = self.ikes.iter().filter(|i| i.established());
        live.filter_map(|i| i.child_due).filter(|due| now < *due).max()
    }

    /// Whether this host began all IKE SAs that there are.
    pub fn made_all(&self) -> bool {
        self.ikes.iter().filter(|i| i.established()).all(|i| i.initiated)
    }

    /// Whether the IKE SA that is to be kept came long after all others and these are this host's, or it came after
    /// one was closed as redundant: nobody else closes them. True as well where there are no others.
    pub fn replaced_by_peer(&self) -> bool {
        let keeper = self.keeper();
        let Some(kept) = self.ikes.iter().find(|i| Some(i.id) == keeper).and_then(|i| i.since)
        else {
            return false;
        };
        let replaced = |i: &Ike, at: Instant| {
            at < kept && (self.settled_between(at, kept) || (i.initiated && at + AT_ONCE < kept))
        };
        let mut spare = self.ikes.iter().filter(|i| i.established() && Some(i.id) != keeper);
        spare.all(|i| i.since.is_some_and(|at| replaced(i, at)))
    }

    /// Whether two IKE SAs that came up at these times were begun at once, as far as can be told.
    fn at_once(&self, earlier: Instant, later: Instant) -> bool {
        earlier + AT_ONCE >= later && !self.settled_between(earlier, later)
    }

    fn settled_between(&self, earlier: Instant, later: Instant) -> bool {
        earlier <= self.settled_at && self.settled_at < later
    }

    /// When the newest IKE SA was established.
    pub fn newest(&self) -> Instant {
        self.ikes.iter().filter_map(|i| i.since).max().unwrap_or_default()
    }

    /// Whether a tunnel is to be there at `now`.
    pub fn demanded(&self, now: Instant) -> bool {
        match self.wanted {
            Wanted::Up => true,
            Wanted::OnDemand => self.eager || now < self.demand_until,
            Wanted::Down => false,
        }
    }

    /// Where the tunnel stands. `pending`: a handshake is under way that is not in `ikes` (the
    /// peer's), or waits in the budget.
    pub fn state(&self, now: Instant, pending: bool) -> State {
        if self.wanted == Wanted::Down {
            State::Down
        } else if self.children.iter().any(|c| c.up && !c.superseded) {
            State::Up
        } else if self.keeper().is_some() {
            State::HalfUp
        } else if self.connecting() || pending {
            State::Connecting
        } else if self.failures > 0 && self.demanded(now) {
            State::Down
        } else if self.start_at.is_some() {
            State::Connecting
        } else {
            State::Idle
        }
    }

    /// Notes a failure: no attempt before the end of a wait that doubles up to its cap.
    /// `per_mille` (0..1000) spreads it by ±20 %.
    pub fn fail(&mut self, now: Instant, trouble: Trouble, per_mille: u64) {
        if self.up_since.take().is_some_and(|up| now.since(up) >= PROVEN_AFTER) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(trouble);
        self.not_before = now + backoff(self.failures, per_mille).min(self.longest_wait());
    }

    /// The longest wait before the next attempt.
    pub fn longest_wait(&self) -> Duration {
        let silent = self.trouble.as_ref().is_some_and(|t| t.verdict != Verdict::IpsecBroken);
        if silent && self.urgent { SILENT_CAP } else { BACKOFF_CAP * 2 }
    }

    /// Packets flow.
    pub fn succeed(&mut self, now: Instant) {
        self.up_since.get_or_insert(now);
        self.trouble = None;
        // The tunnel may stand, and still be one that is to be replaced.
        if !self.stale() {
            self.start_at = None;
        }
        self.urgent = false;
        self.yields = 0;
    }

    /// Drops everything that is scheduled and every memory of failures.
    pub fn settle(&mut self) {
        self.start_at = None;
        self.rekey_again = false;
        self.urgent = false;
        self.yields = 0;
        self.failures = 0;
        self.not_before = Instant::ZERO;
        self.demand_until = Instant::ZERO;
    }

    /// Live IKE SAs that are not the one to be kept.
    pub fn redundant_ikes(&self) -> Vec<IkeSaId> {
        let keep = self.keeper();
        let live = self.ikes.iter().filter(|i| i.established() && Some(i.id) != keep);
        live.map(|i| i.id).collect()
    }

    /// Live child SAs of the kept IKE SA beyond the one to be kept; and that one: the newest, which one end made because it
    /// wants that one, or did not count on the others; of some that came at once, one on which both ends agree.
    pub fn redundant_children(&self) -> (Option<ChildId>, Vec<ChildId>) {
        let keeper = self.keeper();
        let live = || self.children.iter().filter(|c| c.up && !c.superseded && c.ike == keeper);
        let newest = live().map(|c| c.since).max().unwrap_or_default();
        let of_one_time = live().filter(|c| c.since + AT_ONCE >= newest);
        let keep = of_one_time.max_by_key(|c| c.spis()).map(|c| c.id);
        (keep, live().map(|c| c.id).filter(|id| Some(*id) != keep).collect())
    }

    /// When something is due.
    pub fn wake(&self) -> Instant {
        let forget =
            if self.forgettable() { self.last_active + FORGET_AFTER } else { Instant::NEVER };
        let times = [self.start_at, self.tidy_at, Some(forget)];
        times.into_iter().flatten().min().unwrap_or(Instant::NEVER)
    }

    /// Whether nothing would be lost with it.
    pub fn forgettable(&self) -> bool {
        !self.listed
            && self.wanted == Wanted::OnDemand
            && self.ikes.is_empty()
            && self.children.is_empty()
            && self.start_at.is_none()
    }

    /// Which of two IKE SAs is kept, before anything else: one that carries packets, and is not to be replaced.
    fn grade(&self, ike: &Ike) -> (bool, bool) {
        let carries = self.children.iter().any(|c| c.up && !c.superseded && c.ike == Some(ike.id));
        (carries, !ike.stale)
    }
}

impl Ike {
    /// Established and to stay.
    pub fn established(&self) -> bool {
        self.since.is_some() && !self.closing
    }
}

impl Child {
    /// A child SA of which nothing is installed yet.
    pub fn new(id: ChildId, since: Instant) -> Self {
        let (ike, inbound, outbound, up, superseded) = Default::default();
        Self {
            id,
            ike,
            since,
            inbound,
            outbound,
            up,
            superseded,
            usage: Usage::default(),
            told: None,
            asked_sent: 0,
        }
    }

    /// Whether packets flow through it both ways.
    pub fn flowing(&self) -> bool {
        self.up && self.inbound.is_some() && self.outbound.is_some()
    }

    /// Both SPIs in an order that both ends see alike.
    fn spis(&self) -> [Option<u32>; 2] {
        let mut spis = [self.inbound, self.outbound].map(|k| k.map(|k| k.spi.0));
        spis.sort_unstable();
        spis
    }
}

/// The wait after so many failures in a row, spread by ±20 %.
pub fn backoff(failures: u32, per_mille: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let wait = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_CAP);
    let percent = 80 + (per_mille.min(999) * 41 / 1000) as u32;
    wait * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

    fn at(seconds: u64) -> Instant {
        NOW + Duration::from_secs(seconds)
    }

    fn trouble() -> Trouble {
        Trouble { text: "no common proposal".into(), verdict: Verdict::IpsecBroken, at: NOW }
    }

    fn ike(id: u64, initiated: bool, since: u64) -> Ike {
        let (since, child_due) = (Some(at(since)), None);
        Ike { id: IkeSaId(id), initiated, since, child_due, stale: false, closing: false }
    }

    fn child(id: u64, ike: u64) -> Child {
        let key = |n| Some(SaKey { dst: [10, 0, 0, 1].into(), spi: ipsec::Spi(n) });
        let (inbound, outbound) = (key(id as u32 * 2 + 1000), key(id as u32 * 2 + 1001));
        let ike = Some(IkeSaId(ike));
        Child { ike, inbound, outbound, up: true, ..Child::new(ChildId(id), NOW) }
    }

    /// At a thousand peers a host holds a thousand of each.
    #[test]
    fn an_idle_peer_is_small() {
        let sizes = [size_of::<Peer>(), size_of::<Ike>(), size_of::<Child>()];
        let most = [216, 32, 152];
        assert!(sizes.iter().zip(most).all(|(size, most)| *size <= most), "{sizes:?}");
    }

    #[test]
    fn backoff_doubles_to_its_cap_and_never_leaves_its_spread() {
        let seconds = |n, j| backoff(n, j).as_secs_f64();
        assert_eq!(backoff(1, 500), Duration::from_secs(1));
        for (failures, middle) in
            [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (40, 60.0), (u32::MAX, 60.0)]
        {
            for jitter in [0, 500, 999, 5000] {
                let s = seconds(failures, jitter);
                assert!((middle * 0.8..=middle * 1.2).contains(&s), "{failures}: {s}");
            }
        }
    }

    #[test]
    fn failures_count_until_a_tunnel_has_proven_itself() {
        let mut peer = Peer::new(true, NOW);
        peer.fail(NOW, trouble(), 500);
        peer.fail(at(1), trouble(), 500);
        assert_eq!((peer.failures, peer.not_before), (2, at(3)));
        peer.succeed(at(3));
        peer.fail(at(4), trouble(), 500);
        assert_eq!(peer.failures, 3, "up for a second proves nothing");
        peer.succeed(at(10));
        peer.fail(at(100), trouble(), 500);
        assert_eq!(peer.failures, 1);
    }

    #[test]
    fn both_ends_keep_the_same_of_two_tunnels() {
        for owner_first in [true, false] {
            let (a, b) = if owner_first { (1, 2) } else { (2, 1) };
            let mut owner = Peer::new(true, NOW);
            owner.ikes = vec![ike(1, true, a), ike(2, false, b)];
            let mut other = Peer::new(false, NOW);
            other.ikes = vec![ike(11, false, b), ike(12, true, a)];
            assert_eq!((owner.keeper(), other.keeper()), (Some(IkeSaId(1)), Some(IkeSaId(11))));
            assert_eq!(owner.redundant_ikes(), [IkeSaId(2)]);
        }
    }

    #[test]
    fn a_tunnel_that_carries_packets_is_kept_before_one_that_does_not() {
        let mut peer = Peer::new(true, NOW);
        peer.ikes = vec![ike(1, true, 1), ike(2, false, 2)];
        peer.children = vec![child(7, 2)];
        assert_eq!(peer.keeper(), Some(IkeSaId(2)));
        peer.children.push(child(8, 1));
        assert_eq!(peer.keeper(), Some(IkeSaId(1)));
        peer.ikes[0].closing = true;
        assert_eq!(peer.keeper(), Some(IkeSaId(2)));
    }

    #[test]
    fn a_later_tunnel_replaces_an_earlier_one_whoever_began_it() {
        for owner in [true, false] {
            let mut peer = Peer::new(owner, NOW);
            peer.ikes = vec![ike(1, owner, 1), ike(2, !owner, 9)];
            assert_eq!(peer.keeper(), Some(IkeSaId(2)));
            peer.ikes[1].since = Some(at(3));
            assert_eq!(peer.keeper(), Some(IkeSaId(1)), "at once: the owner's");
            assert!(peer.make_stale(at(0)) && peer.stale());
            peer.ikes.push(ike(3, !owner, 4));
            assert_eq!((peer.keeper(), peer.stale()), (Some(IkeSaId(3)), false));
        }
    }

    #[test]
    fn what_the_peer_replaced_is_told_from_what_came_at_once() {
        let mut peer = Peer::new(true, NOW);
        peer.ikes = vec![ike(1, true, 1), ike(2, false, 9)];
        assert!(peer.replaced_by_peer() && !peer.made_all());
        peer.ikes[1].since = Some(at(3));
        assert!(!peer.replaced_by_peer(), "at once");
        peer.settled_at = at(2);
        assert_eq!(peer.keeper(), Some(IkeSaId(2)), "begun because another was closed");
        assert!(peer.replaced_by_peer());
        peer.ikes = vec![ike(1, false, 1), ike(2, false, 9)];
        peer.settled_at = Instant::ZERO;
        assert!(!peer.replaced_by_peer(), "both are the peer's to close");
        peer.settled_at = at(8);
        assert!(peer.replaced_by_peer(), "made anew because a third was closed");
        peer.settled_at = Instant::ZERO;
        peer.ikes = vec![ike(1, false, 1), ike(2, true, 9)];
        assert!(!peer.replaced_by_peer(), "the old one is the peer's");
    }

    #[test]
    fn one_child_is_kept_by_its_spis() {
        let mut peer = Peer::new(true, NOW);
        peer.ikes = vec![ike(1, true, 1)];
        peer.children = vec![child(9, 1), child(8, 1)];
        assert_eq!(peer.redundant_children(), (Some(ChildId(9)), vec![ChildId(8)]));
        peer.children[0].superseded = true;
        assert_eq!(peer.redundant_children(), (Some(ChildId(8)), vec![]));
    }

    #[test]
    fn of_child_sas_that_did_not_come_at_once_the_newest_is_kept() {
        let mut peer = Peer::new(true, NOW);
        peer.ikes = vec![ike(1, true, 1)];
        peer.children = vec![child(9, 1), child(8, 1), child(7, 1)];
        peer.children[1].since = at(6);
        assert_eq!(peer.redundant_children(), (Some(ChildId(8)), vec![ChildId(9), ChildId(7)]));
        peer.children[2].since = at(1);
        assert_eq!(peer.redundant_children(), (Some(ChildId(8)), vec![ChildId(9), ChildId(7)]));
        peer.children[0].since = at(2);
        assert_eq!(peer.redundant_children(), (Some(ChildId(9)), vec![ChildId(8), ChildId(7)]));
        // One of another IKE SA counts for nothing.
        peer.children[0].ike = Some(IkeSaId(2));
        assert_eq!(peer.redundant_children(), (Some(ChildId(8)), vec![ChildId(7)]));
    }

    #[test]
    fn states() {
        let mut peer = Peer::new(true, NOW);
        assert_eq!(peer.state(NOW, false), State::Idle);
        assert_eq!(peer.state(NOW, true), State::Connecting);
        peer.demand_until = at(60);
        peer.fail(NOW, trouble(), 0);
        assert_eq!(peer.state(NOW, false), State::Down);
        assert_eq!(peer.state(at(61), false), State::Idle);
        peer.ikes = vec![Ike { since: None, ..ike(1, true, 0) }];
        assert_eq!(peer.state(NOW, false), State::Connecting);
        peer.ikes = vec![ike(1, true, 0)];
        assert_eq!(peer.state(NOW, false), State::HalfUp);
        peer.children = vec![child(1, 1)];
        assert_eq!(peer.state(NOW, false), State::Up);
        peer.wanted = Wanted::Down;
        assert_eq!(peer.state(NOW, false), State::Down);
    }

    #[test]
    fn an_idle_peer_is_forgotten_and_a_listed_one_is_not() {
        let mut peer = Peer::new(true, NOW);
        assert_eq!(peer.wake(), NOW + FORGET_AFTER);
        peer.listed = true;
        assert_eq!(peer.wake(), Instant::NEVER);
    }
}
