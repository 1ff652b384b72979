//! What `warren status --json` shows; the shape is a contract with other programs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::loaded::CertificateRole;
use crate::manifest::ExpiryPeriods;
use crate::reconcile::Repaired;

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Status {
    /// This host.
    pub node: NodeStatus,
    /// Its peers, by address.
    pub peers: Vec<PeerStatus>,
}

/// This host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeStatus {
    /// Its address.
    pub address: IpAddr,
    /// All its addresses in the mesh: that one, and one of the other family if it has one there.
    pub addresses: Vec<IpAddr>,
    /// Its name.
    pub name: String,
    /// Of this program.
    pub version: String,
    /// RFC 3339.
    pub started_at: String,
    /// `kernel` or `userspace`.
    pub data_plane: DataPlane,
    /// Whether traffic passes in the clear where there is no SA.
    pub optional: bool,
    /// The mesh's name, if it has one.
    pub cluster: Option<String>,
    /// The manifest in force.
    pub manifest: Option<ManifestStatus>,
    /// Certificates in use.
    pub certificates: Vec<CertificateStatus>,
    /// Entries of the data plane that somebody else changed, and that were put right since start.
    pub drift_repaired: u64,
    /// The same by kind, and what an earlier process had left.
    pub drift: Repaired,
    /// Changes that the data plane refused since start.
    pub refusals: u64,
    /// What strangers and peers ask of IKE.
    pub ike: IkeStatus,
    /// What the program waits for next.
    pub waiting_for: String,
}

/// What comes to IKE without a proof.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IkeStatus {
    /// Handshakes that others began and have not finished. Each ends within 30 s.
    pub half_open: usize,
    /// Requests answered without protection since start, by the notify in the answer: `COOKIE`, `NO_PROPOSAL_CHOSEN`, …
    pub turned_away: BTreeMap<&'static str, u64>,
    /// Datagrams that came to nothing since start, by reason; a request for a cookie counts as `half-open limit`, too.
    pub dropped: BTreeMap<String, u64>,
}

/// Which data plane carries the packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DataPlane {
    /// The kernel's.
    Kernel,
    /// Our own.
    Userspace,
}

/// The manifest in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ManifestStatus {
    /// Where it was read.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// RFC 3339.
    pub loaded_at: String,
}

/// A certificate in use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CertificateStatus {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Hexadecimal.
    pub serial: String,
    /// RFC 3339.
    pub not_after: String,
    /// Whole days until then; negative afterwards.
    pub days_left: i64,
    /// What it is for.
    pub role: CertificateRole,
    /// By the manifest's periods.
    pub level: CertificateLevel,
    /// SHA-1 of its public key, hexadecimal: what peers call a CA by (RFC 7296 3.7).
    pub key_id: String,
    /// `key_id` of the CA that it leads to, if that is known. A root has none.
    pub ca: Option<String>,
}

/// What a peer showed when it was last authenticated by a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ShownStatus {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Hexadecimal.
    pub serial: String,
    /// RFC 3339.
    pub not_after: String,
    /// Whole days until then; negative afterwards.
    pub days_left: i64,
    /// By the manifest's periods.
    pub level: CertificateLevel,
    /// The CA of this host's manifest that it leads to.
    pub ca: Option<AuthorityStatus>,
    /// The CAs that the peer accepts; `null` if it did not say.
    pub trusts: Option<Vec<AuthorityStatus>>,
    /// Seconds since then.
    pub age_s: u64,
}

/// A CA.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AuthorityStatus {
    /// SHA-1 of its public key, hexadecimal.
    pub key_id: String,
    /// Subject, where this host's manifest has that CA.
    pub subject: Option<String>,
}

/// How near a certificate's end is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateLevel {
    /// Far.
    Ok,
    /// Within the info period.
    Info,
    /// Within the warn period.
    Warn,
    /// Within the error period.
    Error,
    /// Within the critical period.
    Critical,
    /// Over.
    Expired,
}

