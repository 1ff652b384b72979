//! The network falls in two halves, and comes together again.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::net::{Match, Rule, Verdict};
use crate::world::{Stopped, World};

/// All pairs are back within this after the halves found together.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// `split`
pub struct Split;

impl Scenario for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn about(&self) -> &'static str {
        "the network splits in halves for up to five minutes; all pairs back within 5 s, nothing lost within a half"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice).in_good_weather();
        let dpd_delay = Duration::from_secs(dice.pick(&[2, 5, 30]));
        Setup { recipe: Recipe { dpd_delay, ..setup.recipe }, ..setup }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_millis(500)));
        super::come_to_rest(world)?;
        for _ in 0..2 {
            let hosts = world.fleet().len() as u64;
            let first = 1 + world.dice().below(hosts - 1) as usize;
            let lasts = Duration::from_secs(world.dice().pick(&[10, 40, 100, 300]));
            let from = world.now();
            let of = Match { halves: Some(first), ..Match::default() };
            world.add_rule(Rule { of, from, until: from + lasts, verdict: Verdict::Drop });
            world.expect_all_but(|a, b| (a < first) != (b < first));
            world.rest(Duration::from_secs(5));
            world.run_for(lasts)?;
            world.rest(Duration::from_secs(1));
            world.insist(false);
            world.expect_all_but(|_, _| false);
            world.calm();
            world.until_all_up(BACK_WITHIN)?;
            world.run_for(Duration::from_secs(15))?;
            world.until_settled(Duration::from_secs(75))?;
            world.insist(true);
        }
        world.run_for(Duration::from_secs(5))?;
        world.finish()
    }
}
