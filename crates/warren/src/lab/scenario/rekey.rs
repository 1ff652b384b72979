//! Lifetimes of seconds under load, with PFS, and both sides rekey at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::stage::{AllSas, Stage, Stopped};
use crate::lab::streams::Pair;

/// `rekey`
pub struct Rekey;

/// SAs live so long, and are replaced before.
const CHILD: u64 = 6;
const IKE: u64 = 15;
/// How long it goes on.
const TIME: Duration = Duration::from_secs(40);
/// Two peers of a host are in the same tick if their rekeys are seen within this.
const TICK: Duration = Duration::from_millis(20);
/// A pair that rekeyed from both sides settles within this.
const SETTLED: Duration = Duration::from_secs(15);

impl Scenario for Rekey {
    fn name(&self) -> &'static str {
        "rekey"
    }

    fn about(&self) -> &'static str {
        "lifetimes of seconds under load, with PFS; then both sides rekey at once, IKE and child"
    }

    fn required(&self) -> &'static str {
        "0 packets lost; rekeys spread over time"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (2, 4, 20)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let recipe = stage
            .recipe
            .clone()
            .with("esp_proposals", json!("aes128gcm16-x25519"))
            .with("ike_proposals", json!("aes128-sha256-x25519"))
            .with("child_lifetime", json!(format!("{CHILD}s")))
            .with("ike_lifetime", json!(format!("{IKE}s")));
        stage.put_manifests(&recipe)?;
        stage.start_all(0..stage.len())?;
        let pairs = stage.all_pairs();
        let from = stage.talk(pairs.clone())?;
        let wire = stage.wire();
        stage.step(format!(
            "child SAs live {CHILD} s, IKE SAs {IKE} s; {} s of that",
            TIME.as_secs()
        ));
        let seen = watch(stage)?;
        stage.no_loss("by lifetime", from, |_| true)?;
        let count = |of: &BTreeMap<Pair, Vec<Duration>>| -> f64 {
            // A rekey shows at both ends.
            of.values().map(Vec::len).sum::<usize>() as f64 / 2.0
        };
        let tunnels = pairs.len() as f64 / 2.0;
        let least = tunnels * (TIME.as_secs() / CHILD - 1) as f64;
        stage.measure("child SAs replaced", Some(count(&seen.children)), Required::AtLeast(least));
        let least = tunnels * (TIME.as_secs() / IKE) as f64;
        stage.measure("IKE SAs replaced", Some(count(&seen.ike)), Required::AtLeast(least));
        for (what, of) in [("child SAs", &seen.children), ("IKE SAs", &seen.ike)] {
            let worst = (0..stage.len()).map(|host| busiest(of, host)).max().unwrap_or_default();
            // All peers of a host in one tick is what must not be.
            let most = (stage.len() as f64 - 1.0).max(2.0);
            stage.measure(
                format!("{what} of one host replaced within {} ms, most", TICK.as_millis()),
                Some(worst as f64),
                Required::Below(most, "peers"),
            );
        }
        let from = stage.now();
        stage
            .step("both sides of every pair are told to rekey, IKE and child, at the same instant");
        for _ in 0..3 {
            at_once(stage, &pairs)?;
            stage.wait(Duration::from_millis(700))?;
        }
        stage.no_loss("both sides at once", from, |_| true)?;
        let recipe = recipe.without("child_lifetime").without("ike_lifetime");
        stage.put_manifests(&recipe)?;
        (0..stage.len()).try_for_each(|host| stage.reload(host))?;
        let settled = stage.settle(&pairs, SETTLED)?.is_some();
        stage.exactly(
            "one IKE SA and one pair of child SAs per pair in the end: yes",
            settled.into(),
            1,
        );
        let passed = stage.wire().since(&wire);
        stage.exactly("handshake messages (IKE_SA_INIT)", passed.handshakes, 0);
        stage.no_clear("meanwhile", &wire);
        Ok(())
    }
}

/// When the SAs of each pair were replaced.
#[derive(Default)]
struct Replaced {
    ike: BTreeMap<Pair, Vec<Duration>>,
    children: BTreeMap<Pair, Vec<Duration>>,
}

fn watch(stage: &mut Stage<'_>) -> Result<Replaced, Stopped> {
    let mut replaced = Replaced::default();
    let mut last: AllSas = stage.all_sas();
    let end = stage.now() + TIME;
    while stage.now() < end {
        for host in 0..stage.len() {
            let at = stage.now();
            for (pair, sas) in stage.sas_of(host) {
                let old = last.insert(pair, sas.clone()).unwrap_or_default();
                let fresh = |new: &[(String, String)], old: &[(String, String)]| {
                    new.iter().filter(|sa| !old.contains(sa)).count()
                };
                let times = |n: usize| std::iter::repeat_n(at, n);
                replaced.ike.entry(pair).or_default().extend(times(fresh(&sas.ike, &old.ike)));
                let children = replaced.children.entry(pair).or_default();
                children.extend(times(fresh(&sas.children, &old.children)));
            }
        }
        stage.wait(Duration::from_millis(5))?;
    }
    Ok(replaced)
}

/// With how many peers a host replaced SAs within one tick, at most.
fn busiest(of: &BTreeMap<Pair, Vec<Duration>>, host: usize) -> usize {
    let own = || of.iter().filter(|((from, _), _)| *from == host);
    let times = own().flat_map(|(_, times)| times);
    let within = |start: Duration| {
        own().filter(|(_, times)| times.iter().any(|at| (start..start + TICK).contains(at))).count()
    };
    times.map(|start| within(*start)).max().unwrap_or_default()
}

fn at_once(stage: &Stage<'_>, pairs: &[Pair]) -> Result<(), Stopped> {
    let told: Vec<_> = pairs
        .iter()
        .map(|(host, peer)| {
            let (socket, address) = (stage.control(*host), stage.address(*peer).to_string());
            std::thread::spawn(move || {
                let body = json!({ "action": "rekey", "peer": address });
                // Refused while one is under way, which is as good.
                let _ = crate::client::post(&socket, "/v1/command", &body);
            })
        })
        .collect();
    for thread in told {
        let _ = thread.join();
    }
    stage.go_on()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_tick_counts_peers() {
        let ms = Duration::from_millis;
        let of = BTreeMap::from([
            ((0, 1), vec![ms(100), ms(500)]),
            ((0, 2), vec![ms(110), ms(900)]),
            ((0, 3), vec![ms(400)]),
            ((1, 0), vec![ms(100)]),
        ]);
        assert_eq!(busiest(&of, 0), 2);
        assert_eq!(busiest(&of, 1), 1);
        assert_eq!(busiest(&of, 2), 0);
    }
}
