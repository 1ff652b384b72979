//! The last steps of each pair of hosts, to be drawn as a ladder in the notation of the RFCs.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use ike::endpoint::ExportedKeys;
use ipsec::Instant;
use ipsec::change::{Batch, Change};
use ipsec::sa::Direction;
use wire::esp::Spi;
use wire::rungs;

use crate::fleet::Fleet;
use crate::net::HostId;
use crate::packet::{Body, Packet};

/// Steps remembered of all pairs; each pair has its share …
const MOST_STEPS: usize = 120_000;
/// … within these bounds.
const STEPS_OF_PAIR: (usize, usize) = (60, 400);
/// Keys remembered of each pair.
const MOST_KEYS: usize = 12;

/// What the pairs did last.
pub struct Recorder {
    pairs: HashMap<(HostId, HostId), Record>,
    room: usize,
    keys: usize,
    /// For whom each host has its inbound SAs: a removal does not say.
    inbound: HashMap<(HostId, Spi), HostId>,
}

#[derive(Default)]
struct Record {
    steps: VecDeque<Step>,
    keys: VecDeque<ExportedKeys>,
}

/// One step.
enum Step {
    /// A packet; no arrival is a loss.
    Packet { sent: Instant, from: HostId, packet: Packet, arrivals: Vec<Instant> },
    /// Something that a host did or noticed.
    Note { at: Instant, host: HostId, what: Note },
}

/// What a host did or noticed.
enum Note {
    /// An SA came, or went.
    Sa { comes: bool, direction: Direction, spi: Spi },
    /// In words.
    Text(Box<str>),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sa { comes, direction, spi } => {
                let sign = if *comes { '+' } else { '-' };
                let way = if *direction == Direction::In { "in " } else { "out" };
                write!(f, "{sign} SA {way} {spi}")
            }
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Recorder {
    /// A recorder for so many pairs.
    pub fn new(pairs: usize) -> Self {
        let (least, most) = STEPS_OF_PAIR;
        let (room, keys) = ((MOST_STEPS / pairs.max(1)).clamp(least, most), MOST_KEYS);
        Self { pairs: HashMap::new(), room, keys, inbound: HashMap::new() }
    }

    /// Remembers no more than so many steps of each pair from now on, and the keys of so many IKE SAs.
    pub fn limit(&mut self, steps: usize, keys: usize) {
        (self.room, self.keys) = (steps, keys);
    }

    /// A packet set out. Of ESP nothing is remembered: there is too much of it.
    pub fn packet(
        &mut self,
        sent: Instant,
        (from, to): (HostId, HostId),
        packet: Packet,
        arrivals: Vec<Instant>,
    ) {
        self.push(from, to, Step::Packet { sent, from, packet, arrivals });
    }

    /// A host did or noticed something.
    pub fn note(&mut self, at: Instant, host: HostId, peer: HostId, text: String) {
        self.push(host, peer, Step::Note { at, host, what: Note::Text(text.into()) });
    }

    /// A host's SAs were changed.
    pub fn changed(&mut self, at: Instant, host: HostId, batch: &Batch, fleet: &Fleet) {
        for change in &batch.0 {
            let (peer, direction, spi, comes) = match change {
                Change::AddSa(sa) => {
                    let far = if sa.direction == Direction::In { sa.src } else { sa.dst };
                    (fleet.id(far), sa.direction, sa.spi, true)
                }
                Change::RemoveSa(key) if fleet.id(key.dst) != Some(host) => {
                    (fleet.id(key.dst), Direction::Out, key.spi, false)
                }
                Change::RemoveSa(key) => {
                    (self.inbound.remove(&(host, key.spi)), Direction::In, key.spi, false)
                }
                _ => continue,
            };
            let Some(peer) = peer else { continue };
            if comes && direction == Direction::In {
                self.inbound.insert((host, spi), peer);
            }
            let what = Note::Sa { comes, direction, spi };
            self.push(host, peer, Step::Note { at, host, what });
        }
    }

    /// Keys of an IKE SA, so that its messages can be shown open.
    pub fn keys(&mut self, host: HostId, peer: HostId, keys: Vec<ExportedKeys>) {
        let most = self.keys;
        let record = self.record(host, peer);
        for key in keys {
            let known = |k: &ExportedKeys| (k.spi_i, k.spi_r) == (key.spi_i, key.spi_r);
            if !record.keys.iter().any(known) {
                record.keys.push_back(key);
            }
        }
        while record.keys.len() > most {
            record.keys.pop_front();
        }
    }

    /// The ladder of a pair.
    pub fn draw(&self, a: HostId, b: HostId, fleet: &Fleet, begin: Instant) -> String {
        let (left, right) = (a.min(b), a.max(b));
        let mut out = String::new();
        let name = |id| format!("{} {}", fleet.name(id), fleet.address(id));
        out += &rungs::head(&name(left), &name(right));
        let Some(record) = self.pairs.get(&(left, right)) else {
            return out + "  (nothing was sent between them)\n";
        };
        let mut steps: Vec<_> = record.steps.iter().collect();
        steps.sort_by_key(|step| step.at());
        for step in steps {
            step.draw(&mut out, left, &record.keys, begin);
        }
        out
    }

    fn push(&mut self, a: HostId, b: HostId, step: Step) {
        let room = self.room;
        let steps = &mut self.record(a, b).steps;
        if steps.len() >= room {
            steps.pop_front();
        }
        steps.push_back(step);
    }

    fn record(&mut self, a: HostId, b: HostId) -> &mut Record {
        self.pairs.entry((a.min(b), a.max(b))).or_default()
    }
}

impl Step {
    fn at(&self) -> Instant {
        match self {
            Self::Packet { sent: at, .. } | Self::Note { at, .. } => *at,
        }
    }

