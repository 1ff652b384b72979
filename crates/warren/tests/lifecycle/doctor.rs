//! `doctor`: what is well, what is broken on purpose, and what it says of it.

use std::process::Command;

use linux::xfrm::{Action, Direction, Policy, Selector, Xfrm};
use serde_json::Value;

use crate::world::daemon::Daemon;
use crate::world::{Ended, assert_narrow, finish, root};
use crate::{BASE, Mesh, NAMES};

/// What it found of one kind, as `level: text`.
fn found(report: &Value, check: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let of = checks.iter().filter(|finding| finding["check"] == check);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of.map(|finding| format!("{}: {}", text(&finding["level"]), text(&finding["text"]))).collect()
}

#[track_caller]
fn has(report: &Value, check: &str, level: &str, words: &[&str]) {
    let all = found(report, check);
    let fits = |line: &String| line.starts_with(level) && words.iter().all(|w| line.contains(w));
    assert!(all.iter().any(fits), "no {level} {words:?} among {all:#?}\n{report:#}");
}

fn ask(daemon: &Daemon, args: &[&str]) -> (Ended, Value) {
    let state = daemon.folder.join("state");
    let mut command = daemon.typed(&["doctor", "--json", "--state-dir"]);
    let ended = finish(command.arg(&state).args(args));
    let report = serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:#?}"));
    (ended, report)
}

#[test]
fn a_healthy_pair_has_no_errors_and_every_check_was_made() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(&format!("{BASE}{NAMES}"));
    let one = &mesh.daemons[0];
    let (ended, report) = ask(one, &["two"]);
    assert_eq!(ended.code, Some(0), "{report:#}");
    assert_eq!(report["errors"], 0);
    has(&report, "answers", "ok", &["data plane"]);
    has(&report, "in force", "ok", &["this very file"]);
    has(&report, "address", "ok", &["10.77.0.1 lies in 10.77.0.0/24"]);
    has(&report, "credentials", "ok", &["pre-shared key"]);
    has(&report, "interface", "ok", &["eth0, which is up"]);
    has(&report, "port", "ok", &["UDP 500 (IPv4) is Warren's"]);
    has(&report, "port", "ok", &["UDP 4500 (IPv4) is Warren's"]);
    has(&report, "route", "ok", &["on the link by eth0"]);
    has(&report, "tunnel", "ok", &["up, verdict ok"]);
    has(&report, "child SA", "ok", &["aes128gcm16 transport"]);
    has(&report, "IKE in the clear", "ok", &["UDP 500 answers"]);
    has(&report, "IKE in the clear", "ok", &["UDP 4500 answers"]);
    has(&report, "inside", "ok", &["through the tunnel"]);
    let text = finish(one.typed(&["doctor", "two"]).arg("--state-dir").arg(&*one.folder)).ok();
    assert_narrow(&text);
    assert!(text.contains("peer 10.77.0.2") && text.contains("0 errors"), "{text}");
    // Of all peers, one line.
    let (_, all) = ask(one, &[]);
    has(&all, "tunnels", "ok", &["1 of 1 up"]);
}

#[test]
fn a_manifest_that_changed_is_told_from_one_that_would_not_load() {
    if !root() {
        return;
    }
    let mesh = Mesh::of(&["10.77.0.1"], 24, 1, BASE);
    let one = &mesh.daemons[0];
    one.folder.put("warren.yml", format!("{BASE}dpddelay: 20\n"));
    let (ended, report) = ask(one, &[]);
    assert_eq!(ended.code, Some(0), "{report:#}");
    has(&report, "in force", "warning", &["is not what the daemon has loaded"]);
    one.folder.put("warren.yml", "ipsec_subnetz: []\n");
    let (ended, report) = ask(one, &[]);
    assert_eq!(ended.code, Some(1));
    has(&report, "accepted", "error", &["did you mean", "ipsec_subnets"]);
    // Nobody may be asked of a peer that is none.
    one.warren(&["doctor", "nobody"]).fails(1, &["nobody"]);
}

