//! A cleartext fleet turns IPsec on, host by host; enforces it; and the way back.

use std::time::Duration;

use mesh::Command;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::{Given, Recipe};
use crate::violation::What;
use crate::world::{Stopped, World};

/// Between two hosts.
const PAUSE: Duration = Duration::from_millis(700);

/// `rollout`
pub struct Rollout;

impl Scenario for Rollout {
    fn name(&self) -> &'static str {
        "rollout"
    }

    fn about(&self) -> &'static str {
        "from cleartext to `optional`, to enforced, and back, host by host; not one packet lost"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup::any(dice).in_good_weather()
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        let hosts = world.fleet().len();
        let optional = Recipe { optional: true, ..world.setup().recipe.clone() };
        let (optional, enforced) =
            (world.fleet().cook(&optional), world.fleet().cook(&world.setup().recipe.clone()));
        let pause = super::turn(world, PAUSE);
        world.rest(super::QUIET);
        world.fleet_mut().allow_clear(true);
        (0..hosts).for_each(|host| world.make_plain(host));
        world.talk(Some(Duration::from_millis(100)));
        world.run_for(Duration::from_secs(2))?;
        for host in 0..hosts {
            world.fleet_mut().give(host, optional.clone());
            world.focus([host]);
            world.boot_one(host);
            world.run_for(pause)?;
        }
        world.until_all_up(Duration::from_secs(90))?;
        world.until_settled(Duration::from_secs(75))?;
        reload(world, &enforced)?;
        // From here on a single packet in the clear is a fault.
        world.fleet_mut().allow_clear(false);
        world.run_for(Duration::from_secs(5))?;
        world.fleet_mut().allow_clear(true);
        reload(world, &optional)?;
        for host in 0..hosts {
            if let Err(error) = world.command(host, Command::Leave) {
                return Err(world.fault(What::Disobeyed, (host, host), error));
            }
            world.focus([host]);
            world.run_for(pause)?;
            let _ = world.command(host, Command::Flush);
            world.make_plain(host);
            world.run_for(pause)?;
        }
        world.talk(None);
        world.run_for(Duration::from_secs(15))
    }
}

fn reload(world: &mut World, given: &Given) -> Result<(), Stopped> {
    for host in 0..world.fleet().len() {
        world.fleet_mut().give(host, given.clone());
        world.focus([host]);
        world.reload(host);
        world.run_for(super::turn(world, PAUSE))?;
    }
    Ok(())
}
