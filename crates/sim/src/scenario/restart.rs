//! The daemon is stopped, killed, replaced; its data plane lives on, or dies with it.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::net::HostId;
use crate::violation::What;
use crate::world::{Stopped, World};

/// Everything is under control again within this.
const CONTROL_WITHIN: Duration = Duration::from_secs(1);
/// Where the SAs died with the process, every pair is back within this.
const BACK_WITHIN: Duration = Duration::from_secs(1);

/// `restart`
pub struct Restart;

impl Scenario for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn about(&self) -> &'static str {
        "daemons end and start again: no packet lost, no handshake; all back in 1 s if the SAs died too"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup::any(dice).in_good_weather()
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_millis(100)));
        super::come_to_rest(world)?;
        for _ in 0..4 {
            let host = super::anyone(world);
            world.focus([host]);
            gently(world, host)?;
            roughly(world, host)?;
        }
        world.finish()
    }
}

/// The data plane lives on: nothing is lost, nothing is negotiated.
fn gently(world: &mut World, host: HostId) -> Result<(), Stopped> {
    let before = world.tally();
    let away = world.dice().between(Duration::ZERO, Duration::from_secs(5));
    world.restart_daemon(host, away, true);
    world.run_for(away + CONTROL_WITHIN)?;
    for peer in world.partners(host) {
        let up = |s: &mesh::status::PeerStatus| !s.ike_sas.is_empty() && !s.child_sas.is_empty();
        if !world.status(host, peer).is_some_and(|s| up(&s)) {
            let text = "the new daemon does not know the tunnel that its host has";
            return Err(world.fault(What::WrongWord, (host, peer), text));
        }
    }
    // Whatever the next process took for broken would show by now.
    world.run_for(Duration::from_secs(6))?;
    if let Some(pair) = world.tally().shook_hands(&before) {
        let text = "a handshake was sent because a daemon was started";
        return Err(world.fault(What::Touched, pair, text));
    }
    world.until_settled(Duration::from_secs(20))
}

/// The SAs die with the process.
fn roughly(world: &mut World, host: HostId) -> Result<(), Stopped> {
    world.insist(false);
    let away = world.dice().between(Duration::ZERO, Duration::from_secs(5));
    world.restart_daemon(host, away, false);
    world.run_for(away)?;
    world.until_all_up(BACK_WITHIN)?;
    world.insist(true);
    world.until_settled(Duration::from_secs(75))
}
