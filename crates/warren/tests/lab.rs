//! `warren lab` as it is typed: what it shows, what it ends with, and that nothing stays.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

mod world;

use std::path::Path;
use std::process::Child;

use linux::netns::Netns;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use world::{Ended, Folder, eventually, finish, root, warren};

fn lab(args: &[&str]) -> Ended {
    finish(warren().arg("lab").args(args))
}

/// Namespaces and folders of the demo or the scenario of this process.
fn traces(pid: u32) -> Vec<String> {
    let names = ["demo", "scenario"].map(|kind| format!("warren-{kind}-{pid}"));
    let ours = |n: &String| names.iter().any(|name| n.starts_with(name));
    let mut found: Vec<_> = Netns::list().into_iter().filter(ours).collect();
    for place in ["/run", "/dev/shm"] {
        let there = names.iter().filter(|name| Path::new(place).join(name).exists());
        found.extend(there.cloned());
    }
    found
}

#[test]
fn scenarios_are_listed_and_mistakes_are_named() {
    let list: Value = serde_json::from_str(&lab(&["scenario", "--list", "--json"]).ok()).unwrap();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|s| s["name"].as_str()).collect();
    for name in ["mesh", "restart", "drift", "rollout"] {
        assert!(names.contains(&Some(name)), "{name} in {names:?}");
    }
    if !root() {
        return;
    }
    lab(&["scenario", "nonsense"]).fails(2, &["nonsense", "restart"]);
    lab(&["scenario"]).fails(2, &["NAME"]);
    lab(&["scenario", "mesh", "--all"]).fails(2, &["--all"]);
    lab(&["scenario", "exempt", "--hosts", "2"]).fails(2, &["exempt", "3 to 20"]);
}

#[test]
fn a_scenario_with_an_operators_manifest_measures_and_leaves_nothing() {
    if !root() {
        return;
    }
    let folder = Folder::new();
    let text = "ipsec_subnets: [10.66.8.0/24]\npsk: correct horse battery staple\n";
    let file = folder.put("own.yml", text);
    let file = file.to_str().unwrap();
    let args = ["lab", "scenario", "mesh", "--json", "--hosts", "3", "--data-plane", "userspace"];
    let child = warren().args(args).args(["-m", file]).spawn().unwrap();
    let pid = child.id();
    let shown = Ended::of(child.wait_with_output().unwrap()).ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["verdict"], &shown["hosts"]), (&"pass".into(), &3.into()), "{shown:#}");
    assert_eq!(shown["data_plane"], "userspace");
    let measures = shown["measures"].as_array().unwrap();
    assert!(measures.len() > 5 && measures.iter().all(|m| m["ok"] == true), "{shown:#}");
    assert!(shown["steps"].as_array().unwrap().len() > 2, "{shown:#}");
    assert_eq!(traces(pid), Vec::<String>::new());
}

#[test]
fn a_scenario_that_is_interrupted_leaves_nothing() {
    if !root() {
        return;
    }
    let child = warren().args(["lab", "scenario", "halfling", "--hosts", "3"]).spawn().unwrap();
    let pid = child.id();
    eventually("the first namespaces", || (traces(pid).len() > 3).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(700));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert!(matches!(ended.code, Some(1)), "{ended:#?}");
    assert_eq!(traces(pid), Vec::<String>::new());
}

fn demo(args: &[&str]) -> Child {
    warren().args(["lab", "demo"]).args(args).spawn().unwrap()
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    if !root() {
        return;
    }
    // Early, and in the midst of it.
    for wait in [1, 4] {
        let child = demo(&["--hosts", "3", "--json"]);
        let pid = child.id();
        eventually("the first namespaces", || (traces(pid).len() > wait).then_some(()));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ended = Ended::of(child.wait_with_output().unwrap());
        assert!(matches!(ended.code, Some(1)), "{ended:#?}");
        assert_eq!(traces(pid), Vec::<String>::new());
    }
}

