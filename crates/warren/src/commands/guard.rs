//! `warren guard on|off|status`: the leak guard.

mod saved;

use std::path::Path;

use ipsec::spd::{Action, Policy};
use linux::guard::Holder;
use serde_json::json;

use crate::args::{GuardCommand, GuardOn};
use crate::client;
use crate::exit::Failure;
use crate::load::rules_only;
use crate::print::println;

/// One of the three.
pub fn run(control: &Path, command: &GuardCommand, json: bool) -> Result<(), Failure> {
    match command {
        GuardCommand::On(args) => on(args, json),
        GuardCommand::Off => off(control, json),
        GuardCommand::Status => status(json),
    }
}

/// Where rules come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Manifest,
    Saved,
}

fn on(args: &GuardOn, json: bool) -> Result<(), Failure> {
    let (rules, source) = rules(args)?;
    let holder = linux::guard::on(&rules).map_err(Failure::no)?;
    let from = if source == Source::Manifest { "manifest" } else { "saved" };
    if json {
        println!(
            "{}",
            json!({ "on": holder != Holder::Nobody, "held_by": name(holder), "rules": rules.len(), "from": from })
        );
    } else {
        println!("{}", said(holder, &rules));
    }
    Ok(())
}

fn said(holder: Holder, rules: &[Policy]) -> String {
    match holder {
        Holder::DataPlane => {
            "a data plane protects this host already; the guard keeps its rules for the next boot"
                .to_owned()
        }
        Holder::Nobody => "the manifest is `optional`: the guard blocks nothing".to_owned(),
        Holder::Guard(_) => {
            let blocked = rules.iter().filter(|rule| rule.action == Action::Discard).count();
            format!(
                "the leak guard is on: {} rules, {blocked} of them block; `warren guard off` takes them away",
                rules.len()
            )
        }
    }
}

/// The manifest's rules, which are kept; or, where it is refused, those that were kept last.
fn rules(args: &GuardOn) -> Result<(Vec<Policy>, Source), Failure> {
    let mut own = crate::daemon::site::own_addresses();
    own.extend(args.address.filter(|address| !own.contains(address)));
    let made = rules_only(&args.manifest)
        .map_err(|rejected| rejected.to_string())
        .and_then(|manifest| mesh::plan::guard(&manifest, &own).map_err(|error| error.to_string()));
    let file = args.state_dir.join("guard.json");
    match made {
        Ok(rules) => {
            // Without a copy the guard is as good today; it is the next boot that may lack it.
            if let Err(error) = saved::write(&file, &rules) {
                anstream::eprintln!(
                    "warren: {}: {error}; there will be no rules if the manifest cannot be read",
                    file.display()
                );
            }
            Ok((rules, Source::Manifest))
        }
        Err(refused) => match saved::read(&file) {
            Ok(rules) => {
                anstream::eprintln!(
                    "warren: {refused}\nwarren: the guard uses the rules of the last accepted manifest ({})",
                    file.display()
                );
                Ok((rules, Source::Saved))
            }
            Err(error) => Err(Failure::No(format!(
                "{refused}\nand there are no rules of an earlier one ({}: {error}): nothing is blocked",
                file.display()
            ))),
        },
    }
}

fn off(control: &Path, json: bool) -> Result<(), Failure> {
    let runs = || {
        Failure::No(
            "the daemon runs and holds the policies: `warren stop --flush` takes them away".into(),
        )
    };
    if client::is_up(control) || linux::guard::off().map_err(Failure::no)? == Holder::DataPlane {
        return Err(runs());
    }
    if json {
        println!("{}", json!({ "on": false }));
    } else {
        println!("the leak guard is off: packets pass in the clear");
    }
    Ok(())
}

fn status(json: bool) -> Result<(), Failure> {
    let holder = linux::guard::state().map_err(Failure::no)?;
    if json {
        let policies = if let Holder::Guard(count) = holder { Some(count) } else { None };
        println!(
            "{}",
            json!({ "on": holder != Holder::Nobody, "held_by": name(holder), "policies": policies })
        );
    } else {
        match holder {
            Holder::Nobody => println!("off: nothing keeps cleartext from the IPsec subnets"),
            Holder::Guard(count) => println!("on: {count} kernel policies; no data plane"),
            Holder::DataPlane => println!("on: held by the data plane"),
        }
    }
    if holder == Holder::Nobody { Err(Failure::Printed) } else { Ok(()) }
}

fn name(holder: Holder) -> Option<&'static str> {
    match holder {
        Holder::Nobody => None,
        Holder::Guard(_) => Some("guard"),
        Holder::DataPlane => Some("data_plane"),
    }
}
