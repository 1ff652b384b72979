//! Two meshes side by side in one network, of different names.

use std::time::Duration;

use super::{Scenario, Setup};
use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::violation::What;
use crate::world::{Stopped, World};

/// `clusters`
pub struct Clusters;

impl Scenario for Clusters {
    fn name(&self) -> &'static str {
        "clusters"
    }

    fn about(&self) -> &'static str {
        "two meshes of different names in one network; no SA between them, though all talk to all"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        Setup::any(dice).in_good_weather()
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        let (hosts, half) = (world.fleet().len(), world.fleet().len().div_ceil(2));
        let apart = move |a: usize, b: usize| (a < half) != (b < half);
        for host in 0..hosts {
            let name = if host < half { "east" } else { "west" };
            let recipe = Recipe { cluster: Some(name), ..world.setup().recipe.clone() };
            let given = world.fleet().cook(&recipe);
            world.fleet_mut().give(host, given);
        }
        let across: Vec<_> = world.pairs().filter(|(a, b)| apart(*a, *b)).collect();
        world.expect_all_but(apart);
        world.start_all(world.setup().skew);
        world.talk(Some(Duration::from_millis(500)));
        world.until_all_up(Duration::from_secs(15))?;
        world.rest(Duration::from_secs(4));
        for _ in 0..30 {
            world.run_for(Duration::from_secs(2))?;
            if let Some(pair) = across.iter().find(|(a, b)| !world.has_no_sa(*a, *b)) {
                return Err(world.fault(What::NotIsolated, *pair, "an SA between two clusters"));
            }
        }
        for (host, peer) in across.into_iter().take(1) {
            let reason = world.status(host, peer).and_then(|s| s.last_error).unwrap_or_default();
            if !reason.contains("cluster") {
                let text = format!("the status does not say why there is no tunnel: `{reason}`");
                return Err(world.fault(What::WrongWord, (host, peer), text));
            }
        }
        world.until_settled(Duration::from_secs(30))?;
        world.finish()
    }
}
