//! What the manifest in force means for this host and each of its peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ike::config::{Common, Retransmit};
use ike::{Auth, ChildConfig, Credentials, PeerConfig, Secret};
use ipsec::sa::Limits;
use ipsec::spd::Policy;
use wire::proposal::Proposal;
use wire::selector::TrafficSelector;

use crate::loaded::Loaded;
use crate::manifest::{DpdAction, Manifest, PpkSetting, Start};
use crate::pair::{self, MILLION};
use crate::plan::{FLEET, Plan};
use crate::status::DataPlane;

/// NAT mappings are kept alive by one byte so often (RFC 3948 4).
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Anti-replay window; wide, because packets of one SA may take several queues and paths.
const REPLAY_WINDOW: u32 = 1024;
/// Gives a peer up after half a minute, but never lets more than two seconds pass between two
/// tries: a network or a host that comes back is noticed within that.
const RETRANSMIT: Retransmit = Retransmit {
    first: Duration::from_millis(500),
    factor_percent: 200,
    cap: Duration::from_secs(2),
    tries: 16,
};
/// Without ESN an SA ends with its 32-bit sequence numbers (RFC 4303 3.3.3).
const PACKETS: u64 = u32::MAX as u64;

/// The manifest in force, as this host sees it.
pub struct Fleet {
    loaded: Loaded,
    compresses: bool,
    by_name: BTreeMap<Arc<str>, IpAddr>,
    common: Arc<Common>,
}

/// What happens when a peer stopped answering.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDeath {
    /// The tunnel is built anew.
    Restart,
    /// It is built anew when there is traffic.
    Wait,
}

impl Fleet {
    /// The manifest in force; of the data planes one cannot compress.
    pub fn new(loaded: Loaded, data_plane: DataPlane) -> Self {
        let wanted = loaded.plan.manifest().compression;
        let compresses = wanted && data_plane == DataPlane::Userspace;
        let known = loaded.plan.known_peers().values();
        let by_name = known.filter_map(|p| Some((p.name.clone()?, p.address))).collect();
        let common = Arc::new(common(&loaded));
        Self { loaded, compresses, by_name, common }
    }

    /// Whether it wants compression, and this host cannot.
    pub fn lacks_compression(&self) -> bool {
        self.manifest().compression && !self.compresses
    }

    /// What was loaded.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// What it means for this host.
    pub fn plan(&self) -> &Plan {
        &self.loaded.plan
    }

    /// What it says.
    pub fn manifest(&self) -> &Manifest {
        self.plan().manifest()
    }

    /// This host's policies.
    pub fn policies(&self) -> impl Iterator<Item = Policy> {
        self.plan().policies().iter().map(|planned| planned.policy)
    }

    /// Whether traffic with this address is protected.
    pub fn is_peer(&self, remote: IpAddr) -> bool {
        self.plan().protects(remote)
    }

    /// A peer's name.
    pub fn name(&self, remote: IpAddr) -> Option<&str> {
        self.plan().known_peers().get(&remote)?.name.as_deref()
    }

    /// The peer of that name.
    pub fn find(&self, name: &str) -> Option<IpAddr> {
        self.by_name.get(name).copied()
    }

    /// Peers that are known without a packet from them; with each, whether its tunnel is built at once.
    pub fn known(&self) -> impl Iterator<Item = (IpAddr, bool)> {
        self.plan().known_peers().values().map(|p| (p.address, p.start == Start::Eager))
    }

    /// What happens when a peer stopped answering.
    pub fn on_death(&self) -> OnDeath {
        match self.manifest().dpdaction {
            DpdAction::Restart => OnDeath::Restart,
            DpdAction::Clear | DpdAction::Trap | DpdAction::None => OnDeath::Wait,
        }
    }

    /// How a tunnel with a peer is negotiated; `None` if it is no peer. `salt` is fresh randomness.
    pub fn config(
        &self,
        remote: IpAddr,
        salt: u64,
        initial_contact: bool,
    ) -> Option<Arc<PeerConfig>> {
        let peer = self.plan().peer(remote)?;
        let manifest = self.manifest();
        let local = self.plan().own(remote)?;
        let times = Times { local, remote, salt, percent: manifest.lifetimes.jitter_percent };
        let dpd = (manifest.dpdaction != DpdAction::None).then_some(manifest.dpddelay);
        let psk = peer.psk.as_ref().map(|psk| Auth::Psk(Arc::new(Secret::from(psk.expose()))));
        let own_proof = if peer.unauthenticated { Some(Auth::Null) } else { psk };
        Some(Arc::new(PeerConfig {
            local,
            remote,
            local_id: None,
            remote_id: peer.id,
            auth: own_proof.unwrap_or_else(|| self.loaded.auth.clone()),
            ike_proposals: peer.ike_proposals.proposals.clone(),
            child: Arc::new(self.child(peer.esp_proposals.proposals.clone(), &times)),
            common: self.common.clone(),
            redirect: peer.redirect,
            dpd_delay: dpd.map(|delay| times.about(delay)),
            ike_rekey_after: times.rekey_after(manifest.lifetimes.ike),
            initial_contact,
            fragment_size: Some(ike::config::FRAGMENT_SIZE),
            ppk: peer.ppk.as_deref().map(ppk).map(Box::new),
            childless: peer.childless,
        }))
    }

