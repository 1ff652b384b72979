//! Somebody changes what the data plane needs, under a running daemon.

use std::time::Duration;

use linux::route::{Rtnl, Rule};
use linux::userspace::{INTERFACE, RULE_PRIORITY, TABLE};
use linux::xfrm::{Action, Policy, Xfrm};

use super::Scenario;
use crate::lab::stage::{ALL_UP, AllSas, Stage, Stopped, calm};
use crate::lab::streams::Pair;

/// `drift`
pub struct Drift;

/// Put right within this.
const RIGHT: Duration = Duration::from_secs(3);
/// Beyond that the scenario does not wait for it.
const LONGEST: Duration = Duration::from_secs(30);
/// The host whose data plane is changed.
const HOST: usize = 0;

/// A change, and whether SAs are lost by it.
type Change = (&'static str, fn(&Stage<'_>) -> Result<(), Stopped>, bool);

impl Scenario for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn about(&self) -> &'static str {
        "what the data plane needs in the kernel is flushed or altered under a running daemon"
    }

    fn required(&self) -> &'static str {
        "put right <= 3 s; what was right is left alone"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        stage.start_all(0..stage.len())?;
        let pairs = stage.all_pairs();
        stage.talk(pairs.clone())?;
        let changes: &[Change] = if stage.kernel() {
            &[
                ("the SAD is flushed", flush_sas, true),
                ("the SPD is flushed", flush_policies, false),
                ("a policy is opened (protect becomes pass)", open_policy, false),
                ("a policy is closed (pass becomes drop)", close_policy, false),
                ("SAD and SPD are flushed", flush_both, true),
            ]
        } else {
            &[
                ("the routes to the device are flushed", flush_routes, false),
                ("the rules are deleted", delete_rules, false),
                ("routes and rules are deleted", delete_both, false),
                ("the device is switched off", device_off, false),
                ("the kernel's policies are flushed", flush_policies, false),
            ]
        };
        for (what, change, sas_lost) in changes {
            let before = stage.must(ALL_UP, "settled pairs", |stage| {
                let all = stage.all_sas();
                calm(&all, &pairs).then_some(all)
            })?;
            once(stage, what, *change, *sas_lost, &before)?;
        }
        Ok(())
    }
}

