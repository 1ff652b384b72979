//! New certificates, host by host; and certificates that have expired.

use std::time::Duration;

use mesh::{Command, Target};

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::{Proof, Recipe, Trust};
use crate::host::UNIX_BEGIN;
use crate::net::HostId;
use crate::violation::What;
use crate::world::{Stopped, World};

/// A tunnel that an operator restarts is there again within this.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// `rotate-leaf`
pub struct Leaf;

/// `rotate-ca`
pub struct Ca;

/// `expired`
pub struct Expired;

impl Scenario for Leaf {
    fn name(&self) -> &'static str {
        "rotate-leaf"
    }

    fn about(&self) -> &'static str {
        "a new certificate, host by host; nothing lost, and tunnels come up between old and new"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        certified(dice)
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        begin(world)?;
        phase(world, Trust { issuer: "toy CA", roots: vec!["toy CA"], until: u64::MAX - 1 })?;
        world.finish()
    }
}

impl Scenario for Ca {
    fn name(&self) -> &'static str {
        "rotate-ca"
    }

    fn about(&self) -> &'static str {
        "new CA appended, new leaf under it, old CA dropped, host by host; nothing lost in any phase"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        certified(dice)
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        begin(world)?;
        let (both, until) = (vec!["toy CA", "new CA"], u64::MAX);
        phase(world, Trust { issuer: "toy CA", roots: both.clone(), until })?;
        phase(world, Trust { issuer: "new CA", roots: both, until })?;
        phase(world, Trust { issuer: "new CA", roots: vec!["new CA"], until })?;
        world.finish()
    }
}

impl Scenario for Expired {
    fn name(&self) -> &'static str {
        "expired"
    }

    fn about(&self) -> &'static str {
        "all certificates end: tunnels live on, new ones are refused with the reason; renewed by `optional`"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = certified(dice);
        let trust = Trust { until: UNIX_BEGIN + 60, ..setup.recipe.trust.clone() };
        Setup { recipe: Recipe { trust, ..setup.recipe }, ..setup }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        let hosts = world.fleet().len();
        begin(world)?;
        world.run_for(Duration::from_secs(70))?;
        refused(world, 0, 1)?;
        // Everybody else's traffic goes on, rekeys included.
        world.expect_all_but(|a, b| (a, b) == (0, 1));
        world.insist(true);
        world.run_for(Duration::from_secs(20))?;
        let optional = Recipe { optional: true, ..world.setup().recipe.clone() };
        world.fleet_mut().allow_clear(true);
        hand_out(world, &optional)?;
        world.expect_all_but(|_, _| false);
        world.run_for(Duration::from_secs(3))?;
        let trust = Trust { until: u64::MAX, ..world.setup().recipe.trust.clone() };
        hand_out(world, &Recipe { trust: trust.clone(), ..optional })?;
        for host in 0..hosts.min(2) {
            let peer = Target::Address(world.fleet().address(1 - host));
            let _ = world.command(host, Command::Up(peer));
        }
        world.until_all_up(Duration::from_secs(75))?;
        let enforced = Recipe { trust, ..world.setup().recipe.clone() };
        hand_out(world, &enforced)?;
        world.fleet_mut().allow_clear(false);
        world.until_settled(Duration::from_secs(75))?;
        restart(world, 0, 1)?;
        world.until_settled(Duration::from_secs(75))?;
        world.finish()
    }
}

fn certified(dice: &mut Dice) -> Setup {
    let setup = Setup::any(dice).in_good_weather();
    let proof = dice.pick(&[Proof::SharedCertificate, Proof::OwnCertificate]);
    Setup { recipe: Recipe { proof, ..setup.recipe }, ..setup }
}

fn begin(world: &mut World) -> Result<(), Stopped> {
    world.start_all(world.setup().skew);
    world.talk(Some(Duration::from_millis(250)));
    world.until_all_up(Duration::from_secs(15))?;
    world.rest(super::QUIET);
    world.until_settled(Duration::from_secs(40))
}

/// Each host gets the new credentials; in the middle, and at the end, tunnels are built anew.
fn phase(world: &mut World, trust: Trust) -> Result<(), Stopped> {
    let hosts = world.fleet().len();
    let given = world.fleet().cook(&Recipe { trust, ..world.setup().recipe.clone() });
    for host in 0..hosts {
        world.fleet_mut().give(host, given.clone());
        world.focus([host]);
        world.reload(host);
        world.run_for(super::turn(world, Duration::from_millis(500)))?;
        if host == hosts / 2 {
            // An old one and a new one.
            restart(world, 0, hosts - 1)?;
            restart(world, hosts - 1, 0)?;
        }
    }
    restart(world, 0, 1)?;
    world.until_settled(Duration::from_secs(75))
}

fn hand_out(world: &mut World, recipe: &Recipe) -> Result<(), Stopped> {
    let given = world.fleet().cook(recipe);
    for host in 0..world.fleet().len() {
        world.fleet_mut().give(host, given.clone());
        world.focus([host]);
        world.reload(host);
        world.run_for(super::turn(world, Duration::from_millis(200)))?;
    }
    Ok(())
}

/// One pair's tunnel is taken down and built anew; the packets of the others must arrive meanwhile.
fn restart(world: &mut World, host: HostId, peer: HostId) -> Result<(), Stopped> {
    let pair = (host.min(peer), host.max(peer));
    world.expect_all_but(|a, b| (a, b) == pair);
    world.excuse(pair);
    world.focus([host, peer]);
    let target = Target::Address(world.fleet().address(peer));
    if let Err(error) = world.command(host, Command::Restart(target)) {
        return Err(world.fault(What::Disobeyed, (host, peer), error));
    }
    let old = world.installed(host, peer);
    let anew = |world: &World| world.installed(host, peer) > old && world.is_up(host, peer);
    if world.until_true(BACK_WITHIN, anew)?.is_none() {
        let said = world.status(host, peer).and_then(|s| s.last_error).unwrap_or_default();
        let text = format!("not built anew within {BACK_WITHIN:?}: {said}");
        return Err(world.fault(What::NotUp, (host, peer), text));
    }
    world.expect_all_but(|_, _| false);
    Ok(())
}

/// A tunnel that is to be built anew is refused, and the status says why.
fn refused(world: &mut World, host: HostId, peer: HostId) -> Result<(), Stopped> {
    world.expect_all_but(|a, b| (a, b) == (host, peer));
    world.excuse((host, peer));
    world.focus([host, peer]);
    let target = Target::Address(world.fleet().address(peer));
    let _ = world.command(host, Command::Restart(target));
    world.run_for(Duration::from_secs(5))?;
    let said = world.status(host, peer).and_then(|s| s.last_error).unwrap_or_default();
    let told = world.status(peer, host).and_then(|s| s.last_error).unwrap_or_default();
    if world.is_up(host, peer) {
        return Err(world.fault(
            What::WrongWord,
            (host, peer),
            "an expired certificate was accepted",
        ));
    }
    if !(said + &told).contains("expired") {
        let text = "the status does not say that a certificate has expired";
        return Err(world.fault(What::WrongWord, (host, peer), text));
    }
    Ok(())
}
