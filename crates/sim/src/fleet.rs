//! The manifest of a simulated fleet, and what each host gets of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crypto::chain::TrustStore;
use crypto::toy;
use ike::{Auth, Credentials, Secret};
use mesh::loaded::{CertificateFact, CertificateRole, Loaded};
use mesh::manifest::{Manifest, NoFiles, Options, Place};
use mesh::plan::Plan;

use crate::dice::Dice;
use crate::net::HostId;
use crate::report::seconds;

/// Hosts in one IPv4 network of 256 addresses.
const HOSTS_PER_NET: usize = 250;

/// What a scenario asks of its fleet.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Recipe {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// How hosts prove who they are.
    pub proof: Proof,
    /// Tunnel mode instead of transport mode.
    pub tunnel: bool,
    /// ESP in UDP even though there is no NAT.
    pub force_encap: bool,
    /// All peers are listed and their tunnels built at once.
    pub eager: bool,
    /// `ike_proposals`, `esp_proposals`.
    pub suites: (&'static str, &'static str),
    /// `ike_lifetime`.
    #[serde(serialize_with = "seconds")]
    pub ike_lifetime: Duration,
    /// `child_lifetime`.
    #[serde(serialize_with = "seconds")]
    pub child_lifetime: Duration,
    /// `dpddelay`.
    #[serde(serialize_with = "seconds")]
    pub dpd_delay: Duration,
    /// `optional`.
    pub optional: bool,
    /// `cluster`.
    pub cluster: Option<&'static str>,
    /// Hosts that `no_ipsec_subnets` takes out, by their place in the fleet.
    pub without: Vec<HostId>,
    /// Whose certificates count, and how long the host's own does.
    pub trust: Trust,
}

/// Certificates.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Trust {
    /// Which CA issued the leaf.
    pub issuer: &'static str,
    /// CAs that are believed.
    pub roots: Vec<&'static str>,
    /// The leaf's last valid second since the Unix epoch.
    pub until: u64,
}

/// What one host is given: its manifest, and what it proves itself with.
#[derive(Clone)]
pub struct Given {
    manifest: Arc<Manifest>,
    proof: Proof,
    trust: Trust,
}

/// How hosts prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// One certificate on all hosts: identity is not unique.
    SharedCertificate,
    /// Each host its own.
    OwnCertificate,
    /// One key for all.
    Psk,
}

/// A fleet.
pub struct Fleet {
    text: String,
    addresses: Vec<IpAddr>,
    /// What is in force where nothing else was given.
    base: Given,
    given: BTreeMap<HostId, Given>,
    /// Nothing need be protected: IPsec is on its way in or out.
    clear_allowed: bool,
}

/// Suites that are drawn: the defaults, and modern ones with and without PFS.
const SUITES: [(&str, &str); 4] = [
    ("aes128-sha256-modp2048", "aes128gcm16"),
    ("aes128-sha256-modp2048!", "aes128gcm16!"),
    ("aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384"),
    ("chacha20poly1305-prfsha256-x25519", "aes128-sha256-x25519"),
];

impl Recipe {
    /// The manifest's defaults.
    pub fn plain() -> Self {
        Self {
            ipv6: false,
            proof: Proof::SharedCertificate,
            tunnel: false,
            force_encap: false,
            eager: false,
            suites: SUITES[0],
            ike_lifetime: Duration::from_secs(86_400),
            child_lifetime: Duration::from_secs(28_800),
            dpd_delay: Duration::from_secs(30),
            optional: false,
            cluster: None,
            without: Vec::new(),
            trust: Trust { issuer: "toy CA", roots: vec!["toy CA"], until: u64::MAX },
        }
    }

    /// Chosen by chance.
    pub fn any(dice: &mut Dice) -> Self {
        let proofs = [Proof::SharedCertificate, Proof::OwnCertificate, Proof::Psk];
        Self {
            ipv6: dice.chance(250),
            proof: dice.pick(&proofs),
            tunnel: dice.chance(300),
            force_encap: dice.chance(250),
            eager: dice.chance(300),
            suites: dice.pick(&SUITES),
            ..Self::plain()
        }
    }

