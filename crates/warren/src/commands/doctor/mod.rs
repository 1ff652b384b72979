//! `warren doctor [PEER]`: every check there is, each with its remedy.
//!
//! Works without a daemon too: what only a daemon knows is named as not checked.

mod daemon;
mod finding;
mod firewall;
mod host;
mod manifest;
mod network;
mod peer;
mod ports;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::layout::{hanging, hung};
use crate::args;
use crate::daemon::site::own_addresses;
use crate::exit::Failure;
use crate::load::Accepted;
use crate::print::println;
use finding::{Finding, Level};

/// Where the unit's manifest lies, if nobody says otherwise.
const USUAL_MANIFEST: &str = "/etc/warren/warren.yml";

const PLAIN: &str = "\x1b[0m";

/// What all checks look at.
struct Scene<'a> {
    control: &'a Path,
    /// The daemon's whole status, if it answers.
    status: Option<Value>,
    /// The manifest's file: the one named, or the daemon's, or the usual one.
    file: PathBuf,
    /// What it says now, if it is accepted.
    accepted: Option<Accepted>,
    /// This host's addresses.
    own: Vec<IpAddr>,
    /// The one in the mesh.
    address: Option<IpAddr>,
}

impl Scene<'_> {
    fn node(&self) -> Option<&Value> {
        self.status.as_ref().map(|status| &status["node"])
    }

    fn data_plane(&self) -> Option<&str> {
        self.node().and_then(|node| node["data_plane"].as_str())
    }
}

/// Checks, and shows; ends 1 if there is an error.
pub fn run(control: &Path, args: &args::Doctor, json: bool) -> Result<(), Failure> {
    let mut all = Vec::new();
    let before = linux::xfrm::statistics();
    let status = daemon::check(control, args.manifest.is_some(), &mut all);
    let loaded_from = status.as_ref().and_then(|s| s["node"]["manifest"]["path"].as_str());
    let file = args.manifest.clone().or(loaded_from.map(PathBuf::from));
    let file = file.unwrap_or_else(|| USUAL_MANIFEST.into());
    let own = own_addresses();
    let mut scene = Scene { control, status, file, accepted: None, own, address: None };
    manifest::check(&mut scene, args.address, &mut all);
    host::check(&scene, &args.state_dir, &mut all);
    ports::check(&scene, &mut all);
    network::check(&scene, &mut all);
    firewall::check(&scene, &mut all);
    match &args.peer {
        Some(peer) => peer::check(&scene, peer, &mut all)?,
        None => peer::check_all(&scene, &mut all),
    }
    network::check_drops(&before, &mut all);
    let all = by_area(all);
    show(&all, json);
    if all.iter().any(|finding| finding.level == Level::Error) {
        Err(Failure::Printed)
    } else {
        Ok(())
    }
}

/// What belongs together stands together, in the order in which the areas came up.
fn by_area(all: Vec<Finding>) -> Vec<Finding> {
    let mut areas: Vec<(String, Vec<Finding>)> = Vec::new();
    for finding in all {
        match areas.iter_mut().find(|(area, _)| *area == finding.area) {
            Some((_, found)) => found.push(finding),
            None => areas.push((finding.area.clone(), vec![finding])),
        }
    }
    areas.into_iter().flat_map(|(_, found)| found).collect()
}

fn show(all: &[Finding], json: bool) {
    let count = |level| all.iter().filter(|finding| finding.level == level).count();
    let [ok, skipped, warnings, errors] =
        [Level::Ok, Level::Skipped, Level::Warning, Level::Error].map(count);
    if json {
        println!(
            "{}",
            json!({ "ok": errors == 0, "errors": errors, "warnings": warnings, "skipped": skipped, "checks": all })
        );
        return;
    }
    let width = all.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut area = "";
    for finding in all {
        if area != finding.area {
            area = &finding.area;
            println!("{area}");
        }
        print(finding, width);
    }
    println!("\n{ok} ok, {warnings} warnings, {errors} errors, {skipped} not checked");
}

fn print(finding: &Finding, width: usize) {
    let (colour, word) = match finding.level {
        Level::Ok => ("\x1b[32m", "ok"),
        Level::Skipped => ("", "-"),
        Level::Warning => ("\x1b[33m", "WARNING"),
        Level::Error => ("\x1b[31m", "ERROR"),
    };
    let before = format!("  {word:<8} {:<width$}  ", finding.check);
    let indent = " ".repeat(before.len());
    let lines = finding.text.lines().enumerate();
    let lines = lines.flat_map(|(n, line)| hung(if n == 0 { &before } else { &indent }, line));
    for (number, line) in lines.enumerate() {
        let marked =
            line.replacen(word, &format!("{colour}{word}{PLAIN}"), usize::from(number == 0));
        println!("{marked}");
    }
    if let Some(remedy) = &finding.remedy {
        hanging(&format!("{:>1$}", "-> ", before.len()), remedy);
    }
}
