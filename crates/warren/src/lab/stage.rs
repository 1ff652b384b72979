//! What a scenario plays on: hosts, daemons, streams, a watched wire, and the findings.

mod fleet;
mod sas;
mod traffic;

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

pub use sas::{AllSas, Sas, calm};

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
