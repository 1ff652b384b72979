//! New peers with which no tunnel will ever come about.

use std::time::Duration;

use linux::route::Rtnl;
use serde_json::{Value, json};

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::net::INTERFACE;
use crate::lab::stage::{ALL_UP, Stage, Stopped, calm};
use crate::lab::streams::Pair;
use crate::lab::write_credentials;

/// `stuck-peer`
pub struct StuckPeer;

/// Frames above this do not reach the silent one: IKE_SA_INIT does, IKE_AUTH with certificates does not.
const SILENT_MTU: u32 = 700;
/// The reason shows within this.
const REASON: Duration = Duration::from_secs(30);
/// No wait between two attempts is longer: 60 s and a fifth.
const LONGEST_WAIT: f64 = 72.0;
/// How long is looked at a peer that is down, and at the others.
const TIME: Duration = Duration::from_secs(6);
/// A peer that is wanted up is spoken to within this.
const STARTS: Duration = Duration::from_secs(5);

impl Scenario for StuckPeer {
    fn name(&self) -> &'static str {
        "stuck-peer"
    }

    fn about(&self) -> &'static str {
        "new peers: one refuses every proposal, one answers INIT and no more, one has the wrong CA"
    }

    fn required(&self) -> &'static str {
        "others untouched; back-off with a bound; status has the reason; down ends it, up starts it"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (5, 6, 20)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let good = stage.len() - 3;
        let [refuses, silent, foreign] = [good, good + 1, good + 2];
        let among = move |(a, b): Pair| a < good && b < good;
        let pairs: Vec<Pair> = stage.all_pairs().into_iter().filter(|p| among(*p)).collect();
        stage.start_all(0..good)?;
        stage.talk(pairs.clone())?;
        let before = stage.must(ALL_UP, "settled pairs", |stage| {
            let all = stage.all_sas();
            calm(&all, &pairs).then_some(all)
        })?;

        let from = stage.now();
        stage.step("three new hosts, with which nothing can come about");
        prepare(stage, refuses, silent, foreign)?;
        stage.start_all(good..stage.len())?;
        stage.more_streams((good..stage.len()).map(|bad| (0, bad)).collect());
        for (bad, what, words) in [
            (refuses, "refuses every proposal", &["NO_PROPOSAL_CHOSEN", "proposal"][..]),
            (silent, "answers INIT, then no more", &["no answer", "silent", "not answer"][..]),
            (foreign, "has the wrong CA", &["AUTHENTICATION_FAILED", "certificate", "CA"][..]),
        ] {
            one(stage, bad, what, words)?;
        }
        stage.no_loss("other pairs", from, among)?;
        let after = stage.all_sas();
        let changed = before.iter().filter(|(pair, _)| among(**pair));
        let changed = changed.filter(|(pair, sas)| after.get(pair) != Some(sas)).count();
        stage.exactly("other pairs whose SAs are not the same", changed as u64, 0);
        Ok(())
    }
}

fn prepare(
    stage: &Stage<'_>,
    refuses: usize,
    silent: usize,
    foreign: usize,
) -> Result<(), Stopped> {
    let base = stage.recipe.clone();
    let other = json!("aes256-sha512-ecp521!");
    stage.put_manifest(refuses, &base.clone().with("ike_proposals", other))?;
    let mtu = stage.netns(silent)?.run(|| Rtnl::open()?.set_mtu(INTERFACE, SILENT_MTU));
    mtu.map_err(|error| error.to_string())?;
    let folder = stage.credentials().join("foreign");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    write_credentials(&folder, "another CA").map_err(|_| "no second CA".to_owned())?;
    stage.put_manifest(foreign, &base.certified(&folder, "instance", &["ca"]))
}

fn one(stage: &mut Stage<'_>, bad: usize, what: &str, words: &[&str]) -> Result<(), Stopped> {
    let address = stage.address(bad).to_string();
    let told = |peer: &Value| {
        let texts = [&peer["reason"], &peer["last_error"]];
        let texts = texts.map(|text| text.as_str().unwrap_or_default().to_owned());
        texts.into_iter().find(|text| words.iter().any(|word| text.contains(word)))
    };
    let reason = stage.until(REASON, |stage| told(&stage.peer(0, bad)))?;
    stage.exactly(format!("{what}: status names the reason: yes"), reason.is_some().into(), 1);
    let shown = reason.unwrap_or_else(|| stage.peer(0, bad).to_string());
    stage.step(format!("{what}: status says \"{shown}\""));
    let failed =
        stage.until(REASON, |stage| stage.peer(0, bad)["failures"].as_u64().filter(|n| *n > 0))?;
    stage.measure(
        format!("{what}: attempts that failed"),
        failed.map(|n| n as f64),
        Required::AtLeast(1.0),
    );
    let wait = stage.until(REASON, |stage| stage.peer(0, bad)["retry_in_s"].as_u64())?;
    let bound = Required::AtMost(LONGEST_WAIT, "s");
    stage.measure(format!("{what}: wait before the next attempt"), wait.map(|s| s as f64), bound);

    stage.step(format!("{what}: warren down, from both sides"));
    let output = stage.warren(0, &["down", &address])?;
    stage.exactly(format!("{what}: `warren down` ends with"), exit(&output), 0);
    let own = stage.address(0).to_string();
    stage.warren(bad, &["down", &own])?;
    let peer = stage.peer(0, bad);
    let left = peer["ike_sas"]
        .as_array()
        .map_or(0, |all| all.iter().filter(|sa| sa["state"] != "closing").count());
    stage.exactly(format!("{what}: down: IKE SAs at once"), left as u64, 0);
    stage.wait(Duration::from_millis(500))?;
    let wire = stage.wire();
    stage.wait(TIME)?;
    let tried = handshakes(stage, &wire, bad);
    stage.exactly(format!("{what}: down: handshake messages in {} s", TIME.as_secs()), tried, 0);

    stage.step(format!("{what}: warren up"));
    let wire = stage.wire();
    let output = stage.warren(0, &["up", &address])?;
    stage.exactly(format!("{what}: `warren up` ends with"), exit(&output), 0);
    let asked = stage.now();
    let starts = stage
        .until(STARTS, |stage| (handshakes(stage, &wire, bad) > 0).then(|| stage.now() - asked))?;
    stage.within(format!("{what}: up: spoken to again"), starts, STARTS);
    stage.warren(0, &["down", &address])?;
    Ok(())
}

fn exit(output: &std::process::Output) -> u64 {
    output.status.code().and_then(|code| u64::try_from(code).ok()).unwrap_or(255)
}

/// IKE_SA_INIT messages between the first host and this one.
fn handshakes(stage: &Stage<'_>, since: &crate::lab::wire::Counts, bad: usize) -> u64 {
    let (here, there) = (stage.address(0), stage.address(bad));
    let seen = stage.wire().since(since);
    let between = |key| seen.handshakes_between.get(&key).copied().unwrap_or_default();
    between((here, there)) + between((there, here))
}