    fn text(&self, addresses: &[IpAddr]) -> String {
        let subnet = if self.ipv6 { "fd00:77::/64" } else { "10.0.0.0/16" };
        let mode = if self.tunnel { "tunnel" } else { "transport" };
        let start = if self.eager { "eager" } else { "trap" };
        let (ike, esp) = self.suites;
        let (ike_life, child_life) = (self.ike_lifetime.as_secs(), self.child_lifetime.as_secs());
        let mut text = format!(
            "ipsec_subnets: [\"{subnet}\"]\nmode: {mode}\nstart: {start}\n\
             ike_proposals: {ike}\nesp_proposals: {esp}\n\
             ike_lifetime: {ike_life}s\nchild_lifetime: {child_life}s\n\
             dpddelay: {}\nforce_udp_encapsulation: {}\n",
            self.dpd_delay.as_secs(),
            self.force_encap,
        );
        if self.optional {
            text.push_str("optional: true\n");
        }
        if let Some(cluster) = self.cluster {
            text.push_str(&format!("cluster: {cluster}\n"));
        }
        if !self.without.is_empty() {
            text.push_str("no_ipsec_subnets:\n");
            for id in &self.without {
                let bits = if self.ipv6 { 128 } else { 32 };
                text.push_str(&format!("- \"{}/{bits}\"\n", addresses[*id]));
            }
        }
        if self.eager {
            text.push_str("peers:\n");
            for (id, address) in addresses.iter().enumerate() {
                if !self.without.contains(&id) {
                    text.push_str(&format!("- address: \"{address}\"\n"));
                }
            }
        }
        text
    }
}

impl Fleet {
    /// So many hosts.
    ///
    /// # Panics
    /// If the recipe makes a manifest that is refused, which is a fault of the recipe.
    pub fn new(recipe: &Recipe, hosts: usize) -> Self {
        let addresses: Vec<IpAddr> = (0..hosts).map(|id| address(recipe.ipv6, id)).collect();
        let text = recipe.text(&addresses);
        let base = Given::of(recipe, &text);
        Self { text, addresses, base, given: BTreeMap::new(), clear_allowed: false }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.base.manifest
    }

    /// The manifest as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What a recipe means for a host of this fleet.
    pub fn cook(&self, recipe: &Recipe) -> Given {
        Given::of(recipe, &recipe.text(&self.addresses))
    }

    /// A host gets something of its own, for the next time that it reads its manifest.
    pub fn give(&mut self, id: HostId, given: Given) {
        self.given.insert(id, given);
    }

    /// Whether cleartext between protected hosts is no fault, for the time being.
    pub fn allow_clear(&mut self, allowed: bool) {
        self.clear_allowed = allowed;
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// A host's address.
    pub fn address(&self, id: HostId) -> IpAddr {
        self.addresses[id]
    }

    /// The host of an address.
    pub fn id(&self, address: IpAddr) -> Option<HostId> {
        let id = place(address)?;
        (self.addresses.get(id) == Some(&address)).then_some(id)
    }

    /// A host's name.
    pub fn name(&self, id: HostId) -> String {
        format!("h{id}")
    }

    /// Whether the manifest wants traffic between these two protected.
    pub fn protects(&self, a: IpAddr, b: IpAddr) -> bool {
        let listed = |host| matches!(self.manifest().place_of(host), Place::Protected(_));
        !self.clear_allowed && a != b && listed(a) && listed(b)
    }

    /// What a host is given at start.
    ///
    /// # Panics
    /// If the host has no place in the manifest, which is a fault of the recipe.
    pub fn loaded(&self, id: HostId) -> Loaded {
        let given = self.given.get(&id).unwrap_or(&self.base);
        let plan = Plan::for_host(&given.manifest, self.addresses[id]);
        let auth = given.auth(&self.name(id), self.addresses[id]);
        let certificates = match &auth {
            Auth::Certificate(credentials) => vec![CertificateFact {
                subject: credentials.leaf.subject_text.clone(),
                serial: "01".into(),
                not_after: credentials.leaf.not_after,
                key_id: String::new(),
                ca: None,
                role: CertificateRole::Leaf,
            }],
            Auth::Psk(_) | Auth::Null => Vec::new(),
        };
        Loaded {
            path: "simulated.yml".into(),
            sha256: "0".repeat(64),
            plan: plan.unwrap_or_else(|error| panic!("no plan for a simulated host: {error}")),
            auth,
            prefer_encap: false,
            certificates,
        }
    }
}

impl Given {
    fn of(recipe: &Recipe, text: &str) -> Self {
        let options = Options { ignore_credentials: true };
        let manifest = match Manifest::parse_with("simulated.yml", text, &NoFiles, options) {
            Ok((manifest, _)) => Arc::new(manifest),
            Err(found) => panic!("the simulated manifest is refused: {found}\n{text}"),
        };
        Self { manifest, proof: recipe.proof, trust: recipe.trust.clone() }
    }

