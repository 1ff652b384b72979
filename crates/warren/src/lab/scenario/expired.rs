//! All certificates end while tunnels stand; they are renewed through `optional`.

use std::time::Duration;

use serde_json::{Value, json};

use super::Scenario;
use crate::args::KeyType;
use crate::lab::authority::Authority;
use crate::lab::findings::Required;
use crate::lab::recipe::Recipe;
use crate::lab::rotation::make_anew;
use crate::lab::stage::{ALL_UP, AllSas, Sas, Stage, Stopped, calm};
use crate::lab::streams::Pair;
use crate::pki::DAY;

/// `expired`
pub struct Expired;

/// The least that short-lived certificates are good for.
const SHORTEST: u64 = 15;
/// Handing them out takes at most so many times as long as the start of the fleet did.
const SLOWER: f64 = 6.0;
/// How long is looked at tunnels after the end.
const TIME: Duration = Duration::from_secs(3);
/// What stands in the last seconds before the end is to live on.
const LAST: u64 = 3;
/// The reason shows within this.
const REASON: Duration = Duration::from_secs(30);
/// Between two hosts.
const PAUSE: Duration = Duration::from_millis(500);

/// The pair whose tunnel is taken down after the end.
fn refused((a, b): Pair) -> bool {
    a < 2 && b < 2
}

impl Scenario for Expired {
    fn name(&self) -> &'static str {
        "expired"
    }

    fn about(&self) -> &'static str {
        "all certificates end: tunnels live on, new ones are refused; renewal through `optional`"
    }

    fn required(&self) -> &'static str {
        "0 lost on running SAs, rekeys included; the reason in status; all pairs back by renewal"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (3, 4, 20)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        stage.certify()?;
        let folder = stage.credentials().to_owned();
        let (name, kind) = ("the lab's next CA", KeyType::Rsa3072);
        let next = Authority::new(&folder, "ca-next", name, kind, 30 * DAY)?;
        next.issue("instance-next", "lab instance of next year", 30 * DAY)?;
        let started = stage.now();
        let pairs = stage.all_pairs();
        let (from, wire) = (stage.begin(stage.len(), &pairs)?, stage.wire());
        let took = stage.now() - started;
        let before = expire(stage, &pairs, took)?;
        living(stage, &pairs, &before, from)?;
        stage.no_clear("before the renewal", &wire);
        new_ones(stage)?;
        renewal(stage, &pairs)
    }
}

/// All hosts get certificates that are good for seconds, tunnels are authenticated by them, and those seconds pass. What
/// stood before they had passed.
fn expire(stage: &mut Stage<'_>, pairs: &[Pair], took: Duration) -> Result<AllSas, Stopped> {
    let seconds = SHORTEST + (took.as_secs_f64() * SLOWER) as u64;
    stage.step(format!("CA and certificate that are good for {seconds} s; tunnels are made anew"));
    let end = linux::clock::unix_now() + seconds;
    let folder = stage.credentials().to_owned();
    let (name, kind) = ("the lab's CA that ends soon", KeyType::P256);
    let short = Authority::new(&folder, "ca-short", name, kind, seconds)?;
    short.issue("instance-short", "lab instance that ends soon", seconds)?;
    let recipe = stage.recipe.clone();
    let of = |leaf, cas: &[&str]| recipe.clone().certified(&folder, leaf, cas);
    each(stage, &of("instance", &["ca", "ca-short"]), Duration::ZERO)?;
    let old = stage.all_sas();
    stage.put_manifests(&of("instance-short", &["ca", "ca-short"]))?;
    (0..stage.len()).try_for_each(|host| stage.reload_and_reauth(host))?;
    stage.must(ALL_UP, "all tunnels made anew", |stage| {
        let all = stage.all_sas();
        let other = old.iter().all(|(pair, sas)| all.get(pair).is_some_and(|a| a.ike != sas.ike));
        (other && calm(&all, pairs)).then_some(())
    })?;
    each(stage, &of("instance-short", &["ca-short"]), Duration::ZERO)?;
    if linux::clock::unix_now() >= end {
        let text = format!("this machine needs more than {seconds} s to hand certificates out");
        return Err(Stopped::Failed(text));
    }
    stage.step("waiting for their end");
    // Both ends make each tunnel anew: which one stays is settled long before.
    let shortly = Duration::from_secs(seconds);
    stage.must(shortly, "the last seconds of all certificates", |stage| {
        (linux::clock::unix_now() + LAST >= end && calm(&stage.all_sas(), pairs)).then_some(())
    })?;
    let before = stage.all_sas();
    stage.must(Duration::from_secs(seconds + 5), "the end of all certificates", |stage| {
        (linux::clock::unix_now() > end && expired(stage) == 2 * stage.len()).then_some(())
    })?;
    Ok(before)
}

/// Certificates that the hosts' own status calls expired.
fn expired(stage: &Stage<'_>) -> usize {
    let of = |host| {
        let status = stage.status(host).unwrap_or_default();
        let all = status["node"]["certificates"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|certificate| certificate["level"] == "expired").count()
    };
    (0..stage.len()).map(of).sum()
}

