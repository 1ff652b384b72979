//! What was typed. Help, completions and the man page come from this one list.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod bench;

pub use bench::*;

const EXIT_CODES: &str = "Exit codes: 0 yes or done; 1 no: a check failed, a peer is not up, a file is refused; \
    2 wrong usage; 3 the daemon cannot be reached.";

/// IPsec for fleets: one manifest, every packet between the hosts encrypted.
#[derive(Parser, Debug)]
#[command(name = "warren", version, max_term_width = 100, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// The daemon's control socket.
    #[arg(long, global = true, value_name = "SOCKET", default_value = "/run/warren/control.sock")]
    pub control: PathBuf,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the daemon in the foreground
    Run(Run),
    /// Carry packets between two daemons; a daemon that stops starts it
    #[command(hide = true)]
    Hold(Hold),
    /// Validate a manifest and show what this host would do
    Check(Check),
    /// The mesh seen from this host
    Status(Status),
    /// Bring a peer's tunnel up, and let it retry again after `down`
    Up(Target),
    /// Take a peer's tunnel down, in any state, and keep it down
    Down(Target),
    /// Take a peer's tunnel down and bring it up again
    Restart(Target),
    /// Rekey a peer's SAs now
    Rekey(Rekey),
    /// Wait until tunnels are up: for units and scripts
    Wait(Wait),
    /// Read the manifest again and change only what it changes
    Reload(Reload),
    /// Stop the daemon; its SAs and policies stay, so that nothing leaks and nothing breaks
    Stop(Stop),
    /// Show events as they happen
    Monitor,
    /// Which policy decides on a packet, and the state of its SA
    Explain(Explain),
    /// Every check there is, each with its remedy; with a peer also all that concerns it
    Doctor(Doctor),
    /// What ESP adds to packets and what is left inside; for a peer also as measured
    Mtu(Mtu),
    /// Everything of one peer while all others stay quiet: its messages, opened, and what comes of them
    Trace(Trace),
    /// What would change with this manifest, before anything does
    Plan(Plan),
    /// A manifest from `ipsec.conf` of OpenBSD, `ipsec-tools.conf`, `racoon.conf` or `swanctl.conf`
    Import(Import),
    /// The leak guard: drops cleartext to and from the IPsec subnets while no daemon runs
    Guard(Guard),
    /// Decryption keys for analysis
    Keys(Keys),
    /// The traffic inside the tunnels, as a list or as a capture for Wireshark
    Capture(Capture),
    /// Show a capture as a ladder of IKE messages, decrypted where keys are known
    Decode(Decode),
    /// A recording of `warren run --record` through the same state machine again
    Replay(Replay),
    /// Certificates: a CA, leaves under it, and their inspection
    Pki(Pki),
    /// Hosts as network namespaces on this machine
    Lab(Lab),
    /// Benchmarks that anyone can run again
    Bench(Bench),
    /// The same daemon logic in the deterministic simulator
    Sim(Sim),
    /// Shell completions
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// The man page; with a folder one page for each command as well
    Man {
        /// Write `warren.1`, `warren-status.1`, … there instead of `warren.1` to standard output.
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Who carries the packets.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DataPlane {
    /// The kernel's ESP where there is one, else Warren's own.
    #[default]
    Auto,
    /// The kernel's ESP.
    Kernel,
    /// Warren's own ESP behind a TUN device.
    Userspace,
}

/// `warren run`
#[derive(Args, Debug)]
pub struct Run {
    /// The manifest.
    #[arg(short, long, value_name = "FILE")]
    pub manifest: PathBuf,
    /// Who carries the packets.
    #[arg(long, value_enum, default_value_t)]
    pub data_plane: DataPlane,
    /// Where the daemon keeps its state.
    #[arg(long, value_name = "DIR", default_value = "/run/warren")]
    pub state_dir: PathBuf,
    /// This host's address, where the manifest's subnets leave a choice.
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Record everything for `warren replay`. The file holds this host's credentials and the seed of all its keys.
    #[arg(long, value_name = "FILE", conflicts_with = "rehearsal_credentials")]
    pub record: Option<PathBuf>,
    /// Credentials that stand in for the manifest's own, for rehearsals.
    #[arg(long, value_name = "DIR", hide = true)]
    pub rehearsal_credentials: Option<PathBuf>,
    /// A lab may do to this daemon's data plane what nobody should.
    #[arg(long, hide = true)]
    pub rehearsal: bool,
}

/// `warren wait`
#[derive(Args, Debug)]
pub struct Wait {
    /// Until all tunnels are up that somebody wants; what is meant where nothing is said.
    #[arg(long, conflicts_with = "quorum")]
    pub all: bool,
    /// Until so many of a hundred are.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub quorum: Option<u8>,
    /// No longer than so many seconds.
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub timeout: u64,
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok();
    number.filter(|n| *n <= 100).ok_or_else(|| "a share is written `95` or `95%`".to_owned())
}

/// `warren decode`
#[derive(Args, Debug)]
pub struct Decode {
    /// The capture, pcap or pcapng.
    #[arg(value_name = "PCAP")]
    pub file: PathBuf,
    /// Keys: the folder that `warren keys export --wireshark` wrote, or an `ikev2_decryption_table`.
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// Only what this host sent or received.
    #[arg(long, value_name = "IP")]
    pub peer: Option<IpAddr>,
    /// Show what is in the payloads.
    #[arg(long)]
    pub detail: bool,
}

/// `warren hold`
#[derive(Args, Debug)]
pub struct Hold {
    /// The state directory of the daemon that stops.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// `warren check`
#[derive(Args, Debug)]
pub struct Check {
    /// The manifest.
    pub file: PathBuf,
    /// Judge as the host with this address.
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Judge certificates as on this date: 2027-03-01, 2027-03-01T12:00:00Z, or +30d.
    #[arg(long, value_name = "DATE", value_parser = crate::when::parse)]
    pub as_of: Option<u64>,
}

/// `warren status`
#[derive(Args, Debug)]
pub struct Status {
    /// Only this peer: an address, a name or a SPI.
    pub peer: Option<String>,
    /// Judge certificates as on this date: 2027-03-01, 2027-03-01T12:00:00Z, or +30d.
    #[arg(long, value_name = "DATE", value_parser = crate::when::parse)]
    pub as_of: Option<u64>,
}

/// A peer.
#[derive(Args, Debug)]
pub struct Target {
    /// An address, a name or a SPI.
    pub peer: String,
}

/// `warren rekey`
#[derive(Args, Debug)]
pub struct Rekey {
    /// An address, a name or a SPI.
    pub peer: String,
    /// Replace the tunnel by a new one instead, both ends proving their identities anew; no packet is lost.
    #[arg(long)]
    pub reauth: bool,
}

/// `warren reload`
#[derive(Args, Debug)]
pub struct Reload {
    /// Also replace every tunnel by a new one, for which new certificates and secrets count; no packet is lost.
    #[arg(long)]
    pub reauth: bool,
}

/// `warren stop`
#[derive(Args, Debug)]
pub struct Stop {
    /// Also take SAs, policies, routes and the device away: packets go in the clear from then on.
    #[arg(long)]
    pub flush: bool,
}

/// `warren explain`
#[derive(Args, Debug)]
pub struct Explain {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol: a name or a number.
    pub proto: Option<String>,
    /// Destination port.
    pub port: Option<u16>,
}

/// `warren doctor`
#[derive(Args, Debug)]
pub struct Doctor {
    /// Look into this peer: an address, a name or a SPI.
    pub peer: Option<String>,
    /// Judge this manifest instead of the running daemon's; without a daemon: as the host would start.
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Judge as the host with this address.
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Where the daemon keeps its state.
    #[arg(long, value_name = "DIR", default_value = "/run/warren")]
    pub state_dir: PathBuf,
}

/// `warren replay`
#[derive(Args, Debug)]
pub struct Replay {
    /// What `warren run --record` wrote.
    #[arg(value_name = "RECORDING")]
    pub file: PathBuf,
    /// Show only this peer: an address, a name or a SPI.
    #[arg(long)]
    pub peer: Option<String>,
    /// Show what is in the payloads.
    #[arg(long)]
    pub detail: bool,
}

/// `warren capture`
#[derive(Args, Debug)]
pub struct Capture {
    /// Only with this peer: an address, a name or a SPI.
    pub peer: Option<String>,
    /// Write a capture instead of a list; `-` is standard output: `warren capture -w - | wireshark -k -i -`.
    #[arg(short, long, value_name = "PCAP")]
    pub write: Option<PathBuf>,
    /// Also write the keys of all live SAs there, as `warren keys export` does: where the kernel seals.
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// End after so many packets.
    #[arg(long)]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
}

/// `warren import`
#[derive(Args, Debug)]
pub struct Import {
    /// The files; what they include is read too.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// What they are, where it cannot be told from what is in them.
    #[arg(long, value_enum)]
    pub format: Option<ImportFormat>,
    /// Value of `instance_certificate`, such as `file:warren-instance.pem`.
    #[arg(long, value_name = "REF", requires = "key", conflicts_with = "psk")]
    pub certificate: Option<String>,
    /// Value of `instance_private_key`.
    #[arg(long, value_name = "REF", requires = "ca")]
    pub key: Option<String>,
    /// Value of `ca_certificates`.
    #[arg(long, value_name = "REF", requires = "certificate")]
    pub ca: Option<String>,
    /// Value of `psk`, such as `file:psk` or `credential:psk`, instead of what the files say.
    #[arg(long, value_name = "REF")]
    pub psk: Option<String>,
}

/// What `warren import` reads.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// `ipsec.conf` of OpenBSD.
    Openbsd,
    /// `ipsec-tools.conf`.
    IpsecTools,
    /// `racoon.conf`.
    Racoon,
    /// `psk.txt` of racoon.
    RacoonPsk,
    /// `swanctl.conf` of strongSwan.
    Swanctl,
}

/// `warren trace`
#[derive(Args, Debug)]
pub struct Trace {
    /// An address, a name or a SPI.
    pub peer: String,
    /// What passed lately instead of what passes now.
    #[arg(long)]
    pub recorded: bool,
    /// Show what is in the payloads.
    #[arg(long)]
    pub detail: bool,
    /// Also write the recorded messages as a capture, for `warren decode` or Wireshark.
    #[arg(long, value_name = "PCAP", requires = "recorded")]
    pub write: Option<PathBuf>,
}

/// `warren mtu`
#[derive(Args, Debug)]
pub struct Mtu {
    /// Measure the tunnel with this peer: an address, a name or a SPI.
    #[arg(conflicts_with_all = ["mtu", "suites", "family"])]
    pub peer: Option<String>,
    /// Longest packet on the wire, in bytes.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(256..))]
    pub mtu: u16,
    /// Of this ESP suite, in strongSwan's syntax; may be given several times.
    #[arg(long = "suite", value_name = "SUITE")]
    pub suites: Vec<String>,
    /// Of packets between addresses of this family.
    #[arg(long, value_enum, default_value_t)]
    pub family: Family,
}

/// `warren plan`
#[derive(Args, Debug)]
pub struct Plan {
    /// The new manifest.
    #[arg(required_unless_present = "enforce")]
    pub file: Option<PathBuf>,
    /// Whether `optional: true` can go: every pair that is known has carried ESP both ways, and nothing in the clear
    #[arg(long, conflicts_with_all = ["file", "against", "address"])]
    pub enforce: bool,
    /// … for so long.
    #[arg(long, value_name = "T", default_value_t = 10, requires = "enforce",
        value_parser = clap::value_parser!(u32).range(1..=10_080))]
    pub minutes: u32,
    /// The same in seconds, for rehearsals.
    #[arg(long, value_name = "T", hide = true, requires = "enforce", conflicts_with = "minutes",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// Compare with this manifest instead of the running daemon's.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Judge as the host with this address.
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
}

