//! `warren plan FILE`: what would change, before anything does.

use std::collections::BTreeMap;
use std::path::Path;

use crypto::native::Native;
use mesh::plan::Plan;
use serde_json::{Value, json};

mod enforce;

use super::layout::hanging;
use crate::args;
use crate::client;
use crate::daemon::site;
use crate::exit::Failure;
use crate::load::load;
use crate::print::println;

/// Compares with the running daemon's manifest, or with a file.
pub fn run(control: &Path, args: &args::Plan, json: bool) -> Result<(), Failure> {
    let Some(file) = &args.file else { return enforce::run(control, args, json) };
    let answer = match &args.against {
        Some(old) => offline(old, file, args)?,
        None => {
            let file = std::fs::canonicalize(file)
                .map_err(|error| Failure::No(format!("{}: {error}", file.display())))?;
            client::post(control, "/v1/plan", &json!({ "file": file }))?
        }
    };
    if json {
        println!("{answer}")
    } else {
        print(&answer)
    }
    Ok(())
}

fn offline(old: &Path, file: &Path, args: &args::Plan) -> Result<Value, Failure> {
    let now = linux::clock::unix_now();
    let own = site::own_addresses();
    let (old, new) = (
        load(old, &Native, now, None).map_err(Failure::no)?,
        load(file, &Native, now, None).map_err(Failure::no)?,
    );
    let me = old.choose_address(args.address, &own).map_err(Failure::no)?;
    let (before, after) = (
        old.for_host(me, &own).map_err(Failure::no)?,
        new.for_host(me, &own).map_err(Failure::no)?,
    );
    Ok(json!({ "changes": changes(&before.plan, &after.plan), "notes": new.notes }))
}

/// The difference as one object.
pub fn changes(old: &Plan, new: &Plan) -> Value {
    let diff = new.diff(old);
    let rows = |plan: &Plan, wanted: &[ipsec::spd::Policy]| -> Vec<Value> {
        let priorities: Vec<u32> = wanted.iter().map(|policy| policy.priority).collect();
        plan.describe()
            .iter()
            .filter(|row| priorities.contains(&row.priority))
            .map(|row| json!({ "action": row.action, "direction": row.direction, "local": row.local, "remote": row.remote, "service": row.service, "because": row.origin }))
            .collect()
    };
    let changed: Vec<ipsec::spd::Policy> =
        diff.policies_changed.iter().map(|(_, new)| *new).collect();
    let settings = [
        ("identity: used at the next authentication", diff.settings.identity),
        ("cluster", diff.settings.cluster),
        ("IKE proposals: tunnels are replaced, without a gap", diff.settings.ike),
        ("ESP proposals: tunnels are replaced, without a gap", diff.settings.esp),
        ("timers", diff.settings.timers),
        ("optional", diff.settings.optional),
        ("settings of this host", diff.settings.local),
    ];
    json!({
        "nothing": diff.is_empty(),
        "policies_added": rows(new, &diff.policies_added),
        "policies_removed": rows(old, &diff.policies_removed),
        "policies_changed": rows(new, &changed),
        "peers_added": diff.peers_added,
        "peers_removed": diff.peers_removed,
        "peers_changed": diff.peers_changed,
        "settings": settings.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect::<Vec<_>>(),
    })
}

fn print(answer: &Value) {
    for note in answer["notes"].as_array().into_iter().flatten() {
        println!("{}", note.as_str().unwrap_or_default());
    }
    let changes = &answer["changes"];
    if changes["nothing"] == true {
        println!("nothing changes");
        return;
    }
    for (key, mark) in
        [("policies_added", '+'), ("policies_removed", '-'), ("policies_changed", '~')]
    {
        for row in changes[key].as_array().into_iter().flatten() {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            hanging(
                &format!("{mark} {:<9} {:<5} ", text("action"), text("direction")),
                &format!(
                    "{} -> {} {} ({})",
                    text("local"),
                    text("remote"),
                    text("service"),
                    text("because")
                ),
            );
        }
    }
    for (key, mark) in [("peers_added", '+'), ("peers_removed", '-'), ("peers_changed", '~')] {
        changes[key]
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|peer| println!("{mark} peer {}", peer.as_str().unwrap_or_default()));
    }
    changes["settings"]
        .as_array()
        .into_iter()
        .flatten()
        .for_each(|name| println!("~ {}", name.as_str().unwrap_or_default()));
    print_pairs(&answer["pairs"]);
}

/// What that does to each pair; only a running daemon knows them.
fn print_pairs(pairs: &Value) {
    let Some(changed) = pairs["changed"].as_array() else { return };
    println!();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pair in changed {
        let text = |name: &str| pair[name].as_str().unwrap_or_default();
        let effect = text("effect").replace('_', " ");
        let who = match text("name") {
            "" => text("address").to_owned(),
            name => format!("{name} ({})", text("address")),
        };
        hanging(
            &format!("{who:<24} {:<10} ", text("state").replace('_', " ")),
            &format!("{effect}: {}", text("because")),
        );
        *counts.entry(effect).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(effect, n)| format!("{n} {effect}, ")).collect();
    println!("pairs: {}{} untouched", counts.concat(), pairs["untouched"]);
}
