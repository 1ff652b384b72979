//! Something is broken on purpose: the judge must see it, and show the pair.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipsec::Instant;
use ipsec::change::{Batch, Change};
use ipsec::sa::Direction;
use ipsec::spd::Action;
use mesh::{Command, Target};
use sim::dice::Dice;
use sim::fleet::Recipe;
use sim::host::Pace;
use sim::net::{Match, Rule, Verdict, Weather};
use sim::packet::Class;
use sim::scenario::{self, Setup, Shape};
use sim::world::Stopped;
use sim::{Options, RunReport, Scenario, What, World};

fn run(name: &str, tamper: impl FnOnce(&mut World)) -> RunReport {
    let scenario = scenario::find(name).expect("a scenario of this name");
    let report = sim::run_with(Options { scenario, hosts: 3, seed: 5, duration: None }, tamper);
    assert!(!report.ok, "nobody noticed");
    report
}

/// A fault between a host's daemon and its data plane, change by change.
fn planted(fault: fn(Change) -> Option<Change>) -> sim::host::Tamper {
    Arc::new(move |batch: Batch| Batch(batch.0.into_iter().filter_map(fault).collect()))
}

/// A data plane that takes no more of these after so many.
fn full_after(most: usize, of: fn(&Change) -> bool) -> sim::host::Tamper {
    let seen = AtomicUsize::new(0);
    Arc::new(move |batch: Batch| {
        let fits = |change: &Change| !of(change) || seen.fetch_add(1, Ordering::Relaxed) < most;
        Batch(batch.0.into_iter().filter(fits).collect())
    })
}

fn first(report: &RunReport) -> (What, Vec<String>) {
    let violation = &report.violations[0];
    (violation.what, violation.hosts.iter().map(ToString::to_string).collect())
}

fn ladder(report: &RunReport) -> &str {
    report.ladder.as_deref().expect("a failing pair has a ladder")
}

#[test]
fn a_policy_that_lets_traffic_out_in_the_clear_is_seen_on_the_link() {
    let report = run("mesh", |world| {
        world.tamper(
            1,
            planted(|change| match change {
                Change::PutPolicy(mut policy) => {
                    policy.action = Action::Bypass;
                    Some(Change::PutPolicy(policy))
                }
                other => Some(other),
            }),
        );
    });
    let (what, hosts) = first(&report);
    assert_eq!(what, What::Cleartext);
    assert_eq!((report.cleartext_packets > 0, hosts.len()), (true, 2));
    assert!(ladder(&report).contains("CLEARTEXT"), "{}", ladder(&report));
    assert!(hosts.iter().all(|host| ladder(&report).contains(host)), "{}", ladder(&report));
}

#[test]
fn a_host_that_forgets_inbound_sas_is_never_up() {
    let report = run("mesh", |world| {
        world.tamper(
            2,
            planted(|change| match change {
                Change::AddSa(sa) if sa.direction == Direction::In => None,
                other => Some(other),
            }),
        );
    });
    let (what, hosts) = first(&report);
    let bad = report.violations[0].hosts.iter().any(|host| host.to_string().ends_with('3'));
    assert!(matches!(what, What::NotUp | What::BlackHole | What::PacketLost), "{what:?}");
    assert!(bad, "the guilty host is among {hosts:?}");
    assert!(ladder(&report).contains("IKE_SA_INIT request 0 [ SA KE No"), "{}", ladder(&report));
    assert!(ladder(&report).contains("IKE_AUTH request 1 [ IDi"), "{}", ladder(&report));
}

/// An operator rekeys a tunnel again and again.
struct Rekeys;

