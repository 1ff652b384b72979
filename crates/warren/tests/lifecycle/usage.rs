//! Exit codes, and what the commands say when they cannot do what was typed.

use crate::world::{Folder, finish, root, warren};
use crate::{BASE, Mesh, NAMES};

#[test]
fn wrong_usage_ends_2() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["status", "one", "two"],
        &["up"],
        &["run"],
        &["explain", "10.0.0.1"],
        &["explain", "here", "there"],
        &["explain", "10.0.0.1", "10.0.0.2", "quic"],
        &["explain", "10.0.0.1", "10.0.0.2", "icmp", "22"],
        &["explain", "10.0.0.1", "10.0.0.2", "tcp", "70000"],
        &["lab", "up", "--hosts", "1"],
        &["pki", "issue", "--days", "0"],
        &["mtu", "--suite", "aes127"],
        &["trace"],
        &["import"],
        &["import", "x", "--certificate", "file:a.pem"],
        &["trace", "10.77.0.2", "--write", "x.pcap"],
        &["mtu", "10.77.0.2", "--family", "6"],
        &["doctor", "one", "two"],
        &["check", "a", "--address", "10.0.0.256"],
    ] {
        let ended = finish(warren().args(args));
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:#?}");
        assert!(!ended.err.is_empty(), "{args:?} says nothing");
    }
    finish(warren().arg("--help")).ok();
    finish(warren().arg("--version")).ok();
}

#[test]
fn no_daemon_ends_3() {
    let folder = Folder::new();
    let control = folder.join("control.sock");
    let file = folder.put("warren.yml", BASE);
    for args in [
        &["status"][..],
        &["status", "10.77.0.2"],
        &["up", "10.77.0.2"],
        &["down", "10.77.0.2"],
        &["restart", "10.77.0.2"],
        &["rekey", "10.77.0.2"],
        &["reload"],
        &["stop"],
        &["stop", "--flush"],
        &["monitor"],
        &["explain", "10.77.0.1", "10.77.0.2"],
        &["mtu", "10.77.0.2"],
        &["trace", "10.77.0.2"],
        &["capture"],
        &["capture", "10.77.0.2"],
        &["trace", "10.77.0.2", "--recorded"],
        &["plan", file.to_str().unwrap()],
        &["keys", "export", "--wireshark", folder.to_str().unwrap()],
    ] {
        for json in [false, true] {
            let mut command = warren();
            command.arg("--control").arg(&control).args(args).args(json.then_some("--json"));
            finish(&mut command).fails(3, &["no daemon on", "control.sock", "warren run"]);
        }
    }
}

#[test]
fn a_no_ends_1() {
    if !root() {
        return;
    }
    let mesh = Mesh::of(&["10.77.0.1"], 24, 1, &format!("{BASE}{NAMES}"));
    let one = &mesh.daemons[0];
    one.warren(&["status", "10.77.0.2"]).fails(1, &[]);
    one.warren(&["status", "10.99.0.2"]).fails(1, &["10.99.0.2", "not a peer"]);
    one.warren(&["up", "three"]).fails(1, &["three", "warren status"]);
    one.warren(&["up", "10.77.0.1"]).fails(1, &["10.77.0.1"]);
    one.warren(&["down", "c0ffee00"]).fails(1, &["0xc0ffee00", "--json"]);
    one.warren(&["rekey", "two"]).fails(1, &["not up", "warren up"]);
    one.warren(&["trace", "10.99.0.2"]).fails(1, &["10.99.0.2", "not a peer"]);
    one.warren(&["trace", "10.99.0.2", "--recorded"]).fails(1, &["10.99.0.2", "not a peer"]);
    one.warren(&["plan", "/nonexistent.yml"]).fails(1, &["nonexistent.yml"]);
    // Hostile words are words.
    let nothing = one.folder.put("nothing.conf", "hello\n");
    one.warren(&["import", nothing.to_str().unwrap()]).fails(1, &["nothing.conf", "--format"]);
    one.warren(&["import", "/nonexistent"]).fails(1, &["/nonexistent"]);
    for word in ["", " ", "\u{1b}[31m", "a&peer=10.77.0.2", "%00", "../x", &"x".repeat(5000)] {
        one.warren(&["status", word]).fails(1, &[]);
        one.warren(&["down", word]).fails(1, &[]);
    }
}
