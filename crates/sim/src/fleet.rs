//! The manifest of a simulated fleet, and what each host gets of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crypto::chain::TrustStore;
use crypto::toy;
use ike::{Auth, Credentials, Secret};
use mesh::loaded::Loaded;
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
    manifest: Arc<Manifest>,
    text: String,
    addresses: Vec<IpAddr>,
    ids: BTreeMap<IpAddr, HostId>,
    proof: Proof,
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
        if self.eager {
            text.push_str("peers:\n");
            for address in addresses {
                text.push_str(&format!("- address: \"{address}\"\n"));
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
        let options = Options { ignore_credentials: true };
        let parsed = Manifest::parse_with("simulated.yml", &text, &NoFiles, options);
        let manifest = match parsed {
            Ok((manifest, _)) => Arc::new(manifest),
            Err(found) => panic!("the simulated manifest is refused: {found}\n{text}"),
        };
        let ids = addresses.iter().enumerate().map(|(id, address)| (*address, id)).collect();
        Self { manifest, text, addresses, ids, proof: recipe.proof }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest as written.
    pub fn text(&self) -> &str {
        &self.text
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
        self.ids.get(&address).copied()
    }

    /// A host's name.
    pub fn name(&self, id: HostId) -> String {
        format!("h{id}")
    }

    /// Whether the manifest wants traffic between these two protected.
    pub fn protects(&self, a: IpAddr, b: IpAddr) -> bool {
        let listed = |host| matches!(self.manifest.place_of(host), Place::Protected(_));
        a != b && listed(a) && listed(b)
    }

    /// What a host is given at start.
    ///
    /// # Panics
    /// If the host has no place in the manifest, which is a fault of the recipe.
    pub fn loaded(&self, id: HostId) -> Loaded {
        let plan = Plan::for_host(&self.manifest, self.addresses[id]);
        Loaded {
            path: "simulated.yml".into(),
            sha256: "0".repeat(64),
            plan: plan.unwrap_or_else(|error| panic!("no plan for a simulated host: {error}")),
            auth: self.auth(id),
            certificates: Vec::new(),
        }
    }

    fn auth(&self, id: HostId) -> Auth {
        let address = self.addresses[id];
        match self.proof {
            Proof::SharedCertificate => Auth::Certificate(Arc::new(toy::credentials("fleet"))),
            Proof::OwnCertificate => Auth::Certificate(Arc::new(own(&self.name(id), address))),
            Proof::Psk => Auth::Psk(Secret::from(b"a key that the whole fleet shares".as_slice())),
        }
    }
}

fn own(name: &str, address: IpAddr) -> Credentials {
    let authority = toy::Authority::new("toy CA");
    let identity = match address {
        IpAddr::V4(v4) => wire::identity::Identity::Ipv4(v4),
        IpAddr::V6(v6) => wire::identity::Identity::Ipv6(v6),
    };
    let (leaf, key) = authority.issue(name, &[identity], (0, u64::MAX));
    let trust = TrustStore { roots: vec![authority.certificate], ..TrustStore::default() };
    Credentials { leaf, chain: Vec::new(), key: Arc::new(key), trust }
}

fn address(ipv6: bool, id: HostId) -> IpAddr {
    if ipv6 {
        return Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, id as u16 + 1).into();
    }
    let (net, host) = (id / HOSTS_PER_NET, id % HOSTS_PER_NET + 1);
    Ipv4Addr::new(10, 0, net as u8, host as u8).into()
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
        }
    }
}