impl Scenario for Rekeys {
    fn name(&self) -> &'static str {
        "rekeys-by-hand"
    }

    fn about(&self) -> &'static str {
        "an operator rekeys one tunnel again and again"
    }

    fn setup(&self, _: &mut Dice) -> Setup {
        let (recipe, weather, pace) = (Recipe::plain(), Weather::CALM, Pace::QUICK);
        Setup { recipe, weather, pace, skew: Duration::ZERO, shape: Shape::Mesh }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(Duration::ZERO);
        world.talk(Some(Duration::from_secs(1)));
        world.until_all_up(Duration::from_secs(10))?;
        let target = Target::Address(world.fleet().address(1));
        for _ in 0..4 {
            world.command(0, Command::Rekey(target.clone())).expect("the tunnel is up");
            world.run_for(Duration::from_secs(3))?;
        }
        world.until_settled(Duration::from_secs(20))
    }
}

#[test]
fn sas_that_are_never_taken_away_are_counted() {
    let options = Options { scenario: &Rekeys, hosts: 2, seed: 1, duration: None };
    let sound = sim::run(options);
    assert!(sound.ok, "{:?}\n{}", sound.violations, sound.ladder.unwrap_or_default());
    let report = sim::run_with(options, |world| {
        world.tamper(
            0,
            planted(|change| match change {
                Change::RemoveSa(_) => None,
                other => Some(other),
            }),
        );
    });
    assert!(!report.ok && report.child_sas_per_pair_max > 4, "{report:?}");
    assert!(matches!(first(&report).0, What::ChildSas | What::BlackHole), "{report:?}");
    assert!(ladder(&report).contains("CREATE_CHILD_SA request"), "{}", ladder(&report));
    assert!(ladder(&report).contains("N(REKEY_SA)"), "{}", ladder(&report));
}

#[test]
fn an_sa_without_a_lifetime_is_found() {
    let report = run("mesh", |world| {
        world.tamper(
            0,
            planted(|change| match change {
                Change::AddSa(mut sa) => {
                    Arc::make_mut(&mut Arc::make_mut(&mut sa).limits).hard_time = None;
                    Some(Change::AddSa(sa))
                }
                other => Some(other),
            }),
        );
    });
    assert_eq!(first(&report).0, What::OutlivedLifetime);
}

#[test]
fn a_pair_whose_messages_never_arrive_is_named() {
    let report = run("mesh", |world| {
        let of =
            Match { host: Some(0), peer: Some(2), class: Some(Class::Ike), ..Match::default() };
        let (from, until) = (Instant::ZERO, Instant::NEVER);
        world.add_rule(Rule { of, from, until, verdict: Verdict::Drop });
    });
    let (what, hosts) = first(&report);
    let pair: Vec<_> = [0, 2].map(|id| address(&report, id)).into();
    assert_eq!((what, hosts), (What::NotUp, pair));
    assert!(ladder(&report).contains("lost"), "{}", ladder(&report));
    assert!(!ladder(&report).contains("IKE_AUTH"), "{}", ladder(&report));
}

#[test]
fn every_second_packet_of_a_pair_lost_in_good_weather_is_no_fault_of_the_hosts() {
    let scenario = scenario::find("mesh").expect("a scenario of this name");
    let report = sim::run_with(Options { scenario, hosts: 3, seed: 5, duration: None }, |world| {
        let of = Match {
            host: Some(0),
            peer: Some(1),
            class: Some(Class::Esp),
            nth: 2,
            ..Match::default()
        };
        let (from, until) = (Instant::ZERO, Instant::ZERO + Duration::from_secs(3600));
        world.add_rule(Rule { of, from, until, verdict: Verdict::Drop });
    });
    assert!(report.ok, "{:?}", report.violations);
    assert!(report.packets_delivered < report.packets_sent);
}

fn address(report: &RunReport, id: usize) -> String {
    match report.recipe.ipv6 {
        true => format!("fd00:77::{}", id + 1),
        false => format!("10.0.0.{}", id + 1),
    }
}