    fn auth(&self, name: &str, address: IpAddr) -> Auth {
        let identity = match address {
            IpAddr::V4(v4) => wire::identity::Identity::Ipv4(v4),
            IpAddr::V6(v6) => wire::identity::Identity::Ipv6(v6),
        };
        let credentials = match self.proof {
            Proof::SharedCertificate => self.trust.credentials("fleet", &[]),
            Proof::OwnCertificate => self.trust.credentials(name, &[identity]),
            Proof::Psk => {
                let key = b"a key that the whole fleet shares".as_slice();
                return Auth::Psk(Secret::from(key).into());
            }
        };
        Auth::Certificate(Arc::new(credentials))
    }
}

impl Trust {
    fn credentials(&self, name: &str, names: &[wire::identity::Identity]) -> Credentials {
        let issuer = toy::Authority::new(self.issuer);
        let (leaf, key) = issuer.issue(name, names, (0, self.until));
        let roots = self.roots.iter().map(|root| toy::Authority::new(root).certificate);
        let trust = TrustStore { roots: roots.collect(), ..TrustStore::default() };
        Credentials::new(leaf, Vec::new(), Arc::new(key), trust)
            .with_own_secret(&toy::Toy, &key.to_bytes())
    }
}

fn address(ipv6: bool, id: HostId) -> IpAddr {
    if ipv6 {
        return Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, id as u16 + 1).into();
    }
    let (net, host) = (id / HOSTS_PER_NET, id % HOSTS_PER_NET + 1);
    Ipv4Addr::new(10, 0, net as u8, host as u8).into()
}

/// Whose [`address`] it is, if it is anybody's.
fn place(address: IpAddr) -> Option<HostId> {
    match address {
        IpAddr::V6(v6) => usize::from(v6.segments()[7]).checked_sub(1),
        IpAddr::V4(v4) => {
            let [_, _, net, host] = v4.octets().map(usize::from);
            (net * HOSTS_PER_NET + host).checked_sub(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_makes_a_manifest_that_is_accepted() {
        for seed in 0..50 {
            let recipe = Recipe::any(&mut Dice::new(seed, "fleet"));
            let fleet = Fleet::new(&recipe, 3);
            assert!(fleet.protects(fleet.address(0), fleet.address(2)), "{}", fleet.text());
            assert_eq!(fleet.loaded(1).plan.me(), fleet.address(1));
            assert_eq!(fleet.id(fleet.address(2)), Some(2));
        }
    }

    #[test]
    fn addresses_are_unique() {
        for ipv6 in [false, true] {
            let all: std::collections::BTreeSet<_> =
                (0..crate::MOST_HOSTS).map(|id| address(ipv6, id)).collect();
            assert_eq!(all.len(), crate::MOST_HOSTS);
            assert!((0..crate::MOST_HOSTS).all(|id| place(address(ipv6, id)) == Some(id)));
        }
    }
}
