//! SAD and SPD are flushed or altered under a running daemon.

use std::time::Duration;

use ipsec::change::Change;
use ipsec::sa::Direction;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::net::HostId;
use crate::violation::What;
use crate::world::{Stopped, World};

/// Put right within this.
const RIGHT_WITHIN: Duration = Duration::from_secs(3);

/// `drift`
pub struct Drift;

impl Scenario for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn about(&self) -> &'static str {
        "SAD and SPD flushed or altered under a running daemon; put right within 3 s"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup::any(dice).in_good_weather()
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        if world.dice().chance(500) {
            world.deafen();
        }
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_millis(250)));
        super::come_to_rest(world)?;
        for _ in 0..4 {
            let host = super::anyone(world);
            world.insist(false);
            world.focus([host]);
            flush_policies(world, host)?;
            flush_sas(world, host)?;
            world.until_settled(Duration::from_secs(75))?;
        }
        world.insist(true);
        world.run_for(Duration::from_secs(5))?;
        world.finish()
    }
}

/// Some or all policies go: they come back, and no SA is touched.
fn flush_policies(world: &mut World, host: HostId) -> Result<(), Stopped> {
    let before = world.policies(host);
    let share = world.dice().pick(&[300, 1000]);
    let mut gone = Vec::new();
    for key in &before {
        if world.dice().chance(share) {
            gone.push(Change::RemovePolicy(*key));
        }
    }
    let installed = world.tally();
    world.meddle(host, gone);
    world.run_for(RIGHT_WITHIN)?;
    if world.policies(host) != before {
        let text = format!(
            "the policies are not as they were, {RIGHT_WITHIN:?} after they were taken away"
        );
        return Err(world.fault(What::DataPlane, (host, host), text));
    }
    if let Some(pair) = world.tally().renegotiated(&installed, |_, _| true) {
        let text = "policies were put right, and SAs negotiated again for it";
        return Err(world.fault(What::Touched, pair, text));
    }
    Ok(())
}

/// All SAs of a host go, or those of some peers: the pairs come back, the others are let alone.
fn flush_sas(world: &mut World, host: HostId) -> Result<(), Stopped> {
    let (share, hosts) = (world.dice().pick(&[300, 1000]), world.fleet().len());
    let mut harmed = Vec::new();
    let mut gone = Vec::new();
    for peer in (0..hosts).filter(|peer| *peer != host) {
        if world.dice().chance(share) {
            harmed.push(peer);
            for direction in [Direction::In, Direction::Out] {
                gone.extend(world.sas(host, peer, direction).into_iter().map(Change::RemoveSa));
            }
        }
    }
    let before = world.tally();
    world.meddle(host, gone);
    world.until_all_up(RIGHT_WITHIN)?;
    let spared = |a: HostId, b: HostId| {
        !(a == host && harmed.contains(&b) || b == host && harmed.contains(&a))
    };
    if let Some(pair) = world.tally().renegotiated(&before, spared) {
        let text = "SAs of a pair that was right were negotiated again";
        return Err(world.fault(What::Touched, pair, text));
    }
    Ok(())
}
