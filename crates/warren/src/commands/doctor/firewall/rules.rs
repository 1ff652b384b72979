//! A firewall's rules as far as a check needs them, and what becomes of a packet that meets them.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Calls into chains from chains, at most; firewalls allow 16.
const DEEPEST: usize = 16;
/// Rules that one packet meets, at most.
const MOST_STEPS: usize = 100_000;

/// A packet whose fate is asked for.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Received or sent.
    pub inbound: bool,
    /// This host's side.
    pub local: IpAddr,
    /// By or from which interface.
    pub interface: String,
    /// IP protocol, 50 or 17.
    pub protocol: u8,
    /// Ports of both sides, for UDP.
    pub port: Option<u16>,
}

/// Whether something holds for a packet; `None`: that cannot be told from here.
pub type Holds = Option<bool>;

/// What a rule asks of a packet.
#[derive(Clone, Debug)]
pub enum Test {
    /// One of these protocols.
    Protocol(Vec<u8>),
    /// A port of the packet in one of these ranges.
    Port(Vec<(u16, u16)>),
    /// The interface that the packet came by (`inbound`) or goes by.
    Interface(bool, String),
    /// The source (`true`) or the destination in this network.
    Address(bool, ipnet::IpNet),
    /// The connection is in one of these states, as the first packet of a connection is or is not.
    New(bool),
    /// IPv4 (4) or IPv6 (6).
    Version(u8),
    /// Something that is not understood.
    Unknown,
}

/// What happens then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet passes this base chain.
    Accept,
    /// It ends.
    Drop,
    /// On with the named chain, and back if that says nothing.
    Jump(String),
    /// On with the named chain, and not back.
    Goto(String),
    /// Back to the calling chain.
    Return,
    /// On with the next rule.
    Continue,
}

/// A rule: all tests (each of them turned round where `true` stands beside it), then the verdict.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Test, and whether it is turned round.
    pub tests: Vec<(Test, bool)>,
    /// What happens.
    pub verdict: Verdict,
    /// As the firewall's own tool shows it, for people.
    pub shown: String,
}

/// A chain; a base chain has a hook and a policy.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// In order.
    pub rules: Vec<Rule>,
    /// `input` or `output`; `None`: only reached by a jump.
    pub hook: Option<Hook>,
    /// What happens to packets that no rule decides on.
    pub drops_by_default: bool,
}

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that come in.
    In,
    /// Packets that go out.
    Out,
}

/// Chains of one table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// `inet filter`, for people.
    pub name: String,
    /// By name.
    pub chains: BTreeMap<String, Chain>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing stops it.
    Passes,
    /// It may be stopped, by a rule whose conditions cannot be judged from here.
    Perhaps(String),
    /// It is stopped.
    Dropped(String),
}

impl Test {
    fn holds(&self, packet: &Packet) -> Holds {
        match self {
            Self::Protocol(wanted) => Some(wanted.contains(&packet.protocol)),
            Self::Port(ranges) => Some(packet.port.is_some_and(|port| {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
            })),
            Self::Interface(inbound, pattern) if *inbound == packet.inbound => {
                Some(fits(pattern, &packet.interface))
            }
            // A received packet has no way out yet, nor has one that is sent a way in.
            Self::Interface(..) => Some(false),
            // The other side may be any peer.
            Self::Address(source, net) if *source != packet.inbound => {
                Some(net.contains(&packet.local))
            }
            Self::Address(_, net) if net.prefix_len() == 0 => Some(true),
            Self::Address(..) => None,
            Self::New(new) => Some(*new),
            Self::Version(version) => Some((*version == 4) == packet.local.is_ipv4()),
            Self::Unknown => None,
        }
    }
}

fn fits(pattern: &str, interface: &str) -> bool {
    match pattern.strip_suffix(['*', '+']) {
        Some(start) => interface.starts_with(start),
        None => pattern == interface,
    }
}

impl Rule {
    fn holds(&self, packet: &Packet) -> Holds {
        let mut all = Some(true);
        for (test, inverted) in &self.tests {
            match test.holds(packet).map(|holds| holds != *inverted) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => all = None,
            }
        }
        all
    }
}

/// The worst that the base chains of a table do to a packet.
pub fn fate(table: &Table, packet: &Packet) -> Fate {
    let hook = if packet.inbound { Hook::In } else { Hook::Out };
    let mut worst = Fate::Passes;
    for (name, chain) in table.chains.iter().filter(|(_, chain)| chain.hook == Some(hook)) {
        let mut walk = Walk { table, packet, steps: 0, perhaps: None };
        let end = walk.chain(name, 0);
        let by_default = || Fate::Dropped(format!("policy of chain {name} in {}", table.name));
        let fate = match (end, walk.perhaps) {
            (End::Dropped(rule), None) => Fate::Dropped(rule),
            (End::Nothing, None) if chain.drops_by_default => by_default(),
            (End::Dropped(_), Some(rule)) => Fate::Perhaps(rule),
            (End::Nothing, Some(rule)) => Fate::Perhaps(rule),
            (End::Accepted, Some(rule)) => Fate::Perhaps(rule),
            (End::Accepted | End::Nothing, None) => Fate::Passes,
        };
        worst = match (worst, fate) {
            (Fate::Dropped(rule), _) | (_, Fate::Dropped(rule)) => Fate::Dropped(rule),
            (Fate::Perhaps(rule), _) | (_, Fate::Perhaps(rule)) => Fate::Perhaps(rule),
            (Fate::Passes, Fate::Passes) => Fate::Passes,
        };
    }
    worst
}

enum End {
    Accepted,
    Dropped(String),
    Nothing,
}

struct Walk<'a> {
    table: &'a Table,
    packet: &'a Packet,
    steps: usize,
    /// The first rule that cannot be judged and would change the packet's fate.
    perhaps: Option<String>,
}

impl Walk<'_> {
    fn chain(&mut self, name: &str, depth: usize) -> End {
        let Some(chain) = self.table.chains.get(name).filter(|_| depth < DEEPEST) else {
            return End::Nothing;
        };
        for rule in &chain.rules {
            self.steps += 1;
            if self.steps > MOST_STEPS {
                self.perhaps.get_or_insert_with(|| "there are too many rules to judge".to_owned());
                return End::Nothing;
            }
            let Some(certain) = self.met(rule) else { continue };
            let shown = || format!("{} ({})", rule.shown, self.table.name);
            let end = match &rule.verdict {
                Verdict::Accept => End::Accepted,
                Verdict::Drop => End::Dropped(shown()),
                Verdict::Jump(to) => self.chain(to, depth + 1),
                Verdict::Goto(to) => match self.chain(to, depth + 1) {
                    End::Nothing if certain => return End::Nothing,
                    end => end,
                },
                Verdict::Return if certain => return End::Nothing,
                Verdict::Return | Verdict::Continue => continue,
            };
            match end {
                End::Nothing => {}
                end if certain => return end,
                End::Accepted | End::Dropped(_) => {
                    self.perhaps.get_or_insert(format!("{} ({})", rule.shown, self.table.name));
                }
            }
        }
        End::Nothing
    }

    /// Whether the rule is for the packet: for certain, or perhaps.
    fn met(&self, rule: &Rule) -> Option<bool> {
        match rule.holds(self.packet) {
            Some(false) => None,
            Some(true) => Some(true),
            None => Some(false),
        }
    }
}
