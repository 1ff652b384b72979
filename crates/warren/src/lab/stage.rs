//! What a scenario plays on: hosts, daemons, streams, a watched wire, and the findings.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use linux::netns::Netns;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::daemons::{self, Start};
use super::findings::{Findings, Required};
use super::net::{self, Host};
use super::recipe::Recipe;
use super::scenario::Scenario;
use super::stop::Stop;
use super::streams::{Book, Loss, Pair, Streams};
use super::wire::{Counts, Watch};
use super::{Lab, START, own_subnet};
use crate::args::{LabScenario, LabShape};
use crate::client;
use crate::exit::Failure;
use crate::load;
use crate::print::println;

/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Packets that are under way have so long to arrive.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Every pair of a new fleet talks within this.
pub const ALL_UP: Duration = Duration::from_secs(180);

/// Why a scenario ended early.
#[derive(Debug)]
pub enum Stopped {
    /// The user wants it to end.
    Interrupted,
    /// It could not go on.
    Failed(String),
}

impl From<String> for Stopped {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

/// The SAs that a host has with a peer: of each IKE SA both SPIs, of each child SA the inbound and the outbound one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sas {
    /// IKE.
    pub ike: Vec<(String, String)>,
    /// Child SAs.
    pub children: Vec<(String, String)>,
}

/// The SAs of every host with every other.
pub type AllSas = BTreeMap<Pair, Sas>;

/// The stage of one scenario.
pub struct Stage<'a> {
    lab: Lab,
    /// What the manifests are made from.
    pub recipe: Recipe,
    /// What was found.
    pub findings: Findings,
    /// What daemons are given beyond the usual, from their next start on.
    pub more: Vec<String>,
    daemons: Vec<Option<Child>>,
    programs: Vec<PathBuf>,
    replacement: Option<PathBuf>,
    keep: Option<PathBuf>,
    state: PathBuf,
    began: Instant,
    seed: u64,
    quiet: bool,
    stop: &'a Stop,
    watch: Option<Watch>,
    streams: Option<Streams>,
}

impl<'a> Stage<'a> {
    /// Hosts and manifests, a watched wire; no daemon runs.
    ///
    /// # Errors
    /// If the lab cannot be built; nothing stays.
    pub fn build(
        scenario: &dyn Scenario,
        wanted: &LabScenario,
        quiet: bool,
        stop: &'a Stop,
    ) -> Result<Self, Failure> {
        let (least, usual, most) = scenario.hosts();
        let hosts = wanted.hosts.unwrap_or(usual);
        if !(least..=most).contains(&hosts) {
            let range = format!("{least} to {most} hosts, not {hosts}");
            return Err(Failure::Usage(format!("scenario {} is for {range}", scenario.name())));
        }
        let shape = LabShape {
            hosts: scenario.real_hosts(hosts),
            manifest: wanted.manifest.clone(),
            data_plane: wanted.data_plane,
            family: wanted.family.into(),
            keep: wanted.keep.clone(),
        };
        let program = std::env::current_exe().map_err(Failure::no)?;
        let seed = match wanted.seed {
            Some(seed) => seed,
            None => linux::random::os_seed().map_err(Failure::no)?[0].into(),
        };
        let name = format!("warren-scenario-{}", std::process::id());
        let lab = Lab::build_with(&shape, &name, |hosts| scenario.furnish(hosts))?;
        let recipe = match &wanted.manifest {
            Some(_) => Recipe::given(&lab.manifest),
            None => Ok(Recipe::own(&lab.dir, own_subnet(wanted.family))),
        };
        let recipe = recipe.inspect_err(|_| lab.remove(None)).map_err(Failure::No)?;
        let memory = Path::new("/dev/shm");
        let state = if memory.is_dir() { memory.join(&name) } else { lab.dir.join("state") };
        let mut stage = Self {
            findings: Findings::new(scenario.name(), usize::from(hosts)),
            daemons: lab.hosts.iter().map(|_| None).collect(),
            programs: vec![program; lab.hosts.len()],
            replacement: wanted.replacement.clone(),
            keep: wanted.keep.as_ref().map(|keep| keep.join(scenario.name())),
            recipe,
            more: Vec::new(),
            lab,
            state,
            began: Instant::now(),
            seed,
            quiet,
            stop,
            watch: None,
            streams: None,
        };
        let watch = Watch::start(&stage.lab.hosts).map_err(Failure::No)?;
        stage.watch = Some(watch);
        let recipe = stage.recipe.clone();
        stage.put_manifests(&recipe).map_err(|stopped| match stopped {
            Stopped::Interrupted => Failure::No("interrupted".into()),
            Stopped::Failed(text) => Failure::No(text),
        })?;
        Ok(stage)
    }