    fn draw(&self, out: &mut String, left: HostId, keys: &VecDeque<ExportedKeys>, begin: Instant) {
        match self {
            Self::Note { at, host, what } => {
                *out += &rungs::note(*host == left, &clock(*at, begin), &what.to_string());
            }
            Self::Packet { sent, from, packet, arrivals } => {
                let (text, rightward) = (shown(packet, keys), *from == left);
                let (sent, arrival) = (clock(*sent, begin), arrivals.first());
                let arrived = arrival.map_or("lost".into(), |at| clock(*at, begin));
                let repeats = arrivals.get(1..).unwrap_or_default().iter();
                let repeats: String =
                    repeats.map(|at| format!(" again {}", clock(*at, begin))).collect();
                let ends = if rightward { [&*sent, &*arrived] } else { [&*arrived, &*sent] };
                *out += &rungs::arrow(rightward, ends, &(text + &repeats));
            }
        }
    }
}

/// Seconds since the world began.
fn clock(at: Instant, begin: Instant) -> String {
    format!("{:.6}", at.since(begin).as_secs_f64())
}

fn shown(packet: &Packet, keys: &VecDeque<ExportedKeys>) -> String {
    match &packet.body {
        Body::Clear(bytes) => format!("CLEARTEXT {} bytes", bytes.len()),
        Body::Esp { bytes, .. } => format!("ESP {} bytes", bytes.len()),
        Body::Ike { .. } => match packet.ike_message() {
            Some(bytes) => message(bytes, keys),
            None => "keepalive".into(),
        },
    }
}

fn message(bytes: &[u8], keys: &VecDeque<ExportedKeys>) -> String {
    match wire::message::parse(bytes) {
        Ok(message) => opened(&message, keys).unwrap_or_else(|| message.to_string()),
        Err(error) => format!("damaged IKE message: {error}"),
    }
}

/// What is inside an SK payload, if its key is known.
fn opened(message: &wire::message::Message<'_>, keys: &VecDeque<ExportedKeys>) -> Option<String> {
    let sk = message.sk.as_ref().filter(|sk| sk.fragment.is_none())?;
    let header = &message.header;
    let key = keys.iter().find(|k| (k.spi_i, k.spi_r) == (header.spi_i, header.spi_r))?;
    let (encr, integ) = match header.flags.initiator {
        true => (&key.sk_ei, &key.sk_ai),
        false => (&key.sk_er, &key.sk_ar),
    };
    let cipher =
        crypto::Provider::cipher(&crypto::toy::Toy, key.cipher, encr.expose(), integ.expose());
    let payloads = ike::sk::open(sk, &*cipher.ok()?).ok()?;
    Some(wire::pretty::line(header, &payloads))
}
