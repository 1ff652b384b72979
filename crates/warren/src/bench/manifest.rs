//! `warren bench manifest`: a large manifest is read and planned, and one entry of it changes.

use linux::clock::thread_cpu;
use mesh::plan::Plan;
use serde::Serialize;
use serde_json::{Value, json};

use super::ms;
use super::settings::{self, Folder};
use super::star;
use crate::args::{BenchManifest, Suite};
use crate::exit::Failure;
use crate::lab::recipe::Recipe;
use crate::print::println;

/// What was measured with one number of entries.
#[derive(Serialize)]
struct Row {
    entries: u16,
    bytes: usize,
    /// Read and checked.
    read_ms: f64,
    /// Policies made of it for one host.
    plan_ms: f64,
    /// What the same with one entry more changes is found.
    diff_ms: f64,
}

/// Measures and prints.
pub fn run(wanted: &BenchManifest, json: bool) -> Result<(), Failure> {
    let rows = wanted.entries.iter().map(|n| measure(*n)).collect::<Result<Vec<_>, _>>()?;
    if json {
        println!("{}", json!({ "manifest": rows }));
        return Ok(());
    }
    println!(
        "{:>9}{:>12}{:>12}{:>12}{:>12}",
        "entries", "bytes", "read, ms", "plan, ms", "diff, ms"
    );
    for row in rows {
        println!(
            "{:>9}{:>12}{:>12.2}{:>12.2}{:>12.2}",
            row.entries, row.bytes, row.read_ms, row.plan_ms, row.diff_ms
        );
    }
    Ok(())
}

fn measure(entries: u16) -> Result<Row, Failure> {
    let folder = Folder::new("manifest")?;
    let recipe = folder.recipe(Suite::X25519Psk)?;
    let (bytes, read_ms, plan_ms, old) = load(&folder, &recipe, usize::from(entries))?;
    let (_, _, _, new) = load(&folder, &recipe, usize::from(entries) + 1)?;
    let before = thread_cpu();
    let diff = new.diff(&old);
    let diff_ms = ms(thread_cpu().saturating_sub(before));
    if diff.policies_added.is_empty() || !diff.policies_removed.is_empty() {
        return Err(Failure::No("one entry more is not one entry more".to_owned()));
    }
    Ok(Row { entries, bytes, read_ms, plan_ms, diff_ms })
}

/// The manifest with so many subnets and peers: its length, the time to read and to plan it, the plan.
fn load(
    folder: &Folder,
    recipe: &Recipe,
    count: usize,
) -> Result<(usize, f64, f64, Plan), Failure> {
    let subnet = |n: usize| json!(format!("172.{}.{}.0/28", 16 + n / 256, n % 256));
    let subnets: Value =
        std::iter::once(json!(star::SUBNET)).chain((0..count).map(subnet)).collect();
    let recipe =
        recipe.clone().with("ipsec_subnets", subnets).with("peers", settings::peers(count));
    let path = folder.write(&recipe)?;
    let began = thread_cpu();
    let accepted = settings::read(&path)?;
    let read = thread_cpu();
    let loaded = accepted.for_host(star::address(0), &[]).map_err(Failure::no)?;
    let planned = thread_cpu();
    let (read_ms, plan_ms) = (ms(read.saturating_sub(began)), ms(planned.saturating_sub(read)));
    Ok((recipe.text().len(), read_ms, plan_ms, loaded.plan))
}
