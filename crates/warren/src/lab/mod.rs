//! `warren lab`: hosts as network namespaces on this machine, with the real daemon on each. No other tool is needed.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use linux::lock::Lock;
use linux::netns::Netns;
use mesh::manifest::{Manifest, Place};
use serde::{Deserialize, Serialize};

use crate::args::{DataPlane, Families, Family, KeyType, LabCommand, LabShape};
use crate::exit::Failure;
use crate::load;
use crate::pki;

mod attacker;
pub mod authority;
mod crowd;
pub mod daemons;
mod demo;
mod findings;
mod line;
pub mod net;
mod path;
mod probe;
pub mod recipe;
mod report;
mod rotation;
mod scenario;
mod stage;
pub mod stop;
mod streams;
mod traffic;
mod watch;
mod wire;

use authority::Authority;
use net::{Host, INTERFACE, Nic};

/// Name of the lab that `up` makes; there is one on a machine.
const UP: &str = "warren-lab";
/// Everything that a lab leaves on the machine lies in a folder of its name, and goes with it.
const RUN: &str = "/run";

/// Daemons have so long to answer for the first time: all start at once, on machines of any speed.
const START: Duration = Duration::from_secs(240);

/// Addresses of a subnet that are looked at for protected ones.
const LOOKED_AT: usize = 1 << 20;

/// Runs it.
pub fn run(command: &LabCommand, json: bool) -> Result<(), Failure> {
    linux::sandbox::privileges()
        .map_err(|missing| Failure::No(format!("the lab makes network namespaces: {missing}")))?;
    match command {
        LabCommand::Up(shape) => up(shape, json),
        LabCommand::Down => down(),
        LabCommand::Exec { host, command } => exec(host, command),
        LabCommand::Demo(shape) => demo::run(shape, json),
        LabCommand::Scenario(wanted) => scenario::run(wanted, json),
    }
}

/// What is written down for `exec` and `down`.
#[derive(Serialize, Deserialize)]
struct State {
    hosts: Vec<Host>,
    pids: Vec<u32>,
}

/// A lab that is being built or runs; holds the lock, so that there is one on a machine.
pub struct Lab {
    /// Folder with the manifests, certificates, logs and sockets.
    pub dir: PathBuf,
    /// The hosts.
    pub hosts: Vec<Host>,
    manifest: PathBuf,
    credentials: Option<PathBuf>,
    data_plane: DataPlane,
    _lock: Lock,
}

impl Lab {
    /// Addresses, certificates, manifest, namespaces: everything but the daemons.
    pub fn build(shape: &LabShape, name: &str) -> Result<Self, Failure> {
        Self::build_with(shape, name, |_| {})
    }

    /// The same, with hosts that have more than an address.
    pub fn build_with(
        shape: &LabShape,
        name: &str,
        furnish_hosts: impl FnOnce(&mut Vec<Host>),
    ) -> Result<Self, Failure> {
        let dir = Path::new(RUN).join(name);
        // Keys lie in it.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|error| Failure::No(format!("{}: {error}", dir.display())))?;
        let lock = Lock::take(&dir.join("lock")).map_err(|_| {
            Failure::No("another lab is at work on this machine; wait for it, or end it".into())
        })?;
        if dir.join("lab.json").exists() {
            return Err(Failure::No("a lab is up; `warren lab down` takes it away".into()));
        }
        Self::furnish(shape, name, &dir, lock, furnish_hosts)
            .inspect_err(|_| drop(fs::remove_dir_all(&dir)))
    }

    fn furnish(
        shape: &LabShape,
        name: &str,
        dir: &Path,
        lock: Lock,
        furnish_hosts: impl FnOnce(&mut Vec<Host>),
    ) -> Result<Self, Failure> {
        let (manifest, credentials, subnets, given) = match &shape.manifest {
            Some(file) => given(dir, file)?,
            None => (write_own(dir, shape.family)?, None, own_subnets(shape.family), None),
        };
        let mut hosts = hosts(name, &subnets, shape.hosts, given.as_ref())?;
        furnish_hosts(&mut hosts);
        net::build(&hosts).map_err(Failure::No)?;
        let (dir, data_plane) = (dir.to_owned(), shape.data_plane);
        Ok(Self { dir, hosts, manifest, credentials, data_plane, _lock: lock })
    }