/// What stands lives on: as it is, through rekeys, through a restart of a daemon.
fn living(
    stage: &mut Stage<'_>,
    pairs: &[Pair],
    before: &AllSas,
    from: Duration,
) -> Result<(), Stopped> {
    let shown = expired(stage) as u64;
    let all = 2 * stage.len() as u64;
    stage.exactly("certificates that status calls expired", shown, all);
    stage.wait(TIME)?;
    let after = stage.all_sas();
    let same = pairs.iter().filter(|pair| after.get(pair) == before.get(pair)).count();
    stage.exactly("expired: SAs that are the same", same as u64, pairs.len() as u64);
    stage.no_loss("expired", from, |_| true)?;

    stage.step("all tunnels of h1 are rekeyed");
    let from = stage.now();
    for other in 1..stage.len() {
        let address = stage.address(other).to_string();
        stage.warren(0, &["rekey", &address])?;
    }
    let rekeyed = stage.until(REASON, |stage| {
        let all = stage.all_sas();
        let other = |(pair, sas): (&Pair, &Sas)| {
            all.get(pair).is_some_and(|new| new.ike != sas.ike && new.children != sas.children)
        };
        let mine = || after.iter().filter(|(pair, _)| pair.0 == 0);
        (mine().all(other) && calm(&all, pairs)).then(|| mine().count())
    })?;
    let rekeyed = rekeyed.unwrap_or_default() as u64;
    stage.exactly("expired: tunnels rekeyed", rekeyed, stage.len() as u64 - 1);
    stage.no_loss("expired: rekey", from, |_| true)?;

    let last = stage.len() - 1;
    stage.step(format!("the daemon of {} is stopped and started", stage.name(last)));
    let (from, sas) = (stage.now(), stage.sas_of(last));
    stage.terminate(last)?;
    stage.start(last)?;
    stage.wait(TIME)?;
    let after = stage.sas_of(last);
    let same = sas.iter().filter(|(pair, sas)| after.get(pair) == Some(sas)).count();
    stage.exactly("expired: restart: peers with the same SAs", same as u64, sas.len() as u64);
    stage.no_loss("expired: restart", from, |_| true)
}

/// A tunnel that is to be made anew is refused with the reason, at both ends; so is the manifest, by `check`.
fn new_ones(stage: &mut Stage<'_>) -> Result<(), Stopped> {
    let (manifest, own) = (stage.manifest(0).display().to_string(), stage.address(0).to_string());
    let checked = stage.warren(0, &["check", &manifest, "--address", &own])?;
    let says = String::from_utf8_lossy(&checked.stderr).contains("expired");
    let no = u64::from(checked.status.code() == Some(1) && says);
    stage.exactly("`warren check` refuses with the reason: yes", no, 1);

    stage.step("the tunnel of h1 and h2 is taken down and started: warren restart");
    let from = stage.now();
    let address = stage.address(1).to_string();
    stage.warren(0, &["restart", &address])?;
    let told = |peer: &Value| peer["reason"].as_str().is_some_and(|text| text.contains("expired"));
    let both = stage.until(REASON, |stage| {
        let rows = [stage.peer(0, 1), stage.peer(1, 0)];
        rows.iter().all(told).then(|| rows.map(|row| row["reason"].as_str().map(str::to_owned)))
    })?;
    stage.exactly(
        "new tunnel: both ends say that a certificate has expired: yes",
        both.is_some().into(),
        1,
    );
    for text in both.into_iter().flatten().flatten() {
        stage.step(format!("status says \"{text}\""));
    }
    stage.wait(TIME)?;
    let up = [stage.peer(0, 1), stage.peer(1, 0)].iter().filter(|row| row["state"] == "up").count();
    stage.exactly("new tunnel: ends where it is up", up as u64, 0);
    stage.no_loss("new tunnel: packets of other pairs", from, |pair| !refused(pair))
}

/// New certificates together with `optional: true`, then enforced.
fn renewal(stage: &mut Stage<'_>, pairs: &[Pair]) -> Result<(), Stopped> {
    let renewed =
        stage.recipe.clone().certified(stage.credentials(), "instance-next", &["ca-next"]);
    stage.step("new CA and certificate with `optional: true`, host by host");
    let from = stage.now();
    each(stage, &renewed.clone().with("optional", json!(true)), PAUSE)?;
    let (last, limit) = (stage.now(), ALL_UP);
    let settled = stage.settle(pairs, limit)?.map(|_| stage.now() - last);
    stage.measure(
        "renewed: pairs with one IKE SA and one child SA",
        Some(settled.map_or(0.0, |_| pairs.len() as f64 / 2.0)),
        Required::Exactly(pairs.len() as f64 / 2.0),
    );
    if let Some(took) = settled {
        let took = took.as_secs_f64();
        stage.step(format!("all pairs are up {took:.2} s after the last host was renewed"));
    }
    stage.no_loss("renewed: packets of other pairs", from, |pair| !refused(pair))?;

    stage.step("all tunnels are authenticated by the new certificates, host by host");
    let from = stage.now();
    let mut anew = 0;
    for host in 0..stage.len() {
        anew += make_anew(stage, host)?;
    }
    stage.exactly("renewed: tunnels authenticated anew", anew as u64, pairs.len() as u64);
    stage.no_loss("renewed: authenticated anew", from, |_| true)?;
    let shown = expired(stage) as u64;
    stage.exactly("renewed: certificates that status calls expired", shown, 0);

    stage.step("enforcing, host by host");
    let from = stage.now();
    each(stage, &renewed.with("optional", json!(false)), PAUSE)?;
    let wire = stage.wire();
    stage.wait(TIME)?;
    stage.no_loss("enforced", from, |_| true)?;
    stage.no_clear("enforced", &wire);
    Ok(())
}

fn each(stage: &mut Stage<'_>, recipe: &Recipe, pause: Duration) -> Result<(), Stopped> {
    for host in 0..stage.len() {
        stage.put_manifest(host, recipe)?;
        stage.reload(host)?;
        stage.wait(pause)?;
    }
    Ok(())
}
