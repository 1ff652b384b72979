//! Every order of events: a depth-first walk over all choices of what happens next.
//!
//! What can happen: any message under way arrives, any job is done, a command is given; and, so often as a
//! plan allows, a message is lost, comes twice, or stays under way beyond the next timer. Where nothing is
//! under way, the next timer fires. Events at different hosts do not bear on each other; of orders
//! that differ in nothing else one is walked (sleep sets). Each walk begins anew: hosts are no values to copy.

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

/// A choice to come back to.
struct Fork {
    choices: Vec<Choice>,
    at: usize,
    asleep: Vec<Choice>,
}

/// Timers further away than this are nobody's answer to what happened.
const SOON: Duration = Duration::from_secs(12);

/// Walks all orders; gives how many there are.
pub fn explore(plan: &Plan) -> usize {
    let mut path: Vec<Fork> = Vec::new();
    let mut walks = 0;
    loop {
        told_if_it_fails(|quiet| all(plan, &mut path, quiet));
        walks += 1;
        while let Some(fork) = path.last_mut() {
            fork.at += 1;
            if fork.at < fork.choices.len() {
                break;
            }
            path.pop();
        }
        if path.is_empty() {
            return walks;
        }
    }
}

/// Walks so many orders of all, by chance.
pub fn sample(plan: &Plan, walks: u32) {
    for n in 0..walks {
        told_if_it_fails(|quiet| {
            let mut seed = [7; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            let mut rng = Rng::new(seed);
            walk(plan, quiet, &mut |choices| {
                // A fault in some step of a walk, not in the first few of all.
                let calm = choices.iter().filter(|c| !c.is_fault()).count();
                let faults = rng.below(12) == 0 && calm < choices.len();
                let of = if faults || calm == 0 { choices.len() } else { calm };
                let quiet = |c: &&Choice| of == choices.len() || !c.is_fault();
                choices.iter().filter(quiet).nth(rng.below(of as u64) as usize).copied()
            });
        });
    }
}

/// Nobody reads the story of a walk that succeeds: one that fails is walked once more.
fn told_if_it_fails(mut walk: impl FnMut(bool)) {
    if catch_unwind(AssertUnwindSafe(|| walk(true))).is_err() {
        walk(false);
    }
}

/// Goes to the end of the path, and beyond it always the first way.
fn all(plan: &Plan, path: &mut Vec<Fork>, quiet: bool) {
    let mut depth = 0;
    let mut asleep = Vec::new();
    walk(plan, quiet, &mut |all| {
        if depth == path.len() {
            let choices: Vec<_> = all.iter().filter(|c| !asleep.contains(*c)).copied().collect();
            if choices.is_empty() {
                // Another walk was here.
                return None;
            }
            path.push(Fork { choices, at: 0, asleep: std::mem::take(&mut asleep) });
        }
        let fork = &path[depth];
        let choice = fork.choices[fork.at];
        let seen = fork.asleep.iter().chain(&fork.choices[..fork.at]);
        asleep = seen.filter(|other| apart(**other, choice)).copied().collect();
        depth += 1;
        Some(choice)
    });
}

/// One order, as `choose` has it.
fn walk(plan: &Plan, quiet: bool, choose: &mut dyn FnMut(&[Choice]) -> Option<Choice>) {
    let mut world = (plan.start)();
    world.quiet = quiet;
    let mut open = [0, 1].map(|n| plan.commands[n].is_some());
    let mut faults = plan.faults;
    loop {
        if !plan.slow_jobs && do_job(&mut world) {
            continue;
        }
        let all = choices(&world, open, faults);
        if all.is_empty() {
            match world.next_timer().filter(|(_, wait)| *wait <= SOON) {
                Some(_) => world.leap(),
                None => break,
            }
            continue;
        }
        let Some(choice) = choose(&all) else { return };
        world.tell(|w| format!("{} {choice:?}", w.now));
        faults -= usize::from(choice.is_fault());
        match choice {
            Choice::Command(n) => {
                open[n] = false;
                if let Some(command) = plan.commands[n] {
                    command(&mut world, n);
                }
            }
            Choice::Serve(_, name, fate) => world.serve(name, fate),
            Choice::Leap => world.leap(),
        }
    }
    (plan.end)(&mut world);
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
