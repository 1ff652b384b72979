//! Lossy links with long outages: every host checks every peer, gives up, and builds anew.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sim::dice::Dice;

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::line::Lines;
use crate::lab::line::weather::Weather;
use crate::lab::stage::{ALL_UP, Stage, Stopped};
use crate::lab::streams::Pair;

/// `dpd-storm`
pub struct DpdStorm;

/// Of a thousand packets, so many are lost, and so many overtaken.
const LOSS: u32 = 300;
const REORDER: u32 = 300;
const ROUNDS: u32 = 3;
/// Lossy before each outage.
const STORM: Duration = Duration::from_secs(10);
/// How long nothing gets through.
const OUTAGE: Duration = Duration::from_secs(20);
/// The last time for so long that every host gives every other up.
const LONG_OUTAGE: Duration = Duration::from_secs(45);
/// All pairs are back within this after an outage.
const BACK: Duration = Duration::from_secs(5);
/// How long is looked at what comes of it.
const AFTER: Duration = Duration::from_secs(8);
/// A second SA is there while packets may be under way to the first, and a lost delete is repeated.
const HANDOVER: Duration = Duration::from_secs(7);
/// A peer that is silent for so many seconds is asked.
const DPD_DELAY: u64 = 5;

impl Scenario for DpdStorm {
    fn name(&self) -> &'static str {
        "dpd-storm"
    }

    fn about(&self) -> &'static str {
        "30 % loss, reordering, and 20 s outages on the links"
    }

    fn required(&self) -> &'static str {
        "one live IKE SA and child pair per pair, one more in a handover; back <= 5 s after the outage"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (2, 4, 20)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let recipe = stage.recipe.clone().with("dpddelay", json!(DPD_DELAY));
        stage.put_manifests(&recipe)?;
        let seed = stage.seed();
        let hosts = stage.hosts().iter();
        let lines = Lines::put(hosts.map(|h| (h, Weather::calm(seed, &h.name))).collect())?;
        let mut dice = Dice::new(seed, "outages");
        let pairs = stage.all_pairs();
        stage.begin(stage.len(), &pairs)?;
        let wire = stage.wire();
        let mut piles = Piles::default();
        for _ in 0..ROUNDS {
            // One host is cut off, or the whole network is down.
            let host = dice.chance(500).then(|| dice.below(lines.len() as u64) as usize);
            round(stage, &lines, host, OUTAGE, &mut piles)?;
        }
        round(stage, &lines, None, LONG_OUTAGE, &mut piles)?;
        for (what, pile) in [("IKE SAs", &piles.ike), ("pairs of child SAs", &piles.children)] {
            let most = pile.values().map(|pile| pile.most).max().unwrap_or_default();
            let required = Required::AtMost(2.0, "per pair");
            stage.measure(format!("live {what}, most at any time"), Some(most as f64), required);
            let longest = pile.values().map(|pile| pile.longest).max();
            stage.within(format!("live {what}: more than one, longest"), longest, HANDOVER);
        }
        let settled = stage.settle(&pairs, ALL_UP)?.is_some();
        stage.exactly("one tunnel per pair in the end: yes", settled.into(), 1);
        let from = stage.now();
        stage.wait(Duration::from_secs(3))?;
        stage.no_loss("in the end", from, |_| true)?;
        stage.no_clear("meanwhile", &wire);
        stage.quiet();
        Ok(())
    }
}

fn round(
    stage: &mut Stage<'_>,
    lines: &Lines<Weather>,
    host: Option<usize>,
    outage: Duration,
    piles: &mut Piles,
) -> Result<(), Stopped> {
    let all = |change: &dyn Fn(&mut Weather)| (0..lines.len()).for_each(|l| lines.with(l, change));
    stage.step(format!("{} % of all packets are lost, as many overtaken", LOSS / 10));
    all(&|weather| (weather.loss, weather.reorder) = (LOSS, REORDER));
    piles.watch(stage, STORM)?;
    match host {
        Some(host) => lines.with(host, |weather| weather.outage = true),
        None => all(&|weather| weather.outage = true),
    }
    let name = host.map_or("all hosts", |host| stage.name(host)).to_owned();
    let what = format!("outage of {name}, {} s", outage.as_secs());
    stage.step(what.clone());
    piles.watch(stage, outage)?;
    all(&|weather| (weather.loss, weather.reorder, weather.outage) = (0, 0, false));
    let end = stage.now();
    stage.step("the links are well again");
    piles.watch(stage, AFTER)?;
    let back = stage.until_back(end, ALL_UP, |_| true)?;
    stage.within(format!("{what}: all pairs back"), back, BACK);
    Ok(())
}

/// How many SAs a pair had at once.
#[derive(Default)]
struct Pile {
    most: usize,
    /// Since when there is more than one.
    since: Option<Duration>,
    /// The longest time with more than one.
    longest: Duration,
}

impl Pile {
    fn look(&mut self, now: Duration, count: usize) {
        self.most = self.most.max(count);
        self.since = (count > 1).then(|| self.since.unwrap_or(now));
        let lasted = self.since.map_or(Duration::ZERO, |since| now - since);
        self.longest = self.longest.max(lasted);
    }
}

#[derive(Default)]
struct Piles {
    ike: BTreeMap<Pair, Pile>,
    children: BTreeMap<Pair, Pile>,
}

impl Piles {
    fn watch(&mut self, stage: &Stage<'_>, time: Duration) -> Result<(), Stopped> {
        let end = stage.now() + time;
        while stage.now() < end {
            for host in 0..stage.len() {
                for (peer, status) in stage.peers(host) {
                    let now = stage.now();
                    self.ike.entry((host, peer)).or_default().look(now, live(&status));
                    let children = status["child_sas"].as_array().map_or(0, Vec::len);
                    self.children.entry((host, peer)).or_default().look(now, children);
                }
            }
            stage.wait(Duration::from_millis(50))?;
        }
        Ok(())
    }
}

/// IKE SAs that are established and not on their way out.
fn live(peer: &Value) -> usize {
    let sas = peer["ike_sas"].as_array();
    sas.map_or(0, |sas| sas.iter().filter(|sa| sa["state"] == "established").count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pile_remembers_its_worst() {
        let s = Duration::from_secs;
        let mut pile = Pile::default();
        for (at, count) in [(0, 1), (1, 2), (3, 2), (4, 1), (5, 3), (6, 0)] {
            pile.look(s(at), count);
        }
        assert_eq!((pile.most, pile.longest, pile.since), (3, s(2), None));
    }

    #[test]
    fn only_established_sas_are_live() {
        let peer = json!({"ike_sas": [
            {"state": "half_open"}, {"state": "established"}, {"state": "closing"}
        ]});
        assert_eq!(live(&peer), 1);
        assert_eq!(live(&Value::Null), 0);
    }
}
