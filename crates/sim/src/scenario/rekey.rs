//! Lifetimes of seconds under load: IKE SAs and child SAs are replaced all the time.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::net::Weather;
use crate::world::{Stopped, World};

/// Some ten lifetimes of child SAs, if nothing else is asked for.
const LOAD: Duration = Duration::from_secs(60);

/// `rekey`
pub struct Rekey;

impl Scenario for Rekey {
    fn name(&self) -> &'static str {
        "rekey"
    }

    fn about(&self) -> &'static str {
        "lifetimes of seconds under load, both ends rekey; not one packet may be lost"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice);
        let child = Duration::from_secs(dice.pick(&[4, 6, 9]));
        let ike = child * dice.pick(&[1, 2, 3]);
        Setup {
            recipe: Recipe { ike_lifetime: ike, child_lifetime: child, ..setup.recipe },
            weather: Weather { loss: 0, damage: 0, ..setup.weather },
            ..setup
        }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(world.setup().skew);
        world.rest(Duration::from_secs(2));
        world.talk(Some(Duration::from_millis(500)));
        world.until_all_up(Duration::from_secs(10))?;
        world.run_for(world.duration().unwrap_or(LOAD))?;
        world.calm();
        world.until_each_settled(Duration::from_secs(20))?;
        world.run_for(Duration::from_secs(2))
    }
}
