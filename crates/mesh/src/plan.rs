//! What one host does with the manifest: its policies in order, its peers, its routes.
//!
//! A pure function of the manifest and of the host's address, so that a plan can be shown, compared
//! and rehearsed before anything happens.

mod build;
mod decide;
mod describe;
mod diff;
mod guard;
mod order;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ike::config::Childless;
use ipnet::IpNet;
use ipsec::sa::{Mode, Reqid};
use ipsec::spd::{Action, Policy};
use wire::identity::Identity;

use crate::manifest::{
    Diagnostic, IkeVersion, Manifest, Peer, Place, PpkSetting, SecretBytes, Severity, Start, Suites,
};

pub use decide::{Decision, Trace};
pub use describe::{PolicyRow, line as describe_policy};
pub use diff::{PlanDiff, SettingsDiff};
pub use guard::{FIRST_PRIORITY as GUARD_PRIORITY, guard};

/// Warren's own reqids: whatever carries another one belongs to somebody else and is left alone.
pub const REQIDS: std::ops::RangeInclusive<u32> = 0x5741_0000..=0x5741_ffff;

/// The reqid of the fleet's SAs. One for all peers: an SA is found by it and by the peer's address,
/// so that any number of policies share the one pair of SAs with a host.
pub const FLEET: Reqid = Reqid(*REQIDS.start());

/// Policies of one host, at most; a data plane must hold them all.
pub const MOST_POLICIES: usize = 100_000;

/// The plan of one host.
#[derive(Clone)]
pub struct Plan {
    /// The first names this host; a second one is of the other family.
    sides: Vec<Side>,
    policies: Vec<Planned>,
    peers: BTreeMap<IpAddr, PeerPlan>,
    protected: Vec<IpNet>,
    clear: Vec<IpNet>,
    /// Remote sides of exceptions that protect: there may be SAs with these hosts too.
    protected_by_exception: Vec<IpNet>,
    manifest: Arc<Manifest>,
}

/// This host in the mesh of one family of addresses. IPv4 and IPv6 have SAs of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Side {
    address: IpAddr,
    place: Place,
    /// Whether there may be SAs with the hosts of `ipsec_subnets`.
    meets_fleet: bool,
}

/// A policy and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// As the data plane gets it.
    pub policy: Policy,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a policy comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// What IPsec itself and the network need; says what for.
    Implicit(&'static str),
    /// One of `policies`, from the front: its index, and what people call it.
    Exception(usize, String),
    /// The same, seen from the other end.
    Mirrored(usize, String),
    /// One of `no_ipsec_subnets`.
    NoIpsecSubnet(IpNet),
    /// One of `ipsec_subnets`.
    IpsecSubnet(IpNet),
    /// One of `ipsec_subnets`, towards which another address of this host must stay silent.
    OtherAddress(IpNet),
    /// What an exception leaves of a host that is in no list.
    Remainder(IpNet),
}

/// What holds between this host and one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerPlan {
    /// Its address.
    pub address: IpAddr,
    /// What people call it.
    pub name: Option<Arc<str>>,
    /// Who it must prove to be; `None`: anyone with the fleet's credentials.
    pub id: Option<Arc<Identity>>,
    /// A key of this pair alone; `None`: the fleet's credentials.
    pub psk: Option<SecretBytes>,
    /// Which version of IKE.
    pub ike_version: IkeVersion,
    /// IKE suites, best first.
    pub ike_proposals: Arc<Suites>,
    /// ESP suites, best first.
    pub esp_proposals: Arc<Suites>,
    /// When the tunnel is built.
    pub start: Start,
    /// A second secret of this pair, or of the fleet.
    pub ppk: Option<Arc<PpkSetting>>,
    /// Whether the first child SA comes with IKE_AUTH.
    pub childless: Childless,
    /// It may send its tunnel to another gateway.
    pub redirect: bool,
    /// Neither end proves who it is.
    pub unauthenticated: bool,
}

