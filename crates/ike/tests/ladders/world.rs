//! Two endpoints on virtual time, a link between them, and a data plane that counts what it loses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::{Provider, Secret};
use ike::endpoint::{Datagram, EndpointConfig};
use ike::record::SaRecord;
use ike::{Directory, Done, Endpoint, Event, IkeSaId, JobId, Load, Now, Output, PeerConfig};
use ipsec::Instant;
use ipsec::sa::{Sa, SaKey};

/// What happens to the n-th message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives after the link's delay.
    Deliver,
    /// It is lost.
    Lose,
    /// It arrives twice.
    Twice,
    /// It arrives late.
    Late(Duration),
}

/// Changes the n-th message.
pub type Tamper = Box<dyn FnMut(usize, &mut Datagram)>;
/// Changes the plaintext of a message.
pub type Lie = Box<dyn FnMut(&mut Vec<u8>)>;

/// Who is on the way.
#[derive(Default)]
pub struct Meddling {
    /// A middlebox' eye on messages: may change their bytes.
    pub tamper: Option<Tamper>,
    /// Changes what is inside encrypted payloads, as a lying peer could.
    pub lie: Option<Lie>,
}

impl Clone for Meddling {
    fn clone(&self) -> Self {
        assert!(self.tamper.is_none() && self.lie.is_none(), "nobody meddles in a copy");
        Self::default()
    }
}

/// One host.
#[derive(Clone)]
pub struct Host {
    pub endpoint: Endpoint,
    pub directory: Dir,
    pub events: Vec<Event>,
    /// What the next process would find.
    pub journal: BTreeMap<IkeSaId, SaRecord>,
    inbound: BTreeMap<SaKey, Sa>,
    outbound: Vec<(SaKey, Sa)>,
    /// Until when each SA was the one to send through.
    until: BTreeMap<SaKey, Instant>,
    seen: BTreeSet<SaKey>,
}

/// Whom a host answers.
#[derive(Clone)]
pub struct Dir {
    pub config: Arc<PeerConfig>,
    pub known: bool,
    pub settled: bool,
    pub load: Load,
    /// Addresses of others.
    pub taken: Vec<IpAddr>,
    /// Where it answers as well.
    pub elsewhere: Vec<IpAddr>,
}

impl Directory for Dir {
    fn responder(&self, local: IpAddr, remote: SocketAddr) -> Option<Arc<PeerConfig>> {
        let here = local == self.config.local || self.elsewhere.contains(&local);
        (here && remote.ip() == self.config.remote).then(|| self.config.clone())
    }

    fn is_known(&self, _: IpAddr) -> bool {
        self.known
    }

    fn is_settled(&self) -> bool {
        self.settled
    }

    fn load(&self) -> Load {
        self.load
    }

    fn may_move(&self, _: IpAddr, to: IpAddr) -> bool {
        !self.taken.contains(&to)
    }
}

/// Names what is under way, alike in every order of events: the n-th that a host gave away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    pub from: usize,
    pub n: u32,
    /// The second of two.
    pub copy: bool,
}

/// Something under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending {
    pub name: Name,
    /// To which host it goes.
    pub to: usize,
    /// Or a job.
    pub datagram: bool,
}

#[derive(Clone)]
enum Item {
    Datagram(usize, Datagram),
    Job(usize, JobId, Done),
    Packet(usize, SaKey, Secret),
}

/// A packet may be under way for so long after its sender began to use another SA.
const UNDER_WAY: Duration = Duration::from_millis(400);

