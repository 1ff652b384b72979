//! Outages of many seconds on lossy links: every host checks every peer, gives up, builds anew.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::net::{Match, Rule, Verdict, Weather};
use crate::world::{Stopped, World};

/// How long nothing gets through.
const OUTAGE: Duration = Duration::from_secs(20);
/// All pairs are back within this after an outage.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// `dpd-storm`
pub struct DpdStorm;

impl Scenario for DpdStorm {
    fn name(&self) -> &'static str {
        "dpd-storm"
    }

    fn about(&self) -> &'static str {
        "30 % loss, reordering, outages of 20 s; no pile of SAs, and back within 5 s"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice);
        let recipe = Recipe { dpd_delay: Duration::from_secs(5), ..setup.recipe };
        // A first message that arrives damaged, which UDP's checksum sees to, costs a handshake its half minute.
        let weather = Weather { loss: 300, reorder: 300, damage: 0, ..setup.weather };
        Setup { recipe, weather, ..setup }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_secs(1)));
        world.insist(false);
        world.run_for(Duration::from_secs(20))?;
        world.calm();
        world.until_all_up(Duration::from_secs(45))?;
        for _ in 0..3 {
            let bad = world.setup().weather;
            world.set_weather(bad);
            world.run_for(Duration::from_secs(10))?;
            let outage = outage(world);
            world.add_rule(outage);
            world.run_for(OUTAGE)?;
            world.calm();
            world.until_all_up(BACK_WITHIN)?;
        }
        // Handshakes that were begun in the outage come to their end first.
        world.run_for(Duration::from_secs(15))?;
        world.until_settled(Duration::from_secs(60))?;
        world.insist(true);
        world.run_for(Duration::from_secs(5))?;
        world.finish()
    }
}

/// One host is cut off, or the whole network is down.
fn outage(world: &mut World) -> Rule {
    let host = super::anyone(world);
    let host = world.dice().chance(500).then_some(host);
    let from = world.now();
    Rule {
        of: Match { host, ..Match::default() },
        from,
        until: from + OUTAGE,
        verdict: Verdict::Drop,
    }
}