/// Why there is no plan for a host.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// The host's address, or all of its addresses, lie in neither list.
    #[error(
        "{} in neither ipsec_subnets nor no_ipsec_subnets: add {} to one of the lists",
        lies(.0), if .0.len() == 1 { "it" } else { "one of them, or its network," }
    )]
    Nowhere(Vec<IpAddr>),
    /// The host has no address but loopback and link-local ones.
    #[error(
        "this host has no address of its own: bring its network up, or give the address with --address"
    )]
    NoAddress,
    /// More policies than a data plane holds.
    #[error(
        "the manifest makes more than {MOST_POLICIES} policies: join subnets, or give exceptions a `remote`"
    )]
    TooManyPolicies,
}

fn lies(addresses: &[IpAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    match all.as_slice() {
        [one] => format!("this host's address {one} lies"),
        _ => format!("this host's addresses {} lie", all.join(", ")),
    }
}

impl PlanError {
    /// The same as a finding in the manifest, with its place.
    pub fn diagnostic(&self, manifest: &Manifest) -> Diagnostic {
        if let Self::Nowhere(addresses) = self
            && let [one] = addresses.as_slice()
            && let Err(finding) = manifest.check_address(*one)
        {
            return finding;
        }
        Diagnostic {
            severity: Severity::Error,
            span: manifest.span("ipsec_subnets"),
            message: self.to_string(),
            remedy: String::new(),
        }
    }
}

impl Plan {
    /// The plan of the host with this address.
    ///
    /// # Errors
    /// If the address has no place in the manifest, or the policies are too many.
    pub fn for_host(manifest: &Manifest, me: IpAddr) -> Result<Self, PlanError> {
        Self::for_host_with(manifest, me, &[])
    }

    /// The plan of a host with further addresses. One of the other family that lies in a list takes part as well, with
    /// SAs of its own: chosen as by [`Plan::choose_address`], and of equals the first. Nothing leaves from the
    /// rest to a protected network, for no SA covers it.
    ///
    /// # Errors
    /// As [`Plan::for_host`].
    pub fn for_host_with(
        manifest: &Manifest,
        me: IpAddr,
        others: &[IpAddr],
    ) -> Result<Self, PlanError> {
        build::plan(Arc::new(manifest.clone()), me, others)
    }

    /// Which of a host's addresses takes part in the mesh: one inside a protected network, the
    /// one that `peers` names or else that of the longest prefix; failing that, an excluded one.
    ///
    /// # Errors
    /// If none of the addresses is in a list.
    pub fn choose_address(manifest: &Manifest, own: &[IpAddr]) -> Result<IpAddr, PlanError> {
        let usable: Vec<IpAddr> = own.iter().copied().filter(is_usable).collect();
        let ranked =
            usable.iter().filter_map(|address| Some((rank(manifest, *address)?, *address)));
        match ranked.min() {
            Some((_, address)) => Ok(address),
            None if usable.is_empty() => Err(PlanError::NoAddress),
            None => Err(PlanError::Nowhere(usable)),
        }
    }

    /// This host's address in the mesh, by which it is known.
    pub fn me(&self) -> IpAddr {
        self.sides[0].address
    }

    /// Its addresses in the mesh: that one, and one of the other family if it has one there.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.sides.iter().map(|side| side.address).collect()
    }

    /// Its address in the mesh of this one's family: its side of a pair with it.
    pub fn own(&self, remote: IpAddr) -> Option<IpAddr> {
        self.side(remote).map(|side| side.address)
    }

    fn side(&self, remote: IpAddr) -> Option<&Side> {
        self.sides.iter().find(|side| side.address.is_ipv4() == remote.is_ipv4())
    }

    /// Whether it is one of [`Plan::addresses`].
    pub fn is_me(&self, address: IpAddr) -> bool {
        self.own(address) == Some(address)
    }

    /// Where [`Plan::me`] lies. An excluded host protects nothing but what an exception says.
    pub fn place(&self) -> Place {
        self.sides[0].place
    }

    /// This host's name, if `peers` gives it one.
    pub fn name(&self) -> Option<&str> {
        self.sides.iter().find_map(|side| self.manifest.peer(side.address)?.name.as_deref())
    }

    /// Encrypt if possible, else clear.
    pub fn optional(&self) -> bool {
        self.manifest.optional
    }

    /// Transport or tunnel.
    pub fn mode(&self) -> Mode {
        self.manifest.mode
    }

    /// The manifest that it comes from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// All policies in the order in which they are looked at; those of `In` and `Out` are one list.
    pub fn policies(&self) -> &[Planned] {
        &self.policies
    }

    /// The peers that are known without a packet from them: `peers`, and single hosts among the
    /// protected networks.
    pub fn known_peers(&self) -> &BTreeMap<IpAddr, PeerPlan> {
        &self.peers
    }

    /// What holds between this host and the one of this address; `None` if nothing protects their
    /// traffic, so that there is no SA between them.
    pub fn peer(&self, address: IpAddr) -> Option<PeerPlan> {
        if let Some(known) = self.peers.get(&address) {
            return Some(known.clone());
        }
        self.protects(address).then(|| PeerPlan::of(&self.manifest, address, None))
    }

    /// Whether some of the traffic with this host is protected.
    pub fn protects(&self, address: IpAddr) -> bool {
        let Some(side) = self.side(address) else { return false };
        address != side.address
            && is_usable(&address)
            && ((side.meets_fleet
                && matches!(self.manifest.place_of(address), Place::Protected(_)))
                || self.protected_by_exception.iter().any(|net| net.contains(&address)))
    }

    /// Networks whose packets a userspace data plane must get; by longest prefix against [`Plan::clear`].
    pub fn protected(&self) -> &[IpNet] {
        &self.protected
    }

    /// Whether a userspace data plane gets the packets to this address, whoever sends them.
    pub fn is_led(&self, dst: IpAddr) -> bool {
        let longest = |nets: &[IpNet]| {
            nets.iter().filter(|net| net.contains(&dst)).map(IpNet::prefix_len).max()
        };
        match (longest(&self.protected), longest(&self.clear)) {
            (Some(protected), Some(clear)) => protected > clear,
            (protected, _) => protected.is_some(),
        }
    }

    /// Networks inside [`Plan::protected`] that keep the routes they have.
    pub fn clear(&self) -> &[IpNet] {
        &self.clear
    }
}