    /// Starts a daemon on every host and waits until all answer.
    pub fn start(&self, stop: &dyn Fn() -> bool) -> Result<Vec<std::process::Child>, Failure> {
        let mut children = Vec::new();
        let program = std::env::current_exe().map_err(Failure::no)?;
        for host in &self.hosts {
            let state = daemons::folder(&self.dir, host);
            let how = daemons::Start {
                state: &state,
                program: &program,
                manifest: &self.manifest,
                credentials: self.credentials.as_deref(),
                data_plane: self.data_plane,
                address: true,
                more: &[],
            };
            match daemons::start(&self.dir, host, &how) {
                Ok(child) => children.push(child),
                Err(error) => {
                    daemons::end(&mut children);
                    return Err(Failure::No(error));
                }
            }
        }
        if let Err(error) = daemons::wait_ready(&self.dir, &self.hosts, START, stop) {
            daemons::end(&mut children);
            return Err(Failure::No(error));
        }
        Ok(children)
    }

    /// Takes the hosts and the files away.
    pub fn remove(&self, keep: Option<&Path>) {
        net::end_processes(&self.hosts);
        net::remove(&self.hosts);
        if let Some(keep) = keep {
            copy_logs(&self.dir, &self.hosts, keep);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn up(shape: &LabShape, json: bool) -> Result<(), Failure> {
    let stop = stop::Stop::on_signals().map_err(Failure::no)?;
    let lab = Lab::build(shape, UP)?;
    let children = match lab.start(&|| stop.wanted()) {
        Ok(children) => children,
        Err(failure) => {
            lab.remove(shape.keep.as_deref());
            return Err(failure);
        }
    };
    let state = State {
        hosts: lab.hosts.clone(),
        pids: children.iter().map(std::process::Child::id).collect(),
    };
    let text = serde_json::to_string(&state).map_err(Failure::no)?;
    fs::write(lab.dir.join("lab.json"), &text).map_err(Failure::no)?;
    if json {
        println!("{text}");
        return Ok(());
    }
    for host in &lab.hosts {
        let addresses: Vec<String> = host.addresses().iter().map(IpAddr::to_string).collect();
        println!("{:<4} {}", host.name, addresses.join(" "));
    }
    println!(
        "\ntry: warren lab exec h1 ping -c 3 {}\n     warren lab exec h1 warren status\n     warren lab down",
        lab.hosts[1].address
    );
    Ok(())
}

fn down() -> Result<(), Failure> {
    let state = read_state()?;
    for pid in state.pids.iter().filter(|pid| is_ours(**pid)) {
        daemons::terminate(*pid);
    }
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while state.pids.iter().any(|pid| is_ours(*pid)) && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    net::remove(&state.hosts);
    fs::remove_dir_all(home())
        .map_err(|error| Failure::No(format!("{}: {error}", home().display())))
}

/// Whether the process is still a daemon of the lab, and not another one with its number.
fn is_ours(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&home().display().to_string()))
}

fn exec(host: &str, command: &[String]) -> Result<(), Failure> {
    let state = read_state()?;
    let wanted = if host.parse::<u16>().is_ok() { format!("h{host}") } else { host.to_owned() };
    let Some(host) = state
        .hosts
        .iter()
        .find(|known| known.name == wanted || known.address.to_string() == wanted)
    else {
        return Err(Failure::No(format!(
            "no host `{host}`; there are h1 to h{}",
            state.hosts.len()
        )));
    };
    let netns = Netns::open(&host.namespace()).map_err(Failure::no)?;
    let own = std::env::current_exe().map_err(Failure::no)?;
    // `warren` on a host means this program, talking to that host's daemon.
    let mut run = if command[0] == "warren" {
        let mut run = Command::new(own);
        run.arg("--control").arg(daemons::control(&home(), host));
        run
    } else {
        Command::new(&command[0])
    };
    run.args(&command[1..]);
    netns.confine(&mut run, &[]).map_err(Failure::no)?;
    let error = run.exec();
    Err(Failure::No(format!("{}: {error}", command[0])))
}

fn home() -> PathBuf {
    Path::new(RUN).join(UP)
}

fn read_state() -> Result<State, Failure> {
    let text = fs::read_to_string(home().join("lab.json"))
        .map_err(|_| Failure::No("no lab is up; `warren lab up` makes one".into()))?;
    serde_json::from_str(&text).map_err(Failure::no)
}

fn own_subnet(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::new_assert([10, 99, 0, 0].into(), 24)),
        Family::V6 => {
            IpNet::V6(ipnet::Ipv6Net::new_assert([0xfd99, 0, 0, 0, 0, 0, 0, 0].into(), 64))
        }
    }
}

fn own_subnets(families: Families) -> Vec<IpNet> {
    families.list().iter().map(|family| own_subnet(*family)).collect()
}

