//! The SAs of the hosts, as their own status shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Stage, Stopped};
use crate::lab::streams::Pair;

/// The SAs that a host has with a peer: of each IKE SA both SPIs, of each child SA the inbound and the outbound one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sas {
    /// IKE.
    pub ike: Vec<(String, String)>,
    /// Child SAs.
    pub children: Vec<(String, String)>,
}

impl Sas {
    /// What the status of a peer shows.
    pub fn of(peer: &Value) -> Self {
        let pairs = |list: &Value, a: &str, b: &str| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let mut found: Vec<_> = list
                .as_array()
                .into_iter()
                .flatten()
                .map(|sa| (text(&sa[a]), text(&sa[b])))
                .collect();
            found.sort();
            found
        };
        Self {
            ike: pairs(&peer["ike_sas"], "spi_i", "spi_r"),
            children: pairs(&peer["child_sas"], "spi_in", "spi_out"),
        }
    }
}

/// The SAs of every host with every other.
pub type AllSas = BTreeMap<Pair, Sas>;

impl Stage<'_> {
    /// A host's SAs with every other.
    pub fn sas_of(&self, host: usize) -> AllSas {
        self.peers(host).iter().map(|(peer, status)| ((host, *peer), Sas::of(status))).collect()
    }

    /// The SAs of every host that has a daemon with every other.
    pub fn all_sas(&self) -> AllSas {
        (0..self.len()).flat_map(|host| self.sas_of(host)).collect()
    }

    /// Whether each of these pairs has one IKE SA and one child SA, and both ends agree.
    pub fn is_calm(&self, pairs: &[Pair]) -> Option<()> {
        calm(&self.all_sas(), pairs).then_some(())
    }

    /// Waits until each of these pairs has one IKE SA and one child SA, and both ends agree.
    pub fn settle(&mut self, pairs: &[Pair], limit: Duration) -> Result<Option<AllSas>, Stopped> {
        self.until(limit, |stage| {
            let all = stage.all_sas();
            calm(&all, pairs).then_some(all)
        })
    }
}

/// Whether these pairs have exactly one IKE SA and one child SA each, and both ends speak of the same.
pub fn calm(all: &AllSas, pairs: &[Pair]) -> bool {
    pairs.iter().all(|(a, b)| {
        let (Some(here), Some(there)) = (all.get(&(*a, *b)), all.get(&(*b, *a))) else {
            return false;
        };
        let ([ike], [child]) = (&here.ike[..], &here.children[..]) else { return false };
        there.ike == [ike.clone()] && there.children == [(child.1.clone(), child.0.clone())]
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(ike: &str, child: (&str, &str)) -> Sas {
        let pair = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
        Sas { ike: vec![pair((ike, "r"))], children: vec![pair(child)] }
    }

    #[test]
    fn both_ends_must_speak_of_the_same_sas() {
        let pairs = [(0, 1), (1, 0)];
        let of = |a: Sas, b: Sas| AllSas::from([((0, 1), a), ((1, 0), b)]);
        assert!(calm(&of(one("i", ("1", "2")), one("i", ("2", "1"))), &pairs));
        assert!(!calm(&of(one("i", ("1", "2")), one("j", ("2", "1"))), &pairs));
        assert!(!calm(&of(one("i", ("1", "2")), one("i", ("1", "2"))), &pairs));
        let mut two = one("i", ("1", "2"));
        two.children.push(("3".into(), "4".into()));
        assert!(!calm(&of(two, one("i", ("2", "1"))), &pairs));
        assert!(!calm(&AllSas::new(), &pairs));
    }

    #[test]
    fn a_status_is_read_for_its_sas() {
        let peer = json!({
            "ike_sas": [{"spi_i": "a", "spi_r": "b"}],
            "child_sas": [{"spi_in": "2", "spi_out": "3"}, {"spi_in": "1", "spi_out": "4"}],
        });
        let found = Sas::of(&peer);
        assert_eq!(found.ike, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(found.children[0], ("1".to_owned(), "4".to_owned()));
        assert_eq!(Sas::of(&Value::Null), Sas::default());
    }
}
