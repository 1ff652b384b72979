//! All hosts, all links, and one clock that jumps from event to event.

mod checks;
mod events;
mod faults;

use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crypto::toy::Toy;
use ipsec::Instant;

use crate::agenda::Agenda;
use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::host::{Effect, Host, Pace, Tamper};
use crate::ladder::Recorder;
use crate::ledger::Ledger;
use crate::nat::Nat;
use crate::net::{HostId, Net, Rule, Weather};
use crate::oracle::Oracle;
use crate::packet::Packet;
use crate::report::{RunReport, Weight};
use crate::scenario::Setup;
use crate::survey::Survey;
use crate::violation::Violation;
use crate::{MOST_HOSTS, Options};

use checks::Marks;
use events::Happening;

/// Nothing in the world may depend on its clock beginning at zero.
const BEGIN: Instant = Instant::from_nanos(1_000_000_000);

/// In a larger fleet not every pair sends as often as a scenario says: see [`World::talk`].
const CROWD: usize = 32;
/// Between two packets of a pair to which nothing is done, if that is not said.
const REST: Duration = Duration::from_secs(1);

/// The run is over before its time: something went wrong, and is noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped;

/// A world.
///
/// A scenario sets things going and lets time pass; whatever goes wrong meanwhile ends the run:
/// every method that lets time pass then gives [`Stopped`].
pub struct World {
    now: Instant,
    agenda: Agenda<Happening>,
    hosts: Vec<Host>,
    net: Net,
    fleet: Fleet,
    setup: Setup,
    /// Pairs that talk, each once.
    pairs: Arc<Vec<(HostId, HostId)>>,
    /// Pairs of which nothing is expected.
    exempt: BTreeSet<(HostId, HostId)>,
    /// … and these do not even talk.
    exempt_are_silent: bool,
    /// For each host, whom it talks to.
    partners: Vec<Vec<HostId>>,
    nats: BTreeMap<HostId, Nat>,
    /// The last packets on the links, while somebody listens.
    tap: Option<VecDeque<(HostId, Packet)>>,
    duration: Option<Duration>,
    dice: Dice,
    oracle: Oracle,
    survey: RefCell<Survey>,
    recorder: Recorder,
    ledger: Ledger,
    /// Packets that are sent now must arrive, as far as the net lets them.
    insists: bool,
    /// How often each host sends to each other one.
    talk_every: Option<Duration>,
    /// How often each host's applications had their turn.
    said: Vec<usize>,
    /// What pairs may wait to which nothing is done, in a large fleet.
    rest: Duration,
    /// Hosts to which something is done.
    focus: BTreeSet<HostId>,
    /// The applications of these are silent.
    muted: BTreeSet<HostId>,
    talk_round: u32,
    events: u64,
    trace: u64,
    marks: Marks,
    violations: Vec<Violation>,
    ladder: Option<String>,
    effects: Vec<Effect>,
    heap: fn() -> Option<usize>,
    weights: Vec<Weight>,
}

