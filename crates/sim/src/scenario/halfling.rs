//! One of the two SAs of a pair is taken away behind the daemon's back, or the daemon itself forgot them.

use std::time::Duration;

use ipsec::change::Change;
use ipsec::sa::{Direction, SaKey};

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::net::HostId;
use crate::violation::What;
use crate::world::{Stopped, World};

/// Found and replaced within this.
const BACK_WITHIN: Duration = Duration::from_secs(3);
/// So often it happens.
const TIMES: usize = 8;

/// `halfling`
pub struct Halfling;

impl Scenario for Halfling {
    fn name(&self) -> &'static str {
        "halfling"
    }

    fn about(&self) -> &'static str {
        "one SA of a pair vanishes behind the daemon's back; replaced within 3 s, others untouched"
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
        for _ in 0..TIMES {
            harm(world)?;
        }
        world.mute(None);
        world.until_settled(Duration::from_secs(75))?;
        world.insist(true);
        world.run_for(Duration::from_secs(5))?;
        world.finish()
    }
}

fn harm(world: &mut World) -> Result<(), Stopped> {
    let host = super::anyone(world);
    let peers = world.partners(host);
    let peer = world.dice().pick(&peers);
    let direction = world.dice().pick(&[Direction::In, Direction::Out]);
    // Only one end sends, or both do.
    let silent = world.dice().pick(&[None, Some(host), Some(peer)]);
    world.mute(silent);
    world.focus([host, peer]);
    // What came of the last time has settled.
    world.run_for(Duration::from_secs(6))?;
    world.insist(false);
    let gone = world.sas(host, peer, direction);
    let before = world.tally();
    if world.dice().chance(300) {
        world.forget_children(host, peer);
    } else {
        world.meddle(host, gone.iter().map(|key| Change::RemoveSa(*key)).collect());
    }
    let replaced = |world: &World| healed(world, (host, peer), direction, &gone);
    if world.until_true(BACK_WITHIN, replaced)?.is_none() {
        let text = format!("half of the pair was gone, and is not replaced after {BACK_WITHIN:?}");
        return Err(world.fault(What::NotUp, (host, peer), text));
    }
    world.insist(true);
    world.run_for(Duration::from_secs(2))?;
    let others = |a: HostId, b: HostId| (a.min(b), a.max(b)) != (host.min(peer), host.max(peer));
    if let Some(pair) = world.tally().renegotiated(&before, others) {
        return Err(world.fault(What::Touched, pair, "another pair's SAs were negotiated again"));
    }
    Ok(())
}

fn healed(world: &World, (a, b): (HostId, HostId), direction: Direction, gone: &[SaKey]) -> bool {
    world.is_up(a, b) && !world.sas(a, b, direction).iter().any(|key| gone.contains(key))
}
