//! `warren check FILE`: validate, and show what this host would do.

use crypto::native::Native;
use ipsec::sa::Mode;
use mesh::Loaded;
use mesh::manifest::Manifest;
use mesh::plan::Plan;
use mesh::status::CertificateLevel;
use serde_json::{Value, json};

use super::layout::{COLUMNS, hanging, wrapped};
use crate::args;
use crate::daemon::site;
use crate::exit::Failure;
use crate::load::{Accepted, load};
use crate::print::println;

/// Columns that a reason needs beside a policy.
const LEAST: usize = 16;

/// Ends 1 where the manifest is refused, or this host has no place in it.
pub fn run(args: &args::Check, json: bool) -> Result<(), Failure> {
    let now = args.as_of.unwrap_or_else(linux::clock::unix_now);
    let judged = load(&args.file, &Native, now, None).and_then(|accepted| {
        let own = site::own_addresses();
        let me = accepted.choose_address(args.address, &own)?;
        let loaded = accepted.for_host(me, &own)?;
        Ok((accepted, loaded))
    });
    match judged {
        Ok((accepted, loaded)) => {
            let shown = describe(&accepted, &loaded, now);
            if json {
                println!("{shown}")
            } else {
                print(&shown)
            }
            Ok(())
        }
        Err(refused) if json => {
            println!("{}", json!({ "ok": false, "error": refused.to_string() }));
            Err(Failure::Printed)
        }
        Err(refused) => Err(Failure::no(refused)),
    }
}

fn describe(accepted: &Accepted, loaded: &Loaded, now: u64) -> Value {
    let plan = &loaded.plan;
    let policies: Vec<Value> = plan
        .describe()
        .iter()
        .map(|row| json!({ "priority": row.priority, "action": row.action, "direction": row.direction, "local": row.local, "remote": row.remote, "service": row.service, "because": row.origin }))
        .collect();
    let certificates: Vec<Value> = loaded
        .certificates
        .iter()
        .map(|fact| {
            let days = (i128::from(fact.not_after) - i128::from(now)).div_euclid(86_400);
            json!({ "role": fact.role, "subject": fact.subject, "serial": fact.serial, "not_after": mesh::time::rfc3339(fact.not_after), "days_left": i64::try_from(days).unwrap_or(i64::MAX), "level": CertificateLevel::at(&accepted.manifest.expiry, fact.not_after, now) })
        })
        .collect();
    json!({
        "ok": true,
        "address": plan.me(),
        "addresses": plan.addresses(),
        "name": plan.name(),
        "optional": plan.optional(),
        "mode": mode(plan),
        "ike_proposals": accepted.manifest.ike_proposals.text,
        "esp_proposals": accepted.manifest.esp_proposals.text,
        "policies": policies,
        "certificates": certificates,
        "mtu": inside(&accepted.manifest, plan),
        "notes": accepted.notes,
    })
}

/// What packets of both families have room for.
fn inside(manifest: &Manifest, plan: &Plan) -> Option<usize> {
    let addresses = plan.addresses().into_iter();
    addresses.filter_map(|address| super::mtu::inside(1500, manifest, address)).min()
}

fn mode(plan: &Plan) -> &'static str {
    match plan.mode() {
        Mode::Transport => "transport",
        Mode::Tunnel => "tunnel",
    }
}

fn print(shown: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| {
        value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ")
    };
    for note in shown["notes"].as_array().into_iter().flatten() {
        println!("{}", text(note));
    }
    hanging("this host     ", &format!("{} {}", list(&shown["addresses"]), text(&shown["name"])));
    println!(
        "mode          {}{}",
        text(&shown["mode"]),
        if shown["optional"] == true { ", OPTIONAL: clear where there is no SA" } else { "" }
    );
    hanging("IKE           ", &list(&shown["ike_proposals"]));
    hanging("ESP           ", &list(&shown["esp_proposals"]));
    if let Some(mtu) = shown["mtu"].as_u64() {
        println!("MTU           {mtu} inside packets of 1500 bytes");
    }
    for certificate in shown["certificates"].as_array().into_iter().flatten() {
        hanging(
            &format!("{:<13} ", text(&certificate["role"])),
            &format!(
                "{}, until {}, {} days left ({})",
                text(&certificate["subject"]),
                text(&certificate["not_after"]),
                certificate["days_left"],
                text(&certificate["level"])
            ),
        );
    }
    println!();
    print_policies(shown["policies"].as_array().map_or(&[], Vec::as_slice));
}

/// The table of policies, each column as wide as what stands in it. Long addresses get lines of their own.
fn print_policies(rows: &[Value]) {
    const KEYS: [&str; 6] = ["priority", "action", "direction", "service", "local", "remote"];
    let titles = ["PRIORITY", "ACTION", "FLOW", "SERVICE", "LOCAL", "REMOTE"].map(str::to_owned);
    let cell = |row: &Value, key: &str| match &row[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let cells: Vec<[String; 6]> = rows.iter().map(|row| KEYS.map(|key| cell(row, key))).collect();
    let width = |column: usize| {
        let all = cells.iter().chain([&titles]);
        all.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..KEYS.len()).map(width).collect();
    let beside = if widths.iter().sum::<usize>() + KEYS.len() + LEAST <= COLUMNS { 6 } else { 4 };
    let show = |row: &[String; 6], because: &str| {
        let columns = row.iter().zip(&widths).take(beside);
        let before: String = columns.map(|(text, width)| format!("{text:<width$} ")).collect();
        hanging(&before, because);
        if beside == 4 {
            wrapped(widths[0] + 1, &format!("{} -> {}", row[4], row[5]));
        }
    };
    show(&titles, "BECAUSE");
    for (row, text) in rows.iter().zip(&cells) {
        show(text, row["because"].as_str().unwrap_or_default());
    }
}
