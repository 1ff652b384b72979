//! The state in the words of `status`, `explain` and the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ike::endpoint::ExportedKeys;
use ike::event::{ChildInfo, IkeInfo};
use ike::{IkeSaId, Now};
use ipsec::dataplane::PacketInfo;
use ipsec::sa::{Mode, Sa};
use ipsec::spd::{Action, Policy};

use super::Mesh;
use super::certificates::expiry_samples;
use crate::command::{CommandError, Target};
use crate::fleet::Fleet;
use crate::metrics::{Sample, gauge};
use crate::peer::{Peer, Wanted};
use crate::status::{
    ChildSaStatus, Considered, DataPlane, Explanation, IkeSaStatus, IkeStatus, ManifestStatus,
    NodeStatus, PeerStatus, State, Status, Verdict,
};
use crate::time::rfc3339;

/// Why, and what becomes of a packet between two others. No SA is for it: those are between the hosts' own addresses.
fn forwarded(fleet: &Fleet, data_plane: DataPlane, dst: IpAddr) -> (String, String) {
    let nobody = "neither address is this host's";
    match data_plane {
        DataPlane::Userspace if fleet.plan().is_led(dst) => {
            let only = "to a protected network only packets from this host's own address go";
            (format!("{nobody}, and {only}"), "drop".to_owned())
        }
        _ => (nobody.to_owned(), "pass".to_owned()),
    }
}

/// What the endpoint knows, sorted by peer once for all peers.
#[derive(Default)]
struct Known {
    ikes: BTreeMap<IkeSaId, IkeInfo>,
    children: BTreeMap<IpAddr, Vec<ChildInfo>>,
    /// Peers that have begun a handshake.
    half_open: BTreeSet<IpAddr>,
}

impl Mesh {
    /// What `status --json` shows.
    pub fn status(&self, now: Now) -> Status {
        let known = self.known();
        let peers = self.peers.iter().map(|(a, p)| self.peer_shown(now, a, p, &known)).collect();
        Status { node: self.node_shown(now), peers }
    }

    /// The same for one peer.
    ///
    /// # Errors
    /// If there is no such peer.
    pub fn peer_status(&self, now: Now, target: &Target) -> Result<PeerStatus, CommandError> {
        let address = self.resolve(target)?;
        Ok(self.one_peer(now, address))
    }

    /// Initiator's and responder's SPI of each IKE SA with a peer that its status shows as established.
    pub fn established(&self, address: IpAddr) -> impl Iterator<Item = (u64, u64)> {
        let ikes = self.peers.get(address).into_iter().flat_map(|peer| &peer.ikes);
        let up = ikes.filter(|ike| !ike.closing && ike.since.is_some());
        up.filter_map(|ike| self.endpoint.spis(ike.id).map(|(i, r)| (i.0, r.0)))
    }

    /// What decides on a packet. Direction follows from which of its addresses is this host's.
    ///
    /// # Errors
    /// If there is no manifest yet.
    pub fn explain(&self, now: Now, packet: PacketInfo) -> Result<Explanation, CommandError> {
        let fleet = self.fleet.as_ref().ok_or(CommandError::NoManifest)?;
        let decision = fleet.plan().decide(&packet);
        let considered = decision.trace.iter().map(|t| Considered {
            priority: t.planned.policy.priority,
            policy: format!("{} ({})", policy(&t.planned.policy), t.planned.origin),
            matches: t.matches,
        });
        let action = decision.policy.map(|p| p.policy.action);
        let (because, decision_text) = match (decision.flow, decision.policy) {
            (None, _) => forwarded(fleet, self.identity.data_plane, packet.dst),
            (_, None) => ("no policy is for it".to_owned(), "pass".to_owned()),
            (_, Some(p)) => {
                (format!("{} ({})", policy(&p.policy), p.origin), decided(&p.policy.action))
            }
        };
        let remote = if fleet.plan().is_me(packet.src) { packet.dst } else { packet.src };
        let protected = matches!(action, Some(Action::Protect { .. }));
        Ok(Explanation {
            packet: packet_shown(&packet),
            considered: considered.collect(),
            decision: decision_text,
            because,
            peer: protected.then(|| self.one_peer(now, remote)),
        })
    }

