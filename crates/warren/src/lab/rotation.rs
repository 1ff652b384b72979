//! The certificates of a fleet, exchanged host by host.

use std::collections::BTreeSet;

use crypto::chain::Certificate;
use serde_json::Value;

use super::stage::{ALL_UP, Stage, Stopped, calm};
use super::streams::Pair;
use crate::load;

/// What every host has at the end of a phase: files of the lab's credentials, without their endings.
#[derive(Clone, Copy)]
pub struct Phase<'a> {
    /// In words.
    pub name: &'a str,
    /// Its certificate.
    pub leaf: &'a str,
    /// CAs that it accepts.
    pub cas: &'a [&'a str],
}

/// What a host's peers must see of it.
#[derive(PartialEq, Eq)]
struct Seen {
    serial: String,
    trusts: BTreeSet<String>,
}

/// Each host in turn comes from one phase into the next, and makes its tunnels anew. What every host says of every
/// other is looked at after each step.
pub fn play(stage: &mut Stage<'_>, before: Phase<'_>, phase: Phase<'_>) -> Result<(), Stopped> {
    let Phase { name, leaf, cas } = phase;
    let (from, wire, hosts) = (stage.now(), stage.wire(), stage.len());
    let (old, new) = (of(stage, before)?, of(stage, phase)?);
    let recipe = stage.recipe.clone().certified(stage.credentials(), leaf, cas);
    stage.step(format!("{name}, host by host"));
    let (mut renewed, mut seen) = (0, 0);
    for host in 0..hosts {
        stage.step(format!("  {}", stage.name(host)));
        stage.put_manifest(host, &recipe)?;
        renewed += make_anew(stage, host)?;
        seen += views(stage, |other| if other <= host { &new } else { &old });
    }
    let (pairs, views) = (hosts * (hosts - 1), hosts * hosts * (hosts - 1));
    stage.exactly(format!("{name}: tunnels authenticated anew"), renewed as u64, pairs as u64);
    let what = format!("{name}: status of one host names another's certificate and CAs");
    stage.exactly(what, seen as u64, views as u64);
    stage.no_loss(name, from, |_| true)?;
    stage.no_clear(name, &wire);
    Ok(())
}

/// The host reads its manifest, and all its tunnels are replaced; how many are.
pub fn make_anew(stage: &mut Stage<'_>, host: usize) -> Result<usize, Stopped> {
    let of_host = |(a, b): &Pair| *a == host || *b == host;
    let pairs: Vec<Pair> = stage.all_pairs().into_iter().filter(of_host).collect();
    let before = stage.sas_of(host);
    stage.reload_and_reauth(host)?;
    let what = format!("all tunnels of {} are other ones", stage.name(host));
    stage.must(ALL_UP, &what, |stage| {
        let all = stage.all_sas();
        let other =
            before.iter().all(|(pair, sas)| all.get(pair).is_some_and(|a| a.ike != sas.ike));
        (other && calm(&all, &pairs)).then_some(before.len())
    })
}

fn of(stage: &Stage<'_>, phase: Phase<'_>) -> Result<Seen, Stopped> {
    let certificate = |name: &str| -> Result<Certificate, String> {
        let path = stage.credentials().join(format!("{name}.pem"));
        let text = load::read(&path).map_err(|error| error.to_string())?;
        let all = Certificate::from_pem_all(&text).map_err(|error| error.to_string())?;
        all.into_iter().next().ok_or_else(|| format!("{}: nothing", path.display()))
    };
    let cas = phase.cas.iter().map(|ca| certificate(ca).map(|ca| load::key_id(&ca)));
    Ok(Seen {
        serial: certificate(phase.leaf)?.serial_text(),
        trusts: cas.collect::<Result<_, _>>()?,
    })
}

/// How many of all hosts' words on all others are right.
fn views<'a>(stage: &Stage<'_>, wanted: impl Fn(usize) -> &'a Seen) -> usize {
    let right =
        |(host, other): &Pair| seen(&stage.peer(*host, *other)).as_ref() == Some(wanted(*other));
    stage.all_pairs().iter().filter(|pair| right(pair)).count()
}

fn seen(peer: &Value) -> Option<Seen> {
    let shown = &peer["certificate"];
    let id = |ca: &Value| ca["key_id"].as_str().map(str::to_owned);
    let trusts = shown["trusts"].as_array()?.iter().map(id).collect::<Option<_>>()?;
    Some(Seen { serial: shown["serial"].as_str()?.to_owned(), trusts })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_said_is_not_seen() {
        let whole =
            json!({"certificate": {"serial": "0a", "trusts": [{"key_id": "b"}, {"key_id": "a"}]}});
        let trusts = ["a", "b"].map(str::to_owned).into();
        assert!(seen(&whole) == Some(Seen { serial: "0a".into(), trusts }));
        for part in [
            json!({}),
            json!({"certificate": null}),
            json!({"certificate": {"serial": "0a", "trusts": null}}),
            json!({"certificate": {"serial": null, "trusts": []}}),
        ] {
            assert!(seen(&part).is_none(), "{part}");
        }
    }
}
