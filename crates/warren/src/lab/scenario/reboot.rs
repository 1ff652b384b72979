//! One host loses everything that it knew, and comes back.

use std::time::Duration;

use linux::route::Rtnl;
use linux::userspace::{RULE_PRIORITY, TABLE};
use linux::xfrm::Xfrm;

use super::Scenario;
use crate::lab::stage::{ALL_UP, Stage, Stopped, calm};
use crate::lab::streams::Pair;

/// `reboot`
pub struct Reboot;

/// Traffic flows in both directions within this after the host is back.
const BACK: Duration = Duration::from_secs(3);
/// Beyond that the scenario does not wait for it.
const LONGEST: Duration = Duration::from_secs(60);
/// How long it is away.
const AWAY: Duration = Duration::from_secs(2);
/// The host that reboots.
const HOST: usize = 0;

impl Scenario for Reboot {
    fn name(&self) -> &'static str {
        "reboot"
    }

    fn about(&self) -> &'static str {
        "a host loses all state (SAs, daemon, nothing persisted) and comes back"
    }

    fn required(&self) -> &'static str {
        "traffic both ways with every peer <= 3 s after it is back, also where only the others send"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        stage.start_all(0..stage.len())?;
        stage.talk(stage.all_pairs())?;
        once(stage, "all send", |_| false)?;
        once(stage, "only the others send to it", |(from, _)| from == HOST)?;
        once(stage, "only it sends to the others", |(_, to)| to == HOST)
    }
}

fn once(stage: &mut Stage<'_>, what: &str, silent: fn(Pair) -> bool) -> Result<(), Stopped> {
    stage.step(what);
    stage.mute(silent);
    let pairs = stage.all_pairs();
    if stage.settle(&pairs, ALL_UP)?.is_none() {
        stage.exactly(format!("{what}: pairs settled before: no, of 1"), 0, 1);
    }
    let (name, from, wire) = (stage.name(HOST).to_owned(), stage.now(), stage.wire());
    stage.step(format!("{name} goes down; nothing of its state is left"));
    stage.cut_off(HOST, true)?;
    stage.mute(|pair| pair.0 == HOST || silent(pair));
    stage.kill_everything(HOST)?;
    forget(stage)?;
    stage.wait(AWAY)?;
    stage.guard(HOST, true)?;
    stage.mute(silent);
    stage.step(format!("{name} is back: guard, network, daemon"));
    let back = stage.now();
    stage.cut_off(HOST, false)?;
    stage.start(HOST)?;
    let sending = |stage: &Stage<'_>, pair: Pair| !stage.is_muted(pair);
    let of_host: Vec<Pair> =
        pairs.iter().copied().filter(|(a, b)| *a == HOST || *b == HOST).collect();
    let heard: Vec<Pair> = of_host.into_iter().filter(|pair| sending(stage, *pair)).collect();
    let took = stage.until(LONGEST, |stage| stage.back(back, |pair| heard.contains(&pair)))?;
    stage.within(format!("{what}: traffic with every peer again"), took, BACK);
    // In the direction in which nobody sends, both ends must have the SA.
    let calm_after =
        stage.until(LONGEST, |stage| calm(&stage.all_sas(), &pairs).then(|| stage.now() - back))?;
    stage.within(
        format!("{what}: one tunnel per pair, the same at both ends"),
        calm_after,
        LONGEST,
    );
    let rest = |(a, b): Pair| a != HOST && b != HOST;
    stage.no_loss(&format!("{what}: pairs of others"), from, rest)?;
    let late = back + BACK;
    stage.wait((late + Duration::from_secs(1)).saturating_sub(stage.now()))?;
    stage.no_loss(&format!("{what}: 3 s after it is back"), late, |_| true)?;
    stage.no_clear(what, &wire);
    Ok(())
}

/// What a real reboot would leave: nothing.
fn forget(stage: &Stage<'_>) -> Result<(), Stopped> {
    let _ = std::fs::remove_dir_all(stage.state_dir(HOST));
    let netns = stage.netns(HOST)?;
    let text = |error: &dyn std::fmt::Display| Stopped::Failed(error.to_string());
    netns.run(|| {
        if let Ok(mut xfrm) = Xfrm::open() {
            xfrm.flush_sas().and_then(|()| xfrm.flush_policies()).map_err(|e| text(&e))?;
        }
        let mut rtnl = Rtnl::open().map_err(|e| text(&e))?;
        for rule in rtnl.rules().map_err(|e| text(&e))? {
            if rule.priority == RULE_PRIORITY {
                rtnl.delete_rule(&rule).map_err(|e| text(&e))?;
            }
        }
        for route in rtnl.routes(Some(TABLE)).map_err(|e| text(&e))? {
            rtnl.delete_route(&route).map_err(|e| text(&e))?;
        }
        Ok(())
    })
}
