//! The manifest: one file for all hosts, read with every error of it at once.
//!
//! Pure: texts come in, values or [`Diagnostics`] go out. What the manifest refers to (`file:PATH`,
//! `credential:NAME`, `include`) is fetched by the program through a [`Resolver`].

mod credentials;
mod diagnostic;
mod exceptions;
mod nearest;
mod peers;
mod pem;
mod places;
mod plain;
mod properties;
mod quantity;
mod read;
mod secret;
mod shape;
mod source;
mod subnets;
mod suites;
mod syntax;
mod windows;
mod yaml;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ike::config::Childless;
use ipnet::IpNet;
use ipsec::sa::Mode;
use wire::identity::Identity;
use wire::proposal::Proposal;

pub(crate) use exceptions::protocol_name;

pub use diagnostic::{Diagnostic, Diagnostics, Note, Report, Severity};
pub use places::Place;
pub use plain::properties;
pub use quantity::duration;
pub use secret::SecretBytes;
pub use source::{Sources, Span};

use places::Places;

/// Fetches what a manifest refers to. Implemented by the program, which alone knows files.
pub trait Resolver {
    /// The text behind a reference, or why there is none, in words for the operator.
    fn read(&self, reference: &Ref) -> Result<String, String>;

    /// The paths that an `include` means, in order; a resolver that knows globs expands them here.
    fn expand(&self, path: &str, from: &str) -> Result<Vec<String>, String> {
        let _ = from;
        Ok(vec![path.to_owned()])
    }
}

impl<F: Fn(&Ref) -> Result<String, String>> Resolver for F {
    fn read(&self, reference: &Ref) -> Result<String, String> {
        self(reference)
    }
}

/// A resolver for manifests that hold everything themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Resolver for NoFiles {
    fn read(&self, _: &Ref) -> Result<String, String> {
        Err("references are not followed here".to_owned())
    }
}

/// What a manifest refers to. Relative paths are meant from the folder of the file `from`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ref {
    /// `file:PATH`: the value of a property.
    File {
        /// The path as written.
        path: String,
        /// Name of the manifest's file in which it stands.
        from: String,
    },
    /// `credential:NAME`: a credential of the service manager.
    Credential {
        /// Its name.
        name: String,
    },
    /// One of `include`: a further part of the manifest.
    Include {
        /// The path as written.
        path: String,
        /// Name of the manifest's file in which it stands.
        from: String,
    },
}

/// How a manifest is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Leave certificates, keys and PSK unread: [`Credentials::Absent`]. For who brings their own,
    /// as a rehearsal does; a guide's placeholders are no errors then.
    pub ignore_credentials: bool,
}

/// A manifest, checked as far as that is possible without a clock and without cryptography.
///
/// What remains for the program: that certificate, key and chain belong together and are valid
/// ([`Manifest::diagnostics`] takes its findings), and that it can do what is asked
/// ([`Manifest::unavailable`]).
#[derive(Clone)]
pub struct Manifest {
    /// Networks whose traffic is protected, host bits cleared, as listed, without repetitions.
    pub ipsec_subnets: Vec<IpNet>,
    /// Networks that pass in clear.
    pub no_ipsec_subnets: Vec<IpNet>,
    /// How hosts prove who they are.
    pub credentials: Arc<Credentials>,
    /// Encrypt if possible, else clear.
    pub optional: bool,
    /// How often `optional: true` is warned of.
    pub optional_warn_interval: Duration,
    /// IKE suites, best first.
    pub ike_proposals: Arc<Suites>,
    /// ESP suites, best first.
    pub esp_proposals: Arc<Suites>,
    /// Which version of IKE is spoken.
    pub ike_version: IkeVersion,
    /// Transport or tunnel.
    pub mode: Mode,
    /// Packets are compressed with DEFLATE where the peer does it too (IPComp).
    pub compression: bool,
    /// What happens with a peer that does not answer.
    pub dpdaction: DpdAction,
    /// How long a peer may be silent before it is asked.
    pub dpddelay: Duration,
    /// ESP in UDP even without a NAT.
    pub force_udp_encapsulation: bool,
    /// Tunnels may move between addresses (RFC 4555); of no effect in transport mode.
    pub mobike: bool,
    /// How long the start may take.
    pub prestart_timeout: Duration,
    /// How long the stop may take.
    pub stop_timeout: Duration,
    /// How much is logged.
    pub log_level: LogLevel,
    /// When an expiry is logged, and how loud.
    pub expiry: ExpiryPeriods,
    /// The Windows half.
    pub windows: Option<Windows>,
    /// Exceptions before the subnets, first match wins.
    pub policies: Vec<Exception>,
    /// When SAs are rekeyed.
    pub lifetimes: Lifetimes,
    /// When tunnels are built.
    pub start: Start,
    /// Probes of the peers; `None` is off.
    pub liveness: Option<Liveness>,
    /// Name of the mesh: hosts of another one are never spoken to.
    pub cluster: Option<String>,
    /// `ppk`, `ppk_id` and `ppk_required`.
    pub ppk: Option<Arc<PpkSetting>>,
    /// Hosts that need something of their own.
    pub peers: Arc<[Peer]>,
    sources: Sources,
    spans: BTreeMap<String, Span>,
    places: Places,
}