fn once(
    stage: &mut Stage<'_>,
    what: &str,
    change: fn(&Stage<'_>) -> Result<(), Stopped>,
    sas_lost: bool,
    before: &AllSas,
) -> Result<(), Stopped> {
    let name = stage.name(HOST).to_owned();
    stage.step(format!("{name}: {what}"));
    let (wanted, wire, from) = (State::of(stage)?, stage.wire(), stage.now());
    change(stage)?;
    let changed = stage.now();
    if !sas_lost {
        let different = State::of(stage)? != wanted;
        let right = stage.until(LONGEST, |stage| {
            (State::of(stage).ok()? == wanted).then(|| stage.now() - changed)
        })?;
        stage.within(format!("{what}: as it was again"), right, RIGHT);
        if !different {
            stage.step("  (it was put right before it could be looked at)");
        }
    }
    let of_host = |(a, b): Pair| a == HOST || b == HOST;
    let back = stage.until_back(changed, LONGEST, of_host)?;
    stage.within(format!("{what}: every pair of {name} talks"), back, RIGHT);
    let late = changed + RIGHT;
    stage.wait((late + Duration::from_secs(1)).saturating_sub(stage.now()))?;
    stage.no_loss(&format!("{what}: 3 s later"), late, |_| true)?;
    stage.no_loss(&format!("{what}: other pairs"), from, move |pair| !of_host(pair))?;
    let after = stage.all_sas();
    let kept = before.iter().filter(|(pair, _)| !sas_lost || !of_host(**pair));
    let differ = kept.filter(|(pair, sas)| after.get(pair) != Some(sas)).count();
    stage.exactly(format!("{what}: SAs replaced that were right"), differ as u64, 0);
    if sas_lost {
        let wanted = State::of(stage)?;
        stage.exactly(format!("{what}: policies"), wanted.policies.len().min(1) as u64, 1);
    }
    let leaked = stage.wire().since(&wire).clear;
    if leaked > 0 {
        stage.step(format!("  {leaked} packets passed in the clear meanwhile"));
    }
    Ok(())
}

/// What is in the kernel of the host whose data plane is changed.
#[derive(PartialEq)]
struct State {
    policies: Vec<String>,
    routes: Vec<String>,
    rules: Vec<String>,
    device: Option<(u32, bool)>,
}

impl State {
    fn of(stage: &Stage<'_>) -> Result<Self, Stopped> {
        let kernel = stage.kernel();
        stage.netns(HOST)?.run(|| {
            let policies = Xfrm::open().and_then(|mut xfrm| xfrm.policies()).unwrap_or_default();
            let mut state = Self {
                policies: sorted(&policies),
                routes: Vec::new(),
                rules: Vec::new(),
                device: None,
            };
            if !kernel {
                let mut rtnl = Rtnl::open().map_err(text)?;
                state.routes = sorted(&rtnl.routes(Some(TABLE)).map_err(text)?);
                state.rules = sorted(&ours(&mut rtnl)?);
                state.device = rtnl.link(INTERFACE).ok().map(|link| (link.mtu, link.is_up()));
            }
            Ok(state)
        })
    }
}

fn sorted<T: std::fmt::Debug>(all: &[T]) -> Vec<String> {
    let mut all: Vec<_> = all.iter().map(|one| format!("{one:?}")).collect();
    all.sort();
    all
}

fn text(error: impl std::fmt::Display) -> Stopped {
    Stopped::Failed(error.to_string())
}

fn ours(rtnl: &mut Rtnl) -> Result<Vec<Rule>, Stopped> {
    let rules = rtnl.rules().map_err(text)?;
    Ok(rules.into_iter().filter(|rule| rule.priority == RULE_PRIORITY).collect())
}

fn in_xfrm(
    stage: &Stage<'_>,
    act: impl FnOnce(&mut Xfrm) -> Result<(), linux::xfrm::Error> + Send,
) -> Result<(), Stopped> {
    stage.netns(HOST)?.run(|| act(&mut Xfrm::open()?)).map_err(text)
}

fn flush_sas(stage: &Stage<'_>) -> Result<(), Stopped> {
    in_xfrm(stage, Xfrm::flush_sas)
}

fn flush_policies(stage: &Stage<'_>) -> Result<(), Stopped> {
    match in_xfrm(stage, Xfrm::flush_policies) {
        // A kernel without XFRM has none.
        Err(Stopped::Failed(text)) if text.contains("no XFRM") => Ok(()),
        other => other,
    }
}

fn flush_both(stage: &Stage<'_>) -> Result<(), Stopped> {
    flush_sas(stage)?;
    flush_policies(stage)
}

fn open_policy(stage: &Stage<'_>) -> Result<(), Stopped> {
    in_xfrm(stage, |xfrm| {
        let protects = |policy: &&Policy| !policy.templates.is_empty();
        let Some(policy) = xfrm.policies()?.iter().find(protects).cloned() else { return Ok(()) };
        xfrm.put_policy(&Policy { templates: Vec::new(), ..policy })
    })
}

fn close_policy(stage: &Stage<'_>) -> Result<(), Stopped> {
    in_xfrm(stage, |xfrm| {
        let passes =
            |policy: &&Policy| policy.templates.is_empty() && policy.action == Action::Allow;
        let Some(policy) = xfrm.policies()?.iter().find(passes).cloned() else { return Ok(()) };
        xfrm.put_policy(&Policy { action: Action::Block, ..policy })
    })
}

fn in_routes(
    stage: &Stage<'_>,
    act: impl FnOnce(&mut Rtnl) -> Result<(), Stopped> + Send,
) -> Result<(), Stopped> {
    stage.netns(HOST)?.run(|| act(&mut Rtnl::open().map_err(text)?))
}

fn flush_routes(stage: &Stage<'_>) -> Result<(), Stopped> {
    in_routes(stage, |rtnl| {
        for route in rtnl.routes(Some(TABLE)).map_err(text)? {
            rtnl.delete_route(&route).map_err(text)?;
        }
        Ok(())
    })
}

fn delete_rules(stage: &Stage<'_>) -> Result<(), Stopped> {
    in_routes(stage, |rtnl| {
        for rule in ours(rtnl)? {
            rtnl.delete_rule(&rule).map_err(text)?;
        }
        Ok(())
    })
}

fn delete_both(stage: &Stage<'_>) -> Result<(), Stopped> {
    delete_rules(stage)?;
    flush_routes(stage)
}

fn device_off(stage: &Stage<'_>) -> Result<(), Stopped> {
    in_routes(stage, |rtnl| rtnl.set_up(INTERFACE, false).map_err(text))
}
