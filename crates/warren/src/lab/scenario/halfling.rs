//! One of the two SAs of a pair is deleted behind the daemon's back, on one side.

use std::time::Duration;

use ipsec::sa::SaKey;
use linux::xfrm::Xfrm;
use serde_json::json;
use wire::esp::Spi;

use super::Scenario;
use crate::lab::stage::{ALL_UP, Sas, Stage, Stopped, calm};
use crate::lab::streams::Pair;

/// `halfling`
pub struct Halfling;

/// Found and replaced within this.
const REPLACED: Duration = Duration::from_secs(3);
/// Beyond that the scenario does not wait for it.
const LONGEST: Duration = Duration::from_secs(30);

impl Scenario for Halfling {
    fn name(&self) -> &'static str {
        "halfling"
    }

    fn about(&self) -> &'static str {
        "one of the two SAs of a pair is deleted behind the daemon's back, on one side"
    }

    fn required(&self) -> &'static str {
        "found and replaced <= 3 s"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        stage.more.push("--rehearsal".to_owned());
        stage.start_all(0..stage.len())?;
        let pairs = stage.all_pairs();
        stage.talk(pairs.clone())?;
        for (host, other) in [(0, 1), (1, 0)] {
            for inbound in [true, false] {
                let all = stage.must(ALL_UP, "settled pairs", |stage| {
                    let all = stage.all_sas();
                    calm(&all, &pairs).then_some(all)
                })?;
                once(stage, host, other, inbound, &all[&(host, other)])?;
                let after = stage.all_sas();
                let others = |(a, b): &Pair| (*a, *b) != (host, other) && (*a, *b) != (other, host);
                let changed = all
                    .iter()
                    .filter(|(pair, _)| others(pair))
                    .filter(|(p, s)| after.get(p) != Some(s));
                let changed = changed.count() as u64;
                stage.exactly("  other pairs whose SAs are not the same", changed, 0);
            }
        }
        Ok(())
    }
}

fn once(
    stage: &mut Stage<'_>,
    host: usize,
    other: usize,
    inbound: bool,
    sas: &Sas,
) -> Result<(), Stopped> {
    let which = if inbound { "inbound" } else { "outbound" };
    let (name, peer) = (stage.name(host).to_owned(), stage.name(other).to_owned());
    let [(spi_in, spi_out)] = &sas.children[..] else {
        return Err(Stopped::Failed(format!("{name} has no child SA with {peer}")));
    };
    let (spi, dst) = match inbound {
        true => (spi_in, stage.address(host)),
        false => (spi_out, stage.address(other)),
    };
    stage.step(format!("the {which} SA of {name} with {peer} ({spi}) is deleted behind its back"));
    let from = stage.now();
    if stage.kernel() {
        let spi = u32::from_str_radix(spi, 16).map_err(|error| error.to_string())?;
        let key = SaKey { dst, spi: Spi(spi) };
        let gone = stage.netns(host)?.run(|| Xfrm::open()?.remove_sa(key));
        gone.map_err(|error| error.to_string())?;
    } else {
        stage.post(host, "/v1/rehearsal/sa-gone", &json!({ "dst": dst, "spi": spi }))?;
    }
    let deleted = stage.now();
    let replaced = stage.until(LONGEST, |stage| {
        let here = stage.sas_of(host).remove(&(host, other))?;
        let there = stage.sas_of(other).remove(&(other, host))?;
        let all = [((host, other), here.clone()), ((other, host), there)].into();
        let new = here.children != sas.children;
        (new && calm(&all, &[(host, other), (other, host)])).then(|| stage.now() - deleted)
    })?;
    let what = format!("{which} SA of {name} with {peer}");
    stage.within(format!("{what}: replaced on both sides"), replaced, REPLACED);
    let this = move |pair: Pair| pair == (host, other) || pair == (other, host);
    let back = stage.until_back(deleted, LONGEST, this)?;
    stage.within(format!("{what}: heard both ways"), back, REPLACED);
    stage.wait(Duration::from_secs(1))?;
    let late = deleted + REPLACED;
    if stage.now() < late + Duration::from_secs(1) {
        stage.wait(late + Duration::from_secs(1) - stage.now())?;
    }
    stage.no_loss(&format!("{what}: 3 s later"), late, this)?;
    stage.no_loss(&format!("{what}: other pairs"), from, move |pair| !this(pair))
}