/// How hosts prove who they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// By certificates.
    Certificates(Certificates),
    /// By a key that all share.
    Psk(SecretBytes),
    /// Not read: [`Options::ignore_credentials`].
    Absent,
}

/// PEM as it was given; its form was checked, what is certified was not.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The leaf, and intermediates behind it if it came with any: CERTIFICATE blocks.
    pub instance_certificate: String,
    /// One PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY block, not encrypted.
    pub instance_private_key: SecretBytes,
    /// The CAs: each item one certificate or a chain, root first.
    pub ca_certificates: Vec<CaItem>,
    /// Revocation lists of the CAs: each item one or more X509 CRL blocks.
    pub crls: Vec<CaItem>,
}

/// A second secret of all hosts, or of a pair, which goes into the keys (RFC 8784).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PpkSetting {
    /// What peers call it.
    pub id: String,
    /// It.
    pub secret: SecretBytes,
    /// Whether peers without it are refused.
    pub required: bool,
}

/// One item of `ca_certificates` or `crls`.
#[derive(Clone, Debug)]
pub struct CaItem {
    /// CERTIFICATE blocks, root first; X509 CRL blocks.
    pub pem: String,
    /// Where it stands.
    pub span: Span,
}

impl PartialEq for CaItem {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for CaItem {}

/// Proposals, as written and as meant, best first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Suites {
    /// As written, without `!`.
    pub text: Vec<String>,
    /// As meant, numbered from 1.
    pub proposals: Arc<[Proposal]>,
}

/// `ike_version`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum IkeVersion {
    /// IKEv2; an older peer may answer with what it has.
    #[default]
    Any,
    /// IKEv1 only.
    V1,
    /// IKEv2 only.
    V2,
}

/// `dpdaction`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum DpdAction {
    /// Build the tunnel anew at once.
    #[default]
    Restart,
    /// Forget the tunnel; traffic builds it anew only where policy says so.
    Clear,
    /// Wait for traffic.
    Trap,
    /// Peers are not checked.
    None,
}

/// strongSwan's log level, -1 (silent) to 4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LogLevel(pub i8);

/// Days before the end of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpiryPeriods {
    /// From here on [INFO].
    pub info: u32,
    /// From here on [WARN].
    pub warn: u32,
    /// From here on [ERROR].
    pub error: u32,
    /// From here on [CRITICAL].
    pub critical: u32,
}

impl Default for ExpiryPeriods {
    fn default() -> Self {
        Self { info: 30, warn: 14, error: 7, critical: 3 }
    }
}

/// What the Windows half says in its own words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Windows {
    /// `main_mode_proposals`.
    pub main_mode: Vec<MainMode>,
    /// `quick_mode_proposals`.
    pub quick_mode: Vec<QuickMode>,
}

/// An IKE suite in the words of Windows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MainMode {
    /// As in `AES128`.
    pub encryption: String,
    /// As in `SHA256`.
    pub hash: String,
    /// As in `DH14`.
    pub keyexchange: String,
}

/// An ESP suite in the words of Windows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuickMode {
    /// As in `AESGCM128`.
    pub encryption: String,
    /// As in `AESGMAC128`.
    pub hash: String,
}

/// One of `policies`: a flow between a host of the fleet (local) and another one (remote).
///
/// All hosts read the same list, so each one applies it from both ends: where it is the one that
/// the exception calls remote, it takes it mirrored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exception {
    /// What happens.
    pub action: ExceptionAction,
    /// IP protocol; `None` is any.
    pub protocol: Option<u8>,
    /// Ports of this side, inclusive.
    pub local_port: Option<(u16, u16)>,
    /// Ports of the other side.
    pub remote_port: Option<(u16, u16)>,
    /// Ports of either side, written `port`.
    pub port: Option<(u16, u16)>,
    /// The other side; `None` is everybody.
    pub remote: Option<IpNet>,
    /// Packets in, out, or both.
    pub direction: ExceptionDirection,
    /// What the operator calls it.
    pub name: Option<String>,
    /// Where it stands.
    pub span: Span,
}

/// What an exception does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExceptionAction {
    /// In clear.
    Pass,
    /// By IPsec.
    Protect,
    /// Not at all.
    Drop,
}

/// Which packets an exception is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExceptionDirection {
    /// Those that arrive.
    In,
    /// Those that leave.
    Out,
    /// All.
    #[default]
    Both,
}

