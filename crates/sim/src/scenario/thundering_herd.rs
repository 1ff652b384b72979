//! A switch returns, and everybody initiates at one host within a second.

use std::time::Duration;

use super::{Scenario, Setup, Shape};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::host::Pace;
use crate::net::{Match, Rule, Verdict, Weather};
use crate::violation::What;
use crate::world::{Stopped, World};

/// All are up within this, for each peer, with one core for public-key work …
const FOR_EACH: Duration = Duration::from_millis(15);
/// … and this for all of them.
const FOR_ALL: Duration = Duration::from_secs(5);
/// How long the switch is away.
const OUTAGE: Duration = Duration::from_secs(60);

/// `thundering-herd`
pub struct ThunderingHerd;

impl Scenario for ThunderingHerd {
    fn name(&self) -> &'static str {
        "thundering-herd"
    }

    fn about(&self) -> &'static str {
        "all peers initiate at one host within a second; no pair lost, tables bounded (try 1001 hosts)"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice);
        let recipe = Recipe { eager: false, dpd_delay: Duration::from_secs(10), ..setup.recipe };
        // An RSA signature, a verification, a key exchange: about a millisecond each.
        let pace = Pace { job: Duration::from_millis(2), one_core: true, ..Pace::QUICK };
        let skew = Duration::from_secs(1);
        Setup { recipe, weather: Weather::CALM, pace, skew, shape: Shape::Star }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        let peers = world.fleet().len() as u32 - 1;
        let within = FOR_ALL + FOR_EACH * peers;
        world.insist(false);
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_secs(1)));
        world.until_all_up(within)?;
        world.until_settled(Duration::from_secs(75))?;
        let before = world.census_of_host(0);
        let from = world.now();
        let of = Match { host: Some(0), ..Match::default() };
        world.add_rule(Rule { of, from, until: from + OUTAGE, verdict: Verdict::Drop });
        world.run_for(OUTAGE)?;
        world.until_all_up(within)?;
        let most = world.census_of_host(0);
        world.run_for(Duration::from_secs(60))?;
        world.until_settled(Duration::from_secs(75))?;
        for (table, size) in most {
            // Two handshakes of each pair at once, and what is left of those before.
            let bound = 8 * before.get(table).copied().unwrap_or(0) + 8 * peers as usize;
            if size > bound {
                let text = format!("{size} {table} where {peers} peers want one tunnel each");
                return Err(world.fault(What::Growth, (0, 1), text));
            }
        }
        world.insist(true);
        world.run_for(Duration::from_secs(5))?;
        world.finish()
    }
}