    /// Where chance comes from; it is said, so that it can be given again.
    pub fn seed(&mut self) -> u64 {
        self.step(format!("chance comes from --seed {}", self.seed));
        self.seed
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.lab.hosts
    }

    /// How many hosts there are to be, with those that the scenario brings itself.
    pub fn wanted(&self) -> usize {
        self.findings.hosts
    }

    /// How many have a daemon.
    pub fn len(&self) -> usize {
        self.lab.hosts.len()
    }

    /// A host's name.
    pub fn name(&self, host: usize) -> &str {
        &self.lab.hosts[host].name
    }

    /// A host's address in the mesh.
    pub fn address(&self, host: usize) -> IpAddr {
        self.lab.hosts[host].address
    }

    /// The subnet of all hosts.
    pub fn subnet(&self) -> ipnet::IpNet {
        let host = &self.lab.hosts[0];
        ipnet::IpNet::new(host.address, host.prefix)
            .map_or_else(|_| host.address.into(), |net| net.trunc())
    }

    /// The last address of that subnet: no host of a lab has it.
    pub fn last_address(&self) -> IpAddr {
        match self.subnet() {
            ipnet::IpNet::V4(net) => (u32::from(net.broadcast()) - 1).to_be_bytes().into(),
            ipnet::IpNet::V6(net) => net.broadcast().into(),
        }
    }

