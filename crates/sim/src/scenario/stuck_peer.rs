//! One peer never accepts a proposal, another answers IKE_SA_INIT and is silent then, a third has the
//! wrong CA. Whoever has to do with them must not suffer, and must be told.

use std::time::Duration;

use mesh::status::State;
use mesh::{Command, Target};

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::{Proof, Recipe, Trust};
use crate::net::{HostId, Match, Rule, Verdict};
use crate::packet::Class;
use crate::violation::What;
use crate::world::{Stopped, World};

/// Longest wait between two attempts: a minute, and a fifth more.
const LONGEST_WAIT: Duration = Duration::from_secs(72);
/// Messages of handshakes to one stuck peer within ten minutes of trying, at most: an attempt sends
/// up to 16 times.
const MOST_MESSAGES: u64 = 16 * 24;

/// `stuck-peer`
pub struct StuckPeer;

impl Scenario for StuckPeer {
    fn name(&self) -> &'static str {
        "stuck-peer"
    }

    fn about(&self) -> &'static str {
        "no proposal, silence after INIT, a wrong CA: others untouched, reasons told, `down` and `up` obeyed"
    }

    fn least_hosts(&self) -> usize {
        5
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice).in_good_weather();
        let proof = dice.pick(&[Proof::SharedCertificate, Proof::OwnCertificate]);
        Setup { recipe: Recipe { proof, ..setup.recipe }, ..setup }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        let hosts = world.fleet().len();
        let [refuser, silent, alien] = [hosts - 3, hosts - 2, hosts - 1];
        let sound = hosts - 3;
        spoil(world, refuser, alien);
        world.expect_all_but(|a, _| a >= sound);
        let (from, until) = (world.now(), world.now() + Duration::from_secs(1_000_000));
        let of = Match { host: Some(silent), class: Some(Class::Ike), ..Match::default() };
        world.add_rule(Rule { of, from, until, verdict: Verdict::InitAlone });
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_millis(500)));
        world.mute(sound..hosts);
        super::come_to_rest(world)?;
        let before = world.tally();
        world.focus(sound..hosts);
        world.rest(Duration::from_secs(10));
        world.talk(Some(Duration::from_secs(2)));
        world.run_for(Duration::from_secs(600))?;
        if let Some(pair) = world.tally().renegotiated(&before, |a, b| a < sound && b < sound) {
            return Err(world.fault(What::Touched, pair, "a pair of sound hosts was touched"));
        }
        reasons(world, refuser, "proposal")?;
        reasons(world, silent, "IKE_AUTH")?;
        reasons(world, alien, "authentication")?;
        for peer in sound..hosts {
            let sent = world.handshake_messages(0, peer);
            if sent > MOST_MESSAGES {
                let text =
                    format!("{sent} messages of handshakes to a peer that will not have them");
                return Err(world.fault(What::Storm, (0, peer), text));
            }
            obeys(world, 0, peer)?;
        }
        world.finish()
    }
}

fn spoil(world: &mut World, refuser: HostId, alien: HostId) {
    let other = ("aes256-sha512-ecp521", "aes256-sha512");
    let recipe = Recipe { suites: other, ..world.setup().recipe.clone() };
    let given = world.fleet().cook(&recipe);
    world.fleet_mut().give(refuser, given);
    let trust = Trust { issuer: "their CA", roots: vec!["their CA"], until: u64::MAX };
    let recipe = Recipe { trust, ..world.setup().recipe.clone() };
    let given = world.fleet().cook(&recipe);
    world.fleet_mut().give(alien, given);
}

fn reasons(world: &mut World, peer: HostId, word: &str) -> Result<(), Stopped> {
    let said = world.status(0, peer).and_then(|status| status.last_error).unwrap_or_default();
    if said.contains(word) {
        return Ok(());
    }
    let text = format!("the status names not the reason (`{word}`): `{said}`");
    Err(world.fault(What::WrongWord, (0, peer), text))
}

/// `down` ends the attempts at once, `up` begins them again.
fn obeys(world: &mut World, host: HostId, peer: HostId) -> Result<(), Stopped> {
    let target = Target::Address(world.fleet().address(peer));
    let fail =
        |world: &mut World, text: String| Err(world.fault(What::Disobeyed, (host, peer), text));
    if let Err(error) = world.command(host, Command::Down(target.clone())) {
        return fail(world, error);
    }
    let status = world.status(host, peer);
    let gone = status.is_some_and(|s| s.state == State::Down && s.ike_sas.is_empty());
    if !gone {
        return fail(world, "`down` leaves a half-up tunnel".into());
    }
    let before = world.handshake_messages(host, peer);
    world.run_for(2 * LONGEST_WAIT)?;
    if world.handshake_messages(host, peer) != before {
        return fail(world, "it goes on trying after `down`".into());
    }
    let _ = world.command(host, Command::Up(target));
    world.run_for(Duration::from_secs(2))?;
    if world.handshake_messages(host, peer) == before {
        return fail(world, "`up` begins nothing".into());
    }
    Ok(())
}
