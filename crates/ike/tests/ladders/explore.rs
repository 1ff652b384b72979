//! Every order of events: a depth-first walk over all choices of what happens next.
//!
//! What can happen: any message under way arrives, any job is done, a command is given; and, so often as a
//! plan allows, a message is lost, comes twice, or stays under way beyond the next timer. Where nothing is
//! under way, the next timer fires. Events at different hosts do not bear on each other; of orders
//! that differ in nothing else one is walked (sleep sets). At each choice the world is copied, and gone back to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ike::rng::Rng;

use crate::world::{Fate, Name, Pending, World};

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Host n is given its command.
    Command(usize),
    /// To this host, what is named.
    Serve(usize, Name, Fate),
    /// The next timer fires though something is under way.
    Leap,
}

/// What a host is told to do.
pub type Command = fn(&mut World, usize);

/// What goes on.
pub struct Plan {
    /// The beginning.
    pub start: fn() -> World,
    /// What each host is told to do, at any time.
    pub commands: [Option<Command>; 2],
    /// Messages lost, doubled or late.
    pub faults: usize,
    /// Whether jobs take time; else they are done at once.
    pub slow_jobs: bool,
    /// What must hold in the end.
    pub end: fn(&mut World),
}

/// A world on its way, and what may still happen to it.
#[derive(Clone)]
struct Walk {
    world: World,
    /// Who was not given its command yet.
    open: [bool; 2],
    faults: usize,
    /// What was walked elsewhere, and makes no difference now.
    asleep: Vec<Choice>,
}

/// A choice to come back to.
struct Fork {
    /// The walk up to here, while there are other ways to go.
    before: Option<Walk>,
    asleep: Vec<Choice>,
    choices: Vec<Choice>,
    at: usize,
}

/// Timers further away than this are nobody's answer to what happened.
const SOON: Duration = Duration::from_secs(12);

/// Walks all orders; gives how many there are.
pub fn explore(plan: &Plan) -> usize {
    let mut path = Vec::new();
    let mut walks = 0;
    let mut next = Some(Walk::new(plan, true));
    while let Some(walk) = next {
        told_if_it_fails(plan, &mut path, |path| to_the_end(plan, walk, path));
        walks += 1;
        next = another(&mut path);
    }
    walks
}

/// Walks so many orders of all, by chance.
pub fn sample(plan: &Plan, walks: u32) {
    for n in 0..walks {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        told_if_it_fails(plan, &mut Vec::new(), |path| by_chance(plan, Rng::new(seed), path));
    }
}

/// Nobody reads the story of a walk that succeeds: one that fails is walked once more.
fn told_if_it_fails<P: Passed>(plan: &Plan, path: &mut P, walk: impl FnOnce(&mut P)) {
    if catch_unwind(AssertUnwindSafe(|| walk(path))).is_err() {
        let mut again = Walk::new(plan, false);
        for choice in path.passed() {
            again.choices(plan);
            again.take(plan, choice);
        }
        again.choices(plan);
        (plan.end)(&mut again.world);
        panic!("a walk failed that does not fail when it is walked again");
    }
}

/// What was chosen, from the beginning.
trait Passed {
    fn passed(&self) -> Vec<Choice>;
}

impl Passed for Vec<Fork> {
    fn passed(&self) -> Vec<Choice> {
        self.iter().map(|fork| fork.choices[fork.at]).collect()
    }
}

impl Passed for Vec<Choice> {
    fn passed(&self) -> Vec<Choice> {
        self.clone()
    }
}

/// Goes on, always the first way, and leaves a fork wherever there is a choice. `path` ends with the fork that `walk` comes from.
fn to_the_end(plan: &Plan, mut walk: Walk, path: &mut Vec<Fork>) {
    if let Some(fork) = path.last() {
        walk.take(plan, fork.choices[fork.at]);
        walk.asleep = fork.asleep();
    }
    loop {
        let all = walk.choices(plan);
        if all.is_empty() {
            return (plan.end)(&mut walk.world);
        }
        let choices: Vec<_> = all.into_iter().filter(|c| !walk.asleep.contains(c)).collect();
        let Some(first) = choices.first().copied() else {
            // Another walk was here.
            return;
        };
        let before = (choices.len() > 1).then(|| walk.clone());
        let fork = Fork { before, asleep: std::mem::take(&mut walk.asleep), choices, at: 0 };
        walk.asleep = fork.asleep();
        path.push(fork);
        walk.take(plan, first);
    }
}

