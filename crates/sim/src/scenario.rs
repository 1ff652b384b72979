//! What happens in a world: one file a scenario.
//!
//! A scenario chooses fleet, links and pace from the seed, then sets things going and lets time
//! pass. What must never happen is watched all the time; what must come about it asks for.

mod add_remove;
mod clusters;
mod dpd_storm;
mod drift;
mod flood;
mod halfling;
mod lossy;
mod mesh;
mod nat;
mod reboot;
mod rekey;
mod restart;
mod rollout;
mod rotate;
mod soak;
mod split;
mod stuck_peer;
mod thundering_herd;

use std::time::Duration;

use crate::dice::Dice;
use crate::fleet::Recipe;
use crate::host::Pace;
use crate::net::{HostId, Weather};
use crate::world::{Stopped, World};

/// What is done to all hosts, one after the other, is done within this.
const ALL_IN_TURN: Duration = Duration::from_secs(20);

/// Where hosts are harmed one at a time, the pairs of all others send this often in a large fleet.
const QUIET: Duration = Duration::from_secs(3);

/// A scenario.
pub trait Scenario: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What it shows, in one line.
    fn about(&self) -> &'static str;

    /// How many hosts it needs.
    fn least_hosts(&self) -> usize {
        2
    }

    /// Fleet, links and pace at the beginning.
    fn setup(&self, dice: &mut Dice) -> Setup;

    /// What happens.
    ///
    /// # Errors
    /// If something went wrong; the world knows what.
    fn play(&self, world: &mut World) -> Result<(), Stopped>;
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The manifest.
    pub recipe: Recipe,
    /// The links at the beginning.
    pub weather: Weather,
    /// How slowly the hosts work at the beginning.
    pub pace: Pace,
    /// Within which time all hosts start.
    pub skew: Duration,
    /// Who talks to whom.
    pub shape: Shape,
}

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// All to all.
    Mesh,
    /// The same, but in a fleet of more than 64: tunnels are built on demand, and each host wants those with its neighbours, and with
    /// two hosts that everybody wants.
    Fleet,
    /// All others to the first host, and it to them.
    Star,
}

/// A larger fleet of [`Shape::Fleet`] is no full mesh …
const FULL: usize = 64;
/// … but each host talks to so many on either side of it.
const NEIGHBOURS: usize = 2;

impl Shape {
    /// Whether two of so many hosts talk to each other.
    pub fn joins(self, hosts: usize, a: HostId, b: HostId) -> bool {
        let either = |id| a == id || b == id;
        let way = a.abs_diff(b);
        let near = way.min(hosts - way) <= NEIGHBOURS;
        match self {
            Self::Mesh => true,
            Self::Fleet => hosts <= FULL || near || either(0) || either(hosts - 1),
            Self::Star => either(0),
        }
    }

    /// Whether some of so many hosts never talk to each other.
    pub fn is_sparse(self, hosts: usize) -> bool {
        self == Self::Fleet && hosts > FULL
    }
}

/// A host by chance; in a large fleet half the time one of those that everybody talks to.
fn anyone(world: &mut World) -> HostId {
    let hosts = world.fleet().len();
    if world.setup().shape.is_sparse(hosts) && world.dice().chance(500) {
        return world.dice().pick(&[0, hosts - 1]);
    }
    world.dice().below(hosts as u64) as usize
}

/// All scenarios.
pub fn all() -> &'static [&'static dyn Scenario] {
    &[
        &mesh::Mesh,
        &rekey::Rekey,
        &lossy::Lossy,
        &reboot::Reboot,
        &halfling::Halfling,
        &drift::Drift,
        &restart::Restart,
        &add_remove::AddRemove,
        &stuck_peer::StuckPeer,
        &dpd_storm::DpdStorm,
        &split::Split,
        &rollout::Rollout,
        &rotate::Leaf,
        &rotate::Ca,
        &rotate::Expired,
        &clusters::Clusters,
        &thundering_herd::ThunderingHerd,
        &flood::Flood,
        &nat::Nat,
        &soak::Soak,
    ]
}

/// All but the one that lasts a day.
pub fn short() -> impl Iterator<Item = &'static dyn Scenario> {
    all().iter().copied().filter(|scenario| scenario.name() != soak::Soak.name())
}

/// All pairs are up, and what was begun besides has come to its end.
fn come_to_rest(world: &mut World) -> Result<(), Stopped> {
    world.until_all_up(Duration::from_secs(15))?;
    world.rest(QUIET);
    world.run_for(Duration::from_secs(10))?;
    world.until_settled(Duration::from_secs(75))
}

/// How long a host is alone in what is done to one after the other: this long, if it is not to take minutes for all.
fn turn(world: &World, pause: Duration) -> Duration {
    pause.min(ALL_IN_TURN / world.fleet().len() as u32)
}

/// The scenario of a name.
pub fn find(name: &str) -> Option<&'static dyn Scenario> {
    all().iter().copied().find(|scenario| scenario.name() == name)
}

impl Pace {
    /// A host that has nothing else to do.
    pub const QUICK: Self =
        Self { job: Duration::from_millis(2), kernel: Duration::from_micros(200), one_core: false };

    /// Chosen by chance: public-key work takes up to half a second.
    pub fn any(dice: &mut Dice) -> Self {
        Self {
            job: Duration::from_millis(dice.pick(&[1, 5, 50, 500])),
            kernel: Duration::from_micros(dice.pick(&[0, 100, 2_000, 20_000])),
            one_core: false,
        }
    }
}

impl Setup {
    /// All of it chosen by chance.
    pub fn any(dice: &mut Dice) -> Self {
        Self {
            recipe: Recipe::any(dice),
            weather: Weather::any(dice),
            pace: Pace::any(dice),
            skew: Duration::from_millis(dice.pick(&[0, 10, 200, 2_000])),
            shape: Shape::Fleet,
        }
    }

    /// The same on links that lose nothing, in a data centre.
    pub fn in_good_weather(self) -> Self {
        Self { weather: Weather::CALM, pace: Pace::QUICK, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_fleet_is_no_full_mesh() {
        let partners = |shape: Shape, hosts, id| {
            (0..hosts).filter(|other| *other != id && shape.joins(hosts, id, *other)).count()
        };
        for (hosts, id, many) in
            [(64, 30, 63), (65, 30, 6), (200, 0, 199), (200, 199, 199), (200, 2, 5)]
        {
            assert_eq!(partners(Shape::Fleet, hosts, id), many, "host {id} of {hosts}");
        }
        let pairs: usize = (0..200).map(|id| partners(Shape::Fleet, 200, id)).sum();
        assert_eq!(pairs / 2, 790);
        assert_eq!([0, 7].map(|id| partners(Shape::Star, 200, id)), [199, 1]);
        assert_eq!(partners(Shape::Mesh, 200, 7), 199);
    }
}
