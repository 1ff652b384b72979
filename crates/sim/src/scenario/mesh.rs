//! N hosts start at the same instant, all pairs talk at once.

use std::time::Duration;

use super::{Scenario, Setup, Shape};
use crate::dice::Dice;
use crate::world::{Stopped, World};

/// Faults last so long.
const CHAOS: Duration = Duration::from_secs(20);
/// All pairs talk at once, in the largest fleet too; this long.
const FIRST: Duration = Duration::from_secs(4);
/// After the faults every pair is up within this: a handshake that was under way must be given up
/// first, and the next attempt may wait for its turn.
const UP_WITHIN: Duration = Duration::from_secs(45);
/// … and exactly one IKE SA and one child SA are left within this.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// `mesh`
pub struct Mesh;

impl Scenario for Mesh {
    fn name(&self) -> &'static str {
        "mesh"
    }

    fn about(&self) -> &'static str {
        "all hosts start at once and talk at once, on links that lose and repeat packets"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup { shape: Shape::Mesh, ..Setup::any(dice) }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_secs(1)));
        world.run_for(FIRST)?;
        world.rest(Duration::from_secs(5));
        world.run_for(CHAOS - FIRST)?;
        let lossless = world.setup().weather.loses_nothing();
        world.insist(lossless);
        world.calm();
        world.until_all_up(UP_WITHIN)?;
        world.until_settled(SETTLED_WITHIN)?;
        world.insist(true);
        world.talk(Some(Duration::from_millis(500)));
        world.run_for(Duration::from_secs(10))?;
        world.finish()
    }
}