impl CertificateLevel {
    /// Of a certificate that is good until `not_after`, at `unix`; both in seconds since 1970.
    pub fn at(periods: &ExpiryPeriods, not_after: u64, unix: u64) -> Self {
        let Some(left) = not_after.checked_sub(unix) else { return Self::Expired };
        let within = |days: u32| left <= u64::from(days) * 86_400;
        match () {
            () if within(periods.critical) => Self::Critical,
            () if within(periods.error) => Self::Error,
            () if within(periods.warn) => Self::Warn,
            () if within(periods.info) => Self::Info,
            () => Self::Ok,
        }
    }
}

impl fmt::Display for CertificateLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Expired => "expired",
        })
    }
}

/// A peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PeerStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its name, if the manifest gives it one.
    pub name: Option<String>,
    /// Where the tunnel stands.
    pub state: State,
    /// What is broken, if anything.
    pub verdict: Verdict,
    /// Why, in one line.
    pub reason: String,
    /// What failed last, if anything did since the tunnel was last up.
    pub last_error: Option<String>,
    /// Whether this host initiates first.
    pub owner: bool,
    /// Seconds until the next attempt, while backing off.
    pub retry_in_s: Option<u64>,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// What it showed when it was last authenticated; `null` if that was not by a certificate, or by another process.
    pub certificate: Option<ShownStatus>,
    /// Its IKE SAs.
    pub ike_sas: Vec<IkeSaStatus>,
    /// Its child SAs.
    pub child_sas: Vec<ChildSaStatus>,
}

/// Where a tunnel stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No tunnel, and nobody asked for one.
    Idle,
    /// A handshake is under way, or waits for its turn.
    Connecting,
    /// An IKE SA without a child SA, or with one direction of it alone.
    HalfUp,
    /// Packets flow.
    Up,
    /// Wanted down by the operator, or backing off after a failure.
    Down,
}

/// Is it the network, or is it IPsec?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is broken.
    Ok,
    /// Packets do not get through.
    NetworkDown,
    /// Packets get through, but IPsec does not work.
    IpsecBroken,
    /// The network works, the peer does not answer.
    PeerDown,
    /// Nothing is known yet.
    Unknown,
}

/// An IKE SA.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IkeSaStatus {
    /// 16 hexadecimal digits.
    pub spi_i: String,
    /// 16 hexadecimal digits.
    pub spi_r: String,
    /// 2.
    pub version: u8,
    /// `initiator` or `responder`.
    pub role: &'static str,
    /// `half_open`, `established` or `closing`.
    pub state: &'static str,
    /// Seconds since it was established.
    pub age_s: u64,
    /// Seconds until it is rekeyed.
    pub rekey_in_s: u64,
    /// strongSwan's syntax.
    pub suite: String,
    /// Whom the peer proved to be.
    pub remote_id: String,
    /// This host's address and port; of a tunnel that has moved, not those of the manifest.
    pub local: String,
    /// The peer's.
    pub remote: String,
}

/// A child SA.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChildSaStatus {
    /// 8 hexadecimal digits.
    pub spi_in: String,
    /// 8 hexadecimal digits.
    pub spi_out: String,
    /// `transport` or `tunnel`.
    pub mode: &'static str,
    /// strongSwan's syntax.
    pub suite: String,
    /// Selectors of this host's side.
    pub local_ts: Vec<String>,
    /// Selectors of the peer's side.
    pub remote_ts: Vec<String>,
    /// Plaintext bytes received, as of the last look at the data plane.
    pub bytes_in: u64,
    /// Plaintext bytes sent.
    pub bytes_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Seconds since it was established.
    pub age_s: u64,
    /// Seconds until it is rekeyed.
    pub rekey_in_s: u64,
    /// ESP in UDP.
    pub encap: bool,
    /// How payloads are compressed, if they are: `deflate`.
    pub compression: Option<&'static str>,
}

/// What decides on a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    /// The packet in question, in words.
    pub packet: String,
    /// Policies of its flow in the order in which they are looked at, up to the one that decides.
    pub considered: Vec<Considered>,
    /// `pass`, `drop`, `protect` or `protect, or clear if there is no SA`.
    pub decision: String,
    /// Why, in one line.
    pub because: String,
    /// The peer that an SA is needed with, if one is.
    pub peer: Option<PeerStatus>,
}

/// A policy that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Considered {
    /// Its place in the order; lower is first.
    pub priority: u32,
    /// What it is for, in words.
    pub policy: String,
    /// Whether it is for this packet.
    pub matches: bool,
}