#[test]
fn half_a_pair_that_nobody_replaces_is_seen() {
    let report = run("halfling", |world| {
        // Enough for the first tunnels.
        world.tamper(1, full_after(8, |change| matches!(change, Change::AddSa(_))));
    });
    let whats: Vec<_> = report.violations.iter().map(|violation| violation.what).collect();
    let expected = [What::NotUp, What::BlackHole, What::ChildSas, What::PacketLost];
    assert!(expected.contains(&whats[0]), "{whats:?}");
    assert!(!ladder(&report).is_empty());
}

#[test]
fn policies_that_nobody_puts_back_are_seen() {
    let tampered = |world: &mut World| {
        for host in 0..3 {
            let tunnels = AtomicUsize::new(0);
            let puts_back = move |change: &Change| match change {
                Change::AddSa(_) => {
                    tunnels.store(1, Ordering::Relaxed);
                    false
                }
                Change::PutPolicy(_) => tunnels.load(Ordering::Relaxed) > 0,
                _ => false,
            };
            let tamper = move |batch: Batch| {
                Batch(batch.0.into_iter().filter(|change| !puts_back(change)).collect())
            };
            world.tamper(host, Arc::new(tamper));
        }
    };
    let report = run("drift", tampered);
    assert_eq!(first(&report).0, What::DataPlane, "{:?}", report.violations);
}

/// Traffic in a large fleet; one SA goes, or none.
struct Crowd {
    harmed: Option<(usize, usize)>,
}

impl Scenario for Crowd {
    fn name(&self) -> &'static str {
        "crowd"
    }

    fn about(&self) -> &'static str {
        "more hosts than may all talk all the time"
    }

    fn setup(&self, _: &mut Dice) -> Setup {
        let (recipe, weather, pace) = (Recipe::plain(), Weather::CALM, Pace::QUICK);
        Setup { recipe, weather, pace, skew: Duration::ZERO, shape: Shape::Mesh }
    }

    fn play(&self, world: &mut World) -> Result<(), Stopped> {
        world.start_all(Duration::ZERO);
        world.focus([0]);
        world.talk(Some(Duration::from_millis(250)));
        world.until_all_up(Duration::from_secs(10))?;
        world.until_settled(Duration::from_secs(20))?;
        if let Some((host, peer)) = self.harmed {
            let gone = world.sas(host, peer, Direction::In).into_iter().map(Change::RemoveSa);
            world.meddle(host, gone.collect());
        }
        world.run_for(Duration::from_secs(4))?;
        world.finish()
    }
}

#[test]
fn in_a_large_fleet_most_pairs_talk_less_often() {
    let options = Options { scenario: &Crowd { harmed: None }, hosts: 40, seed: 1, duration: None };
    let sound = sim::run(options);
    assert!(sound.ok, "{:?}\n{}", sound.violations, sound.ladder.unwrap_or_default());
    // Of 780 pairs, the 39 of the first host four times a second, and the others twice.
    let (of_focus, others) = (39.0 * 2.0 * 4.0, 741.0 * 2.0 * 2.0);
    let rate = sound.packets_sent as f64 / sound.seconds;
    assert!((0.7..1.1).contains(&(rate / (of_focus + others))), "{rate} packets a second");
}

#[test]
fn a_packet_lost_by_any_pair_of_a_large_fleet_is_found() {
    let scenario = &Crowd { harmed: Some((37, 12)) };
    let report = sim::run(Options { scenario, hosts: 40, seed: 1, duration: None });
    let hosts = ["10.0.0.13", "10.0.0.38"].map(str::to_owned).into();
    assert_eq!(first(&report), (What::PacketLost, hosts));
}

#[test]
fn a_host_that_stays_in_the_clear_after_enforcing_is_seen() {
    let report = run("rollout", |world| {
        world.tamper(
            1,
            planted(|change| match change {
                Change::PutPolicy(mut policy) => {
                    policy.action = Action::Bypass;
                    Some(Change::PutPolicy(policy))
                }
                other => Some(other),
            }),
        );
    });
    let expected = [What::Cleartext, What::NotUp, What::BlackHole];
    assert!(expected.contains(&first(&report).0), "{:?}", report.violations);
}