/// Both hosts and what is between them. A copy goes its own way from there.
#[derive(Clone)]
pub struct World {
    pub hosts: [Host; 2],
    pub now: Instant,
    pub ladder: Vec<String>,
    /// Nobody will read the ladder.
    pub quiet: bool,
    /// Messages sent so far.
    pub sent: usize,
    /// Data packets sent and lost.
    pub packets: u64,
    pub lost: u64,
    pub fates: BTreeMap<usize, Fate>,
    /// Longer IP packets are lost.
    pub mtu: usize,
    /// How many were.
    pub too_long: usize,
    pub delay: Duration,
    pub job_time: [Duration; 2],
    /// Whether data flows all the time, and the data planes report first use.
    pub traffic: bool,
    pub meddling: Meddling,
    /// All messages, with the host that they went to.
    pub recorded: Vec<(usize, Datagram)>,
    /// A is behind a NAT that adds this to its ports.
    pub nat_port: Option<u16>,
    pub keepalives: usize,
    /// This host ends in the moment in which it would send the n-th message; whether that still leaves.
    pub crash: Option<(usize, usize, bool)>,
    provider: Arc<dyn Provider>,
    /// Moments in which a packet could have been lost: an SA that the peer may send through was not there.
    pub gaps: Vec<String>,
    items: BTreeMap<(Instant, u64), (Name, Item)>,
    serial: u64,
    given: [u32; 2],
    next_packet: Instant,
}

pub const LIMITS: EndpointConfig = EndpointConfig {
    cookie_threshold: 30,
    max_half_open: 100,
    max_ike_sas: 1000,
    max_sas_of_peer: 64,
    max_children: 64,
};
/// Time from one event to the next where a test says which it is.
const STEP: Duration = Duration::from_millis(1);
const UNIX: u64 = 1_800_000_000;
const PACKET_EVERY: Duration = Duration::from_millis(7);

impl World {
    pub fn new(provider: Arc<dyn Provider>, seed: u8, a: PeerConfig, b: PeerConfig) -> Self {
        Self::with_limits(provider, seed, a, b, LIMITS)
    }

    pub fn with_limits(
        provider: Arc<dyn Provider>,
        seed: u8,
        a: PeerConfig,
        b: PeerConfig,
        limits: EndpointConfig,
    ) -> Self {
        let host = |n: u8, config: PeerConfig| Host {
            endpoint: Endpoint::new(
                limits,
                provider.clone(),
                [seed.wrapping_mul(2).wrapping_add(n); 32],
            ),
            directory: Dir {
                config: Arc::new(config),
                known: true,
                settled: true,
                load: Load::Light,
                taken: Vec::new(),
                elsewhere: Vec::new(),
            },
            events: Vec::new(),
            journal: BTreeMap::new(),
            inbound: BTreeMap::new(),
            outbound: Vec::new(),
            until: BTreeMap::new(),
            seen: BTreeSet::new(),
        };
        Self {
            hosts: [host(0, a), host(1, b)],
            now: Instant::from_nanos(1_000_000_000),
            ladder: Vec::new(),
            quiet: false,
            sent: 0,
            packets: 0,
            lost: 0,
            fates: BTreeMap::new(),
            mtu: usize::MAX,
            too_long: 0,
            delay: Duration::from_millis(10),
            job_time: [Duration::from_millis(1); 2],
            traffic: false,
            meddling: Meddling::default(),
            recorded: Vec::new(),
            nat_port: None,
            keepalives: 0,
            crash: None,
            provider,
            gaps: Vec::new(),
            items: BTreeMap::new(),
            serial: 0,
            given: [0; 2],
            next_packet: Instant::ZERO,
        }
    }

    pub fn at(&self) -> Now {
        Now { at: self.now, unix: UNIX }
    }

    /// Host `n` initiates.
    pub fn initiate(&mut self, n: usize) -> IkeSaId {
        let now = self.at();
        let config = self.hosts[n].directory.config.clone();
        let id = self.hosts[n].endpoint.initiate(now, config);
        self.drain(n);
        id
    }