    /// Whether a tunnel with a peer would be negotiated under `other` as it is here. What proves
    /// identity and when SAs are replaced is not looked at: that takes effect with the next handshake.
    pub fn same_tunnel(&self, other: &Self, remote: IpAddr) -> bool {
        let essence = |fleet: &Self| {
            let peer = fleet.plan().peer(remote)?;
            let encap = fleet.manifest().force_udp_encapsulation;
            let [ike, esp] =
                [peer.ike_proposals, peer.esp_proposals].map(|suites| suites.proposals.clone());
            let how = (fleet.plan().mode(), fleet.compresses, encap, peer.unauthenticated);
            Some((fleet.plan().own(remote), ike, esp, how))
        };
        essence(self) == essence(other)
    }

    /// Whether this host proves itself under `other` as it does here, and accepts the same of its peers.
    pub fn same_proof(&self, other: &Self) -> bool {
        match (&self.loaded.auth, &other.loaded.auth) {
            (Auth::Certificate(a), Auth::Certificate(b)) => {
                let trusts =
                    |c: &Credentials| c.trust().all().map(|ca| ca.der.clone()).collect::<Vec<_>>();
                a.leaf == b.leaf && trusts(a) == trusts(b)
            }
            (Auth::Psk(a), Auth::Psk(b)) => a == b,
            _ => false,
        }
    }

    fn child(&self, esp_proposals: Arc<[Proposal]>, times: &Times) -> ChildConfig {
        let lifetimes = &self.manifest().lifetimes;
        let soft_packets = lifetimes.child_packets.unwrap_or(PACKETS / 2).min(PACKETS / 2);
        let hard_packets = soft_packets.saturating_mul(2).min(PACKETS);
        ChildConfig {
            reqid: FLEET,
            mode: self.plan().mode(),
            compression: self.compresses,
            esp_proposals,
            local_ts: [TrafficSelector::host(times.local)].into(),
            remote_ts: [TrafficSelector::host(times.remote)].into(),
            replay_window: REPLAY_WINDOW,
            rekey_after: times.rekey_after(lifetimes.child),
            limits: Arc::new(Limits {
                soft_bytes: lifetimes.child_bytes.map(|n| times.soft(n)),
                hard_bytes: lifetimes.child_bytes.map(|n| n.saturating_mul(2)),
                soft_packets: Some(times.soft(soft_packets)),
                hard_packets: Some(hard_packets),
                hard_time: Some(hard(lifetimes.child)),
            }),
        }
    }
}

/// What this host does with all its peers alike.
fn common(loaded: &Loaded) -> Common {
    let manifest = loaded.plan.manifest();
    Common {
        force_encap: manifest.force_udp_encapsulation,
        prefer_encap: loaded.prefer_encap,
        mobike: manifest.mobike,
        ike_hard_lifetime: hard(manifest.lifetimes.ike),
        keepalive: KEEPALIVE,
        retransmit: RETRANSMIT,
        cluster: manifest.cluster.clone(),
    }
}

fn ppk(setting: &PpkSetting) -> ike::Ppk {
    ike::Ppk {
        id: setting.id.clone().into_bytes(),
        secret: Secret::from(setting.secret.expose()),
        required: setting.required,
    }
}

/// Spreads lifetimes so that no two pairs, and never both ends of one pair, act at the same tick.
struct Times {
    local: IpAddr,
    remote: IpAddr,
    salt: u64,
    percent: u8,
}

impl Times {
    /// The owner of the pair rekeys within the last part of the lifetime; the other end only if
    /// the owner did not, a little after it.
    fn rekey_after(&self, lifetime: Duration) -> Duration {
        let nanos = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX / 2);
        Duration::from_nanos(self.soft(nanos))
    }

    /// The same for a number of bytes or packets.
    fn soft(&self, whole: u64) -> u64 {
        let slot = self.slot();
        let part = |ppm: u64| (u128::from(whole) * u128::from(ppm) / u128::from(MILLION)) as u64;
        if pair::owns(self.local, self.remote) {
            whole - part(u64::from(self.percent.min(90)) * slot / 100)
        } else {
            whole.saturating_add(part(MILLION / 20 + slot / 20))
        }
    }

    /// ±10 %.
    fn about(&self, time: Duration) -> Duration {
        time * (900 + (self.salt % 200) as u32) / 1000
    }

    /// The pair's own slot, with some chance so that pairs of one slot part with time.
    fn slot(&self) -> u64 {
        (pair::slot(self.local, self.remote) * 3 + pair::mix(self.salt) % MILLION) / 4
    }
}

/// The end of an SA whose rekey failed; always after the other end of the pair had its try.
fn hard(lifetime: Duration) -> Duration {
    (lifetime * 13 / 10).max(lifetime + Duration::from_secs(5))
}
