//! Links between all pairs of hosts: weather for all of them, and rules for some.

use std::collections::HashMap;
use std::time::Duration;

use ipsec::Instant;

use crate::dice::Dice;
use crate::packet::{Class, Packet};
use crate::report::seconds;

/// A host by its place in the fleet.
pub type HostId = usize;

/// What happens to packets in general.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Weather {
    /// Of a thousand packets, so many are lost.
    pub loss: u32,
    /// So many arrive twice.
    pub duplicates: u32,
    /// So many arrive damaged.
    pub damage: u32,
    /// So many may be overtaken.
    pub reorder: u32,
    /// Shortest delay of a link.
    #[serde(serialize_with = "seconds")]
    pub delay_least: Duration,
    /// Longest delay of a link; each has its own.
    #[serde(serialize_with = "seconds")]
    pub delay_most: Duration,
    /// What a packet may take longer than its link's delay.
    #[serde(serialize_with = "seconds")]
    pub jitter: Duration,
    /// Bytes of the largest packet.
    pub mtu: usize,
}

/// A rule: the first that matches decides, before the weather.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which packets.
    pub of: Match,
    /// From when.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
    /// What happens to them.
    pub verdict: Verdict,
}

/// Which packets a rule is for; what is `None` does not matter.
#[derive(Clone, Copy, Default, Debug)]
pub struct Match {
    /// Between this host and any other, both ways, if there is no `peer`.
    pub host: Option<HostId>,
    /// … and this one.
    pub peer: Option<HostId>,
    /// Of this kind.
    pub class: Option<Class>,
    /// Between the hosts before this one and those from it on.
    pub halves: Option<HostId>,
    /// Only every `nth` of them; 0 and 1 are all.
    pub nth: u32,
}

/// What happens to a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is lost.
    Drop,
    /// It is damaged.
    Damage,
    /// It takes longer.
    Delay(Duration),
    /// It arrives so many times.
    Copies(u32),
    /// It arrives, and no weather touches it.
    Pass,
    /// Of IKE, IKE_SA_INIT arrives, and nothing else.
    InitAlone,
}

/// All links.
pub struct Net {
    weather: Weather,
    rules: Vec<(Rule, u32)>,
    dice: Dice,
    /// When the last packet of a direction arrives: who is not reordered comes after it.
    last: HashMap<(HostId, HostId), Instant>,
    seed: u64,
}

/// A packet's way through the net.
#[derive(Debug)]
pub struct Passage {
    /// When it arrives, and in which shape; none if it is lost.
    pub arrivals: Vec<(Instant, Packet)>,
    /// Its sender is told that the path carries no more bytes than this.
    pub too_big: Option<usize>,
}

impl Weather {
    /// Nothing is lost, delays are those of a data centre.
    pub const CALM: Self = Self {
        loss: 0,
        duplicates: 0,
        damage: 0,
        reorder: 0,
        delay_least: Duration::from_micros(100),
        delay_most: Duration::from_millis(2),
        jitter: Duration::from_micros(200),
        mtu: 1500,
    };

    /// Whether every packet arrives unharmed, if late.
    pub fn loses_nothing(&self) -> bool {
        self.loss == 0 && self.damage == 0
    }

    /// Chosen by chance: up to 30 % loss, 0.1 to 200 ms; in one of four worlds nothing is lost.
    pub fn any(dice: &mut Dice) -> Self {
        let lossless = dice.chance(250);
        let delay = |dice: &mut Dice, most: u64| {
            dice.between(Duration::from_micros(100), Duration::from_millis(most))
        };
        let (one, other) = (delay(dice, 200), delay(dice, 200));
        Self {
            loss: if lossless { 0 } else { dice.below(301) as u32 },
            duplicates: dice.pick(&[0, 10, 100, 300]),
            damage: if lossless { 0 } else { dice.pick(&[0, 0, 5, 20]) },
            reorder: dice.pick(&[0, 0, 50, 300]),
            delay_least: one.min(other),
            delay_most: one.max(other),
            jitter: delay(dice, 50),
            mtu: 1500,
        }
    }
}