#[test]
fn a_demo_of_a_manifest_that_is_refused_leaves_nothing() {
    if !root() {
        return;
    }
    let folder = Folder::new();
    let psk = "psk: correct horse battery staple\n";
    for (text, words) in [
        ("ipsec_subnets: [nonsense]\n".to_owned(), &["own.yml:1", "nonsense"][..]),
        (format!("ipsec_subnets: [10.77.0.0/30]\n{psk}"), &["10.77.0.0/30", "room for 2"]),
        (
            format!("ipsec_subnets: ['fd00::/64']\nno_ipsec_subnets: ['fd00::/64']\n{psk}"),
            &["fd00::/64"],
        ),
    ] {
        let file = folder.put("own.yml", text);
        let child = demo(&["--hosts", "3", "-m", file.to_str().unwrap()]);
        let pid = child.id();
        let ended = Ended::of(child.wait_with_output().unwrap());
        ended.refused(words);
        assert_eq!(traces(pid), Vec::<String>::new());
    }
    let missing = lab(&["demo", "-m", "/nonexistent.yml"]);
    missing.refused(&["/nonexistent.yml"]);
}

#[test]
fn a_demo_with_an_operators_manifest() {
    if !root() {
        return;
    }
    let folder = Folder::new();
    let keep = folder.join("keep");
    let text = "# ours\nipsec_subnets:\n- 10.66.7.9/24\nno_ipsec_subnets:\n- 10.66.7.1/32\npsk: correct horse battery staple\nesp_proposals: aes256gcm16!\n";
    let file = folder.put("own.yml", text);
    let child = demo(&[
        "--hosts",
        "3",
        "--json",
        "-m",
        file.to_str().unwrap(),
        "--keep",
        keep.to_str().unwrap(),
    ]);
    let pid = child.id();
    let shown = Ended::of(child.wait_with_output().unwrap()).ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    for (key, wanted) in [
        ("hosts", 3),
        ("pairs", 3),
        ("pairs_up", 3),
        ("ike_sas_per_pair_max", 1),
        ("child_sas_per_pair_max", 1),
        ("packets_lost", 0),
        ("cleartext_packets", 0),
    ] {
        assert_eq!(shown[key], wanted, "{key} of {shown:#}");
    }
    for key in ["packets_sent", "esp_packets"] {
        assert!(shown[key].as_u64().unwrap() > 100, "{key} of {shown:#}");
    }
    assert!(shown["seconds_to_all_up"].as_f64().unwrap() > 0.0);
    assert!(std::fs::read_to_string(keep.join("h3/log")).unwrap().contains("manifest in force"));
    assert_eq!(traces(pid), Vec::<String>::new());
}

#[test]
fn up_exec_down() {
    if !root() {
        return;
    }
    let up = lab(&["up", "--hosts", "2"]);
    if up.code == Some(1) && up.err.contains("lab is") {
        eprintln!("SKIPPED: a lab is up on this machine");
        return;
    }
    let _down = Down;
    assert!(up.ok().contains("warren lab exec h1"));
    lab(&["up"]).fails(1, &["a lab is up", "lab down"]);
    lab(&["exec", "h3", "true"]).fails(1, &["h3", "h1 to h2"]);
    lab(&["exec", "h1", "no-such-program"]).fails(1, &["no-such-program"]);
    assert_eq!(lab(&["exec", "h1", "sh", "-c", "exit 7"]).code, Some(7));
    let status = lab(&["exec", "1", "warren", "status", "--json"]).ok();
    let status: Value = serde_json::from_str(&status).unwrap();
    let [one, two] = [status["node"]["address"].as_str().unwrap(), "10.99.0.2"];
    assert_eq!(one, "10.99.0.1");
    lab(&["exec", "h1", "warren", "up", two]).ok();
    eventually("a tunnel", || {
        (lab(&["exec", two, "warren", "status", one]).code == Some(0)).then_some(())
    });
    lab(&["down"]).ok();
    assert!(!Path::new("/run/warren-lab").exists());
    assert!(!Netns::list().iter().any(|name| name.starts_with("warren-lab")));
    lab(&["down"]).fails(1, &["no lab is up"]);
    lab(&["exec", "h1", "true"]).fails(1, &["no lab is up"]);
}

/// Takes the lab away, however the test ends.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        let _ = warren().args(["lab", "down"]).output();
    }
}