/// A CA, one certificate for all hosts as fleets have it, and a manifest with the defaults.
fn write_own(dir: &Path, families: Families) -> Result<PathBuf, Failure> {
    write_credentials(dir, "lab CA")?;
    let file = dir.join("manifest.yml");
    let subnets: String =
        own_subnets(families).iter().map(|subnet| format!("  - {subnet}\n")).collect();
    let text = format!(
        "ipsec:\n  ipsec_subnets:\n{subnets}  instance_certificate: file:instance.pem\n  instance_private_key: file:instance.key\n  ca_certificates:\n  - file:ca.pem\n"
    );
    fs::write(&file, text).map_err(|error| Failure::No(format!("{}: {error}", file.display())))?;
    Ok(file)
}

/// A CA and one certificate under it: `ca.pem`, `ca.key`, `instance.pem`, `instance.key`.
pub fn write_credentials(dir: &Path, ca_name: &str) -> Result<(), Failure> {
    let authority =
        Authority::new(dir, "ca", ca_name, KeyType::Rsa3072, 30 * pki::DAY).map_err(Failure::No)?;
    authority.issue("instance", "lab instance", 30 * pki::DAY).map_err(Failure::No)
}

type Given = (PathBuf, Option<PathBuf>, Vec<IpNet>, Option<Manifest>);

/// The operator's own manifest. Where its certificates are a guide's placeholders, the rehearsal brings its own.
fn given(dir: &Path, file: &Path) -> Result<Given, Failure> {
    let file = fs::canonicalize(file)
        .map_err(|error| Failure::No(format!("{}: {error}", file.display())))?;
    let unix_now = linux::clock::unix_now();
    let (manifest, credentials) = match load::load(&file, &crypto::native::Native, unix_now, None) {
        Ok(accepted) => (accepted.manifest, None),
        Err(refused) => {
            write_credentials(dir, "lab CA")?;
            // Refused for anything but its credentials: then the first refusal is the one to show.
            let accepted = load::load(&file, &crypto::native::Native, unix_now, Some(dir))
                .map_err(|_| Failure::no(&refused))?;
            crate::print::complain(format_args!(
                "warren: the manifest's certificates cannot be used here; the rehearsal runs with its own\n{refused}\n"
            ));
            (accepted.manifest, Some(dir.to_owned()))
        }
    };
    let first = manifest.ipsec_subnets.first().copied().unwrap_or(own_subnet(Family::V4));
    // Hosts have addresses of both families where it has subnets of both.
    let of_other = |net: &&IpNet| net.addr().is_ipv4() != first.addr().is_ipv4();
    let subnets = [Some(first), manifest.ipsec_subnets.iter().find(of_other).copied()];
    Ok((file, credentials, subnets.into_iter().flatten().collect(), Some(manifest)))
}

/// Hosts with an address in each of the subnets; the first names them.
fn hosts(
    lab: &str,
    subnets: &[IpNet],
    count: u16,
    manifest: Option<&Manifest>,
) -> Result<Vec<Host>, Failure> {
    let mut hosts = Vec::new();
    for subnet in subnets {
        let prefix = subnet.prefix_len();
        for (index, address) in addresses(*subnet, count, manifest)?.into_iter().enumerate() {
            if subnet == &subnets[0] {
                let (lab, name) = (lab.to_owned(), format!("h{}", index + 1));
                hosts.push(Host { lab, name, address, prefix, more: Vec::new() });
            } else {
                hosts[index].more.push(Nic { interface: INTERFACE.to_owned(), address, prefix });
            }
        }
    }
    Ok(hosts)
}

/// The first `count` addresses of the subnet that are protected.
fn addresses(
    subnet: IpNet,
    count: u16,
    manifest: Option<&Manifest>,
) -> Result<Vec<IpAddr>, Failure> {
    let protected = |address: &IpAddr| {
        manifest.is_none_or(|manifest| matches!(manifest.place_of(*address), Place::Protected(_)))
    };
    let found = subnet.hosts().take(LOOKED_AT).filter(protected).take(usize::from(count));
    let found: Vec<IpAddr> = found.collect();
    if found.len() == usize::from(count) {
        return Ok(found);
    }
    Err(Failure::No(format!(
        "{subnet} has room for {} protected hosts, {count} are asked for",
        found.len()
    )))
}

fn copy_logs(dir: &Path, hosts: &[Host], keep: &Path) {
    let copied = hosts.iter().try_for_each(|host| {
        let to = keep.join(&host.name);
        fs::create_dir_all(&to)?;
        fs::copy(daemons::folder(dir, host).join("log"), to.join("log")).map(|_| ())
    });
    if let Err(error) = copied {
        crate::print::complain(format_args!("warren: keeping logs in {}: {error}", keep.display()));
    }
}