    /// Gauges and counters.
    pub fn metrics(&self, now: Now) -> Vec<Sample> {
        let mut samples = self.counters.samples();
        let (policies, sas) = self.reconciler.desired();
        let (running, waiting) = self.budget.load();
        let plain = [
            ("warren_policies", "policies in force", policies),
            ("warren_esp_sas", "ESP SAs, both directions", sas),
            ("warren_handshakes_running", "handshakes that hold a slot", running),
            ("warren_handshakes_waiting", "peers that wait for a slot", waiting),
        ];
        samples.extend(plain.map(|(name, help, n)| gauge(name, help, Vec::new(), n as f64)));
        let half_open = self.endpoint.half_open_count() as f64;
        let help = "handshakes that others began and have not finished";
        samples.push(gauge("warren_ike_half_open", help, Vec::new(), half_open));
        for (notify, n) in self.endpoint.turned_away() {
            let help = "requests answered without protection, by the notify in the answer";
            let labels = vec![("notify", (*notify).to_owned())];
            let sample = gauge("warren_ike_turned_away_total", help, labels, *n as f64);
            samples.push(Sample { counter: true, ..sample });
        }
        for (kind, n) in self.reconciler.repaired().kinds() {
            let help = "entries of the data plane that were put right, by what was wrong";
            let labels = vec![("kind", kind.to_owned())];
            let sample = gauge("warren_drift_repaired_total", help, labels, n as f64);
            samples.push(Sample { counter: true, ..sample });
        }
        let known = self.known();
        let mut states: BTreeMap<State, usize> = BTreeMap::new();
        for (address, peer) in self.peers.iter() {
            *states.entry(self.state(now, address, peer, &known)).or_default() += 1;
        }
        for state in [State::Idle, State::Connecting, State::HalfUp, State::Up, State::Down] {
            let n = states.get(&state).copied().unwrap_or(0);
            let labels = vec![("state", word(&state))];
            samples.push(gauge("warren_peers", "peers by state", labels, n as f64));
        }
        samples.extend(self.certificates_shown(now).into_iter().flat_map(expiry_samples));
        samples
    }

    /// How much is held, by table: what does not go back to where it was after the work is a leak.
    pub fn census(&self) -> Vec<(&'static str, usize)> {
        let (_, sas) = self.reconciler.desired();
        let (running, waiting) = self.budget.load();
        let own = [
            ("peers", self.peers.len()),
            ("IKE SAs by peer", self.peers.iter().map(|(_, p)| p.ikes.len()).sum()),
            ("child SAs by peer", self.peers.iter().map(|(_, p)| p.children.len()).sum()),
            ("owners of IKE SAs", self.ikes.len()),
            ("desired SAs", sas),
            ("handshakes running", running),
            ("handshakes waiting", waiting),
            ("records", self.journal.written.len()),
            ("unproven IKE SAs", self.journal.unproven.len()),
            ("bereft peers", self.journal.bereft.len()),
        ];
        own.into_iter().chain(self.endpoint.census()).collect()
    }

    /// Keys of a peer's IKE SAs, for Wireshark.
    ///
    /// # Errors
    /// If there is no such peer.
    pub fn export_keys(&self, target: &Target) -> Result<Vec<ExportedKeys>, CommandError> {
        let address = self.resolve(target)?;
        let ikes = self.peers.get(address).into_iter().flat_map(|p| &p.ikes);
        Ok(ikes.filter_map(|i| self.endpoint.export_keys(i.id)).collect())
    }

    /// Keys of all IKE SAs with one host, those of a handshake that is under way included.
    pub fn keys_with(&self, address: IpAddr) -> Vec<ExportedKeys> {
        self.endpoint.export_keys_with(address)
    }

    /// Whether this host is named in the manifest, or has proven who it is: anybody can send in another's name.
    pub fn is_acquainted(&self, address: IpAddr) -> bool {
        self.peers.get(address).is_some_and(|peer| peer.listed || peer.last_heard.is_some())
    }

    /// Keys of all IKE SAs, for Wireshark.
    pub fn export_all_keys(&self) -> Vec<ExportedKeys> {
        self.ikes.keys().filter_map(|id| self.endpoint.export_keys(*id)).collect()
    }