/// The way not gone yet that branches off last.
fn another(path: &mut Vec<Fork>) -> Option<Walk> {
    while let Some(fork) = path.last_mut() {
        fork.at += 1;
        match fork.choices.len() - fork.at {
            0 => {}
            1 => return fork.before.take(),
            _ => return fork.before.clone(),
        }
        path.pop();
    }
    None
}

/// One order of all.
fn by_chance(plan: &Plan, mut rng: Rng, path: &mut Vec<Choice>) {
    let mut walk = Walk::new(plan, true);
    loop {
        let choices = walk.choices(plan);
        if choices.is_empty() {
            return (plan.end)(&mut walk.world);
        }
        // A fault in some step of a walk, not in the first few of all.
        let calm = choices.iter().filter(|c| !c.is_fault()).count();
        let faults = rng.below(12) == 0 && calm < choices.len();
        let of = if faults || calm == 0 { choices.len() } else { calm };
        let quiet = |c: &&Choice| of == choices.len() || !c.is_fault();
        let choice = choices.iter().filter(quiet).nth(rng.below(of as u64) as usize).copied();
        let choice = choice.expect("one of the choices");
        path.push(choice);
        walk.take(plan, choice);
    }
}

impl Fork {
    /// What needs no walk once the choice here is made.
    fn asleep(&self) -> Vec<Choice> {
        let choice = self.choices[self.at];
        let seen = self.asleep.iter().chain(&self.choices[..self.at]);
        seen.filter(|other| apart(**other, choice)).copied().collect()
    }
}

impl Walk {
    fn new(plan: &Plan, quiet: bool) -> Self {
        let mut world = (plan.start)();
        world.quiet = quiet;
        let open = [0, 1].map(|n| plan.commands[n].is_some());
        Self { world, open, faults: plan.faults, asleep: Vec::new() }
    }

    /// What can happen next; nothing at the end. What happens without a choice has happened.
    fn choices(&mut self, plan: &Plan) -> Vec<Choice> {
        loop {
            if !plan.slow_jobs && do_job(&mut self.world) {
                continue;
            }
            let all = choices(&self.world, self.open, self.faults);
            if !all.is_empty() {
                return all;
            }
            match self.world.next_timer().filter(|(_, wait)| *wait <= SOON) {
                Some(_) => self.world.leap(),
                None => return all,
            }
        }
    }

    fn take(&mut self, plan: &Plan, choice: Choice) {
        self.world.tell(|w| format!("{} {choice:?}", w.now));
        self.faults -= usize::from(choice.is_fault());
        match choice {
            Choice::Command(n) => {
                self.open[n] = false;
                if let Some(command) = plan.commands[n] {
                    command(&mut self.world, n);
                }
            }
            Choice::Serve(_, name, fate) => self.world.serve(name, fate),
            Choice::Leap => self.world.leap(),
        }
    }
}

impl Choice {
    fn is_fault(self) -> bool {
        match self {
            Self::Command(_) => false,
            Self::Serve(_, _, fate) => fate != Fate::Deliver,
            Self::Leap => true,
        }
    }
}

fn do_job(world: &mut World) -> bool {
    let job = world.pending().into_iter().find(|p| !p.datagram);
    job.map(|p| world.serve(p.name, Fate::Deliver)).is_some()
}

fn choices(world: &World, open: [bool; 2], faults: usize) -> Vec<Choice> {
    let pending = world.pending();
    let serve = |fate| move |p: &Pending| Choice::Serve(p.to, p.name, fate);
    let mut out: Vec<_> = pending.iter().map(serve(Fate::Deliver)).collect();
    out.extend([0, 1].into_iter().filter(|n| open[*n]).map(Choice::Command));
    if faults > 0 {
        let messages = || pending.iter().filter(|p| p.datagram && !p.name.copy);
        out.extend(messages().map(serve(Fate::Lose)));
        out.extend(messages().map(serve(Fate::Twice)));
        let soon = world.next_timer().is_some_and(|(_, wait)| wait <= SOON);
        out.extend((soon && messages().next().is_some()).then_some(Choice::Leap));
    }
    out
}

/// Whether it makes no difference which of two events comes first.
fn apart(a: Choice, b: Choice) -> bool {
    let place = |choice| match choice {
        Choice::Command(n) | Choice::Serve(n, ..) => Some(n),
        Choice::Leap => None,
    };
    // Two faults compete for the number of them that may be.
    !(a.is_fault() && b.is_fault()) && place(a).zip(place(b)).is_some_and(|(a, b)| a != b)
}
