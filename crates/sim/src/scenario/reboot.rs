//! One host loses all its state and comes back; nobody told its peers.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::world::{Stopped, World};

/// Traffic flows in both directions again within this, even where only the other side sends.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// What is left of the old tunnels is found by a liveness check at the latest, and given up.
const CLEAN_WITHIN: Duration = Duration::from_secs(75);

/// `reboot`
pub struct Reboot;

impl Scenario for Reboot {
    fn name(&self) -> &'static str {
        "reboot"
    }

    fn about(&self) -> &'static str {
        "a host loses all state and comes back; its peers find out by themselves"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup::any(dice).in_good_weather()
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_millis(250)));
        world.until_all_up(Duration::from_secs(15))?;
        world.until_settled(Duration::from_secs(20))?;
        world.insist(false);
        for _ in 0..3 {
            let host = super::anyone(world);
            let away = world.dice().between(Duration::from_millis(10), Duration::from_secs(20));
            let silent = world.dice().chance(500);
            world.mute(silent.then_some(host));
            world.focus([host]);
            world.rest(super::QUIET);
            world.reboot(host, away);
            world.run_for(away)?;
            world.until_all_up(BACK_WITHIN)?;
            world.mute(None);
            world.until_settled(CLEAN_WITHIN)?;
        }
        world.insist(true);
        world.run_for(Duration::from_secs(5))?;
        world.finish()
    }
}