/// `warren guard`
#[derive(Args, Debug)]
pub struct Guard {
    /// What to do.
    #[command(subcommand)]
    pub command: GuardCommand,
}

/// `warren guard …`
#[derive(Subcommand, Debug)]
pub enum GuardCommand {
    /// From now on only the manifest's exceptions pass, until a daemon has its policies
    On(GuardOn),
    /// Take everything away that guard or daemon has left: packets go in the clear from then on
    Off,
    /// Whether cleartext to the IPsec subnets is dropped: ends with 0 if it is, with 1 if not
    Status,
}

/// `warren guard on`
#[derive(Args, Debug)]
pub struct GuardOn {
    /// The manifest. If it is refused, the rules of the last one that was accepted are used.
    #[arg(short, long, value_name = "FILE")]
    pub manifest: PathBuf,
    /// An address that this host has or will have: it may speak with itself.
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Where the rules of the last accepted manifest are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/warren")]
    pub state_dir: PathBuf,
}

/// `warren keys`
#[derive(Args, Debug)]
pub struct Keys {
    /// What to do with them.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// `warren keys …`
#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// Write the keys of all live SAs as Wireshark's decryption tables. They decrypt captured traffic: guard them.
    Export {
        /// Folder for `ikev2_decryption_table` and `esp_sa`.
        #[arg(long, value_name = "DIR")]
        wireshark: PathBuf,
    },
}