/// When SAs are replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetimes {
    /// Of an IKE SA.
    pub ike: Duration,
    /// Of a child SA.
    pub child: Duration,
    /// Bytes that a child SA carries; `None`: what its cipher allows.
    pub child_bytes: Option<u64>,
    /// Packets that a child SA carries; `None`: what its cipher allows.
    pub child_packets: Option<u64>,
    /// How far these are spread by chance, in percent.
    pub jitter_percent: u8,
}

/// `start`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Start {
    /// With the first packet.
    #[default]
    Trap,
    /// Known peers at once.
    Eager,
}

/// `liveness`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Liveness {
    /// Between two probes of a peer.
    pub interval: Duration,
    /// Without an answer for so long, the peer does not live.
    pub timeout: Duration,
    /// UDP port of the probes; `None` leaves it to the program.
    pub port: Option<u16>,
}

/// One of `peers`.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address; no two peers have the same.
    pub address: IpAddr,
    /// What people call it; no two peers have the same.
    pub name: Option<Arc<str>>,
    /// Who it must prove to be.
    pub id: Option<Arc<Identity>>,
    /// A key of this pair alone.
    pub psk: Option<SecretBytes>,
    /// Where it differs from the fleet's.
    pub ike_version: Option<IkeVersion>,
    /// Where they differ from the fleet's.
    pub ike_proposals: Option<Arc<Suites>>,
    /// Where they differ from the fleet's.
    pub esp_proposals: Option<Arc<Suites>>,
    /// Where it differs from the fleet's.
    pub start: Option<Start>,
    /// A second secret of this pair alone.
    pub ppk: Option<Arc<PpkSetting>>,
    /// Whether the first child SA comes with IKE_AUTH.
    pub childless: Childless,
    /// It may send its tunnel to another gateway of the same `id` (RFC 5685).
    pub redirect: bool,
    /// Neither end proves who it is.
    pub unauthenticated: bool,
    /// Where it stands.
    pub span: Span,
}

impl Manifest {
    /// Reads a manifest: a BOSH runtime config, the map `ipsec:`, or that map's content.
    ///
    /// # Errors
    /// All errors of the file and of what it includes. Nothing of a refused manifest is used.
    pub fn parse(
        name: &str,
        text: &str,
        resolver: &dyn Resolver,
    ) -> Result<(Self, Vec<Note>), Diagnostics> {
        Self::parse_with(name, text, resolver, Options::default())
    }

    /// [`Manifest::parse`] with options.
    ///
    /// # Errors
    /// As there.
    pub fn parse_with(
        name: &str,
        text: &str,
        resolver: &dyn Resolver,
        options: Options,
    ) -> Result<(Self, Vec<Note>), Diagnostics> {
        let mut reader = read::Reader::new(resolver, options);
        let manifest = properties::manifest(&mut reader, name, text);
        let found = reader.found;
        match manifest {
            Some(mut manifest) if !found.has_errors() => {
                manifest.sources = found.sources.clone();
                Ok((manifest, found.into_notes()))
            }
            _ => Err(found),
        }
    }

    /// Which list decides on an address: the longest prefix; on a tie it passes in clear.
    pub fn place_of(&self, address: IpAddr) -> Place {
        self.places.of(address)
    }

    /// Whether a host of this address has a place in the manifest.
    ///
    /// # Errors
    /// A finding with its remedy, if the address is in neither list.
    pub fn check_address(&self, address: IpAddr) -> Result<Place, Diagnostic> {
        match self.place_of(address) {
            Place::Nowhere => Err(places::nowhere(address, self.span("ipsec_subnets"))),
            place => Ok(place),
        }
    }

    /// Where a property stands, `ipsec_subnets` or `peers` for instance; `None` if it is not written.
    pub fn span(&self, property: &str) -> Option<Span> {
        self.spans.get(property).copied()
    }

    /// An empty list of findings about this manifest's files, for what others find in it.
    pub fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(self.sources.clone())
    }

    /// The files that it was read from, as they may be shown.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The entry of `peers` for an address.
    pub fn peer(&self, address: IpAddr) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.address == address)
    }

    /// What the manifest asks for and this version has not: each with its place and the remedy.
    pub fn unavailable(&self) -> Vec<Diagnostic> {
        let fleet = (self.ike_version == IkeVersion::V1).then(|| self.span("ike_version"));
        let peers = self.peers.iter().filter(|peer| peer.ike_version == Some(IkeVersion::V1));
        fleet
            .into_iter()
            .chain(peers.map(|peer| Some(peer.span)))
            .map(|span| Diagnostic {
                severity: Severity::Error,
                span,
                message: "IKEv1 is not implemented yet".to_owned(),
                remedy: "write `ike_version: ike` (IKEv2), or keep this host on its present IPsec"
                    .to_owned(),
            })
            .collect()
    }
}
