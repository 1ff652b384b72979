//! A long quiet life of rekeys: nothing is left over, nothing grows.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::violation::What;
use crate::world::{Stopped, World};

/// A day, if nothing else is asked for.
const DAY: Duration = Duration::from_secs(86_400);
/// Between two packets of a pair.
const TALK: Duration = Duration::from_secs(60);

/// `soak`
pub struct Soak;

impl Scenario for Soak {
    fn name(&self) -> &'static str {
        "soak"
    }

    fn about(&self) -> &'static str {
        "24 hours (or --duration) of rekeys every half hour: no SA left over, no table grows"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice).in_good_weather();
        let (child_lifetime, ike_lifetime) = (Duration::from_secs(1800), Duration::from_secs(7200));
        Setup { recipe: Recipe { child_lifetime, ike_lifetime, ..setup.recipe }, ..setup }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(world.setup().skew);
        world.talk(Some(TALK));
        world.until_all_up(2 * TALK)?;
        world.run_for(Duration::from_secs(90))?;
        world.until_settled(Duration::from_secs(90))?;
        let before = world.census_of_tables();
        let whole = world.duration().unwrap_or(DAY);
        world.run_for(whole)?;
        world.until_each_settled(Duration::from_secs(120))?;
        // What is being handed over counts twice for some seconds.
        let most_now = |n: usize| n + n / 4 + 8;
        for (table, size) in world.census_of_tables() {
            let was = before.get(table).copied().unwrap_or(0);
            if size > most_now(was) {
                let text = format!("{size} {table} after {whole:?}, {was} at the beginning");
                return Err(world.fault(What::Growth, (0, 1), text));
            }
        }
        world.insist(true);
        world.run_for(Duration::from_secs(5))
    }
}
