//! A long quiet life of rekeys: nothing is left over, nothing grows.

use std::time::Duration;

use mesh::{Command, Target};

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::report::Weight;
use crate::violation::What;
use crate::world::{Stopped, World};

/// A day, if nothing else is asked for.
const DAY: Duration = Duration::from_secs(86_400);
/// Between two packets of a pair.
const TALK: Duration = Duration::from_secs(60);
/// Parts of the whole time: what is held is looked at after each …
const PARTS: u32 = 48;
/// … but for the first ones, in which caches and what is remembered of messages fill.
const WARM_UP: u32 = 12;
/// After `down` everywhere all is gone: a Delete's answer, and what answers late repeats.
const GONE_WITHIN: Duration = Duration::from_secs(120);
/// What stays of a peer that is down: that it is.
const STAYS: &str = "peers";

/// `soak`
pub struct Soak;

impl Scenario for Soak {
    fn name(&self) -> &'static str {
        "soak"
    }

    fn about(&self) -> &'static str {
        "24 hours (or --duration) of rekeys every half hour: no SA left over, no table grows, nor the heap"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice).in_good_weather();
        let (child_lifetime, ike_lifetime) = (Duration::from_secs(1800), Duration::from_secs(7200));
        Setup { recipe: Recipe { child_lifetime, ike_lifetime, ..setup.recipe }, ..setup }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.remember_little();
        world.start_all(world.setup().skew);
        world.talk(Some(TALK));
        world.until_all_up(2 * TALK)?;
        world.run_for(Duration::from_secs(90))?;
        world.until_settled(Duration::from_secs(90))?;
        let part = world.duration().unwrap_or(DAY) / PARTS;
        world.run_for(part * WARM_UP)?;
        for _ in WARM_UP..PARTS {
            world.run_for(part)?;
            world.weigh();
        }
        if let Some(text) = growth(world.weights()) {
            return Err(world.fault(What::Growth, (0, 1), text));
        }
        world.until_each_settled(Duration::from_secs(120))?;
        nothing_is_left_over(world)
    }
}

/// What the last third of the looks found more of than the first one.
fn growth(weights: &[Weight]) -> Option<String> {
    let third = weights.len() / 3;
    let (first, last) = (&weights[..third], &weights[weights.len() - third..]);
    let heap = |of: &[Weight]| of.iter().map(|w| w.heap).sum::<Option<usize>>();
    if let (Some(before), Some(after)) = (heap(first), heap(last)) {
        let (before, after) = (before / third.max(1), after / third.max(1));
        // What is on its way, and holes between what was freed.
        if after > before + before / 50 + (64 << 10) {
            return Some(format!("{after} bytes of heap at the end, {before} after the warm-up"));
        }
    }
    let most = |of: &[Weight], table| of.iter().filter_map(|w| w.tables.get(table)).copied().max();
    last.last()?.tables.keys().find_map(|table| {
        let (before, after) = (most(first, table).unwrap_or(0), most(last, table)?);
        // What is being handed over counts twice for some seconds.
        let text = || format!("{after} {table} at the end, {before} after the warm-up");
        (after > before + before / 4 + 8).then(text)
    })
}

/// Every tunnel is taken down at both ends: then no table has anything of it.
fn nothing_is_left_over(world: &mut World) -> Result<(), Stopped> {
    world.talk(None);
    world.run_for(Duration::from_secs(5))?;
    world.insist(false);
    let pairs: Vec<_> = world.pairs().flat_map(|(a, b)| [(a, b), (b, a)]).collect();
    world.expect_all_but(|_, _| true);
    for (host, peer) in &pairs {
        let target = Target::Address(world.fleet().address(*peer));
        if let Err(error) = world.command(*host, Command::Down(target)) {
            return Err(world.fault(What::Disobeyed, (*host, *peer), error));
        }
    }
    world.run_for(GONE_WITHIN)?;
    world.weigh();
    let held = world.weights().last().map(|weight| weight.tables.clone()).unwrap_or_default();
    match held.iter().find(|(table, size)| **table != STAYS && **size > 0) {
        Some((table, size)) => {
            let text = format!("{size} {table} are left over after every tunnel was taken down");
            Err(world.fault(What::Growth, (0, 1), text))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(sizes: impl IntoIterator<Item = (usize, usize)>) -> Vec<Weight> {
        let weight = |(sas, heap)| Weight {
            seconds: 0.0,
            tables: [("IKE SAs", sas)].into(),
            heap: Some(heap),
        };
        sizes.into_iter().map(weight).collect()
    }

    #[test]
    fn what_grows_is_found_and_what_fluctuates_is_not() {
        let steady = weights((0..36).map(|n| (100 + n % 7, 10_000_000 + n % 5 * 10_000)));
        assert_eq!(growth(&steady), None);
        let leak = growth(&weights((0..36).map(|n| (100, 10_000_000 + n * 20_000)))).unwrap();
        assert!(leak.contains("heap"), "{leak}");
        let more = growth(&weights((0..36).map(|n| (100 + 2 * n, 10_000_000)))).unwrap();
        assert!(more.contains("IKE SAs"), "{more}");
    }
}