    /// Every host to every other.
    pub fn all_pairs(&self) -> Vec<Pair> {
        let all = 0..self.len();
        all.clone().flat_map(|a| all.clone().map(move |b| (a, b))).filter(|(a, b)| a != b).collect()
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Something is done now.
    pub fn step(&mut self, text: impl Into<String>) {
        let (at, text) = (self.now(), text.into());
        if !self.quiet {
            println!("{:>7.2} s  {text}", at.as_secs_f64());
        }
        self.findings.step(at, text);
    }

    /// Something was measured.
    pub fn measure(&mut self, what: impl Into<String>, measured: Option<f64>, required: Required) {
        self.findings.measure(what.into(), measured, required);
    }

    /// A count that must be this.
    pub fn exactly(&mut self, what: impl Into<String>, measured: u64, wanted: u64) {
        self.measure(what, Some(measured as f64), Required::Exactly(wanted as f64));
    }

    /// A time that must not be longer.
    pub fn within(&mut self, what: impl Into<String>, measured: Option<Duration>, most: Duration) {
        let (measured, most) = (measured.map(|m| m.as_secs_f64()), most.as_secs_f64());
        self.measure(what, measured, Required::AtMost(most, "s"));
    }

    /// Whether it is to go on.
    pub fn go_on(&self) -> Result<(), Stopped> {
        if self.stop.wanted() { Err(Stopped::Interrupted) } else { Ok(()) }
    }

    /// Lets time pass.
    pub fn wait(&self, time: Duration) -> Result<(), Stopped> {
        let end = Instant::now() + time;
        loop {
            self.go_on()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Waits until `look` finds something, for `limit` at most; `None` if it did not.
    pub fn until<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, Stopped> {
        let end = Instant::now() + limit;
        loop {
            self.go_on()?;
            if let Some(found) = look(self) {
                return Ok(Some(found));
            }
            if Instant::now() > end {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The same, where it makes no sense to go on without.
    pub fn must<T>(
        &mut self,
        limit: Duration,
        what: &str,
        look: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, Stopped> {
        let found = self.until(limit, look)?;
        found.ok_or_else(|| Stopped::Failed(format!("not within {} s: {what}", limit.as_secs())))
    }
}

/// Manifests and daemons.
impl Stage<'_> {
    /// Where a host's manifest is.
    pub fn manifest(&self, host: usize) -> PathBuf {
        daemons::folder(&self.lab.dir, &self.lab.hosts[host]).join("manifest.yml")
    }

    /// The folder with the lab's credentials: `ca.pem`, `ca.key`, `instance.pem`, `instance.key`.
    pub fn credentials(&self) -> &Path {
        &self.lab.dir
    }

    /// From the next start on daemons have the credentials that their manifests name, and no stand-ins; and so has the
    /// recipe, whatever the operator's manifest said.
    pub fn certify(&mut self) -> Result<(), Stopped> {
        if !self.lab.dir.join("ca.key").exists() {
            super::write_credentials(&self.lab.dir, "lab CA").map_err(|_| "no CA".to_owned())?;
        }
        self.lab.credentials = None;
        self.recipe = self.recipe.clone().certified(&self.lab.dir, "instance", &["ca"]);
        self.put_manifests(&self.recipe)
    }

    /// Writes a host's manifest. The daemon does not read it by itself.
    pub fn put_manifest(&self, host: usize, recipe: &Recipe) -> Result<(), Stopped> {
        let file = self.manifest(host);
        let written = fs::create_dir_all(file.parent().unwrap_or(&self.lab.dir))
            .and_then(|()| fs::write(&file, recipe.text()));
        written.map_err(|error| Stopped::Failed(format!("{}: {error}", file.display())))
    }

    /// Writes the same manifest for every host.
    pub fn put_manifests(&self, recipe: &Recipe) -> Result<(), Stopped> {
        (0..self.len()).try_for_each(|host| self.put_manifest(host, recipe))
    }

    /// Whether the kernel carries the packets; known once a daemon runs.
    pub fn kernel(&self) -> bool {
        self.findings.data_plane == "kernel"
    }

    /// Starts a host's daemon, and does not wait for it.
    pub fn launch(&mut self, host: usize) -> Result<(), Stopped> {
        let it = &self.lab.hosts[host];
        let state = self.state.join(&it.name);
        let manifest = self.manifest(host);
        let how = Start {
            program: &self.programs[host],
            manifest: &manifest,
            credentials: self.lab.credentials.as_deref(),
            data_plane: self.lab.data_plane,
            address: it.more.is_empty(),
            state: &state,
            more: &self.more,
        };
        self.daemons[host] = Some(daemons::start(&self.lab.dir, it, &how)?);
        Ok(())
    }

    /// Waits until a host's daemon answers. How long it took from here.
    pub fn answers(&mut self, host: usize) -> Result<Duration, Stopped> {
        let start = Instant::now();
        let end = start + START;
        loop {
            self.go_on()?;
            if let Some(status) = self.status(host) {
                if let Some(kind) = status["node"]["data_plane"].as_str() {
                    self.findings.data_plane = kind.to_owned();
                }
                return Ok(start.elapsed());
            }
            let ended = self.daemons[host]
                .as_mut()
                .is_some_and(|daemon| !matches!(daemon.try_wait(), Ok(None)));
            if ended || Instant::now() > end {
                let log = daemons::log_end(&self.lab.dir, &self.lab.hosts[host]);
                let name = self.name(host);
                return Err(Stopped::Failed(format!(
                    "the daemon of {name} did not start; its log ends with:\n{log}"
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts a host's daemon and waits until it answers.
    pub fn start(&mut self, host: usize) -> Result<Duration, Stopped> {
        let start = Instant::now();
        self.launch(host)?;
        self.answers(host)?;
        Ok(start.elapsed())
    }

    /// Starts the daemons of these hosts at the same instant, and waits until all answer.
    pub fn start_all(&mut self, hosts: impl IntoIterator<Item = usize>) -> Result<(), Stopped> {
        let hosts: Vec<_> = hosts.into_iter().collect();
        hosts.iter().try_for_each(|host| self.launch(*host))?;
        hosts.iter().try_for_each(|host| self.answers(*host).map(drop))
    }

    /// Ends a host's daemon by SIGTERM, and waits until it has ended.
    pub fn terminate(&mut self, host: usize) -> Result<(), Stopped> {
        self.signal(host, Signal::TERM);
        self.ended(host)
    }

    /// Ends every process on a host by SIGKILL: its daemon, and what that may have left.
    pub fn kill_everything(&mut self, host: usize) -> Result<(), Stopped> {
        net::end_processes(&self.lab.hosts[host..=host]);
        self.ended(host)
    }

    /// Ends a host's daemon, which takes everything of its own away.
    pub fn flush(&mut self, host: usize) -> Result<(), Stopped> {
        self.post(host, "/v1/stop", &json!({ "flush": true }))?;
        self.ended(host)
    }

    fn signal(&self, host: usize, signal: Signal) {
        if let Some(daemon) = &self.daemons[host] {
            let _ = kill_process(Pid::from_child(daemon), signal);
        }
    }

    fn ended(&mut self, host: usize) -> Result<(), Stopped> {
        let Some(mut daemon) = self.daemons[host].take() else { return Ok(()) };
        let end = Instant::now() + START;
        while matches!(daemon.try_wait(), Ok(None)) {
            if Instant::now() > end {
                self.daemons[host] = Some(daemon);
                return Err(Stopped::Failed(format!(
                    "the daemon of {} did not end",
                    self.name(host)
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The most memory that a host's daemon has needed, in KiB.
    pub fn memory(&self, host: usize) -> Result<u64, Stopped> {
        let daemon = self.daemons[host].as_ref().ok_or_else(|| "no daemon".to_owned())?;
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.id()));
        let status = status.map_err(|error| error.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        Ok(number.ok_or_else(|| "the kernel does not say what memory is used".to_owned())?)
    }

    /// A host's manifest, as its daemon reads it.
    pub fn accepted(&self, host: usize) -> Result<load::Accepted, Stopped> {
        let credentials = self.lab.credentials.as_deref();
        let now = linux::clock::unix_now();
        let read = load::load(&self.manifest(host), &crypto::native::Native, now, credentials);
        Ok(read.map_err(|refused| refused.to_string())?)
    }

    /// What a host's state directory is: its lock, its journal.
    pub fn state_dir(&self, host: usize) -> PathBuf {
        self.state.join(self.name(host))
    }

    /// From the next start on a host runs another build: the one that was named, or a copy of this one.
    pub fn replace_program(&mut self, host: usize) -> Result<(), Stopped> {
        let other = match &self.replacement {
            Some(path) => fs::canonicalize(path)
                .map_err(|error| Stopped::Failed(format!("{}: {error}", path.display())))?,
            None => {
                let copy = self.lab.dir.join(format!("warren-of-{}", self.name(host)));
                let own = std::env::current_exe().map_err(|error| error.to_string())?;
                fs::copy(own, &copy).map_err(|error| error.to_string())?;
                copy
            }
        };
        self.programs[host] = other;
        Ok(())
    }

    /// Tells a host's daemon.
    pub fn post(&self, host: usize, path: &str, body: &Value) -> Result<Value, Stopped> {
        client::post(&self.control(host), path, body).map_err(|failure| self.refused(host, failure))
    }

    fn refused(&self, host: usize, failure: Failure) -> Stopped {
        let text = match failure {
            Failure::No(text) | Failure::Usage(text) | Failure::Unreachable(text) => text,
            Failure::Printed => "refused".to_owned(),
        };
        Stopped::Failed(format!("{}: {text}", self.name(host)))
    }

    /// A host's control socket.
    pub fn control(&self, host: usize) -> PathBuf {
        daemons::control(&self.lab.dir, &self.lab.hosts[host])
    }

    /// A host reads its manifest again.
    pub fn reload(&self, host: usize) -> Result<(), Stopped> {
        self.post(host, "/v1/reload", &json!({})).map(drop)
    }

    /// The same, and all its tunnels are made anew, each before the old one goes.
    pub fn reload_and_reauth(&self, host: usize) -> Result<(), Stopped> {
        self.post(host, "/v1/reload", &json!({ "reauth": true })).map(drop)
    }

    /// A host's whole status; `None` while no daemon answers.
    pub fn status(&self, host: usize) -> Option<Value> {
        client::get(&self.control(host), "/v1/status").ok()
    }

    /// What a host says of each other host that it knows.
    pub fn peers(&self, host: usize) -> Vec<(usize, Value)> {
        let mut status = self.status(host).unwrap_or_default();
        let Value::Array(peers) = status["peers"].take() else { return Vec::new() };
        let index = |peer: &Value| {
            let address: IpAddr = peer["address"].as_str()?.parse().ok()?;
            self.lab.hosts.iter().position(|host| host.address == address)
        };
        peers.into_iter().filter_map(|peer| Some((index(&peer)?, peer))).collect()
    }

    /// What a host says of another.
    pub fn peer(&self, host: usize, other: usize) -> Value {
        let peers = self.peers(host);
        peers.into_iter().find(|(peer, _)| *peer == other).map(|(_, peer)| peer).unwrap_or_default()
    }

    /// This program on a host, talking to that host's daemon.
    pub fn warren(&self, host: usize, args: &[&str]) -> Result<std::process::Output, Stopped> {
        let mut command = Command::new(&self.programs[host]);
        command.arg("--control").arg(self.control(host)).args(args);
        self.run(host, command)
    }

    /// Turns a host's leak guard on, as its unit does before the network is up, or off.
    pub fn guard(&self, host: usize, on: bool) -> Result<(), Stopped> {
        let (manifest, dir) = (self.manifest(host), self.state_dir(host).join("guard"));
        let (manifest, dir) = (manifest.display().to_string(), dir.display().to_string());
        let address = self.address(host).to_string();
        let args: &[&str] = match on {
            true => &["guard", "on", "-m", &manifest, "--address", &address, "--state-dir", &dir],
            false => &["guard", "off"],
        };
        let output = self.warren(host, args)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Stopped::Failed(format!("{}: warren guard: {text}", self.name(host))))
    }

    /// A command on a host.
    pub fn run(&self, host: usize, mut command: Command) -> Result<std::process::Output, Stopped> {
        let netns = self.netns(host)?;
        netns.confine(&mut command, &[]).map_err(|error| error.to_string())?;
        Ok(command.output().map_err(|error| format!("{command:?}: {error}"))?)
    }

    /// A host's network namespace.
    pub fn netns(&self, host: usize) -> Result<Netns, Stopped> {
        Ok(Netns::open(&self.lab.hosts[host].namespace()).map_err(|error| error.to_string())?)
    }

    /// Cuts a host off, or connects it again.
    pub fn cut_off(&self, host: usize, cut: bool) -> Result<(), Stopped> {
        Ok(net::connect_ports(&self.lab.hosts[host], !cut)?)
    }

    /// A host's SAs with every other.
    pub fn sas_of(&self, host: usize) -> AllSas {
        self.peers(host).iter().map(|(peer, status)| ((host, *peer), sas(status))).collect()
    }

    /// The SAs of every host that has a daemon with every other.
    pub fn all_sas(&self) -> AllSas {
        (0..self.len()).flat_map(|host| self.sas_of(host)).collect()
    }
}

fn sas(peer: &Value) -> Sas {
    let pairs = |list: &Value, a: &str, b: &str| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut found: Vec<_> =
            list.as_array().into_iter().flatten().map(|sa| (text(&sa[a]), text(&sa[b]))).collect();
        found.sort();
        found
    };
    Sas {
        ike: pairs(&peer["ike_sas"], "spi_i", "spi_r"),
        children: pairs(&peer["child_sas"], "spi_in", "spi_out"),
    }
}

/// Whether these pairs have exactly one IKE SA and one child SA each, and both ends speak of the same.
pub fn calm(all: &AllSas, pairs: &[Pair]) -> bool {
    pairs.iter().all(|(a, b)| {
        let (Some(here), Some(there)) = (all.get(&(*a, *b)), all.get(&(*b, *a))) else {
            return false;
        };
        let ([ike], [child]) = (&here.ike[..], &here.children[..]) else { return false };
        there.ike == [ike.clone()] && there.children == [(child.1.clone(), child.0.clone())]
    })
}

/// Streams and the wire.
impl Stage<'_> {
    /// Starts a stream for each of these pairs; it goes on in the background.
    pub fn stream(&mut self, pairs: Vec<Pair>) -> Result<(), Stopped> {
        let streams = Streams::start(&self.lab.hosts, pairs, self.began)?;
        let (count, rate) = (streams.book().pairs().len(), streams.rate);
        self.streams = Some(streams);
        self.step(format!("{count} streams of {rate:.0} packets a second begin"));
        Ok(())
    }

    /// Starts a stream for each of these pairs and waits until all are heard. The time from which on
    /// no packet may be lost: the first ones of each pair ask for the SAs, and a kernel does not hold them.
    pub fn talk(&mut self, pairs: Vec<Pair>) -> Result<Duration, Stopped> {
        let begin = self.now();
        self.stream(pairs)?;
        let back = self.must(ALL_UP, "every pair talks", |stage| stage.back(begin, |_| true))?;
        // What was sent before the SAs were there, and held or lost.
        self.wait(Duration::from_millis(500))?;
        let seconds = back.as_secs_f64();
        self.step(format!("all pairs have heard from each other, the last after {seconds:.2} s"));
        Ok(self.now())
    }

    /// Streams for more pairs, beside those that run.
    pub fn more_streams(&mut self, pairs: Vec<Pair>) {
        if let Some(streams) = &self.streams {
            streams.add(pairs);
        }
    }

    /// Only these streams pause from now on.
    pub fn mute(&mut self, of: impl Fn(Pair) -> bool) {
        if let Some(streams) = &self.streams {
            streams.book().mute(of);
        }
    }

    /// Whether a stream pauses.
    pub fn is_muted(&self, pair: Pair) -> bool {
        self.book(|book| book.is_muted(pair))
    }

    /// How long after `since` it took until all of these were heard again; `None` if not yet.
    pub fn back(&self, since: Duration, of: impl Fn(Pair) -> bool) -> Option<Duration> {
        self.streams.as_ref()?.book().back(since, of)
    }

    /// Waits until these are heard of packets sent after `since`; `None` if they are not within `limit`.
    pub fn until_back(
        &mut self,
        since: Duration,
        limit: Duration,
        of: impl Fn(Pair) -> bool + Copy,
    ) -> Result<Option<Duration>, Stopped> {
        self.until(limit, |stage| stage.back(since, of))
    }

    /// Something of the book, as it is now.
    pub fn book<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        match &self.streams {
            Some(streams) => read(&streams.book()),
            None => read(&Book::new(Vec::new())),
        }
    }

    /// Loss among the packets of these pairs that were sent from `from` until now, after what is under way has arrived.
    pub fn loss(
        &mut self,
        from: Duration,
        of: impl Fn(Pair) -> bool + Copy,
    ) -> Result<Loss, Stopped> {
        let to = self.now();
        self.until(UNDER_WAY, |stage| {
            let late = to.saturating_sub(UNDER_WAY).max(from);
            (stage.book(|book| book.loss(late, to, of)).lost == 0).then_some(())
        })?;
        let loss = self.book(|book| book.loss(from, to, of));
        if loss.lost > 0 {
            let losers = self.book(|book| book.losers(from, to, of));
            for ((a, b), count, first, last) in losers {
                let (first, last) = (first.as_secs_f64(), last.as_secs_f64());
                let (a, b) = (self.name(a), self.name(b));
                let text = format!("{a} to {b} lost {count}, sent at {first:.2} to {last:.2} s");
                self.findings.detail(text);
            }
        }
        Ok(loss)
    }

    /// That none of the packets of these pairs is lost that were sent from `from` until now.
    pub fn no_loss(
        &mut self,
        phase: &str,
        from: Duration,
        of: impl Fn(Pair) -> bool + Copy,
    ) -> Result<(), Stopped> {
        let loss = self.loss(from, of)?;
        let what = format!("{phase}: packets lost of {}", loss.sent);
        // Nothing is lost where nothing is sent.
        self.measure(what, (loss.sent > 0).then_some(loss.lost as f64), Required::Exactly(0.0));
        Ok(())
    }

    /// The streams end; packets a second that each pair had on average.
    pub fn quiet(&mut self) {
        if let Some(streams) = self.streams.take() {
            let wanted = streams.rate;
            let book = streams.finish();
            let rates = book.rates();
            let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
            self.step(format!(
                "the streams end; {mean:.0} packets a second each, of {wanted:.0} wanted"
            ));
        }
    }

    /// What has passed on the wire until now.
    pub fn wire(&self) -> Counts {
        self.watch.as_ref().map(Watch::counts).unwrap_or_default()
    }

    /// That nothing passed in the clear since then, and that the wire was watched without a gap.
    pub fn no_clear(&mut self, phase: &str, since: &Counts) {
        let seen = self.wire().since(since);
        self.exactly(format!("{phase}: packets in the clear"), seen.clear, 0);
        self.watched(&seen);
        for (flow, count) in seen.clear_flows.iter().take(10) {
            self.findings.detail(format!("in the clear: {count} of {flow:?}"));
        }
    }

    /// What the watch missed could have been anything.
    pub fn watched(&mut self, seen: &Counts) {
        if seen.missed > 0 {
            self.exactly("frames that the watch missed", seen.missed, 0);
        }
    }

    /// Whether each of these pairs has one IKE SA and one child SA, and both ends agree.
    pub fn is_calm(&self, pairs: &[Pair]) -> Option<()> {
        calm(&self.all_sas(), pairs).then_some(())
    }

    /// Waits until each of these pairs has one IKE SA and one child SA, and both ends agree.
    pub fn settle(&mut self, pairs: &[Pair], limit: Duration) -> Result<Option<AllSas>, Stopped> {
        self.until(limit, |stage| {
            let all = stage.all_sas();
            calm(&all, pairs).then_some(all)
        })
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.streams = None;
        self.watch = None;
        self.lab.remove(self.keep.as_deref());
        for daemon in self.daemons.iter_mut().flatten() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = fs::remove_dir_all(&self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(ike: &str, child: (&str, &str)) -> Sas {
        let pair = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
        Sas { ike: vec![pair((ike, "r"))], children: vec![pair(child)] }
    }

    #[test]
    fn both_ends_must_speak_of_the_same_sas() {
        let pairs = [(0, 1), (1, 0)];
        let of = |a: Sas, b: Sas| AllSas::from([((0, 1), a), ((1, 0), b)]);
        assert!(calm(&of(one("i", ("1", "2")), one("i", ("2", "1"))), &pairs));
        assert!(!calm(&of(one("i", ("1", "2")), one("j", ("2", "1"))), &pairs));
        assert!(!calm(&of(one("i", ("1", "2")), one("i", ("1", "2"))), &pairs));
        let mut two = one("i", ("1", "2"));
        two.children.push(("3".into(), "4".into()));
        assert!(!calm(&of(two, one("i", ("2", "1"))), &pairs));
        assert!(!calm(&AllSas::new(), &pairs));
    }

    #[test]
    fn a_status_is_read_for_its_sas() {
        let peer = json!({
            "ike_sas": [{"spi_i": "a", "spi_r": "b"}],
            "child_sas": [{"spi_in": "2", "spi_out": "3"}, {"spi_in": "1", "spi_out": "4"}],
        });
        let found = sas(&peer);
        assert_eq!(found.ike, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(found.children[0], ("1".to_owned(), "4".to_owned()));
        assert_eq!(sas(&Value::Null), Sas::default());
    }
}