impl World {
    /// The world of a run before its beginning: all hosts are off.
    pub fn new(options: &Options) -> Self {
        let least = options.scenario.least_hosts().max(2);
        let (seed, count) = (options.seed, options.hosts.clamp(least, MOST_HOSTS));
        let mut setup = options.scenario.setup(&mut Dice::new(seed, "setup"));
        let shape = setup.shape;
        setup.recipe.eager &= !shape.is_sparse(count);
        let fleet = Fleet::new(&setup.recipe, count);
        let provider = Arc::new(Toy);
        let hosts = (0..count).map(|id| {
            let dice = Dice::new(seed.wrapping_add(id as u64), "host");
            Host::new(fleet.address(id), fleet.name(id), dice, setup.pace, provider.clone())
        });
        let pairs: Vec<_> = (0..count)
            .flat_map(|a| (a + 1..count).map(move |b| (a, b)))
            .filter(|(a, b)| shape.joins(count, *a, *b))
            .collect();
        let partners = |id: HostId| {
            let others = (1..count).map(|step| (id + step) % count);
            others.filter(|other| shape.joins(count, id, *other)).collect()
        };
        let mut world = Self {
            partners: (0..count).map(partners).collect(),
            pairs: Arc::new(pairs),
            exempt: BTreeSet::new(),
            exempt_are_silent: false,
            nats: BTreeMap::new(),
            tap: None,
            duration: options.duration,
            now: BEGIN,
            agenda: Agenda::default(),
            hosts: hosts.collect(),
            net: Net::new(seed, setup.weather),
            fleet,
            setup,
            dice: Dice::new(seed, "world"),
            oracle: Oracle::default(),
            survey: RefCell::default(),
            recorder: Recorder::new(count * (count - 1) / 2),
            ledger: Ledger::default(),
            insists: true,
            talk_every: None,
            said: vec![0; count],
            rest: REST,
            focus: BTreeSet::new(),
            muted: BTreeSet::new(),
            talk_round: 0,
            events: 0,
            trace: seed,
            marks: Marks::default(),
            violations: Vec::new(),
            ladder: None,
            effects: Vec::new(),
            heap: || None,
            weights: Vec::new(),
        };
        world.agenda.enter(BEGIN, Happening::Audit);
        world
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now.since(BEGIN)
    }

    /// The fleet.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// What the seed chose.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Chance for scenarios.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// The fleet, to give hosts something of their own.
    pub fn fleet_mut(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    /// How long the run is to be, if whoever started it said so.
    pub fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// Pairs of hosts that are to be up.
    pub fn pairs(&self) -> impl Iterator<Item = (HostId, HostId)> + use<> {
        let pairs = self.pairs.clone();
        (0..pairs.len()).map(move |at| pairs[at])
    }

    /// Whom a host talks to.
    pub fn partners(&self, host: HostId) -> Vec<HostId> {
        self.partners[host].clone()
    }

    /// From now on nothing is expected of pairs for which this holds, and all of the others.
    pub fn expect_all_but(&mut self, exempt: impl Fn(HostId, HostId) -> bool) {
        let all = self.pairs().chain(std::mem::take(&mut self.exempt));
        let all: BTreeSet<_> = all.collect();
        let (exempt, pairs): (BTreeSet<_>, BTreeSet<_>) =
            all.into_iter().partition(|(a, b)| exempt(*a, *b) || exempt(*b, *a));
        (self.exempt, self.pairs) = (exempt, Arc::new(pairs.into_iter().collect()));
    }

    /// Whether pairs of which nothing is expected are silent.
    pub fn talk_only_where_expected(&mut self, silent: bool) {
        self.exempt_are_silent = silent;
    }

    /// All hosts boot, each at some time within this.
    pub fn start_all(&mut self, within: Duration) {
        for id in 0..self.hosts.len() {
            let at = self.now + self.dice.between(Duration::ZERO, within);
            self.agenda.enter(at, Happening::Boot(id));
        }
    }

    /// From now on each host sends to each other one this often; `None` is silence.
    ///
    /// A fleet's packets grow with the square of its hosts. In one of more than 32, only the pairs of hosts to which
    /// something is done ([`focus`](Self::focus)) keep to that; all others together send what 32 hosts would, each pair
    /// both ways at once, but for the time of [`rest`](Self::rest) at most it sends nothing.
    pub fn talk(&mut self, every: Option<Duration>) {
        self.talk_every = every;
        self.talk_round += 1;
        for id in 0..self.hosts.len() {
            let Some(every) = every else { return };
            let at = self.now + self.dice.between(Duration::ZERO, every);
            self.agenda.enter(at, Happening::Talk(id, self.talk_round));
        }
    }

    /// Something is done to these hosts from now on, and no more to others.
    pub fn focus(&mut self, hosts: impl IntoIterator<Item = HostId>) {
        self.focus = hosts.into_iter().collect();
    }

    /// How long pairs to which nothing is done may be silent from now on, in a large fleet; a second at first.
    pub fn rest(&mut self, at_most: Duration) {
        self.rest = at_most;
    }

    /// Of how many times that all talk, pairs to which nothing is done take part in one.
    fn thinned(&self, every: Duration) -> usize {
        let most = self.rest.as_nanos() / every.as_nanos().max(1);
        let flows = 2 * (self.pairs.len() + self.exempt.len());
        let crowds = flows.div_ceil(CROWD.pow(2));
        crowds.min(usize::try_from(most).unwrap_or(usize::MAX)).max(1)
    }

    /// The applications of these hosts send nothing from now on, and those of all others send.
    pub fn mute(&mut self, hosts: impl IntoIterator<Item = HostId>) {
        self.muted = hosts.into_iter().collect();
    }

    /// An operator commands something on a host.
    ///
    /// # Errors
    /// What the daemon says to it.
    pub fn command(&mut self, host: HostId, command: mesh::Command) -> Result<(), String> {
        let mut effects = std::mem::take(&mut self.effects);
        let done = self.hosts[host].command(self.now, command, &mut effects);
        self.absorb(host, effects);
        done
    }

    /// Whether packets must arrive from now on, as far as the net lets them. They must at first.
    pub fn insist(&mut self, insists: bool) {
        self.insists = insists;
        if !insists {
            self.ledger.excuse_all();
        }
    }

    /// The weather changes; packets under way are excused where it was bad.
    pub fn set_weather(&mut self, weather: Weather) {
        self.net.set_weather(weather);
        if !weather.loses_nothing() {
            self.ledger.excuse_all();
        }
    }

    /// One more rule for the links.
    pub fn add_rule(&mut self, rule: Rule) {
        self.net.add_rule(rule);
    }

    /// How slowly all hosts work from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.hosts.iter_mut().for_each(|host| host.set_pace(pace));
    }

