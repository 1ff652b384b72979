//! Hosts join and leave by a new manifest on every host.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::net::HostId;
use crate::violation::What;
use crate::world::{Stopped, World};

/// `add-remove`
pub struct AddRemove;

impl Scenario for AddRemove {
    fn name(&self) -> &'static str {
        "add-remove"
    }

    fn about(&self) -> &'static str {
        "a host joins and leaves by manifest; no other SA is negotiated again, no other packet lost"
    }

    fn least_hosts(&self) -> usize {
        3
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup::any(dice).in_good_weather()
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        let guest = world.fleet().len() - 1;
        world.talk_only_where_expected(true);
        world.focus([guest]);
        world.expect_all_but(|a, _| a == guest);
        hand_out(world, guest, true);
        world.start_all(world.setup().skew);
        world.run_for(world.setup().skew)?;
        world.unplug(guest);
        world.talk(Some(Duration::from_millis(250)));
        super::come_to_rest(world)?;
        let before = world.tally();
        for _ in 0..2 {
            hand_out(world, guest, false);
            world.boot_one(guest);
            reload_all(world, guest)?;
            world.expect_all_but(|_, _| false);
            world.insist(true);
            world.until_all_up(Duration::from_secs(15))?;
            world.until_settled(Duration::from_secs(75))?;
            world.run_for(Duration::from_secs(3))?;
            world.expect_all_but(|a, _| a == guest);
            world.run_for(Duration::from_secs(1))?;
            hand_out(world, guest, true);
            reload_all(world, guest)?;
            if let Some(host) = (0..guest).find(|host| !world.has_no_sa(*host, guest)) {
                let text = "SAs of a host that is no peer any more were not taken away";
                return Err(world.fault(What::ChildSas, (host, guest), text));
            }
            world.unplug(guest);
        }
        if let Some(pair) = world.tally().renegotiated(&before, |a, b| a != guest && b != guest) {
            let text = "a host came and went, and others' SAs were negotiated again";
            return Err(world.fault(What::Touched, pair, text));
        }
        world.finish()
    }
}

/// The manifest with the guest, or without it, for the next time that a host reads it.
fn hand_out(world: &mut World, guest: HostId, without: bool) {
    let without = if without { vec![guest] } else { Vec::new() };
    let recipe = Recipe { without, ..world.setup().recipe.clone() };
    let given = world.fleet().cook(&recipe);
    let home = world.fleet().cook(&world.setup().recipe.clone());
    for host in 0..guest {
        world.fleet_mut().give(host, given.clone());
    }
    world.fleet_mut().give(guest, home);
}

/// Host by host, in no order.
fn reload_all(world: &mut World, guest: HostId) -> Result<(), Stopped> {
    let first = world.dice().below(guest as u64) as usize;
    for step in 0..guest {
        world.reload((first + step) % guest);
        let pause =
            world.dice().between(Duration::ZERO, Duration::from_millis(2000 / guest as u64));
        world.run_for(pause)?;
    }
    world.run_for(Duration::from_secs(1))
}