    /// A command to host `n`.
    pub fn command<R>(&mut self, n: usize, f: impl FnOnce(&mut Endpoint, Now) -> R) -> R {
        let now = self.at();
        let result = f(&mut self.hosts[n].endpoint, now);
        self.drain(n);
        result
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next_due().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    pub fn run_secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Lets everything come to rest: traffic for a while, then only timers.
    pub fn settle(&mut self) {
        self.run_secs(12);
        self.traffic = false;
        self.run_secs(140);
    }

    fn next_due(&self) -> Option<Instant> {
        let items = self.items.keys().next().map(|(at, _)| *at);
        let timers =
            self.hosts.iter().filter_map(|h| h.endpoint.next_timeout()).map(|(at, _)| at).min();
        let packets = self.traffic.then_some(self.next_packet);
        [items, timers, packets].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let now = self.at();
        if let Some((key, item)) = self
            .items
            .first_key_value()
            .map(|(k, _)| *k)
            .filter(|k| k.0 <= now.at)
            .and_then(|k| self.items.remove_entry(&k))
        {
            let _ = key;
            return self.deliver(now, item.1);
        }
        for n in 0..2 {
            if self.hosts[n].endpoint.next_timeout().is_some_and(|(at, _)| at <= now.at) {
                self.hosts[n].endpoint.tick(now);
                self.drain(n);
                return;
            }
        }
        if self.traffic && self.next_packet <= now.at {
            self.next_packet = now.at + PACKET_EVERY;
            for n in 0..2 {
                if let Some((key, sa)) = self.hosts[n].outbound.last().cloned() {
                    self.packets += 1;
                    self.push(self.delay, Item::Packet(1 - n, key, sa.encr_key));
                }
            }
        }
    }

    fn deliver(&mut self, now: Now, item: Item) {
        match item {
            Item::Datagram(n, datagram) => {
                let host = &mut self.hosts[n];
                host.endpoint.datagram(now, datagram, &host.directory);
                self.drain(n);
            }
            Item::Job(n, id, done) => {
                let host = &mut self.hosts[n];
                host.endpoint.job_done(now, id, done);
                self.drain(n);
            }
            Item::Packet(n, key, secret) => {
                let host = &mut self.hosts[n];
                // The SPI and the key say which SA it is; the address may have been translated.
                let sa =
                    host.inbound.iter().find(|(k, _)| k.spi == key.spi).map(|(k, sa)| (*k, sa));
                match sa {
                    Some((key, sa)) if sa.encr_key == secret => {
                        if host.seen.insert(key) {
                            host.endpoint.note_first_use(now, key.spi);
                            self.drain(n);
                        }
                    }
                    _ => {
                        self.lost += 1;
                        self.ladder.push(format!(
                            "{} packet lost at {}: {:?}",
                            now.at,
                            name(n),
                            key.spi
                        ));
                    }
                }
            }
        }
    }

    /// Carries the outputs of host `n` out, in order.
    fn drain(&mut self, n: usize) {
        while let Some(output) = self.next_output(n) {
            match output {
                Output::Job(job) => {
                    let done = job.work.run(&*self.provider);
                    self.push(self.job_time[n], Item::Job(n, job.id, done));
                }
                Output::Transmit(_) if self.crash == Some((n, self.sent, false)) => {
                    return self.restart(n, true);
                }
                Output::Transmit(datagram) => {
                    let last = self.crash == Some((n, self.sent, true));
                    self.transmit(n, datagram);
                    if last {
                        return self.restart(n, true);
                    }
                }
                Output::Event(event) => self.event(n, event),
            }
        }
    }

    /// Records first, then what is to be carried out.
    fn next_output(&mut self, n: usize) -> Option<Output> {
        let host = &mut self.hosts[n];
        for id in host.endpoint.take_unsaved() {
            match host.endpoint.export(id) {
                Some(record) => host.journal.insert(id, record),
                None => host.journal.remove(&id),
            };
        }
        host.endpoint.poll()
    }

    /// Another process takes over what is in the journal; the data plane loses what is not, or everything.
    pub fn restart(&mut self, n: usize, data_plane_lives: bool) {
        let now = self.at();
        self.crash = None;
        self.ladder.push(format!("{}    {} restarts", self.now, name(n)));
        self.items.retain(|_, (_, item)| !matches!(item, Item::Job(host, ..) if *host == n));
        let host = &mut self.hosts[n];
        host.endpoint = Endpoint::new(LIMITS, self.provider.clone(), [99 + self.sent as u8; 32]);
        let mut records: Vec<_> = std::mem::take(&mut host.journal).into_values().collect();
        for record in &mut records {
            let children = &mut record.children;
            children.retain(|c| {
                let here = host.inbound.keys().any(|k| k.spi == c.spi_in);
                data_plane_lives && here && host.outbound.iter().any(|(k, _)| k.spi == c.spi_out)
            });
        }
        let kept: Vec<_> = records.iter().flat_map(|r| &r.children).cloned().collect();
        host.inbound.retain(|k, _| kept.iter().any(|c| c.spi_in == k.spi));
        host.outbound.retain(|(k, _)| kept.iter().any(|c| c.spi_out == k.spi));
        for record in records {
            let config = host.directory.config.clone();
            host.endpoint.restore(now, record, config).expect("a record of this host");
        }
        self.drain(n);
    }

    fn transmit(&mut self, n: usize, mut datagram: Datagram) {
        if datagram.bytes == [0xff] {
            self.keepalives += 1;
            return;
        }
        let index = self.sent;
        self.sent += 1;
        if let Some(lie) = &mut self.meddling.lie
            && let Some(bytes) =
                super::decrypt::reseal(&self.hosts[n].endpoint, &*self.provider, &datagram, lie)
        {
            datagram.bytes = bytes;
        }
        if let Some(tamper) = &mut self.meddling.tamper {
            tamper(index, &mut datagram);
        }
        let mut fate = self.fates.get(&index).copied().unwrap_or(Fate::Deliver);
        let headers = if datagram.remote.is_ipv6() { 48 } else { 28 };
        if headers + datagram.bytes.len() > self.mtu {
            self.too_long += 1;
            fate = Fate::Lose;
        }
        if !self.quiet {
            let text = self.describe(n, &datagram);
            let arrow = if n == 0 { "A -> B" } else { "A <- B" };
            self.ladder.push(format!("{} #{index} {arrow} {text} {fate:?}", self.now));
        }
        let mut flipped =
            Datagram { local: datagram.remote, remote: datagram.local, bytes: datagram.bytes };
        if let Some(base) = self.nat_port {
            self.translate(n, base, &mut flipped);
        }
        if !self.quiet {
            self.recorded.push((1 - n, flipped.clone()));
        }
        let delays = match fate {
            Fate::Lose => vec![],
            Fate::Deliver => vec![self.delay],
            Fate::Late(more) => vec![self.delay + more],
            Fate::Twice => vec![self.delay, self.delay * 2],
        };
        for delay in delays {
            self.push(delay, Item::Datagram(1 - n, flipped.clone()));
        }
    }

    /// A's side of the NAT: its source becomes public; what comes to the public address goes to A, if the mapping is that of today.
    fn translate(&self, from: usize, base: u16, datagram: &mut Datagram) {
        let public = self.hosts[1].directory.config.remote;
        if from == 0 {
            datagram.remote = SocketAddr::new(public, base + datagram.remote.port());
        } else {
            datagram.local = SocketAddr::new(
                super::setup::A,
                datagram.local.port().checked_sub(base).unwrap_or(9),
            );
        }
    }

    /// A datagram from nowhere.
    pub fn inject(&mut self, to: usize, datagram: Datagram) {
        self.push(Duration::ZERO, Item::Datagram(to, datagram));
    }

    fn describe(&self, n: usize, datagram: &Datagram) -> String {
        super::decrypt::describe(&self.hosts[n].endpoint, &*self.provider, datagram)
    }

    fn event(&mut self, n: usize, event: Event) {
        let used = self.hosts[n].outbound.last().map(|(key, _)| *key);
        let host = &mut self.hosts[n];
        match &event {
            Event::InstallInbound { sa, .. } => {
                let old = host.inbound.insert(sa.key(), (**sa).clone());
                assert!(old.is_none(), "an inbound SPI twice");
            }
            Event::InstallOutbound { sa, .. } => host.outbound.push((sa.key(), (**sa).clone())),
            Event::RemoveOutbound { key, .. } => host.outbound.retain(|(k, _)| k != key),
            Event::PeerMoved { sas, outer, .. } => {
                for key in sas {
                    if let Some(mut sa) = host.inbound.remove(key) {
                        sa.relocate(*outer);
                        host.inbound.insert(sa.key(), sa);
                    }
                    for (name, sa) in host.outbound.iter_mut().filter(|(name, _)| name == key) {
                        sa.relocate(*outer);
                        *name = sa.key();
                    }
                }
            }
            Event::ChildDown { remove, .. } => {
                host.outbound.retain(|(k, _)| !remove.contains(k));
                host.inbound.retain(|k, _| !remove.contains(k));
            }
            _ => {}
        }
        self.watch(n, used, &event);
        self.tell(|w| format!("{}    {}: {}", w.now, name(n), short(&event)));
        self.hosts[n].events.push(event);
    }

    /// Looks for gaps after a change at host `n`, which sent through `used` before.
    fn watch(&mut self, n: usize, used: Option<SaKey>, event: &Event) {
        let [here, there] = [n, 1 - n];
        let using = self.hosts[here].outbound.last();
        if let (Some(old), true) = (used, using.map(|(key, _)| *key) != used) {
            self.hosts[here].until.insert(old, self.now);
        }
        let using = self.hosts[here].outbound.last();
        if let (Some((key, sa)), Event::InstallOutbound { .. }) = (using, event) {
            let other = self.hosts[there].inbound.values().find(|o| o.spi == key.spi);
            if other.is_none_or(|o| o.encr_key != sa.encr_key) {
                self.gaps.push(format!("{} {} sends to {} in vain", self.now, name(here), key.spi));
            }
        }
        let Event::ChildDown { remove, .. } = event else { return };
        for key in remove {
            let peer = &self.hosts[there];
            let sends = peer.outbound.last().is_some_and(|(k, _)| k.spi == key.spi);
            let until = peer.until.iter().find(|(k, _)| k.spi == key.spi).map(|(_, at)| *at);
            if sends || until.is_some_and(|at| at + UNDER_WAY > self.now) {
                let text = format!("{} {} takes {} away too early", self.now, name(here), key.spi);
                self.gaps.push(text);
            }
        }
    }

    fn push(&mut self, delay: Duration, item: Item) {
        self.serial += 1;
        let from = match &item {
            Item::Datagram(to, _) | Item::Packet(to, ..) => 1 - to,
            Item::Job(host, ..) => *host,
        };
        self.given[from] += 1;
        let name = Name { from, n: self.given[from], copy: false };
        self.items.insert((self.now + delay, self.serial), (name, item));
    }

    /// What is under way.
    pub fn pending(&self) -> Vec<Pending> {
        let shown = |(name, item): &(Name, Item)| match item {
            Item::Datagram(to, _) => Pending { name: *name, to: *to, datagram: true },
            Item::Job(to, ..) | Item::Packet(to, ..) => {
                Pending { name: *name, to: *to, datagram: false }
            }
        };
        self.items.values().map(shown).collect()
    }

    /// Takes what is named off the link: to its end, there with a copy still to come, or nowhere.
    pub fn serve(&mut self, name: Name, fate: Fate) {
        let at = self.items.iter().find(|(_, (n, _))| *n == name).map(|(at, _)| *at);
        let (_, item) = at.and_then(|at| self.items.remove(&at)).expect("something under way");
        self.now = self.now + STEP;
        if let (Fate::Twice, Item::Datagram(to, datagram)) = (fate, &item) {
            self.serial += 1;
            let again = (Name { copy: true, ..name }, Item::Datagram(*to, datagram.clone()));
            self.items.insert((self.now, self.serial), again);
        }
        if fate != Fate::Lose {
            let now = self.at();
            self.deliver(now, item);
        }
    }

    /// The next timer, wherever it is, and how far away.
    pub fn next_timer(&self) -> Option<(usize, Duration)> {
        let of = |n: usize| self.hosts[n].endpoint.next_timeout().map(|(at, _)| (at, n));
        let (at, n) = (0..2).filter_map(of).min()?;
        Some((n, at.since(self.now)))
    }

    /// Nothing moves until the next timer.
    pub fn leap(&mut self) {
        let Some((n, wait)) = self.next_timer() else { return };
        self.now = self.now + STEP.max(wait);
        self.tell(|w| format!("{} {} timer", w.now, name(n)));
        let now = self.at();
        self.hosts[n].endpoint.tick(now);
        self.drain(n);
    }

    pub fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if !self.quiet {
            self.ladder.push(line(self));
        }
    }