    /// All ESP SAs that are to be in the data plane, with their keys, for Wireshark. Addresses are those
    /// of the installation: a peer that a NAT moved since then is shown where it was.
    pub fn export_sas(&self) -> Vec<Sa> {
        self.reconciler.sas().cloned().collect()
    }

    /// The manifest in force.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    fn known(&self) -> Known {
        let mut known = Known::default();
        known.ikes.extend(self.endpoint.ike_sas().into_iter().map(|i| (i.id, i)));
        for child in self.endpoint.children() {
            known.children.entry(child.remote).or_default().push(child);
        }
        let theirs = self.endpoint.half_open().into_iter().filter(|(_, _, ours)| !ours);
        known.half_open.extend(theirs.map(|(_, address, _)| address));
        known
    }

    fn one_peer(&self, now: Now, address: IpAddr) -> PeerStatus {
        let unknown = Peer::new(crate::pair::owns(self.own(address), address), now.at);
        self.peer_shown(now, address, self.peers.get(address).unwrap_or(&unknown), &self.known())
    }

    fn node_shown(&self, now: Now) -> NodeStatus {
        let fleet = self.fleet.as_ref();
        let manifest = |loaded: &crate::loaded::Loaded| ManifestStatus {
            path: loaded.path.clone(),
            sha256: loaded.sha256.clone(),
            loaded_at: rfc3339(self.loaded_at),
        };
        NodeStatus {
            address: self.identity.address,
            addresses: fleet.map_or_else(|| vec![self.identity.address], |f| f.plan().addresses()),
            name: self.identity.name.clone(),
            version: self.identity.version.clone(),
            started_at: rfc3339(self.started),
            data_plane: self.identity.data_plane,
            optional: fleet.is_some_and(|f| f.manifest().optional),
            cluster: fleet.and_then(|f| f.manifest().cluster.clone()),
            manifest: fleet.map(|f| manifest(f.loaded())),
            certificates: self.certificates_shown(now),
            drift_repaired: self.reconciler.repaired().drift(),
            drift: self.reconciler.repaired(),
            refusals: self.counters.refusals.values().sum(),
            ike: self.ike_shown(),
            waiting_for: self.next_wake().1.to_string(),
        }
    }

    fn ike_shown(&self) -> IkeStatus {
        let dropped = self.counters.dropped.iter();
        IkeStatus {
            half_open: self.endpoint.half_open_count(),
            turned_away: self.endpoint.turned_away().clone(),
            dropped: dropped.map(|(what, n)| (what.to_string(), *n)).collect(),
        }
    }

    fn state(&self, now: Now, address: IpAddr, peer: &Peer, known: &Known) -> State {
        let pending = self.budget.is_queued(address) || known.half_open.contains(&address);
        peer.state(now.at, pending)
    }

    fn peer_shown(&self, now: Now, address: IpAddr, peer: &Peer, known: &Known) -> PeerStatus {
        let state = self.state(now, address, peer, known);
        let (verdict, reason) = verdict(now, peer, state);
        // One that is closed but still answers late retransmissions is not worth showing.
        let ikes = peer.ikes.iter().filter(|i| i.since.is_none() || known.ikes.contains_key(&i.id));
        let waits = state != State::Up && peer.wanted != Wanted::Down;
        let retry = peer.start_at.filter(|_| waits).map(|at| at.since(now.at).as_secs());
        PeerStatus {
            address,
            name: self.fleet.as_ref().and_then(|f| f.name(address)).map(str::to_owned),
            state,
            verdict,
            reason,
            last_error: peer.trouble.as_ref().map(|t| t.text.to_string()),
            owner: peer.owner,
            retry_in_s: retry.filter(|_| peer.failures > 0),
            failures: if state == State::Up { 0 } else { peer.failures },
            certificate: self.proof_shown(now, peer),
            ike_sas: ikes.map(|i| ike_shown(now, i, known.ikes.get(&i.id))).collect(),
            child_sas: self.children_shown(now, address, peer, known),
        }
    }

    fn children_shown(
        &self,
        now: Now,
        address: IpAddr,
        peer: &Peer,
        known: &Known,
    ) -> Vec<ChildSaStatus> {
        let infos = known.children.get(&address).into_iter().flatten();
        let shown = infos.map(|info| {
            let usage =
                peer.children.iter().find(|c| c.id == info.id).map(|c| c.usage).unwrap_or_default();
            ChildSaStatus {
                spi_in: info.spi_in.to_string(),
                spi_out: info.spi_out.to_string(),
                mode: if info.mode == Mode::Transport { "transport" } else { "tunnel" },
                suite: info.suite.clone(),
                local_ts: info.local_ts.iter().map(ToString::to_string).collect(),
                remote_ts: info.remote_ts.iter().map(ToString::to_string).collect(),
                bytes_in: usage.bytes_in,
                bytes_out: usage.bytes_out,
                packets_in: usage.packets_in,
                packets_out: usage.packets_out,
                age_s: now.at.since(info.since).as_secs(),
                rekey_in_s: info.rekey_at.since(now.at).as_secs(),
                encap: info.encap,
                compression: info.compression.then_some("deflate"),
            }
        });
        shown.collect()
    }
}

