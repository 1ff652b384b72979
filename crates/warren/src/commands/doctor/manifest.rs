//! The manifest as it lies on the disk, what of it is in force, certificates, and the clock that they are judged by.

use std::net::IpAddr;

use crypto::native::Native;
use mesh::manifest::Place;
use mesh::status::CertificateLevel;
use mesh::{CertificateFact, CertificateRole};

use super::Scene;
use super::finding::{Finding, Findings, Level};
use crate::load::{Accepted, Ended, load_with};

/// 2025-01-01: no build of this program is older, so no clock that is right can be.
const EPOCH: u64 = 1_735_689_600;

/// Reads it, and judges; leaves it in the scene.
pub fn check(scene: &mut Scene<'_>, wanted: Option<IpAddr>, all: &mut Vec<Finding>) {
    let now = linux::clock::unix_now();
    check_clock(scene, now, &mut Findings::of("host", all));
    let mut found = Findings::of("manifest", all);
    let file = scene.file.display().to_string();
    match load_with(&scene.file, &Native, now, None, Ended::Accepted) {
        Ok(accepted) => {
            found.ok("accepted", file);
            in_force(scene, &accepted, &mut found);
            for note in &accepted.notes {
                found.warning("note", note.trim_end(), "");
            }
            place(scene, &accepted, wanted, &mut found);
            certificates(&accepted, now, &mut found);
            scene.accepted = Some(accepted);
        }
        Err(refused) => refuse(scene, &refused.to_string(), &mut found),
    }
    let from_status = scene.node().and_then(|node| node["address"].as_str()?.parse().ok());
    scene.address = from_status.or(scene.address);
}

fn refuse(scene: &Scene<'_>, refused: &str, found: &mut Findings<'_>) {
    let elsewhere = refused.contains("CREDENTIALS_DIRECTORY is not set") && scene.status.is_some();
    if elsewhere {
        let text =
            "its credentials come from the service manager, which gives them to the unit alone";
        found.skipped("accepted", text);
    } else if scene.status.is_some() {
        let remedy =
            "correct it before the daemon starts again: it goes on with the one it has loaded";
        found.error("accepted", refused.trim_end(), remedy);
    } else {
        found.error("accepted", refused.trim_end(), "`-m FILE` names another");
    }
}

fn in_force(scene: &Scene<'_>, accepted: &Accepted, found: &mut Findings<'_>) {
    let Some(loaded) = scene.node().and_then(|node| node["manifest"]["sha256"].as_str()) else {
        return found.skipped("in force", "no daemon has loaded it");
    };
    let short = &accepted.sha256[..accepted.sha256.len().min(12)];
    if loaded == accepted.sha256 {
        found.ok("in force", format!("the daemon has loaded this very file (sha256 {short}…)"));
    } else {
        let text = format!("the file (sha256 {short}…) is not what the daemon has loaded");
        found.warning(
            "in force",
            text,
            "`warren plan FILE` shows the difference, `warren reload` loads it",
        );
    }
}

fn place(
    scene: &mut Scene<'_>,
    accepted: &Accepted,
    wanted: Option<IpAddr>,
    found: &mut Findings<'_>,
) {
    let running = scene.node().and_then(|node| node["address"].as_str()?.parse().ok());
    let address = match accepted.choose_address(wanted.or(running), &scene.own) {
        Ok(address) => address,
        Err(refused) => {
            return found.error("address", refused.to_string(), "`--address IP` names this host's");
        }
    };
    scene.address = Some(address);
    if !scene.own.contains(&address) {
        let text = format!("{address} is no address of this host");
        return found.error("address", text, "bring the interface up, or choose with `--address`");
    }
    match accepted.manifest.place_of(address) {
        Place::Protected(net) => found.ok("address", format!("{address} lies in {net}")),
        Place::Excluded(net) => found.warning(
            "address",
            format!("{address} lies in {net} of no_ipsec_subnets: this host protects nothing"),
            "take it out of no_ipsec_subnets if that is not wanted",
        ),
        Place::Nowhere => found.error(
            "address",
            format!("{address} lies in no list"),
            "add its network to ipsec_subnets",
        ),
    }
}

fn certificates(accepted: &Accepted, now: u64, found: &mut Findings<'_>) {
    let facts = accepted.certificates();
    if facts.is_empty() {
        return found.ok("credentials", "a pre-shared key");
    }
    // What is refused at load is reported above.
    found.ok(
        "credentials",
        "certificate and key belong together, the chain leads to a CA of the list",
    );
    for fact in &facts {
        let (level, text) = dates(accepted, fact, now);
        let remedy = match fact.role {
            CertificateRole::Leaf => {
                "`warren pki issue` makes another; `warren reload` takes it up"
            }
            CertificateRole::Ca => {
                "append a new CA to ca_certificates first, then renew the leaves under it"
            }
        };
        let remedy = (level > Level::Ok).then(|| remedy.to_owned());
        found.add("certificate", level, text, remedy);
    }
}

fn dates(accepted: &Accepted, fact: &CertificateFact, now: u64) -> (Level, String) {
    let role = match fact.role {
        CertificateRole::Leaf => "leaf",
        CertificateRole::Ca => "CA",
    };
    let days = (i128::from(fact.not_after) - i128::from(now)).div_euclid(86_400);
    let until = mesh::time::rfc3339(fact.not_after);
    let text = format!("{role} {}: until {until}, {days} days left", fact.subject);
    match CertificateLevel::at(&accepted.manifest.expiry, fact.not_after, now) {
        CertificateLevel::Ok | CertificateLevel::Info => (Level::Ok, text),
        CertificateLevel::Warn | CertificateLevel::Error => (Level::Warning, text),
        CertificateLevel::Critical | CertificateLevel::Expired => (Level::Error, text),
    }
}

fn check_clock(scene: &Scene<'_>, now: u64, found: &mut Findings<'_>) {
    let shown = mesh::time::rfc3339(now);
    let remedy = "set it: `timedatectl set-ntp true`; certificates are judged by it";
    let started = scene.node().and_then(|node| node["started_at"].as_str());
    if now < EPOCH {
        found.error("clock", format!("{shown} is long past"), remedy);
    } else if started.is_some_and(|started| started > shown.as_str()) {
        let text = format!("{shown}: it was set back since the daemon started");
        found.warning("clock", text, remedy);
    } else {
        match linux::clock::is_synchronised() {
            Some(true) => found.ok("clock", format!("{shown}, synchronised")),
            Some(false) => {
                let text = format!("{shown}; the kernel does not know it to be synchronised");
                found.warning("clock", text, remedy);
            }
            None => found.skipped("clock", format!("{shown}; whether it is right cannot be asked")),
        }
    }
}