    /// The story so far, for a failing test.
    pub fn story(&self) -> String {
        self.ladder.join("\n")
    }

    /// Both hosts have exactly one IKE SA and one child SA, and the same ones; the data planes hold these alone.
    pub fn assert_settled(&self) {
        let [a, b] = &self.hosts;
        let (ia, ib) = (a.endpoint.ike_sas(), b.endpoint.ike_sas());
        assert_eq!((ia.len(), ib.len()), (1, 1), "IKE SAs\n{}", self.story());
        assert_eq!((ia[0].spi_i, ia[0].spi_r), (ib[0].spi_i, ib[0].spi_r), "{}", self.story());
        let (ca, cb) = (a.endpoint.children(), b.endpoint.children());
        assert_eq!((ca.len(), cb.len()), (1, 1), "child SAs\n{}", self.story());
        assert_eq!(
            (ca[0].spi_in, ca[0].spi_out),
            (cb[0].spi_out, cb[0].spi_in),
            "{}",
            self.story()
        );
        assert_eq!((ca[0].mode, &ca[0].suite), (cb[0].mode, &cb[0].suite));
        assert_eq!((&ca[0].local_ts, &ca[0].remote_ts), (&cb[0].remote_ts, &cb[0].local_ts));
        for (host, child, peer) in [(a, &ca[0], b), (b, &cb[0], a)] {
            assert_eq!(host.inbound.len(), 1, "inbound SAs\n{}", self.story());
            assert_eq!(host.outbound.len(), 1, "outbound SAs\n{}", self.story());
            let out = &host.outbound[0].1;
            assert_eq!(out.spi, child.spi_out);
            let other = peer.inbound.get(&out.key()).expect("the peer has the inbound SA");
            assert_eq!((&other.encr_key, &other.integ_key), (&out.encr_key, &out.integ_key));
            assert_eq!((other.mode, other.cipher, other.esn), (out.mode, out.cipher, out.esn));
        }
    }