impl Net {
    /// Links in this weather.
    pub fn new(seed: u64, weather: Weather) -> Self {
        let (dice, last) = (Dice::new(seed, "net"), HashMap::new());
        Self { weather, rules: Vec::new(), dice, last, seed }
    }

    /// The weather changes for what is sent from now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// The weather.
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    /// One more rule, after those that there are.
    pub fn add_rule(&mut self, rule: Rule) {
        self.rules.push((rule, 0));
    }

    /// Whether a packet that is sent now between two hosts is sure to arrive.
    pub fn is_faultless(&self, now: Instant, from: HostId, to: HostId) -> bool {
        use Verdict::{Damage, Drop, InitAlone};
        let harmful = |rule: &Rule| matches!(rule.verdict, Drop | Damage | InitAlone);
        let active = |rule: &Rule| rule.from <= now && now < rule.until && rule.of.ends(from, to);
        self.weather.loses_nothing()
            && !self.rules.iter().any(|(rule, _)| active(rule) && harmful(rule))
    }

    /// A packet sets out.
    pub fn send(&mut self, now: Instant, from: HostId, to: HostId, packet: Packet) -> Passage {
        if packet.exceeds(self.weather.mtu) {
            return Passage { arrivals: Vec::new(), too_big: Some(self.weather.mtu) };
        }
        let verdict = self.rule(now, from, to, packet.class());
        let copies = match verdict {
            Some(Verdict::Drop) => 0,
            Some(Verdict::InitAlone) => u32::from(is_init(&packet)),
            Some(Verdict::Copies(n)) => n,
            Some(_) => 1,
            None if self.dice.chance(self.weather.loss) => 0,
            None => 1 + u32::from(self.dice.chance(self.weather.duplicates)),
        };
        let extra = if let Some(Verdict::Delay(extra)) = verdict { extra } else { Duration::ZERO };
        let mut arrivals = Vec::new();
        let mut packet = Some(packet);
        for left in (0..copies).rev() {
            let at = self.arrival(now, from, to) + extra;
            let next = if left == 0 { packet.take() } else { packet.clone() };
            let Some(mut copy) = next else { break };
            let damaged = match verdict {
                Some(verdict) => verdict == Verdict::Damage,
                None => self.dice.chance(self.weather.damage),
            };
            if damaged {
                self.damage(&mut copy);
            }
            arrivals.push((at, copy));
        }
        Passage { arrivals, too_big: None }
    }

    fn rule(&mut self, now: Instant, from: HostId, to: HostId, class: Class) -> Option<Verdict> {
        for (rule, seen) in &mut self.rules {
            if now < rule.from || now >= rule.until || !rule.of.matches(from, to, class) {
                continue;
            }
            *seen = seen.wrapping_add(1);
            if seen.is_multiple_of(rule.of.nth.max(1)) {
                return Some(rule.verdict);
            }
        }
        None
    }

    fn arrival(&mut self, now: Instant, from: HostId, to: HostId) -> Instant {
        let Weather { delay_least, delay_most, jitter, reorder, .. } = self.weather;
        let share = link_share(self.seed, from, to);
        let base = delay_least + delay_most.saturating_sub(delay_least) * share / 1000;
        let at = now + base + self.dice.between(Duration::ZERO, jitter);
        let last = self.last.entry((from, to)).or_default();
        if self.dice.chance(reorder) {
            return at;
        }
        *last = at.max(*last);
        *last
    }

    fn damage(&mut self, packet: &mut Packet) {
        let bytes = packet.bytes_mut();
        if !bytes.is_empty() {
            let at = self.dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.dice.below(8);
        }
    }
}

impl Match {
    fn matches(&self, from: HostId, to: HostId, class: Class) -> bool {
        self.ends(from, to) && self.class.is_none_or(|wanted| wanted == class)
    }