/// `warren pki`
#[derive(Args, Debug)]
pub struct Pki {
    /// What to do.
    #[command(subcommand)]
    pub command: PkiCommand,
}

/// `warren pki …`
#[derive(Subcommand, Debug)]
pub enum PkiCommand {
    /// Make a CA: ca.pem and ca.key
    Init(PkiInit),
    /// Make a certificate under the CA: NAME.pem and NAME.key
    Issue(PkiIssue),
    /// Show certificates of PEM files, or of a manifest, with their dates
    Inspect {
        /// PEM files or manifests.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Judge as on this date: 2027-03-01, 2027-03-01T12:00:00Z, or +30d.
        #[arg(long, value_name = "DATE", value_parser = crate::when::parse)]
        as_of: Option<u64>,
    },
    /// Make a certificate anew: the same names under the same CA, another key, another end
    Renew(PkiRenew),
    /// Exchange the CA, or a certificate: where the hosts are, and the next step if it is safe
    Rotate(PkiRotate),
}

/// `warren pki renew`
#[derive(Args, Debug)]
pub struct PkiRenew {
    /// The certificate: its files' name.
    #[arg(default_value = "warren-instance")]
    pub name: String,
    /// Folder with ca.pem, ca.key and the certificate.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Kind of key; that of the present one if not given.
    #[arg(long, value_enum)]
    pub key: Option<KeyType>,
    /// Days of validity; as long as the present one if not given. Never longer than its CA.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: Option<u32>,
    /// What `warren status --json` printed on a host; beside what this host's daemon says.
    #[arg(long, value_name = "FILE")]
    pub status: Vec<PathBuf>,
    /// Also where hosts would refuse it.
    #[arg(long)]
    pub force: bool,
}

