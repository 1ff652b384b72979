//! Any command, at any time, on any host: it is obeyed at once, and nobody else suffers.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::status::State;
use mesh::{Command, Target};
use sim::dice::Dice;
use sim::scenario::Setup;
use sim::world::Stopped;
use sim::{Options, Scenario, What, World};

/// Between these two nobody commands anything.
const SPARED: (usize, usize) = (0, 1);
/// A command each half second, on average.
const COMMANDS: usize = 120;

/// Commands at random.
struct Commands {
    lossy: bool,
}

impl Scenario for Commands {
    fn name(&self) -> &'static str {
        "commands"
    }

    fn about(&self) -> &'static str {
        "operators command at random"
    }

    fn setup(&self, dice: &mut Dice) -> Setup {
        let setup = Setup::any(dice);
        if self.lossy { setup } else { setup.in_good_weather() }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.expect_all_but(|a, b| (a, b) != SPARED && (b, a) != SPARED);
        world.insist(!self.lossy);
        // From the first instant on: tunnels are half-up when they are commanded.
        world.start_all(Duration::ZERO);
        world.talk(Some(Duration::from_millis(300)));
        let mut down = BTreeMap::new();
        for _ in 0..COMMANDS {
            let pause = world.dice().between(Duration::ZERO, Duration::from_secs(1));
            world.run_for(pause)?;
            command(world, &mut down)?;
            for (&(host, peer), sent) in &down {
                check_down(world, host, peer, *sent)?;
            }
        }
        self.make_good(world)
    }
}

impl Commands {
    fn make_good(&self, world: &mut World) -> Result<(), Stopped> {
        let hosts = world.fleet().len();
        world.calm();
        for host in 0..hosts {
            for peer in (0..hosts).filter(|peer| *peer != host) {
                let target = Target::Address(world.fleet().address(peer));
                world.command(host, Command::Up(target)).expect("`up` is never refused");
            }
        }
        world.expect_all_but(|_, _| false);
        world.insist(false);
        world.until_all_up(Duration::from_secs(45))?;
        world.until_settled(Duration::from_secs(90))?;
        world.insist(true);
        world.run_for(Duration::from_secs(5))?;
        world.finish()
    }
}

/// One command; what is down, and how many messages of handshakes were sent by then.
fn command(world: &mut World, down: &mut BTreeMap<(usize, usize), u64>) -> Result<(), Stopped> {
    let hosts = world.fleet().len() as u64;
    let host = world.dice().below(hosts) as usize;
    let peer = (host + 1 + world.dice().below(hosts - 1) as usize) % hosts as usize;
    if (host.min(peer), host.max(peer)) == SPARED {
        return Ok(());
    }
    let target = Target::Address(world.fleet().address(peer));
    match world.dice().below(5) {
        0 | 1 => {
            world.command(host, Command::Down(target)).expect("`down` is never refused");
            down.entry((host, peer)).or_insert(world.handshake_messages(host, peer));
        }
        2 => {
            world.command(host, Command::Up(target)).expect("`up` is never refused");
            down.remove(&(host, peer));
        }
        3 => {
            world.command(host, Command::Restart(target)).expect("`restart` is never refused");
            down.remove(&(host, peer));
        }
        _ => {
            // Refused where there is nothing to rekey, and then nothing happens.
            let _ = world.command(host, Command::Rekey(target));
        }
    }
    Ok(())
}

fn check_down(world: &mut World, host: usize, peer: usize, sent: u64) -> Result<(), Stopped> {
    let status = world.status(host, peer);
    if !status.is_some_and(|s| s.state == State::Down && s.ike_sas.is_empty()) {
        return Err(world.fault(What::Disobeyed, (host, peer), "`down`, and there is a tunnel"));
    }
    // What was on its way to its end may still be answered; nothing is begun.
    if world.handshake_messages(host, peer) > sent + 2 {
        return Err(world.fault(What::Disobeyed, (host, peer), "`down`, and it goes on trying"));
    }
    Ok(())
}

fn play(scenario: &'static Commands, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let report = sim::run(Options { scenario, hosts: 5, seed, duration: None });
        let ladder = report.ladder.as_deref().unwrap_or_default();
        assert!(report.ok, "seed {seed}: {:#?}\n{ladder}", report.violations);
    }
}

#[test]
fn commands_at_random_in_good_weather() {
    play(&Commands { lossy: false }, 0..12);
}

#[test]
fn commands_at_random_on_bad_links() {
    play(&Commands { lossy: true }, 0..12);
}
