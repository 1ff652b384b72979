//! One host is behind a NAT, whose mappings expire and change.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::net::HostId;
use crate::violation::What;
use crate::world::{Stopped, World};

/// Packets from both sides get through again this long after the NAT started anew.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// `nat`
pub struct Nat;

impl Scenario for Nat {
    fn name(&self) -> &'static str {
        "nat"
    }

    fn about(&self) -> &'static str {
        "a host behind a NAT that forgets its mappings; ESP in UDP, and traffic goes on in 3 s"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup::any(dice).in_good_weather()
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        let inside = super::anyone(world);
        world.put_behind_nat(inside, Duration::from_secs(30));
        world.focus([inside]);
        world.insist(false);
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_millis(500)));
        world.until_all_up(Duration::from_secs(40))?;
        world.until_settled(Duration::from_secs(75))?;
        world.rest(super::QUIET);
        // Nobody sends for longer than a mapping lives: the keepalives hold it.
        world.talk(None);
        world.run_for(Duration::from_secs(100))?;
        world.talk(Some(Duration::from_millis(250)));
        world.mute([inside]);
        world.insist(true);
        world.run_for(Duration::from_secs(5))?;
        world.mute(None);
        for _ in 0..3 {
            change(world, inside)?;
        }
        world.until_settled(Duration::from_secs(75))?;
        world.finish()
    }
}

/// The NAT starts anew. What is inside sends first; from then on nothing may be missing.
fn change(world: &mut World, inside: HostId) -> Result<(), Stopped> {
    world.insist(false);
    let before = world.tally();
    world.restart_nat(inside);
    world.run_for(BACK_WITHIN)?;
    world.insist(true);
    world.run_for(Duration::from_secs(10))?;
    if let Some(pair) = world.tally().shook_hands(&before) {
        let text = "a mapping changed, and a tunnel was built anew";
        return Err(world.fault(What::Touched, pair, text));
    }
    Ok(())
}
