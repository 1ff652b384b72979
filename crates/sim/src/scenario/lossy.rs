//! Bad links from beginning to end of a long day; then calm.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::net::Weather;
use crate::world::{Stopped, World};

/// Faults last so long: rekeys and liveness checks happen on bad links too.
const CHAOS: Duration = Duration::from_secs(120);

/// `lossy`
pub struct Lossy;

impl Scenario for Lossy {
    fn name(&self) -> &'static str {
        "lossy"
    }

    fn about(&self) -> &'static str {
        "30 % loss, reordering and rekeys for two minutes; then every pair comes right"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice);
        let recipe = Recipe {
            ike_lifetime: Duration::from_secs(60),
            child_lifetime: Duration::from_secs(30),
            dpd_delay: Duration::from_secs(10),
            ..setup.recipe
        };
        Setup { recipe, weather: Weather { loss: 300, reorder: 200, ..setup.weather }, ..setup }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_secs(1)));
        world.insist(false);
        world.run_for(CHAOS)?;
        world.calm();
        world.until_all_up(Duration::from_secs(45))?;
        world.until_each_settled(Duration::from_secs(60))
    }
}