#[test]
fn without_a_daemon_it_names_who_has_the_port_and_what_it_cannot_know() {
    if !root() {
        return;
    }
    let mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 0, BASE);
    let one = &mesh.daemons[0];
    let file = one.folder.put("warren.yml", format!("{BASE}{NAMES}"));
    let file = file.to_str().unwrap();
    let taken = mesh.net.udp(0, 500);
    let (ended, report) = ask(one, &["-m", file, "two"]);
    assert_eq!(ended.code, Some(1));
    let pid = std::process::id().to_string();
    has(&report, "port", "error", &["UDP 500 (IPv4) is held by", &pid]);
    has(&report, "port", "ok", &["UDP 4500 is free"]);
    has(&report, "answers", "skipped", &["no daemon"]);
    has(&report, "tunnel", "skipped", &["no daemon"]);
    has(&report, "IKE in the clear", "warning", &["UDP 500 does not answer"]);
    drop(taken);
    let (ended, report) = ask(one, &["-m", file]);
    assert_eq!(ended.code, Some(0), "{report:#}");
    // Nobody says that none is expected.
    let (ended, report) = ask(one, &[]);
    assert_eq!(ended.code, Some(1));
    has(&report, "answers", "error", &["no daemon"]);
}

#[test]
fn a_peer_that_refuses_is_an_error_with_its_verdict() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 1, BASE);
    mesh.daemons[1].start(&BASE.replace("correct", "another"));
    let one = &mesh.daemons[0];
    one.warren(&["up", "10.77.0.2"]).ok();
    one.until(mesh.address(1), "a failure", |row| row["last_error"].is_string());
    let (ended, report) = ask(one, &["10.77.0.2"]);
    assert_eq!(ended.code, Some(1), "{report:#}");
    has(&report, "tunnel", "error", &["verdict ipsec_broken"]);
    has(&report, "last error", "warning", &["next attempt in"]);
    has(&report, "IKE in the clear", "ok", &["UDP 500 answers"]);
    has(&report, "inside", "skipped", &["no tunnel"]);
    let (ended, report) = ask(one, &[]);
    assert_eq!(ended.code, Some(1));
    has(&report, "tunnel", "error", &["10.77.0.2 is"]);
}

#[test]
fn firewalls_and_foreign_policies_in_the_way_are_found() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(BASE);
    let one = &mesh.daemons[0];
    let nft = |rules: &str| -> bool {
        let path = one.folder.put("rules.nft", rules);
        mesh.net.hosts[0]
            .run(|| Command::new("nft").arg("-f").arg(&path).status().is_ok_and(|s| s.success()))
    };
    let rules = "table inet t {\n chain in { type filter hook input priority 0; policy accept;\n\
        udp dport { 500, 4500 } accept\n meta l4proto esp counter drop comment \"old vpn\"\n }\n}\n";
    if nft(rules) {
        let (ended, report) = ask(one, &[]);
        assert_eq!(ended.code, Some(1), "{report:#}");
        has(&report, "rules", "error", &["ESP in is dropped", "old vpn"]);
        has(&report, "rules", "ok", &["UDP 4500 in passes"]);
        has(&report, "rules", "ok", &["ESP out passes"]);
        assert!(nft("flush ruleset\n"));
    } else {
        eprintln!("SKIPPED: no nft, or a kernel without nftables");
    }
    let foreign = mesh.net.hosts[0].run(|| {
        let between = |a: &str, b: &str| Selector::between(a.parse().unwrap(), b.parse().unwrap());
        let policy =
            Policy::new(Direction::Out, 7, between("10.77.0.0/24", "10.77.0.9/32"), Action::Block);
        Xfrm::open().is_ok_and(|mut xfrm| xfrm.put_policy(&policy).is_ok())
    });
    if foreign {
        let (ended, report) = ask(one, &[]);
        assert_eq!(ended.code, Some(0), "{report:#}");
        has(&report, "foreign policies", "warning", &["10.77.0.9/32", "priority 7"]);
    } else {
        eprintln!("SKIPPED: a kernel without XFRM");
    }
}
