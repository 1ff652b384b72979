//! `trace`: one peer's messages and what comes of them, live and recorded; the others stay quiet.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::world::{assert_narrow, eventually, finish, root, warren};
use crate::{BASE, Mesh, NAMES};

const PSK: &str = "correct horse battery staple";

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line[key].as_str().unwrap_or_default()
}

/// A handshake as both ends see it, each message with what is inside.
#[track_caller]
fn has_handshake(lines: &[Value]) {
    let messages: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "message").collect();
    for (exchange, inside) in [
        ("IKE_SA_INIT request", "KE"),
        ("IKE_SA_INIT response", "KE"),
        ("IKE_AUTH request", "IDi"),
        ("IKE_AUTH response", "IDr"),
    ] {
        let fits = |line: &&&Value| {
            text(line, "text").contains(exchange) && text(line, "text").contains(inside)
        };
        assert!(messages.iter().any(|line| fits(&line)), "no {exchange} with {inside}: {lines:#?}");
    }
    let ends: Vec<_> = messages.iter().map(|line| (text(line, "src"), text(line, "dst"))).collect();
    assert!(ends.contains(&("10.77.0.1:500", "10.77.0.2:500")), "{ends:?}");
    assert!(ends.contains(&("10.77.0.2:500", "10.77.0.1:500")), "{ends:?}");
}

#[test]
fn a_peer_is_traced_while_the_others_stay_quiet() {
    if !root() {
        return;
    }
    let mesh = Mesh::start(3, &format!("{BASE}{NAMES}"));
    for host in [0, 1] {
        let one = &mesh.daemons[host];
        let mut child = one.typed(&["trace", ["two", "one"][host], "--json"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next =
            || -> Value { serde_json::from_str(&lines.next().expect("the end").unwrap()).unwrap() };
        let head = next();
        assert_eq!(head["peer"], ["10.77.0.2", "10.77.0.1"][host], "{head:#}");
        one.warren(&["up", "10.77.0.3"]).ok();
        one.warren(&["restart", ["two", "one"][host]]).ok();
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &Value| line["event"] == "child-up") {
            seen.push(next());
        }
        has_handshake(&seen);
        let all = format!("{seen:?}");
        assert!(!all.contains("10.77.0.3") && !all.contains(PSK), "{all}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn what_passed_is_remembered_and_becomes_a_capture() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::pair(&format!("{BASE}{NAMES}"));
    let one = &mesh.daemons[0];
    let recorded = one.json(&["trace", "two", "--recorded"]);
    let entries = recorded["entries"].as_array().unwrap();
    has_handshake(entries);
    assert!(entries.iter().any(|entry| entry["event"] == "child-up"), "{recorded:#}");
    assert!(entries.iter().all(|entry| entry.get("packet").is_none()));
    let pcap = one.folder.join("two.pcap");
    let ended =
        one.warren(&["trace", "two", "--recorded", "--detail", "--write", pcap.to_str().unwrap()]);
    assert!(ended.err.contains("two.pcap"), "{ended:#?}");
    let shown = ended.ok();
    assert_narrow(&shown);
    assert!(shown.contains("IKE_AUTH response 1 [ ") && !shown.contains(PSK), "{shown}");
    assert_eq!(pcap.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let decoded = finish(warren().arg("decode").arg(&pcap).arg("--json")).ok();
    let decoded: Value = serde_json::from_str(&decoded).unwrap();
    let messages = entries.iter().filter(|entry| entry["kind"] == "message").count();
    assert_eq!(decoded["sums"]["messages"], messages, "{decoded:#}");
    assert_eq!(decoded["sums"]["malformed"], 0);
    // What went wrong is remembered as well, of the peer that it went wrong with.
    mesh.daemons[1].warren(&["stop", "--flush"]).ok();
    assert!(mesh.daemons[1].ended().success());
    mesh.daemons[1].start(&BASE.replace("correct", "another"));
    let one = &mesh.daemons[0];
    one.warren(&["up", "two"]).ok();
    eventually("a failure in the recording", || {
        let recorded = one.json(&["trace", "two", "--recorded"]);
        let entries = recorded["entries"].as_array().unwrap();
        entries.iter().any(|entry| entry["event"] == "local-auth-failed").then_some(())
    });
    let other = one.json(&["trace", "10.77.0.3", "--recorded"]);
    assert_eq!(other["entries"].as_array().unwrap().len(), 0);
}