/// A policy in words.
pub(super) fn policy(policy: &Policy) -> String {
    crate::plan::describe_policy(policy)
}

fn ike_shown(now: Now, ike: &crate::peer::Ike, info: Option<&IkeInfo>) -> IkeSaStatus {
    let role = |initiator| if initiator { "initiator" } else { "responder" };
    let state = match (ike.closing, ike.since) {
        (true, _) => "closing",
        (_, None) => "half_open",
        _ => "established",
    };
    match info {
        Some(info) => IkeSaStatus {
            spi_i: info.spi_i.to_string(),
            spi_r: info.spi_r.to_string(),
            version: 2,
            role: role(info.initiator),
            state,
            age_s: now.at.since(info.since).as_secs(),
            rekey_in_s: info.rekey_at.since(now.at).as_secs(),
            suite: info.suite.clone(),
            remote_id: info.remote_id.to_string(),
            local: info.local.to_string(),
            remote: info.remote.to_string(),
        },
        None => IkeSaStatus {
            spi_i: String::new(),
            spi_r: String::new(),
            version: 2,
            role: role(ike.initiated),
            state,
            age_s: 0,
            rekey_in_s: 0,
            suite: String::new(),
            remote_id: String::new(),
            local: String::new(),
            remote: String::new(),
        },
    }
}

/// What is broken, from what IKE and the data plane have shown; probes will add to this.
fn verdict(now: Now, peer: &Peer, state: State) -> (Verdict, String) {
    let ago = |at| now.at.since(at).as_secs();
    match (state, &peer.trouble) {
        (State::Up, trouble) => {
            let heard = peer.last_heard.map(|at| format!(", last heard {} s ago", ago(at)));
            let trouble =
                trouble.as_ref().map(|t| format!("; but {} s ago: {}", ago(t.at), t.text));
            let [heard, trouble] = [heard, trouble].map(Option::unwrap_or_default);
            (Verdict::Ok, format!("the tunnel stands{heard}{trouble}"))
        }
        (_, Some(t)) if state != State::Down || peer.wanted != Wanted::Down => {
            let next = peer.start_at.map_or(String::new(), |at| {
                format!("; next try in {} s", at.since(now.at).as_secs())
            });
            (t.verdict, format!("{}{next}", t.text))
        }
        (State::Down, _) => {
            (Verdict::Unknown, "taken down by command; `warren up` starts it".to_owned())
        }
        (State::Idle, _) => {
            (Verdict::Unknown, "no tunnel, and no traffic that asks for one".to_owned())
        }
        (State::HalfUp, _) => (Verdict::Unknown, "an IKE SA, and no child SA yet".to_owned()),
        _ => (Verdict::Unknown, "a handshake is under way".to_owned()),
    }
}

fn decided(action: &Action) -> String {
    match action {
        Action::Bypass => "pass",
        Action::Discard => "drop",
        Action::Protect { optional: false, .. } => "protect",
        Action::Protect { optional: true, .. } => "protect, or clear if there is no SA",
    }
    .to_owned()
}

fn packet_shown(packet: &PacketInfo) -> String {
    let end = |address: IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let (src, dst) = (end(packet.src, packet.src_port), end(packet.dst, packet.dst_port));
    format!("{src} -> {dst} protocol {}", packet.protocol)
}

fn word(state: &State) -> String {
    serde_json::to_value(state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
