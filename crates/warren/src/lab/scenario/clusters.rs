//! Two meshes side by side in one subnet.

use std::time::Duration;

use serde_json::{Value, json};

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::stage::{ALL_UP, Stage, Stopped};
use crate::lab::streams::Pair;

/// `clusters`
pub struct Clusters;

/// SAs that a host has with a peer. A handshake that is refused is none.
fn sas(peer: &Value) -> usize {
    let ike = peer["ike_sas"].as_array().into_iter().flatten();
    let children = peer["child_sas"].as_array().map_or(0, Vec::len);
    ike.filter(|sa| sa["state"] != "half_open").count() + children
}

/// The two go on side by side for so long.
const TIME: Duration = Duration::from_secs(8);

impl Scenario for Clusters {
    fn name(&self) -> &'static str {
        "clusters"
    }

    fn about(&self) -> &'static str {
        "two meshes with different `cluster` names side by side, all hosts send to all"
    }

    fn required(&self) -> &'static str {
        "no SA between them"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (4, 4, 40)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let half = stage.len() / 2;
        for host in 0..stage.len() {
            let name = if host < half { "east" } else { "west" };
            stage.put_manifest(host, &stage.recipe.clone().with("cluster", json!(name)))?;
        }
        let wire = stage.wire();
        stage.start_all(0..stage.len())?;
        let (inside, across): (Vec<Pair>, Vec<Pair>) =
            stage.all_pairs().into_iter().partition(|(a, b)| (*a < half) == (*b < half));
        let from = stage.talk(inside.clone())?;
        stage.step("each sends to those of the other mesh as well");
        let crossing = stage.now();
        stage.more_streams(across.clone());
        let mut between = 0;
        let end = stage.now() + TIME;
        while stage.now() < end {
            let here: usize = across.iter().map(|(a, b)| sas(&stage.peer(*a, *b))).sum();
            between = between.max(here);
            stage.wait(Duration::from_millis(200))?;
        }
        stage.exactly("SAs between the two meshes, most at any time", between as u64, 0);
        let loss = stage.loss(crossing, |pair| across.contains(&pair))?;
        stage.exactly("packets that crossed", loss.sent - loss.lost, 0);
        stage.measure("packets that tried to", Some(loss.sent as f64), Required::AtLeast(1.0));
        stage.findings.details.clear();
        stage.no_loss("within the meshes", from, |pair| inside.contains(&pair))?;
        let settled = stage.settle(&inside, ALL_UP)?;
        stage.exactly(
            "within the meshes: pairs with one tunnel each: yes",
            settled.is_some().into(),
            1,
        );
        stage.no_clear("from the start", &wire);
        let host = stage.status(0).unwrap_or_default();
        stage.step(format!("{} says it is of cluster {}", stage.name(0), host["node"]["cluster"]));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_no_sas() {
        let of = |state: &str| json!({ "ike_sas": [{ "state": state }], "child_sas": [] });
        assert_eq!((sas(&of("half_open")), sas(&of("established")), sas(&Value::Null)), (0, 1, 0));
        assert_eq!(sas(&json!({ "child_sas": [{}] })), 1);
    }
}