    fn ends(&self, from: HostId, to: HostId) -> bool {
        let ends = match (self.host, self.peer) {
            (None, None) => true,
            (Some(one), None) | (None, Some(one)) => one == from || one == to,
            (Some(a), Some(b)) => (a, b) == (from, to) || (b, a) == (from, to),
        };
        let crosses = |first: HostId| (from < first) != (to < first);
        ends && self.halves.is_none_or(crosses)
    }
}

fn is_init(packet: &Packet) -> bool {
    let header = packet.ike_message().and_then(|bytes| wire::message::Header::parse(bytes).ok());
    header.is_some_and(|header| header.exchange == wire::registry::ExchangeType::IKE_SA_INIT)
}

/// Where a link lies between the shortest and the longest one, of a thousand; the same both ways.
fn link_share(seed: u64, a: HostId, b: HostId) -> u32 {
    let pair = (a.min(b) as u64) << 32 | a.max(b) as u64;
    let mut x = seed ^ pair.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ x >> 29) % 1001) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Body;

    fn packet() -> Packet {
        let body = Body::Ike { src_port: 500, dst_port: 500, bytes: vec![0; 28] };
        Packet { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into(), body }
    }

    fn rule(of: Match, verdict: Verdict) -> Rule {
        Rule { of, from: Instant::ZERO, until: Instant::NEVER, verdict }
    }

    #[test]
    fn weather_loses_and_repeats_its_share() {
        let weather = Weather { loss: 300, duplicates: 100, ..Weather::CALM };
        let mut net = Net::new(3, weather);
        let now = Instant::ZERO;
        let counts: Vec<_> =
            (0..10_000).map(|_| net.send(now, 0, 1, packet()).arrivals.len()).collect();
        let of = |n| counts.iter().filter(|c| **c == n).count();
        assert!((2800..3200).contains(&of(0)), "{} lost", of(0));
        assert!((600..800).contains(&of(2)), "{} twice", of(2));
    }

    #[test]
    fn without_reordering_the_order_stays() {
        let jitter = Duration::from_millis(50);
        for (reorder, ordered) in [(0, true), (500, false)] {
            let mut net = Net::new(3, Weather { jitter, reorder, ..Weather::CALM });
            let sent = (0..100u64).map(|n| Instant::from_nanos(n * 1_000_000));
            let at: Vec<_> = sent.map(|now| net.send(now, 0, 1, packet()).arrivals[0].0).collect();
            assert_eq!(at.is_sorted(), ordered);
        }
    }

    #[test]
    fn rules_decide_before_the_weather() {
        let mut net = Net::new(3, Weather::CALM);
        let pair = Match { host: Some(0), peer: Some(1), ..Match::default() };
        net.add_rule(rule(Match { nth: 3, ..pair }, Verdict::Drop));
        net.add_rule(rule(Match { class: Some(Class::Ike), ..pair }, Verdict::Copies(2)));
        let arrivals = |net: &mut Net, from, to| {
            (0..6).map(|_| net.send(Instant::ZERO, from, to, packet()).arrivals.len()).collect()
        };
        let (of_pair, of_other): (Vec<_>, Vec<_>) =
            (arrivals(&mut net, 1, 0), arrivals(&mut net, 1, 2));
        assert_eq!((of_pair, of_other), (vec![2, 2, 0, 2, 2, 0], vec![1; 6]));
        net.add_rule(rule(Match { host: Some(3), ..Match::default() }, Verdict::Damage));
        let faultless = |from, to| net.is_faultless(Instant::ZERO, from, to);
        assert!(!faultless(1, 0) && faultless(1, 2) && !faultless(2, 3));
    }

    #[test]
    fn damage_changes_one_bit() {
        let mut net = Net::new(3, Weather::CALM);
        net.add_rule(rule(Match::default(), Verdict::Damage));
        let (_, damaged) = net.send(Instant::ZERO, 0, 1, packet()).arrivals.remove(0);
        let ones: u32 = damaged.bytes().iter().map(|b| b.count_ones()).sum();
        assert_eq!(ones, 1);
    }
}
