//! What is known of the hosts' certificates: from their own status, and from that of their peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::client;
use crate::exit::Failure;

/// A host, as far as anybody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its address.
    pub address: IpAddr,
    /// Its name.
    pub name: Option<String>,
    /// Its certificate.
    pub leaf: Option<Leaf>,
    /// Keys of the CAs that it accepts, hexadecimal (RFC 7296 3.7); `None`: nobody knows.
    pub trusts: Option<BTreeSet<String>>,
    /// Seconds since it showed that to a peer; `None`: its own status says so, or nobody knows.
    pub age_s: Option<u64>,
}

/// A host's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Key of the CA that it leads to.
    pub ca: Option<String>,
}

/// All that are known, by address.
#[derive(Default, Debug)]
pub struct Fleet(BTreeMap<IpAddr, Host>);

impl Fleet {
    /// From what `warren status --json` gave on some hosts, and from this host's daemon: it must be there where no file
    /// is given.
    pub fn gather(control: &Path, files: &[PathBuf]) -> Result<Self, Failure> {
        let mut fleet = Self::default();
        if files.is_empty() || client::is_up(control) {
            fleet.add(&client::get(control, "/v1/status")?);
        }
        for file in files {
            let named =
                |error: &dyn std::fmt::Display| Failure::No(format!("{}: {error}", file.display()));
            let text = crate::load::read(file).map_err(|error| named(&error))?;
            let status: Value = serde_json::from_str(&text).map_err(|error| named(&error))?;
            if !status["node"].is_object() {
                return Err(named(&"this is not what `warren status --json` prints"));
            }
            fleet.add(&status);
        }
        Ok(fleet)
    }

    /// One host's status: its own word on itself, and what its peers have shown it.
    pub fn add(&mut self, status: &Value) {
        self.0.extend(own(&status["node"]).map(|host| (host.address, host)));
        for host in list(&status["peers"]).iter().filter_map(seen) {
            match self.0.get_mut(&host.address) {
                Some(known) if known.newer_than(&host) => {}
                Some(known) => *known = host,
                None => drop(self.0.insert(host.address, host)),
            }
        }
    }

    /// The hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.0.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Host {
    /// For people.
    pub fn label(&self) -> String {
        let address = self.address.to_string();
        self.name.as_ref().map_or_else(|| address.clone(), |name| format!("{address} {name}"))
    }

    /// Whether what is known here is better than another's word: a host knows best, then the last one to see it.
    fn newer_than(&self, other: &Self) -> bool {
        let rank = |host: &Self| match (host.trusts.is_some(), host.age_s) {
            (true, None) => (2, 0),
            (true, Some(age)) => (1, u64::MAX - age),
            (false, _) => (0, 0),
        };
        rank(self) >= rank(other)
    }
}

fn own(node: &Value) -> Option<Host> {
    let of = |role: &str| {
        let all = list(&node["certificates"]).iter();
        all.filter(|c| c["role"] == *role).collect::<Vec<_>>()
    };
    let leaf = of("leaf").first().map(|leaf| Leaf {
        serial: text(&leaf["serial"]).unwrap_or_default(),
        ca: text(&leaf["ca"]),
    });
    let trusts =
        leaf.is_some().then(|| of("ca").iter().filter_map(|ca| text(&ca["key_id"])).collect());
    Some(Host { address: address(node)?, name: text(&node["name"]), leaf, trusts, age_s: None })
}

fn seen(peer: &Value) -> Option<Host> {
    let shown = &peer["certificate"];
    let leaf =
        text(&shown["serial"]).map(|serial| Leaf { serial, ca: text(&shown["ca"]["key_id"]) });
    let trusts = shown["trusts"].as_array();
    let trusts = trusts.map(|all| all.iter().filter_map(|ca| text(&ca["key_id"])).collect());
    Some(Host {
        address: address(peer)?,
        name: text(&peer["name"]),
        leaf,
        trusts,
        age_s: shown["age_s"].as_u64(),
    })
}

fn address(value: &Value) -> Option<IpAddr> {
    value["address"].as_str()?.parse().ok()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(own: &str, peers: &[(&str, &str, u64)]) -> Value {
        let peers: Vec<_> = peers
            .iter()
            .map(|(address, serial, age)| {
                json!({"address": address, "name": null, "certificate": {
                    "serial": serial, "ca": {"key_id": "ca"}, "age_s": age,
                    "trusts": [{"key_id": "ca"}, {"key_id": "next"}],
                }})
            })
            .collect();
        let certificates = json!([
            {"role": "leaf", "serial": "own", "ca": "ca", "key_id": "x"},
            {"role": "ca", "serial": "1", "key_id": "ca", "ca": null},
        ]);
        json!({"node": {"address": own, "name": "h", "certificates": certificates}, "peers": peers})
    }

    fn serial(fleet: &Fleet, address: &str) -> String {
        let host = fleet.hosts().find(|host| host.address.to_string() == address).unwrap();
        host.leaf.as_ref().unwrap().serial.clone()
    }

    #[test]
    fn a_host_knows_itself_best_and_then_the_last_to_see_it() {
        let one = status("10.0.0.1", &[("10.0.0.2", "old", 90), ("10.0.0.3", "old", 90)]);
        let two = status("10.0.0.2", &[("10.0.0.1", "seen", 1), ("10.0.0.3", "new", 5)]);
        for order in [[&one, &two], [&two, &one]] {
            let mut fleet = Fleet::default();
            order.into_iter().for_each(|status| fleet.add(status));
            assert_eq!(fleet.len(), 3);
            assert_eq!(serial(&fleet, "10.0.0.1"), "own");
            assert_eq!(serial(&fleet, "10.0.0.2"), "own");
            assert_eq!(serial(&fleet, "10.0.0.3"), "new");
        }
    }

    #[test]
    fn what_nobody_has_seen_is_not_known() {
        let mut fleet = Fleet::default();
        fleet.add(&json!({"node": {"address": "10.0.0.1", "certificates": []}, "peers": [
            {"address": "10.0.0.2", "certificate": null}, {"address": 7}, {},
        ]}));
        assert_eq!(fleet.len(), 2);
        assert!(fleet.hosts().all(|host| host.leaf.is_none() && host.trusts.is_none()));
    }
}
