//! A cleartext fleet turns IPsec on host by host, enforces it, and goes back.

use std::time::Duration;

use serde_json::{Value, json};

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::stage::{ALL_UP, Stage, Stopped};

/// `rollout`
pub struct Rollout;

const FIRST: usize = 0;
/// Nothing has passed in the clear for so long: enough for a rehearsal.
const WITHIN_S: u8 = 3;
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
        stage.start(FIRST)?;
        stage.wait(PAUSE)?;
        let early = ask(stage)?;
        let missing = early["pairs"].as_array().map_or(0, |pairs| {
            let clear = |pair: &&Value| pair["clear_in_s"].is_u64() && pair["clear_out_s"].is_u64();
            pairs.iter().filter(clear).count()
        });
        let others = stage.len() as u64 - 1;
        stage.exactly(
            "the first alone: pairs that `plan --enforce` sees in the clear",
            missing as u64,
            others,
        );
        let named = stage.name(FIRST).to_owned();
        stage.step(format!("  {named}"));
        for host in FIRST + 1..stage.len() {
            stage.step(format!("  {}", stage.name(host)));
            stage.start(host)?;
            stage.wait(PAUSE)?;
        }
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

        let patience = Duration::from_secs(10 * u64::from(WITHIN_S));
        let ready = stage.until(patience, |stage| {
            ask(stage).ok().filter(|answer| answer["ready"] == true).map(drop)
        })?;
        stage.exactly("turned on: `plan --enforce` says so", ready.map_or(0, |()| 1), 1);

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

/// What the first host's daemon says of its readiness.
fn ask(stage: &Stage<'_>) -> Result<Value, Stopped> {
    let args = ["plan", "--enforce", "--seconds", &WITHIN_S.to_string(), "--json"];
    let asked = stage.warren(FIRST, &args)?;
    let answer: Value = serde_json::from_slice(&asked.stdout)
        .map_err(|_| String::from_utf8_lossy(&asked.stderr).into_owned())?;
    let says = answer["ready"] == true;
    if says != asked.status.success() {
        return Err(Stopped::Failed(format!("{} and `ready` {says}", asked.status)));
    }
    Ok(answer)
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
