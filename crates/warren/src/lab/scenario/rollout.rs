//! A cleartext fleet turns IPsec on host by host, enforces it, and goes back.

use std::time::Duration;

use serde_json::json;

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::stage::{ALL_UP, Stage, Stopped};

/// `rollout`
pub struct Rollout;

/// Between two hosts, and after the last one.
const PAUSE: Duration = Duration::from_millis(1500);

impl Scenario for Rollout {
    fn name(&self) -> &'static str {
        "rollout"
    }

    fn about(&self) -> &'static str {
        "a cleartext fleet turns on IPsec host by host (optional), enforces it, and goes back"
    }

    fn required(&self) -> &'static str {
        "0 packets lost in each phase; after enforcing 0 in the clear"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let optional = stage.recipe.clone().with("optional", json!(true));
        let enforced = stage.recipe.clone().with("optional", json!(false));
        let pairs = stage.all_pairs();
        let start = stage.talk(pairs.clone())?;
        let bare = stage.wire();
        stage.measure("in the clear before", Some(bare.clear as f64), Required::AtLeast(1.0));

        stage.step("turning on, host by host, with `optional: true`");
        stage.put_manifests(&optional)?;
        each(stage, |stage, host| stage.start(host).map(drop))?;
        let settled = stage.settle(&pairs, ALL_UP)?;
        let up = settled.as_ref().map_or(0, |_| pairs.len() / 2);
        stage.exactly(
            "turned on: pairs with one IKE SA and one child SA",
            up as u64,
            pairs.len() as u64 / 2,
        );
        stage.no_loss("turning on", start, |_| true)?;
        let (on, from) = (stage.wire(), stage.now());
        stage.wait(PAUSE)?;
        let seen = stage.wire().since(&on);
        let talking = seen.esp_between.len() as u64;
        stage.exactly("turned on: directions with ESP on the wire", talking, pairs.len() as u64);

        stage.step("enforcing, host by host");
        stage.put_manifests(&enforced)?;
        each(stage, |stage, host| stage.reload(host))?;
        stage.no_loss("enforcing", from, |_| true)?;
        let (wire, from) = (stage.wire(), stage.now());
        stage.wait(2 * PAUSE)?;
        let seen = stage.wire().since(&wire);
        stage.measure("enforced: ESP on the wire", Some(seen.esp as f64), Required::AtLeast(1.0));
        stage.no_clear("enforced", &wire);
        stage.no_loss("enforced", from, |_| true)?;

        stage.step("the way back: `optional: true`, host by host");
        let from = stage.now();
        stage.put_manifests(&optional)?;
        each(stage, |stage, host| stage.reload(host))?;
        stage.no_loss("back to optional", from, |_| true)?;

        stage.step("uninstalling (`stop --flush`), host by host");
        let from = stage.now();
        each(stage, |stage, host| stage.flush(host))?;
        stage.no_loss("uninstalling", from, |_| true)?;
        let wire = stage.wire();
        stage.wait(PAUSE)?;
        let seen = stage.wire().since(&wire);
        stage.exactly("uninstalled: ESP and IKE on the wire", seen.esp + seen.ike, 0);
        Ok(())
    }
}

fn each(
    stage: &mut Stage<'_>,
    mut act: impl FnMut(&mut Stage<'_>, usize) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    for host in 0..stage.len() {
        stage.step(format!("  {}", stage.name(host)));
        act(stage, host)?;
        stage.wait(PAUSE)?;
    }
    Ok(())
}
