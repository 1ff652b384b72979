//! `warren bench …`

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::DataPlane;

/// `warren bench`
#[derive(Args, Debug)]
pub struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// `warren bench …`
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Two daemons on this machine: streams, packets a second, round trip, CPU; beside the bare wire and cipher
    Esp(BenchEsp),
    /// Handshakes: CPU time of each side beside the bare cryptography, by suite and number of peers
    Ike(BenchIke),
    /// A host with many tunnels: memory, idle CPU, `status`, a packet, a reload that adds a peer
    Mesh(BenchMesh),
    /// A large manifest: read, planned, and one entry of it changed
    Manifest(BenchManifest),
    /// The same measurements between two namespaces that are there already
    #[command(hide = true)]
    Path(BenchPath),
    /// Figures of one run beside each other: those of `esp`, and those of `path` for each peer
    #[command(hide = true)]
    Compare {
        /// What `warren bench esp --json` has printed.
        ours: PathBuf,
        /// What `warren bench path --json` has printed; the files are named after the peers.
        peers: Vec<PathBuf>,
        /// What `warren bench ike|mesh|manifest --json` has printed.
        #[arg(long, value_name = "FILE")]
        figures: Vec<PathBuf>,
    },
}

/// `warren bench esp`
#[derive(Args, Debug)]
pub struct BenchEsp {
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub seconds: u16,
    /// Who carries the packets.
    #[arg(long, value_enum, default_value = "userspace")]
    pub data_plane: DataPlane,
    /// ESP in UDP, whatever the hosts would agree on.
    #[arg(long)]
    pub udp: bool,
}

/// `warren bench path`
#[derive(Args, Debug)]
pub struct BenchPath {
    /// Network namespace of the sender.
    #[arg(long, value_name = "NETNS")]
    pub from: String,
    /// Network namespace of the receiver.
    #[arg(long, value_name = "NETNS")]
    pub to: String,
    /// An address of the receiver.
    #[arg(long, value_name = "IP")]
    pub target: IpAddr,
    /// Processes whose CPU time is measured.
    #[arg(long, value_name = "PID")]
    pub process: Vec<u32>,
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub seconds: u16,
}

/// `warren bench ike`
#[derive(Args, Debug)]
pub struct BenchIke {
    /// How many peers initiate at one host at once.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "10,100,1000",
        value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub peers: Vec<u16>,
    /// Only these.
    #[arg(long, value_enum)]
    pub suite: Vec<Suite>,
}

/// `warren bench mesh`
#[derive(Args, Debug)]
pub struct BenchMesh {
    /// With how many peers the host has a tunnel.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "10,100,1000",
        value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub peers: Vec<u16>,
}

/// `warren bench manifest`
#[derive(Args, Debug)]
pub struct BenchManifest {
    /// How many subnets it lists, and as many peers.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "50,500,5000",
        value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub entries: Vec<u16>,
}

/// What a handshake is made with.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// modp2048 and RSA-3072: the manifest's default.
    #[value(name = "modp2048-rsa3072")]
    Modp2048Rsa3072,
    /// x25519 and ECDSA on P-256.
    #[value(name = "x25519-p256")]
    X25519P256,
    /// x25519 and a pre-shared key.
    #[value(name = "x25519-psk")]
    X25519Psk,
}