    /// The faults end: good weather, quick hosts. From here on everything must come right.
    pub fn calm(&mut self) {
        self.set_weather(Weather::CALM);
        self.set_pace(Pace::QUICK);
        self.marks.calm_since = Some(self.now);
    }

    /// Plants a fault between a host's daemon and its data plane.
    pub fn tamper(&mut self, host: HostId, tamper: Tamper) {
        self.hosts[host].set_tamper(tamper);
    }

    /// Time passes.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Stopped> {
        self.run_until(self.now + time)
    }

    /// What all data planes hold now.
    fn survey(&self) -> Ref<'_, Survey> {
        self.survey.borrow_mut().update(&self.hosts, &self.fleet);
        self.survey.borrow()
    }

    /// The same of two hosts alone.
    fn survey_of(&self, a: HostId, b: HostId) -> Ref<'_, Survey> {
        self.survey.borrow_mut().update_some(&[a, b], &self.hosts, &self.fleet);
        self.survey.borrow()
    }

    /// What became of it.
    pub fn into_report(self, options: &Options) -> RunReport {
        let (totals, counts) = (self.ledger.totals(), self.oracle.counts());
        let (pairs_up, ikes, children) = self.census();
        let agrees = |(a, b)| self.status_agrees(a, b) && self.status_agrees(b, a);
        debug_assert!(self.pairs().all(agrees), "a status shows other IKE SAs than there are");
        RunReport {
            scenario: options.scenario.name(),
            hosts: self.hosts.len(),
            seed: options.seed,
            ok: self.violations.is_empty(),
            pairs: self.pairs().count(),
            pairs_up,
            ike_sas_per_pair_max: ikes,
            child_sas_per_pair_max: children,
            packets_sent: totals.sent,
            packets_delivered: totals.delivered,
            packets_lost: totals.lost,
            cleartext_packets: counts.cleartext,
            esp_packets: counts.esp,
            ike_messages: counts.ike,
            seconds_to_all_up: self.marks.first_all_up.map(|at| at.since(BEGIN).as_secs_f64()),
            seconds_to_recover: self.marks.recovered.map(|time| time.as_secs_f64()),
            seconds: self.elapsed().as_secs_f64(),
            events: self.events,
            trace: format!("{:016x}", self.trace),
            recipe: self.setup.recipe,
            weather: self.setup.weather,
            weights: self.weights,
            violations: self.violations,
            ladder: self.ladder,
        }
    }
}