    /// No data packet was lost.
    pub fn assert_no_loss(&self) {
        assert!(self.packets > 0, "no traffic at all\n{}", self.story());
        assert_eq!(self.lost, 0, "of {} packets\n{}", self.packets, self.story());
    }
}

impl Host {
    pub fn inbound(&self) -> Vec<&Sa> {
        self.inbound.values().collect()
    }

    pub fn outbound(&self) -> Vec<&Sa> {
        self.outbound.iter().map(|(_, sa)| sa).collect()
    }

    pub fn count(&self, f: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|e| f(e)).count()
    }
}

fn name(n: usize) -> &'static str {
    if n == 0 { "A" } else { "B" }
}

fn short(event: &Event) -> String {
    match event {
        Event::InstallInbound { child, sa, .. } => {
            format!("install inbound {} ({child:?})", sa.spi)
        }
        Event::InstallOutbound { child, sa, .. } => {
            format!("install outbound {} ({child:?})", sa.spi)
        }
        Event::ChildUp(info) => {
            format!("child up {:?} in {} out {}", info.id, info.spi_in, info.spi_out)
        }
        Event::IkeUp(info) => format!("IKE up {:?} {} {}", info.id, info.spi_i, info.suite),
        Event::IkeRekeyed { old, new } => {
            format!("IKE rekeyed {old:?} -> {:?} {}", new.id, new.spi_i)
        }
        other => format!("{other:?}"),
    }
}