/// Steps of a rotation.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RotateStep {
    /// Where each host is, and what comes next; ends with 1 while hosts are behind.
    #[default]
    Show,
    /// Make the next CA, and append it to ca.pem.
    AppendCa,
    /// Make a certificate, under the next CA if there is one.
    NewLeaf,
    /// Make the next CA the only one.
    DropCa,
}

/// `warren pki rotate`
#[derive(Args, Debug)]
pub struct PkiRotate {
    /// What to do. A step is refused as long as it would break tunnels.
    #[arg(value_enum, default_value_t)]
    pub step: RotateStep,
    /// Folder with ca.pem, ca.key and the certificate, from which hosts get them.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The hosts' certificate: its files' name.
    #[arg(long, default_value = "warren-instance")]
    pub name: String,
    /// What `warren status --json` printed on a host; beside what this host's daemon says.
    #[arg(long, value_name = "FILE")]
    pub status: Vec<PathBuf>,
    /// How many hosts there are: no step as long as fewer are known. new-leaf and drop-ca want it, or --force.
    #[arg(long, value_name = "N")]
    pub hosts: Option<usize>,
    /// Common name of the next CA.
    #[arg(long, value_name = "NAME", default_value = "warren next CA")]
    pub ca_name: String,
    /// Days of validity of the next CA.
    #[arg(long, default_value_t = 1825, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub ca_days: u32,
    /// Kind of key of what is made; that of the present certificate, or RSA, if not given.
    #[arg(long, value_enum)]
    pub key: Option<KeyType>,
    /// Days of validity of the certificate; as long as the present one if not given. Never longer than its CA.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: Option<u32>,
    /// Take the step whatever is known of the hosts: tunnels may break.
    #[arg(long)]
    pub force: bool,
}

/// Kinds of key.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KeyType {
    /// RSA, 3072 bits.
    #[default]
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// `warren pki init`
#[derive(Args, Debug)]
pub struct PkiInit {
    /// Folder for the files.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Kind of key.
    #[arg(long, value_enum, default_value_t)]
    pub key: KeyType,
    /// Common name of the CA.
    #[arg(long, default_value = "warren CA")]
    pub name: String,
    /// Days of validity.
    #[arg(long, default_value_t = 1825, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// Replace files that are there.
    #[arg(long)]
    pub force: bool,
}

