//! Hosts join and leave by reloads of the manifest.

use std::time::Duration;

use serde_json::{Value, json};

use super::Scenario;
use crate::lab::stage::{ALL_UP, AllSas, Stage, Stopped};
use crate::lab::streams::Pair;
use crate::lab::wire::Counts;

/// `add-remove`
pub struct AddRemove;

/// What follows from a reload shows within this.
const AFTER: Duration = Duration::from_secs(3);

impl Scenario for AddRemove {
    fn name(&self) -> &'static str {
        "add-remove"
    }

    fn about(&self) -> &'static str {
        "hosts join and leave by manifest reload"
    }

    fn required(&self) -> &'static str {
        "0 packets lost on other pairs, no other SA renegotiated"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (4, 5, 60)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let (newcomer, leaver) = (stage.len() - 1, 0);
        let old: Vec<usize> = (0..newcomer).collect();
        members(stage, &old)?;
        stage.start_all(old.clone())?;
        let among = |a: usize, b: usize| a != newcomer && b != newcomer;
        let pairs: Vec<Pair> =
            stage.all_pairs().into_iter().filter(|(a, b)| among(*a, *b)).collect();
        stage.talk(pairs.clone())?;
        let before = stage.must(ALL_UP, "settled pairs", |stage| {
            let all = stage.all_sas();
            crate::lab::stage::calm(&all, &pairs).then_some(all)
        })?;

        let (from, wire) = (stage.now(), stage.wire());
        stage.step(format!("{} joins: the others reload, it starts", stage.name(newcomer)));
        let all: Vec<usize> = (0..stage.len()).collect();
        members(stage, &all)?;
        old.iter().try_for_each(|host| stage.reload(*host))?;
        stage.start(newcomer)?;
        let joined = stage.now();
        let fresh: Vec<Pair> =
            stage.all_pairs().into_iter().filter(|(a, b)| !among(*a, *b)).collect();
        stage.more_streams(fresh);
        let with_it = move |(a, b): Pair| a == newcomer || b == newcomer;
        let back = stage.until_back(joined, ALL_UP, with_it)?;
        stage.within("joined: its pairs talk", back, ALL_UP);
        stage.wait(AFTER)?;
        untouched(stage, "joining", from, &wire, &before, newcomer)?;

        let everyone = stage.all_pairs();
        let before = stage.must(ALL_UP, "settled pairs", |stage| {
            let all = stage.all_sas();
            crate::lab::stage::calm(&all, &everyone).then_some(all)
        })?;
        let (from, wire) = (stage.now(), stage.wire());
        stage.step(format!("{} leaves: the others reload, it is flushed", stage.name(leaver)));
        let rest: Vec<usize> = (1..stage.len()).collect();
        members(stage, &rest)?;
        rest.iter().try_for_each(|host| stage.reload(*host))?;
        stage.flush(leaver)?;
        stage.wait(AFTER)?;
        untouched(stage, "leaving", from, &wire, &before, leaver)?;
        let left: usize = rest
            .iter()
            .map(|host| stage.peer(*host, leaver))
            .map(|peer| {
                ["ike_sas", "child_sas"].map(|kind| peer[kind].as_array().map_or(0, Vec::len))
            })
            .map(|[ike, child]| ike + child)
            .sum();
        stage.exactly("left: SAs that the others still have with it", left as u64, 0);
        Ok(())
    }
}

/// Writes the manifest of a fleet of just these hosts.
fn members(stage: &Stage<'_>, members: &[usize]) -> Result<(), Stopped> {
    let nets = members.iter().map(|host| ipnet::IpNet::from(stage.address(*host)));
    let nets: Vec<Value> = nets.map(|net| json!(net.to_string())).collect();
    let recipe = stage.recipe.clone().with("ipsec_subnets", Value::Array(nets));
    members.iter().try_for_each(|host| stage.put_manifest(*host, &recipe))
}

/// That the pairs without `moved` lost nothing and kept their SAs, and that no handshake was between others.
fn untouched(
    stage: &mut Stage<'_>,
    phase: &str,
    from: Duration,
    wire: &Counts,
    before: &AllSas,
    moved: usize,
) -> Result<(), Stopped> {
    let others = move |(a, b): Pair| a != moved && b != moved;
    stage.no_loss(&format!("{phase}: other pairs"), from, others)?;
    let after = stage.all_sas();
    let kept = before.iter().filter(|(pair, _)| others(**pair));
    let changed = kept.filter(|(pair, sas)| after.get(pair) != Some(sas)).count();
    stage.exactly(format!("{phase}: other pairs whose SAs are not the same"), changed as u64, 0);
    let seen = stage.wire().since(wire);
    let address = stage.address(moved);
    let strange: u64 = seen
        .handshakes_between
        .iter()
        .filter(|((src, dst), _)| *src != address && *dst != address)
        .map(|(_, count)| count)
        .sum();
    stage.exactly(format!("{phase}: handshake messages between others"), strange, 0);
    stage.watched(&seen);
    Ok(())
}