impl Planned {
    /// Whether it asks for an SA.
    pub fn protects(&self) -> bool {
        matches!(self.policy.action, Action::Protect { .. })
    }
}

impl PeerPlan {
    fn of(manifest: &Manifest, address: IpAddr, own: Option<&Peer>) -> Self {
        let suites = |own: Option<&Arc<Suites>>, all: &Arc<Suites>| own.unwrap_or(all).clone();
        Self {
            address,
            name: own.and_then(|peer| peer.name.clone()),
            id: own.and_then(|peer| peer.id.clone()),
            psk: own.and_then(|peer| peer.psk.clone()),
            ike_version: own.and_then(|peer| peer.ike_version).unwrap_or(manifest.ike_version),
            ike_proposals: suites(
                own.and_then(|p| p.ike_proposals.as_ref()),
                &manifest.ike_proposals,
            ),
            esp_proposals: suites(
                own.and_then(|p| p.esp_proposals.as_ref()),
                &manifest.esp_proposals,
            ),
            start: own.and_then(|peer| peer.start).unwrap_or(manifest.start),
            ppk: own.and_then(|peer| peer.ppk.as_ref()).or(manifest.ppk.as_ref()).cloned(),
            childless: own.map(|peer| peer.childless).unwrap_or_default(),
            redirect: own.is_some_and(|peer| peer.redirect),
            unauthenticated: own.is_some_and(|peer| peer.unauthenticated),
        }
    }
}

/// How well an address stands for a host, lower is better; `None` if it is in no list.
fn rank(manifest: &Manifest, address: IpAddr) -> Option<(u8, bool, u8)> {
    match manifest.place_of(address) {
        Place::Protected(net) => {
            let left = net.max_prefix_len() - net.prefix_len();
            Some((0, manifest.peer(address).is_none(), left))
        }
        Place::Excluded(_) => Some((1, false, 0)),
        Place::Nowhere => None,
    }
}

/// Addresses that other hosts reach one host by.
fn is_usable(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast() && !link_local
}