/// `warren pki issue`
#[derive(Args, Debug)]
pub struct PkiIssue {
    /// Common name of the certificate, and the files' name.
    #[arg(default_value = "warren-instance")]
    pub name: String,
    /// Folder with ca.pem and ca.key; the new files go there too.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Kind of key.
    #[arg(long, value_enum, default_value_t)]
    pub key: KeyType,
    /// Days of validity.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// Subject alternative names: addresses, host names, e-mail addresses.
    #[arg(long = "san", value_name = "NAME")]
    pub sans: Vec<String>,
    /// Replace files that are there.
    #[arg(long)]
    pub force: bool,
}

/// `warren lab`
#[derive(Args, Debug)]
pub struct Lab {
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// `warren lab …`
#[derive(Subcommand, Debug)]
pub enum LabCommand {
    /// Make the hosts, start the daemons, and leave them running
    Up(LabShape),
    /// Run a command on a host of the lab
    Exec {
        /// The host: a name (`h1`) or a number.
        host: String,
        /// The command.
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Stop the daemons and take everything away
    Down,
    /// Make a mesh, drive traffic between all pairs, watch the wire, show the result, clean up
    Demo(LabShape),
    /// Play an incident on real daemons, measure, and say whether what is promised holds
    Scenario(LabScenario),
}

/// `warren lab scenario`
#[derive(Args, Debug, Clone)]
pub struct LabScenario {
    /// Which: `--list` shows them. Several are played one after the other.
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "list"], conflicts_with_all = ["all", "list"])]
    pub names: Vec<String>,
    /// All of them; with --json one object a line.
    #[arg(long, conflicts_with = "list")]
    pub all: bool,
    /// Show the names, and what each requires.
    #[arg(long)]
    pub list: bool,
    /// How many hosts, where the scenario leaves a choice.
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=1001))]
    pub hosts: Option<u16>,
    /// The operator's own manifest; what the scenario changes is laid over it.
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Who carries the packets.
    #[arg(long, value_enum, default_value_t)]
    pub data_plane: DataPlane,
    /// Addresses of the hosts, where no manifest says it.
    #[arg(long, value_enum, default_value_t)]
    pub family: Family,
    /// The program that takes the place of the running one where a scenario replaces it; a copy of this one if not given.
    #[arg(long, value_name = "PATH")]
    pub replacement: Option<PathBuf>,
    /// Where the chances of lossy links and forged packets come from; another one each time if not given.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Keep logs and manifests in this folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Families of addresses.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4.
    #[default]
    #[value(name = "4")]
    V4,
    /// IPv6.
    #[value(name = "6")]
    V6,
}

/// Families of addresses that hosts of a lab have.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Families {
    /// IPv4.
    #[default]
    #[value(name = "4")]
    V4,
    /// IPv6.
    #[value(name = "6")]
    V6,
    /// An IPv4 and an IPv6 address on each host; each pair of addresses of a family has SAs of its own.
    Both,
}

impl Families {
    /// One by one.
    pub fn list(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Both => &[Family::V4, Family::V6],
        }
    }
}

impl From<Family> for Families {
    fn from(one: Family) -> Self {
        match one {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }
}

/// What the lab looks like.
#[derive(Args, Debug, Clone)]
pub struct LabShape {
    /// How many hosts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=120))]
    pub hosts: u16,
    /// The operator's own manifest; its certificates are used, and hosts get addresses in its subnets.
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Who carries the packets.
    #[arg(long, value_enum, default_value_t)]
    pub data_plane: DataPlane,
    /// Addresses of the hosts, where no manifest says it.
    #[arg(long, value_enum, default_value_t)]
    pub family: Families,
    /// Keep captures, logs and manifests in this folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `warren sim`
#[derive(Args, Debug)]
pub struct Sim {
    /// The scenario; `all` plays them all but `soak`.
    #[arg(long, default_value = "mesh")]
    pub scenario: String,
    /// How many hosts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=10000))]
    pub hosts: u16,
    /// The first seed: a run is replayed from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many seeds, counted up from the first.
    #[arg(long, default_value_t = 1)]
    pub seeds: u64,
    /// How long the load of `rekey` and `soak` lasts in the world: `90s`, `30m`, `24h`.
    #[arg(long, value_parser = time)]
    pub duration: Option<std::time::Duration>,
}

fn time(text: &str) -> Result<std::time::Duration, String> {
    mesh::manifest::duration(text)
        .ok_or_else(|| "a time is written `90s`, `30m` or `24h`".to_owned())
}
