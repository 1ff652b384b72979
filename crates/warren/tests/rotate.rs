//! `warren pki renew` and `rotate`: a folder of certificates and what is known of hosts, step by step.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

mod world;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use world::{Ended, Folder, assert_narrow, finish, warren};

/// Certificates in a folder, and hosts that have copies of what was there once.
struct Fleet {
    folder: Folder,
    hosts: Vec<Value>,
}

impl Fleet {
    fn new(hosts: usize) -> Self {
        let folder = Folder::new();
        let dir = folder.to_str().unwrap();
        for args in [&["init"][..], &["issue", "--san", "a.example", "--san", "10.0.0.9"]] {
            finish(warren().arg("pki").args(args).args(["--key", "p256", "--dir", dir])).ok();
        }
        let mut fleet = Self { folder, hosts: vec![Value::Null; hosts] };
        (0..hosts).for_each(|host| fleet.roll_out(host));
        fleet
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn inspect(&self, name: &str) -> Vec<Value> {
        let file = self.path(name);
        let shown = finish(warren().args(["--json", "pki", "inspect", &file])).ok();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["certificates"].as_array().unwrap().clone()
    }

    /// The host has what is in the folder now; its own status says so.
    fn roll_out(&mut self, host: usize) {
        let mut certificates = self.inspect("warren-instance.pem");
        // Which of the CAs it is, openssl's way: the names differ.
        let text = fs::read_to_string(self.folder.join("issuer")).unwrap_or("warren CA".into());
        let cas = self.inspect("ca.pem");
        let of = cas.iter().find(|ca| ca["subject"] == format!("CN={text}")).unwrap();
        certificates[0]["ca"] = of["key_id"].clone();
        certificates.extend(cas);
        let address = format!("10.0.0.{}", host + 1);
        self.hosts[host] = json!({
            "node": {"address": address, "name": format!("h{host}"), "certificates": certificates},
            "peers": [],
        });
    }

    fn all(&mut self) {
        (0..self.hosts.len()).for_each(|host| self.roll_out(host));
    }

    fn rotate(&self, args: &[&str]) -> Ended {
        let mut command = warren();
        command.args(["--control", &self.path("no.sock"), "pki", "rotate"]).args(args);
        command.args(["--dir", &self.path("")]);
        for (host, status) in self.hosts.iter().enumerate() {
            let file = self.folder.put(&format!("status-{host}"), status.to_string());
            command.arg("--status").arg(file);
        }
        finish(&mut command)
    }

    fn phases(&self) -> Vec<Option<u64>> {
        let shown: Value = serde_json::from_str(&self.rotate(&["--json"]).out).unwrap();
        shown["hosts"].as_array().unwrap().iter().map(|host| host["phase"].as_u64()).collect()
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn three_phases_and_no_step_before_every_host_follows() {
    let mut fleet = Fleet::new(3);
    assert_eq!(fleet.phases(), [Some(0); 3]);
    let old_leaf = text(&fleet.folder.join("warren-instance.pem"));
    let old_ca = text(&fleet.folder.join("ca.pem"));
    let key = ["--key", "p256"];
    fleet.rotate(&["drop-ca"]).fails(1, &["append-ca"]);
    fleet
        .rotate(&[&["append-ca", "--ca-name", "warren CA"][..], &key].concat())
        .fails(1, &["--ca-name"]);
    fleet.rotate(&[&["append-ca"][..], &key].concat()).ok();
    fleet.rotate(&["append-ca"]).fails(1, &["already"]);

    // One of three has the new CA.
    fleet.roll_out(1);
    assert_eq!(fleet.phases(), [Some(0), Some(1), Some(0)]);
    fleet.rotate(&["new-leaf"]).fails(1, &["not yet", "10.0.0.1 h0", "10.0.0.3 h2", "ca.pem"]);
    assert_eq!(text(&fleet.folder.join("warren-instance.pem")), old_leaf);
    fleet.all();
    assert_narrow(&fleet.rotate(&[]).ok());
    fleet.rotate(&["drop-ca"]).fails(1, &["new-leaf"]);
    fleet.rotate(&["new-leaf", "--hosts", "4"]).fails(1, &["3 hosts", "4"]);
    fleet.rotate(&["new-leaf"]).fails(1, &["3 hosts are known", "new-leaf --hosts N", "--force"]);
    assert_eq!(text(&fleet.folder.join("warren-instance.pem")), old_leaf);
    fleet.rotate(&["new-leaf", "--hosts", "3"]).ok();
    assert_eq!(text(&fleet.folder.join("old-warren-instance.pem")), old_leaf);
    fleet.rotate(&["new-leaf"]).fails(1, &["already"]);

    fleet.folder.put("issuer", "warren next CA");
    fleet.roll_out(0);
    fleet.roll_out(2);
    assert_eq!(fleet.phases(), [Some(2), Some(1), Some(2)]);
    fleet.rotate(&["drop-ca"]).fails(1, &["not yet", "10.0.0.2 h1", "1 accepts"]);
    assert!(text(&fleet.folder.join("ca.pem")).contains(old_ca.trim_end()));
    fleet.all();
    fleet.rotate(&["drop-ca"]).fails(1, &["3 hosts are known", "drop-ca --hosts N", "--force"]);
    fleet.rotate(&["drop-ca", "--hosts", "3"]).ok();
    assert_eq!(text(&fleet.folder.join("old-ca.pem")).matches("BEGIN").count(), 2);
    assert_eq!(fleet.inspect("ca.pem")[0]["subject"], "CN=warren next CA");
    assert!(!fleet.folder.join("next-ca.key").exists());
    fleet.rotate(&[]).fails(1, &[]);
    fleet.all();
    assert_eq!(fleet.phases(), [Some(3); 3]);
    assert!(fleet.rotate(&[]).ok().contains("done"));

    // What it left is a folder like any other: the next certificate, and the next CA.
    fleet.rotate(&["new-leaf", "--force"]).ok();
    fleet.all();
    let next = ["append-ca", "--ca-name", "yet another CA", "--key", "p256"];
    fleet.rotate(&next).ok();
    fleet.all();
    assert_eq!(fleet.phases(), [Some(1); 3]);
}

#[test]
fn a_step_that_was_interrupted_is_done_again() {
    let mut fleet = Fleet::new(1);
    let before = text(&fleet.folder.join("ca.pem"));
    fleet.rotate(&["append-ca", "--key", "p256"]).ok();
    // next-ca.* is there, ca.pem is not written yet.
    fleet.folder.put("ca.pem", &before);
    fleet.rotate(&["new-leaf"]).fails(1, &["append-ca", "again"]);
    fleet.rotate(&["append-ca"]).ok();
    fleet.all();
    fleet.rotate(&["new-leaf", "--hosts", "1"]).ok();
    fleet.folder.put("issuer", "warren next CA");
    fleet.all();
    // The last CA is kept and ca.key is the next one's, but nothing else has happened yet.
    for end in ["pem", "key"] {
        fs::copy(
            fleet.folder.join(format!("ca.{end}")),
            fleet.folder.join(format!("old-ca.{end}")),
        )
        .unwrap();
    }
    let old_key = text(&fleet.folder.join("ca.key"));
    fs::copy(fleet.folder.join("next-ca.key"), fleet.folder.join("ca.key")).unwrap();
    fleet.rotate(&["drop-ca", "--hosts", "1"]).ok();
    assert_eq!(text(&fleet.folder.join("old-ca.key")), old_key);
    fleet.all();
    assert_eq!(fleet.phases(), [Some(3)]);
    // The certificate of the next CA is removed already, its key is not.
    fs::copy(fleet.folder.join("ca.key"), fleet.folder.join("next-ca.key")).unwrap();
    fleet.rotate(&["append-ca", "--ca-name", "yet another CA", "--key", "p256"]).ok();
    fleet.all();
    assert_eq!(fleet.phases(), [Some(1)]);
}

#[test]
fn who_is_not_known_holds_a_step_up() {
    let mut fleet = Fleet::new(2);
    fleet.rotate(&["append-ca", "--key", "p256"]).ok();
    fleet.all();
    fleet.hosts[1]["peers"] = json!([{"address": "10.0.0.7", "name": null, "certificate": null}]);
    fleet.rotate(&["new-leaf"]).fails(1, &["10.0.0.7", "not known", "--status"]);
    assert_eq!(fleet.phases(), [Some(1), Some(1), None]);
    // A peer has seen it.
    let cas = fleet.hosts[0]["node"]["certificates"].as_array().unwrap()[1..].to_vec();
    fleet.hosts[1]["peers"][0]["certificate"] =
        json!({"serial": "1", "ca": cas[0], "trusts": cas, "age_s": 3});
    fleet.rotate(&["new-leaf", "--hosts", "3"]).ok();
    // Nobody at all is asked.
    let rotate = ["pki", "rotate", "--dir", &fleet.path("")];
    finish(warren().args(["--control", &fleet.path("no.sock")]).args(rotate))
        .fails(3, &["no.sock"]);
    fleet.hosts = vec![json!({"peers": []})];
    fleet.rotate(&[]).fails(1, &["status-0", "warren status --json"]);
}

#[test]
fn renewal_repeats_names_and_kind_of_key() {
    let fleet = Fleet::new(0);
    let renew = |args: &[&str]| {
        let control = fleet.path("no.sock");
        let all = ["--json", "--control", &control, "pki", "renew", "--dir", &fleet.path("")];
        finish(warren().args(all).args(args))
    };
    let before = fleet.inspect("warren-instance.pem").remove(0);
    renew(&["--days", "20"]).ok();
    let after = fleet.inspect("warren-instance.pem").remove(0);
    assert_eq!(before["subject"], after["subject"]);
    assert_ne!(before["serial"], after["serial"]);
    assert_ne!(before["key_id"], after["key_id"]);
    assert_eq!(after["days_left"], 19);
    let size = |name: &str| text(&fleet.folder.join(name)).len();
    assert!(size("warren-instance.key").abs_diff(size("old-warren-instance.key")) < 8);
    // Never longer than its CA; and not under a key that is not the CA's.
    let said: Value = serde_json::from_str(&renew(&["--days", "3650"]).ok()).unwrap();
    assert!(said["note"].as_str().unwrap().contains("ends with its CA"), "{said}");
    assert_eq!(
        fleet.inspect("warren-instance.pem")[0]["not_after"],
        fleet.inspect("ca.pem")[0]["not_after"]
    );
    let other = Fleet::new(0);
    fs::copy(other.folder.join("ca.key"), fleet.folder.join("ca.key")).unwrap();
    let there = text(&fleet.folder.join("warren-instance.pem"));
    renew(&[]).fails(1, &["ca.key"]);
    assert_eq!(text(&fleet.folder.join("warren-instance.pem")), there);
    renew(&["nobody"]).fails(1, &["nobody.pem"]);
}

#[test]
fn a_host_that_would_refuse_it_holds_a_renewal_up() {
    let (fleet, other) = (Fleet::new(1), Fleet::new(1));
    let status = fleet.folder.put("other", other.hosts[0].to_string());
    let renew = |more: &[&str]| {
        let control = fleet.path("no.sock");
        let mut command = warren();
        command.args(["--control", &control, "pki", "renew", "--dir", &fleet.path("")]);
        finish(command.arg("--status").arg(&status).args(more))
    };
    renew(&[]).fails(1, &["refused by 10.0.0.1", "ca.pem"]);
    renew(&["--force"]).ok();
}

#[test]
fn what_if_it_were_another_day() {
    let fleet = Fleet::new(0);
    let leaf = fleet.path("warren-instance.pem");
    let level = |date: &str| {
        let shown =
            finish(warren().args(["--json", "pki", "inspect", &leaf, "--as-of", date])).ok();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["certificates"][0]["level"].as_str().unwrap().to_owned()
    };
    let dates = ["+1d", "+340d", "+355d", "+360d", "+363d", "+366d"];
    assert_eq!(dates.map(level), ["ok", "info", "warn", "error", "critical", "expired"]);
    let read = |name: &str| text(&fleet.folder.join(name));
    let text = world::pki::properties(
        &read("warren-instance.pem"),
        &read("warren-instance.key"),
        &read("ca.pem"),
    );
    let more = "ipsec_subnets: [10.0.0.0/8]\ninstance_certificate_info_period: 100\n";
    let manifest = fleet.folder.put("warren.yml", format!("{more}{text}"));
    let check = |date: &str| {
        let manifest = manifest.to_str().unwrap();
        finish(warren().args([
            "--json",
            "check",
            manifest,
            "--address",
            "10.0.0.1",
            "--as-of",
            date,
        ]))
    };
    // By the manifest's own period.
    let shown: Value = serde_json::from_str(&check("+300d").ok()).unwrap();
    assert_eq!(shown["certificates"][0]["level"], "info", "{shown:#}");
    assert!(check("+366d").out.contains("expired"));
    assert_eq!(check("+366d").code, Some(1));
    check("tomorrow").fails(2, &["tomorrow", "2027-03-01"]);
}
